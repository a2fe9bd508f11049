//! An endpoint, reached from handlers and other threads.

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyloop::http;
use anyloop::net::{Client, Error, LocalClient, LocalServer, Server};
use anyloop::prelude::*;
use anyloop::proto::{Cause, State};
use anyloop_testkit::frames::{self, text};
use anyloop_testkit::peer::Peer;
use anyloop_testkit::requests;
use anyloop_testkit::wait::{PATIENCE, eventually};
use anyloop_testkit::watchdog::watchdog;

const HOUR: Duration = Duration::from_secs(3600);

fn config() -> ServerConfig {
    ServerConfig::new(OriginPolicy::Any)
}

/// Serves until the server is shut down, on another thread.
fn serve(server: &mut Server) -> std::net::SocketAddr {
    let address = server.listen(("127.0.0.1", 0)).unwrap();
    server.start_accept().unwrap();
    address
}

/// Ends a connection that the server closes with this code.
fn answer_close(mut peer: Peer, code: u16) {
    peer.expect_close(code);
    peer.send(&[frames::close(code, "")]);
    peer.expect_eof();
}

#[test]
fn a_handler_sends_to_all_connections_of_its_endpoint() {
    let _watchdog = watchdog();
    let mut server = Server::new(config()).unwrap();
    server.on_message(|message, context| {
        let reached = context.endpoint().broadcast(Prepared::new(message));
        assert_eq!(reached, 2);
        assert_eq!(context.endpoint().connections().len(), 2);
    });
    let address = serve(&mut server);
    let handle = server.handle();
    let running = thread::spawn(move || server.run());
    let (mut first, mut second) = (Peer::open(address), Peer::open(address));
    eventually("both are open", || handle.counters().opened == 2);
    first.send(&[text("news")]);
    first.expect(&text("news"));
    second.expect(&text("news"));
    handle.shut_down();
    answer_close(first, 1001);
    answer_close(second, 1001);
    running.join().unwrap();
}

/// A connection without handles takes its broadcasts from the queue of its endpoint.
#[test]
fn a_broadcast_precedes_the_close_of_a_handler() {
    let _watchdog = watchdog();
    let mut server = Server::new(config()).unwrap();
    server.on_message(|_, context| {
        assert_eq!(context.endpoint().broadcast("bye"), 2);
        context.close(CloseCode::NORMAL, "").unwrap();
        assert_eq!(context.endpoint().broadcast("to the other one"), 1);
    });
    let address = serve(&mut server);
    let handle = server.handle();
    let running = thread::spawn(move || server.run());
    let (mut first, mut second) = (Peer::open(address), Peer::open(address));
    eventually("both are open", || handle.counters().opened == 2);
    first.send(&[text("close")]);
    first.expect(&text("bye"));
    answer_close(first, 1000);
    second.expect(&text("bye"));
    second.expect(&text("to the other one"));
    handle.shut_down();
    answer_close(second, 1001);
    running.join().unwrap();
}

#[test]
fn a_handle_does_not_keep_its_endpoint() {
    let handle = {
        let mut server = Server::new(config()).unwrap();
        serve(&mut server);
        assert!(!server.handle().is_shutting_down());
        server.handle()
    };
    assert!(handle.is_shutting_down());
    assert!(handle.connections().is_empty());
    assert_eq!(handle.broadcast(Prepared::new("to nobody")), 0);
    assert_eq!(handle.close_all(CloseCode::NORMAL, ""), Ok(0));
    assert!(matches!(handle.connect("ws://127.0.0.1:1/"), Err(Error::EndpointDropped)));
    handle.shut_down_within(Duration::ZERO);
}

