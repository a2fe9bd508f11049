//! Connections that end in every way, at any time.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyloop::net::Client;
use anyloop::prelude::*;
use socket2::SockRef;

use crate::panic_on_purpose;
use crate::steady::{Connected, Life, Make, Served, Tally, serve};

/// A name that the client resolves to two addresses: one that refuses, and one that answers.
const NAME: &str = "somewhere.test";

/// The handler of either end: it does what messages ask for.
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
            b"close" => _ = context.close(CloseCode::NORMAL, "as requested"),
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

pub(crate) fn server(event_loop: &EventLoop, tally: &'static Tally) -> Served<Fleeting> {
    // Timeouts so short that some of them expire.
    let config = ServerConfig::new(OriginPolicy::Any)
        .open_timeout(Duration::from_millis(100))
        .ping_interval(Duration::from_millis(5))
        .pong_timeout(Duration::from_millis(20))
        .idle_timeout(Duration::from_millis(200))
        .close_timeout(Duration::from_millis(20));
    serve(event_loop, config, Make(tally, Fleeting::new))
}

pub(crate) fn client(
    event_loop: &EventLoop,
    tally: &'static Tally,
    server: SocketAddr,
) -> Connected<Fleeting> {
    let config = ClientConfig::new()
        .open_timeout(Duration::from_millis(200))
        .ping_interval(Duration::from_millis(5))
        .pong_timeout(Duration::from_millis(20))
        .idle_timeout(Duration::from_millis(200))
        .close_timeout(Duration::from_millis(20));
    let mut client = Client::with_factory_on(event_loop, config, Make(tally, Fleeting::new));
    let refusing = SocketAddr::from(([127, 0, 0, 1], 1));
    client.set_look_up(move |_, _| Ok(vec![refusing, server]));
    client
}

/// Where to connect: by an address, or by a name.
pub(crate) fn uri(server: SocketAddr, by_name: bool) -> String {
    match by_name {
        true => format!("ws://{NAME}/"),
        false => format!("ws://{server}/"),
    }
}

/// Connects, writes some bytes, and closes the socket; with a reset, if `rude`.
pub(crate) fn call_and_hang_up(server: SocketAddr, words: &[u8], rude: bool) {
    let mut stream = TcpStream::connect(server).unwrap();
    if rude {
        SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    }
    let _ = stream.write_all(words); // the server may have closed it
}
