//! The owned-slot ring: many producers, many consumers, any of which may be
//! killed at any instruction.
//!
//! Vyukov's bounded queue claims a slot anonymously, so a producer that is
//! killed between claim and publication jams it for ever. Here the word of each
//! slot says who holds it:
//!
//! ```text
//! word = lap:49 | state:3 | owner:12       slot i serves positions lap * capacity + i
//!
//! FREE(L) ─claim→ WRITING(L,o) ─commit→ FULL(L) ─take→ READING(L,o) ─release→ FREE(L+1)
//!                      │                                    │
//!                      ├─abandon, or o is dead→ POISON(L) ──┼─skipped→ FREE(L+1)
//!                      │                                    │
//!      o is dead:      │       at most once:  FREE(L+1), lost + 1
//!                      │       at least once: ORPHAN(L) ─adopt→ READING(L,o')
//! ```
//!
//! *Invariant.* With T the first position never claimed and H the first never
//! resolved (taken, or skipped):
//!
//! ```text
//! H <= T <= H + capacity
//! ```
//!
//! Positions below T are all claimed and positions below H all resolved, since
//! a claim needs `FREE` of exactly its lap and parties only walk past slots
//! that are claimed (resolved). The upper bound holds because `FREE` of a lap
//! means that the lap before is resolved there; it is not reached while a slot
//! behind H is still READING or ORPHAN. A producer that frees POISON of the lap
//! before frees exactly H. `head` and `tail` are hints: plain stores, never
//! ahead of H and T, perhaps far behind. No decision rests on them; a stale one
//! costs O(log capacity) steps.
//!
//! | edge | release | acquire | makes visible |
//! |------|---------|---------|---------------|
//! | P    | `commit`: FULL | `own_full`: CAS to READING; for adoption `load` | payload to its reader |
//! | F    | `release`, `abandon`: FREE, POISON | `own_free`: CAS to WRITING | the slot to its next writer |
//! | H    | `claimed`, `taken`, skips, `own_run`: a hint | `try_claim`, `try_take`, `has_none_at_hint`: the hint | what its writer had seen: behind a run's first slot the rest of it, which its owner stored plainly |
//! | R    | `repair`: CAS to POISON, FREE, ORPHAN | as P and F | what the dead had done |
//! | O    | `recover`: `orphans` + 1 | `orphans` | the orphans themselves |
//!
//! Moves in between (POISON to FREE, FULL to READING) are read-modify-writes,
//! which continue the release sequence of the store before them, so edges reach
//! across them.
//!
//! What survivors see when a process dies:
//!
//! | it died | the word says | survivors |
//! |---------|---------------|-----------|
//! | before its claim | FREE | nothing |
//! | between claim and commit | WRITING, dead | consumers wait there until `recover` poisons it, then skip |
//! | after its commit | FULL | receive the message |
//! | between take and release | READING, dead | producers find the ring full there until `recover` frees it or hands it on |
//! | after its release | FREE, next lap | nothing |
//! | before a hint's store | a hint behind the truth | walk a little |

mod geometry;
mod recovery;
mod run;
mod walk;
mod word;

pub use geometry::Geometry;
pub(crate) use geometry::LARGE;
pub use run::{ClaimedRun, TakenRun};

use super::Owner;
use crate::error::Error;
use crate::memory::{Region, prefetch_to_write};
use crate::position::Position;
use crate::sync::{AtomicU64, Ordering, STEP_BUDGET, Witness, point};
use core::marker::PhantomData;
use core::mem::offset_of;
use core::ptr::NonNull;
use crossbeam_utils::{Backoff, CachePadded};
use geometry::{AHEAD, SLOTS};
use walk::{GALLOP_COST, RESTART_COST};
use word::{FREE, FULL, ORPHAN, POISON, READING, READING_RUN, WRITING, WRITING_RUN, Word};

/// What becomes of a message whose receiver died holding it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Delivery {
    /// It is dropped and counted as lost.
    #[default]
    AtMostOnce,
    /// Another receiver gets it, out of its order. Messages that are taken in
    /// place say so ([`Message::redelivered`](crate::Message::redelivered));
    /// copies that `recv` gives do not.
    AtLeastOnce,
}

/// The lines before the slots.
#[repr(C)]
struct Header {
    /// Hint at T. Written by producers after each claim; may lag, never leads.
    tail: CachePadded<AtomicU64>,
    /// Hint at H. Written by consumers after each take; may lag, never leads.
    head: CachePadded<AtomicU64>,
    counters: CachePadded<Counters>,
}

