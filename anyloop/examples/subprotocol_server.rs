//! A server that chooses one of the subprotocols that a client requests: WebSocket++'s `subprotocol_server`.
//!
//! ```text
//! cargo run --example subprotocol_server -- 127.0.0.1:9002
//! ```

use anyloop::net::Server;
use anyloop::prelude::*;

/// The subprotocols that are served here, the best first.
const SUBPROTOCOLS: [&str; 2] = ["chat.v2", "chat.v1"];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:9002".to_string());
    let mut server = Server::new(ServerConfig::new(OriginPolicy::Any))?;
    server.on_validate(|request, _| {
        println!("requested: {:?}", request.subprotocols());
        let requested = |name: &&str| request.subprotocols().iter().any(|other| other == name);
        match SUBPROTOCOLS.into_iter().find(requested) {
            Some(name) => Accept::new().with_subprotocol(name),
            // Without one, browsers that have requested one close the connection. `subprotocol_auth` refuses instead.
            None => Accept::new(),
        }
    });
    server.on_open(|context| {
        let text = format!("subprotocol: {}", context.subprotocol().unwrap_or("none"));
        _ = context.send(text);
    });
    println!("listening on ws://{}", server.listen(address.as_str())?);
    server.start_accept()?;
    server.run();
    Ok(())
}
