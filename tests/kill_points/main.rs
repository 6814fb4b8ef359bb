//! Processes that kill or stop themselves right after a store that others can
//! see: after each of them, in each operation of each object.
//!
//! Needs the compiler's flag `--cfg slipring_points`, without which there is
//! nothing here (see `src/os/points.rs` for the points, `.ci/run points` for
//! the command).
//!
//! A *scenario* has a victim, a child process, and a survivor, this one. In a
//! first run the victim does its work undisturbed and writes down which points
//! it passed. Then it dies, in one run each, at the nth firing of each of them.
//! Since the order of the stores is known, so is what the survivor must find:
//! as many messages as there were commits, and not one more or less.

#![cfg(slipring_points)]

#[path = "../support/mod.rs"]
mod support;

mod pipe;
mod queue;
mod segment;
mod stage;
mod stop;
mod views;

use stage::{Choice, Ledger, Scenario, Stage};
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

#[test]
#[ignore = "a role of the other test"]
fn child() {
    let Some((role, words)) = support::role() else { return };
    let victims = [queue::VICTIMS, pipe::VICTIMS, views::VICTIMS, segment::VICTIMS, stop::VICTIMS];
    let victim = victims.iter().copied().flatten().find(|(name, _)| *name == role);
    stage::choose(&words);
    victim.unwrap_or_else(|| panic!("unknown role {role}")).1(&words[0]);
}

/// Runs at once: most of their time the survivors wait for a slice to pass.
const WORKERS: usize = 4;

/// Runs every job, some at a time; returns what went wrong.
fn run(jobs: &[(&Scenario, Option<Choice>)], ledger: &Ledger, workers: usize) -> Vec<String> {
    let (next, failures) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while let Some((scenario, choice)) = jobs.get(next.fetch_add(1, Ordering::Relaxed))
                {
                    let stage = Stage::new(scenario, choice.clone(), ledger);
                    let done = catch_unwind(AssertUnwindSafe(|| {
                        (scenario.run)(&stage);
                        while choice.is_none() && ledger.forget_disturbed(scenario) {
                            (scenario.run)(&Stage::new(scenario, None, ledger));
                        }
                    }));
                    if done.is_err() {
                        failures.lock().unwrap().push(stage.to_string());
                    }
                }
            });
        }
    });
    failures.into_inner().unwrap()
}

/// The points that the source has.
fn points_in_source() -> BTreeSet<String> {
    fn walk(directory: &std::path::Path, found: &mut Vec<String>) {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else {
                let text = std::fs::read_to_string(&path).unwrap();
                let calls = text.split("point(\"").skip(1);
                found.extend(calls.map(|call| call.split('"').next().unwrap().to_owned()));
            }
        }
    }
    let mut found = Vec::new();
    walk(&std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut found);
    let names: BTreeSet<String> = found.iter().cloned().collect();
    assert_eq!(names.len(), found.len(), "two points have one name");
    assert!(names.len() > 50, "the source was not found");
    names
}

#[test]
fn at_every_point() {
    let scenarios: Vec<Scenario> = [
        queue::scenarios(),
        pipe::scenarios(),
        views::scenarios(),
        segment::scenarios(),
        stop::scenarios(),
    ]
    .into_iter()
    .flatten()
    .filter(|scenario| {
        std::env::var("SLIPRING_SCENARIO").map_or(true, |only| scenario.name.contains(&only))
    })
    .collect();
    let ledger = Ledger::default();
    let mut failures = Vec::new();
    // What sweeps up after others wants nobody else's sweeping beside it.
    for alone in [false, true] {
        let chosen = || scenarios.iter().filter(|scenario| scenario.alone == alone);
        let workers = if alone { 1 } else { WORKERS };
        let first: Vec<_> = chosen().map(|scenario| (scenario, None)).collect();
        failures.extend(run(&first, &ledger, workers));
        let jobs: Vec<_> = chosen()
            .flat_map(|scenario| {
                ledger.choices(scenario).into_iter().map(move |choice| (scenario, Some(choice)))
            })
            .collect();
        failures.extend(run(&jobs, &ledger, workers));
    }
    let points = points_in_source();
    let fired = ledger.fired();
    let silent: Vec<_> = points.iter().filter(|point| !fired.contains(*point)).collect();
    println!(
        "points: {}, fired: {}, kills: {}, stops: {}; longest wait of a survivor {:?}",
        points.len(),
        points.len() - silent.len(),
        ledger.count(libc::SIGKILL),
        ledger.count(libc::SIGSTOP),
        ledger.longest(),
    );
    assert!(failures.is_empty(), "{} runs failed:\n{}", failures.len(), failures.join("\n"));
    if std::env::var("SLIPRING_SCENARIO").is_err() {
        assert!(silent.is_empty(), "never fired: {silent:?}");
    }
}
