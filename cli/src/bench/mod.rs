//! `slipring bench`: what everything costs between processes, beside what the
//! machine can do at best.

mod floors;
mod mpmc;
mod options;
mod plot;
mod round_trip;
mod stream;
mod value;
mod wake;

pub use options::Options;

use crate::Result;
use crate::machine::{self, Machine};
use crate::options::places;
use crate::processes;
use crate::report::{Bar, Out};
use crate::scratch::Scratch;
use floors::Floors;
use options::Step;
use plot::Curve;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::time::Duration;

/// Everything, as JSON.
#[derive(Serialize)]
struct Report {
    machine: Machine,
    warnings: Vec<String>,
    seconds_each: f64,
    round_trips: Vec<round_trip::Row>,
    streams: Vec<stream::Row>,
    mpmc: Vec<mpmc::Row>,
    values: Vec<value::Row>,
    wakes: Vec<wake::Row>,
    floors: floors::Report,
    /// How many figures are to be dropped, because their floor moved.
    dropped: usize,
    ok: bool,
}

/// The other processes of the measurements that have their own.
#[derive(Serialize, Deserialize)]
pub enum Part {
    /// Answers the floor's pings.
    PingPong { segment: String, cpu: Option<usize> },
    /// Sends to, or receives from, the queue between several.
    Mpmc(mpmc::Part),
    /// Loads or stores the value.
    Value(value::Part),
    /// Sleeps until it is woken.
    Wake(wake::Part),
}

/// Plays the part.
pub fn child(part: Part) -> Result<()> {
    match part {
        Part::PingPong { segment, cpu } => floors::child(&segment, cpu),
        Part::Mpmc(part) => mpmc::child(part),
        Part::Value(part) => value::child(part),
        Part::Wake(part) => wake::child(part),
    }
}

/// What every measurement needs.
struct Bench<'a> {
    scratch: &'a Scratch,
    floors: Floors,
    length: Duration,
    pin: Option<[usize; 2]>,
    /// The CPUs of each side, where there may be several; none, if the scheduler chooses.
    sides: [Vec<usize>; 2],
    /// Figures so far.
    figures: usize,
}

impl Bench<'_> {
    /// A name for the next figure's segment.
    fn segment(&mut self) -> String {
        self.figures += 1;
        self.scratch.name(&self.figures.to_string())
    }

    /// The other side's CPU.
    fn there(&self) -> Option<usize> {
        self.pin.map(|[_, there]| there)
    }
}

/// Measures.
pub fn run(options: &Options) -> Result<()> {
    let out = Out::new(options.json);
    measure(options, out).inspect_err(|error| out.failure(error))
}

fn measure(options: &Options, out: Out) -> Result<()> {
    let plan = options.plan()?;
    let cpus = machine::cpus()?;
    let pin = places(options.pin, &cpus, machine::same_core);
    let machine = Machine::with(pin)?;
    if let Some(file) = &options.svg {
        plot::try_out(file)?;
    }
    let sides = match (options.pin, pin) {
        (None, Some(_)) => {
            let (first, second) = cpus.split_at(cpus.len() / 2);
            [first.to_vec(), second.to_vec()]
        }
        (_, Some(both)) => both.map(|cpu| vec![cpu]),
        (_, None) => [vec![], vec![]],
    };
    let at_once = plan.iter().map(Step::processes).max().unwrap_or(0);
    let used: BTreeSet<&usize> = sides.iter().flatten().collect();
    let used = if pin.is_some() { used.len() } else { cpus.len() };
    let warnings = machine.warnings(at_once, used);
    out.text(&machine)?;
    out.text(format_args!("{} s for each figure", options.seconds))?;
    for warning in &warnings {
        out.text(format_args!("warning: {warning}"))?;
    }

    // Before anything that it cleans up after, and so dropped last.
    let scratch = Scratch::new("bench")?;
    let length = Duration::from_secs_f64(options.seconds);
    let before = pin.map(|[here, _]| processes::pin(&[here])).transpose()?;
    let floors = Floors::new(&scratch, pin.map(|[_, there]| there), length)?;
    let mut bench = Bench { scratch: &scratch, floors, length, pin, sides, figures: 0 };
    let bar = out.progress(plan.len() as u64, "floors");
    bench.floors.sample_all()?;
    let mut tables = Tables::default();
    for (step, done) in plan.into_iter().zip(0..) {
        bar.at(done);
        tables.measure(step, &mut bench, out, &bar)?;
    }
    bench.floors.sample_all()?;
    let floors = bench.floors.report()?;
    drop(bar);
    out.title("\nFloors")?;
    out.text(&floors)?;
    if let Some(file) = &options.svg {
        tables.curves.push(Curve::floor(bench.floors.line_times()));
        plot::draw(&tables.curves, &machine, file)?;
        out.text(format_args!("\nRound trips drawn in {}", file.display()))?;
    }
    if let Some(before) = before {
        processes::unpin(&before)?;
    }
    if tables.dropped > 0 {
        out.text(format_args!(
            "\n! {} figures are to be dropped: their floor moved by more than a fifth meanwhile",
            tables.dropped
        ))?;
    }
    let Tables { round_trips, streams, mpmc, values, wakes, dropped, .. } = tables;
    out.document(&Report {
        machine,
        warnings,
        seconds_each: options.seconds,
        round_trips,
        streams,
        mpmc,
        values,
        wakes,
        floors,
        dropped,
        ok: true,
    })
}

