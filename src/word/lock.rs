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
use crate::wait::{Event, Look, Patience, Waiter};
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

    /// Takes the lock in the usual case: free, and clean. `false` says nothing.
    #[inline(always)]
    pub(crate) fn lock_at_hand(&self, me: Owner) -> bool {
        self.word.load(Ordering::Relaxed) == 0 && self.own(0, me)
    }

    /// Writes the owner into a free word, unless somebody else was faster.
    #[inline(always)]
    fn own(&self, free: u32, me: Owner) -> bool {
        let held = free | u32::from(me.get());
        // Edges L, R: Acquire pairs with the Release in `give_back` and
        // `reclaim`.
        let taken = self.word.compare_exchange(free, held, Ordering::Acquire, Ordering::Relaxed);
        if taken.is_ok() {
            point("lock.taken");
        }
        taken.is_ok()
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
            if self.own(free, me) {
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
        self.freed.until(deadline, &Patience::new(), look, check).transpose()
    }

    /// Gives the lock back, and wakes those who wait for it. The caller holds
    /// it; if the word says otherwise, a hostile peer wrote it, and it stays.
    #[inline(always)]
    pub(crate) fn unlock(&self, me: Owner) {
        self.give_back(me);
        self.freed.notify();
    }

    #[inline(always)]
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
#[path = "lock_tests.rs"]
mod tests;

#[cfg(all(test, loom))]
#[path = "lock_models.rs"]
mod models;
