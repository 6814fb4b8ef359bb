//! Loom models of the owned-slot ring, each named after what it shows.
//!
//! A thread stands for a process. It dies by doing nothing more, or at one of
//! the named points: what it holds is never committed or released. That it is dead is known to whoever joined
//! it, or found so under a lock, as the kernel's lease would tell.

use super::*;
use crate::memory::Heap;
use crate::position::Laps;
use crate::sync::die_at;
use core::alloc::Layout;
use loom::sync::Mutex;
use loom::thread;
use std::sync::Arc;

struct Model {
    heap: Heap,
    geometry: Geometry,
}

/// A count of slots whose successor is in the first lap again.
fn before_the_wrap(capacity: usize) -> u64 {
    let laps = Laps::new(capacity).unwrap();
    laps.count(laps.at(u64::MAX, capacity - 1))
}

impl Model {
    fn new(capacity: usize, start: u64) -> Arc<Model> {
        let geometry = Geometry::new(capacity, Layout::new::<u64>()).unwrap();
        let heap = Heap::zeroed(geometry.len());
        // SAFETY: the block is the model's own.
        unsafe { Ring::init(heap.region(), geometry, start) };
        Arc::new(Model { heap, geometry })
    }

    fn ring(&self) -> Ring<'_> {
        // SAFETY: initialised in `new` with this geometry.
        unsafe { Ring::attach(self.heap.region(), self.geometry) }
    }
}

fn spawn(model: &Arc<Model>, f: impl FnOnce(Ring<'_>) + 'static) -> thread::JoinHandle<()> {
    let model = model.clone();
    thread::spawn(move || f(model.ring()))
}

/// Every schedule.
fn check(f: impl Fn() + Sync + Send + 'static) {
    bounded(None, f);
}

/// Every schedule with at most so many preemptions.
fn bounded(preemptions: Option<usize>, f: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = preemptions.or(builder.preemption_bound);
    let runs = Arc::new(std::sync::atomic::AtomicU64::new(0));
    let count = runs.clone();
    builder.check(move || {
        count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        f();
    });
    // A model of one schedule shows nothing.
    let runs = runs.load(std::sync::atomic::Ordering::Relaxed);
    println!("{runs} schedules");
    assert!(runs > 1);
}

const A: Owner = Owner::new(1).unwrap();
const B: Owner = Owner::new(2).unwrap();
const C: Owner = Owner::new(3).unwrap();
const DEAD: Owner = Owner::new(9).unwrap();

fn put(claim: &Claim<'_>, value: u64) {
    // SAFETY: the claim holds a u64.
    unsafe { claim.payload().cast::<u64>().write(value) };
}

fn get(taken: &Taken<'_>) -> u64 {
    // SAFETY: a published u64, held.
    unsafe { taken.payload().cast::<u64>().read() }
}

fn try_send(ring: Ring<'_>, me: Owner, value: u64) -> bool {
    match ring.try_claim(me) {
        Ok(claim) => {
            put(&claim, value);
            ring.commit(claim);
            true
        }
        Err(NoClaim::Full(_)) => false,
        Err(NoClaim::Corrupt(e)) => panic!("{e}"),
    }
}

fn send(ring: Ring<'_>, me: Owner, value: u64) {
    while !try_send(ring, me, value) {
        thread::yield_now();
    }
}

fn try_receive(ring: Ring<'_>, me: Owner) -> Option<u64> {
    match ring.try_take(me) {
        Ok(taken) => {
            let value = get(&taken);
            ring.release(taken);
            Some(value)
        }
        Err(NoTake::Corrupt(e)) => panic!("{e}"),
        Err(_) => None,
    }
}

fn receive(ring: Ring<'_>, me: Owner) -> u64 {
    loop {
        match try_receive(ring, me) {
            Some(value) => return value,
            None => thread::yield_now(),
        }
    }
}

/// Claims and dies, before or after the store of the hint.
fn die_claiming(ring: Ring<'_>, hint_stored: bool) {
    let hint = ring.header().tail.load(Ordering::Relaxed);
    put(&ring.try_claim(DEAD).unwrap(), 666);
    if !hint_stored {
        ring.header().tail.store(hint, Ordering::Relaxed);
    }
}

// ---------------------------------------------------------------------------
// All live
// ---------------------------------------------------------------------------

#[test]
fn a_reader_sees_what_the_writer_wrote() {
    check(|| {
        let model = Model::new(2, 0);
        let writer = spawn(&model, |ring| {
            send(ring, A, 1);
            send(ring, A, 2);
        });
        let ring = model.ring();
        assert_eq!((receive(ring, B), receive(ring, B)), (1, 2));
        assert!(matches!(ring.try_take(B), Err(NoTake::Empty(_))));
        writer.join().unwrap();
    });
}

#[test]
fn a_writer_waits_for_the_reader_of_the_lap_before() {
    for start in [0, before_the_wrap(1)] {
        bounded(Some(4), move || {
            let model = Model::new(1, start);
            let writer = spawn(&model, |ring| (1..=3).for_each(|i| send(ring, A, i)));
            let ring = model.ring();
            (1..=3).for_each(|i| assert_eq!(receive(ring, B), i));
            writer.join().unwrap();
        });
    }
}

#[test]
fn laps_wrap_between_two_threads() {
    check(|| {
        let model = Model::new(2, before_the_wrap(2) - 1);
        let writer = spawn(&model, |ring| (1..=3).for_each(|i| send(ring, A, i)));
        let ring = model.ring();
        (1..=3).for_each(|i| assert_eq!(receive(ring, B), i));
        writer.join().unwrap();
    });
}

#[test]
fn two_writers_never_hold_one_slot() {
    for capacity in [1, 2] {
        check(move || {
            let model = Model::new(capacity, 0);
            let sent = Arc::new(Mutex::new(0));
            let writers = [(A, 1), (B, 2)].map(|(me, value)| {
                let sent = sent.clone();
                spawn(&model, move |ring| {
                    let done = try_send(ring, me, value);
                    *sent.lock().unwrap() += if done { value } else { 0 };
                })
            });
            let ring = model.ring();
            let early = try_receive(ring, C).unwrap_or(0);
            writers.into_iter().for_each(|t| t.join().unwrap());
            let late: u64 = std::iter::from_fn(|| try_receive(ring, C)).sum();
            assert_eq!(early + late, *sent.lock().unwrap());
            assert!(capacity == 1 || early + late == 3);
        });
    }
}

#[test]
fn two_readers_never_get_one_message() {
    for capacity in [1, 2] {
        bounded(Some(4), move || {
            let model = Model::new(capacity, 0);
            let got = Arc::new(Mutex::new(0));
            let readers = [A, B].map(|me| {
                let got = got.clone();
                spawn(&model, move |ring| {
                    let value = try_receive(ring, me).unwrap_or(0);
                    *got.lock().unwrap() += value;
                })
            });
            let ring = model.ring();
            let sent: u64 = [1, 2].iter().filter(|v| try_send(ring, C, **v)).sum();
            readers.into_iter().for_each(|t| t.join().unwrap());
            let late: u64 = std::iter::from_fn(|| try_receive(ring, C)).sum();
            assert_eq!(*got.lock().unwrap() + late, sent);
        });
    }
}

#[test]
fn two_writers_and_two_readers_exchange_all() {
    for (capacity, preemptions) in [(1, 2), (2, 3)] {
        bounded(Some(preemptions), move || {
            let model = Model::new(capacity, before_the_wrap(capacity));
            // What was sent, less what was received.
            let left = Arc::new(Mutex::new(0));
            let writer = |me, value| {
                let left = left.clone();
                move |ring: Ring<'_>| {
                    let done = try_send(ring, me, value);
                    *left.lock().unwrap() += if done { value as i64 } else { 0 };
                }
            };
            let reader = |me| {
                let left = left.clone();
                move |ring: Ring<'_>| {
                    let value = try_receive(ring, me).unwrap_or(0);
                    *left.lock().unwrap() -= value as i64;
                }
            };
            let others = [
                spawn(&model, writer(A, 1)),
                spawn(&model, writer(B, 2)),
                spawn(&model, reader(C)),
            ];
            reader(DEAD)(model.ring());
            others.into_iter().for_each(|t| t.join().unwrap());
            let late: u64 = std::iter::from_fn(|| try_receive(model.ring(), C)).sum();
            assert_eq!(*left.lock().unwrap(), late as i64);
        });
    }
}

