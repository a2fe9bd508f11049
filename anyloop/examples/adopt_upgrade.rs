//! A program with a mio loop, sockets and an HTTP server of its own, which gives WebSocket requests to Anyloop, and
//! answers the others. mio watches the descriptor of Anyloop's loop, so one thread runs both.
//!
//! ```text
//! cargo run --example adopt_upgrade -- 127.0.0.1:9002
//! ```

use std::io::{ErrorKind, Read, Write};
use std::{collections::HashMap, error::Error, os::fd::AsRawFd};

use anyloop::{http, net::Server, prelude::*};
use mio::{Events, Interest, Poll, Registry, Token, net, unix::SourceFd};

const LISTENER: Token = Token(0);
const ANYLOOP: Token = Token(1);

/// A client that sends a longer head is not served.
const MAX_HEAD: usize = 16 << 10;

fn main() -> Result<(), Box<dyn Error>> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:9002".to_string());
    let mut server = Server::new(ServerConfig::new(OriginPolicy::Any))?;
    server.on_open(|context| println!("{} connected", context.remote_endpoint()));
    server.on_message(|message, context| _ = context.send(message));
    server.start_perpetual(); // it has no listener that would keep its loop from stopping

    let mut listener = net::TcpListener::bind(address.parse()?)?;
    println!("listening on ws://{}", listener.local_addr()?);
    let (mut mio, mut events) = (Poll::new()?, Events::with_capacity(256));
    mio.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    let descriptor = server.event_loop().as_raw_fd();
    mio.registry().register(&mut SourceFd(&descriptor), ANYLOOP, Interest::READABLE)?;

    // Those whose request has not arrived completely. A real server would limit their number and time.
    let mut clients = HashMap::new();
    let mut tokens = (2..).map(Token);
    loop {
        match mio.poll(&mut events, server.event_loop().next_timeout()) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            result => result?,
        }
        for event in &events {
            if event.token() == LISTENER {
                // mio reports edges: accept until there is nobody left.
                while let (Ok((mut stream, _)), Some(token)) = (listener.accept(), tokens.next()) {
                    mio.registry().register(&mut stream, token, Interest::READABLE)?;
                    clients.insert(token, (stream, Vec::new()));
                }
            } else if let Some(client) = clients.remove(&event.token()) {
                match serve(&server, mio.registry(), client) {
                    Ok(None) => {}
                    Ok(Some(client)) => _ = clients.insert(event.token(), client),
                    Err(error) => eprintln!("{error}"),
                }
            }
        }
        server.poll(); // Anyloop's sockets and timers
    }
}

/// A socket, and what was read from it.
type Client = (net::TcpStream, Vec<u8>);

/// Answers a request, or gives it away. Returns the client if its request is not complete yet.
fn serve(
    server: &Server,
    registry: &Registry,
    (mut stream, mut received): Client,
) -> Result<Option<Client>, Box<dyn Error>> {
    let room = MAX_HEAD - received.len();
    let read = (&stream).take(room as u64).read_to_end(&mut received); // until it would block
    let mut fields = [httparse::EMPTY_HEADER; 64];
    let mut head = httparse::Request::new(&mut fields);
    let httparse::Status::Complete(length) = head.parse(&received)? else {
        return match read {
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(Some((stream, received))),
            Err(error) => Err(error.into()),
            Ok(_) => Err("a client has left, or its request is too long".into()),
        };
    };
    registry.deregister(&mut stream)?;
    let (method, path) = (head.method.unwrap_or_default(), head.path.unwrap_or_default());
    if head.headers.iter().any(|field| field.name.eq_ignore_ascii_case("upgrade")) {
        let mut request = http::Request::builder().method(method).uri(path);
        for field in head.headers.iter() {
            request = request.header(field.name, field.value);
        }
        // Anyloop writes the answer, a 101 or a refusal. What came behind the head belongs to the WebSocket. A program
        // that has not parsed the request calls `server.adopt(stream, &received)`.
        server.upgrade(
            std::net::TcpStream::from(stream),
            &request.body(())?,
            &received[length..],
        )?;
    } else {
        let body = format!("you asked for {path}\n");
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n", body.len())?;
        write!(stream, "Connection: close\r\n\r\n{body}")?;
    }
    Ok(None)
}
