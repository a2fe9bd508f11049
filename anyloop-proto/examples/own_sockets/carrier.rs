//! Carries bytes and time between a blocking socket and the state machine, as every transport must.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyloop_proto::{
    BufferPool, Connection, Event, Failure, Input, Instant, Sender, Shutdown, TransportError,
};

/// The size of a read, in bytes.
const BUFFER: usize = 64 * 1024;

/// The size of the pool for messages that arrive in parts, in bytes.
const POOL: usize = 32 << 20;

/// How long a write may block without progress. Meanwhile nothing else of this connection is served, its
/// timeouts neither. A server that must not block keeps a send buffer instead.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// A socket with its unread input and unwritten output.
pub(crate) struct Carrier {
    stream: TcpStream,
    buffer: Vec<u8>,
    /// The part of the buffer that was received and not taken yet.
    unread: std::ops::Range<usize>,
    pub(crate) out: Vec<u8>,
    pool: BufferPool,
    half_closed: bool,
}

/// The result of waiting.
pub(crate) enum Arrival {
    /// Received bytes, in the buffer or in the lent memory.
    Bytes(usize),
    /// The peer has ended its direction.
    End,
    /// The deadline has passed.
    Time,
    /// The socket failed.
    Error(TransportError),
}

pub(crate) fn now() -> Instant {
    std::time::Instant::now().into()
}

impl Carrier {
    pub(crate) fn new(stream: TcpStream) -> std::io::Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(WRITE_TIMEOUT))?;
        Ok(Self {
            stream,
            buffer: vec![0; BUFFER],
            unread: 0..0,
            out: Vec::new(),
            pool: BufferPool::new(POOL),
            half_closed: false,
        })
    }

    /// Passes unread input to `take`, and keeps the bytes that it does not take.
    pub(crate) fn input<R>(&mut self, take: impl FnOnce(&mut Input<'_>, &mut Vec<u8>) -> R) -> R {
        let bytes = &mut self.buffer[self.unread.clone()];
        let mut input = Input::with_pool(bytes, &mut self.pool);
        let result = take(&mut input, &mut self.out);
        self.unread.start = self.unread.end - input.len();
        result
    }

    /// Waits for bytes until the deadline, and reads them into `lent`, or else into the buffer.
    pub(crate) fn wait(&mut self, deadline: Option<Instant>, lent: Option<&mut [u8]>) -> Arrival {
        let timeout = deadline.map(|deadline| deadline - now());
        if timeout.is_some_and(|timeout| timeout.is_zero()) {
            return Arrival::Time;
        }
        if let Err(error) = self.stream.set_read_timeout(timeout) {
            return Arrival::Error((&error).into());
        }
        let in_place = lent.is_some();
        match self.stream.read(lent.unwrap_or(&mut self.buffer)) {
            Ok(0) => Arrival::End,
            Ok(n) => {
                self.unread = 0..if in_place { 0 } else { n };
                Arrival::Bytes(n)
            }
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted => {
                    Arrival::Time
                }
                _ => Arrival::Error((&error).into()),
            },
        }
    }

    /// Writes the output.
    pub(crate) fn flush(&mut self) -> Result<(), TransportError> {
        let result = self.stream.write_all(&self.out);
        self.out.clear();
        result.map_err(|error| TransportError::from(&error))
    }

    /// Half-closes the socket if the machine requires it. Returns whether to close it now.
    pub(crate) fn shut_down(&mut self, shutdown: Shutdown) -> bool {
        match shutdown {
            Shutdown::None | Shutdown::Linger => false,
            Shutdown::HalfClose => {
                if !self.half_closed {
                    // If this fails the socket is gone, and the next read reports it.
                    _ = self.stream.shutdown(std::net::Shutdown::Write);
                    self.half_closed = true;
                }
                false
            }
            _ => true,
        }
    }
}

/// Drives an open connection to its end. Fails if the connection did.
pub(crate) fn drive(
    carrier: &mut Carrier,
    connection: &mut Connection,
    mut act: impl FnMut(Event<'_>, &mut Sender, &mut Vec<u8>),
) -> Result<(), Failure> {
    let mut outcome = Ok(());
    loop {
        // Handle what has arrived.
        let Connection { receiver, sender } = connection;
        let taken = carrier.input(|input, out| {
            while let Some(event) = receiver.next(sender, input, now(), out)? {
                act(event, sender, out);
            }
            input.discard(); // input after a Close
            Ok(())
        });
        outcome = outcome.and(taken);

        // Write the output, and end the stream if the machine requires it.
        if let Err(error) = carrier.flush() {
            let failed = connection.handle_error(error);
            outcome = outcome.and(failed);
        }
        if carrier.shut_down(connection.shutdown()) {
            return outcome;
        }

        // Wait for input, at most until a timeout is due.
        let deadline = connection.poll_timeout();
        let happened = match carrier.wait(deadline, connection.receiver.receive_buffer()) {
            Arrival::Bytes(n) => {
                connection.receiver.filled(n); // does nothing without lent memory
                Ok(())
            }
            Arrival::End => connection.handle_eof(),
            Arrival::Error(error) => connection.handle_error(error),
            Arrival::Time => connection.handle_timeout(now(), &mut carrier.out).map(|_| ()),
        };
        outcome = outcome.and(happened);
    }
}
