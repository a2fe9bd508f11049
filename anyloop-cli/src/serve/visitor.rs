//! What the server does with a connection, by the path that the client has asked for.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use anyloop::endpoint::{Context, Counters, HandlerFactory, Sent, ServerSettings, Verdict};
use anyloop::net::Net;
use anyloop::proto::handshake::http::{HeaderValue, Method, Response, StatusCode, header};
use anyloop::proto::handshake::{Accept, Request};
use anyloop::proto::{Ending, Message};
use anyloop::{Handler, Server};
use serde::Serialize;

use super::broadcast::Broadcast;
use crate::stdio;

pub(super) type VisitorServer = Server<Net, Entrance>;

/// How often the counters are sent.
const PERIOD: Duration = Duration::from_secs(1);

const PAGE: &str = "<!doctype html>\n<meta charset=\"utf-8\">\n<title>Anyloop</title>\n\
    <p>This is a WebSocket server: connect to it by ws://. It echoes at /echo, sends to all at \
    /broadcast, and tells its counters at /stats.\n";

/// A connection, as the server sees it. It is one word: an echo, as most are, has nothing else.
pub(super) enum Visitor {
    Echo,
    At(Arc<Place>),
}

/// Where a connection can be, beside the echo.
pub(super) enum Place {
    /// It has asked for nothing yet.
    Entrance { broadcast: Arc<Self>, stats: Arc<Self> },
    /// What one publishes, all receive.
    Broadcast { server: Weak<VisitorServer>, state: Broadcast },
    /// The counters are told.
    Stats { server: Weak<VisitorServer>, since: Instant },
}

/// Leads every connection to the entrance.
pub(super) struct Entrance(Arc<Place>);

pub(super) fn server(settings: ServerSettings) -> Arc<VisitorServer> {
    Arc::new_cyclic(|server| {
        let stats = Place::Stats { server: server.clone(), since: Instant::now() };
        let broadcast = Place::Broadcast { server: server.clone(), state: Broadcast::default() };
        let place = Place::Entrance { broadcast: Arc::new(broadcast), stats: Arc::new(stats) };
        let mut server = VisitorServer::with_factory(settings, Entrance(Arc::new(place)));
        let net = server.transport_mut();
        net.on_accept_error(|error| stdio::report(&format!("cannot accept a connection: {error}")));
        server
    })
}

impl HandlerFactory for Entrance {
    type Handler = Visitor;

    fn make(&self) -> Visitor {
        Visitor::At(self.0.clone())
    }
}

impl Handler for Visitor {
    fn validate(&mut self, request: &Request, _: &mut Context<'_, Self>) -> Verdict {
        let Self::At(place) = self else { return Verdict::Accept(Accept::new()) };
        let Place::Entrance { broadcast, stats } = &**place else {
            return Verdict::Accept(Accept::new());
        };
        *self = match request.uri().path() {
            "/" | "/echo" => Self::Echo,
            "/broadcast" => Self::At(broadcast.clone()),
            "/stats" => Self::At(stats.clone()),
            _ => return not_found(),
        };
        Verdict::Accept(Accept::new())
    }

    fn http(&mut self, request: &Request, _: &mut Context<'_, Self>) -> Verdict {
        match (request.uri().path(), request.method()) {
            ("/", &Method::GET | &Method::HEAD) => {
                let mut response = Response::new(PAGE.as_bytes().to_vec());
                let html = HeaderValue::from_static("text/html; charset=utf-8");
                response.headers_mut().insert(header::CONTENT_TYPE, html);
                Verdict::Respond(response)
            }
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
            Self::At(place) => place.enter(context),
            Self::Echo => {}
        }
    }

    fn message(&mut self, message: Message<'_>, context: &mut Context<'_, Self>) {
        match self {
            // One who does not read his echo is not heard until he does.
            Self::Echo => {
                if let Ok(Sent::Backpressure) = context.send(message) {
                    context.pause_reading();
                }
            }
            Self::At(place) => place.hear(message, context),
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
            Self::At(place) => place.catch_up(context),
        }
    }

    fn close(&mut self, _: &Ending<'_>, context: &mut Context<'_, Self>) {
        if let Self::At(place) = self {
            place.catch_up(context);
        }
    }
}

impl Visitor {
    /// Whether messages to all are for this connection.
    pub(super) fn subscribes(&self) -> bool {
        self.broadcast().is_some()
    }

    /// The subscribers have taken what was published.
    pub(super) fn end_round(&self, context: &mut Context<'_, Self>) {
        if let Some(broadcast) = self.broadcast() {
            broadcast.end_round(context);
        }
    }

    /// It may be too slow to read what is broadcast.
    pub(super) fn lose_patience(&self, context: &mut Context<'_, Self>) {
        if let Some(broadcast) = self.broadcast() {
            broadcast.lose_patience(context.handle().id());
        }
    }

    fn broadcast(&self) -> Option<&Broadcast> {
        match self {
            Self::At(place) => match &**place {
                Place::Broadcast { state, .. } => Some(state),
                Place::Entrance { .. } | Place::Stats { .. } => None,
            },
            Self::Echo => None,
        }
    }
}

impl Place {
    fn enter(&self, context: &mut Context<'_, Visitor>) {
        match self {
            Self::Stats { .. } => self.tell(context),
            Self::Broadcast { .. } | Self::Entrance { .. } => {}
        }
    }

    fn hear(&self, message: Message<'_>, context: &mut Context<'_, Visitor>) {
        let Self::Broadcast { server, state } = self else { return };
        if let Some(server) = server.upgrade() {
            state.publish(message, &server, context);
        }
    }

    /// Nobody waits for this connection any more.
    fn catch_up(&self, context: &mut Context<'_, Visitor>) {
        if let Self::Broadcast { state, .. } = self {
            state.catch_up(context.handle().id());
        }
    }

    /// Sends the counters, now and then.
    fn tell(&self, context: &mut Context<'_, Visitor>) {
        let Self::Stats { server, since } = self else { return };
        let Some(server) = server.upgrade() else { return };
        // One who does not read them misses some.
        if context.buffered_amount() == 0 {
            let stats = Stats::new(&server.counters(), since.elapsed());
            let _ = context.send(stats.line().as_str());
        }
        context.set_timer(PERIOD, |visitor, context| {
            if let Visitor::At(place) = visitor {
                place.tell(context);
            }
        });
    }
}

/// The counters, with a few sums, as `/stats` tells them.
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
        let over = counters.failed + counters.closed + counters.http;
        Self {
            uptime: uptime.as_millis() as f64 / 1000.0,
            connections: counters.made.saturating_sub(over),
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
    fn a_visitor_is_one_word() {
        assert_eq!(size_of::<Visitor>(), size_of::<usize>());
    }
}
