//! `anyloop bench`.

use std::time::Duration;

use anyloop_testkit::wait::let_time_pass;
use rustix::process::Signal;
use serde_json::Value;

use crate::peer::{BINARY, CLOSE, Host, Peer, TEXT, field};
use crate::program::{Ended, Running, Server, anyloop, output, shell, stop_ignoring_hang_up};
use crate::screen::Screen;

fn bench(arguments: &[&str]) -> Ended {
    Running::start(anyloop(["bench"]).args(arguments)).end()
}

/// The results of `--json`.
fn results(ended: &Ended) -> Vec<Value> {
    serde_json::from_slice(&ended.stdout).expect("the output is JSON")
}

/// The value of a line of the table.
fn row<'a>(ended: &'a Ended, name: &str) -> &'a str {
    let mut lines = ended.lines().into_iter().map(str::trim);
    lines.find_map(|line| line.strip_prefix(name)).expect("the table has this line").trim()
}

/// Echoes until a Close, and answers it. Returns the messages.
fn echo(mut peer: Peer) -> Vec<(u8, Vec<u8>)> {
    let mut messages = Vec::new();
    loop {
        let (opcode, payload) = peer.receive().expect("a Close before the end of the stream");
        peer.send(opcode, &payload);
        if opcode == CLOSE {
            assert_eq!(payload, b"\x03\xe8");
            return messages;
        }
        messages.push((opcode, payload));
    }
}

#[test]
fn it_prints_throughput_latencies_and_their_histogram() {
    let server = Server::start(&[]);
    let ended = bench(&[&server.url("/echo"), "--duration", "0.3"]);
    assert_eq!((ended.code(), &*ended.stderr), (Some(0), ""), "no progress without a terminal");
    let lines = ended.lines();
    assert_eq!(lines[0], server.url("/echo"));
    assert_eq!(lines[1], "  1 connection, text of 64 bytes, 1 in flight on each, 0.3 s");
    assert!(lines[2].starts_with("  permessage-deflate; "), "{}", lines[2]);
    for name in [
        "messages/s",
        "each way/s",
        "answers",
        "mean",
        "p50",
        "p90",
        "p99",
        "p99.9",
        "p99.99",
        "longest",
    ] {
        assert!(row(&ended, name).starts_with(|c: char| c.is_ascii_digit()), "{name}");
    }
    assert_eq!((row(&ended, "wrong"), row(&ended, "missing")), ("0", "0"));
    assert!(lines.iter().any(|line| line.contains("% █")), "there are bars: {lines:#?}");
    assert!(lines.contains(&"       from    share"), "they have a heading: {lines:#?}");
}

#[test]
fn it_counts_all_messages_of_all_connections_and_threads() {
    let server = Server::start(&[]);
    for options in [
        &["-c", "7", "--depth", "5"][..],
        &["-c", "7", "--threads", "3", "--depth", "5", "--no-deflate"],
        &["-c", "7", "--threads", "3", "--rate", "500", "--size", "2000"],
        &["--size", "0"],
        &["--size", "100000", "--binary", "--no-deflate"],
    ] {
        let url = server.url("/echo");
        let ended = bench(&[&[&*url, "--json", "--duration", "0.3"], options].concat());
        assert_eq!((ended.code(), &*ended.stderr), (Some(0), ""), "{options:?}");
        let [result] = &results(&ended)[..] else { panic!("one result") };
        assert_eq!((&result["sent"], &result["wrong"]), (&result["answered"], &Value::from(0)));
        assert!(result["answered"].as_u64() > Some(0), "{result}");
        let latency = &result["latency_us"];
        let ascending = ["min", "p50", "p90", "p99", "p99.9", "p99.99", "max"];
        let ascending = ascending.map(|name| latency[name].as_f64().expect("a number"));
        assert!(ascending.is_sorted() && ascending[0] > 0.0, "{latency}");
        assert_eq!(result["extension"].is_null(), options.contains(&"--no-deflate"));
    }
    // Each connection was closed in order.
    assert_eq!(server.stop().code(), Some(0));
}

#[test]
fn the_soft_limit_of_descriptors_is_raised() {
    let server = Server::start(&[]);
    let mut command = shell("ulimit -S -n 40; exec \"$0\" bench \"$1\" -c 100 -d 0.1 --json");
    let ended = Running::start(command.arg(server.url("/echo"))).end();
    assert_eq!((ended.code(), &*ended.stderr), (Some(0), ""));
    assert!(results(&ended)[0]["answered"].as_u64() >= Some(100));
}

