//! A server or a client over TLS. Its peer is rustls, and what the peer sends is divided anywhere, and some of it lost,
//! repeated, exchanged or changed on the way. A raw peer also seals records of any type.
//!
//! Asserts:
//!
//! - No panic.
//! - The messages that arrive are the first of those that the peer has sent. If nothing was changed on the way, and the
//!   peer is not raw, all arrive, and there is no error.
//! - The output is bounded by what was received and what was sent.
//! - After the end of the stream, the connection is over within a bounded number of steps.
#![no_main]

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex};

use anyloop::endpoint::Handlers;
use anyloop::iostream::{Client, Connection, Server};
use anyloop::prelude::*;
use anyloop::proto::{Instant, Role};
use anyloop::tls::rustls::{self, ContentType, version};
use anyloop::tls::{ClientTls, ServerTls};
use anyloop_testkit::frames;
use anyloop_testkit::requests::{REQUEST, RESPONSE, Zeros};
use anyloop_testkit::tls::{Authority, Far, Identity, Raw, client_config, server_config};
use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;

static IDENTITY: LazyLock<Identity> = LazyLock::new(|| Authority::shared().issue(&["localhost"]));

static SERVER: LazyLock<ServerTls> = LazyLock::new(|| {
    ServerTls::from_pem(IDENTITY.certificate.as_str(), IDENTITY.key.as_str()).expect("PEM")
});

static CLIENT: LazyLock<ClientTls> = LazyLock::new(|| {
    let builder = ClientTls::builder().ca_pem(Authority::shared().pem()).only_these_cas();
    builder.build().expect("PEM")
});

/// rustls refuses more updates of keys without a message between them.
const MAX_UPDATES: usize = 32;

#[derive(Arbitrary, Debug)]
struct Case {
    client: bool,
    tls12: bool,
    start: Start,
    steps: Vec<Step>,
}

#[derive(Arbitrary, Clone, Copy, Debug, PartialEq, Eq)]
enum Start {
    /// Before the handshake of TLS.
    Fresh,
    /// When the connection is open.
    Open,
    /// The same; then the peer seals records of any type.
    Raw,
}

#[derive(Arbitrary, Debug)]
enum Step {
    /// The peer sends a message of this length.
    Message(u16),
    /// It sends one byte in each record.
    Bytewise(u8),
    UpdateKeys,
    CloseNotify,
    /// A raw peer seals this content with this type.
    Seal(u8, Vec<u8>),
    /// A raw peer seals so many bytes of a KeyUpdate (RFC 8446 §4.6.3).
    Fragment(u8),
    /// A record follows that cannot be opened.
    Garbage,
    /// So many of the bytes on the way arrive.
    Arrive(u16),
    /// The next record arrives.
    ArriveRecord,
    ArriveAll,
    Lose,
    Repeat,
    /// The next two records change places.
    Exchange,
    /// A bit of what is on the way changes.
    Flip(u16),
    Insert(Vec<u8>),
    /// The connection under test sends a message of this length.
    Send(u16),
    Close,
    Terminate,
    Pause,
    Resume,
    Timeout,
}

fuzz_target!(|case: Case| {
    let mut pair = Pair::new(&case);
    for step in case.steps {
        pair.step(step);
    }
    pair.end();
});

/// The other end of TLS.
enum Other {
    Far(Far),
    Raw(Raw),
    /// It has failed, or has sent its close_notify.
    Silent,
}

struct Pair {
    subject: Connection<Handlers>,
    other: Other,
    /// The role of the peer.
    role: Role,
    tls12: bool,
    /// What the peer has opened.
    opened: Vec<u8>,
    /// The peer has sent its request or its response.
    upgraded: bool,
    /// The bytes on the way to the connection under test.
    arriving: Vec<u8>,
    /// Something was changed on the way.
    changed: bool,
    raw: bool,
    /// The connection under test was told to end, or to pause.
    disturbed: bool,
    paused: bool,
    updates: usize,
    sent: Vec<Vec<u8>>,
    received: Arc<Mutex<Vec<Vec<u8>>>>,
    failed: Arc<Mutex<bool>>,
    clock: Arc<AtomicU64>,
    /// The number of bytes that the output must not exceed.
    allowed: usize,
    written: usize,
}

/// Notes what a connection receives, and that it fails; returns what was received.
macro_rules! observed {
    ($endpoint:expr, $received:expr, $failed:expr, $clock:expr) => {{
        let (received, failed, clock) = ($received.clone(), $failed.clone(), $clock.clone());
        $endpoint.on_message(move |message, context| {
            received.lock().expect("no panic").push(message.as_bytes().to_vec());
            let _ = context.send(message);
        });
        $endpoint.on_fail(move |_, _| *failed.lock().expect("no panic") = true);
        $endpoint.set_clock(move || Instant::from_nanos(clock.load(Ordering::Relaxed)));
    }};
}

