//! A protocol with TLS or without: each connection has the choice.

use std::error::Error;

use anyloop_proto::{Input, Instant, SendQueue, TransportError};

use super::stream::TlsStream;
use crate::stream::{Budget, Peer, Progress, StreamProtocol, Wants, WriteBuffer};

/// A protocol over TLS, or directly over its byte stream.
pub(crate) enum OptionalTls<S> {
    Plain(S),
    Tls(Box<TlsStream<S>>),
}

impl<S> OptionalTls<S> {
    pub(crate) const fn inner(&self) -> &S {
        match self {
            Self::Plain(inner) => inner,
            Self::Tls(tls) => tls.inner(),
        }
    }

    pub(crate) const fn inner_mut(&mut self) -> &mut S {
        match self {
            Self::Plain(inner) => inner,
            Self::Tls(tls) => tls.inner_mut(),
        }
    }
}

/// Calls the method of the variant.
macro_rules! either {
    ($self:ident.$method:ident($($argument:expr),*)) => {
        match $self {
            OptionalTls::Plain(protocol) => protocol.$method($($argument),*),
            OptionalTls::Tls(protocol) => protocol.$method($($argument),*),
        }
    };
}

impl<S: StreamProtocol> StreamProtocol for OptionalTls<S> {
    fn start(&mut self, secure: bool, out: &mut WriteBuffer<'_>, now: Instant) {
        either!(self.start(secure, out, now));
    }

    fn receive(
        &mut self,
        input: &mut Input<'_>,
        out: &mut WriteBuffer<'_>,
        budget: &mut Budget,
        now: Instant,
    ) -> Progress {
        either!(self.receive(input, out, budget, now))
    }

    fn receive_buffer(&mut self) -> Option<&mut [u8]> {
        either!(self.receive_buffer())
    }

    fn filled(&mut self, n: usize) {
        either!(self.filled(n));
    }

    fn outstanding(&self) -> u64 {
        either!(self.outstanding())
    }

    fn has_unread(&self) -> bool {
        either!(self.has_unread())
    }

    fn is_costly(&self) -> bool {
        either!(self.is_costly())
    }

    fn is_terminated(&self) -> bool {
        either!(self.is_terminated())
    }

    fn handle_eof(&mut self) {
        either!(self.handle_eof());
    }

    fn handle_error(&mut self, kind: TransportError, error: Option<Box<dyn Error + Send + Sync>>) {
        either!(self.handle_error(kind, error));
    }

    fn handle_lost_output(&mut self, bytes: usize, error: Option<TransportError>) {
        either!(self.handle_lost_output(bytes, error));
    }

    fn handle_writable(&mut self, out: &mut WriteBuffer<'_>, now: Instant) {
        either!(self.handle_writable(out, now));
    }

    fn handle_timeout(&mut self, out: &mut WriteBuffer<'_>, budget: &mut Budget, now: Instant) {
        either!(self.handle_timeout(out, budget, now));
    }

    fn run_commands(
        &mut self,
        out: &mut WriteBuffer<'_>,
        budget: &mut Budget,
        now: Instant,
    ) -> Progress {
        either!(self.run_commands(out, budget, now))
    }

    fn resume(&mut self, out: &mut WriteBuffer<'_>, budget: &mut Budget, now: Instant) {
        either!(self.resume(out, budget, now));
    }

    fn handle_panic(&mut self, out: &mut WriteBuffer<'_>, now: Instant) {
        either!(self.handle_panic(out, now));
    }

    fn handle_written(&mut self, waiting: usize) -> bool {
        either!(self.handle_written(waiting))
    }

    fn report_send_buffer(&mut self, out: &mut WriteBuffer<'_>, budget: &mut Budget, now: Instant) {
        either!(self.report_send_buffer(out, budget, now));
    }

    fn note_peer(&mut self, peer: &mut dyn FnMut() -> Peer) {
        either!(self.note_peer(peer));
    }

    fn note_send_queue(&mut self, queue: &mut dyn FnMut() -> Option<SendQueue>, now: Instant) {
        either!(self.note_send_queue(queue, now));
    }

    fn end_output(&mut self, out: &mut WriteBuffer<'_>) {
        either!(self.end_output(out));
    }

    fn prepare_close(&mut self, budget: &mut Budget) -> bool {
        either!(self.prepare_close(budget))
    }

    fn handle_closed(&mut self, out: &mut WriteBuffer<'_>, now: Instant) {
        either!(self.handle_closed(out, now));
    }

    fn wants(&self) -> Wants {
        either!(self.wants())
    }

    fn deadline(&self) -> Option<Instant> {
        either!(self.deadline())
    }

    fn end_call(&mut self, waiting: usize, now: Instant) {
        either!(self.end_call(waiting, now));
    }
}
