//! The input of a scenario, and its division into reads.

use anyloop_proto::frame::{FrameHeader, Opcode, mask};

/// A stream of equal messages of a client, masked.
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) opcode: Opcode,
    /// The payload size of a message, in bytes.
    pub(crate) payload: usize,
    /// The number of messages in a batch, at least one.
    pub(crate) per_read: usize,
    /// The maximum size of a read, in bytes.
    pub(crate) read_size: usize,
}

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario::new("64B-1", Opcode::Binary, 64, 1),
    Scenario::new("64B-234", Opcode::Binary, 64, 234),
    Scenario::new("1KiB-15", Opcode::Binary, 1024, 15),
    Scenario::new("16KiB-1", Opcode::Binary, 16 << 10, 1),
    Scenario { read_size: 64 << 10, ..Scenario::new("1MiB-64KiB", Opcode::Binary, 1 << 20, 1) },
    Scenario::new("text-64B-234", Opcode::Text, 64, 234),
    Scenario::new("text-16KiB-1", Opcode::Text, 16 << 10, 1),
];

impl Scenario {
    const fn new(name: &'static str, opcode: Opcode, payload: usize, per_read: usize) -> Self {
        Self { name, opcode, payload, per_read, read_size: usize::MAX }
    }

    /// A *read* here is a batch of complete messages, even if it takes several reads of the socket.
    pub(crate) fn messages_per_read(&self) -> f64 {
        self.per_read as f64
    }

    /// The bytes of one batch.
    pub(crate) fn wire(&self) -> Vec<u8> {
        let mut wire = Vec::new();
        for n in 0..self.per_read {
            let key = [0x9a, 0x3c, n as u8, 0x51];
            let mut header = FrameHeader::new(self.opcode, true, self.payload as u64);
            header.mask = Some(key);
            header.encode(&mut wire);
            let start = wire.len();
            wire.extend((0..self.payload).map(|i| b' ' + (i % 90) as u8));
            mask(&mut wire[start..], key);
        }
        wire
    }
}

/// A socket in memory: a read copies the next bytes of the scenario, and a write only counts its bytes.
pub(crate) struct Socket {
    wire: Vec<u8>,
    read_size: usize,
    at: usize,
    pub(crate) written: usize,
}

impl Socket {
    pub(crate) fn new(scenario: &Scenario) -> Self {
        Self { wire: scenario.wire(), read_size: scenario.read_size, at: 0, written: 0 }
    }

    /// Copies the next bytes of the batch. Returns 0 once at its end, and then the batch starts again.
    #[inline]
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> usize {
        let next = self.next(buffer.len());
        buffer[..next.len()].copy_from_slice(next);
        next.len()
    }

    /// The next bytes of the batch, at most `most`, for callers that copy them themselves.
    #[inline]
    pub(crate) fn next(&mut self, most: usize) -> &[u8] {
        let rest = &self.wire[self.at..];
        let n = rest.len().min(most).min(self.read_size);
        self.at = if n == 0 { 0 } else { self.at + n };
        &rest[..n]
    }

    #[inline]
    pub(crate) fn write(&mut self, bytes: &[u8]) -> usize {
        self.written += std::hint::black_box(bytes).len();
        bytes.len()
    }
}
