//! TLS between a client and its proxy, while a tunnel is opened.

use anyloop_proto::{Input, Role};

use super::error::TlsError;
use super::records::{Received, Records};
use crate::stream::{MAX_RECORD_PLAINTEXT, Seal as _};

/// TLS with a proxy.
pub(crate) struct ProxyTls {
    records: Records,
    /// What was decrypted last.
    content: Vec<u8>,
    /// Whether any input has arrived.
    any_input: bool,
}

impl ProxyTls {
    /// Begins the handshake: appends the ClientHello to `out`.
    pub(crate) fn start(records: Records, out: &mut Vec<u8>) -> Result<Self, TlsError> {
        let mut tls = Self { records, content: Vec::new(), any_input: false };
        tls.records.start(out).map_err(tls_error)?;
        Ok(tls)
    }

    /// Appends records with `bytes` to `out`. During the handshake the bytes are kept until its end.
    pub(crate) fn encrypt(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), TlsError> {
        for bytes in bytes.chunks(MAX_RECORD_PLAINTEXT) {
            self.records.seal(bytes, out); // the error is taken below
        }
        match self.records.take_seal_error() {
            Some(failure) => Err(tls_error(failure)),
            None => Ok(()),
        }
    }

    /// Decrypts the records in `bytes`. Returns their content. Output of TLS itself is appended to `out`. On an error
    /// this is the alert, but a peer that does not speak TLS gets none.
    pub(crate) fn decrypt(
        &mut self,
        bytes: &mut [u8],
        out: &mut Vec<u8>,
    ) -> Result<&mut [u8], TlsError> {
        // A record begins with its type, 20 to 23 (RFC 8446 §5.1).
        if !std::mem::replace(&mut self.any_input, true) && !matches!(bytes.first(), Some(20..=23))
        {
            return Err(TlsError::NotTls);
        }
        self.content.clear();
        let was_handshaking = self.records.is_handshaking();
        let (mut input, mut free_buffer) = (Input::new(bytes), Vec::new());
        while !input.is_empty() {
            let received =
                self.records.receive(&mut input, &mut self.content, out, &mut free_buffer);
            if received.map_err(tls_error)? == Received::Closed {
                input.discard();
            }
        }
        if was_handshaking && !self.records.is_handshaking() {
            let pending_output = self.records.take_pending_output();
            self.encrypt(&pending_output, out)?;
        }
        Ok(&mut self.content)
    }

    /// Whether nothing more can be received: the proxy has ended its TLS, or decryption has failed.
    pub(crate) const fn is_input_over(&self) -> bool {
        self.records.is_input_over()
    }

    pub(super) fn into_records(self) -> Records {
        self.records
    }
}

fn tls_error(error: rustls::Error) -> TlsError {
    TlsError::new(error, Role::Client)
}
