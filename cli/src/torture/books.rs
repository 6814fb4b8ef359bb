//! The books: what every process is about to do, and what it has done, where
//! its death can't touch it.
//!
//! ```text
//! array: ┌──────┬───────┬────────┬──────────┬────────┬───────┬───────┐
//!        │ head │ seats │ chunks │ findings │ events │ waits │ cells │
//!        └──────┴───────┴────────┴──────────┴────────┴───────┴───────┘
//! ```
//!
//! - A *seat* is what one producer or consumer says of itself. It writes there
//!   before an operation what it is about to do, and afterwards that it is done.
//! - A *cell* is one message's: who received it, and when. A producer takes
//!   cells by the *chunk*, and each message names its own.
//! - An *event* is the delivery of a message that was delivered before, or that
//!   is flagged as such; it is written down before the cell is.
//! - A *wait* is a time for which somebody could not go on.
//! - A *finding* is what a consumer sees to be wrong by itself.
//!
//! *Why the dead can be believed.* Between the announcement, the operation and
//! the note afterwards stand compiler fences, so each process's stores are made
//! in the order of its program. A kill takes effect between two instructions and
//! discards no store that came before, so what is in the books is what was true
//! at the death, up to the one step that was under way.
//!
//! The books are kept in *rounds*. In each the processes work and are killed;
//! then the producers pause, the ring runs empty, and everything is audited and
//! cleared.

use super::options::Shape;
use crate::Result;
use rustix::process::{Signal, getpid, kill_process};
use rustix::time::{ClockId, clock_gettime};
use slipring::{Array, Segment};
use std::sync::atomic::{Ordering, compiler_fence};

/// The array's name in the segment.
pub const BOOKS: &str = "books";

/// Cells that a producer takes at a time.
pub const CHUNK: u64 = 512;
/// Chunks of a round.
pub const CHUNKS: u64 = 2048;
const FINDINGS: u64 = 64;
const EVENTS: u64 = 8192;
/// Waits that a seat can write down in a round.
const WAITS: u64 = 2048;

const HEAD: usize = 32;
const SEAT: usize = 32;
const FINDING: usize = 4;
const EVENT: usize = 4;
const WAIT: usize = 2;
const CELL: usize = 2;

/// Waits shorter than this many nanoseconds are not written down.
pub const WORTH_NOTING: u64 = 500_000;

/// Words of the head.
#[derive(Clone, Copy)]
#[repr(usize)]
pub enum Head {
    /// Number of the round. By the parent.
    Round,
    /// A [`Command`]. By the parent.
    Command,
    /// Each consumer copies it when it is outside an operation. By the parent.
    Ticket,
    /// Chunks taken.
    Chunks,
    /// Findings, events written.
    Findings,
    Events,
}

/// What all are told.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
pub enum Command {
    Work,
    /// Producers send no more.
    Pause,
    /// Everybody ends.
    Stop,
}

/// Words of a seat: by who sits there, at first by the parent.
#[derive(Clone, Copy)]
#[repr(usize)]
pub enum Field {
    Incarnation,
    /// A [`Phase`].
    Phase,
    /// Producer: messages sent if the operation succeeds, and those that are.
    Intent,
    Done,
    /// Producer: the same for slots that it claims and gives up.
    GivingUp,
    GivenUp,
    /// Consumer: the cell of the message that it has in its hands, plus 1.
    Held,
    /// Consumer: messages it may have released by itself, without having
    /// entered them, if it dies in this operation.
    Copying,
    /// Consumer: a time before this operation.
    Entered,
    /// When it was attached; 0 before.
    Ready,
    /// Consumer: the last ticket that it has seen. Producer: the last pause.
    Ticket,
    /// A phase at whose beginning it is to stop itself; 0 for none. By the
    /// parent.
    Halt,
    /// Waits written down in this round; goes on when the seat changes hands.
    Waits,
}

/// What somebody is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[repr(u64)]
pub enum Phase {
    /// Attaching.
    Starting,
    /// Between two operations.
    Outside,
    Sending,
    /// Has a claimed slot, and sends.
    Claimed,
    GivingUp,
    /// Waiting for a message, or copying it out.
    Taking,
    /// Has a message in place.
    Holding,
    /// Releases it.
    Releasing,
    /// Told to pause, and does.
    Paused,
}

