//! Step 5: how fast, beside what the operating system has.

use crate::Result;
use crate::measure::ends::slots;
use crate::measure::peer::{self, Course};
use crate::measure::protocol::{RoundTrips, Throughput};
use crate::measure::transport::{Manner, Way};
use crate::processes;
use crate::report::{Grouped, Out, per_second};
use crate::scratch::Scratch;
use serde::Serialize;
use std::fmt;
use std::time::Duration;

/// All measurements.
#[derive(Serialize)]
pub struct Report {
    seconds_each: f64,
    /// CPUs of the measuring and the serving process; the scheduler's choice if
    /// there are none.
    placed_on: Option<[usize; 2]>,
    cpus: usize,
    /// How many processes wanted to run in the last minute, on average.
    load: Option<f64>,
    rows: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    transport: Way,
    bytes: usize,
    messages_per_second: u64,
    messages: u64,
    round_trips: u64,
    /// One reading of the clock included.
    round_trip_p50_ns: u64,
    round_trip_p99_ns: u64,
}

/// The measuring process.
pub fn run(
    scratch: &Scratch,
    out: Out,
    seconds: f64,
    placed_on: Option<[usize; 2]>,
) -> Result<Report> {
    let cpus = std::thread::available_parallelism()?.get();
    let before = placed_on.map(|[here, _]| processes::pin(&[here])).transpose()?;
    let there = placed_on.map(|[_, there]| there);
    let length = Duration::from_secs_f64(seconds);
    let bar = out.progress(2 * Way::ALL.len() as u64, "");
    let mut rows = Vec::new();
    for bytes in [8, 64] {
        for transport in Way::ALL {
            bar.doing(format!("{}, {bytes} bytes", transport.name()));
            bar.at(rows.len() as u64);
            let segment = scratch.name(&format!("table-{}", rows.len()));
            let manner = Manner::Blocking;
            let course = Course { way: transport, manner, bytes, slots: slots(bytes, manner) };
            let job = (RoundTrips(length), Throughput(length));
            let (trips, sent) = peer::run(course, &segment, there, job)?;
            rows.push(Row {
                transport,
                bytes,
                messages_per_second: per_second(sent.messages, sent.elapsed),
                messages: sent.messages,
                round_trips: trips.len(),
                round_trip_p50_ns: trips.value_at_quantile(0.5),
                round_trip_p99_ns: trips.value_at_quantile(0.99),
            });
        }
    }
    if let Some(before) = before {
        processes::unpin(&before)?;
    }
    let load = crate::machine::load();
    Ok(Report { seconds_each: seconds, placed_on, cpus, load, rows })
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.placed_on {
            Some([here, there]) => write!(f, "   on CPUs {here} and {there} of {}", self.cpus)?,
            None => write!(f, "   on {} CPUs, wherever the scheduler puts them", self.cpus)?,
        }
        if let Some(load) = self.load {
            write!(f, "; load {load}")?;
        }
        let (name, bytes, rate, p50, p99) = ("", "bytes", "messages/s", "round trip p50", "p99");
        write!(f, "\n   {name:<24}{bytes:>6}{rate:>14}{p50:>17}{p99:>15}")?;
        for row in &self.rows {
            let (name, bytes, rate) =
                (row.transport.name(), row.bytes, Grouped(row.messages_per_second));
            let ns = |ns| format!("{} ns", Grouped(ns));
            let (p50, p99) = (ns(row.round_trip_p50_ns), ns(row.round_trip_p99_ns));
            write!(f, "\n   {name:<24}{bytes:>6}{rate:>14}{p50:>17}{p99:>15}")?;
        }
        Ok(())
    }
}
