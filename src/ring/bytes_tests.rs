//! Behaviour, within one process.

use super::*;
use crate::memory::Heap;
use proptest::prelude::*;
use std::collections::VecDeque;

fn bytes<'a>(record: Record) -> &'a [u8] {
    // SAFETY: a record that the test has not released, in a live block.
    unsafe { std::slice::from_raw_parts(record.ptr().as_ptr(), record.len()) }
}

fn fill(grant: Grant, message: &[u8]) {
    assert!(message.len() <= grant.len() && grant.ptr().cast::<u64>().is_aligned());
    // SAFETY: the grant has room, and nobody else touches it.
    unsafe { grant.ptr().copy_from_nonoverlapping(NonNull::from(message).cast(), message.len()) }
}

fn commit(tx: &mut Producer<'_>, kind: Kind, message: &[u8]) -> bool {
    let Some(grant) = tx.reserve(message.len()).unwrap() else { return false };
    fill(grant, message);
    tx.commit(kind, message.len());
    true
}

fn send(tx: &mut Producer<'_>, message: &[u8]) -> bool {
    let sent = commit(tx, Kind::Whole, message);
    tx.publish();
    sent
}

fn receive(rx: &mut Consumer<'_>) -> Option<Vec<u8>> {
    let message = bytes(rx.peek().unwrap()?).to_vec();
    rx.advance();
    rx.release();
    Some(message)
}

/// Both ends of a new ring.
///
/// The caller makes successors only to replace an end.
fn ends(heap: &Heap, geometry: Geometry, start: u64) -> (Producer<'_>, Consumer<'_>) {
    // SAFETY: the block is the test's own, and these are its first ends.
    unsafe {
        let ring = Ring::init(heap.region(), geometry, start);
        (ring.producer().unwrap(), ring.consumer().unwrap())
    }
}

#[test]
fn impossible_capacities_are_refused() {
    for bad in [0, 1, 63, MAX_CAPACITY + 1, usize::MAX] {
        assert!(Geometry::new(bad).is_err());
    }
    assert_eq!(Geometry::new(64).unwrap().capacity(), 64);
    assert_eq!(Geometry::new(65).unwrap().capacity(), 72);
    assert_eq!(Geometry::new(64).unwrap().max_record(), 24);
    assert_eq!(Geometry::new(72).unwrap().max_record(), 32);
    assert_eq!(Geometry::new(MAX_CAPACITY).unwrap().capacity(), MAX_CAPACITY);
}

#[test]
fn the_longest_record_fits_an_empty_ring_wherever_it_stands() {
    for capacity in (64..400).step_by(8) {
        let g = Geometry::new(capacity).unwrap();
        let (max, heap) = (g.max_record(), Heap::zeroed(g.len()));
        let message = vec![7; max];
        for start in 0..capacity as u64 / 8 {
            let (mut tx, mut rx) = ends(&heap, g, start);
            assert!(tx.is_ready(max) && send(&mut tx, &message));
            assert_eq!(receive(&mut rx).as_ref(), Some(&message));
        }
        let (mut tx, _) = ends(&heap, g, 0);
        assert!(matches!(tx.reserve(max + 1), Err(Error::TooLarge { max: m, .. }) if m == max));
    }
}

#[test]
fn an_empty_message_is_a_message() {
    let g = Geometry::new(64).unwrap();
    let heap = Heap::zeroed(g.len());
    let (mut tx, mut rx) = ends(&heap, g, 5);
    for _ in 0..3 {
        for _ in 0..8 {
            assert!(send(&mut tx, b""));
        }
        assert!(!tx.is_ready(0) && !send(&mut tx, b""));
        assert_eq!(tx.ring().len(), 64);
        for _ in 0..8 {
            assert_eq!(receive(&mut rx).as_deref(), Some(&b""[..]));
        }
        assert!(receive(&mut rx).is_none() && rx.ring().is_empty());
    }
}

