//! The same with an endpoint, a handler and a transport: what an application has.

use std::io::IoSlice;
use std::task::Waker;

use anyloop::endpoint::{Context, Scratch};
use anyloop::proto::handshake::{OriginPolicy, ServerOptions};
use anyloop::proto::{Instant, Message, Shutdown, TransportError};
use anyloop::transport::Transport;
use anyloop::{Handler, Server};

use super::{BUFFER, check};
use crate::scenario::{Scenario, Socket};

/// A request, as short as it can be.
const REQUEST: &[u8] =
    b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

impl Transport for Socket {
    type Error = std::convert::Infallible;
    type Endpoint = ();

    const LAZY_DEADLINES: bool = true;

    fn write(&mut self, slices: &[IoSlice<'_>]) -> Result<usize, Self::Error> {
        Ok(slices.iter().map(|slice| Self::write(self, slice)).sum())
    }

    fn shutdown(&mut self, _: Shutdown) -> Result<(), Self::Error> {
        Ok(())
    }

    fn set_deadline(&mut self, _: Option<Instant>) {}

    fn waker(&self) -> Waker {
        Waker::noop().clone()
    }

    fn classify(error: &Self::Error) -> TransportError {
        match *error {}
    }

    fn is_secure(&self) -> bool {
        false
    }

    fn remote_endpoint(&self) -> String {
        String::new()
    }
}

struct Echo;

impl Handler for Echo {
    #[inline] // as one that is small is where program and handler are compiled together
    fn message(&mut self, message: Message<'_>, context: &mut Context<'_, Self>) {
        let _ = context.send(message);
    }
}

pub(super) fn run(scenario: &Scenario, reads: usize) {
    let mut socket = Socket::new(scenario);
    let mut buffer = vec![0; BUFFER];
    let mut scratch = Scratch::new(8 << 20);
    let now = Instant::from_nanos(1);
    let options = ServerOptions::new(OriginPolicy::Any);
    let server = Server::<Socket, _>::with_factory(options, || Echo);
    let mut session = server.session(Waker::noop(), now);
    session.start(&mut socket, &mut scratch, now);
    session.feed(&mut socket, &mut scratch, &mut REQUEST.to_vec(), now);
    for _ in 0..reads {
        loop {
            let mut received = 0;
            if let Some(room) = session.want() {
                let n = socket.read(room);
                session.filled(n);
                if n == 0 {
                    break;
                }
            } else {
                received = socket.read(&mut buffer);
                if received == 0 {
                    break;
                }
            }
            session.feed(&mut socket, &mut scratch, &mut buffer[..received], now);
        }
    }
    check(scenario, reads, &socket);
}
