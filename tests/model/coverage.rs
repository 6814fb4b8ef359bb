//! That the exploration came to where it matters.

use super::protocol::Model;
use super::world::{Action, Pc, State, World};
use Pc::*;

/// Every step that can be somebody's next, and so its last.
const STEPS: [Pc; 32] = [
    Begin,
    Done,
    LoadHead,
    Look,
    GallopUp,
    GallopDown,
    ClaimCas,
    ClaimHint,
    WriteHalf,
    WriteWhole,
    Commit,
    TakeCas,
    TakeHint,
    Read,
    ReadAgain,
    Release,
    SkipCas,
    SkipHint,
    AdoptLook,
    AdoptCas,
    TryLock,
    ReadEntry,
    RepairLook,
    RepairCas,
    Announce,
    Vacate,
    Unlock,
    JoinLock,
    JoinEntry,
    JoinEnter,
    LeaveVacate,
    LeaveUnlock,
];

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
enum Sight {
    /// A hint of producers was stored late, and went back; one of consumers.
    StaleTail,
    StaleHead,
    Abandoned,
    /// An orphan was adopted that no walk would have met; one that a walk met.
    AdoptedFromBehind,
    AdoptedOnTheWay,
    /// An adoption failed, because another was faster.
    LostAnOrphan,
    /// Two were recovering at once, each another number.
    TwoRecoverers,
    /// A thread found the lock of a dead one taken by another recoverer.
    FoundARecoverer,
    /// A recoverer died past its first slot, before it was done.
    KilledHalfWay,
    /// A joiner repaired a word; one died as the recoverer above.
    JoinerRepaired,
    KilledJoining,
    /// A joiner took the number of a dead process; of one that had left.
    TookOverTheDead,
    TookOverTheGone,
    /// A thread waited for its sibling's recovery to end.
    WaitedForASibling,
}
use Sight::*;

const SIGHTS: [Sight; 14] = [
    StaleTail,
    StaleHead,
    Abandoned,
    AdoptedFromBehind,
    AdoptedOnTheWay,
    LostAnOrphan,
    TwoRecoverers,
    FoundARecoverer,
    KilledHalfWay,
    JoinerRepaired,
    KilledJoining,
    TookOverTheDead,
    TookOverTheGone,
    WaitedForASibling,
];

/// Sets of steps before which somebody died, and of sights.
#[derive(Clone, Copy, Default)]
pub struct Coverage {
    died: u64,
    sights: u64,
}

impl Coverage {
    /// Notes what `action` made of `before`.
    pub fn note(&mut self, model: &Model, before: &World, action: Action, after: &World) {
        let mut see = |sight: Sight, seen: bool| self.sights |= u64::from(seen) << sight as u64;
        match action {
            Action::Die(home) => {
                for t in (0..model.threads()).filter(|t| model.home(*t) == usize::from(home)) {
                    let thread = &before.threads[t];
                    self.died |= u64::from(thread.alive) << thread.pc as u64;
                    let repairs = matches!(thread.pc, RepairLook | RepairCas) && thread.index > 0;
                    let half_way = repairs || thread.pc == Announce;
                    see(KilledHalfWay, half_way && thread.owner != 0);
                    see(KilledJoining, half_way && thread.owner == 0);
                }
            }
            Action::Step(t) | Action::Recover(t, _) => {
                let (old, new) = (&before.threads[usize::from(t)], &after.threads[usize::from(t)]);
                let changed = before.words != after.words;
                match old.pc {
                    ClaimHint => see(StaleTail, after.tail < before.tail),
                    TakeHint => see(StaleHead, after.head < before.head),
                    Commit => {
                        let word = after.words[model.slot(old.at)];
                        see(Abandoned, word.state == State::Poison);
                    }
                    AdoptCas if !changed => see(LostAnOrphan, true),
                    AdoptCas => {
                        let met = model.slot(before.resolved) == usize::from(old.index);
                        see(AdoptedFromBehind, old.search && !met);
                        see(AdoptedOnTheWay, !old.search);
                    }
                    TryLock => {
                        let another = |o: &super::world::Thread| {
                            o.recovers() && o.target == old.target && old.target != 0
                        };
                        see(FoundARecoverer, !new.recovers() && before.threads.iter().any(another));
                    }
                    RepairCas => see(JoinerRepaired, old.owner == 0 && changed),
                    JoinEntry => {
                        see(TookOverTheDead, new.pc == RepairLook);
                        see(TookOverTheGone, new.pc == JoinEnter);
                    }
                    _ => {}
                }
                see(TwoRecoverers, after.threads.iter().filter(|o| o.recovers()).count() > 1);
            }
            Action::Join(..) => {}
        }
        let waits = |t: usize| after.threads[t].pc == TryLock && model.sibling_recovers(after, t);
        see(WaitedForASibling, (0..model.threads()).any(waits));
    }

    pub fn add(&mut self, other: Coverage) {
        self.died |= other.died;
        self.sights |= other.sights;
    }

    /// What never came up.
    pub fn missing(&self) -> Vec<String> {
        let steps = STEPS.iter().filter(|step| self.died >> **step as u64 & 1 == 0);
        let sights = SIGHTS.iter().filter(|sight| self.sights >> **sight as u64 & 1 == 0);
        let steps = steps.map(|step| format!("a death before {step:?}"));
        steps.chain(sights.map(|sight| format!("{sight:?}"))).collect()
    }
}
