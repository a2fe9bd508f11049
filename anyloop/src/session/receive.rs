//! Input and timers of a session.

use std::marker::PhantomData;

use anyloop_proto::{
    Cause, Connection, Event, Input, Instant, Message, Protocol, Receiver, Shutdown, State, Timer,
};

use super::Session;
use super::flags::Flags;
use super::handler::{Context, Handler};
use crate::cold::cold_path;
use crate::stream::{Budget, Progress, StreamProtocol, WriteBuffer};

impl<H: Handler> Session<H> {
    /// Takes input until it is used up, the budget is spent, reading is paused, or the connection fails or is
    /// terminated.
    ///
    /// The session's fast path: for messages that are unfragmented, uncompressed, shorter than 64 KiB and wholly in the
    /// input, on an open connection that does not stream and has nothing else to do. `Handler::message` has a
    /// single call site, so that the compiler can inline it.
    #[inline]
    pub(super) fn receive_input(
        &mut self,
        input: &mut Input<'_>,
        out: &mut WriteBuffer<'_>,
        budget: &mut Budget,
        now: Instant,
    ) -> Progress {
        let mut progress = Progress::SameWants;
        if self.state.flags != Flags::NONE || !self.protocol.is_open() {
            progress = Progress::WantsChanged;
            // A reference to `out` itself would keep it out of registers, also on the fast path.
            if !self.prepare_receive(input, out.reborrow(), budget, now) {
                return progress;
            }
        }
        let Self { protocol: Protocol::Open(connection), handler, state } = self else {
            return Progress::WantsChanged;
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
            unrun: None,
            new_handler: None,
        };
        receive_messages(receiver, input, handler, &mut context, budget, progress)
    }

    /// Continues the opening handshake, and notifies the handler when the connection is open. Returns false
    /// if `open` is held back by the budget.
    #[cold]
    #[inline(never)]
    fn prepare_receive(
        &mut self,
        input: &mut Input<'_>,
        mut out: WriteBuffer<'_>,
        budget: &mut Budget,
        now: Instant,
    ) -> bool {
        if !matches!(self.protocol, Protocol::Open(_)) {
            self.receive_handshake(input, &mut out, budget, now);
        }
        self.notify_open(None, &mut out, budget, now)
    }

    /// Handles the deadlines that are due.
    pub(super) fn run_timers(
        &mut self,
        out: &mut WriteBuffer<'_>,
        budget: &mut Budget,
        now: Instant,
    ) {
        if !self.notify_open(None, out, budget, now) {
            return;
        }
        if !self.state.flags.has(Flags::REQUEST_UNSENT)
            && !self.run_protocol_timers(out, budget, now)
        {
            return;
        }
        if self.protocol.shutdown() == Shutdown::Abort {
            return; // the connection has ended, and its timers do not run
        }
        self.run_application_timers(out, budget, now);
    }

    /// Handles the protocol's deadlines that are due. Returns false if the budget is spent, or if only the end of
    /// the stream was still awaited.
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
        let Some(count) = self.state.rare.as_deref().map(|rare| rare.timers.count()) else {
            return;
        };
        while self.state.next_due().is_some_and(|due| due <= now) {
            if budget.is_spent() {
                return self.state.request_resume();
            }
            let Some(f) = self.state.timers_mut().take_due(now, count) else { return };
            budget.spend();
            self.call_erased(None, out, now, f);
        }
    }
}

/// Receives messages, by the fast path where it applies. Returns `progress`, or `WantsChanged` if anything may
/// have changed.
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
    // On its first call the receiver may return a message without input: one completed by bytes that `filled` reported.
    let mut received_once = false;
    while !context.state.flags.has_any(Flags::PAUSED, Flags::TERMINATED) {
        if input.is_empty() && receiver.is_on_fast_path() {
            let open =
                context.sender.as_deref().is_some_and(|sender| sender.state() == State::Open);
            let changed = !open || context.state.flags != Flags::NONE;
            return if changed { Progress::WantsChanged } else { progress };
        }
        if budget.is_spent() {
            if !received_once || !input.is_empty() {
                context.state.request_resume();
            }
            break;
        }
        let Some(sender) = context.sender.as_deref_mut() else { break };
        // A failure is kept by the connection; the handler is notified when the stream has ended.
        let Ok(next) = receiver.next_message(sender, input, now, &mut context.out) else {
            return Progress::WantsChanged;
        };
        'handled: {
            let message = match next {
                Some(message) => message,
                None => {
                    progress = Progress::WantsChanged;
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
        received_once = true;
        if let Some(new_handler) = context.new_handler.take() {
            cold_path();
            *handler = new_handler;
        }
    }
    if !receiver.is_on_fast_path() {
        receiver.release(input); // returns the last message's memory to the pool before going idle
    }
    Progress::WantsChanged
}

/// A received event.
enum Received<'e> {
    /// A message, for the handler.
    Message(Message<'e>),
    /// Another event, which was handled.
    Other,
    Nothing,
}

/// Receives events that are not on the fast path: control frames, chunks, and messages that are fragmented, compressed,
/// partly received, or of 64 KiB and more.
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
                let _ = context.pong(payload); // fails after a Close
            }
        }
        Event::Pong { payload, round_trip } => {
            budget.spend();
            // The deadline changes from the pong's to the next ping's, which may be earlier: the driver must ask again.
            context.state.flags.set(Flags::WANTS_CHANGED, true);
            handler.pong(payload, round_trip, context);
        }
        // The Close was answered; the handler is notified when the stream has ended.
        Event::Close(_) => {}
        _ => {}
    }
    Received::Other
}
