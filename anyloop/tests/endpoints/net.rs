//! The transport that does its own networking: the connection under test is in a loop, which is polled
//! until nothing happens any more, and the other end is a plain socket of the test's.
//!
//! The clock is the real one, so tests that move it are not for this. A socket is blocked by filling
//! it, behind the connection's back, with bytes that the test then leaves out.

use std::any::Any;
use std::cell::Cell;
use std::io::{self, ErrorKind, Read, Write};
use std::mem::take;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant as StdInstant};

use anyloop::endpoint::HandlerFactory;
use anyloop::event_loop::WorkGuard;
use anyloop::net::{Error, LocalClient, LocalServer};
use anyloop::prelude::*;
use anyloop::proto::handshake::{RequestError, Target};
use anyloop::proto::{Instant, Shutdown, State};
use anyloop_testkit::wait::let_time_pass;
use socket2::{Domain, SockAddr, SockRef, Socket, Type};

use crate::transports::{Clock, End, TestTransport};

/// For what must come: it is waited for only if the test fails.
const LONG: Duration = Duration::from_secs(20);

/// Small ones, so that there is little to fill.
const BUFFER: usize = 16 << 10;

/// TCP on 127.0.0.1, or Unix sockets.
pub(crate) struct Sockets<const UNIX: bool>;

pub(crate) type Tcp = Sockets<false>;
pub(crate) type Unix = Sockets<true>;

pub(crate) struct SocketEnd<H: Handler> {
    event_loop: LocalEventLoop,
    _work: WorkGuard,
    /// Absent where the connection was over before it could be asked for.
    handle: Option<Handle<H>>,
    far: Far,
    shutdowns: Vec<Shutdown>,
}

/// The end in the test's hands.
struct Far {
    unix: bool,
    listener: Option<Listener>,
    stream: Option<Socket>,
    /// The descriptor of the connection under test.
    near: RawFd,
    /// What the connection has no room for.
    pending: Vec<u8>,
    output: Vec<u8>,
    /// So many of the bytes that come next are none of the connection's.
    filling: usize,
    blocked: bool,
    ended: bool,
}

enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener, PathBuf),
}

thread_local! {
    /// The newest socket of a connection. Each test is on a thread of its own.
    static NEWEST: Cell<RawFd> = const { Cell::new(-1) };
}

impl<const UNIX: bool> TestTransport for Sockets<UNIX> {
    type Server<F: HandlerFactory + 'static> = LocalServer<F>;
    type Client<F: HandlerFactory + 'static> = LocalClient<F>;
    type End<H: Handler> = SocketEnd<H>;

    const REAL_TIME: bool = true;

    /// The socket takes everything.
    fn assert_taken(_: usize, _: usize) {}

    fn new_server<F: HandlerFactory + 'static>(
        config: ServerConfig,
        factory: F,
        _: &Clock,
    ) -> LocalServer<F> {
        let mut server = LocalServer::with_factory(config, factory).unwrap();
        server.on_socket_init(note_socket);
        server
    }

    fn new_client<F: HandlerFactory + 'static>(
        config: ClientConfig,
        factory: F,
        _: &Clock,
    ) -> LocalClient<F> {
        let mut client = LocalClient::with_factory(config, factory).unwrap();
        client.on_socket_init(note_socket);
        client
    }

    fn server<F: HandlerFactory + 'static>(
        server: &LocalServer<F>,
        _: &Clock,
    ) -> SocketEnd<F::Handler> {
        if !server.is_listening() {
            match UNIX {
                true => server.listen_unix(new_path()).unwrap(),
                false => _ = server.listen("127.0.0.1:0").unwrap(),
            }
            server.start_accept().unwrap();
        }
        Self::accept(server)
    }

    fn client<F: HandlerFactory + 'static>(
        client: &LocalClient<F>,
        target: &Target,
        _: &Clock,
    ) -> Result<SocketEnd<F::Handler>, RequestError> {
        let event_loop = client.event_loop().clone();
        let work = event_loop.keep_alive();
        let listener = Listener::new(UNIX);
        let request = client.request(target.clone()).unwrap();
        let request = match &listener {
            Listener::Tcp(listener) => request.to_addresses([listener.local_addr().unwrap()]),
            Listener::Unix(_, path) => request.to_unix(path),
        };
        match request.connect() {
            Ok(handle) => {
                let far = Far::new(UNIX, Some(listener), None);
                Ok(SocketEnd::new(event_loop, work, Some(handle), far))
            }
            Err(Error::Request(error)) => Err(error),
            Err(error) => panic!("{error}"),
        }
    }
}

impl<const UNIX: bool> Sockets<UNIX> {
    /// The next connection of a server that listens.
    pub(crate) fn accept<F: HandlerFactory + 'static>(
        server: &LocalServer<F>,
    ) -> SocketEnd<F::Handler> {
        let event_loop = server.event_loop().clone();
        let work = event_loop.keep_alive();
        let (made, before) = (server.counters().started, server.connections());
        let stream = match &server.local_addresses()[0] {
            anyloop::net::LocalAddress::Tcp(address) => connect_tcp(*address),
            anyloop::net::LocalAddress::Unix(path) => {
                UnixStream::connect(path.as_ref().unwrap()).unwrap().into()
            }
            other => panic!("{other:?}"),
        };
        until(|| {
            event_loop.poll();
            server.counters().started > made
        });
        let handle = server.connections().into_iter().find(|handle| !before.contains(handle));
        SocketEnd::new(event_loop, work, handle, Far::new(UNIX, None, Some(stream)))
    }
}

