//! Large messages, many messages, and slow peers.

use std::io::Read;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::thread;

use anyloop::net::Server;
use anyloop::prelude::*;
use anyloop::proto::Role;
use anyloop_testkit::peer::Peer;
use anyloop_testkit::wait::{PATIENCE, eventually, let_time_pass};
use anyloop_testkit::watchdog::watchdog;
use anyloop_testkit::{frames, requests};

use crate::record::Log;
use crate::setup::{
    Running, echo, millis, new_path, peer_with_receive_buffer, recording_client,
    recording_client_with, run_until, server, server_config, server_with, shared, url,
};

/// Pseudo-random bytes, so that a misplaced part is found.
fn pattern(len: usize, seed: u32) -> Vec<u8> {
    let mut state = seed;
    (0..len)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        })
        .collect()
}

/// A message that is larger than all socket buffers, echoed to a peer that reads slowly.
#[test]
fn twenty_mebibytes_to_a_slow_reader() {
    const LEN: usize = 20 << 20;
    let _watchdog = watchdog();
    let log = Log::default();
    let logs = log.clone();
    let config =
        server_config().max_message_size(LEN as u64).ping_interval(None).max_send_buffer(2 * LEN);
    let mut server = server_with(config);
    server.on_socket_init(|socket| socket.set_send_buffer_size(64 << 10));
    server.on_message(move |message, context| {
        let large = message.as_bytes().len() > 100;
        let sent = context.send(message).unwrap();
        logs.push(match large {
            true => "large".to_string(),
            false => format!("{sent:?} {}", context.buffered_amount() > 1 << 20),
        });
    });
    let drained = log.clone();
    server.on_drained(move |context| {
        drained.push(format!("drained {}", context.buffered_amount() <= 64 << 10));
    });
    let running = Running::start(server);
    let mut peer = peer_with_receive_buffer(running.address, 128 << 10);
    peer.shake_hands();
    let message = pattern(LEN, 1);
    let mut writing = peer.writer();
    let bytes = frames::stream(
        &[frames::binary(&message), frames::text("small"), frames::text("again")],
        peer.role,
    );
    let writer = thread::spawn(move || std::io::Write::write_all(&mut writing, &bytes).unwrap());
    writer.join().unwrap();
    // All messages have arrived, and the peer has read nothing.
    let mut seen = Vec::new();
    eventually("it is answered", || {
        seen.extend(log.take());
        seen.len() >= 3
    });
    assert_eq!(seen, ["large", "Backpressure true", "Backpressure true"]);
    let handle = running.server.connections().pop().unwrap();
    eventually("the batch is over", || handle.buffered_amount() > 10 << 20);
    assert_eq!(handle.send("from elsewhere"), Ok(Sent::Backpressure));
    let mut received = vec![0; 10 + LEN];
    for part in received.chunks_mut(256 << 10) {
        peer.read_exact(part).unwrap();
        let_time_pass(millis(1), "the server is to write on between two reads");
    }
    assert_eq!(received[..10], frames::binary(&message).bytes(Role::Server)[..10]);
    assert!(received[10..] == message[..], "the payload differs");
    let mut texts = [peer.receive(), peer.receive(), peer.receive()];
    texts.sort_by_key(|frame| frame.payload.len());
    assert_eq!(texts.map(|frame| frame.payload.len()), [5, 5, 14]);
    let mut seen = Vec::new();
    eventually("it is drained", || {
        seen.extend(log.take());
        !seen.is_empty()
    });
    assert_eq!(seen, ["drained true"]);
    peer.echo("quick again");
}

/// The pong to a ping behind a large message is late. The peer is alive: it reads on.
#[test]
fn pitfall_a_slow_reader_of_a_large_message_is_not_cut_off_for_a_late_pong() {
    const LEN: usize = 600 << 10;
    let _watchdog = watchdog();
    let config = server_config().ping_interval(millis(100)).pong_timeout(millis(700));
    let mut server = server_with(config);
    server.on_socket_init(|socket| socket.set_send_buffer_size(LEN));
    server.on_open(|context| _ = context.send(&[0; LEN][..]));
    server.on_message(|message, context| _ = context.send(message));
    let running = Running::start(server);
    let mut peer = peer_with_receive_buffer(running.address, 8 << 10);
    peer.shake_hands();
    let mut received = vec![0; 10 + LEN];
    for part in received.chunks_mut(30 << 10) {
        peer.read_exact(part).unwrap();
        let_time_pass(millis(150), "it reads for much longer than a pong may take");
    }
    let ping = peer.receive();
    assert_eq!(ping.opcode, 0x9);
    peer.send(&[frames::pong(&ping.payload)]);
    peer.echo("still here");
}

