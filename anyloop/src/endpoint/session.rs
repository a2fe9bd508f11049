//! One connection at work: the state machine, the application's handler, and what lies between them
//! and the transport.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::task::Waker;

use anyloop_proto::handshake::http::{Response, StatusCode};
use anyloop_proto::handshake::{
    AnswerError, ClientHandshake, ClientOptions, Incoming, Opened, Request, RequestError,
    ServerHandshake, ServerOptions, Target,
};
use anyloop_proto::{
    Cause, CloseCode, Connection, Event, Failure, Input, Instant, SendError, Shutdown, State,
    Statistics, Timer, TransportError,
};

use super::backlog::Backlog;
use super::context::Context;
use super::handle::{Command, Handle};
use super::handler::{Handler, Verdict};
use super::io::{Facts, Io, Scratch};
use super::line::{Line, TransportRear};
use super::settings::Common;
use crate::transport::Transport;

/// One connection, from the first byte of its handshake to the end of its byte stream.
///
/// A session belongs to its transport, which tells it what happens (the table in [`Transport`]) and
/// passes itself along, so that the session can write. Each of these calls does everything that comes
/// of it before it returns: handlers are called, what they send is written in one piece, the stream is
/// ended when it is time to, and the deadline is set anew.
///
/// The example of [`Transport`] drives one.
pub struct Session<H: Handler> {
    machine: Machine,
    handler: H,
    io: Io<H>,
}

enum Machine {
    Server(Box<ServerHandshake>),
    Client(Box<ClientHandshake>),
    Open(Connection),
    Over,
}

impl<H: Handler> Session<H> {
    pub(super) fn server(
        handler: H,
        options: Arc<ServerOptions>,
        common: Arc<Common>,
        now: Instant,
    ) -> Self {
        let machine = Machine::Server(Box::new(ServerHandshake::new(options, now)));
        Self { machine, handler, io: Io::new(common) }
    }

    pub(super) fn client(
        handler: H,
        target: &Target,
        options: Arc<ClientOptions>,
        common: Arc<Common>,
        now: Instant,
    ) -> Result<Self, RequestError> {
        let mut io = Io::new(common);
        io.needs_security = target.secure();
        let mut request = Vec::new();
        let handshake = ClientHandshake::new(target, options, now, &mut request)?;
        io.backlog.get_or_insert_default().push(&request);
        Ok(Self { machine: Machine::Client(Box::new(handshake)), handler, io })
    }

    /// Gives the handshake up before it has begun; the stream ends when it is started.
    pub(super) fn give_up(&mut self, now: Instant) {
        if let Machine::Server(handshake) = &mut self.machine {
            handshake.abandon(now, &mut Vec::new()); // there is nothing to answer yet
        }
    }

    /// The stream is there: a client sends its request. Where the target is a `wss` URI and the
    /// transport is not [secure](Transport::is_secure), it sends nothing and fails.
    pub fn start<T: Transport>(&mut self, transport: &mut T, scratch: &mut Scratch, now: Instant) {
        self.io.started = true;
        if let Machine::Client(handshake) = &mut self.machine
            && self.io.needs_security
            && !transport.is_secure()
        {
            self.io.backlog = None;
            handshake.handle_insecure();
        }
        self.handle_writable(transport, scratch, now);
    }

    /// Whether [`start`](Self::start) was called.
    #[must_use]
    pub const fn has_started(&self) -> bool {
        self.io.started
    }

    /// Bytes have arrived. Returns how many of them were taken: all, unless reading is paused, a
    /// verdict is awaited, or the peer's Close was among them. What was not taken is to be fed again
    /// when [`wants_input`](Self::wants_input) says so, or thrown away when
    /// [`discards_input`](Self::discards_input) does.
    pub fn feed<T: Transport>(
        &mut self,
        transport: &mut T,
        scratch: &mut Scratch,
        bytes: &mut [u8],
        now: Instant,
    ) -> usize {
        let len = bytes.len();
        if !self.wants_input() {
            return 0;
        }
        let Scratch { cork, pool } = scratch;
        let mut input = Input::with_pool(bytes, pool);
        self.work(transport, cork, |session, line| session.process(&mut input, line, now));
        let left = input.len();
        self.settle(transport, scratch, now);
        len - left
    }

