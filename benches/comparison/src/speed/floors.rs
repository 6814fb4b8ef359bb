//! What the hardware and the kernel allow, with nothing in between: below these
//! no system can get. Measured again and again, they also tell whether the
//! machine was the same all the time.

use super::channel::{Place, STOP};
use super::measure::{Run, Stopwatch};
use super::roles::{self, Board, Saw, Side, Trips, Work};
use crate::Result;
use crate::os::{Shared, futex_wait, futex_wake};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A word each way, each on a pair of lines of its own.
const THERE: usize = 0;
const BACK: usize = 128;

fn trips(saw: &[Saw]) -> Result<Trips> {
    saw.iter()
        .find_map(|saw| if let Saw::Trips(trips) = saw { Some(*trips) } else { None })
        .ok_or_else(|| "no round trips".into())
}

/// A number on a line to the other core, and on another line back. With
/// `pause`, whoever spins says so to the processor.
pub fn line(run: Run, pause: bool) -> Result<Trips> {
    let memory = Shared::new(4096)?;
    // SAFETY: zeroed, and only ever used as these words.
    let (there, back): (&AtomicU64, &AtomicU64) = unsafe { (memory.at(THERE), memory.at(BACK)) };
    let look = move |word: &AtomicU64, wanted: u64| {
        // Acquire: pairs with the other side's store, as a message would need.
        while word.load(Ordering::Acquire) != wanted {
            if pause {
                std::hint::spin_loop();
            }
        }
    };
    let client = move |board: &Board| {
        board.meet(2);
        let mut watch = Stopwatch::start(run)?;
        for number in 1.. {
            let from = Instant::now();
            there.store(number, Ordering::Release);
            look(back, number);
            if watch.note(from, Instant::now()).is_break() {
                break;
            }
        }
        there.store(STOP, Ordering::Release);
        Ok(watch.stop())
    };
    let server = move |board: &Board| {
        board.meet(2);
        let mut seen = 0;
        loop {
            let number = there.load(Ordering::Acquire);
            match number {
                STOP => return Ok(Saw::Nothing),
                same if same == seen => {
                    if pause {
                        std::hint::spin_loop();
                    }
                }
                next => {
                    assert_eq!(next, seen + 1, "a number was lost");
                    seen = next;
                    back.store(next, Ordering::Release);
                }
            }
        }
    };
    both(run, Box::new(client), Box::new(server))
}

/// Steps of arithmetic in one go: some microseconds.
const STEPS: u64 = 1 << 12;

/// Nanoseconds for a thousand steps of arithmetic that need nothing but a core, both
/// cores at it: the slower one's mean, so that time taken away from it counts.
pub fn arithmetic(run: Run) -> Result<f64> {
    let side = move |board: &Board| {
        board.meet(2);
        let mut watch = Stopwatch::start(run)?;
        let mut chains = [1_u64, 2, 3, 4, 5, 6, 7, 8];
        loop {
            let from = Instant::now();
            for _ in 0..STEPS {
                // So many that do not wait for each other: what is left is the core's
                // width, of which who shares the core takes a part.
                chains = chains.map(|x| scalar(x ^ x << 13) >> 7 ^ x);
            }
            chains = std::hint::black_box(chains);
            if watch.note(from, Instant::now()).is_break() {
                return Ok(watch.stop());
            }
        }
    };
    let sides = [0, 1].map(|n| Side { cpu: run.cpu(n, 1, 1), work: Box::new(side) as Work });
    let saw = roles::run(Place::Processes, Vec::from(sides), run.patience())?;
    let means = saw.iter().map(|saw| if let Saw::Trips(trips) = saw { trips.mean } else { 0.0 });
    Ok(means.fold(0.0, f64::max) * 1e3 / STEPS as f64)
}

/// The number, of which the compiler knows nothing now, so that it is not computed
/// together with its neighbours.
#[inline(always)]
fn scalar(mut x: u64) -> u64 {
    // SAFETY: no instruction at all.
    unsafe {
        std::arch::asm!("/* {0} */", inout(reg) x, options(pure, nomem, nostack, preserves_flags));
    }
    x
}

