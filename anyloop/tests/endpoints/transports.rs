//! The transports under test. The same tests run over each.

use std::io::{self, ErrorKind, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyloop::endpoint::{Client, HandlerFactory, Server};
use anyloop::iostream;
use anyloop::prelude::*;
use anyloop::proto::handshake::{RequestError, Target};
use anyloop::proto::{Instant, Shutdown, TransportError};
use anyloop::transport::stepping::{self, Operation};

/// A transport, and how tests make connections over it.
pub(crate) trait TestTransport: 'static {
    type Server<F: HandlerFactory + 'static>: Server<Factory = F>;
    type Client<F: HandlerFactory + 'static>: Client<Factory = F>;
    type End<H: Handler>: End<H>;

    /// Whether time passes by itself, and not only where a test lets it.
    const REAL_TIME: bool = false;

    /// Whether what the handlers of one batch send leaves in one write.
    const BATCHES: bool = true;

    /// So much of what has arrived was taken, as far as can be seen.
    #[track_caller]
    fn assert_taken(taken: usize, expected: usize) {
        assert_eq!(taken, expected);
    }

    fn new_server<F: HandlerFactory + 'static>(
        config: ServerConfig,
        factory: F,
        clock: &Clock,
    ) -> Self::Server<F>;

    fn new_client<F: HandlerFactory + 'static>(
        config: ClientConfig,
        factory: F,
        clock: &Clock,
    ) -> Self::Client<F>;

    /// The server's end of a new connection.
    fn server<F: HandlerFactory + 'static>(
        server: &Self::Server<F>,
        clock: &Clock,
    ) -> Self::End<F::Handler>;

    /// The client's end of a new connection, not started.
    fn client<F: HandlerFactory + 'static>(
        client: &Self::Client<F>,
        target: &Target,
        clock: &Clock,
    ) -> Result<Self::End<F::Handler>, RequestError>;
}

/// One end of a connection, with the test in the place of the network.
pub(crate) trait End<H: Handler> {
    fn start(&mut self);
    /// Bytes arrive; returns how many were taken.
    fn feed(&mut self, bytes: &[u8]) -> usize;
    fn eof(&mut self);
    fn reset(&mut self);
    /// What has left since this was called last.
    fn take_output(&mut self) -> Vec<u8>;
    /// How often the transport was asked to write anything, of which it took something.
    fn writes(&self) -> usize;
    /// Nothing more leaves.
    fn block(&mut self);
    /// So many bytes more may leave.
    fn give_room(&mut self, bytes: usize);
    /// The next write fails with a reset.
    fn fail_write(&mut self);
    /// How the stream was ended, step by step.
    fn shutdowns(&self) -> Vec<Shutdown>;
    /// The stream was ended like this, as far as can be seen.
    fn assert_shut_down(&self, expected: &[Shutdown]) {
        assert_eq!(self.shutdowns(), expected);
    }
    fn deadline(&self) -> Option<Instant>;
    /// Handles the deadlines that are due.
    fn handle_timeout(&mut self);
    fn is_woken(&self) -> bool;
    fn drain(&mut self);
    fn handle(&mut self) -> Handle<H>;
    fn is_over(&self) -> bool;
}

/// What time it is, for everybody.
#[derive(Clone)]
pub(crate) struct Clock(Arc<AtomicU64>);

impl Default for Clock {
    fn default() -> Self {
        Self(Arc::new(AtomicU64::new(1_000_000_000)))
    }
}

impl Clock {
    pub(crate) fn now(&self) -> Instant {
        Instant::from_nanos(self.0.load(Ordering::Relaxed))
    }

    pub(crate) fn set(&self, now: Instant) {
        self.0.store(now.as_nanos(), Ordering::Relaxed);
    }

    pub(crate) fn pass(&self, time: Duration) {
        self.set(self.now() + time);
    }
}

/// Generates for each transport a module with these tests, which are generic functions beside it. Those
/// behind `not over sockets:` need a clock that they can move, or steps that a socket does not show. Those behind
/// `not over TLS:` count bytes, and a record has more of them than its content. `neither:` are both.
macro_rules! over_each_transport {
    (
        $($test:ident),* $(,)?
        $(; not over sockets: $($by_hand:ident),* $(,)?)?
        $(; not over TLS: $($plain:ident),* $(,)?)?
        $(; neither: $($neither:ident),* $(,)?)?
    ) => {
        over_each_transport!(@ by_hand: $($test)* $($($by_hand)*)? $($($plain)*)? $($($neither)*)?);
        over_each_transport!(@ sockets: $($test)* $($($plain)*)?);
        over_each_transport!(@ tls: $($test)* $($($by_hand)*)?);
        over_each_transport!(@ tls_sockets: $($test)*);
    };
    (@ by_hand: $($test:ident)*) => {
        over_each_transport!(@ iostream $crate::transports::ByHand: $($test)*);
        over_each_transport!(@ toy $crate::toy::Pipes: $($test)*);
        over_each_transport!(@ toy_one_by_one $crate::toy::OneByOne: $($test)*);
        over_each_transport!(@ stepping $crate::transports::Steps: $($test)*);
    };
    (@ sockets: $($test:ident)*) => {
        #[cfg(feature = "net")]
        over_each_transport!(@ tcp $crate::net::Tcp: $($test)*);
        #[cfg(feature = "net")]
        over_each_transport!(@ unix $crate::net::Unix: $($test)*);
    };
    (@ tls: $($test:ident)*) => {
        #[cfg(feature = "tls-core")]
        over_each_transport!(@ tls $crate::tls::OverTls<$crate::transports::ByHand>: $($test)*);
        #[cfg(feature = "tls-core")]
        over_each_transport!(@ tls_in_turns $crate::tls::OverTls<$crate::toy::OneByOne>: $($test)*);
    };
    (@ tls_sockets: $($test:ident)*) => {
        #[cfg(all(feature = "net", feature = "tls-core"))]
        over_each_transport!(@ tls_over_tcp $crate::tls::OverTls<$crate::net::Tcp>: $($test)*);
    };
    (@ $module:ident $transport:ty: $($test:ident)*) => {
        mod $module {
            $(
                #[test]
                fn $test() {
                    super::$test::<$transport>();
                }
            )*
        }
    };
}
pub(crate) use over_each_transport;

