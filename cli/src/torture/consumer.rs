//! A consumer: receives in every way there is, and says so before and after.
//!
//! | it died | its seat says | the message |
//! |---------|---------------|-------------|
//! | outside | nothing held | was released; lost, if its first pieces had come |
//! | taking, in place | a time before | none, or one that was taken: lost, or delivered again |
//! | taking, copying | how many | as above, or released and not entered: lost |
//! | holding | which | lost but entered, or delivered again |
//! | releasing | which | any of these |

use super::Part;
use super::books::{Books, CHUNK, Clock, Command, Field, Finding, Head, Phase, Receipt, Seat};
use super::ends::{BATCH, Delivered, Inlet, Outcome, TakeBy};
use super::letter::Letter;
use super::options::{Sabotage, Side};
use super::random::Random;
use crate::Result;
use std::time::Duration;

struct Consumer<'a> {
    part: &'a Part,
    books: &'a Books,
    seat: Seat<'a>,
    clock: Clock,
    received: u64,
    /// A time before the operation.
    entered: u64,
    /// When the last message was there: strictly increasing.
    returned: u64,
}

/// Consumes until it is told to stop, or killed.
pub fn run(part: &Part) -> Result<()> {
    let segment = super::attach(part)?;
    let books = Books::open(&segment, &part.shape)?;
    let clock = Clock::since(part.begun);
    let mut random = Random::new(part.seed);
    let seat = books.seat(part.seat);
    let mut inlet = Inlet::open(&segment, &part.shape)?;
    let now = clock.now();
    seat.set(Field::Ready, now)?;
    seat.announce(Phase::Outside)?;
    let mut consumer =
        Consumer { part, books: &books, seat, clock, received: 0, entered: now, returned: now };
    // Where the dead one's message must come again, half of the consumers take
    // all of theirs in place, so that not one may be missing.
    let copies = !part.shape.delivers_again() || random.chance(0.5);
    // Since when it has wanted the next message.
    let mut since = now;
    let mut fruitless = false;
    loop {
        seat.set(Field::Ticket, books.head(Head::Ticket)?)?;
        let command = books.command()?;
        if command == Command::Stop {
            return Ok(());
        }
        if part.shape.sleep == Some(Side::Producers) && command == Command::Work {
            std::thread::sleep(Duration::from_micros(random.below(2000)));
            since = clock.now();
            consumer.entered = since;
        }
        let how = match random.below(if copies { 32 } else { 16 }) {
            // What does not wait would spin.
            0..4 if !fruitless => TakeBy::TryTake,
            0..16 => TakeBy::Take,
            16..20 if !fruitless => TakeBy::TryRecv,
            // It waits without end, and could not see its orders.
            20..22 if !fruitless && command == Command::Work => {
                TakeBy::Many(1 + random.below(BATCH))
            }
            _ => TakeBy::Recv,
        };
        let outcome = consumer.take(&mut inlet, how)?;
        fruitless = !matches!(outcome, Outcome::Done(_));
        match outcome {
            Outcome::Done(_) => {
                seat.waited(since, consumer.returned)?;
                since = consumer.returned;
                consumer.entered = consumer.returned;
            }
            Outcome::NotNow => consumer.entered = clock.now(),
            // All producers are dead; others will come.
            Outcome::NobodyThere => {
                std::thread::sleep(Duration::from_micros(200));
                consumer.entered = clock.now();
            }
        }
    }
}

impl Consumer<'_> {
    fn take(&mut self, inlet: &mut Inlet, how: TakeBy) -> Result<Outcome> {
        self.seat.set(Field::Held, 0)?;
        self.seat.set(Field::Copying, how.copies())?;
        self.seat.set(Field::Entered, self.entered)?;
        self.seat.announce(Phase::Taking)?;
        let outcome = inlet.take(how, &mut |delivered| self.deal(delivered))?;
        self.seat.announce(Phase::Outside)?;
        Ok(outcome)
    }

    /// Enters a message.
    fn deal(&mut self, delivered: Delivered) -> Result<()> {
        let Delivered { letter, redelivered, in_place } = delivered;
        self.returned = self.clock.now().max(self.returned + 1);
        self.received += 1;
        if self.part.sabotage == Some(Sabotage::Swallow) && self.received == 40 {
            return Ok(());
        }
        match letter {
            None => self.books.find(Finding::Torn)?,
            Some(letter) if !self.is_due(letter)? => {
                let Letter { incarnation, sequence, .. } = letter;
                self.books.find(Finding::Stray { incarnation, sequence })?;
            }
            Some(Letter { place, .. }) => {
                if in_place {
                    self.seat.set(Field::Held, place + 1)?;
                    self.seat.announce(Phase::Holding)?;
                }
                self.books.enter(
                    place,
                    Receipt {
                        by: self.part.incarnation,
                        returned: self.returned,
                        entered: self.entered,
                        redelivered,
                        copied: !in_place,
                    },
                )?;
            }
        }
        self.seat.set(Field::Done, self.received)?;
        if in_place {
            self.seat.announce(Phase::Releasing)?;
        }
        Ok(())
    }

    /// Whether the message is of this round and names its own cell.
    fn is_due(&self, letter: Letter) -> Result<bool> {
        let Letter { incarnation, sequence, place, round } = letter;
        Ok(round == self.books.head(Head::Round)?
            && self.books.chunk(place / CHUNK)?.is_some_and(|(of, first)| {
                of == incarnation && first.checked_add(place % CHUNK) == Some(sequence)
            }))
    }
}
