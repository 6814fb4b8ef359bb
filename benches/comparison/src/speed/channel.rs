//! What a system must do to be measured, and what a message is.
//!
//! A message is `W` words of 64 bits. Each of them is its *head*, which says who
//! sent it and which one it is. A sender makes each word and a receiver checks each
//! word, so that a system that works in place gains what it saves: a copy.

use crate::Result;
use std::ops::Range;

/// The head of the last message of a stream.
pub const STOP: u64 = u64::MAX;

/// Bits of a head that count; the rest name the producer.
pub const COUNT_BITS: u32 = 56;

/// The head of a producer's message.
pub fn head(producer: usize, count: u64) -> u64 {
    (producer as u64) << COUNT_BITS | count
}

/// Writes a message to memory that need not be initialised.
///
/// # Safety
///
/// The memory must be writable and aligned, and nobody else may use it.
#[inline(always)]
pub unsafe fn fill_raw<const W: usize>(to: *mut [u64; W], head: u64) {
    for i in 0..W {
        // SAFETY: word `i` of `W`; the caller vouches for the memory.
        unsafe { to.cast::<u64>().add(i).write(head) };
    }
}

/// Writes a message.
#[inline(always)]
pub fn fill<const W: usize>(to: &mut [u64; W], head: u64) {
    // SAFETY: a unique reference.
    unsafe { fill_raw(to, head) };
}

/// A message on the stack, for systems that take messages by value.
#[inline(always)]
pub fn message<const W: usize>(head: u64) -> [u64; W] {
    [head; W]
}

/// Makes a batch of messages.
#[inline(always)]
pub fn fill_batch<const W: usize>(batch: &mut Vec<[u64; W]>, heads: Range<u64>) {
    batch.resize((heads.end - heads.start) as usize, [0; W]);
    for (message, head) in batch.iter_mut().zip(heads) {
        fill(message, head);
    }
}

/// Checks a message that arrived; its head.
///
/// By the sum of its words, since compilers make a branch for each word of anything that
/// compares them one by one, which costs as much as a short message. Words of two messages
/// never add up: their heads would have to differ by 2⁶⁴ / `W` at least, which counts never
/// do, nor with 64 bytes producers. (With more there is but one. Words of three could.)
#[inline(always)]
pub fn check<const W: usize>(message: &[u64; W]) -> u64 {
    let head = message[0];
    if message.iter().fold(0, |sum: u64, word| sum.wrapping_add(*word))
        != head.wrapping_mul(W as u64)
    {
        torn(head);
    }
    head
}

#[cold]
#[inline(never)]
fn torn(head: u64) -> ! {
    panic!("a message arrived torn: head {head:#x}")
}

/// Checks a message that arrived as bytes.
#[inline(always)]
pub fn check_bytes<const W: usize>(bytes: &[u8]) -> u64 {
    match bytemuck::try_from_bytes::<[u64; W]>(bytes) {
        Ok(message) => check(message),
        Err(_) => check(&bytemuck::pod_read_unaligned::<[u64; W]>(bytes)),
    }
}

/// Where the two sides of a system run.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Threads of one process: all that the system can do.
    Threads,
    /// Processes of their own.
    Processes,
}

/// What becomes of a message when there are several receivers, or a slow one.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// One receiver gets it; senders wait for room.
    Once,
    /// Every receiver gets it; senders wait for room.
    Broadcast,
    /// One receiver gets it, unless it was overwritten before.
    Lossy,
}

/// What a measurement asks of a system.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub producers: usize,
    pub consumers: usize,
    /// Use the calls that sleep, not those that return at once.
    pub blocking: bool,
    /// Messages that the system can hold.
    pub capacity: usize,
    /// How a side spins that finds nothing to do.
    pub idle: Idle,
}

/// Spins for something that others do. Gives the processor away only after a
/// time that is long, or short when there are more sides than processors.
#[derive(Clone, Copy, Debug)]
pub struct Idle {
    patience: u32,
}

impl Idle {
    pub fn new(crowded: bool) -> Idle {
        Idle { patience: if crowded { 64 } else { 1 << 15 } }
    }

