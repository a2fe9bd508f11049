//! Sessions and their drivers from inside: bounded calls, unread input, the registry.

mod budget;
mod deadlines;
mod registry;
mod size;
mod trimming;
mod unread;

use std::io::{self, ErrorKind, IoSlice};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyloop_proto::handshake::{OriginPolicy, Request};
use anyloop_proto::{
    Chunk, Ending, Failure, Instant, Kind, Message, Random, Shutdown, TransportError,
};

use super::{Key, Session};
use crate::endpoint::{Answer, ClientConfig, Context, Handler, HandlerFactory, ServerConfig};
use crate::stream::{Budget, Buffers, Driver, Transport};
use crate::transport::{Client, Server};

const REQUEST: &str = "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

/// The response to the nonce that consists of zeros.
const RESPONSE: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Accept: ICX+Yqv66kxgM0FcWaLWlFLwTAI=\r\n\r\n";

/// A Close with 1000 from a client.
const CLOSE: &[u8] = b"\x88\x82\0\0\0\0\x03\xe8";

/// A text message of one byte from a client.
const fn text(byte: u8) -> [u8; 7] {
    [0x81, 0x81, 0, 0, 0, 0, byte]
}

/// One text message from a client for each byte.
fn texts(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().flat_map(|&byte| text(byte)).collect()
}

struct Zeros;

impl Random for Zeros {
    fn fill(&self, bytes: &mut [u8]) {
        bytes.fill(0);
    }
}

/// A transport in memory.
#[derive(Default)]
struct Memory {
    written: Vec<u8>,
    /// The number of bytes in `written` above which writes take nothing; 0 is no bound.
    window: usize,
    breaks: bool,
    panics: bool,
    shutdowns: Vec<Shutdown>,
    now: Option<Instant>,
}

#[derive(Debug, thiserror::Error)]
#[error("on purpose, number {0}")]
struct Broken(u32);

impl Transport for Memory {
    fn write(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        assert!(!std::mem::take(&mut self.panics), "on purpose");
        if self.breaks {
            return Err(io::Error::new(ErrorKind::ConnectionReset, Broken(7)));
        }
        let before = self.written.len();
        for slice in slices {
            let free = match self.window {
                0 => usize::MAX,
                window => window.saturating_sub(self.written.len()),
            };
            self.written.extend_from_slice(&slice[..slice.len().min(free)]);
        }
        Ok(self.written.len() - before)
    }

    fn shutdown(&mut self, how: Shutdown) -> io::Result<()> {
        self.shutdowns.push(how);
        Ok(())
    }

    fn now(&self) -> Option<Instant> {
        self.now
    }
}

/// The events, in order. Clones share them.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    fn push(&self, what: impl Into<String>) {
        self.0.lock().unwrap().push(what.into());
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }

    fn len(&self) -> usize {
        self.0.lock().unwrap().len()
    }
}

/// A handler that records its events, and runs the commands that some messages contain.
#[derive(Clone)]
struct Recorder {
    log: Log,
    stop: Arc<AtomicBool>,
    defers: bool,
}

impl Recorder {
    fn new() -> Self {
        Self { log: Log::default(), stop: Arc::new(AtomicBool::new(false)), defers: false }
    }

    /// Records how many bytes are buffered: by the context, and by a handle.
    fn log_buffered(&self, context: &mut Context<'_, Self>) {
        let (amount, handle) = (context.buffered_amount(), context.handle());
        self.log.push(format!("{amount} {}", handle.buffered_amount()));
    }
}

impl HandlerFactory for Recorder {
    type Handler = Self;

    fn make(&self) -> Self {
        self.clone()
    }
}

impl Handler for Recorder {
    fn validate(&mut self, _: &Request, _: &mut Context<'_, Self>) -> Answer {
        self.log.push("validate");
        if self.defers { Answer::Defer } else { Answer::accept() }
    }

    fn http(&mut self, _: &Request, _: &mut Context<'_, Self>) -> Answer {
        self.log.push("http");
        Answer::upgrade_required()
    }

    fn open(&mut self, _: &mut Context<'_, Self>) {
        self.log.push("open");
    }

    fn message(&mut self, message: Message<'_>, context: &mut Context<'_, Self>) {
        match message.as_bytes() {
            [byte] => self.log.push(char::from(*byte)),
            other => self.log.push(format!("{} bytes", other.len())),
        }
        match message.as_bytes() {
            b"B" => context.begin(Kind::Text).unwrap(),
            b"H" => self.log_buffered(context),
            b"P" => context.pause_reading(),
            b"T" => _ = context.set_timer(Duration::from_secs(1), |_, _| ()),
            b"S" => self.stop.store(true, Ordering::Release),
            b"!" => panic!("on purpose"),
            _ => {}
        }
    }

    fn chunk(&mut self, chunk: Chunk<'_>, _: &mut Context<'_, Self>) {
        self.log.push(format!("chunk of {}", chunk.payload.len()));
    }

    fn ping(&mut self, _: &[u8], _: &mut Context<'_, Self>) -> bool {
        self.log.push("ping");
        true
    }

    fn pong(&mut self, _: &[u8], _: Option<Duration>, _: &mut Context<'_, Self>) {
        self.log.push("pong");
    }