#[test]
fn an_abandoned_slot_goes_to_the_next_writer() {
    // Freed by that writer itself, or by a reader that skips it.
    for reader in [false, true] {
        bounded(Some(4), move || {
            let model = Model::new(1, 0);
            let quitter = spawn(&model, |ring| {
                if let Ok(claim) = ring.try_claim(A) {
                    put(&claim, 666);
                    ring.abandon(claim);
                }
            });
            let skipper = reader.then(|| {
                spawn(&model, |ring| {
                    if let Ok(taken) = ring.try_take(C) {
                        assert_eq!(get(&taken), 1);
                        std::mem::forget(taken);
                    }
                })
            });
            send(model.ring(), B, 1);
            quitter.join().unwrap();
            if let Some(skipper) = skipper {
                skipper.join().unwrap();
            }
        });
    }
}

#[test]
fn hints_stored_late_cost_steps_only() {
    bounded(Some(3), || {
        let model = Model::new(2, 0);
        let first = model.geometry.laps.at(0, 0);
        for i in 1..=2 {
            send(model.ring(), A, i);
            assert_eq!(receive(model.ring(), B), i);
        }
        // A process that was stopped since its first claim and take.
        let late = spawn(&model, move |ring| {
            ring.header().tail.store(ring.geometry.laps.next(first).0, Ordering::Relaxed);
            ring.header().head.store(first.0, Ordering::Relaxed);
        });
        let writer = spawn(&model, |ring| (3..=4).for_each(|i| send(ring, A, i)));
        (3..=4).for_each(|i| assert_eq!(receive(model.ring(), B), i));
        late.join().unwrap();
        writer.join().unwrap();
        assert!(model.ring().is_empty());
    });
}

