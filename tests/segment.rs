//! Creation, opening, validation and the end of segments.

mod support;

use slipring::*;
use std::os::unix::fs::{FileExt, PermissionsExt};
use support::Name;

fn path(name: &Name) -> std::path::PathBuf {
    std::path::Path::new("/dev/shm").join(&**name)
}

fn sample(name: &str) -> Segment {
    Segment::builder(name)
        .queue::<u64>("queue", 7)
        .bytes_queue("blobs", 3, 100)
        .unlink(Unlink::Persist)
        .create()
        .unwrap()
}

/// A segment with one byte changed.
fn patched(name: &Name, offset: u64, byte: impl Fn(u8) -> u8) {
    let file = std::fs::File::options().read(true).write(true).open(path(name)).unwrap();
    let mut was = [0];
    file.read_exact_at(&mut was, offset).unwrap();
    file.write_all_at(&[byte(was[0])], offset).unwrap();
}

#[test]
fn names_that_are_none() {
    for name in ["", ".x", "a/b", "a b", "ü", &"x".repeat(201)] {
        assert!(matches!(Queue::<u8>::create(name, 1), Err(Error::NameInvalid { .. })), "{name}");
        assert!(matches!(Segment::open(name), Err(Error::NameInvalid { .. })));
        assert!(matches!(Segment::unlink(name), Err(Error::NameInvalid { .. })));
    }
    let long = "x".repeat(180) + &std::process::id().to_string();
    drop(Queue::<u8>::create(&long, 1).unwrap());
}

#[test]
fn existing_and_missing() {
    let name = Name::new("exists");
    assert!(matches!(Segment::open(&name), Err(Error::NotFound { .. })));
    assert!(matches!(Segment::unlink(&name), Err(Error::NotFound { .. })));
    let first = Queue::<u8>::create(&name, 1).unwrap();
    assert!(matches!(Queue::<u8>::create(&name, 1), Err(Error::AlreadyExists { .. })));
    drop(first);
    assert!(matches!(Segment::open(&name), Err(Error::NotFound { .. })));
}

#[test]
fn unlink_policies() {
    for policy in [Unlink::LastOut, Unlink::Creator, Unlink::Persist] {
        let name = Name::new("policy");
        let build = || Segment::builder(&name).queue::<u8>("q", 1).unlink(policy).create();
        let first = build().unwrap();
        let second = Segment::open(&name).unwrap();
        assert_eq!(second.unlink_policy(), policy);
        drop(first);
        assert_eq!(name.exists(), policy != Unlink::Creator, "{policy:?} after the creator");
        drop(second);
        assert_eq!(name.exists(), policy == Unlink::Persist, "{policy:?} after the last");
    }
}

#[test]
fn an_unlink_takes_only_its_own_file() {
    let name = Name::new("own");
    let old = Queue::<u8>::create(&name, 1).unwrap();
    Segment::unlink(&name).unwrap();
    let new = Queue::<u16>::create(&name, 1).unwrap();
    drop(old);
    assert!(name.exists(), "the old segment's last one out removed the new one's name");
    assert!(Queue::<u16>::open(&name).is_ok());
    drop(new);
    assert!(!name.exists());
}

#[test]
fn types_and_objects() {
    #[derive(Clone, Copy, Pod, Zeroable)]
    #[repr(C)]
    struct Order {
        id: u64,
        price: f64,
    }
    use bytemuck::{Pod, Zeroable};
    mod elsewhere {
        #[derive(Clone, Copy, super::Pod, super::Zeroable)]
        #[repr(C)]
        pub struct Order {
            pub id: u64,
            pub price: f64,
        }
    }
    let name = Name::new("types");
    let segment = Segment::builder(&name).queue::<Order>("orders", 4).create().unwrap();
    assert!(segment.queue::<Order>("orders").is_ok());
    assert!(segment.queue::<elsewhere::Order>("orders").is_ok(), "modules don't matter");
    let mismatch = segment.queue::<[u64; 2]>("orders").unwrap_err();
    let Error::TypeMismatch { object, expected, found } = &mismatch else { panic!("{mismatch}") };
    assert_eq!((object.as_str(), expected.size, found.size), ("orders", 16, 16));
    assert_ne!(expected.name_hash, found.name_hash);
    assert!(matches!(segment.bytes_queue("orders"), Err(Error::TypeMismatch { .. })));
    let unknown = segment.queue::<Order>("order").unwrap_err();
    let Error::ObjectUnknown { known, .. } = &unknown else { panic!("{unknown}") };
    assert_eq!(known, &["orders"]);
    let builder = Segment::builder(&name).queue::<u64>("orders", 4);
    assert!(matches!(builder.open_or_create(), Err(Error::TypeMismatch { .. })));
}

