//! Leases: byte locks that the kernel releases when their holder is gone.
//!
//! An *open file description* lock belongs to the description that took it, not
//! to the process: closing another descriptor of the file keeps it, threads
//! share it, and the last close (an exit, however violent, is one) frees it.
//! The description used here is never mapped, for a mapping would hold it open.
//!
//! The kernel tears a process's memory down before its files, so nothing is
//! stored to a segment by a process after its lease is free.

use super::fork::GuardedFd;
use rustix::io::Errno;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

/// A descriptor of a segment file, through which leases are held.
#[derive(Debug)]
pub(crate) struct LeaseFile {
    fd: GuardedFd,
}

/// Who holds a byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Probe {
    /// Nobody but, perhaps, this very description.
    Free,
    /// Another description.
    Held,
}

impl LeaseFile {
    pub(crate) fn new(fd: OwnedFd) -> Self {
        LeaseFile { fd: super::guard_fd(fd) }
    }

    /// The descriptor.
    pub(crate) fn fd(&self) -> io::Result<BorrowedFd<'_>> {
        self.fd.get().ok_or_else(|| Errno::BADF.into())
    }

    /// The file in a forked child, where it holds no lease yet. The one from
    /// before the fork must be leaked.
    pub(crate) fn after_fork(&self) -> Self {
        LeaseFile { fd: self.fd.take_over() }
    }

    /// Takes the byte unless another description holds it. Taking it twice
    /// through one `LeaseFile` succeeds: threads need a lock of their own.
    pub(crate) fn try_lock(&self, byte: u64) -> io::Result<bool> {
        match self.fcntl(libc::F_OFD_SETLK, libc::F_WRLCK, byte, 1) {
            Ok(_) => Ok(true),
            Err(e) => match Errno::from_io_error(&e) {
                Some(Errno::AGAIN | Errno::ACCESS) => Ok(false),
                _ => Err(e),
            },
        }
    }

    /// Gives the byte back.
    pub(crate) fn unlock(&self, byte: u64) -> io::Result<()> {
        self.fcntl(libc::F_OFD_SETLK, libc::F_UNLCK, byte, 1).map(drop)
    }

    /// Whether another description holds any of `len` bytes.
    pub(crate) fn probe(&self, byte: u64, len: u64) -> io::Result<Probe> {
        let lock = self.fcntl(libc::F_OFD_GETLK, libc::F_WRLCK, byte, len)?;
        Ok(if lock.l_type == libc::F_UNLCK as i16 { Probe::Free } else { Probe::Held })
    }

    fn fcntl(&self, command: i32, kind: i32, byte: u64, len: u64) -> io::Result<libc::flock> {
        let fd = self.fd()?;
        let mut lock = libc::flock {
            l_type: kind as i16,
            l_whence: libc::SEEK_SET as i16,
            l_start: byte as i64,
            l_len: len as i64,
            // Must be zero for locks of descriptions.
            l_pid: 0,
        };
        loop {
            // SAFETY: the descriptor is open, for it is borrowed, and
            // the pointer is to a live `flock`, which these commands read and,
            // for GETLK, write.
            let done = unsafe { libc::fcntl(fd.as_raw_fd(), command, &raw mut lock) };
            if done != -1 {
                return Ok(lock);
            }
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        }
    }
}
