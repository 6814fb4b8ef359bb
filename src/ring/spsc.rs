//! The message ring: one producer, one consumer, slots of one size.
//!
//! Each slot carries a word beside its payload, so that the cache line which
//! brings the news of a message brings the message too. The word counts how often
//! the slot was published and released:
//!
//! ```text
//! ┌──────────────┬──────────────┬─────┬──────────────┐
//! │ word payload │ word payload │ ... │ word payload │
//! └──────────────┴──────────────┴─────┴──────────────┘
//!
//! 2 * lap: free ─publish→ 2 * lap + 1: full ─release→ 2 * (lap + 1): free
//! ```
//!
//! Nothing else is shared, as in FastForward (Giacomoni, Moseley, Vachharajani,
//! PPoPP 2008): the producer has its place `tail` and the consumer its `head` to
//! itself, each a slot and a lap, and each looks at the very slot that it wants (a
//! batch also at the last one of a cache line, since the others are then like it).
//! *Invariant*:
//!
//! ```text
//! head <= tail <= head + capacity
//! full from head to tail, free from tail to head + capacity
//! ```
//!
//! because both go on in order, the producer alone makes slots full and the
//! consumer alone makes them free. So the slots before `head` were released once
//! more than those from `head` on, whatever the producer does; and the slots
//! before `tail` were published once more than those from `tail` on, whatever
//! the consumer does. Whoever takes over finds its place by a binary search for
//! that step.
//!
//! *That the consumer writes to the slot* is what makes streams fast. A line that
//! the consumer had only read stays with both, and the producer's next store
//! must take it away first; a line that the consumer has written comes over
//! whole. So the pipes write to the further lines of a message, too, that they
//! have copied out (`favour.rs` says when).
//!
//! | edge | release | acquire | makes visible |
//! |------|---------|---------|---------------|
//! | P    | `Next::publish`: full | `Next::is_full` | payload to the consumer |
//! | F    | `Next::release`: free | `Next::is_free` | that the slot has been read |
//!
//! Each end goes on in order, so either makes visible, too, what its side did with all
//! slots before.
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
//! | producer, between claim and commit | free | nothing; the successor claims the same slot |
//! | producer, after commit | full | the message |
//! | consumer, between peek and release | full | the successor gets the message again |
//! | consumer, after release | free | nothing |

use crate::error::Error;
use crate::memory::{LINE, Region, is_amd, prefetch_to_write, prefetch_two_to_write, round_up};
use crate::position::MAX_CAPACITY;
use crate::sync::{AtomicU64, Ordering, Witness, point};
use core::alloc::Layout;
use core::marker::PhantomData;
use core::mem::MaybeUninit;
use core::ptr::NonNull;

/// The start of each slot; the payload follows, aligned.
#[repr(C)]
struct Slot {
    /// Twice the slot's lap, and one more while it is full.
    word: AtomicU64,
    witness: Witness,
}

const _: () = assert!(align_of::<Slot>() <= 64);

/// How a payload lies in its slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Spot {
    /// Of the payload, from the slot's start.
    pub(crate) offset: usize,
    /// From slot to slot.
    stride: usize,
}

impl Spot {
    /// How many slots share a line.
    const fn in_line(self) -> usize {
        if cfg!(loom) {
            return 2;
        }
        if self.stride < 64 { 64 / self.stride } else { 1 }
    }

    /// The same for slots of this type.
    const fn in_line_of<T>() -> usize {
        match Spot::of(Layout::new::<T>()) {
            Some(spot) => spot.in_line(),
            None => 1,
        }
    }

    /// From slot to slot, of slots of this type. (Too large a `T` has no ring.)
    const fn stride_of<T>() -> usize {
        match Spot::of(Layout::new::<T>()) {
            Some(spot) => spot.stride,
            None => 1,
        }
    }

