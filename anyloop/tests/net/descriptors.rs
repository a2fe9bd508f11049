//! Descriptors: none leak, and when none are left the server goes on. Each test runs in a process of its
//! own, with a limit of its own.

use std::fs::File;
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use anyloop::net::{Client, Error};
use anyloop::prelude::*;
use anyloop::proto::Role;
use anyloop_testkit::peer::{Peer, serve};
use anyloop_testkit::requests;
use anyloop_testkit::wait::{PATIENCE, eventually, let_time_pass};
use anyloop_testkit::watchdog::watchdog;
use socket2::{Domain, Socket, Type};

use crate::setup::{
    Running, blackhole, client, client_with, closed, echo, millis, reset, run_until, server_config,
    server_with, url,
};

const CHILD: &str = "ANYLOOP_NET_CHILD";

/// Runs this test in a process with this limit of descriptors. Returns whether this is that process.
fn is_child(test: &str, limit: &str) -> bool {
    if std::env::var_os(CHILD).is_some() {
        return true;
    }
    let name = format!("{}::{test}", module_path!().split_once("::").unwrap().1);
    let output = Command::new("sh")
        .args(["-c", &format!("ulimit -Sn {limit}; exec \"$@\""), "sh"])
        .arg(std::env::current_exe().unwrap())
        .args([&name, "--exact", "--nocapture", "--test-threads=1"])
        .env(CHILD, "1")
        .output()
        .unwrap();
    let (out, err) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && out.contains("1 passed"), "{out}\n{err}");
    false
}

fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// The CPU time of this process, in milliseconds, from an open `/proc/self/stat`.
fn processor_time(mut stat_file: &File) -> u64 {
    let mut stat = String::new();
    stat_file.seek(SeekFrom::Start(0)).unwrap();
    stat_file.read_to_string(&mut stat).unwrap();
    let fields: Vec<_> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    ticks * 10
}

/// The server serves its connections, retries without a busy loop, and recovers.
#[test]
fn the_server_goes_on_without_descriptors() {
    if !is_child("the_server_goes_on_without_descriptors", "80") {
        return;
    }
    let _watchdog = watchdog();
    let stat = File::open("/proc/self/stat").unwrap();
    let errors = Arc::new(AtomicUsize::new(0));
    let counts = errors.clone();
    let mut server = echo();
    server.on_accept_error(move |error| {
        assert_eq!(error.raw_os_error(), Some(24), "{error}"); // EMFILE
        counts.fetch_add(1, Ordering::SeqCst);
    });
    let running = Running::start(server);
    // The peers get their descriptors before the server uses up the rest.
    let sockets: Vec<_> =
        (0..45).map(|_| Socket::new(Domain::IPV4, Type::STREAM, None).unwrap()).collect();
    let mut peers: Vec<_> = sockets
        .into_iter()
        .map(|socket| {
            socket.connect(&running.address.into()).unwrap();
            let stream = TcpStream::from(socket);
            let peer = Peer::over(stream, Role::Client);
            peer.write(requests::REQUEST);
            peer
        })
        .collect();
    eventually("there are none left", || errors.load(Ordering::SeqCst) > 0);
    let served = usize::try_from(running.server.counters().started).unwrap();
    assert!((1..45).contains(&served), "{served}");
    let mut waiting = peers.split_off(served);
    for peer in &mut peers {
        assert!(peer.read_head().starts_with(requests::SWITCHING));
    }

    let (before, time) = (errors.load(Ordering::SeqCst), processor_time(&stat));
    let start = Instant::now();
    while start.elapsed() < millis(1500) {
        for peer in &mut peers {
            peer.echo("still here");
        }
        let_time_pass(millis(50), "failures are counted over a second and a half");
    }
    let errors = errors.load(Ordering::SeqCst) - before;
    assert!(errors <= 30, "{errors} failures in a second and a half");
    let time = processor_time(&stat) - time;
    assert!(time < 1000, "{time} ms of processor time");

    // Each connection that ends frees a descriptor for the next.
    let mut recovered = 0;
    while !waiting.is_empty() {
        peers.pop().unwrap().close();
        let mut next = waiting.remove(0);
        assert!(next.read_head().starts_with(requests::SWITCHING));
        next.echo("at last");
        next.close();
        recovered += 1;
        if peers.is_empty() {
            peers.push(waiting.pop().unwrap());
            if waiting.is_empty() {
                break;
            }
            peers[0].read_head();
        }
    }
    assert!(recovered > 0);
}

/// A connection without a descriptor fails with an error, a new client as well. A later one succeeds.
#[test]
fn a_client_without_descriptors() {
    if !is_child("a_client_without_descriptors", "40") {
        return;
    }
    let _watchdog = watchdog();
    let running = Running::start(echo());
    let failed = Arc::new(AtomicUsize::new(0));
    let fails = failed.clone();
    // The server has all the descriptors that it needs. This peer keeps them in use.
    let _peer = Peer::open(running.address);
    let mut client = client();
    client.on_open(|context| context.close(CloseCode::NORMAL, "").unwrap());
    client.on_fail(move |_, context| {
        assert!(context.error().is_some());
        fails.fetch_add(1, Ordering::SeqCst);
    });
    let mut held = Vec::new();
    while let Ok(file) = File::open("/dev/null") {
        held.push(file);
    }
    assert!(matches!(Client::new(ClientConfig::new()), Err(Error::EventLoop(_))));
    client.connect(url(running.address).as_str()).unwrap();
    assert_eq!(client.run(), 1);
    assert_eq!(failed.load(Ordering::SeqCst), 1);
    drop(held);
    client.reset().unwrap();
    client.connect(url(running.address).as_str()).unwrap();
    client.run();
    assert_eq!(client.counters().closed, 1);
}

