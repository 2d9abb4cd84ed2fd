//! Works out the instructions per operation from what `cargo bench -p allocators -- --output-format=json` prints.
//! `ci/count.sh` compares them with a committed table, `ci/bench.sh` puts those of several allocators side by side.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use benches::table::{self, Error, Row};
use clap::Parser;

/// Instructions per operation, from the counts of callgrind.
#[derive(Parser)]
enum Arguments {
    /// Compares the counts on standard input with a committed table
    Check {
        /// The committed table
        table: PathBuf,
        /// Write the table anew instead of comparing with it
        #[arg(long)]
        bless: bool,
        /// What the counts were measured with: the first line of a table that is written
        #[arg(long, default_value = "")]
        note: String,
    },
    /// Prints the counts of several allocators side by side
    Compare {
        /// An allocator, and the file with its counts
        #[arg(value_name = "NAME=FILE", value_parser = allocator)]
        allocators: Vec<(String, PathBuf)>,
    },
}

fn allocator(argument: &str) -> Result<(String, PathBuf), String> {
    let (name, file) = argument.split_once('=').ok_or("not NAME=FILE")?;
    Ok((name.to_owned(), file.into()))
}

fn main() -> ExitCode {
    let done = match Arguments::parse() {
        Arguments::Check { table, bless, note } => check(&table, bless, &note),
        Arguments::Compare { allocators } => compare(&allocators),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("count: {error}");
            ExitCode::from(2)
        }
    }
}

/// False if a figure has grown.
fn check(table: &Path, bless: bool, note: &str) -> Result<bool, Error> {
    let new = table::measured(std::io::stdin().lock())?;
    let old = if table.exists() { table::read(File::open(table)?)? } else { Vec::new() };
    print!("{}", table::markdown(&old, &new));
    if bless {
        table::write(File::create(table)?, note, &new)?;
        println!("\nWrote {}.", table.display());
        return Ok(true);
    }
    let regressions = table::regressions(&old, &new);
    if regressions.is_empty() {
        let advice =
            if table::has_improved(&old, &new) { "; some fell: write the table anew with --bless" } else { "" };
        println!("\nNo figure has grown by more than {} %{advice}.", table::TOLERANCE * 100.0);
        return Ok(true);
    }
    eprintln!("\ncount: figures that differ from the committed table (accept them with --bless):");
    for regression in &regressions {
        eprintln!("  {regression}");
    }
    Ok(false)
}

fn compare(allocators: &[(String, PathBuf)]) -> Result<bool, Error> {
    let read = |(name, file): &(String, PathBuf)| -> Result<(String, Vec<Row>), Error> {
        let rows = table::measured(File::open(file)?).map_err(|error| format!("{name}: {error}"))?;
        Ok((name.clone(), rows))
    };
    let allocators = allocators.iter().map(read).collect::<Result<Vec<_>, _>>()?;
    print!("{}", table::side_by_side(&allocators));
    Ok(true)
}
