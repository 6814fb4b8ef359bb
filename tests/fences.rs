//! What sending and receiving cost besides loads and stores, where nobody sleeps and nobody has
//! to wait: no fence, and no locked instruction but the one by which a queue's slot is claimed
//! or taken. The same goes for loads and stores of a `Value` of an atomic's size. (Not for
//! stores of larger ones, which lock, nor for arithmetic.)
//!
//! A process is stepped through a lap of each ring and more, and every instruction looked at.
//! In a segment whose processes cannot use `membarrier` fences are there, and found.

#![allow(missing_docs, reason = "no public interface")]
#![cfg(all(target_os = "linux", target_arch = "x86_64", not(feature = "portable-wait")))]

mod support;
#[path = "support/trace.rs"]
mod trace;

use slipring::*;
use support::{Name, role, say, spawn};
use trace::{Stop, fork_traced, mark};

/// Whether the instruction with these bytes makes all stores before it visible, or is locked.
/// (Intel's manual, volume 2: prefixes, then the opcode.)
fn is_barrier(code: &[u8]) -> bool {
    const LOCK: u8 = 0xf0;
    const OTHERS: [u8; 10] = [0x66, 0x67, 0xf2, 0xf3, 0x2e, 0x36, 0x3e, 0x26, 0x64, 0x65];
    let prefixes = code.iter().take_while(|byte| **byte == LOCK || OTHERS.contains(byte)).count();
    let (prefixes, rest) = code.split_at(prefixes);
    let rest = if rest[0] & 0xf0 == 0x40 { &rest[1..] } else { rest };
    let in_memory = |operands: u8| operands >> 6 != 0b11;
    match *rest {
        _ if prefixes.contains(&LOCK) => true,
        // An exchange with memory is locked by itself.
        [0x86 | 0x87, operands, ..] => in_memory(operands),
        // `mfence` and `sfence`: the register forms of /6 and /7.
        [0x0f, 0xae, 0xf0..=0xff, ..] => true,
        // `cpuid`.
        [0x0f, 0xa2, ..] => true,
        _ => false,
    }
}

#[test]
fn barriers_are_told_from_others() {
    let padded = |code: &[u8]| {
        let mut bytes = [0x90; 15];
        bytes[..code.len()].copy_from_slice(code);
        is_barrier(&bytes)
    };
    // lock cmpxchg, lock or, xchg with memory, mfence, sfence
    for code in [
        &[0xf0, 0x48, 0x0f, 0xb1, 0x11][..],
        &[0xf0, 0x83, 0x0c, 0x24, 0x00],
        &[0x66, 0xf0, 0x0f, 0xb1, 0x11],
        &[0x48, 0x87, 0x07],
        &[0x0f, 0xae, 0xf0],
        &[0x0f, 0xae, 0xf8],
    ] {
        assert!(padded(code), "{code:x?}");
    }
    // mov, xchg between registers, lfence, prefetchw, nop
    for code in [
        &[0x48, 0x89, 0x07][..],
        &[0x48, 0x87, 0xc7],
        &[0x0f, 0xae, 0xe8],
        &[0x0f, 0x0d, 0x08],
        &[0x90],
    ] {
        assert!(!padded(code), "{code:x?}");
    }
}

const SLOTS: usize = 4;

/// A lap and more.
const TIMES: usize = SLOTS + 1;

/// Objects, and what is done with them: something is sent and received, or stored and loaded.
struct Objects {
    queue: (Sender<u64>, Receiver<u64>),
    typed: [Pipe<u64>; 2],
    bytes: [Pipe; 2],
    value: Value<u64>,
}

impl Objects {
    fn new(segment: &Segment) -> Objects {
        let queue = segment.queue("queue").unwrap();
        let ends = [End::A, End::B];
        Objects {
            queue: (queue.sender().unwrap(), queue.receiver().unwrap()),
            typed: ends.map(|end| segment.typed_pipe_end("typed", end).unwrap()),
            bytes: ends.map(|end| segment.pipe_end("bytes", end).unwrap()),
            value: segment.value("value").unwrap(),
        }
    }

