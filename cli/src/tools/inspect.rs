//! `slipring inspect NAME`.

use super::{exists, join, take};
use crate::Result;
use crate::report::{Grouped, Out};
use serde::Serialize;
use slipring::{Error, ObjectInfo, ParticipantInfo, QueueCounters, Segment, Unlink};
use std::fmt;

/// Show what is in a segment, and who is attached
///
/// Looking means to attach, as any process does. So a segment that no living
/// process holds is left alone, unless it may be recovered.
#[derive(clap::Args)]
pub struct Options {
    /// The segment
    name: String,
    /// If no living process holds it, recover it first; when the look is over it
    /// goes, unless it was made to stay
    #[arg(long)]
    recover: bool,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct View {
    name: String,
    bytes: usize,
    unlink: &'static str,
    max_participants: usize,
    objects: Vec<Object>,
    participants: Vec<Participant>,
}

#[derive(Serialize)]
struct Object {
    name: String,
    kind: &'static str,
    capacity: usize,
    element_bytes: usize,
    element_align: usize,
    offset: usize,
    bytes: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    queue: Option<Queue>,
}

/// Of a queue of byte messages, the only one whose type is known here.
#[derive(Serialize)]
struct Queue {
    len: usize,
    max_len: usize,
    senders: usize,
    receivers: usize,
    sent: u64,
    received: u64,
    lost: u64,
    redelivered: u64,
    abandoned: u64,
}

#[derive(Serialize)]
struct Participant {
    id: u16,
    pid: u32,
    label: String,
    alive: bool,
    roles: Vec<String>,
}

/// Shows it.
pub fn run(options: &Options) -> Result<()> {
    let name = options.name.as_str();
    let segment = match join(name) {
        Err(Error::Stale { .. }) if options.recover => take(name),
        Err(error @ Error::Stale { .. }) => {
            return Err(format!("{error}: give --recover, or `slipring unlink` it").into());
        }
        done => done,
    }?;
    let out = Out::new(options.json);
    out.either(&View::of(&segment)?)?;
    drop(segment);
    if !exists(name) {
        out.text("it was the last look: the segment is gone")?;
    }
    Ok(())
}

impl View {
    fn of(segment: &Segment) -> Result<View> {
        let objects = segment.objects().into_iter().map(|info| Object::of(segment, info));
        let participants = segment.participants()?.into_iter();
        Ok(View {
            name: segment.name().to_owned(),
            bytes: segment.len(),
            unlink: match segment.unlink_policy() {
                Unlink::LastOut => "last out",
                Unlink::Creator => "creator",
                Unlink::Persist => "persist",
                _ => "unknown",
            },
            max_participants: segment.max_participants(),
            objects: objects.collect(),
            participants: participants.filter(|p| !p.is_self).map(Participant::of).collect(),
        })
    }
}

impl Object {
    fn of(segment: &Segment, info: ObjectInfo) -> Object {
        Object {
            queue: Queue::of(segment, &info.name),
            name: info.name,
            kind: info.shape.kind,
            capacity: info.capacity,
            element_bytes: info.shape.size,
            element_align: info.shape.align,
            offset: info.offset,
            bytes: info.len,
        }
    }
}

impl Queue {
    fn of(segment: &Segment, name: &str) -> Option<Queue> {
        let queue = segment.bytes_queue(name).ok()?;
        let QueueCounters { sent, received, lost, redelivered, abandoned, .. } = queue.counters();
        Some(Queue {
            len: queue.len(),
            max_len: queue.max_len(),
            senders: queue.senders(),
            receivers: queue.receivers(),
            sent,
            received,
            lost,
            redelivered,
            abandoned,
        })
    }
}

impl Participant {
    fn of(info: ParticipantInfo) -> Participant {
        let ParticipantInfo { id, pid, label, alive, roles, .. } = info;
        Participant { id, pid, label, alive, roles }
    }
}

impl fmt::Display for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let View { name, bytes, unlink, max_participants, objects, participants } = self;
        writeln!(f, "{name}: {} bytes, unlink: {unlink}", Grouped(*bytes as u64))?;
        write!(f, "objects:")?;
        for object in objects {
            let Object { name, kind, capacity, element_bytes, offset, bytes, .. } = object;
            write!(f, "\n  {kind} {name}: {capacity} of {element_bytes} bytes each")?;
            write!(f, " ({} bytes at {offset})", Grouped(*bytes as u64))?;
            if let Some(queue) = &object.queue {
                let Queue { len, senders, receivers, sent, received, .. } = queue;
                write!(f, "\n    {len} in it, {senders} senders, {receivers} receivers")?;
                write!(f, ", {sent} sent, {received} received")?;
                let Queue { lost, redelivered, abandoned, .. } = queue;
                write!(f, ", {lost} lost, {redelivered} redelivered, {abandoned} abandoned")?;
            }
        }
        write!(f, "\nparticipants ({} of {max_participants}):", participants.len())?;
        for Participant { id, pid, label, alive, roles } in participants {
            let state = if *alive { "alive" } else { "dead" };
            write!(f, "\n  {id}: process {pid} ({label}), {state}")?;
            for role in roles {
                write!(f, ", {role}")?;
            }
        }
        Ok(())
    }
}
