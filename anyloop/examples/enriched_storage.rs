//! Data of each connection in fields of its handler, which needs neither a map nor a lock: WebSocket++'s
//! `enriched_storage`.
//!
//! ```text
//! cargo run --example enriched_storage -- 127.0.0.1:9002
//! ```

use std::sync::atomic::{AtomicU64, Ordering};

use anyloop::net::Server;
use anyloop::prelude::*;

/// One connection.
struct Visitor {
    session: u64,
    name: Option<String>,
}

impl Handler for Visitor {
    /// The first message is the name.
    fn message(&mut self, message: Message<'_>, context: &mut Context<'_, Self>) {
        let text = String::from_utf8_lossy(message.as_bytes());
        let answer = match &self.name {
            Some(name) => format!("{name} says {text}"),
            None => {
                let answer = format!("session {} is {text}", self.session);
                self.name = Some(text.into_owned());
                answer
            }
        };
        _ = context.send(answer);
    }

    fn close(&mut self, _: &Ending<'_>, _: &mut Context<'_, Self>) {
        let name = self.name.as_deref().unwrap_or("nobody");
        println!("session {} has ended: {name}", self.session);
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:9002".to_string());
    let sessions = AtomicU64::new(0);
    // The factory makes the handler of each connection.
    let factory =
        move || Visitor { session: 1 + sessions.fetch_add(1, Ordering::Relaxed), name: None };
    let server = Server::with_factory(ServerConfig::new(OriginPolicy::Any), factory)?;
    println!("listening on ws://{}", server.listen(address.as_str())?);
    server.start_accept()?;
    server.run();
    Ok(())
}
