//! The steps of connecting.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, PoisonError};

use anyloop_proto::Instant;

use super::super::error::{ConnectError, Stage, readable};
use super::super::eyeballs::Attempts;
use super::super::host::literal;
use super::super::resolver::Resolver;
use super::super::serves_connections::ServesConnections;
#[cfg(unix)]
use super::UnixAttempt;
use super::socket::{self, connect_tcp, connected_peer};
use super::tunnel::Tunnel;
use super::{
    Connected, Connecting, Destination, FirstHop, LookupResult, Progress, Resolution, Step,
    TcpAttempts,
};
use crate::endpoint::HandlerFactory;
use crate::event_loop::{Kind, Socket, Turn, waker};
use crate::sync::unmodelled::Mutex;
use crate::transport::Peer;

/// The error of a connection attempt whose socket hook has panicked.
const HOOK_PANICKED: &str = "the program's function for the socket has panicked";

impl<F: HandlerFactory> Connecting<F> {
    pub(super) fn begin<K: ServesConnections<F::Handler>>(
        &self,
        destination: Destination,
        turn: &Turn<'_, K>,
    ) -> Progress {
        let since = turn.state.now;
        let resolver = match destination {
            Destination::Host(resolver) => resolver,
            Destination::Addresses(addresses) => return self.try_addresses(addresses, since),
            #[cfg(unix)]
            Destination::Unix(path) => {
                let attempt = UnixAttempt { since, path, stream: None };
                return Progress::Advance(Step::ConnectUnix(attempt));
            }
        };
        let FirstHop { name, host, port, route } = &self.first_hop;
        match route.as_ref().filter(|route| route.needs_address()) {
            Some(route) => {
                let (host, port) = (route.target_host(), route.target.port());
                look_up((&host, &host, port), true, resolver, turn)
            }
            None => match literal(host, *port) {
                Some(address) => self.try_addresses(vec![address], since),
                None => look_up((name, host, *port), false, resolver, turn),
            },
        }
    }

    fn try_addresses(&self, addresses: Vec<SocketAddr>, since: Instant) -> Progress {
        let attempts = Attempts::new(addresses, self.options.attempt_delay, since);
        Progress::Advance(Step::ConnectTcp(TcpAttempts { since, attempts, sockets: Vec::new() }))
    }

    pub(super) fn resolve(
        &mut self,
        resolution: Resolution,
        is_late: bool,
        now: Instant,
    ) -> Progress {
        let result = resolution.result.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Resolution { since, name, is_target, .. } = &resolution;
        match result {
            Some(Ok(addresses)) if *is_target => {
                if let Some(route) = &mut self.first_hop.route {
                    route.address = addresses.first().copied();
                }
                let (_, resolver) = resolution._lookup;
                Progress::Advance(Step::Begin(Destination::Host(resolver)))
            }
            Some(Ok(addresses)) => self.try_addresses(addresses, now),
            Some(Err(source)) => {
                Progress::Failed(ConnectError::Resolve { host: name.clone(), source })
            }
            None if is_late => self.timed_out(name, Stage::Resolve, *since, Vec::new()),
            None => Progress::Pending(Step::Resolve(resolution)),
        }
    }

    pub(super) fn connect_tcp<K: ServesConnections<F::Handler>>(
        &mut self,
        mut tcp: TcpAttempts,
        is_late: bool,
        turn: &Turn<'_, K>,
    ) -> Progress {
        let now = turn.state.now;
        if let Some((socket, peer)) = tcp.take_connected(now) {
            return self.connected(socket, peer, now);
        }
        while let Some(address) = tcp.attempts.next(now) {
            let (registry, token) = (turn.engine.registry(), turn.state.token);
            let connect = || connect_tcp(address, &self.hooks, self.nodelay, registry, token);
            match catch_unwind(AssertUnwindSafe(connect)) {
                Ok(Ok(stream)) => tcp.sockets.push((address, stream)),
                Ok(Err(error)) => tcp.attempts.failed(address, error, now),
                Err(panic) => {
                    tcp.attempts.failed(address, io::Error::other(HOOK_PANICKED), now);
                    return Progress::Panicked(Step::ConnectTcp(tcp), panic);
                }
            }
        }
        if tcp.attempts.is_exhausted() {
            let attempts = readable(tcp.attempts.into_errors());
            Progress::Failed(ConnectError::Connect { host: self.first_hop.name.clone(), attempts })
        } else if is_late {
            let errors = readable(tcp.attempts.into_errors());
            self.timed_out(&self.first_hop.name, Stage::Connect, tcp.since, errors)
        } else {
            Progress::Pending(Step::ConnectTcp(tcp))
        }
    }

