//! The queue through its public API: what one operation costs, and what
//! several threads get through it. Arrived data is checked.

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use slipring::Queue;
use std::hint::black_box;
use std::time::{Duration, Instant};

fn name(what: &str) -> String {
    format!("slipring-bench-{}-{what}", std::process::id())
}

/// One thread, nobody else: the floor of an operation.
fn uncontended(c: &mut Criterion) {
    let mut group = c.benchmark_group("queue/one thread");
    group.warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
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
    // By turns, so that another one is seen to arrive.
    let messages = [vec![7u8; 4096], vec![8u8; 4096]];
    group.throughput(Throughput::Bytes(4096));
    group.bench_function("try_send + try_take, 4096 bytes", |b| {
        let mut turns = messages.iter().cycle();
        b.iter(|| {
            let message = turns.next().unwrap();
            tx.try_send(black_box(message)).unwrap();
            assert_eq!(rx.try_take().unwrap()[4095], message[4095]);
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

/// Rings from one slot to more than any cache holds, half full.
fn capacities(c: &mut Criterion) {
    let mut group = c.benchmark_group("queue/capacity");
    group.throughput(Throughput::Elements(1));
    group.warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    for slots in [1, 7, 1000, 1_000_000] {
        let queue = Queue::<u64>::create(&name("capacity"), slots).unwrap();
        let (mut tx, mut rx) = (queue.sender().unwrap(), queue.receiver().unwrap());
        let waiting = slots as u64 / 2;
        (0..waiting).for_each(|i| tx.try_send(i).unwrap());
        let mut i = waiting;
        group.bench_function(format!("try_send + try_recv, 8 bytes, {slots} slots"), |b| {
            b.iter(|| {
                tx.try_send(black_box(i)).unwrap();
                assert_eq!(rx.try_recv().unwrap(), i - waiting);
                i += 1;
            });
        });
    }
    group.finish();
}

/// One participant, or as many as there can be by default, each with a handle in
/// either role.
fn participants(c: &mut Criterion) {
    let mut group = c.benchmark_group("queue/participants");
    group.throughput(Throughput::Elements(1));
    group.warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    for others in [0, 63] {
        let name = name("participants");
        let queue = Queue::<u64>::create(&name, 1024).unwrap();
        let others: Vec<_> = (0..others)
            .map(|_| Queue::<u64>::open(&name).unwrap())
            .map(|queue| (queue.sender().unwrap(), queue.receiver().unwrap()))
            .collect();
        let (mut tx, mut rx) = (queue.sender().unwrap(), queue.receiver().unwrap());
        let mut i = 0u64;
        group.bench_function(format!("try_send + try_recv, {} attached", others.len() + 1), |b| {
            b.iter(|| {
                tx.try_send(black_box(i)).unwrap();
                assert_eq!(rx.try_recv().unwrap(), i);
                i += 1;
            });
        });
    }
    group.finish();
}

/// Many messages per call.
fn batches(c: &mut Criterion) {
    const BATCH: usize = 64;
    let mut group = c.benchmark_group("queue/batch of 64");
    group.throughput(Throughput::Elements(BATCH as u64));
    group.warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    let queue = Queue::<u64>::create(&name("batch"), 1024).unwrap();
    let (mut tx, mut rx) = (queue.sender().unwrap(), queue.receiver().unwrap());
    let (mut batch, mut inbox) = ([0_u64; BATCH], Vec::with_capacity(BATCH));
    group.bench_function("send_many + recv_many, 8 bytes", |b| {
        b.iter(|| {
            batch.iter_mut().for_each(|message| *message += 1);
            tx.send_many(&batch).unwrap();
            inbox.clear();
            assert_eq!(rx.recv_many(&mut inbox, BATCH).unwrap(), BATCH);
            assert_eq!(inbox, batch);
        });
    });
    group.finish();
}

/// 64 KiB, copied in and out.
fn large(c: &mut Criterion) {
    type Large = [u64; 8192];
    let mut group = c.benchmark_group("queue/64 KiB");
    group.throughput(Throughput::Bytes(size_of::<Large>() as u64));
    group.warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    let queue = Queue::<Large>::create(&name("large"), 16).unwrap();
    let (mut tx, mut rx) = (queue.sender().unwrap(), queue.receiver().unwrap());
    let mut message = Box::new([0; 8192]);
    group.bench_function("try_send + try_recv", |b| {
        b.iter(|| {
            message[8191] += 1;
            tx.try_send(*message).unwrap();
            assert_eq!(black_box(rx.try_recv().unwrap())[8191], message[8191]);
        });
    });
    group.finish();
}

/// Messages lent where they lie, with 8 bytes of them touched: whatever their size.
fn in_place(c: &mut Criterion) {
    let mut group = c.benchmark_group("queue/in place");
    group.throughput(Throughput::Elements(1));
    group.warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    lent::<1>(&mut group);
    lent::<8>(&mut group);
    lent::<128>(&mut group);
    lent::<8192>(&mut group);
    group.finish();
}

fn lent<const WORDS: usize>(group: &mut BenchmarkGroup<'_, WallTime>) {
    let queue = Queue::<[u64; WORDS]>::create(&name(&format!("lent-{WORDS}")), 16).unwrap();
    let (mut tx, mut rx) = (queue.sender().unwrap(), queue.receiver().unwrap());
    let mut i = 0;
    group.bench_function(format!("claim + take, {} bytes", 8 * WORDS), |b| {
        b.iter(|| {
            let mut slot = tx.try_claim().unwrap();
            slot[0] = i;
            slot.commit();
            assert_eq!(rx.try_take().unwrap()[0], i);
            i += 1;
        });
    });
}

criterion_group!(
    benches,
    uncontended,
    capacities,
    participants,
    batches,
    large,
    in_place,
    contended
);
criterion_main!(benches);
