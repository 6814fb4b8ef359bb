//! The pipe through its public API: one thread, and a round trip between two.
//! Arrived data is checked.

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use slipring::ring::spsc::{Geometry, Ring};
use slipring::{Heap, Pipe};
use std::alloc::Layout;
use std::hint::black_box;
use std::time::Duration;

fn name(what: &str) -> String {
    format!("slipring-bench-{}-{what}", std::process::id())
}

fn uncontended(c: &mut Criterion) {
    let mut group = c.benchmark_group("pipe/one thread");
    group.warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    group.throughput(Throughput::Elements(1));

    let path = name("typed");
    let mut a = Pipe::<u64>::create_typed(&path, 1024).unwrap();
    let mut b = Pipe::<u64>::open_typed(&path).unwrap();
    group.bench_function("typed: try_send + try_recv, 8 bytes", |bench| {
        let mut i = 0u64;
        bench.iter(|| {
            a.try_send(black_box(i)).unwrap();
            assert_eq!(b.try_recv().unwrap(), i);
            i += 1;
        });
    });

    let path = name("bytes");
    let mut a = Pipe::create(&path, 1 << 20).unwrap();
    let mut b = Pipe::open(&path).unwrap();
    for len in [8usize, 64, 4096] {
        // By turns, so that another one is seen to arrive.
        let messages = [vec![7u8; len], vec![8u8; len]];
        let mut buffer = vec![0u8; len];
        group.throughput(Throughput::Bytes(len as u64));
        group.bench_function(format!("bytes: try_send + try_recv_into, {len} bytes"), |bench| {
            let mut turns = messages.iter().cycle();
            bench.iter(|| {
                let message = turns.next().unwrap();
                a.try_send(black_box(message)).unwrap();
                assert_eq!(b.try_recv_into(&mut buffer).unwrap(), len);
                assert_eq!(buffer[len - 1], message[len - 1]);
            });
        });
    }
    group.finish();
}

/// Many messages per call.
fn batches(c: &mut Criterion) {
    const BATCH: usize = 64;
    let mut group = c.benchmark_group("pipe/batch of 64");
    group.throughput(Throughput::Elements(BATCH as u64));
    group.warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));

    let path = name("batch");
    let mut a = Pipe::<u64>::create_typed(&path, 1024).unwrap();
    let mut b = Pipe::<u64>::open_typed(&path).unwrap();
    let (mut batch, mut inbox) = ([0_u64; BATCH], Vec::with_capacity(BATCH));
    group.bench_function("typed: send_many + recv_many, 8 bytes", |bench| {
        bench.iter(|| {
            batch.iter_mut().for_each(|message| *message += 1);
            a.send_many(&batch).unwrap();
            inbox.clear();
            assert_eq!(b.recv_many(&mut inbox, BATCH).unwrap(), BATCH);
            assert_eq!(inbox, batch);
        });
    });

    let path = name("each");
    let mut a = Pipe::<u64>::create_typed(&path, 1024).unwrap();
    let mut b = Pipe::<u64>::open_typed(&path).unwrap();
    let mut next = 0;
    group.bench_function("typed: send_each + recv_each, 8 bytes", |bench| {
        bench.iter(|| {
            a.send_each(BATCH, |nth| next + nth as u64).unwrap();
            let count = b.recv_each(BATCH, |&message| {
                assert_eq!(message, next);
                next += 1;
            });
            assert_eq!(count.unwrap(), BATCH);
        });
    });

    let path = name("bytes-batch");
    let mut a = Pipe::create(&path, 64 * 1024).unwrap();
    let mut b = Pipe::open(&path).unwrap();
    let batches = [7_u8, 8].map(|byte| [[byte; 8]; BATCH]);
    let (mut turns, mut inbox) = (batches.iter().cycle(), Vec::with_capacity(BATCH));
    group.bench_function("bytes: send_many + recv_many, 8 bytes", |bench| {
        bench.iter(|| {
            let batch = turns.next().unwrap();
            a.send_many(black_box(batch)).unwrap();
            inbox.clear();
            assert_eq!(b.recv_many(&mut inbox, BATCH).unwrap(), BATCH);
            assert_eq!(inbox, batch);
        });
    });
    group.finish();
}

