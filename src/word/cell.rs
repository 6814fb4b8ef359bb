//! A value that is never torn, whose readers never wait for a writer.
//!
//! Two copies and a sequence word: copy `seq % 2` is the value. A writer, alone
//! by the lock, writes the *other* copy and then counts `seq` up. A reader
//! copies the current one and accepts it if `seq` is still the same. So a
//! writer that is stopped or killed half-way leaves a whole value behind and
//! disturbs nobody, and its lock needs no mark: the next writer writes the same
//! copy from its start.
//!
//! All copying goes word by word through Relaxed atomics, so a reader that races
//! with a writer reads a mixture that it then throws away, and no undefined
//! behaviour.
//!
//! | edge | release | acquire | makes visible |
//! |------|---------|---------|---------------|
//! | V    | `store`: `seq` + 1 | `load`: first look at `seq` | the new copy |
//! | T    | `store`: fence before the first word | `load`: fence after the last word | that `seq` has moved on, to a reader that saw any word of a newer copy |
//!
//! Edge T in full: writer n+2 writes the copy that a reader of n may still be
//! reading. It knows of `seq = n+1` by the lock. Its Release fence comes before
//! its words; if the reader saw one of them, the fences synchronise, and the
//! reader's second look at `seq` finds n+1 or more.
//!
//! A reader retries only when a writer has *finished* in between. One that has
//! no luck for long takes the lock when it is free, which keeps writers out; if
//! it is held by one that does not move, `seq` does not move either.

use super::lock::{self, Lock};
use crate::memory::{LINE, Region, round_up};
use crate::ring::Owner;
use crate::sync::{self, AtomicU64, Ordering, STEP_BUDGET, fence, point};
use core::ptr::NonNull;
use crossbeam_utils::CachePadded;

/// Attempts after which a reader tries to keep writers out.
const PATIENCE: u32 = if cfg!(loom) { 2 } else { 64 };

/// Where the parts of a cell lie: a function of the value's size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Geometry {
    size: usize,
    words: usize,
    /// From one copy to the other.
    stride: usize,
    pub(crate) len: usize,
}

const LOCK: usize = match round_up(size_of::<CachePadded<AtomicU64>>(), LINE) {
    Some(offset) => offset,
    None => unreachable!(),
};
const COPIES: usize = LOCK + lock::LEN;

impl Geometry {
    pub(crate) fn new(size: usize) -> Result<Geometry, &'static str> {
        let too_large = "the value's size overflows";
        let words = size.div_ceil(8);
        let bytes = words.checked_mul(size_of::<AtomicU64>()).ok_or(too_large)?;
        let stride = round_up(bytes, LINE).ok_or(too_large)?;
        let len = stride
            .checked_mul(2)
            .and_then(|copies| copies.checked_add(COPIES))
            .filter(|&len| len <= isize::MAX as usize)
            .ok_or(too_large)?;
        Ok(Geometry { size, words, stride, len })
    }
}

/// A view of a cell.
#[derive(Clone)]
pub(crate) struct Cell<'a> {
    /// Counts finished stores.
    seq: &'a AtomicU64,
    /// Serialises writers.
    pub(crate) lock: Lock<'a>,
    copies: NonNull<u8>,
    geometry: Geometry,
}

// SAFETY: the copies are reached through atomics alone.
unsafe impl Send for Cell<'_> {}
// SAFETY: as above.
unsafe impl Sync for Cell<'_> {}

