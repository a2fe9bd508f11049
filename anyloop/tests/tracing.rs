//! What is logged, with the feature `tracing`.

use std::fmt;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyloop::iostream;
use anyloop::net::Server;
use anyloop::prelude::*;
use anyloop::proto::Role;
use anyloop_testkit::frames::{CLOSE, continuation, frame, text};
use anyloop_testkit::requests::REQUEST;
use socket2::SockRef;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

/// Keeps the lines of this crate, each behind the spans that it is in.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<String>>>, Arc<Mutex<Spans>>);

#[derive(Default)]
struct Spans {
    names: Vec<&'static str>,
    entered: Vec<u64>,
}

impl Subscriber for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("anyloop")
    }

    fn new_span(&self, attributes: &Attributes<'_>) -> Id {
        let names = &mut self.1.lock().unwrap().names;
        names.push(attributes.metadata().name());
        Id::from_u64(names.len() as u64)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let spans = self.1.lock().unwrap();
        let within = spans.entered.iter().map(|id| format!("{}: ", spans.names[*id as usize - 1]));
        let mut line = Line(within.collect::<String>() + event.metadata().level().as_str());
        event.record(&mut line);
        self.0.lock().unwrap().push(line.0);
    }

    fn enter(&self, id: &Id) {
        self.1.lock().unwrap().entered.push(id.into_u64());
    }

    fn exit(&self, id: &Id) {
        assert_eq!(self.1.lock().unwrap().entered.pop(), Some(id.into_u64()));
    }
}

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.0 += &format!(" {value:?}");
        }
    }
}

#[test]
fn connections_that_open_end_and_fail_are_logged() {
    let lines = Lines::default();
    tracing::subscriber::with_default(lines.clone(), || {
        let mut server = iostream::Server::new(ServerConfig::new(OriginPolicy::Any));
        server.set_remote_endpoint("somebody");
        let connect = |server: &iostream::Server| {
            let connection = server.connection();
            connection.set_write_handler(|_| Ok(()));
            connection
        };
        let closed = connect(&server);
        closed.read_all(REQUEST.as_bytes()).unwrap();
        closed.read_all(&frame(CLOSE, "").bytes(Role::Client)).unwrap();
        let broken = connect(&server);
        broken.read_all(REQUEST.as_bytes()).unwrap();
        broken.eof().unwrap();
        connect(&server).eof().unwrap();
        server.on_validate(|_, _| Accept::new().with_subprotocol("not asked for"));
        server.on_http(|_, _| Answer::upgrade_required());
        connect(&server).read_all(REQUEST.as_bytes()).unwrap();
    });
    let lines = lines.0.lock().unwrap();
    let expected = [
        "DEBUG somebody: open, subprotocol None, extension None",
        "DEBUG somebody: closed; peer sent Close first",
        "DEBUG somebody: open, subprotocol None, extension None",
        "DEBUG somebody: peer: stream ended without a closing handshake (connection open, after 0 messages)",
        "DEBUG somebody: peer: stream ended without a closing handshake (connection connecting)",
        "ERROR the application's answer is invalid, 500 is sent instead: the client did not offer this subprotocol",
        "DEBUG somebody: local: request refused with status 500 (connection connecting)",
    ];
    assert_eq!(lines[..], expected);
}

