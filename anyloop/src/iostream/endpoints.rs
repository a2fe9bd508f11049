//! The connections of servers and clients.

use std::sync::Arc;

use anyloop_proto::handshake::{RequestError, Target};

use super::outputs::Outputs;
use super::{Connection, IoStream, WakeFlag, plain};
use crate::endpoint::{Client, ClientConfig, HandlerFactory, Server};

impl<K: Outputs, F: HandlerFactory> Server<IoStream<K>, F> {
    /// The server's end of a byte stream that begins now.
    #[must_use]
    pub fn connection(&self) -> Connection<F::Handler, K> {
        self.connection_with(self.core().make_handler())
    }

    /// The same with a handler of its own.
    #[must_use]
    pub fn connection_with(&self, handler: F::Handler) -> Connection<F::Handler, K> {
        let wake_flag = Arc::new(WakeFlag::default());
        let now = (self.transport.clock)();
        let driver = self.driver_with(handler, &wake_flag.clone().into(), now);
        let connection = Connection::new(plain(driver), &self.transport, wake_flag);
        // It has no output yet, but a deadline. No other thread has access to it yet.
        let _ = connection.start();
        connection
    }
}

impl<K: Outputs, F: HandlerFactory> Client<IoStream<K>, F> {
    /// The client's end of a byte stream to `target` that begins now. It sends its request when it is
    /// [started](Connection::start).
    ///
    /// # Errors
    ///
    /// The options would make an invalid request.
    pub fn connection(&self, target: &Target) -> Result<Connection<F::Handler, K>, RequestError> {
        self.connection_with(self.core().make_handler(), target)
    }

    /// The same with another configuration for this connection: `change` gets that of the client.
    /// [`keep_handshake`](ClientConfig::keep_handshake) remains that of the client.
    ///
    /// ```
    /// use anyloop::iostream::Client;
    /// use anyloop::prelude::*;
    ///
    /// let client = Client::new(ClientConfig::new().subprotocol("chat"));
    /// let target = "ws://localhost/".parse()?;
    /// let large = |config: ClientConfig| config.max_message_size(1 << 30).ping_interval(None);
    /// let connection = client.connection_configured(&target, large)?;
    /// # connection.register_output(std::io::sink());
    /// # connection.start()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`connection`](Self::connection).
    pub fn connection_configured(
        &self,
        target: &Target,
        change: impl FnOnce(ClientConfig) -> ClientConfig,
    ) -> Result<Connection<F::Handler, K>, RequestError> {
        let wake_flag = Arc::new(WakeFlag::default());
        let now = (self.transport.clock)();
        let driver = self.driver_configured(change, target, &wake_flag.clone().into(), now)?;
        Ok(Connection::new(plain(driver), &self.transport, wake_flag))
    }

    /// The same with a handler of its own.
    ///
    /// # Errors
    ///
    /// As [`connection`](Self::connection).
    pub fn connection_with(
        &self,
        handler: F::Handler,
        target: &Target,
    ) -> Result<Connection<F::Handler, K>, RequestError> {
        let wake_flag = Arc::new(WakeFlag::default());
        let now = (self.transport.clock)();
        let driver = self.driver_with(handler, target, &wake_flag.clone().into(), now)?;
        Ok(Connection::new(plain(driver), &self.transport, wake_flag))
    }
}
