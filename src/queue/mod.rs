//! Queue: many senders, many receivers, in any number of processes.
//!
//! ```text
//! region: ┌────────┬──────────┬──────────┬───────────────────────┐
//!         │ roster │ readable │ writable │ ring::mpmc             │
//!         └────────┴──────────┴──────────┴───────────────────────┘
//! ```
//!
//! The ring moves the messages, the roster knows who is there, and the two
//! events are what receivers and senders sleep on. This module joins them with
//! the attachment's knowledge of who is alive.

mod receiver;
mod sender;
mod steps;

pub use receiver::{Message, Receiver};
pub use sender::{BytesSlot, Sender, Slot};

use crate::error::{Error, Result};
use crate::memory::{LINE, Region, round_up};
use crate::pace::Pace;
use crate::ring::Owner;
use crate::ring::mpmc::{Delivery, Geometry, LARGE, Ring};
use crate::segment::Segment;
use crate::shm::attachment::{Attachment, Identity};
use crate::shm::catalog::{Kind, Object, TypeTag};
use crate::wait::{Event, Patience, Polls, Waiter, deadline};
use crate::word::roster::{self, Role, Roster};
use bytemuck::Pod;
use core::alloc::Layout;
use core::marker::PhantomData;
use std::fmt;
use std::sync::Arc;

/// What a queue shall be. A plain number of slots converts into it.
///
/// ```
/// use slipring::{Delivery, QueueOptions};
///
/// let options = QueueOptions::new(1024).delivery(Delivery::AtLeastOnce);
/// # let _ = options;
/// ```
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct QueueOptions {
    slots: usize,
    delivery: Delivery,
    start: u64,
}

impl QueueOptions {
    /// A queue of exactly this many slots, delivering at most once.
    pub fn new(slots: usize) -> Self {
        QueueOptions { slots, delivery: Delivery::AtMostOnce, start: 0 }
    }

    /// What becomes of a message whose receiver is killed while it holds it.
    pub fn delivery(mut self, delivery: Delivery) -> Self {
        self.delivery = delivery;
        self
    }

    /// Starts positions here instead of at zero, to test their wraps.
    #[doc(hidden)]
    pub fn start(mut self, start: u64) -> Self {
        self.start = start;
        self
    }
}

impl From<usize> for QueueOptions {
    fn from(slots: usize) -> Self {
        QueueOptions::new(slots)
    }
}

const AT_LEAST_ONCE: u64 = 1;
/// Messages are bytes of any length up to `max_len`.
const BYTES: u64 = 2;

/// A byte message starts with its length, in a word of its own.
pub(crate) const PREFIX: usize = 8;

/// The declaration of a queue of `T`.
pub(crate) fn declare<T: Pod>(name: &str, options: QueueOptions) -> Object {
    object(name, TypeTag::of::<T>(), options, 0, 0)
}

/// The declaration of a queue of byte messages.
pub(crate) fn declare_bytes(name: &str, options: QueueOptions, max_len: usize) -> Object {
    object(name, TypeTag::bytes(), options, BYTES, max_len)
}

fn object(name: &str, tag: TypeTag, options: QueueOptions, flags: u64, max_len: usize) -> Object {
    let delivery = match options.delivery {
        Delivery::AtMostOnce => 0,
        Delivery::AtLeastOnce => AT_LEAST_ONCE,
    };
    Object {
        name: name.to_owned(),
        kind: Kind::Queue,
        tag,
        capacity: options.slots,
        flags: flags | delivery,
        start: options.start,
        max_len,
        offset: 0,
        len: 0,
    }
}

/// Where the parts of a queue lie in its region.
pub(crate) struct Parts {
    readable: usize,
    writable: usize,
    ring: usize,
    pub(crate) len: usize,
    geometry: Geometry,
}

