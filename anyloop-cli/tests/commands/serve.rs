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
use crate::program::{Folder, Running, Server, anyloop, output, shell};

/// What a peer sends that is not listened to any more.
const MANY: usize = 20 << 20;

#[test]
fn slash_and_echo_send_every_message_back() {
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
    assert_eq!((&*ended.stdout, &*ended.stderr), (&b""[..], ""), "nothing but where it listens");
}

#[test]
fn an_echo_waits_for_one_who_does_not_read_and_loses_nothing() {
    let server = Server::start(&[]);
    let (mut reader, mut writer) = Peer::client(server.address(), "/echo").split();
    let message = vec![b'x'; 100_000];
    let count = 2 * MANY / message.len();
    let sent = message.clone();
    let writer = thread::spawn(move || (0..count).for_each(|_| writer.send(TEXT, &sent)));
    for _ in 0..count {
        reader.expect(TEXT, &message);
    }
    writer.join().expect("no panic");
    reader.close(1000);
}

#[test]
fn what_one_says_on_broadcast_all_hear_in_the_same_order() {
    let server = Server::start(&[]);
    let mut clients: Vec<_> =
        (0..3).map(|_| Peer::client(server.address(), "/broadcast")).collect();
    let mut other = Peer::client(server.address(), "/echo");
    // Each is there when it hears itself.
    for place in 0..3 {
        clients[place].send(TEXT, b"here");
        for client in &mut clients {
            client.expect(TEXT, b"here");
        }
    }
    for (place, client) in clients.iter_mut().enumerate() {
        for number in 0..50 {
            client.send(BINARY, &[place as u8, number]);
        }
    }
    let heard: Vec<Vec<_>> = clients
        .iter_mut()
        .map(|client| (0..150).map(|_| client.receive().expect("a message")).collect())
        .collect();
    assert!(heard.iter().all(|each| *each == heard[0]));
    // One who has left is not missed, and another path hears nothing of it.
    clients.pop().expect("there are three").close(1000);
    clients[0].send(TEXT, b"there");
    for client in &mut clients {
        client.expect(TEXT, b"there");
    }
    other.send(TEXT, b"only me");
    other.expect(TEXT, b"only me");
}

#[test]
fn one_who_is_too_slow_to_read_a_broadcast_does_not_hold_up_the_others() {
    let server = Server::start(&["--max-message", "100000"]);
    let mut slow = Peer::client(server.address(), "/broadcast");
    let mut speaker = Peer::client(server.address(), "/broadcast");
    let message = vec![b'x'; 100_000];
    for _ in 0..MANY / message.len() {
        speaker.send(TEXT, &message);
        speaker.expect(TEXT, &message);
    }
    // It gets what was on its way, if that, and is closed.
    let mut last = None;
    while let Ok(Some((opcode, payload))) = slow.try_receive() {
        last = Some((opcode, payload));
        if opcode == CLOSE {
            break;
        }
    }
    let (opcode, payload) = last.expect("something has come");
    if opcode == CLOSE {
        assert_eq!(payload, b"\x03\xf0too slow to read");
    }
    speaker.send(TEXT, b"still here");
    speaker.expect(TEXT, b"still here");
    speaker.close(1000);
}

#[test]
fn however_many_publish_nobody_is_closed_who_reads() {
    for threads in ["1", "3"] {
        all_publish_and_read(threads);
    }
}

