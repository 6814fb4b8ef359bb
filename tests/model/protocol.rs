//! The ring: `src/ring/mpmc/` and what `src/queue/` makes of it, step by step.
//!
//! What differs from the code, and why that loses nothing:
//!
//! - laps don't wrap (the unit tests start just below every wrap);
//! - a walk gallops from its second step on, not its fourth, so that small rings
//!   reach it (in one scenario from the fourth);
//! - counters, wake-ups and the roster's flags are left out: no decision about
//!   a slot rests on them;
//! - a thread that finds nothing to do ends its operation; to wait is to begin
//!   another one later.

use super::mutants::Mutant;
use super::scenarios::{Role, Scenario};
use super::world::{
    Action, MAX_NUMBERS, MAX_SLOTS, MAX_THREADS, Pc, State, Thread, Word, World, bit,
};
use Pc::*;
use State::*;

/// What must never be: see the table in `main.rs`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Violation {
    MovedFromTheLiving,
    MovedInsideARun,
    NamesTheWrongOne,
    LivingWithoutLease,
    LivingWithoutEntry,
    FreeEntryNamed,
    OrderOfSlots,
    ClaimedOutOfOrder,
    ResolvedOutOfOrder,
    TailHintLeads,
    HeadHintLeads,
    HintAtTheWrongLap,
    Torn,
    ChangedWhileRead,
    DeliveredTwice,
    NeverEnds,
    NeverDelivered,
    NeverDrained,
    NeverSends,
}

impl Violation {
    pub const ALL: [Violation; 19] = [
        Violation::MovedFromTheLiving,
        Violation::MovedInsideARun,
        Violation::NamesTheWrongOne,
        Violation::LivingWithoutLease,
        Violation::LivingWithoutEntry,
        Violation::FreeEntryNamed,
        Violation::OrderOfSlots,
        Violation::ClaimedOutOfOrder,
        Violation::ResolvedOutOfOrder,
        Violation::TailHintLeads,
        Violation::HeadHintLeads,
        Violation::HintAtTheWrongLap,
        Violation::Torn,
        Violation::ChangedWhileRead,
        Violation::DeliveredTwice,
        Violation::NeverEnds,
        Violation::NeverDelivered,
        Violation::NeverDrained,
        Violation::NeverSends,
    ];
}

/// A scenario, and what is wrong with the protocol in it.
pub struct Model {
    pub scenario: Scenario,
    mutant: Option<Mutant>,
    roles: Vec<Role>,
    /// Process of each thread.
    homes: Vec<usize>,
    /// Number of each thread's first message.
    messages: Vec<u8>,
}

impl Model {
    pub fn new(scenario: Scenario, mutant: Option<Mutant>) -> Model {
        let (roles, homes): (Vec<_>, Vec<_>) = scenario.threads().into_iter().unzip();
        let mut next = 1;
        let messages = roles.iter().map(|role: &Role| {
            next += role.claims();
            next - role.claims()
        });
        let messages = messages.collect();
        assert!(next <= 16, "sets of messages have 16 bits");
        Model { scenario, mutant, roles, homes, messages }
    }

    pub fn first(&self) -> World {
        let mut world = World {
            words: [Word::NONE; MAX_SLOTS],
            payload: [0; MAX_SLOTS],
            head: 0,
            tail: 0,
            epoch: 1,
            entries: [false; MAX_NUMBERS],
            locks: [0; MAX_NUMBERS],
            threads: [Thread::GONE; MAX_THREADS],
            crashes: self.scenario.crashes,
            claimed: 0,
            resolved: 0,
            committed: 0,
            released: 0,
            lost: 0,
        };
        for (thread, &home) in world.threads.iter_mut().zip(&self.homes) {
            thread.alive = true;
            if home < self.scenario.numbers() {
                (thread.pc, thread.owner) = (Begin, home as u8 + 1);
                world.entries[home] = true;
                world.locks[home] = home as u8 + 1;
            } else {
                thread.pc = JoinLock;
            }
        }
        world
    }

    pub fn has(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }

    pub fn mutant(&self) -> Option<Mutant> {
        self.mutant
    }

    pub fn threads(&self) -> usize {
        self.roles.len()
    }

    pub fn role(&self, t: usize) -> Role {
        self.roles[t]
    }

    pub fn home(&self, t: usize) -> usize {
        self.homes[t]
    }

    pub fn is_consumer(&self, t: usize) -> bool {
        matches!(self.roles[t], Role::Consumer | Role::Collector)
    }

    /// What the thread sends next.
    pub fn message(&self, t: usize, thread: &Thread) -> u8 {
        self.messages[t] + thread.sent
    }

    pub fn slots(&self) -> i8 {
        self.scenario.slots as i8
    }

