//! Pipes of values: one Pod value per slot, over [`crate::ring::spsc`].

use super::sealed::Sealed;
use super::{Geometry, Pipe, PipeReceiver, PipeSender, end_of_stream};
use crate::error::{Error, RecvError, Result, SendError};
use crate::favour::Favour;
use crate::memory::{Region, chunk, in_one_line, own_lines_from, take_line};
use crate::ring::spsc::{Consumer, Next, Producer, Ring, Spot};
use crate::sync::point;
use crate::wait::{Look, deadline, glance, is_over};
use crate::word::seat::State;
use bytemuck::Pod;
use core::alloc::Layout;
use core::mem::MaybeUninit;
use core::ops::{Deref, DerefMut};
use core::ptr::NonNull;
use std::fmt;
use std::time::{Duration, Instant};

/// Messages up to so many bytes are taken to be read as a whole where they lie.
const SHORT: usize = 1024;

impl<T: Pod> Sealed for T {
    type Producer = Producer<'static>;
    type Consumer = Consumer<'static>;

    unsafe fn producer(ring: Region<'static>, geometry: Geometry) -> Result<Self::Producer> {
        // SAFETY: handed on.
        unsafe { attach(ring, geometry)?.producer() }
    }

    unsafe fn consumer(ring: Region<'static>, geometry: Geometry) -> Result<Self::Consumer> {
        // SAFETY: handed on.
        unsafe { attach(ring, geometry)?.consumer() }
    }
}

