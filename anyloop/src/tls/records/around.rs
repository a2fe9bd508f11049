//! The TLS of a proxy, around that of a connection through it.

use anyloop_proto::Input;
use rustls::Error;

use super::{Received, Records};
use crate::stream::{RECORD, Seal};

/// The records in which those of a connection travel to a proxy.
pub(super) struct Around {
    pub(super) records: Records,
    /// What they contain and the connection has not got yet.
    content: Vec<u8>,
    /// Output of the connection that was not sealed for the proxy yet. Empty between calls.
    unsealed: Vec<u8>,
}

impl Records {
    /// The same records inside of those of a proxy, from which `content` was received already.
    pub(in crate::tls) fn inside(mut self, proxy: Self, content: Vec<u8>) -> Self {
        let around = Around { records: proxy, content, unsealed: Vec::new() };
        self.around = Some(Box::new(around));
        self
    }

    /// Calls `f` with the output below these records.
    pub(super) fn through<R>(
        &mut self,
        out: &mut Vec<u8>,
        f: impl FnOnce(&mut Self, &mut Vec<u8>) -> R,
    ) -> R {
        let Some(mut around) = self.around.take() else { return f(self, out) };
        let result = f(self, &mut around.unsealed);
        around.seal(out);
        self.around = Some(around);
        result
    }
}

impl Around {
    /// As [`Records::receive`], for the records of the connection.
    pub(super) fn receive(
        &mut self,
        inner: &mut Records,
        input: &mut Input<'_>,
        plain: &mut Vec<u8>,
        out: &mut Vec<u8>,
        spare: &mut Vec<u8>,
    ) -> Result<Received, Error> {
        let mut received = Ok(Received::Some);
        while received == Ok(Received::Some) && !(input.is_empty() && self.content.is_empty()) {
            let decrypted = self.records.receive(input, &mut self.content, out, spare);
            received = self.pass(inner, plain, spare);
            self.seal(out);
            match decrypted {
                Ok(Received::Some) => {}
                // The end of the stream follows, and tells whether the server has ended.
                Ok(Received::Closed) => input.discard(),
                Err(error) => {
                    (inner.broken, inner.stopped) = (true, true);
                    return received.and(Err(error));
                }
            }
        }
        received
    }

    /// Passes all content on.
    fn pass(
        &mut self,
        inner: &mut Records,
        plain: &mut Vec<u8>,
        spare: &mut Vec<u8>,
    ) -> Result<Received, Error> {
        let mut received = Ok(Received::Some);
        let mut content = Input::new(&mut self.content);
        while received == Ok(Received::Some) && !content.is_empty() {
            received = inner.receive(&mut content, plain, &mut self.unsealed, spare);
        }
        self.content.clear();
        received
    }

    /// Seals the output of the connection.
    fn seal(&mut self, out: &mut Vec<u8>) {
        for bytes in self.unsealed.chunks(RECORD) {
            self.records.seal(bytes, out); // why it fails is kept
        }
        self.unsealed.clear();
    }
}