#[test]
fn a_commit_shortens_and_nothing_is_seen_before_publish() {
    let g = Geometry::new(128).unwrap();
    let heap = Heap::zeroed(g.len());
    let (mut tx, mut rx) = ends(&heap, g, 0);
    fill(tx.reserve(50).unwrap().unwrap(), b"hello");
    tx.commit(Kind::First, 5);
    assert!(tx.is_dirty() && !rx.is_ready() && rx.peek().unwrap().is_none());
    assert!(commit(&mut tx, Kind::Last, b" world"));
    tx.publish();
    assert!(!tx.is_dirty() && rx.is_ready());
    let first = rx.peek().unwrap().unwrap();
    assert_eq!((first.kind(), bytes(first)), (Kind::First, &b"hello"[..]));
    rx.advance();
    let last = rx.peek().unwrap().unwrap();
    assert_eq!((last.kind(), bytes(last)), (Kind::Last, &b" world"[..]));
    rx.advance();
    assert_eq!(bytes(first), b"hello");
    assert_eq!(tx.ring().len(), 32);
    rx.release();
    assert_eq!(tx.ring().len(), 0);
}

#[test]
#[should_panic(expected = "more than was reserved")]
fn a_failed_reservation_leaves_none() {
    let g = Geometry::new(64).unwrap();
    let heap = Heap::zeroed(g.len());
    let (mut tx, _) = ends(&heap, g, 0);
    tx.reserve(8).unwrap().unwrap();
    assert!(tx.reserve(1000).is_err());
    tx.commit(Kind::Whole, 8);
}

#[test]
fn a_hostile_position_is_an_error() {
    let g = Geometry::new(72).unwrap();
    let heap = Heap::zeroed(g.len());
    let (mut tx, mut rx) = ends(&heap, g, 100);
    for _ in 0..9 {
        assert!(send(&mut tx, b""));
    }
    let ring = *tx.ring();
    let (head, tail) = (rx.head, tx.tail);
    let laps = g.laps;
    let before = |at| laps.forward(laps.at(laps.lap(at).wrapping_sub(1), laps.index(at)), 8);
    let far = laps.at(laps.lap(tail) + 5, 0);
    for bad in [9, 15, u64::MAX, before(head).0, laps.next(tail).0, far.0] {
        ring.header().head.store(bad, Ordering::Relaxed);
        assert!(matches!(tx.reserve(0), Err(Error::Corrupt { .. })), "head {bad:x}");
        assert!(tx.is_ready(24) && tx.room(1).is_err() && ring.len() <= 72);
        // SAFETY: not used beside another end.
        assert!(unsafe { ring.producer().is_err() });
        // It can't know that nothing was published there.
        let plausible = bad == laps.next(tail).0;
        // SAFETY: not used beside another end.
        assert_eq!(unsafe { ring.consumer().is_ok() }, plausible, "head {bad:x}");
        ring.header().head.store(head.0, Ordering::Relaxed);

        ring.header().tail.store(bad, Ordering::Relaxed);
        // SAFETY: not used beside another end.
        assert!(unsafe { ring.producer().is_err() }, "tail {bad:x}");
        ring.header().tail.store(tail.0, Ordering::Relaxed);
    }
    // A head that goes back, though not behind the truth.
    ring.header().head.store(laps.forward(head, 4).0, Ordering::Relaxed);
    assert!(tx.reserve(8).unwrap().is_some());
    ring.header().head.store(laps.forward(head, 3).0, Ordering::Relaxed);
    assert!(tx.reserve(32).is_err());
    // More records than the ring holds: what was not released is behind.
    while rx.peek().unwrap().is_some() {
        rx.advance();
    }
    write_header(&ring, rx.head, RecordHeader::new(Kind::Whole as u32, 0));
    assert!(rx.is_ready() && rx.peek().is_err());
}

/// A header from outside, as a hostile peer would write it.
fn write_header(ring: &Ring<'_>, at: Position, header: RecordHeader) {
    ring.word(at).store(header.0, Ordering::Relaxed);
}

