//! The sending side of a queue.

use super::{PREFIX, Port, Queue, Refusal, deadline};
use crate::error::{Error, Result, SendError};
use crate::memory::Lent;
use crate::ring::mpmc::{Claim, ClaimedRun};
use crate::sync::point;
use crate::wait::Look;
use crate::word::roster::Role;
use bytemuck::Pod;
use core::cell::RefCell;
use core::ops::{Deref, DerefMut};
use core::ptr::NonNull;
use std::fmt;
use std::time::{Duration, Instant};

/// Sends into a [`Queue`]. Clone it for each thread.
pub struct Sender<T: ?Sized> {
    port: Port<T>,
    /// The slot behind a live [`Slot`]. One that is still here when the sender
    /// is used again was forgotten, and is given up then.
    loan: Option<Claim<'static>>,
    /// Its message.
    lent: Lent<T>,
}

impl<T: ?Sized> Sender<T> {
    pub(super) fn new(queue: &Queue<T>) -> Result<Sender<T>> {
        Ok(Sender { port: Port::new(queue, Role::Sender)?, loan: None, lent: Lent::NOTHING })
    }

    /// The queue that it sends into.
    pub fn queue(&self) -> &Queue<T> {
        &self.port.queue
    }

    /// The usual case of a claim: see [`Core::claim_at_hint`]. Small enough for
    /// the caller's loop; `None` sends it the long way.
    ///
    /// [`Core::claim_at_hint`]: super::Core::claim_at_hint
    #[inline(always)]
    fn claim_at_hint(&self) -> Option<Claim<'static>> {
        if self.loan.is_some() || !self.port.identity.is_current() {
            return None;
        }
        let claim = self.port.queue.core.claim_at_hint(self.port.identity.me)?;
        self.port.pace.hits(1);
        Some(claim)
    }

    /// The usual case of a claim of up to `most` slots, in the same way.
    #[inline(always)]
    fn claim_run(&self, most: usize) -> Option<ClaimedRun<'static>> {
        if self.loan.is_some() || !self.port.identity.is_current() {
            return None;
        }
        let run = self.port.queue.core.claim_run(self.port.identity.me, most)?;
        self.port.pace.hits(run.len());
        Some(run)
    }

    #[inline(always)]
    fn give_up_forgotten(&mut self) {
        if let Some(claim) = self.loan.take() {
            self.abandon(claim);
        }
    }

    #[cold]
    fn abandon(&self, claim: Claim<'static>) {
        // After a fork the claim is the parent's.
        if self.port.identity.is_current() {
            self.port.queue.core.abandon(claim);
        }
    }

    #[inline(always)]
    fn commit(&self, claim: Claim<'static>) {
        self.port.queue.core.commit(claim);
    }

    #[inline(never)]
    fn claim_now(&mut self) -> Result<Claim<'static>, SendError<()>> {
        if self.loan.is_some() {
            self.give_up_forgotten();
        }
        let me = self.port.me()?;
        match self.port.queue.core.claim(me) {
            Ok(claim) => Ok(claim),
            Err(Refusal::NotNow(holder)) => {
                self.port.pace.miss(|n| self.port.queue.core.ring.has_room(n));
                match self.port.missed(holder) {
                    Ok(()) => Err(SendError::Full(())),
                    Err(error) => Err(error.into()),
                }
            }
            Err(Refusal::Over) => Err(SendError::Closed(())),
            Err(Refusal::Failed(error)) => Err(error.into()),
        }
    }

    #[inline(never)]
    fn claim_by(&mut self, deadline: Option<Instant>) -> Result<Claim<'static>, SendError<()>> {
        match self.claim_now() {
            Err(SendError::Full(())) => self.claim_waiting(deadline),
            other => other,
        }
    }

    #[cold]
    fn claim_waiting(
        &mut self,
        deadline: Option<Instant>,
    ) -> Result<Claim<'static>, SendError<()>> {
        let me = self.port.me()?;
        // Who stands in the way; or why there is no use in waiting.
        let state = RefCell::new((None, None::<Error>));
        let claimed = self.port.queue.core.writable.until(
            deadline,
            &self.port.patience,
            || {
                if let Some(error) = state.borrow_mut().1.take() {
                    return Look::Ready(Err(error.into()));
                }
                match self.port.queue.core.claim(me) {
                    Ok(claim) => Look::Ready(Ok(claim)),
                    Err(Refusal::NotNow(holder)) => {
                        state.borrow_mut().0 = holder;
                        Look::NotYet
                    }
                    Err(Refusal::Over) => Look::Ready(Err(SendError::Closed(()))),
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
        claimed.unwrap_or(Err(SendError::Timeout(())))
    }
}

impl<T: ?Sized> Drop for Sender<T> {
    fn drop(&mut self) {
        self.give_up_forgotten();
    }
}

impl<T: ?Sized> Clone for Sender<T> {
    fn clone(&self) -> Self {
        Sender { port: self.port.duplicate(), loan: None, lent: Lent::NOTHING }
    }
}

impl<T: ?Sized> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Sender").field(self.queue()).finish()
    }
}

