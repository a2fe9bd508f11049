//! Where a server listens, and how it stops.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyloop::net::{AsAddress, Error, LocalAddress, Server};
use anyloop::prelude::*;
use anyloop_testkit::peer::Peer;
use anyloop_testkit::wait::eventually;
use anyloop_testkit::watchdog::watchdog;

use crate::setup::{
    Running, chain, closed, echo, echo_on, echo_with, has_v6, millis, run_until, server,
    server_config, server_with,
};

fn is_refused(address: SocketAddr) -> bool {
    TcpStream::connect_timeout(&address, millis(5000))
        .is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
}

/// Waits until the address refuses connections. Other tests start processes, and between fork and exec a
/// child holds every listener of this process: they may be closed a moment later.
#[track_caller]
fn await_refused(address: SocketAddr) {
    eventually("it is refused", || is_refused(address));
}

/// The address of the error, and the kind of its source.
fn listen_error(error: Error) -> (String, ErrorKind) {
    let texts = chain(&error);
    match error {
        Error::Listen { address, source } => {
            assert_eq!(texts, [format!("cannot listen on {address}"), source.to_string()]);
            (address, source.kind())
        }
        error => panic!("{error:?}"),
    }
}

#[test]
fn a_port_is_chosen() {
    let server = server();
    assert!(!server.is_listening() && !server.is_accepting());
    assert_eq!(server.local_addr(), None);
    let first = server.listen("127.0.0.1:0").unwrap();
    let second = server.listen(("127.0.0.1", 0)).unwrap();
    assert!(first.port() != 0 && second.port() != 0 && first != second);
    assert_eq!(server.local_addr(), Some(first));
    assert_eq!(server.local_addresses(), [first, second].map(LocalAddress::Tcp));
    assert!(server.is_listening() && !server.is_accepting());
}

#[test]
fn all_listeners_are_accepted_from() {
    let _watchdog = watchdog();
    let server = echo();
    let addresses: Vec<_> = (0..5).map(|_| server.listen("127.0.0.1:0").unwrap()).collect();
    let running = Running::start(server);
    assert!(running.server.is_accepting());
    let mut peers: Vec<_> = addresses.iter().map(|address| Peer::open(*address)).collect();
    peers.iter_mut().for_each(|peer| peer.echo("a"));
}

#[test]
fn each_address_of_a_host_is_listened_on() {
    let _watchdog = watchdog();
    let server = echo();
    let first = server.listen("localhost:0").unwrap();
    assert!(first.ip().is_loopback());
    let mut expected: Vec<_> = "localhost:0".to_socket_addrs().unwrap().map(|a| a.ip()).collect();
    expected.dedup();
    let addresses: Vec<_> = server
        .local_addresses()
        .into_iter()
        .map(|address| match address {
            LocalAddress::Tcp(address) => address,
            other => panic!("{other}"),
        })
        .collect();
    assert_eq!(addresses.iter().map(SocketAddr::ip).collect::<Vec<_>>(), expected);
    let _running = Running::start(server);
    for address in addresses {
        Peer::open(address).echo("a");
    }
}

#[test]
fn a_port_of_all_addresses() {
    if !has_v6() {
        return;
    }
    let _watchdog = watchdog();
    let server = echo();
    let port = server.listen_port(0).unwrap();
    assert_eq!(server.local_addr().map(|address| address.port()), Some(port));
    let _running = Running::start(server);
    Peer::open(([127, 0, 0, 1], port).into()).echo("four");
    Peer::open(format!("[::1]:{port}").parse().unwrap()).echo("six");
}

