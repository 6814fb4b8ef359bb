//! Pipe: two ends, one handle each, messages in both directions.
//!
//! ```text
//! region: ┌────────────────────────┬────────────────────────┐
//!         │ direction A to B       │ direction B to A       │   (the second only
//!         └────────────────────────┴────────────────────────┘    if it is duplex)
//! direction: ┌───────┬──────────┬──────────┬──────────────────────────────┐
//!            │ seats │ readable │ writable │ ring::bytes or ring::spsc    │
//!            └───────┴──────────┴──────────┴──────────────────────────────┘
//! ```
//!
//! Each direction has two *seats*, for its sender and its receiver; an end of
//! the pipe is the sender's seat of one direction and the receiver's of the
//! other. A seat is held by lease, so a dead holder is noticed, and a successor
//! may sit down where it was: a sender at the published tail, a receiver at the
//! first message that was not released.

mod bytes;
mod typed;

pub use bytes::{BytesGrant, BytesMessage};
pub use typed::{PipeMessage, PipeSlot};

use crate::error::{Error, RecvError, Result};
use crate::favour::Favour;
use crate::memory::{LINE, Region, round_up};
use crate::os;
use crate::pace::Pace;
use crate::ring::{Owner, bytes as byte_ring, spsc};
use crate::segment::Segment;
use crate::shm::attachment::{Attachment, Identity};
use crate::shm::catalog::{Kind, Object, TypeTag};
use crate::sync::AtomicU64;
use crate::wait::{Event, Look, Patience, Polls, Waiter, is_poll};
use crate::word::seat::{Before, Seat, State};
use bytemuck::Pod;
use core::alloc::Layout;
use core::cell::RefCell;
use crossbeam_utils::CachePadded;
use std::fmt;
use std::sync::Arc;
use std::time::Instant;

/// Which end of a pipe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum End {
    /// The creator's, unless it asks for the other.
    A,
    /// The opener's.
    B,
}

impl End {
    /// The other end.
    pub fn other(self) -> End {
        match self {
            End::A => End::B,
            End::B => End::A,
        }
    }
}

/// What a pipe shall be. A plain number converts into a duplex pipe of that
/// size.
///
/// ```
/// use slipring::PipeOptions;
///
/// let options = PipeOptions::new(64 * 1024).one_way();
/// # let _ = options;
/// ```
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct PipeOptions {
    size: usize,
    one_way: bool,
    start: u64,
}

impl PipeOptions {
    /// A duplex pipe: a ring of this many bytes (of messages, for a typed pipe)
    /// in each direction.
    pub fn new(size: usize) -> Self {
        PipeOptions { size, one_way: false, start: 0 }
    }

    /// Only end A sends, only end B receives.
    pub fn one_way(mut self) -> Self {
        self.one_way = true;
        self
    }

    /// Starts positions here instead of at zero, to test their wraps.
    #[doc(hidden)]
    pub fn start(mut self, start: u64) -> Self {
        self.start = start;
        self
    }
}

impl From<usize> for PipeOptions {
    fn from(size: usize) -> Self {
        PipeOptions::new(size)
    }
}

const ONE_WAY: u64 = 1;
/// Messages are bytes of any length.
const BYTES: u64 = 2;

fn object(name: &str, tag: TypeTag, options: PipeOptions, flags: u64) -> Object {
    Object {
        name: name.to_owned(),
        kind: Kind::Pipe,
        tag,
        capacity: options.size,
        flags: flags | if options.one_way { ONE_WAY } else { 0 },
        start: options.start,
        max_len: 0,
        offset: 0,
        len: 0,
    }
}

/// The declaration of a pipe of `T`.
pub(crate) fn declare<T: Pod>(name: &str, options: PipeOptions) -> Object {
    object(name, TypeTag::of::<T>(), options, 0)
}

/// The declaration of a byte pipe.
pub(crate) fn declare_bytes(name: &str, options: PipeOptions) -> Object {
    object(name, TypeTag::bytes(), options, BYTES)
}