/// # Safety
///
/// As [`Ring::attach`].
unsafe fn attach(ring: Region<'static>, geometry: Geometry) -> Result<Ring<'static>> {
    match geometry {
        // SAFETY: handed on.
        Geometry::Typed(geometry) => Ok(unsafe { Ring::attach(ring, geometry) }),
        Geometry::Bytes(_) => Err(Error::Corrupt { what: "flags of a pipe", at: 0 }),
    }
}

impl<T: Pod> PipeSender<T> {
    /// Whether there is room for the next message in the usual case, which is
    /// small enough for the caller's loop; if not, it goes the long way.
    #[inline(always)]
    fn has_room(&self, next: &Next<'static>) -> bool {
        self.post.is_current() && !self.post.direction.receiver.is_gone() && next.is_free()
    }

    /// One whole look: whether there is room now.
    fn look(&mut self) -> Result<bool, SendError<()>> {
        if !self.post.is_current() {
            self.renew()?;
        }
        if let State::Left | State::Died(_) = self.post.peer() {
            return Err(SendError::Closed(()));
        }
        let claim = self.producer.try_claim()?;
        Ok(claim.is_some())
    }

    #[cold]
    fn renew(&mut self) -> Result<()> {
        self.post.renew()?;
        // SAFETY: the seat was just taken, so this is the only producer; the
        // one from before the fork is dropped here.
        let producer = unsafe { self.producer.ring().producer() };
        self.producer = producer.inspect_err(|_| self.post.give_up())?;
        Ok(())
    }

    #[inline(never)]
    fn room_now(&mut self) -> Result<(), SendError<()>> {
        if self.look()? {
            return Ok(());
        }
        self.missed();
        self.post.missed()?;
        Err(SendError::Full(()))
    }

    /// A fruitless look: see [`Pace`].
    ///
    /// [`Pace`]: crate::pace::Pace
    fn missed(&self) {
        let (place, total) = (self.producer.place(), || self.producer.count());
        self.post.pace.miss_at(place, total, |n| self.producer.has_room(n));
    }

    #[inline(never)]
    fn room_by(&mut self, deadline: Option<Instant>) -> Result<(), SendError<()>> {
        if self.look()? {
            return Ok(());
        }
        self.missed();
        self.room_waiting(deadline)
    }

    #[cold]
    fn room_waiting(&mut self, deadline: Option<Instant>) -> Result<(), SendError<()>> {
        loop {
            let PipeSender { producer, post } = self;
            let waited = post.wait(deadline, || match (producer.is_ready(), post.peer()) {
                (_, State::Left | State::Died(_)) => Look::Ready(Ok(())),
                (true, _) => Look::Ready(Ok(())),
                _ => Look::NotYet,
            });
            match waited {
                None => return Err(SendError::Timeout(())),
                Some(Err(error)) => return Err(error.into()),
                Some(Ok(())) => {}
            }
            // Not so only if a successor of the receiver came between two looks.
            if self.look()? {
                return Ok(());
            }
            if is_over(deadline) {
                return Err(SendError::Timeout(()));
            }
        }
    }

    #[inline(always)]
    fn put(&mut self, next: Next<'static>, message: T) {
        if !in_one_line::<T>() {
            self.producer.ring().prefetch::<T>(&next);
        }
        // SAFETY: `has_room` or a look found a free slot of the ring, the producer's
        // alone, sized and aligned for the object's element, found to be `T` when the
        // pipe was opened.
        unsafe { next.payload::<T>().write(message) };
        point("pipe.written");
        // After the one line that is at hand; measured.
        if in_one_line::<T>() {
            self.producer.ring().prefetch::<T>(&next);
        }
        self.producer.publish::<T>(next);
        self.post.direction.readable.notify();
    }

    /// Sends without waiting.
    ///
    /// # Errors
    ///
    /// `Full`, `Closed` when the other end is gone, or `Failed`, with the
    /// message. `Full` right after many messages may take six microseconds, in
    /// which the receiver can get on.
    #[inline(always)]
    pub fn try_send(&mut self, message: T) -> Result<(), SendError<T>> {
        let next = self.producer.next();
        if self.has_room(&next) {
            self.put(next, message);
            return Ok(());
        }
        // A copy, so that the message itself can live in registers.
        self.try_send_elsewise(&{ message })
    }

    #[inline(never)]
    fn try_send_elsewise(&mut self, message: &T) -> Result<(), SendError<T>> {
        match self.room_now() {
            Ok(()) => {
                self.put(self.producer.next(), *message);
                Ok(())
            }
            Err(error) => Err(error.with(message)),
        }
    }

    /// Sends, waiting for room for as long as it takes.
    ///
    /// # Errors
    ///
    /// `Closed` or `Failed`, with the message.
    #[inline(always)]
    pub fn send(&mut self, message: T) -> Result<(), SendError<T>> {
        self.send_by(message, None)
    }

    /// Sends, waiting for room for at most `timeout`.
    ///
    /// # Errors
    ///
    /// `Timeout`, `Closed` or `Failed`, with the message.
    pub fn send_timeout(&mut self, message: T, timeout: Duration) -> Result<(), SendError<T>> {
        self.send_by(message, deadline(timeout))
    }

    /// Sends, waiting for room until `at`.
    ///
    /// # Errors
    ///
    /// As [`PipeSender::send_timeout`].
    pub fn send_deadline(&mut self, message: T, at: Instant) -> Result<(), SendError<T>> {
        self.send_by(message, Some(at))
    }

    #[inline(always)]
    fn send_by(&mut self, message: T, deadline: Option<Instant>) -> Result<(), SendError<T>> {
        let next = self.producer.next();
        if self.has_room(&next) {
            self.put(next, message);
            return Ok(());
        }
        self.send_elsewise(&{ message }, deadline)
    }

    #[inline(never)]
    fn send_elsewise(
        &mut self,
        message: &T,
        deadline: Option<Instant>,
    ) -> Result<(), SendError<T>> {
        match self.room_by(deadline) {
            Ok(()) => {
                self.put(self.producer.next(), *message);
                Ok(())
            }
            Err(error) => Err(error.with(message)),
        }
    }

    /// Sends all messages in order, waiting for room as [`PipeSender::send`]
    /// does.
    ///
    /// # Errors
    ///
    /// `Closed` or `Failed`, with the number of messages that were sent.
    pub fn send_many(&mut self, messages: &[T]) -> Result<(), SendError<usize>> {
        let mut sent = 0;
        while sent < messages.len() {
            self.room_by(None).map_err(|error| error.map(|()| sent))?;
            let rest = &messages[sent..];
            let nth = |nth| rest[nth];
            sent += self.producer.publish_each(rest.len(), nth, || true, || ());
            self.post.direction.readable.notify();
        }
        Ok(())
    }

    /// Sends `n` messages in order, which `make` makes one by one: it is told how many
    /// there were before. Waits for room as [`PipeSender::send`] does; what there is no
    /// room for is not made yet.
    ///
    /// The fastest way to send many short messages, which need no memory of their own.
    /// Those that share a cache line (of up to 24 bytes) are sent together, as soon as the
    /// line is full, so `make` must not wait for an answer to one of them. When it panics,
    /// or the process dies in it, what it made for the same line is not sent; all
    /// before is. (Messages of many kilobytes are copied from the stack, maybe twice:
    /// [`PipeSender::reserve`] avoids that.)
    ///
    /// # Errors
    ///
    /// `Closed` or `Failed`, with the number of messages that were sent. `Failed`, too, in
    /// a child that `make` forked: the batch is its parent's, and nothing of what was made
    /// in the child is sent.
    ///
    /// # Panics
    ///
    /// Only if `make` does.
    ///
    /// # Examples
    ///
    /// ```
    /// # use slipring::Pipe;
    /// # fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    /// # let name = &format!("doc-send-each-{}", std::process::id());
    /// let mut a = Pipe::<u64>::create_typed(name, 64)?;
    /// let mut b = Pipe::<u64>::open_typed(name)?;
    /// a.send_each(3, |nth| nth as u64 * 10)?;
    /// let mut got = Vec::new();
    /// b.recv_many(&mut got, 3)?;
    /// assert_eq!(got, [0, 10, 20]);
    /// # Ok(())
    /// # }
    /// ```
    #[inline]
    pub fn send_each(
        &mut self,
        n: usize,
        mut make: impl FnMut(usize) -> T,
    ) -> Result<(), SendError<usize>> {
        let mut sent = 0;
        while sent < n {
            self.room_by(None).map_err(|error| error.map(|()| sent))?;
            let identity = self.post.identity;
            let readable = &self.post.direction.readable;
            // A child that `make` forked writes nothing: the room is its parent's.
            let goes_on = || identity.is_current();
            let announced = || readable.notify();
            let make = |nth| make(sent + nth);
            sent += self.producer.publish_each(n - sent, make, goes_on, announced);
            if !identity.is_current() {
                // Even if the parent is gone: how far it came, only it knows.
                return Err(SendError::Failed(sent, self.post.is_not_ours().into()));
            }
        }
        Ok(())
    }

    #[inline(always)]
    fn slot(&mut self) -> PipeSlot<'_, T> {
        let next = self.producer.next();
        self.producer.ring().prefetch_first(&next);
        PipeSlot { sender: self }
    }

    /// Room for the next message, to be written in place, waiting for as long
    /// as it takes. Nothing is held up by it: a message that is not committed
    /// does not exist.
    ///
    /// # Errors
    ///
    /// `Closed` or `Failed`.
    #[inline]
    pub fn reserve(&mut self) -> Result<PipeSlot<'_, T>, SendError<()>> {
        if !self.has_room(&self.producer.next()) {
            self.room_by(None)?;
        }
        Ok(self.slot())
    }

    /// Room for the next message, without waiting.
    ///
    /// # Errors
    ///
    /// `Full`, `Closed` or `Failed`.
    #[inline]
    pub fn try_reserve(&mut self) -> Result<PipeSlot<'_, T>, SendError<()>> {
        if !self.has_room(&self.producer.next()) {
            self.room_now()?;
        }
        Ok(self.slot())
    }
}

