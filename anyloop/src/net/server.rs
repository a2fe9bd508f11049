//! Servers in the loop.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
#[cfg(unix)]
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::acceptor::Acceptor;
use super::error::Error;
use super::listener::{Backoff, Listener, LocalAddress};
use super::registry::WakeSources;
use super::serves::Serves;
use super::transport::Net;
use crate::endpoint::{Client, HandlerFactory, Server};
use crate::event_loop::{Engine, Kind};

/// The methods of servers and clients that concern their loop.
macro_rules! run_family {
    ($endpoint:ident) => {
        impl<K: Kind, F: HandlerFactory> $endpoint<Net<K>, F> {
            /// Has the endpoint use this loop, which others may use as well. Without it the endpoint
            /// makes one of its own when it needs it.
            ///
            /// # Errors
            ///
            /// [`Error::HasEventLoop`]: it has made one, or was given one before.
            pub fn set_event_loop(&self, event_loop: &K::Loop) -> Result<(), Error> {
                self.transport().share(event_loop)
            }

            /// The loop that the endpoint uses; it is made now if there is none.
            ///
            /// # Errors
            ///
            /// [`Error::EventLoop`].
            pub fn event_loop(&self) -> Result<K::Loop, Error> {
                self.transport().event_loop().cloned()
            }

            /// Runs the loop, as [`EventLoop::run`](crate::EventLoop::run): this is over everything that
            /// is in it, other endpoints too.
            ///
            /// # Errors
            ///
            /// [`Error::EventLoop`], as in the other calls of this kind.
            pub fn run(&self) -> Result<usize, Error> {
                Ok(self.transport().engine()?.run())
            }

            /// As [`EventLoop::run_one`](crate::EventLoop::run_one).
            ///
            /// # Errors
            ///
            /// [`Error::EventLoop`].
            pub fn run_one(&self) -> Result<usize, Error> {
                Ok(self.transport().engine()?.run_one())
            }

            /// As [`EventLoop::run_for`](crate::EventLoop::run_for).
            ///
            /// # Errors
            ///
            /// [`Error::EventLoop`].
            pub fn run_for(&self, time: Duration) -> Result<usize, Error> {
                Ok(self.transport().engine()?.run_for(time))
            }

            /// As [`EventLoop::run_until`](crate::EventLoop::run_until).
            ///
            /// # Errors
            ///
            /// [`Error::EventLoop`].
            pub fn run_until(&self, end: Instant) -> Result<usize, Error> {
                Ok(self.transport().engine()?.run_until(end))
            }

            /// As [`EventLoop::poll`](crate::EventLoop::poll).
            ///
            /// # Errors
            ///
            /// [`Error::EventLoop`].
            pub fn poll(&self) -> Result<usize, Error> {
                Ok(self.transport().engine()?.poll())
            }

            /// As [`EventLoop::poll_one`](crate::EventLoop::poll_one).
            ///
            /// # Errors
            ///
            /// [`Error::EventLoop`].
            pub fn poll_one(&self) -> Result<usize, Error> {
                Ok(self.transport().engine()?.poll_one())
            }

            /// As [`EventLoop::poll_budget`](crate::EventLoop::poll_budget).
            ///
            /// # Errors
            ///
            /// [`Error::EventLoop`].
            pub fn poll_budget(
                &self,
                handlers: u64,
                until: Option<Instant>,
            ) -> Result<usize, Error> {
                Ok(self.transport().engine()?.poll_budget(handlers, until))
            }

            /// As [`EventLoop::stop`](crate::EventLoop::stop).
            ///
            /// # Errors
            ///
            /// [`Error::EventLoop`].
            pub fn stop(&self) -> Result<(), Error> {
                self.transport().engine()?.remote().stop();
                Ok(())
            }

            /// As [`EventLoop::stopped`](crate::EventLoop::stopped).
            ///
            /// # Errors
            ///
            /// [`Error::EventLoop`].
            pub fn stopped(&self) -> Result<bool, Error> {
                Ok(self.transport().engine()?.remote().is_stopped())
            }

            /// As [`EventLoop::reset`](crate::EventLoop::reset).
            ///
            /// # Errors
            ///
            /// [`Error::EventLoop`], [`Error::Running`].
            pub fn reset(&self) -> Result<(), Error> {
                self.transport().reset()
            }

            /// From now on run calls do not end for want of work. To call it twice is to call it once.
            ///
            /// # Errors
            ///
            /// [`Error::EventLoop`].
            pub fn start_perpetual(&self) -> Result<(), Error> {
                self.transport().set_perpetual(true)
            }

            /// From now on run calls end for want of work. Without
            /// [`start_perpetual`](Self::start_perpetual) it does nothing.
            ///
            /// # Errors
            ///
            /// [`Error::EventLoop`].
            pub fn stop_perpetual(&self) -> Result<(), Error> {
                self.transport().set_perpetual(false)
            }
        }
    };
}

