//! How the sockets of an endpoint are made.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use socket2::{SockRef, Socket};

use super::eyeballs;

/// How listeners are made.
///
/// The example of [`Endpoint`](super::Endpoint) sets one.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ListenOptions {
    /// So many connections may wait to be accepted; the operating system has a limit of its own. By
    /// default 4096.
    pub backlog: u32,
    /// Takes an address of which a former process still has connections (`SO_REUSEADDR`). By default
    /// true, but for Windows, where it means something else.
    pub reuse_address: bool,
    /// Takes an address together with other sockets that also have this set, among which the operating
    /// system distributes connections (`SO_REUSEPORT`; Unix). By default false.
    pub reuse_port: bool,
}

impl Default for ListenOptions {
    fn default() -> Self {
        Self { backlog: 4096, reuse_address: cfg!(unix), reuse_port: false }
    }
}

/// How connections are made: the time that each stage may take. The opening handshake has a time of its
/// own, in [`ClientOptions`](anyloop_proto::handshake::ClientOptions).
///
/// ```
/// use anyloop::Client;
/// use anyloop::endpoint::ClientSettings;
/// use anyloop::net::Net;
/// use std::time::Duration;
///
/// let mut client = Client::<Net>::new(ClientSettings::default());
/// client.transport_mut().connect.connect_timeout = Some(Duration::from_secs(3));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConnectOptions {
    /// For looking up the host. By default 10 s; `None`: as long as the resolver takes.
    pub resolve_timeout: Option<Duration>,
    /// For connecting to one of its addresses. By default 10 s; `None`: as long as the operating system
    /// takes.
    pub connect_timeout: Option<Duration>,
    /// For everything, up to the open connection. By default there is none but those of the stages.
    pub total_timeout: Option<Duration>,
    /// After this time another address is tried beside those that have not answered (RFC 8305 §5). By
    /// default 250 ms.
    pub attempt_delay: Duration,
}

impl Default for ConnectOptions {
    fn default() -> Self {
        Self {
            resolve_timeout: Some(Duration::from_secs(10)),
            connect_timeout: Some(Duration::from_secs(10)),
            total_timeout: None,
            attempt_delay: eyeballs::ATTEMPT_DELAY,
        }
    }
}

type PreBind = dyn Fn(&Socket) -> io::Result<()> + Send + Sync;
type OnSocket = dyn Fn(&SockRef<'_>) -> io::Result<()> + Send + Sync;
type OnError = dyn Fn(&io::Error) + Send + Sync;

/// What the program does with sockets.
#[derive(Clone, Default)]
pub(super) struct Hooks {
    pub(super) tcp_pre_bind: Option<Arc<PreBind>>,
    pub(super) socket_init: Option<Arc<OnSocket>>,
    pub(super) accept_error: Option<Arc<OnError>>,
}

impl Hooks {
    /// Sets the program's options of a connection's socket.
    pub(super) fn set_up(&self, socket: &SockRef<'_>) -> io::Result<()> {
        self.socket_init.as_ref().map_or(Ok(()), |hook| hook(socket))
    }
}