// ---------------------------------------------------------------------------
// Runs, of two slots in rings of four
// ---------------------------------------------------------------------------

fn try_send_run(ring: Ring<'_>, me: Owner, values: [u64; 2]) -> bool {
    let Some(run) = ring.claim_run(me, 2) else { return false };
    ring.commit_run(run, |nth, to| {
        // SAFETY: a u64 of the run.
        unsafe { to.cast::<u64>().write(values[nth]) };
    });
    true
}

fn try_receive_run(ring: Ring<'_>, me: Owner) -> Option<[u64; 2]> {
    let run = ring.take_run(me, 2)?;
    let mut values = [0; 2];
    ring.release_run(run, |nth, from| {
        // SAFETY: a published u64 of the run.
        values[nth] = unsafe { from.cast::<u64>().read() };
    });
    Some(values)
}

fn adopt(ring: Ring<'_>, me: Owner) -> Option<u64> {
    let taken = ring.try_adopt(me)?;
    let value = get(&taken);
    ring.release(taken);
    Some(value)
}

/// By runs where there are any.
fn receive_all(ring: Ring<'_>, me: Owner, n: usize) -> Vec<u64> {
    let mut all = Vec::new();
    while all.len() < n {
        match try_receive_run(ring, me) {
            Some(values) => all.extend(values),
            None => match try_receive(ring, me) {
                Some(value) => all.push(value),
                None => thread::yield_now(),
            },
        }
    }
    all
}

#[test]
fn a_run_is_received_as_it_was_sent() {
    for start in [0, before_the_wrap(4) - 1] {
        bounded(Some(3), move || {
            let model = Model::new(4, start);
            let writer = spawn(&model, |ring| assert!(try_send_run(ring, A, [1, 2])));
            assert_eq!(receive_all(model.ring(), B, 2), [1, 2]);
            writer.join().unwrap();
            assert!(model.ring().is_empty());
        });
    }
}

#[test]
fn a_run_is_received_one_by_one() {
    bounded(Some(3), || {
        let model = Model::new(4, 0);
        let writer = spawn(&model, |ring| assert!(try_send_run(ring, A, [1, 2])));
        let ring = model.ring();
        assert_eq!((receive(ring, B), receive(ring, B)), (1, 2));
        writer.join().unwrap();
    });
}

#[test]
fn messages_of_two_senders_are_received_as_a_run() {
    bounded(Some(3), || {
        let model = Model::new(4, 0);
        let one = spawn(&model, |ring| assert!(try_send(ring, A, 1)));
        let two = spawn(&model, |ring| assert!(try_send(ring, B, 2)));
        assert_eq!(receive_all(model.ring(), C, 2).iter().sum::<u64>(), 3);
        one.join().unwrap();
        two.join().unwrap();
    });
}

#[test]
fn a_run_waits_for_the_readers_of_the_lap_before() {
    for in_runs in [false, true] {
        bounded(Some(3), move || {
            let model = Model::new(4, 0);
            (1..=4).for_each(|i| send(model.ring(), A, i));
            let reader = spawn(&model, move |ring| {
                if in_runs {
                    assert_eq!(try_receive_run(ring, B), Some([1, 2]));
                } else {
                    assert_eq!((receive(ring, B), receive(ring, B)), (1, 2));
                }
            });
            while !try_send_run(model.ring(), A, [5, 6]) {
                thread::yield_now();
            }
            reader.join().unwrap();
            assert_eq!(receive_all(model.ring(), B, 4), [3, 4, 5, 6]);
        });
    }
}

#[test]
fn a_slot_of_a_run_goes_to_a_single_claim_of_the_next_lap() {
    bounded(Some(3), || {
        let model = Model::new(4, 0);
        (1..=4).for_each(|i| send(model.ring(), A, i));
        let reader = spawn(&model, |ring| assert_eq!(try_receive_run(ring, B), Some([1, 2])));
        let ring = model.ring();
        send(ring, A, 5);
        send(ring, A, 6);
        reader.join().unwrap();
        assert_eq!(receive_all(ring, B, 4), [3, 4, 5, 6]);
    });
}

#[test]
fn a_run_and_another_writer_never_hold_one_slot() {
    for stale in [false, true] {
        bounded(Some(3), move || {
            let model = Model::new(4, before_the_wrap(4) - 1);
            let first = Position(model.ring().header().tail.load(Ordering::Relaxed));
            if stale {
                // The ring has gone round, and hints are where they were.
                for i in 91..95 {
                    send(model.ring(), C, i);
                    assert_eq!(receive(model.ring(), C), i);
                }
            }
            let writer = spawn(&model, |ring| {
                if !try_send_run(ring, A, [1, 2]) {
                    send(ring, A, 1);
                    send(ring, A, 2);
                }
            });
            let late = spawn(&model, move |ring| {
                if stale {
                    ring.header().tail.store(first.0, Ordering::Relaxed);
                }
                send(ring, B, 3);
            });
            writer.join().unwrap();
            late.join().unwrap();
            let all = receive_all(model.ring(), C, 3);
            assert!(all == [1, 2, 3] || all == [3, 1, 2] || all == [1, 3, 2], "{all:?}");
            assert!(model.ring().is_empty());
        });
    }
}

