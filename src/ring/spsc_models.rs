//! Loom models of the shipped code.

use super::*;
use crate::memory::Heap;
use crate::sync::die_at;
use loom::thread;
use std::sync::Arc;

fn geometry(capacity: usize) -> Geometry {
    Geometry::new(capacity, Layout::new::<u64>()).unwrap()
}

fn ring(capacity: usize) -> Arc<Heap> {
    let heap = Arc::new(Heap::zeroed(geometry(capacity).len()));
    // SAFETY: the block is the model's own.
    unsafe { Ring::init(heap.region(), geometry(capacity), 0) };
    heap
}

fn producer(heap: &Heap, capacity: usize) -> Producer<'_> {
    // SAFETY: initialised in `ring`; each model makes one end at a time.
    unsafe { Ring::attach(heap.region(), geometry(capacity)).producer().unwrap() }
}

fn consumer(heap: &Heap, capacity: usize) -> Consumer<'_> {
    // SAFETY: as `producer`.
    unsafe { Ring::attach(heap.region(), geometry(capacity)).consumer().unwrap() }
}

fn send(tx: &mut Producer<'_>, value: u64) {
    loop {
        // As the pipe does: the usual case first.
        let next = tx.next();
        if next.is_free() {
            // SAFETY: the claimed payload is a u64.
            unsafe { next.payload::<u64>().write(value) };
            return tx.publish::<u64>(next);
        }
        tx.judge().unwrap();
        thread::yield_now();
    }
}

fn peek(rx: &mut Consumer<'_>) -> u64 {
    loop {
        let next = rx.next();
        if next.is_full() {
            // SAFETY: a published payload is a u64.
            return unsafe { next.payload::<u64>().read() };
        }
        rx.judge().unwrap();
        thread::yield_now();
    }
}

fn receive(rx: &mut Consumer<'_>) -> u64 {
    let value = peek(rx);
    let next = rx.next();
    rx.pass::<u64>(next);
    value
}

#[test]
fn consumer_never_sees_an_unpublished_slot() {
    loom::model(|| {
        let heap = ring(2);
        let other = heap.clone();
        let t = thread::spawn(move || {
            let mut tx = producer(&other, 2);
            send(&mut tx, 1);
            send(&mut tx, 2);
        });
        let mut rx = consumer(&heap, 2);
        assert_eq!((receive(&mut rx), receive(&mut rx)), (1, 2));
        t.join().unwrap();
    });
}

#[test]
fn producer_never_overwrites_an_unreleased_slot() {
    for capacity in [1, 2] {
        loom::model(move || {
            let heap = ring(capacity);
            let other = heap.clone();
            let t = thread::spawn(move || {
                let mut tx = producer(&other, capacity);
                for i in 0..=capacity as u64 {
                    send(&mut tx, i);
                }
            });
            let mut rx = consumer(&heap, capacity);
            for i in 0..=capacity as u64 {
                assert_eq!(receive(&mut rx), i);
            }
            t.join().unwrap();
        });
    }
}

#[test]
fn batches_arrive_in_order_and_are_freed_after_they_were_read() {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(|| {
        let heap = ring(2);
        let other = heap.clone();
        let t = thread::spawn(move || {
            let mut tx = producer(&other, 2);
            let mut sent = 0;
            while sent < 3 {
                let n = tx.publish_each(3 - sent, |nth| (sent + nth) as u64, || true, || ());
                sent += n;
                if n == 0 {
                    thread::yield_now();
                }
            }
        });
        let mut rx = consumer(&heap, 2);
        let mut next = 0;
        while next < 3 {
            let see = |nth, p: NonNull<u64>| {
                // SAFETY: a published payload is a u64.
                assert_eq!(unsafe { p.read() }, next + nth as u64);
            };
            let n = rx.read_each(2, see, || true);
            rx.release_each::<u64>(n);
            next += n as u64;
            if n == 0 {
                thread::yield_now();
            }
        }
        t.join().unwrap();
    });
}

#[test]
fn a_consumer_killed_while_it_frees_a_batch_leaves_the_rest() {
    for nth in 1..=2 {
        loom::model(move || {
            let heap = ring(2);
            let mut tx = producer(&heap, 2);
            (1..=2).for_each(|value| send(&mut tx, value));
            let other = heap.clone();
            let t = thread::spawn(move || send(&mut producer(&other, 2), 3));
            let dead = die_at("spsc.released", nth, || consumer(&heap, 2).release_each::<u64>(2));
            assert!(dead.is_none());
            let mut rx = consumer(&heap, 2);
            for value in u64::from(nth) + 1..=3 {
                assert_eq!(receive(&mut rx), value);
            }
            t.join().unwrap();
        });
    }
}

