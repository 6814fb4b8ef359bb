//! Sequences of operations on a pipe, byte or typed, through the public API,
//! with ends that are dropped, that die and that are taken over, against a
//! `VecDeque` for each direction.

#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use slipring::ring::bytes::Geometry;
use slipring::{
    End, Error, PipeOptions, PipeReceiver, PipeSender, RecvError, Segment, SendError, Unlink,
};
use slipring_fuzz::{Party, name};
use std::collections::VecDeque;
use std::io::Read;
use std::time::Duration;

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Op {
    /// Takes the end, which may be free, held or a dead one's.
    Open(bool),
    Drop(bool),
    /// The holder dies; `true`: and is recovered at once, not by a successor.
    Die(bool, bool),
    Send(bool, u8),
    /// A message that goes in pieces, if there is room for all of them.
    SendLong(bool, u8),
    /// Reserves, writes, and commits this much, or nothing.
    Reserve(bool, u8, Option<u8>),
    Recv(bool),
    /// Looks in place; `true`: and releases.
    Peek(bool, bool),
    Poll(bool),
    /// A batch that there is room for. (Typed.)
    SendMany(bool, u8),
    /// A batch, if there is a message; `true`: where they lie. (Typed.)
    RecvMany(bool, u8, bool),
    /// Reads this much as a stream.
    Read(bool, u8),
}

#[derive(Arbitrary, Debug)]
struct Input {
    typed: bool,
    capacity: u8,
    start: u64,
    ops: Vec<Op>,
}

/// Most operations of one run.
const OPS: usize = 100;

/// A message, and whether it went in pieces.
type Sent = (Vec<u8>, bool);

/// One direction, by the oracle.
#[derive(Default)]
struct Flow {
    messages: VecDeque<Sent>,
    /// Pieces of a message without an end may lie in the ring.
    garbage: bool,
    /// The receiver has taken the first message, which came in pieces, out of
    /// the ring.
    pulled: bool,
    /// Bytes of the first message that were read as a stream.
    read: usize,
}

impl Flow {
    /// What the receiver knew is gone with it.
    fn receiver_gone(&mut self) {
        if std::mem::take(&mut self.pulled) {
            self.messages.pop_front();
        }
        self.read = 0;
    }

    /// The receiver has found the first message.
    fn found(&mut self) {
        self.pulled |= self.messages.front().is_some_and(|(_, in_pieces)| *in_pieces);
    }