/// The geometry of either ring. Public for the sealed trait alone.
#[derive(Clone, Copy, Debug)]
pub enum Geometry {
    /// Of a byte pipe.
    Bytes(byte_ring::Geometry),
    /// Of a typed pipe.
    Typed(spsc::Geometry),
}

/// Bytes of a message up to which lines that were read are taken over at first
/// ([`Favour`]) on other processors than AMD's: none of those for which that is tried at all.
const FAVOUR: usize = 0;

impl Geometry {
    fn len(&self) -> usize {
        match self {
            Geometry::Bytes(geometry) => geometry.len(),
            Geometry::Typed(geometry) => geometry.len(),
        }
    }

    /// The pace of an end of such a ring. One of bytes counts as holding as many small
    /// messages as fit in.
    fn pace(&self) -> Pace {
        match self {
            Geometry::Bytes(geometry) => {
                Pace::of_index(geometry.capacity() / (2 * size_of::<u64>()))
            }
            Geometry::Typed(geometry) => Pace::new(geometry.capacity()),
        }
    }
}

/// The seats of a direction, each on a line of its own.
#[repr(C)]
struct Seats {
    sender: CachePadded<AtomicU64>,
    receiver: CachePadded<AtomicU64>,
}

const EVENT: usize = match round_up(size_of::<Event>(), LINE) {
    Some(size) => size,
    None => unreachable!(),
};
const READABLE: usize = match round_up(size_of::<Seats>(), LINE) {
    Some(offset) => offset,
    None => unreachable!(),
};
const WRITABLE: usize = READABLE + EVENT;
const RING: usize = WRITABLE + EVENT;

/// Where the parts of a pipe lie.
struct Parts {
    geometry: Geometry,
    /// Bytes of one direction.
    direction: usize,
    directions: usize,
}

impl Parts {
    fn of(object: &Object) -> Result<Parts, &'static str> {
        if object.flags & !(ONE_WAY | BYTES) != 0 {
            return Err("unknown flags");
        }
        if (object.flags & BYTES != 0) != (object.tag == TypeTag::bytes()) {
            return Err("flags of another type than the elements'");
        }
        let too_large = "the pipe's size overflows";
        let geometry = if object.flags & BYTES != 0 {
            Geometry::Bytes(byte_ring::Geometry::new(object.capacity)?)
        } else {
            let payload = Layout::from_size_align(object.tag.size, object.tag.align);
            let payload = payload.map_err(|_| too_large)?;
            Geometry::Typed(spsc::Geometry::new(object.capacity, payload)?)
        };
        let direction = RING
            .checked_add(geometry.len())
            .and_then(|len| round_up(len, LINE))
            .filter(|&len| len <= isize::MAX as usize / 2)
            .ok_or(too_large)?;
        let directions = if object.flags & ONE_WAY != 0 { 1 } else { 2 };
        Ok(Parts { geometry, direction, directions })
    }
}

pub(crate) fn measure(object: &Object) -> Result<usize, &'static str> {
    Parts::of(object).map(|parts| parts.direction * parts.directions)
}

/// # Safety
///
/// As [`crate::kinds::init`].
pub(crate) unsafe fn init(object: &Object, region: Region<'_>) {
    let Ok(parts) = Parts::of(object) else { return };
    for i in 0..parts.directions {
        let Some(direction) = region.part(i * parts.direction, parts.direction) else { return };
        let Some(ring) = direction.part(RING, parts.geometry.len()) else { return };
        let seats = Seats {
            sender: CachePadded::new(Seat::fresh()),
            receiver: CachePadded::new(Seat::fresh()),
        };
        // SAFETY: each part lies inside its direction, at a multiple of LINE;
        // exclusive by the caller's promise.
        unsafe {
            direction.at::<Seats>(0).write(seats);
            direction.at::<Event>(READABLE).write(Event::default());
            direction.at::<Event>(WRITABLE).write(Event::default());
            match parts.geometry {
                Geometry::Bytes(geometry) => {
                    byte_ring::Ring::init(ring, geometry, object.start);
                }
                Geometry::Typed(geometry) => {
                    spsc::Ring::init(ring, geometry, object.start);
                }
            }
        }
    }
}

