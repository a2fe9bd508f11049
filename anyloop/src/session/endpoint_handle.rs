//! Handles of endpoints, for handlers and other threads.

use std::fmt;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, PoisonError, Weak};
use std::thread;
use std::time::Duration;

use anyloop_proto::{CloseCode, Prepared, check_close};

use super::counters::Counters;
use super::erased::{erased_filter, erased_fn_for_any};
use super::error::SendError;
use super::handle::Handle;
use super::handler::{Context, Handler};
use super::shared::Command;
use super::state::EndpointState;
use crate::sync::unmodelled::Mutex;

/// A handle of an endpoint, for handlers and other threads. It is cheap to clone, and does not keep the endpoint alive.
///
/// When the endpoint and all its connections are dropped, the methods do nothing and return empty results, and
/// [`is_shutting_down`](Self::is_shutting_down) returns true.
///
/// A server that sends each message to all its connections:
///
/// ```no_run
/// use anyloop::iostream::Server;
/// use anyloop::prelude::*;
///
/// let mut server = Server::new(ServerConfig::new(OriginPolicy::Any));
/// server.on_message(|message, context| {
///     context.endpoint().broadcast(message);
/// });
/// ```
pub struct EndpointHandle<H: Handler> {
    state: Weak<EndpointState>,
    handler: PhantomData<fn(&mut H)>,
}

impl<H: Handler> EndpointHandle<H> {
    pub(crate) fn new(state: &Arc<EndpointState>) -> Self {
        Self { state: Arc::downgrade(state), handler: PhantomData }
    }

    /// The same endpoint, for handlers of another type.
    #[cfg(feature = "router")]
    pub(crate) fn with_type<I: Handler>(&self) -> EndpointHandle<I> {
        EndpointHandle { state: self.state.clone(), handler: PhantomData }
    }

    /// The endpoint's state; `None` after it was dropped.
    pub(crate) fn state(&self) -> Option<Arc<EndpointState>> {
        self.state.upgrade()
    }

    /// The connections that are not over, in no particular order.
    #[must_use]
    pub fn connections(&self) -> Vec<Handle<H>> {
        self.state().map(|state| state.registry.handles()).unwrap_or_default()
    }

    /// Sends a message to all open connections, as [`Server::broadcast`](crate::transport::Server::broadcast).
    pub fn broadcast(&self, message: impl Into<Prepared>) -> usize {
        self.state().map_or(0, |state| state.registry.broadcast(&message.into(), None))
    }

    /// Sends a message to the open connections whose handler `filter` accepts, as
    /// [`Server::broadcast_where`](crate::transport::Server::broadcast_where).
    pub fn broadcast_where(
        &self,
        message: impl Into<Prepared>,
        filter: impl Fn(&H) -> bool + Send + Sync + 'static,
    ) -> usize {
        let filter = erased_filter(filter);
        self.state().map_or(0, |state| state.registry.broadcast(&message.into(), Some(filter)))
    }

    /// Sends a message as [`broadcast_where`](Self::broadcast_where), and calls `completion` when each connection has
    /// taken it or is over, as [`Server::broadcast_then`](crate::transport::Server::broadcast_then).
    ///
    /// ```
    /// use anyloop::iostream::Server;
    /// use anyloop::prelude::*;
    /// use std::sync::mpsc;
    /// # const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    /// #     Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
    ///
    /// let server = Server::new(ServerConfig::new(OriginPolicy::Any));
    /// let connection = server.connection();
    /// # connection.register_output(std::io::sink());
    /// # connection.read_all(REQUEST)?;
    /// let (taken, is_taken) = mpsc::channel();
    /// let completion = move || taken.send(()).unwrap();
    /// assert_eq!(server.handle().broadcast_then("news", |_| true, completion), 1);
    /// assert!(is_taken.try_recv().is_err());
    /// connection.drive()?; // over the network, the loop does this
    /// is_taken.try_recv()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn broadcast_then(
        &self,
        message: impl Into<Prepared>,
        filter: impl Fn(&H) -> bool + Send + Sync + 'static,
        completion: impl FnOnce() + Send + 'static,
    ) -> usize {
        let completion = WhenTaken(Mutex::new(Some(Box::new(completion))));
        self.broadcast_where(message, move |handler: &H| {
            let _: &WhenTaken = &completion; // so that the filter owns it
            filter(handler)
        })
    }

    /// Begins to close all connections, or abandons their handshakes. Returns how many connections are not over.
    ///
    /// # Errors
    ///
    /// [`SendError::Refused`] for a reason of more than 123 bytes, or one without a code.
    pub fn close_all(
        &self,
        code: impl Into<Option<CloseCode>>,
        reason: &str,
    ) -> Result<usize, SendError> {
        let code = code.into();
        check_close(code, reason)?;
        Ok(self.state().map_or(0, |state| state.registry.close_all(code, reason)))
    }

    /// The counters of the endpoint.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.state().map(|state| state.counters.snapshot()).unwrap_or_default()
    }

    /// Begins to shut down gracefully, as [`Server::shut_down`](crate::transport::Server::shut_down).
    pub fn shut_down(&self) {
        if let Some(state) = self.state() {
            state.shut_down();
        }
    }

    /// Like [`shut_down`](Self::shut_down). Connections that are not over after `time` are
    /// [terminated](Handle::terminate). This timer does not keep run calls alive.
    pub fn shut_down_within(&self, time: Duration) {
        self.shut_down();
        for connection in self.connections() {
            let terminate = erased_fn_for_any(|context| context.terminate());
            let later = erased_fn_for_any(move |context| {
                _ = context.set_erased_timer(None, time, terminate)
            });
            // The connection may already be over.
            let _: Result<(), SendError> = connection.shared().push(Command::Post(later));
        }
    }

    /// Whether the endpoint shuts down, or was dropped.
    #[must_use]
    pub fn is_shutting_down(&self) -> bool {
        self.state().is_none_or(|state| state.is_shutting_down())
    }
}

/// When this value is dropped, it calls the completion of a broadcast. The filter of the broadcast owns this value, and
/// the last connection that takes the message frees the filter.
struct WhenTaken(Mutex<Option<Box<dyn FnOnce() + Send>>>);

impl Drop for WhenTaken {
    fn drop(&mut self) {
        let completion = self.0.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        let Some(completion) = completion else { return };
        if let Err(panic) = catch_unwind(AssertUnwindSafe(completion)) {
            if !thread::panicking() {
                resume_unwind(panic);
            }
        }
    }
}

impl<H: Handler> Context<'_, H> {
    /// The endpoint of this connection.
    #[must_use]
    pub fn endpoint(&self) -> EndpointHandle<H> {
        EndpointHandle::new(&self.state.endpoint)
    }
}

impl<H: Handler> Clone for EndpointHandle<H> {
    fn clone(&self) -> Self {
        Self { state: self.state.clone(), handler: PhantomData }
    }
}

impl<H: Handler> fmt::Debug for EndpointHandle<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EndpointHandle").finish_non_exhaustive()
    }
}
