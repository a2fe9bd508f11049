//! Who is at the other end of a stream.

use std::fmt;
use std::net::SocketAddr;
#[cfg(unix)]
use std::path::PathBuf;

use crate::event_loop::Stream;

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