impl Parts {
    pub(crate) fn of(object: &Object, participants: usize) -> Result<Parts, &'static str> {
        let too_large = "the queue's size overflows";
        if object.flags & !(AT_LEAST_ONCE | BYTES) != 0 {
            return Err("unknown flags");
        }
        // Or the slots would be of another size than the messages.
        if (object.flags & BYTES != 0) != (object.tag == TypeTag::bytes()) {
            return Err("flags of another type than the elements'");
        }
        let payload = if object.flags & BYTES != 0 {
            let size = object.max_len.checked_add(PREFIX).ok_or(too_large)?;
            Layout::from_size_align(size, align_of::<u64>())
        } else {
            // Wide loads and stores of large ones straddle no lines then. (Bytes lie at 16.)
            let widest = if object.tag.size < LARGE { 1 } else { 32 };
            Layout::from_size_align(object.tag.size, object.tag.align.max(widest))
        };
        let geometry = Geometry::new(object.capacity, payload.map_err(|_| too_large)?)?;
        let event = const { round_up(size_of::<Event>(), LINE).unwrap() };
        let readable = roster::len(participants).ok_or(too_large)?;
        let writable = readable.checked_add(event).ok_or(too_large)?;
        let ring = writable.checked_add(event).ok_or(too_large)?;
        let len = ring.checked_add(geometry.len()).ok_or(too_large)?;
        Ok(Parts { readable, writable, ring, len, geometry })
    }
}

/// Writes an empty queue.
///
/// # Safety
///
/// As [`crate::kinds::init`].
pub(crate) unsafe fn init(object: &Object, region: Region<'_>, participants: usize) {
    let Ok(parts) = Parts::of(object, participants) else { return };
    let Some(ring) = region.part(parts.ring, parts.geometry.len()) else { return };
    // SAFETY: `Parts` laid these out one behind the other inside the region,
    // each at a multiple of LINE; exclusive by the caller's promise.
    unsafe {
        Roster::init(region, participants);
        region.at::<Event>(parts.readable).write(Event::default());
        region.at::<Event>(parts.writable).write(Event::default());
        Ring::init(ring, parts.geometry, object.start);
    }
}

/// What every handle of a queue shares: views of its parts.
#[derive(Clone)]
pub(crate) struct Core {
    pub(crate) ring: Ring<'static>,
    pub(crate) roster: Roster<'static>,
    pub(crate) readable: Waiter<'static>,
    pub(crate) writable: Waiter<'static>,
    pub(crate) delivery: Delivery,
    pub(crate) max_len: usize,
}

impl Core {
    /// Views of a validated object's parts.
    ///
    /// # Safety
    ///
    /// Not to be used after the attachment is dropped.
    unsafe fn new(attachment: &Attachment, object: &Object) -> Result<Core> {
        // SAFETY: `kinds::check` found the object as long as its parts need when
        // the segment was opened, and its maker ran `init` on it; the rest is
        // handed on.
        unsafe {
            let region = attachment.region(object)?;
            Core::over(region, object, attachment.max_participants(), attachment.asymmetric)
        }
    }

    /// The same, over a region of any origin.
    ///
    /// # Safety
    ///
    /// The region must hold a queue that [`init`] wrote for this object and so
    /// many participants, and outlive the views.
    unsafe fn over(
        region: Region<'static>,
        object: &Object,
        participants: usize,
        asymmetric: bool,
    ) -> Result<Core> {
        let corrupt = |what| Error::Corrupt { what, at: object.offset as u64 };
        let parts = Parts::of(object, participants).map_err(corrupt)?;
        let ring = region
            .part(parts.ring, parts.geometry.len())
            .ok_or_else(|| corrupt("length of the queue at"))?;
        // SAFETY: the parts lie inside the region, as `init` laid them, by the
        // caller's promise.
        unsafe {
            Ok(Core {
                ring: Ring::attach(ring, parts.geometry),
                roster: Roster::attach(region, participants, asymmetric),
                readable: Waiter::new(region.at::<Event>(parts.readable).as_ref(), asymmetric),
                writable: Waiter::new(region.at::<Event>(parts.writable).as_ref(), asymmetric),
                delivery: if object.flags & AT_LEAST_ONCE != 0 {
                    Delivery::AtLeastOnce
                } else {
                    Delivery::AtMostOnce
                },
                max_len: object.max_len,
            })
        }
    }
}

/// Repairs what `dead` held, and wakes everybody.
pub(crate) fn sweep(attachment: &Attachment, object: &Object, _: Region<'_>, dead: Owner) {
    // SAFETY: used during this call only; the attachment is borrowed for it.
    let Ok(core) = (unsafe { Core::new(attachment, object) }) else { return };
    core.recover(dead);
}