/// A futex woken on the other core, and one back, nobody spinning. With
/// `pause`, after a time in which both fall asleep deeply.
pub fn futex(run: Run, pause: Duration) -> Result<Trips> {
    let memory = Shared::new(4096)?;
    // SAFETY: zeroed, and only ever used as these words.
    let (there, back): (&AtomicU32, &AtomicU32) = unsafe { (memory.at(THERE), memory.at(BACK)) };
    let say = |word: &AtomicU32, number: u32| {
        word.store(number, Ordering::Release);
        futex_wake(word);
    };
    let wait = |word: &AtomicU32, seen: u32| loop {
        // Acquire: pairs with the store in `say`.
        let now = word.load(Ordering::Acquire);
        if now != seen {
            return now;
        }
        futex_wait(word, seen);
    };
    let client = move |board: &Board| {
        board.meet(2);
        let mut watch = Stopwatch::start(run)?;
        for number in 1.. {
            let until = Instant::now() + pause;
            while Instant::now() < until {
                std::hint::spin_loop();
            }
            let from = Instant::now();
            say(there, number);
            assert_eq!(wait(back, number - 1), number, "a number was lost");
            if watch.note(from, Instant::now()).is_break() {
                break;
            }
        }
        say(there, u32::MAX);
        Ok(watch.stop())
    };
    let server = move |board: &Board| {
        board.meet(2);
        let mut seen = 0;
        loop {
            match wait(there, seen) {
                u32::MAX => return Ok(Saw::Nothing),
                number => {
                    seen = number;
                    say(back, number);
                }
            }
        }
    };
    both(run, Box::new(client), Box::new(server))
}

fn both(run: Run, client: Work, server: Work) -> Result<Trips> {
    let sides = vec![
        Side { cpu: run.cpu(0, 1, 1), work: client },
        Side { cpu: run.cpu(1, 1, 1), work: server },
    ];
    trips(&roles::run(Place::Processes, sides, run.patience())?)
}

/// The step in which the clock goes on, in nanoseconds: 10 on AMD's processors of today, whose
/// counters follow a clock of 100 MHz.
pub fn tick() -> u64 {
    let mut last = Instant::now();
    let mut times: Vec<u64> = Vec::new();
    for _ in 0..1000 {
        let now = Instant::now();
        times.push(now.duration_since(last).as_nanos() as u64);
        last = now;
    }
    step_of(times)
}

/// The step between the values that these times gather at; one if they do not.
fn step_of(mut times: Vec<u64>) -> u64 {
    times.sort_unstable();
    // Without those that were interrupted.
    times.truncate(times.len() * 9 / 10);
    let heaps: Vec<&[u64]> = times.chunk_by(|one, next| next - one <= 2).collect();
    let middle = |heap: &[u64]| heap.iter().sum::<u64>() as f64 / heap.len() as f64;
    match heaps[..] {
        [first, .., last] => {
            let step = (middle(last) - middle(first)) / (heaps.len() - 1) as f64;
            (step.round() as u64).max(1)
        }
        _ => 1,
    }
}

/// What one reading of the clock costs, in nanoseconds.
pub fn clock() -> f64 {
    const READINGS: u32 = 1_000_000;
    let start = Instant::now();
    for _ in 1..READINGS {
        std::hint::black_box(Instant::now());
    }
    start.elapsed().as_nanos() as f64 / f64::from(READINGS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_has_a_step() {
        let ticking = [30, 40, 41, 49, 50, 51, 40, 60, 61, 40].map(|time| [time; 4]).concat();
        assert_eq!(step_of(ticking), 10);
        assert_eq!(step_of((20..60).collect()), 1);
        assert_eq!(step_of(vec![25; 40]), 1);
        assert_eq!(step_of(vec![]), 1);
        assert!(tick() >= 1);
    }
}
