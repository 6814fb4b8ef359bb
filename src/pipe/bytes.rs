//! Pipes of bytes: messages of any length, and streams, over
//! [`crate::ring::bytes`].
//!
//! A message that fits goes as one record. A longer one goes in pieces: the
//! first begins with the whole length, so that the receiver can tell a buffer
//! that is too small before the rest is there. A sender that is killed between
//! two pieces, or times out, leaves a message without its end; the receiver
//! drops it when the next one begins. A receiver that is killed between two
//! pieces has given the first ones back: its successor passes over the rest.

use super::sealed::Sealed;
use super::{Geometry, Pipe, PipeReceiver, PipeSender, Post, end_of_stream};
use crate::error::{Error, RecvError, Result, SendError};
use crate::favour::Favour;
use crate::memory::{Lent, Region};
use crate::ring::bytes::{Consumer, Grant, Kind, Producer, Ring};
use crate::sync::point;
use crate::wait::{Look, deadline, glance, is_over};
use crate::word::seat::State;
use core::ops::{Deref, DerefMut};
use core::ptr::NonNull;
use std::fmt;
use std::io;
use std::time::{Duration, Instant};

/// A first piece begins with the length of the message.
const PREFIX: usize = 8;

/// Most memory that a length alone, which a hostile peer may have made up, gets
/// reserved.
const RESERVED_UNSEEN: usize = 1 << 20;

/// Pieces that one look takes out of the ring. A sender that goes on for ever
/// must not hold up a receiver that does not wait, or only so long. The ring
/// never holds as many pieces of correct senders, each a quarter of it but for
/// the last of a message.
const PIECES_AT_ONCE: usize = 64;

/// A consumer, and what it knows beside its position.
#[derive(Debug)]
pub struct Assembly {
    consumer: Consumer<'static>,
    /// The pieces so far of a message that came in pieces.
    partial: Option<Partial>,
    /// Bytes of the next message that were read as a stream.
    read: usize,
    /// What a [`BytesMessage`] lends.
    lent: Lent<[u8]>,
}

#[derive(Debug)]
struct Partial {
    data: Vec<u8>,
    len: usize,
}

impl Partial {
    fn is_whole(&self) -> bool {
        self.data.len() == self.len
    }
}

impl Sealed for [u8] {
    type Producer = Producer<'static>;
    type Consumer = Assembly;

    unsafe fn producer(ring: Region<'static>, geometry: Geometry) -> Result<Self::Producer> {
        // SAFETY: handed on.
        unsafe { attach(ring, geometry)?.producer() }
    }

    unsafe fn consumer(ring: Region<'static>, geometry: Geometry) -> Result<Self::Consumer> {
        // SAFETY: handed on.
        let consumer = unsafe { attach(ring, geometry)?.consumer() }?;
        Ok(Assembly::new(consumer))
    }
}

