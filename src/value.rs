//! Value: one value that all processes see, never torn.
//!
//! A value of 1, 2, 4 or 8 bytes is one atomic word. Any other is a
//! [`Cell`]: two copies and a sequence word, whose readers never wait.

use crate::error::{Error, Result};
use crate::lock;
use crate::memory::{LINE, Region};
use crate::ring::Owner;
use crate::segment::Segment;
use crate::shm::attachment::{Attachment, Identity};
use crate::shm::catalog::{Kind, Object, TypeTag};
use crate::wait::{SLICE, deadline};
use crate::word::bits::{self, Fetch, FetchBits, Integer, Number, is_atomic};
use crate::word::cell::{Cell, Geometry};
use bytemuck::Pod;
use core::marker::PhantomData;
use core::mem::MaybeUninit;
use core::ptr::NonNull;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The declaration of a value of type `T`.
pub(crate) fn declare<T: Pod>(name: &str) -> Object {
    Object {
        name: name.to_owned(),
        kind: Kind::Value,
        tag: TypeTag::of::<T>(),
        capacity: 1,
        flags: 0,
        start: 0,
        max_len: 0,
        offset: 0,
        len: 0,
    }
}

fn atomic_size(size: usize) -> bool {
    matches!(size, 1 | 2 | 4 | 8)
}

pub(crate) fn measure(object: &Object) -> Result<usize, &'static str> {
    if atomic_size(object.tag.size) {
        Ok(LINE)
    } else {
        Geometry::new(object.tag.size).map(|geometry| geometry.len)
    }
}

/// # Safety
///
/// As [`crate::kinds::init`].
pub(crate) unsafe fn init(object: &Object, region: Region<'_>, initial: &[u8]) {
    let size = object.tag.size;
    if atomic_size(size) {
        let count = initial.len().min(size);
        // SAFETY: the region has a line, which nobody else uses yet.
        unsafe { region.base().as_ptr().copy_from_nonoverlapping(initial.as_ptr(), count) };
    } else if let Ok(geometry) = Geometry::new(size) {
        // SAFETY: as long as `measure` says, by the caller's promise.
        unsafe { Cell::init(region, geometry, initial) };
    }
}

pub(crate) fn sweep(attachment: &Attachment, object: &Object, region: Region<'_>, dead: Owner) {
    if !atomic_size(object.tag.size)
        && let Ok(geometry) = Geometry::new(object.tag.size)
    {
        // SAFETY: `kinds::check` measured it, its maker ran `init`.
        unsafe { Cell::attach(region, geometry, attachment.asymmetric) }.recover(dead);
    }
}

/// One value in shared memory.
///
/// A load never returns a mixture of two stores, and never waits: not for a
/// slow writer, nor for one that was killed half-way, which leaves the old
/// value. For types of 1, 2, 4 and 8 bytes `load`, `store` and `swap` are one
/// atomic instruction, as are most of the arithmetic operations of integers; the
/// others are short loops in which somebody always gets on. For types of other
/// sizes a store waits for other stores.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use slipring::Value;
///
/// # let name = format!("doc-value-{}", std::process::id());
/// let temperature = Value::<f64>::create(&name, 20.5)?;
///
/// // In another process:
/// let other = Value::<f64>::open(&name)?;
/// other.fetch_add(0.5);
///
/// assert_eq!(temperature.load(), 21.0);
/// # Ok(())
/// # }
/// ```
pub struct Value<T: Pod> {
    form: Form,
    // After `form`, whose views end first.
    attachment: Arc<Attachment>,
    value: PhantomData<fn(T) -> T>,
}

#[derive(Clone)]
enum Form {
    /// A word of `T`'s size.
    Atomic(NonNull<u8>),
    Cell(Cell<'static>),
}

// SAFETY: the word is only accessed as an atomic.
unsafe impl<T: Pod> Send for Value<T> {}
// SAFETY: as above.
unsafe impl<T: Pod> Sync for Value<T> {}

impl<T: Pod> Value<T> {
    /// Creates a segment that holds one value, and attaches to it.
    ///
    /// # Errors
    ///
    /// As [`Queue::create`](crate::Queue::create).
    pub fn create(name: &str, initial: T) -> Result<Value<T>> {
        Segment::builder(name).value_with("value", initial).create()?.value("value")
    }

    /// Opens the one value of a segment.
    ///
    /// # Errors
    ///
    /// As [`Queue::open`](crate::Queue::open).
    pub fn open(name: &str) -> Result<Value<T>> {
        Segment::open(name)?.only(Self::within)
    }

    /// Opens the value, or creates it if there is none; an existing one keeps
    /// what it holds.
    ///
    /// # Errors
    ///
    /// As [`Value::create`] and [`Value::open`].
    pub fn open_or_create(name: &str, initial: T) -> Result<Value<T>> {
        Segment::builder(name).value_with("value", initial).open_or_create()?.only(Self::within)
    }

