//! A client and a server, both `owned::WebSocket`, over two byte streams, with an arbitrary sequence of calls.
//!
//! Asserts, for each side:
//!
//! - No panic.
//! - At most one failure, and no event after it or after the peer's Close.
//! - Its frames are valid. It sends only pongs after its Close, and nothing after the peer's Close or a failure.
//! - `shutdown` never goes back to an earlier state.
//! - Messages arrive unchanged and in order, unless bytes were injected or lost, or a size limit is set.
//! - After both sides close, the connection ends within a bounded number of steps, in any state.
#![no_main]

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use anyloop_fuzz::wire::Reader;
use anyloop_fuzz::{START, config, toy};
use anyloop_proto::handshake::http::{Response, StatusCode};
use anyloop_proto::handshake::{Accept, ClientOptions, OriginPolicy, ServerOptions};
use anyloop_proto::owned::{Event, WebSocket};
use anyloop_proto::{CloseCode, Config, Instant, Kind, Prepared, Role, Shutdown, truncate_reason};
use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;

#[derive(Arbitrary, Debug)]
struct Case {
    extension: bool,
    client: Settings,
    server: Settings,
    calls: Vec<(Side, Call)>,
}

#[derive(Arbitrary, Debug)]
struct Settings {
    streaming: bool,
    auto_pong: bool,
    limit: Option<u16>,
    /// Milliseconds, as are the fields below.
    ping_interval: Option<u8>,
    pong_timeout: Option<u8>,
    idle_timeout: Option<u16>,
    data_idle_timeout: Option<u16>,
    close_timeout: u16,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Side {
    Client,
    Server,
}

#[derive(Arbitrary, Debug)]
enum Call {
    /// At most this many of the bytes in flight to this side arrive.
    Receive(u8),
    /// All bytes in flight to this side arrive.
    ReceiveAll,
    /// Bytes arrive that the other side has not sent.
    Noise(Vec<u8>),
    Text(String),
    Binary(Vec<u8>),
    Large(u8, u16),
    Prepared(String),
    /// Begins a message in pieces, which may never be finished.
    Begin(bool),
    Piece(u8, bool),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(u16, String),
    Accept,
    Respond(u16),
    Eof,
    /// Time passes, and the expired timers run.
    Later(u16),
    /// Time passes to the next deadline, and its timer runs.
    Timeout,
}

/// One side, and the stream to it.
struct End {
    role: Role,
    socket: WebSocket,
    /// The bytes in flight to this side.
    arriving: VecDeque<u8>,
    /// The other side has ended the stream to this side.
    ended: bool,
    eof: bool,
    reader: Reader,
    /// The part of the head of the handshake that this side has written. `None` when it is complete.
    head: Option<Vec<u8>>,
    shutdown: u8,
    finished: Option<Event>,
    sent: VecDeque<(Kind, Vec<u8>)>,
    unfinished: Option<(Kind, Vec<u8>)>,
    chunks: Vec<u8>,
}

fuzz_target!(|case: Case| {
    let mut pair = Pair::new(&case);
    for (side, call) in case.calls {
        pair.call(side, call);
    }
    pair.end();
});

struct Pair {
    client: End,
    server: End,
    now: Instant,
    /// Messages may not arrive as they were sent: bytes were injected or lost, or a size limit is set.
    noise: bool,
}

impl Settings {
    fn config(&self) -> Arc<Config> {
        let millis = |millis: Option<u64>| millis.map(Duration::from_millis);
        config(|config| {
            config.streaming = self.streaming;
            config.auto_pong = self.auto_pong;
            config.max_message_size = self.limit.map_or(config.max_message_size, u64::from);
            config.ping_interval = millis(self.ping_interval.map(u64::from));
            config.pong_timeout = millis(self.pong_timeout.map(u64::from));
            config.idle_timeout = millis(self.idle_timeout.map(u64::from));
            config.data_idle_timeout = millis(self.data_idle_timeout.map(u64::from));
            config.close_timeout = Some(Duration::from_millis(self.close_timeout.into()));
        })
    }
}

impl Pair {
    fn new(case: &Case) -> Self {
        let mut options = ServerOptions::new(OriginPolicy::Any);
        options.connection = case.server.config();
        let mut ask = ClientOptions::default();
        ask.connection = case.client.config();
        if case.extension {
            options.extensions.push(Arc::new(toy::Toy));
            ask.extensions.push(Arc::new(toy::Toy));
        }
        let target = "ws://a/".parse().expect("the target is valid");
        let client = WebSocket::client(&target, ask.into(), START).expect("valid options");
        let server = WebSocket::server(options.into(), START);
        let limited = case.client.limit.is_some() || case.server.limit.is_some();
        let mut pair = Self {
            client: End::new(Role::Client, client, case.extension),
            server: End::new(Role::Server, server, case.extension),
            now: START,
            noise: limited,
        };
        pair.handle_results();
        pair
    }

