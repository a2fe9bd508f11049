//! Listening sockets.

use std::fmt;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
#[cfg(unix)]
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use mio::net::TcpListener;
#[cfg(unix)]
use mio::net::UnixListener;
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::hooks::Hooks;
use super::layer::ListenerTls;
use crate::endpoint::ListenOptions;
use crate::event_loop::{Events, IdleListener, Registry, Socket as StreamSocket, Token, tcp_peer};
use crate::sync::unmodelled::{Mutex, MutexGuard};
use crate::transport::Peer;

/// The address of a listener.
///
/// ```
/// use anyloop::net::Server;
/// use anyloop::prelude::*;
/// use anyloop::net::LocalAddress;
///
/// let server = Server::new(ServerConfig::new(OriginPolicy::Any))?;
/// let address = server.listen("127.0.0.1:0")?; // port 0: any that is free
/// assert_eq!(server.local_addresses(), [LocalAddress::Tcp(address)]);
/// assert_eq!(server.local_addresses()[0].to_string(), address.to_string());
/// # Ok::<(), anyloop::net::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LocalAddress {
    /// A TCP address.
    Tcp(SocketAddr),
    /// A Unix socket; without a path if it has none.
    #[cfg(unix)]
    Unix(Option<PathBuf>),
}

impl fmt::Display for LocalAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            #[cfg(unix)]
            Self::Unix(Some(path)) => write!(f, "unix:{}", path.display()),
            #[cfg(unix)]
            Self::Unix(None) => f.write_str("unix:(unnamed)"),
        }
    }
}

/// Whether accepted sockets are known to inherit the listener's `TCP_NODELAY`.
const INHERITS_NODELAY: bool = cfg!(any(target_os = "linux", target_os = "android"));

/// How accepted connections get their `TCP_NODELAY`.
#[derive(Clone, Copy)]
pub(super) enum Nodelay {
    /// From the listener.
    Inherited,
    /// It is set on each connection until the accept queue was empty once: connections that were queued before the
    /// listener got the option do not inherit it.
    SetUntilDrained(bool),
    /// It is set on each connection.
    Set(bool),
}

/// The versions of IP that a socket for an IPv6 address accepts. It has no effect for an IPv4 address.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum IpVersions {
    OnlyV6,
    Both,
}

/// The listeners of an endpoint.
#[derive(Default)]
pub(super) struct Listeners(Mutex<Vec<Arc<Listener>>>);

/// A listener. The endpoint can close it while the loop accepts from it.
pub(super) struct Listener {
    address: LocalAddress,
    /// The `TCP_NODELAY` that every connection inherits from the socket; `None` if some may not inherit it.
    nodelay: Option<bool>,
    tls: ListenerTls,
    state: Mutex<State>,
}

struct State {
    /// Absent when the listener is closed.
    socket: Option<ListenSocket>,
    /// Makes the loop warn if it ends for lack of work. Present until [`register`](Listener::register) or
    /// [`close`](Listener::close).
    idle: Option<IdleListener>,
    /// Wakes the acceptor. Present from [`register`](Listener::register) until the listener is closed.
    wake_acceptor: Option<Box<dyn Fn() + Send>>,
    /// The file that this listener has made for a Unix socket. [`close`](Listener::close) removes it, unless it was
    /// replaced.
    #[cfg(unix)]
    path: Option<(PathBuf, FileId)>,
}

/// A listening socket.
pub(super) enum ListenSocket {
    Tcp(TcpListener),
    #[cfg(unix)]
    Unix(UnixListener),
}

impl Listeners {
    /// Adds a listener, which does not accept yet.
    pub(super) fn add(&self, listener: Listener, idle: IdleListener) {
        listener.state().idle = Some(idle);
        self.all().push(Arc::new(listener));
    }

    pub(super) fn addresses(&self) -> Vec<LocalAddress> {
        self.all().iter().map(|listener| listener.address.clone()).collect()
    }

    /// The listeners without an acceptor.
    pub(super) fn without_acceptor(&self) -> Vec<Arc<Listener>> {
        let all = self.all();
        all.iter().filter(|listener| !listener.has_acceptor()).cloned().collect()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.all().is_empty()
    }

    /// Whether a listener has an acceptor.
    pub(super) fn is_accepting(&self) -> bool {
        self.all().iter().any(|listener| listener.has_acceptor())
    }

    /// Closes all listeners.
    pub(super) fn close(&self) {
        let all = std::mem::take(&mut *self.all());
        for listener in all {
            listener.close();
        }
    }

