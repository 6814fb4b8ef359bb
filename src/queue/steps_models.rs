//! Loom models of a queue's steps, each named after what it shows.
//!
//! A thread stands for a process, and dies at one of the named points; whoever
//! recovers it joins it first, as a free lease would tell. Nothing times out, so
//! a wake-up that is lost shows as a deadlock.

use super::*;
use crate::memory::{Heap, Region};
use crate::queue::{Parts, QueueOptions, declare, init};
use crate::shm::catalog::Object;
use crate::sync::{Ordering, Witness, die_at};
use crate::wait::{Look, Patience};
use loom::sync::atomic::AtomicU32;
use loom::thread;
use std::sync::Arc;

const PARTICIPANTS: usize = 3;
const A: Owner = Owner::new(1).unwrap();
const B: Owner = Owner::new(2).unwrap();
const DEAD: Owner = Owner::new(3).unwrap();

struct Model {
    heap: Heap,
    object: Object,
    /// What a thread tells another outside of the queue; orders nothing.
    told: AtomicU32,
}

impl Model {
    /// A queue that A and the dead one may send to.
    fn new(slots: usize, delivery: Delivery) -> Arc<Model> {
        let object = declare::<u64>("queue", QueueOptions::new(slots).delivery(delivery));
        let heap = Heap::zeroed(Parts::of(&object, PARTICIPANTS).unwrap().len);
        // SAFETY: the block is the model's own, and as long as the parts.
        unsafe { init(&object, heap.region(), PARTICIPANTS) };
        let model = Arc::new(Model { heap, object, told: AtomicU32::new(0) });
        for sender in [A, DEAD] {
            model.core().roster.enter(sender, Role::Sender).unwrap();
        }
        model
    }

    fn core(&self) -> Core {
        let region = self.heap.region();
        // SAFETY: every user of the core holds the model meanwhile; initialised
        // in `new`.
        unsafe {
            let region = Region::from_raw(region.base(), region.len());
            Core::over(region, &self.object, PARTICIPANTS, false).unwrap()
        }
    }

    fn tell(&self) {
        self.told.store(1, Ordering::Relaxed);
    }

    fn await_told(&self) {
        while self.told.load(Ordering::Relaxed) == 0 {
            thread::yield_now();
        }
    }
}

fn spawn<R: 'static>(
    model: &Arc<Model>,
    f: impl FnOnce(&Model, &Core) -> R + 'static,
) -> thread::JoinHandle<R> {
    let model = model.clone();
    thread::spawn(move || f(&model, &model.core()))
}

/// Every schedule with at most so many preemptions.
fn bounded(preemptions: usize, f: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(f);
}

/// The outcome of a step, if it is not an error.
#[derive(Debug, PartialEq, Eq)]
enum Done {
    Sent,
    Got(u64),
    NotNow,
    Over,
}

fn refused(refusal: Refusal) -> Done {
    match refusal {
        Refusal::NotNow(_) => Done::NotNow,
        Refusal::Over => Done::Over,
        Refusal::Failed(error) => panic!("{error}"),
    }
}

fn try_send(core: &Core, me: Owner, value: u64) -> Done {
    // As the handles do: the usual case first.
    match core.claim_at_hint(me).map_or_else(|| core.claim(me), Ok) {
        Ok(claim) => {
            // SAFETY: the claim holds a u64.
            unsafe { claim.payload().cast::<u64>().write(value) };
            core.commit(claim);
            Done::Sent
        }
        Err(refusal) => refused(refusal),
    }
}

fn try_receive(core: &Core, me: Owner) -> Done {
    let searched = Cell::new(None);
    match core.take_at_hint(me, &searched).map_or_else(|| core.take(me, &searched), Ok) {
        Ok(taken) => {
            // SAFETY: a published u64, held.
            let value = unsafe { taken.payload().cast::<u64>().read() };
            core.release(taken);
            Done::Got(value)
        }
        Err(refusal) => refused(refusal),
    }
}

fn look(done: Done) -> Look<Done> {
    if done == Done::NotNow { Look::NotYet } else { Look::Ready(done) }
}

/// Sends, asleep while there is no room.
fn send(core: &Core, me: Owner, value: u64) -> Done {
    core.writable
        .until(None, &Patience::new(), || look(try_send(core, me, value)), |_| false)
        .unwrap()
}

/// Receives, asleep while there is nothing.
fn receive(core: &Core, me: Owner) -> Done {
    core.readable.until(None, &Patience::new(), || look(try_receive(core, me)), |_| false).unwrap()
}

// ---------------------------------------------------------------------------
// The end
// ---------------------------------------------------------------------------

