//! WebSocket without I/O: the program passes in the bytes that it received, and gets the bytes to send.
//!
//! The name is that of WebSocket++'s transport.
//!
//! ```
//! use anyloop::iostream::{Client, Server};
//! use anyloop::prelude::*;
//! use std::sync::mpsc;
//!
//! let mut server = Server::new(ServerConfig::new(OriginPolicy::Any));
//! server.on_message(|message, context| _ = context.send(message));
//! let mut client = Client::new(ClientConfig::new());
//! client.on_open(|context| _ = context.send("hello"));
//! client.on_message(|message, _| assert_eq!(message.as_bytes(), b"hello"));
//!
//! // Each end's output is the other's input.
//! let (to_server, at_server) = mpsc::channel::<Vec<u8>>();
//! let (to_client, at_client) = mpsc::channel::<Vec<u8>>();
//! let server = server.connection();
//! server.set_write_handler(move |bytes| Ok(to_client.send(bytes.to_vec()).unwrap()));
//! let client = client.connection("ws://localhost/")?;
//! client.set_write_handler(move |bytes| Ok(to_server.send(bytes.to_vec()).unwrap()));
//! client.start()?;
//! for _ in 0..2 {
//!     server.read_all(&at_server.try_recv()?)?;
//!     client.read_all(&at_client.try_recv()?)?;
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod endpoints;
mod output_transport;
mod outputs;
mod setters;
#[cfg(feature = "tls-core")]
mod tls;

use std::fmt;
use std::io::{self, ErrorKind, Read};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::task::Wake;

use anyloop_proto::handshake::http;
use anyloop_proto::{Instant, State, Statistics, TransportError};

use crate::endpoint::encode_request_head;
use crate::endpoint::{Handle, Handler, LocalHandlers, Session};
use crate::stream::{Buffers, Driver};
use crate::threading::{Local, Threads};

use endpoints::EndpointSettings;
pub use endpoints::{Client, LocalClient, LocalServer, Server};
use output_transport::{Output, OutputTransport, Settings, lock_settings};
use outputs::Outputs;

/// The most bytes that [`Connection::read_some`] and [`Connection::read_from`] take in one call: 16 KiB.
pub const MAX_READ: usize = 16 * 1024;

/// The most unused memory, in bytes, that a connection keeps for messages that span several reads or frames.
const MAX_POOL_BYTES: usize = 1 << 20;

/// A connection whose bytes the program moves. Clones are the same connection.
///
/// The program reports events:
///
/// | event | method |
/// |---|---|
/// | bytes were received | [`read_some`](Self::read_some), [`read_all`](Self::read_all), [`read_from`](Self::read_from) |
/// | the peer has ended its direction | [`eof`](Self::eof) |
/// | the stream has failed | [`fatal_error`](Self::fatal_error) |
/// | the time of [`next_timeout`](Self::next_timeout) has come | [`handle_timeout`](Self::handle_timeout) |
/// | the output is writable again | [`drive`](Self::drive) |
///
/// These calls run handlers, and write what the handlers send before they return. The output is a writer, a write
/// handler, a vectored write handler, or [collected](Self::collect_output): whichever was set last.
///
/// From other threads, use a [`handle`](Self::handle). It queues its command and calls the wake function; then the
/// thread of the connection calls [`drive`](Self::drive). Calls that report events need exclusive access: one made
/// during another call, from a handler or from a second thread, returns [`CallError::Busy`] and takes nothing.
///
/// The output must be [`Send`], since the connection may be used from any thread. The output of a [`LocalConnection`]
/// need not be. `K` is the difference: [`Threads`] or [`Local`].
///
/// ```
/// # use anyloop::iostream::Server;
/// # use anyloop::prelude::*;
/// # use std::sync::mpsc;
/// # const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
/// #     Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
/// # let mut server = Server::new(ServerConfig::new(OriginPolicy::Any));
/// server.on_message(|message, context| _ = context.send(message));
/// let connection = server.connection();
/// # let (to_client, at_client) = mpsc::channel();
/// # connection.set_write_handler(move |bytes| Ok(to_client.send(bytes.to_vec()).unwrap()));
/// let recorded = [REQUEST, b"\x81\x82\0\0\0\0hi"].concat();
/// let mut reader = &recorded[..]; // or a socket, a pipe, a file
/// while !connection.has_ended() {
///     connection.read_from(&mut reader)?; // the end of the input is reported, too
/// }
/// assert!(at_client.try_recv()?.ends_with(b"\r\n\r\n\x81\x02hi"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Connection<H: Handler, K: Outputs = Threads> {
    shared: Arc<Shared<H, K>>,
}