/// # Safety
///
/// As [`Ring::attach`].
unsafe fn attach(ring: Region<'static>, geometry: Geometry) -> Result<Ring<'static>> {
    match geometry {
        // SAFETY: handed on.
        Geometry::Bytes(geometry) => Ok(unsafe { Ring::attach(ring, geometry) }),
        Geometry::Typed(_) => Err(Error::Corrupt { what: "flags of a pipe", at: 0 }),
    }
}

/// When a sender stops waiting.
#[derive(Clone, Copy)]
enum Until {
    Now,
    Deadline(Option<Instant>),
}

impl PipeSender<[u8]> {
    /// Longest message that goes as one piece, in place and without waiting for
    /// the receiver: about half of the ring.
    pub fn max_in_place(&self) -> usize {
        self.producer.ring().geometry().max_record()
    }

    /// Room for `len` bytes in the usual case: somebody is there to receive
    /// them, and they fit as things are known. Small enough for the caller's
    /// loop; `None` sends it the long way.
    #[inline(always)]
    fn at_hand(&mut self, len: usize) -> Option<Grant> {
        if !self.post.is_current() || self.post.direction.receiver.is_gone() {
            return None;
        }
        let grant = self.producer.at_hand(len)?;
        self.post.pace.hits(1);
        Some(grant)
    }

    /// Fails when nobody will receive, or the end must be taken anew.
    fn ready(&mut self) -> Result<(), SendError<()>> {
        if !self.post.is_current() {
            self.renew()?;
        }
        match self.post.peer() {
            State::Left | State::Died(_) => Err(SendError::Closed(())),
            _ => Ok(()),
        }
    }

    #[cold]
    fn renew(&mut self) -> Result<()> {
        self.post.renew()?;
        // SAFETY: the seat was just taken, so this is the only producer; the
        // one from before the fork is dropped here.
        let producer = unsafe { self.producer.ring().producer() };
        self.producer = producer.inspect_err(|_| self.post.give_up())?;
        Ok(())
    }

    /// Space for `len` bytes, which fit in place.
    #[inline(never)]
    fn grant(&mut self, len: usize, until: Until) -> Result<Grant, SendError<()>> {
        self.ready()?;
        match self.producer.reserve(len) {
            Ok(Some(grant)) => {
                // A look at the receiver's line for each message would slow it down.
                if self.producer.is_tight() {
                    self.rest(len);
                }
                Ok(grant)
            }
            Ok(None) => self.grant_waiting(len, until),
            Err(error) => Err(error.into()),
        }
    }

    #[cold]
    fn grant_waiting(&mut self, len: usize, until: Until) -> Result<Grant, SendError<()>> {
        loop {
            self.wait_for_room(len, until)?;
            match self.producer.reserve(len) {
                Ok(Some(grant)) => return Ok(grant),
                // A successor of the receiver came between two looks.
                Ok(None) => {}
                Err(error) => return Err(error.into()),
            }
            if let Until::Deadline(deadline) = until
                && is_over(deadline)
            {
                return Err(SendError::Timeout(()));
            }
        }
    }

    /// Lets the receiver get on with what is in the ring, if that brings room soon.
    fn rest(&mut self, len: usize) {
        // Nobody releases what was not published.
        self.publish();
        let producer = &self.producer;
        self.post.pace.full(|n| producer.has_room(n, len));
    }

    #[cold]
    fn wait_for_room(&mut self, len: usize, until: Until) -> Result<(), SendError<()>> {
        self.rest(len);
        let Until::Deadline(deadline) = until else {
            self.post.missed()?;
            return Err(SendError::Full(()));
        };
        let PipeSender { producer, post } = self;
        let waited = post.wait(deadline, || match (producer.is_ready(len), post.peer()) {
            (true, _) | (_, State::Left | State::Died(_)) => Look::Ready(Ok(())),
            _ => Look::NotYet,
        });
        match waited {
            None => Err(SendError::Timeout(())),
            Some(Err(error)) => Err(error.into()),
            Some(Ok(())) => self.ready(),
        }
    }

    #[inline(always)]
    fn publish(&mut self) {
        // What a forked child finds committed is its parent's, to be published by that.
        if self.producer.is_dirty() && self.post.is_current() {
            self.producer.publish();
            self.post.direction.readable.notify();
        }
    }

    /// Puts a message into the ring, whole or in pieces; publishes the pieces.
    #[inline]
    fn put(&mut self, message: &[u8], until: Until) -> Result<(), SendError<()>> {
        if let Some(grant) = self.at_hand(message.len()) {
            fill(&grant, 0, message);
            self.producer.commit(Kind::Whole, message.len());
            return Ok(());
        }
        self.put_elsewise(message, until)
    }

    #[inline(never)]
    fn put_elsewise(&mut self, message: &[u8], until: Until) -> Result<(), SendError<()>> {
        let max = self.max_in_place();
        if message.len() <= max {
            let grant = self.grant(message.len(), until)?;
            fill(&grant, 0, message);
            self.producer.commit(Kind::Whole, message.len());
            return Ok(());
        }
        match until {
            Until::Now => Err(Error::TooLarge { len: message.len(), max }.into()),
            Until::Deadline(_) => self.put_in_pieces(message, until),
        }
    }

    #[cold]
    fn put_in_pieces(&mut self, message: &[u8], until: Until) -> Result<(), SendError<()>> {
        // Not less than this at a time, but for the last piece.
        let least = (self.max_in_place() / 2).max(PREFIX + 1);
        let mut rest = message;
        let mut first = true;
        while first || !rest.is_empty() {
            // More than the ring holds has gone: the receiver keeps up, so that
            // waiting for room alone might never meet the deadline.
            if let Until::Deadline(deadline) = until
                && message.len() - rest.len() > self.producer.ring().geometry().capacity()
                && is_over(deadline)
            {
                return Err(SendError::Timeout(()));
            }
            let prefix = if first { PREFIX } else { 0 };
            let wanted = prefix + rest.len();
            self.ready()?;
            let room = loop {
                match self.producer.room(wanted) {
                    Ok(Some(room)) if room >= wanted.min(least) => break room,
                    Ok(_) => self.wait_for_room(wanted.min(least), until)?,
                    Err(error) => return Err(error.into()),
                }
            };
            let grant = self.grant(room, until)?;
            if first {
                fill(&grant, 0, &(message.len() as u64).to_le_bytes());
            }
            let (piece, more) = rest.split_at(room - prefix);
            fill(&grant, prefix, piece);
            let kind = match (first, more.is_empty()) {
                (true, _) => Kind::First,
                (false, false) => Kind::Middle,
                (false, true) => Kind::Last,
            };
            self.producer.commit(kind, room);
            self.publish();
            (rest, first) = (more, false);
        }
        Ok(())
    }

    #[inline]
    fn send_until(&mut self, message: &[u8], until: Until) -> Result<(), SendError<()>> {
        self.put(message, until)?;
        self.publish();
        Ok(())
    }

    /// Sends without waiting. In a ring that is nearly full it may take three
    /// microseconds, in which the receiver can get on.
    ///
    /// # Errors
    ///
    /// `Full`, `Closed` when the other end is gone, or `Failed`; the latter
    /// with [`Error::TooLarge`] for a message that does not go in one piece.
    #[inline]
    pub fn try_send(&mut self, message: &[u8]) -> Result<(), SendError<()>> {
        self.send_until(message, Until::Now)
    }

    /// Sends a message of any length, waiting for room for as long as it takes.
    /// One that is longer than [`PipeSender::max_in_place`] goes in pieces, and
    /// so waits for the receiver.
    ///
    /// # Errors
    ///
    /// `Closed` or `Failed`.
    #[inline]
    pub fn send(&mut self, message: &[u8]) -> Result<(), SendError<()>> {
        self.send_until(message, Until::Deadline(None))
    }

    /// Sends, waiting for room for at most `timeout`. A message that goes in
    /// pieces and is not through by then is dropped by the receiver.
    ///
    /// # Errors
    ///
    /// `Timeout`, `Closed` or `Failed`.
    pub fn send_timeout(&mut self, message: &[u8], timeout: Duration) -> Result<(), SendError<()>> {
        self.send_until(message, Until::Deadline(deadline(timeout)))
    }

    /// Sends, waiting for room until `at`.
    ///
    /// # Errors
    ///
    /// As [`PipeSender::send_timeout`].
    pub fn send_deadline(&mut self, message: &[u8], at: Instant) -> Result<(), SendError<()>> {
        self.send_until(message, Until::Deadline(Some(at)))
    }

    /// Sends all messages in order, and shows them to the receiver together as
    /// far as there is room to spare.
    ///
    /// # Errors
    ///
    /// `Closed` or `Failed`, with the number of messages that were sent.
    pub fn send_many<M: AsRef<[u8]>>(&mut self, messages: &[M]) -> Result<(), SendError<usize>> {
        for (sent, message) in messages.iter().enumerate() {
            let put = self.put(message.as_ref(), Until::Deadline(None));
            if let Err(error) = put {
                self.publish();
                return Err(error.map(|()| sent));
            }
        }
        self.publish();
        Ok(())
    }

    /// Room for a message of up to `len` bytes, to be written in place, waiting
    /// for as long as it takes. Nothing is held up by it: what is not committed
    /// does not exist.
    ///
    /// # Errors
    ///
    /// `Closed`, or `Failed`, which includes [`Error::TooLarge`] above
    /// [`PipeSender::max_in_place`].
    #[inline]
    pub fn reserve(&mut self, len: usize) -> Result<BytesGrant<'_>, SendError<()>> {
        let grant = match self.at_hand(len) {
            Some(grant) => grant,
            None => self.grant(len, Until::Deadline(None))?,
        };
        Ok(BytesGrant { grant, sender: self })
    }

    /// Room for a message of up to `len` bytes, without waiting.
    ///
    /// # Errors
    ///
    /// `Full`, and as [`PipeSender::reserve`].
    #[inline]
    pub fn try_reserve(&mut self, len: usize) -> Result<BytesGrant<'_>, SendError<()>> {
        let grant = match self.at_hand(len) {
            Some(grant) => grant,
            None => self.grant(len, Until::Now)?,
        };
        Ok(BytesGrant { grant, sender: self })
    }
}

