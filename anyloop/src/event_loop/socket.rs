//! The stream sockets of the operating system.

use std::io::{self, ErrorKind, IoSlice, IoSliceMut, Read};
use std::mem::MaybeUninit;
use std::net::SocketAddr;

use anyloop_proto::SendQueue;
use mio::net::TcpStream;
#[cfg(unix)]
use mio::net::UnixStream;
use socket2::SockRef;

use super::events::{Events, Token};
use super::reactor::Registry;
use super::send_queue;
use super::turn_state::TurnState;
use crate::cold::cold_path;
use crate::stream::{Peer, Transport};

/// A stream socket; `Closed` after it was closed.
#[derive(Debug, Default)]
pub(crate) enum Socket {
    #[default]
    Closed,
    Tcp(TcpStream),
    #[cfg(unix)]
    Unix(UnixStream),
}

impl Socket {
    /// Registers the socket, once, for all events.
    pub(crate) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        // CLOSED includes urgent data (RFC 6093): a read ends there, and no event reports the data after it.
        let interest = Events::READABLE | Events::WRITABLE | Events::CLOSED;
        match self {
            Self::Tcp(stream) => registry.register(stream, token, interest),
            #[cfg(unix)]
            Self::Unix(stream) => registry.register(stream, token, interest),
            Self::Closed => Err(closed_error()),
        }
    }

    // These two are called for each message, and are inlined into the loop: see `Runner::run`.

    #[inline(always)]
    pub(crate) fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        retry_interrupted(|| match &*self {
            Self::Tcp(stream) => system::recv(stream, buffer),
            #[cfg(unix)]
            Self::Unix(stream) => system::recv(stream, buffer),
            Self::Closed => Err(closed_error()),
        })
    }

    #[inline(always)]
    pub(crate) fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        retry_interrupted(|| match &*self {
            Self::Tcp(stream) => system::send(stream, bytes),
            #[cfg(unix)]
            Self::Unix(stream) => system::send(stream, bytes),
            Self::Closed => Err(closed_error()),
        })
    }

    /// Writes bytes that leave with the end of the stream, in one packet where the system can do that.
    fn write_before_half_close(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => retry_interrupted(|| system::send_more(stream, bytes)),
            _ => self.write(bytes),
        }
    }

    pub(crate) fn read_vectored(&mut self, buffers: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        retry_interrupted(|| match self {
            Self::Tcp(stream) => stream.read_vectored(buffers),
            #[cfg(unix)]
            Self::Unix(stream) => stream.read_vectored(buffers),
            Self::Closed => Err(closed_error()),
        })
    }

    pub(crate) fn write_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        retry_interrupted(|| match &*self {
            Self::Tcp(stream) => system::send_vectored(stream, slices),
            #[cfg(unix)]
            Self::Unix(stream) => system::send_vectored(stream, slices),
            Self::Closed => Err(closed_error()),
        })
    }

    /// The end of the stream, or the error, that the next read would return. `None` if it would return bytes or block,
    /// if a signal interrupts, or if the socket is closed.
    pub(crate) fn peek_end(&self) -> Option<io::Result<()>> {
        let mut byte = [MaybeUninit::uninit()];
        let peeked = match self {
            Self::Tcp(stream) => SockRef::from(stream).peek(&mut byte),
            #[cfg(unix)]
            Self::Unix(stream) => SockRef::from(stream).peek(&mut byte),
            Self::Closed => return None,
        };
        match peeked {
            Ok(0) => Some(Ok(())),
            Err(error)
                if ![ErrorKind::WouldBlock, ErrorKind::Interrupted].contains(&error.kind()) =>
            {
                Some(Err(error))
            }
            Ok(_) | Err(_) => None,
        }
    }

    /// Ends the sending direction.
    pub(crate) fn half_close(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.shutdown(std::net::Shutdown::Write),
            #[cfg(unix)]
            Self::Unix(stream) => stream.shutdown(std::net::Shutdown::Write),
            Self::Closed => Ok(()),
        }
    }

    /// Whether a short read has taken all that was available, so that an edge reports more. True for TCP on epoll and
    /// kqueue.
    pub(crate) const fn short_read_is_all(&self) -> bool {
        cfg!(unix) && matches!(self, Self::Tcp(_))
    }

    /// The peer.
    pub(crate) fn peer(&self) -> Peer {
        match self {
            Self::Tcp(stream) => stream.peer_addr().map_or(Peer::Unknown, tcp_peer),
            #[cfg(unix)]
            Self::Unix(stream) => {
                let address = stream.peer_addr().ok();
                Peer::Unix(address.and_then(|address| Some(address.as_pathname()?.to_path_buf())))
            }
            Self::Closed => Peer::Unknown,
        }
    }
}

/// The peer with this address. An IPv4-mapped address, as a dual-stack socket reports it, becomes an IPv4 address.
pub(crate) fn tcp_peer(address: SocketAddr) -> Peer {
    Peer::Tcp(match address.ip().to_canonical() {
        ip if ip.is_ipv4() => SocketAddr::new(ip, address.port()),
        _ => address, // with its zone
    })
}

/// A socket as the transport of its connection during one turn.
pub(crate) struct SocketTransport<'t> {
    pub(super) socket: &'t mut Socket,
    /// Its unconsumed events are what the socket is known to be ready for.
    pub(super) state: &'t mut TurnState,
    /// A half-close follows the next write.
    expects_half_close: bool,
}

