//! Sleeping until another process has done something.
//!
//! An [`Event`] is one 32-bit word: a *sleeping* flag (bit 0) and a count of
//! wake-ups (the rest).
//!
//! ```text
//! sleeper                              notifier
//! 1 set the flag                       a publish (a Release store elsewhere)
//! 2 heavy barrier                      b light barrier
//! 3 look again for what it waits for   c flag clear? done, no system call
//! 4 futex wait while the word is       d count + 1, flag cleared
//!   as it was after 1                  e wake everybody
//! ```
//!
//! *No wake is lost.* The barriers forbid that both 3 misses the publication
//! and c misses the flag. If c sees the flag, d changes the word, so that 4
//! either does not sleep or is woken by e. A word that is back at its old value
//! would take 2³¹ wake-ups between 1 and 4.
//!
//! *The flag is sticky, not a count*, so a sleeper that is killed leaves one
//! needless wake-up behind and nothing else. A notifier that is killed between
//! d and e leaves sleepers without their wake; every sleep is cut into slices
//! of [`SLICE`], so that costs one slice.
//!
//! | edge | release | acquire | makes visible |
//! |------|---------|---------|---------------|
//! | W    | publication, a–c | flag, 1–3 | the publication, or the flag (Dekker's pattern) |
//!
//! The word itself carries no data, so its accesses are Relaxed: the barriers
//! at 2 and b do all the ordering.

use crate::sync::{self, AtomicU32, Futex, Ordering, heavy_barrier, light_barrier, point};
use core::cell::Cell;
use core::hint::black_box;
use core::mem;
#[cfg(not(loom))]
use crossbeam_utils::CachePadded;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Longest uninterrupted sleep: the bound on what a killed peer costs others.
pub const SLICE: Duration = Duration::from_millis(10);

/// When a wait of this length ends; `None`, for ever, when the clock can't tell.
pub(crate) fn deadline(timeout: Duration) -> Option<Instant> {
    if timeout.is_zero() { Some(dawn()) } else { sync::now().checked_add(timeout) }
}

/// What a wait needs once in a process, made while nobody waits: a child that
/// is forked while a thread makes it would never get it.
pub(crate) fn warm_up() {
    dawn();
    sync::spins(0);
}

/// The deadline of waits without time: over whenever they begin.
fn dawn() -> Instant {
    static DAWN: OnceLock<Instant> = OnceLock::new();
    *DAWN.get_or_init(sync::now)
}

/// Whether this is the deadline of a wait without time, in truth a poll.
pub(crate) fn is_poll(deadline: Option<Instant>) -> bool {
    deadline == Some(dawn())
}

/// Whether a deadline has passed: for loops whose waits may end at once.
pub(crate) fn is_over(deadline: Option<Instant>) -> bool {
    deadline.is_some_and(|at| sync::now() >= at)
}

/// Whether a long spin before a sleep pays: learnt by each end from its waits.
///
/// A long one is somewhat longer than being woken takes, so that who asks somebody who has
/// to be woken for it does not fall asleep just before the answer. When several in a row
/// were in vain, what is waited for is rare: then most waits spin for a moment only, and one
/// now and then for long, to see. One that was not in vain brings the long ones back.
pub(crate) struct Patience {
    /// Long spins in vain since the last that was not.
    in_vain: Cell<u32>,
    /// Short ones until the next trial.
    short: Cell<u32>,
}

/// A long spin. Being woken took 24 to 39 µs where it was measured (docs/performance.md).
const LONG: Duration = Duration::from_micros(50);

/// A short one.
const SHORT: Duration = Duration::from_micros(2);

/// Long spins in vain that are enough. (More than one, or who waits by turns for long and
/// for a moment would spin only when it is in vain.)
const ENOUGH: u32 = 3;

/// Short spins for each long one then.
const RARELY: u32 = 16;

impl Patience {
    pub(crate) fn new() -> Self {
        Patience { in_vain: Cell::new(0), short: Cell::new(0) }
    }

