//! The queues that are tortured.

use super::Delivery::{self, AtLeastOnce, AtMostOnce};
use super::Scratch;
use super::adapters::{self, Queued};
use super::herd::{End, Herd, Order, Programs, Python};
use crate::{Result, versions};
use std::any::Any;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A queue, and how to torture it.
pub struct Subject {
    pub name: &'static str,
    /// Must pass: ourselves, and the control.
    pub must_pass: bool,
    pub delivery: Delivery,
    pub version: fn(&Path) -> String,
    pub note: &'static str,
    pub start: fn(&Scratch) -> Result<Box<dyn Herd>>,
}

/// A herd and the queue that it uses, which is swept when both are done.
struct Keeping<H> {
    herd: H,
    _made: Box<dyn Any>,
    sweep: Box<dyn Fn()>,
}

impl<H: Herd> Herd for Keeping<H> {
    fn start(&mut self, order: Order) -> Result<i32> {
        self.herd.start(order)
    }

    fn ended(&mut self) -> Result<Vec<(i32, End)>> {
        self.herd.ended()
    }
}

impl<H> Drop for Keeping<H> {
    fn drop(&mut self) {
        (self.sweep)();
    }
}

fn own(queue: Queued, scratch: &Scratch) -> Result<Box<dyn Herd>> {
    let Scratch { name, folder, ledger } = scratch;
    let made = adapters::make(queue, name)?;
    let name = name.clone();
    if queue == Queued::Pipe {
        return Ok(Box::new(Programs::own(queue, &name, ledger, folder, made)?));
    }
    let herd = Programs::own(queue, &name, ledger, folder, Box::new(()))?;
    let sweep = Box::new(move || adapters::sweep(queue, &name));
    Ok(Box::new(Keeping { herd, _made: made, sweep }))
}

/// Builds the program for Boost's queue, in a folder for what is built.
fn boost(folder: &Path) -> Result<PathBuf> {
    let program = folder.join("torture-boost");
    if program.exists() {
        return Ok(program);
    }
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("boost/torture.cpp");
    let compiler = std::env::var("CXX").unwrap_or("c++".into());
    let output = Command::new(&compiler)
        .args(["-std=c++17", "-O2", "-pthread", "-o"])
        .arg(&program)
        .arg(source)
        .arg("-lrt")
        .output()
        .map_err(|error| format!("{compiler}: {error}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let first = said.lines().find(|line| line.contains("error")).unwrap_or("it failed");
        return Err(format!("{compiler}: {first} (are Boost's headers installed?)").into());
    }
    Ok(program)
}

fn boost_queue(scratch: &Scratch) -> Result<Box<dyn Herd>> {
    let program = boost(&scratch.folder)?;
    let name = scratch.name.clone();
    if !Command::new(&program).args(["make", &name]).status()?.success() {
        return Err("the queue could not be made".into());
    }
    let herd = Programs::other(&program, &name, &scratch.ledger, &scratch.folder);
    let sweep = Box::new(move || {
        let _ = std::fs::remove_file(Path::new("/dev/shm").join(&name));
    });
    Ok(Box::new(Keeping { herd, _made: Box::new(()), sweep }))
}

fn python_version(module: &str) -> String {
    let python = versions::of_program("python3", &["--version"]).unwrap_or("no python3".into());
    match module {
        "" => python,
        module => {
            let code =
                format!("from importlib.metadata import version; print(version('{module}'))");
            let version = versions::of_program("python3", &["-c", &code]);
            format!("{}, {python}", version.unwrap_or("not installed".into()))
        }
    }
}

fn faster_fifo(scratch: &Scratch) -> Result<Box<dyn Herd>> {
    if versions::of_program("python3", &["-c", "import faster_fifo"]).is_none() {
        return Err("python3 cannot import faster_fifo (pip install faster-fifo)".into());
    }
    Ok(Box::new(Python::start("faster_fifo", &scratch.ledger, &scratch.folder)?))
}

/// All of them; the control first.
pub fn subjects() -> Vec<Subject> {
    vec![
        Subject {
            name: "pipe",
            must_pass: true,
            delivery: AtMostOnce,
            version: |_| "the kernel's".into(),
            note: "the control: messages shorter than PIPE_BUF, which the kernel writes whole or \
                   not at all",
            start: |scratch| own(Queued::Pipe, scratch),
        },
        Subject {
            name: "slipring queue",
            must_pass: true,
            delivery: AtMostOnce,
            version: |_| versions::of_crate("slipring"),
            note: "send_timeout and recv_timeout",
            start: |scratch| own(Queued::Slipring, scratch),
        },
        Subject {
            name: "slipring queue, at least once",
            must_pass: true,
            delivery: AtLeastOnce,
            version: |_| versions::of_crate("slipring"),
            note: "send_timeout and take_timeout; messages are noted while they are lent, so none \
                   may be lost",
            start: |scratch| own(Queued::SlipringAtLeastOnce, scratch),
        },
        Subject {
            name: "cloudtoid-interprocess",
            must_pass: false,
            delivery: AtMostOnce,
            version: |_| versions::of_crate("cloudtoid-interprocess"),
            note: "try_send with naps when full, recv_timeout; it documents recovery from crashes \
                   of either side, after ten seconds",
            start: |scratch| own(Queued::Cloudtoid, scratch),
        },
        Subject {
            name: "shaq MPMC",
            must_pass: false,
            delivery: AtMostOnce,
            version: |_| versions::of_crate("shaq"),
            note: "try_write with naps when full, read_timeout; it promises recovery only to an \
                   only producer or consumer (recover_as_exclusive), so none is called",
            start: |scratch| own(Queued::Shaq, scratch),
        },
        Subject {
            name: "Boost.Interprocess message_queue",
            must_pass: false,
            delivery: AtMostOnce,
            version: |folder| {
                let program = boost(folder);
                let version = program.ok().and_then(|program| {
                    versions::of_program(&program.to_string_lossy(), &["version"])
                });
                version.unwrap_or("unknown".into()).replace('_', ".")
            },
            note: "timed_send and timed_receive; its mutex lies in shared memory and is not robust",
            start: boost_queue,
        },
        Subject {
            name: "multiprocessing.Queue",
            must_pass: false,
            delivery: AtMostOnce,
            version: |_| python_version(""),
            note: "put and get with timeouts; put returns when a thread has taken the message, \
                   which dies with the process; its documentation warns of kills",
            start: |scratch| {
                Ok(Box::new(Python::start("multiprocessing", &scratch.ledger, &scratch.folder)?))
            },
        },
        Subject {
            name: "faster-fifo",
            must_pass: false,
            delivery: AtMostOnce,
            version: |_| python_version("faster-fifo"),
            note: "put and get with timeouts; a mutex and condition variables in shared memory",
            start: faster_fifo,
        },
    ]
}