/// What `owner` does here.
pub(crate) fn roles(
    attachment: &Attachment,
    object: &Object,
    _: Region<'_>,
    owner: Owner,
) -> Vec<&'static str> {
    // SAFETY: as in `sweep`.
    let Ok(core) = (unsafe { Core::new(attachment, object) }) else { return Vec::new() };
    [(Role::Sender, "sender"), (Role::Receiver, "receiver")]
        .into_iter()
        .filter(|(role, _)| core.roster.count_of(owner, *role) > 0)
        .map(|(_, name)| name)
        .collect()
}

/// A queue in a segment: makes senders and receivers.
///
/// The handle itself sends and receives nothing; messages go through
/// [`Sender`]s and [`Receiver`]s, which may live in any thread of any process.
/// Each message is received once, by one receiver. Messages of one sender keep
/// their order.
///
/// `T` is any [`Pod`] type, or `[u8]` for byte messages of varying length.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use slipring::Queue;
///
/// # let name = format!("doc-queue-{}", std::process::id());
/// let queue = Queue::<u64>::create(&name, 1024)?;
/// let (mut tx, mut rx) = (queue.sender()?, queue.receiver()?);
/// tx.send(42)?;
/// assert_eq!(rx.recv()?, 42);
/// # Ok(())
/// # }
/// ```
pub struct Queue<T: ?Sized> {
    core: Core,
    // After `core`, whose views end first.
    attachment: Arc<Attachment>,
    messages: PhantomData<fn(&T) -> Box<T>>,
}

impl<T: ?Sized> Clone for Queue<T> {
    fn clone(&self) -> Self {
        Queue {
            core: self.core.clone(),
            attachment: Arc::clone(&self.attachment),
            messages: PhantomData,
        }
    }
}

impl<T: ?Sized> fmt::Debug for Queue<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue")
            .field("segment", &self.attachment.name())
            .field("len", &self.len())
            .field("capacity", &self.capacity())
            .finish_non_exhaustive()
    }
}

impl<T: Pod> Queue<T> {
    /// Creates a segment that holds one queue of `slots` messages (exactly: 7
    /// means 7), and attaches to it. It is unlinked when the last process
    /// detaches; for another policy use [`Segment::builder`].
    ///
    /// Streams go fastest through some hundred slots or more; requests that are
    /// answered one at a time through few, such as 8, whose cache lines stay at hand.
    ///
    /// # Errors
    ///
    /// [`Error::AlreadyExists`] if the name is taken, [`Error::NoSpace`] if the
    /// shared-memory file system is full, and what else [`Error`] lists.
    pub fn create(name: &str, slots: impl Into<QueueOptions>) -> Result<Queue<T>> {
        let segment = Segment::builder(name).queue::<T>("queue", slots).create()?;
        Self::within(&segment, "queue")
    }

    /// Opens the one queue of a segment.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`], [`Error::TypeMismatch`], and what else [`Error`]
    /// lists.
    pub fn open(name: &str) -> Result<Queue<T>> {
        Segment::open(name)?.only(Self::within)
    }

    /// Opens the queue, or creates it if there is none. An existing one keeps
    /// its number of slots and its delivery.
    ///
    /// # Errors
    ///
    /// As [`Queue::create`] and [`Queue::open`].
    pub fn open_or_create(name: &str, slots: impl Into<QueueOptions>) -> Result<Queue<T>> {
        Segment::builder(name).queue::<T>("queue", slots).open_or_create()?.only(Self::within)
    }

    pub(crate) fn within(segment: &Segment, name: &str) -> Result<Queue<T>> {
        Self::new(segment, name, TypeTag::of::<T>())
    }
}

impl Queue<[u8]> {
    /// Creates a segment that holds one queue of `slots` byte messages, each up
    /// to `max_len` bytes, and attaches to it.
    ///
    /// Slots have a fixed size: the queue takes about `slots * (max_len + 16)`
    /// bytes whatever is in it.
    ///
    /// # Errors
    ///
    /// As [`Queue::create`].
    pub fn create_bytes(
        name: &str,
        slots: impl Into<QueueOptions>,
        max_len: usize,
    ) -> Result<Queue<[u8]>> {
        let segment = Segment::builder(name).bytes_queue("queue", slots, max_len).create()?;
        Self::within_bytes(&segment, "queue")
    }