/// The peer reads: what has no room waits for the last piece of the handler's message.
#[test]
fn pitfall_a_message_of_the_handler_in_pieces_does_not_make_the_peer_slow() {
    let _watchdog = watchdog();
    let config = server_config().max_send_buffer(16).overflow(Overflow::Close);
    let mut server = server_with(config);
    let (opened, handles) = channel();
    server.on_open(move |context| opened.send(context.handle()).unwrap());
    server.on_message(|message, context| match message.as_text() {
        Some("begin") => {
            context.begin_uncompressed(Kind::Text).unwrap();
            let _ = context.piece(b"a", false).unwrap();
        }
        _ => _ = context.piece(b"b", true).unwrap(),
    });
    let running = Running::start(server);
    let mut peer = Peer::open(running.address);
    let handle = handles.recv_timeout(PATIENCE).unwrap();
    peer.send(&[frames::text("begin")]);
    assert_eq!(peer.receive(), frames::text("a").more());
    assert_eq!(handle.send("0123456789"), Ok(Sent::Buffered));
    let full = handle.send("0123456789");
    assert!(matches!(full, Err(SendError::SendBufferFull { closes: false, .. })), "{full:?}");
    peer.send(&[frames::text("end")]);
    let received = [peer.receive(), peer.receive()];
    assert_eq!(received, [frames::continuation("b"), frames::text("0123456789")]);
    peer.close();
}

/// The handle is the first of its connection, so that its shared state begins during the message.
#[test]
fn a_handle_that_is_made_during_a_message_in_pieces_does_not_make_the_peer_slow() {
    let _watchdog = watchdog();
    let config = server_config().max_send_buffer(16).overflow(Overflow::Close);
    let mut server = server_with(config);
    let (sent, results) = channel();
    server.on_message(move |_, context| {
        context.begin(Kind::Text).unwrap();
        let _ = context.piece(b"a", false).unwrap();
        let handle = context.handle();
        for _ in 0..2 {
            sent.send(handle.send("0123456789")).unwrap();
        }
        let _ = context.piece(b"b", true).unwrap();
    });
    let running = Running::start(server);
    let mut peer = Peer::open(running.address);
    peer.send(&[frames::text("go")]);
    let received = [peer.receive(), peer.receive(), peer.receive()];
    let message = [frames::text("a").more(), frames::continuation("b")];
    assert_eq!(received, [&message[..], &[frames::text("0123456789")]].concat()[..]);
    assert!(results.recv_timeout(PATIENCE).unwrap().is_ok());
    let full = results.recv_timeout(PATIENCE).unwrap();
    assert!(matches!(full, Err(SendError::SendBufferFull { closes: false, .. })), "{full:?}");
    peer.close();
}

/// Large messages between our client and our server, both ways at a time.
#[test]
fn twenty_mebibytes_each_way() {
    const LEN: usize = 20 << 20;
    let _watchdog = watchdog();
    let config = server_config().max_message_size(LEN as u64).max_send_buffer(2 * LEN);
    let mut server = server_with(config);
    let theirs = Arc::new(pattern(LEN, 2));
    let expected = Arc::new(pattern(LEN, 3));
    let (sends, checks) = (theirs.clone(), expected.clone());
    server.on_open(move |context| _ = context.send(&sends[..]).unwrap());
    server.on_message(move |message, context| {
        assert!(message.as_bytes() == &checks[..]);
        let _ = context.send("received").unwrap();
    });
    let running = Running::start(server);
    let log = Log::default();
    let config = ClientConfig::new().max_message_size(LEN as u64);
    let mut client = recording_client_with(&log, config);
    let sends = expected.clone();
    client.on_open(move |context| _ = context.send(&sends[..]).unwrap());
    let (logs, checks, count) = (log.clone(), theirs.clone(), AtomicUsize::new(0));
    client.on_message(move |message, context| {
        logs.message(message);
        if message.as_bytes().len() > 100 {
            assert!(message.as_bytes() == &checks[..]);
        }
        if count.fetch_add(1, Ordering::Relaxed) == 1 {
            context.close(CloseCode::NORMAL, "").unwrap();
        }
    });
    client.connect(running.url().as_str()).unwrap();
    client.run();
    let mut lines = log.take();
    assert_eq!(lines.pop().unwrap(), "close clean by local: 1000/1000");
    lines.retain(|line| line != "drained");
    lines.sort();
    assert_eq!(lines, [format!("binary of {LEN}"), "text received".to_string()]);
}

