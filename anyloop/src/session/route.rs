//! The route that the path of a request has matched.

use std::sync::Arc;

use super::handler::{Context, Handler};

/// The route of a connection, and the parameters in its path.
#[derive(Debug)]
pub(crate) struct MatchedRoute {
    pub(crate) pattern: Arc<str>,
    /// Names and values, in the order of the path.
    pub(crate) params: Vec<(String, String)>,
}

impl<H: Handler> Context<'_, H> {
    /// The pattern of the route that the path of the request has matched, on a server with a
    /// [`Router`](crate::Router): `/rooms/{room}`. Always available in [`validate`](Handler::validate),
    /// [`http`](Handler::http), [`open`](Handler::open) and [`fail`](Handler::fail); later only if the handshake is
    /// [kept](crate::ServerConfig::keep_handshake).
    #[must_use]
    pub fn route(&self) -> Option<&str> {
        Some(&self.state.route()?.pattern)
    }

    /// The value of a parameter in the path of the request, percent-decoded; `None` if the [route](Self::route) has no
    /// parameter of this name. Available as long as the route.
    #[must_use]
    pub fn param(&self, name: &str) -> Option<&str> {
        let params = &self.state.route()?.params;
        params.iter().find(|(other, _)| other == name).map(|(_, value)| &**value)
    }

    pub(crate) fn set_route(&mut self, route: MatchedRoute) {
        self.state.rare_mut().route = Some(Box::new(route));
    }
}
