//! Clients in the loop.

use std::marker::PhantomData;
use std::net::SocketAddr;
#[cfg(unix)]
use std::path::Path;
use std::sync::Arc;

use anyloop_proto::handshake::{ClientOptions, Target, UriError};

use super::connecting::{Connecting, Destination, Step};
use super::error::Error;
use super::registry::{WakeSources, key};
use super::serves::Serves;
use super::transport::Net;
use crate::endpoint::{Client, Handle, HandlerFactory};
use crate::event_loop::{Engine, now};
use crate::transport::Driver;

/// A connection that is about to be made: what it is to be is set first.
///
/// ```
/// use anyloop::Client;
/// use anyloop::endpoint::ClientSettings;
/// use anyloop::net::Net;
///
/// let mut client = Client::<Net>::new(ClientSettings::default());
/// client.on_fail(|_, context| println!("{}", context.error().expect("nobody is there")));
/// let mut request = client.request("ws://chat.example/room")?;
/// let options = request.options();
/// options.subprotocols = vec!["chat".into()];
/// options.headers.insert("x-room", "lobby".parse()?);
/// # let unused = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
/// let handle = request.to_addresses([unused]).connect()?; // not to those of the host
/// client.run()?;
/// assert!(handle.send("hello").is_err()); // it has failed
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "it does nothing before `connect`"]
pub struct ConnectRequest<'c, K: Serves<F>, F: HandlerFactory> {
    client: &'c Client<Net<K>, F>,
    target: Target,
    options: Option<ClientOptions>,
    handler: Option<F::Handler>,
    destination: Option<Destination>,
}

/// Connecting.
impl<K: Serves<F>, F: HandlerFactory> Client<Net<K>, F> {
    /// Connects to a URI: looks up the host, connects to the first of its addresses that answers
    /// (RFC 8305), and shakes hands; all of it in run calls. What comes of it is told to the handler:
    /// [`open`](crate::Handler::open) or [`fail`](crate::Handler::fail), where
    /// [`Context::error`](crate::endpoint::Context::error) says what a byte stream has failed for. The
    /// handle can close the connection at any time.
    ///
    /// # Errors
    ///
    /// [`Error::Uri`], [`Error::Request`], [`Error::EventLoop`]: connecting was not started.
    pub fn connect<U>(&self, uri: U) -> Result<Handle<F::Handler>, Error>
    where
        U: TryInto<Target> + ToString,
        UriError: From<U::Error>,
    {
        self.request(uri)?.connect()
    }

    /// A connection to a URI, to be made when everything about it is set.
    ///
    /// # Errors
    ///
    /// [`Error::Uri`].
    pub fn request<U>(&self, uri: U) -> Result<ConnectRequest<'_, K, F>, Error>
    where
        U: TryInto<Target> + ToString,
        UriError: From<U::Error>,
    {
        let text = uri.to_string();
        let wrong = |source: U::Error| Error::Uri { uri: text, source: source.into() };
        let target = uri.try_into().map_err(wrong)?;
        Ok(ConnectRequest { client: self, target, options: None, handler: None, destination: None })
    }

    fn engine(&self) -> Result<&Arc<Engine<K>>, Error> {
        let engine = self.transport().engine()?;
        let registry = &self.core().state.registry;
        registry.use_loop(|| Arc::new(WakeSources(engine.remote().clone())));
        Ok(engine)
    }
}

impl<K: Serves<F>, F: HandlerFactory> ConnectRequest<'_, K, F> {
    /// The options of this connection's handshake: at first those of the client.
    pub fn options(&mut self) -> &mut ClientOptions {
        let settings = self.client.settings();
        self.options.get_or_insert_with(|| ClientOptions::clone(&settings.handshake))
    }

    /// Gives the connection a handler of its own.
    pub fn with_handler(mut self, handler: F::Handler) -> Self {
        self.handler = Some(handler);
        self
    }

    /// Connects to one of these addresses, instead of looking the host up.
    pub fn to_addresses(mut self, addresses: impl IntoIterator<Item = SocketAddr>) -> Self {
        self.destination = Some(Destination::Addresses(addresses.into_iter().collect()));
        self
    }

    /// Connects to a Unix socket, instead of looking the host up.
    #[cfg(unix)]
    pub fn to_unix(mut self, path: impl AsRef<Path>) -> Self {
        self.destination = Some(Destination::Unix(path.as_ref().to_path_buf()));
        self
    }

    /// Begins to connect, as [`Client::connect`].
    ///
    /// # Errors
    ///
    /// [`Error::Request`], [`Error::EventLoop`]: connecting was not started.
    pub fn connect(self) -> Result<Handle<F::Handler>, Error> {
        let Self { client, target, options, handler, destination } = self;
        let (engine, net) = (client.engine()?, client.transport());
        let handler = handler.unwrap_or_else(|| client.core().make_handler());
        let started = now();
        let mut session = match options {
            Some(options) => client.core().session_with(handler, &target, options, started),
            None => client.core().session(handler, &target, started),
        }?;
        if let Some(total) = net.connect.total_timeout {
            session.expire_by(started + total);
        }
        let host = match &destination {
            #[cfg(unix)]
            Some(Destination::Unix(path)) => format!("unix:{}", path.display()),
            _ => match target.zone() {
                Some(zone) => format!("{}%{zone}", target.host()),
                None => target.host().to_string(),
            },
        };
        let to_host = || Destination::Host(net.resolver());
        let step = Step::Begin(destination.unwrap_or_else(to_host));
        let connecting = |driver| Connecting {
            driver: Some(driver),
            host,
            port: target.port(),
            options: net.connect.clone(),
            hooks: net.hooks.clone(),
            nodelay: net.nodelay,
            started,
            step,
            factory: PhantomData,
        };
        let token = engine.insert(|token| {
            session.enter(key(token));
            Ok::<_, Error>(K::connecting(connecting(Driver::new(session))))
        })?;
        // If another thread has run it to its end meanwhile, the handle says so.
        Ok(client.core().state.registry.handle(key(token)))
    }
}
