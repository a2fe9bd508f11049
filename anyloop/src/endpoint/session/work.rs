//! What comes of what happens: events, requests, timers, and what handles ask for.

use std::hint::cold_path;
use std::panic::{AssertUnwindSafe, catch_unwind};

use anyloop_proto::handshake::http::{Response, StatusCode};
use anyloop_proto::handshake::{AnswerError, Incoming, Opened, Request};
use anyloop_proto::{
    Cause, CloseCode, Connection, Event, Failure, Input, Instant, Message, Receiver, SendError,
    Shutdown, State, Timer, TransportError,
};

use super::super::backlog::Backlog;
use super::super::context::Context;
use super::super::gate::Gate;
use super::super::handle::Command;
use super::super::handler::{Handler, Verdict};
use super::super::io::{Deadline, Facts};
use super::super::line::{Line, TransportRear};
use super::{Machine, Session};
use crate::transport::Transport;

impl<H: Handler> Session<H> {
    /// Does `work` with a line to the transport, and writes what it sent.
    pub(super) fn work<T: Transport>(
        &mut self,
        transport: &mut T,
        cork: &mut Vec<u8>,
        work: impl FnOnce(&mut Self, &mut Line<'_>),
    ) {
        if self.is_over() {
            return;
        }
        let mut rear = TransportRear::new(transport, self.io.take_backlog());
        let mut waiting = 0;
        let mut worked = false;
        // A panic of program code ends in `settle`, which fails the connection and lets it go on. What
        // was sent before is not lost, unless it is the transport that panics.
        let result = catch_unwind(AssertUnwindSafe(|| {
            work(self, &mut Line::new(cork, &mut rear, &mut waiting));
            worked = true;
            rear.flush_all(cork);
        }));
        if let Err(panic) = result {
            self.io.put_panic(panic);
            if !worked {
                let _ = catch_unwind(AssertUnwindSafe(|| rear.flush_all(cork)));
            }
        }
        let (backlog, error) = rear.into_parts();
        self.end_work(transport, backlog, error);
    }

    /// Keeps what the transport has not taken, and takes note of its failure.
    pub(super) fn end_work<T: Transport>(
        &mut self,
        transport: &T,
        backlog: Option<Box<Backlog>>,
        error: Option<(TransportError, T::Error)>,
    ) {
        self.io.put_backlog(backlog);
        if let Some((kind, error)) = error {
            cold_path();
            crate::log::debug!("{}: {error}", transport.remote_endpoint());
            #[cfg(not(feature = "tracing"))]
            let _ = transport;
            self.io.put_error(Box::new(error));
            self.transport_failed(kind);
        }
    }

    /// Takes in what has arrived, until the gate is closed.
    #[inline]
    pub(super) fn process(
        &mut self,
        input: &mut Input<'_>,
        gate: &mut Gate,
        line: &mut Line<'_>,
        now: Instant,
    ) {
        if !matches!(self.machine, Machine::Open(_)) {
            self.shake_hands(input, gate, line, now);
        }
        if self.begin(gate, line, now) {
            self.receive(input, gate, line, now);
        }
    }

    /// The opening handshake.
    #[cold]
    #[inline(never)]
    fn shake_hands(
        &mut self,
        input: &mut Input<'_>,
        gate: &mut Gate,
        line: &mut Line<'_>,
        now: Instant,
    ) {
        if !gate.is_open() {
            if !input.is_empty() {
                self.io.interrupt();
            }
            return;
        }
        let Self { machine, handler, io } = self;
        match machine {
            Machine::Server(handshake) => {
                // A failure was answered, and is told when the stream has ended.
                let Ok(Some(incoming)) = handshake.next(input, now, line) else { return };
                gate.take();
                let here = line.reborrow();
                let mut context = Context { sender: None, receiver: None, line: here, io, now };
                let verdict = match incoming {
                    Incoming::Upgrade(request) => handler.validate(request, &mut context),
                    Incoming::Http(request) => handler.http(request, &mut context),
                };
                self.succeed();
                self.answer(verdict, line, now);
            }
            Machine::Client(handshake) => {
                if let Ok(Some(opened)) = handshake.next(input, now, line) {
                    self.open(opened, None, line);
                }
            }
            Machine::Open(_) | Machine::Over => {}
        }
    }

    /// The events of an open connection.
    #[inline]
    fn receive(
        &mut self,
        input: &mut Input<'_>,
        gate: &mut Gate,
        line: &mut Line<'_>,
        now: Instant,
    ) {
        let Self { machine: Machine::Open(connection), handler, io } = self else { return };
        let Connection { receiver, sender } = connection;
        let line = line.reborrow();
        let mut context = Context { sender: Some(sender), receiver: None, line, io, now };
        // The receiver may hold an event without any input, but only before it was asked.
        let mut asked = false;
        while !context.io.paused {
            if !gate.is_open() {
                if !asked || !input.is_empty() {
                    context.io.interrupt();
                }
                break;
            }
            let Some(sender) = context.sender.as_deref_mut() else { return };
            let next = receiver.next_message(sender, input, now, &mut context.line);
            // Why it failed is in the ending, which the handler is told.
            let Ok(next) = next else { return };
            'told: {
                let message = match next {
                    Some(message) => message,
                    None if receiver.is_idle() && input.is_empty() => return,
                    None => {
                        match receive_other(receiver, input, handler, &mut context, gate, now) {
                            Received::Message(message) => message,
                            Received::Other => break 'told,
                            Received::Nothing => return,
                        }
                    }
                };
                gate.take();
                // Nowhere else, so that the compiler may make it a part of this.
                handler.message(message, &mut context);
            }
            asked = true;
            if let Some(successor) = context.io.take_successor() {
                *handler = successor;
            }
        }
        if !receiver.is_idle() {
            receiver.release(input); // who knows when it is asked again
        }
    }

