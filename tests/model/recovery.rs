//! Death, recovery, joining and leaving: `src/shm/attachment.rs` step by step.
//!
//! A number's lock is held by a process, not by a thread of it, and to take it
//! again succeeds: that is how the kernel's byte locks behave. Asking whether a
//! number is alive is not a step of its own, since only the attempt to lock,
//! which follows, decides. The order in which a joiner tries the entries is
//! left open, and so is who looks after the dead and when: any thread between
//! operations may. How the last one out unlinks is not part of this.

use super::mutants::Mutant;
use super::protocol::Model;
use super::world::{Pc, State, Thread, Word, World, bit};
use Pc::*;
use State::*;

impl Model {
    /// The process dies: its locks go, its stores stay.
    pub fn die(&self, world: &mut World, home: usize) {
        for t in 0..self.threads() {
            if self.home(t) != home {
                continue;
            }
            let thread = world.threads[t];
            world.threads[t] =
                if self.has(Mutant::LockFreeBeforeTheLastStore) && thread.pc == Commit {
                    // A ghost that does this one thing.
                    Thread { sent: thread.sent, at: thread.at, pc: LateStore, ..Thread::GONE }
                } else {
                    Thread::GONE
                };
        }
        for lock in &mut world.locks {
            if usize::from(*lock) == home + 1 {
                *lock = 0;
            }
        }
        world.crashes -= 1;
    }

    /// Whether another thread of the process has the mutex that keeps the
    /// process's recoveries apart.
    pub fn sibling_recovers(&self, world: &World, t: usize) -> bool {
        let sibling = |s: usize| s != t && self.home(s) == self.home(t);
        !self.has(Mutant::NoMutexAmongThreads)
            && (0..self.threads()).any(|s| sibling(s) && world.threads[s].recovers())
    }

    /// The word's owner stands in the way: is it dead?
    pub fn suspect(&self, word: Word, slot: usize, t: usize, me: &mut Thread) {
        self.finish(t, me);
        if word.owner == 0 || word.owner == me.owner && !self.has(Mutant::RecoversItself) {
            return;
        }
        (me.target, me.pc) = (word.owner, TryLock);
        if self.has(Mutant::RepairsWhatItSawBeforeTheLock) && word.state == Reading {
            (me.word, me.index) = (word, slot as u8);
        }
    }

