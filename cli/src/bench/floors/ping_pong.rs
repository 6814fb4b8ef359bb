//! A cache line there and back: two processes, a `Value<u64>` each way, which
//! lies on a line of its own and whose load and store are one plain instruction
//! each.

use crate::bench::Part;
use crate::child::Role;
use crate::measure::times::timed;
use crate::processes::{self, PATIENCE, Process};
use crate::{Result, processes::pin};
use hdrhistogram::Histogram;
use slipring::{Segment, Value};
use std::hint::spin_loop;
use std::time::{Duration, Instant};

const PING: &str = "ping";
const PONG: &str = "pong";
/// Ends a sample.
const STOP: u64 = u64::MAX;

/// The measuring side.
pub struct PingPong {
    // Dropped, and so ended, before the values.
    child: Process,
    ping: Value<u64>,
    pong: Value<u64>,
}

impl PingPong {
    /// Starts the other process; between samples it sleeps.
    pub fn start(name: &str, there: Option<usize>) -> Result<PingPong> {
        let segment = Segment::builder(name).value::<u64>(PING).value::<u64>(PONG).create()?;
        let part = Part::PingPong { segment: name.to_owned(), cpu: there };
        let mut child = Process::start(&Role::Bench(part))?;
        child.hear::<()>()?;
        Ok(PingPong { child, ping: segment.value(PING)?, pong: segment.value(PONG)? })
    }

    /// How long the way there and back takes; both sides pause between looks,
    /// or not.
    pub fn sample(&mut self, pause: bool, length: Duration) -> Result<Histogram<u64>> {
        self.ping.store(0);
        self.pong.store(0);
        self.child.say(&pause)?;
        // It is there when it has answered once.
        self.trip(1, pause)?;
        let times = timed(length, |trip| self.trip(trip + 2, pause))?;
        self.ping.store(STOP);
        self.child.hear::<()>()?;
        Ok(times)
    }

    #[inline(always)]
    fn trip(&self, number: u64, pause: bool) -> Result<()> {
        self.ping.store(number);
        let mut looks = 0_u32;
        let mut since = None;
        while self.pong.load() != number {
            if pause {
                spin_loop();
            }
            looks = looks.wrapping_add(1);
            if looks == 0 && since.get_or_insert_with(Instant::now).elapsed() > PATIENCE {
                return Err("no answer to a ping".into());
            }
        }
        Ok(())
    }
}

/// The other side.
pub fn child(segment: &str, cpu: Option<usize>) -> Result<()> {
    if let Some(cpu) = cpu {
        pin(&[cpu])?;
    }
    let segment = Segment::open(segment)?;
    let (ping, pong) = (segment.value::<u64>(PING)?, segment.value::<u64>(PONG)?);
    processes::say(&())?;
    loop {
        let pause: bool = processes::hear()?;
        let mut last = 0;
        while last != STOP {
            let number = ping.load();
            if number != last {
                pong.store(number);
                last = number;
            } else if pause {
                spin_loop();
            }
        }
        processes::say(&())?;
    }
}
