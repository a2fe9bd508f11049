//! Connections that stay open until the test ends: all that is sent on them arrives, and in order.

use std::time::Duration;

use anyloop::endpoint::HandlerFactory;
use anyloop::net::{Client, Server};
use anyloop::prelude::*;

use crate::Count;

/// The message that servers broadcast.
pub(crate) const PUSH: &str = "push";

/// The most numbers that are sent and not answered.
const WINDOW: usize = 8;

/// The counts of all connections of one kind.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) made: Count,
    pub(crate) opened: Count,
    pub(crate) closed: Count,
    pub(crate) failed: Count,
    /// Handlers that were dropped after `close` or `fail`.
    pub(crate) dropped: Count,
    pub(crate) numbers: Count,
    pub(crate) replies: Count,
    pub(crate) pushes: Count,
    pub(crate) posted: Count,
    pub(crate) ticks: Count,
}

/// The life cycle of one connection: it opens at most once, and ends once.
pub(crate) struct Life {
    pub(crate) tally: &'static Tally,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Stage {
    Begun,
    Open,
    Over,
}

impl Life {
    pub(crate) fn new(tally: &'static Tally) -> Self {
        tally.made.add(1);
        Self { tally, stage: Stage::Begun }
    }

    pub(crate) fn open(&mut self) {
        assert_eq!(std::mem::replace(&mut self.stage, Stage::Open), Stage::Begun);
        self.tally.opened.add(1);
    }

    pub(crate) fn close(&mut self) {
        assert_eq!(std::mem::replace(&mut self.stage, Stage::Over), Stage::Open);
        self.tally.closed.add(1);
    }

    pub(crate) fn fail(&mut self) {
        assert_eq!(std::mem::replace(&mut self.stage, Stage::Over), Stage::Begun);
        self.tally.failed.add(1);
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        if self.stage == Stage::Over {
            self.tally.dropped.add(1);
        }
    }
}

impl Tally {
    /// Every connection has ended, closed or failed.
    #[track_caller]
    pub(crate) fn check_ends(&self) {
        assert_eq!(self.opened.get(), self.closed.get(), "{self:?}");
        assert_eq!(self.made.get(), self.opened.get() + self.failed.get(), "{self:?}");
        assert_eq!(self.made.get(), self.dropped.get(), "{self:?}");
    }
}

/// A factory of handlers that share a tally.
pub(crate) struct Make<H>(pub(crate) &'static Tally, pub(crate) fn(&'static Tally) -> H);

impl<H: Handler> HandlerFactory for Make<H> {
    type Handler = H;

    fn make(&self) -> H {
        self.1(self.0)
    }
}

/// The server's handler: it sends messages back.
pub(crate) struct Echo {
    life: Life,
    received: usize,
}

impl Echo {
    pub(crate) fn new(tally: &'static Tally) -> Self {
        Self { life: Life::new(tally), received: 0 }
    }
}

impl Handler for Echo {
    fn open(&mut self, context: &mut Context<'_, Self>) {
        self.life.open();
        context.set_timer(Duration::from_millis(1), |echo, _| _ = echo.life.tally.ticks.add(1));
    }

    fn message(&mut self, message: Message<'_>, context: &mut Context<'_, Self>) {
        if let Message::Text(number) = &message {
            assert_eq!(number.as_bytes(), self.received.to_string().as_bytes());
            self.received += 1;
            self.life.tally.numbers.add(1);
        }
        context.send(message).expect("there is room");
    }

    fn interrupt(&mut self, _: &mut Context<'_, Self>) {
        self.life.tally.posted.add(1);
    }

    fn close(&mut self, _: &Ending<'_>, _: &mut Context<'_, Self>) {
        self.life.close();
    }

    fn fail(&mut self, _: &Failure, _: &mut Context<'_, Self>) {
        self.life.fail();
    }
}

/// The client's handler: it sends numbers in order, and counts the answers.
pub(crate) struct Talker {
    life: Life,
    sent: usize,
    received: usize,
    /// How far it counts.
    limit: usize,
    pub(crate) posted: usize,
}

impl Talker {
    pub(crate) fn new(tally: &'static Tally) -> Self {
        Self { life: Life::new(tally), sent: 0, received: 0, limit: crate::steps(200), posted: 0 }
    }

    pub(crate) fn post(&mut self) {
        self.posted += 1;
        self.life.tally.posted.add(1);
    }

    fn send(&mut self, context: &mut Context<'_, Self>) {
        while self.sent < self.limit.min(self.received + WINDOW) {
            context.send(self.sent.to_string().as_str()).expect("there is room");
            self.sent += 1;
        }
    }
}

impl Handler for Talker {
    fn open(&mut self, context: &mut Context<'_, Self>) {
        self.life.open();
        self.send(context);
    }

    fn message(&mut self, message: Message<'_>, context: &mut Context<'_, Self>) {
        match message {
            Message::Text(text) if text.as_bytes() == PUSH.as_bytes() => {
                self.life.tally.pushes.add(1);
            }
            Message::Text(number) => {
                assert_eq!(number.as_bytes(), self.received.to_string().as_bytes());
                self.received += 1;
                self.life.tally.numbers.add(1);
                self.send(context);
            }
            Message::Binary(bytes) => {
                assert!(bytes.iter().all(|byte| *byte == bytes[0]));
                self.life.tally.replies.add(1);
            }
        }
    }

    fn close(&mut self, _: &Ending<'_>, _: &mut Context<'_, Self>) {
        assert_eq!(self.received, self.limit);
        self.life.close();
    }

    fn fail(&mut self, _: &Failure, _: &mut Context<'_, Self>) {
        self.life.fail();
    }
}

pub(crate) type Served<H> = Server<Make<H>>;
pub(crate) type Connected<H> = Client<Make<H>>;

/// Between two keep-alive pings.
const PING_INTERVAL: Duration = Duration::from_millis(50);

/// An echo server, at a port of its own. It pings, and has no timeouts.
pub(crate) fn server(event_loop: &EventLoop, tally: &'static Tally) -> Served<Echo> {
    let config = ServerConfig::new(OriginPolicy::Any)
        .open_timeout(None)
        .ping_interval(PING_INTERVAL)
        .pong_timeout(None)
        .idle_timeout(None)
        .data_idle_timeout(None)
        .close_timeout(None);
    serve(event_loop, config, Make(tally, Echo::new))
}

pub(crate) fn serve<H: Handler + Send>(
    event_loop: &EventLoop,
    config: ServerConfig,
    make: Make<H>,
) -> Served<H> {
    let server = Server::with_factory_on(event_loop, config, make);
    server.listen("127.0.0.1:0").unwrap();
    server.start_accept().unwrap();
    server
}

/// A client of talkers. It pings, and has no timeouts.
pub(crate) fn client(event_loop: &EventLoop, tally: &'static Tally) -> Connected<Talker> {
    let config = ClientConfig::new()
        .connect_timeout(None)
        .open_timeout(None)
        .ping_interval(PING_INTERVAL)
        .pong_timeout(None)
        .idle_timeout(None)
        .data_idle_timeout(None)
        .close_timeout(None);
    Client::with_factory_on(event_loop, config, Make(tally, Talker::new))
}
