//! What a wait costs, how long it lasts, and what may interrupt it.

use super::*;
use crate::os;
use crate::sync::AtomicU32;
use core::sync::atomic::AtomicBool;
use std::thread;

/// Far longer than anything here takes, and far longer than a slice.
const AGES: Duration = Duration::from_secs(20);

/// The barriers that this build may use.
fn modes() -> Vec<bool> {
    let asymmetric = cfg!(not(feature = "portable-wait")) && os::membarrier_register();
    if asymmetric { vec![false, true] } else { vec![false] }
}

fn wakes() -> usize {
    os::WAKES.get()
}

/// Looks for this much news.
fn look_for<'a>(news: &'a AtomicU32, wanted: u32) -> impl FnMut() -> Look<u32> + 'a {
    move || match news.load(Ordering::Acquire) {
        seen if seen >= wanted => Look::Ready(seen),
        _ => Look::NotYet,
    }
}

/// Waits until somebody has announced a sleep.
fn await_sleeper(event: &Event) {
    while event.futex.word.load(Ordering::Relaxed) & SLEEPING == 0 {
        thread::yield_now();
    }
}

#[test]
fn an_event_takes_one_line() {
    assert_eq!((size_of::<Event>(), align_of::<Event>()), (128, 128));
}

#[test]
fn notify_makes_no_system_call_when_nobody_sleeps() {
    for mode in modes() {
        let event = Event::default();
        let waiter = Waiter::new(&event, mode);
        let before = wakes();
        for _ in 0..1000 {
            waiter.notify();
        }
        assert_eq!(wakes() - before, 0);
        assert_eq!(event.futex.word.load(Ordering::Relaxed), 0);
        // The flag of a sleeper, gone or killed, costs one call and no more.
        waiter.prepare();
        for _ in 0..1000 {
            waiter.notify();
        }
        assert_eq!(wakes() - before, 1);
    }
}

#[test]
fn a_spin_ends_with_its_wait() {
    let event = Event::default();
    let waiter = Waiter::new(&event, false);
    let patience = Patience::new();
    let mut looks = 0;
    let look = || {
        looks += 1;
        Look::<()>::NotYet
    };
    // Over, but no poll.
    let past = Some(dawn() + Duration::from_nanos(1));
    assert_eq!(waiter.until(past, &patience, look, |_| true), None);
    // To the first reading of the clock; as a sleeper; after the check.
    assert_eq!(looks, sync::spins(LOOKS) + 2);
    // It says nothing about spins.
    assert_eq!(patience.in_vain.get(), 0);
}

/// What a wait finds at this look, and whether it announced a sleeper.
fn found_at(wanted: u32, patience: &Patience) -> bool {
    let event = Event::default();
    let mut looks = 0;
    let look = || {
        looks += 1;
        if looks == wanted { Look::Ready(()) } else { Look::NotYet }
    };
    assert_eq!(Waiter::new(&event, false).until(None, patience, look, |_| false), Some(()));
    event.futex.word.load(Ordering::Relaxed) != 0
}

#[test]
fn who_has_patience_sees_what_comes_late_without_a_sleep() {
    if sync::spins(1) == 0 {
        return;
    }
    // Unless it was interrupted for so long.
    let awake = || !found_at(3 * LOOKS, &Patience::new());
    assert!((0..10_000).any(|_| awake()));
}

#[test]
fn spins_in_vain_become_rare_until_one_is_not() {
    let patience = Patience::new();
    let spins = |n: u32| (0..n).map(|_| patience.spin()).collect::<Vec<_>>();
    for _ in 1..ENOUGH {
        assert_eq!(spins(2), [LONG; 2]);
        patience.in_vain();
    }
    assert_eq!(spins(2), [LONG; 2]);
    for _ in 0..3 {
        patience.in_vain();
        assert_eq!(spins(RARELY), [SHORT; RARELY as usize]);
        assert_eq!(spins(2), [LONG; 2]);
    }
    patience.in_vain();
    patience.paid();
    // By turns in vain and not.
    for _ in 0..100 {
        assert_eq!(spins(1), [LONG]);
        patience.in_vain();
        assert_eq!(spins(1), [LONG]);
        patience.paid();
    }
}

