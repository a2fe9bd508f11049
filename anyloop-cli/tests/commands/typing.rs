//! `anyloop connect` at a terminal.

use std::fs::{self, File};
use std::io::Read;
use std::net::TcpListener;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::sync::mpsc::{self, TryRecvError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyloop_testkit::wait::{eventually, let_time_pass};
use rustix::process::Signal;

use crate::peer::{BINARY, CLOSE, Host, PING, PONG, Peer, TEXT};
use crate::program::{Folder, PROGRAM, Running, Server, anyloop};
use crate::screen::{Screen, is_timed};

/// The command at a terminal that supports control sequences and is its controlling terminal.
fn connect(url: &str, options: &[&str]) -> Command {
    let mut command = Command::new("setsid");
    command.args(["--ctty", PROGRAM, "connect", url, "--color", "never"]).args(options);
    command.env("TERM", "xterm");
    command
}

/// The command at a terminal, connected to a peer, with its prompt on the screen.
fn typing() -> (Screen, Running, Peer) {
    let server = Host::new();
    let (mut screen, program) = Screen::start(connect(&server.url(), &["--no-history"]));
    let (peer, _) = server.open();
    screen.expect(&[GREETING, "> "]);
    (screen, program, peer)
}

const GREETING: &str = "* connected; /help lists the commands, Ctrl-D closes";

const CTRL_C: &[u8] = &[3];
const CTRL_D: &[u8] = &[4];
const UP: &[u8] = b"\x1b[A";
const LEFT: &[u8] = b"\x1b[D";
const HOME: &[u8] = b"\x1b[H";

#[test]
fn messages_have_a_time_a_direction_a_kind_and_a_size() {
    let server = Server::start(&["--no-deflate"]);
    let (mut screen, program) = Screen::start(connect(&server.url("/"), &["--no-history"]));
    screen.expect(&[GREETING, "> "]);
    screen.type_in(b"hello\r");
    screen.expect(&["> text 5 B: hello", "< text 5 B: hello", "> "]);
    screen.type_in("κόσμε 🌍\r".as_bytes());
    screen.expect(&["> text 15 B: κόσμε 🌍", "< text 15 B: κόσμε 🌍", "> "]);
    screen.type_in(b"\r"); // is no message
    screen.expect(&["< text 15 B: κόσμε 🌍", "> ", "> "]);
    screen.type_in(b"again\r");
    screen.expect(&["> ", "> text 5 B: again", "< text 5 B: again", "> "]);
    screen.type_in(CTRL_D);
    let ended = program.end();
    assert_eq!((ended.code(), &*ended.stderr), (Some(0), ""));
}

#[test]
fn events_of_the_connection_have_a_time() {
    let (mut screen, program, listener) =
        reconnecting(|url| connect(url, &["--no-history", "--reconnect"]));
    let expect_time = |before: &str| {
        let time = before.len().checked_sub(13).and_then(|at| before.get(at..));
        assert!(time.is_some_and(is_timed), "{before:?}");
    };
    let (mut peer, _) = Host::over(listener).open();
    expect_time(&screen.written_until("* connected; "));
    screen.type_in(b"lost?\r");
    peer.expect(TEXT, b"lost?");
    drop(peer);
    let before = screen.written_until("* trying again in ");
    expect_time(&before);
    let (before, _) = before.split_once("* nothing has arrived since ").expect("it was said");
    expect_time(before);
    screen.written_until("> "); // the next line is being read
    screen.type_in(CTRL_D);
    program.end().expect(1, "closed while there was no connection");
}

#[test]
fn a_line_is_sent_from_wherever_the_cursor_is() {
    let (mut screen, program, mut peer) = typing();
    for keys in [LEFT, HOME, &LEFT.repeat(4), b"e\xcc\x81\x1b[D"] {
        screen.type_in(&[b"hello there", keys, b"\r"].concat());
        let (_, sent) = peer.receive().expect("a message");
        let sent = String::from_utf8(sent).expect("the text is UTF-8");
        screen.expect(&[&format!("> text {} B: {sent}", sent.len()), "> "]);
    }
    peer.close(1000);
    assert_eq!(program.end().code(), Some(0));
}

/// The command at a terminal with these options, connected to a peer.
fn typing_with(options: &[&str]) -> (Screen, Running, Peer) {
    let server = Host::new();
    let options = [&["--no-history"], options].concat();
    let (screen, program) = Screen::start(connect(&server.url(), &options));
    let (peer, _) = server.open();
    (screen, program, peer)
}

#[test]
fn a_person_types_until_the_last_message_of_exit_after() {
    for (options, count) in [(&["--once"][..], 1), (&["--exit-after", "2"], 2)] {
        let (mut screen, program, mut peer) = typing_with(options);
        screen.expect(&[GREETING, "> "]);
        for number in 1..=count {
            screen.type_in(b"question\r");
            peer.expect(TEXT, b"question");
            peer.send(TEXT, format!("answer {number}").as_bytes());
            screen.expect_written(&format!("< text 8 B: answer {number}"));
        }
        peer.expect_close(1000);
        peer.send(CLOSE, b"\x03\xe8");
        drop(peer);
        let ended = program.end();
        assert_eq!((ended.code(), &*ended.stderr), (Some(0), ""));
    }
}

#[test]
fn leaving_before_the_last_message_of_exit_after_is_told_by_the_status() {
    let (mut screen, program, mut peer) = typing_with(&["--once"]);
    screen.expect(&[GREETING, "> "]);
    screen.type_in(CTRL_D);
    peer.expect_close(1000);
    peer.send(CLOSE, b"\x03\xe8");
    drop(peer);
    program.end().expect(1, "the connection closed before a message arrived");
}

#[test]
fn nothing_is_typed_where_the_command_line_says_all() {
    let (mut screen, program, mut peer) = typing_with(&["--once", "--text", "question"]);
    peer.expect(TEXT, b"question");
    peer.send(TEXT, b"answer");
    peer.expect_close(1000);
    peer.send(CLOSE, b"\x03\xe8");
    drop(peer);
    assert_eq!(program.end().code(), Some(0));
    assert_eq!(screen.rest(), "answer\r\n");
}

#[test]
fn what_the_library_logs_leaves_the_typed_line() {
    let server = Host::new();
    let mut command = Command::new("sh");
    let program = r#"exec setsid --ctty "$0" connect "$1" --no-history --color never 2>&1"#;
    command.args(["-c", program, PROGRAM, &server.url()]);
    command.env("TERM", "xterm").env("RUST_LOG", "anyloop=debug");
    let (mut screen, program) = Screen::start(command);
    let (mut peer, _) = server.open();
    screen.expect_written("open, subprotocol None");
    screen.type_in(b"par");
    screen.expect(&["> par"]);
    screen.type_in(b"tial\r");
    peer.expect(TEXT, b"partial");
    screen.expect(&["> text 7 B: partial", "> "]);
    screen.type_in(CTRL_D);
    peer.expect_close(1000);
    peer.send(CLOSE, b"\x03\xe8");
    drop(peer);
    screen.expect_written("closed; ");
    assert_eq!(program.end().code(), Some(0));
}

#[test]
fn the_peer_does_not_control_the_terminal() {
    let (mut screen, program, mut peer) = typing();
    peer.send(TEXT, b"bell \x07\x1b[2J");
    peer.send(BINARY, b"\x1b\0");
    screen.expect(&["< text 10 B: bell \\u{7}\\u{1b}[2J", "< binary 2 B: \\x1b\\x00", "> "]);
    peer.send(TEXT, b"two\nlines");
    screen.expect(&["< text 9 B: ", "  two", "  lines", "> "].map(str::trim_end).map(
        |row| match row {
            ">" => "> ",
            row => row,
        },
    ));
    peer.send(TEXT, "a\u{202e}b".as_bytes());
    screen.expect(&["< text 5 B: a\\u{202e}b", "> "]);
    peer.send(CLOSE, &[b"\x03\xe8\x1b[2J", "\u{2066}".as_bytes()].concat());
    peer.expect_close(1000);
    drop(peer);
    screen.expect_written("< close 1000: \\u{1b}[2J\\u{2066}");
    assert_eq!(program.end().code(), Some(0));
}

#[test]
fn a_partly_typed_line_is_redrawn_when_messages_arrive() {
    let (mut screen, program, mut peer) = typing();
    screen.type_in(b"par");
    screen.expect(&["> par"]);
    peer.send(TEXT, b"news");
    screen.expect(&["< text 4 B: news", "> par"]);
    // More messages than fit on the screen.
    for n in 0..10 {
        peer.send(TEXT, format!("news {n}").as_bytes());
    }
    screen.expect(&["< text 6 B: news 8", "< text 6 B: news 9", "> par"]);
    screen.type_in(b"ts\x7fial"); // \x7f deletes the character before it
    screen.expect(&["> partial"]);
    screen.type_in(b"\r");
    peer.expect(TEXT, b"partial");
    screen.expect(&["> text 7 B: partial", "> "]);
    peer.send(TEXT, b"last");
    peer.close(1000);
    assert_eq!(program.end().code(), Some(0));
    screen.expect_written("< close 1000:");
}

#[test]
fn what_arrives_after_the_end_of_typing_is_shown() {
    let (mut screen, program, mut peer) = typing();
    screen.type_in(CTRL_D);
    peer.expect_close(1000);
    peer.send(TEXT, b"still here");
    screen.expect_written("< text 10 B: still here");
    peer.send(CLOSE, b"\x03\xe8");
    drop(peer);
    assert_eq!(program.end().code(), Some(0));
}

#[test]
fn ctrl_c_clears_the_line_and_then_closes() {
    let (mut screen, program, mut peer) = typing();
    screen.type_in(b"not sent");
    screen.expect(&["> not sent"]);
    screen.type_in(CTRL_C);
    screen.expect(&["> "]);
    peer.send(PING, b"open?");
    peer.expect(PONG, b"open?");
    screen.type_in(CTRL_C);
    assert_eq!(peer.expect_close(1000), "");
    peer.send(CLOSE, b"\x03\xe8");
    drop(peer);
    let ended = program.end();
    assert_eq!((ended.code(), &*ended.stderr), (Some(0), ""));
}

#[test]
fn a_second_ctrl_c_ends_it_at_once() {
    let (mut screen, program, mut peer) = typing();
    screen.type_in(CTRL_C);
    peer.expect_close(1000); // and no answer
    while !screen.echoes() {
        thread::yield_now(); // until the terminal makes a signal of Ctrl-C
    }
    screen.type_in(CTRL_C);
    assert_eq!(program.end().status.signal(), Some(2));
}

#[test]
fn a_signal_restores_the_terminal() {
    let (mut screen, program, mut peer) = typing();
    screen.type_in(b"par");
    screen.expect(&["> par"]);
    program.signal(Signal::TERM);
    peer.expect_close(1001);
    peer.send(CLOSE, b"\x03\xe9");
    drop(peer);
    assert_eq!(program.end().code(), Some(0));
    assert!(screen.echoes(), "a shell would have to do without");
}

#[test]
fn a_terminal_that_is_closed_ends_it_with_a_close() {
    let (screen, program, mut peer) = typing();
    drop(screen);
    // The end of what is typed closes with 1000, the signal with 1001: one of them comes first.
    let (opcode, close) = peer.receive().expect("a Close");
    assert_eq!(opcode, CLOSE);
    peer.send(CLOSE, &close);
    drop(peer);
    assert!(program.end().code().is_some(), "no signal has ended it");
}

#[test]
fn commands_are_executed() {
    let (mut screen, program, mut peer) = typing();
    screen.type_in(b"/ping there?\r");
    peer.expect(PING, b"there?");
    peer.send(PONG, b"there?");
    screen.expect_written("< pong 6 B: there? (");
    screen.type_in(b"//slash\r");
    peer.expect(TEXT, b"/slash");
    screen.expect_written("> text 6 B: //slash");
    screen.type_in(b"/nonsense\r");
    screen.expect_written(
        "* there is no command /nonsense: /help lists them, and //TEXT sends /TEXT",
    );

    let folder = Folder::new("typing");
    let path = folder.join("a file");
    fs::write(&path, b"\0\xff").expect("the file can be written");
    // Completion adds the backslash before the space.
    screen.type_in(
        format!("/bin\t{}\t\r", path.to_str().expect("it is UTF-8").trim_end_matches(" file"))
            .as_bytes(),
    );
    peer.expect(BINARY, b"\0\xff");
    screen.expect_written("> binary 2 B: ");
    screen.type_in(b"/binary /no/such/file\r");
    screen.expect_written("* cannot read /no/such/file: ");
    screen.type_in(b"/stats\r");
    screen.expect_written("sent 2 messages with 8 bytes, received 0 messages with 0 bytes");
    screen.type_in(b"/help\r");
    screen.expect_written("* /close [CODE [REASON]] ");
    screen.type_in(b"/close 4000 good bye\r");
    assert_eq!(peer.expect_close(4000), "good bye");
    peer.send(CLOSE, b"\x0f\xa0");
    drop(peer);
    let ended = program.end();
    assert_eq!((ended.code(), &*ended.stderr), (Some(0), ""));
}

/// The command with `--reconnect`, between two connections: it waits for the answer to its second request.
fn reconnecting(command: impl FnOnce(&str) -> Command) -> (Screen, Running, TcpListener) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("the system has a free port");
    let url = format!("ws://{}/", listener.local_addr().expect("the socket has an address"));
    let (mut screen, program) = Screen::start(command(&url));
    let (peer, _) = Host::over(listener.try_clone().expect("there is a descriptor")).open();
    screen.expect(&[GREETING, "> "]);
    drop(peer); // without a Close
    let before = screen.written_until("* trying again in 0.5 s: ");
    let time = before.trim_end().as_bytes().last_chunk::<12>().copied().unwrap_or_default();
    let form = time.map(|c| if c.is_ascii_digit() { b'0' } else { c });
    assert_eq!(&form, b"00:00:00.000", "{before:?}");
    (screen, program, listener)
}

