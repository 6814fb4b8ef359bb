//! A state of the model: shared memory, the kernel's locks, each thread's
//! private memory, and what only the checker knows.

pub const MAX_SLOTS: usize = 4;
pub const MAX_THREADS: usize = 5;
pub const MAX_NUMBERS: usize = 5;

/// State of a slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum State {
    Free,
    Writing,
    Full,
    Reading,
    Poison,
    Orphan,
    WritingRun,
    ReadingRun,
}

/// The word of a slot.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Word {
    pub lap: i8,
    pub state: State,
    /// 0 for nobody.
    pub owner: u8,
}

impl Word {
    pub const NONE: Word = Word::new(0, State::Free, 0);

    pub const fn new(lap: i8, state: State, owner: u8) -> Word {
        Word { lap, state, owner }
    }

    pub fn is_run(self) -> bool {
        matches!(self.state, State::WritingRun | State::ReadingRun)
    }
}

impl std::fmt::Debug for Word {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Word { lap, state, owner } = self;
        match state {
            State::Writing | State::Reading | State::WritingRun | State::ReadingRun => {
                write!(f, "{state:?}({lap},{owner})")
            }
            _ => write!(f, "{state:?}({lap})"),
        }
    }
}

/// What a thread does next: one access to shared memory, or one system call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Pc {
    /// Between operations: the next one loads its hint, or the orphans' epoch.
    Begin,
    /// Has sent all that it had to send.
    Done,

    // Both `try_claim` and `try_take` look for the position.
    LoadHead,
    Look,
    GallopUp,
    GallopDown,
    Frontier,

    // `try_claim`, the payload, `commit` or `abandon`.
    ClaimCas,
    ClaimHint,
    WriteHalf,
    WriteWhole,
    Commit,

    // `try_take`, the payload, `release`.
    TakeCas,
    TakeHint,
    Read,
    ReadAgain,
    Release,
    SkipCas,
    SkipHint,

    // `claim_run`, the payloads, `commit_run` or `abandon_run`; or `try_claim` after all.
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

    // `take_run`, the payloads, `release_run`; or to take a single one after all.
    LoadHeadOfRun,
    TakeRunLook,
    TakeRunCas,
    TakeRunHint,
    RunRead,
    RunReadAgain,
    ReleaseOther,
    ReleaseFirst,
    BeginSingle,

    // `try_adopt`.
    AdoptLook,
    AdoptCas,

    // `Attachment::recover` of `target`.
    TryLock,
    ReadEntry,
    RepairLook,
    /// The other slots of a run, each as the dead may have left it.
    RepairFree,
    RepairFull,
    RepairCas,
    Announce,
    Vacate,
    Unlock,

    // `Attachment::join`, which repairs as `recover` does.
    JoinLock,
    JoinEntry,
    JoinEnter,

    // Dropping the last handle.
    LeaveVacate,
    LeaveUnlock,

    // What only mutants do.
    LateWrite,
    LateRead,
    LateStore,
    LateOther,
}

/// One thread and its private memory. What its next step does not need is zero,
/// so that states with equal futures are equal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Thread {
    pub alive: bool,
    /// Number of its process; 0 for one that has none, yet or any more.
    pub owner: u8,
    pub pc: Pc,
    /// Claims that it has settled.
    pub sent: u8,
    /// The epoch of its last fruitless search for orphans; 0 before the first.
    pub searched: u8,
    /// The epoch as loaded by the search under way.
    pub epoch: u8,
    pub at: i8,
    pub high: i8,
    pub step: i8,
    /// Steps that it has found its hint to be behind, until it gallops.
    pub behind: u8,
    /// The word that a CAS expects.
    pub word: Word,
    /// A slot, in scans.
    pub index: u8,
    /// Slots from the first one of a run to the one that it is at.
    pub inside: u8,
    /// Whether the adoption is part of a search.
    pub search: bool,
    /// The number that it recovers, joins or leaves.
    pub target: u8,
    /// The message that it reads.
    pub message: u8,
}

impl Thread {
    pub const GONE: Thread = Thread {
        alive: false,
        owner: 0,
        pc: Pc::Done,
        sent: 0,
        searched: 0,
        epoch: 0,
        at: 0,
        high: 0,
        step: 0,
        behind: 0,
        word: Word::NONE,
        index: 0,
        inside: 0,
        search: false,
        target: 0,
        message: 0,
    };

    /// Whether it holds the slot of `at`.
    pub fn holds_slot(&self) -> bool {
        use Pc::*;
        let single = matches!(
            self.pc,
            ClaimHint | WriteHalf | WriteWhole | Commit | TakeHint | Read | ReadAgain | Release
        );
        self.alive && single || self.holds_run()
    }