    pub fn slot(&self, at: i8) -> usize {
        (at as u8 % self.scenario.slots as u8).into()
    }

    pub fn lap(&self, at: i8) -> i8 {
        (at as u8 / self.scenario.slots as u8) as i8
    }

    /// The word by which the thread holds its slot, or its run, or is about to.
    pub fn held(&self, t: usize, thread: &Thread) -> Word {
        let run = thread.holds_run() || matches!(thread.pc, ClaimRunCas | TakeRunCas);
        let (state, owner) = match self.is_consumer(t) {
            true if run => (ReadingRun, thread.owner),
            true => (Reading, thread.owner),
            false if run => (WritingRun, thread.owner),
            false if self.has(Mutant::ClaimNamesNobody) => (Writing, 0),
            false => (Writing, thread.owner),
        };
        Word::new(self.lap(thread.at), state, owner)
    }

    /// Whether the thread has nothing under way, or waits for something that
    /// another must do.
    pub fn rests(&self, world: &World, t: usize) -> bool {
        let thread = &world.threads[t];
        !thread.alive
            || matches!(thread.pc, Begin | Done | JoinLock)
            || thread.pc == TryLock && self.sibling_recovers(world, t)
    }

    /// Everything that can happen next.
    pub fn actions(&self, world: &World, to: &mut Vec<Action>) {
        to.clear();
        let numbers = 1..=self.scenario.numbers();
        for t in 0..self.threads() {
            let thread = &world.threads[t];
            let u = t as u8;
            match thread.pc {
                LateStore => to.push(Action::Step(u)),
                _ if !thread.alive => {}
                Done => {}
                JoinLock => {
                    let free = numbers.clone().filter(|n| world.locks[n - 1] == 0);
                    to.extend(free.map(|n| Action::Join(u, n as u8)));
                }
                TryLock if self.sibling_recovers(world, t) => {}
                _ => to.push(Action::Step(u)),
            }
            if thread.alive && matches!(thread.pc, Begin | Done) && !self.sibling_recovers(world, t)
            {
                let dead = numbers.clone().filter(|n| world.is_dead(*n));
                to.extend(dead.map(|n| Action::Recover(u, n as u8)));
            }
        }
        if world.crashes > 0 {
            let mut last = None;
            for (t, &home) in self.homes.iter().enumerate() {
                if world.threads[t].alive && last != Some(home) {
                    last = Some(home);
                    to.push(Action::Die(home as u8));
                }
            }
        }
    }

    pub fn apply(&self, world: &mut World, action: Action) -> Result<(), Violation> {
        match action {
            Action::Step(t) => return self.step(world, t.into()),
            Action::Recover(t, number) => {
                let thread = &mut world.threads[usize::from(t)];
                (thread.pc, thread.target) = (TryLock, number);
                return self.step(world, t.into());
            }
            Action::Join(t, number) => {
                let thread = &mut world.threads[usize::from(t)];
                (thread.pc, thread.target) = (JoinEntry, number);
                world.locks[usize::from(number) - 1] = self.home(t.into()) as u8 + 1;
            }
            Action::Die(home) => self.die(world, home.into()),
        }
        Ok(())
    }

    /// The next step of thread `t`.
    pub fn step(&self, world: &mut World, t: usize) -> Result<(), Violation> {
        let mut me = world.threads[t];
        let result = self.act(world, t, &mut me);
        world.threads[t] = me;
        result
    }

    /// To the next operation; all private memory of this one is forgotten.
    pub fn finish(&self, t: usize, me: &mut Thread) {
        let over = !self.is_consumer(t) && me.sent == self.role(t).claims();
        let pc = match self.role(t) {
            Role::Leaver(_) if over => LeaveVacate,
            _ if over => Done,
            _ => Begin,
        };
        let Thread { owner, sent, searched, .. } = *me;
        *me = Thread { alive: true, owner, pc, sent, searched, ..Thread::GONE };
    }

    /// A compare-and-swap; `blind` stores whatever is there.
    pub fn cas(&self, slot: &mut Word, from: Word, to: Word, blind: Mutant) -> bool {
        let done = *slot == from || self.has(blind);
        if done {
            *slot = to;
        }
        done
    }