/// Buffers that hold a fraction of a message make short reads and short writes at both ends.
#[test]
fn a_mebibyte_through_small_buffers() {
    // With less, TCP waits for a window of a whole segment, which takes long.
    through_small_buffers(128 << 10, false);
}

#[test]
fn a_mebibyte_through_tiny_buffers() {
    through_small_buffers(4 << 10, true);
}

fn through_small_buffers(size: usize, unix: bool) {
    let _watchdog = watchdog();
    let small = move |socket: &socket2::SockRef<'_>| {
        socket.set_send_buffer_size(size)?;
        socket.set_recv_buffer_size(size)
    };
    let mut server = echo();
    server.on_socket_init(small);
    let path = new_path();
    if unix {
        server.listen_unix(&path).unwrap();
    }
    let running = Running::start(server);
    let log = Log::default();
    let mut client = recording_client(&log);
    client.on_socket_init(small);
    let lengths = [1 << 20, (1 << 20) - 1, 65_536, 65_535, 126, 125, 1, 0, 3 << 19];
    let sends = move |number: usize| pattern(lengths[number], number as u32);
    client.on_open(move |context| _ = context.send(&sends(0)[..]).unwrap());
    let (next, logs) = (AtomicUsize::new(0), log.clone());
    client.on_message(move |message, context| {
        let number = next.fetch_add(1, Ordering::Relaxed);
        assert!(message.as_bytes() == &sends(number)[..], "message {number}");
        logs.push(format!("{number}"));
        match number + 1 < lengths.len() {
            true => _ = context.send(&sends(number + 1)[..]).unwrap(),
            false => context.close(CloseCode::NORMAL, "").unwrap(),
        }
    });
    let request = client.request(running.url().as_str()).unwrap();
    match unix {
        true => request.to_unix(&path).connect().unwrap(),
        false => request.connect().unwrap(),
    };
    client.run();
    let mut lines = log.take();
    lines.retain(|line| line != "drained");
    assert_eq!(lines.len(), lengths.len() + 1, "{lines:?}");
}

/// Large messages, which are written by reference, and small ones, which are copied, keep their order.
#[test]
fn sizes_are_mixed() {
    let _watchdog = watchdog();
    let running = Running::start(echo());
    let mut peer = Peer::open(running.address);
    let frames: Vec<_> = (0..60)
        .map(|number| frames::binary(pattern([3, 40_000, 700, 100_000, 0, 200][number % 6], 9)))
        .collect();
    let mut writing = peer.writer();
    let bytes = frames::stream(&frames, peer.role);
    let writer = thread::spawn(move || std::io::Write::write_all(&mut writing, &bytes).unwrap());
    for frame in frames {
        assert!(peer.receive() == frame);
    }
    writer.join().unwrap();
}

/// A thousand messages in one write, each of which is answered.
#[test]
fn many_messages_at_once() {
    let _watchdog = watchdog();
    let running = Running::start(echo());
    let mut peer = Peer::open(running.address);
    let frames: Vec<_> = (0..1000).map(|number| frames::text(format!("{number}"))).collect();
    peer.send(&frames);
    for frame in frames {
        assert_eq!(peer.receive(), frame);
    }
}

/// A peer that pings and does not read gets the newest pong. The others do not use memory.
#[test]
fn pongs_do_not_pile_up() {
    let _watchdog = watchdog();
    let mut server = echo();
    server.on_socket_init(|socket| socket.set_send_buffer_size(4 << 10));
    let pinged = Arc::new(AtomicUsize::new(0));
    let counts = pinged.clone();
    server.on_ping(move |_, _| {
        counts.fetch_add(1, Ordering::Relaxed);
        true
    });
    let running = Running::start(server);
    let mut peer = peer_with_receive_buffer(running.address, 4 << 10);
    peer.shake_hands();
    let payload = [7; 120];
    let bytes: Vec<_> = (0..20_000_u32)
        .flat_map(|number| {
            let mut payload = payload;
            payload[..4].copy_from_slice(&number.to_be_bytes());
            frames::ping(payload).bytes(Role::Client)
        })
        .collect();
    peer.write(&bytes);
    eventually("all have arrived", || pinged.load(Ordering::Relaxed) == 20_000);
    let handle = running.server.connections().pop().unwrap();
    // The pongs of one batch, and one more.
    assert!(handle.buffered_amount() < 200_000, "{}", handle.buffered_amount());
    let (mut last, mut count) = (None, 0);
    while last != Some(19_999) {
        let pong = peer.receive();
        assert_eq!(pong.opcode, 0xa);
        let number = u32::from_be_bytes(pong.payload[..4].try_into().unwrap());
        assert!(last.is_none_or(|last| last < number));
        (last, count) = (Some(number), count + 1);
    }
    assert!(count < 20_000, "{count}");
    peer.echo("quick again");
}

