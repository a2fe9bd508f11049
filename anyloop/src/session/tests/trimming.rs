//! Memory of messages that arrive in parts.

use std::time::Duration;

use super::Subject;

const SECOND: Duration = Duration::from_secs(1);

/// Receives a message in two parts of `size` bytes each.
fn receive(subject: &mut Subject, size: u16) {
    for first in [0x02, 0x80] {
        let head = [first, 0x80 | 126, size.to_be_bytes()[0], size.to_be_bytes()[1], 0, 0, 0, 0];
        subject.feed([&head[..], &vec![7; size.into()]].concat());
    }
}

fn held(subject: &Subject) -> usize {
    subject.buffers.pool.held()
}

#[test]
fn memory_that_was_unused_for_a_second_is_freed() {
    let mut subject = Subject::open();
    receive(&mut subject, 50_000);
    let kept = held(&subject);
    assert!(kept >= 100_000);
    subject.buffers.trim(subject.now);
    let next = subject.now + SECOND;
    assert_eq!(subject.buffers.next_trim(), Some(next));
    subject.now = subject.now + SECOND / 2;
    subject.buffers.trim(subject.now);
    assert_eq!((held(&subject), subject.buffers.next_trim()), (kept, Some(next)), "too early");
    receive(&mut subject, 50_000);
    subject.buffers.trim(next);
    assert_eq!(held(&subject), kept, "it was needed");
    assert_eq!(subject.buffers.next_trim(), Some(next + SECOND));
    subject.buffers.trim(next + SECOND);
    assert_eq!((held(&subject), subject.buffers.next_trim()), (0, None));
}

#[test]
fn little_memory_sets_no_deadline() {
    let mut subject = Subject::open();
    receive(&mut subject, 20_000);
    assert!(held(&subject) >= 40_000);
    assert_eq!(subject.buffers.next_trim(), None);
    for seconds in 1..3 {
        subject.buffers.trim(subject.now + SECOND * seconds);
    }
    assert_eq!(held(&subject), 0, "a loop that is awake frees it anyway");
}

#[test]
fn a_delivered_message_holds_no_memory_before_the_next_is_polled() {
    let mut stopped = Subject::open();
    stopped.allow(1);
    receive(&mut stopped, 50_000);
    assert!(stopped.buffers.budget.is_spent() && !stopped.driver.wants_resume());
    assert!(held(&stopped) >= 100_000);
    let mut paused = Subject::open();
    paused.feed(b"\x02\x80\0\0\0\0\x80\x81\0\0\0\0P");
    assert!(!paused.driver.wants_input());
    assert!(held(&paused) > 0);
}
