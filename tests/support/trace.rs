//! A process under `ptrace`: forked from the caller, stepped by instructions or
//! by system calls, made to fail, killed.
//!
//! The traced process divides its work by *marks*, breakpoints in its own code.
//! It runs at full speed to a mark; from there the tracer decides.
//!
//! Fork from a process with no other threads at work (the roles of
//! `support::spawn` are such): the child goes on with what the parent had.

#![allow(dead_code, reason = "each test program uses its part")]

use core::ptr::null_mut;
use libc::{c_long, c_void, pid_t, user_regs_struct};

/// A breakpoint. In a process that nobody traces it kills.
#[inline(always)]
pub fn mark() {
    // SAFETY: changes nothing; the tracer sees a SIGTRAP and does not deliver
    // it. No `nomem`: what the work around it stores stays on its side.
    unsafe { core::arch::asm!("int3", options(nostack, preserves_flags)) };
}

/// A mark that tells the tracer a number: see [`Tracee::told`].
#[inline(always)]
pub fn tell(number: u64) {
    // SAFETY: as in `mark`; the register is only read.
    unsafe { core::arch::asm!("int3", in("rdi") number, options(nostack, preserves_flags)) };
}

/// Why a traced process stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// It is at a mark.
    Mark,
    /// It has made one step.
    Step,
    /// It is at the start or the end of a system call.
    Syscall,
    /// It has forked this process, which is traced as well.
    Fork(pid_t),
    /// It has exited with this code.
    Exited(i32),
    /// This signal is about to be delivered, or has ended it.
    Signal(i32),
}

/// A traced process. Killed and reaped when dropped.
#[derive(Debug)]
pub struct Tracee {
    pid: pid_t,
    ended: bool,
}

/// Forks a process that does `work` under the caller's eyes and exits, with
/// code 0 if `work` returns and 101 if it panics. It dies with the caller.
/// Returns when it is at its first mark.
pub fn fork_traced(work: impl FnOnce()) -> Tracee {
    let pid = fork(|| {
        // SAFETY: no pointers; this process has but one thread.
        unsafe {
            assert_eq!(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL), 0);
            assert_eq!(libc::ptrace(libc::PTRACE_TRACEME), 0);
        }
        work();
    });
    let mut tracee = Tracee { pid, ended: false };
    let first = match tracee.stopped() {
        Stop::Signal(libc::SIGCHLD) => tracee.run_on(),
        stop => stop,
    };
    assert_eq!(first, Stop::Mark, "before its first mark");
    tracee
}

/// Forks a process that does `work` and exits, as `fork_traced` does.
pub fn fork(work: impl FnOnce()) -> pid_t {
    // SAFETY: the caller's process has no other thread that might hold a lock
    // which `work` needs: see the head of this file.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0, "fork: {}", std::io::Error::last_os_error());
    if pid == 0 {
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        // SAFETY: ends the process without running what belongs to the parent.
        unsafe { libc::_exit(if done.is_ok() { 0 } else { 101 }) };
    }
    pid
}

/// Keeps this process, and those that it forks, on one processor: a step is a
/// switch from one to the other and back, which is several times as fast there.
pub fn share_a_processor() {
    // SAFETY: a processor set on the stack, filled in by libc's functions, with
    // a processor's number that the kernel has just given.
    unsafe {
        let mut set: libc::cpu_set_t = core::mem::zeroed();
        if let Ok(this) = usize::try_from(libc::sched_getcpu()) {
            libc::CPU_SET(this, &mut set);
            // Where it is not allowed, things are slower.
            libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set);
        }
    }
}

/// Waits for a forked process that is not traced; its exit code, or `None` if a
/// signal killed it.
pub fn reap(pid: pid_t) -> Option<i32> {
    let status = wait(pid);
    libc::WIFEXITED(status).then(|| libc::WEXITSTATUS(status))
}

fn wait(pid: pid_t) -> i32 {
    let mut status = 0;
    loop {
        // SAFETY: a live integer to write to.
        if unsafe { libc::waitpid(pid, &raw mut status, libc::__WALL) } == pid {
            return status;
        }
        let error = std::io::Error::last_os_error();
        assert_eq!(error.kind(), std::io::ErrorKind::Interrupted, "waitpid: {error}");
    }
}

