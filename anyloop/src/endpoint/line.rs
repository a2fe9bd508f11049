//! The way from a connection to its transport, while the connection is at work.

use std::io::IoSlice;
use std::sync::Arc;
use std::task::Waker;

use anyloop_proto::{LARGE_PAYLOAD, Output, TransportError};

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
    /// Writes the cork, and behind it the header and payload of one frame, and empties the cork.
    fn flush(&mut self, cork: &mut Vec<u8>, header: &[u8], payload: &[u8]);

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

    /// Whether nobody can read along.
    fn is_secure(&self) -> bool;

    /// Who is at the other end.
    fn remote_endpoint(&self) -> String;
}

impl<'l> Line<'l> {
    pub(super) fn new(
        cork: &'l mut Vec<u8>,
        rear: &'l mut (dyn Rear + 'l),
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
            self.flush();
        }
    }

    /// The transport can take more: writes what waits.
    pub(super) fn write_backlog(&mut self) {
        self.rear.write_backlog();
        *self.backlog = self.rear.backlog();
    }

    /// Writes what was gathered.
    pub(super) fn flush(&mut self) {
        self.rear.flush(self.cork, &[], &[]);
        *self.backlog = self.rear.backlog();
    }
}

impl Output for Line<'_> {
    #[inline]
    fn buffer(&mut self) -> &mut Vec<u8> {
        self.cork
    }

    fn write_vectored(&mut self, header: &[u8], payload: &[u8]) -> bool {
        self.rear.flush(self.cork, header, payload);
        *self.backlog = self.rear.backlog();
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

/// The rear, for one type of transport.
pub(super) struct TransportRear<'t, T: Transport> {
    transport: &'t mut T,
    backlog: &'t mut Option<Box<Backlog>>,
    /// Completions of what is in the cork, by where in the cork it ends.
    completions: Vec<(usize, Completion)>,
    error: Option<(TransportError, T::Error)>,
}

impl<'t, T: Transport> TransportRear<'t, T> {
    pub(super) const fn new(transport: &'t mut T, backlog: &'t mut Option<Box<Backlog>>) -> Self {
        Self { transport, backlog, completions: Vec::new(), error: None }
    }

    /// What the transport failed with.
    pub(super) fn into_error(self) -> Option<(TransportError, T::Error)> {
        self.error
    }

    fn write(&mut self, slices: &[IoSlice<'_>]) -> usize {
        write(self.transport, &mut self.error, slices)
    }
}

/// Writes what can be written; nothing more after a failure.
fn write<T: Transport>(
    transport: &mut T,
    failed: &mut Option<(TransportError, T::Error)>,
    slices: &[IoSlice<'_>],
) -> usize {
    if failed.is_some() {
        return 0;
    }
    transport.write(slices).unwrap_or_else(|error| {
        *failed = Some((T::classify(&error), error));
        0
    })
}

impl<T: Transport> Rear for TransportRear<'_, T> {
    fn flush(&mut self, cork: &mut Vec<u8>, header: &[u8], payload: &[u8]) {
        // Taken out, for it is lent to all connections in turn: if the transport panics, what was
        // gathered for this one must not be found there by the next.
        let mut gathered = std::mem::take(cork);
        let parts = [&gathered[..], header, payload];
        let len = gathered.len() + header.len() + payload.len();
        let written = match (self.backlog.is_some(), len) {
            (true, _) | (_, 0) => 0,
            _ if payload.is_empty() => self.write(&[IoSlice::new(&gathered)]).min(len),
            _ => self.write(&parts.map(IoSlice::new)).min(len),
        };
        if written < len {
            let backlog = self.backlog.get_or_insert_default();
            let mut gone = written;
            for part in parts {
                let skip = gone.min(part.len());
                backlog.push(&part[skip..]);
                gone -= skip;
            }
        }
        gathered.clear();
        *cork = gathered;
        for (end, completion) in self.completions.drain(..) {
            match self.backlog.as_deref_mut() {
                // `len - end` bytes came after it.
                Some(backlog) if end > written => {
                    backlog.complete(len - end, completion);
                }
                _ => completion(Ok(())),
            }
        }
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
            **backlog = None;
        }
    }

    fn complete(&mut self, cork: usize, completion: Completion) {
        match self.backlog.as_deref_mut() {
            _ if cork > 0 => self.completions.push((cork, completion)),
            Some(backlog) => backlog.complete(0, completion),
            None => completion(Ok(())),
        }
    }

    fn backlog(&self) -> usize {
        self.backlog.as_deref().map_or(0, Backlog::len)
    }

    fn waker(&self) -> Waker {
        self.transport.waker()
    }

    fn is_secure(&self) -> bool {
        self.transport.is_secure()
    }

    fn remote_endpoint(&self) -> String {
        self.transport.remote_endpoint()
    }
}