    /// One step of a recovery, of joining or of leaving.
    pub fn recovery(&self, world: &mut World, t: usize, me: &mut Thread) {
        let mine = self.home(t) as u8 + 1;
        let target = usize::from(me.target).wrapping_sub(1);
        match me.pc {
            TryLock => {
                let lock = &mut world.locks[target];
                if *lock == 0 || *lock == mine {
                    *lock = mine;
                    me.pc = ReadEntry;
                } else if self.has(Mutant::RecoversTheLiving) {
                    me.pc = ReadEntry;
                } else {
                    // Alive, or in somebody else's care.
                    self.finish(t, me);
                }
            }
            ReadEntry if !world.entries[target] => me.pc = Unlock,
            ReadEntry => match self.mutant() {
                Some(Mutant::RepairsWhatItSawBeforeTheLock) if me.word != Word::NONE => {
                    me.pc = RepairCas;
                }
                Some(Mutant::UnlocksBeforeItRepairs) => me.pc = Unlock,
                Some(Mutant::VacatesBeforeItRepairs) => me.pc = Vacate,
                Some(Mutant::AnnouncesBeforeItConverts) => me.pc = Announce,
                _ => me.pc = RepairLook,
            },
            JoinEntry => {
                let sweep = world.entries[target] && !self.has(Mutant::JoinsWithoutASweep);
                me.pc = if sweep { RepairLook } else { JoinEnter };
            }

            // `Ring::recover`, by a recoverer or a joiner.
            RepairLook => {
                let word = world.words[usize::from(me.index)];
                let found = match word.state {
                    Writing => word.owner == me.target,
                    Reading => {
                        word.owner == me.target && !self.has(Mutant::LeavesTheReadersOfTheDead)
                    }
                    _ => false,
                };
                if found {
                    me.word = word;
                    me.pc = RepairCas;
                } else {
                    self.repair_on(me);
                }
            }
            RepairCas => {
                let (index, from) = (usize::from(me.index), me.word);
                let to = self.repaired(from);
                let blind = Mutant::RepairsWhatItSawBeforeTheLock;
                if self.cas(&mut world.words[index], from, to, blind) {
                    // To know that it found something is what a mutant needs.
                    me.search = self.has(Mutant::AnnouncesOnlyWhatItFound);
                    if from.state == Reading && to.state == Free {
                        world.lost |= bit(world.payload[index]) & world.committed;
                    }
                }
                me.word = Word::NONE;
                self.repair_on(me);
            }
            Announce => {
                world.epoch += 1;
                if self.has(Mutant::AnnouncesBeforeItConverts) {
                    me.pc = RepairLook;
                } else {
                    self.after_repair(me);
                }
            }

            Vacate => {
                world.entries[target] = false;
                let first = self.has(Mutant::VacatesBeforeItRepairs);
                me.pc = if first { RepairLook } else { Unlock };
            }
            Unlock => {
                for (number, lock) in world.locks.iter_mut().enumerate() {
                    let all = self.has(Mutant::UnlockDropsEveryLock);
                    if *lock == mine && (number == target || all) {
                        *lock = 0;
                    }
                }
                // `step` marks the mutant's second time here.
                if self.has(Mutant::UnlocksBeforeItRepairs) && me.step == 0 && world.entries[target]
                {
                    (me.step, me.pc) = (1, RepairLook);
                } else {
                    self.finish(t, me);
                }
            }

            JoinEnter => {
                world.entries[target] = !self.has(Mutant::JoinsUnmarked);
                me.owner = me.target;
                self.finish(t, me);
            }
            LeaveVacate => {
                me.target = me.owner;
                if self.has(Mutant::LeaverUnlocksFirst) {
                    world.locks[usize::from(me.owner) - 1] = 0;
                } else {
                    world.entries[usize::from(me.owner) - 1] = false;
                }
                (me.owner, me.pc) = (0, LeaveUnlock);
            }
            LeaveUnlock => {
                if self.has(Mutant::LeaverUnlocksFirst) {
                    world.entries[target] = false;
                } else {
                    world.locks[target] = 0;
                }
                *me = Thread::GONE;
            }
            _ => unreachable!("no step of a recovery"),
        }
    }

    fn repaired(&self, word: Word) -> Word {
        let Word { lap, state, .. } = word;
        match state {
            Writing if self.has(Mutant::PublishesForTheDead) => Word::new(lap, Full, 0),
            Writing => Word::new(lap, Poison, 0),
            _ if self.has(Mutant::PutsBackWhatTheDeadRead) => Word::new(lap, Full, 0),
            _ if self.scenario.at_least_once => Word::new(lap, Orphan, 0),
            _ => Word::new(lap + 1, Free, 0),
        }
    }

    fn repair_on(&self, me: &mut Thread) {
        me.index += 1;
        if usize::from(me.index) < self.scenario.slots {
            me.pc = RepairLook;
            return;
        }
        me.index = 0;
        let announces = match self.mutant() {
            Some(Mutant::AnnouncesBeforeItConverts | Mutant::NeverAnnounces) => false,
            Some(Mutant::AnnouncesOnlyWhatItFound) => me.search,
            _ => true,
        };
        me.search = false;
        if self.scenario.at_least_once && announces {
            me.pc = Announce;
        } else {
            self.after_repair(me);
        }
    }

    fn after_repair(&self, me: &mut Thread) {
        me.pc = match me.owner {
            // A joiner moves in.
            0 => JoinEnter,
            _ if self.has(Mutant::VacatesBeforeItRepairs) => Unlock,
            _ => Vacate,
        };
    }
}