impl<T: Pod> Sender<T> {
    #[inline(always)]
    fn put(&self, claim: Claim<'static>, message: T) {
        // SAFETY: the claim gives this thread alone the payload, which the
        // ring's geometry sized and aligned for the object's element, found to
        // be `T` when the queue was opened.
        unsafe { claim.payload().cast::<T>().write(message) };
        point("send.written");
        self.commit(claim);
    }

    /// Sends without waiting. Copies the message once, into its slot.
    ///
    /// # Errors
    ///
    /// `Full`, `Closed` or `Failed`, with the message. `Full` right after many
    /// messages may take six microseconds, in which receivers can get on.
    #[inline(always)]
    pub fn try_send(&mut self, message: T) -> Result<(), SendError<T>> {
        match self.claim_at_hint() {
            Some(claim) => {
                self.put(claim, message);
                Ok(())
            }
            // A copy, so that the message itself can live in registers.
            None => self.try_send_elsewise(&{ message }),
        }
    }

    #[inline(never)]
    fn try_send_elsewise(&mut self, message: &T) -> Result<(), SendError<T>> {
        match self.claim_now() {
            Ok(claim) => {
                self.put(claim, *message);
                Ok(())
            }
            Err(error) => Err(error.with(message)),
        }
    }

    /// Sends, waiting for a free slot for as long as it takes: also when nobody
    /// is there to receive, for somebody may come. (`Closed` means closed by
    /// [`Queue::close`].)
    ///
    /// # Errors
    ///
    /// `Closed` or `Failed`, with the message.
    #[inline(always)]
    pub fn send(&mut self, message: T) -> Result<(), SendError<T>> {
        self.send_by(message, None)
    }

    /// Sends, waiting for a free slot for at most `timeout`.
    ///
    /// # Errors
    ///
    /// `Timeout`, `Closed` or `Failed`, with the message.
    pub fn send_timeout(&mut self, message: T, timeout: Duration) -> Result<(), SendError<T>> {
        self.send_by(message, deadline(timeout))
    }

    /// Sends, waiting for a free slot until `at`.
    ///
    /// # Errors
    ///
    /// As [`Sender::send_timeout`].
    pub fn send_deadline(&mut self, message: T, at: Instant) -> Result<(), SendError<T>> {
        self.send_by(message, Some(at))
    }

    #[inline(always)]
    fn send_by(&mut self, message: T, deadline: Option<Instant>) -> Result<(), SendError<T>> {
        match self.claim_at_hint() {
            Some(claim) => {
                self.put(claim, message);
                Ok(())
            }
            None => self.send_elsewise(&{ message }, deadline),
        }
    }

    #[inline(never)]
    fn send_elsewise(
        &mut self,
        message: &T,
        deadline: Option<Instant>,
    ) -> Result<(), SendError<T>> {
        match self.claim_by(deadline) {
            Ok(claim) => {
                self.put(claim, *message);
                Ok(())
            }
            Err(error) => Err(error.with(message)),
        }
    }

