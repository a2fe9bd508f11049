//! Input that is kept until it can be taken.

use super::*;

#[test]
fn a_pause_keeps_the_input_after_it() {
    let mut subject = Subject::open();
    subject.feed(texts(b"aPb"));
    assert_eq!(subject.log(), ["a", "P"]);
    assert!(subject.driver.has_unread() && !subject.driver.wants_resume());
    subject.feed(texts(b"c"));
    subject.resume(); // finds nothing to do
    assert!(subject.log().is_empty());
    subject.eof(); // reported after the unread input
    assert!(!subject.driver.is_closed());

    subject.handle().resume_reading().unwrap();
    subject.wake();
    assert!(subject.driver.wants_resume());
    subject.resume();
    assert_eq!(subject.log(), ["b", "c", "close"]);
    assert!(subject.driver.is_closed());
}

#[test]
fn an_error_does_not_wait_for_a_pause_to_end() {
    let mut subject = Subject::open();
    subject.feed(texts(b"Pa"));
    let Subject { driver, memory, buffers, now, .. } = &mut subject;
    driver.handle_error(memory, buffers, TransportError::Reset, *now);
    assert_eq!(subject.log(), ["P", "close"]);
}

#[test]
fn input_after_the_close_is_dropped() {
    let mut subject = Subject::open();
    subject.memory.window = 1; // so that the Close cannot be written
    subject.allow(1);
    subject.feed([&texts(b"ab"), CLOSE, b"garbage"].concat());
    subject.allow(1);
    subject.resume();
    assert_eq!(subject.log(), ["a", "b"]);
    assert!(subject.driver.has_unread());
    subject.allow(1);
    subject.resume();
    assert!(subject.driver.discards_input() && !subject.driver.has_unread());
    subject.feed(b"more garbage");
    assert!(!subject.driver.has_unread());
}

/// Each step moves a cursor, and nothing else.
#[test]
fn unread_input_is_not_moved_by_each_step() {
    let mut subject = Subject::open();
    let message = |number: u16| {
        let [high, low] = number.to_be_bytes();
        [0x82, 0x82, 0, 0, 0, 0, high, low]
    };
    subject.allow(0);
    subject.feed((0..1000).flat_map(message).collect::<Vec<_>>());
    let position = |subject: &Subject| subject.driver.unread_position().expect("input is unread");
    let (begin, _) = position(&subject);
    for step in 1..1000 {
        subject.allow(1);
        subject.resume();
        assert_eq!(position(&subject), (begin, 8 * step));
    }
    subject.resume();
    assert!(subject.driver.has_unread());
    subject.allow(1);
    subject.resume();
    assert!(!subject.driver.has_unread());
    assert_eq!(subject.log(), vec!["2 bytes"; 1000]);
}

/// One message is taken while two arrive: taken bytes are freed, but not at each step.
#[test]
fn taken_input_is_freed_while_more_arrives() {
    let mut subject = Subject::open();
    let mut moves = 0;
    let mut sent = Vec::new();
    let mut at = 0;
    for step in 0..2000_u32 {
        subject.allow(1);
        let bytes = if step < 1000 { [step as u8 | 0x80, !step as u8 | 0x80] } else { [0x80; 2] };
        let frames: Vec<u8> =
            bytes.iter().flat_map(|&byte| [0x82, 0x81, 0, 0, 0, 0, byte]).collect();
        match step {
            0..1000 => {
                sent.extend(bytes.map(|byte| char::from(byte).to_string()));
                subject.feed(frames);
            }
            _ => subject.resume(),
        }
        if let Some((_, cursor)) = subject.driver.unread_position() {
            moves += u32::from(cursor < at);
            at = cursor;
            assert!(at <= 2 * 7 * 1000 + 14);
        }
    }
    assert_eq!(subject.log(), sent);
    assert!(moves < 20, "moved {moves} times");
}

#[test]
fn a_payload_in_the_receive_buffer_is_delivered_without_further_input() {
    let mut subject = Subject::open();
    let payload = [7; 20_000];
    let head = [&[0x82, 0xfe, 0x4e, 0x20, 0, 0, 0, 0][..], &payload[..10_000]].concat();
    subject.feed(head);
    let mut left = &payload[10_000..];
    while let Some(buffer) = subject.driver.receive_buffer() {
        let n = buffer.len().min(left.len());
        buffer[..n].copy_from_slice(&left[..n]);
        subject.driver.filled(n);
        left = &left[n..];
        if left.is_empty() {
            subject.allow(0);
        }
        subject.feed([]);
        if left.is_empty() {
            break;
        }
    }
    assert!(left.is_empty() && subject.driver.wants_resume());
    assert_eq!(subject.the_rest_one_by_one(), ["20000 bytes"]);
}
