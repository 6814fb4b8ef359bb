//! For how long a death holds survivors up, and how late the scheduler is.
//!
//! Everybody writes down the times for which it could not go on. Of these, what
//! has another reason than a death is taken away: while somebody is stopped (the
//! ring rightly waits for it), while nobody at the other side lives to send or to
//! receive, and while the producers pause for the audit. What is left after a
//! kill is the kill's *stall*; of several survivors held up by it, the longest
//! counts. If others are killed meanwhile, the stall goes on for the first one:
//! the histogram errs to the longer side. Against the promise only the time from
//! the last of them is held.

use super::books::{Clock, WORTH_NOTING};
use super::options::Side;
use hdrhistogram::Histogram;
use serde::Serialize;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// From one time to another, in nanoseconds.
pub type Span = (u64, u64);

/// A wait that begins so long after a kill, or later, is not its doing.
const AFTERMATH: u64 = 50_000_000;

/// Where waits and kills of a round meet.
pub struct Scene<'a> {
    /// Who waited, and when.
    pub waits: &'a [(Side, Span)],
    pub kills: &'a [u64],
    /// When somebody was stopped, or all were paused.
    pub excuses: &'a [Span],
    /// When each process of a side was there, and neither dead nor attaching.
    pub alive: &'a [(Side, Span)],
    /// When the control thread was late, and by how much.
    pub late: &'a [(u64, u64)],
}

/// The times in order, joined where they overlap.
fn union(mut spans: Vec<Span>) -> Vec<Span> {
    spans.sort_unstable();
    let mut joined: Vec<Span> = Vec::new();
    for (from, to) in spans {
        match joined.last_mut() {
            Some(last) if from <= last.1 => last.1 = last.1.max(to),
            _ => joined.push((from, to)),
        }
    }
    joined
}

/// The times between.
fn gaps(spans: &[Span]) -> Vec<Span> {
    let mut end = 0;
    let mut gaps = Vec::new();
    for (from, to) in spans {
        gaps.push((end, *from));
        end = *to;
    }
    gaps.push((end, u64::MAX));
    gaps
}

/// How much of a time lies outside of these, which are in order.
fn outside((from, to): Span, excuses: &[Span]) -> u64 {
    let first = excuses.partition_point(|excuse| excuse.1 <= from);
    let excused: u64 = excuses[first..]
        .iter()
        .take_while(|excuse| excuse.0 < to)
        .map(|excuse| excuse.1.min(to) - excuse.0.max(from))
        .sum();
    (to.saturating_sub(from)).saturating_sub(excused)
}

impl Scene<'_> {
    /// What excuses a wait of this side.
    fn excuses(&self, side: Side) -> Vec<Span> {
        let others = self.alive.iter().filter(|(other, _)| *other != side);
        let alone = gaps(&union(others.map(|(_, span)| *span).collect()));
        union(self.excuses.iter().copied().chain(alone).collect())
    }

    /// The stall of each kill, in nanoseconds; and the longest time that a
    /// survivor waited after the last kill in its wait, without the scheduler's
    /// delay.
    pub fn stalls(&self) -> (Vec<u64>, u64) {
        let mut stalls = vec![0; self.kills.len()];
        let mut broken = 0;
        for side in [Side::Producers, Side::Consumers] {
            let excuses = self.excuses(side);
            let late = self.late.iter().map(|(due, by)| (*due, due + by));
            let excuses_or_late = union(excuses.iter().copied().chain(late).collect());
            for (_, (from, to)) in self.waits.iter().filter(|(waiting, _)| *waiting == side) {
                let mut last = *from;
                for (stall, kill) in stalls.iter_mut().zip(self.kills) {
                    if kill < to && *from < kill + AFTERMATH {
                        let start = (*kill).max(*from);
                        *stall = (*stall).max(outside((start, *to), &excuses));
                        last = last.max(start);
                    }
                }
                broken = broken.max(outside((last, *to), &excuses_or_late));
            }
        }
        (stalls, broken)
    }
}

