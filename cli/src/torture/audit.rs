//! The audit of a round, in which every message is accounted for.
//!
//! | message | its producer | arrived | not arrived |
//! |---------|--------------|---------|-------------|
//! | committed | says so | good | must have been in the hands of a consumer that died |
//! | in doubt | died sending it | good | good, unless a later one of its batch arrived |
//! | not sent | says nothing | forged | good |
//!
//! A consumer that died while it took a message did not know yet which. Such
//! messages are assigned to such consumers, to each at most as many as it can
//! have had (one, or its batch), and only if the order of messages allows that
//! it took this one during its last operation. Where messages come in pieces, one that
//! died between two operations may have had the beginning of one message. What can't be
//! assigned is a violation. Where messages are delivered again, each repeated delivery is
//! assigned to a death in the same way, and to one that said that it held just
//! this message where there is one.
//!
//! *Order.* Each receipt has a time before the message was taken and one after.
//! Of two messages of one producer the later one must not have been there before
//! the earlier one was asked for; and one consumer must have received them in
//! order. Those that are delivered again come late: they are flagged, unless they
//! are received as copies, which have no flag; then their lateness shows it.

use super::books::{CHUNK, Event, Finding, Phase, Receipt, who};
use super::options::Side;
use crate::Result;
use serde::Serialize;
use std::collections::HashMap;
use std::ops::AddAssign;

/// A producer's part in a round.
#[derive(Clone, Copy, Debug, Default)]
pub struct Run {
    pub incarnation: u64,
    /// Number of its first message in this round.
    pub base: u64,
    pub done: u64,
    pub intent: u64,
}

/// A death.
#[derive(Clone, Copy, Debug)]
pub struct Death {
    pub side: Side,
    pub incarnation: u64,
    pub phase: Phase,
    /// The cell of the message in its hands.
    pub held: Option<u64>,
    /// Messages it may have taken and released and not entered.
    pub copying: u64,
    /// A time before its operation.
    pub entered: u64,
    /// A time before its death, and one after.
    pub killed: u64,
    pub gone: u64,
}

/// A round, as the books have it.
pub struct Evidence<'a> {
    /// Producer and first sequence of each chunk.
    pub chunks: &'a [Option<(u64, u64)>],
    pub cell: &'a dyn Fn(u64) -> Result<Option<Receipt>>,
    pub events: &'a [Event],
    pub findings: &'a [Finding],
    pub runs: &'a [Run],
    pub deaths: &'a [Death],
    /// What a consumer had in place when it died is delivered again.
    pub delivers_again: bool,
    /// Nor is what it had in place sure to be, nor what it had begun (a message in pieces).
    pub in_pieces: bool,
    /// Repeated deliveries are flagged.
    pub flags: bool,
}

/// What became of the messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// Messages that their producers sent, with those in doubt that arrived.
    pub sent: u64,
    pub received: u64,
    /// Messages that producers died sending.
    pub in_doubt: u64,
    pub in_doubt_arrived: u64,
    /// Not received, having been in the hands of a consumer that died.
    pub lost_with_owner: u64,
    /// Received again after a consumer died.
    pub received_again: u64,
    // All of the rest are violations.
    pub missing: u64,
    pub duplicates: u64,
    pub reorderings: u64,
    pub torn: u64,
    pub forged: u64,
    /// Held by a consumer that died, and not delivered again.
    pub not_redelivered: u64,
}

impl Tally {
    pub fn violations(&self) -> u64 {
        self.missing
            + self.duplicates
            + self.reorderings
            + self.torn
            + self.forged
            + self.not_redelivered
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Tally) {
        self.sent += other.sent;
        self.received += other.received;
        self.in_doubt += other.in_doubt;
        self.in_doubt_arrived += other.in_doubt_arrived;
        self.lost_with_owner += other.lost_with_owner;
        self.received_again += other.received_again;
        self.missing += other.missing;
        self.duplicates += other.duplicates;
        self.reorderings += other.reorderings;
        self.torn += other.torn;
        self.forged += other.forged;
        self.not_redelivered += other.not_redelivered;
    }
}

/// A message that is not there.
struct Gap {
    incarnation: u64,
    sequence: u64,
    place: u64,
    /// Latest time before which an earlier one of its run was asked for.
    asked_before: u64,
    /// Earliest time at which a later one was there.
    passed: u64,
}

