//! The torture, run as its users run it: short, and with a number of kills, not
//! of seconds.

use serde_json::Value;
use std::process::{Command, Output, Stdio};

/// Runs it; nothing of it is left in shared memory, whatever came of it.
fn torture(arguments: &[&str]) -> (Output, Value) {
    let child = Command::new(env!("CARGO_BIN_EXE_slipring"))
        .args(["torture", "--json"])
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let ours = format!("slipring-torture-{}-", child.id());
    let output = child.wait_with_output().unwrap();
    let names = std::fs::read_dir("/dev/shm").unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let left: Vec<String> = names.filter(|name| name.starts_with(&ours)).collect();
    assert!(left.is_empty(), "{left:?}");
    let report = serde_json::from_slice(&output.stdout).unwrap_or_default();
    (output, report)
}

/// It survives.
fn survives(arguments: &[&str]) -> Value {
    let (output, report) = torture(arguments);
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    assert!(output.stderr.is_empty(), "no terminal, no progress bar: {output:?}");
    assert_eq!(report["ok"], true);
    assert_eq!(report["violations"].as_array().unwrap().len(), 0);
    for wrong in ["missing", "duplicates", "reorderings", "torn", "forged", "not_redelivered"] {
        assert_eq!(report[wrong], 0, "{wrong}: {report}");
    }
    assert!(report["kills"].as_u64().unwrap() >= 60, "{report}");
    assert!(report["received"].as_u64().unwrap() > 0, "{report}");
    report
}

#[test]
fn a_queue_survives() {
    let report = survives(&["--kills", "120", "--seed", "7"]);
    let number = |field: &str| report[field].as_u64().unwrap();
    assert_eq!(number("of_producers") + number("of_consumers"), number("kills"));
    assert!(2 * number("inside_an_operation") >= number("kills"), "{report}");
    assert_eq!(number("recoveries"), number("attached"));
    assert!(number("recovering") <= number("kills"));
    assert!(number("led") > 0 || report["traced"] == false, "{report}");
    assert_eq!(report["queue"]["sent"], report["queue"]["received"]);
    assert_eq!(report["stall"]["counted"], report["kills"]);
    for times in ["stall", "scheduling_delay"] {
        for field in ["p50_ms", "p99_ms", "max_ms"] {
            assert!(report[times][field].is_number(), "{times} {field}: {report}");
        }
    }
    assert_eq!(report["seed"], 7);
    assert!(report["again"].as_str().unwrap().ends_with("--kills 120 --seed 7"), "{report}");
}

#[test]
fn a_queue_that_delivers_again_survives() {
    let report = survives(&["--kills", "120", "--delivery", "at-least-once"]);
    assert_eq!(report["queue"]["lost"], 0);
    assert_eq!(report["shape"]["delivery"], "at-least-once");
}

#[test]
fn one_slot_survives() {
    survives(&["--kills", "60", "--slots", "1"]);
    survives(&["--kills", "60", "--slots", "1", "--delivery", "at-least-once"]);
}

#[test]
fn sleepers_survive() {
    survives(&["--kills", "60", "--sleep", "consumers"]);
    survives(&["--kills", "60", "--sleep", "producers", "--delivery", "at-least-once"]);
}

#[test]
fn messages_of_bytes_survive() {
    survives(&["--kills", "60", "--bytes", "300", "--slots", "7"]);
}

#[test]
fn a_pipe_survives() {
    let report = survives(&["--kills", "60", "--kind", "pipe"]);
    assert_eq!(report["queue"], Value::Null);
    survives(&["--kills", "60", "--kind", "pipe", "--bytes", "200"]);
    // In pieces.
    survives(&["--kills", "60", "--kind", "pipe", "--bytes", "200", "--slots", "1"]);
}

#[test]
fn many_processes_survive_without_being_led() {
    let arguments = ["--producers", "5", "--consumers", "4", "--step-share", "0"];
    let report = survives(&[&arguments[..], &["--kills", "100", "--stop-share", "0.3"]].concat());
    assert_eq!(report["led"], 0);
    assert!(report["stops"].as_u64().unwrap() > 0);
}

/// It finds what is wrong, and says how to do it again.
fn is_caught(sabotage: &str, field: &str, arguments: &[&str]) {
    let always = ["--kills", "80", "--sabotage", sabotage, "--patience", "3", "--seed", "11"];
    let (output, report) = torture(&[&always[..], arguments].concat());
    assert_eq!(output.status.code(), Some(1), "{sabotage}: {output:?}");
    assert_eq!(report["ok"], false);
    if !field.is_empty() {
        assert!(report[field].as_u64().unwrap() > 0, "{sabotage}: {report}");
    }
    let first = report["violations"][0].as_str().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains(first), "{error}");
    assert!(error.contains("To repeat it: slipring torture --kind "), "{error}");
    assert!(error.contains("--seed 11"), "{error}");
}

#[test]
fn a_broken_queue_is_caught() {
    is_caught("lose", "missing", &[]);
    is_caught("double", "duplicates", &[]);
    is_caught("tear", "torn", &[]);
    is_caught("forge", "forged", &[]);
    is_caught("swallow", "missing", &[]);
    is_caught("swap", "reorderings", &["--consumers", "1"]);
}

#[test]
fn a_broken_queue_that_delivers_again_is_caught() {
    for (sabotage, field) in [("lose", "missing"), ("double", "duplicates")] {
        is_caught(sabotage, field, &["--delivery", "at-least-once"]);
    }
}

#[test]
fn a_broken_pipe_is_caught() {
    for (sabotage, field) in
        [("lose", "missing"), ("double", "duplicates"), ("swap", "reorderings")]
    {
        is_caught(sabotage, field, &["--kind", "pipe"]);
    }
}

#[test]
fn dead_processes_that_keep_their_leases_are_noticed() {
    is_caught("undead", "", &[]);
}

#[test]
fn nonsense_is_refused() {
    for arguments in [
        &["--kills", "0"][..],
        &["--seconds", "forever"],
        &["--kills-per-second", "0"],
        &["--stop-share", "1.5"],
        &["--bytes", "39"],
        &["--kind", "stack"],
    ] {
        let (output, _) = torture(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {output:?}");
    }
    let (output, _) = torture(&["--kind", "pipe", "--consumers", "2"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
}
