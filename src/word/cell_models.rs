//! Loom models of a cell, each named after what it shows.
//!
//! A thread stands for a process, and dies at one of the named points.

use super::*;
use crate::memory::Heap;
use loom::thread;
use std::sync::Arc;

const A: Owner = Owner::new(1).unwrap();
const B: Owner = Owner::new(2).unwrap();
/// Three words: enough to tear.
const SIZE: usize = 24;

struct Model {
    heap: Heap,
    geometry: Geometry,
}

impl Model {
    fn new() -> Arc<Model> {
        let geometry = Geometry::new(SIZE).unwrap();
        let model = Model { heap: Heap::zeroed(geometry.len), geometry };
        // SAFETY: the block is the model's own.
        unsafe { Cell::init(model.region(), geometry, &[0; SIZE]) };
        Arc::new(model)
    }

    fn region(&self) -> Region<'static> {
        // SAFETY: every user holds the model while it uses the region.
        unsafe { Region::from_raw(self.heap.region().base(), self.geometry.len) }
    }

    fn cell(&self) -> Cell<'static> {
        // SAFETY: initialised in `new`.
        unsafe { Cell::attach(self.region(), self.geometry, false) }
    }
}

/// The number that all words agree on.
fn load(cell: &Cell<'_>) -> u64 {
    let mut to = [0u64; 3];
    // SAFETY: of the geometry's size.
    unsafe { cell.load(to.as_mut_ptr().cast(), SIZE, || Some(B)) };
    assert!(to[0] == to[1] && to[1] == to[2], "torn: {to:?}");
    to[0]
}

fn store(cell: &Cell<'_>, me: Owner, value: u64) {
    while cell.lock.try_lock(me).is_err() {
        sync::spin_loop();
    }
    // SAFETY: of the geometry's size; the lock is held.
    unsafe { cell.store_locked([value; 3].as_ptr().cast(), SIZE) };
    cell.lock.unlock(me);
}

fn bounded(f: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(f);
}

#[test]
fn a_reader_never_sees_a_torn_value_nor_an_older_one() {
    bounded(|| {
        let model = Model::new();
        let other = Arc::clone(&model);
        let writer = thread::spawn(move || {
            let cell = other.cell();
            // Two, so that the second one writes the copy being read.
            store(&cell, A, 1);
            store(&cell, A, 2);
        });
        let cell = model.cell();
        let first = load(&cell);
        assert!(load(&cell) >= first);
        writer.join().unwrap();
        assert_eq!(load(&cell), 2);
    });
}

#[test]
fn of_two_writers_the_values_stay_whole() {
    bounded(|| {
        let model = Model::new();
        let writers = [(A, 1), (B, 2)].map(|(me, value)| {
            let model = Arc::clone(&model);
            thread::spawn(move || store(&model.cell(), me, value))
        });
        load(&model.cell());
        for writer in writers {
            writer.join().unwrap();
        }
        assert_ne!(load(&model.cell()), 0);
    });
}

/// After each of its stores: the lock's, each word's, the count's, the unlock's.
#[test]
fn a_writer_killed_half_way_leaves_a_whole_value_and_the_next_one_works() {
    let words = (1..=3).map(|nth| ("cell.word", nth, 0));
    let steps = [("lock.taken", 1, 0), ("cell.seq", 1, 9), ("lock.freed", 1, 9)];
    for (point, nth, left) in words.chain(steps) {
        bounded(move || {
            let model = Model::new();
            let other = Arc::clone(&model);
            let dead = thread::spawn(move || {
                let dead = sync::die_at(point, nth, || store(&other.cell(), A, 9));
                assert!(dead.is_none());
            });
            let cell = model.cell();
            let seen = load(&cell);
            assert!(seen == 0 || seen == left);
            dead.join().unwrap();
            assert_eq!(load(&cell), left);
            cell.recover(A);
            assert_eq!(load(&cell), left);
            let other = Arc::clone(&model);
            let next = thread::spawn(move || store(&other.cell(), B, 10));
            let seen = load(&cell);
            assert!(seen == left || seen == 10);
            next.join().unwrap();
            assert_eq!(load(&cell), 10);
        });
    }
}

/// The writer before died with the copy half written that the next one writes,
/// while a reader still reads the other.
#[test]
fn a_reader_is_not_torn_by_the_one_who_comes_after_a_dead_writer() {
    bounded(|| {
        let model = Model::new();
        let other = Arc::clone(&model);
        let writers = thread::spawn(move || {
            let cell = other.cell();
            assert!(sync::die_at("cell.word", 2, || store(&cell, A, 9)).is_none());
            cell.recover(A);
            store(&cell, B, 10);
        });
        let cell = model.cell();
        while load(&cell) != 10 {
            thread::yield_now();
        }
        writers.join().unwrap();
    });
}
