//! Named points, at which tests end or stop a process.
//!
//! After each store that others can see, and after the few looks on which it
//! depends who removes a segment's name, stands a call of [`point`] with a name
//! of its own. In every ordinary build it is an empty function. Compiled with
//! `--cfg slipring_points` (a flag for the compiler, not a feature of the
//! crate, so no dependency can turn it on), it writes its name down, and raises
//! a signal at the firing that a test has chosen.
//!
//! Atomics and system calls only: one point stands in the handler of a fork.

/// A store has just been made that others can see, or a look that decides.
#[cfg(not(all(slipring_points, not(loom))))]
#[inline(always)]
pub(crate) fn point(_name: &'static str) {}

#[cfg(all(slipring_points, not(loom)))]
pub(crate) use armed::point;

/// What tests see of the points. For processes in which one thread passes them.
#[cfg(all(slipring_points, not(loom)))]
pub mod armed {
    use core::ptr;
    use core::sync::atomic::{
        AtomicBool, AtomicI32, AtomicPtr, AtomicU32, AtomicUsize, Ordering::Relaxed,
    };

    /// A name as two words.
    struct Name {
        start: AtomicPtr<u8>,
        len: AtomicUsize,
    }

    impl Name {
        const fn none() -> Name {
            Name { start: AtomicPtr::new(ptr::null_mut()), len: AtomicUsize::new(0) }
        }

        fn set(&self, name: &'static str) {
            self.len.store(name.len(), Relaxed);
            self.start.store(name.as_ptr().cast_mut(), Relaxed);
        }

        fn get(&self) -> Option<&'static str> {
            let start = self.start.load(Relaxed).cast_const();
            // SAFETY: `set` took both words from one name that lives for ever,
            // and one thread at a time calls the two.
            (!start.is_null()).then(|| unsafe {
                core::str::from_utf8_unchecked(core::slice::from_raw_parts(
                    start,
                    self.len.load(Relaxed),
                ))
            })
        }
    }

    static RECORDING: AtomicBool = AtomicBool::new(false);
    static FIRED: [Name; 4096] = [const { Name::none() }; 4096];
    static COUNT: AtomicUsize = AtomicUsize::new(0);

    /// The chosen point, which of its firings from now on, and what to raise.
    static CHOSEN: Name = Name::none();
    static NTH: AtomicU32 = AtomicU32::new(0);
    static SIGNAL: AtomicI32 = AtomicI32::new(0);

    /// Records the points that are passed from now on, also in a forked child.
    /// With `(name, nth, signal)` raises the signal at the nth firing of that
    /// point.
    pub fn start(choice: Option<(&str, u32, i32)>) {
        if let Some((name, nth, signal)) = choice {
            CHOSEN.set(Box::leak(name.to_owned().into_boxed_str()));
            NTH.store(nth, Relaxed);
            SIGNAL.store(signal, Relaxed);
        }
        RECORDING.store(true, Relaxed);
    }

    /// Stops recording; the names that were passed, in order.
    pub fn stop() -> Vec<&'static str> {
        RECORDING.store(false, Relaxed);
        FIRED[..COUNT.swap(0, Relaxed)].iter().filter_map(Name::get).collect()
    }

    /// See above.
    pub fn point(name: &'static str) {
        if !RECORDING.load(Relaxed) {
            return;
        }
        FIRED[COUNT.fetch_add(1, Relaxed)].set(name);
        if CHOSEN.get() == Some(name) && NTH.fetch_sub(1, Relaxed) == 1 {
            raise(SIGNAL.load(Relaxed));
        }
    }

    /// Sends this very thread a signal, so that it has taken effect when the
    /// call returns.
    pub fn raise(signal: i32) {
        // SAFETY: takes and returns numbers.
        unsafe {
            let process = libc::syscall(libc::SYS_getpid);
            let thread = libc::syscall(libc::SYS_gettid);
            libc::syscall(libc::SYS_tgkill, process, thread, signal);
        }
    }
}
