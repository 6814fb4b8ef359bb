//! Creation, publication, opening and unlinking of segment files.
//!
//! *A segment is never visible half-made.* It is created under a private name,
//! its pages are reserved, its objects initialised and its creator's lease
//! taken, and only then linked to its own name, which fails if that is taken.
//! The maker holds [`CREATE_LOCK`] meanwhile; a private name whose file nobody
//! locks is the debris of a killed maker, and the next creator sweeps it.
//!
//! | killed | is left | and then |
//! |--------|---------|----------|
//! | before `link` | a private name, unlocked | swept by the next creation |
//! | between `link` and the removal of the private name | both names | the private one is swept |
//! | after | a segment with a dead participant | as for any dead participant |
//!
//! A maker that fails removes the private name itself. If the system refuses
//! that, the name is debris too, from the maker's end on.
//!
//! *The last one out* unlinks without any lock that a stopped process could
//! keep: a leaver gives its lease back, writes its mark to `retire`, looks for
//! other leases, and if there are none turns the mark into DOOMED and removes
//! the name. A joiner, who takes its lease before it looks at `retire`, erases
//! a mark (the leaver's change then fails) and flees from DOOMED. A leaver that
//! finds others takes its mark back, and each leaver tries until its mark
//! stands: so of those who leave at once the last to write its mark decides,
//! and by then all have given their leases back. Whoever replaces a stale
//! segment goes the same way.
//!
//! *Only its own file is unlinked.* Whoever unlinks holds [`UNLINK_LOCK`] of
//! the file while it checks that the name still leads there, so the name can't
//! change hands between the check and the removal.

use super::catalog::{self, Object};
use super::layout::{
    BYTE_ORDER, CATALOG_OFFSET, CREATE_LOCK, Fixed, LAYOUT_VERSION, LOCK_BASE, MAGIC,
    MAX_PARTICIPANTS, MUTABLE_OFFSET, Mutable, Participant, UNLINK_LOCK, checksum,
    participants_offset,
};
use super::map::Map;
use super::name;
use crate::error::{Error, Result};
use crate::os::points::point;
use crate::os::{self, LeaseFile, Probe, shm};
use crate::sync::STEP_BUDGET;
use bytemuck::Zeroable;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use rustix::io::Errno;
use std::os::fd::AsFd;

/// How often a race with another creator, opener or cleaner is run again.
const RETRIES: usize = 1000;

/// A mapped segment and the descriptor for leases, not yet attached to.
pub(crate) struct File {
    pub(crate) name: String,
    pub(crate) map: Map,
    pub(crate) lease: LeaseFile,
    pub(crate) fixed: Fixed,
    pub(crate) objects: Vec<Object>,
}

impl File {
    /// Whether any process is attached.
    pub(crate) fn is_held(&self) -> Result<bool> {
        somebody_holds(&self.lease).map_err(lock_error)
    }

    /// Removes the name of a segment that nobody holds; whether it did.
    pub(crate) fn retire(&self) -> bool {
        let Ok(region) = self.map.region(self.fixed.len as usize) else { return false };
        // SAFETY: inside the mapping (`check_fixed`), aligned, initialised by
        // the maker; atomics only.
        let mutable = unsafe { region.at::<Mutable>(MUTABLE_OFFSET).as_ref() };
        retire(mutable, &self.name, &self.lease)
    }
}

/// Whether any participant's lease is held through another description.
fn somebody_holds(lease: &LeaseFile) -> std::io::Result<bool> {
    Ok(lease.probe(LOCK_BASE + 1, MAX_PARTICIPANTS as u64)? == Probe::Held)
}

/// In `retire`: the name is as good as removed.
pub(crate) const DOOMED: u64 = u64::MAX;

