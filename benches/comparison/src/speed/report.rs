//! What was measured, as tables in Markdown.

use super::channel::{Kind, Place};
use super::roles::{Received, Trips};
use super::{Cell, Delivery, Entry, Findings, Outcome, Task, version};
use std::fmt::Write;

/// A cell on a line, while it runs.
pub fn line(cell: &Cell) -> String {
    let Task { kind, bytes, producers, consumers } = cell.task;
    let sides =
        if producers + consumers > 2 { format!(" {producers}x{consumers}") } else { "".into() };
    let what = match &cell.outcome {
        Outcome::Trips(trips) => format!("{} ns, p99 {} ns", trips.p50, trips.p99),
        Outcome::Stream(all) => {
            format!("{} messages/s, {} GB/s", millions(all), gigabytes(all, bytes))
        }
        Outcome::Failed(error) => format!("failed: {error}"),
    };
    let [before, after] = cell.floor.map(|floor| {
        format!("{:.0}, {:.0}, {:.1}", floor.line, floor.arithmetic, floor.copy / 1e3)
    });
    format!("{} {kind:?}{sides} {bytes} B: {what} (floors {before}; {after})", cell.system)
}

fn rate(all: &Received) -> f64 {
    all.messages as f64 / all.seconds
}

/// Messages per second.
pub fn millions(all: &Received) -> String {
    let millions = rate(all) / 1e6;
    let digits = if millions < 1.0 {
        3
    } else if millions < 10.0 {
        2
    } else {
        1
    };
    format!("{millions:.digits$} M")
}

pub fn gigabytes_per_second(all: &Received, bytes: usize) -> f64 {
    rate(all) * bytes as f64 / 1e9
}

fn gigabytes(all: &Received, bytes: usize) -> String {
    format!("{:.2}", gigabytes_per_second(all, bytes))
}

/// Nanoseconds, as microseconds when they are many.
fn time(ns: u64) -> String {
    match ns {
        0..10_000 => format!("{ns} ns"),
        10_000..1_000_000 => format!("{:.1} µs", ns as f64 / 1e3),
        _ => format!("{:.1} ms", ns as f64 / 1e6),
    }
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

/// The cell for these columns, in brackets if it was dropped.
fn show(
    cells: &[&Cell],
    wanted: impl Fn(&Task) -> bool,
    columns: usize,
    text: impl Fn(&Outcome) -> Option<Vec<String>>,
) -> String {
    let Some(cell) = cells.iter().find(|cell| wanted(&cell.task)) else {
        return " |".repeat(columns);
    };
    let texts = text(&cell.outcome).unwrap_or_else(|| {
        let mut all = vec![String::new(); columns];
        all[0] = "failed".into();
        all
    });
    texts.into_iter().fold(String::new(), |row, text| match (text.as_str(), cell.dropped) {
        ("", _) => row + " |",
        (text, true) => row + " (" + text + ") |",
        (text, false) => row + " " + text + " |",
    })
}

fn header(out: &mut String, columns: &[String]) {
    let _ = writeln!(out, "| | {} |", columns.join(" | "));
    let _ = writeln!(out, "|---{}|", "|---:".repeat(columns.len()));
}

fn trip_columns(trips: &Trips) -> Vec<String> {
    [trips.p50, trips.p99, trips.p999, trips.max].map(time).to_vec()
}

fn trip_table(out: &mut String, rows: &[Row], sizes: &[usize]) {
    let columns = sizes.iter().flat_map(|bytes| {
        ["p50", "p99", "p99.9", "max"].map(|quantile| format!("{bytes} B {quantile}"))
    });
    header(out, &columns.collect::<Vec<String>>());
    for (entry, cells) in rows {
        let mut row = format!("| {} |", name(entry));
        for &bytes in sizes {
            row += &show(
                cells,
                |task| task.bytes == bytes,
                4,
                |outcome| match outcome {
                    Outcome::Trips(trips) => Some(trip_columns(trips)),
                    _ => None,
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
                |outcome| match outcome {
                    Outcome::Stream(all) => Some(vec![millions(all), gigabytes(all, bytes)]),
                    _ => None,
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
            row += &show(cells, wanted, 1, |outcome| match outcome {
                Outcome::Stream(all) if all.lost > 0 => {
                    let lost = all.lost as f64 / (all.lost + all.all) as f64;
                    Some(vec![format!("{}, {:.0} % lost", millions(all), 100.0 * lost)])
                }
                Outcome::Stream(all) => Some(vec![millions(all)]),
                _ => None,
            });
        }
        let _ = writeln!(out, "{row}");
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
        "- pinned to processors {pins}; {} s a cell; one reading of the clock, which every round \
         trip includes: {:.0} ns\n- the floors between cells: a cache line there and back {:.0} ns, \
         1000 steps of arithmetic {:.0} ns, 64 KiB copied from core to core {:.1} µs; figures in \
         brackets are dropped, because one of these was off by more than a fifth beside them\n",
        findings.seconds,
        findings.clock_ns,
        findings.floor.line,
        findings.floor.arithmetic,
        findings.floor.copy / 1e3
    );
    let _ = writeln!(out, "### Floors\n");
    header(&mut out, &["p50", "p99", "p99.9", "max"].map(String::from));
    for floor in &findings.floors {
        if let Outcome::Trips(trips) = &floor.outcome {
            let _ = writeln!(out, "| {} | {} |", floor.name, trip_columns(trips).join(" | "));
        }
    }
    let kinds: [(Kind, &str); 7] = [
        (Kind::Trip, "Round trip, both sides polling"),
        (Kind::TripBlocking, "Round trip by the calls that wait"),
        (Kind::Wake, "Round trip by the calls that wait, after a pause"),
        (Kind::Stream, "One producer, one consumer, one message a call"),
        (Kind::Batch, "One producer, one consumer, 64 messages a call"),
        (Kind::Many, "Producers x consumers"),
        (Kind::ManyBatch, "Producers x consumers, 64 messages a call"),
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
    let _ = writeln!(out, "\n### How each is used\n");
    for entry in entries {
        let about = &entry.about;
        if findings.cells.iter().any(|cell| cell.system == about.name) {
            let place = super::measure::place_name(about.place);
            let _ = writeln!(out, "- {} ({}, {place}): {}", about.name, version(about), about.note);
        }
    }
    for cell in &findings.cells {
        if let Outcome::Failed(error) = &cell.outcome {
            let Task { kind, bytes, .. } = cell.task;
            let _ = writeln!(out, "- {} {kind:?} {bytes} B failed: {error}", cell.system);
        }
    }
    out
}
