//! Array: elements that all processes see.
//!
//! ```text
//! region: ┌──────┬──────────────────────────┐
//!         │ lock │ elements                 │
//!         └──────┴──────────────────────────┘
//! ```
//!
//! Elements of 1, 2, 4 or 8 bytes are atomic words: reading and writing them
//! takes no lock. Everything that must see or change several of them together
//! does, and so does access to elements of other sizes.
//!
//! *Why one handle per attachment.* The lock's guard lends `&mut [T]`, while
//! `get` and `set` go by the lock. Within an attachment, where all handles see
//! the same addresses, the borrow checker keeps the two apart, for `lock` wants
//! the only handle exclusively. Other attachments see other addresses, whose
//! changes are like those of any other process.

use crate::error::{Error, LockError, Result};
use crate::lock;
use crate::memory::Region;
use crate::ring::Owner;
use crate::segment::Segment;
use crate::shm::attachment::{Attachment, Identity};
use crate::shm::catalog::{Kind, Object, TypeTag};
use crate::sync::point;
use crate::wait::deadline;
use crate::word::bits::{self, Fetch, FetchBits, Integer, Number, is_atomic};
use crate::word::lock::{LEN, Lock as Word, NoLock};
use bytemuck::Pod;
use core::marker::PhantomData;
use core::ops::{Deref, DerefMut, Range};
use core::ptr::NonNull;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The declaration of an array.
pub(crate) fn declare<T: Pod>(name: &str, len: usize) -> Object {
    Object {
        name: name.to_owned(),
        kind: Kind::Array,
        tag: TypeTag::of::<T>(),
        capacity: len,
        flags: 0,
        start: 0,
        max_len: 0,
        offset: 0,
        len: 0,
    }
}

pub(crate) fn measure(object: &Object) -> Result<usize, &'static str> {
    object
        .tag
        .size
        .checked_mul(object.capacity)
        .and_then(|elements| elements.checked_add(LEN))
        .filter(|&len| len <= isize::MAX as usize)
        .ok_or("the array's size overflows")
}

/// # Safety
///
/// As [`crate::kinds::init`].
pub(crate) unsafe fn init(object: &Object, region: Region<'_>) {
    // SAFETY: the lock comes first, as `measure` says; the elements are zero
    // already.
    unsafe { lock::init(object, region) }
}

pub(crate) fn sweep(attachment: &Attachment, object: &Object, region: Region<'_>, dead: Owner) {
    lock::sweep(attachment, object, region, dead);
}

pub(crate) fn settle(attachment: &Attachment, object: &Object, region: Region<'_>, me: Owner) {
    lock::settle(attachment, object, region, me);
}

pub(crate) fn roles(
    attachment: &Attachment,
    object: &Object,
    region: Region<'_>,
    owner: Owner,
) -> Vec<&'static str> {
    lock::roles(attachment, object, region, owner)
}

/// An array in shared memory.
///
/// For elements of 1, 2, 4 and 8 bytes, [`get`](Array::get) and
/// [`set`](Array::set) are single instructions and take no lock; they do not
/// wait for whoever holds it. For others they take the lock. A
/// [`snapshot`](Array::snapshot) and the copying forms take it too, so that they
/// see each other's work whole.
///
/// An attachment has one handle of an array at a time; share it between threads
/// by reference.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use slipring::Array;
///
/// # let name = format!("doc-array-{}", std::process::id());
/// let mut lidar = Array::<f32>::create(&name, 4096)?;
///
/// // In another process:
/// let other = Array::<f32>::open(&name)?;
/// other.set(7, 1.5)?;
///
/// assert_eq!(lidar.get(7)?, 1.5);
/// lidar.lock()?.fill(0.0);
/// assert_eq!(other.get(7)?, 0.0);
/// # Ok(())
/// # }
/// ```
pub struct Array<T: Pod> {
    lock: Word<'static>,
    elements: NonNull<T>,
    len: usize,
    /// Its place in the catalog: what `exclusive` remembers.
    index: usize,
    // After the views, which end first.
    attachment: Arc<Attachment>,
    element: PhantomData<fn(T) -> T>,
}

// SAFETY: elements are accessed as atomics, or under the lock.
unsafe impl<T: Pod> Send for Array<T> {}
// SAFETY: as above; in-place access wants the handle exclusively.
unsafe impl<T: Pod> Sync for Array<T> {}

impl<T: Pod> Array<T> {
    /// Creates a segment that holds one array of `len` elements, all zero, and
    /// attaches to it.
    ///
    /// # Errors
    ///
    /// As [`Queue::create`](crate::Queue::create).
    pub fn create(name: &str, len: usize) -> Result<Array<T>> {
        Segment::builder(name).array::<T>("array", len).create()?.array("array")
    }

