//! What must hold in every state, and what survivors must still be able to do.

use super::protocol::{Model, Violation};
use super::world::{Action, Pc, State, Thread, Word, World};
use State::*;

/// Steps in which an operation must end when nobody else moves. The longest is
/// a recovery that follows a search, a run that was none and a gallop, in a ring of four
/// slots.
const ALONE: usize = 60;

/// Operations in which one consumer must drain the ring.
const ROUNDS: usize = 40;

impl Model {
    /// Everything that is checked in a state. An error names the thread that
    /// came to it when it went on alone, if that was it.
    pub fn check(&self, world: &World) -> Result<(), (Violation, Option<usize>)> {
        let at_once = |violation| (violation, None);
        self.hints(world).map_err(at_once)?;
        self.ownership(world).map_err(at_once)?;
        self.order(world).map_err(at_once)?;
        self.leases(world).map_err(at_once)?;
        for t in 0..self.threads() {
            self.finish_alone(&mut world.clone(), t).map_err(|v| (v, Some(t)))?;
        }
        self.drain(world)
    }

    fn hints(&self, world: &World) -> Result<(), Violation> {
        if world.tail > world.claimed {
            return Err(Violation::TailHintLeads);
        }
        if world.head > world.resolved {
            return Err(Violation::HeadHintLeads);
        }
        Ok(())
    }

    /// A word names a living owner just when one, and only one, of its threads
    /// holds the slot, or the run. The other slots of that name nobody; its holder knows
    /// what they must say.
    fn ownership(&self, world: &World) -> Result<(), Violation> {
        let threads = &world.threads[..self.threads()];
        for (t, thread) in threads.iter().enumerate() {
            if thread.holds_slot() && world.words[self.slot(thread.at)] != self.held(t, thread) {
                return Err(Violation::MovedFromTheLiving);
            }
            let left = |(index, word): (usize, Word)| world.words[index] == word;
            if thread.holds_run() && !self.others(t, thread).all(left) {
                return Err(Violation::MovedInsideARun);
            }
        }
        for (index, word) in world.words[..self.scenario.slots].iter().enumerate() {
            if word.owner == 0 || !threads.iter().any(|o| o.alive && o.owner == word.owner) {
                continue;
            }
            let holds = |(t, o): (usize, &Thread)| {
                o.holds_slot() && self.slot(o.at) == index && self.held(t, o) == *word
            };
            if threads.iter().enumerate().filter(|holder| holds(*holder)).count() != 1 {
                return Err(Violation::NamesTheWrongOne);
            }
        }
        Ok(())
    }

    /// Every word is in the one lap and of a state that H and T leave to its slot: see the
    /// invariant in `src/ring/mpmc/mod.rs`. T or H is behind all of a run, though its other
    /// slots look as if it had not come to them.
    fn order(&self, world: &World) -> Result<(), Violation> {
        let World { claimed, resolved, .. } = *world;
        for (index, word) in world.words[..self.scenario.slots].iter().enumerate() {
            let position = word.lap * self.slots() + index as i8;
            let next_lap = position + self.slots();
            let run = self.run_over(world, index);
            let right = match (word.state, run.map(|run| run.state)) {
                (Free | Full | Poison, Some(WritingRun))
                | (Writing | WritingRun | Full | Poison, None) => {
                    (resolved..claimed).contains(&position)
                }
                (Free, Some(ReadingRun) | None) => {
                    position >= claimed && position - self.slots() < resolved
                }
                (Reading | Orphan | Full, Some(ReadingRun))
                | (Reading | ReadingRun | Orphan, None) => {
                    position < resolved && next_lap >= claimed
                }
                _ => false,
            };
            let lap = |run: Word| run.lap + i8::from((run.state, word.state) == (ReadingRun, Free));
            let right = right && run.is_none_or(|run| word.lap == lap(run));
            if !right || word.state == Orphan && !self.scenario.at_least_once {
                return Err(Violation::OrderOfSlots);
            }
        }
        Ok(())
    }

