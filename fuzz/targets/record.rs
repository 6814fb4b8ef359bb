//! Arbitrary bytes as a byte ring: positions and records, peeked and drained,
//! and written to while that goes on.
//!
//! Until the first byte is changed from outside, the ring must find what a
//! parser finds that was written without looking at it.

#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use slipring::ring::bytes::{Geometry, Kind, Record, Ring};
use slipring::{Heap, LINE};

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Op {
    Peek,
    Advance,
    Release,
    /// Reserves this much, commits that much.
    Send(u8, u8),
    Publish,
    /// A word of the ring, cells and positions alike, from outside.
    Scribble(u16, u64),
    /// A header that may be right: where, length, kind.
    Record(u8, u8, u8),
    NewConsumer,
    NewProducer,
}

#[derive(Arbitrary, Debug)]
struct Input {
    /// Cells, less than 8.
    cells: u8,
    head: u64,
    /// Cells behind the head that the producer noted as published, or the tail itself.
    tail: Result<u8, u64>,
    /// Headers, one cell after the other.
    headers: Vec<(u8, u8)>,
    /// Bytes over the headers, from the first cell on.
    bytes: Vec<u8>,
    ops: Vec<Op>,
}

const TAIL: usize = 0;
const HEAD: usize = LINE;
const DATA: usize = 2 * LINE;
/// Laps wrap here, in rings as small as these.
const LAPS: u64 = (1 << 49) - 1;

/// The words of the ring, seen from outside.
struct Outside<'a> {
    heap: &'a Heap,
    geometry: Geometry,
}

impl Outside<'_> {
    fn word(&self, at: usize) -> *mut u64 {
        assert!(at + 8 <= self.geometry.len() && at.is_multiple_of(8));
        // SAFETY: inside the block, as asserted.
        unsafe { self.heap.region().base().as_ptr().add(at).cast() }
    }

    fn load(&self, at: usize) -> u64 {
        // SAFETY: aligned and inside; one thread.
        unsafe { self.word(at).read_volatile() }
    }

    fn store(&self, at: usize, value: u64) {
        // SAFETY: as in `load`.
        unsafe { self.word(at).write_volatile(value) }
    }

    /// One more than the ring holds.
    fn cells(&self) -> usize {
        self.geometry.capacity() / 8 + 1
    }

    fn header(&self, cell: usize) -> (u32, usize) {
        let word = self.load(DATA + 8 * cell);
        ((word >> 32) as u32, word as u32 as usize)
    }

    /// What a consumer finds at cell `at` that has passed so many cells: nothing, or the
    /// kind, first cell and length of a record, and the cells that it takes with the gap
    /// before it; or an error.
    fn parse(
        &self,
        mut at: usize,
        passed: usize,
    ) -> Result<Option<(u32, usize, usize, usize)>, ()> {
        let mut gap = 0;
        let room = self.cells() - 1 - passed;
        let (mut kind, mut len) = self.header(at);
        if (kind, len) == (0, 0) {
            return Ok(None);
        }
        if kind == 1 {
            gap = self.cells() - at;
            if len != 8 * (gap - 1) {
                return Err(());
            }
            at = 0;
            (kind, len) = self.header(0);
        }
        let taken = 1 + len.div_ceil(8);
        let fits = gap + taken <= room && at + taken <= self.cells();
        if (2..=5).contains(&kind) && fits {
            Ok(Some((kind, at, len, gap + taken)))
        } else {
            Err(())
        }
    }
}

/// Reads all of the payload, which must lie between the ring's cells.
fn read(outside: &Outside<'_>, record: Record) -> Vec<u8> {
    let start = record.ptr().as_ptr().addr() - outside.heap.region().base().as_ptr().addr();
    assert!(start >= DATA + 8 && start + record.len() <= DATA + 8 * outside.cells());
    // SAFETY: inside the block, as asserted; one thread.
    unsafe { std::slice::from_raw_parts(record.ptr().as_ptr(), record.len()) }.to_vec()
}

fn kind(raw: u32) -> Kind {
    match raw {
        2 => Kind::Whole,
        3 => Kind::First,
        4 => Kind::Middle,
        _ => Kind::Last,
    }
}

