//! Clients that do not reach their server. `fail` reports the error, once, inside the run call.

use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::sync::Mutex;
use std::thread;

use anyloop::net::{Client, ConnectError, Error};
use anyloop::prelude::*;
use anyloop::proto::handshake::http::{HeaderMap, HeaderName, HeaderValue, header};
use anyloop::proto::handshake::{RequestError, UriError};
use anyloop::proto::{Cause, HandshakeError, TransportError};
use anyloop_testkit::peer::{Peer, serve};
use anyloop_testkit::requests;
use anyloop_testkit::watchdog::watchdog;

use crate::record::Log;
use crate::setup::{blackhole, chain, client, closed, recording_client, reset, url};

/// What `fail` has reported, and on which thread.
#[derive(Debug)]
struct Report {
    failure: Failure,
    /// The text of the `ConnectError`, and those of its sources.
    texts: Vec<String>,
    variant: &'static str,
    /// The kind of the first attempt's error, or of the source.
    kind: Option<ErrorKind>,
    attempts: Vec<String>,
    /// An error that is no `ConnectError`.
    io: Option<ErrorKind>,
    thread: thread::ThreadId,
}

fn inspect(failure: &Failure, context: &Context<'_, Handlers>) -> Report {
    let error = context.error();
    let connect = error.and_then(|error| error.downcast_ref::<ConnectError>());
    let io = error.and_then(|error| error.downcast_ref::<io::Error>()).map(io::Error::kind);
    let (variant, kind, attempts) = match connect {
        Some(ConnectError::Resolve { source, .. }) => ("resolve", Some(source.kind()), Vec::new()),
        Some(ConnectError::Connect { attempts, .. }) => (
            "connect",
            attempts.first().map(|(_, error)| error.kind()),
            attempts.iter().map(|(address, _)| address.clone()).collect(),
        ),
        Some(ConnectError::TimedOut { .. }) => ("timed out", None, Vec::new()),
        Some(_) => ("something new", None, Vec::new()),
        None => ("none", None, Vec::new()),
    };
    Report {
        failure: *failure,
        texts: connect.map(|error| chain(error)).unwrap_or_default(),
        variant,
        kind,
        attempts,
        io,
        thread: thread::current().id(),
    }
}

/// Connects, and returns the one report.
fn fail(mut client: Client, begin: impl FnOnce(&Client)) -> Report {
    let reported = Arc::new(Mutex::new(Vec::new()));
    let reports = reported.clone();
    client
        .on_open(|_| panic!("it must not open"))
        .on_close(|_, _| panic!("it was never open"))
        .on_fail(move |failure, context| reports.lock().unwrap().push(inspect(failure, context)));
    begin(&client);
    assert!(reported.lock().unwrap().is_empty(), "not inside `connect`");
    assert_eq!(client.run(), 1, "one handler");
    assert!(client.stopped() && client.connections().is_empty());
    let counters = client.counters();
    assert_eq!((counters.started, counters.opened, counters.failed), (1, 0, 1));
    let mut reported = reported.lock().unwrap();
    assert_eq!(reported.len(), 1);
    let report = reported.pop().unwrap();
    assert_eq!(report.thread, thread::current().id());
    report
}

fn connect(url: &str) -> impl FnOnce(&Client) {
    move |client| _ = client.connect(url).unwrap()
}

#[test]
fn a_name_that_is_unknown() {
    let _watchdog = watchdog();
    let mut client = client();
    client.set_look_up(|_, _| Err(io::Error::new(ErrorKind::NotFound, "nobody")));
    let report = fail(client, connect("ws://nowhere.example/"));
    assert_eq!(report.failure.cause(), Cause::Transport(TransportError::NotFound));
    assert_eq!((report.variant, report.kind), ("resolve", Some(ErrorKind::NotFound)));
    assert_eq!(report.texts, ["cannot look up nowhere.example", "nobody"]);
}

