//! Step 4: a consumer and a producer are killed, each at the worst moment.
//!
//! | moment | who holds what | the stream |
//! |--------|----------------|------------|
//! | all producers run, one consumer alone receives | – | flows |
//! | it takes a message and stops; the others receive | the consumer, a message | goes once round the ring and stands before that slot |
//! | it is killed | nobody | the message is delivered again; flows |
//! | each producer has sent half of its share, and waits | – | empty |
//! | one claims a slot and stops; the others send | the producer, a slot | fills up behind that slot |
//! | it is killed | nobody | the slot is skipped; flows to the end |
//!
//! While the victims live, the stream must stand still, however long that takes:
//! whoever is slow is not dead.

use super::ledger::{Message, Shares, Tally};
use super::stream::{Consume, Halfway, Produce, Stream, Word, expect, expect_holding, tell};
use crate::Result;
use crate::processes::{Process, until};
use crate::report::{Out, ms};
use crate::scratch::Scratch;
use serde::Serialize;
use slipring::{Delivery, QueueCounters, QueueOptions, SLICE};
use std::fmt;
use std::time::{Duration, Instant};

const CAPACITY: usize = 256;

/// What came of it.
#[derive(Serialize)]
pub struct Report {
    producers: usize,
    consumers: usize,
    deaths: Vec<Death>,
    participants_recovered: usize,
    abandoned: u64,
    redelivered: u64,
    pub tally: Tally,
}

/// A kill, and what the others made of it.
#[derive(Serialize)]
struct Death {
    role: &'static str,
    pid: u32,
    producer: u64,
    sequence: u64,
    stood_still_ms: f64,
    others_went_on_after_ms: f64,
    recovered_after_ms: f64,
}

/// The parent's part.
pub fn run(
    scratch: &Scratch,
    out: Out,
    messages: u64,
    producers: usize,
    consumers: usize,
) -> Result<Report> {
    // The first and the last are to die, and somebody to go on; and there must
    // be enough to fill the ring behind either.
    let (producers, consumers) = (producers.max(2), consumers.max(2));
    let least = (8 * CAPACITY * producers) as u64;
    let messages = messages.clamp(least, least.max(1_000_000));
    let shares = Shares { messages, producers: producers as u64 };
    let mut stream = Stream::start(
        &scratch.name("kill"),
        QueueOptions::new(CAPACITY).delivery(Delivery::AtLeastOnce),
        shares,
        (0..shares.producers).map(|number| Produce {
            number,
            halfway: if number == 0 { Halfway::Hold } else { Halfway::Pause },
        }),
        (0..consumers).map(|number| Consume {
            number,
            hold_after: (number == 0).then_some(2 * CAPACITY as u64),
        }),
    )?;
    let bar = out.progress(shares.messages, "messages");

    let mut victim = stream.consumers.remove(0);
    tell(&mut stream.producers, &Word::Go)?;
    victim.say(&Word::Go)?;
    let message = expect_holding(&mut victim)?;
    tell(&mut stream.consumers, &Word::Go)?;
    let consumer = kill(&stream, victim, "consumer", message)?;
    bar.at(stream.queue.counters().received);

    for producer in &mut stream.producers {
        expect(producer, &Word::Halfway)?;
    }
    let mut victim = stream.producers.remove(0);
    victim.say(&Word::Go)?;
    let message @ [_, sent_by_victim] = expect_holding(&mut victim)?;
    tell(&mut stream.producers, &Word::Go)?;
    let producer = kill(&stream, victim, "producer", message)?;

    let queue = stream.queue.clone();
    let sent = (0..shares.producers).map(|number| match number {
        0 => sent_by_victim,
        _ => shares.of(number),
    });
    let (tally, _) = stream.finish(&sent.collect::<Vec<u64>>(), &bar)?;
    let QueueCounters { abandoned, redelivered, .. } = queue.counters();
    if (abandoned, redelivered) != (1, 1) {
        let what = format!("{abandoned} slots skipped, {redelivered} messages delivered again");
        return Err(format!("expected one of each: {what}").into());
    }
    let deaths = vec![consumer, producer];
    Ok(Report {
        producers,
        consumers,
        participants_recovered: deaths.len(),
        deaths,
        abandoned,
        redelivered,
        tally,
    })
}

/// Kills the victim once the stream stands still, and waits until the others
/// have gone on and recovered it.
fn kill(
    stream: &Stream,
    mut victim: Process,
    role: &'static str,
    [producer, sequence]: Message,
) -> Result<Death> {
    let (before, stood_still) = still(stream)?;
    let pid = victim.pid();
    let killed = Instant::now();
    victim.kill()?;
    until("the stream never goes on", || Ok(stream.queue.counters() != before))?;
    let others_went_on = killed.elapsed();
    // They do it themselves: here is only looked on.
    let participates = || {
        let all = stream.segment.participants()?;
        Ok::<_, slipring::Error>(all.iter().any(|participant| participant.pid == pid))
    };
    until("the stream never recovers the dead", || Ok(!participates()?))?;
    Ok(Death {
        role,
        pid,
        producer,
        sequence,
        stood_still_ms: ms(stood_still),
        others_went_on_after_ms: ms(others_went_on),
        recovered_after_ms: ms(killed.elapsed()),
    })
}

/// Waits until nothing has moved for several of the others' looks at who is
/// alive; the counters, and for how long they have stood.
fn still(stream: &Stream) -> Result<(QueueCounters, Duration)> {
    let counters = || stream.queue.counters();
    let mut seen = (counters(), Instant::now());
    until("the stream never waits for the living", || {
        std::thread::sleep(SLICE / 10);
        if counters() != seen.0 {
            seen = (counters(), Instant::now());
        }
        Ok(seen.1.elapsed() > 5 * SLICE)
    })?;
    Ok((seen.0, seen.1.elapsed()))
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for death in &self.deaths {
            let Death { role, pid, producer, sequence, .. } = death;
            let (held, then) = match *role {
                "consumer" => ("had taken", "it was delivered again"),
                _ => ("was writing", "it was skipped"),
            };
            let Death { stood_still_ms, others_went_on_after_ms, .. } = death;
            writeln!(f, "   {role} {pid} {held} message {sequence} of producer {producer}:")?;
            writeln!(f, "     alive, it was waited for ({stood_still_ms:.0} ms of standstill)")?;
            writeln!(
                f,
                "     SIGKILL: {then}, the others went on after {others_went_on_after_ms:.2} ms"
            )?;
        }
        let Report { participants_recovered, abandoned, redelivered, tally, .. } = self;
        writeln!(
            f,
            "   recovered: {participants_recovered} participants, {abandoned} slot skipped, \
             {redelivered} message delivered again"
        )?;
        write!(f, "   {} producers, {} consumers: {tally}", self.producers, self.consumers)
    }
}
