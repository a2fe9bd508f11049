//! The input of the state machine.

use crate::pool::BufferPool;

/// Received bytes in the caller's buffer.
///
/// Payloads are unmasked and returned in place. A message of one frame that arrives whole is never copied, unless an
/// extension has to decode it.
/// Taken bytes disappear from [`rest`](Self::rest). The caller keeps the bytes that are not taken:
/// those after a Close, or those left when the caller stops.
///
/// ```
/// # use anyloop_proto::*;
/// # let now = Instant::from_nanos(0);
/// # let mut out = Vec::new();
/// # let mut connection = Connection::new(Role::Client, Config::default().into(), now);
/// let Connection { receiver, sender } = &mut connection;
/// let mut bytes = *b"\x88\x00beyond the Close";
/// let mut input = Input::new(&mut bytes);
/// assert!(matches!(receiver.next(sender, &mut input, now, &mut out)?, Some(Event::Close(_))));
/// assert!(receiver.next(sender, &mut input, now, &mut out)?.is_none());
/// assert_eq!(input.rest(), b"beyond the Close");
/// input.discard();
/// assert!(input.is_empty());
/// # Ok::<(), Failure>(())
/// ```
#[derive(Debug)]
pub struct Input<'b> {
    rest: &'b mut [u8],
    pool: Option<&'b mut BufferPool>,
}

impl<'b> Input<'b> {
    /// Input over `bytes`. Messages that arrive in parts are gathered in newly allocated memory.
    #[inline]
    #[must_use]
    pub fn new(bytes: &'b mut [u8]) -> Self {
        Self { rest: bytes, pool: None }
    }

    /// Input over `bytes`. Messages that arrive in parts are gathered in memory from `pool`. The memory goes back to
    /// the pool when the message was read, so in the steady state nothing is allocated.
    #[inline]
    #[must_use]
    pub fn with_pool(bytes: &'b mut [u8], pool: &'b mut BufferPool) -> Self {
        Self { rest: bytes, pool: Some(pool) }
    }

    /// The bytes not yet taken.
    #[inline]
    #[must_use]
    pub fn rest(&self) -> &[u8] {
        self.rest
    }

    /// How many bytes are not yet taken.
    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        self.rest.len()
    }

    /// Whether all bytes are taken.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Takes and discards the remaining bytes.
    pub fn discard(&mut self) {
        let _ = self.take(self.len());
    }

    /// Takes all remaining bytes, for a layer between the byte stream and the protocol, such as TLS.
    ///
    /// ```
    /// use anyloop_proto::Input;
    ///
    /// let mut received = *b"ifmmp"; // a cipher that is older than TLS
    /// let mut input = Input::new(&mut received);
    /// let bytes = input.take_all();
    /// bytes.iter_mut().for_each(|byte| *byte -= 1);
    /// assert!(input.is_empty());
    /// assert_eq!(input.over(bytes).rest(), b"hello");
    /// ```
    #[must_use]
    pub fn take_all(&mut self) -> &'b mut [u8] {
        self.take(self.len())
    }

    /// Replaces the remaining bytes. For bytes that [`take_all`](Self::take_all) returned and that were not used.
    pub fn put_back(&mut self, bytes: &'b mut [u8]) {
        self.rest = bytes;
    }

    /// Input over other bytes, with the same pool.
    #[must_use]
    pub fn over<'i>(&'i mut self, bytes: &'i mut [u8]) -> Input<'i> {
        Input { rest: bytes, pool: self.pool.as_deref_mut() }
    }

    /// Takes the next `n` bytes, or all if there are fewer.
    #[inline]
    pub(crate) fn take(&mut self, n: usize) -> &'b mut [u8] {
        let n = n.min(self.rest.len());
        let (taken, rest) = core::mem::take(&mut self.rest).split_at_mut(n);
        self.rest = rest;
        taken
    }

    /// Takes the next `n` bytes; `None` if there are fewer.
    #[inline]
    pub(crate) fn take_whole(&mut self, n: usize) -> Option<&'b mut [u8]> {
        if n > self.rest.len() {
            return None;
        }
        let (taken, rest) = core::mem::take(&mut self.rest).split_at_mut(n);
        self.rest = rest;
        Some(taken)
    }

    pub(crate) fn pool(&mut self) -> Option<&mut BufferPool> {
        self.pool.as_deref_mut()
    }
}