    fn act(&self, world: &mut World, t: usize, me: &mut Thread) -> Result<(), Violation> {
        let slot = self.slot(me.at);
        match me.pc {
            Begin if !self.is_consumer(t) && self.wants_run(t, me) => {
                self.begin_run(world, t, me);
            }
            Begin | LoadTail if !self.is_consumer(t) => {
                let full = world.tail - world.head >= self.slots();
                if self.has(Mutant::FullByTheHints) && full {
                    self.finish(t, me);
                } else {
                    self.look(me, world.tail);
                }
            }
            Begin | BeginSingle if self.scenario.at_least_once => self.begin_search(world, t, me),
            Begin if self.wants_run(t, me) => self.begin_run(world, t, me),
            LoadHeadOfRun => self.begin_run(world, t, me),
            Begin | LoadHead => {
                if self.has(Mutant::EmptyByTheHints) && world.head >= world.tail {
                    self.finish(t, me);
                } else {
                    self.look(me, world.head);
                }
            }
            Look => return self.decide(world, t, me),
            GallopUp | GallopDown | Frontier => self.gallop(world, t, me),

            ClaimCas => {
                let (at, to) = (me.at, self.held(t, me));
                if !self.cas(&mut world.words[slot], me.word, to, Mutant::ClaimWithoutCas) {
                    self.look(me, at);
                    return Ok(());
                }
                if at != world.claimed {
                    return Err(Violation::ClaimedOutOfOrder);
                }
                world.claimed += 1;
                (me.word, me.behind) = (Word::NONE, 0);
                me.pc = ClaimHint;
            }
            ClaimHint => {
                world.tail = me.at + 1 + i8::from(self.has(Mutant::TailHintLeads));
                me.pc = WriteHalf;
            }
            WriteHalf => {
                world.payload[slot] = 0;
                let early = self.has(Mutant::CommitBeforeThePayload);
                me.pc = if early { Commit } else { WriteWhole };
            }
            WriteWhole => {
                world.payload[slot] = self.message(t, me);
                me.pc = Commit;
            }
            Commit => {
                // `commit`, or `abandon`.
                let gives_up = self.gives_up(t, me);
                let state = if gives_up { Poison } else { Full };
                world.words[slot] = Word::new(self.lap(me.at), state, 0);
                if !gives_up {
                    world.committed |= bit(self.message(t, me));
                }
                if self.has(Mutant::CommitBeforeThePayload) && !gives_up {
                    me.pc = LateWrite;
                } else {
                    me.sent += 1;
                    self.finish(t, me);
                }
            }

            TakeCas => {
                let (at, to) = (me.at, self.held(t, me));
                let word = &mut world.words[slot];
                if self.has(Mutant::TakeBlindToLaps) && word.state == Full {
                    me.word = *word;
                }
                if !self.cas(word, me.word, to, Mutant::TakeWithoutCas) {
                    self.look(me, at);
                    return Ok(());
                }
                if at != world.resolved {
                    return Err(Violation::ResolvedOutOfOrder);
                }
                world.resolved += 1;
                (me.word, me.behind) = (Word::NONE, 0);
                me.pc = TakeHint;
            }
            TakeHint => {
                world.head = me.at + 1 + i8::from(self.has(Mutant::HeadHintLeads));
                me.pc = Read;
            }
            Read => {
                me.message = world.payload[slot];
                self.reads(world, me.message)?;
                let early = self.has(Mutant::ReleaseBeforeTheLastRead);
                me.pc = if early { Release } else { ReadAgain };
            }
            ReadAgain | LateRead => {
                if me.message != world.payload[slot] {
                    return Err(Violation::ChangedWhileRead);
                }
                if me.pc == ReadAgain {
                    me.pc = Release;
                } else {
                    self.finish(t, me);
                }
            }
            Release => {
                world.released |= bit(me.message);
                let laps = i8::from(!self.has(Mutant::ReleaseToTheSameLap));
                world.words[slot] = Word::new(self.lap(me.at) + laps, Free, 0);
                if self.has(Mutant::ReleaseBeforeTheLastRead) {
                    me.pc = LateRead;
                } else {
                    self.finish(t, me);
                }
            }

            SkipCas => {
                let (at, word) = (me.at, me.word);
                let laps = i8::from(!self.has(Mutant::PoisonFreedToTheSameLap));
                let to = Word::new(word.lap + laps, Free, 0);
                if !self.cas(&mut world.words[slot], word, to, Mutant::SkipWithoutCas) {
                    self.look(me, at);
                    return Ok(());
                }
                // Producers come from the position one lap on.
                if word.lap * self.slots() + slot as i8 != world.resolved {
                    return Err(Violation::ResolvedOutOfOrder);
                }
                world.resolved += 1;
                if self.is_consumer(t) {
                    (me.word, me.behind) = (Word::NONE, 0);
                    me.pc = SkipHint;
                } else {
                    self.look(me, at);
                }
            }
            SkipHint => {
                world.head = me.at + 1;
                me.at = 0;
                me.pc = LoadHead;
            }

            AdoptLook => {
                let word = world.words[usize::from(me.index)];
                if word.state == Orphan {
                    (me.word, me.search) = (word, true);
                    me.pc = AdoptCas;
                } else {
                    self.search_on(world, me);
                }
            }
            AdoptCas => {
                let (index, from) = (usize::from(me.index), me.word);
                let to = Word::new(from.lap, Reading, me.owner);
                if self.cas(&mut world.words[index], from, to, Mutant::AdoptWithoutCas) {
                    self.finish(t, me);
                    me.at = from.lap * self.slots() + index as i8;
                    me.pc = Read;
                } else if me.search {
                    (me.word, me.search) = (Word::NONE, false);
                    self.search_on(world, me);
                } else {
                    me.index = 0;
                    self.look(me, me.at);
                }
            }

            LateWrite => {
                world.payload[slot] = self.message(t, me);
                me.sent += 1;
                self.finish(t, me);
            }
            LateStore => {
                world.words[slot] = Word::new(self.lap(me.at), Full, 0);
                world.committed |= bit(self.message(t, me));
                *me = Thread::GONE;
            }

            Done | JoinLock => {}
            _ if matches!(
                me.pc,
                ClaimRunLook | ClaimRunCas | TakeRunLook | TakeRunCas | LateOther
            ) || me.holds_run() =>
            {
                return self.run(world, t, me);
            }
            _ => self.recovery(world, t, me),
        }
        Ok(())
    }

