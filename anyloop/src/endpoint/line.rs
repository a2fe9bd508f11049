//! The way from a connection to its transport, while the connection is at work.

use std::hint::cold_path;
use std::io::IoSlice;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::Waker;

use anyloop_proto::{Instant, LARGE_PAYLOAD, Output, TransportError};

use super::backlog::{Backlog, Completion};
use crate::transport::Transport;

/// What is gathered is written when it has grown to this many bytes, or the batch is over.
const CORK: usize = 64 * 1024;

/// Gathers what is sent while one batch of input is processed, to be written at once.
pub(super) struct Line<'l> {
    cork: &'l mut Vec<u8>,
    rear: &'l mut (dyn Rear + 'l),
    /// What `rear.backlog()` says, which is asked for each message.
    backlog: &'l mut usize,
}

/// What is behind the cork: the transport, of whatever type, and what it did not take yet.
pub(super) trait Rear {
    /// Writes the cork, which is not empty, and empties it. Returns how many bytes wait now.
    fn flush(&mut self, cork: &mut Vec<u8>) -> usize;

    /// The same with the header and payload of one frame behind it.
    fn write_frame(&mut self, cork: &mut Vec<u8>, header: &[u8], payload: &[u8]) -> usize;

    /// Writes a frame that many connections send, or keeps a reference to it.
    fn write_shared(&mut self, frame: &Arc<[u8]>);

    /// Writes what waits, as far as the transport takes it.
    fn write_backlog(&mut self);

    /// Tells `completion` when all that is in the rear, and `cork` bytes of the cork, were taken.
    fn complete(&mut self, cork: usize, completion: Completion);

    /// Bytes that wait for the transport.
    fn backlog(&self) -> usize;

    /// What wakes the transport.
    fn waker(&self) -> Waker;

    /// The number under which the transport knows the connection.
    fn key(&self) -> u64;

    /// The present, where the transport knows it more exactly.
    fn now(&self) -> Option<Instant>;

    /// Whether nobody can read along.
    fn is_secure(&self) -> bool;

    /// Who is at the other end.
    fn remote_endpoint(&self) -> String;

    /// Where that is.
    fn peer_addr(&self) -> Option<SocketAddr>;
}

impl<'l> Line<'l> {
    /// `backlog` is memory for the line to keep what the rear says, which it does not say yet.
    #[inline]
    pub(super) fn new<T: Transport>(
        cork: &'l mut Vec<u8>,
        rear: &'l mut TransportRear<'_, T>,
        backlog: &'l mut usize,
    ) -> Self {
        *backlog = rear.backlog();
        Self { cork, rear, backlog }
    }

    /// The same for a shorter time.
    pub(super) fn reborrow(&mut self) -> Line<'_> {
        Line { cork: self.cork, rear: self.rear, backlog: self.backlog }
    }

    /// Bytes that wait for the transport; what is in the cork does not wait yet.
    #[inline]
    pub(super) const fn backlog(&self) -> usize {
        *self.backlog
    }

    /// Bytes that the transport has not taken.
    pub(super) fn buffered(&self) -> usize {
        self.backlog() + self.cork.len()
    }

    /// The transport, for what it can be asked.
    pub(super) fn rear(&self) -> &dyn Rear {
        self.rear
    }

    /// Tells `completion` when everything so far was taken.
    pub(super) fn complete(&mut self, completion: Completion) {
        self.rear.complete(self.cork.len(), completion);
    }

    /// Writes what was gathered, if it has become much.
    #[inline]
    pub(super) fn flush_if_large(&mut self) {
        if self.cork.len() >= CORK {
            cold_path();
            self.flush();
        }
    }

    /// The transport can take more: writes what waits.
    pub(super) fn write_backlog(&mut self) {
        self.rear.write_backlog();
        *self.backlog = self.rear.backlog();
    }

    /// Writes what was gathered.
    #[inline]
    pub(super) fn flush(&mut self) {
        // Completions only wait for what is in the cork.
        if !self.cork.is_empty() {
            *self.backlog = self.rear.flush(self.cork);
        }
    }
}

impl Output for Line<'_> {
    #[inline]
    fn buffer(&mut self) -> &mut Vec<u8> {
        self.cork
    }

    fn write_vectored(&mut self, header: &[u8], payload: &[u8]) -> bool {
        *self.backlog = self.rear.write_frame(self.cork, header, payload);
        true
    }

    /// A frame that many connections send is kept by reference where it has to wait, and written from
    /// where it lies where it is large.
    fn write_shared(&mut self, frame: &Arc<[u8]>) -> bool {
        if self.backlog() == 0 && frame.len() < LARGE_PAYLOAD {
            return false;
        }
        self.flush();
        self.rear.write_shared(frame);
        *self.backlog = self.rear.backlog();
        true
    }

    fn is_blocked(&self) -> bool {
        self.backlog() > 0
    }
}

/// What the transport failed with, if it did.
type Failed<E> = Option<(TransportError, E)>;

/// The rear, for one type of transport.
pub(super) struct TransportRear<'t, T: Transport> {
    transport: &'t mut T,
    backlog: Option<Box<Backlog>>,
    /// Completions of what is in the cork, by where in the cork it ends.
    completions: Option<Vec<(usize, Completion)>>,
    error: Failed<T::Error>,
}

impl<'t, T: Transport> TransportRear<'t, T> {
    #[inline]
    pub(super) const fn new(transport: &'t mut T, backlog: Option<Box<Backlog>>) -> Self {
        Self { transport, backlog, completions: None, error: None }
    }

