//! Where everything lies.

use super::{Header, Slot};
use crate::memory::{LINE, Region, round_up};
use crate::position::Laps;
use core::alloc::Layout;

/// Slots above so many bytes begin with a line of their own.
pub(crate) const LARGE: usize = 4096;

/// Where everything lies: a function of the capacity and the payload's layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    pub(super) laps: Laps,
    pub(super) payload: Layout,
    /// Of the word, from the slot's start; the payload follows at once.
    pub(super) word_offset: usize,
    pub(super) stride: usize,
    /// Bytes from a slot to what is asked for ahead of it: none in a small ring, where
    /// all would but take each other's lines, and none where few slots share a line,
    /// which loses by it.
    pub(super) ahead: usize,
    /// Slots ahead in runs, in the same way, but also where slots have lines of their own.
    pub(super) ahead_in_runs: usize,
    /// Slots of a group, a power of two: see `run.rs`.
    pub(super) group: usize,
    len: usize,
}

/// How many slots ahead lines are asked for, to be written to: each side's were
/// written by the other one last.
pub(super) const AHEAD: usize = 8;

/// The same in runs, which are so much faster that a line would come too late.
const AHEAD_IN_RUNS: usize = 32;

/// Most slots of a group, and most bytes, since nobody sees anything of a run before all
/// of it is written.
const MOST_IN_GROUP: usize = 16;
const GROUP_BYTES: usize = 1024;

pub(super) const SLOTS: usize = match round_up(size_of::<Header>(), LINE) {
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
        let far = stride <= 128 && capacity >= 4 * AHEAD_IN_RUNS;
        let ahead_in_runs = if far { AHEAD_IN_RUNS } else { 0 };
        // With two groups or more, one can be written while another is read.
        let group = (GROUP_BYTES / stride).min(capacity / 2).clamp(1, MOST_IN_GROUP);
        let group = 1 << group.ilog2();
        let word_offset = payload_offset - size_of::<Slot>();
        Ok(Geometry { laps, payload, word_offset, stride, ahead, ahead_in_runs, group, len })
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

    /// Bytes from slot to slot.
    #[inline(always)]
    pub(crate) fn stride(&self) -> usize {
        self.stride
    }

    /// Size and alignment of one payload.
    pub fn payload(&self) -> Layout {
        self.payload
    }

    /// The first slot of the group of this one.
    #[inline(always)]
    pub(super) fn group_start(&self, index: usize) -> usize {
        index & !(self.group - 1)
    }

    /// The end of that group. The last one may be shorter.
    #[inline(always)]
    pub(super) fn group_end(&self, index: usize) -> usize {
        (self.group_start(index) + self.group).min(self.capacity())
    }

    pub(super) fn fits(&self, region: Region<'_>) -> bool {
        Layout::from_size_align(self.len, LINE).is_ok_and(|layout| region.fits(layout))
    }
}
