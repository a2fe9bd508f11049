//! Hosts that are IP addresses.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// The address that `host` is; `None` if it is a name, or has a zone (`fe80::1%eth0`): both need the resolver. IPv6 may
/// be in brackets, as in a URI.
pub(super) fn literal_address(host: &str, port: u16) -> Option<SocketAddr> {
    let ip = match bracketed(host) {
        Some(inner) => inner.parse().map(IpAddr::V6),
        None => host.parse(),
    };
    ip.ok().map(|ip| SocketAddr::new(ip, port))
}

/// The host as the resolver takes it: an IPv6 address with a zone loses its brackets, other hosts stay as they are.
pub(super) fn unbracket_zoned(host: &str) -> &str {
    let zoned = bracketed(host).and_then(|inner| Some((inner, inner.split_once('%')?.0)));
    match zoned {
        Some((inner, ip)) if ip.parse::<Ipv6Addr>().is_ok() => inner,
        _ => host,
    }
}

fn bracketed(host: &str) -> Option<&str> {
    host.strip_prefix('[')?.strip_suffix(']')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals() {
        let v4 = SocketAddr::from(([192, 0, 2, 1], 80));
        let v6 = SocketAddr::from((Ipv6Addr::LOCALHOST, 80));
        assert_eq!(literal_address("192.0.2.1", 80), Some(v4));
        assert_eq!(literal_address("::1", 80), Some(v6));
        assert_eq!(literal_address("[::1]", 80), Some(v6));
        let names =
            ["", "a", "localhost", "[192.0.2.1]", "[::1", "::1]", "[[::1]]", "[]", "192.0.2"];
        let others = ["192.0.2.256", "192.0.2.01", "192.0.2.1:80", "[::1]:80", " ::1"];
        let zones = ["fe80::1%lo", "[fe80::1%lo]", "fe80::1%1"];
        for host in names.into_iter().chain(others).chain(zones) {
            assert_eq!(literal_address(host, 80), None, "{host}");
        }
    }

    #[test]
    fn brackets_around_a_zone_are_removed() {
        assert_eq!(unbracket_zoned("[fe80::1%lo]"), "fe80::1%lo");
        for host in ["fe80::1%lo", "[a]", "[a%b]", "a", "[", "[]", ""] {
            assert_eq!(unbracket_zoned(host), host);
        }
    }
}
