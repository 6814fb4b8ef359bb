//! Rings that do nothing but carry messages, as textbooks have them.
//!
//! No names, no checks, no waiting, and nobody may die.
//!
//! *One to one*: `tail` counts the messages ever published, `head` those ever
//! released, each on a line of its own, and each side keeps a copy of the
//! other's count, which it renews when the copy says full or empty.
//!
//! *Many to many*: Vyukov's bounded queue. Slot `i` carries a sequence number,
//! which is `p` when position `p` may be written there, and `p + 1` when it may
//! be read.
//!
//! | edge | release                 | acquire               | makes visible   |
//! |------|-------------------------|-----------------------|-----------------|
//! | P    | publish: tail, sequence | look: tail, sequence  | the message     |
//! | F    | release: head, sequence | claim: head, sequence | the slot, free  |

use crate::Result;
use crate::os::Shared;
use crate::speed::channel::{
    About, Channel, Delivery, Kind, Origin, Place, Rx, Shape, System, Tx, check, fill_raw,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Offsets, each on a pair of lines of its own.
const TAIL: usize = 0;
const HEAD: usize = 128;
const SLOTS: usize = 256;

/// Shared memory, and the number of slots: a power of two.
pub struct Memory {
    shared: Shared,
    mask: u64,
}

impl Memory {
    fn new(shape: Shape, stride: usize) -> Result<Arc<Memory>> {
        let slots = shape.capacity.next_power_of_two();
        let shared = Shared::new(SLOTS + slots * stride)?;
        Ok(Arc::new(Memory { shared, mask: slots as u64 - 1 }))
    }

    #[inline(always)]
    fn word(&self, offset: usize) -> &AtomicU64 {
        // SAFETY: eight zeroed bytes, and only ever used as this word.
        unsafe { self.shared.at(offset) }
    }

    #[inline(always)]
    fn slot(&self, position: u64, stride: usize) -> usize {
        SLOTS + (position & self.mask) as usize * stride
    }
}

// One to one.

pub struct OneToOne;
pub struct Spsc(Arc<Memory>);

pub struct SpscTx {
    memory: Arc<Memory>,
    tail: u64,
    /// Last `HEAD` that was seen.
    head: u64,
}

pub struct SpscRx {
    memory: Arc<Memory>,
    head: u64,
    /// Last `TAIL` that was seen.
    tail: u64,
}

impl System for OneToOne {
    const ABOUT: About = About {
        name: "sketch: index ring",
        origin: Origin::Here,
        place: Place::Processes,
        delivery: Delivery::Once,
        kinds: &[Kind::Trip, Kind::Stream],
        streams_block: false,
        most: (1, 1),
        note: "no system, a sketch: cached indices in an inherited mapping, in place, nothing \
               checked, nobody may die",
    };
    type Channel<const W: usize> = Spsc;
}

impl<const W: usize> Channel<W> for Spsc {
    type Tx = SpscTx;
    type Rx = SpscRx;

    fn make(_: &str, shape: Shape) -> Result<Self> {
        Ok(Spsc(Memory::new(shape, 8 * W)?))
    }

    fn tx(&self) -> Result<SpscTx> {
        Ok(SpscTx { memory: self.0.clone(), tail: 0, head: 0 })
    }

    fn rx(&self) -> Result<SpscRx> {
        Ok(SpscRx { memory: self.0.clone(), head: 0, tail: 0 })
    }
}

impl SpscTx {
    /// Publishes what `write` writes, if there is room.
    #[inline(always)]
    pub fn put<const W: usize>(&mut self, write: impl FnOnce(*mut [u64; W])) -> bool {
        let memory = &*self.memory;
        if self.tail - self.head > memory.mask {
            // Edge F: pairs with the store in `get`.
            self.head = memory.word(HEAD).load(Ordering::Acquire);
            if self.tail - self.head > memory.mask {
                return false;
            }
        }
        write(memory.shared.pointer(memory.slot(self.tail, 8 * W)).cast());
        self.tail += 1;
        // Edge P: pairs with the load in `get`.
        memory.word(TAIL).store(self.tail, Ordering::Release);
        true
    }
}

impl SpscRx {
    /// Lends the next message to `read`, then releases it.
    #[inline(always)]
    pub fn get<const W: usize>(
        &mut self,
        read: impl FnOnce(*const [u64; W]) -> u64,
    ) -> Option<u64> {
        let memory = &*self.memory;
        if self.head == self.tail {
            // Edge P: pairs with the store in `put`.
            self.tail = memory.word(TAIL).load(Ordering::Acquire);
            if self.head == self.tail {
                return None;
            }
        }
        let found = read(memory.shared.pointer(memory.slot(self.head, 8 * W)).cast());
        self.head += 1;
        // Edge F: pairs with the load in `put`.
        memory.word(HEAD).store(self.head, Ordering::Release);
        Some(found)
    }
}

impl<const W: usize> Tx<W> for SpscTx {
    #[inline(always)]
    fn try_send(&mut self, head: u64) -> bool {
        // SAFETY: inside the mapping and aligned; free, so this side's alone.
        self.put::<W>(|slot| unsafe { fill_raw(slot, head) })
    }
}

impl<const W: usize> Rx<W> for SpscRx {
    #[inline(always)]
    fn try_recv(&mut self) -> Option<u64> {
        // SAFETY: inside the mapping and aligned; published, so nobody writes it
        // until it is released.
        self.get::<W>(|slot| check(unsafe { &*slot }))
    }
}

// The same handshake around a bare copy.

pub struct Copy;
pub struct CopyChannel(Spsc);
pub struct CopyTx<const W: usize>(SpscTx, Box<[u64; W]>);
pub struct CopyRx<const W: usize>(SpscRx, Box<[u64; W]>);

impl System for Copy {
    const ABOUT: About = About {
        name: "floor: copy in, copy out",
        origin: Origin::Here,
        place: Place::Processes,
        delivery: Delivery::Once,
        kinds: &[Kind::Stream],
        streams_block: false,
        most: (1, 1),
        note: "what two cores can carry: the index ring around one memcpy from private memory and \
               one to it; first and last word checked",
    };
    type Channel<const W: usize> = CopyChannel;
}

impl<const W: usize> Channel<W> for CopyChannel {
    type Tx = CopyTx<W>;
    type Rx = CopyRx<W>;

    fn make(name: &str, shape: Shape) -> Result<Self> {
        Ok(CopyChannel(<Spsc as Channel<W>>::make(name, shape)?))
    }

    fn tx(&self) -> Result<CopyTx<W>> {
        Ok(CopyTx(<Spsc as Channel<W>>::tx(&self.0)?, Box::new([0; W])))
    }

    fn rx(&self) -> Result<CopyRx<W>> {
        Ok(CopyRx(<Spsc as Channel<W>>::rx(&self.0)?, Box::new([0; W])))
    }
}

impl<const W: usize> Tx<W> for CopyTx<W> {
    #[inline(always)]
    fn try_send(&mut self, head: u64) -> bool {
        let CopyTx(ring, message) = self;
        (message[0], message[W - 1]) = (head, head);
        // SAFETY: as in `SpscTx`; the private message is no part of the slot.
        ring.put::<W>(|slot| unsafe { slot.copy_from_nonoverlapping(&**message, 1) })
    }
}

impl<const W: usize> Rx<W> for CopyRx<W> {
    #[inline(always)]
    fn try_recv(&mut self) -> Option<u64> {
        let CopyRx(ring, message) = self;
        // SAFETY: as in `SpscRx`; the private message is no part of the slot.
        ring.get::<W>(|slot| unsafe {
            slot.copy_to_nonoverlapping(&mut **message, 1);
            0
        })?;
        assert_eq!(message[0], message[W - 1], "a message arrived torn");
        Some(message[0])
    }
}

// Many to many.

pub struct ManyToMany;
pub struct Mpmc(Arc<Memory>);

/// A slot's sequence number, then the message. (A slot of 8 B messages is a
/// quarter of a line, one of 64 B messages a line and a bit: as it comes.)
const fn stride(words: usize) -> usize {
    8 + 8 * words
}

impl System for ManyToMany {
    const ABOUT: About = About {
        name: "sketch: Vyukov ring",
        origin: Origin::Here,
        place: Place::Processes,
        delivery: Delivery::Once,
        kinds: &[Kind::Trip, Kind::Stream, Kind::Many],
        streams_block: false,
        most: (usize::MAX, usize::MAX),
        note: "no system, a sketch: claims by compare-and-swap on shared counters in an \
               inherited mapping, in place, nothing checked, nobody may die",
    };
    type Channel<const W: usize> = Mpmc;
}

impl<const W: usize> Channel<W> for Mpmc {
    type Tx = Mpmc;
    type Rx = Mpmc;

    fn make(_: &str, shape: Shape) -> Result<Self> {
        let memory = Memory::new(shape, stride(W))?;
        for position in 0..=memory.mask {
            // Before anybody else is there.
            memory.word(memory.slot(position, stride(W))).store(position, Ordering::Relaxed);
        }
        Ok(Mpmc(memory))
    }

    fn tx(&self) -> Result<Mpmc> {
        Ok(Mpmc(self.0.clone()))
    }

    fn rx(&self) -> Result<Mpmc> {
        Ok(Mpmc(self.0.clone()))
    }
}

impl Mpmc {
    /// Claims the next position of a counter whose slot is `ahead` of it.
    #[inline(always)]
    fn claim(&self, counter: usize, stride: usize, ahead: u64) -> Option<(u64, usize)> {
        let memory = &*self.0;
        let counter = memory.word(counter);
        let mut position = counter.load(Ordering::Relaxed);
        loop {
            let slot = memory.slot(position, stride);
            // Edges P and F: pairs with the stores after a claim.
            let sequence = memory.word(slot).load(Ordering::Acquire);
            match sequence.wrapping_sub(position + ahead) as i64 {
                0 => {
                    // The slot's word orders; this only decides who claims.
                    let order = Ordering::Relaxed;
                    match counter.compare_exchange_weak(position, position + 1, order, order) {
                        Ok(_) => return Some((position, slot)),
                        Err(now) => position = now,
                    }
                }
                ..0 => return None,
                _ => position = counter.load(Ordering::Relaxed),
            }
        }
    }
}

impl<const W: usize> Tx<W> for Mpmc {
    #[inline(always)]
    fn try_send(&mut self, head: u64) -> bool {
        let Some((position, slot)) = self.claim(TAIL, stride(W), 0) else { return false };
        // SAFETY: inside the mapping and aligned; claimed, so this side's alone.
        unsafe { fill_raw::<W>(self.0.shared.pointer(slot + 8).cast(), head) };
        // Edge P: pairs with the load in `claim`.
        self.0.word(slot).store(position + 1, Ordering::Release);
        true
    }
}

impl<const W: usize> Rx<W> for Mpmc {
    #[inline(always)]
    fn try_recv(&mut self) -> Option<u64> {
        let (position, slot) = self.claim(HEAD, stride(W), 1)?;
        // SAFETY: inside the mapping and aligned; claimed, so nobody writes it
        // until it is released below.
        let found = check::<W>(unsafe { &*self.0.shared.pointer(slot + 8).cast() });
        // Edge F: pairs with the load in `claim`.
        self.0.word(slot).store(position + self.0.mask + 1, Ordering::Release);
        Some(found)
    }
}
