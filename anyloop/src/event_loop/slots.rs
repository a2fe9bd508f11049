//! The slots of sources, and the state of each source.

use super::deadlines::{LinkedSlots, Links};
use super::events::{Events, Token};
use super::types::LoopTypes;

/// The sources of a loop, each in a slot with an index.
pub(super) struct Slots<K: LoopTypes> {
    all: Vec<Slot<K>>,
    free: Vec<u32>,
}

/// A slot for a source: 32 bytes.
struct Slot<K: LoopTypes> {
    /// Absent while a thread runs it, and in a slot that is reserved or free.
    source: Option<Box<K::DynSource>>,
    /// The deadline of the source.
    links: Links,
    /// The number of times that the slot was used before; it wraps around. A token of another generation is stale.
    generation: u16,
    events: Events,
    status: Status,
}

/// The state of a source, and which queues of the loop have an entry for its slot: one byte.
#[derive(Clone, Copy)]
struct Status(u8);

/// An entry of a slot in a queue of the loop, as a bit of [`Status`].
#[derive(Clone, Copy)]
#[repr(u8)]
pub(super) enum QueueEntry {
    Ready = 1 << 3,
    Woken = 1 << 4,
}

/// The state of a source. At most one thread runs it: the one that has set `Running`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Strand {
    /// There is no source.
    Free,
    /// It is not ready.
    Idle,
    /// It has an entry in the run queue.
    Queued,
    /// It enters the queue after the next poll.
    AfterPoll,
    /// A thread runs it.
    Running,
    /// A thread runs it, and there were events since.
    RunningWithEvents,
}

impl<K: LoopTypes> Slots<K> {
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
                status: Status(Strand::Free as u8),
            });
            index
        });
        let slot = &mut self.all[index as usize];
        // The slot counts as running until it has its source, so earlier events are kept.
        slot.status.set_strand(Strand::Running);
        slot.events = Events::NONE;
        Token { index, generation: slot.generation }
    }

    /// Adds events to a source. Returns whether the source becomes ready, and must be queued.
    #[inline]
    pub(super) fn add_events(&mut self, token: Token, events: Events) -> bool {
        let Some(slot) = self.all.get_mut(token.index as usize) else { return false };
        if slot.generation != token.generation || slot.status.strand() == Strand::Free {
            return false;
        }
        slot.events |= events;
        slot.become_ready()
    }

    /// Adds events to the source in this slot. Returns whether the source becomes ready, and must be queued.
    pub(super) fn add_events_to_slot(&mut self, index: u32, events: Events) -> bool {
        let generation = self.all[index as usize].generation;
        self.add_events(Token { index, generation }, events)
    }

    /// Removes events of the source in this slot.
    #[cfg(unix)]
    pub(super) fn clear_events(&mut self, index: u32, events: Events) {
        let pending = &mut self.all[index as usize].events;
        *pending = pending.without(events);
    }

    /// Whether the source is queued.
    pub(super) fn is_queued(&self, token: Token) -> bool {
        let slot = self.all.get(token.index as usize);
        slot.is_some_and(|slot| {
            slot.generation == token.generation && slot.status.strand() == Strand::Queued
        })
    }

    /// A queued source is to run after the next poll, and not before, even if it is woken.
    pub(super) fn set_after_poll(&mut self, index: u32) {
        self.all[index as usize].status.set_strand(Strand::AfterPoll);
    }

    /// A source that was to run after the poll is queued again.
    pub(super) fn set_queued(&mut self, index: u32) {
        self.all[index as usize].status.set_strand(Strand::Queued);
    }

    /// Whether the source in this slot was woken since its last turn.
    #[inline]
    pub(super) fn is_woken(&self, index: u32) -> bool {
        self.all[index as usize].events.contains(Events::WOKEN)
    }

    /// Notes that the slot has this entry. Returns false if it had it before.
    #[inline]
    pub(super) fn mark_entry(&mut self, index: u32, entry: QueueEntry) -> bool {
        self.all[index as usize].status.mark_entry(entry)
    }

    /// Notes that the slot does not have this entry any more: it was taken from its queue.
    #[inline]
    pub(super) fn clear_entry(&mut self, index: u32, entry: QueueEntry) {
        self.all[index as usize].status.clear_entry(entry);
    }

    /// Takes a queued source, with its events. The caller runs it. Returns `None` for a stale entry of a queue.
    #[inline]
    pub(super) fn check_out(&mut self, index: u32) -> Option<(Token, Box<K::DynSource>, Events)> {
        let slot = &mut self.all[index as usize];
        if slot.status.strand() != Strand::Queued {
            return None;
        }
        let source = slot.source.take()?;
        slot.status.set_strand(Strand::Running);
        let events = core::mem::take(&mut slot.events);
        Some((Token { index, generation: slot.generation }, source, events))
    }

    /// Puts a source back, with the events that it has not consumed. Returns whether the source is ready, and must be
    /// queued: because it has more to do (`again`), or because there were events meanwhile.
    #[inline]
    pub(super) fn check_in(
        &mut self,
        index: u32,
        source: Box<K::DynSource>,
        unconsumed: Events,
        again: bool,
    ) -> bool {
        let slot = &mut self.all[index as usize];
        slot.source = Some(source);
        slot.events |= unconsumed;
        let has_events = slot.status.strand() == Strand::RunningWithEvents;
        slot.status.set_strand(if has_events || again { Strand::Queued } else { Strand::Idle });
        has_events || again
    }

    /// Frees the slot of a source that is over. The deadline must have been removed.
    pub(super) fn release(&mut self, index: u32) {
        let slot = &mut self.all[index as usize];
        slot.source = None;
        slot.status.set_strand(Strand::Free);
        slot.generation = Token::next_generation(slot.generation);
        self.free.push(index);
    }

    /// Takes all sources. The caller drops them where it holds no lock.
    pub(super) fn take_all(&mut self) -> Vec<Box<K::DynSource>> {
        self.all.drain(..).filter_map(|slot| slot.source).collect()
    }
}

