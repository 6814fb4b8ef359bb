//! Blocks copied in by one core and out by another: two threads and a ring of
//! blocks, handed over by a count each way.

use crate::{Result, processes};
use std::hint::spin_loop;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// As much as the streams that are measured against it have on their way.
const BLOCK: usize = 64 * 1024;
const BLOCKS: u64 = 16;

/// The memory.
pub struct Copying {
    source: Vec<u8>,
    blocks: Vec<Mutex<Vec<u8>>>,
    target: Vec<u8>,
}

/// On a line of its own, and not beside it either.
#[repr(align(128))]
#[derive(Default)]
struct Count(AtomicU64);

impl Copying {
    pub fn new() -> Copying {
        Copying {
            source: vec![1; BLOCK],
            blocks: (0..BLOCKS).map(|_| Mutex::new(vec![0; BLOCK])).collect(),
            target: vec![0; BLOCK],
        }
    }

    /// Gigabytes per second: the median of many turns of the ring.
    pub fn sample(&mut self, there: Option<usize>, length: Duration) -> Result<f64> {
        let (filled, emptied, over) = (Count::default(), Count::default(), AtomicBool::new(false));
        let Copying { source, blocks, target } = self;
        let blocks = &*blocks;
        std::thread::scope(|scope| {
            let producer = scope.spawn(|| {
                // A message, because errors don't change threads.
                let pinned = there.map(|cpu| processes::pin(&[cpu])).transpose();
                pinned.map_err(|error| error.to_string())?;
                for block in 0.. {
                    // Pairs with the Release below: the block was read.
                    while block - emptied.0.load(Ordering::Acquire) >= BLOCKS {
                        if over.load(Ordering::Relaxed) {
                            return Ok(());
                        }
                        spin_loop();
                    }
                    of(blocks, block).copy_from_slice(source);
                    // Pairs with the Acquire below: the block is written.
                    filled.0.store(block + 1, Ordering::Release);
                }
                Ok::<_, String>(())
            });
            let mut turns = Vec::new();
            let start = Instant::now();
            let mut last = start;
            for block in 0.. {
                // Pairs with the Release above.
                while filled.0.load(Ordering::Acquire) == block {
                    if producer.is_finished() {
                        break;
                    }
                    spin_loop();
                }
                target.copy_from_slice(&of(blocks, block));
                // Pairs with the Acquire above.
                emptied.0.store(block + 1, Ordering::Release);
                if (block + 1) % BLOCKS == 0 {
                    let now = Instant::now();
                    turns.push((now - last).as_nanos() as u64);
                    last = now;
                    if now - start >= length || producer.is_finished() {
                        break;
                    }
                }
            }
            over.store(true, Ordering::Relaxed);
            producer.join().map_err(|_| "the copying thread panicked")??;
            turns.sort_unstable();
            let median = turns.get(turns.len() / 2).copied().unwrap_or(0).max(1);
            Ok((BLOCKS as usize * BLOCK) as f64 / median as f64)
        })
    }
}

/// Nobody else has the block when its turn has come.
fn of(blocks: &[Mutex<Vec<u8>>], block: u64) -> MutexGuard<'_, Vec<u8>> {
    blocks[(block % BLOCKS) as usize].lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_copied_through() {
        let mut copying = Copying::new();
        assert!(copying.sample(None, Duration::from_millis(1)).unwrap() > 0.0);
        assert_eq!(copying.source, copying.target);
        assert!(copying.sample(Some(100_000), Duration::from_millis(1)).is_err());
    }
}
