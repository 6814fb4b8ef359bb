//! A segment with objects of every kind, and everything that can be done with
//! them and surely returns: what does not wait, and what waits for so long.

use crate::watch::{Random, Watch};
use slipring::*;
use std::fmt::Debug;
use std::hint::black_box;
use std::time::{Duration, Instant};

type Add = fn(Builder) -> Builder;

/// One of each, in an order that can be turned, so that each is the last once.
pub const KINDS: [Add; 10] = [
    |b| b.queue::<u64>("queue", 3),
    |b| b.bytes_queue("blobs", QueueOptions::new(2).delivery(Delivery::AtLeastOnce), 24),
    |b| b.pipe("pipe", 128),
    |b| b.pipe("way", PipeOptions::new(64).one_way()),
    |b| b.typed_pipe::<[u32; 3]>("typed", 3),
    |b| b.value_with::<u32>("small", 7),
    |b| b.value_with("large", [1u64, 2, 3, 4, 5]),
    |b| b.array::<u16>("words", 64),
    |b| b.array::<[u8; 3]>("odd", 128),
    |b| b.lock("lock"),
];

/// How many there are, with the array that comes first.
pub const OBJECTS: usize = KINDS.len() + 1;

/// The declaration of a segment in which the `last` kind comes last, and an
/// array of so many bytes first.
pub fn builder(name: &str, last: usize, bytes: usize) -> Builder {
    let mut kinds = KINDS;
    kinds.rotate_left((last + 1) % KINDS.len());
    let builder = Segment::builder(name).participants(4).unlink(Unlink::Persist);
    let builder = builder.array::<u8>("first", bytes);
    kinds.iter().fold(builder, |builder, add| add(builder))
}

/// An error that memory can cause.
pub fn legal(error: &Error) {
    match error {
        Error::Corrupt { what, .. } => assert!(!what.is_empty()),
        Error::Poisoned | Error::Busy { .. } | Error::Timeout | Error::OneWay { .. } => {}
        Error::BufferTooSmall { needed, len } => assert!(needed > len),
        Error::TooLarge { len, max } => assert!(len > max),
        Error::ParticipantsFull { max } => assert_eq!(*max, 4),
        other => panic!("{other:?}"),
    }
}

/// An error that a file can cause which is about to be opened.
pub fn legal_to_open(error: &Error) {
    match error {
        Error::NotASegment { .. } | Error::LayoutVersion { .. } | Error::Truncated { .. } => {}
        // An entry of the catalog may have become another.
        Error::TypeMismatch { .. } | Error::ObjectUnknown { .. } | Error::WaitMode { .. } => {}
        // As many as it says now.
        Error::ParticipantsFull { .. } => {}
        // It may say that its last user is about to remove it.
        Error::NotFound { .. } => {}
        other => legal(other),
    }
}

fn opened<H>(handle: Result<H>) -> Option<H> {
    handle.inspect_err(legal_to_open).ok()
}

fn sent<V>(outcome: Result<(), SendError<V>>) {
    if let Err(SendError::Failed(_, error)) = &outcome {
        legal(error);
    }
}

fn received<M: AsRef<[u8]>>(outcome: Result<M, RecvError>, max: usize) {
    match outcome {
        Ok(message) => {
            let bytes = message.as_ref();
            assert!(bytes.len() <= max);
            // Reads all of it.
            black_box(bytes.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)));
        }
        Err(RecvError::Failed(error)) => legal(&error),
        Err(_) => {}
    }
}

fn typed<T: Pod>(outcome: Result<T, RecvError>) {
    received(outcome.map(|message| bytemuck::bytes_of(&message).to_vec()), size_of::<T>());
}

fn fine<R: Debug>(outcome: Result<R>) {
    if let Err(error) = outcome {
        legal(&error);
    }
}

fn locked<G>(outcome: Result<G, LockError<G>>) -> Option<G> {
    match outcome {
        Ok(guard) | Err(LockError::Poisoned(guard)) => Some(guard),
        Err(LockError::Failed(error)) => {
            legal(&error);
            None
        }
        Err(_) => None,
    }
}

/// A queue and its ends.
type Ports<T> = Option<(Queue<T>, Sender<T>, Receiver<T>)>;

/// The ends of pipes, taken apart.
type Ends<T> = Vec<(Option<PipeSender<T>>, Option<PipeReceiver<T>>)>;