    fn pong_timeout(&mut self, _: &mut Context<'_, Self>) {
        self.log.push("pong timeout");
    }

    fn interrupt(&mut self, _: &mut Context<'_, Self>) {
        self.log.push("interrupt");
    }

    fn backpressure(&mut self, _: &mut Context<'_, Self>) {
        self.log.push("backpressure");
    }

    fn drained(&mut self, _: &mut Context<'_, Self>) {
        self.log.push("drained");
    }

    fn close(&mut self, ending: &Ending<'_>, context: &mut Context<'_, Self>) {
        let error = context.error().map(|error| format!(": {error}")).unwrap_or_default();
        self.log.push(format!("close{}{error}", if ending.clean { " clean" } else { "" }));
    }

    fn fail(&mut self, _: &Failure, context: &mut Context<'_, Self>) {
        let error = context.error().map(|error| format!(": {error}")).unwrap_or_default();
        self.log.push(format!("fail{error}"));
    }
}

/// A driver, and everything that it needs.
struct Subject {
    driver: Driver<Session<Recorder>>,
    memory: Memory,
    buffers: Buffers,
    now: Instant,
    recorder: Recorder,
}

fn config() -> ServerConfig {
    ServerConfig::new(OriginPolicy::Any)
}

impl Subject {
    /// A server's end, which is in the first slot of a loop.
    fn with_server(server: &Server<Recorder>, recorder: &Recorder) -> Self {
        Self::with_index(0, server, recorder)
    }

    /// A server's end in this slot.
    fn with_index(index: u32, server: &Server<Recorder>, recorder: &Recorder) -> Self {
        let now = Instant::from_nanos(1_000_000_000);
        let mut session = server.core.new_session(recorder.clone(), now);
        session.register(Key { index, generation: 0 });
        Self::from_session(session, recorder, now)
    }

    fn from_session(session: Session<Recorder>, recorder: &Recorder, now: Instant) -> Self {
        let mut buffers = Buffers::default();
        buffers.budget = Budget::until_stopped(recorder.stop.clone());
        let (memory, recorder) = (Memory::default(), recorder.clone());
        let driver = Driver::new(session);
        let mut subject = Self { driver, memory, buffers, now, recorder };
        let Self { driver, memory, buffers, now, .. } = &mut subject;
        driver.start(memory, buffers, *now);
        subject
    }

    fn with_config(recorder: Recorder, config: ServerConfig) -> Self {
        Self::with_server(&Server::with_factory(config, recorder.clone()), &recorder)
    }

    fn new() -> Self {
        Self::with_config(Recorder::new(), config())
    }

    /// Opens the connection.
    fn open() -> Self {
        Self::new().opened()
    }

    fn opened(mut self) -> Self {
        self.feed(REQUEST);
        self.recorder.log.take();
        self.memory.written.clear();
        self
    }

    fn client() -> Self {
        let recorder = Recorder::new();
        let config = ClientConfig::new().random(Arc::new(Zeros));
        let client = Client::with_factory(config, recorder.clone());
        let now = Instant::from_nanos(1_000_000_000);
        let target = "ws://a/".parse().unwrap();
        let mut session = client.core.new_session(recorder.clone(), &target, now).unwrap();
        session.register(Key { index: 0, generation: 0 });
        Self::from_session(session, &recorder, now)
    }

    /// Sets the number of handlers that the next calls may run.
    fn allow(&mut self, left: u64) {
        self.buffers.budget.set(left, None);
    }

    fn feed(&mut self, bytes: impl AsRef<[u8]>) {
        let Self { driver, memory, buffers, now, .. } = self;
        driver.receive(memory, buffers, &mut bytes.as_ref().to_vec(), *now);
    }

    fn resume(&mut self) {
        self.driver.resume(&mut self.memory, &mut self.buffers, self.now);
    }

    fn wake(&mut self) {
        self.driver.handle_wake(&mut self.memory, &mut self.buffers, self.now);
    }

    fn eof(&mut self) {
        self.driver.handle_eof(&mut self.memory, &mut self.buffers, self.now);
    }

    fn timeout(&mut self) {
        self.driver.handle_timeout(&mut self.memory, &mut self.buffers, self.now);
    }

    fn writable(&mut self) {
        self.memory.written.clear();
        self.driver.handle_writable(&mut self.memory, &mut self.buffers, self.now);
    }

    fn advance(&mut self, time: Duration) {
        self.now = self.now + time;
    }

    fn handle(&mut self) -> crate::endpoint::Handle<Recorder> {
        self.driver.handle()
    }

    fn log(&self) -> Vec<String> {
        self.recorder.log.take()
    }

    /// Resumes with one handler at a time until nothing is held back. Returns the events.
    fn the_rest_one_by_one(&mut self) -> Vec<String> {
        for _ in 0..10_000 {
            if !self.driver.wants_resume() {
                return self.log();
            }
            let before = self.recorder.log.len();
            self.allow(1);
            self.resume();
            let called = self.recorder.log.len() - before;
            assert!(called <= 1, "{called} handlers were called");
            assert_eq!(self.buffers.budget.spent(), called as u64);
        }
        panic!("it does not come to rest");
    }
}
