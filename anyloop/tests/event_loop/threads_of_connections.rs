//! Several threads inside `run` at a time, and connections that they serve.

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyloop::net::Server;
use anyloop::prelude::*;
use anyloop_testkit::frames;
use anyloop_testkit::peer::Peer;
use anyloop_testkit::wait::{PATIENCE, eventually, let_time_pass};
use anyloop_testkit::watchdog::within_time;

use crate::fixture::{Fixture, described, server_config, without_deadlines};
use crate::harness::{Count, FAR, Log, panics};
use crate::wire::{close, masked, numbered, request, text};

/// Checks that it is called once at a time, and in order.
struct Strand {
    is_inside: AtomicBool,
    received: usize,
    posted: usize,
    seen: Arc<Seen>,
}

#[derive(Default)]
struct Seen {
    overlaps: Count,
    disorder: Count,
    opened: Count,
    messages: Count,
    posted: Count,
    closed: Count,
}

impl Strand {
    fn enter(&self) {
        if self.is_inside.swap(true, Ordering::SeqCst) {
            self.seen.overlaps.add();
        }
        thread::yield_now(); // so that another would come
    }

    fn leave(&self) {
        self.is_inside.store(false, Ordering::SeqCst);
    }
}

impl Handler for Strand {
    fn open(&mut self, _: &mut Context<'_, Self>) {
        self.enter();
        self.seen.opened.add();
        self.leave();
    }

    fn message(&mut self, message: Message<'_>, context: &mut Context<'_, Self>) {
        self.enter();
        if described(&message) != self.received.to_string() {
            self.seen.disorder.add();
        }
        self.received += 1;
        self.seen.messages.add();
        context.send(message).unwrap();
        self.leave();
    }

    fn close(&mut self, _: &Ending<'_>, _: &mut Context<'_, Self>) {
        self.enter();
        self.seen.closed.add();
        self.leave();
    }
}

#[test]
fn handlers_of_one_connection_never_overlap_and_stay_in_order() {
    within_time(|| {
        let (event_loop, seen) = (EventLoop::new().unwrap(), Arc::new(Seen::default()));
        let of_handlers = seen.clone();
        let factory = move || Strand {
            is_inside: AtomicBool::new(false),
            received: 0,
            posted: 0,
            seen: of_handlers.clone(),
        };
        let server = Server::with_factory_on(&event_loop, server_config(), factory);
        let address = server.listen("127.0.0.1:0").unwrap();
        server.start_accept().unwrap();
        let runner = |_| {
            let runs = event_loop.clone();
            thread::spawn(move || runs.run())
        };
        let runners: Vec<_> = (0..3).map(runner).collect();

        const PEERS: usize = 8;
        const MESSAGES: usize = 300;
        let mut peers: Vec<_> = (0..PEERS).map(|_| Peer::connect(address)).collect();
        peers.iter().for_each(|peer| peer.write(request("/")));
        eventually("the handshakes", || server.connections().len() == PEERS);
        let handles = server.connections();
        let bytes = numbered(MESSAGES);
        for (i, piece) in bytes.chunks(bytes.len() / 100 + 1).enumerate() {
            peers.iter().for_each(|peer| peer.write(piece));
            for handle in &handles {
                let posted = move |strand: &mut Strand, _: &mut Context<'_, Strand>| {
                    strand.enter();
                    if strand.posted != i {
                        strand.seen.disorder.add();
                    }
                    strand.posted += 1;
                    strand.seen.posted.add();
                    strand.leave();
                };
                handle.post(posted).unwrap();
            }
        }
        eventually("the messages", || seen.messages.get() == PEERS * MESSAGES);
        eventually("what was posted", || seen.posted.get() == PEERS * 100);
        peers.iter().for_each(|peer| peer.write_last(close(1000)));
        for peer in &mut peers {
            let (mut frames, mut head) = (Vec::new(), None);
            eventually("the end", || {
                head = head.take().or_else(|| peer.poll_head());
                if head.is_some() {
                    frames.extend(peer.poll_frames());
                }
                peer.is_over()
            });
            frames.extend(peer.poll_frames());
            assert_eq!(frames.pop(), Some(frames::close(1000, "")));
            let expected = (0..MESSAGES).map(|i| frames::text(i.to_string()));
            assert!(frames.into_iter().eq(expected));
        }
        server.stop_listening();
        let ran: usize = runners.into_iter().map(|it| it.join().unwrap()).sum();
        assert_eq!((seen.overlaps.get(), seen.disorder.get()), (0, 0));
        assert_eq!((seen.opened.get(), seen.closed.get()), (PEERS, PEERS));
        // validate, open, close, and the rest
        assert_eq!(ran, PEERS * (3 + MESSAGES + 100));
    });
}

fn runner(event_loop: &EventLoop) -> JoinHandle<usize> {
    let runs = event_loop.clone();
    thread::spawn(move || runs.run())
}

/// A server whose handler blocks at the message `wait` until the test sends `go`, and echoes others.
struct Waiting {
    fixture: Fixture,
    /// A handler waits.
    waits: mpsc::Receiver<()>,
    go: mpsc::Sender<()>,
}

