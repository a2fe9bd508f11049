//! The addresses that a server listens on.

use std::borrow::Cow;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::str::FromStr;

use anyloop::net::{Error, Listening};
use anyloop::tls::ServerTls;

use super::route::RouteServer;
use crate::error::{CliError, chain};
use crate::stdio;

/// A TCP address to listen on, as the option gives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Listen {
    /// A port on all addresses.
    Port(u16),
    /// One address.
    Address(SocketAddr),
    /// The addresses of a host; or an IPv6 address with the name of its zone, as in `fe80::1%eth0`.
    Host(String, u16),
}

impl Default for Listen {
    fn default() -> Self {
        Self::Address((Ipv4Addr::LOCALHOST, 9002).into())
    }
}

impl FromStr for Listen {
    type Err = Cow<'static, str>;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.contains("://") {
            return Err("this is a URL; an address is written as in 127.0.0.1:9002".into());
        }
        if lacks_port(text) {
            return Err(format!("the port is missing: {}:9002", text.trim_end_matches(':')).into());
        }
        let (host, port) = text.rsplit_once(':').unwrap_or(("", text));
        // A sign is not a digit, and `parse` would take it.
        let digits = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
        let port = port.parse().ok().filter(|_| digits);
        let port = port.ok_or("it does not end in a port, a number from 0 to 65535")?;
        if host.is_empty() {
            return Ok(Self::Port(port));
        }
        if let Ok(address) = text.parse() {
            return Ok(Self::Address(address));
        }
        match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
            Some(host) if is_zoned(host) => Ok(Self::Host(host.into(), port)),
            None if !host.contains([':', '[', ']', '%']) => Ok(Self::Host(host.into(), port)),
            _ => {
                let why = "the host is not an IPv6 address in brackets, as in [::1]:9002 or [fe80::1%eth0]:9002";
                Err(why.into())
            }
        }
    }
}

/// Whether the text is a name, or an IPv4 address, or an IPv6 address in brackets, and nothing else.
fn lacks_port(text: &str) -> bool {
    let text = text.strip_suffix(':').unwrap_or(text);
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    let is_host = match text.strip_prefix('[') {
        Some(rest) => rest.ends_with(']'),
        None => text.starts_with(char::is_alphanumeric) && !text.contains([':', '/']),
    };
    is_host && !is_number
}

impl Listen {
    /// The host, without brackets; `None` for all addresses.
    pub(super) fn host(&self) -> Option<String> {
        match self {
            Self::Port(_) => None,
            Self::Address(address) => Some(address.ip().to_string()),
            Self::Host(host, _) => Some(host.clone()),
        }
    }
}

/// A server, and the TLS that its sockets speak, if any.
#[derive(Clone, Copy)]
pub(super) struct Listener<'s> {
    pub(super) server: &'s RouteServer,
    pub(super) tls: Option<&'s ServerTls>,
}

/// Calls the method of the server that listens, over TLS if there is any.
macro_rules! listen {
    ($listener:expr, $method:ident($($argument:expr),*)) => {
        match $listener.tls {
            Some(tls) => $listener.server.over_tls(tls).$method($($argument),*),
            None => $listener.server.$method($($argument),*),
        }
    };
}

impl Listener<'_> {
    #[cfg(unix)]
    pub(super) fn listen_unix(self, path: &std::path::Path) -> Result<(), Error> {
        listen!(self, listen_unix(path))
    }

    fn listen_each(self, host: &str, port: u16) -> Result<Listening, Error> {
        listen!(self, listen_each((host, port)))
    }
}

/// Whether the host is an IPv6 address with a zone (RFC 4007 §11).
fn is_zoned(host: &str) -> bool {
    host.split_once('%').is_some_and(|(address, zone)| {
        address.parse::<Ipv6Addr>().is_ok() && !zone.is_empty() && !zone.contains(['%', '/'])
    })
}

/// Makes the server listen on all of these.
pub(super) fn listen(all: &[Listen], listener: Listener<'_>) -> Result<(), CliError> {
    let listen = |listen: &Listen| match listen {
        Listen::Port(port) => listen_port(*port, all, listener),
        Listen::Address(address) => listen!(listener, listen(*address)).map(|_| ()),
        Listen::Host(host, port) => listen_host(host, *port, listener),
    };
    all.iter().try_for_each(listen).map_err(|error| failed(&error))
}