#[test]
fn a_sleep_after_a_long_spin_is_what_was_in_vain() {
    let event = Event::default();
    let waiter = Waiter::new(&event, false);
    let patience = Patience::new();
    let wait = || {
        let nothing = || Look::<()>::NotYet;
        assert_eq!(waiter.until(deadline(SLICE), &patience, nothing, |_| false), None);
    };
    // Interrupted for a slice, it has no time for a sleep, and learns nothing.
    let learnt = (1..=ENOUGH).all(|times| {
        (0..100).any(|_| {
            wait();
            patience.in_vain.get() == times
        })
    });
    assert!(learnt);
    assert_eq!(patience.short.get(), RARELY);
    // A short one is none.
    wait();
    assert_eq!((patience.in_vain.get(), patience.short.get()), (ENOUGH, RARELY - 1));
}

#[test]
fn what_came_in_a_spin_or_just_after_brings_patience_back() {
    let tired = || {
        let patience = Patience::new();
        (0..ENOUGH).for_each(|_| patience.in_vain());
        patience
    };
    if sync::spins(1) > 0 {
        // At once, as it would have to a short one.
        let patience = tired();
        assert!(!found_at(LOOKS, &patience));
        assert_eq!(patience.in_vain.get(), ENOUGH);
    }
    // Later in the spin, or, as here for sure, while a sleeper was announced.
    let patience = tired();
    found_at(sync::spins(LOOKS) + 1, &patience);
    assert_eq!((patience.in_vain.get(), patience.short.get()), (0, 0));
}

#[test]
fn a_spin_ends_before_a_slice_whatever_the_clock_says() {
    // At 60 ns each.
    const { assert!((READINGS * LOOKS) as u128 * 60 < SLICE.as_nanos() / 2) };
}

#[test]
fn a_wait_for_what_is_there_costs_nothing() {
    let event = Event::default();
    let waiter = Waiter::new(&event, false);
    if sync::spins(1) > 0 {
        assert_eq!(
            waiter.until(None, &Patience::new(), || Look::Ready(7), |_| unreachable!()),
            Some(7)
        );
        assert_eq!(event.futex.word.load(Ordering::Relaxed), 0);
    }
    let past = Some(sync::now());
    assert_eq!(
        waiter.until(past, &Patience::new(), || Look::Ready(7), |_| unreachable!()),
        Some(7)
    );
}

#[test]
fn a_wake_ends_a_sleep_of_any_length() {
    for mode in modes() {
        let event = Event::default();
        let waiter = Waiter::new(&event, mode);
        thread::scope(|scope| {
            // Not sliced: nothing but the wake ends it in time.
            let sleeper = scope.spawn(|| {
                let start = Instant::now();
                let ticket = waiter.prepare();
                waiter.sleep(ticket, AGES);
                start.elapsed()
            });
            await_sleeper(&event);
            thread::sleep(Duration::from_millis(2));
            waiter.notify();
            assert!(sleeper.join().unwrap() < AGES / 2);
        });
    }
}

#[test]
fn a_wake_between_the_look_and_the_sleep_is_not_lost() {
    let event = Event::default();
    let waiter = Waiter::new(&event, false);
    let start = Instant::now();
    for _ in 0..100 {
        let ticket = waiter.prepare();
        waiter.notify();
        waiter.sleep(ticket, AGES);
        // Nor if another sleeper has announced itself since.
        let ticket = waiter.prepare();
        waiter.notify();
        waiter.prepare();
        waiter.sleep(ticket, AGES);
    }
    assert!(start.elapsed() < AGES / 2);
}

#[test]
fn a_wake_reaches_every_sleeper() {
    let event = Event::default();
    let waiter = Waiter::new(&event, false);
    let asleep = AtomicU32::new(0);
    thread::scope(|scope| {
        let sleepers = [(); 8].map(|()| {
            scope.spawn(|| {
                let ticket = waiter.prepare();
                asleep.fetch_add(1, Ordering::Relaxed);
                waiter.sleep(ticket, AGES);
            })
        });
        let start = Instant::now();
        while asleep.load(Ordering::Relaxed) < 8 {
            thread::yield_now();
        }
        waiter.notify();
        for sleeper in sleepers {
            sleeper.join().unwrap();
        }
        assert!(start.elapsed() < AGES / 2);
    });
}