/// Copies into a grant that is as long as both.
#[inline(always)]
fn fill(grant: &Grant, at: usize, bytes: &[u8]) {
    debug_assert!(at + bytes.len() <= grant.len());
    // SAFETY: callers reserved `at + bytes.len()` bytes or more, which are the
    // producer's alone until it publishes.
    unsafe { grant.ptr().as_ptr().add(at).copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) }
    point("pipe.bytes");
}

/// Room for one message: write it in place, then
/// [`commit`](BytesGrant::commit) as much as it took. Dropping it gives the room
/// back.
#[must_use = "a message that is not committed is not sent"]
pub struct BytesGrant<'a> {
    sender: &'a mut PipeSender<[u8]>,
    grant: Grant,
}

impl BytesGrant<'_> {
    /// Sends the first `len` bytes, at most all. In a forked child, where the
    /// end is the parent's, this does nothing.
    #[inline]
    pub fn commit(self, len: usize) {
        if self.sender.post.is_current() {
            self.sender.producer.commit(Kind::Whole, len.min(self.grant.len()));
            self.sender.publish();
        }
    }
}

impl Deref for BytesGrant<'_> {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        // SAFETY: initialised bytes (whatever they are), the producer's alone.
        unsafe { core::slice::from_raw_parts(self.grant.ptr().as_ptr(), self.grant.len()) }
    }
}

