//! Sequences of operations on arrays, whose elements are atomic words or are
//! not, through the public API, by parties that come, go and die, against
//! vectors.

#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use slipring::{Array, ArrayGuard, Error, LockError, Pod, Segment, Unlink};
use slipring_fuzz::{Party, name};
use std::fmt::Debug;
use std::time::Duration;

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Op {
    Attach(u8),
    Detach(u8),
    /// `true`: and is recovered at once, not by whoever waits for its lock.
    Die(u8, bool),
    Get(u8, u8),
    Set(u8, u8, u32),
    Swap(u8, u8, u32),
    CompareExchange(u8, u8, u32, u32),
    Fetch(u8, u8, u8, u32),
    Snapshot(u8),
    Read(u8, u8, u8),
    Write(u8, u8, u8, u32),
    CopyFrom(u8, u32),
    /// Writes in place under the lock, and unlocks; the bits say whether it
    /// waits, and whether it makes the array clean.
    InPlace(u8, u8, u32, bool, bool),
    /// The same, but keeps the lock until it dies.
    Keep(u8, u8, u32),
}

#[derive(Arbitrary, Debug)]
struct Input {
    /// Which of the two arrays: of words, or of elements of three bytes.
    odd: bool,
    len: u8,
    ops: Vec<Op>,
}

const OPS: usize = 100;
const PARTIES: usize = 3;
const DEAD: usize = 5;

type Odd = [u8; 3];

/// What the two arrays have in common, and what only one can do.
trait Element: Pod + PartialEq + Debug {
    /// Whether elements are read and written without the lock.
    const ATOMIC: bool;
    fn of(x: u32) -> Self;
    /// Operations on one element, against the same on a variable.
    fn fetch(_array: &Array<Self>, _at: usize, _which: u8, _x: u32, _element: &mut Self) {}
    fn exchange(_array: &Array<Self>, _at: usize, _now: u32, _new: u32, _element: &mut Self) {}
    fn swap(_array: &Array<Self>, _at: usize, _x: u32, _element: &mut Self) {}
}

impl Element for Odd {
    const ATOMIC: bool = false;

    fn of(x: u32) -> Odd {
        [x as u8, (x >> 8) as u8, (x >> 16) as u8]
    }
}

impl Element for u32 {
    const ATOMIC: bool = true;

    fn of(x: u32) -> u32 {
        x
    }

    fn fetch(array: &Array<u32>, at: usize, which: u8, x: u32, element: &mut u32) {
        let n = *element;
        let (old, new) = match which % 7 {
            0 => (array.fetch_add(at, x), n.wrapping_add(x)),
            1 => (array.fetch_sub(at, x), n.wrapping_sub(x)),
            2 => (array.fetch_max(at, x), n.max(x)),
            3 => (array.fetch_min(at, x), n.min(x)),
            4 => (array.fetch_and(at, x), n & x),
            5 => (array.fetch_or(at, x), n | x),
            _ => (array.fetch_xor(at, x), n ^ x),
        };
        assert_eq!(old.unwrap(), n);
        *element = new;
    }

    fn exchange(array: &Array<u32>, at: usize, now: u32, new: u32, element: &mut u32) {
        let now = if now.is_multiple_of(2) { *element } else { now };
        let found = array.compare_exchange(at, now, new).unwrap();
        if now == *element {
            assert_eq!(found, Ok(now));
            *element = new;
        } else {
            assert_eq!(found, Err(*element));
        }
    }

    fn swap(array: &Array<u32>, at: usize, x: u32, element: &mut u32) {
        assert_eq!(array.swap(at, x).unwrap(), *element);
        *element = x;
    }
}

/// Who holds the lock.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Holder {
    Nobody,
    /// This one, until it dies.
    Party(usize),
    /// A dead one, whom nobody has recovered, or somebody has.
    Dead,
}

struct Oracle<T> {
    elements: Vec<T>,
    holder: Holder,
    poisoned: bool,
}

impl<T: Element> Oracle<T> {
    /// Whether a call that locks would wait for ever. If not, it recovers the
    /// dead.
    fn would_wait(&mut self) -> bool {
        if self.holder == Holder::Dead {
            (self.holder, self.poisoned) = (Holder::Nobody, true);
        }
        self.holder != Holder::Nobody
    }

