//! The heap of the process as a subject.

use super::Subject;
use allocator_core::heap::Stats;
use allocator_core::sys::Plan;
use allocator_global::Kmalloc;
use std::alloc::{GlobalAlloc, Layout};
use std::ptr::NonNull;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

/// Driven as a value: the process' own global allocator is the system's.
const KMALLOC: Kmalloc = Kmalloc::new();

fn alloc(layout: Layout, zeroed: bool) -> Option<NonNull<u8>> {
    assert!(layout.size() != 0);
    NonNull::new(match zeroed {
        // SAFETY: the size is not zero.
        true => unsafe { KMALLOC.alloc_zeroed(layout) },
        // SAFETY: the size is not zero.
        false => unsafe { KMALLOC.alloc(layout) },
    })
}

/// The heap of the process, used by the calling thread while other threads use it too: what cannot be said meanwhile is
/// not asked. The one lane begins and ends with the thread.
#[derive(Debug, Clone, Copy, Default)]
pub struct Direct;

impl Subject for Direct {
    fn lanes(&self) -> usize {
        1
    }
    fn alloc(&mut self, _: usize, layout: Layout, zeroed: bool) -> Option<NonNull<u8>> {
        alloc(layout, zeroed)
    }
    unsafe fn realloc(&mut self, _: usize, ptr: NonNull<u8>, layout: Layout, size: usize) -> Option<NonNull<u8>> {
        // SAFETY: by contract.
        NonNull::new(unsafe { KMALLOC.realloc(ptr.as_ptr(), layout, size) })
    }
    unsafe fn free(&mut self, _: usize, ptr: NonNull<u8>, layout: Layout) {
        // SAFETY: by contract.
        unsafe { KMALLOC.dealloc(ptr.as_ptr(), layout) }
    }
    fn owns(&self, ptr: NonNull<u8>) -> bool {
        Kmalloc::owns(ptr.as_ptr())
    }
    fn attach(&mut self, _: usize) {}
    fn detach(&mut self, _: usize) {}
    fn reclaim(&mut self, _: usize) {
        Kmalloc::reclaim();
    }
    fn validate(&mut self) -> Option<Result<Stats, &'static str>> {
        None
    }
    fn fail(&mut self, _: Plan) {}
    fn refused(&self) -> u64 {
        0
    }
    fn finish(&mut self) -> Result<(), String> {
        Ok(())
    }
}

/// Lanes of [`Threads`].
const LANES: usize = 3;

type Job = Box<dyn FnOnce() + Send>;

/// A thread that does what it is told, one thing at a time while everybody else waits.
#[derive(Debug)]
struct Worker {
    jobs: mpsc::Sender<Job>,
    thread: JoinHandle<()>,
}

impl Worker {
    fn start() -> Self {
        let (jobs, queue) = mpsc::channel::<Job>();
        Self { jobs, thread: thread::spawn(move || queue.into_iter().for_each(|job| job())) }
    }

    fn run<R: Send + 'static>(&self, job: impl FnOnce() -> R + Send + 'static) -> R {
        let (answer, result) = mpsc::channel();
        self.jobs.send(Box::new(move || drop(answer.send(job())))).expect("a worker waits for jobs");
        result.recv().expect("a job does not panic")
    }
}

/// The heap of the process, and nobody else may be using it: each lane is a thread, started when it is first needed.
/// System calls cannot be made to fail.
#[derive(Debug, Default)]
pub struct Threads {
    workers: [Option<Worker>; LANES],
}

impl Threads {
    fn on<R: Send + 'static>(&mut self, lane: usize, job: impl FnOnce() -> R + Send + 'static) -> R {
        self.workers[lane].get_or_insert_with(Worker::start).run(job)
    }
}

/// An address on its way to another thread or back.
struct Sent(NonNull<u8>);
// SAFETY: one thread uses the block at a time: the other one waits.
unsafe impl Send for Sent {}

impl Subject for Threads {
    fn lanes(&self) -> usize {
        LANES
    }
    fn alloc(&mut self, lane: usize, layout: Layout, zeroed: bool) -> Option<NonNull<u8>> {
        self.on(lane, move || alloc(layout, zeroed).map(Sent)).map(|sent| sent.0)
    }
    unsafe fn realloc(&mut self, lane: usize, ptr: NonNull<u8>, layout: Layout, size: usize) -> Option<NonNull<u8>> {
        let sent = Sent(ptr);
        let job = move || {
            let Sent(ptr) = { sent };
            // SAFETY: by contract; the caller waits.
            NonNull::new(unsafe { KMALLOC.realloc(ptr.as_ptr(), layout, size) }).map(Sent)
        };
        self.on(lane, job).map(|sent| sent.0)
    }
    unsafe fn free(&mut self, lane: usize, ptr: NonNull<u8>, layout: Layout) {
        let sent = Sent(ptr);
        self.on(lane, move || {
            let Sent(ptr) = { sent };
            // SAFETY: by contract; the caller waits.
            unsafe { KMALLOC.dealloc(ptr.as_ptr(), layout) }
        });
    }
    fn owns(&self, ptr: NonNull<u8>) -> bool {
        Kmalloc::owns(ptr.as_ptr())
    }
    fn attach(&mut self, lane: usize) {
        self.on(lane, || ());
    }
    fn detach(&mut self, lane: usize) {
        if let Some(Worker { jobs, thread }) = self.workers[lane].take() {
            drop(jobs);
            // The join comes after the thread has given up its caches.
            thread.join().expect("a worker does not panic");
        }
    }
    fn reclaim(&mut self, lane: usize) {
        self.on(lane, || _ = Kmalloc::reclaim());
    }
    fn validate(&mut self) -> Option<Result<Stats, &'static str>> {
        for lane in 0..LANES {
            if self.workers[lane].is_some() {
                if let Err(what) = self.on(lane, Kmalloc::validate) {
                    return Some(Err(what));
                }
            }
        }
        Some(Ok(Kmalloc::stats()))
    }
    fn fail(&mut self, _: Plan) {}
    fn refused(&self) -> u64 {
        0
    }
    fn finish(&mut self) -> Result<(), String> {
        (0..LANES).for_each(|lane| self.detach(lane));
        Kmalloc::reclaim();
        Kmalloc::validate()?;
        Ok(Kmalloc::audit()?)
    }
}
