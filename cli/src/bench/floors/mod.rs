//! Floors: what the machine can do at best, measured beside each figure.
//!
//! | floor | is | under |
//! |-------|----|-------|
//! | line | a cache line there and back between two processes that do nothing else, with or without a pause from look to look, whichever is faster | round trips; half of it, where a line goes one way |
//! | copy | blocks copied in by one core and out by another | streams |
//! | futex | one thread wakes another, which then looks at the clock | wake-ups |
//! | memory | loads and stores of as many bytes that nobody else uses | values |
//! | slots | a compare-and-swap, a store and another one, slot by slot | sending while nobody sleeps |
//!
//! A floor is measured before and after each figure, or, for wake-ups, in turns with it. When
//! it moved by more than a fifth in between, something else went on, and the figure is to be
//! dropped.

mod copy;
mod futex;
mod ping_pong;
pub mod slots;

pub use ping_pong::child;

use crate::Result;
use crate::measure::times::{Times, record, timed};
use crate::report::Grouped;
use crate::scratch::Scratch;
use copy::Copying;
use hdrhistogram::Histogram;
use ping_pong::PingPong;
use serde::Serialize;
use std::fmt;
use std::time::Duration;

/// Shortest measurement of one.
const SHORTEST: Duration = Duration::from_millis(2);

/// How far a floor may move.
const TOLERANCE: f64 = 0.2;

/// A floor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Floor {
    Line,
    Copy,
    Futex,
    Memory,
    Slots,
}

impl Floor {
    /// Those that are the same for all figures, and of which a table tells.
    const COMMON: [Floor; 3] = [Floor::Line, Floor::Copy, Floor::Futex];

    fn name(self) -> &'static str {
        match self {
            Floor::Line => "a cache line there and back",
            Floor::Copy => "copied from core to core",
            Floor::Futex => "a futex's wake-up",
            Floor::Memory => "memory of one's own",
            Floor::Slots => "bare slots",
        }
    }
}

/// All of them, and what they were so far.
pub struct Floors {
    length: Duration,
    ping_pong: PingPong,
    copying: Copying,
    there: Option<usize>,
    /// The values of each: nanoseconds, or gigabytes per second.
    values: [Vec<f64>; Floor::COMMON.len()],
    /// All times of each that has times.
    times: [Histogram<u64>; Floor::COMMON.len()],
}

impl Floors {
    /// Starts what they need. Figures take `length`; floors a part of it.
    pub fn new(scratch: &Scratch, there: Option<usize>, length: Duration) -> Result<Floors> {
        Ok(Floors {
            length: (length / 4).clamp(SHORTEST, Duration::from_millis(100)),
            ping_pong: PingPong::start(&scratch.name("floor"), there)?,
            copying: Copying::new(),
            there,
            values: Default::default(),
            times: [record()?, record()?, record()?],
        })
    }

    /// Measures a common one.
    fn sample(&mut self, floor: Floor) -> Result<f64> {
        let (value, times) = match floor {
            Floor::Copy => (self.copying.sample(self.there, self.length)?, None),
            Floor::Futex => of_times(futex::sample(self.there, self.length)?),
            Floor::Line => {
                let plain = self.ping_pong.sample(false, self.length)?;
                let pausing = self.ping_pong.sample(true, self.length)?;
                let (plain, pausing) = (of_times(plain), of_times(pausing));
                if pausing.0 < plain.0 { pausing } else { plain }
            }
            Floor::Memory | Floor::Slots => return Err("no common floor".into()),
        };
        self.note(floor, value, times.as_ref())?;
        Ok(value)
    }

    /// Keeps a common floor's value, and its times.
    fn note(&mut self, floor: Floor, value: f64, times: Option<&Histogram<u64>>) -> Result<()> {
        let common = Floor::COMMON.iter().position(|common| *common == floor);
        let nth = common.ok_or("no common floor")?;
        self.values[nth].push(value);
        if let Some(times) = times {
            self.times[nth].add(times)?;
        }
        Ok(())
    }

    /// Measures all common ones.
    pub fn sample_all(&mut self) -> Result<()> {
        Floor::COMMON.into_iter().try_for_each(|floor| self.sample(floor).map(drop))
    }

    /// Does it, with a common floor before and after.
    pub fn around<R>(
        &mut self,
        floor: Floor,
        figure: impl FnOnce() -> Result<R>,
    ) -> Result<(R, Around)> {
        let before = self.sample(floor)?;
        let figure = figure()?;
        let after = self.sample(floor)?;
        Ok((figure, Around { floor, before, after }))
    }

    /// Does it, with a floor of its own before and after, which is told how long to take.
    pub fn around_by<R>(
        &self,
        floor: Floor,
        sample: impl Fn(Duration) -> Result<f64>,
        figure: impl FnOnce() -> Result<R>,
    ) -> Result<(R, Around)> {
        let before = sample(self.length)?;
        let figure = figure()?;
        let after = sample(self.length)?;
        Ok((figure, Around { floor, before, after }))
    }

    /// Does a figure in turns with the floor of wake-ups, because how
    /// long a host takes to wake a processor can double for some seconds.
    pub fn in_turns(&mut self, turns: u64, mut turn: impl FnMut() -> Result<()>) -> Result<Around> {
        assert!(turns >= 2, "each half has a turn");
        let mut halves = [record()?, record()?];
        let length = (self.length * 4 / turns as u32).max(SHORTEST);
        for nth in 0..turns {
            halves[(2 * nth / turns) as usize].add(futex::sample(self.there, length)?)?;
            turn()?;
        }
        let [before, after] = halves.each_ref().map(|half| half.value_at_quantile(0.5) as f64);
        for (half, value) in halves.iter().zip([before, after]) {
            self.note(Floor::Futex, value, Some(half))?;
        }
        Ok(Around { floor: Floor::Futex, before, after })
    }

