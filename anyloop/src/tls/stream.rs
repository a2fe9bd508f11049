//! TLS between a protocol and its byte stream.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use anyloop_proto::{Input, Instant, Role, SendQueue, Shutdown, TransportError};

use super::error::TlsError;
#[cfg(feature = "net")]
use super::proxy::ProxyTls;
use super::records::{Received, Records};
use crate::cold::cold_path;
use crate::stream::{
    Budget, LayerGuard, MAX_RECORD_PLAINTEXT, Peer, Progress, Scratch, Seal, StreamProtocol,
    Unread, Wants, WriteBuffer,
};

/// How long the stream stays half-closed after TLS has failed, so that the peer can read the alert. To close at once
/// could reset the stream, and discard the alert.
const LINGER: Duration = Duration::from_secs(1);

/// The answer to an HTTP request without TLS.
const PLAIN_HTTP: &str = "HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Type: text/plain\r\n\
    Content-Length: 50\r\n\r\nthis port speaks TLS: use wss:// or https:// URIs\n";

/// A protocol over TLS: decrypts the input of the protocol, and encrypts its output.
///
/// Applications only name it in the type of a driver. It keeps incomplete input, and decrypted input that the protocol
/// does not take yet. Both come before the input in the driver's own queue. The send buffer of the driver has records.
pub struct TlsStream<S> {
    inner: S,
    records: Records,
    phase: Phase,
    /// The number of bytes that our close_notify has added to the output, from 1 to 255; 0 until it was due. 1 if it
    /// could not be sealed.
    close_notify_len: u8,
    held: Option<Box<Held>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Handshake {
        /// Whether any input has arrived.
        any_input: bool,
    },
    Open,
    /// TLS has failed. The peer can read the alert until this time.
    Lingering(Instant),
    /// TLS has failed, or the stream has ended.
    Over,
}

/// Decrypted input that the protocol has not taken yet, and the end of the input if that has not been reported.
#[derive(Default)]
struct Held {
    plaintext: Unread,
    /// Reported after `plaintext`.
    end: Option<End>,
}

/// How the input ended.
enum End {
    Closed,
    Failed(TlsError),
}

impl<S> TlsStream<S> {
    pub(crate) const fn new(inner: S, records: Records) -> Self {
        let phase = Phase::Handshake { any_input: false };
        Self { inner, records, phase, close_notify_len: 0, held: None }
    }

    /// A protocol over TLS, through a tunnel of a proxy that speaks TLS itself. `received` was received from the
    /// tunnel.
    #[cfg(feature = "net")]
    pub(crate) fn through_proxy(
        inner: S,
        records: Records,
        proxy: ProxyTls,
        received: Vec<u8>,
    ) -> Self {
        Self::new(inner, records.with_outer(proxy.into_records(), received))
    }

    /// A protocol without TLS, through a tunnel of a proxy that speaks TLS itself. `received` was received from the
    /// tunnel.
    #[cfg(feature = "net")]
    pub(crate) fn plain_through_proxy(inner: S, proxy: ProxyTls, received: &[u8]) -> Self {
        let mut plaintext = Unread::default();
        plaintext.push(received);
        let held = (!received.is_empty()).then(|| Box::new(Held { plaintext, end: None }));
        let records = proxy.into_records().with_proxy_as_peer();
        Self { inner, records, phase: Phase::Open, close_notify_len: 0, held }
    }

    /// The protocol.
    pub(crate) const fn inner(&self) -> &S {
        &self.inner
    }

    /// The protocol.
    pub(crate) const fn inner_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// The protocol, without TLS.
    #[cfg(feature = "net")]
    pub(crate) fn into_inner(self) -> S {
        self.inner
    }
}

