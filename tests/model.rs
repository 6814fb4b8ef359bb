//! Every interleaving of the owned-slot ring's protocol, with crashes.
//!
//! This is a model of the protocol, not the shipped code: states, and steps
//! between them, one for each access to shared memory, with a crash possible
//! before each. It shares nothing with the library, so that a mistake there is
//! not repeated here. (Loom runs the shipped code, for its orderings; here all
//! memory is sequentially consistent.)
//!
//! A process is a producer or a consumer with an owner number, which it holds by
//! a lock that its death releases; a *joiner* waits for a number whose lock is
//! free. What it sees of a number's death is the lock, nothing else. A stopped
//! process is one that is not scheduled: nothing else needs to be modelled for
//! it, and its late stores come by themselves.
//!
//! What must hold in every state (the promises of the design):
//!
//! | invariant | checked where |
//! |-----------|---------------|
//! | no word of a living owner is moved by another | payload accesses, commit, release, repair |
//! | nothing torn | a reader finds a whole, committed payload, twice the same |
//! | nothing duplicated | no message is read after its release |
//! | nothing reordered | positions are claimed, and resolved, one after the other |
//! | hints never lead | each store of a hint; a slot found free behind a hint |
//! | nothing lost | `drain`, from every state |
//! | progress | `drain`, from every state |
//!
//! `drain` asks what survivors can still do: each finishes its operation, alone
//! and in bounded time; the dead are swept; the consumers that are left receive
//! until nothing comes; then every committed message must have been delivered
//! (but those that died with a reader, where delivery is at most once) and every
//! slot be free for its next lap.
//!
//! The protocol must pass all of it. Each [`Mutant`] breaks it in one place and
//! must be caught.
//!
//! ```text
//! cargo test --test model                                   # small bounds
//! cargo test --release --test model -- --ignored --nocapture  # over 10^7 states
//! ```

use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::time::Instant;

/// Why a state is wrong.
type Violation = &'static str;

const MAX_SLOTS: usize = 2;
const MAX_PROCESSES: usize = 5;
const OWNERS: usize = 4;
/// Owner number of the consumer that `drain` brings in.
const FRESH: u8 = OWNERS as u8 + 1;

#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
enum State {
    Free,
    Writing,
    Full,
    Reading,
    Poison,
    Orphan,
}
use State::*;

#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
struct Word {
    lap: i8,
    state: State,
    /// 0 for nobody.
    owner: u8,
}

impl Word {
    const fn new(lap: i8, state: State, owner: u8) -> Word {
        Word { lap, state, owner }
    }

    /// As two bytes, for hashing.
    fn bits(self) -> u64 {
        (self.lap as u8 as u64) << 8 | (self.state as u64) << 4 | self.owner as u64
    }
}

const NO_WORD: Word = Word::new(0, Free, 0);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Role {
    /// Sends so many messages.
    Producer(u8),
    /// Claims and gives up once, then sends so many messages.
    Quitter(u8),
    Consumer,
}

/// One scenario.
#[derive(Clone, Copy, Debug)]
struct Config {
    name: &'static str,
    slots: usize,
    /// Whether the messages of dead readers are delivered again.
    again: bool,
    crashes: u8,
    /// Those that hold a number from the beginning, in its order.
    present: &'static [Role],
    /// Those that wait for a number.
    joiners: &'static [Role],
}

impl Config {
    fn role(&self, p: usize) -> Role {
        if p < self.present.len() { self.present[p] } else { self.joiners[p - self.present.len()] }
    }

    fn processes(&self) -> usize {
        self.present.len() + self.joiners.len()
    }

    /// Number of the process's `n`th message, from 1.
    fn message(&self, p: usize, n: u8) -> u8 {
        1 + n + (0..p).map(|q| self.sends(q)).sum::<u8>()
    }

    fn sends(&self, p: usize) -> u8 {
        match self.role(p) {
            Role::Producer(n) => n,
            Role::Quitter(n) => n + 1,
            Role::Consumer => 0,
        }
    }
}

/// What a process does next.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
enum Pc {
    /// Between operations. The next step loads the hint, or the orphans' epoch.
    Start,
    /// Has sent all.
    Done,
    // Finding the position.
    LoadHead,
    Look,
    GallopUp,
    GallopDown,
    // A claim.
    ClaimCas,
    ClaimHint,
    WriteHalf,
    WriteWhole,
    Commit,
    // A take.
    TakeCas,
    TakeHint,
    Read,
    ReadAgain,
    Release,
    // A skip.
    SkipCas,
    SkipHint,
    // Orphans.
    AdoptLook,
    AdoptCas,
    // Recovery of `target`.
    TryLock,
    ReadEntry,
    RepairLook,
    RepairCas,
    Announce,
    Vacate,
    Unlock,
    // A joiner.
    JoinLock,
    JoinEntry,
    JoinEnter,
}
use Pc::*;