#[test]
fn only_a_client_connects_by_its_handle() {
    let server = Server::new(config()).unwrap();
    assert!(matches!(server.handle().connect("ws://127.0.0.1:1/"), Err(Error::NotAClient)));
    let client = Client::new(ClientConfig::new()).unwrap();
    assert!(matches!(client.handle().connect("http://127.0.0.1:1/"), Err(Error::Uri { .. })));
    client.shut_down();
    assert!(matches!(client.handle().connect("ws://127.0.0.1:1/"), Err(Error::ShutDown)));
    assert!(matches!(client.connect("ws://127.0.0.1:1/"), Err(Error::ShutDown)));
}

#[test]
fn a_client_connects_again_when_its_connection_has_closed() {
    let _watchdog = watchdog();
    let event_loop = EventLoop::new().unwrap();
    let mut server = Server::on(&event_loop, config());
    server.on_open(|context| _ = context.close(CloseCode::SERVICE_RESTART, ""));
    let uri = format!("ws://{}/", serve(&mut server));

    let mut client = Client::on(&event_loop, ClientConfig::new());
    let (handle, server_handle) = (client.handle(), server.handle());
    let again = uri.clone();
    client.on_close(move |_, _| {
        if handle.counters().opened < 3 {
            handle.connect(&again).unwrap();
        } else {
            server_handle.shut_down();
        }
    });
    client.connect(&uri).unwrap();
    event_loop.run();
    assert_eq!(client.counters().closed, 3);
}

/// What a request of the handle says is the same as with the client.
#[test]
fn a_request_by_a_handle_has_settings_and_a_handler_of_its_own() {
    let _watchdog = watchdog();
    let event_loop = EventLoop::new().unwrap();
    let mut server = Server::on(&event_loop, config());
    server.on_validate(|request, _| {
        match request.subprotocols().iter().any(|name| name == "resume") {
            true => Answer::Accept(Accept::new().with_subprotocol("resume")),
            false => Answer::status(http::StatusCode::FORBIDDEN, "the first is refused"),
        }
    });
    let address = serve(&mut server);

    let mut client = Client::on(&event_loop, ClientConfig::new());
    let server_handle = server.handle();
    client.on_fail(move |_, context| {
        let request = context.endpoint().request("ws://no-such-host.invalid/").unwrap();
        let request = request.configure(|config| config.subprotocol("resume"));
        let (mut resumed, server) = (Handlers::new(), server_handle.clone());
        resumed.on_open(move |context| {
            let subprotocol = context.handshake_info().unwrap().subprotocol.clone();
            assert_eq!(subprotocol.as_deref(), Some("resume"));
            server.shut_down();
        });
        request.to_addresses([address]).with_handler(resumed).connect().unwrap();
    });
    client.connect(format!("ws://{address}/")).unwrap();
    event_loop.run();
    assert_eq!((client.counters().failed, client.counters().opened), (1, 1));
}

#[test]
fn a_client_on_one_thread_connects_again_on_that_thread() {
    let _watchdog = watchdog();
    let event_loop = LocalEventLoop::new().unwrap();
    let mut server = LocalServer::on(&event_loop, config());
    server.on_open(|context| _ = context.close(CloseCode::SERVICE_RESTART, ""));
    let address = server.listen(("127.0.0.1", 0)).unwrap();
    server.start_accept().unwrap();
    let uri = format!("ws://{address}/");

    let other = LocalClient::on(&event_loop, ClientConfig::new()); // not taken for the client below
    let mut client = LocalClient::on(&event_loop, ClientConfig::new());
    let (again, server_handle) = (uri.clone(), server.handle());
    client.on_close(move |_, context| {
        let endpoint = context.endpoint();
        if endpoint.counters().opened < 3 {
            endpoint.connect(&again).unwrap();
        } else {
            server_handle.shut_down();
        }
    });
    client.connect(&uri).unwrap();
    event_loop.run();
    assert_eq!((client.counters().closed, other.counters().started), (3, 0));

    let handle = client.handle();
    let elsewhere = thread::spawn(move || handle.connect("ws://127.0.0.1:1/").map(drop));
    assert!(matches!(elsewhere.join().unwrap(), Err(Error::OtherThread)));
    let handle = client.handle();
    client.connect(&uri).unwrap();
    drop(client); // its connection keeps the state of the endpoint
    assert!(matches!(handle.connect(&uri), Err(Error::EndpointDropped)));
}

