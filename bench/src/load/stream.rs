//! The byte stream of a connection: a non-blocking socket, with or without TLS.

use std::io::IoSlice;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown};

use crate::fault::{Fault, unless_blocked};
use crate::tls::Tls;

/// What a read has brought.
pub(crate) enum Received {
    /// So many bytes, and whether there are probably more. TLS may have received records without any.
    Bytes {
        length: usize,
        more: bool,
    },
    /// Nothing: the socket would block.
    Blocked,
    End,
}

/// A non-blocking stream. What TLS could not send yet leaves with the next call.
#[derive(Debug)]
pub(crate) struct Stream {
    socket: OwnedFd,
    tls: Option<Box<Tls>>,
}

impl Stream {
    pub(crate) fn new(socket: OwnedFd, tls: Option<Tls>) -> Self {
        Self { socket, tls: tls.map(Box::new) }
    }

    /// Sends what waits. Returns whether nothing is left.
    pub(crate) fn flush(&mut self) -> Result<bool, Fault> {
        self.tls.as_mut().map_or(Ok(true), |tls| tls.flush(&self.socket))
    }

    /// Sends as much as the socket accepts. Without TLS that is one system call.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> Result<usize, Fault> {
        match &mut self.tls {
            Some(tls) => tls.send(&self.socket, &[IoSlice::new(bytes)]),
            None => unless_blocked(rustix::net::send(&self.socket, bytes, SendFlags::NOSIGNAL)),
        }
    }

    /// Like [`send`](Self::send), of several parts.
    pub(crate) fn send_parts(&mut self, parts: &[IoSlice<'_>]) -> Result<usize, Fault> {
        match &mut self.tls {
            Some(tls) => tls.send(&self.socket, parts),
            None => unless_blocked(rustix::io::writev(&self.socket, parts)),
        }
    }

    /// Receives once, to the start of `buffer`, which TLS also needs as its own memory: it must have 64 KiB or more.
    pub(crate) fn recv(&mut self, buffer: &mut [u8]) -> Result<Received, Fault> {
        match &mut self.tls {
            Some(tls) => tls.recv(&self.socket, buffer),
            None => receive(&self.socket, buffer),
        }
    }

    /// Ends our direction, with a close_notify if there is TLS.
    pub(crate) fn finish(&mut self) -> Result<(), Fault> {
        if let Some(tls) = &mut self.tls {
            tls.close_notify();
        }
        self.flush()?;
        Ok(rustix::net::shutdown(&self.socket, Shutdown::Write)?)
    }

    pub(crate) fn is_handshaking(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.is_handshaking())
    }

    /// Whether TLS has resumed an earlier session.
    pub(crate) fn is_resumed(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.is_resumed())
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Receives once from a socket.
pub(crate) fn receive(socket: &OwnedFd, buffer: &mut [u8]) -> Result<Received, Fault> {
    match rustix::net::recv(socket, &mut *buffer, RecvFlags::empty()) {
        Ok((0, _)) => Ok(Received::End),
        Ok((length, _)) => Ok(Received::Bytes { length, more: length == buffer.len() }),
        Err(Errno::AGAIN | Errno::INTR) => Ok(Received::Blocked),
        Err(Errno::CONNRESET) => Err(Fault::Closed),
        Err(errno) => Err(errno.into()),
    }
}
