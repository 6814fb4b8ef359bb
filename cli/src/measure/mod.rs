//! Measuring between two processes: what the demonstration's table and
//! `slipring bench` have in common.
//!
//! | file | holds |
//! |------|-------|
//! | `message` | what is sent: numbered messages of some sizes |
//! | `transport` | how: the ways between two processes, and the manners of using them |
//! | `ends` | slipring's ways, in all their manners |
//! | `protocol` | the conversation over any of them: round trips and throughput |
//! | `times` | records of how long something took |
//! | `peer` | starts the process at the other end |

pub mod ends;
pub mod message;
pub mod peer;
pub mod protocol;
pub mod times;
pub mod transport;
