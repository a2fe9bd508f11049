//! One loop, made by the program, for a WebSocket server, a plain TCP echo server with sockets of the program's own,
//! and a timer: WebSocket++'s `external_io_service`.
//!
//! ```text
//! cargo run --example net_shared_loop -- 127.0.0.1:9002 127.0.0.1:9003
//! ```

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::{error::Error, ops::ControlFlow, time::Duration};

use anyloop::{event_loop::WatchMode, net::Server, prelude::*};

fn main() -> Result<(), Box<dyn Error>> {
    let mut words = std::env::args().skip(1);
    let address = words.next().unwrap_or_else(|| "127.0.0.1:9002".to_string());
    let tcp_address = words.next().unwrap_or_else(|| "127.0.0.1:9003".to_string());
    let event_loop = EventLoop::new()?;

    let mut server = Server::on(&event_loop, ServerConfig::new(OriginPolicy::Any));
    server.on_message(|message, context| _ = context.send(message));
    println!("listening on ws://{}", server.listen(address.as_str())?);
    server.start_accept()?;

    let listener = TcpListener::bind(tcp_address)?;
    listener.set_nonblocking(true)?;
    println!("listening on tcp://{}", listener.local_addr()?);
    let inside = event_loop.clone();
    event_loop.watch(listener, WatchMode::Read, move |listener, _| {
        let watched = listener.accept().and_then(|(stream, _)| {
            stream.set_nonblocking(true)?;
            inside.watch(stream, WatchMode::Read, |stream, _| echo(stream))
        });
        if let Err(error) = watched {
            eprintln!("cannot serve a connection: {error}");
        }
        ControlFlow::Continue(())
    })?;

    let clients = server.handle();
    event_loop.every(Duration::from_secs(1), move || {
        println!("{} WebSockets so far", clients.counters().opened);
    });
    event_loop.run();
    Ok(())
}

/// Returns the bytes that arrived. `Break` ends the watch, and closes the socket.
fn echo(stream: &mut TcpStream) -> ControlFlow<()> {
    let mut bytes = [0; 4096];
    match stream.read(&mut bytes) {
        Ok(n) if n > 0 && stream.write_all(&bytes[..n]).is_ok() => ControlFlow::Continue(()),
        Err(error) if error.kind() == ErrorKind::WouldBlock => ControlFlow::Continue(()),
        _ => ControlFlow::Break(()), // a real server would keep what the socket does not take
    }
}
