//! A hierarchical timing wheel for many deadlines that are seldom reached.
//!
//! The wheel holds *slots*: entries of the caller's, by index (in the loop, one for each source). What other wheels
//! call a slot is a *bucket* here.
//!
//! Time is counted in ticks. Level `l` has 64 buckets of `64^l` ticks each. The time until a deadline determines its
//! level, and digit `l` of its tick, in base 64, is the number of its bucket there. The wheel yields a slot when its
//! bucket begins: early, and never late. The slots of a bucket are a linked list through the caller's [`Links`], so a
//! deadline takes no other memory.

use anyloop_proto::Instant;
use std::time::Duration;

const TICK_BITS: u32 = 26;

/// The resolution of the wheel: 2^26 ns, 67 ms.
const TICK: Duration = Duration::from_nanos(1 << TICK_BITS);

const LEVELS: usize = 4;
const DIGIT_BITS: u32 = 6;
const BUCKETS: usize = 1 << DIGIT_BITS;
/// The mask of the lowest digit, in base 64.
const DIGIT_MASK: u64 = BUCKETS as u64 - 1;

/// The greatest distance of a bucket from the present, in ticks: 13 days.
const HORIZON: u64 = (1 << (DIGIT_BITS * LEVELS as u32)) - 1;

/// The index of no slot.
const NONE: u32 = u32::MAX;

/// The value of [`Links::bucket`] for a slot without a deadline.
const UNSET: u16 = u16::MAX;

/// The value of [`Links::bucket`] for a slot whose exact deadline is in `next` and `prev`.
const EXACT: u16 = u16::MAX - 1;

/// The deadline of one slot: its place in the wheel, or the deadline itself, or (the default) none. 12 bytes.
#[derive(Clone, Debug)]
pub(in crate::event_loop) struct Links {
    next: u32,
    prev: u32,
    bucket: u16,
}

impl Links {
    /// Links that store a deadline which is not in the wheel.
    pub(super) const fn exact(deadline: Instant) -> Self {
        let nanos = deadline.as_nanos();
        Self { next: (nanos >> 32) as u32, prev: nanos as u32, bucket: EXACT }
    }

    /// The deadline that [`exact`](Self::exact) has stored.
    pub(super) const fn as_exact(&self) -> Option<Instant> {
        match self.bucket {
            EXACT => Some(Instant::from_nanos((self.next as u64) << 32 | self.prev as u64)),
            _ => None,
        }
    }
}

impl Default for Links {
    fn default() -> Self {
        Self { next: NONE, prev: NONE, bucket: UNSET }
    }
}

/// Access to the links of the slots.
///
/// An index is never `u32::MAX`. A slot that is in the wheel must be [removed](Wheel::remove) before its links
/// are dropped or reset.
pub(in crate::event_loop) trait LinkedSlots {
    /// The links of slot `index`.
    fn links(&mut self, index: u32) -> &mut Links;
}

/// Coarse deadlines of slots, at most one for each slot.
///
/// The wheel does not store the deadlines themselves. [`expire`](Self::expire) yields a slot early: the caller
/// compares the slot's deadline with the time and inserts the slot again if the deadline is still ahead. Up to
/// the horizon, that happens at most once per level; beyond it, once more each 13 days. Therefore a deadline that moves
/// to a later time may stay in its bucket.
pub(super) struct Wheel {
    now: Instant,
    /// One bit for each bucket that is not empty.
    occupied: [u64; LEVELS],
    /// The first slot of each bucket.
    heads: [u32; LEVELS * BUCKETS],
}

impl Wheel {
    /// An empty wheel whose time is `now`.
    pub(super) const fn new(now: Instant) -> Self {
        Self { now, occupied: [0; LEVELS], heads: [NONE; LEVELS * BUCKETS] }
    }

