//! A transport written by the steps in [`anyloop::transport::stub`]: two pipes in memory, each with
//! room for so many bytes at a time.
//!
//! It lends memory for large payloads (`want`), which the other transports of the tests do not.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::Wake;

use anyloop::endpoint::{
    Client, Handle, Handler, HandlerFactory, Server, Session, TransportEndpoint,
};
use anyloop::proto::handshake::{RequestError, Target};
use anyloop::proto::{Instant, Shutdown, TransportError};
use anyloop::transport::{Buffers, Driver, Peer, Transport};

use crate::carrier::{Carrier, Clock, End};

/// One direction. Clones are the same.
#[derive(Clone, Default)]
pub(crate) struct Pipe(Arc<Mutex<Contents>>);

pub(crate) struct Contents {
    bytes: VecDeque<u8>,
    /// The most bytes that are under way at a time.
    window: usize,
    /// Nothing will be added.
    ended: bool,
    broken: bool,
}

impl Default for Contents {
    fn default() -> Self {
        Self { bytes: VecDeque::new(), window: usize::MAX, ended: false, broken: false }
    }
}

impl Pipe {
    pub(crate) fn with_window(window: usize) -> Self {
        Self(Arc::new(Mutex::new(Contents { window, ..Contents::default() })))
    }

    fn contents(&self) -> MutexGuard<'_, Contents> {
        self.0.lock().unwrap()
    }
}

/// Endpoints keep nothing for their connections over pipes.
#[derive(Default)]
pub(crate) struct Toys;

impl TransportEndpoint for Toys {}

// Step 1: what carries the bytes.
pub(crate) struct Toy {
    outgoing: Pipe,
    flag: Arc<Flag>,
    shutdowns: Vec<Shutdown>,
    writes: usize,
    waited_for: bool,
}

/// Raised when the connection is to be driven.
#[derive(Default)]
struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Release);
    }
}

// Step 2: the meaning of every operation.
impl Transport for Toy {
    fn write(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut pipe = self.outgoing.contents();
        if pipe.broken {
            return Err(ErrorKind::BrokenPipe.into());
        }
        let (mut taken, mut offered) = (0, 0);
        for slice in slices {
            let n = slice.len().min(pipe.window.saturating_sub(pipe.bytes.len()));
            pipe.bytes.extend(&slice[..n]);
            taken += n;
            offered += slice.len();
        }
        self.writes += usize::from(taken > 0);
        self.waited_for = taken < offered;
        Ok(taken)
    }

    fn shutdown(&mut self, how: Shutdown) -> io::Result<()> {
        self.shutdowns.push(how);
        self.outgoing.contents().ended = true;
        Ok(())
    }

    fn is_secure(&self) -> bool {
        true // it never leaves the process
    }

    fn peer(&self) -> Peer {
        Peer::Named("the other end of the pipe".to_string())
    }
}

pub(crate) struct ToyEnd<H: Handler> {
    driver: Driver<Session<H>>,
    toy: Toy,
    buffers: Buffers,
    incoming: Pipe,
    clock: Clock,
    eof_told: bool,
}

impl<H: Handler> ToyEnd<H> {
    // Step 3: where the stream comes to be.
    pub(crate) fn server<F: HandlerFactory<Handler = H>>(
        server: &Server<Toys, F>,
        incoming: Pipe,
        outgoing: Pipe,
        clock: &Clock,
    ) -> Self {
        let flag = Arc::new(Flag::default());
        let driver = server.driver(&flag.clone().into(), clock.now());
        let mut end = Self::new(driver, flag, incoming, outgoing, clock);
        end.start();
        end
    }

    pub(crate) fn client<F: HandlerFactory<Handler = H>>(
        client: &Client<Toys, F>,
        target: &Target,
        incoming: Pipe,
        outgoing: Pipe,
        clock: &Clock,
    ) -> Result<Self, RequestError> {
        let flag = Arc::new(Flag::default());
        let driver = client.driver(target, &flag.clone().into(), clock.now())?;
        Ok(Self::new(driver, flag, incoming, outgoing, clock))
    }

    fn new(
        driver: Driver<Session<H>>,
        flag: Arc<Flag>,
        incoming: Pipe,
        outgoing: Pipe,
        clock: &Clock,
    ) -> Self {
        let toy = Toy { outgoing, flag, shutdowns: Vec::new(), writes: 0, waited_for: false };
        let (buffers, clock) = (Buffers::new(1 << 16), clock.clone());
        Self { driver, toy, buffers, incoming, clock, eof_told: false }
    }

    // Step 4: where things happen.

    /// Does all that there is to do. Returns whether there was any.
    pub(crate) fn turn(&mut self) -> bool {
        let woken = self.is_woken();
        if woken {
            self.drain();
        }
        woken | self.write() | self.read()
    }

    fn write(&mut self) -> bool {
        let room = {
            let pipe = self.toy.outgoing.contents();
            pipe.bytes.len() < pipe.window
        };
        let may = self.toy.waited_for && room;
        if may {
            self.driver.handle_writable(&mut self.toy, &mut self.buffers, self.clock.now());
        }
        may
    }

    /// Reads what is there, and the end behind it.
    fn read(&mut self) -> bool {
        let taken = self.take() > 0;
        let ended = {
            let mut pipe = self.incoming.contents();
            if self.driver.discards_input() {
                pipe.bytes.clear();
            }
            pipe.ended && pipe.bytes.is_empty() && !self.eof_told
        };
        if ended {
            self.eof_told = true;
            self.driver.handle_eof(&mut self.toy, &mut self.buffers, self.clock.now());
        }
        taken || ended
    }

