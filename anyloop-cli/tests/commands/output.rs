//! `anyloop connect --output`.

use std::fs::{self, File, Permissions};
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyloop_testkit::wait::eventually;
use rustix::process::Signal;

use crate::peer::{BINARY, CLOSE, Host, PING, PONG, Peer, TEXT};
use crate::program::{Ended, Folder, Running, anyloop, shell, unprivileged};

/// A piece of a large message.
const PIECE: usize = 1 << 20;

/// Runs the command with these options and `--output`, without input, against a server that calls `host`.
fn receive(file: &Path, options: &[&str], host: impl FnOnce(Peer, &Running)) -> Ended {
    let server = Host::new();
    let mut command = anyloop(["connect", &server.url(), "--output"]);
    let program = Running::start(command.arg(file).args(options).stdin(Stdio::null()));
    let (peer, _) = server.open();
    host(peer, &program);
    program.end()
}

fn content(file: &Path) -> String {
    fs::read(file).expect("the file exists").escape_ascii().to_string()
}

fn length(file: &Path) -> usize {
    fs::metadata(file).map_or(0, |metadata| metadata.len() as usize)
}

/// A directory, and a file in it that has content.
fn old_file(name: &str) -> (Folder, PathBuf) {
    let folder = Folder::new(name);
    let file = folder.join("file");
    fs::write(&file, "what was there before, which is longer").expect("the file can be written");
    (folder, file)
}

#[test]
fn messages_are_written_unchanged_and_one_after_the_other() {
    let (_folder, file) = old_file("output");
    let ended = receive(&file, &[], |mut peer, _| {
        peer.send(TEXT, b"\x1b[1mtext");
        peer.send(BINARY, b"\0\xff\r\n");
        peer.send(TEXT, b"");
        peer.close(1000);
    });
    assert_eq!((ended.code(), &*ended.stdout, &*ended.stderr), (Some(0), &b""[..], ""));
    assert_eq!(content(&file), r"\x1b[1mtext\x00\xff\r\n");

    let ended = receive(Path::new("-"), &[], |mut peer, _| {
        peer.send(BINARY, b"\0\xff");
        peer.send(TEXT, "κ".as_bytes());
        peer.close(1000);
    });
    assert_eq!((ended.code(), &*ended.stdout), (Some(0), &b"\0\xff\xce\xba"[..]));
    let ended = receive(Path::new("/dev/null"), &["--once"], |mut peer, _| {
        peer.send(TEXT, b"gone");
        peer.expect_close(1000);
        peer.send(CLOSE, b"\x03\xe8");
    });
    assert_eq!((ended.code(), &*ended.stderr), (Some(0), ""));
}

#[test]
fn a_message_of_any_size_is_written_while_it_arrives_in_constant_memory() {
    let (_folder, file) = old_file("large");
    let seen = file.clone();
    let ended = receive(&file, &["--once", "--no-deflate"], move |mut peer, program| {
        let pieces = 100;
        for n in 0..pieces {
            peer.send_part(if n == 0 { BINARY } else { 0 }, &[n as u8; PIECE], false);
        }
        eventually("the pieces are in the file", || length(&seen) == pieces * PIECE);
        if let Some(peak) = program.peak_memory() {
            assert!(peak < 50 * PIECE, "the command needed {peak} bytes");
        }
        peer.send_part(0, b"the end", true);
        peer.send(TEXT, b"nobody wants more");
        peer.expect_close(1000);
        peer.send(CLOSE, b"\x03\xe8");
    });
    assert_eq!((ended.code(), &*ended.stderr), (Some(0), ""));
    let written = fs::read(&file).expect("the file exists");
    let (pieces, end) = written.split_at(100 * PIECE);
    assert!(pieces.chunks(PIECE).zip(0..).all(|(piece, n)| piece.iter().all(|byte| *byte == n)));
    assert_eq!(end, b"the end");
}