/// Handles of all objects, of those that could be opened.
pub struct Objects {
    segment: Segment,
    queue: Ports<u64>,
    blobs: Ports<[u8]>,
    pipes: Ends<[u8]>,
    typed: Ends<[u32; 3]>,
    small: Option<Value<u32>>,
    large: Option<Value<[u64; 5]>>,
    words: Option<Array<u16>>,
    odd: Option<Array<[u8; 3]>>,
    lock: Option<Lock>,
    /// How long operations wait that do.
    timeout: Duration,
    /// The longest operation so far.
    pub longest: (Duration, &'static str),
}

/// What one can do with [`Objects`], by number.
pub const OPERATIONS: u64 = 26;

impl Objects {
    /// Opens all, and both ends of each pipe if they are free.
    pub fn open(segment: &Segment, timeout: Duration) -> Objects {
        fn ports<T: ?Sized>(queue: Queue<T>) -> Ports<T> {
            let (tx, rx) = (opened(queue.sender())?, opened(queue.receiver())?);
            Some((queue, tx, rx))
        }
        let (mut pipes, mut typed) = (Vec::new(), Vec::new());
        for end in [End::A, End::B] {
            for name in ["pipe", "way"] {
                pipes.extend(opened(segment.pipe_end(name, end)).map(Pipe::split));
            }
            typed.extend(opened(segment.typed_pipe_end("typed", end)).map(Pipe::split));
        }
        Objects {
            queue: opened(segment.queue("queue")).and_then(ports),
            blobs: opened(segment.bytes_queue("blobs")).and_then(ports),
            pipes,
            typed,
            small: opened(segment.value("small")),
            large: opened(segment.value("large")),
            words: opened(segment.array("words")),
            odd: opened(segment.array("odd")),
            lock: opened(segment.lock("lock")),
            segment: segment.clone(),
            timeout,
            longest: (Duration::ZERO, ""),
        }
    }

    /// Everything once or twice.
    pub fn tour(&mut self, random: &mut Random) {
        for _ in 0..2 {
            for operation in 0..OPERATIONS {
                self.operate(operation, random);
            }
        }
    }

    /// Something.
    pub fn step(&mut self, random: &mut Random, watch: &Watch, context: &str) {
        let operation = random.below(OPERATIONS);
        watch.step(|| format!("{context}, operation {operation}"));
        let before = Instant::now();
        let what = self.operate(operation, random);
        let took = before.elapsed();
        if took > self.longest.0 {
            self.longest = (took, what);
        }
    }

    fn operate(&mut self, operation: u64, random: &mut Random) -> &'static str {
        match operation {
            0..6 => self.with_queue(operation, random),
            6..10 => self.with_blobs(operation - 6, random),
            10..15 => self.with_pipes(operation - 10, random),
            15..18 => self.with_typed(operation - 15, random),
            18..20 => self.with_values(operation - 18, random),
            20..23 => self.with_arrays(operation - 20, random),
            23 => self.with_lock(random),
            _ => self.with_segment(operation),
        }
    }

