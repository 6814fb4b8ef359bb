//! The receiving side of a queue.

use super::{PREFIX, Port, Queue, Refusal, deadline};
use crate::error::{Error, RecvError, Result};
use crate::favour::Favour;
use crate::memory::{Lent, chunk, in_one_line, own_lines, take_line};
use crate::ring::Owner;
use crate::ring::mpmc::{Taken, TakenRun};
use crate::sync::point;
use crate::wait::{Look, glance};
use crate::word::roster::Role;
use bytemuck::Pod;
use core::cell::{Cell, RefCell};
use core::mem::MaybeUninit;
use core::ops::Deref;
use core::ptr::NonNull;
use std::fmt;
use std::time::{Duration, Instant};

/// Bytes of a message up to which lines that were read are taken over at first ([`Favour`])
/// on other processors than AMD's: 4 KiB, and what lies before them in a slot.
const FAVOUR: usize = 4096 + 64;

/// Receives from a [`Queue`]. Clone it for each thread.
pub struct Receiver<T: ?Sized> {
    port: Port<T>,
    /// The slot behind a live [`Message`]. One that is still here when the
    /// receiver is used again was forgotten, and is released then.
    loan: Option<Taken<'static>>,
    /// Its message.
    lent: Lent<T>,
    /// The orphan epoch of the last fruitless search for orphans.
    searched: Cell<Option<u64>>,
    favour: Favour,
}

impl<T: ?Sized> Receiver<T> {
    pub(super) fn new(queue: &Queue<T>) -> Result<Receiver<T>> {
        Ok(Receiver::of(Port::new(queue, Role::Receiver)?))
    }

    fn of(port: Port<T>) -> Receiver<T> {
        Receiver {
            favour: Favour::new(port.queue.core.ring.geometry().len(), FAVOUR),
            port,
            loan: None,
            lent: Lent::NOTHING,
            searched: Cell::new(None),
        }
    }

    /// Whether a message of so many bytes, copied out, is to have its lines taken over.
    #[inline(always)]
    fn favours(&self, len: usize) -> bool {
        let takes = self.port.queue.core.ring.geometry().stride();
        self.favour.wants(len, takes, || self.port.queue.receivers() == 1)
    }

    /// The queue that it receives from.
    pub fn queue(&self) -> &Queue<T> {
        &self.port.queue
    }

