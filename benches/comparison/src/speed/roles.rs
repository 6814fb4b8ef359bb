//! Runs the sides of a measurement, each on a processor of its own, in threads
//! or processes, and brings back what they saw.
//!
//! Everything happens in forked children, also for systems of one process: a
//! system that hangs or panics costs its own cell.

use super::channel::Place;
use crate::Result;
use crate::os::{self, Forked, Shared};
use serde::{Deserialize, Serialize};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// What the sides of a measurement share besides the system.
#[repr(C)]
#[derive(Default)]
pub struct Board {
    arrived: AtomicU32,
    finished: AtomicU32,
}

impl Board {
    /// Waits until all of `sides` are here.
    pub fn meet(&self, sides: usize) {
        // Release, Acquire: pairs with itself, so that all that was set up
        // before by anybody is seen by everybody.
        self.arrived.fetch_add(1, Ordering::AcqRel);
        while self.arrived.load(Ordering::Acquire) < sides as u32 {
            std::thread::yield_now();
        }
    }

    /// Says that one of `sides` has finished; whether it was the last.
    pub fn finish(&self, sides: usize) -> bool {
        self.finished.fetch_add(1, Ordering::AcqRel) + 1 == sides as u32
    }
}

/// What one side saw.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Saw {
    /// It served.
    Nothing,
    /// Sent so many messages.
    Sent(u64),
    /// Received messages.
    Received(Received),
    /// Made round trips.
    Trips(Trips),
}

/// A consumer's view of a stream.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Received {
    /// All messages.
    pub all: u64,
    /// Messages that were overwritten before they could be received.
    pub lost: u64,
    /// Messages within the measured time.
    pub messages: u64,
    pub seconds: f64,
    /// Messages per second in slices of the time, sorted.
    pub slices: Vec<f64>,
}

/// Times of round trips, in nanoseconds, one reading of the clock included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Trips {
    pub count: u64,
    pub mean: f64,
    pub min: u64,
    pub p50: u64,
    pub p90: u64,
    pub p99: u64,
    pub p999: u64,
    pub max: u64,
}

/// What a side does.
pub type Work<'a> = Box<dyn FnOnce(&Board) -> Result<Saw> + Send + 'a>;

/// A side: where it runs, and what it does.
pub struct Side<'a> {
    pub cpu: usize,
    pub work: Work<'a>,
}

/// Runs all sides until they end.
pub fn run(place: Place, sides: Vec<Side>, within: Duration) -> Result<Vec<Saw>> {
    let shared = Shared::new(size_of::<Board>())?;
    // SAFETY: zeroed, and only ever used as a board.
    let board: &Board = unsafe { shared.at(0) };
    match place {
        Place::Processes => {
            let mut children = Vec::new();
            for side in sides {
                children.push(Forked::start(|| {
                    os::pin(side.cpu)?;
                    (side.work)(board)
                })?);
            }
            os::join(children, within)
        }
        Place::Threads => {
            let child = Forked::start(|| {
                std::thread::scope(|scope| {
                    let threads: Vec<_> = sides
                        .into_iter()
                        .map(|side| {
                            scope.spawn(move || {
                                os::pin(side.cpu)
                                    .and_then(|()| (side.work)(board))
                                    .map_err(|error| error.to_string())
                            })
                        })
                        .collect();
                    threads
                        .into_iter()
                        .map(|thread| Ok(thread.join().map_err(|_| "panicked")??))
                        .collect::<Result<Vec<Saw>>>()
                })
            })?;
            Ok(os::join::<Vec<Saw>>(vec![child], within)?.remove(0))
        }
    }
}