#[test]
fn a_line_without_a_connection_is_not_sent_nor_drawn_as_sent() {
    let options = ["--no-history", "--reconnect", "--handshake-timeout", "0"];
    let (mut screen, program, listener) = reconnecting(|url| connect(url, &options));
    screen.type_in(b"lost\r");
    let refusal = "* not connected: the line was not sent; type it again after \"connected\"";
    screen.expect(&["> lost", refusal, "> "]);
    screen.type_in(b"/ping\r");
    screen.expect(&["> /ping", "* not connected: nothing was sent", "> "]);
    let (mut peer, _) = Host::over(listener).open();
    screen.expect(&[GREETING, "> "]);
    screen.type_in(b"again\r");
    peer.expect(TEXT, b"again"); // and not what was typed before
    screen.expect(&["> text 5 B: again", "> "]);
    peer.close(1000);
    assert_eq!(program.end().code(), Some(0));
}

#[test]
fn a_message_that_may_be_lost_with_its_connection_is_named() {
    let (mut screen, program, mut peer) = typing();
    screen.type_in(b"one\r");
    peer.expect(TEXT, b"one");
    peer.send(TEXT, b"two");
    screen.expect(&["> text 3 B: one", "< text 3 B: two", "> "]);
    drop(peer); // without a Close
    program.end().expect(1, "stream ended without a closing handshake");
    let rest = screen.rest();
    assert!(!rest.contains("may be lost"), "something has arrived since: {rest}");

    let (mut screen, program, mut peer) = typing();
    for message in ["one", "two", "three"] {
        screen.type_in(format!("{message}\r").as_bytes());
        peer.expect(TEXT, message.as_bytes());
        if message == "one" {
            peer.send(PING, b"there?");
            peer.expect(PONG, b"there?");
        }
    }
    drop(peer);
    program.end().expect(1, "stream ended without a closing handshake");
    let words =
        "* nothing has arrived since 2 messages were sent, so they may be lost; the first: two";
    assert_eq!(screen.rest().matches(words).count(), 1);

    let (mut screen, program, mut peer) = typing();
    screen.type_in(b"bye\r");
    peer.expect(TEXT, b"bye");
    peer.close(1000);
    assert_eq!(program.end().code(), Some(0));
    let rest = screen.rest();
    assert!(!rest.contains("may be lost"), "the Close has arrived since: {rest}");
}

