//! Unix sockets.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::net::{UnixListener, UnixStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::thread;

use anyloop::net::{ConnectError, Error, LocalAddress, Stage};
use anyloop::prelude::*;
use anyloop::proto::Role;
use anyloop_testkit::frames;
use anyloop_testkit::peer::Peer;
use anyloop_testkit::wait::PATIENCE;
use anyloop_testkit::watchdog::watchdog;
use socket2::{Domain, SockAddr, Socket, Type};

use crate::record::Log;
use crate::setup::{
    Running, client, echo, echo_with, millis, new_path, recording_client, recording_client_with,
    server, server_config,
};

/// Fills the accept queue of a listener.
fn fill_queue(path: &Path) -> Vec<Socket> {
    let mut queue = Vec::new();
    loop {
        let one = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        one.set_nonblocking(true).unwrap();
        if one.connect(&SockAddr::unix(path).unwrap()).is_err() {
            return queue;
        }
        queue.push(one);
        assert!(queue.len() < 10);
    }
}

#[test]
fn a_path_is_listened_on_and_removed() {
    let _watchdog = watchdog();
    let path = new_path();
    let server = echo();
    server.listen_unix(&path).unwrap();
    assert_eq!(server.local_addresses(), [LocalAddress::Unix(Some(path.clone()))]);
    assert_eq!(server.local_addresses()[0].to_string(), format!("unix:{}", path.display()));
    assert_eq!(server.local_addr(), None);
    let running = Running::start(server);
    let mut peer = Peer::open_unix(&path);
    peer.echo("a");
    running.server.stop_listening();
    assert!(!path.exists());
    assert!(UnixStream::connect(&path).is_err());
    peer.echo("still");
    peer.close();
    running.returned();
}

#[test]
fn a_dropped_server_removes_its_path() {
    let path = new_path();
    let server = server();
    server.listen_unix(&path).unwrap();
    assert!(path.exists());
    drop(server);
    assert!(!path.exists());
}

#[test]
fn a_socket_that_was_left_is_replaced() {
    let _watchdog = watchdog();
    let path = new_path();
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let server = echo();
    server.listen_unix(&path).unwrap();
    let _running = Running::start(server);
    Peer::open_unix(&path).echo("a");
}

#[test]
fn a_socket_in_use_is_left_alone() {
    let path = new_path();
    let listener = UnixListener::bind(&path).unwrap();
    let server = server();
    match server.listen_unix(&path) {
        Err(Error::Listen { address, source }) => {
            assert_eq!(address, format!("unix:{}", path.display()));
            assert_eq!(source.kind(), ErrorKind::AddrInUse);
        }
        other => panic!("{other:?}"),
    }
    assert!(!server.is_listening());
    drop(server);
    UnixStream::connect(&path).unwrap();
    drop(listener);
    fs::remove_file(path).unwrap();
}

/// To find out whether a process listens on the path does not block.
#[test]
fn a_listener_with_a_full_queue_is_left_alone() {
    let _watchdog = watchdog();
    let path = new_path();
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
    socket.bind(&SockAddr::unix(&path).unwrap()).unwrap();
    socket.listen(0).unwrap();
    let _queue = fill_queue(&path);
    let (sender, result) = channel();
    let asked = path.clone();
    thread::spawn(move || _ = sender.send(server().listen_unix(asked).is_err()));
    let refused = result.recv_timeout(PATIENCE / 6);
    fs::remove_file(path).unwrap();
    assert_eq!(refused, Ok(true), "it waits for the other server");
}

#[test]
fn a_file_that_is_no_socket_is_left_alone() {
    let path = new_path();
    fs::write(&path, "precious").unwrap();
    let server = server();
    let Err(Error::Listen { source, .. }) = server.listen_unix(&path) else {
        panic!("it is a file");
    };
    assert_eq!(source.to_string(), "the path exists, and is not a socket");
    drop(server);
    assert_eq!(fs::read(&path).unwrap(), b"precious");
    fs::remove_file(path).unwrap();

    let path = new_path();
    fs::create_dir(&path).unwrap();
    assert!(crate::setup::server().listen_unix(&path).is_err());
    assert!(path.is_dir());
    fs::remove_dir(path).unwrap();
}

