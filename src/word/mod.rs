//! Algorithms on single words: a lock that outlives its owner, and a cell whose
//! readers never wait.

pub(crate) mod cell;
pub(crate) mod lock;
