//! The toy transport under test: the test has the other ends of the pipes.

use std::convert::Infallible;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard};

use anyloop::endpoint::{HandlerFactory, Session};
use anyloop::prelude::*;
use anyloop::proto::handshake::{RequestError, Target};
use anyloop::proto::{Instant, Shutdown, TransportError};
use anyloop::transport::{Client, Driver, Server, StreamProtocol};

use super::{Pipe, ToyEnd};
use crate::transports::{Clock, End, TestTransport};

/// The toy transport, with at most so many handlers in a turn.
pub(crate) struct Bounded<const HANDLERS: u64>;

pub(crate) type Pipes = Bounded<{ u64::MAX }>;
pub(crate) type OneByOne = Bounded<1>;

pub(crate) struct BoundedEnd<P, const HANDLERS: u64> {
    end: ToyEnd<P>,
    clock: Clock,
}

impl<const HANDLERS: u64> TestTransport for Bounded<HANDLERS> {
    type Server<F: HandlerFactory + 'static> = Server<F>;
    type Client<F: HandlerFactory + 'static> = Client<F>;
    type End<H: Handler> = BoundedEnd<Session<H>, HANDLERS>;

    const BATCHES: bool = HANDLERS > 1;

    /// What a connection has no use for yet, its driver keeps.
    fn assert_taken(_: usize, _: usize) {}

    fn new_server<F: HandlerFactory + 'static>(
        config: ServerConfig,
        factory: F,
        _: &Clock,
    ) -> Server<F> {
        Server::with_factory(config, factory)
    }

    fn new_client<F: HandlerFactory + 'static>(
        config: ClientConfig,
        factory: F,
        _: &Clock,
    ) -> Client<F> {
        Client::with_factory(config, factory)
    }

    fn server<F: HandlerFactory + 'static>(
        server: &Server<F>,
        clock: &Clock,
    ) -> BoundedEnd<Session<F::Handler>, HANDLERS> {
        BoundedEnd::of(ToyEnd::server(server, Arc::default(), Arc::default(), clock.now()), clock)
    }

    fn client<F: HandlerFactory + 'static>(
        client: &Client<F>,
        target: &Target,
        clock: &Clock,
    ) -> Result<BoundedEnd<Session<F::Handler>, HANDLERS>, RequestError> {
        let end = ToyEnd::client(client, target, Arc::default(), Arc::default(), clock.now())?;
        Ok(BoundedEnd::of(end, clock))
    }
}

impl<H: Handler> ToyEnd<Session<H>> {
    /// A server's end, started.
    pub(super) fn server<F: HandlerFactory<Handler = H>>(
        server: &Server<F>,
        incoming: Arc<Mutex<Pipe>>,
        outgoing: Arc<Mutex<Pipe>>,
        now: Instant,
    ) -> Self {
        let make = |waker: &_| Ok::<_, Infallible>(server.driver(waker, now));
        let Ok(mut end) = Self::new(incoming, outgoing, make);
        end.start(now);
        end
    }

    /// A client's end, not started.
    pub(super) fn client<F: HandlerFactory<Handler = H>>(
        client: &Client<F>,
        target: &Target,
        incoming: Arc<Mutex<Pipe>>,
        outgoing: Arc<Mutex<Pipe>>,
        now: Instant,
    ) -> Result<Self, RequestError> {
        Self::new(incoming, outgoing, |waker| client.driver(target, waker, now))
    }
}

impl<P: StreamProtocol> ToyEnd<P> {
    pub(super) fn start(&mut self, now: Instant) {
        self.driver.start(&mut self.toy, &mut self.buffers, now);
    }
}

impl<P: StreamProtocol, const HANDLERS: u64> BoundedEnd<P, HANDLERS> {
    fn of(end: ToyEnd<P>, clock: &Clock) -> Self {
        Self { end, clock: clock.clone() }
    }

    /// What the connection sends goes there.
    fn outgoing(&self) -> MutexGuard<'_, Pipe> {
        self.end.toy.outgoing.lock().unwrap()
    }

    fn incoming(&self) -> MutexGuard<'_, Pipe> {
        self.end.incoming.lock().unwrap()
    }

    /// Reports an event, and continues with what the budget has held back.
    fn report(
        &mut self,
        event: impl FnOnce(&mut Driver<P>, &mut super::Toy, &mut super::Buffers, Instant),
    ) {
        let (now, ToyEnd { driver, toy, buffers, .. }) = (self.clock.now(), &mut self.end);
        buffers.budget.set(HANDLERS, None);
        event(driver, toy, buffers, now);
        while driver.wants_resume() {
            buffers.budget.set(HANDLERS, None);
            driver.resume(toy, buffers, now);
        }
    }
}

/// A protocol whose driver has handles.
pub(crate) trait HasHandle<H: Handler>: StreamProtocol + Sized {
    fn handle(driver: &mut Driver<Self>) -> Handle<H>;
}