#[test]
fn a_client_that_is_dropped_drops_what_its_functions_have_captured() {
    let captured = Arc::new(());
    let held = captured.clone();
    let event_loop = LocalEventLoop::new().unwrap();
    let mut client = LocalClient::on(&event_loop, ClientConfig::new());
    client.on_socket_init(move |_| {
        let _ = &held;
        Ok(())
    });
    drop(client);
    assert_eq!(Arc::strong_count(&captured), 1);
}

/// Reports why its connection has ended.
fn report_causes(server: &mut Server, causes: Sender<Option<Cause>>) {
    server.on_close(move |ending, _| {
        causes.send(ending.failure.map(|failure| failure.cause())).unwrap();
    });
}

#[test]
fn what_is_not_closed_within_the_time_of_a_shut_down_is_terminated() {
    let _watchdog = watchdog();
    let mut server = Server::new(config().close_timeout(None)).unwrap();
    let (sender, causes) = channel();
    report_causes(&mut server, sender);
    let address = serve(&mut server);
    let handle = server.handle();
    let running = thread::spawn(move || server.run());
    let mut silent = Peer::open(address); // it never answers the Close
    let polite = Peer::open(address);
    eventually("both are open", || handle.counters().opened == 2);
    handle.shut_down_within(Duration::from_millis(300));
    answer_close(polite, 1001);
    assert_eq!(causes.recv_timeout(PATIENCE), Ok(None));
    assert_eq!(causes.recv_timeout(PATIENCE), Ok(Some(Cause::Terminated)));
    running.join().unwrap();
    silent.expect_close(1001);
}

/// The time is longer than the watchdog's. The handler sets the timers: they are set before a peer can have answered.
#[test]
fn the_time_of_a_shut_down_keeps_no_server_whose_peers_close() {
    let _watchdog = watchdog();
    let mut server = Server::new(config()).unwrap();
    let (sender, causes) = channel();
    report_causes(&mut server, sender);
    server.on_message(|_, context| context.endpoint().shut_down_within(HOUR));
    let address = serve(&mut server);
    let handle = server.handle();
    let running = thread::spawn(move || server.run());
    let (first, second) = (Peer::open(address), Peer::open(address));
    eventually("both are open", || handle.counters().opened == 2);
    first.send(&[text("shut down")]);
    answer_close(first, 1001);
    answer_close(second, 1001);
    running.join().unwrap();
    assert_eq!(causes.iter().collect::<Vec<_>>(), [None, None]);
}

/// A client that shuts down within a time when it is open; and the peer that it is connected to.
fn client_that_shuts_down(
    time: Duration,
) -> (thread::JoinHandle<usize>, Receiver<Option<Cause>>, Peer) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let config = ClientConfig::new().random(Arc::new(requests::Zeros)).close_timeout(None);
    let mut client = Client::new(config).unwrap();
    let (sender, causes) = channel();
    client.on_open(move |context| context.endpoint().shut_down_within(time));
    client.on_close(move |ending, _| {
        sender.send(ending.failure.map(|failure| failure.cause())).unwrap();
    });
    client.connect(format!("ws://{}/", listener.local_addr().unwrap())).unwrap();
    let running = thread::spawn(move || client.run());
    let mut peer = Peer::accept(&listener);
    peer.read_head();
    peer.write(requests::RESPONSE);
    (running, causes, peer)
}

