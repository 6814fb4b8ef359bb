//! Value, Array and Lock through their public API, uncontended, beside the
//! standard library's nearest relative.

use criterion::{Criterion, criterion_group, criterion_main};
use slipring::{Array, Lock, Value};
use std::hint::black_box;
use std::sync::Mutex;
use std::time::{Duration, Instant};

fn name(what: &str) -> String {
    format!("slipring-bench-{}-{what}", std::process::id())
}

// What is asserted after a benchmark stands inside it, for those that are left
// out by a filter.

fn value(c: &mut Criterion) {
    let mut group = c.benchmark_group("value");
    group.warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    let word = Value::<u64>::create(&name("load"), 1).unwrap();
    // Summed up, since to assert each one costs more than to load it.
    group.bench_function("load, 8 bytes", |b| {
        b.iter_custom(|times| {
            let start = Instant::now();
            let sum = (0..times).fold(0, |sum, _| sum + word.load());
            let elapsed = start.elapsed();
            assert_eq!(sum, times);
            elapsed
        });
    });
    let word = Value::<u64>::create(&name("store"), 1).unwrap();
    group.bench_function("store, 8 bytes", |b| {
        b.iter(|| word.store(black_box(2)));
        assert_eq!(word.load(), 2);
    });
    let mut adds = 0;
    let word = Value::<u64>::create(&name("add"), 0).unwrap();
    group.bench_function("fetch_add, 8 bytes", |b| {
        b.iter(|| {
            assert_eq!(word.fetch_add(1), adds);
            adds += 1;
        });
    });

    let large = Value::<[u64; 8]>::create(&name("load-large"), [3; 8]).unwrap();
    group.bench_function("load, 64 bytes", |b| {
        b.iter_custom(|times| {
            let start = Instant::now();
            let sums = (0..times).fold([0; 8], |sums, _| {
                let value = large.load();
                core::array::from_fn::<u64, 8, _>(|word| sums[word] + value[word])
            });
            let elapsed = start.elapsed();
            assert_eq!(sums, [3 * times; 8]);
            elapsed
        });
    });
    let large = Value::<[u64; 8]>::create(&name("store-large"), [3; 8]).unwrap();
    group.bench_function("store, 64 bytes", |b| {
        b.iter(|| large.store(black_box([4; 8])));
        assert_eq!(large.load(), [4; 8]);
    });
    let mut updates = 0;
    let large = Value::<[u64; 8]>::create(&name("update"), [0; 8]).unwrap();
    group.bench_function("update, 64 bytes", |b| {
        b.iter(|| {
            assert_eq!(large.update(|value| value.map(|word| word + 1)), [updates; 8]);
            updates += 1;
        });
    });
    group.finish();
}

fn array(c: &mut Criterion) {
    let mut group = c.benchmark_group("array");
    group.warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    let mut array = Array::<f32>::create(&name("f32"), 4096).unwrap();
    let mut i = 0;
    group.bench_function("set + get, 4 bytes", |b| {
        b.iter(|| {
            i = (i + 1) % 4096;
            array.set(i, i as f32).unwrap();
            assert_eq!(array.get(i).unwrap(), i as f32);
        });
    });
    (0..4096).for_each(|i| array.set(i, i as f32).unwrap());
    group.bench_function("get, 4 bytes", |b| {
        b.iter(|| {
            i = (i + 1) % 4096;
            assert_eq!(array.get(black_box(i)).unwrap(), i as f32);
        });
    });
    group.bench_function("set, 4 bytes", |b| {
        b.iter(|| {
            i = (i + 1) % 4096;
            array.set(black_box(i), -1.0).unwrap();
        });
        assert_eq!(array.get(i).unwrap(), -1.0);
    });
    let scan = vec![1.5f32; 4096];
    group.bench_function("copy_from_slice, 16 KiB", |b| {
        b.iter(|| array.copy_from_slice(black_box(&scan)).unwrap());
        assert_eq!(array.snapshot().unwrap(), scan);
    });
    array.copy_from_slice(&scan).unwrap();
    let mut copy = vec![0f32; 4096];
    group.bench_function("read, 16 KiB", |b| {
        b.iter(|| array.read(0, &mut copy).unwrap());
        assert_eq!(copy, scan);
    });
    let mut held = array.get(7).unwrap();
    group.bench_function("lock, one element, unlock", |b| {
        b.iter(|| {
            let mut all = array.lock().unwrap();
            assert_eq!(all[7], held);
            held = -held;
            all[7] = held;
        });
    });
    group.finish();
}

fn lock(c: &mut Criterion) {
    let mut group = c.benchmark_group("lock");
    group.warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    let lock = Lock::create(&name("lock")).unwrap();
    group.bench_function("lock + unlock", |b| b.iter(|| drop(lock.lock().unwrap())));
    let mutex = Mutex::new(());
    group.bench_function("std::sync::Mutex", |b| b.iter(|| drop(mutex.lock().unwrap())));
    group.finish();

    // Two threads that count together, in steps that only the lock joins.
    let mut group = c.benchmark_group("lock/two threads");
    group.sample_size(10);
    group.warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    let count = Value::<u64>::create(&name("guarded"), 0).unwrap();
    let step = || count.store(count.load() + 1);
    let together = |times: u64, once: &(dyn Fn() + Sync)| {
        let each = times.div_ceil(2);
        count.store(0);
        let start = Instant::now();
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| (0..each).for_each(|_| once()));
            }
        });
        let elapsed = start.elapsed();
        assert_eq!(count.load(), 2 * each, "two held the lock");
        elapsed
    };
    group.bench_function("lock, count, unlock", |b| {
        b.iter_custom(|times| {
            together(times, &|| {
                let _guard = lock.lock().unwrap();
                step();
            })
        });
    });
    group.bench_function("std::sync::Mutex", |b| {
        b.iter_custom(|times| {
            together(times, &|| {
                let _guard = mutex.lock().unwrap();
                step();
            })
        });
    });
    group.finish();
}

criterion_group!(benches, value, array, lock);
criterion_main!(benches);
