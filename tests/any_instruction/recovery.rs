//! Recovery of a dead process, by one that is killed at it.

use crate::trace::{fork, reap};
use crate::{Death, Operation, PATIENCE, kill_at_any_instruction};
use slipring::*;

/// In the segment: everything that a process can die holding.
struct Recover {
    segment: Segment,
    queue: Queue<u64>,
    tx: Sender<u64>,
    rx: Receiver<u64>,
    lock: Lock,
    value: Value<[u64; 3]>,
    a: Pipe<u64>,
}

const SLOTS: usize = 3;

pub fn recover(name: &str) {
    let segment = Segment::builder(name)
        .queue::<u64>("queue", SLOTS)
        .lock("lock")
        .value::<[u64; 3]>("value")
        .typed_pipe::<u64>("pipe", 2)
        .participants(4)
        .create()
        .unwrap();
    let queue = segment.queue::<u64>("queue").unwrap();
    let operation = Recover {
        tx: queue.sender().unwrap(),
        rx: queue.receiver().unwrap(),
        lock: segment.lock("lock").unwrap(),
        value: segment.value("value").unwrap(),
        a: segment.typed_pipe_end("pipe", End::A).unwrap(),
        queue,
        segment,
    };
    kill_at_any_instruction(name, operation);
}

impl Operation for Recover {
    /// Somebody dies with a message taken, one claimed, the lock, and an end of
    /// the pipe.
    fn arrange(&mut self) {
        self.tx.try_send(1).unwrap();
        let dead = fork(|| {
            let mut b = self.segment.typed_pipe_end::<u64>("pipe", End::B).unwrap();
            b.try_send(2).unwrap();
            let message = self.rx.try_take().unwrap();
            let slot = self.tx.try_claim().unwrap();
            let guard = self.lock.lock().unwrap();
            // SAFETY: takes no pointers, and does not return.
            unsafe { libc::raise(libc::SIGKILL) };
            drop((message, slot, guard));
        });
        assert_eq!(reap(dead), None, "it was to be killed");
    }

    fn warm_up(&mut self) {
        self.value.store([1; 3]);
    }

    fn run(&mut self) {
        assert_eq!(self.segment.recover().unwrap(), 1);
    }

    fn settle(&mut self, death: &Death) -> bool {
        // The victim, and the first one if the victim did not get to its end.
        let found = self.segment.recover().unwrap();
        assert!((1..=2).contains(&found), "{found} {death:?}");
        assert_eq!(self.segment.recover().unwrap(), 0);
        let listed = self.segment.participants().unwrap();
        assert_eq!(listed.len(), 1, "{listed:?}");

        let Err(LockError::Poisoned(mut guard)) = self.lock.lock_timeout(PATIENCE) else {
            panic!("not poisoned: {death:?}");
        };
        guard.make_clean();
        drop(guard);
        drop(self.lock.lock_timeout(PATIENCE).unwrap());

        // What was taken is lost, what was claimed is skipped, and each slot is
        // to be had again.
        assert_eq!((self.queue.senders(), self.queue.receivers()), (1, 1), "{death:?}");
        for lap in 0..3 {
            for i in 0..SLOTS as u64 {
                self.tx.send_timeout(lap * 10 + i, PATIENCE).unwrap();
                // The poisoned slot is passed over by a receiver.
                assert_eq!(self.rx.recv_timeout(PATIENCE).unwrap(), lap * 10 + i);
            }
        }
        (0..SLOTS as u64).for_each(|i| self.tx.try_send(i).unwrap());
        assert!(matches!(self.tx.try_send(9), Err(SendError::Full(9))));
        (0..SLOTS as u64).for_each(|i| assert_eq!(self.rx.try_recv().unwrap(), i));

        assert!(self.value.store_timeout([2; 3], PATIENCE).unwrap());
        assert_eq!(self.a.recv().unwrap(), 2);
        assert!(matches!(self.a.recv(), Err(RecvError::PeerDied { .. })), "{death:?}");
        let mut b = self.segment.typed_pipe_end::<u64>("pipe", End::B).unwrap();
        b.try_send(3).unwrap();
        assert_eq!(self.a.recv().unwrap(), 3);
        found == 1
    }

    fn stride(&self) -> u64 {
        11
    }
}
