//! Behaviour, within one process.

use super::*;
use crate::memory::Heap;
use crate::position::MAX_CAPACITY;
use proptest::prelude::*;
use std::collections::VecDeque;

fn geometry(capacity: usize) -> Geometry {
    Geometry::new(capacity, Layout::new::<u64>()).unwrap()
}

fn put(p: NonNull<u8>, value: u64) {
    // SAFETY: a payload of the geometry above, held by the caller.
    unsafe { p.cast().write(value) }
}

fn get(p: NonNull<u8>) -> u64 {
    // SAFETY: as `put`.
    unsafe { p.cast().read() }
}

fn send(producer: &mut Producer<'_>, value: u64) -> bool {
    let Some(slot) = producer.try_claim().unwrap() else { return false };
    put(slot.payload(), value);
    slot.commit();
    true
}

fn receive(consumer: &mut Consumer<'_>) -> Option<u64> {
    let message = consumer.peek().unwrap()?;
    let value = get(message.payload());
    message.release();
    Some(value)
}

/// Starts that lie shortly before something wraps.
fn starts(capacity: usize) -> impl Strategy<Value = u64> {
    let half = (1u64 << 62).wrapping_mul(capacity as u64);
    let edges = [0, 1u64 << 32, 0u64.wrapping_sub(1), half, u64::MAX / 2];
    (prop::sample::select(edges.to_vec()), 0u64..40).prop_map(|(at, back)| at.wrapping_sub(back))
}

#[test]
fn a_small_slot_never_straddles_lines() {
    for size in 0..300 {
        for align in [1, 2, 4, 8, 16, 32, 64] {
            let payload = Layout::from_size_align(size, align).unwrap();
            let g = Geometry::new(3, payload).unwrap();
            assert!(g.payload_offset.is_multiple_of(align) && g.payload_offset + size <= g.stride);
            if g.stride <= 64 {
                assert!(g.stride.is_power_of_two() && g.stride < 2 * (g.payload_offset + size));
            } else {
                assert!(g.stride.is_multiple_of(64) && g.stride - (g.payload_offset + size) < 64);
                let worse = g.payload_offset < 64
                    && size < LARGE
                    && 2 * g.payload_offset + size <= g.stride;
                assert!(!worse, "{size} bytes at {}", g.payload_offset);
            }
        }
    }
}

#[test]
fn impossible_geometries_are_refused() {
    let payload = Layout::new::<u64>();
    assert!(Geometry::new(0, payload).is_err());
    assert!(Geometry::new(MAX_CAPACITY, payload).is_ok());
    assert!(Geometry::new(MAX_CAPACITY + 1, payload).is_err());
    assert!(Geometry::new(1, Layout::from_size_align(8, 128).unwrap()).is_err());
    let huge = Layout::from_size_align(isize::MAX as usize - 63, 8).unwrap();
    assert!(Geometry::new(1, huge).is_err());
    assert!(Geometry::new(1 << 31, Layout::from_size_align(1 << 33, 8).unwrap()).is_err());
}

#[test]
fn the_capacity_is_exact() {
    for capacity in [1, 2, 3, 7, 8, 100] {
        let g = geometry(capacity);
        let heap = Heap::zeroed(g.len());
        // SAFETY: the block is this test's own; one end of each kind.
        let ring = unsafe { Ring::init(heap.region(), g, 0) };
        // SAFETY: as above.
        let (mut tx, mut rx) = unsafe { (ring.producer().unwrap(), ring.consumer().unwrap()) };
        for lap in 0..3 {
            for i in 0..capacity as u64 {
                assert!(tx.is_ready() && send(&mut tx, lap * 1000 + i));
            }
            assert!(!tx.is_ready() && !send(&mut tx, 0));
            assert_eq!((rx.len(), ring.len()), (capacity, capacity));
            for i in 0..capacity as u64 {
                assert!(rx.is_ready());
                assert_eq!(receive(&mut rx), Some(lap * 1000 + i));
            }
            assert!(rx.is_empty() && ring.is_empty() && receive(&mut rx).is_none());
        }
    }
}

