//! Ways to break the protocol, each in one place.

use super::protocol::Violation::{self, *};
use super::scenarios::*;

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
    /// A ring is taken for full when the tail's hint is a lap ahead of the head's.
    FullByTheHints,
    /// A producer waits at POISON for a consumer that skips it.
    ProducerSpinsAtPoison,

    // Take and release.
    TakeWithoutCas,
    /// A consumer passes a slot that is being written, as if it were resolved.
    ConsumerWalksPastWriting,
    /// FREE is stored before the message was read to its end.
    ReleaseBeforeTheLastRead,
    ReleaseToTheSameLap,
    SkipWithoutCas,
    PoisonFreedToTheSameLap,
    /// A compare-and-swap of the state alone.
    TakeBlindToLaps,
    HeadHintLeads,
    /// A ring is taken for empty when the head's hint has reached the tail's.
    EmptyByTheHints,
    /// A gallop ends a position too far.
    GallopOvershoots,

    // Runs.
    /// A walk goes on with the second slot of a run, not behind its last one.
    WalksIntoARun,
    /// A slot that is in another lap leads to the one after it, in that lap.
    LeapsToTheNextSlot,
    /// It leads to itself: in groups of two that does no harm.
    LeapsToTheSlot,
    /// A gallop ends where it came to, though that be inside a run.
    GallopsIntoARun,
    /// Only the first slot of a run is looked at.
    ClaimsARunUnseen,
    TakesARunUnseen,
    /// The hint is stored for the second slot of a run.
    TailHintInsideARun,
    HeadHintInsideARun,
    /// The first slot of a run is given away before the others.
    CommitsTheFirstFirst,
    AbandonsTheFirstFirst,
    ReleasesTheFirstFirst,
    /// The first slot of a dead one's run is repaired before the others; it alone is; the
    /// others are, but for those that were not filled yet, or were.
    RepairsTheFirstFirst,
    LeavesTheOthers,
    LeavesWhatWasNotFilled,
    LeavesWhatWasFilled,

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
    /// As with POSIX record locks: to close a descriptor drops all locks.
    UnlockDropsEveryLock,

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

/// Each mutant, a scenario in which it is caught, and what catches it there.
pub const CAUGHT: [(Mutant, Scenario, Violation); 56] = [
    (ClaimNamesNobody, PAIR, NeverDrained),
    (ClaimWithoutCas, WRITERS, ClaimedOutOfOrder),
    (ClaimOverAReader, PAIR, MovedFromTheLiving),
    (CommitBeforeThePayload, PAIR, Torn),
    (Mutant::TailHintLeads, PAIR, Violation::TailHintLeads),
    (FullByTheHints, PAIR, NeverSends),
    (ProducerSpinsAtPoison, WRITERS, NeverEnds),
    (TakeWithoutCas, READERS, ResolvedOutOfOrder),
    (ConsumerWalksPastWriting, TWO_SLOTS, ResolvedOutOfOrder),
    (ReleaseBeforeTheLastRead, PAIR, ChangedWhileRead),
    (ReleaseToTheSameLap, BEHIND, OrderOfSlots),
    (SkipWithoutCas, QUITTER, ResolvedOutOfOrder),
    (PoisonFreedToTheSameLap, QUITTER, HintAtTheWrongLap),
    (TakeBlindToLaps, READERS, ResolvedOutOfOrder),
    (Mutant::HeadHintLeads, BEHIND, Violation::HeadHintLeads),
    (EmptyByTheHints, STALE_TAIL, NeverDelivered),
    (GallopOvershoots, TWO_SLOTS, ClaimedOutOfOrder),
    (WalksIntoARun, RUN_AND_WRITER, ClaimedOutOfOrder),
    (WalksIntoARun, RUN_AND_READER, ResolvedOutOfOrder),
    (LeapsToTheNextSlot, RUN_TAIL, ClaimedOutOfOrder),
    (LeapsToTheNextSlot, RUN_HEAD, ResolvedOutOfOrder),
    (LeapsToTheSlot, RUN_TAIL, ClaimedOutOfOrder),
    (LeapsToTheSlot, RUN_HEAD, ResolvedOutOfOrder),
    (GallopsIntoARun, RUN_TAIL, ClaimedOutOfOrder),
    (GallopsIntoARun, RUN_AND_READER, ResolvedOutOfOrder),
    (ClaimsARunUnseen, RUNS, MovedInsideARun),
    (TakesARunUnseen, RUNS, DeliveredTwice),
    (TailHintInsideARun, RUN_AND_WRITER, ClaimedOutOfOrder),
    (HeadHintInsideARun, RUN_AND_READER, ResolvedOutOfOrder),
    (CommitsTheFirstFirst, RUNS, OrderOfSlots),
    (AbandonsTheFirstFirst, RUN_QUITTER, OrderOfSlots),
    (ReleasesTheFirstFirst, RUNS, OrderOfSlots),
    (RepairsTheFirstFirst, RUNS, OrderOfSlots),
    (LeavesTheOthers, RUNS, NeverDrained),
    (LeavesWhatWasNotFilled, RUNS, NeverDrained),
    (LeavesWhatWasFilled, RUNS, Torn),
    (AdoptWithoutCas, ADOPTERS, NamesTheWrongOne),
    (SearchRecordsALaterEpoch, BEHIND, NeverDelivered),
    (OneOrphanFlagForAll, ADOPTERS, NeverDelivered),
    (NeverAnnounces, BEHIND, NeverDelivered),
    (AnnouncesBeforeItConverts, BEHIND, NeverDelivered),
    (AnnouncesOnlyWhatItFound, BEHIND, NeverDelivered),
    (RecoversTheLiving, PAIR, MovedFromTheLiving),
    (RecoversItself, SIBLINGS, MovedFromTheLiving),
    (NoMutexAmongThreads, THREADS, LivingWithoutEntry),
    (RepairsWhatItSawBeforeTheLock, ROUND, DeliveredTwice),
    (UnlocksBeforeItRepairs, JOINER, LivingWithoutEntry),
    (VacatesBeforeItRepairs, PAIR, FreeEntryNamed),
    (PublishesForTheDead, PAIR, Torn),
    (PutsBackWhatTheDeadRead, PAIR, ResolvedOutOfOrder),
    (LeavesTheReadersOfTheDead, PAIR, NeverDelivered),
    (UnlockDropsEveryLock, PAIR, LivingWithoutLease),
    (JoinsWithoutASweep, JOINER, NamesTheWrongOne),
    (JoinsUnmarked, JOINER, LivingWithoutEntry),
    (LeaverUnlocksFirst, LEAVER, LivingWithoutEntry),
    (LockFreeBeforeTheLastStore, PAIR, OrderOfSlots),
];
