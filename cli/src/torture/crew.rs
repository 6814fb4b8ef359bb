//! The producers and consumers: who sits where, and what happened to them.

use super::Part;
use super::audit::{Death, Run};
use super::books::{Books, Clock, Field, Phase};
use super::options::{Sabotage, Shape, Side};
use super::random::{Random, mix};
use super::stalls::Span;
use super::strike::{self, Goal, Led, Reach};
use crate::child::Role;
use crate::{Result, processes};
use rustix::fd::OwnedFd;
use rustix::process::{
    Pid, PidfdFlags, PidfdGetfdFlags, Signal, WaitOptions, kill_process, pidfd_getfd, pidfd_open,
    waitpid,
};
use serde::Serialize;
use std::io::Read;
use std::process::{Child, ExitStatus, Stdio};
use std::time::Duration;

/// A kill, by how it was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// Wherever it was.
    Blind,
    /// Stopped first, and looked whether it was inside.
    Seen,
    /// Led there, instruction by instruction.
    Led,
    /// Led into the recovery of somebody else.
    Recovering,
    /// After having been stopped for a while.
    Stopped,
    /// To end a wait without end, before an audit.
    Cleared,
}

/// Counts of what was done to them.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Strikes {
    pub kills: u64,
    pub of_producers: u64,
    pub of_consumers: u64,
    /// Killed between the announcement and the end of an operation.
    pub inside_an_operation: u64,
    pub sending: u64,
    pub claimed: u64,
    pub taking: u64,
    pub holding: u64,
    /// Killed while attaching.
    pub attaching: u64,
    /// Led to their death, instruction by instruction.
    pub led: u64,
    /// Led to their death in the recovery of somebody else, or soon after.
    pub recovering: u64,
    /// Killed after having been stopped for a while.
    pub while_stopped: u64,
    pub stops: u64,
    /// Of these, in the recovery of somebody else.
    pub stopped_recovering: u64,
    /// Killed after having attached: all of them have to be recovered.
    pub attached: u64,
}

enum Condition {
    Running,
    /// Stopped, from one time until another, then to die or to go on.
    Stopped {
        since: u64,
        until: u64,
        dies: bool,
    },
    /// Nobody is there, until this time.
    Vacant {
        until: u64,
    },
}

/// A seat, and who sits there.
struct Member {
    child: Option<Child>,
    incarnation: u64,
    /// Messages sent before this round.
    base: u64,
    condition: Condition,
}

/// What happened in a round.
#[derive(Default)]
pub struct Record {
    pub runs: Vec<Run>,
    pub deaths: Vec<Death>,
    pub kills: Vec<u64>,
    pub excuses: Vec<Span>,
    pub alive: Vec<(Side, Span)>,
    /// Claims given up: as the dead intended at most, and did.
    pub giving_up: u64,
    pub given_up: u64,
}

pub struct Crew<'a> {
    pub shape: Shape,
    segment: String,
    books: &'a Books,
    clock: Clock,
    seed: u64,
    sabotage: Option<Sabotage>,
    members: Vec<Member>,
    incarnations: u64,
    /// How long an operation is: by side.
    reaches: [Reach; 2],
    /// Whether processes can be traced here.
    pub traces: bool,
    pub strikes: Strikes,
    pub record: Record,
    /// Leases of the dead, in an act of sabotage.
    kept: Vec<OwnedFd>,
}

