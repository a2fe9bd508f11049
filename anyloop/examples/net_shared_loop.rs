//! One loop for a WebSocket server, a client, a timer of the program, and a plain TCP echo server.

mod net_demo;

use std::error::Error;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::ops::ControlFlow;
use std::time::Duration;

use anyloop::EventLoop;
use anyloop::event_loop::WatchMode;

fn main() -> Result<(), Box<dyn Error>> {
    let event_loop = EventLoop::new()?;

    let server = net_demo::echo_server(&event_loop);
    let address = server.listen("127.0.0.1:0")?;
    server.start_accept()?;
    let client = net_demo::hello_client(&event_loop, "WebSocket");
    client.connect(format!("ws://{address}/").as_str())?;

    // A TCP server with its own sockets.
    let listener = TcpListener::bind("127.0.0.1:0")?;
    listener.set_nonblocking(true)?;
    let mut tcp_client = TcpStream::connect(listener.local_addr()?)?;
    let inside = event_loop.clone();
    event_loop.watch(listener, WatchMode::Read, move |listener, _| {
        if let Ok((stream, _)) = listener.accept() {
            let watched = stream
                .set_nonblocking(true)
                .and_then(|()| inside.watch(stream, WatchMode::Read, |stream, _| echo(stream)));
            if let Err(error) = watched {
                eprintln!("cannot serve the connection: {error}");
            }
        }
        ControlFlow::Break(()) // one connection is enough here
    })?;
    tcp_client.write_all(b"hello")?;
    event_loop.watch(tcp_client, WatchMode::Read, |tcp_client, _| {
        let mut answer = [0; 5];
        if tcp_client.read_exact(&mut answer).is_ok() {
            println!("TCP: {}", String::from_utf8_lossy(&answer));
        }
        ControlFlow::Break(())
    })?;

    event_loop.set_timer(Duration::from_millis(10), || println!("timer: ten milliseconds"));

    while event_loop.run_one() > 0 {
        if server.counters().closed == 1 {
            server.stop_listening();
        }
    }
    Ok(())
}

/// Returns the bytes that arrived, and ends when the peer ends its direction.
fn echo(stream: &mut TcpStream) -> ControlFlow<()> {
    let mut bytes = [0; 4096];
    match stream.read(&mut bytes) {
        Ok(0) => ControlFlow::Break(()),
        Ok(n) => match stream.write_all(&bytes[..n]) {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        },
        Err(error) if error.kind() == ErrorKind::WouldBlock => ControlFlow::Continue(()),
        Err(_) => ControlFlow::Break(()),
    }
}
