//! TLS in both roles, with [rustls].

mod client;
mod error;
mod info;
mod optional;
mod pem;
mod provider;
mod records;
mod self_signed;
mod server;
mod server_name;
mod stream;

pub use client::{ClientTls, ClientTlsBuilder};
pub use error::{TlsConfigError, TlsError};
pub use info::TlsInfo;
pub(crate) use optional::OptionalTls;
pub(crate) use records::Records;
pub use rustls;
pub use server::{ServerTls, ServerTlsBuilder};
pub use stream::TlsStream;
