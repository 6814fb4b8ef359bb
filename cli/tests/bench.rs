//! The measurements, run as their users run them: what they say, never how
//! fast anything is.

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::io::Read;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(60);

fn bench(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_slipring"));
    command.arg("bench").args(arguments);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// The segments of the measurements that this process runs, or ran.
fn segments(pid: u32) -> Vec<String> {
    let ours = format!("slipring-bench-{pid}-");
    let names = std::fs::read_dir("/dev/shm").unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.starts_with(&ours)).collect()
}

/// Runs it to its end.
fn run(arguments: &[&str]) -> Output {
    let child = bench(arguments).spawn().unwrap();
    let pid = child.id();
    let output = child.wait_with_output().unwrap();
    assert_eq!(segments(pid), [""; 0]);
    output
}

/// What a very short run prints, if all goes well.
fn text(arguments: &[&str]) -> String {
    let output = run(&[&["--seconds", "0.002"], arguments].concat());
    assert!(output.status.success(), "{output:?}");
    assert!(output.stderr.is_empty(), "no terminal, no progress bar: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn json(arguments: &[&str]) -> Value {
    serde_json::from_str(&text(&[&["--json"], arguments].concat())).unwrap()
}

/// The rows of a table, of which there must be this many; with whatever every
/// row has.
fn rows<'a>(report: &'a Value, table: &str, count: usize) -> &'a [Value] {
    let rows = report[table].as_array().unwrap();
    assert_eq!(rows.len(), count, "{table}: {report}");
    for row in rows {
        assert!(positive(row, "bytes") && positive(row, "processes"), "{row}");
        assert!(positive(row, "floor_before") && positive(row, "floor_after"), "{row}");
        // It may be rounded to nothing, on a machine that stands still meanwhile.
        assert!(positive(row, "floor_ns") && number(row, "times_floor") >= 0.0, "{row}");
        let (before, after) = (number(row, "floor_before"), number(row, "floor_after"));
        let moved = (before - after).abs() / before.min(after);
        // Either, where rounding decides.
        if (moved - 0.2).abs() > 0.01 {
            assert_eq!(row["dropped"], moved > 0.2, "{row}");
        }
    }
    rows
}

fn number(row: &Value, field: &str) -> f64 {
    row[field].as_f64().unwrap_or_else(|| panic!("no number {field} in {row}"))
}

fn positive(row: &Value, field: &str) -> bool {
    number(row, field) > 0.0
}

/// That a row tells this figure in floors.
fn in_floors(row: &Value, figure: &str) {
    let (times, floors) = (number(row, "times_floor"), number(row, figure));
    let expected = floors / number(row, "floor_ns");
    // Both are rounded to thousandths, of a nanosecond, too.
    assert!((times - expected).abs() <= 0.01 + 0.01 * expected, "{figure}: {row}");
}

fn ordered(times: &Value) {
    assert!(positive(times, "count") && positive(times, "p50_ns"), "{times}");
    let percentiles = ["p50_ns", "p99_ns", "p999_ns", "max_ns"].map(|field| number(times, field));
    assert!(percentiles.is_sorted(), "{times}");
}

#[test]
fn round_trips_and_streams_of_every_way() {
    let arguments = ["--kind", "queue,pipe", "--kind", "bytes", "--size", "4096,8"];
    let report = json(&arguments);
    let trips = rows(&report, "round_trips", 3 * 2 * 2);
    for row in trips {
        ordered(row);
        in_floors(row, "p50_ns");
    }
    let streams = rows(&report, "streams", 3 * (2 * 2 + 1));
    for row in streams {
        for field in ["messages", "messages_per_second", "ns_per_message", "batch"] {
            assert!(positive(row, field), "{field}: {row}");
        }
        in_floors(row, "ns_per_message");
        assert_eq!(row["manner"] == "batched", number(row, "batch") > 1.0, "{row}");
        let volume = number(row, "messages_per_second") * number(row, "bytes") / 1e9;
        let told = number(row, "gb_per_second");
        assert!((volume - told).abs() < 0.01 * volume + 0.001, "{volume}: {row}");
    }
    for (way, row) in
        ["slipring pipe", "slipring pipe of bytes", "slipring queue"].iter().zip(trips)
    {
        assert_eq!((&row["way"], &row["manner"]), (&(*way).into(), &"polling".into()));
    }
    let in_place = streams.iter().filter(|row| row["manner"] == "in_place");
    assert!(in_place.map(|row| &row["bytes"]).eq([4096; 3].iter()));
    for table in ["mpmc", "values", "wakes"] {
        rows(&report, table, 0);
    }
}

