//! The TLS of a proxy, outer that of a connection with_output it.

use anyloop_proto::Input;
use rustls::Error;

use super::{Received, Records};
use crate::stream::{RECORD, Seal};

/// The records in which those of a connection travel to a proxy.
pub(super) struct OuterTls {
    pub(super) records: Records,
    /// What they contain and the connection has not got yet.
    content: Vec<u8>,
    /// Output of the connection that was not sealed for the proxy yet. Empty between calls.
    pending_output: Vec<u8>,
}

impl Records {
    /// The same records with_outer of those of a proxy, from which `content` was received already.
    pub(in crate::tls) fn with_outer(mut self, proxy: Self, content: Vec<u8>) -> Self {
        let outer = OuterTls { records: proxy, content, pending_output: Vec::new() };
        self.outer = Some(Box::new(outer));
        self
    }

    /// Calls `f` with the output below these records.
    pub(super) fn with_output<R>(
        &mut self,
        out: &mut Vec<u8>,
        f: impl FnOnce(&mut Self, &mut Vec<u8>) -> R,
    ) -> R {
        let Some(mut outer) = self.outer.take() else { return f(self, out) };
        let result = f(self, &mut outer.pending_output);
        outer.seal(out);
        self.outer = Some(outer);
        result
    }
}

impl OuterTls {
    /// As [`Records::receive`], for the records of the connection.
    pub(super) fn receive(
        &mut self,
        inner: &mut Records,
        input: &mut Input<'_>,
        plaintext: &mut Vec<u8>,
        out: &mut Vec<u8>,
        spare: &mut Vec<u8>,
    ) -> Result<Received, Error> {
        let mut received = Ok(Received::Open);
        while received == Ok(Received::Open) && !(input.is_empty() && self.content.is_empty()) {
            let decrypted = self.records.receive(input, &mut self.content, out, spare);
            received = self.pass_on(inner, plaintext, spare);
            self.seal(out);
            match decrypted {
                Ok(Received::Open) => {}
                // The end of the stream follows, and tells whether the server has ended.
                Ok(Received::Closed) => input.discard(),
                Err(error) => {
                    (inner.decryption_failed, inner.stopped) = (true, true);
                    return received.and(Err(error));
                }
            }
        }
        received
    }

    /// Passes all content on.
    fn pass_on(
        &mut self,
        inner: &mut Records,
        plaintext: &mut Vec<u8>,
        spare: &mut Vec<u8>,
    ) -> Result<Received, Error> {
        let mut received = Ok(Received::Open);
        let mut content = Input::new(&mut self.content);
        while received == Ok(Received::Open) && !content.is_empty() {
            received = inner.receive(&mut content, plaintext, &mut self.pending_output, spare);
        }
        self.content.clear();
        received
    }

    /// Seals the output of the connection.
    fn seal(&mut self, out: &mut Vec<u8>) {
        for bytes in self.pending_output.chunks(RECORD) {
            self.records.seal(bytes, out); // why it fails is kept
        }
        self.pending_output.clear();
    }
}
