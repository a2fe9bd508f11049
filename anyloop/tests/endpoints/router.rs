//! The path of the request selects the handler: which one, with which parameters, and what is answered where there is
//! none.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyloop::endpoint::Server;
use anyloop::http::{Method, Response, StatusCode};
use anyloop::prelude::*;
use anyloop::router::{LocalRouted, LocalRouter, RouteError, Routed};
use anyloop_testkit::requests::request;

use crate::record::{Log, Recorder, recording};
use crate::subject::{Subject, new_server, seconds, server_config};
use crate::transports::{Clock, End, TestTransport, over_each_transport};
use crate::wire::{self, ping, text};

over_each_transport! {
    each_path_has_handlers_of_its_own_type,
    a_routed_handler_gets_all_events,
    a_handler_reads_the_parameters_of_its_path,
    parameters_are_percent_decoded_after_matching,
    rfc3986_6_2_2_1_digits_match_in_either_case,
    a_parameter_that_is_not_utf8_is_400,
    literal_text_takes_precedence,
    the_query_and_a_trailing_slash,
    an_unknown_path_is_404,
    a_page_is_no_websocket,
    a_page_answers_get_and_head,
    another_method_is_405,
    each_method_can_have_a_function,
    a_path_can_have_a_page_and_a_route,
    plain_http_at_a_route_is_the_handlers,
    a_page_can_answer_later,
    the_handler_of_a_route_validates,
    a_routed_answer_can_be_deferred,
    timers_and_posted_functions_get_the_routed_handler,
    handles_of_a_server_have_the_routed_type,
    a_routed_handler_reaches_the_server,
    a_router_in_a_router_reaches_its_handler,
    a_routed_handler_can_be_replaced,
    parameters_are_forgotten_with_the_handshake,
    a_request_that_fails_has_no_handler,
    handlers_of_one_thread_are_routed;
    not over sockets:
    a_routed_handler_shuts_down_all_routes,
}

