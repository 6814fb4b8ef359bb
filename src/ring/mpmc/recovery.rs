//! What becomes of the slots of the dead.

use super::word::{FREE, FULL, ORPHAN, POISON, READING, READING_RUN, WRITING, WRITING_RUN, Word};
use super::{Delivery, Ring, Taken};
use crate::position::Position;
use crate::ring::Owner;
use crate::sync::{AtomicU64, Ordering, point};

impl<'a> Ring<'a> {
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
    pub(super) fn adopt(&self, at: Position, word: Word, me: Owner) -> Option<Taken<'a>> {
        let laps = self.geometry.laps;
        // Relaxed: that `word` was loaded by Acquire pairs with the Release in `commit` (edge
        // P), whose release sequence the moves since then have continued, and with that in
        // `repair` (edge R).
        let mine = Word::new(word.lap(), READING, me.get());
        if !self.cas(at, word, mine, Ordering::Relaxed) {
            return None;
        }
        point("adopt.slot");
        self.header().counters.redelivered.fetch_add(1, Ordering::Relaxed);
        point("adopt.counted");
        let taken = self.taken_of(laps.at(word.lap(), laps.index(at)));
        let taken = Taken { next: Word::new(taken.next.lap(), ORPHAN, 0), ..taken };
        taken.at.slot().witness.read();
        Some(taken)
    }

    /// Repairs every slot that `dead` holds; returns how many. Wake everybody
    /// afterwards.
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
            let (to, count) = match (word.state(), delivery) {
                (WRITING | WRITING_RUN, _) => {
                    (Word::new(word.lap(), POISON, 0), Some(&counters.abandoned))
                }
                (READING | READING_RUN, Delivery::AtMostOnce) => {
                    (self.free_after(word.lap()), Some(&counters.lost))
                }
                (READING | READING_RUN, Delivery::AtLeastOnce) => {
                    (Word::new(word.lap(), ORPHAN, 0), None)
                }
                _ => continue,
            };
            // The first slot of a run last: as long as it says so, nobody claims or takes
            // the others, and whoever recovers next finds them.
            let end = if word.is_run() { self.geometry.group_end(index) } else { index + 1 };
            for inside in index + 1..end {
                // Those that the dead had not filled yet, and those that it had; or those
                // that it had not freed yet.
                let held: &[u64] =
                    if word.state() == WRITING_RUN { &[FREE, FULL] } else { &[FULL] };
                for state in held {
                    let from = Word::new(word.lap(), *state, 0);
                    repaired += self.repair(laps.at(0, inside), from, to, count);
                }
            }
            repaired += self.repair(at, word, to, count);
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

    /// Moves one word, and counts it; how many it was.
    fn repair(&self, at: Position, from: Word, to: Word, count: Option<&AtomicU64>) -> usize {
        // Edge R: Release, so that whoever acquires the slot next also sees
        // what the recoverer knows the dead to have done.
        if !self.cas(at, from, to, Ordering::Release) {
            return 0;
        }
        point("recover.slot");
        if let Some(count) = count {
            count.fetch_add(1, Ordering::Relaxed);
            point("recover.counted");
        }
        1
    }
}
