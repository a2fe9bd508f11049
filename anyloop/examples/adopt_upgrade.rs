//! A program with sockets and an HTTP server of its own, which gives WebSocket requests to Anyloop: everything else
//! is answered here, and the server listens on nothing.
//!
//! ```text
//! cargo run --example adopt_upgrade -- 127.0.0.1:9002
//! ```

use std::{
    error::Error,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
};
use std::{thread, time::Duration};

use anyloop::prelude::*;
use anyloop::{http, net::Server};

fn main() -> Result<(), Box<dyn Error>> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:9002".to_string());
    let mut server = Server::new(ServerConfig::new(OriginPolicy::Any))?;
    server.on_open(|context| println!("{} connected", context.remote_endpoint()));
    server.on_message(|message, context| _ = context.send(message));
    server.start_perpetual(); // it has no listener that would keep `run` waiting

    let listener = TcpListener::bind(address)?;
    println!("listening on ws://{}", listener.local_addr()?);
    thread::scope(|scope| {
        scope.spawn(|| server.run());
        for stream in listener.incoming() {
            // A real server reads many requests at a time. This one gives each client a second.
            if let Err(error) = stream.map_err(Into::into).and_then(|stream| serve(&server, stream))
            {
                eprintln!("{error}");
            }
        }
    });
    Ok(())
}

/// Reads a request, and answers it or gives it away.
fn serve(server: &Server, mut stream: TcpStream) -> Result<(), Box<dyn Error>> {
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    let (mut received, mut block) = (Vec::new(), [0; 4096]);
    let end = loop {
        if let Some(end) = received.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            break end + 4;
        }
        match stream.read(&mut block)? {
            0 => return Err("the client has left".into()),
            n => received.extend_from_slice(&block[..n]),
        }
    };
    let request = parse(std::str::from_utf8(&received[..end])?)?;
    if request.headers().contains_key(http::header::UPGRADE) {
        // What came behind the head belongs to the WebSocket. Anyloop makes the socket non-blocking, and writes the
        // answer, a 101 or a refusal. A program that has only bytes calls `server.adopt(stream, &received)`.
        server.upgrade(stream, &request, &received[end..])?;
    } else {
        let body = format!("you asked for {}\n", request.uri().path());
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n", body.len())?;
        write!(stream, "Connection: close\r\n\r\n{body}")?;
    }
    Ok(())
}

/// Parses a head. A real server has this from its HTTP library.
fn parse(head: &str) -> Result<http::Request<()>, Box<dyn Error>> {
    let mut lines = head.trim_end().split("\r\n");
    let mut words = lines.next().unwrap_or_default().split(' ');
    let (method, uri) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let mut request = http::Request::builder().method(method).uri(uri);
    for line in lines {
        let (name, value) = line.split_once(':').ok_or("a header field has no colon")?;
        request = request.header(name, value.trim());
    }
    Ok(request.body(())?)
}
