//! An echo server with one loop for each core. The loops share nothing but the port.
//!
//! ```text
//! cargo run --example net_loop_per_core -- 127.0.0.1:9002 4
//! ```

use std::net::SocketAddr;
use std::thread;

use anyloop::net::{Error, Server};
use anyloop::prelude::*;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut words = std::env::args().skip(1);
    let address = words.next().unwrap_or_else(|| "127.0.0.1:9002".to_string());
    let loops = match words.next() {
        Some(n) => n.parse()?,
        None => thread::available_parallelism()?.get(),
    };

    // All servers listen on the port of the first one. With port 0, each would get a port of its own.
    let (first, address) = server(0, &address)?;
    let mut servers = vec![first];
    for n in 1..loops {
        servers.push(server(n, &address.to_string())?.0);
    }
    println!("listening on ws://{address}");
    thread::scope(|scope| {
        for server in &servers {
            scope.spawn(|| server.run());
        }
    });
    Ok(())
}

/// A server with a loop of its own.
fn server(n: usize, address: &str) -> Result<(Server, SocketAddr), Error> {
    let mut server = Server::new(ServerConfig::new(OriginPolicy::Any).reuse_port(true))?;
    server.on_open(move |context| println!("loop {n}: {}", context.remote_endpoint()));
    server.on_message(|message, context| _ = context.send(message));
    let address = server.listen(address)?;
    server.start_accept()?;
    Ok((server, address))
}