#[test]
fn a_deadline_bounds_the_whole_call() {
    let event = Event::default();
    let waiter = Waiter::new(&event, false);
    for timeout in [0, 1, 25, 60].map(Duration::from_millis) {
        let start = Instant::now();
        let found =
            waiter.until(deadline(timeout), &Patience::new(), || Look::<()>::NotYet, |_| false);
        assert!(found.is_none());
        assert!(start.elapsed() >= timeout);
        assert!(start.elapsed() < timeout + Duration::from_secs(2));
    }
    // So long that the clock can't tell: no deadline.
    assert!(deadline(Duration::MAX).is_none());
}

#[test]
fn spurious_wakes_do_not_prolong_a_wait() {
    let event = Event::default();
    let waiter = Waiter::new(&event, false);
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                waiter.wake();
                thread::sleep(Duration::from_micros(100));
            }
        });
        let timeout = Duration::from_millis(100);
        let (mut looks, mut checks) = (0, 0);
        let start = Instant::now();
        let look = || {
            looks += 1;
            Look::<()>::NotYet
        };
        let check = |_| {
            checks += 1;
            true
        };
        assert!(waiter.until(deadline(timeout), &Patience::new(), look, check).is_none());
        let took = start.elapsed();
        over.store(true, Ordering::Relaxed);
        assert!(took >= timeout && took < timeout + Duration::from_secs(2), "{took:?}");
        // Each wake is a look, but only each slice is a check.
        assert!(looks > checks);
        assert!((1..=1 + took.as_millis() / SLICE.as_millis()).contains(&checks), "{checks}");
    });
}

#[test]
fn a_slow_check_does_not_prolong_a_wait() {
    let event = Event::default();
    let waiter = Waiter::new(&event, false);
    let timeout = 3 * SLICE;
    // The best of several, for the machine may be busy; at worst a whole slice
    // of sleep would follow on each check.
    let best = (0..20).map(|_| {
        let start = Instant::now();
        let check = |_| {
            thread::sleep(timeout);
            false
        };
        assert!(
            waiter
                .until(deadline(timeout), &Patience::new(), || Look::<()>::NotYet, check)
                .is_none()
        );
        start.elapsed()
    });
    assert!(best.min() < Some(timeout + SLICE));
}

#[test]
fn a_change_found_by_the_check_is_looked_at_before_any_sleep() {
    let event = Event::default();
    let waiter = Waiter::new(&event, false);
    let recovered = core::cell::Cell::new(false);
    let slept = core::cell::Cell::new(false);
    let found = waiter.until(
        None,
        &Patience::new(),
        || if recovered.get() { Look::Ready(()) } else { Look::NotYet },
        |slice_over| {
            slept.set(slept.get() | slice_over);
            recovered.set(true);
            true
        },
    );
    assert!(found.is_some() && !slept.get());
}

#[test]
fn a_waker_killed_before_the_wake_costs_a_slice() {
    let event = Event::default();
    let news = AtomicU32::new(0);
    let waiter = Waiter::new(&event, false);
    thread::scope(|scope| {
        let sleeper = scope.spawn(|| {
            waiter.until(deadline(AGES), &Patience::new(), look_for(&news, 1), |_| false)
        });
        await_sleeper(&event);
        // Published, counted, flag cleared; then nothing more.
        news.store(1, Ordering::Release);
        event.futex.word.fetch_add(1, Ordering::Relaxed);
        assert_eq!(sleeper.join().unwrap(), Some(1));
    });
}

