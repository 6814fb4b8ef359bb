//! The segment: a named file in shared memory, its catalog, and who is
//! attached to it.
//!
//! - [`name`]: which names are allowed.
//! - [`layout`]: bytes of the header, the catalog and the participants.
//! - [`catalog`]: objects, declared and validated.
//! - [`map`]: the mapping, through the `shared_memory` crate.
//! - [`file`](mod@file): creation, publication, opening and unlinking.
//! - [`attachment`]: leases, liveness and recovery.

pub(crate) mod attachment;
pub(crate) mod catalog;
pub(crate) mod file;
pub(crate) mod layout;
pub(crate) mod map;
pub(crate) mod name;