    pub(crate) fn within(segment: &Segment, name: &str) -> Result<Value<T>> {
        let attachment = Arc::clone(segment.attachment());
        let object = attachment.object(name)?;
        object.expect(Kind::Value, TypeTag::of::<T>())?;
        // SAFETY: the attachment lives beside the view, in the same handle.
        let region = unsafe { attachment.region(object) }?;
        let form = if is_atomic::<T>() {
            Form::Atomic(region.base())
        } else {
            let corrupt = |what| Error::Corrupt { what, at: object.offset as u64 };
            let geometry = Geometry::new(size_of::<T>()).map_err(corrupt)?;
            // SAFETY: `kinds::check` measured the object when the segment was
            // opened, and its size is that of `T`; its maker ran `init`.
            Form::Cell(unsafe { Cell::attach(region, geometry, attachment.asymmetric) })
        };
        Ok(Value { form, attachment, value: PhantomData })
    }

    fn me(&self) -> Result<Owner> {
        Ok(self.attachment.identity()?.me)
    }

    /// Reads the value.
    #[inline(always)]
    pub fn load(&self) -> T {
        if const { is_atomic::<T>() } {
            // SAFETY: a live word of an atomic's size (that of `T`, by its tag),
            // on a line of its own, accessed through `bits` alone.
            unsafe { bits::load(self.word()) }
        } else {
            self.load_cell()
        }
    }

    #[inline]
    fn load_cell(&self) -> T {
        let mut value = MaybeUninit::<T>::uninit();
        // SAFETY: the cell's geometry is of `T`'s size, and any bytes
        // are a `T`.
        unsafe {
            self.cell().load(value.as_mut_ptr().cast(), size_of::<T>(), || self.me().ok());
            value.assume_init()
        }
    }

    /// The word of a type of an atomic's size.
    #[inline(always)]
    fn word(&self) -> NonNull<u8> {
        match &self.form {
            Form::Atomic(word) => *word,
            Form::Cell(_) => unreachable!("the type is of an atomic's size"),
        }
    }

    /// The cell of another type.
    #[inline(always)]
    fn cell(&self) -> &Cell<'static> {
        match &self.form {
            Form::Cell(cell) => cell,
            Form::Atomic(_) => unreachable!("the type is of no atomic's size"),
        }
    }

    /// Replaces the value.
    ///
    /// # Panics
    ///
    /// Types that are not of an atomic's size: in a forked child that the
    /// operating system does not let attach (see [`Value::store_timeout`] for
    /// an error instead).
    #[inline(always)]
    pub fn store(&self, value: T) {
        if const { is_atomic::<T>() } {
            // SAFETY: as in `load`.
            unsafe { bits::store(self.word(), value) }
        } else {
            self.store_cell(value);
        }
    }

    #[inline]
    fn store_cell(&self, value: T) {
        self.lock_anyhow(self.cell()).store(&value);
    }

    /// Replaces the value, waiting for other writers for at most `timeout`;
    /// whether it did. Types of an atomic's size never wait.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`]; in a forked child [`Error::ParticipantsFull`] and
    /// [`Error::Os`].
    pub fn store_timeout(&self, value: T, timeout: Duration) -> Result<bool> {
        match &self.form {
            Form::Atomic(_) => self.store(value),
            Form::Cell(cell) => {
                let locked = self.lock(cell, self.attachment.identity()?, deadline(timeout))?;
                let Some(locked) = locked else { return Ok(false) };
                locked.store(&value);
            }
        }
        Ok(true)
    }

    /// Replaces the value by a function of itself; returns the old one. Nobody
    /// else's store comes in between. For types of an atomic's size the
    /// function may be called several times. For others it runs once, and other
    /// stores wait for it: if it stores to this very value, it waits for itself
    /// for ever. (Loading is fine.)
    ///
    /// # Panics
    ///
    /// As [`Value::store`], and when the function does; the value is unchanged
    /// then.
    pub fn update(&self, mut change: impl FnMut(T) -> T) -> T {
        match &self.form {
            Form::Atomic(word) => {
                let mut old = self.load();
                loop {
                    // SAFETY: as in `load`.
                    match unsafe { bits::compare_exchange(*word, old, change(old)) } {
                        Ok(old) => return old,
                        Err(now) => old = now,
                    }
                }
            }
            Form::Cell(cell) => {
                let locked = self.lock_anyhow(cell);
                let old = locked.load();
                locked.store(&change(old));
                old
            }
        }
    }

