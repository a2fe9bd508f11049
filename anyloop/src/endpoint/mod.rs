//! Endpoints: what an application is told and may do, whatever carries the bytes.

mod backlog;
mod client;
mod context;
mod core;
mod counters;
mod error;
mod gate;
mod handle;
mod handler;
mod handlers;
mod io;
mod line;
mod registry;
mod server;
mod session;
mod settings;
mod timers;

pub use backlog::{Completion, Unsent};
pub use client::Client;
pub use context::Context;
pub use counters::Counters;
pub use error::{SendError, Sent};
pub use handle::{ConnectionId, Handle};
pub use handler::{Factory, Handler, Verdict};
pub use handlers::{Handlers, LocalHandlers};
pub use io::{Facts, Scratch};
pub use server::Server;
pub use session::Session;
pub use settings::{BacklogLimits, ClientSettings, Overflow, ServerSettings};
pub use timers::TimerId;

// For transports of this crate.
pub(crate) use self::core::ServerCore;
pub(crate) use gate::Gate;
pub(crate) use handle::Seat;
pub(crate) use registry::Roster;