impl<'t> SocketTransport<'t> {
    pub(crate) const fn new(socket: &'t mut Socket, state: &'t mut TurnState) -> Self {
        Self { socket, state, expects_half_close: false }
    }

    /// Classifies the result of a write: one that would block has written nothing, and is not an error.
    pub(super) fn classify_write(&mut self, written: io::Result<usize>) -> io::Result<usize> {
        match written {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                self.state.unconsumed = self.state.unconsumed.without(Events::WRITABLE); // the reactor will report it
                Ok(0)
            }
            result => result,
        }
    }
}

impl Transport for SocketTransport<'_> {
    fn write(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let written = match slices {
            [slice] if self.expects_half_close => self.socket.write_before_half_close(slice),
            [slice] => self.socket.write(slice),
            slices => self.socket.write_vectored(slices),
        };
        self.classify_write(written)
    }

    fn shutdown(&mut self, how: anyloop_proto::Shutdown) -> io::Result<()> {
        use anyloop_proto::Shutdown::{Abort, Close, HalfClose};
        match how {
            HalfClose => self.socket.half_close(),
            Close | Abort => {
                *self.socket = Socket::Closed;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn expect_half_close(&mut self) {
        self.expects_half_close = true;
    }

    fn peer(&self) -> Peer {
        self.socket.peer()
    }

    fn send_queue(&self) -> Option<SendQueue> {
        match &*self.socket {
            Socket::Tcp(stream) => send_queue::of_tcp(stream),
            #[cfg(unix)]
            Socket::Unix(stream) => send_queue::of_unix(stream),
            Socket::Closed => None,
        }
    }

    fn now(&self) -> Option<anyloop_proto::Instant> {
        Some(super::now())
    }
}

/// Repeats a system call that a signal has interrupted.
#[inline(always)]
fn retry_interrupted(mut f: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match f() {
            Ok(n) => return Ok(n),
            Err(error) => {
                cold_path();
                if error.kind() != ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
}

fn closed_error() -> io::Error {
    ErrorKind::NotConnected.into()
}

/// The system calls, without the wrappers of the C library.
#[cfg(any(target_os = "linux", target_os = "android"))]
mod system {
    use std::io::{self, IoSlice};
    use std::os::fd::AsFd;

    use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags};

    /// The largest number of slices in one call (IOV_MAX).
    const MAX_SLICES: usize = 1024;

    #[inline(always)]
    pub(super) fn recv(stream: impl AsFd, buffer: &mut [u8]) -> io::Result<usize> {
        let (len, _) = rustix::net::recv(stream, buffer, RecvFlags::empty())?;
        Ok(len)
    }

    // With NOSIGNAL, since SIGPIPE would end a program whose `main` is not in Rust, unless it ignores the signal.

    #[inline(always)]
    pub(super) fn send(stream: impl AsFd, bytes: &[u8]) -> io::Result<usize> {
        Ok(rustix::net::send(stream, bytes, SendFlags::NOSIGNAL)?)
    }

    /// The system keeps a small packet back, for 200 ms at most, until more follows.
    pub(super) fn send_more(stream: impl AsFd, bytes: &[u8]) -> io::Result<usize> {
        Ok(rustix::net::send(stream, bytes, SendFlags::NOSIGNAL | SendFlags::MORE)?)
    }

    pub(super) fn send_vectored(stream: impl AsFd, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let slices = &slices[..slices.len().min(MAX_SLICES)];
        let mut nothing = SendAncillaryBuffer::default();
        Ok(rustix::net::sendmsg(stream, slices, &mut nothing, SendFlags::NOSIGNAL)?)
    }
}

/// The system calls, as the standard library makes them.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
mod system {
    use std::io::{self, IoSlice, Read, Write};

    pub(super) fn recv<S>(mut stream: &S, buffer: &mut [u8]) -> io::Result<usize>
    where
        for<'s> &'s S: Read,
    {
        stream.read(buffer)
    }

    pub(super) fn send<S>(mut stream: &S, bytes: &[u8]) -> io::Result<usize>
    where
        for<'s> &'s S: Write,
    {
        stream.write(bytes)
    }

    pub(super) fn send_more<S>(stream: &S, bytes: &[u8]) -> io::Result<usize>
    where
        for<'s> &'s S: Write,
    {
        send(stream, bytes)
    }

    pub(super) fn send_vectored<S>(mut stream: &S, slices: &[IoSlice<'_>]) -> io::Result<usize>
    where
        for<'s> &'s S: Write,
    {
        stream.write_vectored(slices)
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddrV6;

    use super::*;

    #[test]
    fn only_ipv4_mapped_addresses_of_peers_change() {
        let cases = [
            ("[::ffff:192.0.2.1]:80", "192.0.2.1:80"),
            ("192.0.2.1:80", "192.0.2.1:80"),
            ("[fe80::1%7]:80", "[fe80::1%7]:80"),
        ];
        for (address, expected) in cases {
            let Peer::Tcp(peer) = tcp_peer(address.parse().unwrap()) else { panic!("{address}") };
            assert_eq!(peer, expected.parse().unwrap());
        }
        let with_flow =
            SocketAddr::from(SocketAddrV6::new(std::net::Ipv6Addr::LOCALHOST, 80, 2, 3));
        assert!(matches!(tcp_peer(with_flow), Peer::Tcp(peer) if peer == with_flow));
    }
}