impl<H: Handler> SocketEnd<H> {
    fn new(
        event_loop: LocalEventLoop,
        _work: WorkGuard,
        handle: Option<Handle<H>>,
        far: Far,
    ) -> Self {
        Self { event_loop, _work, handle, far, shutdowns: Vec::new() }
    }

    /// Carries, and has the loop do what is to be done, until nothing happens any more. A panic is
    /// passed on when the rest is done.
    fn settle(&mut self) {
        let mut panic: Option<Box<dyn Any + Send>> = None;
        let (start, mut quiet) = (StdInstant::now(), 0);
        while quiet < 3 {
            let moved = self.far.carry();
            if !self.far.unix && quiet > 0 {
                let_time_pass(
                    Duration::from_millis(1),
                    "TCP may deliver what it has a little later",
                );
            }
            if self.far.blocked && !self.is_over() {
                self.far.fill();
            }
            let called = catch_unwind(AssertUnwindSafe(|| self.event_loop.poll()));
            let called = called.unwrap_or_else(|caught| {
                panic = Some(caught);
                1
            });
            let busy =
                moved || called > 0 || self.event_loop.next_timeout() == Some(Duration::ZERO);
            let owes = self.is_under_way() && start.elapsed() < LONG;
            quiet = if busy || owes { 0 } else { quiet + 1 };
            if owes && !busy {
                std::thread::yield_now();
            }
        }
        match (self.is_over(), self.far.ended) {
            (true, _) if self.shutdowns.last() != Some(&Shutdown::Close) => {
                self.shutdowns.push(Shutdown::Close);
            }
            (false, true) if self.shutdowns.is_empty() => self.shutdowns.push(Shutdown::HalfClose),
            _ => {}
        }
        if let Some(panic) = panic {
            resume_unwind(panic);
        }
    }

    /// Something must still come.
    fn is_under_way(&self) -> bool {
        let waiting = self.handle.as_ref().map_or(0, Handle::buffered_amount);
        let far = &self.far;
        let open = far.stream.is_some() && !far.blocked && !far.ended && !self.is_over();
        open && (far.filling > 0 || waiting > 0)
    }
}

impl<H: Handler> End<H> for SocketEnd<H> {
    fn start(&mut self) {
        if let Some(listener) = self.far.listener.take() {
            let mut stream = None;
            until(|| {
                self.event_loop.poll();
                stream = listener.accept();
                stream.is_some() || self.is_over()
            });
            (self.far.stream, self.far.near) = (stream, NEWEST.get());
        }
        self.settle();
    }

    fn feed(&mut self, bytes: &[u8]) -> usize {
        self.far.pending.extend_from_slice(bytes);
        self.settle();
        bytes.len()
    }

    fn eof(&mut self) {
        self.settle();
        if let Some(stream) = &self.far.stream {
            let _ = stream.shutdown(std::net::Shutdown::Write);
        }
        self.settle();
    }

    fn reset(&mut self) {
        self.fail_write();
        self.settle();
    }

    fn take_output(&mut self) -> Vec<u8> {
        self.settle();
        take(&mut self.far.output)
    }

    fn writes(&self) -> usize {
        panic!("not for sockets: writes are not seen");
    }

    fn block(&mut self) {
        if !self.is_over() && !self.far.blocked {
            self.far.block();
        }
    }

    fn give_room(&mut self, bytes: usize) {
        assert_eq!(bytes, usize::MAX, "not for sockets: their room is not measured in bytes");
        self.far.blocked = false;
        self.settle();
    }

    fn fail_write(&mut self) {
        let over = self.is_over();
        self.far.reset(over);
    }

    fn shutdowns(&self) -> Vec<Shutdown> {
        self.shutdowns.clone()
    }

    /// Closed is all that it looks like from the other end.
    fn assert_shut_down(&self, expected: &[Shutdown]) {
        let seen = |how: &Shutdown| match how {
            Shutdown::Abort => Shutdown::Close,
            how => *how,
        };
        let expected: Vec<_> = expected.iter().map(seen).collect();
        assert_eq!(self.shutdowns, expected);
    }

    fn deadline(&self) -> Option<Instant> {
        None
    }

    fn handle_timeout(&mut self) {
        self.settle();
    }

    fn is_woken(&self) -> bool {
        self.event_loop.next_timeout() == Some(Duration::ZERO)
    }

    fn drain(&mut self) {
        self.settle();
    }

    fn handle(&mut self) -> Handle<H> {
        self.handle.clone().expect("a connection")
    }

    fn is_over(&self) -> bool {
        match &self.handle {
            Some(handle) => handle.state() == State::Ended,
            None => true,
        }
    }
}

