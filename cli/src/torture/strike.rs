//! Leading a victim into an operation, to be killed there.
//!
//! What happens between a claim and its commit takes some ten nanoseconds, so a
//! kill at a random time hardly ever falls there. So the victim is asked to stop
//! by itself when it comes by a *landmark*: when its books say that it begins an
//! operation, or has a slot or a message in its hands. From there it is run a
//! random number of instructions further, one by one. How many an operation
//! takes is learnt on the way, so that each of them is as likely to be the last;
//! now and then it is led far beyond.
//!
//! Another landmark is the *recovery* of a dead one: whoever begins it asks the
//! kernel about that one's lease, and for it, so the victim is stopped at its
//! system calls until it does.

use super::books::{Field, Phase, Seat};
use super::options::Side;
use super::random::Random;
use crate::Result;
use nix::errno::Errno;
use nix::libc;
use nix::sys::ptrace;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use std::time::{Duration, Instant};

/// Longest time to spend on one victim: it may be asleep.
const PATIENCE: Duration = Duration::from_millis(15);
const GLANCE: Duration = Duration::from_micros(100);

/// How many instructions an operation of one side takes, more or less.
pub struct Reach(u64);

impl Default for Reach {
    fn default() -> Self {
        Reach(200)
    }
}

impl Reach {
    /// A number of instructions: mostly within an operation, else far beyond.
    fn draw(&self, random: &mut Random) -> u64 {
        match random.below(4) {
            0 => {
                let magnitude = random.below(9);
                random.below(16 << magnitude)
            }
            _ => random.below(self.0 + 1),
        }
    }

    fn ended_after(&mut self, steps: u64) {
        self.0 = ((3 * self.0 + steps) / 4).max(32);
    }
}

/// What came of leading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Led {
    /// It stands at an instruction of an operation, or soon after.
    There,
    /// It stands wherever it was.
    Nowhere,
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

/// Where a victim is led.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Goal {
    /// An operation.
    Operation,
    /// The recovery of somebody who has just died.
    Recovery,
}

/// Leads a process that is running to a random instruction, and leaves it there.
pub fn lead(
    goal: Goal,
    pid: u32,
    side: Side,
    seat: Seat,
    reach: &mut Reach,
    random: &mut Random,
) -> Result<Led> {
    let pid = Pid::from_raw(pid as i32);
    match ptrace::seize(pid, ptrace::Options::empty()) {
        // It is ending.
        Err(Errno::ESRCH | Errno::EPERM) => return wait(pid),
        done => done?,
    }
    let start = Instant::now();
    if goal == Goal::Recovery {
        return into_recovery(pid, random, start);
    }
    let landmark = match (side, random.below(16)) {
        // Where it is: perhaps asleep, or recovering somebody.
        (_, 0..2) => None,
        (Side::Producers, 2) => Some(Phase::GivingUp),
        (Side::Producers, 3..6) => Some(Phase::Claimed),
        (Side::Producers, _) => Some(Phase::Sending),
        (Side::Consumers, 2..6) => Some(Phase::Holding),
        (Side::Consumers, 6..9) => Some(Phase::Releasing),
        (Side::Consumers, _) => Some(Phase::Taking),
    };
    let mut left = match landmark {
        // What is left of it is short.
        Some(Phase::Claimed | Phase::Holding | Phase::Releasing) => reach.draw(random) / 3,
        _ => reach.draw(random),
    };
    if let Some(landmark) = landmark {
        let came = come_by(pid, seat, landmark, start)?;
        if came != Led::There {
            return Ok(came);
        }
    } else {
        ptrace::interrupt(pid)?;
        if let ended @ Led::Ended(_) = wait(pid)? {
            return Ok(ended);
        }
    }
    let mut before = seat.phase()?;
    let mut steps = 0;
    while steps < left && start.elapsed() < 2 * PATIENCE {
        ptrace::step(pid, None)?;
        if let ended @ Led::Ended(_) = wait(pid)? {
            return Ok(ended);
        }
        steps += 1;
        let phase = seat.phase()?;
        if let Some(landmark) = landmark
            && before.is_inside()
            && !phase.is_inside()
        {
            // The operation is over: on to the next.
            if matches!(landmark, Phase::Sending | Phase::Taking) {
                reach.ended_after(steps);
            }
            left = random.below(steps);
            ptrace::cont(pid, None)?;
            let came = come_by(pid, seat, landmark, start)?;
            if came != Led::There {
                return Ok(came);
            }
            steps = 0;
        }
        before = seat.phase()?;
    }
    Ok(Led::There)
}

