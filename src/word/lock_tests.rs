//! Behaviour, within one process.

use super::*;
use crate::memory::Heap;
use crate::wait::SLICE;
use core::cell::UnsafeCell;
use proptest::prelude::*;
use std::time::Duration;

const A: Owner = Owner::new(1).unwrap();
const B: Owner = Owner::new(Owner::MAX).unwrap();

fn heap() -> Heap {
    let heap = Heap::zeroed(LEN);
    // SAFETY: the block is the test's own.
    unsafe { Lock::init(heap.region()) };
    heap
}

fn lock(heap: &Heap) -> Lock<'_> {
    // SAFETY: initialised in `heap`.
    unsafe { Lock::attach(heap.region(), false) }
}

fn alive(_: Owner, _: bool) -> Result<bool, Error> {
    Ok(false)
}

fn soon() -> Option<Instant> {
    crate::wait::deadline(Duration::from_millis(5))
}

#[test]
fn an_owner_has_it_until_it_unlocks() {
    let heap = heap();
    let lock = lock(&heap);
    assert_eq!(lock.try_lock(A).unwrap(), Acquired { poisoned: false });
    assert_eq!(lock.owner(), Some(A));
    assert!(matches!(lock.try_lock(B), Err(NoLock::Held(A))));
    assert!(matches!(lock.try_lock(A), Err(NoLock::Held(A))), "another thread of A's");
    lock.unlock(B);
    assert_eq!(lock.owner(), Some(A), "not B's to unlock");
    lock.unlock(A);
    assert_eq!(lock.owner(), None);
    assert_eq!(lock.try_lock(B).unwrap(), Acquired { poisoned: false });
    assert_eq!(format!("{lock:?}"), "Lock { owner: Some(#4095), poisoned: false }");
}

#[test]
fn poison_lasts_until_it_is_cleared() {
    let heap = heap();
    let lock = lock(&heap);
    assert!(!lock.recover(A));
    let _dies = lock.try_lock(A).unwrap();
    assert!(!lock.recover(B));
    assert!(lock.recover(A));
    assert!(!lock.recover(A));
    assert_eq!((lock.owner(), lock.is_poisoned()), (None, true));
    for _ in 0..2 {
        assert_eq!(lock.try_lock(B).unwrap(), Acquired { poisoned: true });
        lock.unlock(B);
    }
    assert_eq!(lock.try_lock(B).unwrap(), Acquired { poisoned: true });
    lock.clear_poison(A);
    assert!(lock.is_poisoned(), "not A's to clear");
    lock.clear_poison(B);
    assert_eq!((lock.owner(), lock.is_poisoned()), (Some(B), false));
    lock.unlock(B);
    assert_eq!(lock.try_lock(A).unwrap(), Acquired { poisoned: false });
}

#[test]
fn a_deadline_bounds_the_wait() {
    let heap = heap();
    let lock = lock(&heap);
    let start = Instant::now();
    assert!(lock.lock(A, soon(), alive).unwrap().is_some());
    assert!(lock.lock(B, Some(start), alive).unwrap().is_none(), "long past");
    let mut asked = Vec::new();
    let until = Instant::now() + SLICE * 3;
    let none = lock.lock(B, Some(until), |owner, slice_over| {
        asked.push((owner, slice_over));
        Ok(false)
    });
    assert!(none.unwrap().is_none() && Instant::now() >= until);
    assert_eq!(asked[0], (A, false));
    // Less often on a machine that has no time for this thread.
    assert!(asked.len() <= 4, "once a slice at most: {asked:?}");
    assert!(asked[1..].iter().all(|&asked| asked == (A, true)));
}

#[test]
fn a_waiter_recovers_the_dead() {
    let heap = heap();
    let lock = lock(&heap);
    let _dies = lock.try_lock(A).unwrap();
    let taken = lock.lock(B, None, |owner, _| Ok(lock.recover(owner)));
    assert_eq!(taken.unwrap(), Some(Acquired { poisoned: true }));
    assert_eq!(lock.owner(), Some(B));
}

#[test]
fn an_error_of_the_check_ends_the_wait() {
    let heap = heap();
    let lock = lock(&heap);
    let _held = lock.try_lock(A).unwrap();
    let busy = || Error::Busy { what: "test", pid: 0 };
    assert!(matches!(lock.lock(B, None, |_, _| Err(busy())), Err(Error::Busy { .. })));
    assert_eq!(lock.owner(), Some(A));
}

#[test]
fn a_hostile_word_is_an_error() {
    let heap = heap();
    let lock = lock(&heap);
    for word in [POISONED << 1, 1 << 31 | 1, u32::MAX] {
        lock.word.store(word, Ordering::Relaxed);
        assert!(matches!(lock.try_lock(A), Err(NoLock::Corrupt(Error::Corrupt { .. }))));
        assert!(matches!(lock.lock(A, None, alive), Err(Error::Corrupt { .. })));
        assert!(!lock.recover(A) && !lock.recover(B));
        lock.clear_poison(B);
        assert_eq!(lock.word.load(Ordering::Relaxed), word);
    }
    // Also under the owner's feet, and while somebody waits.
    lock.word.store(0, Ordering::Relaxed);
    let _held = lock.try_lock(A).unwrap();
    let ends = lock.lock(B, None, |_, _| {
        lock.word.store(u32::MAX, Ordering::Relaxed);
        Ok(false)
    });
    assert!(matches!(ends, Err(Error::Corrupt { .. })));
}

struct Count(UnsafeCell<u64>);
// SAFETY: reached under the lock alone.
unsafe impl Sync for Count {}

#[test]
fn threads_of_one_and_of_several_owners_count_together() {
    let heap = heap();
    let count = Count(UnsafeCell::new(0));
    std::thread::scope(|scope| {
        for owner in [A, A, B] {
            let (lock, count) = (lock(&heap), &count);
            scope.spawn(move || {
                for _ in 0..20_000 {
                    let _held = lock.lock(owner, None, alive).unwrap().unwrap();
                    // SAFETY: under the lock.
                    unsafe { *count.0.get() += 1 };
                    lock.unlock(owner);
                }
            });
        }
    });
    assert_eq!(count.0.into_inner(), 60_000);
}

proptest! {
    /// Any sequence of calls, against the obvious model.
    #[test]
    fn it_does_what_a_plain_record_does(steps in prop::collection::vec((0u8..5, 1u16..4), 0..60)) {
        let heap = heap();
        let lock = lock(&heap);
        let (mut owner, mut poisoned) = (None, false);
        for (call, number) in steps {
            let me = Owner::new(number).unwrap();
            match call {
                0 | 1 => match (lock.try_lock(me), owner) {
                    (Ok(acquired), None) => {
                        prop_assert_eq!(acquired.poisoned, poisoned);
                        owner = Some(me);
                    }
                    (Err(NoLock::Held(by)), Some(owner)) => prop_assert_eq!(by, owner),
                    other => prop_assert!(false, "{:?}", other),
                },
                2 => {
                    lock.unlock(me);
                    owner = owner.filter(|&o| o != me);
                }
                3 => {
                    lock.clear_poison(me);
                    poisoned &= owner != Some(me);
                }
                _ => {
                    let held = owner == Some(me);
                    prop_assert_eq!(lock.recover(me), held);
                    if held {
                        (owner, poisoned) = (None, true);
                    }
                }
            }
            prop_assert_eq!((lock.owner(), lock.is_poisoned()), (owner, poisoned));
        }
    }
}