/// Messages lent where they lie, with 8 bytes of them touched.
fn in_place(c: &mut Criterion) {
    const LEN: usize = 64 * 1024;
    let mut group = c.benchmark_group("pipe/in place");
    group.throughput(Throughput::Elements(1));
    group.warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    typed_in_place::<1>(&mut group);
    typed_in_place::<8>(&mut group);
    typed_in_place::<128>(&mut group);
    typed_in_place::<{ LEN / 8 }>(&mut group);

    let (path, mut i) = (name("large-bytes"), 0_u64);
    let mut a = Pipe::create(&path, 16 * (LEN + 8)).unwrap();
    let mut b = Pipe::open(&path).unwrap();
    group.bench_function("bytes: reserve + peek, 65536 bytes", |bench| {
        bench.iter(|| {
            let mut room = a.reserve(LEN).unwrap();
            room[..8].copy_from_slice(&i.to_ne_bytes());
            room.commit(LEN);
            let message = b.peek().unwrap();
            assert_eq!((message.len(), &message[..8]), (LEN, &i.to_ne_bytes()[..]));
            i += 1;
        });
    });
    group.finish();
}

fn typed_in_place<const WORDS: usize>(group: &mut BenchmarkGroup<'_, WallTime>) {
    let path = name(&format!("in-place-{WORDS}"));
    let mut a = Pipe::<[u64; WORDS]>::create_typed(&path, 16).unwrap();
    let mut b = Pipe::<[u64; WORDS]>::open_typed(&path).unwrap();
    let mut i = 0;
    group.bench_function(format!("typed: reserve + peek, {} bytes", 8 * WORDS), |bench| {
        bench.iter(|| {
            let mut slot = a.reserve().unwrap();
            slot[0] = i;
            slot.commit();
            assert_eq!(b.peek().unwrap()[0], i);
            i += 1;
        });
    });
}

/// The pipe's ring alone. What `pipe/one thread` takes more is for the questions whether the
/// process forked, the other end is gone, or somebody sleeps.
fn ring_alone(c: &mut Criterion) {
    let mut group = c.benchmark_group("pipe/the ring alone");
    group.warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    group.throughput(Throughput::Elements(1));
    let geometry = Geometry::new(1024, Layout::new::<u64>()).unwrap();
    let heap = Heap::zeroed(geometry.len());
    // SAFETY: the block is the ring's alone, of its length and alignment.
    let ring = unsafe { Ring::init(heap.region(), geometry, 0) };
    // SAFETY: the only ends.
    let (mut tx, mut rx) = unsafe { (ring.producer().unwrap(), ring.consumer().unwrap()) };
    group.bench_function("claim + commit + peek + release, 8 bytes", |bench| {
        let mut i = 0_u64;
        bench.iter(|| {
            let slot = tx.try_claim().unwrap().unwrap();
            // SAFETY: the slot is this thread's until it is committed, and of a u64's layout.
            unsafe { slot.payload().cast::<u64>().write(black_box(i)) };
            slot.commit();
            let message = rx.peek().unwrap().unwrap();
            // SAFETY: nobody writes there before the release.
            assert_eq!(unsafe { message.payload().cast::<u64>().read() }, i);
            message.release();
            i += 1;
        });
    });
    group.finish();
}

fn round_trip(c: &mut Criterion) {
    let mut group = c.benchmark_group("pipe/two threads");
    group.sample_size(10);
    group.warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    let path = name("echo");
    let mut a = Pipe::<u64>::create_typed(&path, 64).unwrap();
    let mut b = Pipe::<u64>::open_typed(&path).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            while let Ok(message) = b.recv() {
                b.send(message).unwrap();
            }
        });
        group.bench_function("typed: round trip, 8 bytes", |bench| {
            let mut i = 0u64;
            bench.iter(|| {
                a.send(i).unwrap();
                assert_eq!(a.recv().unwrap(), i);
                i += 1;
            });
        });
        drop(a);
    });
    group.finish();
}

criterion_group!(benches, uncontended, ring_alone, batches, in_place, round_trip);
criterion_main!(benches);