impl Waiting {
    fn new() -> Self {
        let ((sender, waits), (go, receiver)) = (mpsc::channel(), mpsc::channel::<()>());
        let (sender, receiver) = (Mutex::new(sender), Mutex::new(receiver));
        let event_loop = EventLoop::new().unwrap();
        let fixture = Fixture::of(&event_loop, without_deadlines(), |server, log| {
            let it = log.clone();
            server.on_message(move |message, context| {
                if message.as_bytes() == b"wait" {
                    sender.lock().unwrap().send(()).unwrap();
                    receiver.lock().unwrap().recv_timeout(PATIENCE).expect("somebody says go");
                }
                assert!(message.as_bytes() != b"panic", "in a handler");
                it.add(described(&message));
                context.send(message).unwrap();
            });
        });
        Self { fixture, waits, go }
    }
}

#[test]
fn different_connections_are_served_at_a_time() {
    within_time(|| {
        let Waiting { fixture, waits, go } = Waiting::new();
        let (mut first, mut second) = (fixture.open(), fixture.open());
        let runners = [runner(&fixture.event_loop), runner(&fixture.event_loop)];
        first.write([text("wait"), text("behind")].concat());
        waits.recv_timeout(PATIENCE).unwrap();
        for i in 0..20 {
            let message = i.to_string();
            second.write(text(&message));
            eventually("the echo", || second.poll_frame() == Some(frames::text(&message)));
        }
        let mut third = fixture.open_elsewhere(); // accepting goes on as well
        third.write(text("third"));
        eventually("the echo", || third.poll_frame() == Some(frames::text("third")));
        assert_eq!(first.poll_frame(), None);
        go.send(()).unwrap();
        eventually("the echo", || first.poll_frame() == Some(frames::text("wait")));
        eventually("the echo", || first.poll_frame() == Some(frames::text("behind")));
        fixture.event_loop.stop();
        runners.into_iter().for_each(|it| _ = it.join().unwrap());
    });
}

#[test]
fn a_thread_that_comes_while_another_is_stuck_reaches_all_there_is() {
    within_time(|| {
        let Waiting { fixture, waits, go } = Waiting::new();
        let (mut first, mut second) = (fixture.open(), fixture.open());
        // Both have something when the only thread takes the first.
        first.write(text("wait"));
        second.write(text("second"));
        let stuck = runner(&fixture.event_loop);
        waits.recv_timeout(PATIENCE).unwrap();
        fixture.drive("the echo", || second.poll_frame() == Some(frames::text("second")));
        second.write(text("again"));
        fixture.drive("the echo", || second.poll_frame() == Some(frames::text("again")));
        go.send(()).unwrap();
        eventually("the echo", || first.poll_frame() == Some(frames::text("wait")));
        fixture.event_loop.stop();
        stuck.join().unwrap();
    });
}

/// One thread sleeps in `run`, the other takes one message of several and leaves.
fn leaves_the_rest_to_a_thread_that_sleeps(call: impl FnOnce(&EventLoop) + Send + 'static) {
    within_time(move || {
        let Waiting { fixture, waits, go } = Waiting::new();
        let (mut first, mut second) = (fixture.open(), fixture.open());
        first.write(text("wait"));
        let sleeps = runner(&fixture.event_loop);
        waits.recv_timeout(PATIENCE).unwrap();
        // The runner is stuck, so it is this thread that takes what the second sends. Its handler waits
        // until the runner is done with the first, and sleeps: that it does cannot be seen from here,
        // and if it did not the test would pass for that reason.
        second.write([text("wait"), text("middle"), text("behind")].concat());
        let (sender, receiver) = mpsc::channel();
        let helper = thread::spawn(move || {
            waits.recv_timeout(PATIENCE).unwrap(); // the second's handler waits
            go.send(()).unwrap(); // one of the two goes on
            let _ = receiver.recv_timeout(Duration::from_millis(100));
            go.send(()).unwrap();
            (waits, go)
        });
        call(&fixture.event_loop);
        sender.send(()).ok();
        eventually("the echo", || first.poll_frame() == Some(frames::text("wait")));
        eventually("the echo", || second.poll_frame() == Some(frames::text("wait")));
        for rest in ["middle", "behind"] {
            eventually("what is left", || second.poll_frame() == Some(frames::text(rest)));
        }
        helper.join().unwrap();
        fixture.event_loop.stop();
        sleeps.join().unwrap();
    });
}

#[test]
fn pitfall_what_poll_one_leaves_is_taken_by_a_thread_that_sleeps_in_run() {
    leaves_the_rest_to_a_thread_that_sleeps(|event_loop| while event_loop.poll_one() == 0 {});
}

#[test]
fn pitfall_what_run_one_leaves_is_taken_by_a_thread_that_sleeps_in_run() {
    leaves_the_rest_to_a_thread_that_sleeps(|event_loop| assert_eq!(event_loop.run_one(), 1));
}

