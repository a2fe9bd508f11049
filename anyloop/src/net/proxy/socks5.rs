//! The client's side of SOCKS5 (RFC 1928), with a user and password if there are any (RFC 1929).

use std::net::{IpAddr, SocketAddr};

use anyloop_proto::Input;

use super::super::error::{SocksError, SocksReply};

const VERSION: u8 = 5;
/// The version of the exchange of user and password (RFC 1929 §2).
const PASSWORD_VERSION: u8 = 1;

const NO_AUTHENTICATION: u8 = 0;
const USER_AND_PASSWORD: u8 = 2;
const NO_METHOD: u8 = 0xff;

const CONNECT: u8 = 1;

/// The types of addresses (RFC 1928 §5).
const V4: u8 = 1;
const NAME: u8 = 3;
const V6: u8 = 4;

/// The longest name (RFC 1928 §5), in bytes.
pub(super) const MAX_NAME: usize = 255;

/// An exchange with a proxy.
pub(in crate::net) struct Socks5 {
    step: Step,
    /// The part of the current message that was received. A message has at most 262 bytes.
    message: Vec<u8>,
    /// The request, until it is sent.
    request: Vec<u8>,
    /// The message with user and password, until it is sent; empty if there are none.
    credentials_message: Vec<u8>,
}

/// The message that is expected next.
#[derive(Clone, Copy)]
enum Step {
    Method,
    Password,
    Reply,
}

/// Where the proxy is to connect to.
pub(super) enum Destination<'d> {
    Address(SocketAddr),
    /// A name of at most [`MAX_NAME`] bytes, and a port.
    Name(&'d str, u16),
}

/// Why there is no connection.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum SocksFailure {
    /// The proxy wants a user and password, or does not accept these.
    Authentication,
    Refused(SocksReply),
    Invalid(SocksError),
}

impl Socks5 {
    /// Begins: appends the first message to `out`.
    pub(super) fn new(
        destination: &Destination<'_>,
        credentials: Option<(&[u8], &[u8])>,
        out: &mut Vec<u8>,
    ) -> Self {
        let credentials_message = credentials.map_or_else(Vec::new, new_credentials_message);
        match credentials_message.is_empty() {
            true => out.extend([VERSION, 1, NO_AUTHENTICATION]),
            false => out.extend([VERSION, 2, NO_AUTHENTICATION, USER_AND_PASSWORD]),
        }
        let request = new_request(destination);
        Self { step: Step::Method, message: Vec::new(), request, credentials_message }
    }

    /// Takes received bytes, and appends to `out` what is sent next. Returns true when the proxy has connected; the
    /// bytes that are left come from the server.
    pub(super) fn receive(
        &mut self,
        input: &mut Input<'_>,
        out: &mut Vec<u8>,
    ) -> Result<bool, SocksFailure> {
        let bytes = input.take_all();
        let mut taken = 0;
        while taken < bytes.len() {
            self.message.push(bytes[taken]);
            taken += 1;
            if !self.is_complete()? {
                continue;
            }
            if matches!(self.step, Step::Reply) {
                input.put_back(&mut bytes[taken..]);
                return Ok(true);
            }
            self.answer(out)?;
            self.message.clear();
        }
        Ok(false)
    }

    /// Whether the message is complete. Fails as soon as its version, reply code or type of address is wrong.
    fn is_complete(&self) -> Result<bool, SocksFailure> {
        let message = self.message.as_slice();
        let version = match self.step {
            Step::Password => PASSWORD_VERSION,
            Step::Method | Step::Reply => VERSION,
        };
        match *message {
            [first, ..] if first != version => {
                Err(SocksFailure::Invalid(SocksError::Version(first)))
            }
            [_, code, ..] if matches!(self.step, Step::Reply) && code != 0 => {
                Err(SocksFailure::Refused(SocksReply::from(code)))
            }
            [_, _, ..] if !matches!(self.step, Step::Reply) => Ok(true),
            [_, _, _, kind, ref address @ ..] => {
                let len = match (kind, address) {
                    (V4, _) => 4,
                    (V6, _) => 16,
                    (NAME, [len, ..]) => 1 + usize::from(*len),
                    (NAME, []) => return Ok(false),
                    (other, _) => {
                        return Err(SocksFailure::Invalid(SocksError::AddressType(other)));
                    }
                };
                Ok(address.len() == len + 2) // and a port
            }
            _ => Ok(false),
        }
    }

