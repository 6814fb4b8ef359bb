//! Child processes that are this very program, and the conversation with them.
//!
//! A child is started with the hidden subcommand `child` and its role, in JSON.
//! Parent and child then exchange lines of JSON through the child's standard
//! input and output. A child is killed when its [`Process`] is dropped, and by
//! the kernel when the parent dies.

use crate::Result;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io::{self, BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Longer than anything here should take: then it is an error, not a hang.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A child process.
pub struct Process {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: Option<BufReader<ChildStdout>>,
}

/// This program in a role.
pub fn command(role: &impl Serialize) -> Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("child").arg(std::process::id().to_string()).arg(serde_json::to_string(role)?);
    Ok(command)
}

impl Process {
    /// Starts a child to talk with. Only from the main thread: a child outlives
    /// the thread that started it no more than the process.
    pub fn start(role: &impl Serialize) -> Result<Process> {
        Self::start_with(role, Stdio::piped(), Stdio::piped())
    }

    /// Starts a child with these as its standard input and output.
    pub fn start_with(role: &impl Serialize, stdin: Stdio, stdout: Stdio) -> Result<Process> {
        let mut child = command(role)?.stdin(stdin).stdout(stdout).spawn()?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take().map(BufReader::new));
        Ok(Process { child, stdin, stdout })
    }

    /// Its process number.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The pipes to it, for something else than conversation.
    pub fn take_streams(&mut self) -> Result<(ChildStdin, ChildStdout)> {
        match (self.stdin.take(), self.stdout.take()) {
            (Some(stdin), Some(stdout)) => Ok((stdin, stdout.into_inner())),
            _ => Err("the child's pipes are taken".into()),
        }
    }

    /// Says something to the child.
    pub fn say(&mut self, word: &impl Serialize) -> Result<()> {
        let stdin = self.stdin.as_mut().ok_or("the child's input is closed")?;
        stdin.write_all(&line(word)?)?;
        Ok(())
    }

    /// Waits for the child's next word.
    pub fn hear<T: DeserializeOwned>(&mut self) -> Result<T> {
        if !self.has_news(PATIENCE)? {
            return Err(format!("child {} says nothing", self.pid()).into());
        }
        let stdout = self.stdout.as_mut().ok_or("the child's output is closed")?;
        let mut line = String::new();
        if stdout.read_line(&mut line)? == 0 {
            return Err(format!("child {} ended early: {}", self.pid(), self.end()?).into());
        }
        Ok(serde_json::from_str(&line)?)
    }

    /// Waits until the child has said something, or ended; whether it has.
    pub fn has_news(&self, timeout: Duration) -> Result<bool> {
        let stdout = self.stdout.as_ref().ok_or("the child's output is closed")?;
        if !stdout.buffer().is_empty() {
            return Ok(true);
        }
        let end = Instant::now() + timeout;
        loop {
            let left = Timespec::try_from(end.saturating_duration_since(Instant::now()))?;
            match poll(&mut [PollFd::new(stdout.get_ref(), PollFlags::IN)], Some(&left)) {
                Err(rustix::io::Errno::INTR) => {}
                ready => return Ok(ready? > 0),
            }
        }
    }

    /// SIGKILL.
    pub fn kill(&mut self) -> Result<()> {
        Ok(self.child.kill()?)
    }

    /// Waits for the end.
    pub fn end(&mut self) -> Result<ExitStatus> {
        drop(self.stdin.take());
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if start.elapsed() > PATIENCE {
                return Err(format!("child {} does not end", self.pid()).into());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Waits for a successful end.
    pub fn join(mut self) -> Result<()> {
        let status = self.end()?;
        if status.success() {
            return Ok(());
        }
        Err(format!("child {} failed: {status}", self.pid()).into())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// In a child: says something to the parent.
pub fn say(word: &impl Serialize) -> Result<()> {
    io::stdout().write_all(&line(word)?)?;
    Ok(io::stdout().flush()?)
}

/// In a child: waits for the parent's next word.
pub fn hear<T: DeserializeOwned>() -> Result<T> {
    let mut line = String::new();
    if io::stdin().read_line(&mut line)? == 0 {
        return Err("the parent is gone".into());
    }
    Ok(serde_json::from_str(&line)?)
}

fn line(word: &impl Serialize) -> Result<Vec<u8>> {
    let mut line = serde_json::to_vec(word)?;
    line.push(b'\n');
    Ok(line)
}

/// Keeps this thread, and those that it starts, on these CPUs; returns where it
/// might run before.
pub fn pin(cpus: &[usize]) -> Result<CpuSet> {
    let before = sched_getaffinity(None)?;
    let mut only = CpuSet::new();
    for &cpu in cpus {
        if cpu >= CpuSet::MAX_CPU {
            return Err(format!("there is no CPU {cpu}").into());
        }
        only.set(cpu);
    }
    let error = |error| format!("CPUs {cpus:?}: {error}");
    sched_setaffinity(None, &only).map_err(error)?;
    Ok(before)
}

/// Lets this thread run on these CPUs.
pub fn unpin(cpus: &CpuSet) -> Result<()> {
    Ok(sched_setaffinity(None, cpus)?)
}

/// Waits until it is done; `never` is the error if it is not for too long.
pub fn until(never: &str, mut done: impl FnMut() -> Result<bool>) -> Result<()> {
    let start = Instant::now();
    while !done()? {
        if start.elapsed() > PATIENCE {
            return Err(never.into());
        }
        std::thread::yield_now();
    }
    Ok(())
}

/// In a child: asks the kernel to kill it when the parent dies.
pub fn die_with(parent: i32) -> Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    // It may have died before that.
    if getppid() == Pid::from_raw(parent) { Ok(()) } else { Err("the parent is gone".into()) }
}
