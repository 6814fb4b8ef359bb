//! A queue between several processes: each message from any sender to one
//! receiver.

use super::Bench;
use super::floors::{Beside, Floor};
use crate::child::Role;
use crate::measure::ends::slots;
use crate::measure::message::{Message, with_message};
use crate::measure::times::now_ns;
use crate::measure::transport::Manner;
use crate::processes::{self, Process};
use crate::report::{Grouped, per_second};
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use slipring::{Queue, RecvError, Segment};
use std::fmt;
use std::hint::black_box;
use std::time::{Duration, Instant};

pub const TITLE: &str = "Queue between several processes, one message per call";

const QUEUE: &str = "messages";

/// How many processes send, and how many receive.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Crew {
    pub producers: usize,
    pub consumers: usize,
}

impl Crew {
    /// All of them.
    pub fn size(self) -> usize {
        self.producers + self.consumers
    }
}

/// A process's part.
#[derive(Serialize, Deserialize)]
pub struct Part {
    segment: String,
    bytes: usize,
    crew: Crew,
    cpus: Vec<usize>,
    task: Task,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
enum Task {
    /// The number of the producer, and for how long it sends.
    Produce(usize, Duration),
    Consume,
}

/// What a process did, and when by the clock that all share.
#[derive(Serialize, Deserialize)]
struct Done {
    from_ns: u64,
    to_ns: u64,
    /// By producer.
    counts: Vec<Count>,
}

/// Messages of one producer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Count {
    messages: u64,
    /// Of their places in the sequence.
    sum: u64,
}

impl Count {
    /// Of the first messages of a sequence.
    fn of_first(messages: u64) -> Count {
        (0..messages).fold(Count::default(), Count::with)
    }

    fn with(self, place: u64) -> Count {
        Count { messages: self.messages + 1, sum: self.sum.wrapping_add(place) }
    }
}

/// A figure.
#[derive(Serialize)]
pub struct Row {
    #[serde(flatten)]
    crew: Crew,
    bytes: usize,
    processes: usize,
    messages: u64,
    messages_per_second: u64,
    ns_per_message: f64,
    /// How many each consumer got.
    received: Vec<u64>,
    /// The CPUs of those that send, and of those that receive; none if the scheduler chose.
    cpus: [Vec<usize>; 2],
    #[serde(flatten)]
    pub beside: Beside,
}

/// Measures one.
pub fn measure(bench: &mut Bench, crew: Crew, bytes: usize) -> Result<Row> {
    let (segment, length) = (bench.segment(), bench.length);
    let sides = bench.sides.clone();
    let part = |task| {
        let side = usize::from(matches!(task, Task::Consume));
        Part { segment: segment.clone(), bytes, crew, cpus: sides[side].clone(), task }
    };
    let job = || with_message!(bytes, M => parent::<M>(part, length));
    let ((produced, consumed), around) = bench.floors.around(Floor::Line, job)?;

    let (mut sent, mut received) = (Vec::new(), vec![Count::default(); crew.producers]);
    for (producer, done) in produced.iter().enumerate() {
        sent.push(Count::of_first(done.counts[producer].messages));
    }
    for done in &consumed {
        for (total, count) in received.iter_mut().zip(&done.counts) {
            total.messages += count.messages;
            total.sum = total.sum.wrapping_add(count.sum);
        }
    }
    if sent != received {
        return Err(format!("{crew}: sent {sent:?}, received {received:?}").into());
    }
    let messages = received.iter().map(|count| count.messages).sum();
    let from = produced.iter().map(|done| done.from_ns).min().unwrap_or(0);
    let to = consumed.iter().map(|done| done.to_ns).max().unwrap_or(0);
    let elapsed = Duration::from_nanos(to.saturating_sub(from));
    let ns = elapsed.as_nanos() as f64 / messages as f64;
    let each = |done: &Done| done.counts.iter().map(|count| count.messages).sum();
    Ok(Row {
        crew,
        bytes,
        processes: crew.size(),
        messages,
        messages_per_second: per_second(messages, elapsed),
        ns_per_message: (ns * 1e3).round() / 1e3,
        received: consumed.iter().map(each).collect(),
        cpus: bench.sides.clone(),
        beside: around.one_way(ns),
    })
}