    fn operate(&mut self, what: &str) {
        let Objects { queue: (tx, rx), typed: [a, b], bytes: [c, d], value } = self;
        let mut bytes = [0; 8];
        match what {
            "queue" => {
                tx.try_send(7).unwrap();
                assert_eq!(rx.try_recv().unwrap(), 7);
            }
            "queue, waiting" => {
                tx.send(7).unwrap();
                assert_eq!(rx.recv().unwrap(), 7);
            }
            "queue, in place" => {
                let mut slot = tx.claim().unwrap();
                slot.write(7);
                slot.commit();
                assert_eq!(*rx.take().unwrap(), 7);
            }
            "pipe" => {
                a.try_send(7).unwrap();
                assert_eq!(b.try_recv().unwrap(), 7);
            }
            "pipe, waiting" => {
                a.send(7).unwrap();
                assert_eq!(b.recv().unwrap(), 7);
            }
            "pipe, in place" => {
                let mut slot = a.reserve().unwrap();
                slot.write(7);
                slot.commit();
                assert_eq!(*b.peek().unwrap(), 7);
            }
            "pipe of bytes" => {
                c.try_send(&[7; 8]).unwrap();
                assert_eq!(d.try_recv_into(&mut bytes).unwrap(), 8);
            }
            "pipe of bytes, waiting" => {
                c.send(&[7; 8]).unwrap();
                assert_eq!(d.recv_into(&mut bytes).unwrap(), 8);
            }
            "value" => {
                value.store(7);
                assert_eq!(value.load(), 7);
            }
            other => assert_eq!(other, "nothing"),
        }
    }
}

const OPERATIONS: [&str; 10] = [
    "nothing",
    "queue",
    "queue, waiting",
    "queue, in place",
    "pipe",
    "pipe, waiting",
    "pipe, in place",
    "pipe of bytes",
    "pipe of bytes, waiting",
    "value",
];

/// How many barriers are in the operation, done so many times by a process that has done it
/// before.
fn count(segment: &str, what: &str) -> usize {
    let mut tracee = fork_traced(|| {
        let mut objects = Objects::new(&Segment::open(segment).unwrap());
        objects.operate(what);
        mark();
        (0..TIMES).for_each(|_| objects.operate(what));
        mark();
    });
    let mut barriers = 0;
    loop {
        let code = tracee.code();
        match tracee.step() {
            Stop::Step => barriers += usize::from(is_barrier(&code)),
            Stop::Mark => return barriers,
            other => panic!("{other:?} in {what}"),
        }
    }
}

#[test]
#[ignore = "a role of the other tests"]
fn child() {
    let Some((_, words)) = role() else { return };
    trace::share_a_processor();
    for what in OPERATIONS {
        say(&count(&words[0], what).to_string());
    }
}

/// The barriers in each operation, in a segment of this mode.
fn barriers(mode: WaitMode) -> Option<[(&'static str, usize); OPERATIONS.len()]> {
    let name = Name::new("fences");
    let segment = Segment::builder(&name)
        .queue::<u64>("queue", SLOTS)
        .typed_pipe::<u64>("typed", SLOTS)
        .pipe("bytes", 16 * SLOTS)
        .value::<u64>("value")
        .wait_mode(mode)
        .create();
    let _segment = match segment {
        Err(Error::WaitMode { .. }) => {
            eprintln!("{mode:?}: the kernel lacks it");
            return None;
        }
        segment => segment.unwrap(),
    };
    let mut child = spawn("count", &[&name]);
    let all = OPERATIONS.map(|what| (what, child.hear().parse().unwrap()));
    child.join();
    Some(all)
}

/// One for the sender, one for the receiver.
const CLAIM_AND_TAKE: usize = 2;

#[test]
fn where_membarrier_is_there() {
    let Some(all) = barriers(WaitMode::Membarrier) else { return };
    for (what, barriers) in all {
        let each = if what.starts_with("queue") { CLAIM_AND_TAKE } else { 0 };
        assert_eq!(barriers, TIMES * each, "{what}");
    }
}

/// That the test above can fail: behind a fence each side asks who sleeps, and the sender to a
/// queue whether it was closed.
#[test]
fn where_it_is_not() {
    for (what, barriers) in barriers(WaitMode::Fence).unwrap() {
        let each = match what {
            "nothing" | "value" => 0,
            _ if what.starts_with("queue") => CLAIM_AND_TAKE + 3,
            _ => 2,
        };
        assert_eq!(barriers, TIMES * each, "{what}");
    }
}
