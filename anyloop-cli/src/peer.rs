//! Describes what a peer did.

use std::io::ErrorKind;

use anyloop::Handler;
use anyloop::endpoint::Context;
use anyloop::net::{ConnectError, Stage};
use anyloop::proto::{Cause, CloseFrame, Failure, HandshakeError};
use anyloop::tls::TlsError;

use crate::error::{CliError, chain};
use crate::escape;
use crate::refusal;

/// Why a connection of a client did not open, with the exit status for that. `may_follow` is whether `--location` would
/// make the command follow a redirect.
pub(crate) fn not_opened<H: Handler>(
    failure: &Failure,
    may_follow: bool,
    context: &Context<'_, H>,
) -> CliError {
    match (context.error(), failure.cause()) {
        (Some(error), _) if matches!(error.downcast_ref(), Some(ConnectError::Redirect { .. })) => {
            CliError::refused(chain(error))
        }
        (Some(error), _) if error.is::<TlsError>() => {
            let is_refused = matches!(error.downcast_ref(), Some(TlsError::ServerCertificate(_)));
            let why = chain(error);
            CliError::unreachable(match why.strip_suffix(SELF_SIGNED) {
                Some(why) => format!("{why}: --ca FILE trusts it, --insecure trusts anything"),
                None if is_refused => why + "; --ca FILE adds an authority",
                None => why,
            })
        }
        (Some(error), _) if error.is::<ConnectError>() => {
            let more = match error.downcast_ref() {
                Some(ConnectError::ProxyRefused { body, .. }) => refusal::first_lines(body),
                Some(error) => advice(error).to_string(),
                None => String::new(),
            };
            let why = chain(error);
            CliError::unreachable(match why.strip_suffix(SELF_SIGNED) {
                Some(why) => format!("{why}: --proxy-ca FILE trusts it"),
                None => why + &more,
            })
        }
        (_, Cause::Handshake(HandshakeError::Rejected(status))) => {
            CliError::refused(refusal::describe(status, may_follow, context.response()))
        }
        (
            None,
            Cause::Handshake(error @ (HandshakeError::Malformed | HandshakeError::NotHttp { .. })),
        ) => {
            let is_tls = matches!(error, HandshakeError::NotHttp { first_bytes, .. } if first_bytes.is_tls());
            let advice = if is_tls { ": use wss://" } else { "" };
            let peer = context.peer();
            CliError::refused(format!(
                "{peer} does not answer as a WebSocket server: {error}{advice}"
            ))
        }
        (Some(error), _) => {
            CliError::refused(format!("{}: {failure}: {}", context.peer(), chain(error)))
        }
        (None, _) => CliError::refused(format!("{}: {failure}", context.peer())),
    }
}

/// What the library says to do about a self-signed certificate. The command has an option for it.
const SELF_SIGNED: &str = "; add it as an authority to trust it";

/// What to do about an error.
fn advice(error: &ConnectError) -> &'static str {
    let (host, attempts) = match error {
        ConnectError::Resolve { .. } => return "; is the name right?",
        ConnectError::TimedOut { stage: Stage::Resolve, .. } => {
            return "; does the name server answer?";
        }
        ConnectError::TimedOut { stage: Stage::Proxy, .. } => {
            return "; is it a proxy, and of this kind?";
        }
        ConnectError::ProxyAuthentication { with_credentials: false, .. } => {
            return "; write USER:PASSWORD@ before its host";
        }
        ConnectError::ProxyTls { source: TlsError::ServerCertificate(_), .. } => {
            return "; --proxy-ca FILE adds an authority";
        }
        ConnectError::Connect { host, attempts }
        | ConnectError::TimedOut { host, attempts, .. } => (host, attempts),
        _ => return "",
    };
    match (attempts.last().map(|(_, error)| error.kind()), host.strip_prefix("unix:")) {
        (Some(ErrorKind::ConnectionRefused), Some(path)) if !is_socket(path) => {
            return "; it is not a socket";
        }
        (Some(ErrorKind::ConnectionRefused), Some(_)) => return "; is the server running?",
        _ => {}
    }
    match attempts.last().map(|(_, error)| error.kind()) {
        Some(ErrorKind::ConnectionRefused) if host.starts_with("proxy ") => {
            "; is the proxy running?"
        }
        Some(ErrorKind::ConnectionRefused) => "; is the server running, and the port right?",
        Some(ErrorKind::NotFound) => "; is the path of the socket right?",
        Some(ErrorKind::PermissionDenied) => "; may this user connect to it?",
        Some(ErrorKind::NetworkUnreachable | ErrorKind::HostUnreachable) => {
            "; is this machine connected to that network?"
        }
        Some(ErrorKind::TimedOut) | None => {
            "; is the address right, and does a firewall let it pass?"
        }
        Some(_) => "",
    }
}

/// Whether a socket is at this path.
#[cfg(unix)]
fn is_socket(path: &str) -> bool {
    use std::os::unix::fs::FileTypeExt;

    std::fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket())
}

#[cfg(not(unix))]
const fn is_socket(_: &str) -> bool {
    true
}

/// The peer's Close in words.
pub(crate) fn closed_with(frame: &CloseFrame) -> String {
    let Some(code) = frame.code else {
        return "the peer closed the connection without a code".to_string();
    };
    match escape::line(&frame.reason) {
        reason if reason.is_empty() => format!("the peer closed the connection with {code}"),
        reason => format!("the peer closed the connection with {code}: {reason}"),
    }
}
