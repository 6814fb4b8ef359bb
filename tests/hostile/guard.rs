//! Memory with walls: behind and before it lie pages that nobody may touch, so
//! that the first access outside ends the program.

use crate::objects::{KINDS, Objects, builder};
use crate::outside::{Mapped, path};
use crate::scribble::scribble;
use crate::support::Name;
use crate::watch::{Random, Watch, rounds};
use slipring::ring::{Owner, bytes, mpmc, spsc};
use slipring::*;
use std::alloc::Layout;
use std::ptr::NonNull;
use std::time::Duration;

const PAGE: usize = 4096;

/// Inaccessible pages.
struct Wall {
    base: *mut libc::c_void,
    len: usize,
}

impl Wall {
    /// Somewhere, or exactly there; `None` if there is something already.
    fn new(at: usize, len: usize) -> Option<Wall> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        let flags = if at == 0 { flags } else { flags | libc::MAP_FIXED_NOREPLACE };
        let hint = std::ptr::without_provenance_mut(at);
        // SAFETY: a new anonymous mapping, which replaces none.
        let base = unsafe { libc::mmap(hint, len, libc::PROT_NONE, flags, -1, 0) };
        (base != libc::MAP_FAILED).then_some(Wall { base, len })
    }
}

impl Drop for Wall {
    fn drop(&mut self) {
        // SAFETY: mapped in `new`; nobody uses it.
        unsafe { libc::munmap(self.base, self.len) };
    }
}

/// A block between walls.
struct Walled {
    wall: Wall,
    len: usize,
}

impl Walled {
    fn new(len: usize) -> Walled {
        let len = len.next_multiple_of(PAGE);
        let wall = Wall::new(0, len + 2 * PAGE).unwrap();
        // SAFETY: the pages between the first and the last of the wall's.
        let done = unsafe {
            libc::mprotect(wall.base.byte_add(PAGE), len, libc::PROT_READ | libc::PROT_WRITE)
        };
        assert_eq!(done, 0);
        Walled { wall, len }
    }

    /// A region that ends at the wall behind, or starts at the one before.
    fn region(&self, len: usize, at_end: bool) -> Region<'_> {
        let offset = if at_end { self.len - len } else { 0 };
        // SAFETY: inside the accessible pages, which live as long as `self`.
        unsafe {
            let base = NonNull::new(self.wall.base.cast::<u8>().add(PAGE + offset)).unwrap();
            Region::from_raw(base, len)
        }
    }
}

/// Writes anything to some words of the region, or to all.
fn damage(region: Region<'_>, random: &mut Random, all: bool) {
    let words = region.len() as u64 / 8;
    let count = if all { words } else { 1 + random.below(3) };
    for i in 0..count {
        let at = if all { i } else { random.below(words) };
        // SAFETY: inside the region; one thread.
        unsafe {
            let word = region.base().as_ptr().cast::<u64>().add(at as usize);
            let value = match random.below(6) {
                0 => random.next(),
                1 => random.below(300),
                2 => word.read().wrapping_add(random.below(9)).wrapping_sub(4),
                3 => word.read() ^ 1 << random.below(64),
                4 => random.below(6) << 32 | random.below(200),
                _ => word.read().wrapping_add(random.below(8) << 12 | random.below(4)),
            };
            word.write(value);
        }
    }
}

/// Writes and reads a payload, which must lie inside the region, not only
/// between the walls.
fn touch(region: Region<'_>, payload: NonNull<u8>, len: usize) {
    let start = payload.as_ptr().addr() - region.base().as_ptr().addr();
    assert!(start <= region.len() && len <= region.len() - start);
    for i in 0..len {
        // SAFETY: inside the region, as asserted; one thread.
        unsafe { *payload.as_ptr().add(i) ^= 0x5a };
    }
}