/// The panic is in the thread that leaves, and what is left of the connection for the other.
#[test]
fn pitfall_a_connection_that_panics_in_a_thread_that_leaves_ends_in_another() {
    within_time(|| {
        let closed = Log::default();
        let it = closed.clone();
        let fixture = Fixture::with(|server, _| {
            server.on_message(|_, _| panic!("in a handler"));
            server.on_close(move |_, _| it.add("close"));
        });
        let mut peer = fixture.open();
        peer.write(text("hi"));
        let event_loop = fixture.event_loop.clone();
        panics("in a handler", || event_loop.run());
        let runner = runner(&fixture.event_loop);
        eventually("the Close", || {
            peer.poll_frame().is_some_and(|frame| frame.close_code() == Some(1011))
        });
        drop(peer);
        eventually("the end", || closed.has("close"));
        fixture.event_loop.stop();
        runner.join().unwrap();
        assert_eq!(closed.len(), 1);
    });
}

/// Two threads inside `run`: one serves the connection, and when it has become busy the other sleeps and
/// waits for events, for as long as it knows to be right. There are no deadlines that it could know.
fn two_threads(
    close_timeout: Duration,
    set: impl FnOnce(&mut Server, &Log),
    test: impl FnOnce(&Fixture),
) {
    let config = without_deadlines().close_timeout(close_timeout);
    let fixture = Fixture::of(&EventLoop::new().unwrap(), config, set);
    let runners = [runner(&fixture.event_loop), runner(&fixture.event_loop)];
    test(&fixture);
    fixture.event_loop.stop();
    runners.into_iter().for_each(|it| _ = it.join().unwrap());
}

#[test]
fn pitfall_a_timer_that_a_busy_thread_sets_on_a_connection_wakes_one_that_sleeps() {
    within_time(|| {
        let set = |server: &mut Server, log: &Log| {
            let it = log.clone();
            server.on_message(move |_, context| {
                let_time_pass(Duration::from_millis(50), "the other thread goes to sleep");
                let it = it.clone();
                context.set_timer(Duration::from_millis(5), move |_, _| it.add("timer"));
            });
        };
        two_threads(FAR, set, |fixture| {
            let peer = fixture.open_elsewhere();
            for fired in 1..=3 {
                peer.write(text("hi"));
                eventually("the timer", || fixture.log.count("timer") == fired);
            }
        });
    });
}

#[test]
fn pitfall_a_deadline_that_a_busy_thread_brings_about_wakes_one_that_sleeps() {
    within_time(|| {
        let set = |server: &mut Server, _: &Log| {
            server.on_message(|_, context| {
                let_time_pass(Duration::from_millis(50), "the other thread goes to sleep");
                context.close(CloseCode::NORMAL, "").unwrap();
            });
        };
        two_threads(Duration::from_millis(20), set, |fixture| {
            let peer = fixture.open_elsewhere();
            peer.write(text("hi")); // and it does not answer the Close
            eventually("the end", || fixture.log.has("close, failed"));
        });
    });
}

#[test]
fn pitfall_what_a_busy_thread_leaves_for_later_is_not_left_to_one_that_sleeps() {
    within_time(|| {
        let set = |server: &mut Server, log: &Log| {
            let it = log.clone();
            server.on_message(move |message, _| {
                let_time_pass(Duration::from_millis(2), "the rest arrives meanwhile");
                it.add(message.as_bytes().len().to_string());
            });
        };
        two_threads(FAR, set, |fixture| {
            let peer = fixture.open_elsewhere();
            // About what is read in a turn, and more or less.
            for messages in [24, 30, 36, 47] {
                fixture.log.take();
                let mut writer = peer.writer();
                let thread = thread::spawn(move || {
                    let message = masked(2, &vec![7; 50_000]);
                    writer.write_all(&message.repeat(messages)).unwrap();
                });
                eventually("all of them", || fixture.log.count("50000") == messages);
                thread.join().unwrap();
            }
        });
    });
}

/// However long a thread has slept while another looked after the sockets.
#[test]
fn a_thread_that_has_rested_knows_the_time() {
    const SILENCE: Duration = Duration::from_millis(1500);
    within_time(|| {
        let oldest = Arc::new(Mutex::new(Duration::ZERO));
        let inside = Count::default();
        let (seen, count) = (oldest.clone(), inside.clone());
        let fixture = Fixture::with(|server, _| {
            server.on_message(move |_, context| {
                let now = anyloop::proto::Instant::from(std::time::Instant::now());
                let mut oldest = seen.lock().unwrap();
                *oldest = (*oldest).max(now - context.now());
                drop(oldest);
                count.add();
                eventually("the other thread", || count.get() >= 2);
            });
        });
        let peers = [fixture.open(), fixture.open()];
        let threads = [(); 2].map(|()| {
            let event_loop = fixture.event_loop.clone();
            thread::spawn(move || event_loop.run())
        });
        let_time_pass(SILENCE, "a clock that is not read grows old");
        for peer in &peers {
            peer.write(text("x"));
        }
        eventually("both", || inside.get() == 2);
        fixture.event_loop.stop();
        for thread in threads {
            thread.join().unwrap();
        }
        let oldest = *oldest.lock().unwrap();
        assert!(oldest < SILENCE / 2, "the time was {oldest:?} old");
    });
}