/// Removes the name if nobody holds a lease; whether it did. The caller holds
/// none (any more). If somebody else is at it, or comes, it is theirs to do.
pub(crate) fn retire(mutable: &Mutable, name: &str, lease: &LeaseFile) -> bool {
    // SeqCst here and in `join`: either we see a joiner's lease, or it sees our
    // mark. (The locks' system calls order them in practice.)
    let retire = &mutable.retire;
    // Neither zero nor DOOMED.
    let mark = os::random() >> 1 | 1;
    let mut tries = 0..STEP_BUDGET;
    loop {
        let seen = retire.load(Ordering::SeqCst);
        point("retire.seen");
        if seen == DOOMED {
            // Whoever doomed it may have been killed before it removed the name.
            break;
        }
        if retire.compare_exchange(seen, mark, Ordering::SeqCst, Ordering::SeqCst).is_ok() {
            point("retire.marked");
            let held = somebody_holds(lease);
            point("retire.probed");
            let next = if matches!(held, Ok(false)) { DOOMED } else { 0 };
            let done = retire.compare_exchange(mark, next, Ordering::SeqCst, Ordering::SeqCst);
            point("retire.decided");
            if done.is_err() || next != DOOMED {
                return false;
            }
            break;
        }
        // Whoever changed it may have looked for leases before ours was free,
        // and taken its own mark back for that: nobody can be relied on.
        if tries.next().is_none() {
            return false;
        }
    }
    unlink_same(name, lease).is_ok_and(|removed| removed)
}

/// What a new segment shall be.
pub(crate) struct Plan<'a> {
    pub(crate) objects: Vec<Object>,
    pub(crate) participants: usize,
    pub(crate) wait_mode: u32,
    pub(crate) unlink: u32,
    /// Permission bits.
    pub(crate) mode: u32,
    /// Writes the objects into the new, zeroed file.
    pub(crate) init: &'a dyn Fn(&File) -> Result<()>,
}

fn lock_error(source: std::io::Error) -> Error {
    Error::Os { call: "fcntl(F_OFD_SETLK)", source }
}

/// Makes a segment and publishes it. `join` attaches the maker before anybody
/// can see the segment.
pub(crate) fn create<A>(
    name: &str,
    plan: &Plan<'_>,
    join: impl Fn(File) -> Result<A>,
) -> Result<A> {
    name::check_segment(name)?;
    let exists = || Error::AlreadyExists { name: name.to_owned() };
    sweep_debris();
    for _ in 0..RETRIES {
        if shm::stat_name(name).is_ok() {
            return Err(exists());
        }
        let private = name::private();
        // From here on the private name is removed whatever happens.
        let made = make(&private, plan).and_then(|made| match made {
            None => Ok(None),
            Some(file) => {
                let attached = join(File { name: name.to_owned(), ..file })?;
                point("create.leased");
                match shm::link(&private, name) {
                    Ok(()) => {
                        point("create.linked");
                        Ok(Some(attached))
                    }
                    Err(Errno::EXIST) => Err(exists()),
                    // Taken for debris before it was locked.
                    Err(Errno::NOENT) => Ok(None),
                    Err(errno) => Err(Error::os("link", errno)),
                }
            }
        });
        let _ = shm::unlink(&private);
        if let Some(attached) = made? {
            // Not on the way to another try.
            point("create.private-removed");
            return Ok(attached);
        }
    }
    Err(Error::os("link", Errno::AGAIN))
}

