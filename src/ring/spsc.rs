//! The message ring: one producer, one consumer, slots of one size.
//!
//! Each slot carries a sequence word beside its payload, so that the cache line
//! which brings the news of a message brings the message too, and the producer
//! has no line to share but the slot itself. The word holds the position of the
//! last message published there:
//!
//! ```text
//! ┌──────┬──────────────┬──────────────┬─────┬──────────────┐
//! │ head │ word payload │ word payload │ ... │ word payload │
//! └──────┴──────────────┴──────────────┴─────┴──────────────┘
//! word(p) == p              published
//! word(p) == p - capacity   not yet; no third value is legal
//! ```
//!
//! `head` counts slots ever released. The producer's own position, `tail`, is
//! nowhere in shared memory. *Invariant*, positions being compared within a
//! ring's turn of each other:
//!
//! ```text
//! head <= tail <= head + capacity
//! the published positions from head on are exactly head..tail
//! ```
//!
//! because the producer publishes in order and only the producer writes slots.
//! So a producer that takes over finds its tail by a binary search for the end
//! of the published prefix. Both sides work from private copies: the producer
//! reads `head` only when its copy says full, the consumer never reads it.
//!
//! | edge | release | acquire | makes visible |
//! |------|---------|---------|---------------|
//! | P    | `publish`: word | `is_published`, `judge_head`: word | payload to the consumer |
//! | F    | `go_to`: `head` | `load_head`: `head` | that the slot has been read |
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
//! unsafe { slot.cast::<u32>().write(7) };
//! tx.commit();
//!
//! let message = rx.peek()?.expect("committed above");
//! // SAFETY: nobody writes there until it is released.
//! assert_eq!(unsafe { message.cast::<u32>().read() }, 7);
//! rx.release();
//! # Ok::<(), slipring::Error>(())
//! ```
//!
//! What the survivors see when an end dies:
//!
//! | it died | shared memory says | survivors |
//! |---------|--------------------|-----------|
//! | producer, between claim and commit | word of the lap before | nothing; the successor claims the same slot |
//! | producer, inside a batch commit | a prefix of the batch published | that prefix |
//! | producer, after commit | word of this lap | the message |
//! | consumer, between peek and release | `head` as before | the successor gets the message again |
//! | consumer, after release | `head` moved | nothing |

use crate::error::Error;
use crate::memory::{LINE, Region, round_up};
use crate::position::{Laps, Position};
use crate::sync::{AtomicU64, Ordering, Witness, point};
use core::alloc::Layout;
use core::marker::PhantomData;
use core::mem::offset_of;
use core::ptr::NonNull;
use crossbeam_utils::CachePadded;

/// The line before the slots.
#[repr(C)]
struct Header {
    /// First slot not released. Written by the consumer alone.
    head: CachePadded<AtomicU64>,
}

/// The start of each slot; the payload follows, aligned.
#[repr(C)]
struct Slot {
    /// Position last published here. Written by the producer alone.
    word: AtomicU64,
    witness: Witness,
}

const SLOTS: usize = match round_up(size_of::<Header>(), LINE) {
    Some(offset) => offset,
    None => unreachable!(),
};
const _: () = assert!(align_of::<Header>() <= LINE && align_of::<Slot>() <= 64);

/// Where everything lies: a function of the capacity and the payload's layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    laps: Laps,
    payload: Layout,
    payload_offset: usize,
    stride: usize,
    /// Bytes of all slots.
    span: usize,
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
        let span = stride.checked_mul(capacity).ok_or(too_large)?;
        let len = span
            .checked_add(SLOTS)
            .and_then(|len| round_up(len, LINE))
            .filter(|&len| len <= isize::MAX as usize - LINE)
            .ok_or(too_large)?;
        Ok(Geometry { laps, payload, payload_offset, stride, span, len })
    }

    /// Bytes that the ring takes, from a base aligned to [`LINE`].
    pub fn len(&self) -> usize {
        self.len
    }

    /// Never: a ring has a header.
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