    #[inline(always)]
    pub fn until<R>(self, mut look: impl FnMut() -> Option<R>) -> R {
        let mut left = self.patience;
        loop {
            if let Some(found) = look() {
                return found;
            }
            left -= 1;
            if left == 0 {
                std::thread::yield_now();
                left = self.patience;
            } else {
                std::hint::spin_loop();
            }
        }
    }
}

/// The sending side.
pub trait Tx<const W: usize> {
    /// Sends the message with this head, unless there is no room.
    fn try_send(&mut self, head: u64) -> bool;

    /// Sends by the system's own call that waits.
    fn send(&mut self, _head: u64) {
        unreachable!("the system has no call that sleeps")
    }

    /// Sends all of these, by the system's own means for batches.
    fn send_batch(&mut self, _heads: Range<u64>) {
        unreachable!("the system has no batches")
    }
}

/// The receiving side.
pub trait Rx<const W: usize> {
    /// Receives and checks a message, if there is one; its head.
    fn try_recv(&mut self) -> Option<u64>;

    /// Receives by the system's own call that waits.
    fn recv(&mut self) -> u64 {
        unreachable!("the system has no call that sleeps")
    }

    /// Called once, when all ends of the channel exist.
    fn settle(&mut self) {}

    /// Receives what the system's own means for batches bring, up to [`BATCH`]
    /// messages; may return without any.
    fn recv_batch(&mut self, _each: &mut impl FnMut(u64)) {
        unreachable!("the system has no batches")
    }
}

/// Messages in a batch.
pub const BATCH: usize = 64;

/// One channel, made before its users start.
pub trait Channel<const W: usize>: Sized + Sync {
    type Tx: Tx<W>;
    type Rx: Rx<W>;

    /// Makes it. The name is nobody else's, and good for a file.
    fn make(name: &str, shape: Shape) -> Result<Self>;
    /// In a producer: its end.
    fn tx(&self) -> Result<Self::Tx>;
    /// In a consumer: its end.
    fn rx(&self) -> Result<Self::Rx>;
}

/// What can be measured.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Round trips, both sides polling
    Trip,
    /// Round trips by the system's own calls that wait
    TripBlocking,
    /// Round trips by the calls that wait, after a pause that lets all sleep
    Wake,
    /// One producer, one consumer, one message a call
    Stream,
    /// One producer, one consumer, many messages a call
    Batch,
    /// Several producers or consumers
    Many,
    /// Several producers or consumers, many messages a call
    ManyBatch,
}

impl Kind {
    pub const ALL: &[Kind] = &[
        Kind::Trip,
        Kind::TripBlocking,
        Kind::Wake,
        Kind::Stream,
        Kind::Batch,
        Kind::Many,
        Kind::ManyBatch,
    ];
}

/// Whose it is, and so which version counts.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    Crate(&'static str),
    Kernel,
    /// Part of this program.
    Here,
}

/// What a system is.
pub struct About {
    pub name: &'static str,
    pub origin: Origin,
    pub place: Place,
    pub delivery: Delivery,
    pub kinds: &'static [Kind],
    /// Streams use the calls that wait, as everybody does who uses the system.
    pub streams_block: bool,
    /// Most producers and consumers.
    pub most: (usize, usize),
    /// How it is configured and used.
    pub note: &'static str,
}

/// A system: a channel for each size of message.
pub trait System {
    const ABOUT: About;
    type Channel<const W: usize>: Channel<W>;

    /// Messages that a channel for round trips holds, of so many words. One is under
    /// way at a time; with few slots their cache lines stay at hand, which makes most
    /// systems faster. The others say so.
    fn trip_slots(_words: usize) -> usize {
        8
    }
}

/// What is given away once.
pub struct Once<T>(std::sync::Mutex<Vec<T>>);

impl<T> Once<T> {
    pub fn one(value: T) -> Once<T> {
        Once(vec![value].into())
    }

    pub fn many(values: impl IntoIterator<Item = T>) -> Once<T> {
        Once(values.into_iter().collect::<Vec<T>>().into())
    }

    pub fn take(&self) -> Result<T> {
        let mut all = self.0.lock().map_err(|_| "poisoned")?;
        Ok(all.pop().ok_or("an end was asked for too often")?)
    }
}

/// An error that is not `Display`, or not `'static`, as text.
pub fn said<T>(error: impl std::fmt::Debug) -> Result<T> {
    Err(format!("{error:?}").into())
}
