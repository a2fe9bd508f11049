//! Redirects that a client follows, and those that it does not.

use std::cell::Cell;
use std::io::ErrorKind;
use std::net::TcpListener;
use std::rc::Rc;
use std::sync::mpsc::channel;

use anyloop::LocalEventLoop;
use anyloop::net::{ConnectError, LocalClient, RedirectError};
use anyloop::prelude::*;
use anyloop::proto::handshake::UriError;
use anyloop::proto::handshake::http::header::{self, HeaderName};
use anyloop::proto::handshake::http::{HeaderMap, HeaderValue, Response};
use anyloop::proto::{Cause, HandshakeError, State};
use anyloop_testkit::peer::serve;
use anyloop_testkit::watchdog::watchdog;

use crate::record::Log;
use crate::setup::{
    GREETED, Running, Shared, chain, client_with, echo, greeting_with, millis,
    recording_client_with, run_until, shared,
};

/// An echo at `/echo`; other paths are redirected there, with the path's number as the status, or to `to`.
fn redirecting(to: Option<String>) -> (Running, Shared<(String, HeaderMap)>) {
    let seen = shared();
    let (mut server, sees) = (echo(), seen.clone());
    server.on_validate(move |request, _| {
        let path = request.uri().path().to_string();
        sees.lock().unwrap().push((path.clone(), request.headers().clone()));
        if path == "/echo" {
            return Accept::new().into();
        }
        let status: u16 = path[1..].parse().unwrap_or(302);
        let location = to.as_deref().unwrap_or("/echo");
        let response = Response::builder().status(status).header(header::LOCATION, location);
        Answer::respond(response.body("elsewhere\n").unwrap())
    });
    (Running::start(server), seen)
}

#[track_caller]
fn greet(config: ClientConfig, uri: &str) {
    let log = Log::default();
    let client = greeting_with(&log, config);
    let handle = client.connect(uri).unwrap();
    client.run();
    assert_eq!(log.take(), GREETED);
    assert_eq!(handle.state(), State::Ended);
    let counters = client.counters();
    assert_eq!((counters.started, counters.opened, counters.closed), (1, 1, 1));
}

/// The cause of the failure, and why the redirect was not followed.
fn fail(config: ClientConfig, uri: &str) -> (Cause, Option<String>) {
    let mut client = client_with(config);
    let (sender, failures) = channel();
    client.on_open(|_| panic!("it is not to open"));
    client.on_fail(move |failure, context| {
        assert!(context.response().is_some());
        let error = context.error().map(|error| match error.downcast_ref::<ConnectError>() {
            Some(redirect @ ConnectError::Redirect { source, .. }) => {
                assert_eq!(chain(redirect)[1], source.to_string());
                format!("{source:?}")
            }
            _ => panic!("{error}"),
        });
        sender.send((failure.cause(), error)).unwrap();
    });
    client.connect(uri).unwrap();
    client.run();
    assert_eq!(client.counters().failed, 1);
    failures.try_recv().expect("it has failed")
}

fn at(running: &Running, path: &str) -> String {
    format!("ws://{}{path}", running.address)
}

const fn rejected(status: u16) -> Cause {
    Cause::Handshake(HandshakeError::Rejected(status))
}

#[test]
fn rfc9110_15_4_each_status_is_followed() {
    let _watchdog = watchdog();
    let (running, seen) = redirecting(None);
    for status in [301, 302, 303, 307, 308] {
        greet(ClientConfig::new().redirects(1), &at(&running, &format!("/{status}")));
        let paths: Vec<_> = seen.lock().unwrap().drain(..).map(|(path, _)| path).collect();
        assert_eq!(paths, [format!("/{status}"), "/echo".to_string()]);
    }
}

#[test]
fn it_must_be_asked_for() {
    let _watchdog = watchdog();
    let (running, _) = redirecting(None);
    assert_eq!(fail(ClientConfig::new(), &at(&running, "/302")), (rejected(302), None));
    // These lead nowhere.
    let config = || ClientConfig::new().redirects(5);
    for status in [300, 304, 403, 500] {
        let uri = at(&running, &format!("/{status}"));
        assert_eq!(fail(config(), &uri), (rejected(status), None));
    }
    // Nor does a connection to addresses of the program's own go elsewhere.
    let log = Log::default();
    let client = recording_client_with(&log, config());
    let request = client.request("ws://chat.example/302").unwrap();
    request.to_addresses([running.address]).connect().unwrap();
    client.run();
    assert_eq!(log.take(), ["fail by peer: handshake rejected with status 302"]);
}

