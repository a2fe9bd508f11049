//! An echo client over iostream, on its own socket: returns every message until the peer closes.
//!
//! ```text
//! iostream_client URL
//! ```
//!
//! The exit status is 0 if the connection closed without a failure.

#[path = "iostream/socket.rs"]
mod socket;

use std::{error::Error, net::TcpStream, process::ExitCode, sync::mpsc};

use anyloop::iostream::Client;
use anyloop::prelude::*;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [url] = &words[..] else {
        eprintln!("usage: iostream_client URL");
        return ExitCode::from(2);
    };
    match echo(url) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{url}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn echo(url: &str) -> Result<(), Box<dyn Error>> {
    let target: Target = url.parse()?;
    if target.secure() {
        return Err("wss:// needs TLS, which this example does not have".into());
    }
    let config = ClientConfig::new().max_message_size(32 << 20);
    #[cfg(feature = "deflate")]
    let config = config.deflate(Deflate::pooled());
    let mut client = Client::new(config);
    client.on_message(|message, context| {
        _ = context.send(message); // refused if the connection is closing
    });
    // Exactly one of these two closures is called, once.
    let (sender, outcome) = mpsc::channel();
    let failed = sender.clone();
    client.on_fail(move |failure, _| _ = failed.send(Some(*failure)));
    client.on_close(move |ending, _| _ = sender.send(ending.failure));

    let connection = client.connection(&target)?;
    let stream = TcpStream::connect((target.host(), target.port()))?;
    socket::carry(&stream, &connection)?;
    match outcome.try_recv()? {
        Some(failure) => Err(failure.into()),
        None => Ok(()),
    }
}