impl Pair {
    fn new(case: &Case) -> Self {
        let received: Arc<Mutex<Vec<Vec<u8>>>> = Arc::default();
        let failed: Arc<Mutex<bool>> = Arc::default();
        let clock = Arc::new(AtomicU64::new(1));
        let versions = if case.tls12 { [&version::TLS12] } else { [&version::TLS13] };
        let (subject, far) = if case.client {
            let config = ClientConfig::new().random(Arc::new(Zeros)).ping_interval(None);
            let mut client = Client::new(config);
            observed!(client, received, failed, clock);
            let target = "wss://localhost/chat";
            let subject = client.over_tls(&CLIENT).connection(target).expect("a connection");
            let mut config = rustls::ServerConfig::clone(&server_config(&IDENTITY, None));
            config.enable_secret_extraction = true;
            (subject, Far::server(config.into()))
        } else {
            let mut server = Server::new(ServerConfig::new(OriginPolicy::Any).ping_interval(None));
            observed!(server, received, failed, clock);
            let subject = server.over_tls(&SERVER).connection().expect("a connection");
            let config = client_config(Authority::shared(), None, &versions);
            let mut config = rustls::ClientConfig::clone(&config);
            config.enable_secret_extraction = true;
            config.resumption = rustls::client::Resumption::disabled();
            (subject, Far::client(config.into()))
        };
        subject.collect_output();
        subject.set_shutdown_handler(|_| {});
        let mut pair = Self {
            subject,
            other: Other::Far(far),
            role: if case.client { Role::Server } else { Role::Client },
            tls12: case.tls12 && !case.client,
            opened: Vec::new(),
            upgraded: false,
            arriving: Vec::new(),
            changed: false,
            raw: false,
            disturbed: false,
            paused: false,
            updates: 0,
            sent: Vec::new(),
            received,
            failed,
            clock,
            allowed: 16 << 10,
            written: 0,
        };
        pair.subject.start().expect("there is an output");
        pair.exchange();
        if case.start != Start::Fresh {
            pair.open();
        }
        if case.start == Start::Raw && !pair.tls12 {
            pair.become_raw();
        }
        pair
    }

    /// Completes both handshakes.
    fn open(&mut self) {
        for _ in 0..20 {
            self.arrive(usize::MAX);
        }
        assert!(
            self.upgraded && self.arriving.is_empty() && !*self.failed.lock().expect("no panic")
        );
    }

    fn become_raw(&mut self) {
        if let Other::Far(far) = std::mem::replace(&mut self.other, Other::Silent) {
            self.other = Other::Raw(far.into_raw());
            self.raw = true;
        }
    }

    fn step(&mut self, step: Step) {
        let next = record(&self.arriving);
        match step {
            Step::Message(len) => self.send(vec![b'm'; len.into()], usize::MAX),
            Step::Bytewise(len) => self.send(vec![b'b'; len.into()], 1),
            Step::UpdateKeys => {
                if let Other::Far(far) = &mut self.other
                    && !far.is_handshaking()
                    && !self.tls12
                {
                    self.arriving.extend(far.update_keys());
                    self.updates += 1;
                    self.disturbed |= self.updates > MAX_UPDATES;
                }
            }
            Step::CloseNotify => self.close_notify(),
            Step::Seal(typ, content) => {
                if let Other::Raw(raw) = &mut self.other {
                    self.arriving.extend(raw.seal(ContentType::from(typ), &content));
                }
            }
            Step::Fragment(len) => {
                if let Other::Raw(raw) = &mut self.other {
                    let content = &[24, 0, 0, 1, 0][..usize::from(len % 6)];
                    self.arriving.extend(raw.seal(ContentType::Handshake, content));
                }
            }
            Step::Garbage => {
                self.changed = true;
                self.arriving.extend([23, 3, 3, 0, 20]);
                self.arriving.extend([b'x'; 20]);
            }
            Step::Arrive(most) => self.arrive(most.into()),
            Step::ArriveRecord => self.arrive(next),
            Step::ArriveAll => self.arrive(usize::MAX),
            Step::Lose => {
                self.changed |= next > 0;
                self.arriving.drain(..next);
            }
            Step::Repeat => {
                self.changed |= next > 0;
                let record = self.arriving[..next].to_vec();
                self.arriving.splice(..0, record);
            }
            Step::Exchange => {
                let second = record(&self.arriving[next..]);
                self.changed |= second > 0;
                self.arriving[..next + second].rotate_left(next);
            }
            Step::Flip(at) => {
                let at = usize::from(at);
                let len = self.arriving.len();
                if len > 0 {
                    self.changed = true;
                    self.arriving[at % len] ^= 1 << (at % 8);
                }
            }
            Step::Insert(bytes) => {
                self.changed |= !bytes.is_empty();
                self.arriving.splice(..0, bytes);
            }
            Step::Send(len) => {
                self.allowed += 2 * usize::from(len) + 200;
                let _ = self.subject.handle().send(&vec![b's'; len.into()][..]);
            }
            Step::Close => {
                self.disturbed = true;
                let _ = self.subject.handle().close(CloseCode::NORMAL, "");
            }
            Step::Terminate => {
                self.disturbed = true;
                let _ = self.subject.handle().terminate();
            }
            Step::Pause => {
                self.paused = true;
                let _ = self.subject.handle().pause_reading();
            }
            Step::Resume => {
                self.paused = false;
                let _ = self.subject.handle().resume_reading();
            }
            Step::Timeout => {
                self.disturbed = true;
                self.pass_time();
            }
        }
        let _ = self.subject.drive();
        self.exchange();
    }

