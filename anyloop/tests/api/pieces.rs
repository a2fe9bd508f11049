//! Messages in pieces from several threads at a time.

use std::sync::mpsc::{Receiver, channel};
use std::thread;

use anyloop::net::{Client, Server};
use anyloop::prelude::*;

const MESSAGES: usize = 50;
const PIECES: usize = 20;

/// A server, and a client that sends what it receives to the channel; the loop of both; and the server's handle.
fn pair(config: ServerConfig) -> (EventLoop, Handle<Handlers>, Receiver<String>, (Server, Client)) {
    let event_loop = EventLoop::new().unwrap();
    let mut server = Server::on(&event_loop, config);
    let (opened, handle) = channel();
    server.on_open(move |context| opened.send(context.handle()).unwrap());
    let address = server.listen("127.0.0.1:0").unwrap();
    server.start_accept().unwrap();
    let mut client = Client::on(&event_loop, ClientConfig::new());
    let (received, messages) = channel();
    client.on_message(move |message, _| {
        received.send(message.as_text().unwrap().to_string()).unwrap();
    });
    client.connect(format!("ws://{address}/")).unwrap();
    let handle = loop {
        event_loop.run_one();
        if let Ok(handle) = handle.try_recv() {
            break handle;
        }
    };
    (event_loop, handle, messages, (server, client))
}

#[test]
fn messages_of_several_threads_arrive_whole_and_in_order() {
    let (event_loop, handle, messages, (server, _client)) =
        pair(ServerConfig::new(OriginPolicy::Any));
    let writers = ["a", "b"].map(|name| {
        let handle = handle.clone();
        thread::spawn(move || {
            for number in 0..MESSAGES {
                let mut writer = handle.begin(Kind::Text);
                for piece in 1..=PIECES {
                    writer.piece(format!("{name}{number} "), piece == PIECES).unwrap();
                }
            }
        })
    });
    let sender = thread::spawn(move || {
        for number in 0..MESSAGES {
            handle.send(format!("c{number} ").repeat(PIECES)).unwrap();
        }
    });
    let mut received = Vec::new();
    while received.len() < 3 * MESSAGES {
        event_loop.run_one();
        assert_eq!(server.counters().closed, 0);
        received.extend(messages.try_iter());
    }
    for name in ["a", "b", "c"] {
        let of_one = received.iter().filter(|message| message.starts_with(name));
        let expected = (0..MESSAGES).map(|number| format!("{name}{number} ").repeat(PIECES));
        assert!(of_one.cloned().eq(expected), "{received:?}");
    }
    for thread in writers.into_iter().chain([sender]) {
        thread.join().unwrap();
    }
}

/// The send buffer has room for a few pieces, so the thread waits for the completion of the one before the last. Pieces
/// that are complete count for it until their batch ends.
#[test]
fn completions_pace_a_thread() {
    let config = ServerConfig::new(OriginPolicy::Any).max_send_buffer(8 << 10);
    let (event_loop, handle, messages, (server, _client)) = pair(config);
    let writer = thread::spawn(move || {
        let mut writer = handle.begin(Kind::Text);
        let (sender, taken) = channel();
        for piece in 1..=1000 {
            let sender = sender.clone();
            let done = move |result| _ = sender.send(result); // nobody waits for the last
            writer.piece_then("x".repeat(1 << 10), piece == 1000, done).unwrap();
            if piece > 1 {
                taken.recv().unwrap().unwrap();
            }
        }
    });
    let message = loop {
        event_loop.run_one();
        assert_eq!(server.counters().closed, 0);
        if let Ok(message) = messages.try_recv() {
            break message;
        }
    };
    assert_eq!(message.len(), 1000 << 10);
    writer.join().unwrap();
}