/// A [`Connection`] that stays on one thread: its outputs need not be [`Send`].
pub type LocalConnection<H = LocalHandlers> = Connection<H, Local>;

struct Shared<H: Handler, K: Outputs> {
    core: Mutex<Core<H, K>>,
    settings: Arc<Mutex<Settings<K>>>,
    handle: Handle<H>,
    waker: Arc<ConnectionWaker>,
    clock: Arc<K::Clock>,
}

struct Core<H: Handler, K: Outputs> {
    driver: Driver<Protocol<H>>,
    transport: OutputTransport<K>,
    buffers: Buffers,
    read_buffer: Vec<u8>,
    /// Input from `read_from` or `upgrade` that the driver has not taken yet. (`Driver::has_unread` is about other
    /// input: what the driver has taken and still keeps.)
    unread: Vec<u8>,
}

#[cfg(feature = "tls-core")]
type Protocol<H> = crate::tls::OptionalTls<Session<H>>;
#[cfg(not(feature = "tls-core"))]
type Protocol<H> = Session<H>;

/// The driver of a connection without TLS.
fn plain<H: Handler>(driver: Driver<Session<H>>) -> Driver<Protocol<H>> {
    #[cfg(feature = "tls-core")]
    return driver.map(crate::tls::OptionalTls::Plain);
    #[cfg(not(feature = "tls-core"))]
    driver
}

/// Sets `woken` and calls the program's wake function.
#[derive(Default)]
struct ConnectionWaker {
    on_wake: Mutex<Option<Arc<dyn Fn() + Send + Sync>>>,
    woken: AtomicBool,
}

impl Wake for ConnectionWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.woken.store(true, Ordering::Release);
        // Called without the lock, since the program's function may call `set_wake`.
        let on_wake = self.on_wake.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(on_wake) = on_wake {
            on_wake();
        }
    }
}

/// Why a call failed.
///
/// ```
/// # use anyloop::iostream::Server;
/// # use anyloop::prelude::*;
/// # use anyloop::iostream::CallError;
/// # const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
/// #     Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
/// # let server = Server::new(ServerConfig::new(OriginPolicy::Any));
/// let connection = server.connection();
/// assert!(matches!(connection.read_all(REQUEST), Err(CallError::NoOutput)));
/// connection.register_output(std::io::sink());
/// assert_eq!(connection.read_all(REQUEST)?, REQUEST.len()); // nothing had been taken
/// # Ok::<(), CallError>(())
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// Another call is under way: this one comes from a handler of the connection, or from a second thread. Nothing was
    /// taken.
    #[error("another call of this connection is under way; nothing was taken")]
    Busy,
    /// No output is set. A call that receives input has taken nothing, since the input may have to be answered. Any
    /// other call has had its effect; only its output waits until an output is set.
    #[error("no output is set: register a writer, set a write handler, or collect the output")]
    NoOutput,
    /// Reading from the program's reader failed. This was not reported to the connection.
    #[error("cannot read the input")]
    Read(#[source] io::Error),
}

impl<H: Handler, K: Outputs> Connection<H, K> {
    fn new(
        mut driver: Driver<Protocol<H>>,
        initial: &EndpointSettings<K>,
        waker: Arc<ConnectionWaker>,
    ) -> Self {
        let settings = Arc::new(Mutex::new(Settings::new(initial)));
        let handle = driver.handle();
        let (transport, buffers) =
            (OutputTransport::new(settings.clone()), Buffers::new(MAX_POOL_BYTES));
        let core = Mutex::new(Core {
            driver,
            transport,
            buffers,
            read_buffer: Vec::new(),
            unread: Vec::new(),
        });
        let clock = initial.clock.clone();
        Self { shared: Arc::new(Shared { core, settings, handle, waker, clock }) }
    }

