//! A client that connects, prints what the handshakes have agreed on, and leaves: WebSocket++'s `print_client` and
//! `print_client_tls`. The URI decides about TLS.
//!
//! ```text
//! cargo run --features tls --example print_client -- wss://localhost:9443/ [CA.pem]
//! ```

use anyloop::prelude::*;
use anyloop::{net::Client, tls::ClientTls};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut words = std::env::args().skip(1);
    let uri = words.next().unwrap_or_else(|| "ws://127.0.0.1:9002/".to_string());
    let mut config = ClientConfig::new();
    if let Some(file) = words.next() {
        // An authority that is trusted beside those of the operating system.
        config = config.tls(ClientTls::builder().ca_file(file).build()?);
    }
    let mut client = Client::new(config)?;
    client.on_open(|context| {
        if let Some(tls) = context.tls() {
            // The certificate is valid for the host of the URI, or this handler would not be called.
            let certificates = tls.peer_certificates().map_or(0, <[_]>::len);
            println!("{:?}, {certificates} certificates", tls.protocol_version());
        }
        if let Some(response) = context.response() {
            println!("{}", response.status());
            for (name, value) in response.headers() {
                println!("{name}: {}", String::from_utf8_lossy(value.as_bytes()));
            }
        }
        _ = context.close(CloseCode::GOING_AWAY, "");
    });
    client.on_fail(|failure, context| match context.error() {
        Some(error) => println!("{failure}: {error}"),
        None => println!("{failure}"),
    });
    client.connect(uri.as_str())?;
    client.run();
    Ok(())
}
