//! The handlers of `anyloop serve`: the path of the request selects one.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use anyloop::endpoint::{Counters, HandlerFactory};
use anyloop::http::{HeaderValue, Method, StatusCode, header};
use anyloop::net::Server;
use anyloop::prelude::*;
use serde::Serialize;

use super::broadcast::Broadcast;
use super::page;
use super::traffic::Traffic;
use crate::stdio;

pub(super) type RouteServer = Server<RouteFactory>;

/// The time between two messages with the counters.
const STATS_INTERVAL: Duration = Duration::from_secs(1);

/// The handler of one connection, in one word. An echo, which most connections are, has no state.
pub(super) enum RouteHandler {
    /// `/` and `/echo`.
    Echo,
    /// A route with shared state, or none yet.
    Shared(Arc<Route>),
}

/// What connections with this handler share: the state of a route, or the routes to select from.
pub(super) enum Route {
    /// The request has not arrived. It selects the echo or one of these routes.
    Unselected { broadcast: Arc<Self>, stats: Arc<Self> },
    /// `/broadcast`: each message is sent to all connections of the route.
    Broadcast { server: Weak<RouteServer>, state: Arc<Broadcast> },
    /// `/stats`: the counters are sent once a second.
    Stats { server: Weak<RouteServer>, since: Instant, traffic: Traffic },
}

/// Creates the handlers, with no route selected yet.
pub(super) struct RouteFactory(Arc<Route>);

/// Creates the server in this loop.
pub(super) fn server(event_loop: &EventLoop, config: ServerConfig) -> Arc<RouteServer> {
    Arc::new_cyclic(|server| {
        let stats = Route::Stats {
            server: server.clone(),
            since: Instant::now(),
            traffic: Traffic::default(),
        };
        let broadcast = Route::Broadcast { server: server.clone(), state: Arc::default() };
        let unselected =
            Route::Unselected { broadcast: Arc::new(broadcast), stats: Arc::new(stats) };
        let factory = RouteFactory(Arc::new(unselected));
        let mut server = RouteServer::with_factory_on(event_loop, config, factory);
        server.on_accept_error(|error| {
            stdio::report(&format!("cannot accept a connection: {error}"));
        });
        server
    })
}

impl HandlerFactory for RouteFactory {
    type Handler = RouteHandler;

    fn make(&self) -> RouteHandler {
        RouteHandler::Shared(self.0.clone())
    }
}

impl Handler for RouteHandler {
    fn validate(&mut self, request: &Request, _: &mut Context<'_, Self>) -> Verdict {
        let Self::Shared(route) = self else { return Verdict::Accept(Accept::new()) };
        let Route::Unselected { broadcast, stats } = &**route else {
            return Verdict::Accept(Accept::new());
        };
        *self = match request.uri().path() {
            "/" | "/echo" => Self::Echo,
            "/broadcast" => Self::Shared(broadcast.clone()),
            "/stats" => Self::Shared(stats.clone()),
            _ => return not_found(),
        };
        Verdict::Accept(Accept::new())
    }

    fn http(&mut self, request: &Request, _: &mut Context<'_, Self>) -> Verdict {
        match (request.uri().path(), request.method()) {
            ("/", &Method::GET | &Method::HEAD) => Verdict::Respond(page::respond(request)),
            ("/", _) => {
                let mut verdict = Verdict::status(StatusCode::METHOD_NOT_ALLOWED, "GET it");
                if let Verdict::Respond(response) = &mut verdict {
                    let allowed = HeaderValue::from_static("GET, HEAD");
                    response.headers_mut().insert(header::ALLOW, allowed);
                }
                verdict
            }
            ("/echo" | "/broadcast" | "/stats", _) => Verdict::upgrade_required(),
            _ => not_found(),
        }
    }

    fn open(&mut self, context: &mut Context<'_, Self>) {
        match self {
            Self::Shared(route) => route.open(context),
            Self::Echo => {}
        }
    }

    fn message(&mut self, message: Message<'_>, context: &mut Context<'_, Self>) {
        match self {
            // While a peer does not read its echoes, its messages are not read.
            Self::Echo => {
                if let Ok(Sent::Backpressure) = context.send(message) {
                    context.pause_reading();
                }
            }
            Self::Shared(route) => route.message(message, context),
        }
    }

