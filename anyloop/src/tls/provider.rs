//! The cryptography provider, which rustls is always given: it has no default that could be missing or another's.

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

/// Issues tickets, with which clients resume sessions and the server keeps none. Without one, the server keeps the last
/// few hundred sessions.
pub(super) fn ticketer() -> Option<Arc<dyn rustls::server::ProducesTickets>> {
    #[cfg(feature = "tls-aws-lc-rs")]
    return rustls::crypto::aws_lc_rs::Ticketer::new().ok();
    #[cfg(all(feature = "tls-ring", not(feature = "tls-aws-lc-rs")))]
    return rustls::crypto::ring::Ticketer::new().ok();
    #[cfg(not(any(feature = "tls-ring", feature = "tls-aws-lc-rs")))]
    None
}
