//! Runs: `src/ring/mpmc/run.rs` step by step. `at` is the position of the first slot,
//! `inside` what is between that and the slot that the next step is at.

use super::mutants::Mutant;
use super::protocol::{Model, Violation};
use super::scenarios::Role;
use super::world::{Pc, State, Thread, Word, World, bit};
use Pc::*;
use State::*;

impl Model {
    /// Whether the thread tries a run before it claims or takes a single slot.
    pub fn wants_run(&self, t: usize, me: &Thread) -> bool {
        match self.role(t) {
            Role::Collector => true,
            // For less the hint would be loaded for nothing.
            Role::Batcher(n) | Role::BatchQuitter(n) => n - me.sent >= 2,
            _ => false,
        }
    }

    /// The start of `claim_run` or `take_run`, where the hint is loaded.
    pub fn begin_run(&self, world: &World, t: usize, me: &mut Thread) {
        let (at, most) = match self.role(t) {
            Role::Collector => (world.head, self.slots() as u8),
            role => (world.tail, role.claims() - me.sent),
        };
        let len = self.run_len(at);
        if !(2..=most).contains(&len) {
            self.begin_single(t, me);
            return;
        }
        me.at = at;
        let (blind, look, cas) = match self.is_consumer(t) {
            true => (Mutant::TakesARunUnseen, TakeRunLook, TakeRunCas),
            false => (Mutant::ClaimsARunUnseen, ClaimRunLook, ClaimRunCas),
        };
        if self.has(blind) {
            me.pc = cas;
        } else {
            (me.inside, me.pc) = (len - 1, look);
        }
    }

    /// There is no run to be had: a single slot, then.
    fn begin_single(&self, t: usize, me: &mut Thread) {
        self.finish(t, me);
        me.pc = match self.is_consumer(t) {
            true if self.scenario.at_least_once => BeginSingle,
            true => LoadHead,
            false => LoadTail,
        };
    }

    /// Whether it abandons what it has claimed.
    pub fn gives_up(&self, t: usize, me: &Thread) -> bool {
        matches!(self.role(t), Role::Quitter(_) | Role::BatchQuitter(_)) && me.sent == 0
    }

    /// The other slots of the run that the thread holds, and how it has left them.
    pub fn others(&self, t: usize, me: &Thread) -> impl Iterator<Item = (usize, Word)> {
        let (first, lap) = (self.slot(me.at), self.lap(me.at));
        let (before, after) = match self.is_consumer(t) {
            true => (Word::new(lap, Full, 0), Word::new(lap + 1, Free, 0)),
            false if self.gives_up(t, me) => (Word::new(lap, Free, 0), Word::new(lap, Poison, 0)),
            false => (Word::new(lap, Free, 0), Word::new(lap, Full, 0)),
        };
        let settled = match me.pc {
            RunWriteHalf | RunWriteWhole if self.has(Mutant::CommitsTheFirstFirst) => 0,
            RunWriteHalf | RunWriteWhole | CommitOther | AbandonOther | ReleaseOther => me.inside,
            CommitFirst if self.has(Mutant::CommitsTheFirstFirst) => 0,
            AbandonFirst if self.has(Mutant::AbandonsTheFirstFirst) => 0,
            ReleaseFirst if self.has(Mutant::ReleasesTheFirstFirst) => 0,
            CommitFirst | AbandonFirst | ReleaseFirst => u8::MAX,
            _ => 0,
        };
        (1..self.run_len(me.at)).map(move |inside| {
            let word = if inside < settled { after } else { before };
            (first + usize::from(inside), word)
        })
    }