/// One process and its private memory. What the next step doesn't need is zero,
/// so that equal futures are equal states.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Process {
    alive: bool,
    /// 0 for a joiner that has none yet.
    owner: u8,
    pc: Pc,
    sent: u8,
    /// The epoch at its last fruitless search for orphans.
    searched: u8,
    /// The epoch as loaded by the search under way.
    epoch: u8,
    at: i8,
    high: i8,
    step: i8,
    behind: bool,
    /// The word that a CAS expects, or that was claimed or taken.
    word: Word,
    /// A slot, in scans.
    index: u8,
    /// Whether an adoption is part of a search.
    search: bool,
    /// Whom it recovers, or the number that a joiner tries.
    target: u8,
    /// The message that it holds for reading.
    message: u8,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct World {
    // Shared memory.
    words: [Word; MAX_SLOTS],
    /// Message in each slot; 0 while half-written.
    payload: [u8; MAX_SLOTS],
    head: i8,
    tail: i8,
    epoch: u8,
    /// The entries of the participants' table, by number less one.
    entries: [bool; OWNERS],
    // The kernel's.
    /// Process that holds each number's lock, plus one; 0 for nobody.
    locks: [u8; OWNERS],
    processes: [Process; MAX_PROCESSES],
    crashes: u8,
    // Known to the checker only.
    /// Positions ever claimed, and ever resolved.
    claimed: i8,
    resolved: i8,
    /// Sets of messages.
    committed: u16,
    released: u16,
    lost: u16,
}

impl Hash for World {
    fn hash<H: Hasher>(&self, h: &mut H) {
        let pack = |bytes: [u8; 8]| u64::from_le_bytes(bytes);
        let [w0, w1] = self.words.map(Word::bits);
        let [p0, p1] = self.payload;
        h.write_u64(w0 | w1 << 16 | (p0 as u64) << 32 | (p1 as u64) << 40);
        let entries = self.entries.iter().fold(0, |bits, e| bits << 1 | u8::from(*e));
        h.write_u64(pack([
            self.head as u8,
            self.tail as u8,
            self.epoch,
            entries,
            self.crashes,
            self.claimed as u8,
            self.resolved as u8,
            0,
        ]));
        let [l0, l1, l2, l3] = self.locks;
        h.write_u64(pack([l0, l1, l2, l3, 0, 0, 0, 0]));
        h.write_u64(
            self.committed as u64 | (self.released as u64) << 16 | (self.lost as u64) << 32,
        );
        for p in &self.processes {
            if !p.alive {
                // All zero, but for what it had sent.
                h.write_u64(p.sent as u64 | 1 << 63);
                continue;
            }
            h.write_u64(pack([
                p.owner | p.target << 4,
                p.pc as u8,
                p.sent,
                p.searched | p.epoch << 4,
                p.at as u8,
                p.high as u8,
                p.step as u8,
                p.index << 1 | u8::from(p.behind),
            ]));
            h.write_u64(p.word.bits() | (p.message as u64) << 16 | u64::from(p.search) << 24);
        }
    }
}

// ---------------------------------------------------------------------------
// The mutants
// ---------------------------------------------------------------------------

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Mutant {
    None,
    ReclaimFromTheLiving,
    RepairWhatWasSeenBeforeTheLock,
    JoinWithoutASweep,
    UnlockBeforeRepairing,
    VacateBeforeRepairing,
    StoreAfterDeath,
    ClaimWithoutWriting,
    ClaimWithoutCas,
    ConsumerWalksPastWriting,
    PublishBeforeThePayload,
    TakeWithoutCas,
    ReleaseBeforeTheLastRead,
    ReleaseToTheSameLap,
    PoisonFreedToTheSameLap,
    SkipWithoutCas,
    DeadWriterPublished,
    DeadReaderRequeued,
    ReadersOfTheDeadAreLeft,
    TailHintLeads,
    HeadHintLeads,
    AnnouncedBeforeConversion,
    NeverAnnounced,
    AdoptWithoutCas,
    SearchRecordsALaterEpoch,
}

const MUTANTS: [Mutant; 24] = [
    Mutant::ReclaimFromTheLiving,
    Mutant::RepairWhatWasSeenBeforeTheLock,
    Mutant::JoinWithoutASweep,
    Mutant::UnlockBeforeRepairing,
    Mutant::VacateBeforeRepairing,
    Mutant::StoreAfterDeath,
    Mutant::ClaimWithoutWriting,
    Mutant::ClaimWithoutCas,
    Mutant::ConsumerWalksPastWriting,
    Mutant::PublishBeforeThePayload,
    Mutant::TakeWithoutCas,
    Mutant::ReleaseBeforeTheLastRead,
    Mutant::ReleaseToTheSameLap,
    Mutant::PoisonFreedToTheSameLap,
    Mutant::SkipWithoutCas,
    Mutant::DeadWriterPublished,
    Mutant::DeadReaderRequeued,
    Mutant::ReadersOfTheDeadAreLeft,
    Mutant::TailHintLeads,
    Mutant::HeadHintLeads,
    Mutant::AnnouncedBeforeConversion,
    Mutant::NeverAnnounced,
    Mutant::AdoptWithoutCas,
    Mutant::SearchRecordsALaterEpoch,
];

