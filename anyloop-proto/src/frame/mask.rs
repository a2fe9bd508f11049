//! Masking (RFC 6455 §5.3).

const BLOCK: usize = 256;
const WORD: usize = 8;

/// Masks or unmasks `payload` in place; the transformation is its own inverse.
///
/// `key` applies to the first byte of `payload`. For the part of a payload that begins after `n`
/// bytes, the key is [`rotate_key`]`(key, n)`.
///
/// ```
/// use anyloop_proto::frame::{mask, rotate_key};
///
/// let key = [0x37, 0xfa, 0x21, 0x3d];
/// let mut payload = *b"\x7f\x9f\x4d\x51\x58"; // RFC 6455 §5.7
/// let (first, second) = payload.split_at_mut(3);
/// mask(first, key);
/// mask(second, rotate_key(key, 3));
/// assert_eq!(&payload, b"Hello");
/// ```
#[inline]
pub fn mask(payload: &mut [u8], key: [u8; 4]) {
    let key = u64::from(u32::from_ne_bytes(key));
    let word = key << 32 | key;

    let mut blocks = payload.chunks_exact_mut(BLOCK);
    for block in &mut blocks {
        xor_first::<BLOCK>(block, word);
    }
    // The remainder of a block, in halves.
    let rest = xor_first::<128>(blocks.into_remainder(), word);
    let rest = xor_first::<64>(rest, word);
    let rest = xor_first::<32>(rest, word);
    let rest = xor_first::<16>(rest, word);
    let rest = xor_first::<8>(rest, word);
    for (byte, key) in rest.iter_mut().zip(word.to_ne_bytes()) {
        *byte ^= key;
    }
}

/// The same, inlined into its caller, for payloads that are likely to be small.
#[inline(always)]
pub(crate) fn mask_small(payload: &mut [u8], key: [u8; 4]) {
    if payload.len() >= BLOCK {
        return mask(payload, key);
    }
    let key = u64::from(u32::from_ne_bytes(key));
    let word = key << 32 | key;
    let rest = xor_first::<128>(payload, word);
    let rest = xor_first::<64>(rest, word);
    if rest.is_empty() {
        return;
    }
    let rest = xor_first::<32>(rest, word);
    let rest = xor_first::<16>(rest, word);
    let rest = xor_first::<8>(rest, word);
    for (byte, key) in rest.iter_mut().zip(word.to_ne_bytes()) {
        *byte ^= key;
    }
}

/// Masks the first `N` bytes if there are that many, and returns the rest.
#[inline(always)]
fn xor_first<const N: usize>(payload: &mut [u8], word: u64) -> &mut [u8] {
    if payload.len() < N {
        return payload;
    }
    let (first, rest) = payload.split_at_mut(N);
    if let Some(first) = first.first_chunk_mut::<N>() {
        xor(first, word);
    }
    rest
}

/// Masks one block. The compiler makes vector instructions of it because the block is loaded,
/// changed and stored as one value; a loop over words stays scalar, at a fifth of the speed.
#[inline(always)]
fn xor<const N: usize>(block: &mut [u8; N], word: u64) {
    let mut words = [0u64; BLOCK / WORD];
    for (value, bytes) in words.iter_mut().zip(block.chunks_exact(WORD)) {
        let mut loaded = [0; WORD];
        loaded.copy_from_slice(bytes);
        *value = u64::from_ne_bytes(loaded) ^ word;
    }
    for (bytes, value) in block.chunks_exact_mut(WORD).zip(words) {
        bytes.copy_from_slice(&value.to_ne_bytes());
    }
}

/// Rotates a masking key, so that it applies to a payload from byte `offset` on.
#[inline]
#[must_use]
pub const fn rotate_key(key: [u8; 4], offset: usize) -> [u8; 4] {
    let shift = (offset as u32 % 4) * 8;
    u32::from_le_bytes(key).rotate_right(shift).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    const KEY: [u8; 4] = [0x11, 0x22, 0x44, 0x88];

    fn masked_by_definition(payload: &[u8]) -> Vec<u8> {
        payload.iter().enumerate().map(|(i, byte)| byte ^ KEY[i % 4]).collect()
    }

    #[test]
    fn rfc6455_5_3_octet_i_is_masked_with_key_octet_i_modulo_4() {
        let payload: Vec<u8> = (0..300u32).map(|i| (i * 7) as u8).collect();
        for start in 0..9 {
            for end in start..payload.len() {
                let mut masked = payload[start..end].to_vec();
                mask(&mut masked, KEY);
                assert_eq!(masked, masked_by_definition(&payload[start..end]), "{start}..{end}");
                mask_small(&mut masked, KEY);
                assert_eq!(masked, payload[start..end], "{start}..{end}");
            }
        }
    }

    #[test]
    fn rfc6455_5_3_a_payload_in_two_parts_is_masked_as_one() {
        let payload: Vec<u8> = (0..200).collect();
        for cut in 0..payload.len() {
            let mut masked = payload.clone();
            let (first, second) = masked.split_at_mut(cut);
            mask(first, KEY);
            mask(second, rotate_key(KEY, cut));
            assert_eq!(masked, masked_by_definition(&payload), "cut at {cut}");
        }
    }
}
