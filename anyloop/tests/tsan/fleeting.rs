//! Connections that end in every way there is, at any time.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use anyloop::endpoint::{ClientSettings, Context};
use anyloop::proto::handshake::{ClientOptions, OriginPolicy, ServerOptions};
use anyloop::proto::{CloseCode, Config, Ending, Failure, Message};
use anyloop::{Client, EventLoop, Handler};
use socket2::SockRef;

use crate::panic_on_purpose;
use crate::steady::{Connected, Life, Make, Served, Tally, serve};

/// Where the client looks up this name, it gets an address that answers behind one that does not.
const NAME: &str = "somewhere.test";

/// Either end: does what it is told to.
pub(crate) struct Fleeting {
    life: Life,
    received: usize,
}

impl Fleeting {
    fn new(tally: &'static Tally) -> Self {
        Self { life: Life::new(tally), received: 0 }
    }

    pub(crate) fn post(&mut self) {
        self.received += 1;
    }
}

impl Handler for Fleeting {
    fn open(&mut self, _: &mut Context<'_, Self>) {
        self.life.open();
    }

    fn message(&mut self, message: Message<'_>, context: &mut Context<'_, Self>) {
        self.received += 1;
        match message.as_bytes() {
            b"close" => _ = context.close(CloseCode::NORMAL, "as told"),
            b"panic" => panic_on_purpose(),
            b"pause" => {
                context.pause_reading();
                let resume = |_: &mut Self, context: &mut Context<'_, Self>| {
                    context.resume_reading();
                };
                context.set_timer(Duration::from_millis(1), resume);
            }
            b"echo" => _ = context.send(&[7; 1000][..]),
            _ => {}
        }
    }

    fn close(&mut self, _: &Ending<'_>, _: &mut Context<'_, Self>) {
        self.life.close();
    }

    fn fail(&mut self, _: &Failure, _: &mut Context<'_, Self>) {
        self.life.fail();
    }
}

/// All deadlines are near, and met or not.
fn hasty() -> Arc<Config> {
    let mut config = Config::default();
    config.ping_interval = Some(Duration::from_millis(5));
    config.pong_timeout = Some(Duration::from_millis(20));
    config.idle_timeout = Some(Duration::from_millis(200));
    config.close_timeout = Some(Duration::from_millis(20));
    Arc::new(config)
}

pub(crate) fn server(event_loop: &EventLoop, tally: &'static Tally) -> Served<Fleeting> {
    let mut options = ServerOptions::new(OriginPolicy::Any);
    options.open_timeout = Some(Duration::from_millis(100));
    options.connection = hasty();
    serve(event_loop, options.into(), Make(tally, Fleeting::new))
}

pub(crate) fn client(
    event_loop: &EventLoop,
    tally: &'static Tally,
    server: SocketAddr,
) -> Connected<Fleeting> {
    let mut options = ClientOptions::default();
    options.open_timeout = Some(Duration::from_millis(200));
    options.connection = hasty();
    let settings = ClientSettings::from(options);
    let mut client: Connected<_> = Client::with_factory(settings, Make(tally, Fleeting::new));
    let nobody = SocketAddr::from(([127, 0, 0, 1], 1));
    client.transport_mut().set_look_up(move |_, _| Ok(vec![nobody, server]));
    client.set_event_loop(event_loop).unwrap();
    client
}

/// Where to connect: by an address, or by a name.
pub(crate) fn uri(server: SocketAddr, by_name: bool) -> String {
    match by_name {
        true => format!("ws://{NAME}/"),
        false => format!("ws://{server}/"),
    }
}

/// Connects, says something, and is gone: with a reset, where it is `rude`.
pub(crate) fn call_and_hang_up(server: SocketAddr, words: &[u8], rude: bool) {
    let mut stream = TcpStream::connect(server).unwrap();
    if rude {
        SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    }
    let _ = stream.write_all(words); // it may have been thrown out
}
