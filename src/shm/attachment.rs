//! Who is attached, who is alive, and what is done about the dead.
//!
//! An attachment takes a free entry of the participants' table and holds the
//! *lease* of that entry: a byte lock that the kernel frees when the process is
//! gone, and not before. Everything that a process holds in a segment (a slot,
//! a lock, an end of a pipe, a role) is a word that names its entry. So:
//!
//! - *alive* means that the lease is locked; no clock decides;
//! - *recovery* of a dead owner takes its lease first, so that the entry can't
//!   be given out and no other recoverer interferes, repairs each word that
//!   names it, frees the entry, wakes everybody, and gives the lease back;
//! - each of those steps may be repeated, so a recoverer that is killed leaves
//!   nothing but the same work for the next one;
//! - whoever finds a free lease on an entry in use while joining recovers it
//!   before taking it.
//!
//! The last one out removes the segment's name: see [`file::retire`].

use super::file::{self, DOOMED, File};
use super::layout::{LABEL, MUTABLE_OFFSET, Mutable, Participant, lease_byte, participants_offset};
use super::map::Map;
use crate::error::{Error, Result};
use crate::memory::Region;
use crate::os::{self, LeaseFile, Probe, points::point};
use crate::ring::Owner;
use crate::shm::catalog::Object;
use crate::wait;
use core::ptr;
use core::sync::atomic::{AtomicPtr, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// What becomes of a segment's name when its users go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(u32)]
#[non_exhaustive]
pub enum Unlink {
    /// The last process to detach removes it. The default: nothing is left
    /// behind, but by processes that were all killed, or where the system
    /// refuses to remove it; opening it again makes up for that.
    #[default]
    LastOut = 0,
    /// The handle that created it removes it when dropped; processes that are
    /// attached by then go on with the nameless segment.
    Creator = 1,
    /// It stays until [`Segment::unlink`](crate::Segment::unlink).
    Persist = 2,
}

impl Unlink {
    pub(crate) fn from_raw(raw: u32) -> Option<Unlink> {
        [Unlink::LastOut, Unlink::Creator, Unlink::Persist]
            .into_iter()
            .find(|unlink| *unlink as u32 == raw)
    }
}

/// What the layer above does with an owner's words in the segment's objects.
pub(crate) type Sweep = fn(&Attachment, Owner);

/// A process, as the table describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ParticipantInfo {
    /// Number of its entry, from 1: the owner in words.
    pub id: u16,
    /// Process, in its own PID namespace.
    pub pid: u32,
    /// Label that it chose, or its command's name.
    pub label: String,
    /// Whether it still holds its lease.
    pub alive: bool,
    /// Whether it is this attachment.
    pub is_self: bool,
    /// Start of the process in clock ticks since boot; 0 if unknown.
    pub start_time: u64,
    /// What it does, object by object, such as `"orders: sender"`.
    pub roles: Vec<String>,
}

/// One process's hold on a segment. Handles share it; dropping the last one
/// detaches.
pub(crate) struct Attachment {
    name: String,
    map: Map,
    len: usize,
    participants: usize,
    objects: Vec<Object>,
    unlink: Unlink,
    /// Whether sleepers run `membarrier`.
    pub(crate) asymmetric: bool,
    /// The process generation that created it, if this attachment did.
    created: Option<u32>,
    label: String,
    sweep: Sweep,
    settle: Sweep,
    /// The lease of this process: replaced in a forked child, where the one
    /// from before is leaked, for it is the parent's.
    lease: AtomicPtr<Lease>,
    /// Where the next check of the living goes on.
    checked: AtomicU64,
    /// Objects of which this attachment may have but one handle, and has.
    exclusive: Mutex<Vec<usize>>,
}

/// A number in the table and the right to it.
struct Lease {
    file: LeaseFile,
    me: Owner,
    /// Of the process that took it.
    generation: u32,
    /// Threads share the lease file, whose locks don't exclude them from one
    /// another.
    recovering: Mutex<()>,
}

impl Lease {
    /// Of an entry that this process has just taken through the file.
    fn new(me: Owner, file: LeaseFile) -> Lease {
        Lease { file, me, generation: os::generation(), recovering: Mutex::new(()) }
    }
}

