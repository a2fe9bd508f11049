//! Four threads inside `run`, and two hundred connections that they serve.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex, PoisonError, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use anyloop::endpoint::{HandlerFactory, Unsent};
use anyloop::event_loop::LoopHandle;
use anyloop::net::Server;
use anyloop::prelude::*;
use anyloop_testkit::frames::{self, Frame};
use anyloop_testkit::peer::{End, Peer};
use anyloop_testkit::requests::SWITCHING;
use anyloop_testkit::wait::{PATIENCE, eventually};
use anyloop_testkit::watchdog::within_time;

use crate::fixture::{described, server_config, without_deadlines};
use crate::harness::{Count, Counted, Drops};
use crate::wire::{close, request, text};

const RUNNERS: usize = 4;
const PEERS: usize = 200;

/// Runs a test within time, and no other of these beside it: two such tests together would have more
/// descriptors than some machines allow.
fn alone(test: impl FnOnce() + Send + 'static) {
    static PLACE: Mutex<()> = Mutex::new(());
    let _place = PLACE.lock().unwrap_or_else(PoisonError::into_inner);
    within_time(test);
}

/// The server's side of a connection. It returns the messages `0`, `1`, ..., and does what others say.
struct Member {
    is_inside: Arc<AtomicBool>,
    received: usize,
    seen: Arc<Seen>,
    _counted: Counted,
}

/// What all of them share with the test.
struct Seen {
    event_loop: LoopHandle,
    /// All calls.
    calls: Count,
    overlaps: Count,
    messages: Count,
    closed: Count,
    drained: Count,
    dropped: Drops,
    /// How many handlers have come to the present meeting.
    met: AtomicUsize,
    /// A handler waits, and for what.
    blocks: Mutex<mpsc::Sender<()>>,
    go: Mutex<mpsc::Receiver<()>>,
    handle: Mutex<Option<Handle<Member>>>,
}

/// A call that is under way. It ends as well where the handler panics.
struct Inside(Arc<AtomicBool>);

impl Drop for Inside {
    fn drop(&mut self) {
        self.0.store(false, Ordering::SeqCst);
    }
}

impl Member {
    fn enter(&self) -> Inside {
        self.seen.calls.add();
        if self.is_inside.swap(true, Ordering::SeqCst) {
            self.seen.overlaps.add();
        }
        thread::yield_now(); // so that another would come
        Inside(self.is_inside.clone())
    }
}

impl Handler for Member {
    fn validate(&mut self, _: &Request, _: &mut Context<'_, Self>) -> Answer {
        let _inside = self.enter();
        Accept::new().into()
    }

    fn open(&mut self, _: &mut Context<'_, Self>) {
        let _inside = self.enter();
    }

    fn message(&mut self, message: Message<'_>, context: &mut Context<'_, Self>) {
        let _inside = self.enter();
        match described(&message).as_str() {
            "block" => {
                self.seen.blocks.lock().unwrap().send(()).unwrap();
                let go = self.seen.go.lock().unwrap();
                go.recv_timeout(PATIENCE).expect("somebody says go");
            }
            "meet" => {
                // Never reset: a thread that checks late would wait for the next meeting.
                let before = self.seen.met.fetch_add(1, Ordering::SeqCst);
                let all = (before / RUNNERS + 1) * RUNNERS;
                eventually("the others", || self.seen.met.load(Ordering::SeqCst) >= all);
            }
            "handle" => *self.seen.handle.lock().unwrap() = Some(context.handle()),
            "panic" => panic!("in a handler"),
            "stop" => self.seen.event_loop.stop().unwrap(),
            number => {
                // Any other order shows at the peer, by what comes back.
                let number = if number == self.received.to_string() { number } else { "disorder" };
                context.send(number).unwrap();
                self.received += 1;
                self.seen.messages.add();
            }
        }
    }

    fn drained(&mut self, _: &mut Context<'_, Self>) {
        let _inside = self.enter();
        self.seen.drained.add();
    }

    fn close(&mut self, _: &Ending<'_>, _: &mut Context<'_, Self>) {
        let _inside = self.enter();
        self.seen.closed.add();
    }
}

struct Members(Arc<Seen>);