#[test]
fn a_run_and_another_reader_never_get_one_message() {
    bounded(Some(3), || {
        let model = Model::new(4, 0);
        (1..=3).for_each(|i| send(model.ring(), A, i));
        let got = Arc::new(Mutex::new(Vec::new()));
        let its = got.clone();
        let reader = spawn(&model, move |ring| {
            let values = try_receive_run(ring, B).map_or(vec![], |values| values.to_vec());
            its.lock().unwrap().extend(values);
        });
        let ring = model.ring();
        let mine: Vec<u64> = (0..2).filter_map(|_| try_receive(ring, C)).collect();
        assert!(mine.is_sorted());
        reader.join().unwrap();
        let mut all = got.lock().unwrap().clone();
        all.extend(mine);
        all.extend(std::iter::from_fn(|| try_receive(ring, C)));
        all.sort();
        assert_eq!(all, [1, 2, 3]);
    });
}

/// Edge W, of a run that was sent: who walks past its first message sees the next. (In a
/// thread of its own: loom shows nobody after a yield what it had seen before.)
#[test]
fn behind_the_first_message_of_a_run_the_next_is_seen() {
    check(|| {
        let model = Model::new(4, 0);
        let reader = spawn(&model, |ring| {
            while Word(ring.slot(0).word.load(Ordering::Relaxed)).state() != READING {
                thread::yield_now();
            }
            assert_eq!(try_receive(ring, B), Some(2));
        });
        let writer = spawn(&model, |ring| assert!(try_send_run(ring, A, [1, 2])));
        writer.join().unwrap();
        // Takes the first, and dies before it stores the hint.
        assert!(die_at("take.slot", 1, || receive(model.ring(), DEAD)).is_none());
        reader.join().unwrap();
    });
}

/// Edge W, of a run that was received.
#[test]
fn behind_the_first_slot_of_a_released_run_the_next_is_free() {
    check(|| {
        let model = Model::new(4, 0);
        (1..=4).for_each(|i| send(model.ring(), A, i));
        let sender = spawn(&model, |ring| {
            let claimed = Word::new(1, WRITING, DEAD.get());
            while Word(ring.slot(0).word.load(Ordering::Relaxed)) != claimed {
                thread::yield_now();
            }
            assert!(try_send(ring, A, 5));
        });
        let reader = spawn(&model, |ring| assert_eq!(try_receive_run(ring, B), Some([1, 2])));
        reader.join().unwrap();
        // Claims the first, and dies before it stores the hint.
        assert!(die_at("claim.slot", 1, || send(model.ring(), DEAD, 9)).is_none());
        sender.join().unwrap();
    });
}

/// Edge H: the same where the hint was stored.
#[test]
fn a_head_hint_shows_what_it_rests_on() {
    check(|| {
        let model = Model::new(4, 0);
        let reader = spawn(&model, |ring| {
            while ring.header().head.load(Ordering::Relaxed) != 1 {
                thread::yield_now();
            }
            assert!(!ring.has_none_at_hint());
            assert_eq!(try_receive(ring, B), Some(2));
        });
        let writer = spawn(&model, |ring| assert!(try_send_run(ring, A, [1, 2])));
        writer.join().unwrap();
        std::mem::forget(model.ring().try_take(C).unwrap());
        reader.join().unwrap();
    });
}

#[test]
fn a_tail_hint_shows_what_it_rests_on() {
    check(|| {
        let model = Model::new(4, 0);
        (1..=4).for_each(|i| send(model.ring(), A, i));
        let behind = model.geometry.laps.at(1, 1).0;
        let sender = spawn(&model, move |ring| {
            while ring.header().tail.load(Ordering::Relaxed) != behind {
                thread::yield_now();
            }
            assert!(try_send(ring, A, 5));
        });
        let reader = spawn(&model, |ring| assert_eq!(try_receive_run(ring, B), Some([1, 2])));
        reader.join().unwrap();
        std::mem::forget(model.ring().try_claim(C).unwrap());
        sender.join().unwrap();
    });
}

/// Edge H, where the hint is a run's, or one who skips stores it.
#[test]
fn the_hint_of_a_run_or_of_a_skip_shows_what_it_rests_on() {
    for skips in [false, true] {
        check(move || {
            let model = Model::new(6, 0);
            let behind = if skips { 1 } else { 2 };
            let reader = spawn(&model, move |ring| {
                while ring.header().head.load(Ordering::Relaxed) != behind {
                    thread::yield_now();
                }
                match ring.try_take(B) {
                    Ok(taken) => assert_eq!((get(&taken), skips), (3, false)),
                    Err(NoTake::Skipped) => assert!(skips),
                    Err(other) => panic!("{other:?}"),
                }
            });
            let writer = spawn(&model, move |ring| {
                if skips {
                    let run = ring.claim_run(A, 2).unwrap();
                    ring.abandon_run(run);
                    send(ring, A, 3);
                } else {
                    assert!(try_send_run(ring, A, [1, 2]));
                    assert!(try_send_run(ring, A, [3, 4]));
                }
            });
            writer.join().unwrap();
            if skips {
                assert!(matches!(model.ring().try_take(C), Err(NoTake::Skipped)));
            } else {
                std::mem::forget(model.ring().take_run(C, 2).unwrap());
            }
            reader.join().unwrap();
        });
    }
}

