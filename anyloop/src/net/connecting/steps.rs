//! The steps of connecting.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, PoisonError};

use anyloop_proto::Instant;

use super::super::error::{ConnectError, Stage, describe_errors};
use super::super::eyeballs::Attempts;
use super::super::host::literal_address;
use super::super::resolver::Resolver;
use super::super::serves_connections::ServesConnections;
#[cfg(unix)]
use super::UnixAttempt;
use super::socket::{self, connect_tcp, connected_peer};
use super::tunnel::Tunnel;
use super::{
    Connected, Connecting, Destination, FirstHop, LookupResult, Resolution, Step, StepOutcome,
    TcpAttempts,
};
use crate::endpoint::HandlerFactory;
use crate::event_loop::{Kind, Socket, Turn, waker};
use crate::sync::unmodelled::Mutex;
use crate::transport::Peer;

/// The error of a connection attempt whose socket hook has panicked.
const HOOK_PANICKED: &str = "the `on_socket_init` function panicked";

impl<F: HandlerFactory> Connecting<F> {
    /// Connects to the destination, which is looked up first if it is a name.
    pub(super) fn begin<K: ServesConnections<F::Handler>>(
        &self,
        destination: Destination,
        turn: &Turn<'_, K>,
    ) -> StepOutcome {
        let started = turn.state.now;
        let resolver = match destination {
            Destination::Host(resolver) => resolver,
            Destination::Addresses(addresses) => return self.try_addresses(addresses, started),
            #[cfg(unix)]
            Destination::Unix(path) => {
                let attempt = UnixAttempt { started, path, stream: None };
                return StepOutcome::Advance(Step::ConnectUnix(attempt));
            }
        };
        let FirstHop { display_name, host, port, proxy_route } = &self.first_hop;
        match proxy_route.as_ref().filter(|route| route.needs_address()) {
            // SOCKS5 without remote names: the target is looked up here, and `begin` follows again, for the proxy.
            Some(route) => {
                let (host, port) = (route.target_lookup_host(), route.target.port());
                look_up((&host, &host, port), true, resolver, turn)
            }
            None => match literal_address(host, *port) {
                Some(address) => self.try_addresses(vec![address], started),
                None => look_up((display_name, host, *port), false, resolver, turn),
            },
        }
    }

    fn try_addresses(&self, addresses: Vec<SocketAddr>, started: Instant) -> StepOutcome {
        let attempts = Attempts::new(addresses, self.options.attempt_delay, started);
        StepOutcome::Advance(Step::ConnectTcp(TcpAttempts {
            started,
            attempts,
            sockets: Vec::new(),
        }))
    }

    /// Takes the result of a look-up: the address of the target of a tunnel, or the addresses to connect to.
    pub(super) fn finish_look_up(
        &mut self,
        resolution: Resolution,
        has_expired: bool,
        now: Instant,
    ) -> StepOutcome {
        let result = resolution.result.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Resolution { started, display_name, is_target, .. } = &resolution;
        match result {
            Some(Ok(addresses)) if *is_target => {
                if let Some(route) = &mut self.first_hop.proxy_route {
                    route.address = addresses.first().copied();
                }
                StepOutcome::Advance(Step::Begin(Destination::Host(resolution.resolver)))
            }
            Some(Ok(addresses)) => self.try_addresses(addresses, now),
            Some(Err(source)) => {
                StepOutcome::Failed(ConnectError::Resolve { host: display_name.clone(), source })
            }
            None if has_expired => {
                self.timed_out(display_name, Stage::Resolve, *started, Vec::new())
            }
            None => StepOutcome::Pending(Step::Resolve(resolution)),
        }
    }

    /// Takes the first socket that is connected, or starts the attempts whose time has come (RFC 8305).
    pub(super) fn advance_tcp<K: ServesConnections<F::Handler>>(
        &mut self,
        mut tcp: TcpAttempts,
        has_expired: bool,
        turn: &Turn<'_, K>,
    ) -> StepOutcome {
        let now = turn.state.now;
        if let Some((socket, peer)) = tcp.take_connected(now) {
            return self.connected(socket, peer, now);
        }
        while let Some(address) = tcp.attempts.next(now) {
            let (registry, token) = (turn.engine.registry(), turn.state.token);
            let start = || connect_tcp(address, &self.hooks, self.nodelay, registry, token);
            match catch_unwind(AssertUnwindSafe(start)) {
                Ok(Ok(stream)) => tcp.sockets.push((address, stream)),
                Ok(Err(error)) => tcp.attempts.failed(address, error, now),
                Err(panic) => {
                    tcp.attempts.failed(address, io::Error::other(HOOK_PANICKED), now);
                    return StepOutcome::Panicked(Step::ConnectTcp(tcp), panic);
                }
            }
        }
        if tcp.attempts.is_exhausted() {
            let attempts = describe_errors(tcp.attempts.into_errors());
            StepOutcome::Failed(ConnectError::Connect {
                host: self.first_hop.display_name.clone(),
                attempts,
            })
        } else if has_expired {
            let errors = describe_errors(tcp.attempts.into_errors());
            self.timed_out(&self.first_hop.display_name, Stage::Connect, tcp.started, errors)
        } else {
            StepOutcome::Pending(Step::ConnectTcp(tcp))
        }
    }