#[test]
fn payloads_of_any_layout() {
    for payload in [Layout::new::<()>(), Layout::new::<[u8; 3]>(), Layout::new::<[u64; 50]>()] {
        let g = Geometry::new(5, payload).unwrap();
        let heap = Heap::zeroed(g.len());
        // SAFETY: the block is this test's own; one end of each kind.
        let ring = unsafe { Ring::init(heap.region(), g, 3) };
        // SAFETY: as above.
        let (mut tx, mut rx) = unsafe { (ring.producer().unwrap(), ring.consumer().unwrap()) };
        for i in 0..17u8 {
            let slot = tx.try_claim().unwrap().unwrap();
            // SAFETY: the claimed payload has this many bytes.
            unsafe { slot.payload().write_bytes(i, payload.size()) };
            slot.commit();
            let message = rx.peek().unwrap().unwrap();
            let start = message.payload().as_ptr();
            // SAFETY: as above, for reading.
            let seen = unsafe { std::slice::from_raw_parts(start, payload.size()) };
            assert!(seen.iter().all(|&b| b == i));
            message.release();
        }
    }
}

#[test]
fn successors_find_their_places_at_every_fill() {
    for capacity in 1..20usize {
        for start in [0, 5, u64::from(u32::MAX), u64::MAX - 3] {
            for passed in 0..=capacity {
                for fill in 0..=capacity {
                    let g = geometry(capacity);
                    let heap = Heap::zeroed(g.len());
                    // SAFETY: the block is this test's own; one end of each kind
                    // at a time.
                    let ring = unsafe { Ring::init(heap.region(), g, start) };
                    // SAFETY: as above.
                    let mut tx = unsafe { ring.producer().unwrap() };
                    // SAFETY: as above.
                    let mut rx = unsafe { ring.consumer().unwrap() };
                    for i in 0..passed as u64 {
                        assert!(send(&mut tx, i));
                        assert_eq!(receive(&mut rx), Some(i));
                    }
                    for i in 0..fill as u64 {
                        assert!(send(&mut tx, i));
                    }
                    // SAFETY: the first ends are not used again.
                    let successors =
                        unsafe { (ring.producer().unwrap(), ring.consumer().unwrap()) };
                    assert_eq!((successors.0.tail, successors.1.head), (tx.tail, rx.head));
                    assert_eq!((ring.len(), rx.len()), (fill, fill));
                }
            }
        }
    }
}

#[test]
fn the_search_is_logarithmic() {
    let g = geometry(100_000);
    let heap = Heap::zeroed(g.len());
    // SAFETY: the block is this test's own.
    let ring = unsafe { Ring::init(heap.region(), g, 12_345) };
    for first in [0usize, 1, 2, 3, 50_000, 65_535, 65_536, 99_998, 99_999, 100_000] {
        let mut probes = 0;
        let found = ring.first_not(|index| {
            probes += 1;
            Ok(index < first)
        });
        assert_eq!(found.unwrap(), first);
        assert!(probes <= 2 * 17 + 1, "{probes} probes for {first}");
    }
}

#[test]
fn onlookers_see_a_count_while_the_ring_goes_round() {
    let g = geometry(50);
    let heap = Heap::zeroed(g.len());
    // SAFETY: the block is this test's own; one end of each kind.
    let ring = unsafe { Ring::init(heap.region(), g, 7) };
    // SAFETY: as above.
    let (mut tx, mut rx) = unsafe { (ring.producer().unwrap(), ring.consumer().unwrap()) };
    (0..20).for_each(|i| assert!(send(&mut tx, i)));
    std::thread::scope(|s| {
        // Between 20 and 21 messages at any time.
        let mover = s.spawn(move || {
            for i in 20..20_000 {
                assert!(send(&mut tx, i));
                assert_eq!(receive(&mut rx), Some(i - 20));
            }
        });
        while !mover.is_finished() {
            assert!(ring.len() <= 50);
        }
        mover.join().unwrap();
    });
    assert_eq!(ring.len(), 20);
}

