//! The distribution of round trips as a picture: the time of each percentile,
//! on a scale that widens towards 100 %.

use crate::machine::Machine;
use crate::measure::peer::Course;
use crate::measure::transport::{Manner, Way};
use crate::report::Grouped;
use crate::{Error, Result};
use hdrhistogram::Histogram;
use plotters::element::DashedPathElement;
use plotters::prelude::*;
use std::fs::OpenOptions;
use std::path::Path;

const SIZE: (u32, u32) = (1000, 640);
const FONT: &str = "sans-serif";
const DASH: i32 = 7;
const GAP: i32 = 5;
const GREY: RGBColor = RGBColor(110, 110, 110);

/// One line of the picture.
pub struct Curve {
    /// None for the floor.
    course: Option<Course>,
    times: Histogram<u64>,
    /// Whether the floor moved meanwhile.
    dropped: bool,
}

impl Curve {
    /// Of round trips.
    pub fn of(course: Course, times: Histogram<u64>, dropped: bool) -> Curve {
        Curve { course: Some(course), times, dropped }
    }

    /// Of the floor's.
    pub fn floor(times: &Histogram<u64>) -> Curve {
        Curve { course: None, times: times.clone(), dropped: false }
    }

    fn name(&self) -> String {
        match self.course {
            Some(course) => {
                let mark = if self.dropped { " (its floor moved)" } else { "" };
                format!("{}, {}{mark}", course.way.name(), course.manner.name())
            }
            None => "bare cache line".to_owned(),
        }
    }

    fn style(&self) -> ShapeStyle {
        let colour = match self.course.map(|course| course.way) {
            None => GREY,
            Some(Way::Typed) => RGBColor(0, 114, 178),
            Some(Way::Bytes) => RGBColor(0, 158, 115),
            Some(_) => RGBColor(213, 94, 0),
        };
        colour.stroke_width(2)
    }

    /// Whether its line has gaps, besides its colour.
    fn is_dashed(&self) -> bool {
        self.course.is_some_and(|course| course.manner == Manner::Blocking)
    }

    /// How far to the right it goes: its largest time is one of so many.
    fn nines(&self) -> f64 {
        (self.times.len().max(1) as f64).log10()
    }

    /// Nines of the percentile, and the time.
    fn points(&self) -> Vec<(f64, f64)> {
        const STEP: f64 = 0.02;
        let steps = (self.nines() / STEP).ceil() as u32;
        let at = (0..=steps).map(|step| (f64::from(step) * STEP).min(self.nines()));
        at.map(|nines| {
            let time = self.times.value_at_quantile(1.0 - 10_f64.powf(-nines));
            (nines, time.max(1) as f64)
        })
        .collect()
    }
}

/// Finds out whether the file can be written, before anything is measured for
/// it.
pub fn try_out(file: &Path) -> Result<()> {
    let opened = OpenOptions::new().append(true).create(true).open(file);
    opened.map(drop).map_err(|error| format!("{}: {error}", file.display()).into())
}

/// Draws the curves of the smallest size.
pub fn draw(curves: &[Curve], machine: &Machine, file: &Path) -> Result<()> {
    let svg = picture(curves, &machine.to_string())?;
    std::fs::write(file, svg).map_err(|error| format!("{}: {error}", file.display()).into())
}

fn picture(curves: &[Curve], subtitle: &str) -> Result<String> {
    let smallest = curves.iter().filter_map(|curve| Some(curve.course?.bytes)).min().unwrap_or(0);
    let shown = |curve: &&Curve| curve.course.is_none_or(|course| course.bytes == smallest);
    let curves: Vec<&Curve> = curves.iter().filter(shown).collect();
    let mut svg = String::new();
    let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
    paint(&area, &curves, &format!("Round trips of {smallest} bytes"), subtitle)
        .map_err(|error| Error::from(error.to_string()))?;
    drop(area);
    Ok(svg)
}

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;

