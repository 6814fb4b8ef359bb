//! A queue between producers and consumers, with a ledger: what steps 3 and 4
//! have in common.

use super::ledger::{Message, Row, Shares, Tally, audit};
use crate::Result;
use crate::child::Role;
use crate::processes::{self, PATIENCE, Process};
use crate::report::Bar;
use serde::{Deserialize, Serialize};
use slipring::{Array, Queue, QueueOptions, RecvError, Segment, Sender};
use std::time::{Duration, Instant};

const QUEUE: &str = "messages";
const LEDGER: &str = "ledger";

/// What parent and children say to each other.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub enum Word {
    /// Attached.
    Ready,
    /// Go on.
    Go,
    /// Half of the share is sent.
    Halfway,
    /// Claimed this message, or took it; waits to be killed.
    Holding(Message),
    /// No more messages.
    Done,
}

/// A producer.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub struct Produce {
    pub number: u64,
    pub halfway: Halfway,
}

/// What a producer does after half of its messages.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Halfway {
    /// Nothing special.
    GoOn,
    /// Waits for the parent's word.
    Pause,
    /// The same, and then holds the next claim until it is killed.
    Hold,
}

/// A consumer.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub struct Consume {
    pub number: usize,
    /// After this many messages it holds the next one until it is killed.
    pub hold_after: Option<u64>,
}

/// The parent's side: the segment, its processes, and a sender that keeps the
/// queue open until all of them are there.
pub struct Stream {
    pub segment: Segment,
    pub queue: Queue<Message>,
    pub shares: Shares,
    pub producers: Vec<Process>,
    pub consumers: Vec<Process>,
    gate: Option<Sender<Message>>,
    ledger: Array<u64>,
}

impl Stream {
    /// Starts everybody, and waits until they are attached.
    pub fn start(
        name: &str,
        queue: QueueOptions,
        shares: Shares,
        producers: impl IntoIterator<Item = Produce>,
        consumers: impl IntoIterator<Item = Consume>,
    ) -> Result<Stream> {
        let (producers, consumers): (Vec<_>, Vec<_>) =
            (producers.into_iter().collect(), consumers.into_iter().collect());
        let segment = Segment::builder(name)
            .queue::<Message>(QUEUE, queue)
            .array::<u64>(LEDGER, shares.words(consumers.len()))
            // The children, this process, and whoever looks in.
            .participants(producers.len() + consumers.len() + 8)
            .create()?;
        let queue = segment.queue::<Message>(QUEUE)?;
        let gate = Some(queue.sender()?);
        let ledger = segment.array::<u64>(LEDGER)?;
        let segment_name = || name.to_owned();
        let mut producers = producers
            .into_iter()
            .map(|part| Process::start(&Role::Produce { segment: segment_name(), shares, part }))
            .collect::<Result<Vec<_>>>()?;
        let mut consumers = consumers
            .into_iter()
            .map(|part| Process::start(&Role::Consume { segment: segment_name(), shares, part }))
            .collect::<Result<Vec<_>>>()?;
        for process in producers.iter_mut().chain(&mut consumers) {
            expect(process, &Word::Ready)?;
        }
        Ok(Stream { segment, queue, shares, producers, consumers, gate, ledger })
    }

    /// Waits until the consumers have received everything, and everybody has
    /// ended; `sent` says how much each producer sent.
    pub fn finish(mut self, sent: &[u64], bar: &Bar) -> Result<(Tally, Duration)> {
        let start = Instant::now();
        drop(self.gate.take());
        let mut moved = (Instant::now(), 0);
        for consumer in &mut self.consumers {
            while !consumer.has_news(Duration::from_millis(20))? {
                let received = self.queue.counters().received;
                bar.at(received);
                if received != moved.1 {
                    moved = (Instant::now(), received);
                } else if moved.0.elapsed() > PATIENCE {
                    return Err(format!("the queue stands still after {received} messages").into());
                }
            }
            expect(consumer, &Word::Done)?;
        }
        let elapsed = start.elapsed();
        self.producers.into_iter().chain(self.consumers).try_for_each(Process::join)?;
        Ok((audit(&self.ledger.snapshot()?, self.shares, sent), elapsed))
    }
}

/// Says the same to all.
pub fn tell(processes: &mut [Process], word: &Word) -> Result<()> {
    processes.iter_mut().try_for_each(|process| process.say(word))
}

/// Waits for this word.
pub fn expect(process: &mut Process, word: &Word) -> Result<()> {
    let heard: Word = process.hear()?;
    if heard == *word {
        return Ok(());
    }
    Err(format!("child {} said {heard:?} instead of {word:?}", process.pid()).into())
}

/// Waits for the victim to hold a message.
pub fn expect_holding(process: &mut Process) -> Result<Message> {
    match process.hear()? {
        Word::Holding(message) => Ok(message),
        heard => Err(format!("child {} said {heard:?} and holds nothing", process.pid()).into()),
    }
}

/// The producer's part.
pub fn produce(segment: &str, shares: Shares, part: Produce) -> Result<()> {
    let mut tx = Segment::open(segment)?.queue::<Message>(QUEUE)?.sender()?;
    processes::say(&Word::Ready)?;
    processes::hear::<Word>()?;
    let messages = shares.of(part.number);
    for sequence in 0..messages {
        let message = [part.number, sequence];
        if part.halfway != Halfway::GoOn && sequence == messages / 2 {
            processes::say(&Word::Halfway)?;
            processes::hear::<Word>()?;
            if part.halfway == Halfway::Hold {
                let mut slot = tx.claim()?;
                slot.write(message);
                // Everything but the commit. What follows is SIGKILL.
                processes::say(&Word::Holding(message))?;
                processes::hear::<Word>()?;
            }
        }
        tx.send(message)?;
    }
    Ok(())
}

/// The consumer's part.
pub fn consume(segment: &str, shares: Shares, part: Consume) -> Result<()> {
    let segment = Segment::open(segment)?;
    let mut rx = segment.queue::<Message>(QUEUE)?.receiver()?;
    let mut row = Row::new(segment.array::<u64>(LEDGER)?, part.number, shares);
    processes::say(&Word::Ready)?;
    processes::hear::<Word>()?;
    for received in 0.. {
        match rx.take() {
            Ok(message) if part.hold_after == Some(received) => {
                // Taken, but not in the books. What follows is SIGKILL.
                processes::say(&Word::Holding(*message))?;
                processes::hear::<Word>()?;
            }
            Ok(message) => row.enter(*message, message.redelivered())?,
            Err(RecvError::Closed) => break,
            Err(error) => return Err(error.into()),
        }
    }
    processes::say(&Word::Done)
}