#[test]
fn credentials_stay_on_their_origin() {
    let _watchdog = watchdog();
    let (other, at_other) = redirecting(None);
    let (running, at_first) = redirecting(Some(at(&other, "/302")));
    let mut secret = HeaderValue::from_static("17");
    secret.set_sensitive(true);
    let config = ClientConfig::new()
        .redirects(5)
        .header(header::COOKIE, HeaderValue::from_static("session=17"))
        .header(header::AUTHORIZATION, HeaderValue::from_static("Bearer 17"))
        .header(HeaderName::from_static("x-key"), secret)
        .header(HeaderName::from_static("x-room"), HeaderValue::from_static("lobby"))
        .subprotocol("v1");
    let log = Log::default();
    let mut client = greeting_with(&log, config);
    let logs = log.clone();
    client.on_open(move |context| {
        logs.push(context.handshake_info().unwrap().target.as_ref().unwrap().to_string());
        context.close(CloseCode::NORMAL, "").unwrap();
    });
    client.connect(at(&running, "/302").as_str()).unwrap();
    client.run();
    let target = at(&other, "/echo");
    assert_eq!(log.take(), [target, "close clean by local: 1000/1000".to_string()]);
    let secret = ["cookie", "authorization", "x-key"];
    let has = |fields: &HeaderMap, name: &str| fields.contains_key(name);
    let (first, others) = (at_first.lock().unwrap(), at_other.lock().unwrap());
    assert!(secret.iter().all(|name| has(&first[0].1, name)));
    assert_eq!(others.len(), 2);
    for (_, fields) in others.iter() {
        assert!(!secret.iter().any(|name| has(fields, name)), "{fields:?}");
        assert!(has(fields, "x-room") && has(fields, "sec-websocket-protocol"));
        assert_eq!(fields["host"], other.address.to_string());
    }
}

#[test]
fn user_and_password_of_the_uri_are_kept_on_the_origin() {
    let _watchdog = watchdog();
    let (running, seen) = redirecting(None);
    let uri = format!("ws://bob:secret@{}/302", running.address);
    greet(ClientConfig::new().redirects(1), &uri);
    assert!(seen.lock().unwrap().iter().all(|(_, fields)| fields.contains_key("authorization")));
}

/// RFC 9110 §4.2.4: a server that redirects does not choose who the client is.
#[test]
fn a_location_with_a_user_is_not_followed() {
    let _watchdog = watchdog();
    let (other, at_other) = redirecting(None);
    let (running, _) = redirecting(Some(format!("ws://eve:secret@{}/echo", other.address)));
    let refused = (rejected(302), Some(format!("{:?}", RedirectError::Uri(UriError::UserInfo))));
    let config = || ClientConfig::new().redirects(5);
    assert_eq!(fail(config(), &at(&running, "/302")), refused);
    assert_eq!(fail(config(), &format!("ws://bob:secret@{}/302", running.address)), refused);
    assert!(at_other.lock().unwrap().is_empty());
}

#[test]
fn loops_end_at_the_limit() {
    let _watchdog = watchdog();
    let (running, seen) = redirecting(Some("/302".to_string()));
    let outcome = fail(ClientConfig::new().redirects(3), &at(&running, "/302"));
    assert_eq!(outcome, (rejected(302), Some(format!("{:?}", RedirectError::TooMany(3)))));
    assert_eq!(seen.lock().unwrap().len(), 4);
}

#[test]
fn a_location_that_is_no_websocket_uri_is_reported() {
    let _watchdog = watchdog();
    let cases = [
        ("ftp://chat.example/", UriError::Scheme),
        ("ws://chat.example:0/", UriError::Port),
        ("/a b", UriError::Character(' ')),
    ];
    for (location, error) in cases {
        let (running, _) = redirecting(Some(location.to_string()));
        let outcome = fail(ClientConfig::new().redirects(3), &at(&running, "/302"));
        assert_eq!(outcome, (rejected(302), Some(format!("{:?}", RedirectError::Uri(error)))));
    }
}

/// It goes to terminals and logs.
#[test]
fn a_location_is_shown_without_control_characters_and_in_part() {
    let location = format!("ftp://a/\u{9b}31m\u{202e}{}", "x".repeat(9_000));
    let source = RedirectError::Uri(UriError::Scheme);
    let text = ConnectError::Redirect { location, source }.to_string();
    let shown = format!("ftp://a/\\u{{9b}}31m\\u{{202e}}{}…", "x".repeat(187));
    assert_eq!(text, format!("the redirect to {shown} is not followed"));
}

