//! Both ends of whatever is tortured, with every way in and out.

use super::books::Phase;
use super::letter::{Form, Letter};
use super::options::{Delivery, Kind, Shape};
use crate::Result;
use slipring::{
    Builder, End, Error, PipeOptions, PipeReceiver, PipeSender, QueueCounters, QueueOptions,
    Receiver, RecvError, Segment, SendError, Sender,
};
use std::time::{Duration, Instant};

/// The ring's name in the segment.
const RING: &str = "ring";

/// How long the waits with a deadline wait: longer than it takes to recover
/// somebody, and not long, for consumers have to look at their orders.
const TIMEOUT: Duration = Duration::from_millis(25);

/// Longest batch.
pub const BATCH: u64 = 8;

/// Declares the ring.
pub fn declare(builder: Builder, shape: &Shape) -> Builder {
    let delivery = match shape.delivery {
        Delivery::AtMostOnce => slipring::Delivery::AtMostOnce,
        Delivery::AtLeastOnce => slipring::Delivery::AtLeastOnce,
    };
    let queue = QueueOptions::new(shape.slots).delivery(delivery);
    match (shape.kind, shape.bytes) {
        (Kind::Queue, None) => builder.queue::<Form>(RING, queue),
        (Kind::Queue, Some(longest)) => builder.bytes_queue(RING, queue, longest),
        (Kind::Pipe, None) => {
            builder.typed_pipe::<Form>(RING, PipeOptions::new(shape.slots).one_way())
        }
        (Kind::Pipe, Some(longest)) => {
            builder.pipe(RING, PipeOptions::new(shape.pipe_bytes(longest)).one_way())
        }
    }
}

/// The queue's counters, and how many messages are in it.
pub fn counters(segment: &Segment, shape: &Shape) -> Result<Option<(QueueCounters, usize)>> {
    match (shape.kind, shape.bytes) {
        (Kind::Pipe, _) => Ok(None),
        (Kind::Queue, None) => {
            let queue = segment.queue::<Form>(RING)?;
            Ok(Some((queue.counters(), queue.len())))
        }
        (Kind::Queue, Some(_)) => {
            let queue = segment.bytes_queue(RING)?;
            Ok(Some((queue.counters(), queue.len())))
        }
    }
}

/// Takes an end of the pipe over. While somebody else recovers the last holder,
/// the end is busy.
fn take_over<T>(mut open: impl FnMut() -> Result<T, Error>) -> Result<T> {
    let start = Instant::now();
    loop {
        match open() {
            Err(Error::Busy { .. }) if start.elapsed() < crate::processes::PATIENCE => {
                std::thread::sleep(Duration::from_micros(200));
            }
            done => return Ok(done?),
        }
    }
}

/// What came of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// So many messages went through.
    Done(u64),
    /// There was no room, or no message.
    NotNow,
    /// There is nobody at the other end.
    NobodyThere,
}

/// How to send one message.
#[derive(Clone, Copy, Debug)]
pub enum SendBy {
    Send,
    Try,
    Timeout,
    InPlace,
    /// With a bit of it changed.
    Torn,
}

/// How to receive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TakeBy {
    /// In place.
    Take,
    TryTake,
    /// Copied.
    Recv,
    TryRecv,
    /// Several, copied.
    Many(u64),
}

impl TakeBy {
    /// Messages that may have been released before the caller sees them.
    pub fn copies(self) -> u64 {
        match self {
            TakeBy::Take | TakeBy::TryTake => 0,
            TakeBy::Recv | TakeBy::TryRecv => 1,
            TakeBy::Many(max) => max,
        }
    }
}

/// What a received message says, if it is whole; whether it is delivered again,
/// and whether it is still in place.
pub struct Delivered {
    pub letter: Option<Letter>,
    pub redelivered: bool,
    pub in_place: bool,
}

/// The sending end.
pub enum Outlet {
    Queue(Sender<Form>),
    Bytes(Sender<[u8]>, Text),
    Pipe(PipeSender<Form>),
    BytesPipe(PipeSender<[u8]>, Text),
}

/// Room for messages of bytes.
pub struct Text {
    longest: usize,
    one: Vec<u8>,
}

impl Text {
    fn of(&mut self, letter: Letter, how: SendBy) -> &[u8] {
        letter.bytes(self.longest, &mut self.one);
        if matches!(how, SendBy::Torn)
            && let Some(last) = self.one.last_mut()
        {
            *last ^= 1;
        }
        &self.one
    }

    fn all(&self, letters: &[Letter]) -> Vec<Vec<u8>> {
        let text = |letter: &Letter| {
            let mut bytes = Vec::new();
            letter.bytes(self.longest, &mut bytes);
            bytes
        };
        letters.iter().map(text).collect()
    }
}