/// Views of one direction.
#[derive(Clone)]
struct Direction {
    sender: Seat<'static>,
    receiver: Seat<'static>,
    /// What the receiver sleeps on.
    readable: Waiter<'static>,
    /// What the sender sleeps on.
    writable: Waiter<'static>,
    ring: Region<'static>,
    geometry: Geometry,
}

impl Direction {
    /// Views of the direction in which `from` sends, if there is one.
    ///
    /// # Safety
    ///
    /// Not to be used after the attachment is dropped.
    unsafe fn of(attachment: &Attachment, object: &Object, from: End) -> Result<Option<Direction>> {
        let corrupt = |what| Error::Corrupt { what, at: object.offset as u64 };
        let parts = Parts::of(object).map_err(corrupt)?;
        let index = from as usize;
        if index >= parts.directions {
            return Ok(None);
        }
        let outside = || corrupt("length of the pipe at");
        // SAFETY: handed on.
        let region = unsafe { attachment.region(object) }?;
        let region = region.part(index * parts.direction, parts.direction).ok_or_else(outside)?;
        let ring = region.part(RING, parts.geometry.len()).ok_or_else(outside)?;
        // SAFETY: `kinds::check` measured the object when the segment was
        // opened, and its maker ran `init` on it; atomics only.
        let (seats, readable, writable) = unsafe {
            (
                region.at::<Seats>(0).as_ref(),
                region.at::<Event>(READABLE).as_ref(),
                region.at::<Event>(WRITABLE).as_ref(),
            )
        };
        Ok(Some(Direction {
            sender: Seat::new(&seats.sender),
            receiver: Seat::new(&seats.receiver),
            readable: Waiter::new(readable, attachment.asymmetric),
            writable: Waiter::new(writable, attachment.asymmetric),
            ring,
            geometry: parts.geometry,
        }))
    }

    fn wake(&self) {
        self.readable.wake();
        self.writable.wake();
    }

    fn seat(&self, side: Side) -> Seat<'static> {
        match side {
            Side::Sender => self.sender,
            Side::Receiver => self.receiver,
        }
    }
}

/// What a seat is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Sender,
    Receiver,
}

impl Side {
    fn other(self) -> Side {
        match self {
            Side::Sender => Side::Receiver,
            Side::Receiver => Side::Sender,
        }
    }
}

pub(crate) fn sweep(attachment: &Attachment, object: &Object, _: Region<'_>, dead: Owner) {
    for from in [End::A, End::B] {
        // SAFETY: used during this call only; the attachment is borrowed for it.
        if let Ok(Some(direction)) = unsafe { Direction::of(attachment, object, from) } {
            direction.sender.recover(dead);
            direction.receiver.recover(dead);
            direction.wake();
        }
    }
}

pub(crate) fn roles(
    attachment: &Attachment,
    object: &Object,
    _: Region<'_>,
    owner: Owner,
) -> Vec<&'static str> {
    let mut roles = Vec::new();
    for (from, sender, receiver) in
        [(End::A, "sends from A", "receives at B"), (End::B, "sends from B", "receives at A")]
    {
        // SAFETY: as in `sweep`.
        if let Ok(Some(direction)) = unsafe { Direction::of(attachment, object, from) } {
            for (seat, role) in [(direction.sender, sender), (direction.receiver, receiver)] {
                if seat.state() == State::Held(owner) {
                    roles.push(role);
                }
            }
        }
    }
    roles
}

/// A held seat, with the direction around it. Dropping it leaves the seat.
struct Post {
    direction: Direction,
    side: Side,
    identity: Identity,
    /// What to put back instead of leaving.
    undo: Option<Before>,
    polls: Polls,
    patience: Patience,
    pace: Pace,
    // After the views, which end first.
    attachment: Arc<Attachment>,
}

