//! The methods that all clients have.

use std::task::Waker;

use anyloop_proto::Instant;
use anyloop_proto::handshake::{RequestError, Target};

use super::config::ClientConfig;
use super::sealed::Sealed;
use crate::session::{EndpointHandle, HandlerFactory, Session};
use crate::stream::Driver;

/// Any client, for code that is generic over the transport.
///
/// The clients of `net`, [`iostream`](crate::iostream), [`transport`](crate::transport) and
/// [`stepping`](crate::transport::stepping) implement this trait, which is sealed. Each of them also has these methods
/// as inherent methods. The [handle](Self::handle) has more: broadcasts, the connections, the counters, shutting down.
///
/// ```
/// use anyloop::endpoint::Client;
/// use anyloop::prelude::*;
/// use anyloop::{iostream, transport};
///
/// fn shut_down_all(clients: &[&dyn Client<Factory = Handlers>]) {
///     clients.iter().for_each(|client| client.handle().shut_down());
/// }
///
/// let by_hand = iostream::Client::new(ClientConfig::new());
/// let own_transport = transport::Client::new(ClientConfig::new());
/// shut_down_all(&[&by_hand, &own_transport]);
/// assert!(by_hand.is_shutting_down() && own_transport.is_shutting_down());
/// ```
pub trait Client: Sealed {
    /// The type of the factory that makes the handlers of the connections.
    type Factory: HandlerFactory;

    /// The configuration.
    fn config(&self) -> &ClientConfig;

    /// Sets the factory of the handlers of connections that are created afterwards.
    fn set_factory(&mut self, factory: Self::Factory);

    /// A handle of the client. It does not keep the client alive.
    #[must_use]
    fn handle(&self) -> EndpointHandle<<Self::Factory as HandlerFactory>::Handler>;

    /// Creates the client side of a connection, as [`transport::Client::driver`](crate::transport::Client::driver).
    ///
    /// # Errors
    ///
    /// The configuration makes an invalid request.
    fn driver(
        &self,
        target: &Target,
        waker: &Waker,
        now: Instant,
    ) -> Result<Driver<Session<<Self::Factory as HandlerFactory>::Handler>>, RequestError>;
}

/// Gives a client the methods that all clients have, including those of `endpoint_methods`. A client that has a second
/// type parameter names it and its bound, as in `K: Outputs`.
macro_rules! client_methods {
    ($client:ident $(, $kind:ident: $kind_trait:ident)?) => {
        crate::endpoint::endpoint_methods!($client, ClientConfig $(, $kind: $kind_trait)?);

        impl<F: crate::endpoint::HandlerFactory $(, $kind: $kind_trait)?> $client<F $(, $kind)?> {
            /// Creates the client side of a connection to `target`, a URI or a
            /// [`Target`](anyloop_proto::handshake::Target), whose byte stream began at `now`. The
            /// [`Driver`](crate::transport::Driver) is the state machine of one connection, which the caller drives.
            /// `waker` is woken, from any thread, when a [handle](crate::Handle) queues a command; then call
            /// [`Driver::handle_wake`](crate::transport::Driver::handle_wake). If the client is shutting down, the
            /// handshake fails when the driver is [started](crate::transport::Driver::start).
            ///
            /// # Errors
            ///
            /// The URI is invalid, or the configuration makes an invalid request.
            pub fn driver<U>(
                &self,
                target: U,
                waker: &std::task::Waker,
                now: anyloop_proto::Instant,
            ) -> Result<
                crate::stream::Driver<crate::endpoint::Session<F::Handler>>,
                anyloop_proto::handshake::RequestError,
            >
            where
                U: TryInto<anyloop_proto::handshake::Target>,
                anyloop_proto::handshake::UriError: From<U::Error>,
            {
                self.driver_with(self.core.make_handler(), target, waker, now)
            }

            /// As [`driver`](Self::driver), with another configuration for this connection: `change` gets a copy of the
            /// client's, and returns that of the connection. [`keep_handshake`](crate::ClientConfig::keep_handshake)
            /// cannot be changed here: the client's value applies.
            ///
            /// # Errors
            ///
            /// As [`driver`](Self::driver).
            pub fn driver_configured<U>(
                &self,
                change: impl FnOnce(crate::ClientConfig) -> crate::ClientConfig,
                target: U,
                waker: &std::task::Waker,
                now: anyloop_proto::Instant,
            ) -> Result<
                crate::stream::Driver<crate::endpoint::Session<F::Handler>>,
                anyloop_proto::handshake::RequestError,
            >
            where
                U: TryInto<anyloop_proto::handshake::Target>,
                anyloop_proto::handshake::UriError: From<U::Error>,
            {
                let target = target.try_into().map_err(anyloop_proto::handshake::UriError::from)?;
                self.core.driver_configured(change, &target, waker, now)
            }

            /// As [`driver`](Self::driver), with this handler.
            ///
            /// # Errors
            ///
            /// As [`driver`](Self::driver).
            pub fn driver_with<U>(
                &self,
                handler: F::Handler,
                target: U,
                waker: &std::task::Waker,
                now: anyloop_proto::Instant,
            ) -> Result<
                crate::stream::Driver<crate::endpoint::Session<F::Handler>>,
                anyloop_proto::handshake::RequestError,
            >
            where
                U: TryInto<anyloop_proto::handshake::Target>,
                anyloop_proto::handshake::UriError: From<U::Error>,
            {
                let target = target.try_into().map_err(anyloop_proto::handshake::UriError::from)?;
                self.core.driver(handler, &target, waker, now)
            }
        }

        crate::session::with_closure_list!(crate::endpoint::closure_setters!(
            Handlers; $client, [$($kind: $kind_trait)?], Handlers, [Send + Sync + 'static];
        ));
        crate::session::with_closure_list!(crate::endpoint::closure_setters!(
            LocalHandlers; $client, [$($kind: $kind_trait)?], LocalHandlers, ['static];
        ));

        impl<F: crate::endpoint::HandlerFactory $(, $kind: $kind_trait)?> crate::endpoint::sealed::Sealed
            for $client<F $(, $kind)?>
        {
        }

        impl<F: crate::endpoint::HandlerFactory $(, $kind: $kind_trait)?> crate::endpoint::Client
            for $client<F $(, $kind)?>
        {
            type Factory = F;

            fn config(&self) -> &crate::ClientConfig {
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
                target: &anyloop_proto::handshake::Target,
                waker: &std::task::Waker,
                now: anyloop_proto::Instant,
            ) -> Result<
                crate::stream::Driver<crate::endpoint::Session<F::Handler>>,
                anyloop_proto::handshake::RequestError,
            > {
                self.driver(target, waker, now)
            }
        }
    };
}
pub(crate) use client_methods;
