//! The thin edge to the kernel: processors, shared mappings, futexes, forks.

use crate::Result;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::NonNull;
use std::sync::atomic::AtomicU32;
use std::time::{Duration, Instant};

/// Turns a system call's -1 into the error.
pub fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Keeps the calling thread on one processor.
pub fn pin(cpu: usize) -> Result<()> {
    // SAFETY: a cpu_set_t is bits, and zero is the empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    if cpu >= libc::CPU_SETSIZE as usize {
        return Err(format!("there is no processor {cpu}").into());
    }
    // SAFETY: `cpu` is below CPU_SETSIZE, so the bit lies in the set.
    unsafe { libc::CPU_SET(cpu, &mut set) };
    // SAFETY: the set outlives the call, and the size is its own.
    check(unsafe { libc::sched_setaffinity(0, size_of_val(&set), &set) })
        .map_err(|error| format!("processor {cpu}: {error}"))?;
    Ok(())
}

/// The calling process dies when its parent does.
pub fn die_with_parent() {
    // SAFETY: the call takes a number.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
}

/// Zeroed memory that a process shares with the children that it forks.
pub struct Shared {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: it is memory, used through atomics or by the rules of whoever uses it.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Shared {
    pub fn new(len: usize) -> Result<Shared> {
        // Populated, so that no page fault falls into a measurement.
        let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS | libc::MAP_POPULATE;
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping, anywhere, touches nothing that exists.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), len, access, flags, -1, 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error().into());
        }
        Ok(Shared { start: NonNull::new(start.cast()).ok_or("mapped at zero")?, len })
    }

    /// A file's first `len` bytes.
    pub fn file(file: &File, len: usize) -> Result<Shared> {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let fd = file.as_raw_fd();
        // SAFETY: a new mapping, anywhere, touches nothing that exists.
        let start =
            unsafe { libc::mmap(std::ptr::null_mut(), len, access, libc::MAP_SHARED, fd, 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error().into());
        }
        Ok(Shared { start: NonNull::new(start.cast()).ok_or("mapped at zero")?, len })
    }

    /// The value at this offset.
    ///
    /// # Safety
    ///
    /// Zeroed bytes, and whatever others store there, must be a `T`.
    pub unsafe fn at<T: Sync>(&self, offset: usize) -> &T {
        assert!(offset + size_of::<T>() <= self.len && offset.is_multiple_of(align_of::<T>()));
        // SAFETY: inside the mapping and aligned, which is at least page-aligned
        // at its start; the caller vouches for the rest.
        unsafe { self.start.add(offset).cast().as_ref() }
    }

    pub fn pointer(&self, offset: usize) -> *mut u8 {
        assert!(offset <= self.len);
        // SAFETY: inside the mapping, or just behind it.
        unsafe { self.start.as_ptr().add(offset) }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // SAFETY: mapped by `new` or `file` with this length; borrows have ended.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.len) };
    }
}

/// Sleeps while the word is `expected`.
pub fn futex_wait(word: &AtomicU32, expected: u32) {
    let forever = std::ptr::null::<libc::timespec>();
    // SAFETY: the word outlives the call; a shared futex wait reads it only.
    unsafe { libc::syscall(libc::SYS_futex, word, libc::FUTEX_WAIT, expected, forever) };
}

/// Wakes one sleeper.
pub fn futex_wake(word: &AtomicU32) {
    // SAFETY: a wake uses the word's address only.
    unsafe { libc::syscall(libc::SYS_futex, word, libc::FUTEX_WAKE, 1) };
}

/// A pipe, closed on exec.
pub fn pipe() -> Result<(OwnedFd, OwnedFd)> {
    let mut ends = [0; 2];
    // SAFETY: room for two descriptors.
    check(unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) })?;
    // SAFETY: two new descriptors that nobody else owns.
    Ok(unsafe { (OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1])) })
}

/// What an open file does when it would have to wait.
pub fn set_nonblocking(fd: &OwnedFd, nonblocking: bool) -> Result<()> {
    // SAFETY: the descriptor is open; the call takes numbers.
    let flags = check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFL) })?;
    let flags = if nonblocking { flags | libc::O_NONBLOCK } else { flags & !libc::O_NONBLOCK };
    // SAFETY: as above.
    check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, flags) })?;
    Ok(())
}

/// A forked child that works on something and then tells what came of it.
pub struct Forked {
    pid: libc::pid_t,
    answer: OwnedFd,
    status: Option<libc::c_int>,
}

impl Forked {
    /// Forks. Only while this process has no other threads: the child must find
    /// every lock of the libraries free.
    pub fn start<R: Serialize>(work: impl FnOnce() -> Result<R>) -> Result<Forked> {
        let (answer, mut telling) = pipe().map(|(read, write)| (read, File::from(write)))?;
        // What is buffered would be written by both.
        io::stdout().flush()?;
        // SAFETY: no other threads (see above), so the child may do anything.
        let pid = check(unsafe { libc::fork() })?;
        if pid > 0 {
            return Ok(Forked { pid, answer, status: None });
        }
        die_with_parent();
        let outcome = catch_unwind(AssertUnwindSafe(work));
        let told = match outcome {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(error.to_string()),
            // The panic was reported on stderr.
            Err(_) => Err("panicked".to_owned()),
        };
        let done = serde_json::to_writer(&mut telling, &told).is_ok();
        // SAFETY: leaves without running what belongs to the parent: its exit
        // handlers and destructors.
        unsafe { libc::_exit(if done { 0 } else { 1 }) }
    }

    fn has_ended(&mut self) -> Result<bool> {
        if self.status.is_none() {
            let mut status = 0;
            // SAFETY: our own child, not yet waited for; room for its status.
            if check(unsafe { libc::waitpid(self.pid, &mut status, libc::WNOHANG) })? != 0 {
                self.status = Some(status);
            }
        }
        Ok(self.status.is_some())
    }

    /// What the child says, once it has ended.
    fn answer<R: DeserializeOwned>(&mut self) -> Result<R> {
        if self.status != Some(0) {
            return Err(format!("ended with status {:?}", self.status).into());
        }
        let mut text = String::new();
        // SAFETY: duplicates a descriptor that is open.
        let fd = check(unsafe { libc::dup(self.answer.as_raw_fd()) })?;
        // SAFETY: the new descriptor is ours alone.
        unsafe { File::from_raw_fd(fd) }.read_to_string(&mut text)?;
        Ok(serde_json::from_str::<std::result::Result<R, String>>(&text)??)
    }
}

impl Drop for Forked {
    fn drop(&mut self) {
        if self.status.is_none() {
            // SAFETY: our own child, which has not been waited for, so the
            // number is still its own.
            unsafe {
                libc::kill(self.pid, libc::SIGKILL);
                libc::waitpid(self.pid, std::ptr::null_mut(), 0);
            }
        }
    }
}

/// Waits for all children, and for their answers; kills them all when one fails
/// or the time is over.
pub fn join<R: DeserializeOwned>(mut children: Vec<Forked>, within: Duration) -> Result<Vec<R>> {
    let end = Instant::now() + within;
    let mut answers: Vec<Option<R>> = children.iter().map(|_| None).collect();
    while answers.iter().any(Option::is_none) {
        for (child, answer) in children.iter_mut().zip(&mut answers) {
            if answer.is_none() && child.has_ended()? {
                *answer = Some(child.answer()?);
            }
        }
        if Instant::now() > end {
            return Err(format!("no end after {within:?}").into());
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(answers.into_iter().flatten().collect())
}
