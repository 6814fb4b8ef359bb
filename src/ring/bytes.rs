//! The byte ring: one producer, one consumer, records of any length.
//!
//! ```text
//! ┌──────┬──────┬───────────────────────────────────────────────┐
//! │ tail │ head │ cells of 8 bytes                              │
//! └──────┴──────┴───────────────────────────────────────────────┘
//! record:  header: kind << 32 | len | payload, padded to whole cells
//! ```
//!
//! *A record's header is its publication*: the cell behind the last record is zero, which
//! no header is, until the next one is published there by one store. So the cache line
//! that brings the news brings the message, or its beginning, too. (The agrona library's
//! ring buffers do so, from which Aeron is made.) Whatever lay in a cell before, a piece
//! of an older payload maybe, a consumer never takes for a header: the producer makes the
//! cell behind a record zero before it publishes the record, and to be able to, keeps one
//! cell more than the ring is said to hold.
//!
//! A record is contiguous. One that would cross the end of the ring starts at
//! its beginning instead, behind a WRAP record that fills the rest. Hence
//! [`Geometry::max_record`]: what fits into an empty ring wherever its positions
//! stand, about half of the ring. Longer messages go in pieces, whose kinds are
//! defined here and whose assembly is the business of the layer above.
//!
//! `head` counts cells ever released. `tail` counts cells ever published, or lags by what
//! was published last. It tells a successor of the producer where to look for the first
//! cell that is zero, onlookers how much there is, and the consumer whether a rest has
//! brought a stock and, once in some laps, whether it is where it may be; what there is to
//! receive it does not tell. *Invariant*, of the true tail:
//!
//! ```text
//! head <= tail <= head + capacity
//! head..tail holds whole records, each with its header, and the cell at tail is zero
//! no WRAP is the last of them, none is at index 0
//! ```
//!
//! Positions are pairs of lap and index (see `position.rs`) that count
//! cells, so a capacity need not be a power of two, nothing divides, and the
//! end of the position space is one more lap like any other: laps have at least
//! 35 bits, wrap, and are compared by their signed difference. A plain count of
//! bytes would jump at 2⁶⁴ in all other rings than those of a power of two.
//!
//! Both sides work on private copies and can batch: `commit` finishes a record,
//! `publish` shows all the finished ones with one store, of the first one's header, the
//! others being in their places by then; `advance` steps over a
//! record, `release` gives all the passed ones back with one store. The other
//! side's line is read only when what is known of it does not suffice.
//!
//! | edge | release | acquire | makes visible |
//! |------|---------|---------|---------------|
//! | P    | `Producer::publish`: header | `Ring::header_at`: header | records, and the zero behind them |
//! | F    | `Consumer::release`: `head` | `Producer::refresh`: `head` | that the bytes have been read |
//!
//! What the survivors see when an end dies:
//!
//! | it died | shared memory says | survivors |
//! |---------|--------------------|-----------|
//! | producer, before publish | zero at the tail | nothing: the successor writes over it |
//! | producer, after publish | a header there | every record of the batch |
//! | producer, before it noted the new `tail` | the same | the successor finds the zero by walking |
//! | consumer, before release | `head` as before | the successor gets the records again |
//! | consumer, after release | `head` moved | nothing |
//!
//! The consumer distrusts every byte: each header is read once, and its copy is
//! checked against what the ring may hold and against the end of the ring before
//! anything follows from it. It has no loop: a record is found at once or
//! behind one WRAP, and each takes at least one of the cells that the ring has. Nor does
//! it go round for ever over bytes that nobody changes: at index 0, once in some laps, it
//! asks whether it is further than a producer can have come that noted so little.
//!
//! ```
//! use slipring::{Heap, ring::bytes::{Geometry, Kind, Ring}};
//!
//! let geometry = Geometry::new(1024).unwrap();
//! let heap = Heap::zeroed(geometry.len());
//! // SAFETY: the block is ours alone, and has the ring's size and alignment.
//! let ring = unsafe { Ring::init(heap.region(), geometry, 0) };
//! // SAFETY: the only ends.
//! let (mut tx, mut rx) = unsafe { (ring.producer()?, ring.consumer()?) };
//!
//! let grant = tx.reserve(100)?.expect("the ring is empty");
//! // SAFETY: the grant is ours until it is published, and five bytes fit.
//! unsafe { grant.ptr().copy_from_nonoverlapping((&b"hello"[0]).into(), 5) };
//! tx.commit(Kind::Whole, 5);
//! tx.publish();
//!
//! let record = rx.peek()?.expect("published above");
//! // SAFETY: nobody writes there until it is released.
//! let message = unsafe { std::slice::from_raw_parts(record.ptr().as_ptr(), record.len()) };
//! assert_eq!((record.kind(), message), (Kind::Whole, &b"hello"[..]));
//! rx.advance();
//! rx.release();
//! # Ok::<(), slipring::Error>(())
//! ```

