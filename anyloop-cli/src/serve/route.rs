//! The handlers of `anyloop serve`: the path of the request selects one.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyloop::endpoint::{Counters, HandlerFactory};
use anyloop::http::{HeaderValue, Method, StatusCode, header};
use anyloop::net::Server;
use anyloop::prelude::*;
use anyloop::transport::Peer;
use serde::Serialize;

use super::broadcast::{Broadcast, Subscriber};
use super::files::Files;
use super::traffic::Traffic;
use super::{log, page};
use crate::stdio;

pub(super) type RouteServer = Server<RouteFactory>;

/// The time between two messages with the counters.
const STATS_INTERVAL: Duration = Duration::from_secs(1);

/// The handler of one connection, as large as a pointer. An echo, which most connections are, has no state.
pub(super) enum RouteHandler {
    /// `/` and `/echo`.
    Echo,
    /// A route with shared state, or none yet.
    Shared(Arc<RouteState>),
}

/// What connections with this handler share: the state of a route, or the routes to select from.
pub(super) enum RouteState {
    /// The request has not arrived. It selects the echo or one of these routes.
    Unselected {
        /// The echo, if messages are logged.
        logged_echo: Option<Arc<Self>>,
        broadcast: Arc<Broadcast>,
        /// The route of the broadcast, if messages are not logged.
        shared_broadcast: Option<Arc<Self>>,
        stats: Arc<Self>,
        files: Option<Files>,
    },
    /// An echo whose messages are logged.
    LoggedEcho,
    /// `/broadcast`: each message is sent to all connections of the route.
    Broadcast(Arc<Broadcast>),
    /// A connection of `/broadcast` whose messages are logged: no context names its peer when it is sent one.
    LoggedBroadcast { broadcast: Arc<Broadcast>, peer: Peer },
    /// `/stats`: the counters are sent once a second.
    Stats { since: Instant, traffic: Traffic, logged: bool },
}

/// Creates the handlers, with no route selected yet.
pub(super) struct RouteFactory(Arc<RouteState>);

/// Creates the server in this loop. It serves `files` beside its services.
pub(super) fn server(
    event_loop: &EventLoop,
    config: ServerConfig,
    files: Option<Files>,
) -> RouteServer {
    let logged = log::has_frames();
    let stats = RouteState::Stats { since: Instant::now(), traffic: Traffic::default(), logged };
    let broadcast: Arc<Broadcast> = Arc::default();
    let unselected = RouteState::Unselected {
        logged_echo: logged.then(|| Arc::new(RouteState::LoggedEcho)),
        shared_broadcast: (!logged).then(|| Arc::new(RouteState::Broadcast(broadcast.clone()))),
        broadcast,
        stats: Arc::new(stats),
        files,
    };
    let factory = RouteFactory(Arc::new(unselected));
    let mut server = RouteServer::with_factory_on(event_loop, config, factory);
    server.on_accept_error(|error| {
        stdio::report(&format!("cannot accept a connection: {error}"));
    });
    server
}

impl HandlerFactory for RouteFactory {
    type Handler = RouteHandler;

    fn make(&self) -> RouteHandler {
        RouteHandler::Shared(self.0.clone())
    }
}

impl Handler for RouteHandler {
    fn validate(&mut self, request: &Request, context: &mut Context<'_, Self>) -> Answer {
        let Self::Shared(route) = self else { return Answer::Accept(Accept::new()) };
        let RouteState::Unselected { logged_echo, broadcast, shared_broadcast, stats, .. } =
            &**route
        else {
            return Answer::Accept(Accept::new());
        };
        *self = match request.uri().path() {
            "/" | "/echo" => logged_echo.clone().map_or(Self::Echo, Self::Shared),
            "/broadcast" => Self::Shared(shared_broadcast.clone().unwrap_or_else(|| {
                let (broadcast, peer) = (broadcast.clone(), context.peer());
                Arc::new(RouteState::LoggedBroadcast { broadcast, peer })
            })),
            "/stats" => Self::Shared(stats.clone()),
            _ => return not_found(),
        };
        Answer::Accept(Accept::new())
    }

    fn http(&mut self, request: &Request, context: &mut Context<'_, Self>) -> Answer {
        let answer = match (self.get(request), request.method()) {
            (Some(answer), &Method::GET | &Method::HEAD) => answer,
            (Some(_), _) => method_not_allowed(),
            (None, _) => not_found(),
        };
        log::answered(request, &answer, context);
        answer
    }

    fn open(&mut self, context: &mut Context<'_, Self>) {
        log::opened(context);
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
        if let Some(broadcast) = self.subscription() {
            broadcast.fall_behind(context);
        }
    }

    fn drained(&mut self, context: &mut Context<'_, Self>) {
        match self {
            Self::Echo => context.resume_reading(),
            Self::Shared(route) => route.catch_up(context),
        }
    }

    fn ping(&mut self, payload: &[u8], context: &mut Context<'_, Self>) -> bool {
        if self.is_logged() {
            log::control("Ping", payload, context);
        }
        true
    }

    fn pong(&mut self, payload: &[u8], _: Option<Duration>, context: &mut Context<'_, Self>) {
        if self.is_logged() {
            log::control("Pong", payload, context);
        }
    }

