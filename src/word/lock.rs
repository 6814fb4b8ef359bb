//! A lock that outlives its owner.
//!
//! One word says who holds it, and whether an owner died holding it:
//!
//! ```text
//! word = poisoned:1 | owner:12               owner 0: free; no other bit is legal
//!
//! free ─try_lock(o)→ held by o ─unlock(o)→ free           the poison bit stays as it is
//! held by o, o is dead ─recover(o)→ free, poisoned        the next owner is told
//! held by o, poisoned ─clear_poison(o)→ held by o
//! ```
//!
//! *Invariant.* A word that names somebody is changed by that one alone, or,
//! when it is dead, by its recoverers. So among living parties a lock passes
//! only through *free*, where one compare-and-swap decides who gets it, and the
//! owner itself needs no read-modify-write. An owner is a whole process: its
//! threads exclude each other because they too pass through *free*.
//!
//! The lock is not fair: whoever looks first when it is free gets it.
//!
//! | edge | release | acquire | makes visible |
//! |------|---------|---------|---------------|
//! | L    | `unlock`: free | `try_lock`: CAS | what the owner did |
//! | R    | `recover`: CAS to free, poisoned | `try_lock`: CAS | what the dead had done |
//!
//! Edge R goes through the recoverer, who learnt of the death from a lease, and
//! so knows all that the dead one had done.
//!
//! What the survivors see when a process dies:
//!
//! | it died | the word says | survivors |
//! |---------|---------------|-----------|
//! | before its CAS | free | nothing |
//! | holding the lock | its number | wait until `recover`; the next owner is told |
//! | unlocking, before the wake | free | sleepers look after a slice, or when it is recovered |
//! | recovering, before the wake | free, poisoned | the same |

use crate::error::Error;
use crate::memory::{LINE, Region};
use crate::ring::Owner;
use crate::sync::{AtomicU32, Ordering, STEP_BUDGET, point};
use crate::wait::{Event, Look, Waiter};
use core::alloc::Layout;
use core::cell::Cell;
use core::fmt;
use core::mem::offset_of;
use crossbeam_utils::{Backoff, CachePadded};
use std::time::Instant;

/// Bits of the word that name the owner.
const OWNER: u32 = Owner::MAX as u32;
/// Set from the death of an owner until a later one clears it.
const POISONED: u32 = 1 << Owner::BITS;

/// Who a word names.
#[inline(always)]
const fn named(word: u32) -> Option<Owner> {
    Owner::new((word & OWNER) as u16)
}

/// Whether a correct peer may have written the word.
#[inline(always)]
const fn is_legal(word: u32) -> bool {
    word & !(OWNER | POISONED) == 0
}

/// The part that lies in shared memory.
#[repr(C)]
struct Shared {
    /// Written by whoever takes, holds or recovers the lock.
    word: CachePadded<AtomicU32>,
    /// For those who wait until it is free.
    event: Event,
}

/// Bytes that a lock takes, from a base aligned to [`LINE`].
pub(crate) const LEN: usize = size_of::<Shared>();
const _: () = assert!(LEN.is_multiple_of(LINE) && align_of::<Shared>() <= LINE);

fn fits(region: Region<'_>) -> bool {
    Layout::from_size_align(LEN, LINE).is_ok_and(|layout| region.fits(layout))
}

/// The lock is the caller's, who must unlock it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a lock that is taken must be unlocked"]
pub(crate) struct Acquired {
    /// An owner died holding it, and nobody has cleared that since.
    pub(crate) poisoned: bool,
}

/// Why the lock was not taken.
#[derive(Debug)]
pub(crate) enum NoLock {
    /// This one holds it: ask whether it is alive. It may be the caller's own
    /// number, when another thread holds it.
    Held(Owner),
    /// The word is one that no correct peer writes.
    Corrupt(Error),
}

#[cold]
fn corrupt() -> Error {
    Error::Corrupt { what: "word of a lock", at: offset_of!(Shared, word) as u64 }
}