use crate::error::Error;
use crate::memory::{LINE, Region, own_lines_from, prefetch_to_write, round_up};
use crate::position::{Laps, Position};
use crate::sync::{AtomicU64, MODELLED, Ordering, Witness, point};
use core::alloc::Layout;
use core::marker::PhantomData;
use core::mem::offset_of;
use core::ptr::NonNull;
use crossbeam_utils::CachePadded;

/// The unit of positions: size and alignment of a record's header.
const CELL: usize = 8;

/// Cells in a cache line.
const IN_LINE: usize = 64 / CELL;

/// How many lines ahead both ends ask for what they will write to; in small rings, where
/// they would but take each other's lines, the producer alone and for one.
const AHEAD: usize = 8;

/// Cells, about, after which a consumer asks whether it is where it may be.
const CHECKED: usize = 1 << 16;

/// Smallest ring, in bytes.
pub const MIN_CAPACITY: usize = 64;
/// Largest ring, in bytes: every length fits the header's 32 bits.
pub const MAX_CAPACITY: usize = u32::MAX as usize - (CELL - 1);

/// What a record is. No kind is zero, so that zeroed memory holds no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Kind {
    /// A whole message.
    Whole = 2,
    /// The first piece of a message; its payload begins with the length of the
    /// whole message, a `u64`.
    First = 3,
    /// A piece that is neither the first nor the last.
    Middle = 4,
    /// The last piece of a message.
    Last = 5,
}

/// The kind of what fills the end of the ring.
const WRAP: u32 = 1;

impl Kind {
    const fn from_raw(raw: u32) -> Option<Kind> {
        match raw {
            2 => Some(Kind::Whole),
            3 => Some(Kind::First),
            4 => Some(Kind::Middle),
            5 => Some(Kind::Last),
            _ => None,
        }
    }
}

/// The lines before the cells.
#[repr(C)]
struct Header {
    /// First cell not published, or what it was before the last publication. Written by
    /// the producer alone.
    tail: CachePadded<AtomicU64>,
    /// First cell not released. Written by the consumer alone.
    head: CachePadded<AtomicU64>,
}

/// The first cell of a record, as it lies there: zero where none is published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct RecordHeader(u64);

impl RecordHeader {
    #[inline(always)]
    const fn new(kind: u32, len: usize) -> RecordHeader {
        debug_assert!(kind != 0 && len <= u32::MAX as usize);
        RecordHeader((kind as u64) << 32 | len as u64)
    }

    #[inline(always)]
    const fn kind(self) -> u32 {
        (self.0 >> 32) as u32
    }

    #[inline(always)]
    const fn len(self) -> usize {
        self.0 as u32 as usize
    }
}

const _: () = assert!(size_of::<RecordHeader>() == CELL && align_of::<Header>() <= LINE);
const _: () = assert!(MODELLED || size_of::<AtomicU64>() == CELL);

/// Cells of a record with this payload.
#[inline(always)]
const fn cells(len: usize) -> usize {
    1 + len.div_ceil(CELL)
}

/// Where everything lies: a function of the capacity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Of all cells: one more than the ring holds.
    laps: Laps,
    witnesses: usize,
    /// Of the headers, were each cell one: the cells, but for models, whose atomics share
    /// bytes with nothing.
    headers: usize,
    data: usize,
    /// Lines ahead that are asked for.
    ahead: usize,
    /// The bits of a lap that are all zero in those at whose beginning a consumer asks
    /// whether it is where it may be.
    checked: u64,
    len: usize,
}

