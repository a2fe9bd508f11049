//! Models of a connection's mailbox for loom: what several threads send is taken once and in order, or refused, and
//! the bytes that wait are counted right. `tests/loom` runs them.

use std::sync::atomic::{AtomicUsize as Plain, Ordering::Relaxed};
use std::sync::{Arc, PoisonError};
use std::task::{Wake, Waker};

use anyloop_proto::State;
use loom::thread::{self, JoinHandle};

use super::shared::{Command, Shared};
use super::{BacklogLimits, Handle, Handler, SendError, Sent};
use crate::event_loop::models::check;
use crate::sync::{Condvar, Mutex};

struct Quiet;

impl Handler for Quiet {}

/// The transport, which is woken.
#[derive(Default)]
struct Bell {
    rung: Mutex<bool>,
    changed: Condvar,
}

impl Bell {
    /// Waits until it is rung.
    fn await_rung(&self) {
        let mut rung = self.rung.lock().unwrap();
        while !*rung {
            rung = self.changed.wait(rung).unwrap_or_else(PoisonError::into_inner);
        }
        *rung = false;
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        *self.rung.lock().unwrap() = true;
        self.changed.notify_all();
    }
}

fn mailbox(limits: BacklogLimits) -> (Arc<Shared<Quiet>>, Arc<Bell>) {
    let bell = Arc::new(Bell::default());
    let waker = Waker::from(bell.clone());
    (Arc::new(Shared::new(waker, limits, State::Open)), bell)
}

/// A thread that sends these. Returns what it was told.
fn sender(
    shared: &Arc<Shared<Quiet>>,
    messages: &'static [&'static str],
) -> JoinHandle<Vec<Result<Sent, SendError>>> {
    let handle = Handle::new(shared.clone());
    thread::spawn(move || messages.iter().map(|message| handle.send(*message)).collect())
}

/// Takes what there is, as a session does that may call as much as it likes.
fn drain(shared: &Shared<Quiet>, taken: &mut Vec<String>) {
    taken.extend(shared.take().0.map(|command| text(&command)));
}

fn text(command: &Command<Quiet>) -> String {
    match command {
        Command::Send { message, .. } => {
            String::from_utf8(message.message().as_bytes().to_vec()).unwrap()
        }
        _ => unreachable!("nothing else was asked for"),
    }
}

/// Those of one sender.
fn of<'t>(taken: &'t [String], sender: &str) -> Vec<&'t str> {
    taken.iter().map(String::as_str).filter(|text| text.starts_with(sender)).collect()
}

#[test]
fn what_is_sent_is_taken_in_order() {
    check(|| {
        let (shared, bell) = mailbox(BacklogLimits::default());
        let senders = [sender(&shared, &["a1", "a2"]), sender(&shared, &["b1", "b2"])];
        let mut taken = Vec::new();
        while taken.len() < 4 {
            bell.await_rung();
            drain(&shared, &mut taken);
        }
        assert_eq!(of(&taken, "a"), ["a1", "a2"]);
        assert_eq!(of(&taken, "b"), ["b1", "b2"]);
        for sender in senders {
            assert!(sender.join().unwrap().iter().all(Result::is_ok));
        }
        assert_eq!(shared.buffered(), 8, "until it is said what has become of them");
        shared.publish(3, State::Open);
        assert_eq!(shared.buffered(), 3);
        shared.publish(0, State::Open);
        assert_eq!(shared.buffered(), 0);
    });
}

#[test]
fn what_is_put_back_comes_first() {
    check(|| {
        let (shared, bell) = mailbox(BacklogLimits::default());
        let senders = [sender(&shared, &["a1", "a2"]), sender(&shared, &["b1"])];
        let mut taken = Vec::new();
        while taken.len() < 3 {
            bell.await_rung();
            loop {
                let mut commands = shared.take().0;
                let Some(command) = commands.next() else { break };
                taken.push(text(&command));
                commands.put_back(); // one at a time
            }
        }
        assert_eq!(of(&taken, "a"), ["a1", "a2"]);
        for sender in senders {
            sender.join().unwrap();
        }
        shared.publish(0, State::Open);
        assert_eq!(shared.buffered(), 0);
    });
}

#[test]
fn what_is_sent_at_the_end_is_taken_or_gone() {
    check(|| {
        let (shared, _) = mailbox(BacklogLimits::default());
        let unsent = Arc::new(Plain::new(0));
        let senders = [true, false].map(|sends_twice| {
            let (handle, unsent) = (Handle::new(shared.clone()), unsent.clone());
            thread::spawn(move || {
                let send = || {
                    let unsent = unsent.clone();
                    handle.send_then("!", move |sent| {
                        assert!(sent.is_err());
                        unsent.fetch_add(1, Relaxed);
                    })
                };
                let mut last = send();
                if sends_twice {
                    let first = std::mem::replace(&mut last, send());
                    assert!(first.is_ok() || last.is_err());
                }
                assert!(last != Err(SendError::Gone) || handle.state() == State::Ended);
            })
        });
        let taken = shared.take().0.map(drop).count();
        shared.close();
        assert!(shared.state() == State::Ended);
        for sender in senders {
            sender.join().unwrap();
        }
        assert_eq!(taken + unsent.load(Relaxed), 3);
        assert_eq!(shared.buffered(), 0);
        assert_eq!(shared.take().0.count(), 0);
    });
}

#[test]
fn who_is_told_of_back_pressure_is_told_of_its_end() {
    check(|| {
        let limits = BacklogLimits { low: 0, high: 1, cap: 100, ..BacklogLimits::default() };
        let (shared, bell) = mailbox(limits);
        let senders = [sender(&shared, &["a"]), sender(&shared, &["b"])];
        let (mut taken, mut pressed) = (0, false);
        while taken < 2 {
            bell.await_rung();
            let (commands, told) = shared.take();
            taken += commands.map(drop).count();
            pressed |= told;
        }
        let told = senders.map(|sender| sender.join().unwrap().remove(0).unwrap());
        assert_eq!(pressed, told.contains(&Sent::Backpressure));
        shared.publish(0, State::Open);
        assert_eq!(shared.buffered(), 0);
    });
}

/// The peer reads nothing: what is taken goes into the backlog.
#[test]
fn somebody_is_told_when_too_much_waits() {
    check(|| {
        let limits = BacklogLimits { low: 0, high: 1, cap: 100, ..BacklogLimits::default() };
        let (shared, bell) = mailbox(limits);
        let senders = [sender(&shared, &["a"]), sender(&shared, &["b"])];
        let (mut backlog, mut pressed) = (0, false);
        while backlog < 2 {
            bell.await_rung();
            let (commands, told) = shared.take();
            backlog += commands.map(drop).count();
            shared.publish(backlog, State::Open);
            pressed |= told;
        }
        let told = senders.map(|sender| sender.join().unwrap().remove(0).unwrap());
        assert!(pressed && told.contains(&Sent::Backpressure), "{told:?}");
        assert_eq!(shared.buffered(), 2);
    });
}

#[test]
fn two_senders_do_not_have_the_same_room() {
    check(|| {
        let limits = BacklogLimits { low: 0, high: 3, cap: 3, ..BacklogLimits::default() };
        let (shared, _) = mailbox(limits);
        shared.publish(2, State::Open);
        let senders = [sender(&shared, &["a"]), sender(&shared, &["b"])];
        let told = senders.map(|sender| sender.join().unwrap().remove(0));
        assert_eq!(told.iter().filter(|told| told.is_ok()).count(), 1, "{told:?}");
        assert_eq!(shared.buffered(), 3);
    });
}
