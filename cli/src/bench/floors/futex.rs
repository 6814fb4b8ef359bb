//! A futex's wake-up, bare: one thread sleeps, the other sees that it does, waits for its
//! processor to settle, notes the time and wakes it.

use crate::bench::wake::{is_asleep, settle};
use crate::measure::times::{now_ns, record};
use crate::{Result, processes};
use hdrhistogram::Histogram;
use rustix::thread::{futex, gettid};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// Ends the sleeping thread.
const STOP: u64 = 0;

/// From before the wake-up until the other thread has looked at the clock.
pub fn sample(there: Option<usize>, length: Duration) -> Result<Histogram<u64>> {
    let (word, stamp, seen) = (AtomicU32::new(0), AtomicU64::new(0), AtomicU32::new(0));
    std::thread::scope(|scope| {
        let (send_id, id) = mpsc::channel();
        let (word, stamp, seen) = (&word, &stamp, &seen);
        let sleeper = scope.spawn(move || {
            // Messages, because errors don't change threads.
            let pinned = there.map(|cpu| processes::pin(&[cpu])).transpose();
            pinned.map_err(|error| error.to_string())?;
            let mut times = record().map_err(|error| error.to_string())?;
            let _ = send_id.send(gettid());
            for last in 0.. {
                // Pairs with the Release below: the stamp is there.
                while word.load(Ordering::Acquire) == last {
                    // A shared one, as between processes. Interrupted, look again.
                    let _ = futex::wait(word, futex::Flags::empty(), last, None);
                }
                let now = now_ns();
                match stamp.load(Ordering::Relaxed) {
                    STOP => break,
                    then => times.saturating_record(now - then),
                }
                // Pairs with the Acquire below: the stamp was read.
                seen.store(last + 1, Ordering::Release);
            }
            Ok::<_, String>(times)
        });
        let wake = |value: u64, next: u32| {
            stamp.store(value, Ordering::Relaxed);
            // Pairs with the Acquire above: the stamp is there.
            word.store(next, Ordering::Release);
            futex::wake(word, futex::Flags::empty(), 1)
        };
        let mut wakes = 0;
        let mut rounds = || {
            // It ended early if it says nothing.
            let Ok(id) = id.recv() else { return Ok(()) };
            let state = format!("/proc/self/task/{}/stat", id.as_raw_nonzero());
            let start = Instant::now();
            while wakes == 0 || start.elapsed() < length {
                while !is_asleep(&state)? {
                    std::thread::yield_now();
                }
                settle();
                wakes += 1;
                wake(now_ns(), wakes)?;
                // Pairs with the Release above: the stamp may be replaced.
                while seen.load(Ordering::Acquire) != wakes {
                    std::thread::yield_now();
                }
            }
            Ok::<_, crate::Error>(())
        };
        let done = rounds();
        // Whatever went wrong, the sleeper must end.
        wake(STOP, wakes + 1)?;
        done?;
        Ok(sleeper.join().map_err(|_| "the sleeping thread panicked")??)
    })
}
