//! The run as a whole: rounds of strikes, each with an audit at its end.
//!
//! An audit needs rest: the producers pause, the stopped go on, and the
//! consumers empty the ring and recover the dead, whom nobody else does. Two
//! tickets, one after the other, prove that each consumer has looked for a
//! message in between and found none.

use super::audit::{Evidence, Tally, audit};
use super::books::{BOOKS, Books, CHUNKS, Clock, Command, Head, Phase};
use super::crew::{Crew, Record};
use super::ends;
use super::options::{Delivery, Kind, Options, Shape, Side};
use super::outcome::{Counted, Outcome, Sums};
use super::random::{Random, mix};
use super::stalls::{Control, Scene, Times, worth_keeping};
use crate::Result;
use crate::report::{Out, ms};
use crate::scratch::Scratch;
use slipring::Segment;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A round is over after this many kills, or this long.
const KILLS_PER_ROUND: usize = 200;
const ROUND: Duration = Duration::from_secs(5);

/// How long a consumer may keep the audit waiting.
const GRACE: Duration = Duration::from_millis(100);

/// Runs it, and prints what came of it.
pub fn run(options: &Options) -> Result<()> {
    let out = Out::new(options.json);
    let shape = Shape::of(options)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
    let seed = options.seed.unwrap_or_else(|| mix(now.as_nanos() as u64) >> 32);
    // Before anything that it cleans up after, and so dropped last.
    let scratch = Scratch::new("torture")?;
    let name = scratch.name("ring");
    let outcome = soak(options, shape, seed, &name, out)?;
    drop(scratch);
    out.either(&outcome)?;
    if outcome.ok {
        return Ok(());
    }
    let first = outcome.violations.first().map_or("", String::as_str);
    Err(format!("{first}\nTo repeat it: slipring torture {}", outcome.again).into())
}

fn soak(options: &Options, shape: Shape, seed: u64, name: &str, out: Out) -> Result<Outcome> {
    let builder = ends::declare(Segment::builder(name), &shape);
    let segment = builder
        .array::<u64>(BOOKS, Books::words(&shape))
        // With this process, and none to spare: whoever comes has to take the
        // entry of a dead one, and to recover it unless somebody has.
        .participants(shape.seats() + 1)
        .label("torture")
        .create()?;
    let books = Books::open(&segment, &shape)?;
    books.set_head(Head::Round, 1)?;
    let clock = Clock::begin();
    let crew = Crew::start(shape, name, &books, clock, seed, options.sabotage)?;
    let mut soak = Soak {
        options,
        shape,
        segment: &segment,
        books: &books,
        clock,
        crew,
        random: Random::new(seed),
        control: Control::start(clock),
        begun: Instant::now(),
        next: 0,
        ticket: 0,
        rounds: 0,
        tally: Tally::default(),
        counted: Counted::default(),
        stalls: Times::new()?,
        delays: Times::new()?,
        longest_unexcused: 0,
        unnoted_waits: 0,
        violations: Vec::new(),
    };
    soak.next = clock.now();
    if let Err(error) = soak.rounds(out) {
        soak.violations.push(error.to_string());
    }
    Ok(soak.outcome(seed))
}

struct Soak<'a> {
    options: &'a Options,
    shape: Shape,
    segment: &'a Segment,
    books: &'a Books,
    clock: Clock,
    crew: Crew<'a>,
    random: Random,
    control: Control,
    begun: Instant,
    /// When to strike next.
    next: u64,
    ticket: u64,
    rounds: u64,
    tally: Tally,
    counted: Counted,
    stalls: Times,
    delays: Times,
    /// Longest wait after the last kill in it, without excuses and delays.
    longest_unexcused: u64,
    unnoted_waits: u64,
    violations: Vec<String>,
}

