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
//! | P    | `commit`: FULL | `own_full`, adoption: CAS to READING | payload to its reader |
//! | F    | `release`, `abandon`: FREE, POISON | `own_free`: CAS to WRITING | the slot to its next writer |
//! | R    | `recover`: CAS to POISON, FREE, ORPHAN | as P and F | what the dead had done |
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

use super::Owner;
use crate::error::Error;
use crate::memory::{LINE, Region, prefetch_to_write, round_up};
use crate::position::{Laps, MAX_LAP_BITS, Position};
use crate::sync::{AtomicU64, Ordering, STEP_BUDGET, Witness, point};
use core::alloc::Layout;
use core::marker::PhantomData;
use core::mem::offset_of;
use core::ptr::NonNull;
use crossbeam_utils::{Backoff, CachePadded};

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

/// The word of a slot, unpacked at need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Word(u64);

const STATE_BITS: u32 = 3;
const LAP_SHIFT: u32 = STATE_BITS + Owner::BITS;
const _: () = assert!(MAX_LAP_BITS + LAP_SHIFT == u64::BITS);

/// Slots above so many bytes begin with a line of their own.
const LARGE: usize = 4096;

/// Steps that a gallop counts for, since it reads up to 2 log2(capacity) words.
const GALLOP_COST: u32 = STEP_BUDGET >> 16;

const FREE: u64 = 0;
const WRITING: u64 = 1;
const FULL: u64 = 2;
const READING: u64 = 3;
const POISON: u64 = 4;
const ORPHAN: u64 = 5;

impl Word {
    #[inline(always)]
    const fn new(lap: u64, state: u64, owner: u16) -> Word {
        Word(lap << LAP_SHIFT | state << Owner::BITS | owner as u64)
    }

    #[inline(always)]
    const fn lap(self) -> u64 {
        self.0 >> LAP_SHIFT
    }

    #[inline(always)]
    const fn state(self) -> u64 {
        self.0 >> Owner::BITS & ((1 << STATE_BITS) - 1)
    }

    #[inline(always)]
    const fn owner(self) -> Option<Owner> {
        Owner::new((self.0 & Owner::MAX as u64) as u16)
    }
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

/// The start of each slot; the payload follows, aligned.
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

/// Where everything lies: a function of the capacity and the payload's layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    laps: Laps,
    payload: Layout,
    payload_offset: usize,
    stride: usize,
    /// Bytes from a slot to what is asked for ahead of it: none in a small ring, where
    /// all would but take each other's lines, and none where few slots share a line,
    /// which loses by it.
    ahead: usize,
    len: usize,
}

/// How many slots ahead lines are asked for, to be written to: each side's were
/// written by the other one last.
const AHEAD: usize = 8;

const SLOTS: usize = match round_up(size_of::<Header>(), LINE) {
    Some(offset) => offset,
    None => unreachable!(),
};

impl Geometry {
    /// The geometry of `capacity` slots (1 to 2³¹) that each hold one `payload`
    /// (alignment at most 64).
    ///
    /// A slot of up to 64 bytes is padded to a power of two, so that it never
    /// straddles two cache lines. Larger ones lie as densely as their alignment
    /// allows: to own a slot is to own its lines, and each costs a transfer. From 4
    /// KiB on that counts for nothing, and each slot has lines of its own.
    ///
    /// # Errors
    ///
    /// Says what is wrong with the capacity or the payload.
    pub fn new(capacity: usize, payload: Layout) -> Result<Geometry, &'static str> {
        let laps = Laps::new(capacity).ok_or("capacity must be from 1 to 2^31 slots")?;
        if payload.align() > 64 {
            return Err("alignment above 64 bytes is not supported");
        }
        let too_large = "the ring's size overflows";
        let payload_offset = round_up(size_of::<Slot>(), payload.align()).ok_or(too_large)?;
        let used = payload_offset.checked_add(payload.size()).ok_or(too_large)?;
        let stride = if used <= 64 {
            used.next_power_of_two().max(align_of::<Slot>())
        } else {
            let align = if used <= LARGE { payload.align().max(align_of::<Slot>()) } else { 64 };
            round_up(used, align).ok_or(too_large)?
        };
        let ahead = if stride <= 32 && capacity >= 4 * AHEAD { AHEAD * stride } else { 0 };
        let len = stride
            .checked_mul(capacity)
            .and_then(|slots| slots.checked_add(SLOTS + ahead))
            .and_then(|len| round_up(len, LINE))
            .filter(|&len| len <= isize::MAX as usize)
            .ok_or(too_large)?;
        Ok(Geometry { laps, payload, payload_offset, stride, ahead, len })
    }

    /// Bytes that the ring takes, from a base aligned to [`LINE`].
    pub fn len(&self) -> usize {
        self.len
    }

    /// Never: a ring has a header.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Slots.
    pub fn capacity(&self) -> usize {
        self.laps.capacity()
    }

    /// Size and alignment of one payload.
    pub fn payload(&self) -> Layout {
        self.payload
    }

    fn fits(&self, region: Region<'_>) -> bool {
        Layout::from_size_align(self.len, LINE).is_ok_and(|layout| region.fits(layout))
    }
}

