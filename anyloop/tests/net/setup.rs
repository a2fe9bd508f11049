//! Endpoints to test, the addresses and sockets that they need, and run calls that wait for a condition.

use std::error::Error;
use std::iter;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyloop::endpoint::{HandlerFactory, Threads};
use anyloop::net::{Client, Server, Supports};
use anyloop::prelude::*;
use anyloop::proto::Role;
use anyloop_testkit::peer::Peer;
use anyloop_testkit::wait::PATIENCE;
use socket2::{Domain, SockRef, Socket, Type};

use crate::record::{Log, recording};

pub(crate) const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// The default configuration, for clients of any origin.
pub(crate) fn server_config() -> ServerConfig {
    ServerConfig::new(OriginPolicy::Any)
}

pub(crate) fn server() -> Server {
    server_with(server_config())
}

pub(crate) fn server_with(config: ServerConfig) -> Server {
    Server::new(config).unwrap()
}

/// A server that writes a log.
pub(crate) fn recording_server(log: &Log, config: ServerConfig) -> Server {
    Server::with_factory(config, recording(log)).unwrap()
}

/// A server that sends messages back.
pub(crate) fn echo() -> Server {
    echo_with(server_config())
}

pub(crate) fn echo_with(config: ServerConfig) -> Server {
    answering(server_with(config))
}

pub(crate) fn echo_on(event_loop: &EventLoop) -> Server {
    answering(Server::on(event_loop, server_config()))
}

fn answering(mut server: Server) -> Server {
    server.on_message(|message, context| _ = context.send(message));
    server
}

pub(crate) fn client() -> Client {
    client_with(ClientConfig::new())
}

pub(crate) fn client_with(config: ClientConfig) -> Client {
    Client::new(config).unwrap()
}

/// A client that writes a log.
pub(crate) fn recording_client(log: &Log) -> Client {
    recording_client_with(log, ClientConfig::new())
}

pub(crate) fn recording_client_with(log: &Log, config: ClientConfig) -> Client {
    Client::with_factory(config, recording(log)).unwrap()
}

/// What a [greeting](greeting_with) client records.
pub(crate) const GREETED: [&str; 2] = ["text hello", "close clean by local: 1000/1000"];

/// A recording client that sends a message, and closes when the answer has come.
pub(crate) fn greeting_with(log: &Log, config: ClientConfig) -> Client {
    greets(recording_client_with(log, config), log)
}

/// Lets a client send a message, and close when the answer has come.
pub(crate) fn greets(mut client: Client, log: &Log) -> Client {
    client.on_open(|context| _ = context.send("hello").unwrap());
    let logs = log.clone();
    client.on_message(move |message, context| {
        logs.message(message);
        context.close(CloseCode::NORMAL, "").unwrap();
    });
    client
}

pub(crate) fn recording_client_on(log: &Log, event_loop: &EventLoop) -> Client {
    Client::with_factory_on(event_loop, ClientConfig::new(), recording(log))
}

pub(crate) fn url(address: SocketAddr) -> String {
    format!("ws://{address}/chat")
}

/// A server whose loop a thread runs.
pub(crate) struct Running<F: HandlerFactory = Handlers>
where
    Threads: Supports<F>,
{
    pub(crate) server: Arc<Server<F>>,
    pub(crate) address: SocketAddr,
    thread: Option<JoinHandle<()>>,
    returned: Receiver<usize>,
}

impl<F: HandlerFactory + Send + Sync + 'static> Running<F>
where
    Threads: Supports<F>,
    F::Handler: Send,
{
    /// Listens on a port of 127.0.0.1, unless it listens already.
    pub(crate) fn start(server: Server<F>) -> Self {
        if !server.is_listening() {
            server.listen("127.0.0.1:0").unwrap();
        }
        server.start_accept().unwrap();
        // A server on a Unix socket has none, and its tests do not ask for it.
        let address = server.local_addr().unwrap_or_else(|| ([127, 0, 0, 1], 1).into());
        let server = Arc::new(server);
        let (returning, returned) = channel();
        let runs = server.clone();
        let thread = thread::spawn(move || _ = returning.send(runs.run()));
        Self { server, address, thread: Some(thread), returned }
    }
}

