//! From callgrind's counts to instructions per operation, and the comparison with the committed table.
//!
//! A case that takes `a` instructions in `m` rounds and `b` in `n` rounds takes `(b - a) / (n - m)` in one; the empty
//! loop of the same shape, worked out likewise, is taken off.

use std::collections::BTreeMap;
use std::io::{Read, Write};

use serde::{Deserialize, Serialize};

/// Growth of a figure that is still accepted: one part in fifty.
pub const TOLERANCE: f64 = 0.02;

/// And what rounding to two decimals may add to that.
const ROUNDING: f64 = 0.01;

/// What a function of the bench `instructions` does: its name, the empty loop of the same shape, and how many
/// operations it does in a round.
const SHAPES: [(&str, &str, f64); 9] = [
    ("alloc", "empty_fill", 1.0),
    ("dealloc", "empty_drain", 1.0),
    ("pair", "empty_pair", 1.0),
    ("zeroed_pair", "empty_pair", 1.0),
    ("realloc_in_place", "empty_realloc", 2.0),
    ("refill", "empty_fill", 1.0),
    ("flush", "empty_drain", 1.0),
    ("flush_scattered", "empty_drain", 1.0),
    ("remote_free", "empty_drain", 1.0),
];

/// One line of the table: the cost of one operation on objects of one size.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// The operation, by the name of its function.
    pub operation: String,
    /// Size of the object in bytes.
    pub size: u64,
    /// Instructions per operation.
    pub instructions: f64,
    /// Loads among them.
    pub loads: f64,
    /// Stores.
    pub stores: f64,
    /// Branches that are taken or not, or go where a register says.
    pub branches: f64,
    /// Locked instructions (callgrind's global bus events).
    pub locked: f64,
}

impl Row {
    /// Its figures, by name.
    fn figures(&self) -> [(&'static str, f64); 5] {
        [
            ("instructions", self.instructions),
            ("loads", self.loads),
            ("stores", self.stores),
            ("branches", self.branches),
            ("locked", self.locked),
        ]
    }
}

/// Why no table could be worked out, in words for the one who ran the script.
pub type Error = Box<dyn std::error::Error>;

/// The counts of one run of one case, in the order of [`Row::figures`].
#[derive(Debug, Clone, Copy, PartialEq)]
struct Counts([f64; 5]);

impl Counts {
    /// The counts per unit of something of which there are `n`.
    fn per(self, n: f64) -> Self {
        Counts(self.0.map(|count| count / n))
    }

