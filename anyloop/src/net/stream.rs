//! The byte streams of the operating system.

use std::fmt;
use std::hint::cold_path;
use std::io::{self, ErrorKind, IoSlice, IoSliceMut, Read};
use std::mem::MaybeUninit;
use std::net::{Shutdown, SocketAddr};
#[cfg(unix)]
use std::path::PathBuf;

use mio::event::Source;
use mio::net::TcpStream;
#[cfg(unix)]
use mio::net::UnixStream;
use mio::{Interest, Registry, Token};
use socket2::SockRef;

/// A byte stream, or what is left of one.
#[derive(Debug, Default)]
pub(super) enum Stream {
    #[default]
    Closed,
    Tcp(TcpStream),
    #[cfg(unix)]
    Unix(UnixStream),
}

impl Stream {
    /// Has the loop told of everything that happens to it, once and for all.
    pub(super) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        let both = Interest::READABLE | Interest::WRITABLE;
        // A read ends at urgent data (RFC 6093), and what lies behind it is not told.
        #[cfg(any(target_os = "linux", target_os = "android"))]
        let both = both | Interest::PRIORITY;
        match self {
            Self::Tcp(stream) => stream.register(registry, token, both),
            #[cfg(unix)]
            Self::Unix(stream) => stream.register(registry, token, both),
            Self::Closed => Err(closed()),
        }
    }

    // The two that are called for each message. What they call belongs to their caller: after a system
    // call the processor has forgotten where functions return to.

    #[inline(always)]
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        retry(|| match &*self {
            Self::Tcp(stream) => system::recv(stream, buffer),
            #[cfg(unix)]
            Self::Unix(stream) => system::recv(stream, buffer),
            Self::Closed => Err(closed()),
        })
    }

    #[inline(always)]
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        retry(|| match &*self {
            Self::Tcp(stream) => system::send(stream, bytes),
            #[cfg(unix)]
            Self::Unix(stream) => system::send(stream, bytes),
            Self::Closed => Err(closed()),
        })
    }

    pub(super) fn read_vectored(&mut self, buffers: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        retry(|| match self {
            Self::Tcp(stream) => stream.read_vectored(buffers),
            #[cfg(unix)]
            Self::Unix(stream) => stream.read_vectored(buffers),
            Self::Closed => Err(closed()),
        })
    }

    pub(super) fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        retry(|| match &*self {
            Self::Tcp(stream) => system::send_vectored(stream, slices),
            #[cfg(unix)]
            Self::Unix(stream) => system::send_vectored(stream, slices),
            Self::Closed => Err(closed()),
        })
    }

    /// What the next read would fail with, if it would.
    pub(super) fn peek_error(&self) -> Option<io::Error> {
        let mut byte = [MaybeUninit::uninit()];
        let peeked = match self {
            Self::Tcp(stream) => SockRef::from(stream).peek(&mut byte),
            #[cfg(unix)]
            Self::Unix(stream) => SockRef::from(stream).peek(&mut byte),
            Self::Closed => return None,
        };
        let again = [ErrorKind::WouldBlock, ErrorKind::Interrupted];
        peeked.err().filter(|error| !again.contains(&error.kind()))
    }

    /// Ends the sending direction.
    pub(super) fn half_close(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.shutdown(Shutdown::Write),
            #[cfg(unix)]
            Self::Unix(stream) => stream.shutdown(Shutdown::Write),
            Self::Closed => Ok(()),
        }
    }

    /// Whether a read that did not fill its buffer has taken all there was, so that an edge will tell
    /// of more. For TCP on epoll and kqueue it is so.
    pub(super) const fn short_read_is_all(&self) -> bool {
        cfg!(unix) && matches!(self, Self::Tcp(_))
    }

    /// The address of the other end.
    pub(super) fn peer_addr(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(stream) => stream.peer_addr().ok(),
            _ => None,
        }
    }
}

/// Who is at the other end.
#[derive(Clone, Debug)]
pub(super) enum Peer {
    Tcp(SocketAddr),
    #[cfg(unix)]
    Unix(Option<PathBuf>),
    /// The operating system does not know any more: the stream was reset, for example.
    Gone,
}

impl Peer {
    pub(super) fn of(stream: &Stream) -> Self {
        match stream {
            Stream::Tcp(stream) => stream.peer_addr().map_or(Self::Gone, Self::Tcp),
            #[cfg(unix)]
            Stream::Unix(stream) => {
                let address = stream.peer_addr().ok();
                Self::Unix(address.and_then(|address| Some(address.as_pathname()?.to_path_buf())))
            }
            Stream::Closed => Self::Gone,
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            #[cfg(unix)]
            Self::Unix(Some(path)) => write!(f, "unix:{}", path.display()),
            #[cfg(unix)]
            Self::Unix(None) => f.write_str("unix socket"),
            Self::Gone => f.write_str("a peer that has gone"),
        }
    }
}

/// A signal is no answer.
#[inline(always)]
fn retry(mut f: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match f() {
            Err(error) if error.kind() == ErrorKind::Interrupted => cold_path(),
            result => return result,
        }
    }
}

fn closed() -> io::Error {
    ErrorKind::NotConnected.into()
}

/// The system calls, without what the C library puts around them.
#[cfg(any(target_os = "linux", target_os = "android"))]
mod system {
    use std::io::{self, IoSlice};
    use std::os::fd::AsFd;

    use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags};

    /// More in one call are an error.
    const MOST_SLICES: usize = 1024;

    #[inline(always)]
    pub(super) fn recv(stream: impl AsFd, buffer: &mut [u8]) -> io::Result<usize> {
        let (len, _) = rustix::net::recv(stream, buffer, RecvFlags::empty())?;
        Ok(len)
    }

    // A program that is not Rust's may not ignore SIGPIPE.

    #[inline(always)]
    pub(super) fn send(stream: impl AsFd, bytes: &[u8]) -> io::Result<usize> {
        Ok(rustix::net::send(stream, bytes, SendFlags::NOSIGNAL)?)
    }

    pub(super) fn send_vectored(stream: impl AsFd, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let slices = &slices[..slices.len().min(MOST_SLICES)];
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

    pub(super) fn send_vectored<S>(mut stream: &S, slices: &[IoSlice<'_>]) -> io::Result<usize>
    where
        for<'s> &'s S: Write,
    {
        stream.write_vectored(slices)
    }
}
