//! Connections that nobody ends: what is sent on them arrives, all of it, and in order.

use std::sync::Arc;
use std::time::Duration;

use anyloop::endpoint::{ClientSettings, Context, HandlerFactory, ServerSettings};
use anyloop::net::Net;
use anyloop::proto::handshake::{ClientOptions, OriginPolicy, ServerOptions};
use anyloop::proto::{Config, Ending, Failure, Message};
use anyloop::{Client, EventLoop, Handler, Server};

use crate::Count;

/// What servers send to all.
pub(crate) const PUSH: &str = "push";

/// So many numbers are under way at a time.
const WINDOW: usize = 8;

/// What was counted on all connections of one kind.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) made: Count,
    pub(crate) opened: Count,
    pub(crate) closed: Count,
    pub(crate) failed: Count,
    /// Handlers that were told of an end, and dropped.
    pub(crate) dropped: Count,
    pub(crate) numbers: Count,
    pub(crate) replies: Count,
    pub(crate) pushes: Count,
    pub(crate) posted: Count,
    pub(crate) ticks: Count,
}

/// The beginning and the end of one connection: one of each.
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
    /// All that has begun is over, in one of the two ways.
    #[track_caller]
    pub(crate) fn check_ends(&self) {
        assert_eq!(self.opened.get(), self.closed.get(), "{self:?}");
        assert_eq!(self.made.get(), self.opened.get() + self.failed.get(), "{self:?}");
        assert_eq!(self.made.get(), self.dropped.get(), "{self:?}");
    }
}

/// Makes handlers that count together.
pub(crate) struct Make<H>(pub(crate) &'static Tally, pub(crate) fn(&'static Tally) -> H);

impl<H: Handler> HandlerFactory for Make<H> {
    type Handler = H;

    fn make(&self) -> H {
        self.1(self.0)
    }
}

/// The server's end: sends back what it gets.
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

/// The client's end: sends numbers in order, and counts what comes back.
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

pub(crate) type Served<H> = Server<Net, Make<H>>;
pub(crate) type Connected<H> = Client<Net, Make<H>>;

/// No connection ends for having taken too long; pings come and go.
fn patient() -> Arc<Config> {
    let mut config = Config::default();
    config.ping_interval = Some(Duration::from_millis(50));
    config.pong_timeout = None;
    config.idle_timeout = None;
    config.data_idle_timeout = None;
    config.close_timeout = None;
    Arc::new(config)
}

/// An echo server, at a port of its own.
pub(crate) fn server(event_loop: &EventLoop, tally: &'static Tally) -> Served<Echo> {
    let mut options = ServerOptions::new(OriginPolicy::Any);
    options.open_timeout = None;
    options.connection = patient();
    serve(event_loop, options.into(), Make(tally, Echo::new))
}

pub(crate) fn serve<H: Handler + Send>(
    event_loop: &EventLoop,
    settings: ServerSettings,
    make: Make<H>,
) -> Served<H> {
    let server = Server::with_factory(settings, make);
    server.set_event_loop(event_loop).unwrap();
    server.listen("127.0.0.1:0").unwrap();
    server.start_accept().unwrap();
    server
}

pub(crate) fn client(event_loop: &EventLoop, tally: &'static Tally) -> Connected<Talker> {
    let mut options = ClientOptions::default();
    options.open_timeout = None;
    options.connection = patient();
    let settings = ClientSettings::from(options);
    let mut client: Connected<_> = Client::with_factory(settings, Make(tally, Talker::new));
    client.transport_mut().connect.connect_timeout = None;
    client.set_event_loop(event_loop).unwrap();
    client
}
