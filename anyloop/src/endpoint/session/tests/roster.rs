//! Seats that are made where they are asked for.

use std::collections::HashMap;
use std::sync::Weak;

use anyloop_proto::{CloseCode, Prepared, State};

use super::*;
use crate::endpoint::{BacklogLimits, Handle, Roster, Seat};

/// Knows its members by number, and makes a seat for each that is asked for.
struct Members {
    limits: BacklogLimits,
    states: Mutex<HashMap<u64, State>>,
    seats: Mutex<HashMap<u64, Arc<Seat<Recorder>>>>,
}

impl Members {
    fn seats(&self) -> usize {
        self.seats.lock().unwrap().len()
    }

    fn set(&self, key: u64, state: State) {
        self.states.lock().unwrap().insert(key, state);
    }
}

impl Roster<Recorder> for Members {
    fn handles(&self) -> Vec<Handle<Recorder>> {
        let keys: Vec<_> = self.states.lock().unwrap().keys().copied().collect();
        keys.into_iter().map(|key| Handle::new(self.seat(key))).collect()
    }

    fn seat(&self, key: u64) -> Arc<Seat<Recorder>> {
        let state = self.states.lock().unwrap()[&key];
        let make = || Arc::new(Seat::new(Waker::noop().clone(), self.limits, state));
        self.seats.lock().unwrap().entry(key).or_insert_with(make).clone()
    }
}

fn server() -> (Server<Memory, Recorder>, Arc<Members>, Recorder) {
    let recorder = Recorder::new();
    let server = Server::with_factory(server_settings(|_| ()), recorder.clone());
    let mut members = None;
    server.core().common.roster(|limits| {
        let (states, seats) = (Mutex::default(), Mutex::default());
        members.insert(Arc::new(Members { limits, states, seats })).clone()
    });
    let members = members.expect("it had none");
    (server, members, recorder)
}

#[test]
fn a_session_has_no_seat_before_somebody_asks() {
    let (server, members, recorder) = server();
    members.set(1, State::Connecting);
    let mut subject = Subject::with(&server, &recorder).opened();
    subject.memory.key = 1;
    members.set(1, State::Open);
    assert!(!subject.session.has_seat() && members.seats() == 0);

    // From elsewhere: the transport adopts it when it is woken.
    let handles = server.connections();
    assert_eq!((handles.len(), members.seats()), (1, 1));
    assert_eq!(handles[0].state(), State::Open);
    assert_eq!(server.broadcast(&Prepared::new("news")), 1);
    subject.session.adopt(members.seat(1));
    subject.drain();
    assert_eq!(subject.memory.written, b"\x81\x04news");
    let other = Arc::new(Seat::new(Waker::noop().clone(), members.limits, State::Open));
    subject.session.adopt(other.clone()); // it has one
    assert_eq!(Arc::strong_count(&other), 1);

    assert_eq!(server.close_all(CloseCode::NORMAL, ""), 1);
    subject.drain();
    subject.feed(CLOSE);
    subject.eof();
    assert!(handles[0].send("late").is_err());
    assert!(server.connections().is_empty()); // whatever the roster says
}

#[test]
fn a_handler_that_asks_for_its_handle_gets_that_of_the_roster() {
    let (server, members, recorder) = server();
    members.set(3, State::Connecting);
    let mut subject = Subject::with(&server, &recorder);
    subject.memory.key = 3;
    subject.feed(REQUEST);
    assert_eq!(members.seats(), 0);
    // Some call of the program, without a seat to post by.
    let Subject { session, memory, scratch, now, .. } = &mut subject;
    session.work(memory, &mut scratch.cork, |session, line| {
        session.call(line, *now, |_, context| {
            assert!(context.handle() == Handle::new(members.seat(3)));
            assert_eq!(context.handle().state(), State::Open);
        });
    });
    assert!(subject.session.has_seat());
    drop(subject);
    assert!(members.seat(3).is_gone() && server.connections().is_empty());
}

#[test]
fn a_seat_that_comes_too_late_is_an_empty_one() {
    let (server, members, recorder) = server();
    members.set(4, State::Open);
    let mut subject = Subject::with(&server, &recorder);
    subject.eof();
    assert!(subject.session.is_over());
    subject.session.adopt(members.seat(4));
    assert!(members.seat(4).is_gone());
    assert!(subject.handle().send("late").is_err());
}

/// Sessions that are made in public are in the registry, with a seat of their own, beside a roster.
#[test]
fn the_registry_stays_beside_a_roster() {
    let (server, members, recorder) = server();
    members.set(1, State::Connecting);
    let now = Instant::from_nanos(0);
    let listed = server.session(Waker::noop(), now);
    let unlisted = Subject::with(&server, &recorder);
    assert!(listed.has_seat() && !unlisted.session.has_seat());
    assert_eq!(server.connections().len(), 2);
    drop(listed);
    assert_eq!(server.connections().len(), 1);
}

#[test]
fn a_server_that_shuts_down_gives_up_unlisted_sessions_as_well() {
    let (server, _, recorder) = server();
    server.shut_down();
    let subject = Subject::with(&server, &recorder);
    assert!(subject.session.is_over());
    assert_eq!(subject.log(), ["fail"]);
}

/// A handler may hold its own handle, and its endpoint's roster the seat: nobody holds the session.
#[test]
fn an_endpoint_that_is_dropped_leaves_nothing() {
    let (server, members, recorder) = server();
    let weak: Weak<Members> = Arc::downgrade(&members);
    let subject = Subject::with(&server, &recorder);
    drop((server, members));
    assert!(weak.upgrade().is_some()); // by the session
    drop(subject);
    assert!(weak.upgrade().is_none());
}
