//! Value, Array and Lock through their public API, uncontended, beside the
//! standard library's nearest relative.

use criterion::{Criterion, criterion_group, criterion_main};
use slipring::{Array, Lock, Value};
use std::hint::black_box;
use std::sync::Mutex;

fn name(what: &str) -> String {
    format!("slipring-bench-{}-{what}", std::process::id())
}

fn value(c: &mut Criterion) {
    let mut group = c.benchmark_group("value");
    let word = Value::<u64>::create(&name("u64"), 1).unwrap();
    group.bench_function("load, 8 bytes", |b| b.iter(|| assert_eq!(black_box(word.load()), 1)));
    group.bench_function("store, 8 bytes", |b| b.iter(|| word.store(black_box(2))));
    assert_eq!(word.load(), 2);
    let large = Value::<[u64; 8]>::create(&name("large"), [3; 8]).unwrap();
    group
        .bench_function("load, 64 bytes", |b| b.iter(|| assert_eq!(black_box(large.load())[7], 3)));
    group.bench_function("store, 64 bytes", |b| b.iter(|| large.store(black_box([4; 8]))));
    assert_eq!(large.load(), [4; 8]);
    group.finish();
}

fn array(c: &mut Criterion) {
    let mut group = c.benchmark_group("array");
    let array = Array::<f32>::create(&name("f32"), 4096).unwrap();
    group.bench_function("set + get, 4 bytes", |b| {
        let mut i = 0;
        b.iter(|| {
            i = (i + 1) % 4096;
            array.set(i, i as f32).unwrap();
            assert_eq!(array.get(i).unwrap(), i as f32);
        });
    });
    let scan = vec![1.5f32; 4096];
    group.bench_function("copy_from_slice, 16 KiB", |b| {
        b.iter(|| array.copy_from_slice(black_box(&scan)).unwrap());
    });
    assert_eq!(array.get(4095).unwrap(), 1.5);
    let mut copy = vec![0f32; 4096];
    group.bench_function("read, 16 KiB", |b| b.iter(|| array.read(0, &mut copy).unwrap()));
    assert_eq!(copy, scan);
    group.finish();
}

fn lock(c: &mut Criterion) {
    let mut group = c.benchmark_group("lock");
    let lock = Lock::create(&name("lock")).unwrap();
    group.bench_function("lock + unlock", |b| b.iter(|| drop(lock.lock().unwrap())));
    let mutex = Mutex::new(());
    group.bench_function("std::sync::Mutex", |b| b.iter(|| drop(mutex.lock().unwrap())));
    group.finish();
}

criterion_group!(benches, value, array, lock);
criterion_main!(benches);