#[test]
fn a_name_without_addresses() {
    let _watchdog = watchdog();
    let mut client = client();
    client.set_look_up(|_, _| Ok(Vec::new()));
    let report = fail(client, connect("ws://nowhere.example/"));
    assert_eq!(report.failure.cause(), Cause::Transport(TransportError::NotFound));
    assert_eq!(report.variant, "resolve");
}

#[test]
fn a_look_up_that_panics() {
    let _watchdog = watchdog();
    let mut client = client();
    client.set_look_up(|_, _| panic!("on purpose"));
    assert_eq!(fail(client, connect("ws://nowhere.example/")).variant, "resolve");
}

#[test]
fn no_address_at_all() {
    let _watchdog = watchdog();
    let report = fail(client(), |client| {
        client.request("ws://a.example/").unwrap().to_addresses([]).connect().unwrap();
    });
    assert_eq!((report.variant, report.attempts.len()), ("connect", 0));
    assert!(report.texts[0].contains("a.example"));
}

#[test]
fn the_address_refuses() {
    let _watchdog = watchdog();
    let closed = closed();
    let report = fail(client(), connect(&url(closed.address)));
    assert_eq!(report.failure.cause(), Cause::Transport(TransportError::Refused));
    assert_eq!((report.variant, report.kind), ("connect", Some(ErrorKind::ConnectionRefused)));
    assert_eq!(report.attempts, [closed.address.to_string()]);
    let [message] = &report.texts[..] else {
        panic!("the text has all attempts: {:?}", report.texts);
    };
    assert!(message.starts_with("cannot connect to 127.0.0.1: "), "{message}");
    assert!(message.contains(&closed.address.to_string()), "{message}");
}

#[test]
fn all_addresses_refuse() {
    let _watchdog = watchdog();
    let all = [closed(), closed(), closed()];
    let addresses = all.each_ref().map(|closed| closed.address);
    let report = fail(client(), |client| {
        client.request("ws://a.example/").unwrap().to_addresses(addresses).connect().unwrap();
    });
    assert_eq!(report.failure.cause(), Cause::Transport(TransportError::Refused));
    assert_eq!(report.attempts, addresses.map(|address| address.to_string()));
}

/// TCP cannot connect to a multicast address. No packet is sent.
#[test]
fn an_unreachable_address() {
    let _watchdog = watchdog();
    let report = fail(client(), connect("ws://224.0.0.1:81/"));
    assert_eq!(report.failure.cause(), Cause::Transport(TransportError::Unreachable));
    assert_eq!((report.variant, report.kind), ("connect", Some(ErrorKind::NetworkUnreachable)));
    assert_eq!(report.attempts, ["224.0.0.1:81"]);
}

#[test]
fn a_socket_that_cannot_be_set_up() {
    let _watchdog = watchdog();
    let mut client = client();
    client.on_socket_init(|_| Err(io::Error::new(ErrorKind::PermissionDenied, "not that one")));
    let closed = closed();
    let report = fail(client, connect(&url(closed.address)));
    assert_eq!((report.variant, report.kind), ("connect", Some(ErrorKind::PermissionDenied)));
}

#[test]
fn what_is_not_a_url() {
    let client = client();
    let cases = [
        ("http://a.example/", UriError::Scheme, "; did you mean ws://a.example/?"),
        ("localhost:9002", UriError::Scheme, "; did you mean ws://localhost:9002?"),
        ("a.example", UriError::Scheme, "; did you mean ws://a.example?"),
        ("ws://", UriError::MissingHost, ""),
        ("ws://a.example:99999/", UriError::Port, ""),
        ("ws://a.example/#part", UriError::Fragment, ""),
        ("ws://a b/", UriError::Character(' '), ""),
        ("ws://[::1/", UriError::Host, ""),
    ];
    for (url, expected, suggestion) in cases {
        let error = client.connect(url).unwrap_err();
        assert_eq!(error.to_string(), format!("not a WebSocket URI: {url}{suggestion}"));
        assert_eq!(chain(&error)[1..], [expected.to_string()]);
        match error {
            Error::Uri { uri, source } => assert_eq!((&*uri, source), (url, expected)),
            other => panic!("{url}: {other:?}"),
        }
    }
    assert!(client.connections().is_empty());
    assert_eq!(client.counters().started, 0);
    assert_eq!(client.run(), 0);
}

