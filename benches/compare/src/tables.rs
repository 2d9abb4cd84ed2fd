//! The results as Markdown and as CSV.

use crate::latency::Latencies;
use crate::measure::{Program, Samples};
use crate::summary::{geometric_mean, paired_mean, Figures, Quantity, MEDIAN, MINIMUM};
use anyhow::Result;
use std::fmt::Write;
use std::path::Path;

/// The name of the system's allocator among the programs.
const SYSTEM: &str = "system";

/// The head of a table: these columns, the first of which is text, and one for each program.
pub(crate) fn header(page: &mut String, first: &[&str], programs: &[Program]) {
    let names = programs.iter().map(|program| program.name.as_str());
    let columns: Vec<_> = first.iter().copied().chain(names).collect();
    let _ = writeln!(page, "| {} |", columns.join(" | "));
    let _ = writeln!(page, "|---|{}", "---:|".repeat(columns.len() - 1));
}

fn ratios(
    page: &mut String,
    unit: &str,
    scale: f64,
    programs: &[Program],
    figures: &[Figures],
    quantity: fn(&Figures) -> &Quantity,
) {
    header(page, &["row", &format!("best rival, {unit}")], programs);
    for figure in figures {
        let quantity = quantity(figure);
        let best = quantity.best_rival();
        let _ = write!(
            page,
            "| {}{} | {:.1}",
            figure.row.name,
            if quantity.is_telling() { "" } else { " *" },
            best / scale
        );
        for program in 0..programs.len() {
            let _ = write!(page, " | {:.2}", quantity.spreads[program].min / best);
        }
        page.push_str(" |\n");
    }
    for (name, by) in [("geometric mean", MINIMUM), ("the same of medians", MEDIAN)] {
        let _ = write!(page, "| **{name}** |");
        for program in 0..programs.len() {
            let _ = write!(page, " | **{:.3}**", geometric_mean(figures, quantity, by, program, None));
        }
        page.push_str(" |\n");
    }
}

/// Everything as a page.
pub(crate) fn page(
    machine: &str,
    programs: &[Program],
    samples: &Samples,
    figures: &[Figures],
    latencies: &[Latencies],
) -> String {
    let rounds = samples.by_row[0][0].len();
    let mut page = String::from("# Results\n\n");
    let _ = writeln!(page, "{machine}\n\nWritten by `ci/bench.sh`. {rounds} rounds, all allocators in turn in each;");
    page.push_str(
        "each run is a process of its own, on memory that was in use a moment ago, and from round to round the code of each\n\
         program lies elsewhere in its cache lines. Figures are minima over the rounds, by the best rival's of the row.\n",
    );
    page.push_str(
        "The mean of each column is taken against the best of the *other* rivals, over the rows that tell rivals\n",
    );
    page.push_str("apart by at least a tenth; the others have an asterisk.\n\n| allocator | version |\n|---|---|\n");
    for program in programs {
        let _ = writeln!(page, "| {} | {} |", program.name, program.version);
    }
    for (program, crashes) in programs.iter().zip(&samples.crashes).filter(|(_, crashes)| **crashes > 0) {
        let _ = writeln!(page, "\n{crashes} runs of {} crashed and were made again.", program.name);
    }
    page.push_str("\n## Time\n\n![time](time.svg)\n\n");
    let mut table = String::new();
    ratios(&mut table, "ms", 1e6, programs, figures, |figures| &figures.time);
    page.push_str(&table);
    let paired = paired_mean(figures, |figures| &figures.time, 0);
    let _ = writeln!(
        page,
        "\nBy medians of the ratios to each rival in the same round, of which the worst counts: {paired:.3}."
    );
    page.push_str("\n## Peak of resident memory\n\n![memory](memory.svg)\n\n");
    table.clear();
    ratios(&mut table, "MiB", 1024.0, programs, figures, |figures| &figures.peak);
    page.push_str(&table);
    if let Some(system) = programs.iter().position(|program| program.name == SYSTEM) {
        let mean = geometric_mean(figures, |figures| &figures.peak, MINIMUM, 0, Some(system));
        let _ = writeln!(page, "\nAgainst the leanest but the system's allocator: {mean:.3}.");
    }
    if !latencies.is_empty() {
        page.push_str("\n## Single operations under churn\n\n![latency](latency.svg)\n\nNanoseconds, medians over ");
        let _ = writeln!(page, "{} rounds; reading the clock is in each.\n", latencies[0].rounds());
        page.push_str(
            "| allocator | p50 | p99 | p99.9 | max | p99.9 by the best rival's |\n|---|---:|---:|---:|---:|---:|\n",
        );
        let best = latencies[1..].iter().map(|l| l.median(0.999)).fold(f64::INFINITY, f64::min);
        for (program, l) in programs.iter().zip(latencies) {
            let [p50, p99, p999, max] = [0.5, 0.99, 0.999, 1.0].map(|quantile| l.median(quantile));
            let ratio = p999 / best;
            let _ = writeln!(page, "| {} | {p50:.0} | {p99:.0} | {p999:.0} | {max:.0} | {ratio:.2} |", program.name);
        }
    }
    page.push_str("\n## Rows\n\n| row | what it does |\n|---|---|\n");
    for figure in figures {
        let _ = writeln!(page, "| {} | {} |", figure.row.name, figure.row.what);
    }
    page
}

/// Every figure, a line for each row and allocator.
pub(crate) fn write_csv(path: &Path, figures: &[Figures]) -> Result<()> {
    let mut csv = csv::Writer::from_path(path)?;
    csv.write_record([
        "row",
        "allocator",
        "operations",
        "time_min_ns",
        "time_median_ns",
        "time_max_ns",
        "peak_min_kib",
        "peak_median_kib",
        "peak_max_kib",
    ])?;
    for figure in figures {
        for (i, name) in figure.names.iter().enumerate() {
            let (time, peak) = (&figure.time.spreads[i], &figure.peak.spreads[i]);
            let values = [figure.operations, time.min, time.median, time.max, peak.min, peak.median, peak.max];
            let values = values.map(|value| format!("{value:.0}"));
            csv.write_record([&figure.row.name, name].into_iter().chain(&values))?;
        }
    }
    csv.flush()?;
    Ok(())
}
