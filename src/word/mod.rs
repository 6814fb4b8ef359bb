//! Algorithms on single words: atomics of any type, a lock that outlives its owner, a cell whose
//! readers never wait, and a roster of who uses an object.

pub(crate) mod bits;
pub(crate) mod cell;
pub(crate) mod lock;
pub(crate) mod roster;
pub(crate) mod seat;
