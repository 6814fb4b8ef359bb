//! `slipring list`.

use super::{SHM, join};
use crate::Result;
use crate::report::{Grouped, Out};
use serde::Serialize;
use slipring::{Error, Segment};
use std::fmt;

/// List the segments of this machine
///
/// A segment that no living process holds is shown as stale, and left as it is.
#[derive(clap::Args)]
pub struct Options {
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct List {
    segments: Vec<Entry>,
}

#[derive(Serialize)]
struct Entry {
    name: String,
    bytes: u64,
    #[serde(flatten)]
    state: State,
}

#[derive(Serialize)]
#[serde(rename_all = "snake_case", tag = "state")]
enum State {
    InUse {
        alive: usize,
        dead: usize,
        objects: Vec<Object>,
    },
    /// No living process holds it.
    Stale,
    /// It can't be opened.
    Closed {
        why: String,
    },
}

#[derive(Serialize)]
struct Object {
    name: String,
    kind: &'static str,
}

/// Lists them.
pub fn run(options: &Options) -> Result<()> {
    let mut segments = Vec::new();
    for file in std::fs::read_dir(SHM)? {
        let file = file?;
        let Ok(name) = file.file_name().into_string() else { continue };
        // It may be gone by now.
        let Ok(metadata) = file.metadata() else { continue };
        let state = match join(&name).and_then(|segment| in_use(&segment)) {
            Ok(state) => state,
            Err(Error::NotASegment { .. } | Error::NotFound { .. } | Error::NameInvalid { .. }) => {
                continue;
            }
            Err(Error::Stale { .. }) => State::Stale,
            Err(error) => State::Closed { why: error.to_string() },
        };
        segments.push(Entry { name, bytes: metadata.len(), state });
    }
    segments.sort_by(|a, b| a.name.cmp(&b.name));
    Out::new(options.json).either(&List { segments })
}

fn in_use(segment: &Segment) -> Result<State, Error> {
    let mut others = segment.participants()?;
    others.retain(|participant| !participant.is_self);
    let alive = others.iter().filter(|participant| participant.alive).count();
    let objects = segment.objects().into_iter();
    Ok(State::InUse {
        alive,
        dead: others.len() - alive,
        objects: objects.map(|o| Object { name: o.name, kind: o.shape.kind }).collect(),
    })
}

impl fmt::Display for List {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.segments.is_empty() {
            return write!(f, "no segments");
        }
        let width = self.segments.iter().map(|entry| entry.name.len()).max().unwrap_or(0).max(4);
        write!(f, "{:width$}  {:>13}  {:>5}  {:>4}  objects", "name", "bytes", "alive", "dead")?;
        for Entry { name, bytes, state } in &self.segments {
            let bytes = Grouped(*bytes);
            write!(f, "\n{name:width$}  {bytes:>13}  ")?;
            match state {
                State::InUse { alive, dead, objects } => {
                    write!(f, "{alive:>5}  {dead:>4}")?;
                    for (i, Object { name, kind }) in objects.iter().enumerate() {
                        write!(f, "{}{kind} {name}", if i == 0 { "  " } else { ", " })?;
                    }
                }
                State::Stale => write!(f, "stale: no living process holds it")?,
                State::Closed { why } => write!(f, "{why}")?,
            }
        }
        Ok(())
    }
}
