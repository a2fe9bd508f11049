//! What the application sets, for each kind of threads.

use std::io::{self, IoSlice, Write};
use std::sync::Arc;

use anyloop_proto::{Instant, Shutdown};

use super::stream::Output;
use super::{Connection, IoStream};
use crate::endpoint::{
    Client, ClientConfig, Handler, HandlerFactory, LocalHandlers, Server, ServerConfig,
};
use crate::threading::{Local, Threads};

/// The setters of the clock of an endpoint.
macro_rules! clock {
    ($endpoint:ident, $kind:ident $(, $($bound:ident),+)?) => {
        impl<F: HandlerFactory> $endpoint<IoStream<$kind>, F> {
            /// The clock of connections made afterwards. By default the system's monotonic clock.
            pub fn set_clock(
                &mut self,
                clock: impl Fn() -> Instant $($(+ $bound)+)? + 'static,
            ) -> &mut Self {
                self.backend.clock = Arc::new(clock);
                self
            }
        }
    };
}

clock!(Server, Threads, Send, Sync);
clock!(Client, Threads, Send, Sync);
clock!(Server, Local);
clock!(Client, Local);

/// The setters of the functions of a connection.
macro_rules! setters {
    ($kind:ident $(, $send:ident)?) => {
        /// Where the output goes.
        impl<H: Handler> Connection<H, $kind> {
            /// Writes to `output`, and flushes it after each batch. If it would block, the rest waits for
            /// [`drive`](Self::drive).
            pub fn register_output(&self, output: impl Write $(+ $send)? + 'static) {
                self.set_output(Output::Writer { writer: Box::new(output), unflushed: false });
            }

            /// Calls `f` with each buffer to write. `f` takes all of it, or fails.
            pub fn set_write_handler(
                &self,
                f: impl FnMut(&[u8]) -> io::Result<()> $(+ $send)? + 'static,
            ) {
                self.set_output(Output::<$kind>::Handler(Box::new(f)));
            }

            /// Calls `f` with the buffers of each batch, in order. `f` takes all of them, or fails.
            pub fn set_vectored_write_handler(
                &self,
                f: impl FnMut(&[IoSlice<'_>]) -> io::Result<()> $(+ $send)? + 'static,
            ) {
                self.set_output(Output::<$kind>::Vectored(Box::new(f)));
            }

            /// Calls `f` to end the stream, or one direction of it. For [`Shutdown::HalfClose`], `f` shuts down the
            /// sending direction, and the program reports [`eof`](Self::eof) when the peer has ended its own; the
            /// connection is over then, or at the close timeout.
            ///
            /// Without such a function the stream cannot be half-closed: the connection is over as soon as all output
            /// is written. Close the stream when the connection [`is_over`](Self::is_over).
            pub fn set_shutdown_handler(&self, f: impl FnMut(Shutdown) $(+ $send)? + 'static) {
                let replaced = self.stream_state().on_shutdown.replace(Box::new(f));
                drop(replaced); // application code, so not under the lock
            }
        }
    };
}

setters!(Threads, Send);
setters!(Local);

/// The constructors of an endpoint on one thread.
macro_rules! constructors {
    ($endpoint:ident, $config:ident) => {
        impl $endpoint<IoStream<Local>, LocalHandlers> {
            /// An endpoint whose handlers are closures, which are set afterwards.
            #[must_use]
            pub fn new(config: $config) -> Self {
                Self::with_factory(config, LocalHandlers::new())
            }
        }

        impl<F: HandlerFactory> $endpoint<IoStream<Local>, F> {
            /// An endpoint whose connections get their handlers from `factory`.
            #[must_use]
            pub fn with_factory(config: $config, factory: F) -> Self {
                Self::with_backend(IoStream::new(), config, factory)
            }
        }
    };
}

constructors!(Server, ServerConfig);
constructors!(Client, ClientConfig);
