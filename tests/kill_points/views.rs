//! Values, arrays and locks.

use crate::stage::{PATIENCE, Scenario, Stage, Survivor, Victim, begin, end};
use crate::support::{BRIEF, hear, say};
use slipring::*;
use std::os::unix::fs::FileExt;

/// Not of an atomic's size, nor a multiple of a word.
type Large = [u32; 7];

fn large(i: u32) -> Large {
    std::array::from_fn(|at| i.wrapping_mul(0x9e37_79b9).rotate_left(at as u32))
}

pub const VICTIMS: &[Victim] = &[
    ("value.large", |name| {
        let value = Value::<Large>::open(name).unwrap();
        begin();
        value.store(large(1));
        assert_eq!(value.update(|_| large(2)), large(1));
        assert!(value.store_timeout(large(3), PATIENCE).unwrap());
        end();
    }),
    ("value.small", |name| {
        let value = Value::<u64>::open(name).unwrap();
        begin();
        value.store(1);
        assert_eq!(value.swap(2), 1);
        assert_eq!(value.compare_exchange(2, 3), Ok(2));
        assert_eq!(value.fetch_add(1), 3);
        assert_eq!(value.fetch_or(8), 4);
        end();
    }),
    ("array.small", |name| {
        let mut array = Array::<u32>::open(name).unwrap();
        begin();
        array.set(0, 1).unwrap();
        array.write(1, &[2, 3]).unwrap();
        array.copy_from_slice(&[4, 5, 6]).unwrap();
        array.lock().unwrap()[0] = 7;
        end();
    }),
    ("array.large", |name| {
        let mut array = Array::<Large>::open(name).unwrap();
        begin();
        array.set(0, large(1)).unwrap();
        assert_eq!(array.get(0).unwrap(), large(1));
        array.write(1, &[large(2), large(3)]).unwrap();
        array.lock().unwrap()[0] = large(4);
        end();
    }),
    ("lock.twice", |name| {
        let lock = Lock::open(name).unwrap();
        begin();
        let guard = lock.lock().unwrap();
        say("held");
        assert_eq!(hear(), "go");
        drop(guard);
        drop(lock.try_lock().unwrap());
        end();
    }),
    ("lock.hold", |name| {
        let lock = Lock::open(name).unwrap();
        begin();
        let guard = lock.lock().unwrap();
        say("held");
        assert_eq!(hear(), "go");
        drop(guard);
        end();
    }),
    ("lock.clean", |name| {
        let lock = Lock::open(name).unwrap();
        begin();
        let Err(LockError::Poisoned(mut guard)) = lock.lock() else { panic!("not poisoned") };
        guard.make_clean();
        drop(guard);
        drop(lock.lock().unwrap());
        end();
    }),
];

pub fn scenarios() -> Vec<Scenario> {
    let all: &[(&str, Survivor)] = &[
        ("value.large", value_large),
        ("value.scribbled", value_scribbled),
        ("value.small", value_small),
        ("array.small", array_small),
        ("array.large", array_large),
        ("lock.twice", lock_twice),
        ("lock.sleeper", lock_sleeper),
        ("lock.clean", lock_clean),
    ];
    let mut scenarios: Vec<_> = all.iter().map(|&(name, run)| Scenario::new(name, run)).collect();
    for scenario in &mut scenarios {
        scenario.most = 12;
    }
    scenarios
}

fn value_large(stage: &Stage<'_>) {
    let segment = Segment::builder(&stage.name).value_with("value", large(0)).create().unwrap();
    let value = segment.value::<Large>("value").unwrap();
    let death = stage.die("value.large");
    stage.shows_dead(&segment, &death);
    // Readers wait for nobody, and see a whole value.
    assert_eq!(value.load(), large(death.count("cell.seq") as u32));
    for i in 10..20 {
        assert!(stage.soon(|| value.store_timeout(large(i), PATIENCE)).unwrap());
        assert_eq!(value.load(), large(i));
    }
    stage.shows_recovered(&segment, &death);
    drop((value, segment));
    stage.is_gone();
}

/// A lock's word that no process writes: writers put it right.
fn value_scribbled(stage: &Stage<'_>) {
    let segment = Segment::builder(&stage.name).value_with("value", large(0)).create().unwrap();
    let value = segment.value::<Large>("value").unwrap();
    let file = std::fs::File::options().write(true).open(format!("/dev/shm/{}", &*stage.name));
    // The lock lies behind the line with the sequence.
    let at = segment.objects()[0].offset as u64 + 128;
    file.unwrap().write_all_at(&[0xff; 4], at).unwrap();
    let death = stage.die("value.large");
    stage.shows_dead(&segment, &death);
    assert_eq!(value.load(), large(death.count("cell.seq") as u32));
    for i in 10..20 {
        stage.soon(|| value.store(large(i)));
        assert_eq!(value.load(), large(i));
    }
    stage.shows_recovered(&segment, &death);
    drop((value, segment));
    stage.is_gone();
}

fn value_small(stage: &Stage<'_>) {
    let segment = Segment::builder(&stage.name).value::<u64>("value").create().unwrap();
    let value = segment.value::<u64>("value").unwrap();
    let death = stage.die("value.small");
    stage.shows_dead(&segment, &death);
    assert_eq!(value.load(), [0, 1, 2, 3, 4, 12][death.count_all("bits.")]);
    value.store(9);
    assert_eq!(value.load(), 9);
    stage.shows_recovered(&segment, &death);
    drop((value, segment));
    stage.is_gone();
}