    fn fail(&mut self, failure: &Failure, context: &mut Context<'_, Self>) {
        log::failed(failure, context);
    }

    fn close(&mut self, ending: &Ending<'_>, context: &mut Context<'_, Self>) {
        log::closed(ending, context);
        if let Self::Shared(route) = self {
            route.leave(context);
        }
    }
}

impl Subscriber for RouteHandler {
    fn subscription(&self) -> Option<&Broadcast> {
        let Self::Shared(route) = self else { return None };
        route.broadcast().map(|broadcast| &**broadcast)
    }

    fn log_sent(&self, message: Message<'_>) {
        let Self::Shared(route) = self else { return };
        if let RouteState::LoggedBroadcast { peer, .. } = &**route {
            log::message('>', message, peer);
        }
    }
}

impl RouteHandler {
    /// Whether the messages of this connection are logged.
    fn is_logged(&self) -> bool {
        let Self::Shared(route) = self else { return false };
        match &**route {
            RouteState::LoggedEcho | RouteState::LoggedBroadcast { .. } => true,
            RouteState::Stats { logged, .. } => *logged,
            RouteState::Broadcast(_) | RouteState::Unselected { .. } => false,
        }
    }

    /// The answer to GET and HEAD, without regard to the method: services come first, then files, then the page.
    /// `None` if there is nothing at the path.
    fn get(&self, request: &Request) -> Option<Answer> {
        let path = request.uri().path();
        if matches!(path, "/echo" | "/broadcast" | "/stats") {
            return Some(Answer::upgrade_required());
        }
        let file = self
            .files()
            .and_then(|files| files.respond(path, request.uri().query(), request.headers()));
        let response = file.or_else(|| (path == "/").then(|| page::respond(request)));
        response.map(Answer::Respond)
    }

    /// The files that are served beside the services.
    fn files(&self) -> Option<&Files> {
        let Self::Shared(route) = self else { return None };
        let RouteState::Unselected { files, .. } = &**route else { return None };
        files.as_ref()
    }
}

impl RouteState {
    /// The broadcast that a connection of this route receives, if any.
    fn broadcast(&self) -> Option<&Arc<Broadcast>> {
        match self {
            Self::Broadcast(broadcast) | Self::LoggedBroadcast { broadcast, .. } => Some(broadcast),
            Self::Unselected { .. } | Self::LoggedEcho | Self::Stats { .. } => None,
        }
    }

    fn open(&self, context: &mut Context<'_, RouteHandler>) {
        if let Self::Stats { .. } = self {
            self.send_counters(context);
        }
    }

    fn message(&self, message: Message<'_>, context: &mut Context<'_, RouteHandler>) {
        match self {
            Self::Broadcast(broadcast) => broadcast.publish(message, false, context),
            Self::LoggedBroadcast { broadcast, peer } => {
                log::message('<', message, peer);
                broadcast.publish(message, true, context);
            }
            Self::LoggedEcho => {
                let peer = context.peer();
                log::message('<', message, &peer);
                if let Ok(Sent::Backpressure) = context.send(message) {
                    context.pause_reading();
                }
                log::message('>', message, &peer);
            }
            Self::Stats { logged: true, .. } => log::message('<', message, &context.peer()),
            Self::Stats { .. } | Self::Unselected { .. } => {}
        }
    }

    /// The peer has read what it was sent: publishers do not wait for this connection any more.
    fn catch_up(&self, context: &mut Context<'_, RouteHandler>) {
        match self {
            Self::Broadcast(broadcast) | Self::LoggedBroadcast { broadcast, .. } => {
                broadcast.catch_up(context.handle().id());
            }
            Self::LoggedEcho => context.resume_reading(),
            Self::Stats { .. } | Self::Unselected { .. } => {}
        }
    }

    /// The connection has ended.
    fn leave(&self, context: &mut Context<'_, RouteHandler>) {
        if let Some(broadcast) = self.broadcast() {
            broadcast.leave(context.handle().id());
        }
    }

    /// Sends the counters, now and after each interval.
    fn send_counters(&self, context: &mut Context<'_, RouteHandler>) {
        let Self::Stats { since, traffic, logged } = self else { return };
        // A peer that has not read the last counters misses these.
        if context.buffered_amount() == 0 {
            let stats = Stats::new(&traffic.counters(&context.endpoint()), since.elapsed());
            let line = stats.line();
            if *logged {
                log::message('>', line.as_str().into(), &context.peer());
            }
            let _ = context.send(line.as_str());
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
    started: u64,
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
            connections: counters.started.saturating_sub(ended),
            open: counters.opened.saturating_sub(counters.closed),
            started: counters.started,
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

fn not_found() -> Answer {
    Answer::status(StatusCode::NOT_FOUND, "there is nothing here")
}

/// 405, as nginx and Caddy answer OPTIONS, too, for a file.
fn method_not_allowed() -> Answer {
    let mut answer =
        Answer::status(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are allowed");
    if let Answer::Respond(response) = &mut answer {
        // RFC 9110 §15.5.6.
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handler_is_one_word() {
        assert_eq!(size_of::<RouteHandler>(), size_of::<usize>());
    }
}