/// The next server is not there: the failure is that of connecting.
#[test]
fn a_failure_behind_a_redirect_is_reported_as_any_other() {
    let _watchdog = watchdog();
    let closed = crate::setup::closed();
    let (running, _) = redirecting(Some(format!("ws://{}/", closed.address)));
    let log = Log::default();
    let client = recording_client_with(&log, ClientConfig::new().redirects(3));
    client.connect(at(&running, "/302").as_str()).unwrap();
    client.run();
    assert_eq!(log.take(), ["fail by transport: connection refused"]);
}

#[test]
fn what_a_handle_has_sent_before_arrives_behind_the_redirect() {
    let _watchdog = watchdog();
    let (running, _) = redirecting(None);
    let log = Log::default();
    let mut client = recording_client_with(&log, ClientConfig::new().redirects(1));
    let logs = log.clone();
    client.on_message(move |message, context| {
        logs.message(message);
        context.close(CloseCode::NORMAL, "").unwrap();
    });
    let handle = client.connect(at(&running, "/302").as_str()).unwrap();
    handle.send("hello").unwrap();
    client.run();
    assert_eq!(log.take(), ["open", GREETED[0], GREETED[1]]);
}

#[test]
fn a_handle_ends_a_connection_behind_a_redirect() {
    let _watchdog = watchdog();
    let (sender, heads) = channel();
    let (address, thread) = serve(move |mut peer| {
        sender.send(peer.read_head()).unwrap();
        peer.read_to_end()
    });
    let (running, _) = redirecting(Some(format!("ws://{address}/stalls")));
    let log = Log::default();
    let client = recording_client_with(&log, ClientConfig::new().redirects(1));
    let handle = client.connect(at(&running, "/302").as_str()).unwrap();
    run_until(client.event_loop(), "the second request", || heads.try_recv().is_ok());
    handle.close(None, "").unwrap();
    client.run();
    assert_eq!(log.take(), ["fail by local: opening handshake abandoned"]);
    assert!(thread.join().unwrap().is_empty());
}

