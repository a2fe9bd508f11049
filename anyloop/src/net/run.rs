//! The loop of an endpoint: constructors and run calls.

use std::time::{Duration, Instant};

use super::error::Error;
use super::transport::Net;
use crate::endpoint::{
    Client, ClientConfig, HandlerFactory, Handlers, LocalHandlers, Server, ServerConfig,
};
use crate::event_loop::{EventLoop, Kind, Local, LocalEventLoop, Running, Threads};

/// The constructors of endpoints in a loop of one kind.
macro_rules! constructors {
    (
        $endpoint:ident, $config:ident, $kind:ident, $event_loop:ident, $handlers:ident, $prepare:ident,
        [$($bounds:tt)*]
    ) => {
        impl $endpoint<Net<$kind>, $handlers> {
            /// An endpoint with an event loop of its own. Its handlers are closures, which are set afterwards.
            ///
            /// # Errors
            ///
            /// [`Error::EventLoop`]: the operating system has no descriptors left, for example.
            pub fn new(config: $config) -> Result<Self, Error> {
                Self::with_factory(config, $handlers::new())
            }

            /// An endpoint in this loop, which other endpoints can share. Its handlers are closures, which are set
            /// afterwards.
            #[must_use]
            pub fn on(event_loop: &$event_loop, config: $config) -> Self {
                Self::with_factory_on(event_loop, config, $handlers::new())
            }
        }

        impl<F: HandlerFactory $($bounds)*> $endpoint<Net<$kind>, F> {
            /// An endpoint with an event loop of its own. Its connections get their handlers from `factory`.
            ///
            /// # Errors
            ///
            /// [`Error::EventLoop`]: the operating system has no descriptors left, for example.
            pub fn with_factory(config: $config, factory: F) -> Result<Self, Error> {
                let net = Net::with_own_loop().map_err(Error::EventLoop)?;
                let endpoint = Self::with_backend(net, config, factory);
                $prepare(&endpoint);
                Ok(endpoint)
            }

            /// An endpoint in this loop, which other endpoints can share. Its connections get their handlers from
            /// `factory`.
            #[must_use]
            pub fn with_factory_on(event_loop: &$event_loop, config: $config, factory: F) -> Self {
                let endpoint = Self::with_backend(Net::new(event_loop.clone()), config, factory);
                $prepare(&endpoint);
                endpoint
            }

            /// The loop that the endpoint uses.
            #[must_use]
            pub const fn event_loop(&self) -> &$event_loop {
                &self.backend.event_loop
            }
        }
    };
}

constructors!(
    Server, ServerConfig, Threads, EventLoop, Handlers, prepare_server,
    [<Handler: Send> + Send + Sync + 'static]
);
constructors!(
    Client, ClientConfig, Threads, EventLoop, Handlers, prepare_client,
    [<Handler: Send> + Send + Sync + 'static]
);
constructors!(
    Server, ServerConfig, Local, LocalEventLoop, LocalHandlers, prepare_server, [+ 'static]
);
constructors!(
    Client, ClientConfig, Local, LocalEventLoop, LocalHandlers, prepare_local_client, [+ 'static]
);

fn prepare_server<K: Kind, F: HandlerFactory>(server: &Server<Net<K>, F>) {
    let listeners = server.backend.listeners.clone();
    server.core().state.on_shut_down(move || listeners.close());
    server.core().state.registry.use_loop(|| server.backend.wakes());
}

fn prepare_client<F>(client: &Client<Net<Threads>, F>)
where
    F: HandlerFactory<Handler: Send> + Send + Sync + 'static,
{
    client.core().state.registry.use_loop(|| client.backend.wakes());
    client.let_handles_connect();
}

fn prepare_local_client<F: HandlerFactory + 'static>(client: &Client<Net<Local>, F>) {
    client.core().state.registry.use_loop(|| client.backend.wakes());
    client.let_handles_connect();
}

/// The methods of servers and clients that concern their loop.
macro_rules! run_family {
    ($endpoint:ident, $after_run:ident) => {
        impl<K: Kind, F: HandlerFactory> $endpoint<Net<K>, F> {
            /// Runs the loop, as [`EventLoop::run`](crate::EventLoop::run), with everything in it, including other
            /// endpoints. A server that listens and [does not accept](crate::net::Server::start_accept) has no work:
            /// then this returns 0 at once, and logs a warning.
            pub fn run(&self) -> usize {
                let called = self.backend.engine().run();
                $after_run(self, called);
                called
            }

            /// As [`EventLoop::run_one`](crate::EventLoop::run_one).
            pub fn run_one(&self) -> usize {
                self.backend.engine().run_one()
            }

            /// As [`EventLoop::run_for`](crate::EventLoop::run_for).
            pub fn run_for(&self, time: Duration) -> usize {
                self.backend.engine().run_for(time)
            }

            /// As [`EventLoop::run_until`](crate::EventLoop::run_until).
            pub fn run_until(&self, end: Instant) -> usize {
                self.backend.engine().run_until(end)
            }

            /// As [`EventLoop::poll`](crate::EventLoop::poll).
            pub fn poll(&self) -> usize {
                self.backend.engine().poll()
            }

            /// As [`EventLoop::poll_one`](crate::EventLoop::poll_one).
            pub fn poll_one(&self) -> usize {
                self.backend.engine().poll_one()
            }

            /// As [`EventLoop::poll_budget`](crate::EventLoop::poll_budget).
            pub fn poll_budget(&self, handlers: u64, until: Option<Instant>) -> usize {
                self.backend.engine().poll_budget(handlers, until)
            }

            /// As [`EventLoop::stop`](crate::EventLoop::stop).
            pub fn stop(&self) {
                self.backend.engine().control().stop();
            }

            /// As [`EventLoop::stopped`](crate::EventLoop::stopped).
            #[must_use]
            pub fn stopped(&self) -> bool {
                self.backend.engine().control().is_stopped()
            }

            /// As [`EventLoop::reset`](crate::EventLoop::reset).
            ///
            /// # Errors
            ///
            /// [`Running`].
            pub fn reset(&self) -> Result<(), Running> {
                if self.backend.engine().reset() { Ok(()) } else { Err(Running) }
            }

            /// Keeps run calls from ending when the loop is out of work. A second call has no effect.
            pub fn start_perpetual(&self) {
                self.backend.set_perpetual(true);
            }

            /// Lets run calls end again when the loop is out of work. Does nothing without
            /// [`start_perpetual`](Self::start_perpetual).
            pub fn stop_perpetual(&self) {
                self.backend.set_perpetual(false);
            }
        }
    };
}

run_family!(Server, warn_if_not_accepting);
run_family!(Client, nothing_to_warn_of);

/// A server that listens and does not accept has no work: its run call returns at once. This says why.
fn warn_if_not_accepting<K: Kind, F: HandlerFactory>(server: &Server<Net<K>, F>, called: usize) {
    let listeners = &server.backend.listeners;
    if called == 0 && !listeners.is_empty() && !listeners.is_accepting() {
        crate::log::warn!("the server listens and does not accept: call start_accept");
    }
}

const fn nothing_to_warn_of<K: Kind, F: HandlerFactory>(_: &Client<Net<K>, F>, _: usize) {}
