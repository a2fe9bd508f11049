//! A client and a server, connected by two simulated links, on a virtual clock.
//!
//! Nothing here sleeps, reads the system clock or uses a random number: a test is deterministic.
//! Each side is driven as the contract of [`Connection`](anyloop_proto::Connection) requires: after each
//! call, the appended output is written, and then the action that `shutdown` returns is taken.
//! [`Pair::step`] advances the clock to the next event, an arrival or a timer, and handles that event only.
//!
//! Each write to a link and each arrival is an *operation*. The links can be set to fail at a given
//! operation. [`fail_loop`] runs a scenario with a failure at operation 0, 1, 2 and so on, until a run
//! ends before the failure. So an error is tested at every operation.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use anyloop_proto::{Config, Instant, Refused, Role, Shutdown, State};
use anyloop_testkit::frames::{self, Frame, other};

use crate::subject::{Subject, config, seconds};

/// The limit of virtual time for a scenario.
const FOREVER: Duration = seconds(3600);

pub(crate) struct Pair {
    pub(crate) now: Instant,
    pub(crate) client: Side,
    pub(crate) server: Side,
    /// The number of operations so far.
    operations: u32,
    fail_at: Option<u32>,
    failed: bool,
}

/// One side: a connection, and the state of its socket.
pub(crate) struct Side {
    pub(crate) subject: Subject,
    /// The link that carries bytes to the other side.
    pub(crate) link: Link,
    /// Written, but not yet accepted by the link.
    send_buffer: Vec<u8>,
    /// The sending direction was shut down.
    pub(crate) finished: bool,
    /// The socket was closed.
    pub(crate) closed: bool,
    /// The test has sent frames on behalf of the connection: see [`Pair::forge`].
    forged: bool,
}

/// One direction of the byte stream.
pub(crate) struct Link {
    /// The time from a write to its arrival.
    pub(crate) latency: Duration,
    /// How arriving bytes are divided into reads.
    pub(crate) cut: Cut,
    /// The maximum number of bytes in flight. A write is short if it would exceed this.
    pub(crate) window: usize,
    /// The receiver does not read for now.
    pub(crate) stalled: bool,
    packets: VecDeque<(Instant, Packet)>,
    /// All bytes that the link has accepted.
    pub(crate) carried: Vec<u8>,
    dead: bool,
}

/// How the bytes of one write are divided into reads.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Cut {
    /// The bytes of one write arrive in one read.
    Whole,
    /// A read has at most this many bytes.
    Every(usize),
    /// A read has 1 to 16 bytes, by a generator with this seed.
    Random(u64),
}

enum Packet {
    Bytes(VecDeque<u8>),
    Eof,
    Reset,
}

impl Link {
    fn new() -> Self {
        Self {
            latency: Duration::from_millis(10),
            cut: Cut::Whole,
            window: usize::MAX,
            stalled: false,
            packets: VecDeque::new(),
            carried: Vec::new(),
            dead: false,
        }
    }

    fn in_flight(&self) -> usize {
        let sizes = self.packets.iter().map(|(_, packet)| match packet {
            Packet::Bytes(bytes) => bytes.len(),
            Packet::Eof | Packet::Reset => 0,
        });
        sizes.sum()
    }

    fn push(&mut self, now: Instant, packet: Packet) {
        if !self.dead {
            self.packets.push_back((now + self.latency, packet));
        }
    }

    /// Accepts as many bytes as the window allows. Returns how many.
    fn write(&mut self, now: Instant, bytes: &[u8]) -> usize {
        let n = bytes.len().min(self.window.saturating_sub(self.in_flight()));
        self.carried.extend_from_slice(&bytes[..n]);
        self.push(now, Packet::Bytes(bytes[..n].iter().copied().collect()));
        n
    }

    fn arrives(&self) -> Option<Instant> {
        let &(at, _) = self.packets.front()?;
        (!self.stalled).then_some(at)
    }

    /// Removes the next packet, or the part of it that one read returns.
    fn take(&mut self) -> Option<Packet> {
        let (at, packet) = self.packets.pop_front()?;
        let Packet::Bytes(mut bytes) = packet else { return Some(packet) };
        let n = match &mut self.cut {
            Cut::Whole => bytes.len(),
            Cut::Every(n) => *n,
            Cut::Random(state) => {
                // Knuth's MMIX generator: its low bits have short periods.
                *state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                1 + (*state >> 60) as usize
            }
        };
        let rest = bytes.split_off(n.min(bytes.len()));
        if !rest.is_empty() {
            self.packets.push_front((at, Packet::Bytes(rest)));
        }
        Some(Packet::Bytes(bytes))
    }

