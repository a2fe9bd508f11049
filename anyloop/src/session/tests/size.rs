//! The memory of an idle connection.

use std::mem::size_of;

use anyloop_proto::{Connection, Kind};

use super::super::pieces::MessageProgress;
use super::super::state::{Rare, SessionState};
use super::*;
use crate::Handlers;

#[test]
fn a_session_is_its_connection_and_four_words() {
    assert!(size_of::<SessionState>() <= 24);
    assert!(size_of::<Session<Handlers>>() <= size_of::<Connection>() + 32);
    assert!(size_of::<Driver<Session<Handlers>>>() <= size_of::<Connection>() + 48);
    assert!(size_of::<Rare>() <= 96, "{}", size_of::<Rare>());
}

/// If the handshake is not kept, and there is no handle.
#[test]
fn an_idle_session_has_no_heap_memory() {
    let recorder = Recorder::new();
    let server = Server::with_factory(config().keep_handshake(false), recorder.clone());
    let mut subject = Subject::with_server(&server, &recorder).opened();
    let idle = |subject: &Subject| {
        subject.driver.protocol.state.rare.is_none() && subject.driver.queued.is_none()
    };
    assert!(idle(&subject) && subject.driver.is_on_fast_path());
    // Rare data is freed after use.
    subject.allow(1);
    subject.feed(texts(b"ab"));
    assert!(!idle(&subject));
    subject.resume();
    subject.allow(10);
    subject.resume();
    assert!(idle(&subject) && subject.driver.is_on_fast_path());
    assert_eq!(server.broadcast(anyloop_proto::Prepared::new("news")), 1);
    subject.wake();
    assert!(subject.memory.written.ends_with(b"news"));
    assert!(idle(&subject) && subject.driver.is_on_fast_path());
}

#[test]
fn what_finds_no_rare_data_makes_none() {
    let recorder = Recorder::new();
    let server = Server::with_factory(config().keep_handshake(false), recorder.clone());
    let mut subject = Subject::with_server(&server, &recorder).opened();
    let state = &mut subject.driver.protocol.state;
    assert!(state.rare.is_none());
    state.set_writer_message(None);
    assert!(state.rare.is_none());
    assert!(state.take_deferred().is_none());
    assert!(state.rare.is_none());
    assert!(state.take_pieces(&MessageProgress::new(Kind::Text)).next().is_none());
    assert!(state.rare.is_none());
    let mut other = Subject::open();
    let now = other.now;
    let timer = other.driver.protocol.state.timers_mut().set(None, now, Box::new(|_, _| ()));
    assert!(!state.cancel_timer(timer));
    assert!(state.rare.is_none());
}