    fn call(&mut self, side: Side, call: Call) {
        let now = self.now;
        let end = match side {
            Side::Client => &mut self.client,
            Side::Server => &mut self.server,
        };
        match call {
            Call::Receive(most) => end.receive(most.into(), now),
            Call::ReceiveAll => end.receive(usize::MAX, now),
            Call::Noise(bytes) => {
                self.noise |= !bytes.is_empty();
                end.socket.receive(&bytes, now);
            }
            Call::Text(text) => end.send(Kind::Text, text.as_bytes()),
            Call::Binary(bytes) => end.send(Kind::Binary, &bytes),
            Call::Large(byte, len) => end.send(Kind::Binary, &vec![byte; len.into()]),
            Call::Prepared(text) => end.send_prepared(&text),
            Call::Begin(text) => end.begin(if text { Kind::Text } else { Kind::Binary }),
            Call::Piece(len, last) => end.piece(len, last),
            Call::Ping(payload) => {
                let fits = payload.len() <= 125;
                assert!(end.socket.ping(&payload).is_err() || fits);
            }
            Call::Pong(payload) => {
                if let Some((connection, out)) = end.socket.parts() {
                    let _ = connection.sender.pong(&payload, out);
                }
            }
            Call::Close(code, reason) => {
                let code = CloseCode::new(code).unwrap_or(CloseCode::NORMAL);
                let fits = reason.len() <= 123;
                let result = end.socket.close(code, &reason, now);
                assert!(result.is_err() || fits || end.socket.parts().is_none());
                let _ = end.socket.close(code, truncate_reason(&reason), now);
            }
            Call::Accept => _ = end.socket.accept(Accept::new(), now),
            Call::Respond(status) => {
                let mut response = Response::new(b"no".to_vec());
                *response.status_mut() =
                    StatusCode::from_u16(status).unwrap_or(StatusCode::NOT_FOUND);
                let _ = end.socket.respond(&response, now);
            }
            Call::Eof => {
                // Bytes are lost if the sender has not ended the stream, or if some are still in flight.
                self.noise |= !end.ended || !end.arriving.is_empty();
                end.eof = true;
                end.socket.receive_eof();
            }
            Call::Later(millis) => {
                self.now = now + Duration::from_millis(millis.into());
                end.socket.handle_timeout(self.now);
            }
            Call::Timeout => {
                if let Some(due) = end.socket.poll_timeout() {
                    self.now = now.max(due);
                    end.socket.handle_timeout(self.now);
                    let next = end.socket.poll_timeout();
                    assert!(
                        next.is_none_or(|next| next > self.now),
                        "the deadline has passed: {next:?}"
                    );
                }
            }
        }
        self.handle_results();
    }

    /// Handles the events and the output of the last call.
    fn handle_results(&mut self) {
        let Self { client, server, noise, .. } = self;
        client.handle_results(server, *noise);
        server.handle_results(client, *noise);
    }

    /// Closes both sides, and then only delivers bytes and runs timers, until both connections have ended.
    fn end(mut self) {
        let now = self.now;
        for end in [&mut self.client, &mut self.server] {
            let _ = end.socket.close(CloseCode::NORMAL, "", now);
        }
        self.handle_results();
        // A step may be a keep-alive timer, so many steps may precede the end.
        for _ in 0..10_000 {
            let mut idle = true;
            for end in [&mut self.client, &mut self.server] {
                if !end.arriving.is_empty() {
                    end.receive(usize::MAX, self.now);
                    idle = false;
                } else if end.ended && !end.eof {
                    end.eof = true;
                    end.socket.receive_eof();
                    idle = false;
                }
            }
            self.handle_results();
            if [&self.client, &self.server].iter().all(|end| end.shutdown >= CLOSED) {
                for end in [&self.client, &self.server] {
                    assert!(
                        end.finished.is_some() || end.socket.response().is_some() || end.http()
                    );
                }
                return;
            }
            if !idle {
                continue;
            }
            let ends = [&mut self.client, &mut self.server];
            let open = ends.into_iter().filter(|end| end.shutdown < CLOSED);
            let next = open.filter_map(|end| Some((end.socket.poll_timeout()?, end)));
            let (due, end) = next
                .min_by_key(|(due, _)| *due)
                .expect("a connection that has not ended has no deadline");
            self.now = self.now.max(due);
            end.socket.handle_timeout(self.now);
            self.handle_results();
        }
        panic!("the connections do not end: {:?} {:?}", self.client.shutdown, self.server.shutdown);
    }
}

/// At this rank of `Shutdown` and above, the socket is closed.
const CLOSED: u8 = 3;

fn rank(shutdown: Shutdown) -> u8 {
    match shutdown {
        Shutdown::None => 0,
        Shutdown::Linger => 1,
        Shutdown::HalfClose => 2,
        Shutdown::Close => 3,
        Shutdown::Abort => 4,
        other => panic!("a value of Shutdown that the target does not handle: {other:?}"),
    }
}

impl End {
    fn new(role: Role, socket: WebSocket, extension: bool) -> Self {
        Self {
            role,
            socket,
            arriving: VecDeque::new(),
            ended: false,
            eof: false,
            reader: Reader::new(role, extension),
            head: Some(Vec::new()),
            shutdown: 0,
            finished: None,
            sent: VecDeque::new(),
            unfinished: None,
            chunks: Vec::new(),
        }
    }

