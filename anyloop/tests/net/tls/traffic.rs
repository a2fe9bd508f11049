//! Messages over TLS: large, many, to many, and to peers that do not read.

use std::net::SocketAddr;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};

use anyloop::endpoint::EndpointHandle;
use anyloop::net::Server;
use anyloop::prelude::*;
use anyloop::proto::Cause;
use anyloop_testkit::frames;
use anyloop_testkit::peer::Peer;
use anyloop_testkit::tls::Far;
use anyloop_testkit::wait::{PATIENCE, eventually};
use anyloop_testkit::watchdog::watchdog;

use super::peer::{TlsPeer, trusting_config};
use super::{
    Kind, client_outcomes, client_tls, server_outcomes, server_tls, start, tls_client, tls_url,
};
use crate::setup::{
    Running, client_with, echo, echo_with, new_path, run_until, server, server_config,
};

#[test]
fn a_client_and_a_server_in_one_loop() {
    let _watchdog = watchdog();
    let event_loop = EventLoop::new().unwrap();
    let mut server = crate::setup::echo_on(&event_loop);
    let at_server = server_outcomes(&mut server);
    let address = server.over_tls(&server_tls()).listen("localhost:0").unwrap();
    server.start_accept().unwrap();
    let config = ClientConfig::new().tls(client_tls());
    let mut client = anyloop::net::Client::on(&event_loop, config);
    client.on_open(|context| {
        let tls = context.tls().unwrap();
        assert_eq!(tls.alpn_protocol(), Some(&b"http/1.1"[..]));
        assert_eq!(tls.peer_certificates().map(<[_]>::len), Some(1));
        let _ = context.send("hello");
    });
    client.on_message(|message, context| {
        assert_eq!(message.as_bytes(), b"hello");
        let _ = context.close(CloseCode::NORMAL, "");
    });
    let at_client = client_outcomes(&mut client);
    client.connect(format!("wss://localhost:{}/", address.port()).as_str()).unwrap();
    run_until(&event_loop, "both are closed", || {
        client.connections().is_empty() && server.counters().closed == 1
    });
    for outcome in [at_client.next(), at_server.next()] {
        assert_eq!((outcome.cause, outcome.kind), (None, None), "{outcome:?}");
    }
}