impl Post {
    /// Sits down, if the seat is free or its holder dead.
    fn take(
        attachment: &Arc<Attachment>,
        direction: Direction,
        side: Side,
    ) -> Result<(Post, Before)> {
        let seat = direction.seat(side);
        let (identity, before) = Self::sit(attachment, seat)?;
        let pace = direction.geometry.pace();
        let post = Post {
            direction,
            side,
            identity,
            undo: None,
            polls: Polls::new(),
            patience: Patience::new(),
            pace,
            attachment: Arc::clone(attachment),
        };
        // The other side may be waiting for somebody to come.
        post.direction.wake();
        Ok((post, before))
    }

    fn sit(attachment: &Attachment, seat: Seat<'_>) -> Result<(Identity, Before)> {
        let identity = attachment.identity()?;
        // Successors of a dead holder may die in turn, but not for ever.
        for _ in 0..100 {
            match seat.take(identity.me, os::pid()) {
                Ok(before) => return Ok((identity, before)),
                Err(Err(error)) => return Err(error),
                Err(Ok(holder)) => {
                    if attachment.is_alive(holder) || !attachment.recover(holder)? {
                        break;
                    }
                }
            }
        }
        Err(Self::in_use(seat))
    }

    fn in_use(seat: Seat<'_>) -> Error {
        Error::Busy { what: "the end of the pipe", pid: seat.pid() }
    }

    /// Stands up again, as if it had not sat down.
    fn put_back(mut self, before: Before) {
        self.undo = Some(before);
    }

    /// Whether the process has forked since; then it must sit down anew.
    #[inline(always)]
    fn is_current(&self) -> bool {
        self.identity.is_current()
    }

    /// Sits down as the child of whoever sat here: not before that one left.
    fn renew(&mut self) -> Result<()> {
        self.identity = Self::sit(&self.attachment, self.direction.seat(self.side))?.0;
        Ok(())
    }

    /// What to say where a forked child finds that the seat is its parent's.
    #[cold]
    fn is_not_ours(&self) -> Error {
        Self::in_use(self.direction.seat(self.side))
    }

    /// After `renew`, when the ring can't be used: so that each use renews.
    fn give_up(&mut self) {
        self.direction.seat(self.side).leave();
        self.identity = self.identity.expired();
    }

    /// How the other side is.
    #[inline(always)]
    fn peer(&self) -> State {
        self.direction.seat(self.side.other()).state()
    }

    /// Asks whether the other side's holder is dead, and if so recovers it;
    /// whether it was.
    fn check(&self) -> Result<bool> {
        match self.peer() {
            State::Held(owner) if !self.attachment.is_alive(owner) => {
                self.attachment.recover(owner)
            }
            _ => Ok(false),
        }
    }

    /// For those who poll instead of waiting: checks once a slice.
    #[inline]
    fn missed(&self) -> Result<()> {
        if self.polls.is_due(false) {
            self.check()?;
        }
        Ok(())
    }

    /// Waits until `look` has something; `None` at the deadline. The other
    /// side's death ends no wait by itself: `look` finds its seat empty. Waits
    /// without time are polls, which ask about it once a slice.
    fn wait<R>(
        &self,
        deadline: Option<Instant>,
        mut look: impl FnMut() -> Look<Result<R>>,
    ) -> Option<Result<R>> {
        let failure = RefCell::new(None);
        let polling = is_poll(deadline);
        let waiter = match self.side {
            Side::Sender => &self.direction.writable,
            Side::Receiver => &self.direction.readable,
        };
        waiter.until(
            deadline,
            &self.patience,
            || match failure.borrow_mut().take() {
                Some(error) => Look::Ready(Err(error)),
                None => look(),
            },
            |_| {
                let due = !polling || self.polls.is_due(false);
                due && self.check().unwrap_or_else(|error| {
                    *failure.borrow_mut() = Some(error);
                    true
                })
            },
        )
    }
}

