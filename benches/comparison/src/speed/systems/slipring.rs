//! slipring itself: the typed pipe, the byte pipe, the queue.

use crate::Result;
use crate::speed::channel::{
    About, BATCH, Channel, Delivery, Kind, Origin, Place, Rx, Shape, System, Tx, check,
    check_bytes, fill, fill_batch, message,
};
use slipring::{
    End, PipeOptions, PipeReceiver, PipeSender, Queue, Receiver, RecvError, Segment, SendError,
    Sender,
};
use std::ops::Range;

const KINDS: &[Kind] = &[Kind::Trip, Kind::TripBlocking, Kind::Wake, Kind::Stream, Kind::Batch];

/// Whether a `try_send` sent.
fn sent<V>(result: Result<(), SendError<V>>) -> bool {
    match result {
        Ok(()) => true,
        Err(SendError::Full(_)) => false,
        Err(error) => panic!("{}", why(error)),
    }
}

fn why<V>(error: SendError<V>) -> &'static str {
    match error {
        SendError::Full(_) | SendError::Timeout(_) => "full",
        SendError::Closed(_) => "closed",
        SendError::Failed(..) => "failed",
    }
}

/// What a `try_recv` brought.
fn came<V>(result: Result<V, RecvError>) -> Option<V> {
    match result {
        Ok(value) => Some(value),
        Err(RecvError::Empty) => None,
        Err(error) => panic!("{error}"),
    }
}

/// A one-way pipe in a segment of its own, which must have a participant until
/// its users come.
struct Made {
    _segment: Segment,
    name: String,
}

impl Made {
    fn new(segment: Segment, name: &str) -> Made {
        Made { _segment: segment, name: name.into() }
    }

    fn open(&self) -> Result<Segment> {
        Ok(Segment::open(&self.name)?)
    }
}

/// Messages above this many words are made and read in place.
const BY_VALUE: usize = 8;

/// The rest of a batch whose first message has come.
fn one_by_one<const W: usize>(rx: &mut impl Rx<W>, each: &mut impl FnMut(u64)) {
    for _ in 1..BATCH {
        match rx.try_recv() {
            Some(head) => each(head),
            None => break,
        }
    }
}

// The typed pipe.

pub struct TypedPipe;
pub struct TypedPipeChannel(Made);
pub struct TypedTx<const W: usize>(PipeSender<[u64; W]>);
pub struct TypedRx<const W: usize>(PipeReceiver<[u64; W]>);

impl System for TypedPipe {
    const ABOUT: About = About {
        name: "slipring pipe, typed",
        origin: Origin::Crate("slipring"),
        place: Place::Processes,
        delivery: Delivery::Once,
        kinds: KINDS,
        streams_block: false,
        most: (1, 1),
        note: "Segment::builder().typed_pipe(); up to 64 B try_send and try_recv, above in place \
               by try_reserve, try_peek and release_read; batches up to 64 B by send_each and \
               recv_each, above one by one in place; blocking by send and recv (which spin, \
               then sleep)",
    };
    type Channel<const W: usize> = TypedPipeChannel;
}

impl<const W: usize> Channel<W> for TypedPipeChannel {
    type Tx = TypedTx<W>;
    type Rx = TypedRx<W>;

    fn make(name: &str, shape: Shape) -> Result<Self> {
        let options = PipeOptions::new(shape.capacity).one_way();
        let segment = Segment::builder(name).typed_pipe::<[u64; W]>("pipe", options).create()?;
        Ok(TypedPipeChannel(Made::new(segment, name)))
    }

    fn tx(&self) -> Result<TypedTx<W>> {
        let pipe = self.0.open()?.typed_pipe_end("pipe", End::A)?;
        Ok(TypedTx(pipe.split().0.ok_or("no sending half")?))
    }

    fn rx(&self) -> Result<TypedRx<W>> {
        let pipe = self.0.open()?.typed_pipe_end("pipe", End::B)?;
        Ok(TypedRx(pipe.split().1.ok_or("no receiving half")?))
    }
}

impl<const W: usize> Tx<W> for TypedTx<W> {
    #[inline(always)]
    fn try_send(&mut self, head: u64) -> bool {
        if W <= BY_VALUE {
            return sent(self.0.try_send(message(head)));
        }
        match self.0.try_reserve() {
            Ok(mut slot) => {
                fill(&mut slot, head);
                slot.commit();
                true
            }
            Err(error) => sent(Err(error)),
        }
    }

