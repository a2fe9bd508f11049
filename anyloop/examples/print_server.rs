//! A server that prints what its clients send: WebSocket++'s `print_server`.
//!
//! ```text
//! cargo run --example print_server -- 127.0.0.1:9002
//! ```

use anyloop::net::Server;
use anyloop::prelude::*;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:9002".to_string());
    let mut server = Server::new(ServerConfig::new(OriginPolicy::Any))?;
    server.on_message(|message, context| {
        let text = String::from_utf8_lossy(message.as_bytes());
        println!("{}: {text}", context.remote_endpoint());
    });
    println!("listening on ws://{}", server.listen(address.as_str())?);
    server.start_accept()?;
    server.run();
    Ok(())
}
