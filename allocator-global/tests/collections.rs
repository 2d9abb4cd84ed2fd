//! Every collection of std at once, under threads, checked against sums that are known.

mod common;

use common::on_threads;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap, HashSet, LinkedList, VecDeque};
use std::fmt::Write;
use std::rc::Rc;
use std::sync::{mpsc, Arc, Mutex, RwLock};
use std::thread;

suite! {
    tests: [
        every_collection_holds_what_was_put_into_it,
        collections_move_between_threads,
        shared_maps_survive_many_writers,
        strings_grow_and_split_without_a_byte_lost,
    ],
    children: []
}

const N: u64 = 4000;
const SUM: u64 = N * (N - 1) / 2;

fn vectors(seed: u64) {
    let mut vec: Vec<u64> = (0..N).map(|n| n ^ seed).collect();
    vec.retain(|n| (n ^ seed) % 3 != 0);
    vec.shrink_to_fit();
    let expected: u64 = (0..N).filter(|n| n % 3 != 0).sum();
    assert_eq!(vec.iter().map(|n| n ^ seed).sum::<u64>(), expected);
    let mut rows: Vec<Vec<u32>> = (0..200).map(|row| vec![row; row as usize]).collect();
    rows.sort_by_key(|row| std::cmp::Reverse(row.len()));
    assert_eq!(rows.concat().len(), 199 * 100);
    let boxed: Box<[Vec<u32>]> = rows.into_boxed_slice();
    assert_eq!(boxed[0], [199; 199]);
}

fn queues() {
    let mut deque = VecDeque::new();
    for n in 0..N {
        deque.push_back(n);
        deque.push_front(n);
        if n % 2 == 1 {
            deque.rotate_left(3);
        }
    }
    assert_eq!((deque.len() as u64, deque.iter().sum::<u64>()), (2 * N, 2 * SUM));
    let mut heap: BinaryHeap<u64> = deque.into_iter().collect();
    let mut last = u64::MAX;
    while let Some(n) = heap.pop() {
        assert!(n <= last);
        last = n;
    }
    let mut list: LinkedList<u64> = (0..N).collect();
    let mut tail = list.split_off(N as usize / 4);
    tail.append(&mut list);
    assert_eq!((tail.pop_front(), tail.iter().sum::<u64>()), (Some(N / 4), SUM - N / 4));
}

fn maps(seed: u64) {
    let mut tree = BTreeMap::new();
    let mut table = HashMap::new();
    for n in 0..N {
        let key = n.wrapping_mul(2654435761) % N.next_power_of_two();
        *tree.entry(key).or_insert(0) += n;
        table.entry(format!("key {key} of {seed}")).or_insert_with(Vec::new).push(n);
    }
    assert_eq!(tree.values().sum::<u64>(), SUM);
    assert_eq!(table.values().flatten().sum::<u64>(), SUM);
    assert_eq!(tree.len(), table.len());
    for (key, sum) in &tree {
        assert_eq!(table[&format!("key {key} of {seed}")].iter().sum::<u64>(), *sum);
    }
    let upper = tree.split_off(&(N / 2));
    table.retain(|_, numbers| numbers[0] % 2 == 0);
    table.shrink_to_fit();
    assert_eq!(tree.values().chain(upper.values()).sum::<u64>(), SUM);
    let ordered: BTreeSet<String> = table.into_keys().collect();
    let hashed: HashSet<&str> = ordered.iter().map(String::as_str).collect();
    assert_eq!(ordered.len(), hashed.len());
    assert!(ordered.iter().all(|key| hashed.contains(key.as_str())));
}

fn pointers() {
    struct Node {
        value: u64,
        next: Option<Rc<Node>>,
    }
    let mut head: Option<Rc<Node>> = None;
    for value in 0..N {
        head = Some(Rc::new(Node { value, next: head.take() }));
    }
    let (mut sum, mut at) = (0, head.as_deref());
    while let Some(node) = at {
        sum += node.value;
        at = node.next.as_deref();
    }
    assert_eq!(sum, SUM);
    while let Some(node) = head {
        head = Rc::into_inner(node).and_then(|node| node.next); // one by one: dropping a list at once recurses
    }
    let mut calls: Vec<Box<dyn Fn(u64) -> u64 + Send>> = Vec::new();
    for n in 0..N {
        match n % 3 {
            0 => calls.push(Box::new(move |x| x + n)),
            1 => calls.push(Box::new({
                let text = n.to_string();
                move |x| x + text.parse::<u64>().expect("a number")
            })),
            _ => calls.push(Box::new({
                let large = [n; 40];
                move |x| x + large[x as usize % 40]
            })),
        }
    }
    assert_eq!(calls.iter().fold(0, |sum, call| call(sum)), SUM);
    let errors: Vec<Box<dyn std::error::Error>> = (0..100).map(|n| format!("error {n}").into()).collect();
    assert_eq!(errors[99].to_string(), "error 99");
    let shared: Arc<str> = "shared".repeat(100).into();
    let copies: Vec<Arc<str>> = (0..100).map(|_| shared.clone()).collect();
    assert_eq!(Arc::strong_count(&shared), copies.len() + 1);
}

