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
//! and answers with a rest, in which a stock builds up. It ends when that is a
//! part of the ring or a number of messages ([`Rest`]), which is seen at the last of those
//! slots, away from where the other end is at work; or after three microseconds, or
//! six.
//!
//! - [`STREAM`] messages that came a few at a time, with never more than one
//!   fruitless look in a row, are a stream whose consumer is on its producer's
//!   heels. (Who polls for the answers of round trips finds nothing several
//!   times for each; who waits for them tells of one look a wait, but see next.)
//! - If the rest brought less than a [`HEAP`], or half of one if it was short, it took more
//!   time a message than being on the heels costs: it was a mistake, and the next one takes
//!   four times as many messages, up to [`RARELY`], whatever comes between them.
//! - Messages that come in heaps by themselves, such as all requests of a window
//!   or all that fits in, need no rest. So every [`TRIAL`]th is left out, to see.
//! - A ring that can't hold a heap ([`LEAST`] messages) gets none.
//!
//! A producer that looks at one index for room ([`Pace::full`]) need not guess so much: a
//! ring that has filled up is a stream, and who waits for a good part of it to be read has
//! kept the consumer busy meanwhile. It rests, until there is room for a stock or an eighth
//! of the ring, whenever that brings room for what makes a rest worth it; and when it does
//! not, the consumer being slow, it lets four times as many occasions pass as the last time
//! before it tries again.
//!
//! It is a guess about time, on which nothing rests but time.

use crate::memory::is_amd;
use crate::sync;
use core::cell::Cell;

/// How a rest ends.
#[derive(Clone, Copy)]
struct Rest {
    /// Most looks in it.
    looks: u32,
    /// The stock that ends it, unless the ring is small.
    stock: usize,
    /// What a small ring's length is divided by for the stock that ends it.
    divisor: usize,
    /// What a heap is divided by for what makes a rest worth it.
    worth: usize,
}

/// Long rests are better on AMD's processors, above all with cores far from each other
/// (docs/performance.md); on Intel's short ones are. Where a rest looks at an index, long ones
/// were no better.
const LONG: Rest = Rest { looks: 64, stock: 512, divisor: 2, worth: 1 };
const SHORT: Rest = Rest { looks: 32, stock: 128, divisor: 8, worth: 2 };

impl Rest {
    /// In a ring that holds so many messages.
    fn of(self, capacity: usize) -> Rest {
        Rest { stock: (capacity / self.divisor).clamp(1, self.stock), ..self }
    }
}

/// Steps of a spin loop, 25 ns each or so, between two looks.
const STEPS: u32 = 4;

/// What comes in a heap, unless the ring is small: so many messages, or an eighth of it.
const HEAP: usize = 128;

/// Messages since the last fruitless look from which on an end is not on the other's heels.
const AWAY: u32 = 16;

/// Most occasions to rest in a full ring that pass after one that brought nothing.
const PASSED: u32 = 256;

/// Messages that make a stream.
const STREAM: u32 = 64;

/// Messages from one rest to the next when none was worth it: rare enough to
/// cost nothing, often enough to notice a stream within a millisecond.
const RARELY: u32 = 1 << 16;

/// Of so many rests one is left out.
const TRIAL: u32 = 16;

/// Messages that fit into the smallest ring whose ends rest.
const LEAST: usize = 128;

/// What one end knows of its own success. Private to it.
pub(crate) struct Pace {
    /// Messages since the last fruitless look, where they are counted here.
    burst: Cell<u32>,
    /// Messages before it, where somebody else counts them.
    total: Cell<Option<u64>>,
    /// Where it was.
    place: Cell<usize>,
    /// Messages of the stream so far, or zero when there is none.
    stream: Cell<u32>,
    /// How many of them make a rest worth trying: none for small rings.
    wanted: Cell<Option<u32>>,
    /// What came before the burst.
    before: Cell<Before>,
    /// Rests in a row that were worth it.
    rests: Cell<u32>,
    /// Messages that are a heap.
    heap: u32,
    rest: Rest,
    /// Occasions to rest in a full ring that are still to pass, and how many were to.
    passing: Cell<(u32, u32)>,
}