    /// Opens the one array of a segment.
    ///
    /// # Errors
    ///
    /// As [`Queue::open`](crate::Queue::open).
    pub fn open(name: &str) -> Result<Array<T>> {
        Segment::open(name)?.only(Self::within)
    }

    /// Opens the array, or creates it if there is none; an existing one keeps
    /// its length.
    ///
    /// # Errors
    ///
    /// As [`Array::create`] and [`Array::open`].
    pub fn open_or_create(name: &str, len: usize) -> Result<Array<T>> {
        Segment::builder(name).array::<T>("array", len).open_or_create()?.only(Self::within)
    }

    pub(crate) fn within(segment: &Segment, name: &str) -> Result<Array<T>> {
        let attachment = Arc::clone(segment.attachment());
        let object = attachment.object(name)?;
        object.expect(Kind::Array, TypeTag::of::<T>())?;
        let index = attachment.objects().iter().position(|o| o.name == name).unwrap_or(0);
        // SAFETY: the attachment lives beside the views, in the same handle.
        let region = unsafe { attachment.region(object) }?;
        let len = object.capacity;
        if !attachment.take_exclusive(index) {
            return Err(Error::Busy { what: "the array's handle in this attachment", pid: 0 });
        }
        // SAFETY: `kinds::check` measured lock and elements when the segment
        // was opened; the lock's size keeps the elements aligned to a line.
        let (lock, elements) =
            unsafe { (Word::attach(region, attachment.asymmetric), region.base().add(LEN).cast()) };
        Ok(Array { lock, elements, len, index, attachment, element: PhantomData })
    }

    /// Elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    #[inline(always)]
    fn at(&self, index: usize) -> Result<NonNull<T>> {
        if index < self.len {
            // SAFETY: index < len, for which `measure` made room.
            Ok(unsafe { self.elements.add(index) })
        } else {
            Err(Error::OutOfRange { index, len: self.len })
        }
    }

    fn range(&self, start: usize, len: usize) -> Result<Range<usize>> {
        match start.checked_add(len) {
            Some(end) if end <= self.len => Ok(start..end),
            _ => Err(Error::OutOfRange {
                index: start.saturating_add(len).saturating_sub(1).max(self.len),
                len: self.len,
            }),
        }
    }

    /// Reads an element.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfRange`]. For elements that are not of an atomic's size
    /// also [`Error::Poisoned`], and what locking can give.
    #[inline]
    pub fn get(&self, index: usize) -> Result<T> {
        let at = self.at(index)?;
        if is_atomic::<T>() {
            // SAFETY: a live element of an atomic's size, aligned to it because
            // the elements start on a line, and accessed as an atomic while no
            // `&mut [T]` is lent (that borrows the handle).
            Ok(unsafe { bits::load(at.cast()) })
        } else {
            let _locked = self.locked(false)?;
            // SAFETY: live; nobody writes while the lock is held.
            Ok(unsafe { at.read() })
        }
    }

    /// Writes an element.
    ///
    /// # Errors
    ///
    /// As [`Array::get`].
    #[inline]
    pub fn set(&self, index: usize, value: T) -> Result<()> {
        let at = self.at(index)?;
        if is_atomic::<T>() {
            // SAFETY: as in `get`.
            unsafe { bits::store(at.cast(), value) };
        } else {
            let _locked = self.locked(false)?;
            // SAFETY: as in `get`.
            unsafe { at.write(value) };
            point("array.element");
        }
        Ok(())
    }

    /// Copies all elements.
    ///
    /// # Errors
    ///
    /// [`Error::Poisoned`], and what locking can give.
    pub fn snapshot(&self) -> Result<Vec<T>> {
        let mut copy = vec![T::zeroed(); self.len];
        self.read(0, &mut copy)?;
        Ok(copy)
    }

    /// Copies the elements from `start` on into `to`.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfRange`], [`Error::Poisoned`], and what locking can give.
    pub fn read(&self, start: usize, to: &mut [T]) -> Result<()> {
        let range = self.range(start, to.len())?;
        let _locked = self.locked(false)?;
        for (index, to) in range.zip(to) {
            // SAFETY: the range was checked; as in `get`.
            *to = unsafe {
                let at = self.elements.add(index);
                if is_atomic::<T>() { bits::load(at.cast()) } else { at.read() }
            };
        }
        Ok(())
    }

    /// Replaces all elements; the slice must be as long as the array. Makes a
    /// poisoned array clean.
    ///
    /// # Errors
    ///
    /// [`Error::Length`] for another length, and what locking can give.
    pub fn copy_from_slice(&self, from: &[T]) -> Result<()> {
        if from.len() != self.len {
            return Err(Error::Length { found: from.len(), expected: self.len });
        }
        self.write_locked(0, from, true)
    }