/// A producer that was killed between the two stores of a publication.
#[test]
fn a_successor_finds_what_was_published_last() {
    for cells in [8, 9, 13] {
        let g = Geometry::new(8 * cells).unwrap();
        let heap = Heap::zeroed(g.len());
        for start in 0..=cells as u64 {
            for released in [false, true] {
                let (mut tx, mut rx) = ends(&heap, g, start);
                let ring = *tx.ring();
                // Each of them dies so, one after the other, a lap and more of them.
                for _ in 0..2 * cells {
                    let noted = ring.header().tail.load(Ordering::Relaxed);
                    // A batch, maybe with a WRAP in it.
                    assert!(commit(&mut tx, Kind::Whole, b""));
                    assert!(commit(&mut tx, Kind::Whole, b"two"));
                    tx.publish();
                    ring.header().tail.store(noted, Ordering::Relaxed);
                    if released {
                        assert!(receive(&mut rx).is_some() && receive(&mut rx).is_some());
                    }
                    // SAFETY: replaces the only producer.
                    let mut successor = unsafe { ring.producer().unwrap() };
                    assert_eq!(successor.tail, tx.tail);
                    // It writes wherever it may, what is no header, and dies, too.
                    while commit(&mut successor, Kind::Whole, &[0xff; 8]) {}
                    // SAFETY: as above.
                    let mut successor = unsafe { ring.producer().unwrap() };
                    assert_eq!(successor.tail, tx.tail);
                    assert!(send(&mut successor, &[0xff; 8]));
                    if !released {
                        assert_eq!(receive(&mut rx).as_deref(), Some(&b""[..]));
                        assert_eq!(receive(&mut rx).as_deref(), Some(&b"two"[..]));
                    }
                    assert_eq!(receive(&mut rx).as_deref(), Some(&[0xff; 8][..]));
                    assert!(receive(&mut rx).is_none() && ring.is_empty());
                    // SAFETY: replaces the only consumer.
                    (tx, rx) = (successor, unsafe { ring.consumer().unwrap() });
                }
            }
        }
    }
}

/// A WRAP with nothing behind it, and records beyond what the ring holds.
#[test]
fn what_is_published_in_part_is_an_error() {
    let g = Geometry::new(64).unwrap();
    let heap = Heap::zeroed(g.len());
    let (_, mut rx) = ends(&heap, g, 5);
    let (ring, laps) = (rx.ring, g.laps);
    write_header(&ring, laps.at(0, 5), RecordHeader::new(WRAP, 24));
    for _ in 0..2 {
        assert!(rx.at_hand(true).is_none() && rx.peek().is_err() && rx.peeked == 0);
    }
    let (_, mut rx) = ends(&heap, g, 1);
    for _ in 0..8 {
        write_header(&ring, rx.head, RecordHeader::new(Kind::Whole as u32, 0));
        assert!(rx.at_hand(true).is_some());
        rx.advance();
    }
    write_header(&ring, rx.head, RecordHeader::new(Kind::Whole as u32, 0));
    assert!(rx.at_hand(true).is_none() && rx.peek().is_err());
}

/// The same bytes are not received round and round.
#[test]
fn bytes_that_nobody_changes_have_an_end() {
    for capacity in [64, 200, 8 * CHECKED + 8] {
        let g = Geometry::new(capacity).unwrap();
        let heap = Heap::zeroed(g.len());
        let (_, mut rx) = ends(&heap, g, 0);
        let (ring, laps) = (rx.ring, g.laps);
        for index in 0..laps.capacity() {
            write_header(&ring, laps.at(0, index), RecordHeader::new(Kind::Whole as u32, 0));
        }
        let mut records = 0;
        let error = loop {
            match rx.peek() {
                Ok(record) => assert!(record.is_some()),
                Err(error) => break error,
            }
            rx.advance();
            rx.release();
            records += 1;
            assert!(records < 4 * CHECKED, "without end");
        };
        assert!(matches!(error, Error::Corrupt { .. }));
    }
}

/// What lay in a cell before is never taken for a header: here each cell of each message
/// would be one.
#[test]
fn payloads_that_look_like_headers_are_not_taken_for_them() {
    let header = RecordHeader::new(Kind::Whole as u32, 8).0.to_ne_bytes();
    let g = Geometry::new(104).unwrap();
    let heap = Heap::zeroed(g.len());
    let (mut tx, mut rx) = ends(&heap, g, 0);
    for n in 0..500 {
        let message = header.repeat(n % 7);
        let batch = 1 + n % 2;
        for _ in 0..batch {
            assert!(commit(&mut tx, Kind::Whole, &message[..message.len() / batch]));
        }
        assert!(rx.peek().unwrap().is_none());
        tx.publish();
        for _ in 0..batch {
            assert_eq!(receive(&mut rx).as_deref(), Some(&message[..message.len() / batch]));
        }
        assert!(rx.peek().unwrap().is_none() && !rx.is_ready());
    }
}

/// A header that turns into a legal WRAP under the eyes of the consumer.
#[test]
fn a_record_that_changes_after_a_look_is_an_error() {
    let g = Geometry::new(64).unwrap();
    let heap = Heap::zeroed(g.len());
    let (mut tx, mut rx) = ends(&heap, g, 5);
    assert!(send(&mut tx, &[1; 16]) && send(&mut tx, b""));
    assert_eq!(rx.peek().unwrap().unwrap().len(), 16);
    let (ring, laps) = (*tx.ring(), g.laps);
    write_header(&ring, laps.at(0, 5), RecordHeader::new(WRAP, 24));
    write_header(&ring, laps.at(1, 0), RecordHeader::new(99, 0));
    assert!(rx.peek().is_err() && rx.peeked == 0);
    assert!(rx.is_ready() && rx.peek().is_err());
}