    /// The socket is connected: to the server, or to a proxy.
    fn connected(&mut self, socket: Socket, peer: Peer, now: Instant) -> Progress {
        let Some(route) = &mut self.first_hop.route else {
            return Progress::Connected(Connected::directly(socket, peer));
        };
        match Tunnel::new(route, socket, peer, now) {
            Ok(tunnel) => Progress::Advance(Step::Tunnel(Box::new(tunnel))),
            Err(error) => Progress::Failed(error),
        }
    }

    pub(super) fn open_tunnel<K: ServesConnections<F::Handler>>(
        &self,
        mut tunnel: Box<Tunnel>,
        is_late: bool,
        turn: &mut Turn<'_, K>,
    ) -> Progress {
        let FirstHop { name, route: Some(route), .. } = &self.first_hop else {
            return Progress::Pending(Step::Done); // only a route has a tunnel
        };
        match tunnel.advance(route, &mut turn.buffers.read) {
            Ok(Some(received)) => {
                let Tunnel { socket, peer, channel, .. } = *tunnel;
                Progress::Connected(Connected { socket, peer, channel, received })
            }
            Ok(None) if is_late => match tunnel.end(route) {
                Some(refusal) => Progress::Failed(refusal),
                None => self.timed_out(name, Stage::Proxy, tunnel.since, Vec::new()),
            },
            Ok(None) => Progress::Pending(Step::Tunnel(tunnel)),
            Err(error) => Progress::Failed(error),
        }
    }

    #[cfg(unix)]
    pub(super) fn connect_unix<K: ServesConnections<F::Handler>>(
        &self,
        mut unix: UnixAttempt,
        is_late: bool,
        turn: &Turn<'_, K>,
    ) -> Progress {
        let stream = match unix.stream.take() {
            Some(result) => result,
            None => {
                let (registry, token) = (turn.engine.registry(), turn.state.token);
                let connect = || socket::connect_unix(&unix.path, &self.hooks, registry, token);
                match catch_unwind(AssertUnwindSafe(connect)) {
                    Ok(result) => result,
                    Err(panic) => {
                        unix.stream = Some(Err(io::Error::other(HOOK_PANICKED)));
                        return Progress::Panicked(Step::ConnectUnix(unix), panic);
                    }
                }
            }
        };
        match stream.and_then(|stream| Ok((connected_peer(&stream)?, stream))) {
            Ok((Some(peer), socket)) => {
                return Progress::Connected(Connected::directly(socket, peer));
            }
            Ok((None, stream)) => unix.stream = Some(Ok(stream)),
            // The listener's queue is full.
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return self.unix_failed(error),
        }
        if is_late {
            return self.timed_out(&self.first_hop.name, Stage::Connect, unix.since, Vec::new());
        }
        Progress::Pending(Step::ConnectUnix(unix))
    }

    #[cfg(unix)]
    fn unix_failed(&self, error: io::Error) -> Progress {
        let host = self.first_hop.name.clone();
        let attempts = vec![(host.clone(), error)];
        Progress::Failed(ConnectError::Connect { host, attempts })
    }
}

/// Begins to look a host and its port up. The first of the names is for errors.
fn look_up<K: Kind>(
    (name, host, port): (&str, &str, u16),
    is_target: bool,
    resolver: Arc<Resolver>,
    turn: &Turn<'_, K>,
) -> Progress {
    let result = Arc::<Mutex<Option<LookupResult>>>::default();
    let (shared, waker) = (result.clone(), waker(turn.engine.control(), turn.state.token));
    let callback = Box::new(move |addresses| {
        *shared.lock().unwrap_or_else(PoisonError::into_inner) = Some(addresses);
        waker.wake();
    });
    let _lookup = (resolver.resolve(host, port, callback), resolver);
    let (since, name) = (turn.state.now, name.to_string());
    Progress::Advance(Step::Resolve(Resolution { since, name, is_target, result, _lookup }))
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