impl HandlerFactory for Members {
    type Handler = Member;

    fn make(&self) -> Member {
        let (is_inside, seen) = (Arc::default(), self.0.clone());
        let _counted = seen.dropped.one();
        Member { is_inside, received: 0, seen, _counted }
    }
}

/// The server, and its peers.
struct LoadTest {
    event_loop: EventLoop,
    server: Server<Members>,
    runners: Vec<JoinHandle<usize>>,
    peers: Peers,
    seen: Arc<Seen>,
    /// A handler waits.
    blocks: mpsc::Receiver<()>,
    go: mpsc::Sender<()>,
}

/// The other ends. Each sends `0`, `1`, ..., and must receive the same.
struct Peers {
    all: Vec<Peer>,
    said: Vec<usize>,
    heard: Vec<usize>,
}

impl Peers {
    /// Has a peer say so many numbers, in one write.
    fn say(&mut self, peer: usize, numbers: usize) {
        let numbers = self.said[peer]..self.said[peer] + numbers;
        self.said[peer] = numbers.end;
        self.all[peer].write(numbers.flat_map(|i| text(i.to_string())).collect::<Vec<_>>());
    }

    /// Has all of these say so many.
    fn all_say(&mut self, peers: impl Iterator<Item = usize>, numbers: usize) {
        peers.for_each(|peer| self.say(peer, numbers));
    }

    /// Waits until all of these have received what they sent.
    #[track_caller]
    fn all_hear(&mut self, peers: impl Iterator<Item = usize>) {
        let mut left: Vec<_> = peers.collect();
        eventually("what the peers have said", || {
            left.retain(|&peer| {
                self.hear(peer);
                self.heard[peer] < self.said[peer]
            });
            left.is_empty()
        });
    }

    /// Takes what has come to a peer.
    #[track_caller]
    fn hear(&mut self, peer: usize) {
        for frame in self.all[peer].poll_frames() {
            assert_eq!(frame, frames::text(self.heard[peer].to_string()), "of peer {peer}");
            self.heard[peer] += 1;
        }
    }
}

/// A peer that asks for a WebSocket.
fn newcomer(server: &Server<Members>) -> Peer {
    let peer = Peer::connect(server.local_addr().unwrap());
    peer.write(request("/"));
    peer
}

/// Waits until these have been let in.
#[track_caller]
fn await_heads(peers: &mut [Peer]) {
    let mut left: Vec<_> = peers.iter_mut().collect();
    eventually("the handshakes", || {
        left.retain_mut(|peer| match peer.poll_head() {
            Some(head) => !head.starts_with(SWITCHING),
            None => true,
        });
        left.is_empty()
    });
}

impl LoadTest {
    fn new() -> Self {
        Self::with(without_deadlines())
    }

    /// The same with this configuration.
    fn with(config: ServerConfig) -> Self {
        let event_loop = EventLoop::new().unwrap();
        let ((sender, blocks), (go, receiver)) = (mpsc::channel(), mpsc::channel());
        let seen = Arc::new(Seen {
            event_loop: event_loop.handle(),
            calls: Count::default(),
            overlaps: Count::default(),
            messages: Count::default(),
            closed: Count::default(),
            drained: Count::default(),
            dropped: Drops::default(),
            met: AtomicUsize::new(0),
            blocks: Mutex::new(sender),
            go: Mutex::new(receiver),
            handle: Mutex::default(),
        });
        let server = Server::with_factory_on(&event_loop, config, Members(seen.clone()));
        server.listen("127.0.0.1:0").unwrap();
        server.start_accept().unwrap();
        let runners = (0..RUNNERS).map(|_| runner(&event_loop)).collect();
        let mut all: Vec<_> = (0..PEERS).map(|_| newcomer(&server)).collect();
        await_heads(&mut all);
        eventually("the opening of all", || seen.calls.get() == 2 * PEERS);
        let peers = Peers { all, said: vec![0; PEERS], heard: vec![0; PEERS] };
        Self { event_loop, server, runners, peers, seen, blocks, go }
    }