/// What a handle keeps: a number, and the process it belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) me: Owner,
    generation: u32,
}

impl Identity {
    /// Whether this is still the process that the number was given to.
    #[inline(always)]
    pub(crate) fn is_current(&self) -> bool {
        self.generation == os::generation()
    }

    /// The same, never current again.
    pub(crate) fn expired(self) -> Identity {
        Identity { generation: self.generation.wrapping_sub(1), ..self }
    }
}

/// How an attachment is made.
pub(crate) struct Manner {
    /// Repairs what a dead owner held, and wakes whoever waits there.
    pub(crate) sweep: Sweep,
    /// Gives back what an owner that is leaving still holds.
    pub(crate) settle: Sweep,
    pub(crate) asymmetric: bool,
    pub(crate) created: bool,
    pub(crate) label: Option<String>,
}

fn lock_error(source: std::io::Error) -> Error {
    Error::Os { call: "fcntl(F_OFD_SETLK)", source }
}

impl Attachment {
    /// Attaches to a validated segment. `None` if the segment is being
    /// unlinked: open it again.
    pub(crate) fn join(file: File, manner: Manner) -> Result<Option<Attachment>> {
        let Some(unlink) = Unlink::from_raw(file.fixed.unlink) else {
            return Err(Error::Corrupt { what: "unlink policy in the header, byte", at: 44 });
        };
        wait::warm_up();
        let attachment = Attachment {
            name: file.name,
            len: file.fixed.len as usize,
            participants: file.fixed.participants as usize,
            objects: file.objects,
            map: file.map,
            unlink,
            asymmetric: manner.asymmetric,
            created: manner.created.then(os::generation),
            label: manner.label.unwrap_or_else(os::command_name),
            sweep: manner.sweep,
            settle: manner.settle,
            lease: AtomicPtr::new(ptr::null_mut()),
            checked: AtomicU64::new(0),
            exclusive: Mutex::new(Vec::new()),
        };
        attachment.map.region(attachment.len)?;
        let lease = Lease::new(attachment.take_entry(&file.lease)?, file.lease);
        // A maker joins before the file has its name. Where it can't be told,
        // the segment is used like any whose name is removed a moment later.
        let nameless = !manner.created
            && lease.file.fd().is_ok_and(|fd| os::shm::stat(fd).is_ok_and(|stat| stat.links == 0));
        if attachment.is_doomed() || nameless {
            // The leaver may have been killed before it got to this. If it has
            // stopped in the midst of it instead, the name is not to be had.
            let removed = file::unlink_same(&attachment.name, &lease.file);
            attachment.vacate(lease.me);
            return removed.map(|_| None);
        }
        attachment.lease.store(Box::into_raw(Box::new(lease)), Ordering::Release);
        Ok(Some(attachment))
    }

    /// Erases the mark of a leaver; whether it is too late for that. For those
    /// who have just taken a lease.
    fn is_doomed(&self) -> bool {
        // SeqCst here and in `retire`: either the leaver sees our lease, or we
        // see its mark. (The locks' system calls order them in practice.)
        let retire = &self.mutable().retire;
        let mut mark = retire.load(Ordering::SeqCst);
        while mark != 0 && mark != DOOMED {
            match retire.compare_exchange(mark, 0, Ordering::SeqCst, Ordering::SeqCst) {
                Ok(_) => {
                    point("attach.mark-erased");
                    mark = 0;
                }
                Err(now) => mark = now,
            }
        }
        mark == DOOMED
    }

    /// Takes the first entry that nobody alive holds, and its lease through this
    /// file. A failure leaves the file as it was: a forked child may try again.
    fn take_entry(&self, file: &LeaseFile) -> Result<Owner> {
        // Entries marked free first; then those of the dead.
        for free_only in [true, false] {
            for number in 1..=self.participants as u16 {
                let Some(owner) = Owner::new(number) else { continue };
                let entry = self.participant(owner);
                if free_only && entry.state.load(Ordering::Relaxed) != 0 {
                    continue;
                }
                if !file.try_lock(lease_byte(owner)).map_err(lock_error)? {
                    continue;
                }
                point("attach.leased");
                // The lease is ours, so the entry stays as it is. Acquire: the
                // last holder's clearing of the entry.
                if entry.state.load(Ordering::Acquire) != 0 {
                    (self.sweep)(self, owner);
                    point("attach.swept");
                }
                self.fill(owner);
                return Ok(owner);
            }
        }
        Err(Error::ParticipantsFull { max: self.participants })
    }