    fn backpressure(&mut self, context: &mut Context<'_, Self>) {
        if let Some(broadcast) = self.broadcast() {
            broadcast.fall_behind(context);
        }
    }

    fn drained(&mut self, context: &mut Context<'_, Self>) {
        match self {
            Self::Echo => context.resume_reading(),
            Self::Shared(route) => route.catch_up(context),
        }
    }

    fn close(&mut self, _: &Ending<'_>, context: &mut Context<'_, Self>) {
        if let Self::Shared(route) = self {
            route.leave(context);
        }
    }
}

impl RouteHandler {
    /// Whether this connection receives broadcasts.
    pub(super) fn subscribes(&self) -> bool {
        self.broadcast().is_some()
    }

    /// The time for this subscriber to catch up is over; see [`Broadcast::stop_waiting`].
    pub(super) fn stop_waiting(&self, context: &mut Context<'_, Self>) {
        if let Some(broadcast) = self.broadcast() {
            broadcast.stop_waiting(context.handle().id());
        }
    }

    fn broadcast(&self) -> Option<&Broadcast> {
        match self {
            Self::Shared(route) => match &**route {
                Route::Broadcast { state, .. } => Some(state),
                Route::Unselected { .. } | Route::Stats { .. } => None,
            },
            Self::Echo => None,
        }
    }
}

impl Route {
    fn open(&self, context: &mut Context<'_, RouteHandler>) {
        match self {
            Self::Stats { .. } => self.send_counters(context),
            Self::Broadcast { .. } | Self::Unselected { .. } => {}
        }
    }

    fn message(&self, message: Message<'_>, context: &mut Context<'_, RouteHandler>) {
        let Self::Broadcast { server, state } = self else { return };
        if let Some(server) = server.upgrade() {
            state.publish(message, &server, context);
        }
    }

    /// Publishers do not wait for this connection any more.
    fn catch_up(&self, context: &mut Context<'_, RouteHandler>) {
        if let Self::Broadcast { state, .. } = self {
            state.catch_up(context.handle().id());
        }
    }

    /// The connection has ended.
    fn leave(&self, context: &mut Context<'_, RouteHandler>) {
        if let Self::Broadcast { state, .. } = self {
            state.leave(context.handle().id());
        }
    }

    /// Sends the counters, now and after each interval.
    fn send_counters(&self, context: &mut Context<'_, RouteHandler>) {
        let Self::Stats { server, since, traffic } = self else { return };
        let Some(server) = server.upgrade() else { return };
        // A peer that has not read the last counters misses these.
        if context.buffered_amount() == 0 {
            let stats = Stats::new(&traffic.counters(&server), since.elapsed());
            let _ = context.send(stats.line().as_str());
        }
        context.set_timer(STATS_INTERVAL, |handler, context| {
            if let RouteHandler::Shared(route) = handler {
                route.send_counters(context);
            }
        });
    }
}

/// The counters as `/stats` sends them, with values that are derived from them.
#[derive(Serialize)]
struct Stats {
    /// In seconds.
    uptime: f64,
    connections: u64,
    open: u64,
    made: u64,
    opened: u64,
    failed: u64,
    closed: u64,
    http: u64,
    messages_received: u64,
    bytes_received: u64,
    messages_sent: u64,
    bytes_sent: u64,
}

impl Stats {
    fn new(counters: &Counters, uptime: Duration) -> Self {
        let ended = counters.failed + counters.closed + counters.http;
        Self {
            uptime: uptime.as_millis() as f64 / 1000.0,
            connections: counters.made.saturating_sub(ended),
            open: counters.opened.saturating_sub(counters.closed),
            made: counters.made,
            opened: counters.opened,
            failed: counters.failed,
            closed: counters.closed,
            http: counters.http,
            messages_received: counters.messages_received,
            bytes_received: counters.bytes_received,
            messages_sent: counters.messages_sent,
            bytes_sent: counters.bytes_sent,
        }
    }

    /// One line of JSON.
    fn line(&self) -> String {
        serde_json::to_string(self).expect("numbers can be serialized")
    }
}

fn not_found() -> Verdict {
    Verdict::status(StatusCode::NOT_FOUND, "there is nothing here")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handler_is_one_word() {
        assert_eq!(size_of::<RouteHandler>(), size_of::<usize>());
    }
}
