//! That the exploration came to where it matters.

use super::protocol::Model;
use super::world::{Action, Pc, State, Thread, Word, World};
use Pc::*;

/// Every step that can be somebody's next, and so its last.
const STEPS: [Pc; 54] = [
    Begin,
    Done,
    LoadHead,
    Look,
    GallopUp,
    GallopDown,
    Frontier,
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
    ClaimRunLook,
    ClaimRunCas,
    ClaimRunHint,
    RunWriteHalf,
    RunWriteWhole,
    CommitOther,
    CommitFirst,
    AbandonOther,
    AbandonFirst,
    LoadTail,
    LoadHeadOfRun,
    TakeRunLook,
    TakeRunCas,
    TakeRunHint,
    RunRead,
    RunReadAgain,
    ReleaseOther,
    ReleaseFirst,
    BeginSingle,
    AdoptLook,
    AdoptCas,
    TryLock,
    ReadEntry,
    RepairLook,
    RepairFree,
    RepairFull,
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

    /// A walk came to a run and went on behind it.
    PassedARun,
    /// A walk came to a slot in another lap, inside a run of that lap, and went on with the
    /// beginning of the group.
    LeaptToARun,
    /// A gallop of producers ended inside a run; one of consumers.
    GallopedIntoAClaimedRun,
    GallopedIntoATakenRun,
    /// No run was claimed, since not all of it was free; none taken, since not all of it was
    /// full.
    NotAllFree,
    NotAllFull,
    /// No run was claimed, because another was faster; none taken.
    LostARunToClaim,
    LostARunToTake,
    /// An orphan was adopted while the first slot of its run still named the dead.
    AdoptedInsideARun,
    /// A recoverer died when it had repaired some of a run that was being written, but not
    /// the first slot; of one that was being read; a joiner died so.
    KilledInAWrittenRun,
    KilledInAReadRun,
    JoinerKilledInARun,
    /// A recoverer found a slot that the dead had filled; one that it had freed.
    FoundFilled,
    FoundFreed,
}
use Sight::*;

const SIGHTS: [Sight; 28] = [
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
    PassedARun,
    LeaptToARun,
    GallopedIntoAClaimedRun,
    GallopedIntoATakenRun,
    NotAllFree,
    NotAllFull,
    LostARunToClaim,
    LostARunToTake,
    AdoptedInsideARun,
    KilledInAWrittenRun,
    KilledInAReadRun,
    JoinerKilledInARun,
    FoundFilled,
    FoundFreed,
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
                    let repairs = thread.repairs() && thread.index > 0;
                    let half_way = repairs || thread.pc == Announce;
                    see(KilledHalfWay, half_way && thread.owner != 0);
                    see(KilledJoining, half_way && thread.owner == 0);
                    let in_a_run = thread.repairs() && {
                        let first = usize::from(thread.index);
                        let others = &before.words[first + 1..model.group_end(first)];
                        let repaired =
                            |word: &Word| matches!(word.state, State::Poison | State::Orphan);
                        thread.word.is_run() && others.iter().any(repaired)
                    };
                    let written = thread.word.state == State::WritingRun;
                    see(KilledInAWrittenRun, in_a_run && written);
                    see(KilledInAReadRun, in_a_run && !written);
                    see(JoinerKilledInARun, in_a_run && thread.owner == 0);
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
                        see(AdoptedInsideARun, model.run_over(before, old.index.into()).is_some());
                    }
                    Look | Frontier => {
                        let index = model.slot(old.at);
                        let word = before.words[index];
                        let behind = old.at + model.run_len(old.at) as i8;
                        see(PassedARun, word.is_run() && new.at == behind);
                        let start = model.group_start(index) as i8;
                        let run = model.run_over(before, index);
                        let leapt = run.is_some_and(|run| {
                            run.lap > model.lap(old.at) && new.at == run.lap * model.slots() + start
                        });
                        see(LeaptToARun, leapt);
                    }
                    GallopUp | GallopDown if new.pc == Frontier => {
                        let run = model.run_over(before, model.slot(new.high));
                        let inside = run.is_some_and(|run| run.lap == model.lap(new.high));
                        see(GallopedIntoAClaimedRun, inside && !model.is_consumer(t.into()));
                        see(GallopedIntoATakenRun, inside && model.is_consumer(t.into()));
                    }
                    ClaimRunLook => see(NotAllFree, new.pc == LoadTail),
                    TakeRunLook => see(NotAllFull, matches!(new.pc, LoadHead | BeginSingle)),
                    ClaimRunCas => see(LostARunToClaim, !changed),
                    TakeRunCas => see(LostARunToTake, !changed),
                    RepairFull => {
                        let written = old.word.state == State::WritingRun;
                        see(FoundFilled, written && changed);
                        let word = before.words[usize::from(old.index + old.inside)];
                        see(FoundFreed, !written && word.state == State::Free);
                    }
                    TryLock => {
                        let another =
                            |o: &Thread| o.recovers() && o.target == old.target && old.target != 0;
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