    /// What the transport did not take, and what it failed with.
    #[inline]
    pub(super) fn into_parts(self) -> (Option<Box<Backlog>>, Failed<T::Error>) {
        (self.backlog, self.error)
    }

    /// Whether all that was sent is in the cork, and nobody waits for it to be written.
    #[inline]
    pub(super) const fn is_untouched(&self) -> bool {
        self.backlog.is_none() && self.completions.is_none() && self.error.is_none()
    }

    /// The cork was written by somebody else, who has come so far.
    #[cold]
    pub(super) fn end_flush(&mut self, cork: &mut Vec<u8>, written: Result<usize, T::Error>) {
        let written = written.unwrap_or_else(|error| {
            self.error = Some((T::classify(&error), error));
            0
        });
        if written < cork.len() {
            self.keep([cork, &[], &[]], written);
        }
        cork.clear();
    }

    /// Writes what was gathered, as the batch is over.
    pub(super) fn flush_all(&mut self, cork: &mut Vec<u8>) {
        // Completions only wait for what is in the cork.
        if !cork.is_empty() {
            self.write_cork(cork);
        }
    }

    /// Writes what was gathered, which is something.
    fn write_cork(&mut self, cork: &mut Vec<u8>) {
        // Taken out, for it is lent to all connections in turn: if the transport panics, what was
        // gathered for this one must not be found there by the next.
        let mut gathered = std::mem::take(cork);
        let len = gathered.len();
        let written = match self.backlog {
            Some(_) => 0,
            None => self.write(&[IoSlice::new(&gathered)]),
        };
        if written < len {
            cold_path();
            self.keep([&gathered, &[], &[]], written);
        }
        gathered.clear();
        *cork = gathered;
        if self.completions.is_some() {
            self.tell_flushed(written, len);
        }
    }

    /// Keeps what was not written of these.
    #[cold]
    fn keep(&mut self, parts: [&[u8]; 3], written: usize) {
        let backlog = self.backlog.get_or_insert_default();
        let mut gone = written;
        for part in parts {
            let skip = gone.min(part.len());
            backlog.push(&part[skip..]);
            gone -= skip;
        }
    }

    /// Of `len` bytes that were flushed, so many were written: tells those who wait for it.
    #[cold]
    fn tell_flushed(&mut self, written: usize, len: usize) {
        for (end, completion) in self.completions.take().into_iter().flatten() {
            match self.backlog.as_deref_mut() {
                // `len - end` bytes came after it.
                Some(backlog) if end > written => {
                    backlog.complete(len - end, completion);
                }
                _ => completion(Ok(())),
            }
        }
    }

    fn write(&mut self, slices: &[IoSlice<'_>]) -> usize {
        write(self.transport, &mut self.error, slices)
    }
}

/// Writes what can be written; nothing more after a failure.
fn write<T: Transport>(
    transport: &mut T,
    failed: &mut Failed<T::Error>,
    slices: &[IoSlice<'_>],
) -> usize {
    if failed.is_some() {
        return 0;
    }
    transport.write(slices).unwrap_or_else(|error| {
        cold_path();
        *failed = Some((T::classify(&error), error));
        0
    })
}

impl<T: Transport> Rear for TransportRear<'_, T> {
    fn flush(&mut self, cork: &mut Vec<u8>) -> usize {
        self.write_cork(cork);
        self.backlog()
    }

    fn write_frame(&mut self, cork: &mut Vec<u8>, header: &[u8], payload: &[u8]) -> usize {
        let mut gathered = std::mem::take(cork); // as above
        let parts = [&gathered[..], header, payload];
        let len = parts.iter().map(|part| part.len()).sum();
        let written = match self.backlog {
            Some(_) => 0,
            None => self.write(&parts.map(IoSlice::new)).min(len),
        };
        if written < len {
            self.keep(parts, written);
        }
        gathered.clear();
        *cork = gathered;
        if self.completions.is_some() {
            self.tell_flushed(written, len);
        }
        self.backlog()
    }

    fn write_shared(&mut self, frame: &Arc<[u8]>) {
        let written = match self.backlog {
            Some(_) => 0,
            None => self.write(&[IoSlice::new(frame)]).min(frame.len()),
        };
        if written < frame.len() {
            self.backlog.get_or_insert_default().push_shared(frame, written);
        }
    }

    fn write_backlog(&mut self) {
        let Self { transport, backlog, error, .. } = self;
        let Some(waiting) = backlog.as_deref_mut() else { return };
        waiting.write(|slices| write(&mut **transport, error, slices));
        if waiting.len() == 0 {
            *backlog = None;
        }
    }

    fn complete(&mut self, cork: usize, completion: Completion) {
        match self.backlog.as_deref_mut() {
            _ if cork > 0 => self.completions.get_or_insert_default().push((cork, completion)),
            Some(backlog) => backlog.complete(0, completion),
            None => completion(Ok(())),
        }
    }

    #[inline]
    fn backlog(&self) -> usize {
        self.backlog.as_deref().map_or(0, Backlog::len)
    }

    fn waker(&self) -> Waker {
        self.transport.waker()
    }

    fn key(&self) -> u64 {
        self.transport.key()
    }

    fn now(&self) -> Option<Instant> {
        self.transport.now()
    }

    fn is_secure(&self) -> bool {
        self.transport.is_secure()
    }

    fn remote_endpoint(&self) -> String {
        self.transport.remote_endpoint()
    }

    fn peer_addr(&self) -> Option<SocketAddr> {
        self.transport.peer_addr()
    }
}