    /// `None` when the size overflows.
    pub(crate) const fn of(payload: Layout) -> Option<Spot> {
        let mut offset = size_of::<Slot>().next_multiple_of(payload.align());
        let Some(used) = offset.checked_add(payload.size()) else { return None };
        if used <= 64 {
            let least = align_of::<Slot>();
            let stride = used.next_power_of_two();
            return Some(Spot { offset, stride: if stride < least { least } else { stride } });
        }
        let Some(stride) = round_up(used, 64) else { return None };
        // As well aligned as the room allows: wide copies that straddle lines are slow.
        // But a large message may be touched in place alone, and then one line is better
        // than two: it begins on the word's.
        let mut better = if payload.size() < LARGE { 64 } else { 32 };
        while better > offset {
            if better + payload.size() <= stride {
                offset = better;
            }
            better /= 2;
        }
        Some(Spot { offset, stride })
    }
}

/// Where everything lies: a function of the capacity and the payload's layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    capacity: usize,
    payload: Layout,
    payload_offset: usize,
    stride: usize,
    /// Bytes of all slots.
    span: usize,
    /// Bytes from a slot to what is asked for ahead of it: none in a small ring, whose
    /// ends would but take each other's lines.
    ahead: usize,
    /// The same where messages are lent in place.
    first_ahead: usize,
    /// Whether the producer, too, asks for lines that slots share, in batches.
    both_ask: bool,
    len: usize,
}

impl Geometry {
    /// The geometry of `capacity` slots (1 to 2³¹, exactly as asked for) that
    /// each hold one `payload` (alignment at most 64).
    ///
    /// A slot of up to 64 bytes is padded to a power of two: it never straddles
    /// two cache lines, so that a message costs one transfer, and small slots
    /// still share a line when a batch goes through. A larger one is padded to
    /// a multiple of 64, so that its word shares a line with no other slot, and
    /// its payload is as well aligned as the room allows, unless it is large.
    ///
    /// # Errors
    ///
    /// Says what is wrong with the capacity or the payload.
    pub fn new(capacity: usize, payload: Layout) -> Result<Geometry, &'static str> {
        if !(1..=MAX_CAPACITY).contains(&capacity) {
            return Err("capacity must be from 1 to 2^31 slots");
        }
        if payload.align() > 64 {
            return Err("alignment above 64 bytes is not supported");
        }
        let too_large = "the ring's size overflows";
        let Spot { offset, stride } = Spot::of(payload).ok_or(too_large)?;
        let span = stride.checked_mul(capacity).ok_or(too_large)?;
        let fits = |ahead: &usize| span / 4 >= *ahead;
        let (near, far) = match stride {
            ..64 => (AHEAD * 64, FAR * 64),
            64..=128 => (AHEAD * stride, AHEAD * stride),
            _ => (0, 0),
        };
        // The room that is left for it is the same on all processors.
        let room = [far, near, 0].into_iter().find(fits).unwrap_or(0);
        let far = !is_amd();
        let ahead = if far { room } else { room.min(near) };
        let first_ahead = if far && capacity / 4 >= FAR_FIRST { FAR_FIRST } else { AHEAD };
        let first_ahead = first_ahead.saturating_mul(stride.max(64));
        let len = span
            .checked_add(room)
            .and_then(|len| round_up(len, LINE))
            .filter(|&len| len <= isize::MAX as usize - LINE)
            .ok_or(too_large)?;
        Ok(Geometry {
            capacity,
            payload,
            payload_offset: offset,
            stride,
            span,
            ahead,
            first_ahead,
            both_ask: far,
            len,
        })
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
        self.capacity
    }

    /// Size and alignment of one payload.
    pub fn payload(&self) -> Layout {
        self.payload
    }

    fn fits(&self, region: Region<'_>) -> bool {
        Layout::from_size_align(self.len, LINE).is_ok_and(|layout| region.fits(layout))
    }
}

