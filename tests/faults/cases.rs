//! The operations. Each prepares, calls its second argument just before and
//! just after the operation, checks what must hold whether it succeeded or not,
//! and lets go of everything.

use crate::support::BRIEF;
use crate::trace::{fork, reap};
use slipring::*;
use std::error::Error as AnyError;
use std::time::Duration;

type Outcome = std::result::Result<(), Box<dyn AnyError>>;

pub struct Case {
    pub name: &'static str,
    pub run: fn(&str, &dyn Fn()) -> Outcome,
    pub name_after: NameAfter,
}

/// What is left of the segment's name when a case with a fault is over, if the
/// fault was not in the call that removes it.
pub enum NameAfter {
    Gone,
    /// The operation is to remove it, and can't when a call fails by which it
    /// finds out whether it may. It has nobody to tell.
    GoneIfSeen,
    /// The operation is to remove it, and tells when it does not.
    GoneIfOk,
    /// Others still use the segment.
    Kept,
}

const fn case(name: &'static str, run: fn(&str, &dyn Fn()) -> Outcome) -> Case {
    Case { name, run, name_after: NameAfter::Gone }
}

pub const CASES: &[Case] = &[
    case("create", create),
    case("open", open),
    case("open or create, new", open_or_create_new),
    case("open or create, old", open_or_create_old),
    case("open, stale", open_stale),
    case("send to a sleeper", send),
    case("receive, asleep", receive_asleep),
    case("receive past the dead", receive_past_the_dead),
    case("pipe open", pipe_open),
    case("pipe receive, asleep", pipe_receive),
    case("lock, waiting", lock_waiting),
    case("recover", recover),
    case("participants", participants),
    Case { name_after: NameAfter::GoneIfSeen, ..case("drop, last out", drop_last_out) },
    Case { name_after: NameAfter::GoneIfSeen, ..case("drop, creator", drop_creator) },
    case("drop, one of two", drop_one_of_two),
    Case { name_after: NameAfter::GoneIfOk, ..case("unlink", unlink) },
    Case { name_after: NameAfter::Kept, ..case("fork", after_fork) },
];

/// Far longer than anything takes.
const PATIENCE: Duration = Duration::from_secs(60);
/// Two slices: long enough to sleep.
const NAP: Duration = Duration::from_millis(20);

fn builder(name: &str) -> Builder {
    Segment::builder(name).queue::<u64>("queue", 4).pipe("pipe", 256).lock("lock").participants(8)
}

/// A segment to work with. An earlier attempt may have left its name.
fn prepare(name: &str) -> Segment {
    builder(name).open_or_create().expect("while preparing")
}

/// The segment works: a message goes through it.
fn check_queue(segment: &Segment) {
    let queue = segment.queue::<u64>("queue").unwrap();
    let (mut tx, mut rx) = (queue.sender().unwrap(), queue.receiver().unwrap());
    tx.send_timeout(77, PATIENCE).unwrap();
    assert_eq!(rx.recv_timeout(PATIENCE).unwrap(), 77);
}

/// Another handle finds it there, whole, and this process alive in it.
fn check_shared(name: &str) {
    let other = Segment::open(name).expect("the name is gone");
    let here = std::process::id();
    let listed = other.participants().unwrap();
    assert!(listed.iter().any(|p| p.pid == here && p.alive && !p.is_self), "{listed:?}");
    check_queue(&other);
}

/// A segment whose only user was killed, with a message in it, and one that was
/// being written.
fn leave_stale(name: &str) {
    let pid = fork(|| {
        let segment = prepare(name);
        let mut tx = segment.queue::<u64>("queue").unwrap().sender().unwrap();
        tx.send(5).unwrap();
        std::mem::forget(tx.claim().unwrap());
        // SAFETY: takes no pointers, and does not return.
        unsafe { libc::raise(libc::SIGKILL) };
    });
    assert_eq!(reap(pid), None, "it was to be killed");
}

fn create(name: &str, mark: &dyn Fn()) -> Outcome {
    mark();
    let made = builder(name).create();
    mark();
    let segment = made?;
    check_shared(name);
    drop(segment);
    Ok(())
}

fn open(name: &str, mark: &dyn Fn()) -> Outcome {
    let first = prepare(name);
    mark();
    let opened = Segment::open(name);
    mark();
    if let Ok(second) = &opened {
        check_queue(second);
    }
    // Whatever became of the opener: those inside were not disturbed.
    check_shared(name);
    drop(first);
    opened?;
    Ok(())
}

