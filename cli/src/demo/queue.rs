//! Step 3: several producers, several consumers, everything exactly once.

use super::ledger::{Shares, Tally};
use super::stream::{Consume, Halfway, Produce, Stream, Word, tell};
use crate::Result;
use crate::report::{Grouped, Out, ms, per_second};
use crate::scratch::Scratch;
use serde::Serialize;
use slipring::QueueOptions;
use std::fmt;

/// What came of it.
#[derive(Serialize)]
pub struct Report {
    producers: usize,
    consumers: usize,
    pub tally: Tally,
    milliseconds: f64,
    messages_per_second: u64,
}

/// The parent's part.
pub fn run(
    scratch: &Scratch,
    out: Out,
    messages: u64,
    producers: usize,
    consumers: usize,
) -> Result<Report> {
    let shares = Shares { messages, producers: producers as u64 };
    let mut stream = Stream::start(
        &scratch.name("queue"),
        QueueOptions::new(1024),
        shares,
        (0..shares.producers).map(|number| Produce { number, halfway: Halfway::GoOn }),
        (0..consumers).map(|number| Consume { number, hold_after: None }),
    )?;
    let bar = out.progress(messages, "messages");
    tell(&mut stream.consumers, &Word::Go)?;
    tell(&mut stream.producers, &Word::Go)?;
    let sent: Vec<u64> = (0..shares.producers).map(|number| shares.of(number)).collect();
    let (tally, elapsed) = stream.finish(&sent, &bar)?;
    Ok(Report {
        producers,
        consumers,
        tally,
        milliseconds: ms(elapsed),
        messages_per_second: per_second(tally.received, elapsed),
    })
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report { producers, consumers, tally, milliseconds, messages_per_second } = self;
        writeln!(f, "   {producers} producers, {consumers} consumers: {tally}")?;
        let rate = Grouped(*messages_per_second);
        write!(f, "   {milliseconds:.1} ms, {rate} messages per second, books included")
    }
}
