//! How those who poll keep off the heels of those whom they poll.
//!
//! A consumer as fast as its producer soon looks at each slot just before it is
//! filled. From then on every slot's line goes back and forth between the two
//! for each message, which slows the producer down, so that the consumer stays
//! on its heels: a stable state, several times slower than the one in which the
//! consumer is some lines behind. So does a producer that is as fast as the
//! consumer of a full ring.
//!
//! A [`Pace`] tells this from other ways to find nothing by what came before,
//! and answers with one short rest ([`REST`] steps of a spin loop, about a
//! microsecond), in which a stock builds up:
//!
//! - [`STREAM`] messages with never more than one fruitless look in a row are a
//!   stream, whose consumer keeps up. (Who polls for the answers of round trips
//!   finds nothing several times for each; who waits for them tells of one look
//!   a wait, but see next.)
//! - If the rest brought less than [`WORTH_IT`] messages, more time a message
//!   than a consumer on the heels costs, it was a mistake, and the next one
//!   takes four times as many messages. So small rings and small windows of
//!   requests, which can't bring that many, are soon left alone.
//!
//! It is a guess about time, on which nothing rests but time.

use crate::sync;
use core::cell::Cell;

/// Steps of a spin loop in a rest.
const REST: u32 = 32;

/// Messages that a rest must bring to be worth its time: 50 ns each or so.
const WORTH_IT: u32 = 16;

/// Messages that make a stream.
const STREAM: u32 = 64;

/// What one end knows of its own success. Private to it.
pub(crate) struct Pace {
    /// Messages since the last fruitless look, where they are counted here.
    burst: Cell<u32>,
    /// Messages before it, where somebody else counts them.
    total: Cell<Option<u64>>,
    /// Messages before that, with no more than one fruitless look in a row.
    stream: Cell<u32>,
    /// How many of them make a rest worth trying.
    wanted: Cell<u32>,
    /// Whether the last thing before the burst was a rest.
    rested: Cell<bool>,
}

impl Pace {
    pub(crate) fn new() -> Pace {
        Pace {
            burst: Cell::new(0),
            total: Cell::new(None),
            stream: Cell::new(0),
            wanted: Cell::new(STREAM),
            rested: Cell::new(false),
        }
    }

    /// `n` messages were found at once.
    #[inline(always)]
    pub(crate) fn hit(&self, n: usize) {
        self.burst.set(self.burst.get().wrapping_add(n as u32));
    }

    /// Nothing was found. Rests if that is worth it; whether it did, so that it
    /// may be worth looking again.
    pub(crate) fn miss(&self) -> bool {
        self.rest_after(self.burst.take())
    }

    /// The same for those who count themselves: nothing was found, after `total`
    /// messages since the beginning of time.
    pub(crate) fn miss_at(&self, total: u64) -> bool {
        // What an earlier end did says nothing.
        let before = self.total.replace(Some(total)).unwrap_or(total);
        let burst = total.wrapping_sub(before);
        self.rest_after(u32::try_from(burst).unwrap_or(u32::MAX))
    }

    fn rest_after(&self, burst: u32) -> bool {
        let rest = self.judge(burst);
        if rest {
            (0..REST).for_each(|_| sync::spin_loop());
        }
        rest
    }

    /// Whether to rest now, after a burst of so many messages.
    fn judge(&self, burst: u32) -> bool {
        if burst == 0 {
            // The second in a row: the stream, if there was one, is over.
            self.stream.set(0);
            self.rested.set(false);
            return false;
        }
        if self.rested.take() {
            if burst < WORTH_IT {
                self.wanted.set(self.wanted.get().saturating_mul(4));
                self.stream.set(0);
                return false;
            }
            self.wanted.set(STREAM);
        }
        let stream = self.stream.get().saturating_add(burst);
        self.stream.set(stream);
        let rest = stream >= self.wanted.get();
        self.rested.set(rest);
        rest
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// Rests among `bursts`, each followed by `misses` fruitless looks.
    fn rests(pace: &Pace, bursts: u32, burst: u32, misses: u32) -> u32 {
        let mut rests = 0;
        for _ in 0..bursts {
            rests +=
                (0..misses).filter(|i| pace.judge(if *i == 0 { burst } else { 0 })).count() as u32;
        }
        rests
    }

    #[test]
    fn a_stream_gets_rests_that_bring_something() {
        let pace = Pace::new();
        assert_eq!(rests(&pace, STREAM - 1, 1, 1), 0);
        assert_eq!(rests(&pace, 1000, WORTH_IT, 1), 1000);
    }

    #[test]
    fn a_stock_that_was_sold_out_is_a_stream() {
        let pace = Pace::new();
        (0..STREAM).for_each(|_| pace.hit(1));
        assert!(pace.miss());
        assert!(!pace.miss());
        let start = u64::MAX - 9;
        assert!(!pace.miss_at(start));
        assert!(pace.miss_at(start.wrapping_add(u64::from(STREAM))));
        assert!(!pace.miss_at(start.wrapping_add(u64::from(STREAM))));
    }

    #[test]
    fn round_trips_get_none() {
        assert_eq!(rests(&Pace::new(), 100_000, 1, 2), 0);
    }

    #[test]
    fn rests_that_bring_nothing_become_rare() {
        let pace = Pace::new();
        let most = rests(&pace, 1_000_000, 1, 1);
        assert!((1..12).contains(&most), "{most} rests");
    }

    #[test]
    fn a_stream_after_mistakes_gets_its_rests_again() {
        let pace = Pace::new();
        rests(&pace, 10_000, 1, 1);
        rests(&pace, 1, 1, 2);
        assert!(rests(&pace, 10_000, WORTH_IT, 1) > 5_000);
    }
}
