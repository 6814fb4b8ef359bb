//! The ends of slipring's ways.
//!
//! See [`Message`] for how messages are made and checked.

use super::message::{Message, number_of_bytes, stamp_bytes};
use super::transport::{End, Manner};
use crate::Result;
use slipring::{Pipe, Pod, Queue, Receiver, RecvError, SendError, Sender};

/// Messages in a batch.
pub fn batch(bytes: usize) -> usize {
    (256 * 1024 / bytes).clamp(4, 64)
}

/// Messages that a way holds when one is under way at a time: few, so that their
/// cache lines stay at hand.
pub const FEW: usize = 8;

/// Messages that a way holds otherwise: 1024, unless that is more than a megabyte; or
/// 256 of any size when messages are only touched in place.
pub fn slots(bytes: usize, manner: Manner) -> usize {
    let least = if manner == Manner::InPlace { 256 } else { 16 };
    ((1 << 20) / bytes).clamp(least, 1024)
}

/// Numbered messages on their way to or from a call.
struct Desk<T> {
    message: T,
    batch: Vec<T>,
    /// How many of the batch are numbered.
    filled: usize,
    inbox: Vec<T>,
    /// How many of the inbox were seen.
    seen: usize,
}

impl<T: Clone> Desk<T> {
    fn new(message: T, bytes: usize) -> Self {
        let batch = vec![message.clone(); batch(bytes)];
        Desk { message, batch, filled: 0, inbox: Vec::new(), seen: 0 }
    }

    /// The next message of the batch.
    #[inline(always)]
    fn next(&mut self) -> &mut T {
        self.filled += 1;
        &mut self.batch[self.filled - 1]
    }

    fn is_full(&self) -> bool {
        self.filled == self.batch.len()
    }

    /// Whether all of the inbox was seen: then it is empty.
    #[inline(always)]
    fn is_read(&mut self) -> bool {
        let all = self.seen == self.inbox.len();
        if all {
            self.inbox.clear();
            self.seen = 0;
        }
        all
    }

    /// The next message of the inbox.
    #[inline(always)]
    fn read(&mut self) -> &T {
        self.seen += 1;
        &self.inbox[self.seen - 1]
    }
}

