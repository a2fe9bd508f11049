//! Reports of what has become of messages.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::thread;

/// Called once for a message: with `Ok` when the transport has taken the whole message, and with [`Unsent`] if the
/// message is not sent.
///
/// The example of [`Unsent`] sends a message with one.
pub type Completion = Box<dyn FnOnce(Result<(), Unsent>) + Send>;

/// The message was not sent: it was dropped or refused, or the connection ended before the transport took the whole
/// message.
///
/// The connection may still be open: [`Overflow::Drop`](crate::endpoint::Overflow::Drop) drops messages of open
/// connections, for example.
///
/// ```
/// # use anyloop::iostream::Server;
/// # use anyloop::prelude::*;
/// # use anyloop::endpoint::Unsent;
/// # use std::io::{Error, ErrorKind};
/// # use std::sync::mpsc;
/// # const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
/// #     Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
/// # let mut server = Server::new(ServerConfig::new(OriginPolicy::Any));
/// let (result_sender, results) = mpsc::channel();
/// server.on_open(move |context| {
///     let sender = result_sender.clone();
///     _ = context.send_then("hello", move |result| sender.send(result).unwrap());
/// });
/// let connection = server.connection();
/// connection.set_write_handler(|_| Err(Error::from(ErrorKind::BrokenPipe)));
/// connection.read_all(REQUEST)?; // of a client that does not stay for the answer
/// assert_eq!(results.try_recv(), Ok(Err(Unsent)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the message was not sent: it was dropped or refused, or the connection ended")]
pub struct Unsent;

/// Calls completions. If one panics, the others are called too; then the panic is resumed, unless the thread is
/// panicking already.
pub(super) fn call_all(completions: impl Iterator<Item = (Completion, Result<(), Unsent>)>) {
    let mut panic = None;
    for (completion, result) in completions {
        if let Err(first) = catch_unwind(AssertUnwindSafe(|| completion(result))) {
            panic.get_or_insert(first);
        }
    }
    if let Some(panic) = panic.filter(|_| !thread::panicking()) {
        resume_unwind(panic);
    }
}

/// Calls the completions of messages that will not be sent, as [`call_all`] does.
pub(crate) fn report_unsent(completions: impl Iterator<Item = Completion>) {
    call_all(completions.map(|completion| (completion, Err(Unsent))));
}
