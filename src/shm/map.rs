//! The mapping: the one place that uses the `shared_memory` crate.
//!
//! What is made up for here: the crate unlinks by name when the creator drops
//! (switched off at once), takes descriptor 0 for none and never closes it (so it
//! never gets that), its handle is not `Send`, and it opens by name, so that the caller must prove that the mapping and its own descriptor lead to
//! one file.

use crate::error::{Error, Result};
use crate::memory::Region;
use core::ptr::NonNull;
use rustix::io::Errno;
use rustix::mm::{Advice, madvise};
use shared_memory::{Shmem, ShmemConf, ShmemError};

/// A mapped file.
pub(crate) struct Map {
    shmem: Shmem,
    base: NonNull<u8>,
}

// SAFETY: the handle is an address, a length and a descriptor, used only to
// read those and to unmap on drop; the memory behind it is reached through
// `Region`s.
unsafe impl Send for Map {}
// SAFETY: as above.
unsafe impl Sync for Map {}

impl Map {
    /// Creates the file `name`, `len` bytes long, and maps it. Fails with
    /// `EXIST` if the name is taken. Touch no page before it is reserved.
    pub(crate) fn create(name: &str, len: usize) -> Result<Map, Errno> {
        Self::wrap(|| ShmemConf::new().os_id(format!("/{name}")).size(len).create())
    }

    /// Maps the file `name`, whole.
    pub(crate) fn open(name: &str) -> Result<Map, Errno> {
        Self::wrap(|| ShmemConf::new().os_id(format!("/{name}")).open())
    }

    fn wrap(make: impl Fn() -> Result<Shmem, ShmemError>) -> Result<Map, Errno> {
        let _zero = crate::os::shm::occupy_zero();
        // The crate takes back what it did before it fails, so a call that was
        // interrupted can be made again.
        let mut shmem = crate::os::shm::retry(|| {
            make().map_err(|error| match error {
                ShmemError::MappingIdExists => Errno::EXIST,
                ShmemError::MapCreateFailed(code)
                | ShmemError::MapOpenFailed(code)
                | ShmemError::UnknownOsError(code) => Errno::from_raw_os_error(code as i32),
                _ => Errno::INVAL,
            })
        })?;
        shmem.set_owner(false);
        let base = NonNull::new(shmem.as_ptr()).ok_or(Errno::INVAL)?;
        Ok(Map { shmem, base })
    }

    /// Length in bytes.
    pub(crate) fn len(&self) -> usize {
        self.shmem.len()
    }

    /// Enters every page into this process's page table, as far as the system
    /// can: no more than time is lost if not.
    pub(crate) fn populate(&self) {
        let base = self.base.as_ptr().cast();
        // SAFETY: this process's own mapping, whole; populating changes no byte.
        let _ = unsafe { madvise(base, self.len(), Advice::LinuxPopulateWrite) };
    }

    /// The first `len` bytes.
    pub(crate) fn region(&self, len: usize) -> Result<Region<'_>> {
        if len > self.len() {
            return Err(Error::Truncated { expected: len as u64, found: self.len() as u64 });
        }
        // SAFETY: mapped readable and writable for as long as `self`, which the
        // result borrows; reached only through regions.
        Ok(unsafe { Region::from_raw(self.base, len) })
    }
}
