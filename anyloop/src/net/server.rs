//! Servers: listening, and accepting connections.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, ToSocketAddrs};
#[cfg(unix)]
use std::path::Path;

use super::Server;
use super::acceptor::Acceptor;
use super::error::Error;
use super::layer::ListenerTls;
use super::listener::{Backoff, IpVersions, Listener, LocalAddress};
use super::supports::Supports;
use crate::endpoint::HandlerFactory;
use crate::event_loop::IdleListener;

/// The result of [`Server::listen_each`].
///
/// ```
/// use anyloop::net::Server;
/// use anyloop::prelude::*;
///
/// let server = Server::new(ServerConfig::new(OriginPolicy::Any))?;
/// let listening = server.listen_each("localhost:0")?;
/// for address in &listening.addresses {
///     println!("listening on {address}");
/// }
/// for (address, error) in &listening.skipped {
///     println!("not listening on {address}: {error}");
/// }
/// # assert!(!listening.addresses.is_empty());
/// # Ok::<(), anyloop::net::Error>(())
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub struct Listening {
    /// The addresses that the server listens on, at least one.
    pub addresses: Vec<SocketAddr>,
    /// The addresses that this machine does not have, and the error of each.
    pub skipped: Vec<(SocketAddr, io::Error)>,
}

/// Listening and accepting.
impl<F: HandlerFactory, K: Supports<F>> Server<F, K> {
    /// Listens on an address, or on each address of a host name. Returns the first address that the
    /// server listens on, with the port that was chosen if 0 was given.
    ///
    /// A server can listen on any number of addresses. Connections are accepted when
    /// [`start_accept`](Self::start_accept) is called. The look-up of a host name blocks.
    ///
    /// A socket for an IPv6 address that is not IPv4-mapped accepts IPv6 alone: `[::]:9002` does not include
    /// `0.0.0.0:9002`, which can be listened on as well. [`listen_port`](Self::listen_port) listens on both.
    ///
    /// Addresses of a host name that this machine does not have are skipped: `localhost` often has `::1`
    /// where no interface has it. Skipped addresses are logged; [`listen_each`](Self::listen_each) returns them.
    ///
    /// # Errors
    ///
    /// The server then listens on none of the addresses. [`Error::Resolve`]: the look-up has failed.
    /// [`Error::Listen`]: an address cannot be listened on (it is in use, for example), or this machine has none of the
    /// addresses. [`Error::ShutDown`].
    pub fn listen(&self, address: impl ToSocketAddrs + AsAddress) -> Result<SocketAddr, Error> {
        self.listen_with(address, &ListenerTls::default())
    }

    /// Does the same as [`listen`](Self::listen). Returns all addresses that the server listens on, and
    /// those that were skipped.
    ///
    /// # Errors
    ///
    /// As [`listen`](Self::listen).
    pub fn listen_each(&self, address: impl ToSocketAddrs + AsAddress) -> Result<Listening, Error> {
        self.listen_each_with(address, &ListenerTls::default())
    }

    /// Listens on a port of all addresses of this machine, by IPv6 and IPv4 on one socket; by IPv4 alone
    /// where there is no IPv6. Returns the port, which was chosen if 0 was given.
    ///
    /// # Errors
    ///
    /// [`Error::Listen`], [`Error::ShutDown`].
    pub fn listen_port(&self, port: u16) -> Result<u16, Error> {
        self.listen_port_with(port, ListenerTls::default())
    }

    /// Listens on one IPv6 address, and not on the IPv4 addresses that it may include. Returns the
    /// address, with the port that was chosen if 0 was given.
    ///
    /// # Errors
    ///
    /// [`Error::Listen`], [`Error::ShutDown`].
    pub fn listen_only_v6(&self, address: SocketAddrV6) -> Result<SocketAddr, Error> {
        self.listen_only_v6_with(address, ListenerTls::default())
    }

    /// Listens on a Unix socket. A socket file at `path` is replaced if no process listens on it. The file is
    /// removed when the server stops listening, unless another file has replaced it.
    ///
    /// # Errors
    ///
    /// [`Error::Listen`], [`Error::ShutDown`].
    #[cfg(unix)]
    pub fn listen_unix(&self, path: impl AsRef<Path>) -> Result<(), Error> {
        self.listen_unix_with(path.as_ref(), ListenerTls::default())
    }

    /// Takes over a TCP socket that listens already: the application has opened it, or the process has inherited it
    /// (socket activation).
    ///
    /// # Errors
    ///
    /// [`Error::Listen`]: it is not a listening TCP socket. [`Error::ShutDown`].
    pub fn listen_on(&self, socket: std::net::TcpListener) -> Result<LocalAddress, Error> {
        self.take_over(Listener::from_tcp(socket), ListenerTls::default())
    }

    /// Takes over a Unix socket that listens already. Its file is not removed.
    ///
    /// # Errors
    ///
    /// [`Error::Listen`]: it is not a listening Unix socket. [`Error::ShutDown`].
    #[cfg(unix)]
    pub fn listen_on_unix(
        &self,
        socket: std::os::unix::net::UnixListener,
    ) -> Result<LocalAddress, Error> {
        self.take_over(Listener::from_unix(socket), ListenerTls::default())
    }