impl<F: HandlerFactory> Running<F>
where
    Threads: Supports<F>,
{
    pub(crate) fn url(&self) -> String {
        url(self.address)
    }

    /// Waits until `run` has returned because the loop is out of work.
    pub(crate) fn returned(&self) -> usize {
        self.returned.recv_timeout(PATIENCE).expect("run returns")
    }

    pub(crate) fn has_returned(&self) -> bool {
        self.returned.try_recv().is_ok()
    }
}

impl<F: HandlerFactory> Drop for Running<F>
where
    Threads: Supports<F>,
{
    fn drop(&mut self) {
        self.server.stop();
        let panicked = self.thread.take().is_some_and(|thread| thread.join().is_err());
        if panicked && !thread::panicking() {
            panic!("the server panicked");
        }
    }
}

/// Runs a loop until the condition `what` is met.
pub(crate) fn run_until(event_loop: &EventLoop, what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < PATIENCE, "{what}");
        event_loop.run_for(millis(5));
        if event_loop.stopped() && !done() {
            panic!("out of work before {what}");
        }
    }
}

/// A connected peer with a receive buffer of this size. The opening handshake has not begun.
pub(crate) fn peer_with_receive_buffer(address: SocketAddr, size: usize) -> Peer {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(size).unwrap();
    socket.connect(&address.into()).unwrap();
    Peer::over(TcpStream::from(socket), Role::Client)
}

/// Closes a socket with a reset (RST).
pub(crate) fn reset(peer: Peer) {
    SockRef::from(&peer.stream).set_linger(Some(Duration::ZERO)).unwrap();
}

/// A port of 127.0.0.1 that refuses connections until this is dropped.
pub(crate) struct Closed {
    pub(crate) address: SocketAddr,
    _bound: Socket,
}

pub(crate) fn closed() -> Closed {
    closed_at(([127, 0, 0, 1], 0).into())
}

pub(crate) fn closed_at(address: SocketAddr) -> Closed {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
    socket.bind(&address.into()).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    Closed { address, _bound: socket }
}

/// An address that does not answer until this is dropped: the accept queue of its listener is full, so
/// the system drops further SYNs.
pub(crate) struct Blackhole {
    pub(crate) address: SocketAddr,
    _listener: TcpListener,
    _queue: Vec<Socket>,
}

pub(crate) fn blackhole() -> Blackhole {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    socket.listen(0).unwrap();
    let listener = TcpListener::from(socket);
    let address = listener.local_addr().unwrap();
    let mut queue = Vec::new();
    loop {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        match socket.connect_timeout(&address.into(), millis(200)) {
            Ok(()) => queue.push(socket),
            Err(_) => break,
        }
        assert!(queue.len() < 20, "the queue does not fill");
    }
    Blackhole { address, _listener: listener, _queue: queue }
}

/// Whether this machine has ::1. Tests that need it are skipped without it.
pub(crate) fn has_v6() -> bool {
    let has = TcpListener::bind("[::1]:0").is_ok();
    if !has {
        println!("skipped: this machine has no ::1");
    }
    has
}

/// A path that does not exist.
pub(crate) fn new_path() -> PathBuf {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    std::env::temp_dir().join(format!("anyloop-net-{}-{number}", std::process::id()))
}

/// A list that a test and its handlers share.
pub(crate) type Shared<T> = Arc<Mutex<Vec<T>>>;

pub(crate) fn shared<T>() -> Shared<T> {
    Arc::default()
}

/// The text of an error, and those of its sources. Programs print them in a row, so none contains the next one.
#[track_caller]
pub(crate) fn chain(error: &(dyn Error + 'static)) -> Vec<String> {
    let errors = iter::successors(Some(error), |&error| error.source());
    let texts: Vec<_> = errors.map(ToString::to_string).collect();
    for pair in texts.windows(2) {
        assert!(!pair[0].contains(&pair[1]), "a text has that of its source: {texts:?}");
    }
    texts
}
