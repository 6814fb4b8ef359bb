//! A process is killed after every single instruction of an operation, and the
//! others go on as promised.
//!
//! For each operation a *survivor* forks a *victim*, which attaches for itself
//! and warms up. Then the survivor lets it run instruction by instruction,
//! watches the bytes of the segment, kills it after so many steps, and checks
//! what it finds. The next victim gets one instruction further, until one gets
//! to the end.
//!
//! An optimised build kills after every instruction (`cargo test --release
//! --test any_instruction`). In a debug build the operations are too long for
//! that. There a victim is killed after each *change* of the segment's bytes,
//! hence in each state that others can see, and else after every so many
//! instructions, from an offset on that differs from run to run.
//! `SLIPRING_STRIDE=1` asks for every instruction there too. Recovery, the
//! longest operation by far, is left to optimised builds, and done in strides
//! there.
//!
//! Not vacuous: a run fails unless some victims died before they changed
//! anything, some in between, and some after the operation had its effect.

#![allow(missing_docs, reason = "no public interface")]
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

#[path = "any_instruction/messages.rs"]
mod messages;
#[path = "any_instruction/recovery.rs"]
mod recovery;
mod support;
#[path = "support/trace.rs"]
mod trace;
#[path = "any_instruction/views.rs"]
mod views;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::Duration;
use support::{Name, Process, role, say, spawn};
use trace::{Stop, Tracee, fork_traced, mark};

/// Longer than any wait here takes, so that a hang fails instead: no verdict
/// depends on how fast things go.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// After this long a run that hangs is killed by the kernel.
const ALARM: u32 = 900;

/// An operation, and what must hold when its process is killed in it.
pub trait Operation {
    /// The survivor, before the victim is forked.
    fn arrange(&mut self);
    /// The victim: attaches, and runs what runs but once.
    fn warm_up(&mut self);
    /// The survivor, when the victim is warm.
    fn attend(&mut self) {}
    /// The victim, instruction by instruction. Whatever it holds at the end is
    /// forgotten by the caller, not dropped.
    fn run(&mut self);
    /// The survivor, when the victim is dead: checks what must hold, uses the
    /// object for several laps, and says whether the operation had its effect.
    fn settle(&mut self, death: &Death) -> bool;
    /// One of so many instructions is met, in an optimised build.
    fn stride(&self) -> u64 {
        1
    }
    /// Whether the operation shows others nothing before its effect.
    fn is_one_store(&self) -> bool {
        false
    }
}

/// Where a victim died.
#[derive(Clone, Copy, Debug)]
pub struct Death {
    pub pid: u32,
    /// Instructions of the operation that it had run.
    pub instructions: u64,
    /// Of those, how many changed a byte of the segment.
    pub changes: u64,
    /// Whether the operation had returned.
    pub finished: bool,
}

/// When to kill.
#[derive(Clone, Copy)]
enum Goal {
    Instructions(u64),
    Changes(u64),
}

impl Goal {
    fn is_reached(self, death: &Death) -> bool {
        match self {
            Goal::Instructions(count) => death.instructions >= count,
            Goal::Changes(count) => death.changes >= count,
        }
    }
}

/// The bytes of the segment, to be compared.
struct Watch {
    file: File,
    bytes: Vec<u8>,
    fresh: Vec<u8>,
}

impl Watch {
    fn new(name: &str) -> Watch {
        let file = File::open(format!("/dev/shm/{name}")).unwrap();
        let len = file.metadata().unwrap().len() as usize;
        let mut watch = Watch { file, bytes: vec![0; len], fresh: vec![0; len] };
        watch.changed();
        watch
    }

    /// Whether a byte has changed since the last call.
    fn changed(&mut self) -> bool {
        self.file.read_exact_at(&mut self.fresh, 0).unwrap();
        std::mem::swap(&mut self.bytes, &mut self.fresh);
        self.bytes != self.fresh
    }
}

/// One victim: warmed up, stepped to the goal or the end, killed.
fn kill_at(operation: &mut impl Operation, watch: &mut Watch, goal: Goal) -> Death {
    operation.arrange();
    let mut victim: Tracee = fork_traced(|| {
        operation.warm_up();
        mark();
        mark();
        operation.run();
        mark();
    });
    operation.attend();
    victim.run_to_mark();
    watch.changed();
    let mut death = Death { pid: victim.pid(), instructions: 0, changes: 0, finished: false };
    while !goal.is_reached(&death) {
        match victim.step() {
            Stop::Step => death.instructions += 1,
            Stop::Mark => {
                death.finished = true;
                break;
            }
            other => panic!("{other:?} after {death:?}"),
        }
        death.changes += u64::from(watch.changed());
    }
    victim.kill();
    death
}

