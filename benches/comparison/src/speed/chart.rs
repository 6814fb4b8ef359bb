//! The chart: a panel for latency and two for throughput, a bar for each system
//! on a logarithmic scale, with its figure: the median of the turns.

use super::cell::{Cell, Outcome};
use super::channel::{Kind, Place};
use super::report::{gigabytes, millions};
use super::{Entry, Findings};
use crate::Result;
use plotters::prelude::*;
use std::path::Path;

const WIDTH: i32 = 900;
const BAR: i32 = 20;
const LABEL: i32 = 230;
const FIGURE: i32 = 120;

const OURS: RGBColor = RGBColor(0x1f, 0x6f, 0xb4);
const THEIRS: RGBColor = RGBColor(0x8a, 0x8a, 0x8a);
const IN_PROCESS: RGBColor = RGBColor(0xc8, 0xc8, 0xc8);

/// A panel: what it shows, and its bars.
struct Panel {
    title: &'static str,
    bars: Vec<(String, RGBColor, f64, String)>,
}

fn panel(
    findings: &Findings,
    entries: &[Entry],
    title: &'static str,
    (kind, bytes): (Kind, usize),
    value: impl Fn(&Cell) -> Option<(f64, String)>,
) -> Panel {
    let wanted = |cell: &&Cell| {
        let task = cell.task;
        !cell.is_dropped() && cell.failed().is_none() && task.kind == kind && task.bytes == bytes
    };
    let bar = |cell: &Cell| {
        let about = &entries.iter().find(|entry| entry.about.name == cell.system)?.about;
        let (value, text) = value(cell)?;
        let color = match about.place {
            _ if about.name.starts_with("slipring") => OURS,
            Place::Threads => IN_PROCESS,
            Place::Processes => THEIRS,
        };
        Some((about.name.to_owned(), color, value, text))
    };
    Panel { title, bars: findings.cells.iter().filter(wanted).filter_map(bar).collect() }
}

/// Draws the chart.
pub fn draw(findings: &Findings, entries: &[Entry], path: &Path) -> Result<()> {
    let trips = |cell: &Cell| {
        let p50 = cell.spread(|outcome| outcome.trips(|trips| trips.p50))?.median;
        Some((p50, format!("{p50:.0} ns")))
    };
    let rate = |cell: &Cell| {
        let rate = cell.spread(Outcome::rate)?.median;
        Some((rate, format!("{} /s", millions(rate))))
    };
    let bandwidth = |cell: &Cell| {
        let value = gigabytes(cell.spread(Outcome::rate)?.median, 1 << 16);
        Some((value, format!("{value:.1} GB/s")))
    };
    let title = "Round trip of 8 B, both sides polling, median (less is better)";
    let mut panels = vec![panel(findings, entries, title, (Kind::Trip, 8), trips)];
    let title = "Stream of 64 B messages, one a call (more is better)";
    panels.push(panel(findings, entries, title, (Kind::Stream, 64), rate));
    let title = "Stream of 64 KiB messages (more is better)";
    panels.push(panel(findings, entries, title, (Kind::Stream, 1 << 16), bandwidth));
    panels.retain(|panel| !panel.bars.is_empty());

    let height = panels.iter().map(|panel| 45 + BAR * panel.bars.len() as i32).sum::<i32>() + 40;
    let size = (WIDTH as u32, height as u32);
    let area = SVGBackend::new(path, size).into_drawing_area();
    area.fill(&WHITE)?;
    let text = |size: i32| ("sans-serif", size).into_font();
    let mut y = 15;
    for panel in &panels {
        area.draw(&Text::new(panel.title, (10, y), text(16)))?;
        y += 28;
        let values = panel.bars.iter().map(|(_, _, value, _)| *value);
        let (low, high) = values
            .fold((f64::MAX, f64::MIN), |(low, high), value| (low.min(value), high.max(value)));
        // The shortest bar is seen too.
        let (low, high) = ((low / 2.0).ln(), high.ln());
        for (name, color, value, figure) in &panel.bars {
            let part = (value.ln() - low) / (high - low);
            let end = LABEL + (part * f64::from(WIDTH - LABEL - FIGURE)) as i32;
            area.draw(&Text::new(name.clone(), (10, y + 3), text(13)))?;
            area.draw(&Rectangle::new([(LABEL, y + 2), (end, y + BAR - 3)], color.filled()))?;
            area.draw(&Text::new(figure.clone(), (end + 6, y + 3), text(13)))?;
            y += BAR;
        }
        y += 17;
    }
    let legend = "Logarithmic. Blue: slipring. Light: threads of one process. Others: processes.";
    area.draw(&Text::new(legend, (10, y), text(12)))?;
    area.present()?;
    Ok(())
}
