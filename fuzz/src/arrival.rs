//! Divides bytes into reads of any size.

use arbitrary::Arbitrary;

/// The sizes of three reads, which repeat. Each is a code of one byte.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub struct Cuts([u8; 3]);

impl Cuts {
    /// `bytes` in pieces of these sizes. No piece is empty.
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

/// Codes below 192: 1 to 192 bytes. The others: multiples of 256 bytes, up to 16 KiB.
fn size(code: u8) -> usize {
    match code {
        0..192 => usize::from(code) + 1,
        _ => usize::from(code - 191) * 256,
    }
}
