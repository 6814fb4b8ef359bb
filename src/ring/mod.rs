//! The algorithms, over borrowed memory: they know nothing of names, files or
//! processes.

pub mod bytes;
pub mod mpmc;
pub mod spsc;

use std::fmt;

/// Who holds a slot, a lock or an end: the number of a participant, from 1 to
/// [`Owner::MAX`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Owner(u16);

impl Owner {
    /// Bits that an owner takes in a word.
    pub const BITS: u32 = 12;
    /// The highest number.
    pub const MAX: u16 = (1 << Self::BITS) - 1;

    /// The owner of this number, unless that is zero or above [`Owner::MAX`].
    pub const fn new(number: u16) -> Option<Owner> {
        if number == 0 || number > Self::MAX { None } else { Some(Owner(number)) }
    }

    /// The number.
    #[inline(always)]
    pub const fn get(self) -> u16 {
        self.0
    }
}

impl fmt::Debug for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}
