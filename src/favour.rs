//! Whether a receiver does its sender a favour.
//!
//! Who has copied a message out of a ring, or read it there, can write to its lines, so that
//! they come over whole when the sender looks at them the next time around
//! ([`own_lines`](crate::memory::own_lines)). Up to [`ALWAYS`] bytes that is hardly ever a
//! loss. Above, it makes up to four times the speed in one place and costs a quarter in
//! another (docs/performance.md): it depends on the processor, on how far its cores are from
//! each other, and on whether the ring fits into their caches. Nobody says so, and a host may
//! move the cores at any time. So a receiver of longer messages tries both now and then, and
//! keeps to what was faster.
//!
//! A trial goes through [`TRIAL`], each step for [`LAPS`] laps of the ring (or [`UNIT`] bytes,
//! if that is more): first until the lines, and the stock in the ring, are what comes of the
//! way that is tried, then by the clock. The better of two times counts for each. When not
//! even the better one is below [`SLOW`], it is not the ring that the receiver waits for, and
//! nothing is learnt. Between two trials there are [`BETWEEN`] units: less than a thirtieth of
//! all bytes come in the way that is slower, and it takes so many until a change is noticed.
//!
//! It is a guess about time, on which nothing rests but time: gaps in a stream, messages of
//! many lengths, few messages in a unit, and a receiver that loses its processor twice can
//! turn a trial the wrong way, until the next one. The receivers of one queue would each find
//! out what is best for itself, while the others' ways, and their trials, decide how fast its
//! sender is. So whoever is not alone when a step is due goes back to the first guess.
//!
//! The clock is the processor's own counter, which costs no system call. Where there is none,
//! the first guess stays.

use crate::memory::is_amd;
use crate::sync::ticks;
use core::cell::Cell;

/// Bytes up to which it is always done.
const ALWAYS: usize = 256;

/// Laps of the ring in a unit, and bytes at least. With one lap, what was measured was the
/// stock in the ring that the way before had left.
const LAPS: usize = 4;
const UNIT: usize = 1 << 20;

/// Units between two trials.
const BETWEEN: usize = 128;

/// The units of a trial: whether in the other way than before, and whether by the clock. In
/// this order a stream that steadily speeds up, or slows down, never speaks for the other.
const TRIAL: [(bool, bool); 7] = [
    (false, false),
    (false, true),
    (true, false),
    (true, true),
    (true, true),
    (false, false),
    (false, true),
];

/// Ticks for a byte from which on something else is slow: 250 to 600 MB/s.
const SLOW: u64 = 8;

/// The other way must be faster by one part in so many.
const CLEARLY: u64 = 16;

/// What one receiver knows. Private to it.
pub(crate) struct Favour {
    /// Whether it does the favour now; `None` as long as it only guesses.
    on: Cell<Option<bool>>,
    /// Bytes still to come until the next step.
    left: Cell<usize>,
    /// Bytes from one step of a trial to the next.
    unit: usize,
    /// Bytes up to which the first guess is that it pays.
    up_to: usize,
    trial: Cell<Trial>,
}

/// A trial under way.
#[derive(Clone, Copy)]
struct Trial {
    /// Steps begun.
    steps: usize,
    /// What was known before, and the way before.
    known: Option<bool>,
    before: bool,
    /// When the step began.
    since: u64,
    /// The better time without, and with.
    best: [u64; 2],
}

impl Favour {
    /// For a ring of so many bytes. The first guess is that it pays up to so many bytes a
    /// message, and for longer ones on AMD's processors.
    pub(crate) fn new(ring: usize, up_to: usize) -> Favour {
        let unit = ring.saturating_mul(LAPS).max(UNIT);
        let trial = Trial { steps: 0, known: None, before: false, since: 0, best: [u64::MAX; 2] };
        Favour {
            on: Cell::new(None),
            // Who receives little never asks for the time.
            left: Cell::new(unit),
            unit,
            up_to,
            trial: Cell::new(trial),
        }
    }

