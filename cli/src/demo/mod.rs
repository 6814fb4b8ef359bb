//! `slipring demo`: each object between real processes, two of which are killed,
//! and what it costs.

mod kill;
pub mod ledger;
pub mod pipe;
mod queue;
pub mod shared_memory;
pub mod stream;
mod table;

use crate::Result;
use crate::machine;
use crate::options::{Pin, pin, places, seconds};
use crate::report::Out;
use crate::scratch::Scratch;
use clap::builder::RangedU64ValueParser;
use ledger::Tally;
use serde::Serialize;

/// Show every object between real processes, kill two of them, and measure
///
/// Each step starts processes of its own. The exit code is not zero if anything
/// was lost, duplicated or reordered, apart from the one message that the killed
/// producer was writing.
#[derive(clap::Args)]
pub struct Options {
    /// Messages through the queue, in all [default: 1000000]
    #[arg(long, value_name = "N", value_parser = RangedU64ValueParser::<u64>::new().range(1..=1_000_000_000))]
    messages: Option<u64>,
    /// Processes that send to the queue
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = RangedU64ValueParser::<usize>::new().range(1..=500))]
    producers: usize,
    /// Processes that receive from the queue
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = RangedU64ValueParser::<usize>::new().range(1..=500))]
    consumers: usize,
    /// Round trips through the pipe [default: 100000]
    #[arg(long, value_name = "N", value_parser = RangedU64ValueParser::<u64>::new().range(1..))]
    round_trips: Option<u64>,
    /// Length of each measurement in the table [default: 0.5]
    #[arg(long, value_parser = seconds)]
    seconds: Option<f64>,
    /// Keep the two processes of the table on these CPUs, such as 0,1, or "none" to leave them to
    /// the scheduler [default: two cores]
    #[arg(long, value_name = "A,B", value_parser = pin)]
    pin: Option<Pin>,
    /// Fewer messages and shorter measurements, unless given
    #[arg(long)]
    quick: bool,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// Everything, as JSON.
#[derive(Serialize)]
struct Report {
    pipe: pipe::Report,
    shared_memory: shared_memory::Report,
    queue: queue::Report,
    kill: kill::Report,
    table: table::Report,
    #[serde(flatten)]
    total: Tally,
    ok: bool,
}

/// Runs the demonstration.
pub fn run(options: &Options) -> Result<()> {
    let out = Out::new(options.json);
    let report = steps(options, out).inspect_err(|error| out.failure(error))?;
    out.document(&report)?;
    if report.ok {
        Ok(())
    } else {
        Err(format!("not everything arrived once and in order: {}", report.total).into())
    }
}

fn steps(options: &Options, out: Out) -> Result<Report> {
    let pick =
        |given: Option<u64>, long, quick| given.unwrap_or(if options.quick { quick } else { long });
    let messages = pick(options.messages, 1_000_000, 20_000);
    let round_trips = pick(options.round_trips, 100_000, 1_000);
    let seconds = options.seconds.unwrap_or(if options.quick { 0.01 } else { 0.5 });
    let (producers, consumers) = (options.producers, options.consumers);

    // Before anything that it cleans up after, and so dropped last.
    let scratch = Scratch::new("demo")?;
    out.title("1. A pipe")?;
    let pipe = pipe::run(&scratch, out, round_trips)?;
    out.text(&pipe)?;
    out.title("\n2. A value and an array in shared memory")?;
    let shared_memory = shared_memory::run(&scratch)?;
    out.text(&shared_memory)?;
    out.title("\n3. A queue")?;
    let queue = queue::run(&scratch, out, messages, producers, consumers)?;
    out.text(&queue)?;
    out.title("\n4. A consumer and a producer are killed")?;
    let kill = kill::run(&scratch, out, messages, producers, consumers)?;
    out.text(&kill)?;
    out.title(&format!("\n5. Two processes, one message per call, {seconds} s for each number"))?;
    let placed_on = places(options.pin, &machine::cpus()?, machine::same_core);
    let table = table::run(&scratch, out, seconds, placed_on)?;
    out.text(&table)?;

    let mut total = queue.tally;
    total += kill.tally;
    let ok = total.is_clean();
    out.text(format_args!("\n{}: {total}", if ok { "All well" } else { "FAILED" }))?;
    Ok(Report { pipe, shared_memory, queue, kill, table, total, ok })
}
