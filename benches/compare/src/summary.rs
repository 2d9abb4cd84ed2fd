//! From samples to figures: the minimum and the spread of each row, ratios to the best rival, geometric means.
//!
//! A machine that changes its speed from minute to minute can give two allocators their minima at different speeds. So
//! there are ratios of runs of the same round, too, which follow each other by seconds.

use crate::measure::{Program, Row, Sample};

/// A row tells allocators apart if its best and its worst rival differ by this factor; other rows stay out of the
/// geometric means.
const TELLING: f64 = 1.10;

/// The values of one quantity over the rounds of one row under one allocator.
#[derive(Clone, Debug)]
pub(crate) struct Spread {
    /// The smallest.
    pub(crate) min: f64,
    /// The one in the middle.
    pub(crate) median: f64,
    /// The largest.
    pub(crate) max: f64,
}

impl Spread {
    /// Of these values, of which there is at least one.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        Self { min: values[0], median: values[values.len() / 2], max: values[values.len() - 1] }
    }
}

/// Which value of a spread stands for all of them.
pub(crate) type By = fn(&Spread) -> f64;
/// The smallest.
pub(crate) const MINIMUM: By = |spread| spread.min;
/// The one in the middle.
pub(crate) const MEDIAN: By = |spread| spread.median;

/// One quantity of one row, under each allocator.
#[derive(Clone, Debug)]
pub(crate) struct Quantity {
    /// By program.
    pub(crate) spreads: Vec<Spread>,
    /// By program and round.
    values: Vec<Vec<f64>>,
}

impl Quantity {
    /// Of these values, by program and round.
    fn of(values: Vec<Vec<f64>>) -> Self {
        Self { spreads: values.iter().map(|values| Spread::of(values.iter().copied())).collect(), values }
    }

    fn best(&self, by: By, among: impl Fn(usize) -> bool) -> f64 {
        let values = self.spreads.iter().enumerate().filter(|(i, _)| among(*i));
        values.map(|(_, spread)| by(spread)).fold(f64::INFINITY, f64::min)
    }

    /// The minimum of the best rival: of all programs but the first.
    pub(crate) fn best_rival(&self) -> f64 {
        self.best(MINIMUM, |i| i != 0)
    }

    /// The minimum, or median, of one program by that of the best of the others but the first, as if `out` were not there
    /// either.
    pub(crate) fn ratio(&self, by: By, program: usize, out: Option<usize>) -> f64 {
        by(&self.spreads[program]) / self.best(by, |i| i != 0 && i != program && Some(i) != out)
    }

    /// One program by another one in the same round, the median over the rounds: the largest of these ratios to the others
    /// but the first.
    fn paired_ratio(&self, program: usize) -> f64 {
        let others = (1..self.values.len()).filter(|other| *other != program);
        let ratios = others.map(|other| {
            let pairs = self.values[program].iter().zip(&self.values[other]);
            Spread::of(pairs.map(|(own, others)| own / others)).median
        });
        ratios.fold(0.0, f64::max)
    }

    /// Whether it tells the rivals apart.
    pub(crate) fn is_telling(&self) -> bool {
        let worst = self.spreads[1..].iter().map(|spread| spread.min).fold(0.0, f64::max);
        self.spreads.len() < 3 || worst >= TELLING * self.best_rival()
    }
}

/// The figures of one row.
#[derive(Clone, Debug)]
pub(crate) struct Figures {
    /// The row.
    pub(crate) row: Row,
    /// The allocators, by program.
    pub(crate) names: Vec<String>,
    /// Operations of one run.
    pub(crate) operations: f64,
    /// Nanoseconds of one run.
    pub(crate) time: Quantity,
    /// Peak of resident memory in KiB.
    pub(crate) peak: Quantity,
}

/// Works the figures out.
pub(crate) fn figures(programs: &[Program], rows: &[Row], samples: &[Vec<Vec<Sample>>]) -> Vec<Figures> {
    let quantity = |samples: &[Vec<Sample>], value: fn(&Sample) -> f64| {
        Quantity::of(samples.iter().map(|samples| samples.iter().map(value).collect()).collect())
    };
    rows.iter()
        .zip(samples)
        .map(|(row, samples)| Figures {
            row: row.clone(),
            names: programs.iter().map(|program| program.name.clone()).collect(),
            operations: samples[0][0].operations,
            time: quantity(samples, |sample| sample.time),
            peak: quantity(samples, |sample| sample.peak),
        })
        .collect()
}

