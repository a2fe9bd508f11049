//! The registry of an endpoint, and broadcasts.

use std::sync::Weak;
use std::sync::atomic::AtomicUsize;
use std::task::{Wake, Waker};

use anyloop_proto::{CloseCode, Prepared, State};

use super::*;
use crate::endpoint::Handle;
use crate::session::WakeConnections;

fn server() -> (Server<Recorder>, Recorder) {
    let recorder = Recorder::new();
    (Server::with_factory(config(), recorder.clone()), recorder)
}

fn open(index: u32, server: &Server<Recorder>, recorder: &Recorder) -> Subject {
    Subject::with_index(index, server, recorder).opened()
}

fn has_shared(subject: &Subject) -> bool {
    subject.driver.protocol.state.shared().is_some()
}

/// The text messages that were written since the last call.
fn written(subject: &mut Subject) -> String {
    let bytes = std::mem::take(&mut subject.memory.written);
    let mut rest = &bytes[..];
    let mut texts = Vec::new();
    while let [0x81, len, tail @ ..] = rest {
        let (text, tail) = tail.split_at(usize::from(*len));
        texts.push(String::from_utf8(text.to_vec()).unwrap());
        rest = tail;
    }
    assert!(rest.is_empty(), "only short texts are sent here");
    texts.join(" ")
}

#[test]
fn a_connection_has_no_shared_state_before_a_handle_is_created() {
    let (server, recorder) = server();
    let mut subject = open(0, &server, &recorder);
    assert!(!has_shared(&subject));

    let handles = server.connections();
    assert_eq!((handles.len(), handles[0].state()), (1, State::Open));
    handles[0].post(|recorder, _| recorder.log.push("post")).unwrap();
    subject.wake();
    assert!(has_shared(&subject));
    assert_eq!(subject.log(), ["post"]);

    assert_eq!(server.close_all(CloseCode::NORMAL, ""), Ok(1));
    subject.wake();
    subject.feed(CLOSE);
    subject.eof();
    assert!(handles[0].send("late").is_err());
    assert!(server.connections().is_empty());
}

#[test]
fn the_shared_state_is_freed_with_the_last_handle() {
    let (server, recorder) = server();
    let mut subject = open(0, &server, &recorder);
    let handle = server.connections().remove(0);
    let other = handle.clone();
    let _ = handle.send("a").unwrap();
    drop(handle);
    subject.wake();
    assert!(has_shared(&subject), "it has a handle");
    let writer = other.erase().begin(Kind::Text);
    let _ = other.send("b").unwrap();
    drop((other, writer));
    subject.wake();
    assert!(!has_shared(&subject), "what was sent is sent");
    server.broadcast(Prepared::new("c"));
    subject.wake();
    assert_eq!(written(&mut subject), "a b c");
    let handle = server.connections().remove(0);
    let _ = handle.send("d").unwrap();
    subject.wake();
    assert_eq!(written(&mut subject), "d");
}

/// As that of a client which drops the handle that `connect` returns.
#[test]
fn a_handle_that_is_dropped_before_the_opening_leaves_no_shared_state() {
    let (server, recorder) = server();
    let mut subject = Subject::with_index(0, &server, &recorder);
    let handle = server.connections().remove(0);
    let _ = handle.send("waits").unwrap();
    drop(handle);
    subject.wake();
    assert!(has_shared(&subject), "the connection is not open");
    let mut subject = subject.opened();
    assert!(!has_shared(&subject));
    server.broadcast("news");
    subject.wake();
    assert_eq!(written(&mut subject), "news");
}

/// What a handle has seen or set is still so when there is another handle.
#[test]
fn the_shared_state_is_kept_as_long_as_something_is_in_it() {
    let (server, recorder) = server();
    let keep: [fn(&mut Subject, &Handle<Recorder>); 3] = [
        |_, handle| _ = handle.id(),
        |_, handle| handle.close(CloseCode::NORMAL, "").unwrap(),
        |subject, handle| {
            subject.memory.window = 1;
            let _ = handle.send("blocked").unwrap();
        },
    ];
    for (index, keep) in (0..).zip(keep) {
        let mut subject = open(index, &server, &recorder);
        let handle = server.connections().into_iter().find(|handle| handle.state() == State::Open);
        keep(&mut subject, &handle.unwrap());
        subject.wake();
        subject.wake();
        assert!(has_shared(&subject), "case {index}");
        drop(subject);
    }
}

/// A message in pieces of the handler holds up broadcasts.
#[test]
fn a_new_shared_state_counts_what_is_held_up() {
    let (server, recorder) = server();
    let mut subject = open(0, &server, &recorder);
    subject.allow(1);
    subject.feed(texts(b"BH"));
    assert_eq!(subject.log(), ["B"]);
    assert_eq!(server.broadcast("news"), 1);
    subject.allow(100);
    subject.resume(); // first the broadcast, then the message
    assert_eq!(subject.log(), ["H", "4 4"]);
}

