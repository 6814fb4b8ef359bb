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
    unsafe { cell.load(to.as_mut_ptr().cast(), || Some(B)) };
    assert!(to[0] == to[1] && to[1] == to[2], "torn: {to:?}");
    to[0]
}

fn store(cell: &Cell<'_>, me: Owner, value: u64) {
    while cell.lock.try_lock(me).is_err() {
        sync::spin_loop();
    }
    // SAFETY: of the geometry's size; the lock is held.
    unsafe { cell.store_locked([value; 3].as_ptr().cast()) };
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

#[test]
fn a_writer_killed_half_way_leaves_the_old_value_and_the_next_one_works() {
    bounded(|| {
        let model = Model::new();
        let other = Arc::clone(&model);
        let dead = thread::spawn(move || {
            let cell = other.cell();
            assert!(cell.lock.try_lock(A).is_ok());
            let seq = cell.seq.load(Ordering::Relaxed);
            fence(Ordering::Release);
            cell.copy(seq + 1)[0].store(99, Ordering::Relaxed);
        });
        let cell = model.cell();
        assert_eq!(load(&cell), 0);
        dead.join().unwrap();
        cell.recover(A);
        assert_eq!(load(&cell), 0);
        let other = Arc::clone(&model);
        let next = thread::spawn(move || store(&other.cell(), B, 1));
        load(&cell);
        next.join().unwrap();
        assert_eq!(load(&cell), 1);
    });
}
