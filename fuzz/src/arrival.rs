//! Delivers bytes in pieces of any size.

use arbitrary::Arbitrary;

/// Sizes of the pieces in which bytes arrive, over and over. Three bytes of the fuzzer's.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub struct Cuts([u8; 3]);

impl Cuts {
    /// `bytes` in pieces, none of them empty.
    pub fn pieces(self, bytes: &[u8]) -> Vec<&[u8]> {
        let mut pieces = Vec::new();
        let mut rest = bytes;
        for size in self.0.iter().cycle().map(|&code| size(code)) {
            if rest.is_empty() {
                break;
            }
            let (piece, next) = rest.split_at(size.min(rest.len()));
            pieces.push(piece);
            rest = next;
        }
        pieces
    }
}

/// From 1 to 192 bytes one by one, then up to some 16 KiB.
fn size(code: u8) -> usize {
    match code {
        0..192 => usize::from(code) + 1,
        _ => usize::from(code - 191) * 256,
    }
}