/// Makes the file under its private name; `None` if it was swept meanwhile or
/// the name was taken.
fn make(private: &str, plan: &Plan<'_>) -> Result<Option<File>> {
    let mut objects = plan.objects.clone();
    let len = catalog::place(&mut objects, plan.participants)?;
    shm::check_len(len as u64).map_err(|errno| Error::os("ftruncate", errno))?;
    let map = match Map::create(private, len) {
        Ok(map) => map,
        Err(Errno::EXIST) => return Ok(None),
        Err(Errno::NOSPC) => return Err(no_space(len)),
        Err(errno) => return Err(Error::os("shm_open, ftruncate or mmap", errno)),
    };
    point("create.made");
    let fd = match shm::open(private) {
        Ok(fd) => fd,
        Err(Errno::NOENT) => return Ok(None),
        Err(errno) => return Err(Error::os("open", errno)),
    };
    let lease = LeaseFile::new(fd);
    if !lease.try_lock(CREATE_LOCK).map_err(lock_error)? {
        return Ok(None);
    }
    point("create.locked");
    let fd = lease.fd().map_err(lock_error)?;
    match shm::reserve(fd, len as u64) {
        Ok(()) => {}
        Err(Errno::NOSPC) => return Err(no_space(len)),
        Err(errno) => return Err(Error::os("fallocate", errno)),
    }
    point("create.reserved");
    shm::set_mode(fd, plan.mode).map_err(|errno| Error::os("fchmod", errno))?;
    point("create.mode");

    let entries = catalog::encode(&objects);
    let mut fixed = Fixed {
        magic: MAGIC,
        version: LAYOUT_VERSION,
        byte_order: BYTE_ORDER,
        len: len as u64,
        nonce: [os::random(), os::random()],
        wait_mode: plan.wait_mode,
        unlink: plan.unlink,
        participants: plan.participants as u32,
        objects: objects.len() as u32,
        checksum: 0,
        mode: plan.mode,
        creator: os::pid(),
        ..Fixed::zeroed()
    };
    fixed.checksum = checksum(&fixed, &entries);
    let region = map.region(len)?;
    // SAFETY: `place` put the objects behind header, catalog and participants,
    // all inside `len`, which is mapped and reserved; nobody else knows the
    // private name's contents to be a segment. Alignments: the mapping starts
    // on a page, and each part at a multiple of its alignment.
    unsafe {
        region.at::<Fixed>(0).write(fixed);
        point("create.fixed");
        region.at::<Mutable>(MUTABLE_OFFSET).write(Mutable { retire: AtomicU64::new(0) });
        point("create.mutable");
        let to = region.at::<u8>(CATALOG_OFFSET).as_ptr();
        to.copy_from_nonoverlapping(entries.as_ptr(), entries.len());
        point("create.catalog");
    }
    let table = participants_offset(objects.len()).unwrap_or(len);
    for i in 0..plan.participants {
        let free = Participant {
            state: AtomicU64::new(0),
            uses: AtomicU64::new(0),
            start_time: AtomicU64::new(0),
            pid: AtomicU32::new(0),
            label_len: AtomicU32::new(0),
            label: [const { AtomicU64::new(0) }; _],
        };
        // SAFETY: `place` left room for this many participants before the first
        // object; alignment as above.
        unsafe { region.at::<Participant>(table + i * size_of::<Participant>()).write(free) };
        point("create.participant");
    }
    let file = File { name: String::new(), map, lease, fixed, objects };
    // The descriptor and the mapping were opened by name, one after the other.
    if read_fixed(&file.lease)?.is_none_or(|read| read.nonce != fixed.nonce) {
        return Ok(None);
    }
    (plan.init)(&file)?;
    Ok(Some(file))
}

fn no_space(len: usize) -> Error {
    Error::NoSpace { needed: len as u64, available: shm::available() }
}

/// The header of the file; `None` if it is shorter.
fn read_fixed(lease: &LeaseFile) -> Result<Option<Fixed>> {
    let mut fixed = Fixed::zeroed();
    let fd = lease.fd().map_err(lock_error)?;
    let bytes = bytemuck::bytes_of_mut(&mut fixed);
    let read = shm::read_at(fd, bytes, 0).map_err(|errno| Error::os("pread", errno))?;
    Ok((read == size_of::<Fixed>()).then_some(fixed))
}

/// Opens and validates a segment. Nothing later re-reads what is checked here.
/// Another user's segment is opened only if `group` says that the group is
/// trusted.
pub(crate) fn open(name: &str, group: bool) -> Result<File> {
    name::check_segment(name)?;
    for _ in 0..RETRIES {
        let fd = open_fd(name)?;
        let stat = shm::stat(&fd).map_err(|errno| Error::os("fstat", errno))?;
        let not_one = || Error::NotASegment { name: name.to_owned() };
        if !stat.is_regular() {
            return Err(not_one());
        }
        let denied = |why| Error::PermissionDenied { name: name.to_owned(), why };
        if stat.mode & 0o002 != 0 {
            return Err(denied("everybody may write to it"));
        }
        if stat.uid != shm::user() && !(group && stat.mode & 0o060 == 0o060) {
            return Err(denied("it belongs to another user; to trust the group, ask for that"));
        }
        let lease = LeaseFile::new(fd);
        let Some(fixed) = read_fixed(&lease)? else { return Err(not_one()) };
        if fixed.magic != MAGIC {
            return Err(not_one());
        }
        if fixed.byte_order != BYTE_ORDER {
            return Err(Error::Corrupt { what: "byte order in the header, byte", at: 12 });
        }
        if fixed.version != LAYOUT_VERSION {
            return Err(Error::LayoutVersion { found: fixed.version, expected: LAYOUT_VERSION });
        }
        if stat.len < fixed.len {
            return Err(Error::Truncated { expected: fixed.len, found: stat.len });
        }
        if stat.len != fixed.len {
            return Err(Error::Corrupt { what: "length in the header, byte", at: 16 });
        }
        let mut entries = vec![0; catalog::check_fixed(&fixed)?];
        let fd = lease.fd().map_err(lock_error)?;
        let read = shm::read_at(fd, &mut entries, CATALOG_OFFSET as u64)
            .map_err(|errno| Error::os("pread", errno))?;
        if read != entries.len() {
            return Err(Error::Truncated { expected: fixed.len, found: stat.len });
        }
        let objects = catalog::decode(&fixed, &entries)?;
        let map = match Map::open(name) {
            Ok(map) => map,
            Err(Errno::NOENT) => continue,
            Err(errno) => return Err(Error::os("shm_open or mmap", errno)),
        };
        // `check_fixed` passed, so the length covers the header.
        let Ok(region) = map.region(fixed.len as usize) else { continue };
        // SAFETY: the header lies inside the mapping, aligned; `Fixed` is Pod.
        // Volatile: another process may be writing, if it is hostile.
        let mapped: Fixed = unsafe { region.at::<Fixed>(0).read_volatile() };
        if mapped.nonce == fixed.nonce {
            return Ok(File { name: name.to_owned(), map, lease, fixed, objects });
        }
        // The name changed hands between the two openings.
    }
    Err(Error::os("shm_open", Errno::AGAIN))
}