    /// Answers a complete message that is not the last.
    fn answer(&mut self, out: &mut Vec<u8>) -> Result<(), SocksFailure> {
        let code = self.message.get(1).copied().unwrap_or_default();
        self.step = match (self.step, code) {
            (Step::Method, USER_AND_PASSWORD) if !self.credentials_message.is_empty() => {
                out.append(&mut self.credentials_message);
                Step::Password
            }
            (Step::Method, NO_METHOD) => return Err(SocksFailure::Authentication),
            (Step::Method, NO_AUTHENTICATION) | (Step::Password, 0) => {
                out.append(&mut self.request);
                Step::Reply
            }
            (Step::Method, other) => return Err(SocksFailure::Invalid(SocksError::Method(other))),
            (Step::Password | Step::Reply, _) => return Err(SocksFailure::Authentication),
        };
        Ok(())
    }
}

/// RFC 1929 §2. The lengths were checked when the credentials were set.
fn new_credentials_message((user, password): (&[u8], &[u8])) -> Vec<u8> {
    let mut message = vec![PASSWORD_VERSION];
    push_counted(user, &mut message);
    push_counted(password, &mut message);
    message
}

/// RFC 1928 §4.
fn new_request(destination: &Destination<'_>) -> Vec<u8> {
    let mut message = vec![VERSION, CONNECT, 0];
    let port = match *destination {
        Destination::Address(address) => {
            match address.ip() {
                IpAddr::V4(ip) => {
                    message.push(V4);
                    message.extend(ip.octets());
                }
                IpAddr::V6(ip) => {
                    message.push(V6);
                    message.extend(ip.octets());
                }
            }
            address.port()
        }
        Destination::Name(name, port) => {
            message.push(NAME);
            push_counted(name.as_bytes(), &mut message);
            port
        }
    };
    message.extend(port.to_be_bytes());
    message
}