/// Room for one message: write it in place, then
/// [`commit`](PipeSlot::commit). Dropping it gives the room back.
///
/// Until it is written it holds the bytes of an earlier message.
#[must_use = "a message that is not committed is not sent"]
pub struct PipeSlot<'a, T: Pod> {
    sender: &'a mut PipeSender<T>,
}

impl<T: Pod> PipeSlot<'_, T> {
    /// Writes the whole message.
    #[inline]
    pub fn write(&mut self, message: T) {
        **self = message;
    }

    /// Sends the message. In a forked child, where the end is the parent's,
    /// this does nothing.
    #[inline]
    pub fn commit(self) {
        if self.sender.post.is_current() {
            let next = self.sender.producer.next();
            self.sender.producer.publish::<T>(next);
            self.sender.post.direction.readable.notify();
        }
    }
}

impl<T: Pod> Deref for PipeSlot<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: as in `PipeSender::put`; any bytes are a `T`.
        unsafe { self.sender.producer.next().payload().as_ref() }
    }
}

impl<T: Pod> DerefMut for PipeSlot<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as in `deref`; the slot is the producer's alone.
        unsafe { self.sender.producer.next().payload().as_mut() }
    }
}

impl<T: Pod + fmt::Debug> fmt::Debug for PipeSlot<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PipeSlot").field(&**self).finish()
    }
}

