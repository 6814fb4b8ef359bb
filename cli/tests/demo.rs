//! The demonstration, run as its users run it.

use nix::sys::signal::{SigHandler, signal};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use serde_json::Value;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(60);

fn slipring(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_slipring"));
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// The segments of the demonstration that this process runs, or ran.
fn segments(demo: u32) -> Vec<String> {
    let ours = format!("slipring-demo-{demo}-");
    let names = std::fs::read_dir("/dev/shm").unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.starts_with(&ours)).collect()
}

/// Runs it to its end; what it printed, if all went well.
fn demo(arguments: &[&str]) -> String {
    let child = slipring(&[&["demo", "--quick"], arguments].concat()).spawn().unwrap();
    let pid = child.id();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(output.stderr.is_empty(), "no terminal, no progress bar: {output:?}");
    assert_eq!(segments(pid), [""; 0]);
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn everything_arrives_once_and_in_order() {
    let report: Value = serde_json::from_str(&demo(&["--json"])).unwrap();
    assert_eq!(report["ok"], true);
    for part in [&report, &report["queue"]["tally"], &report["kill"]["tally"]] {
        for wrong in ["lost", "duplicated", "reordered"] {
            assert_eq!(part[wrong], 0, "{wrong}: {part}");
        }
        assert_eq!(part["sent"], part["received"]);
    }
    assert_eq!(report["queue"]["tally"]["sent"], 20_000);
    assert!(report["pipe"]["message"].as_str().unwrap().contains("hello"));
    assert_eq!(report["shared_memory"]["value"], 5);
    assert_eq!(report["shared_memory"]["array"][9], 18);
}

#[test]
fn the_killed_are_recovered_by_the_others() {
    let arguments = ["--json", "--producers", "2", "--consumers", "4", "--messages", "30000"];
    let report: Value = serde_json::from_str(&demo(&arguments)).unwrap();
    let kill = &report["kill"];
    assert_eq!(kill["participants_recovered"], 2);
    assert_eq!((&kill["abandoned"], &kill["redelivered"]), (&1.into(), &1.into()));
    // The first producer died with its message 7500, half of its share.
    assert_eq!(kill["tally"]["sent"], 30_000 - 7_500);
    let deaths = kill["deaths"].as_array().unwrap();
    let roles: Vec<&str> = deaths.iter().map(|death| death["role"].as_str().unwrap()).collect();
    assert_eq!(roles, ["consumer", "producer"]);
    for death in deaths {
        // Dead it held the others up for a slice or two, alive for as long as
        // it took.
        assert!(death["stood_still_ms"].as_f64().unwrap() >= 50.0, "{death}");
        assert!(death["others_went_on_after_ms"].as_f64().unwrap() < 5_000.0, "{death}");
    }
}

#[test]
fn the_table_has_every_transport() {
    let report: Value = serde_json::from_str(&demo(&["--json", "--seconds", "0.002"])).unwrap();
    let rows = report["table"]["rows"].as_array().unwrap();
    for bytes in [8, 64] {
        let rows: Vec<&Value> = rows.iter().filter(|row| row["bytes"] == bytes).collect();
        let names: Vec<&str> = rows.iter().map(|row| row["transport"].as_str().unwrap()).collect();
        let expected =
            ["slipring pipe", "slipring pipe of bytes", "slipring queue", "OS pipe", "Unix socket"];
        assert_eq!(names, expected);
        for row in rows {
            assert!(row["messages_per_second"].as_u64().unwrap() > 0, "{row}");
            let percentile = |p| row[p].as_u64().unwrap();
            let (p50, p99) = (percentile("round_trip_p50_ns"), percentile("round_trip_p99_ns"));
            assert!(0 < p50 && p50 <= p99, "{row}");
        }
    }
}

#[test]
fn the_text_has_the_promised_lines() {
    let text = demo(&[]);
    let lines: Vec<&str> = text.lines().collect();
    for line in ["Value: 5", "Array: [0, 2, 4, 6, 8, 10, 12, 14, 16, 18]"] {
        assert!(lines.contains(&line), "{line:?} is not in:\n{text}");
    }
    assert!(lines.iter().any(|line| line.starts_with("Received message: ")), "{text}");
    assert!(!text.contains('\u{1b}'), "no terminal, no colours:\n{text}");
}

#[test]
fn few_messages_and_many_processes() {
    demo(&["--messages", "1", "--producers", "8", "--consumers", "8", "--round-trips", "1"]);
    demo(&["--messages", "3", "--producers", "1", "--consumers", "1"]);
}

#[test]
fn nonsense_is_refused() {
    for arguments in [
        &["frobnicate"][..],
        &[],
        &["demo", "--producers", "0"],
        &["demo", "--seconds", "forever"],
        &["demo", "--seconds", "NaN"],
        &["demo", "--pin", "1"],
        &["inspect"],
        &["unlink"],
    ] {
        let output = slipring(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {output:?}");
        assert!(output.stdout.is_empty(), "{arguments:?}: {output:?}");
    }
}

#[test]
fn everything_has_help() {
    for arguments in [
        &["--help"][..],
        &["demo", "--help"],
        &["torture", "--help"],
        &["bench", "--help"],
        &["list", "--help"],
        &["inspect", "--help"],
        &["recover", "--help"],
        &["unlink", "--help"],
    ] {
        let output = slipring(arguments).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success() && text.contains("Usage"), "{arguments:?}: {text}");
        assert!(!text.contains("child"), "the hidden subcommand shows:\n{text}");
    }
}

/// A demonstration that is in the middle of its queue.
fn in_the_middle() -> Child {
    let mut command = slipring(&["demo", "--quick", "--messages", "1000000000"]);
    // What runs the tests may ignore Ctrl-C, as shells make background jobs do.
    let heed = || {
        // SAFETY: no handler, and nobody else's: the child has yet to start.
        unsafe { signal(nix::sys::signal::SIGINT, SigHandler::SigDfl)? };
        Ok(())
    };
    // SAFETY: `heed` makes one call, which is async-signal-safe.
    unsafe { command.pre_exec(heed) };
    let child = command.process_group(0).spawn().unwrap();
    let start = Instant::now();
    while !segments(child.id()).iter().any(|name| name.ends_with("-queue")) {
        assert!(start.elapsed() < PATIENCE, "the queue never came");
        std::thread::yield_now();
    }
    child
}

/// Nothing is left of it: no segment, and no process that holds its standard
/// error.
fn ends_clean(mut child: Child) {
    let status = child.wait().unwrap();
    assert!(!status.success());
    let start = Instant::now();
    child.stderr.take().unwrap().read_to_end(&mut Vec::new()).unwrap();
    while !segments(child.id()).is_empty() {
        assert!(start.elapsed() < PATIENCE, "left: {:?}", segments(child.id()));
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn ctrl_c_leaves_nothing_behind() {
    let child = in_the_middle();
    kill_process_group(Pid::from_child(&child), Signal::INT).unwrap();
    ends_clean(child);
}

#[test]
fn sigkill_leaves_nothing_behind() {
    let child = in_the_middle();
    kill_process(Pid::from_child(&child), Signal::KILL).unwrap();
    ends_clean(child);
}

#[test]
fn a_closed_output_is_an_error_and_leaves_nothing_behind() {
    let mut child = slipring(&["demo", "--quick"]).spawn().unwrap();
    drop(child.stdout.take());
    ends_clean(child);
}
