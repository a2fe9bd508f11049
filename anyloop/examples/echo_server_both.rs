//! An echo server that speaks `ws` on one port and `wss` on another, in one loop: WebSocket++'s `echo_server_both`.
//!
//! ```text
//! cargo run --features tls --example echo_server_both -- chat.pem chat.key 127.0.0.1:9002 127.0.0.1:9443
//! ```

use anyloop::prelude::*;
use anyloop::{net::Server, tls::ServerTls};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [certificate, key, plain, secure] = &words[..] else {
        return Err("usage: echo_server_both CERTIFICATE KEY ADDRESS TLS_ADDRESS".into());
    };
    // One server can listen on any number of addresses. Two servers with handlers of their own would share a loop by
    // `Server::on(&event_loop, config)`.
    let mut server = Server::new(ServerConfig::new(OriginPolicy::Any))?;
    server.on_open(|context| println!("open, secure: {}", context.is_secure()));
    server.on_message(|message, context| _ = context.send(message));

    let tls = ServerTls::from_pem_files(certificate, key)?;
    println!("listening on ws://{}", server.listen(plain)?);
    println!("listening on wss://{}", server.over_tls(&tls).listen(secure)?);
    server.start_accept()?;
    server.run();
    Ok(())
}
