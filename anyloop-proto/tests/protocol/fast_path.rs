//! `Receiver::next_message`, an optional fast path before `next`.

use std::sync::Arc;

use anyloop_proto::{Config, Connection, Event, Input, Instant, Message, Role};

const NOW: Instant = Instant::from_nanos(0);

/// A message or control frame in one frame, masked with the key 0.
fn masked(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x80 | opcode];
    match payload.len() {
        len @ ..=125 => bytes.push(0x80 | len as u8),
        len => {
            bytes.push(0x80 | 126);
            bytes.extend((len as u16).to_be_bytes());
        }
    }
    bytes.extend([0; 4]);
    bytes.extend(payload);
    bytes
}

/// The events, output and statistics that result from `bytes`, received `chunk` bytes at a time. With
/// `fast`, `next_message` is called before `next`.
fn outcome(role: Role, config: &Config, bytes: &[u8], chunk: usize, fast: bool) -> String {
    let mut connection = Connection::new(role, Arc::new(config.clone()), NOW);
    let (mut outcome, mut out) = (Vec::new(), Vec::new());
    for chunk in bytes.chunks(chunk) {
        let Connection { receiver, sender } = &mut connection;
        let mut chunk = chunk.to_vec();
        let mut input = Input::new(&mut chunk);
        loop {
            if fast {
                let left = input.len();
                match receiver.next_message(sender, &mut input, NOW, &mut out) {
                    Ok(Some(message)) => {
                        outcome.push(format!("{:?}", Event::Message(message)));
                        continue;
                    }
                    Ok(None) => assert_eq!(input.len(), left, "next_message lost input"),
                    Err(failure) => {
                        outcome.push(format!("{failure:?}"));
                        break;
                    }
                }
            }
            match receiver.next(sender, &mut input, NOW, &mut out) {
                Ok(Some(event)) => outcome.push(format!("{event:?}")),
                Ok(None) => break,
                Err(failure) => {
                    outcome.push(format!("{failure:?}"));
                    break;
                }
            }
        }
    }
    format!("{outcome:?} {out:?} {:?} {:?}", connection.statistics(), connection.state())
}

#[test]
fn the_fast_path_gives_the_same_outcome_at_any_chunking() {
    let message = |opcode, len: usize| masked(opcode, &vec![b'x'; len]);
    let small: Vec<u8> = [message(1, 5), message(2, 0), message(2, 64), message(1, 125)].concat();
    let streams = [
        [small.clone(), message(9, 3), message(1, 126), message(2, 300), small.clone()].concat(),
        [small.clone(), masked(1, b"\xff"), small.clone()].concat(), // not UTF-8
        [small.clone(), message(2, 301), small.clone()].concat(),    // over the size limit
        [small.clone(), message(3, 1), small.clone()].concat(),      // reserved opcode
        [small.clone(), b"\x82\x05hello".to_vec(), small.clone()].concat(), // unmasked
        [small.clone(), masked(8, b"\x03\xe8"), small.clone()].concat(), // a Close
        [b"\x01\x81\0\0\0\0a\x80\x81\0\0\0\0b".to_vec(), small].concat(), // in two frames
    ];
    for streaming in [false, true] {
        let mut config = Config::default();
        (config.max_message_size, config.streaming) = (300, streaming);
        for (i, bytes) in streams.iter().enumerate() {
            for chunk in (1..40).chain([bytes.len()]) {
                let of = |fast| outcome(Role::Server, &config, bytes, chunk, fast);
                assert_eq!(of(true), of(false), "stream {i}, {chunk} bytes at a time");
            }
        }
    }
}

#[test]
fn a_receiver_is_on_the_fast_path_between_messages_only() {
    let mut connection = Connection::new(Role::Server, Arc::default(), NOW);
    let Connection { receiver, sender } = &mut connection;
    let mut out = Vec::new();
    let mut frame = masked(2, b"1234");
    assert!(receiver.is_on_fast_path());
    let (first, second) = frame.split_at_mut(8);
    let next = receiver.next(sender, &mut Input::new(first), NOW, &mut out);
    assert!(matches!(next, Ok(None)) && !receiver.is_on_fast_path());
    let mut input = Input::new(second);
    let next = receiver.next(sender, &mut input, NOW, &mut out);
    assert!(matches!(next, Ok(Some(Event::Message(Message::Binary(b"1234"))))));
    assert!(
        !receiver.is_on_fast_path(),
        "a receiver that keeps a lent message is not on the fast path"
    );
    assert!(matches!(receiver.next(sender, &mut input, NOW, &mut out), Ok(None)));
    assert!(receiver.is_on_fast_path());
}