    /// How long the next wait spins.
    fn spin(&self) -> Duration {
        match self.short.get().checked_sub(1) {
            Some(left) => {
                self.short.set(left);
                SHORT
            }
            None => LONG,
        }
    }

    /// Something came in a spin, or while a sleep was announced.
    fn paid(&self) {
        self.in_vain.set(0);
        self.short.set(0);
    }

    /// Nothing came in a long spin.
    fn in_vain(&self) {
        let in_vain = (self.in_vain.get() + 1).min(ENOUGH);
        self.in_vain.set(in_vain);
        self.short.set(if in_vain == ENOUGH { RARELY } else { 0 });
    }
}

/// Looks between two readings of the clock in a spin: a microsecond, or two.
const LOOKS: u32 = 32;

/// Most readings in a spin, in case that the clock stands still.
const READINGS: u32 = 1000;

/// Looks in a [`glance`]: between one and two microseconds.
const GLANCES: u32 = 64;

/// Looks for what may be about to come, the shortest way that there is: who
/// waits for an answer that takes a fraction of a microsecond should not spend
/// as much again on the way into a wait and out of it. `None` says nothing.
#[inline(always)]
pub(crate) fn glance<R>(
    deadline: Option<Instant>,
    mut look: impl FnMut() -> Option<R>,
) -> Option<R> {
    if is_poll(deadline) {
        return None;
    }
    for _ in 0..sync::spins(GLANCES) {
        if let Some(found) = look() {
            return Some(found);
        }
        sync::spin_loop();
    }
    None
}

/// Set while somebody may be asleep.
const SLEEPING: u32 = 1;

/// The shared part of a wait: lies in the segment beside what is waited for.
#[repr(C, align(128))]
#[derive(Default)]
pub(crate) struct Event {
    futex: Futex,
}

/// A process's view of an [`Event`].
#[derive(Clone, Copy)]
pub(crate) struct Waiter<'a> {
    event: &'a Event,
    /// The event's word where barriers are asymmetric, or else [`PERHAPS`].
    flag: &'a AtomicU32,
    /// Barriers are asymmetric: sleepers run `membarrier`, notifiers nothing.
    asymmetric: bool,
}

/// Stands in for an event's word where notifiers need a fence before they may look at that.
/// It always says maybe, so that the usual case has one branch in both modes.
#[cfg(not(loom))]
static PERHAPS: CachePadded<AtomicU32> = CachePadded::new(AtomicU32::new(SLEEPING));

/// What a waiting party learnt from one look.
pub(crate) enum Look<R> {
    /// What was waited for is here.
    Ready(R),
    /// Not yet.
    NotYet,
}

impl<'a> Waiter<'a> {
    pub(crate) fn new(event: &'a Event, asymmetric: bool) -> Self {
        let word = &event.futex.word;
        // Models have no statics: see `may_be_awaited`.
        #[cfg(loom)]
        let flag = word;
        #[cfg(not(loom))]
        let flag = if asymmetric { word } else { &PERHAPS };
        Waiter { event, flag, asymmetric }
    }

    /// Wakes sleepers, if there are any. Call after the publication. Without
    /// sleepers this is a load of a line that nobody writes, and a fence where barriers
    /// are not asymmetric.
    #[inline(always)]
    pub(crate) fn notify(&self) {
        if self.may_be_awaited() {
            self.wake_awaited();
        }
    }

    /// The same for a caller with a value at hand: in the usual case a short one
    /// stays in its registers, which it would not if it had to survive a call. (A long
    /// one is not copied for that.)
    #[inline(always)]
    pub(crate) fn notify_with<T: Copy>(&self, value: T) -> T {
        if const { size_of::<T>() > 64 } {
            self.notify();
            return value;
        }
        if !self.may_be_awaited() {
            return value;
        }
        let mut kept = value;
        black_box(&mut kept);
        self.wake_awaited();
        *black_box(&mut kept)
    }

