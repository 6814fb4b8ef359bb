//! The message ring: one producer, one consumer, slots of one size.
//!
//! Each slot carries a word beside its payload, so that the cache line which
//! brings the news of a message brings the message too. The word says whose turn
//! it is, and for which position:
//!
//! ```text
//! ┌──────────────┬──────────────┬─────┬──────────────┐
//! │ word payload │ word payload │ ... │ word payload │
//! └──────────────┴──────────────┴─────┴──────────────┘
//!
//! FREE(p) ─publish→ FULL(p) ─release→ FREE(p + capacity)      no other value is legal
//! ```
//!
//! Nothing else is shared, as in FastForward (Giacomoni, Moseley, Vachharajani,
//! PPoPP 2008): the producer has its position `tail` and the consumer its `head`
//! to itself, and each looks at the very slot that it wants. *Invariant*,
//! positions being compared within a ring's turn of each other:
//!
//! ```text
//! head <= tail <= head + capacity
//! FULL(p) for p in head..tail, FREE(p) for p in tail..head + capacity
//! ```
//!
//! because both go on in order, the producer alone makes slots full and the
//! consumer alone makes them free. So each slot's word is of the lap of `head`,
//! from the slot of `head` on, and of the lap after it before that. Whoever takes
//! over finds `head` by a binary search for that step, and `tail` by another one
//! for the end of what is full.
//!
//! *That the consumer writes to the slot* is what makes streams fast. A line that
//! the consumer had only read stays with both, and the producer's next store
//! must take it away first, which costs 36 ns and overlaps with nothing. A line
//! that the consumer has written comes over whole, many at a time. So the pipes
//! write to the further lines of a message, too, that they have copied out.
//!
//! | edge | release | acquire | makes visible |
//! |------|---------|---------|---------------|
//! | P    | `publish`: FULL | `Consumer::at_hand` | payload to the consumer |
//! | F    | `pass`: FREE | `Producer::at_hand` | that the slot has been read |
//!
//! ```
//! use slipring::{Heap, ring::spsc::{Geometry, Ring}};
//!
//! let geometry = Geometry::new(100, std::alloc::Layout::new::<u32>()).unwrap();
//! let heap = Heap::zeroed(geometry.len());
//! // SAFETY: the block is ours alone, and has the ring's size and alignment.
//! let ring = unsafe { Ring::init(heap.region(), geometry, 0) };
//! // SAFETY: the only ends.
//! let (mut tx, mut rx) = unsafe { (ring.producer()?, ring.consumer()?) };
//!
//! let slot = tx.try_claim()?.expect("the ring is empty");
//! // SAFETY: the slot is ours until it is committed, and of a u32's layout.
//! unsafe { slot.payload().cast::<u32>().write(7) };
//! slot.commit();
//!
//! let message = rx.peek()?.expect("committed above");
//! // SAFETY: nobody writes there until it is released.
//! assert_eq!(unsafe { message.payload().cast::<u32>().read() }, 7);
//! message.release();
//! # Ok::<(), slipring::Error>(())
//! ```
//!
//! What the survivors see when an end dies:
//!
//! | it died | shared memory says | survivors |
//! |---------|--------------------|-----------|
//! | producer, between claim and commit | FREE | nothing; the successor claims the same slot |
//! | producer, after commit | FULL | the message |
//! | consumer, between peek and release | FULL | the successor gets the message again |
//! | consumer, after release | FREE | nothing |

use crate::error::Error;
use crate::memory::{LINE, Region, round_up};
use crate::position::{Laps, Position};
use crate::sync::{AtomicU64, Ordering, Witness, point};
use core::alloc::Layout;
use core::marker::PhantomData;
use core::ptr::NonNull;

/// The start of each slot; the payload follows, aligned.
#[repr(C)]
struct Slot {
    /// FULL or FREE, and a position.
    word: AtomicU64,
    witness: Witness,
}

/// The bit above any position that makes a word FREE.
const FREE: u64 = 1 << 63;

const _: () = assert!(align_of::<Slot>() <= 64);

/// Where everything lies: a function of the capacity and the payload's layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    laps: Laps,
    payload: Layout,
    payload_offset: usize,
    stride: usize,
    len: usize,
}