// ---------------------------------------------------------------------------
// The protocol
// ---------------------------------------------------------------------------

struct Model {
    config: Config,
    mutant: Mutant,
}

fn bit(message: u8) -> u16 {
    1 << message
}

impl Model {
    fn first(&self) -> World {
        let mut world = World {
            words: [NO_WORD; MAX_SLOTS],
            payload: [0; MAX_SLOTS],
            head: 0,
            tail: 0,
            epoch: 0,
            entries: [false; OWNERS],
            locks: [0; OWNERS],
            processes: [Process {
                alive: false,
                owner: 0,
                pc: Done,
                sent: 0,
                searched: 0,
                epoch: 0,
                at: 0,
                high: 0,
                step: 0,
                behind: false,
                word: NO_WORD,
                index: 0,
                search: false,
                target: 0,
                message: 0,
            }; MAX_PROCESSES],
            crashes: self.config.crashes,
            claimed: 0,
            resolved: 0,
            committed: 0,
            released: 0,
            lost: 0,
        };
        for p in 0..self.config.processes() {
            let process = &mut world.processes[p];
            process.alive = true;
            if p < self.config.present.len() {
                process.pc = Start;
                process.owner = p as u8 + 1;
                world.entries[p] = true;
                world.locks[p] = p as u8 + 1;
            } else {
                process.pc = JoinLock;
                process.target = 1;
            }
        }
        world
    }

    fn slots(&self) -> i8 {
        self.config.slots as i8
    }

    fn slot(&self, at: i8) -> usize {
        at.rem_euclid(self.slots()) as usize
    }

    fn lap(&self, at: i8) -> i8 {
        at.div_euclid(self.slots())
    }

    fn is_consumer(&self, p: usize) -> bool {
        self.config.role(p) == Role::Consumer
    }

    /// The process dies: its locks go, its stores stay.
    fn crash(&self, world: &mut World, p: usize) {
        let process = world.processes[p];
        if self.mutant == Mutant::StoreAfterDeath && process.pc == Commit {
            // Its last store is still on its way: it stays as a process
            // without locks, which does that one thing.
            world.processes[p] = Process { owner: FRESH + 1, ..process };
        } else {
            world.processes[p] =
                Process { sent: process.sent, ..self.first().processes[MAX_PROCESSES - 1] };
            world.processes[p].alive = false;
            world.processes[p].pc = Done;
            world.processes[p].target = 0;
        }
        for lock in &mut world.locks {
            if *lock == p as u8 + 1 {
                *lock = 0;
            }
        }
        world.crashes -= 1;
    }

    /// Whether the process would wait for ever on its own.
    fn rests(&self, process: &Process) -> bool {
        !process.alive || matches!(process.pc, Start | Done | JoinLock)
    }

    /// One step of process `p`.
    fn step(&self, world: &mut World, p: usize) -> Result<(), Violation> {
        let mut me = world.processes[p];
        let result = self.act(world, p, &mut me);
        world.processes[p] = me;
        result
    }

    fn go(&self, me: &mut Process, pc: Pc) {
        me.pc = pc;
    }

    /// To the next operation, all private memory of this one forgotten.
    fn finish(&self, p: usize, me: &mut Process) {
        let done = !self.is_consumer(p) && me.sent == self.config.sends(p);
        *me = Process {
            alive: true,
            owner: me.owner,
            pc: if done { Done } else { Start },
            sent: me.sent,
            searched: me.searched,
            epoch: 0,
            at: 0,
            high: 0,
            step: 0,
            behind: false,
            word: NO_WORD,
            index: 0,
            search: false,
            target: 0,
            message: 0,
        };
    }

    fn look(&self, me: &mut Process, at: i8) {
        (me.at, me.high, me.step, me.word, me.index) = (at, 0, 0, NO_WORD, 0);
        me.pc = Look;
    }

    /// A compare-and-swap, or what a mutant does in its place.
    fn cas(&self, slot: &mut Word, from: Word, to: Word, blind: Mutant) -> bool {
        let done = *slot == from || self.mutant == blind;
        if done {
            *slot = to;
        }
        done
    }

    fn passed(&self, p: usize, word: Word, at: i8) -> bool {
        let ahead = word.lap - self.lap(at);
        ahead > 0 || ahead == 0 && self.own_lap_passed(p, word.state)
    }

    fn own_lap_passed(&self, p: usize, state: State) -> bool {
        if !self.is_consumer(p) {
            return state != Free;
        }
        matches!(state, Reading | Orphan)
            || self.mutant == Mutant::ConsumerWalksPastWriting && state == Writing
    }

