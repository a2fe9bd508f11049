//! Endpoints to test, and waiting for what must come.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyloop::endpoint::{ClientSettings, HandlerFactory, ServerSettings};
use anyloop::event_loop::Threads;
use anyloop::net::{Net, Serves};
use anyloop::proto::handshake::{ClientOptions, OriginPolicy, ServerOptions};
use anyloop::proto::{Config, Role};
use anyloop::{Client, EventLoop, Handlers, Server};
use anyloop_testkit::peer::Peer;
use anyloop_testkit::requests::Zeros;
use anyloop_testkit::wait::PATIENCE;
use socket2::{Domain, SockRef, Socket, Type};

pub(crate) const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

pub(crate) fn server_settings(change: impl FnOnce(&mut ServerOptions)) -> ServerSettings {
    let mut options = ServerOptions::new(OriginPolicy::Any);
    change(&mut options);
    options.into()
}

pub(crate) fn client_settings(change: impl FnOnce(&mut ClientOptions)) -> ClientSettings {
    let mut options = ClientOptions::default();
    change(&mut options);
    options.into()
}

/// The default settings of connections, changed.
pub(crate) fn config(change: impl FnOnce(&mut Config)) -> Arc<Config> {
    let mut config = Config::default();
    change(&mut config);
    Arc::new(config)
}

/// Nothing is random: the nonce is zeros, to which `requests::RESPONSE` is the answer.
pub(crate) fn not_random() -> Arc<Config> {
    Arc::new(Config::new(Arc::new(Zeros)))
}

pub(crate) fn server() -> Server<Net> {
    Server::new(server_settings(|_| ()))
}

/// Sends back what it receives.
pub(crate) fn echo() -> Server<Net> {
    echo_with(server_settings(|_| ()))
}

pub(crate) fn echo_with(settings: ServerSettings) -> Server<Net> {
    let mut server = Server::new(settings);
    server.on_message(|message, context| _ = context.send(message));
    server
}

pub(crate) fn client() -> Client<Net> {
    Client::new(client_settings(|_| ()))
}

/// A client that tells a log.
pub(crate) fn told(log: &crate::record::Log) -> Client<Net> {
    Client::with_factory(client_settings(|_| ()), crate::record::recording(log))
}

pub(crate) fn url(address: SocketAddr) -> String {
    format!("ws://{address}/chat")
}

/// A server whose loop a thread runs.
pub(crate) struct Running<F: HandlerFactory = Handlers>
where
    Threads: Serves<F>,
{
    pub(crate) server: Arc<Server<Net, F>>,
    pub(crate) address: SocketAddr,
    thread: Option<JoinHandle<()>>,
    returned: Receiver<usize>,
}

impl<F: HandlerFactory + Send + Sync + 'static> Running<F>
where
    Threads: Serves<F>,
    F::Handler: Send,
{
    /// Listens on a port of 127.0.0.1, unless it listens already.
    pub(crate) fn start(server: Server<Net, F>) -> Self {
        if !server.is_listening() {
            server.listen("127.0.0.1:0").unwrap();
        }
        server.start_accept().unwrap();
        // Where it has none, nobody asks for it.
        let address = server.local_addr().unwrap_or_else(|| ([127, 0, 0, 1], 1).into());
        let server = Arc::new(server);
        let (returning, returned) = channel();
        let runs = server.clone();
        let thread = thread::spawn(move || _ = returning.send(runs.run().unwrap()));
        Self { server, address, thread: Some(thread), returned }
    }
}

impl<F: HandlerFactory> Running<F>
where
    Threads: Serves<F>,
{
    pub(crate) fn url(&self) -> String {
        url(self.address)
    }

    /// Waits until `run` has returned, of itself.
    pub(crate) fn returned(&self) -> usize {
        self.returned.recv_timeout(PATIENCE).expect("run returns")
    }

    pub(crate) fn has_returned(&self) -> bool {
        self.returned.try_recv().is_ok()
    }
}

impl<F: HandlerFactory> Drop for Running<F>
where
    Threads: Serves<F>,
{
    fn drop(&mut self) {
        self.server.stop().unwrap();
        let panicked = self.thread.take().is_some_and(|thread| thread.join().is_err());
        if panicked && !thread::panicking() {
            panic!("the server panicked");
        }
    }
}

/// Runs a loop until something is so.
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

/// A client that has not sent anything, with a receive buffer of this size.
pub(crate) fn narrow(address: SocketAddr, size: usize) -> Peer {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(size).unwrap();
    socket.connect(&address.into()).unwrap();
    Peer::over(TcpStream::from(socket), Role::Client)
}

/// Closes a socket so that the other end finds it reset.
pub(crate) fn reset(peer: Peer) {
    SockRef::from(&peer.stream).set_linger(Some(Duration::ZERO)).unwrap();
}

/// A port of 127.0.0.1 where nobody listens, as long as this is there.
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

/// An address that does not answer, as long as this is there: its queue is full, so the system drops
/// what asks for more.
pub(crate) struct Hole {
    pub(crate) address: SocketAddr,
    _listener: TcpListener,
    _queue: Vec<Socket>,
}

pub(crate) fn hole() -> Hole {
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
    Hole { address, _listener: listener, _queue: queue }
}

/// Whether this machine has ::1. A test that needs it says so and passes where it is not.
pub(crate) fn has_v6() -> bool {
    let has = TcpListener::bind("[::1]:0").is_ok();
    if !has {
        println!("skipped: this machine has no ::1");
    }
    has
}

/// A path where nothing is yet.
pub(crate) fn new_path() -> PathBuf {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    std::env::temp_dir().join(format!("anyloop-net-{}-{number}", std::process::id()))
}

/// What was told, by whom it is shared.
pub(crate) type Shared<T> = Arc<Mutex<Vec<T>>>;

pub(crate) fn shared<T>() -> Shared<T> {
    Arc::default()
}
