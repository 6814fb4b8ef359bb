//! Randomness that can be had again, and an end to what does not end.

use std::io::Write;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

/// Longer than anything here takes, on any machine: what takes longer hangs.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Rounds of a test.
pub fn rounds(default: u64) -> u64 {
    std::env::var("SLIPRING_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(default)
}

/// SplitMix64.
#[derive(Clone)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// What the thread does at the moment, and since when.
type Doing = Arc<Mutex<(String, Instant)>>;

/// Ends the program, loudly, when one step takes longer than [`PATIENCE`].
pub struct Watch {
    doing: Doing,
    _end: mpsc::Sender<()>,
}

impl Watch {
    /// Watches for a test, whose name and seed a failure prints.
    pub fn new(test: &str) -> Watch {
        let doing: Doing = Arc::new(Mutex::new((test.to_owned(), Instant::now())));
        let (end, over) = mpsc::channel();
        let seen = Arc::clone(&doing);
        std::thread::spawn(move || {
            // Until the other end is dropped.
            while over.recv_timeout(PATIENCE / 20) == Err(mpsc::RecvTimeoutError::Timeout) {
                let (what, since) = &*seen.lock().unwrap();
                if since.elapsed() > PATIENCE {
                    // Not by a macro, whose output the harness would keep.
                    let _ = writeln!(std::io::stderr(), "hangs: {what}");
                    crate::support::clean_up();
                    std::process::abort();
                }
            }
        });
        Watch { doing, _end: end }
    }

    /// The next step begins.
    pub fn step(&self, what: impl FnOnce() -> String) {
        *self.doing.lock().unwrap() = (what(), Instant::now());
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let (what, _) = &*self.doing.lock().unwrap_or_else(|e| e.into_inner());
            eprintln!("at: {what}");
        }
    }
}

/// Runs `hostile` again and again in a thread of its own while `action` runs.
pub fn against<R>(hostile: impl Fn() + Sync, action: impl FnOnce() -> R) -> R {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                hostile();
            }
        });
        // Also when it panics, or the scope would wait for ever.
        struct Stop<'a>(&'a AtomicBool);
        impl Drop for Stop<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        let _stop = Stop(&stop);
        action()
    })
}
