//! What stays where it is: values, locks and arrays.

use crate::{Death, Operation, PATIENCE, kill_at_any_instruction};
use slipring::*;

/// Words of a large element: fewer where each takes hundreds of instructions.
const WORDS: usize = if cfg!(debug_assertions) { 8 } else { 64 };

/// Large, and of equal words, so that a mixture shows.
type Large = [u64; WORDS];

fn is_whole(value: &Large) -> bool {
    value.iter().all(|word| *word == value[0])
}

struct Store {
    value: Value<Large>,
    old: u64,
}

pub fn value(name: &str) {
    let segment = Segment::builder(name).value::<Large>("value").participants(4).create().unwrap();
    let value = segment.value("value").unwrap();
    kill_at_any_instruction(name, Store { value, old: 0 });
}

impl Operation for Store {
    fn arrange(&mut self) {
        self.old = self.value.load()[0];
    }

    fn warm_up(&mut self) {
        self.value.store([self.old; WORDS]);
    }

    fn run(&mut self) {
        self.value.store([self.old + 1; WORDS]);
    }

    fn settle(&mut self, death: &Death) -> bool {
        // Readers never wait, for a dead writer neither.
        let seen = self.value.load();
        assert!(is_whole(&seen), "torn: {seen:?} {death:?}");
        let stored = seen[0] == self.old + 1;
        assert!(stored || seen[0] == self.old, "{} {death:?}", seen[0]);
        for next in self.old + 10..self.old + 14 {
            assert!(self.value.store_timeout([next; WORDS], PATIENCE).unwrap(), "{death:?}");
            assert_eq!(self.value.load(), [next; WORDS]);
        }
        stored
    }
}

/// A lock, and two values that its holders keep equal.
struct Guarded {
    lock: Lock,
    pair: [Value<u64>; 2],
    old: u64,
}

pub fn lock(name: &str) {
    let segment = Segment::builder(name)
        .lock("lock")
        .value::<u64>("left")
        .value::<u64>("right")
        .participants(4)
        .create()
        .unwrap();
    let lock = segment.lock("lock").unwrap();
    let pair = ["left", "right"].map(|name| segment.value(name).unwrap());
    kill_at_any_instruction(name, Guarded { lock, pair, old: 0 });
}

impl Guarded {
    fn set(&self, to: u64) {
        self.pair.iter().for_each(|value| value.store(to));
    }
}

impl Operation for Guarded {
    fn arrange(&mut self) {
        self.old = self.pair[0].load();
    }

    fn warm_up(&mut self) {
        drop(self.lock.lock().unwrap());
    }

    fn run(&mut self) {
        let guard = self.lock.lock().unwrap();
        self.set(self.old + 1);
        drop(guard);
    }

    fn settle(&mut self, death: &Death) -> bool {
        let unlocked = match self.lock.lock_timeout(PATIENCE) {
            Ok(_guard) => {
                let pair = [0, 1].map(|i| self.pair[i].load());
                assert_eq!(pair, [self.old + u64::from(death.changes > 0); 2], "{death:?}");
                death.changes > 0
            }
            Err(LockError::Poisoned(mut guard)) => {
                assert!(death.changes > 0 && !death.finished, "{death:?}");
                guard.make_clean();
                false
            }
            Err(error) => panic!("{error}"),
        };
        for next in self.old + 10..self.old + 14 {
            let _guard = self.lock.lock_timeout(PATIENCE).unwrap();
            self.set(next);
        }
        assert!(!self.lock.is_locked() && !self.lock.is_poisoned());
        unlocked
    }
}

struct Set {
    array: Array<Large>,
    old: u64,
}

pub fn array(name: &str) {
    let segment =
        Segment::builder(name).array::<Large>("array", 2).participants(4).create().unwrap();
    let array = segment.array("array").unwrap();
    kill_at_any_instruction(name, Set { array, old: 0 });
}

impl Operation for Set {
    fn arrange(&mut self) {
        self.old = self.array.get(1).unwrap()[0];
    }

    fn warm_up(&mut self) {
        self.array.set(1, [self.old; WORDS]).unwrap();
    }

    fn run(&mut self) {
        self.array.set(1, [self.old + 1; WORDS]).unwrap();
    }

    fn settle(&mut self, death: &Death) -> bool {
        let set = match self.array.get(1) {
            Ok(seen) => {
                let expected = self.old + u64::from(death.changes > 0);
                assert_eq!(seen, [expected; WORDS], "{death:?}");
                death.changes > 0
            }
            Err(Error::Poisoned) => {
                assert!(death.changes > 0 && !death.finished, "{death:?}");
                self.array.copy_from_slice(&[[self.old; WORDS]; 2]).unwrap();
                false
            }
            Err(error) => panic!("{error}"),
        };
        assert!(!self.array.is_poisoned());
        for next in self.old + 10..self.old + 14 {
            self.array.set(1, [next; WORDS]).unwrap();
            assert_eq!(self.array.get(1).unwrap(), [next; WORDS]);
        }
        set
    }
}
