//! Sequences of operations on values of several sizes and on a lock, through
//! the public API, by parties that come, go and die, against plain variables.

#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use slipring::{Lock, LockError, LockGuard, Segment, Unlink, Value};
use slipring_fuzz::{Party, name};
use std::time::Duration;

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Op {
    Attach(u8),
    Detach(u8),
    /// `true`: and is recovered at once, not by whoever meets what it held.
    Die(u8, bool),
    Load(u8),
    Store(u8, u64),
    StoreTimeout(u8, u64),
    Update(u8, u64),
    Swap(u8, u64),
    CompareExchange(u8, u64, u64),
    Fetch(u8, u8, u64),
    FetchFloat(u8, u8, f32),
    /// Takes the lock and keeps it.
    Lock(u8),
    Unlock(u8),
    /// Takes the lock, makes it clean or not, and gives it back.
    TryLock(u8, bool),
    LockTimeout(u8, bool),
}

#[derive(Arbitrary, Debug)]
struct Input {
    first: u64,
    ops: Vec<Op>,
}

const OPS: usize = 100;
const PARTIES: usize = 3;
const DEAD: usize = 5;

/// A value of 24 bytes, and one whose last word is not full.
type Large = [u64; 3];
type Odd = [u8; 11];

fn large(x: u64) -> Large {
    [x, x.rotate_left(20), !x]
}

fn odd(x: u64) -> Odd {
    std::array::from_fn(|i| x.rotate_left(5 * i as u32) as u8)
}

struct Views {
    number: Value<i64>,
    float: Value<f32>,
    small: Value<[u8; 2]>,
    large: Value<Large>,
    odd: Value<Odd>,
    // Before the lock that it borrows.
    guard: Option<LockGuard<'static>>,
    lock: Box<Lock>,
}

impl Views {
    fn open(segment: &Segment) -> slipring::Result<Views> {
        Ok(Views {
            number: segment.value("number")?,
            float: segment.value("float")?,
            small: segment.value("small")?,
            large: segment.value("large")?,
            odd: segment.value("odd")?,
            guard: None,
            lock: Box::new(segment.lock("lock")?),
        })
    }

    fn lock(&self) -> &'static Lock {
        // SAFETY: the box outlives the guard, which is dropped before it, and
        // is not moved out of.
        unsafe { &*std::ptr::from_ref(&*self.lock) }
    }
}

/// What everybody must see.
struct Oracle {
    number: i64,
    float: f32,
    small: [u8; 2],
    large: Large,
    odd: Odd,
    /// Who holds the lock: a party, or a dead one.
    holder: Option<Holder>,
    poisoned: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Holder {
    Party(usize),
    Dead,
}

impl Oracle {
    fn check(&self, views: &Views) {
        assert_eq!(views.number.load(), self.number);
        assert_eq!(views.float.load().to_bits(), self.float.to_bits());
        assert_eq!(views.small.load(), self.small);
        assert_eq!(views.large.load(), self.large);
        assert_eq!(views.odd.load(), self.odd);
    }

    fn store(&mut self, x: u64) {
        self.number = x as i64;
        self.small = [x as u8, (x >> 8) as u8];
        self.large = large(x);
        self.odd = odd(x);
    }

    /// Judges an attempt to lock; the guard, if it is to be kept.
    fn locked<'a>(
        &mut self,
        outcome: Result<LockGuard<'a>, LockError<LockGuard<'a>>>,
        clean: bool,
    ) -> Option<LockGuard<'a>> {
        if self.holder == Some(Holder::Dead) {
            // Too short a wait to ask whether it is alive.
            if let Err(LockError::Timeout) = outcome {
                return None;
            }
            (self.holder, self.poisoned) = (None, true);
        }
        let mut guard = match (outcome, self.holder) {
            (Ok(guard), None) => {
                assert!(!self.poisoned, "the next owner was not told");
                guard
            }
            (Err(LockError::Poisoned(guard)), None) => {
                assert!(self.poisoned, "poisoned by nobody");
                guard
            }
            (Err(LockError::WouldBlock | LockError::Timeout), Some(Holder::Party(_))) => {
                return None;
            }
            (outcome, holder) => panic!("{outcome:?}, held by {holder:?}"),
        };
        if clean {
            guard.make_clean();
            self.poisoned = false;
        }
        Some(guard)
    }
}