impl<T: Pod> PipeReceiver<T> {
    /// Whether there is a message in the usual case: as [`PipeSender::has_room`].
    #[inline(always)]
    fn has_message(&self, next: &Next<'static>) -> bool {
        self.post.is_current() && next.is_full()
    }

    /// One whole look: whether there is a message now.
    fn look(&mut self) -> Result<bool, RecvError> {
        if !self.post.is_current() {
            self.renew()?;
        }
        if self.consumer.peek()?.is_some() {
            return Ok(true);
        }
        let Some(end) = end_of_stream(self.post.peer()) else { return Ok(false) };
        // What was sent before the end is visible now.
        if self.consumer.peek()?.is_some() { Ok(true) } else { Err(end) }
    }

    #[cold]
    fn renew(&mut self) -> Result<()> {
        self.post.renew()?;
        // SAFETY: as for the producer.
        let consumer = unsafe { self.consumer.ring().consumer() };
        self.consumer = consumer.inspect_err(|_| self.post.give_up())?;
        Ok(())
    }

    /// A fruitless look: see [`Pace`]. Whether it rested.
    ///
    /// [`Pace`]: crate::pace::Pace
    fn missed(&self) -> bool {
        let (place, total) = (self.consumer.place(), || self.consumer.count());
        self.post.pace.miss_at(place, total, |n| self.consumer.has_stock(n))
    }

    #[inline(never)]
    fn look_now(&mut self) -> Result<(), RecvError> {
        if self.look()? {
            return Ok(());
        }
        self.missed();
        self.post.missed()?;
        Err(RecvError::Empty)
    }

    #[inline(never)]
    fn look_by(&mut self, deadline: Option<Instant>) -> Result<(), RecvError> {
        let next = self.consumer.next();
        if self.has_message(&next) {
            return Ok(());
        }
        self.missed();
        if glance(deadline, || self.has_message(&next).then_some(())).is_some() || self.look()? {
            return Ok(());
        }
        self.look_waiting(deadline)
    }

    fn look_waiting(&mut self, deadline: Option<Instant>) -> Result<(), RecvError> {
        loop {
            let PipeReceiver { consumer, post, .. } = self;
            let waited = post.wait(deadline, || {
                if consumer.is_ready() || end_of_stream(post.peer()).is_some() {
                    Look::Ready(Ok(()))
                } else {
                    Look::NotYet
                }
            });
            match waited {
                None => return Err(RecvError::Timeout),
                Some(done) => done?,
            }
            // Not so only if a successor came between the two looks, or a peer
            // takes its words back.
            if self.look()? {
                return Ok(());
            }
            if is_over(deadline) {
                return Err(RecvError::Timeout);
            }
        }
    }

    #[inline(always)]
    fn get(&mut self, next: Next<'static>) -> T {
        if !in_one_line::<T>() {
            self.consumer.ring().prefetch::<T>(&next);
        }
        let mut copy = MaybeUninit::uninit();
        Self::copy(next.payload(), &mut copy, &self.favour);
        // SAFETY: `copy` has written it.
        let copy = unsafe { copy.assume_init() };
        if in_one_line::<T>() {
            self.consumer.ring().prefetch::<T>(&next);
        }
        self.consumer.pass::<T>(next);
        self.post.direction.writable.notify_with(copy)
    }

