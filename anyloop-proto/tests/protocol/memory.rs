//! Allocations of a connection: none while it is idle.

use std::sync::Arc;

use anyloop_proto::{BufferPool, Config, Connection, Event, Failure, Input, Instant, Role};
use anyloop_testkit::frames::{Frame, binary, continuation, other, ping, pong, read, stream, text};

use crate::heap::{Usage, measure};
use crate::subject::{config, seconds};

/// The size of a read of the transport.
const READ: usize = 16 * 1024;

const ROLES: [Role; 2] = [Role::Client, Role::Server];

/// A connection whose output buffer is allocated in advance.
struct Warm {
    connection: Connection,
    now: Instant,
    out: Vec<u8>,
    pool: BufferPool,
}

impl Warm {
    fn new(role: Role, config: &Arc<Config>) -> Self {
        let now = Instant::from_nanos(0);
        let connection = Connection::new(role, config.clone(), now);
        Self { connection, now, out: Vec::with_capacity(1 << 20), pool: BufferPool::new(1 << 20) }
    }

    /// Receives `bytes`, at most `chunk` at a time, and sends the messages back.
    fn echo(&mut self, bytes: &mut [u8], chunk: usize, pooled: bool) -> Result<usize, Failure> {
        let Self { connection: Connection { receiver, sender }, now, out, pool } = self;
        let mut messages = 0;
        for part in bytes.chunks_mut(chunk) {
            let mut input = if pooled { Input::with_pool(part, pool) } else { Input::new(part) };
            while let Some(event) = receiver.next(sender, &mut input, *now, out)? {
                if let Event::Message(message) = event {
                    messages += 1;
                    sender.send(message, out).expect("the connection is open");
                }
            }
        }
        Ok(messages)
    }
}

#[test]
fn a_connection_is_small() {
    let size = size_of::<Connection>();
    println!("size_of::<Connection>() = {size}");
    assert!(size <= 96, "{size} bytes");
    assert_eq!(size_of::<Failure>(), 32);
}

#[test]
fn an_idle_connection_has_no_allocations() {
    let traffic: [(&str, Vec<Frame>); 5] = [
        ("nothing", vec![]),
        ("small messages", vec![text("a"), binary([0; 100]), binary([0; 5000]), text("")]),
        (
            "fragments",
            vec![text("a").more(), ping("b"), continuation("c").more(), continuation("d")],
        ),
        ("a large message", vec![binary([0; 100_000])]),
        ("pings and pongs", vec![ping("a"), pong("b"), ping([0; 125])]),
    ];
    for role in ROLES {
        let config = config(|_| ());
        for (name, frames) in &traffic {
            for chunk in [1, 7, 4096, usize::MAX] {
                let mut bytes = stream(frames, other(role));
                let mut out = Vec::with_capacity(1 << 20);
                let now = Instant::from_nanos(0);
                let (connection, usage) = measure(|| {
                    let mut connection = Connection::new(role, config.clone(), now);
                    let Connection { receiver, sender } = &mut connection;
                    for part in bytes.chunks_mut(chunk) {
                        let mut input = Input::new(part);
                        while let Some(event) =
                            receiver.next(sender, &mut input, now, &mut out).unwrap()
                        {
                            if let Event::Message(message) = event {
                                sender.send(message, &mut out).unwrap();
                            }
                        }
                    }
                    connection
                });
                assert_eq!(usage.kept, 0, "after {name} in chunks of {chunk}, {role:?}");
                drop(connection);
            }
        }
    }
}

