//! Leading a victim into an operation, to be killed there.
//!
//! What happens between a claim and its commit takes some ten nanoseconds, so a
//! kill at a random time hardly ever falls there. So the victim is stopped and
//! run instruction by instruction until its books say that it begins an
//! operation, and then for a random number of instructions more. How many an
//! operation takes is learnt on the way, so that each of them is as likely to be
//! the last.

use super::books::{Phase, Seat};
use super::random::Random;
use crate::Result;
use nix::errno::Errno;
use nix::sys::ptrace;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use std::time::{Duration, Instant};

/// Instructions to look for the beginning of an operation.
const SEARCH: u64 = 6000;
/// Longest time to spend on one victim: it may be asleep.
const PATIENCE: Duration = Duration::from_millis(25);

/// How many instructions an operation of one side takes, more or less.
pub struct Reach(u64);

impl Default for Reach {
    fn default() -> Self {
        Reach(200)
    }
}

impl Reach {
    fn ended_after(&mut self, steps: u64) {
        self.0 = ((3 * self.0 + steps) / 4).max(16);
    }

    fn went_on(&mut self) {
        self.0 = (self.0 + self.0 / 16 + 1).min(20_000);
    }
}

/// What came of leading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Led {
    /// It stands somewhere, and is to be killed now.
    Stands,
    /// It ended by itself; it is reaped.
    Ended(i32),
}

/// Whether this process may trace its children at all.
pub fn may_trace(pid: u32) -> bool {
    let pid = Pid::from_raw(pid as i32);
    ptrace::seize(pid, ptrace::Options::empty()).is_ok()
        && ptrace::interrupt(pid).is_ok()
        && waitpid(pid, Some(WaitPidFlag::__WALL)).is_ok()
        && ptrace::detach(pid, None).is_ok()
}

/// Leads a process that is running to a random instruction of an operation: of
/// the next one that it begins, or of what it is doing now.
pub fn lead(pid: u32, seat: Seat, reach: &mut Reach, random: &mut Random) -> Result<Led> {
    let pid = Pid::from_raw(pid as i32);
    match ptrace::seize(pid, ptrace::Options::empty()) {
        // It is ending.
        Err(Errno::ESRCH | Errno::EPERM) => return stopped(pid),
        done => done?,
    }
    ptrace::interrupt(pid)?;
    if let ended @ Led::Ended(_) = stopped(pid)? {
        return Ok(ended);
    }
    let start = Instant::now();
    let from_here = random.chance(0.25);
    let mut began = from_here.then_some(0);
    let mut target = random.below(reach.0 + 1);
    let mut before = seat.phase()?;
    for steps in 0.. {
        if began.is_some_and(|began| steps - began >= target) {
            if !from_here {
                reach.went_on();
            }
            break;
        }
        if steps > SEARCH + reach.0 || start.elapsed() > PATIENCE {
            break;
        }
        ptrace::step(pid, None)?;
        if let ended @ Led::Ended(_) = stopped(pid)? {
            return Ok(ended);
        }
        let phase = seat.phase()?;
        if phase == before {
            continue;
        }
        match (before.is_inside(), phase.is_inside()) {
            (false, true) if began.is_none() => began = Some(steps),
            (true, false) if !from_here => {
                if let Some(began) = began.take() {
                    reach.ended_after(steps - began);
                    target = random.below(reach.0 + 1);
                }
            }
            _ => {}
        }
        before = phase;
    }
    Ok(Led::Stands)
}

/// Waits for the traced process to stop.
fn stopped(pid: Pid) -> Result<Led> {
    loop {
        match waitpid(pid, Some(WaitPidFlag::__WALL)) {
            Err(Errno::EINTR) => {}
            Ok(WaitStatus::Exited(_, code)) => return Ok(Led::Ended(code)),
            Ok(WaitStatus::Signaled(_, signal, _)) => return Ok(Led::Ended(-(signal as i32))),
            status => {
                status?;
                return Ok(Led::Stands);
            }
        }
    }
}

/// Whether a death in this phase is one inside an operation.
pub fn is_inside(phase: Phase) -> bool {
    phase.is_inside()
}