impl Far {
    fn new(unix: bool, listener: Option<Listener>, stream: Option<Socket>) -> Self {
        if let Some(stream) = &stream {
            set_up(stream, unix);
        }
        Self {
            unix,
            listener,
            stream,
            near: NEWEST.get(),
            pending: Vec::new(),
            output: Vec::new(),
            filling: 0,
            blocked: false,
            ended: false,
        }
    }

    /// Writes and reads what there is. Returns whether anything has moved.
    fn carry(&mut self) -> bool {
        let mut moved = false;
        if let Some(stream) = &mut self.stream {
            while !self.pending.is_empty() {
                match stream.write(&self.pending) {
                    Ok(n) => _ = self.pending.drain(..n),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(_) => self.pending.clear(), // it takes nothing more
                }
                moved = true;
            }
        }
        moved | (!self.blocked && self.read())
    }

    fn read(&mut self) -> bool {
        let (mut moved, mut buffer) = (false, [0; 8192]);
        let Some(stream) = &mut self.stream else { return false };
        while !self.ended {
            match stream.read(&mut buffer) {
                Ok(0) => self.ended = true,
                Ok(n) => {
                    let filling = n.min(self.filling);
                    self.filling -= filling;
                    self.output.extend_from_slice(&buffer[filling..n]);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => self.ended = true,
            }
            moved = true;
        }
        moved
    }

    /// Fills the socket of the connection, from its own side.
    fn block(&mut self) {
        self.read();
        // TCP asks for room again after 200 ms, and may be given a little.
        let mut rounds = 0;
        while rounds < if self.unix { 1 } else { 60 } {
            rounds = if self.fill() { 0 } else { rounds + 1 };
            if let (false, Some(far)) = (self.unix, &self.stream) {
                far.set_tcp_quickack(true).unwrap(); // so that it owes no answer
                let_time_pass(Duration::from_millis(5), "TCP asks for room again after 200 ms");
            }
        }
        self.blocked = true;
    }

    /// Takes the room that there is. Returns whether there was any.
    fn fill(&mut self) -> bool {
        let near = self.near();
        let mut filled = false;
        while let Ok(n) = near.send(&[0; 1000]) {
            self.filling += n;
            filled = true;
        }
        filled
    }

    /// Another descriptor of the connection's own socket.
    fn near(&self) -> Socket {
        // SAFETY: the connection is not over, so its descriptor is open, and it stays so during this
        // call: nobody runs the loop.
        let near = unsafe { BorrowedFd::borrow_raw(self.near) };
        let near: OwnedFd = near.try_clone_to_owned().unwrap();
        near.into()
    }

    /// Gone, not ended.
    fn reset(&mut self, over: bool) {
        self.read();
        let Some(stream) = self.stream.take() else { return };
        match self.unix {
            false => stream.set_linger(Some(Duration::ZERO)).unwrap(),
            // A Unix socket that is closed with something unread resets the other.
            true if !over && !self.ended => _ = self.near().send(b"unread"),
            true => {}
        }
    }
}

impl Listener {
    fn new(unix: bool) -> Self {
        if unix {
            let path = new_path();
            let listener = UnixListener::bind(&path).unwrap();
            listener.set_nonblocking(true).unwrap();
            return Self::Unix(listener, path);
        }
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_recv_buffer_size(BUFFER).unwrap();
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        socket.bind(&any.into()).unwrap();
        socket.listen(1).unwrap();
        socket.set_nonblocking(true).unwrap();
        Self::Tcp(socket.into())
    }

    fn accept(&self) -> Option<Socket> {
        let accepted: io::Result<Socket> = match self {
            Self::Tcp(listener) => listener.accept().map(|(stream, _)| stream.into()),
            Self::Unix(listener, _) => listener.accept().map(|(stream, _)| stream.into()),
        };
        match accepted {
            Ok(stream) => {
                set_up(&stream, matches!(self, Self::Unix(..)));
                Some(stream)
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => None,
            Err(error) => panic!("{error}"),
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Self::Unix(_, path) = self {
            let _ = std::fs::remove_file(path);
        }
    }
}

fn connect_tcp(address: SocketAddr) -> Socket {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(BUFFER).unwrap();
    socket.connect(&SockAddr::from(address)).unwrap();
    TcpStream::from(socket).into()
}

fn set_up(stream: &Socket, unix: bool) {
    stream.set_nonblocking(true).unwrap();
    if !unix {
        stream.set_tcp_nodelay(true).unwrap(); // or small pieces wait for each other
    }
}

/// Remembers the socket of a new connection, and makes its buffer small.
fn note_socket(socket: &SockRef<'_>) -> io::Result<()> {
    NEWEST.set(socket.as_raw_fd());
    socket.set_send_buffer_size(BUFFER)
}

fn new_path() -> PathBuf {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    std::env::temp_dir().join(format!("anyloop-{}-{number}", std::process::id()))
}

fn until(mut f: impl FnMut() -> bool) {
    let start = StdInstant::now();
    while !f() {
        assert!(start.elapsed() < LONG, "it does not come");
        std::thread::yield_now();
    }
}
