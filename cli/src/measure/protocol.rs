//! Round trips and throughput over any transport: the measuring end and the
//! serving end.

use super::times::timed;
use super::transport::Transport;
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

/// Tells the serving end to end.
pub fn stop(peer: &mut impl Transport) -> Result<()> {
    peer.send(Ask::Stop.with(0))?;
    peer.flush()
}

/// What the measuring end does.
pub trait Job {
    type Outcome;

    fn run(self, peer: &mut impl Transport) -> Result<Self::Outcome>;
}

/// One message there and back, again and again for this long; the times in
/// nanoseconds, one reading of the clock included.
pub struct RoundTrips(pub Duration);

impl Job for RoundTrips {
    type Outcome = Histogram<u64>;

    fn run(self, peer: &mut impl Transport) -> Result<Histogram<u64>> {
        round_trips(peer, self.0 / 5)?;
        round_trips(peer, self.0)
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
        throughput(peer, self.0 / 5)?;
        throughput(peer, self.0)
    }
}

/// One after the other.
impl<A: Job, B: Job> Job for (A, B) {
    type Outcome = (A::Outcome, B::Outcome);

    fn run(self, peer: &mut impl Transport) -> Result<Self::Outcome> {
        Ok((self.0.run(peer)?, self.1.run(peer)?))
    }
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
        Streams::<[u64; 8], _, _>::new(stream.try_clone().unwrap(), stream)
    }

    #[test]
    fn both_ends_agree() {
        let (here, there) = UnixStream::pair().unwrap();
        let server = std::thread::spawn(move || serve(end(there)).unwrap());
        let mut here = end(here);
        let (trips, sent) = (RoundTrips(LENGTH), Throughput(LENGTH)).run(&mut here).unwrap();
        stop(&mut here).unwrap();
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
