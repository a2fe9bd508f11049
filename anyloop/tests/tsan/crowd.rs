//! Threads outside of the loop that call everything on it and on its connections.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::ops::ControlFlow;
use std::os::unix::net::UnixStream;
use std::sync::PoisonError;
use std::time::Duration;

use anyloop::event_loop::{LoopHandle, Timer, Watch, WatchMode};
use anyloop::prelude::*;
use anyloop::proto::Role;
use anyloop_testkit::frames;
use anyloop_testkit::requests::REQUEST;

use crate::fleeting::{self, Fleeting};
use crate::steady::{Connected, Echo, PUSH, Served, Talker};
use crate::traced::Mutex;
use crate::{Count, Dice, panic_on_purpose};

/// A delay that does not pass during the test.
pub(crate) const FAR: Duration = Duration::from_secs(24 * 3600);

/// The most fleeting connections of the client that are kept at a time.
const MOST: usize = 24;

/// The numbers of requests, and of their results.
#[derive(Debug, Default)]
pub(crate) struct Asked {
    /// Messages that talkers sent.
    pub(crate) sent: Count,
    /// Completions: of messages that were sent with one, and called.
    pub(crate) completions: [Count; 2],
    /// Messages that a server broadcast.
    pub(crate) pushed: Count,
    /// Functions and interrupts on steady connections.
    pub(crate) posted: Count,
    /// Functions on the loop: posted, and called.
    pub(crate) tasks: [Count; 2],
    pub(crate) timers: [Count; 2],
    /// Watches: begun, and dropped.
    pub(crate) watches: [Count; 2],
}

/// All that the threads share.
pub(crate) struct Crowd {
    pub(crate) event_loop: EventLoop,
    pub(crate) handle: LoopHandle,
    pub(crate) asked: &'static Asked,
    /// The steady connections of the client, and their server.
    pub(crate) talkers: Vec<Handle<Talker>>,
    pub(crate) steady: Served<Echo>,
    /// The address of a server for plain sockets.
    pub(crate) plain: SocketAddr,
    pub(crate) fleeting: Served<Fleeting>,
    pub(crate) client: Connected<Fleeting>,
    /// What one thread has made, and another ends.
    pub(crate) connections: Mutex<Vec<Handle<Fleeting>>>,
    pub(crate) timers: Mutex<Vec<Timer>>,
    pub(crate) watches: Mutex<Vec<(Watch, UnixStream)>>,
}

/// Counts once when it is dropped.
struct Dropped(&'static Count);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.add(1);
    }
}

fn put<T>(shelf: &Mutex<Vec<T>>, it: T) {
    shelf.lock().unwrap_or_else(PoisonError::into_inner).push(it);
}

pub(crate) fn take<T>(shelf: &Mutex<Vec<T>>, dice: &mut Dice) -> Option<T> {
    let mut all = shelf.lock().unwrap_or_else(PoisonError::into_inner);
    match all.len() {
        0 => None,
        len => Some(all.swap_remove(dice.roll(len))),
    }
}

impl Crowd {
    /// Calls so many random functions, on one thread.
    pub(crate) fn run(&self, dice: &mut Dice, steps: usize) {
        for _ in 0..steps {
            match dice.roll(16) {
                0..=4 => self.talk(dice),
                5..=8 => self.make_or_end_connections(dice),
                9..=10 => self.call(dice),
                11..=13 => self.use_timers(dice),
                14 => self.use_watches(dice),
                _ => self.ask(dice),
            }
        }
    }

    /// Uses the steady connections.
    fn talk(&self, dice: &mut Dice) {
        let (talker, asked) = (&self.talkers[dice.roll(self.talkers.len())], self.asked);
        let is_sent = |result: Result<Sent, SendError>| match result {
            Ok(sent) => assert!(sent.is_on_its_way()),
            Err(error) => panic!("the connection is there, and has room: {error}"),
        };
        match dice.roll(10) {
            0 => {
                is_sent(talker.send(&vec![3; 100_000][..]));
                asked.sent.add(1);
            }
            1..=3 => {
                is_sent(talker.send(&vec![5; 1 + dice.roll(300)][..]));
                asked.sent.add(1);
            }
            4 => {
                let [begun, done] = &asked.completions;
                let completion = |result: Result<(), _>| {
                    assert!(result.is_ok());
                    done.add(1);
                };
                is_sent(talker.send_then(&b"and then"[..1], completion));
                asked.sent.add(1);
                begun.add(1);
            }
            5 => _ = asked.pushed.add(self.steady.broadcast(&Prepared::new(PUSH))),
            6 => talker.ping(b"are you there?").unwrap(),
            7 => {
                talker.post(|talker, _| talker.post()).unwrap();
                let soon = Duration::from_millis(dice.roll(3) as u64);
                talker.set_timer(soon, |talker, _| talker.post()).unwrap();
                asked.posted.add(2);
            }
            8 => {
                talker.pause_reading().unwrap();
                talker.resume_reading().unwrap();
            }
            _ => {
                let all = self.steady.connections();
                all[dice.roll(all.len())].interrupt().unwrap();
                asked.posted.add(1);
            }
        }
    }

