//! The cryptography provider. It is always passed to rustls explicitly, because the process-wide default of rustls may
//! be missing, or set by other code.

use std::sync::Arc;

use rustls::crypto::CryptoProvider;

use super::error::TlsConfigError;

#[cfg(feature = "tls-aws-lc-rs")]
pub(super) fn provider() -> Result<Arc<CryptoProvider>, TlsConfigError> {
    Ok(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
}

#[cfg(all(feature = "tls-ring", not(feature = "tls-aws-lc-rs")))]
pub(super) fn provider() -> Result<Arc<CryptoProvider>, TlsConfigError> {
    Ok(Arc::new(rustls::crypto::ring::default_provider()))
}

#[cfg(not(any(feature = "tls-ring", feature = "tls-aws-lc-rs")))]
pub(super) fn provider() -> Result<Arc<CryptoProvider>, TlsConfigError> {
    Err(TlsConfigError::NoProvider)
}

/// What issues session tickets (RFC 8446 §4.6.1): clients resume sessions with them, and the server stores no sessions.
/// If this is `None`, rustls stores the last few hundred sessions.
pub(super) fn ticketer() -> Option<Arc<dyn rustls::server::ProducesTickets>> {
    #[cfg(feature = "tls-aws-lc-rs")]
    return rustls::crypto::aws_lc_rs::Ticketer::new().ok();
    #[cfg(all(feature = "tls-ring", not(feature = "tls-aws-lc-rs")))]
    return rustls::crypto::ring::Ticketer::new().ok();
    #[cfg(not(any(feature = "tls-ring", feature = "tls-aws-lc-rs")))]
    None
}
