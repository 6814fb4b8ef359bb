//! Behaviour of the owned-slot ring on one thread against a naive oracle, its
//! order and completeness on many, and what hostile contents can do to it.

use super::geometry::LARGE;
use super::word::LAP_SHIFT;
use super::*;
use crate::memory::Heap;
use crate::position::Laps;
use core::alloc::Layout;
use proptest::prelude::*;
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

/// Groups of 1, 1, 2, 2, 4, 8 and 16 slots, some of which don't divide them.
const CAPACITIES: [usize; 7] = [1, 3, 4, 7, 9, 20, 64];

fn owner(n: u16) -> Owner {
    Owner::new(n).unwrap()
}

fn geometry(capacity: usize) -> Geometry {
    Geometry::new(capacity, Layout::new::<u64>()).unwrap()
}

fn init(heap: &Heap, geometry: Geometry, start: u64) -> Ring<'_> {
    // SAFETY: the block is the test's own, and not used yet.
    unsafe { Ring::init(heap.region(), geometry, start) }
}

fn put(claim: &Claim<'_>, value: u64) {
    // SAFETY: the tests' payload is a u64, held by this claim.
    unsafe { claim.payload().cast::<u64>().write(value) };
}

fn get(taken: &Taken<'_>) -> u64 {
    // SAFETY: as `put`.
    unsafe { taken.payload().cast::<u64>().read() }
}

fn send(ring: &Ring<'_>, value: u64) -> bool {
    let Ok(claim) = ring.try_claim(owner(1)) else { return false };
    put(&claim, value);
    ring.commit(claim);
    true
}

fn receive(ring: &Ring<'_>) -> Option<u64> {
    let taken = ring.try_take(owner(2)).ok()?;
    let value = get(&taken);
    ring.release(taken);
    Some(value)
}

/// Counts near every wrap that a ring of this capacity has.
fn starts(capacity: usize) -> [u64; 6] {
    let laps = Laps::new(capacity).unwrap();
    // The last lap is all ones, however many bits it has.
    let last = laps.count(laps.at(u64::MAX, capacity - 1));
    [0, 1 << 32, (1 << 32) - 2, last, last - 2, u64::MAX - 3]
}

#[test]
fn small_slots_straddle_no_lines_and_large_ones_share_none() {
    for size in (0..300).chain(LARGE - 70..LARGE + 70) {
        for align in [1, 2, 4, 8, 16, 32, 64] {
            let payload = Layout::from_size_align(size, align).unwrap();
            let Geometry { word_offset, stride, .. } = Geometry::new(3, payload).unwrap();
            assert!(word_offset.is_multiple_of(align_of::<Slot>()));
            let payload_offset = word_offset + size_of::<Slot>();
            let used = payload_offset + size;
            assert!(payload_offset.is_multiple_of(align) && used <= stride);
            assert!(stride.is_multiple_of(align.max(8)));
            if used <= 64 {
                assert!(stride.is_power_of_two() && stride < 2 * used);
            } else if used <= LARGE {
                assert!(stride - used < align.max(8));
            } else {
                assert!(stride.is_multiple_of(64) && stride - used < 64);
            }
        }
    }
}

#[test]
fn fills_and_drains_in_order_at_every_wrap() {
    for capacity in CAPACITIES {
        for start in starts(capacity) {
            let g = geometry(capacity);
            let heap = Heap::zeroed(g.len());
            let ring = init(&heap, g, start);
            for round in 0..5u64 {
                assert!(ring.is_empty());
                for i in 0..capacity as u64 {
                    assert!(!ring.is_full());
                    assert!(send(&ring, round * 100 + i));
                }
                assert_eq!((ring.len(), ring.is_full()), (capacity, true));
                assert!(matches!(ring.try_claim(owner(1)), Err(NoClaim::Full(None))));
                for i in 0..capacity as u64 {
                    assert_eq!(receive(&ring), Some(round * 100 + i));
                }
                assert!(matches!(ring.try_take(owner(2)), Err(NoTake::Empty(None))));
            }
        }
    }
}

#[test]
fn payloads_of_any_layout_are_apart_and_aligned() {
    for payload in [
        Layout::new::<()>(),
        Layout::new::<u8>(),
        Layout::from_size_align(0, 64).unwrap(),
        Layout::from_size_align(1, 32).unwrap(),
        Layout::from_size_align(56, 8).unwrap(),
        Layout::from_size_align(57, 1).unwrap(),
        Layout::from_size_align(64, 64).unwrap(),
        Layout::new::<[u64; 50]>(),
    ] {
        let g = Geometry::new(5, payload).unwrap();
        let heap = Heap::zeroed(g.len());
        let ring = init(&heap, g, 3);
        let claims: Vec<_> = (0..5).map(|_| ring.try_claim(owner(1)).unwrap()).collect();
        for (i, claim) in claims.iter().enumerate() {
            assert!(claim.payload().as_ptr().addr().is_multiple_of(payload.align()));
            // SAFETY: the claim holds this many bytes.
            unsafe { claim.payload().write_bytes(i as u8, payload.size()) };
        }
        claims.into_iter().for_each(|claim| ring.commit(claim));
        for i in 0..5u8 {
            let taken = ring.try_take(owner(2)).unwrap();
            let p = taken.payload().as_ptr();
            // SAFETY: as above, for reading.
            let seen = unsafe { std::slice::from_raw_parts(p, payload.size()) };
            assert!(seen.iter().all(|&b| b == i));
            ring.release(taken);
        }
    }
}

#[test]
fn impossible_geometries_are_refused() {
    let byte = Layout::new::<u8>();
    assert!(Geometry::new(0, byte).is_err());
    assert!(Geometry::new((1 << 31) + 1, byte).is_err());
    assert!(Geometry::new(1, Layout::from_size_align(1, 128).unwrap()).is_err());
    let half = Layout::from_size_align(isize::MAX as usize / 2, 1).unwrap();
    assert!(Geometry::new(1, half).is_ok());
    assert!(Geometry::new(3, half).is_err());
}

