//! A client and a server, joined by two simulated links, on a virtual clock.
//!
//! Nothing here sleeps, asks a clock or rolls dice: the same test does the same thing every time.
//! Each side is driven as the contract of [`Connection`](anyloop_proto::Connection) asks: after any
//! call, write what was appended, then do what `shutdown` says. [`Pair::step`] goes to the next
//! thing that happens, which is something arriving or a timer, and does that one thing.
//!
//! Every write to a link and every arrival is an *operation*, and the links can be made to fail at
//! any one of them. [`fail_loop`] runs a scenario failing at operation 0, 1, 2 and so on until it
//! comes through, so each path on which an error can be met is walked.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use anyloop_proto::{Config, Instant, Role, SendError, Shutdown, State};
use anyloop_testkit::frames::{self, Frame, other};

use crate::subject::{Subject, config, seconds};

/// Longer than any scenario may take.
const FOREVER: Duration = seconds(3600);

pub(crate) struct Pair {
    pub(crate) now: Instant,
    pub(crate) client: Side,
    pub(crate) server: Side,
    /// Operations so far.
    operations: u32,
    fail_at: Option<u32>,
    failed: bool,
}

/// One end: a connection, and the socket that a transport would hold for it.
pub(crate) struct Side {
    pub(crate) subject: Subject,
    /// The way to the other side.
    pub(crate) link: Link,
    /// Written, but not yet accepted by the link.
    backlog: Vec<u8>,
    /// The sending direction was shut down.
    pub(crate) finished: bool,
    /// The socket was closed.
    pub(crate) closed: bool,
    /// The test has put frames on the way that the connection knows nothing of.
    forged: bool,
}

/// One direction of the byte stream.
pub(crate) struct Link {
    /// How long a byte is under way.
    pub(crate) latency: Duration,
    /// How arrivals are cut.
    pub(crate) cut: Cut,
    /// How many bytes may be under way at a time; what is written beyond that waits.
    pub(crate) window: usize,
    /// The receiver does not read for now.
    pub(crate) stalled: bool,
    packets: VecDeque<(Instant, Packet)>,
    /// Everything ever accepted.
    pub(crate) carried: Vec<u8>,
    dead: bool,
}

