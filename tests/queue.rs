//! The queue's behaviour, within one process. Deaths are in `queue_processes.rs`.

mod support;

use proptest::prelude::*;
use slipring::*;
use std::collections::VecDeque;
use std::time::{Duration, Instant};
use support::Name;

/// Longer than any of these tests takes, so that a hang fails instead.
const PATIENCE: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(20);

/// Just below every wrap of a ring of few slots: of 32 bits, of the laps, of 64.
const STARTS: [u64; 5] = [0, (1 << 32) - 3, (1 << 49) - 2, (1 << 52) - 5, u64::MAX - 9];

fn pair(name: &Name, options: impl Into<QueueOptions>) -> (Sender<u64>, Receiver<u64>) {
    let queue = Queue::<u64>::create(name, options).unwrap();
    (queue.sender().unwrap(), queue.receiver().unwrap())
}

#[test]
fn the_capacity_is_exact() {
    for capacity in [1, 2, 3, 7, 8, 9, 1000] {
        let name = Name::new("exact");
        let (mut tx, mut rx) = pair(&name, capacity);
        let queue = tx.queue().clone();
        assert_eq!((queue.capacity(), queue.len(), queue.is_empty()), (capacity, 0, true));
        for lap in 0..3 {
            for i in 0..capacity as u64 {
                assert!(!queue.is_full());
                tx.try_send(lap << 32 | i).unwrap();
            }
            assert!(queue.is_full() && queue.len() == capacity);
            assert!(matches!(tx.try_send(99), Err(SendError::Full(99))));
            for i in 0..capacity as u64 {
                assert_eq!(rx.try_recv().unwrap(), lap << 32 | i);
            }
            assert!(matches!(rx.try_recv(), Err(RecvError::Empty)));
        }
        let counters = queue.counters();
        assert_eq!((counters.sent, counters.received), (3 * capacity as u64, 3 * capacity as u64));
        assert_eq!((counters.lost, counters.redelivered, counters.abandoned), (0, 0, 0));
    }
}

#[test]
fn waits_end_at_their_deadline_and_give_the_message_back() {
    let name = Name::new("deadline");
    let (mut tx, mut rx) = pair(&name, 1);
    let start = Instant::now();
    assert!(matches!(rx.recv_timeout(SHORT), Err(RecvError::Timeout)));
    assert!(matches!(rx.recv_deadline(start + SHORT * 2), Err(RecvError::Timeout)));
    assert!(matches!(rx.take_timeout(SHORT), Err(RecvError::Timeout)));
    assert!(start.elapsed() >= SHORT * 3);
    assert!(matches!(rx.recv_timeout(Duration::ZERO), Err(RecvError::Timeout)));
    tx.send_timeout(1, Duration::ZERO).unwrap();
    let start = Instant::now();
    assert!(matches!(tx.send_timeout(2, SHORT), Err(SendError::Timeout(2))));
    assert!(matches!(tx.send_deadline(3, start + SHORT * 2), Err(SendError::Timeout(3))));
    assert!(matches!(tx.claim_timeout(SHORT), Err(SendError::Timeout(()))));
    assert!(start.elapsed() >= SHORT * 3);
    assert_eq!(rx.recv_timeout(PATIENCE).unwrap(), 1);
    assert_eq!(tx.queue().len(), 0);
}

#[test]
fn in_place() {
    let name = Name::new("place");
    let (mut tx, mut rx) = pair(&name, 3);
    let mut slot = tx.claim().unwrap();
    slot.write(40);
    *slot += 2;
    // Nothing is seen before the commit.
    assert!(matches!(rx.try_recv(), Err(RecvError::Empty)));
    slot.commit();
    // Given up: skipped, and its slot is free again.
    drop(tx.try_claim().unwrap());
    tx.send(43).unwrap();
    assert!(matches!(tx.try_send(44), Err(SendError::Full(44))));
    let message = rx.take().unwrap();
    assert_eq!((*message, message.redelivered()), (42, false));
    drop(message);
    assert_eq!(*rx.try_take().unwrap(), 43);
    assert_eq!(tx.queue().counters().abandoned, 1);
    // Forgotten guards are settled by the handle's next use.
    for i in 0..5 {
        let mut slot = tx.claim().unwrap();
        slot.write(1000);
        std::mem::forget(slot);
        tx.send(i).unwrap();
        std::mem::forget(rx.take().unwrap());
        assert!(matches!(rx.try_recv(), Err(RecvError::Empty)));
    }
    assert_eq!(tx.queue().counters().abandoned, 6);
}

#[test]
fn batches() {
    let name = Name::new("batch");
    let (mut tx, mut rx) = pair(&name, 8);
    let all: Vec<u64> = (0..1000).collect();
    std::thread::scope(|scope| {
        scope.spawn(|| tx.send_many(&all).unwrap());
        let mut got = Vec::new();
        assert_eq!(rx.recv_many(&mut got, 0).unwrap(), 0);
        while got.len() < all.len() {
            let before = got.len();
            let count = rx.recv_many(&mut got, 5).unwrap();
            assert!((1..=5).contains(&count) && got.len() == before + count);
        }
        assert_eq!(got, all);
    });
    tx.send_many(&[]).unwrap();
    let queue = tx.queue().clone();
    queue.close();
    assert!(matches!(tx.send_many(&[1, 2]), Err(SendError::Closed(0))));
    assert!(matches!(rx.recv_many(&mut Vec::new(), 9), Err(RecvError::Closed)));
}