impl Drop for Post {
    fn drop(&mut self) {
        // In a forked child that never sat down, the seat is the parent's.
        if self.is_current() {
            let seat = self.direction.seat(self.side);
            match self.undo {
                Some(before) => seat.put_back(before),
                None => seat.leave(),
            }
            self.direction.wake();
        }
    }
}

/// Why there is nothing to receive, by the sender's seat. `None` while one may
/// come.
fn end_of_stream(state: State) -> Option<RecvError> {
    match state {
        State::New | State::Held(_) => None,
        State::Left => Some(RecvError::Closed),
        State::Died(pid) => Some(RecvError::PeerDied { pid }),
    }
}

/// What a pipe carries: any [`Pod`] type, or `[u8]`.
pub trait Transport: sealed::Sealed {}

impl<T: ?Sized + sealed::Sealed> Transport for T {}

mod sealed {
    use super::{Error, Geometry, Region};
    use std::fmt::Debug;

    /// Makes the ends of the ring that fits the message.
    pub trait Sealed {
        type Producer: Debug + Send;
        type Consumer: Debug + Send;

        /// # Safety
        ///
        /// As the ring's `attach` and `producer`.
        unsafe fn producer(
            ring: Region<'static>,
            geometry: Geometry,
        ) -> Result<Self::Producer, Error>;

        /// # Safety
        ///
        /// As the ring's `attach` and `consumer`.
        unsafe fn consumer(
            ring: Region<'static>,
            geometry: Geometry,
        ) -> Result<Self::Consumer, Error>;
    }
}

/// The sending half of one end of a [`Pipe`].
pub struct PipeSender<T: ?Sized + Transport = [u8]> {
    producer: T::Producer,
    post: Post,
}

/// The receiving half of one end of a [`Pipe`].
pub struct PipeReceiver<T: ?Sized + Transport = [u8]> {
    consumer: T::Consumer,
    post: Post,
    favour: Favour,
}

/// One end of a pipe: sends to the other end and receives from it.
///
/// Each end is held by one handle of one process at a time. When that is
/// dropped, the other end gets [`RecvError::Closed`] after the last message;
/// when its process dies, [`RecvError::PeerDied`]. Either way somebody else may
/// then open the end and go on.
///
/// A pipe of bytes (`Pipe`, which is `Pipe<[u8]>`) carries messages of any
/// length, longer than its ring too, and is a stream through [`std::io::Read`]
/// and [`std::io::Write`]. A `Pipe<T>` carries values of a [`Pod`] type with
/// less latency.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use slipring::Pipe;
///
/// # let name = format!("doc-pipe-{}", std::process::id());
/// let mut here = Pipe::create(&name, 64 * 1024)?;
///
/// // In another process:
/// let mut there = Pipe::open(&name)?;
/// there.send(b"hello")?;
///
/// assert_eq!(here.recv()?, b"hello");
/// # Ok(())
/// # }
/// ```
pub struct Pipe<T: ?Sized + Transport = [u8]> {
    sender: Option<PipeSender<T>>,
    receiver: Option<PipeReceiver<T>>,
    end: End,
    attachment: Arc<Attachment>,
}

impl Pipe<[u8]> {
    /// Creates a segment that holds one byte pipe, with a ring of `bytes` in
    /// each direction, and takes [`End::A`].
    ///
    /// # Errors
    ///
    /// As [`Queue::create`](crate::Queue::create).
    pub fn create(name: &str, bytes: impl Into<PipeOptions>) -> Result<Pipe<[u8]>> {
        Segment::builder(name).pipe("pipe", bytes).create()?.pipe("pipe")
    }