#[test]
fn what_a_dead_producer_did_not_commit_never_was() {
    let g = geometry(2);
    let heap = Heap::zeroed(g.len());
    // SAFETY: the block is this test's own; one end of each kind at a time.
    let ring = unsafe { Ring::init(heap.region(), g, 0) };
    // SAFETY: as above.
    let (mut tx, mut rx) = unsafe { (ring.producer().unwrap(), ring.consumer().unwrap()) };
    assert!(send(&mut tx, 1));
    put(tx.try_claim().unwrap().unwrap().payload(), 2);
    // SAFETY: the first producer is not used again.
    let mut tx = unsafe { ring.producer().unwrap() };
    assert!(send(&mut tx, 3));
    assert!(!send(&mut tx, 4));
    assert_eq!((receive(&mut rx), receive(&mut rx), receive(&mut rx)), (Some(1), Some(3), None));
}

#[test]
fn a_hostile_word_is_an_error_to_who_meets_it() {
    let g = geometry(5);
    let heap = Heap::zeroed(g.len());
    // SAFETY: the block is this test's own; one end of each kind at a time.
    let ring = unsafe { Ring::init(heap.region(), g, 12) };
    // SAFETY: as above.
    let (mut tx, mut rx) = unsafe { (ring.producer().unwrap(), ring.consumer().unwrap()) };
    let word = &ring.slot(tx.tail).word;
    let truth = word.load(Ordering::Relaxed);
    assert_eq!((truth, tx.ring.index(tx.tail)), (4, 2));
    for bad in [0, 1, 2, 6, 7, u64::MAX, 1 << 63, truth | 1 << 40] {
        word.store(bad, Ordering::Relaxed);
        assert!(matches!(tx.try_claim(), Err(Error::Corrupt { at: 2, .. })), "{bad:x}");
        assert!(matches!(rx.peek(), Err(Error::Corrupt { at: 2, .. })), "{bad:x}");
        // The waiting looks let the caller find out.
        assert!(tx.is_ready() && rx.is_ready());
        assert!(ring.len() <= 5 && rx.len() <= 5);
    }
    // Impossible for the one, a message to the other: and the other way round.
    word.store(truth + 1, Ordering::Relaxed);
    assert!(tx.try_claim().is_err() && rx.peek().unwrap().is_some());
    word.store(truth - 1, Ordering::Relaxed);
    assert!(tx.try_claim().unwrap().is_none() && rx.peek().is_err());
    word.store(truth, Ordering::Relaxed);
    assert!(tx.try_claim().unwrap().is_some() && rx.peek().unwrap().is_none());
}

#[test]
fn a_batch_judges_a_line_by_its_last_word() {
    let g = geometry(8);
    assert_eq!(Spot::of(Layout::new::<u64>()).unwrap().in_line(), 4);
    for nth in 0..4 {
        let heap = Heap::zeroed(g.len());
        // SAFETY: the block is this test's own; one end of each kind.
        let ring = unsafe { Ring::init(heap.region(), g, 0) };
        // SAFETY: as above.
        let (mut tx, mut rx) = unsafe { (ring.producer().unwrap(), ring.consumer().unwrap()) };
        let word = &ring.slot(ring.at_index(0, nth)).word;
        let whole = if nth == 3 { 3 } else { 8 };
        let mut send_from = |from: usize, whole: usize| {
            let n = tx.publish_each(8, |nth| (from + nth) as u64, || true, || ());
            assert_eq!(n, whole);
            tx.try_claim().map(|slot| slot.is_some())
        };
        let truth = word.swap(77, Ordering::Relaxed);
        let after = send_from(0, whole);
        if whole < 8 {
            assert!(matches!(after, Err(Error::Corrupt { at: 3, .. })));
            word.store(truth, Ordering::Relaxed);
            assert!(matches!(send_from(3, 5), Ok(false)));
        }
        let truth = word.swap(77, Ordering::Relaxed);
        let mut seen = Vec::new();
        let see = |_, p: NonNull<u64>| seen.push(get(p.cast()));
        assert_eq!(rx.read_each(8, see, || true), whole);
        assert_eq!(seen, (0..whole as u64).collect::<Vec<_>>());
        rx.release_each::<u64>(whole);
        if whole < 8 {
            assert!(matches!(rx.peek(), Err(Error::Corrupt { at: 3, .. })));
            word.store(truth, Ordering::Relaxed);
            assert_eq!(rx.read_each::<u64>(8, |_, _| (), || true), 5);
        }
    }
}