/// Waits until the running victim has stopped by itself at the landmark; if it
/// does not come by, stops it where it is.
fn come_by(pid: Pid, seat: Seat, landmark: Phase, start: Instant) -> Result<Led> {
    seat.set(Field::Halt, landmark as u64)?;
    let led = until(pid, start, PATIENCE)?;
    seat.set(Field::Halt, 0)?;
    Ok(led)
}

/// Waits until the running victim stops, and stops it when that takes too long.
fn until(pid: Pid, start: Instant, patience: Duration) -> Result<Led> {
    while start.elapsed() < patience {
        let led = look(pid, WaitPidFlag::__WALL | WaitPidFlag::WNOHANG)?;
        if led != Led::Nowhere {
            return Ok(led);
        }
        std::thread::sleep(GLANCE);
    }
    ptrace::interrupt(pid)?;
    Ok(match wait(pid)? {
        Led::There => Led::Nowhere,
        led => led,
    })
}

/// Leads the victim from one system call to the next, until it asks for a lease,
/// and then some instructions further.
fn into_recovery(pid: Pid, random: &mut Random, start: Instant) -> Result<Led> {
    ptrace::interrupt(pid)?;
    if let ended @ Led::Ended(_) = wait(pid)? {
        return Ok(ended);
    }
    // Who may be dead is asked about first, and its lease taken then.
    let wanted = if random.chance(0.3) { libc::F_OFD_GETLK } else { libc::F_OFD_SETLK };
    loop {
        ptrace::syscall(pid, None)?;
        let led = until(pid, start, 3 * PATIENCE)?;
        if led != Led::There {
            return Ok(led);
        }
        if asks_for_a_lease(pid, wanted) {
            break;
        }
    }
    let magnitude = random.below(9);
    for _ in 0..random.below(16 << magnitude) {
        if start.elapsed() > 5 * PATIENCE {
            break;
        }
        ptrace::step(pid, None)?;
        if let ended @ Led::Ended(_) = wait(pid)? {
            return Ok(ended);
        }
    }
    Ok(Led::There)
}

/// Lets a process that was led go on.
pub fn let_go(pid: u32) -> Result<()> {
    Ok(ptrace::detach(Pid::from_raw(pid as i32), None)?)
}

/// Whether the process, which is stopped at a system call, makes this one of
/// those on locks of open file descriptions.
fn asks_for_a_lease(pid: Pid, wanted: i32) -> bool {
    let call = std::fs::read_to_string(format!("/proc/{pid}/syscall")).unwrap_or_default();
    let mut words = call.split_whitespace();
    let number = words.next().and_then(|word| word.parse().ok());
    let command = words.nth(1).and_then(|word| word.strip_prefix("0x"));
    let command = command.and_then(|word| i32::from_str_radix(word, 16).ok());
    number == Some(libc::SYS_fcntl) && command == Some(wanted)
}

/// Waits for the traced process to stop.
fn wait(pid: Pid) -> Result<Led> {
    look(pid, WaitPidFlag::__WALL)
}

/// Whether it has stopped (There), or runs (Nowhere).
fn look(pid: Pid, how: WaitPidFlag) -> Result<Led> {
    loop {
        match waitpid(pid, Some(how)) {
            Err(Errno::EINTR) => {}
            Ok(WaitStatus::StillAlive) => return Ok(Led::Nowhere),
            Ok(WaitStatus::Exited(_, code)) => return Ok(Led::Ended(code)),
            Ok(WaitStatus::Signaled(_, signal, _)) => return Ok(Led::Ended(-(signal as i32))),
            status => {
                status?;
                return Ok(Led::There);
            }
        }
    }
}
