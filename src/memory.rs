//! Memory that an algorithm borrows.
//!
//! A [`Region`] is a base, a length and a lifetime. Rings, locks and cells are
//! laid out over one; whether the bytes are a mapped segment, a heap block or a
//! loom model's block makes no difference to them.
//!
//! Layout arithmetic is here too, all of it checked, since sizes come from users and
//! from files; and what depends on the size of cache lines.

use core::alloc::Layout;
#[cfg(all(target_arch = "x86_64", not(miri)))]
use core::arch::x86_64::__m128i;
use core::marker::PhantomData;
use core::mem::MaybeUninit;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU8, Ordering};

/// Alignment of every object in a segment and of every group of words that one
/// side writes alone: two cache lines, because adjacent lines are fetched in
/// pairs.
pub const LINE: usize = 128;

/// `value` rounded up to a multiple of `align` (a power of two), or `None` on
/// overflow.
pub(crate) const fn round_up(value: usize, align: usize) -> Option<usize> {
    match value.checked_add(align - 1) {
        Some(v) => Some(v & !(align - 1)),
        None => None,
    }
}

/// Whether this is one of AMD's processors or of their kin. What is fast differs: long
/// rests ([`Pace`](crate::pace::Pace)) are for them, and so is the first guess that lines
/// of long messages are to be taken over ([`Favour`](crate::favour::Favour)); lines asked
/// for further ahead are for Intel's, whose cores are further from each other. Others were
/// not measured.
#[inline]
pub(crate) fn is_amd() -> bool {
    const NO: u8 = 1;
    const YES: u8 = 2;
    // Whoever comes first finds out, several at once maybe: the answer is the same. (A
    // lock could be held by a thread that a forked child does not have.)
    static KNOWN: AtomicU8 = AtomicU8::new(0);
    // Relaxed, both: nothing but the answer is at stake.
    match KNOWN.load(Ordering::Relaxed) {
        0 => {
            let answer = says_amd();
            KNOWN.store(if answer { YES } else { NO }, Ordering::Relaxed);
            answer
        }
        known => known == YES,
    }
}

