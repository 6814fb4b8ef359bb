//! `slipring recover NAME`.

use super::{exists, join, take};
use crate::Result;
use crate::report::Out;
use serde::Serialize;
use slipring::Error;
use std::fmt;

/// Recover what dead processes hold in a segment
///
/// Nobody needs this to go on: the living do it when they are held up. A segment
/// that only dead processes held is gone afterwards, unless it was made to stay.
#[derive(clap::Args)]
pub struct Options {
    /// The segment
    name: String,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    name: String,
    /// Dead participants recovered; unknown when all were dead.
    recovered: Option<usize>,
    /// Whether the segment is still there.
    exists: bool,
}

/// Recovers it.
pub fn run(options: &Options) -> Result<()> {
    let name = options.name.as_str();
    let recovered = match join(name) {
        Ok(segment) => Some(segment.recover()?),
        Err(Error::Stale { .. }) => {
            take(name)?.recover()?;
            None
        }
        Err(error) => return Err(error.into()),
    };
    let report = Report { name: name.to_owned(), recovered, exists: exists(name) };
    Out::new(options.json).either(&report)
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.name)?;
        match self.recovered {
            Some(recovered) => write!(f, "{recovered} dead participants recovered")?,
            None => write!(f, "no living process held it; recovered")?,
        }
        if self.exists { Ok(()) } else { write!(f, ", and gone with its last user") }
    }
}
