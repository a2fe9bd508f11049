//! A coarse timing wheel for very many deadlines that are seldom reached.
//!
//! Level `l` has 64 buckets of `64^l` ticks each. A deadline hangs at the level that its distance
//! asks for, and comes when its bucket begins: early, and never late. The lists run through the
//! slots of the caller, so that a deadline costs nothing beyond its [`Links`].

use anyloop_proto::Instant;
use std::time::Duration;

const TICK_BITS: u32 = 26;

/// How coarse the wheel is: 2^26 ns, 67 ms.
const TICK: Duration = Duration::from_nanos(1 << TICK_BITS);

const LEVELS: usize = 4;
const DIGIT_BITS: u32 = 6;
const BUCKETS: usize = 1 << DIGIT_BITS;
const DIGIT: u64 = BUCKETS as u64 - 1;

/// How far ahead the last bucket can lie, in ticks: 13 days.
const HORIZON: u64 = (1 << (DIGIT_BITS * LEVELS as u32)) - 1;

const NONE: u32 = u32::MAX;
const NOWHERE: u16 = u16::MAX;

/// Where the deadline of a slot hangs; by default nowhere.
#[derive(Clone, Debug)]
pub(crate) struct Links {
    next: u32,
    prev: u32,
    bucket: u16,
}

impl Default for Links {
    fn default() -> Self {
        Self { next: NONE, prev: NONE, bucket: NOWHERE }
    }
}

/// The slots whose deadlines a wheel keeps.
///
/// An index is not `u32::MAX`. The links of a slot stay where they are while its deadline hangs:
/// the slot is given up only after [`Wheel::remove`].
pub(crate) trait Slots {
    /// The links of slot `index`.
    fn links(&mut self, index: u32) -> &mut Links;
}

/// The deadlines of the slots, one for each.
///
/// It does not know the deadlines themselves. What [`expire`](Self::expire) yields is only to be
/// looked at again: the caller compares the deadline with the time and inserts the slot anew if it
/// is still far, which happens at most once per level. A deadline that moves away (as an idle
/// timeout does with each message) may therefore stay where it hangs.
pub(crate) struct Wheel {
    now: Instant,
    /// The buckets that are not empty, a bit each.
    occupied: [u64; LEVELS],
    /// The first slot of each bucket.
    heads: [u32; LEVELS * BUCKETS],
}

impl Wheel {
    /// An empty wheel, which begins at `now`.
    pub(crate) const fn new(now: Instant) -> Self {
        Self { now, occupied: [0; LEVELS], heads: [NONE; LEVELS * BUCKETS] }
    }