/// How what arrives together is handed over.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Cut {
    /// All that was written at once arrives at once.
    Whole,
    /// At most so many bytes arrive at a time.
    Every(usize),
    /// 1 to 16 bytes arrive at a time, as this seed has it.
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

    fn under_way(&self) -> usize {
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

    /// Accepts what there is room for, and returns how much that was.
    fn write(&mut self, now: Instant, bytes: &[u8]) -> usize {
        let n = bytes.len().min(self.window.saturating_sub(self.under_way()));
        self.carried.extend_from_slice(&bytes[..n]);
        self.push(now, Packet::Bytes(bytes[..n].iter().copied().collect()));
        n
    }

    fn arrives(&self) -> Option<Instant> {
        let &(at, _) = self.packets.front()?;
        (!self.stalled).then_some(at)
    }

    /// Takes the next piece that arrives.
    fn take(&mut self) -> Option<Packet> {
        let (at, packet) = self.packets.pop_front()?;
        let Packet::Bytes(mut bytes) = packet else { return Some(packet) };
        let n = match &mut self.cut {
            Cut::Whole => bytes.len(),
            Cut::Every(n) => *n,
            Cut::Random(state) => {
                // Knuth's MMIX generator: the high bits are the good ones.
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

    /// The network gives up: what was under way is lost, and both ends learn of it.
    fn fail(&mut self, now: Instant) {
        self.packets.clear();
        self.push(now, Packet::Reset);
        self.dead = true;
    }
}

impl Side {
    fn new(subject: Subject) -> Self {
        let (link, backlog) = (Link::new(), Vec::new());
        Self { subject, link, backlog, finished: false, closed: false, forged: false }
    }

    /// Ends the sending direction, once.
    fn finish(&mut self, now: Instant, packet: Packet) {
        if !self.finished {
            self.finished = true;
            self.link.push(now, packet);
        }
    }

    /// The frames that the link has carried; the last may be cut off.
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

    /// Cuts what arrives on both sides.
    pub(crate) fn cut(mut self, cut: Cut) -> Self {
        (self.client.link.cut, self.server.link.cut) = (cut, cut);
        self
    }

    /// Lets at most so many bytes be under way in each direction.
    pub(crate) fn window(mut self, window: usize) -> Self {
        (self.client.link.window, self.server.link.window) = (window, window);
        self
    }

    /// The application of one side does something.
    pub(crate) fn act<R>(&mut self, role: Role, f: impl FnOnce(&mut Subject) -> R) -> R {
        let now = self.now;
        let subject = &mut self.side(role).subject;
        subject.now = now;
        let result = f(subject);
        self.attend(role);
        result
    }

    pub(crate) fn send(&mut self, from: Role, text: &str) -> Result<(), SendError> {
        self.act(from, |subject| subject.send(text))
    }

    pub(crate) fn close(&mut self, from: Role, code: u16, reason: &str) -> Result<(), SendError> {
        self.act(from, |subject| subject.close(code, reason))
    }

    /// Puts frames on the way that no connection would send.
    pub(crate) fn forge(&mut self, from: Role, frames: &[Frame]) {
        let side = self.side(from);
        side.forged = true;
        side.backlog.extend(frames::stream(frames, from));
        self.attend(from);
    }

    /// Does the next thing, and everything that it entails at that instant for the one side that it
    /// happens to. `false`: nothing more will happen.
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

    /// Steps until nothing more happens. With keep-alive on that is never: see
    /// [`drive_for`](Self::drive_for).
    pub(crate) fn drive(&mut self) {
        let end = self.now + FOREVER;
        while self.step() {
            assert!(self.now < end, "this does not come to rest");
        }
    }

    /// Steps through everything that happens in the given time.
    pub(crate) fn drive_for(&mut self, time: Duration) {
        let end = self.now + time;
        while self.next().is_some_and(|(at, ..)| at <= end) {
            self.step();
        }
        self.now = end;
    }

    /// What happens next, when, and to whom. Of two things at once, arrivals go first.
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

    /// Something arrives at one side.
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
            // TCP answers what reaches a closed socket with a reset.
            Packet::Bytes(_) if side.closed => side.link.push(now, Packet::Reset),
            _ if side.closed => {}
            Packet::Bytes(bytes) => side.subject.feed(&Vec::from(bytes)),
            Packet::Eof => side.subject.eof(),
            Packet::Reset => side.subject.reset(),
        }
        self.attend(to);
        self.drained(from);
    }

    /// The link has room again: writes on, and tells the machine if the peer has read something.
    fn drained(&mut self, role: Role) {
        let now = self.now;
        let waiting = self.side(role).backlog.len();
        if waiting == 0 {
            return;
        }
        self.attend(role);
        let side = self.side(role);
        if side.backlog.len() < waiting {
            side.subject.now = now;
            side.subject.writable();
            self.attend(role);
        }
    }

    /// The duties of a transport after any call.
    fn attend(&mut self, role: Role) {
        self.write(role);
        let now = self.now;
        let side = self.side(role);
        if side.closed {
            return;
        }
        let written = side.backlog.is_empty();
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
            // Go on reading, or write on when the link has room.
            _ => {}
        }
    }

    /// Writes what was appended, after what still waits.
    fn write(&mut self, role: Role) {
        let now = self.now;
        let side = self.side(role);
        side.backlog.append(&mut side.subject.out.buffer);
        let room = side.link.under_way() < side.link.window;
        if !side.backlog.is_empty() && room && !side.finished && !self.operation() {
            let side = self.side(role);
            let n = side.link.write(now, &side.backlog);
            side.backlog.drain(..n);
        }
        let side = self.side(role);
        side.subject.out.blocked = !side.backlog.is_empty();
    }

    /// Counts an operation, and says whether it is the one that fails.
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

    /// What holds at the end of every connection, however it ended.
    pub(crate) fn assert_ended(&self) {
        for side in [&self.client, &self.server] {
            let subject = &side.subject;
            let role = subject.role();
            assert!(side.closed, "the {role:?} does not end");
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
                assert_eq!(at, frames.len() - 1, "{role:?} sends after its Close: {frames:?}");
                assert!(rest.is_empty(), "{role:?} sends after its Close: {rest:x?}");
            }
        }
    }
}

enum Next {
    Arrival,
    Timer,
}

/// Runs `scenario` on a new pair, with the links failing at operation 0, then 1, and so on until
/// one run comes through without a failure. Returns how many operations that one took.
pub(crate) fn fail_loop(new: impl Fn() -> Pair, scenario: impl Fn(&mut Pair)) -> u32 {
    for n in 0.. {
        let mut pair = new();
        pair.fail_at = Some(n);
        let end = pair.now + seconds(120);
        scenario(&mut pair);
        pair.drive();
        assert!(pair.now < end, "failing at operation {n}, the pair takes too long to end");
        pair.assert_ended();
        if !pair.failed {
            return pair.operations;
        }
    }
    unreachable!("some run comes through")
}