/// A slot held for writing. Commit it or abandon it; one that is forgotten
/// stops consumers until its owner is gone.
#[derive(Debug)]
#[must_use = "a claim that is neither committed nor abandoned stops the ring"]
pub struct Claim<'a> {
    slot: &'a Slot,
    /// What a commit stores.
    full: Word,
    /// What an abandonment stores.
    poison: Word,
    payload: NonNull<u8>,
}

/// A slot held for reading. Release it.
#[derive(Debug)]
#[must_use = "a message that is never released keeps its slot"]
pub struct Taken<'a> {
    slot: &'a Slot,
    /// What a release stores.
    free: Word,
    payload: NonNull<u8>,
    redelivered: bool,
}

// SAFETY: a claim is the right to one slot, which any thread may use.
unsafe impl Send for Claim<'_> {}
// SAFETY: as above.
unsafe impl Send for Taken<'_> {}

impl Claim<'_> {
    /// Where the payload goes: exclusively the holder's, with the geometry's
    /// size and alignment.
    #[inline]
    pub fn payload(&self) -> NonNull<u8> {
        self.payload
    }
}

impl Taken<'_> {
    /// Where the payload is: nobody writes there until the release.
    #[inline]
    pub fn payload(&self) -> NonNull<u8> {
        self.payload
    }

    /// Whether an earlier receiver died holding the message.
    #[inline]
    pub fn redelivered(&self) -> bool {
        self.redelivered
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
    /// [`LINE`].
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
            let lap = laps.lap(laps.at(lap, index));
            let slot = Slot {
                word: AtomicU64::new(Word::new(lap, FREE, 0).0),
                witness: Witness::default(),
            };
            // SAFETY: index < capacity, so the slot lies inside `geometry.len`;
            // the stride keeps slots aligned for their word.
            unsafe { region.at::<Slot>(SLOTS + index * geometry.stride).write(slot) };
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
            // SAFETY: SLOTS <= geometry.len <= region.len().
            slots: unsafe { region.at(SLOTS) },
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
    fn slot(&self, index: usize) -> &'a Slot {
        debug_assert!(index < self.geometry.capacity());
        // SAFETY: every index comes from `Laps` arithmetic on a position that
        // was `checked`, hence below the capacity, for which `attach` checked
        // that the slots fit.
        unsafe { self.slots.add(index * self.geometry.stride).cast().as_ref() }
    }

    #[inline(always)]
    fn payload(&self, index: usize) -> NonNull<u8> {
        // SAFETY: as `slot`; the payload lies inside the slot's stride.
        unsafe { self.slots.add(index * self.geometry.stride + self.geometry.payload_offset) }
    }

    #[inline(always)]
    fn load(&self, at: Position) -> Word {
        // Relaxed: a decision is only ever made by the CAS that follows, and
        // that one acquires.
        Word(self.slot(self.geometry.laps.index(at)).word.load(Ordering::Relaxed))
    }

    #[inline(always)]
    fn cas(&self, at: Position, from: Word, to: Word, success: Ordering) -> bool {
        let word = &self.slot(self.geometry.laps.index(at)).word;
        word.compare_exchange(from.0, to.0, success, Ordering::Relaxed).is_ok()
    }

    #[inline(always)]
    fn free_after(&self, lap: u64) -> Word {
        let laps = self.geometry.laps;
        Word::new(laps.lap(laps.at(lap.wrapping_add(1), 0)), FREE, 0)
    }

    /// Laps by which the word is ahead of the position.
    #[inline(always)]
    fn ahead(&self, word: Word, at: Position) -> i64 {
        let laps = self.geometry.laps;
        laps.laps_between(word.lap(), laps.lap(at))
    }

    /// The first position that the word at `at` does not yet prove to be
    /// passed; `passed` says whether its own lap is.
    fn after(&self, word: Word, at: Position, own_lap_passed: bool) -> Position {
        let laps = self.geometry.laps;
        let lap = if own_lap_passed { word.lap() } else { word.lap().wrapping_sub(1) };
        laps.next(laps.at(lap, laps.index(at)))
    }

    /// The first position from `low` on that is not passed: by doubling steps,
    /// then by halving them. Right as far as the words it saw; the caller looks
    /// again at what it returns.
    #[cold]
    fn gallop(&self, mut low: Position, passed: impl Fn(Position) -> bool) -> Position {
        let laps = self.geometry.laps;
        let mut step = 1;
        let mut high = loop {
            let probe = laps.forward(low, step);
            if !passed(probe) {
                break probe;
            }
            low = laps.next(probe);
            if step == laps.capacity() {
                return low;
            }
            step = (step * 2).min(laps.capacity());
        };
        while low != high {
            let distance = laps.slots_between(high, low);
            if distance <= 0 {
                break;
            }
            let middle = laps.forward(low, (distance / 2) as usize);
            if passed(middle) {
                low = laps.next(middle);
            } else {
                high = middle;
            }
        }
        low
    }

    fn claimed(&self, at: Position) -> bool {
        let word = self.load(at);
        let ahead = self.ahead(word, at);
        ahead > 0 || ahead == 0 && word.state() != FREE
    }

    fn resolved(&self, at: Position) -> bool {
        let word = self.load(at);
        let ahead = self.ahead(word, at);
        ahead > 0 || ahead == 0 && matches!(word.state(), READING | ORPHAN)
    }

    /// Claims the slot at the hint, if it is free: the usual case of
    /// [`Ring::try_claim`], small enough for the caller's loop.
    #[inline(always)]
    pub(crate) fn claim_at_hint(&self, me: Owner) -> Option<Claim<'a>> {
        let laps = self.geometry.laps;
        let at = laps.checked(self.header().tail.load(Ordering::Relaxed))?;
        let claim = self.claim_of(at);
        let word = claim.slot.word.load(Ordering::Relaxed);
        if word != Word::new(laps.lap(at), FREE, 0).0 || !self.own_free(at, Word(word), me) {
            return None;
        }
        Some(self.claimed_at(at, claim))
    }

    /// Asks for the line of a slot some way ahead. The last slots' are in the room that
    /// is left for it.
    #[inline(always)]
    fn prefetch(&self, slot: &Slot) {
        let slot = core::ptr::from_ref(slot).cast_mut().cast::<u8>();
        prefetch_to_write(slot.wrapping_add(self.geometry.ahead));
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
            prefetch_to_write(payload.as_ptr().wrapping_add(ahead - self.geometry.payload_offset));
        }
    }

    /// Whether so many slots from the hint on are free, as far as one look at the
    /// last of them tells.
    pub(crate) fn has_room(&self, n: usize) -> bool {
        self.looks_like(&self.header().tail, n, FREE)
    }

    /// Whether so many messages from the hint on are there, in the same way.
    pub(crate) fn has_stock(&self, n: usize) -> bool {
        self.looks_like(&self.header().head, n, FULL)
    }

    fn looks_like(&self, hint: &AtomicU64, n: usize, state: u64) -> bool {
        let laps = self.geometry.laps;
        laps.checked(hint.load(Ordering::Relaxed)).is_some_and(|at| {
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

    /// After `own_free`: the hint, and the claim that goes with it.
    #[inline(always)]
    fn claimed_at(&self, at: Position, claim: Claim<'a>) -> Claim<'a> {
        point("claim.slot");
        self.header().tail.store(self.geometry.laps.next(at).0, Ordering::Relaxed);
        point("claim.tail");
        self.prefetch(claim.slot);
        claim.slot.witness.write();
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
        let hint = self.header().tail.load(Ordering::Relaxed);
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
                        return Ok(self.claimed_at(at, self.claim_of(at)));
                    }
                    backoff.spin();
                }
                // The hint was behind: somebody claimed this position.
                0.. => {
                    at = self.after(word, at, word.state() != FREE);
                    behind += 1;
                    if behind > 3 {
                        steps += GALLOP_COST;
                        at = self.gallop(at, |p| self.claimed(p));
                    }
                }
                // The slot is still in the lap before: `at` is the frontier.
                _ => match word.state() {
                    FULL => return Err(NoClaim::Full(None)),
                    ORPHAN => return Err(NoClaim::Full(None)),
                    WRITING | READING => match word.owner() {
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
                    FREE => at = laps.at(word.lap(), laps.index(at)),
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
        Claim {
            slot: self.slot(index),
            full: Word::new(lap, FULL, 0),
            poison: Word::new(lap, POISON, 0),
            payload: self.payload(index),
        }
    }

    #[cold]
    fn bad_slot(&self, at: Position) -> Error {
        corrupt("word of slot", self.geometry.laps.index(at))
    }

    /// Publishes a claimed slot. Wake consumers afterwards.
    #[inline(always)]
    pub fn commit(&self, claim: Claim<'a>) {
        claim.slot.witness.write();
        // Edge P: Release pairs with the Acquire of the CAS in `own_full`. A
        // plain store is enough, since nobody else moves a word that names a
        // living owner.
        claim.slot.word.store(claim.full.0, Ordering::Release);
        point("commit.slot");
    }

    /// Gives a claimed slot up: consumers skip it. Wake them afterwards.
    pub fn abandon(&self, claim: Claim<'a>) {
        claim.slot.witness.write();
        self.header().counters.abandoned.fetch_add(1, Ordering::Relaxed);
        point("abandon.counted");
        // Edge F: Release pairs with the Acquire of the claim that writes here
        // next; the skip in between is a read-modify-write.
        claim.slot.word.store(claim.poison.0, Ordering::Release);
        point("abandon.slot");
    }

    /// Takes the message at the hint, if there is one: the usual case of
    /// [`Ring::try_take`], small enough for the caller's loop.
    #[inline(always)]
    pub(crate) fn take_at_hint(&self, me: Owner) -> Option<Taken<'a>> {
        let laps = self.geometry.laps;
        let at = laps.checked(self.header().head.load(Ordering::Relaxed))?;
        let taken = self.taken_of(at, false);
        let word = taken.slot.word.load(Ordering::Relaxed);
        if word != Word::new(laps.lap(at), FULL, 0).0 || !self.own_full(at, Word(word), me) {
            return None;
        }
        Some(self.taken_at(at, taken))
    }

    /// Moves a slot from FULL to READING, unless somebody else was faster.
    #[inline(always)]
    fn own_full(&self, at: Position, full: Word, me: Owner) -> bool {
        // Edge P: Acquire pairs with the Release in `commit`.
        self.cas(at, full, Word::new(full.lap(), READING, me.get()), Ordering::Acquire)
    }

    /// After `own_full`: the hint, and the message that goes with it.
    #[inline(always)]
    fn taken_at(&self, at: Position, taken: Taken<'a>) -> Taken<'a> {
        point("take.slot");
        self.header().head.store(self.geometry.laps.next(at).0, Ordering::Relaxed);
        point("take.head");
        self.prefetch(taken.slot);
        taken.slot.witness.read();
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
        let hint = self.header().head.load(Ordering::Relaxed);
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
                        return Ok(self.taken_at(at, self.taken_of(at, false)));
                    }
                    backoff.spin();
                }
                (0, FREE) => return Err(NoTake::Empty(None)),
                (0, WRITING) => match word.owner() {
                    Some(owner) => return Err(NoTake::Pending(owner)),
                    None => return Err(NoTake::Corrupt(self.bad_slot(at))),
                },
                (0, POISON) => {
                    if self.cas(at, word, self.free_after(word.lap()), Ordering::Relaxed) {
                        point("skip.slot");
                        self.header().head.store(laps.next(at).0, Ordering::Relaxed);
                        point("skip.head");
                        return Err(NoTake::Skipped);
                    }
                }
                (0, READING | ORPHAN) | (1.., _) => {
                    let own = matches!(word.state(), READING | ORPHAN);
                    at = self.after(word, at, own);
                    behind += 1;
                    if behind > 3 {
                        steps += GALLOP_COST;
                        at = self.gallop(at, |p| self.resolved(p));
                    }
                }
                // The slot is in use since the lap before.
                (..0, READING) => match word.owner() {
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
                (..0, FREE | WRITING | FULL | POISON) => {
                    at = laps.at(word.lap(), laps.index(at));
                }
                _ => return Err(NoTake::Corrupt(self.bad_slot(at))),
            }
        }
        Err(NoTake::Corrupt(corrupt("no end to the resolved slots from", laps.index(at))))
    }

    /// The message at this position, for whoever gets it.
    #[inline(always)]
    fn taken_of(&self, position: Position, redelivered: bool) -> Taken<'a> {
        let (index, lap) = (self.geometry.laps.index(position), self.geometry.laps.lap(position));
        Taken {
            slot: self.slot(index),
            free: self.free_after(lap),
            payload: self.payload(index),
            redelivered,
        }
    }

    /// Frees a taken slot. Wake producers afterwards.
    #[inline(always)]
    pub fn release(&self, taken: Taken<'a>) {
        taken.slot.witness.read();
        // Edge F: Release pairs with the Acquire of the claim that writes here
        // next. A plain store, for the reason given in `commit`.
        taken.slot.word.store(taken.free.0, Ordering::Release);
        point("release.slot");
    }

    /// Counts the recoveries that may have left orphans. A consumer that finds
    /// another number than at its last fruitless [`Ring::try_adopt`] looks for
    /// orphans; each consumer remembers for itself, so that one that is stopped
    /// or killed keeps nobody else from them.
    #[inline]
    pub fn orphan_epoch(&self) -> u64 {
        // Edge O: Acquire pairs with the Release in `recover`.
        self.header().counters.orphans.load(Ordering::Acquire)
    }

    /// Looks at every slot for a message whose receiver died, and takes it.
    pub fn try_adopt(&self, me: Owner) -> Option<Taken<'a>> {
        let laps = self.geometry.laps;
        (0..laps.capacity()).find_map(|index| {
            let at = laps.at(0, index);
            let word = self.load(at);
            if word.state() == ORPHAN { self.adopt(at, word, me) } else { None }
        })
    }

    /// Takes the orphan that `word` showed in the slot of `at`.
    #[cold]
    fn adopt(&self, at: Position, word: Word, me: Owner) -> Option<Taken<'a>> {
        let laps = self.geometry.laps;
        // Edges P and R: Acquire pairs with the Release in `commit`, whose
        // release sequence the moves since then have continued, and with that
        // in `recover`.
        let mine = Word::new(word.lap(), READING, me.get());
        if !self.cas(at, word, mine, Ordering::Acquire) {
            return None;
        }
        point("adopt.slot");
        self.header().counters.redelivered.fetch_add(1, Ordering::Relaxed);
        point("adopt.counted");
        let taken = self.taken_of(laps.at(word.lap(), laps.index(at)), true);
        taken.slot.witness.read();
        Some(taken)
    }

    /// Repairs every word that names `dead`; returns how many did. Wake
    /// everybody afterwards.
    ///
    /// Idempotent: killed half-way, it is repeated by whoever recovers next.
    /// The caller must know that `dead` is gone for good and that its number is
    /// not given out meanwhile; if not, messages can be lost or torn (memory
    /// stays safe in other respects).
    pub fn recover(&self, dead: Owner, delivery: Delivery) -> usize {
        let laps = self.geometry.laps;
        let counters = &self.header().counters;
        let mut repaired = 0;
        for index in 0..laps.capacity() {
            let at = laps.at(0, index);
            let word = self.load(at);
            if word.owner() != Some(dead) {
                continue;
            }
            // Edge R: Release, so that whoever acquires the slot next also sees
            // what the recoverer knows the dead to have done.
            let (to, count) = match (word.state(), delivery) {
                (WRITING, _) => (Word::new(word.lap(), POISON, 0), Some(&counters.abandoned)),
                (READING, Delivery::AtMostOnce) => {
                    (self.free_after(word.lap()), Some(&counters.lost))
                }
                (READING, Delivery::AtLeastOnce) => (Word::new(word.lap(), ORPHAN, 0), None),
                _ => continue,
            };
            if self.cas(at, word, to, Ordering::Release) {
                point("recover.slot");
                repaired += 1;
                if let Some(count) = count {
                    count.fetch_add(1, Ordering::Relaxed);
                    point("recover.counted");
                }
            }
        }
        if delivery == Delivery::AtLeastOnce {
            // Also when nothing was found: a recoverer that was killed before
            // this line may have made orphans. Edge O: Release pairs with the
            // Acquire in `orphan_epoch`.
            counters.orphans.fetch_add(1, Ordering::Release);
            point("recover.orphans");
        }
        repaired
    }

    /// The first position never resolved and the first never claimed, as two
    /// moments saw them.
    fn bounds(&self) -> (Position, Position) {
        let laps = self.geometry.laps;
        let find = |hint: u64, passed: &dyn Fn(Position) -> bool, own: fn(Word) -> bool| {
            let mut at = laps.checked(hint).unwrap_or(Position(0));
            for _ in 0..4 {
                if !passed(at) {
                    break;
                }
                let word = self.load(at);
                at = self.gallop(self.after(word, at, own(word)), passed);
            }
            at
        };
        let head = find(self.header().head.load(Ordering::Relaxed), &|p| self.resolved(p), |w| {
            matches!(w.state(), READING | ORPHAN)
        });
        let tail = find(self.header().tail.load(Ordering::Relaxed), &|p| self.claimed(p), |w| {
            w.state() != FREE
        });
        (head, tail)
    }

    /// Messages published and not yet taken, with those being written: a
    /// moment's truth.
    pub fn len(&self) -> usize {
        let (head, tail) = self.bounds();
        self.geometry.laps.slots_between(tail, head).clamp(0, self.geometry.capacity() as i64)
            as usize
    }

    /// Whether the next position to take holds no message and none is being
    /// written to it.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the slot that the next message needs is still in use.
    pub fn is_full(&self) -> bool {
        let (_, tail) = self.bounds();
        let word = self.load(tail);
        self.ahead(word, tail) < 0 && word.state() != POISON
    }

    /// Advisory counts since the ring was made.
    pub fn counts(&self) -> Counts {
        let laps = self.geometry.laps;
        let (head, tail) = self.bounds();
        let counters = &self.header().counters;
        Counts {
            claimed: laps.count(tail),
            resolved: laps.count(head),
            lost: counters.lost.load(Ordering::Relaxed),
            redelivered: counters.redelivered.load(Ordering::Relaxed),
            abandoned: counters.abandoned.load(Ordering::Relaxed),
        }
    }
}

const _: () = assert!(offset_of!(Slot, word) == 0);

#[cfg(all(test, loom))]
#[path = "mpmc_models.rs"]
mod models;
#[cfg(all(test, not(loom)))]
#[path = "mpmc_tests.rs"]
mod tests;
