//! `anyloop connect` at a terminal.

use std::process::Command;

use crate::peer::{CLOSE, Host, PING, PONG, TEXT};
use crate::program::{PROGRAM, Server, anyloop};
use crate::screen::Screen;

/// The command at a terminal that supports control sequences and is its controlling terminal.
fn connect(url: &str) -> Command {
    let mut command = Command::new("setsid");
    command.args(["--ctty", PROGRAM, "connect", url]).env("TERM", "xterm");
    command
}

#[test]
fn it_prompts_and_does_not_let_the_peer_control_the_terminal() {
    let server = Server::start(&[]);
    let (mut screen, program) = Screen::start(connect(&server.url("/")));
    screen.expect(&["> "]);
    // The terminal may echo input before or after the prompt, so each step waits for the previous one.
    screen.type_in(b"hello\n");
    screen.expect(&["> hello", "hello", "> "]);
    screen.type_in(b"bell \x16\x07\n"); // after Ctrl-V, the terminal takes Ctrl-G as a character
    screen.expect(&["bell \\u{7}", "> "]);
    screen.type_in(&[4]); // Ctrl-D
    let ended = program.end();
    assert_eq!(ended.code(), Some(0), "{}", ended.stderr);
    assert!(ended.stderr.starts_with("connected"), "{}", ended.stderr);
}

#[test]
fn a_partly_typed_line_is_redrawn_when_messages_arrive() {
    let server = Host::new();
    let (mut screen, program) = Screen::start(connect(&server.url()));
    let (mut peer, _) = server.open();
    screen.expect(&["> "]);
    screen.type_in(b"par");
    screen.expect(&["> par"]);
    peer.send(TEXT, b"news");
    screen.expect(&["news", "> par"]);
    // More messages than fit on the screen, and a message with several rows.
    for n in 0..10 {
        peer.send(TEXT, format!("news {n}").as_bytes());
    }
    screen.expect(&["news 8", "news 9", "> par"]);
    peer.send(TEXT, &[b"two\n".to_vec(), vec![b'x'; 85]].concat());
    screen.expect(&["two", &"x".repeat(80), "xxxxx", "> par"]);
    screen.type_in(b"ts\x7fial"); // \x7f deletes the character before it
    screen.expect(&["> partial"]);
    screen.type_in(b"\n");
    peer.expect(TEXT, b"partial");
    peer.close(1000);
    assert_eq!(program.end().code(), Some(0));
}

#[test]
fn ctrl_c_closes_the_connection() {
    let server = Host::new();
    let (mut screen, program) = Screen::start(connect(&server.url()));
    let (mut peer, _) = server.open();
    screen.expect(&["> "]);
    peer.send(PING, b"open?");
    peer.expect(PONG, b"open?");
    screen.type_in(b"not sent");
    screen.expect(&["> not sent"]);
    screen.type_in(&[3]); // Ctrl-C
    assert_eq!(peer.expect_close(1001), "");
    peer.send(CLOSE, b"\x03\xe9");
    let ended = program.end();
    assert_eq!(ended.code(), Some(0), "{}", ended.stderr);
    assert_eq!(
        ended.stderr.lines().count(),
        1,
        "standard error has the greeting only: {}",
        ended.stderr
    );
}

#[test]
fn a_terminal_without_control_sequences_gets_none() {
    let server = Host::new();
    let mut command = anyloop(["connect", &server.url()]);
    command.env("TERM", "dumb");
    let (mut screen, program) = Screen::start(command);
    let (mut peer, _) = server.open();
    screen.expect(&["> "]);
    screen.type_in(b"par");
    screen.expect(&["> par"]);
    peer.send(TEXT, b"\x1b[2Jnews");
    screen.expect(&["> par", "\\u{1b}[2Jnews", "> "]);
    screen.type_in(b"tial\n");
    peer.expect(TEXT, b"partial");
    peer.close(1000);
    assert_eq!(program.end().code(), Some(0));
}
