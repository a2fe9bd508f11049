//! The deadlines of a driver.

use std::time::Duration;

use anyloop_proto::Input;

use super::*;
use crate::stream::{Progress, StreamProtocol as _, WriteGuard};

const SECOND: Duration = Duration::from_secs(1);

/// Passes input to the protocol, as the fast path of a loop does.
fn receive(subject: &mut Subject, bytes: &[u8]) -> Progress {
    let Subject { driver, memory, buffers, now, .. } = subject;
    let Buffers { cork, pool, budget, .. } = buffers;
    let mut bytes = bytes.to_vec();
    let mut input = Input::with_pool(&mut bytes, pool);
    let mut out = WriteGuard::new(cork, &mut driver.queued);
    let progress = driver.protocol.receive(&mut input, &mut out.buffer(memory), budget, *now);
    out.buffer(memory).flush();
    progress
}

#[test]
fn messages_move_the_idle_timeout() {
    let mut subject = Subject::with_config(
        Recorder::new(),
        config().idle_timeout(10 * SECOND).ping_interval(None),
    )
    .opened();
    for _ in 0..3 {
        subject.advance(SECOND);
        subject.feed(text(b'a'));
        assert_eq!(subject.driver.next_timeout(), Some(subject.now + 10 * SECOND));
    }
}

/// So a driver that knows an earlier deadline need not ask again after a message.
#[test]
fn a_message_moves_deadlines_to_later_times_only() {
    let mut subject = Subject::open();
    let before = subject.driver.next_timeout().unwrap();
    subject.advance(SECOND);
    assert_eq!(receive(&mut subject, &text(b'a')), Progress::SameWants);
    assert!(subject.driver.next_timeout().unwrap() > before);
}

#[test]
fn a_timer_is_a_change() {
    let mut subject = Subject::open();
    subject.handle();
    subject.wake();
    assert_eq!(receive(&mut subject, &text(b'T')), Progress::WantsChanged);
    assert_eq!(subject.driver.next_timeout(), Some(subject.now + SECOND));
}

/// The next ping may be due before the timeout of the last pong.
#[test]
fn a_pong_may_make_the_deadline_earlier() {
    let config = config().ping_interval(SECOND).pong_timeout(60 * SECOND);
    let mut subject = Subject::with_config(Recorder::new(), config).opened();
    subject.advance(20 * SECOND);
    subject.timeout();
    let ping = std::mem::take(&mut subject.memory.written);
    assert_eq!(ping[..2], [0x89, 4]);
    assert_eq!(subject.driver.next_timeout(), Some(subject.now + 60 * SECOND));
    let pong = [&[0x8a, 0x84, 0, 0, 0, 0], &ping[2..]].concat();
    assert_eq!(receive(&mut subject, &pong), Progress::WantsChanged);
    assert_eq!(subject.driver.next_timeout(), Some(subject.now + SECOND));
}

#[test]
fn a_close_is_earlier_than_a_late_ping() {
    let mut subject =
        Subject::with_config(Recorder::new(), config().ping_interval(1000 * SECOND)).opened();
    assert!(subject.driver.next_timeout().unwrap() > subject.now + 900 * SECOND);
    subject.handle().close(anyloop_proto::CloseCode::NORMAL, "").unwrap();
    subject.wake();
    assert!(subject.driver.next_timeout().unwrap() < subject.now + 100 * SECOND);
}