/// What was done at the last fruitless look.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Before {
    Nothing,
    Rest,
    /// A rest was left out.
    Trial,
}

impl Pace {
    /// Of an end of a ring that holds so many messages, each with a word of its own.
    pub(crate) fn new(capacity: usize) -> Pace {
        Pace::of(capacity, if is_amd() { LONG } else { SHORT })
    }

    /// The same where a rest looks at an index that the other end writes all the time.
    pub(crate) fn of_index(capacity: usize) -> Pace {
        Pace::of(capacity, SHORT)
    }

    fn of(capacity: usize, rest: Rest) -> Pace {
        Pace {
            burst: Cell::new(0),
            total: Cell::new(None),
            place: Cell::new(usize::MAX),
            stream: Cell::new(0),
            wanted: Cell::new(if capacity < LEAST { None } else { Some(STREAM) }),
            before: Cell::new(Before::Nothing),
            rests: Cell::new(0),
            passing: Cell::new((0, 0)),
            heap: (capacity / 8).clamp(1, HEAP) as u32,
            rest: rest.of(capacity),
        }
    }

    /// So many messages were found at once.
    #[inline(always)]
    pub(crate) fn hits(&self, n: usize) {
        self.burst.set(self.burst.get().wrapping_add(n as u32));
    }

    /// Whether so many were found since nothing was that the other end is some lines away.
    #[inline(always)]
    pub(crate) fn is_away(&self) -> bool {
        self.burst.get() >= AWAY
    }

    /// Nothing was found. Rests if that is worth it, until there is `enough`;
    /// whether it did, so that it may be worth looking again.
    pub(crate) fn miss(&self, enough: impl FnMut(usize) -> bool) -> bool {
        self.rest_after(self.burst.take(), enough)
    }

    /// The same for those who count themselves: nothing was found at this place, after
    /// `total` messages since the beginning of time.
    #[inline]
    pub(crate) fn miss_at(
        &self,
        place: usize,
        total: impl FnOnce() -> u64,
        enough: impl FnMut(usize) -> bool,
    ) -> bool {
        // Who polls comes here again and again, and should be back at the slot soon, unless
        // this look in a row ends a stream. (A lap later it may be at the same place. A lap is
        // a heap, so the answer is the same; the next burst then counts that lap, too.)
        let again = self.place.replace(place) == place;
        let ends = self.stream.get() > 0 && self.wanted.get() == Some(STREAM);
        if again && !ends && self.before.get() == Before::Nothing {
            return false;
        }
        self.miss_after(total(), enough)
    }

    fn miss_after(&self, total: u64, enough: impl FnMut(usize) -> bool) -> bool {
        // What an earlier end did says nothing.
        let before = self.total.replace(Some(total)).unwrap_or(total);
        let burst = total.wrapping_sub(before);
        let burst = u32::try_from(burst).unwrap_or(u32::MAX);
        self.rest_after(burst, enough)
    }

    /// The ring is full, or nearly: rests until there is room `enough`, if that is likely
    /// to come soon.
    #[cold]
    pub(crate) fn full(&self, mut enough: impl FnMut(usize) -> bool) {
        if self.wanted.get().is_none() {
            return;
        }
        let (passing, last) = self.passing.get();
        if let Some(passing) = passing.checked_sub(1) {
            self.passing.set((passing, last));
            return;
        }
        self.rest(&mut enough);
        let barren = if enough(self.worth() as usize) { 0 } else { (4 * last + 1).min(PASSED) };
        self.passing.set((barren, barren));
    }

    fn rest_after(&self, burst: u32, enough: impl FnMut(usize) -> bool) -> bool {
        let rest = self.judge(burst);
        if rest {
            self.rest(enough);
        }
        rest
    }

