//! What the targets share: names that are cleaned up, and attachments that die.

use slipring::Segment;
use std::os::fd::RawFd;
use std::sync::Once;

/// This target's name in `/dev/shm`, which is removed when an assertion fails,
/// since the process is aborted then.
pub fn name(target: &str) -> String {
    static ONCE: Once = Once::new();
    let name = format!("slipring-fuzz-{target}-{}", std::process::id());
    let path = format!("/dev/shm/{name}");
    ONCE.call_once(move || {
        let previous = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let _ = std::fs::remove_file(&path);
            previous(info);
        }));
    });
    name
}

/// An attachment that can die as its process would: its lease is free, and what
/// it holds is left as it is.
///
/// The lease is a lock of an open file description, so it is given back through
/// the attachment's descriptors, as the kernel does it for a killed process.
/// Whoever holds handles of a dead attachment must leave them alone until the
/// segment is no longer looked at, and then drop them.
pub struct Party {
    pub segment: Segment,
    /// The descriptors that came with the attachment.
    descriptors: Vec<RawFd>,
}

/// Descriptors below this are looked at. Fuzzers have few.
const DESCRIPTORS: RawFd = 256;

fn is_open(fd: RawFd) -> bool {
    // SAFETY: takes no pointers.
    unsafe { libc::fcntl(fd, libc::F_GETFD) != -1 }
}

impl Party {
    /// Attaches by creating or opening.
    pub fn new(attach: impl FnOnce() -> slipring::Result<Segment>) -> slipring::Result<Party> {
        let free: Vec<RawFd> = (0..DESCRIPTORS).filter(|fd| !is_open(*fd)).collect();
        let segment = attach()?;
        let descriptors: Vec<RawFd> = free.into_iter().filter(|fd| is_open(*fd)).collect();
        assert!(!descriptors.is_empty(), "too many descriptors");
        Ok(Party { segment, descriptors })
    }

    /// Gives the lease back and does nothing else. The observer sees it happen.
    pub fn die(&self, observer: &Party) {
        let id = self.segment.participants().unwrap().iter().find(|p| p.is_self).unwrap().id;
        let alive =
            || observer.segment.participants().unwrap().iter().any(|p| p.id == id && p.alive);
        assert!(alive());
        for fd in &self.descriptors {
            let mut all = libc::flock {
                l_type: libc::F_UNLCK as i16,
                l_whence: libc::SEEK_SET as i16,
                l_start: 0,
                l_len: 0,
                l_pid: 0,
            };
            // SAFETY: the pointer is to a live `flock`, which is only read.
            let done = unsafe { libc::fcntl(*fd, libc::F_OFD_SETLK, &raw mut all) };
            assert_eq!(done, 0);
        }
        assert!(!alive(), "it has its lease through another descriptor");
    }
}
