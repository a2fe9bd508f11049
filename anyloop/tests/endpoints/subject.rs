//! One end of a connection under test, with the test at the other end; and two ends joined.

use std::sync::Arc;
use std::time::Duration;

use anyloop::endpoint::HandlerFactory;
use anyloop::prelude::*;
use anyloop::proto::handshake::Target;
use anyloop::proto::{Role, Shutdown};
use anyloop_testkit::requests::Zeros;

use crate::transports::{Clock, End, TestTransport};
use crate::wire::{self, Frame};

pub(crate) const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// The default configuration of a server. Nothing is random: nonces and masking keys are zeros.
pub(crate) fn server_config() -> ServerConfig {
    ServerConfig::new(OriginPolicy::Any).random(Arc::new(Zeros))
}

/// The default configuration of a client. Nothing is random: nonces and masking keys are zeros.
pub(crate) fn client_config() -> ClientConfig {
    ClientConfig::new().random(Arc::new(Zeros))
}

pub(crate) fn target() -> Target {
    "ws://localhost/chat".parse().unwrap()
}

/// One end.
pub(crate) struct Subject<C: TestTransport, H: Handler = Handlers> {
    pub(crate) end: C::End<H>,
    pub(crate) clock: Clock,
    pub(crate) role: Role,
    /// What has arrived and was not taken.
    pub(crate) unread: Vec<u8>,
    /// The other side has sent a Close, and is to end the stream when this one does.
    closes: bool,
    /// The end of the input was reported.
    ended: bool,
}

/// The end of a server with the default configuration, before its handshake.
pub(crate) fn server<C: TestTransport>(handlers: &Handlers) -> Subject<C> {
    Subject::server(server_config(), handlers.clone())
}

/// The end of a client with the default configuration, before its handshake.
pub(crate) fn client<C: TestTransport>(handlers: &Handlers) -> Subject<C> {
    Subject::client(client_config(), handlers.clone())
}

/// The end of a server with the default configuration, open.
pub(crate) fn open_server<C: TestTransport>(handlers: &Handlers) -> Subject<C> {
    server(handlers).open()
}

/// The end of a client with the default configuration, open.
pub(crate) fn open_client<C: TestTransport>(handlers: &Handlers) -> Subject<C> {
    client(handlers).open()
}

impl<C: TestTransport, H: Handler> Subject<C, H> {
    pub(crate) fn server(
        config: ServerConfig,
        factory: impl HandlerFactory<Handler = H> + 'static,
    ) -> Self {
        let clock = Clock::default();
        Self::of_server(&new_server::<C, _>(config, factory, &clock), &clock)
    }

    pub(crate) fn of_server<F: HandlerFactory<Handler = H> + 'static>(
        server: &C::Server<F>,
        clock: &Clock,
    ) -> Self {
        Self::of(C::server(server, clock), Role::Server, clock)
    }

    pub(crate) fn client(
        config: ClientConfig,
        factory: impl HandlerFactory<Handler = H> + 'static,
    ) -> Self {
        let clock = Clock::default();
        Self::of_client(&new_client::<C, _>(config, factory, &clock), &clock)
    }

    pub(crate) fn of_client<F: HandlerFactory<Handler = H> + 'static>(
        client: &C::Client<F>,
        clock: &Clock,
    ) -> Self {
        Self::of(C::client(client, &target(), clock).unwrap(), Role::Client, clock)
    }

    fn of(end: C::End<H>, role: Role, clock: &Clock) -> Self {
        let clock = clock.clone();
        Self { end, clock, role, unread: Vec::new(), closes: false, ended: false }
    }

    /// Does the opening handshake. What was sent for it, and in it, is forgotten.
    pub(crate) fn open(mut self) -> Self {
        match self.role {
            Role::Server => self.receive_bytes(wire::REQUEST),
            Role::Client => {
                self.end.start();
                self.receive_bytes(wire::RESPONSE)
            }
        };
        self.end.take_output();
        self
    }

    /// Bytes arrive behind those that were not taken. Returns how many are taken now.
    pub(crate) fn receive_bytes(&mut self, bytes: impl AsRef<[u8]>) -> usize {
        self.unread.extend_from_slice(bytes.as_ref());
        let taken = self.end.feed(&self.unread);
        self.unread.drain(..taken);
        self.end_like_the_server();
        taken
    }

    /// A client that has sent its Close ends the stream when it sees the server do so.
    pub(crate) fn end_like_the_server(&mut self) {
        if self.closes && !self.ended && self.end.shutdowns().last() == Some(&Shutdown::HalfClose) {
            self.ended = true;
            self.end.eof();
        }
    }

    /// Frames from the other side arrive, in one piece.
    pub(crate) fn receive(&mut self, frames: &[Frame]) -> usize {
        self.closes |= self.role == Role::Server && frames.iter().any(|frame| frame.opcode == 8);
        self.receive_bytes(wire::stream(frames, wire::other(self.role)))
    }

    /// Feeds what was not taken once more.
    pub(crate) fn read_on(&mut self) -> usize {
        self.receive_bytes([])
    }

    /// The frames that have left since anything was asked for last.
    pub(crate) fn sent(&mut self) -> Vec<Frame> {
        wire::read(&self.end.take_output(), self.role)
    }

    /// The same where a head comes first: it, and the frames behind.
    pub(crate) fn sent_head(&mut self) -> (String, Vec<Frame>) {
        let output = self.end.take_output();
        let (head, rest) = wire::split_head(&output);
        (head.to_string(), wire::read(rest, self.role))
    }

    /// The same where all of it is a response with a body.
    pub(crate) fn sent_response(&mut self) -> String {
        String::from_utf8(self.end.take_output()).unwrap()
    }

    /// Time passes; deadlines come when they are due.
    pub(crate) fn advance(&mut self, time: Duration) {
        let end = self.clock.now() + time;
        for _ in 0..1000 {
            match self.end.deadline() {
                Some(deadline) if deadline <= end && !self.end.is_over() => {
                    self.clock.set(deadline.max(self.clock.now()));
                    self.end.handle_timeout();
                }
                _ => return self.clock.set(end),
            }
        }
        panic!("the deadlines do not come to rest");
    }

    /// Does what handles have asked for, if there is anything.
    pub(crate) fn drain(&mut self) {
        if self.end.is_woken() {
            self.end.drain();
        }
    }

    /// Does what handles ask for in `f`.
    pub(crate) fn with_handle<R>(&mut self, f: impl FnOnce(&Handle<H>) -> R) -> R {
        let result = f(&self.end.handle());
        self.drain();
        result
    }

    /// Ends the connection as its role would have it, the test being a good peer.
    pub(crate) fn close_by_peer(&mut self) {
        self.receive(&[wire::close(1000, "")]);
        if self.role == Role::Client {
            self.end.eof();
        }
        assert!(self.end.is_over());
    }
}

