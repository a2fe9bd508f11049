//! A server under test, and a client, that log the events of their handlers.

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyloop::net::{Client, Server};
use anyloop::prelude::*;
use anyloop_testkit::peer::Peer;
use anyloop_testkit::requests::{RESPONSE, SWITCHING, Zeros};
use anyloop_testkit::wait::eventually;
use socket2::SockRef;

use crate::harness::{Log, drive};
use crate::wire::request;

/// A server in a loop.
pub(crate) struct Fixture {
    pub(crate) event_loop: EventLoop,
    pub(crate) server: Server,
    pub(crate) address: SocketAddr,
    pub(crate) log: Log,
}

/// The default configuration of a server.
pub(crate) fn server_config() -> ServerConfig {
    ServerConfig::new(OriginPolicy::Any)
}

/// A configuration without deadlines. One of them would wake the loop, which would then find what it has
/// missed.
pub(crate) fn without_deadlines() -> ServerConfig {
    server_config().ping_interval(None).close_timeout(None).open_timeout(None)
}

/// Logs the events of the server's handlers.
pub(crate) fn record(server: &mut Server, log: &Log) {
    let it = log.clone();
    server.on_open(move |_| it.add("open"));
    let it = log.clone();
    server.on_message(move |message, _| it.add(described(&message)));
    let it = log.clone();
    server.on_close(move |ending, _| it.add(ended(ending)));
    let it = log.clone();
    server.on_fail(move |_, _| it.add("fail"));
}

/// A message, for the log.
pub(crate) fn described(message: &Message<'_>) -> String {
    String::from_utf8_lossy(message.as_bytes()).into_owned()
}

/// How a connection has ended, for the log.
pub(crate) fn ended(ending: &Ending<'_>) -> &'static str {
    if ending.clean { "close, clean" } else { "close, failed" }
}

impl Fixture {
    /// A server that logs everything.
    pub(crate) fn new() -> Self {
        Self::with(|_, _| ())
    }

    /// The same with some handlers replaced.
    pub(crate) fn with(set: impl FnOnce(&mut Server, &Log)) -> Self {
        Self::of(&EventLoop::new().unwrap(), server_config(), set)
    }

    /// The same in this loop, with this configuration.
    pub(crate) fn of(
        event_loop: &EventLoop,
        config: ServerConfig,
        set: impl FnOnce(&mut Server, &Log),
    ) -> Self {
        let (event_loop, log) = (event_loop.clone(), Log::default());
        let mut server = Server::on(&event_loop, config);
        record(&mut server, &log);
        set(&mut server, &log);
        let address = server.listen("127.0.0.1:0").unwrap();
        server.start_accept().unwrap();
        Self { event_loop, server, address, log }
    }

    #[track_caller]
    pub(crate) fn drive(&self, what: &str, is_so: impl FnMut() -> bool) -> usize {
        drive(&self.event_loop, what, is_so)
    }

    /// Runs the loop until there are so many entries in the log.
    #[track_caller]
    pub(crate) fn drive_to(&self, entries: usize) -> usize {
        self.drive(&format!("{entries} entries"), || self.log.len() >= entries)
    }

    /// A connection whose handshake is through, by TCP. That it has opened is not in the log.
    #[track_caller]
    pub(crate) fn open(&self) -> Peer {
        let peer = Peer::connect(self.address);
        self.shake_hands(peer)
    }

    /// The same by a Unix socket.
    #[track_caller]
    pub(crate) fn open_unix(&self) -> Peer {
        let path = socket_path();
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        self.server.listen_on_unix(listener).unwrap();
        self.server.start_accept().unwrap();
        let peer = Peer::connect_unix(&path);
        // Each write costs far more than its bytes.
        SockRef::from(&peer.stream).set_send_buffer_size(1 << 20).unwrap();
        std::fs::remove_file(&path).unwrap();
        self.shake_hands(peer)
    }

    #[track_caller]
    fn shake_hands(&self, mut peer: Peer) -> Peer {
        peer.write(request("/"));
        let mut head = None;
        self.drive("the handshake", || {
            head = peer.poll_head();
            head.is_some()
        });
        assert!(head.unwrap().starts_with(SWITCHING));
        self.log.take();
        peer
    }

    /// A connection whose handshake is through, while other threads run the loop.
    #[track_caller]
    pub(crate) fn open_elsewhere(&self) -> Peer {
        let mut peer = Peer::connect(self.address);
        peer.write(request("/"));
        let mut head = None;
        eventually("the handshake", || {
            head = peer.poll_head();
            head.is_some()
        });
        assert!(head.unwrap().starts_with(SWITCHING));
        peer
    }

    /// The one connection that there is.
    pub(crate) fn handle(&self) -> Handle<Handlers> {
        let mut all = self.server.connections();
        assert_eq!(all.len(), 1);
        all.remove(0)
    }
}

/// A path for a socket, which no other test has.
pub(crate) fn socket_path() -> PathBuf {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    std::env::temp_dir().join(format!("anyloop-{}-{number}.sock", std::process::id()))
}

/// Nothing is random: nonces are zeros, to which `RESPONSE` is the answer.
pub(crate) fn client_config() -> ClientConfig {
    ClientConfig::new().random(Arc::new(Zeros))
}

/// A client under test in this loop, that logs everything.
pub(crate) fn client(event_loop: &EventLoop, log: &Log) -> Client {
    client_of(event_loop, client_config(), log)
}

/// The same with this configuration.
pub(crate) fn client_of(event_loop: &EventLoop, config: ClientConfig, log: &Log) -> Client {
    let mut client = Client::on(event_loop, config);
    let it = log.clone();
    client.on_open(move |_| it.add("open"));
    let it = log.clone();
    client.on_message(move |message, _| it.add(described(&message)));
    let it = log.clone();
    client.on_close(move |ending, _| it.add(ended(ending)));
    let it = log.clone();
    client.on_fail(move |_, _| it.add("fail"));
    client
}

/// Connects the client to a plain socket, and answers its request.
#[track_caller]
pub(crate) fn open_client(event_loop: &EventLoop, client: &Client) -> (Peer, Handle<Handlers>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let uri = format!("ws://{}/", listener.local_addr().unwrap());
    let handle = client.connect(uri.as_str()).unwrap();
    // The kernel takes the connection as soon as it is asked for, before it is accepted from.
    let mut head = None;
    event_loop.run_for(std::time::Duration::from_millis(1));
    let mut peer = Peer::accept(&listener);
    drive(event_loop, "the request", || {
        head = peer.poll_head();
        head.is_some()
    });
    peer.write(RESPONSE);
    (peer, handle)
}