fn open_or_create_new(name: &str, mark: &dyn Fn()) -> Outcome {
    mark();
    let made = builder(name).open_or_create();
    mark();
    check_queue(&made?);
    Ok(())
}

fn open_or_create_old(name: &str, mark: &dyn Fn()) -> Outcome {
    let first = prepare(name);
    mark();
    let opened = builder(name).open_or_create();
    mark();
    check_shared(name);
    drop(first);
    opened?;
    Ok(())
}

fn open_stale(name: &str, mark: &dyn Fn()) -> Outcome {
    leave_stale(name);
    mark();
    let opened = Segment::open(name);
    mark();
    let (segment, outcome): (Segment, Outcome) = match opened {
        Ok(segment) => (segment, Ok(())),
        // The message must not be lost with the attempt.
        Err(error) => (Segment::open(name).expect("the name is gone"), Err(error.into())),
    };
    let queue = segment.queue::<u64>("queue")?;
    let mut rx = queue.receiver()?;
    assert_eq!(rx.recv_timeout(PATIENCE).unwrap(), 5);
    assert!(matches!(rx.recv_timeout(PATIENCE), Err(RecvError::Closed)));
    assert_eq!(queue.counters().abandoned, 1);
    outcome
}

fn send(name: &str, mark: &dyn Fn()) -> Outcome {
    let segment = prepare(name);
    let queue = segment.queue::<u64>("queue")?;
    let (mut tx, mut rx) = (queue.sender()?, queue.receiver()?);
    assert!(matches!(rx.recv_timeout(BRIEF), Err(RecvError::Timeout)));
    mark();
    let sent = tx.send(6);
    mark();
    sent?;
    assert_eq!(rx.recv_timeout(PATIENCE)?, 6);
    Ok(())
}

fn receive_asleep(name: &str, mark: &dyn Fn()) -> Outcome {
    let segment = prepare(name);
    let queue = segment.queue::<u64>("queue")?;
    let (_tx, mut rx) = (queue.sender()?, queue.receiver()?);
    mark();
    let received = rx.recv_timeout(NAP);
    mark();
    check_queue(&segment);
    match received {
        Err(RecvError::Timeout) => Ok(()),
        other => Err(format!("{other:?}").into()),
    }
}

fn receive_past_the_dead(name: &str, mark: &dyn Fn()) -> Outcome {
    let segment = prepare(name);
    let queue = segment.queue::<u64>("queue")?;
    let (mut tx, mut rx) = (queue.sender()?, queue.receiver()?);
    leave_stale(name);
    tx.send(6)?;
    assert_eq!(rx.recv_timeout(PATIENCE)?, 5);
    mark();
    let received = rx.recv_timeout(PATIENCE);
    mark();
    let outcome = match received {
        Ok(message) => {
            assert_eq!(message, 6);
            Ok(())
        }
        // The failed call has taken nothing.
        Err(error) => {
            assert_eq!(rx.recv_timeout(PATIENCE)?, 6);
            Err(error.into())
        }
    };
    assert_eq!(queue.counters().abandoned, 1);
    outcome
}

fn pipe_open(name: &str, mark: &dyn Fn()) -> Outcome {
    let segment = prepare(name);
    let mut a = segment.pipe_end("pipe", End::A)?;
    mark();
    let opened = segment.pipe_end("pipe", End::B);
    mark();
    let mut b = match opened {
        Ok(b) => b,
        Err(error) => {
            // The end is still to be had.
            segment.pipe_end("pipe", End::B).expect("without a fault");
            return Err(error.into());
        }
    };
    a.send(b"there")?;
    assert_eq!(b.recv()?, b"there");
    Ok(())
}

fn pipe_receive(name: &str, mark: &dyn Fn()) -> Outcome {
    let segment = prepare(name);
    let mut a = segment.pipe_end("pipe", End::A)?;
    let mut b = segment.pipe_end("pipe", End::B)?;
    mark();
    let found = b.poll(NAP);
    mark();
    a.send(b"here")?;
    assert_eq!(b.recv()?, b"here");
    assert!(!found?);
    Ok(())
}

