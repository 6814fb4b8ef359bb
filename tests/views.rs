//! Value, Array and Lock: behaviour in one process and between several, some of
//! which are killed.

mod support;

use slipring::*;
use std::time::Duration;
use support::{Name, hear, role, say, spawn};

const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
#[repr(C)]
struct Pose {
    words: [u64; 6],
    checksum: u64,
}
use bytemuck::{Pod, Zeroable};

impl Pose {
    fn new(seed: u64) -> Pose {
        let words = std::array::from_fn(|i| seed.wrapping_mul(i as u64 + 1));
        Pose { words, checksum: words.iter().fold(seed, |sum, w| sum.rotate_left(7) ^ w) }
    }

    fn seed(&self) -> u64 {
        let seed = self.words[0];
        assert_eq!(*self, Pose::new(seed), "torn");
        seed
    }
}

#[test]
#[ignore = "a role of the other tests"]
fn child() {
    let Some((role, words)) = role() else { return };
    let name = words[0].as_str();
    match role.as_str() {
        "store for ever" => {
            let value = Value::<Pose>::open(name).unwrap();
            let mut seed = value.load().seed();
            say("storing");
            loop {
                seed += 1;
                value.store(Pose::new(seed));
            }
        }
        "hang in update" => {
            let value = Value::<Pose>::open(name).unwrap();
            value.update(|_| {
                say("inside");
                hear();
                Pose::new(0)
            });
        }
        "hold the lock" => {
            let lock = Lock::open(name).unwrap();
            let _guard = lock.lock().unwrap();
            say("locked");
            hear();
        }
        "wait for the lock" => {
            let lock = Lock::open(name).unwrap();
            say("waiting");
            let result = lock.lock();
            say(&format!("{:?}", result.is_ok()));
        }
        "hold the array" => {
            let mut array = Array::<u32>::open(name).unwrap();
            let mut guard = array.lock().unwrap();
            guard[0] = 99;
            say("locked");
            hear();
        }
        "add" => {
            let value = Value::<u64>::open(name).unwrap();
            say("ready");
            hear();
            for _ in 0..100_000 {
                value.fetch_add(1);
            }
        }
        other => panic!("unknown role {other}"),
    }
}

#[test]
fn numbers() {
    let name = Name::new("numbers");
    let value = Value::<i32>::create(&name, 5).unwrap();
    assert_eq!(value.load(), 5);
    value.store(-1);
    assert_eq!(value.swap(10), -1);
    assert_eq!(value.compare_exchange(10, 11), Ok(10));
    assert_eq!(value.compare_exchange(10, 12), Err(11));
    assert_eq!(value.fetch_add(i32::MAX), 11);
    assert_eq!(value.fetch_sub(i32::MAX), 11i32.wrapping_add(i32::MAX));
    assert_eq!(value.fetch_max(100), 11);
    assert_eq!(value.fetch_min(-100), 100);
    assert_eq!(value.fetch_or(0xff), -100);
    assert_eq!(value.fetch_and(0x0f), -100 | 0xff);
    assert_eq!(value.fetch_xor(0x0f), 0x0f);
    assert_eq!(value.update(|v| v + 7), 0);
    assert_eq!(Value::<i32>::open(&name).unwrap().load(), 7);
    assert!(matches!(Value::<u32>::open(&name), Err(Error::TypeMismatch { .. })));
    assert_eq!(Value::<i32>::open_or_create(&name, 1).unwrap().load(), 7);
    let float = Name::new("float");
    let float = Value::<f32>::create(&float, 0.5).unwrap();
    assert_eq!(float.fetch_add(0.25), 0.5);
    assert_eq!(float.fetch_max(0.5), 0.75);
    assert_eq!(float.load(), 0.75);
}

