//! The step between the connection to a proxy and the byte stream to the server.

use std::io::{self, ErrorKind};

use anyloop_proto::{HandshakeError, Input, Instant};

use super::super::error::{ConnectError, ProxyAnswerError};
use super::super::proxy::{ProxyHandshake, ProxyLayer, Route};
use crate::event_loop::Socket;
use crate::transport::Peer;

/// The most bytes that are received before the tunnel is open. The messages have limits of their own, but records of
/// TLS without content have none.
const MAX_ANSWER: usize = 256 * 1024;

/// A tunnel that is being opened. The socket is connected to the proxy.
pub(in crate::net) struct Tunnel {
    pub(super) started: Instant,
    pub(super) socket: Socket,
    /// The proxy.
    pub(super) peer: Peer,
    /// The TLS with an `https` proxy; with other proxies it leaves bytes as they are.
    pub(super) proxy_layer: ProxyLayer,
    handshake: ProxyHandshake,
    /// Output that the socket has not taken yet.
    unsent: Vec<u8>,
    /// The number of bytes that were received from the socket.
    received_len: usize,
    /// What was received from the server; `None` until the tunnel is open.
    received: Option<Vec<u8>>,
}

impl Tunnel {
    pub(super) fn new(
        route: &mut Route,
        socket: Socket,
        peer: Peer,
        started: Instant,
    ) -> Result<Self, ConnectError> {
        let (mut unsent, mut proxy_layer) = (Vec::new(), std::mem::take(&mut route.proxy_layer));
        let handshake = ProxyHandshake::new(route, &mut proxy_layer, &mut unsent)?;
        Ok(Self {
            started,
            socket,
            peer,
            proxy_layer,
            handshake,
            unsent,
            received_len: 0,
            received: None,
        })
    }

    /// Sends and receives all that is possible now. Once the tunnel is open, returns what was received from the server.
    pub(super) fn advance(
        &mut self,
        route: &Route,
        memory: &mut [u8],
    ) -> Result<Option<Vec<u8>>, ConnectError> {
        loop {
            self.send(route)?;
            if self.received.is_some() {
                return Ok(self.received.take_if(|_| self.unsent.is_empty()));
            }
            if self.received_len > MAX_ANSWER {
                return Err(answer_too_long(route));
            }
            let n = match self.socket.read(memory) {
                Ok(0) => return Err(self.closed_error(route, ErrorKind::UnexpectedEof.into())),
                Ok(n) => n,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
                Err(error) => return Err(self.closed_error(route, error)),
            };
            self.received_len += n;
            let received = self.receive(route, &mut memory[..n]);
            if received.is_err() {
                let _ = self.send(route); // TLS may have an alert for the proxy
            }
            self.received = received?;
            if self.received.is_none() && self.proxy_layer.has_ended() {
                return Err(self.closed_error(route, ErrorKind::UnexpectedEof.into()));
            }
        }
    }

    /// Nothing more arrives. If the proxy was in the middle of a refusal, returns that.
    pub(super) fn partial_refusal(&mut self, route: &Route) -> Option<ConnectError> {
        self.handshake.partial_refusal(route)
    }

    fn receive(
        &mut self,
        route: &Route,
        bytes: &mut [u8],
    ) -> Result<Option<Vec<u8>>, ConnectError> {
        let Self { proxy_layer, handshake, unsent, .. } = self;
        let mut input = Input::new(proxy_layer.decode(&route.proxy, bytes, unsent)?);
        let mut answer = Vec::new();
        let is_open = handshake.receive(route, &mut input, &mut answer)?;
        let received = is_open.then(|| input.rest().to_vec());
        proxy_layer.encode(&route.proxy, &answer, unsent)?;
        Ok(received)
    }

    fn send(&mut self, route: &Route) -> Result<(), ConnectError> {
        while !self.unsent.is_empty() {
            match self.socket.write(&self.unsent) {
                Ok(n) => _ = self.unsent.drain(..n),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(self.closed_error(route, error)),
            }
        }
        Ok(())
    }

    fn closed_error(&mut self, route: &Route, source: io::Error) -> ConnectError {
        let proxy = route.proxy.to_string();
        self.partial_refusal(route).unwrap_or(ConnectError::ProxyClosed { proxy, source })
    }
}

fn answer_too_long(route: &Route) -> ConnectError {
    let source = ProxyAnswerError::Http(HandshakeError::HeadTooBig);
    ConnectError::ProxyAnswer { proxy: route.proxy.to_string(), source }
}
