//! Positions in a ring of any capacity, without division.
//!
//! A *position* counts slots for ever; the *index* is the slot that it falls
//! on, the *lap* how often the ring went round. Both are kept packed in one
//! word, the index in the lowest bits that can hold `capacity - 1`:
//!
//! ```text
//!  63            bits 0
//! ┌──────────────┬─────┐
//! │ lap          │index│   position = lap * capacity + index
//! └──────────────┴─────┘
//! ```
//!
//! so the next position is `+ 1`, or the next lap at index 0. Laps wrap at
//! `lap_bits` bits and are compared by their signed difference: a lap is
//! *behind* another when it is less than half a turn back.

/// Most bits that a lap has: what the slot word of the MPMC ring leaves beside
/// its state and owner.
pub(crate) const MAX_LAP_BITS: u32 = 49;

/// Largest capacity, in slots.
pub const MAX_CAPACITY: usize = 1 << 31;

/// The arithmetic of one ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Laps {
    capacity: u32,
    index_bits: u32,
    lap_bits: u32,
    /// Masks of so many bits, kept since a load is faster than a shift by what is no constant.
    index_mask: u64,
    lap_mask: u64,
    /// Of both, where a position has them.
    mask: u64,
}

/// A packed position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Position(pub(crate) u64);

impl Laps {
    /// The arithmetic for `capacity` slots, or `None` when that is zero or more
    /// than [`MAX_CAPACITY`].
    pub(crate) const fn new(capacity: usize) -> Option<Laps> {
        if capacity == 0 || capacity > MAX_CAPACITY {
            return None;
        }
        let index_bits = u64::BITS - (capacity as u64 - 1).leading_zeros();
        let left = u64::BITS - index_bits;
        let lap_bits = if left < MAX_LAP_BITS { left } else { MAX_LAP_BITS };
        let (index_mask, lap_mask) = ((1 << index_bits) - 1, u64::MAX >> (u64::BITS - lap_bits));
        let mask = lap_mask << index_bits | index_mask;
        Some(Laps { capacity: capacity as u32, index_bits, lap_bits, index_mask, lap_mask, mask })
    }

    #[inline(always)]
    pub(crate) const fn capacity(self) -> usize {
        self.capacity as usize
    }

    /// A lap, cut to its bits.
    #[inline(always)]
    pub(crate) const fn cut(self, lap: u64) -> u64 {
        lap & self.lap_mask
    }

    /// The position at `index` of `lap`. The lap is cut to its bits.
    #[inline(always)]
    pub(crate) const fn at(self, lap: u64, index: usize) -> Position {
        Position(self.cut(lap) << self.index_bits | index as u64)
    }

    #[inline(always)]
    pub(crate) const fn lap(self, at: Position) -> u64 {
        at.0 >> self.index_bits
    }

    /// The slot; below the capacity only if the position came from this module
    /// ([`Laps::checked`] for one that did not).
    #[inline(always)]
    pub(crate) const fn index(self, at: Position) -> usize {
        (at.0 & self.index_mask) as usize
    }

    /// A position read from shared memory, if it is one: its index below the
    /// capacity, and no bit set above its lap. So each position has one word,
    /// and words may be compared.
    #[inline(always)]
    pub(crate) const fn checked(self, raw: u64) -> Option<Position> {
        let at = Position(raw);
        let valid = self.index(at) < self.capacity() && self.lap(at) <= self.lap_mask;
        if valid { Some(at) } else { None }
    }

    /// The beginning of the lap after this one.
    #[inline(always)]
    const fn next_lap(self, at: Position) -> Position {
        Position((at.0 | self.index_mask).wrapping_add(1) & self.mask)
    }

    /// The position after this one.
    #[inline(always)]
    pub(crate) const fn next(self, at: Position) -> Position {
        if self.index(at) + 1 == self.capacity() { self.next_lap(at) } else { Position(at.0 + 1) }
    }

