//! Both ends of a connection in one program, over a pair of non-blocking Unix sockets. One thread carries
//! the bytes of both ends in turn, as a program's own loop would.

use std::{error::Error, os::unix::net::UnixStream, thread};

use anyloop::iostream::{Client, Connection, Server};
use anyloop::prelude::*;

fn main() -> Result<(), Box<dyn Error>> {
    let (server_end, client_end) = UnixStream::pair()?;

    let mut server = Server::new(ServerConfig::new(OriginPolicy::Any));
    server.on_message(|message, context| {
        _ = context.send(message); // refused if the connection is closing
    });
    let mut client = Client::new(ClientConfig::new());
    client.on_open(|context| {
        for n in 1..=3 {
            _ = context.send(format!("message {n}").as_str()); // cannot fail in `open`
        }
    });
    client.on_message(|message, context| {
        let text = String::from_utf8_lossy(message.as_bytes());
        println!("{text} came back");
        if text == "message 3" {
            _ = context.close(CloseCode::NORMAL, "that was all");
        }
    });
    client.on_close(|ending, _| println!("closed cleanly: {}", ending.clean));

    let server = attach(server.connection(), server_end)?;
    let client = attach(client.connection("ws://localhost/")?, client_end)?;
    client.0.start()?;
    while !(server.0.has_ended() && client.0.has_ended()) {
        turn(&server)?;
        turn(&client)?;
        // A real loop would sleep until a socket is ready or a timeout is due.
        thread::yield_now();
    }
    Ok(())
}

type Carried<H> = (Connection<H>, UnixStream);

/// Lets the connection write to the socket.
fn attach<H: Handler>(
    connection: Connection<H>,
    socket: UnixStream,
) -> Result<Carried<H>, Box<dyn Error>> {
    socket.set_nonblocking(true)?;
    connection.register_output(socket.try_clone()?);
    let other = socket.try_clone()?;
    connection.set_shutdown_handler(move |_| {
        // For either kind only writing ends, so that the peer can read what was written before.
        _ = other.shutdown(std::net::Shutdown::Write);
    });
    Ok((connection, socket))
}

/// Reads available bytes, writes waiting output, and handles a due timeout.
fn turn<H: Handler>((connection, socket): &Carried<H>) -> Result<(), Box<dyn Error>> {
    if !connection.has_ended() {
        connection.read_from(&mut &*socket)?;
        connection.drive()?;
        connection.handle_timeout()?;
    }
    Ok(())
}
