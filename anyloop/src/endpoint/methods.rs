//! The methods and constructors that endpoints have in common.

/// Gives an endpoint the methods that all endpoints have. It must have a field `core`, an `Arc` of its `Core`, or
/// dereference to an endpoint that has one.
macro_rules! endpoint_methods {
    ($endpoint:ident, $config:ident $(, $kind:ident: $kind_trait:ident)?) => {
        impl<F: crate::endpoint::HandlerFactory $(, $kind: $kind_trait)?> $endpoint<F $(, $kind)?> {
            /// The connections that are not over, in no particular order.
            #[must_use]
            pub fn connections(&self) -> Vec<crate::endpoint::Handle<F::Handler>> {
                self.core.state.registry.handles()
            }

            /// Sends a message to all open connections. Returns how many connections will get it, if they do not end
            /// first. A connection whose send buffer is full does not get it and is not counted;
            /// [`Overflow::Close`](crate::endpoint::Overflow::Close) closes that connection. The message is encoded
            /// once, and each connection takes it on its own strand. The connections over the network that have no
            /// handles, and whose output never had to wait, share one queue of broadcasts. Unless the policy is
            /// `Overflow::Close`, none of them gets a message that would make the queue
            #[doc = concat!("exceed [`max_send_buffer`](crate::", stringify!($config), "::max_send_buffer) bytes.")]
            pub fn broadcast(&self, message: impl Into<anyloop_proto::Prepared>) -> usize {
                self.handle().broadcast(message)
            }

            /// As [`broadcast`](Self::broadcast), to the open connections whose handler `filter` accepts. The filter
            /// runs later, on the strand of each connection. So the result also counts connections that it will reject,
            /// and those that their handler closes before.
            pub fn broadcast_where(
                &self,
                message: impl Into<anyloop_proto::Prepared>,
                filter: impl Fn(&F::Handler) -> bool + Send + Sync + 'static,
            ) -> usize {
                self.handle().broadcast_where(message, filter)
            }

            /// Like [`broadcast_where`](Self::broadcast_where), and calls `completion` when every open connection has
            /// taken the message from the queue (even if `filter` rejects the connection) or has ended. The message may
            /// still wait for the peer to read. `completion` is called on the thread of the connection that takes the
            /// message last, or within this call if there is none. A publisher can wait for it before it sends more.
            ///
            /// The example of [`EndpointHandle::broadcast_then`](crate::endpoint::EndpointHandle::broadcast_then) uses
            /// it.
            pub fn broadcast_then(
                &self,
                message: impl Into<anyloop_proto::Prepared>,
                filter: impl Fn(&F::Handler) -> bool + Send + Sync + 'static,
                completion: impl FnOnce() + Send + 'static,
            ) -> usize {
                self.handle().broadcast_then(message, filter, completion)
            }

            /// Begins to close all connections. Returns how many are not over. A handshake that is under way fails with
            /// [`Abandoned`](anyloop_proto::HandshakeError::Abandoned); a server answers 503 if any part of the request
            /// has arrived. Exception: if messages wait for a client's connection to open, its handshake continues, and
            /// the messages are sent before the Close.
            ///
            /// # Errors
            ///
            /// [`SendError::Refused`](crate::endpoint::SendError::Refused) for a reason of more than 123 bytes, or one
            /// without a code.
            pub fn close_all(
                &self,
                code: impl Into<Option<anyloop_proto::CloseCode>>,
                reason: &str,
            ) -> Result<usize, crate::endpoint::SendError> {
                self.handle().close_all(code, reason)
            }

            /// A handle of the endpoint, for handlers and other threads. It does not keep the endpoint alive.
            #[must_use]
            pub fn handle(&self) -> crate::endpoint::EndpointHandle<F::Handler> {
                crate::endpoint::EndpointHandle::new(&self.core.state)
            }

            /// Begins to shut down gracefully: listeners are closed, open connections are closed with 1001, and
            /// handshakes fail, on a server with 503. Handshakes of connections that are created later fail when they
            /// are [started](crate::transport::Driver::start). The shutdown is complete when
            /// [`connections`](Self::connections) is empty. If the transports are driven meanwhile, each closing
            /// handshake
            #[doc = concat!("takes at most the [`close_timeout`](crate::", stringify!($config), "::close_timeout).")]
            /// A plain HTTP response that is being sent goes on as long as its client reads
            /// ([`response_timeout`](crate::ServerConfig::response_timeout)).
            /// The shutdown is final: over the network the endpoint does not listen, accept or connect any more
            /// (`net::Error::ShutDown`).
            pub fn shut_down(&self) {
                self.core.state.shut_down();
            }

            /// Like [`shut_down`](Self::shut_down). Connections that are not over after `time` are
            /// [terminated](crate::endpoint::Handle::terminate). Each connection has its own timer for this, which does
            /// not keep run calls alive.
            pub fn shut_down_within(&self, time: std::time::Duration) {
                self.handle().shut_down_within(time);
            }

            /// Whether [`shut_down`](Self::shut_down) was called.
            #[must_use]
            pub fn is_shutting_down(&self) -> bool {
                self.core.state.is_shutting_down()
            }

            /// The counters of the endpoint.
            #[must_use]
            pub fn counters(&self) -> crate::endpoint::Counters {
                self.core.state.counters.snapshot()
            }

            /// The configuration.
            pub fn config(&self) -> &crate::$config {
                &self.core.config
            }

            /// Sets the factory of the handlers of connections that are created afterwards.
            pub fn set_factory(&mut self, factory: F) {
                self.core.set_factory(factory);
            }
        }

        impl<F: crate::endpoint::HandlerFactory $(, $kind: $kind_trait)?> std::fmt::Debug
            for $endpoint<F $(, $kind)?>
        {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                let mut debug = f.debug_struct(stringify!($endpoint));
                debug.field("config", &self.core.config).finish_non_exhaustive()
            }
        }
    };
}
pub(crate) use endpoint_methods;

/// The constructors of an endpoint whose construction cannot fail. Its `build` takes a configuration and a factory.
macro_rules! constructors {
    ($endpoint:ident, $config:ident, $handlers:ident, $noun:literal) => {
        impl $endpoint<crate::session::$handlers> {
            #[doc = concat!("A ", $noun, " whose handlers are closures, which are set afterwards.")]
            #[must_use]
            pub fn new(config: crate::$config) -> Self {
                Self::with_factory(config, crate::session::$handlers::new())
            }
        }

        impl<F: crate::endpoint::HandlerFactory> $endpoint<F> {
            #[doc = concat!("A ", $noun, " whose connections get their handlers from `factory`.")]
            #[must_use]
            pub fn with_factory(config: crate::$config, factory: F) -> Self {
                Self::build(config, factory)
            }
        }
    };
}
pub(crate) use constructors;

/// Lets an endpoint of one thread dereference to the endpoint in its field, and so have the methods of that one.
macro_rules! local_endpoint {
    ($local:ident.$field:ident: $endpoint:ident) => {
        impl<F: crate::endpoint::HandlerFactory> std::ops::Deref for $local<F> {
            type Target = $endpoint<F, crate::endpoint::Local>;

            fn deref(&self) -> &Self::Target {
                &self.$field
            }
        }

        impl<F: crate::endpoint::HandlerFactory> std::ops::DerefMut for $local<F> {
            fn deref_mut(&mut self) -> &mut Self::Target {
                &mut self.$field
            }
        }
    };
}
pub(crate) use local_endpoint;
