//! An echo server that compresses messages if the client does so too (permessage-deflate, RFC 7692), as WebSocket++'s
//! `scratch_server`.
//!
//! ```text
//! cargo run --features deflate --example net_deflate -- 127.0.0.1:9002
//! ```

use anyloop::net::Server;
use anyloop::prelude::*;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:9002".to_string());
    // Level 1 is fast, and 9 makes the messages small. Those of less than 64 bytes are not compressed.
    let config = ServerConfig::new(OriginPolicy::Any).deflate(Deflate::pooled().level(6));
    let mut server = Server::new(config)?;
    server.on_open(|context| {
        let extension = context.handshake_info().and_then(|info| info.extension.as_deref());
        println!("extension: {}", extension.unwrap_or("none"));
    });
    server.on_message(|message, context| {
        // What is compressed already can be sent as it is.
        _ = match message {
            Message::Text(_) => context.send(message),
            Message::Binary(_) => context.send(Uncompressed(message)),
        };
    });
    println!("listening on ws://{}", server.listen(address.as_str())?);
    server.start_accept()?;
    server.run();
    Ok(())
}