impl DerefMut for BytesGrant<'_> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`.
        unsafe { core::slice::from_raw_parts_mut(self.grant.ptr().as_ptr(), self.grant.len()) }
    }
}

impl fmt::Debug for BytesGrant<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BytesGrant").field("len", &self.len()).finish_non_exhaustive()
    }
}

/// The next message, past what was read of it as a stream: in the ring, or in
/// [`Assembly::partial`] if there is one.
type Found = NonNull<[u8]>;

impl Assembly {
    fn new(consumer: Consumer<'static>) -> Assembly {
        Assembly { consumer, partial: None, read: 0, lent: Lent::NOTHING }
    }

    /// What is left to read of these bytes.
    #[inline(always)]
    fn rest(bytes: NonNull<u8>, len: usize, read: usize) -> Found {
        let read = read.min(len);
        // SAFETY: no further than the end.
        NonNull::slice_from_raw_parts(unsafe { bytes.add(read) }, len - read)
    }

    /// The next message in the usual case: nothing of it was read, no other has
    /// begun, and it lies in the ring in one piece.
    #[inline(always)]
    fn at_hand(&mut self, is_away: bool) -> Option<Found> {
        if self.partial.is_some() || self.read > 0 {
            return None;
        }
        let record = self.consumer.at_hand(is_away)?;
        Some(Self::rest(record.ptr(), record.len(), 0))
    }

    /// The next whole message, if it is there. Pieces are taken out of the ring
    /// on the way, so many at a time, and the sender is told. A message longer than
    /// `room` is reported by its length as soon as that is known.
    fn next(
        &mut self,
        room: usize,
        post: &Post,
        favour: &Favour,
    ) -> Result<Option<Found>, RecvError> {
        let corrupt = |what, at: usize| RecvError::from(Error::Corrupt { what, at: at as u64 });
        for _ in 0..PIECES_AT_ONCE {
            if let Some(partial) = &self.partial {
                if partial.len - self.read.min(partial.len) > room {
                    let needed = partial.len - self.read.min(partial.len);
                    return Err(Error::BufferTooSmall { needed, len: room }.into());
                }
                if partial.is_whole() {
                    let data = NonNull::from(&*partial.data);
                    return Ok(Some(Self::rest(data.cast(), data.len(), self.read)));
                }
            }
            let Some(record) = self.consumer.peek()? else { return Ok(None) };
            // SAFETY: published, and checked by the consumer to lie inside the ring; nobody
            // writes there until it is released, below at the earliest.
            let bytes = unsafe { core::slice::from_raw_parts(record.ptr().as_ptr(), record.len()) };
            match record.kind() {
                Kind::Whole => {
                    // A message that had begun will not end.
                    if self.partial.take().is_some() {
                        self.read = 0;
                    }
                    let needed = bytes.len() - self.read.min(bytes.len());
                    if needed > room {
                        return Err(Error::BufferTooSmall { needed, len: room }.into());
                    }
                    return Ok(Some(Self::rest(record.ptr(), record.len(), self.read)));
                }
                Kind::First => {
                    let Some((prefix, piece)) = bytes.split_first_chunk::<PREFIX>() else {
                        return Err(corrupt("first piece without a length, of", bytes.len()));
                    };
                    let Ok(len) = usize::try_from(u64::from_le_bytes(*prefix)) else {
                        return Err(corrupt("length of a message in pieces:", usize::MAX));
                    };
                    if piece.len() > len {
                        return Err(corrupt("length of a message in pieces:", len));
                    }
                    let mut data = Vec::with_capacity(len.min(RESERVED_UNSEEN));
                    data.extend_from_slice(piece);
                    self.partial = Some(Partial { data, len });
                    self.read = 0;
                }
                Kind::Middle | Kind::Last => {
                    // Without a beginning, that went down with a dead receiver.
                    if let Some(partial) = &mut self.partial {
                        let missing = partial.len - partial.data.len();
                        let last = record.kind() == Kind::Last;
                        if bytes.len() > missing || last != (bytes.len() == missing) {
                            let what = "piece of a message, too long or short:";
                            return Err(corrupt(what, bytes.len()));
                        }
                        partial.data.extend_from_slice(bytes);
                    }
                }
            }
            self.own_lines(favour);
            self.consumer.advance();
            self.consumer.release();
            post.direction.writable.notify();
        }
        Ok(None)
    }