/// Appends the length and the bytes, of which there are at most 255.
fn push_counted(bytes: &[u8], message: &mut Vec<u8>) {
    let bytes = &bytes[..bytes.len().min(MAX_NAME)];
    message.push(bytes.len() as u8);
    message.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    const GREETING: &[u8] = b"\x05\x01\x00";
    const NAMED: Destination<'_> = Destination::Name("chat.example", 443);
    const REQUEST: &[u8] = b"\x05\x01\x00\x03\x0cchat.example\x01\xbb";

    /// Passes the answers in parts of `size` bytes. Returns the result, what was sent, and what was left.
    fn run(
        destination: &Destination<'_>,
        credentials: Option<(&[u8], &[u8])>,
        answers: &[u8],
        size: usize,
    ) -> (Result<bool, SocksFailure>, Vec<u8>, Vec<u8>) {
        let mut sent = Vec::new();
        let mut socks = Socks5::new(destination, credentials, &mut sent);
        let (mut result, mut left) = (Ok(false), Vec::new());
        for part in answers.chunks(size) {
            if result != Ok(false) {
                left.extend_from_slice(part);
                continue;
            }
            let mut part = part.to_vec();
            let mut input = Input::new(&mut part);
            result = socks.receive(&mut input, &mut sent);
            left.extend_from_slice(input.rest());
        }
        (result, sent, left)
    }

    #[track_caller]
    fn connected(destination: &Destination<'_>, answers: &[u8], sent: &[&[u8]], behind: &[u8]) {
        for size in 1..=answers.len() {
            let (result, all, left) = run(destination, None, answers, size);
            assert_eq!((result, left.as_slice()), (Ok(true), behind), "by {size}");
            assert_eq!(all, sent.concat());
        }
    }

    #[track_caller]
    fn failed(credentials: Option<(&[u8], &[u8])>, answers: &[u8], failure: SocksFailure) {
        for size in 1..=answers.len() {
            assert_eq!(
                run(&NAMED, credentials, answers, size).0.as_ref(),
                Err(&failure),
                "{answers:?}"
            );
        }
    }

    #[test]
    fn rfc1928_names_and_addresses_without_authentication() {
        let ok = b"\x05\x00\x05\x00\x00\x01\x7f\x00\x00\x01\x1f\x90of the server";
        connected(&NAMED, ok, &[GREETING, REQUEST], b"of the server");
        let v4 = Destination::Address("192.0.2.1:80".parse().unwrap());
        connected(&v4, &ok[..12], &[GREETING, b"\x05\x01\x00\x01\xc0\x00\x02\x01\x00\x50"], b"");
        let v6 = Destination::Address("[2001:db8::1]:80".parse().unwrap());
        let request = b"\x05\x01\x00\x04\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01\x00\x50";
        connected(&v6, &ok[..12], &[GREETING, request], b"");
        // The address of the reply can be of any type.
        let named = b"\x05\x00\x05\x00\x00\x03\x03a.b\x00\x00x";
        connected(&NAMED, named, &[GREETING, REQUEST], b"x");
        let empty = b"\x05\x00\x05\x00\x00\x03\x00\x00\x00x";
        connected(&NAMED, empty, &[GREETING, REQUEST], b"x");
        let v6 = [b"\x05\x00\x05\x00\x00\x04".as_slice(), &[0; 18], b"x"].concat();
        connected(&NAMED, &v6, &[GREETING, REQUEST], b"x");
    }

    #[test]
    fn rfc1929_user_and_password_are_sent_if_the_proxy_asks_for_them() {
        let both: Option<(&[u8], &[u8])> = Some((b"alice", b"secret"));
        let answers = b"\x05\x02\x01\x00\x05\x00\x00\x01\0\0\0\0\0\0";
        let (result, sent, _) = run(&NAMED, both, answers, 1);
        assert_eq!(result, Ok(true));
        assert_eq!(sent, [b"\x05\x02\x00\x02\x01\x05alice\x06secret", REQUEST].concat());
        let answers = b"\x05\x00\x05\x00\x00\x01\0\0\0\0\0\0";
        let (result, sent, _) = run(&NAMED, both, answers, 99);
        assert_eq!(result, Ok(true));
        assert_eq!(sent, [b"\x05\x02\x00\x02", REQUEST].concat());
        failed(both, b"\x05\x02\x01\x01", SocksFailure::Authentication);
        failed(both, b"\x05\xff", SocksFailure::Authentication);
        failed(None, b"\x05\xff", SocksFailure::Authentication);
    }

    #[test]
    fn rfc1928_6_every_reply() {
        for code in 1..=255 {
            let answers = [5, 0, 5, code];
            failed(None, &answers, SocksFailure::Refused(SocksReply::from(code)));
        }
        assert_eq!(SocksReply::from(5), SocksReply::ConnectionRefused);
        assert_eq!(SocksReply::from(9), SocksReply::Other(9));
    }

    #[test]
    fn what_is_not_socks5_is_an_error_at_its_first_wrong_byte() {
        let invalid = SocksFailure::Invalid;
        failed(None, b"HTTP/1.1 400", invalid(SocksError::Version(b'H')));
        failed(None, b"\x04", invalid(SocksError::Version(4)));
        failed(None, b"\x05\x02", invalid(SocksError::Method(2)));
        failed(None, b"\x05\x01", invalid(SocksError::Method(1)));
        failed(None, b"\x05\x00\x00", invalid(SocksError::Version(0)));
        failed(None, b"\x05\x00\x05\x00\x00\x02", invalid(SocksError::AddressType(2)));
        failed(Some((b"a", b"")), b"\x05\x02\x05", invalid(SocksError::Version(5)));
        failed(Some((b"a", b"")), b"\x05\x80", invalid(SocksError::Method(0x80)));
    }
}