#[test]
fn a_compressed_message_is_written_as_it_was() {
    let (_folder, file) = old_file("deflate");
    let text = (0..100_000).map(|n| format!("line {n}\n")).collect::<String>();
    let source = file.with_extension("source");
    fs::write(&source, &text).expect("the file can be written");
    let server = crate::program::Server::start(&[]);
    let mut command = anyloop(["connect", &server.url("/"), "--once", "--output"]);
    let ended = Running::start(command.arg(&file).arg("--binary").arg(&source)).end();
    assert_eq!((ended.code(), &*ended.stderr), (Some(0), ""));
    assert!(fs::read(&file).is_ok_and(|written| written == text.as_bytes()));
}

#[test]
fn a_part_of_a_message_is_kept_and_is_an_error() {
    let (_folder, file) = old_file("part");
    let ended = receive(&file, &["--once"], |mut peer, _| {
        peer.send_part(TEXT, b"half", false);
        peer.close(1000);
    });
    ended.expect(1, "inside of a message; ");
    ended.expect(1, "file ends with the first 4 bytes of a message");
    assert_eq!(content(&file), "half");

    let seen = file.clone();
    let ended = receive(&file, &[], move |mut peer, program| {
        peer.send_part(TEXT, b"another", false);
        eventually("the part is in the file", || content(&seen) == "another");
        program.signal(Signal::TERM);
        peer.expect_close(1001);
        peer.send(CLOSE, b"\x03\xe9");
    });
    ended.expect(1, "file ends with the first 7 bytes of a message");

    let ended = receive(&file, &[], |mut peer, _| peer.send_part(TEXT, b"lost", false));
    ended.expect(1, "stream ended without a closing handshake");
    ended.expect(1, "file ends with the first 4 bytes of a message");
    assert_eq!(content(&file), "lost");

    let ended = receive(&file, &[], |mut peer, _| {
        peer.send(TEXT, b"whole");
        peer.send_part(TEXT, b"wrong", false);
        peer.write(b"\x83\0");
        peer.expect_close(1002);
    });
    ended.expect(1, "reserved opcode 0x3");
    ended.expect(1, "file ends with the first 5 bytes of a message");
    assert_eq!(content(&file), "wholewrong");
}

/// Runs the command with `--reconnect` against a server that is lost inside of its second message.
fn lose_a_part(output: &Path, await_part: impl FnOnce(&mut Peer)) -> (TcpListener, Running) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("the system has a free port");
    let url = format!("ws://{}/", listener.local_addr().expect("the socket has an address"));
    let mut command = anyloop(["connect", &url, "--reconnect", "--output"]);
    let program = Running::start(command.arg(output).stdin(Stdio::null()));
    let (mut peer, _) = Host::over(listener.try_clone().expect("there is a descriptor")).open();
    peer.send(TEXT, b"one");
    peer.send_part(TEXT, b"tw", false);
    await_part(&mut peer);
    (listener, program)
}

#[test]
fn a_part_is_removed_before_another_connection_goes_on() {
    let (_folder, file) = old_file("reconnect");
    let (listener, program) =
        lose_a_part(&file, |_| eventually("both are in the file", || content(&file) == "onetw"));
    let (mut peer, _) = Host::over(listener).open();
    peer.send(TEXT, b"three");
    peer.close(1000);
    let ended = program.end();
    assert_eq!(ended.code(), Some(0), "{}", ended.stderr);
    assert_eq!(content(&file), "onethree");

    let (_listener, program) = lose_a_part(Path::new("-"), |peer| {
        peer.send(PING, b"written?");
        peer.expect(PONG, b"written?");
    });
    let ended = program.end();
    ended.expect(1, "stream ended without a closing handshake");
    let words = "; standard output ends with the first 2 bytes of a message; it cannot be removed, so the \
                 command does not reconnect";
    ended.expect(1, words);
    assert_eq!(ended.stdout, b"onetw");
}