    /// Replaces the elements from `start` on by those of `from`.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfRange`], [`Error::Poisoned`], and what locking can give.
    pub fn write(&self, start: usize, from: &[T]) -> Result<()> {
        self.range(start, from.len())?;
        self.write_locked(start, from, false)
    }

    fn write_locked(&self, start: usize, from: &[T], clean: bool) -> Result<()> {
        let locked = self.locked(clean)?;
        for (i, value) in from.iter().enumerate() {
            // SAFETY: callers checked the range; as in `set`.
            unsafe {
                let at = self.elements.add(start + i);
                if is_atomic::<T>() { bits::store(at.cast(), *value) } else { at.write(*value) }
            }
            point("array.elements");
        }
        if clean {
            self.lock.clear_poison(locked.me);
        }
        Ok(())
    }

    /// Takes the lock for a call of this module.
    fn locked(&self, poisoned_too: bool) -> Result<Locked<'_, T>> {
        let me = self.attachment.identity()?.me;
        // Without a deadline there is no `None`.
        let Some(acquired) = lock::acquire(&self.attachment, &self.lock, me, None)? else {
            return Err(Error::Busy { what: "the array's lock", pid: 0 });
        };
        let locked = Locked { array: self, me };
        if acquired.poisoned && !poisoned_too { Err(Error::Poisoned) } else { Ok(locked) }
    }

    /// Takes the lock, waiting for as long as it takes, and lends the elements
    /// in place.
    ///
    /// # Errors
    ///
    /// `Poisoned` with the guard, or `Failed`.
    pub fn lock(&mut self) -> Result<ArrayGuard<'_, T>, LockError<ArrayGuard<'_, T>>> {
        self.lock_by(None)
    }

    /// Takes the lock, waiting for at most `timeout`, and lends the elements in
    /// place.
    ///
    /// # Errors
    ///
    /// `Timeout`, `Poisoned` with the guard, or `Failed`.
    pub fn lock_timeout(
        &mut self,
        timeout: Duration,
    ) -> Result<ArrayGuard<'_, T>, LockError<ArrayGuard<'_, T>>> {
        self.lock_by(deadline(timeout))
    }

    /// Takes the lock if it is free, and lends the elements in place.
    ///
    /// # Errors
    ///
    /// `WouldBlock`, `Poisoned` with the guard, or `Failed`.
    pub fn try_lock(&mut self) -> Result<ArrayGuard<'_, T>, LockError<ArrayGuard<'_, T>>> {
        let identity = self.attachment.identity()?;
        match self.lock.try_lock(identity.me) {
            Ok(acquired) => Self::guard(self, identity, acquired.poisoned),
            Err(NoLock::Corrupt(error)) => Err(error.into()),
            Err(NoLock::Held(holder)) => {
                if !self.attachment.is_alive(holder) {
                    self.attachment.recover(holder)?;
                }
                match self.lock.try_lock(identity.me) {
                    Ok(acquired) => Self::guard(self, identity, acquired.poisoned),
                    Err(_) => Err(LockError::WouldBlock),
                }
            }
        }
    }

    fn lock_by(
        &mut self,
        deadline: Option<Instant>,
    ) -> Result<ArrayGuard<'_, T>, LockError<ArrayGuard<'_, T>>> {
        let identity = self.attachment.identity()?;
        match lock::acquire(&self.attachment, &self.lock, identity.me, deadline) {
            Ok(Some(acquired)) => Self::guard(self, identity, acquired.poisoned),
            Ok(None) => Err(LockError::Timeout),
            Err(error) => Err(error.into()),
        }
    }

    fn guard(
        array: &mut Array<T>,
        identity: Identity,
        poisoned: bool,
    ) -> Result<ArrayGuard<'_, T>, LockError<ArrayGuard<'_, T>>> {
        let guard = ArrayGuard { array, identity };
        if poisoned { Err(LockError::Poisoned(guard)) } else { Ok(guard) }
    }

    /// Whether a process died writing to it, and nobody has made it clean.
    pub fn is_poisoned(&self) -> bool {
        self.lock.is_poisoned()
    }
}

/// The lock, held within a call.
struct Locked<'a, T: Pod> {
    array: &'a Array<T>,
    me: Owner,
}

impl<T: Pod> Drop for Locked<'_, T> {
    fn drop(&mut self) {
        self.array.lock.unlock(self.me);
    }
}

impl<T: Number> Array<T> {
    #[inline(always)]
    fn fetch(&self, index: usize, operation: Fetch, operand: T) -> Result<T> {
        let at = self.at(index)?;
        // SAFETY: as in `get`; numbers are of an atomic's size.
        Ok(unsafe { T::fetch(at.cast(), operation, operand) })
    }