/// While reading is paused the sender must wait. All data arrives when it is resumed.
#[test]
fn a_pause_makes_the_sender_wait() {
    let _watchdog = watchdog();
    let received = Arc::new(AtomicUsize::new(0));
    let counts = received.clone();
    let mut server = server();
    server.on_socket_init(|socket| socket.set_recv_buffer_size(256 << 10));
    server.on_open(|context| context.pause_reading());
    server.on_message(move |message, _| {
        counts.fetch_add(message.as_bytes().len(), Ordering::Relaxed);
    });
    let running = Running::start(server);
    let mut peer = Peer::open(running.address);
    let mut writing = peer.writer();
    let bytes: Vec<_> =
        (0..200).flat_map(|_| frames::binary([1; 50_000]).bytes(peer.role)).collect();
    let written = Arc::new(AtomicUsize::new(0));
    let writes = written.clone();
    let writer = thread::spawn(move || {
        for part in bytes.chunks(10_000) {
            std::io::Write::write_all(&mut writing, part).unwrap();
            writes.fetch_add(part.len(), Ordering::Relaxed);
        }
    });
    let mut before = usize::MAX;
    eventually("the sender waits", || {
        let_time_pass(millis(100), "a sender that can goes on writing in this time");
        let now = written.load(Ordering::Relaxed);
        std::mem::replace(&mut before, now) == now
    });
    assert!(written.load(Ordering::Relaxed) < 9_000_000, "it is not all in memory");
    assert_eq!(received.load(Ordering::Relaxed), 0);
    let handle = running.server.connections().pop().unwrap();
    handle.resume_reading().unwrap();
    eventually("all have arrived", || received.load(Ordering::Relaxed) == 10_000_000);
    writer.join().unwrap();
    peer.send(&[frames::close(1000, "")]);
    assert_eq!(peer.receive(), frames::close(1000, ""));
}

/// Data and the end of the stream come with one readiness event.
#[test]
fn data_before_the_end_of_the_stream_is_received() {
    let _watchdog = watchdog();
    let received = shared();
    let receives = received.clone();
    let mut server = server();
    let closes = received.clone();
    server.on_message(move |message, _| receives.lock().unwrap().push(message.as_bytes().len()));
    server.on_close(move |_, _| closes.lock().unwrap().push(usize::MAX));
    let address = server.listen("127.0.0.1:0").unwrap();
    server.start_accept().unwrap();
    for len in [0, 10, 70_000, 600_000, 1_500_000] {
        // Everything has arrived before the server reads.
        let mut peer = Peer::connect(address);
        let (sender, written) = channel();
        let writer = thread::spawn(move || {
            peer.write(requests::REQUEST);
            peer.send(&[frames::binary(vec![1; len])]);
            peer.finish();
            sender.send(()).unwrap();
            peer.read_to_end();
        });
        if len < 100_000 {
            written.recv_timeout(PATIENCE).unwrap(); // there is room for all of it
        }
        let event_loop = server.event_loop();
        run_until(event_loop, "it is closed", || received.lock().unwrap().len() == 2);
        assert_eq!(std::mem::take(&mut *received.lock().unwrap()), [len, usize::MAX]);
        writer.join().unwrap();
    }
}

/// If a socket is closed while its peer still sends, the system resets the connection, and data that the
/// peer has not read is lost.
#[test]
fn pitfall_data_behind_a_close_does_not_reset_the_connection() {
    let _watchdog = watchdog();
    let mut server = server();
    server.on_message(|_, context| {
        for number in 0..20 {
            let _ = context.send(&vec![number; 100_000][..]).unwrap();
        }
    });
    let running = Running::start(server);
    let mut peer = Peer::open(running.address);
    peer.send(&[frames::text("go"), frames::close(1000, "")]);
    for number in 0..20 {
        peer.send(&[frames::pong("nobody asked")]);
        assert_eq!(peer.receive(), frames::binary(vec![number; 100_000]));
    }
    peer.send(&[frames::pong("and once more")]);
    assert_eq!(peer.receive(), frames::close(1000, ""));
    assert_eq!(peer.try_receive(), None);
}

