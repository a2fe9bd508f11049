//! permessage-deflate (RFC 7692): messages are compressed.
//!
//! [`Deflate`] is the configuration, and the [`Negotiator`] to add to the extensions of an endpoint.
//!
//! # Memory
//!
//! A compressor needs 165 KB or more. In the default [mode](Deflate::pooled), connections do not own one: each call
//! borrows a compressor from its thread ([`Contexts`](crate::extension::Contexts)). Its dictionary is the last bytes,
//! before compression, of the messages that the connection has sent compressed (the *history* of the connection, 1 KiB
//! by default). The peer sees an ordinary stream with context takeover. Thus 10,000 connections hold 10 MB of history,
//! and each thread has one compressor.
//!
//! Without contexts (the output is a `Vec<u8>`, the input is made by [`Input::new`](crate::Input::new), or the
//! [owned](crate::owned) connection is used), a decompressor is created for each message, and a compressor for each
//! message or piece. [Dedicated](Deflate::dedicated) compressors are better there.
//!
//! Received messages are decompressed in the same way. The peer decides how far back they refer, up to the agreed
//! window. By default, a server asks its clients for a window of 1 KiB. It asks a client that cannot limit its window
//! to do without context takeover. A client asks for 1 KiB as well, but must accept 32 KiB from a server that does not
//! grant it.
//!
//! A message that arrives in parts waits compressed until it is whole, or until more than 64 KiB of it have arrived. In
//! [streaming](crate::Config::streaming) mode, its chunks are returned only then, too. A chunk can be a thousand times
//! as large as what has arrived; [`max_message_size`](crate::Config::max_message_size) limits it.
//!
//! # Secrets
//!
//! An attacker who sees the size of messages, and can have text of his choice sent in them, can guess a secret in the
//! same message or in the history (the attacks CRIME and BREACH). Send secrets as
//! [`Uncompressed`](crate::Uncompressed) messages, or do not compress.

mod compressor;
mod decompressor;
mod history;
mod params;

use alloc::boxed::Box;
use alloc::vec::Vec;

use self::compressor::{Compressor, Settings};
use self::decompressor::Decompressor;
use self::params::DeflateParams;
use crate::error::{Field, HandshakeError};
use crate::handshake::{Codec, Negotiator, Params};

/// The name of the extension (RFC 7692 §7).
const NAME: &str = "permessage-deflate";

/// The largest window of DEFLATE, as a power of two.
const MAX_WINDOW_BITS: u8 = 15;

/// The end of a flushed block. Senders remove it, receivers append it (RFC 7692 §7.2).
const FLUSH_MARKER: [u8; 4] = [0, 0, 0xff, 0xff];

/// The configuration of permessage-deflate, for either role.
///
/// | setting | default | range |
/// |---|---|---|
/// | mode | [pooled](Self::pooled), with a history of 1 KiB | or [no takeover](Self::no_takeover), [dedicated](Self::dedicated) |
/// | [`level`](Self::level) | 6 | 1 (fast) to 9 (small) |
/// | [`threshold`](Self::threshold) | 64 bytes | any |
/// | [`window_bits`](Self::window_bits) | 12 (4 KiB) | 9 to 15 |
/// | [`receive_window_bits`](Self::receive_window_bits) | 10 (1 KiB); dedicated: 15 | 8 to 15 |
///
/// A setting outside its range becomes the nearest value in it.
///
/// ```
/// use std::sync::Arc;
///
/// use anyloop_proto::Instant;
/// use anyloop_proto::deflate::Deflate;
/// use anyloop_proto::handshake::{Accept, ClientOptions, OriginPolicy, ServerOptions};
/// use anyloop_proto::owned::{Event, WebSocket};
///
/// let now = Instant::from_nanos(0);
/// let mut options = ClientOptions::default();
/// options.extensions.push(Arc::new(Deflate::pooled()));
/// let mut client = WebSocket::client(&"ws://localhost/".parse()?, options.into(), now)?;
/// let mut options = ServerOptions::new(OriginPolicy::Any);
/// options.extensions.push(Arc::new(Deflate::pooled().level(1).threshold(128)));
/// let mut server = WebSocket::server(options.into(), now);
///
/// server.receive(&client.poll_output().unwrap_or_default(), now);
/// server.accept(Accept::new(), now)?;
/// client.receive(&server.poll_output().unwrap_or_default(), now);
/// assert!(matches!(client.poll_event(), Some(Event::Open { extension: Some(_), .. })));
///
/// let text = "abc".repeat(1000);
/// client.send(&text)?;
/// let sent = client.poll_output().unwrap_or_default();
/// assert!(sent.len() < 50);
/// # server.poll_event();
/// # server.poll_event();
/// server.receive(&sent, now);
/// assert!(matches!(server.poll_event(), Some(Event::Text(received)) if received == text));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deflate {
    mode: Mode,
    level: u8,
    threshold: usize,
    window_bits: u8,
    receive_window_bits: u8,
}