    /// Whether to do it for a message of this length, which takes so many bytes of the ring.
    /// `alone`, whether nobody else receives from it, is asked once a step.
    #[inline(always)]
    pub(crate) fn wants(&self, len: usize, takes: usize, alone: impl FnOnce() -> bool) -> bool {
        len <= ALWAYS || self.wants_long(len, takes, alone)
    }

    // Out of line, or it costs short messages of a byte ring a sixth of their speed.
    #[inline(never)]
    fn wants_long(&self, len: usize, takes: usize, alone: impl FnOnce() -> bool) -> bool {
        match self.left.get().checked_sub(takes) {
            Some(left) => self.left.set(left),
            None => self.step(self.guess(len), if alone() { ticks() } else { None }),
        }
        self.on.get().unwrap_or_else(|| self.guess(len))
    }

    #[inline]
    fn guess(&self, len: usize) -> bool {
        len <= self.up_to || is_amd()
    }

    /// The bytes of a step have come. Without a time there is nothing to learn now.
    #[cold]
    fn step(&self, guess: bool, now: Option<u64>) {
        self.left.set(self.unit);
        let mut trial = self.trial.get();
        let Some(now) = now else {
            if trial.steps > 0 {
                // Or trials that are cut off again and again would be most of a stream.
                self.left.set(self.unit.saturating_mul(BETWEEN));
            }
            self.on.set(None);
            self.trial.set(Trial { steps: 0, ..trial });
            return;
        };
        match trial.steps.checked_sub(1).map(|step| TRIAL[step]) {
            None => {
                let known = self.on.get();
                let before = known.unwrap_or(guess);
                trial = Trial { known, before, best: [u64::MAX; 2], ..trial };
            }
            Some((_, false)) => {}
            Some((other, true)) => {
                let best = &mut trial.best[usize::from(trial.before ^ other)];
                *best = (*best).min(now.wrapping_sub(trial.since));
            }
        }
        if let Some((other, _)) = TRIAL.get(trial.steps) {
            self.on.set(Some(trial.before ^ other));
            trial.steps += 1;
            trial.since = now;
        } else {
            self.on.set(trial.verdict(self.unit));
            self.left.set(self.unit.saturating_mul(BETWEEN));
            trial.steps = 0;
        }
        self.trial.set(trial);
    }
}