impl Phase {
    fn of(word: u64) -> Phase {
        use Phase::*;
        [Starting, Outside, Sending, Claimed, GivingUp, Taking, Holding, Releasing, Paused]
            .into_iter()
            .find(|phase| *phase as u64 == word)
            .unwrap_or(Starting)
    }

    /// Whether the ring is being used.
    pub fn is_inside(self) -> bool {
        !matches!(self, Phase::Starting | Phase::Outside | Phase::Paused)
    }
}

/// Who received a message, and when: what a cell holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Receipt {
    /// The consumer's incarnation, or its last bits.
    pub by: u64,
    /// A time after it was taken.
    pub returned: u64,
    /// A time before it was taken.
    pub entered: u64,
    /// Flagged as delivered again.
    pub redelivered: bool,
    /// Received as a copy, which has no such flag.
    pub copied: bool,
}

const BY_BITS: u32 = 16;

impl Receipt {
    /// The one word that says whether it was received at all.
    fn word(&self) -> u64 {
        self.returned << (BY_BITS + 2)
            | who(self.by) << 2
            | u64::from(self.copied) << 1
            | u64::from(self.redelivered)
    }

    fn of(word: u64, entered: u64) -> Option<Receipt> {
        (word != 0).then(|| Receipt {
            by: who(word >> 2),
            returned: word >> (BY_BITS + 2),
            entered,
            redelivered: word & 1 != 0,
            copied: word & 2 != 0,
        })
    }
}

/// What is left of an incarnation's number in a cell: enough to tell those of
/// one round from each other.
pub fn who(incarnation: u64) -> u64 {
    incarnation & ((1 << BY_BITS) - 1)
}

/// A message delivered again, or flagged so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    pub place: u64,
    pub receipt: Receipt,
    /// Whoever had entered it before.
    pub before: Option<Receipt>,
}

/// What a consumer found wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    /// A message whose checksum is wrong.
    Torn,
    /// A message that is not of this round, or names a cell of others.
    Stray { incarnation: u64, sequence: u64 },
    /// A cell that changed while the message was in one consumer's hands.
    Shared { place: u64 },
}

/// Nanoseconds of the clock that all processes share, since the books were
/// begun.
#[derive(Clone, Copy)]
pub struct Clock(u64);

impl Clock {
    pub fn now(self) -> u64 {
        let now = clock_gettime(ClockId::Monotonic);
        let nanoseconds = now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64;
        nanoseconds.saturating_sub(self.0).max(1)
    }

    pub fn begin() -> Clock {
        // From 0, so that the time of its beginning is itself.
        let begin = Clock(0).now();
        Clock(begin)
    }

    pub fn begun(self) -> u64 {
        self.0
    }

    pub fn since(begin: u64) -> Clock {
        Clock(begin)
    }
}

/// A handle of the books.
pub struct Books {
    array: Array<u64>,
    seats: usize,
}

impl Books {
    /// Words of the array.
    pub fn words(shape: &Shape) -> usize {
        Self::cells(shape.seats()) + CELL * (CHUNK * CHUNKS) as usize
    }

    pub fn open(segment: &Segment, shape: &Shape) -> Result<Books> {
        Ok(Books { array: segment.array::<u64>(BOOKS)?, seats: shape.seats() })
    }

    fn chunks(seats: usize) -> usize {
        HEAD + seats * SEAT
    }

    fn findings(seats: usize) -> usize {
        Self::chunks(seats) + CHUNKS as usize
    }

    fn events(seats: usize) -> usize {
        Self::findings(seats) + FINDING * FINDINGS as usize
    }

    fn waits(seats: usize) -> usize {
        Self::events(seats) + EVENT * EVENTS as usize
    }

    fn cells(seats: usize) -> usize {
        Self::waits(seats) + seats * WAIT * WAITS as usize
    }

    pub fn head(&self, head: Head) -> Result<u64> {
        Ok(self.array.get(head as usize)?)
    }

    pub fn set_head(&self, head: Head, word: u64) -> Result<()> {
        Ok(self.array.set(head as usize, word)?)
    }

