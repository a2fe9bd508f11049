//! A server that receives one message of any size in chunks, and sends one of the same size in pieces, in memory that
//! does not depend on the size. It serves one connection, and says how much memory that took (Linux).
//!
//! ```text
//! cargo run --release --example gigabyte -- 127.0.0.1:9002
//! ```

use anyloop::net::Server;
use anyloop::prelude::*;
use anyloop::proto::Kind;

/// What is sent again and again.
static PIECE: [u8; 64 << 10] = [b'x'; 64 << 10];

/// One connection: bytes that were received, and those that are still to be sent.
#[derive(Default)]
struct Echo {
    received: u64,
    to_send: u64,
}

impl Handler for Echo {
    fn chunk(&mut self, chunk: Chunk<'_>, context: &mut Context<'_, Self>) {
        // A program would write it to a file, for example.
        self.received += chunk.payload.len() as u64;
        if chunk.last {
            self.to_send = self.received;
            match context.begin(Kind::Binary) {
                Ok(()) => self.send_on(context),
                Err(error) => eprintln!("cannot answer: {error}"),
            }
        }
    }

    /// The client has read nearly all of what waited: there is room again.
    fn drained(&mut self, context: &mut Context<'_, Self>) {
        self.send_on(context);
    }

    fn close(&mut self, ending: &Ending<'_>, context: &mut Context<'_, Self>) {
        let sent = ending.statistics.bytes_sent;
        println!("received {} bytes, sent {sent} bytes", self.received);
        context.endpoint().shut_down(); // one connection is enough here
    }
}

impl Echo {
    /// Sends pieces until the high-water mark is reached or the message is complete.
    fn send_on(&mut self, context: &mut Context<'_, Self>) {
        while self.to_send > 0 {
            let n = self.to_send.min(PIECE.len() as u64);
            self.to_send -= n;
            match context.piece(&PIECE[..n as usize], self.to_send == 0) {
                Ok(Sent::Backpressure) => return, // `drained` goes on
                Ok(_) => {}
                Err(error) => return eprintln!("not sent: {error}"),
            }
        }
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:9002".to_string());
    let config = ServerConfig::new(OriginPolicy::Any).streaming(true).max_message_size(u64::MAX);
    let server = Server::with_factory(config, Echo::default)?;
    println!("listening on ws://{}", server.listen(address.as_str())?);
    server.start_accept()?;
    server.run();
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or("unknown");
    println!("peak memory: {}", peak.trim());
    Ok(())
}
