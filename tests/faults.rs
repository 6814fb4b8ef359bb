//! Every system call of every operation fails once, in every way that it can.
//!
//! For each operation a process is traced from the operation's start to its
//! end, and its k-th system call is made to fail with an errno out of the
//! call's manual page: the call is not made at all, or, where the kernel does
//! the work and complains afterwards (`close`), it is. One process for each k
//! and errno, until an operation makes fewer than k calls. No list of calls is
//! kept here, but one of what each call can give; an unknown call fails the
//! test.
//!
//! Whatever fails: the operation returns, an error or, having coped, success;
//! no panic, no signal, no descriptor and no mapping left, no name left in
//! `/dev/shm`, and the same operation succeeds when it is tried again.
//!
//! Where the call that cleans up is the one that fails, a name may be left; the
//! next attempt then sweeps it, or takes it over.

#![allow(missing_docs, reason = "no public interface")]
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

#[path = "faults/cases.rs"]
mod cases;
#[path = "faults/errnos.rs"]
mod errnos;
#[path = "support/private_shm.rs"]
mod private_shm;
mod support;
#[path = "support/trace.rs"]
mod trace;

use cases::{CASES, Case, NameAfter};
use errnos::{Call, errnos_of};
use private_shm::{Holdings, names};
use std::collections::BTreeMap;
use support::{role, say, spawn};
use trace::{Stop, Tracee, fork, fork_traced, mark, reap, tell};

/// After this long a run that hangs is killed by the kernel.
const ALARM: u32 = 600;

/// The name of all segments, in a `/dev/shm` that nobody else sees.
const NAME: &str = "slipring-test-faults";

#[test]
#[ignore = "a role of the other tests"]
fn child() {
    let Some((role, words)) = role() else { return };
    assert_eq!(role, "faults");
    let case = CASES.iter().find(|case| case.name == words[0]).unwrap();
    // Forked once more: only a process of one thread may leave its user
    // namespace.
    let inner = fork(|| {
        // SAFETY: no pointers. A run that hangs ends, and its victims with it.
        unsafe { libc::alarm(ALARM) };
        trace::share_a_processor();
        if let Err(error) = private_shm::mount("16m") {
            say(&format!("skipped: no /dev/shm of its own: {error}"));
            return;
        }
        say(&fail_each_call(case));
    });
    assert_eq!(reap(inner), Some(0), "{role} {words:?}");
}

fn run(case: &str) {
    let mut tracer = spawn("faults", &[case]);
    let words = tracer.hear();
    if words.starts_with("skipped") {
        eprintln!("{case}: {words}");
    } else {
        println!("{case}: {words}");
    }
    tracer.join();
}

/// What the traced process does, twice: with the fault, and without.
fn victim(case: &Case) {
    let before = Holdings::now();
    let first = (case.run)(NAME, &mark);
    assert_eq!(Holdings::now(), before, "left by the attempt that gave {first:?}");
    if let Err(error) = &first {
        // Every error can be shown.
        assert!(!error.to_string().is_empty());
    }
    tell(u64::from(first.is_ok()));
    (case.run)(NAME, &|| ()).expect("without a fault");
    assert_eq!(Holdings::now(), before, "left by the attempt without a fault");
}

/// Each system call of the case fails in each way; a summary.
fn fail_each_call(case: &Case) -> String {
    let (mut faults, mut coped) = (0, 0);
    let mut calls = BTreeMap::<i64, u64>::new();
    let mut place = (0, 0);
    loop {
        match fail_once(case, place.0, place.1) {
            Outcome::Faulted { call, errno, succeeded } => {
                let what = format!("{}: call {} {call:?}, errno {errno}", case.name, place.0);
                check(&call, errno, succeeded, &what);
                *calls.entry(call.number).or_default() += 1;
                faults += 1;
                coped += u64::from(succeeded);
                place.1 += 1;
            }
            Outcome::NoSuchErrno => place = (place.0 + 1, 0),
            Outcome::NoSuchCall => break,
        }
    }
    // There a wake-up is no system call.
    let may_make_none = cfg!(feature = "portable-wait");
    assert!(faults > 0 || may_make_none, "{}: nothing to fail", case.name);
    format!("{} calls, {faults} faults, {coped} coped with, {calls:?}", place.0)
}

/// What the tracer wants to see.
fn check(call: &Call, errno: i32, succeeded: bool, what: &str) {
    if errno == libc::EINTR || call.is_optional() {
        assert!(succeeded, "{what}: not coped with");
    }
    // The second attempt has come and gone.
    assert_eq!(names(), [""; 0], "{what}");
}

