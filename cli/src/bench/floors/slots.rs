//! What a sender between many must do, bare: take a slot by a compare-and-swap, write to it,
//! and publish it; one thread, nobody else.

use crate::Result;
use crate::bench::wake::FILL;
use crate::measure::times::timed;
use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Nanoseconds for a slot: the median of many turns.
pub fn sample(length: Duration) -> Result<f64> {
    let slots: Vec<[AtomicU64; 2]> = (0..FILL).map(|_| Default::default()).collect();
    let times = timed(length, |turn| {
        for ([word, message], number) in black_box(&slots).iter().zip(0..) {
            // Free, taken and full, turn by turn. (Acquire and Release as a sender needs them;
            // here nobody else looks.)
            let taken =
                word.compare_exchange(2 * turn, 2 * turn + 1, Ordering::Acquire, Ordering::Relaxed);
            taken.map_err(|found| format!("slot {number} holds {found} in turn {turn}"))?;
            message.store(number, Ordering::Relaxed);
            word.store(2 * turn + 2, Ordering::Release);
        }
        Ok(())
    })?;
    Ok(times.value_at_quantile(0.5) as f64 / FILL as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_taken_in_every_turn() {
        assert!(sample(Duration::from_millis(1)).unwrap() > 0.0);
    }
}