    /// One step of a run.
    pub fn run(&self, world: &mut World, t: usize, me: &mut Thread) -> Result<(), Violation> {
        let (lap, first) = (self.lap(me.at), self.slot(me.at));
        let slot = first + usize::from(me.inside);
        let len = self.run_len(me.at);
        let last = me.inside + 1 == len;
        match me.pc {
            ClaimRunLook | TakeRunLook => {
                let (state, cas) = match me.pc {
                    ClaimRunLook => (Free, ClaimRunCas),
                    _ => (Full, TakeRunCas),
                };
                if world.words[slot] != Word::new(lap, state, 0) {
                    self.begin_single(t, me);
                } else {
                    me.inside -= 1;
                    me.pc = if me.inside == 0 { cas } else { me.pc };
                }
            }

            ClaimRunCas => {
                let (free, to) = (Word::new(lap, Free, 0), self.held(t, me));
                if world.words[first] != free {
                    self.begin_single(t, me);
                    return Ok(());
                }
                world.words[first] = to;
                if me.at != world.claimed {
                    return Err(Violation::ClaimedOutOfOrder);
                }
                world.claimed += len as i8;
                me.pc = ClaimRunHint;
            }
            ClaimRunHint => {
                let inside = self.has(Mutant::TailHintInsideARun);
                world.tail = me.at + if inside { 1 } else { len as i8 };
                if self.gives_up(t, me) && self.has(Mutant::AbandonsTheFirstFirst) {
                    me.pc = AbandonFirst;
                } else if self.gives_up(t, me) {
                    (me.inside, me.pc) = (1, AbandonOther);
                } else {
                    me.pc = RunWriteHalf;
                }
            }
            RunWriteHalf => {
                world.payload[slot] = 0;
                me.pc = RunWriteWhole;
            }
            RunWriteWhole => {
                world.payload[slot] = self.message(t, me) + me.inside;
                if me.inside > 0 && !self.has(Mutant::CommitsTheFirstFirst) {
                    me.pc = CommitOther;
                } else if last {
                    (me.inside, me.pc) = (0, CommitFirst);
                } else {
                    (me.inside, me.pc) = (me.inside + 1, RunWriteHalf);
                }
            }
            CommitOther => {
                world.words[slot] = Word::new(lap, Full, 0);
                (me.inside, me.pc) =
                    if last { (0, CommitFirst) } else { (me.inside + 1, RunWriteHalf) };
            }
            CommitFirst => {
                world.words[first] = Word::new(lap, Full, 0);
                let message = self.message(t, me);
                world.committed |= (message..message + len).fold(0, |set, m| set | bit(m));
                if self.has(Mutant::CommitsTheFirstFirst) {
                    (me.inside, me.pc) = (1, LateOther);
                } else {
                    me.sent += len;
                    self.finish(t, me);
                }
            }
            AbandonOther => {
                world.words[slot] = Word::new(lap, Poison, 0);
                (me.inside, me.pc) =
                    if last { (0, AbandonFirst) } else { (me.inside + 1, AbandonOther) };
            }
            AbandonFirst => {
                world.words[first] = Word::new(lap, Poison, 0);
                if self.has(Mutant::AbandonsTheFirstFirst) {
                    (me.inside, me.pc) = (1, LateOther);
                } else {
                    me.sent += len;
                    self.finish(t, me);
                }
            }

            TakeRunCas => {
                let (full, to) = (Word::new(lap, Full, 0), self.held(t, me));
                if world.words[first] != full {
                    self.begin_single(t, me);
                    return Ok(());
                }
                world.words[first] = to;
                if me.at != world.resolved {
                    return Err(Violation::ResolvedOutOfOrder);
                }
                world.resolved += len as i8;
                me.pc = TakeRunHint;
            }
            TakeRunHint => {
                let inside = self.has(Mutant::HeadHintInsideARun);
                world.head = me.at + if inside { 1 } else { len as i8 };
                me.pc = RunRead;
            }
            RunRead => {
                me.message = world.payload[slot];
                self.reads(world, me.message)?;
                me.pc = RunReadAgain;
            }
            RunReadAgain => {
                if me.message != world.payload[slot] {
                    return Err(Violation::ChangedWhileRead);
                }
                me.message = 0;
                (me.inside, me.pc) = match last {
                    false => (me.inside + 1, RunRead),
                    true if self.has(Mutant::ReleasesTheFirstFirst) => (0, ReleaseFirst),
                    true => (1, ReleaseOther),
                };
            }
            ReleaseOther => {
                self.free(world, slot, lap);
                (me.inside, me.pc) =
                    if last { (0, ReleaseFirst) } else { (me.inside + 1, ReleaseOther) };
            }
            ReleaseFirst => {
                self.free(world, first, lap);
                if self.has(Mutant::ReleasesTheFirstFirst) {
                    (me.inside, me.pc) = (1, LateOther);
                } else {
                    self.finish(t, me);
                }
            }

            // What the three mutants above have left.
            LateOther => {
                if self.is_consumer(t) {
                    self.free(world, slot, lap);
                } else {
                    let state = if self.gives_up(t, me) { Poison } else { Full };
                    world.words[slot] = Word::new(lap, state, 0);
                }
                if !last {
                    me.inside += 1;
                    return Ok(());
                }
                if !self.is_consumer(t) {
                    me.sent += len;
                }
                self.finish(t, me);
            }
            _ => unreachable!("no step of a run"),
        }
        Ok(())
    }

    /// Frees a slot whose message has been read.
    fn free(&self, world: &mut World, slot: usize, lap: i8) {
        world.released |= bit(world.payload[slot]);
        world.words[slot] = Word::new(lap + 1, Free, 0);
    }
}
