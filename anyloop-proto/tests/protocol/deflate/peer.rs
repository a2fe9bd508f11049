//! A peer that compresses by another library than the one under test.

use miniz_oxide::deflate::core::{CompressorOxide, create_comp_flags_from_zip_params};
use miniz_oxide::deflate::stream::deflate;
use miniz_oxide::inflate::stream::{InflateState, inflate};
use miniz_oxide::{DataFormat, MZFlush, MZStatus};

/// The end that a sender removes (RFC 7692 §7.2.1).
pub(super) const MARKER: [u8; 4] = [0, 0, 0xff, 0xff];

/// Both directions of one connection, with context takeover and windows of 32 KiB.
pub(super) struct Peer {
    compressor: Box<CompressorOxide>,
    decompressor: Box<InflateState>,
}

impl Peer {
    pub(super) fn new() -> Self {
        let flags = create_comp_flags_from_zip_params(6, -15, 0);
        Self {
            compressor: Box::new(CompressorOxide::new(flags)),
            decompressor: InflateState::new_boxed(DataFormat::Raw),
        }
    }

    /// Compresses a message.
    pub(super) fn deflate(&mut self, payload: &[u8]) -> Vec<u8> {
        let mut out = self.flush(payload, MZFlush::Sync);
        assert!(out.ends_with(&MARKER));
        out.truncate(out.len() - MARKER.len());
        out
    }

    /// Compresses a message in a stream that ends with a final block. The next one begins a new stream.
    pub(super) fn deflate_final(&mut self, payload: &[u8]) -> Vec<u8> {
        let out = self.flush(payload, MZFlush::Finish);
        self.compressor.reset();
        out
    }

    fn flush(&mut self, payload: &[u8], flush: MZFlush) -> Vec<u8> {
        let mut out = vec![0; payload.len() * 2 + 1000];
        let result = deflate(&mut self.compressor, payload, &mut out, flush);
        assert!(result.status.is_ok() && result.bytes_consumed == payload.len());
        out.truncate(result.bytes_written);
        out
    }

    /// Decompresses a message, as the next part of one stream.
    pub(super) fn inflate(&mut self, payload: &[u8]) -> Vec<u8> {
        let input = [payload, &MARKER].concat();
        let (mut rest, mut out) = (&input[..], Vec::new());
        loop {
            let mut room = vec![0; 64 * 1024];
            let result = inflate(&mut self.decompressor, rest, &mut room, MZFlush::None);
            rest = &rest[result.bytes_consumed..];
            out.extend_from_slice(&room[..result.bytes_written]);
            match result.status {
                Ok(MZStatus::Ok) if result.bytes_written == room.len() || !rest.is_empty() => {}
                Ok(MZStatus::Ok) => return out,
                Err(miniz_oxide::MZError::Buf) if rest.is_empty() => return out,
                status => panic!("{status:?} after {} bytes: {payload:x?}", out.len()),
            }
        }
    }
}

/// Decompresses a message that refers to no other one.
pub(super) fn inflate_alone(payload: &[u8]) -> Vec<u8> {
    Peer::new().inflate(payload)
}