    /// All times of a cache line.
    pub fn line_times(&self) -> &Histogram<u64> {
        &self.times[Floor::Line as usize]
    }

    /// What they were.
    pub fn report(&self) -> Result<Report> {
        let all = Floor::COMMON.into_iter().zip(self.values.iter().zip(&self.times));
        let rows = all.map(|(floor, (values, times))| Row {
            floor,
            unit: if floor == Floor::Copy { "GB/s" } else { "ns" },
            values: values.iter().copied().map(round).collect(),
            times: (!times.is_empty()).then(|| Times::of(times)),
        });
        let clock = timed(self.length, |_| Ok(()))?;
        Ok(Report { rows: rows.collect(), clock_ns: clock.value_at_quantile(0.5) })
    }
}

/// The median of times, and the times.
fn of_times(times: Histogram<u64>) -> (f64, Option<Histogram<u64>>) {
    (times.value_at_quantile(0.5) as f64, Some(times))
}

/// A floor just before a figure and just after.
#[derive(Clone, Copy)]
pub struct Around {
    floor: Floor,
    before: f64,
    after: f64,
}

/// The floor beside a figure.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Beside {
    floor: Floor,
    floor_before: f64,
    floor_after: f64,
    /// What the floor says about the figure, in nanoseconds: of a stream, for one message.
    floor_ns: f64,
    /// The figure in floors.
    times_floor: f64,
    /// Whether the floor moved too far.
    pub dropped: bool,
}

impl Around {
    fn mean(self) -> f64 {
        f64::midpoint(self.before, self.after)
    }

    fn of(self, ns: f64, floor_ns: f64) -> Beside {
        let Around { floor, before, after } = self;
        let moved = (after - before).abs() / before.min(after).max(f64::MIN_POSITIVE);
        Beside {
            floor,
            floor_before: round(before),
            floor_after: round(after),
            floor_ns: round(floor_ns),
            times_floor: round(ns / floor_ns),
            dropped: moved > TOLERANCE,
        }
    }

    /// For a figure of so many nanoseconds: a whole round trip, a wake-up, or an operation.
    pub fn whole(self, ns: f64) -> Beside {
        self.of(ns, self.mean())
    }

    /// For a figure of so many nanoseconds in which a line goes one way.
    pub fn one_way(self, ns: f64) -> Beside {
        self.of(ns, self.mean() / 2.0)
    }

    /// For so many nanoseconds in which so many bytes were copied.
    pub fn copy_of(self, bytes: usize, ns: f64) -> Beside {
        // Gigabytes per second are bytes per nanosecond.
        self.of(ns, bytes as f64 / self.mean())
    }
}

impl fmt::Display for Beside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = if self.dropped { " !" } else { "" };
        let digits = if self.floor_ns < 10.0 { 2 } else { 0 };
        f.pad(&format!("{:.2} x {:.digits$} ns{mark}", self.times_floor, self.floor_ns))
    }
}

fn round(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}

/// What the floors were.
#[derive(Serialize)]
pub struct Report {
    rows: Vec<Row>,
    /// A reading of the clock, which is part of every single time.
    clock_ns: u64,
}

#[derive(Serialize)]
struct Row {
    floor: Floor,
    unit: &'static str,
    /// In the order of the figures.
    values: Vec<f64>,
    times: Option<Times>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Row { floor, values, times, unit } in &self.rows {
            let name = floor.name();
            match times {
                Some(Times { p50_ns, p99_ns, .. }) => {
                    let (p50, p99) = (Grouped(*p50_ns), Grouped(*p99_ns));
                    writeln!(f, "   {name:<34}{p50:>9} {unit} p50 {p99:>9} {unit} p99")?;
                }
                None => {
                    let mean = values.iter().sum::<f64>() / values.len().max(1) as f64;
                    writeln!(f, "   {name:<34}{mean:>9.1} {unit}")?;
                }
            }
        }
        let ns = self.clock_ns;
        write!(f, "   {:<34}{ns:>9} ns, which every single time includes", "a reading of the clock")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn around(floor: Floor, before: f64, after: f64) -> Around {
        Around { floor, before, after }
    }

    #[test]
    fn figures_are_told_in_floors() {
        let lines = around(Floor::Line, 95.0, 105.0);
        assert_eq!(lines.whole(200.0).to_string(), "2.00 x 100 ns");
        assert_eq!(lines.one_way(200.0).to_string(), "4.00 x 50 ns");
        // 64 bytes at 10 bytes per nanosecond take 6.4 ns.
        let copies = around(Floor::Copy, 10.0, 10.0);
        assert_eq!(copies.copy_of(64, 12.8).to_string(), "2.00 x 6.40 ns");
    }

    #[test]
    fn a_figure_is_dropped_when_its_floor_moved() {
        let dropped = |before, after| around(Floor::Copy, before, after).whole(1.0).dropped;
        assert!(!dropped(100.0, 119.0));
        assert!(dropped(100.0, 121.0));
        assert!(dropped(121.0, 100.0));
        assert!(dropped(0.0, 1.0));
        let moved = around(Floor::Futex, 1.0, 2.0).whole(3.0);
        assert_eq!(moved.to_string(), "2.00 x 1.50 ns !");
    }
}