#[test]
fn options_that_make_no_request() {
    let client = client();
    let request = client.request("ws://a.example/").unwrap();
    let request = request.configure(|config| config.subprotocol("not a token"));
    let error = request.connect().unwrap_err();
    assert!(matches!(error, Error::Request(_)), "{error:?}");
    assert_eq!(chain(&error)[0], "cannot make the request");
    assert_eq!(chain(&error).len(), 2);
    let key = (header::SEC_WEBSOCKET_KEY, HeaderValue::from_static("x"));
    let request = client.request("ws://a.example/").unwrap();
    let request = request.configure(|config| config.header(key.0, key.1));
    assert!(matches!(request.connect(), Err(Error::Request(_))));
    let request = client.request("ws://a.example/").unwrap();
    let request = request.configure(|config| config.header("two words", "x").header("X-A", "\n"));
    let error = request.connect().unwrap_err();
    let Error::Request(RequestError::InvalidHeaderName(name)) = error else { panic!("{error:?}") };
    assert_eq!(name, "two words");
    assert_eq!(client.counters().started, 0);
    assert_eq!(client.run(), 0);

    let invalid = Client::new(ClientConfig::new().origin("https://a.example\r\nX: y")).unwrap();
    let error = invalid.connect("ws://a.example/").unwrap_err();
    let value = RequestError::InvalidHeaderValue(header::ORIGIN);
    assert!(matches!(error, Error::Request(error) if error == value));
}

#[test]
fn fields_that_are_replaced_leave_no_error() {
    let _watchdog = watchdog();
    let (address, thread) = serve(|mut peer| peer.read_head());
    let invalid = || ClientConfig::new().origin("bad\n").header("two words", "x");
    let value = HeaderValue::from_static("x");
    let headers = || HeaderMap::from_iter([(HeaderName::from_static("x-good"), value.clone())]);
    let client = Client::new(invalid()).unwrap();
    let connect = |change: &dyn Fn(ClientConfig) -> ClientConfig| {
        client.request(url(address)).unwrap().configure(change).connect()
    };
    let error = |result: Result<_, Error>| match result {
        Err(Error::Request(error)) => error,
        _ => panic!("the request is invalid"),
    };
    let origin = RequestError::InvalidHeaderValue(header::ORIGIN);
    assert_eq!(error(connect(&|config| config.headers(headers()))), origin);
    let name = RequestError::InvalidHeaderName("two words".into());
    assert_eq!(error(connect(&|config| config.origin("https://a.example"))), name);
    assert_eq!(error(connect(&ClientConfig::without_origin)), name);
    connect(&|config| config.headers(headers()).origin("https://a.example")).unwrap();
    client.run();
    let head = thread.join().unwrap();
    assert!(head.contains("\r\nOrigin: https://a.example\r\n"), "{head}");
    assert!(head.contains("\r\nx-good: x\r\n"), "{head}");
}

#[test]
fn one_connection_can_be_without_the_origin_of_its_client() {
    let _watchdog = watchdog();
    let (address, thread) = serve(|mut peer| peer.read_head());
    let client = Client::new(ClientConfig::new().origin("bad\n")).unwrap();
    let request = client.request(url(address)).unwrap();
    request.configure(ClientConfig::without_origin).connect().unwrap();
    client.run();
    let head = thread.join().unwrap();
    assert!(!head.contains("Origin"), "{head}");
}

/// Nothing is sent over a stream without TLS.
#[cfg(not(feature = "tls-core"))]
#[test]
fn a_secure_url_over_plain_tcp() {
    let _watchdog = watchdog();
    let (address, thread) = serve(|mut peer| peer.read_to_end());
    let report = fail(client(), connect(&format!("wss://{address}/")));
    assert_eq!(report.failure.cause(), Cause::Handshake(HandshakeError::NotSecure));
    assert!(thread.join().unwrap().is_empty());
}

