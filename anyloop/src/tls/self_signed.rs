//! Distinguishes self-signed certificates from those of unknown authorities, for which rustls has one error.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, Error, OtherError, SignatureScheme};

use super::error::{SelfSigned, is_unsupported_signature};

/// Lets another verifier decide. If it refuses a self-signed certificate because of the issuer, the error becomes
/// [`SelfSigned`].
#[derive(Debug)]
pub(super) struct ReportsSelfSigned(pub(super) Arc<dyn ServerCertVerifier>);

impl ServerCertVerifier for ReportsSelfSigned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verified = self.0.verify_server_cert(end_entity, intermediates, name, ocsp, now);
        verified.map_err(|error| match error {
            Error::InvalidCertificate(reason)
                if is_about_issuer(&reason) && is_self_issued(end_entity) =>
            {
                let error = OtherError(Arc::new(SelfSigned));
                Error::InvalidCertificate(CertificateError::Other(error))
            }
            error => error,
        })
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

/// Whether the error can be that no trusted authority has issued the certificate. If a trusted authority has the name
/// of the issuer, the verifier reports a wrong or unsupported signature instead.
const fn is_about_issuer(error: &CertificateError) -> bool {
    matches!(error, CertificateError::UnknownIssuer | CertificateError::BadSignature)
        || is_unsupported_signature(error)
}

/// Whether the issuer of a certificate is its subject (RFC 5280 §3.2).
fn is_self_issued(certificate: &[u8]) -> bool {
    issuer_and_subject(certificate).is_some_and(|(issuer, subject)| issuer == subject)
}

/// The issuer and the subject of a certificate (RFC 5280 §4.1), in DER.
fn issuer_and_subject(certificate: &[u8]) -> Option<(&[u8], &[u8])> {
    let (certificate, _) = element(certificate)?;
    let (fields, _) = element(content(certificate)?)?;
    let mut rest = content(fields)?;
    if rest.first() == Some(&0xa0) {
        rest = element(rest)?.1; // the version
    }
    let (_serial_number, rest) = element(rest)?;
    let (_algorithm, rest) = element(rest)?;
    let (issuer, rest) = element(rest)?;
    let (_validity, rest) = element(rest)?;
    let (subject, _) = element(rest)?;
    Some((issuer, subject))
}

/// The first element of `der`, with its header, and the bytes after it.
fn element(der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (header, len) = header(der)?;
    der.split_at_checked(header.checked_add(len)?)
}

/// The content of an element.
fn content(element: &[u8]) -> Option<&[u8]> {
    element.get(header(element)?.0..)
}

/// The lengths of the header and of the content of an element (X.690 §8.1.3).
fn header(der: &[u8]) -> Option<(usize, usize)> {
    let first = *der.get(1)?;
    if first < 0x80 {
        return Some((2, first.into()));
    }
    let count = usize::from(first & 0x7f);
    let bytes = der.get(2..2 + count).filter(|bytes| bytes.len() <= 4)?;
    let len = bytes.iter().fold(0, |len, byte| len << 8 | usize::from(*byte));
    Some((2 + count, len))
}

#[cfg(test)]
mod tests {
    use anyloop_proto::Role;
    use anyloop_testkit::tls::{Authority, Identity, self_signed};
    use rustls::pki_types::pem::PemObject;

    use super::*;
    use crate::tls::TlsError;

    fn der(identity: &Identity) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(identity.certificate.as_bytes()).unwrap()
    }

    #[test]
    fn issuer_and_subject_are_compared() {
        assert!(is_self_issued(&der(&self_signed(&["localhost"]))));
        assert!(!is_self_issued(&der(&Authority::new("CA").issue(&["localhost"]))));
    }

    /// Refuses each certificate with one error.
    #[derive(Debug)]
    struct Refuses(CertificateError);

    impl ServerCertVerifier for Refuses {
        fn verify_server_cert(
            &self,
            _: &CertificateDer<'_>,
            _: &[CertificateDer<'_>],
            _: &ServerName<'_>,
            _: &[u8],
            _: UnixTime,
        ) -> Result<ServerCertVerified, Error> {
            Err(Error::InvalidCertificate(self.0.clone()))
        }

        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Err(Error::InvalidCertificate(self.0.clone()))
        }

        fn verify_tls13_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Err(Error::InvalidCertificate(self.0.clone()))
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            Vec::new()
        }
    }

    /// What the user reads about a certificate that was refused with `error`.
    fn refused(identity: &Identity, error: CertificateError) -> String {
        let name = ServerName::try_from("localhost").unwrap();
        let error = ReportsSelfSigned(Arc::new(Refuses(error)))
            .verify_server_cert(&der(identity), &[], &name, &[], UnixTime::now())
            .unwrap_err();
        TlsError::new(error, Role::Client).to_string()
    }

    #[test]
    fn certificates_are_refused_in_plain_words() {
        use CertificateError as E;

        let unsupported = || E::UnsupportedSignatureAlgorithmForPublicKeyContext {
            signature_algorithm_id: vec![1, 2, 3],
            public_key_algorithm_id: vec![4, 5, 6],
        };
        let issued = Authority::new("CA").issue(&["localhost"]);
        for (error, words) in [
            (E::BadSignature, "its signature, or one that was made with its key, "),
            (unsupported(), "it is signed by an algorithm that is not supported here; issue it "),
            (E::BadEncoding, "it is not a valid X.509 certificate; it is damaged, "),
        ] {
            let text = refused(&issued, error);
            let prefix = format!("the server's certificate was refused: {words}");
            assert!(text.starts_with(&prefix), "{text}");
        }
        let own = self_signed(&["localhost"]);
        for error in [E::UnknownIssuer, E::BadSignature, unsupported()] {
            assert!(refused(&own, error).contains("it is self-signed; add it as an authority"));
        }
        assert!(refused(&own, E::Revoked).contains("; its owner must replace it"));
    }

    #[test]
    fn anything_else_is_not_self_issued() {
        let whole = der(&self_signed(&["localhost"]));
        for len in 0..whole.len() / 2 {
            let _ = is_self_issued(&whole[..len]);
        }
        assert!(!is_self_issued(&[]));
        assert!(!is_self_issued(&[0x30, 0x84, 0xff, 0xff, 0xff, 0xff]));
        assert!(!is_self_issued(&[0x30, 0xff]));
    }
}
