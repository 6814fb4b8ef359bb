//! Runs: many slots claimed or taken at once.
//!
//! Most of what a small message costs is one locked instruction on either side. Who has
//! many to send, or room for many, pays one for a run of them. Slots come in *groups*, of
//! as many as the [`Geometry`](super::Geometry) says; a run is all of a group from some slot
//! on. If all of them are free (full), the word of the first one is moved, and with it all
//! are held:
//!
//! ```text
//! first:   FREE(L) ─claim→ WRITING_RUN(L,o) ───────commit→ FULL(L)     (last of all)
//! others:  FREE(L) ──────────────────────── commit→ FULL(L)
//!
//! first:   FULL(L) ─take→ READING_RUN(L,o) ────── release→ FREE(L+1)   (last of all)
//! others:  FULL(L) ──────────────────────  release→ FREE(L+1)
//! ```
//!
//! The words of the others name nobody and look as if they could be claimed (taken). Nobody
//! does, because nobody moves a word there who has not passed the first one, which
//! until the end says that it is a run; then one goes on behind the group. To walk like
//! that is the business of `walk.rs`; hints are stored for the end of a run only. (Whoever
//! looks without moving, as gallops do, may be wrong.)
//!
//! That all others are free (full) is seen before the first one's word is moved, and stays
//! so: if the CAS succeeds, the first one was the first position never claimed (resolved)
//! until then, so that nobody can have had those behind it.
//!
//! | edge | release | acquire | makes visible |
//! |------|---------|---------|---------------|
//! | P, F | as in `mod.rs`, by `settle`: each word | `own_run`: each word | as there |
//! | W    | `settle`: the first word | `Ring::load` | the other words: a CAS that expects what was there before fails, and nothing looks empty or full that is not |
//!
//! When the holder dies, `recover` does to all of the run what it does to single slots, the
//! first one last: of a run that is being sent nothing arrives, and of one that is being
//! received what was not released yet is lost or handed on.

use super::word::{FREE, FULL, POISON, READING_RUN, WRITING_RUN, Word};
use super::{At, Ring};
use crate::memory::prefetch_to_write;
use crate::ring::Owner;
use crate::sync::{AtomicU64, Ordering, point};
use core::marker::PhantomData;
use core::ptr::NonNull;

/// Slots in a row.
#[derive(Debug)]
struct Run<'a> {
    /// Whose they are.
    slots: NonNull<u8>,
    first: usize,
    end: usize,
    lap: u64,
    memory: PhantomData<&'a [AtomicU64]>,
}

/// Slots held for writing. Commit or abandon them all; those that are forgotten stop
/// consumers until their owner is gone.
#[derive(Debug)]
#[must_use = "a claim that is neither committed nor abandoned stops the ring"]
pub struct ClaimedRun<'a>(Run<'a>);

/// Slots held for reading. Release them all.
#[derive(Debug)]
#[must_use = "messages that are never released keep their slots"]
pub struct TakenRun<'a>(Run<'a>);

impl Run<'_> {
    fn len(&self) -> usize {
        self.end - self.first
    }

    /// The slots in their order: numbers in the run, and places.
    #[inline(always)]
    fn each<'a>(
        &self,
        ring: &Ring<'a>,
    ) -> impl DoubleEndedIterator<Item = (usize, At<'a>)> + ExactSizeIterator {
        let (first, ring) = (ring.at(self.first), *ring);
        // Inside the ring, since the last one is.
        (0..self.len()).map(move |nth| (nth, ring.on(first, nth)))
    }
}

impl ClaimedRun<'_> {
    /// How many: two or more.
    #[inline(always)]
    #[expect(clippy::len_without_is_empty, reason = "never empty")]
    pub fn len(&self) -> usize {
        self.0.len()
    }
}

impl TakenRun<'_> {
    /// How many: two or more.
    #[inline(always)]
    #[expect(clippy::len_without_is_empty, reason = "never empty")]
    pub fn len(&self) -> usize {
        self.0.len()
    }
}

