//! A client with commands, which has any number of connections at a time, while its loop runs on another thread:
//! WebSocket++'s `utility_client`. For daily work there is `anyloop connect`.
//!
//! ```text
//! cargo run --example utility_client
//! ```

use std::{error::Error, fmt::Display, io, thread};

use anyloop::net::Client;
use anyloop::prelude::*;

fn print(context: &mut Context<'_, Handlers>, what: impl Display) {
    println!("{}: {what}", context.handle().id());
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut client = Client::new(ClientConfig::new())?;
    client.on_open(|context| print(context, "open"));
    client.on_message(|message, context| {
        print(context, String::from_utf8_lossy(message.as_bytes()).escape_debug());
    });
    client.on_close(|ending, context| print(context, format_args!("closed, by {}", ending.by)));
    client.on_fail(|failure, context| print(context, failure));
    client.start_perpetual(); // `run` waits for work while there is no connection

    thread::scope(|scope| {
        scope.spawn(|| client.run());
        for line in io::stdin().lines().map_while(Result::ok).take_while(|line| line != "quit") {
            if let Err(error) = obey(&client, &line) {
                println!("{error}");
            }
        }
        client.shut_down(); // closes all connections with 1001
        client.stop_perpetual();
    });
    Ok(())
}

fn obey(client: &Client, line: &str) -> Result<(), Box<dyn Error>> {
    let mut words = line.splitn(3, ' ').chain(["", ""]);
    let (command, which, rest) = (words.next(), words.next().unwrap_or(""), words.next());
    // The client knows the connections that have not ended.
    let connection = || {
        let found = client.connections().into_iter().find(|other| other.id().to_string() == which);
        found.ok_or_else(|| format!("there is no connection {which:?}"))
    };
    match command {
        Some("connect") => println!("{}: connecting", client.connect(which)?.id()),
        Some("send") => _ = connection()?.send(rest.unwrap_or_default())?,
        Some("close") => connection()?.close(CloseCode::NORMAL, rest.unwrap_or_default())?,
        Some("show") => println!("{which}: {}", connection()?.state()),
        _ => println!("connect URI, send N TEXT, close N [REASON], show N, quit"),
    }
    Ok(())
}
