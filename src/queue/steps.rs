//! The steps of senders and receivers, none of which waits.
//!
//! Here the ring, the roster and the two events of a queue come together. A
//! [`Core`] knows nothing of files and processes, so that the models run these
//! steps as they are shipped.

use super::{Core, Refusal};
use crate::error::Error;
use crate::ring::Owner;
use crate::ring::mpmc::{Claim, ClaimedRun, Delivery, NoClaim, NoTake, Taken, TakenRun};
use crate::sync::STEP_BUDGET;
use crate::word::roster::Role;
use core::cell::Cell;

impl Core {
    /// Claims the next slot in the usual case: the queue is open and the slot at
    /// the hint free. `None` says nothing.
    #[inline(always)]
    pub(super) fn claim_at_hint(&self, me: Owner) -> Option<Claim<'static>> {
        if self.roster.is_closed() {
            return None;
        }
        let claim = self.ring.claim_at_hint(me)?;
        if self.roster.is_closed_after_claim() {
            self.abandon(claim);
            return None;
        }
        Some(claim)
    }

    /// Claims up to `most` slots at once, in the usual case. `None` says nothing.
    #[inline(always)]
    pub(super) fn claim_run(&self, me: Owner, most: usize) -> Option<ClaimedRun<'static>> {
        if self.roster.is_closed() {
            return None;
        }
        let run = self.ring.claim_run(me, most)?;
        if self.roster.is_closed_after_claim() {
            self.ring.abandon_run(run);
            self.readable.notify();
            return None;
        }
        Some(run)
    }

    /// Claims the next slot, unless the queue is closed.
    #[inline]
    pub(super) fn claim(&self, me: Owner) -> Result<Claim<'static>, Refusal> {
        if self.roster.is_closed() {
            return Err(Refusal::Over);
        }
        match self.ring.try_claim(me) {
            Ok(claim) if self.roster.is_closed_after_claim() => {
                self.abandon(claim);
                Err(Refusal::Over)
            }
            Ok(claim) => Ok(claim),
            Err(NoClaim::Full(holder)) => Err(Refusal::NotNow(holder)),
            Err(NoClaim::Corrupt(error)) => Err(Refusal::Failed(error)),
        }
    }

    /// Publishes a claimed slot, and wakes receivers.
    #[inline(always)]
    pub(super) fn commit(&self, claim: Claim<'static>) {
        self.ring.commit(claim);
        self.readable.notify();
    }

    /// Gives a claimed slot up, and wakes receivers, who skip it.
    #[cold]
    pub(super) fn abandon(&self, claim: Claim<'static>) {
        self.ring.abandon(claim);
        self.readable.notify();
    }

    /// Takes the next message in the usual case: no orphans to look for, and a
    /// message at the hint. `None` says nothing.
    #[inline(always)]
    pub(super) fn take_at_hint(
        &self,
        me: Owner,
        searched: &Cell<Option<u64>>,
    ) -> Option<Taken<'static>> {
        if self.has_no_orphans(searched) { self.ring.take_at_hint(me) } else { None }
    }

    /// Whether there is nothing to take, in the usual case: a queue that is not over, whose
    /// next slot nobody has claimed. `false` says nothing.
    #[inline(always)]
    pub(super) fn finds_nothing(&self, searched: &Cell<Option<u64>>) -> bool {
        self.has_no_orphans(searched) && self.ring.has_none_at_hint() && !self.is_over()
    }

    /// Takes up to `most` messages at once, in the usual case. `None` says nothing.
    #[inline(always)]
    pub(super) fn take_run(
        &self,
        me: Owner,
        most: usize,
        searched: &Cell<Option<u64>>,
    ) -> Option<TakenRun<'static>> {
        if self.has_no_orphans(searched) { self.ring.take_run(me, most) } else { None }
    }

    #[inline(always)]
    fn has_no_orphans(&self, searched: &Cell<Option<u64>>) -> bool {
        self.delivery == Delivery::AtMostOnce || searched.get() == Some(self.ring.orphan_epoch())
    }

    /// Takes the next message, or one whose receiver died. `searched` is the
    /// receiver's own: the orphan epoch of its last fruitless search.
    #[inline(always)]
    pub(super) fn take(
        &self,
        me: Owner,
        searched: &Cell<Option<u64>>,
    ) -> Result<Taken<'static>, Refusal> {
        if self.delivery == Delivery::AtLeastOnce
            && let Some(orphan) = self.adopt(me, searched)
        {
            return Ok(orphan);
        }
        match self.take_next(me) {
            // What was sent before the end must not be missed: edges L and C of
            // the roster want a look at the ring after the one at the flags.
            // Only for edge C, and so when closed by hand, with a barrier.
            Err(Refusal::Over) => {
                if self.roster.is_closed() {
                    self.roster.before_last_look();
                }
                self.take_next(me)
            }
            other => other,
        }
    }

    /// The next message of the ring, past abandoned slots.
    #[inline(always)]
    fn take_next(&self, me: Owner) -> Result<Taken<'static>, Refusal> {
        // The whole ring may have been abandoned, and more meanwhile.
        let slots = self.ring.geometry().capacity();
        for _ in 0..slots + STEP_BUDGET as usize {
            return match self.ring.try_take(me) {
                Ok(taken) => Ok(taken),
                Err(NoTake::Skipped) => {
                    self.writable.notify();
                    continue;
                }
                Err(NoTake::Empty(holder)) => {
                    if self.is_over() {
                        Err(Refusal::Over)
                    } else {
                        Err(Refusal::NotNow(holder))
                    }
                }
                Err(NoTake::Pending(holder)) => Err(Refusal::NotNow(Some(holder))),
                Err(NoTake::Corrupt(error)) => Err(Refusal::Failed(error)),
            };
        }
        let (what, at) = ("no end to the abandoned slots of a queue of", slots as u64);
        Err(Refusal::Failed(Error::Corrupt { what, at }))
    }

    #[inline]
    fn is_over(&self) -> bool {
        self.roster.is_closed() || self.roster.is_gone(Role::Sender)
    }

    #[inline]
    fn adopt(&self, me: Owner, searched: &Cell<Option<u64>>) -> Option<Taken<'static>> {
        let epoch = self.ring.orphan_epoch();
        if searched.get() == Some(epoch) {
            return None;
        }
        let orphan = self.ring.try_adopt(me);
        if orphan.is_none() {
            searched.set(Some(epoch));
        }
        orphan
    }

    /// Frees a taken slot, and wakes senders.
    #[inline(always)]
    pub(super) fn release(&self, taken: Taken<'static>) {
        self.ring.release(taken);
        self.writable.notify();
    }

    /// Closes for good, and wakes everybody.
    pub(super) fn close(&self) {
        self.roster.close();
        self.wake();
    }

    /// Takes a handle away; the last one in its role wakes everybody.
    pub(super) fn leave(&self, me: Owner, role: Role) {
        if self.roster.leave(me, role) {
            self.wake();
        }
    }

    /// Repairs what `dead` held, and wakes everybody.
    pub(super) fn recover(&self, dead: Owner) {
        self.ring.recover(dead, self.delivery);
        self.roster.expel(dead);
        self.wake();
    }

    fn wake(&self) {
        self.readable.wake();
        self.writable.wake();
    }
}

#[cfg(all(test, loom))]
#[path = "steps_models.rs"]
mod models;