#[test]
fn no_descriptor_leaks() {
    if !is_child("no_descriptor_leaks", "1000") {
        return;
    }
    let _watchdog = watchdog();
    let with_timeout = |timeout| Running::start(server_with(server_config().open_timeout(timeout)));
    let (patient, hasty) = (with_timeout(PATIENCE), with_timeout(millis(50)));
    let (closed, blackhole) = (closed(), blackhole());
    let round = || round(patient.address, hasty.address, closed.address, blackhole.address);
    let all_are_over = || {
        [&patient, &hasty].iter().all(|running| {
            let counters = running.server.counters();
            running.server.connections().is_empty()
                && counters.opened == counters.closed
                && counters.started == counters.opened + counters.failed + counters.http
        })
    };
    round(); // from now on all threads exist
    eventually("all are over", all_are_over);
    let before = open_descriptors();
    for _ in 0..20 {
        round();
    }
    eventually("all are over", all_are_over);
    // A socket is closed a moment after its connection has ended.
    eventually("there are no more descriptors than before", || open_descriptors() <= before);
}

/// Connections that end in many ways. Those that must not time out are connected to `server`.
fn round(server: SocketAddr, hasty: SocketAddr, closed: SocketAddr, blackhole: SocketAddr) {
    // At the servers: nonsense, a part of a request, silence, resets, plain HTTP, a closing handshake.
    let mut nonsense = Peer::connect(server);
    nonsense.write("nonsense\r\n\r\n");
    nonsense.read_to_end();
    let part = Peer::connect(server);
    part.write(&requests::REQUEST[..50]);
    drop(part);
    assert!(Peer::connect(hasty).read_to_end().is_empty());
    reset(Peer::connect(server));
    let mut plain = Peer::connect(server);
    plain.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    plain.read_to_end();
    Peer::open(server).close();
    reset(Peer::open(server));

    // At a client with short timeouts: refused, unanswered, silent, not found.
    let config = ClientConfig::new().open_timeout(millis(50)).connect_timeout(millis(50));
    let mut client = client_with(config);
    client.set_look_up(|_, _| Err(ErrorKind::NotFound.into()));
    let (silent, thread) = serve(|mut peer| _ = peer.read_to_end());
    for address in [closed, blackhole, silent] {
        client.connect(url(address).as_str()).unwrap();
    }
    client.connect("ws://nowhere.example/").unwrap();
    client.run();
    thread.join().unwrap();
    let counters = client.counters();
    assert_eq!((counters.closed, counters.failed), (0, 4));

    // At a client with long timeouts: rejected, abandoned, and closed.
    let config = ClientConfig::new().open_timeout(PATIENCE).connect_timeout(PATIENCE);
    let mut client = client_with(config);
    client.on_open(|context| context.close(CloseCode::NORMAL, "").unwrap());
    let (rejecting, thread) = serve(|mut peer| {
        peer.read_head();
        peer.write("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
        peer.read_to_end();
    });
    for address in [rejecting, server] {
        client.connect(url(address).as_str()).unwrap();
    }
    let given_up = client.connect(url(blackhole).as_str()).unwrap();
    client.poll();
    given_up.close(CloseCode::NORMAL, "").unwrap();
    client.run();
    thread.join().unwrap();
    let counters = client.counters();
    assert_eq!((counters.closed, counters.failed), (1, 2));

    // And endpoints that are dropped while they connect or accept.
    let client = client_with(ClientConfig::new());
    client.connect(url(blackhole).as_str()).unwrap();
    client.connect(url(server).as_str()).unwrap();
    client.poll();
    drop(client);
    let never_run = echo();
    never_run.listen("127.0.0.1:0").unwrap();
    never_run.start_accept().unwrap();
}

#[test]
fn five_hundred_connections_of_one_client() {
    const COUNT: u64 = 500;
    if !is_child("five_hundred_connections_of_one_client", "$(ulimit -Hn)") {
        return;
    }
    let _watchdog = watchdog();
    let running = Running::start(echo());
    let mut client = client();
    client.on_message(|_, context| context.close(CloseCode::NORMAL, "").unwrap());
    let handles: Vec<_> =
        (0..COUNT).map(|_| client.connect(url(running.address).as_str()).unwrap()).collect();
    let event_loop = client.event_loop();
    run_until(event_loop, "all are open", || client.counters().opened == COUNT);
    assert_eq!(client.connections().len(), COUNT as usize);
    for handle in &handles {
        let _ = handle.send("hello").unwrap();
    }
    client.run();
    let counters = client.counters();
    assert_eq!((counters.closed, counters.messages_received, counters.failed), (COUNT, COUNT, 0));
    eventually("the server has closed all", || running.server.counters().closed == COUNT);
}