    /// Describes this process in its entry. Marked as used first: nothing may
    /// name the entry before.
    fn fill(&self, owner: Owner) {
        let entry = self.participant(owner);
        let uses = entry.uses.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        point("attach.uses");
        entry.state.store(uses.max(1), Ordering::Release);
        point("attach.state");
        entry.pid.store(os::pid(), Ordering::Relaxed);
        point("attach.pid");
        entry.start_time.store(os::start_time(), Ordering::Relaxed);
        point("attach.start-time");
        let mut label = [0u8; LABEL];
        let mut len = self.label.len().min(LABEL);
        while !self.label.is_char_boundary(len) {
            len -= 1;
        }
        label[..len].copy_from_slice(&self.label.as_bytes()[..len]);
        for (word, bytes) in entry.label.iter().zip(label.chunks_exact(8)) {
            word.store(u64::from_ne_bytes(bytes.try_into().unwrap_or_default()), Ordering::Relaxed);
            point("attach.label");
        }
        entry.label_len.store(len as u32, Ordering::Relaxed);
        point("attach.label-len");
    }

    /// The name it was opened by.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Whether this process created it, through this attachment.
    pub(crate) fn created(&self) -> bool {
        self.created == Some(os::generation())
    }

    pub(crate) fn unlink_policy(&self) -> Unlink {
        self.unlink
    }

    /// Length of the segment in bytes.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Size of the participants' table.
    pub(crate) fn max_participants(&self) -> usize {
        self.participants
    }

    pub(crate) fn objects(&self) -> &[Object] {
        &self.objects
    }

    /// The object of this name.
    pub(crate) fn object(&self, name: &str) -> Result<&Object> {
        self.objects.iter().find(|object| object.name == name).ok_or_else(|| Error::ObjectUnknown {
            object: name.to_owned(),
            known: self.objects.iter().map(|object| object.name.clone()).collect(),
        })
    }

    /// The only object of a one-object segment.
    pub(crate) fn only_object(&self) -> Result<&Object> {
        match self.objects.as_slice() {
            [only] => Ok(only),
            _ => self.object(""),
        }
    }

