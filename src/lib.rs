//! slipring
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(not(target_os = "linux"))]
compile_error!("slipring needs Linux: leases rest on its open-file-description locks");

mod error;
mod memory;
mod os;
mod position;
pub mod ring;
mod sync;
mod wait;
mod word;

pub use error::{Error, LockError, RecvError, Result, SendError, Shape};
pub use memory::{Heap, LINE, Region};
