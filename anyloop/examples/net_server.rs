//! A server that sends every message back.
//!
//! ```text
//! cargo run --example net_server -- 127.0.0.1:9002
//! ```

use std::error::Error;

use anyloop::net::Server;
use anyloop::prelude::*;

fn main() -> Result<(), Box<dyn Error>> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:9002".to_string());

    // Pages of every site may connect. That is right for an echo, and wrong for a server that
    // authenticates by cookies.
    let mut server = Server::new(ServerConfig::new(OriginPolicy::Any))?;
    server.on_open(|context| println!("{} connected", context.remote_endpoint()));
    server.on_message(|message, context| {
        // Sending fails if the peer does not read, or has closed.
        _ = context.send(message);
    });
    server.on_close(|ending, _| println!("closed, by {}", ending.by));

    println!("listening on ws://{}", server.listen(address.as_str())?);
    server.start_accept()?;
    server.run();
    Ok(())
}
