//! slipring
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(not(target_os = "linux"))]
compile_error!("slipring needs Linux: leases rest on its open-file-description locks");

mod array;
mod error;
mod kinds;
mod lock;
mod memory;
mod os;
mod pipe;
mod position;
mod queue;
pub mod ring;
mod segment;
mod shm;
mod sync;
mod value;
mod wait;
mod word;

pub use array::Array;
pub use error::{Error, LockError, RecvError, Result, SendError, Shape};
pub use lock::Lock;
pub use memory::{Heap, LINE, Region};
pub use pipe::{End, Pipe, PipeOptions};
pub use queue::{BytesSlot, Message, Queue, QueueCounters, QueueOptions, Receiver, Sender, Slot};
pub use ring::mpmc::Delivery;
pub use segment::{Builder, ObjectInfo, OpenOptions, Segment, Stale, WaitMode};
pub use shm::attachment::{ParticipantInfo, Unlink};
pub use shm::layout::{LAYOUT_VERSION, MAX_OBJECTS, MAX_PARTICIPANTS};
pub use value::Value;

/// Types whose every bit pattern is a value, and which have no padding: what
/// can lie in shared memory. From the crate `bytemuck`.
pub use bytemuck::{Pod, Zeroable};