impl<H: Handler> HasHandle<H> for Session<H> {
    fn handle(driver: &mut Driver<Self>) -> Handle<H> {
        driver.handle()
    }
}

impl<H: Handler, P: HasHandle<H>, const HANDLERS: u64> End<H> for BoundedEnd<P, HANDLERS> {
    fn start(&mut self) {
        self.report(|driver, toy, buffers, now| driver.start(toy, buffers, now));
    }

    fn feed(&mut self, bytes: &[u8]) -> usize {
        self.incoming().bytes.extend(bytes);
        while self.end.driver.wants_input() && !self.incoming().bytes.is_empty() {
            self.end.buffers.budget.set(HANDLERS, None);
            self.end.read(self.clock.now());
            self.report(|_, _, _, _| ());
        }
        // What a paused connection has left in the pipe, the test keeps and feeds again.
        let mut pipe = self.incoming();
        let left = std::mem::take(&mut pipe.bytes);
        bytes.len() - left.len()
    }

    fn eof(&mut self) {
        self.report(|driver, toy, buffers, now| driver.handle_eof(toy, buffers, now));
    }

    fn reset(&mut self) {
        let error = TransportError::Reset;
        self.report(|driver, toy, buffers, now| driver.handle_error(toy, buffers, error, now));
    }

    fn take_output(&mut self) -> Vec<u8> {
        let mut pipe = self.outgoing();
        // Reading makes no room: the test sets it with `give_room`.
        pipe.capacity = pipe.capacity.map(|capacity| capacity - pipe.bytes.len());
        pipe.bytes.drain(..).collect()
    }

    fn writes(&self) -> usize {
        self.outgoing().writes
    }

    fn block(&mut self) {
        let mut pipe = self.outgoing();
        pipe.capacity = Some(pipe.bytes.len());
    }

    fn give_room(&mut self, bytes: usize) {
        {
            let mut pipe = self.outgoing();
            pipe.capacity = pipe.capacity.and_then(|capacity| capacity.checked_add(bytes));
        }
        if std::mem::take(&mut self.end.toy.full) {
            self.report(|driver, toy, buffers, now| driver.handle_writable(toy, buffers, now));
        }
    }

    fn fail_write(&mut self) {
        self.outgoing().broken = true;
    }

    fn shutdowns(&self) -> Vec<Shutdown> {
        self.outgoing().shutdowns.clone()
    }

    fn deadline(&self) -> Option<Instant> {
        self.end.driver.next_timeout()
    }

    fn handle_timeout(&mut self) {
        self.report(|driver, toy, buffers, now| driver.handle_timeout(toy, buffers, now));
    }

    fn is_woken(&self) -> bool {
        self.end.flag.0.load(Ordering::Acquire)
    }

    fn drain(&mut self) {
        self.end.flag.0.store(false, Ordering::Release);
        self.report(|driver, toy, buffers, now| driver.handle_wake(toy, buffers, now));
    }

    fn handle(&mut self) -> Handle<H> {
        P::handle(&mut self.end.driver)
    }

    fn is_over(&self) -> bool {
        self.end.driver.is_closed()
    }
}

#[cfg(feature = "tls-core")]
mod tls {
    use anyloop::endpoint::OverTlsError;
    use anyloop::tls::TlsStream;

    use super::*;
    use crate::tls::{CLIENT, SERVER, TlsTransport};

    impl<H: Handler> HasHandle<H> for TlsStream<Session<H>> {
        fn handle(driver: &mut Driver<Self>) -> Handle<H> {
            driver.handle()
        }
    }

    impl<const HANDLERS: u64> TlsTransport for Bounded<HANDLERS> {
        type TlsEnd<H: Handler> = BoundedEnd<TlsStream<Session<H>>, HANDLERS>;

        fn tls_server<F: HandlerFactory + 'static>(
            server: &Server<F>,
            clock: &Clock,
        ) -> Self::TlsEnd<F::Handler> {
            let make = |waker: &_| server.over_tls(&SERVER).driver(waker, clock.now());
            let mut end = ToyEnd::new(Arc::default(), Arc::default(), make).unwrap();
            end.start(clock.now());
            BoundedEnd::of(end, clock)
        }

        fn tls_client<F: HandlerFactory + 'static>(
            client: &Client<F>,
            target: &Target,
            clock: &Clock,
        ) -> Result<Self::TlsEnd<F::Handler>, RequestError> {
            let make = |waker: &_| client.over_tls(&CLIENT).driver(target, waker, clock.now());
            match ToyEnd::new(Arc::default(), Arc::default(), make) {
                Ok(end) => Ok(BoundedEnd::of(end, clock)),
                Err(OverTlsError::Request(error)) => Err(error),
                Err(error) => panic!("{error}"),
            }
        }
    }
}
