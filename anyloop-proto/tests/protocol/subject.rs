//! One connection under test. Its events and failures are recorded in owned form.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyloop_proto::extension::Contexts;
use anyloop_proto::{
    BufferPool, CloseCode, Config, Connection, Event, Failure, Input, Instant, Kind, Message,
    Output, Random, Refused, Role, SendQueue, State, Timer, TransportError,
};
use anyloop_testkit::frames::{self, Frame, other};

/// A deterministic random source: each four bytes are the next number, so masking keys differ.
#[derive(Default)]
pub(crate) struct Counter(AtomicU32);

impl Random for Counter {
    fn fill(&self, bytes: &mut [u8]) {
        for part in bytes.chunks_mut(4) {
            let number = self.0.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
            part.copy_from_slice(&number.to_be_bytes()[..part.len()]);
        }
    }
}

/// The default settings, modified by `change`.
pub(crate) fn config(change: impl FnOnce(&mut Config)) -> Arc<Config> {
    let mut config = Config::new(Arc::new(Counter::default()));
    change(&mut config);
    Arc::new(config)
}

pub(crate) const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// An event in owned form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    Text(String),
    Binary(Vec<u8>),
    Chunk { kind: Kind, payload: Vec<u8>, first: bool, last: bool },
    Ping(Vec<u8>),
    Pong(Vec<u8>, Option<Duration>),
    Close(Option<u16>, String),
}

impl Seen {
    pub(crate) fn text(text: &str) -> Self {
        Self::Text(text.into())
    }

    pub(crate) fn binary(bytes: impl AsRef<[u8]>) -> Self {
        Self::Binary(bytes.as_ref().to_vec())
    }

    pub(crate) fn ping(payload: impl AsRef<[u8]>) -> Self {
        Self::Ping(payload.as_ref().to_vec())
    }

    /// A pong that does not answer a keep-alive ping.
    pub(crate) fn pong(payload: impl AsRef<[u8]>) -> Self {
        Self::Pong(payload.as_ref().to_vec(), None)
    }

    pub(crate) fn close(code: u16, reason: &str) -> Self {
        Self::Close(Some(code), reason.into())
    }
}

impl From<&Event<'_>> for Seen {
    fn from(event: &Event<'_>) -> Self {
        match event {
            Event::Message(Message::Text(text)) => {
                assert_eq!(text.as_str().as_bytes(), text.as_bytes());
                Self::text(text.as_str())
            }
            Event::Message(Message::Binary(bytes)) => Self::binary(bytes),
            Event::Chunk(chunk) => Self::Chunk {
                kind: chunk.kind,
                payload: chunk.payload.to_vec(),
                first: chunk.first,
                last: chunk.last,
            },
            Event::Ping(payload) => Self::ping(payload),
            Event::Pong { payload, round_trip } => Self::Pong(payload.to_vec(), *round_trip),
            Event::Close(frame) => {
                Self::Close(frame.code.map(CloseCode::get), frame.reason.to_owned())
            }
            event => panic!("an event that the tests do not handle: {event:?}"),
        }
    }
}

/// The output of the connection under test: a buffer, and contexts for encoders. A test can set it to
/// report that it is blocked, and to accept vectored and shared writes.
#[derive(Default)]
pub(crate) struct Sink {
    pub(crate) buffer: Vec<u8>,
    pub(crate) blocked: bool,
    pub(crate) by_reference: bool,
    /// The number of vectored writes, and of shared writes.
    pub(crate) vectored: usize,
    pub(crate) shared: usize,
    pub(crate) contexts: Contexts,
}

impl Output for Sink {
    fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.buffer
    }

    fn parts(&mut self) -> (&mut Vec<u8>, Option<&mut Contexts>) {
        (&mut self.buffer, Some(&mut self.contexts))
    }

    fn write_vectored(&mut self, header: &[u8], payload: &[u8]) -> bool {
        if self.by_reference {
            self.vectored += 1;
            self.buffer.extend_from_slice(header);
            self.buffer.extend_from_slice(payload);
        }
        self.by_reference
    }

    fn write_shared(&mut self, frame: &Arc<[u8]>) -> bool {
        if self.by_reference {
            self.shared += 1;
            self.buffer.extend_from_slice(frame);
        }
        self.by_reference
    }

    fn is_blocked(&self) -> bool {
        self.blocked
    }
}

/// How received bytes are passed to the connection.
pub(crate) enum Reading {
    /// As slices; partial messages are collected in newly allocated memory.
    Plain,
    /// As slices; partial messages are collected in memory from a pool.
    Pooled(BufferPool),
    /// Directly into the memory of the message where the connection lends it, otherwise as `Pooled`.
    InPlace(BufferPool),
}

pub(crate) struct Subject {
    pub(crate) connection: Connection,
    pub(crate) now: Instant,
    pub(crate) out: Sink,
    pub(crate) reading: Reading,
    /// Send each message back while its event is borrowed.
    pub(crate) echo: bool,
    pub(crate) events: Vec<Seen>,
    pub(crate) failures: Vec<Failure>,
    /// Bytes that the connection has not consumed.
    pub(crate) left: Vec<u8>,
}

impl Subject {
    pub(crate) fn new(role: Role, config: Arc<Config>) -> Self {
        let now = Instant::from_nanos(1_000_000_000);
        Self::over(Connection::new(role, config, now), now)
    }

