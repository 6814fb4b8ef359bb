//! A segment as a peer sees it that keeps to no protocol.

use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};

/// Where header and catalog lie: see `src/shm/layout.rs`.
pub const HEADER: usize = 128;
pub const CATALOG: usize = 256;
pub const ENTRY: usize = 256;
const CHECKSUM: usize = 56;

pub fn path(name: &str) -> PathBuf {
    PathBuf::from("/dev/shm").join(name)
}

/// The file's bytes.
pub fn read(name: &str) -> Vec<u8> {
    std::fs::read(path(name)).unwrap()
}

/// A new file of these bytes.
pub fn write(name: &str, bytes: &[u8]) {
    let _ = std::fs::remove_file(path(name));
    std::fs::write(path(name), bytes).unwrap();
    std::fs::set_permissions(path(name), PermissionsExt::from_mode(0o600)).unwrap();
}

/// Makes the checksum right for this many objects, as a hostile peer would.
pub fn seal(bytes: &mut [u8], objects: usize) {
    bytes[CHECKSUM..CHECKSUM + 8].fill(0);
    let covered = bytes[..HEADER].iter().chain(&bytes[CATALOG..CATALOG + ENTRY * objects]);
    let sum = covered.fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    bytes[CHECKSUM..CHECKSUM + 8].copy_from_slice(&sum.to_le_bytes());
}

/// The mapped file.
pub struct Mapped {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: reached through atomics alone.
unsafe impl Send for Mapped {}
// SAFETY: as above.
unsafe impl Sync for Mapped {}

impl Mapped {
    pub fn open(name: &str) -> Mapped {
        let file = std::fs::File::options().read(true).write(true).open(path(name)).unwrap();
        let len = file.metadata().unwrap().len() as usize;
        // SAFETY: a new mapping of an open file.
        let base = unsafe {
            let access = libc::PROT_READ | libc::PROT_WRITE;
            libc::mmap(std::ptr::null_mut(), len, access, libc::MAP_SHARED, file.as_raw_fd(), 0)
        };
        assert_ne!(base, libc::MAP_FAILED);
        Mapped { base: NonNull::new(base.cast()).unwrap(), len }
    }

    pub fn len(&self) -> usize {
        self.len
    }

    fn at<T>(&self, offset: usize) -> &T {
        assert!(offset + size_of::<T>() <= self.len && offset.is_multiple_of(align_of::<T>()));
        // SAFETY: mapped for as long as `self`, in bounds and aligned, as
        // asserted; `T` is an atomic.
        unsafe { self.base.add(offset).cast().as_ref() }
    }

    /// The word at a multiple of 8.
    pub fn word(&self, offset: usize) -> &AtomicU64 {
        self.at(offset)
    }

    /// The word at a multiple of 4.
    pub fn half(&self, offset: usize) -> &AtomicU32 {
        self.at(offset)
    }

    pub fn byte(&self, offset: usize) -> &AtomicU8 {
        self.at(offset)
    }

    /// Offsets of the words that are others after the action.
    pub fn changed(&self, action: impl FnOnce()) -> Vec<usize> {
        let all = || (0..self.len / 8).map(|i| self.word(8 * i).load(Ordering::SeqCst));
        let before: Vec<u64> = all().collect();
        action();
        let after = all().zip(before).enumerate();
        after.filter(|(_, (now, before))| now != before).map(|(i, _)| 8 * i).collect()
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: mapped in `open`; references borrow `self`.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.len) };
    }
}
