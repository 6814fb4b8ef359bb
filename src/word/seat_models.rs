use super::*;
use crate::sync::Witness;
use loom::thread;
use std::sync::Arc;

const A: Owner = Owner::new(1).unwrap();
const B: Owner = Owner::new(2).unwrap();

struct Model {
    word: AtomicU64,
    /// What the holder works on.
    work: Witness,
}

impl Model {
    fn new() -> Arc<Model> {
        Arc::new(Model { word: Seat::fresh(), work: Witness::default() })
    }
}

#[test]
fn the_other_side_of_a_seat_that_was_left_sees_all_that_was_done() {
    loom::model(|| {
        let model = Model::new();
        let other = Arc::clone(&model);
        let holder = thread::spawn(move || {
            let seat = Seat::new(&other.word);
            assert!(seat.take(A, 1).is_ok());
            other.work.write();
            seat.leave();
        });
        if Seat::new(&model.word).state() == State::Left {
            model.work.read();
        }
        holder.join().unwrap();
    });
}

#[test]
fn a_successor_sees_all_that_was_done() {
    loom::model(|| {
        let model = Model::new();
        let other = Arc::clone(&model);
        let holder = thread::spawn(move || {
            let seat = Seat::new(&other.word);
            if seat.take(A, 1).is_ok() {
                other.work.write();
                seat.leave();
            }
        });
        let seat = Seat::new(&model.word);
        if seat.take(B, 2).is_ok() {
            model.work.write();
            seat.leave();
        }
        holder.join().unwrap();
    });
}

#[test]
fn one_at_a_time_sits_there() {
    loom::model(|| {
        let model = Model::new();
        let takers = [A, B].map(|me| {
            let model = Arc::clone(&model);
            thread::spawn(move || Seat::new(&model.word).take(me, 0).is_ok())
        });
        let sat = takers.map(|taker| taker.join().unwrap());
        assert!(sat[0] ^ sat[1]);
    });
}

/// The recoverer learnt of the death by the kernel, here by joining the thread.
fn recovered(then: impl Fn(&Model, Seat<'_>) + Send + Sync + Copy + 'static) {
    loom::model(move || {
        let model = Model::new();
        let other = Arc::clone(&model);
        let dead = thread::spawn(move || {
            assert!(Seat::new(&other.word).take(A, 7).is_ok());
            other.work.write();
        });
        let other = Arc::clone(&model);
        let recoverer = thread::spawn(move || {
            dead.join().unwrap();
            assert!(Seat::new(&other.word).recover(A));
        });
        then(&model, Seat::new(&model.word));
        recoverer.join().unwrap();
    });
}

#[test]
fn the_other_side_of_a_dead_holder_sees_all_that_was_done() {
    recovered(|model, seat| {
        if seat.state() == State::Died(7) {
            model.work.read();
        }
    });
}

#[test]
fn a_dead_holders_successor_sees_all_that_was_done() {
    recovered(|model, seat| {
        if matches!(seat.state(), State::Died(_)) && seat.take(B, 2).is_ok() {
            model.work.write();
        }
    });
}