fuzz_target!(|input: Input| {
    let geometry = Geometry::new(8 * (8 + usize::from(input.cells % 40))).unwrap();
    let heap = Heap::zeroed(geometry.len());
    let outside = Outside { heap: &heap, geometry };
    let cells = outside.cells();
    // SAFETY: the block is this target's alone. (Its contents are hostile.)
    let ring = unsafe { Ring::attach(heap.region(), geometry) };

    // The index is in the lowest bits of a position.
    let bits = usize::BITS - (cells - 1).leading_zeros();
    let index = input.head as usize % cells;
    let lap = input.head >> bits;
    let position = |cells_on: usize| {
        let on = index + cells_on;
        (lap.wrapping_add((on / cells) as u64) & LAPS) << bits | (on % cells) as u64
    };
    let (head, tail, plausible) = match input.tail {
        Ok(noted) => (position(0), position(usize::from(noted) % cells), true),
        Err(tail) => (input.head, tail, false),
    };
    outside.store(HEAD, head);
    outside.store(TAIL, tail);
    for (cell, (len, kind)) in input.headers.iter().enumerate().take(cells) {
        outside.store(DATA + 8 * cell, u64::from(*kind) << 32 | u64::from(*len));
    }
    for (i, word) in input.bytes.chunks_exact(8).enumerate().take(cells) {
        outside.store(DATA + 8 * i, u64::from_le_bytes(word.try_into().unwrap()));
    }

    // Untouched, against the parser.
    if plausible {
        // SAFETY: the only consumer.
        let mut rx = unsafe { ring.consumer() }.unwrap();
        let (mut at, mut passed) = (index, 0);
        loop {
            assert_eq!(rx.is_ready(), outside.header(at) != (0, 0));
            match (rx.peek(), outside.parse(at, passed)) {
                (Ok(Some(record)), Ok(Some((raw, first, len, taken)))) => {
                    assert_eq!((record.kind(), record.len()), (kind(raw), len));
                    assert_eq!(read(&outside, record).len(), len);
                    let base = heap.region().base().as_ptr().addr();
                    assert_eq!(record.ptr().as_ptr().addr() - base, DATA + 8 * (first + 1));
                    passed += taken;
                    at = (at + taken) % cells;
                    rx.advance();
                }
                (Ok(None), Ok(None)) | (Err(slipring::Error::Corrupt { .. }), Err(())) => break,
                other => panic!("{other:?}"),
            }
        }
        // Nothing was released.
        assert_eq!((outside.load(HEAD), outside.load(TAIL)), (head, tail));
    }

    // SAFETY: the only ends: each is replaced by its successor.
    let (mut tx, mut rx) = unsafe { (ring.producer().ok(), ring.consumer().ok()) };
    for op in input.ops {
        match op {
            Op::Peek => {
                if let Some(Ok(Some(record))) = rx.as_mut().map(|rx| rx.peek()) {
                    read(&outside, record);
                }
            }
            Op::Advance => {
                if let Some(rx) = &mut rx
                    && let Ok(Some(_)) = rx.peek()
                {
                    rx.advance();
                }
            }
            Op::Release => {
                if let Some(rx) = &mut rx {
                    rx.release();
                }
            }
            Op::Send(most, len) => {
                let (most, len) = (usize::from(most), usize::from(len.min(most)));
                if let Some(tx) = &mut tx
                    && let Ok(Some(grant)) = tx.reserve(most)
                {
                    let base = heap.region().base().as_ptr().addr();
                    let start = grant.ptr().as_ptr().addr() - base;
                    assert!(start >= DATA + 8 && start + most <= DATA + 8 * cells);
                    // SAFETY: the grant has `most` bytes; one thread.
                    unsafe { grant.ptr().as_ptr().write_bytes(0xa5, most) };
                    tx.commit(Kind::Whole, len);
                }
            }
            Op::Publish => {
                if let Some(tx) = &mut tx {
                    tx.publish();
                }
            }
            Op::Scribble(word, value) => {
                let at = 8 * (usize::from(word) % (geometry.len() / 8));
                outside.store(at, value);
            }
            Op::Record(cell, len, kind) => {
                let at = DATA + 8 * (usize::from(cell) % cells);
                outside.store(at, u64::from(kind % 8) << 32 | u64::from(len));
            }
            // SAFETY: replaces the only consumer.
            Op::NewConsumer => rx = unsafe { ring.consumer() }.ok(),
            // SAFETY: replaces the only producer.
            Op::NewProducer => tx = unsafe { ring.producer() }.ok(),
        }
        if let (Some(tx), Some(rx)) = (&mut tx, &rx) {
            let _ = (tx.is_ready(9), tx.room(50), rx.is_ready(), ring.len());
        }
    }
});
