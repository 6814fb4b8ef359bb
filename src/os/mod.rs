//! The thin edge to the operating system: one function per need, errors as
//! they came.

mod fork;
#[cfg(not(any(feature = "portable-wait", loom)))]
mod futex;
mod lease;
pub(crate) mod points;
#[cfg(all(feature = "portable-wait", not(loom)))]
mod portable;
pub(crate) mod shm;

pub(crate) use fork::generation;
use fork::guard_fd;
#[cfg(not(any(feature = "portable-wait", loom)))]
pub(crate) use futex::Futex;
pub(crate) use lease::{LeaseFile, Probe};
#[cfg(all(feature = "portable-wait", not(loom)))]
pub(crate) use portable::Futex;

use rustix::thread::{MembarrierCommand, MembarrierQuery, membarrier_query};

#[cfg(all(test, not(loom)))]
thread_local! {
    /// How often this thread has woken sleepers, counted for the tests.
    pub(crate) static WAKES: core::cell::Cell<usize> = const { core::cell::Cell::new(0) };
}

/// Whether this kernel has `membarrier(GLOBAL_EXPEDITED)` and let this process
/// register for it. Registers again in a forked child.
pub(crate) fn membarrier_register() -> bool {
    use core::sync::atomic::{AtomicU64, Ordering};
    // Generation for which registration succeeded, plus one.
    static REGISTERED: AtomicU64 = AtomicU64::new(0);
    let wanted = u64::from(generation()) + 1;
    if REGISTERED.load(Ordering::Relaxed) == wanted {
        return true;
    }
    let needed = MembarrierQuery::GLOBAL_EXPEDITED | MembarrierQuery::REGISTER_GLOBAL_EXPEDITED;
    let ok = membarrier_query().contains(needed)
        && rustix::thread::membarrier(MembarrierCommand::RegisterGlobalExpedited).is_ok();
    if ok {
        REGISTERED.store(wanted, Ordering::Relaxed);
    }
    ok
}

/// Makes every registered process pass a full barrier.
pub(crate) fn membarrier() {
    // Can't fail: the command was queried when the segment was attached. If it
    // did, sleeps are sliced, so a missed wake-up costs one slice.
    let _ = rustix::thread::membarrier(MembarrierCommand::GlobalExpedited);
}

/// Processors that are online, whichever of them this process may use: its peer
/// may use another.
pub(crate) fn processors() -> usize {
    // SAFETY: takes no pointers.
    let count = unsafe { libc::sysconf(libc::_SC_NPROCESSORS_ONLN) };
    usize::try_from(count).unwrap_or(1)
}

/// This process, for people to read.
pub(crate) fn pid() -> u32 {
    rustix::process::getpid().as_raw_nonzero().get() as u32
}

/// The process's start time in clock ticks since boot (field 22 of
/// `/proc/self/stat`), or 0 where that can't be read. For people to read.
pub(crate) fn start_time() -> u64 {
    let Ok(stat) = std::fs::read_to_string("/proc/self/stat") else { return 0 };
    // The second field, the command, may hold spaces and parentheses.
    let Some((_, rest)) = stat.rsplit_once(')') else { return 0 };
    rest.split_ascii_whitespace().nth(19).and_then(|field| field.parse().ok()).unwrap_or(0)
}

/// The command name of this process, for people to read.
pub(crate) fn command_name() -> String {
    std::fs::read_to_string("/proc/self/comm").unwrap_or_default().trim_end().to_owned()
}

/// 64 unpredictable bits: names and nonces.
pub(crate) fn random() -> u64 {
    use core::sync::atomic::{AtomicU64, Ordering};
    use std::hash::{BuildHasher, Hasher};
    // The hasher's keys are random once per thread and count up, and a forked
    // child inherits them: add what differs.
    static CALLS: AtomicU64 = AtomicU64::new(0);
    let mut hasher = std::collections::hash_map::RandomState::new().build_hasher();
    hasher.write_u32(pid());
    hasher.write_u64(CALLS.fetch_add(1, Ordering::Relaxed));
    let clock = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    hasher.write_u128(clock.map_or(0, |d| d.as_nanos()));
    hasher.finish()
}