/// Handlers see an IPv4 address of an IPv4 peer, not an IPv4-mapped one, while the connection is open and
/// when it has ended.
#[test]
fn an_ipv4_peer_of_a_dual_stack_listener_has_an_ipv4_address() {
    if !has_v6() {
        return;
    }
    let _watchdog = watchdog();
    let peers = crate::setup::shared();
    let (opened, closed) = (peers.clone(), peers.clone());
    let mut server = echo();
    server
        .on_open(move |context| {
            opened.lock().unwrap().push((context.peer_addr(), context.remote_endpoint()));
        })
        .on_close(move |_, context| {
            closed.lock().unwrap().push((context.peer_addr(), context.remote_endpoint()));
        });
    let port = server.listen_port(0).unwrap();
    let running = Running::start(server);
    let peer = Peer::open(([127, 0, 0, 1], port).into());
    let address = peer.local_addr();
    assert!(address.is_ipv4());
    peer.close();
    eventually("it is closed", || running.server.counters().closed == 1);
    let expected = (Some(address), address.to_string());
    eventually("both handlers were called", || peers.lock().unwrap().len() == 2);
    assert_eq!(*peers.lock().unwrap(), [expected.clone(), expected]);
}

#[test]
fn ipv6_alone() {
    if !has_v6() {
        return;
    }
    let _watchdog = watchdog();
    let server = echo();
    let address = server.listen_only_v6("[::]:0".parse().unwrap()).unwrap();
    let running = Running::start(server);
    Peer::open(format!("[::1]:{}", address.port()).parse().unwrap()).echo("six");
    assert!(is_refused(([127, 0, 0, 1], address.port()).into()));
    assert_eq!(running.server.counters().started, 1);
}

/// In either order: the IPv6 listener does not take the IPv4 address.
#[test]
fn both_unspecified_addresses_on_one_port() {
    if !has_v6() {
        return;
    }
    let _watchdog = watchdog();
    for [first, second] in [["[::]", "0.0.0.0"], ["0.0.0.0", "[::]"]] {
        let server = echo();
        // Another process may have the port in the other family. Then the next port is tried.
        let port = std::iter::repeat_with(|| {
            server.stop_listening();
            let port = server.listen(format!("{first}:0")).unwrap().port();
            server.listen(format!("{second}:{port}")).ok().map(|_| port)
        });
        let port = port.take(20).flatten().next().expect("both are listened on");
        let _running = Running::start(server);
        Peer::open(([127, 0, 0, 1], port).into()).echo("four");
        Peer::open(format!("[::1]:{port}").parse().unwrap()).echo("six");
    }
}

/// An IPv4-mapped address is listened on with IPv4.
#[test]
fn an_ipv4_mapped_address() {
    if !has_v6() {
        return;
    }
    let _watchdog = watchdog();
    let server = echo();
    let port = server.listen("[::ffff:127.0.0.1]:0").unwrap().port();
    let _running = Running::start(server);
    Peer::open(([127, 0, 0, 1], port).into()).echo("four");
}

#[test]
fn a_listener_that_is_open_already() {
    let _watchdog = watchdog();
    let server = echo();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap(); // which blocks
    let address = listener.local_addr().unwrap();
    assert_eq!(server.listen_on(listener).unwrap(), LocalAddress::Tcp(address));
    let _running = Running::start(server);
    Peer::open(address).echo("a");
}

#[test]
fn an_inherited_descriptor() {
    let _watchdog = watchdog();
    let server = echo();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let inherited: OwnedFd = OwnedFd::from(listener);
    server.listen_on(inherited.into()).unwrap();
    let _running = Running::start(server);
    Peer::open(address).echo("a");
}

/// It is an error at once, not when accepting starts.
#[test]
fn a_descriptor_that_does_not_listen() {
    let stream = {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        TcpStream::connect(listener.local_addr().unwrap()).unwrap()
    };
    let bound = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    bound.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let datagrams = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let regular = std::fs::File::open("/proc/self/exe").unwrap();
    let descriptors: [(&str, OwnedFd); 4] = [
        ("a stream", stream.into()),
        ("bound only", bound.into()),
        ("datagrams", datagrams.into()),
        ("a file", regular.into()),
    ];
    for (what, descriptor) in descriptors {
        let server = server();
        let result = server.listen_on(descriptor.into());
        assert!(matches!(result, Err(Error::Listen { .. })), "{what}: {result:?}");
        assert!(!server.is_listening(), "{what}");
    }
}

