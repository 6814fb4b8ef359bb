//! What `fork` does to leases, and the mending of it.
//!
//! A forked child inherits every descriptor, and with the descriptor of a
//! lease the lease itself: the parent could die unnoticed. So each lease's
//! descriptor is written into a list here, a `pthread_atfork` handler closes
//! them all in the child before `fork` returns there, and counts up the
//! process's *generation*, by which handles see that they must attach afresh.
//!
//! The handler may run while other threads of the parent were anywhere, so it
//! only loads, stores and closes: the list has no lock, and its nodes are
//! never freed (they are used again).

use core::ptr;
use core::sync::atomic::{AtomicI32, AtomicPtr, AtomicU32, Ordering};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Once;

/// How many forks lie between this process and the first that used the
/// library. Zero for most.
static GENERATION: AtomicU32 = AtomicU32::new(0);

/// The list of guarded descriptors.
static NODES: AtomicPtr<Node> = AtomicPtr::new(ptr::null_mut());

struct Node {
    /// The descriptor, or -1 while the node is unused.
    fd: AtomicI32,
    next: *mut Node,
}

/// The process's generation. One load of a line that only `fork` writes.
#[inline(always)]
pub(crate) fn generation() -> u32 {
    GENERATION.load(Ordering::Relaxed)
}

/// Installs the handler; cheap after the first call.
pub(crate) fn watch_forks() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: the handler is an `extern "C" fn` that lives as long as the
        // program and is async-signal-safe (atomics and close). Failure (out of
        // memory) leaves no handler: then a child keeps the parent's lease
        // until it exits, which delays recovery and breaks nothing else.
        unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
    });
}

extern "C" fn in_child() {
    let mut node = NODES.load(Ordering::Acquire);
    while !node.is_null() {
        // SAFETY: nodes are leaked boxes, pushed with Release, never freed.
        let this = unsafe { &*node };
        let fd = this.fd.swap(-1, Ordering::Relaxed);
        if fd >= 0 {
            // SAFETY: the descriptor belongs to a `GuardedFd` that, in this new
            // generation, will not close it (see its `Drop`).
            unsafe { libc::close(fd) };
        }
        node = this.next;
    }
    GENERATION.fetch_add(1, Ordering::Relaxed);
}

/// A descriptor that a forked child does not keep.
#[derive(Debug)]
pub(crate) struct GuardedFd {
    fd: RawFd,
    generation: u32,
    node: &'static AtomicI32,
}

/// Puts a descriptor on the list.
pub(crate) fn guard_fd(fd: OwnedFd) -> GuardedFd {
    watch_forks();
    use std::os::fd::IntoRawFd;
    let fd = fd.into_raw_fd();
    GuardedFd { fd, generation: generation(), node: enlist(fd) }
}

fn enlist(fd: RawFd) -> &'static AtomicI32 {
    let mut node = NODES.load(Ordering::Acquire);
    while !node.is_null() {
        // SAFETY: as in `in_child`.
        let this: &'static Node = unsafe { &*node };
        let free = this.fd.compare_exchange(-1, fd, Ordering::Relaxed, Ordering::Relaxed);
        if free.is_ok() {
            return &this.fd;
        }
        node = this.next;
    }
    let mut head = NODES.load(Ordering::Acquire);
    let fresh = Box::into_raw(Box::new(Node { fd: AtomicI32::new(fd), next: head }));
    // Release: pairs with the Acquire loads of the list's head.
    while let Err(now) =
        NODES.compare_exchange(head, fresh, Ordering::Release, Ordering::Acquire)
    {
        head = now;
        // SAFETY: not yet published, so this thread alone reaches it.
        unsafe { (*fresh).next = head };
    }
    // SAFETY: leaked on purpose, never freed.
    unsafe { &(*fresh).fd }
}

impl GuardedFd {
    /// Whether this process has forked away from the descriptor's owner.
    pub(crate) fn is_inherited(&self) -> bool {
        self.generation != generation()
    }
}

impl AsRawFd for GuardedFd {
    fn as_raw_fd(&self) -> RawFd {
        self.fd
    }
}

impl Drop for GuardedFd {
    fn drop(&mut self) {
        // In a child the handler has closed it, and the number may be another
        // file's by now.
        if !self.is_inherited() {
            // First off the list, so that a concurrent fork can't close a
            // number that is no longer ours.
            self.node.store(-1, Ordering::Relaxed);
            // SAFETY: owned since `guard_fd`, closed only here.
            unsafe { libc::close(self.fd) };
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_used_again() {
        let open = || guard_fd(std::fs::File::open("/dev/null").unwrap().into());
        let first = open();
        let node: *const AtomicI32 = first.node;
        drop(first);
        let held: Vec<_> = (0..64).map(|_| open()).collect();
        assert!(held.iter().any(|fd| ptr::eq(fd.node, node)) || held.len() == 64);
    }
}