    pub fn command(&self) -> Result<Command> {
        Ok(match self.head(Head::Command)? {
            0 => Command::Work,
            1 => Command::Pause,
            _ => Command::Stop,
        })
    }

    pub fn seat(&self, seat: usize) -> Seat<'_> {
        Seat { books: self, seat }
    }

    /// Takes a chunk for a producer's messages from `sequence` on; `None` when
    /// all of the round's are taken.
    pub fn take_chunk(&self, incarnation: u64, sequence: u64) -> Result<Option<u64>> {
        let chunk = self.array.fetch_add(Head::Chunks as usize, 1)?;
        if chunk >= CHUNKS {
            return Ok(None);
        }
        self.array.set(Self::chunks(self.seats) + chunk as usize, incarnation << 32 | sequence)?;
        Ok(Some(chunk))
    }

    /// Chunks taken in this round.
    pub fn chunks_taken(&self) -> Result<u64> {
        Ok(self.head(Head::Chunks)?.min(CHUNKS))
    }

    /// Whose the chunk is, and the sequence of its first message. `None` if
    /// whoever took it died before it said so.
    pub fn chunk(&self, chunk: u64) -> Result<Option<(u64, u64)>> {
        if chunk >= CHUNKS {
            return Ok(None);
        }
        let word = self.array.get(Self::chunks(self.seats) + chunk as usize)?;
        Ok((word != 0).then_some((word >> 32, word & u64::from(u32::MAX))))
    }

    fn cell_at(&self, place: u64) -> usize {
        Self::cells(self.seats) + CELL * place as usize
    }

    /// Who received the message.
    pub fn cell(&self, place: u64) -> Result<Option<Receipt>> {
        let at = self.cell_at(place);
        Ok(Receipt::of(self.array.get(at)?, self.array.get(at + 1)?))
    }

    /// Enters a message; writes an event first if it was entered before, or is
    /// delivered again.
    pub fn enter(&self, place: u64, receipt: Receipt) -> Result<()> {
        let at = self.cell_at(place);
        let before = self.array.get(at)?;
        if before != 0 || receipt.redelivered {
            let event = self.array.fetch_add(Head::Events as usize, 1)?;
            if event < EVENTS {
                let to = Self::events(self.seats) + EVENT * event as usize;
                self.array.set(to + 1, before)?;
                self.array.set(to + 2, receipt.word())?;
                self.array.set(to + 3, receipt.entered)?;
                self.array.set(to, place + 1)?;
            }
        }
        self.array.set(at + 1, receipt.entered)?;
        if self.array.swap(at, receipt.word())? != before {
            self.find(Finding::Shared { place })?;
        }
        Ok(())
    }

    /// The events of this round, and whether there were too many to write down.
    pub fn events_written(&self) -> Result<(Vec<Event>, bool)> {
        let count = self.head(Head::Events)?;
        let mut events = Vec::new();
        for event in 0..count.min(EVENTS) {
            let at = Self::events(self.seats) + EVENT * event as usize;
            let place = self.array.get(at)?;
            let word = self.array.get(at + 2)?;
            // Whoever began it may have died.
            if let Some(place) = place.checked_sub(1)
                && let Some(receipt) = Receipt::of(word, self.array.get(at + 3)?)
            {
                let before = Receipt::of(self.array.get(at + 1)?, 0);
                events.push(Event { place, receipt, before });
            }
        }
        Ok((events, count > EVENTS))
    }

    /// Writes a finding down.
    pub fn find(&self, finding: Finding) -> Result<()> {
        let nth = self.array.fetch_add(Head::Findings as usize, 1)?;
        if nth < FINDINGS {
            let at = Self::findings(self.seats) + FINDING * nth as usize;
            let [kind, one, two] = match finding {
                Finding::Torn => [1, 0, 0],
                Finding::Stray { incarnation, sequence } => [2, incarnation, sequence],
                Finding::Shared { place } => [3, place, 0],
            };
            self.array.set(at + 1, one)?;
            self.array.set(at + 2, two)?;
            self.array.set(at, kind)?;
        }
        Ok(())
    }

    /// The findings, all of which are violations.
    pub fn findings_written(&self) -> Result<Vec<Finding>> {
        let mut findings = Vec::new();
        for nth in 0..self.head(Head::Findings)?.min(FINDINGS) {
            let at = Self::findings(self.seats) + FINDING * nth as usize;
            let (one, two) = (self.array.get(at + 1)?, self.array.get(at + 2)?);
            findings.push(match self.array.get(at)? {
                2 => Finding::Stray { incarnation: one, sequence: two },
                3 => Finding::Shared { place: one },
                _ => Finding::Torn,
            });
        }
        Ok(findings)
    }

    /// Clears a round's books and begins the next. Only when everybody pauses.
    pub fn next_round(&self) -> Result<()> {
        let seats = self.seats;
        let chunks = self.chunks_taken()?;
        let events = self.head(Head::Events)?.min(EVENTS);
        let cells = Self::cells(seats)..Self::cells(seats) + CELL * (chunks * CHUNK) as usize;
        let tables = Self::chunks(seats)..Self::chunks(seats) + chunks as usize;
        let list = Self::events(seats)..Self::events(seats) + EVENT * events as usize;
        for at in cells.chain(tables).chain(list) {
            self.array.set(at, 0)?;
        }
        for seat in 0..seats {
            self.seat(seat).set(Field::Waits, 0)?;
        }
        for head in [Head::Chunks, Head::Events, Head::Findings] {
            self.set_head(head, 0)?;
        }
        self.set_head(Head::Round, self.head(Head::Round)? + 1)?;
        self.set_head(Head::Command, Command::Work as u64)
    }
}

