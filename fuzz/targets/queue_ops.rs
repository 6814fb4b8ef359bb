//! Sequences of operations on the MPMC ring, with simulated deaths, against a
//! `VecDeque`.

#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use slipring::Heap;
use slipring::ring::Owner;
use slipring::ring::mpmc::{
    Claim, ClaimedRun, Delivery, Geometry, NoClaim, NoTake, Ring, Taken, TakenRun,
};
use std::alloc::Layout;
use std::collections::VecDeque;

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Op {
    Send(u8),
    Recv(u8),
    Claim(u8),
    Commit(u8),
    Abandon(u8),
    Take(u8),
    Release(u8),
    Die(u8),
    /// As many as there are to the end of the group, up to so many.
    ClaimRun(u8, u8),
    CommitRun(u8),
    AbandonRun(u8),
    TakeRun(u8, u8),
    ReleaseRun(u8),
}

#[derive(Arbitrary, Debug)]
struct Input {
    capacity: u8,
    start: u64,
    at_least_once: bool,
    ops: Vec<Op>,
}

/// What a slot holds, by the oracle.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Entry {
    Writing(usize),
    Full(u64),
    Gone,
}

#[derive(Default)]
struct Party<'a> {
    claim: Option<(Claim<'a>, usize)>,
    taken: Option<(Taken<'a>, usize, u64)>,
    claimed_run: Option<(ClaimedRun<'a>, usize)>,
    taken_run: Option<(TakenRun<'a>, usize)>,
}

const PARTIES: usize = 4;

fn owner(party: usize) -> Owner {
    Owner::new(party as u16 + 1).unwrap()
}

fn read(taken: &Taken<'_>) -> u64 {
    // SAFETY: taken slots hold the u64 that was written before the commit.
    unsafe { taken.payload().cast::<u64>().read() }
}

fuzz_target!(|input: Input| {
    let capacity = usize::from(input.capacity % 40) + 1;
    let geometry = Geometry::new(capacity, Layout::new::<u64>()).unwrap();
    let heap = Heap::zeroed(geometry.len());
    // SAFETY: the block is this ring's alone.
    let ring = unsafe { Ring::init(heap.region(), geometry, input.start >> 12) };
    let delivery = if input.at_least_once { Delivery::AtLeastOnce } else { Delivery::AtMostOnce };

    let mut parties: [Party<'_>; PARTIES] = Default::default();
    // Positions ever claimed, oldest first, with the number of the first.
    let mut log: Vec<Entry> = Vec::new();
    // The next position to take.
    let mut head = 0;
    // Positions whose slots are still held by readers.
    let mut held: Vec<usize> = Vec::new();
    let mut orphans: VecDeque<(usize, u64)> = VecDeque::new();
    let mut next = 0u64;

    for op in input.ops {
        match op {
            Op::Send(p) | Op::Claim(p) => {
                let p = usize::from(p) % PARTIES;
                if parties[p].claim.is_some() {
                    continue;
                }
                // Poison at the frontier is freed by the claimant.
                let oldest = log.len().checked_sub(capacity);
                let free = match oldest {
                    None => true,
                    Some(at) if held.contains(&at) => false,
                    Some(at) if orphans.iter().any(|(o, _)| *o == at) => false,
                    Some(at) => at < head || log[at] == Entry::Gone,
                };
                match ring.try_claim(owner(p)) {
                    Ok(claim) => {
                        assert!(free, "claimed a slot in use");
                        if let Some(at) = oldest
                            && at >= head
                        {
                            head = at + 1;
                        }
                        // SAFETY: the claim is exclusive and sized for a u64.
                        unsafe { claim.payload().cast::<u64>().write(next) };
                        let at = log.len();
                        if matches!(op, Op::Send(_)) {
                            ring.commit(claim);
                            log.push(Entry::Full(next));
                        } else {
                            log.push(Entry::Writing(p));
                            parties[p].claim = Some((claim, at));
                        }
                        next += 1;
                    }
                    Err(NoClaim::Full(_)) => assert!(!free, "refused with a free slot"),
                    Err(NoClaim::Corrupt(error)) => panic!("{error}"),
                }
            }
            Op::Commit(p) => {
                let p = usize::from(p) % PARTIES;
                if let Some((claim, at)) = parties[p].claim.take() {
                    // SAFETY: as above.
                    let value = unsafe { claim.payload().cast::<u64>().read() };
                    ring.commit(claim);
                    log[at] = Entry::Full(value);
                }
            }
            Op::Abandon(p) => {
                let p = usize::from(p) % PARTIES;
                if let Some((claim, at)) = parties[p].claim.take() {
                    ring.abandon(claim);
                    log[at] = Entry::Gone;
                }
            }
            Op::Recv(p) | Op::Take(p) => {
                let p = usize::from(p) % PARTIES;
                if parties[p].taken.is_some() {
                    continue;
                }
                let adopted = if orphans.is_empty() { None } else { ring.try_adopt(owner(p)) };
                let (taken, at) = match adopted {
                    Some(taken) => {
                        assert!(taken.redelivered());
                        let value = read(&taken);
                        let i = orphans.iter().position(|(_, v)| *v == value).unwrap();
                        let (at, _) = orphans.remove(i).unwrap();
                        (taken, at)
                    }
                    None => {
                        assert!(orphans.is_empty(), "an orphan was not found");
                        match ring.try_take(owner(p)) {
                            Ok(taken) => {
                                assert_eq!(log[head], Entry::Full(read(&taken)));
                                head += 1;
                                (taken, head - 1)
                            }
                            Err(NoTake::Skipped) => {
                                assert_eq!(log[head], Entry::Gone);
                                head += 1;
                                continue;
                            }
                            Err(NoTake::Pending(who)) => {
                                let Entry::Writing(p) = log[head] else { panic!("pending") };
                                assert_eq!(who, owner(p));
                                continue;
                            }
                            Err(NoTake::Empty(_)) => {
                                assert_eq!(head, log.len());
                                continue;
                            }
                            Err(NoTake::Corrupt(error)) => panic!("{error}"),
                        }
                    }
                };
                if matches!(op, Op::Recv(_)) {
                    ring.release(taken);
                } else {
                    let value = read(&taken);
                    held.push(at);
                    parties[p].taken = Some((taken, at, value));
                }
            }
            Op::Release(p) => {
                let p = usize::from(p) % PARTIES;
                if let Some((taken, at, value)) = parties[p].taken.take() {
                    assert_eq!(read(&taken), value, "changed while it was held");
                    ring.release(taken);
                    held.retain(|h| *h != at);
                }
            }
            Op::Die(p) => {
                let p = usize::from(p) % PARTIES;
                let dead = std::mem::take(&mut parties[p]);
                if let Some((_, at)) = dead.claim {
                    log[at] = Entry::Gone;
                }
                if let Some((run, at)) = dead.claimed_run {
                    log[at..at + run.len()].fill(Entry::Gone);
                }
                if let Some((run, at)) = dead.taken_run {
                    for at in at..at + run.len() {
                        held.retain(|h| *h != at);
                        let Entry::Full(value) = log[at] else { panic!("taken") };
                        if input.at_least_once {
                            orphans.push_back((at, value));
                        }
                    }
                }
                if let Some((_, at, value)) = dead.taken {
                    held.retain(|h| *h != at);
                    if input.at_least_once {
                        orphans.push_back((at, value));
                    }
                }
                ring.recover(owner(p), delivery);
            }
            Op::ClaimRun(p, most) => {
                let p = usize::from(p) % PARTIES;
                if parties[p].claimed_run.is_some() {
                    continue;
                }
                if let Some(run) = ring.claim_run(owner(p), most.into()) {
                    let at = log.len();
                    assert!((2..=usize::from(most)).contains(&run.len()));
                    for oldest in (at..at + run.len()).filter_map(|at| at.checked_sub(capacity)) {
                        let in_use = held.contains(&oldest)
                            || orphans.iter().any(|(o, _)| *o == oldest)
                            || oldest >= head;
                        assert!(!in_use, "claimed a slot in use");
                    }
                    log.extend((0..run.len()).map(|_| Entry::Writing(p)));
                    parties[p].claimed_run = Some((run, at));
                }
            }
            Op::CommitRun(p) => {
                let p = usize::from(p) % PARTIES;
                if let Some((run, at)) = parties[p].claimed_run.take() {
                    ring.commit_run(run, |nth, to| {
                        // SAFETY: the run's slots are exclusive and sized for a u64.
                        unsafe { to.cast::<u64>().write(next) };
                        log[at + nth] = Entry::Full(next);
                        next += 1;
                    });
                }
            }
            Op::AbandonRun(p) => {
                let p = usize::from(p) % PARTIES;
                if let Some((run, at)) = parties[p].claimed_run.take() {
                    log[at..at + run.len()].fill(Entry::Gone);
                    ring.abandon_run(run);
                }
            }
            Op::TakeRun(p, most) => {
                let p = usize::from(p) % PARTIES;
                if parties[p].taken_run.is_some() {
                    continue;
                }
                if let Some(run) = ring.take_run(owner(p), most.into()) {
                    assert!((2..=usize::from(most)).contains(&run.len()));
                    let all = head..head + run.len();
                    assert!(log[all.clone()].iter().all(|e| matches!(e, Entry::Full(_))));
                    held.extend(all);
                    parties[p].taken_run = Some((run, head));
                    head += parties[p].taken_run.as_ref().map_or(0, |(run, _)| run.len());
                }
            }
            Op::ReleaseRun(p) => {
                let p = usize::from(p) % PARTIES;
                if let Some((run, at)) = parties[p].taken_run.take() {
                    held.retain(|h| !(at..at + run.len()).contains(h));
                    ring.release_run(run, |nth, from| {
                        // SAFETY: taken slots hold the u64 that was written before the commit.
                        let value = unsafe { from.cast::<u64>().read() };
                        assert_eq!(log[at + nth], Entry::Full(value));
                    });
                }
            }
        }
    }
});