#[test]
fn nothing_is_accepted_after_a_receiver_found_it_closed() {
    bounded(3, || {
        let model = Model::new(1, Delivery::AtMostOnce);
        let sender = spawn(&model, |_, core| try_send(core, A, 1));
        let closer = spawn(&model, |_, core| core.roster.close());
        let core = model.core();
        let found = try_receive(&core, B);
        closer.join().unwrap();
        let sent = sender.join().unwrap();
        match found {
            Done::Over => assert_eq!(sent, Done::Over, "accepted, and nobody will receive it"),
            Done::Got(_) => assert_eq!(sent, Done::Sent),
            _ => assert_eq!(try_receive(&core, B) == Done::Got(1), sent == Done::Sent),
        }
        assert_eq!(try_receive(&core, B), Done::Over);
    });
}

#[test]
fn no_run_is_accepted_after_a_receiver_found_it_closed() {
    bounded(3, || {
        // In runs of two.
        let model = Model::new(4, Delivery::AtMostOnce);
        let sender = spawn(&model, |_, core| {
            let Some(run) = core.claim_run(A, 2) else { return false };
            core.ring.commit_run(run, |nth, to| {
                // SAFETY: a u64 of the run.
                unsafe { to.cast::<u64>().write(nth as u64) };
            });
            core.readable.notify();
            true
        });
        let closer = spawn(&model, |_, core| core.roster.close());
        let core = model.core();
        let found = try_receive(&core, B);
        closer.join().unwrap();
        let sent = sender.join().unwrap();
        match found {
            Done::Over => assert!(!sent, "accepted, and nobody will receive it"),
            Done::Got(nth) => assert!(sent && nth == 0),
            _ => assert_eq!(try_receive(&core, B) == Done::Got(0), sent),
        }
        assert_eq!(try_receive(&core, B) == Done::Got(1), sent);
        assert_eq!(try_receive(&core, B), Done::Over);
    });
}

/// A sender in the midst of `send_many`, which wakes nobody yet, and a receiver that holds
/// the first message when the queue is closed.
#[test]
fn what_a_run_brought_is_received_before_the_end() {
    bounded(4, || {
        let model = Model::new(4, Delivery::AtMostOnce);
        let reader = spawn(&model, |_, core| {
            while !core.roster.is_closed() {
                thread::yield_now();
            }
            assert_ne!(try_receive(core, B), Done::Over);
        });
        let sender = spawn(&model, |_, core| {
            let run = core.claim_run(A, 2).unwrap();
            core.ring.commit_run(run, |nth, to| {
                // SAFETY: a u64 of the run.
                unsafe { to.cast::<u64>().write(nth as u64 + 1) };
            });
        });
        sender.join().unwrap();
        let core = model.core();
        std::mem::forget(core.take_at_hint(DEAD, &Cell::new(None)).unwrap());
        core.roster.close();
        reader.join().unwrap();
    });
}

#[test]
fn what_was_sent_before_the_end_is_received_before_it() {
    // The end is that somebody closes, that all leave, or that the last dies.
    for end in 0..3 {
        bounded(3, move || {
            let model = Model::new(1, Delivery::AtMostOnce);
            let sender = spawn(&model, move |_, core| {
                core.roster.leave(DEAD, Role::Sender);
                assert_eq!(try_send(core, A, 1), Done::Sent);
                match end {
                    0 => core.roster.close(),
                    1 => core.leave(A, Role::Sender),
                    _ => core.recover(A),
                }
            });
            let core = model.core();
            assert_eq!(receive(&core, B), Done::Got(1));
            sender.join().unwrap();
            assert_eq!(try_receive(&core, B), Done::Over);
        });
    }
}

#[test]
fn the_end_wakes_who_sleeps() {
    // A receiver of an empty queue, or a sender to a full one.
    for (full, by_hand) in [(false, true), (false, false), (true, true)] {
        bounded(3, move || {
            let model = Model::new(1, Delivery::AtMostOnce);
            if full {
                assert_eq!(try_send(&model.core(), A, 1), Done::Sent);
            }
            let sleeper = spawn(&model, move |_, core| {
                let done = if full { send(core, A, 2) } else { receive(core, B) };
                assert_eq!(done, Done::Over);
            });
            let core = model.core();
            if by_hand {
                core.close();
            } else {
                core.leave(A, Role::Sender);
                core.leave(DEAD, Role::Sender);
            }
            sleeper.join().unwrap();
        });
    }
}

// ---------------------------------------------------------------------------
// Sleep
// ---------------------------------------------------------------------------

#[test]
fn a_commit_wakes_a_sleeping_receiver() {
    bounded(3, || {
        let model = Model::new(1, Delivery::AtMostOnce);
        let receiver = spawn(&model, |_, core| receive(core, B));
        assert_eq!(try_send(&model.core(), A, 1), Done::Sent);
        assert_eq!(receiver.join().unwrap(), Done::Got(1));
    });
}

