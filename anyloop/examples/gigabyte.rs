//! Sends a message of any size in pieces, and receives one in chunks, in memory that does not depend on the size:
//! the client sends as much as it is told, and the server answers with as much. Both say what they needed (Linux).
//!
//! ```text
//! cargo run --release --example gigabyte -- 127.0.0.1:9002
//! cargo run --release --example gigabyte -- ws://127.0.0.1:9002/ 1073741824
//! ```

use anyloop::net::{Client, Server};
use anyloop::prelude::*;

/// What is sent again and again.
static PIECE: [u8; 64 << 10] = [b'x'; 64 << 10];

/// One connection: bytes that were received, and those that are still to be sent.
#[derive(Default)]
struct Transfer {
    is_client: bool,
    received: u64,
    to_send: u64,
}

impl Handler for Transfer {
    fn open(&mut self, context: &mut Context<'_, Self>) {
        // Each side sends one message. The server's pieces follow when it has received the client's.
        _ = context.begin(Kind::Binary);
        self.drained(context);
    }

    fn chunk(&mut self, chunk: Chunk<'_>, context: &mut Context<'_, Self>) {
        self.received += chunk.payload.len() as u64; // a program would write it to a file, for example
        if chunk.last && self.is_client {
            _ = context.close(CloseCode::NORMAL, "");
        } else if chunk.last {
            self.to_send = self.received;
            self.drained(context);
        }
    }

    /// Sends pieces until the high-water mark is reached. It is called again when the peer has read nearly all of them.
    fn drained(&mut self, context: &mut Context<'_, Self>) {
        while self.to_send > 0 {
            let n = self.to_send.min(PIECE.len() as u64);
            self.to_send -= n;
            match context.piece(&PIECE[..n as usize], self.to_send == 0) {
                Ok(Sent::Backpressure) => return,
                Ok(_) => {}
                Err(error) => return eprintln!("not sent: {error}"),
            }
        }
    }

    fn close(&mut self, ending: &Ending<'_>, context: &mut Context<'_, Self>) {
        println!("received {} bytes, sent {} bytes", self.received, ending.statistics.bytes_sent);
        context.endpoint().shut_down(); // one connection is enough here
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut words = std::env::args().skip(1);
    let place = words.next().unwrap_or_else(|| "127.0.0.1:9002".to_string());
    if let Some(size) = words.next() {
        let to_send = size.parse()?;
        let factory = move || Transfer { is_client: true, received: 0, to_send };
        let config = ClientConfig::new().streaming(true).max_message_size(1 << 40);
        let client = Client::with_factory(config, factory)?;
        client.connect(place.as_str())?;
        client.run();
    } else {
        let config = ServerConfig::new(OriginPolicy::Any).streaming(true).max_message_size(1 << 40);
        let server = Server::with_factory(config, Transfer::default)?;
        println!("listening on ws://{}", server.listen(place.as_str())?);
        server.start_accept()?;
        server.run();
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or("unknown");
    println!("peak memory: {}", peak.trim());
    Ok(())
}
