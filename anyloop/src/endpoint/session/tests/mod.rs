//! Sessions from inside: what a transport that runs in a loop does with them, and others do not.

mod deadlines;
mod gate;
mod roster;
mod size;
mod trimming;
mod unread;

use std::io::IoSlice;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Waker;
use std::time::Duration;

use anyloop_proto::handshake::{ClientOptions, OriginPolicy, Request, ServerOptions};
use anyloop_proto::{
    Chunk, Config, Ending, Failure, Instant, Message, Random, Shutdown, TransportError,
};

use super::Session;
use crate::endpoint::{
    Client, ClientSettings, Context, Factory, Gate, Handler, Scratch, Server, ServerSettings,
    Verdict,
};
use crate::transport::Transport;

const REQUEST: &str = "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

/// To the nonce that consists of zeros.
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

/// Bytes in memory. With `LAZY` it need not know of deadlines that move to a later time.
#[derive(Default)]
struct Memory<const LAZY: bool = true> {
    written: Vec<u8>,
    /// So many bytes wait before nothing more is taken; 0 is no bound.
    window: usize,
    breaks: bool,
    shutdowns: Vec<Shutdown>,
    deadlines: Vec<Option<Instant>>,
    reading: Vec<bool>,
    key: u64,
    now: Option<Instant>,
}

#[derive(Debug, thiserror::Error)]
#[error("on purpose, number {0}")]
struct Broken(u32);

impl<const LAZY: bool> Transport for Memory<LAZY> {
    type Error = Broken;
    type Endpoint = ();

    const LAZY_DEADLINES: bool = LAZY;

    fn write(&mut self, slices: &[IoSlice<'_>]) -> Result<usize, Broken> {
        if self.breaks {
            return Err(Broken(7));
        }
        let before = self.written.len();
        for slice in slices {
            let room = match self.window {
                0 => usize::MAX,
                window => window.saturating_sub(self.written.len()),
            };
            self.written.extend_from_slice(&slice[..slice.len().min(room)]);
        }
        Ok(self.written.len() - before)
    }

    fn shutdown(&mut self, how: Shutdown) -> Result<(), Broken> {
        self.shutdowns.push(how);
        Ok(())
    }

    fn set_deadline(&mut self, deadline: Option<Instant>) {
        self.deadlines.push(deadline);
    }

    fn set_reading(&mut self, reading: bool) {
        self.reading.push(reading);
    }

    fn waker(&self) -> Waker {
        Waker::noop().clone()
    }

    fn classify(_: &Broken) -> TransportError {
        TransportError::Reset
    }

    fn is_secure(&self) -> bool {
        false
    }

    fn remote_endpoint(&self) -> String {
        "memory".into()
    }

    fn key(&self) -> u64 {
        self.key
    }

    fn now(&self) -> Option<Instant> {
        self.now
    }
}

/// What was called, in order. Clones are the same.
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

/// Writes down all that it is told, and does what some messages ask for.
#[derive(Clone)]
struct Recorder {
    log: Log,
    stop: Arc<AtomicBool>,
    verdict: Verdict,
}

impl Recorder {
    fn new() -> Self {
        let verdict = Verdict::Accept(Default::default());
        Self { log: Log::default(), stop: Arc::new(AtomicBool::new(false)), verdict }
    }
}

impl Factory for Recorder {
    type Handler = Self;

    fn make(&self) -> Self {
        self.clone()
    }
}

impl Handler for Recorder {
    fn validate(&mut self, _: &Request, _: &mut Context<'_, Self>) -> Verdict {
        self.log.push("validate");
        self.verdict.clone()
    }

