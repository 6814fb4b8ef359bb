//! Arbitrary bytes as a segment: opening gives an error or a segment that can
//! be used, never a panic, a hang or an access outside.
//!
//! The input is a list of patches to a valid segment, since random bytes would
//! seldom get past the magic. Patches of header and catalog come with a
//! checksum that is made right again, as a hostile peer would do.

#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use slipring::{Segment, Unlink};
use std::os::unix::fs::FileExt;
use std::sync::OnceLock;

#[derive(Arbitrary, Debug)]
struct Input {
    patches: Vec<(u16, u64)>,
    repair_checksum: bool,
    cut: Option<u16>,
}

const OBJECTS: usize = 5;
const CATALOG: usize = 256;
const CHECKSUM: usize = 56;

fn name() -> String {
    format!("slipring-fuzz-attach-{}", std::process::id())
}

/// A valid segment's bytes.
fn pristine() -> &'static [u8] {
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    BYTES.get_or_init(|| {
        let name = name();
        let segment = Segment::builder(&name)
            .queue::<u64>("queue", 3)
            .bytes_queue("blobs", 2, 16)
            .pipe("pipe", 256)
            .value::<[u64; 3]>("value")
            .array::<u32>("array", 4)
            .participants(4)
            .unlink(Unlink::Persist)
            .create()
            .unwrap();
        drop(segment);
        let bytes = std::fs::read(format!("/dev/shm/{name}")).unwrap();
        Segment::unlink(&name).unwrap();
        bytes
    })
}

fn fnv1a(bytes: impl Iterator<Item = u8>) -> u64 {
    bytes.fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3))
}

fuzz_target!(|input: Input| {
    let mut bytes = pristine().to_vec();
    for (at, value) in &input.patches {
        let at = usize::from(*at) * 8 % bytes.len();
        let end = (at + 8).min(bytes.len());
        bytes[at..end].copy_from_slice(&value.to_le_bytes()[..end - at]);
    }
    if input.repair_checksum {
        bytes[CHECKSUM..CHECKSUM + 8].fill(0);
        let covered = bytes[..128].iter().chain(&bytes[CATALOG..CATALOG + 256 * OBJECTS]);
        let sum = fnv1a(covered.copied());
        bytes[CHECKSUM..CHECKSUM + 8].copy_from_slice(&sum.to_le_bytes());
    }
    if let Some(cut) = input.cut {
        bytes.truncate(usize::from(cut));
    }
    let path = format!("/dev/shm/{}", name());
    let file = std::fs::File::create(&path).unwrap();
    file.write_all_at(&bytes, 0).unwrap();
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    drop(file);
    if let Ok(segment) = Segment::open(&name()) {
        let _ = segment.participants();
        let _ = segment.recover();
        for object in segment.objects() {
            use_object(&segment, &object.name);
        }
    }
    let _ = std::fs::remove_file(&path);
});

/// Whatever the object is by now, uses it through every face that accepts it.
fn use_object(segment: &Segment, name: &str) {
    if let Ok(queue) = segment.queue::<u64>(name) {
        let (mut tx, mut rx) = (queue.sender().unwrap(), queue.receiver().unwrap());
        for i in 0..8 {
            let _ = tx.try_send(i);
            let _ = rx.try_recv();
        }
        let _ = (queue.len(), queue.is_full(), queue.counters());
    }
    if let Ok(queue) = segment.bytes_queue(name) {
        if queue.max_len() < 1 << 20 {
            let _ = queue.sender().unwrap().try_send(&vec![7; queue.max_len()]);
        }
        let _ = queue.receiver().unwrap().try_recv();
    }
}