    /// Accepts connections on all addresses that the server listens on, until it [stops
    /// listening](Self::stop_listening). Call it again after listening on further addresses. The settings
    /// of accepted sockets ([`tcp_nodelay`](crate::ServerConfig::tcp_nodelay), hooks) are those at the time of this
    /// call.
    ///
    /// # Errors
    ///
    /// [`Error::NotListening`], [`Error::ShutDown`]. [`Error::Listen`]: accepting cannot be started on this address; it
    /// may have been started on others.
    pub fn start_accept(&self) -> Result<(), Error> {
        self.check_not_shut_down()?;
        let net = &self.net;
        if net.listeners.is_empty() {
            return Err(Error::NotListening);
        }
        let engine = net.engine();
        for listener in net.listeners.without_acceptor() {
            let nodelay = listener.set_nodelay(self.config().nodelay);
            let hooks = net.hooks.current();
            let (core, backoff) = (self.core.clone(), Backoff::default());
            let address = listener.address().to_string();
            let inserted = engine.insert(|token| {
                let control = engine.control().clone();
                let wake = move || control.wake(token);
                listener.register(engine.registry(), token, wake)?;
                let acceptor = Acceptor { core, listener, hooks, nodelay, backoff };
                Ok::<_, io::Error>(K::acceptor(acceptor))
            });
            if let Err(source) = inserted {
                self.check_not_shut_down()?; // a shutdown by another thread has closed the listener
                return Err(Error::Listen { address, source });
            }
        }
        Ok(())
    }

    /// Closes all listeners. Accepted connections are not affected. [`run`](Self::run) returns when the last connection
    /// has ended and the loop has no other work.
    pub fn stop_listening(&self) {
        self.net.listeners.close();
    }

    /// Whether the server listens, even if it does not accept connections yet.
    #[must_use]
    pub fn is_listening(&self) -> bool {
        !self.net.listeners.is_empty()
    }

    /// Whether the server accepts connections on at least one address.
    #[must_use]
    pub fn is_accepting(&self) -> bool {
        self.net.listeners.is_accepting()
    }

    /// The addresses that the server listens on, in the order in which they were added.
    #[must_use]
    pub fn local_addresses(&self) -> Vec<LocalAddress> {
        self.net.listeners.addresses()
    }

    /// The first TCP address that the server listens on.
    #[must_use]
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.local_addresses().into_iter().find_map(|address| match address {
            LocalAddress::Tcp(address) => Some(address),
            #[cfg(unix)]
            LocalAddress::Unix(_) => None,
        })
    }
}

/// Listening, with TLS or without.
impl<F: HandlerFactory, K: Supports<F>> Server<F, K> {
    pub(super) fn listen_with(
        &self,
        address: impl ToSocketAddrs + AsAddress,
        tls: &ListenerTls,
    ) -> Result<SocketAddr, Error> {
        let name = address.readable();
        let Listening { addresses, skipped } = self.listen_each_with(address, tls)?;
        for (address, error) in &skipped {
            crate::log::warn!("{name}: not listening on {address}: {error}");
        }
        let no_address =
            || Error::Resolve { address: name, source: io::ErrorKind::NotFound.into() };
        addresses.first().copied().ok_or_else(no_address)
    }

    pub(super) fn listen_each_with(
        &self,
        address: impl ToSocketAddrs + AsAddress,
        tls: &ListenerTls,
    ) -> Result<Listening, Error> {
        self.check_not_shut_down()?;
        let name = address.readable();
        let resolve = |source| Error::Resolve { address: name.clone(), source };
        let resolved: Vec<SocketAddr> = address.to_socket_addrs().map_err(resolve)?.collect();
        let mut listeners: Vec<Listener> = Vec::new();
        let (mut addresses, mut skipped) = (Vec::<SocketAddr>::new(), Vec::new());
        for mut address in resolved {
            // All addresses get the port that was chosen for the first.
            if address.port() == 0 {
                address.set_port(addresses.first().map_or(0, SocketAddr::port));
            }
            if addresses.contains(&address) {
                continue;
            }
            match self.bind(address, ip_versions(address)) {
                Ok((listener, address)) => {
                    listeners.push(listener.with_tls(tls.clone()));
                    addresses.push(address);
                }
                Err(error) if is_unavailable(&error) => skipped.push((address, error)),
                Err(source) => return Err(listen_error(address, source)),
            }
        }
        if addresses.is_empty() {
            return Err(match skipped.into_iter().next() {
                Some((address, source)) => listen_error(address, source),
                None => resolve(io::ErrorKind::NotFound.into()),
            });
        }
        self.add(listeners)?;
        Ok(Listening { addresses, skipped })
    }