#[test]
fn messages_have_the_size_and_kind_of_the_options_and_differ() {
    for (options, opcode) in [(&[][..], TEXT), (&["--binary"][..], BINARY)] {
        let host = Host::new();
        let url = host.url();
        let arguments =
            [&["bench", &*url, "-d", "0.2", "-s", "100", "--depth", "3"], options].concat();
        let program = Running::start(&mut anyloop(arguments));
        let (peer, request) = host.open();
        assert!(field(&request, "Sec-WebSocket-Extensions").is_some());
        let mut messages = echo(peer);
        assert_eq!(program.end().code(), Some(0));
        assert!(messages.iter().all(|message| message.0 == opcode && message.1.len() == 100));
        let count = messages.len();
        messages.sort();
        messages.dedup();
        assert_eq!(messages.len(), count, "no message is like another");
        assert!(count >= 3, "three are in flight at first");
    }
}

#[test]
fn wrong_answers_are_counted_and_exit_with_1() {
    type Change = fn(u8, Vec<u8>) -> (u8, Vec<u8>);
    let changes: [(Change, &str); 4] = [
        (|opcode, payload| (opcode ^ 3, payload), "another kind"),
        (|opcode, payload| (opcode, [&payload[..], b"x"].concat()), "a longer message"),
        (|opcode, payload| (opcode, [b"x", &payload[1..]].concat()), "another number"),
        (|opcode, payload| (opcode, [&payload[..63], b"?"].concat()), "another text"),
    ];
    for (change, what) in changes {
        let host = Host::new();
        let program =
            Running::start(&mut anyloop(["bench", &host.url(), "-d", "0.1", "--rate", "50"]));
        let (mut peer, _) = host.open();
        let mut wrong = 0;
        loop {
            let (opcode, payload) = peer.receive().expect("a Close before the end of the stream");
            if opcode == CLOSE {
                peer.send(opcode, &payload);
                break;
            }
            wrong += 1;
            let (opcode, payload) = change(opcode, payload);
            peer.send(opcode, &payload);
        }
        let ended = program.end();
        ended.expect(1, &format!("answers that are not the message sent: {wrong}"));
        assert_eq!(
            (row(&ended, "wrong"), row(&ended, "answers")),
            (&*wrong.to_string(), "0"),
            "{what}"
        );
    }
}

#[test]
fn a_message_to_all_is_no_echo() {
    let server = Server::start(&[]);
    let ended = bench(&[&server.url("/broadcast"), "-c", "3", "-d", "0.1"]);
    ended.expect(1, "; the URL must be that of an echo");
}

#[test]
fn messages_without_an_answer_are_counted_and_exit_with_1() {
    let host = Host::new();
    let program = Running::start(&mut anyloop(["bench", &host.url(), "-d", "0.1", "--depth", "2"]));
    let (mut peer, _) = host.open();
    let mut received = 0;
    while let Ok(Some(_)) = peer.try_receive() {
        received += 1; // until it gives up
    }
    assert_eq!(received, 2);
    let ended = program.end();
    ended.expect(1, "messages without an answer: 2");
    assert_eq!(row(&ended, "missing"), "2");
}

#[test]
fn a_connection_that_ends_before_its_time_is_reported_with_what_was_measured() {
    let host = Host::new();
    let program = Running::start(&mut anyloop(["bench", &host.url(), "-d", "100"]));
    let (mut peer, _) = host.open();
    for _ in 0..3 {
        let (opcode, payload) = peer.receive().expect("a message");
        peer.send(opcode, &payload);
    }
    peer.receive().expect("a message");
    peer.send(CLOSE, b"\x03\xf3tired");
    assert_eq!(peer.receive().map(|(opcode, _)| opcode), Some(CLOSE));
    drop(peer);
    let ended = program.end();
    ended.expect(
        1,
        "a connection ended before its time: the peer closed the connection with 1011: tired",
    );
    assert_eq!((row(&ended, "answers"), row(&ended, "missing")), ("3", "1"));
}

#[test]
fn pitfall_with_a_rate_a_stall_delays_all_messages_that_were_due() {
    let host = Host::new();
    let arguments = ["bench", &host.url(), "--json", "-d", "1", "--rate", "100"];
    let program = Running::start(&mut anyloop(arguments));
    let (mut peer, _) = host.open();
    let (opcode, payload) = peer.receive().expect("a message");
    let_time_pass(Duration::from_secs(1), "the peer stalls while all other messages are due");
    peer.send(opcode, &payload);
    assert_eq!(echo(peer).len(), 99);
    let ended = program.end();
    assert_eq!(ended.code(), Some(0), "{}", ended.stderr);
    let [result] = &results(&ended)[..] else { panic!("one result") };
    // With one message in flight, only the first one would show the stall.
    assert_eq!(result["sent"], 100);
    assert!(result["latency_us"]["p50"].as_f64() > Some(300_000.0), "{result}");
    assert!(result["latency_us"]["max"].as_f64() >= Some(1_000_000.0), "{result}");
}