/// A position, and the offset of its slot from the first: so that to go from
/// slot to slot takes no multiplication.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cursor {
    at: Position,
    offset: usize,
}

/// The ring, laid over borrowed memory. Copies are views of one ring; its ends
/// are [`Ring::producer`] and [`Ring::consumer`].
#[derive(Clone, Copy, Debug)]
pub struct Ring<'a> {
    header: NonNull<Header>,
    slots: NonNull<u8>,
    geometry: Geometry,
    memory: PhantomData<&'a [AtomicU64]>,
}

// SAFETY: all shared state is reached through atomics; payloads only through
// the two ends, which their contracts make exclusive.
unsafe impl Send for Ring<'_> {}
// SAFETY: as above.
unsafe impl Sync for Ring<'_> {}

#[cold]
fn bad_head() -> Error {
    Error::Corrupt { what: "head of the message ring", at: offset_of!(Header, head) as u64 }
}

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
        let header = Header { head: CachePadded::new(AtomicU64::new(first.0)) };
        // SAFETY: the header fits (checked above) and is aligned to LINE.
        unsafe { region.at::<Header>(0).write(header) };
        for index in 0..laps.capacity() {
            // Slots before the first position have been through this lap, the
            // others through the one before.
            let behind = u64::from(index >= laps.index(first));
            let last = laps.at(laps.lap(first).wrapping_sub(behind), index);
            let slot = Slot { word: AtomicU64::new(last.0), witness: Witness::default() };
            // SAFETY: index < capacity, so the slot lies inside `geometry.len`;
            // SLOTS and the stride are multiples of its alignment.
            unsafe { region.at::<Slot>(SLOTS + index * geometry.stride).write(slot) };
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
        Ring {
            // SAFETY: the header fits and is aligned, both checked above.
            header: unsafe { region.at(0) },
            // SAFETY: SLOTS <= geometry.len <= region.len().
            slots: unsafe { region.at(SLOTS) },
            geometry,
            memory: PhantomData,
        }
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
    /// `Corrupt` when `head` or a word that the search meets is one that no
    /// correct peer writes.
    ///
    /// # Safety
    ///
    /// One producer at a time: whatever an earlier one did must happen before
    /// this call (the hand-over of its lease, or its thread, orders that).
    pub unsafe fn producer(&self) -> Result<Producer<'a>, Error> {
        let head = self.plausible_head()?;
        // Without ordering: an earlier producer's stores happened before, and
        // nothing is read but words.
        let word = |at| self.slot(at).word.load(Ordering::Relaxed);
        let used = self.published_from(head, 0, |at| self.judge(at, word(at)))?;
        let laps = self.geometry.laps;
        let tail = self.cursor(laps.forward(head, used));
        Ok(Producer { ring: *self, tail, limit: laps.forward(head, laps.capacity()) })
    }

    /// The receiving end, at the first message not released.
    ///
    /// # Errors
    ///
    /// `Corrupt` when `head` is one that no correct peer writes.
    ///
    /// # Safety
    ///
    /// One consumer at a time: whatever an earlier one did must happen before
    /// this call.
    pub unsafe fn consumer(&self) -> Result<Consumer<'a>, Error> {
        let head = self.cursor(self.plausible_head()?);
        Ok(Consumer { ring: *self, head, seen: 0 })
    }

    /// Messages published and not released: a moment's truth, for onlookers.
    pub fn len(&self) -> usize {
        self.load_head().map_or(0, |head| self.count_from(head, 0))
    }

    /// Whether no message is published that is not released.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    #[inline(always)]
    fn header(&self) -> &'a Header {
        // SAFETY: `attach` checked bounds and alignment; initialised memory, as
        // its contract says, for as long as 'a; only atomics inside.
        unsafe { self.header.as_ref() }
    }

    /// A position, with its place worked out. Every position comes from `Laps`
    /// arithmetic on one that was `checked`, so its index is below the capacity
    /// and the offset below the span.
    #[inline(always)]
    fn cursor(&self, at: Position) -> Cursor {
        Cursor { at, offset: self.geometry.laps.index(at) * self.geometry.stride }
    }

    /// One slot on.
    #[inline(always)]
    fn after(&self, cursor: Cursor) -> Cursor {
        let offset = cursor.offset + self.geometry.stride;
        if offset < self.geometry.span {
            Cursor { at: Position(cursor.at.0 + 1), offset }
        } else {
            Cursor { at: self.geometry.laps.next(cursor.at), offset: 0 }
        }
    }

    /// `n <= capacity` slots on.
    #[inline(always)]
    fn forward(&self, cursor: Cursor, n: usize) -> Cursor {
        self.cursor(self.geometry.laps.forward(cursor.at, n))
    }

    #[inline(always)]
    fn slot_at(&self, cursor: Cursor) -> &'a Slot {
        debug_assert!(cursor.offset < self.geometry.span);
        // SAFETY: a cursor's offset is that of a slot below the capacity, for
        // which `attach` checked that the slots fit.
        unsafe { self.slots.add(cursor.offset).cast().as_ref() }
    }

    #[inline(always)]
    fn payload_at(&self, cursor: Cursor) -> NonNull<u8> {
        // SAFETY: as `slot_at`; the payload lies inside the slot's stride.
        unsafe { self.slots.add(cursor.offset + self.geometry.payload_offset) }
    }

    fn slot(&self, at: Position) -> &'a Slot {
        self.slot_at(self.cursor(at))
    }

    /// The shared `head`, if it is a position at all.
    #[inline(always)]
    fn load_head(&self) -> Result<Position, Error> {
        // Edge F: Acquire pairs with the Release in `go_to`. (The
        // consumer and onlookers do not need it, and do not call often.)
        let raw = self.header().head.load(Ordering::Acquire);
        self.geometry.laps.checked(raw).ok_or_else(bad_head)
    }

    /// The shared `head`, if the slot before it has been published: in the turn
    /// that ends there, or already in the next.
    fn plausible_head(&self) -> Result<Position, Error> {
        let laps = self.geometry.laps;
        let head = self.load_head()?;
        let before = laps.forward(Position(self.empty_word(head)), laps.capacity() - 1);
        let word = self.slot(before).word.load(Ordering::Relaxed);
        let plausible = word == before.0 || word == laps.forward(before, laps.capacity()).0;
        if plausible { Ok(head) } else { Err(bad_head()) }
    }

    /// What the word of a slot holds until the position `at` is published.
    #[inline(always)]
    fn empty_word(&self, at: Position) -> u64 {
        let laps = self.geometry.laps;
        laps.at(laps.lap(at).wrapping_sub(1), laps.index(at)).0
    }

    /// What a word that was read at `at` means.
    #[inline(always)]
    fn judge(&self, at: Position, word: u64) -> Result<bool, Error> {
        if word == at.0 {
            Ok(true)
        } else if word == self.empty_word(at) {
            Ok(false)
        } else {
            Err(self.bad_word(at))
        }
    }

    #[cold]
    fn bad_word(&self, at: Position) -> Error {
        let index = self.geometry.laps.index(at) as u64;
        Error::Corrupt { what: "word of a message ring's slot", at: index }
    }

    /// How many slots from `head` on are published, the first `known` being so:
    /// by doubling steps, then by halving them. O(log capacity) probes.
    fn published_from(
        &self,
        head: Position,
        known: usize,
        mut published: impl FnMut(Position) -> Result<bool, Error>,
    ) -> Result<usize, Error> {
        let laps = self.geometry.laps;
        // Slots before `low` are published; the one at `high` is not.
        let (mut low, mut high) = (known, laps.capacity());
        let mut step = 1;
        while low < high {
            let probe = low + (step - 1).min((high - low) / 2);
            if published(laps.forward(head, probe))? {
                low = probe + 1;
                step = (step * 2).min(laps.capacity());
            } else {
                high = probe;
            }
        }
        Ok(low)
    }

    /// As `published_from`, for those who only count: words that a moving ring
    /// (or a hostile peer) has put elsewhere are taken for what they look like.
    fn count_from(&self, head: Position, known: usize) -> usize {
        let laps = self.geometry.laps;
        let passed = |at: Position| {
            let word = Position(self.slot(at).word.load(Ordering::Relaxed));
            Ok(laps.laps_between(laps.lap(word), laps.lap(at)) >= 0)
        };
        self.published_from(head, known, passed).unwrap_or(known)
    }
}