    /// Sends all messages in order, waiting as [`Sender::send`] does; wakes
    /// receivers once at the end and before each wait. Other senders' messages
    /// may come between. Small ones are shown some at once, up to 16; if the process is
    /// killed, either all of these arrive or none.
    ///
    /// # Errors
    ///
    /// `Closed` or `Failed`, with the number of messages that were sent.
    pub fn send_many(&mut self, messages: &[T]) -> Result<(), SendError<usize>> {
        let mut sent = 0;
        while let Some(message) = messages.get(sent) {
            if let Some(run) = self.claim_run(messages.len() - sent) {
                sent += self.put_run(run, &messages[sent..]);
                continue;
            }
            if let Some(claim) = self.claim_at_hint() {
                self.put_quietly(claim, *message);
            } else if let Err(error) = self.put_elsewise(message) {
                self.port.queue.core.readable.notify();
                return Err(error.map(|()| sent));
            }
            sent += 1;
        }
        self.port.queue.core.readable.notify();
        Ok(())
    }

    /// Writes and publishes the first messages without waking anybody; how many.
    #[inline(always)]
    fn put_run(&self, run: ClaimedRun<'static>, messages: &[T]) -> usize {
        let messages = &messages[..run.len()];
        self.port.queue.core.ring.commit_run(run, |nth, to| {
            // SAFETY: as in `put`; the run's slots are this thread's alone.
            unsafe { to.cast::<T>().write(messages[nth]) };
            point("send-run.written");
        });
        messages.len()
    }

    /// Writes and publishes the message without waking anybody.
    #[inline(always)]
    fn put_quietly(&self, claim: Claim<'static>, message: T) {
        // SAFETY: as in `put`.
        unsafe { claim.payload().cast::<T>().write(message) };
        point("send-many.written");
        self.port.queue.core.ring.commit(claim);
    }

    /// The same for a message that found no slot at the first look.
    #[inline(never)]
    fn put_elsewise(&mut self, message: &T) -> Result<(), SendError<()>> {
        // Before anything that takes time.
        self.port.queue.core.readable.notify();
        let claim = self.claim_by(None)?;
        self.put_quietly(claim, *message);
        Ok(())
    }

    /// Claims the next slot, to be written in place, waiting for one as long as
    /// it takes. Receivers get no further than this slot until it is committed
    /// or dropped, so prepare the message before.
    ///
    /// # Errors
    ///
    /// `Closed` or `Failed`.
    #[inline]
    pub fn claim(&mut self) -> Result<Slot<'_, T>, SendError<()>> {
        if let Some(claim) = self.claim_at_hint() {
            return Ok(Slot::new(self, claim));
        }
        let claim = self.claim_by(None)?;
        Ok(Slot::new(self, claim))
    }

    /// Claims the next slot without waiting.
    ///
    /// # Errors
    ///
    /// `Full`, `Closed` or `Failed`.
    #[inline]
    pub fn try_claim(&mut self) -> Result<Slot<'_, T>, SendError<()>> {
        if let Some(claim) = self.claim_at_hint() {
            return Ok(Slot::new(self, claim));
        }
        let claim = self.claim_now()?;
        Ok(Slot::new(self, claim))
    }

    /// Claims the next slot, waiting for at most `timeout`.
    ///
    /// # Errors
    ///
    /// `Timeout`, `Closed` or `Failed`.
    pub fn claim_timeout(&mut self, timeout: Duration) -> Result<Slot<'_, T>, SendError<()>> {
        let claim = self.claim_by(deadline(timeout))?;
        Ok(Slot::new(self, claim))
    }
}

/// A claimed slot: write the message in place, then [`commit`](Slot::commit).
/// Dropping it instead gives the slot up; receivers skip it.
///
/// Until it is written it holds the bytes of an earlier message.
#[must_use = "dropping a slot gives it up"]
// One word: see `Lent`.
pub struct Slot<'a, T: Pod> {
    sender: &'a mut Sender<T>,
}

