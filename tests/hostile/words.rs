//! Single words, chosen to keep others busy or waiting for ever.

use crate::outside::Mapped;
use crate::support::Name;
use crate::watch::{PATIENCE, Watch, against};
use slipring::*;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

const SHORT: Duration = Duration::from_millis(5);

/// A participant that is not there: nobody holds this lease.
const NOBODY: u64 = 3;

fn corrupt(outcome: &RecvError) -> bool {
    matches!(outcome.failure(), Some(Error::Corrupt { .. }))
}

#[test]
fn a_header_that_is_none_is_not_waited_for() {
    let (name, watch) = (Name::new("header"), Watch::new("header"));
    let mut a = Pipe::create(&name, 128).unwrap();
    let mut b = Pipe::open(&name).unwrap();
    let outside = Mapped::open(&name);
    // The tail, the header and the payload.
    let [tail, first, _] = outside.changed(|| a.try_send(b"x").unwrap())[..] else { panic!() };
    assert_eq!(b.recv().unwrap(), b"x");
    // Behind a record of two cells.
    let next = outside.word(first + 16);
    for header in (35..64).map(|bit| 1 << bit).chain([1, 8, 1 << 32, 2 << 32 | 200]) {
        assert_eq!(next.swap(header, SeqCst), 0);
        watch.step(|| format!("header {header:x}"));
        let outcome = b.recv_timeout(SHORT).unwrap_err();
        assert!(corrupt(&outcome), "{outcome}");
        assert!(b.poll(SHORT).is_err());
        next.store(0, SeqCst);
    }
    // The receiver asks where the tail is only at the beginning of some laps.
    for bit in 0..64 {
        watch.step(|| format!("tail with bit {bit}"));
        outside.word(tail).fetch_xor(1 << bit, SeqCst);
        assert!(!b.poll(Duration::ZERO).unwrap());
        outside.word(tail).fetch_xor(1 << bit, SeqCst);
    }
    a.send(b"y").unwrap();
    assert_eq!(b.recv().unwrap(), b"y");
}

#[test]
fn pieces_without_end_do_not_outlast_the_deadline() {
    const CELLS: usize = 64;
    let (name, watch) = (Name::new("pieces"), Watch::new("pieces"));
    let mut a = Pipe::create(&name, PipeOptions::new(8 * CELLS).one_way()).unwrap();
    let mut b = Pipe::open(&name).unwrap();
    let outside = Mapped::open(&name);
    let changed = outside.changed(|| a.try_send(b"").unwrap());
    let [_tail, data] = changed[..] else { panic!("{changed:?}") };
    // Every cell a record of its own, round and round until that is noticed: a piece that is
    // neither first nor last. (One cell more than was asked for is always kept.)
    for cell in 0..=CELLS {
        outside.word(data + 8 * cell).store(4 << 32, SeqCst);
    }
    for _ in 0..10 {
        watch.step(|| "pieces for ever".into());
        let outcome = b.recv_timeout(SHORT).unwrap_err();
        assert!(matches!(outcome, RecvError::Timeout) || corrupt(&outcome), "{outcome}");
        let outcome = b.try_recv().unwrap_err();
        assert!(matches!(outcome, RecvError::Empty) || corrupt(&outcome), "{outcome}");
        assert!(!matches!(b.poll(SHORT), Ok(true)));
    }
    // It is, in the end, by a stream, too.
    watch.step(|| "read".into());
    assert!(std::io::Read::read(&mut b, &mut [0]).is_err());
}

/// The same with a correct sender, whose message is very long.
#[test]
fn a_long_message_does_not_outlast_the_deadline_of_its_sender() {
    let (name, watch) = (Name::new("long"), Watch::new("long"));
    let mut a = Pipe::create(&name, PipeOptions::new(8 << 20).one_way()).unwrap();
    let b = Pipe::open(&name).unwrap();
    let outside = Mapped::open(&name);
    let tail = outside.changed(|| a.try_send(b"").unwrap())[0];
    let head = tail + LINE;
    // A receiver that releases at once whatever comes.
    let eager = || outside.word(head).store(outside.word(tail).load(SeqCst), SeqCst);
    // More than a machine moves in the time.
    let message = vec![0; 64 << 20];
    against(eager, || {
        for _ in 0..10 {
            watch.step(|| "a long message".into());
            let outcome = a.send_timeout(&message, Duration::from_millis(1));
            assert!(matches!(outcome, Err(SendError::Timeout(()))), "{outcome:?}");
        }
    });
    drop(b);
}

