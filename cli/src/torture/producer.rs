//! A producer: sends in every way there is, and says so before and after.
//!
//! | it died | intent | done | its messages |
//! |---------|--------|------|--------------|
//! | outside | n | n | n, all of which arrive |
//! | sending | m | n | n arrive; of the next m - n the first few, or none |

use super::Part;
use super::books::{Books, CHUNK, Clock, Command, Field, Phase, Seat};
use super::ends::{BATCH, Outcome, Outlet, SendBy};
use super::letter::Letter;
use super::options::{Sabotage, Side};
use super::random::Random;
use crate::Result;
use std::time::Duration;

/// A sabotaged producer does its mischief once, at this message.
const MISCHIEF_AT: u64 = 40;

struct Producer<'a> {
    part: &'a Part,
    books: &'a Books,
    seat: Seat<'a>,
    outlet: Outlet,
    random: Random,
    clock: Clock,
    /// Number of the next message.
    sequence: u64,
    /// The round, the chunk, and the sequence of its first message.
    chunk: Option<(u64, u64, u64)>,
    /// Since when it has wanted to send the next message.
    since: u64,
}

/// Produces until it is told to stop, or killed.
pub fn run(part: &Part) -> Result<()> {
    let segment = super::attach(part)?;
    let books = Books::open(&segment, &part.shape)?;
    let clock = Clock::since(part.begun);
    let seat = books.seat(part.seat);
    let outlet = Outlet::open(&segment, &part.shape)?;
    seat.set(Field::Ready, clock.now())?;
    seat.announce(Phase::Outside)?;
    let mut producer = Producer {
        part,
        books: &books,
        seat,
        outlet,
        random: Random::new(part.seed),
        clock,
        sequence: 0,
        chunk: None,
        since: clock.now(),
    };
    while books.command()? != Command::Stop {
        producer.step()?;
    }
    Ok(())
}

impl Producer<'_> {
    fn step(&mut self) -> Result<()> {
        let round = self.books.head(super::books::Head::Round)?;
        if self.books.command()? == Command::Pause {
            return self.pause();
        }
        if self.part.shape.sleep == Some(Side::Consumers) {
            std::thread::sleep(Duration::from_micros(self.random.below(2000)));
            self.since = self.clock.now();
        }
        let draw = self.random.below(64);
        if draw == 0 {
            return self.give_up();
        }
        let Some(room) = self.room(round)? else { return self.pause() };
        if self.part.sabotage.is_some() && self.sequence == MISCHIEF_AT && room >= 2 {
            return self.mischief();
        }
        match draw {
            1..8 => {
                let count = (1 + self.random.below(BATCH)).min(room);
                self.send_many(count)
            }
            8..20 => self.send(SendBy::InPlace),
            20..28 => self.send(SendBy::Timeout),
            28..32 => self.send(SendBy::Try),
            _ => self.send(SendBy::Send),
        }
    }

    /// Places left in this producer's chunk, or in the next one; `None` when
    /// this round's books are full.
    fn room(&mut self, round: u64) -> Result<Option<u64>> {
        if let Some((of, _, first)) = self.chunk
            && of == round
            && self.sequence < first + CHUNK
        {
            return Ok(Some(first + CHUNK - self.sequence));
        }
        let chunk = self.books.take_chunk(self.part.incarnation, self.sequence)?;
        self.chunk = chunk.map(|chunk| (round, chunk, self.sequence));
        Ok(chunk.map(|_| CHUNK))
    }

    fn letter(&self, nth: u64) -> Letter {
        let (round, chunk, first) = self.chunk.unwrap_or_default();
        let sequence = self.sequence + nth;
        let place = chunk * CHUNK + (sequence - first);
        Letter { incarnation: self.part.incarnation, sequence, place, round }
    }

    /// Sends nothing until told to go on.
    fn pause(&mut self) -> Result<()> {
        let round = self.books.head(super::books::Head::Round)?;
        self.seat.announce(Phase::Paused)?;
        while self.books.head(super::books::Head::Round)? == round
            && self.books.command()? != Command::Stop
        {
            std::thread::sleep(Duration::from_micros(100));
        }
        self.seat.announce(Phase::Outside)?;
        self.since = self.clock.now();
        Ok(())
    }

    /// Says that so many messages are about to be sent. That it begins to is
    /// announced when they are ready.
    fn intend(&self, count: u64) -> Result<()> {
        self.seat.set(Field::Intent, self.sequence + count)
    }

    /// Notes that so many were.
    fn note(&mut self, count: u64) -> Result<()> {
        self.sequence += count;
        self.seat.set(Field::Done, self.sequence)?;
        let now = self.clock.now();
        self.seat.waited(self.since, now)?;
        self.since = now;
        Ok(())
    }

    fn send(&mut self, how: SendBy) -> Result<()> {
        let letter = self.letter(0);
        self.intend(1)?;
        while self.outlet.send(letter, how, |phase| self.seat.announce(phase))? != Outcome::Done(1)
        {
            // No room yet, or nobody there: the pipe's other end is dead, and
            // somebody else will come.
            std::thread::sleep(Duration::from_micros(100));
        }
        self.note(1)?;
        self.seat.announce(Phase::Outside)
    }

    fn send_many(&mut self, count: u64) -> Result<()> {
        let letters: Vec<Letter> = (0..count).map(|nth| self.letter(nth)).collect();
        self.intend(count)?;
        let mut sent = 0;
        while sent < letters.len() {
            match self.outlet.send_many(&letters[sent..], |phase| self.seat.announce(phase))? {
                Outcome::Done(some) => {
                    sent += some as usize;
                    self.note(some)?;
                }
                _ => std::thread::sleep(Duration::from_micros(100)),
            }
        }
        self.seat.announce(Phase::Outside)
    }

    fn give_up(&mut self) -> Result<()> {
        let given_up = self.seat.get(Field::GivenUp)?;
        self.seat.set(Field::GivingUp, given_up + 1)?;
        self.seat.announce(Phase::GivingUp)?;
        while self.outlet.give_up()? != Outcome::Done(1) {
            std::thread::sleep(Duration::from_micros(100));
        }
        self.seat.set(Field::GivenUp, given_up + 1)?;
        self.seat.announce(Phase::Outside)
    }

    /// Sends two messages as a broken ring would deliver them.
    fn mischief(&mut self) -> Result<()> {
        let (first, second) = (self.letter(0), self.letter(1));
        self.intend(2)?;
        let changed = Letter { sequence: first.sequence + 1000, ..first };
        let letters: &[Letter] = match self.part.sabotage {
            Some(Sabotage::Lose) => &[second],
            Some(Sabotage::Double) => &[first, first, second],
            Some(Sabotage::Swap) => &[second, first],
            Some(Sabotage::Forge) => &[first, second, changed],
            _ => &[first, second],
        };
        for letter in letters {
            let how = match self.part.sabotage {
                Some(Sabotage::Tear) => SendBy::Torn,
                _ => SendBy::Send,
            };
            while self.outlet.send(*letter, how, |phase| self.seat.announce(phase))?
                != Outcome::Done(1)
            {
                std::thread::sleep(Duration::from_micros(100));
            }
        }
        self.note(2)?;
        self.seat.announce(Phase::Outside)
    }
}
