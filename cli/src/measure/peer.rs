//! The process at the other end of a way.

use super::ends::{Bytes, Queues, Typed, ring, slots};
use super::message::{Message, with_message};
use super::protocol::{Job, serve, stop};
use super::transport::{Batched, Blocking, End, InPlace, Manner, Polling, Streams, Transport, Way};
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
}

/// Starts a process at the other end, on that CPU, and does the job from this
/// end. Needs a name for a segment.
pub fn run<J: Job>(
    course: Course,
    segment: &str,
    cpu: Option<usize>,
    job: J,
) -> Result<J::Outcome> {
    let outcome = with_message!(course.bytes, M => run_with::<M, _>(course, segment, cpu, job));
    outcome.map_err(|error: Error| format!("{}: {error}", course.way.name()).into())
}

fn run_with<M: Message, J: Job>(
    course: Course,
    segment: &str,
    cpu: Option<usize>,
    job: J,
) -> Result<J::Outcome> {
    let Course { way, manner, bytes } = course;
    let role = Role::Serve { course, segment: segment.to_owned(), cpu };
    // A child that attaches to a segment says when it has.
    let start = || {
        let mut child = Process::start(&role)?;
        child.hear::<()>()?;
        Ok::<_, Error>(child)
    };
    let (outcome, child) = match way {
        Way::Typed => {
            let pipe = Pipe::<M>::create_typed(segment, slots(bytes))?;
            let child = start()?;
            (work_in(manner, Typed::new(pipe), job)?, child)
        }
        Way::Bytes => {
            let pipe = Pipe::create(segment, ring(bytes))?;
            let child = start()?;
            (work_in(manner, Bytes::new(pipe, bytes), job)?, child)
        }
        Way::Queue => {
            let builder = Segment::builder(segment).queue::<M>(THERE, slots(bytes));
            let segment = builder.queue::<M>(BACK, slots(bytes)).create()?;
            let ends = Queues::<M>::new(&segment.queue(THERE)?, &segment.queue(BACK)?)?;
            let child = start()?;
            (work_in(manner, ends, job)?, child)
        }
        Way::OsPipe => {
            let mut child = Process::start(&role)?;
            let (out, back) = child.take_streams()?;
            (work(Streams::<M, _, _>::new(out, back), job)?, child)
        }
        Way::UnixSocket => {
            let (here, there) = UnixStream::pair()?;
            let there = OwnedFd::from(there);
            let child = Process::start_with(&role, there.into(), Stdio::null())?;
            (work(Streams::<M, _, _>::new(here.try_clone()?, here), job)?, child)
        }
    };
    child.join()?;
    Ok(outcome)
}

fn work_in<J: Job>(manner: Manner, end: impl End, job: J) -> Result<J::Outcome> {
    match manner {
        Manner::Blocking => work(Blocking(end), job),
        Manner::Polling => work(Polling(end), job),
        Manner::Batched => work(Batched(end), job),
        Manner::InPlace => work(InPlace(end), job),
    }
}

fn work<J: Job>(mut peer: impl Transport, job: J) -> Result<J::Outcome> {
    let outcome = job.run(&mut peer)?;
    stop(&mut peer)?;
    Ok(outcome)
}

/// The serving process.
pub fn child(course: Course, segment: &str, cpu: Option<usize>) -> Result<()> {
    if let Some(cpu) = cpu {
        processes::pin(&[cpu])?;
    }
    with_message!(course.bytes, M => child_of::<M>(course, segment))
}

fn child_of<M: Message>(course: Course, segment: &str) -> Result<()> {
    let Course { way, manner, bytes } = course;
    match way {
        Way::Typed => {
            let end = Typed::new(Pipe::<M>::open_typed(segment)?);
            processes::say(&())?;
            serve_in(manner, end)
        }
        Way::Bytes => {
            let end = Bytes::new(Pipe::open(segment)?, bytes);
            processes::say(&())?;
            serve_in(manner, end)
        }
        Way::Queue => {
            let segment = Segment::open(segment)?;
            let end = Queues::<M>::new(&segment.queue(BACK)?, &segment.queue(THERE)?)?;
            processes::say(&())?;
            serve_in(manner, end)
        }
        Way::OsPipe => {
            // Around the buffers of the standard library.
            let back = File::from(stdin().as_fd().try_clone_to_owned()?);
            let out = File::from(stdout().as_fd().try_clone_to_owned()?);
            serve(Streams::<M, _, _>::new(out, back))
        }
        Way::UnixSocket => {
            let socket = UnixStream::from(stdin().as_fd().try_clone_to_owned()?);
            serve(Streams::<M, _, _>::new(socket.try_clone()?, socket))
        }
    }
}

fn serve_in(manner: Manner, end: impl End) -> Result<()> {
    match manner {
        Manner::Blocking => serve(Blocking(end)),
        Manner::Polling => serve(Polling(end)),
        Manner::Batched => serve(Batched(end)),
        Manner::InPlace => serve(InPlace(end)),
    }
}