fn all_publish_and_read(threads: &str) {
    const PUBLISHERS: usize = 16;
    // Far more than may wait for one who is slow.
    let server = Server::start(&["--max-message", "8192", "--threads", threads]);
    let (message, each) = (vec![b'x'; 8192], 128);
    // One who only listens, and the publishers; each is there when it hears itself.
    let mut subscribers: Vec<_> =
        (0..=PUBLISHERS).map(|_| Peer::client(server.address(), "/broadcast")).collect();
    for place in 0..subscribers.len() {
        subscribers[place].send(TEXT, b"here");
        for subscriber in &mut subscribers {
            subscriber.expect(TEXT, b"here");
        }
    }
    let subscribers = subscribers.into_iter().enumerate().map(|(place, subscriber)| {
        let message = message.clone();
        thread::spawn(move || {
            let (mut reader, mut writer) = subscriber.split();
            let count = if place == 0 { 0 } else { each };
            let sent = message.clone();
            let writer = thread::spawn(move || {
                (0..count).for_each(|_| writer.send(TEXT, &sent));
                writer
            });
            for _ in 0..PUBLISHERS * each {
                reader.expect(TEXT, &message);
            }
            let _open = writer.join().expect("no panic");
            reader.close(1000);
        })
    });
    let subscribers: Vec<_> = subscribers.collect();
    subscribers.into_iter().for_each(|subscriber| subscriber.join().expect("it hears all"));
    assert_eq!(server.stop().code(), Some(0));
}

#[test]
fn stats_tells_the_counters_each_second() {
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
    let mut line = || {
        let (opcode, line) = client.receive().expect("a line");
        assert_eq!(opcode, TEXT);
        let mut numbers: Map<String, Value> = serde_json::from_slice(&line).expect("it is JSON");
        let uptime = numbers.remove("uptime").and_then(|uptime| uptime.as_f64()).expect("a number");
        // In milliseconds, which can be counted.
        ((uptime * 1000.0).round() as u64, Value::from(numbers))
    };
    // The server may not have seen all of it yet.
    let settled = (0..30).map(|_| line()).find(|(_, numbers)| numbers["failed"] == 1);
    let (first, numbers) = settled.expect("it tells of what has failed");
    let expected = json!({
        "connections": 1, "open": 1, "made": 3, "opened": 2, "failed": 1, "closed": 1, "http": 0,
        "messages_received": 1, "bytes_received": 5, "messages_sent": 1, "bytes_sent": 5,
    });
    assert_eq!(numbers, expected);
    let (second, again) = line();
    assert_eq!(again, numbers);
    assert!(second >= first + 1000, "{first} and {second}");
    client.close(1000);
}

