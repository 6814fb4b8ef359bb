//! Tools for the segments of this machine.

pub mod inspect;
pub mod list;
pub mod recover;
pub mod unlink;

use crate::Result;
use slipring::{Error, OpenOptions, Segment, Stale};
use std::path::Path;

/// Where segments are.
pub const SHM: &str = "/dev/shm";

/// Whether the name leads anywhere.
fn exists(name: &str) -> bool {
    Path::new(SHM).join(name).exists()
}

/// Attaches to a segment only if a living process does, too. Attaching to any
/// other recovers it, and leaving it again may remove it.
fn join(name: &str) -> Result<Segment, Error> {
    OpenOptions::new().stale(Stale::Refuse).label("slipring tools").open(name)
}

/// Attaches to a segment, and recovers it if no living process holds it.
fn take(name: &str) -> Result<Segment, Error> {
    OpenOptions::new().label("slipring tools").open(name)
}
