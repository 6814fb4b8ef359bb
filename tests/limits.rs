//! Limits of the system: descriptors, address space, file size, and a full
//! `/dev/shm`. What does not fit gives an error, kills nobody and leaves
//! nothing; what fits works.

#![allow(missing_docs, reason = "no public interface")]
#![cfg(target_os = "linux")]

#[path = "support/private_shm.rs"]
mod private_shm;
mod support;

use private_shm::{Holdings, names};
use slipring::*;
use std::cell::Cell;
use std::io::{Read, Write};
use support::{Name, end_of, role, say, spawn};

const MIB: usize = 1 << 20;

#[test]
#[ignore = "a role of the other tests"]
fn child() {
    let Some((role, words)) = role() else { return };
    let name = words[0].as_str();
    match role.as_str() {
        "descriptors" => descriptors(name),
        "address space" => address_space(name),
        "file size" => file_size(name),
        "without standard input" => without_standard_input(name),
        "full table" => full_table(name),
        "full" => in_private_shm("1m", || full(name)),
        "stores" => in_private_shm("1m", || stores(name)),
        other => panic!("unknown role {other}"),
    }
    say("done");
}

/// Runs a role in a process of its own, since limits are a process's.
fn run(role: &str) {
    let name = Name::new("limits");
    let mut child = spawn(role, &[&name]);
    match child.hear().as_str() {
        "done" => {}
        skipped => eprintln!("{role}: {skipped}"),
    }
    child.join();
    assert!(!name.exists());
}

fn limit(resource: libc::__rlimit_resource_t) -> libc::rlimit {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: a live record to write to.
    assert_eq!(unsafe { libc::getrlimit(resource, &raw mut limit) }, 0);
    limit
}

/// Sets the soft limit while `work` runs.
fn limited<R>(resource: libc::__rlimit_resource_t, to: u64, work: impl FnOnce() -> R) -> R {
    let before = limit(resource);
    let set = |limit: libc::rlimit| {
        // SAFETY: a live record to read.
        assert_eq!(unsafe { libc::setrlimit(resource, &raw const limit) }, 0);
    };
    set(libc::rlimit { rlim_cur: to, ..before });
    let result = work();
    set(before);
    result
}

fn bytes(name: &str, len: usize) -> Result<Array<u8>> {
    Array::create(name, len)
}

/// The error is the system's, of this number; and the name is not there.
fn refused(name: &str, made: Result<Array<u8>>, errno: i32) {
    match made {
        Err(Error::Os { source, .. }) if source.raw_os_error() == Some(errno) => {}
        other => panic!("{other:?}"),
    }
    assert!(matches!(Segment::open(name), Err(Error::NotFound { .. })));
}

fn works(name: &str, len: usize) {
    let array = bytes(name, len).unwrap();
    array.set(len - 1, 7).unwrap();
    assert_eq!(array.get(len - 1).unwrap(), 7);
}

/// One descriptor more each time, until creating and opening work.
fn descriptors(name: &str) {
    // Before the limits: what a process opens but once.
    works(name, 100);
    let before = Holdings::now();
    // The lowest number that is free: limits from here on leave none, one, two.
    // SAFETY: duplicates a descriptor that is open; closed below.
    let top = unsafe { libc::fcntl(0, libc::F_DUPFD_CLOEXEC, 0) };
    assert!(top >= 0);
    // SAFETY: made just above.
    unsafe { libc::close(top) };
    let mut failures = 0;
    for more in 0.. {
        let made = limited(libc::RLIMIT_NOFILE, top as u64 + more, || bytes(name, 100));
        match made {
            Ok(array) => {
                drop(array);
                break;
            }
            refusal => refused(name, refusal, libc::EMFILE),
        }
        assert_eq!(Holdings::now(), before);
        failures += 1;
    }
    assert!((1..8).contains(&failures), "{failures}");
    // The same for one who opens.
    let first = bytes(name, 100).unwrap();
    let held = Holdings::now();
    let mut failures = 0;
    for more in 0.. {
        match limited(libc::RLIMIT_NOFILE, top as u64 + more, || Segment::open(name)) {
            Ok(second) => {
                drop(second);
                break;
            }
            Err(Error::Os { source, .. }) => {
                assert_eq!(source.raw_os_error(), Some(libc::EMFILE));
                assert!(name_exists(name), "the opener's failure is the opener's");
            }
            Err(error) => panic!("{error}"),
        }
        assert_eq!(Holdings::now(), held);
        failures += 1;
    }
    assert!((1..8).contains(&failures), "{failures}");
    drop(first);
    assert_eq!(Holdings::now(), before);
}

fn address_space(name: &str) {
    works(name, 100);
    let before = Holdings::now();
    let little = used_address_space() + 8 * MIB as u64;
    let made = limited(libc::RLIMIT_AS, little, || bytes(name, 64 * MIB));
    refused(name, made, libc::ENOMEM);
    assert_eq!(Holdings::now(), before);
    works(name, 64 * MIB);
    // The one who opens has less room than the one who made it.
    let first = bytes(name, 64 * MIB).unwrap();
    let little = used_address_space() + 8 * MIB as u64;
    let opened = limited(libc::RLIMIT_AS, little, || Segment::open(name).map(drop));
    assert!(matches!(opened, Err(Error::Os { .. })), "{opened:?}");
    first.set(0, 1).unwrap();
    assert!(name_exists(name), "the opener's failure is the opener's");
}

/// Bytes of address space in use.
fn used_address_space() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let size = status.lines().find_map(|line| line.strip_prefix("VmSize:")).unwrap();
    size.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

fn name_exists(name: &str) -> bool {
    std::path::Path::new("/dev/shm").join(name).exists()
}

