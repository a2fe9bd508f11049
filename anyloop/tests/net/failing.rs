//! Clients that do not come to their server: what is told, once, and from inside the run call.

use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::sync::Mutex;
use std::thread;

use anyloop::endpoint::Context;
use anyloop::net::{ConnectError, Error, Net};
use anyloop::proto::handshake::UriError;
use anyloop::proto::handshake::http::HeaderValue;
use anyloop::proto::{Cause, CloseCode, Failure, HandshakeError, TransportError};
use anyloop::{Client, Handlers};
use anyloop_testkit::peer::{Peer, serve};
use anyloop_testkit::requests;
use anyloop_testkit::watchdog::watchdog;

use crate::record::Log;
use crate::scene::{client, closed, hole, reset, told, url};

/// What `fail` was told, and by which thread.
#[derive(Debug)]
struct Told {
    failure: Failure,
    /// What `ConnectError` says.
    says: Option<String>,
    variant: &'static str,
    /// Of the first attempt, or of the source.
    kind: Option<ErrorKind>,
    attempts: Vec<String>,
    /// An error that is none of connecting.
    io: Option<ErrorKind>,
    thread: thread::ThreadId,
}

fn inspect(failure: &Failure, context: &Context<'_, Handlers>) -> Told {
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
    Told {
        failure: *failure,
        says: connect.map(ToString::to_string),
        variant,
        kind,
        attempts,
        io,
        thread: thread::current().id(),
    }
}

/// Connects, and returns what was told: one thing.
fn fail(mut client: Client<Net>, begin: impl FnOnce(&Client<Net>)) -> Told {
    let told = Arc::new(Mutex::new(Vec::new()));
    let tells = told.clone();
    client
        .on_open(|_| panic!("it is open"))
        .on_close(|_, _| panic!("it was never open"))
        .on_fail(move |failure, context| tells.lock().unwrap().push(inspect(failure, context)));
    begin(&client);
    assert!(told.lock().unwrap().is_empty(), "not from within the call that begins it");
    assert_eq!(client.run().unwrap(), 1, "one handler");
    assert!(client.stopped().unwrap() && client.connections().is_empty());
    let counters = client.counters();
    assert_eq!((counters.made, counters.opened, counters.failed), (1, 0, 1));
    let mut told = told.lock().unwrap();
    assert_eq!(told.len(), 1);
    let told = told.pop().unwrap();
    assert_eq!(told.thread, thread::current().id());
    told
}

fn connect(url: &str) -> impl FnOnce(&Client<Net>) {
    move |client| _ = client.connect(url).unwrap()
}

#[test]
fn a_name_that_is_unknown() {
    let _watchdog = watchdog();
    let mut client = client();
    client.transport_mut().set_look_up(|_, _| Err(io::Error::new(ErrorKind::NotFound, "nobody")));
    let told = fail(client, connect("ws://nowhere.example/"));
    assert_eq!(told.failure.cause(), Cause::Transport(TransportError::NotFound));
    assert_eq!((told.variant, told.kind), ("resolve", Some(ErrorKind::NotFound)));
    assert_eq!(told.says.unwrap(), "cannot look up nowhere.example: nobody");
}

#[test]
fn a_name_without_addresses() {
    let _watchdog = watchdog();
    let mut client = client();
    client.transport_mut().set_look_up(|_, _| Ok(Vec::new()));
    let told = fail(client, connect("ws://nowhere.example/"));
    assert_eq!(told.failure.cause(), Cause::Transport(TransportError::NotFound));
    assert_eq!(told.variant, "resolve");
}

#[test]
fn a_look_up_that_panics() {
    let _watchdog = watchdog();
    let mut client = client();
    client.transport_mut().set_look_up(|_, _| panic!("on purpose"));
    assert_eq!(fail(client, connect("ws://nowhere.example/")).variant, "resolve");
}

#[test]
fn no_address_at_all() {
    let _watchdog = watchdog();
    let told = fail(client(), |client| {
        client.request("ws://a.example/").unwrap().to_addresses([]).connect().unwrap();
    });
    assert_eq!((told.variant, told.attempts.len()), ("connect", 0));
    assert!(told.says.unwrap().contains("a.example"));
}

#[test]
fn nobody_listens() {
    let _watchdog = watchdog();
    let closed = closed();
    let told = fail(client(), connect(&url(closed.address)));
    assert_eq!(told.failure.cause(), Cause::Transport(TransportError::Refused));
    assert_eq!((told.variant, told.kind), ("connect", Some(ErrorKind::ConnectionRefused)));
    assert_eq!(told.attempts, [closed.address.to_string()]);
    let says = told.says.unwrap();
    assert!(says.starts_with("cannot connect to 127.0.0.1: "), "{says}");
    assert!(says.contains(&closed.address.to_string()), "{says}");
}

