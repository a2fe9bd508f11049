//! The answers of SOCKS5 proxies that do not connect.

use std::fmt;

/// What a SOCKS5 proxy has answered to a request that it did not fulfil (RFC 1928 §6).
///
/// See [`ConnectError::SocksRefused`](super::super::ConnectError::SocksRefused).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SocksReply {
    /// 1: general failure.
    GeneralFailure,
    /// 2: the rules of the proxy do not allow the connection.
    NotAllowed,
    /// 3: the network is unreachable.
    NetworkUnreachable,
    /// 4: the host is unreachable, or has no address.
    HostUnreachable,
    /// 5: the host refused the connection.
    ConnectionRefused,
    /// 6: the TTL of packets to the host has expired.
    TtlExpired,
    /// 7: the proxy does not connect for clients.
    CommandNotSupported,
    /// 8: the proxy does not support this type of address: try `socks5` in place of `socks5h`, or an IPv4 address.
    AddressTypeNotSupported,
    /// Another number than those of RFC 1928.
    Other(u8),
}

/// Why the answer of a proxy is not SOCKS5.
///
/// See [`ConnectError::ProxyAnswer`](super::super::ConnectError::ProxyAnswer).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SocksError {
    /// A message begins with this byte in place of the version.
    #[error("it begins with the byte {0:#04x}: is it a SOCKS5 proxy?")]
    Version(u8),
    /// The proxy has chosen a method of authentication that was not offered.
    #[error("it has chosen the authentication method {0:#04x}, which was not offered")]
    Method(u8),
    /// The reply has an address of this type, which RFC 1928 does not define.
    #[error("its reply has an address of type {0:#04x}")]
    AddressType(u8),
}

impl From<u8> for SocksReply {
    fn from(code: u8) -> Self {
        match code {
            1 => Self::GeneralFailure,
            2 => Self::NotAllowed,
            3 => Self::NetworkUnreachable,
            4 => Self::HostUnreachable,
            5 => Self::ConnectionRefused,
            6 => Self::TtlExpired,
            7 => Self::CommandNotSupported,
            8 => Self::AddressTypeNotSupported,
            other => Self::Other(other),
        }
    }
}

impl fmt::Display for SocksReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::GeneralFailure => "general failure",
            Self::NotAllowed => "its rules do not allow that",
            Self::NetworkUnreachable => "the network is unreachable",
            Self::HostUnreachable => "the host is unreachable or has no address",
            Self::ConnectionRefused => "the host refused the connection",
            Self::TtlExpired => "the TTL expired",
            Self::CommandNotSupported => "it does not connect for clients",
            Self::AddressTypeNotSupported => {
                "it does not support this type of address: try socks5 in place of socks5h, or an IPv4 address"
            }
            Self::Other(code) => return write!(f, "reply {code}"),
        })
    }
}
