//! The exchange with a proxy that opens a tunnel: a byte stream to the server. It does no I/O.

mod http;
mod layer;
mod socks5;

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::Arc;

use anyloop_proto::Input;
use anyloop_proto::handshake::{Target, TunnelHandshake};

use super::error::{ConnectError, Error, ProxyAnswerError};
use super::host::literal_address;
use crate::proxy::{Proxy, ProxyProtocol};
use socks5::{Destination, MAX_NAME, Socks5, SocksFailure};

pub(super) use layer::ProxyLayer;

/// A proxy, and the server to reach through it.
pub(super) struct Route {
    pub(super) proxy: Arc<Proxy>,
    pub(super) target: Target,
    /// The target's address, if it is known: the host is an address, or it was looked up.
    pub(super) address: Option<SocketAddr>,
    /// Taken by the `Tunnel` of [`connecting`](crate::net::connecting) when the socket is connected; empty after that.
    pub(super) proxy_layer: ProxyLayer,
}

/// The exchange that opens a tunnel.
pub(super) enum ProxyHandshake {
    Http(TunnelHandshake),
    Socks5(Socks5),
}

impl Route {
    /// Fails if TLS with the proxy cannot be used.
    pub(super) fn new(proxy: Arc<Proxy>, target: Target) -> Result<Self, Error> {
        let address = literal_address(target.host(), target.port());
        let proxy_layer = ProxyLayer::to(&proxy)?;
        Ok(Self { proxy, target, address, proxy_layer })
    }

    /// Whether the target must be looked up here, since the proxy does not do that.
    pub(super) fn needs_address(&self) -> bool {
        let without_remote_names = ProxyProtocol::Socks5 { remote_names: false };
        self.address.is_none() && self.proxy.protocol() == without_remote_names
    }

    /// The host to look up for the target.
    pub(super) fn target_lookup_host(&self) -> String {
        lookup_host(&self.target)
    }

    /// The proxy in errors.
    fn proxy_text(&self) -> String {
        self.proxy.to_string()
    }

    /// The target in errors: host and port.
    fn target_text(&self) -> String {
        match self.target.host() {
            host if host.contains(':') => format!("[{host}]:{}", self.target.port()),
            host => format!("{host}:{}", self.target.port()),
        }
    }
}

/// The host to look up for a target: with its zone, if it has one.
pub(super) fn lookup_host(target: &Target) -> String {
    match target.zone() {
        Some(zone) => format!("{}%{zone}", target.host()),
        None => target.host().to_string(),
    }
}

impl ProxyHandshake {
    /// Begins: appends to `out` what is sent first.
    pub(super) fn new(
        route: &Route,
        proxy_layer: &mut ProxyLayer,
        out: &mut Vec<u8>,
    ) -> Result<Self, ConnectError> {
        let mut first = Vec::new();
        let handshake = Self::begin(route, &mut first)?;
        proxy_layer.start(&route.proxy, out)?;
        proxy_layer.encode(&route.proxy, &first, out)?;
        Ok(handshake)
    }

    fn begin(route: &Route, out: &mut Vec<u8>) -> Result<Self, ConnectError> {
        let credentials = route.proxy.credentials();
        match route.proxy.protocol() {
            ProxyProtocol::Http | ProxyProtocol::Https => {
                Ok(Self::Http(http::begin(route, credentials, out)))
            }
            ProxyProtocol::Socks5 { .. } => {
                let destination = match route.address {
                    Some(address) => Destination::Address(address),
                    None if route.target.host().len() > MAX_NAME => {
                        return Err(name_too_long(route));
                    }
                    None => Destination::Name(route.target.host(), route.target.port()),
                };
                Ok(Self::Socks5(Socks5::new(&destination, credentials, out)))
            }
        }
    }

    /// Takes received bytes, and appends to `out` what is sent next. Returns true when the tunnel is open; the bytes
    /// that are left come from the server.
    pub(super) fn receive(
        &mut self,
        route: &Route,
        input: &mut Input<'_>,
        out: &mut Vec<u8>,
    ) -> Result<bool, ConnectError> {
        match self {
            Self::Http(tunnel) => {
                tunnel.next(input).map_err(|error| http::failure(route, tunnel, error))
            }
            Self::Socks5(socks) => {
                socks.receive(input, out).map_err(|failure| socks_failure(route, failure))
            }
        }
    }

    /// Nothing more arrives. If the proxy was in the middle of a refusal, returns that.
    pub(super) fn partial_refusal(&mut self, route: &Route) -> Option<ConnectError> {
        match self {
            Self::Http(tunnel) => tunnel.end().map(|refusal| http::failure(route, tunnel, refusal)),
            Self::Socks5(_) => None,
        }
    }
}

fn name_too_long(route: &Route) -> ConnectError {
    let reason = "the name is longer than the 255 bytes that SOCKS5 allows";
    let source = io::Error::new(ErrorKind::InvalidInput, reason);
    ConnectError::Resolve { host: route.target.host().to_string(), source }
}

fn socks_failure(route: &Route, failure: SocksFailure) -> ConnectError {
    let proxy = route.proxy_text();
    match failure {
        SocksFailure::Authentication => {
            let sent = route.proxy.credentials().is_some();
            ConnectError::ProxyAuthentication { proxy, sent, challenge: None }
        }
        SocksFailure::Refused(reply) => {
            ConnectError::SocksRefused { proxy, target: route.target_text(), reply }
        }
        SocksFailure::Invalid(error) => {
            ConnectError::ProxyAnswer { proxy, source: ProxyAnswerError::Socks(error) }
        }
    }
}