    /// Takes over the lines of the record that was found, once it is copied out, if that pays.
    #[inline(always)]
    fn own_lines(&self, favour: &Favour) {
        let len = self.consumer.peeked_len();
        if favour.wants(len, len, || true) {
            self.consumer.own_lines();
        }
    }

    /// Done with the message that was found; whether all of it was copied.
    #[inline(always)]
    fn finish(&mut self, copied: bool, favour: &Favour) {
        if self.partial.is_none() {
            if copied {
                self.own_lines(favour);
            }
            self.consumer.advance();
            self.consumer.release();
        } else {
            self.partial = None;
        }
        self.read = 0;
    }
}

impl PipeReceiver<[u8]> {
    /// The next message in the usual case: as [`PipeSender::at_hand`].
    #[inline(always)]
    fn at_hand(&mut self, room: usize) -> Option<Found> {
        if !self.post.is_current() {
            return None;
        }
        let is_away = self.post.pace.is_away();
        let found = self.consumer.at_hand(is_away).filter(|found| found.len() <= room)?;
        self.post.pace.hits(1);
        Some(found)
    }

    /// The next whole message; `None` if there is none now.
    fn look(&mut self, room: usize) -> Result<Option<Found>, RecvError> {
        if !self.post.is_current() {
            self.renew()?;
        }
        if let Some(found) = self.consumer.next(room, &self.post, &self.favour)? {
            return Ok(Some(found));
        }
        let Some(end) = end_of_stream(self.post.peer()) else { return Ok(None) };
        // What was sent before the end is visible now.
        match self.consumer.next(room, &self.post, &self.favour)? {
            Some(found) => Ok(Some(found)),
            None => {
                // A message that had begun will not end.
                self.consumer.partial = None;
                self.consumer.read = 0;
                Err(end)
            }
        }
    }

    #[cold]
    fn renew(&mut self) -> Result<()> {
        self.post.renew()?;
        // SAFETY: the seat was just taken, so this is the only consumer; the
        // one from before the fork is dropped here.
        let consumer = unsafe { self.consumer.consumer.ring().consumer() };
        let consumer = consumer.inspect_err(|_| self.post.give_up())?;
        self.consumer = Assembly::new(consumer);
        Ok(())
    }

    /// A fruitless look: see [`Pace`](crate::pace::Pace).
    fn missed(&self) {
        self.post.pace.miss(|lines| self.consumer.consumer.has_stock(lines));
    }

    #[inline(never)]
    fn look_now(&mut self, room: usize) -> Result<Found, RecvError> {
        match self.look(room)? {
            Some(found) => Ok(found),
            None => {
                self.missed();
                self.post.missed()?;
                Err(RecvError::Empty)
            }
        }
    }

    #[inline(never)]
    fn look_by(&mut self, room: usize, deadline: Option<Instant>) -> Result<Found, RecvError> {
        if let Some(found) = self.look(room)? {
            return Ok(found);
        }
        self.missed();
        let consumer = &self.consumer.consumer;
        glance(deadline, || consumer.is_ready().then_some(()));
        let mut waited_once = false;
        loop {
            if let Some(found) = self.look(room)? {
                return Ok(found);
            }
            if waited_once && is_over(deadline) {
                return Err(RecvError::Timeout);
            }
            let PipeReceiver { consumer, post, .. } = self;
            let waited = post.wait(deadline, || {
                if consumer.consumer.is_ready() || end_of_stream(post.peer()).is_some() {
                    Look::Ready(Ok(()))
                } else {
                    Look::NotYet
                }
            });
            match waited {
                None => return Err(RecvError::Timeout),
                Some(done) => done?,
            }
            // There may always be another piece.
            waited_once = true;
        }
    }

