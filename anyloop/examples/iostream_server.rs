//! An echo server over iostream, on the program's own sockets, with one thread for each connection.
//!
//! ```text
//! iostream_server [ADDRESS:PORT]     127.0.0.1:9002 by default; port 0 picks a free one
//! ```

#[path = "iostream/socket.rs"]
mod socket;

use std::{net::TcpListener, process::ExitCode, thread, time::Duration};

use anyloop::iostream::Server;
use anyloop::prelude::*;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let address = match &words[..] {
        [] => "127.0.0.1:9002",
        [address] if !address.starts_with('-') => address,
        _ => {
            eprintln!("usage: iostream_server [ADDRESS:PORT]");
            return ExitCode::from(2);
        }
    };
    let listener = match TcpListener::bind(address).and_then(|l| Ok((l.local_addr()?, l))) {
        Ok((address, listener)) => {
            println!("listening on ws://{address}");
            listener
        }
        Err(error) => {
            eprintln!("cannot listen on {address}: {error}");
            return ExitCode::FAILURE;
        }
    };

    // An echo server has no secrets, so pages of every site may use it.
    let config = ServerConfig::new(OriginPolicy::Any).max_message_size(32 << 20);
    #[cfg(feature = "deflate")]
    let config = config.deflate(Deflate::pooled());
    let mut server = Server::new(config);
    server.on_message(|message, context| {
        _ = context.send(message); // refused if the connection is closing
    });

    loop {
        match listener.accept() {
            Ok((stream, peer)) => {
                let connection = server.connection();
                connection.set_remote_endpoint(peer.to_string());
                let serve = move || {
                    if let Err(error) = socket::carry(&stream, &connection) {
                        eprintln!("{peer}: {error}");
                    }
                };
                if let Err(error) = thread::Builder::new().spawn(serve) {
                    back_off(&error);
                }
            }
            Err(error) => back_off(&error),
        }
    }
}

/// Reports an error, and pauses. Descriptors or threads have probably run out until connections end.
fn back_off(error: &std::io::Error) {
    eprintln!("cannot accept: {error}");
    thread::sleep(Duration::from_millis(100));
}
