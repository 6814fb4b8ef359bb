//! A message there and back.

use super::Bench;
use super::floors::{Beside, Floor};
use crate::Result;
use crate::measure::peer::{self, Course};
use crate::measure::protocol::RoundTrips;
use crate::measure::times::Times;
use crate::report::Grouped;
use hdrhistogram::Histogram;
use serde::Serialize;
use std::fmt;

pub const TITLE: &str = "Round trips between two processes, in ns: polling (try_recv again and \
                         again, never asleep) or blocking (recv)";

/// A figure.
#[derive(Serialize)]
pub struct Row {
    #[serde(flatten)]
    course: Course,
    processes: usize,
    #[serde(flatten)]
    times: Times,
    #[serde(flatten)]
    pub beside: Beside,
}

/// Measures one, and gives all its times.
pub fn measure(bench: &mut Bench, course: Course) -> Result<(Row, Histogram<u64>)> {
    let (segment, there, length) = (bench.segment(), bench.there(), bench.length);
    let job = || peer::run(course, &segment, there, RoundTrips(length));
    let (record, around) = bench.floors.around(Floor::Line, job)?;
    let times = Times::of(&record);
    let beside = around.whole(times.p50_ns as f64);
    Ok((Row { course, processes: 2, times, beside }, record))
}

/// Of the columns.
pub fn head() -> String {
    let (way, manner, bytes, slots, trips) = ("", "calls", "bytes", "slots", "trips");
    let (p50, p99, p999, max, floor) = ("p50", "p99", "p99.9", "max", "p50/floor");
    format!(
        "   {way:<23}{manner:<9}{bytes:>6}{slots:>8}{trips:>11}{p50:>10}{p99:>10}{p999:>11}{max:>12}  \
         {floor}"
    )
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Course { way, manner, bytes, slots } = self.course;
        let (way, manner) = (way.name(), manner.name());
        let Times { count, p50_ns, p99_ns, p999_ns, max_ns } = self.times;
        let [count, p50, p99] = [count, p50_ns, p99_ns].map(Grouped);
        let [p999, max] = [p999_ns, max_ns].map(Grouped);
        write!(f, "   {way:<23}{manner:<9}{bytes:>6}{slots:>8}{count:>11}{p50:>10}{p99:>10}")?;
        write!(f, "{p999:>11}{max:>12}  {}", self.beside)
    }
}
