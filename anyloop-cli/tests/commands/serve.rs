//! `anyloop serve`.

use std::net::{Ipv4Addr, Ipv6Addr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use anyloop::proto::handshake::http::StatusCode;
use anyloop_testkit::wait::let_time_pass;
use rustix::process::Signal;
use serde_json::{Map, Value, json};

use crate::peer::{BINARY, CLOSE, PING, PONG, Peer, TEXT, field, frame};
use crate::program::{Folder, Running, Server, anyloop, output, shell, stop_ignoring_hang_up};

/// A number of bytes that exceeds all buffers between two peers.
const MANY: usize = 20 << 20;

#[test]
fn slash_and_echo_return_all_messages() {
    let server = Server::start(&[]);
    for path in ["/", "/echo", "/echo?who=me"] {
        let mut client = Peer::client(server.address(), path);
        for (opcode, message) in [(TEXT, "héllo".as_bytes()), (TEXT, b""), (BINARY, b"\0\xff")] {
            client.send(opcode, message);
            client.expect(opcode, message);
        }
        let large = vec![7; 300_000];
        client.send(BINARY, &large);
        client.expect(BINARY, &large);
        client.send(PING, b"there?");
        client.expect(PONG, b"there?");
        client.close(1000);
    }
    let ended = server.stop();
    assert_eq!(ended.code(), Some(0));
    assert_eq!(
        (&*ended.stdout, &*ended.stderr),
        (&b""[..], ""),
        "it prints only the address that it listens on"
    );
}

#[test]
fn an_echo_to_a_slow_reader_loses_no_message() {
    let server = Server::start(&[]);
    let (mut reader, mut writer) = Peer::client(server.address(), "/echo").split();
    let message = vec![b'x'; 100_000];
    let count = 2 * MANY / message.len();
    let sent = message.clone();
    let writer = thread::spawn(move || (0..count).for_each(|_| writer.send(TEXT, &sent)));
    for _ in 0..count {
        reader.expect(TEXT, &message);
    }
    writer.join().expect("the thread does not panic");
    reader.close(1000);
}

#[test]
fn all_subscribers_receive_broadcasts_in_the_same_order() {
    let server = Server::start(&[]);
    let mut clients: Vec<_> =
        (0..3).map(|_| Peer::client(server.address(), "/broadcast")).collect();
    let mut other = Peer::client(server.address(), "/echo");
    // A client is subscribed when it receives its own message.
    for index in 0..3 {
        clients[index].send(TEXT, b"here");
        for client in &mut clients {
            client.expect(TEXT, b"here");
        }
    }
    for (index, client) in clients.iter_mut().enumerate() {
        for number in 0..50 {
            client.send(BINARY, &[index as u8, number]);
        }
    }
    let received: Vec<Vec<_>> = clients
        .iter_mut()
        .map(|client| (0..150).map(|_| client.receive().expect("a message")).collect())
        .collect();
    assert!(received.iter().all(|each| *each == received[0]));
    // Broadcasts continue after a client has left, and do not reach other paths.
    clients.pop().expect("there are three clients").close(1000);
    clients[0].send(TEXT, b"there");
    for client in &mut clients {
        client.expect(TEXT, b"there");
    }
    other.send(TEXT, b"only me");
    other.expect(TEXT, b"only me");
}

#[test]
fn a_slow_reader_of_broadcasts_does_not_delay_the_others() {
    let server = Server::start(&["--max-message", "100000"]);
    let mut slow = Peer::client(server.address(), "/broadcast");
    let mut publisher = Peer::client(server.address(), "/broadcast");
    let message = vec![b'x'; 100_000];
    for _ in 0..MANY / message.len() {
        publisher.send(TEXT, &message);
        publisher.expect(TEXT, &message);
    }
    // The slow client may receive messages that were in flight, and then it is closed.
    let mut last = None;
    while let Ok(Some((opcode, payload))) = slow.try_receive() {
        last = Some((opcode, payload));
        if opcode == CLOSE {
            break;
        }
    }
    let (opcode, payload) = last.expect("the slow client has received a frame");
    if opcode == CLOSE {
        assert_eq!(payload, b"\x03\xf0too slow to read");
    }
    publisher.send(TEXT, b"still here");
    publisher.expect(TEXT, b"still here");
    publisher.close(1000);
}

#[test]
fn no_reader_is_closed_with_many_publishers() {
    for threads in ["1", "3"] {
        all_publish_and_read(threads);
    }
}

fn all_publish_and_read(threads: &str) {
    const PUBLISHERS: usize = 16;
    // The messages exceed the limit of the write buffer of a slow client many times.
    let server = Server::start(&["--max-message", "8192", "--threads", threads]);
    let (message, each) = (vec![b'x'; 8192], 128);
    // One client that only reads, and the publishers. A client is subscribed when it receives its own message.
    let mut subscribers: Vec<_> =
        (0..=PUBLISHERS).map(|_| Peer::client(server.address(), "/broadcast")).collect();
    for index in 0..subscribers.len() {
        subscribers[index].send(TEXT, b"here");
        for subscriber in &mut subscribers {
            subscriber.expect(TEXT, b"here");
        }
    }
    let subscribers = subscribers.into_iter().enumerate().map(|(index, subscriber)| {
        let message = message.clone();
        thread::spawn(move || {
            let (mut reader, mut writer) = subscriber.split();
            let count = if index == 0 { 0 } else { each };
            let sent = message.clone();
            let writer = thread::spawn(move || {
                (0..count).for_each(|_| writer.send(TEXT, &sent));
                writer
            });
            for _ in 0..PUBLISHERS * each {
                reader.expect(TEXT, &message);
            }
            let _open = writer.join().expect("the thread does not panic");
            reader.close(1000);
        })
    });
    let subscribers: Vec<_> = subscribers.collect();
    subscribers
        .into_iter()
        .for_each(|subscriber| subscriber.join().expect("the subscriber receives all messages"));
    assert_eq!(server.stop().code(), Some(0));
}

/// The next line of /stats: the uptime in milliseconds, and the counters.
fn counters(client: &mut Peer) -> (u64, Map<String, Value>) {
    let (opcode, line) = client.receive().expect("a line");
    assert_eq!(opcode, TEXT);
    let mut numbers: Map<String, Value> = serde_json::from_slice(&line).expect("the line is JSON");
    let uptime = numbers.remove("uptime").and_then(|uptime| uptime.as_f64()).expect("a number");
    ((uptime * 1000.0).round() as u64, numbers)
}

#[test]
fn stats_sends_the_counters_each_second() {
    let server = Server::start(&[]);
    let mut echo = Peer::client(server.address(), "/");
    echo.send(TEXT, b"hello");
    echo.expect(TEXT, b"hello");
    echo.close(1000);
    let mut refused = Peer::dial(server.address());
    assert_eq!(refused.request("/nowhere", ""), StatusCode::NOT_FOUND);
    refused.rest();

    drop(refused);

    let mut client = Peer::client(server.address(), "/stats");
    // Its own messages are counted, too.
    let mut without_sent = || {
        let (uptime, mut numbers) = counters(&mut client);
        let sent = ["messages_sent", "bytes_sent"].map(|name| numbers.remove(name));
        (uptime, Value::from(numbers), sent.map(|sent| sent.and_then(|sent| sent.as_u64())))
    };
    // The server may not have handled all events yet.
    let counted = (0..30).map(|_| without_sent()).find(|(_, numbers, _)| numbers["failed"] == 1);
    let (first, numbers, sent) = counted.expect("the failed connection is counted");
    let expected = json!({
        "connections": 1, "open": 1, "started": 3, "opened": 2, "failed": 1, "closed": 1, "http": 0,
        "messages_received": 1, "bytes_received": 5,
    });
    assert_eq!(numbers, expected);
    assert!(sent >= [Some(1), Some(5)], "{sent:?}");
    let (second, again, _) = without_sent();
    assert_eq!(again, numbers);
    assert!(second >= first + 1000, "{first} and {second}");
    client.close(1000);
}

#[test]
fn stats_counts_the_messages_of_open_connections() {
    for threads in ["1", "3"] {
        let server = Server::start(&["--threads", threads]);
        let mut open: Vec<_> = (0..5).map(|_| Peer::client(server.address(), "/echo")).collect();
        for client in &mut open {
            client.send(TEXT, b"hello");
            client.expect(TEXT, b"hello");
        }
        let mut first = Peer::client(server.address(), "/stats");
        let mut second = Peer::client(server.address(), "/stats");
        for watcher in [&mut first, &mut second] {
            let seen = (0..30).map(|_| counters(watcher).1).find(|n| n["messages_received"] == 5);
            let seen = seen.expect("the messages of the open connections are counted");
            assert_eq!(seen["bytes_received"], 25);
            assert!(seen["messages_sent"].as_u64() >= Some(5), "{seen:?}");
        }
        // What is counted stays counted when the connections have closed, once.
        open.into_iter().for_each(|client| client.close(1000));
        let closed = (0..30).map(|_| counters(&mut first).1).find(|n| n["closed"] == 5);
        assert_eq!(closed.expect("they are closed")["messages_received"], 5);
        assert_eq!(counters(&mut first).1["messages_received"], 5);
    }
}

/// Sends a plain HTTP request without a body. Returns the head of the response, and its body.
fn plain(server: &Server, request: &str, host: &str) -> (String, String) {
    let mut client = Peer::dial(server.address());
    client.write(format!("{request} HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes());
    let head = client.head();
    (head, String::from_utf8(client.rest()).expect("the body is UTF-8"))
}

#[test]
fn other_paths_and_plain_requests_are_answered() {
    let server = Server::start(&[]);
    let upgrade = |path, lines| Peer::dial(server.address()).request(path, lines);
    assert_eq!(upgrade("/nowhere", ""), StatusCode::NOT_FOUND);
    assert_eq!(upgrade("/echo/", ""), StatusCode::NOT_FOUND);
    for path in ["/", "/echo", "/broadcast", "/stats"] {
        for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
            let (head, _) = plain(&server, &format!("{method} {path}"), "a");
            assert!(head.starts_with("HTTP/1.1 405 "), "{head}");
            assert_eq!(field(&head, "allow"), Some("GET, HEAD"));
        }
    }
    for path in ["/echo", "/broadcast", "/stats"] {
        assert!(plain(&server, &format!("GET {path}"), "a").0.starts_with("HTTP/1.1 426 "));
    }
    for path in ["/favicon.ico", "/index.html", "/page/script.js", "//"] {
        for method in ["GET", "POST"] {
            let (head, _) = plain(&server, &format!("{method} {path}"), "a");
            assert!(head.starts_with("HTTP/1.1 404 "), "{head}");
        }
    }
}

#[test]
fn slash_is_a_page_for_browsers() {
    let server = Server::start(&[]);
    let (head, page) = plain(&server, "GET /", "a.example:9002");
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    assert!(page.starts_with("<!doctype html>\n<html lang=\"en\">"), "{page}");
    assert!(page.len() < 40_000, "{} bytes", page.len());
    assert_eq!(field(&head, "content-length"), Some(&*page.len().to_string()));
    for (name, value) in [
        ("content-type", "text/html; charset=utf-8"),
        ("cache-control", "no-cache"),
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
    ] {
        assert_eq!(field(&head, name), Some(value), "{head}");
    }
    let policy = field(&head, "content-security-policy").expect("the page has a policy");
    assert!(policy.starts_with("default-src 'none'; "), "{policy}");
    assert!(!policy.contains("unsafe") && !policy.contains('*'), "{policy}");
    let sources = "connect-src 'self' ws://a.example:9002 wss://a.example:9002";
    assert!(policy.ends_with(sources), "{policy}");
    // The query is for the page.
    assert_eq!(plain(&server, "GET /?theme=dark", "a").1, page);
    // HEAD has the same fields, and no body.
    assert_eq!(plain(&server, "HEAD /", "a.example:9002"), (head, String::new()));
    // A host cannot add to the policy.
    let (head, _) = plain(&server, "GET /", "a;script-src");
    let policy = field(&head, "content-security-policy");
    assert!(policy.is_none_or(|policy| policy.ends_with("connect-src 'self'")), "{head}");
}

#[test]
fn larger_messages_than_the_limit_are_refused() {
    let server = Server::start(&["--max-message", "10"]);
    let mut client = Peer::client(server.address(), "/");
    client.send(TEXT, b"ten bytes!");
    client.expect(TEXT, b"ten bytes!");
    client.send(TEXT, b"not eleven!");
    client.expect_close(1009);
}

#[test]
fn an_incomplete_request_ends_at_the_handshake_timeout() {
    let server = Server::start(&["--handshake-timeout", "0.1"]);
    let mut client = Peer::dial(server.address());
    client.write(b"GET / HTTP/1.1\r\n");
    let answer = String::from_utf8(client.rest()).expect("the response is UTF-8");
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408 "), "{answer}");
}

#[test]
fn clients_are_pinged_and_disconnected_if_they_do_not_answer() {
    let server = Server::start(&["--ping-interval", "0.1", "--ping-timeout", "60"]);
    let mut client = Peer::client(server.address(), "/");
    for _ in 0..3 {
        let (opcode, payload) = client.receive().expect("a ping");
        assert_eq!(opcode, PING);
        client.send(PONG, &payload);
    }
    client.close(1000);

    let server = Server::start(&["--ping-interval", "0.1", "--ping-timeout", "0.1"]);
    let mut client = Peer::client(server.address(), "/");
    assert_eq!(client.receive().expect("a ping").0, PING);
    client.expect_close(1011);
}

#[test]
fn pitfall_a_pong_that_arrived_while_the_server_was_stopped_counts() {
    let options = ["--ping-interval", "0.1", "--ping-timeout", "0.5"];
    let server = Server::start(&options);
    let mut client = Peer::client(server.address(), "/");
    let (opcode, payload) = client.receive().expect("a ping");
    assert_eq!(opcode, PING);
    server.suspend();
    client.send(PONG, &payload);
    let_time_pass(Duration::from_secs(1), "the pong timeout must pass while the server is stopped");
    server.resume();
    client.send(TEXT, b"still here");
    let answer = std::iter::from_fn(|| client.receive()).find(|(opcode, _)| *opcode != PING);
    assert_eq!(answer, Some((TEXT, b"still here".to_vec())));
}

#[test]
fn a_silent_client_is_closed_after_the_idle_timeout() {
    let server = Server::start(&["--idle-timeout", "0.2", "--ping-interval", "0"]);
    Peer::client(server.address(), "/").expect_close(1001);
}

#[test]
fn pages_of_other_origins_are_refused() {
    let origins = ["--origin", "https://a.example", "--origin", "http://localhost:8080"];
    let server = Server::start(&origins);
    let ask = |lines| Peer::dial(server.address()).request("/", lines);
    for origin in ["Origin: https://a.example\r\n", "Origin: http://localhost:8080\r\n", ""] {
        assert_eq!(ask(origin), StatusCode::SWITCHING_PROTOCOLS, "{origin}");
    }
    assert_eq!(ask("Origin: https://b.example\r\n"), StatusCode::FORBIDDEN);

    // Origins of applications that embed a browser.
    let origins = ["--origin", "file://", "--origin", "null", "--origin", "app://."];
    let server = Server::start(&origins);
    let ask = |lines| Peer::dial(server.address()).request("/", lines);
    for origin in ["Origin: file://\r\n", "Origin: null\r\n", "Origin: app://.\r\n"] {
        assert_eq!(ask(origin), StatusCode::SWITCHING_PROTOCOLS, "{origin}");
    }
    assert_eq!(ask("Origin: https://a.example\r\n"), StatusCode::FORBIDDEN);

    let server = Server::start(&[]);
    let status = Peer::dial(server.address()).request("/", "Origin: https://b.example\r\n");
    assert_eq!(status, StatusCode::SWITCHING_PROTOCOLS);
}

#[test]
fn a_signal_closes_all_connections_and_it_exits_with_0() {
    stop_ignoring_hang_up();
    for signal in [
        Signal::TERM,
        Signal::INT,
        #[cfg(target_os = "linux")]
        Signal::HUP,
    ] {
        let server = Server::start(&[]);
        let mut clients: Vec<_> = ["/", "/echo", "/broadcast"]
            .map(|path| Peer::client(server.address(), path))
            .into_iter()
            .collect();
        server.program.signal(signal);
        for client in &mut clients {
            assert_eq!(client.expect_close(1001), "shutting down");
        }
        let address = server.address();
        assert!(TcpStream::connect(address).is_err(), "the server has stopped listening");
        for mut client in clients {
            client.send(CLOSE, &1001u16.to_be_bytes());
            client.expect_end();
        }
        assert_eq!(server.program.end().code(), Some(0));
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_hang_up_that_is_ignored_does_not_end_it() {
    let script = r#"trap '' HUP; exec "$0" serve --listen 127.0.0.1:0"#; // as nohup does
    let server = Server::listening(&mut shell(script), 1);
    server.program.signal(Signal::HUP);
    let mut client = Peer::client(server.address(), "/");
    client.send(TEXT, b"still there?");
    client.expect(TEXT, b"still there?");
    client.close(1000);
    assert_eq!(server.stop().code(), Some(0));
}

#[test]
fn without_connections_a_signal_ends_it_immediately() {
    assert_eq!(Server::start(&["--close-timeout", "0"]).stop().code(), Some(0));
}

#[test]
fn it_waits_for_the_peers_close_at_most_the_close_timeout() {
    let server = Server::start(&["--close-timeout", "0.2"]);
    let mut silent = Peer::client(server.address(), "/");
    // Connections without a request, or with part of one, do not delay the end either.
    let _mute = Peer::dial(server.address());
    let mut half = Peer::dial(server.address());
    half.write(b"GET /");
    let begun = Instant::now();
    assert_eq!(server.stop().code(), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(4), "the timeout is not the default of 5 s");
    silent.expect_close(1001);
}

#[test]
fn a_client_that_does_not_read_does_not_keep_it_from_ending() {
    let server = Server::start(&["--close-timeout", "0.2"]);
    let client = TcpStream::connect(server.address()).expect("the server listens");
    Peer::over(client.try_clone().expect("the process has a file descriptor left")).ask("/");
    client.set_write_timeout(Some(Duration::from_millis(500))).expect("the timeout is not zero");
    let message = frame(BINARY, &vec![0; 1 << 20], true);
    // Until the server stops reading, and neither side can write.
    while std::io::Write::write_all(&mut &client, &message).is_ok() {}
    assert_eq!(server.stop().code(), Some(0));
}

#[test]
fn a_second_signal_terminates_it() {
    let server = Server::start(&["--close-timeout", "0"]);
    let mut client = Peer::client(server.address(), "/");
    server.program.signal(Signal::TERM);
    client.expect_close(1001);
    server.program.signal(Signal::TERM);
    assert_eq!(server.program.end().status.signal(), Some(15));
}

#[test]
fn it_listens_on_all_addresses_of_its_arguments() {
    let folder = Folder::new("listen");
    let path = folder.join("socket");
    let mut command =
        anyloop(["serve", "--listen", "127.0.0.1:0", "--listen", ":0", "--listen", "0"]);
    let command = command.arg("--unix").arg(&path);
    let server = Server::listening(command, 4);
    Peer::client(server.address(), "/").close(1000);
    for address in &server.addresses[1..3] {
        let port =
            address.rsplit_once(':').expect("an address has a port").1.parse().expect("a number");
        Peer::client((Ipv4Addr::LOCALHOST, port).into(), "/").close(1000);
        if has_v6() {
            Peer::client((Ipv6Addr::LOCALHOST, port).into(), "/").close(1000);
        }
    }
    assert_eq!(server.addresses[3], format!("ws+unix:{}", path.display()));
    Peer::unix(&path).close(1000);
    assert_eq!(server.stop().code(), Some(0));
    assert!(!path.exists(), "the server removes its socket");
}

#[test]
fn it_listens_on_ipv6_and_on_names() {
    if has_v6() {
        let server = Server::listening(&mut anyloop(["serve", "--listen", "[::1]:0"]), 1);
        assert!(server.address().is_ipv6());
        Peer::client(server.address(), "/").close(1000);
    }
    let server = Server::listening(&mut anyloop(["serve", "--listen", "localhost:0"]), 1);
    assert!(server.address().ip().is_loopback());
    Peer::client(server.address(), "/").close(1000);
}

#[test]
fn by_default_it_listens_on_port_9002_of_127_0_0_1() {
    let mut program = Running::start(&mut anyloop(["serve"]));
    let mut line = String::new();
    let mut stdout = std::io::BufReader::new(program.stdout());
    std::io::BufRead::read_line(&mut stdout, &mut line).expect("the output is UTF-8");
    match line.as_str() {
        "" => program.end().expect(1, "cannot listen on 127.0.0.1:9002: "), // another program uses the port
        line => assert_eq!(line, "listening on ws://127.0.0.1:9002\n"),
    }
}

#[test]
fn a_stale_unix_socket_is_replaced_and_one_in_use_is_not() {
    let folder = Folder::new("stale");
    let path = folder.join("socket");
    drop(UnixListener::bind(&path).expect("the socket can be created"));
    let command = || {
        let mut command = anyloop(["serve", "--unix"]);
        command.arg(&path);
        command
    };
    let server = Server::listening(&mut command(), 1);
    Peer::unix(&path).close(1000);
    Running::start(&mut command())
        .end()
        .expect(1, &format!("cannot listen on unix:{}", path.display()));
    Peer::unix(&path).close(1000);
    assert_eq!(server.stop().code(), Some(0));
}

#[test]
fn a_failure_to_listen_is_reported_in_one_line() {
    let server = Server::start(&[]);
    let taken = server.address().to_string();
    let serve = |address: &str| Running::start(&mut anyloop(["serve", "--listen", address])).end();
    serve(&taken)
        .expect(1, &format!("cannot listen on {taken}: Address already in use (os error "));
    serve("192.0.2.1:0").expect(1, "cannot listen on 192.0.2.1:0: ");
    serve("no.such.host.invalid:0").expect(1, "cannot look up no.such.host.invalid:0: ");
    let ended = Running::start(&mut anyloop(["serve", "--unix", "/no/such/folder/socket"])).end();
    ended.expect(1, "cannot listen on unix:/no/such/folder/socket: No such file");
    // If one address fails, the server does not listen on the others.
    let both = ["serve", "--listen", "127.0.0.1:0", "--listen", &taken];
    let ended = Running::start(&mut anyloop(both)).end();
    ended.expect(1, "in use");
    assert_eq!(ended.lines(), [""; 0]);
}

#[test]
fn inherited_sockets_are_served() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("the system has a free port");
    let address = listener.local_addr().expect("the listener has an address");
    let script = "exec 3<&0 </dev/null; LISTEN_FDS=1 LISTEN_PID=$$ exec \"$0\" serve";
    let server = Server::listening(shell(script).stdin(OwnedFd::from(listener)), 1);
    assert_eq!(server.address(), address);
    Peer::client(address, "/").close(1000);
    assert_eq!(server.stop().code(), Some(0));

    // An inherited Unix socket, in addition to an address of the arguments.
    let folder = Folder::new("inherited");
    let path = folder.join("socket");
    let listener = UnixListener::bind(&path).expect("the socket can be created");
    let script = format!("{script} --listen 127.0.0.1:0");
    let server = Server::listening(shell(&script).stdin(OwnedFd::from(listener)), 2);
    assert_eq!(server.addresses[1], format!("ws+unix:{}", path.display()));
    Peer::client(server.address(), "/").close(1000);
    Peer::unix(&path).close(1000);
    assert_eq!(server.stop().code(), Some(0));
    assert!(path.exists(), "an inherited socket is not removed");
}

#[test]
fn other_inherited_descriptors_are_not_served() {
    let script = "exec 3</dev/null; LISTEN_FDS=1 LISTEN_PID=$$ exec \"$0\" serve";
    let ended = Running::start(&mut shell(script)).end();
    ended.expect(1, "cannot listen on inherited descriptor 3: ");

    // LISTEN_PID is the id of another process, so the sockets are not for this one.
    let script = "LISTEN_FDS=1 LISTEN_PID=1 exec \"$0\" serve --listen 127.0.0.1:0";
    let server = Server::listening(&mut shell(script), 1);
    Peer::client(server.address(), "/").close(1000);
}

#[test]
fn the_soft_limit_of_descriptors_is_raised() {
    let script = "ulimit -S -n 40; exec \"$0\" serve --listen 127.0.0.1:0";
    let server = Server::listening(&mut shell(script), 1);
    let mut clients: Vec<_> = (0..100).map(|_| Peer::client(server.address(), "/")).collect();
    for client in &mut clients {
        client.send(TEXT, b"all of us");
        client.expect(TEXT, b"all of us");
    }
}

#[test]
fn without_free_descriptors_it_serves_the_existing_connections() {
    let script = "ulimit -n 40; exec \"$0\" serve --listen 127.0.0.1:0 --close-timeout 0.2";
    let server = Server::listening(&mut shell(script), 1);
    let mut first = Peer::client(server.address(), "/");
    let others: Vec<_> = (0..60).map(|_| Peer::dial(server.address())).collect();
    let mut last = Peer::dial(server.address());
    first.send(TEXT, b"still here");
    first.expect(TEXT, b"still here");
    drop(others);
    assert_eq!(last.request("/", ""), StatusCode::SWITCHING_PROTOCOLS);
    let ended = server.stop();
    assert_eq!(ended.code(), Some(0));
    assert!(!ended.stderr.is_empty());
    for line in ended.stderr.lines() {
        assert!(line.starts_with("anyloop: cannot accept a connection: "), "{line}");
    }
}

#[test]
fn invalid_arguments_exit_with_2_and_help_with_0() {
    for arguments in [
        &["--listen"][..],
        &["--listen", "nonsense"],
        &["--listen", "::1:9002"],
        &["--ping-interval", "-1"],
        &["--max-message", "many"],
        &["--origin", "example.com"],
        &["surplus"],
    ] {
        let output = output(anyloop(["serve"]).args(arguments));
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(output.stdout.is_empty() && !output.stderr.is_empty());
    }
    let help = output(&mut anyloop(["serve", "--help"]));
    assert_eq!(help.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&help.stdout).contains("127.0.0.1:9002"));
}

#[test]
fn it_serves_if_its_output_is_closed() {
    let path = Folder::new("deaf");
    let socket = path.join("socket");
    let mut command = shell("exec \"$0\" serve --unix \"$1\" >&-");
    let program = Running::start(command.arg(&socket).stdin(Stdio::null()));
    // The file of the socket may exist before the server listens.
    anyloop_testkit::wait::eventually("the server listens", || {
        std::os::unix::net::UnixStream::connect(&socket).is_ok()
    });
    Peer::unix(&socket).close(1000);
    program.signal(Signal::TERM);
    assert_eq!(program.end().code(), Some(0));
}

fn has_v6() -> bool {
    TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok()
}

#[test]
fn several_threads_serve_connections() {
    let server = Server::start(&["--threads", "3"]);
    let clients = (0..8).map(|n| {
        let address = server.address();
        thread::spawn(move || {
            let mut client = Peer::client(address, "/echo");
            for i in 0..200 {
                let message = format!("{n}: {i}");
                client.send(TEXT, message.as_bytes());
                client.expect(TEXT, message.as_bytes());
            }
            client.close(1000);
        })
    });
    let clients: Vec<_> = clients.collect();
    clients.into_iter().for_each(|client| client.join().expect("the thread does not panic"));
    assert_eq!(server.stop().code(), Some(0));
}

#[test]
fn the_number_of_threads_is_bounded() {
    for threads in ["0", "1025", "100000"] {
        let refused = output(&mut anyloop(["serve", "--threads", threads]));
        assert_eq!(refused.status.code(), Some(2));
        let errors = String::from_utf8_lossy(&refused.stderr);
        assert!(
            errors.contains("'--threads <N>'") && errors.contains("from 1 to 1024"),
            "{errors}"
        );
    }
}