impl<S: StreamProtocol> TlsStream<S> {
    /// Calls the protocol with a buffer whose output is sealed.
    fn call<R>(
        &mut self,
        out: &mut WriteBuffer<'_>,
        now: Instant,
        f: impl FnOnce(&mut S, &mut WriteBuffer<'_>) -> R,
    ) -> R {
        let mut scratch = out.take_scratch();
        let mut guard = LayerGuard::new(out, &mut self.records, &mut scratch);
        let result = f(&mut self.inner, &mut guard.buffer());
        drop(guard);
        out.put_scratch(scratch);
        self.finish(out, now);
        result
    }

    /// Ends each call: fails if output could not be sealed, reports the end of the input if that is due, and sends a
    /// close_notify if the stream is to end.
    fn finish(&mut self, out: &mut WriteBuffer<'_>, now: Instant) {
        if let Some(error) = self.records.take_seal_error() {
            self.fail(TlsError::Protocol(error), out, now);
        }
        if self.held.is_some() {
            self.report_end(out, now);
        }
        self.write_close_notify_if_due(out);
    }

    /// Reports the end of the input if the protocol has taken all input before it. An error does not wait for input
    /// that the protocol does not read.
    #[cold]
    fn report_end(&mut self, out: &mut WriteBuffer<'_>, now: Instant) {
        let Wants { read, discard, again, .. } = self.inner.wants();
        let Some(held) = self.held.as_deref_mut() else { return };
        if discard {
            held.plaintext = Unread::default();
        }
        let unread = !held.plaintext.is_empty();
        let waits = match &held.end {
            Some(End::Failed(_)) => again || (unread && read),
            _ => again || unread,
        };
        let end = if waits { None } else { held.end.take() };
        if held.plaintext.is_empty() && held.end.is_none() {
            self.held = None;
        }
        match end {
            Some(End::Closed) => self.inner.handle_eof(),
            Some(End::Failed(error)) => self.fail(error, out, now),
            None => {}
        }
    }

    /// Sends a close_notify, once, if the protocol ends the stream.
    fn write_close_notify_if_due(&mut self, out: &mut WriteBuffer<'_>) {
        let ends = matches!(self.inner.wants().shutdown, Shutdown::HalfClose | Shutdown::Close);
        if ends && self.is_open() && self.close_notify_len == 0 && !self.records.is_stopped() {
            cold_path();
            let before = out.bytes().len();
            self.records.write_close_notify(out.bytes());
            self.close_notify_len =
                u8::try_from(out.bytes().len() - before).unwrap_or(u8::MAX).max(1);
        }
    }

    /// TLS has failed: answers the peer if the error calls for that, and reports the error to the protocol.
    #[cold]
    fn fail(&mut self, error: TlsError, out: &mut WriteBuffer<'_>, now: Instant) {
        if !matches!(self.phase, Phase::Handshake { .. } | Phase::Open) {
            return;
        }
        let is_plain_http = matches!(error, TlsError::PlainHttp);
        match error {
            TlsError::PlainHttp => out.bytes().extend_from_slice(PLAIN_HTTP.as_bytes()),
            TlsError::NotTls | TlsError::ClientNotTls | TlsError::Alert(_) => {}
            _ => self.records.write_alert(out.bytes()),
        }
        let answered = is_plain_http || self.records.has_written_alert();
        let lingers = answered && !self.inner.is_terminated();
        self.phase = if lingers { Phase::Lingering(now + LINGER) } else { Phase::Over };
        self.records.stop();
        self.held = None;
        self.inner.handle_error(TransportError::Tls, Some(Box::new(error)));
    }

    fn is_open(&self) -> bool {
        self.phase == Phase::Open
    }

    /// Whether input is discarded undecrypted: the peer has sent its close_notify, decryption has failed, or our
    /// close_notify was sent. After ours, rustls asserts that no alert follows, and an invalid record would need one.
    const fn discards_input(&self) -> bool {
        self.records.is_input_over() || self.close_notify_len > 0
    }

    /// Keeps the end of the input for [`report_end`](Self::report_end), unless another end is kept.
    fn keep_end(&mut self, end: End) {
        self.held.get_or_insert_default().end.get_or_insert(end);
    }
}

/// Input.
impl<S: StreamProtocol> TlsStream<S> {
    fn receive_records(
        &mut self,
        input: &mut Input<'_>,
        out: &mut WriteBuffer<'_>,
        scratch: &mut Scratch,
        budget: &mut Budget,
        now: Instant,
    ) -> Progress {
        let mut progress = Progress::SameWants;
        if input.is_empty() || self.has_unread() {
            // The protocol may have an event to report without further input.
            progress = self.pass_unread(input, out, scratch, budget, now);
        }
        while !input.is_empty() && !self.is_input_blocked() {
            if self.discards_input() || matches!(self.phase, Phase::Lingering(_) | Phase::Over) {
                input.discard();
                return Progress::WantsChanged;
            }
            let received = self.decrypt(input, scratch, out.bytes());
            self.open_if_handshake_is_complete(out);
            let mut plaintext = std::mem::take(&mut scratch.plaintext);
            if !plaintext.is_empty() {
                let (passed, left) = self.pass(&mut plaintext, input, out, scratch, budget, now);
                if left > 0 {
                    let left = &plaintext[plaintext.len() - left..];
                    self.held.get_or_insert_default().plaintext.push(left);
                }
                if passed == Progress::WantsChanged || left > 0 {
                    progress = Progress::WantsChanged;
                }
            }
            plaintext.clear();
            scratch.plaintext = plaintext;
            match received {
                Ok(Received::Open) => continue,
                Ok(Received::Closed) => self.keep_end(End::Closed),
                Err(error) => self.keep_end(End::Failed(error)),
            }
            input.discard();
            progress = Progress::WantsChanged;
        }
        progress
    }

