//! A server that replaces the handlers of a connection while it is open: the message "upgrade" gives this connection
//! other ones. WebSocket++'s `handler_switch`.
//!
//! ```text
//! cargo run --example handler_switch -- 127.0.0.1:9002
//! ```

use anyloop::net::Server;
use anyloop::prelude::*;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:9002".to_string());
    let mut custom = Handlers::new();
    custom.on_message(|_, context| _ = context.send("from the custom handler"));

    let mut server = Server::new(ServerConfig::new(OriginPolicy::Any))?;
    server.on_message(move |message, context| {
        _ = context.send("from the default handler");
        if message.as_text() == Some("upgrade") {
            // From the next event on. A clone shares the closures.
            context.set_handler(custom.clone());
        }
    });
    println!("listening on ws://{}", server.listen(address.as_str())?);
    server.start_accept()?;
    server.run();
    Ok(())
}