#[test]
fn a_successor_producer_starts_at_the_published_tail() {
    loom::model(|| {
        let heap = ring(2);
        let other = heap.clone();
        let t = thread::spawn(move || {
            let mut tx = producer(&other, 2);
            send(&mut tx, 1);
            // Dies here: written, not committed.
            if let Some(slot) = tx.try_claim().unwrap() {
                // SAFETY: the claimed payload is a u64.
                unsafe { slot.payload().cast().write(99u64) };
            }
            let mut tx = producer(&other, 2);
            send(&mut tx, 2);
            send(&mut tx, 3);
        });
        let mut rx = consumer(&heap, 2);
        assert_eq!((receive(&mut rx), receive(&mut rx), receive(&mut rx)), (1, 2, 3));
        t.join().unwrap();
    });
}

#[test]
fn a_producer_killed_after_its_commit_leaves_what_it_sent() {
    for nth in 1..=2 {
        loom::model(move || {
            let heap = ring(2);
            let other = heap.clone();
            let t = thread::spawn(move || {
                let dead = die_at("spsc.published", nth, || {
                    let mut tx = producer(&other, 2);
                    (1..=2).for_each(|value| send(&mut tx, value));
                });
                assert!(dead.is_none());
                send(&mut producer(&other, 2), 3);
            });
            let mut rx = consumer(&heap, 2);
            for i in (1..=nth.into()).chain([3]) {
                assert_eq!(receive(&mut rx), i);
            }
            t.join().unwrap();
            assert!(rx.is_empty());
        });
    }
}

#[test]
fn a_consumer_killed_after_its_release_leaves_the_rest() {
    loom::model(|| {
        let heap = ring(1);
        let other = heap.clone();
        let t = thread::spawn(move || {
            let mut tx = producer(&other, 1);
            send(&mut tx, 1);
            send(&mut tx, 2);
        });
        let dead = die_at("spsc.released", 1, || receive(&mut consumer(&heap, 1)));
        assert!(dead.is_none());
        assert_eq!(receive(&mut consumer(&heap, 1)), 2);
        t.join().unwrap();
    });
}

#[test]
fn positions_wrap_between_two_threads() {
    for capacity in [1, 2] {
        loom::model(move || {
            let heap = Arc::new(Heap::zeroed(geometry(capacity).len()));
            // The last slot of the last lap, but for larger rings.
            let last = u64::MAX / 2 * capacity as u64 + capacity as u64 - 1;
            // SAFETY: the block is the model's own.
            unsafe { Ring::init(heap.region(), geometry(capacity), last) };
            let other = heap.clone();
            let t = thread::spawn(move || {
                let mut tx = producer(&other, capacity);
                (1..=3).for_each(|i| send(&mut tx, i));
            });
            let mut rx = consumer(&heap, capacity);
            (1..=3).for_each(|i| assert_eq!(receive(&mut rx), i));
            t.join().unwrap();
        });
    }
}

#[test]
fn a_successor_producer_waits_for_the_reader() {
    loom::model(|| {
        let heap = ring(1);
        send(&mut producer(&heap, 1), 1);
        let other = heap.clone();
        let t = thread::spawn(move || send(&mut producer(&other, 1), 2));
        let mut rx = consumer(&heap, 1);
        assert_eq!((receive(&mut rx), receive(&mut rx)), (1, 2));
        t.join().unwrap();
    });
}

#[test]
fn a_successor_producer_finds_its_tail_while_the_consumer_goes_on() {
    loom::model(|| {
        let heap = ring(3);
        let mut tx = producer(&heap, 3);
        (1..=2).for_each(|value| send(&mut tx, value));
        let expected = tx.tail;
        let other = heap.clone();
        let t = thread::spawn(move || {
            let mut rx = consumer(&other, 3);
            (1..=2).for_each(|value| assert_eq!(receive(&mut rx), value));
        });
        assert_eq!(producer(&heap, 3).tail, expected);
        t.join().unwrap();
    });
}

#[test]
fn a_successor_consumer_finds_its_head_while_the_producer_goes_on() {
    loom::model(|| {
        let heap = ring(3);
        send(&mut producer(&heap, 3), 1);
        let mut rx = consumer(&heap, 3);
        receive(&mut rx);
        let expected = rx.head;
        let other = heap.clone();
        let t = thread::spawn(move || {
            let mut tx = producer(&other, 3);
            (2..=4).for_each(|value| send(&mut tx, value));
        });
        assert_eq!(consumer(&heap, 3).head, expected);
        t.join().unwrap();
    });
}

#[test]
fn a_successor_consumer_gets_the_unreleased_again() {
    loom::model(|| {
        let heap = ring(1);
        let other = heap.clone();
        let t = thread::spawn(move || {
            let mut tx = producer(&other, 1);
            send(&mut tx, 1);
            send(&mut tx, 2);
        });
        let mut rx = consumer(&heap, 1);
        assert_eq!(peek(&mut rx), 1);
        // Dies here: read, not released.
        let mut rx = consumer(&heap, 1);
        assert_eq!((receive(&mut rx), receive(&mut rx)), (1, 2));
        t.join().unwrap();
    });
}
