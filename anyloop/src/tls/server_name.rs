//! The host name that a client asks for (RFC 6066 §3). rustls reports it only to the certificate resolver.

use std::cell::RefCell;
use std::fmt;
use std::sync::Arc;

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

thread_local! {
    /// The name in the ClientHello that this thread has processed last, until it is taken.
    static NAME: RefCell<Option<Box<str>>> = const { RefCell::new(None) };
}

/// Calls `f`, which may call a [`CapturesServerName`]. Returns the result of `f`, and the name that was captured.
pub(super) fn capture<R>(f: impl FnOnce() -> R) -> (R, Option<Box<str>>) {
    let result = f();
    (result, NAME.take())
}

/// Stores the name for [`capture`], and lets another resolver choose the certificate.
pub(super) struct CapturesServerName(pub(super) Arc<dyn ResolvesServerCert>);

impl ResolvesServerCert for CapturesServerName {
    fn resolve(&self, client_hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        NAME.set(client_hello.server_name().map(Box::from));
        self.0.resolve(client_hello)
    }

    fn only_raw_public_keys(&self) -> bool {
        self.0.only_raw_public_keys()
    }
}

impl fmt::Debug for CapturesServerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