/// Rarely written. Advisory, but for `orphans`.
#[repr(C)]
struct Counters {
    /// Bumped after each recovery that may have made orphans.
    orphans: AtomicU64,
    lost: AtomicU64,
    redelivered: AtomicU64,
    abandoned: AtomicU64,
}

/// What lies before each payload.
#[repr(C)]
struct Slot {
    word: AtomicU64,
    /// Touched at both ends of the time for which the payload is held.
    witness: Witness,
}

impl core::fmt::Debug for Slot {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Slot").finish_non_exhaustive()
    }
}

/// A slot held for writing. Commit it or abandon it; one that is forgotten
/// stops consumers until its owner is gone.
// Two words, as `Taken`: in registers wherever it goes.
#[derive(Debug)]
#[must_use = "a claim that is neither committed nor abandoned stops the ring"]
pub struct Claim<'a> {
    at: At<'a>,
    /// What a commit stores.
    full: Word,
}

/// A slot held for reading. Release it.
#[derive(Debug)]
#[must_use = "a message that is never released keeps its slot"]
pub struct Taken<'a> {
    at: At<'a>,
    /// The lap for which a release frees it; and FREE, or ORPHAN if it was one.
    next: Word,
}

/// Where a slot is.
#[derive(Clone, Copy, Debug)]
struct At<'a> {
    slot: NonNull<Slot>,
    memory: PhantomData<&'a Slot>,
}

// SAFETY: a claim is the right to one slot, which any thread may use.
unsafe impl Send for Claim<'_> {}
// SAFETY: as above.
unsafe impl Send for Taken<'_> {}

impl<'a> At<'a> {
    #[inline(always)]
    fn slot(self) -> &'a Slot {
        // SAFETY: made by `Ring::at` and `Ring::on` alone, and so of a slot of the ring:
        // initialised memory for as long as 'a; only atomics inside.
        unsafe { self.slot.as_ref() }
    }

    #[inline(always)]
    fn payload(self) -> NonNull<u8> {
        // SAFETY: the payload follows at once, in the same slot.
        unsafe { self.slot.add(1).cast() }
    }
}

impl Claim<'_> {
    /// Where the payload goes: exclusively the holder's, with the geometry's
    /// size and alignment.
    #[inline]
    pub fn payload(&self) -> NonNull<u8> {
        self.at.payload()
    }
}

impl Taken<'_> {
    /// Where the payload is: nobody writes there until the release.
    #[inline]
    pub fn payload(&self) -> NonNull<u8> {
        self.at.payload()
    }

    /// Whether an earlier receiver died holding the message.
    #[inline]
    pub fn redelivered(&self) -> bool {
        self.next.state() == ORPHAN
    }
}

/// Why there is nothing to claim.
#[derive(Debug)]
pub enum NoClaim {
    /// Every slot is in use. If the oldest is held by somebody, that may be
    /// why: ask whether it is alive.
    Full(Option<Owner>),
    /// The ring is corrupt.
    Corrupt(Error),
}

/// Why there is nothing to take.
#[derive(Debug)]
pub enum NoTake {
    /// Nothing is published. If the slot is still held by a reader of the lap
    /// before, that one is named.
    Empty(Option<Owner>),
    /// The next message is being written by this owner: ask whether it is
    /// alive.
    Pending(Owner),
    /// An abandoned slot was freed: wake producers, and try again.
    Skipped,
    /// The ring is corrupt.
    Corrupt(Error),
}

/// Advisory counts: right as long as nobody is killed between a change and its
/// count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Slots ever claimed.
    pub claimed: u64,
    /// Slots ever taken or skipped.
    pub resolved: u64,
    /// Messages that died with their receiver.
    pub lost: u64,
    /// Messages that were delivered again.
    pub redelivered: u64,
    /// Claims that were abandoned by hand or by death.
    pub abandoned: u64,
}

/// The ring, laid over borrowed memory. Copies are views of one ring.
#[derive(Clone, Copy)]
pub struct Ring<'a> {
    header: NonNull<Header>,
    /// The first slot's word.
    slots: NonNull<u8>,
    geometry: Geometry,
    memory: PhantomData<&'a [AtomicU64]>,
}

// SAFETY: all shared state is reached through atomics, and payloads only
// through claims, which the protocol makes exclusive.
unsafe impl Send for Ring<'_> {}
// SAFETY: as above.
unsafe impl Sync for Ring<'_> {}