/// Where a compressor comes from, and how far back in earlier messages it refers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// Lent by the thread, with this many bytes of earlier messages.
    Pooled { history: usize },
    /// Owned by the connection.
    Dedicated,
}

impl Deflate {
    /// Compressors of the thread, and a history of 1 KiB for each connection. Costs 10 % more time than
    /// [`no_takeover`](Self::no_takeover), and makes small messages that resemble each other 3 times smaller.
    #[must_use]
    pub const fn pooled() -> Self {
        Self {
            mode: Mode::Pooled { history: 1024 },
            level: 6,
            threshold: 64,
            window_bits: 12,
            receive_window_bits: 10,
        }
    }

    /// Compressors of the thread, and no history: each message is compressed by itself, and a connection holds no
    /// memory between messages. The peer is asked to do the same.
    #[must_use]
    pub const fn no_takeover() -> Self {
        Self { mode: Mode::Pooled { history: 0 }, ..Self::pooled() }
    }

    /// A compressor for each connection, created for its first message: 165 KB or more. It refers back as far as its
    /// whole window. The peer's window is not limited, so a connection may hold another 32 KiB for received messages.
    #[must_use]
    pub const fn dedicated() -> Self {
        Self { mode: Mode::Dedicated, receive_window_bits: MAX_WINDOW_BITS, ..Self::pooled() }
    }

    /// The number of bytes of earlier messages that a [pooled](Self::pooled) compressor refers to: 0 (no takeover) to
    /// 32,506, and at most 262 less than the window has. Each connection holds that many. A dedicated compressor has
    /// its window instead, and ignores this setting.
    #[must_use]
    pub const fn history(mut self, bytes: usize) -> Self {
        if let Mode::Pooled { history } = &mut self.mode {
            *history = bytes;
        }
        self
    }

    /// The effort: 1 (fast) to 9 (small). Level 1 needs a third of the time of level 6, and its output is 1.7 times
    /// larger.
    #[must_use]
    pub const fn level(mut self, level: u8) -> Self {
        self.level = clamp(level, 1, 9);
        self
    }

    /// The size in bytes below which a message is sent uncompressed. Messages in pieces, whose size is not known, are
    /// compressed.
    #[must_use]
    pub const fn threshold(mut self, bytes: usize) -> Self {
        self.threshold = bytes;
        self
    }

    /// The window for compressing, as a power of two: 9 (512 bytes) to 15 (32 KiB). Compressors refer back that far
    /// within a message. The peer may request less.
    #[must_use]
    pub const fn window_bits(mut self, bits: u8) -> Self {
        self.window_bits = clamp(bits, 9, MAX_WINDOW_BITS);
        self
    }

    /// The window that the peer is asked to use, as a power of two: 8 (256 bytes) to 15 (32 KiB). A connection may hold
    /// that much for received messages, unless the peer compresses without context takeover. A client may hold 32 KiB
    /// if the server does not grant the window.
    #[must_use]
    pub const fn receive_window_bits(mut self, bits: u8) -> Self {
        self.receive_window_bits = clamp(bits, 8, MAX_WINDOW_BITS);
        self
    }

    const fn is_without_takeover(&self) -> bool {
        matches!(self.mode, Mode::Pooled { history: 0 })
    }

