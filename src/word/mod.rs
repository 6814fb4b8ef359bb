//! Algorithms on single words: a lock that outlives its owner, a cell whose
//! readers never wait, and a roster of who uses an object.

pub(crate) mod cell;
pub(crate) mod lock;
pub(crate) mod roster;