/// Audits a round; says in words what is wrong.
pub fn audit(evidence: &Evidence, complaints: &mut Vec<String>) -> Result<Tally> {
    let mut tally = Tally::default();
    for finding in evidence.findings {
        match finding {
            Finding::Torn => tally.torn += 1,
            Finding::Stray { .. } => tally.forged += 1,
            Finding::Shared { .. } => tally.duplicates += 1,
        }
        complaints.push(match finding {
            Finding::Torn => "a message arrived torn".to_owned(),
            Finding::Stray { incarnation, sequence } => {
                format!("message {sequence} of producer {incarnation} arrived, which nobody sent")
            }
            Finding::Shared { place } => {
                format!("the message of cell {place} was in two consumers' hands")
            }
        });
    }
    // The chunks of each producer, in the order of its messages.
    let mut chunks: HashMap<u64, Vec<(u64, u64)>> = HashMap::new();
    for (chunk, taken) in (0..).zip(evidence.chunks) {
        if let Some((incarnation, first)) = *taken {
            chunks.entry(incarnation).or_default().push((first, chunk));
        }
    }
    let mut gaps = Vec::new();
    let mut late = Vec::new();
    for run in evidence.runs {
        let mut of_run = chunks.remove(&run.incarnation).unwrap_or_default();
        of_run.sort_unstable();
        follow(evidence, run, &of_run, &mut tally, &mut gaps, &mut late, complaints)?;
    }
    if let Some(unknown) = chunks.keys().next() {
        return Err(format!("the books name a producer {unknown} that never was").into());
    }
    explain_gaps(evidence, &gaps, &mut tally, complaints);
    // Those that came to somebody who had it before are noted already.
    let noted = |late: &Event| {
        evidence.events.iter().any(|e| (e.place, e.receipt) == (late.place, late.receipt))
    };
    late.retain(|late| !noted(late));
    late.extend(evidence.events);
    explain_events(evidence, &late, &mut tally, complaints);
    Ok(tally)
}

/// Goes through one producer's messages.
fn follow(
    evidence: &Evidence,
    run: &Run,
    chunks: &[(u64, u64)],
    tally: &mut Tally,
    gaps: &mut Vec<Gap>,
    late: &mut Vec<Event>,
    complaints: &mut Vec<String>,
) -> Result<()> {
    let Run { incarnation, base, done, intent } = *run;
    let name = |sequence| format!("message {sequence} of producer {incarnation}");
    let mut receipts: Vec<Option<Receipt>> = Vec::new();
    for &(first, chunk) in chunks {
        if first != base + receipts.len() as u64 {
            return Err(format!("the books of producer {incarnation} have a hole").into());
        }
        for nth in 0..CHUNK {
            let receipt = (evidence.cell)(chunk * CHUNK + nth)?;
            if first + nth < intent {
                receipts.push(receipt);
            } else if receipt.is_some() {
                tally.forged += 1;
                complaints.push(format!("{} arrived, which was not sent", name(first + nth)));
            }
        }
    }
    if base + (receipts.len() as u64) < intent {
        return Err(format!("producer {incarnation} sent what has no place in the books").into());
    }
    tally.sent += done - base;
    tally.in_doubt += intent - done;
    tally.received += receipts.iter().flatten().count() as u64;
    let committed = (done - base) as usize;
    // Those in doubt arrive as far as they were sent, in order.
    let due = match receipts[committed..].iter().rposition(Option::is_some) {
        Some(last) => committed + last + 1,
        None => committed,
    };
    tally.in_doubt_arrived += (due - committed) as u64;
    tally.sent += (due - committed) as u64;

    // Earliest time at which this message or a later one was there.
    let mut passed = vec![u64::MAX; receipts.len() + 1];
    for (nth, receipt) in receipts.iter().enumerate().rev() {
        let in_turn = receipt.filter(|receipt| !receipt.redelivered);
        passed[nth] = passed[nth + 1].min(in_turn.map_or(u64::MAX, |receipt| receipt.returned));
    }
    let mut asked_before = 0;
    let mut last_of: HashMap<u64, u64> = HashMap::new();
    for (nth, receipt) in receipts[..due].iter().enumerate() {
        let sequence = base + nth as u64;
        let place = chunks[nth / CHUNK as usize].1 * CHUNK + nth as u64 % CHUNK;
        let Some(receipt) = receipt else {
            let passed = passed[nth + 1];
            gaps.push(Gap { incarnation, sequence, place, asked_before, passed });
            continue;
        };
        if receipt.redelivered {
            continue;
        }
        // A copy has no flag; but asked for after a later one was there, it
        // must have been delivered again.
        if evidence.delivers_again
            && evidence.flags
            && receipt.copied
            && receipt.entered >= passed[nth + 1]
        {
            late.push(Event { place, receipt: *receipt, before: None });
            continue;
        }
        let last = last_of.entry(receipt.by).or_default();
        if receipt.returned <= asked_before || receipt.returned <= *last {
            tally.reorderings += 1;
            complaints.push(format!("{} overtook an earlier one", name(sequence)));
        }
        *last = receipt.returned.max(*last);
        asked_before = asked_before.max(receipt.entered);
    }
    Ok(())
}