    /// Whether somebody sleeps, or whether it takes a fence to tell.
    #[inline(always)]
    fn may_be_awaited(&self) -> bool {
        // As if `PERHAPS` had been read. Before the barrier, which is a fence in models and
        // would hide the one in `wake_awaited`.
        if cfg!(loom) && !self.asymmetric {
            return true;
        }
        light_barrier(true);
        // Edge W: where `flag` is the event's word, the barrier above pairs with the one
        // in `prepare`.
        self.flag.load(Ordering::Relaxed) & SLEEPING != 0
    }

    #[cold]
    fn wake_awaited(&self) {
        light_barrier(self.asymmetric);
        // Edge W: where `flag` is not the event's word, the barrier above pairs with the one
        // in `prepare`.
        if self.event.futex.word.load(Ordering::Relaxed) & SLEEPING != 0 {
            self.wake();
        }
    }

    /// Wakes sleepers whatever the flag says.
    #[cold]
    pub(crate) fn wake(&self) {
        // For callers that did not come through `notify`.
        light_barrier(self.asymmetric);
        let word = &self.event.futex.word;
        let seen = word.load(Ordering::Relaxed);
        // Next count, flag clear. Losing the race means that somebody else
        // advanced the count, which is all that a sleeper needs; the flag may
        // then be set again by a sleeper that has yet to look, and stays.
        let next = (seen | SLEEPING).wrapping_add(1);
        let _ = word.compare_exchange(seen, next, Ordering::Relaxed, Ordering::Relaxed);
        point("wake.count");
        self.event.futex.wake_all();
        point("wake.futex");
    }

    /// Announces a sleeper; returns the word to sleep on. The caller must look
    /// once more before it calls `sleep`.
    pub(crate) fn prepare(&self) -> u32 {
        let ticket = self.event.futex.word.fetch_or(SLEEPING, Ordering::Relaxed) | SLEEPING;
        point("sleep.flag");
        // Edge W: pairs with the light barrier in `may_be_awaited` or `wake_awaited`.
        heavy_barrier(self.asymmetric);
        ticket
    }

    fn sleep(&self, ticket: u32, timeout: Duration) {
        self.event.futex.wait(ticket, timeout);
    }

    /// Looks until `look` finds something or the deadline passes (`None`):
    /// first spinning, for as long as the end has `patience`, then asleep in slices.
    ///
    /// `check` runs before the first sleep and then once a slice at most: the
    /// place to ask whether a peer has died. Its argument says whether a whole
    /// slice went by since the last time. When it reports a change, the wait
    /// looks again before it sleeps. In a wait without time it runs once,
    /// between two looks.
    pub(crate) fn until<R>(
        &self,
        deadline: Option<Instant>,
        patience: &Patience,
        mut look: impl FnMut() -> Look<R>,
        mut check: impl FnMut(bool) -> bool,
    ) -> Option<R> {
        // No time to sleep in, so no sleeper to announce.
        if is_poll(deadline) {
            if let Look::Ready(found) = look() {
                return Some(found);
            }
            return match check(false).then(look) {
                Some(Look::Ready(found)) => Some(found),
                _ => None,
            };
        }
        let (start, spin) = (sync::now(), patience.spin());
        let end = deadline.map_or(start + spin, |at| at.min(start + spin));
        for reading in 0..sync::spins(READINGS) {
            for _ in 0..LOOKS {
                if let Look::Ready(found) = look() {
                    // What came at once would have come in a short one, too.
                    if reading > 0 {
                        patience.paid();
                    }
                    return Some(found);
                }
                sync::spin_loop();
            }
            if sync::now() >= end {
                break;
            }
        }
        // Not for want of time.
        let mut in_vain = spin == LONG && deadline.is_none_or(|at| at > end);
        let mut checked: Option<Instant> = None;
        loop {
            let ticket = self.prepare();
            if let Look::Ready(found) = look() {
                if checked.is_none() {
                    patience.paid();
                }
                return Some(found);
            }
            if mem::take(&mut in_vain) {
                patience.in_vain();
            }
            let mut now = sync::now();
            if deadline.is_some_and(|at| now >= at) {
                // A wait that was too short for a sleep asks about the dead all
                // the same, so that short ones in a row do.
                let changed = checked.is_none() && check(false);
                return match changed.then(look) {
                    Some(Look::Ready(found)) => Some(found),
                    _ => None,
                };
            }
            let slice_over = checked.is_some_and(|at| now.duration_since(at) >= SLICE);
            if checked.is_none() || slice_over {
                checked = Some(now);
                if check(slice_over) {
                    continue;
                }
                // Recovering a dead peer takes its time.
                now = sync::now();
            }
            let left = deadline.map_or(SLICE, |at| at.saturating_duration_since(now));
            self.sleep(ticket, left.min(SLICE));
            // Most often it is here: to announce the next sleep first would cost
            // the one just woken a barrier.
            if let Look::Ready(found) = look() {
                return Some(found);
            }
        }
    }
}