// ---------------------------------------------------------------------------
// The oracle
// ---------------------------------------------------------------------------

/// What one position that is not resolved holds.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Ahead {
    Writing(u16),
    Full(u64),
    Poison,
}

/// What one resolved position still holds.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Behind {
    Reading(u16, u64),
    Orphan(u64),
}

/// The ring as a queue of positions, counted from where it started.
struct Oracle {
    capacity: u64,
    delivery: Delivery,
    /// Index of position 0.
    first_index: u64,
    head: u64,
    ahead: VecDeque<Ahead>,
    behind: BTreeMap<u64, Behind>,
    counts: Counts,
    epoch: u64,
}

#[derive(Debug, PartialEq)]
enum Outcome {
    Held(u64),
    /// Position, value, redelivered.
    Message(u64, u64, bool),
    Full(Option<u16>),
    Empty(Option<u16>),
    Pending(u16),
    Skipped,
}

impl Oracle {
    fn tail(&self) -> u64 {
        self.head + self.ahead.len() as u64
    }

    /// What keeps the slot of `position` in use since the lap before.
    fn before(&self, position: u64) -> Option<Behind> {
        position.checked_sub(self.capacity).and_then(|p| self.behind.get(&p).copied())
    }

    fn claim(&mut self, me: u16) -> Outcome {
        if self.ahead.len() as u64 == self.capacity {
            match self.ahead[0] {
                Ahead::Full(_) => return Outcome::Full(None),
                Ahead::Writing(o) => return Outcome::Full(Some(o)),
                Ahead::Poison => self.resolve(),
            }
        }
        match self.before(self.tail()) {
            Some(Behind::Reading(o, _)) => return Outcome::Full(Some(o)),
            Some(Behind::Orphan(_)) => return Outcome::Full(None),
            None => {}
        }
        self.ahead.push_back(Ahead::Writing(me));
        Outcome::Held(self.tail() - 1)
    }

    /// Slots from a position to the end of the group there.
    fn rest_of_group(&self, position: u64) -> u64 {
        let most = (self.capacity / 2).clamp(1, 16);
        let index = (position + self.first_index) % self.capacity;
        let group = 1 << most.ilog2();
        ((index / group + 1) * group).min(self.capacity) - index
    }

    /// Slots of the run that can be claimed, if the hint is right.
    fn run_to_claim(&self) -> Option<u64> {
        let run = self.rest_of_group(self.tail());
        let free = |p: u64| p < self.head + self.capacity && self.before(p).is_none();
        (run >= 2 && (self.tail()..self.tail() + run).all(free)).then_some(run)
    }

    fn run_to_take(&self) -> Option<u64> {
        let run = self.rest_of_group(self.head);
        let full = |n: u64| matches!(self.ahead.get(n as usize), Some(Ahead::Full(_)));
        (run >= 2 && (0..run).all(full)).then_some(run)
    }

    fn resolve(&mut self) {
        self.ahead.pop_front();
        self.head += 1;
    }

    fn take(&mut self, me: u16) -> Outcome {
        match self.ahead.front() {
            Some(&Ahead::Full(value)) => {
                self.behind.insert(self.head, Behind::Reading(me, value));
                self.resolve();
                Outcome::Message(self.head - 1, value, false)
            }
            Some(&Ahead::Writing(o)) => Outcome::Pending(o),
            Some(Ahead::Poison) => {
                self.resolve();
                Outcome::Skipped
            }
            None => match self.before(self.head) {
                Some(Behind::Reading(o, _)) => Outcome::Empty(Some(o)),
                Some(Behind::Orphan(_)) => self.adopt(self.head - self.capacity, me),
                None => Outcome::Empty(None),
            },
        }
    }

    fn adopt(&mut self, position: u64, me: u16) -> Outcome {
        let Some(&Behind::Orphan(value)) = self.behind.get(&position) else { unreachable!() };
        self.behind.insert(position, Behind::Reading(me, value));
        self.counts.redelivered += 1;
        Outcome::Message(position, value, true)
    }

    fn find_orphan(&mut self, me: u16) -> Option<Outcome> {
        let orphans = self.behind.iter().filter(|(_, b)| matches!(b, Behind::Orphan(_)));
        let index = |p: u64| (p + self.first_index) % self.capacity;
        let position = *orphans.map(|(p, _)| p).min_by_key(|p| index(**p))?;
        Some(self.adopt(position, me))
    }

    fn recover(&mut self, dead: u16) -> usize {
        let mut repaired = 0;
        for ahead in self.ahead.iter_mut().filter(|a| **a == Ahead::Writing(dead)) {
            *ahead = Ahead::Poison;
            self.counts.abandoned += 1;
            repaired += 1;
        }
        let held: Vec<_> = self.behind.iter().map(|(p, b)| (*p, *b)).collect();
        for (position, behind) in held {
            match behind {
                Behind::Reading(o, _) if o != dead => continue,
                Behind::Orphan(_) => continue,
                Behind::Reading(_, value) if self.delivery == Delivery::AtLeastOnce => {
                    self.behind.insert(position, Behind::Orphan(value));
                }
                Behind::Reading(..) => {
                    self.behind.remove(&position);
                    self.counts.lost += 1;
                }
            }
            repaired += 1;
        }
        self.epoch += u64::from(self.delivery == Delivery::AtLeastOnce);
        repaired
    }
}

fn outcome_of_claim(error: NoClaim) -> Outcome {
    match error {
        NoClaim::Full(o) => Outcome::Full(o.map(Owner::get)),
        NoClaim::Corrupt(e) => panic!("{e}"),
    }
}

fn outcome_of_take(error: NoTake) -> Outcome {
    match error {
        NoTake::Empty(o) => Outcome::Empty(o.map(Owner::get)),
        NoTake::Pending(o) => Outcome::Pending(o.get()),
        NoTake::Skipped => Outcome::Skipped,
        NoTake::Corrupt(e) => panic!("{e}"),
    }
}

