//! Messages one way, as many as go.

use super::Bench;
use super::floors::{Beside, Floor};
use crate::Result;
use crate::measure::ends::batch;
use crate::measure::peer::{self, Course};
use crate::measure::protocol::Throughput;
use crate::measure::transport::Manner;
use crate::report::{Grouped, per_second};
use serde::Serialize;
use std::fmt;

pub const TITLE: &str = "Streams from one process to another: one message per call (blocking), \
                         batches, or in place (8 bytes touched)";

/// A figure.
#[derive(Serialize)]
pub struct Row {
    #[serde(flatten)]
    course: Course,
    processes: usize,
    /// Messages per call.
    batch: usize,
    messages: u64,
    messages_per_second: u64,
    ns_per_message: f64,
    /// Of messages, however much of them was touched.
    gb_per_second: f64,
    #[serde(flatten)]
    pub beside: Beside,
}

/// Measures one.
pub fn measure(bench: &mut Bench, course: Course) -> Result<Row> {
    let Course { manner, bytes, .. } = course;
    let (segment, there, length) = (bench.segment(), bench.there(), bench.length);
    let floor = if manner == Manner::InPlace { Floor::Line } else { Floor::Copy };
    let job = || peer::run(course, &segment, there, Throughput(length));
    let (sent, around) = bench.floors.around(floor, job)?;
    let ns = sent.elapsed.as_nanos() as f64 / sent.messages as f64;
    Ok(Row {
        course,
        processes: 2,
        batch: if manner == Manner::Batched { batch(bytes) } else { 1 },
        messages: sent.messages,
        messages_per_second: per_second(sent.messages, sent.elapsed),
        ns_per_message: (ns * 1e3).round() / 1e3,
        gb_per_second: (bytes as f64 / ns * 1e3).round() / 1e3,
        beside: match floor {
            Floor::Copy => around.copy_of(bytes, ns),
            _ => around.one_way(ns),
        },
    })
}

/// Of the columns.
pub fn head() -> String {
    let (way, manner, bytes, slots, rate) = ("", "calls", "bytes", "slots", "messages/s");
    let (ns, volume, floor) = ("ns/message", "GB/s", "a copy; in place: a line");
    format!("   {way:<23}{manner:<13}{bytes:>6}{slots:>8}{rate:>13}{ns:>12}{volume:>10}  {floor}")
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Course { way, manner, bytes, slots } = self.course;
        let way = way.name();
        let manner = match manner {
            Manner::Batched => format!("batches of {}", self.batch),
            _ => manner.name().to_owned(),
        };
        let rate = Grouped(self.messages_per_second);
        let (ns, volume, floors) = (self.ns_per_message, self.gb_per_second, self.beside);
        write!(f, "   {way:<23}{manner:<13}{bytes:>6}{slots:>8}{rate:>13}{ns:>12.1}")?;
        write!(f, "{volume:>10.2}  {floors}")
    }
}