    /// Makes and ends fleeting connections, at either end.
    fn make_or_end_connections(&self, dice: &mut Dice) {
        let address = self.fleeting.local_addr().expect("it listens");
        match dice.roll(8) {
            0..=1 => {
                let uri = fleeting::uri(address, dice.roll(2) == 0);
                put(&self.connections, self.client.connect(uri.as_str()).unwrap());
                let is_full = || self.connections.lock().is_ok_and(|all| all.len() > MOST);
                if is_full() {
                    if let Some(one) = take(&self.connections, dice) {
                        let _ = one.close(CloseCode::NORMAL, "too many"); // it may be over
                    }
                }
            }
            2 => fleeting::call_and_hang_up(address, REQUEST.as_bytes(), dice.roll(2) == 0),
            3 => fleeting::call_and_hang_up(address, b"GET", dice.roll(2) == 0),
            4 => self.converse(),
            5 => {
                let all = self.fleeting.connections();
                for one in all.iter().take(3) {
                    // It may be over, whatever is asked.
                    let _ = match dice.roll(4) {
                        0 => one.close(CloseCode::GOING_AWAY, "the server's end"),
                        1 => one.post(|handler, _| handler.post()),
                        2 => one.send(&[9; 50_000][..]).map(drop),
                        _ => one.ping(b""),
                    };
                }
            }
            _ => {
                let Some(one) = take(&self.connections, dice) else { return };
                let words = ["close", "panic", "pause", "echo", "nothing"][dice.roll(5)];
                let _ = one.send(words);
                let _ = match dice.roll(4) {
                    0 => one.post(|handler, _| handler.post()),
                    1 => one.post(|_, _| panic_on_purpose()),
                    2 => one.close(CloseCode::NORMAL, ""),
                    _ => Ok(()),
                };
                if dice.roll(2) == 0 {
                    put(&self.connections, one);
                }
            }
        }
    }

    /// A whole conversation over a plain socket.
    fn converse(&self) {
        let mut stream = TcpStream::connect(self.plain).unwrap();
        let mut expect = |words: &[u8], answer: &[u8]| {
            stream.write_all(words).unwrap();
            let mut heard = Vec::new();
            let mut byte = [0];
            while !heard.ends_with(answer) {
                stream.read_exact(&mut byte).unwrap();
                // Pings are skipped: they contain no answer.
                heard.push(byte[0]);
            }
        };
        expect(REQUEST.as_bytes(), b"\r\n\r\n");
        for frame in [frames::text("0"), frames::close(1000, "")] {
            expect(&frame.bytes(Role::Client), &frame.bytes(Role::Server));
        }
    }

    /// Posts functions to the loop.
    fn call(&self, dice: &mut Dice) {
        let [begun, done] = &self.asked.tasks;
        begun.add(1);
        match dice.roll(6) {
            0 => self.event_loop.post(|| _ = done.add(1)),
            1 => self.handle.post(|| _ = done.add(1)).unwrap(),
            2 => self.event_loop.dispatch(|| _ = done.add(1)),
            3 => {
                // A handler that runs other handlers.
                let inner = self.event_loop.clone();
                self.event_loop.post(move || {
                    crate::survive(|| inner.poll_one());
                    done.add(1);
                });
            }
            4 => {
                let inner = self.handle.clone();
                let last = || _ = done.add(1);
                self.handle.post(move || inner.dispatch(last).unwrap()).unwrap();
            }
            _ => self.event_loop.post(|| {
                done.add(1);
                panic_on_purpose();
            }),
        }
    }

    /// Sets a timer, and cancels one of another thread's.
    fn use_timers(&self, dice: &mut Dice) {
        let [begun, done] = &self.asked.timers;
        let soon = Duration::from_micros(dice.roll(3000) as u64);
        let delay = if dice.roll(2) == 0 { FAR } else { soon };
        begun.add(1);
        let timer = match dice.roll(2) {
            0 => self.event_loop.set_timer_then(delay, |_| _ = done.add(1)),
            _ => self.handle.set_timer_then(delay, |_| _ = done.add(1)).unwrap(),
        };
        put(&self.timers, timer);
        if let Some(timer) = take(&self.timers, dice) {
            match dice.roll(3) {
                0 => put(&self.timers, timer),
                _ => timer.cancel(),
            }
        }
    }

    /// Begins a watch, and ends one of another thread's.
    fn use_watches(&self, dice: &mut Dice) {
        let [begun, done] = &self.asked.watches;
        begun.add(1);
        let (near, mut far) = UnixStream::pair().unwrap();
        near.set_nonblocking(true).unwrap();
        let dropped = Dropped(done);
        let watch = self.event_loop.watch(near, WatchMode::Read, move |near, _| {
            let _ = &dropped;
            let mut bytes = [0; 8];
            match near.read(&mut bytes) {
                Ok(count) if bytes[..count].contains(&b'.') || count == 0 => ControlFlow::Break(()),
                _ => ControlFlow::Continue(()),
            }
        });
        far.write_all(b"once upon a time").unwrap();
        put(&self.watches, (watch.unwrap(), far));
        if let Some((watch, mut far)) = take(&self.watches, dice) {
            match dice.roll(4) {
                0 => watch.cancel(),
                1 => _ = far.write_all(b"."), // it may be over
                2 => drop(far),
                _ => put(&self.watches, (watch, far)),
            }
        }
    }

    /// Calls getters.
    fn ask(&self, dice: &mut Dice) {
        let talker = &self.talkers[dice.roll(self.talkers.len())];
        let _ = (talker.state(), talker.buffered_amount(), talker.id());
        let _ = (self.event_loop.next_timeout(), self.event_loop.stopped());
        let _ = (self.fleeting.counters(), self.client.counters(), self.steady.counters());
        let _ = (self.client.connections().len(), self.steady.is_accepting());
        drop(self.handle.keep_alive().unwrap());
    }
}
