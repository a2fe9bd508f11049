//! Models of a connection's mailbox for loom: what several threads send is taken once and in order, or refused, and
//! the bytes that wait are counted correctly. `tests/loom` runs them.
//!
//! [`counters`] has the model of an endpoint's counters, [`handles`] those of what handles keep alive, and [`pieces`]
//! those of messages in pieces.

mod counters;
mod handles;
mod pieces;

use std::sync::atomic::{AtomicUsize as Plain, Ordering::Relaxed};
use std::sync::{Arc, PoisonError};
use std::task::{Wake, Waker};

use anyloop_proto::State;
use loom::thread::{self, JoinHandle};

use super::deferred::{OutgoingMessage, OutgoingPayload};
use super::phase::Phase;
use super::shared::{Command, Shared};
use super::{Handle, Handler, Overflow, SendBufferLimits, SendError, Sent};
use crate::event_loop::models::{check, check_large, check_within};
use crate::sync::{Condvar, Mutex};

struct Quiet;

impl Handler for Quiet {}

/// The driver of the connection, which is woken.
#[derive(Default)]
struct Driver {
    woken: Mutex<bool>,
    changed: Condvar,
}

impl Driver {
    /// Waits until it is woken.
    fn await_woken(&self) {
        let mut woken = self.woken.lock().unwrap();
        while !*woken {
            woken = self.changed.wait(woken).unwrap_or_else(PoisonError::into_inner);
        }
        *woken = false;
    }
}

impl Wake for Driver {
    fn wake(self: Arc<Self>) {
        *self.woken.lock().unwrap() = true;
        self.changed.notify_all();
    }
}

fn mailbox(limits: SendBufferLimits) -> (Arc<Shared>, Arc<Driver>) {
    let driver = Arc::new(Driver::default());
    let waker = Waker::from(driver.clone());
    (Arc::new(Shared::new(waker, limits, Phase::Open)), driver)
}

/// A thread that sends these messages. Returns the results.
fn sender(
    shared: &Arc<Shared>,
    messages: &'static [&'static str],
) -> JoinHandle<Vec<Result<Sent, SendError>>> {
    let handle = Handle::<Quiet>::new(shared.clone());
    thread::spawn(move || messages.iter().map(|message| handle.send(*message)).collect())
}

/// Takes all commands, as a session does with an unlimited budget.
fn drain(shared: &Shared, taken: &mut Vec<String>) {
    taken.extend(shared.take().0.map(|command| text(&command)));
}

fn text(command: &Command) -> String {
    match command {
        Command::Send(OutgoingMessage { payload: OutgoingPayload::Payload(payload), .. }, _) => {
            payload.message().as_text().unwrap().to_string()
        }
        Command::Send(OutgoingMessage { payload: OutgoingPayload::Prepared(prepared), .. }, _) => {
            prepared.message().as_text().unwrap().to_string()
        }
        Command::Interrupt => "interrupt".to_string(),
        _ => unreachable!("nothing else is sent"),
    }
}

/// The messages of one sender.
fn of<'t>(taken: &'t [String], sender: &str) -> Vec<&'t str> {
    taken.iter().map(String::as_str).filter(|text| text.starts_with(sender)).collect()
}

#[test]
fn messages_are_taken_in_order() {
    check(|| {
        let (shared, driver) = mailbox(SendBufferLimits::default());
        let senders = [sender(&shared, &["a1", "a2"]), sender(&shared, &["b1", "b2"])];
        let mut taken = Vec::new();
        while taken.len() < 4 {
            driver.await_woken();
            drain(&shared, &mut taken);
        }
        assert_eq!(of(&taken, "a"), ["a1", "a2"]);
        assert_eq!(of(&taken, "b"), ["b1", "b2"]);
        for sender in senders {
            assert!(sender.join().unwrap().iter().all(Result::is_ok));
        }
        assert_eq!(shared.buffered(), 8, "until the send buffer is published");
        shared.publish(3, Phase::Open);
        assert_eq!(shared.buffered(), 3);
        shared.publish(0, Phase::Open);
        assert_eq!(shared.buffered(), 0);
    });
}

