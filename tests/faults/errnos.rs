//! What each system call can fail with, by its manual page, other than by a
//! programming error (EBADF, EFAULT, EINVAL where the arguments decide).

#![allow(non_upper_case_globals, reason = "libc names system calls so")]

use crate::trace::Tracee;
use libc::*;

/// A system call, as the tracer sees it.
#[derive(Clone, Debug)]
pub struct Call {
    pub number: c_long,
    arguments: [u64; 4],
    /// The path, of those that have one.
    path: String,
    /// What a `fcntl` with a lock wants.
    lock_type: i32,
}

impl Call {
    /// The call whose start the process is at.
    pub fn at(tracee: &Tracee) -> Call {
        let registers = tracee.registers();
        let arguments = [registers.rdi, registers.rsi, registers.rdx, registers.r10];
        let number = registers.orig_rax as c_long;
        let path = match number {
            SYS_open => tracee.string_at(arguments[0]),
            SYS_openat | SYS_unlinkat | SYS_linkat | SYS_newfstatat | SYS_statx => {
                tracee.string_at(arguments[1])
            }
            _ => String::new(),
        };
        let lock_type = if number == SYS_fcntl { tracee.short_at(arguments[2]).into() } else { -1 };
        Call { number, arguments, path, lock_type }
    }

    /// Whether it takes a name away.
    pub fn unlinks(&self) -> bool {
        self.number == SYS_unlinkat
    }

    /// Whether it finds out if the name may be taken away: whether anybody holds
    /// a lease, whether the name still leads to the file, whether somebody else
    /// is about to remove it.
    pub fn looks_before_unlinking(&self) -> bool {
        match self.number {
            SYS_fstat | SYS_newfstatat => true,
            SYS_fcntl => self.lock_type != F_UNLCK,
            _ => false,
        }
    }

    /// Whether the kernel has done the work when it complains: Linux frees a
    /// descriptor whatever `close` returns.
    pub fn fails_when_done(&self) -> bool {
        self.number == SYS_close
    }

    /// Whether an operation has to do without it: what is for people to read,
    /// cheaper ways, cleaning.
    pub fn is_optional(&self) -> bool {
        match self.number {
            // The fork handler's way to a new description is no mere comfort.
            SYS_open | SYS_openat => {
                self.path.starts_with("/proc/") && !self.path.contains("/fd/")
                    || self.path == "/dev/shm"
            }
            // Registration decides how a segment sleeps; a barrier can be missed.
            SYS_membarrier => self.arguments[0] == MEMBARRIER_CMD_GLOBAL_EXPEDITED as u64,
            SYS_getdents64 | SYS_prlimit64 | SYS_futex | SYS_read | SYS_lseek | SYS_close
            | SYS_madvise | SYS_brk => true,
            SYS_statx => self.path.is_empty(),
            _ => false,
        }
    }
}

/// What the call can fail with.
pub fn errnos_of(call: &Call) -> &'static [i32] {
    match call.number {
        SYS_open | SYS_openat => {
            if call.arguments[1 + usize::from(call.number == SYS_openat)] as i32 & O_CREAT != 0 {
                &[EACCES, EINTR, EMFILE, ENFILE, ENOMEM, ENOSPC, EPERM]
            } else {
                &[EACCES, EINTR, EMFILE, ENFILE, ENOMEM, EPERM]
            }
        }
        // EIO is for files that are written back to a disk.
        SYS_close => &[EINTR],
        SYS_read => &[EINTR, EIO, EAGAIN],
        SYS_pread64 => &[EINTR, EIO],
        SYS_lseek => &[ESPIPE],
        SYS_newfstatat | SYS_statx | SYS_fstat => &[EACCES, ENOMEM],
        SYS_fstatfs | SYS_statfs => &[EACCES, EINTR, EIO, ENOMEM],
        SYS_getdents64 => &[ENOENT, EIO],
        SYS_ftruncate => &[EINTR, EFBIG, EIO, EPERM, ENOSPC],
        SYS_fallocate => &[EINTR, EFBIG, EIO, ENOSPC, ENOMEM, EOPNOTSUPP, EPERM],
        SYS_fchmod => &[EIO, ENOMEM, EPERM],
        SYS_linkat => &[EACCES, EIO, EMLINK, ENOMEM, ENOSPC, EPERM],
        SYS_unlinkat => &[EACCES, EBUSY, EIO, ENOMEM, EPERM],
        SYS_mmap => &[ENOMEM, EAGAIN, ENFILE, EPERM],
        SYS_brk | SYS_madvise => &[ENOMEM],
        SYS_mprotect => &[ENOMEM],
        SYS_fcntl => match call.arguments[1] as i32 {
            F_OFD_SETLK => &[EINTR, ENOLCK],
            // Whatever a seccomp filter or a network file system may say.
            F_OFD_GETLK => &[EINTR, ENOLCK],
            _ => &[EMFILE, EPERM],
        },
        SYS_dup3 => &[EBUSY, EINTR, EMFILE],
        SYS_futex => &[EAGAIN, EINTR, ETIMEDOUT, ENOSYS],
        SYS_membarrier => &[ENOSYS, EPERM],
        SYS_getrandom => &[EINTR],
        SYS_clock_nanosleep => &[EINTR],
        SYS_prlimit64 => &[EPERM, ENOSYS],
        // They can't fail, given their arguments; or they are not the library's.
        SYS_getpid | SYS_geteuid | SYS_gettid | SYS_munmap | SYS_clone | SYS_set_robust_list
        | SYS_rt_sigprocmask | SYS_rseq | SYS_sched_yield => &[],
        other => panic!("what can system call {other} fail with? {call:?}"),
    }
}