#[test]
fn an_invalid_path() {
    let server = server();
    assert!(matches!(server.listen_unix("/nowhere/at/all"), Err(Error::Listen { .. })));
    assert!(matches!(server.listen_unix("x".repeat(200)), Err(Error::Listen { .. })));
    assert!(!server.is_listening());
}

/// Another server has taken the path meanwhile. The first one must not remove it.
#[test]
fn a_path_is_removed_once() {
    let path = new_path();
    let first = server();
    first.listen_unix(&path).unwrap();
    first.stop_listening();
    let second = server();
    second.listen_unix(&path).unwrap();
    first.stop_listening();
    drop(first);
    assert!(path.exists());
    UnixStream::connect(&path).unwrap();
}

#[test]
fn a_listener_that_is_open_already_keeps_its_path() {
    let _watchdog = watchdog();
    let path = new_path();
    let server = echo();
    let address = server.listen_on_unix(UnixListener::bind(&path).unwrap()).unwrap();
    assert_eq!(address, LocalAddress::Unix(Some(path.clone())));
    let running = Running::start(server);
    Peer::open_unix(&path).close();
    running.server.stop_listening();
    running.returned();
    assert!(path.exists(), "its maker removes it");
    fs::remove_file(path).unwrap();
}

#[test]
fn tcp_and_unix_at_once() {
    let _watchdog = watchdog();
    let path = new_path();
    let server = echo();
    server.listen_unix(&path).unwrap();
    let address = server.listen("127.0.0.1:0").unwrap();
    assert_eq!(server.local_addr(), Some(address), "the first that is TCP");
    let _running = Running::start(server);
    Peer::open_unix(&path).echo("a");
    Peer::open(address).echo("b");
}

#[test]
fn a_client_connects_to_a_path() {
    let _watchdog = watchdog();
    let path = new_path();
    let server = echo();
    server.listen_unix(&path).unwrap();
    let _running = Running::start(server);
    let log = Log::default();
    let mut client = recording_client(&log);
    client.on_open(|context| {
        assert!(context.remote_endpoint().starts_with("unix"), "{}", context.remote_endpoint());
        let _ = context.send("hello").unwrap();
    });
    let logs = log.clone();
    client.on_message(move |message, context| {
        logs.message(message);
        context.close(CloseCode::NORMAL, "").unwrap();
    });
    client.request("ws://ignored.example/").unwrap().to_unix(&path).connect().unwrap();
    client.run();
    assert_eq!(log.take(), ["text hello", "close clean by local: 1000/1000"]);
}

#[test]
fn a_path_without_a_listener() {
    let _watchdog = watchdog();
    let left = new_path();
    drop(UnixListener::bind(&left).unwrap());
    for (path, cause) in [(left, "connection refused"), (new_path(), "")] {
        let log = Log::default();
        let mut client = recording_client(&log);
        let (named, logs) = (path.clone(), log.clone());
        client.on_fail(move |failure, context| {
            let error = context.error().unwrap().to_string();
            assert!(error.contains(&format!("unix:{}", named.display())), "{error}");
            logs.push(format!("fail {}", failure.cause()));
        });
        client.request("ws://ignored.example/").unwrap().to_unix(&path).connect().unwrap();
        assert_eq!(client.run(), 1);
        let lines = log.take();
        assert!(lines.len() == 1 && lines[0].contains(cause), "{lines:?}");
        let _ = fs::remove_file(path);
    }
}

