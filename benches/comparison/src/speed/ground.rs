//! What the machine is like at a moment: three floors, looked at between any two
//! samples. A host may move the processors, or give others a part of them; each floor
//! shows some of that, and none shows all.

use super::cell::Cell;
use super::channel::System;
use super::measure::{self, Run};
use super::systems::sketch;
use super::{Options, floors};
use crate::Result;
use serde::Serialize;
use std::time::{Duration, Instant};

/// How far a floor may move, as a part of itself.
const MOVED: f64 = 0.2;

/// How long to wait for the floor that was asked for, and from one look to the next.
const PATIENCE: Duration = Duration::from_secs(60);
const BREATH: Duration = Duration::from_millis(200);

/// Bytes that are copied at a time, and their words.
const COPIED: usize = 1 << 16;
const WORDS: usize = COPIED / 8;

/// The floors of a moment, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Ground {
    /// A cache line there and back, the faster way to spin: the median, and the 99th
    /// percentile, which says nothing about whether anything moved.
    pub line: f64,
    pub line_p99: f64,
    /// A thousand steps of arithmetic, both processors at it.
    pub arithmetic: f64,
    /// 64 KiB copied in by one core and out by the other.
    pub copy: f64,
}

impl Ground {
    /// Bytes per second that the copy carries.
    pub fn bandwidth(&self) -> f64 {
        COPIED as f64 * 1e9 / self.copy
    }

    fn look(run: Run) -> Result<Ground> {
        type Copy = <sketch::Copy as System>::Channel<WORDS>;
        let copied = measure::stream::<Copy, WORDS>(&sketch::Copy::ABOUT, run, (1, 1), false)?;
        let (plain, pausing) = (floors::line(run, false)?, floors::line(run, true)?);
        let line = if pausing.p50 < plain.p50 { pausing } else { plain };
        Ok(Ground {
            line: line.p50 as f64,
            line_p99: line.p99 as f64,
            arithmetic: floors::arithmetic(run)?,
            copy: copied.seconds * 1e9 / copied.messages as f64,
        })
    }

    fn floors(self) -> [f64; 3] {
        [self.line, self.arithmetic, self.copy]
    }

    /// Whether a floor is not what it is there.
    pub fn moved(self, from: Ground) -> bool {
        let off = |(now, then): (f64, f64)| (now - then).abs() > MOVED * then;
        self.floors().into_iter().zip(from.floors()).any(off)
    }

    fn of(floor: impl Fn(fn(&Ground) -> f64) -> f64) -> Ground {
        Ground {
            line: floor(|ground| ground.line),
            line_p99: floor(|ground| ground.line_p99),
            arithmetic: floor(|ground| ground.arithmetic),
            copy: floor(|ground| ground.copy),
        }
    }
}

/// Looks again and again.
pub struct Watch<'a> {
    run: Run<'a>,
    most: Option<u64>,
    now: Ground,
    /// All looks at which the line was as asked for.
    seen: Vec<Ground>,
}

impl Watch<'_> {
    /// Looks for the first time. Samples take so long, looks a tenth of it.
    pub fn new(options: &Options, sample: Duration) -> Result<Watch<'_>> {
        let length = (sample / 30).clamp(Duration::from_millis(4), Duration::from_millis(40));
        let run = Run { name: "ground", length, cpus: &options.pin };
        let mut watch =
            Watch { run, most: options.floor, now: Ground::default(), seen: Vec::new() };
        watch.look()?;
        Ok(watch)
    }

    /// Looks.
    pub fn look(&mut self) -> Result<Ground> {
        let look = || Ground::look(self.run);
        // A short look fails when a processor is away all the time.
        self.now = look().or_else(|_| look()).or_else(|_| look())?;
        if self.is_near() {
            self.seen.push(self.now);
        }
        Ok(self.now)
    }

    fn is_near(&self) -> bool {
        self.most.is_none_or(|most| self.now.line <= most as f64)
    }

    /// Whether the line was, at the last look, as asked for, and the other floors as in
    /// the better quarter of such looks, but for a fifth. (As these go on while it is waited
    /// for, it is known in the end what can be had.)
    pub fn is_settled(&self) -> bool {
        let quarter = quantile(&self.seen, 0.25);
        let good = |floor: fn(&Ground) -> f64| floor(&self.now) <= floor(&quarter) * (1.0 + MOVED);
        self.most.is_none()
            || self.is_near() && good(|ground| ground.arithmetic) && good(|ground| ground.copy)
    }

    /// The floors as soon as they are as asked for, or what they are when [`PATIENCE`]
    /// ends.
    pub fn settled(&mut self) -> Result<Ground> {
        let from = Instant::now();
        while !self.is_settled() && from.elapsed() < PATIENCE {
            std::thread::sleep(BREATH);
            self.look()?;
        }
        Ok(self.now)
    }
}

/// Of each floor the value below which this part of all lie.
fn quantile(all: &[Ground], part: f64) -> Ground {
    Ground::of(|floor| {
        let mut all: Vec<f64> = all.iter().map(floor).collect();
        all.sort_by(f64::total_cmp);
        all.get((all.len() as f64 * part) as usize).copied().unwrap_or_default()
    })
}

/// Marks the samples beside floors that are not the run's; those.
pub fn judge(cells: &mut [Cell]) -> Ground {
    let samples = cells.iter().flat_map(|cell| &cell.samples);
    let all: Vec<Ground> = samples.flat_map(|sample| sample.floor).collect();
    let median = quantile(&all, 0.5);
    for sample in cells.iter_mut().flat_map(|cell| &mut cell.samples) {
        sample.dropped = sample.floor.into_iter().any(|floor| floor.moved(median));
    }
    median
}