impl Trial {
    /// The other way, if it was clearly better, or what was known before.
    fn verdict(&self, unit: usize) -> Option<bool> {
        let time = |on: bool| self.best[usize::from(on)];
        let (same, other) = (time(self.before), time(!self.before));
        let slow = SLOW.saturating_mul(unit as u64);
        let better = other < slow && other < same - same / CLEARLY;
        if better { Some(!self.before) } else { self.known }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const LEN: usize = 1 << 10;

    /// One trial, and what is between it and the next.
    const ROUND: usize = BETWEEN + TRIAL.len();

    /// How many of so many units are received with the favour, where a message takes so many
    /// ticks: of which unit, and whether with it.
    fn with(favour: &Favour, units: usize, ticks: impl Fn(usize, bool) -> u64) -> usize {
        let (mut now, mut with, mut begun) = (u64::MAX - 1000, 0, 0);
        for _ in 0..units * UNIT / LEN {
            match favour.left.get().checked_sub(LEN) {
                Some(left) => favour.left.set(left),
                None => {
                    favour.step(true, Some(now));
                    begun += 1;
                }
            }
            let on = favour.on.get().unwrap_or(true);
            now = now.wrapping_add(ticks(begun, on));
            with += usize::from(on);
        }
        with * LEN / UNIT
    }

    #[test]
    fn it_keeps_to_what_is_faster() {
        let favour = Favour::new(0, 0);
        let slower = 10 * ROUND / 30;
        for _ in 0..2 {
            let better = |_, on| if on { 100 } else { 300 };
            with(&favour, 2 * ROUND, better);
            let units = with(&favour, 10 * ROUND, better);
            assert!(units > 10 * ROUND - slower, "{units} with it");
            let worse = |_, on| if on { 300 } else { 100 };
            with(&favour, 2 * ROUND, worse);
            let units = with(&favour, 10 * ROUND, worse);
            assert!((1..slower).contains(&units), "{units} with it");
        }
    }

    /// What the first trial comes to.
    fn verdict(ticks: impl Fn(usize, bool) -> u64) -> bool {
        let favour = Favour::new(0, 0);
        with(&favour, TRIAL.len() + 3, ticks);
        assert_eq!(favour.trial.get().steps, 0, "there was a trial, and it is over");
        favour.on.get().unwrap_or(true)
    }

    #[test]
    fn what_is_hardly_faster_or_slow_anyway_changes_nothing() {
        let slow = SLOW * LEN as u64;
        assert!(verdict(|_, on| if on { 100 } else { 96 }));
        assert!(!verdict(|_, on| if on { 100 } else { 90 }));
        assert!(verdict(|_, on| if on { 4 * slow } else { 2 * slow }));
        assert!(!verdict(|_, on| if on { 2 * slow } else { slow / 2 }));
    }

    #[test]
    fn neither_an_interruption_nor_a_warm_up_nor_a_trend_decides() {
        let costs = |on| if on { 100 } else { 110 };
        for unit in 1..=TRIAL.len() {
            assert!(verdict(|now, on| costs(on) * if now == unit { 50 } else { 1 }), "{unit}");
        }
        for (nth, (_, by_the_clock)) in TRIAL.iter().enumerate() {
            // Too fast where nobody looks at the clock.
            let unit = nth + 1;
            let fast = |now, on| if now == unit && !by_the_clock { 1 } else { costs(on) };
            assert!(verdict(fast), "{unit}");
        }
        assert!(verdict(|now, _| 1000 + 50 * now as u64));
        assert!(verdict(|now, _| 1000 - 50 * now as u64));
    }

    #[test]
    fn short_messages_get_it_always_and_the_guess_comes_first() {
        let favour = Favour::new(0, LEN);
        let wants = |len| favour.wants(len, len, || true);
        let before = favour.left.get();
        assert!(wants(ALWAYS) && wants(LEN));
        assert_eq!(wants(LEN + 1), is_amd());
        assert_eq!(before - favour.left.get(), 2 * LEN + 1, "short ones are not counted");
    }

    #[test]
    fn without_a_clock_or_with_others_the_guess_stays() {
        let favour = Favour::new(0, LEN);
        for steps in 0..TRIAL.len() as u64 {
            (0..=steps).for_each(|now| favour.step(true, Some(now)));
            favour.step(true, None);
            assert_eq!((favour.on.get(), favour.trial.get().steps), (None, 0));
        }
        for _ in 0..10 * UNIT / LEN {
            assert!(favour.wants(LEN, LEN, || false));
        }
        assert_eq!(favour.on.get(), None);
    }

    #[test]
    fn trials_that_are_cut_off_are_rare() {
        let favour = Favour::new(0, 0);
        let (mut now, mut other) = (0, 0);
        for steps in 0..1000 {
            favour.step(true, if steps % 5 == 4 { None } else { Some(now) });
            let bytes = favour.left.get() as u64;
            now += bytes;
            other += u64::from(favour.on.get() == Some(false)) * bytes;
        }
        assert!(other > 0 && other < now / 30, "{other} of {now}");
    }

    #[test]
    fn what_taught_nothing_leaves_the_guess_for_each_length() {
        let favour = Favour::new(0, LEN);
        with(&favour, TRIAL.len() + 3, |_, _| 100);
        assert_eq!(favour.trial.get().steps, 0, "there was a trial, and it is over");
        assert_eq!((favour.wants(LEN, LEN, || true), favour.on.get()), (true, None));
    }

    #[test]
    fn a_unit_has_some_laps_of_a_large_ring() {
        let favour = Favour::new(UNIT, 0);
        assert_eq!(favour.left.get(), LAPS * UNIT);
        favour.step(true, Some(0));
        assert_eq!(favour.left.get(), LAPS * UNIT);
        Favour::new(usize::MAX, 0).step(true, Some(0));
    }
}
