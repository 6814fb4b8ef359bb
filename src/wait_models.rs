//! Loom models of an event, each named after what it shows.
//!
//! Nothing times out under loom, so a wake-up that is lost leaves its sleeper
//! asleep for ever, and loom reports a deadlock.

use super::*;
use crate::sync::AtomicU32;
use loom::thread;
use std::sync::Arc;

struct Model {
    event: Event,
    asymmetric: bool,
    /// What is waited for.
    news: AtomicU32,
}

impl Model {
    fn new() -> Arc<Model> {
        Model::of(false)
    }

    /// With barriers of either kind, which for models are both fences, but in other places.
    fn of(asymmetric: bool) -> Arc<Model> {
        Arc::new(Model { event: Event::default(), asymmetric, news: AtomicU32::new(0) })
    }

    fn waiter(&self) -> Waiter<'_> {
        Waiter::new(&self.event, self.asymmetric)
    }

    /// Sleeps until there was this much news.
    fn sleep(&self, wanted: u32) {
        let look = || match self.news.load(Ordering::Relaxed) {
            news if news >= wanted => Look::Ready(()),
            _ => Look::NotYet,
        };
        assert!(self.waiter().until(None, &Patience::new(), look, |_| false).is_some());
    }

    fn publish(&self) {
        self.news.fetch_add(1, Ordering::Relaxed);
    }
}

/// Every schedule.
fn check(f: impl Fn() + Sync + Send + 'static) {
    loom::model(f);
}

/// Every schedule with at most three preemptions: three threads have too many.
fn bounded(f: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(f);
}

fn spawn(model: &Arc<Model>, f: impl FnOnce(&Model) + 'static) -> thread::JoinHandle<()> {
    let model = model.clone();
    thread::spawn(move || f(&model))
}

#[test]
fn a_commit_wakes_a_sleeper() {
    for asymmetric in [false, true] {
        check(move || {
            let model = Model::of(asymmetric);
            let sleeper = spawn(&model, |m| m.sleep(1));
            model.publish();
            model.waiter().notify();
            sleeper.join().unwrap();
        });
    }
}

#[test]
fn a_wake_without_notify_wakes_a_sleeper() {
    // As `close` and `recover` do.
    check(|| {
        let model = Model::new();
        let sleeper = spawn(&model, |m| m.sleep(1));
        model.publish();
        model.waiter().wake();
        sleeper.join().unwrap();
    });
}

#[test]
fn a_commit_wakes_two_sleepers() {
    bounded(|| {
        let model = Model::new();
        let sleepers = [(); 2].map(|()| spawn(&model, |m| m.sleep(1)));
        model.publish();
        model.waiter().notify();
        for sleeper in sleepers {
            sleeper.join().unwrap();
        }
    });
}

#[test]
fn two_notifiers_wake_a_sleeper_that_needs_both() {
    // One of them loses the race in `wake`.
    bounded(|| {
        let model = Model::new();
        let sleeper = spawn(&model, |m| m.sleep(2));
        let other = spawn(&model, |m| {
            m.publish();
            m.waiter().notify();
        });
        model.publish();
        model.waiter().notify();
        other.join().unwrap();
        sleeper.join().unwrap();
    });
}

#[test]
fn two_wakers_do_not_hide_a_sleeper_from_each_other() {
    // The unconditional form: an outdated look at the word makes it lose the
    // race against a sleeper's flag.
    bounded(|| {
        let model = Model::new();
        let sleeper = spawn(&model, |m| m.sleep(2));
        let other = spawn(&model, |m| {
            m.publish();
            m.waiter().wake();
        });
        model.publish();
        model.waiter().wake();
        other.join().unwrap();
        sleeper.join().unwrap();
    });
}

#[test]
fn two_notifiers_wake_two_sleepers() {
    bounded(|| {
        let model = Model::new();
        let sleepers = [1, 2].map(|wanted| spawn(&model, move |m| m.sleep(wanted)));
        let other = spawn(&model, |m| {
            m.publish();
            m.waiter().notify();
        });
        model.publish();
        model.waiter().notify();
        other.join().unwrap();
        for sleeper in sleepers {
            sleeper.join().unwrap();
        }
    });
}

#[test]
fn a_sleeper_and_its_waker_may_change_places() {
    // Ping-pong: the flag that one round leaves behind is still good in the
    // next.
    for asymmetric in [false, true] {
        check(move || {
            let (ping, pong) = (Model::of(asymmetric), Model::of(asymmetric));
            let (its_ping, its_pong) = (ping.clone(), pong.clone());
            let other = thread::spawn(move || {
                its_ping.sleep(1);
                its_pong.publish();
                its_pong.waiter().notify();
                its_ping.sleep(2);
            });
            ping.publish();
            ping.waiter().notify();
            pong.sleep(1);
            ping.publish();
            ping.waiter().notify();
            other.join().unwrap();
        });
    }
}

#[test]
fn what_was_published_is_there_after_the_wake() {
    // The word orders nothing by itself: what is waited for does.
    check(|| {
        let model = Arc::new((Event::default(), AtomicU32::new(0), sync::Witness::default()));
        let its = model.clone();
        let sleeper = thread::spawn(move || {
            let look = || match its.1.load(Ordering::Acquire) {
                0 => Look::NotYet,
                _ => Look::Ready(()),
            };
            Waiter::new(&its.0, false).until(None, &Patience::new(), look, |_| false);
            its.2.read();
        });
        model.2.write();
        model.1.store(1, Ordering::Release);
        Waiter::new(&model.0, false).notify();
        sleeper.join().unwrap();
    });
}
