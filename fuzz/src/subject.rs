//! An open connection under test, with its events and output in owned form.

use std::sync::Arc;
use std::time::Duration;

use anyloop_proto::handshake::Codec;
use anyloop_proto::{
    BufferPool, CloseCode, Config, Connection, Event, Failure, Input, Kind, Message, Role, Sender,
    Shutdown, State,
};
use anyloop_testkit::frames::Frame;
use arbitrary::Arbitrary;

use crate::START;
use crate::toy;
use crate::wire::Reader;

/// An event in owned form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// A whole message.
    Message(Kind, Vec<u8>),
    /// Kind, payload, first, last.
    Chunk(Kind, Vec<u8>, bool, bool),
    /// A ping.
    Ping(Vec<u8>),
    /// A pong.
    Pong(Vec<u8>, Option<Duration>),
    /// The peer's Close.
    Close(Option<u16>, String),
}

impl From<Event<'_>> for Seen {
    fn from(event: Event<'_>) -> Self {
        match event {
            Event::Message(message) => {
                if let Message::Text(text) = message {
                    assert_eq!(Ok(text.as_str()), core::str::from_utf8(text.as_bytes()));
                }
                Self::Message(message.kind(), message.as_bytes().to_vec())
            }
            Event::Chunk(chunk) => {
                Self::Chunk(chunk.kind, chunk.payload.to_vec(), chunk.first, chunk.last)
            }
            Event::Ping(payload) => Self::Ping(payload.to_vec()),
            Event::Pong { payload, round_trip } => Self::Pong(payload.to_vec(), round_trip),
            Event::Close(frame) => {
                Self::Close(frame.code.map(CloseCode::get), frame.reason.to_owned())
            }
            event => panic!("an event that the targets do not handle: {event:?}"),
        }
    }
}

/// How received bytes are passed to the connection.
#[derive(Arbitrary, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// As slices; partial messages are collected in newly allocated memory.
    Plain,
    /// As slices; partial messages are collected in memory from a pool.
    Pooled,
    /// Directly into the memory of the message where the connection lends it, otherwise as `Plain`.
    InPlace,
    /// As `InPlace`, with memory from a pool.
    InPlacePooled,
}

/// A connection, and a record of its events, failure and output.
pub struct Subject {
    connection: Connection,
    reading: Reading,
    pool: BufferPool,
    reader: Reader,
    received: usize,
    /// All events.
    pub seen: Vec<Seen>,
    /// The failure.
    pub failure: Option<Failure>,
    /// All frames that were sent.
    pub sent: Vec<Frame>,
}

impl Subject {
    /// An open connection, with the test extension if `extension`.
    #[must_use]
    pub fn new(role: Role, config: Arc<Config>, reading: Reading, extension: bool) -> Self {
        Self::with_codec(role, config, reading, extension.then(toy::codec))
    }

    /// An open connection, with the extension of `codec` if there is one.
    #[must_use]
    pub fn with_codec(
        role: Role,
        config: Arc<Config>,
        reading: Reading,
        codec: Option<Codec>,
    ) -> Self {
        let extension = codec.is_some();
        let mut connection = Connection::new(role, config, START);
        if let Some(codec) = codec {
            connection = connection.with_extension(codec.decoder, codec.encoder);
        }
        Self {
            connection,
            reading,
            pool: BufferPool::new(1 << 20),
            reader: Reader::new(role, extension),
            received: 0,
            seen: Vec::new(),
            failure: None,
            sent: Vec::new(),
        }
    }

    /// The state of the connection.
    #[must_use]
    pub fn state(&self) -> State {
        self.connection.state()
    }

    /// Receives the bytes of one read.
    pub fn feed(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        if matches!(self.reading, Reading::InPlace | Reading::InPlacePooled) {
            while !rest.is_empty()
                && let Some(memory) = self.connection.receiver.receive_buffer()
            {
                let pooled = self.reading == Reading::InPlacePooled;
                assert!(
                    pooled || memory.len() <= 2 * self.received,
                    "{} bytes of memory are lent after {} bytes were received",
                    memory.len(),
                    self.received
                );
                let n = memory.len().min(rest.len());
                memory[..n].copy_from_slice(&rest[..n]);
                self.connection.receiver.filled(n);
                self.received += n;
                rest = &rest[n..];
                self.drain(&mut []);
            }
        }
        self.received += rest.len();
        self.drain(&mut rest.to_vec());
    }

    fn drain(&mut self, bytes: &mut [u8]) {
        let Connection { receiver, sender } = &mut self.connection;
        let mut input = match self.reading {
            Reading::Plain | Reading::InPlace => Input::new(bytes),
            _ => Input::with_pool(bytes, &mut self.pool),
        };
        let mut out = Vec::new();
        loop {
            match receiver.next(sender, &mut input, START, &mut out) {
                Ok(Some(event)) => {
                    assert_eq!(self.failure, None, "an event after a failure: {event:?}");
                    assert!(
                        !matches!(self.seen.last(), Some(Seen::Close(..))),
                        "an event after the Close: {event:?}"
                    );
                    self.seen.push(event.into());
                }
                Ok(None) => break,
                Err(failure) => {
                    assert_eq!(self.failure, None, "a second failure: {failure}");
                    assert_ne!(self.connection.shutdown(), Shutdown::None, "{failure}");
                    self.failure = Some(failure);
                    break;
                }
            }
        }
        self.sent.extend(self.reader.read(&out));
    }

    /// Sends by `send`. Returns the bytes.
    pub fn send(&mut self, send: impl FnOnce(&mut Sender, &mut Vec<u8>)) -> Vec<u8> {
        let mut out = Vec::new();
        send(&mut self.connection.sender, &mut out);
        self.sent.extend(self.reader.read(&out));
        out
    }

    /// Ends the byte stream, and asserts that the connection has ended then.
    pub fn eof(&mut self) {
        let result = self.connection.handle_eof();
        assert!(result.is_ok() || self.failure.is_none(), "a second failure: {result:?}");
        self.failure = self.failure.or(result.err());
        assert!(matches!(self.connection.shutdown(), Shutdown::Close | Shutdown::Abort));
        assert!(self.connection.ending().is_some());
        assert_eq!(self.connection.ending().and_then(|ending| ending.failure), self.failure);
        assert_eq!(self.connection.handle_eof(), Ok(()), "the end is reported once");
    }

    /// Joins chunks to messages, and checks their order. Also returns the payload of an unfinished message.
    #[must_use]
    pub fn joined(&self) -> (Vec<Seen>, Vec<u8>) {
        let (mut joined, mut unfinished, mut inside) = (Vec::new(), Vec::new(), None);
        for event in &self.seen {
            let Seen::Chunk(kind, payload, first, last) = event else {
                assert!(!matches!(event, Seen::Message(..)) || inside.is_none());
                joined.push(event.clone());
                continue;
            };
            assert_eq!(
                *first,
                inside.is_none(),
                "exactly the first chunk of a message is marked as first"
            );
            assert!(
                inside.is_none_or(|inside| inside == *kind),
                "all chunks of a message have the same kind"
            );
            assert!(*last || !payload.is_empty(), "only the last chunk may be empty");
            inside = (!last).then_some(*kind);
            unfinished.extend_from_slice(payload);
            if *last {
                joined.push(Seen::Message(*kind, std::mem::take(&mut unfinished)));
            }
        }
        (joined, unfinished)
    }
}
