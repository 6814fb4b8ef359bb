//! A process with a `/dev/shm` of its own.

use std::ffi::CStr;
use std::io;

/// Gives the calling process, which must have no other thread, a new and empty
/// `/dev/shm` of this size, by a mount namespace; without privileges, by a user
/// namespace as well. An error where the system permits neither.
pub fn mount(size: &str) -> io::Result<()> {
    // SAFETY: takes no pointers.
    let (user, group) = unsafe { (libc::geteuid(), libc::getegid()) };
    // SAFETY: as above.
    if unsafe { libc::unshare(libc::CLONE_NEWNS) } != 0 {
        // SAFETY: as above.
        check(unsafe { libc::unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNS) })?;
        std::fs::write("/proc/self/setgroups", "deny")?;
        std::fs::write("/proc/self/uid_map", format!("{user} {user} 1"))?;
        std::fs::write("/proc/self/gid_map", format!("{group} {group} 1"))?;
    }
    // What is mounted from here on stays here.
    mount_call(c"none", c"/", c"", libc::MS_REC | libc::MS_PRIVATE, c"")?;
    let size = std::ffi::CString::new(format!("size={size},mode=1777"))?;
    mount_call(c"tmpfs", c"/dev/shm", c"tmpfs", 0, &size)
}

fn mount_call(from: &CStr, to: &CStr, kind: &CStr, flags: u64, data: &CStr) -> io::Result<()> {
    // SAFETY: NUL-terminated strings that outlive the call.
    check(unsafe {
        libc::mount(from.as_ptr(), to.as_ptr(), kind.as_ptr(), flags, data.as_ptr().cast())
    })
}

fn check(result: i32) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Names in `/dev/shm`.
pub fn names() -> Vec<String> {
    let entries = std::fs::read_dir("/dev/shm").unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// What a process holds: open descriptors, with what they lead to, and mapped
/// segments.
#[derive(Debug, PartialEq, Eq)]
pub struct Holdings(Vec<String>);

impl Holdings {
    pub fn now() -> Holdings {
        let mut held = Vec::new();
        for entry in std::fs::read_dir("/proc/self/fd").unwrap() {
            let path = entry.unwrap().path();
            let to = std::fs::read_link(&path)
                .map_or_else(|e| e.to_string(), |p| p.display().to_string());
            // The listing has a descriptor of its own.
            if !to.ends_with("/fd") {
                held.push(format!("{} -> {to}", path.display()));
            }
        }
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        held.extend(maps.lines().filter(|l| l.contains("/dev/shm/")).map(str::to_owned));
        held.sort();
        Holdings(held)
    }
}
