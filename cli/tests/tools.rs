//! The tools, on segments that the tests make.

use serde_json::{Value, json};
use slipring::{Error, Queue, Segment, Unlink};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A segment's name, removed in the end. One at a time: `list` attaches to the
/// segments of all tests.
struct Name(String, #[allow(dead_code, reason = "held")] MutexGuard<'static, ()>);

impl Name {
    fn new(test: &str) -> Name {
        static ALONE: Mutex<()> = Mutex::new(());
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        Name(format!("slipring-cli-test-{}-{test}", std::process::id()), alone)
    }

    fn exists(&self) -> bool {
        Path::new("/dev/shm").join(&self.0).exists()
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(Path::new("/dev/shm").join(&self.0));
    }
}

fn slipring(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_slipring")).args(arguments).output().unwrap()
}

fn text(arguments: &[&str]) -> String {
    let output = slipring(arguments);
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn document(arguments: &[&str]) -> Value {
    serde_json::from_str(&text(&[arguments, &["--json"]].concat())).unwrap()
}

fn error(arguments: &[&str]) -> String {
    let output = slipring(arguments);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    String::from_utf8(output.stderr).unwrap()
}

/// What `list` says about a segment.
fn listed(name: &Name) -> Option<Value> {
    let list = document(&["list"]);
    let segments = list["segments"].as_array().unwrap();
    segments.iter().find(|segment| segment["name"] == *name.0).cloned()
}

#[test]
fn a_segment_in_use() {
    let name = Name::new("use");
    let segment = Segment::builder(&name.0)
        .bytes_queue("orders", 7, 100)
        .value::<f64>("price")
        .participants(5)
        .label("the test")
        .create()
        .unwrap();
    let mut tx = segment.bytes_queue("orders").unwrap().sender().unwrap();
    tx.send(b"one").unwrap();

    let entry = listed(&name).unwrap();
    assert_eq!((&entry["state"], &entry["alive"]), (&"in_use".into(), &1.into()));
    assert_eq!((&entry["dead"], &entry["bytes"]), (&0.into(), &segment.len().into()));
    assert_eq!(entry["objects"][1], json!({ "name": "price", "kind": "value" }));
    assert!(text(&["list"]).contains(&name.0));

    let view = document(&["inspect", &name.0]);
    assert_eq!((&view["unlink"], &view["max_participants"]), (&"last out".into(), &5.into()));
    let orders = &view["objects"][0];
    assert_eq!((&orders["kind"], &orders["capacity"]), (&"queue".into(), &7.into()));
    let queue = &orders["queue"];
    assert_eq!((&queue["len"], &queue["senders"]), (&1.into(), &1.into()));
    assert_eq!((&queue["sent"], &queue["max_len"]), (&1.into(), &100.into()));
    assert_eq!(view["objects"][1]["element_bytes"], 8);
    let [participant] = view["participants"].as_array().unwrap().as_slice() else {
        panic!("{view}")
    };
    assert_eq!(participant["pid"], std::process::id());
    assert_eq!(participant["label"], "the test");
    assert_eq!(participant["roles"], json!(["orders: sender"]));
    let view = text(&["inspect", &name.0]);
    assert!(view.contains("queue orders: 7") && view.contains("(the test), alive"), "{view}");

    // Looking changed nothing.
    assert!(name.exists());
    assert_eq!(segment.participants().unwrap().len(), 1);
    text(&["unlink", &name.0]);
    assert!(!name.exists());
    assert!(listed(&name).is_none());
    tx.send(b"two").unwrap();
}

#[test]
fn a_stale_segment_that_stays() {
    let name = Name::new("stale");
    let builder = Segment::builder(&name.0).value::<u8>("value").unlink(Unlink::Persist);
    drop(builder.create().unwrap());

    assert_eq!(listed(&name).unwrap()["state"], "stale");
    assert!(error(&["inspect", &name.0]).contains("--recover"));
    let view = document(&["inspect", "--recover", &name.0]);
    assert_eq!((&view["unlink"], &view["participants"]), (&"persist".into(), &json!([])));
    let report = document(&["recover", &name.0]);
    assert_eq!(report, json!({ "name": name.0, "recovered": null, "exists": true }));
    text(&["unlink", &name.0]);
    assert!(!name.exists());
}

/// What the child of the next test is.
#[test]
#[ignore = "a role of another test"]
fn attached() {
    let Ok(name) = std::env::var("SLIPRING_TEST_SEGMENT") else { return };
    let _sender = Queue::<u64>::open(&name).unwrap().sender().unwrap();
    println!("@attached");
    let _ = std::io::stdin().read_line(&mut String::new());
}

/// A process that is attached to the segment.
fn attach(name: &Name) -> Child {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "attached", "--ignored", "--nocapture"])
        .env("SLIPRING_TEST_SEGMENT", &name.0)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("@attached")));
    child
}

fn kill(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn the_dead_are_shown_and_recovered() {
    let name = Name::new("dead");
    let queue = Queue::<u64>::create(&name.0, 4).unwrap();
    kill(attach(&name));
    let entry = listed(&name).unwrap();
    assert_eq!((&entry["alive"], &entry["dead"]), (&1.into(), &1.into()));
    let view = document(&["inspect", &name.0]);
    let alive: Vec<&Value> =
        view["participants"].as_array().unwrap().iter().map(|p| &p["alive"]).collect();
    assert_eq!(alive, [&json!(true), &json!(false)]);
    assert_eq!(queue.senders(), 1);

    assert_eq!(document(&["recover", &name.0])["recovered"], 1);
    assert_eq!(queue.senders(), 0);
    let entry = listed(&name).unwrap();
    assert_eq!((&entry["alive"], &entry["dead"]), (&1.into(), &0.into()));
    assert!(text(&["recover", &name.0]).contains("0 dead participants"));

    // Once only the dead are left, recovery is the end.
    let last = attach(&name);
    drop(queue);
    kill(last);
    assert!(name.exists());
    assert_eq!(listed(&name).unwrap()["state"], "stale");
    assert!(text(&["recover", &name.0]).contains("gone with its last user"));
    assert!(!name.exists());
}

#[test]
fn what_is_no_segment_is_left_alone() {
    let name = Name::new("foreign");
    std::fs::write(Path::new("/dev/shm").join(&name.0), [7; 10_000]).unwrap();
    assert!(listed(&name).is_none());
    for tool in ["inspect", "recover", "unlink"] {
        assert!(error(&[tool, &name.0]).contains("not a slipring segment"));
    }
    assert!(name.exists());
    for tool in ["inspect", "recover", "unlink"] {
        assert!(error(&[tool, "slipring-cli-test-no-such"]).contains("does not exist"));
        assert!(error(&[tool, "../etc/passwd"]).contains("invalid name"));
    }
}

#[test]
fn several_are_unlinked_and_what_failed_is_named() {
    let name = Name::new("several");
    let names = ["", "-2"].map(|more| format!("{}{more}", name.0));
    let _segments = names.each_ref().map(|name| Queue::<u64>::create(name, 1).unwrap());
    let error = error(&["unlink", &names[0], "slipring-cli-test-missing", &names[1]]);
    assert!(error.contains("slipring-cli-test-missing"), "{error}");
    for name in &names {
        assert!(matches!(Queue::<u64>::open(name), Err(Error::NotFound { .. })));
    }
}
