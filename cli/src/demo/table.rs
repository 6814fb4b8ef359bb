//! Step 5: how fast, beside what the operating system has.

use super::child::Role;
use super::measure::{Measured, measure, serve};
use super::transport::{Bytes, Kind, Message, Queues, Streams, Typed};
use crate::Result;
use crate::processes::{self, Process};
use crate::report::{Grouped, Out};
use crate::scratch::Scratch;
use serde::Serialize;
use slipring::{Pipe, Pod, Segment};
use std::fmt;
use std::fs::File;
use std::io::{stdin, stdout};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::Stdio;
use std::time::Duration;

/// Slots of the queues and the typed pipe.
const SLOTS: usize = 1024;
/// Ring of the pipe of bytes: as much as an OS pipe has.
const BYTES: usize = 64 * 1024;
const THERE: &str = "there";
const BACK: &str = "back";

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
    transport: Kind,
    bytes: usize,
    #[serde(flatten)]
    measured: Measured,
}

/// What all measurements have in common.
#[derive(Clone, Copy)]
struct Setup {
    length: Duration,
    placed_on: Option<[usize; 2]>,
}

/// The measuring process.
pub fn run(
    scratch: &Scratch,
    out: Out,
    seconds: f64,
    placed_on: Option<[usize; 2]>,
) -> Result<Report> {
    let cpus = std::thread::available_parallelism()?.get();
    let setup = Setup { length: Duration::from_secs_f64(seconds), placed_on };
    let before = placed_on.map(|[here, _]| processes::pin(here)).transpose()?;
    let bar = out.progress(2 * Kind::ALL.len() as u64, "");
    let mut rows = Vec::new();
    for bytes in [8, 64] {
        for transport in Kind::ALL {
            bar.doing(format!("{}, {bytes} bytes", transport.name()));
            bar.at(rows.len() as u64);
            let segment = scratch.name(&format!("table-{}", rows.len()));
            let measured = match bytes {
                8 => parent::<[u64; 1]>(transport, segment, setup),
                _ => parent::<[u64; 8]>(transport, segment, setup),
            };
            let measured = measured.map_err(|e| format!("{}: {e}", transport.name()))?;
            rows.push(Row { transport, bytes, measured });
        }
    }
    if let Some(before) = before {
        processes::unpin(&before)?;
    }
    let loads = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = loads.split(' ').next().and_then(|load| load.parse().ok());
    Ok(Report { seconds_each: seconds, placed_on, cpus, load, rows })
}

fn parent<M: Message>(kind: Kind, segment: String, setup: Setup) -> Result<Measured> {
    let Setup { length, placed_on } = setup;
    let cpu = placed_on.map(|[_, there]| there);
    let role = Role::Serve { kind, bytes: size_of::<M>(), segment: segment.clone(), cpu };
    // A child that attaches to a segment says when it has.
    let start = || {
        let mut child = Process::start(&role)?;
        child.hear::<()>()?;
        Ok::<_, Box<dyn std::error::Error>>(child)
    };
    let (measured, child) = match kind {
        Kind::Typed => {
            let pipe = Pipe::<M>::create_typed(&segment, SLOTS)?;
            let child = start()?;
            (measure::<M>(Typed(pipe), length)?, child)
        }
        Kind::Bytes => {
            let pipe = Pipe::create(&segment, BYTES)?;
            let child = start()?;
            (measure::<M>(Bytes(pipe), length)?, child)
        }
        Kind::Queue => {
            let segment = queues::<M>(&segment)?;
            let ends = Queues::new(&segment.queue(THERE)?, &segment.queue(BACK)?)?;
            let child = start()?;
            (measure::<M>(ends, length)?, child)
        }
        Kind::OsPipe => {
            let mut child = Process::start(&role)?;
            let (out, back) = child.take_streams()?;
            (measure::<M>(Streams { out, back }, length)?, child)
        }
        Kind::UnixSocket => {
            let (here, there) = UnixStream::pair()?;
            let there = OwnedFd::from(there);
            let child = Process::start_with(&role, there.into(), Stdio::null())?;
            (measure::<M>(Streams { out: here.try_clone()?, back: here }, length)?, child)
        }
    };
    child.join()?;
    Ok(measured)
}

/// A queue each way.
fn queues<M: Pod>(segment: &str) -> Result<Segment> {
    Ok(Segment::builder(segment).queue::<M>(THERE, SLOTS).queue::<M>(BACK, SLOTS).create()?)
}

/// The serving process.
pub fn child(kind: Kind, bytes: usize, segment: &str, cpu: Option<usize>) -> Result<()> {
    if let Some(cpu) = cpu {
        processes::pin(cpu)?;
    }
    match bytes {
        8 => child_of::<[u64; 1]>(kind, segment),
        64 => child_of::<[u64; 8]>(kind, segment),
        _ => Err(format!("no messages of {bytes} bytes").into()),
    }
}

fn child_of<M: Message>(kind: Kind, segment: &str) -> Result<()> {
    match kind {
        Kind::Typed => {
            let pipe = Pipe::<M>::open_typed(segment)?;
            processes::say(&())?;
            serve::<M>(Typed(pipe))
        }
        Kind::Bytes => {
            let pipe = Pipe::open(segment)?;
            processes::say(&())?;
            serve::<M>(Bytes(pipe))
        }
        Kind::Queue => {
            let segment = Segment::open(segment)?;
            let ends = Queues::new(&segment.queue(BACK)?, &segment.queue(THERE)?)?;
            processes::say(&())?;
            serve::<M>(ends)
        }
        Kind::OsPipe => {
            // Around the buffers of the standard library.
            let back = File::from(stdin().as_fd().try_clone_to_owned()?);
            let out = File::from(stdout().as_fd().try_clone_to_owned()?);
            serve::<M>(Streams { out, back })
        }
        Kind::UnixSocket => {
            let socket = UnixStream::from(stdin().as_fd().try_clone_to_owned()?);
            serve::<M>(Streams { out: socket.try_clone()?, back: socket })
        }
    }
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
        for Row { transport, bytes, measured } in &self.rows {
            let (name, rate) = (transport.name(), Grouped(measured.messages_per_second));
            let ns = |ns| format!("{} ns", Grouped(ns));
            let (p50, p99) = (ns(measured.round_trip_p50_ns), ns(measured.round_trip_p99_ns));
            write!(f, "\n   {name:<24}{bytes:>6}{rate:>14}{p50:>17}{p99:>15}")?;
        }
        Ok(())
    }
}
