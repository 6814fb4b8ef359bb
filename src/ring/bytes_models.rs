//! Loom models of the shipped code.

use super::*;
use crate::memory::Heap;
use crate::sync::die_at;
use loom::thread;
use std::sync::Arc;

// Nine cells, of which one is kept: a record takes up to four.
const CAPACITY: usize = 64;

fn geometry() -> Geometry {
    Geometry::new(CAPACITY).unwrap()
}

fn ring(start: u64) -> Arc<Heap> {
    let heap = Arc::new(Heap::zeroed(geometry().len()));
    // SAFETY: the block is the model's own.
    unsafe { Ring::init(heap.region(), geometry(), start) };
    heap
}

fn producer(heap: &Heap) -> Producer<'_> {
    // SAFETY: initialised in `ring`; each model uses one at a time.
    unsafe { Ring::attach(heap.region(), geometry()).producer().unwrap() }
}

fn consumer(heap: &Heap) -> Consumer<'_> {
    // SAFETY: as `producer`.
    unsafe { Ring::attach(heap.region(), geometry()).consumer().unwrap() }
}

/// Commits `n` bytes of this value.
fn commit(tx: &mut Producer<'_>, n: usize, value: u8) {
    loop {
        // As the pipe does: the usual case first.
        if let Some(grant) = tx.at_hand(n).or_else(|| tx.reserve(n).unwrap()) {
            // SAFETY: the grant is ours and has n bytes.
            unsafe { grant.ptr().write_bytes(value, n) };
            return tx.commit(Kind::Whole, n);
        }
        thread::yield_now();
    }
}

fn send(tx: &mut Producer<'_>, n: usize, value: u8) {
    commit(tx, n, value);
    tx.publish();
}

/// Length and value of the next record, which must be of one value.
fn peek(rx: &mut Consumer<'_>) -> (usize, u8) {
    let record = loop {
        match rx.at_hand(true).or_else(|| rx.peek().unwrap()) {
            Some(record) => break record,
            None => thread::yield_now(),
        }
    };
    // SAFETY: a record that is not released.
    let bytes = unsafe { std::slice::from_raw_parts(record.ptr().as_ptr(), record.len()) };
    assert!(bytes.iter().all(|&b| b == bytes[0]));
    (bytes.len(), bytes[0])
}

fn receive(rx: &mut Consumer<'_>) -> (usize, u8) {
    let found = peek(rx);
    rx.advance();
    rx.release();
    found
}

#[test]
fn consumer_never_reads_unpublished_bytes() {
    loom::model(|| {
        let heap = ring(5);
        let other = heap.clone();
        let t = thread::spawn(move || {
            let mut tx = producer(&other);
            send(&mut tx, 8, 1);
            // Behind a WRAP.
            send(&mut tx, 16, 2);
        });
        let mut rx = consumer(&heap);
        assert_eq!((receive(&mut rx), receive(&mut rx)), ((8, 1), (16, 2)));
        t.join().unwrap();
    });
}

#[test]
fn a_header_of_the_lap_before_is_no_news() {
    loom::model(|| {
        let heap = ring(0);
        let (mut tx, mut rx) = (producer(&heap), consumer(&heap));
        for n in 1..=3 {
            send(&mut tx, 16, n);
            assert_eq!(receive(&mut rx), (16, n));
        }
        drop(tx);
        // Three cells each, and nine in all: headers come to lie upon headers.
        let other = heap.clone();
        let t = thread::spawn(move || {
            let mut tx = producer(&other);
            send(&mut tx, 16, 4);
            send(&mut tx, 16, 5);
        });
        assert_eq!((receive(&mut rx), receive(&mut rx)), ((16, 4), (16, 5)));
        assert!(!rx.is_ready() && rx.peek().unwrap().is_none());
        t.join().unwrap();
    });
}

#[test]
fn producer_never_overwrites_unreleased_bytes() {
    loom::model(|| {
        let heap = ring(0);
        let mut tx = producer(&heap);
        send(&mut tx, 24, 1);
        send(&mut tx, 24, 2);
        drop(tx);
        let other = heap.clone();
        let t = thread::spawn(move || send(&mut producer(&other), 8, 3));
        let mut rx = consumer(&heap);
        assert_eq!((receive(&mut rx), receive(&mut rx)), ((24, 1), (24, 2)));
        assert_eq!(receive(&mut rx), (8, 3));
        t.join().unwrap();
    });
}

