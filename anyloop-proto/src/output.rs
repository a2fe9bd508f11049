//! The way out of the state machine.

use alloc::sync::Arc;
use alloc::vec::Vec;

/// From this payload size on, in bytes, a frame is offered to [`Output::write_vectored`] first.
pub const LARGE_PAYLOAD: usize = 16 * 1024;

/// Where frames go: a buffer, and for large payloads a shorter way if there is one.
///
/// Each call into the state machine names its output, so a transport may gather what all calls of
/// one batch produce and send it in one write. A `Vec<u8>` is an output.
///
/// The order of frames is the order of the calls. An output that takes a frame by one of the shorter
/// ways sees to it that what is in the buffer goes first.
///
/// An output that keeps large payloads apart, and can be blocked:
///
/// ```
/// use anyloop_proto::{Config, Connection, Input, Instant, Output, Role};
///
/// #[derive(Default)]
/// struct Wire {
///     buffer: Vec<u8>,
///     large: Vec<Vec<u8>>,
///     blocked: bool,
/// }
///
/// impl Output for Wire {
///     fn buffer(&mut self) -> &mut Vec<u8> {
///         &mut self.buffer
///     }
///
///     fn write_vectored(&mut self, header: &[u8], payload: &[u8]) -> bool {
///         self.large.push(std::mem::take(&mut self.buffer)); // what was before it goes first
///         self.large.push([header, payload].concat());
///         true
///     }
///
///     fn is_blocked(&self) -> bool {
///         self.blocked
///     }
/// }
///
/// let now = Instant::from_nanos(0);
/// let mut connection = Connection::new(Role::Server, Config::default().into(), now);
/// let mut wire = Wire::default();
/// connection.sender.send("small", &mut wire)?;
/// connection.sender.send(&[7; 20_000][..], &mut wire)?;
/// assert_eq!((wire.large[0].len(), wire.large[1].len(), wire.buffer.len()), (7, 20_004, 0));
///
/// wire.blocked = true;
/// let mut ping = *b"\x89\x80\0\0\0\0";
/// let Connection { receiver, sender } = &mut connection;
/// let _ = receiver.next(sender, &mut Input::new(&mut ping), now, &mut wire)?;
/// assert_eq!(wire.buffer, b""); // the pong is held back
/// wire.blocked = false;
/// connection.handle_writable(now, &mut wire);
/// assert_eq!(wire.buffer, b"\x8a\x00");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait Output {
    /// The buffer that frames are appended to. Nothing before its end is touched.
    fn buffer(&mut self) -> &mut Vec<u8>;

    /// Offers one whole frame as header and payload, where the payload has at least
    /// [`LARGE_PAYLOAD`] bytes and goes out as it is. Returns whether the output took both, by
    /// writing them or by keeping what could not be written. By default it does not.
    fn write_vectored(&mut self, header: &[u8], payload: &[u8]) -> bool {
        let _ = (header, payload);
        false
    }

    /// Offers one whole frame that other connections send too. Returns whether the output took it,
    /// by keeping a reference. By default it does not.
    fn write_shared(&mut self, frame: &Arc<[u8]>) -> bool {
        let _ = frame;
        false
    }

    /// Whether what was written earlier still waits for the peer to read. Pongs and keep-alive
    /// pings are then held back, the newest of each, until
    /// [`Connection::handle_writable`](crate::Connection::handle_writable). By default it does not.
    fn is_blocked(&self) -> bool {
        false
    }
}

impl Output for Vec<u8> {
    #[inline]
    fn buffer(&mut self) -> &mut Vec<u8> {
        self
    }
}

impl<O: Output + ?Sized> Output for &mut O {
    #[inline]
    fn buffer(&mut self) -> &mut Vec<u8> {
        (**self).buffer()
    }

    #[inline]
    fn write_vectored(&mut self, header: &[u8], payload: &[u8]) -> bool {
        (**self).write_vectored(header, payload)
    }

    #[inline]
    fn write_shared(&mut self, frame: &Arc<[u8]>) -> bool {
        (**self).write_shared(frame)
    }

    #[inline]
    fn is_blocked(&self) -> bool {
        (**self).is_blocked()
    }
}