    fn act(&self, world: &mut World, p: usize, me: &mut Process) -> Result<(), Violation> {
        let slot = self.slot(me.at);
        let held = Word::new(
            self.lap(me.at),
            if self.is_consumer(p) { Reading } else { Writing },
            me.owner,
        );
        let mine = |world: &World| {
            let given_away = self.mutant == Mutant::ClaimWithoutWriting && !self.is_consumer(p);
            if world.words[slot] == held || given_away {
                Ok(())
            } else {
                Err("a living owner's word was moved by another")
            }
        };
        match me.pc {
            Done => {}
            Start if !self.is_consumer(p) => self.look(me, world.tail),
            Start if self.config.again => {
                me.epoch = world.epoch;
                if me.epoch != me.searched {
                    me.index = 0;
                    self.go(me, AdoptLook);
                } else {
                    me.epoch = 0;
                    self.go(me, LoadHead);
                }
            }
            Start | LoadHead => self.look(me, world.head),
            Look => return self.decide(world, p, me),
            GallopUp => {
                let probe = me.at + me.step;
                if self.passed(p, world.words[self.slot(probe)], probe) {
                    if me.step == self.slots() {
                        self.look(me, probe + 1);
                    } else {
                        me.at = probe + 1;
                        me.step = (me.step * 2).min(self.slots());
                    }
                } else {
                    (me.high, me.step) = (probe, 0);
                    self.go(me, GallopDown);
                }
            }
            GallopDown => {
                let middle = me.at + (me.high - me.at) / 2;
                if self.passed(p, world.words[self.slot(middle)], middle) {
                    me.at = middle + 1;
                } else {
                    me.high = middle;
                }
                if me.at >= me.high {
                    let at = me.at;
                    self.look(me, at);
                }
            }

            ClaimCas => {
                let to = if self.mutant == Mutant::ClaimWithoutWriting {
                    Word::new(me.word.lap, Full, 0)
                } else {
                    Word::new(me.word.lap, Writing, me.owner)
                };
                if !self.cas(&mut world.words[slot], me.word, to, Mutant::ClaimWithoutCas) {
                    let at = me.at;
                    self.look(me, at);
                    return Ok(());
                }
                if me.at != world.claimed {
                    return Err("a position was claimed out of its order");
                }
                world.claimed += 1;
                (me.word, me.behind) = (NO_WORD, false);
                self.go(me, ClaimHint);
            }
            ClaimHint => {
                world.tail = me.at + 1 + i8::from(self.mutant == Mutant::TailHintLeads);
                if world.tail > world.claimed {
                    return Err("the tail hint leads");
                }
                self.go(me, WriteHalf);
            }
            WriteHalf => {
                mine(world)?;
                world.payload[slot] = 0;
                let early = self.mutant == Mutant::PublishBeforeThePayload;
                self.go(me, if early { Commit } else { WriteWhole });
            }
            WriteWhole => {
                if self.mutant == Mutant::PublishBeforeThePayload {
                    world.payload[slot] = self.config.message(p, me.sent);
                    me.sent += 1;
                    self.finish(p, me);
                } else {
                    mine(world)?;
                    world.payload[slot] = self.config.message(p, me.sent);
                    self.go(me, Commit);
                }
            }
            Commit => {
                let zombie = me.owner == FRESH + 1;
                if !zombie {
                    mine(world)?;
                }
                let gives_up = matches!(self.config.role(p), Role::Quitter(_)) && me.sent == 0;
                let state = if gives_up { Poison } else { Full };
                world.words[slot] = Word::new(self.lap(me.at), state, 0);
                if !gives_up {
                    world.committed |= bit(self.config.message(p, me.sent));
                }
                if zombie {
                    *me = Process { alive: false, ..*me };
                } else if self.mutant == Mutant::PublishBeforeThePayload && !gives_up {
                    self.go(me, WriteWhole);
                } else {
                    me.sent += 1;
                    self.finish(p, me);
                }
            }

            TakeCas => {
                let to = Word::new(me.word.lap, Reading, me.owner);
                if !self.cas(&mut world.words[slot], me.word, to, Mutant::TakeWithoutCas) {
                    let at = me.at;
                    self.look(me, at);
                    return Ok(());
                }
                if me.at != world.resolved {
                    return Err("a message was taken out of its order");
                }
                world.resolved += 1;
                (me.word, me.behind) = (NO_WORD, false);
                self.go(me, TakeHint);
            }
            TakeHint => {
                world.head = me.at + 1 + i8::from(self.mutant == Mutant::HeadHintLeads);
                if world.head > world.resolved {
                    return Err("the head hint leads");
                }
                self.go(me, Read);
            }
            Read => {
                mine(world)?;
                me.message = world.payload[slot];
                if me.message == 0 || world.committed & bit(me.message) == 0 {
                    return Err("a torn message was delivered");
                }
                if (world.released | world.lost) & bit(me.message) != 0 {
                    return Err("a message was delivered twice");
                }
                let early = self.mutant == Mutant::ReleaseBeforeTheLastRead;
                self.go(me, if early { Release } else { ReadAgain });
            }
            ReadAgain => {
                let early = self.mutant == Mutant::ReleaseBeforeTheLastRead;
                if !early {
                    mine(world)?;
                }
                if me.message != world.payload[slot] {
                    return Err("a message changed while it was read");
                }
                if early {
                    self.finish(p, me);
                } else {
                    self.go(me, Release);
                }
            }
            Release => {
                mine(world)?;
                world.released |= bit(me.message);
                let laps = i8::from(self.mutant != Mutant::ReleaseToTheSameLap);
                world.words[slot] = Word::new(self.lap(me.at) + laps, Free, 0);
                if self.mutant == Mutant::ReleaseBeforeTheLastRead {
                    self.go(me, ReadAgain);
                } else {
                    self.finish(p, me);
                }
            }

            SkipCas => {
                // Producers come from the position one lap on.
                let position = me.word.lap * self.slots() + slot as i8;
                let laps = i8::from(self.mutant != Mutant::PoisonFreedToTheSameLap);
                let to = Word::new(me.word.lap + laps, Free, 0);
                let at = me.at;
                if !self.cas(&mut world.words[slot], me.word, to, Mutant::SkipWithoutCas) {
                    self.look(me, at);
                    return Ok(());
                }
                if position != world.resolved {
                    return Err("a position was skipped out of its order");
                }
                world.resolved += 1;
                if self.is_consumer(p) {
                    (me.word, me.behind) = (NO_WORD, false);
                    self.go(me, SkipHint);
                } else {
                    self.look(me, at);
                }
            }
            SkipHint => {
                world.head = me.at + 1;
                if world.head > world.resolved {
                    return Err("the head hint leads");
                }
                self.finish(p, me);
            }

            AdoptLook => {
                let word = world.words[me.index as usize];
                if word.state == Orphan {
                    (me.word, me.search) = (word, true);
                    self.go(me, AdoptCas);
                } else {
                    self.search_on(world, me);
                }
            }
            AdoptCas => {
                let index = me.index as usize;
                let to = Word::new(me.word.lap, Reading, me.owner);
                let from = me.word;
                if self.cas(&mut world.words[index], from, to, Mutant::AdoptWithoutCas) {
                    let at = from.lap * self.slots() + index as i8;
                    let searched = me.searched;
                    self.finish(p, me);
                    (me.at, me.searched) = (at, searched);
                    self.go(me, Read);
                } else if me.search {
                    (me.word, me.search) = (NO_WORD, false);
                    self.search_on(world, me);
                } else {
                    let at = me.at;
                    self.look(me, at);
                }
            }

            TryLock => {
                let lock = &mut world.locks[me.target as usize - 1];
                if *lock == 0 {
                    *lock = p as u8 + 1;
                    self.go(me, ReadEntry);
                } else if self.mutant == Mutant::ReclaimFromTheLiving && me.target != me.owner {
                    self.go(me, ReadEntry);
                } else {
                    // Alive, or in somebody else's care.
                    self.finish(p, me);
                }
            }
            ReadEntry => {
                if !world.entries[me.target as usize - 1] {
                    self.go(me, Unlock);
                } else {
                    self.begin_repair(world, p, me);
                }
            }
            RepairLook => {
                let word = world.words[me.index as usize];
                if word.owner == me.target && matches!(word.state, Writing | Reading) {
                    me.word = word;
                    self.go(me, RepairCas);
                } else {
                    self.repair_on(me);
                }
            }
            RepairCas => {
                let blind = Mutant::RepairWhatWasSeenBeforeTheLock;
                let to = match me.word.state {
                    Writing if self.mutant == Mutant::DeadWriterPublished => {
                        Word::new(me.word.lap, Full, 0)
                    }
                    Writing => Word::new(me.word.lap, Poison, 0),
                    _ if self.mutant == Mutant::DeadReaderRequeued => {
                        Word::new(me.word.lap, Full, 0)
                    }
                    _ if self.config.again => Word::new(me.word.lap, Orphan, 0),
                    _ => Word::new(me.word.lap + 1, Free, 0),
                };
                let index = me.index as usize;
                let from = me.word;
                if self.cas(&mut world.words[index], from, to, blind) {
                    if from.state == Reading && to.state == Free {
                        world.lost |= bit(world.payload[index]) & world.committed;
                    }
                    let living = world.processes.iter().enumerate();
                    let mut living = living.filter(|(q, o)| *q != p && o.alive);
                    if living.any(|(_, o)| o.owner == me.target) {
                        return Err("a living owner's word was reclaimed");
                    }
                }
                me.word = NO_WORD;
                self.repair_on(me);
            }
            Announce => {
                world.epoch += 1;
                self.after_repair(p, me);
            }
            Vacate => {
                world.entries[me.target as usize - 1] = false;
                if self.mutant == Mutant::VacateBeforeRepairing {
                    me.index = 0;
                    self.go(me, RepairLook);
                } else {
                    self.go(me, Unlock);
                }
            }
            Unlock => {
                let lock = &mut world.locks[me.target as usize - 1];
                if *lock == p as u8 + 1 {
                    *lock = 0;
                }
                if self.mutant == Mutant::UnlockBeforeRepairing && me.step == 0 {
                    (me.step, me.index) = (1, 0);
                    self.go(me, RepairLook);
                } else {
                    self.finish(p, me);
                }
            }

            JoinLock => {
                let lock = &mut world.locks[me.target as usize - 1];
                if *lock == 0 && (me.target as usize) <= self.config.present.len() {
                    *lock = p as u8 + 1;
                    self.go(me, JoinEntry);
                } else {
                    me.target = me.target % self.config.present.len() as u8 + 1;
                }
            }
            JoinEntry => {
                let sweep = self.mutant != Mutant::JoinWithoutASweep;
                if world.entries[me.target as usize - 1] && sweep {
                    me.index = 0;
                    self.go(me, RepairLook);
                } else {
                    self.go(me, JoinEnter);
                }
            }
            JoinEnter => {
                world.entries[me.target as usize - 1] = true;
                me.owner = me.target;
                self.finish(p, me);
            }
        }
        Ok(())
    }

