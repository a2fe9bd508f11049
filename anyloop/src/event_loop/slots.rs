//! The slots of sources, and the state of each source.

use super::deadlines::{LinkedSlots, Links};
use super::events::{Events, Token};
use super::types::Types;

/// The sources of a loop, each in a slot with an index.
pub(super) struct Slots<K: Types> {
    all: Vec<Slot<K>>,
    free: Vec<u32>,
}

/// A slot for a source: 32 bytes.
struct Slot<K: Types> {
    /// Absent while a thread runs it.
    source: Option<Box<K::Source>>,
    /// Its deadline.
    links: Links,
    /// How often the slot was used before. A token of another generation is outdated.
    generation: u16,
    events: Events,
    strand: Strand,
}

/// The state of a source. At most one thread runs it: the one that has set `Running`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Strand {
    /// There is no source.
    Free,
    /// It is not ready.
    Idle,
    /// It is in the ready queue.
    Queued,
    /// A thread runs it.
    Running,
    /// A thread runs it, and there were events since.
    RunningNotified,
}

impl<K: Types> Slots<K> {
    pub(super) const fn new() -> Self {
        Self { all: Vec::new(), free: Vec::new() }
    }

    /// Reserves a slot. The source is put there by [`check_in`](Self::check_in).
    pub(super) fn reserve(&mut self) -> Token {
        let index = self.free.pop().unwrap_or_else(|| {
            let index = self.all.len();
            assert!((index as u64) < Token::INDICES, "the loop has the maximum number of sources");
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
        // The slot counts as running until it has its source, so earlier events are kept.
        slot.strand = Strand::Running;
        slot.events = Events::NONE;
        Token { index, generation: slot.generation }
    }

    /// Adds events to a source. Returns whether the source becomes ready, and must be queued.
    #[inline]
    pub(super) fn notify(&mut self, token: Token, events: Events) -> bool {
        let Some(slot) = self.all.get_mut(token.index as usize) else { return false };
        if slot.generation != token.generation || slot.strand == Strand::Free {
            return false;
        }
        slot.events |= events;
        slot.notify()
    }

    /// Adds events to the source in this slot. Returns whether the source becomes ready, and must be queued.
    pub(super) fn notify_slot(&mut self, index: u32, events: Events) -> bool {
        let generation = self.all[index as usize].generation;
        self.notify(Token { index, generation }, events)
    }

    /// Removes events of the source in this slot.
    #[cfg(unix)]
    pub(super) fn forget(&mut self, index: u32, events: Events) {
        let pending = &mut self.all[index as usize].events;
        *pending = pending.without(events);
    }

    /// Takes a source that was in the ready queue, with its events. The caller runs it.
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

    /// Puts a source back, with the events that it has not consumed. Returns whether the source is ready, and must be
    /// queued: because it has more to do (`again`), or because there were events meanwhile.
    #[inline]
    pub(super) fn check_in(
        &mut self,
        index: u32,
        source: Box<K::Source>,
        unconsumed: Events,
        again: bool,
    ) -> bool {
        let slot = &mut self.all[index as usize];
        slot.source = Some(source);
        slot.events |= unconsumed;
        let notified = slot.strand == Strand::RunningNotified;
        slot.strand = if notified || again { Strand::Queued } else { Strand::Idle };
        notified || again
    }

    /// Frees the slot of a source that is over. The deadline must have been removed.
    pub(super) fn release(&mut self, index: u32) {
        let slot = &mut self.all[index as usize];
        slot.source = None;
        slot.strand = Strand::Free;
        slot.generation = Token::next_generation(slot.generation);
        self.free.push(index);
    }

    /// Takes all sources. The caller drops them where it holds no lock.
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
            Strand::Running => self.strand = Strand::RunningNotified,
            Strand::Free | Strand::Queued | Strand::RunningNotified => {}
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
