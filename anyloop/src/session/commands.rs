//! Commands of handles, and broadcasts.

use std::sync::Arc;

use anyloop_proto::{CloseCode, Connection, Instant, Protocol, SendError, Shutdown, State};

use super::Session;
use super::handler::{Handler, Verdict};
use super::registry::Due;
use super::shared::{Command, Filter};
use super::state::Pending;
use crate::stream::{Budget, Progress, WriteBuffer};

impl<H: Handler> Session<H> {
    /// Sends the broadcasts that are due, and then runs the commands of handles, in order.
    pub(super) fn run_all_commands(
        &mut self,
        out: &mut WriteBuffer<'_>,
        budget: &mut Budget,
        now: Instant,
    ) -> Progress {
        if !self.notify_open(out, budget, now) {
            return Progress::Changed;
        }
        // Broadcasts that are queued meanwhile wait for the next turn, so that other connections have theirs.
        let mut last = None;
        while let Some(due) = self.state.endpoint.registry.next_broadcast(self.state.index) {
            let Due { message, filter, next, end } = due;
            self.run(Command::SendPrepared { message, filter, completion: None }, out, now);
            if next == *last.get_or_insert(end) {
                if next != end {
                    self.state.interrupt();
                }
                break;
            }
            if budget.is_spent() {
                self.state.interrupt();
                return Progress::Changed;
            }
        }
        let state = self.connection_state();
        if self.state.adopt_shared(out.waiting(), state) {
            self.run_mailbox(out, budget, now);
            return Progress::Changed;
        }
        match self.state.pending == Pending::NONE && self.protocol.is_open() {
            true => Progress::Idle,
            false => Progress::Changed,
        }
    }

    fn run_mailbox(&mut self, out: &mut WriteBuffer<'_>, budget: &mut Budget, now: Instant) {
        let Some(shared) = self.state.present_shared().map(Arc::clone) else { return };
        let (mut commands, pressed) = shared.take();
        if pressed {
            self.state.pending.set(Pending::HIGH, true);
        }
        loop {
            if commands.next_calls() && !budget.try_spend() {
                commands.put_back();
                return self.state.interrupt();
            }
            let Some(command) = commands.next() else { return };
            self.run(command, out, now);
            if !self.notify_open(out, budget, now) {
                return commands.put_back();
            }
        }
    }

    /// Runs a command, unless it is a message that must wait.
    fn run(&mut self, command: Command<H>, out: &mut WriteBuffer<'_>, now: Instant) {
        let sends = matches!(command, Command::Send { .. } | Command::SendPrepared { .. });
        if sends && (self.state.pending.has(Pending::DEFERRED) || !self.can_send()) {
            self.state.defer(command);
        } else {
            self.run_now(command, out, now);
        }
    }

    /// Whether messages of handles need not wait. If the connection has ended, they fail.
    fn can_send(&self) -> bool {
        match &self.protocol {
            Protocol::Open(Connection { sender, .. }) => {
                let in_pieces = sender.state() == State::Open && sender.is_message_begun();
                !in_pieces && !self.state.pending.has(Pending::OPEN)
            }
            _ => self.protocol.shutdown() != Shutdown::Open,
        }
    }

    /// Sends deferred messages, if they can be sent now. Called after each call that may have opened the connection or
    /// ended a message in pieces.
    #[inline]
    pub(super) fn send_deferred_if_any(&mut self, out: &mut WriteBuffer<'_>, now: Instant) {
        if self.state.pending.has(Pending::DEFERRED) {
            self.send_deferred(out, now);
        }
    }

    #[cold]
    fn send_deferred(&mut self, out: &mut WriteBuffer<'_>, now: Instant) {
        while self.can_send() {
            let Some(command) = self.state.take_deferred() else { return };
            self.run_now(command, out, now);
        }
    }

    /// Runs a command. A command that has become impossible is dropped, as `Handle` documents.
    fn run_now(&mut self, command: Command<H>, out: &mut WriteBuffer<'_>, now: Instant) {
        match command {
            Command::Accept(accept) => self.answer(Verdict::Accept(accept), out, now),
            Command::Respond(response) => self.answer(Verdict::Respond(response), out, now),
            Command::Interrupt => self.call(out, now, Handler::interrupt),
            Command::Post(f) => self.call(out, now, f),
            Command::Close(code, reason) => self.close(code, &reason, out, now),
            Command::Terminate => self.protocol.terminate(),
            Command::SendPrepared { filter, .. } if !self.accepts_broadcast(filter.as_ref()) => {}
            command => self.call(out, now, |_, context| {
                let sent = match command {
                    Command::Cancel(timer) => {
                        context.cancel_timer(timer);
                        return;
                    }
                    Command::Pause => return context.pause_reading(),
                    Command::Resume => return context.resume_reading(),
                    Command::Ping(payload) => context.ping(&payload),
                    Command::Send { message, completion } => context.send_accepted(
                        |sender, out| sender.send(message.message(), out),
                        completion,
                    ),
                    Command::SendPrepared { message, completion, .. } => context.send_accepted(
                        |sender, out| sender.send_prepared(&message, out),
                        completion,
                    ),
                    _ => return,
                };
                if let Err(error) = sent {
                    crate::log::debug!("not sent: {error}");
                }
            }),
        }
    }

    /// Whether the filter of a broadcast accepts this connection.
    fn accepts_broadcast(&self, filter: Option<&Filter<H>>) -> bool {
        filter.is_none_or(|filter| filter(&self.handler))
    }

    fn close(
        &mut self,
        code: Option<CloseCode>,
        reason: &str,
        out: &mut WriteBuffer<'_>,
        now: Instant,
    ) {
        match &mut self.protocol {
            Protocol::Open(connection) => {
                // The connection may be closing already.
                let _: Result<(), SendError> = connection.sender.close(code, reason, now, out);
            }
            Protocol::Server(handshake) => _ = handshake.abandon(now, out),
            Protocol::Client(handshake) => _ = handshake.abandon(now, out),
            Protocol::Closed => {}
        }
    }
}