    /// The server's end of a peer.
    fn handle(&self, peer: usize) -> Handle<Member> {
        self.peers.all[peer].write(text("handle"));
        let mut handle = None;
        eventually("the handle", || {
            handle = self.seen.handle.lock().unwrap().take();
            handle.is_some()
        });
        handle.unwrap()
    }

    /// Waits until all run calls have returned; returns how many handlers they have called.
    fn join(&mut self) -> usize {
        eventually("the end of all run calls", || self.runners.iter().all(JoinHandle::is_finished));
        self.runners.drain(..).map(|it| it.join().unwrap()).sum()
    }
}

fn runner(event_loop: &EventLoop) -> JoinHandle<usize> {
    let runs = event_loop.clone();
    thread::spawn(move || runs.run())
}

#[test]
fn handlers_of_one_connection_never_overlap_and_those_of_four_do() {
    alone(|| {
        const ROUNDS: usize = 5;
        const POSTS: usize = 4; // of each thread to each connection
        let mut load = LoadTest::new();
        let handles = Arc::new(load.server.connections());
        let posted = Count::default();
        let post = |_| {
            let (handles, posted) = (handles.clone(), posted.clone());
            thread::spawn(move || {
                for handle in handles.iter().cycle().take(POSTS * PEERS) {
                    let posted = posted.clone();
                    let f = move |member: &mut Member, _: &mut Context<'_, Member>| {
                        let _inside = member.enter();
                        posted.add();
                    };
                    handle.post(f).unwrap();
                }
            })
        };
        let posting: Vec<_> = (0..2).map(post).collect();
        for round in 0..ROUNDS {
            load.peers.all_say(0..PEERS / 2, 4);
            for guest in 0..RUNNERS {
                load.peers.all[round + guest * 50].write(text("meet"));
            }
            load.peers.all_say(PEERS / 2..PEERS, 4);
            load.peers.all_hear(0..PEERS); // after those who meet have met
            let met = RUNNERS * (round + 1);
            eventually("the meeting", || load.seen.met.load(Ordering::SeqCst) == met);
        }
        posting.into_iter().for_each(|it| it.join().unwrap());
        eventually("what was posted", || posted.get() == 2 * POSTS * PEERS);
        load.event_loop.stop();
        assert_eq!(load.join(), load.seen.calls.get());
        assert_eq!(load.seen.calls.get(), PEERS * (2 + 4 * ROUNDS + 2 * POSTS) + ROUNDS * RUNNERS);
        assert_eq!(load.seen.overlaps.get(), 0);
    });
}

/// Each time the loop is at rest when the message comes, so that it is the thread that has waited at the
/// sockets, most likely, that blocks; and in the end one thread is left, whichever it is.
#[test]
fn handlers_that_block_delay_their_own_connections_only() {
    alone(|| {
        let mut load = LoadTest::new();
        for round in 0..4 {
            let blocked = [round, 60 + round, 120 + round];
            for (others, &peer) in blocked.iter().enumerate() {
                load.peers.all[peer].write(text("block"));
                load.blocks.recv_timeout(PATIENCE).unwrap();
                load.peers.say(peer, 5);
                let blocked = &blocked[..=others];
                let is_free = |peer: &usize| !blocked.contains(peer);
                for _ in 0..2 {
                    load.peers.all_say((0..PEERS).filter(is_free), 2);
                    load.peers.all_hear((0..PEERS).filter(is_free));
                }
                load.peers.all.push(newcomer(&load.server)); // accepting goes on as well
                await_heads(&mut load.peers.all[PEERS..]);
                load.peers.all.truncate(PEERS);
                for &peer in blocked {
                    assert_eq!(load.peers.all[peer].poll_frame(), None);
                }
            }
            blocked.iter().for_each(|_| load.go.send(()).unwrap());
            load.peers.all_hear(0..PEERS);
        }
        load.event_loop.stop();
        load.join();
        assert_eq!(load.seen.overlaps.get(), 0);
    });
}

