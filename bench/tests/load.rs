//! `load` against `floor` and others: what is right passes, and what is wrong is noticed.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use anyloop_testkit::tls::self_signed;

/// A server, until it is dropped.
struct Server {
    process: Child,
    address: String,
}

impl Server {
    fn floor(arguments: &[&str]) -> Self {
        Self::start(env!("CARGO_BIN_EXE_floor"), arguments)
    }

    /// A peer over TLS.
    fn secure(name: &str) -> Self {
        let identity = self_signed(&["localhost"]);
        static NUMBER: AtomicU32 = AtomicU32::new(0);

        let (folder, number) = (std::env::temp_dir(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let [certificate, key] = ["pem", "key"]
            .map(|end| folder.join(format!("anyloop-load-{}-{number}.{end}", std::process::id())));
        std::fs::write(&certificate, identity.certificate).unwrap();
        std::fs::write(&key, identity.key).unwrap();
        let files = [&certificate, &key].map(|path| path.to_str().unwrap());
        let server = Self::start(env!("CARGO_BIN_EXE_peers"), &[name, files[0], files[1]]);
        std::fs::remove_file(&certificate).unwrap();
        std::fs::remove_file(&key).unwrap();
        server
    }

    fn start(program: &str, arguments: &[&str]) -> Self {
        let mut process =
            Command::new(program).args(arguments).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.strip_prefix("listening on ").unwrap().trim_end();
        let address = address.rsplit("//").next().unwrap().trim_end_matches('/').to_owned();
        Self { process, address }
    }

    /// Runs `load` in a mode, or in the usual one.
    fn load_in(&self, mode: &str, arguments: &str) -> Output {
        load(&format!("{mode} {} {arguments} --server-pid {}", self.address, self.process.id()))
    }

    fn load(&self, arguments: &str) -> Output {
        self.load_in("", arguments)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

fn load(arguments: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_load")).args(arguments.split_whitespace()).output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    str::from_utf8(bytes).unwrap()
}

#[test]
fn messages_of_all_sizes_are_counted() {
    let floor = Server::floor(&[]);
    for options in [
        "--connections 3 --size 0 --depth 5",
        "--connections 32 --size 64 --depth 64",
        "--connections 20 --size 1000 --text",
        "--connections 5 --size 16384 --mixed --depth 3",
        "--connections 4 --size 1048576 --depth 2",
    ] {
        let output = floor.load(&format!("{options} --raw --json --warmup 0.02 --messages 103"));
        assert_counted(&output, "messages", 103);
    }
}

#[test]
fn a_floor_that_calls_the_standard_library_answers_as_well() {
    let floor = Server::floor(&["--std"]);
    let output = floor.load("--raw --size 300000 --connections 2 --messages 50 --warmup 0");
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn unix_sockets_work_too() {
    let path = std::env::temp_dir().join(format!("anyloop-load-{}", std::process::id()));
    let floor = Server::floor(&[&format!("unix:{}", path.display())]);
    let output = floor.load("--raw --size 300000 --connections 2 --messages 50 --warmup 0");
    drop(floor);
    std::fs::remove_file(path).unwrap();
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn a_wrong_bit_is_noticed() {
    let floor = Server::floor(&["--corrupt"]);
    for options in ["--depth 8", "--size 1048576", "--connections 7 --size 1000 --text"] {
        let output = floor.load(&format!("{options} --raw --warmup 0 --messages 5000"));
        assert!(!output.status.success(), "{options}: {output:?}");
        let error = text(&output.stderr);
        assert!(error.contains(" came, not "), "{options}: {error}");
    }
}

#[test]
fn a_masked_reply_is_noticed() {
    let floor = Server::floor(&[]);
    let output = floor.load("--warmup 0 --messages 1");
    assert!(text(&output.stderr).contains("reply 0, byte 1: 0xc0 came, not 0x40"), "{output:?}");
}

/// Asserts that `load` has measured all that it measures, and counted `number` of `what`.
#[track_caller]
fn assert_counted(output: &Output, what: &str, number: u64) {
    assert!(output.status.success(), "{output:?}");
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json[what], number, "{json}");
    assert!(json.as_object().unwrap().values().all(|value| !value.is_null()), "{json}");
}

#[test]
fn deliveries_of_a_broadcast_are_counted() {
    let floor = Server::floor(&[]);
    for (options, number) in [
        ("--connections 20 --messages 70", 1400),
        ("--connections 1 --messages 2 --size 0", 2),
        ("--connections 20 --messages 70 --depth 40", 1400),
    ] {
        let output = floor.load_in("broadcast", &format!("{options} --raw --json --warmup 0.02"));
        assert_counted(&output, "deliveries", number);
    }
}

#[test]
fn a_broadcast_that_is_not_what_was_sent_is_noticed() {
    let floor = Server::floor(&["--corrupt"]);
    let output = floor.load_in("broadcast", "--raw --connections 9 --messages 500 --warmup 0");
    assert!(!output.status.success(), "{output:?}");
    assert!(text(&output.stderr).contains(" came, not "), "{output:?}");
}

#[test]
fn connections_that_are_opened_and_closed_are_counted() {
    let floor = Server::floor(&[]);
    let options = "--raw --path /close --json --warmup 0.02 --messages 103";
    for connections in [1, 64, 200] {
        let output = floor.load_in("opening", &format!("{options} --connections {connections}"));
        assert_counted(&output, "connections", 103);
    }
}

#[test]
fn a_wrong_close_is_noticed() {
    let floor = Server::floor(&["--corrupt"]);
    let output = floor.load_in("opening", "--raw --path /close --messages 500 --warmup 0");
    assert!(text(&output.stderr).contains("Closing: "), "{output:?}");
    assert!(text(&output.stderr).contains(" came, not [88, 82, 01, 02, 03, 04, "), "{output:?}");
    let masked = Server::floor(&[]).load_in("opening", "--path /close --messages 1 --warmup 0");
    assert!(text(&masked.stderr).contains(" came, not [88, 02, 03, e8]"), "{masked:?}");
}

#[test]
fn peers_are_opened_and_closed_and_one_broadcasts() {
    let options = "--json --warmup 0 --messages 60";
    for name in ["fastwebsockets", "tokio-tungstenite", "batch"] {
        let peer = Server::start(env!("CARGO_BIN_EXE_peers"), &[name]);
        let output = peer.load_in("opening", &format!("{options} --connections 16"));
        assert_counted(&output, "connections", 60);
        if name == "tokio-tungstenite" {
            let output = peer.load_in("broadcast", &format!("{options} --connections 20"));
            assert_counted(&output, "deliveries", 1200);
        }
    }
}

#[test]
fn compressed_messages_are_counted_and_their_replies_compared() {
    let peer = Server::start(env!("CARGO_BIN_EXE_peers"), &["yawc"]);
    for offer in ["client_max_window_bits", "client_no_context_takeover;server_no_context_takeover"]
    {
        for size in [219, 70_000] {
            let options = format!("--deflate {offer} --size {size} --connections 3 --depth 5");
            let output = peer.load(&format!("{options} --json --warmup 0 --messages 43"));
            assert_counted(&output, "messages", 43);
            let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
            assert!(json["received_bytes_per_message"].as_f64().unwrap() < f64::from(size) / 3.0);
        }
    }
}

#[test]
fn messages_and_connections_over_tls_are_counted() {
    let options = "--tls --json --warmup 0.02";
    for name in ["fastwebsockets", "tokio-tungstenite", "batch"] {
        let peer = Server::secure(name);
        for load in ["--size 1000 --connections 9 --depth 3", "--size 1048576 --connections 2"] {
            let output = peer.load(&format!("{options} {load} --messages 43"));
            assert_counted(&output, "messages", 43);
        }
        for load in ["", "--resume", "--handshake", "--handshake --resume"] {
            let load = format!("{options} {load} --connections 9 --messages 43");
            assert_counted(&peer.load_in("opening", &load), "connections", 43);
        }
    }
}

#[test]
fn latencies_in_a_storm_are_measured() {
    let peer = Server::secure("fastwebsockets");
    let options = "--connections 9 --rate 500 --handshakes 43 --seconds 0.1 --json";
    let output = load(&format!("storm {} --tls {options}", peer.address));
    assert!(output.status.success(), "{output:?}");
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["handshakes"], 43);
    for phase in ["rest", "storm"] {
        let (median, maximum) = (&json[phase]["p50_us"], &json[phase]["max_us"]);
        assert!(median.as_f64().unwrap() > 0.0, "{json}");
        assert!(maximum.as_f64().unwrap() >= median.as_f64().unwrap(), "{json}");
    }
    let plain = Server::floor(&[]);
    let output = load(&format!("storm {} {options}", plain.address));
    assert!(!output.status.success(), "{output:?}");
}

#[test]
fn a_server_without_tls_is_noticed() {
    let floor = Server::floor(&[]);
    for mode in ["", "opening", "broadcast"] {
        let output = floor.load_in(mode, "--tls --warmup 0 --messages 1");
        assert!(text(&output.stderr).contains("received corrupt message"), "{mode}: {output:?}");
    }
}

#[test]
fn a_raw_server_returns_compressed_messages() {
    let floor = Server::floor(&[]);
    let options = "--raw --deflate client_max_window_bits --size 4096 --warmup 0";
    let output = floor.load(&format!("{options} --connections 3 --depth 5 --messages 1003 --json"));
    assert_counted(&output, "messages", 1003);
    let corrupt = Server::floor(&["--corrupt"]).load(&format!("{options} --messages 50000"));
    assert!(text(&corrupt.stderr).contains(" came, not "), "{corrupt:?}");
}

#[test]
fn a_server_that_does_not_compress_is_refused() {
    let peer = Server::start(env!("CARGO_BIN_EXE_peers"), &["fastwebsockets"]);
    let output = peer.load("--deflate client_max_window_bits --warmup 0 --messages 1");
    let error = "the server does not agree to permessage-deflate";
    assert!(text(&output.stderr).contains(error), "{output:?}");
}

#[test]
fn idle_connections_echo_when_told_to() {
    let floor = Server::floor(&[]);
    let mut idle = Command::new(env!("CARGO_BIN_EXE_load"))
        .args(["idle", &floor.address, "--raw", "--control", "--connections", "50", "--touch", "9"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(idle.stdout.take().unwrap()).lines().map(Result::unwrap);
    let mut input = idle.stdin.take().unwrap();
    assert_eq!(said.next().unwrap(), "ready");
    input.write_all(b"echo 10\n").unwrap();
    assert_eq!(said.next().unwrap(), "echoed");
    input.write_all(b"quit\n").unwrap();
    assert!(said.next().unwrap().starts_with("50 of 50 connections open, "));
    assert!(idle.wait().unwrap().success());
}

#[test]
fn other_machines_are_refused() {
    let output = load("192.0.2.1:80");
    assert!(!output.status.success());
    assert!(text(&output.stderr).contains("not a loopback address"), "{output:?}");
}