impl Geometry {
    /// The geometry of `capacity` slots (1 to 2³¹, exactly as asked for) that
    /// each hold one `payload` (alignment at most 64).
    ///
    /// A slot of up to 64 bytes is padded to a power of two: it never straddles
    /// two cache lines, so that a message costs one transfer, and small slots
    /// still share a line when a batch goes through. A larger one is padded to
    /// a multiple of 64, so that its word shares a line with the first bytes of
    /// its own payload and with no other slot.
    ///
    /// # Errors
    ///
    /// Says what is wrong with the capacity or the payload.
    pub fn new(capacity: usize, payload: Layout) -> Result<Geometry, &'static str> {
        let laps = Laps::new(capacity).ok_or("capacity must be from 1 to 2^31 slots")?;
        if payload.align() > 64 {
            return Err("alignment above 64 bytes is not supported");
        }
        let too_large = "the ring's size overflows";
        let payload_offset = round_up(size_of::<Slot>(), payload.align()).ok_or(too_large)?;
        let used = payload_offset.checked_add(payload.size()).ok_or(too_large)?;
        let stride = if used <= 64 {
            used.next_power_of_two().max(align_of::<Slot>())
        } else {
            round_up(used, 64).ok_or(too_large)?
        };
        let len = stride
            .checked_mul(capacity)
            .and_then(|len| round_up(len, LINE))
            .filter(|&len| len <= isize::MAX as usize - LINE)
            .ok_or(too_large)?;
        Ok(Geometry { laps, payload, payload_offset, stride, len })
    }

    /// Bytes that the ring takes, from a base aligned to [`LINE`].
    pub fn len(&self) -> usize {
        self.len
    }

    /// Never: a ring has a slot.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Slots.
    pub fn capacity(&self) -> usize {
        self.laps.capacity()
    }

    /// Size and alignment of one payload.
    pub fn payload(&self) -> Layout {
        self.payload
    }

    fn fits(&self, region: Region<'_>) -> bool {
        Layout::from_size_align(self.len, LINE).is_ok_and(|layout| region.fits(layout))
    }
}

/// The ring, laid over borrowed memory. Copies are views of one ring; its ends
/// are [`Ring::producer`] and [`Ring::consumer`].
#[derive(Clone, Copy, Debug)]
pub struct Ring<'a> {
    slots: NonNull<u8>,
    geometry: Geometry,
    memory: PhantomData<&'a [AtomicU64]>,
}

// SAFETY: all shared state is reached through atomics; payloads only through
// the two ends, which their contracts make exclusive.
unsafe impl Send for Ring<'_> {}
// SAFETY: as above.
unsafe impl Sync for Ring<'_> {}

impl<'a> Ring<'a> {
    /// Writes an empty ring into the region, its next position being `start`
    /// (a count of slots; 0 but for tests of wraps).
    ///
    /// # Safety
    ///
    /// Nobody else may use the region during the call.
    ///
    /// # Panics
    ///
    /// Panics when the region is shorter than the geometry or not aligned to
    /// [`LINE`].
    pub unsafe fn init(region: Region<'a>, geometry: Geometry, start: u64) -> Ring<'a> {
        assert!(geometry.fits(region), "region too small or misaligned for the ring");
        let laps = geometry.laps;
        let first = laps.at_count(start);
        for index in 0..laps.capacity() {
            // Slots before the first position are free for the next lap.
            let lap = laps.lap(first).wrapping_add(u64::from(index < laps.index(first)));
            let word = AtomicU64::new(free_word(laps.at(lap, index)));
            let slot = Slot { word, witness: Witness::default() };
            // SAFETY: index < capacity, so the slot lies inside `geometry.len`;
            // LINE and the stride are multiples of its alignment.
            unsafe { region.at::<Slot>(index * geometry.stride).write(slot) };
        }
        // SAFETY: just initialised with this geometry.
        unsafe { Self::attach(region, geometry) }
    }

    /// A view of a ring that [`Ring::init`] wrote with this geometry.
    ///
    /// # Safety
    ///
    /// The region must hold such a ring, and be used by nothing but views of
    /// it. (Its *contents* may be hostile; they are checked wherever they
    /// matter.)
    ///
    /// # Panics
    ///
    /// As [`Ring::init`].
    pub unsafe fn attach(region: Region<'a>, geometry: Geometry) -> Ring<'a> {
        assert!(geometry.fits(region), "region too small or misaligned for the ring");
        Ring { slots: region.base(), geometry, memory: PhantomData }
    }

    /// Its geometry.
    #[inline]
    pub fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// The sending end, at the end of what has been published.
    ///
    /// # Errors
    ///
    /// `Corrupt` when the search meets a word that no correct peer writes.
    ///
    /// # Safety
    ///
    /// One producer at a time: whatever an earlier one did must happen before
    /// this call (the hand-over of its lease, or its thread, orders that).
    pub unsafe fn producer(&self) -> Result<Producer<'a>, Error> {
        Ok(Producer { ring: *self, tail: self.edge(published)? })
    }

    /// The receiving end, at the first message not released.
    ///
    /// # Errors
    ///
    /// As [`Ring::producer`].
    ///
    /// # Safety
    ///
    /// One consumer at a time: whatever an earlier one did must happen before
    /// this call.
    pub unsafe fn consumer(&self) -> Result<Consumer<'a>, Error> {
        Ok(Consumer { ring: *self, head: self.edge(released)? })
    }