/// Assigns the missing messages to consumers that died.
fn explain_gaps(
    evidence: &Evidence,
    gaps: &[Gap],
    tally: &mut Tally,
    complaints: &mut Vec<String>,
) {
    let in_place = !evidence.delivers_again || evidence.in_pieces;
    let dead = || evidence.deaths.iter().filter(|death| death.side == Side::Consumers);
    let most = |death: &Death| match death.phase {
        // It has entered what it received; it may have the beginning of another.
        Phase::Outside => u64::from(evidence.in_pieces),
        _ => death.copying.max(u64::from(in_place)),
    };
    let takers: Vec<&Death> = dead().filter(|death| most(death) > 0).collect();
    let capacity: Vec<u64> = takers.iter().map(|death| most(death)).collect();
    let unreturned: Vec<&Death> = if in_place {
        Vec::new()
    } else {
        dead().filter(|death| !came_again(evidence, death)).collect()
    };
    let can = |item: usize, taker: usize| {
        let taker = takers[taker];
        match (gaps.get(item), taker.phase) {
            (Some(gap), Phase::Taking | Phase::Outside) => {
                gap.passed > taker.entered && gap.asked_before < taker.gone
            }
            // It knew which, and had not entered it yet.
            (Some(gap), Phase::Holding | Phase::Releasing) => taker.held == Some(gap.place),
            // It came again, to one that died with a copy of it.
            (None, Phase::Taking) => taker.gone > unreturned[item - gaps.len()].killed,
            _ => false,
        }
    };
    let assigned = assign(gaps.len() + unreturned.len(), &capacity, can);
    for (item, assigned) in assigned.into_iter().enumerate() {
        match (gaps.get(item), assigned) {
            (Some(_), true) => tally.lost_with_owner += 1,
            (Some(Gap { incarnation, sequence, .. }), false) => {
                tally.missing += 1;
                complaints.push(format!(
                    "message {sequence} of producer {incarnation} is missing, and nobody died \
                     with it"
                ));
            }
            (None, true) => {}
            (None, false) => {
                let death = unreturned[item - gaps.len()];
                tally.not_redelivered += 1;
                complaints.push(format!(
                    "consumer {} died with the message of cell {}, which did not come again",
                    death.incarnation,
                    death.held.unwrap_or_default()
                ));
            }
        }
    }
}

/// Whether the message that it held when it died, if it did, came again.
fn came_again(evidence: &Evidence, death: &Death) -> bool {
    let (Phase::Holding, Some(place)) = (death.phase, death.held) else { return true };
    let to_another =
        |by: u64, returned: u64| by != who(death.incarnation) && returned > death.killed;
    let noted = evidence
        .events
        .iter()
        .any(|event| event.place == place && to_another(event.receipt.by, event.receipt.returned));
    // If it died before it entered the message, there is no trace of its own.
    noted
        || (evidence.cell)(place)
            .ok()
            .flatten()
            .is_some_and(|receipt| to_another(receipt.by, receipt.returned))
}

/// Assigns the repeated deliveries to consumers that died.
fn explain_events(
    evidence: &Evidence,
    events: &[Event],
    tally: &mut Tally,
    complaints: &mut Vec<String>,
) {
    let deaths: Vec<&Death> = evidence
        .deaths
        .iter()
        .filter(|death| death.side == Side::Consumers && evidence.delivers_again)
        .collect();
    let can = |event: usize, death: usize| {
        let (event, death) = (&events[event], deaths[death]);
        let Receipt { returned, redelivered, copied, .. } = event.receipt;
        if returned <= death.killed || evidence.flags && !redelivered && !copied {
            return false;
        }
        match death.phase {
            Phase::Holding | Phase::Releasing => death.held == Some(event.place),
            // It did not know what it took, and had not entered it.
            Phase::Taking => evidence.flags,
            _ => false,
        }
    };
    let assigned = assign(events.len(), &vec![1; deaths.len()], can);
    for (event, assigned) in events.iter().zip(assigned) {
        if assigned {
            tally.received_again += 1;
            continue;
        }
        tally.duplicates += 1;
        let Event { place, receipt, before } = event;
        complaints.push(match before {
            Some(before) => format!(
                "the message of cell {place}, which consumer {} had, came again to consumer {}",
                before.by, receipt.by
            ),
            None => format!(
                "the message of cell {place} was flagged as delivered again, and nobody had it"
            ),
        });
    }
}

/// Assigns as many of `items` as can be, `capacity[taker]` to each taker;
/// returns which are. By augmenting paths.
fn assign(items: usize, capacity: &[u64], can: impl Fn(usize, usize) -> bool) -> Vec<bool> {
    fn place(
        item: usize,
        capacity: &[u64],
        can: &dyn Fn(usize, usize) -> bool,
        seen: &mut [bool],
        held: &mut [Vec<usize>],
    ) -> bool {
        for taker in 0..capacity.len() {
            if seen[taker] || !can(item, taker) {
                continue;
            }
            seen[taker] = true;
            if (held[taker].len() as u64) < capacity[taker] {
                held[taker].push(item);
                return true;
            }
            for nth in 0..held[taker].len() {
                if place(held[taker][nth], capacity, can, seen, held) {
                    held[taker][nth] = item;
                    return true;
                }
            }
        }
        false
    }
    let mut held = vec![Vec::new(); capacity.len()];
    (0..items)
        .map(|item| place(item, capacity, &can, &mut vec![false; capacity.len()], &mut held))
        .collect()
}

#[cfg(test)]
#[path = "audit_tests.rs"]
mod tests;
