//! The codecs under measurement: each receives `reads` batches of messages and sends each message back.

use std::future::Future;
use std::io::{self, Read, Write};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use anyloop_proto::{BufferPool, Config, Connection, Event, Input, Instant, Output, Role};

use crate::scenario::{Scenario, Socket};

mod endpoint;

pub(crate) struct Codec {
    pub(crate) name: &'static str,
    pub(crate) run: fn(&Scenario, usize),
}

pub(crate) const CODECS: &[Codec] = &[
    Codec { name: "copy-in", run: copy_in },
    Codec { name: "yardstick", run: yardstick },
    Codec { name: "anyloop", run: anyloop },
    Codec { name: "endpoint", run: endpoint::run },
    Codec { name: "tungstenite", run: tungstenite },
    Codec { name: "fastwebsockets", run: fastwebsockets },
];

const BUFFER: usize = 512 << 10;

/// The harness alone: its cost is included in all other rows.
fn copy_in(scenario: &Scenario, reads: usize) {
    let mut socket = Socket::new(scenario);
    let mut buffer = vec![0; BUFFER];
    for _ in 0..reads {
        loop {
            let n = socket.read(&mut buffer);
            if n == 0 {
                break;
            }
            std::hint::black_box(&mut buffer[..n]);
        }
    }
}

/// A lower bound for a server: it parses and unmasks without checks, and builds the reply in place.
fn yardstick(scenario: &Scenario, reads: usize) {
    use anyloop_proto::frame::mask;

    let mut socket = Socket::new(scenario);
    let mut buffer = vec![0; scenario.payload * scenario.per_read + BUFFER];
    for _ in 0..reads {
        let (mut end, mut start, mut replies) = (0, 0, 0);
        loop {
            let n = socket.read(&mut buffer[end..]);
            if n == 0 {
                break;
            }
            end += n;
            loop {
                let rest = &mut buffer[start..end];
                let (header, len) = match rest {
                    [_, 0xff, a, b, c, d, e, f, g, h, ..] => {
                        (10, u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h]) as usize)
                    }
                    [_, 0xfe, a, b, ..] => (4, usize::from(u16::from_be_bytes([*a, *b]))),
                    [_, len, ..] => (2, usize::from(*len & 0x7f)),
                    _ => break,
                };
                let whole = header + 4 + len;
                if rest.len() < whole {
                    break;
                }
                let (head, payload) = rest[..whole].split_at_mut(header + 4);
                let key = head[header..].try_into().unwrap_or_default();
                mask(payload, key);
                // The header of the reply goes right before the payload. So there are 4 unused bytes between replies,
                // which a real server would remove or skip by a vectored write.
                head.copy_within(..header, 4);
                head[5] &= 0x7f;
                replies += whole - 4;
                start += whole;
            }
        }
        socket.write(&buffer[..replies]);
    }
}

/// The output of a transport: small frames are collected in a buffer, large ones are written to the socket directly.
struct Cork<'s> {
    buffer: Vec<u8>,
    socket: &'s mut Socket,
}

impl Cork<'_> {
    #[inline]
    fn flush(&mut self) {
        if !self.buffer.is_empty() {
            self.socket.write(&self.buffer);
            self.buffer.clear();
        }
    }
}

impl Output for Cork<'_> {
    #[inline]
    fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.buffer
    }

    fn write_vectored(&mut self, header: &[u8], payload: &[u8]) -> bool {
        self.flush();
        self.socket.write(header);
        self.socket.write(payload);
        true
    }
}

fn anyloop(scenario: &Scenario, reads: usize) {
    let mut socket = Socket::new(scenario);
    let mut buffer = vec![0; BUFFER];
    let mut pool = BufferPool::new(8 << 20);
    let now = Instant::from_nanos(1);
    let mut connection = Connection::new(Role::Server, Arc::new(Config::default()), now);
    let mut cork = Cork { buffer: Vec::with_capacity(64 << 10), socket: &mut socket };
    for _ in 0..reads {
        loop {
            let mut received = 0;
            if let Some(buffer) = connection.receiver.receive_buffer() {
                let n = cork.socket.read(buffer);
                connection.receiver.filled(n);
                if n == 0 {
                    break;
                }
            } else {
                received = cork.socket.read(&mut buffer);
                if received == 0 {
                    break;
                }
            }
            let Connection { receiver, sender } = &mut connection;
            let mut input = Input::with_pool(&mut buffer[..received], &mut pool);
            while let Ok(Some(event)) = receiver.next(sender, &mut input, now, &mut cork) {
                if let Event::Message(message) = event {
                    let _ = sender.send(message, &mut cork);
                }
            }
        }
        cork.flush();
    }
    drop(cork);
    check(scenario, reads, &socket);
}

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match Self::read(self, buffer) {
            0 => Err(io::ErrorKind::WouldBlock.into()),
            n => Ok(n),
        }
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(Self::write(self, bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn tungstenite(scenario: &Scenario, reads: usize) {
    use tungstenite::protocol::{Role, WebSocket};

    let mut socket = WebSocket::from_raw_socket(Socket::new(scenario), Role::Server, None);
    for _ in 0..reads {
        while let Ok(message) = socket.read() {
            let _ = socket.write(message);
        }
        let _ = socket.flush();
    }
    check(scenario, reads, socket.get_ref());
}

struct AsyncSocket<'s>(&'s mut Socket);

impl tokio::io::AsyncRead for AsyncSocket<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut tokio::io::ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.0.next(buffer.remaining()) {
            [] => Poll::Pending,
            bytes => {
                buffer.put_slice(bytes);
                Poll::Ready(Ok(()))
            }
        }
    }
}

impl tokio::io::AsyncWrite for AsyncSocket<'_> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(self.0.write(bytes)))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(slices.iter().map(|slice| self.0.write(slice)).sum()))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

fn fastwebsockets(scenario: &Scenario, reads: usize) {
    use fastwebsockets::{FragmentCollector, Role, WebSocket};

    let mut socket = Socket::new(scenario);
    let mut peer = WebSocket::after_handshake(AsyncSocket(&mut socket), Role::Server);
    peer.set_max_message_size(64 << 20);
    let mut peer = FragmentCollector::new(peer);
    let echo = async {
        loop {
            let Ok(frame) = peer.read_frame().await else { break };
            if peer.write_frame(frame).await.is_err() {
                break;
            }
        }
    };
    // At the end of each batch the socket is not ready, so each poll of the task handles one batch.
    let mut echo = std::pin::pin!(echo);
    for _ in 0..reads {
        if echo.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready() {
            break;
        }
    }
    // The task still borrows the socket, so the number of written bytes is not checked here.
}

/// Checks that all messages were answered: a codec that drops messages would seem fast.
fn check(scenario: &Scenario, reads: usize, socket: &Socket) {
    let least = reads * scenario.per_read * scenario.payload;
    assert!(socket.written > least, "{} of {least} bytes were answered", socket.written);
}