    /// Whether decryption must wait: the protocol has not taken what was decrypted before, or has to be resumed first.
    /// Then the input waits here and in the driver.
    fn is_input_blocked(&self) -> bool {
        self.has_unread() || self.inner.wants().again
    }

    /// Decrypts records.
    fn decrypt(
        &mut self,
        input: &mut Input<'_>,
        scratch: &mut Scratch,
        out: &mut Vec<u8>,
    ) -> Result<Received, TlsError> {
        self.check_first_byte(input)?;
        let Scratch { plaintext, ciphertext, .. } = scratch;
        self.records
            .receive(input, plaintext, out, ciphertext)
            .map_err(|error| self.tls_error(error))
    }

    /// Fails if the first byte of the input is not the type of a record, 20 to 23 (RFC 8446 §5.1).
    fn check_first_byte(&mut self, input: &Input<'_>) -> Result<(), TlsError> {
        if self.phase != (Phase::Handshake { any_input: false }) {
            return Ok(());
        }
        self.phase = Phase::Handshake { any_input: true };
        match input.rest().first() {
            Some(20..=23) | None => Ok(()),
            Some(byte) => Err(match self.records.role() {
                Role::Client => TlsError::NotTls,
                Role::Server if byte.is_ascii_alphabetic() => TlsError::PlainHttp,
                Role::Server => TlsError::ClientNotTls,
            }),
        }
    }

    fn tls_error(&self, error: rustls::Error) -> TlsError {
        TlsError::new(error, self.records.role())
    }

    /// Enters [`Phase::Open`] once the handshake is complete, and seals the output that was kept until then.
    fn open_if_handshake_is_complete(&mut self, out: &mut WriteBuffer<'_>) {
        if !matches!(self.phase, Phase::Handshake { .. }) || self.records.is_handshaking() {
            return;
        }
        self.phase = Phase::Open;
        let pending_output = self.records.take_pending_output();
        pending_output
            .chunks(MAX_RECORD_PLAINTEXT)
            .for_each(|bytes| _ = self.records.seal(bytes, out.bytes()));
    }

    /// Passes on input that was decrypted before and could not be taken.
    fn pass_unread(
        &mut self,
        input: &mut Input<'_>,
        out: &mut WriteBuffer<'_>,
        scratch: &mut Scratch,
        budget: &mut Budget,
        now: Instant,
    ) -> Progress {
        if !self.is_open() {
            return Progress::WantsChanged;
        }
        let unread = self.held.as_deref_mut().map(|held| std::mem::take(&mut held.plaintext));
        let mut unread = unread.unwrap_or_default();
        let (_, left) = self.pass(unread.rest(), input, out, scratch, budget, now);
        unread.keep_last(left);
        if left > 0 {
            self.held.get_or_insert_default().plaintext = unread;
        }
        Progress::WantsChanged
    }