/// Takes an array that may have died in somebody's hands, and goes on with it.
fn go_on<T: Pod + PartialEq + std::fmt::Debug>(
    stage: &Stage<'_>,
    array: &mut Array<T>,
    poisoned: bool,
    value: T,
) {
    match stage.soon(|| array.lock_timeout(PATIENCE)) {
        Err(LockError::Poisoned(mut guard)) if poisoned => {
            guard.fill(T::zeroed());
            guard.make_clean();
        }
        Ok(guard) if !poisoned => drop(guard),
        other => panic!("{other:?}"),
    }
    assert!(!array.is_poisoned());
    for i in 0..array.len() {
        array.set(i, value).unwrap();
        assert_eq!(array.get(i).unwrap(), value);
    }
    array.copy_from_slice(&vec![value; array.len()]).unwrap();
    assert!(array.snapshot().unwrap().iter().all(|found| *found == value));
}

fn array_small(stage: &Stage<'_>) {
    let segment = Segment::builder(&stage.name).array::<u32>("array", 3).create().unwrap();
    let mut array = segment.array::<u32>("array").unwrap();
    let death = stage.die("array.small");
    stage.shows_dead(&segment, &death);
    let found = [0, 1, 2].map(|i| array.get(i).unwrap());
    let mut expected = match death.count("bits.store") {
        0 => [0, 0, 0],
        1 => [1, 0, 0],
        2 => [1, 2, 0],
        3 => [1, 2, 3],
        4 => [4, 2, 3],
        5 => [4, 5, 3],
        _ => [4, 5, 6],
    };
    // What is written through the guard has no point of its own.
    if death.count("lock.freed") == 3 {
        expected[0] = 7;
    }
    assert_eq!(found, expected);
    let held = death.count("lock.taken") > death.count("lock.freed");
    go_on(stage, &mut array, held, 9);
    stage.shows_recovered(&segment, &death);
    drop((array, segment));
    stage.is_gone();
}

fn array_large(stage: &Stage<'_>) {
    let segment = Segment::builder(&stage.name).array::<Large>("array", 3).create().unwrap();
    let mut array = segment.array::<Large>("array").unwrap();
    let death = stage.die("array.large");
    stage.shows_dead(&segment, &death);
    let held = death.count("lock.taken") > death.count("lock.freed");
    let found = stage.soon(|| array.get(2));
    if held {
        assert!(matches!(found, Err(Error::Poisoned)), "{found:?}");
    } else {
        let written = death.count("array.elements") == 2;
        assert_eq!(found.unwrap(), if written { large(3) } else { Large::zeroed() });
    }
    go_on(stage, &mut array, held, large(9));
    stage.shows_recovered(&segment, &death);
    drop((array, segment));
    stage.is_gone();
}

/// Takes the lock, which is poisoned or not, and goes on with it.
fn take(stage: &Stage<'_>, lock: &Lock, poisoned: bool) {
    match stage.soon(|| lock.lock_timeout(PATIENCE)) {
        Err(LockError::Poisoned(mut guard)) if poisoned => guard.make_clean(),
        Ok(guard) if !poisoned => drop(guard),
        other => panic!("poisoned should be {poisoned}: {other:?}"),
    }
    for _ in 0..10 {
        drop(stage.soon(|| lock.lock_timeout(PATIENCE)).unwrap());
    }
}

fn lock_twice(stage: &Stage<'_>) {
    let segment = Segment::builder(&stage.name).lock("lock").create().unwrap();
    let lock = segment.lock("lock").unwrap();
    let death = stage.die_with("lock.twice", |word, victim| {
        if word == "held" {
            // Leaves the mark of a sleeper.
            let held = lock.lock_timeout(BRIEF);
            assert!(matches!(held, Err(LockError::Timeout)), "{held:?}");
        }
        victim.say("go");
    });
    stage.shows_dead(&segment, &death);
    take(stage, &lock, death.count("lock.taken") > death.count("lock.freed"));
    stage.shows_recovered(&segment, &death);
    drop((lock, segment));
    stage.is_gone();
}

/// A thread of the survivor's waits for the lock while its owner dies.
fn lock_sleeper(stage: &Stage<'_>) {
    let segment = Segment::builder(&stage.name).lock("lock").create().unwrap();
    let lock = segment.lock("lock").unwrap();
    let death = std::thread::scope(|scope| {
        let mut sleeper = None;
        let death = stage.die_with("lock.hold", |word, victim| {
            if word == "held" {
                let held = lock.lock_timeout(BRIEF);
                assert!(matches!(held, Err(LockError::Timeout)), "{held:?}");
                sleeper = Some(scope.spawn(|| match lock.lock_timeout(PATIENCE * 10) {
                    Ok(_) => false,
                    Err(LockError::Poisoned(mut guard)) => {
                        guard.make_clean();
                        true
                    }
                    Err(error) => panic!("{error:?}"),
                }));
            }
            victim.say("go");
        });
        if let Some(sleeper) = sleeper {
            let poisoned = stage.soon(|| sleeper.join()).unwrap();
            assert_eq!(poisoned, !death.passed("lock.freed"));
        } else {
            take(stage, &lock, death.passed("lock.taken"));
        }
        death
    });
    stage.shows_dead(&segment, &death);
    take(stage, &lock, false);
    stage.shows_recovered(&segment, &death);
    drop((lock, segment));
    stage.is_gone();
}

fn lock_clean(stage: &Stage<'_>) {
    let segment = Segment::builder(&stage.name).lock("lock").create().unwrap();
    let lock = segment.lock("lock").unwrap();
    stage.die_at("lock.hold", "lock.taken", 1);
    assert_eq!(segment.recover().unwrap(), 1);
    let death = stage.die("lock.clean");
    stage.shows_dead(&segment, &death);
    let held = death.count("lock.taken") > death.count("lock.freed");
    take(stage, &lock, held || !death.passed("lock.cleared"));
    stage.shows_recovered(&segment, &death);
    drop((lock, segment));
    stage.is_gone();
}