/// When those who poll, or wait for a little again and again, ask who is alive:
/// once a slice, as those who wait.
pub(crate) struct Polls {
    /// Fruitless polls since the counter or the clock was looked at.
    misses: Cell<u32>,
    /// How many there may be until one of them is looked at: one for slow pollers,
    /// more and more for fast ones.
    patience: Cell<u32>,
    looked: Cell<Instant>,
    checked: Cell<Instant>,
    /// Ticks of the processor's counter when the clock was due last, and how often it was
    /// left alone since.
    ticks: Cell<u64>,
    spared: Cell<u32>,
}

/// Most fruitless polls between two looks at the counter, or the clock.
const MISSES_PER_LOOK: u32 = 32;

/// Ticks in which the clock is not looked at again: 25 to 130 µs. (Who polls in a round trip
/// of 150 ns would else look in one of five, which takes 35 ns.)
const SOON: u64 = 1 << 17;

/// How often at most, in case that the counter stands still.
const SPARED: u32 = 16;

impl Polls {
    pub(crate) fn new() -> Self {
        let now = sync::now();
        Polls {
            misses: Cell::new(0),
            patience: Cell::new(1),
            looked: Cell::new(now),
            checked: Cell::new(now),
            ticks: Cell::new(0),
            spared: Cell::new(SPARED),
        }
    }

    /// After a fruitless poll: whether it is time. A poll that is `urgent` looks
    /// at the clock in any case.
    #[inline]
    pub(crate) fn is_due(&self, urgent: bool) -> bool {
        self.is_due_at(urgent, sync::ticks)
    }

    #[inline]
    fn is_due_at(&self, urgent: bool, ticks: impl FnOnce() -> Option<u64>) -> bool {
        let misses = self.misses.get() + 1;
        self.misses.set(misses);
        let patience = self.patience.get();
        // Whom the clock has not found to be fast never trusts the counter.
        let spared = || patience == MISSES_PER_LOOK && self.is_soon(ticks());
        (urgent || misses >= patience && !spared()) && self.slice_is_over()
    }

    /// Whether the clock was looked at a moment ago, if the counter says so.
    fn is_soon(&self, ticks: Option<u64>) -> bool {
        let Some(now) = ticks else { return false };
        let soon = now.wrapping_sub(self.ticks.get()) < SOON && self.spared.get() < SPARED;
        if soon {
            self.misses.set(0);
            self.spared.set(self.spared.get() + 1);
        } else {
            self.ticks.set(now);
            self.spared.set(0);
        }
        soon
    }

    /// Whether a slice went by since this was last true.
    pub(crate) fn slice_is_over(&self) -> bool {
        let now = sync::now();
        let fast = now.duration_since(self.looked.get()) < SLICE / 10;
        let patience = if fast { self.patience.get() * 2 } else { 1 };
        self.patience.set(patience.min(MISSES_PER_LOOK));
        self.looked.set(now);
        self.misses.set(0);
        let over = now.duration_since(self.checked.get()) >= SLICE;
        if over {
            self.checked.set(now);
        }
        over
    }
}

#[cfg(all(test, loom))]
#[path = "wait_models.rs"]
mod models;

#[cfg(all(test, not(loom)))]
#[path = "wait_tests.rs"]
mod tests;