run_family!(Server);
run_family!(Client);

/// Listening and accepting.
impl<K: Serves<F>, F: HandlerFactory> Server<Net<K>, F> {
    /// Listens on an address, or on each address of a host name, which may take the resolver a while.
    /// A server can listen on any number of addresses; connections are accepted from when it is told
    /// to [accept](Self::start_accept). Returns the (first) address: with the port that was chosen,
    /// where 0 was asked for.
    ///
    /// # Errors
    ///
    /// [`Error::Resolve`], [`Error::Listen`]: it then listens on none of them.
    pub fn listen(&self, address: impl ToSocketAddrs + AsAddress) -> Result<SocketAddr, Error> {
        let name = address.readable();
        let resolve = |source| Error::Resolve { address: name.clone(), source };
        let addresses: Vec<SocketAddr> = address.to_socket_addrs().map_err(resolve)?.collect();
        let mut listeners: Vec<Listener> = Vec::new();
        let mut first: Option<SocketAddr> = None;
        for mut address in addresses {
            // The port that was chosen for the first address of a host is that of all.
            if address.port() == 0 {
                address.set_port(first.map_or(0, |first| first.port()));
            }
            let same = LocalAddress::Tcp(address);
            if listeners.iter().any(|listener| *listener.address() == same) {
                continue;
            }
            let listener = self.bind(address, None)?;
            if let (None, LocalAddress::Tcp(address)) = (first, listener.address()) {
                first = Some(*address);
            }
            listeners.push(listener);
        }
        listeners.into_iter().for_each(|listener| self.transport().listeners.add(listener));
        first.ok_or_else(|| resolve(io::ErrorKind::NotFound.into()))
    }

    /// Listens on a port of all addresses of this machine, by IPv6 and IPv4; by IPv4 alone where there
    /// is no IPv6. Returns the port.
    ///
    /// # Errors
    ///
    /// [`Error::Listen`].
    pub fn listen_port(&self, port: u16) -> Result<u16, Error> {
        let both = self.bind((Ipv6Addr::UNSPECIFIED, port).into(), Some(false));
        let listener = match both {
            Err(Error::Listen { source, .. }) if is_without_v6(&source) => {
                self.bind((Ipv4Addr::UNSPECIFIED, port).into(), None)
            }
            listener => listener,
        }?;
        let port = match listener.address() {
            LocalAddress::Tcp(address) => address.port(),
            #[cfg(unix)]
            LocalAddress::Unix(_) => port,
        };
        self.transport().listeners.add(listener);
        Ok(port)
    }

    /// Listens on an IPv6 address, and not on the IPv4 addresses that it may stand for. Returns the
    /// address, with the port that was chosen where 0 was asked for.
    ///
    /// # Errors
    ///
    /// [`Error::Listen`].
    pub fn listen_only_v6(&self, address: std::net::SocketAddrV6) -> Result<SocketAddr, Error> {
        let listener = self.bind(address.into(), Some(true))?;
        let address = match listener.address() {
            LocalAddress::Tcp(address) => *address,
            #[cfg(unix)]
            LocalAddress::Unix(_) => address.into(),
        };
        self.transport().listeners.add(listener);
        Ok(address)
    }

    /// Listens on a path. A socket that a former process has left there is replaced; and it is removed
    /// when the server stops listening.
    ///
    /// # Errors
    ///
    /// [`Error::Listen`].
    #[cfg(unix)]
    pub fn listen_unix(&self, path: impl AsRef<Path>) -> Result<(), Error> {
        let path = path.as_ref();
        let listener = Listener::bind_unix(path.to_path_buf(), &self.transport().listen);
        let listener = listener.map_err(|source| {
            let address = format!("unix:{}", path.display());
            Error::Listen { address, source }
        })?;
        self.transport().listeners.add(listener);
        Ok(())
    }

    /// Takes over a socket that listens already: opened elsewhere, or inherited (socket activation).
    ///
    /// # Errors
    ///
    /// [`Error::Listen`]: it is no such socket.
    pub fn listen_on(&self, socket: std::net::TcpListener) -> Result<LocalAddress, Error> {
        self.take_over(Listener::from_tcp(socket))
    }