/// A line names the peer whatever part of the library the subscriber has selected.
#[test]
fn a_line_is_complete_without_the_lines_of_other_modules() {
    struct OnlyOf(Lines, &'static str);

    impl Subscriber for OnlyOf {
        fn enabled(&self, metadata: &Metadata<'_>) -> bool {
            metadata.target().starts_with(self.1)
        }

        fn new_span(&self, attributes: &Attributes<'_>) -> Id {
            self.0.new_span(attributes)
        }

        fn record(&self, _: &Id, _: &Record<'_>) {}

        fn record_follows_from(&self, _: &Id, _: &Id) {}

        fn event(&self, event: &Event<'_>) {
            self.0.event(event);
        }

        fn enter(&self, id: &Id) {
            self.0.enter(id);
        }

        fn exit(&self, id: &Id) {
            self.0.exit(id);
        }
    }

    let lines = Lines::default();
    let subscriber = OnlyOf(lines.clone(), "anyloop::session::ending");
    tracing::subscriber::with_default(subscriber, || {
        let mut server = iostream::Server::new(ServerConfig::new(OriginPolicy::Any));
        server.set_remote_endpoint("somebody");
        let connection = server.connection();
        connection.set_write_handler(|_| Ok(()));
        connection.read_all(REQUEST.as_bytes()).unwrap();
        connection.read_all(&frame(CLOSE, "").bytes(Role::Client)).unwrap();
    });
    assert_eq!(lines.0.lock().unwrap()[..], ["DEBUG somebody: closed; peer sent Close first"]);
}

/// Nothing would be seen of either mistake.
#[test]
fn mistakes_without_a_sign_are_logged() {
    let lines = Lines::default();
    tracing::subscriber::with_default(lines.clone(), || {
        let config = ServerConfig::new(OriginPolicy::Any).streaming(true);
        let server = Server::new(config.clone()).unwrap();
        assert_eq!(server.run(), 0); // it does not listen, which is no mistake
        server.reset().unwrap();
        server.listen("127.0.0.1:0").unwrap();
        assert_eq!(server.run(), 0);
        assert!(!server.is_accepting());
        assert_eq!(server.run(), 0); // the loop is stopped already

        let event_loop = EventLoop::new().unwrap();
        let server = Server::on(&event_loop, config.clone());
        server.listen("127.0.0.1:0").unwrap();
        event_loop.post(|| ());
        assert_eq!(event_loop.run(), 1);
        event_loop.reset().unwrap();
        assert_eq!(event_loop.poll(), 0);
        event_loop.reset().unwrap();
        let handle = event_loop.handle();
        event_loop.post(move || handle.stop().unwrap());
        assert_eq!(event_loop.run(), 1); // the program has stopped it
        event_loop.reset().unwrap();
        server.start_accept().unwrap();
        assert_eq!(event_loop.poll(), 0);
        server.stop_listening();
        assert_eq!(event_loop.run(), 0); // it does not listen any more

        struct OnlyMessages;
        impl Handler for OnlyMessages {}
        let mut closures = Handlers::new();
        closures.on_message(|_, _| panic!("the connection streams"));
        let with_closures = iostream::Server::with_factory(config.clone(), closures);
        let with_handler = iostream::Server::with_factory(config, || OnlyMessages);
        let (one, other) = (with_closures.connection(), with_handler.connection());
        one.collect_output();
        other.collect_output();
        for read_all in [&|bytes: &[u8]| one.read_all(bytes), &|bytes: &[u8]| other.read_all(bytes)]
            as [&dyn Fn(&[u8]) -> Result<usize, iostream::CallError>; 2]
        {
            read_all(REQUEST.as_bytes()).unwrap();
            read_all(&text("a").more().bytes(Role::Client)).unwrap();
            read_all(&continuation("b").bytes(Role::Client)).unwrap();
        }
        assert_eq!(with_closures.counters().messages_unhandled, 1);
        assert_eq!(with_handler.counters().messages_unhandled, 1);
    });
    let lines = lines.0.lock().unwrap();
    let warnings: Vec<_> = lines.iter().filter(|line| line.starts_with("WARN")).collect();
    let idle = "WARN the event loop is out of work, but a server listens and does not accept: call start_accept";
    let expected = [
        idle, // of the server's run
        idle, // of the loop's run
        idle, // of the loop's poll
        "WARN a message is dropped: the connection streams, and no chunk handler is set",
        "WARN a message is dropped: the connection streams, and no chunk handler is set",
    ];
    assert_eq!(warnings, expected);
}

#[test]
fn what_the_loop_does_for_a_connection_is_in_its_span() {
    let lines = Lines::default();
    tracing::subscriber::with_default(lines.clone(), || {
        let server = Server::new(ServerConfig::new(OriginPolicy::Any)).unwrap();
        let address = server.listen("127.0.0.1:0").unwrap();
        server.start_accept().unwrap();
        let mut peer = TcpStream::connect(address).unwrap();
        peer.write_all(REQUEST.as_bytes()).unwrap();
        peer.write_all(&frame(CLOSE, "").bytes(Role::Client)).unwrap();
        peer.shutdown(Shutdown::Write).unwrap();
        while server.counters().closed == 0 {
            server.run_one();
        }
        peer.read_to_end(&mut Vec::new()).unwrap();
    });
    let lines = lines.0.lock().unwrap();
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines[0].starts_with("connection: DEBUG 127.0.0.1:"), "{lines:?}");
    assert!(lines[1].starts_with("connection: DEBUG "), "{lines:?}");
}

/// The loop writes the reply, after the handler has returned.
#[test]
fn a_reply_that_cannot_be_written_is_logged_in_its_span() {
    let lines = Lines::default();
    tracing::subscriber::with_default(lines.clone(), || {
        let goes = Arc::new(Mutex::new(None::<TcpStream>));
        let peer = goes.clone();
        let mut server = Server::new(ServerConfig::new(OriginPolicy::Any)).unwrap();
        server.on_message(move |message, context| {
            if let Some(peer) = peer.lock().unwrap().take() {
                SockRef::from(&peer).set_linger(Some(Duration::ZERO)).unwrap(); // it is reset
            }
            context.send(message).unwrap();
        });
        let address = server.listen("127.0.0.1:0").unwrap();
        server.start_accept().unwrap();
        let mut peer = TcpStream::connect(address).unwrap();
        peer.write_all(REQUEST.as_bytes()).unwrap();
        // The first is to find everything as it is between two messages.
        peer.write_all(&text("hi").bytes(Role::Client)).unwrap();
        peer.set_nonblocking(true).unwrap();
        let mut received = Vec::new();
        while !received.ends_with(&text("hi").bytes(Role::Server)) {
            server.poll();
            let _ = peer.read_to_end(&mut received); // what there is
        }
        peer.write_all(&text("hi").bytes(Role::Client)).unwrap();
        *goes.lock().unwrap() = Some(peer);
        while server.counters().closed == 0 {
            server.run_one();
        }
    });
    let lines = lines.0.lock().unwrap();
    assert!(lines.iter().all(|line| line.starts_with("connection: DEBUG ")), "{lines:?}");
    assert_eq!(lines.len(), 3, "{lines:?}"); // open, what the write has failed with, and the failure
    assert!(lines[1].contains("(os error"), "{lines:?}");
}

/// The loop has begun the fast path of a connection when its read fails.
#[test]
fn a_connection_that_leaves_the_fast_path_is_in_its_span_once() {
    let lines = Lines::default();
    tracing::subscriber::with_default(lines.clone(), || {
        let goes = Arc::new(Mutex::new(None::<(TcpStream, TcpStream)>));
        let other = goes.clone();
        let mut server = Server::new(ServerConfig::new(OriginPolicy::Any)).unwrap();
        server.on_message(move |message, context| {
            if let Some((mut stream, peer)) = other.lock().unwrap().take() {
                // Otherwise it would be read before the reset.
                assert_ne!(stream.read(&mut [0; 64]).unwrap(), 0);
                SockRef::from(&peer).set_linger(Some(Duration::ZERO)).unwrap(); // it is reset
            }
            context.send(message).unwrap();
        });
        server.on_close(|_, _| tracing::debug!(target: "anyloop", "the handler's own"));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        // The first message of each is to find everything as it is between two messages.
        let open = || {
            let mut peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let accepted = listener.accept().unwrap().0;
            let stream = accepted.try_clone().unwrap();
            server.adopt(accepted, b"").unwrap();
            peer.write_all(REQUEST.as_bytes()).unwrap();
            peer.write_all(&text("hi").bytes(Role::Client)).unwrap();
            peer.set_nonblocking(true).unwrap();
            let mut received = Vec::new();
            while !received.ends_with(&text("hi").bytes(Role::Server)) {
                server.poll();
                let _ = peer.read_to_end(&mut received); // what there is
            }
            (stream, peer)
        };
        let (mut first, mut second) = (open(), open());
        for (_, peer) in [&mut first, &mut second] {
            peer.write_all(&text("hi").bytes(Role::Client)).unwrap();
        }
        *goes.lock().unwrap() = Some(second);
        while server.counters().closed == 0 {
            server.run_one();
        }
    });
    let lines = lines.0.lock().unwrap();
    assert_eq!(lines.len(), 4, "{lines:?}"); // two opened, the failure, and the handler's own
    assert!(lines[2].ends_with("(connection open, after 1 message)"), "{lines:?}");
    assert_eq!(lines[3], "connection: DEBUG the handler's own");
    assert!(lines.iter().all(|line| line.starts_with("connection: DEBUG ")), "{lines:?}");
}