    fn whole(&self) -> Region<'_> {
        // SAFETY: `join` checked that the mapping covers `len`.
        unsafe {
            match self.map.region(self.len) {
                Ok(region) => region,
                Err(_) => core::hint::unreachable_unchecked(),
            }
        }
    }

    /// The memory of one of this segment's objects.
    ///
    /// # Safety
    ///
    /// The result must not be used after the attachment is dropped.
    pub(crate) unsafe fn region(&self, object: &Object) -> Result<Region<'static>> {
        let outside =
            Error::Corrupt { what: "object outside the segment at", at: object.offset as u64 };
        let part = self.whole().part(object.offset, object.len).ok_or(outside)?;
        // SAFETY: inside the mapping, which lives as long as the attachment;
        // the caller promises not to outlive that.
        Ok(unsafe { Region::from_raw(part.base(), part.len()) })
    }

    fn mutable(&self) -> &Mutable {
        // SAFETY: inside the mapping (`check_fixed`), aligned, initialised by
        // the maker; atomics only.
        unsafe { self.whole().at::<Mutable>(MUTABLE_OFFSET).as_ref() }
    }

    fn participant(&self, owner: Owner) -> &Participant {
        let table = participants_offset(self.objects.len()).unwrap_or(0);
        let index = (usize::from(owner.get()) - 1).min(self.participants - 1);
        // SAFETY: `check_fixed` found room for `participants` entries between
        // the catalog and the first object; aligned to 128; atomics only.
        unsafe { self.whole().at(table + index * size_of::<Participant>()).as_ref() }
    }

    /// Maps every page now.
    pub(crate) fn prefault(&self) {
        self.map.populate();
    }

    /// This process's number. In a forked child the first call attaches anew.
    pub(crate) fn identity(&self) -> Result<Identity> {
        let lease = self.lease()?;
        Ok(Identity { me: lease.me, generation: lease.generation })
    }

    /// The same, unless this is a forked child that has yet to attach.
    #[inline(always)]
    pub(crate) fn identity_at_hand(&self) -> Option<Identity> {
        // Acquire and SAFETY: as in `lease`.
        let lease = unsafe { &*self.lease.load(Ordering::Acquire) };
        let identity = Identity { me: lease.me, generation: lease.generation };
        if identity.is_current() { Some(identity) } else { None }
    }

    fn lease(&self) -> Result<&Lease> {
        // Acquire: pairs with the Release that put the lease there.
        let current = self.lease.load(Ordering::Acquire);
        // SAFETY: set once in `join`, replaced only in a forked child, where
        // the old one is leaked; freed in `drop`.
        let lease = unsafe { &*current };
        if lease.generation == os::generation() { Ok(lease) } else { self.lease_after_fork(lease) }
    }

    #[cold]
    fn lease_after_fork(&self, parents: &Lease) -> Result<&Lease> {
        // Threads of the child must not do this twice; a mutex made before the
        // fork might be locked for ever by a thread that was not copied.
        static RENEWING: AtomicU64 = AtomicU64::new(0);
        let mine = u64::from(os::generation()) << 1 | 1;
        loop {
            let seen = RENEWING.load(Ordering::Relaxed);
            if seen != mine
                && RENEWING
                    .compare_exchange(seen, mine, Ordering::Acquire, Ordering::Relaxed)
                    .is_ok()
            {
                break;
            }
            std::thread::yield_now();
        }
        let result = (|| {
            let current = self.lease.load(Ordering::Acquire);
            // SAFETY: as in `lease`.
            let lease = unsafe { &*current };
            if lease.generation == os::generation() {
                return Ok(lease);
            }
            if self.asymmetric && !os::membarrier_register() {
                return Err(Error::os("membarrier", rustix::io::Errno::NOSYS));
            }
            let me = self.take_entry(&parents.file)?;
            if self.is_doomed() {
                // The parent was the last one out, and the name is gone.
                self.vacate(me);
                let _ = parents.file.unlock(lease_byte(me));
                return Err(Error::NotFound { name: self.name.clone() });
            }
            let fresh = Box::into_raw(Box::new(Lease::new(me, parents.file.after_fork())));
            self.lease.store(fresh, Ordering::Release);
            // SAFETY: just made, freed only in `drop`.
            Ok(unsafe { &*fresh })
        })();
        RENEWING.store(0, Ordering::Release);
        result
    }

    /// Whether `owner` still holds its lease. Unknown counts as alive.
    pub(crate) fn is_alive(&self, owner: Owner) -> bool {
        let Ok(lease) = self.lease() else { return true };
        owner == lease.me || !matches!(lease.file.probe(lease_byte(owner), 1), Ok(Probe::Free))
    }

    /// Recovers `dead` unless it is alive or somebody else is at it; whether it
    /// did (if there was anything to do).
    pub(crate) fn recover(&self, dead: Owner) -> Result<bool> {
        if usize::from(dead.get()) > self.participants {
            return Err(Error::Corrupt {
                what: "owner outside the participants' table,",
                at: dead.get().into(),
            });
        }
        let lease = self.lease()?;
        if dead == lease.me {
            return Ok(false);
        }
        let _threads = lease.recovering.lock().unwrap_or_else(PoisonError::into_inner);
        if !lease.file.try_lock(lease_byte(dead)).map_err(lock_error)? {
            return Ok(false);
        }
        point("recover.locked");
        // From here on the number is ours: it can't be given out, and what its
        // holder stored is all there will be.
        // The entry may be free: somebody else has recovered it meanwhile, or
        // the word is damaged and names nobody. It is repaired all the same, or
        // it would be waited for for ever. Acquire: the last holder's clearing
        // of the entry.
        self.participant(dead).state.load(Ordering::Acquire);
        (self.sweep)(self, dead);
        point("recover.swept");
        self.vacate(dead);
        lease.file.unlock(lease_byte(dead)).map_err(lock_error)?;
        point("recover.unlocked");
        Ok(true)
    }

    /// Marks an entry free. Its lease must be held, and no word name it.
    fn vacate(&self, owner: Owner) {
        let entry = self.participant(owner);
        entry.pid.store(0, Ordering::Relaxed);
        point("vacate.pid");
        entry.label_len.store(0, Ordering::Relaxed);
        point("vacate.label-len");
        // Release: whoever is given the entry next sees all of the above.
        entry.state.store(0, Ordering::Release);
        point("vacate.state");
    }

    /// Looks for dead participants and recovers them, at most `limit` entries
    /// in use per call; successive calls go round the table. Returns how many
    /// were recovered.
    pub(crate) fn recover_dead(&self, limit: usize) -> Result<usize> {
        let mut recovered = 0;
        let mut looked_at = 0;
        for _ in 0..self.participants {
            let turn = self.checked.fetch_add(1, Ordering::Relaxed);
            let number = (turn % self.participants as u64) as u16 + 1;
            let Some(owner) = Owner::new(number) else { continue };
            if self.participant(owner).state.load(Ordering::Relaxed) == 0 {
                continue;
            }
            if !self.is_alive(owner) && self.recover(owner)? {
                recovered += 1;
            }
            looked_at += 1;
            if looked_at >= limit {
                break;
            }
        }
        Ok(recovered)
    }

    /// Everybody in the table.
    pub(crate) fn participants(&self) -> Result<Vec<ParticipantInfo>> {
        let me = self.lease()?.me;
        let mut list = Vec::new();
        for owner in (1..=self.participants as u16).filter_map(Owner::new) {
            let entry = self.participant(owner);
            if entry.state.load(Ordering::Acquire) == 0 {
                continue;
            }
            let bytes: Vec<u8> =
                entry.label.iter().flat_map(|w| w.load(Ordering::Relaxed).to_ne_bytes()).collect();
            let len = (entry.label_len.load(Ordering::Relaxed) as usize).min(LABEL);
            list.push(ParticipantInfo {
                id: owner.get(),
                pid: entry.pid.load(Ordering::Relaxed),
                label: String::from_utf8_lossy(&bytes[..len]).into_owned(),
                alive: self.is_alive(owner),
                is_self: owner == me,
                start_time: entry.start_time.load(Ordering::Relaxed),
                roles: Vec::new(),
            });
        }
        Ok(list)
    }

    /// Claims the one handle that this attachment may have of an object;
    /// whether it was free.
    pub(crate) fn take_exclusive(&self, object: usize) -> bool {
        let mut taken = self.exclusive.lock().unwrap_or_else(PoisonError::into_inner);
        let free = !taken.contains(&object);
        if free {
            taken.push(object);
        }
        free
    }

    /// Gives it back.
    pub(crate) fn give_exclusive(&self, object: usize) {
        let mut taken = self.exclusive.lock().unwrap_or_else(PoisonError::into_inner);
        taken.retain(|held| *held != object);
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        let lease = *self.lease.get_mut();
        if lease.is_null() {
            return;
        }
        // SAFETY: from `Box::into_raw` in `join` or `lease_after_fork`; dropped
        // nowhere else. The parent's lease in a child that never used its own
        // is freed here too, which closes the child's descriptor and touches
        // nothing of the parent's.
        let lease = unsafe { Box::from_raw(lease) };
        if lease.generation != os::generation() {
            return;
        }
        // Every handle is gone, and each has given back what it held, but for
        // locks whose guards were forgotten.
        (self.settle)(self, lease.me);
        if self.unlink == Unlink::Creator && self.created() {
            let _ = file::unlink_same(&self.name, &lease.file);
        }
        self.vacate(lease.me);
        // By hand: a program that is being started by another thread shares the
        // description until it executes. A lease that can't be given back is no
        // obstacle to its holder, and goes with the descriptor.
        let _ = lease.file.unlock(lease_byte(lease.me));
        point("detach.unlocked");
        if self.unlink == Unlink::LastOut {
            file::retire(self.mutable(), &self.name, &lease.file);
        }
    }
}