    fn http(&mut self, _: &Request, _: &mut Context<'_, Self>) -> Verdict {
        self.log.push("http");
        Verdict::upgrade_required()
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
            b"P" => context.pause_reading(),
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

/// A session, and all that it needs.
struct Subject<const LAZY: bool = true> {
    session: Session<Recorder>,
    memory: Memory<LAZY>,
    scratch: Scratch,
    now: Instant,
    recorder: Recorder,
}

fn server_settings(change: impl FnOnce(&mut Config)) -> ServerSettings {
    let mut options = ServerOptions::new(OriginPolicy::Any);
    change(Arc::make_mut(&mut options.connection));
    options.into()
}

impl<const LAZY: bool> Subject<LAZY> {
    /// A server's end that is in no list, and has no seat.
    fn with(server: &Server<Memory<LAZY>, Recorder>, recorder: &Recorder) -> Self {
        let now = Instant::from_nanos(1_000_000_000);
        Self::of(server.core().session(recorder.clone(), now), recorder, now)
    }

    fn of(session: Session<Recorder>, recorder: &Recorder, now: Instant) -> Self {
        let gate = Gate::new(recorder.stop.clone());
        let mut scratch = Scratch::default();
        scratch.gate = gate;
        let (memory, recorder) = (Memory::default(), recorder.clone());
        let mut subject = Self { session, memory, scratch, now, recorder };
        let Self { session, memory, scratch, now, .. } = &mut subject;
        session.start(memory, scratch, *now);
        subject
    }

    fn changed(recorder: Recorder, change: impl FnOnce(&mut Config)) -> Self {
        Self::with(&Server::with_factory(server_settings(change), recorder.clone()), &recorder)
    }

    fn new() -> Self {
        Self::changed(Recorder::new(), |_| ())
    }

    /// The same, open.
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
        let mut options = ClientOptions::default();
        options.connection = Arc::new(Config::new(Arc::new(Zeros)));
        let recorder = Recorder::new();
        let settings = ClientSettings::from(options);
        let client = Client::<Memory<LAZY>, _>::with_factory(settings, recorder.clone());
        let now = Instant::from_nanos(1_000_000_000);
        let target = "ws://a/".parse().unwrap();
        Self::of(client.core().session(recorder.clone(), &target, now).unwrap(), &recorder, now)
    }

    /// From the next call on, so many handlers may be called.
    fn allow(&mut self, left: u64) {
        self.scratch.gate.set(left, None);
    }

    fn feed(&mut self, bytes: impl AsRef<[u8]>) {
        let Self { session, memory, scratch, now, .. } = self;
        session.feed_all(memory, scratch, &mut bytes.as_ref().to_vec(), *now);
    }

    fn proceed(&mut self) {
        self.session.proceed(&mut self.memory, &mut self.scratch, self.now);
    }

    fn drain(&mut self) {
        self.session.drain(&mut self.memory, &mut self.scratch, self.now);
    }

    fn eof(&mut self) {
        self.session.handle_eof(&mut self.memory, &mut self.scratch, self.now);
    }

    fn timeout(&mut self) {
        self.session.handle_timeout(&mut self.memory, &mut self.scratch, self.now);
    }

    fn writable(&mut self) {
        self.memory.written.clear();
        self.session.handle_writable(&mut self.memory, &mut self.scratch, self.now);
    }

    fn advance(&mut self, time: Duration) {
        self.now = self.now + time;
    }

    fn handle(&mut self) -> crate::endpoint::Handle<Recorder> {
        self.session.handle(Waker::noop())
    }

    fn log(&self) -> Vec<String> {
        self.recorder.log.take()
    }

    /// Does the rest of what is to be done, one handler at a time, and says what that was.
    fn the_rest_one_by_one(&mut self) -> Vec<String> {
        for _ in 0..10_000 {
            if !self.session.wants_to_proceed() {
                return self.log();
            }
            let before = self.recorder.log.len();
            self.allow(1);
            self.proceed();
            let called = self.recorder.log.len() - before;
            assert!(called <= 1, "{called} handlers were called");
            assert_eq!(self.scratch.gate.called(), called as u64);
        }
        panic!("it does not come to rest");
    }
}