#[test]
fn it_does_not_overwrite_what_it_sends() {
    let (folder, file) = old_file("input-output");
    let before = content(&file);
    let link = folder.join("link");
    fs::hard_link(&file, &link).expect("the folder takes links");
    let url = "ws://127.0.0.1:9/";
    for output in [&file, &link] {
        let mut command = anyloop(["connect", url, "-o"]);
        command.arg(output).stdin(File::open(&file).expect("the file exists"));
        let words = format!("would overwrite {}, which is standard input", output.display());
        Running::start(&mut command).end().expect(2, &words);
        let mut command = anyloop(["connect", url, "-o"]);
        command.arg(output).arg("--binary").arg(&file).stdin(Stdio::null());
        Running::start(&mut command).end().expect(2, "which --binary sends");
    }
    assert_eq!(content(&file), before);

    // A subscriber does not read its input.
    let server = Host::new();
    let mut command = anyloop(["connect", &server.url(), "--subscribe", "-o"]);
    command.arg(&file).stdin(File::open(&file).expect("the file exists"));
    let program = Running::start(&mut command);
    server.open().0.close(1000);
    assert_eq!(program.end().code(), Some(0));
}

#[test]
fn what_arrives_after_a_failure_of_the_input_is_written() {
    let (_folder, file) = old_file("input");
    let server = Host::new();
    let mut command = anyloop(["connect", &server.url(), "-o"]);
    let mut program = Running::start(command.arg(&file).stdin(Stdio::piped()));
    let (mut peer, _) = server.open();
    program.stdin().write_all(b"\xff\n").expect("the program reads its input");
    peer.expect_close(1001);
    peer.send(TEXT, b"last");
    peer.send(CLOSE, b"\x03\xe9");
    drop(peer); // otherwise the command waits for the end of the stream
    program.end().expect(1, "line 1 of standard input is not UTF-8");
    assert_eq!(content(&file), "last");
}

#[test]
fn without_a_connection_the_file_stays_as_it_was() {
    let (_folder, file) = old_file("unreachable");
    let before = content(&file);
    let unused = TcpListener::bind("127.0.0.1:0").expect("the system has a free port");
    let url = format!("ws://{}/", unused.local_addr().expect("the socket has an address"));
    drop(unused);
    let mut command = anyloop(["connect", &url, "-o"]);
    let ended = Running::start(command.arg(&file).stdin(Stdio::null())).end();
    ended.expect(3, "Connection refused");
    assert_eq!(content(&file), before);
    let new = file.with_extension("new");
    let mut command = anyloop(["connect", &url, "-o"]);
    let ended = Running::start(command.arg(&new).stdin(Stdio::null())).end();
    ended.expect(3, "Connection refused");
    assert!(!new.exists(), "the command has created it for nothing");
    for file in [&file, &new] {
        let server = Host::new();
        let mut command = anyloop(["connect", &server.url(), "-o"]);
        let program = Running::start(command.arg(file).stdin(Stdio::null()));
        let mut peer = server.accept();
        peer.head(); // and no answer
        program.signal(Signal::INT);
        assert_eq!(program.end().status.signal(), Some(2));
    }
    assert_eq!(content(&file), before);
    assert!(!new.exists(), "it is there before a connection has opened");
    for file in [&file, &new] {
        let ended = receive(file, &[], |peer, _| peer.close(1000));
        assert_eq!((ended.code(), content(file)), (Some(0), String::new()));
    }
}

#[test]
fn a_link_to_a_file_that_does_not_exist_creates_it() {
    let folder = Folder::new("dangling");
    let (target, link) = (folder.join("target"), folder.join("link"));
    let other = folder.join("other");
    symlink("target", &other).expect("the folder takes links");
    symlink(&other, &link).expect("the folder takes links");
    let server = Host::new();
    let mut command = anyloop(["connect", &server.url(), "-o"]);
    let program = Running::start(command.arg(&link).stdin(Stdio::null()));
    server.accept().head(); // and no answer
    assert_eq!(program.end().code(), Some(4));
    assert!(!target.exists(), "it is there before a connection has opened");
    let ended = receive(&link, &[], |peer, _| peer.close(1000));
    assert_eq!((ended.code(), &*content(&target)), (Some(0), ""), "{}", ended.stderr);
    assert!(link.is_symlink() && other.is_symlink());
}