    /// The network fails: bytes in flight are lost, and the receiver gets a reset.
    fn fail(&mut self, now: Instant) {
        self.packets.clear();
        self.push(now, Packet::Reset);
        self.dead = true;
    }
}

impl Side {
    fn new(subject: Subject) -> Self {
        let (link, send_buffer) = (Link::new(), Vec::new());
        Self { subject, link, send_buffer, finished: false, closed: false, forged: false }
    }

    /// Ends the sending direction by `packet`. Has no effect after the first call.
    fn finish(&mut self, now: Instant, packet: Packet) {
        if !self.finished {
            self.finished = true;
            self.link.push(now, packet);
        }
    }

    /// The complete frames that the link has accepted.
    pub(crate) fn carried(&self) -> Vec<Frame> {
        frames::read(&self.link.carried, self.subject.role()).0
    }
}

impl Pair {
    pub(crate) fn new() -> Self {
        Self::with(config(|_| ()), config(|_| ()))
    }

    pub(crate) fn with(client: Arc<Config>, server: Arc<Config>) -> Self {
        let client = Subject::new(Role::Client, client);
        let server = Subject::new(Role::Server, server);
        Self::of(client, server)
    }

    pub(crate) fn of(client: Subject, server: Subject) -> Self {
        let now = client.now;
        let (client, server) = (Side::new(client), Side::new(server));
        Self { now, client, server, operations: 0, fail_at: None, failed: false }
    }

    pub(crate) fn side(&mut self, role: Role) -> &mut Side {
        match role {
            Role::Client => &mut self.client,
            Role::Server => &mut self.server,
        }
    }

    /// Sets how arriving bytes are divided into reads, in both directions.
    pub(crate) fn cut(mut self, cut: Cut) -> Self {
        (self.client.link.cut, self.server.link.cut) = (cut, cut);
        self
    }

    /// Limits the bytes in flight in each direction.
    pub(crate) fn window(mut self, window: usize) -> Self {
        (self.client.link.window, self.server.link.window) = (window, window);
        self
    }

    /// Runs `f` as the application of one side, and then the duties of its transport.
    pub(crate) fn act<R>(&mut self, role: Role, f: impl FnOnce(&mut Subject) -> R) -> R {
        let now = self.now;
        let subject = &mut self.side(role).subject;
        subject.now = now;
        let result = f(subject);
        self.attend(role);
        result
    }

    pub(crate) fn send(&mut self, from: Role, text: &str) -> Result<(), Refused> {
        self.act(from, |subject| subject.send(text))
    }

    pub(crate) fn close(&mut self, from: Role, code: u16, reason: &str) -> Result<(), Refused> {
        self.act(from, |subject| subject.close(code, reason))
    }

    /// Sends frames on behalf of one side, without its connection: frames that it would not send.
    pub(crate) fn forge(&mut self, from: Role, frames: &[Frame]) {
        let side = self.side(from);
        side.forged = true;
        side.send_buffer.extend(frames::stream(frames, from));
        self.attend(from);
    }

    /// Advances the clock to the next event and handles it, including the output that it causes on
    /// that side. Returns `false` if no event is left.
    pub(crate) fn step(&mut self) -> bool {
        let Some((at, role, what)) = self.next() else { return false };
        self.now = self.now.max(at);
        match what {
            Next::Arrival => self.arrive(role),
            Next::Timer => {
                self.act(role, |subject| subject.serve_timers());
            }
        }
        true
    }

    /// Steps until no event is left. With keep-alive that does not happen: use
    /// [`drive_for`](Self::drive_for).
    pub(crate) fn drive(&mut self) {
        let end = self.now + FOREVER;
        while self.step() {
            assert!(self.now < end, "events are still left after {FOREVER:?}");
        }
    }

    /// Handles all events within `time`.
    pub(crate) fn drive_for(&mut self, time: Duration) {
        let end = self.now + time;
        while self.next().is_some_and(|(at, ..)| at <= end) {
            self.step();
        }
        self.now = end;
    }

    /// The next event, its time, and the side that gets it. At the same time, an arrival is before a timer.
    fn next(&self) -> Option<(Instant, Role, Next)> {
        let arrival = |from: &Side, to| Some((from.link.arrives()?, to, Next::Arrival));
        let timer = |side: &Side, role| {
            let due = side.subject.connection.poll_timeout()?;
            (!side.closed).then_some((due, role, Next::Timer))
        };
        [
            arrival(&self.client, Role::Server),
            arrival(&self.server, Role::Client),
            timer(&self.client, Role::Client),
            timer(&self.server, Role::Server),
        ]
        .into_iter()
        .flatten()
        .min_by_key(|&(at, ..)| at)
    }