    #[inline(always)]
    fn lend(&mut self, found: Found) -> BytesMessage<'_> {
        self.consumer.lent.set(found);
        BytesMessage { receiver: self }
    }

    #[inline(always)]
    fn finish(&mut self, copied: bool) {
        self.consumer.finish(copied, &self.favour);
        self.post.direction.writable.notify();
    }

    fn copy_out(&mut self, found: Found) -> Vec<u8> {
        let message = match &mut self.consumer.partial {
            Some(partial) => {
                let mut data = core::mem::take(&mut partial.data);
                data.drain(..self.consumer.read.min(data.len()));
                data
            }
            // SAFETY: a record that was found and is released below.
            None => unsafe { found.as_ref() }.to_vec(),
        };
        self.finish(true);
        message
    }

    #[inline(always)]
    fn copy_into(&mut self, found: Found, buffer: &mut [u8]) -> usize {
        // SAFETY: what was found, in the ring or in `partial`, stays until `finish`.
        let message = unsafe { found.as_ref() };
        let len = message.len();
        buffer[..len].copy_from_slice(message);
        self.finish(true);
        len
    }

    /// Receives a copy without waiting.
    ///
    /// # Errors
    ///
    /// `Empty`, `Closed`, `PeerDied` or `Failed`. A message whose last piece is
    /// not there counts as none. `Empty` right after many messages may take three
    /// microseconds, in which more of them can come.
    pub fn try_recv(&mut self) -> Result<Vec<u8>, RecvError> {
        if let Some(found) = self.at_hand(usize::MAX) {
            return Ok(self.copy_out(found));
        }
        let found = self.look_now(usize::MAX)?;
        Ok(self.copy_out(found))
    }

    /// Receives a copy, waiting for as long as it takes.
    ///
    /// # Errors
    ///
    /// `Closed`, `PeerDied` or `Failed`.
    pub fn recv(&mut self) -> Result<Vec<u8>, RecvError> {
        if let Some(found) = self.at_hand(usize::MAX) {
            return Ok(self.copy_out(found));
        }
        let found = self.look_by(usize::MAX, None)?;
        Ok(self.copy_out(found))
    }

    /// Receives a copy, waiting for at most `timeout`. The pieces of a message
    /// that are there by then are kept for the next call.
    ///
    /// # Errors
    ///
    /// `Timeout`, `Closed`, `PeerDied` or `Failed`.
    pub fn recv_timeout(&mut self, timeout: Duration) -> Result<Vec<u8>, RecvError> {
        let found = self.look_by(usize::MAX, deadline(timeout))?;
        Ok(self.copy_out(found))
    }

    /// Receives a copy, waiting until `at`.
    ///
    /// # Errors
    ///
    /// As [`PipeReceiver::recv_timeout`].
    pub fn recv_deadline(&mut self, at: Instant) -> Result<Vec<u8>, RecvError> {
        let found = self.look_by(usize::MAX, Some(at))?;
        Ok(self.copy_out(found))
    }

    /// Receives into a buffer, without allocating for messages that go in one
    /// piece; returns the message's length.
    ///
    /// # Errors
    ///
    /// As [`PipeReceiver::recv`]; [`Error::BufferTooSmall`] inside `Failed`,
    /// with the length that is needed, and the message is kept.
    #[inline]
    pub fn recv_into(&mut self, buffer: &mut [u8]) -> Result<usize, RecvError> {
        if let Some(found) = self.at_hand(buffer.len()) {
            return Ok(self.copy_into(found, buffer));
        }
        let found = self.look_by(buffer.len(), None)?;
        Ok(self.copy_into(found, buffer))
    }

    /// Receives into a buffer, without waiting.
    ///
    /// # Errors
    ///
    /// `Empty`, and as [`PipeReceiver::recv_into`].
    #[inline]
    pub fn try_recv_into(&mut self, buffer: &mut [u8]) -> Result<usize, RecvError> {
        if let Some(found) = self.at_hand(buffer.len()) {
            return Ok(self.copy_into(found, buffer));
        }
        let found = self.look_now(buffer.len())?;
        Ok(self.copy_into(found, buffer))
    }

    /// Receives into a buffer, waiting for at most `timeout`.
    ///
    /// # Errors
    ///
    /// `Timeout`, and as [`PipeReceiver::recv_into`].
    pub fn recv_into_timeout(
        &mut self,
        buffer: &mut [u8],
        timeout: Duration,
    ) -> Result<usize, RecvError> {
        let found = self.look_by(buffer.len(), deadline(timeout))?;
        Ok(self.copy_into(found, buffer))
    }

    /// Waits for a message, then appends copies of it and of what else is there
    /// to `to`, up to `max` messages or what the pipe holds; returns how many.
    ///
    /// # Errors
    ///
    /// As [`PipeReceiver::recv`], if not even one came.
    pub fn recv_many(&mut self, to: &mut Vec<Vec<u8>>, max: usize) -> Result<usize, RecvError> {
        if max == 0 {
            return Ok(0);
        }
        let first = self.recv()?;
        to.push(first);
        let mut count = 1;
        // Not for ever, whatever comes meanwhile: no more than the pipe holds.
        let max = max.min(self.consumer.consumer.ring().geometry().capacity() / PREFIX);
        // An error will be found again by the next call.
        while count < max
            && let Some(found) =
                self.at_hand(usize::MAX).or_else(|| self.look(usize::MAX).ok().flatten())
        {
            let message = self.copy_out(found);
            to.push(message);
            count += 1;
        }
        Ok(count)
    }

    /// The next message in place, waiting for as long as it takes. Dropping the
    /// guard releases it; a guard that is forgotten gives the message again.
    /// (A message that came in pieces is lent from the receiver's own memory.)
    ///
    /// # Errors
    ///
    /// `Closed`, `PeerDied` or `Failed`.
    #[inline]
    pub fn peek(&mut self) -> Result<BytesMessage<'_>, RecvError> {
        let found = match self.at_hand(usize::MAX) {
            Some(found) => found,
            None => self.look_by(usize::MAX, None)?,
        };
        Ok(self.lend(found))
    }

    /// The next message in place, without waiting.
    ///
    /// # Errors
    ///
    /// `Empty`, `Closed`, `PeerDied` or `Failed`.
    #[inline]
    pub fn try_peek(&mut self) -> Result<BytesMessage<'_>, RecvError> {
        let found = match self.at_hand(usize::MAX) {
            Some(found) => found,
            None => self.look_now(usize::MAX)?,
        };
        Ok(self.lend(found))
    }

    /// Waits until there is something to receive (a whole message, or the end
    /// of the stream), for at most `timeout`; whether there is.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`], [`Error::Os`]; [`Error::Busy`] in a forked child
    /// whose parent holds the end.
    pub fn poll(&mut self, timeout: Duration) -> Result<bool> {
        match self.look_by(usize::MAX, deadline(timeout)) {
            Ok(_) | Err(RecvError::Closed | RecvError::PeerDied { .. }) => Ok(true),
            Err(RecvError::Failed(error)) => Err(*error),
            Err(RecvError::Empty | RecvError::Timeout) => Ok(false),
        }
    }
}

