//! The deadlines of sources: one for each slot.
//!
//! A deadline that is more than a tick (67 ms) ahead is in a timing [wheel](wheel), which yields it early. A
//! nearer one is in a heap, which is exact. A slot's [`Links`] say where its deadline is. While it is in the
//! heap, they store the deadline itself, so an entry of the heap that differs from it is known to be stale.
//!
//! A slot may be yielded before its deadline, but never after it. The source in the slot compares its own deadline with
//! the time, and sets the deadline again if it is still ahead.

mod wheel;

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use anyloop_proto::Instant;

use wheel::Wheel;
pub(super) use wheel::{LinkedSlots, Links};

/// The capacity to which the heap is shrunk when it has fewer entries, and more than four times this capacity.
const KEPT_CAPACITY: usize = 4096;

/// The heap is rebuilt when its stale entries outnumber the valid ones by more than this.
const MAX_STALE: usize = 64;

/// The deadlines of slots, at most one for each slot.
pub(super) struct Deadlines {
    wheel: Wheel,
    /// Deadlines within a tick. An entry is stale unless the links of its slot store the same deadline. The
    /// first entry is never stale.
    heap: BinaryHeap<Reverse<(Instant, u32)>>,
    /// The number of slots whose deadline is in the heap.
    exact: usize,
}

impl Deadlines {
    /// No deadlines; the time is `now`.
    pub(super) const fn new(now: Instant) -> Self {
        Self { wheel: Wheel::new(now), heap: BinaryHeap::new(), exact: 0 }
    }

    /// Sets the deadline of slot `index`.
    ///
    /// If the slot has the same deadline or an earlier one, this does nothing: the earlier one comes, and the
    /// deadline is set again then.
    pub(super) fn set(&mut self, slots: &mut impl LinkedSlots, index: u32, deadline: Instant) {
        match slots.links(index).as_exact() {
            Some(exact) if exact <= deadline => return,
            Some(_) => self.exact -= 1,
            None if self.wheel.is_due_by(slots, index, deadline) => return,
            None if self.wheel.insert(slots, index, deadline) => return,
            None => {}
        }
        *slots.links(index) = Links::exact(deadline);
        self.heap.push(Reverse((deadline, index)));
        self.exact += 1;
        if self.heap.len() > 2 * self.exact + MAX_STALE {
            self.rebuild(slots);
        }
    }

    /// Removes the deadline of slot `index`, if it has one.
    pub(super) fn remove(&mut self, slots: &mut impl LinkedSlots, index: u32) {
        if slots.links(index).as_exact().is_some() {
            self.exact -= 1;
        }
        self.wheel.remove(slots, index);
        self.drop_stale(slots);
    }

    /// The time when [`expire`](Self::expire) will next yield a slot; `None` if there is no deadline.
    pub(super) fn next(&self) -> Option<Instant> {
        let exact = self.heap.peek().map(|Reverse((deadline, _))| *deadline);
        [self.wheel.next(), exact].into_iter().flatten().min()
    }

    /// Advances to `now`. Removes the deadlines that have come, and appends their slots to `due`.
    pub(super) fn expire(
        &mut self,
        slots: &mut impl LinkedSlots,
        now: Instant,
        due: &mut Vec<u32>,
    ) {
        self.wheel.expire(slots, now, due);
        while let Some(&Reverse(entry @ (deadline, index))) = self.heap.peek() {
            if deadline > now {
                break;
            }
            self.heap.pop();
            if is_valid(slots, entry) {
                *slots.links(index) = Links::default();
                self.exact -= 1;
                due.push(index);
            }
        }
        self.drop_stale(slots);
    }

    /// Frees memory that a large number of deadlines within one tick has needed.
    pub(super) fn shrink(&mut self) {
        if self.heap.len() < KEPT_CAPACITY && self.heap.capacity() > 4 * KEPT_CAPACITY {
            self.heap.shrink_to(KEPT_CAPACITY);
        }
    }

    /// Removes all stale entries, and duplicates: setting a deadline again makes an old entry with the same deadline
    /// valid again.
    #[cold]
    fn rebuild(&mut self, slots: &mut impl LinkedSlots) {
        let mut entries = std::mem::take(&mut self.heap).into_vec();
        entries.retain(|Reverse(entry)| is_valid(slots, *entry));
        entries.sort_unstable();
        entries.dedup();
        self.heap = entries.into();
    }

    /// Removes stale entries from the top of the heap.
    fn drop_stale(&mut self, slots: &mut impl LinkedSlots) {
        while self.heap.peek().is_some_and(|Reverse(entry)| !is_valid(slots, *entry)) {
            self.heap.pop();
        }
    }
}

