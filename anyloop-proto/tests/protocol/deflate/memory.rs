//! What the heap holds: an idle connection only its history, a thread a few contexts.

use anyloop_proto::deflate::Deflate;
use anyloop_proto::extension::Contexts;
use anyloop_proto::{BufferPool, Connection, Event, Input, Prepared, Role};
use anyloop_testkit::frames::{Frame, stream};

use super::peer::Peer;
use super::{agreed, compressed, fragments, modes, noise};
use crate::heap::{Usage, measure};
use crate::subject::{Reading, Subject};

/// Lets `client` send a message, and `server` send it back.
fn echo(client: &mut Subject, server: &mut Subject, message: &[u8]) {
    client.send(message).unwrap();
    let bytes = std::mem::take(&mut client.out.buffer);
    server.echo = true;
    server.feed(&bytes);
    let bytes = std::mem::take(&mut server.out.buffer);
    client.feed(&bytes);
    assert_eq!((client.seen().len(), server.seen().len()), (1, 1));
    (client.events, server.events) = (Vec::new(), Vec::new());
}

/// The bytes that `subject` holds, without those of its thread.
fn held(subject: Subject) -> i64 {
    let Subject { connection, .. } = subject;
    let ((), usage) = measure(|| drop(connection));
    -usage.kept
}

#[test]
fn an_idle_connection_holds_no_more_than_its_history() {
    const FIXED: i64 = 800;
    let small = Deflate::pooled();
    for (deflate, most) in [
        (small, 2 * 1024),
        (small.history(100), 100 + 1024),
        (small.history(8192).window_bits(15), 8192 + 1024),
        (small.history(usize::MAX), 4096 - 262 + 1024),
        (small.receive_window_bits(12), 1024 + 4096),
        (Deflate::no_takeover(), 0),
    ] {
        for role in [Role::Client, Role::Server] {
            let (mut client, mut server) = agreed(deflate, deflate, |_| ());
            for i in 0..20 {
                echo(&mut client, &mut server, &noise(i * 200, i as u64));
            }
            let subject = if role == Role::Client { client } else { server };
            let held = held(subject);
            assert!(held <= most + FIXED, "{held} bytes, not {most}: {deflate:?}");
        }
    }
    // Before the first message there is no history.
    for deflate in modes() {
        let (client, _) = agreed(deflate, deflate, |_| ());
        let held = held(client);
        assert!(held < FIXED, "{held} bytes: {deflate:?}");
    }
}

/// Peers agree on what the receiving side holds: 1 KiB by default, nothing where the window cannot be limited.
#[test]
fn a_server_holds_nothing_for_clients_that_do_not_limit_their_window() {
    let (mut server, mut peer) = (super::server(Deflate::pooled(), ""), Peer::new());
    server.receive(&[compressed(peer.deflate(&noise(20_000, 1)))]);
    assert!(held(server) < 800);
}

#[test]
fn messages_are_echoed_without_an_allocation() {
    for deflate in modes() {
        let (mut client, mut server) = agreed(deflate, deflate, |_| ());
        let message = noise(1000, 2).repeat(3);
        let Subject { connection: Connection { receiver, sender }, reading, now, out, .. } =
            &mut server;
        let Reading::Pooled(pool) = reading else { panic!("a pool") };
        for round in 0..8 {
            client.send(&message[..]).unwrap();
            let mut bytes = std::mem::take(&mut client.out.buffer);
            out.buffer.clear();
            let (echoed, usage) = measure(|| {
                let mut echoed = 0;
                for part in bytes.chunks_mut(700) {
                    let mut input = Input::with_pool(part, pool);
                    while let Some(event) = receiver.next(sender, &mut input, *now, out).unwrap() {
                        if let Event::Message(message) = event {
                            sender.send(message, out).unwrap();
                            echoed += 1;
                        }
                    }
                }
                echoed
            });
            assert_eq!(echoed, 1);
            // The histories grow up to their size at first.
            assert!(round < 5 || usage == Usage::default(), "in round {round}: {deflate:?}");
        }
    }
}

/// A prepared message is compressed once; sending it further times copies it, or does not even that.
#[test]
fn prepared_messages_are_sent_without_an_allocation() {
    let prepared = Prepared::new(&noise(1000, 3));
    let mut server = super::server(Deflate::pooled(), "client_max_window_bits");
    for round in 0..5 {
        server.out.buffer.clear();
        let Subject { connection, out, .. } = &mut server;
        let ((), usage) = measure(|| connection.sender.send_prepared(&prepared, out).unwrap());
        assert!(round < 2 || usage == Usage::default(), "in round {round}: {usage:?}");
    }
}

/// The codecs of a thread serve all of its connections.
#[test]
fn contexts_are_shared_and_freed() {
    let mut pool = BufferPool::new(1 << 20);
    let mut contexts = Contexts::new();
    for i in 0..100 {
        let (mut client, mut server) = agreed(Deflate::pooled(), Deflate::pooled(), |_| ());
        server.reading = Reading::Pooled(pool);
        client.out.contexts = contexts;
        client.send(&noise(300, i)[..]).unwrap();
        server.receive(&client.sent());
        assert_eq!(server.seen().len(), 1);
        contexts = client.out.contexts;
        let Reading::Pooled(used) = server.reading else { panic!("a pool") };
        pool = used;
        let held = (contexts.held(), pool.contexts().held());
        assert!((100_000..400_000).contains(&held.0) && (1..100_000).contains(&held.1), "{held:?}");
    }
    for _ in 0..2 {
        contexts.trim();
        pool.trim();
    }
    assert_eq!((contexts.held(), pool.contexts().held()), (0, 0));
}

/// A peer's message in fragments waits in memory of the thread. Many of them at once do not displace the decompressor.
#[test]
fn messages_that_wait_do_not_displace_a_decompressor() {
    let mut pool = BufferPool::new(1 << 20);
    let mut receive = |server: &mut Subject, frames: &[Frame]| {
        let Subject { connection: Connection { receiver, sender }, now, out, .. } = server;
        let mut bytes = stream(frames, Role::Client);
        let mut input = Input::with_pool(&mut bytes, &mut pool);
        let (messages, usage) = measure(|| {
            let mut messages = 0;
            while receiver.next(sender, &mut input, *now, out).unwrap().is_some() {
                messages += 1;
            }
            messages
        });
        (messages, usage.peak)
    };
    let mut servers: Vec<_> = (0..50).map(|_| super::receiver(10, |_| ())).collect();
    for round in 0..3 {
        let fragments = fragments(&compressed(Peer::new().deflate(&noise(100, round))), 60);
        for server in &mut servers {
            assert_eq!(receive(server, &fragments[..1]).0, 0);
        }
        for server in &mut servers {
            assert_eq!(receive(server, &fragments[1..]).0, 1);
        }
        let (messages, peak) = receive(&mut servers[0], &fragments);
        assert_eq!(messages, 1);
        assert!(peak < 10_000, "a decompressor of {peak} bytes is created in round {round}");
    }
}
