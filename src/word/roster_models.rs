//! Loom models of a roster, each named after what it shows.
//!
//! A thread stands for a process. It dies by doing nothing more, or at one of
//! the named points; its recoverer joins it first, as a free lease would tell.

use super::*;
use crate::memory::Heap;
use crate::sync::{AtomicU32, Witness, die_at};
use crate::wait::{Event, Look, Patience, Waiter};
use loom::thread;
use std::sync::Arc;

const PARTICIPANTS: usize = 3;
const A: Owner = Owner::new(1).unwrap();
const B: Owner = Owner::new(2).unwrap();
const C: Owner = Owner::new(3).unwrap();

struct Model {
    heap: Heap,
    /// A ring of one slot: the slot's word, and what is in it.
    slot: AtomicU32,
    payload: Witness,
    event: Event,
}

const FREE: u32 = 0;
const WRITING: u32 = 1;
const FULL: u32 = 2;
const POISON: u32 = 3;

#[derive(Debug, PartialEq, Eq)]
enum Found {
    Message,
    NotNow,
    Over,
}

impl Model {
    /// A roster that these senders have entered.
    fn new(senders: &[Owner]) -> Arc<Model> {
        let heap = Heap::zeroed(len(PARTICIPANTS).unwrap());
        // SAFETY: the block is the model's own.
        unsafe { Roster::init(heap.region(), PARTICIPANTS) };
        let slot = AtomicU32::new(FREE);
        let model = Model { heap, slot, payload: Witness::default(), event: Event::default() };
        for &sender in senders {
            model.roster().enter(sender, Role::Sender).unwrap();
        }
        Arc::new(model)
    }

    /// The same, with the flag up that a late leaver sets although somebody has
    /// entered since.
    fn stale(senders: &[Owner]) -> Arc<Model> {
        let model = Model::new(senders);
        let flags = &model.roster().header.flags;
        flags.fetch_or(Role::Sender.gone(), Ordering::Relaxed);
        model
    }

    fn roster(&self) -> Roster<'_> {
        // SAFETY: initialised in `new` for as many participants.
        unsafe { Roster::attach(self.heap.region(), PARTICIPANTS, false) }
    }

    fn is_gone(&self) -> bool {
        self.roster().is_gone(Role::Sender)
    }

    fn enter(&self, me: Owner) {
        self.roster().enter(me, Role::Sender).unwrap();
    }

    /// Leaves, and wakes whoever waits for that.
    fn leave(&self, me: Owner) -> bool {
        let gone = self.roster().leave(me, Role::Sender);
        if gone {
            Waiter::new(&self.event, false).wake();
        }
        gone
    }

    fn publish(&self) {
        self.payload.write();
        self.slot.store(FULL, Ordering::Release);
    }

    /// As a queue's sender does; whether the message was accepted.
    fn send(&self) -> bool {
        if self.roster().is_closed() {
            return false;
        }
        self.slot.store(WRITING, Ordering::Relaxed);
        if self.roster().is_closed_after_claim() {
            self.slot.store(POISON, Ordering::Release);
            return false;
        }
        self.publish();
        true
    }

    fn look(&self) -> Found {
        match self.slot.load(Ordering::Acquire) {
            FULL => {
                self.payload.read();
                Found::Message
            }
            WRITING => Found::NotNow,
            _ if self.roster().is_closed() || self.is_gone() => Found::Over,
            _ => Found::NotNow,
        }
    }

    /// As a queue's receiver does.
    fn receive(&self) -> Found {
        match self.look() {
            Found::Over => {
                self.roster().before_last_look();
                self.look()
            }
            found => found,
        }
    }
}

fn spawn<R: 'static>(
    model: &Arc<Model>,
    f: impl FnOnce(&Model) -> R + 'static,
) -> thread::JoinHandle<R> {
    let model = model.clone();
    thread::spawn(move || f(&model))
}

/// Every schedule.
fn check(f: impl Fn() + Sync + Send + 'static) {
    loom::model(f);
}

