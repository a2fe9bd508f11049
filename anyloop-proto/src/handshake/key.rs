//! The key of a handshake, and the value with which the server proves its receipt (RFC 6455 §4.1, §4.2.2).

use alloc::string::String;

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::general_purpose::{self, GeneralPurpose, GeneralPurposeConfig};
use sha1::{Digest, Sha1};

use crate::random::Random;

/// RFC 6455 §1.3.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Some clients leave the four unused bits of the last character nonzero. Accepting them is
/// harmless, because the accept value is computed from the characters.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true),
);

/// A new key.
pub(super) fn generate(random: &dyn Random) -> String {
    let mut nonce = [0; 16];
    random.fill(&mut nonce);
    base64(&nonce)
}

/// Whether the key is the base64 of sixteen bytes.
pub(super) fn is_valid(key: &[u8]) -> bool {
    // The key has 24 characters including padding. The decoder needs space for the bytes that 24 characters without
    // padding encode.
    let mut nonce = [0; 18];
    LENIENT.decode_slice(key, &mut nonce) == Ok(16)
}

/// A value of Sec-WebSocket-Accept: the base64 of 20 bytes.
pub(super) type AcceptValue = [u8; 28];

/// The value of Sec-WebSocket-Accept for this key.
pub(super) fn accept_value(key: &[u8]) -> AcceptValue {
    let hash = Sha1::new().chain_update(key).chain_update(GUID).finalize();
    let mut accept = [0; 28];
    // The buffer has the size of the result.
    let _ = general_purpose::STANDARD.encode_slice(hash, &mut accept);
    accept
}

/// Base64, padded.
pub(super) fn base64(bytes: &[u8]) -> String {
    general_purpose::STANDARD.encode(bytes)
}