#[test]
fn a_batch_is_shown_at_once_and_freed_at_once() {
    loom::model(|| {
        let heap = ring(5);
        let other = heap.clone();
        let t = thread::spawn(move || {
            let mut tx = producer(&other);
            commit(&mut tx, 16, 1);
            // Behind a WRAP.
            commit(&mut tx, 8, 2);
            tx.publish();
            send(&mut tx, 24, 3);
        });
        let mut rx = consumer(&heap);
        assert_eq!(peek(&mut rx), (16, 1));
        rx.advance();
        assert!(rx.is_ready(), "the second came with the first");
        assert_eq!(peek(&mut rx), (8, 2));
        rx.advance();
        rx.release();
        assert_eq!(receive(&mut rx), (24, 3));
        t.join().unwrap();
    });
}

#[test]
fn what_a_dead_producer_did_not_publish_never_was() {
    loom::model(|| {
        let heap = ring(4);
        let other = heap.clone();
        let t = thread::spawn(move || {
            let mut tx = producer(&other);
            send(&mut tx, 8, 1);
            commit(&mut tx, 24, 99);
            let _ = tx.reserve(8);
            // Dies here: committed, not published.
            let mut tx = producer(&other);
            send(&mut tx, 16, 2);
            send(&mut tx, 24, 3);
        });
        let mut rx = consumer(&heap);
        assert_eq!((receive(&mut rx), receive(&mut rx)), ((8, 1), (16, 2)));
        assert_eq!(receive(&mut rx), (24, 3));
        t.join().unwrap();
    });
}

#[test]
fn a_producer_killed_at_any_step_leaves_whole_records() {
    let steps =
        [("bytes.header", 2), ("bytes.ended", 2), ("bytes.published", 3), ("bytes.noted", 3)];
    for (point, records) in steps {
        loom::model(move || {
            let heap = ring(5);
            let other = heap.clone();
            let t = thread::spawn(move || {
                let mut tx = producer(&other);
                send(&mut tx, 8, 1);
                let dead = die_at(point, 1, || {
                    // Behind a WRAP.
                    send(&mut tx, 16, 2);
                });
                assert!(dead.is_none());
                send(&mut producer(&other), 24, 3);
            });
            let mut rx = consumer(&heap);
            assert_eq!(receive(&mut rx), (8, 1));
            if records == 3 {
                assert_eq!(receive(&mut rx), (16, 2));
            }
            assert_eq!(receive(&mut rx), (24, 3));
            t.join().unwrap();
        });
    }
}

#[test]
fn positions_wrap_between_two_threads() {
    loom::model(|| {
        let laps = geometry().laps;
        let heap = ring(laps.count(laps.at(u64::MAX, laps.capacity() - 2)));
        let other = heap.clone();
        let t = thread::spawn(move || {
            let mut tx = producer(&other);
            send(&mut tx, 8, 1);
            send(&mut tx, 24, 2);
            send(&mut tx, 16, 3);
        });
        let mut rx = consumer(&heap);
        assert_eq!((receive(&mut rx), receive(&mut rx)), ((8, 1), (24, 2)));
        assert_eq!(receive(&mut rx), (16, 3));
        t.join().unwrap();
    });
}

#[test]
fn what_a_dead_consumer_did_not_release_comes_again() {
    loom::model(|| {
        let heap = ring(0);
        let other = heap.clone();
        let t = thread::spawn(move || {
            let mut tx = producer(&other);
            send(&mut tx, 24, 1);
            send(&mut tx, 24, 2);
            send(&mut tx, 8, 3);
        });
        let mut rx = consumer(&heap);
        assert_eq!(peek(&mut rx), (24, 1));
        rx.advance();
        // Dies here: read, not released.
        let mut rx = consumer(&heap);
        assert_eq!((receive(&mut rx), receive(&mut rx)), ((24, 1), (24, 2)));
        assert_eq!(receive(&mut rx), (8, 3));
        t.join().unwrap();
    });
}
