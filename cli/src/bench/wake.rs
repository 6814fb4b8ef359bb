//! Waking a receiver that sleeps, and what a sender pays when nobody does.

use super::Bench;
use super::floors::{Around, Beside, Floor, Floors, slots};
use crate::Result;
use crate::child::Role;
use crate::measure::times::{Times, now_ns, record};
use crate::processes::{self, Process, until};
use crate::report::Grouped;
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use slipring::{Queue, Segment};
use std::fmt;
use std::time::{Duration, Instant};

pub const TITLE: &str = "Waking a receiver that sleeps in recv, in ns: from before the send \
                         until it has the message";

const QUEUE: &str = "queue";
const PIPE: &str = "pipe";
/// The last message that the receiver saw.
const SEEN: &str = "seen";
/// The message that ends the receiver.
const STOP: u64 = 0;

/// Who is woken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Woken {
    AtQueue,
    AtPipe,
    Nobody,
}

impl Woken {
    pub const ALL: [Woken; 3] = [Woken::AtQueue, Woken::AtPipe, Woken::Nobody];

    fn name(self) -> &'static str {
        match self {
            Woken::AtQueue => "slipring queue",
            Woken::AtPipe => "slipring pipe",
            Woken::Nobody => "slipring queue, nobody sleeps",
        }
    }
}

/// The sleeper's part.
#[derive(Serialize, Deserialize)]
pub struct Part {
    segment: String,
    woken: Woken,
    cpu: Option<usize>,
}

/// A figure.
#[derive(Serialize)]
pub struct Row {
    woken: Woken,
    bytes: usize,
    processes: usize,
    /// Until the receiver has the message.
    wake_up: Option<Times>,
    sends: u64,
    /// Of the call to `send`.
    send_p50_ns: f64,
    send_p99_ns: f64,
    #[serde(flatten)]
    pub beside: Beside,
}

/// Measures one.
pub fn measure(bench: &mut Bench, woken: Woken) -> Result<Row> {
    let (segment, cpu, length) = (bench.segment(), bench.there(), bench.length);
    if woken == Woken::Nobody {
        let job = || nobody(&segment, length);
        let (sends, around) = bench.floors.around_by(Floor::Slots, slots::sample, job)?;
        let each = |quantile| sends.value_at_quantile(quantile) as f64 / FILL as f64;
        return Ok(Row {
            woken,
            bytes: size_of::<u64>(),
            processes: 1,
            wake_up: None,
            sends: sends.len() * FILL,
            send_p50_ns: each(0.5),
            send_p99_ns: each(0.99),
            beside: around.whole(each(0.5)),
        });
    }
    let part = Part { segment, woken, cpu };
    let (sends, wake_up, around) = parent(part, length, &mut bench.floors)?;
    let sends = Times::of(&sends);
    Ok(Row {
        woken,
        bytes: size_of::<u64>(),
        processes: 2,
        beside: around.whole(wake_up.p50_ns as f64),
        wake_up: Some(wake_up),
        sends: sends.count,
        send_p50_ns: sends.p50_ns as f64,
        send_p99_ns: sends.p99_ns as f64,
    })
}

/// Turns with the floor.
const TURNS: u64 = 10;

/// The time of each send, and of each wake-up.
fn parent(
    part: Part,
    length: Duration,
    floors: &mut Floors,
) -> Result<(Histogram<u64>, Times, Around)> {
    let builder = Segment::builder(&part.segment).queue::<u64>(QUEUE, 64);
    let segment = builder.typed_pipe::<u64>(PIPE, 64).value::<u64>(SEEN).create()?;
    let seen = segment.value::<u64>(SEEN)?;
    let mut send: Box<dyn FnMut(u64) -> Result<()>> = match part.woken {
        Woken::AtPipe => {
            let mut pipe = segment.typed_pipe::<u64>(PIPE)?;
            Box::new(move |now| Ok(pipe.send(now)?))
        }
        _ => {
            let mut tx = segment.queue::<u64>(QUEUE)?.sender()?;
            Box::new(move |now| Ok(tx.send(now)?))
        }
    };
    let mut child = Process::start(&Role::Bench(super::Part::Wake(part)))?;
    child.hear::<()>()?;
    let state = format!("/proc/{}/stat", child.pid());
    let mut sends = record()?;
    let around = floors.in_turns(TURNS, || {
        let (start, length) = (Instant::now(), length / TURNS as u32);
        loop {
            until("the receiver never sleeps", || is_asleep(&state))?;
            settle();
            let before = now_ns();
            send(before)?;
            sends.saturating_record(now_ns() - before);
            until("a message never arrives", || Ok(seen.load() == before))?;
            if start.elapsed() >= length {
                return Ok(());
            }
        }
    })?;
    send(STOP)?;
    let wake_ups = child.hear()?;
    child.join()?;
    Ok((sends, wake_ups, around))
}

