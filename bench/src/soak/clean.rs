//! Scenarios in which a connection closes cleanly and must not lose a message.

use anyloop_testkit::frames::{BINARY, PONG, TEXT};

use crate::Failure;
use crate::load::{Actor, Record, World};
use crate::numbered::STREAMS;
use crate::random::Random;
use crate::wire::{Incoming, Wire};

/// Checks the numbered messages that the server sends on a connection.
pub(crate) struct Checker<'w> {
    world: &'w World,
    connection: u64,
    /// For each stream, the number of the next message, which is also the count of received ones.
    pub(crate) next: [u64; STREAMS],
}

impl<'w> Checker<'w> {
    pub(crate) fn new(world: &'w World, connection: u64) -> Self {
        Self { world, connection, next: [0; STREAMS] }
    }

    pub(crate) fn check(&mut self, payload: &[u8]) -> Result<(), Failure> {
        let Some((stream, number)) = self.world.numbered.read(payload, self.connection) else {
            return Err(format!("a wrong message of {} bytes was pushed", payload.len()).into());
        };
        let due = self.next[stream];
        if number != due {
            return Err(format!("message {number} of stream {stream} came for {due}").into());
        }
        self.next[stream] += 1;
        self.world.count(1);
        Ok(())
    }

    pub(crate) fn total(&self) -> u64 {
        self.next.iter().sum()
    }

    /// Checks that the connection has closed cleanly and that all sent messages were received.
    pub(crate) fn compare(&self, record: &Record) -> Result<(), Failure> {
        if !record.is_clean {
            return Err("for the server it has not closed cleanly".into());
        }
        match self.next == record.sent {
            true => Ok(()),
            false => Err(format!("{:?} came, {:?} were sent", self.next, record.sent).into()),
        }
    }
}

/// A random payload of less than `most` bytes, and its opcode: binary, or printable ASCII as text.
pub(crate) fn payload(random: &mut Random, most: usize) -> (u8, Vec<u8>) {
    let length = random.below(most);
    match random.below(2) {
        0 => (BINARY, (0..length).map(|_| random.next() as u8).collect()),
        _ => (TEXT, (0..length).map(|_| b' ' + random.below(95) as u8).collect()),
    }
}

/// Sends random messages, and the bytes that `behind` appends, in one write. Returns the messages.
pub(crate) fn send_some(
    wire: &mut Wire,
    random: &mut Random,
    messages: usize,
    behind: impl FnOnce(&mut Wire, &mut Vec<u8>),
) -> Result<Vec<Vec<u8>>, Failure> {
    let mut bytes = Vec::new();
    let mut sent = Vec::new();
    for _ in 0..messages {
        let (opcode, payload) = payload(random, 1500);
        wire.put(&mut bytes, opcode, &payload);
        sent.push(payload);
    }
    behind(wire, &mut bytes);
    wire.send_raw(&bytes)?;
    Ok(sent)
}

/// Checks that the server has echoed `messages` messages on a connection and closed it cleanly.
fn expect_echoed(actor: &mut Actor<'_>, number: u64, messages: u64) -> Result<(), Failure> {
    let record = actor.record(number)?;
    if !record.is_clean || record.echoed != messages {
        let Record { is_clean, received, echoed, .. } = record;
        return Err(format!(
            "of {messages} messages the server has received {received} and echoed {echoed}, \
             and closed cleanly: {is_clean}"
        )
        .into());
    }
    Ok(())
}

/// A few messages, and a close by either side.
pub(crate) fn short(actor: &mut Actor<'_>) -> Result<(), Failure> {
    let messages = actor.random.below(6);
    if actor.random.below(3) == 0 {
        return pushed(actor, messages as u64);
    }
    let (mut wire, number) = actor.open(actor.world.patient, |number| format!("/echo/{number}"))?;
    let asks = actor.random.below(2) == 0;
    if asks {
        let sent = send_some(&mut wire, &mut actor.random, messages, |wire, bytes| {
            wire.put(bytes, TEXT, b"bye");
        })?;
        sent.iter().try_for_each(|payload| wire.expect_message(payload))?;
        let reason = wire.expect_close(4000)?;
        if reason != messages.to_string() {
            return Err(format!("{messages} messages, but the server says {reason}").into());
        }
        wire.send_close(4000)?;
    } else {
        for _ in 0..messages {
            let (opcode, payload) = payload(&mut actor.random, 3000);
            wire.send(opcode, &payload)?;
            wire.expect_message(&payload)?;
        }
        wire.send_close(1000)?;
        wire.expect_close(1000)?;
    }
    wire.expect_eof()?;
    actor.world.count(messages as u64);
    expect_echoed(actor, number, messages as u64)
}

