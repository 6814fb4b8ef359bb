//! Round trips and throughput over any transport: the measuring end and the
//! serving end.

use super::times::timed;
use super::transport::{Batched, Blocking, End, InPlace, Manner, Polling, Transport};
use crate::Result;
use hdrhistogram::Histogram;
use std::time::{Duration, Instant};

/// What the measuring end asks for: the top two bits of a message's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ask {
    /// Send it back.
    Echo = 0,
    /// Count it: the rest of the number is its place in the sequence.
    Count = 1,
    /// Send back how many were counted, and start anew.
    Total = 2,
    /// End.
    Stop = 3,
}

const SHIFT: u32 = 62;
const REST: u64 = (1 << SHIFT) - 1;

impl Ask {
    #[inline]
    fn with(self, rest: u64) -> u64 {
        (self as u64) << SHIFT | rest
    }

    #[inline]
    fn of(number: u64) -> (Ask, u64) {
        let ask = match number >> SHIFT {
            0 => Ask::Echo,
            1 => Ask::Count,
            2 => Ask::Total,
            _ => Ask::Stop,
        };
        (ask, number & REST)
    }
}

/// The serving end: until it is told to stop.
pub fn serve(mut peer: impl Transport) -> Result<()> {
    let mut counted = 0;
    loop {
        let number = peer.recv()?;
        match Ask::of(number) {
            (Ask::Echo, _) => {
                peer.send(number)?;
                peer.flush()?;
            }
            (Ask::Count, place) if place == counted => counted += 1,
            (Ask::Count, place) => {
                return Err(format!("message {place} arrived in place of {counted}").into());
            }
            (Ask::Total, _) => {
                peer.send(Ask::Total.with(counted))?;
                peer.flush()?;
                counted = 0;
            }
            (Ask::Stop, _) => return Ok(()),
        }
    }
}

/// The serving end, in this manner.
pub fn serve_in(manner: Manner, end: impl End) -> Result<()> {
    match manner {
        Manner::Blocking => serve(Blocking(end)),
        Manner::Polling => serve(Polling(end)),
        Manner::Batched => serve(Batched(end)),
        Manner::InPlace => serve(InPlace(end)),
    }
}

/// What the measuring end does. Each job says which manners it is for: code for
/// the others would have to be compiled for every size.
pub trait Job {
    type Outcome;

    fn run(self, peer: &mut impl Transport) -> Result<Self::Outcome>;

    /// Does it in this manner, and ends the other end.
    fn run_in(self, manner: Manner, end: impl End) -> Result<Self::Outcome>;

    /// Does it, and ends the other end.
    fn finish(self, mut peer: impl Transport) -> Result<Self::Outcome>
    where
        Self: Sized,
    {
        let outcome = self.run(&mut peer)?;
        peer.send(Ask::Stop.with(0))?;
        peer.flush()?;
        Ok(outcome)
    }
}

#[cold]
fn unfit<T>(manner: Manner) -> Result<T> {
    Err(format!("this is not measured in the manner \"{}\"", manner.name()).into())
}

/// One message there and back, again and again for this long; the times in
/// nanoseconds, one reading of the clock included.
pub struct RoundTrips(pub Duration);

impl Job for RoundTrips {
    type Outcome = Histogram<u64>;

    fn run(self, peer: &mut impl Transport) -> Result<Histogram<u64>> {
        warmed_up(self.0, |length| round_trips(peer, length))
    }

    fn run_in(self, manner: Manner, end: impl End) -> Result<Histogram<u64>> {
        match manner {
            Manner::Blocking => self.finish(Blocking(end)),
            Manner::Polling => self.finish(Polling(end)),
            _ => unfit(manner),
        }
    }
}

/// Messages one way for this long.
pub struct Throughput(pub Duration);

/// How many messages, and until the last of them was received.
#[derive(Clone, Copy)]
pub struct Sent {
    pub messages: u64,
    pub elapsed: Duration,
}

