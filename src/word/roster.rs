//! Who uses an object in which role, and whether that is over.
//!
//! Each participant has one word, `receivers:32 | senders:32`, the number of
//! handles it has in each role. Only its own process adds to it, and only its
//! own process or its recoverer takes from it, so a kill can't skew anything:
//! what is left is a word that names a dead participant.
//!
//! *Over* is derived: a role is gone when its word is zero for everybody, and
//! once was not. Looking at every word each time would be slow, so whoever
//! leaves (or recovers) last sets a flag, and whoever reads the flag looks at
//! the words before it believes it. The flag may be up wrongly for long, when
//! somebody enters while the last one leaves; but a flag that stays down means
//! that somebody still has to leave.
//!
//! The words are looked at one after the other, which is no snapshot: where one
//! enters and another leaves behind the look, each word may be seen at zero
//! though the role was never without anybody. So each entry is counted, beside
//! the flags, after the word is up. If the count is the same after the look as
//! before it, then nobody's entry was over in between, words only went down,
//! and all were zero at the end of the look. If it is not, somebody came, who
//! in turn will set the flag and wake, when leaving.
//!
//! *Closed by hand* is a flag of its own. A sender claims, and then looks at
//! the flag; a receiver that found nothing reads the flag, and then looks
//! again. Between the two lie barriers, so not both can miss the other, and no
//! message is accepted after a receiver was told that there are no more.
//!
//! | edge | release | acquire | makes visible |
//! |------|---------|---------|---------------|
//! | L    | `leave`, `expel`: the words | `count` | what the leaver published |
//! | E    | `enter`: the count of entries | `is_gone` | the word that is up |
//! | D    | `leave`, `expel`: the words, `settle` | `settle`: fence, the words | of two that leave, the other's word (Dekker's pattern) |
//! | C    | claim, `is_closed_after_claim` | the flag, `before_last_look`, look again | the claim, or the flag |

use crate::error::Error;
use crate::memory::{LINE, Region, round_up};
use crate::ring::Owner;
use crate::sync::{AtomicU64, Ordering, fence, heavy_barrier, light_barrier, point};
use core::ptr::NonNull;
use crossbeam_utils::CachePadded;

/// What a handle is to its object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Sender,
    Receiver,
}

impl Role {
    const ALL: [Role; 2] = [Role::Sender, Role::Receiver];

    const fn one(self) -> u64 {
        match self {
            Role::Sender => 1,
            Role::Receiver => 1 << 32,
        }
    }

    const fn count(self, word: u64) -> u32 {
        match self {
            Role::Sender => word as u32,
            Role::Receiver => (word >> 32) as u32,
        }
    }

    /// Set when nobody has the role any more.
    const fn gone(self) -> u64 {
        match self {
            Role::Sender => 1 << 1,
            Role::Receiver => 1 << 2,
        }
    }

    /// Set for good when somebody takes the role for the first time.
    const fn ever(self) -> u64 {
        self.gone() << 2
    }

    /// In `flags`: how many handles were ever added in the role.
    const fn entries(self) -> u64 {
        match self {
            Role::Sender => 0x0fff_ffff << 8,
            Role::Receiver => 0x0fff_ffff << 36,
        }
    }

    /// One entry.
    const fn entry(self) -> u64 {
        self.entries() & self.entries().wrapping_neg()
    }
}

/// In `flags`: closed by hand, for good.
const CLOSED: u64 = 1;

/// The line before the words.
#[repr(C)]
struct Header {
    /// `entries of receivers:28 | entries of senders:28 | flags:8`. The counts
    /// may wrap: nobody enters 2²⁸ times during one look at the words.
    flags: CachePadded<AtomicU64>,
}

const WORDS: usize = match round_up(size_of::<Header>(), LINE) {
    Some(offset) => offset,
    None => unreachable!(),
};