    /// The usual case of a take: see [`Core::take_at_hint`]. Small enough for
    /// the caller's loop; `None` sends it the long way.
    ///
    /// [`Core::take_at_hint`]: super::Core::take_at_hint
    #[inline(always)]
    fn take_at_hint(&self) -> Option<Taken<'static>> {
        let taken = self.take_uncounted()?;
        self.port.pace.hits(1);
        Some(taken)
    }

    /// The same for who counts for itself.
    #[inline(always)]
    fn take_uncounted(&self) -> Option<Taken<'static>> {
        if self.loan.is_some() || !self.port.identity.is_current() {
            return None;
        }
        self.port.queue.core.take_at_hint(self.port.identity.me, &self.searched)
    }

    /// Up to `most` messages at once, in the same way.
    #[inline(always)]
    fn take_run(&self, most: usize) -> Option<TakenRun<'static>> {
        if self.loan.is_some() || !self.port.identity.is_current() {
            return None;
        }
        self.port.queue.core.take_run(self.port.identity.me, most, &self.searched)
    }

    #[inline(always)]
    fn take_once(&self, me: Owner) -> Result<Taken<'static>, Refusal> {
        self.port.queue.core.take(me, &self.searched)
    }

    #[inline(always)]
    fn release_forgotten(&mut self) {
        if let Some(taken) = self.loan.take() {
            // After a fork the message is the parent's.
            if self.port.identity.is_current() {
                self.release(taken);
            }
        }
    }

    #[inline(always)]
    fn release(&self, taken: Taken<'static>) {
        self.port.queue.core.release(taken);
    }

    #[inline(always)]
    fn lend(&mut self, taken: Taken<'static>, message: NonNull<T>) -> Message<'_, T> {
        self.loan = Some(taken);
        self.lent.set(message);
        Message { receiver: self }
    }

    #[inline(never)]
    fn take_now(&mut self) -> Result<Taken<'static>, RecvError> {
        // Who polls comes here again and again, and should be back at the slot soon.
        if self.loan.is_none()
            && self.port.identity.is_current()
            && self.port.queue.core.finds_nothing(&self.searched)
        {
            self.port.missed(None)?;
            self.missed();
            return Err(RecvError::Empty);
        }
        if self.loan.is_some() {
            self.release_forgotten();
        }
        let taken = self.look();
        if let Err(RecvError::Empty) = taken {
            self.missed();
        }
        taken
    }

    /// A fruitless look: see [`Pace`]. Whether it rested.
    ///
    /// [`Pace`]: crate::pace::Pace
    fn missed(&self) -> bool {
        self.port.pace.miss(|n| self.port.queue.core.ring.has_stock(n))
    }

    /// One whole look. Fruitless ones ask once a slice who is dead.
    fn look(&mut self) -> Result<Taken<'static>, RecvError> {
        let me = self.port.me()?;
        match self.take_once(me) {
            Ok(taken) => Ok(taken),
            Err(Refusal::NotNow(holder)) => {
                self.port.missed(holder)?;
                Err(RecvError::Empty)
            }
            Err(Refusal::Over) => Err(RecvError::Closed),
            Err(Refusal::Failed(error)) => Err(error.into()),
        }
    }

    #[inline(never)]
    fn take_by(&mut self, deadline: Option<Instant>) -> Result<Taken<'static>, RecvError> {
        if self.loan.is_some() {
            self.release_forgotten();
        }
        if let Some(taken) = self.take_at_hint() {
            return Ok(taken);
        }
        match self.look() {
            Err(RecvError::Empty) => {}
            other => return other,
        }
        self.missed();
        match glance(deadline, || self.take_at_hint()) {
            Some(taken) => Ok(taken),
            None => self.take_waiting(deadline),
        }
    }

    fn take_waiting(&mut self, deadline: Option<Instant>) -> Result<Taken<'static>, RecvError> {
        let me = self.port.me()?;
        // Who stands in the way; or why there is no use in waiting.
        let state = RefCell::new((None, None::<Error>));
        let taken = self.port.queue.core.readable.until(
            deadline,
            &self.port.patience,
            || {
                if let Some(error) = state.borrow_mut().1.take() {
                    return Look::Ready(Err(error.into()));
                }
                match self.take_once(me) {
                    Ok(taken) => Look::Ready(Ok(taken)),
                    Err(Refusal::NotNow(holder)) => {
                        state.borrow_mut().0 = holder;
                        Look::NotYet
                    }
                    Err(Refusal::Over) => Look::Ready(Err(RecvError::Closed)),
                    Err(Refusal::Failed(error)) => Look::Ready(Err(error.into())),
                }
            },
            |slice_over| {
                let holder = state.borrow().0;
                self.port.check_waiting(holder, slice_over).unwrap_or_else(|error| {
                    state.borrow_mut().1 = Some(error);
                    true
                })
            },
        );
        taken.unwrap_or(Err(RecvError::Timeout))
    }
}

impl<T: ?Sized> Drop for Receiver<T> {
    fn drop(&mut self) {
        self.release_forgotten();
    }
}

impl<T: ?Sized> Clone for Receiver<T> {
    fn clone(&self) -> Self {
        Receiver::of(self.port.duplicate())
    }
}

impl<T: ?Sized> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Receiver").field(self.queue()).finish()
    }
}

impl<T: Pod> Receiver<T> {
    #[inline(always)]
    fn get(&self, taken: Taken<'static>) -> T {
        let mut message = MaybeUninit::uninit();
        // SAFETY: released below.
        unsafe { self.copy(taken.payload(), &mut message) };
        // SAFETY: `copy` has written it.
        let message = unsafe { message.assume_init() };
        self.port.queue.core.ring.release(taken);
        self.port.queue.core.writable.notify_with(message)
    }

    /// Copies a message out of its slot.
    ///
    /// # Safety
    ///
    /// It must be the payload of a slot of this queue, taken and not yet released.
    #[inline(always)]
    unsafe fn copy(&self, payload: NonNull<u8>, to: &mut MaybeUninit<T>) {
        // SAFETY: nobody else touches the payload before its release, and the
        // ring's geometry sized and aligned it for the object's element, found
        // to be `T` when the queue was opened; any bytes are a `T`.
        unsafe {
            if const { size_of::<T>() == 64 } {
                return take_line(payload.cast::<T>(), to);
            }
            to.as_mut_ptr().copy_from_nonoverlapping(payload.cast::<T>().as_ptr(), 1);
            if !in_one_line::<T>() && self.favours(size_of::<T>()) {
                own_lines(payload, size_of::<T>());
            }
        }
    }