/// Every schedule with at most three preemptions.
fn bounded(f: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(f);
}

#[test]
fn nothing_is_accepted_after_a_receiver_found_it_closed() {
    check(|| {
        let model = Model::new(&[A]);
        let sender = spawn(&model, Model::send);
        let closer = spawn(&model, |m| m.roster().close());
        let found = model.receive();
        let accepted = sender.join().unwrap();
        closer.join().unwrap();
        assert!(!(found == Found::Over && accepted), "accepted, and nobody will receive it");
    });
}

#[test]
fn what_was_sent_before_the_close_is_found() {
    check(|| {
        let model = Model::new(&[A]);
        let sender = spawn(&model, |m| {
            assert!(m.send());
            m.roster().close();
        });
        assert_ne!(model.receive(), Found::Over);
        sender.join().unwrap();
    });
}

#[test]
fn what_was_sent_before_the_last_left_is_found() {
    check(|| {
        let model = Model::new(&[A]);
        let sender = spawn(&model, |m| {
            assert!(m.send());
            m.leave(A);
        });
        assert_ne!(model.receive(), Found::Over);
        sender.join().unwrap();
    });
}

#[test]
fn what_the_leavers_published_is_visible_when_they_are_gone() {
    for model in [Model::new, Model::stale] {
        bounded(move || {
            let model = model(&[A, B]);
            let first = spawn(&model, |m| {
                m.payload.write();
                m.leave(A);
            });
            let second = spawn(&model, |m| m.leave(B));
            if model.is_gone() {
                model.payload.read();
            }
            first.join().unwrap();
            second.join().unwrap();
        });
    }
}

#[test]
fn what_the_dead_published_is_visible_when_they_are_gone() {
    for model in [Model::new, Model::stale] {
        check(move || {
            let model = model(&[A]);
            let dead = spawn(&model, |m| m.payload.write());
            let recoverer = spawn(&model, |m| {
                dead.join().unwrap();
                assert!(m.roster().expel(A));
            });
            if model.is_gone() {
                model.payload.read();
            }
            recoverer.join().unwrap();
        });
    }
}

#[test]
fn of_two_that_leave_at_once_one_knows_that_it_was_the_last() {
    for second in [A, B] {
        check(move || {
            let model = Model::new(&[A, second]);
            let other = spawn(&model, move |m| m.leave(second));
            let mine = model.leave(A);
            assert!(other.join().unwrap() | mine);
            assert!(model.is_gone());
        });
    }
}

#[test]
fn of_a_leaver_and_the_recoverer_of_a_dead_one_knows_that_it_was_the_last() {
    check(|| {
        let model = Model::new(&[A, B]);
        let leaver = spawn(&model, |m| m.leave(B));
        let expelled = model.roster().expel(A);
        assert!(leaver.join().unwrap() | expelled);
        assert!(model.is_gone());
    });
}

#[test]
fn whoever_died_while_leaving_is_made_up_for() {
    // Two leave at once: the one that dies may have been the one to say so.
    for point in ["leave.word", "settle.gone"] {
        check(move || {
            let model = Model::new(&[A, B]);
            let leaver = spawn(&model, |m| m.leave(B));
            let dead = spawn(&model, move |m| {
                die_at(point, 1, || m.leave(A));
            });
            dead.join().unwrap();
            let expelled = model.roster().expel(A);
            assert!(leaver.join().unwrap() | expelled);
            assert!(model.is_gone());
        });
    }
}

#[test]
fn whoever_died_while_entering_is_made_up_for() {
    for point in ["enter.ever", "enter.word", "enter.flag", "enter.counted"] {
        check(move || {
            let model = Model::new(&[A]);
            let leaver = spawn(&model, |m| m.leave(A));
            let dead = spawn(&model, move |m| {
                assert!(die_at(point, 1, || m.enter(B)).is_none());
            });
            dead.join().unwrap();
            let expelled = model.roster().expel(B);
            assert!(leaver.join().unwrap() | expelled);
            assert!(model.is_gone());
        });
    }
}