#[test]
fn a_file_that_cannot_be_created_is_refused_before_connecting() {
    let folder = Folder::new("no-file");
    let unwritable = Permissions::from_mode(0o555);
    fs::set_permissions(folder.join(""), unwritable).expect("the directory is the test's own");
    let links = Folder::new("no-file-links");
    let new = links.join("new");
    symlink(folder.join("new"), &new).expect("the folder takes links");
    for file in [folder.join("new"), new] {
        let mut command = unprivileged(["connect", "ws://127.0.0.1:9/", "-o"]);
        let ended = Running::start(command.arg(file).stdin(Stdio::null())).end();
        ended.expect(2, "--output: cannot write to ");
        ended.expect(2, "/new: Permission denied");
    }
    let lost = links.join("lost");
    symlink("no/such/folder", &lost).expect("the folder takes links");
    let mut command = anyloop(["connect", "ws://127.0.0.1:9/", "-o"]);
    let ended = Running::start(command.arg(lost).stdin(Stdio::null())).end();
    ended.expect(2, "/lost: No such file or directory");
}

#[test]
fn it_closes_after_the_messages_that_are_asked_for_or_at_the_limit() {
    let (_folder, file) = old_file("limits");
    let ended = receive(&file, &["--exit-after", "2"], |mut peer, _| {
        for message in ["one", "two", "three"] {
            peer.send(TEXT, message.as_bytes());
        }
        peer.expect_close(1000);
        peer.send(CLOSE, b"\x03\xe8");
    });
    assert_eq!((ended.code(), &*content(&file)), (Some(0), "onetwo"));
    let ended = receive(&file, &["--max-message", "4"], |mut peer, _| {
        peer.send(TEXT, b"four");
        peer.send(TEXT, b"five5");
        peer.expect_close(1009);
    });
    ended.expect(1, "message too big: more than 4 bytes");
    assert_eq!(content(&file), "four");
}

#[test]
fn a_file_that_becomes_too_large_has_the_first_bytes_of_its_message() {
    let folder = Folder::new("size-limit");
    let file = folder.join("file");
    let server = Host::new();
    // 16 blocks, which have 512 or 1024 bytes.
    let mut command = shell(r#"ulimit -f 16 && exec "$0" connect "$1" -o "$2""#);
    let program = Running::start(command.arg(server.url()).arg(&file).stdin(Stdio::null()));
    let (mut peer, _) = server.open();
    peer.send_part(TEXT, &[b'x'; 20_000], false);
    peer.expect_close(1001);
    peer.send(CLOSE, b"\x03\xe9");
    let ended = program.end();
    ended.expect(1, "File too large");
    let written = length(&file);
    assert!((1..20_000).contains(&written), "{written}");
    ended.expect(1, &format!("file ends with the first {written} bytes of a message"));
}

#[test]
fn standard_output_by_its_path_is_not_emptied() {
    let (_folder, file) = old_file("stdout");
    let before = content(&file);
    let server = Host::new();
    let mut command = anyloop(["connect", &server.url(), "-o", "/dev/stdout"]);
    let stdout = File::options().append(true).open(&file).expect("the file exists");
    let program = Running::start_with(command.stdin(Stdio::null()), stdout);
    let (mut peer, _) = server.open();
    peer.send(TEXT, b"; more");
    peer.close(1000);
    assert_eq!(program.end().code(), Some(0));
    assert_eq!(content(&file), before + "; more");
}

#[cfg(target_os = "linux")]
#[test]
fn it_exits_with_1_if_the_file_cannot_be_written() {
    let ended = receive(Path::new("/dev/full"), &[], |mut peer, _| {
        peer.send_part(TEXT, b"one", false);
        assert_eq!(peer.expect_close(1001), "");
        peer.send_part(0, b"two", true);
        peer.send(CLOSE, b"\x03\xe9");
    });
    ended.expect(1, "cannot write to /dev/full: No space left on device");
}
