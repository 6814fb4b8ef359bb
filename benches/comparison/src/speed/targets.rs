//! What slipring is to be, as ratios of figures that were measured in the same turn.

use super::cell::{Cell, Sample, Spread};
use super::channel::Kind;
use super::ground::Ground;
use super::systems::{in_process, sketch, slipring};
use super::{About, System};

/// What a target compares with.
enum With {
    /// The other system at the same task.
    System(About),
    /// The cache line there and back beside it.
    Floor,
    /// The bandwidth of 64 KiB copied from core to core beside it.
    Copy,
}

/// What a target wants of the ratio.
#[derive(Clone, Copy)]
pub enum Wanted {
    Least(f64),
    Most(f64),
}

impl Wanted {
    pub fn is_met(self, ratio: f64) -> bool {
        match self {
            Wanted::Least(least) => ratio >= least,
            Wanted::Most(most) => ratio <= most,
        }
    }
}

/// A target, as far as it was measured.
pub struct Target {
    pub what: String,
    pub wanted: Wanted,
    /// Of the turns in which neither side was dropped; or why there is none.
    pub ratio: std::result::Result<Spread, &'static str>,
}

/// All targets of which something was measured.
pub fn targets(cells: &[Cell]) -> Vec<Target> {
    let pipe = || slipring::TypedPipe::ABOUT;
    let queue = || slipring::TheQueue::ABOUT;
    let rtrb = || With::System(in_process::Rtrb::ABOUT);
    let one = (1, 1);
    let mut all = vec![
        target(cells, pipe(), (Kind::Trip, 8, one), "p50", With::Floor, Wanted::Most(1.15)),
        target(cells, pipe(), (Kind::Trip, 8, one), "p99", With::Floor, Wanted::Most(1.5)),
        target(cells, pipe(), (Kind::Trip, 48, one), "p50", With::Floor, Wanted::Most(1.15)),
        target(cells, pipe(), (Kind::Trip, 48, one), "p99", With::Floor, Wanted::Most(1.5)),
        target(cells, queue(), (Kind::Trip, 8, one), "p50", With::Floor, Wanted::Most(1.4)),
        target(cells, pipe(), (Kind::Batch, 8, one), "", rtrb(), Wanted::Least(1.0)),
        target(
            cells,
            pipe(),
            (Kind::Stream, 8, one),
            "",
            With::System(in_process::Disruptor::ABOUT),
            Wanted::Least(1.0),
        ),
        target(cells, pipe(), (Kind::Stream, 64, one), "", rtrb(), Wanted::Least(4.0)),
    ];
    for bytes in [1 << 10, 1 << 16] {
        let task = (Kind::Stream, bytes, one);
        all.push(target(cells, pipe(), task, "", With::Copy, Wanted::Least(0.95)));
    }
    for bytes in [8, 64] {
        for sides in [(2, 2), (2, 1), (1, 2)] {
            let task = (Kind::Many, bytes, sides);
            let crossbeam = With::System(in_process::Crossbeam::ABOUT);
            let vyukov = With::System(sketch::ManyToMany::ABOUT);
            all.push(target(cells, queue(), task, "", crossbeam, Wanted::Least(2.5)));
            all.push(target(cells, queue(), task, "", vyukov, Wanted::Least(0.9)));
        }
    }
    all.into_iter().flatten().collect()
}

/// One target, if both sides were measured. `quantile` of round trips.
fn target(
    cells: &[Cell],
    ours: About,
    (kind, bytes, sides): (Kind, usize, (usize, usize)),
    quantile: &str,
    with: With,
    wanted: Wanted,
) -> Option<Target> {
    let find = |about: &About| {
        cells.iter().find(|cell| {
            let task = cell.task;
            cell.system == about.name
                && (task.kind, task.bytes, (task.producers, task.consumers)) == (kind, bytes, sides)
        })
    };
    let figure = |sample: &Sample| match quantile {
        "p50" => sample.outcome.trips(|trips| trips.p50),
        "p99" => sample.outcome.trips(|trips| trips.p99),
        _ => sample.outcome.rate(),
    };
    let our_cell = find(&ours)?;
    let beside = |floor: &dyn Fn(&Ground) -> f64| {
        let ratio = |sample: &Sample| {
            let [before, after] = sample.floor.each_ref().map(floor);
            Some(figure(sample)? / f64::midpoint(before, after))
        };
        let kept = our_cell.samples.iter().filter(|sample| !sample.dropped);
        kept.filter_map(ratio).collect()
    };
    let mut failed = our_cell.failed().is_some();
    let (name, ratios) = match with {
        With::Floor if quantile == "p99" => ("floor", beside(&|ground| ground.line_p99)),
        With::Floor => ("floor", beside(&|ground| ground.line)),
        With::Copy => ("copy", beside(&|ground| ground.bandwidth() / bytes as f64)),
        With::System(other) => {
            let their_cell = find(&other)?;
            failed |= their_cell.failed().is_some();
            let both = our_cell.samples.iter().zip(&their_cell.samples);
            let kept = both.filter(|(ours, theirs)| !ours.dropped && !theirs.dropped);
            let ratios = kept.filter_map(|(ours, theirs)| Some(figure(ours)? / figure(theirs)?));
            (other.name, ratios.collect())
        }
    };
    let sides = if sides == (1, 1) { "".into() } else { format!(" {}x{}", sides.0, sides.1) };
    let quantile = if quantile.is_empty() { "".into() } else { format!(", {quantile}") };
    let what = format!("{} / {name}: {kind:?}{sides}, {bytes} B{quantile}", ours.name);
    let ratio = if failed { Err("failed") } else { Spread::of(ratios).ok_or("dropped") };
    Some(Target { what, wanted, ratio })
}