#[test]
fn an_abandoned_run_is_passed() {
    bounded(Some(3), || {
        let model = Model::new(4, 0);
        let quitter = spawn(&model, |ring| {
            let run = ring.claim_run(A, 2).unwrap();
            ring.abandon_run(run);
            send(ring, A, 1);
        });
        assert_eq!(receive(model.ring(), B), 1);
        quitter.join().unwrap();
        assert_eq!(model.ring().counts().abandoned, 2);
    });
}

#[test]
fn a_sender_killed_in_a_run_stops_nobody() {
    for point in ["run.slot", "run.hint", "commit-run.slot", "commit-run.first"] {
        bounded(Some(2), move || {
            let model = Model::new(4, before_the_wrap(4) - 3);
            let died = die_at(point, 1, || try_send_run(model.ring(), DEAD, [8, 9]));
            assert!(died.is_none());
            let recoverer = spawn(&model, move |ring| {
                ring.recover(DEAD, Delivery::AtMostOnce);
            });
            let writer = spawn(&model, |ring| send(ring, A, 3));
            let ring = model.ring();
            let whole = point == "commit-run.first";
            let expected = if whole { vec![8, 9, 3] } else { vec![3] };
            assert_eq!(receive_all(ring, B, expected.len()), expected);
            recoverer.join().unwrap();
            writer.join().unwrap();
            assert_eq!(ring.counts().abandoned, if whole { 0 } else { 2 });
            assert!(ring.is_empty());
        });
    }
}

#[test]
fn a_receiver_killed_in_a_run_stops_nobody() {
    for delivery in [Delivery::AtMostOnce, Delivery::AtLeastOnce] {
        for point in ["run.slot", "run.hint", "release-run.slot", "release-run.first"] {
            bounded(Some(2), move || {
                let model = Model::new(4, 0);
                (1..=4).for_each(|i| send(model.ring(), A, i));
                assert!(die_at(point, 1, || try_receive_run(model.ring(), DEAD)).is_none());
                let recoverer = spawn(&model, move |ring| {
                    ring.recover(DEAD, delivery);
                });
                let ring = model.ring();
                assert_eq!(receive_all(ring, B, 2), [3, 4]);
                // Whatever of the run was not released comes again, or is lost.
                let left = match point {
                    "release-run.first" => vec![],
                    "release-run.slot" => vec![1],
                    _ => vec![1, 2],
                };
                // The first one may be met on the way.
                let mut again: Vec<u64> = try_receive(ring, B).into_iter().collect();
                recoverer.join().unwrap();
                again.extend(std::iter::from_fn(|| adopt(ring, B)));
                assert_eq!(
                    again,
                    if delivery == Delivery::AtLeastOnce { left.clone() } else { vec![] }
                );
                let counts = ring.counts();
                let lost = if delivery == Delivery::AtMostOnce { left.len() } else { 0 };
                assert_eq!(counts.lost, lost as u64);
                assert_eq!(counts.redelivered as usize, left.len() - lost);
                assert!(try_send_run(ring, A, [5, 6]));
                assert_eq!(receive_all(ring, B, 2), [5, 6]);
            });
        }
    }
}

#[test]
fn a_recovery_broken_off_in_a_run_is_finished_by_the_next() {
    for (writes, delivery) in [
        (true, Delivery::AtMostOnce),
        (false, Delivery::AtMostOnce),
        (false, Delivery::AtLeastOnce),
    ] {
        for nth in 1..=2 {
            bounded(Some(2), move || {
                let model = Model::new(4, 0);
                let ring = model.ring();
                if writes {
                    let died = die_at("commit-run.slot", 1, || try_send_run(ring, DEAD, [8, 9]));
                    assert!(died.is_none());
                } else {
                    (1..=2).for_each(|i| send(ring, A, i));
                    std::mem::forget(ring.take_run(DEAD, 2).unwrap());
                }
                let lease = Arc::new(Mutex::new(()));
                let its = lease.clone();
                let first = spawn(&model, move |ring| {
                    let _lease = its.lock().unwrap();
                    // It may come too late, to no repair at all.
                    die_at("recover.slot", nth, || ring.recover(DEAD, delivery));
                });
                let second = spawn(&model, move |ring| {
                    let _lease = lease.lock().unwrap();
                    ring.recover(DEAD, delivery);
                });
                // One of them may meet the run while it is repaired.
                let mut all: Vec<u64> = adopt(ring, B).into_iter().collect();
                first.join().unwrap();
                second.join().unwrap();
                all.extend(std::iter::from_fn(|| adopt(ring, B)));
                all.sort();
                assert_eq!(
                    all,
                    if delivery == Delivery::AtLeastOnce { vec![1, 2] } else { vec![] }
                );
                send(ring, A, 3);
                assert_eq!(receive(ring, B), 3);
                assert!(ring.is_empty());
            });
        }
    }
}

