//! What the application sets, for each kind of threads.

use std::io::{self, IoSlice, Write};
use std::sync::Arc;

use anyloop_proto::{Instant, Shutdown};

use super::stream::Output;
use super::{Client, Connection, LocalClient, LocalServer, Server};
use crate::endpoint::{Handler, HandlerFactory};
use crate::threading::{Local, Threads};

/// The setters of the clock of an endpoint.
macro_rules! clock {
    ($endpoint:ident, $($settings:ident).+ $(, $($bound:ident),+)?) => {
        impl<F: HandlerFactory> $endpoint<F> {
            /// The clock of connections made afterwards. By default the system's monotonic clock.
            pub fn set_clock(
                &mut self,
                clock: impl Fn() -> Instant $($(+ $bound)+)? + 'static,
            ) -> &mut Self {
                self.$($settings).+.clock = Arc::new(clock);
                self
            }
        }
    };
}

clock!(Server, settings, Send, Sync);
clock!(Client, settings, Send, Sync);
clock!(LocalServer, server.settings);
clock!(LocalClient, client.settings);

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
                drop(replaced); // program code, so not under the lock
            }
        }
    };
}

setters!(Threads, Send);
setters!(Local);