    /// The socket is connected: to the server, or to a proxy.
    fn connected(&mut self, socket: Socket, peer: Peer, now: Instant) -> StepOutcome {
        let Some(route) = &mut self.first_hop.proxy_route else {
            return StepOutcome::Connected(Connected::directly(socket, peer));
        };
        match Tunnel::new(route, socket, peer, now) {
            Ok(tunnel) => StepOutcome::Advance(Step::Tunnel(Box::new(tunnel))),
            Err(error) => StepOutcome::Failed(error),
        }
    }

    /// Sends and receives the messages by which the proxy opens the tunnel.
    pub(super) fn open_tunnel<K: ServesConnections<F::Handler>>(
        &self,
        mut tunnel: Box<Tunnel>,
        has_expired: bool,
        turn: &mut Turn<'_, K>,
    ) -> StepOutcome {
        let FirstHop { display_name, proxy_route: Some(route), .. } = &self.first_hop else {
            return StepOutcome::Pending(Step::None); // without a route there is no tunnel
        };
        match tunnel.advance(route, &mut turn.buffers.read) {
            Ok(Some(received)) => {
                let Tunnel { socket, peer, proxy_layer, .. } = *tunnel;
                StepOutcome::Connected(Connected { socket, peer, proxy_layer, received })
            }
            Ok(None) if has_expired => match tunnel.partial_refusal(route) {
                Some(refusal) => StepOutcome::Failed(refusal),
                None => self.timed_out(display_name, Stage::Proxy, tunnel.started, Vec::new()),
            },
            Ok(None) => StepOutcome::Pending(Step::Tunnel(tunnel)),
            Err(error) => StepOutcome::Failed(error),
        }
    }

    #[cfg(unix)]
    /// Connects to a Unix socket, or tries again while the listener's queue is full.
    pub(super) fn advance_unix<K: ServesConnections<F::Handler>>(
        &self,
        mut unix: UnixAttempt,
        has_expired: bool,
        turn: &Turn<'_, K>,
    ) -> StepOutcome {
        let stream = match unix.stream.take() {
            Some(result) => result,
            None => {
                let (registry, token) = (turn.engine.registry(), turn.state.token);
                let start = || socket::connect_unix(&unix.path, &self.hooks, registry, token);
                match catch_unwind(AssertUnwindSafe(start)) {
                    Ok(result) => result,
                    Err(panic) => {
                        unix.stream = Some(Err(io::Error::other(HOOK_PANICKED)));
                        return StepOutcome::Panicked(Step::ConnectUnix(unix), panic);
                    }
                }
            }
        };
        match stream.and_then(|stream| Ok((connected_peer(&stream)?, stream))) {
            Ok((Some(peer), socket)) => {
                return StepOutcome::Connected(Connected::directly(socket, peer));
            }
            Ok((None, stream)) => unix.stream = Some(Ok(stream)),
            // The listener's queue is full.
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return self.unix_failed(error),
        }
        if has_expired {
            return self.timed_out(
                &self.first_hop.display_name,
                Stage::Connect,
                unix.started,
                Vec::new(),
            );
        }
        StepOutcome::Pending(Step::ConnectUnix(unix))
    }

    #[cfg(unix)]
    fn unix_failed(&self, error: io::Error) -> StepOutcome {
        let host = self.first_hop.display_name.clone();
        let attempts = vec![(host.clone(), error)];
        StepOutcome::Failed(ConnectError::Connect { host, attempts })
    }
}

/// Begins to look up a host and its port.
fn look_up<K: Kind>(
    (display_name, host, port): (&str, &str, u16),
    is_target: bool,
    resolver: Arc<Resolver>,
    turn: &Turn<'_, K>,
) -> StepOutcome {
    let result = Arc::<Mutex<Option<LookupResult>>>::default();
    let (shared, waker) = (result.clone(), waker(turn.engine.control(), turn.state.token));
    let callback = Box::new(move |addresses| {
        *shared.lock().unwrap_or_else(PoisonError::into_inner) = Some(addresses);
        waker.wake();
    });
    let _lookup = resolver.resolve(host, port, callback);
    let resolution = Resolution {
        started: turn.state.now,
        display_name: display_name.to_string(),
        is_target,
        result,
        _lookup,
        resolver,
    };
    StepOutcome::Advance(Step::Resolve(resolution))
}

impl TcpAttempts {
    /// Takes the first stream that is connected. Records the attempts that have failed.
    fn take_connected(&mut self, now: Instant) -> Option<(Socket, Peer)> {
        let mut index = 0;
        while index < self.sockets.len() {
            match connected_peer(&self.sockets[index].1) {
                Ok(Some(peer)) => return Some((self.sockets.swap_remove(index).1, peer)),
                Ok(None) => index += 1,
                Err(error) => {
                    let (address, _) = self.sockets.swap_remove(index);
                    self.attempts.failed(address, error, now);
                }
            }
        }
        None
    }
}
