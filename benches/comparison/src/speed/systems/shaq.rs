//! shaq's SPSC and MPMC rings in a shared file.

use crate::Result;
use crate::speed::channel::{
    About, BATCH, Channel, Delivery, Idle, Kind, Origin, Place, Rx, Shape, System, Tx, check,
    fill_raw, message, said,
};
use shaq::{mpmc, spsc};
use std::fs::File;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::time::Duration;

/// Messages above this many words are made and read in place.
const BY_VALUE: usize = 8;
const ONE: NonZeroUsize = NonZeroUsize::MIN;
const MANY: NonZeroUsize = NonZeroUsize::new(BATCH).unwrap();
const LONG: Duration = Duration::from_secs(60);

/// A file in shared memory that is gone when its users are.
fn file(name: &str, size: usize) -> Result<File> {
    let path = format!("/dev/shm/{name}");
    let file = File::options().read(true).write(true).create_new(true).open(&path)?;
    std::fs::remove_file(path)?;
    file.set_len(size as u64)?;
    Ok(file)
}

// One producer, one consumer.

pub struct Spsc;
pub struct SpscChannel(File);
pub struct SpscTx<const W: usize>(spsc::Producer<[u64; W]>);
pub struct SpscRx<const W: usize>(spsc::Consumer<[u64; W]>);

impl System for Spsc {
    const ABOUT: About = About {
        name: "shaq SPSC",
        origin: Origin::Crate("shaq"),
        place: Place::Processes,
        delivery: Delivery::Once,
        kinds: &[Kind::Trip, Kind::TripBlocking, Kind::Wake, Kind::Stream, Kind::Batch],
        streams_block: false,
        most: (1, 1),
        note: "create and join on an unlinked file in /dev/shm; up to 64 B try_write and try_read, \
               above in place by write_batch and try_reserve_read_batch of one; batches by the \
               same two, of up to 64; only receiving can wait (read_timeout)",
    };
    type Channel<const W: usize> = SpscChannel;
}

impl<const W: usize> Channel<W> for SpscChannel {
    type Tx = SpscTx<W>;
    type Rx = SpscRx<W>;

    fn make(name: &str, shape: Shape) -> Result<Self> {
        let size = spsc::minimum_file_size::<[u64; W]>(shape.capacity);
        let file = file(name, size)?;
        // SAFETY: a new file, initialised here only. The producer made here is
        // dropped before another joins.
        drop(unsafe { spsc::Producer::<[u64; W]>::create(&file, size) }.or_else(said)?);
        Ok(SpscChannel(file))
    }

    fn tx(&self) -> Result<SpscTx<W>> {
        // SAFETY: the only producer, and the type is the creator's.
        Ok(SpscTx(unsafe { spsc::Producer::join(&self.0) }.or_else(said)?))
    }

    fn rx(&self) -> Result<SpscRx<W>> {
        // SAFETY: the only consumer, and the type is the creator's.
        Ok(SpscRx(unsafe { spsc::Consumer::join(&self.0) }.or_else(said)?))
    }
}

impl<const W: usize> Tx<W> for SpscTx<W> {
    #[inline(always)]
    fn try_send(&mut self, head: u64) -> bool {
        if W <= BY_VALUE {
            return self.0.try_write(message(head)).is_ok();
        }
        let mut batch = self.0.write_batch();
        // SAFETY: the slot is written before the batch is dropped.
        let Some(slot) = (unsafe { batch.try_as_mut() }) else {
            // An empty batch would be published, too, and waiters looked for.
            std::mem::forget(batch);
            return false;
        };
        // SAFETY: a unique reference.
        unsafe { fill_raw::<W>(slot.as_mut_ptr(), head) };
        true
    }

    #[inline(always)]
    fn send(&mut self, head: u64) {
        while !self.try_send(head) {
            std::hint::spin_loop();
        }
    }

    fn send_batch(&mut self, heads: Range<u64>) {
        let mut next = heads.start;
        while next < heads.end {
            let (first, mut batch) = (next, self.0.write_batch());
            while next < heads.end
                // SAFETY: the slot is written before the batch is dropped.
                && let Some(slot) = unsafe { batch.try_as_mut() }
            {
                // SAFETY: a unique reference.
                unsafe { fill_raw::<W>(slot.as_mut_ptr(), next) };
                next += 1;
            }
            if next == first {
                std::mem::forget(batch);
                std::hint::spin_loop();
            }
        }
    }
}

impl<const W: usize> Rx<W> for SpscRx<W> {
    #[inline(always)]
    fn try_recv(&mut self) -> Option<u64> {
        if W <= BY_VALUE {
            return self.0.try_read().map(|message| check(&message));
        }
        self.0.try_reserve_read_batch(ONE).and_then(|batch| batch.get(0).map(check))
    }