#[test]
fn whoever_died_while_recovering_is_made_up_for() {
    for point in ["expel.word", "settle.gone"] {
        check(move || {
            let model = Model::new(&[A, B]);
            let leaver = spawn(&model, |m| m.leave(B));
            let dead = spawn(&model, move |m| {
                die_at(point, 1, || m.roster().expel(A));
            });
            dead.join().unwrap();
            let expelled = model.roster().expel(A);
            assert!(leaver.join().unwrap() | expelled);
            assert!(model.is_gone());
        });
    }
}

#[test]
fn whoever_enters_while_the_last_one_leaves_is_there_and_can_leave() {
    check(|| {
        let model = Model::new(&[A]);
        let leaver = spawn(&model, |m| m.leave(A));
        model.enter(B);
        assert!(!model.is_gone());
        leaver.join().unwrap();
        assert!(!model.is_gone());
        assert!(model.leave(B));
        assert!(model.is_gone());
    });
}

#[test]
fn a_role_that_is_handed_on_is_never_gone() {
    // The one who comes has a word that is looked at before that of the one who
    // goes.
    check(|| {
        let model = Model::stale(&[B]);
        let handover = spawn(&model, |m| {
            m.enter(A);
            m.leave(B);
        });
        assert!(!model.is_gone());
        handover.join().unwrap();
        assert!(!model.is_gone());
    });
}

#[test]
fn a_role_that_is_handed_on_is_never_gone_whoever_else_leaves() {
    bounded(|| {
        let model = Model::stale(&[B, C]);
        let leaver = spawn(&model, |m| m.leave(C));
        let handover = spawn(&model, |m| {
            m.enter(A);
            m.leave(B);
        });
        assert!(!model.is_gone());
        handover.join().unwrap();
        leaver.join().unwrap();
        assert!(!model.is_gone());
    });
}

#[test]
fn a_receiver_never_finds_the_end_while_the_role_is_handed_on() {
    bounded(|| {
        let model = Model::stale(&[B, C]);
        let leaver = spawn(&model, |m| m.leave(C));
        let handover = spawn(&model, |m| {
            m.enter(A);
            m.leave(B);
        });
        assert_eq!(model.receive(), Found::NotNow);
        handover.join().unwrap();
        leaver.join().unwrap();
    });
}

#[test]
fn who_enters_in_another_role_hides_no_end() {
    check(|| {
        let model = Model::new(&[A]);
        model.leave(A);
        let receiver = spawn(&model, |m| m.roster().enter(B, Role::Receiver).unwrap());
        assert!(model.is_gone());
        receiver.join().unwrap();
        assert!(model.is_gone());
    });
}

/// Sleeps until all senders are gone.
fn await_the_end(model: &Model) {
    let look = || if model.is_gone() { Look::Ready(()) } else { Look::NotYet };
    assert!(
        Waiter::new(&model.event, false).until(None, &Patience::new(), look, |_| false).is_some()
    );
}

#[test]
fn the_last_to_leave_wakes_who_waits_for_the_end() {
    for model in [Model::new, Model::stale] {
        bounded(move || {
            let model = model(&[A, B]);
            let leavers = [A, B].map(|owner| spawn(&model, move |m| m.leave(owner)));
            await_the_end(&model);
            for leaver in leavers {
                leaver.join().unwrap();
            }
        });
    }
}

#[test]
fn one_who_came_and_went_leaves_nobody_asleep() {
    for model in [Model::new, Model::stale] {
        bounded(move || {
            let model = model(&[B]);
            let leaver = spawn(&model, |m| m.leave(B));
            let guest = spawn(&model, |m| {
                m.enter(A);
                m.leave(A);
            });
            await_the_end(&model);
            leaver.join().unwrap();
            guest.join().unwrap();
        });
    }
}