/// A pipe that nobody reads holds up the thread that sends.
#[cfg(target_os = "linux")]
#[test]
fn a_message_that_was_not_sent_when_the_connection_ended_is_named() {
    for reconnects in [false, true] {
        let folder = Folder::new("unsent");
        let pipe = folder.join("pipe");
        let made = Command::new("mkfifo").arg(&pipe).status().expect("the system has mkfifo");
        assert!(made.success());
        let path = pipe.to_str().expect("the path is UTF-8").to_string();
        let reader = thread::spawn(move || File::open(pipe).expect("it can be read"));
        let options = ["--no-history", "--output", &path, "--reconnect"];
        let options = if reconnects { &options[..] } else { &options[..3] };
        let server = Host::new();
        let (mut screen, program) = Screen::start(connect(&server.url(), options));
        let mut reader = reader.join().expect("the thread does not panic");
        rustix::pipe::fcntl_setpipe_size(&reader, 4096).expect("the pipe may be that small");
        let (mut peer, _) = server.open();
        screen.expect(&[GREETING, "> "]);
        screen.type_in(b"one\r");
        peer.await_input();
        screen.expect(&["> text 3 B: one", "> "]);
        peer.send_part(BINARY, &[0; 256 * 1024], false);
        eventually("the pipe is full", || {
            rustix::io::ioctl_fionread(&reader).is_ok_and(|bytes| bytes == 4096)
        });
        screen.type_in(b"two\r");
        screen.expect(&["> text 3 B: two", "> "]);
        screen.type_in(b"three\r");
        screen.expect(&["> text 3 B: two", "> text 5 B: three", "> "]);
        drop(peer);
        let drained = thread::spawn(move || reader.read_to_end(&mut Vec::new()));
        let unsent = "* the connection ended before 2 messages were sent; the first: two";
        screen.expect_written(unsent);
        // With a part of a message in a pipe, it does not reconnect.
        assert_eq!(program.end().code(), Some(1));
        drained.join().expect("the thread does not panic").expect("the pipe can be read");
        let rest = screen.rest();
        assert!(!rest.contains("messages were sent"), "it was said before: {rest}");
    }
}