/// Keep-alive allocates nothing, and the memory of a deferred pong is freed when it is sent.
#[test]
fn keep_alive_keeps_no_allocation() {
    struct Blocked(Vec<u8>, bool);

    impl anyloop_proto::Output for Blocked {
        fn buffer(&mut self) -> &mut Vec<u8> {
            &mut self.0
        }

        fn is_blocked(&self) -> bool {
            self.1
        }
    }

    for role in ROLES {
        let config = config(|_| ());
        let mut out = Blocked(Vec::with_capacity(1000), false);
        let mut now = Instant::from_nanos(0);
        let mut ping = ping("x").bytes(other(role));
        let ((), usage) = measure(|| {
            let mut connection = Connection::new(role, config.clone(), now);
            now = now + seconds(20);
            while connection.handle_timeout(now, &mut out).unwrap().is_some() {}
            out.1 = true;
            let Connection { receiver, sender } = &mut connection;
            let mut input = Input::new(&mut ping);
            while receiver.next(sender, &mut input, now, &mut out).unwrap().is_some() {}
            out.1 = false;
            connection.handle_writable(now, &mut out);
            std::mem::forget(connection); // `kept` then counts what it still owns
        });
        assert_eq!(usage.kept, 0, "{role:?}");
        assert_eq!(read(&out.0, role).0.len(), 2, "a ping and a pong are sent");
    }
}

#[test]
fn whole_messages_are_echoed_without_an_allocation() {
    for role in ROLES {
        let mut warm = Warm::new(role, &config(|_| ()));
        let frames = [
            text("small"),
            binary([7; 125]),
            binary([7; 126]),
            text([b'x'; 4000]),
            ping("p"),
            binary([7; 70_000]), // in one read, with a 64-bit length
        ];
        let bytes = stream(&frames, other(role));
        for _ in 0..100 {
            let mut bytes = bytes.clone();
            let (messages, usage) = measure(|| warm.echo(&mut bytes, usize::MAX, false));
            assert_eq!(messages, Ok(5));
            assert_eq!(usage, Usage::default());
            warm.out.clear();
        }
    }
}

#[test]
fn large_messages_in_parts_are_echoed_without_an_allocation_from_a_filled_pool() {
    for role in ROLES {
        let mut warm = Warm::new(role, &config(|_| ()));
        let frames = [
            text([b'x'; 200_000]),
            binary([7; 100_000]).more(),
            ping("between"),
            continuation([7; 100_000]),
        ];
        let bytes = stream(&frames, other(role));
        for round in 0..5 {
            let mut bytes = bytes.clone();
            let (messages, usage) = measure(|| warm.echo(&mut bytes, READ, true));
            assert_eq!(messages, Ok(2));
            if round > 0 {
                assert_eq!(usage, Usage::default(), "in round {round}");
            }
            warm.out.clear();
        }
        assert!(warm.pool.held() > 0);
    }
}

#[test]
fn large_messages_in_place_allocate_nothing_with_a_filled_pool() {
    for role in ROLES {
        let mut warm = Warm::new(role, &config(|_| ()));
        let bytes = stream(&[binary([7; 300_000])], other(role));
        for round in 0..5 {
            let mut bytes = bytes.clone();
            let (first, mut rest) = bytes.split_at_mut(READ);
            let (lent, usage) = measure(|| {
                warm.echo(first, usize::MAX, true).unwrap();
                let mut lent = 0;
                while let Some(memory) = warm.connection.receiver.receive_buffer() {
                    let n = memory.len().min(rest.len());
                    memory[..n].copy_from_slice(&rest[..n]);
                    warm.connection.receiver.filled(n);
                    rest = &mut rest[n..];
                    warm.echo(&mut [0; 0], 1, true).unwrap();
                    let Warm { connection: Connection { receiver, sender }, pool, now, out } =
                        &mut warm;
                    let mut input = Input::with_pool(&mut [], pool);
                    while receiver.next(sender, &mut input, *now, out).unwrap().is_some() {}
                    lent += n;
                }
                warm.echo(rest, usize::MAX, true).unwrap();
                lent
            });
            assert!(lent > 250_000, "only {lent} bytes were received in place");
            if round > 0 {
                assert_eq!(usage, Usage::default(), "in round {round}");
            }
            assert_eq!(warm.connection.statistics().messages_received, round + 1);
            warm.out.clear();
        }
    }
}