    fn receive(&mut self, most: usize, now: Instant) {
        let n = most.min(self.arriving.len());
        let bytes: Vec<u8> = self.arriving.drain(..n).collect();
        self.socket.receive(&bytes, now);
    }

    fn send(&mut self, kind: Kind, payload: &[u8]) {
        let sent = match (kind, str::from_utf8(payload)) {
            (Kind::Text, Ok(text)) => self.socket.send(text),
            _ => self.socket.send(payload),
        };
        if sent.is_ok() {
            assert!(self.unfinished.is_none(), "a message was accepted within another");
            self.sent.push_back((kind, payload.to_vec()));
        }
    }

    fn send_prepared(&mut self, text: &str) {
        let Some((connection, out)) = self.socket.parts() else { return };
        if connection.sender.send_prepared(&Prepared::new(text), out).is_ok() {
            assert!(self.unfinished.is_none(), "a message was accepted within another");
            self.sent.push_back((Kind::Text, text.as_bytes().to_vec()));
        }
    }

    fn begin(&mut self, kind: Kind) {
        let Some((connection, _)) = self.socket.parts() else { return };
        if connection.sender.begin(kind).is_ok() {
            assert!(self.unfinished.is_none(), "a message was accepted within another");
            self.unfinished = Some((kind, Vec::new()));
        }
    }

    fn piece(&mut self, len: u8, last: bool) {
        let Some((connection, out)) = self.socket.parts() else { return };
        let payload = vec![b'p'; len.into()];
        if connection.sender.piece(&payload, last, out).is_ok() {
            let (kind, mut message) =
                self.unfinished.take().expect("a piece was accepted outside of a message");
            message.extend(payload);
            match last {
                true => self.sent.push_back((kind, message)),
                false => self.unfinished = Some((kind, message)),
            }
        }
    }

    /// Whether this is a server that has not accepted a WebSocket request.
    fn http(&self) -> bool {
        self.role == Role::Server && self.head.is_some()
    }

    fn handle_results(&mut self, other: &mut Self, noise: bool) {
        let silent = self.finished.is_some() || self.shutdown >= CLOSED;
        while let Some(event) = self.socket.poll_event() {
            assert!(self.finished.is_none(), "{event:?} after {:?}", self.finished);
            self.see(event, other, noise);
        }
        if let Some(bytes) = self.socket.poll_output() {
            assert!(!silent, "{bytes:x?} after {:?}", self.finished);
            self.check(&bytes);
            if !self.eof_sent() {
                other.arriving.extend(bytes);
            }
        }
        let shutdown = rank(self.socket.shutdown());
        assert!(shutdown >= self.shutdown, "{:?} after a later state", self.socket.shutdown());
        self.shutdown = shutdown;
        if self.eof_sent() {
            other.ended = true;
        }
    }

    /// Whether the sending direction is shut down.
    fn eof_sent(&self) -> bool {
        self.shutdown >= 2
    }

    fn see(&mut self, event: Event, other: &mut Self, noise: bool) {
        let message = match event {
            Event::Binary(bytes) => (Kind::Binary, bytes),
            Event::Text(text) => (Kind::Text, text.into_bytes()),
            Event::Chunk { kind, payload, first, last } => {
                assert!(!first || self.chunks.is_empty());
                self.chunks.extend(payload);
                if !last {
                    return;
                }
                (kind, std::mem::take(&mut self.chunks))
            }
            Event::Close(_) | Event::Failed(_) => {
                self.finished = Some(event);
                return;
            }
            _ => return,
        };
        if !noise {
            assert_eq!(
                Some(message),
                other.sent.pop_front(),
                "messages arrive unchanged and in order"
            );
        }
    }

    /// Checks the output: a head, and frames after it if the head opens a connection.
    fn check(&mut self, bytes: &[u8]) {
        let Some(head) = &mut self.head else {
            self.reader.read(bytes);
            return;
        };
        head.extend_from_slice(bytes);
        let Some(end) = head.windows(4).position(|window| window == b"\r\n\r\n") else {
            assert!(head.is_empty(), "a head was written in parts");
            return;
        };
        if head.starts_with(b"HTTP/1.1 100") {
            head.drain(..end + 4);
        } else if head.starts_with(b"GET ") || head.starts_with(b"HTTP/1.1 101") {
            let rest = head.split_off(end + 4);
            self.head = None;
            self.reader.read(&rest);
        }
    }
}