#[test]
fn the_time_of_a_shut_down_keeps_no_client_whose_peer_closes() {
    let _watchdog = watchdog();
    let (running, causes, mut peer) = client_that_shuts_down(HOUR);
    peer.expect_close(1001);
    peer.send(&[frames::close(1001, "")]);
    drop(peer); // a client waits for the end of the stream
    running.join().unwrap();
    assert_eq!(causes.iter().collect::<Vec<_>>(), [None]);
}

#[test]
fn a_client_whose_peer_never_closes_is_terminated_after_the_time_of_a_shut_down() {
    let _watchdog = watchdog();
    let (time, begun) = (Duration::from_millis(300), Instant::now());
    let (running, causes, mut silent) = client_that_shuts_down(time);
    silent.expect_close(1001);
    running.join().unwrap();
    assert!(begun.elapsed() >= time, "it is not terminated earlier");
    assert_eq!(causes.iter().collect::<Vec<_>>(), [Some(Cause::Terminated)]);
    assert_eq!(silent.read_to_end(), b"");
}

#[test]
fn a_terminated_connection_ends_without_a_closing_handshake() {
    let _watchdog = watchdog();
    let mut server = Server::new(config()).unwrap();
    let (sender, causes) = channel();
    report_causes(&mut server, sender);
    server.on_message(|_, context| context.terminate());
    let address = serve(&mut server);
    let handle = server.handle();
    let running = thread::spawn(move || server.run());
    let (mut first, mut second) = (Peer::open(address), Peer::open(address));
    first.send(&[text("end it")]);
    assert_eq!(first.read_to_end(), b"");
    assert_eq!(causes.recv_timeout(PATIENCE), Ok(Some(Cause::Terminated)));
    let connection = handle.connections().pop().unwrap();
    connection.terminate().unwrap();
    assert_eq!(second.read_to_end(), b"");
    assert_eq!(causes.recv_timeout(PATIENCE), Ok(Some(Cause::Terminated)));
    assert_eq!(connection.state(), State::Ended);
    assert_eq!(connection.terminate(), Err(SendError::Gone));
    handle.shut_down();
    running.join().unwrap();
}

#[test]
fn a_handshake_that_is_terminated_is_not_answered() {
    let _watchdog = watchdog();
    let mut server = Server::new(config()).unwrap();
    let (sender, causes) = channel();
    server.on_fail(move |failure, _| sender.send(failure.cause()).unwrap());
    server.on_validate(|_, context| {
        context.terminate();
        Answer::Defer
    });
    let address = serve(&mut server);
    let handle = server.handle();
    let running = thread::spawn(move || server.run());
    let mut peer = Peer::connect(address);
    peer.write(requests::REQUEST);
    assert_eq!(peer.read_to_end(), b"");
    assert_eq!(causes.recv_timeout(PATIENCE), Ok(Cause::Terminated));
    handle.shut_down();
    running.join().unwrap();
}

/// A Close without a code is empty, and a reason needs a code.
#[test]
fn rfc6455_5_5_1_a_close_can_be_empty() {
    let _watchdog = watchdog();
    let mut server = Server::new(config()).unwrap();
    server.on_message(|_, context| {
        assert!(context.close(None, "a reason").is_err());
        assert!(context.handle().close(None, "a reason").is_err());
        context.handle().close(None, "").unwrap();
    });
    let address = serve(&mut server);
    let handle = server.handle();
    let running = thread::spawn(move || server.run());
    let mut peer = Peer::open(address);
    peer.send(&[text("close it")]);
    peer.expect(&frames::frame(0x8, ""));
    peer.send(&[frames::frame(0x8, "")]);
    peer.expect_eof();
    drop(peer);
    handle.shut_down();
    running.join().unwrap();
}

