//! ringfire: one producer with back-pressure, and its lossy work queue.

use crate::Result;
use crate::speed::channel::{
    About, BATCH, Channel, Delivery, Kind, Origin, Place, Rx, Shape, System, Tx, check, fill_batch,
    message,
};
use ringfire::{
    FlowControl, FutexWait, MpmcProducer, MpmcQueueConsumer, RingConsumer, RingProducer,
    RingProducerBuilder,
};
use std::ops::Range;

fn path(name: &str) -> String {
    format!("/dev/shm/{name}")
}

// One producer; readers hold it back.

pub struct Spmc;

/// The producer makes the ring, in its own process; the consumer waits for it.
pub struct SpmcChannel(String, u64);
pub struct SpmcTx<const W: usize>(RingProducer<[u64; W]>, Vec<[u64; W]>);
pub struct SpmcRx<const W: usize>(RingConsumer<[u64; W]>, Vec<[u64; W]>);

impl System for Spmc {
    const ABOUT: About = About {
        name: "ringfire SPMC, lossless",
        origin: Origin::Crate("ringfire"),
        place: Place::Processes,
        delivery: Delivery::Broadcast,
        kinds: &[Kind::Trip, Kind::TripBlocking, Kind::Wake, Kind::Stream, Kind::Batch],
        streams_block: false,
        most: (1, 1),
        note: "LosslessBackpressure; try_push and try_recv; batches by push_batch and recv_batch; \
               blocking by recv_blocking with the default FutexWait (32 spins, then asleep)",
    };
    type Channel<const W: usize> = SpmcChannel;
}

impl<const W: usize> Channel<W> for SpmcChannel {
    type Tx = SpmcTx<W>;
    type Rx = SpmcRx<W>;

    fn make(name: &str, shape: Shape) -> Result<Self> {
        Ok(SpmcChannel(path(name), shape.capacity.next_power_of_two() as u64))
    }

    fn tx(&self) -> Result<SpmcTx<W>> {
        let producer = RingProducerBuilder::new(self.1)
            .flow_control(FlowControl::LosslessBackpressure)
            .build(&self.0)?;
        Ok(SpmcTx(producer, Vec::with_capacity(BATCH)))
    }

    fn rx(&self) -> Result<SpmcRx<W>> {
        let consumer = loop {
            match RingConsumer::attach(&self.0) {
                Ok(consumer) => break consumer,
                // Not there yet, or not yet whole.
                Err(_) => std::thread::yield_now(),
            }
        };
        Ok(SpmcRx(consumer, vec![[0; W]; BATCH]))
    }
}

impl<const W: usize> Tx<W> for SpmcTx<W> {
    #[inline(always)]
    fn try_send(&mut self, head: u64) -> bool {
        self.0.try_push(&message(head)).is_ok()
    }

    #[inline(always)]
    fn send(&mut self, head: u64) {
        self.0.push(&message(head));
    }

    fn send_batch(&mut self, heads: Range<u64>) {
        let SpmcTx(producer, batch) = self;
        fill_batch(batch, heads);
        producer.push_batch(batch);
    }
}

impl<const W: usize> Rx<W> for SpmcRx<W> {
    #[inline(always)]
    fn try_recv(&mut self) -> Option<u64> {
        self.0.try_recv().map(|message| check(&message))
    }

    #[inline(always)]
    fn recv(&mut self) -> u64 {
        check(&self.0.recv_blocking(&mut FutexWait::default()))
    }

    fn recv_batch(&mut self, each: &mut impl FnMut(u64)) {
        let SpmcRx(consumer, batch) = self;
        let count = loop {
            match consumer.recv_batch(batch) {
                0 => std::hint::spin_loop(),
                count => break count,
            }
        };
        batch[..count].iter().for_each(|message| each(check(message)));
    }
}

// Many producers, many consumers; the oldest are overwritten.

pub struct Mpmc;

/// The ring is unlinked when its maker goes.
pub struct MpmcChannel<const W: usize> {
    _made: MpmcProducer<[u64; W]>,
    path: String,
}

pub struct MpmcTx<const W: usize>(MpmcProducer<[u64; W]>);
pub struct MpmcRx<const W: usize>(MpmcQueueConsumer<[u64; W]>);

// SAFETY: what was made is only ever dropped.
unsafe impl<const W: usize> Sync for MpmcChannel<W> {}

impl System for Mpmc {
    const ABOUT: About = About {
        name: "ringfire MPMC, lossy",
        origin: Origin::Crate("ringfire"),
        place: Place::Processes,
        delivery: Delivery::Lossy,
        kinds: &[Kind::Trip, Kind::Many],
        streams_block: false,
        most: (usize::MAX, usize::MAX),
        note: "push never waits and overwrites what was not read in time: the figure is what \
               arrived; push and try_recv",
    };
    type Channel<const W: usize> = MpmcChannel<W>;
}

impl<const W: usize> Channel<W> for MpmcChannel<W> {
    type Tx = MpmcTx<W>;
    type Rx = MpmcRx<W>;

    fn make(name: &str, shape: Shape) -> Result<Self> {
        let path = path(name);
        Ok(MpmcChannel { _made: MpmcProducer::create(&path, shape.capacity as u64)?, path })
    }

    fn tx(&self) -> Result<MpmcTx<W>> {
        Ok(MpmcTx(MpmcProducer::attach(&self.path)?))
    }

    fn rx(&self) -> Result<MpmcRx<W>> {
        Ok(MpmcRx(MpmcQueueConsumer::attach(&self.path)?))
    }
}

impl<const W: usize> Tx<W> for MpmcTx<W> {
    #[inline(always)]
    fn try_send(&mut self, head: u64) -> bool {
        self.0.push(&message(head));
        true
    }
}

impl<const W: usize> Rx<W> for MpmcRx<W> {
    #[inline(always)]
    fn try_recv(&mut self) -> Option<u64> {
        self.0.try_recv().map(|message| check(&message))
    }
}