#[test]
fn a_hostile_word_is_an_error_after_what_is_whole() {
    let g = geometry(4);
    let heap = Heap::zeroed(g.len());
    // SAFETY: the block is this test's own; one end of each kind.
    let ring = unsafe { Ring::init(heap.region(), g, 0) };
    // SAFETY: as above.
    let (mut tx, mut rx) = unsafe { (ring.producer().unwrap(), ring.consumer().unwrap()) };
    assert!(send(&mut tx, 1) && send(&mut tx, 2));
    ring.slot(ring.at_index(0, 1)).word.store(77, Ordering::Relaxed);
    assert_eq!(receive(&mut rx), Some(1));
    assert!(rx.is_ready());
    assert!(matches!(rx.peek(), Err(Error::Corrupt { at: 1, .. })));
    assert!(rx.len() <= 4 && ring.len() <= 4);
}

#[test]
fn successors_refuse_a_torn_word() {
    for capacity in 2..12 {
        for fill in 0..capacity {
            for torn in 0..capacity {
                for bad in [0, 1, u64::MAX, 1 << 63, 20] {
                    let g = geometry(capacity);
                    let heap = Heap::zeroed(g.len());
                    // SAFETY: the block is this test's own; one end at a time.
                    let ring = unsafe { Ring::init(heap.region(), g, 1000) };
                    // SAFETY: as above.
                    let mut tx = unsafe { ring.producer().unwrap() };
                    (0..fill).for_each(|i| assert!(send(&mut tx, i as u64)));
                    ring.slot(ring.at_index(0, torn)).word.store(bad, Ordering::Relaxed);
                    // SAFETY: as above.
                    let (tx, rx) = unsafe { (ring.producer(), ring.consumer()) };
                    // The search need not come by, but then the place is right.
                    if torn == 0 {
                        assert!(tx.is_err() && rx.is_err(), "{capacity} {fill} {bad:x}");
                    }
                    let expected = ring.forward(ring.at_index(1000 / capacity as u64, 0), 0);
                    let start = ring.forward(expected, 1000 % capacity);
                    assert!(tx.is_err() || tx.unwrap().tail == ring.forward(start, fill));
                    assert!(rx.is_err() || rx.unwrap().head == start);
                }
            }
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Send,
    ClaimOnly,
    SendMany(usize),
    Receive,
    PeekOnly,
    ReceiveMany(usize),
    NewProducer,
    NewConsumer,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec(
        prop_oneof![
            4 => Just(Step::Send),
            1 => Just(Step::ClaimOnly),
            2 => (0usize..12).prop_map(Step::SendMany),
            4 => Just(Step::Receive),
            1 => Just(Step::PeekOnly),
            2 => (0usize..12).prop_map(Step::ReceiveMany),
            1 => Just(Step::NewProducer),
            1 => Just(Step::NewConsumer),
        ],
        0..200,
    )
}

proptest! {
    #[test]
    fn behaves_as_a_deque(
        (capacity, start) in (1usize..12).prop_flat_map(|c| (Just(c), starts(c))),
        steps in steps(),
    ) {
        let g = geometry(capacity);
        let heap = Heap::zeroed(g.len());
        // SAFETY: the block is this test's own; one end of each kind at a
        // time: each successor replaces the end before it.
        let ring = unsafe { Ring::init(heap.region(), g, start) };
        // SAFETY: as above.
        let (mut tx, mut rx) = unsafe { (ring.producer().unwrap(), ring.consumer().unwrap()) };
        let mut oracle = VecDeque::new();
        let mut next = 0u64;
        for step in steps {
            prop_assert_eq!(tx.is_ready(), oracle.len() < capacity);
            prop_assert_eq!(rx.is_ready(), !oracle.is_empty());
            match step {
                Step::Send => {
                    let sent = send(&mut tx, next);
                    prop_assert_eq!(sent, oracle.len() < capacity);
                    if sent {
                        oracle.push_back(next);
                    }
                    next += 1;
                }
                Step::ClaimOnly => {
                    if let Some(slot) = tx.try_claim().unwrap() {
                        put(slot.payload(), u64::MAX);
                    }
                }
                Step::SendMany(max) => {
                    let n = tx.publish_each(max, |nth| next + nth as u64, || true, || ());
                    prop_assert_eq!(n, max.min(capacity - oracle.len()));
                    oracle.extend(next..next + n as u64);
                    next += n as u64;
                }
                Step::Receive => prop_assert_eq!(receive(&mut rx), oracle.pop_front()),
                Step::PeekOnly => {
                    let seen = rx.peek().unwrap().map(|message| get(message.payload()));
                    prop_assert_eq!(seen, oracle.front().copied());
                }
                Step::ReceiveMany(max) => {
                    let mut seen = Vec::new();
                    let see = |_, p: NonNull<u64>| seen.push(get(p.cast()));
                    let n = rx.read_each(max.min(capacity), see, || true);
                    rx.release_each::<u64>(n);
                    prop_assert_eq!(n, max.min(oracle.len()));
                    prop_assert_eq!(seen, oracle.drain(..n).collect::<Vec<_>>());
                }
                // SAFETY: replaces the only producer.
                Step::NewProducer => tx = unsafe { ring.producer().unwrap() },
                // SAFETY: replaces the only consumer.
                Step::NewConsumer => rx = unsafe { ring.consumer().unwrap() },
            }
            prop_assert_eq!(ring.len(), oracle.len());
            prop_assert_eq!(rx.len(), oracle.len());
            for n in 1..=capacity {
                prop_assert_eq!(tx.has_room(n), oracle.len() + n <= capacity);
                prop_assert_eq!(rx.has_stock(n), oracle.len() >= n);
            }
        }
    }

    #[test]
    fn any_bytes_are_survived(
        capacity in 1usize..6,
        start: u64,
        scribbles in prop::collection::vec((0usize..8, any::<u64>(), any::<bool>()), 1..60),
    ) {
        let g = geometry(capacity);
        let heap = Heap::zeroed(g.len());
        // SAFETY: the block is this test's own; one end of each kind at a
        // time, and only this thread scribbles.
        let ring = unsafe { Ring::init(heap.region(), g, start) };
        // SAFETY: as above.
        let (mut tx, mut rx) = unsafe { (ring.producer().unwrap(), ring.consumer().unwrap()) };
        for (place, value, small) in scribbles {
            let word = &ring.slot(ring.at_index(0, place % capacity)).word;
            let old = word.load(Ordering::Relaxed);
            let new = if small { old.wrapping_add(value % 5).wrapping_sub(2) } else { value };
            word.store(new, Ordering::Relaxed);
            for _ in 0..2 {
                if let Ok(Some(slot)) = tx.try_claim() {
                    put(slot.payload(), 1);
                    slot.commit();
                }
                if let Ok(Some(message)) = rx.peek() {
                    get(message.payload());
                    message.release();
                }
                let _ = (tx.is_ready(), rx.is_ready(), rx.len(), ring.len());
                let n = value as usize % capacity + 1;
                let sent = tx.publish_each(n, |nth| nth as u64, || n.is_multiple_of(3), || ());
                let most = if n.is_multiple_of(3) { n } else { 0 };
                prop_assert!(sent <= most);
                let seen = rx.read_each::<u64>(n, |_, _| (), || n.is_multiple_of(2));
                prop_assert!(seen <= n);
                rx.release_each::<u64>(seen);
            }
            // SAFETY: replace the only ends.
            unsafe {
                tx = ring.producer().unwrap_or(tx);
                rx = ring.consumer().unwrap_or(rx);
            }
        }
    }
}

#[test]
fn two_threads_keep_the_order() {
    let g = geometry(7);
    let heap = Heap::zeroed(g.len());
    // SAFETY: the block is this test's own; one end of each kind.
    let ring = unsafe { Ring::init(heap.region(), g, u64::from(u32::MAX) - 1000) };
    // SAFETY: as above.
    let (mut tx, mut rx) = unsafe { (ring.producer().unwrap(), ring.consumer().unwrap()) };
    const N: u64 = if cfg!(miri) { 300 } else { 100_000 };
    std::thread::scope(|s| {
        s.spawn(move || {
            for i in 0..N {
                while !send(&mut tx, i) {
                    std::thread::yield_now();
                }
            }
        });
        for i in 0..N {
            let got = loop {
                match receive(&mut rx) {
                    Some(got) => break got,
                    None => std::thread::yield_now(),
                }
            };
            assert_eq!(got, i);
        }
    });
}