#[test]
fn plain_and_tls_listeners_on_one_server() {
    let _watchdog = watchdog();
    let server = echo();
    let plain = server.listen("127.0.0.1:0").unwrap();
    let secure = server.over_tls(&server_tls()).listen("127.0.0.1:0").unwrap();
    let _running = Running::start(server);
    let (mut one, mut other) = (Peer::open(plain), TlsPeer::open(secure));
    one.echo("plain");
    other.echo("secure");
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len as u32).map(|number| (number.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

#[test]
fn large_messages_in_both_directions() {
    let _watchdog = watchdog();
    let running = start(echo(), &server_tls());
    let mut client = tls_client();
    let sizes = [1, 16 << 10, (16 << 10) + 1, 100_000, 5 << 20, 12 << 20];
    client.on_open(move |context| {
        for size in sizes {
            let _ = context.send(&pattern(size)[..]).unwrap();
        }
    });
    let (sender, received) = channel();
    client.on_message(move |message, context| {
        sender.send(message.as_bytes().to_vec()).unwrap();
        if message.as_bytes().len() == 12 << 20 {
            let _ = context.close(CloseCode::NORMAL, "");
        }
    });
    client.connect(tls_url(&running, "localhost").as_str()).unwrap();
    client.run();
    for size in sizes {
        assert!(received.try_recv().unwrap() == pattern(size), "{size}");
    }
}

#[test]
fn many_small_messages() {
    const COUNT: u32 = 20_000;
    let _watchdog = watchdog();
    let running = start(echo(), &server_tls());
    let mut client = tls_client();
    client.on_open(|context| {
        for number in 0..COUNT {
            let _ = context.send(number.to_string().as_str()).unwrap();
        }
    });
    let (next, seen) = (Mutex::new(0), Arc::new(Mutex::new(0)));
    let counter = seen.clone();
    client.on_message(move |message, context| {
        let mut next = next.lock().unwrap();
        assert_eq!(message.as_bytes(), next.to_string().as_bytes());
        *next += 1;
        *counter.lock().unwrap() = *next;
        if *next == COUNT {
            let _ = context.close(CloseCode::NORMAL, "");
        }
    });
    client.connect(tls_url(&running, "localhost").as_str()).unwrap();
    client.run();
    assert_eq!(*seen.lock().unwrap(), COUNT);
}

#[test]
fn a_broadcast_to_plain_and_secure_connections() {
    let _watchdog = watchdog();
    let server = server();
    let plain = server.listen("127.0.0.1:0").unwrap();
    let secure = server.over_tls(&server_tls()).listen("127.0.0.1:0").unwrap();
    let running = Running::start(server);
    let mut plain = Peer::open(plain);
    let mut peers: Vec<_> = (0..10).map(|_| TlsPeer::open(secure)).collect();
    eventually("all are open", || running.server.counters().opened == 11);
    for message in ["small".to_string(), "large".repeat(20_000)] {
        assert_eq!(running.server.broadcast(message.as_str()), 11);
        plain.expect(&frames::text(&message));
        for peer in &mut peers {
            peer.expect(&frames::text(&message));
        }
    }
}

/// One handler is one handler, however many messages are in a record.
#[test]
fn messages_are_handed_out_one_by_one() {
    let _watchdog = watchdog();
    let (sender, received) = channel();
    let mut server = server();
    server.on_message(move |message, _| sender.send(message.as_bytes().to_vec()).unwrap());
    let address = server.over_tls(&server_tls()).listen("127.0.0.1:0").unwrap();
    server.start_accept().unwrap();
    let server = Arc::new(server);
    let runs = server.clone();
    let opening = std::thread::spawn(move || TlsPeer::open(address));
    while !opening.is_finished() {
        runs.run_for(crate::setup::millis(5));
    }
    let mut peer = opening.join().unwrap();
    let messages: Vec<_> = (0..300).map(|number| frames::text(number.to_string())).collect();
    peer.send(&messages);
    for number in 0..300 {
        assert_eq!(server.run_one(), 1);
        assert_eq!(received.try_recv().unwrap(), number.to_string().as_bytes());
        assert!(received.try_recv().is_err());
    }
    assert_eq!(server.poll_one(), 0);
}

/// Reading that was paused inside a record goes on with the next message, and what came meanwhile follows.
#[test]
fn reading_can_be_paused_inside_a_record() {
    let _watchdog = watchdog();
    let (sender, received) = channel();
    let mut server = server();
    server.on_message(move |message, context| {
        context.pause_reading();
        sender.send((message.as_bytes().to_vec(), context.handle())).unwrap();
    });
    let running = start(server, &server_tls());
    let mut peer = TlsPeer::open(running.address);
    let messages: Vec<_> = (0..20).map(|number| frames::text(number.to_string())).collect();
    peer.send(&messages[..10]);
    peer.send(&messages[10..]);
    let notify = peer.far.close();
    peer.peer.write_last(notify);
    for number in 0..20 {
        let (message, handle) = received.recv_timeout(PATIENCE).unwrap();
        assert_eq!(message, number.to_string().as_bytes());
        assert!(received.try_recv().is_err(), "it was paused");
        let resumed = handle.resume_reading();
        assert!(resumed.is_ok() || number == 19, "the end came before message {number}");
    }
    eventually("its end comes last", || running.server.connections().is_empty());
}

/// The send buffer has records, and is bounded as any other.
#[test]
fn a_peer_that_does_not_read() {
    const LEN: usize = 24 << 20;
    let _watchdog = watchdog();
    let config = server_config().max_send_buffer(4 * LEN).ping_interval(None);
    let mut server = crate::setup::server_with(config);
    server.on_socket_init(|socket| socket.set_send_buffer_size(64 << 10));
    let (sender, reported) = channel();
    let (again, drained) = (sender.clone(), sender.clone());
    server.on_message(move |_, context| {
        let sent = context.send(&pattern(LEN)[..]).unwrap();
        sender.send(format!("{sent:?} {}", context.buffered_amount() > LEN / 2)).unwrap();
    });
    server.on_backpressure(move |_| again.send("backpressure".to_string()).unwrap());
    server.on_drained(move |_| drained.send("drained".to_string()).unwrap());
    let running = start(server, &server_tls());
    let mut peer = TlsPeer::open(running.address);
    peer.send(&[frames::text("go")]);
    assert_eq!(reported.recv_timeout(PATIENCE).unwrap(), "Backpressure true");
    assert_eq!(reported.recv_timeout(PATIENCE).unwrap(), "backpressure");
    assert!(peer.receive().unwrap().payload == pattern(LEN));
    assert_eq!(reported.recv_timeout(PATIENCE).unwrap(), "drained");
    peer.send(&[frames::close(1000, "")]);
    peer.expect(&frames::close(1000, ""));
}

#[test]
fn a_shutdown_closes_connections_and_handshakes() {
    let _watchdog = watchdog();
    let mut server = server();
    let outcomes = server_outcomes(&mut server);
    let running = start(server, &server_tls());
    let mut open = TlsPeer::open(running.address);
    let mut half = TlsPeer::connect(running.address, trusting_config());
    let hello = half.far.send(&[]);
    half.peer.write(hello);
    eventually("both are there", || running.server.connections().len() == 2);
    assert!(half.read());
    running.server.shut_down();
    assert_eq!(open.receive().unwrap().close_code(), Some(1001));
    open.send(&[frames::close(1001, "")]);
    let notify = open.far.close();
    open.peer.write(notify);
    while half.read() {}
    running.returned();
    let causes = [outcomes.next().cause, outcomes.next().cause];
    assert!(causes.contains(&None), "{causes:?}");
    assert!(causes.iter().any(|cause| matches!(cause, Some(Cause::Handshake(_)))), "{causes:?}");
}

/// Connects so many clients, and lets them send their first messages, which the server has not received yet.
fn greeting(server: &Server, address: SocketAddr, count: usize) -> Vec<TlsPeer> {
    let before = server.counters().started;
    let config = trusting_config();
    let mut peers = Vec::new();
    while peers.len() < count {
        peers.extend((0..100).map(|_| TlsPeer::connect(address, config.clone())));
        eventually("all are accepted", || {
            server.poll();
            server.counters().started == before + peers.len() as u64
        });
    }
    for peer in &mut peers {
        let hello = peer.far.send(&[]);
        peer.peer.write(hello);
    }
    peers
}

/// A storm of handshakes does not hold up open connections: there is a poll after every few of them.
#[test]
fn handshakes_are_served_a_few_at_a_time() {
    const COUNT: usize = 100;
    let _watchdog = watchdog();
    let server = server();
    let address = server.over_tls(&server_tls()).listen("127.0.0.1:0").unwrap();
    server.start_accept().unwrap();
    let mut peers = greeting(&server, address, COUNT);
    let (mut answered, mut polls) = (0, 0);
    eventually("all are answered", || {
        server.poll();
        let before = std::mem::replace(&mut answered, 0);
        for peer in &mut peers {
            peer.peer.poll_end();
            answered += usize::from(!peer.peer.input.is_empty());
        }
        assert!(answered - before <= 40, "{} in one call of poll", answered - before);
        polls += 1;
        answered == COUNT
    });
    assert!(polls >= 3, "{polls}");
}

/// While thousands shake hands at once, each message of an open connection is answered after few handshakes.
#[cfg(unix)]
#[test]
fn open_connections_are_served_in_a_storm_of_handshakes() {
    const OPEN: usize = 200;
    const STORM: usize = 2000;
    let _watchdog = watchdog();
    if !allow_descriptors(2 * (OPEN + STORM) + 200) {
        println!("skipped: this process may not have as many descriptors");
        return;
    }
    let server = echo();
    let address = server.over_tls(&server_tls()).listen("127.0.0.1:0").unwrap();
    server.start_accept().unwrap();
    let opening =
        std::thread::spawn(move || (0..OPEN).map(|_| TlsPeer::open(address)).collect::<Vec<_>>());
    while !opening.is_finished() {
        server.run_for(crate::setup::millis(5));
    }
    let mut open = opening.join().unwrap();
    let mut storm = greeting(&server, address, STORM);

    let (mut answered, mut rounds) = (0, 0);
    while answered < STORM {
        let message = frames::text(format!("round {rounds}"));
        for peer in &mut open {
            peer.send(std::slice::from_ref(&message));
        }
        let mut waiting: Vec<_> = open.iter_mut().collect();
        eventually("all messages are answered", || {
            server.poll();
            waiting.retain_mut(|peer| match peer.poll_frame() {
                Some(frame) => {
                    assert!(frame == message, "another message");
                    false
                }
                None => true,
            });
            waiting.is_empty()
        });
        let before = answered;
        storm.retain_mut(|peer| {
            let _ = peer.peer.poll_end();
            peer.peer.input.is_empty()
        });
        answered = STORM - storm.len();
        assert!(answered - before <= 64, "{} handshakes in a round", answered - before);
        rounds += 1;
    }
}

/// Whether this process may have so many descriptors.
#[cfg(unix)]
fn allow_descriptors(wanted: usize) -> bool {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    let allowed = getrlimit(Resource::Nofile).current;
    allowed.is_none_or(|allowed| allowed >= wanted as u64)
}

/// A second connection resumes the session of the first.
#[test]
fn sessions_are_resumed() {
    let _watchdog = watchdog();
    let running = start(echo(), &server_tls());
    let mut client = tls_client();
    let (sender, resumed) = channel();
    client.on_open(move |context| {
        sender.send(context.tls().unwrap().is_resumed().unwrap()).unwrap();
        let _ = context.send("so that the ticket has arrived");
    });
    client.on_message(|_, context| _ = context.close(CloseCode::NORMAL, ""));
    for expected in [false, true, true] {
        client.connect(tls_url(&running, "localhost").as_str()).unwrap();
        client.run();
        client.event_loop().reset().unwrap();
        assert_eq!(resumed.try_recv(), Ok(expected));
    }
}

#[test]
fn a_client_connects_again_by_its_handle() {
    let _watchdog = watchdog();
    let running = start(echo(), &server_tls());
    let url = tls_url(&running, "localhost");
    let mut client = tls_client();
    let handle: EndpointHandle<Handlers> = client.handle();
    let left = Mutex::new(3);
    let again = url.clone();
    client.on_open(|context| _ = context.close(CloseCode::NORMAL, ""));
    client.on_close(move |ending, _| {
        assert!(ending.clean);
        let mut left = left.lock().unwrap();
        *left -= 1;
        if *left > 0 {
            handle.connect(again.as_str()).unwrap();
        }
    });
    client.connect(url.as_str()).unwrap();
    client.run();
    assert_eq!(running.server.counters().opened, 3);
}

#[cfg(unix)]
#[test]
fn tls_over_a_unix_socket() {
    let _watchdog = watchdog();
    let path = new_path();
    let server = echo();
    server.over_tls(&server_tls()).listen_unix(&path).unwrap();
    let _running = Running::start(server);
    let mut client = tls_client();
    let (sender, received) = channel();
    client.on_open(|context| _ = context.send("over a file"));
    client.on_message(move |message, context| {
        sender.send(message.as_bytes().to_vec()).unwrap();
        let _ = context.close(CloseCode::NORMAL, "");
    });
    client.request("wss://localhost/").unwrap().to_unix(&path).connect().unwrap();
    client.run();
    assert_eq!(received.try_recv().unwrap(), b"over a file");
}

/// Both ends over sockets of the program's own; the server has read a part of the handshake already.
#[test]
fn sockets_of_the_program_can_be_adopted() {
    let _watchdog = watchdog();
    let server = echo_with(server_config());
    let tls = server_tls();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();

    let peer = Peer::connect(address);
    let mut peer = TlsPeer::over(peer, Far::client(trusting_config()));
    let hello = peer.far.send(&[]);
    let (mut stream, _) = listener.accept().unwrap();
    peer.peer.write(hello);
    let mut received = vec![0; 100];
    std::io::Read::read_exact(&mut stream, &mut received).unwrap();
    server.over_tls(&tls).adopt(stream, &received).unwrap();
    let running = RunningLoop::start(server);
    peer.shake_hands();
    peer.upgrade();
    peer.echo("adopted");

    let stream = std::net::TcpStream::connect(address).unwrap();
    let (accepted, _) = listener.accept().unwrap();
    running.0.over_tls(&tls).adopt(accepted, &[]).unwrap();
    let mut client = client_with(ClientConfig::new().tls(client_tls()));
    client.on_open(|context| _ = context.send("adopted, too"));
    client.on_message(|_, context| _ = context.close(CloseCode::NORMAL, ""));
    let outcomes = client_outcomes(&mut client);
    client.request("wss://localhost/").unwrap().adopt(stream).unwrap();
    client.run();
    let outcome = outcomes.next();
    assert_eq!((outcome.cause, outcome.kind), (None, None::<Kind>));
}

/// A server that does not listen, whose loop a thread runs.
struct RunningLoop(Arc<Server>, Option<std::thread::JoinHandle<()>>);

impl RunningLoop {
    fn start(server: Server) -> Self {
        let server = Arc::new(server);
        server.start_perpetual();
        let runs = server.clone();
        Self(server, Some(std::thread::spawn(move || _ = runs.run())))
    }
}

impl Drop for RunningLoop {
    fn drop(&mut self) {
        self.0.stop();
        let _ = self.1.take().unwrap().join();
    }
}