    /// Opens the one byte queue of a segment.
    ///
    /// # Errors
    ///
    /// As [`Queue::open`].
    pub fn open_bytes(name: &str) -> Result<Queue<[u8]>> {
        Segment::open(name)?.only(Self::within_bytes)
    }

    /// Opens the byte queue, or creates it if there is none.
    ///
    /// # Errors
    ///
    /// As [`Queue::create`] and [`Queue::open`].
    pub fn open_or_create_bytes(
        name: &str,
        slots: impl Into<QueueOptions>,
        max_len: usize,
    ) -> Result<Queue<[u8]>> {
        let builder = Segment::builder(name).bytes_queue("queue", slots, max_len);
        builder.open_or_create()?.only(Self::within_bytes)
    }

    pub(crate) fn within_bytes(segment: &Segment, name: &str) -> Result<Queue<[u8]>> {
        Self::new(segment, name, TypeTag::bytes())
    }

    /// Longest message, in bytes.
    pub fn max_len(&self) -> usize {
        self.core.max_len
    }
}

impl<T: ?Sized> Queue<T> {
    fn new(segment: &Segment, name: &str, tag: TypeTag) -> Result<Queue<T>> {
        let attachment = Arc::clone(segment.attachment());
        let object = attachment.object(name)?;
        object.expect(Kind::Queue, tag)?;
        // SAFETY: the attachment lives beside the core, in the same handle.
        let core = unsafe { Core::new(&attachment, object) }?;
        Ok(Queue { core, attachment, messages: PhantomData })
    }

    /// A new sender. As long as there is one, receivers wait for messages; when
    /// the last one is dropped, or its process dies, they drain the queue and
    /// then get [`RecvError::Closed`](crate::RecvError::Closed), until there is
    /// a sender again.
    ///
    /// # Errors
    ///
    /// Only in a forked child, which attaches anew:
    /// [`Error::ParticipantsFull`].
    pub fn sender(&self) -> Result<Sender<T>> {
        Sender::new(self)
    }

    /// A new receiver.
    ///
    /// # Errors
    ///
    /// As [`Queue::sender`].
    pub fn receiver(&self) -> Result<Receiver<T>> {
        Receiver::new(self)
    }

    /// Closes the queue for good: senders get their messages back, receivers
    /// drain what is there and then get `Closed`.
    pub fn close(&self) {
        self.core.close();
    }

    /// Whether it was closed by [`Queue::close`].
    pub fn is_closed(&self) -> bool {
        self.core.roster.is_closed()
    }

    /// Messages in the queue, with those being written: a moment's truth.
    pub fn len(&self) -> usize {
        self.core.ring.len()
    }

    /// Whether the queue was empty a moment ago.
    pub fn is_empty(&self) -> bool {
        self.core.ring.is_empty()
    }

    /// Whether the queue was full a moment ago.
    pub fn is_full(&self) -> bool {
        self.core.ring.is_full()
    }

    /// Slots: exactly what it was created with.
    pub fn capacity(&self) -> usize {
        self.core.ring.geometry().capacity()
    }

    /// What becomes of a message whose receiver is killed holding it.
    pub fn delivery(&self) -> Delivery {
        self.core.delivery
    }

    /// Senders in all processes, a moment ago.
    pub fn senders(&self) -> usize {
        self.core.roster.count(Role::Sender)
    }

    /// Receivers in all processes, a moment ago.
    pub fn receivers(&self) -> usize {
        self.core.roster.count(Role::Receiver)
    }

    /// Counts since the queue was created. Advisory: a process that is killed
    /// between a change and its count leaves them one short.
    pub fn counters(&self) -> QueueCounters {
        let counts = self.core.ring.counts();
        QueueCounters {
            sent: counts.claimed.saturating_sub(counts.abandoned),
            received: counts.resolved.saturating_sub(counts.abandoned),
            lost: counts.lost,
            redelivered: counts.redelivered,
            abandoned: counts.abandoned,
        }
    }
}

