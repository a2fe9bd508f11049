//! The parameters of permessage-deflate (RFC 7692 §7.1).

use super::MAX_WINDOW_BITS;
use crate::handshake::Params;

const SERVER_NO_TAKEOVER: &str = "server_no_context_takeover";
const CLIENT_NO_TAKEOVER: &str = "client_no_context_takeover";
const SERVER_WINDOW_BITS: &str = "server_max_window_bits";
const CLIENT_WINDOW_BITS: &str = "client_max_window_bits";

/// An offer or an answer.
#[derive(Clone, Copy, Default)]
pub(super) struct DeflateParams {
    pub(super) server_no_takeover: bool,
    pub(super) client_no_takeover: bool,
    pub(super) server_window_bits: Option<u8>,
    /// `Some(None)`: the parameter is present without a value. Valid in offers only, where it allows the server to ask
    /// for any window.
    pub(super) client_window_bits: Option<Option<u8>>,
}

impl DeflateParams {
    /// `None` if a parameter is unknown or repeated, has a value that it must not have, or lacks one (RFC 7692 §7.1: an
    /// offer with such a parameter is declined, an answer fails the connection).
    pub(super) fn parse(params: &Params) -> Option<Self> {
        let mut parsed = Self::default();
        for (name, value) in params.iter() {
            match (name, value) {
                (SERVER_NO_TAKEOVER, None) if !parsed.server_no_takeover => {
                    parsed.server_no_takeover = true;
                }
                (CLIENT_NO_TAKEOVER, None) if !parsed.client_no_takeover => {
                    parsed.client_no_takeover = true;
                }
                (SERVER_WINDOW_BITS, Some(bits)) if parsed.server_window_bits.is_none() => {
                    parsed.server_window_bits = Some(parse_window_bits(bits)?);
                }
                (CLIENT_WINDOW_BITS, None) if parsed.client_window_bits.is_none() => {
                    parsed.client_window_bits = Some(None);
                }
                (CLIENT_WINDOW_BITS, Some(bits)) if parsed.client_window_bits.is_none() => {
                    parsed.client_window_bits = Some(Some(parse_window_bits(bits)?));
                }
                _ => return None,
            }
        }
        Some(parsed)
    }

    pub(super) fn to_params(self) -> Params {
        let mut params = Params::new();
        if self.server_no_takeover {
            params = params.with(SERVER_NO_TAKEOVER);
        }
        if self.client_no_takeover {
            params = params.with(CLIENT_NO_TAKEOVER);
        }
        if let Some(bits) = self.server_window_bits {
            params = params.with_value(SERVER_WINDOW_BITS, bits);
        }
        match self.client_window_bits {
            Some(Some(bits)) => params.with_value(CLIENT_WINDOW_BITS, bits),
            Some(None) => params.with(CLIENT_WINDOW_BITS),
            None => params,
        }
    }
}

/// RFC 7692 §7.1.2.1: a decimal integer from 8 to 15 without leading zeros.
fn parse_window_bits(value: &str) -> Option<u8> {
    let digits = value.bytes().all(|byte| byte.is_ascii_digit()) && !value.starts_with('0');
    let bits = value.parse().ok().filter(|_| digits)?;
    (8..=MAX_WINDOW_BITS).contains(&bits).then_some(bits)
}
