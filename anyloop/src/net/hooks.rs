//! The application's hooks for the sockets of an endpoint.

use std::io;
use std::sync::Arc;

use socket2::{SockRef, Socket};

type PreBind = dyn Fn(&Socket) -> io::Result<()> + Send + Sync;
type OnSocket = dyn Fn(&SockRef<'_>) -> io::Result<()> + Send + Sync;
type OnError = dyn Fn(&io::Error) + Send + Sync;

/// The application's functions for sockets.
#[derive(Clone, Default)]
pub(super) struct Hooks {
    pub(super) tcp_pre_bind: Option<Arc<PreBind>>,
    pub(super) socket_init: Option<Arc<OnSocket>>,
    pub(super) accept_error: Option<Arc<OnError>>,
}

impl Hooks {
    /// Calls `socket_init` with a connection's socket.
    pub(super) fn set_up(&self, socket: &SockRef<'_>) -> io::Result<()> {
        self.socket_init.as_ref().map_or(Ok(()), |hook| hook(socket))
    }
}