#[test]
fn values_of_every_size() {
    fn round_trip<const N: usize>() {
        let name = Name::new("size");
        let first: [u8; N] = std::array::from_fn(|i| i as u8 + 1);
        let value = Value::create(&name, first).unwrap();
        assert_eq!(value.load(), first);
        let second: [u8; N] = std::array::from_fn(|i| 255 - i as u8);
        value.store(second);
        assert_eq!(Value::<[u8; N]>::open(&name).unwrap().load(), second);
        assert_eq!(value.update(|_| first), second);
        assert_eq!(value.load(), first);
        assert!(value.store_timeout(second, Duration::ZERO).unwrap());
    }
    round_trip::<0>();
    round_trip::<1>();
    round_trip::<2>();
    round_trip::<3>();
    round_trip::<4>();
    round_trip::<5>();
    round_trip::<7>();
    round_trip::<8>();
    round_trip::<9>();
    round_trip::<16>();
    round_trip::<31>();
    round_trip::<32>();
    round_trip::<64>();
}

#[test]
fn several_writers_and_readers_never_tear() {
    let name = Name::new("torn");
    let value = Value::create(&name, Pose::new(1)).unwrap();
    std::thread::scope(|scope| {
        for writer in 0..2u64 {
            let value = value.clone();
            scope.spawn(move || {
                for i in 0..20_000 {
                    value.store(Pose::new(writer << 32 | i));
                }
            });
        }
        for _ in 0..2 {
            let value = Value::<Pose>::open(&name).unwrap();
            scope.spawn(move || {
                for _ in 0..20_000 {
                    value.load().seed();
                }
            });
        }
    });
    std::thread::scope(|scope| {
        value.store(Pose::new(0));
        for _ in 0..3 {
            let value = value.clone();
            scope.spawn(move || {
                for _ in 0..5_000 {
                    value.update(|pose| Pose::new(pose.seed() + 1));
                }
            });
        }
    });
    assert_eq!(value.load().seed(), 15_000, "an update was lost");
}

#[test]
fn a_panic_in_update_changes_nothing() {
    let name = Name::new("panic");
    let value = Value::create(&name, Pose::new(3)).unwrap();
    let update = || value.update(|_| panic!("on purpose"));
    assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(update)).is_err());
    assert_eq!(value.load().seed(), 3);
    value.store(Pose::new(4));
    assert_eq!(value.load().seed(), 4);
}

#[test]
fn a_writer_killed_anywhere_leaves_a_whole_value() {
    let name = Name::new("kill-value");
    let value = Value::create(&name, Pose::new(1)).unwrap();
    let mut last = 1;
    for _ in 0..20 {
        let mut victim = spawn("store for ever", &[&name]);
        assert_eq!(victim.hear(), "storing");
        let start = value.load().seed();
        assert!(start >= last, "went back in time");
        while value.load().seed() < start + 1000 {
            std::hint::spin_loop();
        }
        victim.kill();
        last = value.load().seed();
        assert_eq!(value.load().seed(), last, "changed after its writer's death");
    }
    // The dead one's lock is in nobody's way.
    value.store(Pose::new(7));
    assert_eq!(value.load().seed(), 7);
}

#[test]
fn a_reader_does_not_wait_for_a_writer_that_hangs() {
    let name = Name::new("hang-value");
    let value = Value::create(&name, Pose::new(42)).unwrap();
    let mut victim = spawn("hang in update", &[&name]);
    assert_eq!(victim.hear(), "inside");
    assert_eq!(value.load().seed(), 42);
    assert!(!value.store_timeout(Pose::new(1), Duration::from_millis(30)).unwrap());
    victim.kill();
    assert!(value.store_timeout(Pose::new(1), PATIENCE).unwrap());
    assert_eq!(value.load().seed(), 1);
}

#[test]
fn additions_of_several_processes() {
    let name = Name::new("add");
    let value = Value::<u64>::create(&name, 0).unwrap();
    let mut adders: Vec<_> = (0..3).map(|_| spawn("add", &[&name])).collect();
    adders.iter_mut().for_each(|adder| assert_eq!(adder.hear(), "ready"));
    adders.iter_mut().for_each(|adder| adder.say("go"));
    adders.into_iter().for_each(support::Process::join);
    assert_eq!(value.load(), 300_000);
}