#[test]
fn two_urls_are_compared() {
    let server = Server::start(&[]);
    let urls = [server.url("/echo"), server.url("/")];
    let ended = bench(&[&urls[0], &urls[1], "-d", "0.4", "-c", "2"]);
    assert_eq!((ended.code(), &*ended.stderr), (Some(0), ""));
    let lines = ended.lines();
    assert!(urls.iter().all(|url| lines.contains(&&**url)), "{lines:#?}");
    let table = lines.iter().position(|line| line.contains("first") && line.contains("second"));
    let names = lines[table.expect("there is a table") + 1..].iter();
    let names: Vec<_> = names.filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(names, ["messages/s", "p50", "p90", "p99", "p99.9", "p99.99"]);

    let ended = bench(&[&urls[0], &urls[1], "-d", "0.4", "--json", "--rate", "100"]);
    let results = results(&ended);
    for (result, url) in results.iter().zip(&urls) {
        assert_eq!((&result["url"], &result["sent"]), (&Value::from(&**url), &Value::from(40)));
    }
    assert_eq!(results.len(), 2);
    // Each had four rounds.
    let mut stats = Peer::client(server.address(), "/stats");
    let (_, line) = stats.receive().expect("a line");
    let counters: Value = serde_json::from_slice(&line).expect("the line is JSON");
    assert_eq!(counters["opened"], 2 * 4 * 2 + 2 * 4 + 1);
}

#[test]
fn a_signal_ends_it_early_with_what_was_measured() {
    stop_ignoring_hang_up();
    for signal in [
        Signal::INT,
        Signal::TERM,
        #[cfg(target_os = "linux")]
        Signal::HUP,
    ] {
        let host = Host::new();
        let program = Running::start(&mut anyloop(["bench", &host.url(), "-d", "1000"]));
        let (mut peer, _) = host.open();
        let (opcode, payload) = peer.receive().expect("a message");
        program.signal(signal);
        peer.send(opcode, &payload);
        let count = 1 + echo(peer).len();
        let ended = program.end();
        assert_eq!((ended.code(), &*ended.stderr), (Some(0), ""));
        assert_eq!(row(&ended, "answers").replace(',', ""), count.to_string());
    }
}

#[test]
fn a_signal_ends_it_while_it_connects() {
    let host = Host::new();
    let program = Running::start(&mut anyloop(["bench", &host.url(), "--handshake-timeout", "0"]));
    let mut peer = host.accept();
    peer.head();
    program.signal(Signal::INT);
    program.end().expect(1, "interrupted before all connections were open");
}

#[test]
fn a_server_that_is_not_there_or_refuses_has_an_exit_status_of_its_own() {
    let server = Server::start(&[]);
    bench(&[&server.url("/nowhere"), "-c", "3"])
        .expect(4, "the server refused: 404 Not Found (is the path right?): there is nothing here");
    let free = format!("ws://{}/", server.address());
    assert_eq!(server.stop().code(), Some(0));
    bench(&[&free, "-c", "3", "--threads", "2"]).expect(3, "Connection refused");
}

#[test]
fn progress_is_shown_on_a_terminal() {
    let server = Server::start(&[]);
    let mut command = shell("exec \"$0\" bench \"$1\" -d 1000 2>&1 >/dev/null");
    command.arg(server.url("/echo")).env("TERM", "xterm");
    let (mut screen, program) = Screen::start(command);
    screen.expect_written(" messages/s");
    program.signal(Signal::INT);
    assert_eq!(program.end().code(), Some(0));
}

#[test]
fn invalid_arguments_exit_with_2_and_help_with_0() {
    let url = "ws://127.0.0.1:1/";
    for arguments in [
        &[][..],
        &["http://127.0.0.1:1/"],
        &[url, url, url],
        &[url, "-c", "0"],
        &[url, "-s", "100000000"],
        &[url, "--depth", "0"],
        &[url, "--rate", "0"],
        &[url, "--rate", "NaN"],
        &[url, "--rate", "10", "--depth", "2"],
        &[url, "-d", "0"],
        &[url, "-d", "100000"],
        &[url, "--threads", "0"],
    ] {
        let output = output(anyloop(["bench"]).args(arguments));
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(output.stdout.is_empty() && !output.stderr.is_empty());
    }
    let help = output(&mut anyloop(["bench", "--help"]));
    assert_eq!(help.status.code(), Some(0));
    let help = String::from_utf8_lossy(&help.stdout).into_owned();
    assert!(help.contains("coordinated omission") && help.contains("Examples:"), "{help}");
}