    /// Messages published and not released: a moment's truth, for onlookers.
    pub fn len(&self) -> usize {
        self.edge(released).map_or(0, |head| self.count_from(head))
    }

    /// Whether no message is published that is not released.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The slot of a position. Every position comes from `Laps` arithmetic on one
    /// that was `checked`, so its index is below the capacity.
    #[inline(always)]
    fn slot(&self, at: Position) -> &'a Slot {
        let offset = self.geometry.laps.index(at) * self.geometry.stride;
        debug_assert!(offset + self.geometry.stride <= self.geometry.len);
        // SAFETY: the index is below the capacity, and `attach` checked that so
        // many slots fit; initialised memory, as its contract says, for as long
        // as 'a; only atomics inside.
        unsafe { self.slots.add(offset).cast().as_ref() }
    }

    #[inline(always)]
    fn payload_of(&self, slot: &'a Slot) -> NonNull<u8> {
        // SAFETY: the payload lies inside the slot's stride.
        unsafe { NonNull::from(slot).cast::<u8>().add(self.geometry.payload_offset) }
    }

    /// The word of a position's slot, for those who search.
    fn word(&self, at: Position) -> u64 {
        self.slot(at).word.load(Ordering::Relaxed)
    }

    /// This slot's next position.
    #[inline(always)]
    fn next_turn(&self, at: Position) -> Position {
        let laps = self.geometry.laps;
        laps.at(laps.lap(at).wrapping_add(1), laps.index(at))
    }

    /// This slot's last position.
    #[inline(always)]
    fn last_turn(&self, at: Position) -> Position {
        let laps = self.geometry.laps;
        laps.at(laps.lap(at).wrapping_sub(1), laps.index(at))
    }

    #[cold]
    fn bad_word(&self, index: usize) -> Error {
        Error::Corrupt { what: "word of a message ring's slot", at: index as u64 }
    }

    /// The first position that is not `done` (released, or published): the first
    /// slots have been through one lap more than the others.
    ///
    /// Exact for an end that looks for its own place. In a ring that moves it is
    /// where it was a moment ago, or, if it goes round all the time, anywhere.
    fn edge(&self, done: fn(Laps, u64) -> u64) -> Result<Position, Error> {
        let laps = self.geometry.laps;
        let laps_done = |index| {
            let word = self.word(laps.at(0, index));
            // Of this slot, and nothing else?
            let at = laps.checked(word & !FREE).filter(|at| laps.index(*at) == index);
            at.map(|_| laps.lap(laps.at(done(laps, word), 0))).ok_or_else(|| self.bad_word(index))
        };
        let mut edge = Position(0);
        // Whether the edge came past the first slot meanwhile.
        for _ in 0..4 {
            let first = laps_done(0)?;
            let index = self.first_not(|index| Ok(index == 0 || laps_done(index)? == first))?;
            edge = laps.forward(laps.at(first.wrapping_sub(1), 0), index);
            if laps_done(0)? == first {
                break;
            }
        }
        Ok(edge)
    }

    /// The first index for which this is not so, if it is so for all before it
    /// and for none after it; or the capacity. By doubling steps, then by
    /// halving them: O(log capacity) probes.
    fn first_not(&self, mut so: impl FnMut(usize) -> Result<bool, Error>) -> Result<usize, Error> {
        let capacity = self.geometry.capacity();
        // So before `low`, not so at `high`.
        let (mut low, mut high) = (0, capacity);
        let mut step = 1;
        while low < high {
            let probe = low + (step - 1).min((high - low) / 2);
            if so(probe)? {
                low = probe + 1;
                step = (step * 2).min(capacity);
            } else {
                high = probe;
            }
        }
        Ok(low)
    }

    /// How many messages there are from `head` on: a moment's truth.
    fn count_from(&self, head: Position) -> usize {
        let tail = self.edge(published).unwrap_or(head);
        let count = self.geometry.laps.slots_between(tail, head);
        count.clamp(0, self.geometry.capacity() as i64) as usize
    }
}