    // Input.

    /// Starts the connection: a client sends its request, and the handshake timeout begins. A server's connection is
    /// started by [`Server::connection`].
    ///
    /// # Errors
    ///
    /// [`CallError::Busy`]; [`CallError::NoOutput`]: the request is sent when an output is set.
    pub fn start(&self) -> Result<(), CallError> {
        self.with_core(|core, now| core.driver.start(&mut core.transport, &mut core.buffers, now))
    }

    /// Takes a copy of received bytes, at most [`MAX_READ`] of them, and returns how many it took. As in WebSocket++,
    /// *read* is what the connection does: it takes bytes that the program has received.
    ///
    /// Takes fewer, or none, while reading is paused, while the application has not answered the request, or when the
    /// connection closes. If it takes none while [`wants_input`](Self::wants_input) is true, the connection does not
    /// use input any more (after the peer's Close, a failure, or a response to plain HTTP): drop the bytes. Otherwise
    /// offer the rest again later.
    ///
    /// # Errors
    ///
    /// [`CallError::Busy`]: nothing was taken. [`CallError::NoOutput`]: nothing was taken.
    pub fn read_some(&self, bytes: &[u8]) -> Result<usize, CallError> {
        self.require_output()?;
        self.with_core(|core, now| {
            if !core.resume_and_feed(now) {
                return 0;
            }
            core.read_buffer.clear();
            core.read_buffer.extend_from_slice(&bytes[..bytes.len().min(MAX_READ)]);
            core.feed_read_buffer(now)
        })
    }

    /// As [`read_some`](Self::read_some), without a copy and without a limit. The bytes are unmasked in place.
    ///
    /// # Errors
    ///
    /// As [`read_some`](Self::read_some).
    pub fn read_some_mut(&self, bytes: &mut [u8]) -> Result<usize, CallError> {
        self.require_output()?;
        self.with_core(|core, now| {
            if !core.resume_and_feed(now) {
                return 0;
            }
            let Core { driver, transport, buffers, .. } = core;
            driver.receive_some(transport, buffers, bytes, now)
        })
    }

    /// As [`read_some`](Self::read_some), without a limit: takes received bytes until all are taken, or one of its
    /// other conditions holds. Returns the number of bytes that were taken.
    ///
    /// # Errors
    ///
    /// As [`read_some`](Self::read_some), if nothing was taken before.
    pub fn read_all(&self, bytes: &[u8]) -> Result<usize, CallError> {
        let mut taken = 0;
        while taken < bytes.len() {
            match self.read_some(&bytes[taken..]) {
                Ok(0) => break,
                Ok(n) => taken += n,
                Err(error) if taken == 0 => return Err(error),
                Err(_) => break,
            }
        }
        Ok(taken)
    }

    /// Reads once from `reader`, and takes the bytes. Bytes that cannot be taken because of a pause are kept. After the
    /// pause, they are taken by the next call that reports an event. The end of the reader is reported as
    /// [`eof`](Self::eof). Nothing is read if the reader would block, reading is paused, or an answer is awaited. After
    /// the closing handshake, input is discarded. Returns the number of bytes that were read.
    ///
    /// # Errors
    ///
    /// As [`read_some`](Self::read_some), and [`CallError::Read`]; interrupted reads are tried again.
    pub fn read_from(&self, reader: &mut impl Read) -> Result<usize, CallError> {
        self.require_output()?;
        self.with_core(|core, now| {
            let discards = core.driver.discards_input() && !core.driver.is_closed();
            if !core.resume_and_feed(now) || !core.driver.wants_input() {
                return Ok(0);
            }
            core.read_buffer.resize(MAX_READ, 0);
            let n = loop {
                match reader.read(&mut core.read_buffer) {
                    Ok(n) => break n,
                    Err(error) => match error.kind() {
                        ErrorKind::Interrupted => {}
                        ErrorKind::WouldBlock => return Ok(0),
                        _ => return Err(CallError::Read(error)),
                    },
                }
            };
            core.read_buffer.truncate(n);
            if n == 0 {
                let Core { driver, transport, buffers, .. } = core;
                driver.handle_eof(transport, buffers, now);
            } else if !discards {
                let taken = core.feed_read_buffer(now);
                core.unread.extend_from_slice(&core.read_buffer[taken..]);
            }
            Ok(n)
        })?
    }