/// Connects to a server that calls `f` when it has read the request.
fn answered_by(f: impl FnOnce(Peer) + Send + 'static) -> Report {
    let (address, thread) = serve(|mut peer| {
        assert!(peer.read_head().starts_with("GET /chat HTTP/1.1\r\n"));
        f(peer);
    });
    let report = fail(client(), connect(&url(address)));
    thread.join().unwrap();
    report
}

#[test]
fn the_stream_ends_before_the_response() {
    let _watchdog = watchdog();
    let report = answered_by(drop);
    assert_eq!(report.failure.cause(), Cause::EndOfStream);
    assert_eq!((report.variant, report.io), ("none", None));
    let report = answered_by(|peer| peer.write("HTTP/1.1 101 Switching"));
    assert_eq!(report.failure.cause(), Cause::EndOfStream);
}

#[test]
fn the_stream_is_reset_before_the_response() {
    let _watchdog = watchdog();
    let report = answered_by(reset);
    assert_eq!(report.failure.cause(), Cause::Transport(TransportError::Reset));
    assert_eq!(report.io, Some(ErrorKind::ConnectionReset));
    let report = answered_by(|peer| {
        peer.write("HTTP/1.1 101 Switching");
        reset(peer);
    });
    assert_eq!(report.failure.cause(), Cause::Transport(TransportError::Reset));
}

/// After a reset the operating system does not know the address of the peer. The context still does.
#[test]
fn a_reset_before_the_response_names_the_address() {
    let _watchdog = watchdog();
    let (address, thread) = serve(|mut peer| {
        peer.read_head();
        reset(peer);
    });
    let seen = Arc::new(Mutex::new(None));
    let sees = seen.clone();
    let mut client = client();
    client.on_fail(move |_, context| {
        *sees.lock().unwrap() = Some((context.peer_addr(), context.remote_endpoint()));
    });
    client.connect(url(address).as_str()).unwrap();
    client.run();
    thread.join().unwrap();
    assert_eq!(*seen.lock().unwrap(), Some((Some(address), address.to_string())));
}

/// The same at a server, after a part of the request or nothing.
#[test]
fn a_reset_before_the_request_names_the_address() {
    let _watchdog = watchdog();
    for request in ["", "GET / HTTP/1.1\r\n"] {
        let (sender, receiver) = std::sync::mpsc::channel();
        let sender = Mutex::new(sender);
        let mut server = crate::setup::echo();
        server.on_fail(move |_, context| {
            let names = (context.peer_addr(), context.remote_endpoint());
            sender.lock().unwrap().send(names).unwrap();
        });
        let running = crate::setup::Running::start(server);
        let peer = Peer::connect(running.address);
        let address = peer.local_addr();
        peer.write(request);
        anyloop_testkit::wait::eventually("it is accepted", || {
            running.server.counters().started == 1
        });
        reset(peer);
        let names = receiver.recv_timeout(anyloop_testkit::wait::PATIENCE).unwrap();
        assert_eq!(names, (Some(address), address.to_string()), "{request:?}");
    }
}

#[test]
fn the_server_refuses() {
    let _watchdog = watchdog();
    let seen = crate::setup::shared();
    for how in ["length", "chunked", "end"] {
        let (address, thread) = serve(move |mut peer| {
            peer.read_head();
            let head = "HTTP/1.1 503 Later\r\nRetry-After: 120\r\n";
            match how {
                "length" => peer.write(format!("{head}Content-Length: 9\r\n\r\ncome back")),
                "chunked" => peer.write(format!(
                    "{head}Transfer-Encoding: chunked\r\n\r\n4\r\ncome\r\n5\r\n back\r\n0\r\n\r\n"
                )),
                _ => peer.write(format!("{head}Connection: close\r\n\r\ncome back")),
            }
        });
        let mut client = client();
        let sees = seen.clone();
        client.on_fail(move |failure, context| {
            let response = context.handshake_info().unwrap().response.as_ref().unwrap();
            let after = response.headers()["retry-after"].to_str().unwrap().to_string();
            let body = String::from_utf8_lossy(response.body()).into_owned();
            sees.lock().unwrap().push((failure.cause(), response.status().as_u16(), after, body));
        });
        client.connect(url(address).as_str()).unwrap();
        assert_eq!(client.run(), 1, "{how}");
        thread.join().unwrap();
        let rejected = Cause::Handshake(HandshakeError::Rejected(503));
        let expected = (rejected, 503, "120".to_string(), "come back".to_string());
        assert_eq!(seen.lock().unwrap().pop(), Some(expected), "{how}");
    }
}

