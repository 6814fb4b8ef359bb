//! `slipring unlink NAME`.

use crate::Result;
use slipring::Segment;

/// Remove the names of segments
///
/// Processes that are attached go on; new ones don't find it. Damaged segments
/// go, too; files that are no segments stay.
#[derive(clap::Args)]
pub struct Options {
    /// The segments
    #[arg(required = true)]
    name: Vec<String>,
}

/// Removes them: all that it can, and then says what it couldn't.
pub fn run(options: &Options) -> Result<()> {
    let failures: Vec<String> = options
        .name
        .iter()
        .filter_map(|name| Segment::unlink(name).err())
        .map(|error| error.to_string())
        .collect();
    if failures.is_empty() { Ok(()) } else { Err(failures.join("; ").into()) }
}