    #[inline(always)]
    fn recv(&mut self) -> u64 {
        check(&self.0.read_timeout(LONG).unwrap())
    }

    fn recv_batch(&mut self, each: &mut impl FnMut(u64)) {
        let batch = loop {
            if let Some(batch) = self.0.try_reserve_read_batch(MANY) {
                break batch;
            }
            std::hint::spin_loop();
        };
        batch.iter().for_each(|message| each(check(message)));
    }
}

// Many producers, many consumers.

pub struct Mpmc;
pub struct MpmcChannel(File, Idle);
pub struct MpmcTx<const W: usize>(mpmc::Producer<[u64; W]>, Idle);
pub struct MpmcRx<const W: usize>(mpmc::Consumer<[u64; W]>, Idle);

impl System for Mpmc {
    const ABOUT: About = About {
        name: "shaq MPMC",
        origin: Origin::Crate("shaq"),
        place: Place::Processes,
        delivery: Delivery::Once,
        kinds: Kind::ALL,
        streams_block: false,
        most: (usize::MAX, usize::MAX),
        note: "as its SPSC ring; above 64 B in place by try_reserve_write and try_reserve_read; \
               batches in place by try_reserve_write_batch and try_reserve_read_batch. It \
               publishes in order, and spins inside a call for its turn: where two sides of a \
               kind share a processor, each message may take a slice of the scheduler",
    };
    type Channel<const W: usize> = MpmcChannel;
}

impl<const W: usize> Channel<W> for MpmcChannel {
    type Tx = MpmcTx<W>;
    type Rx = MpmcRx<W>;

    fn make(name: &str, shape: Shape) -> Result<Self> {
        let size = mpmc::minimum_file_size::<[u64; W]>(shape.capacity);
        let file = file(name, size)?;
        // SAFETY: a new file, initialised here only.
        drop(unsafe { mpmc::Producer::<[u64; W]>::create(&file, size) }.or_else(said)?);
        Ok(MpmcChannel(file, shape.idle))
    }

    fn tx(&self) -> Result<MpmcTx<W>> {
        // SAFETY: the type is the creator's.
        Ok(MpmcTx(unsafe { mpmc::Producer::join(&self.0) }.or_else(said)?, self.1))
    }

    fn rx(&self) -> Result<MpmcRx<W>> {
        // SAFETY: the type is the creator's.
        Ok(MpmcRx(unsafe { mpmc::Consumer::join(&self.0) }.or_else(said)?, self.1))
    }
}

impl<const W: usize> Tx<W> for MpmcTx<W> {
    #[inline(always)]
    fn try_send(&mut self, head: u64) -> bool {
        if W <= BY_VALUE {
            return self.0.try_write(message(head)).is_ok();
        }
        // SAFETY: the slot is written before the guard is dropped.
        let Some(mut slot) = (unsafe { self.0.try_reserve_write() }) else { return false };
        // SAFETY: a unique reference.
        unsafe { fill_raw::<W>(slot.as_mut().as_mut_ptr(), head) };
        true
    }

    #[inline(always)]
    fn send(&mut self, head: u64) {
        while !self.try_send(head) {
            std::hint::spin_loop();
        }
    }

    fn send_batch(&mut self, heads: Range<u64>) {
        let count = NonZeroUsize::new((heads.end - heads.start) as usize).unwrap();
        let MpmcTx(producer, idle) = &*self;
        // SAFETY: all slots are written before the batch is dropped.
        let mut batch = idle.until(|| unsafe { producer.try_reserve_write_batch(count) });
        for (nth, head) in heads.enumerate() {
            // SAFETY: one of the reserved slots, and a unique reference.
            unsafe { fill_raw::<W>(batch.as_mut(nth).as_mut_ptr(), head) };
        }
    }
}

impl<const W: usize> Rx<W> for MpmcRx<W> {
    #[inline(always)]
    fn try_recv(&mut self) -> Option<u64> {
        if W <= BY_VALUE {
            return self.0.try_read().map(|message| check(&message));
        }
        self.0.try_reserve_read().map(|message| check(message.as_ref()))
    }

    #[inline(always)]
    fn recv(&mut self) -> u64 {
        check(&self.0.read_timeout(LONG).unwrap())
    }

    fn recv_batch(&mut self, each: &mut impl FnMut(u64)) {
        let MpmcRx(consumer, idle) = &*self;
        let batch = idle.until(|| consumer.try_reserve_read_batch(MANY));
        batch.iter().for_each(|message| each(check(message)));
    }
}