/// Bytes from which on a payload begins on the line of its word.
const LARGE: usize = 4096;

/// Slots in a line at most: they have a word at least.
const MOST_IN_LINE: usize = if cfg!(loom) { 2 } else { 64 / size_of::<Slot>() };

/// How many slots ahead lines are asked for; of slots that share a line, how many
/// lines. (Measured on AMD's processors: 5 and 12 are no better.)
const AHEAD: usize = 8;

/// The same on other processors than AMD's, for slots that share a line. (Measured on
/// Intel's: 16 and 24 are nearly as good, 8 and 32 are not.)
const FAR: usize = 20;

/// The same there for messages in place, of which one line is used. (8: 32 M/s, 16: 40,
/// 20: 49, 24: 57, 32: 60.)
const FAR_FIRST: usize = 32;

/// The place of an end: a slot, and a lap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    /// The word of the slot when it is free for this lap.
    free: u64,
    /// The slot. Alone changes from slot to slot: to keep one's place takes one store
    /// for a message.
    slot: NonNull<u8>,
}

// SAFETY: an address and a number; what is done at the address is up to the end.
unsafe impl Send for Place {}
// SAFETY: as above.
unsafe impl Sync for Place {}

/// The slot that an end wants next, in hand: what was loaded to look at it needs
/// not be loaded again, as it had to be from the end itself after an atomic access.
#[derive(Clone, Copy)]
pub(crate) struct Next<'a> {
    place: Place,
    memory: PhantomData<&'a Slot>,
}

impl<'a> Next<'a> {
    #[inline(always)]
    fn slot(&self) -> &'a Slot {
        // SAFETY: as `Ring::slot`, which it was made as.
        unsafe { self.place.slot.cast().as_ref() }
    }

    /// Whether the producer may fill it.
    #[inline(always)]
    pub(crate) fn is_free(&self) -> bool {
        // Edge F: Acquire pairs with the Release in `release`.
        let free = self.slot().word.load(Ordering::Acquire) == self.place.free;
        if free {
            self.slot().witness.write();
        }
        free
    }

    /// Whether the consumer may read it.
    #[inline(always)]
    pub(crate) fn is_full(&self) -> bool {
        // Edge P: Acquire pairs with the Release in `publish`.
        let full = self.slot().word.load(Ordering::Acquire) == self.place.free | 1;
        if full {
            self.slot().witness.read();
        }
        full
    }

    #[inline(always)]
    fn publish(&self) {
        // Edge P: Release pairs with the Acquire in `is_full`.
        self.slot().word.store(self.place.free | 1, Ordering::Release);
        point("spsc.published");
    }

    #[inline(always)]
    fn release(&self) {
        // Edge F: Release pairs with the Acquire in `is_free`.
        self.slot().word.store(self.place.free.wrapping_add(2), Ordering::Release);
        point("spsc.released");
    }

    /// The payload, which is of this type.
    #[inline(always)]
    pub(crate) fn payload<T>(&self) -> NonNull<T> {
        // Too large a `T` has no geometry, and so no ring.
        let spot = const { Spot::of(Layout::new::<T>()) };
        let offset = spot.map_or(0, |spot| spot.offset);
        // SAFETY: as `Ring::payload`.
        unsafe { self.place.slot.add(offset).cast() }
    }
}

/// Slots that share a line.
struct Line<'a> {
    last: Next<'a>,
    slots: usize,
    stride: usize,
}

