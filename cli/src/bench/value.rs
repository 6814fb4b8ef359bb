//! Loads and stores of a value, while another process is at it or not.

use super::Bench;
use super::floors::{Beside, Floor};
use crate::Result;
use crate::child::Role;
use crate::measure::message::{Message, with_message};
use crate::measure::times::timed;
use crate::processes::{self, Process};
use crate::report::Grouped;
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use slipring::{Segment, Value};
use std::cell::Cell;
use std::fmt;
use std::hint::black_box;
use std::sync::atomic::{Ordering, compiler_fence};
use std::time::Duration;

pub const TITLE: &str = "Value: loads and stores of one process";

const VALUE: &str = "value";
/// Not zero when the other process shall stop.
const STOP: &str = "stop";

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Access {
    Load,
    Store,
    LoadWhileStored,
    StoreWhileLoaded,
}

impl Access {
    pub const ALL: [Access; 4] =
        [Access::Load, Access::Store, Access::LoadWhileStored, Access::StoreWhileLoaded];

    fn name(self) -> &'static str {
        match self {
            Access::Load => "load, nobody else",
            Access::Store => "store, nobody else",
            Access::LoadWhileStored => "load, the other stores",
            Access::StoreWhileLoaded => "store, the other loads",
        }
    }

    fn stores(self) -> bool {
        matches!(self, Access::Store | Access::StoreWhileLoaded)
    }

    fn is_alone(self) -> bool {
        matches!(self, Access::Load | Access::Store)
    }
}

/// The other process's part: the opposite.
#[derive(Serialize, Deserialize)]
pub struct Part {
    segment: String,
    bytes: usize,
    stores: bool,
    cpu: Option<usize>,
}

/// A figure.
#[derive(Serialize)]
pub struct Row {
    access: Access,
    bytes: usize,
    processes: usize,
    operations: u64,
    ns_per_operation: f64,
    /// Loads that found another value than the one before.
    changes: u64,
    /// What the other process did meanwhile.
    others: u64,
    #[serde(flatten)]
    pub beside: Beside,
}

/// Measures one.
pub fn measure(bench: &mut Bench, access: Access, bytes: usize) -> Result<Row> {
    let (segment, cpu, length) = (bench.segment(), bench.there(), bench.length);
    let part = Part { segment, bytes, stores: !access.stores(), cpu };
    let job = || with_message!(bytes, M => parent::<M>(access, part, length));
    let ((done, times, others), around) = if access.is_alone() {
        let memory = |length| with_message!(bytes, M => memory::<M>(access.stores(), length));
        bench.floors.around_by(Floor::Memory, memory, job)?
    } else {
        bench.floors.around(Floor::Line, job)?
    };
    let ns = each(&times);
    Ok(Row {
        access,
        bytes,
        processes: if access.is_alone() { 1 } else { 2 },
        operations: done.operations,
        ns_per_operation: (ns * 1e3).round() / 1e3,
        changes: done.changes,
        others,
        // Alone, no line moves.
        beside: if access.is_alone() { around.whole(ns) } else { around.one_way(ns) },
    })
}

/// Nanoseconds for an operation: by the median, because the scheduler makes some last for
/// milliseconds.
fn each(times: &Histogram<u64>) -> f64 {
    times.value_at_quantile(0.5) as f64 / SOME as f64
}

/// The floor: the same with memory of this process's own.
fn memory<M: Message>(store: bool, length: Duration) -> Result<f64> {
    let memory = Cell::new(M::zeroed());
    let memory = black_box(&memory);
    let load = || {
        // As far as the compiler knows, something else is there each time.
        compiler_fence(Ordering::SeqCst);
        memory.get()
    };
    let store_to = |message| {
        memory.set(message);
        compiler_fence(Ordering::SeqCst);
    };
    let mut done = Operations::default();
    Ok(each(&timed(length, |_| done.some(load, store_to, store))?))
}

/// What this process did and how long some of it took each time, and what the
/// other one did.
fn parent<M: Message>(
    access: Access,
    part: Part,
    length: Duration,
) -> Result<(Operations, Histogram<u64>, u64)> {
    let segment = Segment::builder(&part.segment).value::<M>(VALUE).value::<u64>(STOP).create()?;
    let (value, stop) = (segment.value::<M>(VALUE)?, segment.value::<u64>(STOP)?);
    let mut other = None;
    if !access.is_alone() {
        let mut child = Process::start(&Role::Bench(super::Part::Value(part)))?;
        child.hear::<()>()?;
        other = Some(child);
    }
    let mut done = Operations::default();
    let times = timed(length, |_| done.some_of(&value, access.stores()))?;
    let mut others = 0;
    if let Some(mut child) = other {
        stop.store(1);
        others = child.hear()?;
        child.join()?;
    }
    Ok((done, times, others))
}

/// The other process: loads or stores until it is told to stop.
pub fn child(part: Part) -> Result<()> {
    if let Some(cpu) = part.cpu {
        processes::pin(&[cpu])?;
    }
    with_message!(part.bytes, M => child_of::<M>(part))
}

fn child_of<M: Message>(part: Part) -> Result<()> {
    let segment = Segment::open(&part.segment)?;
    let (value, stop) = (segment.value::<M>(VALUE)?, segment.value::<u64>(STOP)?);
    let mut done = Operations::default();
    done.some_of(&value, part.stores)?;
    processes::say(&())?;
    while stop.load() == 0 {
        done.some_of(&value, part.stores)?;
    }
    processes::say(&done.operations)
}

/// Operations between two looks at the clock, or at whether to stop.
const SOME: u64 = 1024;

/// What a process did.
#[derive(Default)]
struct Operations {
    operations: u64,
    /// The number last stored, or last loaded.
    last: u64,
    changes: u64,
}

impl Operations {
    #[inline]
    fn some_of<M: Message>(&mut self, value: &Value<M>, stores: bool) -> Result<()> {
        self.some(|| value.load(), |message| value.store(message), stores)
    }

    /// Stores the next numbers; or loads, and checks that the value is whole
    /// and no older than the one before.
    #[inline(always)]
    fn some<M: Message>(
        &mut self,
        load: impl Fn() -> M,
        store: impl Fn(M),
        stores: bool,
    ) -> Result<()> {
        if stores {
            let mut message = M::zeroed();
            for _ in 0..SOME {
                self.last += 1;
                message.stamp(self.last);
                store(message);
            }
        } else {
            for _ in 0..SOME {
                let number = black_box(load()).number()?;
                if number < self.last {
                    return Err(format!("loaded {number} after {}", self.last).into());
                }
                self.changes += u64::from(number != self.last);
                self.last = number;
            }
        }
        self.operations += SOME;
        Ok(())
    }
}

/// Of the columns.
pub fn head() -> String {
    let (access, bytes, operations, ns, floor) =
        ("", "bytes", "operations", "ns each", "bare memory; shared: a line one way");
    format!("   {access:<36}{bytes:>6}{operations:>14}{ns:>13}{:>10}  {floor}", "")
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Row { bytes, ns_per_operation: ns, beside, .. } = self;
        let (access, operations) = (self.access.name(), Grouped(self.operations));
        write!(f, "   {access:<36}{bytes:>6}{operations:>14}{ns:>13.2}{:>10}  {beside}", "")
    }
}