/// Whether it was sent, if it fails for no other reason than that it is full.
#[inline(always)]
fn sent<V>(tried: Result<(), SendError<V>>) -> Result<bool>
where
    SendError<V>: Into<Box<dyn std::error::Error>>,
{
    match tried {
        Ok(()) => Ok(true),
        Err(SendError::Full(_)) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// What was received, if it fails for no other reason than that it is empty.
#[inline(always)]
fn received<T>(tried: Result<T, RecvError>) -> Result<Option<T>> {
    match tried {
        Ok(message) => Ok(Some(message)),
        Err(RecvError::Empty) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// A pipe of messages.
pub struct Typed<M: Pod> {
    pipe: Pipe<M>,
    desk: Desk<M>,
}

impl<M: Message> Typed<M> {
    pub fn new(pipe: Pipe<M>) -> Self {
        Typed { pipe, desk: Desk::new(M::zeroed(), size_of::<M>()) }
    }
}

impl<M: Message> End for Typed<M> {
    #[inline(always)]
    fn send(&mut self, number: u64) -> Result<()> {
        let message = M::numbered(&mut self.desk.message, number);
        Ok(self.pipe.send(message)?)
    }

    #[inline(always)]
    fn recv(&mut self) -> Result<u64> {
        self.pipe.recv()?.into_number()
    }

    #[inline(always)]
    fn try_send(&mut self, number: u64) -> Result<bool> {
        let message = M::numbered(&mut self.desk.message, number);
        sent(self.pipe.try_send(message))
    }

    #[inline(always)]
    fn try_recv(&mut self) -> Result<Option<u64>> {
        received(self.pipe.try_recv())?.map(M::into_number).transpose()
    }

    #[inline(always)]
    fn send_later(&mut self, number: u64) -> Result<()> {
        self.desk.next().stamp(number);
        if self.desk.is_full() { self.send_now() } else { Ok(()) }
    }

    fn send_now(&mut self) -> Result<()> {
        self.pipe.send_many(&self.desk.batch[..self.desk.filled])?;
        self.desk.filled = 0;
        Ok(())
    }

    #[inline(always)]
    fn recv_many(&mut self) -> Result<u64> {
        if self.desk.is_read() {
            self.pipe.recv_many(&mut self.desk.inbox, batch(size_of::<M>()))?;
        }
        self.desk.read().number()
    }

    #[inline(always)]
    fn send_in_place(&mut self, number: u64) -> Result<()> {
        let mut slot = self.pipe.reserve()?;
        slot.touch(number);
        slot.commit();
        Ok(())
    }

    #[inline(always)]
    fn recv_in_place(&mut self) -> Result<u64> {
        Ok(self.pipe.peek()?.first())
    }
}

/// A pipe of bytes.
pub struct Bytes {
    pipe: Pipe,
    /// Length of a message.
    len: usize,
    buffer: Vec<u8>,
    desk: Desk<Vec<u8>>,
}

impl Bytes {
    pub fn new(pipe: Pipe, len: usize) -> Self {
        Bytes { pipe, len, buffer: vec![0; len], desk: Desk::new(vec![0; len], len) }
    }
}

impl End for Bytes {
    #[inline(always)]
    fn send(&mut self, number: u64) -> Result<()> {
        stamp_bytes(&mut self.desk.message, number);
        Ok(self.pipe.send(&self.desk.message)?)
    }

    #[inline(always)]
    fn recv(&mut self) -> Result<u64> {
        let len = self.pipe.recv_into(&mut self.buffer)?;
        number_of_bytes(&self.buffer[..len], self.len)
    }

    #[inline(always)]
    fn try_send(&mut self, number: u64) -> Result<bool> {
        stamp_bytes(&mut self.desk.message, number);
        sent(self.pipe.try_send(&self.desk.message))
    }

    #[inline(always)]
    fn try_recv(&mut self) -> Result<Option<u64>> {
        let len = received(self.pipe.try_recv_into(&mut self.buffer))?;
        len.map(|len| number_of_bytes(&self.buffer[..len], self.len)).transpose()
    }

    #[inline(always)]
    fn send_later(&mut self, number: u64) -> Result<()> {
        stamp_bytes(self.desk.next(), number);
        if self.desk.is_full() { self.send_now() } else { Ok(()) }
    }

    fn send_now(&mut self) -> Result<()> {
        self.pipe.send_many(&self.desk.batch[..self.desk.filled])?;
        self.desk.filled = 0;
        Ok(())
    }

    #[inline(always)]
    fn recv_many(&mut self) -> Result<u64> {
        if self.desk.is_read() {
            self.pipe.recv_many(&mut self.desk.inbox, batch(self.len))?;
        }
        number_of_bytes(self.desk.read(), self.len)
    }

    #[inline(always)]
    fn send_in_place(&mut self, number: u64) -> Result<()> {
        let mut room = self.pipe.reserve(self.len)?;
        if let Some(first) = room.first_chunk_mut() {
            *first = number.to_ne_bytes();
        }
        room.commit(self.len);
        Ok(())
    }

    #[inline(always)]
    fn recv_in_place(&mut self) -> Result<u64> {
        let message = self.pipe.peek()?;
        match message.first_chunk() {
            Some(first) if message.len() == self.len => Ok(u64::from_ne_bytes(*first)),
            _ => Err(format!("a message of {} bytes arrived", message.len()).into()),
        }
    }
}

/// Two queues, one each way.
pub struct Queues<M: Pod> {
    out: Sender<M>,
    back: Receiver<M>,
    desk: Desk<M>,
}

impl<M: Message> Queues<M> {
    pub fn new(out: &Queue<M>, back: &Queue<M>) -> Result<Self> {
        let (out, back) = (out.sender()?, back.receiver()?);
        Ok(Queues { out, back, desk: Desk::new(M::zeroed(), size_of::<M>()) })
    }
}

impl<M: Message> End for Queues<M> {
    #[inline(always)]
    fn send(&mut self, number: u64) -> Result<()> {
        let message = M::numbered(&mut self.desk.message, number);
        Ok(self.out.send(message)?)
    }

    #[inline(always)]
    fn recv(&mut self) -> Result<u64> {
        self.back.recv()?.into_number()
    }

    #[inline(always)]
    fn try_send(&mut self, number: u64) -> Result<bool> {
        let message = M::numbered(&mut self.desk.message, number);
        sent(self.out.try_send(message))
    }

    #[inline(always)]
    fn try_recv(&mut self) -> Result<Option<u64>> {
        received(self.back.try_recv())?.map(M::into_number).transpose()
    }

    #[inline(always)]
    fn send_later(&mut self, number: u64) -> Result<()> {
        self.desk.next().stamp(number);
        if self.desk.is_full() { self.send_now() } else { Ok(()) }
    }

    fn send_now(&mut self) -> Result<()> {
        self.out.send_many(&self.desk.batch[..self.desk.filled])?;
        self.desk.filled = 0;
        Ok(())
    }

    #[inline(always)]
    fn recv_many(&mut self) -> Result<u64> {
        if self.desk.is_read() {
            self.back.recv_many(&mut self.desk.inbox, batch(size_of::<M>()))?;
        }
        self.desk.read().number()
    }

    #[inline(always)]
    fn send_in_place(&mut self, number: u64) -> Result<()> {
        let mut slot = self.out.claim()?;
        slot.touch(number);
        slot.commit();
        Ok(())
    }

    #[inline(always)]
    fn recv_in_place(&mut self) -> Result<u64> {
        Ok(self.back.take()?.first())
    }
}
