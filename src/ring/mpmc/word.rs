//! The word of a slot.

use crate::position::MAX_LAP_BITS;
use crate::ring::Owner;

/// The word of a slot, unpacked at need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Word(pub(super) u64);

const STATE_BITS: u32 = 3;
pub(super) const LAP_SHIFT: u32 = STATE_BITS + Owner::BITS;
const _: () = assert!(MAX_LAP_BITS + LAP_SHIFT == u64::BITS);

pub(super) const FREE: u64 = 0;
pub(super) const WRITING: u64 = 1;
pub(super) const FULL: u64 = 2;
pub(super) const READING: u64 = 3;
pub(super) const POISON: u64 = 4;
pub(super) const ORPHAN: u64 = 5;
/// Of the first slot of a run: WRITING, READING, with all others up to the group's end.
pub(super) const WRITING_RUN: u64 = 6;
pub(super) const READING_RUN: u64 = 7;

impl Word {
    #[inline(always)]
    pub(super) const fn new(lap: u64, state: u64, owner: u16) -> Word {
        Word(lap << LAP_SHIFT | state << Owner::BITS | owner as u64)
    }

    #[inline(always)]
    pub(super) const fn lap(self) -> u64 {
        self.0 >> LAP_SHIFT
    }

    #[inline(always)]
    pub(super) const fn state(self) -> u64 {
        self.0 >> Owner::BITS & ((1 << STATE_BITS) - 1)
    }

    #[inline(always)]
    pub(super) const fn owner(self) -> Option<Owner> {
        Owner::new((self.0 & Owner::MAX as u64) as u16)
    }

    #[inline(always)]
    pub(super) const fn is_run(self) -> bool {
        self.state() >= WRITING_RUN
    }

    /// Whether a slot that says so is claimed in its own lap.
    #[inline(always)]
    pub(super) const fn is_claimed(self) -> bool {
        self.state() != FREE
    }

    /// Whether a slot that says so is resolved in its own lap.
    #[inline(always)]
    pub(super) const fn is_resolved(self) -> bool {
        matches!(self.state(), READING | READING_RUN | ORPHAN)
    }
}
