//! Bodies of HTTP responses, in memory or made while they are sent.

use std::borrow::Cow;
use std::fmt;
use std::io::{self, ErrorKind, Read};

use anyloop_proto::Payload;
use bytes::{Bytes, BytesMut};

use super::body_writer::{BodyReceiver, BodyWriter, Taken};
use crate::stream::Completion;

/// The most bytes of a body that are passed on at once.
pub(super) const MAX_PIECE: usize = 32 * 1024;

/// The body of an HTTP response.
///
/// | made from | memory | length |
/// |---|---|---|
/// | `Bytes`, `Vec<u8>`, `String`, `&'static str`, `&'static [u8]`, `Payload`, `()` | all of it, not copied | known |
/// | `&String`, `&Vec<u8>`, arrays | a copy of all of it | known |
/// | [a reader](Self::from_reader) | less than 100 KiB while it is sent | as passed |
/// | [a writer](Self::channel), on any thread | as much as the writer sends ahead of the peer | as passed |
///
/// A body of known length is sent with `Content-Length`. One of unknown length is chunked for a client of HTTP/1.1
/// (RFC 9112 §7.1), and ends with the byte stream for one of HTTP/1.0. If the response has a `Content-Length`
/// field, it must equal the known length of the body; for a body of unknown length, the field supplies it. After HEAD,
/// and for 204, 205 and 304, the body is dropped unread. After HEAD, and for 304, an empty body may have the
/// `Content-Length` that the response to GET would have (RFC 9110 §8.6).
///
/// The body is taken in pieces as the peer reads. If the peer reads nothing for the
/// [`response_timeout`](crate::ServerConfig::response_timeout), the response fails. Over [iostream](crate::iostream),
/// an output that never blocks takes the whole body in one call. If the body ends too early or too late, cannot be
/// read, or is not finished, the byte stream is aborted, and [`Handler::fail`](crate::Handler::fail) is called with
/// [`Cause::Response`](crate::proto::Cause::Response).
///
/// A page, and a file:
///
/// ```
/// # use anyloop::iostream::Server;
/// use std::fs::File;
/// use anyloop::Body;
/// use anyloop::http::{Response, StatusCode};
/// use anyloop::prelude::*;
///
/// fn open(path: &str) -> std::io::Result<Response<Body>> {
///     let file = File::open(path)?;
///     let length = file.metadata()?.len();
///     Ok(Response::new(Body::from_reader(file, length)))
/// }
///
/// # let mut server = Server::new(ServerConfig::new(OriginPolicy::Any));
/// server.on_http(|request, _| match request.uri().path() {
///     "/" => Response::new("hello\n").into(),
///     "/manifest" => match open("Cargo.toml") {
///         Ok(response) => response.into(),
///         Err(error) => Answer::status(StatusCode::NOT_FOUND, &error.to_string()),
///     },
///     _ => Answer::status(StatusCode::NOT_FOUND, "no such page"),
/// });
/// # let connection = server.connection();
/// # connection.collect_output();
/// # connection.read_all(b"GET /manifest HTTP/1.0\r\n\r\n")?;
/// # let mut answer = Vec::new();
/// # while connection.take_output(&mut answer)? > 0 {}
/// # assert!(answer.ends_with(&std::fs::read("Cargo.toml")?));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Body(BodySource);

enum BodySource {
    Bytes(Bytes),
    Reader(Reader),
    Channel(BodyReceiver, Option<u64>),
}

struct Reader {
    reader: Box<dyn Read + Send>,
    length: Option<u64>,
    /// Empty before the first piece.
    buffer: Vec<u8>,
}

/// The next piece of a body, or why there is none.
pub(super) enum NextPiece<'b> {
    Borrowed(&'b [u8]),
    /// A piece, and the function to call when it was written or never will be.
    Owned(Bytes, Option<Completion>),
    /// The writer has not sent the next piece yet.
    NotYet,
    End,
    /// The writer was dropped before the end.
    Abandoned,
    Failed(io::Error),
}

impl Body {
    /// A body that is read from `reader`, until the end of that, when the peer takes more.
    ///
    /// `length` is the number of bytes; `None` if it is not known. A reader that has more or fewer bytes fails the
    /// response. To send a part of a file, or a file that may grow, pass `file.take(length)`.
    ///
    /// The thread of the connection reads, up to 32 KiB at a time. A reader that blocks holds up the whole loop: files
    /// and memory are fine, sockets and pipes belong to a thread with a [writer](Self::channel). Interrupted reads are
    /// repeated; any other error, including [`ErrorKind::WouldBlock`], fails the response;
    /// [`Handler::fail`](crate::Handler::fail) can read it as [`Context::error`](crate::Context::error). A panic of the
    /// reader fails the connection, and passes on to the caller of the driver or of the loop.
    #[must_use]
    pub fn from_reader(reader: impl Read + Send + 'static, length: impl Into<Option<u64>>) -> Self {
        let (reader, buffer) = (Box::new(reader), Vec::new());
        Self(BodySource::Reader(Reader { reader, length: length.into(), buffer }))
    }