    /// The living hold their locks, their entries are in use, and no word names
    /// an entry that is free.
    fn leases(&self, world: &World) -> Result<(), Violation> {
        for (t, thread) in world.threads[..self.threads()].iter().enumerate() {
            if !thread.alive || thread.owner == 0 {
                continue;
            }
            let number = usize::from(thread.owner) - 1;
            if usize::from(world.locks[number]) != self.home(t) + 1 {
                return Err(Violation::LivingWithoutLease);
            }
            if !world.entries[number] {
                return Err(Violation::LivingWithoutEntry);
            }
        }
        let named = world.words[..self.scenario.slots].iter().filter(|word| word.owner != 0);
        if named.into_iter().any(|word| !world.entries[usize::from(word.owner) - 1]) {
            return Err(Violation::FreeEntryNamed);
        }
        Ok(())
    }

    /// Lets `t` finish its operation while everybody else stands still.
    fn finish_alone(&self, world: &mut World, t: usize) -> Result<(), Violation> {
        for _ in 0..ALONE {
            if self.rests(world, t) {
                return Ok(());
            }
            self.step(world, t)?;
        }
        Err(Violation::NeverEnds)
    }

    /// If all others stop for ever, holding nothing, each consumer alone can
    /// recover the dead and receive every message, and then each producer alone
    /// can send. (From a state where somebody holds a slot or a lock, those where
    /// that is given back are not far, and `finish_alone` says that it will be.)
    fn drain(&self, world: &World) -> Result<(), (Violation, Option<usize>)> {
        let threads = &world.threads[..self.threads()];
        if threads.iter().any(|o| o.holds_slot() || o.holds_lock() || o.pc == Pc::LateOther) {
            return Ok(());
        }
        let mut nobody = true;
        for (t, thread) in threads.iter().enumerate() {
            if thread.alive && thread.owner != 0 && self.is_consumer(t) {
                self.drain_alone(*world, t).map_err(|v| (v, Some(t)))?;
                nobody = false;
            }
        }
        // A newcomer under a number that nobody had, in place of one of those
        // that are not there.
        if nobody && let Some(t) = (0..self.threads()).find(|t| self.is_consumer(*t)) {
            let mut world = *world;
            let number = self.scenario.numbers();
            let owner = number as u8 + 1;
            world.threads[t] = Thread { alive: true, owner, pc: Pc::Begin, ..Thread::GONE };
            world.locks[number] = self.home(t) as u8 + 1;
            world.entries[number] = true;
            self.drain_alone(world, t).map_err(|v| (v, Some(t)))?;
        }
        Ok(())
    }

    fn drain_alone(&self, mut world: World, t: usize) -> Result<(), Violation> {
        self.finish_alone(&mut world, t)?;
        for number in 1..=self.scenario.numbers() {
            if world.is_dead(number) {
                self.apply(&mut world, Action::Recover(t as u8, number as u8))?;
                self.finish_alone(&mut world, t)?;
            }
        }
        for _ in 0..ROUNDS {
            let before = world;
            self.step(&mut world, t)?;
            self.finish_alone(&mut world, t)?;
            if world == before {
                break;
            }
        }
        if world.committed & !(world.released | world.lost) != 0 {
            return Err(Violation::NeverDelivered);
        }
        let free = world.words[..self.scenario.slots].iter().all(|word| word.state == Free);
        if world.resolved != world.claimed || !free {
            return Err(Violation::NeverDrained);
        }
        self.send_alone(&world)
    }

    /// Any producer that is left can send into the empty ring.
    fn send_alone(&self, world: &World) -> Result<(), Violation> {
        for t in 0..self.threads() {
            let Thread { alive, owner, sent, .. } = world.threads[t];
            if !alive || owner == 0 || sent == self.role(t).claims() {
                continue;
            }
            // What it was at may end in vain, the next attempt must not.
            let mut after = *world;
            self.finish_alone(&mut after, t)?;
            if after.claimed == world.claimed {
                self.step(&mut after, t)?;
                self.finish_alone(&mut after, t)?;
            }
            if after.claimed == world.claimed {
                return Err(Violation::NeverSends);
            }
        }
        Ok(())
    }
}