impl Geometry {
    /// The geometry of a ring of `capacity` bytes ([`MIN_CAPACITY`] to
    /// [`MAX_CAPACITY`], rounded up to a multiple of 8), records' headers
    /// included.
    ///
    /// # Errors
    ///
    /// Says what is wrong with the capacity.
    pub fn new(capacity: usize) -> Result<Geometry, &'static str> {
        if !(MIN_CAPACITY..=MAX_CAPACITY).contains(&capacity) {
            return Err("capacity must be from 64 bytes to 8 less than 4 GiB");
        }
        let too_large = "the ring's size overflows";
        let cells = capacity.div_ceil(CELL) + 1;
        let laps = Laps::new(cells).ok_or(too_large)?;
        let array = |size: usize, at: usize| {
            cells.checked_mul(size).and_then(|len| len.checked_add(at)).ok_or(too_large)
        };
        let witnesses = size_of::<Header>();
        let headers = array(size_of::<Witness>(), witnesses)?;
        let headers = round_up(headers, LINE).ok_or(too_large)?;
        let data = if MODELLED { array(size_of::<AtomicU64>(), headers)? } else { headers };
        let data = round_up(data, LINE).ok_or(too_large)?;
        let len = round_up(array(CELL, data)?, LINE)
            .filter(|&len| len <= isize::MAX as usize - LINE)
            .ok_or(too_large)?;
        let ahead = if cells / 4 >= AHEAD * IN_LINE { AHEAD } else { 1 };
        let checked = (CHECKED / cells + 1).next_power_of_two() as u64 - 1;
        Ok(Geometry { laps, witnesses, headers, data, ahead, checked, len })
    }

    /// Bytes that the ring takes, from a base aligned to [`LINE`].
    pub fn len(&self) -> usize {
        self.len
    }

    /// Never: a ring has a header.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Bytes for records and their headers.
    pub fn capacity(&self) -> usize {
        self.most() * CELL
    }

    /// Cells that can be published and not released.
    #[inline(always)]
    const fn most(&self) -> usize {
        self.laps.capacity() - 1
    }

    /// Longest payload of one record: it always fits once the ring is empty.
    pub fn max_record(&self) -> usize {
        (self.max_cells() - 1) * CELL
    }

    /// With the positions at index `i`, a record of `r` cells needs
    /// `r <= cells - i`, or, behind a WRAP of `cells - i`, `r <= i - 1`, one cell being
    /// kept. Half of what the ring holds, rounded up, satisfies one of the two for each `i`.
    #[inline(always)]
    const fn max_cells(&self) -> usize {
        self.most().div_ceil(2)
    }

    /// Whether to ask here whether a producer can have come so far.
    #[inline(always)]
    const fn is_checked(&self, at: Position) -> bool {
        self.laps.index(at) == 0 && self.laps.lap(at) & self.checked == 0
    }

    /// Cells from `at` to the end of the ring.
    #[inline(always)]
    const fn until_end(&self, at: Position) -> usize {
        self.laps.capacity() - self.laps.index(at)
    }

    fn fits(&self, region: Region<'_>) -> bool {
        Layout::from_size_align(self.len, LINE).is_ok_and(|layout| region.fits(layout))
    }
}

/// What a header says, once it has been checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Parsed {
    /// Go on at index 0, where something is published.
    Wrap,
    /// A record, all of it published and contiguous.
    Record { kind: Kind, len: usize, cells: usize },
}

/// The parser: judges a header where `room` cells may hold records, and with
/// `to_end >= 1` cells before the end of the ring.
///
/// A WRAP at index 0 has nothing behind it for a consumer: its `room < cells`.
#[inline(always)]
const fn parse(header: RecordHeader, room: usize, to_end: usize) -> Result<Parsed, &'static str> {
    let len = header.len();
    match Kind::from_raw(header.kind()) {
        Some(kind) => {
            let cells = cells(len);
            if cells > room {
                Err("record longer than the ring")
            } else if cells > to_end {
                Err("record across the end of the ring")
            } else {
                Ok(Parsed::Record { kind, len, cells })
            }
        }
        None if header.kind() != WRAP => Err("kind of the record"),
        None if len != (to_end - 1) * CELL => Err("length of the wrap record"),
        None if room <= to_end => Err("wrap record with nothing behind it"),
        None => Ok(Parsed::Wrap),
    }
}

/// The ring, laid over borrowed memory. Copies are views of one ring; its ends
/// are [`Ring::producer`] and [`Ring::consumer`].
#[derive(Clone, Copy, Debug)]
pub struct Ring<'a> {
    base: NonNull<u8>,
    geometry: Geometry,
    memory: PhantomData<&'a [AtomicU64]>,
}

// SAFETY: the shared words are atomics; cells are reached only through the two
// ends, which their contracts make exclusive.
unsafe impl Send for Ring<'_> {}
// SAFETY: as above.
unsafe impl Sync for Ring<'_> {}

#[cold]
fn bad_head() -> Error {
    Error::Corrupt { what: "head of the byte ring", at: offset_of!(Header, head) as u64 }
}

#[cold]
fn bad_record(what: &'static str, index: usize) -> Error {
    Error::Corrupt { what, at: (index * CELL) as u64 }
}

#[cold]
fn bad_tail() -> Error {
    Error::Corrupt { what: "tail of the byte ring", at: offset_of!(Header, tail) as u64 }
}