impl Status {
    const STRAND: u8 = 0b111;

    const fn strand(self) -> Strand {
        match self.0 & Self::STRAND {
            0 => Strand::Free,
            1 => Strand::Idle,
            2 => Strand::Queued,
            3 => Strand::AfterPoll,
            4 => Strand::Running,
            _ => Strand::RunningWithEvents,
        }
    }

    const fn set_strand(&mut self, strand: Strand) {
        self.0 = self.0 & !Self::STRAND | strand as u8;
    }

    const fn mark_entry(&mut self, entry: QueueEntry) -> bool {
        let is_new = self.0 & entry as u8 == 0;
        self.0 |= entry as u8;
        is_new
    }

    const fn clear_entry(&mut self, entry: QueueEntry) {
        self.0 &= !(entry as u8);
    }
}

impl<K: LoopTypes> Slot<K> {
    /// Notes new events. Returns whether the source must be queued.
    fn become_ready(&mut self) -> bool {
        match self.status.strand() {
            Strand::Idle => {
                self.status.set_strand(Strand::Queued);
                return true;
            }
            Strand::Running => self.status.set_strand(Strand::RunningWithEvents),
            Strand::Free | Strand::Queued | Strand::AfterPoll | Strand::RunningWithEvents => {}
        }
        false
    }
}

impl<K: LoopTypes> LinkedSlots for Slots<K> {
    fn links(&mut self, index: u32) -> &mut Links {
        &mut self.all[index as usize].links
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event_loop::Threads;

    #[test]
    fn a_status_keeps_its_strand_and_its_entries() {
        use Strand::{AfterPoll, Free, Idle, Queued, Running, RunningWithEvents};
        for strand in [Free, Idle, Queued, AfterPoll, Running, RunningWithEvents] {
            let mut status = Status(Free as u8);
            assert!(status.mark_entry(QueueEntry::Woken));
            status.set_strand(strand);
            assert!(status.mark_entry(QueueEntry::Ready) && !status.mark_entry(QueueEntry::Woken));
            assert_eq!(status.strand(), strand);
            status.clear_entry(QueueEntry::Woken);
            assert!(status.mark_entry(QueueEntry::Woken) && !status.mark_entry(QueueEntry::Ready));
        }
    }

    #[test]
    fn a_slot_is_small() {
        assert!(size_of::<Slot<Threads>>() <= 32, "{}", size_of::<Slot<Threads>>());
    }
}
