//! The byte streams of the operating system.

use std::hint::cold_path;
use std::io::{self, ErrorKind, IoSlice, IoSliceMut, Read, Write};
use std::net::{Shutdown, SocketAddr};

use mio::event::Source;
use mio::net::TcpStream;
#[cfg(unix)]
use mio::net::UnixStream;
use mio::{Interest, Registry, Token};

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

    #[inline]
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        retry(|| match self {
            Self::Tcp(stream) => stream.read(buffer),
            #[cfg(unix)]
            Self::Unix(stream) => stream.read(buffer),
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

    #[inline]
    pub(super) fn write(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        retry(|| match (&mut *self, slices) {
            (Self::Tcp(stream), [slice]) => stream.write(slice),
            (Self::Tcp(stream), slices) => stream.write_vectored(slices),
            #[cfg(unix)]
            (Self::Unix(stream), slices) => stream.write_vectored(slices),
            (Self::Closed, _) => Err(closed()),
        })
    }

    /// What it has failed with, if it has.
    pub(super) fn take_error(&self) -> Option<io::Error> {
        match self {
            Self::Tcp(stream) => stream.take_error().ok()?,
            #[cfg(unix)]
            Self::Unix(stream) => stream.take_error().ok()?,
            Self::Closed => None,
        }
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

    /// Ends both directions.
    pub(super) fn end(&self) -> io::Result<()> {
        let ended = match self {
            Self::Tcp(stream) => stream.shutdown(Shutdown::Both),
            #[cfg(unix)]
            Self::Unix(stream) => stream.shutdown(Shutdown::Both),
            Self::Closed => Ok(()),
        };
        match ended {
            Err(error) if error.kind() == ErrorKind::NotConnected => Ok(()), // the peer was faster
            ended => ended,
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

    /// Who is at the other end, for people to read.
    pub(super) fn peer(&self) -> String {
        match self {
            Self::Tcp(stream) => match stream.peer_addr() {
                Ok(address) => address.to_string(),
                Err(_) => "a peer that has gone".to_string(),
            },
            #[cfg(unix)]
            Self::Unix(stream) => {
                let path = |address: std::os::unix::net::SocketAddr| {
                    address.as_pathname().map(|path| format!("unix:{}", path.display()))
                };
                stream.peer_addr().ok().and_then(path).unwrap_or_else(|| "unix socket".to_string())
            }
            Self::Closed => "a peer that has gone".to_string(),
        }
    }
}

/// A signal is no answer.
#[inline]
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