fuzz_target!(|input: Input| {
    let name = name("value");
    let builder = Segment::builder(&name)
        .value_with("number", input.first as i64)
        .value_with("float", input.first as f32)
        .value::<[u8; 2]>("small")
        .value_with("large", large(input.first))
        .value_with("odd", odd(input.first))
        .lock("lock")
        .participants(PARTIES + 1)
        .unlink(Unlink::Creator);
    let observer = Party::new(|| builder.create()).unwrap();
    let seen = Views::open(&observer.segment).unwrap();
    let mut oracle = Oracle {
        number: input.first as i64,
        float: input.first as f32,
        small: [0; 2],
        large: large(input.first),
        odd: odd(input.first),
        holder: None,
        poisoned: false,
    };
    let mut parties: [Option<(Views, Party)>; PARTIES] = Default::default();
    let mut dead = Vec::new();

    for op in input.ops.into_iter().take(OPS) {
        let p = match op {
            Op::Attach(p) | Op::Detach(p) | Op::Die(p, _) | Op::Load(p) | Op::Store(p, _) => p,
            Op::StoreTimeout(p, _) | Op::Update(p, _) | Op::Swap(p, _) => p,
            Op::CompareExchange(p, ..) | Op::Fetch(p, ..) | Op::FetchFloat(p, ..) => p,
            Op::Lock(p) | Op::Unlock(p) | Op::TryLock(p, _) | Op::LockTimeout(p, _) => p,
        };
        let p = usize::from(p) % PARTIES;
        if let Op::Attach(_) = op
            && parties[p].is_none()
        {
            // Into the place of a dead one, if there is no other.
            let party = Party::new(|| Segment::open(&name)).unwrap();
            parties[p] = Some((Views::open(&party.segment).unwrap(), party));
        }
        let Some((views, party)) = &mut parties[p] else { continue };
        match op {
            Op::Attach(_) => {}
            Op::Detach(_) => {
                if oracle.holder == Some(Holder::Party(p)) {
                    oracle.holder = None;
                }
                parties[p] = None;
            }
            Op::Die(_, recover) => {
                if dead.len() < DEAD {
                    party.die(&observer);
                    if oracle.holder == Some(Holder::Party(p)) {
                        oracle.holder = Some(Holder::Dead);
                    }
                    dead.extend(parties[p].take());
                    if recover {
                        assert!(observer.segment.recover().unwrap() > 0);
                        assert_eq!(
                            seen.lock.is_locked(),
                            oracle.holder.is_some_and(|h| h != Holder::Dead)
                        );
                    }
                }
            }
            Op::Load(_) => oracle.check(views),
            Op::Store(_, x) => {
                views.number.store(x as i64);
                views.small.store([x as u8, (x >> 8) as u8]);
                views.large.store(large(x));
                views.odd.store(odd(x));
                oracle.store(x);
            }
            Op::StoreTimeout(_, x) => {
                assert!(views.number.store_timeout(x as i64, Duration::ZERO).unwrap());
                assert!(
                    views.small.store_timeout([x as u8, (x >> 8) as u8], Duration::ZERO).unwrap()
                );
                assert!(views.large.store_timeout(large(x), Duration::ZERO).unwrap());
                assert!(views.odd.store_timeout(odd(x), Duration::ZERO).unwrap());
                oracle.store(x);
            }
            Op::Update(_, x) => {
                assert_eq!(views.number.update(|n| n.wrapping_mul(x as i64)), oracle.number);
                oracle.number = oracle.number.wrapping_mul(x as i64);
                assert_eq!(views.large.update(|[a, b, c]| [b, c, a ^ x]), oracle.large);
                let [a, b, c] = oracle.large;
                oracle.large = [b, c, a ^ x];
            }
            Op::Swap(_, x) => {
                assert_eq!(views.number.swap(x as i64), oracle.number);
                oracle.number = x as i64;
            }
            Op::CompareExchange(_, current, new) => {
                let current = if current % 2 == 0 { oracle.number } else { current as i64 };
                let found = views.number.compare_exchange(current, new as i64);
                if current == oracle.number {
                    assert_eq!(found, Ok(current));
                    oracle.number = new as i64;
                } else {
                    assert_eq!(found, Err(oracle.number));
                }
            }
            Op::Fetch(_, which, x) => {
                let (n, x) = (oracle.number, x as i64);
                let (old, new) = match which % 7 {
                    0 => (views.number.fetch_add(x), n.wrapping_add(x)),
                    1 => (views.number.fetch_sub(x), n.wrapping_sub(x)),
                    2 => (views.number.fetch_max(x), n.max(x)),
                    3 => (views.number.fetch_min(x), n.min(x)),
                    4 => (views.number.fetch_and(x), n & x),
                    5 => (views.number.fetch_or(x), n | x),
                    _ => (views.number.fetch_xor(x), n ^ x),
                };
                assert_eq!(old, n);
                oracle.number = new;
            }
            Op::FetchFloat(_, which, x) => {
                let n = oracle.float;
                let (old, new) = match which % 4 {
                    0 => (views.float.fetch_add(x), n + x),
                    1 => (views.float.fetch_sub(x), n - x),
                    2 => (views.float.fetch_max(x), n.max(x)),
                    _ => (views.float.fetch_min(x), n.min(x)),
                };
                assert_eq!(old.to_bits(), n.to_bits());
                let found = views.float.load();
                // Which NaN it is may differ from one addition to the next.
                assert!(
                    found.to_bits() == new.to_bits()
                        || found.is_nan() && new.is_nan()
                        || found == new
                );
                oracle.float = found;
            }
            Op::Lock(_) => {
                let guard = oracle.locked(views.lock().try_lock(), false);
                if guard.is_some() {
                    views.guard = guard;
                    oracle.holder = Some(Holder::Party(p));
                }
            }
            Op::Unlock(_) => {
                if views.guard.take().is_some() {
                    assert_eq!(oracle.holder, Some(Holder::Party(p)));
                    oracle.holder = None;
                }
            }
            Op::TryLock(_, clean) => drop(oracle.locked(views.lock.try_lock(), clean)),
            Op::LockTimeout(_, clean) => {
                let outcome = views.lock.lock_timeout(Duration::ZERO);
                drop(oracle.locked(outcome, clean));
            }
        }
    }
    oracle.check(&seen);
    // Living holders go in order; the lock is free then, or a dead one's.
    parties = Default::default();
    if oracle.holder != Some(Holder::Dead) {
        oracle.holder = None;
    }
    drop(oracle.locked(seen.lock.lock_timeout(Duration::from_secs(60)), true));
    assert!(!seen.lock.is_poisoned() && !seen.lock.is_locked());
    drop((parties, seen, observer));
    drop(dead);
});