/// The ring, laid over borrowed memory. Copies are views of one ring; its ends
/// are [`Ring::producer`] and [`Ring::consumer`].
#[derive(Clone, Copy, Debug)]
pub struct Ring<'a> {
    slots: NonNull<u8>,
    /// Of the slots.
    end: NonNull<u8>,
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
        let capacity = geometry.capacity as u64;
        for index in 0..geometry.capacity {
            // Slots before the first position are free for the next lap.
            let passed = u64::from((index as u64) < start % capacity);
            let word = AtomicU64::new((start / capacity).wrapping_add(passed).wrapping_mul(2));
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
        let slots = region.base();
        // SAFETY: the span is at most the length, which the region has.
        let end = unsafe { slots.add(geometry.span) };
        Ring { slots, end, geometry, memory: PhantomData }
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
        Ok(Producer { ring: *self, tail: self.edge(published, false)? })
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
        Ok(Consumer { ring: *self, head: self.edge(released, false)? })
    }

    /// Messages published and not released: a moment's truth, for onlookers.
    pub fn len(&self) -> usize {
        self.edge(released, true).map_or(0, |head| self.len_from(head))
    }

    /// Whether no message is published that is not released.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    #[inline(always)]
    fn slot(&self, place: Place) -> &'a Slot {
        debug_assert!(self.slots <= place.slot && place.slot < self.end);
        // SAFETY: every place comes from `at_index`, `forward`, `advance` or `on`, so it
        // is that of a slot below the capacity, and `attach` checked that so many fit;
        // initialised memory, as its contract says, for as long as 'a; only
        // atomics inside.
        unsafe { place.slot.cast().as_ref() }
    }

    #[inline(always)]
    fn payload(&self, place: Place) -> NonNull<u8> {
        // SAFETY: as `slot`; the payload lies inside the slot's stride.
        unsafe { place.slot.add(self.geometry.payload_offset) }
    }

    /// Asks for the lines of a slot some way ahead of this one, of such payloads. The
    /// other end wrote them last, and this one will write to them: so they come over
    /// at once, and not to be read first.
    #[inline(always)]
    pub(crate) fn prefetch<T>(&self, next: &Next<'a>) {
        let stride = const { Spot::stride_of::<T>() };
        if stride <= 2 * 64 {
            // The last slots' are in the room that is left for it.
            let slot = next.place.slot.as_ptr().wrapping_add(self.geometry.ahead);
            if stride > 64 {
                prefetch_two_to_write(slot);
            } else {
                prefetch_to_write(slot);
            }
        }
    }

    /// The same for a message in place, of which the first line is what is sure to be
    /// used.
    #[inline(always)]
    pub(crate) fn prefetch_first(&self, next: &Next<'a>) {
        let ahead = self.geometry.first_ahead;
        if ahead < self.left(next.place) {
            prefetch_to_write(next.place.slot.as_ptr().wrapping_add(ahead));
        }
    }

    #[inline(always)]
    fn next(&self, place: Place) -> Next<'a> {
        debug_assert!(self.slots <= place.slot && place.slot < self.end);
        Next { place, memory: PhantomData }
    }

    /// The line of slots that begins here, if one does and all of them are wanted.
    #[inline(always)]
    fn line<T>(&self, first: &Next<'a>, wanted: usize) -> Option<Line<'a>> {
        let spot = const { Spot::of(Layout::new::<T>()) }?;
        let slots = spot.in_line();
        // By address: a ring begins with a line.
        let len = slots * spot.stride;
        debug_assert!(slots == 1 || LINE.is_multiple_of(len));
        let whole = slots > 1
            && first.place.slot.addr().get().is_multiple_of(len)
            && wanted >= slots
            && len <= self.left(first.place);
        whole.then(|| Line {
            last: self.on(first, slots - 1, spot.stride),
            slots,
            stride: spot.stride,
        })
    }

    /// Makes, writes and publishes the messages of a free line, unless it no longer
    /// `goes_on`.
    #[inline]
    fn fill_line<T: Copy>(
        &self,
        first: &Next<'a>,
        line: &Line<'a>,
        mut make: impl FnMut(usize) -> T,
        goes_on: &impl Fn() -> bool,
    ) -> bool {
        // All of them first, so as to ask once a line. (On the receiver's side to ask for
        // each one costs a tenth, on AMD; here, on Intel, nothing that can be told from noise.)
        let mut made = [const { MaybeUninit::uninit() }; MOST_IN_LINE];
        let made = &mut made[..line.slots];
        for (nth, made) in made.iter_mut().enumerate() {
            made.write(make(nth));
        }
        if !goes_on() {
            return false;
        }
        for (nth, made) in made.iter().enumerate() {
            let next = self.on(first, nth, line.stride);
            next.slot().witness.write();
            // SAFETY: written above; a free slot is the producer's alone, of a `T`'s layout.
            unsafe { next.payload::<T>().write(made.assume_init_read()) };
            point("spsc.line-written");
            next.publish();
        }
        true
    }

    /// That messages of this type are what the ring is for, as it must be wherever the
    /// places in it are computed from the type.
    #[inline(always)]
    fn expect<T>(&self) {
        debug_assert_eq!(
            Spot::of(Layout::new::<T>()),
            Some(Spot { offset: self.geometry.payload_offset, stride: self.geometry.stride })
        );
    }

    /// The slot so many further in the same lap.
    #[inline(always)]
    fn on(&self, next: &Next<'a>, n: usize, stride: usize) -> Next<'a> {
        // SAFETY: callers have found so many slots left in the lap.
        let slot = unsafe { next.place.slot.add(n * stride) };
        self.next(Place { slot, ..next.place })
    }

    /// The word of a slot, for those who search or wait.
    #[inline]
    fn word(&self, place: Place) -> u64 {
        self.slot(place).word.load(Ordering::Relaxed)
    }

    /// The place at this index, which is below the capacity.
    fn at_index(&self, lap: u64, index: usize) -> Place {
        // SAFETY: below the capacity, so inside.
        let slot = unsafe { self.slots.add(index * self.geometry.stride) };
        Place { free: lap.wrapping_mul(2), slot }
    }

    fn index(&self, place: Place) -> usize {
        (place.slot.addr().get() - self.slots.addr().get()) / self.geometry.stride
    }

    /// Bytes from here to the end of the slots.
    #[inline(always)]
    fn left(&self, place: Place) -> usize {
        self.end.addr().get() - place.slot.addr().get()
    }

    /// The place `n <= capacity` slots on.
    fn forward(&self, place: Place, n: usize) -> Place {
        debug_assert!(n <= self.geometry.capacity);
        let (len, left) = (n * self.geometry.stride, self.left(place));
        if len < left {
            // SAFETY: before the end.
            Place { slot: unsafe { place.slot.add(len) }, ..place }
        } else {
            // SAFETY: at most a lap on, so not behind where it started.
            let slot = unsafe { self.slots.add(len - left) };
            Place { free: place.free.wrapping_add(2), slot }
        }
    }

    /// One slot of this stride on from `here`, which is where this place is.
    #[inline(always)]
    fn advance(&self, place: &mut Place, here: Place, stride: usize) {
        debug_assert_eq!(stride, self.geometry.stride);
        // SAFETY: the stride is the ring's, by whose type of messages it was opened: so this
        // is the end of the slot, which is the next one or the end of all.
        let next = unsafe { here.slot.add(stride) };
        if next != self.end {
            place.slot = next;
        } else {
            *place = Place { free: here.free.wrapping_add(2), slot: self.slots };
        }
    }

    /// Slots passed up to here, from an arbitrary start.
    fn count(&self, place: Place) -> u64 {
        let laps = (place.free / 2).wrapping_mul(self.geometry.capacity as u64);
        laps.wrapping_add(self.index(place) as u64)
    }

    #[cold]
    fn bad_word(&self, place: Place) -> Error {
        let at = self.index(place) as u64;
        Error::Corrupt { what: "word of a message ring's slot", at }
    }

    /// The first place that is not `done` (released, or published).
    ///
    /// Exact for an end that looks for its own place. Onlookers are lenient: in a
    /// ring that moves they see where it was a moment ago; in one that goes round
    /// all the time, anything.
    fn edge(&self, done: fn(u64) -> u64, lenient: bool) -> Result<Place, Error> {
        let done = |index| done(self.word(self.at_index(0, index)));
        let mut edge = self.at_index(0, 0);
        // Whether the edge came past the first slot meanwhile.
        for _ in 0..4 {
            let first = done(0);
            let index = self.first_not(|index| {
                // Counts of laps are 63 bits wide.
                match (done(index).wrapping_sub(first) << 1) as i64 / 2 {
                    _ if index == 0 => Ok(true),
                    0 => Ok(true),
                    -1 => Ok(false),
                    more if lenient => Ok(more > 0),
                    _ => Err(self.bad_word(self.at_index(0, index))),
                }
            })?;
            edge = self.forward(self.at_index(first.wrapping_sub(1), 0), index);
            if done(0) == first {
                break;
            }
        }
        Ok(edge)
    }

    /// The first index for which this is not so, if it is so for all before it
    /// and for none after it; or the capacity. By doubling steps, then by
    /// halving them: O(log capacity) probes.
    fn first_not(&self, mut so: impl FnMut(usize) -> Result<bool, Error>) -> Result<usize, Error> {
        let capacity = self.geometry.capacity;
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
    fn len_from(&self, head: Place) -> usize {
        let tail = self.edge(published, true).unwrap_or(head);
        let capacity = self.geometry.capacity as i64;
        let laps = tail.free.wrapping_sub(head.free) as i64 / 2;
        let slots = self.index(tail) as i64 - self.index(head) as i64;
        laps.saturating_mul(capacity).saturating_add(slots).clamp(0, capacity) as usize
    }
}

/// How often a slot with this word was released. Publishing changes nothing.
fn released(word: u64) -> u64 {
    word / 2
}

/// How often it was published. Releasing changes nothing.
fn published(word: u64) -> u64 {
    word.wrapping_add(1) / 2
}

/// The sending end.
#[derive(Debug)]
pub struct Producer<'a> {
    ring: Ring<'a>,
    /// The next slot to publish.
    tail: Place,
}

/// An end's place while it does many things in a row: given back in the end, also by
/// one that unwinds.
struct InHand<'p> {
    place: Place,
    of: &'p mut Place,
}