/// A received message, lent in place. Dropping it releases it.
// One word: see `Lent`.
pub struct BytesMessage<'a> {
    receiver: &'a mut PipeReceiver<[u8]>,
}

impl BytesMessage<'_> {
    /// Releases the message: the same as dropping it.
    pub fn release(self) {}

    /// Releases a message that was read from end to end, and takes its cache lines
    /// from the sender, as `recv` does, where that makes streams of messages above 64
    /// bytes faster (above 256 bytes the receiver finds out by trying). One that was
    /// hardly looked at costs more so.
    #[inline]
    pub fn release_read(self) {
        // In a forked child it is the parent's.
        if self.receiver.post.is_current() && self.receiver.consumer.partial.is_none() {
            self.receiver.consumer.own_lines(&self.receiver.favour);
        }
    }
}

impl Deref for BytesMessage<'_> {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        // SAFETY: in the ring, not released before this guard drops; or in the
        // receiver's memory, which the guard borrows exclusively.
        unsafe { self.receiver.consumer.lent.get().as_ref() }
    }
}

impl Drop for BytesMessage<'_> {
    #[inline]
    fn drop(&mut self) {
        // In a forked child it is the parent's.
        if self.receiver.post.is_current() {
            self.receiver.finish(false);
        }
    }
}

impl fmt::Debug for BytesMessage<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("BytesMessage").field(&&**self).finish()
    }
}

fn write_error(error: SendError<()>) -> io::Error {
    match error {
        SendError::Closed(()) => io::ErrorKind::BrokenPipe.into(),
        SendError::Full(()) => io::ErrorKind::WouldBlock.into(),
        SendError::Timeout(()) => io::ErrorKind::TimedOut.into(),
        SendError::Failed((), error) => io::Error::other(error),
    }
}

/// The pipe as a stream: a write sends as much as there is room for, as one
/// message.
impl io::Write for PipeSender<[u8]> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.is_empty() {
            return Ok(0);
        }
        self.ready().map_err(write_error)?;
        let until = Until::Deadline(None);
        let room = loop {
            match self.producer.room(bytes.len()).map_err(io::Error::other)? {
                Some(room) if room > 0 => break room,
                _ => self.wait_for_room(1, until).map_err(write_error)?,
            }
        };
        self.send_until(&bytes[..room], until).map_err(write_error)?;
        Ok(room)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The pipe as a stream: a read takes what is left of the next message,
/// whatever its borders. The end of the stream is `Ok(0)` if the other end was
/// dropped, and `ConnectionReset` if its process died.
///
/// What is left of a message after a read is the next message for `recv`.
impl io::Read for PipeReceiver<[u8]> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            let found = match self.look_by(usize::MAX, None) {
                Ok(found) => found,
                Err(RecvError::Closed) => return Ok(0),
                Err(error @ RecvError::PeerDied { .. }) => {
                    return Err(io::Error::new(io::ErrorKind::ConnectionReset, error));
                }
                Err(error) => return Err(io::Error::other(error)),
            };
            // SAFETY: as in `copy_into`; copied before it is released.
            let rest = unsafe { found.as_ref() };
            let len = rest.len().min(buffer.len());
            buffer[..len].copy_from_slice(&rest[..len]);
            if len == rest.len() {
                self.finish(true);
            } else {
                self.consumer.read += len;
            }
            // An empty message is not the end of the stream.
            if len > 0 {
                return Ok(len);
            }
        }
    }
}

