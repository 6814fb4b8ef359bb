//! A catalog whose parts do not fit together, under a right checksum.

use crate::outside::{CATALOG, read, seal, write};
use crate::support::Name;
use slipring::*;

/// Fields of a catalog entry.
const LEN: usize = CATALOG + 160;
const FLAGS: usize = CATALOG + 176;
const MAX_LEN: usize = CATALOG + 192;
const BYTES: u64 = 2;

fn field(bytes: &mut [u8], at: usize, value: u64) {
    bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
}

/// What opening says to a segment that was made by `builder` and changed by
/// `change`.
fn opened(name: &Name, builder: Builder, change: impl FnOnce(&mut [u8])) -> Result<Segment> {
    drop(builder.unlink(Unlink::Persist).create().unwrap());
    let mut bytes = read(name);
    change(&mut bytes);
    seal(&mut bytes, 1);
    write(name, &bytes);
    Segment::open(name)
}

fn refused(outcome: Result<Segment>) {
    let error = outcome.expect_err("a segment that lies was opened");
    assert!(matches!(error, Error::Corrupt { what, .. } if !what.is_empty()), "{error}");
}

#[test]
fn the_seal_is_what_the_library_expects() {
    let name = Name::new("seal");
    let builder = Segment::builder(&name).queue::<u64>("queue", 1);
    opened(&name, builder, |_| {}).unwrap();
}

/// The slots of such a queue would be shorter than the elements that a
/// `Queue<T>` writes.
#[test]
fn a_queue_of_elements_that_claims_to_be_one_of_bytes() {
    let name = Name::new("bytes");
    let builder = Segment::builder(&name).queue::<[u64; 8]>("queue", 1);
    refused(opened(&name, builder, |bytes| field(bytes, FLAGS, BYTES)));
}

/// The slots would be shorter than the messages that a byte queue takes.
#[test]
fn a_queue_of_bytes_that_claims_to_be_one_of_elements() {
    let name = Name::new("elements");
    let builder = Segment::builder(&name).bytes_queue("queue", 1, 16);
    refused(opened(&name, builder, |bytes| {
        field(bytes, FLAGS, 0);
        field(bytes, MAX_LEN, 1 << 20);
    }));
}

#[test]
fn a_pipe_of_one_kind_that_claims_to_be_of_the_other() {
    // A pipe of bytes of as many cells as the typed one has slots is shorter.
    let other = Name::new("other");
    let len = Segment::builder(&other).pipe("pipe", 64).create().unwrap().objects()[0].len;
    let name = Name::new("pipe");
    let builder = Segment::builder(&name).typed_pipe::<[u8; 16]>("pipe", 64);
    refused(opened(&name, builder, |bytes| {
        field(bytes, FLAGS, BYTES);
        field(bytes, LEN, len as u64);
    }));
}
