//! The opening handshake of a connection that follows redirects.

use std::sync::Arc;

use anyloop_proto::Instant;
use anyloop_proto::handshake::http::HeaderMap;
use anyloop_proto::handshake::http::header::{AUTHORIZATION, COOKIE, HOST, PROXY_AUTHORIZATION};
use anyloop_proto::handshake::{ClientOptions, Target, UriError};

use super::super::error::{ConnectError, Error, RedirectError};
use super::super::layer::TlsLayer;
use super::super::resolver::Resolver;
use super::super::serves_connections::ServesConnections;
use super::{Connecting, Destination, FirstHop, Step};
use crate::endpoint::{ClientConfig, Handler, HandlerFactory, Session, options_without_auto_pong};
use crate::event_loop::{Events, Next, Turn};
use crate::transport::Driver;

/// What is needed to follow redirects.
pub(in crate::net) struct Redirects {
    followed: u32,
    /// The target of the last request.
    target: Target,
    config: ClientConfig,
    resolver: Arc<Resolver>,
}

impl Redirects {
    /// For a connection to `target`; `None` if its redirects are not followed.
    pub(in crate::net) fn of(
        target: &Target,
        destination: Option<&Destination>,
        config: &ClientConfig,
        resolver: impl FnOnce() -> Arc<Resolver>,
    ) -> Option<Box<Self>> {
        if config.redirects == 0 || destination.is_some() {
            return None;
        }
        let config =
            ClientConfig { handshake: options_without_auto_pong(config), ..config.clone() };
        Some(Box::new(Self { followed: 0, target: target.clone(), config, resolver: resolver() }))
    }

    /// Restarts the session with a request to `location`. Returns what the next connection needs.
    fn follow<H: Handler>(
        &mut self,
        session: &mut Session<H>,
        location: &str,
        now: Instant,
    ) -> Result<(TlsLayer, FirstHop), RedirectError> {
        if self.followed >= self.config.redirects {
            return Err(RedirectError::TooMany(self.followed));
        }
        let target = self.target.join(location).map_err(RedirectError::Uri)?;
        if self.target.secure() && !target.secure() {
            return Err(RedirectError::Downgrade);
        }
        let is_same_origin = self.target.has_same_origin(&target);
        let allowed = self.target.authorization().filter(|_| is_same_origin);
        if target.authorization() != allowed {
            return Err(RedirectError::Uri(UriError::UserInfo)); // RFC 9110 §4.2.4
        }
        if !is_same_origin {
            remove_credentials(Arc::make_mut(&mut self.config.handshake));
        }
        let connect = |error| RedirectError::Connect(Box::new(error));
        let tls_layer = TlsLayer::for_client(&target, &self.config).map_err(connect)?;
        let hop = FirstHop::new(target.clone(), None, &self.config).map_err(connect)?;
        session
            .restart(&target, self.config.handshake.clone(), now)
            .map_err(|error| connect(Error::Request(error)))?;
        crate::log::debug!("redirected from {} to {target}", self.target);
        (self.target, self.followed) = (target, self.followed + 1);
        Ok((tls_layer, hop))
    }
}

/// Removes the header fields that no other origin may get.
fn remove_credentials(options: &mut ClientOptions) {
    let secret = [AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION, HOST];
    let mut kept = HeaderMap::new();
    for (name, value) in &options.headers {
        if !secret.contains(name) && !value.is_sensitive() {
            kept.append(name.clone(), value.clone());
        }
    }
    options.headers = kept;
}

impl<F: HandlerFactory> Connecting<F> {
    /// Serves the stream until the handshake is over. Returns `None` if there is no stream: there was none, or the
    /// server has redirected the client.
    pub(super) fn run_opening_stream<K: ServesConnections<F::Handler>>(
        &mut self,
        turn: &mut Turn<'_, K>,
    ) -> Option<Next<K>> {
        let next = self.stream.as_mut()?.run(turn); // if this panics, the stream's next turn handles what is left
        let stream = self.stream.take()?;
        if stream.is_closed() {
            return Some(next);
        }
        let location = stream.session().redirect();
        if let Some(location) = location.map(|it| String::from_utf8_lossy(it.as_bytes()).into()) {
            turn.state.unconsumed = Events::NONE; // the events are those of the old stream
            self.follow_redirect(stream.into_session(), location, turn);
            return None;
        }
        if stream.session().is_opening() {
            self.stream = Some(stream);
            return Some(next);
        }
        Some(Next::Become(stream.into_source::<K>()))
    }

    /// Begins to connect to `location`, or fails.
    fn follow_redirect<K: ServesConnections<F::Handler>>(
        &mut self,
        mut session: Session<F::Handler>,
        location: String,
        turn: &mut Turn<'_, K>,
    ) {
        let Some(redirects) = &mut self.redirects else { return };
        let followed = redirects.follow(&mut session, &location, turn.state.now);
        if let Some(total) = self.options.total_timeout {
            session.expire_by(self.started + total);
        }
        let resolver = redirects.resolver.clone();
        match followed {
            Ok((tls_layer, first_hop)) => {
                self.driver = Some(Driver::new(session));
                (self.tls_layer, self.first_hop) = (tls_layer, first_hop);
                self.step = Step::Begin(Destination::Host(resolver));
            }
            Err(source) => {
                session.set_follows_redirects(false);
                self.driver = Some(Driver::new(session));
                self.fail(ConnectError::Redirect { location, source }, turn);
            }
        }
    }
}