/// If the queue is full, the client retries for as long as connecting may take.
#[test]
fn a_client_waits_for_room_in_the_queue() {
    let _watchdog = watchdog();
    let path = new_path();
    let server = echo_with(server_config().listen_backlog(0));
    server.listen_unix(&path).unwrap();
    let queue = fill_queue(&path);

    let log = Log::default();
    let config = ClientConfig::new().connect_timeout(millis(150));
    let mut client = recording_client_with(&log, config);
    let logs = log.clone();
    client.on_fail(move |failure, context| {
        assert!(matches!(
            context.error().and_then(|error| error.downcast_ref()),
            Some(ConnectError::TimedOut { stage: Stage::Connect, .. })
        ));
        logs.push(format!("fail {}", failure.cause()));
    });
    client.on_open(|context| {
        assert_eq!(context.peer_addr(), None);
        context.close(CloseCode::NORMAL, "").unwrap();
    });
    client.request("ws://a.example/").unwrap().to_unix(&path).connect().unwrap();
    assert_eq!(client.run(), 1);
    assert_eq!(log.take(), ["fail transport timed out"]);

    client.reset().unwrap();
    let request = client.request("ws://a.example/").unwrap().to_unix(&path);
    request.configure(|config| config.connect_timeout(PATIENCE)).connect().unwrap();
    assert_eq!(client.run_for(millis(50)), 0);
    let _running = Running::start(server);
    client.run();
    assert_eq!(log.take(), ["close clean by local: 1000/1000"]);
    drop(queue);
}

/// A read ends behind bytes that came with a descriptor, even if more data is there. So a short read does
/// not mean that the socket is empty, and there is no second readiness event. The first frame is a pong,
/// which is not answered: an answer would make another event when the peer reads it.
#[test]
#[cfg(target_os = "linux")]
fn what_follows_a_descriptor_is_read_as_well() {
    use std::io::IoSlice;
    use std::mem::MaybeUninit;
    use std::os::fd::AsFd;

    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

    let _watchdog = watchdog();
    let path = new_path();
    let server = echo();
    server.listen_unix(&path).unwrap();
    let running = Running::start(server);
    let mut peer = Peer::open_unix(&path);
    // Both frames are there before the loop reads.
    let (go, gone) = channel();
    running.server.event_loop().post(move || gone.recv_timeout(PATIENCE).unwrap());
    let first = frames::stream(&[frames::pong("")], Role::Client);
    let fds = [peer.stream.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut rights = SendAncillaryBuffer::new(&mut space);
    assert!(rights.push(SendAncillaryMessage::ScmRights(&fds)));
    let sent =
        sendmsg(&peer.stream, &[IoSlice::new(&first)], &mut rights, SendFlags::empty()).unwrap();
    assert_eq!(sent, first.len());
    peer.send(&[frames::text("behind it")]);
    go.send(()).unwrap();
    assert_eq!(peer.receive(), frames::text("behind it"));
    peer.close();
    running.server.stop_listening();
    running.returned();
}

/// The panic of a hook leaves the run call. The connection fails with an error that names the panic.
#[test]
fn a_hook_that_panics() {
    let _watchdog = watchdog();
    let path = new_path();
    let _listener = UnixListener::bind(&path).unwrap();
    let failures = Arc::new(Mutex::new(Vec::new()));
    let sees = failures.clone();
    let mut client = client();
    client.on_socket_init(|_| panic!("on purpose"));
    client.on_fail(move |_, context| {
        sees.lock().unwrap().push(context.error().unwrap().to_string());
    });
    client.request("ws://a.example/").unwrap().to_unix(&path).connect().unwrap();
    let caught = catch_unwind(AssertUnwindSafe(|| client.run()));
    assert!(caught.is_err());
    client.run();
    let failures = failures.lock().unwrap();
    assert!(
        matches!(&failures[..], [one] if one.contains("`on_socket_init` function panicked")),
        "{failures:?}"
    );
    fs::remove_file(path).unwrap();
}