#[test]
fn close_without_a_connection_ends_the_command() {
    let options = ["--no-history", "--reconnect", "--handshake-timeout", "0"];
    let (mut screen, program, listener) = reconnecting(|url| connect(url, &options));
    let mut next = Host::over(listener).accept();
    next.head(); // and no answer
    screen.type_in(b"/close\r");
    program.end().expect(1, "closed while there was no connection");
}

#[test]
fn leaving_before_another_attempt_ends_the_command() {
    for keys in [&b"/close\r"[..], CTRL_C, CTRL_D] {
        let options = ["--no-history", "--reconnect"];
        let (mut screen, program, listener) = reconnecting(|url| connect(url, &options));
        drop(listener); // so that no attempt succeeds
        screen.type_in(keys);
        program.end().expect(1, "closed while there was no connection");
    }
}

#[test]
fn a_line_that_is_typed_before_the_first_connection_is_not_sent() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("the system has a free port");
    let url = format!("ws://{}/", listener.local_addr().expect("the socket has an address"));
    let options = ["--no-history", "--reconnect", "--handshake-timeout", "0"];
    let (mut screen, program) = Screen::start(connect(&url, &options));
    let host = Host::over(listener.try_clone().expect("there is a descriptor"));
    let mut first = host.accept();
    first.head();
    screen.type_in(b"early");
    screen.expect(&["early"]); // the terminal echoes it
    screen.type_in(b"\r");
    screen.expect_written("\n");
    drop(first);
    let (mut peer, _) = Host::over(listener).open();
    screen.expect_written("* what was typed before the connection opened was not sent");
    screen.type_in(b"late\r");
    peer.expect(TEXT, b"late");
    peer.close(1000);
    assert_eq!(program.end().code(), Some(0));
}