    #[inline(always)]
    fn copy(message: NonNull<T>, to: &mut MaybeUninit<T>, favour: &Favour) {
        // SAFETY: a published slot, which nobody else touches before its release;
        // sized and aligned as in `PipeSender::put`; any bytes are a `T`.
        unsafe {
            if const { size_of::<T>() == 64 } {
                take_line(message, to);
            } else {
                to.as_mut_ptr().copy_from_nonoverlapping(message.as_ptr(), 1);
                Self::own(message, favour);
            }
        }
    }

    /// See [`own_lines`](crate::memory::own_lines), and [`Favour`].
    ///
    /// # Safety
    ///
    /// A message of the ring that nobody else touches.
    #[inline(always)]
    unsafe fn own(message: NonNull<T>, favour: &Favour) {
        // The slot of a message of several lines begins with one.
        let first = const { Spot::of(Layout::new::<T>()) }.map_or(0, |spot| spot.offset);
        let first = first.wrapping_neg() % 64;
        let len = size_of::<T>();
        if !in_one_line::<T>() && favour.wants(len, len, || true) {
            // SAFETY: as the caller promises.
            unsafe { own_lines_from(message.cast(), first, len) };
        }
    }

    #[inline(always)]
    fn lend(&mut self) -> PipeMessage<'_, T> {
        let next = self.consumer.next();
        self.consumer.ring().prefetch_first(&next);
        PipeMessage { receiver: self }
    }

    #[inline(always)]
    fn release(&mut self) {
        let next = self.consumer.next();
        self.consumer.pass::<T>(next);
        self.post.direction.writable.notify();
    }

    /// Receives without waiting.
    ///
    /// # Errors
    ///
    /// `Empty`, `Closed`, `PeerDied` or `Failed`. `Empty` right after many
    /// messages may take six microseconds, in which more of them can come.
    #[inline(always)]
    pub fn try_recv(&mut self) -> Result<T, RecvError> {
        let mut next = self.consumer.next();
        if !self.has_message(&next) {
            self.look_now()?;
            next = self.consumer.next();
        }
        Ok(self.get(next))
    }

    /// Receives, waiting for as long as it takes.
    ///
    /// # Errors
    ///
    /// `Closed`, `PeerDied` or `Failed`.
    #[inline(always)]
    pub fn recv(&mut self) -> Result<T, RecvError> {
        let mut next = self.consumer.next();
        if !self.has_message(&next) {
            self.look_by(None)?;
            next = self.consumer.next();
        }
        Ok(self.get(next))
    }

    /// Receives, waiting for at most `timeout`.
    ///
    /// # Errors
    ///
    /// `Timeout`, `Closed`, `PeerDied` or `Failed`.
    pub fn recv_timeout(&mut self, timeout: Duration) -> Result<T, RecvError> {
        self.look_by(deadline(timeout))?;
        Ok(self.get(self.consumer.next()))
    }

    /// Receives, waiting until `at`.
    ///
    /// # Errors
    ///
    /// As [`PipeReceiver::recv_timeout`].
    pub fn recv_deadline(&mut self, at: Instant) -> Result<T, RecvError> {
        self.look_by(Some(at))?;
        Ok(self.get(self.consumer.next()))
    }

    /// Waits for a message, then appends it and what else is there to `to`, up
    /// to `max` messages or what the pipe holds; returns how many.
    ///
    /// # Errors
    ///
    /// As [`PipeReceiver::recv`], if not even one came.
    pub fn recv_many(&mut self, to: &mut Vec<T>, max: usize) -> Result<usize, RecvError> {
        self.pass_many(max, |PipeReceiver { consumer, favour, .. }, max| {
            to.reserve(max);
            let room = &mut to.spare_capacity_mut()[..max];
            let copy = |nth, message| Self::copy(message, &mut room[nth], favour);
            let count = consumer.read_each(max, copy, || true);
            // SAFETY: `count` elements more are initialised.
            unsafe { to.set_len(to.len() + count) };
            count
        })
    }

    /// Waits for a message, then shows it and what else is there to `read`, in order
    /// and in place, up to `max` messages or what the pipe holds; returns how many. (For
    /// a `max` of 0 it does not wait.)
    ///
    /// The fastest way to receive many short messages: none is copied, and they are
    /// released together, after each 64 of them or 64 KiB. When `read` panics, or the
    /// process dies in it, those that were not released will be received again. A child
    /// that `read` forks must not return from it: the messages are its parent's. (It
    /// would release none, and see no more than a line of them, maybe overwritten.)
    /// (Messages from some hundred bytes on come over faster as whole copies:
    /// [`PipeReceiver::recv_many`].)
    ///
    /// Meanwhile the sender finds none of their slots free. So `read` must not wait for
    /// it, as when it sends answers that the sender has to receive first: use
    /// [`PipeReceiver::recv`] for that.
    ///
    /// # Errors
    ///
    /// As [`PipeReceiver::recv`], if not even one came.
    ///
    /// # Panics
    ///
    /// Only if `read` does.
    ///
    /// # Examples
    ///
    /// ```
    /// # use slipring::Pipe;
    /// # fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    /// # let name = &format!("doc-recv-each-{}", std::process::id());
    /// let mut a = Pipe::<u64>::create_typed(name, 64)?;
    /// let mut b = Pipe::<u64>::open_typed(name)?;
    /// a.send_many(&[1, 2, 3])?;
    /// let mut sum = 0;
    /// assert_eq!(b.recv_each(64, |message| sum += message)?, 3);
    /// assert_eq!(sum, 6);
    /// # Ok(())
    /// # }
    /// ```
    #[inline]
    pub fn recv_each(&mut self, max: usize, mut read: impl FnMut(&T)) -> Result<usize, RecvError> {
        self.pass_many(max, |PipeReceiver { consumer, post, favour }, max| {
            let identity = post.identity;
            let see = |_, message: NonNull<T>| {
                // SAFETY: a published slot, which nobody writes to before its release;
                // sized and aligned as in `PipeSender::put`; any bytes are a `T`. (A
                // child that `read` forked does not come back here.)
                read(unsafe { message.as_ref() });
                if const { !in_one_line::<T>() && size_of::<T>() <= SHORT } && identity.is_current()
                {
                    // SAFETY: as above, and the reference is gone.
                    unsafe { Self::own(message, favour) };
                }
            };
            consumer.read_each(max, see, || identity.is_current())
        })
    }

    /// Waits for a message, then has `read` see chunks of what is there, up to `max`
    /// messages or what the pipe holds, and releases them; how many.
    #[inline(always)]
    fn pass_many(
        &mut self,
        max: usize,
        mut read: impl FnMut(&Self, usize) -> usize,
    ) -> Result<usize, RecvError> {
        // Not for ever, whatever comes meanwhile.
        let max = max.min(self.consumer.ring().geometry().capacity());
        let (mut count, mut rested) = (0, false);
        while count < max {
            let wanted = (max - count).min(chunk::<T>());
            // A forked child has not taken the end yet; or `read` forked, and what it
            // saw is the parent's.
            let current = self.post.is_current();
            let passed = if current { read(self, wanted) } else { 0 };
            if passed > 0 && self.post.is_current() {
                self.consumer.release_each::<T>(passed);
                // At once: the next `read` may unwind.
                self.post.direction.writable.notify();
            }
            count += passed;
            if count == 0 {
                self.look_by(None)?;
            } else if passed < wanted {
                if rested || !self.missed() {
                    break;
                }
                rested = true;
            }
        }
        Ok(count)
    }

    /// The next message in place, waiting for as long as it takes. Dropping the
    /// guard releases it; a guard that is forgotten gives the message again.
    ///
    /// # Errors
    ///
    /// `Closed`, `PeerDied` or `Failed`.
    #[inline]
    pub fn peek(&mut self) -> Result<PipeMessage<'_, T>, RecvError> {
        if !self.has_message(&self.consumer.next()) {
            self.look_by(None)?;
        }
        Ok(self.lend())
    }

    /// The next message in place, without waiting.
    ///
    /// # Errors
    ///
    /// `Empty`, `Closed`, `PeerDied` or `Failed`.
    #[inline]
    pub fn try_peek(&mut self) -> Result<PipeMessage<'_, T>, RecvError> {
        if !self.has_message(&self.consumer.next()) {
            self.look_now()?;
        }
        Ok(self.lend())
    }

    /// Waits until there is something to receive (a message, or the end of the
    /// stream), for at most `timeout`; whether there is.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`], [`Error::Os`]; [`Error::Busy`] in a forked child
    /// whose parent holds the end.
    pub fn poll(&mut self, timeout: Duration) -> Result<bool> {
        match self.look_by(deadline(timeout)) {
            Ok(()) | Err(RecvError::Closed | RecvError::PeerDied { .. }) => Ok(true),
            Err(RecvError::Failed(error)) => Err(*error),
            Err(RecvError::Empty | RecvError::Timeout) => Ok(false),
        }
    }
}

