//! A WebSocket state machine without sockets, clocks or threads (sans-io).
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(feature = "std")]
extern crate std;

mod assembly;
mod close;
mod close_code;
mod cold;
mod config;
mod connection;
mod contexts;
#[cfg(feature = "deflate")]
pub mod deflate;
mod error;
pub mod extension;
pub mod frame;
#[cfg(feature = "std")]
pub mod handshake;
mod input;
mod kind;
mod message;
mod output;
#[cfg(feature = "std")]
pub mod owned;
mod partial;
#[cfg(feature = "std")]
mod payload;
mod pool;
#[cfg(feature = "std")]
mod protocol;
mod random;
mod time;
mod utf8;

pub use close::{CloseFrame, MAX_REASON, check_close, truncate_reason};
pub use close_code::{CloseCode, InvalidCloseCode};
pub use config::{Config, Role};
pub use connection::{
    Connection, Ending, Receiver, SendQueue, Sender, Shutdown, Statistics, Timer,
};
pub use error::{
    Cause, ExtensionError, Failure, Field, FirstBytes, HandshakeError, Party, Refused,
    ResponseError, State, TransportError,
};
pub use input::Input;
pub use kind::Kind;
pub use message::{Chunk, Event, Message, Prepared, Text, Uncompressed};
pub use output::{LARGE_PAYLOAD, Output};
#[cfg(feature = "std")]
pub use payload::Payload;
pub use pool::BufferPool;
#[cfg(feature = "std")]
pub use protocol::Protocol;
#[cfg(feature = "std")]
pub use random::OsRandom;
pub use random::Random;
pub use time::Instant;