fn form(letter: Letter, how: SendBy) -> Form {
    let mut form = letter.form();
    if matches!(how, SendBy::Torn) {
        form[7] ^= 1;
    }
    form
}

fn forms(letters: &[Letter]) -> Vec<Form> {
    letters.iter().map(|letter| letter.form()).collect()
}

fn sent<V>(result: Result<(), SendError<V>>, closed_is: &'static str) -> Result<Outcome> {
    match result {
        Ok(()) => Ok(Outcome::Done(1)),
        Err(SendError::Full(_) | SendError::Timeout(_)) => Ok(Outcome::NotNow),
        Err(SendError::Closed(_)) if closed_is.is_empty() => Ok(Outcome::NobodyThere),
        Err(SendError::Closed(_)) => Err(closed_is.into()),
        Err(SendError::Failed(_, error)) => Err(error),
    }
}

/// Nobody closes the queue.
const NEVER_CLOSED: &str = "the queue says that it is closed";

fn sent_many(result: Result<(), SendError<usize>>, all: usize) -> Result<Outcome> {
    match result {
        Ok(()) => Ok(Outcome::Done(all as u64)),
        Err(SendError::Closed(0)) => Ok(Outcome::NobodyThere),
        Err(SendError::Closed(some)) => Ok(Outcome::Done(some as u64)),
        Err(SendError::Full(_) | SendError::Timeout(_)) => Err("send_many gave up".into()),
        Err(SendError::Failed(_, error)) => Err(error),
    }
}

impl Outlet {
    pub fn open(segment: &Segment, shape: &Shape) -> Result<Outlet> {
        let text = |longest| Text { longest, one: Vec::new() };
        let half_missing = "the pipe has no sender";
        Ok(match (shape.kind, shape.bytes) {
            (Kind::Queue, None) => Outlet::Queue(segment.queue::<Form>(RING)?.sender()?),
            (Kind::Queue, Some(longest)) => {
                Outlet::Bytes(segment.bytes_queue(RING)?.sender()?, text(longest))
            }
            (Kind::Pipe, None) => {
                let pipe = take_over(|| segment.typed_pipe_end::<Form>(RING, End::A))?;
                Outlet::Pipe(pipe.split().0.ok_or(half_missing)?)
            }
            (Kind::Pipe, Some(longest)) => {
                let pipe = take_over(|| segment.pipe_end(RING, End::A))?;
                Outlet::BytesPipe(pipe.split().0.ok_or(half_missing)?, text(longest))
            }
        })
    }

    /// Sends one message, announcing when it begins to, and when it has a slot to
    /// write in place.
    pub fn send(
        &mut self,
        letter: Letter,
        how: SendBy,
        announce: impl Fn(Phase) -> Result<()>,
    ) -> Result<Outcome> {
        match self {
            Outlet::Queue(tx) => {
                let form = form(letter, how);
                announce(Phase::Sending)?;
                match how {
                    SendBy::Send | SendBy::Torn => sent(tx.send(form), NEVER_CLOSED),
                    SendBy::Try => sent(tx.try_send(form), NEVER_CLOSED),
                    SendBy::Timeout => sent(tx.send_timeout(form, TIMEOUT), NEVER_CLOSED),
                    SendBy::InPlace => match tx.claim() {
                        Ok(mut slot) => {
                            announce(Phase::Claimed)?;
                            slot.write(form);
                            slot.commit();
                            Ok(Outcome::Done(1))
                        }
                        Err(error) => sent(Err(error), NEVER_CLOSED),
                    },
                }
            }
            Outlet::Bytes(tx, text) => {
                let text = text.of(letter, how);
                announce(Phase::Sending)?;
                match how {
                    SendBy::Send | SendBy::Torn => sent(tx.send(text), NEVER_CLOSED),
                    SendBy::Try => sent(tx.try_send(text), NEVER_CLOSED),
                    SendBy::Timeout => sent(tx.send_timeout(text, TIMEOUT), NEVER_CLOSED),
                    SendBy::InPlace => match tx.claim() {
                        Ok(mut slot) => {
                            announce(Phase::Claimed)?;
                            slot[..text.len()].copy_from_slice(text);
                            slot.commit(text.len())?;
                            Ok(Outcome::Done(1))
                        }
                        Err(error) => sent(Err(error), NEVER_CLOSED),
                    },
                }
            }
            Outlet::Pipe(tx) => {
                let form = form(letter, how);
                announce(Phase::Sending)?;
                match how {
                    SendBy::Send | SendBy::Torn => sent(tx.send(form), ""),
                    SendBy::Try => sent(tx.try_send(form), ""),
                    SendBy::Timeout => sent(tx.send_timeout(form, TIMEOUT), ""),
                    SendBy::InPlace => match tx.reserve() {
                        Ok(mut slot) => {
                            announce(Phase::Claimed)?;
                            slot.write(form);
                            slot.commit();
                            Ok(Outcome::Done(1))
                        }
                        Err(error) => sent(Err(error), ""),
                    },
                }
            }
            Outlet::BytesPipe(tx, text) => {
                let text = text.of(letter, how);
                announce(Phase::Sending)?;
                match how {
                    SendBy::Timeout => sent(tx.send_timeout(text, TIMEOUT), ""),
                    SendBy::Try if text.len() <= tx.max_in_place() => sent(tx.try_send(text), ""),
                    SendBy::InPlace if text.len() <= tx.max_in_place() => {
                        match tx.reserve(text.len()) {
                            Ok(mut room) => {
                                announce(Phase::Claimed)?;
                                room[..text.len()].copy_from_slice(text);
                                room.commit(text.len());
                                Ok(Outcome::Done(1))
                            }
                            Err(error) => sent(Err(error), ""),
                        }
                    }
                    _ => sent(tx.send(text), ""),
                }
            }
        }
    }