fn lock_waiting(name: &str, mark: &dyn Fn()) -> Outcome {
    let segment = prepare(name);
    let lock = segment.lock("lock")?;
    let held = lock.lock().map_err(Error::from)?;
    mark();
    let waited = lock.lock_timeout(NAP);
    mark();
    let timed_out = matches!(waited, Err(LockError::Timeout));
    assert!(timed_out || matches!(waited, Err(LockError::Failed(_))), "{waited:?}");
    drop(held);
    drop(lock.lock_timeout(PATIENCE).map_err(Error::from)?);
    waited.map(drop).or_else(|e| if timed_out { Ok(()) } else { Err(e.to_string().into()) })
}

fn recover(name: &str, mark: &dyn Fn()) -> Outcome {
    let segment = prepare(name);
    leave_stale(name);
    mark();
    let recovered = segment.recover();
    mark();
    let (dead, outcome): (usize, Outcome) = match recovered {
        Ok(dead) => (dead, Ok(())),
        Err(error) => (0, Err(error.into())),
    };
    // A second call does what the first could not.
    let dead = dead + segment.recover()?;
    assert!(dead <= 1);
    let queue = segment.queue::<u64>("queue")?;
    assert_eq!(queue.counters().abandoned, 1);
    assert_eq!(queue.receiver()?.recv_timeout(PATIENCE)?, 5);
    assert_eq!(segment.participants()?.len(), 1);
    outcome
}

fn participants(name: &str, mark: &dyn Fn()) -> Outcome {
    let segment = prepare(name);
    let second = Segment::open(name)?;
    mark();
    let listed = segment.participants();
    mark();
    drop(second);
    assert_eq!(listed?.len(), 2);
    Ok(())
}

fn drop_last_out(name: &str, mark: &dyn Fn()) -> Outcome {
    let segment = prepare(name);
    check_queue(&segment);
    mark();
    drop(segment);
    mark();
    Ok(())
}

fn drop_creator(name: &str, mark: &dyn Fn()) -> Outcome {
    let builder = builder(name).unlink(Unlink::Creator);
    let segment = match builder.create() {
        // Left by the attempt before: it has to be removed by hand.
        Err(Error::AlreadyExists { .. }) => {
            Segment::unlink(name)?;
            builder.create()?
        }
        made => made?,
    };
    mark();
    drop(segment);
    mark();
    Ok(())
}

fn drop_one_of_two(name: &str, mark: &dyn Fn()) -> Outcome {
    let first = prepare(name);
    let second = Segment::open(name)?;
    mark();
    drop(second);
    mark();
    check_shared(name);
    drop(first);
    Ok(())
}

fn unlink(name: &str, mark: &dyn Fn()) -> Outcome {
    drop(builder(name).unlink(Unlink::Persist).open_or_create()?);
    mark();
    let removed = Segment::unlink(name);
    mark();
    removed?;
    assert!(matches!(Segment::open(name), Err(Error::NotFound { .. })), "said to be removed");
    Ok(())
}

/// A forked child attaches for itself, at its first use. The traced process is
/// the child, from its first instruction; the parent sees to its own end.
fn after_fork(name: &str, mark: &dyn Fn()) -> Outcome {
    let segment = prepare(name);
    let queue = segment.queue::<u64>("queue")?;
    let (mut tx, mut rx) = (queue.sender()?, queue.receiver()?);
    let parent = std::process::id();
    mark();
    // SAFETY: this process has no other thread.
    let child = unsafe { libc::fork() };
    if child > 0 {
        let code = reap(child);
        drop((tx, rx, queue, segment));
        // Traced: the child goes on with the test, and its code is the verdict.
        // SAFETY: takes no pointers.
        unsafe { libc::_exit(code.unwrap_or(102)) };
    }
    assert!(child == 0 && std::process::id() != parent);
    let sent = tx.send(8);
    mark();
    let outcome: Outcome = match sent {
        Ok(()) => {
            assert_eq!(rx.recv_timeout(PATIENCE)?, 8);
            Ok(())
        }
        Err(error) => {
            // Other segments don't get mixed up with this one.
            let other_name = format!("{name}-other");
            let other = prepare(&other_name);
            check_queue(&other);
            match tx.send(8) {
                Ok(()) => assert_eq!(rx.recv_timeout(PATIENCE)?, 8),
                Err(SendError::Failed(8, error)) if matches!(*error, Error::Os { .. }) => {
                    // The child has no descriptor of the file: it must open
                    // the segment by its name.
                    let again = Segment::open(name)?;
                    check_queue(&again);
                    check_shared(&other_name);
                    return Err(error.into());
                }
                Err(error) => panic!("{error}"),
            }
            check_shared(&other_name);
            Err(error.into())
        }
    };
    check_shared(name);
    outcome
}