/// Iostream, with a writer that takes as much as the test allows.
pub(crate) struct ByHand;

pub(crate) struct ByHandEnd<H: Handler> {
    connection: iostream::Connection<H>,
    sink: Sink,
    shutdowns: Arc<Mutex<Vec<Shutdown>>>,
}

/// A non-blocking writer. Clones are the same.
#[derive(Clone, Default)]
pub(crate) struct Sink(Arc<Mutex<Taken>>);

#[derive(Default)]
struct Taken {
    bytes: Vec<u8>,
    writes: usize,
    /// How many bytes more are taken; `None`: all.
    room: Option<usize>,
    error: Option<ErrorKind>,
}

impl Sink {
    pub(crate) fn take(&self) -> Vec<u8> {
        std::mem::take(&mut self.0.lock().unwrap().bytes)
    }

    pub(crate) fn writes(&self) -> usize {
        self.0.lock().unwrap().writes
    }

    pub(crate) fn set_room(&self, room: Option<usize>) {
        self.0.lock().unwrap().room = room;
    }

    pub(crate) fn fail(&self, error: ErrorKind) {
        self.0.lock().unwrap().error = Some(error);
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut taken = self.0.lock().unwrap();
        if let Some(error) = taken.error.take() {
            return Err(error.into());
        }
        let n = taken.room.unwrap_or(usize::MAX).min(bytes.len());
        if n == 0 {
            return Err(ErrorKind::WouldBlock.into());
        }
        taken.room = taken.room.map(|room| room - n);
        taken.writes += 1;
        taken.bytes.extend_from_slice(&bytes[..n]);
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl TestTransport for ByHand {
    type Server<F: HandlerFactory + 'static> = iostream::Server<F>;
    type Client<F: HandlerFactory + 'static> = iostream::Client<F>;
    type End<H: Handler> = ByHandEnd<H>;

    fn new_server<F: HandlerFactory + 'static>(
        config: ServerConfig,
        factory: F,
        clock: &Clock,
    ) -> iostream::Server<F> {
        let mut server = iostream::Server::with_factory(config, factory);
        let clock = clock.clone();
        server.set_clock(move || clock.now());
        server
    }

    fn new_client<F: HandlerFactory + 'static>(
        config: ClientConfig,
        factory: F,
        clock: &Clock,
    ) -> iostream::Client<F> {
        let mut client = iostream::Client::with_factory(config, factory);
        let clock = clock.clone();
        client.set_clock(move || clock.now());
        client
    }

    fn server<F: HandlerFactory + 'static>(
        server: &iostream::Server<F>,
        _: &Clock,
    ) -> ByHandEnd<F::Handler> {
        ByHandEnd::new(server.connection())
    }

    fn client<F: HandlerFactory + 'static>(
        client: &iostream::Client<F>,
        target: &Target,
        _: &Clock,
    ) -> Result<ByHandEnd<F::Handler>, RequestError> {
        Ok(ByHandEnd::new(client.connection(target)?))
    }
}

impl<H: Handler> ByHandEnd<H> {
    pub(crate) fn new(connection: iostream::Connection<H>) -> Self {
        let (sink, shutdowns) = (Sink::default(), Arc::<Mutex<Vec<Shutdown>>>::default());
        connection.register_output(sink.clone());
        let record = shutdowns.clone();
        connection.set_shutdown_handler(move |how| record.lock().unwrap().push(how));
        Self { connection, sink, shutdowns }
    }
}

impl<H: Handler> End<H> for ByHandEnd<H> {
    fn start(&mut self) {
        self.connection.start().unwrap();
    }

    fn feed(&mut self, bytes: &[u8]) -> usize {
        self.connection.read_all(bytes).unwrap()
    }

    fn eof(&mut self) {
        self.connection.eof().unwrap();
    }

    fn reset(&mut self) {
        self.connection.fatal_error().unwrap();
    }