#[derive(Clone, Debug)]
enum Op {
    Claim(u16),
    /// One of the claims, chosen by this number.
    Commit(usize),
    Abandon(usize),
    Take(u16),
    Release(usize),
    Adopt(u16),
    /// A run of so many slots at most.
    ClaimRun(u16, usize),
    CommitRun(usize),
    AbandonRun(usize),
    TakeRun(u16, usize),
    ReleaseRun(usize),
    /// The owner vanishes with all that it holds, and is recovered.
    Die(u16),
    /// Hints are set back by laps and slots.
    Stale(u64, usize),
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let who = 1u16..5;
    let op = prop_oneof![
        6 => who.clone().prop_map(Op::Claim),
        6 => any::<usize>().prop_map(Op::Commit),
        1 => any::<usize>().prop_map(Op::Abandon),
        6 => who.clone().prop_map(Op::Take),
        6 => any::<usize>().prop_map(Op::Release),
        1 => who.clone().prop_map(Op::Adopt),
        4 => (who.clone(), 2usize..20).prop_map(|(me, most)| Op::ClaimRun(me, most)),
        4 => any::<usize>().prop_map(Op::CommitRun),
        1 => any::<usize>().prop_map(Op::AbandonRun),
        4 => (who.clone(), 2usize..20).prop_map(|(me, most)| Op::TakeRun(me, most)),
        4 => any::<usize>().prop_map(Op::ReleaseRun),
        1 => who.prop_map(Op::Die),
        1 => (0u64..1 << 40, 0usize..64).prop_map(|(laps, slots)| Op::Stale(laps >> (laps % 41), slots)),
    ];
    prop::collection::vec(op, 1..300)
}

/// The position so many laps and slots before.
fn backward(laps: Laps, at: Position, back_laps: u64, back_slots: usize) -> Position {
    let mut lap = laps.lap(at).wrapping_sub(back_laps);
    let back = back_slots % laps.capacity();
    let mut index = laps.index(at);
    if index < back {
        index += laps.capacity();
        lap = lap.wrapping_sub(1);
    }
    laps.at(lap, index - back)
}

/// Sets both hints back, as processes do that were stopped before they stored
/// them.
fn set_hints_back(ring: &Ring<'_>, back_laps: u64, back_slots: usize) {
    for hint in [&ring.header().head, &ring.header().tail] {
        let at = Position(hint.load(Ordering::Relaxed));
        let at = backward(ring.geometry.laps, at, back_laps, back_slots);
        hint.store(at.0, Ordering::Relaxed);
    }
}

/// Where a hint has been: counts of slots since the start, with their positions.
struct Past(Vec<(u64, Position)>);

impl Past {
    /// It is there now.
    fn note(&mut self, laps: Laps, count: u64) {
        let (last, mut at) = self.0[self.0.len() - 1];
        for _ in last..count {
            at = laps.next(at);
        }
        if count > last {
            self.0.push((count, at));
        }
    }

    fn last(&self) -> Position {
        self.0[self.0.len() - 1].1
    }

    /// Where it was so many slots ago, or shortly before that: not inside a run. What was
    /// before the start did not come in runs.
    fn back(&self, laps: Laps, back_laps: u64, back_slots: usize) -> Position {
        let (last, _) = self.0[self.0.len() - 1];
        let (capacity, slots) = (laps.capacity() as u64, (back_slots % laps.capacity()) as u64);
        match last.checked_sub(back_laps * capacity + slots) {
            Some(count) => self.0.iter().rev().find(|(at, _)| *at <= count).unwrap().1,
            None => {
                let before = back_laps * capacity + slots - last;
                backward(laps, self.0[0].1, before / capacity, (before % capacity) as usize)
            }
        }
    }
}