    /// Puts slot `index` into the bucket for `deadline`, in place of the deadline that it had. The slot is
    /// yielded no later than `deadline` rounded down to a tick, and no later than the horizon of 13 days.
    ///
    /// Returns false if less than a tick remains, counted from the last [`expire`](Self::expire). Then the slot is not
    /// in the wheel, and the caller must keep the deadline elsewhere.
    #[must_use]
    pub(super) fn insert(
        &mut self,
        slots: &mut impl LinkedSlots,
        index: u32,
        deadline: Instant,
    ) -> bool {
        debug_assert_ne!(index, NONE);
        self.remove(slots, index);
        if deadline - self.now < TICK {
            return false;
        }
        let tick = ticks(self.now);
        // At least one tick, so the bucket is never one that has begun already.
        let distance = (ticks(deadline) - tick).min(HORIZON);
        let level = distance.ilog2() / DIGIT_BITS;
        let digit = ((tick + distance) >> (level * DIGIT_BITS)) & DIGIT_MASK;

        let bucket = level as usize * BUCKETS + digit as usize;
        let next = self.heads[bucket];
        if next != NONE {
            slots.links(next).prev = index;
        }
        *slots.links(index) = Links { next, prev: NONE, bucket: bucket as u16 };
        self.heads[bucket] = index;
        self.occupied[level as usize] |= 1 << digit;
        true
    }

    /// Whether the wheel yields slot `index` at `deadline` or earlier: it is in a bucket that begins no later.
    pub(super) fn is_due_by(
        &self,
        slots: &mut impl LinkedSlots,
        index: u32,
        deadline: Instant,
    ) -> bool {
        let bucket = slots.links(index).bucket;
        if bucket >= EXACT {
            return false;
        }
        let (level, digit) = (bucket as usize / BUCKETS, u64::from(bucket) & DIGIT_MASK);
        let shift = level as u32 * DIGIT_BITS;
        let following = (ticks(self.now) >> shift) + 1;
        let begin = (following + (digit.wrapping_sub(following) & DIGIT_MASK)) << shift;
        begin <= ticks(deadline)
    }

    /// Removes the deadline of slot `index`, if it has one.
    pub(super) fn remove(&mut self, slots: &mut impl LinkedSlots, index: u32) {
        let Links { next, prev, bucket } = std::mem::take(slots.links(index));
        if bucket >= EXACT {
            return;
        }
        let bucket = usize::from(bucket);
        if next != NONE {
            slots.links(next).prev = prev;
        }
        if prev == NONE {
            self.heads[bucket] = next;
        } else {
            slots.links(prev).next = next;
        }
        if self.heads[bucket] == NONE {
            self.occupied[bucket / BUCKETS] &= !(1 << (bucket % BUCKETS));
        }
    }

    /// The time when [`expire`](Self::expire) will next yield a slot; `None` if the wheel is empty.
    pub(super) fn next(&self) -> Option<Instant> {
        let tick = ticks(self.now);
        let begins = (0..LEVELS).filter(|level| self.occupied[*level] != 0).map(|level| {
            let shift = level as u32 * DIGIT_BITS;
            // The current bucket was emptied when it began. If it has slots again, they belong to the next revolution
            // of the wheel, 64 buckets later, so it comes last.
            let following = (tick >> shift) + 1;
            let rotated = self.occupied[level].rotate_right((following & DIGIT_MASK) as u32);
            (following + u64::from(rotated.trailing_zeros())) << shift
        });
        begins.min().map(|tick| Instant::from_nanos(tick << TICK_BITS))
    }

    /// Advances to `now`, removes every slot whose bucket has begun, and appends it to `due`, in no particular
    /// order.
    ///
    /// The time may jump by any amount: the cost is that of the slots yielded, and of at most 64 buckets per
    /// level. Time that goes backwards is ignored.
    pub(super) fn expire(
        &mut self,
        slots: &mut impl LinkedSlots,
        now: Instant,
        due: &mut Vec<u32>,
    ) {
        if now <= self.now {
            return;
        }
        let (from, to) = (ticks(self.now), ticks(now));
        self.now = now;
        for level in 0..LEVELS {
            let shift = level as u32 * DIGIT_BITS;
            let (from, to) = (from >> shift, to >> shift);
            let begun = match to - from {
                0 => return, // no bucket of a coarser level has begun either
                count @ 1..=DIGIT_MASK => {
                    ((1 << count) - 1_u64).rotate_left(((from + 1) & DIGIT_MASK) as u32)
                }
                _ => u64::MAX,
            };
            let mut begun = begun & self.occupied[level];
            self.occupied[level] &= !begun;
            while begun != 0 {
                let bucket = level * BUCKETS + begun.trailing_zeros() as usize;
                begun &= begun - 1;
                let mut index = std::mem::replace(&mut self.heads[bucket], NONE);
                while index != NONE {
                    due.push(index);
                    index = std::mem::take(slots.links(index)).next;
                }
            }
        }
    }
}