impl<'a> Ring<'a> {
    /// Writes an empty ring into the region, its next position being `start`
    /// (a count of cells of 8 bytes; 0 but for tests of wraps).
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
        let first = geometry.laps.at_count(start);
        let header = Header {
            tail: CachePadded::new(AtomicU64::new(first.0)),
            head: CachePadded::new(AtomicU64::new(first.0)),
        };
        // SAFETY: the header fits (checked above) and is aligned to LINE.
        unsafe { region.at::<Header>(0).write(header) };
        let first = geometry.laps.index(first);
        // Elsewhere a producer writes before a consumer looks. Models want all of them.
        let told = if MODELLED { 0..geometry.laps.capacity() } else { first..first + 1 };
        for cell in told {
            let (witness, header) = (size_of::<Witness>(), size_of::<AtomicU64>());
            // SAFETY: the geometry has room for a witness and a header per cell.
            unsafe {
                region.at::<Witness>(geometry.witnesses + cell * witness).write(Witness::default());
                region.at::<AtomicU64>(geometry.headers + cell * header).write(AtomicU64::new(0));
            }
        }
        // SAFETY: just initialised with this geometry.
        unsafe { Self::attach(region, geometry) }
    }

    /// A view of a ring that [`Ring::init`] wrote with this geometry.
    ///
    /// # Safety
    ///
    /// The region must hold such a ring, and be used by nothing but views of
    /// it. (Its *contents* may be hostile, any bytes at all: they are checked
    /// wherever they matter.)
    ///
    /// # Panics
    ///
    /// As [`Ring::init`].
    pub unsafe fn attach(region: Region<'a>, geometry: Geometry) -> Ring<'a> {
        assert!(geometry.fits(region), "region too small or misaligned for the ring");
        Ring { base: region.base(), geometry, memory: PhantomData }
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
    /// `Corrupt` when `tail` and `head` are no positions of this ring, or too
    /// far apart, or what lies at the tail is what no correct producer writes.
    ///
    /// # Safety
    ///
    /// One producer at a time: whatever an earlier one did must happen before
    /// this call (the hand-over of its lease, or its thread, orders that).
    pub unsafe fn producer(&self) -> Result<Producer<'a>, Error> {
        let tail = self.end()?;
        let mut producer = Producer {
            ring: *self,
            tail,
            published: tail,
            first: None,
            free: 0,
            reserved: Reserved::NONE,
        };
        producer.refresh()?;
        // Before anything is written to the cells from the old note on, where the next
        // successor would begin to walk. Relaxed: as in `publish`.
        self.header().tail.store(tail.0, Ordering::Relaxed);
        point("bytes.taken");
        Ok(producer)
    }

    /// `tail` and `head`, and the cells between them: less than none when what was
    /// published last has been released, and its producer died before it noted that.
    fn positions(&self) -> Result<(Position, Position, i64), Error> {
        // Relaxed, both: what an earlier end stored happened before its successor looks, and
        // what the other end releases or publishes is looked at again before it is used.
        let tail = self.checked(self.header().tail.load(Ordering::Relaxed), bad_tail)?;
        let head = self.checked(self.header().head.load(Ordering::Relaxed), bad_head)?;
        let used = self.geometry.laps.slots_between(tail, head);
        let legal = used.unsigned_abs() <= self.geometry.most() as u64;
        if legal { Ok((tail, head, used)) } else { Err(bad_tail()) }
    }

    /// The true tail, for who takes the sending end over: at `tail`, or behind what the
    /// earlier producer published before it could note that.
    fn end(&self) -> Result<Position, Error> {
        let (mut at, _, mut used) = self.positions()?;
        // Each step takes a cell or more of those that `parse` leaves.
        while let Some(header) = self.header_at(at) {
            let to_end = self.geometry.until_end(at);
            let room = (self.geometry.most() as i64 - used) as usize;
            let step = match parse(header, room, to_end) {
                Ok(Parsed::Wrap) => to_end,
                Ok(Parsed::Record { cells, .. }) => cells,
                Err(what) => return Err(bad_record(what, self.geometry.laps.index(at))),
            };
            at = self.geometry.laps.forward(at, step);
            used += step as i64;
        }
        // That the head is not ahead of it `Producer::refresh` will see.
        Ok(at)
    }

    /// The receiving end, at the first record not released.
    ///
    /// # Errors
    ///
    /// `Corrupt` when `tail` and `head` are no positions of this ring, or too far apart.
    ///
    /// # Safety
    ///
    /// One consumer at a time: whatever an earlier one did must happen before
    /// this call.
    pub unsafe fn consumer(&self) -> Result<Consumer<'a>, Error> {
        let (_, head, _) = self.positions()?;
        Ok(Consumer { ring: *self, head, passed: 0, peeked: 0 })
    }

    /// Bytes published and not released, with headers and padding: a moment's
    /// truth, for onlookers, and short of what was published last for as long as the
    /// producer has not noted that.
    pub fn len(&self) -> usize {
        let laps = self.geometry.laps;
        let head = self.header().head.load(Ordering::Relaxed);
        let tail = self.header().tail.load(Ordering::Relaxed);
        let used = laps.slots_between(Position(tail), Position(head));
        used.clamp(0, self.geometry.most() as i64) as usize * CELL
    }

    /// Whether no record is published that is not released.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    #[inline(always)]
    fn header(&self) -> &'a Header {
        // SAFETY: `attach` checked bounds and alignment; initialised memory, as
        // its contract says, for as long as 'a; only atomics inside.
        unsafe { self.base.cast().as_ref() }
    }

    #[inline(always)]
    fn checked(&self, raw: u64, bad: fn() -> Error) -> Result<Position, Error> {
        self.geometry.laps.checked(raw).ok_or_else(bad)
    }

    /// The first byte of a cell.
    #[inline(always)]
    fn cell(&self, index: usize) -> NonNull<u8> {
        debug_assert!(index < self.geometry.laps.capacity());
        // SAFETY: indices come from `checked` positions, so this is inside the
        // cells, for which `attach` checked that they fit.
        unsafe { self.base.add(self.geometry.data + index * CELL) }
    }

    /// Asks for the line some way ahead of this cell, to be written to. The other end
    /// wrote to it last: so it comes over at once, and not to be read first.
    #[inline(always)]
    fn prefetch(&self, index: usize) {
        let (cells, ahead) = (self.geometry.laps.capacity(), self.geometry.ahead * IN_LINE);
        let ahead = index + ahead;
        let ahead = if ahead < cells { ahead } else { ahead - cells };
        prefetch_to_write(self.cell(ahead).as_ptr());
    }

    /// Tells the witnesses of `n` cells from `index` on.
    #[inline(always)]
    fn witness(&self, index: usize, n: usize, tell: impl Fn(&Witness)) {
        if size_of::<Witness>() > 0 {
            for cell in index..index + n {
                let offset = self.geometry.witnesses + cell * size_of::<Witness>();
                // SAFETY: `init` placed a witness for each cell, and the
                // callers name cells only.
                tell(unsafe { self.base.add(offset).cast().as_ref() });
            }
        }
    }

    /// The word of a header.
    #[inline(always)]
    fn word(&self, at: Position) -> &'a AtomicU64 {
        let index = self.geometry.laps.index(at);
        debug_assert!(index < self.geometry.laps.capacity());
        // SAFETY: as in `cell`; a cell is as large as the word and aligned for it, and any
        // bytes are one. (In models it is beside the cells, placed there by `init`.) Both
        // ends write to a cell's bytes in another way only while no other looks at it:
        // the producer those that are free and no header's, the consumer those of a
        // record before it is released.
        unsafe {
            let offset = self.geometry.headers + index * size_of::<AtomicU64>();
            self.base.add(offset).cast().as_ref()
        }
    }

    /// The header at this position, or `None` when no record is published there. Read
    /// once, whatever a hostile peer does meanwhile, so that what is used is what was
    /// checked.
    #[inline(always)]
    fn header_at(&self, at: Position) -> Option<RecordHeader> {
        // Edge P: Acquire pairs with the Release in `Producer::publish`.
        match self.word(at).load(Ordering::Acquire) {
            0 => None,
            header => Some(RecordHeader(header)),
        }
    }

    /// Where the payload of a record at `index` starts. For an empty one this
    /// may be the end of the ring.
    #[inline(always)]
    fn payload(&self, index: usize) -> NonNull<u8> {
        // SAFETY: the end of a cell is inside the region or one past its end.
        unsafe { self.cell(index).add(CELL) }
    }
}