#[test]
fn nobody_listens_anywhere() {
    let _watchdog = watchdog();
    let all = [closed(), closed(), closed()];
    let addresses = all.each_ref().map(|closed| closed.address);
    let told = fail(client(), |client| {
        client.request("ws://a.example/").unwrap().to_addresses(addresses).connect().unwrap();
    });
    assert_eq!(told.failure.cause(), Cause::Transport(TransportError::Refused));
    assert_eq!(told.attempts, addresses.map(|address| address.to_string()));
}

/// A group is nobody to connect to; no packet leaves for that.
#[test]
fn there_is_no_way() {
    let _watchdog = watchdog();
    let told = fail(client(), connect("ws://224.0.0.1:81/"));
    assert_eq!(told.failure.cause(), Cause::Transport(TransportError::Unreachable));
    assert_eq!((told.variant, told.kind), ("connect", Some(ErrorKind::NetworkUnreachable)));
    assert_eq!(told.attempts, ["224.0.0.1:81"]);
}

#[test]
fn a_socket_that_cannot_be_set_up() {
    let _watchdog = watchdog();
    let mut client = client();
    client
        .transport_mut()
        .on_socket_init(|_| Err(io::Error::new(ErrorKind::PermissionDenied, "not that one")));
    let closed = closed();
    let told = fail(client, connect(&url(closed.address)));
    assert_eq!((told.variant, told.kind), ("connect", Some(ErrorKind::PermissionDenied)));
}

#[test]
fn what_is_no_url() {
    let client = client();
    let cases = [
        ("http://a.example/", UriError::Scheme),
        ("a.example", UriError::Scheme),
        ("ws://", UriError::MissingHost),
        ("ws://a.example:99999/", UriError::Port),
        ("ws://a.example/#part", UriError::Fragment),
        ("ws://a b/", UriError::Character(' ')),
        ("ws://[::1/", UriError::Host),
    ];
    for (url, expected) in cases {
        match client.connect(url) {
            Err(Error::Uri { uri, source }) => assert_eq!((&*uri, source), (url, expected)),
            other => panic!("{url}: {other:?}"),
        }
    }
    assert!(client.connections().is_empty());
    assert_eq!(client.counters().made, 0);
    assert_eq!(client.run().unwrap(), 0);
}

#[test]
fn options_that_make_no_request() {
    let client = client();
    let mut request = client.request("ws://a.example/").unwrap();
    request.options().subprotocols = vec!["not a token".into()];
    let error = request.connect().unwrap_err();
    assert!(matches!(error, Error::Request(_)), "{error:?}");
    let mut request = client.request("ws://a.example/").unwrap();
    let key = HeaderValue::from_static("x");
    request.options().headers.insert("sec-websocket-key", key);
    assert!(matches!(request.connect(), Err(Error::Request(_))));
    assert_eq!(client.counters().made, 0);
    assert_eq!(client.run().unwrap(), 0);
}

/// Nothing is said on a stream that anybody can read.
#[test]
fn a_secure_url_over_plain_tcp() {
    let _watchdog = watchdog();
    let (address, thread) = serve(|mut peer| peer.read_to_end());
    let told = fail(client(), connect(&format!("wss://{address}/")));
    assert_eq!(told.failure.cause(), Cause::Handshake(HandshakeError::NotSecure));
    assert!(thread.join().unwrap().is_empty());
}

/// A server that does this when it has read the request.
fn answered_by(f: impl FnOnce(Peer) + Send + 'static) -> Told {
    let (address, thread) = serve(|mut peer| {
        assert!(peer.read_head().starts_with("GET /chat HTTP/1.1\r\n"));
        f(peer);
    });
    let told = fail(client(), connect(&url(address)));
    thread.join().unwrap();
    told
}

#[test]
fn the_stream_ends_before_the_response() {
    let _watchdog = watchdog();
    let told = answered_by(drop);
    assert_eq!(told.failure.cause(), Cause::EndOfStream);
    assert_eq!((told.variant, told.io), ("none", None));
    let told = answered_by(|peer| peer.write("HTTP/1.1 101 Switching"));
    assert_eq!(told.failure.cause(), Cause::EndOfStream);
}

#[test]
fn the_stream_is_reset_before_the_response() {
    let _watchdog = watchdog();
    let told = answered_by(reset);
    assert_eq!(told.failure.cause(), Cause::Transport(TransportError::Reset));
    assert_eq!(told.io, Some(ErrorKind::ConnectionReset));
    let told = answered_by(|peer| {
        peer.write("HTTP/1.1 101 Switching");
        reset(peer);
    });
    assert_eq!(told.failure.cause(), Cause::Transport(TransportError::Reset));
}

