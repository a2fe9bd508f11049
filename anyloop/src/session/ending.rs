//! The end of a connection.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use anyloop_proto::{Connection, Failure, Instant, Protocol};

use super::Session;
use super::handler::Handler;
use super::state::HandshakeInfo;
use crate::stream::{Budget, WriteBuffer};

impl<H: Handler> Session<H> {
    /// Prepares to notify the handler of the end, and spends the budget for that. Returns whether the stream may
    /// be closed now, as `StreamProtocol::prepare_close` says.
    pub(super) fn prepare_end(&mut self, budget: &mut Budget) -> bool {
        if self.state.is_resume_requested() || self.redirect().is_some() {
            return false; // `resume` comes first; or the driver's owner follows the redirect, and the session continues
        }
        let notifies = match &self.protocol {
            Protocol::Open(_) => true,
            Protocol::Server(_) | Protocol::Client(_) => self.protocol.failure().is_some(),
            Protocol::Closed => return false,
        };
        if notifies && !budget.try_spend() {
            self.state.request_resume();
        }
        !self.state.is_resume_requested()
    }

    /// The stream is closed. Notifies the handler, unless a plain HTTP request was answered completely. Frees the
    /// protocol and the rare data, except for the state that handles share.
    pub(super) fn notify_end(&mut self, out: &mut WriteBuffer<'_>, now: Instant) {
        let peer = crate::log::describe(|| self.describe_peer(out));
        let protocol = std::mem::take(&mut self.protocol);
        match (protocol.failure(), &protocol) {
            (Some(failure), _) => crate::log::debug!("{peer}: {failure}"),
            (None, Protocol::Open(connection)) => {
                let by = crate::log::describe(|| {
                    connection.ending().map(|ending| ending.by.to_string()).unwrap_or_default()
                });
                crate::log::debug!("{peer}: closed; {by} sent Close first");
            }
            (None, _) => {}
        }
        // Calls the completions of messages that are deferred or in the mailbox (the handles' command queue), and drops
        // the body. A panic of these must not keep the handler from being notified.
        let ended = catch_unwind(AssertUnwindSafe(|| self.state.end()));
        let notified = catch_unwind(AssertUnwindSafe(|| self.notify_handler(protocol, out, now)));
        self.state.free_all_but_shared();
        if let Err(panic) = ended.and(notified) {
            resume_unwind(panic);
        }
    }

    fn notify_handler(&mut self, protocol: Protocol, out: &mut WriteBuffer<'_>, now: Instant) {
        match protocol {
            Protocol::Open(connection) => self.notify_close(&connection, out, now),
            Protocol::Server(handshake) => {
                let failure = handshake.failure();
                if failure.is_none() {
                    self.state.endpoint.counters.http.add(1); // plain HTTP that was answered
                }
                let request = handshake.into_request();
                let info = HandshakeInfo { request, ..HandshakeInfo::default() };
                self.notify_failure(failure, info, out, now);
            }
            Protocol::Client(handshake) => {
                let failure = handshake.failure();
                let (target, response) = (self.state.take_target(), handshake.into_response());
                let info = HandshakeInfo { target, response, ..HandshakeInfo::default() };
                self.notify_failure(failure, info, out, now);
            }
            Protocol::Closed => {}
        }
    }

    fn notify_close(&mut self, connection: &Connection, out: &mut WriteBuffer<'_>, now: Instant) {
        self.state.endpoint.counters.add_closed(connection.statistics());
        if let Some(ending) = connection.ending() {
            self.call(out, now, |handler, context| handler.close(&ending, context));
        }
    }

    fn notify_failure(
        &mut self,
        failure: Option<Failure>,
        info: HandshakeInfo,
        out: &mut WriteBuffer<'_>,
        now: Instant,
    ) {
        if let Some(failure) = failure {
            self.state.endpoint.counters.failed.add(1);
            self.state.rare_mut().handshake = Some(Box::new(info));
            self.call(out, now, |handler, context| handler.fail(&failure, context));
        }
    }
}
