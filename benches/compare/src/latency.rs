//! Latencies of single operations.

use crate::measure::Program;
use crate::summary::Spread;
use crate::warm::warm;
use anyhow::{Context, Result};
use hdrhistogram::Histogram;
use std::path::Path;

/// The latencies of one allocator, one histogram a round.
pub(crate) struct Latencies(Vec<Histogram<u64>>);

impl Latencies {
    /// Rounds that were measured.
    pub(crate) fn rounds(&self) -> usize {
        self.0.len()
    }

    /// The median over the rounds of a quantile, in nanoseconds.
    pub(crate) fn median(&self, quantile: f64) -> f64 {
        Spread::of(self.0.iter().map(|round| round.value_at_quantile(quantile) as f64)).median
    }
}

/// By program: what each round measured.
pub(crate) fn measure(programs: &[Program], rounds: usize, part: f64) -> Result<Vec<Latencies>> {
    let part = part.to_string();
    let mut latencies: Vec<_> = programs.iter().map(|_| Latencies(Vec::with_capacity(rounds))).collect();
    for round in 0..rounds {
        eprintln!("latencies, round {} of {rounds}", round + 1);
        for turn in 0..programs.len() {
            let which = (round + turn) % programs.len();
            warm()?;
            let text = programs[which].run_in(round, &["latency", &part])?;
            latencies[which].0.push(histogram(&text).with_context(|| text)?);
        }
    }
    Ok(latencies)
}

/// The peak of memory comes first and is not used; then value and count, in pairs.
fn histogram(text: &str) -> Option<Histogram<u64>> {
    let numbers: Vec<u64> = text.split_whitespace().skip(1).map(str::parse).collect::<Result<_, _>>().ok()?;
    let mut histogram = Histogram::new(3).ok()?;
    for pair in numbers.chunks(2) {
        histogram.record_n(*pair.first()?, *pair.get(1)?).ok()?;
    }
    (!histogram.is_empty()).then_some(histogram)
}

/// The quantiles of which curves are made.
pub(crate) const QUANTILES: [f64; 15] =
    [0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9995, 0.9998, 0.9999, 0.99999];

/// A line for each allocator and quantile.
pub(crate) fn write_csv(path: &Path, programs: &[Program], latencies: &[Latencies]) -> Result<()> {
    let mut csv = csv::Writer::from_path(path)?;
    csv.write_record(["allocator", "quantile", "median_ns"])?;
    for (program, latencies) in programs.iter().zip(latencies) {
        for quantile in QUANTILES.into_iter().chain([1.0]) {
            let median = format!("{:.0}", latencies.median(quantile));
            csv.write_record([program.name.as_str(), &quantile.to_string(), &median])?;
        }
    }
    csv.flush()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_is_read_back() {
        let histogram = histogram("1234 10 98 1000 2").unwrap();
        assert_eq!(histogram.len(), 100);
        assert_eq!(histogram.value_at_quantile(0.5), 10);
        assert_eq!(histogram.value_at_quantile(0.999), 1000);
        assert!(super::histogram("1234").is_none() && super::histogram("1 2").is_none());
    }
}