/// The operating system does not know the address any more, but the endpoint does.
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
    client.run().unwrap();
    thread.join().unwrap();
    assert_eq!(*seen.lock().unwrap(), Some((Some(address), address.to_string())));
}

/// The same in the other role, where a part of the request has come, or nothing.
#[test]
fn a_reset_before_the_request_names_the_address() {
    let _watchdog = watchdog();
    for request in ["", "GET / HTTP/1.1\r\n"] {
        let (telling, told) = std::sync::mpsc::channel();
        let telling = Mutex::new(telling);
        let mut server = crate::scene::echo();
        server.on_fail(move |_, context| {
            let fact = (context.peer_addr(), context.remote_endpoint());
            telling.lock().unwrap().send(fact).unwrap();
        });
        let running = crate::scene::Running::start(server);
        let peer = Peer::connect(running.address);
        let address = peer.local_addr();
        peer.write(request);
        anyloop_testkit::wait::eventually("it is accepted", || running.server.counters().made == 1);
        reset(peer);
        let told = told.recv_timeout(anyloop_testkit::wait::PATIENCE).unwrap();
        assert_eq!(told, (Some(address), address.to_string()), "{request:?}");
    }
}

#[test]
fn the_server_refuses() {
    let _watchdog = watchdog();
    let seen = crate::scene::shared();
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
        assert_eq!(client.run().unwrap(), 1, "{how}");
        thread.join().unwrap();
        let rejected = Cause::Handshake(HandshakeError::Rejected(503));
        let expected = (rejected, 503, "120".to_string(), "come back".to_string());
        assert_eq!(seen.lock().unwrap().pop(), Some(expected), "{how}");
    }
}

#[test]
fn the_answer_is_another_protocol() {
    let _watchdog = watchdog();
    let told = answered_by(|mut peer| {
        peer.write("SSH-2.0-OpenSSH_9.6\r\n\r\n");
        peer.read_to_end();
    });
    assert!(matches!(told.failure.cause(), Cause::Handshake(_)), "{:?}", told.failure);
    let wrong_key = answered_by(|mut peer| {
        peer.write(requests::RESPONSE); // to a nonce of zeros
        peer.read_to_end();
    });
    let mismatch = Cause::Handshake(HandshakeError::AcceptMismatch);
    assert_eq!(wrong_key.failure.cause(), mismatch);
}

/// Given up at each stage: one `fail`, and `run` returns.
#[test]
fn connecting_can_be_given_up() {
    let _watchdog = watchdog();
    let hole = hole();
    let log = Log::default();
    let client = told(&log);
    let handle = client.connect(url(hole.address).as_str()).unwrap();
    assert_eq!(client.run_for(crate::scene::millis(50)).unwrap(), 0);
    let other = thread::spawn(move || handle.close(CloseCode::NORMAL, "").unwrap());
    assert_eq!(client.run().unwrap(), 1);
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
    let client = told(&log);
    let handle = client.connect(url(address).as_str()).unwrap();
    assert_eq!(client.run_for(crate::scene::millis(100)).unwrap(), 0);
    handle.close(CloseCode::NORMAL, "").unwrap();
    handle.close(CloseCode::NORMAL, "").unwrap();
    assert_eq!(client.run().unwrap(), 1);
    assert_eq!(log.take(), ["fail by local: opening handshake abandoned"]);
    assert!(thread.join().unwrap().is_empty());
}

/// The failure is a handler like any other: it connects anew.
#[test]
fn a_failure_may_connect_anew() {
    let _watchdog = watchdog();
    let closed = closed();
    let own = Arc::new(std::sync::OnceLock::<Arc<Client<Net>>>::new());
    let mut client = client();
    let (again, to) = (own.clone(), url(closed.address));
    client.on_fail(move |_, _| {
        let client = again.get().unwrap();
        if client.counters().made < 10 {
            client.connect(to.as_str()).unwrap();
        }
    });
    let client = Arc::new(client);
    own.set(client.clone()).ok().unwrap();
    client.connect(url(closed.address).as_str()).unwrap();
    assert_eq!(client.run().unwrap(), 10);
    assert_eq!(client.counters().failed, 10);
}

/// A panic of `fail` leaves that one call; the others are told nevertheless.
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
    client.run().unwrap();
    assert_eq!(*count.lock().unwrap(), 2);
    assert!(client.connections().is_empty());
}
