//! Every byte of a segment, flipped before it is opened.

use crate::objects::{OBJECTS, Objects, builder, legal_to_open};
use crate::outside::{CATALOG, ENTRY, HEADER, path, read, seal};
use crate::support::Name;
use crate::watch::{Random, Watch, rounds};
use slipring::*;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::Duration;

/// What is flipped, by round.
const MASKS: [u8; 4] = [0x55, 0x01, 0x80, 0xff];

/// A segment with objects of every kind that have been used, and still hold
/// messages; its bytes.
fn sample(name: &Name) -> Vec<u8> {
    let segment = builder(name, 0, 0).create().unwrap();
    let mut objects = Objects::open(&segment, Duration::ZERO);
    objects.tour(&mut Random::new(1));
    drop(objects);
    let (mut tx, _rx) = {
        let queue = segment.queue::<u64>("queue").unwrap();
        (queue.sender().unwrap(), queue.receiver().unwrap())
    };
    let _ = tx.try_send(1);
    let _ = segment.bytes_queue("blobs").unwrap().sender().unwrap().try_send(b"message");
    let _ = segment.pipe_end("pipe", End::A).unwrap().try_send(b"message");
    let _ = segment.typed_pipe_end::<[u32; 3]>("typed", End::A).unwrap().try_send([1; 3]);
    drop(segment);
    read(name)
}

fn catalog() -> std::ops::Range<usize> {
    CATALOG..CATALOG + ENTRY * OBJECTS
}

/// Opens and uses whatever can be, and puts the file back.
fn use_all(name: &Name, file: &File, bytes: &[u8], pristine: &[u8], seed: u64) {
    file.write_all_at(bytes, 0).unwrap();
    match Segment::open(name) {
        Ok(segment) => {
            let mut objects = Objects::open(&segment, Duration::ZERO);
            objects.tour(&mut Random::new(seed));
            drop(objects);
            // Nobody changes these, whatever is in them.
            let mut now = vec![0; catalog().end];
            file.read_exact_at(&mut now, 0).unwrap();
            assert_eq!(now[..HEADER], bytes[..HEADER]);
            assert_eq!(now[catalog()], bytes[catalog()]);
        }
        Err(error) => legal_to_open(&error),
    }
    assert!(path(name).exists());
    file.write_all_at(pristine, 0).unwrap();
}

#[test]
fn of_header_and_catalog_are_noticed() {
    let name = Name::new("noticed");
    let pristine = sample(&name);
    let file = File::options().read(true).write(true).open(path(&name)).unwrap();
    for offset in (0..HEADER).chain(catalog()) {
        for mask in [0x01, 0x80, 0xff] {
            file.write_all_at(&[pristine[offset] ^ mask], offset as u64).unwrap();
            match Segment::open(&name) {
                Err(
                    Error::Corrupt { .. }
                    | Error::NotASegment { .. }
                    | Error::LayoutVersion { .. }
                    | Error::Truncated { .. },
                ) => {}
                other => panic!("byte {offset}: {other:?}"),
            }
            file.write_all_at(&[pristine[offset]], offset as u64).unwrap();
        }
    }
    assert!(Segment::open(&name).is_ok());
}

#[test]
fn of_header_and_catalog_under_a_right_checksum() {
    let (name, watch) = (Name::new("sealed"), Watch::new("sealed"));
    let pristine = sample(&name);
    let file = File::options().read(true).write(true).open(path(&name)).unwrap();
    for round in 0..rounds(1) {
        let mask = MASKS[round as usize % MASKS.len()];
        for offset in (0..HEADER).chain(catalog()) {
            watch.step(|| format!("byte {offset} flipped by {mask:#x}, round {round}"));
            let mut bytes = pristine.clone();
            bytes[offset] ^= mask;
            seal(&mut bytes, OBJECTS);
            use_all(&name, &file, &bytes, &pristine, round);
        }
    }
}

#[test]
fn of_everything_else() {
    let (name, watch) = (Name::new("flips"), Watch::new("flips"));
    let pristine = sample(&name);
    let file = File::options().read(true).write(true).open(path(&name)).unwrap();
    for round in 0..rounds(1) {
        let mask = MASKS[round as usize % MASKS.len()];
        for offset in (HEADER..CATALOG).chain(catalog().end..pristine.len()) {
            watch.step(|| format!("byte {offset} flipped by {mask:#x}, round {round}"));
            let mut bytes = pristine.clone();
            bytes[offset] ^= mask;
            use_all(&name, &file, &bytes, &pristine, round);
        }
    }
}
