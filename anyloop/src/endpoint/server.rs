//! The methods that all servers have.

use std::task::Waker;

use anyloop_proto::Instant;

use super::config::ServerConfig;
use super::sealed::Sealed;
use crate::session::{EndpointHandle, HandlerFactory, Session};
use crate::stream::Driver;

/// Any server, for code that is generic over the transport.
///
/// The servers of `net`, [`iostream`](crate::iostream), [`transport`](crate::transport) and
/// [`stepping`](crate::transport::stepping) implement this trait, which is sealed. Each of them also has these methods
/// as inherent methods. The [handle](Self::handle) has more: broadcasts, the connections, the counters, shutting down.
///
/// ```
/// use anyloop::endpoint::Server;
/// use anyloop::prelude::*;
/// use anyloop::{iostream, transport};
///
/// fn report(server: &impl Server) -> String {
///     let (open, streams) = (server.handle().connections().len(), server.config().get_streaming());
///     format!("{open} connections, streaming: {streams}")
/// }
///
/// let config = ServerConfig::new(OriginPolicy::Any);
/// assert_eq!(report(&iostream::Server::new(config.clone())), "0 connections, streaming: false");
/// assert_eq!(report(&transport::Server::new(config)), "0 connections, streaming: false");
/// ```
pub trait Server: Sealed {
    /// The type of the factory that makes the handlers of the connections.
    type Factory: HandlerFactory;

    /// The configuration.
    fn config(&self) -> &ServerConfig;

    /// Sets the factory of the handlers of connections that are created afterwards.
    fn set_factory(&mut self, factory: Self::Factory);

    /// A handle of the server. It does not keep the server alive.
    #[must_use]
    fn handle(&self) -> EndpointHandle<<Self::Factory as HandlerFactory>::Handler>;

    /// Creates the server side of a connection, as [`transport::Server::driver`](crate::transport::Server::driver).
    #[must_use]
    fn driver(
        &self,
        waker: &Waker,
        now: Instant,
    ) -> Driver<Session<<Self::Factory as HandlerFactory>::Handler>>;
}

/// Gives a server the methods that all servers have, including those of `endpoint_methods`. A server that has a second
/// type parameter names it and its bound: `K: Kind`.
macro_rules! server_methods {
    ($server:ident $(, $kind:ident: $kind_trait:ident)?) => {
        crate::endpoint::endpoint_methods!($server, ServerConfig $(, $kind: $kind_trait)?);

        impl<F: crate::endpoint::HandlerFactory $(, $kind: $kind_trait)?> $server<F $(, $kind)?> {
            /// Creates the server side of a connection whose byte stream began at `now`. The
            /// [`Driver`](crate::transport::Driver) is the state machine of one connection, which the caller drives.
            /// `waker` is woken, from any thread, when a [handle](crate::Handle) queues a command; then call
            /// [`Driver::handle_wake`](crate::transport::Driver::handle_wake). If the server is shutting down, the
            /// handshake fails when the driver is [started](crate::transport::Driver::start).
            ///
            /// The example of [`Transport`](crate::transport::Transport) drives one.
            #[must_use]
            pub fn driver(
                &self,
                waker: &std::task::Waker,
                now: anyloop_proto::Instant,
            ) -> crate::stream::Driver<crate::endpoint::Session<F::Handler>> {
                self.driver_with(self.core.make_handler(), waker, now)
            }

            /// As [`driver`](Self::driver), with this handler.
            #[must_use]
            pub fn driver_with(
                &self,
                handler: F::Handler,
                waker: &std::task::Waker,
                now: anyloop_proto::Instant,
            ) -> crate::stream::Driver<crate::endpoint::Session<F::Handler>> {
                self.core.driver(handler, waker, now)
            }
        }

        crate::session::with_closure_list!(crate::endpoint::closure_setters! for servers (
            Handlers; $server, [$($kind: $kind_trait)?], Handlers, [Send + Sync + 'static];
        ));
        crate::session::with_closure_list!(crate::endpoint::closure_setters! for servers (
            LocalHandlers; $server, [$($kind: $kind_trait)?], LocalHandlers, ['static];
        ));

        impl<F: crate::endpoint::HandlerFactory $(, $kind: $kind_trait)?> crate::endpoint::sealed::Sealed
            for $server<F $(, $kind)?>
        {
        }

        impl<F: crate::endpoint::HandlerFactory $(, $kind: $kind_trait)?> crate::endpoint::Server
            for $server<F $(, $kind)?>
        {
            type Factory = F;

            fn config(&self) -> &crate::ServerConfig {
                self.config()
            }

            fn set_factory(&mut self, factory: F) {
                self.set_factory(factory);
            }

            fn handle(&self) -> crate::endpoint::EndpointHandle<F::Handler> {
                self.handle()
            }

            fn driver(
                &self,
                waker: &std::task::Waker,
                now: anyloop_proto::Instant,
            ) -> crate::stream::Driver<crate::endpoint::Session<F::Handler>> {
                self.driver(waker, now)
            }
        }
    };
}
pub(crate) use server_methods;