#[test]
fn many_connections_talk_at_once() {
    let _watchdog = watchdog();
    let running = Running::start(echo());
    let log = Log::default();
    let mut client = recording_client(&log);
    client.on_open(|context| {
        for number in 0..20 {
            let _ = context.send(format!("{number}").as_str()).unwrap();
        }
    });
    client.on_message(|message, context| {
        if message.as_bytes() == b"19" {
            context.close(CloseCode::NORMAL, "").unwrap();
        }
    });
    for _ in 0..100 {
        client.connect(url(running.address).as_str()).unwrap();
    }
    client.run();
    let counters = client.counters();
    assert_eq!((counters.closed, counters.messages_received), (100, 2000));
}

/// The socket accepts a part of a reply, or nothing. Every reply arrives whole, and in order.
#[test]
fn replies_that_fill_the_socket_come_in_order_and_whole() {
    const TOTAL: usize = 2 << 20;
    let _watchdog = watchdog();
    for len in [100, 1000, 20_000] {
        let mut server = server();
        server.on_socket_init(|socket| socket.set_send_buffer_size(8 << 10));
        server.on_message(|message, context| {
            if let Sent::Backpressure = context.send(message).unwrap() {
                context.pause_reading();
            }
        });
        server.on_drained(|context| context.resume_reading());
        let running = Running::start(server);
        let mut peer = peer_with_receive_buffer(running.address, 8 << 10);
        peer.shake_hands();
        let bytes = pattern(TOTAL / len * len, len as u32);
        let messages: Vec<_> = bytes.chunks(len).map(frames::binary).collect();
        let sent = frames::stream(&messages, peer.role);
        let mut writing = peer.writer();
        let writer = thread::spawn(move || std::io::Write::write_all(&mut writing, &sent).unwrap());
        for (i, payload) in bytes.chunks(len).enumerate() {
            assert!(peer.receive() == frames::binary(payload), "message {i} of {len} bytes");
        }
        writer.join().unwrap();
    }
}

/// A server that answers messages, and calls `before_answer` with the socket of the connection.
fn shared_socket(
    log: &Log,
    before_answer: impl Fn(&socket2::Socket) + Send + Sync + 'static,
) -> Server {
    let ours = Arc::new(Mutex::new(None));
    let mut server = server();
    let its = ours.clone();
    server.on_socket_init(move |socket| {
        *its.lock().unwrap() = Some(socket.try_clone()?);
        Ok(())
    });
    let it = log.clone();
    server.on_message(move |_, context| {
        before_answer(ours.lock().unwrap().as_ref().unwrap());
        it.push(format!("{:?}", context.send("answer").unwrap()));
    });
    let it = log.clone();
    server.on_close(move |ending, context| {
        let error = context.error().map(ToString::to_string);
        it.push(format!("clean {}, {}", ending.clean, error.unwrap_or_default()));
    });
    server
}

#[test]
fn an_answer_for_which_the_socket_has_no_room_at_all_waits_for_it() {
    let _watchdog = watchdog();
    let log = Log::default();
    let filled = Arc::new(AtomicUsize::new(0));
    let count = filled.clone();
    let server = shared_socket(&log, move |mut socket| {
        while let Ok(n) = std::io::Write::write(&mut socket, &[b'.'; 1000]) {
            count.fetch_add(n, Ordering::SeqCst);
        }
    });
    let running = Running::start(server);
    let mut peer = Peer::open(running.address);
    peer.send(&[frames::text("go")]);
    let mut lines = Vec::new();
    eventually("it is answered", || {
        lines.extend(log.take());
        lines.len() == 1
    });
    let mut filling = vec![0; filled.load(Ordering::SeqCst)];
    assert!(filling.len() > 1000);
    peer.read_exact(&mut filling).unwrap();
    assert_eq!(peer.receive(), frames::text("answer"));
    peer.close();
    eventually("it is closed", || {
        lines.extend(log.take());
        lines.len() == 2
    });
    assert_eq!(lines, ["Sent", "clean true, "]);
}

#[test]
fn an_answer_that_the_socket_refuses_fails_the_connection_with_what_it_was_refused_for() {
    let _watchdog = watchdog();
    let log = Log::default();
    let server = shared_socket(&log, |socket| {
        socket.shutdown(std::net::Shutdown::Write).unwrap();
    });
    let running = Running::start(server);
    let mut peer = Peer::open(running.address);
    peer.send(&[frames::text("go")]);
    let mut lines = Vec::new();
    eventually("it is closed", || {
        lines.extend(log.take());
        lines.len() == 2
    });
    let broken = std::io::Error::from_raw_os_error(libc::EPIPE).to_string();
    assert_eq!(lines, ["Sent".to_string(), format!("clean false, {broken}")]);
    assert_eq!(peer.try_receive(), None);
}