impl<'a, T: Pod> Slot<'a, T> {
    #[inline(always)]
    fn new(sender: &'a mut Sender<T>, claim: Claim<'static>) -> Self {
        sender.port.queue.core.ring.prefetch_first(claim.payload());
        sender.lent.set(claim.payload().cast());
        sender.loan = Some(claim);
        Slot { sender }
    }

    /// Writes the whole message.
    #[inline]
    pub fn write(&mut self, message: T) {
        **self = message;
    }

    /// Publishes the message. In a forked child, where the slot is the
    /// parent's, this does nothing.
    #[inline]
    pub fn commit(self) {
        if let Some(claim) = self.sender.loan.take()
            && self.sender.port.identity.is_current()
        {
            self.sender.commit(claim);
        }
    }
}

impl<T: Pod> Deref for Slot<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: as in `Sender::put`; any bytes are a `T`, for it is Pod.
        unsafe { self.sender.lent.get().as_ref() }
    }
}

impl<T: Pod> DerefMut for Slot<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as in `deref`; the claim is exclusive.
        unsafe { self.sender.lent.get().as_mut() }
    }
}

impl<T: Pod> Drop for Slot<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.sender.give_up_forgotten();
    }
}

impl<T: Pod + fmt::Debug> fmt::Debug for Slot<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Slot").field(&**self).finish()
    }
}

impl Sender<[u8]> {
    fn fits(&self, len: usize) -> Result<(), SendError<()>> {
        let max = self.port.queue.core.max_len;
        if len <= max { Ok(()) } else { Err(Error::TooLarge { len, max }.into()) }
    }

    /// Writes the length, and publishes.
    #[inline]
    fn seal(&self, claim: Claim<'static>, len: usize) {
        // SAFETY: the payload starts with `PREFIX` bytes for the length,
        // aligned for a u64, and is this claim's alone.
        unsafe { claim.payload().cast::<u64>().write(len as u64) };
        point("send.length");
        self.commit(claim);
    }

    #[inline]
    fn put_bytes(&self, claim: Claim<'static>, message: &[u8]) {
        // SAFETY: the payload has `PREFIX + max_len` bytes, `fits` found the
        // message no longer than `max_len`, and the claim is exclusive.
        unsafe {
            let to = claim.payload().add(PREFIX).as_ptr();
            to.copy_from_nonoverlapping(message.as_ptr(), message.len());
        }
        point("send.bytes");
        self.seal(claim, message.len());
    }

    /// Sends without waiting. Copies the message once, into its slot.
    ///
    /// # Errors
    ///
    /// `Full`, `Closed`, or `Failed`, which includes [`Error::TooLarge`]. `Full`
    /// right after many messages may take six microseconds, in which receivers can
    /// get on.
    pub fn try_send(&mut self, message: &[u8]) -> Result<(), SendError<()>> {
        self.fits(message.len())?;
        if let Some(claim) = self.claim_at_hint() {
            self.put_bytes(claim, message);
            return Ok(());
        }
        let claim = self.claim_now()?;
        self.put_bytes(claim, message);
        Ok(())
    }

    /// Sends, waiting for a free slot for as long as it takes.
    ///
    /// # Errors
    ///
    /// `Closed`, or `Failed`, which includes [`Error::TooLarge`].
    pub fn send(&mut self, message: &[u8]) -> Result<(), SendError<()>> {
        self.send_by(message, None)
    }

    /// Sends, waiting for a free slot for at most `timeout`.
    ///
    /// # Errors
    ///
    /// `Timeout`, `Closed`, or `Failed`, which includes [`Error::TooLarge`].
    pub fn send_timeout(&mut self, message: &[u8], timeout: Duration) -> Result<(), SendError<()>> {
        self.send_by(message, deadline(timeout))
    }

    /// Sends, waiting for a free slot until `at`.
    ///
    /// # Errors
    ///
    /// As [`Sender::send_timeout`].
    pub fn send_deadline(&mut self, message: &[u8], at: Instant) -> Result<(), SendError<()>> {
        self.send_by(message, Some(at))
    }

