//! What the transport did not take yet.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::sync::Arc;

/// A chunk of this many bytes is not added to.
const CHUNK: usize = 64 * 1024;

/// The most slices that one write offers.
const SLICES: usize = 32;

/// Bytes that wait for the transport, in order. Made when the first have to wait.
#[derive(Default)]
pub(super) struct Backlog {
    chunks: VecDeque<Chunk>,
    /// Bytes of the first chunk that have gone already.
    gone: usize,
    len: usize,
    /// Bytes that have gone since it was made.
    written: u64,
    completions: VecDeque<(u64, Completion)>,
}

enum Chunk {
    Owned(Vec<u8>),
    Shared(Arc<[u8]>),
}

impl Chunk {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Owned(bytes) => bytes,
            Self::Shared(bytes) => bytes,
        }
    }
}

/// Told once what has become of a message: whether the transport took all of it, or the connection
/// ended before.
///
/// The example of [`Unsent`] sends a message with one.
pub type Completion = Box<dyn FnOnce(Result<(), Unsent>) + Send>;

/// The connection ended before the transport took the message.
///
/// ```
/// # use anyloop::Server;
/// # use anyloop::endpoint::Unsent;
/// # use anyloop::proto::handshake::{OriginPolicy, ServerOptions};
/// # use anyloop::transport::iostream::IoStream;
/// # use std::io::{Error, ErrorKind};
/// # use std::sync::mpsc;
/// # const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
/// #     Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
/// # let mut server = Server::<IoStream>::new(ServerOptions::new(OriginPolicy::Any));
/// let (tell, told) = mpsc::channel();
/// server.on_open(move |context| {
///     let tell = tell.clone();
///     let _ = context.send_then("hello", move |result| tell.send(result).unwrap());
/// });
/// let connection = server.connection();
/// connection.set_write_handler(|_| Err(Error::from(ErrorKind::BrokenPipe)));
/// connection.read_all(REQUEST)?; // of a client that does not stay for the answer
/// assert_eq!(told.try_recv(), Ok(Err(Unsent)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the connection ended before the message was sent")]
pub struct Unsent;

impl Backlog {
    pub(super) const fn len(&self) -> usize {
        self.len
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        self.len += bytes.len();
        match self.chunks.back_mut() {
            // A chunk is let go of when all of it has gone, so it must not grow for ever.
            Some(Chunk::Owned(last)) if last.len() < CHUNK => last.extend_from_slice(bytes),
            _ => self.chunks.push_back(Chunk::Owned(bytes.to_vec())),
        }
    }

    /// Keeps a reference to `bytes`, of which the first `gone` have gone already.
    pub(super) fn push_shared(&mut self, bytes: &Arc<[u8]>, gone: usize) {
        if self.chunks.is_empty() {
            self.gone = gone;
            self.len += bytes.len() - gone;
            self.chunks.push_back(Chunk::Shared(bytes.clone()));
        } else {
            debug_assert_eq!(gone, 0, "what has begun to go is first");
            self.len += bytes.len();
            self.chunks.push_back(Chunk::Shared(bytes.clone()));
        }
    }

    /// Tells `completion` when all but the last `behind` bytes of what is here now have gone.
    pub(super) fn complete(&mut self, behind: usize, completion: Completion) {
        let at = self.written + (self.len - behind.min(self.len)) as u64;
        self.completions.push_back((at, completion));
    }

    /// Offers what is here to `write` until it is gone or not all of an offer is taken.
    pub(super) fn write(&mut self, mut write: impl FnMut(&[IoSlice<'_>]) -> usize) {
        while self.len > 0 {
            let mut slices = [IoSlice::new(&[]); SLICES];
            let mut offered = 0;
            let mut skip = self.gone;
            let mut count = 0;
            for (slice, chunk) in slices.iter_mut().zip(&self.chunks) {
                let bytes = &chunk.bytes()[skip..];
                *slice = IoSlice::new(bytes);
                offered += bytes.len();
                skip = 0;
                count += 1;
            }
            let taken = write(&slices[..count]).min(offered);
            self.consume(taken);
            if taken < offered {
                break;
            }
        }
        while let Some((at, _)) = self.completions.front()
            && *at <= self.written
        {
            if let Some((_, completion)) = self.completions.pop_front() {
                completion(Ok(()));
            }
        }
    }

    fn consume(&mut self, taken: usize) {
        self.len -= taken;
        self.written += taken as u64;
        self.gone += taken;
        while let Some(first) = self.chunks.front().map(|chunk| chunk.bytes().len())
            && self.gone >= first
        {
            self.gone -= first;
            self.chunks.pop_front();
        }
    }
}

impl Drop for Backlog {
    fn drop(&mut self) {
        for (_, completion) in self.completions.drain(..) {
            completion(Err(Unsent));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(backlog: &mut Backlog, mut most: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        backlog.write(|slices| {
            let mut taken = 0;
            for slice in slices {
                let n = slice.len().min(most);
                bytes.extend_from_slice(&slice[..n]);
                (taken, most) = (taken + n, most - n);
            }
            taken
        });
        bytes
    }

    #[test]
    fn bytes_go_in_order_whatever_is_taken_at_a_time() {
        for most in 1..20 {
            let mut backlog = Backlog::default();
            backlog.push_shared(&Arc::from(&b"0123"[..]), 2);
            backlog.push(b"45");
            backlog.push(b"6");
            backlog.push_shared(&Arc::from(&b"789"[..]), 0);
            backlog.push(b"ab");
            assert_eq!(backlog.len(), 10);
            let mut bytes = Vec::new();
            while backlog.len() > 0 {
                bytes.extend(taken(&mut backlog, most));
            }
            assert_eq!(bytes, b"23456789ab", "{most} at a time");
        }
    }

    /// A peer that keeps up, but is never quite done.
    #[test]
    fn what_has_gone_is_let_go_of_while_something_waits() {
        let mut backlog = Backlog::default();
        backlog.push(&[0; 1000]);
        for _ in 0..10_000 {
            backlog.push(&[0; 1000]);
            taken(&mut backlog, 1000);
        }
        assert_eq!(backlog.len(), 1000);
        let kept: usize = backlog.chunks.iter().map(|chunk| chunk.bytes().len()).sum();
        assert!(kept < 3 * CHUNK, "{kept} bytes are kept");
    }

    #[test]
    fn completions_are_told_when_their_bytes_have_gone() {
        let (tell, told) = std::sync::mpsc::channel();
        let completion = |name: &'static str| -> Completion {
            let tell = tell.clone();
            Box::new(move |result| tell.send((name, result)).expect("the test listens"))
        };
        let mut backlog = Backlog::default();
        backlog.push(b"one");
        backlog.complete(0, completion("one"));
        backlog.push(b"two");
        backlog.complete(0, completion("two"));
        taken(&mut backlog, 2);
        assert!(told.try_recv().is_err());
        taken(&mut backlog, 2);
        assert_eq!(told.try_recv(), Ok(("one", Ok(()))));
        assert!(told.try_recv().is_err());
        drop(backlog);
        assert_eq!(told.try_recv(), Ok(("two", Err(Unsent))));
    }
}
