//! The ways between two processes, and the manners of using them.

use super::message::{number_of_bytes, stamp_bytes};
use crate::Result;
use serde::{Deserialize, Serialize};
use std::hint::spin_loop;
use std::io::{Read, Write};

/// A way between two processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Way {
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

impl Way {
    pub const ALL: [Way; 5] = [Way::Typed, Way::Bytes, Way::Queue, Way::OsPipe, Way::UnixSocket];

    /// Its name in text.
    pub fn name(self) -> &'static str {
        match self {
            Way::Typed => "slipring pipe",
            Way::Bytes => "slipring pipe of bytes",
            Way::Queue => "slipring queue",
            Way::OsPipe => "OS pipe",
            Way::UnixSocket => "Unix socket",
        }
    }
}

/// How a way is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Manner {
    /// One message per call, waiting as the calls do that wait.
    Blocking,
    /// One message per call, calling again until it goes: nobody ever sleeps.
    Polling,
    /// Many messages per call.
    Batched,
    /// One message per call, written and read where it lies: the first word
    /// alone.
    InPlace,
}

impl Manner {
    /// Its name in text.
    pub fn name(self) -> &'static str {
        match self {
            Manner::Blocking => "blocking",
            Manner::Polling => "polling",
            Manner::Batched => "batched",
            Manner::InPlace => "in place",
        }
    }
}

/// One end of a way, used in one manner.
pub trait Transport {
    /// Sends a message with this number.
    fn send(&mut self, number: u64) -> Result<()>;

    /// Receives a message: its number.
    fn recv(&mut self) -> Result<u64>;

    /// Sends what was held back.
    fn flush(&mut self) -> Result<()> {
        Ok(())
    }
}

/// One end of a way of slipring, which can be used in every manner.
pub trait End {
    fn send(&mut self, number: u64) -> Result<()>;
    fn recv(&mut self) -> Result<u64>;

    /// Sends, unless it is full.
    fn try_send(&mut self, number: u64) -> Result<bool>;
    /// Receives, unless it is empty.
    fn try_recv(&mut self) -> Result<Option<u64>>;

    /// Puts a message into the batch, and sends that when it is full.
    fn send_later(&mut self, number: u64) -> Result<()>;
    /// Sends the batch.
    fn send_now(&mut self) -> Result<()>;
    /// The next message of the batch that came, or of the next batch.
    fn recv_many(&mut self) -> Result<u64>;

    fn send_in_place(&mut self, number: u64) -> Result<()>;
    fn recv_in_place(&mut self) -> Result<u64>;
}

/// See [`Manner::Blocking`].
pub struct Blocking<E>(pub E);

impl<E: End> Transport for Blocking<E> {
    #[inline(always)]
    fn send(&mut self, number: u64) -> Result<()> {
        self.0.send(number)
    }

    #[inline(always)]
    fn recv(&mut self) -> Result<u64> {
        self.0.recv()
    }
}

/// See [`Manner::Polling`].
pub struct Polling<E>(pub E);

impl<E: End> Transport for Polling<E> {
    #[inline(always)]
    fn send(&mut self, number: u64) -> Result<()> {
        while !self.0.try_send(number)? {
            spin_loop();
        }
        Ok(())
    }

    #[inline(always)]
    fn recv(&mut self) -> Result<u64> {
        loop {
            if let Some(number) = self.0.try_recv()? {
                return Ok(number);
            }
            spin_loop();
        }
    }
}

/// See [`Manner::Batched`].
pub struct Batched<E>(pub E);

impl<E: End> Transport for Batched<E> {
    #[inline(always)]
    fn send(&mut self, number: u64) -> Result<()> {
        self.0.send_later(number)
    }

    #[inline(always)]
    fn recv(&mut self) -> Result<u64> {
        self.0.recv_many()
    }

    fn flush(&mut self) -> Result<()> {
        self.0.send_now()
    }
}

/// See [`Manner::InPlace`].
pub struct InPlace<E>(pub E);

impl<E: End> Transport for InPlace<E> {
    #[inline(always)]
    fn send(&mut self, number: u64) -> Result<()> {
        self.0.send_in_place(number)
    }

    #[inline(always)]
    fn recv(&mut self) -> Result<u64> {
        self.0.recv_in_place()
    }
}

/// Two streams of the operating system, one each way.
pub struct Streams<W, R> {
    out: W,
    back: R,
    message: Vec<u8>,
}

impl<W: Write, R: Read> Streams<W, R> {
    /// For messages of this length.
    pub fn new(out: W, back: R, len: usize) -> Self {
        Streams { out, back, message: vec![0; len] }
    }
}

impl<W: Write, R: Read> Transport for Streams<W, R> {
    #[inline(always)]
    fn send(&mut self, number: u64) -> Result<()> {
        stamp_bytes(&mut self.message, number);
        Ok(self.out.write_all(&self.message)?)
    }

    #[inline(always)]
    fn recv(&mut self) -> Result<u64> {
        self.back.read_exact(&mut self.message)?;
        number_of_bytes(&self.message, self.message.len())
    }
}
