//! Sockets that connect without blocking.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
#[cfg(unix)]
use std::path::Path;

use mio::net::TcpStream;
use socket2::{Domain, SockRef, Type};

use super::super::hooks::Hooks;
use crate::event_loop::{Registry, Socket, Token, tcp_peer};
use crate::transport::Peer;

/// Starts to connect to a TCP address.
pub(super) fn connect_tcp(
    address: SocketAddr,
    hooks: &Hooks,
    nodelay: bool,
    registry: &Registry,
    token: Token,
) -> io::Result<Socket> {
    let socket = nonblocking(Domain::for_address(address))?;
    socket.set_tcp_nodelay(nodelay)?;
    hooks.call_socket_init(&SockRef::from(&socket))?;
    in_progress_is_ok(socket.connect(&address.into()))?;
    let mut stream = Socket::Tcp(TcpStream::from_std(socket.into()));
    stream.register(registry, token)?;
    Ok(stream)
}

/// Starts to connect to a Unix socket. Fails with [`ErrorKind::WouldBlock`] if the listen backlog is full. No event
/// tells when it has room: try again later.
#[cfg(unix)]
pub(super) fn connect_unix(
    path: &Path,
    hooks: &Hooks,
    registry: &Registry,
    token: Token,
) -> io::Result<Socket> {
    let socket = nonblocking(Domain::UNIX)?;
    hooks.call_socket_init(&SockRef::from(&socket))?;
    let address = socket2::SockAddr::unix(path)?;
    match socket.connect(&address) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => return Err(error),
        result => in_progress_is_ok(result)?,
    }
    let socket = std::os::fd::OwnedFd::from(socket);
    let mut stream = Socket::Unix(mio::net::UnixStream::from_std(socket.into()));
    stream.register(registry, token)?;
    Ok(stream)
}

/// The peer of a connected socket; `None` while it is connecting; the error if connecting has failed.
pub(super) fn connected_peer(socket: &Socket) -> io::Result<Option<Peer>> {
    let (error, peer) = match socket {
        Socket::Tcp(stream) => (stream.take_error()?, stream.peer_addr().map(tcp_peer)),
        #[cfg(unix)]
        Socket::Unix(stream) => {
            let peer = |address: std::os::unix::net::SocketAddr| {
                Peer::Unix(address.as_pathname().map(Path::to_path_buf))
            };
            (stream.take_error()?, stream.peer_addr().map(peer))
        }
        Socket::Closed => return Err(ErrorKind::NotConnected.into()),
    };
    match (error, peer) {
        (Some(error), _) => Err(error),
        (None, Ok(peer)) => Ok(Some(peer)),
        (None, Err(error)) if error.kind() == ErrorKind::NotConnected => Ok(None),
        // macOS reports this while it is connecting.
        (None, Err(error)) if error.kind() == ErrorKind::InvalidInput => Ok(None),
        (None, Err(error)) => Err(error),
    }
}

fn nonblocking(domain: Domain) -> io::Result<socket2::Socket> {
    // One call where the system has the flag, instead of three.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    return socket2::Socket::new(domain, Type::STREAM.nonblocking(), None);
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    {
        let socket = socket2::Socket::new(domain, Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    }
}

/// A connect call that does not block reports that connecting is in progress.
fn in_progress_is_ok(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if is_in_progress(&error) => Ok(()),
        result => result,
    }
}

fn is_in_progress(error: &io::Error) -> bool {
    #[cfg(unix)]
    if error.raw_os_error() == Some(libc::EINPROGRESS) {
        return true;
    }
    error.kind() == ErrorKind::WouldBlock
}