    /// Passes decrypted input to the protocol. Returns its progress, and the number of bytes that it has not taken and
    /// that must be kept for it.
    fn pass(
        &mut self,
        plaintext: &mut [u8],
        input: &mut Input<'_>,
        out: &mut WriteBuffer<'_>,
        scratch: &mut Scratch,
        budget: &mut Budget,
        now: Instant,
    ) -> (Progress, usize) {
        let Wants { read, discard, .. } = self.inner.wants();
        if discard || !read {
            return (Progress::WantsChanged, if discard { 0 } else { plaintext.len() });
        }
        let mut progress = Progress::SameWants;
        let mut rest = plaintext;
        // The rest of a large message is copied immediately to the memory of the message.
        if let Some(buffer) = self.inner.receive_buffer() {
            let n = buffer.len().min(rest.len());
            let (large, behind) = rest.split_at_mut(n);
            buffer[..n].copy_from_slice(large);
            self.inner.filled(n);
            (rest, progress) = (behind, Progress::WantsChanged);
        }
        let mut input = input.over(rest);
        let mut guard = LayerGuard::new(out, &mut self.records, scratch);
        let received = self.inner.receive(&mut input, &mut guard.buffer(), budget, now);
        drop(guard);
        if received == Progress::WantsChanged {
            progress = Progress::WantsChanged;
        }
        let left = if self.inner.wants().discard { 0 } else { input.len() };
        (progress, left)
    }
}

impl<S: StreamProtocol> StreamProtocol for TlsStream<S> {
    /// Starts the protocol at once, so that its timeout covers both handshakes. A client's request is kept until the
    /// TLS handshake is complete.
    fn start(&mut self, _: bool, out: &mut WriteBuffer<'_>, now: Instant) {
        self.call(out, now, |inner, out| inner.start(true, out, now));
        if self.inner.wants().shutdown != Shutdown::None || self.is_open() {
            return; // the connection was abandoned, or its only TLS is that with a proxy, which is open
        }
        // A client sends its ClientHello; a server does nothing.
        if let Err(error) = self.records.start(out.bytes()) {
            self.fail(self.tls_error(error), out, now);
        }
    }

    fn receive(
        &mut self,
        input: &mut Input<'_>,
        out: &mut WriteBuffer<'_>,
        budget: &mut Budget,
        now: Instant,
    ) -> Progress {
        let was_open = self.is_open();
        let mut scratch = out.take_scratch();
        let mut progress = self.receive_records(input, out, &mut scratch, budget, now);
        out.put_scratch(scratch);
        self.finish(out, now);
        if !was_open || !self.is_open() || self.held.is_some() || !input.is_empty() {
            progress = Progress::WantsChanged;
        }
        progress
    }

    fn receive_buffer(&mut self) -> Option<&mut [u8]> {
        None
    }

    fn filled(&mut self, _: usize) {}

    fn outstanding(&self) -> u64 {
        0
    }

    fn has_unread(&self) -> bool {
        self.held.as_deref().is_some_and(|held| !held.plaintext.is_empty())
    }

    fn is_costly(&self) -> bool {
        matches!(self.phase, Phase::Handshake { .. })
    }

    fn is_terminated(&self) -> bool {
        self.inner.is_terminated()
    }

    fn handle_eof(&mut self) {
        match self.phase {
            Phase::Lingering(_) => self.phase = Phase::Over,
            // A client that ends without any input may probe the port: that is no failure of TLS.
            Phase::Handshake { any_input } if any_input || self.records.role() == Role::Client => {
                self.inner.handle_error(TransportError::Tls, Some(Box::new(TlsError::Cut)));
            }
            // The close_notify of the peer is missing. That does not matter if the protocol expects no more input.
            Phase::Open if !self.records.is_input_over() && self.inner.wants().read => {
                self.inner.handle_error(TransportError::Tls, Some(Box::new(TlsError::Truncated)));
            }
            Phase::Handshake { .. } | Phase::Open | Phase::Over => self.inner.handle_eof(),
        }
    }

    fn handle_error(&mut self, kind: TransportError, error: Option<Box<dyn Error + Send + Sync>>) {
        match self.phase {
            Phase::Lingering(_) => self.phase = Phase::Over,
            _ => self.inner.handle_error(kind, error),
        }
    }

    /// `bytes` counts bytes of records. For the protocol, the close_notify and the overhead of one record are
    /// subtracted: of several lost records, the result includes the overhead of the others.
    fn handle_lost_output(&mut self, bytes: usize, error: Option<TransportError>) {
        let close_notify_len = usize::from(self.close_notify_len);
        let overhead = close_notify_len.saturating_sub(2); // an alert has two bytes
        match bytes.checked_sub(close_notify_len) {
            None | Some(0) => {}
            Some(bytes) => self.inner.handle_lost_output(bytes.saturating_sub(overhead), error),
        }
    }