#[test]
fn an_address_in_use() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let server = server();
    let error = server.listen(address).unwrap_err();
    assert!(error.to_string().contains(&address.to_string()), "{error}");
    assert_eq!(listen_error(error), (address.to_string(), ErrorKind::AddrInUse));
    assert!(!server.is_listening());
    assert!(matches!(server.start_accept(), Err(Error::NotListening)));
    // The server can still listen elsewhere.
    server.listen("127.0.0.1:0").unwrap();
    server.start_accept().unwrap();
}

#[test]
fn an_address_of_another_machine() {
    let error = server().listen("192.0.2.1:0").unwrap_err(); // TEST-NET-1
    assert_eq!(listen_error(error), ("192.0.2.1:0".into(), ErrorKind::AddrNotAvailable));
}

#[test]
fn an_invalid_address() {
    for address in ["nonsense", "127.0.0.1", "127.0.0.1:port", "", "127.0.0.1:65536"] {
        let server = server();
        let error = server.listen(address).unwrap_err();
        assert_eq!(chain(&error)[0], format!("cannot look up {address}"));
        assert_eq!(chain(&error).len(), 2);
        match error {
            Error::Resolve { address: named, .. } => assert_eq!(named, address),
            other => panic!("{address}: {other:?}"),
        }
        assert!(!server.is_listening());
    }
}

/// Several addresses of one name.
struct Several(Vec<SocketAddr>);

impl ToSocketAddrs for Several {
    type Iter = std::vec::IntoIter<SocketAddr>;

    fn to_socket_addrs(&self) -> std::io::Result<Self::Iter> {
        Ok(self.0.clone().into_iter())
    }
}

impl AsAddress for Several {
    fn readable(&self) -> String {
        "several".to_string()
    }
}

#[test]
fn all_addresses_of_a_name_or_none() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let free = closed().address; // free from here on
    let server = server();
    let error = server.listen(Several(vec![free, taken.local_addr().unwrap()])).unwrap_err();
    assert_eq!(listen_error(error).1, ErrorKind::AddrInUse);
    assert!(!server.is_listening() && server.local_addresses().is_empty());
    await_refused(free); // the first listener was closed again

    let error = server.listen(Several(Vec::new())).unwrap_err();
    assert!(matches!(error, Error::Resolve { .. }), "{error:?}");
    server.listen(Several(vec![free, free])).unwrap();
    assert_eq!(server.local_addresses().len(), 1);
}

/// In many containers `localhost` is `::1` as well, which no interface has.
#[test]
fn addresses_that_the_machine_does_not_have_are_skipped() {
    let _watchdog = watchdog();
    let elsewhere = SocketAddr::from(([192, 0, 2, 77], 0)); // TEST-NET-1
    let here = SocketAddr::from(([127, 0, 0, 1], 0));
    for addresses in [vec![elsewhere, here], vec![here, elsewhere]] {
        let server = echo();
        let first = server.listen(Several(addresses.clone())).unwrap();
        assert_eq!((first.ip(), server.local_addresses().len()), (here.ip(), 1));
        let _running = Running::start(server);
        Peer::open(first).echo("a");

        let server = crate::setup::server();
        let listening = server.listen_each(Several(addresses)).unwrap();
        assert_eq!(server.local_addr(), Some(listening.addresses[0]));
        assert_eq!(listening.addresses.len(), 1);
        let [(skipped, error)] = &listening.skipped[..] else { panic!("{listening:?}") };
        assert_eq!((skipped.ip(), error.kind()), (elsewhere.ip(), ErrorKind::AddrNotAvailable));
    }
}

/// If all addresses are skipped, the error names the first.
#[test]
fn no_address_of_the_machine() {
    let server = server();
    let several = [77, 78].map(|n| SocketAddr::from(([192, 0, 2, n], 9)));
    let error = server.listen_each(Several(several.to_vec())).unwrap_err();
    assert_eq!(listen_error(error), (several[0].to_string(), ErrorKind::AddrNotAvailable));
    assert!(!server.is_listening());
}