/// The body of the redirect has not ended yet.
#[test]
fn a_handle_ends_a_connection_within_a_redirect() {
    let _watchdog = watchdog();
    for (terminates, expected) in [
        (false, "fail by local: opening handshake abandoned"),
        (true, "fail by peer: handshake rejected with status 302"),
    ] {
        let elsewhere = TcpListener::bind("127.0.0.1:0").unwrap();
        let location = elsewhere.local_addr().unwrap();
        let (sender, answered) = channel();
        let (address, thread) = serve(move |mut peer| {
            peer.read_head();
            peer.write(format!("HTTP/1.1 302 Found\r\nLocation: ws://{location}/\r\n"));
            peer.write("Content-Length: 99\r\n\r\nelsewhere");
            sender.send(()).unwrap();
            peer.read_to_end();
        });
        let log = Log::default();
        let client = recording_client_with(&log, ClientConfig::new().redirects(1));
        let handle = client.connect(format!("ws://{address}/").as_str()).unwrap();
        run_until(client.event_loop(), "the redirect", || answered.try_recv().is_ok());
        client.poll();
        match terminates {
            true => handle.terminate().unwrap(),
            false => handle.close(None, "").unwrap(),
        }
        client.run();
        assert_eq!(log.take(), [expected]);
        thread.join().unwrap();
        elsewhere.set_nonblocking(true).unwrap();
        assert_eq!(elsewhere.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
    }
}

#[test]
fn a_shutdown_ends_a_connection_behind_a_redirect() {
    let _watchdog = watchdog();
    let (sender, heads) = channel();
    let (address, thread) = serve(move |mut peer| {
        sender.send(peer.read_head()).unwrap();
        peer.read_to_end()
    });
    let (running, _) = redirecting(Some(format!("ws://{address}/stalls")));
    let log = Log::default();
    let client = recording_client_with(&log, ClientConfig::new().redirects(1));
    client.connect(at(&running, "/302").as_str()).unwrap();
    run_until(client.event_loop(), "the second request", || heads.try_recv().is_ok());
    client.shut_down();
    client.run();
    assert_eq!(log.take(), ["fail by local: opening handshake abandoned"]);
    assert!(thread.join().unwrap().is_empty());
}

#[test]
fn a_client_in_a_local_loop_follows_through_a_proxy() {
    let _watchdog = watchdog();
    let (running, _) = redirecting(None);
    let server = running.address;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let proxy = anyloop::net::Proxy::http("127.0.0.1", listener.local_addr().unwrap().port());
    let thread = std::thread::spawn(move || {
        for _ in 0..2 {
            let mut peer = anyloop_testkit::peer::Peer::accept(&listener);
            assert!(peer.read_head().starts_with("CONNECT chat.example:80 "));
            peer.write("HTTP/1.1 200 OK\r\n\r\n");
            peer.relay(server);
        }
    });
    let event_loop = LocalEventLoop::new().unwrap();
    let config = ClientConfig::new().redirects(1).proxy(proxy);
    let mut client = LocalClient::on(&event_loop, config);
    let opened = Rc::new(Cell::new(0));
    let counts = opened.clone();
    client.on_open(move |context| {
        counts.set(counts.get() + 1);
        context.close(CloseCode::NORMAL, "").unwrap();
    });
    client.connect("ws://chat.example/302").unwrap();
    event_loop.run();
    assert_eq!(opened.get(), 1);
    thread.join().unwrap();
}

#[test]
fn the_total_timeout_includes_redirects() {
    let _watchdog = watchdog();
    let (address, thread) = serve(|mut peer| {
        peer.read_head();
        peer.read_to_end()
    });
    let (running, _) = redirecting(Some(format!("ws://{address}/stalls")));
    let log = Log::default();
    let config = ClientConfig::new().redirects(1).open_timeout(None).total_timeout(millis(200));
    let client = recording_client_with(&log, config);
    client.connect(at(&running, "/302").as_str()).unwrap();
    client.run();
    assert_eq!(log.take(), ["fail by timer: opening handshake timed out"]);
    thread.join().unwrap();
}

#[test]
fn each_request_uses_the_proxy() {
    let _watchdog = watchdog();
    let (running, _) = redirecting(Some("ws://other.example/echo".to_string()));
    let server = running.address;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let proxy = anyloop::net::Proxy::http("127.0.0.1", listener.local_addr().unwrap().port());
    let thread = std::thread::spawn(move || {
        ["chat.example:80", "other.example:80"].map(|authority| {
            let mut peer = anyloop_testkit::peer::Peer::accept(&listener);
            assert!(peer.read_head().starts_with(&format!("CONNECT {authority} ")));
            peer.write("HTTP/1.1 200 OK\r\n\r\n");
            peer.relay(server);
        })
    });
    greet(ClientConfig::new().redirects(1).proxy(proxy), "ws://chat.example/302");
    thread.join().unwrap();
}

#[cfg(feature = "tls-core")]
mod tls {
    use anyloop::tls::{ClientTls, ServerTls};
    use anyloop_testkit::tls::Authority;

    use super::*;

    /// A server that speaks TLS, like that of [`redirecting`], and the configuration of a client that trusts it.
    fn secure(to: Option<String>) -> (Running, ClientConfig, String) {
        let identity = Authority::shared().issue(&["localhost"]);
        let tls = ServerTls::from_pem(identity.certificate, identity.key).unwrap();
        let mut server = echo();
        server.on_validate(move |request, _| {
            if request.uri().path() == "/echo" {
                return Accept::new().into();
            }
            let location = to.as_deref().unwrap_or("/echo");
            let response = Response::builder().status(302).header(header::LOCATION, location);
            Answer::respond(response.body("").unwrap())
        });
        let address = server.over_tls(&tls).listen("127.0.0.1:0").unwrap();
        let ca = Authority::shared().pem();
        let trust = ClientTls::builder().ca_pem(ca).only_these_cas().build().unwrap();
        let config = ClientConfig::new().tls(trust).redirects(5);
        (Running::start(server), config, format!("wss://localhost:{}", address.port()))
    }

    #[test]
    fn from_wss_to_wss_and_from_ws_to_wss() {
        let _watchdog = watchdog();
        let (_running, config, url) = secure(None);
        greet(config.clone(), &format!("{url}/room"));
        let (first, _) = redirecting(Some(format!("{url}/room").replace("wss:", "https:")));
        greet(config, &at(&first, "/302"));
    }

    #[test]
    fn never_from_wss_to_ws() {
        let _watchdog = watchdog();
        let (plain, seen) = redirecting(None);
        let (_running, config, url) = secure(Some(at(&plain, "/echo")));
        let outcome = fail(config, &format!("{url}/room"));
        assert_eq!(outcome, (rejected(302), Some(format!("{:?}", RedirectError::Downgrade))));
        assert!(seen.lock().unwrap().is_empty());
    }
}