enum Outcome {
    Faulted {
        call: Call,
        errno: i32,
        succeeded: bool,
    },
    /// The call has no errno of this number.
    NoSuchErrno,
    /// The operation ended before.
    NoSuchCall,
}

/// The `index`-th system call fails with the `choice`-th of its errnos.
fn fail_once(case: &Case, index: usize, choice: usize) -> Outcome {
    assert_eq!(names(), [""; 0], "{} starts clean", case.name);
    let mut tracee = fork_traced(|| victim(case));
    tracee.watch_syscalls(true);
    let mut parent = None;
    let mut fault = None;
    let mut count = 0;
    loop {
        let stop = tracee.run_to_syscall();
        match stop {
            Stop::Mark => break,
            Stop::Fork(child) => {
                let child = tracee.follow(child);
                parent = Some(std::mem::replace(&mut tracee, child).release());
            }
            Stop::Syscall if tracee.is_entry() => {
                if count == index {
                    let call = Call::at(&tracee);
                    match errnos_of(&call).get(choice) {
                        None => {
                            abort(tracee, parent);
                            return Outcome::NoSuchErrno;
                        }
                        Some(errno) => {
                            fail_call(&mut tracee, &call, *errno);
                            fault = Some((call, *errno));
                        }
                    }
                }
                count += 1;
            }
            Stop::Syscall => {}
            other => panic!("{}: {other:?} with call {index}: {fault:?}", case.name),
        }
    }
    let what = || format!("{}: call {index}: {fault:?}", case.name);
    // To the end of the first attempt.
    tracee.watch_syscalls(false);
    let stop = tracee.run_on();
    assert_eq!(stop, Stop::Mark, "{}: before the end of the first attempt", what());
    let succeeded = tracee.told() == 1;
    let left = names();
    let may_leave = match &fault {
        Some((_, libc::EINTR)) | None => matches!(case.name_after, NameAfter::Kept),
        Some((call, _)) => {
            call.unlinks()
                || match case.name_after {
                    NameAfter::Gone => false,
                    NameAfter::GoneIfSeen => call.looks_before_unlinking(),
                    NameAfter::GoneIfOk => !succeeded,
                    NameAfter::Kept => true,
                }
        }
    };
    assert!(may_leave || left.is_empty(), "{}: left {left:?}", what());
    // The second attempt, without a fault, sweeps.
    assert_eq!(tracee.run_to_end(), Stop::Exited(0), "{}: afterwards", what());
    if let Some(parent) = parent {
        assert_eq!(reap(parent), Some(0), "{}: the parent", what());
    }
    match fault {
        Some((call, errno)) => Outcome::Faulted { call, errno, succeeded },
        None => Outcome::NoSuchCall,
    }
}

/// Ends a run that has nothing to tell, and sweeps up after it.
fn abort(tracee: Tracee, parent: Option<libc::pid_t>) {
    tracee.kill();
    if let Some(parent) = parent {
        reap(parent);
    }
    for name in names() {
        std::fs::remove_file(format!("/dev/shm/{name}")).unwrap();
    }
}

/// The call whose start the process is at fails.
fn fail_call(tracee: &mut Tracee, call: &Call, errno: i32) {
    if !call.fails_when_done() {
        let mut registers = tracee.registers();
        // No such system call: the kernel skips it.
        registers.orig_rax = u64::MAX;
        tracee.set_registers(registers);
    }
    assert_eq!(tracee.run_to_syscall(), Stop::Syscall, "at the end of {call:?}");
    let mut registers = tracee.registers();
    registers.rax = (-i64::from(errno)) as u64;
    tracee.set_registers(registers);
}

#[test]
fn create() {
    run("create");
}

#[test]
fn open() {
    run("open");
}

#[test]
fn open_or_create() {
    run("open or create, new");
    run("open or create, old");
}

#[test]
fn open_of_a_stale_segment() {
    run("open, stale");
}

#[test]
fn send_and_receive() {
    run("send to a sleeper");
    run("receive, asleep");
    run("receive past the dead");
}

#[test]
fn pipe_and_lock() {
    run("pipe open");
    run("pipe receive, asleep");
    run("lock, waiting");
}

#[test]
fn recovery_and_participants() {
    run("recover");
    run("participants");
}

#[test]
fn drop_and_unlink() {
    run("drop, last out");
    run("drop, creator");
    run("drop, one of two");
    run("unlink");
}

#[test]
fn use_after_fork() {
    run("fork");
}

#[test]
fn every_case_is_run() {
    let source = include_str!("faults.rs");
    for case in CASES {
        assert!(source.contains(&format!("run(\"{}\")", case.name)), "{}", case.name);
    }
}
