//! The [`Transport`] trait and its [`Driver`], for transports of the program's own.

use crate::endpoint;
use crate::session::Handlers;

pub mod stepping;
pub mod stub;

pub use crate::stream::{
    Budget, Buffers, Driver, Peer, Progress, StreamProtocol, Transport, Wants, WriteBuffer,
};

/// A server that creates [drivers](endpoint::Server::driver) for transports of the program's own.
pub type Server<F = Handlers> = endpoint::Server<(), F>;

/// A client that creates [drivers](endpoint::Client::driver) for transports of the program's own.
pub type Client<F = Handlers> = endpoint::Client<(), F>;