    fn handle_writable(&mut self, out: &mut WriteBuffer<'_>, now: Instant) {
        self.call(out, now, |inner, out| inner.handle_writable(out, now));
    }

    fn handle_timeout(&mut self, out: &mut WriteBuffer<'_>, budget: &mut Budget, now: Instant) {
        match self.phase {
            Phase::Lingering(until) if until <= now => self.phase = Phase::Over,
            Phase::Lingering(_) => {}
            _ => self.call(out, now, |inner, out| inner.handle_timeout(out, budget, now)),
        }
    }

    fn run_commands(
        &mut self,
        out: &mut WriteBuffer<'_>,
        budget: &mut Budget,
        now: Instant,
    ) -> Progress {
        let progress = self.call(out, now, |inner, out| inner.run_commands(out, budget, now));
        if self.is_open() { progress } else { Progress::WantsChanged }
    }

    fn resume(&mut self, out: &mut WriteBuffer<'_>, budget: &mut Budget, now: Instant) {
        self.call(out, now, |inner, out| inner.resume(out, budget, now));
    }

    fn handle_panic(&mut self, out: &mut WriteBuffer<'_>, now: Instant) {
        self.call(out, now, |inner, out| inner.handle_panic(out, now));
    }

    fn handle_written(&mut self, waiting: usize) -> bool {
        self.inner.handle_written(waiting)
    }

    fn report_send_buffer(&mut self, out: &mut WriteBuffer<'_>, budget: &mut Budget, now: Instant) {
        self.call(out, now, |inner, out| inner.report_send_buffer(out, budget, now));
    }

    fn note_peer(&mut self, peer: &mut dyn FnMut() -> Peer) {
        self.inner.note_peer(peer);
    }

    fn note_send_queue(&mut self, queue: &mut dyn FnMut() -> Option<SendQueue>, now: Instant) {
        self.inner.note_send_queue(queue, now);
    }

    fn end_output(&mut self, out: &mut WriteBuffer<'_>) {
        self.write_close_notify_if_due(out);
    }

    fn prepare_close(&mut self, budget: &mut Budget) -> bool {
        self.inner.prepare_close(budget)
    }

    fn handle_closed(&mut self, out: &mut WriteBuffer<'_>, now: Instant) {
        self.phase = Phase::Over;
        self.call(out, now, |inner, out| inner.handle_closed(out, now));
    }

    fn wants(&self) -> Wants {
        let mut wants = self.inner.wants();
        match self.phase {
            Phase::Open if self.discards_input() => {
                wants.read &= self.has_unread();
                wants.discard = !wants.read;
                wants.slow_path = true;
            }
            Phase::Open => {
                // `receive_buffer` lends nothing, so the driver can read into any memory. After the last input of the
                // protocol, reading goes on for the close_notify.
                wants.slow_path = false;
                wants.read |= wants.discard;
                wants.discard = false;
            }
            Phase::Handshake { .. } => {
                wants.slow_path = true;
                wants.read = wants.shutdown == Shutdown::None;
                wants.discard = !wants.read;
                if wants.shutdown == Shutdown::HalfClose {
                    wants.shutdown = Shutdown::Close; // the protocol has sent nothing that the peer must read
                }
            }
            Phase::Lingering(_) => {
                (wants.read, wants.discard, wants.slow_path) = (false, true, true);
                if !self.inner.is_terminated() {
                    wants.shutdown = Shutdown::HalfClose;
                }
            }
            Phase::Over => (wants.read, wants.discard) = (false, true),
        }
        wants
    }

    fn deadline(&self) -> Option<Instant> {
        match self.phase {
            Phase::Lingering(until) => Some(until),
            _ => self.inner.deadline(),
        }
    }

    fn end_call(&mut self, waiting: usize, now: Instant) {
        self.inner.end_call(waiting, now);
    }
}

impl<S> fmt::Debug for TlsStream<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsStream").field("phase", &self.phase).finish_non_exhaustive()
    }
}
