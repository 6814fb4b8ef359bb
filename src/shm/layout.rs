//! Bytes of a segment before its objects.
//!
//! ```text
//! 0      ┌───────────────────────────────────────────────┐
//!        │ Fixed: magic, version, byte order, length,     │ 128 bytes, never change
//!        │ nonce, modes, table sizes, checksum            │ after publication
//! 128    ├───────────────────────────────────────────────┤
//!        │ retire: the last one out is leaving            │ 128 bytes
//! 256    ├───────────────────────────────────────────────┤
//!        │ catalog: one Entry of 256 bytes per object     │ never change
//!        ├───────────────────────────────────────────────┤
//!        │ participants: one Participant of 128 bytes each│
//!        ├───────────────────────────────────────────────┤
//!        │ objects, each aligned to 128 bytes             │
//!        └───────────────────────────────────────────────┘
//! ```
//!
//! Byte locks (leases) lie far behind the end of any file:
//!
//! ```text
//! LOCK_BASE              whoever unlinks the segment
//! LOCK_BASE + i          participant i, from 1
//! LOCK_BASE + 65536      whoever is making the segment
//! ```
//!
//! The words here are ordered by the kernel's locks and are not modelled by
//! loom, so they are the standard atomics in every build.

use crate::memory::{LINE, round_up};
use crate::ring::Owner;
use bytemuck::{Pod, Zeroable};
use core::sync::atomic::{AtomicU32, AtomicU64};

pub(crate) const MAGIC: [u8; 8] = *b"slipring";
/// Raised whenever any byte of the layout, or what it means, changes.
pub const LAYOUT_VERSION: u32 = 1;
/// Reads back reversed on a machine of the other byte order.
pub(crate) const BYTE_ORDER: u32 = 0x0102_0304;

pub(crate) const LOCK_BASE: u64 = 1 << 62;
pub(crate) const UNLINK_LOCK: u64 = LOCK_BASE;
pub(crate) const CREATE_LOCK: u64 = LOCK_BASE + 65536;

/// The byte that a participant's lease locks.
pub(crate) fn lease_byte(owner: Owner) -> u64 {
    LOCK_BASE + u64::from(owner.get())
}

/// Most objects in one segment.
pub const MAX_OBJECTS: usize = 1024;
/// Most processes attached to one segment.
pub const MAX_PARTICIPANTS: usize = Owner::MAX as usize;

/// What never changes, apart from the catalog.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fixed {
    pub(crate) magic: [u8; 8],
    pub(crate) version: u32,
    pub(crate) byte_order: u32,
    /// Length of the file in bytes.
    pub(crate) len: u64,
    /// Tells this segment from any other of the same name.
    pub(crate) nonce: [u64; 2],
    /// A `WaitMode`.
    pub(crate) wait_mode: u32,
    /// An `Unlink`.
    pub(crate) unlink: u32,
    pub(crate) participants: u32,
    pub(crate) objects: u32,
    /// Over this struct, with zero here, and the catalog.
    pub(crate) checksum: u64,
    /// Permission bits that the file was made with.
    pub(crate) mode: u32,
    pub(crate) creator: u32,
    pub(crate) reserved: [u64; 7],
}

// SAFETY: `repr(C)`, all fields Pod, no padding: the sizes of the fields add up to
// that of the whole, which is asserted below.
unsafe impl Pod for Fixed {}
// SAFETY: zero is a value of every field.
unsafe impl Zeroable for Fixed {}

const _: () = assert!(size_of::<Fixed>() == 128);

/// One object.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    pub(crate) name: [u8; 120],
    pub(crate) name_len: u32,
    /// A `Kind`.
    pub(crate) kind: u32,
    /// Size and alignment of an element in bytes.
    pub(crate) size: u64,
    pub(crate) align: u64,
    /// Hash of the element's type name.
    pub(crate) type_hash: u64,
    /// Where the object lies.
    pub(crate) offset: u64,
    pub(crate) len: u64,
    /// Slots, elements or bytes, as the kind says.
    pub(crate) capacity: u64,
    /// Flags of the kind.
    pub(crate) flags: u64,
    /// Where positions start: 0 but for tests of wraps.
    pub(crate) start: u64,
    /// Longest byte message.
    pub(crate) max_len: u64,
    pub(crate) reserved: [u64; 7],
}

// SAFETY: as `Fixed`.
unsafe impl Pod for Entry {}
// SAFETY: zero is a value of every field.
unsafe impl Zeroable for Entry {}

const _: () = assert!(size_of::<Entry>() == 256);

/// What changes, apart from participants and objects.
#[repr(C, align(128))]
pub(crate) struct Mutable {
    /// Who means to be the last one out: see `Attachment::leave`.
    pub(crate) retire: AtomicU64,
}

/// One process attached. For people and tools only, but for `state`.
#[repr(C, align(128))]
pub(crate) struct Participant {
    /// 0 is free; anything else is the attachment's number. Written by whoever
    /// holds the entry's lease.
    pub(crate) state: AtomicU64,
    /// How often the entry has been given out.
    pub(crate) uses: AtomicU64,
    pub(crate) start_time: AtomicU64,
    pub(crate) pid: AtomicU32,
    pub(crate) label_len: AtomicU32,
    pub(crate) label: [AtomicU64; LABEL / 8],
}

/// Longest label, in bytes.
pub(crate) const LABEL: usize = 64;

const _: () = assert!(size_of::<Participant>() == 128 && size_of::<Mutable>() == 128);

pub(crate) const MUTABLE_OFFSET: usize = size_of::<Fixed>();
pub(crate) const CATALOG_OFFSET: usize = MUTABLE_OFFSET + size_of::<Mutable>();

/// Where the participants' table starts.
pub(crate) fn participants_offset(objects: usize) -> Option<usize> {
    objects.checked_mul(size_of::<Entry>())?.checked_add(CATALOG_OFFSET)
}

/// Where the first object may start.
pub(crate) fn objects_offset(objects: usize, participants: usize) -> Option<usize> {
    let table = participants.checked_mul(size_of::<Participant>())?;
    round_up(participants_offset(objects)?.checked_add(table)?, LINE)
}

/// FNV-1a, 64 bits, over `Fixed` with a zero checksum and the catalog's bytes.
/// Against accidents: a peer that can write can also recompute it.
pub(crate) fn checksum(fixed: &Fixed, catalog: &[u8]) -> u64 {
    let bare = Fixed { checksum: 0, ..*fixed };
    fnv1a(bytemuck::bytes_of(&bare).iter().chain(catalog))
}

/// FNV-1a, 64 bits.
pub(crate) fn fnv1a<'a>(bytes: impl IntoIterator<Item = &'a u8>) -> u64 {
    bytes.into_iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
