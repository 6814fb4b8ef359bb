//! Sleeping without futexes, through `raw_sync` events: the feature
//! `portable-wait`.
//!
//! The [`Futex`] here takes the place of the kernel's. Beside the word lies a
//! `raw_sync` event, which a waker signals. A sleeper naps, for longer each
//! time, and between naps asks the event and looks at the word:
//!
//! ```text
//! sleeper                           waker
//! 1 clear the event                 a word + 2 (the caller)
//! 2 word changed? awake             b signal the event
//! 3 nap: 50 µs, 100, ... 1 ms
//! 4 event signalled? awake
//! 5 time is up? else again from 2
//! ```
//!
//! *The word is the truth, the event a hint.* Another sleeper's step 1 may
//! clear the event before this one has seen it, two signals are one, and a
//! waker may be killed between a and b. None of that matters, for 2 looks at
//! the word; and a signal too many only ends a wait early, which any wait may.
//!
//! # Why the event that does not block
//!
//! `raw_sync` 0.1.5 has two events. `Event` is a mutex and a condition variable
//! of the C library in shared memory, and no amount of care makes it survive a
//! kill, not even as a hint, because the *call* does not come back:
//!
//! - neither is robust. A process that is killed asleep in `Event::wait` stays
//!   counted in the condition variable, and glibc's next broadcast but one
//!   waits for it to leave. With glibc 2.36, two sleepers and a kill every
//!   tenth signal, `Event::set` hung for ever within 20 signals;
//! - `set` locks the mutex without a time limit, and so does the end of a timed
//!   wait: one killed in between stops all others;
//! - a mutex with scribbled contents makes the C library abort, follow wild
//!   pointers or never return, and a failed unlock makes `raw_sync` panic;
//! - a timed wait fails at once when the nanoseconds of now and of the time-out
//!   add up to more than a second (its issue 39), or burns the processor when
//!   the caller tries again.
//!
//! `BusyEvent` is one atomic byte (and one that is never written again). It
//! can't be left half-changed, and its calls end whatever the bytes are. Its
//! own wait spins, so it is only ever asked with a time-out of zero, and the
//! naps are ours.
//!
//! # Limits
//!
//! - A wake-up arrives when a nap ends: as late as the wait was long until
//!   then, and at most 1 ms (and the system's timer slack) later.
//! - A sleeper runs about 1,300 times a second while nothing happens.
//! - Nobody can sleep on several words at once but by looking at all of them.
//! - `raw_sync` makes `&mut` references to the event's bytes while other
//!   processes use them. Strictly, Rust forbids that; what is done through them
//!   is atomic loads and stores.

use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicU32, Ordering};
use raw_sync::Timeout;
use raw_sync::events::{BusyEvent, EventImpl, EventInit, EventState};
use std::time::{Duration, Instant};

/// Room for the event, which takes two bytes.
const ROOM: usize = 8;

/// First nap: what a sleep costs at least anyway.
const SHORTEST: Duration = Duration::from_micros(50);

/// Longest nap: the bound on how late a wake-up is.
const LONGEST: Duration = Duration::from_millis(1);

/// A 32-bit word that a process can sleep on.
#[repr(C)]
pub(crate) struct Futex {
    pub(crate) word: AtomicU32,
    event: UnsafeCell<[u8; ROOM]>,
}

// SAFETY: the word is atomic. The event's bytes are touched through `raw_sync`
// only, whose event has one byte that changes, an atomic.
unsafe impl Sync for Futex {}

impl Default for Futex {
    /// Not signalled. May be moved into its place: the event holds no address.
    fn default() -> Self {
        let futex = Futex { word: AtomicU32::new(0), event: UnsafeCell::new([0; ROOM]) };
        if BusyEvent::size_of(None) <= ROOM {
            // SAFETY: room for the event, as just checked, which needs no
            // alignment for its bytes, and nobody else's yet. Manual reset: a
            // signal is for everybody.
            let _ = unsafe { BusyEvent::new(futex.event.get().cast(), false) };
        }
        futex
    }
}

impl Futex {
    /// This process's view of the event; `None` if its bytes are not one, and
    /// then the word has to do. Made anew for each use: that costs nothing
    /// beside a nap, and nothing has to be kept, shared or renewed after a
    /// fork.
    fn event(&self) -> Option<Box<dyn EventImpl>> {
        if BusyEvent::size_of(None) > ROOM {
            return None;
        }
        // SAFETY: room for the event, as just checked, for as long as `self`,
        // which the view does not outlive here: callers drop it. Any bytes will
        // do: it refuses those that are no event, and none makes its calls fail
        // to end.
        let (event, _) = unsafe { BusyEvent::from_existing(self.event.get().cast()) }.ok()?;
        Some(event)
    }