impl Soak<'_> {
    fn seconds(&self) -> Option<f64> {
        match (self.options.seconds, self.options.kills) {
            (None, None) => Some(10.0),
            (seconds, _) => seconds,
        }
    }

    /// How far it is, out of how much.
    fn progress(&self) -> (u64, u64) {
        let kills = self.crew.strikes.kills;
        match (self.options.kills, self.seconds()) {
            (Some(all), _) => (kills.min(all), all),
            (None, seconds) => {
                let all = seconds.unwrap_or(0.0) * 1000.0;
                (self.begun.elapsed().as_millis() as u64, all as u64)
            }
        }
    }

    fn is_over(&self) -> bool {
        let enough = self.options.kills.is_some_and(|kills| self.crew.strikes.kills >= kills);
        enough || self.seconds().is_some_and(|all| self.begun.elapsed().as_secs_f64() >= all)
    }

    fn rounds(&mut self, out: Out) -> Result<()> {
        let what = if self.options.kills.is_some() { "kills" } else { "milliseconds" };
        let bar = out.progress(self.progress().1, what);
        loop {
            self.work(&bar)?;
            let paused = self.clock.now();
            self.settle()?;
            let mut record = self.crew.close_round()?;
            record.excuses.push((paused, self.clock.now()));
            self.audit(&record)?;
            self.rounds += 1;
            if !self.violations.is_empty() || self.is_over() {
                break;
            }
            self.books.next_round()?;
            // Waits of the pause end in the next round.
            self.crew.record.excuses.push((paused, self.clock.now()));
        }
        self.books.set_head(Head::Command, Command::Stop as u64)?;
        self.crew.dismiss()
    }

    /// Strikes until the round is over.
    fn work(&mut self, bar: &crate::report::Bar) -> Result<()> {
        let start = Instant::now();
        let mut moved = (self.crew.progress()?, Instant::now());
        while !self.is_over()
            && start.elapsed() < ROUND
            && self.crew.record.kills.len() < KILLS_PER_ROUND
            && self.books.chunks_taken()? < CHUNKS / 8 * 7
        {
            let now = self.clock.now();
            self.crew.release(now)?;
            self.crew.fill(now)?;
            if now >= self.next {
                self.strike()?;
            } else {
                let due = self.crew.next_due().unwrap_or(u64::MAX).min(self.next);
                let wait = Duration::from_nanos(due.saturating_sub(now));
                std::thread::sleep(wait.min(Duration::from_millis(20)));
            }
            bar.at(self.progress().0);
            if moved.1.elapsed() > Duration::from_millis(100) {
                self.crew.check()?;
                let progress = self.crew.progress()?;
                if progress != moved.0 {
                    moved = (progress, Instant::now());
                } else if moved.1.elapsed().as_secs_f64() > self.options.patience {
                    return Err(self.standstill("nothing moves"));
                }
            }
        }
        Ok(())
    }

    fn strike(&mut self) -> Result<()> {
        let random = &mut self.random;
        if random.chance(self.options.stop_share) {
            self.crew.stop(random)?;
        } else {
            let lead = random.chance(self.options.step_share);
            if lead && random.chance(0.1) {
                self.crew.strike_both(random)?;
            } else {
                self.crew.strike(lead, random)?;
            }
        }
        // Now and then somebody else at once, too.
        if !random.chance(0.125) {
            let mean = 1e9 / self.options.kills_per_second;
            self.next += random.below((2.0 * mean / 0.875) as u64 + 1);
        }
        // What was missed is not all made up for.
        self.next = self.next.max(self.clock.now().saturating_sub(200_000_000));
        Ok(())
    }

    /// Brings everybody to rest, with nothing in the ring and nobody dead.
    fn settle(&mut self) -> Result<()> {
        self.books.set_head(Head::Command, Command::Pause as u64)?;
        self.crew.muster()?;
        let start = Instant::now();
        let mut before = None;
        loop {
            self.ticket += 1;
            self.books.set_head(Head::Ticket, self.ticket)?;
            let asked = Instant::now();
            while !self.crew.rests(self.ticket)? {
                if asked.elapsed() > GRACE {
                    self.crew.clear(self.ticket)?;
                }
                if start.elapsed().as_secs_f64() > self.options.patience {
                    return Err(self.standstill("somebody does not come to rest"));
                }
                std::thread::sleep(Duration::from_micros(500));
            }
            self.crew.check()?;
            let counted = ends::counters(self.segment, &self.shape)?;
            let left = counted.map_or(0, |(_, left)| left);
            // Whoever died without a seat in the pipe is left to be cleared away
            // by the next who attaches.
            let dead = if self.shape.kind == Kind::Pipe { Vec::new() } else { self.strangers()? };
            let at_rest = (left, dead, self.crew.progress()?);
            if (at_rest.0, at_rest.1.len()) == (0, 0) && before.as_ref() == Some(&at_rest) {
                return Ok(());
            }
            if start.elapsed().as_secs_f64() > self.options.patience {
                let (left, strangers, _) = at_rest;
                let what = format!("{left} messages stay in the ring, and {strangers:?} dead");
                return Err(self.standstill(&what));
            }
            before = Some(at_rest);
        }
    }

    /// Participants that are none of ours: the dead whom nobody has recovered.
    fn strangers(&self) -> Result<Vec<u32>> {
        let pids = self.crew.pids();
        let participants = self.segment.participants()?;
        let strange = participants.iter().filter(|p| !p.is_self && !pids.contains(&p.pid));
        Ok(strange.map(|participant| participant.pid).collect())
    }

    /// Why nothing moves, with what can be seen from here.
    fn standstill(&self, what: &str) -> Box<dyn std::error::Error> {
        let mut text = format!("{what} for {} s", self.options.patience);
        for (seat, pid) in self.crew.pids().iter().enumerate() {
            if let Ok(phase) = self.books.seat(seat).phase() {
                text += &format!("; {} {pid} {phase:?}", self.shape.side(seat));
            }
        }
        if let Ok(participants) = self.segment.participants() {
            for p in participants {
                text += &format!("; participant {} pid {} alive {}", p.id, p.pid, p.alive);
            }
        }
        text.into()
    }

    /// Accounts for every message of the round.
    fn audit(&mut self, record: &Record) -> Result<()> {
        let chunks = (0..self.books.chunks_taken()?).map(|chunk| self.books.chunk(chunk));
        let chunks = chunks.collect::<Result<Vec<_>>>()?;
        let (events, more) = self.books.events_written()?;
        if more {
            self.violations.push("more messages came twice than there is room to note".to_owned());
        }
        let evidence = Evidence {
            chunks: &chunks,
            cell: &|place| self.books.cell(place),
            events: &events,
            findings: &self.books.findings_written()?,
            runs: &record.runs,
            deaths: &record.deaths,
            delivers_again: self.shape.delivers_again(),
            in_pieces: self.shape.in_pieces(),
            flags: self.shape.kind == Kind::Queue,
        };
        let tally = audit(&evidence, &mut self.violations)?;
        self.tally += tally;
        self.count(record, &tally)?;
        self.time(record)
    }

    /// Compares the queue's own counters with the books.
    fn count(&mut self, record: &Record, tally: &Tally) -> Result<()> {
        let Some((counters, _)) = ends::counters(self.segment, &self.shape)? else {
            return Ok(());
        };
        let died = |side, phases: &[Phase]| {
            let dead = record.deaths.iter();
            dead.filter(|d| d.side == side && phases.contains(&d.phase)).count() as u64
        };
        let counted = &mut self.counted;
        counted.committed += record.runs.iter().map(|run| run.done - run.base).sum::<u64>();
        counted.given_up += record.given_up;
        counted.giving_up += record.giving_up;
        counted.died_sending += died(Side::Producers, &[Phase::Sending, Phase::Claimed]);
        counted.died_giving_up += died(Side::Producers, &[Phase::GivingUp]);
        counted.died_holding += died(Side::Consumers, &[Phase::Holding]);
        counted.died_with_one +=
            died(Side::Consumers, &[Phase::Taking, Phase::Holding, Phase::Releasing]);
        counted.in_doubt += tally.in_doubt;
        counted.in_doubt_arrived += tally.in_doubt_arrived;
        counted.received_again += tally.received_again;
        counted.queue = Some(counters);
        let at_least_once = self.shape.delivery == Delivery::AtLeastOnce;
        let deaths = self.crew.strikes.kills;
        counted.check(at_least_once, deaths, &mut self.violations);
        Ok(())
    }

    /// Measures how long the kills of the round have held anybody up.
    fn time(&mut self, record: &Record) -> Result<()> {
        let mut waits = Vec::new();
        for seat in 0..self.shape.seats() {
            let (noted, more) = self.books.seat(seat).waits()?;
            waits.extend(noted.into_iter().map(|wait| (self.shape.side(seat), wait)));
            self.unnoted_waits += more;
        }
        let delays = self.control.take();
        delays.iter().for_each(|(_, late)| self.delays.add(*late));
        let late: Vec<(u64, u64)> = delays.into_iter().filter(worth_keeping).collect();
        let scene = Scene {
            waits: &waits,
            kills: &record.kills,
            excuses: &record.excuses,
            alive: &record.alive,
            late: &late,
        };
        let (stalls, longest) = scene.stalls();
        stalls.into_iter().for_each(|stall| self.stalls.add(stall));
        self.longest_unexcused = self.longest_unexcused.max(longest);
        if let Some(most) = self.options.max_stall
            && longest > most * 1_000_000
        {
            let stall = ms(Duration::from_nanos(longest));
            self.violations.push(format!("survivors were held up for {stall} ms after a kill"));
        }
        Ok(())
    }

    fn outcome(mut self, seed: u64) -> Outcome {
        let left = self.strangers().map_or(0, |left| left.len() as u64);
        let sums = Sums {
            elapsed: self.begun.elapsed(),
            rounds: self.rounds,
            traced: self.crew.traces,
            strikes: self.crew.strikes,
            recoveries: self.crew.strikes.attached.saturating_sub(left),
            tally: self.tally,
            counted: self.counted,
            stall: self.stalls.summary(),
            delay: self.delays.summary(),
            longest_unexcused: self.longest_unexcused,
            unnoted_waits: self.unnoted_waits,
            violations: std::mem::take(&mut self.violations),
        };
        Outcome::new(self.options, self.shape, seed, sums)
    }
}