    /// Wraps a connection that was created at `now`.
    pub(crate) fn over(connection: Connection, now: Instant) -> Self {
        Self {
            connection,
            now,
            out: Sink::default(),
            reading: Reading::Plain,
            echo: false,
            events: Vec::new(),
            failures: Vec::new(),
            left: Vec::new(),
        }
    }

    pub(crate) fn server() -> Self {
        Self::new(Role::Server, config(|_| ()))
    }

    pub(crate) fn client() -> Self {
        Self::new(Role::Client, config(|_| ()))
    }

    pub(crate) fn role(&self) -> Role {
        self.connection.role()
    }

    pub(crate) fn state(&self) -> State {
        self.connection.state()
    }

    /// Receives `bytes` in one call.
    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        let mut bytes = bytes.to_vec();
        let mut rest = &mut bytes[..];
        while matches!(self.reading, Reading::InPlace(_)) && !rest.is_empty() {
            let Some(memory) = self.connection.receiver.receive_buffer() else { break };
            let n = memory.len().min(rest.len());
            memory[..n].copy_from_slice(&rest[..n]);
            self.connection.receiver.filled(n);
            rest = &mut rest[n..];
            self.drain(&mut []);
        }
        self.drain(rest);
    }

    /// Receives `bytes`, and records events until there are no more.
    fn drain(&mut self, bytes: &mut [u8]) {
        let Self { connection: Connection { receiver, sender }, now, out, .. } = self;
        let mut input = match &mut self.reading {
            Reading::Plain => Input::new(bytes),
            Reading::Pooled(pool) | Reading::InPlace(pool) => Input::with_pool(bytes, pool),
        };
        loop {
            match receiver.next(sender, &mut input, *now, out) {
                Ok(Some(event)) => {
                    self.events.push(Seen::from(&event));
                    if let (true, Event::Message(message)) = (self.echo, event) {
                        let _ = sender.send(message, out); // fails after a Close
                    }
                }
                Ok(None) => break,
                Err(failure) => {
                    self.failures.push(failure);
                    break;
                }
            }
        }
        self.left.extend_from_slice(input.rest());
    }

    pub(crate) fn feed_byte_by_byte(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.feed(&[*byte]);
        }
    }

    /// Receives frames from the other side, in one call.
    pub(crate) fn receive(&mut self, frames: &[Frame]) {
        self.feed(&frames::stream(frames, other(self.role())));
    }

    pub(crate) fn eof(&mut self) {
        self.failures.extend(self.connection.handle_eof().err());
    }

    pub(crate) fn reset(&mut self) {
        self.failures.extend(self.connection.handle_error(TransportError::Reset).err());
    }

    pub(crate) fn writable(&mut self) {
        self.connection.handle_writable(self.now, &mut self.out);
    }

    pub(crate) fn send<'m>(&mut self, message: impl Into<Message<'m>>) -> Result<(), Refused> {
        self.connection.sender.send(message, &mut self.out)
    }

    pub(crate) fn close(&mut self, code: u16, reason: &str) -> Result<(), Refused> {
        let code = CloseCode::new(code).expect("the code may be sent");
        self.connection.sender.close(code, reason, self.now, &mut self.out)
    }

    /// Sets the clock to `at` seconds after the connection was created, and runs the expired timers.
    pub(crate) fn at(&mut self, at: f64) -> Vec<Timer> {
        self.now = Instant::from_nanos(1_000_000_000) + Duration::from_secs_f64(at);
        self.serve_timers()
    }

    /// The same, with this output of the transport.
    pub(crate) fn at_with(&mut self, at: f64, acknowledged: u64, waiting: usize) -> Vec<Timer> {
        self.now = Instant::from_nanos(1_000_000_000) + Duration::from_secs_f64(at);
        let queue = SendQueue { acknowledged, waiting };
        self.connection.note_send_queue(|| Some(queue), self.now);
        self.serve_timers()
    }

    /// Advances the clock without running timers.
    pub(crate) fn pass(&mut self, time: Duration) {
        self.now = self.now + time;
    }

    /// Runs the timers that have expired. Returns which.
    pub(crate) fn serve_timers(&mut self) -> Vec<Timer> {
        let mut served = Vec::new();
        loop {
            match self.connection.handle_timeout(self.now, &mut self.out) {
                Ok(Some(timer)) => served.push(timer),
                Ok(None) => return served,
                Err(failure) => self.failures.push(failure),
            }
            assert!(
                served.len() + self.failures.len() < 100,
                "a timer expires again at the same time"
            );
        }
    }

    /// The next deadline, in seconds after the connection was created.
    pub(crate) fn due(&self) -> Option<f64> {
        let due = self.connection.poll_timeout()?;
        Some((due - Instant::from_nanos(1_000_000_000)).as_secs_f64())
    }

    /// The frames sent since the last call. Panics if the last one is not complete.
    pub(crate) fn sent(&mut self) -> Vec<Frame> {
        let bytes = std::mem::take(&mut self.out.buffer);
        let (frames, rest) = frames::read(&bytes, self.role());
        assert!(rest.is_empty(), "the last frame is not complete: {rest:x?}");
        frames
    }

    /// The events since the last call.
    pub(crate) fn seen(&mut self) -> Vec<Seen> {
        std::mem::take(&mut self.events)
    }

    /// The failure. Panics unless there is exactly one.
    pub(crate) fn failure(&self) -> Failure {
        assert_eq!(self.failures.len(), 1, "exactly one failure: {:?}", self.failures);
        self.failures[0]
    }
}