/// A lock, laid over borrowed memory. Clones are views of one lock.
#[derive(Clone)]
pub(crate) struct Lock<'a> {
    word: &'a AtomicU32,
    freed: Waiter<'a>,
}

impl<'a> Lock<'a> {
    /// Writes a free lock into the region.
    ///
    /// # Safety
    ///
    /// Nobody else may use the region during the call.
    ///
    /// # Panics
    ///
    /// Panics when the region is shorter than [`LEN`] or not aligned to
    /// [`LINE`].
    pub(crate) unsafe fn init(region: Region<'a>) {
        assert!(fits(region), "region too small or misaligned for the lock");
        let shared = Shared { word: CachePadded::new(AtomicU32::new(0)), event: Event::default() };
        // SAFETY: long enough and aligned, as checked above.
        unsafe { region.at::<Shared>(0).write(shared) };
    }

    /// A view of a lock that [`Lock::init`] wrote. With `asymmetric` sleepers
    /// pay for the barriers (see [`crate::wait`]).
    ///
    /// # Safety
    ///
    /// The region must hold such a lock, whose words may be hostile, and be
    /// used by nothing but views of it.
    ///
    /// # Panics
    ///
    /// As [`Lock::init`].
    pub(crate) unsafe fn attach(region: Region<'a>, asymmetric: bool) -> Self {
        assert!(fits(region), "region too small or misaligned for the lock");
        // SAFETY: long enough and aligned, as checked above; initialised, and
        // reached through its atomics alone, by the caller's promise.
        let shared = unsafe { region.at::<Shared>(0).as_ref() };
        Lock { word: &shared.word, freed: Waiter::new(&shared.event, asymmetric) }
    }

    /// Takes the lock if it is free.
    ///
    /// # Errors
    ///
    /// `Held`, or `Corrupt`.
    #[inline]
    pub(crate) fn try_lock(&self, me: Owner) -> Result<Acquired, NoLock> {
        let backoff = Backoff::new();
        for _ in 0..STEP_BUDGET {
            let free = self.word.load(Ordering::Relaxed);
            if !is_legal(free) {
                break;
            }
            if let Some(owner) = named(free) {
                return Err(NoLock::Held(owner));
            }
            let held = free | u32::from(me.get());
            // Edges L, R: Acquire pairs with the Release in `give_back` and
            // `reclaim`.
            let taken =
                self.word.compare_exchange(free, held, Ordering::Acquire, Ordering::Relaxed);
            if taken.is_ok() {
                point("lock.taken");
                return Ok(Acquired { poisoned: free & POISONED != 0 });
            }
            backoff.spin();
        }
        Err(NoLock::Corrupt(corrupt()))
    }

    /// Takes the lock, waiting for it until the deadline; `None` when that has
    /// passed.
    ///
    /// `check` is the question whether an owner is still alive, asked once a
    /// slice at most. It recovers a dead one, and says whether anything
    /// changed. Its second argument says whether a whole slice went by since
    /// the last time. An error of its ends the wait.
    ///
    /// # Errors
    ///
    /// `Corrupt`, or what `check` returned.
    #[inline]
    pub(crate) fn lock(
        &self,
        me: Owner,
        deadline: Option<Instant>,
        check: impl FnMut(Owner, bool) -> Result<bool, Error>,
    ) -> Result<Option<Acquired>, Error> {
        match self.try_lock(me) {
            Ok(acquired) => Ok(Some(acquired)),
            Err(NoLock::Held(owner)) => self.lock_waiting(me, owner, deadline, check),
            Err(NoLock::Corrupt(error)) => Err(error),
        }
    }

