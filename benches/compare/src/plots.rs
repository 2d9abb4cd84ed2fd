//! Plots.

use crate::latency::{Latencies, QUANTILES};
use crate::measure::Program;
use crate::returns::Day;
use crate::summary::{Figures, Quantity};
use anyhow::{anyhow, Result};
use plotters::coord::CoordTranslate;
use plotters::drawing::DrawingAreaErrorKind;
use plotters::prelude::*;
use std::path::Path;

/// Ratios above this are cut off.
const MOST: f64 = 4.0;

fn colour(program: usize, programs: usize) -> RGBColor {
    if program == 0 {
        return RGBColor(200, 30, 30);
    }
    let (r, g, b) = HSLColor(0.15 + 0.75 * program as f64 / programs as f64, 0.55, 0.5).rgb();
    RGBColor(r, g, b)
}

/// Says which series is whose.
fn label<'a, C: CoordTranslate>(
    chart: &mut ChartContext<'a, SVGBackend<'a>, C>,
    position: SeriesLabelPosition,
) -> Result<(), DrawingAreaErrorKind<<SVGBackend<'a> as DrawingBackend>::ErrorType>> {
    chart.configure_series_labels().position(position).background_style(WHITE).border_style(BLACK).draw()
}

/// Bars, a group for each row: each allocator by the best rival, so that shorter is better and 1 the best rival.
pub(crate) fn bars(
    path: &Path,
    title: &str,
    programs: &[Program],
    figures: &[Figures],
    quantity: fn(&Figures) -> &Quantity,
) -> Result<()> {
    let height = 40 + 16 * figures.len() as u32 * programs.len() as u32 / 2;
    let area = SVGBackend::new(path, (1000, height)).into_drawing_area();
    let failed = |error: &dyn std::fmt::Display| anyhow!("{title}: {error}");
    area.fill(&WHITE).map_err(|e| failed(&e))?;
    let group = programs.len() + 1;
    let places = figures.len() * group;
    let mut chart = ChartBuilder::on(&area)
        .caption(title, ("sans-serif", 18))
        .margin(8)
        .x_label_area_size(30)
        .y_label_area_size(150)
        .build_cartesian_2d(0.0..MOST, (places as f64)..0.0)
        .map_err(|e| failed(&e))?;
    let name = |y: &f64| {
        let row = (*y / group as f64).floor() as usize;
        figures.get(row).map_or(String::new(), |figure| figure.row.name.clone())
    };
    chart
        .configure_mesh()
        .disable_y_mesh()
        .y_labels(figures.len())
        .y_label_formatter(&name)
        .x_labels(9)
        .draw()
        .map_err(|e| failed(&e))?;
    for (i, program) in programs.iter().enumerate() {
        let style = colour(i, programs.len()).filled();
        let bar = |(row, figure): (usize, &Figures)| {
            let quantity = quantity(figure);
            let best = quantity.best_rival();
            let y = (row * group + i) as f64;
            Rectangle::new([(0.0, y), ((quantity.spreads[i].min / best).min(MOST), y + 0.9)], style)
        };
        chart
            .draw_series(figures.iter().enumerate().map(bar))
            .map_err(|e| failed(&e))?
            .label(&program.name)
            .legend(move |(x, y)| Rectangle::new([(x, y - 5), (x + 12, y + 5)], style));
    }
    label(&mut chart, SeriesLabelPosition::UpperRight).map_err(|e| failed(&e))?;
    area.present().map_err(|e| failed(&e))
}

/// A curve for each allocator: nanoseconds over quantiles, both logarithmic, quantiles by their distance from 1.
pub(crate) fn latency(path: &Path, programs: &[Program], latencies: &[Latencies]) -> Result<()> {
    let failed = |error: &dyn std::fmt::Display| anyhow!("latencies: {error}");
    let area = SVGBackend::new(path, (1000, 600)).into_drawing_area();
    area.fill(&WHITE).map_err(|e| failed(&e))?;
    let distance = |quantile: f64| -(1.0 - quantile).log10();
    let last = distance(QUANTILES[QUANTILES.len() - 1]);
    let most = latencies.iter().map(|l| l.median(0.99999)).fold(100.0, f64::max);
    let mut chart = ChartBuilder::on(&area)
        .caption("Nanoseconds of one operation under churn", ("sans-serif", 18))
        .margin(8)
        .x_label_area_size(40)
        .y_label_area_size(70)
        .build_cartesian_2d(0.0..last, (10.0..most * 1.2).log_scale())
        .map_err(|e| failed(&e))?;
    chart
        .configure_mesh()
        .x_desc("quantile")
        .x_label_formatter(&|x| format!("{:.5}", 1.0 - 10f64.powf(-x)))
        .y_desc("ns")
        .draw()
        .map_err(|e| failed(&e))?;
    for (i, (program, latencies)) in programs.iter().zip(latencies).enumerate() {
        let colour = colour(i, programs.len());
        let points = QUANTILES.map(|quantile| (distance(quantile), latencies.median(quantile)));
        chart
            .draw_series(LineSeries::new(points, colour.stroke_width(2)))
            .map_err(|e| failed(&e))?
            .label(&program.name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], colour.stroke_width(2)));
    }
    label(&mut chart, SeriesLabelPosition::UpperLeft).map_err(|e| failed(&e))?;
    area.present().map_err(|e| failed(&e))
}

/// A curve for each allocator: MiB that are resident over the time of a day; and what is alive, as an area.
pub(crate) fn day(path: &Path, title: &str, programs: &[Program], days: &[Day]) -> Result<()> {
    let failed = |error: &dyn std::fmt::Display| anyhow!("{title}: {error}");
    let area = SVGBackend::new(path, (1000, 500)).into_drawing_area();
    area.fill(&WHITE).map_err(|e| failed(&e))?;
    let moments = || days.iter().flatten();
    let (end, most) = moments().fold((1.0, 1.0), |(t, r), m| (f64::max(t, m.time), f64::max(r, m.resident)));
    let mut chart = ChartBuilder::on(&area)
        .caption(title, ("sans-serif", 14))
        .margin(8)
        .x_label_area_size(40)
        .y_label_area_size(70)
        // With room for the labels beside the curves.
        .build_cartesian_2d(0.0..end * 1.15, 0.0..most * 1.05)
        .map_err(|e| failed(&e))?;
    chart.configure_mesh().x_desc("seconds").y_desc("MiB resident").draw().map_err(|e| failed(&e))?;
    if let Some(day) = days.first() {
        let grey = RGBColor(200, 200, 200);
        let alive = AreaSeries::new(day.iter().map(|moment| (moment.time, moment.alive)), 0.0, grey);
        chart
            .draw_series(alive)
            .map_err(|e| failed(&e))?
            .label("alive")
            .legend(move |(x, y)| Rectangle::new([(x, y - 5), (x + 16, y + 5)], grey.filled()));
    }
    for (i, (program, day)) in programs.iter().zip(days).enumerate() {
        let colour = colour(i, programs.len());
        let points = day.iter().map(|moment| (moment.time, moment.resident));
        chart
            .draw_series(LineSeries::new(points, colour.stroke_width(if i == 0 { 3 } else { 1 })))
            .map_err(|e| failed(&e))?
            .label(&program.name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], colour.stroke_width(2)));
    }
    label(&mut chart, SeriesLabelPosition::UpperRight).map_err(|e| failed(&e))?;
    area.present().map_err(|e| failed(&e))
}