    /// The cell's lock, whatever it takes.
    fn lock_anyhow<'c>(&self, cell: &'c Cell<'static>) -> Locked<'c> {
        let identity = loop {
            match self.attachment.identity() {
                Ok(identity) => break identity,
                // A forked child waits for its place.
                Err(Error::ParticipantsFull { .. }) => std::thread::sleep(SLICE),
                Err(error) => panic!("can't attach after fork: {error}"),
            }
        };
        loop {
            match self.lock(cell, identity, None) {
                Ok(Some(locked)) => return locked,
                Ok(None) => {}
                // The lock's word is none that a process writes.
                Err(Error::Corrupt { .. }) => cell.lock.reset(),
                // The kernel could not tell whether its owner is dead.
                Err(_) => std::thread::sleep(SLICE),
            }
        }
    }

    fn lock<'c>(
        &self,
        cell: &'c Cell<'static>,
        identity: Identity,
        deadline: Option<Instant>,
    ) -> Result<Option<Locked<'c>>> {
        let acquired = lock::acquire(&self.attachment, &cell.lock, identity.me, deadline)?;
        Ok(acquired.map(|acquired| {
            if acquired.poisoned {
                // A dead writer leaves the value whole.
                cell.lock.clear_poison(identity.me);
            }
            Locked { cell, identity }
        }))
    }
}

/// A cell whose lock is held; freed on drop, in a panic too.
struct Locked<'c> {
    cell: &'c Cell<'static>,
    identity: Identity,
}

impl Locked<'_> {
    fn load<T: Pod>(&self) -> T {
        let mut value = MaybeUninit::<T>::uninit();
        // SAFETY: as in `Value::load`; the lock is held.
        unsafe {
            self.cell.load_locked(value.as_mut_ptr().cast(), size_of::<T>());
            value.assume_init()
        }
    }

    fn store<T: Pod>(&self, value: &T) {
        // In a child forked by `update`'s function the lock is the parent's.
        if self.identity.is_current() {
            // SAFETY: the cell's geometry is of `T`'s size; the lock is held.
            unsafe { self.cell.store_locked(core::ptr::from_ref(value).cast(), size_of::<T>()) };
        }
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        if self.identity.is_current() {
            self.cell.lock.unlock(self.identity.me);
        }
    }
}

impl<T: Number> Value<T> {
    #[inline(always)]
    fn fetch(&self, operation: Fetch, operand: T) -> T {
        // SAFETY: as in `load`; numbers are of an atomic's size.
        unsafe { T::fetch(self.word(), operation, operand) }
    }

    /// Replaces the number; returns the old one.
    #[inline]
    pub fn swap(&self, value: T) -> T {
        // SAFETY: as in `load`.
        unsafe { bits::swap(self.word(), value) }
    }

    /// Replaces the number if it is `current`, bit by bit; returns the old one.
    ///
    /// # Errors
    ///
    /// The number found, if it is another.
    #[inline]
    pub fn compare_exchange(&self, current: T, new: T) -> Result<T, T> {
        // SAFETY: as in `load`.
        unsafe { bits::compare_exchange(self.word(), current, new) }
    }

    /// Adds, wrapping around; returns the old number.
    #[inline]
    pub fn fetch_add(&self, operand: T) -> T {
        self.fetch(Fetch::Add, operand)
    }

    /// Subtracts, wrapping around; returns the old number.
    #[inline]
    pub fn fetch_sub(&self, operand: T) -> T {
        self.fetch(Fetch::Sub, operand)
    }

    /// Takes the larger of the two; returns the old number.
    #[inline]
    pub fn fetch_max(&self, operand: T) -> T {
        self.fetch(Fetch::Max, operand)
    }

    /// Takes the smaller of the two; returns the old number.
    #[inline]
    pub fn fetch_min(&self, operand: T) -> T {
        self.fetch(Fetch::Min, operand)
    }
}

impl<T: Integer> Value<T> {
    /// Keeps the bits that both have; returns the old number.
    #[inline]
    pub fn fetch_and(&self, operand: T) -> T {
        // SAFETY: as in `load`.
        unsafe { T::fetch_bits(self.word(), FetchBits::And, operand) }
    }

    /// Sets the bits of the operand; returns the old number.
    #[inline]
    pub fn fetch_or(&self, operand: T) -> T {
        // SAFETY: as in `load`.
        unsafe { T::fetch_bits(self.word(), FetchBits::Or, operand) }
    }

    /// Turns the bits of the operand over; returns the old number.
    #[inline]
    pub fn fetch_xor(&self, operand: T) -> T {
        // SAFETY: as in `load`.
        unsafe { T::fetch_bits(self.word(), FetchBits::Xor, operand) }
    }
}

impl<T: Pod> Clone for Value<T> {
    fn clone(&self) -> Self {
        Value {
            form: self.form.clone(),
            attachment: Arc::clone(&self.attachment),
            value: PhantomData,
        }
    }
}

impl<T: Pod + fmt::Debug> fmt::Debug for Value<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Value").field(&self.load()).finish()
    }
}