/// What was measured so far.
#[derive(Default)]
struct Tables {
    round_trips: Vec<round_trip::Row>,
    streams: Vec<stream::Row>,
    mpmc: Vec<mpmc::Row>,
    values: Vec<value::Row>,
    wakes: Vec<wake::Row>,
    /// What `--svg` draws.
    curves: Vec<Curve>,
    dropped: usize,
}

impl Tables {
    fn measure(&mut self, step: Step, bench: &mut Bench, out: Out, bar: &Bar) -> Result<()> {
        match step {
            Step::RoundTrip(course) => {
                bar.doing(format!("round trips, {} bytes", course.bytes));
                let (row, times) = round_trip::measure(bench, course)?;
                self.curves.push(Curve::of(course, times, row.beside.dropped));
                let head = (round_trip::TITLE, round_trip::head());
                self.dropped += usize::from(row.beside.dropped);
                show(&mut self.round_trips, row, head, out, bar)
            }
            Step::Stream(course) => {
                bar.doing(format!("streams, {} bytes", course.bytes));
                let row = stream::measure(bench, course)?;
                self.dropped += usize::from(row.beside.dropped);
                show(&mut self.streams, row, (stream::TITLE, stream::head()), out, bar)
            }
            Step::Mpmc(crew, bytes) => {
                bar.doing(format!("{crew}, {bytes} bytes"));
                let row = mpmc::measure(bench, crew, bytes)?;
                self.dropped += usize::from(row.beside.dropped);
                show(&mut self.mpmc, row, (mpmc::TITLE, mpmc::head()), out, bar)
            }
            Step::Value(access, bytes) => {
                bar.doing(format!("a value, {bytes} bytes"));
                let row = value::measure(bench, access, bytes)?;
                self.dropped += usize::from(row.beside.dropped);
                show(&mut self.values, row, (value::TITLE, value::head()), out, bar)
            }
            Step::Wake(woken) => {
                bar.doing("wake-ups".to_owned());
                let row = wake::measure(bench, woken)?;
                self.dropped += usize::from(row.beside.dropped);
                show(&mut self.wakes, row, (wake::TITLE, wake::head()), out, bar)
            }
        }
    }
}

/// Keeps a row and shows it, the first one below its title.
fn show<R: std::fmt::Display>(
    rows: &mut Vec<R>,
    row: R,
    (title, head): (&str, String),
    out: Out,
    bar: &Bar,
) -> Result<()> {
    bar.aside(|| {
        if rows.is_empty() {
            out.title(&format!("\n{title}"))?;
            out.text(head)?;
        }
        out.text(&row)
    })?;
    rows.push(row);
    Ok(())
}