    /// Receives without waiting. Copies the message once, out of its slot.
    ///
    /// # Errors
    ///
    /// `Empty`, `Closed` or `Failed`. A queue whose next message is still being
    /// written counts as empty. `Empty` right after many messages may take
    /// six microseconds, in which more of them can come.
    #[inline(always)]
    pub fn try_recv(&mut self) -> Result<T, RecvError> {
        let taken = match self.take_at_hint() {
            Some(taken) => taken,
            None => self.take_now()?,
        };
        Ok(self.get(taken))
    }

    /// Receives, waiting for as long as it takes.
    ///
    /// # Errors
    ///
    /// `Closed` or `Failed`.
    #[inline(always)]
    pub fn recv(&mut self) -> Result<T, RecvError> {
        let taken = match self.take_at_hint() {
            Some(taken) => taken,
            None => self.take_by(None)?,
        };
        Ok(self.get(taken))
    }

    /// Receives, waiting for at most `timeout`.
    ///
    /// # Errors
    ///
    /// `Timeout`, `Closed` or `Failed`.
    pub fn recv_timeout(&mut self, timeout: Duration) -> Result<T, RecvError> {
        let taken = self.take_by(deadline(timeout))?;
        Ok(self.get(taken))
    }

    /// Receives, waiting until `at`.
    ///
    /// # Errors
    ///
    /// As [`Receiver::recv_timeout`].
    pub fn recv_deadline(&mut self, at: Instant) -> Result<T, RecvError> {
        let taken = self.take_by(Some(at))?;
        Ok(self.get(taken))
    }

    /// Waits for a message, then appends it and what else is there to `to`, up
    /// to `max` messages or what the queue holds; returns how many. Wakes senders
    /// once.
    ///
    /// # Errors
    ///
    /// As [`Receiver::recv`], if not even one came. With `max` zero it returns
    /// at once.
    pub fn recv_many(&mut self, to: &mut Vec<T>, max: usize) -> Result<usize, RecvError> {
        if max == 0 {
            return Ok(0);
        }
        // Not for ever, whatever comes meanwhile.
        let max = max.min(self.port.queue.capacity());
        let mut count = self.take_many(to, max.min(chunk::<T>()));
        if count == 0 {
            let first = self.take_by(None)?;
            self.append(first, to);
            count = 1;
        }
        let mut rested = false;
        while count < max {
            let wanted = (max - count).min(chunk::<T>());
            let taken = self.take_many(to, wanted);
            count += taken;
            if taken == wanted {
                continue;
            }
            if self.append_elsewise(to)? {
                count += 1;
            } else if rested || !self.missed() {
                break;
            } else {
                rested = true;
            }
        }
        self.port.queue.core.writable.notify();
        Ok(count)
    }

    /// Appends what is there, up to `max` messages, without waking anybody; how
    /// many.
    #[inline]
    fn take_many(&self, to: &mut Vec<T>, max: usize) -> usize {
        to.reserve(max);
        let room = &mut to.spare_capacity_mut()[..max];
        let mut count = 0;
        while count < max {
            if let Some(run) = self.take_run(max - count) {
                let room = &mut room[count..count + run.len()];
                count += room.len();
                self.port.queue.core.ring.release_run(run, |nth, payload| {
                    // SAFETY: of the run, which is released after it.
                    unsafe { self.copy(payload, &mut room[nth]) };
                    point("recv-run.copied");
                });
            } else if let Some(taken) = self.take_uncounted() {
                // SAFETY: released below.
                unsafe { self.copy(taken.payload(), &mut room[count]) };
                self.port.queue.core.ring.release(taken);
                count += 1;
            } else {
                break;
            }
        }
        self.port.pace.hits(count);
        // SAFETY: `count` elements more are initialised.
        unsafe { to.set_len(to.len() + count) };
        count
    }

    /// Appends the message, and frees its slot without waking anybody.
    fn append(&self, taken: Taken<'static>, to: &mut Vec<T>) {
        to.reserve(1);
        // SAFETY: released below.
        unsafe { self.copy(taken.payload(), &mut to.spare_capacity_mut()[0]) };
        self.port.queue.core.ring.release(taken);
        // SAFETY: one element more is initialised.
        unsafe { to.set_len(to.len() + 1) };
    }

