//! The fast path makes no system call: a child whose kernel kills it for any
//! call but `write` and `exit_group` (a seccomp filter) uses every object.
//!
//! That includes memory: what an operation allocated beyond the allocator's
//! first page would show as `brk` or `mmap`.

mod support;

use slipring::*;
use support::{Name, role, spawn};

const ROUNDS: u64 = 10_000;

/// Objects of every kind, and one operation after the other. Nobody sleeps, and
/// nobody has to. (A poll that finds nothing asks, once a slice, who is alive:
/// that is a system call, and not here.)
struct Objects {
    queue: (Sender<u64>, Receiver<u64>),
    again: (Sender<[u64; 20]>, Receiver<[u64; 20]>),
    blobs: (Sender<[u8]>, Receiver<[u8]>),
    typed: [Pipe<u64>; 2],
    bytes: [Pipe; 2],
    number: Value<u64>,
    large: Value<[u64; 9]>,
    array: Array<u32>,
    records: Array<[u8; 24]>,
    lock: Lock,
}

impl Objects {
    fn new(segment: &Segment) -> Objects {
        let queue = segment.queue("queue").unwrap();
        let again = segment.queue("again").unwrap();
        let blobs = segment.bytes_queue("blobs").unwrap();
        let ends = [End::A, End::B];
        Objects {
            queue: (queue.sender().unwrap(), queue.receiver().unwrap()),
            again: (again.sender().unwrap(), again.receiver().unwrap()),
            blobs: (blobs.sender().unwrap(), blobs.receiver().unwrap()),
            typed: ends.map(|end| segment.typed_pipe_end("typed", end).unwrap()),
            bytes: ends.map(|end| segment.pipe_end("bytes", end).unwrap()),
            number: segment.value("number").unwrap(),
            large: segment.value("large").unwrap(),
            array: segment.array("array").unwrap(),
            records: segment.array("records").unwrap(),
            lock: segment.lock("lock").unwrap(),
        }
    }

    fn round(&mut self, i: u64) {
        let (tx, rx) = &mut self.queue;
        tx.send(i).unwrap();
        tx.send_many(&[i, i]).unwrap();
        let mut slot = tx.claim().unwrap();
        slot.write(i);
        slot.commit();
        drop(tx.claim().unwrap());
        for _ in 0..3 {
            assert_eq!(rx.recv().unwrap(), i);
        }
        assert_eq!(*rx.take().unwrap(), i);

        let (tx, rx) = &mut self.again;
        tx.send([i; 20]).unwrap();
        assert_eq!(rx.recv().unwrap(), [i; 20]);

        let (tx, rx) = &mut self.blobs;
        tx.send(&i.to_le_bytes()).unwrap();
        assert_eq!(*rx.take().unwrap(), i.to_le_bytes());

        let [a, b] = &mut self.typed;
        a.send(i).unwrap();
        b.send(i + 1).unwrap();
        assert_eq!((b.recv().unwrap(), a.recv().unwrap()), (i, i + 1));

        let [a, b] = &mut self.bytes;
        let mut buffer = [0; 8];
        a.send(&i.to_le_bytes()).unwrap();
        assert_eq!(b.recv_into(&mut buffer).unwrap(), 8);
        b.send(&buffer).unwrap();
        assert_eq!(*a.peek().unwrap(), i.to_le_bytes());

        self.number.store(i);
        self.number.fetch_add(1);
        assert_eq!(self.number.load(), i + 1);
        self.large.store([i; 9]);
        assert_eq!(self.large.update(|old| old), [i; 9]);
        self.array.set(3, i as u32).unwrap();
        assert_eq!(self.array.get(3).unwrap(), i as u32);
        self.records.set(1, [i as u8; 24]).unwrap();
        assert_eq!(self.records.get(1).unwrap(), [i as u8; 24]);
        drop(self.lock.lock().unwrap());
        self.array.lock().unwrap().fill(7);
    }
}

#[test]
#[ignore = "a role of the other tests"]
fn child() {
    let Some((role, words)) = role() else { return };
    let mut objects = Objects::new(&Segment::open(&words[0]).unwrap());
    // What is done once is done here.
    objects.round(0);
    forbid_system_calls();
    for i in 1..ROUNDS {
        objects.round(i);
    }
    if role == "breach" {
        std::thread::yield_now();
    }
    let word = b"@done\n";
    // SAFETY: `write` reads the bytes of a live array.
    unsafe {
        libc::syscall(libc::SYS_write, 1, word.as_ptr(), word.len());
        libc::syscall(libc::SYS_exit_group, 0);
    }
}

/// From here on any other call than `write` and `exit_group`, on this thread, is
/// the end of the process.
fn forbid_system_calls() {
    let step = |code: u32, jt, jf, k: u32| libc::sock_filter { code: code as u16, jt, jf, k };
    let equals = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    let mut steps = [
        // The number of the call is the first word of its description.
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        step(equals, 2, 0, libc::SYS_write as u32),
        step(equals, 1, 0, libc::SYS_exit_group as u32),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_KILL_PROCESS),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: steps.len() as u16, filter: steps.as_mut_ptr() };
    // SAFETY: the program and its steps live through the calls, which copy them.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        assert_eq!(libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &program), 0);
    }
}

#[cfg(not(feature = "portable-wait"))]
fn modes() -> Vec<WaitMode> {
    vec![WaitMode::Fence, WaitMode::Membarrier]
}

#[cfg(feature = "portable-wait")]
fn modes() -> Vec<WaitMode> {
    vec![WaitMode::Portable]
}

/// The child's words in a segment with every object.
fn play(role: &str) {
    for mode in modes() {
        let name = Name::new("seccomp");
        let segment = Segment::builder(&name)
            .queue::<u64>("queue", 7)
            .queue::<[u64; 20]>("again", QueueOptions::new(2).delivery(Delivery::AtLeastOnce))
            .bytes_queue("blobs", 3, 100)
            .typed_pipe::<u64>("typed", 5)
            .pipe("bytes", 1024)
            .value::<u64>("number")
            .value::<[u64; 9]>("large")
            .array::<u32>("array", 9)
            .array::<[u8; 24]>("records", 3)
            .lock("lock")
            .wait_mode(mode)
            .create();
        let Ok(segment) = segment else {
            assert_eq!(mode, WaitMode::Membarrier, "an old kernel may lack it");
            continue;
        };
        let mut process = spawn(role, &[&name]);
        let heard = process.hear_or_end();
        match role {
            "breach" => assert_eq!(heard, None, "the filter catches nothing"),
            _ => assert_eq!(heard.as_deref(), Some("done"), "killed for a system call"),
        }
        process.kill();
        drop(segment);
    }
}

#[test]
fn every_operation_that_need_not_wait() {
    play("no calls");
}

/// That the test above can fail.
#[test]
fn a_system_call_is_noticed() {
    play("breach");
}
