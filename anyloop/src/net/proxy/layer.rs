//! The TLS between a client and an `https` proxy. Other proxies have none: the bytes are plain.

use crate::proxy::Proxy;
#[cfg(feature = "tls-core")]
use crate::proxy::ProxyProtocol;
#[cfg(feature = "tls-core")]
use crate::tls::{ProxyTls, Records, TlsError};

#[cfg(feature = "tls-core")]
use super::super::error::ProxyAnswerError;
use super::super::error::{ConnectError, Error};

/// Converts between the messages of a [`ProxyHandshake`](super::ProxyHandshake) and the bytes on the socket: by TLS
/// with an `https` proxy; otherwise they are the same.
#[derive(Default)]
pub(in crate::net) struct ProxyLayer {
    #[cfg(feature = "tls-core")]
    tls: Option<Tls>,
}

#[cfg(feature = "tls-core")]
enum Tls {
    /// The handshake has not begun.
    New(Box<Records>),
    Begun(Box<ProxyTls>),
}

impl ProxyLayer {
    /// The layer for a connection to this proxy. Fails if TLS cannot be used.
    #[cfg_attr(not(feature = "tls-core"), expect(clippy::unnecessary_wraps))]
    pub(in crate::net) fn to(proxy: &Proxy) -> Result<Self, Error> {
        let _ = proxy;
        Ok(Self {
            #[cfg(feature = "tls-core")]
            tls: match proxy.protocol() {
                ProxyProtocol::Https => {
                    let host = proxy.host();
                    let (host, _) = host.split_once('%').unwrap_or((host, "")); // certificates have no zones
                    let records = proxy.tls().new_records(host)?;
                    Some(Tls::New(Box::new(records)))
                }
                ProxyProtocol::Http | ProxyProtocol::Socks5 { .. } => None,
            },
        })
    }

    /// Begins, when the socket is connected: TLS appends its ClientHello to `out`.
    #[cfg_attr(
        not(feature = "tls-core"),
        expect(clippy::unused_self, clippy::unnecessary_wraps, clippy::needless_pass_by_ref_mut)
    )]
    pub(super) fn start(&mut self, proxy: &Proxy, out: &mut Vec<u8>) -> Result<(), ConnectError> {
        let _ = (proxy, &out);
        #[cfg(feature = "tls-core")]
        if let Some(Tls::New(records)) = self.tls.take() {
            let tls = ProxyTls::start(*records, out).map_err(|error| failed(proxy, error))?;
            self.tls = Some(Tls::Begun(Box::new(tls)));
        }
        Ok(())
    }

    /// Appends `bytes` to `out` as they go to the socket.
    #[cfg_attr(
        not(feature = "tls-core"),
        expect(clippy::unused_self, clippy::unnecessary_wraps, clippy::needless_pass_by_ref_mut)
    )]
    pub(in crate::net) fn encode(
        &mut self,
        proxy: &Proxy,
        bytes: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), ConnectError> {
        let _ = proxy;
        #[cfg(feature = "tls-core")]
        if let Some(Tls::Begun(tls)) = &mut self.tls {
            return tls.encrypt(bytes, out).map_err(|error| failed(proxy, error));
        }
        out.extend_from_slice(bytes);
        Ok(())
    }

    /// Returns the content of bytes from the socket. TLS appends output of its own to `out`.
    #[cfg_attr(
        not(feature = "tls-core"),
        expect(clippy::unused_self, clippy::unnecessary_wraps, clippy::needless_pass_by_ref_mut)
    )]
    pub(in crate::net) fn decode<'b>(
        &'b mut self,
        proxy: &Proxy,
        bytes: &'b mut [u8],
        out: &mut Vec<u8>,
    ) -> Result<&'b mut [u8], ConnectError> {
        let _ = (proxy, &out);
        #[cfg(feature = "tls-core")]
        if let Some(Tls::Begun(tls)) = &mut self.tls {
            return tls.decrypt(bytes, out).map_err(|error| failed(proxy, error));
        }
        Ok(bytes)
    }

    /// Whether the proxy has ended its TLS. It sends nothing more then, even if the socket is still open.
    #[cfg_attr(not(feature = "tls-core"), expect(clippy::unused_self))]
    pub(in crate::net) const fn has_ended(&self) -> bool {
        #[cfg(feature = "tls-core")]
        if let Some(Tls::Begun(tls)) = &self.tls {
            return tls.is_input_over();
        }
        false
    }

    /// The TLS with the proxy, which the connection continues to use.
    #[cfg(feature = "tls-core")]
    pub(in crate::net) fn into_tls(self) -> Option<Box<ProxyTls>> {
        match self.tls {
            Some(Tls::Begun(tls)) => Some(tls),
            Some(Tls::New(_)) | None => None,
        }
    }
}

#[cfg(feature = "tls-core")]
fn failed(proxy: &Proxy, error: TlsError) -> ConnectError {
    let proxy = proxy.to_string();
    match error {
        TlsError::NotTls => ConnectError::ProxyAnswer { proxy, source: ProxyAnswerError::NotTls },
        source => ConnectError::ProxyTls { proxy, source },
    }
}