/// A received message, lent in place. Dropping it releases its slot.
// One word, as if it had a `Lent`.
pub struct PipeMessage<'a, T: Pod> {
    receiver: &'a mut PipeReceiver<T>,
}

impl<T: Pod> PipeMessage<'_, T> {
    /// Releases the message: the same as dropping it.
    pub fn release(self) {}

    /// Releases a message that was read from end to end, and takes its cache lines
    /// from the sender, as `recv` does, where that makes streams of messages above 64
    /// bytes faster (above 256 bytes the receiver finds out by trying). One that was
    /// hardly looked at costs more so.
    #[inline]
    pub fn release_read(self) {
        // In a forked child it is the parent's.
        if self.receiver.post.is_current() {
            let PipeReceiver { consumer, favour, .. } = &*self.receiver;
            // SAFETY: as in `PipeReceiver::copy`; whoever borrowed it is done.
            unsafe { PipeReceiver::own(consumer.next().payload::<T>(), favour) };
        }
    }
}

impl<T: Pod> Deref for PipeMessage<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: as in `PipeReceiver::copy`.
        unsafe { self.receiver.consumer.next().payload().as_ref() }
    }
}

impl<T: Pod> Drop for PipeMessage<'_, T> {
    #[inline]
    fn drop(&mut self) {
        // In a forked child it is the parent's.
        if self.receiver.post.is_current() {
            self.receiver.release();
        }
    }
}

