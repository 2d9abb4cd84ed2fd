//! Memory of the machine, warm before each run.
//!
//! The host of a virtual machine may take back what is free in it (free page reporting, a balloon), in pieces as long as a
//! huge page and within a second. Then whoever touches such a piece next pays for the host's faults: 4 to 7 ms for 2 MiB
//! where 0.25 ms is usual. It hits in turn whoever comes first, and most of all who asks for huge pages, since short ones
//! come from what is free in shorter pieces. None of that is an allocator's doing, so all find memory that was in use a
//! moment ago.

use anyhow::{Context, Result};
use memmap2::{Advice, MmapMut};
use std::hint::black_box;

/// More than any program has at a time, but for the row of one huge vector.
const BYTES: usize = 512 << 20;

/// The shortest page of Linux.
const PAGE: usize = 4096;

/// Touches memory by huge pages, and gives it back to the system.
pub(crate) fn warm() -> Result<()> {
    let mut memory = MmapMut::map_anon(BYTES).context("cannot map memory")?;
    // A system without huge pages refuses, and has no such pieces.
    _ = memory.advise(Advice::HugePage);
    memory.chunks_mut(PAGE).for_each(|page| page[0] = 1);
    black_box(memory);
    Ok(())
}
