//! Listening, and accepting.

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

use super::endpoint::{Hooks, ListenOptions};
use crate::event_loop::{Events, Registry, Socket as Stream, Token, tcp_peer};
use crate::sync::unmodelled::{Mutex, MutexGuard};
use crate::transport::Peer;

/// What a server listens on.
///
/// ```
/// use anyloop::Server;
/// use anyloop::net::{LocalAddress, Net};
/// # use anyloop::proto::handshake::{OriginPolicy, ServerOptions};
///
/// let server = Server::<Net>::new(ServerOptions::new(OriginPolicy::Any));
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

/// The listeners of an endpoint.
#[derive(Default)]
pub(super) struct Listeners(Mutex<Vec<Arc<Listener>>>);

/// A listener, which the endpoint can close while the loop accepts from it.
pub(super) struct Listener {
    address: LocalAddress,
    state: Mutex<State>,
}

struct State {
    /// Absent when it is closed.
    socket: Option<ListenSocket>,
    /// Who accepts from it is called with this, to learn that it is closed.
    acceptor: Option<Box<dyn Fn() + Send>>,
    /// What is to be removed with it, if it is still the file that was made.
    #[cfg(unix)]
    path: Option<(PathBuf, FileId)>,
}

/// A socket that listens.
pub(super) enum ListenSocket {
    Tcp(TcpListener),
    #[cfg(unix)]
    Unix(UnixListener),
}

impl Listeners {
    pub(super) fn add(&self, listener: Listener) {
        self.all().push(Arc::new(listener));
    }

    pub(super) fn addresses(&self) -> Vec<LocalAddress> {
        self.all().iter().map(|listener| listener.address.clone()).collect()
    }

    /// Those that nobody accepts from yet.
    pub(super) fn idle(&self) -> Vec<Arc<Listener>> {
        let all = self.all();
        all.iter().filter(|listener| listener.state().acceptor.is_none()).cloned().collect()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.all().is_empty()
    }

    /// Whether one is accepted from.
    pub(super) fn is_accepting(&self) -> bool {
        self.all().iter().any(|listener| listener.state().acceptor.is_some())
    }

    /// Closes all.
    pub(super) fn close(&self) {
        let all = std::mem::take(&mut *self.all());
        for listener in all {
            listener.close();
        }
    }