impl<T: Pod + fmt::Debug> fmt::Debug for PipeMessage<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PipeMessage").field(&**self).finish()
    }
}

/// Sending and receiving without taking the end apart: see [`PipeSender`] and
/// [`PipeReceiver`]. On an end of a one-way pipe the missing half fails with
/// [`Error::OneWay`].
impl<T: Pod> Pipe<T> {
    /// See [`PipeSender::try_send`].
    ///
    /// # Errors
    ///
    /// As there.
    #[inline(always)]
    pub fn try_send(&mut self, message: T) -> Result<(), SendError<T>> {
        match self.sending() {
            Ok(sender) => sender.try_send(message),
            Err(error) => Err(SendError::from(error).with(&{ message })),
        }
    }

    /// See [`PipeSender::send`].
    ///
    /// # Errors
    ///
    /// As there.
    #[inline(always)]
    pub fn send(&mut self, message: T) -> Result<(), SendError<T>> {
        match self.sending() {
            Ok(sender) => sender.send(message),
            Err(error) => Err(SendError::from(error).with(&{ message })),
        }
    }

    /// See [`PipeSender::send_timeout`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn send_timeout(&mut self, message: T, timeout: Duration) -> Result<(), SendError<T>> {
        match self.sending() {
            Ok(sender) => sender.send_timeout(message, timeout),
            Err(error) => Err(SendError::from(error).with(&{ message })),
        }
    }

    /// See [`PipeSender::send_deadline`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn send_deadline(&mut self, message: T, at: Instant) -> Result<(), SendError<T>> {
        match self.sending() {
            Ok(sender) => sender.send_deadline(message, at),
            Err(error) => Err(SendError::from(error).with(&{ message })),
        }
    }

    /// See [`PipeSender::send_many`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn send_many(&mut self, messages: &[T]) -> Result<(), SendError<usize>> {
        self.sending().map_err(|error| SendError::Failed(0, error.into()))?.send_many(messages)
    }

    /// See [`PipeSender::send_each`].
    ///
    /// # Errors
    ///
    /// As there.
    ///
    /// # Panics
    ///
    /// As there.
    #[inline]
    pub fn send_each(
        &mut self,
        n: usize,
        make: impl FnMut(usize) -> T,
    ) -> Result<(), SendError<usize>> {
        self.sending().map_err(|error| SendError::Failed(0, error.into()))?.send_each(n, make)
    }

    /// See [`PipeSender::reserve`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn reserve(&mut self) -> Result<PipeSlot<'_, T>, SendError<()>> {
        self.sending()?.reserve()
    }

    /// See [`PipeReceiver::try_recv`].
    ///
    /// # Errors
    ///
    /// As there.
    #[inline(always)]
    pub fn try_recv(&mut self) -> Result<T, RecvError> {
        self.receiving()?.try_recv()
    }

    /// See [`PipeReceiver::recv`].
    ///
    /// # Errors
    ///
    /// As there.
    #[inline(always)]
    pub fn recv(&mut self) -> Result<T, RecvError> {
        self.receiving()?.recv()
    }

    /// See [`PipeReceiver::recv_timeout`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn recv_timeout(&mut self, timeout: Duration) -> Result<T, RecvError> {
        self.receiving()?.recv_timeout(timeout)
    }

    /// See [`PipeReceiver::recv_deadline`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn recv_deadline(&mut self, at: Instant) -> Result<T, RecvError> {
        self.receiving()?.recv_deadline(at)
    }

    /// See [`PipeReceiver::recv_many`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn recv_many(&mut self, to: &mut Vec<T>, max: usize) -> Result<usize, RecvError> {
        self.receiving()?.recv_many(to, max)
    }

    /// See [`PipeReceiver::recv_each`].
    ///
    /// # Errors
    ///
    /// As there.
    ///
    /// # Panics
    ///
    /// As there.
    #[inline]
    pub fn recv_each(&mut self, max: usize, read: impl FnMut(&T)) -> Result<usize, RecvError> {
        self.receiving()?.recv_each(max, read)
    }

    /// See [`PipeReceiver::peek`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn peek(&mut self) -> Result<PipeMessage<'_, T>, RecvError> {
        self.receiving()?.peek()
    }

    /// See [`PipeReceiver::poll`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn poll(&mut self, timeout: Duration) -> Result<bool> {
        self.receiving_or_error()?.poll(timeout)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::os::WAKES;

    /// Announces that somebody sleeps, whom each line of a batch must wake.
    fn wakes<const WORDS: usize>(lines: &[usize])
    where
        [u64; WORDS]: Pod,
    {
        let name = format!("slipring-unit-each-{WORDS}-{}", std::process::id());
        let mut a = Pipe::<[u64; WORDS]>::create_typed(&name, 64).unwrap();
        let sender = a.sending().unwrap();
        let readable = sender.post.direction.readable;
        let before = WAKES.get();
        readable.prepare();
        let n = lines.iter().sum();
        let sent = sender.send_each(n, |nth| {
            let mut begun = 0;
            for (line, slots) in lines.iter().enumerate() {
                if begun == nth {
                    assert_eq!(WAKES.get() - before, line, "before message {nth}");
                    readable.prepare();
                }
                begun += slots;
            }
            [7; WORDS]
        });
        sent.unwrap();
        assert_eq!(WAKES.get() - before, lines.len());
    }

    #[test]
    fn a_batch_wakes_with_each_line() {
        wakes::<1>(&[4, 4, 1, 1]);
        wakes::<3>(&[2, 2, 1]);
        wakes::<8>(&[1, 1, 1]);
    }
}
