//! Carries an iostream connection over a blocking socket, on one thread.

use std::io;
use std::net::TcpStream;
use std::time::Duration;

use anyloop::Handler;
use anyloop::iostream::{CallError, Connection};
use anyloop::proto::{Instant, Shutdown};

/// How long a write may block. Nothing else of this connection is served meanwhile.
const WRITE_TIMEOUT: Duration = Duration::from_secs(1);

/// How long to wait before a write that timed out is repeated.
const RETRY: Duration = Duration::from_millis(50);

/// Drives `connection` over `stream` until it has ended.
pub(crate) fn carry<H: Handler>(stream: &TcpStream, connection: &Connection<H>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_write_timeout(Some(WRITE_TIMEOUT))?;
    connection.register_output(stream.try_clone()?);
    let socket = stream.try_clone()?;
    connection.set_shutdown_handler(move |how| {
        if how == Shutdown::HalfClose {
            // If this fails the socket is gone, and the next read reports it.
            _ = socket.shutdown(std::net::Shutdown::Write);
        }
        // The socket is closed when this function returns.
    });
    let mut result = connection.start();
    while !connection.has_ended() {
        match result {
            Ok(()) => {}
            // An error of the socket ends the connection, which reports it to the handler.
            Err(CallError::Read(_)) => connection.fatal_error().map_err(io::Error::other)?,
            Err(error) => return Err(io::Error::other(error)),
        }
        // Write again what the socket did not accept.
        connection.drive().map_err(io::Error::other)?;
        // Wait for input, at most until a timeout is due.
        let mut timeout = connection.next_timeout().map(|due| due - now());
        if connection.handle().buffered_amount() > 0 {
            timeout = Some(timeout.unwrap_or(RETRY).min(RETRY));
        }
        result = if timeout.is_some_and(|timeout| timeout.is_zero()) {
            connection.handle_timeout()
        } else {
            stream.set_read_timeout(timeout)?;
            connection.read_from(&mut &*stream).map(|_| ())
        };
    }
    Ok(())
}

fn now() -> Instant {
    std::time::Instant::now().into()
}
