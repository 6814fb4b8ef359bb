//! Sleeping on a word through the kernel.
//!
//! The flag for futexes of one process alone is never set, so processes wake
//! each other, whatever addresses they have mapped the word at.

use core::sync::atomic::AtomicU32;
use rustix::thread::futex;
use std::time::Duration;

/// A 32-bit word that a process can sleep on.
#[derive(Default)]
#[repr(C)]
pub(crate) struct Futex {
    pub(crate) word: AtomicU32,
}

impl Futex {
    /// Sleeps while the word is `expected`, for at most `timeout`. May return
    /// early for any reason; callers look again.
    pub(crate) fn wait(&self, expected: u32, timeout: Duration) {
        let timeout = futex::Timespec {
            tv_sec: timeout.as_secs().min(i64::MAX as u64) as i64,
            tv_nsec: timeout.subsec_nanos().into(),
        };
        // EAGAIN (the word has changed), EINTR and ETIMEDOUT all mean "look
        // again".
        let _ = futex::wait(&self.word, futex::Flags::empty(), expected, Some(&timeout));
    }

    /// Wakes everybody that sleeps on the word.
    pub(crate) fn wake_all(&self) {
        #[cfg(test)]
        super::WAKES.set(super::WAKES.get() + 1);
        // Fails only for an address that is not mapped.
        let _ = futex::wake(&self.word, futex::Flags::empty(), i32::MAX as u32);
    }
}
