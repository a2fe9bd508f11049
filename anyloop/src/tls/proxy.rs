//! TLS between a client and its proxy, while a tunnel is opened.

use anyloop_proto::Input;

use super::error::TlsError;
use super::records::{Received, Records};
use crate::stream::{RECORD, Seal as _};

/// TLS with a proxy.
pub(crate) struct ProxyTls {
    records: Records,
    /// What was decrypted last.
    content: Vec<u8>,
    /// Whether any input has arrived.
    begun: bool,
}

impl ProxyTls {
    /// Begins the handshake: appends the first record to `out`.
    pub(crate) fn start(records: Records, out: &mut Vec<u8>) -> Result<Self, TlsError> {
        let mut tls = Self { records, content: Vec::new(), begun: false };
        tls.records.start(out).map_err(error)?;
        Ok(tls)
    }

    /// Seals bytes, once the handshake is complete.
    pub(crate) fn send(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), TlsError> {
        for bytes in bytes.chunks(RECORD) {
            self.records.seal(bytes, out); // its failure is taken below
        }
        match self.records.take_failure() {
            Some(failure) => Err(error(failure)),
            None => Ok(()),
        }
    }

    /// Decrypts the records in `bytes`. Returns their content. After an error, `out` has the alert.
    pub(crate) fn receive(
        &mut self,
        bytes: &mut [u8],
        out: &mut Vec<u8>,
    ) -> Result<&mut [u8], TlsError> {
        // RFC 8446 §5.1: the type of a record.
        if !std::mem::replace(&mut self.begun, true) && !matches!(bytes.first(), Some(20..=23)) {
            return Err(TlsError::NotTls);
        }
        self.content.clear();
        let was_handshaking = self.records.is_handshaking();
        let (mut input, mut spare) = (Input::new(bytes), Vec::new());
        while !input.is_empty() {
            let received = self.records.receive(&mut input, &mut self.content, out, &mut spare);
            if received.map_err(error)? == Received::Closed {
                input.discard();
            }
        }
        if was_handshaking && !self.records.is_handshaking() {
            let early = self.records.take_early();
            self.send(&early, out)?;
        }
        Ok(&mut self.content)
    }

    /// Whether nothing more can be received: the proxy has ended its TLS.
    pub(crate) const fn is_over(&self) -> bool {
        self.records.is_over()
    }

    pub(super) fn into_records(self) -> Records {
        self.records
    }
}

fn error(error: rustls::Error) -> TlsError {
    TlsError::new(error, true)
}
