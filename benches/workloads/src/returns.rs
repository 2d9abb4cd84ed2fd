//! Memory that should come back: after each of these, little is alive, and the threads that allocated are parked.

use crate::shapes::block::Block;
use crate::{Random, Scale};
use std::any::Any;
use std::hint::black_box;
use std::sync::mpsc;
use std::thread::{park, Builder, JoinHandle};
use tokio::runtime::{Builder as Tokio, Runtime};

/// What a scenario leaves behind.
pub struct Left {
    /// Bytes that are alive, as they were asked for.
    pub bytes: usize,
    /// They, and whatever else must not end.
    _alive: Vec<Box<dyn Any>>,
}

/// A scenario.
#[derive(Clone, Copy)]
pub struct Scenario {
    /// Its name, which is an argument of the program.
    pub name: &'static str,
    /// What it does, in a few words.
    pub what: &'static str,
    /// Does it.
    pub run: fn(Scale) -> Left,
}

/// Every scenario, in the order of the tables.
pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "idle-neighbours",
        what: "four threads, 1 GiB, of which 10 MiB stay: blocks that were allocated one after the other",
        run: |scale| idle(scale, |_, i, n| (n / 2..n / 2 + n / 100).contains(&i)),
    },
    Scenario {
        name: "idle-scattered",
        what: "four threads, 1 GiB, of which one block in a hundred stays, drawn at random",
        run: |scale| idle(scale, |random, _, _| random.below(100) == 0),
    },
    Scenario { name: "drained", what: "one thread frees 256 MiB that sixteen others have allocated", run: drained },
    Scenario {
        name: "tokio-parked",
        what: "256 MiB that tasks have made are dropped outside the runtime",
        run: tokio_parked,
    },
    Scenario {
        name: "fragments",
        what: "three phases of 256 MiB, each of other sizes; one block in ten stays, drawn at random",
        run: fragments,
    },
    Scenario {
        name: "reserved-short",
        what: "10,000 buffers of 8 to 32 KiB; a byte of each is written, so a page is alive",
        run: |scale| reserved(scale.of(10_000), (13, 15), Block::new),
    },
    Scenario {
        name: "reserved-zeros",
        what: "the same, but zeros were asked for",
        run: |scale| reserved(scale.of(10_000), (13, 15), Block::zeroed),
    },
    Scenario {
        name: "reserved-long",
        what: "1,000 buffers of 1 to 16 MiB; a byte of each is written",
        run: |scale| reserved(scale.of(1_000), (20, 24), Block::new),
    },
];

/// Blocks of `1 << low..1 << high` bytes, so many bytes in all; each byte is written.
fn blocks(random: &mut Random, bytes: usize, (low, high): (usize, usize)) -> Vec<Block> {
    let mut left = bytes as isize;
    let mut blocks = Vec::new();
    while left > 0 {
        let size = random.log_uniform(low, high);
        let mut block = Block::new(size);
        block.fill();
        blocks.push(block);
        left -= size as isize;
    }
    blocks
}

/// Those that `keeps` says, by their number and how many there are, in a vector of their own.
fn survivors(blocks: Vec<Block>, mut keeps: impl FnMut(usize, usize) -> bool) -> Vec<Block> {
    let n = blocks.len();
    let mut alive = Vec::new();
    for (i, block) in blocks.into_iter().enumerate() {
        if keeps(i, n) {
            alive.push(block);
        }
    }
    alive.shrink_to_fit();
    alive
}

fn size(blocks: &[Block]) -> usize {
    blocks.iter().map(Block::size).sum::<usize>() + size_of_val(blocks)
}

/// A thread that does this, hands over what comes of it, and stays, parked. It has a small stack.
fn parked<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> (mpsc::Receiver<T>, JoinHandle<()>) {
    let (send, receive) = mpsc::channel();
    let thread = Builder::new().stack_size(64 << 10).spawn(move || {
        send.send(work()).expect("somebody receives");
        loop {
            park();
        }
    });
    (receive, thread.expect("the system has a thread for us"))
}

fn idle(scale: Scale, keeps: fn(&mut Random, usize, usize) -> bool) -> Left {
    const THREADS: usize = 4;
    let bytes = scale.of(1 << 30) / THREADS;
    let threads: Vec<_> = (0..THREADS)
        .map(|thread| {
            parked(move || {
                let mut random = Random::new(thread as u64 + 1);
                let blocks = blocks(&mut random, bytes, (4, 12));
                survivors(blocks, |i, n| keeps(&mut random, i, n))
            })
        })
        .collect();
    let mut left = Left { bytes: 0, _alive: Vec::new() };
    for (received, thread) in threads {
        let alive = received.recv().expect("a thread that does its work");
        left.bytes += size(&alive);
        left._alive.push(Box::new((alive, thread)));
    }
    left
}

fn drained(scale: Scale) -> Left {
    const THREADS: usize = 16;
    let bytes = scale.of(256 << 20) / THREADS;
    let threads: Vec<_> = (0..THREADS)
        .map(|thread| parked(move || blocks(&mut Random::new(thread as u64 + 1), bytes, (4, 12))))
        .collect();
    let mut alive: Vec<Box<dyn Any>> = Vec::new();
    let mut all = Vec::new();
    for (received, thread) in threads {
        all.push(received.recv().expect("a thread that does its work"));
        alive.push(Box::new(thread));
    }
    drop(black_box(all));
    Left { bytes: 0, _alive: alive }
}

fn tokio_parked(scale: Scale) -> Left {
    const TASKS: usize = 256;
    let runtime: Runtime = Tokio::new_multi_thread().worker_threads(4).build().expect("a runtime");
    let bytes = scale.of(256 << 20) / TASKS;
    let tasks: Vec<_> = (0..TASKS)
        .map(|task| runtime.spawn(async move { blocks(&mut Random::new(task as u64 + 1), bytes, (4, 12)) }))
        .collect();
    let all: Vec<_> = tasks.into_iter().map(|task| runtime.block_on(task).expect("a task that ends")).collect();
    drop(black_box(all));
    Left { bytes: 0, _alive: vec![Box::new(runtime)] }
}

/// So many buffers for the worst case.
fn reserved(buffers: usize, (low, high): (usize, usize), new: fn(usize) -> Block) -> Left {
    let mut random = Random::new(9);
    let buffer = |_| {
        let mut block = new(random.log_uniform(low, high));
        block.scribble(1);
        block
    };
    let alive: Vec<_> = (0..buffers).map(buffer).collect();
    Left { bytes: alive.len() * 4096 + size_of_val(&alive[..]), _alive: vec![Box::new(alive)] }
}

fn fragments(scale: Scale) -> Left {
    let mut random = Random::new(7);
    let mut left = Left { bytes: 0, _alive: Vec::new() };
    for sizes in [(4, 7), (8, 12), (6, 9)] {
        let blocks = blocks(&mut random, scale.of(256 << 20), sizes);
        let alive = survivors(blocks, |_, _| random.below(10) == 0);
        left.bytes += size(&alive);
        left._alive.push(Box::new(alive));
    }
    left
}