    /// Reports that the peer has ended its direction of the stream. Unread input is dropped if reading is paused:
    /// resume first. Over TLS, data already decrypted is still delivered when reading resumes.
    ///
    /// # Errors
    ///
    /// [`CallError::Busy`], [`CallError::NoOutput`].
    pub fn eof(&self) -> Result<(), CallError> {
        self.with_core(|core, now| {
            core.driver.handle_eof(&mut core.transport, &mut core.buffers, now)
        })
    }

    /// Reports that the stream has failed.
    ///
    /// # Errors
    ///
    /// [`CallError::Busy`].
    pub fn fatal_error(&self) -> Result<(), CallError> {
        let error = TransportError::Other;
        self.with_core(|core, now| {
            core.driver.handle_error(&mut core.transport, &mut core.buffers, error, now);
        })
    }

    /// The time to call [`handle_timeout`](Self::handle_timeout), by the endpoint's clock; `None` if there is no
    /// deadline, or while another call is under way (from a handler or another thread).
    #[must_use]
    pub fn next_timeout(&self) -> Option<Instant> {
        let core = self.lock().ok()?;
        core.driver.next_timeout().into_iter().chain(core.buffers.next_trim()).min()
    }

    /// Handles what is due, and frees unused memory for messages that span several reads or frames. A call before
    /// anything is due handles no timeout.
    ///
    /// # Errors
    ///
    /// [`CallError::Busy`], [`CallError::NoOutput`].
    pub fn handle_timeout(&self) -> Result<(), CallError> {
        self.with_core(|core, now| {
            core.driver.handle_timeout(&mut core.transport, &mut core.buffers, now);
        })
    }

    /// Runs the commands of [handles](Self::handle), writes the send buffer as far as the output takes it, and takes
    /// bytes that an earlier [`read_from`](Self::read_from) or [`upgrade`](Self::upgrade) has kept.
    ///
    /// # Errors
    ///
    /// [`CallError::Busy`], [`CallError::NoOutput`].
    pub fn drive(&self) -> Result<(), CallError> {
        self.with_core(|core, now| {
            self.shared.waker.woken.store(false, Ordering::Release);
            let Core { driver, transport, buffers, .. } = core;
            driver.handle_wake(transport, buffers, now);
            transport.flush();
            driver.handle_writable(transport, buffers, now);
        })
    }

    // Output.

    /// Collects the output for [`take_output`](Self::take_output), for programs that fetch it instead of being called.
    /// If another output is set later, what was collected and not taken is written there first.
    pub fn collect_output(&self) {
        self.set_output(Output::Collected);
    }

    /// Whether there is [collected](Self::collect_output) output to take.
    #[must_use]
    pub fn wants_output(&self) -> bool {
        !self.settings().collected.is_empty()
    }

    /// Appends the [collected](Self::collect_output) output to `bytes`, and returns its length. Repeat while
    /// [`wants_output`](Self::wants_output): handlers that this call runs may send more, and a body may have further
    /// bytes. At most 64 KiB are collected; the rest is in the send buffer and counts against its limits. A connection
    /// that [has ended](Self::has_ended) may have output left, such as its Close.
    ///
    /// ```
    /// use anyloop::iostream::{Client, Server};
    /// use anyloop::prelude::*;
    ///
    /// let mut server = Server::new(ServerConfig::new(OriginPolicy::Any));
    /// server.on_message(|message, context| _ = context.send(message));
    /// let mut client = Client::new(ClientConfig::new());
    /// client.on_open(|context| _ = context.send("hello"));
    /// let (server, client) = (server.connection(), client.connection("ws://a/")?);
    /// server.collect_output();
    /// client.collect_output();
    ///
    /// client.start()?;
    /// let mut bytes = Vec::new();
    /// while client.wants_output() || server.wants_output() {
    ///     client.take_output(&mut bytes)?;
    ///     server.read_all(&bytes)?;
    ///     bytes.clear();
    ///     server.take_output(&mut bytes)?;
    ///     client.read_all(&bytes)?;
    ///     bytes.clear();
    /// }
    /// assert_eq!(client.statistics().map(|statistics| statistics.messages_received), Some(1));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`CallError::Busy`].
    pub fn take_output(&self, bytes: &mut Vec<u8>) -> Result<usize, CallError> {
        let before = bytes.len();
        self.with_core(|core, now| {
            let Core { driver, transport, buffers, .. } = core;
            // No more than what waits now: a handler that sends whenever it can would keep this from returning.
            let limit = transport.collected() + self.shared.handle.buffered_amount();
            while bytes.len() - before < limit && transport.take_collected(bytes) {
                driver.handle_writable(transport, buffers, now);
            }
        })?;
        Ok(bytes.len() - before)
    }

