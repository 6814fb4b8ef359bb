//! Every interleaving of the owned-slot ring's protocol, with deaths.
//!
//! This is a model of the protocol, not the shipped code: states, and steps
//! between them, one for each access to shared memory, with a death possible
//! before each. It shares nothing with the library, so that a mistake there is
//! not repeated here; `conformance.rs` runs both and compares. (Loom runs the
//! shipped code, for its orderings; here all memory is sequentially consistent.)
//!
//! A process has threads and a number, which it holds by a lock that its death
//! releases; a *joiner* waits for a number whose lock is free. What others see
//! of its death is the lock, nothing else. A stopped process is one that is not
//! scheduled: nothing else needs to be modelled for it, and its late stores come
//! by themselves.
//!
//! Slots come in groups, for runs of them, as many to a group as in the shipped ring, or
//! more: there a ring of up to four slots has runs of two at most, and a model of runs of
//! three needs no more than one group.
//!
//! What must hold in every state, and which [`Violation`] says that it does not:
//!
//! | promise | violations |
//! |---------|------------|
//! | no word of a living owner is moved by another, none of its run either | `MovedFromTheLiving`, `MovedInsideARun`, `NamesTheWrongOne` |
//! | numbers are held, entries marked, words of a free entry gone | `LivingWithoutLease`, `LivingWithoutEntry`, `FreeEntryNamed` |
//! | H <= T <= H + capacity, each slot in the lap that they say | `OrderOfSlots` |
//! | nothing reordered | `ClaimedOutOfOrder`, `ResolvedOutOfOrder` |
//! | hints never lead | `TailHintLeads`, `HeadHintLeads`, `HintAtTheWrongLap` |
//! | nothing torn | `Torn`, `ChangedWhileRead` |
//! | nothing duplicated | `DeliveredTwice` |
//! | every operation ends, if nobody else moves | `NeverEnds` |
//! | nothing lost, though all but one consumer stop for ever | `NeverDelivered` |
//! | nothing jammed, though all but one consumer stop for ever | `NeverDrained`, `NeverSends` |
//!
//! The protocol must pass, and the exploration must have come to where it
//! matters (`coverage.rs`). Each [`Mutant`](mutants::Mutant) breaks the protocol
//! in one place and must be caught; every violation catches one.
//!
//! ```text
//! cargo test --test model                                         # small
//! cargo test --release --test model -- --nocapture                # medium
//! cargo test --release --test model -- --ignored --nocapture      # over 10^7 states
//! ```

mod conformance;
mod coverage;
mod explore;
mod invariants;
mod mutants;
mod protocol;
mod recovery;
mod run;
mod scenarios;
mod walk;
mod world;

use conformance::Mirror;
use coverage::Coverage;
use explore::{explore, trace};
use mutants::CAUGHT;
use protocol::{Model, Violation};
use scenarios::{LARGE, MEDIUM, SMALL, Scenario};
use std::time::Instant;

/// Explores all states of the scenarios; how many there were.
fn check(scenarios: &[Scenario], coverage: &mut Coverage) -> usize {
    let mut total = 0;
    for scenario in scenarios {
        let begin = Instant::now();
        let model = Model::new(*scenario, None);
        let outcome = explore(&model, |_| ());
        if let Some(flaw) = outcome.flaw {
            panic!("{}:\n{}", scenario.name, trace(&model, &flaw));
        }
        println!(
            "{:>9} states, {:>3} steps deep, {:6.2} s: {}",
            outcome.states,
            outcome.depth,
            begin.elapsed().as_secs_f64(),
            scenario.name
        );
        coverage.add(outcome.coverage);
        total += outcome.states;
    }
    println!("{total:>9} states, no violation");
    total
}

#[test]
fn the_protocol_keeps_its_promises() {
    let mut coverage = Coverage::default();
    check(SMALL, &mut coverage);
    let missing = coverage.missing();
    assert!(missing.is_empty(), "never came up: {missing:?}");
    if !cfg!(debug_assertions) {
        check(MEDIUM, &mut coverage);
    }
}

#[test]
#[ignore = "for release builds"]
fn the_protocol_keeps_its_promises_in_ten_million_states() {
    let total = check(LARGE, &mut Coverage::default());
    assert!(total >= 10_000_000);
}

#[test]
fn the_shipped_ring_does_what_the_model_says() {
    let medium = if cfg!(debug_assertions) { &[] } else { MEDIUM };
    for scenario in SMALL.iter().chain(medium).filter(|scenario| scenario.is_shipped()) {
        let model = Model::new(*scenario, None);
        let mut mirror = Mirror::new(&model);
        explore(&model, |world| mirror.compare(&model, world));
        println!("{:>9} operations compared: {}", mirror.compared, scenario.name);
        assert!(mirror.compared > 0);
    }
}

#[test]
fn every_mutant_is_caught() {
    let mut caught = vec![];
    for (mutant, scenario, expected) in CAUGHT {
        let model = Model::new(scenario, Some(mutant));
        let Some(flaw) = explore(&model, |_| ()).flaw else {
            panic!("missed: {mutant:?} ({})", scenario.name);
        };
        let (violation, steps) = (flaw.violation, flaw.way.len());
        println!("caught {mutant:?}: {violation:?} after {steps} steps ({})", scenario.name);
        assert_eq!(violation, expected, "{mutant:?}:\n{}", trace(&model, &flaw));
        caught.push(violation);
    }
    let idle: Vec<_> = Violation::ALL.iter().filter(|v| !caught.contains(v)).collect();
    assert!(idle.is_empty(), "catches nothing: {idle:?}");
}