    /// A panic elsewhere leaves the list as it was.
    fn all(&self) -> MutexGuard<'_, Vec<Arc<Listener>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Listener {
    /// Listens on an address.
    pub(super) fn bind(
        address: SocketAddr,
        only_v6: Option<bool>,
        options: &ListenOptions,
        hooks: &Hooks,
    ) -> io::Result<Self> {
        let domain = Domain::for_address(address);
        let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
        if let Some(only_v6) = only_v6.filter(|_| address.is_ipv6()) {
            socket.set_only_v6(only_v6)?;
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
        socket.listen(i32::try_from(options.backlog).unwrap_or(i32::MAX))?;
        Self::from_tcp(socket.into())
    }

    /// Takes over a socket that listens already.
    pub(super) fn from_tcp(socket: std::net::TcpListener) -> io::Result<Self> {
        check_listens(&SockRef::from(&socket))?;
        socket.set_nonblocking(true)?;
        let address = LocalAddress::Tcp(socket.local_addr()?);
        Ok(Self::new(address, ListenSocket::Tcp(TcpListener::from_std(socket))))
    }

    /// Takes over a Unix socket that listens already.
    #[cfg(unix)]
    pub(super) fn from_unix(socket: std::os::unix::net::UnixListener) -> io::Result<Self> {
        check_listens(&SockRef::from(&socket))?;
        socket.set_nonblocking(true)?;
        let path = socket.local_addr()?.as_pathname().map(PathBuf::from);
        let socket = ListenSocket::Unix(UnixListener::from_std(socket));
        Ok(Self::new(LocalAddress::Unix(path), socket))
    }

    /// Listens on a path, and takes the place of a socket there that nobody listens on any more.
    #[cfg(unix)]
    pub(super) fn bind_unix(path: PathBuf, options: &ListenOptions) -> io::Result<Self> {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        let address = socket2::SockAddr::unix(&path)?;
        if let Err(error) = socket.bind(&address) {
            let is_socket = || {
                use std::os::unix::fs::FileTypeExt;
                std::fs::symlink_metadata(&path).is_ok_and(|found| found.file_type().is_socket())
            };
            if error.kind() != ErrorKind::AddrInUse || !is_socket() || !is_left(&address) {
                return Err(error);
            }
            std::fs::remove_file(&path)?;
            socket.bind(&address)?;
        }
        let made = file_id(&path)?;
        if let Err(error) = socket.listen(i32::try_from(options.backlog).unwrap_or(i32::MAX)) {
            remove(&path, made);
            return Err(error);
        }
        let listener = Self::from_unix(std::os::fd::OwnedFd::from(socket).into())?;
        listener.state().path = Some((path, made));
        Ok(listener)
    }

    pub(super) const fn address(&self) -> &LocalAddress {
        &self.address
    }

    /// From now on it is accepted from; `wake` calls who does.
    pub(super) fn register(
        &self,
        registry: &Registry,
        token: Token,
        wake: impl Fn() + Send + 'static,
    ) -> io::Result<()> {
        let mut state = self.state();
        match &mut state.socket {
            Some(ListenSocket::Tcp(socket)) => {
                registry.add(socket, token, Events::READABLE)?;
            }
            #[cfg(unix)]
            Some(ListenSocket::Unix(socket)) => {
                registry.add(socket, token, Events::READABLE)?;
            }
            None => return Err(ErrorKind::NotConnected.into()),
        }
        state.acceptor = Some(Box::new(wake));
        Ok(())
    }

    /// Accepts a connection; `None` if the listener is closed.
    pub(super) fn accept(
        &self,
        hooks: &Hooks,
        nodelay: bool,
    ) -> Option<io::Result<(Stream, Peer)>> {
        let accepted = match self.state().socket.as_ref()? {
            ListenSocket::Tcp(socket) => {
                socket.accept().map(|(stream, address)| (Stream::Tcp(stream), tcp_peer(address)))
            }
            #[cfg(unix)]
            ListenSocket::Unix(socket) => socket.accept().map(|(stream, address)| {
                let path = address.as_pathname().map(PathBuf::from);
                (Stream::Unix(stream), Peer::Unix(path))
            }),
        };
        Some(accepted.and_then(|(stream, peer)| {
            // A connection that has gone already is not a failure of accepting.
            set_up(&stream, hooks, nodelay).map_err(|_| ErrorKind::ConnectionAborted)?;
            Ok((stream, peer))
        }))
    }

    /// Closes it. Whoever accepts from it learns of it.
    fn close(&self) {
        let mut state = self.state();
        let (socket, acceptor) = (state.socket.take(), state.acceptor.take());
        #[cfg(unix)]
        if let Some((path, made)) = state.path.take() {
            remove(&path, made);
        }
        drop(state);
        drop(socket);
        if let Some(wake) = acceptor {
            wake();
        }
    }

    fn new(address: LocalAddress, socket: ListenSocket) -> Self {
        let state = State {
            socket: Some(socket),
            acceptor: None,
            #[cfg(unix)]
            path: None,
        };
        Self { address, state: Mutex::new(state) }
    }

    /// A panic elsewhere leaves it as it was.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Which file it is: device and number.
#[cfg(unix)]
type FileId = (u64, u64);

#[cfg(unix)]
fn file_id(path: &std::path::Path) -> io::Result<FileId> {
    use std::os::unix::fs::MetadataExt;
    let found = std::fs::symlink_metadata(path)?;
    Ok((found.dev(), found.ino()))
}

/// Removes a file that was made, unless another has taken its place.
#[cfg(unix)]
fn remove(path: &std::path::Path, made: FileId) {
    if file_id(path).is_ok_and(|found| found == made) {
        let _ = std::fs::remove_file(path); // somebody else may be faster
    }
}

/// Whether nobody listens on a path any more. One who is too busy to answer at once does.
#[cfg(unix)]
fn is_left(address: &socket2::SockAddr) -> bool {
    let connected = Socket::new(Domain::UNIX, Type::STREAM, None).and_then(|socket| {
        socket.set_nonblocking(true)?;
        socket.connect(address)
    });
    connected.is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
}

fn check_listens(socket: &SockRef<'_>) -> io::Result<()> {
    match socket.is_listener()? && socket.r#type()? == Type::STREAM {
        true => Ok(()),
        false => Err(io::Error::new(ErrorKind::InvalidInput, "the socket does not listen")),
    }
}

/// Sets the options of a connection's socket.
fn set_up(stream: &Stream, hooks: &Hooks, nodelay: bool) -> io::Result<()> {
    let socket = match stream {
        Stream::Tcp(stream) => {
            stream.set_nodelay(nodelay)?;
            SockRef::from(stream)
        }
        #[cfg(unix)]
        Stream::Unix(stream) => SockRef::from(stream),
        Stream::Closed => return Ok(()),
    };
    hooks.set_up(&socket)
}

/// How long accepting rests when it has failed: longer each time, and anew from the beginning when it
/// has succeeded.
#[derive(Default)]
pub(super) struct Rest(u32);

impl Rest {
    pub(super) fn next(&mut self) -> Duration {
        let rest = Duration::from_millis(50) * 2u32.pow(self.0.min(5));
        self.0 += 1;
        rest
    }

    pub(super) const fn end(&mut self) {
        self.0 = 0;
    }

    pub(super) const fn is_on(&self) -> bool {
        self.0 > 0
    }
}
