//! A transport that was written by the steps in [`anyloop::transport::stub`]: two pipes in memory. It
//! bounds how many handlers are called in a turn. [`suite`] has what the tests need beside it.

mod bounded;
mod suite;

use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Wake, Waker};

use anyloop::proto::{Instant, Shutdown};
use anyloop::transport::{Buffers, Driver, StreamProtocol, Transport};

pub(crate) use self::suite::{OneByOne, Pipes};

// Step 1: what carries the bytes.
struct Toy {
    outgoing: Arc<Mutex<Pipe>>,
    /// The last write was short.
    full: bool,
}

#[derive(Default)]
struct Pipe {
    bytes: VecDeque<u8>,
    /// How many bytes it holds at most; `None`: any number.
    capacity: Option<usize>,
    /// How many writes it has taken anything of.
    writes: usize,
    shutdowns: Vec<Shutdown>,
    broken: bool,
}

impl Pipe {
    fn room(&self) -> usize {
        self.capacity.map_or(usize::MAX, |capacity| capacity.saturating_sub(self.bytes.len()))
    }
}

// Step 2: the meaning of every operation.
impl Transport for Toy {
    fn write(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut pipe = self.outgoing.lock().unwrap();
        if pipe.broken {
            return Err(ErrorKind::BrokenPipe.into());
        }
        let (room, before) = (pipe.room(), pipe.bytes.len());
        pipe.bytes.extend(slices.iter().flat_map(|slice| &**slice).take(room));
        let taken = pipe.bytes.len() - before;
        pipe.writes += usize::from(taken > 0);
        self.full = taken < slices.iter().map(|slice| slice.len()).sum();
        Ok(taken)
    }

    fn shutdown(&mut self, how: Shutdown) -> io::Result<()> {
        self.outgoing.lock().unwrap().shutdowns.push(how);
        Ok(())
    }
}

/// Raised when there is something to do for a handle.
#[derive(Default)]
struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Release);
    }
}

struct ToyEnd<P> {
    driver: Driver<P>,
    toy: Toy,
    incoming: Arc<Mutex<Pipe>>,
    eof_reported: bool,
    flag: Arc<Flag>,
    buffers: Buffers,
}

impl<P: StreamProtocol> ToyEnd<P> {
    // Step 3: where a stream comes to exist. `make` calls `Server::driver` or `Client::driver`.
    fn new<E>(
        incoming: Arc<Mutex<Pipe>>,
        outgoing: Arc<Mutex<Pipe>>,
        make: impl FnOnce(&Waker) -> Result<Driver<P>, E>,
    ) -> Result<Self, E> {
        let (flag, buffers) = (Arc::<Flag>::default(), Buffers::new(1 << 16));
        let (driver, toy) = (make(&flag.clone().into())?, Toy { outgoing, full: false });
        Ok(Self { driver, toy, incoming, eof_reported: false, flag, buffers })
    }

    // Step 4: what happens, and what to do next. Calls at most so many handlers: what is held back is
    // served by `resume`, each kind in turn. Returns whether there was anything to do.
    fn turn(&mut self, handlers: u64, now: Instant) -> bool {
        let Self { driver, toy, buffers, .. } = self;
        buffers.budget.set(handlers, None);
        let writable = toy.full && toy.outgoing.lock().unwrap().room() > 0;
        if writable {
            toy.full = false;
            driver.handle_writable(toy, buffers, now);
        }
        let resumes = driver.wants_resume();
        if resumes {
            driver.resume(toy, buffers, now);
        }
        let woken = self.flag.0.swap(false, Ordering::AcqRel);
        if woken {
            driver.handle_wake(toy, buffers, now);
        }
        let due = driver.next_timeout().is_some_and(|deadline| deadline <= now);
        if due {
            driver.handle_timeout(toy, buffers, now);
        }
        writable | resumes | woken | due | self.read(now)
    }

    fn read(&mut self, now: Instant) -> bool {
        let Self { driver, toy, buffers, .. } = self;
        if !driver.wants_input() {
            return false;
        }
        let mut pipe = self.incoming.lock().unwrap();
        let mut bytes: Vec<u8> = pipe.bytes.drain(..).collect();
        let ended = !pipe.shutdowns.is_empty() && !self.eof_reported;
        drop(pipe); // handlers may take any time
        if !bytes.is_empty() {
            let mut lent = 0;
            if let Some(buffer) = driver.receive_buffer() {
                lent = buffer.len().min(bytes.len());
                buffer[..lent].copy_from_slice(&bytes[..lent]);
                driver.filled(lent);
            }
            driver.receive(toy, buffers, &mut bytes[lent..], now);
        } else if ended {
            self.eof_reported = true;
            driver.handle_eof(toy, buffers, now);
        }
        ended || !bytes.is_empty()
    }
}