#[test]
fn a_port_is_shared_where_all_want_to() {
    let _watchdog = watchdog();
    let sharing = || echo_with(server_config().reuse_port(true));
    let (one, other) = (sharing(), sharing());
    let address = one.listen("127.0.0.1:0").unwrap();
    assert!(echo().listen(address).is_err());
    other.listen(address).unwrap();
    let (one, other) = (Running::start(one), Running::start(other));
    let mut peers = Vec::new();
    for _ in 0..200 {
        peers.push(Peer::open(address));
        let opened = [&one, &other].map(|running| running.server.counters().opened);
        if opened.iter().all(|opened| *opened > 0) {
            return;
        }
    }
    panic!("one of them has got all");
}

/// The server closes first, so its address is in TIME_WAIT.
#[test]
fn an_address_is_taken_again_at_once() {
    let _watchdog = watchdog();
    let address = {
        let running = Running::start(echo());
        Peer::open(running.address).close();
        running.address
    };
    let exclusive = server_with(server_config().reuse_address(false));
    assert_eq!(listen_error(exclusive.listen(address).unwrap_err()).1, ErrorKind::AddrInUse);
    server_with(server_config().reuse_address(true)).listen(address).unwrap();
}

#[test]
fn the_send_buffer_is_bounded() {
    let server = server_with(server_config().listen_backlog(1));
    let address = server.listen("127.0.0.1:0").unwrap();
    let connected: Vec<_> =
        (0..8).map_while(|_| TcpStream::connect_timeout(&address, millis(300)).ok()).collect();
    assert!((1..8).contains(&connected.len()), "{}", connected.len());
}

#[test]
fn a_socket_can_be_prepared_before_it_is_bound() {
    let mut server = server();
    let seen = Arc::new(AtomicUsize::new(0));
    let sees = seen.clone();
    server.on_tcp_pre_bind(move |socket| {
        let address = socket.local_addr().unwrap().as_socket().unwrap();
        assert_eq!(address.port(), 0);
        sees.fetch_add(1, Ordering::Relaxed);
        socket.set_ttl_v4(7)
    });
    server.listen("127.0.0.1:0").unwrap();
    server.listen("127.0.0.1:0").unwrap();
    assert_eq!(seen.load(Ordering::Relaxed), 2);

    server.on_tcp_pre_bind(|_| Err(ErrorKind::Other.into()));
    let error = server.listen("127.0.0.1:0").unwrap_err();
    assert_eq!(listen_error(error), ("127.0.0.1:0".into(), ErrorKind::Other));
    assert_eq!(server.local_addresses().len(), 2);
}

#[test]
fn nothing_is_accepted_where_nothing_listens() {
    let server = server();
    assert!(matches!(server.start_accept(), Err(Error::NotListening)));
    assert!(!server.is_accepting());
    server.listen("127.0.0.1:0").unwrap();
    server.stop_listening();
    assert!(matches!(server.start_accept(), Err(Error::NotListening)));
}

#[test]
fn accepting_twice_is_accepting_once() {
    let _watchdog = watchdog();
    let server = echo();
    let first = server.listen("127.0.0.1:0").unwrap();
    server.start_accept().unwrap();
    server.start_accept().unwrap();
    let second = server.listen("127.0.0.1:0").unwrap();
    let running = Running::start(server); // calls `start_accept` again
    Peer::open(first).echo("a");
    Peer::open(second).echo("b");
    assert_eq!(running.server.counters().started, 2);
    // A listener can be added while the loop runs.
    let third = running.server.listen("127.0.0.1:0").unwrap();
    running.server.start_accept().unwrap();
    Peer::open(third).echo("c");
    running.server.stop_listening();
    running.returned();
}

/// Connections wait in the queue until the server accepts.
#[test]
fn connections_before_start_accept_wait() {
    let _watchdog = watchdog();
    let server = echo();
    let address = server.listen("127.0.0.1:0").unwrap();
    let mut early = Peer::connect(address);
    assert_eq!(server.run(), 0, "listening alone is no work");
    assert_eq!(server.counters().started, 0);
    server.reset().unwrap();
    let _running = Running::start(server);
    early.shake_hands();
    early.echo("a");
}