#[cold]
fn says_amd() -> bool {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    {
        #[allow(unused_unsafe, reason = "safe in newer compilers than the oldest supported")]
        // SAFETY: every 64-bit x86 processor has the instruction.
        let vendor = unsafe { core::arch::x86_64::__cpuid(0) };
        let name = [vendor.ebx, vendor.edx, vendor.ecx].map(u32::to_le_bytes);
        matches!(name.as_flattened(), b"AuthenticAMD" | b"HygonGenuine")
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    false
}

/// Writes to each cache line that begins within these bytes what is there, and so
/// makes it this core's alone.
///
/// A line that two cores hold, because one wrote it and the other read it, is slow
/// to write to: the writer has to take it from the other first. One that the
/// reader has written comes over whole. So who has copied a message out of a ring
/// does its writer this favour where it is one ([`Favour`](crate::favour::Favour)).
///
/// # Safety
///
/// The bytes must be valid for reads and writes, and the caller's alone.
#[inline(always)]
pub(crate) unsafe fn own_lines(bytes: NonNull<u8>, len: usize) {
    // SAFETY: handed on.
    unsafe { own_lines_from(bytes, bytes.align_offset(64), len) }
}

/// The same where it is known at which offset the first line begins, or is to be touched.
///
/// # Safety
///
/// As [`own_lines`].
#[inline(always)]
pub(crate) unsafe fn own_lines_from(bytes: NonNull<u8>, first: usize, len: usize) {
    let mut offset = first;
    while offset < len {
        // SAFETY: inside, as the caller promises. Volatile, or the compiler would
        // leave it out.
        unsafe { bytes.add(offset).write_volatile(bytes.add(offset).read_volatile()) };
        offset += 64;
    }
}

/// How instructions on vectors begin where the rest of the program uses AVX: the older ones
/// among them would have to preserve the upper halves.
#[cfg(all(target_arch = "x86_64", not(miri), target_feature = "avx"))]
macro_rules! vex {
    () => {
        "v"
    };
}
#[cfg(all(target_arch = "x86_64", not(miri), not(target_feature = "avx")))]
macro_rules! vex {
    () => {
        ""
    };
}

/// Copies a message of 64 bytes whose slot begins with a word, and gives its line back in the
/// same way, by a word of the copy: what is written is not loaded once more.
///
/// One store does. Such a message has a line of its own, or lies on two, of which the first
/// is the word's, which its release writes.
///
/// By four loads, whatever is done with the copy. Compilers load each word by itself where the
/// words are used one by one; but loads wait for their lines in a short list, so that with few
/// of them the receiver is further ahead (docs/performance.md).
///
/// # Safety
///
/// The message must have 64 bytes, be aligned to 8, valid for reads and writes, and the
/// caller's alone.
#[inline(always)]
pub(crate) unsafe fn take_line<T>(message: NonNull<T>, copy: &mut MaybeUninit<T>) {
    debug_assert_eq!(size_of::<T>(), 64);
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: the message is read as a whole, and its last word written back, as the caller
    // promises; the copy has as many bytes. None of the instructions needs alignment.
    unsafe {
        let (first, second, third, fourth): (__m128i, __m128i, __m128i, __m128i);
        core::arch::asm!(
            concat!(vex!(), "movdqu {first}, [{message}]"),
            concat!(vex!(), "movdqu {second}, [{message} + 16]"),
            concat!(vex!(), "movdqu {third}, [{message} + 32]"),
            concat!(vex!(), "movdqu {fourth}, [{message} + 48]"),
            concat!(vex!(), "movhps [{message} + 56], {fourth}"),
            message = in(reg) message.as_ptr(),
            first = out(xmm_reg) first,
            second = out(xmm_reg) second,
            third = out(xmm_reg) third,
            fourth = out(xmm_reg) fourth,
            options(nostack, preserves_flags)
        );
        let copy = copy.as_mut_ptr().cast::<[__m128i; 4]>();
        copy.write_unaligned([first, second, third, fourth]);
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    // SAFETY: the message is read as a whole, and its last word, initialised by then, written
    // back, as the caller promises. Volatile, or the compiler would leave it out.
    unsafe {
        copy.as_mut_ptr().copy_from_nonoverlapping(message.as_ptr(), 1);
        let last = size_of::<T>().wrapping_sub(size_of::<u64>());
        let word = copy.as_ptr().byte_add(last).cast::<u64>().read_unaligned();
        message.byte_add(last).cast::<u64>().write_volatile(word);
    }
}

/// Asks for the cache line at this address, to be written to soon. Any address will
/// do, one that nobody has mapped, too.
#[inline(always)]
pub(crate) fn prefetch_to_write(address: *mut u8) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: a hint that never faults. AMD's manual (volume 3) has it on all 64-bit
    // processors; Intel's before Broadwell take it for a NOP. (The intrinsic for it asks for
    // the line to read, unless the program is compiled for newer processors alone.)
    unsafe {
        core::arch::asm!(
            "prefetchw [{}]",
            in(reg) address,
            options(nostack, preserves_flags)
        );
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let _ = address;
}

/// The same for two lines, one after the other, by one address: two calls would take two.
#[inline(always)]
pub(crate) fn prefetch_two_to_write(address: *mut u8) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: as above.
    unsafe {
        core::arch::asm!(
            "prefetchw [{0} + 64]",
            "prefetchw [{0}]",
            in(reg) address,
            options(nostack, preserves_flags)
        );
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let _ = address;
}

/// Whether a value of this type shares its slot's line with the slot's word, so
/// that it has no line of its own.
pub(crate) const fn in_one_line<T>() -> bool {
    size_of::<T>() <= 64 - size_of::<u64>()
}

/// Values of this type for which a receiving batch asks memory at a time.
pub(crate) fn chunk<T>() -> usize {
    ((64 << 10) / size_of::<T>().max(1)).clamp(1, 64)
}

/// Where the message lies that a guard lends. It is kept in the end that the guard borrows,
/// so that the guard is one word, which a caller may move: what was stored in two pieces and
/// is loaded in one is there only when all stores before are done, those that gave other
/// messages back among them.
#[derive(Debug)]
pub(crate) struct Lent<T: ?Sized>(Option<NonNull<T>>);

// SAFETY: an address. Who follows it borrows the end, and so answers for that.
unsafe impl<T: ?Sized> Send for Lent<T> {}

impl<T: ?Sized> Lent<T> {
    pub(crate) const NOTHING: Lent<T> = Lent(None);

    #[inline(always)]
    pub(crate) fn set(&mut self, message: NonNull<T>) {
        self.0 = Some(message);
    }

    /// What was set last.
    #[inline(always)]
    pub(crate) fn get(&self) -> NonNull<T> {
        self.0.expect("a guard lends something")
    }
}

/// A borrowed stretch of memory that several threads or processes may share.
///
/// It gives no access by itself: the rings laid over it do, and only through
/// atomics or under their own protocol.
#[derive(Clone, Copy, Debug)]
pub struct Region<'a> {
    base: NonNull<u8>,
    len: usize,
    memory: PhantomData<&'a [u8]>,
}

// SAFETY: a region is an address, a length and a promise about their lifetime;
// it reads and writes nothing itself.
unsafe impl Send for Region<'_> {}
// SAFETY: as above.
unsafe impl Sync for Region<'_> {}

impl<'a> Region<'a> {
    /// A region over memory that the caller lends.
    pub fn from_slice(memory: &'a mut [u8]) -> Self {
        Region { len: memory.len(), base: NonNull::from(memory).cast(), memory: PhantomData }
    }

    /// A region over raw memory.
    ///
    /// # Safety
    ///
    /// `len` bytes from `base` must be readable and writable for `'a`, and
    /// nothing but atomics and objects laid over this region may touch them.
    pub unsafe fn from_raw(base: NonNull<u8>, len: usize) -> Self {
        Region { base, len, memory: PhantomData }
    }

    /// Length in bytes.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the region has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// First byte.
    #[inline]
    pub fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// The part of `len` bytes at `offset`, if it lies inside.
    pub fn part(&self, offset: usize, len: usize) -> Option<Region<'a>> {
        let end = offset.checked_add(len)?;
        if end > self.len {
            return None;
        }
        // SAFETY: offset <= end <= self.len, so the result stays inside (or one
        // past the end of) the memory that this region borrows for 'a.
        let base = unsafe { self.base.add(offset) };
        Some(Region { base, len, memory: PhantomData })
    }

    /// Whether an object of this layout can start at the base.
    pub(crate) fn fits(&self, layout: Layout) -> bool {
        self.len >= layout.size() && self.base.as_ptr().addr().is_multiple_of(layout.align())
    }

    /// A pointer to a `T` at `offset`.
    ///
    /// # Safety
    ///
    /// `offset + size_of::<T>()` must not exceed the length, and the address
    /// must be aligned for `T`.
    #[inline]
    pub(crate) unsafe fn at<T>(&self, offset: usize) -> NonNull<T> {
        debug_assert!(offset + size_of::<T>() <= self.len);
        // SAFETY: in bounds by the caller's promise.
        let p = unsafe { self.base.add(offset) };
        debug_assert!(p.cast::<T>().is_aligned());
        p.cast()
    }
}

