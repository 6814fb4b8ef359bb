//! What the child processes of all commands do.

use crate::{Result, demo, processes, scratch, torture};
use serde::Deserialize;

/// A child's part. Each command writes its own.
#[derive(Deserialize)]
#[serde(untagged)]
enum Role {
    CleanUp(scratch::CleanUp),
    Demo(demo::child::Role),
    Torture(torture::Part),
}

/// Plays the role.
pub fn play(parent: i32, role: &str) -> Result<()> {
    let role: Role = serde_json::from_str(role)?;
    if let Role::CleanUp(part) = role {
        return scratch::clean_up(&part);
    }
    processes::die_with(parent)?;
    match role {
        Role::CleanUp(_) => Ok(()),
        Role::Demo(role) => demo::child::play(role),
        Role::Torture(part) => torture::play(&part),
    }
}
