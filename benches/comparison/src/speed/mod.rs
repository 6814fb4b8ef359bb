//! `speed`: every system through every measurement that it can do, several times each:
//! turn by turn, so that those that are compared are measured next to each other, with
//! floors looked at between any two.

mod cell;
mod channel;
mod chart;
mod floors;
mod ground;
mod measure;
mod report;
mod roles;
mod systems;
mod targets;

use crate::{Result, versions};
use cell::{Cell, Outcome, Sample, Task};
use channel::{About, Delivery, Kind, Origin, System};
use ground::{Ground, Watch};
use measure::{Run, Wait};
use roles::Trips;
use serde::Serialize;
use std::path::PathBuf;
use std::time::Duration;

#[derive(clap::Args)]
pub struct Options {
    /// Measured seconds of a sample
    #[arg(long, default_value_t = 0.2)]
    seconds: f64,
    /// Samples of a cell, by turns with those of the other systems
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    turns: u32,
    /// Only systems whose name contains this (may be repeated)
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// Only these measurements (may be repeated)
    #[arg(long, value_enum)]
    kind: Vec<Kind>,
    /// The processors to use: two, or one for each side of the largest cell
    #[arg(long, value_delimiter = ',', default_value = "0,1")]
    pin: Vec<usize>,
    /// Takes a sample again if the floor moved meanwhile, this often at most
    #[arg(long, default_value_t = 1)]
    retries: usize,
    /// Measures while a cache line takes at most this long there and back and the other
    /// floors are near the best that was seen (or a minute has passed in waiting for
    /// that): for machines whose host moves the processors
    #[arg(long, value_name = "NS")]
    floor: Option<u64>,
    /// Writes everything that was measured to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Draws a chart to this file
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

/// A floor by its name.
#[derive(Serialize)]
struct Floor {
    name: &'static str,
    trips: Trips,
}

/// Everything.
#[derive(Serialize)]
struct Findings {
    machine: Vec<(&'static str, String)>,
    seconds: f64,
    turns: u32,
    pin: Vec<usize>,
    clock_ns: f64,
    /// The medians of all floors between the samples.
    floor: Ground,
    floors: Vec<Floor>,
    cells: Vec<Cell>,
}

/// A system without its type.
struct Entry {
    about: About,
    run: fn(&About, Run, Task) -> Result<Outcome>,
}

fn entry<S: System>() -> Entry {
    Entry { about: S::ABOUT, run: measure_system::<S> }
}

fn entries() -> Vec<Entry> {
    use systems::*;
    vec![
        entry::<sketch::Copy>(),
        entry::<sketch::OneToOne>(),
        entry::<sketch::ManyToMany>(),
        entry::<slipring::TypedPipe>(),
        entry::<slipring::BytePipe>(),
        entry::<slipring::TheQueue>(),
        entry::<shaq::Spsc>(),
        entry::<shaq::Mpmc>(),
        entry::<ringfire::Spmc>(),
        entry::<ringfire::Mpmc>(),
        entry::<shmem_ipc::ShmemIpc>(),
        entry::<iceoryx2::Iceoryx2>(),
        entry::<cloudtoid::Cloudtoid>(),
        entry::<ipc_channel::IpcChannel>(),
        entry::<kernel::Pipe>(),
        entry::<kernel::UnixSocket>(),
        entry::<in_process::Rtrb>(),
        entry::<in_process::Crossbeam>(),
        entry::<in_process::Disruptor>(),
    ]
}

/// Everything that can be asked of a system.
fn tasks(about: &About) -> Vec<Task> {
    let mut all = Vec::new();
    for &kind in about.kinds {
        let (sizes, sides): (&[usize], &[(usize, usize)]) = match kind {
            Kind::Trip | Kind::TripBlocking => (&[8, 48, 64], &[(1, 1)]),
            Kind::Wake => (&[8], &[(1, 1)]),
            // The floor of a copy is one of copies, not of handshakes.
            Kind::Stream if about.name.starts_with("floor") => (&[1 << 10, 1 << 16], &[(1, 1)]),
            Kind::Stream => (&[8, 64, 1 << 10, 1 << 16], &[(1, 1)]),
            Kind::Batch => (&[8, 64, 1 << 10], &[(1, 1)]),
            Kind::Many | Kind::ManyBatch => (&[8, 64], &[(2, 2), (2, 1), (1, 2)]),
        };
        for &bytes in sizes {
            for &(producers, consumers) in sides {
                if producers <= about.most.0 && consumers <= about.most.1 {
                    all.push(Task { kind, bytes, producers, consumers });
                }
            }
        }
    }
    all
}

fn measure_system<S: System>(about: &About, run: Run, task: Task) -> Result<Outcome> {
    let wait = match task.kind {
        Kind::Trip => Wait::Polling,
        Kind::TripBlocking => Wait::Blocking,
        Kind::Wake => Wait::Paused,
        Kind::Stream | Kind::Batch | Kind::Many | Kind::ManyBatch => {
            return measure_stream::<S>(about, run, task);
        }
    };
    let trips = match task.bytes {
        8 => measure::trips::<S, 1>(run, wait),
        48 => measure::trips::<S, 6>(run, wait),
        64 => measure::trips::<S, 8>(run, wait),
        other => Err(format!("no round trips of {other} bytes").into()),
    };
    trips.map(Outcome::Trips)
}

fn measure_stream<S: System>(about: &About, run: Run, task: Task) -> Result<Outcome> {
    let Task { kind, bytes, producers, consumers } = task;
    let batches = matches!(kind, Kind::Batch | Kind::ManyBatch);
    let sides = (producers, consumers);
    let received = match bytes {
        8 => measure::stream::<S::Channel<1>, 1>(about, run, sides, batches),
        64 => measure::stream::<S::Channel<8>, 8>(about, run, sides, batches),
        0x400 => measure::stream::<S::Channel<128>, 128>(about, run, sides, batches),
        0x10000 => measure::stream::<S::Channel<8192>, 8192>(about, run, sides, batches),
        other => Err(format!("no stream of {other} bytes").into()),
    };
    received.map(Outcome::Stream)
}

/// The system's version, as far as it has one.
fn version(about: &About) -> String {
    match about.origin {
        Origin::Crate(name) => versions::of_crate(name),
        Origin::Kernel => "the kernel's".into(),
        Origin::Here => "part of this program".into(),
    }
}

fn say(line: &str) {
    eprintln!("{line}");
}

pub fn run(options: &Options) -> Result<()> {
    if options.pin.len() < 2 {
        return Err("--pin wants two processors at least".into());
    }
    let length = Duration::try_from_secs_f64(options.seconds)?;
    let floors = measure_floors(options, length)?;
    let entries = entries();
    let mut cells = cells(options, &entries);
    measure_cells(options, length, &mut cells)?;
    let mut cells: Vec<Cell> = cells.into_iter().map(|(_, cell)| cell).collect();
    let floor = ground::judge(&mut cells);
    let findings = Findings {
        machine: versions::of_machine(),
        seconds: options.seconds,
        turns: options.turns,
        pin: options.pin.clone(),
        clock_ns: floors::clock(),
        floor,
        floors,
        cells,
    };
    print!("{}", report::tables(&findings, &entries));
    if let Some(path) = &options.json {
        std::fs::write(path, serde_json::to_string_pretty(&findings)?)?;
    }
    if let Some(path) = &options.svg {
        chart::draw(&findings, &entries, path)?;
    }
    let failed = |cell: &&Cell| cell.failed().is_some() && is_ours(&entries, cell);
    match findings.cells.iter().filter(failed).count() {
        0 => Ok(()),
        failed => Err(format!("{failed} cells of slipring, or of this program, failed").into()),
    }
}

/// Whether it is slipring's, or part of this program: these must not fail.
fn is_ours(entries: &[Entry], cell: &Cell) -> bool {
    entries.iter().any(|entry| {
        let ours = matches!(entry.about.origin, Origin::Here | Origin::Crate("slipring"));
        ours && entry.about.name == cell.system
    })
}

/// The cells that were asked for, those of one task side by side.
fn cells<'a>(options: &Options, entries: &'a [Entry]) -> Vec<(&'a Entry, Cell)> {
    let chosen = |entry: &&Entry| {
        let name = entry.about.name.to_lowercase();
        options.only.is_empty()
            || options.only.iter().any(|part| name.contains(&part.to_lowercase()))
    };
    let all = entries.iter().filter(chosen).flat_map(|entry| {
        tasks(&entry.about).into_iter().map(move |task| (entry, Cell::new(entry.about.name, task)))
    });
    let wanted = |kind| options.kind.is_empty() || options.kind.contains(&kind);
    let mut all: Vec<(&Entry, Cell)> = all.filter(|(_, cell)| wanted(cell.task.kind)).collect();
    all.sort_by_key(|(_, cell)| cell.task);
    all
}

/// Takes all samples, task by task and turn by turn.
fn measure_cells(options: &Options, length: Duration, cells: &mut [(&Entry, Cell)]) -> Result<()> {
    let mut ground = Watch::new(options, length)?;
    let all = cells.len() * options.turns as usize;
    let mut number = 0;
    for row in cells.chunk_by_mut(|(_, one), (_, other)| one.task == other.task) {
        for _ in 0..options.turns {
            for (entry, cell) in &mut *row {
                number += 1;
                // It may have hung, for long.
                if cell.failed().is_some() {
                    continue;
                }
                let sample = take_sample(options, length, &mut ground, entry, cell.task, number)?;
                say(&format!("{number}/{all} {}", report::line(cell, &sample)));
                cell.samples.push(sample);
            }
        }
    }
    Ok(())
}

/// Takes one sample, again if the floor moved meanwhile.
fn take_sample(
    options: &Options,
    length: Duration,
    ground: &mut Watch,
    entry: &Entry,
    task: Task,
    number: usize,
) -> Result<Sample> {
    for attempt in 0.. {
        let name = format!("slipring-compare-{}-{number}-{attempt}", std::process::id());
        let run = Run { name: &name, length, cpus: &options.pin };
        let before = ground.settled()?;
        let outcome = (entry.run)(&entry.about, run, task)
            .unwrap_or_else(|error| Outcome::Failed(error.to_string()));
        let after = ground.look()?;
        let moved = after.moved(before) || !ground.is_settled();
        if !moved || attempt == options.retries {
            return Ok(Sample { outcome, floor: [before, after], dropped: false });
        }
        say("  the floor moved: again");
    }
    unreachable!("the last attempt returns")
}

/// The floors that are tables of their own.
fn measure_floors(options: &Options, length: Duration) -> Result<Vec<Floor>> {
    let run = Run { name: "floor", length, cpus: &options.pin };
    let mut all = Vec::new();
    let mut add = |name, trips: Result<Trips>| -> Result<()> {
        let trips = trips?;
        say(&format!("{name}: {} ns", trips.p50));
        all.push(Floor { name, trips });
        Ok(())
    };
    add("cache line there and back", floors::line(run, false))?;
    add("cache line there and back, spinning with pause", floors::line(run, true))?;
    add("futex wake there and back", floors::futex(run, Duration::ZERO))?;
    add("futex wake there and back, after a pause", floors::futex(run, measure::PAUSE))?;
    Ok(all)
}