/// A zeroed, line-aligned heap block to lay objects over: for tests, models
/// and rings inside one process.
#[derive(Debug)]
pub struct Heap {
    base: NonNull<u8>,
    layout: Layout,
}

// SAFETY: the block is owned, and reached only through regions.
unsafe impl Send for Heap {}
// SAFETY: as above.
unsafe impl Sync for Heap {}

impl Heap {
    /// A block of `len` bytes (at least one), all zero.
    ///
    /// # Panics
    ///
    /// Panics when `len` rounds up to more than `isize::MAX`; aborts when
    /// memory is exhausted, as the standard collections do.
    pub fn zeroed(len: usize) -> Self {
        let layout = Layout::from_size_align(len.max(1), LINE).expect("length fits in isize");
        // SAFETY: the layout has a size of at least one byte.
        let raw = unsafe { std::alloc::alloc_zeroed(layout) };
        let Some(base) = NonNull::new(raw) else { std::alloc::handle_alloc_error(layout) };
        Heap { base, layout }
    }

    /// The whole block.
    pub fn region(&self) -> Region<'_> {
        // SAFETY: the block lives as long as `self`, which the result borrows;
        // only regions reach it.
        unsafe { Region::from_raw(self.base, self.layout.size()) }
    }
}

impl Drop for Heap {
    fn drop(&mut self) {
        // SAFETY: allocated in `zeroed` with this layout; regions borrow `self`,
        // so none is left.
        unsafe { std::alloc::dealloc(self.base.as_ptr(), self.layout) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_up_reports_overflow() {
        assert_eq!(round_up(0, 8), Some(0));
        assert_eq!(round_up(1, 8), Some(8));
        assert_eq!(round_up(8, 8), Some(8));
        assert_eq!(round_up(usize::MAX - 3, 8), None);
    }

    #[test]
    fn a_line_is_taken_whole_and_left_as_it_was() {
        let mut bytes: [u8; 192] = core::array::from_fn(|i| i as u8 ^ 0x5a);
        let before = bytes;
        // Wherever a multiple of 8 lies in a line.
        let first = bytes.as_ptr().align_offset(8);
        for offset in (first..).step_by(8).take(15) {
            let mut copy = MaybeUninit::<[u8; 64]>::uninit();
            let message = NonNull::from(&mut bytes).cast::<u8>();
            // SAFETY: offset + 64 < 192, aligned to 8, and nobody else's; the copy is made.
            let copy = unsafe {
                take_line(message.add(offset).cast(), &mut copy);
                copy.assume_init()
            };
            assert_eq!(copy, before[offset..offset + 64]);
            assert_eq!(bytes, before);
        }
    }

    /// Whether a line is written to meanwhile: of a file's page that is mapped privately, of
    /// which the kernel makes a copy then, so that it no longer shows what the file gets.
    #[cfg(not(miri))]
    fn is_written(touch: impl FnOnce(NonNull<u8>)) -> bool {
        use std::fs::File;
        use std::os::fd::{AsRawFd, FromRawFd};
        use std::os::unix::fs::FileExt;

        const PAGE: usize = 4096;
        let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE);
        // SAFETY: a new file, and a new mapping of it, of which nobody else knows.
        unsafe {
            let file = libc::memfd_create(c"line".as_ptr(), libc::MFD_CLOEXEC);
            assert!(file >= 0, "no file in memory");
            let file = File::from_raw_fd(file);
            file.write_all_at(&[1; PAGE], 0).unwrap();
            let anywhere = core::ptr::null_mut();
            let page = libc::mmap(anywhere, PAGE, protection, flags, file.as_raw_fd(), 0);
            assert_ne!(page, libc::MAP_FAILED);
            let line = NonNull::new(page.cast::<u8>()).unwrap();
            touch(line);
            file.write_all_at(&[2; PAGE], 0).unwrap();
            let seen = line.read_volatile();
            assert_eq!(libc::munmap(page, PAGE), 0);
            seen == 1
        }
    }

    #[test]
    #[cfg(not(miri))]
    fn lines_are_taken_over_by_a_write() {
        let mut copy = MaybeUninit::uninit();
        // SAFETY: of the mapped page alone, which is as long and well aligned.
        unsafe {
            assert!(!is_written(|line| assert_eq!(line.read_volatile(), 1)));
            assert!(is_written(|line| own_lines(line, 64)));
            assert!(is_written(|line| take_line::<[u64; 8]>(line.cast(), &mut copy)));
        }
    }

    #[test]
    fn a_part_never_leaves_the_region() {
        let mut bytes = [0u8; 16];
        let region = Region::from_slice(&mut bytes);
        assert!(region.part(8, 8).is_some());
        assert!(region.part(16, 0).is_some());
        assert!(region.part(9, 8).is_none());
        assert!(region.part(usize::MAX, 2).is_none());
    }
}