/// The sleeper.
pub fn child(part: Part) -> Result<()> {
    if let Some(cpu) = part.cpu {
        processes::pin(&[cpu])?;
    }
    let segment = Segment::open(&part.segment)?;
    let seen = segment.value::<u64>(SEEN)?;
    let mut recv: Box<dyn FnMut() -> Result<u64>> = match part.woken {
        Woken::AtPipe => {
            let mut pipe = segment.typed_pipe::<u64>(PIPE)?;
            Box::new(move || Ok(pipe.recv()?))
        }
        _ => {
            let mut rx = segment.queue::<u64>(QUEUE)?.receiver()?;
            Box::new(move || Ok(rx.recv()?))
        }
    };
    processes::say(&())?;
    let mut times = record()?;
    loop {
        let sent = recv()?;
        let now = now_ns();
        if sent == STOP {
            return processes::say(&Times::of(&times));
        }
        times.saturating_record(now - sent);
        seen.store(sent);
    }
}

/// Whether a process or thread sleeps, from its line in `/proc`.
pub fn is_asleep(stat: &str) -> Result<bool> {
    let line = std::fs::read_to_string(stat)?;
    // After its name, which may hold anything.
    match line.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next()) {
        Some('S') => Ok(true),
        Some('Z' | 'X') | None => Err(format!("{stat}: it ended").into()),
        Some(_) => Ok(false),
    }
}

/// Gives the processor of somebody who was just seen to sleep time to become idle. On its way
/// there it is sooner back, and how far it has come depends on what the sleeper did before.
pub fn settle() {
    let start = Instant::now();
    while start.elapsed() < Duration::from_micros(20) {
        std::hint::spin_loop();
    }
}

/// Messages per reading of the clock: half of the queue.
pub const FILL: u64 = 512;

/// The time of so many sends into a queue at which nobody sleeps.
fn nobody(segment: &str, length: Duration) -> Result<Histogram<u64>> {
    let queue = Queue::<u64>::create(segment, 2 * FILL as usize)?;
    let (mut tx, mut rx) = (queue.sender()?, queue.receiver()?);
    let mut sends = record()?;
    let start = Instant::now();
    let mut first = 0;
    while sends.is_empty() || start.elapsed() < length {
        let before = Instant::now();
        for number in first..first + FILL {
            tx.send(number)?;
        }
        sends.saturating_record(before.elapsed().as_nanos() as u64);
        for number in first..first + FILL {
            if rx.try_recv()? != number {
                return Err(format!("message {number} did not arrive").into());
            }
        }
        first += FILL;
    }
    Ok(sends)
}

/// Of the columns.
pub fn head() -> String {
    let (woken, wakes, p50, p99, max) = ("", "wake-ups", "p50", "p99", "max");
    let (send, send99, floor) = ("send p50", "p99", "p50/floor");
    format!("   {woken:<31}{wakes:>9}{p50:>11}{p99:>11}{max:>12}{send:>10}{send99:>10}  {floor}")
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let woken = self.woken.name();
        let text = |n| Grouped(n).to_string();
        let [wakes, p50, p99, max] = match self.wake_up {
            Some(Times { count, p50_ns, p99_ns, max_ns, .. }) => {
                [count, p50_ns, p99_ns, max_ns].map(text)
            }
            None => ["", "", "", ""].map(str::to_owned),
        };
        let digits = if self.wake_up.is_some() { 0 } else { 1 };
        let [send, send99] =
            [self.send_p50_ns, self.send_p99_ns].map(|ns| format!("{ns:.digits$}"));
        write!(f, "   {woken:<31}{wakes:>9}{p50:>11}{p99:>11}{max:>12}{send:>10}{send99:>10}")?;
        write!(f, "  {}", self.beside)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_runs_is_not_asleep() {
        assert!(!is_asleep("/proc/thread-self/stat").unwrap());
        assert!(is_asleep("/proc/0/stat").is_err());
    }

    #[test]
    fn who_waits_is_asleep() {
        let (id, ids) = std::sync::mpsc::channel();
        let (go, wait) = std::sync::mpsc::channel::<()>();
        let sleeper = std::thread::spawn(move || {
            id.send(rustix::thread::gettid()).unwrap();
            wait.recv().unwrap();
        });
        let stat = format!("/proc/self/task/{}/stat", ids.recv().unwrap().as_raw_nonzero());
        until("it never sleeps", || is_asleep(&stat)).unwrap();
        go.send(()).unwrap();
        sleeper.join().unwrap();
    }
}