    /// Opens the one pipe of a segment: [`End::B`], or `End::A` if B is held
    /// and A was given up or its holder died.
    ///
    /// # Errors
    ///
    /// As [`Queue::open`](crate::Queue::open), and [`Error::Busy`] if both ends
    /// are held.
    pub fn open(name: &str) -> Result<Pipe<[u8]>> {
        let segment = Segment::open(name)?;
        segment.only(|segment, name| Self::either(segment, name, TypeTag::bytes(), End::B))
    }

    /// Opens this end of the one pipe of a segment.
    ///
    /// # Errors
    ///
    /// As [`Pipe::open`].
    pub fn open_end(name: &str, end: End) -> Result<Pipe<[u8]>> {
        Segment::open(name)?.only(|segment, name| Self::within_bytes(segment, name, end))
    }

    /// Creates the pipe, or opens it if it exists; takes the first end that
    /// nobody holds, A before B.
    ///
    /// # Errors
    ///
    /// As [`Pipe::create`] and [`Pipe::open`].
    pub fn open_or_create(name: &str, bytes: impl Into<PipeOptions>) -> Result<Pipe<[u8]>> {
        let segment = Segment::builder(name).pipe("pipe", bytes).open_or_create()?;
        segment.only(|segment, name| Self::either(segment, name, TypeTag::bytes(), End::A))
    }

    pub(crate) fn within_bytes(segment: &Segment, name: &str, end: End) -> Result<Pipe<[u8]>> {
        Self::new(segment, name, TypeTag::bytes(), end)
    }
}

impl<T: Pod> Pipe<T> {
    /// Creates a segment that holds one pipe of `T`, with this many slots in
    /// each direction, and takes [`End::A`].
    ///
    /// Streams go fastest through some hundred slots or more. For requests that are
    /// answered one at a time take few, such as 8: their cache lines stay at hand,
    /// which saves a quarter of the round trip.
    ///
    /// # Errors
    ///
    /// As [`Queue::create`](crate::Queue::create).
    pub fn create_typed(name: &str, slots: impl Into<PipeOptions>) -> Result<Pipe<T>> {
        Segment::builder(name).typed_pipe::<T>("pipe", slots).create()?.typed_pipe("pipe")
    }

    /// Opens the one pipe of a segment: [`End::B`], or `End::A` if B is held
    /// and A was given up or its holder died.
    ///
    /// # Errors
    ///
    /// As [`Pipe::open`].
    pub fn open_typed(name: &str) -> Result<Pipe<T>> {
        let segment = Segment::open(name)?;
        segment.only(|segment, name| Self::either(segment, name, TypeTag::of::<T>(), End::B))
    }

    /// Opens this end of the one pipe of a segment.
    ///
    /// # Errors
    ///
    /// As [`Pipe::open`].
    pub fn open_typed_end(name: &str, end: End) -> Result<Pipe<T>> {
        Segment::open(name)?.only(|segment, name| Self::within(segment, name, end))
    }

    /// Creates the pipe, or opens it if it exists; takes the first end that
    /// nobody holds, A before B.
    ///
    /// # Errors
    ///
    /// As [`Pipe::create_typed`] and [`Pipe::open_typed`].
    pub fn open_or_create_typed(name: &str, slots: impl Into<PipeOptions>) -> Result<Pipe<T>> {
        let segment = Segment::builder(name).typed_pipe::<T>("pipe", slots).open_or_create()?;
        segment.only(|segment, name| Self::either(segment, name, TypeTag::of::<T>(), End::A))
    }

    pub(crate) fn within(segment: &Segment, name: &str, end: End) -> Result<Pipe<T>> {
        Self::new(segment, name, TypeTag::of::<T>(), end)
    }
}

impl<T: ?Sized + Transport> Pipe<T> {
    /// This end, or the other one if this is held.
    fn either(segment: &Segment, name: &str, tag: TypeTag, first: End) -> Result<Pipe<T>> {
        match Self::new(segment, name, tag, first) {
            Err(busy @ Error::Busy { .. }) => {
                Self::new(segment, name, tag, first.other()).map_err(|_| busy)
            }
            done => done,
        }
    }