/// Whether this entry of the heap is the deadline of its slot.
fn is_valid(slots: &mut impl LinkedSlots, (deadline, index): (Instant, u32)) -> bool {
    slots.links(index).as_exact() == Some(deadline)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const START: Instant = Instant::from_nanos(1 << 62);

    /// Deadlines, and the slots that they belong to.
    struct Subject {
        deadlines: Deadlines,
        slots: Vec<Links>,
    }

    impl Subject {
        fn new(slots: usize) -> Self {
            Self { deadlines: Deadlines::new(START), slots: vec![Links::default(); slots] }
        }

        fn set(&mut self, index: u32, after: Duration) {
            self.deadlines.set(&mut self.slots, index, START + after);
        }

        fn remove(&mut self, index: u32) {
            self.deadlines.remove(&mut self.slots, index);
        }

        fn expire(&mut self, after: Duration) -> Vec<u32> {
            let mut due = Vec::new();
            self.deadlines.expire(&mut self.slots, START + after, &mut due);
            due.sort_unstable();
            due
        }

        fn next(&self) -> Option<Duration> {
            self.deadlines.next().map(|next| next - START)
        }
    }

    const fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    #[test]
    fn a_near_deadline_is_exact() {
        let mut subject = Subject::new(2);
        subject.set(0, ms(10));
        subject.set(1, ms(20));
        assert_eq!(subject.next(), Some(ms(10)));
        assert_eq!(subject.expire(ms(10) - Duration::from_nanos(1)), []);
        assert_eq!(subject.expire(ms(10)), [0]);
        assert_eq!(subject.next(), Some(ms(20)));
        assert_eq!(subject.expire(ms(20)), [1]);
        assert_eq!(subject.next(), None);
    }

    #[test]
    fn a_far_deadline_comes_early_and_is_exact_when_it_is_set_again() {
        let mut subject = Subject::new(1);
        subject.set(0, ms(1_000));
        let mut times = 0;
        let mut last;
        loop {
            last = subject.next().expect("the deadline was set again");
            assert!(last <= ms(1_000));
            assert_eq!(subject.expire(last), [0]);
            if last == ms(1_000) {
                break;
            }
            subject.set(0, ms(1_000));
            times += 1;
        }
        assert!(times <= 3, "{times} times");
        assert_eq!(subject.next(), None);
    }

    #[test]
    fn the_same_or_a_later_deadline_changes_nothing() {
        let mut subject = Subject::new(2);
        subject.set(0, ms(10));
        subject.set(1, ms(1_000));
        let next = subject.next();
        for step in 0..1_000 {
            subject.set(0, ms(10 + step));
            subject.set(1, ms(1_000 + step));
        }
        assert_eq!(subject.deadlines.heap.len(), 1);
        assert_eq!(subject.next(), next);
        assert_eq!(subject.expire(ms(10)), [0]);
        let next = subject.next().expect("the other deadline");
        assert!(next <= ms(1_000));
        assert_eq!(subject.expire(next), [1]);
    }

    #[test]
    fn an_earlier_deadline_comes_once() {
        let mut subject = Subject::new(1);
        subject.set(0, ms(1_000)); // in the wheel
        subject.set(0, ms(50));
        subject.set(0, ms(20));
        assert_eq!(subject.next(), Some(ms(20)));
        assert_eq!(subject.expire(ms(20)), [0]);
        assert_eq!(subject.next(), None, "the deadlines before it are stale");
        assert_eq!(subject.expire(ms(2_000)), []);
    }

    #[test]
    fn a_deadline_that_is_set_again_after_it_came_is_not_stale() {
        let mut subject = Subject::new(1);
        subject.set(0, ms(50));
        subject.set(0, ms(20));
        assert_eq!(subject.expire(ms(20)), [0]);
        subject.set(0, ms(50));
        assert_eq!(subject.next(), Some(ms(50)));
        assert_eq!(subject.expire(ms(50)), [0], "once, though the heap has it twice");
        assert_eq!(subject.next(), None);
    }

    #[test]
    fn a_removed_deadline_does_not_come() {
        let mut subject = Subject::new(3);
        for (index, after) in [(0, 10), (1, 20), (2, 1_000)] {
            subject.set(index, ms(after));
        }
        subject.remove(0);
        assert_eq!(subject.next(), Some(ms(20)));
        subject.remove(2);
        subject.remove(2);
        assert_eq!(subject.expire(ms(5_000)), [1]);
        assert_eq!(subject.next(), None);
    }

    #[test]
    fn earlier_and_earlier_deadlines_do_not_fill_the_heap() {
        let mut subject = Subject::new(2);
        subject.set(1, ms(5));
        for step in 0..10_000 {
            subject.set(0, ms(60) - Duration::from_micros(step));
            assert!(subject.deadlines.heap.len() <= 2 * 2 + MAX_STALE);
        }
        assert_eq!(subject.next(), Some(ms(5)));
        assert_eq!(subject.expire(ms(50)), [1]);
        assert_eq!(subject.expire(ms(60)), [0]);
    }

    #[test]
    fn two_alternating_deadlines_do_not_fill_the_heap() {
        let mut subject = Subject::new(1);
        for step in 0..10_000 {
            subject.set(0, ms(60));
            let soon = Duration::from_micros(step);
            subject.set(0, soon);
            assert_eq!(subject.expire(soon), [0]);
            assert!(subject.deadlines.heap.len() <= 2 + MAX_STALE);
        }
        assert_eq!(subject.next(), None);
        assert_eq!(subject.expire(ms(60)), []);
    }

    #[test]
    fn the_heap_returns_its_memory() {
        let mut subject = Subject::new(5 * KEPT_CAPACITY);
        for index in 0..5 * KEPT_CAPACITY as u32 {
            subject.set(index, ms(10));
        }
        assert_eq!(subject.expire(ms(10)).len(), 5 * KEPT_CAPACITY);
        subject.deadlines.shrink();
        assert!(subject.deadlines.heap.capacity() <= 4 * KEPT_CAPACITY);
    }
}
