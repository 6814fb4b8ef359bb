//! The process at the other end of a way.

use super::ends::{Bytes, Queues, Typed};
use super::message::{Message, with_message};
use super::protocol::{Job, serve, serve_in};
use super::transport::{Manner, Streams, Way};
use crate::child::Role;
use crate::processes::{self, Process};
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use slipring::{Pipe, Segment};
use std::fs::File;
use std::io::{stdin, stdout};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::Stdio;

const THERE: &str = "there";
const BACK: &str = "back";

/// A way, and how both ends use it.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Course {
    pub way: Way,
    pub manner: Manner,
    /// Size of a message.
    pub bytes: usize,
    /// Messages that the way holds, if it is one of ours.
    pub slots: usize,
}

/// Starts a process at the other end, on that CPU, and does the job from this
/// end. Needs a name for a segment.
pub fn run<J: Job>(
    course: Course,
    segment: &str,
    cpu: Option<usize>,
    job: J,
) -> Result<J::Outcome> {
    let role = Role::Serve { course, segment: segment.to_owned(), cpu };
    let outcome = match course.way {
        Way::Typed => with_message!(course.bytes, M => typed::<M, J>(course, segment, &role, job)),
        Way::Queue => with_message!(course.bytes, M => queues::<M, J>(course, segment, &role, job)),
        Way::Bytes => bytes(course, segment, &role, job),
        Way::OsPipe => os_pipe(course, &role, job),
        Way::UnixSocket => unix_socket(course, &role, job),
    };
    outcome.map_err(|error: Error| format!("{}: {error}", course.way.name()).into())
}

/// A child that attaches to a segment says when it has.
fn attached(role: &Role) -> Result<Process> {
    let mut child = Process::start(role)?;
    child.hear::<()>()?;
    Ok(child)
}

fn typed<M: Message, J: Job>(
    course: Course,
    segment: &str,
    role: &Role,
    job: J,
) -> Result<J::Outcome> {
    let pipe = Pipe::<M>::create_typed(segment, course.slots)?;
    let child = attached(role)?;
    let outcome = job.run_in(course.manner, Typed::new(pipe))?;
    child.join()?;
    Ok(outcome)
}

fn queues<M: Message, J: Job>(
    course: Course,
    segment: &str,
    role: &Role,
    job: J,
) -> Result<J::Outcome> {
    let slots = course.slots;
    let builder = Segment::builder(segment).queue::<M>(THERE, slots).queue::<M>(BACK, slots);
    let segment = builder.create()?;
    let ends = Queues::<M>::new(&segment.queue(THERE)?, &segment.queue(BACK)?)?;
    let child = attached(role)?;
    let outcome = job.run_in(course.manner, ends)?;
    child.join()?;
    Ok(outcome)
}

fn bytes<J: Job>(course: Course, segment: &str, role: &Role, job: J) -> Result<J::Outcome> {
    // A message goes as one record into half of a ring.
    let ring = course.slots.max(2) * (course.bytes + 8);
    let pipe = Pipe::create(segment, ring.max(64))?;
    let child = attached(role)?;
    let outcome = job.run_in(course.manner, Bytes::new(pipe, course.bytes))?;
    child.join()?;
    Ok(outcome)
}

fn os_pipe<J: Job>(course: Course, role: &Role, job: J) -> Result<J::Outcome> {
    let mut child = Process::start(role)?;
    let (out, back) = child.take_streams()?;
    let outcome = job.finish(Streams::new(out, back, course.bytes))?;
    child.join()?;
    Ok(outcome)
}

fn unix_socket<J: Job>(course: Course, role: &Role, job: J) -> Result<J::Outcome> {
    let (here, there) = UnixStream::pair()?;
    let there = OwnedFd::from(there);
    let child = Process::start_with(role, there.into(), Stdio::null())?;
    let outcome = job.finish(Streams::new(here.try_clone()?, here, course.bytes))?;
    child.join()?;
    Ok(outcome)
}

/// The serving process.
pub fn child(course: Course, segment: &str, cpu: Option<usize>) -> Result<()> {
    if let Some(cpu) = cpu {
        processes::pin(&[cpu])?;
    }
    let Course { way, manner, bytes, .. } = course;
    match way {
        Way::Typed => with_message!(bytes, M => serve_typed::<M>(manner, segment)),
        Way::Queue => with_message!(bytes, M => serve_queues::<M>(manner, segment)),
        Way::Bytes => {
            let end = Bytes::new(Pipe::open(segment)?, bytes);
            processes::say(&())?;
            serve_in(manner, end)
        }
        Way::OsPipe => {
            // Around the buffers of the standard library.
            let back = File::from(stdin().as_fd().try_clone_to_owned()?);
            let out = File::from(stdout().as_fd().try_clone_to_owned()?);
            serve(Streams::new(out, back, bytes))
        }
        Way::UnixSocket => {
            let socket = UnixStream::from(stdin().as_fd().try_clone_to_owned()?);
            serve(Streams::new(socket.try_clone()?, socket, bytes))
        }
    }
}

fn serve_typed<M: Message>(manner: Manner, segment: &str) -> Result<()> {
    let end = Typed::new(Pipe::<M>::open_typed(segment)?);
    processes::say(&())?;
    serve_in(manner, end)
}

fn serve_queues<M: Message>(manner: Manner, segment: &str) -> Result<()> {
    let segment = Segment::open(segment)?;
    let end = Queues::<M>::new(&segment.queue(BACK)?, &segment.queue(THERE)?)?;
    processes::say(&())?;
    serve_in(manner, end)
}
