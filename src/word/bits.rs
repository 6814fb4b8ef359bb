//! Atomics for any type of 1, 2, 4 or 8 bytes.
//!
//! Loads acquire and stores release, so that a value or an element can tell
//! others that something else is ready. One word alone has no protocol to
//! model, so these are the standard atomics in every build.
//!
//! | edge | release | acquire | makes visible |
//! |------|---------|---------|---------------|
//! | W    | `store`, `swap`, `compare_exchange`, `fetch` | `load`, and the same | what the writer did before |

use crate::sync::point;
use bytemuck::Pod;
use core::ptr::NonNull;
use core::sync::atomic::{
    AtomicI8, AtomicI16, AtomicI32, AtomicI64, AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering,
};

/// Whether values of `T` are read and written in one piece.
pub(crate) const fn is_atomic<T>() -> bool {
    matches!(size_of::<T>(), 1 | 2 | 4 | 8)
}

/// Runs `$body` with `$atomic` naming the atomic, and `$bits` the integer, of
/// the size of `$t`.
macro_rules! by_size {
    ($t:ty, $atomic:ident, $bits:ident => $body:expr) => {
        match size_of::<$t>() {
            1 => by_size!(@ AtomicU8, u8, $atomic, $bits, $body),
            2 => by_size!(@ AtomicU16, u16, $atomic, $bits, $body),
            4 => by_size!(@ AtomicU32, u32, $atomic, $bits, $body),
            8 => by_size!(@ AtomicU64, u64, $atomic, $bits, $body),
            _ => unreachable!("callers ask `is_atomic` first"),
        }
    };
    (@ $a:ty, $b:ty, $atomic:ident, $bits:ident, $body:expr) => {{
        type $atomic = $a;
        type $bits = $b;
        $body
    }};
}

/// Reads the value.
///
/// # Safety
///
/// `at` must be a live word of `T`'s size, aligned to that size, that is only
/// accessed through this module. `T` must be of an atomic's size.
#[inline(always)]
pub(crate) unsafe fn load<T: Pod>(at: NonNull<u8>) -> T {
    by_size!(T, Atomic, Bits => {
        // SAFETY: the caller's promise.
        let word = unsafe { at.cast::<Atomic>().as_ref() };
        // Edge W.
        let bits: Bits = word.load(Ordering::Acquire);
        reinterpret(bits)
    })
}

/// Replaces the value.
///
/// # Safety
///
/// As [`load`].
#[inline(always)]
pub(crate) unsafe fn store<T: Pod>(at: NonNull<u8>, value: T) {
    by_size!(T, Atomic, Bits => {
        // SAFETY: the caller's promise.
        let word = unsafe { at.cast::<Atomic>().as_ref() };
        // Edge W.
        word.store(reinterpret::<T, Bits>(value), Ordering::Release);
        point("bits.store");
    })
}

/// Replaces the value; returns the old one.
///
/// # Safety
///
/// As [`load`].
#[inline(always)]
pub(crate) unsafe fn swap<T: Pod>(at: NonNull<u8>, value: T) -> T {
    by_size!(T, Atomic, Bits => {
        // SAFETY: the caller's promise.
        let word = unsafe { at.cast::<Atomic>().as_ref() };
        // Edge W.
        let old = word.swap(reinterpret::<T, Bits>(value), Ordering::AcqRel);
        point("bits.swap");
        reinterpret(old)
    })
}

/// Replaces the value if its bits are those of `current`; returns the old one
/// either way.
///
/// # Safety
///
/// As [`load`].
#[inline(always)]
pub(crate) unsafe fn compare_exchange<T: Pod>(at: NonNull<u8>, current: T, new: T) -> Result<T, T> {
    by_size!(T, Atomic, Bits => {
        // SAFETY: the caller's promise.
        let word = unsafe { at.cast::<Atomic>().as_ref() };
        let (current, new) = (reinterpret::<T, Bits>(current), reinterpret::<T, Bits>(new));
        // Edge W.
        let done = word.compare_exchange(current, new, Ordering::AcqRel, Ordering::Acquire);
        point("bits.exchange");
        done.map(reinterpret).map_err(reinterpret)
    })
}

/// The same bits as another type of the same size.
#[inline(always)]
fn reinterpret<A: Pod, B: Pod>(a: A) -> B {
    debug_assert_eq!(size_of::<A>(), size_of::<B>());
    bytemuck::cast(a)
}

/// An arithmetic operation on one word.
#[derive(Clone, Copy, Debug)]
pub enum Fetch {
    /// Wrapping sum.
    Add,
    /// Wrapping difference.
    Sub,
    /// Larger of the two.
    Max,
    /// Smaller of the two.
    Min,
}

/// A bit operation on one word.
#[derive(Clone, Copy, Debug)]
pub enum FetchBits {
    /// Bits that both have.
    And,
    /// Bits that either has.
    Or,
    /// Bits that one has.
    Xor,
}

