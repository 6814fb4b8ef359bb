//! The pipe through its public API: one thread, and a round trip between two.
//! Arrived data is checked.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use slipring::Pipe;
use std::hint::black_box;
use std::time::Duration;

fn name(what: &str) -> String {
    format!("slipring-bench-{}-{what}", std::process::id())
}

fn uncontended(c: &mut Criterion) {
    let mut group = c.benchmark_group("pipe/one thread");
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
        let message = vec![7u8; len];
        let mut buffer = vec![0u8; len];
        group.throughput(Throughput::Bytes(len as u64));
        group.bench_function(format!("bytes: try_send + try_recv_into, {len} bytes"), |bench| {
            bench.iter(|| {
                a.try_send(black_box(&message)).unwrap();
                assert_eq!(b.try_recv_into(&mut buffer).unwrap(), len);
                assert_eq!(buffer[len - 1], 7);
            });
        });
    }
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

criterion_group!(benches, uncontended, round_trip);
criterion_main!(benches);
