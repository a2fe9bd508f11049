//! Where the sources are.

use super::deadlines::{LinkedSlots, Links};
use super::events::{Events, Token};
use super::types::Types;

/// The sources of a loop, each in a slot with a number.
pub(super) struct Slots<K: Types> {
    all: Vec<Slot<K>>,
    free: Vec<u32>,
}

/// A place for a source: 32 bytes.
struct Slot<K: Types> {
    /// Absent while it runs.
    source: Option<Box<K::Source>>,
    /// Its deadline.
    links: Links,
    /// How often the slot was used before; a token of another generation names nobody.
    generation: u16,
    events: Events,
    strand: Strand,
}

/// Where a source stands: one thread at most has it, the one that has moved it to `Running`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Strand {
    /// There is no source.
    Free,
    /// Nothing is to be done.
    Idle,
    /// It is in the ring.
    Queued,
    /// A thread has it.
    Running,
    /// The same, and something has happened since.
    Dirty,
}

impl<K: Types> Slots<K> {
    pub(super) const fn new() -> Self {
        Self { all: Vec::new(), free: Vec::new() }
    }

    /// A place for a source that is still to be put there.
    pub(super) fn reserve(&mut self) -> Token {
        let index = self.free.pop().unwrap_or_else(|| {
            let index = self.all.len();
            assert!((index as u64) < Token::INDICES, "a loop has no room for more sources");
            let index = index as u32;
            self.all.push(Slot {
                source: None,
                links: Links::default(),
                generation: 0,
                events: Events::NONE,
                strand: Strand::Free,
            });
            index
        });
        let slot = &mut self.all[index as usize];
        // Until it is there it counts as running: what happens to it is kept.
        slot.strand = Strand::Running;
        slot.events = Events::NONE;
        Token { index, generation: slot.generation }
    }

    /// Notes what has happened; returns whether the source is now to be put into the ring.
    #[inline]
    pub(super) fn notify(&mut self, token: Token, events: Events) -> bool {
        let Some(slot) = self.all.get_mut(token.index as usize) else { return false };
        if slot.generation != token.generation || slot.strand == Strand::Free {
            return false;
        }
        slot.events |= events;
        slot.notify()
    }

    /// The same for whatever is in this slot.
    pub(super) fn notify_slot(&mut self, index: u32, events: Events) -> bool {
        let generation = self.all[index as usize].generation;
        self.notify(Token { index, generation }, events)
    }

    /// Forgets what has been noted.
    #[cfg(unix)]
    pub(super) fn forget(&mut self, index: u32, events: Events) {
        let noted = &mut self.all[index as usize].events;
        *noted = noted.without(events);
    }

    /// Takes a source that was in the ring, and what has happened to it.
    #[inline]
    pub(super) fn check_out(&mut self, index: u32) -> Option<(Token, Box<K::Source>, Events)> {
        let slot = &mut self.all[index as usize];
        if slot.strand != Strand::Queued {
            return None;
        }
        let source = slot.source.take()?;
        slot.strand = Strand::Running;
        let events = core::mem::take(&mut slot.events);
        Some((Token { index, generation: slot.generation }, source, events))
    }

    /// Puts a source back, with the events that it keeps; returns whether it is to be put into the
    /// ring: it wants to go on, or something has happened meanwhile.
    #[inline]
    pub(super) fn check_in(
        &mut self,
        index: u32,
        source: Box<K::Source>,
        kept: Events,
        again: bool,
    ) -> bool {
        let slot = &mut self.all[index as usize];
        slot.source = Some(source);
        slot.events |= kept;
        let dirty = slot.strand == Strand::Dirty;
        slot.strand = if dirty || again { Strand::Queued } else { Strand::Idle };
        dirty || again
    }

    /// The source that was here is no more. Its deadline must have been removed.
    pub(super) fn release(&mut self, index: u32) {
        let slot = &mut self.all[index as usize];
        slot.source = None;
        slot.strand = Strand::Free;
        slot.generation = Token::next_generation(slot.generation);
        self.free.push(index);
    }

    /// Takes all sources out, to be dropped where no lock is held.
    pub(super) fn take_all(&mut self) -> Vec<Box<K::Source>> {
        self.all.drain(..).filter_map(|slot| slot.source).collect()
    }
}

impl<K: Types> Slot<K> {
    fn notify(&mut self) -> bool {
        match self.strand {
            Strand::Idle => {
                self.strand = Strand::Queued;
                return true;
            }
            Strand::Running => self.strand = Strand::Dirty,
            Strand::Free | Strand::Queued | Strand::Dirty => {}
        }
        false
    }
}

impl<K: Types> LinkedSlots for Slots<K> {
    fn links(&mut self, index: u32) -> &mut Links {
        &mut self.all[index as usize].links
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event_loop::Threads;

    #[test]
    fn a_slot_is_small() {
        assert!(size_of::<Slot<Threads>>() <= 32, "{}", size_of::<Slot<Threads>>());
    }
}