#[test]
fn a_line_that_is_too_long_is_not_drawn_as_sent() {
    let server = Host::new();
    let options = ["--no-history", "--max-message", "4"];
    let (mut screen, program) = Screen::start(connect(&server.url(), &options));
    let (mut peer, _) = server.open();
    screen.expect(&[GREETING, "> "]);
    screen.type_in(b"five5\r");
    screen.expect(&["> five5", "* longer than 4 bytes (--max-message): not sent", "> "]);
    screen.type_in(b"four\r");
    peer.expect(TEXT, b"four");
    screen.expect(&["> text 4 B: four", "> "]);
    peer.close(1000);
    assert_eq!(program.end().code(), Some(0));
}

#[test]
fn messages_that_are_written_to_a_file_are_announced_above_the_line() {
    let folder = Folder::new("typing-output");
    let file = folder.join("file");
    let path = file.to_str().expect("the path is UTF-8");
    let server = Host::new();
    let options = ["--no-history", "--output", path];
    let (mut screen, program) = Screen::start(connect(&server.url(), &options));
    let (mut peer, _) = server.open();
    screen.expect(&[GREETING, "> "]);
    screen.type_in(b"par");
    screen.expect(&["> par"]);
    peer.send_part(BINARY, b"\0", false);
    peer.send_part(0, b"\xff", true);
    screen.expect(&[&format!("< binary 2 B: written to {path}"), "> par"]);
    screen.type_in(b"tial\r");
    peer.expect(TEXT, b"partial");
    screen.expect(&["> text 7 B: partial", "> "]);
    screen.type_in(format!("/binary {path}\r").as_bytes());
    screen.expect_written(&format!("* not sent: --output writes to {path}"));
    peer.close(1000);
    assert_eq!(program.end().code(), Some(0));
    assert_eq!(fs::read(&file).expect("the file exists"), b"\0\xff");
}