/// Some laps of messages through a queue and a pipe, one a call and in batches.
fn arrive_whole<T: bytemuck::Pod + PartialEq + std::fmt::Debug>() {
    let name = Name::new("whole");
    let options = QueueOptions::new(5).delivery(Delivery::AtLeastOnce);
    let builder = Segment::builder(&name).queue::<T>("queue", options).typed_pipe::<T>("pipe", 5);
    let segment = builder.create().unwrap();
    let queue = segment.queue::<T>("queue").unwrap();
    let (mut tx, mut rx) = (queue.sender().unwrap(), queue.receiver().unwrap());
    let mut a = segment.typed_pipe_end::<T>("pipe", End::A).unwrap();
    let mut b = segment.typed_pipe_end::<T>("pipe", End::B).unwrap();
    let message = |seed: usize| {
        let mut message = T::zeroed();
        for (nth, byte) in bytemuck::bytes_of_mut(&mut message).iter_mut().enumerate() {
            *byte = (seed * 7 + nth) as u8;
        }
        message
    };
    let mut got = Vec::new();
    for lap in 0..20 {
        let all: Vec<T> = (lap..lap + 4).map(message).collect();
        for message in &all {
            tx.try_send(*message).unwrap();
            a.try_send(*message).unwrap();
        }
        for message in &all[..2] {
            assert_eq!((rx.try_recv().unwrap(), b.try_recv().unwrap()), (*message, *message));
        }
        got.clear();
        assert_eq!(rx.recv_many(&mut got, 9).unwrap(), 2);
        assert_eq!(b.recv_many(&mut got, 9).unwrap(), 2);
        assert_eq!(got, [&all[2..], &all[2..]].concat());
        tx.send_many(&all).unwrap();
        a.send_many(&all).unwrap();
        for message in &all {
            assert_eq!(*rx.take().unwrap(), *message);
            let lent = b.peek().unwrap();
            assert_eq!(*lent, *message);
            lent.release_read();
        }
    }
}

#[test]
fn messages_of_any_size_about_a_line_and_any_alignment_arrive_whole() {
    use bytemuck::{Pod, Zeroable};
    macro_rules! aligned {
        ($name:ident, $align:literal, $of:ty) => {
            #[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
            #[repr(C, align($align))]
            struct $name($of);
            arrive_whole::<$name>();
        };
    }
    aligned!(Aligned16, 16, [u8; 64]);
    aligned!(Aligned32, 32, [u8; 64]);
    aligned!(Aligned64, 64, [u8; 64]);
    aligned!(Two, 64, [u8; 128]);
    arrive_whole::<[u64; 8]>();
    arrive_whole::<[u32; 16]>();
    arrive_whole::<[u16; 32]>();
    arrive_whole::<[u8; 64]>();
    arrive_whole::<[u8; 63]>();
    arrive_whole::<[u8; 57]>();
    arrive_whole::<[u64; 7]>();
    arrive_whole::<[u64; 9]>();
    arrive_whole::<[u8; 1]>();
    arrive_whole::<()>();
}