    fn new(segment: &Segment, name: &str, tag: TypeTag, end: End) -> Result<Pipe<T>> {
        let attachment = Arc::clone(segment.attachment());
        let object = attachment.object(name)?;
        object.expect(Kind::Pipe, tag)?;
        // SAFETY: posts keep the attachment beside the views.
        let (outward, inward) = unsafe {
            (
                Direction::of(&attachment, object, end)?,
                Direction::of(&attachment, object, end.other())?,
            )
        };
        let sender_post = match outward {
            Some(direction) => Some(Post::take(&attachment, direction, Side::Sender)?),
            None => None,
        };
        let receiver_post = match inward {
            Some(direction) => match Post::take(&attachment, direction, Side::Receiver) {
                Ok(taken) => Some(taken),
                Err(error) => {
                    if let Some((post, before)) = sender_post {
                        post.put_back(before);
                    }
                    return Err(error);
                }
            },
            None => None,
        };
        let sender = match sender_post {
            Some((post, _)) => Some(PipeSender {
                producer: {
                    let Direction { ring, geometry, .. } = post.direction;
                    // SAFETY: a validated object's ring, kept mapped by the
                    // post; its seat makes this the only producer, and taking it
                    // acquired what the last one did.
                    unsafe { T::producer(ring, geometry) }?
                },
                post,
            }),
            None => None,
        };
        let receiver = match receiver_post {
            Some((post, _)) => Some(PipeReceiver {
                consumer: {
                    let Direction { ring, geometry, .. } = post.direction;
                    // SAFETY: as above, for the consumer.
                    unsafe { T::consumer(ring, geometry) }?
                },
                favour: Favour::new(post.direction.geometry.len(), FAVOUR),
                post,
            }),
            None => None,
        };
        Ok(Pipe { sender, receiver, end, attachment })
    }
}

impl<T: ?Sized + Transport> Pipe<T> {
    /// Which end this is.
    pub fn end(&self) -> End {
        self.end
    }

    /// The segment's name.
    pub fn name(&self) -> &str {
        self.attachment.name()
    }

    /// The process at the other end, as it named itself; `None` if there is
    /// none (any more, or yet).
    pub fn peer_pid(&self) -> Option<u32> {
        let post = match (&self.sender, &self.receiver) {
            (Some(sender), _) => &sender.post,
            (_, Some(receiver)) => &receiver.post,
            _ => return None,
        };
        let seat = post.direction.seat(post.side.other());
        matches!(seat.state(), State::Held(_)).then(|| seat.pid())
    }

    /// Takes the end apart, for two threads. A one-way pipe lacks one half.
    pub fn split(self) -> (Option<PipeSender<T>>, Option<PipeReceiver<T>>) {
        (self.sender, self.receiver)
    }

    #[inline(always)]
    fn sending(&mut self) -> Result<&mut PipeSender<T>> {
        match &mut self.sender {
            Some(sender) => Ok(sender),
            None => Err(Error::OneWay { end: "receives" }),
        }
    }

    #[inline(always)]
    fn receiving_or_error(&mut self) -> Result<&mut PipeReceiver<T>> {
        match &mut self.receiver {
            Some(receiver) => Ok(receiver),
            None => Err(Error::OneWay { end: "sends" }),
        }
    }

    #[inline(always)]
    fn receiving(&mut self) -> Result<&mut PipeReceiver<T>, RecvError> {
        self.receiving_or_error().map_err(RecvError::from)
    }
}

impl<T: ?Sized + Transport> fmt::Debug for Pipe<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pipe")
            .field("segment", &self.name())
            .field("end", &self.end)
            .finish_non_exhaustive()
    }
}

impl<T: ?Sized + Transport> fmt::Debug for PipeSender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PipeSender").field(&self.producer).finish()
    }
}

impl<T: ?Sized + Transport> fmt::Debug for PipeReceiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PipeReceiver").field(&self.consumer).finish()
    }
}
