//! Zero-copy, lock-free queues, pipes, values and arrays in named shared
//! memory, for processes on one machine, any of which may be killed at any
//! instruction.
//!
//! # A queue in three lines
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let name = &format!("doc-front-{}", std::process::id());
//! let queue = slipring::Queue::<u64>::create(name, 1024)?;
//! queue.sender()?.send(42)?;
//! assert_eq!(queue.receiver()?.recv()?, 42);
//! # Ok(())
//! # }
//! ```
//!
//! Another process says `Queue::<u64>::open(name)` and has the same queue.
//!
//! # The four objects
//!
//! | object | is | instead of |
//! |--------|----|-----------|
//! | [`Queue`] | messages, many senders, many receivers | `multiprocessing.Queue` |
//! | [`Pipe`] | messages or a stream between two ends | `multiprocessing.Pipe` |
//! | [`Value`] | one value that all see, never torn | `multiprocessing.Value` |
//! | [`Array`] | elements that all see | `multiprocessing.Array` |
//!
//! and a [`Lock`] for what they can't do alone. Elements are [`Pod`] types: any
//! `repr(C)` struct of numbers and arrays with `#[derive(Pod, Zeroable)]` from
//! the crate `bytemuck` (with its feature `derive`).
//!
//! # Many objects in one segment
//!
//! Each object of the short form has a *segment*, a file in `/dev/shm`, to
//! itself. A [`Segment`] can hold many, declared up front:
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use bytemuck::{Pod, Zeroable};
//! use slipring::Segment;
//!
//! #[derive(Clone, Copy, Pod, Zeroable)]
//! #[repr(C)]
//! struct Pose {
//!     position: [f64; 3],
//!     heading: f64,
//! }
//!
//! # let name = &format!("doc-many-{}", std::process::id());
//! let robot = Segment::builder(name)
//!     .queue::<[f32; 4]>("commands", 256)
//!     .pipe("control", 64 * 1024)
//!     .value::<Pose>("pose")
//!     .array::<f32>("lidar", 4096)
//!     .create()?;
//! robot.value::<Pose>("pose")?.store(Pose { position: [1.0, 2.0, 0.0], heading: 0.5 });
//!
//! // In another process:
//! let robot = Segment::open(name)?;
//! let pose = robot.value::<Pose>("pose")?.load();
//! assert_eq!(pose.heading, 0.5);
//! # Ok(())
//! # }
//! ```
//!
//! # What happens when a process dies
//!
//! Each process holds a *lease* in every segment that it is attached to: a lock
//! that the kernel frees when the process is gone, and not before. Everything
//! else that it holds is a word that names its lease. Whoever is held up by
//! such a word asks the kernel whether the lease is still held, and if not
//! repairs the word: a message that was being written is skipped, one that was
//! being read is lost or delivered again, as the queue says, a lock is handed
//! on poisoned, an end of a pipe can be taken over. Nobody waits for a dead
//! process longer than about [`SLICE`]; nobody takes a slow process for a dead
//! one.
//!
//! # Waiting
//!
//! `try_` forms never sleep, plain forms wait, `_timeout` and `_deadline`
//! forms wait that long. Waiting spins for 50 µs, or for 2 where earlier
//! waits have spun in vain, and then sleeps (with one processor it sleeps at once).
//! Sending makes no system call unless somebody sleeps.
//!
//! # The layers below
//!
//! [`ring::mpmc`], [`ring::spsc`] and [`ring::bytes`] are the algorithms, over
//! memory that you bring.

#![cfg_attr(docsrs, feature(doc_cfg))]

/// The README's examples compile.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

#[cfg(not(target_os = "linux"))]
compile_error!("slipring needs Linux: leases rest on its open-file-description locks");

mod array;
mod error;
mod favour;
mod kinds;
mod lock;
mod memory;
mod os;
mod pace;
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

pub use array::{Array, ArrayGuard};
pub use error::{Error, LockError, RecvError, Result, SendError, Shape};
pub use lock::{Lock, LockGuard};
pub use memory::{Heap, LINE, Region};
pub use pipe::{
    BytesGrant, BytesMessage, End, Pipe, PipeMessage, PipeOptions, PipeReceiver, PipeSender,
    PipeSlot, Transport,
};
pub use queue::{BytesSlot, Message, Queue, QueueCounters, QueueOptions, Receiver, Sender, Slot};
pub use ring::mpmc::Delivery;
pub use segment::{Builder, ObjectInfo, OpenOptions, Segment, Stale, WaitMode};
pub use shm::attachment::{ParticipantInfo, Unlink};
pub use shm::layout::{LAYOUT_VERSION, MAX_OBJECTS, MAX_PARTICIPANTS};
pub use value::Value;
pub use wait::SLICE;
pub use word::bits::{Integer, Number};

/// For the tests of named points: see `src/os/points.rs`.
#[cfg(all(slipring_points, not(loom)))]
#[doc(hidden)]
pub use os::points::armed as points;

/// Types whose every bit pattern is a value, and which have no padding: what
/// can lie in shared memory. From the crate `bytemuck`.
pub use bytemuck::{Pod, Zeroable};
