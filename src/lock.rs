//! Lock: mutual exclusion between processes, which outlives its owner.

use crate::error::{LockError, Result};
use crate::memory::Region;
use crate::ring::Owner;
use crate::segment::Segment;
use crate::shm::attachment::{Attachment, Identity};
use crate::shm::catalog::{Kind, Object, TypeTag};
use crate::wait::deadline;
use crate::word::lock::{Acquired, LEN, Lock as Word, NoLock};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The declaration of a lock.
pub(crate) fn declare(name: &str) -> Object {
    Object {
        name: name.to_owned(),
        kind: Kind::Lock,
        tag: TypeTag { size: 0, align: 1, hash: 0 },
        capacity: 1,
        flags: 0,
        start: 0,
        max_len: 0,
        offset: 0,
        len: 0,
    }
}

pub(crate) fn measure(_: &Object) -> Result<usize, &'static str> {
    Ok(LEN)
}

/// # Safety
///
/// As [`crate::kinds::init`].
pub(crate) unsafe fn init(_: &Object, region: Region<'_>) {
    // SAFETY: as long as `measure` says, by the caller's promise.
    unsafe { Word::init(region) };
}

pub(crate) fn sweep(attachment: &Attachment, _: &Object, region: Region<'_>, dead: Owner) {
    // SAFETY: `kinds::check` measured it, its maker ran `init`.
    unsafe { Word::attach(region, attachment.asymmetric) }.recover(dead);
}

/// Frees the lock, poisoned, if `me` is leaving and still holds it.
pub(crate) fn settle(attachment: &Attachment, object: &Object, region: Region<'_>, me: Owner) {
    // SAFETY: as in `sweep`.
    if unsafe { Word::attach(region, attachment.asymmetric) }.owner() == Some(me) {
        sweep(attachment, object, region, me);
    }
}

pub(crate) fn roles(
    attachment: &Attachment,
    _: &Object,
    region: Region<'_>,
    owner: Owner,
) -> Vec<&'static str> {
    // SAFETY: as in `sweep`.
    let word = unsafe { Word::attach(region, attachment.asymmetric) };
    if word.owner() == Some(owner) { vec!["holder"] } else { Vec::new() }
}

/// Takes a lock word for `me`, recovering its owner if that is dead; `None` when
/// the deadline has passed.
pub(crate) fn acquire(
    attachment: &Attachment,
    word: &Word<'_>,
    me: Owner,
    deadline: Option<Instant>,
) -> Result<Option<Acquired>> {
    word.lock(me, deadline, |holder, _| {
        if attachment.is_alive(holder) { Ok(false) } else { attachment.recover(holder) }
    })
}

/// A lock in a segment: one thread of one process holds it at a time.
///
/// It protects whatever its users agree on, usually other objects of the same
/// segment. If its owner is killed, the next one gets the lock all the same,
/// inside [`LockError::Poisoned`].
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use slipring::{Lock, LockError};
///
/// # let name = format!("doc-lock-{}", std::process::id());
/// let lock = Lock::create(&name)?;
/// match lock.lock() {
///     Ok(guard) => drop(guard),
///     Err(LockError::Poisoned(mut guard)) => {
///         // Put what it protects in order, then:
///         guard.make_clean();
///     }
///     Err(error) => panic!("{error}"),
/// }
/// # Ok(())
/// # }
/// ```
pub struct Lock {
    word: Word<'static>,
    // After `word`, whose view ends first.
    attachment: Arc<Attachment>,
}

impl Lock {
    /// Creates a segment that holds one lock, and attaches to it.
    ///
    /// # Errors
    ///
    /// As [`Queue::create`](crate::Queue::create).
    pub fn create(name: &str) -> Result<Lock> {
        Segment::builder(name).lock("lock").create()?.lock("lock")
    }

    /// Opens the one lock of a segment.
    ///
    /// # Errors
    ///
    /// As [`Queue::open`](crate::Queue::open).
    pub fn open(name: &str) -> Result<Lock> {
        Segment::open(name)?.only(Self::within)
    }

    /// Opens the lock, or creates it if there is none.
    ///
    /// # Errors
    ///
    /// As [`Lock::create`] and [`Lock::open`].
    pub fn open_or_create(name: &str) -> Result<Lock> {
        Segment::builder(name).lock("lock").open_or_create()?.only(Self::within)
    }

    pub(crate) fn within(segment: &Segment, name: &str) -> Result<Lock> {
        let attachment = Arc::clone(segment.attachment());
        let object = attachment.object(name)?;
        object.expect(Kind::Lock, declare(name).tag)?;
        // SAFETY: the attachment lives beside the view, in the same handle; the
        // object was measured when the segment was opened.
        let word = unsafe { Word::attach(attachment.region(object)?, attachment.asymmetric) };
        Ok(Lock { word, attachment })
    }