/// Another thread can make a handle while the broadcasts are taken. Here the filter of the broadcast does.
#[test]
fn a_shared_state_that_is_adopted_counts_what_is_held_up() {
    let (server, recorder) = server();
    let mut subject = open(0, &server, &recorder);
    subject.feed(text(b'B'));
    assert_eq!(subject.log(), ["B"]);
    let endpoint = server.handle();
    let reached = server.broadcast_where("news", move |_| {
        let handle = endpoint.connections().remove(0);
        handle.post(|recorder, context| recorder.log_buffered(context)).is_ok()
    });
    assert_eq!(reached, 1);
    subject.wake();
    assert_eq!(subject.log(), ["4 4"]);
}

/// Counts the wake-ups of handles.
#[derive(Default)]
struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// Gives all connections the same waker.
struct SameWaker(Arc<Wakes>);

impl WakeConnections for SameWaker {
    fn wake(&self, _: Vec<Key>) {}

    fn waker(&self, _: Key) -> Waker {
        self.0.clone().into()
    }
}

/// A handler may make and drop a handle in each of its calls.
#[test]
fn the_last_handle_wakes_a_connection_only_to_free_its_shared_state() {
    let (server, recorder) = server();
    let wakes = Arc::new(Wakes::default());
    server.core.state.registry.use_loop(|| Arc::new(SameWaker(wakes.clone())));
    let mut subject = open(0, &server, &recorder);
    let woken = || wakes.0.swap(0, Ordering::Relaxed);

    drop((server.connections(), server.connections()));
    assert_eq!(woken(), 1, "with the last of them");
    subject.wake();
    assert!(!has_shared(&subject));

    let _ = server.connections()[0].id();
    subject.wake();
    assert!(has_shared(&subject), "it has the number");
    drop(subject.handle());
    assert_eq!(woken(), 0);
}

#[test]
fn broadcasts_reach_open_connections_in_order() {
    let (server, recorder) = server();
    let mut first = open(0, &server, &recorder);
    let mut second = open(7, &server, &recorder);
    let _connecting = Subject::with_index(3, &server, &recorder);
    assert_eq!(server.broadcast(Prepared::new("one")), 2);
    assert_eq!(server.broadcast(Prepared::new("two")), 2);
    first.wake();
    assert_eq!(written(&mut first), "one two");
    assert_eq!(server.broadcast(Prepared::new("three")), 2);
    first.wake();
    second.wake();
    assert_eq!(
        (written(&mut first), written(&mut second)),
        ("three".into(), "one two three".into())
    );
    second.wake();
    assert_eq!(written(&mut second), "");
    assert!(!has_shared(&first) && !has_shared(&second));
}

#[test]
fn a_broadcast_does_not_reach_connections_that_open_later() {
    let (server, recorder) = server();
    let mut old = open(0, &server, &recorder);
    assert_eq!(server.broadcast(Prepared::new("past")), 1);
    let mut new = open(1, &server, &recorder);
    assert_eq!(server.broadcast(Prepared::new("present")), 2);
    old.wake();
    new.wake();
    assert_eq!((written(&mut old), written(&mut new)), ("past present".into(), "present".into()));
}

/// A broadcast and a message that is sent by a handle arrive in the order in which they were sent.
#[test]
fn broadcasts_and_messages_to_one_keep_their_order() {
    let (server, recorder) = server();
    let mut subject = open(0, &server, &recorder);
    server.broadcast(Prepared::new("a"));
    let handle = server.connections().remove(0); // created while the broadcast waits
    let _ = handle.send("b").unwrap();
    server.broadcast(Prepared::new("c"));
    let _ = handle.send("d").unwrap();
    assert_eq!(handle.buffered_amount(), 4);
    subject.wake();
    assert_eq!(written(&mut subject), "a b c d");
    assert_eq!(handle.buffered_amount(), 0);
}

#[test]
fn a_filter_selects_by_the_handler() {
    let (server, recorder) = server();
    let mut other = recorder.clone();
    other.log = Log::default();
    let (mut one, mut two) = (open(0, &server, &recorder), open(1, &server, &other));
    let _with_handle = two.handle();
    let log = recorder.log.clone();
    let is_one = move |handler: &Recorder| Arc::ptr_eq(&handler.log.0, &log.0);
    server.broadcast_where(Prepared::new("for one"), is_one);
    one.wake();
    two.wake();
    assert_eq!((written(&mut one), written(&mut two)), ("for one".into(), String::new()));
}

