//! A client that sends a few messages, and prints the answers.
//!
//! ```text
//! cargo run --example net_client -- ws://127.0.0.1:9002/ hello "and good-bye"
//! ```

use std::error::Error;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyloop::net::Client;
use anyloop::prelude::*;

fn main() -> Result<(), Box<dyn Error>> {
    let mut words = std::env::args().skip(1);
    let uri = words.next().unwrap_or_else(|| "ws://127.0.0.1:9002/".to_string());
    let messages: Vec<String> = words.collect();
    let missing = AtomicUsize::new(messages.len());

    let mut client = Client::new(ClientConfig::new())?;
    client.on_open(move |context| {
        for message in &messages {
            _ = context.send(message.as_str());
        }
        if messages.is_empty() {
            _ = context.close(CloseCode::NORMAL, "");
        }
    });
    client.on_message(move |message, context| {
        println!("{}", String::from_utf8_lossy(message.as_bytes()));
        if missing.fetch_sub(1, Ordering::Relaxed) == 1 {
            _ = context.close(CloseCode::NORMAL, "");
        }
    });
    client.on_close(|ending, _| println!("closed cleanly: {}", ending.clean));
    client.on_fail(|failure, context| match context.error() {
        Some(error) => eprintln!("{error}"),
        None => eprintln!("{failure}"),
    });

    client.connect(uri.as_str())?;
    client.run(); // until the connection has ended
    Ok(())
}