    /// Takes over a Unix socket that listens already. Its path is not removed.
    ///
    /// # Errors
    ///
    /// [`Error::Listen`]: it is no such socket.
    #[cfg(unix)]
    pub fn listen_on_unix(
        &self,
        socket: std::os::unix::net::UnixListener,
    ) -> Result<LocalAddress, Error> {
        self.take_over(Listener::from_unix(socket))
    }

    /// Accepts connections, from all that the server listens on, until it [stops
    /// listening](Self::stop_listening). To be called again when it listens on more. What is set for
    /// the sockets of connections ([`nodelay`](super::Endpoint::nodelay), hooks) is as it was set now.
    ///
    /// # Errors
    ///
    /// [`Error::NotListening`], [`Error::EventLoop`], [`Error::Listen`].
    pub fn start_accept(&self) -> Result<(), Error> {
        let net = self.transport();
        if net.listeners.is_empty() {
            return Err(Error::NotListening);
        }
        let engine = self.engine()?;
        for listener in net.listeners.idle() {
            let (hooks, nodelay) = (net.hooks.clone(), listener.set_nodelay(net.nodelay));
            let (core, backoff) = (self.core().clone(), Backoff::default());
            let address = listener.address().to_string();
            let begun = engine.insert(|token| {
                let remote = engine.remote().clone();
                let wake = move || remote.wake(token);
                listener.register(engine.registry(), token, wake)?;
                Ok::<_, io::Error>(K::acceptor(Acceptor {
                    core,
                    listener,
                    hooks,
                    nodelay,
                    backoff,
                }))
            });
            begun.map_err(|source| Error::Listen { address, source })?;
        }
        Ok(())
    }

    /// Closes all listeners. Connections go on, also those whose handshake is not done; when the last
    /// has ended, run calls end, if there is no other work.
    pub fn stop_listening(&self) {
        self.transport().listeners.close();
    }

    /// Whether there is a listener: accepted from, or not yet.
    #[must_use]
    pub fn is_listening(&self) -> bool {
        !self.transport().listeners.is_empty()
    }

    /// Whether connections are accepted.
    #[must_use]
    pub fn is_accepting(&self) -> bool {
        self.transport().listeners.is_accepting()
    }

    /// What the server listens on, in the order in which it was told to.
    #[must_use]
    pub fn local_addresses(&self) -> Vec<LocalAddress> {
        self.transport().listeners.addresses()
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

    fn engine(&self) -> Result<&Arc<Engine<K>>, Error> {
        let engine = self.transport().engine()?;
        let registry = &self.core().state.registry;
        registry.use_loop(|| Arc::new(WakeSources(engine.remote().clone())));
        Ok(engine)
    }

    fn bind(&self, address: SocketAddr, only_v6: Option<bool>) -> Result<Listener, Error> {
        let net = self.transport();
        let listener = Listener::bind(address, only_v6, &net.listen, net.nodelay, &net.hooks);
        listener.map_err(|source| Error::Listen { address: address.to_string(), source })
    }

    fn take_over(&self, listener: io::Result<Listener>) -> Result<LocalAddress, Error> {
        let wrap = |source| Error::Listen { address: "an open socket".to_string(), source };
        let listener = listener.map_err(wrap)?;
        let address = listener.address().clone();
        self.transport().listeners.add(listener);
        Ok(address)
    }
}

/// There is no IPv6 here, in one way or another.
fn is_without_v6(error: &io::Error) -> bool {
    use io::ErrorKind::{AddrNotAvailable, Unsupported};
    #[cfg(unix)]
    if error.raw_os_error() == Some(libc::EAFNOSUPPORT) {
        return true;
    }
    matches!(error.kind(), AddrNotAvailable | Unsupported)
}

/// An address, for people to read in an error.
pub trait AsAddress {
    /// As it was given.
    fn readable(&self) -> String;
}

impl AsAddress for &str {
    fn readable(&self) -> String {
        (*self).to_string()
    }
}

impl AsAddress for String {
    fn readable(&self) -> String {
        self.clone()
    }
}

impl AsAddress for SocketAddr {
    fn readable(&self) -> String {
        self.to_string()
    }
}

impl AsAddress for (&str, u16) {
    fn readable(&self) -> String {
        format!("{}:{}", self.0, self.1)
    }
}

impl AsAddress for (std::net::IpAddr, u16) {
    fn readable(&self) -> String {
        SocketAddr::from(*self).to_string()
    }
}
