//! A cell of the tables: a system at a task, and the samples that were taken of it.

use super::channel::Kind;
use super::ground::Ground;
use super::roles::{Received, Trips};
use serde::Serialize;

/// What is measured in one go. (Cells are measured in this order.)
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Task {
    pub kind: Kind,
    pub bytes: usize,
    pub producers: usize,
    pub consumers: usize,
}

/// What came of it once.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    Trips(Trips),
    Stream(Received),
    Failed(String),
}

impl Outcome {
    /// Of round trips: what is asked for of them.
    pub fn trips(&self, figure: impl Fn(&Trips) -> u64) -> Option<f64> {
        match self {
            Outcome::Trips(trips) => Some(figure(trips) as f64),
            _ => None,
        }
    }

    /// Of a stream: messages per second.
    pub fn rate(&self) -> Option<f64> {
        match self {
            Outcome::Stream(all) => Some(all.messages as f64 / all.seconds),
            _ => None,
        }
    }
}

/// A sample of a turn.
#[derive(Clone, Serialize)]
pub struct Sample {
    pub outcome: Outcome,
    /// The floors just before and after.
    pub floor: [Ground; 2],
    /// They were not what they were for most of the run.
    pub dropped: bool,
}

/// One cell of the tables.
#[derive(Clone, Serialize)]
pub struct Cell {
    pub system: &'static str,
    pub task: Task,
    /// One of each turn, in their order. The last may have failed.
    pub samples: Vec<Sample>,
}

impl Cell {
    pub fn new(system: &'static str, task: Task) -> Cell {
        Cell { system, task, samples: Vec::new() }
    }

    /// Why it failed, if it did.
    pub fn failed(&self) -> Option<&str> {
        self.samples.iter().find_map(|sample| match &sample.outcome {
            Outcome::Failed(error) => Some(error.as_str()),
            _ => None,
        })
    }

    /// Whether all samples are dropped.
    pub fn is_dropped(&self) -> bool {
        self.samples.iter().all(|sample| sample.dropped)
    }

    /// Samples that count: those that are not dropped, or all if there are no others.
    pub fn counting(&self) -> impl Iterator<Item = &Sample> {
        let all = self.is_dropped();
        self.samples.iter().filter(move |sample| all || !sample.dropped)
    }

    /// A figure of the samples that count.
    pub fn spread(&self, figure: impl Fn(&Outcome) -> Option<f64>) -> Option<Spread> {
        Spread::of(self.counting().filter_map(|sample| figure(&sample.outcome)).collect())
    }
}

/// The median of some figures, and how far they reach.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    pub median: f64,
    pub least: f64,
    pub most: f64,
    pub count: usize,
}

impl Spread {
    /// Of all of these; `None` of none.
    pub fn of(mut all: Vec<f64>) -> Option<Spread> {
        all.sort_by(f64::total_cmp);
        let (least, most) = (*all.first()?, *all.last()?);
        let count = all.len();
        let median = f64::midpoint(all[(count - 1) / 2], all[count / 2]);
        Some(Spread { median, least, most, count })
    }
}