    /// Judges what a call gave that locks within, unless it was out of range;
    /// whether it should have done its work.
    fn judge<R: Debug>(&self, outcome: &Result<R, Error>, in_range: bool) -> bool {
        match outcome {
            Ok(_) => assert!(in_range && !self.poisoned),
            Err(Error::OutOfRange { index, len }) => {
                assert!(!in_range && *len == self.elements.len() && index >= len);
            }
            Err(Error::Poisoned) => assert!(in_range && self.poisoned),
            Err(error) => panic!("{error}"),
        }
        outcome.is_ok()
    }

    /// Judges an attempt to lock.
    fn locked<'a>(
        &mut self,
        outcome: Result<ArrayGuard<'a, T>, LockError<ArrayGuard<'a, T>>>,
    ) -> Option<ArrayGuard<'a, T>> {
        if self.holder == Holder::Dead && matches!(outcome, Err(LockError::Timeout)) {
            // Too short a wait to ask whether it is alive.
            return None;
        }
        match (outcome, self.would_wait()) {
            (Ok(guard), false) => {
                assert!(!self.poisoned, "the next owner was not told");
                Some(guard)
            }
            (Err(LockError::Poisoned(guard)), false) => {
                assert!(self.poisoned, "poisoned by nobody");
                Some(guard)
            }
            (Err(LockError::WouldBlock | LockError::Timeout), true) => None,
            (outcome, _) => panic!("{outcome:?}, held by {:?}", self.holder),
        }
    }
}

