//! Ways to break the protocol, each in one place.

/// What is wrong with the protocol.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mutant {
    // Claim and commit.
    /// Vyukov's way: WRITING without an owner.
    ClaimNamesNobody,
    /// A plain store in place of the compare-and-swap.
    ClaimWithoutCas,
    /// A slot that is READING in the lap before is taken for free.
    ClaimOverAReader,
    /// FULL is stored before the message.
    CommitBeforeThePayload,
    TailHintLeads,

    // Take and release.
    TakeWithoutCas,
    /// A consumer passes a slot that is being written, as if it were resolved.
    ConsumerWalksPastWriting,
    /// FREE is stored before the message was read to its end.
    ReleaseBeforeTheLastRead,
    ReleaseToTheSameLap,
    SkipWithoutCas,
    PoisonFreedToTheSameLap,
    HeadHintLeads,
    /// A ring is taken for empty when the head's hint has reached the tail's.
    EmptyByTheHints,
    /// A gallop ends a position too far.
    GallopOvershoots,

    // Redelivery.
    AdoptWithoutCas,
    /// The epoch that a fruitless search records is loaded after the search.
    SearchRecordsALaterEpoch,
    /// One flag, cleared by the first consumer that sees it.
    OneOrphanFlagForAll,
    NeverAnnounces,
    AnnouncesBeforeItConverts,
    /// No announcement when this recoverer found nothing itself.
    AnnouncesOnlyWhatItFound,

    // Recovery.
    /// A lock that is held is no obstacle.
    RecoversTheLiving,
    /// A thread takes its own process for dead: locking again what one holds
    /// succeeds.
    RecoversItself,
    /// Two threads of a process recover the same number at once.
    NoMutexAmongThreads,
    RepairsWhatItSawBeforeTheLock,
    UnlocksBeforeItRepairs,
    VacatesBeforeItRepairs,
    /// WRITING becomes FULL.
    PublishesForTheDead,
    /// READING becomes FULL.
    PutsBackWhatTheDeadRead,
    LeavesTheReadersOfTheDead,

    // Leases.
    JoinsWithoutASweep,
    /// A joiner doesn't mark its entry as in use.
    JoinsUnmarked,
    /// A leaver gives its lock back before it marks its entry as free.
    LeaverUnlocksFirst,
    /// The kernel frees a dead process's lock before the process's last store.
    LockFreeBeforeTheLastStore,
}
use Mutant::*;

pub const MUTANTS: [Mutant; 33] = [
    ClaimNamesNobody, ClaimWithoutCas, ClaimOverAReader, CommitBeforeThePayload, TailHintLeads,
    TakeWithoutCas, ConsumerWalksPastWriting, ReleaseBeforeTheLastRead, ReleaseToTheSameLap,
    SkipWithoutCas, PoisonFreedToTheSameLap, HeadHintLeads, EmptyByTheHints, GallopOvershoots,
    AdoptWithoutCas, SearchRecordsALaterEpoch, OneOrphanFlagForAll, NeverAnnounces,
    AnnouncesBeforeItConverts, AnnouncesOnlyWhatItFound, RecoversTheLiving, RecoversItself,
    NoMutexAmongThreads, RepairsWhatItSawBeforeTheLock, UnlocksBeforeItRepairs,
    VacatesBeforeItRepairs, PublishesForTheDead, PutsBackWhatTheDeadRead,
    LeavesTheReadersOfTheDead, JoinsWithoutASweep, JoinsUnmarked, LeaverUnlocksFirst,
    LockFreeBeforeTheLastStore,
];