/// The sending end.
#[derive(Debug)]
pub struct Producer<'a> {
    ring: Ring<'a>,
    /// The next slot to publish.
    tail: Cursor,
    /// The slots from `tail` up to here are known to be released: none when they
    /// are the same. May lag the truth; never leads it.
    limit: Position,
}

// SAFETY: an end is a view with private positions; any thread may hold it.
unsafe impl Send for Producer<'_> {}

impl<'a> Producer<'a> {
    /// The ring.
    pub fn ring(&self) -> &Ring<'a> {
        &self.ring
    }

    /// Where the next payload goes, or `None` when the ring is full. The same
    /// slot is given until it is committed; not to commit is to abandon it.
    ///
    /// # Errors
    ///
    /// `Corrupt` when `head` is where no correct consumer puts it.
    #[inline]
    pub fn try_claim(&mut self) -> Result<Option<NonNull<u8>>, Error> {
        if self.tail.at == self.limit {
            self.refresh()?;
        }
        Ok(self.at_hand())
    }

    /// What `try_claim` would give without a look at the consumer's line.
    #[inline(always)]
    pub(crate) fn at_hand(&self) -> Option<NonNull<u8>> {
        if self.tail.at == self.limit {
            return None;
        }
        self.ring.slot_at(self.tail).witness.write();
        Some(self.ring.payload_at(self.tail))
    }

    /// How many slots can be written now, up to `max`. Looks at the consumer's
    /// line only when fewer than that are known to be free.
    ///
    /// # Errors
    ///
    /// As [`Producer::try_claim`].
    #[inline]
    pub fn room(&mut self, max: usize) -> Result<usize, Error> {
        if self.free() < max && self.free() < self.ring.geometry.capacity() {
            self.refresh()?;
        }
        Ok(self.free().min(max))
    }

    /// Slots that are known to be released.
    fn free(&self) -> usize {
        self.ring.geometry.laps.slots_between(self.limit, self.tail.at) as usize
    }

    /// Slots ever published, from an arbitrary start.
    pub(crate) fn count(&self) -> u64 {
        self.ring.geometry.laps.count(self.tail.at)
    }

    /// Where the payload of the `nth` slot from here goes: of exactly the
    /// geometry's size and alignment, and the holder's alone until committed.
    ///
    /// # Panics
    ///
    /// Panics unless [`Producer::room`] has said more than `nth`.
    #[inline]
    pub fn payload(&self, nth: usize) -> NonNull<u8> {
        assert!(nth < self.free(), "no such slot was claimed");
        let at = self.ring.forward(self.tail, nth);
        self.ring.slot_at(at).witness.write();
        self.ring.payload_at(at)
    }

    /// Publishes the slot that was claimed. Wake the consumer afterwards.
    ///
    /// # Panics
    ///
    /// Panics when none was.
    #[inline(always)]
    pub fn commit(&mut self) {
        assert!(self.tail.at != self.limit, "no slot was claimed");
        self.publish();
    }

    /// Publishes the first `n` slots, in order; killed inside, some of the
    /// first of them. Wake the consumer afterwards.
    ///
    /// # Panics
    ///
    /// Panics unless [`Producer::room`] has said `n` or more.
    #[inline]
    pub fn commit_many(&mut self, n: usize) {
        assert!(n <= self.free(), "fewer slots were claimed");
        for _ in 0..n {
            self.publish();
        }
    }

    /// Publishes the first `n` slots one by one, each as soon as `fill` has
    /// written its payload. Wake the consumer afterwards.
    ///
    /// # Panics
    ///
    /// As [`Producer::commit_many`].
    #[inline(always)]
    pub(crate) fn publish_each(&mut self, n: usize, mut fill: impl FnMut(usize, NonNull<u8>)) {
        assert!(n <= self.free(), "fewer slots were claimed");
        for nth in 0..n {
            self.ring.slot_at(self.tail).witness.write();
            fill(nth, self.ring.payload_at(self.tail));
            self.publish();
        }
    }

    /// Publishes one slot of the free ones.
    #[inline(always)]
    fn publish(&mut self) {
        // Edge P: Release pairs with the Acquire in `is_published`. On every
        // store, so that what is published is always a prefix.
        self.ring.slot_at(self.tail).word.store(self.tail.at.0, Ordering::Release);
        point("spsc.published");
        self.tail = self.ring.after(self.tail);
    }

    /// Whether [`Producer::try_claim`] would find a slot (or an error): one
    /// load, for loops that wait.
    #[inline]
    pub fn is_ready(&self) -> bool {
        // Full, `head` is a whole turn behind `tail`.
        self.tail.at != self.limit
            || self.ring.header().head.load(Ordering::Relaxed) != self.ring.empty_word(self.tail.at)
    }

    /// Looks at the consumer's line: how much is free now?
    #[cold]
    fn refresh(&mut self) -> Result<(), Error> {
        let laps = self.ring.geometry.laps;
        let head = self.ring.load_head()?;
        let used = laps.slots_between(self.tail.at, head);
        // Ahead of the tail, more than a turn behind it, or behind itself: no
        // consumer does that.
        let free = usize::try_from(used).ok().and_then(|used| laps.capacity().checked_sub(used));
        free.filter(|&free| free >= self.free()).ok_or_else(bad_head)?;
        self.limit = laps.forward(head, laps.capacity());
        Ok(())
    }
}

