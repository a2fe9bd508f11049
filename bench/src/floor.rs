//! A lower bound for the cost of an echo server: epoll, `recv`, `send` of the same bytes, no WebSocket protocol.
//!
//! ```text
//! floor [PORT|unix:PATH]      on 127.0.0.1; port 0, the default, picks a free one
//! floor --std                 receives and sends with the standard library, which calls the C library
//! floor --corrupt             flips a bit in every hundredth read, to test that `load` detects it
//! ```
//!
//! It responds to the request of a connection with 101 and does not check it, so that `load --raw` can use it
//! like a server. The path of the request selects the handling of the bytes that follow: /broadcast sends them
//! to all connections with that path, /close returns those of the first read and closes the connection, any
//! other path returns all bytes unchanged.
//!
//! It has one thread, uses edge-triggered epoll with up to 1,024 events per call, has one buffer of 256 KiB for
//! all connections, and makes one `recv` and one `send` per read. A connection has its own buffer only while its
//! socket is full. The system calls are inlined, which saves 8 % on some processors; `--std` calls the functions
//! of the C library, as most servers do.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, SocketFlags, accept_with, recv, send, sockopt};

/// The size of the buffer that all connections share.
const BUFFER: usize = 256 * 1024;

/// The maximum number of events per call.
const EVENTS: usize = 1024;

/// The event data of the listener. That of a connection is its index.
const LISTENER: u64 = u64::MAX;

/// With `--corrupt`, one of this many reads is corrupted.
const CORRUPT: u32 = 100;

/// The response to all requests. Its accept value matches the key that `load` sends.
const RESPONSE: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

/// An error that ends the program.
type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let mut address = "0".to_owned();
    let (mut corrupt, mut by_std) = (false, false);
    for word in std::env::args().skip(1) {
        match &*word {
            "--corrupt" => corrupt = true,
            "--std" => by_std = true,
            _ => address = word,
        }
    }
    let listener: OwnedFd = match address.strip_prefix("unix:") {
        Some(path) => {
            let listener = UnixListener::bind(path)?;
            println!("listening on unix:{path}");
            listener.into()
        }
        None => {
            let listener = TcpListener::bind(("127.0.0.1", address.parse()?))?;
            println!("listening on {}", listener.local_addr()?);
            listener.into()
        }
    };
    rustix::io::ioctl_fionbio(&listener, true)?;
    match by_std {
        false => Server::<false>::new(listener, corrupt)?.run(),
        true => Server::<true>::new(listener, corrupt)?.run(),
    }
}

/// Receives with the standard library, or with an inlined system call.
#[inline(always)]
fn receive<const STD: bool>(
    mut socket: &TcpStream,
    buffer: &mut [u8],
) -> rustix::io::Result<usize> {
    match STD {
        true => by_std(socket.read(buffer)),
        false => recv(socket, buffer, RecvFlags::empty()).map(|(length, _)| length),
    }
}

/// Sends with the standard library, or with an inlined system call.
#[inline(always)]
fn transmit<const STD: bool>(mut socket: &TcpStream, bytes: &[u8]) -> rustix::io::Result<usize> {
    match STD {
        true => by_std(socket.write(bytes)),
        false => send(socket, bytes, SendFlags::NOSIGNAL),
    }
}

fn by_std(result: io::Result<usize>) -> rustix::io::Result<usize> {
    result.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
}

/// A connection.
struct Connection {
    /// A TCP or Unix socket: the methods called here work for both.
    socket: TcpStream,
    /// The task that its request selects. `None` until the request has arrived.
    task: Option<Task>,
    /// The bytes that the socket did not accept. While there are any, nothing is read.
    backlog: Option<Box<Backlog>>,
}

/// The task that the path of a request selects.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Task {
    /// Return all received bytes.
    Echo,
    /// Send received bytes to all connections with this task.
    Broadcast,
    /// Return the bytes of the first read, and close.
    Close,
}

impl Task {
    fn of(request: &[u8]) -> Self {
        if request.starts_with(b"GET /broadcast ") {
            Self::Broadcast
        } else if request.starts_with(b"GET /close ") {
            Self::Close
        } else {
            Self::Echo
        }
    }
}

/// Bytes to send; the first `sent` bytes are already sent.
struct Backlog {
    bytes: Vec<u8>,
    sent: usize,
}

/// What to do with a connection after an event.
enum Outcome {
    Keep,
    Drop,
}

struct Server<const STD: bool> {
    listener: OwnedFd,
    epoll: OwnedFd,
    connections: Vec<Option<Connection>>,
    free: Vec<usize>,
    buffer: Vec<u8>,
    corrupt: bool,
    reads: u32,
}