fn every_collection_holds_what_was_put_into_it() {
    on_threads(4, |thread| {
        for round in 0..6 {
            // Each thread in another order, so that different collections are at work at once.
            for step in 0..4 {
                match (thread + round + step) % 4 {
                    0 => vectors(round as u64),
                    1 => queues(),
                    2 => maps(thread as u64),
                    _ => pointers(),
                }
            }
        }
    });
}

type Parcel = (u64, BTreeMap<u64, String>, HashMap<String, Vec<u64>>, Box<dyn FnOnce() -> u64 + Send>);

/// Built by one thread, changed by the second, taken apart by the third.
fn collections_move_between_threads() {
    const PARCELS: u64 = 300;
    let (build, change) = mpsc::sync_channel::<Parcel>(16);
    let (forward, check) = mpsc::channel::<Parcel>();
    let builder = thread::spawn(move || {
        for id in 0..PARCELS {
            let tree = (0..100).map(|n| (n, format!("{id}/{n}"))).collect();
            let table = (0..20).map(|n| (n.to_string(), (0..n).collect())).collect();
            let inside: Vec<u64> = vec![id; 100];
            let sent = build.send((id, tree, table, Box::new(move || inside.iter().sum())));
            assert!(sent.is_ok(), "the second thread is there");
        }
    });
    let changer = thread::spawn(move || {
        for (id, mut tree, mut table, call) in change {
            tree.retain(|n, _| n % 2 == 0);
            tree.values_mut().for_each(|text| text.push_str(" was changed"));
            table.values_mut().for_each(|numbers| numbers.push(1));
            table.insert("one more".to_owned(), vec![id]);
            assert!(forward.send((id, tree, table, call)).is_ok(), "the main thread is there");
        }
    });
    let mut ids = 0;
    for (id, tree, table, call) in check {
        assert_eq!(tree.len(), 50);
        assert!(tree.iter().all(|(n, text)| *text == format!("{id}/{n} was changed")));
        assert_eq!(table["one more"], [id]);
        assert_eq!(table.len(), 21);
        assert_eq!(table["19"].iter().sum::<u64>(), 18 * 19 / 2 + 1);
        assert_eq!(call(), 100 * id);
        ids += id;
    }
    builder.join().expect("the first thread panicked");
    changer.join().expect("the second thread panicked");
    assert_eq!(ids, PARCELS * (PARCELS - 1) / 2);
}

fn shared_maps_survive_many_writers() {
    let table = Arc::new(RwLock::new(HashMap::<u64, Arc<Vec<u64>>>::new()));
    let queue = Arc::new(Mutex::new(VecDeque::<Arc<Vec<u64>>>::new()));
    on_threads(6, |thread| {
        for n in 0..2000u64 {
            let value = Arc::new(vec![n; 1 + n as usize % 50]);
            let old = table.write().expect("no panic").insert(n % 500, value.clone());
            if let Some(old) = old {
                assert!(old.iter().all(|m| m % 500 == n % 500), "thread {thread}: a value has moved");
                queue.lock().expect("no panic").push_back(old);
            }
            if n % 3 == 0 {
                let taken = queue.lock().expect("no panic").pop_front();
                assert!(taken.iter().all(|taken| taken.iter().all(|&m| m == taken[0])));
            }
            let read = table.read().expect("no panic").get(&(n * 7 % 500)).cloned();
            assert!(read.iter().all(|read| read.iter().all(|m| m % 500 == n * 7 % 500)));
        }
    });
    let table = table.read().expect("no panic");
    assert_eq!(table.len(), 500);
    assert!(table.iter().all(|(key, value)| value[0] % 500 == *key));
}

fn strings_grow_and_split_without_a_byte_lost() {
    on_threads(4, |thread| {
        let mut text = String::new();
        for n in 0..20_000 {
            write!(text, "{n:x}·").expect("a string takes everything");
        }
        let parts: Vec<String> = text.split('·').filter(|part| !part.is_empty()).map(str::to_uppercase).collect();
        assert_eq!(parts.len(), 20_000, "thread {thread}");
        assert!(parts.iter().enumerate().all(|(n, part)| u64::from_str_radix(part, 16) == Ok(n as u64)));
        let mut joined = parts.join("·").to_lowercase();
        joined.push('·');
        assert_eq!(joined, text);
        let middle = (joined.len() / 2..).find(|&at| joined.is_char_boundary(at)).expect("the end is a boundary");
        let tail = joined.split_off(middle);
        assert_eq!(joined + &tail, text);
    });
}