impl Tracee {
    pub fn pid(&self) -> u32 {
        self.pid as u32
    }

    /// # Safety
    ///
    /// `address` and `data` as the request wants them.
    unsafe fn request(&self, request: u32, address: *mut c_void, data: *mut c_void) -> c_long {
        // SAFETY: the caller's promise; the process is this one's tracee and
        // stopped, or the call fails.
        let done = unsafe { libc::ptrace(request, self.pid, address, data) };
        let error = std::io::Error::last_os_error();
        assert!(done != -1, "ptrace {request} of {}: {error}", self.pid);
        done
    }

    fn go(&mut self, request: u32, signal: i32) -> Stop {
        let mut signal = signal;
        loop {
            // SAFETY: requests that let a process run take a signal as their
            // data.
            unsafe { self.request(request, null_mut(), signal as usize as *mut c_void) };
            match self.stopped() {
                // The end of its own children is nobody else's business.
                Stop::Signal(libc::SIGCHLD) => signal = libc::SIGCHLD,
                stop => return stop,
            }
        }
    }

    fn stopped(&mut self) -> Stop {
        let status = wait(self.pid);
        if libc::WIFEXITED(status) {
            self.ended = true;
            return Stop::Exited(libc::WEXITSTATUS(status));
        }
        if libc::WIFSIGNALED(status) {
            self.ended = true;
            return Stop::Signal(libc::WTERMSIG(status));
        }
        match (status >> 16, libc::WSTOPSIG(status)) {
            (libc::PTRACE_EVENT_FORK, _) => {
                let mut child: libc::c_ulong = 0;
                // SAFETY: the event's message is an unsigned long.
                unsafe {
                    self.request(libc::PTRACE_GETEVENTMSG, null_mut(), (&raw mut child).cast())
                };
                Stop::Fork(child as pid_t)
            }
            (_, signal) if signal == libc::SIGTRAP | 0x80 => Stop::Syscall,
            (_, libc::SIGTRAP) if self.is_breakpoint() => Stop::Mark,
            (_, libc::SIGTRAP) => Stop::Step,
            (_, signal) => Stop::Signal(signal),
        }
    }

    fn is_breakpoint(&self) -> bool {
        // SAFETY: all zeroes are a `siginfo_t`, which GETSIGINFO then writes.
        let info = unsafe {
            let mut info: libc::siginfo_t = core::mem::zeroed();
            self.request(libc::PTRACE_GETSIGINFO, null_mut(), (&raw mut info).cast());
            info
        };
        // From <asm-generic/siginfo.h>: sent by the kernel, as `int3` does; a
        // step gives TRAP_TRACE or, after a system call, TRAP_BRKPT.
        const SI_KERNEL: i32 = 0x80;
        info.si_code == SI_KERNEL
    }

    /// Runs to the next mark.
    pub fn run_to_mark(&mut self) {
        assert_eq!(self.run_on(), Stop::Mark, "before its next mark");
    }

    /// Runs one instruction, or one turn of a repeated one, or one system call.
    pub fn step(&mut self) -> Stop {
        self.go(libc::PTRACE_SINGLESTEP, 0)
    }

    /// Runs to the next start or end of a system call, if nothing comes first.
    pub fn run_to_syscall(&mut self) -> Stop {
        self.go(libc::PTRACE_SYSCALL, 0)
    }

    /// Runs until something happens.
    pub fn run_on(&mut self) -> Stop {
        self.go(libc::PTRACE_CONT, 0)
    }

    /// Runs until it ends; its exit code, or the signal that ended it.
    pub fn run_to_end(&mut self) -> Stop {
        let mut signal = 0;
        loop {
            match self.go(libc::PTRACE_CONT, signal) {
                Stop::Signal(number) if !self.ended => signal = number,
                stop => return stop,
            }
        }
    }