#[test]
fn a_scribbled_word_only_costs_time() {
    for word in [1, 2, u32::MAX, u32::MAX - 1, 0x5555_5555] {
        let event = Event::default();
        event.futex.word.store(word, Ordering::Relaxed);
        let waiter = Waiter::new(&event, false);
        let timeout = Duration::from_millis(5);
        assert!(
            waiter
                .until(deadline(timeout), &Patience::new(), || Look::<()>::NotYet, |_| false)
                .is_none()
        );
        let ticket = waiter.prepare();
        waiter.notify();
        waiter.sleep(ticket, AGES);
        assert_eq!(event.futex.word.load(Ordering::Relaxed) & SLEEPING, 0);
    }
}

#[test]
fn news_travel_both_ways() {
    // Each thread sleeps for the other's news in turn.
    const ROUNDS: u32 = 2000;
    for mode in modes() {
        let (ping, pong) = (Event::default(), Event::default());
        let (there, back) = (AtomicU32::new(0), AtomicU32::new(0));
        let (ping, pong) = (Waiter::new(&ping, mode), Waiter::new(&pong, mode));
        thread::scope(|scope| {
            scope.spawn(|| {
                for round in 1..=ROUNDS {
                    ping.until(None, &Patience::new(), look_for(&there, round), |_| false);
                    back.store(round, Ordering::Release);
                    pong.notify();
                }
            });
            for round in 1..=ROUNDS {
                there.store(round, Ordering::Release);
                ping.notify();
                let found =
                    pong.until(deadline(AGES), &Patience::new(), look_for(&back, round), |_| false);
                assert_eq!(found, Some(round));
            }
        });
    }
}

#[test]
fn signals_do_not_end_a_wait() {
    extern "C" fn nothing(_: libc::c_int) {}
    // SAFETY: a handler that does nothing is safe at any moment. Without
    // SA_RESTART, so calls that it interrupts fail with EINTR.
    unsafe {
        let mut action: libc::sigaction = core::mem::zeroed();
        action.sa_sigaction = nothing as extern "C" fn(libc::c_int) as libc::sighandler_t;
        assert_eq!(libc::sigaction(libc::SIGUSR1, &action, core::ptr::null_mut()), 0);
    }
    let event = Event::default();
    let news = AtomicU32::new(0);
    let waiter = Waiter::new(&event, false);
    let timeout = Duration::from_millis(80);
    let (tell, thread) = std::sync::mpsc::channel();
    thread::scope(|scope| {
        let sleeper = scope.spawn(|| {
            // SAFETY: the calling thread's own handle.
            tell.send(unsafe { libc::pthread_self() }).unwrap();
            let start = Instant::now();
            assert!(
                waiter
                    .until(deadline(timeout), &Patience::new(), look_for(&news, 1), |_| false)
                    .is_none()
            );
            let took = start.elapsed();
            assert!(took >= timeout && took < timeout + Duration::from_secs(2), "{took:?}");
            waiter.until(deadline(AGES), &Patience::new(), look_for(&news, 1), |_| false)
        });
        let thread = thread.recv().unwrap();
        let end = Instant::now() + 2 * timeout;
        while Instant::now() < end {
            // SAFETY: the thread can't have ended: it waits for news, and is
            // joined below.
            assert_eq!(unsafe { libc::pthread_kill(thread, libc::SIGUSR1) }, 0);
            thread::sleep(Duration::from_micros(200));
        }
        news.store(1, Ordering::Release);
        waiter.notify();
        assert_eq!(sleeper.join().unwrap(), Some(1));
    });
}

/// One page of memory, mapped twice.
struct Twice {
    at: [*mut core::ffi::c_void; 2],
}

const PAGE: usize = 4096;

