//! `slipring torture`: processes that send and receive, and are killed all the
//! time; and an audit of every message.
//!
//! | file | holds |
//! |------|-------|
//! | `options` | what is asked for |
//! | `letter`, `books` | what a message says; what the processes note in shared memory |
//! | `ends`, `producer`, `consumer` | what the processes do |
//! | `crew`, `strike` | starting, stopping and killing them |
//! | `audit`, `stalls` | what became of each message, and how long it took |
//! | `soak`, `outcome` | the run as a whole, and what is printed |

mod audit;
mod books;
mod consumer;
mod crew;
mod ends;
mod letter;
mod options;
mod outcome;
mod producer;
mod random;
mod soak;
mod stalls;
mod strike;

pub use options::Options;

use crate::Result;
use crate::processes::PATIENCE;
use options::{Sabotage, Shape, Side};
use serde::{Deserialize, Serialize};
use slipring::{Error, Segment};
use std::time::{Duration, Instant};

/// What a producer or consumer is told when it starts.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Part {
    segment: String,
    shape: Shape,
    seat: usize,
    incarnation: u64,
    seed: u64,
    /// When the books' clock was begun.
    begun: u64,
    sabotage: Option<Sabotage>,
}

/// Attaches. While the only entry left is that of a dead one whom somebody else
/// recovers, there is none to be had.
fn attach(part: &Part) -> Result<Segment> {
    let start = Instant::now();
    loop {
        match Segment::open(&part.segment) {
            Err(Error::ParticipantsFull { .. }) if start.elapsed() < PATIENCE => {
                std::thread::sleep(Duration::from_micros(200));
            }
            done => return Ok(done?),
        }
    }
}

/// Plays the part, until told to stop, or killed.
pub fn play(part: &Part) -> Result<()> {
    match part.shape.side(part.seat) {
        Side::Producers => producer::run(part),
        Side::Consumers => consumer::run(part),
    }
}

/// Runs the torture.
pub fn run(options: &Options) -> Result<()> {
    soak::run(options)
}