impl Drop for InHand<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        *self.of = self.place;
    }
}

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
        let next = self.producer.next();
        self.producer.publish_by(next, self.producer.ring.geometry.stride);
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
        let next = self.next();
        if next.is_free() {
            Ok(Some(Claim { payload: self.ring.payload(self.tail), producer: self }))
        } else {
            self.judge().map(|()| None)
        }
    }

    /// The slot for the next message: if it `is_free`, to be filled and then
    /// published.
    #[inline(always)]
    pub(crate) fn next(&self) -> Next<'a> {
        self.ring.next(self.tail)
    }

    /// There was no slot at hand: is that, or what is there now, legal?
    fn judge(&self) -> Result<(), Error> {
        let word = self.ring.word(self.tail);
        let legal = word == self.tail.free || word == self.tail.free.wrapping_sub(1);
        if legal { Ok(()) } else { Err(self.ring.bad_word(self.tail)) }
    }

    /// Publishes the next slot, which was found free.
    #[inline(always)]
    pub(crate) fn publish<T>(&mut self, next: Next<'a>) {
        self.ring.expect::<T>();
        self.publish_by(next, const { Spot::stride_of::<T>() });
    }

    #[inline(always)]
    fn publish_by(&mut self, next: Next<'a>, stride: usize) {
        next.publish();
        self.ring.advance(&mut self.tail, next.place, stride);
    }

    /// Publishes up to `n` messages as `make` makes them, line by line; how many, for want
    /// of free slots or until it no longer `goes_on`, which is asked before what was made
    /// is written. After each line they are `announced`. When `make` unwinds, what it made
    /// for the lines before is published.
    ///
    /// # Panics
    ///
    /// Panics when a `T` is not what the ring is for.
    #[inline(always)]
    pub(crate) fn publish_each<T: Copy>(
        &mut self,
        n: usize,
        mut make: impl FnMut(usize) -> T,
        goes_on: impl Fn() -> bool,
        announced: impl Fn(),
    ) -> usize {
        assert_eq!(self.ring.geometry.payload, Layout::new::<T>());
        let ring = self.ring;
        // In hand, not in memory: for short messages that would be a good part of the cost.
        let mut tail = InHand { place: self.tail, of: &mut self.tail };
        let (mut count, both_ask) = (0, ring.geometry.both_ask);
        while count < n {
            let next = ring.next(tail.place);
            if const { Spot::in_line_of::<T>() > 1 }
                && let Some(line) = ring.line::<T>(&next, n - count)
                && line.last.is_free()
            {
                // The consumer goes on in order: those before it are free, too. (To
                // look at each word would cost a fifth of the speed. Where somebody
                // has scribbled on one, it is whole again.)
                if both_ask {
                    ring.prefetch::<T>(&next);
                }
                if !ring.fill_line(&next, &line, |nth| make(count + nth), &goes_on) {
                    break;
                }
                ring.advance(&mut tail.place, line.last.place, line.stride);
                count += line.slots;
            } else if next.is_free() {
                // Lines that several slots share are the consumer's alone to ask for on AMD's
                // processors; measured.
                if const { Spot::in_line_of::<T>() == 1 } {
                    ring.prefetch::<T>(&next);
                }
                let message = make(count);
                if !goes_on() {
                    break;
                }
                // SAFETY: a free slot is the producer's alone, of a `T`'s layout.
                unsafe { next.payload::<T>().write(message) };
                point("spsc.written");
                next.publish();
                ring.advance(&mut tail.place, next.place, const { Spot::stride_of::<T>() });
                count += 1;
            } else {
                break;
            }
            announced();
        }
        count
    }

    /// Whether [`Producer::try_claim`] would find a slot (or an error): one
    /// load, for loops that wait.
    #[inline]
    pub fn is_ready(&self) -> bool {
        self.ring.word(self.tail) != self.tail.free.wrapping_sub(1)
    }

    /// Whether so many slots are free (from 1 to the capacity).
    pub(crate) fn has_room(&self, n: usize) -> bool {
        let last = self.ring.forward(self.tail, n - 1);
        self.ring.word(last) == last.free
    }

    /// Where the next slot is.
    #[inline]
    pub(crate) fn place(&self) -> usize {
        self.tail.slot.addr().get()
    }

    /// Slots ever published, from an arbitrary start.
    pub(crate) fn count(&self) -> u64 {
        self.ring.count(self.tail)
    }
}