#[test]
fn as_many_slots_as_were_asked_for() {
    let usual = json(&["--kind", "pipe", "--size", "8"]);
    let asked = json(&["--kind", "queue,pipe,bytes", "--size", "8", "--slots", "3"]);
    for (report, ways, trip, stream) in [(&usual, 1, 8, 1024), (&asked, 3, 3, 3)] {
        for (table, wanted) in [("round_trips", trip), ("streams", stream)] {
            for row in rows(report, table, 2 * ways) {
                assert_eq!(row["slots"], wanted, "{row}");
            }
        }
    }
}

#[test]
fn one_slot_of_any_size() {
    for size in ["8", "256", "65536"] {
        let report = json(&["--kind", "queue,pipe,bytes", "--size", size, "--slots", "1"]);
        rows(&report, "round_trips", 6);
    }
}

#[test]
fn every_size() {
    for size in ["48", "64", "256", "1024", "65536"] {
        let report =
            json(&["--kind", "queue,pipe,bytes,value,mpmc", "--size", size, "--crew", "1x1"]);
        for (table, count) in [("round_trips", 6), ("mpmc", 1), ("values", 4)] {
            for row in rows(&report, table, count) {
                assert_eq!(row["bytes"].to_string(), size, "{row}");
            }
        }
    }
}

#[test]
fn several_processes_share_the_messages() {
    let report = json(&["--kind", "mpmc", "--crew", "2x2", "--crew", "1x3,2x1"]);
    let rows = rows(&report, "mpmc", 3 * 2);
    let crews: Vec<_> = rows.iter().map(|r| [&r["producers"], &r["consumers"]]).collect();
    assert_eq!(crews[..3], [[2, 2], [1, 3], [2, 1]]);
    for row in rows {
        let received = row["received"].as_array().unwrap();
        assert_eq!(received.len() as f64, number(row, "consumers"));
        let sum: f64 = received.iter().map(|count| count.as_f64().unwrap()).sum();
        assert_eq!(sum, number(row, "messages"), "{row}");
        assert!(positive(row, "messages") && positive(row, "messages_per_second"), "{row}");
        let processes = number(row, "producers") + number(row, "consumers");
        assert_eq!(number(row, "processes"), processes);
    }
}

#[test]
fn values_alone_and_shared() {
    let report = json(&["--kind", "value"]);
    let rows = rows(&report, "values", 2 * 4);
    for (row, access) in
        rows.iter().zip(["load", "store", "load_while_stored", "store_while_loaded"].iter().cycle())
    {
        assert_eq!(row["access"], *access);
        assert!(positive(row, "operations") && positive(row, "ns_per_operation"), "{row}");
        in_floors(row, "ns_per_operation");
        let alone = !access.contains("while");
        assert_eq!(row["floor"], if alone { "memory" } else { "line" }, "{row}");
        assert_eq!(positive(row, "others"), !alone, "{row}");
        assert_eq!(number(row, "processes") == 1.0, alone, "{row}");
    }
}

#[test]
fn sleepers_are_woken() {
    let report = json(&["--kind", "wake"]);
    let rows = rows(&report, "wakes", 3);
    for (row, woken) in rows.iter().zip(["at_queue", "at_pipe", "nobody"]) {
        assert_eq!(row["woken"], woken);
        assert!(positive(row, "sends") && positive(row, "send_p50_ns"), "{row}");
        assert!(number(row, "send_p50_ns") <= number(row, "send_p99_ns"), "{row}");
        if woken == "nobody" {
            in_floors(row, "send_p50_ns");
            assert!(row["wake_up"].is_null() && row["floor"] == "slots", "{row}");
        } else {
            ordered(&row["wake_up"]);
            assert_eq!(number(row, "sends"), number(&row["wake_up"], "count"));
        }
    }
}