#[test]
fn around_the_owned_slot_ring() {
    let watch = Watch::new("owned slots");
    for seed in 0..rounds(1500) {
        watch.step(|| format!("seed {seed}"));
        let mut random = Random::new(seed);
        let payload = Layout::from_size_align(random.below(80) as usize, 1 << random.below(4));
        let capacity = 1 + random.below(20) as usize;
        let geometry = mpmc::Geometry::new(capacity, payload.unwrap()).unwrap();
        let walled = Walled::new(geometry.len());
        let region = walled.region(geometry.len(), seed % 2 == 0);
        // SAFETY: the block is the test's own, and has the ring's size.
        let ring = unsafe { mpmc::Ring::init(region, geometry, random.next() >> 8) };
        damage(region, &mut random, seed % 3 == 0);
        for _ in 0..60 {
            let me = Owner::new(1 + random.below(3) as u16).unwrap();
            match random.below(7) {
                0 | 1 => {
                    if let Ok(claim) = ring.try_claim(me) {
                        touch(region, claim.payload(), geometry.payload().size());
                        if random.below(4) > 0 { ring.commit(claim) } else { ring.abandon(claim) }
                    }
                }
                2 | 3 => {
                    if let Ok(taken) = ring.try_take(me) {
                        touch(region, taken.payload(), geometry.payload().size());
                        ring.release(taken);
                    }
                }
                4 => {
                    if let Some(taken) = ring.try_adopt(me) {
                        touch(region, taken.payload(), geometry.payload().size());
                    }
                }
                5 => {
                    ring.recover(me, mpmc::Delivery::AtLeastOnce);
                    assert!(ring.len() <= capacity);
                    let _ = (ring.is_full(), ring.is_empty(), ring.counts());
                }
                _ => damage(region, &mut random, false),
            }
        }
    }
}

#[test]
fn around_the_message_ring() {
    let watch = Watch::new("messages");
    for seed in 0..rounds(1500) {
        watch.step(|| format!("seed {seed}"));
        let mut random = Random::new(seed);
        let payload = Layout::from_size_align(random.below(80) as usize, 1 << random.below(4));
        let capacity = 1 + random.below(20) as usize;
        let geometry = spsc::Geometry::new(capacity, payload.unwrap()).unwrap();
        let size = geometry.payload().size();
        let walled = Walled::new(geometry.len());
        let region = walled.region(geometry.len(), seed % 2 == 0);
        // SAFETY: the block is the test's own, and has the ring's size.
        let ring = unsafe { spsc::Ring::init(region, geometry, random.next() >> 8) };
        // SAFETY: one of each at a time, here and below.
        let (mut tx, mut rx) = unsafe { (ring.producer().unwrap(), ring.consumer().unwrap()) };
        damage(region, &mut random, seed % 3 == 0);
        for _ in 0..60 {
            match random.below(7) {
                0 | 1 => {
                    if let Ok(Some(slot)) = tx.try_claim() {
                        touch(region, slot.payload(), size);
                        if random.below(4) > 0 {
                            slot.commit();
                        }
                    }
                }
                2 | 3 => {
                    if let Ok(Some(message)) = rx.peek() {
                        touch(region, message.payload(), size);
                        if random.below(4) > 0 {
                            message.release();
                        }
                    }
                }
                // SAFETY: replaces the only one.
                4 => tx = unsafe { ring.producer() }.unwrap_or(tx),
                // SAFETY: as above.
                5 => rx = unsafe { ring.consumer() }.unwrap_or(rx),
                _ => damage(region, &mut random, false),
            }
            assert!(ring.len() <= capacity && rx.len() <= capacity);
            let _ = (tx.is_ready(), rx.is_ready());
        }
    }
}

