//! TLS in TLS: the outer TLS connection, to an `https` proxy, carries the inner one, to the `wss` server.

use anyloop_proto::Input;
use rustls::Error;

use super::{Received, Records};
use crate::stream::{MAX_RECORD_PLAINTEXT, Seal};

/// The TLS connection to a proxy. Its plaintext is the records of another TLS connection, the *inner* one, to the
/// server.
pub(super) struct OuterTls {
    pub(super) records: Records,
    /// Decrypted content that the inner records have not received yet.
    content: Vec<u8>,
    /// Inner records that were not sealed for the proxy yet. Empty between calls.
    inner_output: Vec<u8>,
}

impl Records {
    /// This TLS connection, from now on carried inside `proxy`, the TLS connection to a proxy. `content` was received
    /// through the proxy before.
    #[cfg(feature = "net")]
    pub(in crate::tls) fn with_outer(mut self, proxy: Self, content: Vec<u8>) -> Self {
        let outer = OuterTls { records: proxy, content, inner_output: Vec::new() };
        self.outer = Some(Box::new(outer));
        self
    }

    /// Calls `f` with the buffer for these records: `out`, or with a proxy, a buffer that is then sealed into `out`.
    pub(super) fn with_output<R>(
        &mut self,
        out: &mut Vec<u8>,
        f: impl FnOnce(&mut Self, &mut Vec<u8>) -> R,
    ) -> R {
        let Some(mut outer) = self.outer.take() else { return f(self, out) };
        let result = f(self, &mut outer.inner_output);
        outer.seal(out);
        self.outer = Some(outer);
        result
    }
}

impl OuterTls {
    /// As [`Records::receive`] of `inner`; `input` has the records of the proxy. All of it is used, even beyond
    /// [`PLAINTEXT_LIMIT`](super::PLAINTEXT_LIMIT), unless `inner` is closed or fails. The close_notify of the proxy is
    /// not reported.
    pub(super) fn receive(
        &mut self,
        inner: &mut Records,
        input: &mut Input<'_>,
        plaintext: &mut Vec<u8>,
        out: &mut Vec<u8>,
        free_buffer: &mut Vec<u8>,
    ) -> Result<Received, Error> {
        let mut received = Ok(Received::Open);
        while received == Ok(Received::Open) && !(input.is_empty() && self.content.is_empty()) {
            let decrypted = self.records.receive(input, &mut self.content, out, free_buffer);
            received = self.pass_on(inner, plaintext, free_buffer);
            self.seal(out);
            match decrypted {
                Ok(Received::Open) => {}
                // The end of the stream follows. It is an error unless the server has sent its close_notify.
                Ok(Received::Closed) => input.discard(),
                Err(error) => {
                    // `inner` neither decrypts nor seals from now on.
                    (inner.decryption_failed, inner.stopped) = (true, true);
                    return received.and(Err(error));
                }
            }
        }
        received
    }

    /// Passes the content to the inner records. What follows their close_notify is dropped (RFC 8446 §6.1).
    fn pass_on(
        &mut self,
        inner: &mut Records,
        plaintext: &mut Vec<u8>,
        free_buffer: &mut Vec<u8>,
    ) -> Result<Received, Error> {
        let mut received = Ok(Received::Open);
        let mut content = Input::new(&mut self.content);
        while received == Ok(Received::Open) && !content.is_empty() {
            received = inner.receive(&mut content, plaintext, &mut self.inner_output, free_buffer);
        }
        self.content.clear();
        received
    }

    /// Seals the inner records for the proxy.
    fn seal(&mut self, out: &mut Vec<u8>) {
        for bytes in self.inner_output.chunks(MAX_RECORD_PLAINTEXT) {
            self.records.seal(bytes, out); // `take_seal_error` returns the error
        }
        self.inner_output.clear();
    }
}