    /// Whether it holds the slots from `at` to the end of the group.
    pub fn holds_run(&self) -> bool {
        use Pc::*;
        self.alive
            && matches!(
                self.pc,
                ClaimRunHint
                    | RunWriteHalf
                    | RunWriteWhole
                    | CommitOther
                    | CommitFirst
                    | AbandonOther
                    | AbandonFirst
                    | TakeRunHint
                    | RunRead
                    | RunReadAgain
                    | ReleaseOther
                    | ReleaseFirst
            )
    }

    /// Whether it is recovering, past the mutex of its process's threads.
    pub fn recovers(&self) -> bool {
        use Pc::*;
        matches!(self.pc, ReadEntry | Announce | Vacate | Unlock) || self.repairs()
    }

    /// Whether it is at the slots of the dead.
    pub fn repairs(&self) -> bool {
        use Pc::*;
        matches!(self.pc, RepairLook | RepairFree | RepairFull | RepairCas)
    }

    /// Whether it holds the lock of `target`.
    pub fn holds_lock(&self) -> bool {
        self.alive
            && (self.recovers()
                || matches!(self.pc, Pc::JoinEntry | Pc::JoinEnter | Pc::LeaveUnlock))
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct World {
    // Shared memory.
    pub words: [Word; MAX_SLOTS],
    /// Message in each slot; 0 while half-written.
    pub payload: [u8; MAX_SLOTS],
    pub head: i8,
    pub tail: i8,
    /// Recoveries that may have made orphans, plus one.
    pub epoch: u8,
    /// Whether each entry of the participants' table is in use.
    pub entries: [bool; MAX_NUMBERS],

    // The kernel's.
    /// Process that holds each number's lock, plus one; 0 for nobody.
    pub locks: [u8; MAX_NUMBERS],

    pub threads: [Thread; MAX_THREADS],
    /// Deaths to come.
    pub crashes: u8,

    // Known to the checker only.
    /// First position never claimed.
    pub claimed: i8,
    /// First position never resolved.
    pub resolved: i8,
    /// Sets of messages.
    pub committed: u16,
    pub released: u16,
    pub lost: u16,
}

pub fn bit(message: u8) -> u16 {
    1 << message
}

impl World {
    /// Whether the number is in use and its owner dead, as far as anybody can
    /// tell.
    pub fn is_dead(&self, number: usize) -> bool {
        self.locks[number - 1] == 0 && self.entries[number - 1]
    }

    /// The state in 64 bytes; equal only for equal states.
    pub fn packed(&self) -> [u64; 3 + MAX_THREADS] {
        let mut packed = [0; 3 + MAX_THREADS];
        let mut slots = Packer::default();
        for (word, payload) in self.words.iter().zip(self.payload) {
            slots.word(*word);
            slots.put(payload, 4);
        }
        packed[0] = slots.bits;
        let mut rest = Packer::default();
        for position in [self.head, self.tail, self.claimed, self.resolved] {
            rest.put(position as u8, 6);
        }
        rest.put(self.epoch, 4);
        rest.put(self.crashes, 2);
        for (entry, lock) in self.entries.iter().zip(self.locks) {
            rest.put(u8::from(*entry), 1);
            rest.put(lock, 3);
        }
        packed[1] = rest.bits;
        packed[2] = [self.committed, self.released, self.lost]
            .iter()
            .fold(0, |bits, set| bits << 16 | u64::from(*set));
        for (to, thread) in packed[3..].iter_mut().zip(&self.threads) {
            *to = thread.packed();
        }
        packed
    }
}

impl Thread {
    fn packed(&self) -> u64 {
        let mut bits = Packer::default();
        bits.put(u8::from(self.alive), 1);
        bits.put(self.owner, 3);
        bits.put(self.pc as u8, 6);
        bits.put(self.sent, 3);
        bits.put(self.searched, 4);
        bits.put(self.epoch, 4);
        bits.put(self.at as u8, 6);
        bits.put(self.high as u8, 6);
        bits.put(self.step as u8, 3);
        bits.put(self.behind, 2);
        bits.word(self.word);
        bits.put(self.index, 2);
        bits.put(self.inside, 2);
        bits.put(u8::from(self.search), 1);
        bits.put(self.target, 3);
        bits.put(self.message, 4);
        bits.bits
    }
}

/// Fields one after the other in a word.
#[derive(Default)]
struct Packer {
    bits: u64,
    used: u32,
}

impl Packer {
    fn put(&mut self, value: u8, width: u32) {
        assert!(u32::from(value) >> width == 0, "a field is too narrow");
        self.bits |= u64::from(value) << self.used;
        self.used += width;
        debug_assert!(self.used <= u64::BITS);
    }

    fn word(&mut self, word: Word) {
        self.put(word.lap as u8, 6);
        self.put(word.state as u8, 3);
        self.put(word.owner, 3);
    }
}

/// One choice of the scheduler, or of fate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// The thread's next step.
    Step(u8),
    /// The thread, between operations, sets about recovering the number.
    Recover(u8, u8),
    /// The thread tries to become the number.
    Join(u8, u8),
    /// The process dies.
    Die(u8),
}
