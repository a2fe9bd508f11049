//! Tunnels through HTTP proxies: what their refusals mean.

use anyloop_proto::HandshakeError;
use anyloop_proto::handshake::TunnelHandshake;
use anyloop_proto::handshake::http::header::PROXY_AUTHENTICATE;
use anyloop_proto::handshake::http::{Response, StatusCode};

use super::super::error::{ConnectError, ProxyAnswerError};
use super::Route;

/// The most bytes of the body of a refusal that are kept.
const MAX_BODY: usize = 4096;

pub(super) fn begin(
    route: &Route,
    credentials: Option<(&[u8], &[u8])>,
    out: &mut Vec<u8>,
) -> TunnelHandshake {
    TunnelHandshake::new(&route.target, credentials, MAX_BODY, out)
}

/// The error for a tunnel that was not opened.
pub(super) fn failure(
    route: &Route,
    tunnel: &TunnelHandshake,
    error: HandshakeError,
) -> ConnectError {
    let proxy = route.proxy_text();
    let Some(response) = tunnel.response() else {
        return ConnectError::ProxyAnswer { proxy, source: ProxyAnswerError::Http(error) };
    };
    // tinyproxy answers a wrong password with 401 instead of 407. The server cannot have sent it: there is no tunnel.
    let wanting_credentials = [StatusCode::PROXY_AUTHENTICATION_REQUIRED, StatusCode::UNAUTHORIZED];
    if wanting_credentials.contains(&response.status()) {
        let with_credentials = route.proxy.credentials().is_some();
        let challenge = challenge(response);
        return ConnectError::ProxyAuthentication { proxy, with_credentials, challenge };
    }
    ConnectError::ProxyRefused {
        proxy,
        target: route.target_text(),
        status: response.status().as_u16(),
        body: response.body().clone(),
    }
}

/// The challenges of the proxy, as one line (RFC 9110 §11.7.1).
fn challenge(response: &Response<Vec<u8>>) -> Option<String> {
    let fields = response.headers().get_all(PROXY_AUTHENTICATE).iter();
    let all: Vec<_> = fields.map(|value| String::from_utf8_lossy(value.as_bytes())).collect();
    (!all.is_empty()).then(|| all.join(", "))
}