    /// A body that is sent in pieces by a writer, from any thread.
    ///
    /// `length` is the number of bytes; `None` if it is not known. See the example of [`BodyWriter`].
    pub fn channel(length: impl Into<Option<u64>>) -> (BodyWriter, Self) {
        let (writer, channel) = BodyReceiver::new();
        (writer, Self(BodySource::Channel(channel, length.into())))
    }

    /// The number of bytes; `None` if it is not known.
    ///
    /// ```
    /// use anyloop::Body;
    ///
    /// assert_eq!(Body::from("hello").content_length(), Some(5));
    /// assert_eq!(Body::from_reader(std::io::empty(), None).content_length(), None);
    /// ```
    #[must_use]
    pub fn content_length(&self) -> Option<u64> {
        match &self.0 {
            BodySource::Bytes(bytes) => Some(bytes.len() as u64),
            BodySource::Reader(reader) => reader.length,
            BodySource::Channel(_, length) => *length,
        }
    }

    pub(super) const fn as_channel(&self) -> Option<&BodyReceiver> {
        match &self.0 {
            BodySource::Channel(channel, _) => Some(channel),
            _ => None,
        }
    }

    /// Takes the next piece.
    pub(super) fn next(&mut self) -> NextPiece<'_> {
        match &mut self.0 {
            BodySource::Bytes(bytes) if bytes.is_empty() => NextPiece::End,
            BodySource::Bytes(bytes) => {
                NextPiece::Owned(bytes.split_to(bytes.len().min(MAX_PIECE)), None)
            }
            BodySource::Reader(reader) => reader.next(),
            BodySource::Channel(channel, _) => match channel.take(MAX_PIECE) {
                Taken::Piece(piece, completion) => NextPiece::Owned(piece, completion),
                Taken::Nothing => NextPiece::NotYet,
                Taken::Finished => NextPiece::End,
                Taken::Abandoned => NextPiece::Abandoned,
            },
        }
    }
}

impl Reader {
    fn next(&mut self) -> NextPiece<'_> {
        self.buffer.resize(MAX_PIECE, 0);
        loop {
            match self.reader.read(&mut self.buffer) {
                Ok(0) => return NextPiece::End,
                // A reader may claim to have filled more than there is.
                Ok(n) => return NextPiece::Borrowed(&self.buffer[..n.min(MAX_PIECE)]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return NextPiece::Failed(error),
            }
        }
    }
}

/// An empty body.
impl Default for Body {
    fn default() -> Self {
        Self::from(Bytes::new())
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Self(BodySource::Bytes(bytes))
    }
}

/// Conversions by way of `Bytes`.
macro_rules! from_bytes {
    ($($type:ty => $convert:expr;)*) => {
        $(
            impl From<$type> for Body {
                fn from(body: $type) -> Self {
                    Self::from($convert(body))
                }
            }
        )*
    };
}

from_bytes! {
    &Bytes => Bytes::clone;
    BytesMut => BytesMut::freeze;
    Vec<u8> => Bytes::from;
    Box<[u8]> => Bytes::from;
    Cow<'static, [u8]> => |body: Cow<'static, [u8]>| match body {
        Cow::Borrowed(bytes) => Bytes::from_static(bytes),
        Cow::Owned(bytes) => bytes.into(),
    };
    String => Bytes::from;
    Box<str> => |body| Bytes::from(String::from(body));
    Cow<'static, str> => |body: Cow<'static, str>| match body {
        Cow::Borrowed(text) => Bytes::from_static(text.as_bytes()),
        Cow::Owned(text) => text.into(),
    };
    Payload => Payload::into_bytes;
    &'static str => |body: &'static str| Bytes::from_static(body.as_bytes());
    &'static [u8] => Bytes::from_static;
    &Vec<u8> => |body: &Vec<u8>| Bytes::copy_from_slice(body);
    &String => |body: &String| Bytes::copy_from_slice(body.as_bytes());
}

impl<const N: usize> From<[u8; N]> for Body {
    fn from(body: [u8; N]) -> Self {
        Self::from(Bytes::copy_from_slice(&body))
    }
}

impl<const N: usize> From<&'static [u8; N]> for Body {
    fn from(body: &'static [u8; N]) -> Self {
        Self::from(&body[..])
    }
}

/// An empty body.
impl From<()> for Body {
    fn from((): ()) -> Self {
        Self::default()
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let source = match &self.0 {
            BodySource::Bytes(_) => "bytes",
            BodySource::Reader(_) => "reader",
            BodySource::Channel(..) => "channel",
        };
        f.debug_struct("Body")
            .field("source", &source)
            .field("content_length", &self.content_length())
            .finish()
    }
}