    fn pop(&mut self) -> Option<Vec<u8>> {
        let (message, _) = self.messages.pop_front()?;
        let read = std::mem::take(&mut self.read);
        self.pulled = false;
        Some(message[read..].to_vec())
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Seat {
    New,
    Held,
    Left,
    /// Dead, and nobody has looked.
    Dead,
    /// Dead, and recovered.
    Died,
}

/// An end, taken apart: the halves have all the forms that do not wait.
enum Wire {
    Bytes(PipeSender, PipeReceiver),
    Typed(PipeSender<Fixed>, PipeReceiver<Fixed>),
}

/// A message of the typed pipe: a length, and so many bytes.
type Fixed = [u8; 16];

fn fixed(message: &[u8]) -> Fixed {
    let mut all = [0; 16];
    all[0] = message.len() as u8;
    all[1..=message.len()].copy_from_slice(message);
    all
}

fn variable(message: &Fixed) -> Vec<u8> {
    message[1..=usize::from(message[0])].to_vec()
}

/// The same reason without the message.
fn bare(error: SendError<Fixed>) -> SendError<()> {
    match error {
        SendError::Full(_) => SendError::Full(()),
        SendError::Closed(_) => SendError::Closed(()),
        SendError::Timeout(_) => SendError::Timeout(()),
        SendError::Failed(_, error) => SendError::Failed((), error),
    }
}

impl Wire {
    fn open(segment: &Segment, end: End, typed: bool) -> slipring::Result<Wire> {
        if typed {
            let (tx, rx) = segment.typed_pipe_end("pipe", end)?.split();
            Ok(Wire::Typed(tx.unwrap(), rx.unwrap()))
        } else {
            let (tx, rx) = segment.pipe_end("pipe", end)?.split();
            Ok(Wire::Bytes(tx.unwrap(), rx.unwrap()))
        }
    }

    fn try_send(&mut self, message: &[u8]) -> Result<(), SendError<()>> {
        match self {
            Wire::Bytes(tx, _) => tx.try_send(message),
            Wire::Typed(tx, _) => tx.try_send(fixed(message)).map_err(bare),
        }
    }

    /// Sends the first `commit` bytes in place; `None` when there was room and
    /// nothing was to be sent.
    fn reserve(
        &mut self,
        message: &[u8],
        commit: Option<usize>,
    ) -> Option<Result<(), SendError<()>>> {
        match (self, commit) {
            (Wire::Bytes(tx, _), commit) => match (tx.try_reserve(message.len()), commit) {
                (Err(error), _) => return Some(Err(error)),
                (Ok(mut grant), Some(len)) => {
                    grant.copy_from_slice(message);
                    grant.commit(len);
                }
                (Ok(grant), None) if message.len() % 2 == 0 => std::mem::forget(grant),
                (Ok(mut grant), None) => grant.fill(0xee),
            },
            (Wire::Typed(tx, _), commit) => match (tx.try_reserve(), commit) {
                (Err(error), _) => return Some(Err(error)),
                (Ok(mut slot), Some(len)) => {
                    slot.write(fixed(&message[..len]));
                    slot.commit();
                }
                (Ok(slot), None) if message.len() % 2 == 0 => std::mem::forget(slot),
                (Ok(mut slot), None) => slot.write([0xee; 16]),
            },
        }
        commit.map(|_| Ok(()))
    }

    fn try_recv(&mut self) -> Result<Vec<u8>, RecvError> {
        match self {
            Wire::Bytes(_, rx) => rx.try_recv(),
            Wire::Typed(_, rx) => rx.try_recv().map(|message| variable(&message)),
        }
    }

    fn try_peek(&mut self, release: bool) -> Result<Vec<u8>, RecvError> {
        match self {
            Wire::Bytes(_, rx) => {
                let message = rx.try_peek()?;
                let copy = message.to_vec();
                if release {
                    drop(message)
                } else {
                    std::mem::forget(message)
                }
                Ok(copy)
            }
            Wire::Typed(_, rx) => {
                let message = rx.try_peek()?;
                let copy = variable(&message);
                if release {
                    drop(message)
                } else {
                    std::mem::forget(message)
                }
                Ok(copy)
            }
        }
    }

    fn poll(&mut self) -> bool {
        match self {
            Wire::Bytes(_, rx) => rx.poll(Duration::ZERO).unwrap(),
            Wire::Typed(_, rx) => rx.poll(Duration::ZERO).unwrap(),
        }
    }
}

struct World {
    name: String,
    observer: Party,
    typed: bool,
    capacity: usize,
    /// Longest message that goes in one piece.
    max: usize,
    ends: [Option<(Wire, Party)>; 2],
    seats: [Seat; 2],
    /// By their sender.
    flows: [Flow; 2],
    /// Handles of the dead.
    dead: Vec<(Wire, Party)>,
    count: u8,
}

/// The dead that one run may have.
const DEAD: usize = 5;

impl World {
    fn message(&mut self, len: usize) -> Vec<u8> {
        self.count = self.count.wrapping_add(1);
        (0..len).map(|i| self.count.wrapping_add(i as u8)).collect()
    }

    fn open(&mut self, end: usize) {
        let party = Party::new(|| Segment::open(&self.name)).unwrap();
        match (Wire::open(&party.segment, [End::A, End::B][end], self.typed), self.seats[end]) {
            (Err(Error::Busy { .. }), Seat::Held) => {}
            (Ok(wire), Seat::New | Seat::Left | Seat::Dead | Seat::Died) => {
                self.seats[end] = Seat::Held;
                self.ends[end] = Some((wire, party));
            }
            (Ok(_), Seat::Held) => panic!("a held end was given out"),
            (Err(error), seat) => panic!("{error}, {seat:?}"),
        }
    }

    /// The end's holder goes.
    fn gone(&mut self, end: usize, seat: Seat) -> Option<(Wire, Party)> {
        let held = self.ends[end].take()?;
        self.seats[end] = seat;
        self.flows[1 - end].receiver_gone();
        Some(held)
    }

    fn die(&mut self, end: usize, recover: bool) {
        if self.dead.len() == DEAD {
            return;
        }
        if let Some((wire, party)) = self.gone(end, Seat::Dead) {
            party.die(&self.observer);
            self.dead.push((wire, party));
            if recover {
                // Some may have been recovered by others.
                assert!(self.observer.segment.recover().unwrap() <= self.unrecovered());
                self.seats.iter_mut().filter(|s| **s == Seat::Dead).for_each(|s| *s = Seat::Died);
            }
        }
    }

    fn unrecovered(&self) -> usize {
        self.seats.iter().filter(|seat| **seat == Seat::Dead).count()
    }

    /// Judges the outcome of a send by `end`.
    fn sent(&mut self, end: usize, message: &[u8], outcome: Result<(), SendError<()>>) {
        let flow = &mut self.flows[end];
        let in_ring = flow.messages.len() - usize::from(flow.pulled);
        match (outcome, self.seats[1 - end]) {
            (Ok(()), Seat::New | Seat::Held | Seat::Dead) => {
                assert!(!self.typed || in_ring < self.capacity);
                flow.messages.push_back((message.to_vec(), message.len() > self.max));
            }
            (Err(SendError::Full(())), Seat::New | Seat::Held | Seat::Dead) => {
                if self.typed {
                    assert_eq!(in_ring, self.capacity);
                } else {
                    assert!(in_ring > 0 || flow.garbage, "full without a message");
                }
            }
            // A dead one may be recovered by polling: a matter of time.
            (Err(SendError::Closed(())), Seat::Left | Seat::Died | Seat::Dead) => {}
            (outcome, seat) => panic!("{outcome:?} to {seat:?}"),
        }
    }

    /// Judges why the receiver `end` got nothing.
    fn nothing(&mut self, end: usize, error: &RecvError) {
        let flow = &mut self.flows[1 - end];
        assert!(flow.messages.is_empty(), "a message is lost");
        // What lay in the ring without an end has been passed over.
        flow.garbage = false;
        match (error, self.seats[1 - end]) {
            (RecvError::Empty, Seat::New | Seat::Held | Seat::Dead) => {}
            (RecvError::Closed, Seat::Left) => {}
            (RecvError::PeerDied { pid }, Seat::Died | Seat::Dead) => {
                assert_eq!(*pid, std::process::id());
            }
            (error, seat) => panic!("{error:?} from {seat:?}"),
        }
    }

    fn run(&mut self, op: Op) {
        match op {
            Op::Open(end) => self.open(end.into()),
            Op::Drop(end) => drop(self.gone(end.into(), Seat::Left)),
            Op::Die(end, recover) => self.die(end.into(), recover),
            Op::Send(end, len) => {
                let (end, message) =
                    (usize::from(end), self.message(usize::from(len) % (self.max + 1)));
                let Some((wire, _)) = &mut self.ends[end] else { return };
                let outcome = wire.try_send(&message);
                self.sent(end, &message, outcome);
            }
            Op::SendLong(end, len) => {
                let (end, message) =
                    (usize::from(end), self.message(self.max + 1 + usize::from(len)));
                let Some((Wire::Bytes(tx, _), _)) = &mut self.ends[end] else { return };
                match tx.send_timeout(&message, Duration::ZERO) {
                    Err(SendError::Timeout(())) => self.flows[end].garbage = true,
                    outcome => self.sent(end, &message, outcome),
                }
            }
            Op::Reserve(end, len, commit) => {
                let (end, message) =
                    (usize::from(end), self.message(usize::from(len) % (self.max + 1)));
                let commit = commit.map(|commit| usize::from(commit).min(message.len()));
                let Some((wire, _)) = &mut self.ends[end] else { return };
                if let Some(outcome) = wire.reserve(&message, commit) {
                    self.sent(end, &message[..commit.unwrap_or(0)], outcome);
                }
            }
            Op::Recv(end) => self.receive(end.into()),
            Op::Peek(end, release) => {
                let end = usize::from(end);
                let Some((wire, _)) = &mut self.ends[end] else { return };
                match wire.try_peek(release) {
                    Ok(message) => {
                        let flow = &mut self.flows[1 - end];
                        flow.found();
                        let (expected, _) = flow.messages.front().expect("a ghost");
                        assert_eq!(message, expected[flow.read..]);
                        if release {
                            flow.pop();
                        }
                    }
                    Err(error) => self.nothing(end, &error),
                }
            }
            Op::Poll(end) => {
                let end = usize::from(end);
                let Some((wire, _)) = &mut self.ends[end] else { return };
                let found = wire.poll();
                let flow = &mut self.flows[1 - end];
                flow.found();
                flow.garbage &= !flow.messages.is_empty();
                match self.seats[1 - end] {
                    _ if !flow.messages.is_empty() => assert!(found),
                    Seat::New | Seat::Held => assert!(!found),
                    Seat::Left | Seat::Died => assert!(found),
                    // Waiting recovers; polling may have.
                    Seat::Dead => {}
                }
            }
            Op::SendMany(end, count) => {
                let end = usize::from(end);
                let room = self.capacity - self.flows[end].messages.len().min(self.capacity);
                let batch: Vec<_> =
                    (0..usize::from(count) % (room + 1)).map(|i| self.message(i % 16)).collect();
                let Some((Wire::Typed(tx, _), _)) = &mut self.ends[end] else { return };
                let outcome = if count < 128 {
                    tx.send_many(&batch.iter().map(|m| fixed(m)).collect::<Vec<_>>())
                } else {
                    tx.send_each(batch.len(), |nth| fixed(&batch[nth]))
                };
                if let Err(SendError::Closed(sent)) = &outcome {
                    assert_eq!(*sent, 0);
                    let closed = Err(SendError::Closed(()));
                    return self.sent(end, &[], closed);
                }
                outcome.unwrap();
                batch.iter().for_each(|message| self.sent(end, message, Ok(())));
            }
            Op::RecvMany(end, max, in_place) => {
                let (end, max) = (usize::from(end), usize::from(max) % 20);
                let there = self.flows[1 - end].messages.len();
                let Some((Wire::Typed(_, rx), _)) = &mut self.ends[end] else { return };
                if there == 0 {
                    return;
                }
                let mut got = Vec::new();
                let count = if in_place {
                    rx.recv_each(max, |message| got.push(*message)).unwrap()
                } else {
                    rx.recv_many(&mut got, max).unwrap()
                };
                assert_eq!((count, got.len()), (there.min(max), there.min(max)));
                for message in &got {
                    assert_eq!(Some(variable(message)), self.flows[1 - end].pop());
                }
            }
            Op::Read(end, len) => {
                let end = usize::from(end);
                let flow = &mut self.flows[1 - end];
                let Some((Wire::Bytes(_, rx), _)) = &mut self.ends[end] else { return };
                // A read waits, and passes over empty messages: only with bytes.
                let rest =
                    flow.messages.front().map_or(0, |(message, _)| message.len() - flow.read);
                if rest == 0 || len == 0 {
                    return;
                }
                flow.found();
                let mut buffer = vec![0; usize::from(len)];
                let count = rx.read(&mut buffer).unwrap();
                assert_eq!(count, rest.min(buffer.len()));
                let (expected, _) = &flow.messages[0];
                assert_eq!(buffer[..count], expected[flow.read..][..count]);
                flow.read += count;
                if count == rest {
                    flow.pop();
                }
            }
        }
    }

    fn receive(&mut self, end: usize) {
        let Some((wire, _)) = &mut self.ends[end] else { return };
        match wire.try_recv() {
            Ok(message) => assert_eq!(Some(message), self.flows[1 - end].pop()),
            Err(error) => self.nothing(end, &error),
        }
    }
}

fuzz_target!(|input: Input| {
    let name = name("pipe");
    let (typed, capacity, max) = if input.typed {
        (true, usize::from(input.capacity % 16) + 1, 15)
    } else {
        let geometry = Geometry::new(64 + usize::from(input.capacity)).unwrap();
        (false, geometry.capacity(), geometry.max_record())
    };
    let options = PipeOptions::new(capacity).start(input.start);
    let builder = Segment::builder(&name).participants(4).unlink(Unlink::Creator);
    let builder = if typed {
        builder.typed_pipe::<Fixed>("pipe", options)
    } else {
        builder.pipe("pipe", options)
    };
    let observer = Party::new(|| builder.create()).unwrap();
    let mut world = World {
        name,
        observer,
        typed,
        capacity,
        max,
        ends: [None, None],
        seats: [Seat::New; 2],
        flows: Default::default(),
        dead: Vec::new(),
        count: 0,
    };
    for op in input.ops.into_iter().take(OPS) {
        world.run(op);
    }
    // Nothing is left over, and there is room for the longest message again.
    for end in [0, 1] {
        if world.ends[end].is_none() {
            world.open(end);
        }
    }
    for end in [0, 1] {
        while !world.flows[1 - end].messages.is_empty() {
            world.receive(end);
        }
        world.receive(end);
        let message = world.message(world.max);
        let Some((wire, _)) = &mut world.ends[1 - end] else { continue };
        wire.try_send(&message).unwrap();
        world.sent(1 - end, &message, Ok(()));
        world.receive(end);
    }
});