    fn rest(&self, mut enough: impl FnMut(usize) -> bool) {
        // With one processor nothing comes meanwhile.
        for _ in 0..sync::spins(self.rest.looks) {
            (0..STEPS).for_each(|_| sync::spin_loop());
            if enough(self.rest.stock) {
                break;
            }
        }
    }

    /// Messages that are worth a rest.
    fn worth(&self) -> u32 {
        self.heap / self.rest.worth as u32
    }

    /// Whether to rest now, after a burst of so many messages.
    fn judge(&self, burst: u32) -> bool {
        let Some(wanted) = self.wanted.get() else { return false };
        let (worth_it, heap) = (burst >= self.worth(), burst >= self.heap);
        let next = match self.before.get() {
            // The second look in a row: the stream, if there was one, is over.
            _ if burst == 0 && wanted == STREAM => Before::Nothing,
            // Unless rests were mistakes. Then so many messages are asked for that looks in a
            // row and heaps come in between, on the other's heels, too; and a rest is so rare
            // that it costs nothing.
            Before::Nothing if wanted > STREAM && (burst == 0 || heap) => return false,
            Before::Rest if worth_it => {
                self.wanted.set(Some(STREAM));
                self.rests.set(self.rests.get().wrapping_add(1));
                if self.rests.get().is_multiple_of(TRIAL) { Before::Trial } else { Before::Rest }
            }
            Before::Rest => {
                self.wanted.set(Some((4 * wanted).min(RARELY)));
                Before::Nothing
            }
            Before::Trial if !heap => Before::Rest,
            Before::Nothing if !heap => {
                self.stream.set(self.stream.get().saturating_add(burst));
                let enough = self.stream.get() >= wanted;
                self.before.set(if enough { Before::Rest } else { Before::Nothing });
                return enough;
            }
            // A heap by itself.
            Before::Trial | Before::Nothing => Before::Nothing,
        };
        if next == Before::Nothing {
            self.stream.set(0);
        }
        self.before.set(next);
        next == Before::Rest
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// A heap, in the smallest ring whose ends rest.
    const LITTLE: u32 = LEAST as u32 / 8;

    /// Rests among `bursts`, each followed by `misses` fruitless looks. A rest
    /// is followed by a burst of `stock`.
    fn rests(pace: &Pace, bursts: u32, (burst, stock): (u32, u32), misses: u32) -> u32 {
        let (mut rests, mut rested) = (0, false);
        for _ in 0..bursts {
            let found = if rested { stock } else { burst };
            rested = false;
            for look in 0..misses {
                rested = pace.judge(if look == 0 { found } else { 0 });
                rests += u32::from(rested);
            }
        }
        rests
    }

    #[test]
    fn who_is_on_the_heels_rests_when_that_brings_something() {
        let pace = Pace::new(LEAST);
        assert_eq!(rests(&pace, STREAM - 1, (1, LITTLE), 1), 0);
        assert!(rests(&pace, 1000, (1, LITTLE), 1) > 900);
    }

    #[test]
    fn what_comes_in_heaps_needs_no_rests() {
        let pace = Pace::new(LEAST);
        assert_eq!(rests(&pace, 1000, (LITTLE, LITTLE), 1), 0);
        // Nor once it has begun to.
        assert!(rests(&pace, 100, (1, LITTLE), 1) > 0);
        assert!(rests(&pace, 1000, (LITTLE, LITTLE), 1) <= TRIAL);
    }

    #[test]
    fn round_trips_get_none() {
        assert_eq!(rests(&Pace::new(LEAST), 100_000, (1, 1), 2), 0);
    }

    #[test]
    fn small_rings_get_none() {
        assert_eq!(rests(&Pace::new(LEAST - 1), 100_000, (1, LITTLE), 1), 0);
    }

    #[test]
    fn rests_that_bring_nothing_become_rare() {
        let most = rests(&Pace::new(LEAST), 1_000_000, (1, 1), 1);
        assert!((1..24).contains(&most), "{most} rests");
    }

    #[test]
    fn a_stream_after_mistakes_gets_its_rests_again() {
        let pace = Pace::new(LEAST);
        rests(&pace, 10_000, (1, 1), 1);
        assert!(rests(&pace, 100_000, (1, LITTLE), 1) > 50_000);
    }

    #[test]
    fn who_made_mistakes_tries_again_though_looks_in_a_row_find_nothing() {
        let pace = Pace::new(LEAST);
        rests(&pace, 1_000_000, (1, 1), 1);
        assert_eq!(pace.wanted.get(), Some(RARELY));
        assert!(rests(&pace, RARELY, (1, LITTLE), 3) > 0);
        // Or though heaps come in between.
        rests(&pace, 1_000_000, (1, 1), 1);
        let mut tries = 0;
        for _ in 0..RARELY / 64 {
            tries += rests(&pace, 64, (1, LITTLE), 1) + rests(&pace, 1, (LITTLE, LITTLE), 1);
        }
        assert!(tries > 0);
        // In round trips, polling, such a rest brings nothing, and stays rare.
        rests(&pace, 1_000_000, (1, 1), 1);
        let most = rests(&pace, 1_000_000, (1, 0), 3);
        assert!((1..=16).contains(&most), "{most} rests");
    }

    #[test]
    fn messages_are_counted_here_or_elsewhere() {
        let pace = Pace::new(LEAST);
        let start = u64::MAX - 9;
        let miss = |n| pace.miss_at(n as usize, || start.wrapping_add(n), |_| true);
        for n in 0..u64::from(STREAM) {
            assert!(!miss(n));
        }
        assert!(miss(u64::from(STREAM)));
        // The rest is over, and so is the stream.
        assert!(!miss(u64::from(STREAM)));
        assert!(!pace.miss_at(
            STREAM as usize,
            || panic!("it is known that nothing came"),
            |_| true
        ));
        let pace = Pace::new(LEAST);
        for _ in 1..STREAM {
            pace.hits(1);
            assert!(!pace.miss(|_| true));
        }
        pace.hits(1);
        assert!(pace.miss(|_| true));
    }

    /// How often a producer rests that finds the ring full so often, when so much
    /// room comes in a rest.
    fn full(pace: &Pace, occasions: u32, room: usize) -> u32 {
        let mut rests = 0;
        for _ in 0..occasions {
            let mut looked = false;
            pace.full(|wanted| {
                looked = true;
                wanted <= room
            });
            rests += u32::from(looked);
        }
        rests
    }

    #[test]
    fn a_full_ring_gives_rests_where_they_bring_room() {
        let pace = Pace::new(10 * LEAST);
        let worth = pace.worth() as usize;
        assert_eq!(full(&pace, 100, worth), 100);
        let barren = full(&pace, 1_000_000, worth - 1);
        let rare = 1_000_000 / (PASSED + 1);
        assert!((rare - 10..rare + 10).contains(&barren), "{barren} rests");
        // Again when it is worth it again, if not at once.
        assert!(full(&pace, 2 * PASSED, HEAP) >= PASSED);
        assert_eq!(full(&Pace::new(LEAST - 1), 100, usize::MAX), 0);
    }

    #[test]
    fn a_rest_ends_with_a_stock_or_with_its_time() {
        for rest in [LONG, SHORT] {
            for (capacity, stock) in
                [(LEAST, LEAST / rest.divisor), (10 * LEAST, rest.stock), (1 << 20, rest.stock)]
            {
                let pace = Pace::of(capacity, rest);
                pace.before.set(Before::Rest);
                let mut looks = 0;
                let rested = pace.rest_after(pace.heap, |wanted| {
                    assert_eq!(wanted, stock);
                    looks += 1;
                    looks == 3
                });
                assert_eq!((rested, looks), (true, sync::spins(3)));
                let rested = pace.rest_after(pace.heap, |_| {
                    looks += 1;
                    false
                });
                assert_eq!((rested, looks), (true, sync::spins(3 + rest.looks)));
            }
        }
    }
}
