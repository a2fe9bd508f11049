//! A client that prints how long each stage of a connection takes: WebSocket++'s `debug_client`.
//!
//! ```text
//! cargo run --example debug_client -- ws://127.0.0.1:9002/
//! ```

use std::{error::Error, fmt::Display, time::Instant};

use anyloop::net::Client;
use anyloop::prelude::*;

/// Prints what was called, and the time since the start of the program.
fn print(start: Instant, what: impl Display) {
    println!("{:>6} µs  {what}", start.elapsed().as_micros());
}

fn main() -> Result<(), Box<dyn Error>> {
    let uri = std::env::args().nth(1).unwrap_or_else(|| "ws://127.0.0.1:9002/".to_string());
    let mut client = Client::new(ClientConfig::new())?;
    let start = Instant::now();
    client.on_socket_init(move |_| {
        print(start, "socket_init: TCP connects");
        Ok(())
    });
    client.on_open(move |context| {
        print(start, format_args!("open: {}", context.remote_endpoint()));
        _ = context.ping(b"ping");
        _ = context.send("hello");
    });
    client.on_pong(move |_, _, _| print(start, "pong"));
    client.on_message(move |message, context| {
        print(start, format_args!("message: {} bytes", message.as_bytes().len()));
        _ = context.close(CloseCode::NORMAL, "that was all");
    });
    client.on_close(move |ending, _| {
        let Ending { by, clean, sent, received, failure, .. } = ending;
        print(start, format_args!("close: by {by}, clean: {clean}, failure: {failure:?}"));
        print(start, format_args!("sent {sent:?}, received {received:?}"));
    });
    client.on_fail(move |failure, context| {
        print(start, format_args!("fail: {failure}"));
        // What is wrong with the look-up, the socket or the certificate, and which addresses were tried.
        if let Some(error) = context.error() {
            print(start, error);
        }
    });
    client.connect(uri.as_str())?;
    client.run();
    Ok(())
}