impl<'a> Ring<'a> {
    /// Claims a run of up to `most` slots, if one begins at the hint and all of it is free.
    /// `None` says nothing: claim a single one.
    #[inline(always)]
    pub fn claim_run(&self, me: Owner, most: usize) -> Option<ClaimedRun<'a>> {
        let run = self.own_run(&self.header().tail, FREE, WRITING_RUN, me, most)?;
        run.each(self).for_each(|(_, at)| at.slot().witness.write());
        Some(ClaimedRun(run))
    }

    /// Takes a run of up to `most` messages, if one begins at the hint and all of it is
    /// there. `None` says nothing: take a single one.
    #[inline(always)]
    pub fn take_run(&self, me: Owner, most: usize) -> Option<TakenRun<'a>> {
        let run = self.own_run(&self.header().head, FULL, READING_RUN, me, most)?;
        run.each(self).for_each(|(_, at)| at.slot().witness.read());
        Some(TakenRun(run))
    }

    /// Moves the first word of a run, if all of them are in this state.
    #[inline(always)]
    fn own_run(
        &self,
        hint: &AtomicU64,
        state: u64,
        to: u64,
        me: Owner,
        most: usize,
    ) -> Option<Run<'a>> {
        let laps = self.geometry.laps;
        let at = laps.checked(hint.load(Ordering::Relaxed))?;
        let (first, lap) = (laps.index(at), laps.lap(at));
        let end = self.geometry.group_end(first);
        if !(2..=most).contains(&(end - first)) {
            return None;
        }
        let run = Run { slots: self.slots, first, end, lap, memory: PhantomData };
        let word = Word::new(lap, state, 0);
        // The last one first, which is the likeliest not to be ready.
        for (_, other) in run.each(self).skip(1).rev() {
            // Edges P and F: Acquire pairs with the Release of who published or freed it.
            if other.slot().word.load(Ordering::Acquire) != word.0 {
                return None;
            }
        }
        // Edges P and F, for the first one.
        if !self.cas(at, word, Word::new(lap, to, me.get()), Ordering::Acquire) {
            return None;
        }
        point("run.slot");
        // Edge H: see the table in `mod.rs`.
        hint.store(laps.forward(at, end - first).0, Ordering::Release);
        point("run.hint");
        Some(run)
    }

    /// Writes and publishes a run: `write` gets each message's number in it, and its
    /// payload, as [`Claim::payload`](super::Claim::payload). Wake consumers afterwards.
    ///
    /// # Panics
    ///
    /// Panics when the run is another ring's. If `write` panics, the run stops consumers
    /// until its owner is gone.
    #[inline(always)]
    pub fn commit_run(&self, run: ClaimedRun<'a>, mut write: impl FnMut(usize, NonNull<u8>)) {
        self.assert_own(&run.0);
        let full = Word::new(run.0.lap, FULL, 0);
        self.prefetch_run(&run.0);
        let first = self.at(run.0.first);
        write(0, first.payload());
        for (nth, other) in run.0.each(self).skip(1) {
            write(nth, other.payload());
            other.slot().witness.write();
            other.settle(full);
            point("commit-run.slot");
        }
        first.slot().witness.write();
        first.settle(full);
        point("commit-run.first");
    }

    /// Gives a claimed run up: consumers skip its slots. Wake them afterwards.
    ///
    /// # Panics
    ///
    /// Panics when the run is another ring's.
    #[cold]
    pub fn abandon_run(&self, run: ClaimedRun<'a>) {
        self.assert_own(&run.0);
        let poison = Word::new(run.0.lap, POISON, 0);
        let mut all = run.0.each(self);
        let first = all.next();
        for (_, at) in all.chain(first) {
            at.slot().witness.write();
            at.settle(poison);
            self.header().counters.abandoned.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Reads and frees a run: `read` gets each message's number in it, and its payload,
    /// as [`Taken::payload`](super::Taken::payload). Wake producers afterwards.
    ///
    /// # Panics
    ///
    /// Panics when the run is another ring's. If `read` panics, the run keeps its slots
    /// until its owner is gone.
    #[inline(always)]
    pub fn release_run(&self, run: TakenRun<'a>, mut read: impl FnMut(usize, NonNull<u8>)) {
        self.assert_own(&run.0);
        let free = self.free_after(run.0.lap);
        for (nth, at) in run.0.each(self) {
            read(nth, at.payload());
        }
        self.prefetch_run(&run.0);
        for (_, other) in run.0.each(self).skip(1) {
            other.slot().witness.read();
            other.settle(free);
            point("release-run.slot");
        }
        let first = self.at(run.0.first);
        first.slot().witness.read();
        first.settle(free);
        point("release-run.first");
    }

    /// Or its indices might be out of bounds here.
    #[inline(always)]
    fn assert_own(&self, run: &Run<'_>) {
        assert!(run.slots == self.slots, "a run of another ring");
    }

    /// Asks for the lines of a run some way ahead: see [`Ring::prefetch`].
    #[inline(always)]
    fn prefetch_run(&self, run: &Run<'_>) {
        let (stride, ahead) = (self.geometry.stride, self.geometry.ahead_in_runs);
        if ahead > 0 {
            let (first, capacity) = (run.first + ahead, self.geometry.capacity());
            let first = if first < capacity { first } else { first - capacity };
            let bytes = run.len().min(capacity - first) * stride;
            let first = self.at(first).slot.cast::<u8>().as_ptr();
            for line in (0..bytes).step_by(64) {
                prefetch_to_write(first.wrapping_add(line));
            }
        }
    }
}

impl At<'_> {
    /// Stores a word of a run.
    #[inline(always)]
    fn settle(self, word: Word) {
        // Edges P and F: Release pairs with the Acquire of the CAS, or in `own_run`, of who
        // has the slot next. Edge W, for the first one: with that in `load`. A plain store:
        // nobody else moves a word of a run whose owner is alive.
        self.slot().word.store(word.0, Ordering::Release);
    }
}
