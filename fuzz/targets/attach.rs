//! Arbitrary bytes as a segment: opening gives an error or a segment that can
//! be used, never a panic, a hang or an access outside.
//!
//! The input is a list of changes to a valid segment, since random bytes would
//! seldom get past the magic. Changes of header and catalog come with a checksum
//! that is made right again, as a hostile peer would do, or without.
//!
//! Whatever the objects are by then, using them changes no byte of header and
//! catalog, and none between them: places inside the mapping, where no sanitizer
//! would notice.

#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use slipring::{End, LockError, ObjectInfo, Pod, Segment, Unlink};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::sync::OnceLock;
use std::time::Duration;

#[derive(Arbitrary, Debug)]
struct Input {
    /// Words, anywhere.
    patches: Vec<(u16, u64)>,
    /// Fields of the catalog: entry, field, value.
    fields: Vec<(u8, u8, u64)>,
    repair_checksum: bool,
    cut: Option<u16>,
    /// Words that change while the segment is in use: after this many uses.
    late: Vec<(u8, u16, u64)>,
}

const OBJECTS: usize = 9;
const CATALOG: usize = 256;
const ENTRY: usize = 256;
const PARTICIPANTS: usize = 4;
const CHECKSUM: usize = 56;
/// Fields that are words: sizes, offsets, flags.
const FIELDS: std::ops::Range<usize> = 120..200;

type Large = [u64; 3];

fn name() -> String {
    slipring_fuzz::name("attach")
}

/// A valid segment's bytes, with something in each of its objects.
fn pristine() -> &'static [u8] {
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    BYTES.get_or_init(|| {
        let name = name();
        let segment = Segment::builder(&name)
            .queue::<u64>("queue", 3)
            .bytes_queue("blobs", 2, 16)
            .pipe("pipe", 64)
            .typed_pipe::<u64>("typed", 2)
            .value::<u32>("number")
            .value::<Large>("value")
            .array::<u32>("array", 4)
            .array::<[u8; 3]>("odd", 4)
            .lock("lock")
            .participants(PARTICIPANTS)
            .unlink(Unlink::Persist)
            .create()
            .unwrap();
        for object in segment.objects() {
            use_object(&segment, &object.name);
        }
        drop(segment);
        let bytes = std::fs::read(format!("/dev/shm/{name}")).unwrap();
        Segment::unlink(&name).unwrap();
        bytes
    })
}

fn fnv1a(bytes: impl Iterator<Item = u8>) -> u64 {
    bytes.fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3))
}

fn patch(bytes: &mut [u8], at: usize, value: u64) {
    let end = (at + 8).min(bytes.len());
    bytes[at..end].copy_from_slice(&value.to_le_bytes()[..end - at]);
}

fuzz_target!(|input: Input| {
    let mut bytes = pristine().to_vec();
    for (at, value) in &input.patches {
        let at = usize::from(*at) * 8 % bytes.len();
        patch(&mut bytes, at, *value);
    }
    for (entry, field, value) in &input.fields {
        let field = FIELDS.start + usize::from(*field) * 8 % FIELDS.len();
        patch(&mut bytes, CATALOG + usize::from(*entry) % OBJECTS * ENTRY + field, *value);
    }
    if input.repair_checksum {
        bytes[CHECKSUM..CHECKSUM + 8].fill(0);
        let covered = bytes[..128].iter().chain(&bytes[CATALOG..CATALOG + ENTRY * OBJECTS]);
        let sum = fnv1a(covered.copied());
        patch(&mut bytes, CHECKSUM, sum);
    }
    if let Some(cut) = input.cut {
        bytes.truncate(usize::from(cut));
    }
    let path = format!("/dev/shm/{}", name());
    let mut options = std::fs::File::options();
    let file = options.read(true).write(true).create(true).truncate(true).open(&path).unwrap();
    file.write_all_at(&bytes, 0).unwrap();
    file.set_permissions(PermissionsExt::from_mode(0o600)).unwrap();
    if let Ok(segment) = Segment::open(&name()) {
        let _ = segment.participants();
        let _ = segment.recover();
        for (uses, object) in segment.objects().iter().chain(&segment.objects()).enumerate() {
            for (when, at, value) in &input.late {
                if usize::from(*when) == uses {
                    let at = usize::from(*at) * 8 % (bytes.len() - 8);
                    file.write_all_at(&value.to_le_bytes(), at as u64).unwrap();
                }
            }
            let before = read(&file, bytes.len());
            use_object(&segment, &object.name);
            assert_unchanged(&segment, object, &before, &read(&file, bytes.len()));
        }
    }
    let _ = std::fs::remove_file(&path);
});

