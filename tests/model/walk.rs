//! Walks from a hint to the first position that is not passed: `src/ring/mpmc/walk.rs`
//! and the geometry's groups, step by step.

use super::mutants::Mutant;
use super::protocol::Model;
use super::world::{Pc, State, Thread, Word, World};
use Pc::*;
use State::*;

impl Model {
    pub fn group_start(&self, index: usize) -> usize {
        index / self.scenario.group * self.scenario.group
    }

    pub fn group_end(&self, index: usize) -> usize {
        (self.group_start(index) + self.scenario.group).min(self.scenario.slots)
    }

    /// Slots of a run that begins here.
    pub fn run_len(&self, at: i8) -> u8 {
        let index = self.slot(at);
        (self.group_end(index) - index) as u8
    }

    /// The word of the run that reaches over this slot from before.
    pub fn run_over(&self, world: &World, index: usize) -> Option<Word> {
        let before = &world.words[self.group_start(index)..index];
        before.iter().copied().find(|word| word.is_run())
    }

    pub fn look(&self, me: &mut Thread, at: i8) {
        (me.at, me.high, me.step, me.word) = (at, 0, 0, Word::NONE);
        me.pc = Look;
    }

    pub fn passed(&self, t: usize, word: Word, at: i8) -> bool {
        let ahead = word.lap - self.lap(at);
        ahead > 0 || ahead == 0 && self.own_lap_passed(t, word.state)
    }

    fn own_lap_passed(&self, t: usize, state: State) -> bool {
        if !self.is_consumer(t) {
            return state != Free;
        }
        matches!(state, Reading | ReadingRun | Orphan)
            || self.has(Mutant::ConsumerWalksPastWriting) && state == Writing
    }

    /// Where to look when the word has shown that `at` is passed.
    fn after(&self, t: usize, word: Word, at: i8) -> i8 {
        let slot = self.slot(at);
        let own = self.own_lap_passed(t, word.state);
        let lap = word.lap - i8::from(!own);
        if lap != self.lap(at) {
            let index = match self.mutant() {
                Some(Mutant::LeapsToTheNextSlot) => slot + 1,
                Some(Mutant::LeapsToTheSlot) => slot,
                _ => self.group_start(slot),
            };
            lap * self.slots() + index as i8
        } else if own && word.is_run() && !self.has(Mutant::WalksIntoARun) {
            at + self.run_len(at) as i8
        } else {
            at + 1
        }
    }

    /// Goes on from a position that is passed, by a step or by a gallop.
    pub fn walk_on(&self, t: usize, word: Word, me: &mut Thread) {
        let next = self.after(t, word, me.at);
        if me.behind < self.scenario.plain_steps {
            me.behind += 1;
            self.look(me, next);
        } else {
            (me.at, me.step, me.pc) = (next, 1, GallopUp);
        }
    }

    /// One step of a gallop, or of what follows it.
    pub fn gallop(&self, world: &World, t: usize, me: &mut Thread) {
        let passed = |at| self.passed(t, world.words[self.slot(at)], at);
        match me.pc {
            GallopUp => {
                let probe = me.at + me.step;
                if !passed(probe) {
                    (me.high, me.step) = (probe, 0);
                    me.pc = GallopDown;
                } else if me.step == self.slots() {
                    self.galloped(me, probe + 1);
                } else {
                    me.at = probe + 1;
                    me.step = (me.step * 2).min(self.slots());
                }
            }
            GallopDown => {
                let middle = me.at + (me.high - me.at) / 2;
                if passed(middle) {
                    me.at = middle + 1;
                } else {
                    me.high = middle;
                }
                if me.at >= me.high {
                    let near = me.at + i8::from(self.has(Mutant::GallopOvershoots));
                    self.galloped(me, near);
                }
            }
            _ => {
                let at = me.at;
                if !passed(at) {
                    self.look(me, at);
                    return;
                }
                let next = self.after(t, world.words[self.slot(at)], at);
                if next < me.high {
                    me.at = next;
                } else {
                    self.look(me, next);
                }
            }
        }
    }

    /// A gallop has come near the first position that is not passed. That may be inside a
    /// run, so the group is walked through from its beginning.
    fn galloped(&self, me: &mut Thread, near: i8) {
        let slot = self.slot(near);
        let at = near - (slot - self.group_start(slot)) as i8;
        if at == near || self.has(Mutant::GallopsIntoARun) {
            self.look(me, near);
        } else {
            (me.at, me.high, me.step) = (at, near, 0);
            me.pc = Frontier;
        }
    }
}