/// Sends what it was made with, and its parameter `id`, when it is open; and then counts.
struct Counter(&'static str, usize);

impl Handler for Counter {
    fn open(&mut self, context: &mut Context<'_, Self>) {
        let id = context.param("id").unwrap_or("none");
        let opened = format!("{} {id} at {}", self.0, context.route().unwrap_or("none"));
        context.send(opened).unwrap();
    }

    fn message(&mut self, _: Message<'_>, context: &mut Context<'_, Self>) {
        self.1 += 1;
        context.send(format!("{} {}", self.0, self.1)).unwrap();
    }
}

fn counter(name: &'static str) -> impl Fn() -> Counter + Send + Sync {
    move || Counter(name, 0)
}

fn echo() -> Handlers {
    let mut handlers = Handlers::new();
    handlers.on_message(|message, context| _ = context.send(message));
    handlers
}

fn page(text: &str) -> impl Fn(&Request, &mut Context<'_, Routed>) -> Response<Vec<u8>> + use<> {
    let body = text.as_bytes().to_vec();
    move |_, _| Response::new(body.clone())
}

fn subject<C: TestTransport>(router: Router) -> Subject<C, Routed> {
    Subject::server(server_config(), router)
}

/// The head and the frames that a WebSocket request for this path gets.
fn open<C: TestTransport>(router: &Router, path: &str) -> (String, Vec<wire::Frame>) {
    let mut subject = subject::<C>(router.clone());
    subject.receive_bytes(request(path));
    subject.sent_head()
}

/// The response to a WebSocket request that is refused.
fn refused<C: TestTransport>(router: &Router, path: &str) -> String {
    let mut subject = subject::<C>(router.clone());
    subject.receive_bytes(request(path));
    subject.sent_response()
}

/// The response to a plain request.
fn fetch<C: TestTransport>(router: &Router, method: &str, path: &str) -> String {
    let mut subject = subject::<C>(router.clone());
    subject.receive_bytes(format!("{method} {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
    subject.sent_response()
}

#[track_caller]
fn assert_status(response: &str, status: u16) {
    assert!(response.starts_with(&format!("HTTP/1.1 {status} ")), "{response}");
}

fn each_path_has_handlers_of_its_own_type<C: TestTransport>() {
    let router = Router::new().route("/echo", echo()).unwrap();
    let router = router.route("/counter", counter("one")).unwrap();
    let clock = Clock::default();
    let server = new_server::<C, _>(server_config(), router, &clock);
    let at = |path: &str| {
        let mut subject = Subject::<C, _>::of_server(&server, &clock);
        subject.receive_bytes(request(path));
        assert!(subject.sent_head().0.starts_with(wire::SWITCHING));
        subject.receive(&[text("a"), text("b")]);
        subject.sent()
    };
    assert_eq!(at("/echo"), [text("a"), text("b")]);
    assert_eq!(at("/counter"), [text("one 1"), text("one 2")]);
    assert_eq!(at("/counter"), [text("one 1"), text("one 2")]);
}

fn a_routed_handler_gets_all_events<C: TestTransport>() {
    let log = Log::default();
    let made = log.clone();
    let router = Router::new().route("/chat", move || Recorder(made.clone())).unwrap();
    let mut subject = subject::<C>(router);
    subject.receive_bytes(wire::REQUEST);
    subject.receive(&[text("a"), ping("b"), wire::pong("c")]);
    subject.with_handle(|handle| handle.interrupt()).unwrap();
    subject.close_by_peer();
    let events = [
        "validate GET /chat",
        "open",
        "text a",
        "ping b",
        "pong c",
        "interrupt",
        "close clean by peer: 1000/1000",
    ];
    assert_eq!(log.take(), events);
    let (_, frames) = subject.sent_head();
    assert_eq!(frames, [wire::pong("b"), wire::close(1000, "")]);
}

fn a_handler_reads_the_parameters_of_its_path<C: TestTransport>() {
    let router = Router::new().route("/{id}/files/{*path}", counter("files")).unwrap();
    let log = Log::default();
    let reported = log.clone();
    let mut handlers = Handlers::new();
    handlers.on_validate(move |_, context| {
        let [id, path, other] = ["id", "path", "other"].map(|name| context.param(name));
        reported.push(format!("{id:?} {path:?} {other:?}"));
        Answer::accept()
    });
    let router = router.route("/validated/{id}", handlers).unwrap();
    let (_, frames) = open::<C>(&router, "/7/files/a/b.txt");
    assert_eq!(frames, [text("files 7 at /{id}/files/{*path}")]);
    open::<C>(&router, "/validated/8");
    assert_eq!(log.take(), ["Some(\"8\") None None"]);
}

fn parameters_are_percent_decoded_after_matching<C: TestTransport>() {
    let router = Router::new().route("/a/{id}", counter("a")).unwrap();
    let (_, frames) = open::<C>(&router, "/a/caf%C3%A9%2Fbar%zz");
    assert_eq!(frames, [text("a café/bar%zz at /a/{id}")]);
    // Literal text is not decoded.
    assert_status(&refused::<C>(&router, "/%61/b"), 404);
    // Nothing is removed, as the documentation warns.
    let router = Router::new().route("/{*id}", counter("a")).unwrap();
    for (path, value) in [("/..%2F../b", "../../b"), ("/%2Fetc", "/etc"), ("/a%00", "a\0")] {
        let (_, frames) = open::<C>(&router, path);
        assert_eq!(frames, [text(&*format!("a {value} at /{{*id}}"))]);
    }
}

/// The digits of a percent-encoded byte are equivalent in either case. Nothing else is.
fn rfc3986_6_2_2_1_digits_match_in_either_case<C: TestTransport>() {
    let router = Router::new().route("/caf%C3%A9/{id}", counter("a")).unwrap();
    let router = router.http("/caf%C3%A9", page("page")).unwrap();
    for path in ["/caf%C3%A9", "/caf%c3%a9", "/caf%c3%A9"] {
        let (_, frames) = open::<C>(&router, &format!("{path}/%c3%bc%zz%c"));
        assert_eq!(frames, [text("a ü%zz%c at /caf%C3%A9/{id}")]);
        assert!(fetch::<C>(&router, "GET", path).ends_with("\r\n\r\npage"));
    }
    assert_status(&refused::<C>(&router, "/CAF%C3%A9/b"), 404);
}

fn a_parameter_that_is_not_utf8_is_400<C: TestTransport>() {
    let router = Router::new().route("/{id}", echo()).unwrap().http("/{id}", page("")).unwrap();
    for response in [refused::<C>(&router, "/%FF"), fetch::<C>(&router, "GET", "/%FF")] {
        assert_status(&response, 400);
        assert!(response.ends_with("the path parameter id is not UTF-8\n"), "{response}");
    }
}

fn literal_text_takes_precedence<C: TestTransport>() {
    let router = Router::new()
        .route("/{*path}", counter("rest"))
        .and_then(|router| router.route("/a/{id}", counter("parameter")))
        .and_then(|router| router.route("/a/b", counter("literal")))
        .unwrap();
    for (path, expected) in [
        ("/a/b", "literal none at /a/b"),
        ("/a/bc", "parameter bc at /a/{id}"),
        ("/a/b/c", "rest none at /{*path}"),
    ] {
        assert_eq!(open::<C>(&router, path).1, [text(expected)]);
    }
}

fn the_query_and_a_trailing_slash<C: TestTransport>() {
    let router = Router::new().route("/a/{id}", counter("a")).unwrap();
    assert_eq!(open::<C>(&router, "/a/b?id=c").1, [text("a b at /a/{id}")]);
    for path in ["/a/b/", "/a/", "/a", "//a/b", "/a/b/../c", "/A/b"] {
        assert_status(&refused::<C>(&router, path), 404);
    }
}

fn an_unknown_path_is_404<C: TestTransport>() {
    let router = Router::new().route("/a", echo()).unwrap().http("/a", page("")).unwrap();
    assert_status(&refused::<C>(&router, "/b"), 404);
    for method in ["GET", "POST", "DELETE"] {
        assert_status(&fetch::<C>(&router, method, "/b"), 404);
    }
    assert_status(&fetch::<C>(&router, "OPTIONS", "*"), 404);
    assert_status(&fetch::<C>(&router, "CONNECT", "a:80"), 404);
    assert_status(&refused::<C>(&Router::new(), "/"), 404);
}

fn a_page_is_no_websocket<C: TestTransport>() {
    let router = Router::new().http("/page", page("text")).unwrap();
    assert_status(&refused::<C>(&router, "/page"), 404);
}

fn a_page_answers_get_and_head<C: TestTransport>() {
    let router = Router::new()
        .http("/users/{id}", |request, context| {
            let (id, query) = (context.param("id").unwrap(), request.uri().query());
            let body = format!("{id} {query:?} {}", context.route().unwrap());
            Response::new(body.into_bytes())
        })
        .unwrap();
    let get = fetch::<C>(&router, "GET", "/users/7?verbose");
    assert_status(&get, 200);
    assert!(get.ends_with("\r\n\r\n7 Some(\"verbose\") /users/{id}"), "{get}");
    let head = fetch::<C>(&router, "HEAD", "/users/7?verbose");
    assert_status(&head, 200);
    assert!(head.ends_with("\r\n\r\n"), "{head}");
}

/// RFC 9110 §15.5.6.
fn another_method_is_405<C: TestTransport>() {
    let router = Router::new().http("/", page("")).unwrap();
    let router = router.http_method(Method::PUT, "/", page("")).unwrap();
    for method in ["POST", "OPTIONS"] {
        let response = fetch::<C>(&router, method, "/");
        assert_status(&response, 405);
        assert!(response.contains("\r\nallow: GET, PUT, HEAD\r\n"), "{response}");
    }
}

fn each_method_can_have_a_function<C: TestTransport>() {
    let methods = [Method::GET, Method::POST, Method::OPTIONS, Method::HEAD];
    let router = methods.iter().fold(Router::new(), |router, method| {
        let name = method.to_string();
        let answer = move |_: &Request, _: &mut Context<'_, Routed>| {
            Response::builder().header("method", &name).body(Vec::new()).unwrap()
        };
        router.http_method(method.clone(), "/{*path}", answer).unwrap()
    });
    for method in methods {
        let response = fetch::<C>(&router, method.as_str(), "/a");
        assert!(response.contains(&format!("\r\nmethod: {method}\r\n")), "{response}");
    }
}

fn a_path_can_have_a_page_and_a_route<C: TestTransport>() {
    let router = Router::new().route("/", counter("socket")).unwrap();
    let router = router.http("/", page("page")).unwrap();
    assert_eq!(open::<C>(&router, "/").1, [text("socket none at /")]);
    assert!(fetch::<C>(&router, "GET", "/").ends_with("\r\n\r\npage"));
    assert_status(&fetch::<C>(&router, "POST", "/"), 405);
}

fn plain_http_at_a_route_is_the_handlers<C: TestTransport>() {
    let mut handlers = Handlers::new();
    handlers.on_http(|_, context| {
        Answer::status(StatusCode::IM_A_TEAPOT, context.param("id").unwrap())
    });
    let router = Router::new().route("/http/{id}", handlers).unwrap();
    let router = router.route("/default", echo()).unwrap();
    let response = fetch::<C>(&router, "POST", "/http/7");
    assert_status(&response, 418);
    assert!(response.ends_with("\r\n\r\n7\n"), "{response}");
    assert_status(&fetch::<C>(&router, "GET", "/default"), 426);
}

fn a_page_can_answer_later<C: TestTransport>() {
    let router = Router::new().http("/", |_, _| Answer::Defer).unwrap();
    let mut subject = subject::<C>(router);
    subject.receive_bytes("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(subject.end.take_output().is_empty());
    subject.with_handle(|handle| handle.respond(Response::new(b"later".to_vec()))).unwrap();
    assert!(subject.sent_response().ends_with("\r\n\r\nlater"));
}

fn the_handler_of_a_route_validates<C: TestTransport>() {
    let log = Log::default();
    let mut handlers = recording(&log);
    handlers.on_validate(|request, context| match context.param("room") {
        Some("open") => Accept::new().with_subprotocol(&request.subprotocols()[0]).into(),
        _ => Answer::status(StatusCode::FORBIDDEN, "not you"),
    });
    let router = Router::new().route("/rooms/{room}", handlers).unwrap();
    let to_room = |room: &str| {
        let request = request(&format!("/rooms/{room}"));
        request.replace("\r\n\r\n", "\r\nSec-WebSocket-Protocol: chat\r\n\r\n")
    };
    let mut accepted = subject::<C>(router.clone());
    accepted.receive_bytes(to_room("open"));
    let (head, _) = accepted.sent_head();
    assert!(head.contains("\r\nSec-WebSocket-Protocol: chat\r\n"), "{head}");
    assert_eq!(log.take(), ["open"]);

    let mut refused = subject::<C>(router);
    refused.receive_bytes(to_room("closed"));
    assert_status(&refused.sent_response(), 403);
    refused.end.eof();
    assert_eq!(log.take(), ["fail by local: request refused with status 403"]);
}

fn a_routed_answer_can_be_deferred<C: TestTransport>() {
    let mut handlers = echo();
    handlers.on_validate(|_, context| {
        let handle = context.handle();
        handle.accept(Accept::new()).unwrap(); // as another thread does later
        Answer::Defer
    });
    let router = Router::new().route("/chat", handlers).unwrap();
    let mut subject = subject::<C>(router);
    subject.receive_bytes(wire::REQUEST);
    subject.drain();
    assert!(subject.sent_head().0.starts_with(wire::SWITCHING));
    subject.receive(&[text("a")]);
    assert_eq!(subject.sent(), [text("a")]);
}

/// Sets a timer and posts a function when it is open, which find the handler.
struct Posting(Log);

impl Handler for Posting {
    fn open(&mut self, context: &mut Context<'_, Self>) {
        context.set_timer(std::time::Duration::ZERO, |handler, _| handler.0.push("timer"));
        context.handle().post(|handler, _| handler.0.push("posted")).unwrap();
    }
}

fn timers_and_posted_functions_get_the_routed_handler<C: TestTransport>() {
    let log = Log::default();
    let made = log.clone();
    let router = Router::new().route("/chat", move || Posting(made.clone())).unwrap();
    let mut subject = subject::<C>(router);
    subject.receive_bytes(wire::REQUEST);
    subject.drain();
    subject.end.handle_timeout();
    let mut events = log.take();
    events.sort();
    assert_eq!(events, ["posted", "timer"]);
}

fn handles_of_a_server_have_the_routed_type<C: TestTransport>() {
    let clock = Clock::default();
    let router = Router::new().route("/a", counter("a")).unwrap().route("/b", echo()).unwrap();
    let server = new_server::<C, _>(server_config(), router, &clock);
    let at = |path: &str| {
        let mut subject = Subject::<C, _>::of_server(&server, &clock);
        subject.receive_bytes(request(path));
        subject.sent_head();
        subject
    };
    let (mut a, mut b) = (at("/a"), at("/b"));
    assert_eq!(server.handle().broadcast_where("to a", |routed| routed.route() == Some("/a")), 2);
    let by_type = |routed: &Routed| routed.handler::<Handlers>().is_some();
    assert_eq!(server.handle().broadcast_where("to b", by_type), 2);
    assert_eq!(server.handle().broadcast("to all"), 2);
    for (subject, expected) in [(&mut a, "to a"), (&mut b, "to b")] {
        subject.drain();
        assert_eq!(subject.sent(), [text(expected), text("to all")]);
    }
}

/// Passes each message on: to handlers of this type, and to the route `/b`.
struct Publisher;

impl Handler for Publisher {
    fn message(&mut self, _: Message<'_>, context: &mut Context<'_, Self>) {
        let endpoint = context.endpoint();
        assert_eq!(endpoint.connections().len(), 2);
        endpoint.broadcast_where("by type", |_: &Self| true);
        endpoint.routed().broadcast_where("by route", |routed| routed.route() == Some("/b"));
        for handle in endpoint.connections() {
            handle.post(|_, context| _ = context.send("posted")).unwrap();
        }
    }
}

/// A handler's endpoint is the whole server. What is for handlers of its type does not reach the others.
fn a_routed_handler_reaches_the_server<C: TestTransport>() {
    let clock = Clock::default();
    let router = Router::new().route("/a", || Publisher).unwrap().route("/b", echo()).unwrap();
    let server = new_server::<C, _>(server_config(), router, &clock);
    let at = |path: &str| {
        let mut subject = Subject::<C, _>::of_server(&server, &clock);
        subject.receive_bytes(request(path));
        subject.sent_head();
        subject
    };
    let (mut a, mut b) = (at("/a"), at("/b"));
    a.receive(&[text("publish")]);
    for (subject, expected) in
        [(&mut a, &[text("by type"), text("posted")][..]), (&mut b, &[text("by route")])]
    {
        subject.drain();
        assert_eq!(subject.sent(), expected);
    }
}

/// Timers, posted functions and broadcasts reach a handler two levels down.
fn a_router_in_a_router_reaches_its_handler<C: TestTransport>() {
    let log = Log::default();
    let made = log.clone();
    let inner = Router::new().route("/a", || Publisher).unwrap();
    let inner = inner.route("/b", move || Posting(made.clone())).unwrap();
    let router = Router::new().route("/{*rest}", inner).unwrap();
    let clock = Clock::default();
    let server = new_server::<C, _>(server_config(), router, &clock);
    let [mut a, mut b] = ["/a", "/b"].map(|path| {
        let mut subject = Subject::<C, _>::of_server(&server, &clock);
        subject.receive_bytes(request(path));
        subject.sent_head();
        subject
    });
    b.drain();
    b.end.handle_timeout();
    let mut events = log.take();
    events.sort();
    assert_eq!(events, ["posted", "timer"]);

    a.receive(&[text("publish")]);
    server.handle().broadcast_where("found", |routed| routed.handler::<Posting>().is_some());
    a.drain();
    b.drain();
    assert_eq!(a.sent(), [text("by type"), text("posted")]);
    assert_eq!(b.sent(), [text("by route"), text("found")]);
}

/// Is replaced by another value of its type with the first message.
struct Replaced(usize);

impl Handler for Replaced {
    fn message(&mut self, _: Message<'_>, context: &mut Context<'_, Self>) {
        context.send(self.0.to_string()).unwrap();
        context.set_handler(Self(self.0 + 10));
    }
}

fn a_routed_handler_can_be_replaced<C: TestTransport>() {
    let router = Router::new().route("/chat", || Replaced(1)).unwrap();
    let mut subject = subject::<C>(router).open();
    subject.receive(&[text("a"), text("b")]);
    subject.receive(&[text("c")]);
    assert_eq!(subject.sent(), [text("1"), text("11"), text("21")]);
}

fn parameters_are_forgotten_with_the_handshake<C: TestTransport>() {
    for (keep, expected) in [(true, "Some(\"7\")"), (false, "None")] {
        let mut handlers = Handlers::new();
        handlers.on_open(|context| assert_eq!(context.param("id"), Some("7")));
        handlers.on_message(|_, context| {
            let id = format!("{:?}", context.param("id"));
            context.send(id).unwrap();
        });
        let router = Router::new().route("/{id}", handlers).unwrap();
        let mut subject = Subject::<C, _>::server(server_config().keep_handshake(keep), router);
        subject.receive_bytes(request("/7"));
        subject.sent_head();
        subject.receive(&[text("?")]);
        assert_eq!(subject.sent(), [text(expected)]);
    }
}

fn a_request_that_fails_has_no_handler<C: TestTransport>() {
    let clock = Clock::default();
    let made = Arc::new(AtomicUsize::new(0));
    let counted = made.clone();
    let factory = move || {
        counted.fetch_add(1, Ordering::Relaxed);
        Counter("", 0)
    };
    let router = Router::new().route("/chat", factory).unwrap();
    let server = new_server::<C, _>(server_config(), router, &clock);
    for request in ["nonsense\r\n\r\n", &request("/other")] {
        let mut subject = Subject::<C, _>::of_server(&server, &clock);
        subject.receive_bytes(request);
        subject.end.take_output();
        subject.end.eof();
        assert!(subject.end.is_over());
    }
    assert_eq!((server.handle().counters().failed, made.load(Ordering::Relaxed)), (2, 0));
    let mut subject = Subject::<C, _>::of_server(&server, &clock);
    subject.receive_bytes(wire::REQUEST);
    assert_eq!(made.load(Ordering::Relaxed), 1);
}

/// Counts in a cell that is not `Send`, and is reached by its own type.
struct Cells(Rc<Cell<usize>>);

impl Handler for Cells {
    fn message(&mut self, _: Message<'_>, context: &mut Context<'_, Self>) {
        self.0.set(self.0.get() + 1);
        context.handle().post(|cells, _| cells.0.set(cells.0.get() + 10)).unwrap();
        let server = context.endpoint().local_routed();
        server.broadcast_where("counted", |routed| routed.handler::<Self>().is_some());
    }
}

fn handlers_of_one_thread_are_routed<C: TestTransport>() {
    let clock = Clock::default();
    let cell = Rc::new(Cell::new(0));
    let (counter, shown) = (cell.clone(), cell.clone());
    let router = LocalRouter::new()
        .route("/count/{id}", move || Cells(counter.clone()))
        .and_then(|router| router.route("/other", LocalHandlers::new()))
        .and_then(|router| {
            router.http("/", move |_, _| Response::new(shown.get().to_string().into_bytes()))
        })
        .unwrap();
    let server = new_server::<C, _>(server_config(), router, &clock);
    let at = |path: &str| {
        let mut subject = Subject::<C, LocalRouted>::of_server(&server, &clock);
        subject.receive_bytes(request(path));
        assert!(subject.sent_head().0.starts_with(wire::SWITCHING));
        subject
    };
    let (mut counting, mut other) = (at("/count/1"), at("/other"));
    counting.receive(&[text("a")]);
    counting.drain();
    other.drain();
    assert_eq!(cell.get(), 11);
    assert_eq!((counting.sent(), other.sent()), (vec![text("counted")], vec![]));
    assert_eq!(server.handle().broadcast_where("x", |routed| routed.route() == Some("/other")), 2);

    let mut page = Subject::<C, LocalRouted>::of_server(&server, &clock);
    page.receive_bytes("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(page.sent_response().ends_with("\r\n\r\n11"));
}

/// Its deadline holds for the connections of all routes.
fn a_routed_handler_shuts_down_all_routes<C: TestTransport>() {
    struct Stopping;
    impl Handler for Stopping {
        fn message(&mut self, _: Message<'_>, context: &mut Context<'_, Self>) {
            context.endpoint().shut_down_within(seconds(1));
        }
    }
    let clock = Clock::default();
    let router = Router::new().route("/stop", || Stopping).unwrap().route("/b", echo()).unwrap();
    let server = new_server::<C, _>(server_config(), router, &clock);
    let mut subjects = ["/stop", "/b"].map(|path| {
        let mut subject = Subject::<C, _>::of_server(&server, &clock);
        subject.receive_bytes(request(path));
        subject
    });
    subjects[0].receive(&[text("stop")]);
    for subject in &mut subjects {
        subject.drain();
        assert!(!subject.end.is_over(), "it waits for the Close of the peer");
    }
    clock.pass(seconds(1));
    for subject in &mut subjects {
        subject.end.handle_timeout();
        assert!(subject.end.is_over());
    }
}

/// Whatever a client sends is answered: many segments, braces, and escapes that are none.
#[test]
fn odd_paths_are_answered() {
    let router = Router::new()
        .http("/a/{b}/{c}/x", page(""))
        .and_then(|router| router.http("/a/{b}/{c}/{d}/y", page("")))
        .and_then(|router| router.http("/c/{*rest}", page("")))
        .and_then(|router| router.http("/{a}/{b}-suffix", page("")))
        .unwrap();
    let deep = |first: &str| format!("/{first}{}", "/b".repeat(5000));
    for (path, status) in [
        (&*deep("a"), 404),
        (&*deep("c"), 200),
        ("/c/%", 200),
        ("/c/%zz%", 200),
        ("/a/{b}/{c}/x", 200),
        ("/a/b/c/x/y", 200),
        ("/a/b/c/d/e/y", 404),
        ("/b/-suffix", 404),
        ("/b/b-suffix", 200),
        ("/a/", 404),
        ("//", 404),
        ("///", 404),
        ("/{", 404),
        ("/*", 404),
    ] {
        assert_status(&fetch::<crate::transports::ByHand>(&router, "GET", path), status);
    }
}

#[test]
fn patterns_that_cannot_match_are_refused() {
    for (pattern, expected) in [
        ("chat", "it must begin with a slash"),
        ("", "it must begin with a slash"),
        ("/a?b", "it must be a path, without a query or a fragment"),
        ("/café", "must be percent-encoded"),
        ("/a b", "must be percent-encoded"),
        ("/{a}{b}", "only one parameter is allowed in a segment"),
        ("/{*rest}/a", "{*rest} is only allowed as the last segment"),
        ("/{}", "a parameter needs a name in braces"),
        ("/{a", "a parameter needs a name in braces"),
        ("/}a", "a parameter needs a name in braces"),
        ("/{a}/{a}", "each parameter needs a name of its own"),
        ("/{a}.txt/{{b}}/{*a}", "each parameter needs a name of its own"),
        ("/caf%c3%a9", "percent-encoded bytes need upper-case digits"),
        ("/{a}/%2f/{b}", "percent-encoded bytes need upper-case digits"),
    ] {
        for error in [
            Router::new().route(pattern, echo()).unwrap_err(),
            Router::new().http(pattern, page("")).unwrap_err(),
        ] {
            assert!(matches!(&error, RouteError::Invalid { .. }), "{error}");
            let text = error.to_string();
            assert!(text.starts_with(&format!("route {pattern}: ")), "{text}");
            assert!(text.contains(expected), "{text}");
        }
    }
}

#[test]
fn what_only_looks_like_a_pattern_that_cannot_match_is_added() {
    for pattern in ["/{a}/{{a}}", "/{a}/a/{aa}", "/caf%C3%A9", "/%zz", "/%", "/%c", "/{a%2f}"] {
        Router::new().route(pattern, echo()).unwrap();
    }
}

#[test]
fn ambiguous_patterns_are_refused() {
    let router = Router::new().route("/a/{id}", echo()).unwrap().http("/b", page("")).unwrap();
    let conflict = |pattern: &str, other: &str| RouteError::Conflict {
        pattern: pattern.into(),
        other: other.into(),
    };
    for pattern in ["/a/{id}", "/a/{name}", "/a/{*rest}"] {
        let error = router.clone().route(pattern, echo()).unwrap_err();
        assert_eq!(error, conflict(pattern, "/a/{id}"));
    }
    let error = router.clone().http("/b", page("")).unwrap_err();
    let (pattern, method) = ("/b".to_string(), Method::GET);
    assert_eq!(error, RouteError::Duplicate { pattern, method });
    assert_eq!(error.to_string(), "route /b: it has a function for GET already");
}

/// As the documentation says: some of these are not ambiguous, but the tree of patterns cannot hold them.
#[test]
fn patterns_that_the_tree_cannot_hold_are_refused() {
    for (first, second) in
        [("/{*rest}", "/{a}.txt"), ("/{a}.txt", "/{*rest}"), ("/a-{b}", "/{b}.txt")]
    {
        let error = Router::new().route(first, echo()).unwrap().route(second, echo()).unwrap_err();
        assert_eq!(error.to_string(), format!("route {second}: it conflicts with {first}"));
    }
}

/// A router that is cloned and changed leaves the other as it was.
#[test]
fn clones_are_independent() {
    let first = Router::new().route("/a", echo()).unwrap();
    let second = first.clone().route("/b", echo()).unwrap();
    assert_eq!(format!("{first:?}"), "Router { patterns: [\"/a\"], .. }");
    assert_eq!(format!("{second:?}"), "Router { patterns: [\"/a\", \"/b\"], .. }");
}
