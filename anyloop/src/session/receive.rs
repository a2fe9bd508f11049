//! Input and timers of an open connection.

use std::marker::PhantomData;

use anyloop_proto::{
    Cause, Connection, Event, Input, Instant, Message, Protocol, Receiver, Shutdown, State, Timer,
};

use super::Session;
use super::handler::{Context, Handler};
use super::pending::Pending;
use crate::cold::cold_path;
use crate::stream::{Budget, Progress, StreamProtocol, WriteBuffer};

impl<H: Handler> Session<H> {
    /// Takes input until it is used up, the budget is spent, or reading is paused.
    ///
    /// The session's fast path: for messages that arrive whole, in one frame each, on an open connection that has
    /// nothing else to do. `Handler::message` has a single call site, so that the compiler can inline it.
    #[inline]
    pub(super) fn receive_input(
        &mut self,
        input: &mut Input<'_>,
        out: &mut WriteBuffer<'_>,
        budget: &mut Budget,
        now: Instant,
    ) -> Progress {
        let mut progress = Progress::Idle;
        if self.state.pending != Pending::NONE || !self.protocol.is_open() {
            progress = Progress::Changed;
            if !self.prepare_receive(input, out, budget, now) {
                return progress;
            }
        }
        let Self { protocol: Protocol::Open(connection), handler, state } = self else {
            return Progress::Changed;
        };
        let Connection { receiver, sender } = connection;
        let (sender, out) = (Some(sender), out.reborrow());
        let mut context = Context {
            marker: PhantomData,
            sender,
            receiver: None,
            out,
            state,
            now,
            successor: None,
        };
        receive_messages(receiver, input, handler, &mut context, budget, progress)
    }

    /// Continues the opening handshake, and notifies the handler when the connection is open. Returns whether messages
    /// may be received.
    #[cold]
    #[inline(never)]
    fn prepare_receive(
        &mut self,
        input: &mut Input<'_>,
        out: &mut WriteBuffer<'_>,
        budget: &mut Budget,
        now: Instant,
    ) -> bool {
        if !matches!(self.protocol, Protocol::Open(_)) {
            self.receive_handshake(input, out, budget, now);
        }
        self.notify_open(out, budget, now)
    }

    /// Handles the deadlines that are due.
    pub(super) fn run_timers(
        &mut self,
        out: &mut WriteBuffer<'_>,
        budget: &mut Budget,
        now: Instant,
    ) {
        if !self.notify_open(out, budget, now) {
            return;
        }
        if !self.state.pending.has(Pending::NOT_STARTED)
            && !self.run_protocol_timers(out, budget, now)
        {
            return;
        }
        if self.protocol.shutdown() == Shutdown::Abort {
            return; // the connection has ended, and its timers do not run
        }
        self.run_application_timers(out, budget, now);
    }

    /// Handles the protocol's deadlines that are due. Returns whether all were handled, and the connection continues.
    fn run_protocol_timers(
        &mut self,
        out: &mut WriteBuffer<'_>,
        budget: &mut Budget,
        now: Instant,
    ) -> bool {
        loop {
            if budget.is_spent() {
                if self.deadline().is_some_and(|deadline| deadline <= now) {
                    self.state.request_resume();
                }
                return false;
            }
            match self.protocol.handle_timeout(now, out) {
                Ok(None) => return true,
                Ok(Some(Timer::Close)) => return false,
                Ok(Some(_)) => {}
                Err(failure) => {
                    if failure.cause() == Cause::PongTimeout {
                        budget.spend();
                        self.call(out, now, Handler::pong_timeout);
                    }
                }
            }
        }
    }

    /// Calls the application's timers that are due. A timer that is set meanwhile waits for the next call.
    fn run_application_timers(
        &mut self,
        out: &mut WriteBuffer<'_>,
        budget: &mut Budget,
        now: Instant,
    ) {
        let Some(first_new_id) = self.state.rare.as_deref().map(|rare| rare.timers.next_id())
        else {
            return;
        };
        while self.state.next_due().is_some_and(|due| due <= now) {
            if budget.is_spent() {
                return self.state.request_resume();
            }
            let Some(f) = self.state.timers().take_due(now, first_new_id) else { return };
            budget.spend();
            self.call_posted(out, now, f);
        }
    }
}

/// Receives messages, by the fast path where it applies. Returns `progress`, or `Changed` if anything has changed.
#[inline(always)] // into `receive_input`
fn receive_messages<H: Handler>(
    receiver: &mut Receiver,
    input: &mut Input<'_>,
    handler: &mut H,
    context: &mut Context<'_, H>,
    budget: &mut Budget,
    mut progress: Progress,
) -> Progress {
    let now = context.now;
    // On its first call the receiver may return a message without input: one completed by `filled`.
    let mut polled = false;
    while !context.state.pending.has_any(Pending::PAUSED, Pending::TERMINATED) {
        if budget.is_spent() {
            if !polled || !input.is_empty() {
                context.state.request_resume();
            }
            break;
        }
        let Some(sender) = context.sender.as_deref_mut() else { break };
        // A failure is kept by the connection; the handler is notified when the stream has ended.
        let Ok(next) = receiver.next_message(sender, input, now, &mut context.out) else {
            return Progress::Changed;
        };
        'handled: {
            let message = match next {
                Some(message) => message,
                None if receiver.is_idle() && input.is_empty() => {
                    let open = sender.state() == State::Open;
                    let changed = !open || context.state.pending != Pending::NONE;
                    return if changed { Progress::Changed } else { progress };
                }
                None => {
                    progress = Progress::Changed;
                    match receive_other(receiver, input, handler, context, budget, now) {
                        Received::Message(message) => message,
                        Received::Other => break 'handled,
                        Received::Nothing => return progress,
                    }
                }
            };
            budget.spend();
            handler.message(message, context);
        }
        polled = true;
        if let Some(successor) = context.successor.take() {
            cold_path();
            *handler = successor;
        }
    }
    if !receiver.is_idle() {
        receiver.release(input); // the next input may come much later
    }
    Progress::Changed
}

/// A received event.
enum Received<'e> {
    /// A message, for the handler.
    Message(Message<'e>),
    /// Another event, which was handled.
    Other,
    Nothing,
}

/// Receives events that are not on the fast path: control frames, and messages that arrive in parts.
#[cold]
#[inline(never)]
fn receive_other<'e, 'b: 'e, H: Handler>(
    receiver: &'e mut Receiver,
    input: &mut Input<'b>,
    handler: &mut H,
    context: &mut Context<'_, H>,
    budget: &mut Budget,
    now: Instant,
) -> Received<'e> {
    let Some(sender) = context.sender.as_deref_mut() else { return Received::Nothing };
    let next = receiver.next(sender, input, now, &mut context.out);
    let Ok(Some(event)) = next else { return Received::Nothing };
    match event {
        Event::Message(message) => return Received::Message(message),
        Event::Chunk(chunk) => {
            budget.spend();
            handler.chunk(chunk, context);
        }
        Event::Ping(payload) => {
            budget.spend();
            if handler.ping(payload, context) {
                let _ = context.pong(payload); // not after a Close
            }
        }
        Event::Pong { payload, round_trip } => {
            budget.spend();
            // The deadline changes from the pong's to the next ping's, which may be earlier: the driver must ask again.
            context.state.pending.set(Pending::CHANGED, true);
            handler.pong(payload, round_trip, context);
        }
        // A Close was answered; the handler is notified when the stream has ended.
        _ => {}
    }
    Received::Other
}
