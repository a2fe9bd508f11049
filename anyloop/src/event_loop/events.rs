//! The events of sources, and the tokens that identify sources.

use core::ops::{BitOr, BitOrAssign};

/// Identifies a source: the index of its slot, and the generation of the slot. The generation counts the earlier uses
/// of the slot, and wraps around.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) index: u32,
    pub(crate) generation: u16,
}

impl Token {
    /// The token of no source.
    pub(super) const NONE: Self = Self { index: u32::MAX, generation: 0 };

    /// Where `usize` has 32 bits, a loop has at most a million sources.
    const INDEX_BITS: u32 = if usize::BITS >= 64 { 32 } else { 20 };

    /// Every index is below this.
    pub(super) const INDICES: u64 = (1 << Self::INDEX_BITS) - 1;

    /// Every generation is below this.
    const GENERATIONS: u16 = if usize::BITS >= 64 { u16::MAX } else { 0xfff };

    /// The generation after this one.
    pub(super) const fn next_generation(generation: u16) -> u16 {
        (generation + 1) % Self::GENERATIONS
    }

    /// The token of a source as one number, which is never `usize::MAX`.
    #[cfg_attr(loom, expect(dead_code, reason = "unused by the loom reactor"))]
    pub(crate) const fn number(self) -> usize {
        (self.generation as usize) << Self::INDEX_BITS | self.index as usize
    }

    /// The token that has this [number](Self::number).
    #[cfg_attr(loom, expect(dead_code, reason = "unused by the loom reactor"))]
    pub(crate) const fn from_number(number: usize) -> Self {
        let index = number & Self::INDICES as usize;
        Self { index: index as u32, generation: (number >> Self::INDEX_BITS) as u16 }
    }
}

/// A set of events of a source.
#[expect(unnameable_types, reason = "public because the trait `Source` mentions it")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Events(u8);

impl Events {
    pub(crate) const NONE: Self = Self(0);
    pub(crate) const READABLE: Self = Self(1);
    pub(crate) const WRITABLE: Self = Self(2);
    /// The peer has ended its direction, the stream has failed, or there is urgent data: a read tells which. Once
    /// this was reported, read until `WouldBlock`, end or error: a read that does not fill the buffer does not show
    /// that the socket is empty.
    pub(crate) const CLOSED: Self = Self(4);
    /// The deadline may have come.
    pub(crate) const DEADLINE: Self = Self(8);
    /// A command has woken the source.
    pub(crate) const WOKEN: Self = Self(16);

    pub(crate) const fn contains(self, events: Self) -> bool {
        self.0 & events.0 == events.0
    }

    /// As `|`, for constants.
    pub(crate) const fn or(self, events: Self) -> Self {
        Self(self.0 | events.0)
    }

    pub(crate) const fn only(self, events: Self) -> Self {
        Self(self.0 & events.0)
    }

    pub(crate) const fn without(self, events: Self) -> Self {
        Self(self.0 & !events.0)
    }
}

impl BitOr for Events {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitOrAssign for Events {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}
