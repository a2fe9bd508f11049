//! The opening handshake of a server in memory: a request arrives, and the response is written.

use std::hint::black_box;
use std::io::{self, Read, Write};
use std::sync::Arc;

use anyloop_proto::handshake::{Accept, Incoming, OriginPolicy, ServerHandshake, ServerOptions};
use anyloop_proto::{Input, Instant};

pub(crate) struct Opening {
    pub(crate) name: &'static str,
    pub(crate) request: &'static [u8],
}

pub(crate) const OPENINGS: &[Opening] = &[
    Opening {
        name: "opening",
        request: b"GET / HTTP/1.1\r\nHost: 127.0.0.1:9002\r\nUpgrade: websocket\r\n\
            Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
            Sec-WebSocket-Version: 13\r\n\r\n",
    },
    Opening {
        name: "opening-browser",
        request: b"GET /chat?room=1 HTTP/1.1\r\nHost: server.example.com\r\n\
            Connection: Upgrade\r\nPragma: no-cache\r\nCache-Control: no-cache\r\n\
            User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) \
            Chrome/138.0.0.0 Safari/537.36\r\nUpgrade: websocket\r\n\
            Origin: https://www.example.com\r\nSec-WebSocket-Version: 13\r\n\
            Accept-Encoding: gzip, deflate, br, zstd\r\nAccept-Language: en-US,en;q=0.9,de;q=0.8\r\n\
            Cookie: session=9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08\r\n\
            Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
            Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\r\n",
    },
];

/// A codec that accepts a request a number of times.
pub(crate) struct Acceptor {
    pub(crate) name: &'static str,
    pub(crate) run: fn(&[u8], usize),
}

pub(crate) const ACCEPTORS: &[Acceptor] = &[
    Acceptor { name: "anyloop", run: anyloop },
    Acceptor { name: "tungstenite", run: tungstenite },
];

fn anyloop(request: &[u8], times: usize) {
    let now = Instant::from_nanos(1);
    let options = Arc::new(ServerOptions::new(OriginPolicy::Any));
    let (mut bytes, mut out) = (Vec::new(), Vec::with_capacity(4096));
    for _ in 0..times {
        bytes.clear();
        bytes.extend_from_slice(request);
        out.clear();
        let mut handshake = ServerHandshake::new(options.clone(), now);
        let incoming = handshake.next(&mut Input::new(&mut bytes), now, &mut out);
        assert!(matches!(incoming, Ok(Some(Incoming::Upgrade(_)))));
        black_box(handshake.accept(Accept::new(), now, &mut out).map(drop)).unwrap_or_default();
        check(&out);
    }
}

/// A socket in memory that has one request and collects the response.
struct Stream<'r> {
    request: &'r [u8],
    response: &'r mut Vec<u8>,
}

impl Read for Stream<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.request.read(buffer)
    }
}

impl Write for Stream<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.response.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn tungstenite(request: &[u8], times: usize) {
    let mut out = Vec::with_capacity(4096);
    for _ in 0..times {
        out.clear();
        let stream = Stream { request, response: &mut out };
        black_box(tungstenite::accept(stream).is_ok());
        check(&out);
    }
}

fn check(response: &[u8]) {
    assert!(response.starts_with(b"HTTP/1.1 101 "), "{}", response.escape_ascii());
    black_box(response);
}