/// How many victims died where.
#[derive(Debug, Default)]
struct Tally {
    victims: u64,
    /// Instructions of the longest run.
    longest: u64,
    /// Most changes of shared bytes.
    changes: u64,
    before: u64,
    between: u64,
    after: u64,
}

/// Runs victims until one gets to the end, with goals that grow.
fn sweep(
    operation: &mut impl Operation,
    watch: &mut Watch,
    tally: &mut Tally,
    goals: impl Iterator<Item = Goal>,
) {
    for goal in goals {
        let death = kill_at(operation, watch, goal);
        let took_effect = operation.settle(&death);
        assert!(took_effect || !death.finished, "finished without effect: {death:?}");
        assert!(!took_effect || death.changes > 0, "an effect without a change: {death:?}");
        tally.victims += 1;
        tally.longest = tally.longest.max(death.instructions);
        tally.changes = tally.changes.max(death.changes);
        match (death.changes, took_effect) {
            (0, _) => tally.before += 1,
            (_, false) => tally.between += 1,
            (_, true) => tally.after += 1,
        }
        if death.finished {
            return;
        }
    }
}

/// The survivor's part: everything about one operation on the segment `name`.
pub fn kill_at_any_instruction(name: &str, mut operation: impl Operation) {
    let default = if cfg!(debug_assertions) { 499 } else { operation.stride() };
    let stride = std::env::var("SLIPRING_STRIDE").map_or(default, |s| s.parse().unwrap());
    // Each run its own; to see one again, set SLIPRING_OFFSET.
    let offset = std::env::var("SLIPRING_OFFSET")
        .map_or_else(|_| u64::from(std::process::id()) % stride, |s| s.parse().unwrap());
    let mut tally = Tally::default();
    let mut watch = Watch::new(name);
    if stride > 1 {
        eprintln!("SLIPRING_STRIDE={stride} SLIPRING_OFFSET={offset}");
        let changes = (0..).map(Goal::Changes);
        sweep(&mut operation, &mut watch, &mut tally, changes);
    }
    let instructions = (0..).map(|i| Goal::Instructions(offset % stride + i * stride));
    sweep(&mut operation, &mut watch, &mut tally, instructions);
    let Tally { victims, longest, changes, before, between, after } = tally;
    say(&format!(
        "{victims} victims, {longest} instructions, {changes} changes; \
         died before {before}, in between {between}, after {after}"
    ));
    assert!(before > 0 && after > 0, "a part of the operation was not met");
    assert!(between > 0 || operation.is_one_store(), "no victim died in between");
}

#[test]
#[ignore = "a role of the other tests"]
fn child() {
    let Some((role, words)) = role() else { return };
    // SAFETY: no pointers. A run that hangs ends, and its victims with it.
    unsafe { libc::alarm(ALARM) };
    trace::share_a_processor();
    let (name, words) = words.split_first().unwrap();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match role.as_str() {
        "send" => messages::queue_send(name, &words),
        "receive" => messages::queue_receive(name, &words),
        "bytes" => messages::byte_pipe(name, &words),
        "typed" => messages::typed_pipe(name, &words),
        "value" => views::value(name),
        "lock" => views::lock(name),
        "array" => views::array(name),
        "recover" => recovery::recover(name),
        other => panic!("unknown role {other}"),
    }
}

/// A survivor in a process of its own; afterwards nothing is left.
fn run(role: &str, words: &[&str]) {
    let name = Name::new(role);
    let mut survivor: Process = spawn(role, &[&[&*name], words].concat());
    println!("{role} {}: {}", words.join(" "), survivor.hear());
    survivor.join();
    assert!(!name.exists(), "the last one out leaves the name behind");
}

#[test]
fn queue_send() {
    for how in ["copied", "in place", "to a sleeper"] {
        run("send", &[how]);
    }
}

#[test]
fn queue_receive_at_most_once() {
    for how in ["copied", "in place", "to a sleeper"] {
        run("receive", &["at most once", how]);
    }
}

#[test]
fn queue_receive_at_least_once() {
    for how in ["copied", "in place", "to a sleeper"] {
        run("receive", &["at least once", how]);
    }
}

#[test]
fn byte_pipe() {
    for what in ["send", "send to a sleeper", "receive", "receive in place"] {
        run("bytes", &[what]);
    }
}

#[test]
fn typed_pipe() {
    for what in ["send", "send to a sleeper", "receive", "receive in place"] {
        run("typed", &[what]);
    }
}

#[test]
fn value_store() {
    run("value", &[]);
}

#[test]
fn lock_and_unlock() {
    run("lock", &[]);
}

#[test]
#[cfg_attr(debug_assertions, ignore = "takes minutes when it is not optimised")]
fn recovery_of_another() {
    run("recover", &[]);
}

#[test]
fn array_set() {
    run("array", &[]);
}