    /// The position `n <= capacity` slots on.
    #[inline(always)]
    pub(crate) const fn forward(self, at: Position, n: usize) -> Position {
        let index = self.index(at) + n;
        if index < self.capacity() {
            Position(at.0 + n as u64)
        } else {
            Position(self.next_lap(at).0 + (index - self.capacity()) as u64)
        }
    }

    /// `a - b` as a signed number of laps.
    #[inline(always)]
    pub(crate) const fn laps_between(self, a: u64, b: u64) -> i64 {
        let unused = u64::BITS - self.lap_bits;
        (a.wrapping_sub(b) << unused) as i64 >> unused
    }

    /// `a - b` in slots, saturating.
    #[inline(always)]
    pub(crate) const fn slots_between(self, a: Position, b: Position) -> i64 {
        self.laps_between(self.lap(a), self.lap(b))
            .saturating_mul(self.capacity as i64)
            .saturating_add(self.index(a) as i64 - self.index(b) as i64)
    }

    /// The position as a plain count of slots.
    pub(crate) const fn count(self, at: Position) -> u64 {
        self.lap(at).wrapping_mul(self.capacity as u64).wrapping_add(self.index(at) as u64)
    }

    /// The position that is this many slots from the start.
    pub(crate) const fn at_count(self, count: u64) -> Position {
        self.at(count / self.capacity as u64, (count % self.capacity as u64) as usize)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn capacities_at_the_edges() {
        assert!(Laps::new(0).is_none());
        assert!(Laps::new(MAX_CAPACITY + 1).is_none());
        let one = Laps::new(1).unwrap();
        assert_eq!((one.index_bits, one.lap_bits), (0, 49));
        let most = Laps::new(MAX_CAPACITY).unwrap();
        assert_eq!((most.index_bits, most.lap_bits), (31, 33));
        assert_eq!(Laps::new(7).unwrap().index_bits, 3);
        assert_eq!(Laps::new(8).unwrap().index_bits, 3);
        assert_eq!(Laps::new(9).unwrap().index_bits, 4);
    }

    #[test]
    fn an_index_outside_is_refused() {
        let laps = Laps::new(5).unwrap();
        assert!(laps.checked(4).is_some());
        assert!(laps.checked(5).is_none());
        assert!(laps.checked(u64::MAX).is_none());
    }

    #[test]
    fn bits_above_the_lap_are_refused() {
        let laps = Laps::new(8).unwrap();
        let last = laps.at(u64::MAX, 7);
        assert_eq!(last.0, (1 << 52) - 1);
        assert_eq!(laps.checked(last.0), Some(last));
        assert!((52..64).all(|bit| laps.checked(last.0 | 1 << bit).is_none()));
        // Where index and lap fill the word, there is none.
        assert!(Laps::new(1 << 16).unwrap().checked(u64::MAX).is_some());
    }

    #[test]
    fn laps_wrap() {
        let laps = Laps::new(3).unwrap();
        let last = laps.at(u64::MAX, 2);
        let first = laps.next(last);
        assert_eq!((laps.lap(first), laps.index(first)), (0, 0));
        assert_eq!(laps.laps_between(laps.lap(first), laps.lap(last)), 1);
        assert_eq!(laps.slots_between(first, last), 1);
    }

    proptest! {
        #[test]
        fn stepping_is_counting(capacity in 1usize..5000, start: u64, n in 0usize..6000) {
            let laps = Laps::new(capacity).unwrap();
            let n = n % (capacity + 1);
            let start = start >> 8;
            let from = laps.at_count(start % ((laps.lap_mask - 2).saturating_mul(capacity as u64)));
            let mut stepped = from;
            for _ in 0..n {
                stepped = laps.next(stepped);
            }
            prop_assert_eq!(stepped, laps.forward(from, n));
            prop_assert_eq!(laps.slots_between(stepped, from), n as i64);
            prop_assert_eq!(laps.count(stepped), laps.count(from).wrapping_add(n as u64));
            prop_assert_eq!(laps.checked(stepped.0), Some(stepped));
        }
    }
}
