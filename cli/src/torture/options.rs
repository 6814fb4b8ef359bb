//! What is asked for.

use super::letter::LEAST_BYTES;
use clap::ValueEnum;
use clap::builder::RangedU64ValueParser;
use serde::{Deserialize, Serialize};

/// Kill processes at random for as long as you like, and check every message
///
/// Producers and consumers are killed, stopped and restarted while they work,
/// half of the killed ones after having been led, instruction by instruction,
/// into the middle of an operation. All keep books in shared memory of what they
/// are about to do and what they have done, so that each message that is missing,
/// or comes twice, can be told from one that had to be. The exit code is not zero
/// if one can't be explained.
#[derive(clap::Args, Clone, Debug)]
pub struct Options {
    /// Length of the run [default: 10, or as long as --kills takes]
    #[arg(long, value_name = "N", value_parser = seconds)]
    pub seconds: Option<f64>,
    /// End after this many kills
    #[arg(long, value_name = "N", value_parser = RangedU64ValueParser::<u64>::new().range(1..))]
    pub kills: Option<u64>,
    /// Processes that send [default: 2, or 1 for a pipe]
    #[arg(long, value_name = "P", value_parser = RangedU64ValueParser::<usize>::new().range(1..=100))]
    pub producers: Option<usize>,
    /// Processes that receive [default: 2, or 1 for a pipe]
    #[arg(long, value_name = "C", value_parser = RangedU64ValueParser::<usize>::new().range(1..=100))]
    pub consumers: Option<usize>,
    /// How often to kill, at most
    #[arg(long, value_name = "K", default_value_t = 50.0, value_parser = rate)]
    pub kills_per_second: f64,
    /// Share of the strikes that stop a process, to let it go on or to kill it
    /// up to 60 ms later
    #[arg(long, value_name = "SHARE", default_value_t = 0.1, value_parser = share)]
    pub stop_share: f64,
    /// Share of the other strikes that lead the victim into an operation; the
    /// rest kills where it happens to be
    #[arg(long, value_name = "SHARE", default_value_t = 0.7, value_parser = share)]
    pub step_share: f64,
    /// What is tortured
    #[arg(long, value_enum, default_value_t = Kind::Queue)]
    pub kind: Kind,
    /// What becomes of a message whose consumer dies (queue)
    #[arg(long, value_enum, default_value_t = Delivery::AtMostOnce)]
    pub delivery: Delivery,
    /// Messages that fit in
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = RangedU64ValueParser::<usize>::new().range(1..=1 << 20))]
    pub slots: usize,
    /// Messages of bytes, from 40 up to this many, instead of values of 64 bytes
    #[arg(long, value_name = "N", value_parser = RangedU64ValueParser::<usize>::new().range(LEAST_BYTES as u64..=1 << 20))]
    pub bytes: Option<usize>,
    /// Side that mostly sleeps, since the other one pauses after each message
    #[arg(long, value_enum, value_name = "SIDE")]
    pub sleep: Option<Side>,
    /// Fail if survivors are held up for longer than this after a kill, the
    /// scheduler's delay not counted
    #[arg(long, value_name = "MS", value_parser = RangedU64ValueParser::<u64>::new().range(1..))]
    pub max_stall: Option<u64>,
    /// Fail if nothing moves for this many seconds
    #[arg(long, value_name = "N", default_value_t = 10.0, value_parser = seconds)]
    pub patience: f64,
    /// Make the choices of an earlier run again
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Print one JSON document
    #[arg(long)]
    pub json: bool,
    /// Misbehave as a broken ring would
    #[arg(long, hide = true, value_enum)]
    pub sabotage: Option<Sabotage>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    Queue,
    /// One way, between one producer and one consumer
    Pipe,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Delivery {
    AtMostOnce,
    AtLeastOnce,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Side {
    Producers,
    Consumers,
}

/// What a broken ring would do, done by a process instead: the test of the
/// test.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sabotage {
    /// A message that was sent does not arrive
    Lose,
    /// A message arrives twice
    Double,
    /// A message arrives changed
    Tear,
    /// Two messages change places
    Swap,
    /// A message is received that its consumer never sees
    Swallow,
    /// A message arrives that nobody sent
    Forge,
    /// The dead keep their leases
    Undead,
}

/// The ring that is tortured, as all of its processes know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shape {
    pub kind: Kind,
    pub delivery: Delivery,
    pub slots: usize,
    pub bytes: Option<usize>,
    pub producers: usize,
    pub consumers: usize,
    pub sleep: Option<Side>,
}

impl Shape {
    pub fn of(options: &Options) -> Result<Shape, String> {
        let ends = match options.kind {
            Kind::Queue => 2,
            Kind::Pipe => 1,
        };
        let (producers, consumers) =
            (options.producers.unwrap_or(ends), options.consumers.unwrap_or(ends));
        if options.kind == Kind::Pipe && (producers, consumers) != (1, 1) {
            return Err("a pipe has one producer and one consumer".to_owned());
        }
        let Options { kind, delivery, slots, bytes, sleep, .. } = *options;
        Ok(Shape { kind, delivery, slots, bytes, producers, consumers, sleep })
    }

    /// Everybody.
    pub fn seats(&self) -> usize {
        self.producers + self.consumers
    }

    /// Who sits there: first the producers, then the consumers.
    pub fn side(&self, seat: usize) -> Side {
        if seat < self.producers { Side::Producers } else { Side::Consumers }
    }

    /// Whether a message that its consumer had taken in place and not released
    /// is delivered again when that one dies.
    pub fn delivers_again(&self) -> bool {
        self.kind == Kind::Pipe || self.delivery == Delivery::AtLeastOnce
    }

    /// Bytes of a byte pipe's ring, which holds about as many of the longest
    /// messages as there are slots.
    pub fn pipe_bytes(&self, longest: usize) -> usize {
        (self.slots * (longest.next_multiple_of(8) + 8)).max(64)
    }

    /// Whether a pipe may have to send a message in pieces; if its consumer
    /// dies between two of them it is lost.
    pub fn in_pieces(&self) -> bool {
        self.kind == Kind::Pipe
            && self.bytes.is_some_and(|longest| longest + 64 > self.pipe_bytes(longest) / 2)
    }
}

impl std::fmt::Display for Side {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Side::Producers => "producer",
            Side::Consumers => "consumer",
        })
    }
}

fn seconds(text: &str) -> Result<f64, String> {
    number(text, 0.1..=1e6, "a number of seconds from 0.1 to 1000000")
}

fn rate(text: &str) -> Result<f64, String> {
    number(text, 0.1..=1000.0, "a number from 0.1 to 1000")
}

fn share(text: &str) -> Result<f64, String> {
    number(text, 0.0..=1.0, "a number from 0 to 1")
}

fn number(text: &str, range: std::ops::RangeInclusive<f64>, what: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if range.contains(&number) => Ok(number),
        _ => Err(format!("expected {what}")),
    }
}
