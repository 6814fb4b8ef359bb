//! What the child processes of all commands do.

use crate::demo::ledger::Shares;
use crate::demo::stream::{Consume, Produce};
use crate::demo::{pipe, shared_memory, stream};
use crate::measure::peer::{self, Course};
use crate::{Result, bench, processes, scratch, torture};
use serde::{Deserialize, Serialize};

/// A child's part.
#[derive(Serialize, Deserialize)]
pub enum Role {
    /// Removes the names that start with the prefix, when the parent is gone.
    CleanUp { prefix: String },
    /// Greets, and answers pings.
    Greet { segment: String },
    /// Sets the value and the array.
    Set { segment: String },
    /// Sends its share of the messages.
    Produce { segment: String, shares: Shares, part: Produce },
    /// Receives messages, and keeps the ledger.
    Consume { segment: String, shares: Shares, part: Consume },
    /// Is at the other end of a measurement.
    Serve { course: Course, segment: String, cpu: Option<usize> },
    /// Is another process of a measurement.
    Bench(bench::Part),
    /// Sends or receives until it is killed.
    Torture(torture::Part),
}

/// Plays the role.
pub fn play(parent: i32, role: &str) -> Result<()> {
    let role: Role = serde_json::from_str(role)?;
    if let Role::CleanUp { prefix } = role {
        return scratch::clean_up(&prefix);
    }
    processes::die_with(parent)?;
    match role {
        Role::CleanUp { .. } => Ok(()),
        Role::Greet { segment } => pipe::child(&segment),
        Role::Set { segment } => shared_memory::child(&segment),
        Role::Produce { segment, shares, part } => stream::produce(&segment, shares, part),
        Role::Consume { segment, shares, part } => stream::consume(&segment, shares, part),
        Role::Serve { course, segment, cpu } => peer::child(course, &segment, cpu),
        Role::Bench(part) => bench::child(part),
        Role::Torture(part) => torture::play(&part),
    }
}