fn corrupt(what: &'static str, at: usize) -> Error {
    Error::Corrupt { what, at: at as u64 }
}

impl<'a> Ring<'a> {
    /// Writes an empty ring into the region, its next position being `start`
    /// (a count of slots; 0 but for tests of wraps).
    ///
    /// # Safety
    ///
    /// Nobody else may use the region during the call.
    ///
    /// # Panics
    ///
    /// Panics when the region is shorter than the geometry or not aligned to
    /// [`LINE`](crate::LINE).
    pub unsafe fn init(region: Region<'a>, geometry: Geometry, start: u64) -> Ring<'a> {
        assert!(geometry.fits(region), "region too small or misaligned for the ring");
        let laps = geometry.laps;
        let first = laps.at_count(start);
        let header = Header {
            tail: CachePadded::new(AtomicU64::new(first.0)),
            head: CachePadded::new(AtomicU64::new(first.0)),
            counters: CachePadded::new(Counters {
                orphans: AtomicU64::new(0),
                lost: AtomicU64::new(0),
                redelivered: AtomicU64::new(0),
                abandoned: AtomicU64::new(0),
            }),
        };
        // SAFETY: the header fits (checked above) and is aligned to LINE.
        unsafe { region.at::<Header>(0).write(header) };
        for index in 0..laps.capacity() {
            // Slots before the first position have been through this lap.
            let lap = laps.lap(first).wrapping_add(u64::from(index < laps.index(first)));
            let lap = laps.cut(lap);
            let slot = Slot {
                word: AtomicU64::new(Word::new(lap, FREE, 0).0),
                witness: Witness::default(),
            };
            let offset = SLOTS + geometry.word_offset + index * geometry.stride;
            // SAFETY: index < capacity, so the slot lies inside `geometry.len`;
            // the stride keeps slots aligned for their word.
            unsafe { region.at::<Slot>(offset).write(slot) };
        }
        // SAFETY: just initialised with this geometry.
        unsafe { Self::attach(region, geometry) }
    }

    /// A view of a ring that [`Ring::init`] wrote with this geometry.
    ///
    /// # Safety
    ///
    /// The region must hold such a ring, and be used by nothing but views of
    /// it. (Its *contents* may be hostile; they are checked wherever they
    /// matter.)
    ///
    /// # Panics
    ///
    /// As [`Ring::init`].
    pub unsafe fn attach(region: Region<'a>, geometry: Geometry) -> Ring<'a> {
        assert!(geometry.fits(region), "region too small or misaligned for the ring");
        Ring {
            // SAFETY: the header fits and is aligned, both checked above.
            header: unsafe { region.at(0) },
            // SAFETY: inside the first slot, and so inside `geometry.len <= region.len()`.
            slots: unsafe { region.at(SLOTS + geometry.word_offset) },
            geometry,
            memory: PhantomData,
        }
    }

    /// Its geometry.
    #[inline]
    pub fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    #[inline(always)]
    fn header(&self) -> &'a Header {
        // SAFETY: `attach` checked bounds and alignment; initialised memory, as
        // its contract says, for as long as 'a; only atomics inside.
        unsafe { self.header.as_ref() }
    }

    #[inline(always)]
    fn at(&self, index: usize) -> At<'a> {
        debug_assert!(index < self.geometry.capacity());
        // SAFETY: every index comes from `Laps` arithmetic on a position that
        // was `checked`, hence below the capacity, for which `attach` checked
        // that the slots fit.
        let slot = unsafe { self.slots.add(index * self.geometry.stride).cast() };
        At { slot, memory: PhantomData }
    }

    /// The slot so many further, before the end.
    #[inline(always)]
    fn on(&self, at: At<'a>, n: usize) -> At<'a> {
        // SAFETY: inside, as callers have found.
        At { slot: unsafe { at.slot.byte_add(n * self.geometry.stride) }, ..at }
    }

    #[inline(always)]
    fn slot(&self, index: usize) -> &'a Slot {
        self.at(index).slot()
    }

    #[inline(always)]
    fn load(&self, at: Position) -> Word {
        // Edge W: Acquire pairs with the Release in `settle`; edges P and R, for `adopt`, with
        // those in `commit` and `repair`. For all else Relaxed would do: whoever moves a word
        // does so by the CAS that follows, and that one acquires.
        Word(self.slot(self.geometry.laps.index(at)).word.load(Ordering::Acquire))
    }