    /// The peer has ended its direction of the stream.
    pub fn handle_eof<T: Transport>(
        &mut self,
        transport: &mut T,
        scratch: &mut Scratch,
        now: Instant,
    ) {
        // What comes of it is in the ending, which the handler is told when it is all over.
        let _ = match &mut self.machine {
            Machine::Server(handshake) => handshake.handle_eof(),
            Machine::Client(handshake) => handshake.handle_eof(),
            Machine::Open(connection) => connection.handle_eof(),
            Machine::Over => return,
        };
        self.settle(transport, scratch, now);
    }

    /// The stream has failed.
    pub fn handle_error<T: Transport>(
        &mut self,
        transport: &mut T,
        scratch: &mut Scratch,
        error: TransportError,
        now: Instant,
    ) {
        self.transport_failed(error);
        self.settle(transport, scratch, now);
    }

    /// The stream can take more.
    pub fn handle_writable<T: Transport>(
        &mut self,
        transport: &mut T,
        scratch: &mut Scratch,
        now: Instant,
    ) {
        if !self.io.started {
            return;
        }
        self.work(transport, &mut scratch.cork, |session, line| {
            let before = line.backlog();
            line.write_backlog();
            // Only a peer that has read something has a claim to more time.
            let progress = before == 0 || line.backlog() < before;
            if let Machine::Open(connection) = &mut session.machine
                && progress
            {
                connection.handle_writable(now, line);
            }
        });
        self.settle(transport, scratch, now);
    }

    /// A deadline may have come: does what is due.
    pub fn handle_timeout<T: Transport>(
        &mut self,
        transport: &mut T,
        scratch: &mut Scratch,
        now: Instant,
    ) {
        self.work(transport, &mut scratch.cork, |session, line| session.run_timers(line, now));
        self.settle(transport, scratch, now);
    }

    /// The transport was woken: does what [handles](Handle) have asked for.
    pub fn drain<T: Transport>(&mut self, transport: &mut T, scratch: &mut Scratch, now: Instant) {
        let Some(seat) = &self.io.seat else { return };
        let (commands, pressed) = seat.take();
        self.io.high |= pressed;
        self.work(transport, &mut scratch.cork, |session, line| {
            for command in commands {
                session.obey(command, line, now);
            }
        });
        self.settle(transport, scratch, now);
    }

    /// Lends memory to receive a large payload into; see [`anyloop_proto::Receiver::want`]. Follow
    /// it with [`filled`](Self::filled) and [`feed`](Self::feed), with no bytes or those that come
    /// after.
    pub fn want(&mut self) -> Option<&mut [u8]> {
        match &mut self.machine {
            Machine::Open(connection) if !self.io.paused => connection.receiver.want(),
            _ => None,
        }
    }

    /// Says how much of what was lent was filled.
    pub fn filled(&mut self, n: usize) {
        if let Machine::Open(connection) = &mut self.machine {
            connection.receiver.filled(n);
        }
    }

    /// The connection, for others to reach it. `waker` is the transport's.
    pub fn handle(&mut self, waker: &Waker) -> Handle<H> {
        let state = self.state();
        Handle::new(self.io.seat(|| waker.clone(), state).clone())
    }

    /// Whether input would be taken now.
    #[must_use]
    pub fn wants_input(&self) -> bool {
        self.reads() && !self.discards_input()
    }

    /// Whether nothing more will be made of input: the peer's Close has come, or the connection has
    /// failed, and only the stream is still to end. A transport goes on reading for that, and throws
    /// away what it reads; [`feed`](Self::feed) takes none of it.
    #[must_use]
    pub fn discards_input(&self) -> bool {
        match &self.machine {
            Machine::Server(handshake) => handshake.shutdown() != Shutdown::Open,
            Machine::Client(handshake) => handshake.shutdown() != Shutdown::Open,
            Machine::Open(connection) => {
                !matches!(connection.state(), State::Open | State::CloseSent)
            }
            Machine::Over => true,
        }
    }

    /// Whether the transport is to read: not while reading is paused, nor while a request waits for
    /// its verdict.
    fn reads(&self) -> bool {
        match &self.machine {
            Machine::Server(handshake) => {
                handshake.request().is_none() || handshake.shutdown() != Shutdown::Open
            }
            Machine::Client(_) => true,
            Machine::Open(_) => !self.io.paused || self.discards_input(),
            Machine::Over => false,
        }
    }

    /// Whether all is over: the stream is closed, and the handler was told.
    #[must_use]
    pub const fn is_over(&self) -> bool {
        matches!(self.machine, Machine::Over)
    }

    /// How far the connection has come.
    #[must_use]
    pub const fn state(&self) -> State {
        match &self.machine {
            Machine::Open(connection) => connection.state(),
            _ => self.io.state,
        }
    }

