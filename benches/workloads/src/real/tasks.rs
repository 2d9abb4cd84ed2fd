//! tokio: tasks that wait for each other, and tasks that send each other messages.

use crate::{timed, Done, Random, Scale};
use std::hint::black_box;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc;
use tokio::task::{yield_now, JoinSet};

/// Workers that the tasks run on.
const WORKERS: usize = 2;
/// Tasks at full scale that are spawned from outside, and how many of them are there at a time.
const TASKS: usize = 50_000;
const WAVE: usize = 500;

/// Messages at full scale, the lines they pass through, and how many may wait in each channel.
const MESSAGES: usize = 350_000;
const LINES: usize = 4;
const WAITING: usize = 64;

/// Each task makes a list, has a child of its own make another from a copy, and checks its length.
pub(crate) fn tokio_tasks(scale: Scale) -> Done {
    let tasks = scale.of(TASKS);
    let runtime = runtime(scale.threads(WORKERS));
    timed(tasks, || {
        runtime.block_on(async {
            let mut finished = 0;
            for wave in (0..tasks).step_by(WAVE) {
                let mut set: JoinSet<_> = (wave..tasks.min(wave + WAVE)).map(parent).collect();
                while let Some(result) = set.join_next().await {
                    finished += black_box(result.expect("a task that ends")).len().min(1);
                }
            }
            assert_eq!(finished, tasks);
        });
        drop(runtime);
    })
}

async fn parent(number: usize) -> String {
    let numbers: Vec<_> = (number..=number + number % 50).collect();
    let copy = numbers.clone();
    let child = tokio::spawn(async move {
        yield_now().await;
        copy.iter().map(usize::to_string).collect::<Vec<_>>()
    });
    yield_now().await;
    let texts = child.await.expect("a child that ends");
    assert_eq!(texts.len(), numbers.len());
    texts.join(",")
}

/// A message is made by one task, replaced by a shorter one in the next, and dropped by a third. The second has a
/// runtime of its own: else most messages would stay on one thread, for tokio runs a task on the worker that woke it.
pub(crate) fn tokio_channels(scale: Scale) -> Done {
    let messages = scale.of(MESSAGES);
    let (ends, middle) = (runtime(1), runtime(1));
    timed(messages, || {
        ends.block_on(async {
            let mut received = 0;
            let mut receivers = JoinSet::new();
            for line in 0..LINES {
                let (sender, from_sender) = mpsc::channel(WAITING);
                let (relay, from_relay) = mpsc::channel(WAITING);
                let part = messages / LINES + usize::from(line < messages % LINES);
                ends.spawn(send(line as u64, part, sender));
                middle.spawn(pass_on(from_sender, relay));
                receivers.spawn(receive(from_relay));
            }
            while let Some(part) = receivers.join_next().await {
                received += part.expect("a task that ends");
            }
            assert_eq!(received, messages);
        });
        drop((ends, middle));
    })
}

/// What the channels carry.
enum Message {
    Number(Box<u64>),
    Bytes(Vec<u8>),
}

async fn send(line: u64, messages: usize, to: mpsc::Sender<Message>) {
    let mut random = Random::new(310 + line);
    for _ in 0..messages {
        let message = match random.below(3) {
            0 => Message::Number(Box::new(random.draw())),
            _ => Message::Bytes(vec![1; random.log_uniform(4, 12)]),
        };
        assert!(to.send(message).await.is_ok(), "the other end is there");
    }
}

async fn pass_on(mut from: mpsc::Receiver<Message>, to: mpsc::Sender<Box<[u8]>>) {
    while let Some(message) = from.recv().await {
        let shorter = match message {
            Message::Number(number) => number.to_ne_bytes().into(),
            Message::Bytes(bytes) => bytes[..bytes.len() / 2].into(),
        };
        assert!(to.send(shorter).await.is_ok(), "the other end is there");
    }
}

async fn receive(mut from: mpsc::Receiver<Box<[u8]>>) -> usize {
    let mut received = 0;
    while let Some(message) = from.recv().await {
        received += black_box(message).len().min(1);
    }
    received
}

fn runtime(workers: usize) -> Runtime {
    Builder::new_multi_thread().worker_threads(workers).build().expect("threads")
}