fn one_way(error: Error) -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, error)
}

impl io::Write for Pipe<[u8]> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.sending().map_err(one_way)?.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl io::Read for Pipe<[u8]> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.receiving_or_error().map_err(one_way)?.read(buffer)
    }
}

/// Sending and receiving without taking the end apart: see [`PipeSender`] and
/// [`PipeReceiver`]. On an end of a one-way pipe the missing half fails with
/// [`Error::OneWay`].
impl Pipe<[u8]> {
    #[inline(always)]
    fn sending_bytes(&mut self) -> Result<&mut PipeSender<[u8]>, SendError<()>> {
        self.sending().map_err(SendError::from)
    }

    /// See [`PipeSender::try_send`].
    ///
    /// # Errors
    ///
    /// As there.
    #[inline]
    pub fn try_send(&mut self, message: &[u8]) -> Result<(), SendError<()>> {
        self.sending_bytes()?.try_send(message)
    }

    /// See [`PipeSender::send`].
    ///
    /// # Errors
    ///
    /// As there.
    #[inline]
    pub fn send(&mut self, message: &[u8]) -> Result<(), SendError<()>> {
        self.sending_bytes()?.send(message)
    }

    /// See [`PipeSender::send_timeout`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn send_timeout(&mut self, message: &[u8], timeout: Duration) -> Result<(), SendError<()>> {
        self.sending_bytes()?.send_timeout(message, timeout)
    }

    /// See [`PipeSender::send_deadline`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn send_deadline(&mut self, message: &[u8], at: Instant) -> Result<(), SendError<()>> {
        self.sending_bytes()?.send_deadline(message, at)
    }

    /// See [`PipeSender::send_many`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn send_many<M: AsRef<[u8]>>(&mut self, messages: &[M]) -> Result<(), SendError<usize>> {
        self.sending().map_err(|error| SendError::Failed(0, error.into()))?.send_many(messages)
    }

    /// See [`PipeSender::reserve`].
    ///
    /// # Errors
    ///
    /// As there.
    #[inline]
    pub fn reserve(&mut self, len: usize) -> Result<BytesGrant<'_>, SendError<()>> {
        self.sending_bytes()?.reserve(len)
    }

    /// See [`PipeReceiver::try_recv`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn try_recv(&mut self) -> Result<Vec<u8>, RecvError> {
        self.receiving()?.try_recv()
    }

    /// See [`PipeReceiver::recv`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn recv(&mut self) -> Result<Vec<u8>, RecvError> {
        self.receiving()?.recv()
    }

    /// See [`PipeReceiver::recv_timeout`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn recv_timeout(&mut self, timeout: Duration) -> Result<Vec<u8>, RecvError> {
        self.receiving()?.recv_timeout(timeout)
    }

    /// See [`PipeReceiver::recv_deadline`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn recv_deadline(&mut self, at: Instant) -> Result<Vec<u8>, RecvError> {
        self.receiving()?.recv_deadline(at)
    }

    /// See [`PipeReceiver::recv_into`].
    ///
    /// # Errors
    ///
    /// As there.
    #[inline]
    pub fn recv_into(&mut self, buffer: &mut [u8]) -> Result<usize, RecvError> {
        self.receiving()?.recv_into(buffer)
    }

    /// See [`PipeReceiver::try_recv_into`].
    ///
    /// # Errors
    ///
    /// As there.
    #[inline]
    pub fn try_recv_into(&mut self, buffer: &mut [u8]) -> Result<usize, RecvError> {
        self.receiving()?.try_recv_into(buffer)
    }

    /// See [`PipeReceiver::recv_into_timeout`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn recv_into_timeout(
        &mut self,
        buffer: &mut [u8],
        timeout: Duration,
    ) -> Result<usize, RecvError> {
        self.receiving()?.recv_into_timeout(buffer, timeout)
    }

    /// See [`PipeReceiver::recv_many`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn recv_many(&mut self, to: &mut Vec<Vec<u8>>, max: usize) -> Result<usize, RecvError> {
        self.receiving()?.recv_many(to, max)
    }

    /// See [`PipeReceiver::peek`].
    ///
    /// # Errors
    ///
    /// As there.
    #[inline]
    pub fn peek(&mut self) -> Result<BytesMessage<'_>, RecvError> {
        self.receiving()?.peek()
    }

    /// See [`PipeReceiver::poll`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn poll(&mut self, timeout: Duration) -> Result<bool> {
        self.receiving_or_error()?.poll(timeout)
    }
}