    /// Whether a message that is read may be.
    pub fn reads(&self, world: &World, message: u8) -> Result<(), Violation> {
        if message == 0 || world.committed & bit(message) == 0 {
            return Err(Violation::Torn);
        }
        if (world.released | world.lost) & bit(message) != 0 {
            return Err(Violation::DeliveredTwice);
        }
        Ok(())
    }

    /// What `try_claim` or `try_take` makes of the word at its position.
    fn decide(&self, world: &World, t: usize, me: &mut Thread) -> Result<(), Violation> {
        let slot = self.slot(me.at);
        let word = world.words[slot];
        let ahead = word.lap - self.lap(me.at);
        let consumer = self.is_consumer(t);
        let mut then = |pc| (me.word, me.pc) = (word, pc);
        match (ahead, word.state) {
            (0, Free) if !consumer => then(ClaimCas),
            (0, Full) if consumer => then(TakeCas),
            (0, Poison) if consumer => then(SkipCas),
            _ if self.passed(t, word, me.at) => self.walk_on(t, word, me),
            // Empty.
            (0, Free) if consumer => self.finish(t, me),
            // Pending.
            (0, Writing | WritingRun) if consumer => self.suspect(word, slot, t, me),
            // From here on the slot is still in use since the lap before.
            (-1, Reading) if !consumer && self.has(Mutant::ClaimOverAReader) => then(ClaimCas),
            // Empty or full, because of its reader.
            (-1, Reading | ReadingRun) => self.suspect(word, slot, t, me),
            // The ring went round to a message whose reader died.
            (-1, Orphan) if consumer => {
                then(AdoptCas);
                me.index = slot as u8;
            }
            // Full.
            (-1, Full | Orphan) => self.finish(t, me),
            (-1, Writing | WritingRun) => self.suspect(word, slot, t, me),
            (-1, Poison) if !consumer && self.has(Mutant::ProducerSpinsAtPoison) => {
                self.look(me, me.at);
            }
            (-1, Poison) if !consumer => then(SkipCas),
            // A load older than the hint, in the code. Here no load is.
            _ => return Err(Violation::HintAtTheWrongLap),
        }
        Ok(())
    }

    /// Where a receiver asks for the epoch: before it takes a single message, and before it
    /// tries a run. That asks again before it gives way to a search; the model's does not,
    /// since an epoch that was news still is.
    fn begin_search(&self, world: &mut World, t: usize, me: &mut Thread) {
        let news = if self.has(Mutant::OneOrphanFlagForAll) {
            // A flag that the first to see it takes down.
            std::mem::replace(&mut world.epoch, 1) != 1
        } else {
            world.epoch != me.searched
        };
        if news {
            me.epoch = world.epoch;
            me.pc = AdoptLook;
        } else if me.pc == Begin && self.wants_run(t, me) {
            me.pc = LoadHeadOfRun;
        } else {
            me.pc = LoadHead;
        }
    }

    fn search_on(&self, world: &World, me: &mut Thread) {
        me.index += 1;
        if usize::from(me.index) < self.scenario.slots {
            me.pc = AdoptLook;
            return;
        }
        let late = self.has(Mutant::SearchRecordsALaterEpoch);
        me.searched = if late { world.epoch } else { me.epoch };
        (me.index, me.epoch) = (0, 0);
        me.pc = LoadHead;
    }
}
