//! Who received what: a bit for each message in each consumer's row.
//!
//! ```text
//! row: ┌────────────┬───────────┬────────────────────────────────────────┐
//!      │ duplicated │ reordered │ bit m: message m was received          │
//!      └────────────┴───────────┴────────────────────────────────────────┘
//! ```
//!
//! The ledger is an array in shared memory, so the books of a consumer that is
//! killed are as good as any.

use crate::Result;
use crate::report::Grouped;
use serde::{Deserialize, Serialize};
use slipring::Array;
use std::fmt;
use std::ops::{AddAssign, Range};

/// Number of the producer, and of the message among that producer's.
pub type Message = [u64; 2];

/// How many messages each producer sends: as equal parts as can be.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Shares {
    pub messages: u64,
    pub producers: u64,
}

const DUPLICATED: usize = 0;
const REORDERED: usize = 1;
const BITS: usize = 2;

impl Shares {
    /// The producer's messages among all.
    fn range(self, producer: u64) -> Range<u64> {
        let start = |producer: u64| {
            let (each, more) = (self.messages / self.producers, self.messages % self.producers);
            producer * each + producer.min(more)
        };
        start(producer)..start(producer + 1)
    }

    /// How many messages this producer sends.
    pub fn of(self, producer: u64) -> u64 {
        let range = self.range(producer);
        range.end - range.start
    }

    /// Words of a row, padded so that two consumers share no cache line.
    fn row(self) -> usize {
        (BITS + self.messages.div_ceil(64) as usize).next_multiple_of(16)
    }

    /// Words of a ledger.
    pub fn words(self, consumers: usize) -> usize {
        self.row() * consumers
    }
}

/// The books of one consumer.
pub struct Row {
    ledger: Array<u64>,
    start: usize,
    shares: Shares,
    /// The sequence that is to come next at the earliest, by producer.
    next: Vec<u64>,
}

impl Row {
    /// An empty row.
    pub fn new(ledger: Array<u64>, consumer: usize, shares: Shares) -> Row {
        let start = shares.row() * consumer;
        Row { ledger, start, shares, next: vec![0; shares.producers as usize] }
    }

    /// Enters a message. One that comes again after its consumer's death, comes
    /// late.
    pub fn enter(&mut self, [producer, sequence]: Message, redelivered: bool) -> Result<()> {
        let known = producer < self.shares.producers && sequence < self.shares.of(producer);
        if !known {
            return Err(format!("nobody sends message {sequence} of producer {producer}").into());
        }
        let index = self.shares.range(producer).start + sequence;
        let (word, bit) = (self.start + BITS + index as usize / 64, 1 << (index % 64));
        let next = &mut self.next[producer as usize];
        if self.ledger.fetch_or(word, bit)? & bit != 0 {
            self.ledger.fetch_add(self.start + DUPLICATED, 1)?;
        } else if sequence >= *next {
            *next = sequence + 1;
        } else if !redelivered {
            self.ledger.fetch_add(self.start + REORDERED, 1)?;
        }
        Ok(())
    }
}

/// What went right, and what went wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    pub sent: u64,
    pub received: u64,
    pub lost: u64,
    pub duplicated: u64,
    pub reordered: u64,
}

impl Tally {
    /// Whether every message arrived once and in order.
    pub fn is_clean(&self) -> bool {
        (self.lost, self.duplicated, self.reordered) == (0, 0, 0) && self.received == self.sent
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Tally) {
        self.sent += other.sent;
        self.received += other.received;
        self.lost += other.lost;
        self.duplicated += other.duplicated;
        self.reordered += other.reordered;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Tally { sent, received, lost, duplicated, reordered } = *self;
        write!(
            f,
            "{} sent, {} received, {lost} lost, {duplicated} duplicated, {reordered} reordered",
            Grouped(sent),
            Grouped(received)
        )
    }
}

/// Adds up a ledger of which the `p`th producer sent the first `sent[p]` of its
/// messages.
pub fn audit(ledger: &[u64], shares: Shares, sent: &[u64]) -> Tally {
    let mut tally = Tally::default();
    let rows: Vec<&[u64]> = ledger.chunks_exact(shares.row()).collect();
    for row in &rows {
        tally.duplicated += row[DUPLICATED];
        tally.reordered += row[REORDERED];
    }
    for (producer, sent) in (0..).zip(sent) {
        tally.sent += sent;
        for (sequence, index) in (0..).zip(shares.range(producer)) {
            let (word, bit) = (BITS + index as usize / 64, 1 << (index % 64));
            let times = rows.iter().filter(|row| row[word] & bit != 0).count() as u64;
            let due = u64::from(sequence < *sent);
            tally.received += times.min(due);
            tally.lost += due.saturating_sub(times);
            // What was never sent counts as one too many, too.
            tally.duplicated += times.saturating_sub(due);
        }
    }
    tally
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_equal_and_cover_everything() {
        for (messages, producers) in [(10, 3), (2, 3), (9, 3), (1, 1), (0, 2)] {
            let shares = Shares { messages, producers };
            let mut end = 0;
            for producer in 0..producers {
                assert_eq!(shares.range(producer).start, end);
                end = shares.range(producer).end;
                assert!(shares.of(producer).abs_diff(messages / producers) <= 1);
            }
            assert_eq!(end, messages);
        }
    }

    #[test]
    fn an_audit_finds_what_is_wrong() {
        let shares = Shares { messages: 100, producers: 2 };
        let name = format!("slipring-ledger-test-{}", std::process::id());
        let ledger = Array::<u64>::create(&name, shares.words(2)).unwrap();
        let open = || Array::<u64>::open(&name).unwrap();
        let (mut first, mut second) = (Row::new(open(), 0, shares), Row::new(open(), 1, shares));
        for sequence in 0..50 {
            first.enter([0, sequence], false).unwrap();
            second.enter([1, sequence], false).unwrap();
        }
        let audit = |sent: [u64; 2]| audit(&ledger.snapshot().unwrap(), shares, &sent);
        let clean = Tally { sent: 100, received: 100, ..Tally::default() };
        assert_eq!(audit([50, 50]), clean);
        // Sent twice, to the same one and to another one.
        second.enter([1, 49], false).unwrap();
        second.enter([0, 7], false).unwrap();
        assert_eq!(audit([50, 50]), Tally { duplicated: 2, ..clean });
        // Out of order, unless it came again.
        second.enter([0, 6], true).unwrap();
        assert_eq!(audit([50, 50]), Tally { duplicated: 3, ..clean });
        second.enter([0, 5], false).unwrap();
        assert_eq!(audit([50, 50]), Tally { duplicated: 4, reordered: 1, ..clean });
        assert!(first.enter([2, 0], false).is_err());
        assert!(first.enter([0, 50], false).is_err());
    }

    #[test]
    fn an_audit_finds_what_is_missing() {
        let shares = Shares { messages: 100, producers: 2 };
        let mut ledger = vec![0; shares.words(1)];
        let all_lost = Tally { sent: 30, lost: 30, ..Tally::default() };
        assert_eq!(audit(&ledger, shares, &[10, 20]), all_lost);
        assert!(!all_lost.is_clean());
        // Message 50 is the second producer's first.
        ledger[BITS] = 1 << 50;
        let one = Tally { sent: 1, received: 1, ..Tally::default() };
        assert_eq!(audit(&ledger, shares, &[0, 1]), one);
        assert!(one.is_clean());
        assert_eq!(audit(&ledger, shares, &[0, 0]), Tally { duplicated: 1, ..Tally::default() });
    }
}