    fn with_queue(&mut self, operation: u64, random: &mut Random) -> &'static str {
        let Some((queue, tx, rx)) = &mut self.queue else { return "" };
        let x = random.next();
        match operation {
            0 => sent(tx.try_send(x)),
            1 => sent(tx.send_timeout(x, self.timeout)),
            2 => typed(rx.try_recv()),
            3 => typed(rx.recv_timeout(self.timeout)),
            4 => match (tx.try_claim(), rx.try_take()) {
                (Ok(mut slot), taken) => {
                    slot.write(x);
                    typed(taken.map(|message| *message));
                    if !x.is_multiple_of(3) { slot.commit() } else { drop(slot) }
                }
                (Err(error), taken) => {
                    sent(Err(error));
                    typed(taken.map(|message| *message));
                }
            },
            _ => {
                black_box((queue.is_empty(), queue.is_full(), queue.counters()));
                black_box((queue.senders(), queue.receivers(), tx.clone(), rx.clone()));
                assert!(queue.len() <= queue.capacity() && queue.capacity() == 3);
            }
        }
        "queue"
    }

    fn with_blobs(&mut self, operation: u64, random: &mut Random) -> &'static str {
        let Some((queue, tx, rx)) = &mut self.blobs else { return "" };
        let len = random.below(26) as usize;
        match operation {
            0 => sent(tx.try_send(&vec![7; len])),
            1 => received(rx.try_recv(), queue.max_len()),
            2 => match rx.take_timeout(self.timeout) {
                Ok(message) => received(Ok(&*message), 24),
                Err(error) => received::<Vec<u8>>(Err(error), 0),
            },
            _ => match tx.try_claim() {
                Ok(mut slot) => {
                    slot.fill(9);
                    fine(slot.commit(len));
                }
                Err(error) => sent(Err(error)),
            },
        }
        "queue of bytes"
    }

    fn with_pipes(&mut self, operation: u64, random: &mut Random) -> &'static str {
        if self.pipes.is_empty() {
            return "";
        }
        let end = random.below(self.pipes.len() as u64) as usize;
        let (tx, rx) = &mut self.pipes[end];
        let len = random.below(100) as usize;
        match (operation, tx, rx) {
            (0, Some(tx), _) => sent(tx.try_send(&vec![5; len])),
            // Longer than the ring at times: in pieces.
            (1, Some(tx), _) => sent(tx.send_timeout(&vec![6; 2 * len], self.timeout)),
            (2, Some(tx), _) => match tx.try_reserve(len) {
                Ok(mut grant) => {
                    grant.fill(3);
                    grant.commit(len / 2);
                }
                Err(error) => sent(Err(error)),
            },
            (3, _, Some(rx)) => received(rx.recv_timeout(self.timeout), usize::MAX),
            (_, _, Some(rx)) => match len % 4 {
                0 => match rx.try_peek() {
                    Ok(message) => received(Ok(&*message), usize::MAX),
                    Err(error) => received::<Vec<u8>>(Err(error), 0),
                },
                1 => fine(rx.poll(self.timeout)),
                2 => {
                    let mut buffer = [0; 40];
                    let got = rx.try_recv_into(&mut buffer);
                    received(got.map(|len| buffer[..len].to_vec()), 40);
                }
                _ => received(rx.try_recv(), usize::MAX),
            },
            _ => {}
        }
        "pipe"
    }

    fn with_typed(&mut self, operation: u64, random: &mut Random) -> &'static str {
        if self.typed.is_empty() {
            return "";
        }
        let end = random.below(self.typed.len() as u64) as usize;
        let (Some(tx), Some(rx)) = &mut self.typed[end] else { return "" };
        let message = [random.next() as u32; 3];
        match (operation, message[0] % 3) {
            (0, 0) => sent(tx.send_timeout(message, self.timeout)),
            (0, 1) => match tx.try_reserve() {
                Ok(mut slot) => {
                    slot.write(message);
                    slot.commit();
                }
                Err(error) => sent(Err(error)),
            },
            (0, _) => sent(tx.try_send(message)),
            (1, _) => typed(rx.try_recv()),
            (_, 0) => typed(rx.recv_timeout(self.timeout)),
            (_, 1) => fine(rx.poll(self.timeout)),
            (_, _) => typed(rx.try_peek().map(|message| *message)),
        }
        "typed pipe"
    }

    fn with_values(&mut self, operation: u64, random: &mut Random) -> &'static str {
        let x = random.next();
        match (operation, &self.small, &self.large) {
            (0, Some(small), _) => {
                small.store(x as u32);
                black_box((small.load(), small.swap(1), small.fetch_max(9), small.fetch_or(4)));
                black_box((small.compare_exchange(3, 4).is_ok(), small.update(|n| n / 2)));
            }
            (1, _, Some(large)) => {
                black_box(large.load());
                fine(large.store_timeout([x; 5], self.timeout));
                black_box(large.load());
            }
            _ => {}
        }
        "value"
    }

    fn with_arrays(&mut self, operation: u64, random: &mut Random) -> &'static str {
        let index = random.below(70) as usize;
        match (operation, &mut self.words, &mut self.odd) {
            (0, Some(words), _) if index < 64 => {
                words.set(index, 77).unwrap();
                black_box((words.get(index).unwrap(), words.fetch_add(index, 9).unwrap()));
            }
            (0, Some(words), _) => {
                assert!(matches!(words.get(index), Err(Error::OutOfRange { len: 64, .. })));
            }
            (1, Some(words), _) => {
                if let Some(mut all) = locked(words.lock_timeout(self.timeout)) {
                    assert_eq!(all.len(), 64);
                    all.reverse();
                    all.make_clean();
                }
            }
            (_, _, Some(odd)) => {
                if let Some(mut all) = locked(odd.try_lock()) {
                    assert_eq!(all.len(), 128);
                    all.fill([8; 3]);
                }
                black_box(odd.is_poisoned());
            }
            _ => {}
        }
        "array"
    }

    fn with_lock(&mut self, random: &mut Random) -> &'static str {
        let Some(lock) = &self.lock else { return "" };
        let x = random.next();
        let outcome =
            if x.is_multiple_of(2) { lock.try_lock() } else { lock.lock_timeout(self.timeout) };
        if let Some(mut guard) = locked(outcome)
            && !x.is_multiple_of(3)
        {
            guard.make_clean();
        }
        black_box((lock.is_locked(), lock.is_poisoned()));
        "lock"
    }

    fn with_segment(&mut self, operation: u64) -> &'static str {
        if operation == 24 {
            let list = self.segment.participants();
            assert!(list.iter().flatten().all(|p| p.label.len() <= 3 * 64));
            fine(list);
        } else {
            fine(self.segment.recover());
            black_box((self.segment.objects(), self.segment.len()));
        }
        "segment"
    }
}