#[test]
fn a_stop_ends_all_run_calls_and_what_comes_in_between_waits_for_the_reset() {
    alone(|| {
        let mut load = LoadTest::new();
        let handles = load.server.connections();
        let (mut ran, posted) = (0, Count::default());
        for round in 1..=4 {
            load.peers.all_say(0..PEERS / 2, 5);
            load.event_loop.stop();
            load.peers.all_say(PEERS / 2..PEERS, 5);
            ran += load.join();
            assert_eq!(ran, load.seen.calls.get());
            load.peers.all_say(0..PEERS, 3);
            for handle in &handles {
                let posted = posted.clone();
                let f = move |member: &mut Member, _: &mut Context<'_, Member>| {
                    let _inside = member.enter();
                    posted.add();
                };
                handle.post(f).unwrap();
            }
            let mut newcomers: Vec<_> = (0..5).map(|_| newcomer(&load.server)).collect();
            assert_eq!((load.event_loop.run(), ran), (0, load.seen.calls.get()));
            load.event_loop.reset().unwrap();
            load.runners = (0..RUNNERS).map(|_| runner(&load.event_loop)).collect();
            load.peers.all_hear(0..PEERS);
            await_heads(&mut newcomers);
            eventually("what was posted", || posted.get() == round * PEERS);
            newcomers.iter().for_each(|peer| peer.write_last(close(1000)));
            eventually("the end of the newcomers", || load.seen.closed.get() == 5 * round);
        }
        assert_eq!(load.seen.messages.get(), 4 * 8 * PEERS);
        // And in the end all of them go, and with the last connection the work.
        load.server.stop_listening();
        load.peers.all.iter().for_each(|peer| peer.write_last(close(1000)));
        ran += load.join();
        for peer in &mut load.peers.all {
            eventually("the end", || peer.is_over());
            assert_eq!(peer.poll_frames(), [frames::close(1000, "")]);
            assert_eq!(peer.poll_end(), Some(End::Eof));
        }
        assert_eq!((ran, load.seen.overlaps.get()), (load.seen.calls.get(), 0));
        assert_eq!(load.seen.dropped.count(), PEERS + 20);
    });
}

#[test]
fn a_panic_comes_out_of_one_run_call_and_costs_one_connection() {
    alone(|| {
        let mut load = LoadTest::new();
        let mut alive: Vec<_> = (0..PEERS).collect();
        for left in (1..RUNNERS).rev() {
            let panics = alive.remove(left * 40);
            let mut rest = alive.clone();
            let behind = rest.split_off(left * 40);
            load.peers.all_say(rest.into_iter(), 3);
            load.peers.all[panics].write([text("panic"), text("never")].concat());
            load.peers.all_say(behind.into_iter(), 3);
            load.peers.all_hear(alive.iter().copied());
            let peer = &mut load.peers.all[panics];
            eventually("the Close", || {
                peer.poll_frame().is_some_and(|it| it.close_code() == Some(1011))
            });
            peer.finish();
            eventually("the end", || peer.is_over());
            assert_eq!(peer.poll_frames(), []);
            eventually("`close`", || load.seen.closed.get() == RUNNERS - left);
            eventually("the end of a run call", || {
                load.runners.iter().any(JoinHandle::is_finished)
            });
            let (ended, running): (Vec<_>, _) =
                load.runners.drain(..).partition(JoinHandle::is_finished);
            load.runners = running;
            let ended: Vec<_> = ended.into_iter().map(|it| it.join().unwrap_err()).collect();
            assert_eq!(ended.len(), 1);
            assert_eq!(ended[0].downcast_ref(), Some(&"in a handler"));
            // The others go on, with the threads that are left.
            load.peers.all_say(alive.iter().copied(), 3);
            load.peers.all_hear(alive.iter().copied());
            assert_eq!(load.runners.iter().filter(|it| !it.is_finished()).count(), left);
            eventually("the end of its descriptor", || {
                load.server.connections().len() == alive.len()
            });
        }
        load.event_loop.stop();
        load.join();
        assert_eq!(load.seen.dropped.count(), RUNNERS - 1);
    });
}

