//! A server that sends each message to all its connections: WebSocket++'s `simple_broadcast_server`.
//!
//! ```text
//! cargo run --example simple_broadcast_server -- 127.0.0.1:9002
//! ```

use anyloop::net::Server;
use anyloop::prelude::*;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:9002".to_string());
    let mut server = Server::new(ServerConfig::new(OriginPolicy::Any))?;
    // The endpoint knows its connections, so the program keeps no set of them. The sender is one of them.
    server.on_message(|message, context| {
        let reached = context.endpoint().broadcast(message);
        println!("sent to {reached} connections");
    });
    println!("listening on ws://{}", server.listen(address.as_str())?);
    server.start_accept()?;
    server.run();
    Ok(())
}