    #[cold]
    fn lock_waiting(
        &self,
        me: Owner,
        owner: Owner,
        deadline: Option<Instant>,
        mut check: impl FnMut(Owner, bool) -> Result<bool, Error>,
    ) -> Result<Option<Acquired>, Error> {
        // Who held it at the last look, and what a check said to that.
        let holder = Cell::new(owner);
        let failed = Cell::new(None);
        let look = || {
            if let Some(error) = failed.take() {
                return Look::Ready(Err(error));
            }
            match self.try_lock(me) {
                Ok(acquired) => Look::Ready(Ok(acquired)),
                Err(NoLock::Held(owner)) => {
                    holder.set(owner);
                    Look::NotYet
                }
                Err(NoLock::Corrupt(error)) => Look::Ready(Err(error)),
            }
        };
        let check = |slice_over| {
            check(holder.get(), slice_over).unwrap_or_else(|error| {
                failed.set(Some(error));
                true
            })
        };
        self.freed.until(deadline, look, check).transpose()
    }

    /// Gives the lock back, and wakes those who wait for it. The caller holds
    /// it; if the word says otherwise, a hostile peer wrote it, and it stays.
    #[inline]
    pub(crate) fn unlock(&self, me: Owner) {
        self.give_back(me);
        self.freed.notify();
    }

    #[inline]
    fn give_back(&self, me: Owner) {
        let seen = self.word.load(Ordering::Relaxed);
        if named(seen) == Some(me) {
            // Nobody else changes a word that names a living owner, so a store
            // will do. Edge L: Release pairs with the Acquire in `try_lock`.
            self.word.store(seen & POISONED, Ordering::Release);
            point("lock.freed");
        }
    }

    /// Declares what the lock protects whole again. The caller holds it.
    pub(crate) fn clear_poison(&self, me: Owner) {
        let held = u32::from(me.get());
        if self.word.load(Ordering::Relaxed) == held | POISONED {
            // Published by `unlock`, or by whoever recovers the caller.
            self.word.store(held, Ordering::Relaxed);
            point("lock.cleared");
        }
    }

    /// Frees and poisons the lock if `dead` holds it, and wakes everybody;
    /// whether it did hold it.
    ///
    /// The number must belong to nobody during the call: a dead participant,
    /// whose lease is held meanwhile. Any number of callers may do this at
    /// once, and any of them may die doing it.
    pub(crate) fn recover(&self, dead: Owner) -> bool {
        let held = self.reclaim(dead);
        point("lock.reclaimed");
        // In any case: it, or an earlier recoverer, may have died between its
        // change of the word and the wake.
        self.freed.wake();
        held
    }

    fn reclaim(&self, dead: Owner) -> bool {
        let seen = self.word.load(Ordering::Relaxed);
        // What the dead stored happened before its death, which the caller
        // knows of, so `seen` is not older. If the exchange fails, another
        // recoverer was here: the word no longer names the dead, for ever.
        // Edge R: Release pairs with the Acquire in `try_lock`.
        is_legal(seen)
            && named(seen) == Some(dead)
            && self
                .word
                .compare_exchange(seen, POISONED, Ordering::Release, Ordering::Relaxed)
                .is_ok()
    }

    /// Frees and poisons a lock whose word no correct peer can have written.
    pub(crate) fn reset(&self) {
        self.word.store(POISONED, Ordering::Relaxed);
        point("lock.reset");
        self.freed.wake();
    }

    /// Who holds the lock: a moment's truth, for onlookers.
    pub(crate) fn owner(&self) -> Option<Owner> {
        named(self.word.load(Ordering::Relaxed))
    }

    /// Whether an owner died holding it, and nobody has cleared that since: a
    /// moment's truth.
    pub(crate) fn is_poisoned(&self) -> bool {
        self.word.load(Ordering::Relaxed) & POISONED != 0
    }
}

impl fmt::Debug for Lock<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lock")
            .field("owner", &self.owner())
            .field("poisoned", &self.is_poisoned())
            .finish()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
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
}

/// A thread stands for a process. It dies by doing nothing more; that it is
/// dead is known to whoever joined it, as a lease would tell.
#[cfg(all(test, loom))]
mod models {
    use super::*;
    use crate::memory::Heap;
    use crate::sync::Witness;
    use core::cell::UnsafeCell;
    use loom::thread;
    use std::sync::Arc;

    const A: Owner = Owner::new(1).unwrap();
    const B: Owner = Owner::new(2).unwrap();
    const DEAD: Owner = Owner::new(9).unwrap();

