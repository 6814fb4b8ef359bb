//! The segment through its public API: what it costs to make one, and to attach
//! to one that few or many others are attached to.

use criterion::{Criterion, criterion_group, criterion_main};
use slipring::{Segment, Value};
use std::time::{Duration, Instant};

fn name(what: &str) -> String {
    format!("slipring-bench-{}-{what}", std::process::id())
}

fn create(c: &mut Criterion) {
    let mut group = c.benchmark_group("segment/create and drop");
    group.warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    let path = name("create");
    group.bench_function("a value", |b| {
        b.iter(|| assert_eq!(Value::<u64>::create(&path, 7).unwrap().load(), 7));
    });
    let queue = || Segment::builder(&path).queue::<u64>("q", 65536 - 64).create().unwrap();
    group.bench_function("a queue of 1 MiB", |b| {
        b.iter(|| assert_eq!(queue().objects().len(), 1));
    });
    group.bench_function("a queue of 1 MiB, without the drop", |b| {
        b.iter_custom(|times| {
            let mut taken = Duration::ZERO;
            for _ in 0..times {
                let start = Instant::now();
                let segment = queue();
                taken += start.elapsed();
                assert_eq!(segment.objects().len(), 1);
            }
            taken
        });
    });
    group.finish();
}

fn attach(c: &mut Criterion) {
    let mut group = c.benchmark_group("segment/open and drop");
    group.warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    for others in [1, 64] {
        let path = name("attach");
        let builder = Segment::builder(&path).value_with("v", 7_u64).queue::<u64>("q", 65536);
        let first = builder.participants(128).create().unwrap();
        let rest: Vec<Segment> = (1..others).map(|_| Segment::open(&path).unwrap()).collect();
        assert_eq!(first.participants().unwrap().len(), others);
        group.bench_function(format!("{others} others"), |b| {
            b.iter(|| {
                let segment = Segment::open(&path).unwrap();
                assert_eq!(segment.value::<u64>("v").unwrap().load(), 7);
            });
        });
        assert_eq!(first.participants().unwrap().len(), others);
        drop(rest);
    }
    group.finish();
}

criterion_group!(benches, create, attach);
criterion_main!(benches);
