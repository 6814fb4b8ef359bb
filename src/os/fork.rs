//! What `fork` does to leases, and the mending of it.
//!
//! A forked child inherits every descriptor, and with the descriptor of a
//! lease the lease itself: the parent could die unnoticed. So each lease's
//! descriptor is written into a list here. A `pthread_atfork` handler replaces
//! them all in the child, before `fork` returns there, by fresh descriptions of
//! the same files (which hold no lease), and counts up the process's
//! *generation*, by which handles see that they must attach afresh.
//!
//! The handler may run while other threads of the parent were anywhere, so it
//! only uses atomics and async-signal-safe calls: the list has no lock, and its
//! nodes are never freed (they are used again).

use core::ptr;
use core::sync::atomic::{AtomicI32, AtomicPtr, AtomicU32, Ordering};
use std::os::fd::{BorrowedFd, IntoRawFd, OwnedFd, RawFd};
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
        // program and is async-signal-safe. Failure (out of
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
        let fd = this.fd.load(Ordering::Relaxed);
        if fd >= 0 && !reopen(fd) {
            this.fd.store(-1, Ordering::Relaxed);
            // SAFETY: the descriptor belongs to a `GuardedFd`, which finds -1
            // in its node and will not use or close it.
            unsafe { libc::close(fd) };
        }
        super::points::point("fork.reopened");
        node = this.next;
    }
    GENERATION.fetch_add(1, Ordering::Relaxed);
}

/// Puts a fresh description of the same file under the same number. Without
/// `/proc` that can't be done.
fn reopen(fd: RawFd) -> bool {
    const PREFIX: &[u8] = b"/proc/self/fd/";
    let mut path = [0u8; 32];
    path[..PREFIX.len()].copy_from_slice(PREFIX);
    let mut digits = [0u8; 10];
    let mut count = 0;
    let mut rest = fd.unsigned_abs();
    loop {
        digits[count] = b'0' + (rest % 10) as u8;
        count += 1;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    for i in 0..count {
        path[PREFIX.len() + i] = digits[count - 1 - i];
    }
    // SAFETY: the path is a NUL-terminated array (at most 24 of its 32 bytes
    // are set); `open`, `dup3` and `close` may be called in a signal handler.
    unsafe {
        let fresh = libc::open(path.as_ptr().cast(), libc::O_RDWR | libc::O_CLOEXEC);
        if fresh < 0 {
            return false;
        }
        let moved = libc::dup3(fresh, fd, libc::O_CLOEXEC) == fd;
        libc::close(fresh);
        moved
    }
}

/// A descriptor whose description a forked child does not share.
#[derive(Debug)]
pub(crate) struct GuardedFd {
    /// Holds the number, or -1 in a child where it could not be opened again.
    node: &'static AtomicI32,
}

/// Puts a descriptor on the list.
pub(crate) fn guard_fd(fd: OwnedFd) -> GuardedFd {
    watch_forks();
    GuardedFd { node: enlist(fd.into_raw_fd()) }
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
    while let Err(now) = NODES.compare_exchange(head, fresh, Ordering::Release, Ordering::Acquire) {
        head = now;
        // SAFETY: not yet published, so this thread alone reaches it.
        unsafe { (*fresh).next = head };
    }
    // SAFETY: leaked on purpose, never freed.
    unsafe { &(*fresh).fd }
}

impl GuardedFd {
    /// The descriptor; `None` in a child that could not open it again.
    pub(crate) fn get(&self) -> Option<BorrowedFd<'_>> {
        let fd = self.node.load(Ordering::Relaxed);
        // SAFETY: a number on the list is open until its `GuardedFd` drops,
        // which the result borrows.
        (fd >= 0).then(|| unsafe { BorrowedFd::borrow_raw(fd) })
    }

    /// A second owner of the same descriptor, for a child to use in place of
    /// the first, which must then be leaked.
    pub(crate) fn take_over(&self) -> GuardedFd {
        GuardedFd { node: self.node }
    }
}

impl Drop for GuardedFd {
    fn drop(&mut self) {
        // First off the list, so that a fork can't replace a number that is no
        // longer ours.
        let fd = self.node.swap(-1, Ordering::Relaxed);
        if fd >= 0 {
            // SAFETY: owned since `guard_fd`, and closed only here.
            unsafe { libc::close(fd) };
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
