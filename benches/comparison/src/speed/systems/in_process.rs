//! Queues between the threads of one process, which need not care who dies:
//! rtrb, crossbeam's `ArrayQueue`, and the crate `disruptor`.

use crate::Result;
use crate::speed::channel::{
    About, BATCH, Channel, Delivery, Kind, Once, Origin, Place, Rx, Shape, System, Tx, check, fill,
    fill_batch, fill_raw, message,
};
use crossbeam_queue::ArrayQueue;
use disruptor::{
    BusySpin, EventPoller, MultiConsumerBarrier, MultiProducer, MultiProducerBarrier, Polling,
    Producer as _, SingleConsumerBarrier, SingleProducer, SingleProducerBarrier,
    build_multi_producer, build_single_producer,
};
use std::ops::Range;
use std::sync::Arc;

/// Messages above this many words are made and read in place.
const BY_VALUE: usize = 8;

// rtrb.

pub struct Rtrb;
pub struct RtrbChannel<const W: usize>(
    Once<rtrb::Producer<[u64; W]>>,
    Once<rtrb::Consumer<[u64; W]>>,
);
pub struct RtrbTx<const W: usize>(rtrb::Producer<[u64; W]>, Vec<[u64; W]>);
pub struct RtrbRx<const W: usize>(rtrb::Consumer<[u64; W]>);

impl System for Rtrb {
    const ABOUT: About = About {
        name: "rtrb",
        origin: Origin::Crate("rtrb"),
        place: Place::Threads,
        delivery: Delivery::Once,
        kinds: &[Kind::Trip, Kind::Stream, Kind::Batch],
        streams_block: false,
        most: (1, 1),
        note: "up to 64 B push and pop, above in place by chunks of one; batches by \
               push_partial_slice (up to 64 B: faster than in place), above by \
               write_chunk_uninit, and by read_chunk; it has no calls that wait",
    };
    type Channel<const W: usize> = RtrbChannel<W>;
}

impl<const W: usize> Channel<W> for RtrbChannel<W> {
    type Tx = RtrbTx<W>;
    type Rx = RtrbRx<W>;

    fn make(_: &str, shape: Shape) -> Result<Self> {
        let (producer, consumer) = rtrb::RingBuffer::new(shape.capacity);
        Ok(RtrbChannel(Once::one(producer), Once::one(consumer)))
    }

    fn tx(&self) -> Result<RtrbTx<W>> {
        Ok(RtrbTx(self.0.take()?, Vec::with_capacity(BATCH)))
    }

    fn rx(&self) -> Result<RtrbRx<W>> {
        Ok(RtrbRx(self.1.take()?))
    }
}

impl<const W: usize> Tx<W> for RtrbTx<W> {
    #[inline(always)]
    fn try_send(&mut self, head: u64) -> bool {
        if W <= BY_VALUE {
            return self.0.push(message(head)).is_ok();
        }
        let Ok(mut chunk) = self.0.write_chunk_uninit(1) else { return false };
        // SAFETY: the one slot of the chunk is this producer's until committed.
        unsafe { fill_raw::<W>(chunk.as_mut_slices().0[0].as_mut_ptr(), head) };
        // SAFETY: the whole slot was written above.
        unsafe { chunk.commit_all() };
        true
    }

    fn send_batch(&mut self, heads: Range<u64>) {
        let RtrbTx(producer, batch) = self;
        if W <= BY_VALUE {
            fill_batch(batch, heads);
            let mut rest = &batch[..];
            while !rest.is_empty() {
                rest = producer.push_partial_slice(rest).1;
                std::hint::spin_loop();
            }
            return;
        }
        let mut rest = heads;
        while !rest.is_empty() {
            let room = producer.slots().min((rest.end - rest.start) as usize);
            let chunk = producer.write_chunk_uninit(room).unwrap();
            chunk.fill_from_iter(rest.by_ref().take(room).map(message));
            std::hint::spin_loop();
        }
    }
}

