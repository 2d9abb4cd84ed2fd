//! What allocators are compared by: shapes of load from the literature (`shapes`), and real crates at real work (`real`).
//!
//! Beside them, what should come back after a burst (`returns`), and load that comes and goes (`days`).
//!
//! A row prepares, does its work, and says how long the work took. A process runs one row, under the allocator that the
//! program around it has chosen, so that its peak of resident memory is that row's. Rows are frozen: their names, sizes
//! and seeds change only with the reason in `docs/speed.md`, and none is taken away.

pub mod days;
mod latency;
#[cfg(feature = "real")]
mod real;
#[cfg(not(feature = "real"))]
mod real {
    pub(crate) const ROWS: &[crate::Listed] = &[];
}
pub mod returns;
mod run;
mod shapes;

pub use latency::latencies;
pub use run::{timed, Done, Random, Scale};

/// One line of the comparison.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// Its name, which is an argument of the program.
    pub name: &'static str,
    /// What it does, in a few words.
    pub what: &'static str,
    /// Does it.
    pub run: fn(Scale) -> Done,
}

/// Name, description and function of a row.
type Listed = (&'static str, &'static str, fn(Scale) -> Done);

/// Every row, in the order of the tables.
pub fn rows() -> impl Iterator<Item = Row> {
    shapes::ROWS.iter().chain(real::ROWS).map(|&(name, what, run)| Row { name, what, run })
}

/// The row of this name.
pub fn row(name: &str) -> Option<Row> {
    rows().find(|row| row.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_differ() {
        let mut names: Vec<_> = rows().map(|row| row.name).collect();
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all);
    }

    #[test]
    fn every_shape_runs_with_few_operations_and_with_other_numbers_of_threads() {
        for &(name, _, run) in shapes::ROWS {
            for threads in [None, Some(1), Some(3)] {
                let scale = Scale::new(0.01);
                let done = run(threads.map_or(scale, |threads| scale.with_threads(threads)));
                assert!(done.operations > 0, "{name}");
            }
        }
    }
}
