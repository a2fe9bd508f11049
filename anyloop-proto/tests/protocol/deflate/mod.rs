//! permessage-deflate (RFC 7692): connections with each other, and with another implementation of DEFLATE.

mod hostile;
mod memory;
mod peer;
mod prepared;
mod properties;
mod receiving;
mod sending;
mod zlib;

use anyloop_proto::deflate::Deflate;
use anyloop_proto::handshake::{Codec, Negotiator, Params};
use anyloop_proto::{BufferPool, Config, Connection, Instant, Role};
use anyloop_testkit::frames::{Frame, binary};

use crate::subject::{Reading, Subject, config};

const RSV1: u8 = 0x40;

/// Every mode, and histories of other sizes than the default.
fn modes() -> [Deflate; 5] {
    [
        Deflate::pooled(),
        Deflate::pooled().history(100),
        Deflate::pooled().history(usize::MAX).window_bits(15),
        Deflate::no_takeover(),
        Deflate::dedicated(),
    ]
}

/// The parameters of an offer or an answer, written as in the header field.
fn params(text: &str) -> Params {
    let params = text.split("; ").filter(|param| !param.is_empty());
    params.fold(Params::new(), |params, param| match param.split_once('=') {
        Some((name, value)) => params.with_value(name, value),
        None => params.with(param),
    })
}

fn subject(role: Role, codec: Codec, change: impl FnOnce(&mut Config)) -> Subject {
    let now = Instant::from_nanos(1_000_000_000);
    let connection =
        Connection::new(role, config(change), now).with_extension(codec.decoder, codec.encoder);
    let mut subject = Subject::over(connection, now);
    subject.reading = Reading::Pooled(BufferPool::new(1 << 20));
    subject
}

/// A server that has accepted this offer.
fn server(deflate: Deflate, offer: &str) -> Subject {
    server_with(deflate, offer, |_| ())
}

fn server_with(deflate: Deflate, offer: &str, change: impl FnOnce(&mut Config)) -> Subject {
    let (_, codec) = deflate.accept(&params(offer)).expect("the offer is accepted");
    subject(Role::Server, codec, change)
}

/// A client that has received this answer.
fn client(deflate: Deflate, answer: &str) -> Subject {
    let codec = deflate.confirm(&params(answer)).expect("the answer is confirmed");
    subject(Role::Client, codec, |_| ())
}

/// A server that receives messages with this window, and context takeover.
fn receiver(window_bits: u8, change: impl FnOnce(&mut Config)) -> Subject {
    let deflate = Deflate::pooled().receive_window_bits(window_bits);
    server_with(deflate, "client_max_window_bits", change)
}

/// A client and a server that have agreed.
fn agreed(client: Deflate, server: Deflate, change: impl Fn(&mut Config)) -> (Subject, Subject) {
    let accepted = client.offer().iter().find_map(|offer| server.accept(offer));
    let (answer, of_server) = accepted.expect("an offer is accepted");
    let of_client = client.confirm(&answer).expect("the answer is confirmed");
    (subject(Role::Client, of_client, &change), subject(Role::Server, of_server, &change))
}

/// A compressed message in one frame.
fn compressed(payload: impl AsRef<[u8]>) -> Frame {
    binary(payload).rsv(RSV1)
}

/// A message in one frame, in fragments of this size.
fn fragments(message: &Frame, size: usize) -> Vec<Frame> {
    let mut frames: Vec<Frame> =
        message.payload.chunks(size).map(|part| binary(part).more()).collect();
    for (i, frame) in frames.iter_mut().enumerate() {
        (frame.opcode, frame.rsv) = if i == 0 { (message.opcode, message.rsv) } else { (0, 0) };
    }
    frames.last_mut().expect("there is a payload").fin = true;
    frames
}

/// Bytes that do not compress, the same for the same seed.
fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    (0..len).map(|_| next()).collect()
}
