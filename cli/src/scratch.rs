//! Names for a run's segments, none of which survives it.
//!
//! A process that is interrupted or killed can't clean up after itself, so
//! another one does: a child in a process group of its own, where Ctrl-C does
//! not reach it. It waits for the end of its standard input, which only this
//! process holds open, and then removes whatever is left. On the ordinary
//! way out there is nothing left: segments go with their last process.

use crate::child::Role;
use crate::{Result, processes};
use slipring::{Lock, Segment};
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::process::{Child, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

/// A source of names, and the promise to remove them.
pub struct Scratch {
    prefix: String,
    cleaner: Child,
}

impl Scratch {
    /// Starts the process that cleans up after this command.
    pub fn new(command: &str) -> Result<Scratch> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
        let (pid, now) = (std::process::id(), now.as_nanos() as u64);
        let prefix = format!("slipring-{command}-{pid}-{now:x}-");
        let cleaner = processes::command(&Role::CleanUp { prefix: prefix.clone() })?
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        Ok(Scratch { prefix, cleaner })
    }

    /// A segment's name, of this run's own.
    pub fn name(&self, what: &str) -> String {
        format!("{}{what}", self.prefix)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        drop(self.cleaner.stdin.take());
        let _ = self.cleaner.wait();
    }
}

/// The child that cleans up.
pub fn clean_up(prefix: &str) -> Result<()> {
    // Whatever ends the wait, clean up.
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
    for entry in std::fs::read_dir(crate::tools::SHM)? {
        if let Ok(name) = entry?.file_name().into_string()
            && name.starts_with(prefix)
        {
            // One that resists must not keep the others.
            let _ = Segment::unlink(&name);
        }
    }
    // Killed while it made a segment, the process may have left one that had no
    // name yet. Making another removes those.
    drop(Lock::create(&format!("{prefix}last")));
    Ok(())
}
