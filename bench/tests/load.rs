//! `load` against `floor`: what is right passes, and what is wrong is noticed.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Output, Stdio};

/// A floor, until it is dropped.
struct Floor {
    process: Child,
    address: String,
}

impl Floor {
    fn start(arguments: &[&str]) -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_floor"))
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.strip_prefix("listening on ").unwrap().trim_end().to_owned();
        Self { process, address }
    }

    fn load(&self, arguments: &str) -> Output {
        load(&format!("{} {arguments} --server-pid {}", self.address, self.process.id()))
    }
}

impl Drop for Floor {
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
    let floor = Floor::start(&[]);
    for options in [
        "--connections 3 --size 0 --depth 5",
        "--connections 32 --size 64 --depth 64",
        "--connections 20 --size 1000 --text",
        "--connections 5 --size 16384 --mixed --depth 3",
        "--connections 4 --size 1048576 --depth 2",
    ] {
        let output = floor.load(&format!("{options} --raw --json --warmup 0.02 --messages 103"));
        assert!(output.status.success(), "{options}: {output:?}");
        let json = text(&output.stdout);
        assert!(json.starts_with("{\"messages\": 103, "), "{options}: {json}");
        assert!(!json.contains("null"), "{options}: {json}");
    }
}

#[test]
fn a_floor_that_calls_the_standard_library_answers_as_well() {
    let floor = Floor::start(&["--std"]);
    let output = floor.load("--raw --size 300000 --connections 2 --messages 50 --warmup 0");
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn unix_sockets_work_too() {
    let path = std::env::temp_dir().join(format!("anyloop-load-{}", std::process::id()));
    let floor = Floor::start(&[&format!("unix:{}", path.display())]);
    let output = floor.load("--raw --size 300000 --connections 2 --messages 50 --warmup 0");
    drop(floor);
    std::fs::remove_file(path).unwrap();
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn a_wrong_bit_is_noticed() {
    let floor = Floor::start(&["--corrupt"]);
    for options in ["--depth 8", "--size 1048576", "--connections 7 --size 1000 --text"] {
        let output = floor.load(&format!("{options} --raw --warmup 0 --messages 5000"));
        assert!(!output.status.success(), "{options}: {output:?}");
        let error = text(&output.stderr);
        assert!(error.contains(" came, not "), "{options}: {error}");
    }
}

#[test]
fn a_masked_reply_is_noticed() {
    let floor = Floor::start(&[]);
    let output = floor.load("--warmup 0 --messages 1");
    assert!(text(&output.stderr).contains("reply 0, byte 1: 0xc0 came, not 0x40"), "{output:?}");
}

#[test]
fn idle_connections_echo_when_told_to() {
    let floor = Floor::start(&[]);
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
