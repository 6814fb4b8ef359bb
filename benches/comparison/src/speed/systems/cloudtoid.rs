//! cloudtoid-interprocess: a byte queue with crash recovery.

use crate::Result;
use crate::speed::channel::{
    About, BATCH, Channel, Delivery, Kind, Origin, Place, Rx, Shape, System, Tx, check,
    check_bytes, fill, fill_batch,
};
use cloudtoid_interprocess::{Options, Publisher, Subscriber};
use std::ops::Range;

pub struct Cloudtoid;

/// A folder of its own, removed at the end.
pub struct CloudtoidChannel(Options);

pub struct CloudtoidTx<const W: usize>(Publisher, Vec<[u64; W]>);
pub struct CloudtoidRx<const W: usize>(Subscriber, Box<[u64; W]>);

impl System for Cloudtoid {
    const ABOUT: About = About {
        name: "cloudtoid-interprocess",
        origin: Origin::Crate("cloudtoid-interprocess"),
        place: Place::Processes,
        delivery: Delivery::Once,
        kinds: &[Kind::Trip, Kind::TripBlocking, Kind::Wake, Kind::Stream, Kind::Batch, Kind::Many],
        streams_block: false,
        most: (usize::MAX, usize::MAX),
        note: "its folder in /dev/shm; try_send and try_recv_into; batches by try_send_batch, \
               received one by one; only receiving can wait (recv)",
    };
    type Channel<const W: usize> = CloudtoidChannel;
}

impl<const W: usize> Channel<W> for CloudtoidChannel {
    type Tx = CloudtoidTx<W>;
    type Rx = CloudtoidRx<W>;

    fn make(name: &str, shape: Shape) -> Result<Self> {
        let folder = format!("/dev/shm/{name}");
        std::fs::create_dir(&folder)?;
        // A record has a head of eight bytes.
        let options = Options::new(name, shape.capacity * (8 * W + 8)).with_path(folder);
        Ok(CloudtoidChannel(options))
    }

    fn tx(&self) -> Result<CloudtoidTx<W>> {
        Ok(CloudtoidTx(Publisher::open(&self.0)?, Vec::with_capacity(BATCH)))
    }

    fn rx(&self) -> Result<CloudtoidRx<W>> {
        Ok(CloudtoidRx(Subscriber::open(&self.0)?, Box::new([0; W])))
    }
}

impl Drop for CloudtoidChannel {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0.path);
        // Its named semaphore, if a side was killed.
        let _ = std::fs::remove_file(format!("/dev/shm/sem.ct3ip.{}", self.0.name));
    }
}

impl<const W: usize> Tx<W> for CloudtoidTx<W> {
    #[inline(always)]
    fn try_send(&mut self, head: u64) -> bool {
        self.1.resize(1, [0; W]);
        fill(&mut self.1[0], head);
        match self.0.try_send(bytemuck::bytes_of(&self.1[0])) {
            Ok(()) => true,
            Err(error) if error.is_full() => false,
            Err(error) => panic!("{error}"),
        }
    }

    #[inline(always)]
    fn send(&mut self, head: u64) {
        while !self.try_send(head) {
            std::hint::spin_loop();
        }
    }

    fn send_batch(&mut self, heads: Range<u64>) {
        let CloudtoidTx(publisher, batch) = self;
        fill_batch(batch, heads);
        let mut bytes = [&[][..]; BATCH];
        for (bytes, message) in bytes.iter_mut().zip(&*batch) {
            *bytes = bytemuck::bytes_of(message);
        }
        let mut rest = &bytes[..batch.len()];
        while !rest.is_empty() {
            rest = &rest[publisher.try_send_batch(rest).unwrap()..];
            std::hint::spin_loop();
        }
    }
}

impl<const W: usize> Rx<W> for CloudtoidRx<W> {
    #[inline(always)]
    fn try_recv(&mut self) -> Option<u64> {
        let len = self.0.try_recv_into(bytemuck::bytes_of_mut(&mut *self.1)).unwrap()?;
        assert_eq!(len, 8 * W);
        Some(check(&self.1))
    }

    #[inline(always)]
    fn recv(&mut self) -> u64 {
        check_bytes::<W>(&self.0.recv().unwrap())
    }

    fn recv_batch(&mut self, each: &mut impl FnMut(u64)) {
        match self.try_recv() {
            Some(head) => each(head),
            None => std::hint::spin_loop(),
        }
    }
}