#[test]
fn when_its_last_run_call_ends_a_loop_without_other_owners_closes_its_sockets() {
    alone(|| {
        let mut load = LoadTest::new();
        let handles = load.server.connections();
        let LoadTest { event_loop, server, runners, peers, seen, .. } = &mut load;
        let handle = event_loop.handle();
        // From now on they are the runners' alone.
        *event_loop = EventLoop::new().unwrap();
        *server = Server::with_factory(server_config(), Members(seen.clone())).unwrap();
        peers.all_say(0..PEERS, 3);
        peers.all_hear(0..PEERS);
        assert!(!handle.is_gone());
        peers.all_say(0..PEERS / 2, 3);
        peers.all[7].write(text("stop"));
        peers.all_say(PEERS / 2..PEERS, 3);
        eventually("the end of all run calls", || runners.iter().all(JoinHandle::is_finished));
        runners.drain(..).for_each(|it| _ = it.join().unwrap());
        assert!(handle.is_gone());
        assert_eq!((seen.dropped.count(), seen.closed.get()), (PEERS, 0)); // `close` is not called
        for (peer, of) in peers.all.iter_mut().zip(&handles) {
            eventually("the end", || peer.is_over());
            assert_eq!(of.send("hello"), Err(SendError::Gone));
        }
        (0..PEERS).for_each(|peer| peers.hear(peer)); // what came before the end is right
    });
}

/// A thread that sends `thread:0`, `thread:1`, ... to a connection, and what has become of them.
#[derive(Default)]
struct Sender {
    /// How many were reported as sent.
    sent: Arc<AtomicUsize>,
    /// A message was reported as sent that should not have been.
    late: Arc<AtomicBool>,
}

impl Sender {
    fn send(
        &self,
        handle: &Handle<Member>,
        message: &str,
        is_late: bool,
    ) -> Result<Sent, SendError> {
        let (sent, late) = (self.sent.clone(), self.late.clone());
        handle.send_then(message, move |result: Result<(), Unsent>| {
            if result.is_ok() {
                sent.fetch_add(1, Ordering::SeqCst);
                late.fetch_or(is_late, Ordering::SeqCst);
            }
        })
    }
}

/// Takes messages of senders: each must be behind those of its thread that have come before.
#[derive(Default)]
struct Taken {
    /// The least number of each thread that may come.
    next: [usize; 9],
    /// How many of each there were.
    count: [usize; 9],
}

impl Taken {
    #[track_caller]
    fn take(&mut self, frame: &Frame) {
        assert_eq!(frame.opcode, 1);
        let message = std::str::from_utf8(&frame.payload).unwrap();
        let (thread, number) = message.trim_end().split_once(':').unwrap();
        let (thread, number): (usize, usize) = (thread.parse().unwrap(), number.parse().unwrap());
        assert!(number >= self.next[thread], "{thread}:{number}, not {}", self.next[thread]);
        self.next[thread] = number + 1;
        self.count[thread] += 1;
    }
}

#[test]
fn what_eight_threads_send_comes_in_order_up_to_the_close() {
    alone(|| {
        const BEFORE: usize = 150;
        const BESIDE: usize = 500;
        let mut load = LoadTest::new();
        let handle = load.handle(0);
        let (barrier, is_closed) = (Arc::new(Barrier::new(9)), Arc::new(AtomicBool::new(false)));
        let start = |thread| {
            let (barrier, is_closed) = (barrier.clone(), is_closed.clone());
            let handle = handle.clone();
            thread::spawn(move || {
                let (sender, mut number) = (Sender::default(), 0);
                let mut send = |is_late| {
                    let message = format!("{thread}:{number}");
                    number += 1;
                    sender.send(&handle, &message, is_late)
                };
                (0..BEFORE).for_each(|_| _ = send(false).unwrap());
                barrier.wait();
                // Some of these come before the Close, and some do not.
                for _ in 0..BESIDE {
                    if send(is_closed.load(Ordering::SeqCst)).is_err() {
                        break;
                    }
                }
                eventually("the Close", || is_closed.load(Ordering::SeqCst));
                eventually("the end", || send(true) == Err(SendError::Gone));
                sender
            })
        };
        let threads: Vec<_> = (0..8).map(start).collect();
        load.peers.all_say(1..PEERS, 5);
        barrier.wait(); // all have sent so much
        handle.close(CloseCode::NORMAL, "").unwrap();
        is_closed.store(true, Ordering::SeqCst);
        let (mut taken, peer) = (Taken::default(), &mut load.peers.all[0]);
        let mut closed = None;
        eventually("the Close", || {
            while let Some(frame) = peer.poll_frame() {
                if frame.opcode == 8 {
                    closed = Some(frame);
                    break;
                }
                taken.take(&frame);
            }
            closed.is_some()
        });
        assert_eq!(closed, Some(frames::close(1000, "")));
        peer.write_last(close(1000));
        eventually("the end", || peer.is_over());
        assert_eq!((peer.poll_end(), peer.input.len()), (Some(End::Eof), 0)); // nothing behind it
        assert_eq!(taken.count, taken.next); // without a gap
        for (thread, taken) in threads.into_iter().zip(taken.count) {
            let sender = thread.join().unwrap();
            assert!(taken >= BEFORE);
            assert_eq!(taken, sender.sent.load(Ordering::SeqCst));
            assert!(!sender.late.load(Ordering::SeqCst), "it was sent behind the Close");
        }
        load.peers.all_hear(1..PEERS);
        load.event_loop.stop();
        load.join();
        assert_eq!((load.seen.closed.get(), load.seen.overlaps.get()), (1, 0));
    });
}