    /// The peer sends a message, in records of at most this size.
    fn send(&mut self, payload: Vec<u8>, size: usize) {
        if !self.upgraded {
            return;
        }
        let bytes = frames::binary(&payload).bytes(self.role);
        match &mut self.other {
            Other::Far(far) => {
                for part in bytes.chunks(size) {
                    self.arriving.extend(far.send(part));
                }
            }
            Other::Raw(raw) => {
                for part in bytes.chunks(size.min(16 << 10)) {
                    self.arriving.extend(raw.seal(ContentType::ApplicationData, part));
                }
            }
            Other::Silent => return,
        }
        self.sent.push(payload);
    }

    fn close_notify(&mut self) {
        match std::mem::replace(&mut self.other, Other::Silent) {
            Other::Far(mut far) => self.arriving.extend(far.close()),
            Other::Raw(mut raw) => self.arriving.extend(raw.seal(ContentType::Alert, &[1, 0])),
            Other::Silent => {}
        }
        self.disturbed = true;
    }

    /// So many of the bytes on the way arrive.
    fn arrive(&mut self, most: usize) {
        let bytes = self.arriving[..most.min(self.arriving.len())].to_vec();
        let taken = match self.subject.read_all(&bytes) {
            Ok(taken) if !self.subject.has_ended() => taken,
            _ => bytes.len(),
        };
        self.allowed += 2 * taken;
        self.arriving.drain(..taken);
        self.exchange();
    }

    /// Passes the output of the connection under test to its peer, record by record.
    fn exchange(&mut self) {
        let mut records = Vec::new();
        self.subject.take_output(&mut records).expect("no handler is running");
        self.written += records.len();
        assert!(self.written <= self.allowed, "{} bytes were written", self.written);
        let mut records = &records[..];
        loop {
            let Other::Far(far) = &mut self.other else { return };
            let (next, rest) = records.split_at(record(records));
            let outcome = far.receive(next);
            self.arriving.extend(far.send(&[]));
            match outcome {
                Ok((plain, _)) => self.opened.extend(plain),
                Err(error) => {
                    assert!(self.changed || self.disturbed, "{error}");
                    self.other = Other::Silent;
                }
            }
            self.upgrade();
            records = rest;
            if records.is_empty() {
                return;
            }
        }
    }

    /// The peer's part of the opening handshake.
    fn upgrade(&mut self) {
        let Other::Far(far) = &mut self.other else { return };
        if self.upgraded || far.is_handshaking() {
            return;
        }
        let is_client = self.role == Role::Client;
        if is_client || self.opened.ends_with(b"\r\n\r\n") {
            self.upgraded = true;
            let head = if is_client { REQUEST } else { RESPONSE };
            self.arriving.extend(far.send(head.as_bytes()));
        }
    }

    fn pass_time(&mut self) {
        if let Some(due) = self.subject.next_timeout() {
            let now = self.clock.load(Ordering::Relaxed);
            self.clock.store(due.as_nanos().max(now), Ordering::Relaxed);
            let _ = self.subject.handle_timeout();
        }
    }

    /// All that is on the way arrives, and the stream ends.
    fn end(mut self) {
        if self.paused {
            let _ = self.subject.handle().resume_reading();
            let _ = self.subject.drive();
        }
        for _ in 0..20 {
            self.arrive(usize::MAX);
        }
        let failed = *self.failed.lock().expect("no panic");
        let received = self.received.lock().expect("no panic").clone();
        if !self.raw {
            assert!(self.sent.starts_with(&received), "messages that were not sent");
        }
        if !self.changed && !self.raw && !self.disturbed {
            assert!(!failed && received == self.sent, "{} of {}", received.len(), self.sent.len());
        }
        self.subject.eof().expect("no handler is running");
        for _ in 0..100 {
            self.exchange();
            if self.subject.has_ended() {
                return;
            }
            self.pass_time();
        }
        panic!("the connection does not end");
    }
}

/// The length of the record at the start of `bytes`, or of what there is of it.
fn record(bytes: &[u8]) -> usize {
    match *bytes {
        [_, _, _, high, low, ..] => {
            (5 + usize::from(u16::from_be_bytes([high, low]))).min(bytes.len())
        }
        _ => bytes.len(),
    }
}