// ---------------------------------------------------------------------------
// Deaths
// ---------------------------------------------------------------------------

#[test]
fn a_dead_writers_slot_goes_to_the_next_writer() {
    for hint_stored in [false, true] {
        check(move || {
            let model = Model::new(1, 0);
            let dead = spawn(&model, move |ring| die_claiming(ring, hint_stored));
            let recoverer = spawn(&model, move |ring| {
                dead.join().unwrap();
                assert_eq!(ring.recover(DEAD, Delivery::AtMostOnce), 1);
            });
            // Claims after the death only: until then the word names the dead
            // or the slot is free, and the dead would not get its claim.
            let ring = model.ring();
            while Word(ring.slot(0).word.load(Ordering::Relaxed)).state() != POISON {
                thread::yield_now();
            }
            send(ring, A, 1);
            assert_eq!(try_receive(ring, A), Some(1));
            recoverer.join().unwrap();
        });
    }
}

#[test]
fn readers_go_on_after_a_dead_writer() {
    for hint_stored in [false, true] {
        bounded(Some(3), move || {
            let model = Model::new(2, 0);
            die_claiming(model.ring(), hint_stored);
            let writer = spawn(&model, |ring| send(ring, A, 1));
            let recoverer = spawn(&model, |ring| {
                ring.recover(DEAD, Delivery::AtMostOnce);
            });
            assert_eq!(receive(model.ring(), B), 1);
            writer.join().unwrap();
            recoverer.join().unwrap();
            assert!(model.ring().is_empty());
        });
    }
}

#[test]
fn a_dead_readers_slot_goes_to_the_next_writer() {
    check(|| {
        let model = Model::new(1, 0);
        send(model.ring(), A, 1);
        let dead = spawn(&model, |ring| assert_eq!(get(&ring.try_take(DEAD).unwrap()), 1));
        let recoverer = spawn(&model, move |ring| {
            dead.join().unwrap();
            assert_eq!(ring.recover(DEAD, Delivery::AtMostOnce), 1);
            assert_eq!(ring.counts().lost, 1);
        });
        send(model.ring(), A, 2);
        assert_eq!(receive(model.ring(), A), 2);
        recoverer.join().unwrap();
    });
}

#[test]
fn an_announced_orphan_is_found_with_its_payload() {
    check(|| {
        let model = Model::new(2, 0);
        let dead = spawn(&model, |ring| {
            send(ring, DEAD, 1);
            assert_eq!(get(&ring.try_take(DEAD).unwrap()), 1);
        });
        let recoverer = spawn(&model, move |ring| {
            dead.join().unwrap();
            ring.recover(DEAD, Delivery::AtLeastOnce);
        });
        let ring = model.ring();
        while ring.orphan_epoch() == 0 {
            thread::yield_now();
        }
        let taken = ring.try_adopt(A).expect("announced, and nobody else looks");
        assert_eq!((get(&taken), taken.redelivered()), (1, true));
        ring.release(taken);
        recoverer.join().unwrap();
    });
}

#[test]
fn an_unannounced_orphan_is_ordered_after_its_writer_and_its_dead_reader() {
    for met in [false, true] {
        check(move || {
            let model = Model::new(1, 0);
            let dead = spawn(&model, |ring| {
                send(ring, DEAD, 1);
                assert_eq!(get(&ring.try_take(DEAD).unwrap()), 1);
            });
            let recoverer = spawn(&model, move |ring| {
                dead.join().unwrap();
                ring.recover(DEAD, Delivery::AtLeastOnce);
            });
            let ring = model.ring();
            // Wait without learning anything, then adopt, and write there.
            while Word(ring.slot(0).word.load(Ordering::Relaxed)).state() != ORPHAN {
                thread::yield_now();
            }
            if met {
                assert_eq!(try_receive(ring, A), Some(1));
            } else {
                let taken = ring.try_adopt(A).unwrap();
                assert_eq!(get(&taken), 1);
                ring.release(taken);
            }
            send(ring, A, 2);
            recoverer.join().unwrap();
        });
    }
}

#[test]
fn two_readers_adopt_one_orphan_once() {
    check(|| {
        let model = Model::new(2, before_the_wrap(2));
        send(model.ring(), A, 1);
        std::mem::forget(model.ring().try_take(DEAD).unwrap());
        let got = Arc::new(Mutex::new(0));
        let recoverer = spawn(&model, |ring| {
            ring.recover(DEAD, Delivery::AtLeastOnce);
        });
        let adopt = |me, got: Arc<Mutex<u32>>| {
            move |ring: Ring<'_>| {
                if let Some(taken) = ring.try_adopt(me) {
                    assert_eq!(get(&taken), 1);
                    ring.release(taken);
                    *got.lock().unwrap() += 1;
                }
            }
        };
        let other = spawn(&model, adopt(A, got.clone()));
        adopt(B, got.clone())(model.ring());
        other.join().unwrap();
        recoverer.join().unwrap();
        adopt(B, got.clone())(model.ring());
        assert_eq!(*got.lock().unwrap(), 1);
    });
}

