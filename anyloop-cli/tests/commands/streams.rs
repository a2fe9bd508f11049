//! `anyloop connect` with non-blocking standard streams. Another program that shares a descriptor may have set
//! `O_NONBLOCK` on it.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::Stdio;

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::{FdFlags, fcntl_setfd};

use crate::peer::{CLOSE, Host, PING, PONG, TEXT};
use crate::program::{Running, anyloop};

/// A pipe whose ends are close-on-exec, so that a program inherits only an end that it is given.
fn pipe() -> (OwnedFd, OwnedFd) {
    let ends = rustix::pipe::pipe().expect("the process has a file descriptor left");
    for end in [&ends.0, &ends.1] {
        fcntl_setfd(end, FdFlags::CLOEXEC).expect("the descriptor is open");
    }
    ends
}

fn unblock(end: &OwnedFd) {
    fcntl_setfl(end, OFlags::NONBLOCK).expect("the mode of a pipe can be set");
}

fn blocks(end: &OwnedFd) -> bool {
    !fcntl_getfl(end).expect("the descriptor is open").contains(OFlags::NONBLOCK)
}

#[test]
fn it_waits_for_non_blocking_input() {
    let (reader, writer) = pipe();
    unblock(&reader);
    let kept = reader.try_clone().expect("the process has a file descriptor left");
    let server = Host::new();
    let mut command = anyloop(["connect", &server.url()]);
    let program = Running::start(command.stdin(reader));
    let (mut peer, _) = server.open();
    let mut writer = File::from(writer);
    for line in ["one", "two"] {
        peer.send(PING, b"there?");
        peer.expect(PONG, b"there?"); // and no Close before it
        writeln!(writer, "{line}").expect("the program reads its input");
        peer.expect(TEXT, line.as_bytes());
    }
    assert!(!blocks(&kept), "the program must not change a flag that others share");
    drop(writer);
    peer.expect_close(1000);
    peer.send(CLOSE, b"\x03\xe8");
    let ended = program.end();
    assert_eq!((ended.code(), &*ended.stderr), (Some(0), ""));
}

#[test]
fn all_received_messages_are_printed_to_a_non_blocking_pipe() {
    let (reader, writer) = pipe();
    unblock(&writer);
    let kept = writer.try_clone().expect("the process has a file descriptor left");
    let server = Host::new();
    let mut command = anyloop(["connect", &server.url()]);
    let program = Running::start_with(command.stdin(Stdio::null()), writer);
    drop(command);
    let (mut peer, _) = server.open();
    peer.send(PING, b"open?");
    peer.expect(PONG, b"open?");
    assert!(!blocks(&kept), "the program must not change a flag that others share");
    drop(kept); // otherwise the pipe stays open after the program has ended
    // Far more than the buffer of the pipe holds.
    let message = vec![b'x'; 1 << 20];
    (0..4).for_each(|_| peer.send(TEXT, &message));
    peer.send(CLOSE, b"\x03\xe8");
    let mut printed = vec![0; 4 * (message.len() + 1)];
    File::from(reader).read_exact(&mut printed).expect("all messages are printed");
    assert!(printed.chunks(message.len() + 1).all(|line| line == [&message[..], b"\n"].concat()));
    peer.expect_close(1000);
    drop(peer);
    let ended = program.end();
    assert_eq!((ended.code(), &*ended.stderr), (Some(0), ""));
}
