//! What tests with several processes need: names that are cleaned up, children
//! that are this very test program, and a rendezvous that is no sleep.

#![allow(dead_code, reason = "each test program uses its part")]

use std::io::{BufRead, BufReader, Write};
use std::ops::Deref;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};

/// The shortest wait that is no poll: it finds nothing and leaves the mark of a
/// sleeper.
pub const BRIEF: std::time::Duration = std::time::Duration::from_nanos(1);

/// Waits for a child that was forked; how it ended.
pub fn end_of(pid: libc::pid_t) -> i32 {
    let mut status = 0;
    // SAFETY: a live number to write to.
    assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
    status
}

/// A segment name of this test's own, unlinked when the test ends, however it
/// ends.
pub struct Name(String);

impl Name {
    pub fn new(test: &str) -> Name {
        use std::sync::atomic::{AtomicU32, Ordering};
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        Name(format!("slipring-test-{}-{test}-{count}", std::process::id()))
    }

    pub fn exists(&self) -> bool {
        std::path::Path::new("/dev/shm").join(&self.0).exists()
    }
}

impl Deref for Name {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(format!("/dev/shm/{}", self.0));
    }
}

/// Removes all names of this program's, before it aborts.
pub fn clean_up() {
    let prefix = format!("slipring-test-{}-", std::process::id());
    for entry in std::fs::read_dir("/dev/shm").unwrap().flatten() {
        if entry.file_name().to_string_lossy().starts_with(&prefix) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

const ROLE: &str = "SLIPRING_TEST_ROLE";

/// A child process: this test program, running its `child` test in a role.
/// Killed when dropped.
pub struct Process {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
}

/// Starts a child in this role, with these words.
pub fn spawn(role: &str, words: &[&str]) -> Process {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--ignored", "--nocapture", "--test-threads=1"])
        .env(ROLE, [&[role], words].concat().join("\n"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let stdin = child.stdin.take();
    let stdout = BufReader::new(child.stdout.take().unwrap());
    Process { child, stdin, stdout }
}

/// In the child: its role and words. `None` when somebody runs the ignored
/// tests by hand.
pub fn role() -> Option<(String, Vec<String>)> {
    let all = std::env::var(ROLE).ok()?;
    let mut words = all.split('\n').map(str::to_owned);
    Some((words.next()?, words.collect()))
}

/// In the child: says a word to the parent.
pub fn say(word: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "@{word}").unwrap();
    out.flush().unwrap();
}

/// In the child: waits for the parent's word; exits if the parent is gone.
pub fn hear() -> String {
    let mut line = String::new();
    if std::io::stdin().read_line(&mut line).unwrap_or(0) == 0 {
        std::process::exit(0);
    }
    line.trim_end().to_owned()
}

impl Process {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for the child's next word; panics if it ends first.
    pub fn hear(&mut self) -> String {
        self.hear_or_end().expect("the child ended without a word")
    }

    /// Waits for the child's next word, or `None` for its end.
    pub fn hear_or_end(&mut self) -> Option<String> {
        loop {
            let mut line = String::new();
            if self.stdout.read_line(&mut line).unwrap() == 0 {
                return None;
            }
            // The test harness may have begun the line.
            if let Some((_, word)) = line.trim_end().split_once('@') {
                return Some(word.to_owned());
            }
        }
    }

    pub fn say(&mut self, word: &str) {
        writeln!(self.stdin.as_mut().unwrap(), "{word}").unwrap();
    }

    /// SIGKILL, and reaped: nothing of the process is left.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Waits for the end, whatever it is.
    pub fn end(&mut self) -> ExitStatus {
        drop(self.stdin.take());
        self.child.wait().unwrap()
    }

    /// Waits until the child has stopped itself; whether it did, and has not
    /// ended instead.
    pub fn has_stopped(&mut self) -> bool {
        let mut status = 0;
        // SAFETY: a child of this process, and a live integer.
        let found =
            unsafe { libc::waitpid(self.child.id() as i32, &raw mut status, libc::WUNTRACED) };
        found == self.child.id() as i32 && libc::WIFSTOPPED(status)
    }

    pub fn signal(&self, signal: i32) {
        // SAFETY: the child has not been waited for, so its pid is its own.
        assert_eq!(unsafe { libc::kill(self.child.id() as i32, signal) }, 0);
    }

    /// Waits for a clean end.
    pub fn join(mut self) {
        drop(self.stdin.take());
        while self.hear_or_end().is_some() {}
        assert!(self.child.wait().unwrap().success(), "the child failed");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}