/// The messages that have arrived behind it are not handled any more.
#[test]
fn a_handler_that_terminates_its_connection_is_not_called_again() {
    let mut server = anyloop::iostream::Server::new(config());
    let (sender, calls) = channel();
    let closed = sender.clone();
    server.on_message(move |_, context| {
        sender.send("message").unwrap();
        context.terminate();
    });
    server.on_close(move |_, _| closed.send("close").unwrap());
    let connection = server.connection();
    connection.collect_output();
    connection.read_all(requests::REQUEST.as_bytes()).unwrap();
    connection.read_all(&b"\x81\x80\0\0\0\0".repeat(3)).unwrap();
    assert!(connection.has_ended());
    assert_eq!(calls.try_iter().collect::<Vec<_>>(), ["message", "close"]);
}

#[test]
fn a_request_whose_handler_terminates_it_is_not_accepted() {
    let mut server = anyloop::iostream::Server::new(config());
    server.on_validate(|_, context| {
        context.terminate();
        Answer::accept()
    });
    server.on_open(|_| unreachable!("it was terminated"));
    let connection = server.connection();
    connection.collect_output();
    connection.read_all(requests::REQUEST.as_bytes()).unwrap();
    assert!(connection.has_ended() && !connection.wants_output());
}

/// A shutdown that happens while a connection is being made is not missed.
#[test]
fn a_connection_that_is_made_during_a_shutdown_is_refused() {
    let _watchdog = watchdog();
    let mut server = Server::new(config()).unwrap();
    let handle = server.handle();
    server.on_socket_init(move |_| {
        handle.shut_down();
        Ok(())
    });
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let _client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let adopted = server.adopt(listener.accept().unwrap().0, b"");
    assert!(matches!(adopted, Err(Error::ShutDown)));

    let shut_down = Arc::new(std::sync::OnceLock::<EndpointHandle<Handlers>>::new());
    let by_factory = shut_down.clone();
    let factory = MakeHandlers(move || by_factory.get().unwrap().shut_down());
    let client = Client::with_factory(ClientConfig::new(), factory).unwrap();
    shut_down.set(client.handle()).unwrap();
    assert!(matches!(client.connect("ws://127.0.0.1:1/"), Err(Error::ShutDown)));
    assert_eq!(client.run(), 0);
}

/// Calls a function for each handler that it makes.
struct MakeHandlers<F>(F);

impl<F: Fn()> HandlerFactory for MakeHandlers<F> {
    type Handler = Handlers;

    fn make(&self) -> Handlers {
        (self.0)();
        Handlers::new()
    }
}

#[test]
fn a_client_without_sockets_makes_no_connection_after_its_shutdown() {
    let mut client = anyloop::iostream::Client::new(ClientConfig::new());
    let (sender, causes) = channel();
    client.on_fail(move |failure, _| sender.send(failure.cause()).unwrap());
    client.shut_down();
    let connection = client.connection("ws://a/").unwrap();
    connection.collect_output();
    connection.start().unwrap();
    assert!(connection.has_ended() && !connection.wants_output());
    assert!(causes.try_recv().is_ok());
}

#[test]
fn what_is_the_same_for_all_connections_cannot_be_configured_for_one() {
    let client = Client::new(ClientConfig::new()).unwrap();
    let request = client.request("ws://127.0.0.1:1/").unwrap();
    let request = request.configure(|config| config.keep_handshake(false));
    assert!(matches!(request.connect(), Err(Error::NotPerConnection)));
}

/// Nobody reads, so what one connection may hold back is seen at once.
#[test]
fn the_send_buffer_can_be_limited_for_one_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let uri = format!("ws://{}/", listener.local_addr().unwrap());
    let client = Client::new(ClientConfig::new()).unwrap();
    let request = client.request(&uri).unwrap();
    let request = request.configure(|config| config.max_send_buffer(10).overflow(Overflow::Drop));
    let limited = request.connect().unwrap();
    let other = client.connect(&uri).unwrap();
    for (handle, expected) in [(&limited, Sent::Dropped), (&other, Sent::Buffered)] {
        assert_eq!(handle.send("12345678"), Ok(Sent::Buffered));
        assert_eq!(handle.send("123"), Ok(expected));
    }
}