    /// Appends a message that was not there at the first look; whether one came.
    #[inline(never)]
    fn append_elsewise(&mut self, to: &mut Vec<T>) -> Result<bool, RecvError> {
        let me = self.port.me()?;
        // An error will be found again by the next call.
        let Ok(taken) = self.take_once(me) else { return Ok(false) };
        self.append(taken, to);
        Ok(true)
    }

    #[inline(always)]
    fn guard(&mut self, taken: Taken<'static>) -> Message<'_, T> {
        self.port.queue.core.ring.prefetch_first(taken.payload());
        let payload = taken.payload().cast();
        self.lend(taken, payload)
    }

    /// Receives in place, waiting for as long as it takes: the guard lends the
    /// message where it lies, and releases its slot when dropped.
    ///
    /// # Errors
    ///
    /// `Closed` or `Failed`.
    pub fn take(&mut self) -> Result<Message<'_, T>, RecvError> {
        if let Some(taken) = self.take_at_hint() {
            return Ok(self.guard(taken));
        }
        let taken = self.take_by(None)?;
        Ok(self.guard(taken))
    }

    /// Receives in place, without waiting.
    ///
    /// # Errors
    ///
    /// `Empty`, `Closed` or `Failed`.
    pub fn try_take(&mut self) -> Result<Message<'_, T>, RecvError> {
        if let Some(taken) = self.take_at_hint() {
            return Ok(self.guard(taken));
        }
        let taken = self.take_now()?;
        Ok(self.guard(taken))
    }

    /// Receives in place, waiting for at most `timeout`.
    ///
    /// # Errors
    ///
    /// `Timeout`, `Closed` or `Failed`.
    pub fn take_timeout(&mut self, timeout: Duration) -> Result<Message<'_, T>, RecvError> {
        let taken = self.take_by(deadline(timeout))?;
        Ok(self.guard(taken))
    }
}

/// A received message, lent in place. Dropping it releases its slot.
///
/// Meanwhile its slot is in use: when the ring has come round to it, senders find
/// the queue full. Copy out before long work.
///
/// If its process is killed meanwhile, the message is lost and counted, or
/// delivered again, as the queue's [`Delivery`](crate::Delivery) says.
// One word: see `Lent`.
pub struct Message<'a, T: ?Sized> {
    receiver: &'a mut Receiver<T>,
}

impl<T: ?Sized> Message<'_, T> {
    /// Whether an earlier receiver died holding this message.
    pub fn redelivered(&self) -> bool {
        self.receiver.loan.as_ref().is_some_and(Taken::redelivered)
    }

    /// Releases a message that was read from end to end, and takes its cache lines
    /// from the sender, as `recv` does, where that makes streams of messages above 64
    /// bytes faster (above 256 bytes the receiver finds out by trying). One that was
    /// hardly looked at costs more so. (To drop the guard releases it, too.)
    #[inline]
    pub fn release_read(self) {
        // After a fork the message is the parent's.
        if self.receiver.port.identity.is_current() {
            let len = size_of_val(&*self);
            let Some(taken) = &self.receiver.loan else { return };
            let payload = taken.payload();
            let before = self.receiver.lent.get().addr().get() - payload.addr().get();
            if self.receiver.favours(before + len) {
                // SAFETY: the slot is held for reading until this guard drops, and
                // whoever borrowed it is done; of bytes the length lies before them.
                unsafe { own_lines(payload, before + len) };
            }
        }
    }
}

impl<T: ?Sized> Deref for Message<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: the slot is held for reading until this guard drops, so
        // nobody writes there; sized and aligned as in `Receiver::copy`, or
        // checked against `max_len` for bytes.
        unsafe { self.receiver.lent.get().as_ref() }
    }
}

impl<T: ?Sized> Drop for Message<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.receiver.release_forgotten();
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for Message<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Message").field(&&**self).finish()
    }
}

impl Receiver<[u8]> {
    /// The message's bytes; a length that no sender writes is corrupt, and its
    /// slot is released.
    fn bytes(&self, taken: Taken<'static>) -> Result<(Taken<'static>, NonNull<[u8]>), RecvError> {
        // SAFETY: the payload starts with the length, aligned for a u64.
        let len = unsafe { taken.payload().cast::<u64>().read_volatile() };
        let max = self.port.queue.core.max_len;
        match usize::try_from(len) {
            Ok(len) if len <= max => {
                // SAFETY: the payload has `PREFIX + max_len` bytes.
                let start = unsafe { taken.payload().add(PREFIX) };
                Ok((taken, NonNull::slice_from_raw_parts(start, len)))
            }
            _ => {
                self.release(taken);
                Err(Error::Corrupt { what: "length of a message:", at: len }.into())
            }
        }
    }

