//! What the segment must know of each kind of object: how large it is, how it
//! starts, and what a dead participant leaves in it. One line per kind.

use crate::error::{Error, Result};
use crate::memory::Region;
use crate::ring::Owner;
use crate::shm::attachment::Attachment;
use crate::shm::catalog::{Kind, Object};
use crate::{array, lock, pipe, queue, value};

/// An object as declared: where it will lie and how it starts.
#[derive(Clone, Debug)]
pub(crate) struct Declared {
    pub(crate) object: Object,
    /// The first value, of objects that have one.
    pub(crate) initial: Vec<u8>,
}

/// Bytes that the object needs.
pub(crate) fn measure(object: &Object, participants: usize) -> Result<usize, &'static str> {
    if object.tag.align > 64 {
        return Err("alignment above 64 bytes is not supported");
    }
    match object.kind {
        Kind::Queue => queue::Parts::of(object, participants).map(|parts| parts.len),
        Kind::Pipe => pipe::measure(object),
        Kind::Value => value::measure(object),
        Kind::Array => array::measure(object),
        Kind::Lock => lock::measure(object),
    }
}

/// Whether every object of a segment is as large as its declaration says, so
/// that its parts can be laid over its region without further checks.
pub(crate) fn check(objects: &[Object], participants: usize) -> Result<()> {
    for object in objects {
        if measure(object, participants) != Ok(object.len) {
            let what = "declaration of an object in the catalog, which lies";
            return Err(Error::Corrupt { what, at: object.offset as u64 });
        }
    }
    Ok(())
}

/// Writes the object into its region.
///
/// # Safety
///
/// The region must have `measure` bytes, aligned to a line and zeroed, that
/// nobody else uses during the call.
pub(crate) unsafe fn init(declared: &Declared, region: Region<'_>, participants: usize) {
    let object = &declared.object;
    // SAFETY: the caller's promise, handed on.
    unsafe {
        match object.kind {
            Kind::Queue => queue::init(object, region, participants),
            Kind::Pipe => pipe::init(object, region),
            Kind::Value => value::init(object, region, &declared.initial),
            Kind::Array => array::init(object, region),
            Kind::Lock => lock::init(object, region),
        }
    }
}

/// Repairs every word of every object that names `dead`, and wakes whoever
/// waits there. Called by whoever holds the dead one's lease.
pub(crate) fn sweep(attachment: &Attachment, dead: Owner) {
    for object in attachment.objects() {
        // SAFETY: the region is used during this call only, and the attachment
        // is borrowed for as long.
        let Ok(region) = (unsafe { attachment.region(object) }) else { continue };
        match object.kind {
            Kind::Queue => queue::sweep(attachment, object, region, dead),
            Kind::Pipe => pipe::sweep(attachment, object, region, dead),
            Kind::Value => value::sweep(attachment, object, region, dead),
            Kind::Array => array::sweep(attachment, object, region, dead),
            Kind::Lock => lock::sweep(attachment, object, region, dead),
        }
    }
}

/// Gives back what `me`, which is leaving, still holds: a lock whose guard was
/// forgotten. (Loans of queues and pipes are settled by their handles.)
pub(crate) fn settle(attachment: &Attachment, me: Owner) {
    for object in attachment.objects() {
        // SAFETY: as in `sweep`.
        let Ok(region) = (unsafe { attachment.region(object) }) else { continue };
        match object.kind {
            Kind::Array => array::settle(attachment, object, region, me),
            Kind::Lock => lock::settle(attachment, object, region, me),
            Kind::Queue | Kind::Pipe | Kind::Value => {}
        }
    }
}

/// What a participant does with an object, for people to read.
pub(crate) fn roles(attachment: &Attachment, object: &Object, owner: Owner) -> Vec<&'static str> {
    // SAFETY: as in `sweep`.
    let Ok(region) = (unsafe { attachment.region(object) }) else { return Vec::new() };
    match object.kind {
        Kind::Queue => queue::roles(attachment, object, region, owner),
        Kind::Pipe => pipe::roles(attachment, object, region, owner),
        Kind::Value => Vec::new(),
        Kind::Array => array::roles(attachment, object, region, owner),
        Kind::Lock => lock::roles(attachment, object, region, owner),
    }
}