impl Twice {
    fn new() -> Twice {
        use rustix::mm::{MapFlags, ProtFlags, mmap};
        let file = rustix::fs::memfd_create("wait", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        rustix::fs::ftruncate(&file, PAGE as u64).unwrap();
        let access = ProtFlags::READ | ProtFlags::WRITE;
        let map = || {
            // SAFETY: a new mapping, wherever there is room.
            unsafe { mmap(core::ptr::null_mut(), PAGE, access, MapFlags::SHARED, &file, 0) }
        };
        let twice = Twice { at: [map().unwrap(), map().unwrap()] };
        // SAFETY: the page has room for an event at its start, which is aligned
        // for anything, and nobody uses it yet.
        unsafe { twice.at[0].cast::<Event>().write(Event::default()) };
        twice
    }

    fn event(&self, mapping: usize) -> &Event {
        // SAFETY: written in `new`, mapped until `self` is dropped.
        unsafe { &*self.at[mapping].cast() }
    }
}

impl Drop for Twice {
    fn drop(&mut self) {
        for at in self.at {
            // SAFETY: mapped in `new`, and views borrow `self`.
            unsafe { rustix::mm::munmap(at, PAGE).unwrap() };
        }
    }
}

#[test]
fn a_wake_arrives_across_two_mappings() {
    for mode in modes() {
        let memory = Twice::new();
        let [here, there] = [0, 1].map(|mapping| Waiter::new(memory.event(mapping), mode));
        assert!(!core::ptr::eq(here.event, there.event));
        thread::scope(|scope| {
            let sleeper = scope.spawn(move || {
                let start = Instant::now();
                let ticket = here.prepare();
                here.sleep(ticket, AGES);
                start.elapsed()
            });
            await_sleeper(there.event);
            thread::sleep(Duration::from_millis(2));
            let before = wakes();
            there.notify();
            assert_eq!(wakes() - before, 1);
            assert!(sleeper.join().unwrap() < AGES / 2);
        });
    }
}

#[test]
fn a_sleeper_that_is_killed_stops_nobody() {
    let memory = Twice::new();
    let waiter = Waiter::new(memory.event(0), false);
    let news = AtomicU32::new(0);
    for round in 1..=30 {
        // SAFETY: the child only sleeps on the event, then is killed.
        let child = unsafe { libc::fork() };
        if child == 0 {
            loop {
                let ticket = waiter.prepare();
                waiter.sleep(ticket, SLICE);
            }
        }
        thread::scope(|scope| {
            let sleeper = scope.spawn(|| {
                waiter.until(deadline(AGES), &Patience::new(), look_for(&news, round), |_| false)
            });
            await_sleeper(memory.event(1));
            for _ in 0..5 {
                waiter.wake();
                thread::sleep(Duration::from_micros(300));
            }
            // SAFETY: our child, not reaped yet.
            unsafe {
                libc::kill(child, libc::SIGKILL);
                libc::waitpid(child, core::ptr::null_mut(), 0);
            }
            news.store(round, Ordering::Release);
            waiter.notify();
            assert_eq!(sleeper.join().unwrap(), Some(round));
        });
    }
}

#[test]
fn who_polls_fast_leaves_the_clock_alone_for_a_moment() {
    let polls = Polls::new();
    let start = u64::MAX - 5;
    let soon = |ticks: u64| polls.is_soon(Some(start.wrapping_add(ticks)));
    assert!(!soon(0), "nobody has looked yet");
    assert!(soon(1) && soon(SOON - 1) && !soon(SOON));
    // A counter that stands still.
    for _ in 0..SPARED {
        assert!(soon(SOON));
    }
    assert!(!soon(SOON) && soon(SOON));
    // One that goes back, as on another processor.
    assert!(!soon(SOON - 1));
    assert!(!polls.is_soon(None));
}

#[test]
fn a_counter_that_stands_still_hardly_delays_the_clock() {
    let polls = Polls::new();
    let looked = |after| {
        polls.looked.set(after);
        (1..=2 * (SPARED + 1) * MISSES_PER_LOOK).find(|_| {
            polls.is_due_at(false, || Some(7));
            polls.looked.get() != after
        })
    };
    let dawn = Instant::now() - Duration::from_secs(1);
    // Slow pollers, for ever: each time.
    for _ in 0..3 {
        assert_eq!(looked(dawn), Some(1));
    }
    polls.patience.set(2);
    assert_eq!(looked(dawn), Some(2));
    polls.patience.set(MISSES_PER_LOOK);
    assert_eq!(looked(dawn), Some(MISSES_PER_LOOK), "nobody has looked at the counter yet");
    polls.patience.set(MISSES_PER_LOOK);
    assert_eq!(looked(dawn), Some((SPARED + 1) * MISSES_PER_LOOK));
}