#[test]
fn memory_is_slots_and_16_kib_at_most() {
    fn check<T: bytemuck::Pod>() {
        // A word and the message, as a power of two up to a line; beyond, as they are in a
        // queue, and in lines of their own in a pipe.
        let used = 8 + size_of::<T>();
        let in_line = used <= 64;
        let packed = if in_line { used.next_power_of_two() } else { used };
        let apart = if in_line { packed } else { used.next_multiple_of(64) };
        for slots in [1, 8, 1000, 1 << 14] {
            let one_way = PipeOptions::new(slots).one_way();
            let (queue, pipe) = (Name::new("queue"), Name::new("pipe"));
            let queue = Segment::builder(&queue).queue::<T>("all", slots).create();
            let pipe = Segment::builder(&pipe).typed_pipe::<T>("all", one_way).create();
            for (segment, stride) in [(queue, packed), (pipe, apart)] {
                let segment = segment.unwrap();
                let len = std::fs::metadata(format!("/dev/shm/{}", segment.name())).unwrap().len();
                assert_eq!(len, segment.len() as u64);
                let rest = segment.len().checked_sub(slots * stride).unwrap();
                assert!(rest <= 16 << 10, "{rest} bytes and {slots} slots of {stride}");
            }
        }
    }
    check::<u64>();
    check::<[u64; 6]>();
    check::<[u64; 8]>();
    check::<[u64; 128]>();
}

/// Wide copies of long messages straddle no lines.
#[test]
fn long_messages_lie_at_multiples_of_32() {
    fn check<T: bytemuck::Pod>(message: T) {
        let at = |message: &T| core::ptr::from_ref(message).addr();
        let (name, other) = (Name::new("queue"), Name::new("pipe"));
        let queue = Queue::<T>::create(&name, 3).unwrap();
        let (mut tx, mut rx) = (queue.sender().unwrap(), queue.receiver().unwrap());
        let mut a = Pipe::<T>::create_typed(&other, 3).unwrap();
        let mut b = Pipe::<T>::open_typed(&other).unwrap();
        for _ in 0..3 {
            tx.send(message).unwrap();
            assert!(at(&rx.take().unwrap()).is_multiple_of(32));
            a.send(message).unwrap();
            assert!(at(&b.peek().unwrap()).is_multiple_of(32));
        }
    }
    check([1_u64; 512]);
    check([1_u8; 4096]);
    check([1_u64; 8192]);
}

#[test]
fn declarations_that_cannot_be_met() {
    let name = Name::new("declare");
    let refused = |builder: Builder| {
        let error = builder.create().unwrap_err();
        assert!(matches!(error, Error::Declaration { .. }), "{error}");
    };
    let builder = || Segment::builder(&name);
    refused(builder());
    refused(builder().queue::<u64>("q", 0));
    refused(builder().queue::<u64>("q", usize::MAX));
    refused(builder().queue::<u64>("q", 1).queue::<u8>("q", 1));
    refused(builder().queue::<u64>("q", 1).participants(0));
    refused(builder().queue::<u64>("q", 1).participants(4096));
    refused(builder().bytes_queue("q", 1, usize::MAX));
    #[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
    #[repr(C, align(128))]
    struct Wide([u8; 128]);
    refused(builder().queue::<Wide>("q", 1));
    refused(builder().typed_pipe::<Wide>("p", 1));
    refused(builder().value::<Wide>("v"));
    refused(builder().array::<Wide>("a", 1));
    let bad = builder().queue::<u64>("a/b", 1).create().unwrap_err();
    assert!(matches!(bad, Error::NameInvalid { .. }), "{bad}");
    assert!(!name.exists());
}

#[test]
fn a_full_file_system_says_so_and_keeps_nothing() {
    let name = Name::new("space");
    // 2^31 slots of 4 KiB: more than any machine that runs this has.
    let error = Segment::builder(&name).queue::<[u8; 4096]>("q", 1 << 31).create().unwrap_err();
    match error {
        Error::NoSpace { needed, available } => assert!(needed > available),
        error => panic!("{error}"),
    }
    assert!(!name.exists());
}

#[test]
fn the_participants_table_is_finite() {
    let name = Name::new("table");
    let first = Segment::builder(&name).queue::<u8>("q", 1).participants(2).create().unwrap();
    let second = Segment::open(&name).unwrap();
    assert!(matches!(Segment::open(&name), Err(Error::ParticipantsFull { max: 2 })));
    drop(second);
    let third = Segment::open(&name).unwrap();
    let list = first.participants().unwrap();
    assert_eq!(list.len(), 2);
    assert!(list.iter().all(|p| p.alive && p.pid == std::process::id()), "{list:?}");
    drop(third);
}