    /// Tells system calls from breakpoints, and stops at forks if `forks` are
    /// to be followed.
    pub fn watch_syscalls(&self, forks: bool) {
        let follow = if forks { libc::PTRACE_O_TRACEFORK } else { 0 };
        let options = libc::PTRACE_O_TRACESYSGOOD | libc::PTRACE_O_EXITKILL | follow;
        // SAFETY: options are passed as the data itself.
        unsafe {
            self.request(libc::PTRACE_SETOPTIONS, null_mut(), options as usize as *mut c_void)
        };
    }

    /// Goes on with a process that this one has forked, stopped before its first
    /// instruction. The caller must see to this one's end.
    pub fn follow(&mut self, child: pid_t) -> Tracee {
        let mut child = Tracee { pid: child, ended: false };
        assert_eq!(child.stopped(), Stop::Signal(libc::SIGSTOP));
        child
    }

    /// Lets the process go; nobody traces it any more, and the caller reaps it.
    pub fn release(mut self) -> pid_t {
        // SAFETY: no address, no signal.
        unsafe { self.request(libc::PTRACE_DETACH, null_mut(), null_mut()) };
        self.ended = true;
        self.pid
    }

    pub fn registers(&self) -> user_regs_struct {
        // SAFETY: all zeroes are a register set, which GETREGS then writes.
        unsafe {
            let mut registers: user_regs_struct = core::mem::zeroed();
            self.request(libc::PTRACE_GETREGS, null_mut(), (&raw mut registers).cast());
            registers
        }
    }

    /// The number of the `tell` that it is at.
    pub fn told(&self) -> u64 {
        self.registers().rdi
    }

    /// Whether it is at the start of a system call, not at the end.
    pub fn is_entry(&self) -> bool {
        // SAFETY: all zeroes are such a record, which the request writes, given
        // its length for an address.
        let info = unsafe {
            let mut info: libc::ptrace_syscall_info = core::mem::zeroed();
            let len = size_of::<libc::ptrace_syscall_info>();
            self.request(libc::PTRACE_GET_SYSCALL_INFO, len as *mut c_void, (&raw mut info).cast());
            info
        };
        info.op == libc::PTRACE_SYSCALL_INFO_ENTRY
    }

    /// The process's memory from this address on; the number of bytes read.
    fn read(&self, address: u64, to: &mut [u8]) -> usize {
        use std::os::unix::fs::FileExt;
        let memory = std::fs::File::open(format!("/proc/{}/mem", self.pid)).unwrap();
        memory.read_at(to, address).unwrap_or(0)
    }

    /// The bytes of the instruction that comes next, and what follows it.
    pub fn code(&self) -> [u8; 15] {
        let mut bytes = [0; 15];
        let read = self.read(self.registers().rip, &mut bytes);
        assert!(read > 0, "no instruction at {:#x}", self.registers().rip);
        bytes
    }

    /// The 16-bit number at this address.
    pub fn short_at(&self, address: u64) -> i16 {
        let mut bytes = [0; 2];
        self.read(address, &mut bytes);
        i16::from_ne_bytes(bytes)
    }

    /// The NUL-terminated string at this address, cut at 256 bytes.
    pub fn string_at(&self, address: u64) -> String {
        let mut bytes = [0; 256];
        let read = self.read(address, &mut bytes);
        let end = bytes[..read].iter().position(|byte| *byte == 0).unwrap_or(read);
        String::from_utf8_lossy(&bytes[..end]).into_owned()
    }

    pub fn set_registers(&self, mut registers: user_regs_struct) {
        // SAFETY: a register set for the kernel to read.
        unsafe {
            self.request(libc::PTRACE_SETREGS, null_mut(), (&raw mut registers).cast());
        }
    }

    /// SIGKILL where it stands, and reaped: nothing of the process is left.
    pub fn kill(mut self) {
        self.end();
    }

    fn end(&mut self) {
        if !self.ended {
            // SAFETY: not yet reaped, so the pid is its own.
            unsafe { libc::kill(self.pid, libc::SIGKILL) };
            while !self.ended {
                let status = wait(self.pid);
                self.ended = libc::WIFSIGNALED(status) || libc::WIFEXITED(status);
            }
        }
    }
}

impl Drop for Tracee {
    fn drop(&mut self) {
        self.end();
    }
}