    /// What a claim or a take makes of the word at its position.
    fn decide(&self, world: &World, p: usize, me: &mut Process) -> Result<(), Violation> {
        let slot = self.slot(me.at);
        let word = world.words[slot];
        let ahead = word.lap - self.lap(me.at);
        let consumer = self.is_consumer(p);
        match (ahead, word.state) {
            (0, Free) if !consumer => {
                me.word = word;
                self.go(me, ClaimCas);
            }
            (0, Free) => self.finish(p, me),
            (0, Full) if consumer => {
                me.word = word;
                self.go(me, TakeCas);
            }
            (0, Poison) if consumer => {
                me.word = word;
                self.go(me, SkipCas);
            }
            _ if self.passed(p, word, me.at) => {
                let lap = word.lap - i8::from(!self.own_lap_passed(p, word.state));
                let next = lap * self.slots() + slot as i8 + 1;
                if me.behind {
                    (me.at, me.step) = (next, 1);
                    self.go(me, GallopUp);
                } else {
                    me.behind = true;
                    self.look(me, next);
                }
            }
            (0, Writing) => self.suspect(word, slot, me),
            (_, Reading) => self.suspect(word, slot, me),
            (_, Orphan) if consumer => {
                (me.word, me.index) = (word, slot as u8);
                self.go(me, AdoptCas);
            }
            (_, Writing) if !consumer => self.suspect(word, slot, me),
            (_, Full | Orphan) if !consumer => self.finish(p, me),
            (_, Poison) if !consumer => {
                me.word = word;
                self.go(me, SkipCas);
            }
            _ => return Err("a hint led to a slot of the lap before"),
        }
        Ok(())
    }

