//! A client that is redirected: the same connection begins anew, over another byte stream.

use std::sync::Arc;

use anyloop_proto::handshake::http::{HeaderValue, StatusCode, header};
use anyloop_proto::handshake::{ClientOptions, RequestError, Target};
use anyloop_proto::{Cause, HandshakeError, Instant, Protocol};

use super::Session;
use super::flags::Flags;
use super::handler::Handler;
use super::state::{ClientRequest, HandshakeInfo, HandshakeOutput};

/// The statuses of redirects (RFC 9110 §15.4). 300 and 304 do not name one other location.
const REDIRECTS: [StatusCode; 5] = [
    StatusCode::MOVED_PERMANENTLY,
    StatusCode::FOUND,
    StatusCode::SEE_OTHER,
    StatusCode::TEMPORARY_REDIRECT,
    StatusCode::PERMANENT_REDIRECT,
];

impl<H: Handler> Session<H> {
    /// Sets whether the driver's owner follows redirects. While it does, the end of a client that was redirected is
    /// held back, until this is false again or the client has [begun anew](Self::restart).
    pub(crate) fn set_follows_redirects(&mut self, follows: bool) {
        self.state.rare_mut().handshake.get_or_insert_default().follows_redirects = follows;
    }

    /// The location to which the server has redirected the client. `None` without a redirect, if the driver's owner
    /// does not follow redirects, or if the application has terminated the connection, or closed it before the response
    /// was complete.
    pub(crate) fn redirect(&self) -> Option<&HeaderValue> {
        let follows = self.state.handshake_info().is_some_and(|info| info.follows_redirects);
        if !follows || self.state.flags.has(Flags::TERMINATED) {
            return None;
        }
        let Protocol::Client(handshake) = &self.protocol else { return None };
        let Cause::Handshake(HandshakeError::Rejected(_)) = handshake.failure()?.cause() else {
            return None; // it was abandoned
        };
        let response = handshake.response()?;
        let location = response.headers().get(header::LOCATION);
        location.filter(|_| REDIRECTS.contains(&response.status()))
    }

    /// Whether this is a client whose opening handshake is not over yet.
    pub(crate) const fn is_opening(&self) -> bool {
        matches!(self.protocol, Protocol::Client(_))
    }

    /// Begins anew, with a request for another target.
    pub(crate) fn restart(
        &mut self,
        target: &Target,
        options: Arc<ClientOptions>,
        now: Instant,
    ) -> Result<(), RequestError> {
        let mut bytes = Vec::new();
        self.protocol = Protocol::client(target, options, now, &mut bytes)?;
        let info = HandshakeInfo {
            target: Some(target.clone()),
            follows_redirects: true,
            ..HandshakeInfo::default()
        };
        let rare = self.state.rare_mut();
        (rare.handshake, rare.peer) = (Some(Box::new(info)), None);
        // The limits were applied when the connection was registered.
        let request = ClientRequest { bytes, secure: target.secure(), limits: None };
        rare.handshake_output = Some(Box::new(HandshakeOutput::Request(request)));
        self.state.flags.set(Flags::REQUEST_UNSENT, true);
        Ok(())
    }
}