/// Advisory counts of a queue: see [`Queue::counters`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct QueueCounters {
    /// Messages sent, with those being written.
    pub sent: u64,
    /// Messages taken by a receiver, with the lost ones.
    pub received: u64,
    /// Messages lost with the receiver that held them (at most once).
    pub lost: u64,
    /// Messages delivered again after their receiver died (at least once).
    pub redelivered: u64,
    /// Slots given up by their sender, or lost with it before the commit.
    pub abandoned: u64,
}

/// A queue and the right to use it in one role: what senders and receivers
/// have in common.
struct Port<T: ?Sized> {
    queue: Queue<T>,
    role: Role,
    identity: Identity,
    polls: Polls,
    patience: Patience,
    pace: Pace,
}

impl<T: ?Sized> Port<T> {
    fn new(queue: &Queue<T>, role: Role) -> Result<Port<T>> {
        let identity = queue.attachment.identity()?;
        queue.core.roster.enter(identity.me, role)?;
        Ok(Port::of(queue.clone(), role, identity))
    }

    fn duplicate(&self) -> Port<T> {
        // In a forked child the copy, like the original, enters at first use.
        if self.identity.is_current() {
            let _ = self.queue.core.roster.enter(self.identity.me, self.role);
        }
        Port::of(self.queue.clone(), self.role, self.identity)
    }

    fn of(queue: Queue<T>, role: Role, identity: Identity) -> Port<T> {
        let pace = Pace::new(queue.capacity());
        let (polls, patience) = (Polls::new(), Patience::new());
        Port { queue, role, identity, polls, patience, pace }
    }

    /// This process's number. A forked child attaches and enters anew.
    #[inline(always)]
    fn me(&mut self) -> Result<Owner> {
        if self.identity.is_current() { Ok(self.identity.me) } else { self.enter_after_fork() }
    }

    #[cold]
    fn enter_after_fork(&mut self) -> Result<Owner> {
        let identity = self.queue.attachment.identity()?;
        self.queue.core.roster.enter(identity.me, self.role)?;
        self.identity = identity;
        Ok(identity.me)
    }

    /// For those who wait: `slice_over` says whether they have for a slice.
    /// Several waits that end before that count together.
    fn check_waiting(&self, holder: Option<Owner>, slice_over: bool) -> Result<bool> {
        let everybody = self.polls.slice_is_over() || slice_over;
        self.check(holder, everybody)
    }

    /// Asks whether whoever holds things up is dead, and if so recovers it;
    /// `everybody` looks through the table as well. Whether anything changed.
    fn check(&self, holder: Option<Owner>, everybody: bool) -> Result<bool> {
        let attachment = &self.queue.attachment;
        let mut changed = false;
        if let Some(owner) = holder
            && !attachment.is_alive(owner)
        {
            changed |= attachment.recover(owner)?;
        }
        if everybody {
            changed |= attachment.recover_dead(CHECKED_PER_SLICE)? > 0;
        }
        Ok(changed)
    }

    /// For those who poll instead of waiting: checks once a slice.
    #[inline]
    fn missed(&self, holder: Option<Owner>) -> Result<()> {
        if self.polls.is_due(holder.is_some()) {
            self.check(holder, true)?;
        }
        Ok(())
    }
}

/// Participants asked for a sign of life per slice and waiting handle.
const CHECKED_PER_SLICE: usize = 64;

impl<T: ?Sized> Drop for Port<T> {
    fn drop(&mut self) {
        // In a forked child that never used it, it is the parent's.
        if self.identity.is_current() {
            self.queue.core.leave(self.identity.me, self.role);
        }
    }
}

/// An outcome of one look at the ring.
enum Refusal {
    /// Full (or empty); this one holds the slot that matters.
    NotNow(Option<Owner>),
    /// Nothing will come of waiting.
    Over,
    Failed(Error),
}

const _: () = {
    // Handles move between threads; each is used by one at a time.
    const fn send<T: Send>() {}
    send::<Sender<u64>>();
    send::<Receiver<[u8]>>();
    const fn sync<T: Sync>() {}
    sync::<Queue<u64>>();
};