/// The receiving end.
#[derive(Debug)]
pub struct Consumer<'a> {
    ring: Ring<'a>,
    /// First slot not released. The truth: the shared word is its copy.
    head: Cursor,
    /// Slots from `head` on that are known to be published. May lag the truth;
    /// never leads it.
    seen: usize,
}

// SAFETY: as `Producer`.
unsafe impl Send for Consumer<'_> {}

impl<'a> Consumer<'a> {
    /// The ring.
    pub fn ring(&self) -> &Ring<'a> {
        &self.ring
    }

    /// The next message, or `None` when there is none. The same one is given
    /// until it is released.
    ///
    /// # Errors
    ///
    /// `Corrupt` when the slot's word is one that no correct producer writes.
    #[inline]
    pub fn peek(&mut self) -> Result<Option<NonNull<u8>>, Error> {
        if self.available(1)? == 0 { Ok(None) } else { Ok(self.at_hand()) }
    }

    /// What `peek` would give, or `None` when that takes a closer look. Go on
    /// from there by `pass`.
    #[inline(always)]
    pub(crate) fn at_hand(&self) -> Option<NonNull<u8>> {
        if self.seen == 0 && !self.is_published(self.head) {
            return None;
        }
        self.ring.slot_at(self.head).witness.read();
        Some(self.ring.payload_at(self.head))
    }

    #[inline(always)]
    fn is_published(&self, slot: Cursor) -> bool {
        // Edge P: Acquire pairs with the Release in `publish`.
        self.ring.slot_at(slot).word.load(Ordering::Acquire) == slot.at.0
    }

    /// How many messages can be read now, up to `max`.
    ///
    /// # Errors
    ///
    /// As [`Consumer::peek`].
    #[inline]
    pub fn available(&mut self, max: usize) -> Result<usize, Error> {
        let max = max.min(self.ring.geometry.capacity());
        if self.seen < max {
            let mut next = self.ring.forward(self.head, self.seen);
            while self.seen < max && self.is_published(next) {
                self.seen += 1;
                next = self.ring.after(next);
            }
            // What is whole comes first.
            if self.seen == 0 {
                self.judge_head()?;
            }
        }
        Ok(self.seen.min(max))
    }

    /// There is no message at `head`: is that what the word says?
    fn judge_head(&mut self) -> Result<(), Error> {
        // Edge P: as in `is_published`, for a message that has just come.
        let word = self.ring.slot_at(self.head).word.load(Ordering::Acquire);
        self.seen = usize::from(self.ring.judge(self.head.at, word)?);
        Ok(())
    }

    /// Where the payload of the `nth` message from here is: nobody writes there
    /// until it is released.
    ///
    /// # Panics
    ///
    /// Panics unless [`Consumer::available`] has said more than `nth`.
    #[inline]
    pub fn payload(&self, nth: usize) -> NonNull<u8> {
        assert!(nth < self.seen, "no such message was seen");
        let at = self.ring.forward(self.head, nth);
        self.ring.slot_at(at).witness.read();
        self.ring.payload_at(at)
    }

    /// Lends the payloads of the first `n` messages to `read`, in order.
    ///
    /// # Panics
    ///
    /// Panics unless [`Consumer::available`] has said `n` or more.
    #[inline(always)]
    pub(crate) fn read_each(&self, n: usize, mut read: impl FnMut(usize, NonNull<u8>)) {
        assert!(n <= self.seen, "fewer messages were seen");
        let mut next = self.head;
        for nth in 0..n {
            self.ring.slot_at(next).witness.read();
            read(nth, self.ring.payload_at(next));
            next = self.ring.after(next);
        }
    }

    /// Gives the slot of the message back. Wake the producer afterwards.
    ///
    /// # Panics
    ///
    /// Panics when no message was seen.
    #[inline(always)]
    pub fn release(&mut self) {
        assert!(self.seen > 0, "no message was seen");
        self.pass();
    }

    /// As `release`, of a message that `at_hand` gave.
    #[inline(always)]
    pub(crate) fn pass(&mut self) {
        if self.seen > 0 {
            self.seen -= 1;
        }
        self.go_to(self.ring.after(self.head));
    }

    /// Gives the slots of the next `n` messages back, all at once. Wake the
    /// producer afterwards.
    ///
    /// # Panics
    ///
    /// Panics unless [`Consumer::available`] has said `n` or more.
    #[inline]
    pub fn release_many(&mut self, n: usize) {
        assert!(n <= self.seen, "fewer messages were seen");
        self.seen -= n;
        self.go_to(self.ring.forward(self.head, n));
    }

    #[inline(always)]
    fn go_to(&mut self, head: Cursor) {
        self.head = head;
        // Edge F: Release pairs with the Acquire in `load_head`.
        self.ring.header().head.store(head.at.0, Ordering::Release);
        point("spsc.released");
    }

    /// Whether [`Consumer::peek`] would find a message (or an error): one load,
    /// for loops that wait.
    #[inline]
    pub fn is_ready(&self) -> bool {
        self.seen > 0
            || self.ring.slot_at(self.head).word.load(Ordering::Relaxed)
                != self.ring.empty_word(self.head.at)
    }

    /// Slots ever released, from an arbitrary start.
    pub(crate) fn count(&self) -> u64 {
        self.ring.geometry.laps.count(self.head.at)
    }

    /// Messages published and not released.
    pub fn len(&self) -> usize {
        self.ring.count_from(self.head.at, self.seen)
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