    #[inline(always)]
    fn send(&mut self, head: u64) {
        self.0.send(message(head)).map_err(why).unwrap();
    }

    fn send_batch(&mut self, heads: Range<u64>) {
        if W <= BY_VALUE {
            let (n, from) = ((heads.end - heads.start) as usize, heads.start);
            self.0.send_each(n, |nth| message(from + nth as u64)).map_err(why).unwrap();
            return;
        }
        for head in heads {
            let mut slot = self.0.reserve().map_err(why).unwrap();
            fill(&mut slot, head);
            slot.commit();
        }
    }
}

impl<const W: usize> Rx<W> for TypedRx<W> {
    #[inline(always)]
    fn try_recv(&mut self) -> Option<u64> {
        if W <= BY_VALUE {
            return came(self.0.try_recv()).map(|message| check(&message));
        }
        came(self.0.try_peek()).map(|message| {
            let head = check(&message);
            message.release_read();
            head
        })
    }

    #[inline(always)]
    fn recv(&mut self) -> u64 {
        check(&self.0.recv().unwrap())
    }

    fn recv_batch(&mut self, each: &mut impl FnMut(u64)) {
        if W <= BY_VALUE {
            self.0.recv_each(BATCH, |message| each(check(message))).unwrap();
            return;
        }
        let message = self.0.peek().unwrap();
        each(check(&message));
        message.release_read();
        one_by_one::<W>(self, each);
    }
}

// The byte pipe.

pub struct BytePipe;
pub struct BytePipeChannel(Made);
pub struct ByteTx<const W: usize>(PipeSender<[u8]>, Vec<[u64; W]>);
pub struct ByteRx<const W: usize>(PipeReceiver<[u8]>);

impl System for BytePipe {
    const ABOUT: About = About {
        name: "slipring pipe, bytes",
        origin: Origin::Crate("slipring"),
        place: Place::Processes,
        delivery: Delivery::Once,
        kinds: KINDS,
        streams_block: false,
        most: (1, 1),
        note: "Segment::builder().pipe(), as many messages as the others hold; in place by \
               try_reserve, try_peek and release_read; batches up to 64 B by send_many, all \
               received by peek and try_peek; blocking by send and recv_into",
    };
    type Channel<const W: usize> = BytePipeChannel;
}

impl<const W: usize> Channel<W> for BytePipeChannel {
    type Tx = ByteTx<W>;
    type Rx = ByteRx<W>;

    fn make(name: &str, shape: Shape) -> Result<Self> {
        // A record has a head of eight bytes.
        let bytes = shape.capacity * (8 * W + 8);
        let options = PipeOptions::new(bytes).one_way();
        let segment = Segment::builder(name).pipe("pipe", options).create()?;
        Ok(BytePipeChannel(Made::new(segment, name)))
    }

    fn tx(&self) -> Result<ByteTx<W>> {
        let pipe = self.0.open()?.pipe_end("pipe", End::A)?;
        Ok(ByteTx(pipe.split().0.ok_or("no sending half")?, Vec::with_capacity(BATCH)))
    }

    fn rx(&self) -> Result<ByteRx<W>> {
        let pipe = self.0.open()?.pipe_end("pipe", End::B)?;
        Ok(ByteRx(pipe.split().1.ok_or("no receiving half")?))
    }
}

impl<const W: usize> Tx<W> for ByteTx<W> {
    #[inline(always)]
    fn try_send(&mut self, head: u64) -> bool {
        match self.0.try_reserve(8 * W) {
            Ok(mut room) => {
                fill::<W>(bytemuck::from_bytes_mut(&mut room[..8 * W]), head);
                room.commit(8 * W);
                true
            }
            Err(error) => sent(Err(error)),
        }
    }

    #[inline(always)]
    fn send(&mut self, head: u64) {
        self.0.send(bytemuck::bytes_of(&message::<W>(head))).map_err(why).unwrap();
    }

    fn send_batch(&mut self, heads: Range<u64>) {
        let ByteTx(sender, batch) = self;
        if W > BY_VALUE {
            for head in heads {
                let mut room = sender.reserve(8 * W).map_err(why).unwrap();
                fill::<W>(bytemuck::from_bytes_mut(&mut room[..8 * W]), head);
                room.commit(8 * W);
            }
            return;
        }
        fill_batch(batch, heads);
        let mut bytes = [&[][..]; BATCH];
        for (bytes, message) in bytes.iter_mut().zip(&*batch) {
            *bytes = bytemuck::bytes_of(message);
        }
        sender.send_many(&bytes[..batch.len()]).map_err(why).unwrap();
    }
}

