//! The codec with an endpoint, a handler and a transport, as in an application.

use std::io::{self, IoSlice};
use std::task::Waker;

use anyloop::proto::handshake::OriginPolicy;
use anyloop::proto::{Instant, Message, Shutdown};
use anyloop::transport::{Buffers, Server, Transport};
use anyloop::{Context, Handler, ServerConfig};

use super::{BUFFER, check};
use crate::scenario::{Scenario, Socket};

/// A minimal request.
const REQUEST: &[u8] =
    b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

impl Transport for Socket {
    fn write(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        Ok(slices.iter().map(|slice| Self::write(self, slice)).sum())
    }

    fn shutdown(&mut self, _: Shutdown) -> io::Result<()> {
        Ok(())
    }
}

struct Echo;

impl Handler for Echo {
    #[inline] // as the compiler does with a small handler in the same crate
    fn message(&mut self, message: Message<'_>, context: &mut Context<'_, Self>) {
        let _ = context.send(message);
    }
}

pub(super) fn run(scenario: &Scenario, reads: usize) {
    let mut socket = Socket::new(scenario);
    let mut buffer = vec![0; BUFFER];
    let mut buffers = Buffers::new(8 << 20);
    let now = Instant::from_nanos(1);
    let config = ServerConfig::new(OriginPolicy::Any);
    let server = Server::with_factory(config, || Echo);
    let mut driver = server.driver(Waker::noop(), now);
    driver.start(&mut socket, &mut buffers, now);
    driver.receive(&mut socket, &mut buffers, &mut REQUEST.to_vec(), now);
    for _ in 0..reads {
        loop {
            let mut received = 0;
            if let Some(memory) = driver.receive_buffer() {
                let n = socket.read(memory);
                driver.filled(n);
                if n == 0 {
                    break;
                }
            } else {
                received = socket.read(&mut buffer);
                if received == 0 {
                    break;
                }
            }
            driver.receive(&mut socket, &mut buffers, &mut buffer[..received], now);
        }
    }
    check(scenario, reads, &socket);
}
