//! `anyloop connect` over standard streams that do not block. Programs that share a descriptor may set
//! `O_NONBLOCK` on it.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::Stdio;

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::{FdFlags, fcntl_setfd};

use crate::peer::{CLOSE, Host, PING, PONG, TEXT};
use crate::program::{Running, anyloop};

/// A pipe whose ends no program inherits that is not given them.
fn pipe() -> (OwnedFd, OwnedFd) {
    let ends = rustix::pipe::pipe().expect("there are descriptors");
    for end in [&ends.0, &ends.1] {
        fcntl_setfd(end, FdFlags::CLOEXEC).expect("it is open");
    }
    ends
}

fn unblock(end: &OwnedFd) {
    fcntl_setfl(end, OFlags::NONBLOCK).expect("it is a pipe");
}

fn blocks(end: &OwnedFd) -> bool {
    !fcntl_getfl(end).expect("it is open").contains(OFlags::NONBLOCK)
}

#[test]
fn input_is_waited_for() {
    let (reader, writer) = pipe();
    unblock(&reader);
    let kept = reader.try_clone().expect("there are descriptors");
    let server = Host::new();
    let mut command = anyloop(["connect", &server.url()]);
    let program = Running::start(command.stdin(reader));
    let (mut peer, _) = server.open();
    let mut writer = File::from(writer);
    for line in ["one", "two"] {
        peer.send(PING, b"there?");
        peer.expect(PONG, b"there?"); // and no Close
        writeln!(writer, "{line}").expect("it reads");
        peer.expect(TEXT, line.as_bytes());
    }
    assert!(!blocks(&kept), "the flag is others' as well");
    drop(writer);
    peer.expect_close(1000);
    peer.send(CLOSE, b"\x03\xe8");
    let ended = program.end();
    assert_eq!((ended.code(), &*ended.stderr), (Some(0), ""));
}

#[test]
fn all_that_was_received_is_printed() {
    let (reader, writer) = pipe();
    unblock(&writer);
    let kept = writer.try_clone().expect("there are descriptors");
    let server = Host::new();
    let mut command = anyloop(["connect", &server.url()]);
    let program = Running::start_with(command.stdin(Stdio::null()), writer);
    drop(command);
    let (mut peer, _) = server.open();
    peer.send(PING, b"open?");
    peer.expect(PONG, b"open?");
    assert!(!blocks(&kept), "the flag is others' as well");
    drop(kept); // or the pipe would not end with the program
    // Far more than the pipe holds.
    let message = vec![b'x'; 1 << 20];
    (0..4).for_each(|_| peer.send(TEXT, &message));
    peer.send(CLOSE, b"\x03\xe8");
    let mut printed = vec![0; 4 * (message.len() + 1)];
    File::from(reader).read_exact(&mut printed).expect("it prints all");
    assert!(printed.chunks(message.len() + 1).all(|line| line == [&message[..], b"\n"].concat()));
    peer.expect_close(1000);
    drop(peer);
    let ended = program.end();
    assert_eq!((ended.code(), &*ended.stderr), (Some(0), ""));
}