/// Sends parts of a message in another thread until the sender is dropped. Returns how many bytes that were.
fn send_parts(mut peer: Peer) -> (mpsc::Sender<()>, JoinHandle<(Peer, usize)>) {
    let (sender, ends) = mpsc::channel();
    let sending = thread::spawn(move || {
        let mut sent = 0;
        while ends.try_recv() == Err(TryRecvError::Empty) {
            peer.send_part(if sent == 0 { BINARY } else { 0 }, &[0; 1024], false);
            sent += 1024;
            let_time_pass(Duration::from_millis(20), "the status is drawn once a second");
        }
        (peer, sent)
    });
    (sender, sending)
}

#[test]
fn a_status_above_the_line_shows_how_much_of_a_message_has_arrived() {
    let folder = Folder::new("typing-status");
    let path = folder.join("file");
    let path = path.to_str().expect("the path is UTF-8");
    let server = Host::new();
    let options = ["--no-history", "--output", path];
    let (mut screen, program) = Screen::start(connect(&server.url(), &options));
    let (peer, _) = server.open();
    screen.expect(&[GREETING, "> "]);
    let (mut reader, writer) = peer.split();
    let (sender, sending) = send_parts(writer);
    screen.type_in(b"par");
    screen.expect_row("* receiving ");
    screen.expect_row("> par");
    screen.type_in(b"tial\r");
    reader.expect(TEXT, b"partial");
    screen.expect_row("> text 7 B: partial");
    screen.expect_row("* receiving ");
    screen.type_in(b"ne");
    screen.expect_row("> ne");
    drop(sender);
    let (mut writer, sent) = sending.join().expect("the thread does not panic");
    writer.send_part(0, b"", true);
    writer.send(TEXT, b"short");
    let written = |kind: &str, size: usize| format!("< {kind} {size} B: written to {path}");
    let (binary, text) = (written("binary", sent), written("text", 5));
    screen.expect(&[GREETING, "> text 7 B: partial", &binary, &text, "> ne"]);
    writer.send(CLOSE, b"\x03\xe8");
    reader.expect_close(1000);
    drop((reader, writer));
    assert_eq!(program.end().code(), Some(0));
}