#[test]
fn participants_are_listed_with_labels_and_roles() {
    let name = Name::new("list");
    let segment =
        Segment::builder(&name).queue::<u8>("q", 1).label("the creator").create().unwrap();
    let other = OpenOptions::new().label("ünïcode ".repeat(20).as_str()).open(&name).unwrap();
    let queue = other.queue::<u8>("q").unwrap();
    let ends = (queue.sender().unwrap(), queue.receiver().unwrap());
    let list = segment.participants().unwrap();
    assert_eq!(list[0].label, "the creator");
    assert!(list[0].is_self && list[0].roles.is_empty());
    assert!("ünïcode ".repeat(20).starts_with(&list[1].label) && list[1].label.len() > 60);
    assert_eq!(list[1].roles, ["q: sender", "q: receiver"]);
    drop(ends);
    assert!(segment.participants().unwrap()[1].roles.is_empty());
}

#[test]
fn files_that_are_no_segments() {
    let name = Name::new("none");
    for contents in [&b""[..], b"x", &[0; 100], &[0; 100_000], &[0xff; 5000]] {
        std::fs::write(path(&name), contents).unwrap();
        std::fs::set_permissions(path(&name), PermissionsExt::from_mode(0o600)).unwrap();
        assert!(matches!(Segment::open(&name), Err(Error::NotASegment { .. })));
        assert!(matches!(Segment::unlink(&name), Err(Error::NotASegment { .. })));
        assert!(matches!(Queue::<u8>::create(&name, 1), Err(Error::AlreadyExists { .. })));
    }
    std::fs::remove_file(path(&name)).unwrap();
    std::fs::create_dir(path(&name)).unwrap();
    assert!(matches!(Segment::open(&name), Err(Error::NotASegment { .. })));
    std::fs::remove_dir(path(&name)).unwrap();
    std::os::unix::fs::symlink("/dev/null", path(&name)).unwrap();
    assert!(matches!(Segment::open(&name), Err(Error::PermissionDenied { .. })));
}

#[test]
fn modes_and_owners() {
    let name = Name::new("mode");
    let segment = sample(&name);
    let mode = |name: &Name| std::fs::metadata(path(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&name), 0o600);
    std::fs::set_permissions(path(&name), PermissionsExt::from_mode(0o602)).unwrap();
    assert!(matches!(Segment::open(&name), Err(Error::PermissionDenied { .. })));
    std::fs::set_permissions(path(&name), PermissionsExt::from_mode(0o600)).unwrap();
    assert!(Segment::open(&name).is_ok());
    // Only root may give a file away.
    if std::os::unix::fs::chown(path(&name), Some(12345), None).is_ok() {
        assert!(matches!(Segment::open(&name), Err(Error::PermissionDenied { .. })));
        let trusting = OpenOptions::new().group_access(true);
        assert!(matches!(trusting.open(&name), Err(Error::PermissionDenied { .. })));
        std::fs::set_permissions(path(&name), PermissionsExt::from_mode(0o660)).unwrap();
        assert!(matches!(Segment::open(&name), Err(Error::PermissionDenied { .. })));
        assert!(trusting.open(&name).is_ok());
    }
    drop(segment);
    let shared = Name::new("group");
    let segment =
        Segment::builder(&shared).queue::<u8>("q", 1).group_access(true).create().unwrap();
    assert_eq!(mode(&shared), 0o660);
    drop(segment);
}

#[test]
fn another_layout_version() {
    let name = Name::new("version");
    drop(sample(&name));
    patched(&name, 8, |_| 77);
    match Segment::open(&name) {
        Err(error @ Error::LayoutVersion { found: 77, expected: LAYOUT_VERSION }) => {
            assert_eq!(
                error.to_string(),
                format!("layout version 77, this build expects {LAYOUT_VERSION}")
            );
        }
        other => panic!("{other:?}"),
    }
    Segment::unlink(&name).unwrap();
}

