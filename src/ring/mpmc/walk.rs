//! Walks over the slots: from a hint, which may be behind, to the first position that
//! is not passed.
//!
//! A walk is at home only where no run reaches over from before (see `run.rs`): hints are
//! so, and what follows, in the same lap, a slot that is passed. Wherever else it comes to,
//! into another lap or by galloping, it begins with the group, which runs do not cross.

use super::word::{POISON, Word};
use super::{Counts, Ring};
use crate::position::Position;
use crate::sync::{Ordering, STEP_BUDGET};

/// Steps that a gallop counts for, since it reads up to 2 log2(capacity) words.
pub(super) const GALLOP_COST: u32 = STEP_BUDGET >> 16;

/// Steps that a walk counts for which begins anew, since one is rare and two rarer.
pub(super) const RESTART_COST: u32 = STEP_BUDGET >> 6;

impl Ring<'_> {
    /// Laps by which the word is ahead of the position.
    #[inline(always)]
    pub(super) fn ahead(&self, word: Word, at: Position) -> i64 {
        let laps = self.geometry.laps;
        laps.laps_between(word.lap(), laps.lap(at))
    }

    /// Whether the word shows that `at` is passed, where `own` says so for its own lap.
    #[inline(always)]
    fn passed(&self, word: Word, at: Position, own: impl Fn(Word) -> bool) -> bool {
        let ahead = self.ahead(word, at);
        ahead > 0 || ahead == 0 && own(word)
    }

    /// Where to look next when the word has shown that `at` is passed: the first position
    /// that it does not show to be, but in another lap from the beginning of the group.
    pub(super) fn after(&self, word: Word, at: Position, own: impl Fn(Word) -> bool) -> Position {
        let (laps, index) = (self.geometry.laps, self.geometry.laps.index(at));
        let own = own(word);
        let lap = if own { word.lap() } else { word.lap().wrapping_sub(1) };
        if laps.at(lap, index) != at {
            laps.at(lap, self.geometry.group_start(index))
        } else if own && word.is_run() {
            laps.forward(at, self.geometry.group_end(index) - index)
        } else {
            laps.next(at)
        }
    }

    /// Where to begin anew when the word is older than the hint that led to it.
    pub(super) fn restart(&self, word: Word, at: Position) -> Position {
        let laps = self.geometry.laps;
        laps.at(word.lap(), self.geometry.group_start(laps.index(at)))
    }

    /// The first position that is not passed, from where a walk is: by galloping, and then,
    /// since that may have come to the inside of a run, slot by slot in that group.
    #[cold]
    pub(super) fn frontier(&self, from: Position, own: impl Fn(Word) -> bool + Copy) -> Position {
        let laps = self.geometry.laps;
        let near = self.gallop(from, own);
        let mut at = laps.at(laps.lap(near), self.geometry.group_start(laps.index(near)));
        for _ in 0..self.geometry.group {
            let word = self.load(at);
            if !self.passed(word, at, own) {
                break;
            }
            at = self.after(word, at, own);
        }
        at
    }

    /// The first position from `low` on that is not passed: by doubling steps,
    /// then by halving them. Right as far as the words it saw, and but for runs.
    pub(super) fn gallop(&self, mut low: Position, own: impl Fn(Word) -> bool) -> Position {
        let laps = self.geometry.laps;
        let passed = |at: Position| self.passed(self.load(at), at, &own);
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

    /// The first position never resolved and the first never claimed, as two
    /// moments saw them.
    fn bounds(&self) -> (Position, Position) {
        let laps = self.geometry.laps;
        let find = |hint: u64, own: fn(Word) -> bool| {
            let mut at = laps.checked(hint).unwrap_or(Position(0));
            // Each time two groups on at least, where runs are unfinished.
            for _ in 0..64 {
                let word = self.load(at);
                if !self.passed(word, at, own) {
                    break;
                }
                at = self.frontier(self.after(word, at, own), own);
            }
            at
        };
        let head = find(self.header().head.load(Ordering::Relaxed), Word::is_resolved);
        let tail = find(self.header().tail.load(Ordering::Relaxed), Word::is_claimed);
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
