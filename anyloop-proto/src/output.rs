//! The output of the state machine.

use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::contexts::Contexts;

/// Unmasked, unencoded frames with at least this many bytes of payload are offered to [`Output::write_vectored`] first,
/// and so are pieces of HTTP bodies of this size.
pub const LARGE_PAYLOAD: usize = 16 * 1024;

/// The destination of frames: a buffer, and optional ways to take a large or shared payload without
/// a copy.
///
/// Each call of the state machine takes its output as an argument, so a transport can collect the
/// output of a batch of calls and send it in one write. A `Vec<u8>` is an output.
///
/// Frames are ordered by call. An output that takes a frame by `write_vectored` or `write_shared`
/// must send the content of its buffer before that frame.
///
/// An output that keeps large payloads separately and can be blocked:
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
///         self.large.push(std::mem::take(&mut self.buffer)); // earlier frames come first
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
/// _ = receiver.next(sender, &mut Input::new(&mut ping), now, &mut wire)?;
/// assert_eq!(wire.buffer, b""); // the pong is held back
/// wire.blocked = false;
/// connection.handle_writable(now, &mut wire);
/// assert_eq!(wire.buffer, b"\x8a\x00");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait Output {
    /// The buffer that frames are appended to. Its existing content is not changed.
    fn buffer(&mut self) -> &mut Vec<u8>;

    /// The [buffer](Self::buffer), and the contexts for the encoders of extensions. Without contexts (`None`, the
    /// default) an encoder creates one for each call.
    fn parts(&mut self) -> (&mut Vec<u8>, Option<&mut Contexts>) {
        (self.buffer(), None)
    }

    /// Offers a whole frame as header and payload, or a piece of an HTTP body as payload, after its chunk header (empty
    /// if the body is not chunked). The payload has at least [`LARGE_PAYLOAD`] bytes and is neither masked nor encoded.
    /// Returns whether the output took both, by writing them or by keeping what it could not write. The default returns
    /// `false`.
    fn write_vectored(&mut self, header: &[u8], payload: &[u8]) -> bool {
        let _ = (header, payload);
        false
    }

    /// Offers a whole frame that other connections send as well. Returns whether the output took
    /// it, by keeping a reference. The default returns `false`.
    fn write_shared(&mut self, frame: &Arc<[u8]>) -> bool {
        let _ = frame;
        false
    }

    /// Whether earlier output still waits for the peer to read. If so, the newest pong and the
    /// newest keep-alive ping are held back until
    /// [`Connection::handle_writable`](crate::Connection::handle_writable). The default returns
    /// `false`.
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

    fn parts(&mut self) -> (&mut Vec<u8>, Option<&mut Contexts>) {
        (**self).parts()
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