    fn copy_out(&self, taken: Taken<'static>) -> Result<Vec<u8>, RecvError> {
        let (taken, bytes) = self.bytes(taken)?;
        // SAFETY: held for reading until the release below; `bytes` checked the
        // length.
        let copy = unsafe { bytes.as_ref() }.to_vec();
        if self.favours(PREFIX + copy.len()) {
            // SAFETY: the same bytes, and nobody else touches them.
            unsafe { own_lines(taken.payload(), PREFIX + copy.len()) };
        }
        self.release(taken);
        Ok(copy)
    }

    fn guard_bytes(&mut self, taken: Taken<'static>) -> Result<Message<'_, [u8]>, RecvError> {
        let (taken, message) = self.bytes(taken)?;
        Ok(self.lend(taken, message))
    }

    /// Receives a copy without waiting.
    ///
    /// # Errors
    ///
    /// `Empty`, `Closed` or `Failed`.
    pub fn try_recv(&mut self) -> Result<Vec<u8>, RecvError> {
        if let Some(taken) = self.take_at_hint() {
            return self.copy_out(taken);
        }
        let taken = self.take_now()?;
        self.copy_out(taken)
    }

    /// Receives a copy, waiting for as long as it takes.
    ///
    /// # Errors
    ///
    /// `Closed` or `Failed`.
    pub fn recv(&mut self) -> Result<Vec<u8>, RecvError> {
        if let Some(taken) = self.take_at_hint() {
            return self.copy_out(taken);
        }
        let taken = self.take_by(None)?;
        self.copy_out(taken)
    }

    /// Receives a copy, waiting for at most `timeout`.
    ///
    /// # Errors
    ///
    /// `Timeout`, `Closed` or `Failed`.
    pub fn recv_timeout(&mut self, timeout: Duration) -> Result<Vec<u8>, RecvError> {
        let taken = self.take_by(deadline(timeout))?;
        self.copy_out(taken)
    }

    /// Receives a copy, waiting until `at`.
    ///
    /// # Errors
    ///
    /// As [`Receiver::recv_timeout`].
    pub fn recv_deadline(&mut self, at: Instant) -> Result<Vec<u8>, RecvError> {
        let taken = self.take_by(Some(at))?;
        self.copy_out(taken)
    }

    /// Waits for a message, then appends copies of it and of what else is there
    /// to `to`, up to `max` messages or what the queue holds; returns how many.
    ///
    /// # Errors
    ///
    /// As [`Receiver::recv`], if not even one came; or after some of them, which
    /// are in `to`, when one is corrupt.
    pub fn recv_many(&mut self, to: &mut Vec<Vec<u8>>, max: usize) -> Result<usize, RecvError> {
        if max == 0 {
            return Ok(0);
        }
        to.push(self.recv()?);
        let mut count = 1;
        let me = self.port.me()?;
        // Not for ever, whatever comes meanwhile.
        let max = max.min(self.port.queue.capacity());
        while count < max {
            let Some(taken) = self.take_at_hint().or_else(|| self.take_once(me).ok()) else {
                break;
            };
            to.push(self.copy_out(taken)?);
            count += 1;
        }
        Ok(count)
    }

    /// Receives in place, waiting for as long as it takes.
    ///
    /// # Errors
    ///
    /// `Closed` or `Failed`.
    pub fn take(&mut self) -> Result<Message<'_, [u8]>, RecvError> {
        if let Some(taken) = self.take_at_hint() {
            return self.guard_bytes(taken);
        }
        let taken = self.take_by(None)?;
        self.guard_bytes(taken)
    }

    /// Receives in place, without waiting.
    ///
    /// # Errors
    ///
    /// `Empty`, `Closed` or `Failed`.
    pub fn try_take(&mut self) -> Result<Message<'_, [u8]>, RecvError> {
        if let Some(taken) = self.take_at_hint() {
            return self.guard_bytes(taken);
        }
        let taken = self.take_now()?;
        self.guard_bytes(taken)
    }

    /// Receives in place, waiting for at most `timeout`.
    ///
    /// # Errors
    ///
    /// `Timeout`, `Closed` or `Failed`.
    pub fn take_timeout(&mut self, timeout: Duration) -> Result<Message<'_, [u8]>, RecvError> {
        let taken = self.take_by(deadline(timeout))?;
        self.guard_bytes(taken)
    }
}