/// Space for one payload, contiguous and the producer's alone until it is
/// published.
#[derive(Clone, Copy, Debug)]
pub struct Grant {
    ptr: NonNull<u8>,
    len: usize,
}

impl Grant {
    /// First byte; aligned to 8.
    #[inline]
    pub fn ptr(&self) -> NonNull<u8> {
        self.ptr
    }

    /// Bytes asked for.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether none was asked for.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// What the next commit may use.
#[derive(Clone, Copy, Debug)]
struct Reserved {
    /// Cells that a WRAP fills first.
    skip: usize,
    /// Cells of the longest record, its header included; 0 for none.
    cells: usize,
    /// Longest payload.
    len: usize,
}

impl Reserved {
    const NONE: Reserved = Reserved { skip: 0, cells: 0, len: 0 };
}

/// The sending end.
#[derive(Debug)]
pub struct Producer<'a> {
    ring: Ring<'a>,
    /// End of what is committed.
    tail: Position,
    /// End of what is published. The truth: the shared word is its copy.
    published: Position,
    /// The header that will be published there.
    first: Option<RecordHeader>,
    /// Cells from `tail` on that are known to be released. May lag the truth;
    /// never leads it.
    free: usize,
    reserved: Reserved,
}

// SAFETY: an end is a view with private positions; any thread may hold it.
unsafe impl Send for Producer<'_> {}