    /// A lock and the count that it protects.
    struct Model {
        heap: Heap,
        count: UnsafeCell<u32>,
        witness: Witness,
    }

    // SAFETY: the count is reached under the lock alone, which is the claim
    // that the witness verifies.
    unsafe impl Sync for Model {}
    // SAFETY: as above.
    unsafe impl Send for Model {}

    impl Model {
        fn new() -> Arc<Model> {
            let heap = Heap::zeroed(LEN);
            // SAFETY: the block is the model's own.
            unsafe { Lock::init(heap.region()) };
            Arc::new(Model { heap, count: UnsafeCell::new(0), witness: Witness::default() })
        }

        fn lock(&self) -> Lock<'_> {
            // SAFETY: initialised in `new`.
            unsafe { Lock::attach(self.heap.region(), false) }
        }

        /// Adds one to the count, and returns what it is then.
        fn add(&self) -> u32 {
            self.witness.write();
            // SAFETY: under the lock.
            unsafe {
                *self.count.get() += 1;
                *self.count.get()
            }
        }
    }

    fn spawn<R: 'static>(
        model: &Arc<Model>,
        f: impl FnOnce(&Model, Lock<'_>) -> R + 'static,
    ) -> thread::JoinHandle<R> {
        let model = model.clone();
        thread::spawn(move || f(&model, model.lock()))
    }

    fn check(f: impl Fn() + Sync + Send + 'static) {
        bounded(None, f);
    }

    /// Every schedule with at most so many preemptions.
    fn bounded(preemptions: Option<usize>, f: impl Fn() + Sync + Send + 'static) {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = preemptions.or(builder.preemption_bound);
        builder.check(f);
    }

    fn wait(lock: &Lock<'_>, me: Owner) -> Acquired {
        lock.lock(me, None, |_, _| Ok(false)).unwrap().unwrap()
    }

    /// Nobody sleeps here, so the lock's word alone does the ordering.
    #[test]
    fn one_at_a_time_has_it_and_sees_what_the_last_one_did() {
        for other in [A, B] {
            check(move || {
                let model = Model::new();
                let add_if_free = |model: &Model, lock: Lock<'_>, me| {
                    lock.try_lock(me).is_ok_and(|_| {
                        model.add();
                        lock.unlock(me);
                        true
                    })
                };
                let thread = spawn(&model, move |model, lock| {
                    u32::from(add_if_free(model, lock.clone(), other))
                        + u32::from(add_if_free(model, lock, other))
                });
                let mine = u32::from(add_if_free(&model, model.lock(), A));
                let added = mine + thread.join().unwrap();
                assert!(added >= 1, "somebody found it free");
                let _held = model.lock().try_lock(B).unwrap();
                assert_eq!(model.add(), added + 1);
            });
        }
    }

    /// A lost wake would show as a deadlock.
    #[test]
    fn those_who_wait_for_it_get_it() {
        bounded(Some(3), || {
            let model = Model::new();
            let round = |model: &Model, lock: Lock<'_>, me| {
                for _ in 0..2 {
                    assert!(!wait(&lock, me).poisoned);
                    model.add();
                    lock.unlock(me);
                }
            };
            let thread = spawn(&model, move |model, lock| round(model, lock, A));
            round(&model, model.lock(), B);
            thread.join().unwrap();
            let _held = model.lock().try_lock(B).unwrap();
            assert_eq!(model.add(), 5);
        });
    }

    #[test]
    fn three_who_wait_for_it_get_it() {
        bounded(Some(2), || {
            let model = Model::new();
            let once = |model: &Model, lock: Lock<'_>, me| {
                let _held = wait(&lock, me);
                model.add();
                lock.unlock(me);
            };
            let threads = [A, B].map(|me| spawn(&model, move |m, lock| once(m, lock, me)));
            once(&model, model.lock(), A);
            threads.into_iter().for_each(|thread| thread.join().unwrap());
            let _held = model.lock().try_lock(B).unwrap();
            assert_eq!(model.add(), 4);
        });
    }

    /// Dies holding the lock. It waits for nobody, so that no sleep orders
    /// anything; whether it ever had the lock.
    fn die_holding(model: &Arc<Model>) -> thread::JoinHandle<bool> {
        spawn(model, |model, lock| {
            lock.try_lock(DEAD).is_ok_and(|_| {
                model.add();
                true
            })
        })
    }

    #[test]
    fn a_waiter_gets_a_dead_owners_lock_poisoned_with_all_it_did() {
        check(|| {
            let model = Model::new();
            let dead = die_holding(&model);
            let waiter = spawn(&model, |model, lock| {
                let acquired = wait(&lock, B);
                let count = model.add();
                // Either before the other came, or after it was recovered.
                assert_eq!(count, 1 + u32::from(acquired.poisoned));
                lock.clear_poison(B);
                lock.unlock(B);
            });
            let held = dead.join().unwrap();
            let lock = model.lock();
            assert!(!lock.recover(A), "never touches a word that names another");
            assert_eq!(lock.recover(DEAD), held);
            waiter.join().unwrap();
            assert_eq!(lock.owner(), None);
        });
    }

    /// The same, by the lock's word alone: the next owner comes before anybody
    /// is woken, and never sleeps.
    #[test]
    fn a_dead_owners_successor_sees_all_it_did() {
        check(|| {
            let model = Model::new();
            let dead = spawn(&model, |model, lock| {
                let _dies = lock.try_lock(DEAD).unwrap();
                model.add();
            });
            let recoverer = spawn(&model, |_, lock| {
                dead.join().unwrap();
                assert!(lock.reclaim(DEAD));
            });
            let lock = model.lock();
            // Learns nothing from the wait.
            while !lock.is_poisoned() {
                thread::yield_now();
            }
            assert!(lock.try_lock(B).unwrap().poisoned);
            assert_eq!(model.add(), 2);
            recoverer.join().unwrap();
        });
    }

    #[test]
    fn two_recoverers_free_it_once_and_never_a_new_owners() {
        check(|| {
            let model = Model::new();
            let _dies = model.lock().try_lock(DEAD).unwrap();
            let recoverers = [(); 2].map(|()| spawn(&model, |_, lock| lock.recover(DEAD)));
            let lock = model.lock();
            let mine = match lock.try_lock(A) {
                Ok(acquired) => {
                    assert!(acquired.poisoned);
                    model.add();
                    true
                }
                Err(NoLock::Held(owner)) => {
                    assert_eq!(owner, DEAD);
                    false
                }
                Err(NoLock::Corrupt(error)) => panic!("{error}"),
            };
            let freed = recoverers.map(|thread| u32::from(thread.join().unwrap()));
            assert_eq!(freed[0] + freed[1], 1);
            assert_eq!(lock.owner(), mine.then_some(A));
            assert!(lock.is_poisoned());
        });
    }

    #[test]
    fn a_sleeper_is_woken_when_the_owner_died_between_unlock_and_wake() {
        check(|| {
            let model = Model::new();
            let dead = spawn(&model, |model, lock| {
                if lock.try_lock(DEAD).is_ok() {
                    model.add();
                    lock.give_back(DEAD);
                }
            });
            let waiter = spawn(&model, |model, lock| {
                assert!(!wait(&lock, B).poisoned);
                model.add();
                lock.unlock(B);
            });
            dead.join().unwrap();
            assert!(!model.lock().recover(DEAD));
            waiter.join().unwrap();
        });
    }

    #[test]
    fn a_sleeper_is_woken_when_the_recoverer_died_before_it_woke_anybody() {
        check(|| {
            let model = Model::new();
            let _dies = model.lock().try_lock(DEAD).unwrap();
            let recoverer = spawn(&model, |_, lock| assert!(lock.reclaim(DEAD)));
            let waiter = spawn(&model, |_, lock| {
                assert!(wait(&lock, B).poisoned);
                lock.unlock(B);
            });
            recoverer.join().unwrap();
            assert!(!model.lock().recover(DEAD));
            waiter.join().unwrap();
        });
    }
}