fn read(file: &std::fs::File, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

/// Nothing but objects and the participants' table may have changed.
fn assert_unchanged(segment: &Segment, used: &ObjectInfo, before: &[u8], now: &[u8]) {
    let objects = segment.objects();
    let table = CATALOG + ENTRY * objects.len();
    let table = table..table + 128 * segment.max_participants();
    for at in (0..before.len()).filter(|at| before[*at] != now[*at] && !table.contains(at)) {
        let inside = objects.iter().any(|o| (o.offset..o.offset + o.len).contains(&at));
        assert!(inside, "byte {at} was changed by {used:?}");
    }
}

/// Whatever the object is by now, uses it through every face that accepts it.
fn use_object(segment: &Segment, name: &str) {
    if let Ok(queue) = segment.queue::<u64>(name)
        && let (Ok(mut tx), Ok(mut rx)) = (queue.sender(), queue.receiver())
    {
        for i in 0..8 {
            let _ = tx.try_send(i);
            let _ = rx.try_recv();
        }
        let _ = tx.try_send(9);
        let _ = (queue.len(), queue.is_full(), queue.counters());
    }
    if let Ok(queue) = segment.bytes_queue(name)
        && let (Ok(mut tx), Ok(mut rx)) = (queue.sender(), queue.receiver())
    {
        if queue.max_len() < 1 << 20 {
            let _ = tx.try_send(&vec![7; queue.max_len()]);
        }
        if let Ok(message) = rx.try_take() {
            assert!(message.len() <= queue.max_len());
        }
        let _ = rx.try_recv();
        let _ = tx.try_send(b"left");
    }
    for end in [End::A, End::B] {
        if let Ok(pipe) = segment.pipe_end(name, end)
            && let (Some(mut tx), Some(mut rx)) = pipe.split()
        {
            let _ = tx.try_send(b"message");
            let _ = tx.try_reserve(tx.max_in_place()).map(|grant| grant.commit(20));
            for _ in 0..8 {
                let _ = rx.try_peek().map(|message| message.iter().fold(0, |a, b| a ^ b));
            }
            let _ = rx.poll(Duration::ZERO);
            let _ = tx.send_timeout(&[3; 100], Duration::ZERO);
        }
        if let Ok(pipe) = segment.typed_pipe_end::<u64>(name, end)
            && let (Some(mut tx), Some(mut rx)) = pipe.split()
        {
            for i in 0..4 {
                let _ = tx.try_send(i);
                let _ = rx.try_recv();
            }
            let _ = rx.poll(Duration::ZERO);
        }
    }
    if let Ok(value) = segment.value::<u32>(name) {
        value.store(value.load() ^ 1);
    }
    if let Ok(value) = segment.value::<Large>(name) {
        let _ = value.store_timeout(value.load(), Duration::ZERO);
    }
    use_array::<u32>(segment, name);
    use_array::<[u8; 3]>(segment, name);
    if let Ok(array) = segment.array::<u32>(name)
        && array.len() > 0
    {
        let last = array.len() - 1;
        let _ = array.set(last, 1);
        assert_eq!(array.fetch_add(last, 1).unwrap(), 1);
    }
    if let Ok(lock) = segment.lock(name) {
        match lock.try_lock() {
            Err(LockError::Poisoned(mut guard)) => guard.make_clean(),
            other => drop(other),
        }
        drop(lock.lock_timeout(Duration::ZERO));
    }
}

fn use_array<T: Pod>(segment: &Segment, name: &str) {
    if let Ok(mut array) = segment.array::<T>(name) {
        let len = array.len();
        match array.try_lock() {
            Ok(mut all) | Err(LockError::Poisoned(mut all)) => {
                assert_eq!(all.len(), len);
                all.reverse();
                all.make_clean();
            }
            Err(_) => {}
        }
    }
}