    /// Sends several messages in one call, announcing when it begins to.
    pub fn send_many(
        &mut self,
        letters: &[Letter],
        announce: impl Fn(Phase) -> Result<()>,
    ) -> Result<Outcome> {
        let all = letters.len();
        match self {
            Outlet::Queue(tx) => {
                let forms = forms(letters);
                announce(Phase::Sending)?;
                sent_many(tx.send_many(&forms), all)
            }
            Outlet::Pipe(tx) => {
                let forms = forms(letters);
                announce(Phase::Sending)?;
                sent_many(tx.send_many(&forms), all)
            }
            Outlet::Bytes(tx, text) => {
                let texts = text.all(letters);
                announce(Phase::Sending)?;
                sent_many(tx.send_many(&texts), all)
            }
            Outlet::BytesPipe(tx, text) => {
                let texts = text.all(letters);
                announce(Phase::Sending)?;
                sent_many(tx.send_many(&texts), all)
            }
        }
    }

    /// Claims room, writes something into it, and gives it up.
    pub fn give_up(&mut self) -> Result<Outcome> {
        match self {
            Outlet::Queue(tx) => {
                sent(tx.claim().map(|mut slot| slot.write([u64::MAX; 8])), NEVER_CLOSED)
            }
            Outlet::Bytes(tx, _) => sent(tx.claim().map(|mut slot| slot.fill(255)), NEVER_CLOSED),
            Outlet::Pipe(tx) => sent(tx.reserve().map(|mut slot| slot.write([u64::MAX; 8])), ""),
            Outlet::BytesPipe(tx, _) => sent(tx.reserve(8).map(|mut room| room.fill(255)), ""),
        }
    }
}

/// The receiving end.
pub enum Inlet {
    Queue(Receiver<Form>),
    Bytes(Receiver<[u8]>),
    Pipe(PipeReceiver<Form>),
    BytesPipe(PipeReceiver<[u8]>),
}

/// What is done with each message, as long as it is there.
type Deal<'a> = &'a mut dyn FnMut(Delivered) -> Result<()>;

fn nothing(error: RecvError) -> Result<Outcome> {
    match error {
        RecvError::Empty | RecvError::Timeout => Ok(Outcome::NotNow),
        RecvError::Closed | RecvError::PeerDied { .. } => Ok(Outcome::NobodyThere),
        RecvError::Failed(error) => Err(error),
    }
}

fn copied(letter: Option<Letter>) -> Delivered {
    Delivered { letter, redelivered: false, in_place: false }
}

fn all<M>(
    received: Result<usize, RecvError>,
    messages: &[M],
    read: impl Fn(&M) -> Option<Letter>,
    deal: Deal,
) -> Result<Outcome> {
    if let Err(error) = received {
        return nothing(error);
    }
    for message in messages {
        deal(copied(read(message)))?;
    }
    Ok(Outcome::Done(messages.len() as u64))
}

fn one<M>(
    received: Result<M, RecvError>,
    read: impl Fn(&M) -> Option<Letter>,
    deal: Deal,
) -> Result<Outcome> {
    match received {
        Ok(message) => {
            deal(copied(read(&message)))?;
            Ok(Outcome::Done(1))
        }
        Err(error) => nothing(error),
    }
}

