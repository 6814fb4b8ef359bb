//! Step 1: a child greets, then answers pings.

use crate::Result;
use crate::child::Role;
use crate::processes::{PATIENCE, Process};
use crate::report::{Grouped, Out};
use crate::scratch::Scratch;
use serde::Serialize;
use slipring::{Pipe, RecvError};
use std::fmt;
use std::time::Instant;

/// What came of it.
#[derive(Serialize)]
pub struct Report {
    child: u32,
    message: String,
    round_trips: u64,
    ns_per_round_trip: f64,
}

/// The parent's part: end A.
pub fn run(scratch: &Scratch, out: Out, round_trips: u64) -> Result<Report> {
    let name = scratch.name("pipe");
    let mut pipe = Pipe::create(&name, 64 * 1024)?;
    let child = Process::start(&Role::Greet { segment: name })?;
    let message = String::from_utf8(pipe.recv_timeout(PATIENCE)?)?;

    let bar = out.progress(round_trips, "round trips");
    let start = Instant::now();
    let mut answer = [0; 8];
    for ping in 0..round_trips {
        if ping % 8192 == 0 {
            bar.at(ping);
        }
        pipe.send(&ping.to_le_bytes())?;
        let len = pipe.recv_into(&mut answer)?;
        if (len, u64::from_le_bytes(answer)) != (8, !ping) {
            return Err(format!("ping {ping} was answered by {:?}", &answer[..len]).into());
        }
    }
    let ns_per_round_trip = start.elapsed().as_nanos() as f64 / round_trips as f64;
    // Closes this end, and so ends the child.
    drop(pipe);
    let pid = child.pid();
    child.join()?;
    Ok(Report { child: pid, message, round_trips, ns_per_round_trip })
}

/// The child's part: end B.
pub fn child(segment: &str) -> Result<()> {
    let mut pipe = Pipe::open(segment)?;
    let pid = std::process::id();
    pipe.send(format!("hello from process {pid}").as_bytes())?;
    let mut ping = [0; 8];
    loop {
        match pipe.recv_into(&mut ping) {
            Ok(_) => pipe.send(&(!u64::from_le_bytes(ping)).to_le_bytes())?,
            Err(RecvError::Closed) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "Received message: {}", self.message)?;
        let (n, ns) = (Grouped(self.round_trips), self.ns_per_round_trip);
        write!(f, "   {n} round trips with it, {ns:.0} ns each")
    }
}