impl<'a> Cell<'a> {
    /// Writes a cell that holds `initial`.
    ///
    /// # Safety
    ///
    /// The region must have `geometry.len` bytes, aligned to [`LINE`], that
    /// nobody else uses meanwhile; `initial` must have the geometry's size.
    pub(crate) unsafe fn init(region: Region<'a>, geometry: Geometry, initial: &[u8]) {
        debug_assert_eq!(initial.len(), geometry.size);
        // SAFETY: inside the region by the caller's promise; the lock's part
        // fits its layout.
        unsafe {
            region.at::<CachePadded<AtomicU64>>(0).write(CachePadded::new(AtomicU64::new(0)));
            Lock::init(region.part(LOCK, lock::LEN).unwrap_unchecked());
        }
        for copy in 0..2 {
            for word in 0..geometry.words {
                let mut bytes = [0; 8];
                let from = initial.get(word * 8..).unwrap_or_default();
                let count = from.len().min(8);
                bytes[..count].copy_from_slice(&from[..count]);
                let at = COPIES + copy * geometry.stride + word * size_of::<AtomicU64>();
                let first = AtomicU64::new(u64::from_ne_bytes(bytes));
                // SAFETY: inside the copies, which the geometry made room for.
                unsafe { region.at::<AtomicU64>(at).write(first) };
            }
        }
    }

    /// A view of what `init` wrote.
    ///
    /// # Safety
    ///
    /// The region must hold such a cell of this geometry.
    pub(crate) unsafe fn attach(region: Region<'a>, geometry: Geometry, asymmetric: bool) -> Self {
        // SAFETY: in bounds and initialised, by the caller's promise.
        unsafe {
            let lock = region.part(LOCK, lock::LEN).unwrap_unchecked();
            Cell {
                seq: region.at::<CachePadded<AtomicU64>>(0).as_ref(),
                lock: Lock::attach(lock, asymmetric),
                copies: region.at::<[u8; 0]>(COPIES).cast(),
                geometry,
            }
        }
    }