impl<const W: usize> Rx<W> for ByteRx<W> {
    #[inline(always)]
    fn try_recv(&mut self) -> Option<u64> {
        came(self.0.try_peek()).map(|message| {
            let head = check_bytes::<W>(&message);
            message.release_read();
            head
        })
    }

    #[inline(always)]
    fn recv(&mut self) -> u64 {
        let mut message = [0; W];
        let len = self.0.recv_into(bytemuck::bytes_of_mut(&mut message)).unwrap();
        assert_eq!(len, 8 * W);
        check(&message)
    }

    fn recv_batch(&mut self, each: &mut impl FnMut(u64)) {
        let message = self.0.peek().unwrap();
        each(check_bytes::<W>(&message));
        message.release_read();
        one_by_one::<W>(self, each);
    }
}

// The queue.

pub struct TheQueue;

/// The queue must have a participant until its users come.
pub struct QueueChannel<const W: usize> {
    _made: Queue<[u64; W]>,
    name: String,
}

pub struct QueueTx<const W: usize>(Sender<[u64; W]>, Vec<[u64; W]>);
pub struct QueueRx<const W: usize>(Receiver<[u64; W]>, Vec<[u64; W]>);

impl System for TheQueue {
    const ABOUT: About = About {
        name: "slipring queue",
        origin: Origin::Crate("slipring"),
        place: Place::Processes,
        delivery: Delivery::Once,
        kinds: Kind::ALL,
        streams_block: false,
        most: (usize::MAX, usize::MAX),
        note: "Queue::create(), at most once; up to 64 B try_send and try_recv, above in place by \
               try_claim, try_take and release_read; batches up to 64 B by send_many and \
               recv_many, above one by one in place; blocking by send and recv",
    };
    type Channel<const W: usize> = QueueChannel<W>;
}

impl<const W: usize> Channel<W> for QueueChannel<W> {
    type Tx = QueueTx<W>;
    type Rx = QueueRx<W>;

    fn make(name: &str, shape: Shape) -> Result<Self> {
        Ok(QueueChannel { _made: Queue::create(name, shape.capacity)?, name: name.into() })
    }

    fn tx(&self) -> Result<QueueTx<W>> {
        Ok(QueueTx(Queue::open(&self.name)?.sender()?, Vec::with_capacity(BATCH)))
    }

    fn rx(&self) -> Result<QueueRx<W>> {
        Ok(QueueRx(Queue::open(&self.name)?.receiver()?, Vec::with_capacity(BATCH)))
    }
}

impl<const W: usize> Tx<W> for QueueTx<W> {
    #[inline(always)]
    fn try_send(&mut self, head: u64) -> bool {
        if W <= BY_VALUE {
            return sent(self.0.try_send(message(head)));
        }
        match self.0.try_claim() {
            Ok(mut slot) => {
                fill(&mut slot, head);
                slot.commit();
                true
            }
            Err(error) => sent(Err(error)),
        }
    }

    #[inline(always)]
    fn send(&mut self, head: u64) {
        self.0.send(message(head)).map_err(why).unwrap();
    }

    fn send_batch(&mut self, heads: Range<u64>) {
        let QueueTx(sender, batch) = self;
        if W > BY_VALUE {
            for head in heads {
                let mut slot = sender.claim().map_err(why).unwrap();
                fill(&mut slot, head);
                slot.commit();
            }
            return;
        }
        fill_batch(batch, heads);
        sender.send_many(batch).map_err(why).unwrap();
    }
}

impl<const W: usize> Rx<W> for QueueRx<W> {
    #[inline(always)]
    fn try_recv(&mut self) -> Option<u64> {
        if W <= BY_VALUE {
            return came(self.0.try_recv()).map(|message| check(&message));
        }
        came(self.0.try_take()).map(|message| {
            let head = check(&message);
            message.release_read();
            head
        })
    }

    #[inline(always)]
    fn recv(&mut self) -> u64 {
        check(&self.0.recv().unwrap())
    }

    fn recv_batch(&mut self, each: &mut impl FnMut(u64)) {
        let QueueRx(receiver, batch) = self;
        if W > BY_VALUE {
            let message = receiver.take().unwrap();
            each(check(&message));
            message.release_read();
            return one_by_one::<W>(self, each);
        }
        batch.clear();
        receiver.recv_many(batch, BATCH).unwrap();
        batch.iter().for_each(|message| each(check(message)));
    }
}