/// How many laps of a slot with this word are released: what the producer does
/// makes no difference to it.
fn released(laps: Laps, word: u64) -> u64 {
    laps.lap(Position(word & !FREE))
}

/// How many are published: what the consumer does makes no difference to it.
fn published(laps: Laps, word: u64) -> u64 {
    released(laps, word).wrapping_add(u64::from(word & FREE == 0))
}

/// The word of a slot that is free for this position.
#[inline(always)]
fn free_word(at: Position) -> u64 {
    at.0 | FREE
}

/// The word of a slot that holds this position's message.
#[inline(always)]
fn full_word(at: Position) -> u64 {
    at.0
}

/// The sending end.
#[derive(Debug)]
pub struct Producer<'a> {
    ring: Ring<'a>,
    /// The next position to publish: all that there is to store for a message,
    /// beside the slot.
    tail: Position,
}

// SAFETY: an end is a view with a private position; any thread may hold it.
unsafe impl Send for Producer<'_> {}

/// A slot to be filled: commit it, or drop it to abandon it.
#[derive(Debug)]
#[must_use = "a slot that is not committed is not sent"]
pub struct Claim<'p, 'a> {
    producer: &'p mut Producer<'a>,
    payload: NonNull<u8>,
}

impl Claim<'_, '_> {
    /// Where the payload goes: exclusively the holder's, with the geometry's
    /// size and alignment.
    #[inline]
    pub fn payload(&self) -> NonNull<u8> {
        self.payload
    }

    /// Publishes the slot. Wake the consumer afterwards.
    #[inline]
    pub fn commit(self) {
        self.producer.publish();
    }
}

impl<'a> Producer<'a> {
    /// The ring.
    pub fn ring(&self) -> &Ring<'a> {
        &self.ring
    }

    /// The slot for the next message, or `None` when the ring is full.
    ///
    /// # Errors
    ///
    /// `Corrupt` when the slot's word is one that no correct peer writes.
    #[inline]
    pub fn try_claim(&mut self) -> Result<Option<Claim<'_, 'a>>, Error> {
        match self.at_hand() {
            Some(payload) => Ok(Some(Claim { producer: self, payload })),
            None => self.judge().map(|()| None),
        }
    }

    /// Where the next payload goes, or `None` when that takes another look. Go on
    /// from there by `publish`.
    #[inline(always)]
    pub(crate) fn at_hand(&self) -> Option<NonNull<u8>> {
        let slot = self.ring.slot(self.tail);
        // Edge F: Acquire pairs with the Release in `pass`.
        if slot.word.load(Ordering::Acquire) != free_word(self.tail) {
            return None;
        }
        slot.witness.write();
        Some(self.ring.payload_of(slot))
    }

    /// There was no slot at hand: is that, or what is there now, legal?
    pub(crate) fn judge(&self) -> Result<(), Error> {
        let (word, last) = (self.ring.word(self.tail), self.ring.last_turn(self.tail));
        let legal = word == full_word(last) || word == free_word(self.tail);
        if legal {
            Ok(())
        } else {
            Err(self.ring.bad_word(self.ring.geometry.laps.index(self.tail)))
        }
    }

    /// Publishes the slot that `at_hand` gave.
    #[inline(always)]
    pub(crate) fn publish(&mut self) {
        let at = self.tail;
        // Edge P: Release pairs with the Acquire in `Consumer::at_hand`.
        self.ring.slot(at).word.store(full_word(at), Ordering::Release);
        point("spsc.published");
        self.tail = self.ring.geometry.laps.next(at);
    }

    /// Publishes up to `n` slots one by one, each as soon as `fill` has written
    /// its payload; how many, for want of free ones. `fill` must not unwind.
    #[inline(always)]
    pub(crate) fn publish_each(
        &mut self,
        n: usize,
        mut fill: impl FnMut(usize, NonNull<u8>),
    ) -> usize {
        // Not in memory meanwhile: a store for each message would cost as much as
        // a short message itself.
        let mut producer = Producer { ring: self.ring, tail: self.tail };
        let mut count = 0;
        while count < n
            && let Some(payload) = producer.at_hand()
        {
            fill(count, payload);
            producer.publish();
            count += 1;
        }
        self.tail = producer.tail;
        count
    }

    /// Whether [`Producer::try_claim`] would find a slot (or an error): one
    /// load, for loops that wait.
    #[inline]
    pub fn is_ready(&self) -> bool {
        self.ring.word(self.tail) != full_word(self.ring.last_turn(self.tail))
    }

    /// Whether so many slots are free.
    pub(crate) fn has_room(&self, n: usize) -> bool {
        let at = self.ring.geometry.laps.forward(self.tail, n - 1);
        self.ring.word(at) == free_word(at)
    }

    /// Slots ever published, from an arbitrary start.
    pub(crate) fn count(&self) -> u64 {
        self.ring.geometry.laps.count(self.tail)
    }
}