/// The geometric mean of the ratios of one program over the rows that tell allocators apart.
pub(crate) fn geometric_mean(
    figures: &[Figures],
    quantity: fn(&Figures) -> &Quantity,
    by: By,
    program: usize,
    without: Option<usize>,
) -> f64 {
    mean_of_telling(figures, quantity, |quantity| quantity.ratio(by, program, without))
}

/// As [`geometric_mean`], of the medians of each round's ratios.
pub(crate) fn paired_mean(figures: &[Figures], quantity: fn(&Figures) -> &Quantity, program: usize) -> f64 {
    mean_of_telling(figures, quantity, |quantity| quantity.paired_ratio(program))
}

fn mean_of_telling(figures: &[Figures], quantity: fn(&Figures) -> &Quantity, ratio: impl Fn(&Quantity) -> f64) -> f64 {
    let telling = figures.iter().map(quantity).filter(|quantity| quantity.is_telling());
    let logs: Vec<f64> = telling.map(|quantity| ratio(quantity).ln()).collect();
    (logs.iter().sum::<f64>() / logs.len() as f64).exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quantity(minima: &[f64]) -> Quantity {
        Quantity::of(minima.iter().map(|min| vec![*min, 9.0 * min, 2.0 * min]).collect())
    }

    #[test]
    fn a_spread_is_sorted() {
        let spread = Spread::of([3.0, 1.0, 2.0]);
        assert_eq!((spread.min, spread.median, spread.max), (1.0, 2.0, 3.0));
    }

    #[test]
    fn a_ratio_is_to_the_best_other_rival() {
        let times = quantity(&[3.0, 2.0, 4.0]);
        assert_eq!(times.ratio(MINIMUM, 0, None), 1.5);
        assert_eq!(times.ratio(MINIMUM, 1, None), 0.5);
        assert_eq!(times.ratio(MINIMUM, 2, None), 2.0);
        assert_eq!(times.ratio(MINIMUM, 0, Some(1)), 0.75);
        // Whoever is best by the minimum need not be so by the median.
        let times = Quantity::of(vec![vec![2.0, 4.0, 6.0], vec![1.0, 8.0, 9.0], vec![2.0, 2.0, 2.0]]);
        assert_eq!((times.ratio(MINIMUM, 0, None), times.ratio(MEDIAN, 0, None)), (2.0, 2.0));
        assert_eq!((times.ratio(MINIMUM, 1, None), times.ratio(MEDIAN, 1, None)), (0.5, 4.0));
    }

    #[test]
    fn a_machine_that_changes_its_speed_between_rounds_changes_no_ratio_of_a_round() {
        // The last round is three times as fast, but the second rival has met it with something else.
        let times = Quantity::of(vec![vec![6.0, 6.0, 2.0], vec![3.0, 3.0, 1.0], vec![4.0, 4.0, 4.0]]);
        assert_eq!((times.paired_ratio(0), times.ratio(MINIMUM, 0, None)), (2.0, 2.0));
        assert_eq!((times.paired_ratio(2), times.ratio(MINIMUM, 2, None)), (4.0 / 3.0, 4.0));
    }

    #[test]
    fn rivals_alike_tell_nothing() {
        assert!(quantity(&[9.0, 2.0, 2.3]).is_telling());
        assert!(!quantity(&[9.0, 2.0, 2.1]).is_telling());
    }

    #[test]
    fn the_mean_of_a_half_and_a_double_is_one() {
        let row = Row { name: String::new(), what: String::new() };
        let figures = |minima: &[f64]| Figures {
            row: row.clone(),
            names: Vec::new(),
            operations: 1.0,
            time: quantity(minima),
            peak: quantity(minima),
        };
        let all = [figures(&[1.0, 2.0, 4.0]), figures(&[4.0, 2.0, 4.0]), figures(&[99.0, 2.0, 2.0])];
        assert!((geometric_mean(&all, |f| &f.time, MINIMUM, 0, None) - 1.0).abs() < 1e-9);
    }
}
