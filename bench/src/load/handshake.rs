//! The address of the server, and the opening handshake.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{self, AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use rustls::ClientConfig;

use crate::Failure;
use crate::arguments::Arguments;
use crate::deflate::Agreed;
use crate::stream::Stream;
use crate::tls::{self, Tls};

/// The key of RFC 6455 §1.3. It is the same for all connections, so that the accept value is a constant.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// The accept value for [`KEY`].
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// The limit of time for the server to accept a connection and to respond to a request.
const PATIENCE: Duration = Duration::from_secs(5);

/// The maximum size of a response.
const RESPONSE: usize = 8192;

/// A server on this machine.
pub(crate) struct Target {
    address: Address,
    tls: Option<Arc<ClientConfig>>,
    resume: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Address {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl Address {
    /// `ADDR:PORT` of the loopback interface, or `unix:PATH`.
    fn parse(word: &str) -> Result<Self, Failure> {
        if let Some(path) = word.strip_prefix("unix:") {
            return Ok(Self::Unix(path.into()));
        }
        let address: SocketAddr =
            word.parse().map_err(|_| format!("{word}: neither ADDR:PORT nor unix:PATH"))?;
        if address.ip().is_loopback() {
            Ok(Self::Tcp(address))
        } else {
            Err(format!("{address}: not a loopback address").into())
        }
    }
}

impl Target {
    /// The last word of the command line, and whether to use TLS.
    pub(crate) fn parse(arguments: &mut Arguments) -> Result<Self, Failure> {
        let (tls, resume) = (arguments.flag("--tls"), arguments.flag("--resume"));
        let tls = if tls { Some(tls::config(resume)?) } else { None };
        let address = Address::parse(&arguments.last("the server's address")?)?;
        Ok(Self { address, resume: resume && tls.is_some(), tls })
    }

    /// Whether connections are to resume sessions of earlier ones.
    pub(crate) fn resumes(&self) -> bool {
        self.resume
    }

    /// Opens a connection and completes the opening handshake. Returns a non-blocking stream.
    pub(crate) fn open(&self, path: &str, raw: bool) -> Result<Stream, Failure> {
        let request = request(&self.host(), path);
        self.send(&request, raw).map(|(stream, _)| stream)
    }

    /// The same, with an offer of permessage-deflate, which the server must accept unless it is `raw`.
    pub(crate) fn open_compressed(
        &self,
        path: &str,
        raw: bool,
        offer: &str,
    ) -> Result<(Stream, Agreed), Failure> {
        let mut request = request(&self.host(), path);
        let separator = if offer.is_empty() { "" } else { "; " };
        let field = format!("Sec-WebSocket-Extensions: permessage-deflate{separator}{offer}\r\n");
        request.insert_str(request.len() - "\r\n".len(), field.as_str());
        let (stream, response) = self.send(&request, raw)?;
        let agreed = match extensions(&response) {
            _ if raw => Agreed::ANY,
            Some(answer) => Agreed::parse(answer)?,
            None => return Err("the server does not agree to permessage-deflate".into()),
        };
        Ok((stream, agreed))
    }

    /// Connects and sends a request. Returns a non-blocking stream and the response.
    fn send(&self, request: &str, raw: bool) -> Result<(Stream, String), Failure> {
        match &self.address {
            Address::Tcp(address) => {
                let mut socket = TcpStream::connect_timeout(address, PATIENCE)?;
                socket.set_nodelay(true)?;
                socket.set_read_timeout(Some(PATIENCE))?;
                let (tls, response) = self.shake(&mut socket, request, raw)?;
                socket.set_nonblocking(true)?;
                Ok((Stream::new(socket.into(), tls), response))
            }
            Address::Unix(path) => {
                let mut socket = UnixStream::connect(path)?;
                socket.set_read_timeout(Some(PATIENCE))?;
                let (tls, response) = self.shake(&mut socket, request, raw)?;
                socket.set_nonblocking(true)?;
                Ok((Stream::new(socket.into(), tls), response))
            }
        }
    }

    fn shake(
        &self,
        socket: &mut (impl Read + Write),
        request: &str,
        raw: bool,
    ) -> Result<(Option<Tls>, String), Failure> {
        let Some(config) = &self.tls else {
            return Ok((None, shake(socket, request, raw)?));
        };
        let mut connection = tls::connection(config)?;
        let mut stream = rustls::Stream::new(&mut connection, socket);
        let response = shake(&mut stream, request, raw)?;
        Ok((Some(Tls::new(connection)), response))
    }

    /// Starts to connect a non-blocking stream. Its socket becomes writable when it is connected.
    pub(crate) fn connect(&self) -> Result<Stream, Failure> {
        let tls = self.tls.as_ref().map(tls::connection).transpose()?.map(Tls::new);
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = |family| net::socket_with(family, SocketType::STREAM, flags, None);
        let (socket, outcome) = match &self.address {
            Address::Tcp(address) => {
                let socket = socket(match address {
                    SocketAddr::V4(_) => AddressFamily::INET,
                    SocketAddr::V6(_) => AddressFamily::INET6,
                })?;
                net::sockopt::set_tcp_nodelay(&socket, true)?;
                let outcome = net::connect(&socket, address);
                (socket, outcome)
            }
            Address::Unix(path) => {
                let socket = socket(AddressFamily::UNIX)?;
                let outcome = net::connect(&socket, &SocketAddrUnix::new(path)?);
                (socket, outcome)
            }
        };
        match outcome {
            Ok(()) | Err(Errno::INPROGRESS) => Ok(Stream::new(socket, tls)),
            Err(errno) => Err(errno.into()),
        }
    }

    /// The value of the `Host` field.
    pub(crate) fn host(&self) -> String {
        match &self.address {
            Address::Tcp(address) => address.to_string(),
            Address::Unix(_) => "localhost".to_owned(),
        }
    }
}

/// The request for an upgrade.
pub(crate) fn request(host: &str, path: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
}

/// Sends a request. Returns the response, which accepts the connection.
fn shake(stream: &mut (impl Read + Write), request: &str, raw: bool) -> Result<String, Failure> {
    stream.write_all(request.as_bytes())?;
    let mut response = Vec::new();
    let mut part = [0; RESPONSE];
    loop {
        match stream.read(&mut part).map_err(|error| format!("no response: {error}"))? {
            0 => return Err("closed in the opening handshake".into()),
            n => response.extend_from_slice(&part[..n]),
        }
        if let Some(length) = head(&response, raw)? {
            if response.len() > length {
                return Err("the server sent something before any message".into());
            }
            return Ok(String::from_utf8(response)?);
        }
    }
}

/// The extensions that a response names.
fn extensions(response: &str) -> Option<&str> {
    response
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("Sec-WebSocket-Extensions"))
        .map(|(_, value)| value.trim())
}

/// The length of the response at the start of `received`, which must accept the connection. `None` if it is not
/// complete.
pub(crate) fn head(received: &[u8], raw: bool) -> Result<Option<usize>, Failure> {
    match received.windows(4).position(|four| four == b"\r\n\r\n") {
        Some(end) => check(&received[..end], raw).map(|()| Some(end + 4)),
        None if received.len() >= RESPONSE => Err("the response is too long".into()),
        None => Ok(None),
    }
}

/// Checks that a response accepts the connection. For a `raw` server only the status is checked.
fn check(response: &[u8], raw: bool) -> Result<(), Failure> {
    let response = str::from_utf8(response)?;
    let mut lines = response.split("\r\n");
    let status = lines.next().unwrap_or_default();
    if !(status == "HTTP/1.1 101" || status.starts_with("HTTP/1.1 101 ")) {
        return Err(format!("refused: {status}").into());
    }
    let accepted = lines.filter_map(|line| line.split_once(':')).any(|(name, value)| {
        name.eq_ignore_ascii_case("Sec-WebSocket-Accept") && value.trim() == ACCEPT
    });
    if raw || accepted { Ok(()) } else { Err("Sec-WebSocket-Accept is missing or wrong".into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_addresses_are_accepted() {
        assert!(Address::parse("127.0.0.1:80").is_ok());
        assert!(Address::parse("127.3.2.1:80").is_ok());
        assert!(Address::parse("[::1]:80").is_ok());
        assert_eq!(Address::parse("unix:/tmp/s").unwrap(), Address::Unix("/tmp/s".into()));
        for elsewhere in ["10.0.0.1:80", "0.0.0.0:80", "[::]:80", "example.org:80", "80"] {
            assert!(Address::parse(elsewhere).is_err(), "{elsewhere}");
        }
    }

    #[test]
    fn the_extensions_of_a_response_are_found() {
        let response = "HTTP/1.1 101 Go\r\nA: b\r\nsec-websocket-extensions:  x; y=1 \r\n\r\n";
        assert_eq!(extensions(response), Some("x; y=1"));
        assert_eq!(extensions("HTTP/1.1 101 Go\r\nA: b\r\n\r\n"), None);
    }

    #[test]
    fn only_101_with_the_correct_accept_value_is_accepted() {
        let good = format!("HTTP/1.1 101 Go\r\nsec-websocket-accept: {ACCEPT}");
        assert!(check(good.as_bytes(), false).is_ok());
        assert!(check(b"HTTP/1.1 101 Go\r\nSec-WebSocket-Accept: no", false).is_err());
        assert!(check(b"HTTP/1.1 101 Go", false).is_err());
        assert!(check(b"HTTP/1.1 101 Go", true).is_ok());
        assert!(check(b"HTTP/1.1 1010", true).is_err());
        assert!(check(b"HTTP/1.1 200 OK", true).is_err());
    }
}