/// The receiving end.
#[derive(Debug)]
pub struct Consumer<'a> {
    ring: Ring<'a>,
    /// The first position not released: all that there is to store for a
    /// message, beside the slot.
    head: Position,
}

// SAFETY: as `Producer`.
unsafe impl Send for Consumer<'_> {}

/// A message where it lies: release it, or drop it to see it again.
#[derive(Debug)]
pub struct Message<'c, 'a> {
    consumer: &'c mut Consumer<'a>,
    payload: NonNull<u8>,
}

impl Message<'_, '_> {
    /// Where the payload is: nobody writes there until the release.
    #[inline]
    pub fn payload(&self) -> NonNull<u8> {
        self.payload
    }

    /// Gives the slot back. Wake the producer afterwards.
    #[inline]
    pub fn release(self) {
        self.consumer.pass();
    }
}

impl<'a> Consumer<'a> {
    /// The ring.
    pub fn ring(&self) -> &Ring<'a> {
        &self.ring
    }

    /// The next message, or `None` when there is none.
    ///
    /// # Errors
    ///
    /// `Corrupt` when the slot's word is one that no correct peer writes.
    #[inline]
    pub fn peek(&mut self) -> Result<Option<Message<'_, 'a>>, Error> {
        match self.at_hand() {
            Some(payload) => Ok(Some(Message { consumer: self, payload })),
            None => self.judge().map(|()| None),
        }
    }

    /// Where the next payload is, or `None` when that takes another look. Go on
    /// from there by `pass`.
    #[inline(always)]
    pub(crate) fn at_hand(&self) -> Option<NonNull<u8>> {
        let slot = self.ring.slot(self.head);
        // Edge P: Acquire pairs with the Release in `publish`.
        if slot.word.load(Ordering::Acquire) != full_word(self.head) {
            return None;
        }
        slot.witness.read();
        Some(self.ring.payload_of(slot))
    }

    /// There was no message at hand: is that, or what is there now, legal?
    pub(crate) fn judge(&self) -> Result<(), Error> {
        let word = self.ring.word(self.head);
        let legal = word == free_word(self.head) || word == full_word(self.head);
        if legal {
            Ok(())
        } else {
            Err(self.ring.bad_word(self.ring.geometry.laps.index(self.head)))
        }
    }

    /// Gives back the slot of the message that `at_hand` gave.
    #[inline(always)]
    pub(crate) fn pass(&mut self) {
        let at = self.head;
        // Edge F: Release pairs with the Acquire in `Producer::at_hand`.
        let free = free_word(self.ring.next_turn(at));
        self.ring.slot(at).word.store(free, Ordering::Release);
        point("spsc.released");
        self.head = self.ring.geometry.laps.next(at);
    }

    /// Lends the payloads of up to `n` messages to `read`, and gives each slot back
    /// after that; how many, for want of more. `read` must not unwind.
    #[inline(always)]
    pub(crate) fn pass_each(
        &mut self,
        n: usize,
        mut read: impl FnMut(usize, NonNull<u8>),
    ) -> usize {
        // As in `publish_each`.
        let mut consumer = Consumer { ring: self.ring, head: self.head };
        let mut count = 0;
        while count < n
            && let Some(payload) = consumer.at_hand()
        {
            read(count, payload);
            consumer.pass();
            count += 1;
        }
        self.head = consumer.head;
        count
    }

    /// Whether [`Consumer::peek`] would find a message (or an error): one load,
    /// for loops that wait.
    #[inline]
    pub fn is_ready(&self) -> bool {
        self.ring.word(self.head) != free_word(self.head)
    }

    /// Whether so many messages are there.
    pub(crate) fn has_stock(&self, n: usize) -> bool {
        let at = self.ring.geometry.laps.forward(self.head, n - 1);
        self.ring.word(at) == full_word(at)
    }

    /// Slots ever released, from an arbitrary start.
    pub(crate) fn count(&self) -> u64 {
        self.ring.geometry.laps.count(self.head)
    }

    /// Messages published and not released.
    pub fn len(&self) -> usize {
        self.ring.count_from(self.head)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        !self.is_ready()
    }
}

#[cfg(all(test, not(loom)))]
#[path = "spsc_tests.rs"]
mod tests;

#[cfg(all(test, loom))]
#[path = "spsc_models.rs"]
mod models;