    /// The word's owner stands in the way: is it dead?
    fn suspect(&self, word: Word, slot: usize, me: &mut Process) {
        (me.at, me.behind, me.target) = (0, false, word.owner);
        if self.mutant == Mutant::RepairWhatWasSeenBeforeTheLock {
            (me.word, me.index) = (word, slot as u8);
        }
        self.go(me, TryLock);
    }

    fn search_on(&self, world: &World, me: &mut Process) {
        me.index += 1;
        if me.index as usize == self.config.slots {
            let late = self.mutant == Mutant::SearchRecordsALaterEpoch;
            me.searched = if late { world.epoch } else { me.epoch };
            (me.index, me.epoch) = (0, 0);
            self.go(me, LoadHead);
        } else {
            self.go(me, AdoptLook);
        }
    }

    fn begin_repair(&self, world: &mut World, _p: usize, me: &mut Process) {
        match self.mutant {
            Mutant::RepairWhatWasSeenBeforeTheLock => {
                me.step = 1;
                self.go(me, RepairCas);
            }
            Mutant::UnlockBeforeRepairing => self.go(me, Unlock),
            Mutant::VacateBeforeRepairing => self.go(me, Vacate),
            Mutant::AnnouncedBeforeConversion => {
                world.epoch += u8::from(self.config.again);
                self.go(me, RepairLook);
            }
            _ => self.go(me, RepairLook),
        }
    }

    fn repair_on(&self, me: &mut Process) {
        me.index += 1;
        let single = self.mutant == Mutant::RepairWhatWasSeenBeforeTheLock && me.step == 1;
        if (me.index as usize) < self.config.slots && !single {
            self.go(me, RepairLook);
            return;
        }
        me.index = 0;
        let quiet =
            matches!(self.mutant, Mutant::AnnouncedBeforeConversion | Mutant::NeverAnnounced);
        if self.config.again && !quiet {
            self.go(me, Announce);
        } else {
            self.after_repair(0, me);
        }
    }

