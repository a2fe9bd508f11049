//! An extension for tests, `toy`: run-length coding of text messages, as pairs of a count and a byte.

use anyloop_proto::extension::{Contexts, Decoder, Encoder, Part};
use anyloop_proto::frame::Rsv;
use anyloop_proto::handshake::{Codec, Negotiator, Params};
use anyloop_proto::{ExtensionError, Field, HandshakeError, Kind};

/// Decodes runs, and asserts the guarantees that the library gives to a decoder.
#[derive(Default)]
pub struct Runs {
    count: Option<u8>,
    inside: bool,
}

impl Decoder for Runs {
    fn claims(&self) -> Rsv {
        Rsv::RSV1
    }

    fn decode(
        &mut self,
        part: Part<'_>,
        limit: usize,
        message: &mut Vec<u8>,
        _: &mut Contexts,
    ) -> Result<(), ExtensionError> {
        assert_eq!(
            part.first, !self.inside,
            "exactly the first part of a message is marked as first"
        );
        assert!(message.len() <= limit, "the message is within the limit before the part");
        self.inside = !part.last;
        for &byte in part.payload {
            let Some(count) = self.count.take() else {
                self.count = Some(byte);
                continue;
            };
            if count == 0 {
                return Err(ExtensionError::Corrupt);
            }
            if limit - message.len() < usize::from(count) {
                return Err(ExtensionError::TooBig);
            }
            message.resize(message.len() + usize::from(count), byte);
        }
        if part.last && self.count.take().is_some() {
            return Err(ExtensionError::Corrupt);
        }
        Ok(())
    }
}

/// Encodes text messages, and leaves binary messages unchanged.
#[derive(Default)]
pub struct ToRuns;

impl Encoder for ToRuns {
    fn begin(&mut self, kind: Kind, _: Option<usize>) -> Option<Rsv> {
        (kind == Kind::Text).then_some(Rsv::RSV1)
    }

    fn encode(&mut self, payload: &[u8], _: bool, out: &mut Vec<u8>, _: &mut Contexts) {
        for run in payload.chunk_by(|a, b| a == b) {
            for part in run.chunks(255) {
                out.extend([part.len() as u8, part[0]]);
            }
        }
    }
}

/// The decoder and the encoder of one connection.
#[must_use]
pub fn codec() -> Codec {
    Codec { decoder: Box::<Runs>::default(), encoder: Box::<ToRuns>::default() }
}

/// Negotiates the extension `toy`, with any parameters.
#[derive(Debug)]
pub struct Toy;

impl Negotiator for Toy {
    fn name(&self) -> &str {
        "toy"
    }

    fn offer(&self) -> Vec<Params> {
        vec![Params::new().with_value("level", 3), Params::new()]
    }

    fn accept(&self, offer: &Params) -> Option<(Params, Codec)> {
        (offer.len() < 3).then(|| (offer.clone(), codec()))
    }

    fn confirm(&self, answer: &Params) -> Result<Codec, HandshakeError> {
        match answer.len() {
            0 | 1 => Ok(codec()),
            _ => Err(HandshakeError::Invalid(Field::SecWebSocketExtensions)),
        }
    }
}