#[test]
fn commands_that_are_put_back_come_first() {
    check(|| {
        let (shared, driver) = mailbox(SendBufferLimits::default());
        let senders = [sender(&shared, &["a1", "a2"]), sender(&shared, &["b1"])];
        let mut taken = Vec::new();
        while taken.len() < 3 {
            driver.await_woken();
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
        shared.publish(0, Phase::Open);
        assert_eq!(shared.buffered(), 0);
    });
}

/// Large; the smaller models are the two below.
#[test]
fn messages_sent_at_the_end_are_taken_or_refused() {
    check_large(|| send_at_the_end(&[2, 1]));
}

#[test]
fn messages_of_two_sent_at_the_end_are_taken_or_refused() {
    check(|| send_at_the_end(&[1, 1]));
}

#[test]
fn messages_of_one_sent_at_the_end_are_taken_or_refused_in_order() {
    check(|| send_at_the_end(&[2]));
}

/// A sender for each number sends so many messages while the connection ends.
fn send_at_the_end(messages: &[usize]) {
    let (shared, _) = mailbox(SendBufferLimits::default());
    let unsent = Arc::new(Plain::new(0));
    let sender = |&messages: &usize| {
        let (handle, unsent) = (Handle::<Quiet>::new(shared.clone()), unsent.clone());
        thread::spawn(move || {
            let mut last = Ok(Sent::Sent);
            for _ in 0..messages {
                let unsent = unsent.clone();
                let sent = handle.send_then("!", move |sent| {
                    assert!(sent.is_err());
                    unsent.fetch_add(1, Relaxed);
                });
                assert!(last.is_ok() || sent.is_err());
                last = sent;
            }
            assert!(last != Err(SendError::Gone) || handle.state() == State::Ended);
        })
    };
    let senders: Vec<_> = messages.iter().map(sender).collect();
    let taken = shared.take().0.map(drop).count();
    shared.close();
    assert!(shared.state() == State::Ended);
    for sender in senders {
        sender.join().unwrap();
    }
    assert_eq!(taken + unsent.load(Relaxed), messages.iter().sum::<usize>());
    assert_eq!(shared.buffered(), 0);
    assert_eq!(shared.take().0.count(), 0);
}

#[test]
fn back_pressure_is_followed_by_drained() {
    check(|| {
        let limits = SendBufferLimits {
            low_water_mark: 0,
            high_water_mark: 1,
            max_send_buffer: 100,
            ..SendBufferLimits::default()
        };
        let (shared, driver) = mailbox(limits);
        let senders = [sender(&shared, &["a"]), sender(&shared, &["b"])];
        let (mut taken, mut pressed) = (0, false);
        while taken < 2 {
            driver.await_woken();
            let (commands, is_pressed) = shared.take();
            taken += commands.map(drop).count();
            pressed |= is_pressed;
        }
        let results = senders.map(|sender| sender.join().unwrap().remove(0).unwrap());
        assert_eq!(pressed, results.contains(&Sent::Backpressure));
        shared.publish(0, Phase::Open);
        assert_eq!(shared.buffered(), 0);
    });
}

/// The peer reads nothing: messages that are taken go into the send buffer.
#[test]
fn a_full_send_buffer_is_reported_to_a_sender() {
    check(|| {
        let limits = SendBufferLimits {
            low_water_mark: 0,
            high_water_mark: 1,
            max_send_buffer: 100,
            ..SendBufferLimits::default()
        };
        let (shared, driver) = mailbox(limits);
        let senders = [sender(&shared, &["a"]), sender(&shared, &["b"])];
        let (mut send_buffer, mut pressed) = (0, false);
        while send_buffer < 2 {
            driver.await_woken();
            let (commands, is_pressed) = shared.take();
            send_buffer += commands.map(drop).count();
            shared.publish(send_buffer, Phase::Open);
            pressed |= is_pressed;
        }
        let results = senders.map(|sender| sender.join().unwrap().remove(0).unwrap());
        assert!(pressed && results.contains(&Sent::Backpressure), "{results:?}");
        assert_eq!(shared.buffered(), 2);
    });
}

#[test]
fn two_senders_cannot_exceed_the_limit_together() {
    check(|| {
        let limits = SendBufferLimits {
            low_water_mark: 0,
            high_water_mark: 3,
            max_send_buffer: 3,
            ..SendBufferLimits::default()
        };
        let (shared, _) = mailbox(limits);
        shared.publish(2, Phase::Open);
        let senders = [sender(&shared, &["a"]), sender(&shared, &["b"])];
        let results = senders.map(|sender| sender.join().unwrap().remove(0));
        assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1, "{results:?}");
        assert_eq!(shared.buffered(), 3);
    });
}

#[test]
fn one_of_the_refused_senders_closes_the_connection() {
    check(|| {
        let overflow = Overflow::Close;
        let limits = SendBufferLimits {
            low_water_mark: 0,
            high_water_mark: 3,
            max_send_buffer: 3,
            overflow,
        };
        let (shared, _) = mailbox(limits);
        shared.publish(3, Phase::Open);
        let senders = [sender(&shared, &["a"]), sender(&shared, &["b"])];
        let results = senders.map(|sender| sender.join().unwrap().remove(0));
        let full = SendError::SendBufferFull { waiting: 3, message: 1, limit: 3, closes: true };
        for error in [full, SendError::Closing] {
            let error = Err(error);
            assert_eq!(results.iter().filter(|result| **result == error).count(), 1, "{results:?}");
        }
        assert_eq!(shared.take().0.count(), 1);
    });
}