/// Bytes for this many participants.
pub(crate) fn len(participants: usize) -> Option<usize> {
    let words = participants.checked_mul(size_of::<AtomicU64>())?;
    round_up(words.checked_add(WORDS)?, LINE)
}

/// A view of a roster.
#[derive(Clone, Copy)]
pub(crate) struct Roster<'a> {
    header: &'a Header,
    words: NonNull<AtomicU64>,
    participants: usize,
    asymmetric: bool,
}

// SAFETY: atomics only.
unsafe impl Send for Roster<'_> {}
// SAFETY: as above.
unsafe impl Sync for Roster<'_> {}

impl<'a> Roster<'a> {
    /// Writes an empty roster.
    ///
    /// # Safety
    ///
    /// The region must have `len(participants)` bytes, aligned to [`LINE`],
    /// that nobody else uses during the call.
    pub(crate) unsafe fn init(region: Region<'a>, participants: usize) {
        let header = Header { flags: CachePadded::new(AtomicU64::new(0)) };
        // SAFETY: inside the region by the caller's promise, as are the words.
        unsafe { region.at::<Header>(0).write(header) };
        for i in 0..participants {
            let at = WORDS + i * size_of::<AtomicU64>();
            // SAFETY: as above.
            unsafe { region.at::<AtomicU64>(at).write(AtomicU64::new(0)) };
        }
    }

    /// A view of what `init` wrote.
    ///
    /// # Safety
    ///
    /// The region must hold such a roster of as many participants.
    pub(crate) unsafe fn attach(region: Region<'a>, participants: usize, asymmetric: bool) -> Self {
        Roster {
            // SAFETY: initialised and in bounds by the caller's promise.
            header: unsafe { region.at::<Header>(0).as_ref() },
            // SAFETY: as above.
            words: unsafe { region.at(WORDS) },
            participants,
            asymmetric,
        }
    }