    fn after_repair(&self, _p: usize, me: &mut Process) {
        let joins = me.owner == 0;
        let out =
            matches!(self.mutant, Mutant::VacateBeforeRepairing | Mutant::UnlockBeforeRepairing);
        self.go(
            me,
            if joins {
                JoinEnter
            } else if out {
                Unlock
            } else {
                Vacate
            },
        );
    }

    // -----------------------------------------------------------------------
    // What survivors can still do
    // -----------------------------------------------------------------------

    /// Lets `p` finish its operation, alone.
    fn finish_alone(&self, world: &mut World, p: usize) -> Result<(), Violation> {
        for _ in 0..60 {
            if self.rests(&world.processes[p]) {
                return Ok(());
            }
            self.step(world, p)?;
        }
        Err("an operation goes on for ever")
    }

    fn drain(&self, mut world: World) -> Result<(), Violation> {
        let world = &mut world;
        let all = 0..self.config.processes();
        for p in all.clone() {
            self.finish_alone(world, p)?;
        }
        // Somebody sweeps the entries whose locks are free.
        for number in 0..self.config.present.len() {
            if world.locks[number] == 0 && world.entries[number] {
                self.sweep(world, number as u8 + 1);
            }
        }
        // Consumers go on as they are; if none is left, a new one comes.
        let mut consumers: Vec<usize> = all
            .clone()
            .filter(|&p| self.is_consumer(p))
            .filter(|&p| world.processes[p].alive && world.processes[p].pc == Start)
            .collect();
        if consumers.is_empty() {
            let Some(p) = all.clone().find(|&p| self.is_consumer(p)) else { return Ok(()) };
            self.finish(p, &mut world.processes[p]);
            (world.processes[p].owner, world.processes[p].searched) = (FRESH, 0);
            consumers.push(p);
        }
        let mut idle = 0;
        for _ in 0..40 {
            let before = (world.released, world.resolved, world.words);
            for &p in &consumers {
                self.step(world, p)?;
                self.finish_alone(world, p)?;
            }
            idle =
                if before == (world.released, world.resolved, world.words) { idle + 1 } else { 0 };
            if idle == 2 {
                break;
            }
        }
        if world.committed & !(world.released | world.lost) != 0 {
            return Err("a committed message is never delivered");
        }
        if world.resolved != world.claimed {
            return Err("survivors can't drain the ring");
        }
        for next in world.claimed..world.claimed + self.slots() {
            if world.words[self.slot(next)] != Word::new(self.lap(next), Free, 0) {
                return Err("a slot never comes free");
            }
        }
        Ok(())
    }

    fn sweep(&self, world: &mut World, dead: u8) {
        for index in 0..self.config.slots {
            let word = world.words[index];
            if word.owner != dead {
                continue;
            }
            world.words[index] = match word.state {
                Writing => Word::new(word.lap, Poison, 0),
                Reading if self.config.again => Word::new(word.lap, Orphan, 0),
                Reading => {
                    world.lost |= bit(world.payload[index]) & world.committed;
                    Word::new(word.lap + 1, Free, 0)
                }
                _ => word,
            };
        }
        world.epoch += u8::from(self.config.again);
        world.entries[dead as usize - 1] = false;
    }
}

// ---------------------------------------------------------------------------
// The exploration
// ---------------------------------------------------------------------------

/// 128 bits of a state: two of 10⁸ states share them with a probability of
/// 10⁻²³, so that none is overlooked.
#[derive(Default)]
struct Fingerprint(u64, u64);

