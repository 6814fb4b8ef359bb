//! Loom models of a seat, each named after what it shows.
//!
//! A thread stands for a process. Who looks at the seat waits until it sees what
//! the model is about: a single look would leave it to loom's reduction, which
//! remembers one access of a word, whether that outcome is ever tried.

use super::*;
use crate::sync::Witness;
use loom::thread;
use std::sync::Arc;

const A: Owner = Owner::new(1).unwrap();
const B: Owner = Owner::new(2).unwrap();
const C: Owner = Owner::new(3).unwrap();

struct Model {
    word: AtomicU64,
    /// What the holder works on.
    work: Witness,
}

impl Model {
    fn new() -> Arc<Model> {
        Arc::new(Model { word: Seat::fresh(), work: Witness::default() })
    }

    /// Takes the seat, works, and says whether it got that far.
    fn work(&self, me: Owner) -> bool {
        let sat = Seat::new(&self.word).take(me, 7).is_ok();
        if sat {
            self.work.write();
        }
        sat
    }

    /// Waits until the seat is so, learning nothing else from it.
    fn until(&self, state: State) {
        while judge(self.word.load(Ordering::Relaxed)) != state {
            thread::yield_now();
        }
    }
}

fn spawn<R: 'static>(
    model: &Arc<Model>,
    f: impl FnOnce(&Model, Seat<'_>) -> R + 'static,
) -> thread::JoinHandle<R> {
    let model = Arc::clone(model);
    thread::spawn(move || f(&model, Seat::new(&model.word)))
}

#[test]
fn the_other_side_of_a_seat_that_was_left_sees_all_that_was_done() {
    loom::model(|| {
        let model = Model::new();
        let holder = spawn(&model, |model, seat| {
            assert!(model.work(A));
            seat.leave();
        });
        while Seat::new(&model.word).state() != State::Left {
            thread::yield_now();
        }
        model.work.read();
        holder.join().unwrap();
    });
}

#[test]
fn a_successor_sees_all_that_was_done() {
    loom::model(|| {
        let model = Model::new();
        let holder = spawn(&model, |model, seat| {
            assert!(model.work(A));
            seat.leave();
        });
        model.until(State::Left);
        assert!(model.work(B));
        holder.join().unwrap();
    });
}

#[test]
fn two_who_take_turns_work_one_at_a_time() {
    loom::model(|| {
        let model = Model::new();
        let other = spawn(&model, |model, seat| {
            if model.work(A) {
                seat.leave();
            }
        });
        if model.work(B) {
            Seat::new(&model.word).leave();
        }
        other.join().unwrap();
        assert_eq!(Seat::new(&model.word).state(), State::Left);
    });
}

/// One who took a seat that was left, and can't stay, says all over again what
/// its predecessor said.
#[test]
fn a_seat_that_is_put_back_is_as_it_was_left() {
    for successor in [false, true] {
        loom::model(move || {
            let model = Model::new();
            let holder = spawn(&model, |model, seat| {
                assert!(model.work(A));
                seat.leave();
            });
            let put_back = Arc::new(AtomicU64::new(0));
            let told = Arc::clone(&put_back);
            let guest = spawn(&model, move |model, seat| {
                model.until(State::Left);
                let before = seat.take(B, 8).unwrap_or_else(|_| unreachable!("nobody else comes"));
                seat.put_back(before);
                told.store(1, Ordering::Relaxed);
            });
            while put_back.load(Ordering::Relaxed) == 0 {
                thread::yield_now();
            }
            if successor {
                // A look at the word may be as old as the first holder.
                while !model.work(C) {
                    thread::yield_now();
                }
            } else {
                while Seat::new(&model.word).state() != State::Left {
                    thread::yield_now();
                }
                model.work.read();
            }
            holder.join().unwrap();
            guest.join().unwrap();
            assert_eq!(Seat::new(&model.word).pid(), 7);
        });
    }
}

#[test]
fn one_at_a_time_sits_there() {
    loom::model(|| {
        let model = Model::new();
        let takers = [A, B].map(|me| spawn(&model, move |model, _| model.work(me)));
        let sat = takers.map(|taker| taker.join().unwrap());
        assert!(sat[0] ^ sat[1]);
    });
}

/// The recoverer learnt of the death by the kernel, here by joining the thread.
fn recovered(then: impl Fn(&Model, Seat<'_>) + Send + Sync + Copy + 'static) {
    loom::model(move || {
        let model = Model::new();
        let dead = spawn(&model, |model, _| assert!(model.work(A)));
        let recoverer = spawn(&model, |_, seat| {
            dead.join().unwrap();
            assert!(!seat.recover(B), "never touches a word that names another");
            assert!(seat.recover(A));
        });
        then(&model, Seat::new(&model.word));
        recoverer.join().unwrap();
    });
}

#[test]
fn the_other_side_of_a_dead_holder_sees_all_that_was_done() {
    recovered(|model, seat| {
        while seat.state() != State::Died(7) {
            thread::yield_now();
        }
        model.work.read();
    });
}

#[test]
fn a_dead_holders_successor_sees_all_that_was_done() {
    recovered(|model, _| {
        model.until(State::Died(7));
        assert!(model.work(B));
    });
}

#[test]
fn two_recoverers_mark_it_once_and_never_a_successors() {
    loom::model(|| {
        let model = Model::new();
        assert!(model.work(A));
        let recoverers = [(); 2].map(|()| spawn(&model, |_, seat| seat.recover(A)));
        model.until(State::Died(7));
        assert!(model.work(B));
        let marked = recoverers.map(|thread| u32::from(thread.join().unwrap()));
        assert_eq!(marked[0] + marked[1], 1);
        assert_eq!(Seat::new(&model.word).state(), State::Held(B));
    });
}
