//! The loop of an endpoint: constructors and run calls.

use std::time::{Duration, Instant};

use super::transport::Net;
use super::{Client, LocalClient, LocalServer, Server};
use crate::endpoint::{ClientConfig, ClientCore, HandlerFactory, ServerConfig, ServerCore};
use crate::event_loop::{Kind, Local, Running, Threads};

/// The constructors of an endpoint in a loop of one kind. Its `build` takes a [`Net`], a configuration and a factory.
macro_rules! constructors {
    (
        $endpoint:ident ($($net:ident).+), $config:ident, $event_loop:ident, $handlers:ident, [$($bounds:tt)*]
    ) => {
        impl $endpoint<crate::endpoint::$handlers> {
            /// An endpoint with an event loop of its own. Its handlers are closures, which are set afterwards.
            ///
            /// # Errors
            ///
            /// [`Error::EventLoop`]: the operating system has no descriptors left, for example.
            pub fn new(config: crate::$config) -> Result<Self, Error> {
                Self::with_factory(config, crate::endpoint::$handlers::new())
            }

            /// An endpoint in this loop, which other endpoints can share. Its handlers are closures, which are set
            /// afterwards.
            #[must_use]
            pub fn on(event_loop: &crate::$event_loop, config: crate::$config) -> Self {
                Self::with_factory_on(event_loop, config, crate::endpoint::$handlers::new())
            }
        }

        impl<F: crate::endpoint::HandlerFactory $($bounds)*> $endpoint<F> {
            /// An endpoint with an event loop of its own. Its connections get their handlers from `factory`.
            ///
            /// # Errors
            ///
            /// [`Error::EventLoop`]: the operating system has no descriptors left, for example.
            pub fn with_factory(config: crate::$config, factory: F) -> Result<Self, Error> {
                let net = Net::with_own_loop().map_err(Error::EventLoop)?;
                Ok(Self::build(net, config, factory))
            }

            /// An endpoint in this loop, which other endpoints can share. Its connections get their handlers from
            /// `factory`.
            #[must_use]
            pub fn with_factory_on(
                event_loop: &crate::$event_loop,
                config: crate::$config,
                factory: F,
            ) -> Self {
                Self::build(Net::new(event_loop.clone()), config, factory)
            }

            /// The loop that the endpoint uses.
            #[must_use]
            pub const fn event_loop(&self) -> &crate::$event_loop {
                &self.$($net).+.event_loop
            }
        }
    };
}
pub(super) use constructors;

impl<F: HandlerFactory, K: Kind> Server<F, K> {
    pub(super) fn build(net: Net<K>, config: ServerConfig, factory: F) -> Self {
        let core = ServerCore::new(config, factory);
        let listeners = net.listeners.clone();
        core.state.on_shut_down(move || listeners.close());
        core.state.registry.use_loop(|| net.connection_waker());
        Self { core, net }
    }
}

impl<F: HandlerFactory + 'static> LocalServer<F> {
    pub(super) fn build(net: Net<Local>, config: ServerConfig, factory: F) -> Self {
        Self { server: Server::build(net, config, factory) }
    }
}

impl<F: HandlerFactory, K: Kind> Client<F, K> {
    /// A client whose handles cannot connect yet: `let_handles_connect` must follow.
    fn without_connector(net: Net<K>, config: ClientConfig, factory: F) -> Self {
        let core = ClientCore::new(config, factory);
        core.state.registry.use_loop(|| net.connection_waker());
        Self { core, net }
    }
}

impl<F: HandlerFactory<Handler: Send> + Send + Sync + 'static> Client<F> {
    pub(super) fn build(net: Net<Threads>, config: ClientConfig, factory: F) -> Self {
        let client = Self::without_connector(net, config, factory);
        client.let_handles_connect();
        client
    }
}

impl<F: HandlerFactory + 'static> LocalClient<F> {
    pub(super) fn build(net: Net<Local>, config: ClientConfig, factory: F) -> Self {
        let client = Client::without_connector(net, config, factory);
        client.let_handles_connect();
        Self { client }
    }
}

/// The methods of servers and clients that concern their loop.
macro_rules! run_methods {
    ($endpoint:ident) => {
        impl<F: HandlerFactory, K: Kind> $endpoint<F, K> {
            /// Runs the loop, as [`EventLoop::run`](crate::EventLoop::run), with everything in it, including other
            /// endpoints. A server that listens and [does not accept](crate::net::Server::start_accept) has no work:
            /// then this returns 0 at once, [`is_accepting`](crate::net::Server::is_accepting) is false, and with the
            /// feature `tracing` a warning is logged.
            pub fn run(&self) -> usize {
                self.net.engine().run()
            }

            /// As [`EventLoop::run_one`](crate::EventLoop::run_one).
            pub fn run_one(&self) -> usize {
                self.net.engine().run_one()
            }

            /// As [`EventLoop::run_for`](crate::EventLoop::run_for).
            pub fn run_for(&self, time: Duration) -> usize {
                self.net.engine().run_for(time)
            }

            /// As [`EventLoop::run_until`](crate::EventLoop::run_until).
            pub fn run_until(&self, end: Instant) -> usize {
                self.net.engine().run_until(end)
            }

            /// As [`EventLoop::poll`](crate::EventLoop::poll).
            pub fn poll(&self) -> usize {
                self.net.engine().poll()
            }

            /// As [`EventLoop::poll_one`](crate::EventLoop::poll_one).
            pub fn poll_one(&self) -> usize {
                self.net.engine().poll_one()
            }

            /// As [`EventLoop::poll_budget`](crate::EventLoop::poll_budget).
            pub fn poll_budget(&self, handlers: u64, until: Option<Instant>) -> usize {
                self.net.engine().poll_budget(handlers, until)
            }

            /// As [`EventLoop::stop`](crate::EventLoop::stop).
            pub fn stop(&self) {
                self.net.engine().control().stop();
            }

            /// As [`EventLoop::stopped`](crate::EventLoop::stopped).
            #[must_use]
            pub fn stopped(&self) -> bool {
                self.net.engine().control().is_stopped()
            }

            /// As [`EventLoop::reset`](crate::EventLoop::reset).
            ///
            /// # Errors
            ///
            /// [`Running`]: a thread is inside a run call.
            pub fn reset(&self) -> Result<(), Running> {
                if self.net.engine().reset() { Ok(()) } else { Err(Running) }
            }

            /// Keeps run calls from ending when the loop is out of work. A second call has no effect.
            pub fn start_perpetual(&self) {
                self.net.set_perpetual(true);
            }

            /// Lets run calls end again when the loop is out of work. Does nothing without
            /// [`start_perpetual`](Self::start_perpetual).
            pub fn stop_perpetual(&self) {
                self.net.set_perpetual(false);
            }
        }
    };
}

run_methods!(Server);
run_methods!(Client);