    fn word(&self, index: usize) -> &'a AtomicU64 {
        debug_assert!(index < self.participants);
        // SAFETY: callers pass an index below `participants`, for which
        // `attach` was promised room.
        unsafe { self.words.add(index).as_ref() }
    }

    fn word_of(&self, owner: Owner) -> Result<&'a AtomicU64, Error> {
        let index = usize::from(owner.get()) - 1;
        if index < self.participants {
            return Ok(self.word(index));
        }
        Err(Error::Corrupt { what: "participant outside the roster,", at: owner.get().into() })
    }

    /// Adds a handle of `me`.
    pub(crate) fn enter(&self, me: Owner, role: Role) -> Result<(), Error> {
        let word = self.word_of(me)?;
        let flags = &self.header.flags;
        flags.fetch_or(role.ever(), Ordering::Relaxed);
        point("enter.ever");
        word.fetch_add(role.one(), Ordering::Relaxed);
        point("enter.word");
        // Only spares others the look at the words: if a leaver that missed the
        // word sets it afterwards, `is_gone` doubts it.
        flags.fetch_and(!role.gone(), Ordering::Relaxed);
        point("enter.flag");
        // Edge E: Release pairs with the Acquire in `is_gone`.
        flags.fetch_add(role.entry(), Ordering::Release);
        point("enter.counted");
        Ok(())
    }

    /// Takes a handle of `me` away; whether the role is gone now (then wake
    /// those who wait for it).
    pub(crate) fn leave(&self, me: Owner, role: Role) -> bool {
        let Ok(word) = self.word_of(me) else { return false };
        // Edge L: Release pairs with the Acquire in `count`.
        word.fetch_sub(role.one(), Ordering::Release);
        point("leave.word");
        self.settle(role)
    }

    /// Takes a dead participant's handles away; whether a role is gone now.
    pub(crate) fn expel(&self, dead: Owner) -> bool {
        let Ok(word) = self.word_of(dead) else { return false };
        // Edge L: Release pairs with the Acquire in `count`.
        word.swap(0, Ordering::Release);
        point("expel.word");
        // Also when the word was zero already: it may have died between leaving
        // and settling.
        let gone = Role::ALL.map(|role| self.settle(role));
        gone[0] | gone[1]
    }

    /// Sets the flag of a role that nobody has any more.
    fn settle(&self, role: Role) -> bool {
        // Edge D: of two that leave at once, the one whose fence is the later
        // sees both words down.
        fence(Ordering::SeqCst);
        let ever = self.header.flags.load(Ordering::Relaxed) & role.ever() != 0;
        if !ever || self.count(role) != 0 {
            return false;
        }
        self.header.flags.fetch_or(role.gone(), Ordering::Relaxed);
        point("settle.gone");
        true
    }

    /// Handles in this role, over all participants.
    pub(crate) fn count(&self, role: Role) -> usize {
        (0..self.participants)
            // Edge L: Acquire pairs with the Release in `leave` and `expel`.
            .map(|i| role.count(self.word(i).load(Ordering::Acquire)) as usize)
            .fold(0, usize::saturating_add)
    }

    /// Handles of one participant in this role.
    pub(crate) fn count_of(&self, owner: Owner, role: Role) -> usize {
        self.word_of(owner).map_or(0, |w| role.count(w.load(Ordering::Relaxed)) as usize)
    }

    /// Whether there was somebody in this role, and nobody is left. What they
    /// published is visible then.
    pub(crate) fn is_gone(&self, role: Role) -> bool {
        // Edge E: Acquire pairs with the Release in `enter`. Who is counted
        // here has its word seen up, unless it has left again.
        let before = self.header.flags.load(Ordering::Acquire);
        if before & role.gone() == 0 || self.count(role) != 0 {
            return false;
        }
        // Edge L: whoever had entered before a leaver left is counted here.
        let after = self.header.flags.load(Ordering::Relaxed);
        (before ^ after) & role.entries() == 0
    }

    /// Closes for good. Wake everybody afterwards.
    pub(crate) fn close(&self) {
        self.header.flags.fetch_or(CLOSED, Ordering::Relaxed);
        point("close.flag");
    }

    /// Whether it was closed by hand.
    #[inline]
    pub(crate) fn is_closed(&self) -> bool {
        self.header.flags.load(Ordering::Relaxed) & CLOSED != 0
    }

    /// The same, for a sender that has just claimed: if it is not closed, every
    /// receiver that finds it closed will find the claim too (edge C).
    #[inline]
    pub(crate) fn is_closed_after_claim(&self) -> bool {
        light_barrier(self.asymmetric);
        self.is_closed()
    }

    /// For a receiver that found nothing, and then the flag: if it looks again
    /// after this, it finds every claim that was accepted (edge C).
    pub(crate) fn before_last_look(&self) {
        heavy_barrier(self.asymmetric);
    }
}