#[test]
fn around_the_byte_ring() {
    let watch = Watch::new("bytes");
    for seed in 0..rounds(1500) {
        watch.step(|| format!("seed {seed}"));
        let mut random = Random::new(seed);
        let geometry = bytes::Geometry::new(64 + random.below(200) as usize).unwrap();
        let walled = Walled::new(geometry.len());
        let region = walled.region(geometry.len(), seed % 2 == 0);
        // SAFETY: the block is the test's own, and has the ring's size.
        let ring = unsafe { bytes::Ring::init(region, geometry, random.next() >> 8) };
        // SAFETY: one of each at a time, here and below.
        let (mut tx, mut rx) = unsafe { (ring.producer().unwrap(), ring.consumer().unwrap()) };
        damage(region, &mut random, seed % 3 == 0);
        for _ in 0..60 {
            match random.below(7) {
                0 | 1 => {
                    let len = random.below(1 + geometry.max_record() as u64) as usize;
                    if let Ok(Some(grant)) = tx.reserve(len) {
                        touch(region, grant.ptr(), len);
                        tx.commit(bytes::Kind::Whole, len / (1 + random.below(2) as usize));
                    }
                    tx.publish();
                }
                2 | 3 => {
                    if let Ok(Some(record)) = rx.peek() {
                        touch(region, record.ptr(), record.len());
                        rx.advance();
                    }
                    rx.release();
                }
                // SAFETY: replaces the only one.
                4 => tx = unsafe { ring.producer() }.unwrap_or(tx),
                // SAFETY: as above.
                5 => rx = unsafe { ring.consumer() }.unwrap_or(rx),
                _ => damage(region, &mut random, false),
            }
            assert!(ring.len() <= geometry.capacity());
            let _ = (tx.is_ready(30), tx.room(50), rx.is_ready());
        }
    }
}

/// Mappings of this process: start, end, whether inaccessible, path.
fn mappings() -> Vec<(usize, usize, bool, String)> {
    let all = std::fs::read_to_string("/proc/self/maps").unwrap();
    let parse = |line: &str| {
        let mut fields = line.split_ascii_whitespace();
        let (start, end) = fields.next()?.split_once('-')?;
        let closed = fields.next()?.starts_with("---");
        let path = fields.nth(3).unwrap_or("").to_owned();
        let number = |hex| usize::from_str_radix(hex, 16).ok();
        Some((number(start)?, number(end)?, closed, path))
    };
    all.lines().filter_map(parse).collect()
}

/// Opens the segment between walls. The kernel puts mappings one below the
/// other, so a wall before and one after usually do; if not, once more.
fn walled_segment(name: &str) -> (Segment, Vec<Wall>) {
    let path = path(name);
    let mut walls = Vec::new();
    for _ in 0..100 {
        walls.extend(Wall::new(0, PAGE));
        let segment = Segment::open(name).unwrap();
        walls.extend(Wall::new(0, PAGE));
        let ours = |(.., file): &&(usize, usize, bool, String)| path.to_str() == Some(file);
        let (start, end) = match mappings().iter().find(ours) {
            Some((start, end, ..)) => (*start, *end),
            None => panic!("not mapped"),
        };
        walls.extend(Wall::new(end, PAGE));
        walls.extend(Wall::new(start - PAGE, PAGE));
        let all = mappings();
        let closed = |at: usize| all.iter().any(|(s, e, closed, _)| *closed && *s <= at && at < *e);
        if closed(end) && closed(start - 1) {
            return (segment, walls);
        }
    }
    panic!("no place for walls");
}

#[test]
fn around_a_segment_of_every_kind() {
    let watch = Watch::new("walls");
    for seed in 0..rounds(40) {
        let (name, context) = (Name::new("walls"), format!("seed {seed}"));
        // Each kind is the last once, and ends where the mapping does.
        let last = seed as usize % KINDS.len();
        let pad = |bytes| builder(&name, last, bytes).create().unwrap();
        let least = pad(0).len();
        Segment::unlink(&name).unwrap();
        let segment = pad(least.next_multiple_of(PAGE) - least);
        assert!(segment.len().is_multiple_of(PAGE), "{}", segment.len());
        let end = segment.objects().iter().map(|o| o.offset + o.len).max();
        assert_eq!(end, Some(segment.len()), "the last object ends before the segment");
        drop(segment);

        watch.step(|| format!("{context}, opening"));
        let (segment, _walls) = walled_segment(&name);
        let outside = Mapped::open(&name);
        let mut random = Random::new(seed);
        let mut objects = Objects::open(&segment, Duration::ZERO);
        for _ in 0..20 {
            for _ in 0..1 + random.below(4) {
                scribble(&outside, &mut random, false);
            }
            for _ in 0..20 {
                objects.step(&mut random, &watch, &context);
            }
        }
    }
}
