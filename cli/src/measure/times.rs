//! Records of how long something took.

use crate::Result;
use hdrhistogram::Histogram;
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant};

/// What is told of a record, in nanoseconds.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Times {
    pub count: u64,
    pub p50_ns: u64,
    pub p99_ns: u64,
    pub p999_ns: u64,
    pub max_ns: u64,
}

impl Times {
    pub fn of(record: &Histogram<u64>) -> Times {
        let at = |quantile| record.value_at_quantile(quantile);
        Times {
            count: record.len(),
            p50_ns: at(0.5),
            p99_ns: at(0.99),
            p999_ns: at(0.999),
            max_ns: at(1.0),
        }
    }
}

/// An empty record of times in nanoseconds.
pub fn record() -> Result<Histogram<u64>> {
    Ok(Histogram::new_with_bounds(1, 60_000_000_000, 3)?)
}

/// Does it again and again for this long, and at least once; how long each
/// took, with one reading of the clock.
#[inline]
pub fn timed(length: Duration, mut once: impl FnMut(u64) -> Result<()>) -> Result<Histogram<u64>> {
    let mut times = record()?;
    let start = Instant::now();
    let mut last = start;
    for nth in 0.. {
        once(nth)?;
        let now = Instant::now();
        times.saturating_record((now - last).as_nanos() as u64);
        // Recording is not part of the next one.
        last = Instant::now();
        if now - start >= length {
            break;
        }
    }
    Ok(times)
}

/// The time, by the clock that all processes share.
pub fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}