    fn take(&mut self) -> usize {
        let now = self.clock.now();
        let mut total = 0;
        while self.driver.takes_input() {
            let mut bytes: Vec<u8> = {
                let mut pipe = self.incoming.contents();
                let n = pipe.bytes.len().min(4096);
                pipe.bytes.drain(..n).collect()
            };
            if bytes.is_empty() {
                break;
            }
            let len = bytes.len();
            let mut lent = 0;
            if let Some(room) = self.driver.receive_buffer() {
                lent = room.len().min(len);
                room[..lent].copy_from_slice(&bytes[..lent]);
                self.driver.filled(lent);
            }
            let rest = &mut bytes[lent..];
            let taken =
                lent + self.driver.receive_some(&mut self.toy, &mut self.buffers, rest, now);
            total += taken;
            if taken < len {
                let mut pipe = self.incoming.contents();
                for &byte in bytes[taken..].iter().rev() {
                    pipe.bytes.push_front(byte);
                }
                break;
            }
        }
        total
    }
}

/// The toy transport as a carrier: the test holds the other ends of the pipes.
pub(crate) struct Pipes;

impl Carrier for Pipes {
    type Transport = Toys;
    type End<H: Handler> = ToyEnd<H>;

    fn server<F: HandlerFactory + 'static>(
        server: &Server<Toys, F>,
        clock: &Clock,
    ) -> ToyEnd<F::Handler> {
        ToyEnd::server(server, Pipe::default(), Pipe::default(), clock)
    }

    fn client<F: HandlerFactory + 'static>(
        client: &Client<Toys, F>,
        target: &Target,
        clock: &Clock,
    ) -> Result<ToyEnd<F::Handler>, RequestError> {
        ToyEnd::client(client, target, Pipe::default(), Pipe::default(), clock)
    }
}

impl<H: Handler> End<H> for ToyEnd<H> {
    fn start(&mut self) {
        self.driver.start(&mut self.toy, &mut self.buffers, self.clock.now());
    }

    fn feed(&mut self, bytes: &[u8]) -> usize {
        self.incoming.contents().bytes.extend(bytes);
        let taken = self.take();
        self.incoming.contents().bytes.clear();
        taken
    }

    fn eof(&mut self) {
        self.incoming.contents().ended = true;
        self.driver.handle_eof(&mut self.toy, &mut self.buffers, self.clock.now());
    }

    fn reset(&mut self) {
        let (error, now) = (TransportError::Reset, self.clock.now());
        self.driver.handle_error(&mut self.toy, &mut self.buffers, error, now);
    }

    fn take_output(&mut self) -> Vec<u8> {
        let mut pipe = self.toy.outgoing.contents();
        // What the test has read makes no room: it says itself how much there is.
        pipe.window = match pipe.window {
            usize::MAX => usize::MAX,
            window => window - pipe.bytes.len(),
        };
        pipe.bytes.drain(..).collect()
    }

    fn writes(&self) -> usize {
        self.toy.writes
    }

    fn block(&mut self) {
        let mut pipe = self.toy.outgoing.contents();
        pipe.window = pipe.bytes.len();
    }

    fn give_room(&mut self, bytes: usize) {
        {
            let mut pipe = self.toy.outgoing.contents();
            pipe.window = pipe.window.saturating_add(bytes);
        }
        self.write();
    }

    fn fail_write(&mut self) {
        self.toy.outgoing.contents().broken = true;
    }

    fn shutdowns(&self) -> Vec<Shutdown> {
        self.toy.shutdowns.clone()
    }

    fn deadline(&self) -> Option<Instant> {
        self.driver.next_timeout()
    }

    fn handle_timeout(&mut self) {
        self.driver.handle_timeout(&mut self.toy, &mut self.buffers, self.clock.now());
    }

    fn is_woken(&self) -> bool {
        self.toy.flag.0.load(Ordering::Acquire)
    }

    fn drain(&mut self) {
        self.toy.flag.0.store(false, Ordering::Release);
        self.driver.handle_wake(&mut self.toy, &mut self.buffers, self.clock.now());
    }

    fn handle(&mut self) -> Handle<H> {
        self.driver.handle()
    }

    fn is_over(&self) -> bool {
        self.driver.is_closed()
    }
}

/// Both ends, over pipes that hold seven bytes: every write is a short one.
#[test]
fn a_narrow_pipe_carries_everything() {
    use anyloop::endpoint::ClientSettings;
    use anyloop::proto::CloseCode;
    use anyloop::proto::handshake::{OriginPolicy, ServerOptions};

    use crate::record::{Log, recording};

    let log = Log::default();
    let mut server = Server::<Toys>::new(ServerOptions::new(OriginPolicy::Any));
    server.on_message(|message, context| _ = context.send(message));
    let client = Client::<Toys, _>::with_factory(ClientSettings::default(), recording(&log));

    let clock = Clock::default();
    let (up, down) = (Pipe::with_window(7), Pipe::with_window(7));
    let mut server = ToyEnd::server(&server, up.clone(), down.clone(), &clock);
    let target = "ws://localhost/".parse().unwrap();
    let mut client = ToyEnd::client(&client, &target, down, up, &clock).unwrap();
    client.start();

    let large = vec![7; 50_000];
    while client.turn() | server.turn() {}
    let _ = client.handle().send(&large[..]).unwrap();
    let _ = client.handle().send("small").unwrap();
    client.handle().close(CloseCode::NORMAL, "").unwrap();
    while client.turn() | server.turn() {}
    let told = ["open", "binary of 50000", "text small", "close clean by local: 1000/1000"];
    assert_eq!(log.take(), told);
    assert!(client.is_over() && server.is_over());
}
