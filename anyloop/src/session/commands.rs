//! Commands of handles, and broadcasts.

use std::collections::VecDeque;
use std::sync::Arc;

use anyloop_proto::{CloseCode, Instant, Protocol, Refused, Shutdown, State};

use super::Session;
use super::deferred::{OutgoingMessage, OutgoingPayload};
use super::erased::Filter;
use super::flags::Flags;
use super::handler::Handler;
use super::limits::TOO_SLOW;
use super::registry::Due;
use super::shared::Command;
use crate::stream::{Budget, Progress, WriteBuffer};

impl<H: Handler> Session<H> {
    /// Sends the broadcasts that are due, and then runs the commands of handles, in order.
    pub(super) fn run_all_commands(
        &mut self,
        out: &mut WriteBuffer<'_>,
        budget: &mut Budget,
        now: Instant,
    ) -> Progress {
        if !self.notify_open(None, out, budget, now) {
            return Progress::WantsChanged;
        }
        // Broadcasts that are queued meanwhile wait for the next turn, so that other connections have theirs.
        let mut last = None;
        while let Some(due) = self.state.endpoint.registry.next_broadcast(self.state.index) {
            let Due { message, filter, next, end } = due;
            let payload = OutgoingPayload::Prepared(message);
            let message = OutgoingMessage { payload, completion: None };
            self.run(Command::Send(message, filter), None, out, now);
            if next == *last.get_or_insert(end) {
                if next != end {
                    self.state.request_resume();
                }
                break;
            }
            if budget.is_spent() {
                self.state.request_resume();
                return Progress::WantsChanged;
            }
        }
        let phase = self.phase();
        if self.state.adopt_shared(out.queued(), phase) {
            self.publish_held_up();
            self.run_mailbox(out, budget, now);
            return Progress::WantsChanged;
        }
        match self.state.flags == Flags::NONE && self.protocol.is_open() {
            true => Progress::SameWants,
            false => Progress::WantsChanged,
        }
    }

    fn run_mailbox(&mut self, out: &mut WriteBuffer<'_>, budget: &mut Budget, now: Instant) {
        let Some(shared) = self.state.shared().map(Arc::clone) else { return };
        let (mut commands, reported_backpressure) = shared.take();
        if reported_backpressure {
            self.state.flags.set(Flags::HIGH, true);
        }
        loop {
            if commands.next_calls_handler() && !budget.try_spend() {
                commands.put_back();
                return self.state.request_resume();
            }
            let Some(command) = commands.next() else { return };
            self.run(command, Some(commands.unrun()), out, now);
            if self.protocol.shutdown() == Shutdown::Abort {
                return; // what is left cannot be done any more
            }
            if !self.notify_open(Some(commands.unrun()), out, budget, now) {
                return commands.put_back();
            }
        }
    }

    /// Runs a command; `unrun` are those after it. A command that is no longer possible is dropped, as
    /// [`Handle`](super::Handle) documents.
    fn run(
        &mut self,
        command: Command,
        unrun: Option<&mut VecDeque<Command>>,
        out: &mut WriteBuffer<'_>,
        now: Instant,
    ) {
        match command {
            Command::Answer(answer) => self.answer(answer, out, now),
            Command::Interrupt => self.call_within(unrun, out, now, Handler::interrupt),
            Command::Post(f) => self.call_erased(unrun, out, now, f),
            Command::Close(code, reason) => self.close(code, &reason, out, now),
            Command::Overflow => {
                let phase = self.phase();
                if matches!(phase.state(), State::Connecting | State::Open) {
                    self.state.note_overflow(out.queued(), phase);
                }
                self.close(Some(CloseCode::POLICY_VIOLATION), TOO_SLOW, out, now);
            }
            Command::Terminate => {
                self.state.flags.set(Flags::TERMINATED, true);
                self.terminate_if_asked();
            }
            Command::Send(_, filter) if !self.accepts_broadcast(filter.as_ref()) => {}
            command => self.call_within(unrun, out, now, |_, context| match command {
                Command::CancelTimer(timer) => _ = context.cancel_timer(timer),
                Command::PauseReading => context.pause_reading(),
                Command::ResumeReading => context.resume_reading(),
                Command::Ping(payload) => {
                    if let Err(error) = context.ping(&payload) {
                        crate::log::debug!("ping not sent: {error}");
                    }
                }
                Command::Pong(payload) => {
                    if let Err(error) = context.pong(&payload) {
                        crate::log::debug!("pong not sent: {error}");
                    }
                }
                Command::Send(message, _) => context.send_or_defer(message),
                Command::Piece(progress, piece) => context.send_piece_or_defer(&progress, piece),
                Command::AbandonMessage(progress) => context.abandon(&progress),
                _ => {}
            }),
        }
    }

    /// Whether the filter of a broadcast accepts this connection.
    fn accepts_broadcast(&self, filter: Option<&Filter>) -> bool {
        filter.is_none_or(|filter| filter(&self.handler))
    }

    pub(super) fn close(
        &mut self,
        code: Option<CloseCode>,
        reason: &str,
        out: &mut WriteBuffer<'_>,
        now: Instant,
    ) {
        match &mut self.protocol {
            Protocol::Open(connection) => {
                // The connection may be closing already.
                let _: Result<(), Refused> = connection.sender.close(code, reason, now, out);
                if self.state.flags.has(Flags::DEFERRED) {
                    self.call(out, now, |_, context| context.send_deferred()); // calls their completions with an error
                }
            }
            Protocol::Server(handshake) => _ = handshake.abandon(now, out),
            // Messages that were accepted are sent first, but a shutdown does not wait for the server's response.
            Protocol::Client(_)
                if self.state.flags.has(Flags::DEFERRED)
                    && !self.state.endpoint.is_shutting_down() =>
            {
                let close = &mut self.state.deferred_mut().close;
                close.get_or_insert_with(|| (code, reason.to_string()));
            }
            Protocol::Client(handshake) => _ = handshake.abandon(now, out),
            Protocol::Closed => {}
        }
    }
}
