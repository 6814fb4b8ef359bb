//! Step 2: a child sets a value and an array.

use crate::Result;
use crate::child::Role;
use crate::processes::Process;
use crate::scratch::Scratch;
use serde::Serialize;
use slipring::Segment;
use std::fmt;

/// What the parent sees when the child is done.
#[derive(Serialize)]
pub struct Report {
    value: i32,
    array: Vec<i32>,
}

/// The parent's part.
pub fn run(scratch: &Scratch) -> Result<Report> {
    let name = scratch.name("shared-memory");
    let segment =
        Segment::builder(&name).value::<i32>("value").array::<i32>("array", 10).create()?;
    let (value, array) = (segment.value::<i32>("value")?, segment.array::<i32>("array")?);
    Process::start(&Role::Set { segment: name })?.join()?;
    let report = Report { value: value.load(), array: array.snapshot()? };
    if report.value != 5 || !report.array.iter().copied().eq((0..10).map(|i| i * 2)) {
        return Err(format!("the child's values did not arrive:\n{report}").into());
    }
    Ok(report)
}

/// The child's part.
pub fn child(segment: &str) -> Result<()> {
    let segment = Segment::open(segment)?;
    segment.value::<i32>("value")?.store(5);
    let array = segment.array::<i32>("array")?;
    for i in 0..array.len() {
        array.set(i, i as i32 * 2)?;
    }
    Ok(())
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Value: {}\nArray: {:?}", self.value, self.array)
    }
}
