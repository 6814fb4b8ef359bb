//! Files in the shared-memory file system, by name.
//!
//! Mapping itself goes through the `shared_memory` crate (see
//! [`crate::shm::map`]); this is what that crate leaves out: descriptors,
//! reservation of pages, permissions, publication under a final name.

use rustix::fs::{self, AtFlags, FallocateFlags, Mode, OFlags};
use rustix::io::Errno;
use std::os::fd::{AsFd, OwnedFd};

/// Where Linux keeps POSIX shared memory.
pub(crate) const DIRECTORY: &str = "/dev/shm";

/// What `fstat` tells of a segment file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stat {
    pub(crate) device: u64,
    pub(crate) inode: u64,
    pub(crate) len: u64,
    pub(crate) uid: u32,
    pub(crate) mode: u32,
    pub(crate) links: u64,
}

impl Stat {
    /// Whether both describe one file.
    pub(crate) fn same_file(&self, other: &Stat) -> bool {
        (self.device, self.inode) == (other.device, other.inode)
    }

    pub(crate) fn is_regular(&self) -> bool {
        fs::FileType::from_raw_mode(self.mode) == fs::FileType::RegularFile
    }
}

/// Opens an existing file for reading and writing, close-on-exec, refusing
/// symbolic links.
pub(crate) fn open(name: &str) -> Result<OwnedFd, Errno> {
    retry(|| {
        fs::open(
            path(name),
            OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK,
            Mode::empty(),
        )
    })
}

/// Facts about an open file.
pub(crate) fn stat(fd: impl AsFd) -> Result<Stat, Errno> {
    let s = fs::fstat(fd)?;
    Ok(from_raw(s))
}

/// Facts about the file that a name leads to.
pub(crate) fn stat_name(name: &str) -> Result<Stat, Errno> {
    let s = fs::statat(fs::CWD, path(name), AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(from_raw(s))
}

#[allow(clippy::unnecessary_cast, reason = "the fields' types differ between architectures")]
fn from_raw(s: fs::Stat) -> Stat {
    Stat {
        device: s.st_dev as u64,
        inode: s.st_ino as u64,
        len: s.st_size as u64,
        uid: s.st_uid,
        mode: s.st_mode,
        links: s.st_nlink as u64,
    }
}

/// Fails with FBIG if this process may not make a file of `len` bytes
/// (RLIMIT_FSIZE). Ask before `ftruncate` and `fallocate`: their answer is
/// SIGXFSZ, which kills.
pub(crate) fn check_len(len: u64) -> Result<(), Errno> {
    let mut limit = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: a live record to write to. Failure leaves it: no limit known.
    unsafe { libc::getrlimit(libc::RLIMIT_FSIZE, &raw mut limit) };
    if len <= limit.rlim_cur { Ok(()) } else { Err(Errno::FBIG) }
}

/// Sees to it that no file that is opened while the result lives gets
/// descriptor 0, in a process that has closed its standard input.
pub(crate) fn occupy_zero() -> Option<OwnedFd> {
    // SAFETY: a question about a number; no descriptor is used.
    if unsafe { libc::fcntl(0, libc::F_GETFD) } != -1 {
        return None;
    }
    // The lowest free number is the one that is given out.
    retry(|| fs::open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())).ok()
}

/// Reserves `len` bytes of memory, so that no later store can find the file
/// system full.
pub(crate) fn reserve(fd: impl AsFd, len: u64) -> Result<(), Errno> {
    retry(|| fs::fallocate(fd.as_fd(), FallocateFlags::empty(), 0, len))
}

/// Free bytes in the shared-memory file system; 0 if that can't be read.
pub(crate) fn available() -> u64 {
    fs::statvfs(DIRECTORY).map_or(0, |s| s.f_bavail.saturating_mul(s.f_frsize))
}

/// Sets the permission bits.
pub(crate) fn set_mode(fd: impl AsFd, mode: u32) -> Result<(), Errno> {
    fs::fchmod(fd, Mode::from_bits_truncate(mode))
}

/// Gives the file a second name; fails with EXIST if that is taken.
pub(crate) fn link(from: &str, to: &str) -> Result<(), Errno> {
    fs::linkat(fs::CWD, path(from), fs::CWD, path(to), AtFlags::empty())
}

/// Removes a name.
pub(crate) fn unlink(name: &str) -> Result<(), Errno> {
    fs::unlinkat(fs::CWD, path(name), AtFlags::empty())
}

/// Reads bytes at an offset; fewer at the end of the file.
pub(crate) fn read_at(fd: impl AsFd, buffer: &mut [u8], offset: u64) -> Result<usize, Errno> {
    retry(|| rustix::io::pread(fd.as_fd(), &mut *buffer, offset))
}

/// Names in the shared-memory directory that start with `prefix`.
pub(crate) fn names_with_prefix(prefix: &str) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(DIRECTORY) else { return Vec::new() };
    entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.starts_with(prefix))
        .collect()
}

/// The effective user.
pub(crate) fn user() -> u32 {
    rustix::process::geteuid().as_raw()
}

fn path(name: &str) -> String {
    format!("{DIRECTORY}/{name}")
}

/// Makes a call again for as long as signals interrupt it.
pub(crate) fn retry<R>(mut call: impl FnMut() -> Result<R, Errno>) -> Result<R, Errno> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            done => return done,
        }
    }
}
