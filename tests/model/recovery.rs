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
                    Writing | WritingRun => word.owner == me.target,
                    Reading | ReadingRun => {
                        word.owner == me.target && !self.has(Mutant::LeavesTheReadersOfTheDead)
                    }
                    _ => false,
                };
                if !found {
                    self.repair_on(me);
                    return;
                }
                (me.word, me.pc) = (word, RepairCas);
                let first = self.has(Mutant::RepairsTheFirstFirst);
                if word.is_run() && !first && !self.has(Mutant::LeavesTheOthers) {
                    self.repair_others(me);
                }
            }
            // Those that the dead had not filled yet, and those that it had; or those that
            // it had not freed yet.
            RepairFree => {
                self.repair_other(world, me, Free);
                me.pc = RepairFull;
            }
            RepairFull => {
                self.repair_other(world, me, Full);
                let end = self.group_end(me.index.into()) as u8;
                if me.index + me.inside + 1 < end {
                    (me.inside, me.pc) = (me.inside + 1, self.first_repair(me.word));
                } else {
                    (me.inside, me.pc) = (0, RepairCas);
                    if self.has(Mutant::RepairsTheFirstFirst) {
                        me.word = Word::NONE;
                        self.repair_on(me);
                    }
                }
            }
            RepairCas => {
                let from = me.word;
                self.repair(world, me, me.index.into(), from);
                if from.is_run() && self.has(Mutant::RepairsTheFirstFirst) {
                    self.repair_others(me);
                    return;
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

    /// To the slots of a run behind its first one, which comes last.
    fn repair_others(&self, me: &mut Thread) {
        (me.inside, me.pc) = (1, self.first_repair(me.word));
    }

    fn first_repair(&self, run: Word) -> Pc {
        if run.state == WritingRun { RepairFree } else { RepairFull }
    }

    /// Repairs one of them, if this is how the dead left it.
    fn repair_other(&self, world: &mut World, me: &mut Thread, state: State) {
        let Word { lap, state: run, .. } = me.word;
        let index = usize::from(me.index + me.inside);
        let missed = match state {
            Free => self.has(Mutant::LeavesWhatWasNotFilled),
            _ => run == WritingRun && self.has(Mutant::LeavesWhatWasFilled),
        };
        if !missed {
            self.repair(world, me, index, Word::new(lap, state, 0));
        }
    }

    /// Moves one word to what becomes of the slot that `me.word` tells of.
    fn repair(&self, world: &mut World, me: &mut Thread, index: usize, from: Word) {
        let (to, blind) = (self.repaired(me.word), Mutant::RepairsWhatItSawBeforeTheLock);
        if !self.cas(&mut world.words[index], from, to, blind) {
            return;
        }
        // To know that it found something is what a mutant needs.
        me.search = self.has(Mutant::AnnouncesOnlyWhatItFound);
        if matches!(me.word.state, Reading | ReadingRun) && to.state == Free {
            world.lost |= bit(world.payload[index]) & world.committed;
        }
    }

    fn repaired(&self, word: Word) -> Word {
        let Word { lap, state, .. } = word;
        match state {
            Writing | WritingRun if self.has(Mutant::PublishesForTheDead) => {
                Word::new(lap, Full, 0)
            }
            Writing | WritingRun => Word::new(lap, Poison, 0),
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