/// Deals with a message in place. Dropping it, at the end, releases it.
fn held<M>(
    taken: Result<M, RecvError>,
    read: impl Fn(&M) -> (Option<Letter>, bool),
    deal: Deal,
) -> Result<Outcome> {
    match taken {
        Ok(message) => {
            let (letter, redelivered) = read(&message);
            deal(Delivered { letter, redelivered, in_place: true })?;
            drop(message);
            Ok(Outcome::Done(1))
        }
        Err(error) => nothing(error),
    }
}

impl Inlet {
    pub fn open(segment: &Segment, shape: &Shape) -> Result<Inlet> {
        let half_missing = "the pipe has no receiver";
        Ok(match (shape.kind, shape.bytes) {
            (Kind::Queue, None) => Inlet::Queue(segment.queue::<Form>(RING)?.receiver()?),
            (Kind::Queue, Some(_)) => Inlet::Bytes(segment.bytes_queue(RING)?.receiver()?),
            (Kind::Pipe, None) => {
                let pipe = take_over(|| segment.typed_pipe_end::<Form>(RING, End::B))?;
                Inlet::Pipe(pipe.split().1.ok_or(half_missing)?)
            }
            (Kind::Pipe, Some(_)) => {
                let pipe = take_over(|| segment.pipe_end(RING, End::B))?;
                Inlet::BytesPipe(pipe.split().1.ok_or(half_missing)?)
            }
        })
    }

    /// Receives in this way, and deals with each message.
    pub fn take(&mut self, how: TakeBy, deal: Deal) -> Result<Outcome> {
        match self {
            Inlet::Queue(rx) => match how {
                TakeBy::Take => held(
                    rx.take_timeout(TIMEOUT),
                    |message| (Letter::read_form(message), message.redelivered()),
                    deal,
                ),
                TakeBy::TryTake => held(
                    rx.try_take(),
                    |message| (Letter::read_form(message), message.redelivered()),
                    deal,
                ),
                TakeBy::Recv => one(rx.recv_timeout(TIMEOUT), Letter::read_form, deal),
                TakeBy::TryRecv => one(rx.try_recv(), Letter::read_form, deal),
                TakeBy::Many(max) => {
                    let mut messages = Vec::new();
                    let received = rx.recv_many(&mut messages, max as usize);
                    all(received, &messages, Letter::read_form, deal)
                }
            },
            Inlet::Bytes(rx) => {
                let read = |bytes: &Vec<u8>| Letter::read_bytes(bytes);
                match how {
                    TakeBy::Take => held(
                        rx.take_timeout(TIMEOUT),
                        |message| (Letter::read_bytes(message), message.redelivered()),
                        deal,
                    ),
                    TakeBy::TryTake => held(
                        rx.try_take(),
                        |message| (Letter::read_bytes(message), message.redelivered()),
                        deal,
                    ),
                    TakeBy::Recv => one(rx.recv_timeout(TIMEOUT), read, deal),
                    TakeBy::TryRecv => one(rx.try_recv(), read, deal),
                    TakeBy::Many(max) => {
                        let mut messages = Vec::new();
                        let received = rx.recv_many(&mut messages, max as usize);
                        all(received, &messages, read, deal)
                    }
                }
            }
            Inlet::Pipe(rx) => match how {
                TakeBy::Take => match rx.poll(TIMEOUT)? {
                    true => held(rx.try_peek(), |m| (Letter::read_form(m), false), deal),
                    false => Ok(Outcome::NotNow),
                },
                TakeBy::TryTake => held(rx.try_peek(), |m| (Letter::read_form(m), false), deal),
                TakeBy::Recv => one(rx.recv_timeout(TIMEOUT), Letter::read_form, deal),
                TakeBy::TryRecv => one(rx.try_recv(), Letter::read_form, deal),
                TakeBy::Many(max) => {
                    let mut messages = Vec::new();
                    let received = rx.recv_many(&mut messages, max as usize);
                    all(received, &messages, Letter::read_form, deal)
                }
            },
            Inlet::BytesPipe(rx) => {
                let read = |bytes: &Vec<u8>| Letter::read_bytes(bytes);
                match how {
                    TakeBy::Take => match rx.poll(TIMEOUT)? {
                        true => held(rx.try_peek(), |m| (Letter::read_bytes(m), false), deal),
                        false => Ok(Outcome::NotNow),
                    },
                    TakeBy::TryTake => {
                        held(rx.try_peek(), |m| (Letter::read_bytes(m), false), deal)
                    }
                    TakeBy::Recv => one(rx.recv_timeout(TIMEOUT), read, deal),
                    TakeBy::TryRecv => one(rx.try_recv(), read, deal),
                    TakeBy::Many(max) => {
                        let mut messages = Vec::new();
                        let received = rx.recv_many(&mut messages, max as usize);
                        all(received, &messages, read, deal)
                    }
                }
            }
        }
    }
}