/// One seat of the books.
#[derive(Clone, Copy)]
pub struct Seat<'a> {
    books: &'a Books,
    seat: usize,
}

impl Seat<'_> {
    pub fn get(&self, field: Field) -> Result<u64> {
        Ok(self.books.array.get(HEAD + self.seat * SEAT + field as usize)?)
    }

    pub fn set(&self, field: Field, word: u64) -> Result<()> {
        Ok(self.books.array.set(HEAD + self.seat * SEAT + field as usize, word)?)
    }

    pub fn phase(&self) -> Result<Phase> {
        Ok(Phase::of(self.get(Field::Phase)?))
    }

    /// Says what it is doing from now on: after everything that it did, before
    /// everything that it will do.
    pub fn announce(&self, phase: Phase) -> Result<()> {
        compiler_fence(Ordering::SeqCst);
        self.set(Field::Phase, phase as u64)?;
        compiler_fence(Ordering::SeqCst);
        // Every phase to stop at is another than 0.
        if self.get(Field::Halt)? == phase as u64 && phase.is_inside() {
            kill_process(getpid(), Signal::STOP)?;
        }
        Ok(())
    }

    /// Prepares the seat for a process. By the parent.
    pub fn assign(&self, incarnation: u64) -> Result<()> {
        let waits = self.get(Field::Waits)?;
        for at in 0..SEAT {
            self.books.array.set(HEAD + self.seat * SEAT + at, 0)?;
        }
        self.set(Field::Waits, waits)?;
        self.set(Field::Incarnation, incarnation)
    }

    /// Writes down that it could not go on from one time to the other, if that
    /// was long.
    pub fn waited(&self, from: u64, to: u64) -> Result<()> {
        if to.saturating_sub(from) < WORTH_NOTING {
            return Ok(());
        }
        let nth = self.get(Field::Waits)?;
        if nth < WAITS {
            let at =
                Books::waits(self.books.seats) + WAIT * (self.seat * WAITS as usize + nth as usize);
            self.books.array.set(at, from)?;
            self.books.array.set(at + 1, to)?;
        }
        self.set(Field::Waits, nth + 1)
    }

    /// The waits of this round, and how many more there were.
    pub fn waits(&self) -> Result<(Vec<(u64, u64)>, u64)> {
        let count = self.get(Field::Waits)?;
        let start = Books::waits(self.books.seats) + WAIT * self.seat * WAITS as usize;
        let wait = |nth: u64| {
            let at = start + WAIT * nth as usize;
            Ok((self.books.array.get(at)?, self.books.array.get(at + 1)?))
        };
        let waits = (0..count.min(WAITS)).map(wait).collect::<Result<Vec<_>>>()?;
        Ok((waits, count.saturating_sub(WAITS)))
    }
}
