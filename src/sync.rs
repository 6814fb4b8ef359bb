//! The one file that knows about loom.
//!
//! Everything that is shared between processes goes through the types here. In
//! an ordinary build they are the standard atomics, laid out exactly as in the
//! mapping. Under `--cfg loom` they are loom's, so that the *shipped*
//! algorithms are what the models run.
//!
//! Because loom's types are larger, no algorithm may assume the size of an
//! atomic: offsets come from `size_of` (see [`crate::memory`]), and each word
//! is placed in its memory with `ptr::write` when an object is initialised.

#[cfg(not(loom))]
pub(crate) use core::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

/// Whether the atomics are loom's: objects to be told of, whose bytes nothing else may use.
pub(crate) const MODELLED: bool = cfg!(loom);

/// Where tests end or stop a process; nothing in ordinary builds.
#[cfg(not(all(test, loom)))]
pub(crate) use crate::os::points::point;
#[cfg(all(test, loom))]
pub(crate) use mortal::{die_at, point};

/// Death in a model: a thread that reaches the chosen point leaves off there, by
/// unwinding, and does nothing more to what it shares.
#[cfg(all(test, loom))]
mod mortal {
    use core::cell::Cell;
    use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

    loom::thread_local! {
        /// The point, and how often it is passed, this time included.
        static CHOSEN: Cell<(&'static str, u32)> = Cell::new(("", 0));
    }

    struct Dead;

    pub(crate) fn point(name: &'static str) {
        CHOSEN.with(|chosen| {
            let (at, left) = chosen.get();
            if at == name {
                chosen.set((at, left - 1));
                if left == 1 {
                    resume_unwind(Box::new(Dead));
                }
            }
        });
    }

    /// Runs `f` until the `nth` time that it passes the point; what it returned
    /// if it never did.
    pub(crate) fn die_at<R>(name: &'static str, nth: u32, f: impl FnOnce() -> R) -> Option<R> {
        CHOSEN.with(|chosen| chosen.set((name, nth)));
        let ended = catch_unwind(AssertUnwindSafe(f));
        CHOSEN.with(|chosen| chosen.set(("", 0)));
        match ended {
            Ok(result) => Some(result),
            Err(cause) if cause.is::<Dead>() => None,
            Err(cause) => resume_unwind(cause),
        }
    }
}

/// One step of a spin loop.
#[inline(always)]
pub(crate) fn spin_loop() {
    #[cfg(not(loom))]
    core::hint::spin_loop();
    #[cfg(loom)]
    loom::thread::yield_now();
}

/// Tells loom of an access to plain bytes, so that a model fails when the
/// atomics around them do not order it. Empty outside loom.
///
/// Payload bytes live beside the words that protect them; loom cannot see
/// accesses through raw pointers. Each payload therefore carries one witness,
/// touched at the very place where the bytes are.
#[derive(Default)]
pub(crate) struct Witness {
    #[cfg(loom)]
    cell: loom::cell::UnsafeCell<()>,
}

impl Witness {
    /// The payload is about to be read.
    #[inline(always)]
    pub(crate) fn read(&self) {
        #[cfg(loom)]
        self.cell.with(|_| ());
    }

    /// The payload is about to be written.
    #[inline(always)]
    pub(crate) fn write(&self) {
        #[cfg(loom)]
        self.cell.with_mut(|_| ());
    }
}

/// A 32-bit word that a process can sleep on: the kernel's shared futex, or
/// what the feature `portable-wait` puts in its place.
#[cfg(not(loom))]
pub(crate) use crate::os::Futex;

/// Under loom a mutex and a condition variable stand in. A wait has no time-out
/// here, so a lost wake shows as a deadlock.
#[cfg(loom)]
#[derive(Default)]
pub(crate) struct Futex {
    pub(crate) word: AtomicU32,
    queue: (loom::sync::Mutex<()>, loom::sync::Condvar),
}

#[cfg(loom)]
impl Futex {
    pub(crate) fn wait(&self, expected: u32, _timeout: core::time::Duration) {
        let guard = self.queue.0.lock().unwrap();
        // The kernel compares under the same lock that a wake takes.
        if self.word.load(Ordering::Relaxed) == expected {
            drop(self.queue.1.wait(guard).unwrap());
        }
    }

    pub(crate) fn wake_all(&self) {
        let _guard = self.queue.0.lock().unwrap();
        self.queue.1.notify_all();
    }
}

/// The side of a store-then-load handshake that must stay cheap: orders the
/// caller's earlier stores before its later loads, as seen by whoever runs
/// [`heavy_barrier`].
///
/// With `asymmetric` the processor does nothing here and the other side pays
/// with `membarrier`; otherwise, and under loom, it is a full fence.
#[inline(always)]
pub(crate) fn light_barrier(asymmetric: bool) {
    // Not modelled: it binds the compiler alone, and loom knows only machines.
    #[cfg(not(loom))]
    core::sync::atomic::compiler_fence(Ordering::SeqCst);
    if cfg!(loom) || !asymmetric {
        rarely();
        fence(Ordering::SeqCst);
    }
}

/// Tells the compiler that the program seldom comes here.
#[cold]
#[inline]
fn rarely() {}

/// The side that pays: see [`light_barrier`].
pub(crate) fn heavy_barrier(asymmetric: bool) {
    fence(Ordering::SeqCst);
    #[cfg(not(loom))]
    if asymmetric {
        crate::os::membarrier();
    }
    let _ = asymmetric;
}

/// The monotonic clock. Under loom time stands still, because a model must
/// take the same path each time it is replayed.
pub(crate) fn now() -> std::time::Instant {
    #[cfg(not(loom))]
    return std::time::Instant::now();
    #[cfg(loom)]
    {
        static START: std::sync::OnceLock<std::time::Instant> = std::sync::OnceLock::new();
        *START.get_or_init(std::time::Instant::now)
    }
}

/// The processor's counter, where it costs no system call; a third of the time that the
/// clock takes. It may stand still, or differ from one processor to the next: nothing but
/// time may rest on it. (Who forbids it to the process, by `PR_SET_TSC`, forbids most
/// systems' clocks with it.)
#[inline]
pub(crate) fn ticks() -> Option<u64> {
    #[cfg(all(target_arch = "x86_64", not(any(miri, loom))))]
    #[allow(unused_unsafe, reason = "safe in newer compilers than the oldest supported")]
    // SAFETY: every 64-bit x86 processor has the instruction.
    return Some(unsafe { core::arch::x86_64::_rdtsc() });
    #[cfg(not(all(target_arch = "x86_64", not(any(miri, loom)))))]
    None
}

/// So many looks before sleeping or going on: none on a machine with one core,
/// where spinning only keeps the other party from running.
pub(crate) fn spins(looks: u32) -> u32 {
    #[cfg(loom)]
    let pays = false;
    #[cfg(not(loom))]
    let pays = {
        static PAYS: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
        *PAYS.get_or_init(|| crate::os::processors() > 1)
    };
    if pays { looks } else { 0 }
}

/// Most steps that one non-blocking operation may take before the ring counts
/// as corrupt. Far above anything contention causes; a bound on what a hostile
/// peer can cost.
pub(crate) const STEP_BUDGET: u32 = if cfg!(loom) { 64 } else { 1 << 20 };