/// The kernel's answer to a file that is too long is a signal, SIGXFSZ, which
/// kills: the library must not ask for it.
fn file_size(name: &str) {
    works(name, 100);
    let before = Holdings::now();
    limited(libc::RLIMIT_FSIZE, 64 << 10, || {
        refused(name, bytes(name, MIB), libc::EFBIG);
        assert_eq!(Holdings::now(), before);
        works(name, 16 << 10);
    });
    works(name, MIB);
}

/// Descriptor number 0 is one like any other.
fn without_standard_input(name: &str) {
    works(name, 100);
    // SAFETY: nothing here reads from it.
    assert_eq!(unsafe { libc::close(0) }, 0);
    let before = Holdings::now();
    works(name, 100);
    assert_eq!(Holdings::now(), before, "left behind");
    let first = bytes(name, 100).unwrap();
    drop(Segment::open(name).unwrap());
    drop(first);
    assert_eq!(Holdings::now(), before, "left behind");
}

/// A forked child that finds the table of participants full may try again, and
/// gets in when there is room.
fn full_table(name: &str) {
    let segment = Segment::builder(name).queue::<u64>("queue", 4).participants(2).create().unwrap();
    // Or the name would be gone before the child comes.
    let keeper = Segment::open(name).unwrap();
    let queue = segment.queue::<u64>("queue").unwrap();
    let (mut tx, mut rx) = (queue.sender().unwrap(), queue.receiver().unwrap());
    let (mut turned_away, mut tell) = std::io::pipe().unwrap();
    // Each of the two processes lets go of its own.
    let handles = Cell::new(Some((queue, segment)));
    let theirs = &handles;
    let in_child = fork_and_join(move || {
        for _ in 0..3 {
            let refusal = tx.try_send(1).unwrap_err();
            let full = matches!(refusal.failure(), Some(Error::ParticipantsFull { max: 2 }));
            assert!(full && refusal.into_inner() == 1);
        }
        tell.write_all(&[1]).unwrap();
        // The parent makes room when it has heard that.
        while tx.try_send(1).is_err() {
            std::thread::yield_now();
        }
        assert_eq!(rx.try_recv().unwrap(), 1);
        drop(theirs.take());
    });
    turned_away.read_exact(&mut [0]).unwrap();
    drop(handles.take());
    in_child();
    drop(keeper);
}

/// Runs `work` in a process with a `/dev/shm` of this size.
fn in_private_shm(size: &str, work: impl FnOnce()) {
    fork_and_join(|| match private_shm::mount(size) {
        Ok(()) => work(),
        Err(error) => say(&format!("skipped: no /dev/shm of its own: {error}")),
    })();
}

/// Runs `work` in a forked process; the result waits for its end, which must be
/// a good one.
fn fork_and_join(work: impl FnOnce()) -> impl FnOnce() {
    // SAFETY: the test program runs this one test on this one thread, beside
    // the harness's main thread, which is blocked.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0);
    if pid == 0 {
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        // SAFETY: ends the process, takes no pointers.
        unsafe { libc::_exit(if done.is_ok() { 0 } else { 101 }) };
    }
    move || {
        let status = end_of(pid);
        assert!(libc::WIFEXITED(status), "killed by signal {}", libc::WTERMSIG(status));
        assert_eq!(libc::WEXITSTATUS(status), 0);
    }
}

fn full(name: &str) {
    let before = Holdings::now();
    for len in [2 * MIB, 64 * MIB, MIB + 1] {
        match bytes(name, len) {
            Err(Error::NoSpace { needed, available }) => {
                assert!(needed >= len as u64 && available <= MIB as u64, "{needed} {available}");
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(names(), [""; 0]);
        assert_eq!(Holdings::now(), before);
    }
    works(name, 512 << 10);
    // No room for a second one beside the first.
    let first = bytes(name, 600 << 10).unwrap();
    let second = format!("{name}-second");
    match bytes(&second, 600 << 10) {
        Err(Error::NoSpace { needed, available }) => assert!(available < needed),
        other => panic!("{other:?}"),
    }
    assert_eq!(names(), [name]);
    works(&second, 100 << 10);
    drop(first);
    assert_eq!(names(), [""; 0]);
    // No room for a page, and none for a name.
    fill();
    assert!(matches!(bytes(name, 1), Err(Error::NoSpace { .. })));
    assert_eq!(names(), ["filler"]);
}

/// Takes all the room that is left.
fn fill() -> std::fs::File {
    let mut filler = std::fs::File::create("/dev/shm/filler").unwrap();
    while filler.write_all(&[1; 4096]).is_ok() {}
    filler
}

/// Pages are reserved: once a segment is there, a store to it finds room,
/// whatever has become of the file system.
fn stores(name: &str) {
    const LEN: usize = 512 << 10;
    let array = bytes(name, LEN).unwrap();
    let filler = fill();
    let other = Array::<u8>::open(name).unwrap();
    let ones = vec![1; LEN];
    other.copy_from_slice(&ones).unwrap();
    assert_eq!(array.snapshot().unwrap(), ones);
    drop((filler, array, other));
    assert_eq!(names(), ["filler"]);
}

#[test]
fn few_descriptors() {
    run("descriptors");
}

#[test]
fn little_address_space() {
    run("address space");
}

#[test]
fn short_files() {
    run("file size");
}

#[test]
fn no_standard_input() {
    run("without standard input");
}

#[test]
fn a_full_table_of_participants() {
    run("full table");
}

#[test]
fn a_full_file_system() {
    run("full");
}

#[test]
fn stores_find_their_pages() {
    run("stores");
}
