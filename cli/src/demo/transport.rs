//! The ways between two processes that the table compares, each used as its
//! users would: one message per call, waiting as its blocking calls do.

use crate::Result;
use bytemuck::{bytes_of, bytes_of_mut};
use serde::{Deserialize, Serialize};
use slipring::{Pipe, Pod, Queue, Receiver, Sender};
use std::fmt::Debug;
use std::io::{Read, Write};

/// Which way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    #[serde(rename = "slipring pipe")]
    Typed,
    #[serde(rename = "slipring pipe of bytes")]
    Bytes,
    #[serde(rename = "slipring queue")]
    Queue,
    #[serde(rename = "OS pipe")]
    OsPipe,
    #[serde(rename = "Unix socket")]
    UnixSocket,
}

impl Kind {
    pub const ALL: [Kind; 5] =
        [Kind::Typed, Kind::Bytes, Kind::Queue, Kind::OsPipe, Kind::UnixSocket];

    /// Its name in text.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Typed => "slipring pipe",
            Kind::Bytes => "slipring pipe of bytes",
            Kind::Queue => "slipring queue",
            Kind::OsPipe => "OS pipe",
            Kind::UnixSocket => "Unix socket",
        }
    }
}

/// A message: one number, as often as it takes to fill it.
pub trait Message: Pod + Debug {
    /// Holds this number.
    fn of(number: u64) -> Self;

    /// The number, if all of the message agrees on it.
    fn number(&self) -> Option<u64>;
}

impl<const N: usize> Message for [u64; N]
where
    [u64; N]: Pod + Debug,
{
    #[inline]
    fn of(number: u64) -> Self {
        [number; N]
    }

    #[inline]
    fn number(&self) -> Option<u64> {
        let first = *self.first()?;
        self.iter().all(|number| *number == first).then_some(first)
    }
}

/// One end of a way.
pub trait Transport<M> {
    /// Sends, waiting for room.
    fn send(&mut self, message: M) -> Result<()>;

    /// Receives, waiting for a message.
    fn recv(&mut self) -> Result<M>;
}

/// A pipe of messages.
pub struct Typed<M: Pod>(pub Pipe<M>);

impl<M: Message> Transport<M> for Typed<M> {
    #[inline]
    fn send(&mut self, message: M) -> Result<()> {
        Ok(self.0.send(message)?)
    }

    #[inline]
    fn recv(&mut self) -> Result<M> {
        Ok(self.0.recv()?)
    }
}

/// A pipe of bytes.
pub struct Bytes(pub Pipe);

impl<M: Message> Transport<M> for Bytes {
    #[inline]
    fn send(&mut self, message: M) -> Result<()> {
        Ok(self.0.send(bytes_of(&message))?)
    }

    #[inline]
    fn recv(&mut self) -> Result<M> {
        let mut message = M::zeroed();
        let len = self.0.recv_into(bytes_of_mut(&mut message))?;
        if len == size_of::<M>() { Ok(message) } else { Err("a message came shorter".into()) }
    }
}

/// Two queues, one each way.
pub struct Queues<M> {
    out: Sender<M>,
    back: Receiver<M>,
}

impl<M: Message> Queues<M> {
    pub fn new(out: &Queue<M>, back: &Queue<M>) -> Result<Queues<M>> {
        Ok(Queues { out: out.sender()?, back: back.receiver()? })
    }
}

impl<M: Message> Transport<M> for Queues<M> {
    #[inline]
    fn send(&mut self, message: M) -> Result<()> {
        Ok(self.out.send(message)?)
    }

    #[inline]
    fn recv(&mut self) -> Result<M> {
        Ok(self.back.recv()?)
    }
}

/// Two streams of the operating system, one each way.
pub struct Streams<W, R> {
    pub out: W,
    pub back: R,
}

impl<M: Message, W: Write, R: Read> Transport<M> for Streams<W, R> {
    #[inline]
    fn send(&mut self, message: M) -> Result<()> {
        Ok(self.out.write_all(bytes_of(&message))?)
    }

    #[inline]
    fn recv(&mut self) -> Result<M> {
        let mut message = M::zeroed();
        self.back.read_exact(bytes_of_mut(&mut message))?;
        Ok(message)
    }
}