    /// Sleeps while the word is `expected`, for at most `timeout`. May return
    /// early for any reason; callers look again.
    pub(crate) fn wait(&self, expected: u32, timeout: Duration) {
        let start = Instant::now();
        let event = self.event();
        if let Some(event) = &event {
            // A signal from before is about a word from before.
            let _ = event.set(EventState::Clear);
        }
        let mut nap = SHORTEST;
        // Relaxed: callers order what they look at next with their own barrier.
        while self.word.load(Ordering::Relaxed) == expected {
            let left = timeout.saturating_sub(start.elapsed());
            if left.is_zero() {
                return;
            }
            std::thread::sleep(nap.min(left));
            nap = (nap * 2).min(LONGEST);
            // Failing means "not yet", or a byte that is neither.
            if event.as_ref().is_some_and(|e| e.wait(Timeout::Val(Duration::ZERO)).is_ok()) {
                return;
            }
        }
    }

    /// Wakes everybody that sleeps on the word.
    pub(crate) fn wake_all(&self) {
        #[cfg(test)]
        super::WAKES.set(super::WAKES.get() + 1);
        if let Some(event) = self.event() {
            let _ = event.set(EventState::Signaled);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    const LONG: Duration = Duration::from_secs(20);

    fn signalled(futex: &Futex) -> bool {
        futex.event().unwrap().wait(Timeout::Val(Duration::ZERO)).is_ok()
    }

    fn scribble(futex: &Futex, bytes: [u8; ROOM]) {
        // SAFETY: no other thread uses this futex.
        unsafe { core::ptr::write_volatile(futex.event.get(), bytes) };
    }

    #[test]
    fn the_event_fits_and_can_be_moved() {
        assert!(BusyEvent::size_of(None) <= ROOM);
        let futex = Futex::default();
        assert!(!signalled(&futex));
        futex.wake_all();
        assert!(signalled(&futex));
        let moved = Box::new(futex);
        assert!(signalled(&moved));
        moved.event().unwrap().set(EventState::Clear).unwrap();
        assert!(!signalled(&moved));
    }

    #[test]
    fn a_changed_word_ends_the_wait_without_a_signal() {
        let futex = Futex::default();
        thread::scope(|scope| {
            let sleeper = scope.spawn(|| futex.wait(0, LONG));
            thread::sleep(Duration::from_millis(5));
            futex.word.store(2, Ordering::Relaxed);
            sleeper.join().unwrap();
        });
    }

    #[test]
    fn a_signal_ends_the_wait_of_all() {
        let futex = Futex::default();
        thread::scope(|scope| {
            let sleepers = [(); 3].map(|()| scope.spawn(|| futex.wait(0, LONG)));
            // Signals may be cleared by one that only now goes to sleep.
            while !sleepers.iter().all(|s| s.is_finished()) {
                futex.wake_all();
                thread::sleep(Duration::from_millis(1));
            }
        });
    }

    #[test]
    fn an_old_signal_does_not_end_a_wait() {
        let futex = Futex::default();
        futex.wake_all();
        let start = Instant::now();
        futex.wait(0, Duration::from_millis(15));
        assert!(start.elapsed() >= Duration::from_millis(15));
    }

    #[test]
    fn time_outs_at_every_part_of_a_second() {
        // The other event's timed wait fails for a part of these.
        let futex = Futex::default();
        let naps = [0, 1, 300_000, 3_000_000, 9_999_999].map(Duration::from_nanos);
        for timeout in naps.into_iter().cycle().take(200) {
            let start = Instant::now();
            futex.wait(0, timeout);
            assert!(start.elapsed() >= timeout);
            assert!(start.elapsed() < LONG);
        }
        futex.word.store(7, Ordering::Relaxed);
        futex.wait(0, Duration::MAX);
    }

    #[test]
    fn any_bytes_end_and_sleep() {
        for first in 0..=u8::MAX {
            for second in [0, 1, 2, 0x55, 0xff] {
                let futex = Futex::default();
                scribble(&futex, [first, second, 0x55, 0xff, 1, 2, 3, 4]);
                let start = Instant::now();
                futex.wait(0, Duration::from_micros(200));
                let slept = start.elapsed();
                assert!(slept >= SHORTEST && slept < LONG, "{first} {second}: {slept:?}");
                futex.wake_all();
            }
        }
    }
}