fn run(capacity: usize, start: u64, delivery: Delivery, ops: Vec<Op>) {
    let g = geometry(capacity);
    let laps = g.laps;
    let heap = Heap::zeroed(g.len());
    let ring = init(&heap, g, start);
    let first = laps.at_count(start);
    let mut oracle = Oracle {
        capacity: capacity as u64,
        delivery,
        first_index: laps.index(first) as u64,
        head: 0,
        ahead: VecDeque::new(),
        behind: BTreeMap::new(),
        counts: Counts::default(),
        epoch: 0,
    };
    // Who holds what: (owner, oracle's position, the ring's handle).
    let mut claims: Vec<(u16, u64, Claim<'_>)> = vec![];
    let mut takens: Vec<(u16, u64, Taken<'_>)> = vec![];
    let mut claimed_runs: Vec<(u16, u64, ClaimedRun<'_>)> = vec![];
    let mut taken_runs: Vec<(u16, u64, TakenRun<'_>)> = vec![];
    let (mut heads, mut tails) = (Past(vec![(0, first)]), Past(vec![(0, first)]));
    let mut next_value = 1000;
    for op in ops {
        match op {
            Op::Claim(me) => {
                let expected = oracle.claim(me);
                match ring.try_claim(owner(me)) {
                    Ok(claim) => {
                        let Outcome::Held(position) = expected else { panic!("{expected:?}") };
                        claims.push((me, position, claim));
                    }
                    Err(error) => assert_eq!(outcome_of_claim(error), expected),
                }
            }
            Op::Commit(i) if !claims.is_empty() => {
                let (me, position, claim) = claims.swap_remove(i % claims.len());
                next_value += 1;
                put(&claim, next_value);
                ring.commit(claim);
                let ahead = &mut oracle.ahead[(position - oracle.head) as usize];
                assert_eq!(*ahead, Ahead::Writing(me));
                *ahead = Ahead::Full(next_value);
            }
            Op::Abandon(i) if !claims.is_empty() => {
                let (_, position, claim) = claims.swap_remove(i % claims.len());
                ring.abandon(claim);
                oracle.ahead[(position - oracle.head) as usize] = Ahead::Poison;
                oracle.counts.abandoned += 1;
            }
            Op::Take(me) => {
                let expected = oracle.take(me);
                match ring.try_take(owner(me)) {
                    Ok(taken) => {
                        let Outcome::Message(at, ..) = expected else { panic!("{expected:?}") };
                        let found = Outcome::Message(at, get(&taken), taken.redelivered());
                        assert_eq!(found, expected);
                        takens.push((me, at, taken));
                    }
                    Err(error) => assert_eq!(outcome_of_take(error), expected),
                }
            }
            Op::Release(i) if !takens.is_empty() => {
                let (_, position, taken) = takens.swap_remove(i % takens.len());
                ring.release(taken);
                assert!(oracle.behind.remove(&position).is_some());
            }
            Op::Adopt(me) => match (ring.try_adopt(owner(me)), oracle.find_orphan(me)) {
                (Some(taken), Some(Outcome::Message(at, value, true))) => {
                    assert!(taken.redelivered());
                    assert_eq!(get(&taken), value);
                    takens.push((me, at, taken));
                }
                (None, None) => {}
                (taken, expected) => panic!("{taken:?} is not {expected:?}"),
            },
            Op::Die(o) => {
                claims.retain(|c| c.0 != o);
                takens.retain(|t| t.0 != o);
                claimed_runs.retain(|r| r.0 != o);
                taken_runs.retain(|r| r.0 != o);
                assert_eq!(ring.recover(owner(o), delivery), oracle.recover(o));
                assert_eq!(ring.recover(owner(o), delivery), oracle.recover(o));
            }
            Op::Stale(back_laps, back_slots) => {
                let back = |past: &Past| past.back(laps, back_laps, back_slots).0;
                ring.header().tail.store(back(&tails), Ordering::Relaxed);
                ring.header().head.store(back(&heads), Ordering::Relaxed);
            }
            Op::ClaimRun(me, most) => {
                let expected = oracle.run_to_claim().filter(|run| *run <= most as u64);
                let is_at_tail = ring.header().tail.load(Ordering::Relaxed) == tails.last().0;
                match ring.claim_run(owner(me), most) {
                    Some(run) => {
                        assert_eq!(Some(run.len() as u64), expected);
                        claimed_runs.push((me, oracle.tail(), run));
                        let claimed = expected.into_iter().flat_map(|run| 0..run);
                        oracle.ahead.extend(claimed.map(|_| Ahead::Writing(me)));
                    }
                    None => assert!(!is_at_tail || expected.is_none()),
                }
            }
            Op::CommitRun(i) if !claimed_runs.is_empty() => {
                let (me, position, run) = claimed_runs.swap_remove(i % claimed_runs.len());
                let at = (position - oracle.head) as usize;
                for ahead in oracle.ahead.range_mut(at..at + run.len()) {
                    assert_eq!(*ahead, Ahead::Writing(me));
                    next_value += 1;
                    *ahead = Ahead::Full(next_value);
                }
                let first = next_value + 1 - run.len() as u64;
                ring.commit_run(run, |nth, to| {
                    // SAFETY: a u64 of the run.
                    unsafe { to.cast::<u64>().write(first + nth as u64) }
                });
            }
            Op::AbandonRun(i) if !claimed_runs.is_empty() => {
                let (_, position, run) = claimed_runs.swap_remove(i % claimed_runs.len());
                let at = (position - oracle.head) as usize;
                oracle.ahead.range_mut(at..at + run.len()).for_each(|a| *a = Ahead::Poison);
                oracle.counts.abandoned += run.len() as u64;
                ring.abandon_run(run);
            }
            Op::TakeRun(me, most) => {
                let expected = oracle.run_to_take().filter(|run| *run <= most as u64);
                let is_at_head = ring.header().head.load(Ordering::Relaxed) == heads.last().0;
                match ring.take_run(owner(me), most) {
                    Some(run) => {
                        assert_eq!(Some(run.len() as u64), expected);
                        taken_runs.push((me, oracle.head, run));
                        for _ in 0..expected.unwrap_or(0) {
                            assert!(matches!(oracle.take(me), Outcome::Message(..)));
                        }
                    }
                    None => assert!(!is_at_head || expected.is_none()),
                }
            }
            Op::ReleaseRun(i) if !taken_runs.is_empty() => {
                let (me, position, run) = taken_runs.swap_remove(i % taken_runs.len());
                let mut expected = (position..position + run.len() as u64)
                    .map(|position| oracle.behind.remove(&position));
                ring.release_run(run, |_, from| {
                    // SAFETY: a published u64 of the run.
                    let value = unsafe { from.cast::<u64>().read() };
                    assert_eq!(expected.next().flatten(), Some(Behind::Reading(me, value)));
                });
                assert!(expected.next().is_none());
            }
            Op::Commit(_) | Op::Abandon(_) | Op::Release(_) => {}
            Op::CommitRun(_) | Op::AbandonRun(_) | Op::ReleaseRun(_) => {}
        }
        tails.note(laps, oracle.tail());
        heads.note(laps, oracle.head);
        assert_eq!(ring.len(), oracle.ahead.len());
        assert_eq!(ring.is_empty(), oracle.ahead.is_empty());
        assert_eq!(ring.orphan_epoch(), oracle.epoch);
        let in_use = match oracle.ahead.front() {
            Some(front) if oracle.ahead.len() == capacity => *front != Ahead::Poison,
            _ => oracle.before(oracle.tail()).is_some(),
        };
        assert_eq!(ring.is_full(), in_use);
        // Positions wrap with the lap, before a count does.
        let (counts, from) = (ring.counts(), laps.count(first));
        let period = laps.count(laps.at(u64::MAX, capacity - 1)).wrapping_add(1);
        let since = |count: u64| {
            if count >= from { count - from } else { count.wrapping_add(period).wrapping_sub(from) }
        };
        assert_eq!((since(counts.claimed), since(counts.resolved)), (oracle.tail(), oracle.head));
        let Counts { lost, redelivered, abandoned, .. } = counts;
        let Counts { lost: l, redelivered: r, abandoned: a, .. } = oracle.counts;
        assert_eq!((lost, redelivered, abandoned), (l, r, a));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]
    #[test]
    fn behaves_as_the_oracle(
        capacity in 0usize..CAPACITIES.len(),
        start in 0usize..6,
        near in 0u64..10,
        again: bool,
        ops in ops(),
    ) {
        let capacity = CAPACITIES[capacity];
        let start = starts(capacity)[start].saturating_sub(near);
        let delivery = if again { Delivery::AtLeastOnce } else { Delivery::AtMostOnce };
        run(capacity, start, delivery, ops);
    }
}

#[test]
fn a_large_ring_with_few_lap_bits_wraps_too() {
    // 2^17 slots leave 47 bits for laps, fewer than a word has room for.
    let capacity = 1 << 17;
    let laps = Laps::new(capacity).unwrap();
    let start = laps.count(laps.at(u64::MAX, capacity - 3));
    let g = geometry(capacity);
    let heap = Heap::zeroed(g.len());
    let ring = init(&heap, g, start);
    for i in 0..3 * capacity as u64 {
        assert!(send(&ring, i));
        assert_eq!(receive(&ring), Some(i));
        if i % 1021 == 0 {
            set_hints_back(&ring, i, 12345);
        }
    }
    assert!(ring.is_empty());
}

#[test]
fn a_run_of_another_ring_is_refused() {
    let (one, two) = (geometry(1024), geometry(4));
    let heaps = (Heap::zeroed(one.len()), Heap::zeroed(two.len()));
    let (one, two) = (init(&heaps.0, one, 512), init(&heaps.1, two, 0));
    let refused = |f: &dyn Fn()| std::panic::catch_unwind(std::panic::AssertUnwindSafe(f)).is_err();
    assert!(refused(&|| two.commit_run(one.claim_run(owner(1), 16).unwrap(), |_, _| ())));
    assert!(refused(&|| two.abandon_run(one.claim_run(owner(1), 16).unwrap())));
    one.recover(owner(1), Delivery::AtMostOnce);
    while ring_skips(&one) {}
    (0..16).for_each(|i| assert!(send(&one, i)));
    assert!(refused(&|| two.release_run(one.take_run(owner(1), 16).unwrap(), |_, _| ())));
    assert!(two.is_empty());
}

fn ring_skips(ring: &Ring<'_>) -> bool {
    matches!(ring.try_take(owner(2)), Err(NoTake::Skipped))
}

#[test]
fn what_is_in_unfinished_runs_is_counted() {
    let g = geometry(192);
    let heap = Heap::zeroed(g.len());
    let ring = init(&heap, g, 0);
    let late = g.laps.at_count(16).0;
    for i in 0..12 {
        let _ = ring.claim_run(owner(1 + i), 16).unwrap();
    }
    // One that was stopped since its claim.
    ring.header().tail.store(late, Ordering::Relaxed);
    assert_eq!((ring.len(), ring.is_full(), ring.counts().claimed), (192, true, 192));
}

#[test]
fn a_stale_hint_costs_a_logarithmic_number_of_steps() {
    let capacity = 100_000;
    let g = geometry(capacity);
    let heap = Heap::zeroed(g.len());
    let ring = init(&heap, g, 77);
    let from = g.laps.at_count(77);
    for i in 0..capacity as u64 {
        if i.is_power_of_two() || i == capacity as u64 - 1 {
            let probes = std::cell::Cell::new(0);
            let found = ring.gallop(from, |word: Word| {
                probes.set(probes.get() + 1);
                word.is_claimed()
            });
            assert_eq!(g.laps.slots_between(found, from), i as i64);
            assert!(probes.get() <= 36, "{} probes for {i}", probes.get());
        }
        assert!(send(&ring, i));
    }
}

// ---------------------------------------------------------------------------
// Deaths, one by one
// ---------------------------------------------------------------------------

#[test]
fn a_writer_that_dies_costs_its_own_message_only() {
    for delivery in [Delivery::AtMostOnce, Delivery::AtLeastOnce] {
        let g = geometry(3);
        let heap = Heap::zeroed(g.len());
        let ring = init(&heap, g, 0);
        assert!(send(&ring, 1));
        let _ = ring.try_claim(owner(9)).unwrap();
        assert!(send(&ring, 3));
        assert_eq!(receive(&ring), Some(1));
        assert!(matches!(ring.try_take(owner(2)), Err(NoTake::Pending(o)) if o == owner(9)));
        assert_eq!(ring.recover(owner(9), delivery), 1);
        assert!(matches!(ring.try_take(owner(2)), Err(NoTake::Skipped)));
        assert_eq!(receive(&ring), Some(3));
        assert!(ring.is_empty());
        assert_eq!(ring.counts().abandoned, 1);
    }
}

#[test]
fn a_reader_that_dies_loses_its_message_or_hands_it_on() {
    for (delivery, again) in [(Delivery::AtMostOnce, None), (Delivery::AtLeastOnce, Some(1))] {
        let g = geometry(2);
        let heap = Heap::zeroed(g.len());
        let ring = init(&heap, g, 0);
        assert!(send(&ring, 1) && send(&ring, 2));
        let _ = ring.try_take(owner(9)).unwrap();
        assert!(matches!(ring.try_claim(owner(1)), Err(NoClaim::Full(Some(o))) if o == owner(9)));
        let before = ring.orphan_epoch();
        assert_eq!(ring.recover(owner(9), delivery), 1);
        assert_eq!(ring.orphan_epoch() != before, again.is_some());
        assert_eq!(receive(&ring), Some(2));
        let adopted = ring.try_adopt(owner(2)).map(|taken| {
            assert!(taken.redelivered());
            let value = get(&taken);
            ring.release(taken);
            value
        });
        assert_eq!(adopted, again);
        assert!(send(&ring, 3) && send(&ring, 4) && !send(&ring, 5));
    }
}

#[test]
fn an_orphan_that_nobody_announced_is_met_when_the_ring_has_gone_round() {
    let g = geometry(2);
    let heap = Heap::zeroed(g.len());
    let ring = init(&heap, g, 0);
    assert!(send(&ring, 1));
    let _ = ring.try_take(owner(9)).unwrap();
    // The recoverer was killed between the conversion and the announcement.
    ring.slot(0).word.store(Word::new(0, ORPHAN, 0).0, Ordering::Relaxed);
    assert!(send(&ring, 2));
    assert!(matches!(ring.try_claim(owner(1)), Err(NoClaim::Full(None))));
    assert_eq!(receive(&ring), Some(2));
    let taken = ring.try_take(owner(2)).unwrap();
    assert!(taken.redelivered());
    assert_eq!(get(&taken), 1);
    ring.release(taken);
    assert!(matches!(ring.try_take(owner(2)), Err(NoTake::Empty(None))));
    assert!(send(&ring, 3));
}

#[test]
fn an_adopter_that_dies_hands_on_again() {
    let g = geometry(1);
    let heap = Heap::zeroed(g.len());
    let ring = init(&heap, g, u64::MAX);
    assert!(send(&ring, 1));
    let _ = ring.try_take(owner(7)).unwrap();
    for dead in [7, 8, 9] {
        ring.recover(owner(dead), Delivery::AtLeastOnce);
        let _ = ring.try_adopt(owner(dead + 1)).unwrap();
    }
    ring.recover(owner(10), Delivery::AtLeastOnce);
    let taken = ring.try_adopt(owner(2)).unwrap();
    assert_eq!((get(&taken), ring.counts().redelivered), (1, 4));
    ring.release(taken);
    assert!(send(&ring, 2));
}

// ---------------------------------------------------------------------------
// Many threads
// ---------------------------------------------------------------------------

#[derive(Clone, Copy)]
#[repr(C)]
struct Message {
    producer: u64,
    sequence: u64,
    check: [u64; 4],
}

fn stress(capacity: usize, producers: u16, consumers: u16, each: u64) {
    let g = Geometry::new(capacity, Layout::new::<Message>()).unwrap();
    let heap = Heap::zeroed(g.len());
    let ring = init(&heap, g, (1 << 32) - 100);
    let left = AtomicU64::new(each * u64::from(producers));
    let received = std::thread::scope(|scope| {
        for p in 0..producers {
            scope.spawn(move || {
                let (mut sequence, mut tries) = (0, 0u64);
                let message = |sequence: u64| {
                    let producer = u64::from(p);
                    Message { producer, sequence, check: [producer ^ sequence; 4] }
                };
                while sequence < each {
                    // Now in runs, now one by one.
                    if sequence / 64 % 2 == 1
                        && let Some(run) = ring.claim_run(owner(1 + p), (each - sequence) as usize)
                    {
                        tries += 1;
                        if tries.is_multiple_of(97) {
                            ring.abandon_run(run);
                            continue;
                        }
                        let first = sequence;
                        sequence += run.len() as u64;
                        ring.commit_run(run, |nth, to| {
                            // SAFETY: a slot of the run holds room for a message.
                            unsafe { to.cast::<Message>().write(message(first + nth as u64)) };
                        });
                        continue;
                    }
                    let Ok(claim) = ring.try_claim(owner(1 + p)) else {
                        std::thread::yield_now();
                        continue;
                    };
                    tries += 1;
                    if tries.is_multiple_of(97) {
                        ring.abandon(claim);
                        continue;
                    }
                    // SAFETY: the claim holds room for a message.
                    unsafe { claim.payload().cast::<Message>().write(message(sequence)) };
                    ring.commit(claim);
                    sequence += 1;
                }
            });
        }
        let consumers: Vec<_> = (0..consumers)
            .map(|c| {
                let left = &left;
                scope.spawn(move || {
                    let mut last = vec![None; producers as usize];
                    let mut seen = vec![vec![]; producers as usize];
                    let mut deal = |m: Message| {
                        assert_eq!(m.check, [m.producer ^ m.sequence; 4]);
                        let p = m.producer as usize;
                        assert!(last[p] < Some(m.sequence), "order of producer {p}");
                        last[p] = Some(m.sequence);
                        seen[p].push(m.sequence);
                        left.fetch_sub(1, Ordering::Relaxed);
                    };
                    let mut looks = 0u64;
                    while left.load(Ordering::Relaxed) > 0 {
                        looks += 1;
                        if looks / 64 % 2 == 1
                            && let Some(run) = ring.take_run(owner(100 + c), 16)
                        {
                            ring.release_run(run, |_, from| {
                                // SAFETY: a published message of the run.
                                deal(unsafe { from.cast::<Message>().read() });
                            });
                            continue;
                        }
                        let taken = match ring.try_take(owner(100 + c)) {
                            Ok(taken) => taken,
                            Err(NoTake::Corrupt(e)) => panic!("{e}"),
                            Err(NoTake::Skipped) => continue,
                            Err(_) => {
                                std::thread::yield_now();
                                continue;
                            }
                        };
                        // SAFETY: a published message, held by `taken`.
                        let m = unsafe { taken.payload().cast::<Message>().read() };
                        ring.release(taken);
                        deal(m);
                    }
                    seen
                })
            })
            .collect();
        consumers.into_iter().map(|c| c.join().unwrap()).collect::<Vec<_>>()
    });
    for p in 0..producers as usize {
        let mut all: Vec<u64> = received.iter().flat_map(|seen| seen[p].iter().copied()).collect();
        all.sort_unstable();
        assert!(all.iter().copied().eq(0..each), "producer {p}: not each exactly once");
    }
    assert!(ring.is_empty());
}

#[test]
fn threads_exchange_every_message_once_and_in_order() {
    let each = if cfg!(debug_assertions) { 50_000 } else { 1_000_000 };
    stress(64, 2, 2, each);
    stress(7, 3, 2, each / 2);
    stress(2, 2, 3, each / 4);
    stress(1, 2, 2, each / 4);
}

/// Threads whose owners die and are recovered while others go on. A "process"
/// is one owner number; its one thread forgets what it holds and then, knowing
/// itself dead, is recovered by the next.
#[test]
fn deaths_under_load_lose_what_was_held_and_no_more() {
    for delivery in [Delivery::AtMostOnce, Delivery::AtLeastOnce] {
        let each = if cfg!(debug_assertions) { 40_000u64 } else { 400_000 };
        let g = geometry(5);
        let heap = Heap::zeroed(g.len());
        let ring = init(&heap, g, u64::MAX);
        let unsent = AtomicU64::new(2);
        let (held, abandoned) = (AtomicU64::new(0), AtomicU64::new(0));
        let mut received: Vec<u64> = std::thread::scope(|scope| {
            for p in 0..2u16 {
                let (unsent, abandoned) = (&unsent, &abandoned);
                scope.spawn(move || {
                    let me = owner(1 + p);
                    let (mut n, mut died) = (0, 0);
                    while n < each {
                        if n % 41 < 38
                            && n % 3 == 0
                            && n + 1 < each
                            && let Some(run) = ring.claim_run(me, 2)
                        {
                            ring.commit_run(run, |nth, to| {
                                let value = u64::from(p) << 32 | (n + nth as u64);
                                // SAFETY: a u64 of the run.
                                unsafe { to.cast::<u64>().write(value) };
                            });
                            n += 2;
                            continue;
                        }
                        if n % 41 == 38
                            && died != n
                            && let Some(run) = ring.claim_run(me, 2)
                        {
                            // Dies with the run.
                            let _ = run;
                            died = n;
                            assert_eq!(ring.recover(me, delivery), 2);
                            abandoned.fetch_add(2, Ordering::Relaxed);
                            continue;
                        }
                        match ring.try_claim(me) {
                            Ok(claim) if n % 41 == 40 => {
                                // Dies with the claim.
                                put(&claim, u64::MAX);
                                let _ = claim;
                                assert_eq!(ring.recover(me, delivery), 1);
                                abandoned.fetch_add(1, Ordering::Relaxed);
                                n += 1;
                            }
                            Ok(claim) => {
                                put(&claim, u64::from(p) << 32 | n);
                                ring.commit(claim);
                                n += 1;
                            }
                            Err(NoClaim::Full(_)) => std::thread::yield_now(),
                            Err(NoClaim::Corrupt(e)) => panic!("{e}"),
                        }
                    }
                    unsent.fetch_sub(1, Ordering::Release);
                });
            }
            let consumers: Vec<_> = (0..2u16)
                .map(|c| {
                    let (unsent, held) = (&unsent, &held);
                    scope.spawn(move || {
                        let me = owner(10 + c);
                        let (mut seen, mut n, mut epoch) = (vec![], 0u64, 0);
                        loop {
                            let done = unsent.load(Ordering::Acquire) == 0;
                            let now = ring.orphan_epoch();
                            let adopted = if now == epoch { None } else { ring.try_adopt(me) };
                            let taken = match adopted {
                                Some(taken) => Ok(taken),
                                None => {
                                    epoch = now;
                                    if let Some(run) = ring.take_run(me, 2) {
                                        n += 1;
                                        if n % 31 == 0 {
                                            held.fetch_add(2, Ordering::Relaxed);
                                            let _ = run;
                                            assert_eq!(ring.recover(me, delivery), 2);
                                        } else {
                                            // SAFETY: a u64 of the run.
                                            ring.release_run(run, |_, from| unsafe {
                                                seen.push(from.cast::<u64>().read());
                                            });
                                        }
                                        continue;
                                    }
                                    ring.try_take(me)
                                }
                            };
                            match taken {
                                Ok(taken) => {
                                    n += 1;
                                    if n % 29 == 0 {
                                        held.fetch_add(1, Ordering::Relaxed);
                                        let _ = taken;
                                        assert_eq!(ring.recover(me, delivery), 1);
                                        continue;
                                    }
                                    seen.push(get(&taken));
                                    ring.release(taken);
                                }
                                Err(NoTake::Empty(_)) if done => {
                                    // An orphan may have come up since.
                                    if ring.orphan_epoch() == epoch && ring.is_empty() {
                                        break seen;
                                    }
                                }
                                Err(NoTake::Corrupt(e)) => panic!("{e}"),
                                Err(_) => std::thread::yield_now(),
                            }
                        }
                    })
                })
                .collect();
            consumers.into_iter().flat_map(|c| c.join().unwrap()).collect()
        });
        // A consumer may have left before the other one died a last time.
        while let Some(taken) = ring.try_adopt(owner(20)) {
            received.push(get(&taken));
            ring.release(taken);
        }
        received.sort_unstable();
        let sent = 2 * (each - each / 41);
        let lost = if delivery == Delivery::AtMostOnce { held.into_inner() } else { 0 };
        assert_eq!(received.len() as u64, sent - lost);
        assert!(received.is_sorted_by(|a, b| a < b), "a message came twice");
        assert!(received.iter().all(|&v| v & 0xFFFF_FFFF < each && v % (1 << 32) % 41 != 40));
        assert_eq!(ring.counts().lost, lost);
        assert_eq!(ring.counts().abandoned, abandoned.into_inner());
    }
}

// ---------------------------------------------------------------------------
// Hostile contents
// ---------------------------------------------------------------------------

/// A small generator of arbitrary words (xorshift), some of them nearly right.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A word: any bits, or any state and owner in a lap near `lap`.
    fn word(&mut self, lap: u64) -> u64 {
        let bits = self.next();
        match self.next() % 3 {
            0 => bits,
            _ => {
                Word::new(
                    lap.wrapping_add(bits % 5).wrapping_sub(2),
                    bits >> 8 & 7,
                    bits as u16 & 3,
                )
                .0
            }
        }
    }
}

/// Every operation once; any answer is right that comes, soon, and points
/// into the region.
fn poke(ring: &Ring<'_>, heap: &Heap, limit: Duration) {
    let range = heap.region().base().as_ptr().addr()..;
    let size = ring.geometry.payload.size();
    let inside = |p: NonNull<u8>| {
        assert!(range.contains(&p.as_ptr().addr()));
        assert!(p.as_ptr().addr() + size <= range.start + heap.region().len());
        assert!(p.as_ptr().addr().is_multiple_of(8));
    };
    let begin = Instant::now();
    if let Ok(claim) = ring.try_claim(owner(1)) {
        inside(claim.payload());
        if begin.elapsed().subsec_nanos() & 1 == 0 {
            ring.commit(claim)
        } else {
            ring.abandon(claim)
        }
    }
    if let Ok(taken) = ring.try_take(owner(2)) {
        inside(taken.payload());
        ring.release(taken);
    }
    if let Some(taken) = ring.try_adopt(owner(3)) {
        inside(taken.payload());
        let _ = taken;
    }
    if let Some(run) = ring.claim_run(owner(1), 16) {
        match begin.elapsed().subsec_nanos() % 3 {
            0 => ring.commit_run(run, |_, to| inside(to)),
            1 => ring.abandon_run(run),
            _ => {}
        }
    }
    if let Some(run) = ring.take_run(owner(2), 16)
        && begin.elapsed().subsec_nanos() & 1 == 0
    {
        ring.release_run(run, |_, from| inside(from));
    }
    ring.recover(owner(1), Delivery::AtMostOnce);
    ring.recover(owner(3), Delivery::AtMostOnce);
    ring.recover(owner(2), Delivery::AtLeastOnce);
    assert!(ring.len() <= ring.geometry.capacity());
    let _ = (ring.is_empty(), ring.is_full(), ring.counts(), ring.orphan_epoch());
    assert!(begin.elapsed() < limit, "took {:?}", begin.elapsed());
}

#[test]
fn arbitrary_words_and_hints_are_answered() {
    let rounds = if cfg!(debug_assertions) { 3_000 } else { 100_000 };
    let mut noise = Noise(0x9E37_79B9_7F4A_7C15);
    for capacity in [1, 2, 3, 4, 5, 6, 7, 8, 64, 1000] {
        let g = geometry(capacity);
        let heap = Heap::zeroed(g.len());
        let ring = init(&heap, g, 0);
        for _ in 0..rounds / capacity.max(8) * 8 {
            let lap = noise.next() >> LAP_SHIFT;
            for index in 0..capacity {
                ring.slot(index).word.store(noise.word(lap), Ordering::Relaxed);
            }
            for hint in [&ring.header().head, &ring.header().tail] {
                let near = g.laps.at(lap, noise.next() as usize % capacity).0;
                let hint_value = if noise.next().is_multiple_of(3) { noise.next() } else { near };
                hint.store(hint_value, Ordering::Relaxed);
            }
            poke(&ring, &heap, Duration::from_secs(5));
        }
    }
}

/// Laps a large part of a turn apart, each ahead of the one before: walks that
/// only ever go on. The budget ends them.
#[test]
fn laps_that_chase_each_other_end_at_the_budget() {
    let mut noise = Noise(7);
    let mut spent = 0;
    for capacity in [1, 2, 3, 4, 5, 6, 7, 8, 1000] {
        let g = geometry(capacity);
        let heap = Heap::zeroed(g.len());
        let ring = init(&heap, g, 0);
        for _ in 0..300 {
            for index in 0..capacity {
                let lap = g.laps.cut(u64::MAX) / 8 * (noise.next() % 8);
                let word = Word::new(lap, noise.next() % 8, noise.next() as u16 & 3);
                ring.slot(index).word.store(word.0, Ordering::Relaxed);
            }
            let hint = g.laps.at(noise.next(), 0).0;
            ring.header().head.store(hint, Ordering::Relaxed);
            ring.header().tail.store(hint, Ordering::Relaxed);
            let begin = Instant::now();
            let claim = ring.try_claim(owner(1)).map(drop);
            let take = ring.try_take(owner(1)).map(drop);
            assert!(begin.elapsed() < Duration::from_secs(3), "{:?}", begin.elapsed());
            for error in [
                if let Err(NoClaim::Corrupt(e)) = claim { Some(e) } else { None },
                if let Err(NoTake::Corrupt(e)) = take { Some(e) } else { None },
            ] {
                spent += u32::from(error.is_some_and(|e| e.to_string().contains("no end")));
            }
        }
    }
    assert!(spent > 0, "no walk was ended by the budget");
}

#[test]
fn a_scribbler_at_work_stops_nobody() {
    for capacity in [1, 3, 8] {
        let g = geometry(capacity);
        let heap = Heap::zeroed(g.len());
        let ring = init(&heap, g, 0);
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let stop = &stop;
            scope.spawn(move || {
                let mut noise = Noise(42 + capacity as u64);
                while !stop.load(Ordering::Relaxed) {
                    let lap = noise.next() % 4;
                    let word = noise.word(lap);
                    match noise.next() as usize % (capacity + 2) {
                        0 => ring.header().head.store(noise.next(), Ordering::Relaxed),
                        1 => ring.header().tail.store(noise.next() % 64, Ordering::Relaxed),
                        n => ring.slot(n - 2).word.store(word, Ordering::Relaxed),
                    }
                }
            });
            for _ in 0..if cfg!(debug_assertions) { 5_000 } else { 200_000 } {
                poke(&ring, &heap, Duration::from_secs(20));
            }
            stop.store(true, Ordering::Relaxed);
        });
    }
}
