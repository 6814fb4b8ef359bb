//! What was measured, as tables in Markdown.

use super::cell::{Cell, Outcome, Sample, Spread, Task};
use super::channel::{Kind, Place};
use super::roles::{Received, Trips};
use super::targets::{self, Wanted};
use super::{Delivery, Entry, Findings, version};
use std::fmt::Write;

/// A sample on a line, as soon as it was taken.
pub fn line(cell: &Cell, sample: &Sample) -> String {
    let Task { kind, bytes, producers, consumers } = cell.task;
    let sides =
        if producers + consumers > 2 { format!(" {producers}x{consumers}") } else { "".into() };
    let what = match &sample.outcome {
        Outcome::Trips(trips) => format!("{} ns, p99 {} ns", trips.p50, trips.p99),
        Outcome::Failed(error) => format!("failed: {error}"),
        stream => {
            let rate = stream.rate().unwrap_or_default();
            format!("{} messages/s, {:.2} GB/s", millions(rate), gigabytes(rate, bytes))
        }
    };
    let [before, after] = sample.floor.map(|floor| {
        format!("{:.0}, {:.0}, {:.1}", floor.line, floor.arithmetic, floor.copy / 1e3)
    });
    format!("{} {kind:?}{sides} {bytes} B: {what} (floors {before}; {after})", cell.system)
}

/// A number with three digits, or all before the point.
fn digits(value: f64) -> String {
    let digits = match value.abs() {
        0.0..1.0 => 3,
        1.0..10.0 => 2,
        10.0..100.0 => 1,
        _ => 0,
    };
    format!("{value:.digits$}")
}

/// Messages per second.
pub fn millions(rate: f64) -> String {
    format!("{} M", digits(rate / 1e6))
}

pub fn gigabytes(rate: f64, bytes: usize) -> f64 {
    rate * bytes as f64 / 1e9
}

/// Nanoseconds, as microseconds when they are many.
fn time(ns: f64) -> String {
    match ns {
        0.0..1e4 => format!("{ns:.0} ns"),
        1e4..1e6 => format!("{:.1} µs", ns / 1e3),
        _ => format!("{:.1} ms", ns / 1e6),
    }
}

/// The median, and from where to where the others reach, if there are any.
fn spread(all: Spread, text: impl Fn(f64) -> String) -> String {
    let Spread { median, least, most, count } = all;
    let middle = text(median);
    if count == 1 {
        return middle;
    }
    // The unit once.
    let number = |value| text(value).split(' ').next().unwrap_or_default().to_owned();
    let same_unit = text(least).split(' ').nth(1) == text(most).split(' ').nth(1);
    let least = if same_unit { number(least) } else { text(least) };
    format!("{middle} ({least} to {})", if same_unit { number(most) } else { text(most) })
}

/// One row of a table: the cells of one system.
type Row<'a> = (&'a Entry, Vec<&'a Cell>);

fn rows<'a>(findings: &'a Findings, entries: &'a [Entry], kind: Kind) -> Vec<Row<'a>> {
    entries
        .iter()
        .map(|entry| {
            let of_it = |cell: &&Cell| cell.system == entry.about.name && cell.task.kind == kind;
            (entry, findings.cells.iter().filter(of_it).collect::<Vec<&Cell>>())
        })
        .filter(|(_, cells)| !cells.is_empty())
        .collect()
}

/// The system's name, and in a word what one must know to compare it.
fn name(entry: &Entry) -> String {
    let about = &entry.about;
    let place = if about.place == Place::Threads { " (threads)" } else { "" };
    format!("{}{place}", about.name)
}

/// The cell for these columns, marked if it was dropped.
fn show(
    cells: &[&Cell],
    wanted: impl Fn(&Task) -> bool,
    columns: usize,
    text: impl Fn(&Cell) -> Option<Vec<String>>,
) -> String {
    let Some(cell) = cells.iter().find(|cell| wanted(&cell.task)) else {
        return " |".repeat(columns);
    };
    if cell.failed().is_some() {
        return " failed |".to_owned() + &" |".repeat(columns - 1);
    }
    let mark = if cell.is_dropped() { " !" } else { "" };
    let texts = text(cell).unwrap_or_default();
    texts.into_iter().map(|text| format!(" {text}{mark} |")).collect()
}