    /// What has passed through the connection; zeros when it is not open yet or over.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        match &self.machine {
            Machine::Open(connection) => connection.statistics(),
            _ => Statistics::default(),
        }
    }

    /// Bytes that were sent and that the transport has not taken.
    #[must_use]
    pub fn buffered_amount(&self) -> usize {
        self.io.backlog.as_deref().map_or(0, Backlog::len)
    }

    /// The next deadline, as the transport was told.
    #[must_use]
    pub const fn deadline(&self) -> Option<Instant> {
        self.io.deadline
    }

    /// The handler.
    #[must_use]
    pub const fn handler(&self) -> &H {
        &self.handler
    }

    // How it is done.

    /// Does `work` with a line to the transport, and writes what it sent.
    fn work<T: Transport>(
        &mut self,
        transport: &mut T,
        cork: &mut Vec<u8>,
        work: impl FnOnce(&mut Self, &mut Line<'_>),
    ) {
        if self.is_over() {
            return;
        }
        let mut backlog = self.io.backlog.take();
        let mut rear = TransportRear::new(transport, &mut backlog);
        let mut waiting = 0;
        let mut line = Line::new(cork, &mut rear, &mut waiting);
        // A panic of program code ends in `settle`, which fails the connection and lets it go on. What
        // was sent before is not lost, unless it is the transport that panics.
        let worked = catch_unwind(AssertUnwindSafe(|| work(self, &mut line)));
        let flushed = catch_unwind(AssertUnwindSafe(|| line.flush()));
        let error = rear.into_error();
        self.io.backlog = backlog;
        if let Err(panic) = worked.and(flushed) {
            self.io.rare().panic.get_or_insert(panic);
        }
        if let Some((kind, error)) = error {
            crate::log::debug!("{}: {error}", transport.remote_endpoint());
            self.transport_failed(kind);
        }
    }

    /// Takes in what has arrived.
    fn process(&mut self, input: &mut Input<'_>, line: &mut Line<'_>, now: Instant) {
        loop {
            let Self { machine, handler, io } = self;
            match machine {
                Machine::Server(handshake) => {
                    // A failure was answered, and is told when the stream has ended.
                    let Ok(Some(incoming)) = handshake.next(input, now, line) else { return };
                    let mut context = Context { sender: None, line: line.reborrow(), io, now };
                    let verdict = match incoming {
                        Incoming::Upgrade(request) => handler.validate(request, &mut context),
                        Incoming::Http(request) => handler.http(request, &mut context),
                    };
                    self.succeed();
                    self.answer(verdict, line, now);
                    if !matches!(self.machine, Machine::Open(_)) {
                        return;
                    }
                }
                Machine::Client(handshake) => match handshake.next(input, now, line) {
                    Ok(Some(opened)) => self.open(opened, None, line, now),
                    Ok(None) | Err(_) => return,
                },
                Machine::Open(connection) => {
                    if io.paused {
                        return;
                    }
                    let Connection { receiver, sender } = connection;
                    // Why it failed is in the ending, which the handler is told.
                    let Ok(Some(event)) = receiver.next(sender, input, now, line) else { return };
                    let line = line.reborrow();
                    let mut context = Context { sender: Some(sender), line, io, now };
                    match event {
                        Event::Message(message) => handler.message(message, &mut context),
                        Event::Chunk(chunk) => handler.chunk(chunk, &mut context),
                        Event::Ping(payload) => {
                            let answer = handler.ping(payload, &mut context);
                            let Context { sender, mut line, .. } = context;
                            if let Some(sender) = sender.filter(|_| answer) {
                                let _ = sender.pong(payload, &mut line); // not after a Close
                            }
                        }
                        Event::Pong { payload, round_trip } => {
                            handler.pong(payload, round_trip, &mut context);
                        }
                        // A Close was answered; the handler is told when all is over.
                        _ => {}
                    }
                    if self.io.has_successor() {
                        self.succeed();
                    }
                }
                Machine::Over => return,
            }
        }
    }

    /// Calls the handler, outside the flow of events.
    fn call<R>(
        &mut self,
        line: &mut Line<'_>,
        now: Instant,
        f: impl FnOnce(&mut H, &mut Context<'_, H>) -> R,
    ) -> R {
        let Self { machine, handler, io } = self;
        let sender = match machine {
            Machine::Open(connection) => Some(&mut connection.sender),
            _ => None,
        };
        let result = f(handler, &mut Context { sender, line: line.reborrow(), io, now });
        self.succeed();
        result
    }

    /// Puts the handler's successor into its place, if it named one.
    fn succeed(&mut self) {
        let successor = self.io.rare.as_deref_mut().and_then(|rare| rare.successor.take());
        if let Some(successor) = successor {
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
                self.open(opened, request, line, now);
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

    fn open(
        &mut self,
        opened: Opened,
        request: Option<Request>,
        line: &mut Line<'_>,
        now: Instant,
    ) {
        let Opened { connection, response, subprotocol, extension, .. } = opened;
        let who = crate::log::describe(|| line.rear().remote_endpoint());
        crate::log::debug!("{who}: open, subprotocol {subprotocol:?}, extension {extension:?}");
        self.machine = Machine::Open(connection);
        self.io.publish(line.backlog(), State::Open);
        let response = Some(response.map(|()| Vec::new()));
        self.io.rare().facts = Some(Facts { request, response, subprotocol, extension });
        self.call(line, now, Handler::open);
        if !self.io.common.keep_handshake {
            self.io.rare().facts = None;
            self.io.tidy();
        }
    }

    fn run_timers(&mut self, line: &mut Line<'_>, now: Instant) {
        loop {
            let due = match &mut self.machine {
                Machine::Server(handshake) => handshake.handle_timeout(now, line),
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
                        self.call(line, now, Handler::pong_timeout);
                    }
                }
            }
        }
        if self.shutdown() == Shutdown::Abort {
            return; // it has come to its end, and so have its timers
        }
        let Some(end) = self.io.rare.as_deref().map(|rare| rare.timers.next_id()) else { return };
        while let Some(rare) = self.io.rare.as_deref_mut()
            && let Some(f) = rare.timers.take_due(now, end)
        {
            self.call(line, now, f);
        }
    }

    /// Does what was asked for from elsewhere. What cannot be done any more is dropped: who asked was
    /// told that it depends.
    fn obey(&mut self, command: Command<H>, line: &mut Line<'_>, now: Instant) {
        match command {
            Command::Accept(accept) => self.answer(Verdict::Accept(accept), line, now),
            Command::Respond(response) => self.answer(Verdict::Respond(response), line, now),
            Command::Interrupt => self.call(line, now, Handler::interrupt),
            Command::Post(f) => self.call(line, now, f),
            Command::Close(code, reason) => self.close(code, &reason, line, now),
            command => self.call(line, now, |_, context| {
                let sent =
                    match command {
                        Command::Cancel(timer) => {
                            context.cancel_timer(timer);
                            return;
                        }
                        Command::Pause => return context.pause_reading(),
                        Command::Resume => return context.resume_reading(),
                        Command::Ping(payload) => context.ping(&payload),
                        Command::Send { message, completion } => context
                            .send_mailed(|context| context.send(message.message()), completion),
                        Command::SendPrepared { message, completion } => context
                            .send_mailed(|context| context.send_prepared(&message), completion),
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

    fn transport_failed(&mut self, error: TransportError) {
        let _: Result<(), Failure> = match &mut self.machine {
            Machine::Server(handshake) => handshake.handle_error(error),
            Machine::Client(handshake) => handshake.handle_error(error),
            Machine::Open(connection) => connection.handle_error(error),
            Machine::Over => Ok(()),
        };
    }

    /// Does what is to be done when the work is done: tells of a drained backlog, ends the stream if
    /// it is time to, and tells the transport and the handles how things are now.
    fn settle<T: Transport>(&mut self, transport: &mut T, scratch: &mut Scratch, now: Instant) {
        let limits = self.io.common.limits;
        loop {
            let waiting = self.buffered_amount();
            if waiting > limits.high {
                self.io.high = true;
            } else if self.may_tell_drained(waiting) {
                self.io.high = false;
                self.work(transport, &mut scratch.cork, |session, line| {
                    session.call(line, now, Handler::drained);
                });
                continue;
            }
            break;
        }
        let panic = self.io.take_panic();
        if panic.is_some() {
            self.work(transport, &mut scratch.cork, |session, line| session.give_in(line, now));
        }
        let flushed = self.io.backlog.is_none();
        match self.shutdown() {
            Shutdown::HalfClose if flushed && !self.io.half_closed => {
                self.io.half_closed = true;
                report(transport.shutdown(Shutdown::HalfClose));
            }
            how @ (Shutdown::Close | Shutdown::Abort) if flushed || how == Shutdown::Abort => {
                report(transport.shutdown(how));
                self.finish(transport, scratch, now);
            }
            _ => {}
        }
        self.tell(transport, now);
        if let Some(panic) = panic.or_else(|| self.io.take_panic()) {
            resume_unwind(panic);
        }
    }

    /// Whether the backlog has fallen to where the handler is told, and the handler can be.
    fn may_tell_drained(&self, waiting: usize) -> bool {
        let low = waiting <= self.io.common.limits.low;
        self.io.high && low && self.state() == State::Open && !self.io.has_panicked()
    }

    /// Program code has panicked while it had this connection: fails it, with 1011 or 503.
    fn give_in(&mut self, line: &mut Line<'_>, now: Instant) {
        match &mut self.machine {
            Machine::Open(connection) => _ = connection.handle_application_failure(now, line),
            Machine::Server(handshake) => _ = handshake.abandon(now, line),
            Machine::Client(handshake) => _ = handshake.abandon(now, line),
            Machine::Over => {}
        }
    }

    fn shutdown(&self) -> Shutdown {
        match &self.machine {
            Machine::Server(handshake) => handshake.shutdown(),
            Machine::Client(handshake) => handshake.shutdown(),
            Machine::Open(connection) => connection.shutdown(),
            Machine::Over => Shutdown::Open,
        }
    }

    /// Tells the transport and the handles what has changed.
    fn tell<T: Transport>(&mut self, transport: &mut T, now: Instant) {
        self.io.publish(self.buffered_amount(), self.state());
        if self.is_over() {
            return;
        }
        let reading = self.reads();
        if reading != self.io.reading {
            self.io.reading = reading;
            transport.set_reading(reading);
        }
        if let Machine::Open(connection) = &mut self.machine {
            connection.set_reading(reading, now);
        }
        let machine = match &self.machine {
            Machine::Server(handshake) => handshake.poll_timeout(),
            Machine::Client(handshake) => handshake.poll_timeout(),
            Machine::Open(connection) => connection.poll_timeout(),
            Machine::Over => None,
        };
        let timers = self.io.rare.as_deref().and_then(|rare| rare.timers.next_due());
        let deadline = [machine, timers].into_iter().flatten().min();
        if deadline != self.io.deadline {
            self.io.deadline = deadline;
            transport.set_deadline(deadline);
        }
    }

    /// The stream is closed: tells the handler, once, and lets everything go.
    fn finish<T: Transport>(&mut self, transport: &mut T, scratch: &mut Scratch, now: Instant) {
        let who = crate::log::describe(|| transport.remote_endpoint());
        let machine = std::mem::replace(&mut self.machine, Machine::Over);
        self.io.state = State::Ended;
        self.io.backlog = None; // those who wait for it are told
        if let Some(seat) = &self.io.seat {
            seat.leave();
        }
        let mut backlog = None;
        let mut rear = TransportRear::new(transport, &mut backlog);
        let mut waiting = 0;
        let mut line = Line::new(&mut scratch.cork, &mut rear, &mut waiting);
        match machine {
            Machine::Open(connection) => {
                if let Some(ending) = connection.ending() {
                    match ending.failure {
                        None => crate::log::debug!("{who}: closed, first by {}", ending.by),
                        Some(failure) => crate::log::debug!("{who}: {failure}"),
                    }
                    self.call(&mut line, now, |handler, context| handler.close(&ending, context));
                }
            }
            Machine::Server(handshake) => {
                let failure = handshake.failure();
                if let Some(failure) = failure {
                    crate::log::debug!("{who}: {failure}");
                }
                self.io.rare().facts =
                    Some(Facts { request: handshake.into_request(), ..Facts::default() });
                self.tell_failure(failure, &mut line, now);
            }
            Machine::Client(handshake) => {
                let failure = handshake.failure();
                if let Some(failure) = failure {
                    crate::log::debug!("{who}: {failure}");
                }
                self.io.rare().facts =
                    Some(Facts { response: handshake.into_response(), ..Facts::default() });
                self.tell_failure(failure, &mut line, now);
            }
            Machine::Over => {}
        }
        self.io.rare = None;
    }

    /// Plain HTTP that was answered has not failed.
    fn tell_failure(&mut self, failure: Option<Failure>, line: &mut Line<'_>, now: Instant) {
        if let Some(failure) = failure {
            self.call(line, now, |handler, context| handler.fail(&failure, context));
        }
    }
}

impl<H: Handler> fmt::Debug for Session<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("state", &self.state()).finish_non_exhaustive()
    }
}

fn report<E: std::error::Error>(result: Result<(), E>) {
    if let Err(error) = result {
        crate::log::debug!("ending the stream: {error}");
    }
}
