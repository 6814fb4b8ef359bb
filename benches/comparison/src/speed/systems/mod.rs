//! The systems that are measured. Each is used as its own documentation says;
//! where that leaves a choice, its note tells which was made.

pub mod cloudtoid;
pub mod iceoryx2;
pub mod in_process;
pub mod ipc_channel;
pub mod kernel;
pub mod ringfire;
pub mod shaq;
pub mod shmem_ipc;
pub mod sketch;
pub mod slipring;