/// The receiving end.
#[derive(Debug)]
pub struct Consumer<'a> {
    ring: Ring<'a>,
    /// The first slot not released.
    head: Place,
}

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
        let next = self.consumer.next();
        self.consumer.pass_by(next, self.consumer.ring.geometry.stride);
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
        let next = self.next();
        if next.is_full() {
            Ok(Some(Message { payload: self.ring.payload(self.head), consumer: self }))
        } else {
            self.judge().map(|()| None)
        }
    }

    /// The slot of the next message: if it `is_full`, to be read and then passed.
    #[inline(always)]
    pub(crate) fn next(&self) -> Next<'a> {
        self.ring.next(self.head)
    }

    /// There was no message at hand: is that, or what is there now, legal?
    fn judge(&self) -> Result<(), Error> {
        let legal = self.ring.word(self.head) | 1 == self.head.free | 1;
        if legal { Ok(()) } else { Err(self.ring.bad_word(self.head)) }
    }

    /// Gives back the slot of the next message, which was found full.
    #[inline(always)]
    pub(crate) fn pass<T>(&mut self, next: Next<'a>) {
        self.ring.expect::<T>();
        self.pass_by(next, const { Spot::stride_of::<T>() });
    }

    #[inline(always)]
    fn pass_by(&mut self, next: Next<'a>, stride: usize) {
        next.release();
        self.ring.advance(&mut self.head, next.place, stride);
    }

    /// Lends the payloads of up to `n` messages (at most the capacity) to `read`, while
    /// `goes_on`, which is asked after each line; how many it saw. They stay until
    /// [`Consumer::release_each`]: who is killed while it reads keeps none of them from
    /// its successor, nor does one that unwinds from there.
    #[inline(always)]
    pub(crate) fn read_each<T>(
        &self,
        n: usize,
        mut read: impl FnMut(usize, NonNull<T>),
        goes_on: impl Fn() -> bool,
    ) -> usize {
        self.ring.expect::<T>();
        // As in `publish_each`.
        let mut consumer = Consumer { ring: self.ring, head: self.head };
        let mut count = 0;
        while count < n {
            let next = consumer.next();
            if let Some(line) = self.ring.line::<T>(&next, n - count)
                && line.last.is_full()
            {
                // The producer goes on in order: those before it are full, too.
                self.ring.prefetch::<T>(&next);
                for nth in 0..line.slots {
                    let next = self.ring.on(&next, nth, line.stride);
                    next.slot().witness.read();
                    read(count + nth, next.payload());
                }
                self.ring.advance(&mut consumer.head, line.last.place, line.stride);
                count += line.slots;
                if !goes_on() {
                    break;
                }
                continue;
            }
            if !next.is_full() {
                break;
            }
            self.ring.prefetch::<T>(&next);
            read(count, next.payload());
            self.ring.advance(&mut consumer.head, next.place, const { Spot::stride_of::<T>() });
            count += 1;
            if !goes_on() {
                break;
            }
        }
        count
    }

    /// Gives back the slots of so many messages, which [`Consumer::read_each`] found.
    #[inline(always)]
    pub(crate) fn release_each<T>(&mut self, n: usize) {
        self.ring.expect::<T>();
        let stride = const { Spot::stride_of::<T>() };
        let mut rest = n;
        while rest > 0 {
            let next = self.next();
            let to_end = self.ring.left(next.place) / stride;
            let slots = rest.min(to_end);
            for nth in 0..slots {
                self.ring.on(&next, nth, stride).release();
            }
            self.head = self.ring.forward(self.head, slots);
            rest -= slots;
        }
    }

    /// Whether [`Consumer::peek`] would find a message (or an error): one load,
    /// for loops that wait.
    #[inline]
    pub fn is_ready(&self) -> bool {
        self.ring.word(self.head) != self.head.free
    }

    /// Whether so many messages are there (from 1 to the capacity).
    pub(crate) fn has_stock(&self, n: usize) -> bool {
        let last = self.ring.forward(self.head, n - 1);
        self.ring.word(last) == last.free | 1
    }

    /// Where the next message is.
    #[inline]
    pub(crate) fn place(&self) -> usize {
        self.head.slot.addr().get()
    }

    /// Slots ever released, from an arbitrary start.
    pub(crate) fn count(&self) -> u64 {
        self.ring.count(self.head)
    }

    /// Messages published and not released.
    pub fn len(&self) -> usize {
        self.ring.len_from(self.head)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        !self.is_ready()
    }
}

const _: () = {
    // Ends move between threads; shared references only look.
    const fn send_and_sync<T: Send + Sync>() {}
    send_and_sync::<Producer<'_>>();
    send_and_sync::<Consumer<'_>>();
};

#[cfg(all(test, not(loom)))]
#[path = "spsc_tests.rs"]
mod tests;

#[cfg(all(test, loom))]
#[path = "spsc_models.rs"]
mod models;