    /// The words of the copy that belongs to `seq`, of a value of this size.
    ///
    /// Callers hand the size on because they know it when they are compiled: loops over a
    /// few words cost as much as the words.
    ///
    /// # Safety
    ///
    /// The size must be the geometry's.
    #[inline(always)]
    unsafe fn copy(&self, seq: u64, size: usize) -> &'a [AtomicU64] {
        debug_assert_eq!(size, self.geometry.size);
        let offset = (seq % 2) as usize * self.geometry.stride;
        // SAFETY: two copies of the geometry's `words`, which are as many as its size
        // needs, lie `stride` apart from `copies` on, initialised; atomics may be shared.
        unsafe {
            let first = self.copies.add(offset).cast::<AtomicU64>().as_ptr();
            core::slice::from_raw_parts(first, size.div_ceil(8))
        }
    }

    /// Copies the words out to `size` bytes.
    ///
    /// # Safety
    ///
    /// `to` must be writable for them.
    #[inline(always)]
    unsafe fn copy_out(words: &[AtomicU64], to: *mut u8, size: usize) {
        let whole = size / 8;
        for (i, word) in words[..whole].iter().enumerate() {
            // SAFETY: i < size / 8, so eight bytes from 8 * i are inside.
            unsafe { to.add(i * 8).cast::<u64>().write_unaligned(word.load(Ordering::Relaxed)) };
        }
        let rest = size % 8;
        if rest != 0 {
            let bytes = words[whole].load(Ordering::Relaxed).to_ne_bytes();
            // SAFETY: the last `rest` bytes.
            unsafe { to.add(whole * 8).copy_from_nonoverlapping(bytes.as_ptr(), rest) };
        }
    }

    /// Copies `size` bytes into the words.
    ///
    /// # Safety
    ///
    /// `from` must be readable for them.
    #[inline(always)]
    unsafe fn copy_in(words: &[AtomicU64], from: *const u8, size: usize) {
        let whole = size / 8;
        for (i, word) in words[..whole].iter().enumerate() {
            // SAFETY: i < size / 8, so eight bytes from 8 * i are inside.
            word.store(
                unsafe { from.add(i * 8).cast::<u64>().read_unaligned() },
                Ordering::Relaxed,
            );
            point("cell.word");
        }
        let rest = size % 8;
        if rest != 0 {
            let mut bytes = [0; 8];
            // SAFETY: the last `rest` bytes.
            unsafe { from.add(whole * 8).copy_to_nonoverlapping(bytes.as_mut_ptr(), rest) };
            words[whole].store(u64::from_ne_bytes(bytes), Ordering::Relaxed);
            point("cell.last-word");
        }
    }

    /// One attempt to read; whether the copy is whole.
    ///
    /// # Safety
    ///
    /// As [`Cell::load`].
    #[inline(always)]
    unsafe fn try_load(&self, to: *mut u8, size: usize) -> bool {
        // Edge V: Acquire pairs with the Release in `store`.
        let seq = self.seq.load(Ordering::Acquire);
        // SAFETY: the caller's promise.
        unsafe { Self::copy_out(self.copy(seq, size), to, size) };
        // Edge T: pairs with the Release fence in `store`.
        fence(Ordering::Acquire);
        self.seq.load(Ordering::Relaxed) == seq
    }

    /// Reads the value. `me` may be asked for once, to keep writers out.
    ///
    /// A peer that counts `seq` up for ever, which no correct one does, gets a
    /// mixture of its own making returned.
    ///
    /// # Safety
    ///
    /// The size must be the geometry's, and `to` writable for as many bytes.
    #[inline(always)]
    pub(crate) unsafe fn load(&self, to: *mut u8, size: usize, me: impl FnOnce() -> Option<Owner>) {
        for _ in 0..PATIENCE {
            // SAFETY: the caller's promise.
            if unsafe { self.try_load(to, size) } {
                return;
            }
            sync::spin_loop();
        }
        // SAFETY: the caller's promise.
        unsafe { self.load_against_writers(to, me()) };
    }

    /// # Safety
    ///
    /// As [`Cell::load`].
    #[cold]
    unsafe fn load_against_writers(&self, to: *mut u8, me: Option<Owner>) {
        for _ in 0..STEP_BUDGET {
            let locked = me.filter(|me| self.lock.try_lock(*me).is_ok());
            // SAFETY: the caller's promise.
            let whole = unsafe { self.try_load(to, self.geometry.size) };
            if let Some(me) = locked {
                self.lock.clear_poison(me);
                self.lock.unlock(me);
            }
            if whole {
                return;
            }
            sync::spin_loop();
        }
    }

    /// Replaces the value. The caller holds the lock.
    ///
    /// # Safety
    ///
    /// The size must be the geometry's, and `from` readable for as many bytes.
    #[inline(always)]
    pub(crate) unsafe fn store_locked(&self, from: *const u8, size: usize) {
        // The lock makes this writer the only one, and the last one's count
        // known.
        let seq = self.seq.load(Ordering::Relaxed);
        // Edge T: pairs with the Acquire fence in `try_load`.
        fence(Ordering::Release);
        // SAFETY: the caller's promise.
        unsafe { Self::copy_in(self.copy(seq.wrapping_add(1), size), from, size) };
        // Edge V: Release pairs with the Acquire in `try_load`.
        self.seq.store(seq.wrapping_add(1), Ordering::Release);
        point("cell.seq");
    }

    /// Reads the value. The caller holds the lock.
    ///
    /// # Safety
    ///
    /// As [`Cell::load`].
    #[inline(always)]
    pub(crate) unsafe fn load_locked(&self, to: *mut u8, size: usize) {
        // SAFETY: the caller's promise.
        unsafe { Self::copy_out(self.copy(self.seq.load(Ordering::Relaxed), size), to, size) };
    }

    /// Frees the lock of a dead writer. What it wrote is whole and current, or
    /// it is not the value.
    pub(crate) fn recover(&self, dead: Owner) {
        self.lock.recover(dead);
    }
}

#[cfg(all(test, not(loom)))]
#[path = "cell_tests.rs"]
mod tests;

#[cfg(all(test, loom))]
#[path = "cell_models.rs"]
mod models;
