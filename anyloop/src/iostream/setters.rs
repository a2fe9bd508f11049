//! Setters that differ between [`Threads`] (values must be [`Send`], and the clock [`Sync`] too) and [`Local`].

use std::io::{self, IoSlice, Write};
use std::sync::Arc;

use anyloop_proto::{Instant, Shutdown};

use super::output_transport::Output;
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

/// Setters of a connection's output and shutdown handler.
macro_rules! setters {
    ($kind:ident $(, $send:ident)?) => {
        /// Setters of the output and of what ends the stream.
        impl<H: Handler> Connection<H, $kind> {
            /// Writes to `output`, and flushes it after each write of the connection. If a write or a flush would
            /// block, [`drive`](Self::drive) tries it again.
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

            /// Calls `f` with the buffers of each write of the connection, in order. `f` takes all of them, or fails.
            pub fn set_vectored_write_handler(
                &self,
                f: impl FnMut(&[IoSlice<'_>]) -> io::Result<()> $(+ $send)? + 'static,
            ) {
                self.set_output(Output::<$kind>::Vectored(Box::new(f)));
            }

            /// Calls `f` to shut down the stream: once with [`Shutdown::Close`] or [`Shutdown::Abort`], possibly
            /// preceded by a call with [`Shutdown::HalfClose`]. For `HalfClose`, shut down the sending direction and go
            /// on reading; report [`eof`](Self::eof) when the peer closes. For the others, close the stream.
            ///
            /// Without a shutdown handler there is no half-close: the connection ends when all output is written. Close
            /// the stream when the connection [has ended](Self::has_ended).
            pub fn set_shutdown_handler(&self, f: impl FnMut(Shutdown) $(+ $send)? + 'static) {
                let replaced = self.settings().on_shutdown.replace(Box::new(f));
                drop(replaced); // application code, so not under the lock
            }
        }
    };
}

setters!(Threads, Send);
setters!(Local);
