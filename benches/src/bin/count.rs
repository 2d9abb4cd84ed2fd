//! Reads what `cargo bench -p benches -- --output-format=json` prints, shows the instructions per operation, and
//! compares them with the committed table. `ci/count.sh` runs it.

use std::fs::File;
use std::path::PathBuf;
use std::process::ExitCode;

use benches::table::{self, Error};
use clap::Parser;

/// Compares instruction counts, read from standard input, with a committed table.
#[derive(Parser)]
struct Arguments {
    /// The committed table
    table: PathBuf,
    /// Write the table anew instead of comparing with it
    #[arg(long)]
    bless: bool,
    /// What the counts were measured with: the first line of a table that is written
    #[arg(long, default_value = "")]
    note: String,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("count: {error}");
            ExitCode::from(2)
        }
    }
}

/// False if a figure has grown.
fn run(arguments: &Arguments) -> Result<bool, Error> {
    let new = table::measured(std::io::stdin().lock())?;
    let old = if arguments.table.exists() { table::read(File::open(&arguments.table)?)? } else { Vec::new() };
    print!("{}", table::markdown(&old, &new));
    if arguments.bless {
        table::write(File::create(&arguments.table)?, &arguments.note, &new)?;
        println!("\nWrote {}.", arguments.table.display());
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