    /// The guard in the usual case: the lock is free and clean.
    #[inline(always)]
    fn at_hand(&self) -> Option<LockGuard<'_>> {
        let identity = self.attachment.identity_at_hand()?;
        if self.word.lock_at_hand(identity.me) {
            Some(LockGuard { lock: self, identity })
        } else {
            None
        }
    }

    fn guard(
        &self,
        identity: Identity,
        acquired: Acquired,
    ) -> Result<LockGuard<'_>, LockError<LockGuard<'_>>> {
        let guard = LockGuard { lock: self, identity };
        if acquired.poisoned { Err(LockError::Poisoned(guard)) } else { Ok(guard) }
    }

    /// Takes the lock if it is free.
    ///
    /// # Errors
    ///
    /// `WouldBlock`, `Poisoned` with the guard, or `Failed`.
    #[inline]
    pub fn try_lock(&self) -> Result<LockGuard<'_>, LockError<LockGuard<'_>>> {
        match self.at_hand() {
            Some(guard) => Ok(guard),
            None => self.try_lock_elsewise(),
        }
    }

    fn try_lock_elsewise(&self) -> Result<LockGuard<'_>, LockError<LockGuard<'_>>> {
        let identity = self.attachment.identity()?;
        match self.word.try_lock(identity.me) {
            Ok(acquired) => self.guard(identity, acquired),
            Err(NoLock::Corrupt(error)) => Err(error.into()),
            Err(NoLock::Held(holder)) => {
                // A dead holder is seen here too, so that pollers get on.
                let freed = !self.attachment.is_alive(holder) && self.attachment.recover(holder)?;
                match freed.then(|| self.word.try_lock(identity.me)) {
                    Some(Ok(acquired)) => self.guard(identity, acquired),
                    _ => Err(LockError::WouldBlock),
                }
            }
        }
    }

    /// Takes the lock, waiting for as long as it takes. Not reentrant: a thread
    /// that holds it waits for itself.
    ///
    /// # Errors
    ///
    /// `Poisoned` with the guard, or `Failed`.
    #[inline]
    pub fn lock(&self) -> Result<LockGuard<'_>, LockError<LockGuard<'_>>> {
        match self.at_hand() {
            Some(guard) => Ok(guard),
            None => self.lock_by(None),
        }
    }

    /// Takes the lock, waiting for at most `timeout`.
    ///
    /// # Errors
    ///
    /// `Timeout`, `Poisoned` with the guard, or `Failed`.
    pub fn lock_timeout(
        &self,
        timeout: Duration,
    ) -> Result<LockGuard<'_>, LockError<LockGuard<'_>>> {
        self.lock_by(deadline(timeout))
    }

    fn lock_by(
        &self,
        deadline: Option<Instant>,
    ) -> Result<LockGuard<'_>, LockError<LockGuard<'_>>> {
        let identity = self.attachment.identity()?;
        match acquire(&self.attachment, &self.word, identity.me, deadline) {
            Ok(Some(acquired)) => self.guard(identity, acquired),
            Ok(None) => Err(LockError::Timeout),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether somebody held it a moment ago.
    pub fn is_locked(&self) -> bool {
        self.word.owner().is_some()
    }

    /// Whether an owner died holding it, and nobody has made it clean since.
    pub fn is_poisoned(&self) -> bool {
        self.word.is_poisoned()
    }
}

impl Clone for Lock {
    fn clone(&self) -> Self {
        Lock { word: self.word.clone(), attachment: Arc::clone(&self.attachment) }
    }
}

impl fmt::Debug for Lock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lock")
            .field("segment", &self.attachment.name())
            .field("locked", &self.is_locked())
            .field("poisoned", &self.is_poisoned())
            .finish_non_exhaustive()
    }
}

/// A held [`Lock`]; dropping it unlocks.
#[must_use = "a lock is freed when its guard is dropped"]
pub struct LockGuard<'a> {
    lock: &'a Lock,
    identity: Identity,
}

impl LockGuard<'_> {
    /// Takes back the mark of an owner that died: what the lock protects is in
    /// order again.
    pub fn make_clean(&mut self) {
        if self.identity.is_current() {
            self.lock.word.clear_poison(self.identity.me);
        }
    }
}

impl Drop for LockGuard<'_> {
    #[inline]
    fn drop(&mut self) {
        // In a forked child it is the parent's.
        if self.identity.is_current() {
            self.lock.word.unlock(self.identity.me);
        }
    }
}

impl fmt::Debug for LockGuard<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LockGuard").finish_non_exhaustive()
    }
}