/// Describes why the server does not listen, and what to do.
pub(super) fn failed(error: &Error) -> CliError {
    let advice = match error {
        Error::Listen { address, source } => {
            let is_unix = address.starts_with("unix:");
            match source.kind() {
                ErrorKind::AddrInUse if is_unix => {
                    "; another program has it: end that, or listen elsewhere by --unix"
                }
                ErrorKind::AddrInUse => {
                    "; another program has it: end that, or listen elsewhere by --listen"
                }
                ErrorKind::AddrNotAvailable => "; this machine has no such address",
                ErrorKind::PermissionDenied if is_unix => {
                    "; may this user write to that directory?"
                }
                ErrorKind::PermissionDenied => {
                    "; ports below 1024 are for root: listen elsewhere by --listen"
                }
                ErrorKind::NotFound => "; is there such a directory?",
                // The path of a Unix socket has about 100 bytes at most.
                ErrorKind::InvalidInput if is_unix => "; choose a shorter path",
                _ => "",
            }
        }
        Error::Resolve { .. } => "; is the name right?",
        _ => "",
    };
    CliError::failed(chain(error) + advice)
}

/// Listens on a port of all addresses: of IPv6 alone if 0.0.0.0 is listed with the same port.
fn listen_port(port: u16, all: &[Listen], listener: Listener<'_>) -> Result<(), Error> {
    let all_of_v4 = Listen::Address((Ipv4Addr::UNSPECIFIED, port).into());
    if port == 0 || !all.contains(&all_of_v4) {
        return listen!(listener, listen_port(port)).map(|_| ());
    }
    let address = SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, port, 0, 0);
    match listen!(listener, listen_only_v6(address)) {
        Err(error) if is_unavailable(&error) => Ok(()), // the machine has IPv4 only
        listening => listening.map(|_| ()),
    }
}

/// Listens on the addresses of a host, and reports those that this machine does not have: /etc/hosts
/// may name ::1 on a machine without IPv6.
fn listen_host(host: &str, port: u16, listener: Listener<'_>) -> Result<(), Error> {
    let listening = listener.listen_each(host, port)?;
    for (address, error) in listening.skipped {
        stdio::report(&format!("{host}:{port}: not listening on {address}: {error}"));
    }
    Ok(())
}

/// Whether the error says that this machine does not have the address, or its family.
fn is_unavailable(error: &Error) -> bool {
    let Error::Listen { source, .. } = error else { return false };
    #[cfg(unix)]
    if source.raw_os_error() == Some(rustix::io::Errno::AFNOSUPPORT.raw_os_error()) {
        return true;
    }
    matches!(source.kind(), ErrorKind::AddrNotAvailable | ErrorKind::Unsupported)
}

/// Makes the server listen on the sockets that this process has inherited by systemd's socket
/// activation protocol.
#[cfg(unix)]
pub(super) fn inherit(listener: Listener<'_>) -> Result<(), CliError> {
    let mut inherited = listenfd::ListenFd::from_env();
    for index in 0..inherited.len() {
        if let Ok(Some(socket)) = inherited.take_tcp_listener(index) {
            listen!(listener, listen_on(socket))?;
            continue;
        }
        match inherited.take_unix_listener(index) {
            Ok(Some(socket)) => _ = listen!(listener, listen_on_unix(socket))?,
            Ok(None) => {}
            Err(_) => {
                let fd = 3 + index; // SD_LISTEN_FDS_START
                let why =
                    format!("cannot listen on inherited descriptor {fd}: not a stream socket");
                return Err(CliError::failed(why));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_parsed_as_a_port_an_address_or_a_host() {
        let link_local = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
        let zoned = SocketAddr::V6(SocketAddrV6::new(link_local, 9002, 0, 2));
        for (text, expected) in [
            ("9002", Listen::Port(9002)),
            (":9002", Listen::Port(9002)),
            ("127.0.0.1:0", Listen::Address((Ipv4Addr::LOCALHOST, 0).into())),
            ("[::1]:9002", Listen::Address((Ipv6Addr::LOCALHOST, 9002).into())),
            ("localhost:9002", Listen::Host("localhost".into(), 9002)),
            ("[fe80::1%eth0]:9002", Listen::Host("fe80::1%eth0".into(), 9002)),
            ("[fe80::1%2]:9002", Listen::Address(zoned)),
        ] {
            assert_eq!(text.parse(), Ok(expected), "{text}");
        }
        let wrong = [
            "ws://127.0.0.1:9002",
            "",
            ":",
            "localhost",
            "localhost:",
            "a:65536",
            "a:+1",
            "::1:9002",
            "[::1]",
            "a:b:1",
        ];
        let zones = [
            "fe80::1%eth0:1",
            "[fe80::1%]:1",
            "[%eth0]:1",
            "[a%eth0]:1",
            "a%eth0:1",
            "[::1%a%b]:1",
        ];
        for text in wrong.into_iter().chain(zones) {
            assert!(text.parse::<Listen>().is_err(), "{text}");
        }
    }
}