#[test]
fn the_machine_and_its_floors_stand_beside_the_figures() {
    let report = json(&["--kind", "wake"]);
    let machine = &report["machine"];
    for field in ["cpu", "kernel", "version"] {
        assert!(!machine[field].as_str().unwrap().is_empty(), "{machine}");
    }
    let cpus = machine["cpus"].as_array().unwrap();
    match &cpus[..] {
        [here, _, ..] => {
            let placed_on = machine["placed_on"].as_array().unwrap();
            assert!(placed_on[0] == *here && placed_on[1] != *here, "{machine}");
            assert!(cpus.contains(&placed_on[1]), "{machine}");
        }
        _ => assert!(cpus.len() == 1 && machine["placed_on"].is_null(), "{machine}"),
    }
    let warnings = report["warnings"].as_array().unwrap();
    let warned = warnings.iter().any(|text| text.as_str().unwrap().contains("debug build"));
    assert_eq!(warned, cfg!(debug_assertions), "{report}");
    assert_eq!(machine["debug_build"], cfg!(debug_assertions));

    let floors = report["floors"]["rows"].as_array().unwrap();
    let names = ["line", "copy", "futex"];
    assert!(floors.iter().map(|row| &row["floor"]).eq(names.iter()));
    for row in floors {
        // Before and after all.
        let values = row["values"].as_array().unwrap();
        assert!(values.len() >= 2 && values.iter().all(|v| v.as_f64() > Some(0.0)), "{row}");
        if row["unit"] == "ns" {
            ordered(&row["times"]);
        }
    }
    let dropped = |table: &Value| {
        table.as_array().unwrap().iter().filter(|row| row["dropped"] == true).count()
    };
    assert_eq!(report["dropped"], dropped(&report["wakes"]));
    assert_eq!(report["ok"], true);
}

#[test]
fn both_sides_can_be_kept_on_cpus() {
    let allowed = rustix::thread::sched_getaffinity(None).unwrap();
    let cpu = (0..).find(|&cpu| allowed.is_set(cpu)).unwrap();
    // The same one for both: two may not be there.
    let pair = format!("{cpu},{cpu}");
    let report = json(&["--kind", "mpmc,value", "--size", "8", "--crew", "1x1", "--pin", &pair]);
    assert_eq!(report["machine"]["placed_on"], serde_json::json!([cpu, cpu]));
    let warnings = report["warnings"].to_string();
    assert!(warnings.contains("one CPU"), "{warnings}");
    let report = json(&["--kind", "value", "--size", "8", "--pin", "none"]);
    assert!(report["machine"]["placed_on"].is_null(), "{report}");
}

#[test]
fn too_many_for_the_machine_are_warned_of() {
    let allowed = rustix::thread::sched_getaffinity(None).unwrap();
    let cpus: Vec<u32> = (0..).filter(|cpu| allowed.is_set(*cpu as usize)).take(2).collect();
    let [here, there] = cpus[..] else { return };
    let pin = format!("{here},{there}");
    let report = json(&["--kind", "mpmc", "--size", "8", "--crew", "2x1", "--pin", &pin]);
    let warnings = report["warnings"].to_string();
    assert!(warnings.contains("3 processes on 2 CPUs"), "{warnings}");
    assert_eq!(rows(&report, "mpmc", 1)[0]["cpus"], serde_json::json!([[here], [there]]));
}

#[test]
fn the_picture_is_drawn() {
    let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
        .join(format!("round-trips-{}.svg", std::process::id()));
    let arguments = ["--kind", "queue", "--size", "64,8", "--svg", file.to_str().unwrap()];
    let text = text(&arguments);
    let svg = std::fs::read_to_string(&file).unwrap();
    std::fs::remove_file(&file).unwrap();
    assert!(text.contains("Round trips drawn in"), "{text}");
    well_formed(&svg);
    for part in [
        "Round trips of 8 bytes",
        "slipring queue, polling",
        "slipring queue, blocking",
        "cache line",
    ] {
        assert!(svg.contains(part), "{part} is not in:\n{svg}");
    }
}