fn paint(
    area: &Area<'_>,
    curves: &[&Curve],
    title: &str,
    subtitle: &str,
) -> Result<(), Box<dyn std::error::Error>> {
    area.fill(&WHITE)?;
    let area = area.titled(title, (FONT, 22))?;
    let mut area = area;
    for line in subtitle.lines() {
        area = area.titled(line, (FONT, 13).into_font().color(&GREY))?;
    }
    let (mut low, mut high, mut right) = (f64::MAX, 1.0_f64, 1.0_f64);
    for curve in curves {
        for (nines, time) in curve.points() {
            (low, high, right) = (low.min(time), high.max(time), right.max(nines));
        }
    }
    // To whole powers of ten, and whole nines.
    let low = 10_f64.powf(low.log10().floor());
    let high = 10_f64.powf(high.log10().ceil()).max(10.0 * low);
    let mut chart = ChartBuilder::on(&area)
        .margin(16)
        .margin_right(36)
        .x_label_area_size(44)
        .y_label_area_size(90)
        .build_cartesian_2d(0.0..right.ceil(), (low..high).log_scale())?;
    chart
        .configure_mesh()
        .x_labels(right.ceil() as usize + 1)
        .x_label_formatter(&|nines| percentile(*nines))
        .x_desc("percentile of round trips")
        .y_label_formatter(&|ns| format!("{} ns", Grouped(*ns as u64)))
        .y_desc("there and back")
        .label_style((FONT, 14))
        .bold_line_style(GREY.mix(0.4))
        .light_line_style(GREY.mix(0.12))
        .draw()?;
    for curve in curves {
        let (points, style) = (curve.points(), curve.style());
        let sample = |(x, y)| [(x, y), (x + 28, y)];
        if curve.is_dashed() {
            chart
                .draw_series(DashedLineSeries::new(points, DASH, GAP, style))?
                .label(curve.name())
                .legend(move |at| DashedPathElement::new(sample(at), DASH, GAP, style));
        } else {
            chart
                .draw_series(LineSeries::new(points, style))?
                .label(curve.name())
                .legend(move |at| PathElement::new(sample(at), style));
        }
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .legend_area_size(36)
        .label_font((FONT, 14))
        .background_style(WHITE.mix(0.85))
        .border_style(GREY)
        .draw()?;
    area.present()?;
    Ok(())
}

/// The percentile with so many nines.
fn percentile(nines: f64) -> String {
    let whole = nines.round();
    if (nines - whole).abs() > 1e-6 {
        return String::new();
    }
    match whole as usize {
        0 => "0 %".to_owned(),
        1 => "90 %".to_owned(),
        2 => "99 %".to_owned(),
        more => format!("99.{} %", "9".repeat(more - 2)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::times::record;

    fn curve(course: Option<Course>, times: impl Iterator<Item = u64>) -> Curve {
        let mut record = record().unwrap();
        times.for_each(|time| record.saturating_record(time));
        Curve { course, times: record, dropped: false }
    }

    #[test]
    fn a_curve_ends_at_its_largest_time() {
        let points = curve(None, 1..=1000).points();
        assert_eq!(points.first().unwrap().0, 0.0);
        let (nines, time) = *points.last().unwrap();
        assert!((nines - 3.0).abs() < 1e-9 && time >= 999.0, "{nines} {time}");
        assert!(points.is_sorted_by_key(|(_, time)| *time));
        // One time alone, and none at all.
        assert_eq!(curve(None, 5..=5).points(), [(0.0, 5.0)]);
        assert_eq!(curve(None, 0..0).points(), [(0.0, 1.0)]);
    }

    #[test]
    fn a_curve_whose_floor_moved_says_so() {
        let course = Course { way: Way::Queue, manner: Manner::Polling, bytes: 8, slots: 8 };
        let moved = Curve { dropped: true, ..curve(Some(course), 1..9) };
        assert_eq!(moved.name(), "slipring queue, polling (its floor moved)");
    }

    #[test]
    fn percentiles_have_their_nines() {
        let labels = [0.0, 1.0, 2.0, 3.0, 5.0, 0.5].map(percentile);
        assert_eq!(labels, ["0 %", "90 %", "99 %", "99.9 %", "99.999 %", ""]);
    }

    #[test]
    fn the_smallest_size_alone_is_drawn() {
        let course = |bytes| Course { way: Way::Queue, manner: Manner::Polling, bytes, slots: 8 };
        let curves =
            [curve(Some(course(8)), 1..9), curve(Some(course(64)), 1..9), curve(None, 1..9)];
        let svg = picture(&curves, "<a machine>").unwrap();
        assert!(svg.contains("Round trips of 8 bytes") && svg.contains("&lt;a machine&gt;"));
        assert_eq!(svg.matches("slipring queue, polling").count(), 1);
        assert_eq!(svg.matches("bare cache line").count(), 1);
    }
}