    /// The codec of a connection that sends and receives under these terms.
    fn codec(&self, send: Terms, receive: Terms) -> Codec {
        let window_bits = self.window_bits.min(send.window_bits);
        let settings = Settings { level: self.level, window_bits, threshold: self.threshold };
        let encoder = match self.mode {
            _ if window_bits < 9 => Compressor::never(), // zlib has no raw window of 256 bytes
            Mode::Pooled { history } if send.takeover => Compressor::pooled(settings, history),
            Mode::Pooled { .. } => Compressor::pooled(settings, 0),
            Mode::Dedicated => Compressor::dedicated(settings, send.takeover),
        };
        let window = if receive.takeover { 1 << receive.window_bits } else { 0 };
        let decoder = Decompressor::new(window);
        Codec { decoder: Box::new(decoder), encoder: Box::new(encoder) }
    }
}

/// The default mode, [pooled](Deflate::pooled).
impl Default for Deflate {
    fn default() -> Self {
        Self::pooled()
    }
}

/// What was agreed for one direction.
#[derive(Clone, Copy)]
struct Terms {
    takeover: bool,
    window_bits: u8,
}

impl Terms {
    fn new(no_takeover: bool, window_bits: Option<u8>) -> Self {
        Self { takeover: !no_takeover, window_bits: window_bits.unwrap_or(MAX_WINDOW_BITS) }
    }
}

impl Negotiator for Deflate {
    fn name(&self) -> &str {
        NAME
    }

    /// Offers a small window first, because the client holds a window for the server's messages; then any window.
    fn offer(&self) -> Vec<Params> {
        let any = DeflateParams {
            client_window_bits: Some(None),
            client_no_takeover: self.is_without_takeover(),
            server_no_takeover: self.is_without_takeover(),
            ..DeflateParams::default()
        };
        let small = DeflateParams { server_window_bits: Some(self.receive_window_bits), ..any };
        match self.receive_window_bits {
            MAX_WINDOW_BITS => Vec::from([any.to_params()]),
            _ => Vec::from([small.to_params(), any.to_params()]),
        }
    }

    fn accept(&self, offer: &Params) -> Option<(Params, Codec)> {
        let offer = DeflateParams::parse(offer)?;
        // We cannot send within a window of 256 bytes: zlib's smallest has 512 (RFC 7692 §7.1.2.1).
        if offer.server_window_bits.is_some_and(|bits| bits < 9) {
            return None;
        }
        let server_window_bits = offer.server_window_bits.map(|bits| bits.min(self.window_bits));
        // RFC 7692 §7.1.2.2: a server can limit the window of a client only if the client offers the parameter.
        let client_window_bits = offer
            .client_window_bits
            .map(|bits| bits.unwrap_or(MAX_WINDOW_BITS).min(self.receive_window_bits));
        let small = client_window_bits.unwrap_or(MAX_WINDOW_BITS) <= self.receive_window_bits;
        let answer = DeflateParams {
            server_no_takeover: offer.server_no_takeover || self.is_without_takeover(),
            client_no_takeover: offer.client_no_takeover || self.is_without_takeover() || !small,
            server_window_bits,
            client_window_bits: client_window_bits.map(Some),
        };
        let send = Terms::new(answer.server_no_takeover, server_window_bits);
        let receive = Terms::new(answer.client_no_takeover, client_window_bits);
        Some((answer.to_params(), self.codec(send, receive)))
    }

    fn confirm(&self, answer: &Params) -> Result<Codec, HandshakeError> {
        let invalid = HandshakeError::Invalid(Field::SecWebSocketExtensions);
        let answer = DeflateParams::parse(answer).ok_or(invalid)?;
        let client_window_bits = match answer.client_window_bits {
            Some(None) => return Err(invalid), // RFC 7692 §7.1.2.2: an answer has a value
            Some(bits) => bits,
            None => None,
        };
        // RFC 7692 §7.1.1.1: a server that accepts an offer with server_no_context_takeover answers with it. All our
        // offers without takeover have it.
        if self.is_without_takeover() && !answer.server_no_takeover {
            return Err(invalid);
        }
        let send = Terms::new(answer.client_no_takeover, client_window_bits);
        let receive = Terms::new(answer.server_no_takeover, answer.server_window_bits);
        Ok(self.codec(send, receive))
    }
}

/// `Ord::clamp` for constant functions.
const fn clamp(value: u8, min: u8, max: u8) -> u8 {
    match value {
        value if value < min => min,
        value if value > max => max,
        value => value,
    }
}