impl<const W: usize> Rx<W> for RtrbRx<W> {
    #[inline(always)]
    fn try_recv(&mut self) -> Option<u64> {
        if W <= BY_VALUE {
            return self.0.pop().ok().map(|message| check(&message));
        }
        let chunk = self.0.read_chunk(1).ok()?;
        let head = check(&chunk.as_slices().0[0]);
        chunk.commit_all();
        Some(head)
    }

    fn recv_batch(&mut self, each: &mut impl FnMut(u64)) {
        let mut there = self.0.slots();
        while there == 0 {
            std::hint::spin_loop();
            there = self.0.slots();
        }
        let chunk = self.0.read_chunk(there.min(BATCH)).unwrap();
        let (first, second) = chunk.as_slices();
        first.iter().chain(second).for_each(|message| each(check(message)));
        chunk.commit_all();
    }
}

// ArrayQueue.

pub struct Crossbeam;
pub struct Shared<const W: usize>(Arc<ArrayQueue<[u64; W]>>);

impl System for Crossbeam {
    const ABOUT: About = About {
        name: "crossbeam ArrayQueue",
        origin: Origin::Crate("crossbeam-queue"),
        place: Place::Threads,
        delivery: Delivery::Once,
        kinds: &[Kind::Trip, Kind::Stream, Kind::Many],
        streams_block: false,
        most: (usize::MAX, usize::MAX),
        note: "push and pop, by value whatever the size; it has neither batches nor calls that wait",
    };
    type Channel<const W: usize> = Shared<W>;

    fn trip_slots(_words: usize) -> usize {
        1024
    }
}

impl<const W: usize> Channel<W> for Shared<W> {
    type Tx = Shared<W>;
    type Rx = Shared<W>;

    fn make(_: &str, shape: Shape) -> Result<Self> {
        Ok(Shared(Arc::new(ArrayQueue::new(shape.capacity))))
    }

    fn tx(&self) -> Result<Self> {
        Ok(Shared(self.0.clone()))
    }

    fn rx(&self) -> Result<Self> {
        Ok(Shared(self.0.clone()))
    }
}

impl<const W: usize> Tx<W> for Shared<W> {
    #[inline(always)]
    fn try_send(&mut self, head: u64) -> bool {
        self.0.push(message(head)).is_ok()
    }
}

impl<const W: usize> Rx<W> for Shared<W> {
    #[inline(always)]
    fn try_recv(&mut self) -> Option<u64> {
        self.0.pop().map(|message| check(&message))
    }
}

// The disruptor.

pub struct Disruptor;

type OneBarrier = SingleProducerBarrier;
type ManyBarrier = MultiProducerBarrier;

/// One producer and one consumer, or several of each: different types there.
pub enum DisruptorTx<const W: usize> {
    One(SingleProducer<[u64; W], SingleConsumerBarrier>),
    ManyToOne(MultiProducer<[u64; W], SingleConsumerBarrier>),
    ManyToMany(MultiProducer<[u64; W], MultiConsumerBarrier>),
}

pub enum Poller<const W: usize> {
    One(EventPoller<[u64; W], OneBarrier>),
    Many(EventPoller<[u64; W], ManyBarrier>),
}

pub struct DisruptorRx<const W: usize> {
    poller: Poller<W>,
    /// The checked messages of the last poll, and how many of them were handed on.
    polled: Vec<u64>,
    seen: usize,
}

pub struct DisruptorChannel<const W: usize>(Once<DisruptorTx<W>>, Once<Poller<W>>);

impl System for Disruptor {
    const ABOUT: About = About {
        name: "disruptor",
        origin: Origin::Crate("disruptor"),
        place: Place::Threads,
        delivery: Delivery::Broadcast,
        kinds: &[Kind::Trip, Kind::Stream, Kind::Batch, Kind::Many],
        streams_block: false,
        most: (usize::MAX, 2),
        note: "in place by try_publish (batches: batch_publish), and by event pollers, which take \
               up to 64 events a poll; several consumers each get every message; waiting is \
               spinning",
    };
    type Channel<const W: usize> = DisruptorChannel<W>;