    /// The list is consistent after a panic, so poisoning is ignored.
    fn all(&self) -> MutexGuard<'_, Vec<Arc<Listener>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Listener {
    /// Listens on an address.
    pub(super) fn bind(
        address: SocketAddr,
        versions: IpVersions,
        options: &ListenOptions,
        nodelay: bool,
        hooks: &Hooks,
    ) -> io::Result<Self> {
        let domain = Domain::for_address(address);
        let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
        if address.is_ipv6() {
            socket.set_only_v6(versions == IpVersions::OnlyV6)?;
        }
        if options.reuse_address {
            socket.set_reuse_address(true)?;
        }
        #[cfg(all(unix, not(any(target_os = "solaris", target_os = "illumos"))))]
        if options.reuse_port {
            socket.set_reuse_port(true)?;
        }
        if let Some(hook) = &hooks.tcp_pre_bind {
            hook(&socket)?;
        }
        socket.bind(&address.into())?;
        // Set before `listen`, so that the first connections inherit it as well.
        let inherited = INHERITS_NODELAY && socket.set_tcp_nodelay(nodelay).is_ok();
        socket.listen(i32::try_from(options.backlog).unwrap_or(i32::MAX))?;
        let mut listener = Self::from_tcp(socket.into())?;
        listener.nodelay = inherited.then_some(nodelay);
        Ok(listener)
    }

    /// Makes a listener of a listening TCP socket.
    pub(super) fn from_tcp(socket: std::net::TcpListener) -> io::Result<Self> {
        check_listens(&SockRef::from(&socket))?;
        socket.set_nonblocking(true)?;
        let address = LocalAddress::Tcp(socket.local_addr()?);
        Ok(Self::new(address, ListenSocket::Tcp(TcpListener::from_std(socket))))
    }

    /// Makes a listener of a listening Unix socket.
    #[cfg(unix)]
    pub(super) fn from_unix(socket: std::os::unix::net::UnixListener) -> io::Result<Self> {
        check_listens(&SockRef::from(&socket))?;
        socket.set_nonblocking(true)?;
        let path = socket.local_addr()?.as_pathname().map(PathBuf::from);
        let socket = ListenSocket::Unix(UnixListener::from_std(socket));
        Ok(Self::new(LocalAddress::Unix(path), socket))
    }

    /// Listens on a path. Replaces a socket file there if no process listens on it.
    #[cfg(unix)]
    pub(super) fn bind_unix(path: PathBuf, options: &ListenOptions) -> io::Result<Self> {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        let address = socket2::SockAddr::unix(&path)?;
        if let Err(error) = socket.bind(&address) {
            let is_socket = || {
                use std::os::unix::fs::FileTypeExt;
                std::fs::symlink_metadata(&path)
                    .is_ok_and(|metadata| metadata.file_type().is_socket())
            };
            if error.kind() != ErrorKind::AddrInUse {
                return Err(error);
            }
            if !is_socket() {
                let why = "the path exists, and is not a socket";
                return Err(io::Error::new(ErrorKind::AlreadyExists, why));
            }
            if !is_stale(&address) {
                return Err(error);
            }
            std::fs::remove_file(&path)?;
            socket.bind(&address)?;
        }
        let file_id = file_id(&path)?;
        let listening = socket
            .listen(i32::try_from(options.backlog).unwrap_or(i32::MAX))
            .and_then(|()| Self::from_unix(std::os::fd::OwnedFd::from(socket).into()));
        match &listening {
            Ok(listener) => listener.state().path = Some((path, file_id)),
            Err(_) => remove_own_file(&path, file_id),
        }
        listening
    }

    pub(super) const fn address(&self) -> &LocalAddress {
        &self.address
    }

    /// Sets whether connections speak TLS.
    pub(super) fn with_tls(mut self, tls: ListenerTls) -> Self {
        self.tls = tls;
        self
    }

    pub(super) const fn tls(&self) -> &ListenerTls {
        &self.tls
    }

    /// Registers the socket for its acceptor. `wake` is called when the listener is closed.
    pub(super) fn register(
        &self,
        registry: &Registry,
        token: Token,
        wake: impl Fn() + Send + 'static,
    ) -> io::Result<()> {
        let mut state = self.state();
        match &mut state.socket {
            Some(ListenSocket::Tcp(socket)) => {
                registry.register(socket, token, Events::READABLE)?;
            }
            #[cfg(unix)]
            Some(ListenSocket::Unix(socket)) => {
                registry.register(socket, token, Events::READABLE)?;
            }
            None => return Err(ErrorKind::NotConnected.into()),
        }
        state.wake_acceptor = Some(Box::new(wake));
        state.idle = None;
        Ok(())
    }