/// The parser against the sentence that describes it, for every small case.
#[test]
fn only_legal_records_are_parsed() {
    for capacity in [8usize, 9] {
        for to_end in 1..=capacity {
            for ready in 1..=capacity {
                for kind in 0..8 {
                    for len in (0..90).chain([u32::MAX - 8, u32::MAX - 1, u32::MAX]) {
                        let found = parse(
                            RecordHeader(u64::from(kind) << 32 | u64::from(len)),
                            ready,
                            to_end,
                        );
                        let padded = 8 + u64::from(len).div_ceil(8) * 8;
                        let room = 8 * ready.min(to_end) as u64;
                        let legal = match kind {
                            1 => {
                                to_end < capacity
                                    && padded == 8 * to_end as u64
                                    && ready > to_end
                                    && len % 8 == 0
                            }
                            2..=5 => padded <= room,
                            _ => false,
                        };
                        assert_eq!(found.is_ok(), legal, "{kind} {len} {ready} {to_end}");
                        if let Ok(Parsed::Record { kind: k, len: l, cells }) = found {
                            assert_eq!((k as u32, l as u32, cells as u64 * 8), (kind, len, padded));
                        }
                    }
                }
            }
        }
    }
}

/// Everything that a consumer of arbitrary memory can be asked.
fn drain(heap: &Heap, geometry: Geometry) -> usize {
    // SAFETY: the block is the test's own and has the ring's size.
    let ring = unsafe { Ring::attach(heap.region(), geometry) };
    let span = heap.region().base().as_ptr().addr() + geometry.data;
    let span = span..=span + geometry.capacity() + CELL;
    // SAFETY: the only consumer.
    let Ok(mut rx) = (unsafe { ring.consumer() }) else { return 0 };
    let (mut records, mut lap) = (0, 0);
    while let Ok(Some(record)) = rx.peek() {
        let start = record.ptr().as_ptr().addr();
        assert!(span.contains(&start) && span.contains(&(start + record.len())));
        std::hint::black_box(bytes(record).iter().fold(0, |a, b| a ^ b));
        rx.advance();
        records += 1;
        lap += 1;
        assert!(lap <= geometry.capacity() / CELL, "more records than cells");
        if records % 3 == 0 {
            rx.release();
            lap = 0;
        }
        assert!(records < 4 * CHECKED, "without end");
    }
    records
}

#[derive(Clone, Debug)]
enum Step {
    Reserve(usize),
    Commit(u32, usize, usize),
    Publish,
    Peek,
    Advance,
    Release,
    NewProducer,
    NewConsumer,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        1 => (0usize..60).prop_map(Step::Reserve),
        6 => (2u32..=5, 0usize..60, 0usize..60).prop_map(|(k, n, m)| Step::Commit(k, n, m)),
        3 => Just(Step::Publish),
        1 => Just(Step::Peek),
        6 => Just(Step::Advance),
        3 => Just(Step::Release),
        1 => Just(Step::NewProducer),
        1 => Just(Step::NewConsumer),
    ];
    prop::collection::vec(step, 0..300)
}

/// Starts that lie shortly before something wraps, in cells.
fn starts(cells: u64) -> impl Strategy<Value = u64> {
    let lap_end = (1u64 << 49) * cells;
    let edges = [0, 1 << 29, 1 << 32, 1 << 61, 0u64.wrapping_sub(1), lap_end];
    (prop::sample::select(edges.to_vec()), 0u64..60).prop_map(|(at, back)| at.wrapping_sub(back))
}

/// A ring as one would write it without a thought for sharing: a deque of
/// records, each with the cells that it takes, the gap before it included.
struct Oracle {
    /// One more than the ring holds.
    cells: usize,
    /// Index of the next record.
    index: usize,
    /// Not released: (kind, message, cells).
    records: VecDeque<(u32, Vec<u8>, usize)>,
    published: usize,
    passed: usize,
}

impl Oracle {
    fn used(&self) -> usize {
        self.records.iter().map(|r| r.2).sum()
    }

