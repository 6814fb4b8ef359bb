//! A thread stands for a process. It dies by doing nothing more; that it is
//! dead is known to whoever joined it, as a lease would tell.

use super::*;
use crate::memory::Heap;
use crate::sync::Witness;
use core::cell::UnsafeCell;
use loom::thread;
use std::sync::Arc;

const A: Owner = Owner::new(1).unwrap();
const B: Owner = Owner::new(2).unwrap();
const DEAD: Owner = Owner::new(9).unwrap();

/// A lock and the count that it protects.
struct Model {
    heap: Heap,
    count: UnsafeCell<u32>,
    witness: Witness,
}

// SAFETY: the count is reached under the lock alone, which is the claim
// that the witness verifies.
unsafe impl Sync for Model {}
// SAFETY: as above.
unsafe impl Send for Model {}

impl Model {
    fn new() -> Arc<Model> {
        let heap = Heap::zeroed(LEN);
        // SAFETY: the block is the model's own.
        unsafe { Lock::init(heap.region()) };
        Arc::new(Model { heap, count: UnsafeCell::new(0), witness: Witness::default() })
    }

    fn lock(&self) -> Lock<'_> {
        // SAFETY: initialised in `new`.
        unsafe { Lock::attach(self.heap.region(), false) }
    }

    /// Adds one to the count, and returns what it is then.
    fn add(&self) -> u32 {
        self.witness.write();
        // SAFETY: under the lock.
        unsafe {
            *self.count.get() += 1;
            *self.count.get()
        }
    }
}

fn spawn<R: 'static>(
    model: &Arc<Model>,
    f: impl FnOnce(&Model, Lock<'_>) -> R + 'static,
) -> thread::JoinHandle<R> {
    let model = model.clone();
    thread::spawn(move || f(&model, model.lock()))
}

fn check(f: impl Fn() + Sync + Send + 'static) {
    bounded(None, f);
}

/// Every schedule with at most so many preemptions.
fn bounded(preemptions: Option<usize>, f: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = preemptions.or(builder.preemption_bound);
    builder.check(f);
}

fn wait(lock: &Lock<'_>, me: Owner) -> Acquired {
    lock.lock(me, None, |_, _| Ok(false)).unwrap().unwrap()
}

/// Nobody sleeps here, so the lock's word alone does the ordering.
#[test]
fn one_at_a_time_has_it_and_sees_what_the_last_one_did() {
    for other in [A, B] {
        check(move || {
            let model = Model::new();
            let add_if_free = |model: &Model, lock: Lock<'_>, me| {
                lock.try_lock(me).is_ok_and(|_| {
                    model.add();
                    lock.unlock(me);
                    true
                })
            };
            let thread = spawn(&model, move |model, lock| {
                u32::from(add_if_free(model, lock.clone(), other))
                    + u32::from(add_if_free(model, lock, other))
            });
            let mine = u32::from(add_if_free(&model, model.lock(), A));
            let added = mine + thread.join().unwrap();
            assert!(added >= 1, "somebody found it free");
            let _held = model.lock().try_lock(B).unwrap();
            assert_eq!(model.add(), added + 1);
        });
    }
}

/// A lost wake would show as a deadlock.
#[test]
fn those_who_wait_for_it_get_it() {
    bounded(Some(3), || {
        let model = Model::new();
        let round = |model: &Model, lock: Lock<'_>, me| {
            for _ in 0..2 {
                assert!(!wait(&lock, me).poisoned);
                model.add();
                lock.unlock(me);
            }
        };
        let thread = spawn(&model, move |model, lock| round(model, lock, A));
        round(&model, model.lock(), B);
        thread.join().unwrap();
        let _held = model.lock().try_lock(B).unwrap();
        assert_eq!(model.add(), 5);
    });
}

#[test]
fn three_who_wait_for_it_get_it() {
    bounded(Some(2), || {
        let model = Model::new();
        let once = |model: &Model, lock: Lock<'_>, me| {
            let _held = wait(&lock, me);
            model.add();
            lock.unlock(me);
        };
        let threads = [A, B].map(|me| spawn(&model, move |m, lock| once(m, lock, me)));
        once(&model, model.lock(), A);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        let _held = model.lock().try_lock(B).unwrap();
        assert_eq!(model.add(), 4);
    });
}