#[test]
fn other_paths_and_plain_requests_are_answered() {
    let server = Server::start(&[]);
    let upgrade = |path, lines| Peer::dial(server.address()).request(path, lines);
    assert_eq!(upgrade("/nowhere", ""), StatusCode::NOT_FOUND);
    assert_eq!(upgrade("/echo/", ""), StatusCode::NOT_FOUND);
    let plain = |request: &str| {
        let mut client = Peer::dial(server.address());
        client.write(format!("{request} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
        let head = client.head();
        (head, String::from_utf8(client.rest()).expect("it is UTF-8"))
    };
    let (head, body) = plain("GET /");
    assert!(head.starts_with("HTTP/1.1 200 ") && body.contains("WebSocket"), "{head}{body}");
    assert_eq!(field(&head, "content-type"), Some("text/html; charset=utf-8"));
    assert_eq!(plain("HEAD /").1, "");
    let (head, _) = plain("POST /");
    assert!(head.starts_with("HTTP/1.1 405 "), "{head}");
    assert_eq!(field(&head, "allow"), Some("GET, HEAD"));
    assert!(plain("GET /echo").0.starts_with("HTTP/1.1 426 "));
    assert!(plain("GET /favicon.ico").0.starts_with("HTTP/1.1 404 "));
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
fn who_does_not_ask_in_time_is_not_waited_for() {
    let server = Server::start(&["--handshake-timeout", "0.1"]);
    let mut client = Peer::dial(server.address());
    client.write(b"GET / HTTP/1.1\r\n");
    let answer = String::from_utf8(client.rest()).expect("it is ASCII");
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408 "), "{answer}");
}

#[test]
fn clients_are_pinged_and_one_who_does_not_answer_is_cut_off() {
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
fn pitfall_a_pong_that_came_while_the_server_was_stopped_counts() {
    let options = ["--ping-interval", "0.1", "--ping-timeout", "0.5"];
    let server = Server::start(&options);
    let mut client = Peer::client(server.address(), "/");
    let (opcode, payload) = client.receive().expect("a ping");
    assert_eq!(opcode, PING);
    server.suspend();
    client.send(PONG, &payload);
    let_time_pass(Duration::from_secs(1), "the time for the pong must be over in the server");
    server.resume();
    client.send(TEXT, b"still here");
    let answer = std::iter::from_fn(|| client.receive()).find(|(opcode, _)| *opcode != PING);
    assert_eq!(answer, Some((TEXT, b"still here".to_vec())));
}

#[test]
fn one_who_says_nothing_is_closed_after_the_idle_timeout() {
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

    // Of programs with a browser in them.
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
fn a_signal_closes_all_connections_and_ends_it_well() {
    for signal in [Signal::TERM, Signal::INT] {
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
        assert!(TcpStream::connect(address).is_err(), "it does not listen any more");
        for mut client in clients {
            client.send(CLOSE, &1001u16.to_be_bytes());
            client.expect_end();
        }
        assert_eq!(server.program.end().code(), Some(0));
    }
}

#[test]
fn without_connections_a_signal_ends_it_at_once() {
    assert_eq!(Server::start(&["--close-timeout", "0"]).stop().code(), Some(0));
}

#[test]
fn who_does_not_answer_a_close_is_waited_for_no_longer_than_the_close_timeout() {
    let server = Server::start(&["--close-timeout", "0.2"]);
    let mut silent = Peer::client(server.address(), "/");
    // Neither does one who has said nothing at all, or half a request.
    let _mute = Peer::dial(server.address());
    let mut half = Peer::dial(server.address());
    half.write(b"GET /");
    let begun = Instant::now();
    assert_eq!(server.stop().code(), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(4), "5 s are the default");
    silent.expect_close(1001);
}

#[test]
fn a_stuck_reader_does_not_keep_it_from_ending() {
    let server = Server::start(&["--close-timeout", "0.2"]);
    let client = TcpStream::connect(server.address()).expect("it listens");
    Peer::over(client.try_clone().expect("there are descriptors")).ask("/");
    client.set_write_timeout(Some(Duration::from_millis(500))).expect("it is not zero");
    let message = frame(BINARY, &vec![0; 1 << 20], true);
    // Until it stops reading, and neither side can write.
    while std::io::Write::write_all(&mut &client, &message).is_ok() {}
    assert_eq!(server.stop().code(), Some(0));
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let server = Server::start(&["--close-timeout", "0"]);
    let mut client = Peer::client(server.address(), "/");
    server.program.signal(Signal::TERM);
    client.expect_close(1001);
    server.program.signal(Signal::TERM);
    assert_eq!(server.program.end().status.signal(), Some(15));
}

#[test]
fn it_listens_on_all_that_it_is_told_to() {
    let folder = Folder::new("listen");
    let path = folder.join("socket");
    let mut command =
        anyloop(["serve", "--listen", "127.0.0.1:0", "--listen", ":0", "--listen", "0"]);
    let command = command.arg("--unix").arg(&path);
    let server = Server::listening(command, 4);
    Peer::client(server.address(), "/").close(1000);
    for address in &server.addresses[1..3] {
        let port = address.rsplit_once(':').expect("there is a port").1.parse().expect("a number");
        Peer::client((Ipv4Addr::LOCALHOST, port).into(), "/").close(1000);
        if has_v6() {
            Peer::client((Ipv6Addr::LOCALHOST, port).into(), "/").close(1000);
        }
    }
    assert_eq!(server.addresses[3], format!("ws+unix:{}", path.display()));
    Peer::unix(&path).close(1000);
    assert_eq!(server.stop().code(), Some(0));
    assert!(!path.exists(), "it has removed its socket");
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
fn by_default_it_listens_on_9002_of_this_machine() {
    let mut program = Running::start(&mut anyloop(["serve"]));
    let mut line = String::new();
    let mut stdout = std::io::BufReader::new(program.stdout());
    std::io::BufRead::read_line(&mut stdout, &mut line).expect("it says UTF-8");
    match line.as_str() {
        "" => program.end().expect(1, "cannot listen on 127.0.0.1:9002: "), // another has it
        line => assert_eq!(line, "listening on ws://127.0.0.1:9002\n"),
    }
}

#[test]
fn a_unix_socket_that_nobody_listens_on_is_replaced_and_another_is_not() {
    let folder = Folder::new("stale");
    let path = folder.join("socket");
    drop(UnixListener::bind(&path).expect("there is room"));
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
fn what_cannot_be_listened_on_is_said_in_one_line() {
    let server = Server::start(&[]);
    let taken = server.address().to_string();
    let serve = |address: &str| Running::start(&mut anyloop(["serve", "--listen", address])).end();
    serve(&taken)
        .expect(1, &format!("cannot listen on {taken}: Address already in use (os error "));
    serve("192.0.2.1:0").expect(1, "cannot listen on 192.0.2.1:0: ");
    serve("no.such.host.invalid:0").expect(1, "cannot look up no.such.host.invalid:0: ");
    let ended = Running::start(&mut anyloop(["serve", "--unix", "/no/such/folder/socket"])).end();
    ended.expect(1, "cannot listen on unix:/no/such/folder/socket: No such file");
    // All or none: it does not go on with what it could have.
    let both = ["serve", "--listen", "127.0.0.1:0", "--listen", &taken];
    let ended = Running::start(&mut anyloop(both)).end();
    ended.expect(1, "in use");
    assert_eq!(ended.lines(), [""; 0]);
}

#[test]
fn inherited_sockets_are_served() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("there is a port");
    let address = listener.local_addr().expect("it has one");
    let script = "exec 3<&0 </dev/null; LISTEN_FDS=1 LISTEN_PID=$$ exec \"$0\" serve";
    let server = Server::listening(shell(script).stdin(OwnedFd::from(listener)), 1);
    assert_eq!(server.address(), address);
    Peer::client(address, "/").close(1000);
    assert_eq!(server.stop().code(), Some(0));

    // A Unix socket, beside one that it is told of.
    let folder = Folder::new("inherited");
    let path = folder.join("socket");
    let listener = UnixListener::bind(&path).expect("there is room");
    let script = format!("{script} --listen 127.0.0.1:0");
    let server = Server::listening(shell(&script).stdin(OwnedFd::from(listener)), 2);
    assert_eq!(server.addresses[1], format!("ws+unix:{}", path.display()));
    Peer::client(server.address(), "/").close(1000);
    Peer::unix(&path).close(1000);
    assert_eq!(server.stop().code(), Some(0));
    assert!(path.exists(), "it belongs to another");
}

#[test]
fn what_was_inherited_by_mistake_is_not_served() {
    let script = "exec 3</dev/null; LISTEN_FDS=1 LISTEN_PID=$$ exec \"$0\" serve";
    let ended = Running::start(&mut shell(script)).end();
    ended.expect(1, "cannot listen on inherited descriptor 3: ");

    // They are another process's.
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
fn without_descriptors_it_goes_on_with_what_it_has() {
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
    assert!(ended.stderr.contains("anyloop: cannot accept a connection: "), "{}", ended.stderr);
}

#[test]
fn wrong_calls_end_with_2_and_help_with_0() {
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
fn it_serves_also_where_nobody_hears_where() {
    let path = Folder::new("deaf");
    let socket = path.join("socket");
    let mut command = shell("exec \"$0\" serve --unix \"$1\" >&-");
    let program = Running::start(command.arg(&socket).stdin(Stdio::null()));
    // The socket may be there before it is listened on.
    anyloop_testkit::wait::eventually("it listens", || {
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
fn several_threads_serve_as_one_does() {
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
    clients.into_iter().for_each(|client| client.join().expect("no panic"));
    assert_eq!(server.stop().code(), Some(0));
}