    /// Hangs slot `index`, wherever it hung before, so that it is yielded no later than `deadline`
    /// rounded down to a tick. Beyond the horizon of 13 days it is yielded early.
    ///
    /// Returns false when less than a tick remains, counted from the last [`expire`](Self::expire):
    /// then it hangs nowhere, and the caller needs something more exact.
    #[must_use]
    pub(crate) fn insert(&mut self, slots: &mut impl Slots, index: u32, deadline: Instant) -> bool {
        debug_assert_ne!(index, NONE);
        self.remove(slots, index);
        if deadline - self.now < TICK {
            return false;
        }
        let tick = ticks(self.now);
        // At least one tick, so that no bucket is ever the one that has begun already.
        let distance = (ticks(deadline) - tick).min(HORIZON);
        let level = distance.ilog2() / DIGIT_BITS;
        let digit = ((tick + distance) >> (level * DIGIT_BITS)) & DIGIT;

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

    /// Takes slot `index` off, if it hangs.
    pub(crate) fn remove(&mut self, slots: &mut impl Slots, index: u32) {
        let Links { next, prev, bucket } = std::mem::take(slots.links(index));
        if bucket == NOWHERE {
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

    /// When [`expire`](Self::expire) will next yield something; `None` if nothing hangs.
    pub(crate) fn next(&self) -> Option<Instant> {
        let tick = ticks(self.now);
        let begins = (0..LEVELS).filter(|level| self.occupied[*level] != 0).map(|level| {
            let shift = level as u32 * DIGIT_BITS;
            // The bucket of now was emptied when it began: if it is occupied, it is for the next
            // time round, and so it comes last.
            let following = (tick >> shift) + 1;
            let rotated = self.occupied[level].rotate_right((following & DIGIT) as u32);
            (following + u64::from(rotated.trailing_zeros())) << shift
        });
        begins.min().map(|tick| Instant::from_nanos(tick << TICK_BITS))
    }

    /// Advances to `now`, and takes off and appends to `due` every slot whose bucket has begun, in
    /// no particular order.
    ///
    /// The time may jump by any amount: the cost is that of the slots yielded, and of 64 buckets
    /// per level at most. Time that goes backwards is ignored.
    pub(crate) fn expire(&mut self, slots: &mut impl Slots, now: Instant, due: &mut Vec<u32>) {
        if now <= self.now {
            return;
        }
        let (from, to) = (ticks(self.now), ticks(now));
        self.now = now;
        for level in 0..LEVELS {
            let shift = level as u32 * DIGIT_BITS;
            let (from, to) = (from >> shift, to >> shift);
            let begun = match to - from {
                0 => return, // nor has any bucket of the coarser levels begun
                count @ 1..=DIGIT => {
                    ((1 << count) - 1_u64).rotate_left(((from + 1) & DIGIT) as u32)
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

    impl Slots for Vec<Links> {
        fn links(&mut self, index: u32) -> &mut Links {
            &mut self[index as usize]
        }
    }

    /// In the middle of a tick, and of a bucket of each level.
    const START: Instant = Instant::from_nanos((1 << 62) + 0x1234_5678_9abc_def0);

    /// A wheel, and what it should hold.
    struct Model {
        wheel: Wheel,
        slots: Vec<Links>,
        now: Instant,
        hanging: BTreeMap<u32, Instant>,
    }

    impl Model {
        fn new(slots: usize) -> Self {
            let slots = vec![Links::default(); slots];
            Self { wheel: Wheel::new(START), slots, now: START, hanging: BTreeMap::new() }
        }

        fn insert(&mut self, index: u32, deadline: Instant) -> bool {
            let hangs = self.wheel.insert(&mut self.slots, index, deadline);
            assert_eq!(hangs, deadline - self.now >= TICK);
            if hangs {
                self.hanging.insert(index, deadline);
            } else {
                self.hanging.remove(&index);
            }
            hangs
        }

        fn remove(&mut self, index: u32) {
            self.wheel.remove(&mut self.slots, index);
            self.hanging.remove(&index);
        }

        /// Advances, and returns what came, with the deadlines.
        fn expire(&mut self, now: Instant) -> Vec<(u32, Instant)> {
            let next = self.wheel.next();
            let mut due = Vec::new();
            self.wheel.expire(&mut self.slots, now, &mut due);
            self.now = self.now.max(now);
            assert_eq!(!due.is_empty(), next.is_some_and(|next| next <= now));
            due.into_iter()
                .map(|index| (index, self.hanging.remove(&index).expect("it hung, once")))
                .collect()
        }

        fn check(&mut self) {
            let mut found = Vec::new();
            for bucket in 0..LEVELS * BUCKETS {
                let (level, digit) = (bucket / BUCKETS, bucket % BUCKETS);
                let occupied = self.wheel.occupied[level] >> digit & 1 != 0;
                assert_eq!(occupied, self.wheel.heads[bucket] != NONE);
                let (mut index, mut prev) = (self.wheel.heads[bucket], NONE);
                while index != NONE {
                    let links = self.slots.links(index);
                    assert_eq!((links.prev, usize::from(links.bucket)), (prev, bucket));
                    found.push(index);
                    (prev, index) = (index, links.next);
                }
            }
            found.sort_unstable();
            assert!(found.iter().eq(self.hanging.keys()));
            let hung = self.slots.iter().filter(|links| links.bucket != NOWHERE).count();
            assert_eq!(hung, found.len());
            self.check_next();
        }

        /// None is left that should have come, and the next is announced in time.
        fn check_next(&self) {
            let first = self.hanging.values().min();
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

        /// Up to 2^50 ns, 13 days, and as often short as long.
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
        assert!(!model.insert(0, START), "and it no longer hangs where it did");
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
    fn a_full_turn_ahead_is_not_now() {
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
        let hung = model.hanging.len();
        assert_eq!(model.expire(START + Duration::from_secs(1 << 30)).len(), hung);
        model.check();
        assert_eq!(model.wheel.next(), None);
    }
}