/// Numbers that can be changed in one step: integers up to 64 bits, `f32` and
/// `f64`.
///
/// For integers every operation is one processor instruction, or for the larger
/// and smaller of two a short loop, and wraps around. For floats it is a loop
/// of compare-and-exchange: some thread always gets on.
pub trait Number: Pod + PartialEq + sealed::Sealed {
    /// Applies the operation; returns the old number.
    ///
    /// # Safety
    ///
    /// `at` must be a live word of this type, aligned to its size, that is only
    /// accessed as an atomic.
    #[doc(hidden)]
    unsafe fn fetch(at: NonNull<u8>, operation: Fetch, operand: Self) -> Self;
}

/// Integers up to 64 bits.
pub trait Integer: Number {
    /// Applies the operation; returns the old number.
    ///
    /// # Safety
    ///
    /// As [`Number::fetch`].
    #[doc(hidden)]
    unsafe fn fetch_bits(at: NonNull<u8>, operation: FetchBits, operand: Self) -> Self;
}

mod sealed {
    pub trait Sealed {}
}

macro_rules! integers {
    ($($number:ty: $atomic:ty),*) => {$(
        impl sealed::Sealed for $number {}

        impl Number for $number {
            #[inline(always)]
            unsafe fn fetch(at: NonNull<u8>, operation: Fetch, operand: Self) -> Self {
                // SAFETY: the caller's promise.
                let word = unsafe { at.cast::<$atomic>().as_ref() };
                // Edge W.
                let order = Ordering::AcqRel;
                let old = match operation {
                    Fetch::Add => word.fetch_add(operand, order),
                    Fetch::Sub => word.fetch_sub(operand, order),
                    Fetch::Max => word.fetch_max(operand, order),
                    Fetch::Min => word.fetch_min(operand, order),
                };
                point("bits.fetch");
                old
            }
        }

        impl Integer for $number {
            #[inline(always)]
            unsafe fn fetch_bits(at: NonNull<u8>, operation: FetchBits, operand: Self) -> Self {
                // SAFETY: the caller's promise.
                let word = unsafe { at.cast::<$atomic>().as_ref() };
                // Edge W.
                let order = Ordering::AcqRel;
                let old = match operation {
                    FetchBits::And => word.fetch_and(operand, order),
                    FetchBits::Or => word.fetch_or(operand, order),
                    FetchBits::Xor => word.fetch_xor(operand, order),
                };
                point("bits.fetch-bits");
                old
            }
        }
    )*};
}

integers!(
    u8: AtomicU8, u16: AtomicU16, u32: AtomicU32, u64: AtomicU64,
    i8: AtomicI8, i16: AtomicI16, i32: AtomicI32, i64: AtomicI64
);

macro_rules! floats {
    ($($number:ty),*) => {$(
        impl sealed::Sealed for $number {}

        impl Number for $number {
            unsafe fn fetch(at: NonNull<u8>, operation: Fetch, operand: Self) -> Self {
                // SAFETY: the caller's promise.
                let mut old: Self = unsafe { load(at) };
                loop {
                    let new = match operation {
                        Fetch::Add => old + operand,
                        Fetch::Sub => old - operand,
                        Fetch::Max => old.max(operand),
                        Fetch::Min => old.min(operand),
                    };
                    // SAFETY: the caller's promise.
                    match unsafe { compare_exchange(at, old, new) } {
                        Ok(old) => return old,
                        Err(now) => old = now,
                    }
                }
            }
        }
    )*};
}

floats!(f32, f64);

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn word() -> (Box<u64>, NonNull<u8>) {
        let mut word = Box::new(0u64);
        let at = NonNull::from(&mut *word).cast();
        (word, at)
    }

    #[test]
    fn every_size() {
        let (_word, at) = word();
        // SAFETY: a live, aligned word of 8 bytes, used by this thread alone.
        unsafe {
            store(at, 0x1234_5678_9abc_def0u64);
            assert_eq!(load::<u64>(at), 0x1234_5678_9abc_def0);
            store(at, [1u8, 2, 3, 4]);
            assert_eq!(swap(at, [5u8, 6, 7, 8]), [1, 2, 3, 4]);
            store(at, -7i16);
            assert_eq!(compare_exchange(at, -7i16, 8), Ok(-7));
            assert_eq!(compare_exchange(at, -7i16, 9), Err(8));
            store(at, 255u8);
            assert_eq!(u8::fetch(at, Fetch::Add, 2), 255);
            assert_eq!(load::<u8>(at), 1);
            store(at, -5i8);
            assert_eq!(i8::fetch(at, Fetch::Max, 3), -5);
            assert_eq!(i8::fetch(at, Fetch::Min, -9), 3);
            assert_eq!(load::<i8>(at), -9);
            store(at, 0b1100u32);
            u32::fetch_bits(at, FetchBits::And, 0b0110);
            u32::fetch_bits(at, FetchBits::Or, 0b0001);
            u32::fetch_bits(at, FetchBits::Xor, 0b1111);
            assert_eq!(load::<u32>(at), 0b1010);
            store(at, 1.5f64);
            assert_eq!(f64::fetch(at, Fetch::Sub, 2.0), 1.5);
            assert_eq!(f64::fetch(at, Fetch::Max, f64::NAN), -0.5);
            assert_eq!(load::<f64>(at), -0.5);
        }
    }
}