impl<'a> Producer<'a> {
    /// The ring.
    pub fn ring(&self) -> &Ring<'a> {
        &self.ring
    }

    /// Space for a payload of up to `n` bytes, or `None` when there is none now.
    /// (Publish before waiting for it: nobody releases what was not published.)
    /// A new reservation replaces the last; not to commit is to abandon it.
    ///
    /// # Errors
    ///
    /// `TooLarge` above [`Geometry::max_record`]; `Corrupt` when `head` is where
    /// no correct consumer puts it.
    #[inline]
    pub fn reserve(&mut self, n: usize) -> Result<Option<Grant>, Error> {
        let geometry = self.ring.geometry;
        self.reserved = Reserved::NONE;
        if n > geometry.max_record() {
            return Err(Error::TooLarge { len: n, max: geometry.max_record() });
        }
        let cells = cells(n);
        let to_end = geometry.until_end(self.tail);
        let skip = if cells <= to_end { 0 } else { to_end };
        if self.free < skip + cells {
            self.refresh()?;
            if self.free < skip + cells {
                return Ok(None);
            }
        }
        let index = if skip == 0 { geometry.laps.index(self.tail) } else { 0 };
        self.ring.witness(index, cells, Witness::write);
        self.reserved = Reserved { skip, cells, len: n };
        Ok(Some(Grant { ptr: self.ring.payload(index), len: n }))
    }

    /// What `reserve` would give, without a look at the consumer's line and
    /// without a WRAP: the usual case, small enough for the caller's loop.
    #[inline(always)]
    pub(crate) fn at_hand(&mut self, n: usize) -> Option<Grant> {
        let geometry = &self.ring.geometry;
        let (index, cells) = (geometry.laps.index(self.tail), cells(n));
        if n > geometry.max_record() || cells > self.free || cells > geometry.until_end(self.tail) {
            return None;
        }
        self.ring.witness(index, cells, Witness::write);
        self.ring.prefetch(index);
        self.reserved = Reserved { skip: 0, cells, len: n };
        Some(Grant { ptr: self.ring.payload(index), len: n })
    }

    /// The longest payload, up to `wanted` bytes, for which [`Producer::reserve`]
    /// has space now; `None` when there is not even space for an empty one.
    ///
    /// # Errors
    ///
    /// As [`Producer::reserve`], but for `TooLarge`.
    pub fn room(&mut self, wanted: usize) -> Result<Option<usize>, Error> {
        let wanted = wanted.min(self.ring.geometry.max_record());
        let mut most = self.most(self.free);
        if most < cells(wanted) {
            self.refresh()?;
            most = self.most(self.free);
        }
        Ok(most.checked_sub(1).map(|payload| wanted.min(payload * CELL)))
    }

    /// Cells of the longest record that `free` cells from the tail on can hold,
    /// before the end of the ring or behind a WRAP.
    #[inline(always)]
    fn most(&self, free: usize) -> usize {
        let to_end = self.ring.geometry.until_end(self.tail);
        free.min(to_end).max(free.saturating_sub(to_end))
    }

    /// Finishes a record of the first `m` bytes of what was reserved. It exists
    /// once it is published.
    ///
    /// # Panics
    ///
    /// Panics unless `m` bytes or more are reserved.
    #[inline(always)]
    pub fn commit(&mut self, kind: Kind, m: usize) {
        let Reserved { skip, cells: most, len } = self.reserved;
        assert!(most > 0 && m <= len, "commit of more than was reserved");
        self.reserved = Reserved::NONE;
        if skip > 0 {
            self.append(RecordHeader::new(WRAP, (skip - 1) * CELL), skip);
        }
        self.append(RecordHeader::new(kind as u32, m), cells(m));
    }

    /// Puts a header at the tail: the first one since the last publication is kept back,
    /// since it publishes them all.
    #[inline(always)]
    fn append(&mut self, header: RecordHeader, cells: usize) {
        if self.first.is_none() {
            self.first = Some(header);
        } else {
            // Relaxed: the Release in `publish` makes it visible.
            self.ring.word(self.tail).store(header.0, Ordering::Relaxed);
            point("bytes.header");
        }
        self.tail = self.ring.geometry.laps.forward(self.tail, cells);
        self.free -= cells;
    }

    /// Shows everything committed to the consumer, at once. Wake it afterwards.
    #[inline(always)]
    pub fn publish(&mut self) {
        let Some(first) = self.first.take() else { return };
        // Free, for one cell is always kept.
        self.ring.witness(self.ring.geometry.laps.index(self.tail), 1, Witness::write);
        // Relaxed: the Release that follows makes it visible.
        self.ring.word(self.tail).store(0, Ordering::Relaxed);
        point("bytes.ended");
        // Edge P: Release pairs with the Acquire in `Ring::header_at`.
        self.ring.word(self.published).store(first.0, Ordering::Release);
        point("bytes.published");
        self.published = self.tail;
        // Relaxed: to who takes over the hand-over makes it visible, to a consumer the header
        // of the next publication; to onlookers nothing needs to.
        self.ring.header().tail.store(self.tail.0, Ordering::Relaxed);
        point("bytes.noted");
    }

    /// Whether something is committed and not published.
    #[inline(always)]
    pub fn is_dirty(&self) -> bool {
        self.first.is_some()
    }

    /// Whether [`Producer::reserve`] of `n` bytes would find space (or an
    /// error): one load, for loops that wait.
    #[inline]
    pub fn is_ready(&self, n: usize) -> bool {
        let cells = cells(n.min(self.ring.geometry.max_record()));
        if self.most(self.free) >= cells {
            return true;
        }
        let head = self.ring.header().head.load(Ordering::Relaxed);
        // A head that is no such thing: let the caller find out.
        self.free_from(head).is_none_or(|free| self.most(free) >= cells)
    }

    /// Whether little is known to be free: less than an eighth of the ring.
    #[inline]
    pub(crate) fn is_tight(&self) -> bool {
        self.free < self.ring.geometry.most() / 8
    }

    /// Whether that much or more is free, or `n` payloads of `len` bytes fit.
    pub(crate) fn has_room(&self, n: usize, len: usize) -> bool {
        let most = self.ring.geometry.most();
        let wanted = n.saturating_mul(cells(len.min(most * CELL))).min(most / 8);
        let head = self.ring.header().head.load(Ordering::Relaxed);
        self.free_from(head).is_none_or(|free| free >= wanted)
    }

    /// Cells free from `tail` on if `head` is where this word says; `None` when
    /// no consumer puts it there: ahead of the tail, or more than a turn behind.
    #[inline(always)]
    fn free_from(&self, head: u64) -> Option<usize> {
        let laps = self.ring.geometry.laps;
        let used = laps.slots_between(self.tail, laps.checked(head)?);
        self.ring.geometry.most().checked_sub(usize::try_from(used).ok()?)
    }

    /// Looks at the consumer's line: how much is free now?
    #[cold]
    fn refresh(&mut self) -> Result<(), Error> {
        // Edge F: Acquire pairs with the Release in `Consumer::release`.
        let head = self.ring.header().head.load(Ordering::Acquire);
        match self.free_from(head) {
            // Less than before: a head that went back.
            Some(free) if free >= self.free => {
                self.free = free;
                Ok(())
            }
            _ => Err(bad_head()),
        }
    }
}