impl Hasher for Fingerprint {
    fn write_u64(&mut self, value: u64) {
        let fold = |a: u64, b: u64| {
            let product = u128::from(a) * u128::from(b);
            product as u64 ^ (product >> 64) as u64
        };
        self.0 = fold(self.0 ^ value ^ 0x9E37_79B9_7F4A_7C15, 0xA076_1D64_78BD_642F);
        self.1 =
            fold(self.1.rotate_left(29) ^ value ^ 0xE703_7ED1_A0B4_28DB, 0x8EBC_6AF0_9C88_C6E3);
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("states are hashed as words");
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

impl World {
    fn fingerprint(&self) -> u128 {
        let mut hasher = Fingerprint::default();
        self.hash(&mut hasher);
        u128::from(hasher.0) << 64 | u128::from(hasher.1)
    }
}

/// Fingerprints are their own hash.
#[derive(Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn write_u128(&mut self, value: u128) {
        self.0 = value as u64;
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("only fingerprints are kept");
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

struct Outcome {
    states: usize,
    /// Whether that was all of them.
    complete: bool,
    violation: Option<(Violation, Vec<String>)>,
}

/// A state on the way, and the next of its successors: a step of each process,
/// then a crash of each.
struct Frame {
    world: World,
    next: usize,
}

fn explore(model: &Model, most: usize) -> Outcome {
    let n = model.config.processes();
    let mut seen = HashSet::<u128, BuildHasherDefault<AsItIs>>::default();
    let mut path = vec![Frame { world: model.first(), next: 0 }];
    seen.insert(path[0].world.fingerprint());
    let trace = |path: &[Frame]| {
        let step = |f: &Frame| {
            let (p, crash) = ((f.next - 1) % n, f.next > n);
            let process = f.world.processes[p];
            let what = if crash { "dies before" } else { "does" };
            format!("{p} {what} {:?}   {:?} {:?}", process.pc, &f.world.words, f.world.payload)
        };
        path.iter().filter(|f| f.next > 0).map(step).collect::<Vec<_>>()
    };
    while let Some(frame) = path.last_mut() {
        let choice = frame.next;
        if choice == 2 * n {
            path.pop();
            continue;
        }
        frame.next += 1;
        let (p, crash) = (choice % n, choice >= n);
        let mut world = frame.world;
        let process = &world.processes[p];
        // Where nothing is held or half done, a death is only a number free.
        if !process.alive || process.pc == Done || crash && world.crashes == 0 {
            continue;
        }
        let result = if crash {
            model.crash(&mut world, p);
            Ok(())
        } else {
            model.step(&mut world, p)
        };
        let result = result.and_then(|()| {
            if !seen.insert(world.fingerprint()) {
                return Ok(false);
            }
            model.drain(world).map(|()| true)
        });
        match result {
            Ok(true) => path.push(Frame { world, next: 0 }),
            Ok(false) => {}
            Err(violation) => {
                let violation = Some((violation, trace(&path)));
                return Outcome { states: seen.len(), complete: false, violation };
            }
        }
        if seen.len() >= most {
            return Outcome { states: seen.len(), complete: false, violation: None };
        }
    }
    Outcome { states: seen.len(), complete: true, violation: None }
}

use Role::{Consumer, Producer, Quitter};

const SMALL: [Config; 6] = [
    Config {
        name: "one slot, a joiner, at most once",
        slots: 1,
        again: false,
        crashes: 2,
        present: &[Producer(2), Consumer],
        joiners: &[Producer(1)],
    },
    Config {
        name: "one slot, a joiner, at least once",
        slots: 1,
        again: true,
        crashes: 2,
        present: &[Producer(2), Consumer],
        joiners: &[Consumer],
    },
    Config {
        name: "two readers, at least once",
        slots: 2,
        again: true,
        crashes: 1,
        present: &[Producer(2), Consumer, Consumer],
        joiners: &[],
    },
    Config {
        name: "two writers, at most once",
        slots: 2,
        again: false,
        crashes: 1,
        present: &[Producer(2), Producer(1), Consumer],
        joiners: &[],
    },
    Config {
        name: "a writer that gives up, one crash",
        slots: 2,
        again: false,
        crashes: 1,
        present: &[Quitter(2), Producer(1), Consumer],
        joiners: &[],
    },
    Config {
        name: "three readers of one slot, at least once",
        slots: 1,
        again: true,
        crashes: 2,
        present: &[Producer(1), Consumer, Consumer],
        joiners: &[Consumer],
    },
];

fn check(configs: &[Config], most: usize) -> usize {
    let mut total = 0;
    for config in configs {
        let begin = Instant::now();
        let model = Model { config: *config, mutant: Mutant::None };
        let outcome = explore(&model, most);
        if let Some((violation, trace)) = outcome.violation {
            panic!("{}: {violation}\n{}", config.name, trace.join("\n"));
        }
        println!(
            "{:>9} states{} in {:5.1} s: {}",
            outcome.states,
            if outcome.complete { "" } else { " (bound reached)" },
            begin.elapsed().as_secs_f64(),
            config.name
        );
        total += outcome.states;
    }
    println!("{total} states, no violation");
    total
}

#[test]
fn the_protocol_keeps_its_promises() {
    let most = if cfg!(debug_assertions) { 40_000 } else { 400_000 };
    check(&SMALL, most);
}

fn catch_mutants(most: usize) {
    let mut missed = vec![];
    for mutant in MUTANTS {
        let caught = SMALL.iter().find_map(|config| {
            let outcome = explore(&Model { config: *config, mutant }, most);
            outcome.violation.map(|(violation, trace)| (config.name, violation, trace.len()))
        });
        match caught {
            Some((name, violation, steps)) => {
                println!("caught {mutant:?}: {violation}, after {steps} steps ({name})");
            }
            None => {
                println!("MISSED {mutant:?}");
                missed.push(mutant);
            }
        }
    }
    assert!(missed.is_empty(), "not caught: {missed:?}");
}

#[test]
fn every_mutant_is_caught() {
    catch_mutants(if cfg!(debug_assertions) { 40_000 } else { 400_000 });
}