    pub(super) fn listen_port_with(&self, port: u16, tls: ListenerTls) -> Result<u16, Error> {
        self.check_not_shut_down()?;
        let mut address = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
        let mut bound = self.bind(address, IpVersions::Both);
        if bound.as_ref().is_err_and(is_unavailable) {
            address = (Ipv4Addr::UNSPECIFIED, port).into();
            bound = self.bind(address, ip_versions(address));
        }
        let (listener, bound) = bound.map_err(|source| listen_error(address, source))?;
        self.add([listener.with_tls(tls)])?;
        Ok(bound.port())
    }

    pub(super) fn listen_only_v6_with(
        &self,
        address: SocketAddrV6,
        tls: ListenerTls,
    ) -> Result<SocketAddr, Error> {
        self.check_not_shut_down()?;
        let address = SocketAddr::from(address);
        let bound = self.bind(address, IpVersions::OnlyV6);
        let (listener, bound) = bound.map_err(|source| listen_error(address, source))?;
        self.add([listener.with_tls(tls)])?;
        Ok(bound)
    }

    #[cfg(unix)]
    pub(super) fn listen_unix_with(&self, path: &Path, tls: ListenerTls) -> Result<(), Error> {
        self.check_not_shut_down()?;
        let listener = Listener::bind_unix(path.to_path_buf(), &self.config().listen);
        let listener = listener.map_err(|source| {
            let address = format!("unix:{}", path.display());
            Error::Listen { address, source }
        })?;
        self.add([listener.with_tls(tls)])
    }

    pub(super) fn take_over(
        &self,
        listener: io::Result<Listener>,
        tls: ListenerTls,
    ) -> Result<LocalAddress, Error> {
        self.check_not_shut_down()?;
        let to_error = |source| Error::Listen { address: "an open socket".to_string(), source };
        let listener = listener.map_err(to_error)?.with_tls(tls);
        let address = listener.address().clone();
        self.add([listener])?;
        Ok(address)
    }

    /// A listener on an address, and the address with its actual port.
    fn bind(
        &self,
        address: SocketAddr,
        versions: IpVersions,
    ) -> io::Result<(Listener, SocketAddr)> {
        let config = self.config();
        let hooks = self.net.hooks.current();
        let listener = Listener::bind(address, versions, &config.listen, config.nodelay, &hooks)?;
        let bound = match listener.address() {
            LocalAddress::Tcp(bound) => *bound,
            #[cfg(unix)]
            LocalAddress::Unix(_) => address,
        };
        Ok((listener, bound))
    }

    fn add(&self, listeners: impl IntoIterator<Item = Listener>) -> Result<(), Error> {
        let all = &self.net.listeners;
        let control = self.net.engine().control();
        for listener in listeners {
            all.add(listener, IdleListener::new(control.clone()));
        }
        // A concurrent shutdown may have closed the listeners before these were added.
        self.check_not_shut_down().inspect_err(|_| all.close())
    }

    fn check_not_shut_down(&self) -> Result<(), Error> {
        if self.is_shutting_down() { Err(Error::ShutDown) } else { Ok(()) }
    }
}

fn listen_error(address: SocketAddr, source: io::Error) -> Error {
    Error::Listen { address: address.to_string(), source }
}

/// The versions of IP that a socket for this address is to accept. The default depends on the system.
fn ip_versions(address: SocketAddr) -> IpVersions {
    match address {
        SocketAddr::V6(v6) if v6.ip().to_ipv4_mapped().is_none() => IpVersions::OnlyV6,
        _ => IpVersions::Both, // an IPv4-mapped address needs a socket that accepts IPv4
    }
}

/// Whether listening has failed because this machine lacks the address, or its family.
fn is_unavailable(error: &io::Error) -> bool {
    use io::ErrorKind::{AddrNotAvailable, Unsupported};
    #[cfg(unix)]
    if error.raw_os_error() == Some(libc::EAFNOSUPPORT) {
        return true;
    }
    matches!(error.kind(), AddrNotAvailable | Unsupported)
}

/// An address to listen on that has a text for errors.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an address to listen on",
    note = "an address is a string such as \"127.0.0.1:9002\", a pair of host and port, or a `SocketAddr`"
)]
pub trait AsAddress {
    /// The address as it was given.
    fn readable(&self) -> String;
}

impl<A: AsAddress + ?Sized> AsAddress for &A {
    fn readable(&self) -> String {
        (**self).readable()
    }
}

/// Addresses whose text is their `Display`.
macro_rules! as_text {
    ($($address:ty),*) => {
        $(impl AsAddress for $address {
            fn readable(&self) -> String {
                self.to_string()
            }
        })*
    };
}

as_text!(str, String, SocketAddr, std::net::SocketAddrV4, SocketAddrV6);

/// IP addresses with a port.
macro_rules! with_port {
    ($($host:ty),*) => {
        $(impl AsAddress for ($host, u16) {
            fn readable(&self) -> String {
                SocketAddr::from(*self).to_string()
            }
        })*
    };
}

with_port!(std::net::IpAddr, Ipv4Addr, Ipv6Addr);

impl AsAddress for (&str, u16) {
    fn readable(&self) -> String {
        format!("{}:{}", self.0, self.1)
    }
}

impl AsAddress for (String, u16) {
    fn readable(&self) -> String {
        format!("{}:{}", self.0, self.1)
    }
}