    /// Replaces an element; returns the old one.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfRange`], as for all operations on one element.
    pub fn swap(&self, index: usize, value: T) -> Result<T> {
        let at = self.at(index)?;
        // SAFETY: as in `fetch`.
        Ok(unsafe { bits::swap(at.cast(), value) })
    }

    /// Replaces an element if it is `current`, bit by bit; returns the old one
    /// in `Ok`, or what it found in `Err`.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfRange`].
    pub fn compare_exchange(&self, index: usize, current: T, new: T) -> Result<Result<T, T>> {
        let at = self.at(index)?;
        // SAFETY: as in `fetch`.
        Ok(unsafe { bits::compare_exchange(at.cast(), current, new) })
    }

    /// Adds to an element, wrapping around; returns the old one.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfRange`].
    pub fn fetch_add(&self, index: usize, operand: T) -> Result<T> {
        self.fetch(index, Fetch::Add, operand)
    }

    /// Subtracts from an element, wrapping around; returns the old one.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfRange`].
    pub fn fetch_sub(&self, index: usize, operand: T) -> Result<T> {
        self.fetch(index, Fetch::Sub, operand)
    }

    /// Takes the larger of an element and the operand; returns the old one.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfRange`].
    pub fn fetch_max(&self, index: usize, operand: T) -> Result<T> {
        self.fetch(index, Fetch::Max, operand)
    }

    /// Takes the smaller of an element and the operand; returns the old one.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfRange`].
    pub fn fetch_min(&self, index: usize, operand: T) -> Result<T> {
        self.fetch(index, Fetch::Min, operand)
    }
}

impl<T: Integer> Array<T> {
    fn fetch_bits(&self, index: usize, operation: FetchBits, operand: T) -> Result<T> {
        let at = self.at(index)?;
        // SAFETY: as in `fetch`.
        Ok(unsafe { T::fetch_bits(at.cast(), operation, operand) })
    }

    /// Keeps the bits that both have; returns the old element.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfRange`].
    pub fn fetch_and(&self, index: usize, operand: T) -> Result<T> {
        self.fetch_bits(index, FetchBits::And, operand)
    }

    /// Sets the bits of the operand; returns the old element.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfRange`].
    pub fn fetch_or(&self, index: usize, operand: T) -> Result<T> {
        self.fetch_bits(index, FetchBits::Or, operand)
    }

    /// Turns the bits of the operand over; returns the old element.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfRange`].
    pub fn fetch_xor(&self, index: usize, operand: T) -> Result<T> {
        self.fetch_bits(index, FetchBits::Xor, operand)
    }
}

impl<T: Pod> Drop for Array<T> {
    fn drop(&mut self) {
        self.attachment.give_exclusive(self.index);
    }
}

impl<T: Pod> fmt::Debug for Array<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Array")
            .field("segment", &self.attachment.name())
            .field("len", &self.len)
            .finish_non_exhaustive()
    }
}

/// An [`Array`], locked and lent in place. Dropping it unlocks.
///
/// The lock keeps out whoever takes it. It does not keep out single elements'
/// [`set`](Array::set) and the like through other attachments, which take no
/// lock where elements are of 1, 2, 4 or 8 bytes: where elements are changed in
/// place, either all change them under the lock, or all by single elements.
#[must_use = "the array is unlocked when its guard is dropped"]
pub struct ArrayGuard<'a, T: Pod> {
    array: &'a mut Array<T>,
    identity: Identity,
}

impl<T: Pod> ArrayGuard<'_, T> {
    /// Takes back the mark of a writer that died: the elements are in order
    /// again.
    pub fn make_clean(&mut self) {
        if self.identity.is_current() {
            self.array.lock.clear_poison(self.identity.me);
        }
    }
}

impl<T: Pod> Deref for ArrayGuard<'_, T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: `len` live elements, aligned; any bytes are a `T`. The guard
        // borrows the attachment's only handle exclusively and holds the lock.
        unsafe { core::slice::from_raw_parts(self.array.elements.as_ptr(), self.array.len) }
    }
}

impl<T: Pod> DerefMut for ArrayGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as in `deref`.
        unsafe { core::slice::from_raw_parts_mut(self.array.elements.as_ptr(), self.array.len) }
    }
}

impl<T: Pod> Drop for ArrayGuard<'_, T> {
    fn drop(&mut self) {
        // In a forked child the lock is the parent's.
        if self.identity.is_current() {
            self.array.lock.unlock(self.identity.me);
        }
    }
}

impl<T: Pod> fmt::Debug for ArrayGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ArrayGuard").field("len", &self.len()).finish_non_exhaustive()
    }
}