fn run<T: Element>(len: usize, ops: Vec<Op>) {
    let name = name("array");
    let builder = Segment::builder(&name)
        .array::<T>("array", len)
        .participants(PARTIES + 1)
        .unlink(Unlink::Creator);
    let observer = Party::new(|| builder.create()).unwrap();
    let seen = observer.segment.array::<T>("array").unwrap();
    let mut oracle =
        Oracle { elements: vec![T::zeroed(); len], holder: Holder::Nobody, poisoned: false };
    let mut parties: [Option<(Array<T>, Party)>; PARTIES] = Default::default();
    let mut dead = Vec::new();

    for op in ops.into_iter().take(OPS) {
        let p = match op {
            Op::Attach(p) | Op::Detach(p) | Op::Die(p, _) | Op::Get(p, _) | Op::Set(p, ..) => p,
            Op::Swap(p, ..) | Op::CompareExchange(p, ..) | Op::Fetch(p, ..) => p,
            Op::Snapshot(p) | Op::Read(p, ..) | Op::Write(p, ..) | Op::CopyFrom(p, _) => p,
            Op::InPlace(p, ..) | Op::Keep(p, ..) => p,
        };
        let p = usize::from(p) % PARTIES;
        if let Op::Attach(_) = op
            && parties[p].is_none()
        {
            // Into the place of a dead one, if there is no other.
            let party = Party::new(|| Segment::open(&name)).unwrap();
            parties[p] = Some((party.segment.array("array").unwrap(), party));
        }
        let Some((array, party)) = &mut parties[p] else { continue };
        match op {
            Op::Attach(_) => {
                let second = party.segment.array::<T>("array");
                assert!(matches!(second, Err(Error::Busy { .. })));
            }
            Op::Detach(_) => {
                if oracle.holder != Holder::Party(p) {
                    parties[p] = None;
                }
            }
            Op::Die(_, recover) => {
                if dead.len() < DEAD {
                    party.die(&observer);
                    if oracle.holder == Holder::Party(p) {
                        oracle.holder = Holder::Dead;
                    }
                    dead.extend(parties[p].take());
                    if recover {
                        assert!(observer.segment.recover().unwrap() > 0);
                        oracle.would_wait();
                        assert_eq!(seen.is_poisoned(), oracle.poisoned);
                    }
                }
            }
            Op::Get(_, at) | Op::Set(_, at, _) => {
                let at = usize::from(at);
                let in_range = at < len;
                if in_range && T::ATOMIC {
                    match op {
                        Op::Set(_, _, x) => {
                            array.set(at, T::of(x)).unwrap();
                            oracle.elements[at] = T::of(x);
                        }
                        _ => assert_eq!(array.get(at).unwrap(), oracle.elements[at]),
                    }
                    continue;
                }
                if in_range && oracle.would_wait() {
                    continue;
                }
                match op {
                    Op::Set(_, _, x) => {
                        if oracle.judge(&array.set(at, T::of(x)), in_range) {
                            oracle.elements[at] = T::of(x);
                        }
                    }
                    _ => {
                        let got = array.get(at);
                        if oracle.judge(&got, in_range) {
                            assert_eq!(got.unwrap(), oracle.elements[at]);
                        }
                    }
                }
            }
            Op::Swap(_, at, x) if usize::from(at) < len => {
                T::swap(array, at.into(), x, &mut oracle.elements[usize::from(at)]);
            }
            Op::CompareExchange(_, at, now, new) if usize::from(at) < len => {
                T::exchange(array, at.into(), now, new, &mut oracle.elements[usize::from(at)]);
            }
            Op::Fetch(_, at, which, x) if usize::from(at) < len => {
                T::fetch(array, at.into(), which, x, &mut oracle.elements[usize::from(at)]);
            }
            Op::Swap(..) | Op::CompareExchange(..) | Op::Fetch(..) => {}
            Op::Snapshot(_) => {
                if !oracle.would_wait() {
                    let copy = array.snapshot();
                    if oracle.judge(&copy, true) {
                        assert_eq!(copy.unwrap(), oracle.elements);
                    }
                }
            }
            Op::Read(_, start, count) | Op::Write(_, start, count, _) => {
                let (start, count) = (usize::from(start), usize::from(count));
                let in_range = start + count <= len;
                if in_range && oracle.would_wait() {
                    continue;
                }
                if let Op::Write(_, _, _, x) = op {
                    let from: Vec<T> =
                        (0..count).map(|i| T::of(x.wrapping_add(i as u32))).collect();
                    if oracle.judge(&array.write(start, &from), in_range) {
                        oracle.elements[start..start + count].copy_from_slice(&from);
                    }
                } else {
                    let mut to = vec![T::zeroed(); count];
                    if oracle.judge(&array.read(start, &mut to), in_range) {
                        assert_eq!(to, oracle.elements[start..start + count]);
                    }
                }
            }
            Op::CopyFrom(_, x) => {
                if !oracle.would_wait() {
                    let from: Vec<T> = (0..len).map(|i| T::of(x.rotate_left(i as u32))).collect();
                    array.copy_from_slice(&from).unwrap();
                    (oracle.elements, oracle.poisoned) = (from, false);
                }
            }
            Op::InPlace(_, at, x, wait, clean) => {
                let outcome =
                    if wait { array.lock_timeout(Duration::ZERO) } else { array.try_lock() };
                if let Some(mut guard) = oracle.locked(outcome) {
                    assert_eq!(*guard, *oracle.elements);
                    if let Some(element) = guard.get_mut(usize::from(at)) {
                        *element = T::of(x);
                        oracle.elements[usize::from(at)] = T::of(x);
                    }
                    if clean {
                        guard.make_clean();
                        oracle.poisoned = false;
                    }
                }
            }
            Op::Keep(_, at, x) => {
                if let Some(mut guard) = oracle.locked(array.try_lock()) {
                    if let Some(element) = guard.get_mut(usize::from(at)) {
                        *element = T::of(x);
                        oracle.elements[usize::from(at)] = T::of(x);
                    }
                    std::mem::forget(guard);
                    oracle.holder = Holder::Party(p);
                }
            }
        }
    }
    // Whoever still keeps the lock dies now.
    if let Holder::Party(p) = oracle.holder {
        let (array, party) = parties[p].take().expect("it holds the lock");
        party.die(&observer);
        dead.push((array, party));
        oracle.holder = Holder::Dead;
    }
    if !oracle.would_wait() {
        let copy = seen.snapshot();
        if oracle.judge(&copy, true) {
            assert_eq!(copy.unwrap(), oracle.elements);
        }
    }
    drop((parties, seen, observer));
    drop(dead);
}

fuzz_target!(|input: Input| {
    let len = usize::from(input.len % 40);
    if input.odd { run::<Odd>(len, input.ops) } else { run::<u32>(len, input.ops) }
});
