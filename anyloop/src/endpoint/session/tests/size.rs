//! What an idle connection costs.

use std::mem::size_of;

use anyloop_proto::Connection;

use super::super::super::io::{Extras, Io};
use super::*;
use crate::Handlers;

#[test]
fn a_session_is_its_connection_and_forty_bytes() {
    assert!(size_of::<Io<Handlers>>() <= 32);
    assert!(size_of::<Session<Handlers>>() <= size_of::<Connection>() + 40);
    assert!(size_of::<Extras<Handlers>>() <= 128, "{}", size_of::<Extras<Handlers>>());
}

/// Without a seat, and with the handshake forgotten, it owns nothing.
#[test]
fn an_idle_session_has_no_heap_memory() {
    let recorder = Recorder::new();
    let mut settings = server_settings(|_| ());
    settings.keep_handshake = false;
    let server = Server::<Memory, _>::with_factory(settings, recorder.clone());
    let mut subject = Subject::with(&server, &recorder).opened();
    let idle = |subject: &Subject| subject.session.io.extras.is_none();
    assert!(idle(&subject));
    // Nor does anything rare leave anything behind.
    subject.allow(1);
    subject.feed(texts(b"ab"));
    assert!(!idle(&subject));
    subject.proceed();
    subject.allow(10);
    subject.proceed();
    assert!(idle(&subject));
    subject.memory.window = 1;
    subject.feed(b"\x89\x80\0\0\0\0"); // the pong has to wait
    assert!(!idle(&subject));
    subject.memory.window = 0;
    subject.writable();
    assert!(idle(&subject) && subject.session.io.is_calm());
}