    fn trip_slots(words: usize) -> usize {
        if words == 1 { 1024 } else { 8 }
    }
}

impl<const W: usize> Channel<W> for DisruptorChannel<W> {
    type Tx = DisruptorTx<W>;
    type Rx = DisruptorRx<W>;

    fn make(_: &str, shape: Shape) -> Result<Self> {
        let size = shape.capacity.next_power_of_two();
        let event = || [0; W];
        let (txs, rxs) = match (shape.producers, shape.consumers) {
            (1, 1) => {
                let builder = build_single_producer(size, event, BusySpin);
                let (poller, builder) = builder.new_event_poller();
                (vec![DisruptorTx::One(builder.build())], vec![Poller::One(poller)])
            }
            (producers, 1) => {
                let builder = build_multi_producer(size, event, BusySpin);
                let (poller, builder) = builder.new_event_poller();
                let producer = builder.build();
                let all = (0..producers).map(|_| DisruptorTx::ManyToOne(producer.clone()));
                (all.collect(), vec![Poller::Many(poller)])
            }
            (producers, 2) => {
                let builder = build_multi_producer(size, event, BusySpin);
                let (first, builder) = builder.new_event_poller();
                let (second, builder) = builder.new_event_poller();
                let producer = builder.build();
                let all = (0..producers).map(|_| DisruptorTx::ManyToMany(producer.clone()));
                (all.collect(), vec![Poller::Many(first), Poller::Many(second)])
            }
            _ => return Err("one or two consumers".into()),
        };
        Ok(DisruptorChannel(Once::many(txs), Once::many(rxs)))
    }

    fn tx(&self) -> Result<DisruptorTx<W>> {
        self.0.take()
    }

    fn rx(&self) -> Result<DisruptorRx<W>> {
        let poller = self.1.take()?;
        Ok(DisruptorRx { poller, polled: Vec::with_capacity(BATCH), seen: 0 })
    }
}

impl<const W: usize> Tx<W> for DisruptorTx<W> {
    #[inline(always)]
    fn try_send(&mut self, head: u64) -> bool {
        let write = |event: &mut [u64; W]| fill(event, head);
        match self {
            DisruptorTx::One(producer) => producer.try_publish(write).is_ok(),
            DisruptorTx::ManyToOne(producer) => producer.try_publish(write).is_ok(),
            DisruptorTx::ManyToMany(producer) => producer.try_publish(write).is_ok(),
        }
    }

    fn send_batch(&mut self, heads: Range<u64>) {
        let DisruptorTx::One(producer) = self else { unreachable!("batches are for one to one") };
        let count = (heads.end - heads.start) as usize;
        producer.batch_publish(count, |events| {
            for (event, head) in events.zip(heads) {
                fill(event, head);
            }
        });
    }
}

/// Reads what is there, up to a batch; whether there was anything. (A macro, because the
/// trait that both kinds of poller are generic over has no public name.)
macro_rules! poll {
    ($poller:expr, $each:expr) => {
        match $poller.take(BATCH as u64) {
            Ok(mut events) => {
                for event in &mut events {
                    $each(check(event));
                }
                true
            }
            Err(Polling::NoEvents) => false,
            Err(Polling::Shutdown) => panic!("shut down"),
        }
    };
}

impl<const W: usize> Rx<W> for DisruptorRx<W> {
    #[inline(always)]
    fn try_recv(&mut self) -> Option<u64> {
        let DisruptorRx { poller, polled, seen } = self;
        if *seen == polled.len() {
            polled.clear();
            *seen = 0;
            let came = match poller {
                Poller::One(poller) => poll!(poller, |head| polled.push(head)),
                Poller::Many(poller) => poll!(poller, |head| polled.push(head)),
            };
            if !came {
                return None;
            }
        }
        *seen += 1;
        Some(polled[*seen - 1])
    }

    fn recv_batch(&mut self, each: &mut impl FnMut(u64)) {
        let Poller::One(poller) = &mut self.poller else {
            unreachable!("batches are for one to one")
        };
        while !poll!(poller, each) {
            std::hint::spin_loop();
        }
    }
}