    fn take_output(&mut self) -> Vec<u8> {
        self.sink.take()
    }

    fn writes(&self) -> usize {
        self.sink.writes()
    }

    fn block(&mut self) {
        self.sink.set_room(Some(0));
    }

    fn give_room(&mut self, bytes: usize) {
        self.sink.set_room((bytes < usize::MAX).then_some(bytes));
        self.connection.drive().unwrap();
    }

    fn fail_write(&mut self) {
        self.sink.fail(ErrorKind::BrokenPipe);
    }

    fn shutdowns(&self) -> Vec<Shutdown> {
        self.shutdowns.lock().unwrap().clone()
    }

    fn deadline(&self) -> Option<Instant> {
        self.connection.next_timeout()
    }

    fn handle_timeout(&mut self) {
        self.connection.handle_timeout().unwrap();
    }

    fn is_woken(&self) -> bool {
        self.connection.wants_drive()
    }

    fn drain(&mut self) {
        self.connection.drive().unwrap();
    }

    fn handle(&mut self) -> Handle<H> {
        self.connection.handle()
    }

    fn is_over(&self) -> bool {
        self.connection.has_ended()
    }
}

/// The stepping transport.
pub(crate) struct Steps;

pub(crate) struct StepsEnd<H: Handler> {
    connection: stepping::Connection<H>,
    clock: Clock,
}

impl TestTransport for Steps {
    type Server<F: HandlerFactory + 'static> = stepping::Server<F>;
    type Client<F: HandlerFactory + 'static> = stepping::Client<F>;
    type End<H: Handler> = StepsEnd<H>;

    fn new_server<F: HandlerFactory + 'static>(
        config: ServerConfig,
        factory: F,
        clock: &Clock,
    ) -> stepping::Server<F> {
        let mut server = stepping::Server::with_factory(config, factory);
        server.set_now(clock.now());
        server
    }

    fn new_client<F: HandlerFactory + 'static>(
        config: ClientConfig,
        factory: F,
        clock: &Clock,
    ) -> stepping::Client<F> {
        let mut client = stepping::Client::with_factory(config, factory);
        client.set_now(clock.now());
        client
    }

    fn server<F: HandlerFactory + 'static>(
        server: &stepping::Server<F>,
        clock: &Clock,
    ) -> StepsEnd<F::Handler> {
        StepsEnd::new(server.connection(), clock)
    }

    fn client<F: HandlerFactory + 'static>(
        client: &stepping::Client<F>,
        target: &Target,
        clock: &Clock,
    ) -> Result<StepsEnd<F::Handler>, RequestError> {
        Ok(StepsEnd::new(client.connection(target)?, clock))
    }
}

impl<H: Handler> StepsEnd<H> {
    fn new(mut connection: stepping::Connection<H>, clock: &Clock) -> Self {
        connection.accept(usize::MAX);
        Self { connection, clock: clock.clone() }
    }

    fn at_present(&mut self) -> &mut stepping::Connection<H> {
        self.connection.set_now(self.clock.now());
        &mut self.connection
    }
}

impl<H: Handler> End<H> for StepsEnd<H> {
    fn start(&mut self) {
        self.at_present().start();
    }

    fn feed(&mut self, bytes: &[u8]) -> usize {
        let connection = self.at_present();
        // What was not taken before is unread still, and comes first in `bytes` again.
        connection.receive(&bytes[connection.unread()..]);
        connection.read_all()
    }

    fn eof(&mut self) {
        self.at_present().eof();
    }

    fn reset(&mut self) {
        self.at_present().fail(TransportError::Reset);
    }

    fn take_output(&mut self) -> Vec<u8> {
        self.connection.take_written()
    }

    fn writes(&self) -> usize {
        let operations = self.connection.operations();
        let took = |operation: &&Operation| matches!(operation, Operation::Write { taken, .. } if *taken > 0);
        operations.iter().filter(took).count()
    }

    fn block(&mut self) {
        self.connection.refuse();
    }

    fn give_room(&mut self, bytes: usize) {
        self.at_present().accept(bytes);
    }

    fn fail_write(&mut self) {
        self.connection.fail_write(TransportError::Reset);
    }

    fn shutdowns(&self) -> Vec<Shutdown> {
        let operations = self.connection.operations();
        let shutdown = |operation| match operation {
            Operation::Shutdown(how) => Some(how),
            _ => None,
        };
        operations.into_iter().filter_map(shutdown).collect()
    }

    fn deadline(&self) -> Option<Instant> {
        self.connection.deadline()
    }

    fn handle_timeout(&mut self) {
        // Expire only what is due.
        let now = self.clock.now();
        if self.connection.deadline().is_some_and(|deadline| deadline <= now) {
            self.at_present().expire();
        }
    }

    fn is_woken(&self) -> bool {
        self.connection.is_woken()
    }

    fn drain(&mut self) {
        self.at_present().drain();
    }

    fn handle(&mut self) -> Handle<H> {
        self.connection.handle()
    }

    fn is_over(&self) -> bool {
        self.connection.has_ended()
    }
}
