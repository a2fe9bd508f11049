//! An echo server that two threads run. Ctrl-C or SIGTERM closes its connections with 1001, and ends those that have
//! not closed after a few seconds.
//!
//! ```text
//! cargo run --example ctrl_c -- 127.0.0.1:9002 [SECONDS]
//! ```

use std::{io::Read, os::unix::net::UnixStream, thread, time::Duration};

use anyloop::net::Server;
use anyloop::prelude::*;
use signal_hook::{consts::SIGINT, consts::SIGTERM, low_level::pipe};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut words = std::env::args().skip(1);
    let address = words.next().unwrap_or_else(|| "127.0.0.1:9002".to_string());
    let patience = Duration::from_secs(words.next().map_or(Ok(5), |word| word.parse())?);

    let mut server = Server::new(ServerConfig::new(OriginPolicy::Any))?;
    server.on_message(|message, context| _ = context.send(message));
    server.on_close(|ending, _| println!("closed cleanly: {}", ending.clean));

    // A signal handler may do almost nothing: this one writes a byte, which the main thread waits for.
    let (mut signals, sender) = UnixStream::pair()?;
    pipe::register(SIGINT, sender.try_clone()?)?;
    pipe::register(SIGTERM, sender)?; // from systemd, or a container's engine
    println!("listening on ws://{}", server.listen(address.as_str())?);
    server.start_accept()?;

    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| server.run()); // until the server is shut down and no connection is left
        }
        let result = signals.read_exact(&mut [0]);
        println!("shutting down");
        server.shut_down_within(patience);
        result
    })?;
    println!("{} connections in all", server.counters().closed);
    Ok(())
}
