//! Which deadlines a transport is told.

use std::time::Duration;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn subject<const LAZY: bool>() -> Subject<LAZY> {
    Subject::<LAZY>::changed(Recorder::new(), |config| {
        config.idle_timeout = Some(10 * SECOND);
        config.ping_interval = None;
    })
    .opened()
}

#[test]
fn every_move_is_told() {
    let mut subject = subject::<false>();
    subject.memory.deadlines.clear();
    for _ in 0..3 {
        subject.advance(SECOND);
        subject.feed(text(b'a'));
    }
    let told = [11, 12, 13].map(|seconds| Some(Instant::default() + SECOND + seconds * SECOND));
    assert_eq!(subject.memory.deadlines, told);
}

#[test]
fn a_lazy_transport_is_told_of_earlier_ones_only() {
    let mut subject = subject::<true>();
    let begin = subject.now;
    // That of the handshake is earlier than what has followed it.
    assert_eq!(subject.memory.deadlines, [Some(begin + 5 * SECOND)]);
    subject.memory.deadlines.clear();
    for _ in 0..3 {
        subject.advance(SECOND);
        subject.feed(text(b'a'));
    }
    assert!(subject.memory.deadlines.is_empty());
    assert_eq!(subject.session.deadline(), Some(begin + 5 * SECOND));
    subject.now = begin + 5 * SECOND;
    subject.timeout(); // nothing is due; the next is told
    assert_eq!(subject.memory.deadlines, [Some(begin + 13 * SECOND)]);

    // A timer is earlier, and its end is not told.
    let set = |_: &mut Recorder, context: &mut Context<'_, Recorder>| {
        let timer = context.set_timer(SECOND, |_, _| ());
        assert!(context.cancel_timer(timer));
        context.set_timer(2 * SECOND, |recorder, _| recorder.log.push("timer"));
    };
    subject.handle().post(set).unwrap();
    subject.drain();
    assert_eq!(subject.memory.deadlines[1..], [Some(begin + 7 * SECOND)]);
    subject.now = begin + 7 * SECOND;
    subject.feed(text(b'b'));
    assert_eq!(subject.memory.deadlines.len(), 2);
    subject.log();
    subject.timeout();
    assert_eq!(subject.log(), ["timer"]);
    assert_eq!(subject.memory.deadlines[2..], [Some(begin + 17 * SECOND)]);
}

/// The next ping may be due before the pong of the last would have been.
#[test]
fn a_pong_brings_a_deadline_forward() {
    let mut subject = Subject::<true>::changed(Recorder::new(), |config| {
        config.ping_interval = Some(SECOND);
        config.pong_timeout = Some(60 * SECOND);
    })
    .opened();
    subject.advance(20 * SECOND);
    subject.timeout();
    let ping = std::mem::take(&mut subject.memory.written);
    assert_eq!(ping[..2], [0x89, 4]);
    assert_eq!(subject.session.deadline(), Some(subject.now + 60 * SECOND));
    subject.feed([&[0x8a, 0x84, 0, 0, 0, 0], &ping[2..]].concat());
    assert_eq!(subject.session.deadline(), Some(subject.now + SECOND));
}

#[test]
fn a_close_is_earlier_than_a_late_ping() {
    let mut subject = Subject::<true>::changed(Recorder::new(), |config| {
        config.ping_interval = Some(1000 * SECOND);
    })
    .opened();
    subject.now = subject.session.deadline().unwrap();
    subject.timeout(); // that of the handshake
    assert!(subject.session.deadline().unwrap() > subject.now + 900 * SECOND);
    subject.handle().close(anyloop_proto::CloseCode::NORMAL, "").unwrap();
    subject.drain();
    assert!(subject.session.deadline().unwrap() < subject.now + 100 * SECOND);
}