#[test]
fn the_answer_is_another_protocol() {
    let _watchdog = watchdog();
    let report = answered_by(|mut peer| {
        peer.write("SSH-2.0-OpenSSH_9.6\r\n\r\n");
        peer.read_to_end();
    });
    assert_eq!(
        report.failure.to_string(),
        "peer: not an HTTP response: the first bytes are \"SSH-2.\" (connection connecting)"
    );
    let wrong_key = answered_by(|mut peer| {
        peer.write(requests::RESPONSE); // to a nonce of zeros
        peer.read_to_end();
    });
    let mismatch = Cause::Handshake(HandshakeError::AcceptMismatch);
    assert_eq!(wrong_key.failure.cause(), mismatch);
}

/// Given up while it connects: `fail` is called once, and `run` returns.
#[test]
fn connecting_can_be_given_up() {
    let _watchdog = watchdog();
    let blackhole = blackhole();
    let log = Log::default();
    let client = recording_client(&log);
    let handle = client.connect(url(blackhole.address).as_str()).unwrap();
    assert_eq!(client.run_for(crate::setup::millis(50)), 0);
    let other = thread::spawn(move || handle.close(CloseCode::NORMAL, "").unwrap());
    assert_eq!(client.run(), 1);
    other.join().unwrap();
    assert_eq!(log.take(), ["fail by local: opening handshake abandoned"]);
    assert!(client.connections().is_empty());
}

#[test]
fn a_handshake_can_be_given_up() {
    let _watchdog = watchdog();
    let (address, thread) = serve(|mut peer| {
        peer.read_head();
        peer.read_to_end()
    });
    let log = Log::default();
    let client = recording_client(&log);
    let handle = client.connect(url(address).as_str()).unwrap();
    assert_eq!(client.run_for(crate::setup::millis(100)), 0);
    handle.close(CloseCode::NORMAL, "").unwrap();
    handle.close(CloseCode::NORMAL, "").unwrap();
    assert_eq!(client.run(), 1);
    assert_eq!(log.take(), ["fail by local: opening handshake abandoned"]);
    assert!(thread.join().unwrap().is_empty());
}

/// `fail` may connect again.
#[test]
fn a_failure_may_connect_again() {
    let _watchdog = watchdog();
    let closed = closed();
    let own = Arc::new(std::sync::OnceLock::<Arc<Client>>::new());
    let mut client = client();
    let (again, to) = (own.clone(), url(closed.address));
    client.on_fail(move |_, _| {
        let client = again.get().unwrap();
        if client.counters().started < 10 {
            client.connect(to.as_str()).unwrap();
        }
    });
    let client = Arc::new(client);
    own.set(client.clone()).ok().unwrap();
    client.connect(url(closed.address).as_str()).unwrap();
    assert_eq!(client.run(), 10);
    assert_eq!(client.counters().failed, 10);
}

/// A panic of `fail` leaves the run call. The next one calls `fail` of the other connections.
#[test]
fn a_failure_that_panics() {
    let _watchdog = watchdog();
    let closed = closed();
    let mut client = client();
    let count = Arc::new(Mutex::new(0));
    let counts = count.clone();
    client.on_fail(move |_, _| {
        let first = {
            let mut count = counts.lock().unwrap();
            *count += 1;
            *count == 1
        };
        assert!(!first, "on purpose");
    });
    client.connect(url(closed.address).as_str()).unwrap();
    client.connect(url(closed.address).as_str()).unwrap();
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| client.run()));
    assert!(caught.is_err());
    client.run();
    assert_eq!(*count.lock().unwrap(), 2);
    assert!(client.connections().is_empty());
}
