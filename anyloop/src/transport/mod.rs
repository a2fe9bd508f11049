//! What carries a connection's bytes: the [`Transport`] trait and its [`Driver`], and the transports
//! that need no event loop.

pub mod iostream;
pub mod stepping;
pub mod stub;

pub use crate::stream::{
    Budget, Buffers, Driver, Peer, Progress, StreamProtocol, Transport, Wants, WriteBuffer,
};
