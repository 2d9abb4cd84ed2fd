//! Which sizes and alignments operations name.

use super::Limits;
use allocator_core::config::{CHUNK_SIZE, MAX_OBJECT, PAGE_SIZE, VMALLOC_THRESHOLD};
use allocator_core::size_class::{SizeClass, CLASSES};
use std::alloc::Layout;

const MIB: usize = 1 << 20;

/// What an allocation is aimed at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Profile {
    /// Objects of size classes, and nothing else.
    Objects,
    /// Page runs: beyond objects, up to what an arena serves.
    Runs,
    /// Areas: mappings of their own.
    Areas,
    /// One byte around every border: of classes, pages, chunks, layers, powers of two; and what nobody can hold.
    Edges,
    /// All of these.
    Everything,
    /// As a program: mostly small, some of a few KiB, page runs now and then, rarely an area.
    Program,
    /// As a program with more small objects still, half a KiB on average: many operations a second.
    Busy,
    /// Objects of 100 bytes, with a larger one now and then and rarely a page run: as many operations a second as there
    /// can be, since the kernel has little to do.
    Small,
}

impl Profile {
    /// Every profile.
    pub const ALL: [Profile; 8] = [
        Profile::Objects,
        Profile::Runs,
        Profile::Areas,
        Profile::Edges,
        Profile::Everything,
        Profile::Program,
        Profile::Busy,
        Profile::Small,
    ];

    /// A layout. `band` says of which kind, `fine` which of them. The size is not zero.
    pub fn layout(self, band: u8, fine: u16, align: u8) -> Layout {
        let size = self.size(band, fine).max(1);
        let most = match self {
            Profile::Objects => MAX_OBJECT,
            Profile::Runs => CHUNK_SIZE,
            Profile::Small => 1024,
            _ => 16 * MIB,
        };
        Layout::from_size_align(size, alignment(align).min(most)).expect("sizes are far below the limit")
    }

    fn size(self, band: u8, fine: u16) -> usize {
        let n = usize::from(fine);
        match self {
            Profile::Objects => match band {
                0..=127 => n % 512 + 1,
                128..=191 => n % MAX_OBJECT + 1,
                _ => near(class_size(n), n / CLASSES).min(MAX_OBJECT),
            },
            Profile::Runs => match band {
                0..=95 => near((n % 64 + 1) * PAGE_SIZE, n / 64).max(MAX_OBJECT + 1),
                96..=159 => MAX_OBJECT + 1 + n * 32,
                160..=223 => near((n % 4 + 1) * CHUNK_SIZE, n / 4),
                _ => MAX_OBJECT + 1 + n * 127,
            }
            .min(VMALLOC_THRESHOLD),
            Profile::Areas => match band {
                0..=127 => VMALLOC_THRESHOLD + 1 + n * 128,
                128..=191 => near(VMALLOC_THRESHOLD + (n % 32) * MIB, n / 32).max(VMALLOC_THRESHOLD + 1),
                192..=223 => VMALLOC_THRESHOLD + 1 + n * 800,
                _ => near(VMALLOC_THRESHOLD, n),
            },
            Profile::Edges => match band {
                0..=95 => near(class_size(n), n / CLASSES),
                96..=159 => near((n % 70 + 1) * PAGE_SIZE, n / 70),
                160..=191 => near((n % 6 + 1) * CHUNK_SIZE, n / 6),
                192..=239 => near(1 << (n % 26), n / 26),
                240..=251 => near(VMALLOC_THRESHOLD, n),
                _ => (1 << 47 << (n % 15)) + n / 15, // more than there are addresses
            },
            Profile::Everything => match band {
                0..=111 => Profile::Objects.size(band.wrapping_mul(37), fine),
                112..=175 => Profile::Runs.size(band.wrapping_mul(37), fine),
                176..=199 => Profile::Areas.size(band.wrapping_mul(37), fine),
                _ => Profile::Edges.size(band.wrapping_mul(37), fine),
            },
            Profile::Program => match band {
                0..=219 => n % 512 + 1,
                220..=249 => n % MAX_OBJECT + 1,
                250..=254 => MAX_OBJECT + 1 + n * 16,
                _ if fine.is_multiple_of(16) => VMALLOC_THRESHOLD + n * 64,
                _ => n % MAX_OBJECT + 1,
            },
            Profile::Busy => match band {
                0..=251 => n % 512 + 1,
                255 if fine.is_multiple_of(1024) => VMALLOC_THRESHOLD + 1 + n * 64,
                255 if fine.is_multiple_of(64) => MAX_OBJECT + 1 + n * 16,
                _ => n % MAX_OBJECT + 1,
            },
            Profile::Small => match band {
                0..=253 => n % 192 + 1,
                255 if fine.is_multiple_of(256) => MAX_OBJECT + 1 + n * 4,
                _ => n % 4096 + 1,
            },
        }
    }

    /// How much of it may be live at once, so that a machine can serve it.
    pub fn limits(self) -> Limits {
        let bytes = match self {
            Profile::Objects => 32 * MIB,
            Profile::Runs => 128 * MIB,
            _ => 256 * MIB,
        };
        Limits { bytes, blocks: 20_000, whole: 4096 }
    }
}

fn class_size(n: usize) -> usize {
    SizeClass::new(n % CLASSES).map_or(1, SizeClass::size)
}

/// One less, exactly, or one more.
fn near(size: usize, which: usize) -> usize {
    (size + which % 3).saturating_sub(1)
}

/// 8 more often than not; up to 16 MiB, so that every way of aligning is met.
fn alignment(byte: u8) -> usize {
    let n = u32::from(byte);
    match byte {
        0..=159 => 8,
        160..=191 => 1 << (n % 5),
        192..=223 => 1 << (5 + n % 8),
        224..=247 => 1 << (12 + n % 10),
        _ => 1 << (21 + n % 4),
    }
}