#[test]
fn that_a_peer_does_not_read_is_seen_by_all_who_send_to_it() {
    alone(|| {
        const CAP: usize = 1 << 20;
        // What comes while the connection takes the mailbox is judged by what waited before, twice at
        // most: so some thread gets `Backpressure` before there is no room.
        const HIGH: usize = CAP / 4;
        let config =
            without_deadlines().low_water_mark(CAP / 8).high_water_mark(HIGH).max_send_buffer(CAP);
        let mut load = LoadTest::with(config);
        let handle = load.handle(0);
        let start = |thread| {
            let handle = handle.clone();
            thread::spawn(move || {
                let (sender, begun, mut pressed) = (Sender::default(), Instant::now(), false);
                let mut last = None;
                for number in 0.. {
                    assert!(begun.elapsed() < PATIENCE, "there is always room");
                    let message = format!("{thread}:{number:<20000}");
                    match sender.send(&handle, &message, false) {
                        Ok(sent) => pressed |= sent == Sent::Backpressure,
                        Err(error) => {
                            last = Some((error, message.len()));
                            break;
                        }
                    }
                }
                let (error, message) = last.unwrap();
                let SendError::SendBufferFull { waiting, message: refused, limit, .. } = error
                else {
                    panic!("{error}");
                };
                assert_eq!((refused, limit), (message, CAP));
                assert!(waiting + message > CAP);
                (sender, pressed)
            })
        };
        let threads: Vec<_> = (0..8).map(start).collect();
        let senders: Vec<_> = threads.into_iter().map(|it| it.join().unwrap()).collect();
        assert!(senders.iter().any(|(_, pressed)| *pressed), "no thread has got `Backpressure`");
        // The socket may have taken more since: this fills it up.
        let (more, mut number) = (Sender::default(), 0);
        eventually("more than the socket takes", || {
            let is_full = handle.buffered_amount() > CAP / 2;
            if !is_full && more.send(&handle, &format!("8:{number:<20000}"), false).is_ok() {
                number += 1;
            }
            is_full
        });
        // Other connections are not affected.
        load.peers.all_say(1..PEERS, 3);
        load.peers.all_hear(1..PEERS);
        let (mut taken, peer) = (Taken::default(), &mut load.peers.all[0]);
        eventually("all that waits", || {
            peer.poll_frames().iter().for_each(|frame| taken.take(frame));
            handle.buffered_amount() == 0 && load.seen.drained.get() > 0
        });
        assert_eq!(handle.send("last"), Ok(Sent::Sent));
        eventually("the last", || match peer.poll_frame() {
            Some(frame) if frame == frames::text("last") => true,
            frame => {
                frame.iter().for_each(|frame| taken.take(frame));
                false
            }
        });
        let senders = senders.iter().map(|(sender, _)| sender).chain([&more]);
        // What was accepted and had no room when its turn came was reported as unsent.
        for (sender, taken) in senders.zip(taken.count) {
            assert_eq!(taken, sender.sent.load(Ordering::SeqCst));
        }
        load.event_loop.stop();
        load.join();
    });
}