#[test]
fn bytes() {
    let name = Name::new("bytes");
    let queue = Queue::create_bytes(&name, 3, 100).unwrap();
    assert_eq!((queue.capacity(), queue.max_len()), (3, 100));
    let other = Queue::open_bytes(&name).unwrap();
    let (mut tx, mut rx) = (queue.sender().unwrap(), other.receiver().unwrap());
    for len in [0, 1, 8, 99, 100] {
        let message = vec![len as u8; len];
        tx.send(&message).unwrap();
        assert_eq!(rx.recv().unwrap(), message);
    }
    let too_large = |result| match result {
        Err(SendError::Failed((), error))
            if matches!(*error, Error::TooLarge { len: 101, max: 100 }) => {}
        other => panic!("{other:?}"),
    };
    too_large(tx.try_send(&[0; 101]));
    too_large(tx.send(&[0; 101]));
    assert!(queue.is_empty());
    let mut slot = tx.claim().unwrap();
    assert_eq!(slot.len(), 100);
    slot[..5].copy_from_slice(b"hello");
    slot.commit(5).unwrap();
    assert_eq!(&*rx.take().unwrap(), b"hello");
    assert!(matches!(tx.claim().unwrap().commit(101), Err(Error::TooLarge { .. })));
    tx.send_many(&["a", "", "ccc"]).unwrap();
    let mut got = Vec::new();
    assert_eq!(rx.recv_many(&mut got, 9).unwrap(), 3);
    assert_eq!(got, [&b"a"[..], b"", b"ccc"]);
    assert!(matches!(Queue::<u8>::open(&name), Err(Error::TypeMismatch { .. })));
}

#[test]
fn the_last_sender_closes_and_the_next_one_opens() {
    let name = Name::new("close");
    let (tx, mut rx) = pair(&name, 4);
    let mut second = tx.clone();
    drop(tx);
    second.send(1).unwrap();
    drop(second);
    assert_eq!(rx.recv().unwrap(), 1);
    assert!(matches!(rx.recv(), Err(RecvError::Closed)));
    assert!(matches!(rx.try_recv(), Err(RecvError::Closed)));
    let mut third = rx.queue().sender().unwrap();
    assert!(matches!(rx.try_recv(), Err(RecvError::Empty)));
    third.send(2).unwrap();
    assert_eq!(rx.recv().unwrap(), 2);
    assert_eq!((rx.queue().senders(), rx.queue().receivers()), (1, 1));
}

#[test]
fn a_closed_queue_wakes_those_who_wait() {
    let name = Name::new("wake");
    let (mut tx, mut rx) = pair(&name, 1);
    let queue = tx.queue().clone();
    std::thread::scope(|scope| {
        let receiver = scope.spawn(move || (rx.recv(), rx.recv()));
        tx.send(1).unwrap();
        queue.close();
        let (first, second) = receiver.join().unwrap();
        assert_eq!(first.unwrap(), 1);
        assert!(matches!(second, Err(RecvError::Closed)));
    });
    assert!(queue.is_closed());
    assert!(matches!(tx.send(7), Err(SendError::Closed(7))));
    assert!(matches!(tx.claim(), Err(SendError::Closed(()))));
}

#[test]
fn threads_of_two_attachments_exchange_every_message_once() {
    const COUNT: u64 = 100_000;
    for (slots, start) in [(1, STARTS[2]), (64, STARTS[1]), (1000, 0)] {
        let name = Name::new("threads");
        let queue = Queue::<u64>::create(&name, QueueOptions::new(slots).start(start)).unwrap();
        let other = Queue::<u64>::open(&name).unwrap();
        let count = if slots == 1 { COUNT / 10 } else { COUNT };
        let sums: Vec<(u64, u64)> = std::thread::scope(|scope| {
            for producer in 0..2u64 {
                let mut tx = queue.sender().unwrap();
                scope.spawn(move || (0..count).for_each(|i| tx.send(producer << 32 | i).unwrap()));
            }
            let consume = |mut rx: Receiver<u64>| {
                let (mut next, mut got, mut sum) = ([0; 2], 0, 0);
                while let Ok(message) = rx.recv() {
                    let (producer, i) = ((message >> 32) as usize, message & 0xffff_ffff);
                    assert!(i >= next[producer], "out of order");
                    next[producer] = i + 1;
                    (got, sum) = (got + 1, sum + i);
                }
                (got, sum)
            };
            let receivers: Vec<_> = (0..2).map(|_| other.receiver().unwrap()).collect();
            let consumers: Vec<_> =
                receivers.into_iter().map(|rx| scope.spawn(move || consume(rx))).collect();
            consumers.into_iter().map(|consumer| consumer.join().unwrap()).collect()
        });
        assert_eq!(sums.iter().map(|(got, _)| got).sum::<u64>(), 2 * count);
        assert_eq!(sums.iter().map(|(_, sum)| sum).sum::<u64>(), count * (count - 1));
    }
}