/// A record, in place: nobody writes there until it is released.
#[derive(Clone, Copy, Debug)]
pub struct Record {
    kind: Kind,
    ptr: NonNull<u8>,
    len: usize,
}

impl Record {
    /// What it is.
    #[inline]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// First byte of the payload; aligned to 8.
    #[inline]
    pub fn ptr(&self) -> NonNull<u8> {
        self.ptr
    }

    /// Bytes of the payload.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the payload is empty. (An empty message is a message.)
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// The receiving end.
#[derive(Debug)]
pub struct Consumer<'a> {
    ring: Ring<'a>,
    /// The next record to look at.
    head: Position,
    /// Cells before `head` that were stepped over and not released.
    passed: usize,
    /// Cells of the record that was looked at; 0 for none.
    peeked: usize,
}

// SAFETY: as `Producer`.
unsafe impl Send for Consumer<'_> {}

impl<'a> Consumer<'a> {
    /// The ring.
    pub fn ring(&self) -> &Ring<'a> {
        &self.ring
    }

    /// The next record, or `None` when there is none. The same one is given
    /// until [`Consumer::advance`].
    ///
    /// # Errors
    ///
    /// `Corrupt` when the record is what no correct producer writes.
    #[inline]
    pub fn peek(&mut self) -> Result<Option<Record>, Error> {
        self.peeked = 0;
        let mut found = self.ring.header_at(self.head);
        if let Some(header) = found
            && let Parsed::Wrap = self.parse(header)?
        {
            // To index 0, where no second WRAP is legal, and where something was
            // published with this one.
            let skip = self.ring.geometry.until_end(self.head);
            found = self.ring.header_at(self.ring.geometry.laps.forward(self.head, skip));
            if found.is_none() {
                return Err(bad_record("wrap record with nothing behind it", 0));
            }
            self.step(skip);
        }
        let Some(header) = found else { return Ok(None) };
        let index = self.ring.geometry.laps.index(self.head);
        let Parsed::Record { kind, len, cells } = self.parse(header)? else {
            return Err(bad_record("second wrap record", index));
        };
        if self.ring.geometry.is_checked(self.head) {
            self.check_lap()?;
        }
        self.ring.witness(index, cells, Witness::read);
        self.peeked = cells;
        Ok(Some(Record { kind, ptr: self.ring.payload(index), len }))
    }

    /// What `peek` would give, if that is a whole message that lies where
    /// expected, and there is nothing else to ask: the usual case, small enough for the
    /// caller's loop. It asks for lines ahead if the producer is away from there.
    #[inline(always)]
    pub(crate) fn at_hand(&mut self, is_away: bool) -> Option<Record> {
        self.peeked = 0;
        let header = self.ring.header_at(self.head)?;
        let geometry = &self.ring.geometry;
        match parse(header, geometry.most() - self.passed, geometry.until_end(self.head)) {
            Ok(Parsed::Record { kind: Kind::Whole, len, cells })
                if !geometry.is_checked(self.head) =>
            {
                let index = geometry.laps.index(self.head);
                self.ring.witness(index, cells, Witness::read);
                // Once a line, and not where the producer is about to write.
                if is_away && geometry.ahead > 1 && index % IN_LINE + cells >= IN_LINE {
                    self.ring.prefetch(index);
                }
                self.peeked = cells;
                Some(Record { kind: Kind::Whole, ptr: self.ring.payload(index), len })
            }
            _ => None,
        }
    }

    /// Whether the producer can have published what is here: it noted everything but its
    /// last publication, which is no longer than the ring.
    #[cold]
    fn check_lap(&self) -> Result<(), Error> {
        let Ring { geometry, .. } = self.ring;
        // Relaxed: the header's Acquire has shown the note of the publication before.
        let noted = self.ring.header().tail.load(Ordering::Relaxed);
        let noted = self.ring.checked(noted, bad_tail)?;
        let ahead = geometry.laps.slots_between(self.head, noted);
        if ahead.unsigned_abs() <= geometry.most() as u64 { Ok(()) } else { Err(bad_tail()) }
    }

    /// Judges the header at `head`.
    #[inline(always)]
    fn parse(&self, header: RecordHeader) -> Result<Parsed, Error> {
        let geometry = &self.ring.geometry;
        parse(header, geometry.most() - self.passed, geometry.until_end(self.head))
            .map_err(|what| bad_record(what, geometry.laps.index(self.head)))
    }

    /// Steps over the record that the last [`Consumer::peek`] gave. It stays,
    /// and a successor would get it again, until it is released.
    ///
    /// # Panics
    ///
    /// Panics when it gave none.
    #[inline(always)]
    pub fn advance(&mut self) {
        assert!(self.peeked > 0, "advance without a record");
        self.step(self.peeked);
        self.peeked = 0;
    }

    #[inline(always)]
    fn step(&mut self, cells: usize) {
        self.head = self.ring.geometry.laps.forward(self.head, cells);
        self.passed += cells;
    }

    /// Bytes of the cells of the record that was peeked, without its header.
    #[inline(always)]
    pub(crate) fn peeked_len(&self) -> usize {
        self.peeked.saturating_sub(1) * CELL
    }

    /// Makes the lines of the record that was peeked at this core's alone, once it
    /// is copied out: see [`own_lines_from`].
    #[inline(always)]
    pub(crate) fn own_lines(&self) {
        let index = self.ring.geometry.laps.index(self.head);
        let payload = self.ring.payload(index);
        // Not by its header, which who takes the other end over reads as a whole.
        let first = if index.is_multiple_of(IN_LINE) { 0 } else { payload.align_offset(64) };
        // SAFETY: the record's cells lie inside the ring, one after the other, and until its
        // release they are the consumer's alone.
        unsafe { own_lines_from(payload, first, self.peeked_len()) };
    }

    /// Gives the space of every record stepped over back, at once. Wake the
    /// producer afterwards.
    #[inline(always)]
    pub fn release(&mut self) {
        if self.passed > 0 {
            self.passed = 0;
            // Edge F: Release pairs with the Acquire in `Producer::refresh`.
            self.ring.header().head.store(self.head.0, Ordering::Release);
            point("bytes.released");
        }
    }

    /// Whether an eighth of the ring or so many lines are published, as far as the producer
    /// has noted it.
    pub(crate) fn has_stock(&self, lines: usize) -> bool {
        let laps = self.ring.geometry.laps;
        let wanted = (lines * IN_LINE).min(self.ring.geometry.most() / 8);
        let tail = Position(self.ring.header().tail.load(Ordering::Relaxed));
        laps.slots_between(tail, self.head) >= wanted as i64
    }

    /// Whether there is something to release.
    #[inline(always)]
    pub fn is_dirty(&self) -> bool {
        self.passed > 0
    }

    /// Whether [`Consumer::peek`] would find a record (or an error): one load,
    /// for loops that wait.
    #[inline]
    pub fn is_ready(&self) -> bool {
        // Relaxed: whoever goes on looks again.
        self.ring.word(self.head).load(Ordering::Relaxed) != 0
    }
}

#[cfg(all(test, not(loom)))]
#[path = "bytes_tests.rs"]
mod tests;

#[cfg(all(test, loom))]
#[path = "bytes_models.rs"]
mod models;