    /// Gap before a record of `n` bytes, if it fits.
    fn gap(&self, n: usize) -> Option<usize> {
        let cells = 1 + n.div_ceil(8);
        let to_end = self.cells - self.index;
        let gap = if cells > to_end { to_end } else { 0 };
        (self.used() + gap + cells < self.cells).then_some(gap)
    }

    fn commit(&mut self, kind: u32, gap: usize, message: Vec<u8>) {
        let cells = gap + 1 + message.len().div_ceil(8);
        self.index = (self.index + cells) % self.cells;
        self.records.push_back((kind, message, cells));
    }
}

proptest! {
    #[test]
    fn behaves_as_a_deque(
        (capacity, start) in (8usize..20).prop_flat_map(|c| (Just(c * 8), starts(c as u64))),
        steps in steps(),
    ) {
        let g = Geometry::new(capacity).unwrap();
        let heap = Heap::zeroed(g.len());
        let (mut tx, mut rx) = ends(&heap, g, start);
        let ring = *tx.ring();
        let mut oracle = Oracle {
            cells: capacity / 8 + 1,
            index: g.laps.index(tx.tail),
            records: VecDeque::new(),
            published: 0,
            passed: 0,
        };
        let mut next = 0u8;
        for step in steps {
            prop_assert_eq!(rx.is_ready(), oracle.published > oracle.passed);
            prop_assert_eq!(tx.is_dirty(), oracle.records.len() > oracle.published);
            match step {
                Step::Reserve(n) => {
                    let n = n.min(g.max_record());
                    prop_assert_eq!(tx.is_ready(n), oracle.gap(n).is_some());
                    // `room` against a search.
                    let most = (0..=n).rev().find(|&m| oracle.gap(m).is_some());
                    prop_assert_eq!(tx.room(n).unwrap(), most);
                    prop_assert_eq!(tx.reserve(n).unwrap().is_some(), oracle.gap(n).is_some());
                }
                Step::Commit(kind, n, m) => {
                    let n = n.min(g.max_record());
                    let m = m.min(n);
                    let grant = tx.reserve(n).unwrap();
                    prop_assert_eq!(grant.is_some(), oracle.gap(n).is_some());
                    if let (Some(grant), Some(gap)) = (grant, oracle.gap(n)) {
                        // All of the grant may be written, whatever is kept.
                        fill(grant, &vec![!next; n]);
                        let message: Vec<u8> = (0..m).map(|i| next.wrapping_add(i as u8)).collect();
                        fill(grant, &message);
                        tx.commit(Kind::from_raw(kind).unwrap(), m);
                        oracle.commit(kind, gap, message);
                        next = next.wrapping_add(1);
                    }
                }
                Step::Publish => {
                    tx.publish();
                    oracle.published = oracle.records.len();
                }
                Step::Peek | Step::Advance => {
                    let expected = oracle.records.get(oracle.passed);
                    let expected = expected.filter(|_| oracle.passed < oracle.published);
                    let found = rx.peek().unwrap();
                    let found = found.map(|r| (r.kind() as u32, bytes(r).to_vec()));
                    prop_assert_eq!(&found, &expected.map(|r| (r.0, r.1.clone())));
                    if matches!(step, Step::Advance) && found.is_some() {
                        rx.advance();
                        oracle.passed += 1;
                    }
                }
                Step::Release => {
                    rx.release();
                    // A gap that was stepped over to look at a record is
                    // given back before the record is.
                    oracle.records.drain(..oracle.passed);
                    oracle.published -= oracle.passed;
                    oracle.passed = 0;
                    if let Some(first) = oracle.records.front_mut() {
                        let own = 1 + first.1.len().div_ceil(8);
                        if g.laps.index(rx.head) == 0 && first.2 > own && rx.peeked > 0 {
                            first.2 = own;
                        }
                    }
                }
                Step::NewProducer => {
                    let lost: usize = oracle.records.drain(oracle.published..).map(|r| r.2).sum();
                    oracle.index = (oracle.index + 2 * oracle.cells - lost) % oracle.cells;
                    // SAFETY: replaces the only producer.
                    tx = unsafe { ring.producer().unwrap() };
                }
                Step::NewConsumer => {
                    oracle.passed = 0;
                    // SAFETY: replaces the only consumer.
                    rx = unsafe { ring.consumer().unwrap() };
                }
            }
            let published: usize = oracle.records.iter().take(oracle.published).map(|r| r.2).sum();
            prop_assert_eq!(ring.len(), published * 8);
        }
    }

    #[test]
    fn any_bytes_are_survived(
        capacity in 64usize..300,
        (tail, head) in (any::<u64>(), any::<u64>()),
        near in 0u64..40,
        plausible: bool,
        cells in prop::collection::vec((prop_oneof![0u32..200, any::<u32>()], 0u32..7), 8..40),
    ) {
        let g = Geometry::new(capacity).unwrap();
        let heap = Heap::zeroed(g.len());
        let laps = g.laps;
        let start = laps.at_count(head);
        let near = laps.forward(start, near as usize % (laps.capacity() + 1));
        let (tail, head) = if plausible { (near.0, start.0) } else { (tail, head) };
        // SAFETY: the block is the test's own and has the ring's size.
        let ring = unsafe { Ring::attach(heap.region(), g) };
        ring.header().tail.store(tail, Ordering::Relaxed);
        ring.header().head.store(head, Ordering::Relaxed);
        for (index, &(len, kind)) in cells.iter().cycle().take(laps.capacity()).enumerate() {
            let header = RecordHeader(u64::from(kind) << 32 | u64::from(len));
            write_header(&ring, laps.at(0, index), header);
        }
        drain(&heap, g);
        // SAFETY: the only producer.
        if let Ok(mut tx) = unsafe { ring.producer() } {
            while let Ok(Some(grant)) = tx.reserve(20) {
                fill(grant, &[1; 20]);
                tx.commit(Kind::Whole, 20);
            }
            tx.publish();
            drain(&heap, g);
        }
    }

    /// A true ring, damaged in one place while its ends go on.
    #[test]
    fn damage_in_use_is_survived(
        scribbles in prop::collection::vec((0usize..14, any::<u64>(), 0usize..4), 1..60),
    ) {
        let g = Geometry::new(96).unwrap();
        let heap = Heap::zeroed(g.len());
        let (mut tx, mut rx) = ends(&heap, g, 7);
        let ring = *tx.ring();
        for (place, value, how) in scribbles {
            for n in [value as usize % 40, 3] {
                if let Ok(Some(grant)) = tx.reserve(n) {
                    fill(grant, &[9; 40][..n]);
                    tx.commit(Kind::Whole, n);
                }
            }
            tx.publish();
            let _ = (rx.peek().map(|r| r.map(|r| bytes(r).len())), tx.is_ready(9), rx.is_ready());
            let twist = |old: u64| match how {
                0 => value,
                1 => old.wrapping_add(value % 9).wrapping_sub(4),
                2 => old ^ (value & 0x7_0000_00ff),
                _ => old,
            };
            match place {
                12 => ring.header().tail.store(twist(tx.tail.0), Ordering::Relaxed),
                13 => ring.header().head.store(twist(rx.head.0), Ordering::Relaxed),
                cell => {
                    let cell = ring.cell(cell).cast::<u64>();
                    // SAFETY: one of the twelve cells; a single thread.
                    unsafe { cell.write(twist(cell.read())) }
                }
            }
            for _ in 0..2 {
                if let Ok(Some(record)) = rx.peek() {
                    std::hint::black_box(bytes(record).iter().fold(0, |a, b| a ^ b));
                    rx.advance();
                }
            }
            rx.release();
            // SAFETY: replace the only ends.
            unsafe {
                tx = ring.producer().unwrap_or(tx);
                rx = ring.consumer().unwrap_or(rx);
            }
        }
    }
}

#[test]
fn two_threads_keep_every_byte() {
    let g = Geometry::new(200).unwrap();
    let heap = Heap::zeroed(g.len());
    let (mut tx, mut rx) = ends(&heap, g, u64::from(u32::MAX) - 1000);
    const N: usize = if cfg!(miri) { 200 } else { 50_000 };
    let message = |i: usize| vec![i as u8; i * 7 % (g.max_record() + 1)];
    std::thread::scope(|s| {
        s.spawn(move || {
            for i in 0..N {
                while !commit(&mut tx, Kind::Whole, &message(i)) {
                    tx.publish();
                    std::thread::yield_now();
                }
                if i % 3 == 0 {
                    tx.publish();
                }
            }
            tx.publish();
        });
        for i in 0..N {
            while !rx.is_ready() {
                rx.release();
                std::thread::yield_now();
            }
            let record = rx.peek().unwrap().unwrap();
            assert_eq!(bytes(record), message(i));
            rx.advance();
            if i % 5 == 0 {
                rx.release();
            }
        }
    });
}