#[derive(Clone, Debug)]
enum Step {
    Send(u64),
    SendMany(Vec<u64>),
    Claim(Option<u64>),
    Recv,
    RecvMany(usize),
    Take,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        any::<u64>().prop_map(Step::Send),
        prop::collection::vec(any::<u64>(), 0..3).prop_map(Step::SendMany),
        any::<Option<u64>>().prop_map(Step::Claim),
        Just(Step::Recv),
        (0usize..4).prop_map(Step::RecvMany),
        Just(Step::Take),
    ];
    prop::collection::vec(step, 0..80)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// The public operations against a `VecDeque`, over every wrap.
    #[test]
    fn behaves_as_a_deque(
        capacity in 1usize..6,
        start in prop::sample::select(&STARTS),
        steps in steps(),
    ) {
        let name = Name::new("deque");
        let (mut tx, mut rx) = pair(&name, QueueOptions::new(capacity).start(start));
        let queue = tx.queue().clone();
        let mut oracle = VecDeque::new();
        let mut abandoned = 0;
        for step in steps {
            match step {
                Step::Send(value) => match tx.try_send(value) {
                    Ok(()) => oracle.push_back(Some(value)),
                    Err(SendError::Full(back)) => {
                        prop_assert_eq!(back, value);
                        prop_assert_eq!(oracle.len(), capacity);
                    }
                    other => panic!("{other:?}"),
                },
                // Never more than there is room for: it would wait.
                Step::SendMany(values) => {
                    let room = capacity - oracle.len();
                    let values = &values[..values.len().min(room)];
                    tx.send_many(values).unwrap();
                    oracle.extend(values.iter().copied().map(Some));
                }
                Step::Claim(value) => match (tx.try_claim(), value) {
                    (Ok(mut slot), Some(value)) => {
                        slot.write(value);
                        slot.commit();
                        oracle.push_back(Some(value));
                    }
                    (Ok(slot), None) => {
                        drop(slot);
                        oracle.push_back(None);
                        abandoned += 1;
                    }
                    (Err(SendError::Full(())), _) => prop_assert_eq!(oracle.len(), capacity),
                    (Err(other), _) => panic!("{other:?}"),
                },
                Step::Recv | Step::Take => {
                    while oracle.front() == Some(&None) {
                        oracle.pop_front();
                    }
                    let got = match step {
                        Step::Recv => rx.try_recv(),
                        _ => rx.try_take().map(|message| *message),
                    };
                    match (got, oracle.pop_front().flatten()) {
                        (Ok(got), Some(expected)) => prop_assert_eq!(got, expected),
                        (Err(RecvError::Empty), None) => {}
                        other => panic!("{other:?}"),
                    }
                }
                Step::RecvMany(max) => {
                    // It would wait for the first.
                    if !oracle.iter().any(Option::is_some) {
                        continue;
                    }
                    let mut got = Vec::new();
                    rx.recv_many(&mut got, max).unwrap();
                    for got in got {
                        let expected = std::iter::from_fn(|| oracle.pop_front()).flatten().next();
                        prop_assert_eq!(Some(got), expected);
                    }
                }
            }
            // A full ring whose oldest slot was given up takes another message.
            while oracle.len() == capacity && oracle.front() == Some(&None) {
                oracle.pop_front();
            }
            prop_assert_eq!(queue.counters().abandoned, abandoned);
        }
    }
}

/// Messages read in place and given back with their cache lines arrive as all
/// others do, wherever their slots lie.
#[test]
fn messages_released_with_their_lines() {
    fn typed<const N: usize>()
    where
        [u8; N]: Pod,
    {
        let name = Name::new("lines");
        let queue = Queue::<[u8; N]>::create(&name, 3).unwrap();
        let (mut tx, mut rx) = (queue.sender().unwrap(), queue.receiver().unwrap());
        for i in 0..20 {
            tx.send([i; N]).unwrap();
            tx.send([i + 100; N]).unwrap();
            let message = rx.take().unwrap();
            assert_eq!(*message, [i; N]);
            message.release_read();
            assert_eq!(rx.recv().unwrap(), [i + 100; N]);
            assert!(queue.is_empty() && tx.try_claim().is_ok());
            assert!(matches!(rx.try_recv(), Err(RecvError::Empty)));
        }
    }
    typed::<1>();
    typed::<57>();
    typed::<64>();
    typed::<130>();
    typed::<1024>();

    let name = Name::new("lines");
    let queue = Queue::create_bytes(&name, 3, 2000).unwrap();
    let (mut tx, mut rx) = (queue.sender().unwrap(), queue.receiver().unwrap());
    for len in (0..300).chain([2000]) {
        let (one, two) = (vec![len as u8; len], vec![!len as u8; len]);
        tx.send(&one).unwrap();
        tx.send(&two).unwrap();
        let message = rx.take().unwrap();
        assert_eq!(*message, one[..]);
        message.release_read();
        assert_eq!(rx.recv().unwrap(), two);
    }
}