fn header(out: &mut String, columns: &[String]) {
    let _ = writeln!(out, "| | {} |", columns.join(" | "));
    let _ = writeln!(out, "|---{}|", "|---:".repeat(columns.len()));
}

/// A heading, and what is shown of round trips below it.
type Column = (&'static str, fn(&Trips) -> u64);

const QUANTILES: [Column; 4] = [
    ("p50", |trips| trips.p50),
    ("p99", |trips| trips.p99),
    ("p99.9", |trips| trips.p999),
    ("max", |trips| trips.max),
];

fn trip_table(out: &mut String, rows: &[Row], sizes: &[usize]) {
    let columns = sizes
        .iter()
        .flat_map(|bytes| QUANTILES.map(|(quantile, _)| format!("{bytes} B {quantile}")));
    header(out, &columns.collect::<Vec<String>>());
    for (entry, cells) in rows {
        let mut row = format!("| {} |", name(entry));
        for &bytes in sizes {
            row += &show(
                cells,
                |task| task.bytes == bytes,
                QUANTILES.len(),
                |cell| {
                    let all = QUANTILES.iter().map(|(_, figure)| {
                        cell.spread(|outcome| outcome.trips(figure)).map(|all| spread(all, time))
                    });
                    all.collect()
                },
            );
        }
        let _ = writeln!(out, "{row}");
    }
}

fn size(bytes: usize) -> String {
    if bytes < 1 << 10 { format!("{bytes} B") } else { format!("{} KiB", bytes >> 10) }
}

fn stream_table(out: &mut String, rows: &[Row], sizes: &[usize]) {
    let columns = sizes.iter().flat_map(|&bytes| [format!("{} /s", size(bytes)), "GB/s".into()]);
    header(out, &columns.collect::<Vec<String>>());
    for (entry, cells) in rows {
        let mut row = format!("| {} |", name(entry));
        for &bytes in sizes {
            row += &show(
                cells,
                |task| task.bytes == bytes,
                2,
                |cell| {
                    let rate = cell.spread(Outcome::rate)?;
                    let bandwidth = digits(gigabytes(rate.median, bytes));
                    Some(vec![spread(rate, millions), bandwidth])
                },
            );
        }
        let _ = writeln!(out, "{row}");
    }
}

fn many_table(out: &mut String, rows: &[Row]) {
    let columns =
        [(2, 2), (2, 1), (1, 2)].into_iter().flat_map(|sides| [8, 64].map(|bytes| (sides, bytes)));
    let columns: Vec<((usize, usize), usize)> = columns.collect();
    let heads = columns
        .iter()
        .map(|((producers, consumers), bytes)| format!("{producers}x{consumers}, {bytes} B /s"));
    header(out, &heads.collect::<Vec<String>>());
    for (entry, cells) in rows {
        let delivery = match entry.about.delivery {
            Delivery::Once => "",
            Delivery::Broadcast => ", broadcast",
            Delivery::Lossy => ", what arrived",
        };
        let mut row = format!("| {}{delivery} |", name(entry));
        for &((producers, consumers), bytes) in &columns {
            let wanted = |task: &Task| {
                (task.producers, task.consumers, task.bytes) == (producers, consumers, bytes)
            };
            row += &show(cells, wanted, 1, |cell| {
                let rate = spread(cell.spread(Outcome::rate)?, millions);
                let lost = cell.spread(|outcome| match outcome {
                    Outcome::Stream(Received { all, lost, .. }) => {
                        Some(*lost as f64 / (lost + all) as f64)
                    }
                    _ => None,
                });
                let lost = lost.filter(|lost| lost.most > 0.0);
                let lost = lost.map(|lost| format!(", {:.0} % lost", 100.0 * lost.median));
                Some(vec![rate + &lost.unwrap_or_default()])
            });
        }
        let _ = writeln!(out, "{row}");
    }
}

/// What slipring is to be, and whether it is.
fn target_table(out: &mut String, cells: &[Cell]) {
    let all = targets::targets(cells);
    if all.is_empty() {
        return;
    }
    let _ = writeln!(
        out,
        "\n### slipring's targets\n\nRatios of what was measured in the same turn: their median, \
         and the least and the most.\n"
    );
    header(out, &["wanted", "measured", "turns"].map(String::from));
    for target in all {
        let wanted = match target.wanted {
            Wanted::Least(least) => format!("at least {least}"),
            Wanted::Most(most) => format!("at most {most}"),
        };
        let (measured, turns) = match target.ratio {
            Ok(all) if target.wanted.is_met(all.median) => (spread(all, digits), all.count),
            Ok(all) => (format!("{}: missed", spread(all, digits)), all.count),
            Err(why) => (why.into(), 0),
        };
        let _ = writeln!(out, "| {} | {wanted} | {measured} | {turns} |", target.what);
    }
}

/// Everything, to be read.
pub fn tables(findings: &Findings, entries: &[Entry]) -> String {
    let mut out = String::new();
    for (what, value) in &findings.machine {
        let _ = writeln!(out, "- {what}: {value}");
    }
    let pins = findings.pin.iter().map(usize::to_string).collect::<Vec<String>>().join(", ");
    let _ = writeln!(
        out,
        "- pinned to processors {pins}; {} samples of {} s a cell, by turns: their median (the \
         least to the most); one reading of the clock, which every round trip includes: {:.0} ns\n\
         - the floors between samples: a cache line there and back {:.0} ns, 1000 steps of \
         arithmetic {:.0} ns, 64 KiB copied from core to core {:.1} µs; samples beside which one of \
         these was off by more than a fifth are left out, figures of nothing else are marked \
         with \"!\"\n",
        findings.turns,
        findings.seconds,
        findings.clock_ns,
        findings.floor.line,
        findings.floor.arithmetic,
        findings.floor.copy / 1e3
    );
    let _ = writeln!(out, "### Floors\n");
    header(&mut out, &QUANTILES.map(|(quantile, _)| quantile.to_owned()));
    for floor in &findings.floors {
        let columns = QUANTILES.map(|(_, figure)| time(figure(&floor.trips) as f64));
        let _ = writeln!(out, "| {} | {} |", floor.name, columns.join(" | "));
    }
    let kinds: [(Kind, &str); 7] = [
        (Kind::Trip, "Round trip, both sides polling"),
        (Kind::TripBlocking, "Round trip by the calls that wait"),
        (Kind::Wake, "Round trip by the calls that wait, after a pause"),
        (Kind::Stream, "One producer, one consumer, one message a call"),
        (Kind::Batch, "One producer, one consumer, in batches of 64"),
        (Kind::Many, "Producers x consumers"),
        (Kind::ManyBatch, "Producers x consumers, in batches of 64"),
    ];
    for (kind, title) in kinds {
        let rows = rows(findings, entries, kind);
        if rows.is_empty() {
            continue;
        }
        let _ = writeln!(out, "\n### {title}\n");
        match kind {
            Kind::Trip | Kind::TripBlocking => trip_table(&mut out, &rows, &[8, 48, 64]),
            Kind::Wake => trip_table(&mut out, &rows, &[8]),
            Kind::Stream => stream_table(&mut out, &rows, &[8, 64, 1 << 10, 1 << 16]),
            Kind::Batch => stream_table(&mut out, &rows, &[8, 64, 1 << 10]),
            Kind::Many | Kind::ManyBatch => many_table(&mut out, &rows),
        }
    }
    target_table(&mut out, &findings.cells);
    let _ = writeln!(out, "\n### How each is used\n");
    for entry in entries {
        let about = &entry.about;
        if findings.cells.iter().any(|cell| cell.system == about.name) {
            let place = super::measure::place_name(about.place);
            let _ = writeln!(out, "- {} ({}, {place}): {}", about.name, version(about), about.note);
        }
    }
    for cell in &findings.cells {
        if let Some(error) = cell.failed() {
            let Task { kind, bytes, .. } = cell.task;
            let _ = writeln!(out, "- {} {kind:?} {bytes} B failed: {error}", cell.system);
        }
    }
    out
}