/// Dies holding the lock. It waits for nobody, so that no sleep orders
/// anything; whether it ever had the lock.
fn die_holding(model: &Arc<Model>) -> thread::JoinHandle<bool> {
    spawn(model, |model, lock| {
        lock.try_lock(DEAD).is_ok_and(|_| {
            model.add();
            true
        })
    })
}

#[test]
fn a_waiter_gets_a_dead_owners_lock_poisoned_with_all_it_did() {
    check(|| {
        let model = Model::new();
        let dead = die_holding(&model);
        let waiter = spawn(&model, |model, lock| {
            let acquired = wait(&lock, B);
            let count = model.add();
            // Either before the other came, or after it was recovered.
            assert_eq!(count, 1 + u32::from(acquired.poisoned));
            lock.clear_poison(B);
            lock.unlock(B);
        });
        let held = dead.join().unwrap();
        let lock = model.lock();
        assert!(!lock.recover(A), "never touches a word that names another");
        assert_eq!(lock.recover(DEAD), held);
        waiter.join().unwrap();
        assert_eq!(lock.owner(), None);
    });
}

/// The same, by the lock's word alone: the next owner comes before anybody
/// is woken, and never sleeps.
#[test]
fn a_dead_owners_successor_sees_all_it_did() {
    check(|| {
        let model = Model::new();
        let dead = spawn(&model, |model, lock| {
            let _dies = lock.try_lock(DEAD).unwrap();
            model.add();
        });
        let recoverer = spawn(&model, |_, lock| {
            dead.join().unwrap();
            assert!(lock.reclaim(DEAD));
        });
        let lock = model.lock();
        // Learns nothing from the wait.
        while !lock.is_poisoned() {
            thread::yield_now();
        }
        assert!(lock.try_lock(B).unwrap().poisoned);
        assert_eq!(model.add(), 2);
        recoverer.join().unwrap();
    });
}

#[test]
fn two_recoverers_free_it_once_and_never_a_new_owners() {
    check(|| {
        let model = Model::new();
        let _dies = model.lock().try_lock(DEAD).unwrap();
        let recoverers = [(); 2].map(|()| spawn(&model, |_, lock| lock.recover(DEAD)));
        let lock = model.lock();
        let mine = match lock.try_lock(A) {
            Ok(acquired) => {
                assert!(acquired.poisoned);
                model.add();
                true
            }
            Err(NoLock::Held(owner)) => {
                assert_eq!(owner, DEAD);
                false
            }
            Err(NoLock::Corrupt(error)) => panic!("{error}"),
        };
        let freed = recoverers.map(|thread| u32::from(thread.join().unwrap()));
        assert_eq!(freed[0] + freed[1], 1);
        assert_eq!(lock.owner(), mine.then_some(A));
        assert!(lock.is_poisoned());
    });
}

#[test]
fn a_sleeper_is_woken_when_the_owner_died_between_unlock_and_wake() {
    check(|| {
        let model = Model::new();
        let dead = spawn(&model, |model, lock| {
            if lock.try_lock(DEAD).is_ok() {
                model.add();
                lock.give_back(DEAD);
            }
        });
        let waiter = spawn(&model, |model, lock| {
            assert!(!wait(&lock, B).poisoned);
            model.add();
            lock.unlock(B);
        });
        dead.join().unwrap();
        assert!(!model.lock().recover(DEAD));
        waiter.join().unwrap();
    });
}

#[test]
fn a_sleeper_is_woken_when_the_recoverer_died_before_it_woke_anybody() {
    check(|| {
        let model = Model::new();
        let _dies = model.lock().try_lock(DEAD).unwrap();
        let recoverer = spawn(&model, |_, lock| assert!(lock.reclaim(DEAD)));
        let waiter = spawn(&model, |_, lock| {
            assert!(wait(&lock, B).poisoned);
            lock.unlock(B);
        });
        recoverer.join().unwrap();
        assert!(!model.lock().recover(DEAD));
        waiter.join().unwrap();
    });
}
