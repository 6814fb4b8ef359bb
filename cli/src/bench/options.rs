//! What to measure, from the options.

use super::mpmc::Crew;
use super::value::Access;
use super::wake::Woken;
use crate::Result;
use crate::measure::ends::{FEW, slots};
use crate::measure::message::SIZES;
use crate::measure::peer::Course;
use crate::measure::transport::{Manner, Way};
use crate::options::{Pin, pin, seconds};
use clap::ValueEnum;
use clap::builder::RangedU64ValueParser;
use std::path::PathBuf;

/// Measure between processes on this machine, beside what it can do at best
///
/// Each figure stands beside a floor: the time that a bare cache line takes
/// there and back, a bare copy, a bare wake-up, or bare memory, measured just before and just
/// after (wake-ups: in turns). "1.2 x 150 ns" is 1.2 times a floor of 150 ns. A figure whose
/// floor moved by more than a fifth meanwhile is marked with "!", and by "dropped" in JSON:
/// measure again on a quieter machine.
///
/// Every message is checked for its place in the sequence when it arrives.
#[derive(clap::Args)]
pub struct Options {
    /// What to measure; may be repeated
    #[arg(long, value_enum, value_delimiter = ',', default_value = "all")]
    kind: Vec<Kind>,
    /// Sizes of messages in bytes: 8, 48, 64, 256, 1024, 4096 or 65536 [default: 8, 64, 4096 and
    /// 65536; 8 and 64 for value and mpmc]
    #[arg(long, value_name = "BYTES", value_delimiter = ',', value_parser = size)]
    size: Vec<usize>,
    /// Messages that a queue or a pipe holds in round trips and streams, from 1 to 1048576
    /// [default: 8 for round trips; else 1024, or as many as a megabyte holds (at least 16, 256
    /// in place)]
    #[arg(long, value_name = "N", value_parser = RangedU64ValueParser::<usize>::new().range(1..=1 << 20))]
    slots: Option<usize>,
    /// Processes that send and that receive, for mpmc [default: 2x2, 2x1 and 1x2]
    #[arg(long, value_name = "PxC", value_delimiter = ',', value_parser = crew)]
    crew: Vec<Crew>,
    /// Length of each measurement
    #[arg(long, default_value_t = 0.5, value_parser = seconds)]
    pub seconds: f64,
    /// Keep the two sides on these CPUs, such as 0,1, or "none" to leave them to the scheduler
    /// [default: two cores; for mpmc half of the CPUs for each side]
    #[arg(long, value_name = "A,B", value_parser = pin)]
    pub pin: Option<Pin>,
    /// Print one JSON document
    #[arg(long)]
    pub json: bool,
    /// Draw the round trips of the smallest size, percentile by percentile
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,
}

/// What to measure.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// A queue each way: round trips, and throughput one way
    Queue,
    /// The same with a pipe of messages
    Pipe,
    /// The same with a pipe of bytes
    Bytes,
    /// Loads and stores of a value, with and without another process at it
    Value,
    /// A queue between several processes
    Mpmc,
    /// Waking a receiver that sleeps
    Wake,
    /// Everything
    All,
}

fn size(text: &str) -> Result<usize, String> {
    let size = text.parse().ok().filter(|size| SIZES.contains(size));
    size.ok_or_else(|| format!("expected one of {SIZES:?}"))
}

fn crew(text: &str) -> Result<Crew, String> {
    let counts = text.split_once('x').and_then(|(p, c)| Some((p.parse().ok()?, c.parse().ok()?)));
    match counts {
        Some((producers @ 1..=64, consumers @ 1..=64)) => Ok(Crew { producers, consumers }),
        _ => Err("expected two numbers from 1 to 64, such as 2x2".to_owned()),
    }
}

/// One measurement.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    RoundTrip(Course),
    Stream(Course),
    Mpmc(Crew, usize),
    Value(Access, usize),
    Wake(Woken),
}

impl Step {
    /// How many are at work at once.
    pub fn processes(&self) -> usize {
        match self {
            Step::Mpmc(crew, _) => crew.size(),
            _ => 2,
        }
    }
}

/// How many processes send and receive, if nothing else is asked for.
const USUAL: [Crew; 3] = [
    Crew { producers: 2, consumers: 2 },
    Crew { producers: 2, consumers: 1 },
    Crew { producers: 1, consumers: 2 },
];

/// Messages at least this large are measured in place, too.
const LARGE: usize = 4096;

impl Options {
    /// All measurements, in order.
    pub fn plan(&self) -> Result<Vec<Step>> {
        let wanted = |kind| self.kind.contains(&kind) || self.kind.contains(&Kind::All);
        let ways = [(Kind::Pipe, Way::Typed), (Kind::Bytes, Way::Bytes), (Kind::Queue, Way::Queue)];
        let ways: Vec<Way> =
            ways.into_iter().filter(|(kind, _)| wanted(*kind)).map(|(_, way)| way).collect();
        let sized = !ways.is_empty() || wanted(Kind::Value) || wanted(Kind::Mpmc);
        if !self.size.is_empty() && !sized {
            return Err("--size says nothing about wake".into());
        }
        if !self.crew.is_empty() && !wanted(Kind::Mpmc) {
            return Err("--crew is for mpmc alone".into());
        }
        if self.slots.is_some() && ways.is_empty() {
            return Err("--slots is for the kinds queue, pipe and bytes".into());
        }
        if self.svg.is_some() && ways.is_empty() {
            return Err("--svg draws round trips: of the kinds queue, pipe or bytes".into());
        }
        let sizes = |default: &[usize]| {
            let mut sizes = if self.size.is_empty() { default.to_vec() } else { self.size.clone() };
            sizes.sort_unstable();
            sizes.dedup();
            sizes
        };
        let mut steps = Vec::new();
        let mut courses = |manner, least: usize, few, step: fn(Course) -> Step| {
            for bytes in sizes(&[8, 64, 4096, 65536]).into_iter().filter(|&bytes| bytes >= least) {
                let usual = if few { FEW } else { slots(bytes, manner) };
                let slots = self.slots.unwrap_or(usual);
                steps.extend(ways.iter().map(|&way| step(Course { way, manner, bytes, slots })));
            }
        };
        courses(Manner::Polling, 0, true, Step::RoundTrip);
        courses(Manner::Blocking, 0, true, Step::RoundTrip);
        courses(Manner::Blocking, 0, false, Step::Stream);
        courses(Manner::Batched, 0, false, Step::Stream);
        courses(Manner::InPlace, LARGE, false, Step::Stream);
        let crews: &[Crew] = if self.crew.is_empty() { &USUAL } else { &self.crew };
        if wanted(Kind::Mpmc) {
            for bytes in sizes(&[8, 64]) {
                steps.extend(crews.iter().map(|&crew| Step::Mpmc(crew, bytes)));
            }
        }
        if wanted(Kind::Value) {
            for bytes in sizes(&[8, 64]) {
                steps.extend(Access::ALL.map(|access| Step::Value(access, bytes)));
            }
        }
        if wanted(Kind::Wake) {
            steps.extend(Woken::ALL.map(Step::Wake));
        }
        Ok(steps)
    }
}