impl<'a> Crew<'a> {
    /// Starts everybody.
    pub fn start(
        shape: Shape,
        segment: &str,
        books: &'a Books,
        clock: Clock,
        seed: u64,
        sabotage: Option<Sabotage>,
    ) -> Result<Crew<'a>> {
        let vacant = || Member {
            child: None,
            incarnation: 0,
            base: 0,
            condition: Condition::Vacant { until: 0 },
        };
        let mut crew = Crew {
            shape,
            segment: segment.to_owned(),
            books,
            clock,
            seed,
            sabotage,
            members: (0..shape.seats()).map(|_| vacant()).collect(),
            incarnations: 0,
            reaches: Default::default(),
            traces: true,
            strikes: Strikes::default(),
            record: Record::default(),
            kept: Vec::new(),
        };
        crew.fill(u64::MAX)?;
        if let Some(child) = &crew.members[0].child {
            crew.traces = strike::may_trace(child.id());
        }
        Ok(crew)
    }

    /// Processes of now, by seat.
    pub fn pids(&self) -> Vec<u32> {
        self.members.iter().filter_map(|m| m.child.as_ref().map(Child::id)).collect()
    }

    /// Puts somebody on each seat that is to be taken by now.
    pub fn fill(&mut self, now: u64) -> Result<()> {
        for seat in 0..self.members.len() {
            if matches!(self.members[seat].condition, Condition::Vacant { until } if until <= now) {
                self.seat_somebody(seat)?;
            }
        }
        Ok(())
    }

    fn seat_somebody(&mut self, seat: usize) -> Result<()> {
        self.incarnations += 1;
        let incarnation = self.incarnations;
        self.books.seat(seat).assign(incarnation)?;
        let part = Part {
            segment: self.segment.clone(),
            shape: self.shape,
            seat,
            incarnation,
            seed: mix(self.seed ^ incarnation << 20),
            begun: self.clock.begun(),
            sabotage: self.sabotage,
        };
        let child = processes::command(&Role::Torture(part))?
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        self.members[seat] =
            Member { child: Some(child), incarnation, base: 0, condition: Condition::Running };
        Ok(())
    }

    /// Lets those go on, or die, whose time has come.
    pub fn release(&mut self, now: u64) -> Result<()> {
        for seat in 0..self.members.len() {
            if let Condition::Stopped { since, until, dies } = self.members[seat].condition
                && until <= now
            {
                if dies {
                    self.kill(seat, Manner::Stopped)?;
                } else if let Some(pid) = self.pid(seat) {
                    kill_process(pid, Signal::CONT)?;
                    self.members[seat].condition = Condition::Running;
                }
                // A moment to find its way back.
                self.record.excuses.push((since, self.clock.now() + 1_000_000));
            }
        }
        Ok(())
    }

    /// When somebody is to go on, or to come, next.
    pub fn next_due(&self) -> Option<u64> {
        let due = |member: &Member| match member.condition {
            Condition::Running => None,
            Condition::Stopped { until, .. } | Condition::Vacant { until } => Some(until),
        };
        self.members.iter().filter_map(due).min()
    }

    fn pid(&self, seat: usize) -> Option<Pid> {
        self.members[seat].child.as_ref().map(Pid::from_child)
    }

    /// Somebody who runs: mostly one that has attached.
    fn victim(&self, random: &mut Random) -> Result<Option<usize>> {
        let mut running: Vec<usize> = (0..self.members.len())
            .filter(|seat| matches!(self.members[*seat].condition, Condition::Running))
            .collect();
        if !random.chance(0.1) {
            let mut ready = Vec::new();
            for seat in &running {
                if self.books.seat(*seat).get(Field::Ready)? != 0 {
                    ready.push(*seat);
                }
            }
            running = ready;
        }
        if running.is_empty() {
            return Ok(None);
        }
        Ok(Some(running[random.below(running.len() as u64) as usize]))
    }

    /// Stops somebody for up to 60 ms.
    pub fn stop(&mut self, random: &mut Random) -> Result<()> {
        let Some(seat) = self.victim(random)? else { return Ok(()) };
        let since = self.clock.now();
        if self.halt(seat)? {
            let until = since + 1_000_000 * (1 + random.below(60));
            self.members[seat].condition =
                Condition::Stopped { since, until, dies: random.chance(0.5) };
            self.strikes.stops += 1;
        }
        Ok(())
    }

    /// SIGSTOP, until it stands still; not if it has ended by itself.
    fn halt(&mut self, seat: usize) -> Result<bool> {
        let Some(pid) = self.pid(seat) else { return Ok(false) };
        kill_process(pid, Signal::STOP)?;
        match waitpid(Some(pid), WaitOptions::UNTRACED)? {
            Some((_, status)) if status.stopped() => Ok(true),
            Some((_, status)) => Err(self.ended(seat, &format!("{status:?}"))),
            None => Ok(false),
        }
    }

    /// Kills somebody, perhaps after having led it into an operation.
    pub fn strike(&mut self, lead: bool, random: &mut Random) -> Result<()> {
        let Some(seat) = self.victim(random)? else { return Ok(()) };
        let since = self.clock.now();
        let manner = if lead { self.lead(seat, Goal::Operation, random)? } else { Manner::Blind };
        if manner != Manner::Blind {
            self.record.excuses.push((since, self.clock.now()));
        }
        self.kill(seat, manner)?;
        if random.chance(0.25)
            && let Condition::Vacant { until } = &mut self.members[seat].condition
        {
            *until = self.clock.now() + random.below(10_000_000);
        }
        Ok(())
    }

    /// Kills somebody, and then another one while it recovers the first, or
    /// asks whether it is dead. The rest is stopped meanwhile, so that nobody
    /// forestalls it, and has to recover both. Or stops the second one there,
    /// while the others go on and somebody comes in the first one's place.
    pub fn strike_both(&mut self, random: &mut Random) -> Result<()> {
        let (Some(first), Some(second)) = (self.victim(random)?, self.victim(random)?) else {
            return Ok(());
        };
        if first == second || !self.traces {
            return self.strike(true, random);
        }
        let since = self.clock.now();
        let mut halted = Vec::new();
        for seat in 0..self.members.len() {
            if seat != first
                && seat != second
                && matches!(self.members[seat].condition, Condition::Running)
                && self.halt(seat)?
            {
                halted.push(seat);
            }
        }
        let manner = self.lead(first, Goal::Operation, random)?;
        self.kill(first, manner)?;
        let manner = self.lead(second, Goal::Recovery, random)?;
        let goes_on = random.chance(0.4);
        if !goes_on {
            self.kill(second, manner)?;
        }
        for pid in halted.into_iter().filter_map(|seat| self.pid(seat)) {
            kill_process(pid, Signal::CONT)?;
        }
        if goes_on && let Some(child) = &self.members[second].child {
            let pid = child.id();
            self.fill(u64::MAX)?;
            std::thread::sleep(Duration::from_millis(2 + random.below(20)));
            strike::let_go(pid)?;
            self.strikes.stops += 1;
            self.strikes.stopped_recovering += u64::from(manner == Manner::Recovering);
        }
        self.record.excuses.push((since, self.clock.now()));
        Ok(())
    }

    /// Leads whoever sits there somewhere, and leaves it there to be killed.
    fn lead(&mut self, seat: usize, goal: Goal, random: &mut Random) -> Result<Manner> {
        if !self.traces || goal == Goal::Operation && random.chance(0.1) {
            for _ in 0..8 {
                if !self.halt(seat)? || self.books.seat(seat).phase()?.is_inside() {
                    break;
                }
                if let Some(pid) = self.pid(seat) {
                    kill_process(pid, Signal::CONT)?;
                }
            }
            return Ok(Manner::Seen);
        }
        let pid = self.members[seat].child.as_ref().map_or(0, Child::id);
        let side = self.shape.side(seat);
        let reach = &mut self.reaches[side as usize];
        match strike::lead(goal, pid, side, self.books.seat(seat), reach, random)? {
            Led::There if goal == Goal::Recovery => Ok(Manner::Recovering),
            Led::There => Ok(Manner::Led),
            Led::Nowhere => Ok(Manner::Seen),
            Led::Ended(code) => Err(self.ended(seat, &format!("status {code}"))),
        }
    }

    /// Kills whoever sits there, and enters the death.
    pub fn kill(&mut self, seat: usize, manner: Manner) -> Result<()> {
        let Some(mut child) = self.members[seat].child.take() else { return Ok(()) };
        if self.sabotage == Some(Sabotage::Undead) {
            self.keep_lease(&child);
        }
        let killed = self.clock.now();
        child.kill()?;
        let status = child.wait()?;
        let gone = self.clock.now();
        self.bury(seat, killed, gone)?;
        if status.code().is_some() {
            return Err(words_of(&mut child, &status, self.shape.side(seat)).into());
        }
        let seat_of = self.books.seat(seat);
        let (phase, ready) = (seat_of.phase()?, seat_of.get(Field::Ready)?);
        let strikes = &mut self.strikes;
        strikes.kills += 1;
        match self.shape.side(seat) {
            Side::Producers => strikes.of_producers += 1,
            Side::Consumers => strikes.of_consumers += 1,
        }
        strikes.inside_an_operation += u64::from(phase.is_inside());
        match phase {
            Phase::Sending | Phase::GivingUp => strikes.sending += 1,
            Phase::Claimed => strikes.claimed += 1,
            Phase::Taking => strikes.taking += 1,
            Phase::Holding | Phase::Releasing => strikes.holding += 1,
            Phase::Starting => strikes.attaching += 1,
            Phase::Outside | Phase::Paused => {}
        }
        strikes.led += u64::from(manner == Manner::Led);
        strikes.recovering += u64::from(manner == Manner::Recovering);
        strikes.while_stopped += u64::from(manner == Manner::Stopped);
        strikes.attached += u64::from(ready != 0);
        self.record.kills.push(killed);
        Ok(())
    }

    /// Enters in the record what the one that sat there had done.
    fn bury(&mut self, seat: usize, killed: u64, gone: u64) -> Result<()> {
        let (side, seat_of) = (self.shape.side(seat), self.books.seat(seat));
        let member = &mut self.members[seat];
        self.record.deaths.push(Death {
            side,
            incarnation: member.incarnation,
            phase: seat_of.phase()?,
            held: seat_of.get(Field::Held)?.checked_sub(1),
            copying: seat_of.get(Field::Copying)?,
            entered: seat_of.get(Field::Entered)?,
            killed,
            gone,
        });
        let base = member.base;
        member.condition = Condition::Vacant { until: 0 };
        self.enter_run(seat, base, killed)
    }

    /// Enters in the record what whoever sits there has done in this round.
    fn enter_run(&mut self, seat: usize, base: u64, until: u64) -> Result<()> {
        let (side, seat_of) = (self.shape.side(seat), self.books.seat(seat));
        let ready = seat_of.get(Field::Ready)?;
        if ready != 0 {
            self.record.alive.push((side, (ready.min(until), until)));
        }
        if side == Side::Producers {
            self.record.runs.push(Run {
                incarnation: self.members[seat].incarnation,
                base,
                done: seat_of.get(Field::Done)?,
                intent: seat_of.get(Field::Intent)?.max(seat_of.get(Field::Done)?),
            });
            self.record.giving_up += seat_of.get(Field::GivingUp)?;
            self.record.given_up += seat_of.get(Field::GivenUp)?;
        }
        Ok(())
    }

    /// Takes the record of the round, which is over, with what the living have
    /// done in it.
    pub fn close_round(&mut self) -> Result<Record> {
        let now = self.clock.now();
        for seat in 0..self.members.len() {
            let base = self.members[seat].base;
            self.enter_run(seat, base, now)?;
            let seat_of = self.books.seat(seat);
            self.members[seat].base = seat_of.get(Field::Done)?;
            // They count anew.
            for field in [Field::GivingUp, Field::GivenUp] {
                seat_of.set(field, 0)?;
            }
        }
        Ok(std::mem::take(&mut self.record))
    }

    /// Everybody runs: nobody is stopped, and no seat is vacant.
    pub fn muster(&mut self) -> Result<()> {
        for member in &mut self.members {
            if let Condition::Stopped { until, dies, .. } = &mut member.condition {
                (*until, *dies) = (0, false);
            }
        }
        self.release(u64::MAX)?;
        self.fill(u64::MAX)?;
        self.check()
    }

    /// Fails if anybody has ended without having been killed.
    pub fn check(&mut self) -> Result<()> {
        for seat in 0..self.members.len() {
            let side = self.shape.side(seat);
            if let Some(child) = &mut self.members[seat].child
                && let Some(status) = child.try_wait()?
            {
                return Err(words_of(child, &status, side).into());
            }
        }
        Ok(())
    }

    fn ended(&mut self, seat: usize, status: &str) -> Box<dyn std::error::Error> {
        let words = self.members[seat].child.as_mut().map(last_words).unwrap_or_default();
        format!("a {} ended by itself, {status}: {words}", self.shape.side(seat)).into()
    }

    /// Whether everybody has come to rest: producers have paused, and consumers
    /// have seen this ticket.
    pub fn rests(&self, ticket: u64) -> Result<bool> {
        for seat in 0..self.members.len() {
            let seat_of = self.books.seat(seat);
            let rests = match self.shape.side(seat) {
                Side::Producers => seat_of.phase()? == Phase::Paused,
                Side::Consumers => seat_of.get(Field::Ticket)? == ticket,
            };
            if !rests {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Kills consumers that have not seen this ticket, since they wait without
    /// end for what does not come; others take their seats.
    pub fn clear(&mut self, ticket: u64) -> Result<()> {
        for seat in self.shape.producers..self.members.len() {
            let seat_of = self.books.seat(seat);
            if seat_of.get(Field::Ticket)? != ticket
                && seat_of.phase()? == Phase::Taking
                && seat_of.get(Field::Copying)? > 0
            {
                self.kill(seat, Manner::Cleared)?;
            }
        }
        self.fill(u64::MAX)
    }

    /// Messages sent and received by those who are there, for a look at whether
    /// anything moves.
    pub fn progress(&self) -> Result<u64> {
        let mut sum = self.incarnations;
        for seat in 0..self.members.len() {
            sum = sum.wrapping_mul(31).wrapping_add(self.books.seat(seat).get(Field::Done)?);
        }
        Ok(sum)
    }

    /// Waits until everybody, having been told to stop, has.
    pub fn dismiss(&mut self) -> Result<()> {
        let start = std::time::Instant::now();
        for seat in 0..self.members.len() {
            let side = self.shape.side(seat);
            let Some(mut child) = self.members[seat].child.take() else { continue };
            loop {
                match child.try_wait()? {
                    Some(status) if status.success() => break,
                    Some(status) => return Err(words_of(&mut child, &status, side).into()),
                    // A consumer that waits without end can't be told.
                    None if start.elapsed() > Duration::from_millis(500) => {
                        child.kill()?;
                        child.wait()?;
                        break;
                    }
                    None => std::thread::sleep(Duration::from_millis(1)),
                }
            }
        }
        Ok(())
    }

    /// Sabotage: keeps the descriptors by which the victim holds its lease.
    fn keep_lease(&mut self, victim: &Child) {
        let keep = || -> Result<Vec<OwnedFd>> {
            let pidfd = pidfd_open(Pid::from_child(victim), PidfdFlags::empty())?;
            let mut kept = Vec::new();
            for entry in std::fs::read_dir(format!("/proc/{}/fd", victim.id()))? {
                let entry = entry?;
                let leads_to = std::fs::read_link(entry.path())?;
                let number = entry.file_name().into_string().unwrap_or_default().parse()?;
                if leads_to.to_string_lossy().contains(&self.segment) {
                    kept.push(pidfd_getfd(&pidfd, number, PidfdGetfdFlags::empty())?);
                }
            }
            Ok(kept)
        };
        self.kept.extend(keep().unwrap_or_default());
    }
}

impl Drop for Crew<'_> {
    fn drop(&mut self) {
        for child in self.members.iter_mut().filter_map(|member| member.child.as_mut()) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn last_words(child: &mut Child) -> String {
    let mut words = String::new();
    if let Some(stderr) = &mut child.stderr {
        let _ = stderr.read_to_string(&mut words);
    }
    words.trim().to_owned()
}

fn words_of(child: &mut Child, status: &ExitStatus, side: Side) -> String {
    format!("a {side} ended by itself, {status}: {}", last_words(child))
}