#[test]
fn array_elements_and_ranges() {
    let name = Name::new("array");
    let mut array = Array::<u16>::create(&name, 5).unwrap();
    assert_eq!(array.snapshot().unwrap(), [0; 5]);
    array.set(4, 9).unwrap();
    assert_eq!(array.get(4).unwrap(), 9);
    assert!(matches!(array.get(5), Err(Error::OutOfRange { index: 5, len: 5 })));
    assert!(matches!(array.set(usize::MAX, 1), Err(Error::OutOfRange { .. })));
    array.copy_from_slice(&[1, 2, 3, 4, 5]).unwrap();
    assert!(matches!(array.copy_from_slice(&[1; 4]), Err(Error::Length { found: 4, expected: 5 })));
    array.write(1, &[20, 30]).unwrap();
    assert!(matches!(array.write(4, &[1, 2]), Err(Error::OutOfRange { index: 5, len: 5 })));
    assert!(matches!(array.write(usize::MAX, &[1, 2]), Err(Error::OutOfRange { .. })));
    let mut part = [0; 3];
    array.read(1, &mut part).unwrap();
    assert_eq!(part, [20, 30, 4]);
    assert_eq!(array.fetch_add(0, 7).unwrap(), 1);
    assert_eq!(array.swap(0, 100).unwrap(), 8);
    assert_eq!(array.compare_exchange(0, 100, 1).unwrap(), Ok(100));
    assert_eq!(array.fetch_or(0, 6).unwrap(), 1);
    {
        let mut all = array.lock().unwrap();
        all.sort_unstable();
        assert_eq!(*all, [4, 5, 7, 20, 30]);
    }
    let other = Array::<u16>::open(&name).unwrap();
    assert_eq!(other.snapshot().unwrap(), [4, 5, 7, 20, 30]);
    assert_eq!(other.len(), 5);
}

#[test]
fn array_of_large_elements() {
    let name = Name::new("large");
    let segment = Segment::builder(&name).array::<[u32; 5]>("a", 3).create().unwrap();
    let array = segment.array::<[u32; 5]>("a").unwrap();
    assert!(matches!(segment.array::<[u32; 5]>("a"), Err(Error::Busy { .. })));
    array.set(2, [1, 2, 3, 4, 5]).unwrap();
    assert_eq!(array.get(2).unwrap(), [1, 2, 3, 4, 5]);
    assert_eq!(array.snapshot().unwrap(), [[0; 5], [0; 5], [1, 2, 3, 4, 5]]);
    drop(array);
    assert!(segment.array::<[u32; 5]>("a").is_ok());
}

#[test]
fn empty_arrays() {
    let name = Name::new("empty");
    let mut array = Array::<u64>::create(&name, 0).unwrap();
    assert!(array.is_empty());
    assert!(array.get(0).is_err());
    assert!(array.lock().unwrap().is_empty());
}