const fn ticks(instant: Instant) -> u64 {
    instant.as_nanos() >> TICK_BITS
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    const _: () = assert!(size_of::<Links>() == 12);

    impl LinkedSlots for Vec<Links> {
        fn links(&mut self, index: u32) -> &mut Links {
            &mut self[index as usize]
        }
    }

    /// A time in the middle of a tick and of a bucket of each level.
    const START: Instant = Instant::from_nanos((1 << 62) + 0x1234_5678_9abc_def0);

    /// A wheel, and the slots and deadlines that it must contain.
    struct Model {
        wheel: Wheel,
        slots: Vec<Links>,
        now: Instant,
        inserted: BTreeMap<u32, Instant>,
    }

    impl Model {
        fn new(slots: usize) -> Self {
            let slots = vec![Links::default(); slots];
            Self { wheel: Wheel::new(START), slots, now: START, inserted: BTreeMap::new() }
        }

        fn insert(&mut self, index: u32, deadline: Instant) -> bool {
            let inserted = self.wheel.insert(&mut self.slots, index, deadline);
            assert_eq!(inserted, deadline - self.now >= TICK);
            if inserted {
                self.inserted.insert(index, deadline);
            } else {
                self.inserted.remove(&index);
            }
            inserted
        }

        fn remove(&mut self, index: u32) {
            self.wheel.remove(&mut self.slots, index);
            self.inserted.remove(&index);
        }

        /// Advances the time, and returns the slots that the wheel yields, with their deadlines.
        fn expire(&mut self, now: Instant) -> Vec<(u32, Instant)> {
            let next = self.wheel.next();
            let expected = match now > self.now {
                true => self.due_by(now),
                false => Vec::new(),
            };
            let mut due = Vec::new();
            self.wheel.expire(&mut self.slots, now, &mut due);
            self.now = self.now.max(now);
            due.sort_unstable();
            assert_eq!(due, expected);
            assert_eq!(!due.is_empty(), next.is_some_and(|next| next <= now));
            due.into_iter()
                .map(|index| {
                    (index, self.inserted.remove(&index).expect("it was in the wheel, once"))
                })
                .collect()
        }

        /// The slots whose buckets begin no later than `deadline`.
        fn due_by(&mut self, deadline: Instant) -> Vec<u32> {
            let Self { wheel, slots, .. } = self;
            (0..slots.len() as u32)
                .filter(|index| wheel.is_due_by(slots, *index, deadline))
                .collect()
        }

        fn check(&mut self) {
            let mut linked_slots = Vec::new();
            for bucket in 0..LEVELS * BUCKETS {
                let (level, digit) = (bucket / BUCKETS, bucket % BUCKETS);
                let occupied = self.wheel.occupied[level] >> digit & 1 != 0;
                assert_eq!(occupied, self.wheel.heads[bucket] != NONE);
                let (mut index, mut prev) = (self.wheel.heads[bucket], NONE);
                while index != NONE {
                    let links = self.slots.links(index);
                    assert_eq!((links.prev, usize::from(links.bucket)), (prev, bucket));
                    linked_slots.push(index);
                    (prev, index) = (index, links.next);
                }
            }
            linked_slots.sort_unstable();
            assert!(linked_slots.iter().eq(self.inserted.keys()));
            let linked = self.slots.iter().filter(|links| links.bucket != UNSET).count();
            assert_eq!(linked, linked_slots.len());
            self.check_next();
        }

        /// No deadline was missed, and `next` is not too late.
        fn check_next(&self) {
            let first = self.inserted.values().min();
            assert_eq!(first.is_some(), self.wheel.next().is_some());
            if let (Some(first), Some(next)) = (first, self.wheel.next()) {
                assert!(ticks(*first) > ticks(self.now));
                assert!(next > self.now && next <= *first);
                assert_eq!(next.as_nanos() % (1 << TICK_BITS), 0);
            }
        }
    }

    struct Random(u64);

    impl Random {
        fn below(&mut self, end: u64) -> u64 {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (self.0 >> 33) % end
        }

        /// Up to 2^50 ns (13 days), as often short as long.
        fn duration(&mut self) -> Duration {
            let bits = 20 + self.below(31);
            Duration::from_nanos((self.below(1 << 31) << 20) & ((1 << bits) - 1))
        }
    }

    #[test]
    fn agrees_with_a_model() {
        let mut random = Random(7);
        let mut model = Model::new(200);
        for step in 0..100_000 {
            let index = random.below(200) as u32;
            match random.below(16) {
                0..7 => _ = model.insert(index, model.now + random.duration()),
                7..10 => model.remove(index),
                10..14 => {
                    let Some(next) = model.wheel.next() else { continue };
                    assert!(model.expire(Instant::from_nanos(next.as_nanos() - 1)).is_empty());
                    for (index, deadline) in model.expire(next) {
                        assert!(deadline >= next, "it came late");
                        if random.below(4) != 0 {
                            _ = model.insert(index, deadline);
                        }
                    }
                }
                14 => _ = model.expire(model.now + random.duration()),
                _ => {
                    let back = random.duration().as_nanos() as u64;
                    let before = Instant::from_nanos(model.now.as_nanos() - back);
                    assert!(model.expire(before).is_empty());
                }
            }
            model.check_next();
            if step % 64 == 0 {
                model.check();
            }
        }
    }

    #[test]
    fn each_level_yields_a_deadline_once() {
        let mut random = Random(1);
        for _ in 0..2_000 {
            let mut model = Model::new(1);
            _ = model.expire(START + random.duration());
            let deadline = model.now + random.duration();
            let mut times = 0;
            while model.insert(0, deadline) {
                let next = model.wheel.next().unwrap();
                assert_eq!(model.expire(next), [(0, deadline)]);
                times += 1;
            }
            assert!(times <= LEVELS, "{times} times");
            assert!(model.now <= deadline && deadline - model.now < TICK);
        }
    }

    #[test]
    fn less_than_a_tick_is_refused() {
        let mut model = Model::new(1);
        assert!(!model.insert(0, START));
        assert!(!model.insert(0, Instant::default()));
        assert!(!model.insert(0, START + (TICK - Duration::from_nanos(1))));
        assert!(model.insert(0, START + TICK));
        assert!(!model.insert(0, START), "and it is not in its former bucket");
        model.check();
    }

    #[test]
    fn beyond_the_horizon_comes_early() {
        let mut model = Model::new(2);
        let day = Duration::from_secs(24 * 60 * 60);
        for deadline in [START + 300 * day, Instant::from_nanos(u64::MAX)] {
            assert!(model.insert(0, deadline));
            assert!(model.insert(1, model.now + Duration::from_secs(36 * 60 * 60)));
            model.check();
            assert!(model.wheel.next().unwrap() - model.now < 2 * day);
            model.remove(1);
            let next = model.wheel.next().unwrap();
            assert!(next - model.now > 12 * day);
            assert_eq!(model.expire(next), [(0, deadline)]);
        }
    }

    #[test]
    fn a_full_revolution_ahead_is_not_now() {
        // 64 buckets of the second level ahead, which is the bucket of now again.
        let start = Instant::from_nanos(63 << TICK_BITS);
        let mut slots = vec![Links::default()];
        let mut wheel = Wheel::new(start);
        let deadline = Instant::from_nanos((63 + 64 * 64 - 1) << TICK_BITS);
        assert!(wheel.insert(&mut slots, 0, deadline));
        let begin = Instant::from_nanos(1 << (12 + TICK_BITS));
        assert_eq!(wheel.next(), Some(begin));
        let mut due = Vec::new();
        wheel.expire(&mut slots, Instant::from_nanos(begin.as_nanos() - 1), &mut due);
        assert!(due.is_empty());
        wheel.expire(&mut slots, begin, &mut due);
        assert_eq!(due, [0]);
    }

    #[test]
    fn the_end_of_time() {
        let end = Instant::from_nanos(u64::MAX);
        let mut slots = vec![Links::default()];
        let mut wheel = Wheel::new(Instant::default());
        let mut due = Vec::new();
        wheel.expire(&mut slots, Instant::from_nanos(u64::MAX - (1 << 30)), &mut due);
        while wheel.insert(&mut slots, 0, end) {
            due.clear();
            wheel.expire(&mut slots, wheel.next().unwrap(), &mut due);
            assert_eq!(due, [0]);
        }
        assert!(end - wheel.now < TICK);
        assert_eq!(wheel.next(), None);
    }

    #[test]
    fn a_jump_yields_everything() {
        let mut model = Model::new(1000);
        let mut random = Random(3);
        for index in 0..1000 {
            _ = model.insert(index, START + TICK + random.duration());
        }
        model.check();
        let linked = model.inserted.len();
        assert_eq!(model.expire(START + Duration::from_secs(1 << 30)).len(), linked);
        model.check();
        assert_eq!(model.wheel.next(), None);
    }
}