    fn minus(self, other: Self) -> Self {
        Counts(std::array::from_fn(|event| self.0[event] - other.0[event]))
    }
}

/// The counts by function, size and rounds.
type Cases = BTreeMap<(String, u64), BTreeMap<u64, Counts>>;

/// Works the table out from what iai-callgrind prints with `--output-format=json`: one document per case.
pub fn measured(json: impl Read) -> Result<Vec<Row>, Error> {
    let mut cases = Cases::new();
    for document in serde_json::Deserializer::from_reader(json).into_iter::<serde_json::Value>() {
        let document = document?;
        let (Some(function), Some(id)) = (document["function_name"].as_str(), document["id"].as_str()) else {
            return Err("a case without a name or an identifier".into());
        };
        let (size, rounds) = size_and_rounds(id).ok_or_else(|| format!("{function}: identifier `{id}`"))?;
        let counts = counts(&document).ok_or_else(|| format!("{function} {id}: no counts"))?;
        cases.entry((function.to_owned(), size)).or_default().insert(rounds, counts);
    }
    let mut rows = Vec::new();
    for (operation, empty, operations_per_round) in SHAPES {
        let shape = per_round(&cases, empty, 0)?;
        for (function, size) in cases.keys().filter(|(function, _)| function == operation) {
            let cost = per_round(&cases, function, *size)?.minus(shape).per(operations_per_round);
            let [instructions, loads, stores, branches, locked] = cost.0.map(hundredths);
            let operation = operation.to_owned();
            rows.push(Row { operation, size: *size, instructions, loads, stores, branches, locked });
        }
    }
    if rows.is_empty() {
        return Err("no case was measured".into());
    }
    Ok(rows)
}

/// The counts of one round: the difference of two runs, over the difference of their rounds.
fn per_round(cases: &Cases, function: &str, size: u64) -> Result<Counts, Error> {
    let runs = cases.get(&(function.to_owned(), size)).ok_or_else(|| format!("{function} {size}: not measured"))?;
    let (Some((few, a)), Some((many, b)), 2) = (runs.first_key_value(), runs.last_key_value(), runs.len()) else {
        return Err(format!("{function} {size}: measured for {} numbers of rounds, not two", runs.len()).into());
    };
    Ok(b.minus(*a).per((many - few) as f64))
}

/// Reads `s<size>_r<rounds>`.
fn size_and_rounds(id: &str) -> Option<(u64, u64)> {
    let (size, rounds) = id.split_once('_')?;
    Some((size.strip_prefix('s')?.parse().ok()?, rounds.strip_prefix('r')?.parse().ok()?))
}

/// The counts of a summary. Beside the new figure (`Left`) there may be that of the run before (`Both`).
fn counts(document: &serde_json::Value) -> Option<Counts> {
    let total = &document["profiles"][0]["summaries"]["total"]["summary"]["Callgrind"];
    let figure = |event: &str| {
        let metrics = &total[event]["metrics"];
        let new = metrics.get("Left").or_else(|| metrics.get("Both")?.get(0))?;
        new["Int"].as_u64().map(|count| count as f64)
    };
    let branches = figure("Bc")? + figure("Bi")?;
    Some(Counts([figure("Ir")?, figure("Dr")?, figure("Dw")?, branches, figure("Ge")?]))
}

fn hundredths(figure: f64) -> f64 {
    let rounded = (figure * 100.0).round() / 100.0;
    rounded + 0.0 // no negative zero in the table
}

/// Reads a table; lines that begin with `#` say what it was measured with.
pub fn read(csv: impl Read) -> Result<Vec<Row>, Error> {
    let mut reader = csv::ReaderBuilder::new().comment(Some(b'#')).from_reader(csv);
    Ok(reader.deserialize().collect::<Result<_, _>>()?)
}

/// Writes a table, with a first line that says what it was measured with.
pub fn write(mut out: impl Write, note: &str, rows: &[Row]) -> Result<(), Error> {
    writeln!(out, "# {note}")?;
    let mut writer = csv::Writer::from_writer(out);
    for row in rows {
        writer.serialize(row)?;
    }
    Ok(writer.flush()?)
}

/// The figures that a comparison has found wrong; empty is good.
pub fn regressions(old: &[Row], new: &[Row]) -> Vec<String> {
    let mut found = Vec::new();
    for row in new {
        let Some(before) = find(old, row) else {
            found.push(format!("{} {}: not in the committed table", row.operation, row.size));
            continue;
        };
        for ((what, before), (_, now)) in before.figures().into_iter().zip(row.figures()) {
            if now > before * (1.0 + TOLERANCE) + ROUNDING {
                found.push(format!("{} {}: {what} {before} -> {now}", row.operation, row.size));
            }
        }
    }
    for row in old.iter().filter(|row| find(new, row).is_none()) {
        found.push(format!("{} {}: in the committed table, but not measured", row.operation, row.size));
    }
    found
}

/// Whether a figure has fallen by more than is tolerated the other way: then the table should be written anew.
pub fn has_improved(old: &[Row], new: &[Row]) -> bool {
    new.iter().any(|row| {
        find(old, row).is_some_and(|before| row.instructions < before.instructions * (1.0 - TOLERANCE) - ROUNDING)
    })
}

/// The table in Markdown, each figure beside the committed one.
pub fn markdown(old: &[Row], new: &[Row]) -> String {
    let mut text = String::from(
        "| operation | size | instructions | committed | loads | stores | branches | locked | committed |\n\
         |---|---:|---:|---:|---:|---:|---:|---:|---:|\n",
    );
    for row in new {
        let (instructions, locked) = match find(old, row) {
            Some(before) => (before.instructions.to_string(), before.locked.to_string()),
            None => ("-".to_owned(), "-".to_owned()),
        };
        text += &format!(
            "| {} | {} | {} | {instructions} | {} | {} | {} | {} | {locked} |\n",
            row.operation, row.size, row.instructions, row.loads, row.stores, row.branches, row.locked
        );
    }
    text
}

/// The instructions of several allocators beside each other, in Markdown: a column for each, the least of a row in bold.
/// An operation that one of them was not measured for has no figure there.
pub fn side_by_side(allocators: &[(String, Vec<Row>)]) -> String {
    let mut text = String::from("| operation | size |");
    for (name, _) in allocators {
        text += &format!(" {name} |");
    }
    text += &format!("\n|---|---:|{}\n", "---:|".repeat(allocators.len()));
    let Some((_, rows)) = allocators.first() else { return text };
    for row in rows {
        // Below zero: more rounds took fewer instructions, so what one takes is not to be had by their difference.
        let figure = |rows| find(rows, row).map(|row| row.instructions).filter(|n| *n > 0.0);
        let figures: Vec<Option<f64>> = allocators.iter().map(|(_, rows)| figure(rows)).collect();
        let least = figures.iter().flatten().copied().fold(f64::INFINITY, f64::min);
        text += &format!("| {} | {} |", row.operation, row.size);
        for figure in figures {
            match figure {
                Some(figure) if figure == least => text += &format!(" **{figure:.0}** |"),
                Some(figure) => text += &format!(" {figure:.0} |"),
                None => text += " - |",
            }
        }
        text.push('\n');
    }
    text
}

fn find<'a>(rows: &'a [Row], like: &Row) -> Option<&'a Row> {
    rows.iter().find(|row| row.operation == like.operation && row.size == like.size)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(operation: &str, size: u64, instructions: f64, locked: f64) -> Row {
        Row { operation: operation.to_owned(), size, instructions, loads: 0.0, stores: 0.0, branches: 0.0, locked }
    }

    fn document(function: &str, id: &str, metrics: &str) -> String {
        let seven = r#"{"metrics": {"Left": {"Int": 7}}}"#;
        format!(
            r#"{{"function_name": "{function}", "id": "{id}", "profiles": [{{"summaries": {{"total": {{"summary":
            {{"Callgrind": {{"Ir": {{"metrics": {metrics}}}, "Dr": {seven}, "Dw": {seven}, "Bc": {seven}, "Bi": {seven},
            "Ge": {seven}}}}}}}}}}}]}}"#
        )
    }

    fn left(count: u64) -> String {
        format!(r#"{{"Left": {{"Int": {count}}}}}"#)
    }

    #[test]
    fn a_pair_costs_the_difference_of_two_runs_less_the_empty_loop() {
        let mut json = String::new();
        for (function, ids) in [("empty_pair", ["s0_r10", "s0_r20"]), ("pair", ["s48_r20", "s48_r10"])] {
            let counts = if function == "pair" { [1400, 1000] } else { [50, 100] };
            for (id, count) in ids.into_iter().zip(counts) {
                json += &document(function, id, &left(count));
            }
        }
        for empty in ["empty_realloc", "empty_fill", "empty_drain"] {
            json += &document(empty, "s0_r1", &left(0));
            json += &document(empty, "s0_r2", &left(0));
        }
        assert_eq!(measured(json.as_bytes()).unwrap(), [row("pair", 48, 35.0, 0.0)]);
    }

    #[test]
    fn a_figure_that_has_one_of_an_earlier_run_beside_it_is_the_new_one() {
        let json = document("pair", "s8_r1", r#"{"Both": [{"Int": 3}, {"Int": 4}]}"#);
        let counts = counts(&serde_json::from_str(&json).unwrap()).unwrap();
        assert_eq!(counts, Counts([3.0, 7.0, 7.0, 14.0, 7.0]));
    }

    #[test]
    fn a_case_that_ran_for_one_number_of_rounds_only_is_an_error() {
        assert!(measured(document("empty_pair", "s0_r10", &left(1)).as_bytes()).is_err());
        assert!(measured(&b""[..]).is_err());
    }

    #[test]
    fn growth_within_the_tolerance_is_accepted_and_beyond_it_reported() {
        let old = [row("pair", 48, 100.0, 0.0)];
        assert!(regressions(&old, &[row("pair", 48, 102.0, 0.0)]).is_empty());
        assert_eq!(regressions(&old, &[row("pair", 48, 102.1, 0.0)]).len(), 1);
        assert_eq!(regressions(&old, &[row("pair", 48, 100.0, 1.0)]).len(), 1);
    }

    #[test]
    fn a_row_on_one_side_only_is_reported() {
        let old = [row("pair", 48, 100.0, 0.0)];
        assert_eq!(regressions(&old, &[]).len(), 1);
        assert_eq!(regressions(&[], &old).len(), 1);
    }

    #[test]
    fn a_table_reads_back_as_it_was_written() {
        let rows = [row("pair", 48, 35.5, 0.0), row("flush", 16, 70.25, 0.04)];
        let mut csv = Vec::new();
        write(&mut csv, "what it was measured with", &rows).unwrap();
        assert_eq!(read(&csv[..]).unwrap(), rows);
    }

    #[test]
    fn the_least_of_a_row_is_bold_and_what_was_not_measured_has_no_figure() {
        let ours = vec![row("pair", 8, 29.0, 0.0), row("pair", 48, 30.4, 0.0), row("pair", 64, 31.0, 0.0)];
        let theirs = vec![row("pair", 8, 20.0, 0.0), row("pair", 64, -3.0, 0.0)];
        let text = side_by_side(&[("ours".to_owned(), ours), ("theirs".to_owned(), theirs)]);
        let rows: Vec<&str> = text.lines().collect();
        assert_eq!(rows[0], "| operation | size | ours | theirs |");
        assert_eq!(
            rows[2..],
            ["| pair | 8 | 29 | **20** |", "| pair | 48 | **30** | - |", "| pair | 64 | **31** | - |"]
        );
    }
}