#[test]
fn a_broadcast_is_complete_when_all_connections_have_taken_it() {
    let (server, recorder) = server();
    let completed = Log::default();
    let broadcast = |name: &'static str, accepts: bool| {
        let completed = completed.clone();
        server.broadcast_then(name, move |_| accepts, move || completed.push(name))
    };
    assert_eq!((broadcast("none", true), completed.take()), (0, vec!["none".into()]));

    let mut subjects: Vec<_> = (0..4).map(|index| open(index, &server, &recorder)).collect();
    let handle = subjects[1].handle(); // it takes broadcasts from its mailbox
    assert_eq!((broadcast("all", true), broadcast("nobody", false)), (4, 4));
    drop(subjects.pop());
    for (index, expected) in ["all", "all", "all"].into_iter().enumerate() {
        assert!(completed.take().is_empty());
        subjects[index].wake();
        assert_eq!(written(&mut subjects[index]), expected);
    }
    assert_eq!(completed.take(), ["all", "nobody"]);
    drop((handle, subjects));

    let gone = server.handle();
    drop(server);
    let log = completed.clone();
    assert_eq!(gone.broadcast_then("late", |_| true, move || log.push("late")), 0);
    assert_eq!(completed.take(), ["late"]);
}

/// Also if a connection ends without having taken the broadcasts that are due to it.
#[test]
fn broadcasts_that_all_connections_have_taken_are_freed() {
    let (server, recorder) = server();
    let message = Prepared::new(&[7; 1000][..]);
    let mut subjects: Vec<_> = (0..3).map(|index| open(index, &server, &recorder)).collect();
    for _ in 0..3 {
        server.broadcast(&message);
    }
    subjects[0].wake();
    let _handle = subjects[1].handle(); // moves its broadcasts from the queue to the shared state
    assert_eq!(server.core.state.registry.broadcast_queue_cost(), 3 * 1064);
    drop(subjects.pop());
    assert_eq!(server.core.state.registry.broadcast_queue_cost(), 0);
}

#[test]
fn more_than_65536_broadcasts_are_numbered() {
    let (server, recorder) = server();
    let mut subject = open(0, &server, &recorder);
    let mut slow = open(1, &server, &recorder);
    for round in 0..70_000_u32 {
        assert_eq!(server.broadcast(Prepared::new(format!("{round}").as_str())), 2);
        subject.wake();
        assert_eq!(written(&mut subject), round.to_string());
        if round % 1000 == 999 {
            slow.wake();
            assert!(written(&mut slow).ends_with(&format!(" {round}")));
        }
    }
}

#[test]
fn a_burst_of_any_size_is_sent() {
    let (server, recorder) = server();
    let mut subject = open(0, &server, &recorder);
    for _ in 0..70_000 {
        assert_eq!(server.broadcast(Prepared::new("")), 1);
    }
    subject.wake();
    assert_eq!(subject.memory.written.len(), 2 * 70_000);
}

/// A filter is application code, and so are the destructors of its captures.
#[test]
fn a_filter_may_use_its_server_when_it_is_dropped() {
    /// Uses its server when it is dropped.
    struct UsesServer(Arc<Server<Recorder>>);

    impl Drop for UsesServer {
        fn drop(&mut self) {
            let _ = self.0.connections();
        }
    }

    let (server, recorder) = server();
    let server = Arc::new(server);
    let subject = open(0, &server, &recorder);
    let asks = UsesServer(server.clone());
    server.broadcast_where(Prepared::new("news"), move |_| std::ptr::eq(&asks, &asks));
    drop(subject); // the last connection that the message is due to
    assert!(server.connections().is_empty());
}

#[test]
fn a_broadcast_to_a_full_queue_reaches_no_connection() {
    let recorder = Recorder::new();
    let server = Server::with_factory(config().max_send_buffer(1500), recorder.clone());
    let mut subject = open(0, &server, &recorder);
    let message = Prepared::new(&[7; 1000][..]);
    assert_eq!(server.broadcast(&message), 1);
    assert_eq!(server.broadcast(&message), 0);
    subject.wake();
    assert_eq!(server.broadcast(&message), 1);
}

#[test]
fn a_server_that_shuts_down_abandons_new_connections() {
    let (server, recorder) = server();
    server.shut_down();
    let subject = Subject::with_server(&server, &recorder);
    assert!(subject.driver.is_closed());
    assert_eq!(subject.log(), ["fail"]);
}

/// A handler may own its own handle, and the registry the shared state of it: neither keeps the session alive.
#[test]
fn a_dropped_endpoint_frees_everything() {
    let (server, recorder) = server();
    let weak = Arc::downgrade(&server.core.state);
    let mut subject = open(0, &server, &recorder);
    let _handle = subject.handle();
    drop(server);
    assert!(Weak::upgrade(&weak).is_some()); // by the session
    drop(subject);
    assert!(Weak::upgrade(&weak).is_none());
}