#[test]
fn two_recoverers_of_one_owner_repair_each_word_once() {
    for delivery in [Delivery::AtMostOnce, Delivery::AtLeastOnce] {
        check(move || {
            let model = Model::new(2, 0);
            // One slot that it reads, one that it writes.
            send(model.ring(), A, 1);
            std::mem::forget(model.ring().try_take(DEAD).unwrap());
            std::mem::forget(model.ring().try_claim(DEAD).unwrap());
            let lease = Arc::new(Mutex::new(0));
            let recover = |lease: Arc<Mutex<usize>>| {
                move |ring: Ring<'_>| {
                    let mut repaired = lease.lock().unwrap();
                    *repaired += ring.recover(DEAD, delivery);
                }
            };
            let one = spawn(&model, recover(lease.clone()));
            let two = spawn(&model, recover(lease.clone()));
            let again = try_receive(model.ring(), B);
            one.join().unwrap();
            two.join().unwrap();
            assert_eq!(*lease.lock().unwrap(), 2);
            let ring = model.ring();
            let adopted = again.is_none() && ring.try_adopt(B).map(|t| ring.release(t)).is_some();
            assert_eq!(adopted || again.is_some(), delivery == Delivery::AtLeastOnce);
            assert_eq!(try_receive(ring, B), None);
            send(ring, A, 2);
            send(ring, A, 3);
            assert_eq!((try_receive(ring, B), try_receive(ring, B)), (Some(2), Some(3)));
        });
    }
}

#[test]
fn a_recovery_broken_off_is_finished_by_the_next() {
    // The first recoverer is killed after one conversion, after both, or after
    // the announcement.
    for (point, nth) in [("recover.slot", 1), ("recover.slot", 2), ("recover.orphans", 1)] {
        bounded(Some(3), move || {
            let model = Model::new(2, 0);
            for i in 1..=2 {
                send(model.ring(), A, i);
                std::mem::forget(model.ring().try_take(DEAD).unwrap());
            }
            let lease = Arc::new(Mutex::new(()));
            let its = lease.clone();
            let first = spawn(&model, move |ring| {
                let _lease = its.lock().unwrap();
                // It may come too late, to no conversion at all.
                die_at(point, nth, || ring.recover(DEAD, Delivery::AtLeastOnce));
            });
            let second = spawn(&model, move |ring| {
                let _lease = lease.lock().unwrap();
                ring.recover(DEAD, Delivery::AtLeastOnce);
            });
            let ring = model.ring();
            let (mut sum, mut seen) = (0, 0);
            while sum < 3 {
                let epoch = ring.orphan_epoch();
                if epoch == seen {
                    thread::yield_now();
                } else if let Some(taken) = ring.try_adopt(B) {
                    sum += get(&taken);
                    ring.release(taken);
                } else {
                    seen = epoch;
                }
            }
            assert_eq!((sum, ring.try_adopt(B).is_none()), (3, true));
            first.join().unwrap();
            second.join().unwrap();
        });
    }
}

#[test]
fn a_joiner_may_take_the_number_of_the_recovered() {
    bounded(Some(3), || {
        let model = Model::new(2, 0);
        let dead = spawn(&model, |ring| die_claiming(ring, true));
        let lease = Arc::new(Mutex::new(()));
        let joiner = spawn(&model, move |ring| {
            dead.join().unwrap();
            {
                let _lease = lease.lock().unwrap();
                ring.recover(DEAD, Delivery::AtMostOnce);
            }
            send(ring, DEAD, 1);
        });
        let ring = model.ring();
        assert_eq!(receive(ring, A), 1);
        joiner.join().unwrap();
        assert!(ring.is_empty());
    });
}

#[test]
fn a_sender_killed_at_any_step_stops_nobody() {
    for point in ["claim.slot", "claim.tail", "commit.slot"] {
        bounded(Some(2), move || {
            let model = Model::new(2, before_the_wrap(2));
            let recoverer = spawn(&model, move |ring| {
                assert!(die_at(point, 1, || send(ring, DEAD, 1)).is_none());
                ring.recover(DEAD, Delivery::AtMostOnce);
            });
            let writer = spawn(&model, |ring| assert!(try_send(ring, A, 2)));
            let ring = model.ring();
            let first = receive(ring, B);
            let both = point == "commit.slot";
            let mut got = first;
            if both {
                got += receive(ring, B);
            }
            assert_eq!(got, 2 + u64::from(both));
            recoverer.join().unwrap();
            writer.join().unwrap();
            // What the dead one did not finish may lie behind the other's.
            let counts = ring.counts();
            assert_eq!(counts.abandoned, u64::from(!both));
            send(ring, A, 3);
            assert_eq!(receive(ring, B), 3);
        });
    }
}