impl<const STD: bool> Server<STD> {
    fn new(listener: OwnedFd, corrupt: bool) -> Result<Self, Failure> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, &listener, EventData::new_u64(LISTENER), EventFlags::IN)?;
        Ok(Self {
            listener,
            epoll,
            connections: Vec::new(),
            free: Vec::new(),
            buffer: vec![0; BUFFER],
            corrupt,
            reads: 0,
        })
    }

    fn run(&mut self) -> Result<(), Failure> {
        let mut events = Vec::with_capacity(EVENTS);
        loop {
            events.clear();
            match epoll::wait(&self.epoll, spare_capacity(&mut events), None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
            for event in &events {
                if event.data.u64() == LISTENER {
                    self.accept()?;
                    continue;
                }
                let index = event.data.u64() as usize;
                if let Outcome::Drop = self.serve(index).unwrap_or(Outcome::Drop) {
                    self.connections[index] = None;
                    self.free.push(index);
                }
            }
        }
    }

    /// Accepts all pending connections.
    fn accept(&mut self) -> Result<(), Failure> {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        loop {
            let socket = match accept_with(&self.listener, flags) {
                Ok(socket) => socket,
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::INTR | Errno::CONNABORTED) => continue,
                Err(errno) => return Err(errno.into()),
            };
            let index = self.free.pop().unwrap_or_else(|| {
                self.connections.push(None);
                self.connections.len() - 1
            });
            let flags = EventFlags::IN | EventFlags::ET;
            epoll::add(&self.epoll, socket.as_fd(), EventData::new_u64(index as u64), flags)?;
            let socket = socket.into();
            self.connections[index] = Some(Connection { socket, task: None, backlog: None });
        }
    }

    /// Responds to a request. `load` sends it in one write, and nothing more before the response.
    fn answer(&mut self, index: usize, length: usize) -> rustix::io::Result<Outcome> {
        let Some(connection) = &mut self.connections[index] else { return Ok(Outcome::Keep) };
        let task = Task::of(&self.buffer[..length]);
        connection.task = Some(task);
        // Not needed for a connection that is closed after one read.
        if task != Task::Close {
            // This fails for a Unix socket, which has no such option.
            let _ = sockopt::set_tcp_nodelay(&connection.socket, true);
            let flags = EventFlags::IN | EventFlags::OUT | EventFlags::ET;
            let data = EventData::new_u64(index as u64);
            epoll::modify(&self.epoll, connection.socket.as_fd(), data, flags)?;
        }
        transmit::<STD>(&connection.socket, RESPONSE)?;
        Ok(Outcome::Keep)
    }

    /// Sends the received bytes to all connections of /broadcast. A connection that does not accept all of them is
    /// shut down, which `load` reports.
    fn broadcast(&self, length: usize) {
        let message = &self.buffer[..length];
        for connection in self.connections.iter().flatten() {
            if connection.task == Some(Task::Broadcast)
                && transmit::<STD>(&connection.socket, message) != Ok(length)
            {
                let _ = connection.socket.shutdown(Shutdown::Both);
            }
        }
    }

    fn serve(&mut self, index: usize) -> rustix::io::Result<Outcome> {
        // The connection may have been closed by an earlier event of the same `epoll_wait`.
        let Some(connection) = &mut self.connections[index] else { return Ok(Outcome::Keep) };
        loop {
            if let Some(backlog) = &mut connection.backlog {
                match transmit::<STD>(&connection.socket, &backlog.bytes[backlog.sent..]) {
                    Ok(sent) => backlog.sent += sent,
                    Err(Errno::AGAIN) => return Ok(Outcome::Keep),
                    Err(errno) => return Err(errno),
                }
                if backlog.sent < backlog.bytes.len() {
                    return Ok(Outcome::Keep);
                }
                connection.backlog = None;
            }
            let length = match receive::<STD>(&connection.socket, &mut self.buffer[..]) {
                Ok(0) => return Ok(Outcome::Drop),
                Ok(length) => length,
                Err(Errno::AGAIN) => return Ok(Outcome::Keep),
                Err(errno) => return Err(errno),
            };
            let mut reply = &mut self.buffer[..length];
            let Some(task) = connection.task else { return self.answer(index, length) };
            if self.corrupt {
                self.reads += 1;
                if self.reads.is_multiple_of(CORRUPT) {
                    reply[length / 2] ^= 0x10;
                }
            }
            if task == Task::Broadcast {
                self.broadcast(length);
                return Ok(Outcome::Keep);
            }
            let sent = match transmit::<STD>(&connection.socket, reply) {
                Ok(sent) => sent,
                Err(Errno::AGAIN) => 0,
                Err(errno) => return Err(errno),
            };
            if sent < length {
                reply = &mut reply[sent..];
                let backlog = Backlog { bytes: reply.to_vec(), sent: 0 };
                connection.backlog = Some(Box::new(backlog));
                return Ok(Outcome::Keep);
            }
            if task == Task::Close {
                return Ok(Outcome::Drop);
            }
            if length < BUFFER {
                return Ok(Outcome::Keep);
            }
        }
    }
}
