//! shmem-ipc's ring between processes that need not trust each other.

use crate::Result;
use crate::speed::channel::{
    About, BATCH, Channel, Delivery, Kind, Origin, Place, Rx, Shape, System, Tx, check, fill_raw,
    said,
};
use shmem_ipc::sharedring::{Receiver, Sender};
use std::fs::File;
use std::ops::Range;

pub struct ShmemIpc;

/// The descriptors that the two sides share, and whether they wait for each other's signals.
pub struct Ring {
    capacity: usize,
    blocking: bool,
    memory: File,
    empty: File,
    full: File,
}

pub struct ShmemTx<const W: usize> {
    sender: Sender<[u64; W]>,
    blocking: bool,
}

pub struct ShmemRx<const W: usize> {
    receiver: Receiver<[u64; W]>,
    blocking: bool,
}

impl System for ShmemIpc {
    const ABOUT: About = About {
        name: "shmem-ipc",
        origin: Origin::Crate("shmem-ipc"),
        place: Place::Processes,
        delivery: Delivery::Once,
        kinds: &[Kind::Trip, Kind::TripBlocking, Kind::Wake, Kind::Stream, Kind::Batch],
        streams_block: false,
        most: (1, 1),
        note: "sharedring, in place, one message a call (batches: up to 64), polling by send and \
               recv of sender_mut and receiver_mut, which signal nobody, once write_count and \
               read_count find something; blocking by send_raw, receive_raw and \
               block_until_readable; the descriptors are inherited",
    };
    type Channel<const W: usize> = Ring;
}

impl<const W: usize> Channel<W> for Ring {
    type Tx = ShmemTx<W>;
    type Rx = ShmemRx<W>;

    fn make(_: &str, shape: Shape) -> Result<Self> {
        let ring = Sender::<[u64; W]>::new(shape.capacity).or_else(said)?;
        Ok(Ring {
            capacity: shape.capacity,
            blocking: shape.blocking,
            memory: ring.memfd().as_file().try_clone()?,
            empty: ring.empty_signal().try_clone()?,
            full: ring.full_signal().try_clone()?,
        })
    }

    fn tx(&self) -> Result<ShmemTx<W>> {
        let (memory, empty, full) = self.descriptors()?;
        let sender = Sender::open(self.capacity, memory, empty, full).or_else(said)?;
        Ok(ShmemTx { sender, blocking: self.blocking })
    }

    fn rx(&self) -> Result<ShmemRx<W>> {
        let (memory, empty, full) = self.descriptors()?;
        let receiver = Receiver::open(self.capacity, memory, empty, full).or_else(said)?;
        Ok(ShmemRx { receiver, blocking: self.blocking })
    }
}

impl Ring {
    fn descriptors(&self) -> Result<(File, File, File)> {
        Ok((self.memory.try_clone()?, self.empty.try_clone()?, self.full.try_clone()?))
    }
}

impl<const W: usize> ShmemTx<W> {
    /// Has messages written where there is room: how many, says `write`.
    #[inline(always)]
    fn put(&mut self, write: impl FnOnce(*mut [u64; W], usize) -> usize) {
        if self.blocking {
            self.sender.send_raw(write).unwrap();
            return;
        }
        // To send nothing is a locked instruction all the same.
        let ring = self.sender.sender_mut();
        if ring.write_count().unwrap() > 0 {
            ring.send(write).unwrap();
        }
    }
}

impl<const W: usize> Tx<W> for ShmemTx<W> {
    #[inline(always)]
    fn try_send(&mut self, head: u64) -> bool {
        let mut sent = false;
        let send = |room: *mut [u64; W], count: usize| {
            if count == 0 {
                return 0;
            }
            // SAFETY: room for `count` messages, which is the sender's.
            unsafe { fill_raw::<W>(room, head) };
            sent = true;
            1
        };
        self.put(send);
        sent
    }

    #[inline(always)]
    fn send(&mut self, head: u64) {
        self.sender.block_until_writable().unwrap();
        assert!(self.try_send(head));
    }

    fn send_batch(&mut self, heads: Range<u64>) {
        let mut rest = heads;
        while !rest.is_empty() {
            let send = |room: *mut [u64; W], count: usize| {
                let count = count.min((rest.end - rest.start) as usize);
                for (nth, head) in rest.by_ref().take(count).enumerate() {
                    // SAFETY: room for `count` messages, which is the sender's.
                    unsafe { fill_raw::<W>(room.add(nth), head) };
                }
                count
            };
            self.put(send);
            std::hint::spin_loop();
        }
    }
}

impl<const W: usize> ShmemRx<W> {
    /// Receives up to `limit` messages, as many as lie together.
    #[inline(always)]
    fn receive(&mut self, limit: usize, mut each: impl FnMut(u64)) {
        let receive = |messages: *const [u64; W], count: usize| {
            let count = count.min(limit);
            for i in 0..count {
                // SAFETY: one of `count` messages, which are the receiver's until it
                // has returned. (That nobody scribbles over them is known here.)
                each(check(unsafe { &*messages.add(i) }));
            }
            count
        };
        if self.blocking {
            self.receiver.receive_raw(receive).unwrap();
            return;
        }
        // As for the sender.
        let ring = self.receiver.receiver_mut();
        if ring.read_count().unwrap() > 0 {
            ring.recv(receive).unwrap();
        } else {
            std::hint::spin_loop();
        }
    }
}

impl<const W: usize> Rx<W> for ShmemRx<W> {
    #[inline(always)]
    fn try_recv(&mut self) -> Option<u64> {
        let mut found = None;
        self.receive(1, |head| found = Some(head));
        found
    }

    #[inline(always)]
    fn recv(&mut self) -> u64 {
        self.receiver.block_until_readable().unwrap();
        self.try_recv().expect("nothing to read")
    }

    fn recv_batch(&mut self, each: &mut impl FnMut(u64)) {
        self.receive(BATCH, each);
    }
}
