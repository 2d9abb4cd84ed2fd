//! Load that comes and goes: two days of services, each of some waves in two minutes. What is resident should follow.

use crate::shapes::block::Block;
use crate::{Random, Scale};
use std::collections::HashMap;
use std::f64::consts::TAU;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::thread::{scope, sleep};
use std::time::{Duration, Instant};

/// A day.
#[derive(Clone, Copy)]
pub struct Day {
    /// Its name, which is an argument of the program.
    pub name: &'static str,
    /// What it does, in a few words.
    pub what: &'static str,
    /// Lives it: with the load over time, and a count of the bytes that are alive, for those who look.
    run: fn(&Clock, &AtomicUsize),
}

/// Every day, in the order of the tables.
pub const DAYS: &[Day] = &[
    Day {
        name: "day-cache",
        what: "one thread, a map of up to 400 MiB of values from 16 bytes to 16 KiB, which are replaced, expire, and come again",
        run: cache,
    },
    Day {
        name: "day-web",
        what: "four threads, up to 60,000 sessions of a few kilobytes in some blocks each, beside requests that leave nothing",
        run: web,
    },
];

/// How long a day is.
const DAY: Duration = Duration::from_secs(120);
/// Waves of a day.
const WAVES: f64 = 4.0;
/// What is left of the load at night.
const NIGHT: f64 = 0.05;
/// Between two looks at the clock.
const STEP: Duration = Duration::from_millis(10);
/// Between two samples.
const SAMPLE: Duration = Duration::from_millis(250);

/// The time of a day.
struct Clock {
    begin: Instant,
    day: Duration,
    over: AtomicBool,
}

impl Clock {
    /// The part of the full load that there should be now. `None`: the day is over.
    fn load(&self) -> Option<f64> {
        let time = self.begin.elapsed().as_secs_f64() / self.day.as_secs_f64();
        let wave = (0.5 - 0.5 * (TAU * WAVES * time).cos()).powi(2);
        (!self.over.load(Relaxed) && time < 1.0).then_some(NIGHT + (1.0 - NIGHT) * wave)
    }
}

/// What there was at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// Milliseconds since the begin of the day.
    pub millis: u128,
    /// Bytes that are alive, as they were asked for.
    pub alive: usize,
}

/// Lives a day, or a part of it as long, and shows each sample.
pub fn live(day: Day, scale: Scale, mut show: impl FnMut(Sample)) {
    let day_len = Duration::from_millis(scale.of(DAY.as_millis() as usize) as u64);
    let clock = Clock { begin: Instant::now(), day: day_len, over: AtomicBool::new(false) };
    let alive = AtomicUsize::new(0);
    scope(|scope| {
        scope.spawn(|| (day.run)(&clock, &alive));
        while clock.load().is_some() {
            show(Sample { millis: clock.begin.elapsed().as_millis(), alive: alive.load(Relaxed) });
            sleep(SAMPLE);
        }
        clock.over.store(true, Relaxed);
    });
}

fn filled(random: &mut Random, low: usize, high: usize) -> Block {
    let mut block = Block::new(random.log_uniform(low, high));
    block.fill();
    block
}

/// A key at random expires, or is given another value; and others come, until there are as many as the load says.
fn cache(clock: &Clock, alive: &AtomicUsize) {
    const KEYS: f64 = 170_000.0;
    const CHANGES: usize = 2000;
    let mut random = Random::new(1);
    let mut values: HashMap<u64, Block> = HashMap::new();
    let mut keys: Vec<u64> = Vec::new();
    let (mut next, mut bytes) = (0, 0);
    while let Some(load) = clock.load() {
        let wanted = (KEYS * load) as usize;
        for _ in 0..CHANGES.min(keys.len()) {
            let key = keys[random.below(keys.len())];
            let value = filled(&mut random, 4, 14);
            bytes += value.size();
            bytes -= values.insert(key, value).map_or(0, |old| old.size());
        }
        while keys.len() > wanted {
            let key = keys.swap_remove(random.below(keys.len()));
            bytes -= values.remove(&key).map_or(0, |old| old.size());
        }
        while keys.len() < wanted {
            let value = filled(&mut random, 4, 14);
            bytes += value.size();
            values.insert(next, value);
            keys.push(next);
            next += 1;
        }
        alive.store(bytes, Relaxed);
        sleep(STEP);
    }
}

/// Each thread has its part of the sessions; one that begins is served by whichever thread comes next, and ends on another.
fn web(clock: &Clock, alive: &AtomicUsize) {
    const THREADS: usize = 4;
    const SESSIONS: f64 = 60_000.0;
    const REQUESTS: usize = 200;
    type Session = Vec<Block>;
    let shared: Vec<std::sync::Mutex<Vec<Session>>> = (0..THREADS).map(|_| Default::default()).collect();
    let bytes = |session: &Session| session.iter().map(Block::size).sum::<usize>();
    scope(|scope| {
        for thread in 0..THREADS {
            let shared = &shared;
            scope.spawn(move || {
                let mut random = Random::new(thread as u64 + 1);
                while let Some(load) = clock.load() {
                    for _ in 0..(REQUESTS as f64 * load) as usize {
                        // A request: a buffer, and a dozen of small things, all gone when it is answered.
                        let buffer = filled(&mut random, 12, 16);
                        let parts: Session = (0..12).map(|_| filled(&mut random, 4, 9)).collect();
                        drop((parts, buffer));
                    }
                    let wanted = (SESSIONS / THREADS as f64 * load) as usize;
                    // What another thread has begun, as often as not.
                    let mut sessions = shared[random.below(THREADS)].lock().expect("no panic");
                    while sessions.len() > wanted {
                        let which = random.below(sessions.len());
                        let session = sessions.swap_remove(which);
                        alive.fetch_sub(bytes(&session), Relaxed);
                    }
                    while sessions.len() < wanted {
                        let session: Session = (0..8).map(|_| filled(&mut random, 5, 12)).collect();
                        alive.fetch_add(bytes(&session), Relaxed);
                        sessions.push(session);
                    }
                    drop(sessions);
                    sleep(STEP);
                }
            });
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_alive_follows_the_load() {
        for day in DAYS {
            let mut samples = Vec::new();
            live(*day, Scale::new(0.05), |sample| samples.push(sample.alive));
            let (least, most) = (samples[4..].iter().min().unwrap(), samples.iter().max().unwrap());
            assert!(*most > 4 * least, "{}: {least} to {most}", day.name);
        }
    }
}