/// A distribution of times.
pub struct Times(Histogram<u64>);

/// It in numbers.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Summary {
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub max_ms: f64,
    pub counted: u64,
}

impl Times {
    pub fn new() -> crate::Result<Times> {
        Ok(Times(Histogram::new_with_bounds(1, 1_000_000_000_000, 3)?))
    }

    pub fn add(&mut self, nanoseconds: u64) {
        self.0.saturating_record(nanoseconds.max(1));
    }

    pub fn summary(&self) -> Summary {
        let ms = |nanoseconds: u64| (nanoseconds as f64 / 1e3).round() / 1e3;
        Summary {
            p50_ms: ms(self.0.value_at_quantile(0.5)),
            p99_ms: ms(self.0.value_at_quantile(0.99)),
            max_ms: ms(self.0.max()),
            counted: self.0.len(),
        }
    }
}

/// A thread that sleeps for a millisecond, and looks how late it wakes.
pub struct Control {
    stop: Arc<AtomicBool>,
    seen: Arc<Mutex<Vec<(u64, u64)>>>,
    thread: Option<JoinHandle<()>>,
}

const NAP: Duration = Duration::from_millis(1);

impl Control {
    pub fn start(clock: Clock) -> Control {
        let (stop, seen) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
        let thread = std::thread::spawn({
            let (stop, seen) = (Arc::clone(&stop), Arc::clone(&seen));
            move || {
                while !stop.load(Ordering::Relaxed) {
                    let due = clock.now() + NAP.as_nanos() as u64;
                    std::thread::sleep(NAP);
                    let late = clock.now().saturating_sub(due);
                    seen.lock().unwrap_or_else(PoisonError::into_inner).push((due, late));
                }
            }
        });
        Control { stop, seen, thread: Some(thread) }
    }

    /// Everything since the last call: when it was to wake, and how late it was.
    pub fn take(&self) -> Vec<(u64, u64)> {
        std::mem::take(&mut *self.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Delays that can matter for a stall.
pub fn worth_keeping(late: &(u64, u64)) -> bool {
    late.1 >= WORTH_NOTING
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn ms(from: u64, to: u64) -> Span {
        (from * MS, to * MS)
    }

    #[test]
    fn spans_are_joined_and_taken_away() {
        let spans = union(vec![ms(5, 7), ms(1, 2), ms(6, 9), ms(2, 3)]);
        assert_eq!(spans, [ms(1, 3), ms(5, 9)]);
        assert_eq!(gaps(&spans), [ms(0, 1), ms(3, 5), (9 * MS, u64::MAX)]);
        assert_eq!(outside(ms(0, 10), &spans), 4 * MS);
        assert_eq!(outside(ms(2, 6), &spans), 2 * MS);
        assert_eq!(outside(ms(10, 12), &spans), 2 * MS);
        assert_eq!(outside(ms(6, 8), &spans), 0);
    }

    #[test]
    fn a_stall_is_what_no_excuse_covers() {
        let both = [(Side::Producers, ms(0, 1000)), (Side::Consumers, ms(0, 1000))];
        let scene = Scene {
            waits: &[(Side::Consumers, ms(90, 130)), (Side::Producers, ms(105, 112))],
            kills: &[100 * MS, 110 * MS, 500 * MS],
            excuses: &[ms(125, 200)],
            alive: &both,
            late: &[(111 * MS, 4 * MS)],
        };
        // From 100 and from 110 to 125; the last kill is at 110.
        assert_eq!(scene.stalls(), (vec![25 * MS, 15 * MS, 0], 11 * MS));
        // With no producer until 120, only what comes after counts.
        let alone = [(Side::Producers, ms(120, 1000)), (Side::Consumers, ms(0, 1000))];
        let scene = Scene { alive: &alone, late: &[], ..scene };
        assert_eq!(scene.stalls(), (vec![7 * MS, 5 * MS, 0], 5 * MS));
    }
}