    fn send_by(&mut self, message: &[u8], deadline: Option<Instant>) -> Result<(), SendError<()>> {
        self.fits(message.len())?;
        if let Some(claim) = self.claim_at_hint() {
            self.put_bytes(claim, message);
            return Ok(());
        }
        let claim = self.claim_by(deadline)?;
        self.put_bytes(claim, message);
        Ok(())
    }

    /// Sends all messages in order.
    ///
    /// # Errors
    ///
    /// As [`Sender::send`], with the number of messages that were sent.
    pub fn send_many<M: AsRef<[u8]>>(&mut self, messages: &[M]) -> Result<(), SendError<usize>> {
        for (sent, message) in messages.iter().enumerate() {
            self.send(message.as_ref()).map_err(|e| e.map(|()| sent))?;
        }
        Ok(())
    }

    /// Claims the next slot, to be written in place, waiting for one as long as
    /// it takes. Receivers get no further than this slot until it is committed
    /// or dropped.
    ///
    /// # Errors
    ///
    /// `Closed` or `Failed`.
    pub fn claim(&mut self) -> Result<BytesSlot<'_>, SendError<()>> {
        if let Some(claim) = self.claim_at_hint() {
            return Ok(BytesSlot::new(self, claim));
        }
        let claim = self.claim_by(None)?;
        Ok(BytesSlot::new(self, claim))
    }

    /// Claims the next slot without waiting.
    ///
    /// # Errors
    ///
    /// `Full`, `Closed` or `Failed`.
    pub fn try_claim(&mut self) -> Result<BytesSlot<'_>, SendError<()>> {
        if let Some(claim) = self.claim_at_hint() {
            return Ok(BytesSlot::new(self, claim));
        }
        let claim = self.claim_now()?;
        Ok(BytesSlot::new(self, claim))
    }

    /// Claims the next slot, waiting for at most `timeout`.
    ///
    /// # Errors
    ///
    /// `Timeout`, `Closed` or `Failed`.
    pub fn claim_timeout(&mut self, timeout: Duration) -> Result<BytesSlot<'_>, SendError<()>> {
        let claim = self.claim_by(deadline(timeout))?;
        Ok(BytesSlot::new(self, claim))
    }
}

/// A claimed slot of a byte queue: `max_len` bytes to write in place. Dropping
/// it instead of committing gives the slot up; receivers skip it.
#[must_use = "dropping a slot gives it up"]
// One word: see `Lent`.
pub struct BytesSlot<'a> {
    sender: &'a mut Sender<[u8]>,
}

impl<'a> BytesSlot<'a> {
    fn new(sender: &'a mut Sender<[u8]>, claim: Claim<'static>) -> Self {
        // SAFETY: the payload has `PREFIX + max_len` bytes.
        let payload = unsafe { claim.payload().add(PREFIX) };
        let max = sender.port.queue.core.max_len;
        sender.lent.set(NonNull::slice_from_raw_parts(payload, max));
        sender.loan = Some(claim);
        BytesSlot { sender }
    }

    /// Publishes the first `len` bytes.
    ///
    /// # Errors
    ///
    /// [`Error::TooLarge`] for a `len` above the queue's longest message; the
    /// slot is given up.
    pub fn commit(self, len: usize) -> Result<()> {
        let max = self.len();
        if len > max {
            return Err(Error::TooLarge { len, max });
        }
        if let Some(claim) = self.sender.loan.take()
            && self.sender.port.identity.is_current()
        {
            self.sender.seal(claim, len);
        }
        Ok(())
    }
}

impl Deref for BytesSlot<'_> {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        // SAFETY: `max_len` initialised bytes (whatever they are), held
        // exclusively by the claim.
        unsafe { self.sender.lent.get().as_ref() }
    }
}

impl DerefMut for BytesSlot<'_> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`.
        unsafe { self.sender.lent.get().as_mut() }
    }
}

impl Drop for BytesSlot<'_> {
    fn drop(&mut self) {
        self.sender.give_up_forgotten();
    }
}

impl fmt::Debug for BytesSlot<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BytesSlot").field("max_len", &self.len()).finish_non_exhaustive()
    }
}
