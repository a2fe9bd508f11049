//! The opening handshake.

use std::collections::VecDeque;
use std::marker::PhantomData;

use anyloop_proto::handshake::{AnswerError, Incoming, Opened, Request};
use anyloop_proto::{Input, Instant, Output, Protocol};

use super::Session;
use super::flags::Flags;
use super::handler::{Answer, Context, Handler};
use super::phase::Phase;
use super::shared::Command;
use super::state::HandshakeInfo;
use crate::stream::{Budget, WriteBuffer};

impl<H: Handler> Session<H> {
    /// Called when the transport is connected. A client sends its request, or fails if the URI is `wss` and the
    /// transport is not secure. A client that was abandoned sends nothing. Does nothing on a server.
    pub(super) fn begin_handshake(
        &mut self,
        secure: bool,
        out: &mut WriteBuffer<'_>,
        now: Instant,
    ) {
        self.state.flags.set(Flags::REQUEST_UNSENT, false);
        let Protocol::Client(handshake) = &mut self.protocol else { return };
        let request = self.state.take_request();
        if handshake.failure().is_some() {
            return;
        }
        handshake.restart_open_timeout(now);
        match request {
            Some(request) if request.secure && !secure => _ = handshake.handle_insecure(),
            Some(request) => out.buffer().extend_from_slice(&request.bytes),
            None => {}
        }
    }

    /// Takes input of the opening handshake.
    pub(super) fn receive_handshake(
        &mut self,
        input: &mut Input<'_>,
        out: &mut WriteBuffer<'_>,
        budget: &mut Budget,
        now: Instant,
    ) {
        if budget.is_spent() {
            if !input.is_empty() {
                self.state.request_resume();
            }
            return;
        }
        let Self { protocol, handler, state } = self;
        match protocol {
            Protocol::Server(handshake) => {
                // Either more input is needed, or the request was invalid and has been answered; in the latter case
                // `Handler::fail` is called when the stream ends.
                let Ok(Some(incoming)) = handshake.next(input, now, out) else { return };
                budget.spend();
                let (Incoming::Upgrade(request) | Incoming::Http(request)) = incoming;
                let phase = Phase::awaiting_answer(request.method());
                // Handles may answer from now on, also from another thread during the call.
                state.publish(out.queued(), phase);
                let reborrowed = out.reborrow();
                let (sender, receiver, new_handler) = (None, None, None);
                let mut context = Context {
                    marker: PhantomData,
                    sender,
                    receiver,
                    out: reborrowed,
                    state,
                    now,
                    unrun: None,
                    new_handler,
                };
                let answer = match incoming {
                    Incoming::Upgrade(request) => handler.validate(request, &mut context),
                    Incoming::Http(request) => handler.http(request, &mut context),
                };
                if let Some(new_handler) = context.new_handler {
                    *handler = new_handler;
                }
                if self.state.flags.has(Flags::TERMINATED) {
                    return self.terminate_if_asked();
                }
                self.answer(answer, out, now);
                self.send_body(out, budget, now);
            }
            Protocol::Client(handshake) => {
                if let Ok(Some(opened)) = handshake.next(input, now, out) {
                    self.open(opened, None, out);
                }
            }
            Protocol::Open(_) | Protocol::Closed => {}
        }
    }

    /// Answers the request with the application's answer.
    pub(super) fn answer(&mut self, answer: Answer, out: &mut WriteBuffer<'_>, now: Instant) {
        let Protocol::Server(handshake) = &mut self.protocol else { return };
        let answered = match answer {
            Answer::Defer => Ok(None),
            Answer::Accept(accept) => handshake.accept(accept, now, out).map(Some),
            Answer::AcceptWith(accept, config) => {
                handshake.configure(|connection| config.apply_to(connection));
                self.state.set_limits(config.apply_to_limits(self.state.endpoint.limits));
                handshake.accept(accept, now, out).map(Some)
            }
            Answer::Respond(response) => self.respond(response, out, now).map(|()| None),
        };
        match answered {
            Ok(None) => {}
            Ok(Some(opened)) => {
                let request = match std::mem::take(&mut self.protocol) {
                    Protocol::Server(handshake) => handshake.into_request(),
                    _ => None,
                };
                self.open(opened, request, out);
            }
            // No request waits for an answer: it was answered, or has timed out.
            Err(AnswerError::NotAwaiting) => {}
            // An invalid answer becomes 500, so that the client does not wait.
            Err(error) => {
                crate::log::error!(
                    "the application's answer is invalid, 500 is sent instead: {error}"
                );
                if let Protocol::Server(handshake) = &mut self.protocol {
                    let _ = handshake.respond_internal_error(now, out);
                }
                // Available as `Context::error` in `Handler::fail`.
                self.state.rare_mut().error.get_or_insert_with(|| Box::new(error));
            }
        }
    }

    /// The connection is open. The handler is notified by [`notify_open`](Self::notify_open).
    fn open(&mut self, opened: Opened, request: Option<Request>, out: &WriteBuffer<'_>) {
        let Opened { connection, response, subprotocol, extension, .. } = opened;
        let peer = crate::log::describe(|| self.describe_peer(out));
        crate::log::debug!("{peer}: open, subprotocol {subprotocol:?}, extension {extension:?}");
        self.protocol = Protocol::Open(connection);
        self.state.endpoint.counters.opened.add(1);
        self.state.publish(out.queued(), Phase::Open);
        let response = Some(response.map(|()| Vec::new()));
        let target = self.state.take_target();
        let info = HandshakeInfo {
            target,
            request,
            response,
            subprotocol,
            extension,
            follows_redirects: false,
        };
        self.state.rare_mut().handshake = Some(Box::new(info));
        self.state.flags.set(Flags::NOTIFY_OPEN, true);
    }

    /// Notifies the handler that the connection is open, unless it was notified. Returns false if the budget is spent
    /// and the call is still due. `unrun`: the commands of the present batch that have not run.
    pub(super) fn notify_open(
        &mut self,
        mut unrun: Option<&mut VecDeque<Command>>,
        out: &mut WriteBuffer<'_>,
        budget: &mut Budget,
        now: Instant,
    ) -> bool {
        if !self.state.flags.has(Flags::NOTIFY_OPEN) {
            return true;
        }
        if !budget.try_spend() {
            self.state.request_resume();
            return false;
        }
        self.state.flags.set(Flags::NOTIFY_OPEN, false);
        self.call_within(unrun.as_deref_mut(), out, now, Handler::open);
        // What handles have requested before the opening: messages, and perhaps a close.
        if self.state.flags.has(Flags::DEFERRED) {
            self.call_within(unrun, out, now, |_, context| context.send_deferred());
        }
        if !self.state.endpoint.keep_handshake {
            self.state.rare_mut().forget_handshake();
        }
        true
    }

    /// The peer as text, for the log.
    pub(super) fn describe_peer(&self, out: &WriteBuffer<'_>) -> String {
        self.state.peer().map_or_else(|| out.peer().to_string(), ToString::to_string)
    }
}