/// One root, each element closed, no stray markup in texts and attributes.
fn well_formed(svg: &str) {
    let (mut open, mut roots, mut rest) = (Vec::new(), 0, svg.trim());
    while let Some(start) = rest.find('<') {
        let (text, tag) = rest.split_at(start);
        assert!(open.is_empty() == text.trim().is_empty() || text.trim().is_empty(), "{text:?}");
        assert!(!text.contains('>'), "{text:?}");
        let end = tag.find('>').expect("a tag ends");
        let (tag, after) = (&tag[1..end], &tag[end + 1..]);
        assert!(!tag.contains('<') && tag.matches('"').count() % 2 == 0, "{tag:?}");
        rest = after;
        if tag.starts_with(['?', '!']) {
            continue;
        }
        let name = tag.trim_matches('/').split_whitespace().next().expect("a tag has a name");
        if tag.starts_with('/') {
            assert_eq!(open.pop(), Some(name));
        } else {
            roots += usize::from(open.is_empty());
            if !tag.ends_with('/') {
                open.push(name);
            }
        }
    }
    assert!(open.is_empty() && roots == 1 && rest.is_empty(), "{open:?}, {roots} roots, {rest:?}");
    assert!(svg.trim_start().starts_with("<svg"), "{svg}");
}

#[test]
fn the_text_has_a_table_for_each_part() {
    let text = text(&["--size", "8", "--crew", "1x1"]);
    let titles = ["Round trips", "Streams", "Queue between several", "Value", "Waking", "Floors"];
    for title in titles {
        let found = text.lines().filter(|line| line.starts_with(title)).count();
        assert_eq!(found, 1, "{title}:\n{text}");
    }
    assert!(!text.contains('\u{1b}'), "no terminal, no colours:\n{text}");
    assert!(text.lines().all(|line| line.chars().count() <= 120), "{text}");
}

#[test]
fn nonsense_is_refused() {
    for (arguments, why) in [
        (&["--kind", "socket"][..], "invalid value 'socket'"),
        (&["--size", "9"], "expected one of [8, 48"),
        (&["--size", "-8"], "'-8'"),
        (&["--crew", "0x1"], "expected two numbers from 1 to 64"),
        (&["--crew", "2"], "expected two numbers from 1 to 64"),
        (&["--seconds", "0"], "expected a number of seconds"),
        (&["--pin", "0"], "expected two numbers"),
        (&["--slots", "0"], "0 is not in 1..=1048576"),
    ] {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {output:?}");
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(stderr.contains(why) && output.stdout.is_empty(), "{arguments:?}: {stderr}");
    }
    for (arguments, why) in [
        (&["--pin", "0,100000"][..], "CPU 100000 is none of"),
        (&["--kind", "wake", "--size", "8"], "--size says nothing about wake"),
        (&["--kind", "queue", "--crew", "3x3"], "--crew is for mpmc"),
        (&["--kind", "mpmc", "--slots", "9"], "--slots is for the kinds queue, pipe and bytes"),
        (&["--kind", "value", "--svg", "/tmp/never.svg"], "--svg draws round trips"),
        (&["--kind", "queue", "--svg", "/nowhere/at/all.svg"], "/nowhere/at/all.svg"),
    ] {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {output:?}");
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(stderr.contains(why) && output.stdout.is_empty(), "{arguments:?}: {stderr}");
        let output = run(&[arguments, &["--json"]].concat());
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(report["ok"], false, "{report}");
        assert!(report["error"].as_str().unwrap().contains(why), "{report}");
    }
}

#[test]
fn killed_in_the_middle_it_leaves_nothing_behind() {
    let mut child = bench(&["--kind", "queue", "--size", "8", "--seconds", "60"]).spawn().unwrap();
    let start = Instant::now();
    // Its floor, and a figure.
    while segments(child.id()).len() < 2 {
        assert!(start.elapsed() < PATIENCE, "the first figure never came");
        std::thread::yield_now();
    }
    kill_process(Pid::from_child(&child), Signal::KILL).unwrap();
    assert!(!child.wait().unwrap().success());
    // No process holds its standard error any more.
    child.stderr.take().unwrap().read_to_end(&mut Vec::new()).unwrap();
    while !segments(child.id()).is_empty() {
        assert!(start.elapsed() < PATIENCE, "left: {:?}", segments(child.id()));
        std::thread::sleep(Duration::from_millis(1));
    }
}
