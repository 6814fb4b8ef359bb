//! What the child processes do.

use super::ledger::Shares;
use super::stream::{Consume, Produce};
use super::transport::Kind;
use super::{pipe, shared_memory, stream, table};
use crate::Result;
use serde::{Deserialize, Serialize};

/// A child's part.
#[derive(Serialize, Deserialize)]
pub enum Role {
    /// Greets, and answers pings.
    Greet { segment: String },
    /// Sets the value and the array.
    Set { segment: String },
    /// Sends its share of the messages.
    Produce { segment: String, shares: Shares, part: Produce },
    /// Receives messages, and keeps the ledger.
    Consume { segment: String, shares: Shares, part: Consume },
    /// Is at the other end of a measurement.
    Serve { kind: Kind, bytes: usize, segment: String, cpu: Option<usize> },
}

/// Plays the role.
pub fn play(role: Role) -> Result<()> {
    match role {
        Role::Greet { segment } => pipe::child(&segment),
        Role::Set { segment } => shared_memory::child(&segment),
        Role::Produce { segment, shares, part } => stream::produce(&segment, shares, part),
        Role::Consume { segment, shares, part } => stream::consume(&segment, shares, part),
        Role::Serve { kind, bytes, segment, cpu } => table::child(kind, bytes, &segment, cpu),
    }
}