#[test]
fn a_receiver_killed_at_any_step_stops_nobody() {
    for delivery in [Delivery::AtMostOnce, Delivery::AtLeastOnce] {
        for point in ["take.slot", "take.head", "release.slot"] {
            bounded(Some(2), move || {
                let model = Model::new(1, before_the_wrap(1));
                send(model.ring(), A, 1);
                assert!(die_at(point, 1, || receive(model.ring(), DEAD)).is_none());
                let recoverer = spawn(&model, move |ring| {
                    ring.recover(DEAD, delivery);
                });
                // In a ring of one slot all goes through where the dead one was.
                let ring = model.ring();
                let held = point != "release.slot";
                let again = held && delivery == Delivery::AtLeastOnce;
                if again {
                    assert_eq!(receive(ring, B), 1);
                }
                send(ring, A, 2);
                assert_eq!(receive(ring, B), 2);
                recoverer.join().unwrap();
                let counts = ring.counts();
                assert_eq!(
                    (counts.lost, counts.redelivered),
                    ((held && !again).into(), again.into())
                );
            });
        }
    }
}

#[test]
fn an_adopter_killed_at_any_step_leaves_it_to_the_next() {
    for point in ["adopt.slot", "adopt.counted", "release.slot"] {
        bounded(Some(3), move || {
            let model = Model::new(1, 0);
            send(model.ring(), A, 1);
            std::mem::forget(model.ring().try_take(C).unwrap());
            model.ring().recover(C, Delivery::AtLeastOnce);
            let dead = spawn(&model, move |ring| {
                let adopted = die_at(point, 1, || {
                    ring.try_adopt(DEAD).map(|taken| ring.release(taken)).is_some()
                });
                // The living one may have been first.
                assert_ne!(adopted, Some(true));
            });
            let adopt = |ring: Ring<'_>| {
                ring.try_adopt(B).is_some_and(|taken| {
                    assert_eq!(get(&taken), 1);
                    ring.release(taken);
                    true
                })
            };
            let first = adopt(model.ring());
            dead.join().unwrap();
            model.ring().recover(DEAD, Delivery::AtLeastOnce);
            let second = adopt(model.ring());
            assert!(!(first && second), "adopted twice");
            assert!(first || second || point == "release.slot");
            send(model.ring(), A, 2);
            assert_eq!(try_receive(model.ring(), B), Some(2));
        });
    }
}

#[test]
fn whoever_is_killed_around_an_abandoned_slot_stops_nobody() {
    // Its owner, a reader that skips it, a writer that frees it.
    for point in ["abandon.counted", "abandon.slot", "skip.slot", "skip.head", "claim.poison-freed"]
    {
        bounded(Some(2), move || {
            let model = Model::new(1, 0);
            let abandon = |ring: Ring<'_>| ring.try_claim(DEAD).map(|claim| ring.abandon(claim));
            let ring = model.ring();
            let died = match point {
                "abandon.counted" | "abandon.slot" => die_at(point, 1, || abandon(ring).unwrap()),
                "claim.poison-freed" => {
                    abandon(ring).unwrap();
                    die_at(point, 1, || drop(ring.try_claim(DEAD)))
                }
                _ => {
                    abandon(ring).unwrap();
                    die_at(point, 1, || drop(ring.try_take(DEAD)))
                }
            };
            assert!(died.is_none());
            let recoverer = spawn(&model, |ring| {
                ring.recover(DEAD, Delivery::AtMostOnce);
            });
            // Skipped by this reader, or freed by this writer.
            assert_eq!(try_receive(ring, B), None);
            send(ring, A, 1);
            assert_eq!(receive(ring, B), 1);
            recoverer.join().unwrap();
            assert!(ring.is_empty());
        });
    }
}

/// A joiner that is given the number of a dead one sweeps first, whatever an
/// earlier recoverer had done before it was killed itself.
#[test]
fn a_joiner_finishes_what_a_dead_recoverer_began() {
    for point in ["recover.slot", "recover.counted"] {
        bounded(Some(3), move || {
            let model = Model::new(2, 0);
            send(model.ring(), A, 1);
            std::mem::forget(model.ring().try_take(DEAD).unwrap());
            std::mem::forget(model.ring().try_claim(DEAD).unwrap());
            let lease = Arc::new(Mutex::new(()));
            let its = lease.clone();
            let recoverer = spawn(&model, move |ring| {
                let _lease = its.lock().unwrap();
                die_at(point, 1, || ring.recover(DEAD, Delivery::AtMostOnce));
            });
            let joiner = spawn(&model, move |ring| {
                // Keeps it for as long as it lives.
                let _lease = lease.lock().unwrap();
                ring.recover(DEAD, Delivery::AtMostOnce);
                send(ring, DEAD, 2);
            });
            assert_eq!(receive(model.ring(), B), 2);
            recoverer.join().unwrap();
            joiner.join().unwrap();
            assert!(model.ring().is_empty());
        });
    }
}