    /// Takes over a connection from another HTTP server: `request` is the head that the server has parsed, and
    /// `received` the bytes that it has read after it. What cannot be taken yet is kept.
    ///
    /// # Errors
    ///
    /// As [`read_all`](Self::read_all).
    pub fn upgrade<B>(&self, request: &http::Request<B>, received: &[u8]) -> Result<(), CallError> {
        self.require_output()?;
        let mut bytes = encode_request_head(request);
        bytes.extend_from_slice(received);
        self.with_core(|core, _| core.unread.append(&mut bytes))
    }

    /// Calls `f`, on any thread, when [`drive`](Self::drive) must be called: see [`wants_drive`](Self::wants_drive). If
    /// that is so already, `f` is called at once.
    pub fn set_wake(&self, f: impl Fn() + Send + Sync + 'static) {
        let waker = &self.shared.waker;
        let f: Arc<dyn Fn() + Send + Sync> = Arc::new(f);
        let mut on_wake = waker.on_wake.lock().unwrap_or_else(PoisonError::into_inner);
        let replaced = on_wake.replace(f.clone());
        drop(on_wake);
        drop(replaced); // application code, so not under the lock
        if self.wants_drive() {
            f();
        }
    }

    /// Whether [`drive`](Self::drive) must be called: a handle or a body writer has something to do, or the output was
    /// changed during a call.
    #[must_use]
    pub fn wants_drive(&self) -> bool {
        self.shared.waker.woken.load(Ordering::Acquire)
    }

    /// Sets whether the stream is secure (TLS, or a local pipe): a client of a `wss` URI needs that.
    pub fn set_secure(&self, secure: bool) {
        self.settings().secure = secure;
    }

    /// Sets the name of the peer, for logs and [`Context::remote_endpoint`](crate::Context::remote_endpoint).
    pub fn set_remote_endpoint(&self, remote_endpoint: impl Into<String>) {
        self.settings().remote_endpoint = remote_endpoint.into();
    }

    // Getters.

    /// A handle of the connection, for other threads.
    #[must_use]
    pub fn handle(&self) -> Handle<H> {
        self.shared.handle.clone()
    }

    /// Whether to read from the stream now: input would be taken, or is discarded until the peer ends the stream, which
    /// must be reported by [`eof`](Self::eof). False while another call is under way (from a handler or another
    /// thread).
    #[must_use]
    pub fn wants_input(&self) -> bool {
        self.lock().is_ok_and(|core| core.driver.wants_input())
    }