/// `stop_listening` closes the sockets itself, without a run call.
#[test]
fn listening_stops_at_once() {
    let _watchdog = watchdog();
    for accepting in [false, true] {
        let server = server();
        let address = server.listen("127.0.0.1:0").unwrap();
        if accepting {
            server.start_accept().unwrap();
            server.poll();
        }
        drop(Peer::connect(address));
        server.stop_listening();
        await_refused(address);
        assert!(!server.is_listening() && !server.is_accepting());
        assert_eq!((server.local_addr(), server.local_addresses()), (None, Vec::new()));
        assert_eq!(server.run(), 0);
        assert!(server.stopped());
        server.stop_listening(); // and again

        server.reset().unwrap();
        server.listen(address).unwrap();
        server.start_accept().unwrap();
        Peer::connect(address);
    }
}

#[test]
fn connections_go_on_when_listening_stops() {
    let _watchdog = watchdog();
    let running = Running::start(echo());
    let mut open = Peer::open(running.address);
    let mut shaking = Peer::connect(running.address);
    eventually("both are accepted", || running.server.counters().started == 2);
    running.server.stop_listening();
    await_refused(running.address);
    shaking.shake_hands();
    shaking.echo("late");
    open.echo("early");
    assert!(!running.has_returned());
    shaking.close();
    open.echo("still");
    assert!(!running.has_returned());
    open.close();
    running.returned();
    let counters = running.server.counters();
    assert_eq!((counters.opened, counters.closed), (2, 2));
}

/// A handler may stop listening. Its connection goes on.
#[test]
fn a_handler_stops_listening() {
    let _watchdog = watchdog();
    let server = Arc::new(std::sync::OnceLock::<Arc<Server>>::new());
    let own = server.clone();
    let mut new = crate::setup::server();
    new.on_open(move |_| own.get().unwrap().stop_listening());
    let address = new.listen("127.0.0.1:0").unwrap();
    new.start_accept().unwrap();
    server.set(Arc::new(new)).ok().unwrap();
    let server = server.get().unwrap().clone();
    let thread = std::thread::spawn(move || Peer::open(address).close());
    server.run();
    thread.join().unwrap();
    await_refused(address);
}

#[test]
fn a_server_that_is_dropped_accepts_nothing_and_its_connections_go_on() {
    let _watchdog = watchdog();
    let event_loop = EventLoop::new().unwrap();
    let server = echo_on(&event_loop);
    let address = server.listen("127.0.0.1:0").unwrap();
    server.start_accept().unwrap();
    let peer = std::thread::spawn(move || Peer::open(address));
    run_until(&event_loop, "the peer is open", || peer.is_finished());
    let mut peer = peer.join().unwrap();
    drop(server);
    await_refused(address);
    let peer = std::thread::spawn(move || {
        peer.echo("still");
        peer.close();
    });
    event_loop.run();
    peer.join().unwrap();
}

/// The connections are closed with the loop.
#[test]
fn a_server_that_is_dropped_with_its_loop_closes_everything() {
    let _watchdog = watchdog();
    let server = echo();
    let address = server.listen("127.0.0.1:0").unwrap();
    server.start_accept().unwrap();
    let event_loop = server.event_loop().clone();
    let peer = std::thread::spawn(move || Peer::open(address));
    run_until(&event_loop, "the peer is open", || peer.is_finished());
    let mut peer = peer.join().unwrap();
    let handle = server.connections().pop().unwrap();
    drop((server, event_loop));
    assert!(peer.read_to_end().is_empty());
    assert!(handle.send("anyone?").is_err());
    await_refused(address);
}

/// One port in both families, by two calls.
#[test]
fn each_family_by_itself() {
    if !has_v6() {
        return;
    }
    let _watchdog = watchdog();
    let server = echo();
    let four = server.listen("127.0.0.1:0").unwrap();
    if server.listen_only_v6(format!("[::1]:{}", four.port()).parse().unwrap()).is_err() {
        println!("skipped: another process has the port of ::1");
        return;
    }
    let _running = Running::start(server);
    Peer::open(four).echo("four");
    Peer::open(format!("[::1]:{}", four.port()).parse().unwrap()).echo("six");
}