#[test]
fn a_release_wakes_a_sleeping_sender() {
    bounded(3, || {
        let model = Model::new(1, Delivery::AtMostOnce);
        assert_eq!(try_send(&model.core(), A, 1), Done::Sent);
        let sender = spawn(&model, |_, core| send(core, A, 2));
        let core = model.core();
        assert_eq!(try_receive(&core, B), Done::Got(1));
        assert_eq!(sender.join().unwrap(), Done::Sent);
        assert_eq!(try_receive(&core, B), Done::Got(2));
    });
}

#[test]
fn both_sides_of_a_full_queue_wake_each_other() {
    bounded(2, || {
        let model = Model::new(1, Delivery::AtMostOnce);
        let sender = spawn(&model, |_, core| {
            (1..=3).for_each(|i| assert_eq!(send(core, A, i), Done::Sent));
        });
        let core = model.core();
        (1..=3).for_each(|i| assert_eq!(receive(&core, B), Done::Got(i)));
        sender.join().unwrap();
    });
}

// ---------------------------------------------------------------------------
// Deaths
// ---------------------------------------------------------------------------

#[test]
fn a_receiver_asleep_behind_a_dead_sender_is_woken() {
    // Before its commit the message is lost, after it the wake.
    for point in ["claim.slot", "claim.tail", "commit.slot"] {
        bounded(2, move || {
            let model = Model::new(2, Delivery::AtMostOnce);
            let receiver = spawn(&model, |_, core| receive(core, B));
            let dead = spawn(&model, move |_, core| {
                assert!(die_at(point, 1, || try_send(core, DEAD, 1)).is_none());
            });
            dead.join().unwrap();
            let core = model.core();
            core.recover(DEAD);
            if point != "commit.slot" {
                assert_eq!(try_send(&core, A, 1), Done::Sent);
            }
            assert_eq!(receiver.join().unwrap(), Done::Got(1));
        });
    }
}

#[test]
fn a_sender_asleep_behind_a_dead_receiver_is_woken() {
    for point in ["take.slot", "take.head", "release.slot"] {
        bounded(2, move || {
            let model = Model::new(1, Delivery::AtMostOnce);
            assert_eq!(try_send(&model.core(), A, 1), Done::Sent);
            let sender = spawn(&model, |_, core| send(core, A, 2));
            let dead = spawn(&model, move |_, core| {
                assert!(die_at(point, 1, || try_receive(core, DEAD)).is_none());
            });
            dead.join().unwrap();
            model.core().recover(DEAD);
            assert_eq!(sender.join().unwrap(), Done::Sent);
        });
    }
}

#[test]
fn a_sleeping_receiver_gets_what_a_dead_one_held() {
    for point in ["take.slot", "take.head"] {
        bounded(2, move || {
            let model = Model::new(1, Delivery::AtLeastOnce);
            assert_eq!(try_send(&model.core(), A, 1), Done::Sent);
            assert!(die_at(point, 1, || try_receive(&model.core(), DEAD)).is_none());
            let receiver = spawn(&model, |_, core| receive(core, B));
            model.core().recover(DEAD);
            assert_eq!(receiver.join().unwrap(), Done::Got(1));
        });
    }
}

#[test]
fn one_who_died_waking_others_is_made_up_for() {
    // It was to wake a receiver, after its commit, and had counted already.
    bounded(2, || {
        let model = Model::new(1, Delivery::AtMostOnce);
        let receiver = spawn(&model, |_, core| receive(core, B));
        let dead = spawn(&model, |_, core| {
            die_at("wake.count", 1, || try_send(core, DEAD, 1));
        });
        dead.join().unwrap();
        model.core().recover(DEAD);
        assert_eq!(receiver.join().unwrap(), Done::Got(1));
    });
}

#[test]
fn the_last_senders_death_is_an_end_and_what_it_did_is_visible() {
    bounded(2, || {
        let model = Model::new(1, Delivery::AtMostOnce);
        model.core().leave(A, Role::Sender);
        let work = Arc::new(Witness::default());
        let its = work.clone();
        let dead = spawn(&model, move |model, core| {
            its.write();
            assert!(die_at("leave.word", 1, || core.leave(DEAD, Role::Sender)).is_none());
            model.tell();
        });
        let recoverer = spawn(&model, |_, core| {
            dead.join().unwrap();
            core.recover(DEAD);
        });
        model.await_told();
        assert_eq!(receive(&model.core(), B), Done::Over);
        work.read();
        recoverer.join().unwrap();
    });
}