/// The server sends some messages, and closes.
fn pushed(actor: &mut Actor<'_>, messages: u64) -> Result<(), Failure> {
    let path = |number| format!("/push/{number}/{messages}");
    let (mut wire, number) = actor.open(actor.world.patient, path)?;
    let mut checker = Checker::new(actor.world, number);
    let reason = loop {
        match wire.next()? {
            Incoming::Message(payload) => checker.check(payload)?,
            Incoming::Close(4001, reason) => break reason.to_owned(),
            other => return Err(format!("{other:?} came for what is pushed").into()),
        }
    };
    let came = checker.next.map(|n| n.to_string()).join(" ");
    if came != reason {
        return Err(format!("{came} messages came, {reason} were accepted").into());
    }
    wire.send_close(4001)?;
    wire.expect_eof()?;
    checker.compare(&actor.record(number)?)
}

/// The server sends messages for a while, and the client closes.
pub(crate) fn flow(actor: &mut Actor<'_>) -> Result<(), Failure> {
    let (mut wire, number) = actor.open(actor.world.patient, |number| format!("/flow/{number}"))?;
    let mut checker = Checker::new(actor.world, number);
    let enough = actor.random.below(3000) as u64;
    let mut stop = |wire: &mut Wire| match actor.random.below(20) {
        0 => wire.send(BINARY, b"never mind").and_then(|()| wire.send(PONG, b"unsolicited")),
        _ => Ok(()),
    };
    while checker.total() < enough {
        match wire.next()? {
            Incoming::Message(payload) => checker.check(payload)?,
            other => return Err(format!("{other:?} came for what is pushed").into()),
        }
        stop(&mut wire)?;
    }
    close_and_compare(actor, wire, checker)
}

/// Closes while the server sends, and checks the messages up to its Close.
pub(crate) fn close_and_compare(
    actor: &mut Actor<'_>,
    mut wire: Wire,
    mut checker: Checker<'_>,
) -> Result<(), Failure> {
    wire.send_close(1000)?;
    read_to_close(&mut wire, &mut checker, 1000)?;
    checker.compare(&actor.record(checker.connection)?)
}

/// Receives and checks messages, the Close with `code`, and the end of the stream.
pub(crate) fn read_to_close(
    wire: &mut Wire,
    checker: &mut Checker<'_>,
    code: u16,
) -> Result<(), Failure> {
    loop {
        match wire.next()? {
            Incoming::Message(payload) => checker.check(payload)?,
            Incoming::Close(came, _) if came == code => break,
            other => return Err(format!("{other:?} came for what is pushed").into()),
        }
    }
    wire.expect_eof()
}

/// A connection that stays open in all phases.
pub(crate) struct Lasting {
    wire: Wire,
    number: u64,
    random: Random,
    messages: u64,
}

impl Lasting {
    pub(crate) fn open(world: &World, number: u64, seed: u64) -> Result<Self, Failure> {
        let mut wire = Wire::open(world.patient, &format!("/echo/{number}"), seed)?;
        wire.spares_pongs = world.spared.pongs;
        Ok(Self { wire, number, random: Random::new(seed), messages: 0 })
    }

    /// Sends messages that the server must echo, and a ping before the last one. Returns the messages.
    fn ask(&mut self) -> Result<Vec<Vec<u8>>, Failure> {
        let messages = 1 + self.random.below(32);
        let mut sent = send_some(&mut self.wire, &mut self.random, messages, |wire, bytes| {
            wire.put(bytes, 9, b"still there?");
        })?;
        if self.random.below(20) == 0 {
            let (opcode, payload) = payload(&mut self.random, 200_000);
            self.wire.send(opcode, &payload)?;
            sent.push(payload);
        } else {
            sent.push(Vec::new());
            self.wire.send(BINARY, b"")?;
        }
        self.messages += sent.len() as u64;
        Ok(sent)
    }

    fn expect(&mut self, sent: &[Vec<u8>]) -> Result<(), Failure> {
        let Some((last, before)) = sent.split_last() else { return Ok(()) };
        before.iter().try_for_each(|payload| self.wire.expect_message(payload))?;
        self.wire.expect_pong(b"still there?")?;
        self.wire.expect_message(last)
    }

    /// Closes the connection, and checks the server's record of it.
    pub(crate) fn end(mut self, actor: &mut Actor<'_>) -> Result<(), Failure> {
        self.wire.send_close(1000)?;
        self.wire.expect_close(1000)?;
        self.wire.expect_eof()?;
        expect_echoed(actor, self.number, self.messages)
    }
}

/// Sends messages on all connections, and then checks all echoes.
pub(crate) fn echo(world: &World, lasting: &mut [Lasting]) -> Result<(), Failure> {
    let sent = lasting.iter_mut().map(Lasting::ask).collect::<Result<Vec<_>, _>>()?;
    for (connection, sent) in lasting.iter_mut().zip(&sent) {
        connection.expect(sent)?;
        world.count(sent.len() as u64);
    }
    Ok(())
}
