//! Requests that another HTTP server has read.

use anyloop_proto::handshake::http::Request;

/// Encodes the head of `request` as it was received. A target in absolute form stays absolute, since its host takes
/// precedence over the field `Host` (RFC 9112 §3.2.2).
pub(crate) fn encode_request_head<B>(request: &Request<B>) -> Vec<u8> {
    let uri = request.uri();
    let target = match (uri.authority(), uri.path_and_query()) {
        (None, Some(target)) => target.to_string(),
        _ => uri.to_string(),
    };
    let mut head =
        format!("{} {target} {:?}\r\n", request.method(), request.version()).into_bytes();
    for (name, value) in request.headers() {
        head.extend_from_slice(name.as_str().as_bytes());
        head.extend_from_slice(b": ");
        head.extend_from_slice(value.as_bytes());
        head.extend_from_slice(b"\r\n");
    }
    head.extend_from_slice(b"\r\n");
    head
}