/// Starts everybody; what the producers and the consumers did.
fn parent<M: Message>(
    part: impl Fn(Task) -> Part,
    length: Duration,
) -> Result<(Vec<Done>, Vec<Done>)> {
    let Part { segment, bytes, crew, .. } = part(Task::Consume);
    let Crew { producers, consumers } = crew;
    let builder = Segment::builder(&segment).queue::<M>(QUEUE, slots(bytes, Manner::Blocking));
    // The children, and this process.
    let _segment = builder.participants(crew.size() + 1).create()?;
    let start = |task| Process::start(&Role::Bench(super::Part::Mpmc(part(task))));
    let consumers: Result<Vec<_>> = (0..consumers).map(|_| start(Task::Consume)).collect();
    let producers: Result<Vec<_>> =
        (0..producers).map(|number| start(Task::Produce(number, length))).collect();
    let (mut consumers, mut producers) = (consumers?, producers?);
    for process in consumers.iter_mut().chain(&mut producers) {
        process.hear::<()>()?;
    }
    for process in consumers.iter_mut().chain(&mut producers) {
        process.say(&())?;
    }
    let finish = |mut process: Process| {
        process.has_news(length)?;
        let done = process.hear()?;
        process.join()?;
        Ok::<Done, Error>(done)
    };
    let produced: Result<_> = producers.into_iter().map(finish).collect();
    let consumed: Result<_> = consumers.into_iter().map(finish).collect();
    Ok((produced?, consumed?))
}

/// Sends or receives.
pub fn child(part: Part) -> Result<()> {
    if !part.cpus.is_empty() {
        processes::pin(&part.cpus)?;
    }
    with_message!(part.bytes, M => child_of::<M>(part))
}

fn child_of<M: Message>(part: Part) -> Result<()> {
    let queue = Segment::open(&part.segment)?.queue::<M>(QUEUE)?;
    let done = match part.task {
        Task::Produce(number, length) => produce(&queue, part.crew, number, length)?,
        Task::Consume => consume(&queue, part.crew)?,
    };
    processes::say(&done)
}

/// The bits of a message's number that hold its place; the others hold its
/// producer.
const PLACE: u32 = 48;

fn produce<M: Message>(
    queue: &Queue<M>,
    crew: Crew,
    number: usize,
    length: Duration,
) -> Result<Done> {
    let mut tx = queue.sender()?;
    processes::say(&())?;
    processes::hear::<()>()?;
    let (start, from_ns) = (Instant::now(), now_ns());
    let mut message = M::zeroed();
    let mut sent = 0;
    while start.elapsed() < length {
        for _ in 0..64 {
            message.stamp((number as u64) << PLACE | sent);
            tx.send(message)?;
            sent += 1;
        }
    }
    let mut counts = vec![Count::default(); crew.producers];
    counts[number].messages = sent;
    Ok(Done { from_ns, to_ns: now_ns(), counts })
}

fn consume<M: Message>(queue: &Queue<M>, crew: Crew) -> Result<Done> {
    let mut rx = queue.receiver()?;
    processes::say(&())?;
    processes::hear::<()>()?;
    let from_ns = now_ns();
    let mut counts = vec![Count::default(); crew.producers];
    // The least place that may come next, by producer.
    let mut next = vec![0; crew.producers];
    loop {
        let number = match rx.recv() {
            Ok(message) => black_box(message).number()?,
            Err(RecvError::Closed) => break,
            Err(error) => return Err(error.into()),
        };
        let (producer, place) = ((number >> PLACE) as usize, number & ((1 << PLACE) - 1));
        match (counts.get_mut(producer), next.get_mut(producer)) {
            (Some(count), Some(next)) if place >= *next => {
                *next = place + 1;
                *count = count.with(place);
            }
            _ => return Err(format!("message {place} of producer {producer} is late").into()),
        }
    }
    Ok(Done { from_ns, to_ns: now_ns(), counts })
}

impl fmt::Display for Crew {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Crew { producers, consumers } = self;
        f.pad(&format!("{producers} to {consumers} processes"))
    }
}

/// Of the columns.
pub fn head() -> String {
    let (crew, bytes, rate, ns, floor) =
        ("", "bytes", "messages/s", "ns/message", "a line one way");
    format!("   {crew:<36}{bytes:>6}{rate:>14}{ns:>13}{:>10}  {floor}", "")
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Row { crew, bytes, ns_per_message: ns, beside, .. } = self;
        let rate = Grouped(self.messages_per_second);
        write!(f, "   {crew:<36}{bytes:>6}{rate:>14}{ns:>13.1}{:>10}  {beside}", "")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_add_up() {
        assert_eq!(Count::of_first(0), Count::default());
        assert_eq!(Count::of_first(5), Count { messages: 5, sum: 10 });
        assert_ne!(Count::of_first(3), Count::default().with(0).with(1).with(1));
    }
}
