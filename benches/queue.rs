//! The queue through its public API: what one operation costs, and what
//! several threads get through it. Arrived data is checked.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use slipring::{Queue, Segment};
use std::hint::black_box;
use std::time::{Duration, Instant};

fn name(what: &str) -> String {
    format!("slipring-bench-{}-{what}", std::process::id())
}

/// One thread, nobody else: the floor of an operation.
fn uncontended(c: &mut Criterion) {
    let mut group = c.benchmark_group("queue/one thread");
    group.throughput(Throughput::Elements(1));

    let queue = Queue::<u64>::create(&name("u64"), 1024).unwrap();
    let (mut tx, mut rx) = (queue.sender().unwrap(), queue.receiver().unwrap());
    group.bench_function("try_send + try_recv, 8 bytes", |b| {
        let mut i = 0u64;
        b.iter(|| {
            tx.try_send(black_box(i)).unwrap();
            assert_eq!(rx.try_recv().unwrap(), i);
            i += 1;
        });
    });
    group.bench_function("claim + take in place, 8 bytes", |b| {
        let mut i = 0u64;
        b.iter(|| {
            let mut slot = tx.try_claim().unwrap();
            slot.write(black_box(i));
            slot.commit();
            assert_eq!(*rx.try_take().unwrap(), i);
            i += 1;
        });
    });
    group.bench_function("try_recv, empty", |b| b.iter(|| assert!(rx.try_recv().is_err())));

    let blobs = Queue::create_bytes(&name("blobs"), 64, 4096).unwrap();
    let (mut tx, mut rx) = (blobs.sender().unwrap(), blobs.receiver().unwrap());
    let message = vec![7u8; 4096];
    group.throughput(Throughput::Bytes(4096));
    group.bench_function("try_send + try_take, 4096 bytes", |b| {
        b.iter(|| {
            tx.try_send(black_box(&message)).unwrap();
            assert_eq!(rx.try_take().unwrap()[4095], 7);
        });
    });
    group.finish();
}

/// Two producers and two consumers on their own threads.
fn contended(c: &mut Criterion) {
    let mut group = c.benchmark_group("queue/2 producers, 2 consumers");
    group.throughput(Throughput::Elements(1)).sample_size(10);
    group.warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(3));
    group.bench_function("8 bytes", |b| {
        b.iter_custom(|count| {
            let queue = Queue::<u64>::create(&name("mpmc"), 1024).unwrap();
            let each = count.div_ceil(2);
            let start = Instant::now();
            std::thread::scope(|scope| {
                for _ in 0..2 {
                    let mut tx = queue.sender().unwrap();
                    scope.spawn(move || (0..each).for_each(|i| tx.send(i).unwrap()));
                }
                let consumers: Vec<_> = (0..2)
                    .map(|_| queue.receiver().unwrap())
                    .map(|mut rx| {
                        scope.spawn(move || {
                            let mut sum = 0u64;
                            while let Ok(i) = rx.recv() {
                                sum = sum.wrapping_add(i);
                            }
                            sum
                        })
                    })
                    .collect();
                let total = consumers
                    .into_iter()
                    .fold(0u64, |total, c| total.wrapping_add(c.join().unwrap()));
                assert_eq!(total, each * (each - 1), "lost or doubled");
            });
            start.elapsed()
        });
    });
    group.finish();
}

/// What it costs to make a segment and to attach to one.
fn attach(c: &mut Criterion) {
    let mut group = c.benchmark_group("segment");
    let path = name("attach");
    group.bench_function("create and drop, 1 MiB", |b| {
        b.iter(|| Segment::builder(&path).queue::<u64>("q", 65536 - 64).create().unwrap());
    });
    let held = Segment::builder(&path).queue::<u64>("q", 65536).create().unwrap();
    group.bench_function("open and drop", |b| b.iter(|| Segment::open(&path).unwrap()));
    drop(held);
    group.finish();
}

criterion_group!(benches, uncontended, contended, attach);
criterion_main!(benches);