/// A time in which no connection ends by itself, however slow the machine.
const AGES: Duration = seconds(3600);

/// A server whose connections have this clock. Where time is real, their own timeouts do not pass.
pub(crate) fn new_server<C: TestTransport, F: HandlerFactory + 'static>(
    mut config: ServerConfig,
    factory: F,
    clock: &Clock,
) -> C::Server<F> {
    if C::REAL_TIME {
        config = config.open_timeout(AGES).answer_timeout(AGES);
        config = config.response_timeout(AGES).close_timeout(AGES);
    }
    C::new_server(config, factory, clock)
}

/// A client whose connections have this clock. Where time is real, their own timeouts do not pass.
pub(crate) fn new_client<C: TestTransport, F: HandlerFactory + 'static>(
    mut config: ClientConfig,
    factory: F,
    clock: &Clock,
) -> C::Client<F> {
    if C::REAL_TIME {
        config = config.open_timeout(AGES).close_timeout(AGES);
    }
    C::new_client(config, factory, clock)
}

/// A client and a server, joined.
pub(crate) struct Pair<C: TestTransport, K: Handler = Handlers, S: Handler = Handlers> {
    pub(crate) client: Subject<C, K>,
    pub(crate) server: Subject<C, S>,
    clock: Clock,
}

impl<C: TestTransport, K: Handler, S: Handler> Pair<C, K, S> {
    pub(crate) fn new(
        client: (ClientConfig, impl HandlerFactory<Handler = K> + 'static),
        server: (ServerConfig, impl HandlerFactory<Handler = S> + 'static),
    ) -> Self {
        let clock = Clock::default();
        let client = new_client::<C, _>(client.0, client.1, &clock);
        let mut client = Subject::<C, K>::of_client(&client, &clock);
        let server =
            Subject::<C, S>::of_server(&new_server::<C, _>(server.0, server.1, &clock), &clock);
        client.end.start();
        Self { client, server, clock }
    }

    /// Carries what the two send to each other until nothing moves.
    pub(crate) fn run(&mut self) {
        for _ in 0..1000 {
            if !(carry(&mut self.client, &mut self.server)
                | carry(&mut self.server, &mut self.client))
            {
                return;
            }
        }
        panic!("this does not come to rest");
    }

    /// The same while time passes.
    pub(crate) fn run_for(&mut self, time: Duration) {
        let end = self.clock.now() + time;
        for _ in 0..1000 {
            self.run();
            let due = [self.client.end.deadline(), self.server.end.deadline()];
            match due.into_iter().flatten().min() {
                Some(deadline) if deadline <= end => {
                    self.clock.set(deadline.max(self.clock.now()));
                    self.client.end.handle_timeout();
                    self.server.end.handle_timeout();
                }
                _ => return self.clock.set(end),
            }
        }
        panic!("the deadlines do not come to rest");
    }
}

/// Carries one way. Returns whether anything has moved.
fn carry<C: TestTransport, A: Handler, B: Handler>(
    from: &mut Subject<C, A>,
    to: &mut Subject<C, B>,
) -> bool {
    let woken = from.end.is_woken();
    from.drain();
    let bytes = from.end.take_output();
    let taken = to.receive_bytes(&bytes) > 0;
    // The end of the stream comes behind all that was written.
    let ends = !from.end.shutdowns().is_empty() && to.unread.is_empty() && !to.ended;
    if ends {
        to.ended = true;
        to.end.eof();
    }
    woken || taken || ends || !bytes.is_empty()
}