#[test]
fn an_array_whose_writer_was_killed_is_poisoned_until_made_clean() {
    let name = Name::new("kill-array");
    let mut array = Array::<u32>::create(&name, 4).unwrap();
    for overwrite in [false, true] {
        let mut victim = spawn("hold the array", &[&name]);
        assert_eq!(victim.hear(), "locked");
        // Elements need no lock.
        assert_eq!(array.get(0).unwrap(), 99);
        assert!(matches!(array.try_lock(), Err(LockError::WouldBlock)));
        victim.kill();
        assert!(matches!(array.snapshot(), Err(Error::Poisoned)));
        assert!(matches!(array.write(0, &[1]), Err(Error::Poisoned)));
        if overwrite {
            array.copy_from_slice(&[1, 2, 3, 4]).unwrap();
        } else {
            match array.lock() {
                Err(LockError::Poisoned(mut guard)) => {
                    guard.copy_from_slice(&[1, 2, 3, 4]);
                    guard.make_clean();
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(array.snapshot().unwrap(), [1, 2, 3, 4]);
    }
}

#[test]
fn the_lock_excludes() {
    let name = Name::new("lock");
    let lock = Lock::create(&name).unwrap();
    let counter = Value::<u64>::create(&Name::new("counter"), 0).unwrap();
    std::thread::scope(|scope| {
        for handle in 0..4 {
            let lock = if handle % 2 == 0 { lock.clone() } else { Lock::open(&name).unwrap() };
            let counter = counter.clone();
            scope.spawn(move || {
                for _ in 0..10_000 {
                    let _guard = lock.lock().unwrap();
                    // Not atomic as a whole: the lock must make it so.
                    counter.store(counter.load() + 1);
                }
            });
        }
    });
    assert_eq!(counter.load(), 40_000);
    let guard = lock.lock().unwrap();
    assert!(lock.is_locked());
    assert!(matches!(lock.try_lock(), Err(LockError::WouldBlock)));
    assert!(matches!(lock.lock_timeout(Duration::from_millis(20)), Err(LockError::Timeout)));
    drop(guard);
    assert!(!lock.is_locked());
    assert!(lock.try_lock().is_ok());
}

#[test]
fn a_lock_whose_owner_was_killed_is_handed_on_poisoned() {
    let name = Name::new("kill-lock");
    let lock = Lock::create(&name).unwrap();
    for poll in [false, true] {
        let mut victim = spawn("hold the lock", &[&name]);
        assert_eq!(victim.hear(), "locked");
        // Alive, however slow: nobody takes it away.
        assert!(matches!(lock.lock_timeout(Duration::from_millis(50)), Err(LockError::Timeout)));
        victim.kill();
        let result = if poll {
            loop {
                match lock.try_lock() {
                    Err(LockError::WouldBlock) => std::thread::yield_now(),
                    other => break other,
                }
            }
        } else {
            lock.lock()
        };
        let Err(LockError::Poisoned(mut guard)) = result else { panic!("{result:?}") };
        guard.make_clean();
        drop(guard);
        assert!(!lock.is_poisoned());
        drop(lock.lock().unwrap());
    }
}

#[test]
fn a_sleeping_waiter_gets_a_dead_owners_lock() {
    let name = Name::new("sleep-lock");
    let _keep = Lock::create(&name).unwrap();
    let mut victim = spawn("hold the lock", &[&name]);
    assert_eq!(victim.hear(), "locked");
    let mut waiter = spawn("wait for the lock", &[&name]);
    assert_eq!(waiter.hear(), "waiting");
    victim.kill();
    assert_eq!(waiter.hear(), "false");
    waiter.join();
}

#[test]
fn a_forgotten_guard_does_not_outlive_its_attachment() {
    let name = Name::new("forget");
    let segment = Segment::builder(&name).lock("lock").array::<u64>("array", 3).create().unwrap();
    let other = Segment::open(&name).unwrap();
    let (lock, mut array) = (other.lock("lock").unwrap(), other.array::<u64>("array").unwrap());
    std::mem::forget(lock.lock().unwrap());
    std::mem::forget(array.lock().unwrap());
    drop((lock, array, other));
    let lock = segment.lock("lock").unwrap();
    assert!(matches!(lock.lock_timeout(PATIENCE), Err(LockError::Poisoned(_))));
    let mut array = segment.array::<u64>("array").unwrap();
    assert!(matches!(array.lock_timeout(PATIENCE), Err(LockError::Poisoned(_))));
}

/// Waits without any time, again and again, recover the dead as long ones do.
#[test]
fn a_lock_with_no_time_to_wait_is_got_from_a_dead_owner() {
    let name = Name::new("no-time");
    let lock = Lock::create(&name).unwrap();
    let mut victim = spawn("hold the lock", &[&name]);
    assert_eq!(victim.hear(), "locked");
    assert!(matches!(lock.lock_timeout(Duration::ZERO), Err(LockError::Timeout)));
    victim.kill();
    let start = std::time::Instant::now();
    loop {
        match lock.lock_timeout(Duration::ZERO) {
            Err(LockError::Timeout) => assert!(start.elapsed() < PATIENCE),
            Err(LockError::Poisoned(_)) => break,
            other => panic!("{other:?}"),
        }
    }
}