    #[inline(always)]
    fn cas(&self, at: Position, from: Word, to: Word, success: Ordering) -> bool {
        let word = &self.slot(self.geometry.laps.index(at)).word;
        word.compare_exchange(from.0, to.0, success, Ordering::Relaxed).is_ok()
    }

    #[inline(always)]
    fn free_after(&self, lap: u64) -> Word {
        Word::new(self.geometry.laps.cut(lap.wrapping_add(1)), FREE, 0)
    }

    /// Claims the slot at the hint, if it is free: the usual case of
    /// [`Ring::try_claim`], small enough for the caller's loop.
    #[inline(always)]
    pub(crate) fn claim_at_hint(&self, me: Owner) -> Option<Claim<'a>> {
        let laps = self.geometry.laps;
        let at = laps.checked(self.header().tail.load(Ordering::Relaxed))?;
        let (claim, next) = (self.claim_of(at), laps.next(at));
        let word = claim.at.slot().word.load(Ordering::Relaxed);
        if word != Word::new(laps.lap(at), FREE, 0).0 || !self.own_free(at, Word(word), me) {
            return None;
        }
        Some(self.claimed(claim, next))
    }

    /// Asks for the line of a slot some way ahead. The last slots' are in the room that
    /// is left for it.
    #[inline(always)]
    fn prefetch(&self, at: At<'a>) {
        prefetch_to_write(at.slot.cast::<u8>().as_ptr().wrapping_add(self.geometry.ahead));
    }

    /// The same for a message in place, of which the first line is what is sure to be
    /// used.
    #[inline(always)]
    pub(crate) fn prefetch_first(&self, payload: NonNull<u8>) {
        let ahead = self.geometry.stride.saturating_mul(AHEAD);
        let offset = payload.addr().get() - self.slots.addr().get();
        if self.geometry.stride >= 64
            && offset.saturating_add(ahead) < self.geometry.stride * self.geometry.capacity()
        {
            prefetch_to_write(payload.as_ptr().wrapping_add(ahead - size_of::<Slot>()));
        }
    }

    /// Whether so many slots from the hint on are free, as far as one look at the
    /// last of them tells.
    pub(crate) fn has_room(&self, n: usize) -> bool {
        self.looks_like(self.header().tail.load(Ordering::Relaxed), n, FREE)
    }

    /// Whether so many messages from the hint on are there, in the same way.
    pub(crate) fn has_stock(&self, n: usize) -> bool {
        self.looks_like(self.header().head.load(Ordering::Relaxed), n, FULL)
    }

    /// Whether the slot at the hint is free: the usual case of [`NoTake::Empty`].
    #[inline(always)]
    pub(crate) fn has_none_at_hint(&self) -> bool {
        // Edge H, as in `try_take`.
        self.looks_like(self.header().head.load(Ordering::Acquire), 1, FREE)
    }

    #[inline(always)]
    fn looks_like(&self, hint: u64, n: usize, state: u64) -> bool {
        let laps = self.geometry.laps;
        laps.checked(hint).is_some_and(|at| {
            let at = laps.forward(at, n - 1);
            self.load(at) == Word::new(laps.lap(at), state, 0)
        })
    }

    /// Moves a slot from FREE to WRITING, unless somebody else was faster.
    #[inline(always)]
    fn own_free(&self, at: Position, free: Word, me: Owner) -> bool {
        // Edge F: Acquire pairs with the Release that freed the slot, in
        // `release`, `abandon` or `recover`.
        self.cas(at, free, Word::new(free.lap(), WRITING, me.get()), Ordering::Acquire)
    }

    /// After `own_free`: the hint, at the `next` position, and the claim that goes with it.
    #[inline(always)]
    fn claimed(&self, claim: Claim<'a>, next: Position) -> Claim<'a> {
        point("claim.slot");
        // Edge H: Release pairs with the Acquire in `try_claim`.
        self.header().tail.store(next.0, Ordering::Release);
        point("claim.tail");
        self.prefetch(claim.at);
        claim.at.slot().witness.write();
        claim
    }

    /// Claims the next slot for `me`: the first free one from the hint on,
    /// however far that is behind.
    ///
    /// # Errors
    ///
    /// [`NoClaim`] says why not.
    pub fn try_claim(&self, me: Owner) -> Result<Claim<'a>, NoClaim> {
        let laps = self.geometry.laps;
        // Edge H: Acquire pairs with the Release of who stored the hint, in `claimed` or
        // `own_run`.
        let hint = self.header().tail.load(Ordering::Acquire);
        let Some(mut at) = laps.checked(hint) else {
            return Err(NoClaim::Corrupt(corrupt("tail hint of the queue", 0)));
        };
        let backoff = Backoff::new();
        let (mut steps, mut behind) = (0, 0);
        while steps < STEP_BUDGET {
            steps += 1;
            let word = self.load(at);
            match self.ahead(word, at) {
                0 if word.state() == FREE => {
                    if self.own_free(at, word, me) {
                        return Ok(self.claimed(self.claim_of(at), laps.next(at)));
                    }
                    backoff.spin();
                }
                // The hint was behind: somebody claimed this position.
                0.. => {
                    at = self.after(word, at, Word::is_claimed);
                    behind += 1;
                    if behind > 3 {
                        steps += GALLOP_COST;
                        at = self.frontier(at, Word::is_claimed);
                    }
                }
                // The slot is still in the lap before: `at` is the frontier.
                _ => match word.state() {
                    FULL => return Err(NoClaim::Full(None)),
                    ORPHAN => return Err(NoClaim::Full(None)),
                    WRITING | WRITING_RUN | READING | READING_RUN => match word.owner() {
                        Some(owner) => return Err(NoClaim::Full(Some(owner))),
                        None => return Err(NoClaim::Corrupt(self.bad_slot(at))),
                    },
                    // Nobody holds it, and there is no message in it.
                    POISON => {
                        let _ = self.cas(at, word, self.free_after(word.lap()), Ordering::Relaxed);
                        point("claim.poison-freed");
                    }
                    // The load was older than the hint: start from what it
                    // saw. The CAS above decides on the newest value.
                    FREE => {
                        steps += RESTART_COST;
                        at = self.restart(word, at);
                    }
                    _ => return Err(NoClaim::Corrupt(self.bad_slot(at))),
                },
            }
        }
        Err(NoClaim::Corrupt(corrupt("no end to the claimed slots from", laps.index(at))))
    }

    /// The claim of this position, for whoever gets it.
    #[inline(always)]
    fn claim_of(&self, position: Position) -> Claim<'a> {
        let (index, lap) = (self.geometry.laps.index(position), self.geometry.laps.lap(position));
        Claim { at: self.at(index), full: Word::new(lap, FULL, 0) }
    }

    #[cold]
    fn bad_slot(&self, at: Position) -> Error {
        corrupt("word of slot", self.geometry.laps.index(at))
    }

    /// Publishes a claimed slot. Wake consumers afterwards.
    #[inline(always)]
    pub fn commit(&self, claim: Claim<'a>) {
        claim.at.slot().witness.write();
        // Edge P: Release pairs with the Acquire of the CAS in `own_full`. A
        // plain store is enough, since nobody else moves a word that names a
        // living owner.
        claim.at.slot().word.store(claim.full.0, Ordering::Release);
        point("commit.slot");
    }

    /// Gives a claimed slot up: consumers skip it. Wake them afterwards.
    pub fn abandon(&self, claim: Claim<'a>) {
        claim.at.slot().witness.write();
        self.header().counters.abandoned.fetch_add(1, Ordering::Relaxed);
        point("abandon.counted");
        // Edge F: Release pairs with the Acquire of the claim that writes here
        // next; the skip in between is a read-modify-write.
        claim.at.slot().word.store(Word::new(claim.full.lap(), POISON, 0).0, Ordering::Release);
        point("abandon.slot");
    }

    /// Takes the message at the hint, if there is one: the usual case of
    /// [`Ring::try_take`], small enough for the caller's loop.
    #[inline(always)]
    pub(crate) fn take_at_hint(&self, me: Owner) -> Option<Taken<'a>> {
        let laps = self.geometry.laps;
        let at = laps.checked(self.header().head.load(Ordering::Relaxed))?;
        let (taken, next) = (self.taken_of(at), laps.next(at));
        let word = taken.at.slot().word.load(Ordering::Relaxed);
        if word != Word::new(laps.lap(at), FULL, 0).0 || !self.own_full(at, Word(word), me) {
            return None;
        }
        Some(self.taken(taken, next))
    }

    /// Moves a slot from FULL to READING, unless somebody else was faster.
    #[inline(always)]
    fn own_full(&self, at: Position, full: Word, me: Owner) -> bool {
        // Edge P: Acquire pairs with the Release in `commit`.
        self.cas(at, full, Word::new(full.lap(), READING, me.get()), Ordering::Acquire)
    }

    /// After `own_full`: the hint, at the `next` position, and the message that goes with it.
    #[inline(always)]
    fn taken(&self, taken: Taken<'a>, next: Position) -> Taken<'a> {
        point("take.slot");
        // Edge H: Release pairs with the Acquire in `try_take` and `has_none_at_hint`.
        self.header().head.store(next.0, Ordering::Release);
        point("take.head");
        self.prefetch(taken.at);
        taken.at.slot().witness.read();
        taken
    }

    /// Takes the next message for `me`: the first one from the hint on, however
    /// far that is behind.
    ///
    /// # Errors
    ///
    /// [`NoTake`] says why not.
    pub fn try_take(&self, me: Owner) -> Result<Taken<'a>, NoTake> {
        let laps = self.geometry.laps;
        // Edge H: Acquire pairs with the Release of who stored the hint, in `taken`,
        // `own_run`, or below.
        let hint = self.header().head.load(Ordering::Acquire);
        let Some(mut at) = laps.checked(hint) else {
            return Err(NoTake::Corrupt(corrupt("head hint of the queue", 0)));
        };
        let backoff = Backoff::new();
        let (mut steps, mut behind) = (0, 0);
        while steps < STEP_BUDGET {
            steps += 1;
            let word = self.load(at);
            let ahead = self.ahead(word, at);
            match (ahead, word.state()) {
                (0, FULL) => {
                    if self.own_full(at, word, me) {
                        return Ok(self.taken(self.taken_of(at), laps.next(at)));
                    }
                    backoff.spin();
                }
                (0, FREE) => return Err(NoTake::Empty(None)),
                (0, WRITING | WRITING_RUN) => match word.owner() {
                    Some(owner) => return Err(NoTake::Pending(owner)),
                    None => return Err(NoTake::Corrupt(self.bad_slot(at))),
                },
                (0, POISON) => {
                    if self.cas(at, word, self.free_after(word.lap()), Ordering::Relaxed) {
                        point("skip.slot");
                        // Edge H, as in `taken`.
                        self.header().head.store(laps.next(at).0, Ordering::Release);
                        point("skip.head");
                        return Err(NoTake::Skipped);
                    }
                }
                (0, READING | READING_RUN | ORPHAN) | (1.., _) => {
                    at = self.after(word, at, Word::is_resolved);
                    behind += 1;
                    if behind > 3 {
                        steps += GALLOP_COST;
                        at = self.frontier(at, Word::is_resolved);
                    }
                }
                // The slot is in use since the lap before.
                (..0, READING | READING_RUN) => match word.owner() {
                    Some(owner) => return Err(NoTake::Empty(Some(owner))),
                    None => return Err(NoTake::Corrupt(self.bad_slot(at))),
                },
                // The ring went round to a message whose reader died. Whoever
                // was to announce it may have died too; here it is met anyway.
                (..0, ORPHAN) => {
                    if let Some(taken) = self.adopt(at, word, me) {
                        return Ok(taken);
                    }
                }
                // The load was older than the hint: see `try_claim`.
                (..0, FREE | WRITING | WRITING_RUN | FULL | POISON) => {
                    steps += RESTART_COST;
                    at = self.restart(word, at);
                }
                _ => return Err(NoTake::Corrupt(self.bad_slot(at))),
            }
        }
        Err(NoTake::Corrupt(corrupt("no end to the resolved slots from", laps.index(at))))
    }

    /// The message at this position, for whoever gets it.
    #[inline(always)]
    fn taken_of(&self, position: Position) -> Taken<'a> {
        let (index, lap) = (self.geometry.laps.index(position), self.geometry.laps.lap(position));
        Taken { at: self.at(index), next: self.free_after(lap) }
    }

    /// Frees a taken slot. Wake producers afterwards.
    #[inline(always)]
    pub fn release(&self, taken: Taken<'a>) {
        taken.at.slot().witness.read();
        // Edge F: Release pairs with the Acquire of the claim that writes here
        // next. A plain store, for the reason given in `commit`.
        taken.at.slot().word.store(Word::new(taken.next.lap(), FREE, 0).0, Ordering::Release);
        point("release.slot");
    }
}

const _: () = assert!(offset_of!(Slot, word) == 0);
const _: () = assert!(size_of::<Option<Claim<'_>>>() == 16 && size_of::<Option<Taken<'_>>>() == 16);

#[cfg(all(test, loom))]
mod models;
#[cfg(all(test, not(loom)))]
mod tests;
