//! Peers that read at once are not slow: what their connections have to send is sent before more is received.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{channel, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread;

use anyloop::net::Server;
use anyloop::prelude::*;
use anyloop_testkit::frames::{self, binary};
use anyloop_testkit::peer::Peer;
use anyloop_testkit::wait::eventually;
use anyloop_testkit::watchdog::watchdog;

const MESSAGE: usize = 100_000;
/// Twice what may wait for a reader. The kernel's buffers have room for so much.
const BATCH: usize = 10;
const BATCHES: usize = 30;
const CAP: usize = 700_000;

/// Publishers send batches of messages, which the server passes on to each reader. The next batch follows when all have
/// received the one before. Returns how many messages were refused.
fn refused(publishers: usize, readers: usize) -> usize {
    let _watchdog = watchdog();
    let config = ServerConfig::new(OriginPolicy::Any).max_send_buffer(CAP);
    let mut server = Server::new(config).unwrap();
    let refused = Arc::new(AtomicUsize::new(0));
    let counter = refused.clone();
    let open: Arc<Mutex<Vec<Handle<Handlers>>>> = Arc::default();
    let readers_of_message = open.clone();
    server.on_open(move |context| {
        let mut open = open.lock().unwrap();
        if open.len() < readers {
            open.push(context.handle()); // the first to come
        }
    });
    server.on_message(move |message, _| {
        for reader in &*readers_of_message.lock().unwrap() {
            if reader.send(message).is_err() {
                counter.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    let address = server.listen("127.0.0.1:0").unwrap();
    server.start_accept().unwrap();
    let handle = server.handle();
    let running = thread::spawn(move || server.run());

    let (received, receives) = channel();
    let readers: Vec<_> = (0..readers)
        .map(|_| {
            let mut peer = Peer::open(address);
            let received = received.clone();
            thread::spawn(move || {
                while let Some(frame) = peer.try_receive() {
                    if frame.opcode == frames::CLOSE {
                        return;
                    }
                    received.send(()).unwrap();
                }
            })
        })
        .collect();
    eventually("the readers are open", || handle.counters().opened == readers.len() as u64);
    let publishers: Vec<_> = (0..publishers)
        .map(|_| {
            let peer = Peer::open(address);
            let (begin, begins) = sync_channel(1);
            let thread = thread::spawn(move || {
                while begins.recv().is_ok() {
                    let batch = vec![binary(vec![7; MESSAGE]); BATCH / publishers];
                    peer.send(&batch);
                }
            });
            (begin, thread)
        })
        .collect();
    for _ in 0..BATCHES {
        publishers.iter().for_each(|(begin, _)| begin.send(()).unwrap());
        let expected = BATCH / publishers.len() * publishers.len() * readers.len();
        for _ in 0..expected {
            if refused.load(Ordering::Relaxed) > 0 {
                break; // what was refused does not come
            }
            receives.recv().unwrap();
        }
    }
    handle.shut_down_within(std::time::Duration::ZERO);
    drop(publishers);
    running.join().unwrap();
    refused.load(Ordering::Relaxed)
}

#[test]
fn pitfall_two_readers_of_one_publisher_miss_nothing() {
    assert_eq!(refused(1, 2), 0);
}

#[test]
fn pitfall_a_reader_of_many_publishers_misses_nothing() {
    assert_eq!(refused(5, 1), 0);
}