#[test]
fn a_status_does_not_erase_the_list_of_completions() {
    let folder = Folder::new("typing-list");
    let path = folder.join("file");
    let options = ["--output", path.to_str().expect("the path is UTF-8")];
    let (mut screen, program, peer) = typing_with(&options);
    screen.expect(&[GREETING, "> "]);
    let (sender, sending) = send_parts(peer);
    screen.expect_row("* receiving ");
    screen.type_in(b"/\t");
    screen.expect_gone("* receiving ");
    screen.type_in(b"\t");
    screen.expect_row("/ping");
    screen.expect_row("* receiving ");
    assert_eq!((screen.count("/ping"), screen.count("* receiving ")), (1, 1));
    drop(sender);
    let (mut peer, _) = sending.join().expect("the thread does not panic");
    peer.send_part(0, b"", true);
    peer.close(1000);
    assert_eq!(program.end().code(), Some(0));
}

#[test]
fn the_status_is_erased_when_the_connection_or_the_typing_ends() {
    let folder = Folder::new("typing-status-end");
    let path = folder.join("file");
    let path = path.to_str().expect("the path is UTF-8");
    let options = ["--no-history", "--reconnect", "--output", path];
    let (mut screen, program, listener) = reconnecting(|url| connect(url, &options));
    let open = || Host::over(listener.try_clone().expect("there is a descriptor")).open().0;
    let peer = open();
    screen.expect(&[GREETING, "> "]);
    let (sender, sending) = send_parts(peer);
    screen.expect_row("* receiving ");
    drop(sender);
    drop(sending.join().expect("the thread does not panic")); // without a Close
    screen.expect_row("* trying again in 1 s: ");
    screen.expect_gone("* receiving ");

    let (mut reader, writer) = open().split();
    screen.expect(&[GREETING, "> "]);
    let (sender, sending) = send_parts(writer);
    screen.expect_row("* receiving ");
    screen.type_in(CTRL_D);
    reader.expect_close(1000);
    screen.expect_gone("* receiving ");
    drop(sender);
    let (mut writer, sent) = sending.join().expect("the thread does not panic");
    writer.send(CLOSE, b"\x03\xe8");
    drop((reader, writer));
    program.end().expect(1, &format!("file ends with the first {sent} bytes of a message"));
}

#[test]
fn a_pasted_text_is_one_message() {
    let (mut screen, program, mut peer) = typing();
    let text = (0..500).map(|n| format!("line {n}")).collect::<Vec<_>>().join("\n");
    screen.drain();
    screen.paste(&text);
    screen.type_in(b"\r");
    peer.expect(TEXT, text.as_bytes());
    // A terminal that does not mark what is pasted: each line is a message.
    for line in text.lines() {
        screen.type_in(format!("{line}\r").as_bytes());
    }
    for line in text.lines() {
        peer.expect(TEXT, line.as_bytes());
    }
    peer.close(1000);
    assert_eq!(program.end().code(), Some(0));
}

#[test]
fn the_history_is_kept() {
    let folder = Folder::new("history");
    for (keys, sent) in
        [(&b"one\rtwo\r"[..], &["one", "two"][..]), (&[UP, UP, b"\r"].concat(), &["one"])]
    {
        let server = Host::new();
        let mut command = connect(&server.url(), &[]);
        command.env("XDG_STATE_HOME", folder.join("state"));
        let (mut screen, program) = Screen::start(command);
        let (mut peer, _) = server.open();
        screen.expect(&[GREETING, "> "]);
        screen.type_in(keys);
        for message in sent {
            peer.expect(TEXT, message.as_bytes());
        }
        peer.close(1000);
        assert_eq!(program.end().code(), Some(0));
    }
    let kept = fs::read_to_string(folder.join("state/anyloop/history"));
    assert_eq!(kept.expect("the history was written"), "one\ntwo\none\n");
}

#[test]
fn a_terminal_without_control_sequences_gets_none() {
    let server = Host::new();
    let mut command = anyloop(["connect", &server.url()]);
    command.env("TERM", "dumb");
    let (mut screen, program) = Screen::start(command);
    let (mut peer, _) = server.open();
    screen.expect(&[GREETING, "> "]);
    screen.type_in(b"par");
    screen.expect(&["> par"]);
    peer.send(TEXT, b"\x1b[2Jnews");
    screen.expect(&["> par", "< text 8 B: \\u{1b}[2Jnews", "> "]);
    screen.type_in(b"tial\n");
    peer.expect(TEXT, b"partial");
    peer.close(1000);
    assert_eq!(program.end().code(), Some(0));
}