#[test]
fn a_truncated_segment() {
    let name = Name::new("short");
    drop(sample(&name));
    let len = std::fs::metadata(path(&name)).unwrap().len();
    let file = std::fs::File::options().write(true).open(path(&name)).unwrap();
    for short in [len - 1, 4096, 600, 128] {
        file.set_len(short).unwrap();
        match Segment::open(&name) {
            Err(Error::Truncated { expected, found }) => {
                assert_eq!((expected, found), (len, short))
            }
            other => panic!("{short}: {other:?}"),
        }
    }
    file.set_len(127).unwrap();
    assert!(matches!(Segment::open(&name), Err(Error::NotASegment { .. })));
    file.set_len(len + 1).unwrap();
    assert!(Segment::open(&name).is_err());
}

#[test]
fn debris_of_a_killed_creator_is_swept() {
    let name = Name::new("debris");
    // What a creator leaves that is killed before it publishes.
    let debris = format!("/dev/shm/.slipring-{:016x}", std::process::id());
    std::fs::write(&debris, [0; 4096]).unwrap();
    std::fs::set_permissions(&debris, PermissionsExt::from_mode(0o600)).unwrap();
    drop(Queue::<u8>::create(&name, 1).unwrap());
    assert!(!std::path::Path::new(&debris).exists());
}

#[cfg(not(feature = "portable-wait"))]
#[test]
fn both_futex_modes_work_and_the_creator_chooses() {
    for mode in [WaitMode::Fence, WaitMode::Membarrier] {
        let name = Name::new("wait");
        let build = Segment::builder(&name).queue::<u64>("q", 2).wait_mode(mode);
        let Ok(segment) = build.create() else {
            assert_eq!(mode, WaitMode::Membarrier, "an old kernel may lack it");
            continue;
        };
        let queue = segment.queue::<u64>("q").unwrap();
        let mut rx = Segment::open(&name).unwrap().queue::<u64>("q").unwrap().receiver().unwrap();
        std::thread::scope(|scope| {
            let mut tx = queue.sender().unwrap();
            scope.spawn(move || (0..10_000).for_each(|i| tx.send(i).unwrap()));
            for i in 0..10_000 {
                assert_eq!(rx.recv().unwrap(), i);
            }
        });
    }
    let name = Name::new("mixed");
    let build = Segment::builder(&name).queue::<u64>("q", 2).wait_mode(WaitMode::Portable);
    assert!(matches!(build.create(), Err(Error::WaitMode { .. })));
}

/// Page faults of this thread so far.
fn page_faults() -> i64 {
    // SAFETY: plain numbers, all of which may be zero; the call only writes them.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: as above.
    assert_eq!(unsafe { libc::getrusage(libc::RUSAGE_THREAD, &mut usage) }, 0);
    usage.ru_minflt + usage.ru_majflt
}

#[test]
fn pages_mapped_in_advance_fault_no_more() {
    const PAGES: usize = 1024;
    // Linux before 5.14 knows no such advice.
    let base = std::ptr::null_mut();
    // SAFETY: nothing, at no address: whether the kernel knows the advice.
    if unsafe { libc::madvise(base, 0, libc::MADV_POPULATE_WRITE) } != 0 {
        return;
    }
    for open in [false, true] {
        for prefault in [false, true] {
            let name = Name::new("prefault");
            let builder = Segment::builder(&name).array::<u64>("array", PAGES * 512);
            let segment = builder.prefault(prefault && !open).create().unwrap();
            let segment = if open {
                OpenOptions::new().prefault(prefault).open(&name).unwrap()
            } else {
                segment
            };
            let array = segment.array::<u64>("array").unwrap();
            let before = page_faults();
            for page in 0..PAGES {
                array.set(page * 512, 1).unwrap();
            }
            let faults = page_faults() - before;
            if prefault {
                assert!(faults < PAGES as i64 / 16, "{faults} page faults");
            } else {
                // Some kernels map several pages at a fault.
                assert!(faults >= PAGES as i64 / 16, "{faults} page faults");
            }
        }
    }
}