    /// Sets `TCP_NODELAY` for the connections that will be accepted. Returns what must be done for each of them.
    pub(super) fn set_nodelay(&self, nodelay: bool) -> Nodelay {
        match &self.state().socket {
            _ if self.nodelay == Some(nodelay) => Nodelay::Inherited,
            #[cfg(unix)]
            Some(ListenSocket::Unix(_)) => Nodelay::Inherited, // there is no such option
            Some(ListenSocket::Tcp(socket))
                if INHERITS_NODELAY && SockRef::from(socket).set_tcp_nodelay(nodelay).is_ok() =>
            {
                Nodelay::SetUntilDrained(nodelay)
            }
            _ => Nodelay::Set(nodelay),
        }
    }

    /// Accepts a connection; `None` if the listener is closed.
    pub(super) fn accept(&self) -> Option<io::Result<(StreamSocket, Peer)>> {
        Some(match self.state().socket.as_ref()? {
            ListenSocket::Tcp(socket) => socket
                .accept()
                .map(|(stream, address)| (StreamSocket::Tcp(stream), tcp_peer(address))),
            #[cfg(unix)]
            ListenSocket::Unix(socket) => socket.accept().map(|(stream, address)| {
                let path = address.as_pathname().map(PathBuf::from);
                (StreamSocket::Unix(stream), Peer::Unix(path))
            }),
        })
    }

    /// Closes the listener and wakes its acceptor.
    fn close(&self) {
        let mut state = self.state();
        let (socket, wake_acceptor) = (state.socket.take(), state.wake_acceptor.take());
        state.idle = None;
        #[cfg(unix)]
        if let Some((path, file_id)) = state.path.take() {
            remove_own_file(&path, file_id);
        }
        drop(state);
        drop(socket);
        if let Some(wake) = wake_acceptor {
            wake();
        }
    }

    fn new(address: LocalAddress, socket: ListenSocket) -> Self {
        let state = State {
            socket: Some(socket),
            idle: None,
            wake_acceptor: None,
            #[cfg(unix)]
            path: None,
        };
        let tls = ListenerTls::default();
        Self { address, nodelay: None, tls, state: Mutex::new(state) }
    }

    fn has_acceptor(&self) -> bool {
        self.state().wake_acceptor.is_some()
    }

    /// The state is consistent after a panic, so poisoning is ignored.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The identity of a file: device and inode.
#[cfg(unix)]
type FileId = (u64, u64);

#[cfg(unix)]
fn file_id(path: &std::path::Path) -> io::Result<FileId> {
    use std::os::unix::fs::MetadataExt;
    let metadata = std::fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

/// Removes a file that this process has created, unless another has replaced it.
#[cfg(unix)]
fn remove_own_file(path: &std::path::Path, created: FileId) {
    if file_id(path).is_ok_and(|current| current == created) {
        let _ = std::fs::remove_file(path); // another process may have removed it
    }
}

/// Whether no process listens on a path. A listener whose queue is full counts as listening.
#[cfg(unix)]
fn is_stale(address: &socket2::SockAddr) -> bool {
    let connected = Socket::new(Domain::UNIX, Type::STREAM, None).and_then(|socket| {
        socket.set_nonblocking(true)?;
        socket.connect(address)
    });
    connected.is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
}

fn check_listens(socket: &SockRef<'_>) -> io::Result<()> {
    match socket.is_listener()? && socket.r#type()? == Type::STREAM {
        true => Ok(()),
        false => Err(io::Error::new(ErrorKind::InvalidInput, "not a listening stream socket")),
    }
}

/// Sets the options of a socket that was accepted or adopted.
pub(super) fn set_up(stream: &StreamSocket, hooks: &Hooks, nodelay: Nodelay) -> io::Result<()> {
    let socket = match stream {
        StreamSocket::Tcp(stream) => {
            match nodelay {
                Nodelay::Inherited => {}
                Nodelay::Set(nodelay) | Nodelay::SetUntilDrained(nodelay) => {
                    stream.set_nodelay(nodelay)?;
                }
            }
            SockRef::from(stream)
        }
        #[cfg(unix)]
        StreamSocket::Unix(stream) => SockRef::from(stream),
        StreamSocket::Closed => return Ok(()),
    };
    hooks.call_socket_init(&socket)
}

/// The delay before accepting is tried again after an error. It doubles with each error, up to a limit,
/// and starts anew after a success.
#[derive(Default)]
pub(super) struct Backoff {
    failures: u32,
}

impl Backoff {
    const FIRST_DELAY: Duration = Duration::from_millis(50);
    const MAX_DOUBLINGS: u32 = 5;

    pub(super) fn next_delay(&mut self) -> Duration {
        let delay = Self::FIRST_DELAY * 2u32.pow(self.failures.min(Self::MAX_DOUBLINGS));
        self.failures = self.failures.saturating_add(1);
        delay
    }

    pub(super) const fn reset(&mut self) {
        self.failures = 0;
    }

    pub(super) const fn is_active(&self) -> bool {
        self.failures > 0
    }
}