#[test]
fn slots_that_are_abandoned_for_ever_keep_no_receiver() {
    // Many, for the same reason.
    const SLOTS: usize = 1 << 17;
    let (name, watch) = (Name::new("poison"), Watch::new("poison"));
    let queue = Queue::<u8>::create(&name, SLOTS).unwrap();
    let (mut tx, mut rx) = (queue.sender().unwrap(), queue.receiver().unwrap());
    let outside = Mapped::open(&name);
    // The hint, and the slot's word; a payload of zero changes nothing.
    let first = outside.changed(|| tx.try_send(0).unwrap())[1];
    let second = outside.changed(|| tx.try_send(0).unwrap())[1];
    assert_eq!((rx.recv().unwrap(), rx.recv().unwrap()), (0, 0));
    let poison_all = || {
        for slot in 0..SLOTS {
            let word = outside.word(first + slot * (second - first));
            let free = word.load(SeqCst);
            if free & 0x7fff == 0 {
                word.store(free | 4 << 12, SeqCst);
            }
        }
    };
    poison_all();
    against(poison_all, || {
        watch.step(|| "poison for ever".into());
        let outcome = rx.try_recv().unwrap_err();
        assert!(matches!(outcome, RecvError::Empty) || corrupt(&outcome), "{outcome}");
        let outcome = rx.recv_timeout(SHORT).unwrap_err();
        assert!(matches!(outcome, RecvError::Timeout) || corrupt(&outcome), "{outcome}");
    });
}

/// A word may name a participant that is not there, which can't be because of
/// its death: dead ones are in the table until their words are repaired.
#[test]
fn words_that_name_nobody_are_repaired() {
    let (name, watch) = (Name::new("nobody"), Watch::new("nobody"));
    let segment = Segment::builder(&name)
        .lock("lock")
        .value::<[u64; 3]>("value")
        .queue::<u64>("queue", 4)
        .typed_pipe::<u64>("pipe", 4)
        .participants(4)
        .create()
        .unwrap();
    let outside = Mapped::open(&name);

    watch.step(|| "lock".into());
    let lock = segment.lock("lock").unwrap();
    let word = outside.changed(|| std::mem::forget(lock.lock().unwrap()))[0];
    outside.half(word).store(NOBODY as u32, SeqCst);
    assert!(matches!(lock.lock_timeout(PATIENCE / 2), Err(LockError::Poisoned(_))));

    watch.step(|| "value".into());
    let value = segment.value::<[u64; 3]>("value").unwrap();
    // The lock of the cell lies a line behind its sequence word.
    let sequence = outside.changed(|| value.store([0; 3]))[0];
    outside.half(sequence + LINE).store(NOBODY as u32, SeqCst);
    assert!(value.store_timeout([1; 3], PATIENCE / 2).unwrap());

    watch.step(|| "queue".into());
    let queue = segment.queue::<u64>("queue").unwrap();
    let (mut tx, mut rx) = (queue.sender().unwrap(), queue.receiver().unwrap());
    let slot = outside.changed(|| tx.try_send(0).unwrap())[1];
    outside.word(slot).store(1 << 12 | NOBODY, SeqCst);
    tx.send(7).unwrap();
    assert_eq!(rx.recv_timeout(PATIENCE / 2).unwrap(), 7);

    watch.step(|| "pipe".into());
    let pipe = segment.typed_pipe_end::<u64>("pipe", End::B).unwrap();
    let seats = outside.changed(|| drop(pipe));
    for seat in seats.iter().filter(|at| outside.word(**at).load(SeqCst) >> 12 & 3 == 2) {
        outside.word(*seat).store(1 << 12 | NOBODY, SeqCst);
    }
    assert!(segment.typed_pipe_end::<u64>("pipe", End::B).is_ok());
}