#[cfg(all(test, loom))]
#[path = "roster_models.rs"]
mod models;

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::memory::Heap;

    const PARTICIPANTS: usize = 70;

    fn owner(n: u16) -> Owner {
        Owner::new(n).unwrap()
    }

    fn with(f: impl FnOnce(Roster<'_>)) {
        let heap = Heap::zeroed(len(PARTICIPANTS).unwrap());
        // SAFETY: the block is the test's own, and initialised for as many.
        f(unsafe {
            Roster::init(heap.region(), PARTICIPANTS);
            Roster::attach(heap.region(), PARTICIPANTS, false)
        });
    }

    #[test]
    fn a_role_that_nobody_ever_had_is_not_gone() {
        with(|roster| {
            assert!(!roster.is_gone(Role::Sender));
            assert!(!roster.expel(owner(1)));
            assert!(!roster.is_gone(Role::Sender));
            roster.enter(owner(1), Role::Receiver).unwrap();
            assert!(roster.leave(owner(1), Role::Receiver));
            assert!(!roster.is_gone(Role::Sender));
            assert!(roster.is_gone(Role::Receiver));
        });
    }

    #[test]
    fn the_last_handle_counts_and_who_comes_back_counts_again() {
        with(|roster| {
            let [first, last] = [owner(1), owner(PARTICIPANTS as u16)];
            for _ in 0..3 {
                for me in [first, first, last] {
                    roster.enter(me, Role::Sender).unwrap();
                    roster.enter(me, Role::Receiver).unwrap();
                }
                // Down again, so that nobody looks at the words in vain.
                let flags = roster.header.flags.load(Ordering::Relaxed);
                assert_eq!(flags & (Role::Sender.gone() | Role::Receiver.gone()), 0);
                assert_eq!((roster.count(Role::Sender), roster.count(Role::Receiver)), (3, 3));
                assert_eq!(roster.count_of(first, Role::Sender), 2);
                assert!(!roster.leave(first, Role::Sender));
                assert!(!roster.leave(last, Role::Sender));
                assert!(!roster.is_gone(Role::Sender));
                assert!(roster.leave(first, Role::Sender));
                assert!(roster.is_gone(Role::Sender) && !roster.is_gone(Role::Receiver));
                assert!(roster.expel(first), "the role of sender is gone");
                assert_eq!(roster.count(Role::Receiver), 1);
                assert!(roster.expel(last));
                assert!(roster.is_gone(Role::Receiver));
            }
        });
    }

    #[test]
    fn expelling_again_changes_nothing() {
        with(|roster| {
            roster.enter(owner(2), Role::Sender).unwrap();
            roster.enter(owner(3), Role::Sender).unwrap();
            for _ in 0..3 {
                assert!(!roster.expel(owner(2)));
                assert_eq!(roster.count(Role::Sender), 1);
            }
        });
    }

    #[test]
    fn participants_outside_are_refused() {
        with(|roster| {
            let outside = owner(PARTICIPANTS as u16 + 1);
            assert!(matches!(roster.enter(outside, Role::Sender), Err(Error::Corrupt { .. })));
            assert!(!roster.leave(outside, Role::Sender));
            assert!(!roster.expel(outside));
            assert_eq!(roster.count_of(outside, Role::Sender), 0);
        });
    }

    #[test]
    fn counts_of_entries_wrap_within_themselves() {
        assert_eq!((Role::Sender.entry(), Role::Receiver.entry()), (1 << 8, 1 << 36));
        assert_eq!(Role::Sender.entries() | Role::Receiver.entries() | 0xff, u64::MAX);
        with(|roster| {
            roster.enter(owner(1), Role::Sender).unwrap();
            assert!(roster.leave(owner(1), Role::Sender));
            let all = Role::Sender.entries() | Role::Receiver.entries();
            roster.header.flags.fetch_or(all, Ordering::Relaxed);
            assert!(roster.is_gone(Role::Sender) && !roster.is_closed());
            roster.enter(owner(1), Role::Sender).unwrap();
            assert!(!roster.is_gone(Role::Sender) && !roster.is_closed());
            assert!(roster.leave(owner(1), Role::Sender));
            assert!(roster.is_gone(Role::Sender));
        });
    }

    #[test]
    fn scribbled_words_give_numbers_and_nothing_worse() {
        with(|roster| {
            for i in 0..PARTICIPANTS {
                roster.word(i).store(u64::MAX, Ordering::Relaxed);
            }
            roster.header.flags.store(u64::MAX, Ordering::Relaxed);
            assert!(roster.is_closed() && !roster.is_gone(Role::Sender));
            roster.enter(owner(1), Role::Receiver).unwrap();
            roster.leave(owner(1), Role::Sender);
            for n in 1..=PARTICIPANTS as u16 {
                roster.expel(owner(n));
            }
            assert!(roster.is_gone(Role::Sender));
            roster.leave(owner(1), Role::Sender);
            assert!(roster.count(Role::Sender) > 0);
        });
    }
}
