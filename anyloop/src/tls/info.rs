//! What applications can read about the TLS of a connection.

use std::fmt;

use rustls::pki_types::CertificateDer;
use rustls::{HandshakeKind, ProtocolVersion, SupportedCipherSuite};

use super::records::Records;

/// What the TLS handshake of a connection has negotiated. [`Context::tls`](crate::endpoint::Context::tls) returns it,
/// and has an example.
#[derive(Clone, Copy)]
pub struct TlsInfo<'c> {
    records: &'c Records,
}

impl<'c> TlsInfo<'c> {
    pub(crate) const fn new(records: &'c Records) -> Self {
        Self { records }
    }

    /// The version of TLS; `None` until it is agreed on.
    #[must_use]
    pub fn protocol_version(&self) -> Option<ProtocolVersion> {
        self.records.common().protocol_version()
    }

    /// The cipher suite; `None` until it is agreed on.
    #[must_use]
    pub fn cipher_suite(&self) -> Option<SupportedCipherSuite> {
        self.records.common().negotiated_cipher_suite()
    }

    /// The application protocol that was agreed on (RFC 7301), usually `http/1.1`; `None` until then, or if one of the
    /// ends has named none.
    #[must_use]
    pub fn alpn_protocol(&self) -> Option<&'c [u8]> {
        self.records.common().alpn_protocol()
    }

    /// On a server, the host name that the client has asked for (RFC 6066 §3). `None` on a client, before the client's
    /// first message has arrived, and if the client has asked for none, which is so if it connects to an address.
    #[must_use]
    pub fn server_name(&self) -> Option<&'c str> {
        self.records.server_name()
    }

    /// The certificates of the peer, its own first, in DER; `None` until they have arrived, or if the peer has sent
    /// none, which is usual for clients.
    #[must_use]
    pub fn peer_certificates(&self) -> Option<&'c [CertificateDer<'static>]> {
        self.records.common().peer_certificates()
    }

    /// Whether the handshake has resumed an earlier session, which is cheaper; `None` until it is complete.
    #[must_use]
    pub fn is_resumed(&self) -> Option<bool> {
        Some(self.records.common().handshake_kind()? == HandshakeKind::Resumed)
    }
}

impl fmt::Debug for TlsInfo<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsInfo")
            .field("protocol_version", &self.protocol_version())
            .field("cipher_suite", &self.cipher_suite())
            .field("server_name", &self.server_name())
            .finish_non_exhaustive()
    }
}
