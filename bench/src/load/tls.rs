//! TLS of a client, by rustls. It is the same for every server: TLS 1.3, AES-128-GCM, X25519.

use std::fmt;
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};

use rustix::io::Errno;
use rustix::net::SendFlags;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{
    ClientSessionStore, Resumption, Tls12ClientSessionValue, Tls13ClientSessionValue,
};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, Error, HandshakeKind, NamedGroup,
    SignatureScheme, version,
};

use crate::Failure;
use crate::fault::{Fault, unless_blocked};
use crate::stream::{Received, receive};

/// The name that servers are asked for. Their certificates are not verified.
const NAME: &str = "localhost";

/// An incomplete record that is kept can have this size, at most.
const PARTIAL: usize = 18 * 1024;

/// The number of tickets that are kept.
const TICKETS: usize = 4096;

/// The settings of all connections. With `resume`, connections resume the sessions of earlier ones.
pub(crate) fn config(resume: bool) -> Result<Arc<ClientConfig>, Failure> {
    let suite = aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256;
    let provider = CryptoProvider {
        cipher_suites: vec![suite],
        kx_groups: vec![aws_lc_rs::kx_group::X25519],
        ..aws_lc_rs::default_provider()
    };
    let schemes = provider.signature_verification_algorithms.supported_schemes();
    let mut config = ClientConfig::builder_with_provider(provider.into())
        .with_protocol_versions(&[&version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Unverified(schemes)))
        .with_no_client_auth();
    config.resumption = match resume {
        true => Resumption::store(Arc::new(Tickets::default())),
        false => Resumption::disabled(),
    };
    Ok(config.into())
}

/// A new connection.
pub(crate) fn connection(config: &Arc<ClientConfig>) -> Result<ClientConnection, Failure> {
    Ok(ClientConnection::new(config.clone(), ServerName::try_from(NAME)?)?)
}

/// Accepts every certificate, and does not check the signature of the handshake: servers are on this machine.
#[derive(Debug)]
struct Unverified(Vec<SignatureScheme>);

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.clone()
    }
}

/// Tickets of one server, of which each is used once. rustls's own store keeps eight.
#[derive(Debug, Default)]
struct Tickets(Mutex<Vec<Tls13ClientSessionValue>>);

impl ClientSessionStore for Tickets {
    fn set_kx_hint(&self, _: ServerName<'static>, _: NamedGroup) {}

    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        None
    }

    fn set_tls12_session(&self, _: ServerName<'static>, _: Tls12ClientSessionValue) {}

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        None
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {}

    fn insert_tls13_ticket(&self, _: ServerName<'static>, ticket: Tls13ClientSessionValue) {
        if let Ok(mut tickets) = self.0.lock()
            && tickets.len() < TICKETS
        {
            tickets.push(ticket);
        }
    }

    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.0.lock().ok()?.pop()
    }
}

/// TLS over a non-blocking socket.
pub(crate) struct Tls(ClientConnection);

impl Tls {
    pub(crate) fn new(connection: ClientConnection) -> Self {
        Self(connection)
    }

    pub(crate) fn is_handshaking(&self) -> bool {
        self.0.is_handshaking()
    }

    /// Whether the handshake has resumed an earlier session.
    pub(crate) fn is_resumed(&self) -> bool {
        self.0.handshake_kind() == Some(HandshakeKind::Resumed)
    }

    pub(crate) fn close_notify(&mut self) {
        self.0.send_close_notify();
    }

    /// Sends what waits. Returns whether nothing is left.
    pub(crate) fn flush(&mut self, socket: &OwnedFd) -> Result<bool, Fault> {
        while self.0.wants_write() {
            let written = self.0.write_tls(&mut Output(socket));
            let written =
                written.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO));
            if unless_blocked(written)? == 0 {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Seals and sends bytes until the socket would block. During the handshake they wait.
    pub(crate) fn send(&mut self, socket: &OwnedFd, parts: &[IoSlice<'_>]) -> Result<usize, Fault> {
        let mut sent = 0;
        for part in parts {
            let mut rest: &[u8] = part;
            while !rest.is_empty() {
                let taken = self.0.writer().write(rest).unwrap_or(0);
                (sent, rest) = (sent + taken, &rest[taken..]);
                if !self.flush(socket)? || taken == 0 {
                    return Ok(sent);
                }
            }
        }
        Ok(sent)
    }

    /// Receives once, and opens the records, at the start of `buffer`.
    pub(crate) fn recv(&mut self, socket: &OwnedFd, buffer: &mut [u8]) -> Result<Received, Fault> {
        let (plain, cipher) = buffer.split_at_mut(buffer.len().midpoint(PARTIAL));
        let (received, more) = match receive(socket, cipher)? {
            Received::Bytes { length, more } => (length, more),
            other => return Ok(other),
        };
        let (mut rest, mut length) = (&cipher[..received], 0);
        while !rest.is_empty() {
            let taken = self.0.read_tls(&mut rest).map_err(|_| Fault::TooMuch)?;
            self.0.process_new_packets().map_err(Fault::Tls)?;
            match self.0.reader().read(&mut plain[length..]) {
                Ok(read) => length += read,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => return Err(Fault::TooMuch),
            }
            if taken == 0 {
                break; // behind a close_notify
            }
        }
        self.flush(socket)?;
        Ok(Received::Bytes { length, more })
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Tls").finish_non_exhaustive()
    }
}

/// The socket as rustls writes to it.
struct Output<'a>(&'a OwnedFd);

impl Write for Output<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(rustix::net::send(self.0, bytes, SendFlags::NOSIGNAL)?)
    }

    fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        Ok(rustix::io::writev(self.0, parts)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