    /// Calls the handler, outside the flow of events.
    pub(super) fn call<R>(
        &mut self,
        line: &mut Line<'_>,
        now: Instant,
        f: impl FnOnce(&mut H, &mut Context<'_, H>) -> R,
    ) -> R {
        let Self { machine, handler, io } = self;
        let (sender, receiver) = match machine {
            Machine::Open(Connection { sender, receiver }) => (Some(sender), Some(&*receiver)),
            _ => (None, None),
        };
        let result = f(handler, &mut Context { sender, receiver, line: line.reborrow(), io, now });
        self.succeed();
        result
    }

    /// Puts the handler's successor into its place, if it named one.
    fn succeed(&mut self) {
        if let Some(successor) = self.io.take_successor() {
            self.handler = successor;
        }
    }

    /// Answers the request that the application has judged.
    fn answer(&mut self, verdict: Verdict, line: &mut Line<'_>, now: Instant) {
        let Machine::Server(handshake) = &mut self.machine else { return };
        let answered = match verdict {
            Verdict::Defer => Ok(None),
            Verdict::Accept(accept) => handshake.accept(accept, now, line).map(Some),
            Verdict::Respond(response) => handshake.respond(&response, now, line).map(|()| None),
        };
        match answered {
            Ok(None) => {}
            Ok(Some(opened)) => {
                let machine = std::mem::replace(&mut self.machine, Machine::Over);
                let request = match machine {
                    Machine::Server(handshake) => handshake.into_request(),
                    _ => None,
                };
                self.open(opened, request, line);
            }
            // Late answers come to nothing; others must not leave the client waiting.
            Err(AnswerError::NotAwaiting) => {}
            Err(error) => {
                crate::log::error!("the answer to a request was refused: {error}");
                let mut response = Response::new(b"internal error\n".to_vec());
                *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
                let _ = handshake.respond(&response, now, line);
            }
        }
    }

    /// The connection is open; the handler is told by [`begin`](Self::begin).
    fn open(&mut self, opened: Opened, request: Option<Request>, line: &Line<'_>) {
        let Opened { connection, response, subprotocol, extension, .. } = opened;
        let who = crate::log::describe(|| line.rear().remote_endpoint());
        crate::log::debug!("{who}: open, subprotocol {subprotocol:?}, extension {extension:?}");
        self.machine = Machine::Open(connection);
        self.io.common.counting.opened.add(1);
        self.io.publish(line.backlog(), State::Open);
        let response = Some(response.map(|()| Vec::new()));
        let target = self.io.take_target();
        let facts = Facts { target, request, response, subprotocol, extension };
        self.io.extras().facts = Some(Box::new(facts));
        self.io.owes_open = true;
    }

    /// Tells the handler that the connection is open, if that is still to be done. Returns whether it
    /// knows.
    #[inline]
    pub(super) fn begin(&mut self, gate: &mut Gate, line: &mut Line<'_>, now: Instant) -> bool {
        if self.io.owes_open {
            self.tell_open(gate, line, now);
        }
        !self.io.owes_open
    }

    fn tell_open(&mut self, gate: &mut Gate, line: &mut Line<'_>, now: Instant) {
        if !gate.pass() {
            return self.io.interrupt();
        }
        self.io.owes_open = false;
        self.call(line, now, Handler::open);
        if !self.io.common.keep_handshake {
            self.io.extras().facts = None;
        }
    }

    pub(super) fn run_timers(&mut self, gate: &mut Gate, line: &mut Line<'_>, now: Instant) {
        if !self.begin(gate, line, now) {
            return;
        }
        loop {
            if !gate.is_open() {
                if self.next_deadline() <= Deadline::new(Some(now)) {
                    self.io.interrupt();
                }
                return;
            }
            let due = match &mut self.machine {
                Machine::Server(handshake) => handshake.handle_timeout(now, line),
                Machine::Client(_) if !self.io.started => Ok(None),
                Machine::Client(handshake) => handshake.handle_timeout(now, line),
                Machine::Open(connection) => connection.handle_timeout(now, line),
                Machine::Over => Ok(None),
            };
            match due {
                Ok(None) => break,
                Ok(Some(Timer::Close)) => return,
                Ok(Some(_)) => {}
                Err(failure) => {
                    if failure.cause() == Cause::PongTimeout {
                        gate.take();
                        self.call(line, now, Handler::pong_timeout);
                    }
                }
            }
        }
        if self.shutdown() == Shutdown::Abort {
            return; // it has come to its end, and so have its timers
        }
        let Some(end) = self.io.extras.as_deref().map(|extras| extras.timers.next_id()) else {
            return;
        };
        while self.io.next_due().is_some_and(|due| due <= now) {
            if !gate.is_open() {
                return self.io.interrupt();
            }
            let Some(f) = self.io.timers().take_due(now, end) else { return };
            gate.take();
            self.call(line, now, f);
        }
    }

    /// Does what was asked for from elsewhere. What cannot be done any more is dropped: who asked was
    /// told that it depends.
    pub(super) fn obey(&mut self, command: Command<H>, line: &mut Line<'_>, now: Instant) {
        match command {
            Command::Accept(accept) => self.answer(Verdict::Accept(accept), line, now),
            Command::Respond(response) => self.answer(Verdict::Respond(response), line, now),
            Command::Interrupt => self.call(line, now, Handler::interrupt),
            Command::Post(f) => self.call(line, now, f),
            Command::Close(code, reason) => self.close(code, &reason, line, now),
            command => self.call(line, now, |_, context| {
                let sent = match command {
                    Command::Cancel(timer) => {
                        context.cancel_timer(timer);
                        return;
                    }
                    Command::Pause => return context.pause_reading(),
                    Command::Resume => return context.resume_reading(),
                    Command::Ping(payload) => context.ping(&payload),
                    Command::Send { message, completion } => context.send_mailed(
                        |sender, line| sender.send(message.message(), line),
                        completion,
                    ),
                    Command::SendPrepared { message, completion } => context.send_mailed(
                        |sender, line| sender.send_prepared(&message, line),
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

    fn close(&mut self, code: CloseCode, reason: &str, line: &mut Line<'_>, now: Instant) {
        match &mut self.machine {
            Machine::Open(connection) => {
                // One that is closing already need not be closed.
                let _: Result<(), SendError> = connection.sender.close(code, reason, now, line);
            }
            Machine::Server(handshake) => _ = handshake.abandon(now, line),
            Machine::Client(handshake) => _ = handshake.abandon(now, line),
            Machine::Over => {}
        }
    }

    /// What comes of it is in the ending, which the handler is told when it is all over.
    pub(super) fn end_of_stream(&mut self) {
        let _: Result<(), Failure> = match &mut self.machine {
            Machine::Server(handshake) => handshake.handle_eof(),
            Machine::Client(handshake) => handshake.handle_eof(),
            Machine::Open(connection) => connection.handle_eof(),
            Machine::Over => Ok(()),
        };
    }

    pub(super) fn transport_failed(&mut self, error: TransportError) {
        let _: Result<(), Failure> = match &mut self.machine {
            Machine::Server(handshake) => handshake.handle_error(error),
            Machine::Client(handshake) => handshake.handle_error(error),
            Machine::Open(connection) => connection.handle_error(error),
            Machine::Over => Ok(()),
        };
    }
}

/// What has been received.
enum Received<'e> {
    /// A message, of which the handler is to be told.
    Message(Message<'e>),
    /// Something else, of which it was.
    Other,
    Nothing,
}

/// Receives anything but a message that goes the short way.
#[cold]
#[inline(never)]
fn receive_other<'e, 'b: 'e, H: Handler>(
    receiver: &'e mut Receiver,
    input: &mut Input<'b>,
    handler: &mut H,
    context: &mut Context<'_, H>,
    gate: &mut Gate,
    now: Instant,
) -> Received<'e> {
    let Some(sender) = context.sender.as_deref_mut() else { return Received::Nothing };
    let next = receiver.next(sender, input, now, &mut context.line);
    let Ok(Some(event)) = next else { return Received::Nothing };
    match event {
        Event::Message(message) => return Received::Message(message),
        Event::Chunk(chunk) => {
            gate.take();
            handler.chunk(chunk, context);
        }
        Event::Ping(payload) => {
            gate.take();
            if handler.ping(payload, context) {
                let _ = context.pong(payload); // not after a Close
            }
        }
        Event::Pong { payload, round_trip } => {
            gate.take();
            context.io.restless = true; // the next ping may be due before the pong was
            handler.pong(payload, round_trip, context);
        }
        // A Close was answered; the handler is told when all is over.
        _ => {}
    }
    Received::Other
}
