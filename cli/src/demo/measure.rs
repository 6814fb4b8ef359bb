//! Round trips and throughput over any transport: the measuring end and the
//! serving end.

use super::transport::{Message, Transport};
use crate::Result;
use crate::report::per_second;
use hdrhistogram::Histogram;
use serde::Serialize;
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
    fn with<M: Message>(self, rest: u64) -> M {
        M::of((self as u64) << SHIFT | rest)
    }

    #[inline]
    fn of<M: Message>(message: &M) -> Result<(Ask, u64)> {
        let number = message.number().ok_or("a message arrived torn")?;
        let ask = match number >> SHIFT {
            0 => Ask::Echo,
            1 => Ask::Count,
            2 => Ask::Total,
            _ => Ask::Stop,
        };
        Ok((ask, number & REST))
    }
}

/// The serving end: until it is told to stop.
pub fn serve<M: Message>(mut peer: impl Transport<M>) -> Result<()> {
    let mut counted = 0;
    loop {
        let message = peer.recv()?;
        match Ask::of(&message)? {
            (Ask::Echo, _) => peer.send(message)?,
            (Ask::Count, place) if place == counted => counted += 1,
            (Ask::Count, place) => {
                return Err(format!("message {place} arrived in place of {counted}").into());
            }
            (Ask::Total, _) => {
                peer.send(Ask::Total.with(counted))?;
                counted = 0;
            }
            (Ask::Stop, _) => return Ok(()),
        }
    }
}

/// What was measured.
#[derive(Serialize)]
pub struct Measured {
    pub messages_per_second: u64,
    pub messages: u64,
    pub round_trips: u64,
    /// One reading of the clock included.
    pub round_trip_p50_ns: u64,
    pub round_trip_p99_ns: u64,
}

/// The measuring end.
pub fn measure<M: Message>(mut peer: impl Transport<M>, length: Duration) -> Result<Measured> {
    let warm_up = length / 5;
    round_trips(&mut peer, warm_up)?;
    let times = round_trips(&mut peer, length)?;
    throughput(&mut peer, warm_up)?;
    let (messages, elapsed) = throughput(&mut peer, length)?;
    peer.send(Ask::Stop.with(0))?;
    Ok(Measured {
        messages_per_second: per_second(messages, elapsed),
        messages,
        round_trips: times.len(),
        round_trip_p50_ns: times.value_at_quantile(0.5),
        round_trip_p99_ns: times.value_at_quantile(0.99),
    })
}

/// One message there and back, again and again.
fn round_trips<M: Message>(
    peer: &mut impl Transport<M>,
    length: Duration,
) -> Result<Histogram<u64>> {
    let mut times = Histogram::new_with_bounds(1, 60_000_000_000, 3)?;
    let start = Instant::now();
    let mut last = start;
    for trip in 0.. {
        peer.send(Ask::Echo.with(trip))?;
        if Ask::of(&peer.recv()?)? != (Ask::Echo, trip) {
            return Err(format!("the answer to {trip} is another one").into());
        }
        let now = Instant::now();
        times.saturating_record((now - last).as_nanos() as u64);
        // Recording is not part of the next trip.
        last = Instant::now();
        if now - start >= length {
            break;
        }
    }
    Ok(times)
}

/// As many messages as the other end takes; how many, and until the last of
/// them was received.
fn throughput<M: Message>(
    peer: &mut impl Transport<M>,
    length: Duration,
) -> Result<(u64, Duration)> {
    let start = Instant::now();
    let mut sent = 0;
    while start.elapsed() < length {
        for _ in 0..64 {
            peer.send(Ask::Count.with(sent))?;
            sent += 1;
        }
    }
    peer.send(Ask::Total.with(0))?;
    match Ask::of(&peer.recv()?)? {
        (Ask::Total, received) if received == sent => Ok((sent, start.elapsed())),
        other => Err(format!("sent {sent} messages, and got {other:?}").into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::transport::Streams;
    use std::os::unix::net::UnixStream;

    #[test]
    fn both_ends_agree() {
        let (here, there) = UnixStream::pair().unwrap();
        let ends = |s: UnixStream| Streams { out: s.try_clone().unwrap(), back: s };
        let server = std::thread::spawn(move || serve::<[u64; 8]>(ends(there)).unwrap());
        let measured = measure::<[u64; 8]>(ends(here), Duration::from_millis(5)).unwrap();
        server.join().unwrap();
        assert!(measured.round_trips > 0 && measured.messages > 0);
        assert!(measured.round_trip_p50_ns <= measured.round_trip_p99_ns);
    }

    #[test]
    fn torn_messages_are_noticed() {
        assert!(Ask::of(&[1u64, 1, 2, 1]).is_err());
        assert_eq!(Ask::of(&Ask::Total.with::<[u64; 1]>(7)).unwrap(), (Ask::Total, 7));
        assert_eq!(Ask::of(&Ask::Stop.with::<[u64; 8]>(REST)).unwrap(), (Ask::Stop, REST));
    }
}