    /// Whether the stream has ended, and the handler was notified: the state is [`State::Ended`]. False while another
    /// call is under way (from a handler or another thread).
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.lock().is_ok_and(|core| core.driver.is_closed())
    }

    /// The state of the connection; `None` while another call is under way (from a handler or another thread). In a
    /// handler, [`Context::state`](crate::endpoint::Context::state) returns it.
    #[must_use]
    pub fn state(&self) -> Option<State> {
        self.lock().ok().map(|core| core.driver.state())
    }

    /// The statistics of the connection; `None` while another call is under way (from a handler or another thread).
    #[must_use]
    pub fn statistics(&self) -> Option<Statistics> {
        self.lock().ok().map(|core| core.driver.statistics())
    }

    // Implementation.

    fn now(&self) -> Instant {
        (self.shared.clock)()
    }

    /// Calls `f` with the core. Then passes on unread input, writes to an output that was set meanwhile, and trims the
    /// buffers.
    fn with_core<R>(&self, f: impl FnOnce(&mut Core<H, K>, Instant) -> R) -> Result<R, CallError> {
        let mut core = self.lock()?;
        let result = f(&mut core, self.now());
        let now = self.now(); // handlers may have taken any time
        core.resume_and_feed(now); // `f` may have resumed reading
        core.use_new_output(now);
        core.buffers.trim(now);
        core.take_output_error()?;
        Ok(result)
    }

    /// Checks that there is an output, since input may have to be answered.
    fn require_output(&self) -> Result<(), CallError> {
        let core = self.lock()?;
        match self.settings().output {
            Output::None if !core.driver.is_closed() => Err(CallError::NoOutput),
            _ => Ok(()),
        }
    }

    fn lock(&self) -> Result<MutexGuard<'_, Core<H, K>>, CallError> {
        match self.shared.core.try_lock() {
            Ok(core) => Ok(core),
            // A panic of a handler has already failed the connection. A panic of the reader of `read_from`, or of the
            // clock, leaves the connection usable.
            Err(TryLockError::Poisoned(poisoned)) => Ok(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => Err(CallError::Busy),
        }
    }

    /// No application code runs under this lock.
    fn settings(&self) -> MutexGuard<'_, Settings<K>> {
        lock_settings(&self.shared.settings)
    }

    fn set_output(&self, output: Output<K>) {
        let mut settings = self.settings();
        let replaced = std::mem::replace(&mut settings.output, output);
        settings.output_is_new = true;
        drop(settings);
        drop(replaced); // application code, so not under the lock
        match self.lock() {
            Ok(mut core) => {
                core.transport.output_missing = false;
                core.use_new_output(self.now());
            }
            // Another call is under way, and may have looked for a new output already: `drive` must be called.
            Err(_) => self.shared.waker.wake_by_ref(),
        }
    }
}

impl<H: Handler, K: Outputs> Core<H, K> {
    fn feed_read_buffer(&mut self, now: Instant) -> usize {
        let Self { driver, transport, buffers, read_buffer, .. } = self;
        driver.receive_some(transport, buffers, read_buffer, now)
    }

    /// Resumes the driver, and passes it the unread input. Returns whether none of that is left.
    fn resume_and_feed(&mut self, now: Instant) -> bool {
        // The driver or TLS keeps input that the session has not taken. Resume only once: some of it may stay.
        if self.driver.has_unread() && self.driver.wants_resume() {
            self.driver.resume(&mut self.transport, &mut self.buffers, now);
        }
        // `send_body` pauses after 1 MiB for the sake of other connections on the thread. Here there are no others: go
        // on until it is done.
        while !self.driver.has_unread() && self.driver.wants_resume() {
            self.driver.resume(&mut self.transport, &mut self.buffers, now);
        }
        if !self.unread.is_empty() {
            let Self { driver, transport, buffers, unread, .. } = self;
            let taken = driver.receive_some(transport, buffers, unread, now);
            unread.drain(..taken);
            if driver.discards_input() {
                unread.clear();
            }
        }
        self.unread.is_empty()
    }

    /// Writes the send buffer to an output that was set meanwhile.
    fn use_new_output(&mut self, now: Instant) {
        let Self { driver, transport, buffers, .. } = self;
        if std::mem::take(&mut transport.settings().output_is_new) {
            transport.flush();
            driver.handle_writable(transport, buffers, now);
        }
    }

    /// Returns an error if there was output to write, and nothing to write it to.
    fn take_output_error(&mut self) -> Result<(), CallError> {
        match std::mem::take(&mut self.transport.output_missing) {
            true => Err(CallError::NoOutput),
            false => Ok(()),
        }
    }
}

impl<H: Handler, K: Outputs> Clone for Connection<H, K> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone() }
    }
}

impl<H: Handler, K: Outputs> fmt::Debug for Connection<H, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("state", &self.state()).finish_non_exhaustive()
    }
}