fn open_fd(name: &str) -> Result<std::os::fd::OwnedFd> {
    shm::open(name).map_err(|errno| match errno {
        Errno::NOENT => Error::NotFound { name: name.to_owned() },
        Errno::ACCESS | Errno::PERM => Error::PermissionDenied {
            name: name.to_owned(),
            why: "its mode does not let this user read and write",
        },
        Errno::LOOP => {
            Error::PermissionDenied { name: name.to_owned(), why: "it is a symbolic link" }
        }
        Errno::ISDIR | Errno::NXIO => Error::NotASegment { name: name.to_owned() },
        errno => Error::os("open", errno),
    })
}

/// Removes the name of a segment, whoever is attached to it, alive or dead.
pub(crate) fn unlink(name: &str) -> Result<()> {
    name::check_segment(name)?;
    let lease = LeaseFile::new(open_fd(name)?);
    // Length and contents may be damaged; only what is no segment at all is
    // left alone.
    match read_fixed(&lease)? {
        Some(fixed) if fixed.magic == MAGIC => {}
        _ => return Err(Error::NotASegment { name: name.to_owned() }),
    }
    unlink_same(name, &lease).map(drop)
}

/// Removes the name if it leads to this file; whether it did. Another process
/// that is unlinking the same file is waited for, within limits.
pub(crate) fn unlink_same(name: &str, lease: &LeaseFile) -> Result<bool> {
    let fd = lease.fd().map_err(lock_error)?;
    let leads_here = || match (shm::stat(fd), shm::stat_name(name)) {
        (Ok(ours), Ok(named)) => Ok(ours.same_file(&named)),
        (_, Err(Errno::NOENT)) => Ok(false),
        (Err(errno), _) | (_, Err(errno)) => Err(Error::os("fstat", errno)),
    };
    for _ in 0..RETRIES {
        if !leads_here()? {
            return Ok(false);
        }
        if !lease.try_lock(UNLINK_LOCK).map_err(lock_error)? {
            std::thread::sleep(std::time::Duration::from_micros(200));
            continue;
        }
        point("unlink.locked");
        // Once more under the lock: nobody else removes this name now.
        let done = leads_here().and_then(|still| match still.then(|| shm::unlink(name)) {
            None | Some(Err(Errno::NOENT)) => Ok(false),
            Some(Ok(())) => Ok(true),
            Some(Err(errno)) => Err(Error::os("unlink", errno)),
        });
        point("unlink.removed");
        let _ = lease.unlock(UNLINK_LOCK);
        point("unlink.unlocked");
        return done;
    }
    Err(Error::Busy { what: "the segment's name", pid: 0 })
}

/// Removes private names that a killed maker left.
fn sweep_debris() {
    for private in name::private_names() {
        let Ok(fd) = shm::open(&private) else { continue };
        if !shm::stat(fd.as_fd()).is_ok_and(|s| s.is_regular() && s.uid == shm::user()) {
            continue;
        }
        let lease = LeaseFile::new(fd);
        if lease.try_lock(CREATE_LOCK).is_ok_and(|free| free) {
            point("debris.locked");
            let _ = shm::unlink(&private);
            point("debris.removed");
        }
    }
}