    /// Delivers the next packet to one side.
    fn arrive(&mut self, to: Role) {
        if self.operation() {
            return;
        }
        let now = self.now;
        let from = other(to);
        let Some(packet) = self.side(from).link.take() else { return };
        let side = self.side(to);
        side.subject.now = now;
        match packet {
            // TCP responds to data for a closed socket with a reset (RFC 9293 §3.10.7.1).
            Packet::Bytes(_) if side.closed => side.link.push(now, Packet::Reset),
            _ if side.closed => {}
            Packet::Bytes(bytes) => side.subject.feed(&Vec::from(bytes)),
            Packet::Eof => side.subject.eof(),
            Packet::Reset => side.subject.reset(),
        }
        self.attend(to);
        self.drained(from);
    }

    /// The peer has read from the link: writes more, and reports progress to the connection if the
    /// link has accepted bytes.
    fn drained(&mut self, role: Role) {
        let now = self.now;
        let waiting = self.side(role).send_buffer.len();
        if waiting == 0 {
            return;
        }
        self.attend(role);
        let side = self.side(role);
        if side.send_buffer.len() < waiting {
            side.subject.now = now;
            side.subject.writable();
            self.attend(role);
        }
    }

    /// The duties of a transport after a call: writes the output, then ends the stream if it is time.
    fn attend(&mut self, role: Role) {
        self.write(role);
        let now = self.now;
        let side = self.side(role);
        if side.closed {
            return;
        }
        let written = side.send_buffer.is_empty();
        match side.subject.connection.shutdown() {
            Shutdown::HalfClose if written => side.finish(now, Packet::Eof),
            Shutdown::Close if written => {
                side.finish(now, Packet::Eof);
                side.closed = true;
            }
            Shutdown::Abort => {
                side.finish(now, if written { Packet::Eof } else { Packet::Reset });
                side.closed = true;
            }
            // Reading continues, or the rest is written first.
            _ => {}
        }
    }

    /// Writes the send buffer, and then the appended output.
    fn write(&mut self, role: Role) {
        let now = self.now;
        let side = self.side(role);
        side.send_buffer.append(&mut side.subject.out.buffer);
        let open = side.link.in_flight() < side.link.window;
        if !side.send_buffer.is_empty() && open && !side.finished && !self.operation() {
            let side = self.side(role);
            let n = side.link.write(now, &side.send_buffer);
            side.send_buffer.drain(..n);
        }
        let side = self.side(role);
        side.subject.out.blocked = !side.send_buffer.is_empty();
    }

    /// Counts an operation. Returns whether it fails.
    fn operation(&mut self) -> bool {
        let fails = self.fail_at == Some(self.operations);
        self.operations += 1;
        if fails {
            self.failed = true;
            self.client.link.fail(self.now);
            self.server.link.fail(self.now);
        }
        fails
    }

    /// Asserts the invariants of a connection that has ended, cleanly or not.
    pub(crate) fn assert_ended(&self) {
        for side in [&self.client, &self.server] {
            let subject = &side.subject;
            let role = subject.role();
            assert!(side.closed, "the {role:?} has not closed its socket");
            assert!(matches!(subject.state(), State::Closed | State::Failed | State::Ended));
            assert!(subject.failures.len() <= 1, "{role:?}: {:?}", subject.failures);
            let ending = subject.connection.ending().expect("an ending");
            if let Some(&failure) = subject.failures.first() {
                assert_eq!(ending.by, ending.failure.unwrap_or(failure).party());
                assert!(!ending.clean);
            }
            let (frames, rest) = frames::read(&side.link.carried, role);
            let close = frames.iter().position(|frame| frame.opcode == 0x8);
            if let Some(at) = close.filter(|_| !side.forged) {
                assert_eq!(
                    at,
                    frames.len() - 1,
                    "{role:?} sent frames after its Close: {frames:?}"
                );
                assert!(rest.is_empty(), "{role:?} sent bytes after its Close: {rest:x?}");
            }
        }
    }
}

enum Next {
    Arrival,
    Timer,
}

/// Runs `scenario` on a new pair with a failure of the links at operation 0, then 1, and so on, until
/// a run ends before the failure. Returns the number of operations of that run.
pub(crate) fn fail_loop(new: impl Fn() -> Pair, scenario: impl Fn(&mut Pair)) -> u32 {
    for n in 0.. {
        let mut pair = new();
        pair.fail_at = Some(n);
        let end = pair.now + seconds(120);
        scenario(&mut pair);
        pair.drive();
        assert!(
            pair.now < end,
            "the pair takes more than 120 s to end after a failure at operation {n}"
        );
        pair.assert_ended();
        if !pair.failed {
            return pair.operations;
        }
    }
    unreachable!("a run has fewer than 2^32 operations")
}
