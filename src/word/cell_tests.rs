use super::*;
use crate::memory::Heap;
use proptest::prelude::*;

const A: Owner = Owner::new(1).unwrap();

fn cell(heap: &Heap, geometry: Geometry, initial: &[u8]) -> Cell<'static> {
    let base = heap.region().base();
    // SAFETY: the block is the test's own and outlives the cell in each test.
    unsafe {
        let region = Region::from_raw(base, geometry.len);
        Cell::init(region, geometry, initial);
        Cell::attach(region, geometry, false)
    }
}

fn load(cell: &Cell<'_>, size: usize) -> Vec<u8> {
    let mut to = vec![0xaa; size];
    // SAFETY: `to` has the geometry's size.
    unsafe { cell.load(to.as_mut_ptr(), to.len(), || None) };
    to
}

fn store(cell: &Cell<'_>, value: &[u8]) {
    assert!(cell.lock.try_lock(A).is_ok());
    // SAFETY: `value` has the geometry's size; the lock is held.
    unsafe { cell.store_locked(value.as_ptr(), value.len()) };
    cell.lock.unlock(A);
}

#[test]
fn a_writer_killed_after_any_word_leaves_the_old_value() {
    let geometry = Geometry::new(40).unwrap();
    for words in 0..=5 {
        let heap = Heap::zeroed(geometry.len);
        let cell = cell(&heap, geometry, &[1; 40]);
        store(&cell, &[2; 40]);
        // What `store_locked` does, up to the death of its process.
        assert!(cell.lock.try_lock(A).is_ok());
        let seq = cell.seq.load(Ordering::Relaxed);
        // SAFETY: the geometry's size.
        let copy = unsafe { cell.copy(seq.wrapping_add(1), cell.geometry.size) };
        for word in &copy[..words] {
            word.store(u64::MAX, Ordering::Relaxed);
        }
        assert_eq!(load(&cell, 40), [2; 40]);
        cell.recover(A);
        assert_eq!(load(&cell, 40), [2; 40]);
        store(&cell, &[3; 40]);
        assert_eq!(load(&cell, 40), [3; 40]);
    }
}

#[test]
fn a_reader_with_a_hostile_writer_comes_back() {
    let geometry = Geometry::new(16).unwrap();
    let heap = Heap::zeroed(geometry.len);
    let cell = cell(&heap, geometry, &[0; 16]);
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                cell.seq.fetch_add(1, Ordering::Relaxed);
            }
        });
        for _ in 0..4 {
            load(&cell, 16);
        }
        done.store(true, Ordering::Relaxed);
    });
}

#[test]
fn sequences_wrap() {
    let geometry = Geometry::new(9).unwrap();
    let heap = Heap::zeroed(geometry.len);
    let cell = cell(&heap, geometry, &[0; 9]);
    cell.seq.store(u64::MAX - 2, Ordering::Relaxed);
    for i in 0..6u8 {
        store(&cell, &[i; 9]);
        assert_eq!(load(&cell, 9), [i; 9]);
    }
}

proptest! {
    #[test]
    fn what_is_stored_is_loaded(first: Vec<u8>, second: Vec<u8>) {
        let size = first.len();
        let second: Vec<u8> = second.into_iter().chain(std::iter::repeat(7)).take(size).collect();
        let geometry = Geometry::new(size).unwrap();
        let heap = Heap::zeroed(geometry.len);
        let cell = cell(&heap, geometry, &first);
        prop_assert_eq!(load(&cell, size), first);
        store(&cell, &second);
        prop_assert_eq!(load(&cell, size), second);
    }
}