impl Job for Throughput {
    type Outcome = Sent;

    fn run(self, peer: &mut impl Transport) -> Result<Sent> {
        warmed_up(self.0, |length| throughput(peer, length))
    }

    fn run_in(self, manner: Manner, end: impl End) -> Result<Sent> {
        match manner {
            Manner::Blocking => self.finish(Blocking(end)),
            Manner::Batched => self.finish(Batched(end)),
            Manner::InPlace => self.finish(InPlace(end)),
            Manner::Polling => unfit(manner),
        }
    }
}

/// One after the other.
impl Job for (RoundTrips, Throughput) {
    type Outcome = (Histogram<u64>, Sent);

    fn run(self, peer: &mut impl Transport) -> Result<Self::Outcome> {
        Ok((self.0.run(peer)?, self.1.run(peer)?))
    }

    fn run_in(self, manner: Manner, end: impl End) -> Result<Self::Outcome> {
        match manner {
            Manner::Blocking => self.finish(Blocking(end)),
            _ => unfit(manner),
        }
    }
}

/// The outcome of the second, longer run.
#[inline]
fn warmed_up<R>(length: Duration, mut run: impl FnMut(Duration) -> Result<R>) -> Result<R> {
    let mut outcome = None;
    for length in [length / 5, length] {
        outcome = Some(run(length)?);
    }
    outcome.ok_or_else(|| "nothing was measured".into())
}

fn round_trips(peer: &mut impl Transport, length: Duration) -> Result<Histogram<u64>> {
    timed(length, |trip| {
        peer.send(Ask::Echo.with(trip))?;
        peer.flush()?;
        if Ask::of(peer.recv()?) != (Ask::Echo, trip) {
            return Err(format!("the answer to {trip} is another one").into());
        }
        Ok(())
    })
}

fn throughput(peer: &mut impl Transport, length: Duration) -> Result<Sent> {
    let start = Instant::now();
    let mut messages = 0;
    while start.elapsed() < length {
        for _ in 0..64 {
            peer.send(Ask::Count.with(messages))?;
            messages += 1;
        }
    }
    peer.send(Ask::Total.with(0))?;
    peer.flush()?;
    match Ask::of(peer.recv()?) {
        (Ask::Total, received) if received == messages => {
            Ok(Sent { messages, elapsed: start.elapsed() })
        }
        other => Err(format!("sent {messages} messages, and got {other:?}").into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::transport::Streams;
    use std::os::unix::net::UnixStream;

    const LENGTH: Duration = Duration::from_millis(5);

    fn end(stream: UnixStream) -> impl Transport {
        Streams::new(stream.try_clone().unwrap(), stream, 64)
    }

    #[test]
    fn both_ends_agree() {
        let (here, there) = UnixStream::pair().unwrap();
        let server = std::thread::spawn(move || serve(end(there)).unwrap());
        let job = (RoundTrips(LENGTH), Throughput(LENGTH));
        let (trips, sent) = job.finish(end(here)).unwrap();
        server.join().unwrap();
        assert!(!trips.is_empty() && sent.messages > 0 && sent.elapsed >= LENGTH);
    }

    #[test]
    fn a_missing_message_is_noticed() {
        let (here, there) = UnixStream::pair().unwrap();
        let server = std::thread::spawn(move || serve(end(there)).map_err(|e| e.to_string()));
        let mut here = end(here);
        here.send(Ask::Count.with(0)).unwrap();
        here.send(Ask::Count.with(2)).unwrap();
        assert_eq!(server.join().unwrap().unwrap_err(), "message 2 arrived in place of 1");
    }

    #[test]
    fn what_is_asked_comes_back() {
        assert_eq!(Ask::of(Ask::Total.with(7)), (Ask::Total, 7));
        assert_eq!(Ask::of(Ask::Stop.with(REST)), (Ask::Stop, REST));
    }
}
