//! Processes that stop at each point of sending, receiving and locking, while
//! others go on, and then continue: nothing is lost, nothing is corrupt, and
//! nobody takes them for dead.

use crate::queue::{Message, message};
use crate::stage::{PATIENCE, Scenario, Stage, Survivor, Victim, begin, end};
use crate::support::say;
use slipring::*;
use std::time::{Duration, Instant};

/// Numbers of the survivor's own messages start here.
const MARK: u64 = 1000;

/// Longer than a slice, so that whoever would take a stopped process for dead
/// has the time to.
const A_WHILE: Duration = Duration::from_millis(25);

pub const VICTIMS: &[Victim] = &[
    ("stop.send", |name| {
        let mut tx = Queue::<Message>::open(name).unwrap().sender().unwrap();
        begin();
        tx.try_send(message(1)).unwrap();
        tx.send_many(&[message(2), message(3)]).unwrap();
        drop(tx.claim().unwrap());
        end();
        tx.send(message(4)).unwrap();
    }),
    ("stop.receive", |name| {
        let mut rx = Queue::<Message>::open(name).unwrap().receiver().unwrap();
        begin();
        let mut got = Vec::new();
        for _ in 0..3 {
            match rx.try_recv() {
                Ok(message) => got.push(message[0].to_string()),
                Err(RecvError::Empty) => {}
                Err(error) => panic!("{error}"),
            }
        }
        end();
        say(&got.join(" "));
    }),
    ("stop.pipe-send", |name| {
        let mut pipe = Pipe::<Message>::open_typed(name).unwrap();
        begin();
        pipe.send(message(1)).unwrap();
        pipe.send_many(&[message(2), message(3)]).unwrap();
        end();
        pipe.send(message(4)).unwrap();
    }),
    ("stop.pipe-receive", |name| {
        let mut pipe = Pipe::<Message>::open_typed(name).unwrap();
        begin();
        for i in 1..=3 {
            assert_eq!(pipe.recv().unwrap(), message(i));
        }
        end();
        for i in 4..40 {
            assert_eq!(pipe.recv().unwrap(), message(i));
        }
    }),
    ("stop.pipe-send-bytes", |name| {
        let mut pipe = Pipe::open(name).unwrap();
        begin();
        pipe.send(b"one").unwrap();
        pipe.send(&[2; 200]).unwrap();
        end();
        pipe.send(&[3; 2000]).unwrap();
    }),
    ("stop.pipe-receive-bytes", |name| {
        let mut pipe = Pipe::open(name).unwrap();
        begin();
        assert_eq!(pipe.recv().unwrap(), b"one");
        assert_eq!(pipe.recv().unwrap(), [2; 200]);
        end();
        assert_eq!(pipe.recv().unwrap(), [3; 2000]);
    }),
    ("stop.lock", |name| {
        let lock = Lock::open(name).unwrap();
        begin();
        drop(lock.lock().unwrap());
        drop(lock.try_lock().unwrap());
        end();
        drop(lock.lock().unwrap());
    }),
    ("stop.leave", |name| {
        let segment = Segment::open(name).unwrap();
        begin();
        drop(segment);
        end();
    }),
    ("stop.store", |name| {
        let value = Value::<[u64; 5]>::open(name).unwrap();
        begin();
        value.store([1; 5]);
        value.update(|_| [2; 5]);
        end();
    }),
];

pub fn scenarios() -> Vec<Scenario> {
    let all: &[(&str, Survivor)] = &[
        ("stop.send, at most once", |stage| send(stage, Delivery::AtMostOnce)),
        ("stop.send, at least once", |stage| send(stage, Delivery::AtLeastOnce)),
        ("stop.receive, at most once", |stage| receive(stage, Delivery::AtMostOnce)),
        ("stop.receive, at least once", |stage| receive(stage, Delivery::AtLeastOnce)),
        ("stop.pipe-send", pipe_send),
        ("stop.pipe-receive", pipe_receive),
        ("stop.pipe-send bytes", pipe_send_bytes),
        ("stop.pipe-receive bytes", pipe_receive_bytes),
        ("stop.lock", lock),
        ("stop.store", store),
        ("stop.leave", leave),
        ("stop.leave after another", leave_after_another),
    ];
    all.iter().map(|&(name, run)| Scenario::new(name, run)).collect()
}

/// The survivor's ends of a queue, and what went in and came out.
struct Own {
    segment: Segment,
    tx: Sender<Message>,
    rx: Receiver<Message>,
    sent: Vec<u64>,
    got: Vec<u64>,
}

impl Own {
    fn new(stage: &Stage<'_>, slots: usize, delivery: Delivery) -> Own {
        let options = QueueOptions::new(slots).delivery(delivery);
        let segment = Segment::builder(&stage.name).queue::<Message>("queue", options);
        let segment = segment.create().unwrap();
        let queue = segment.queue::<Message>("queue").unwrap();
        let (tx, rx) = (queue.sender().unwrap(), queue.receiver().unwrap());
        Own { segment, tx, rx, sent: Vec::new(), got: Vec::new() }
    }

    fn send(&mut self) {
        let next = MARK + self.sent.len() as u64;
        match self.tx.try_send(message(next)) {
            Ok(()) => self.sent.push(next),
            Err(SendError::Full(_)) => {}
            Err(error) => panic!("{error}"),
        }
    }

    fn receive(&mut self) {
        match self.rx.try_take() {
            Ok(found) => {
                assert_eq!(*found, message(found[0]), "torn");
                assert!(!found.redelivered(), "taken from the living");
                self.got.push(found[0]);
            }
            Err(RecvError::Empty) => {}
            Err(error) => panic!("{error}"),
        }
    }

    /// Several laps, as far as a stopped process lets anybody.
    fn laps(&mut self) {
        for _ in 0..20 {
            self.send();
            self.send();
            self.receive();
            self.receive();
        }
        if let Ok(found) = self.rx.recv_timeout(A_WHILE) {
            self.got.push(found[0]);
        }
    }

    /// Everything that was sent has come, once, each sender's in its order.
    fn all_came(mut self, stage: &Stage<'_>, others: &[u64]) {
        while let Ok(found) = self.rx.recv_timeout(A_WHILE) {
            self.got.push(found[0]);
        }
        let of = |mine: bool| self.got.iter().copied().filter(move |i| (*i >= MARK) == mine);
        assert!(of(true).eq(self.sent.iter().copied()), "{:?} of {:?}", self.got, self.sent);
        assert!(of(false).eq(others.iter().copied()), "{:?} and not {others:?}", self.got);
        let counters = self.rx.queue().counters();
        assert_eq!((counters.lost, counters.redelivered), (0, 0));
        drop((self.tx, self.rx, self.segment));
        stage.is_gone();
    }
}

fn send(stage: &Stage<'_>, delivery: Delivery) {
    let mut own = Own::new(stage, 5, delivery);
    let stopped = stage.stop("stop.send", || {});
    own.laps();
    stopped.is_alive_in(&own.segment);
    own.laps();
    stopped.resume(|| {
        own.send();
        own.receive();
    });
    own.all_came(stage, &[1, 2, 3, 4]);
}

/// Also past slots that were given up.
fn receive(stage: &Stage<'_>, delivery: Delivery) {
    let mut own = Own::new(stage, 5, delivery);
    own.send();
    drop(own.tx.claim().unwrap());
    own.send();
    drop(own.tx.claim().unwrap());
    own.send();
    let stopped = stage.stop("stop.receive", || {});
    own.laps();
    stopped.is_alive_in(&own.segment);
    own.laps();
    let words = stopped.resume(|| {
        own.send();
        own.receive();
    });
    let theirs: Vec<u64> = words[0].split_whitespace().map(|word| word.parse().unwrap()).collect();
    assert!(theirs.is_sorted());
    // What the victim took lacks here; what it did not take lacks nowhere.
    own.sent.retain(|i| !theirs.contains(i));
    own.all_came(stage, &[]);
}

fn typed(stage: &Stage<'_>) -> (Segment, Pipe<Message>) {
    let segment = Segment::builder(&stage.name).typed_pipe::<Message>("pipe", 4).create();
    let segment = segment.unwrap();
    let a = segment.typed_pipe("pipe").unwrap();
    (segment, a)
}

fn pipe_send(stage: &Stage<'_>) {
    let (segment, mut a) = typed(stage);
    let stopped = stage.stop("stop.pipe-send", || {});
    let mut next = 1;
    for _ in 0..stopped.count("spsc.published") {
        assert_eq!(a.recv_timeout(PATIENCE).unwrap(), message(next));
        next += 1;
    }
    assert!(matches!(a.recv_timeout(A_WHILE), Err(RecvError::Timeout)));
    stopped.is_alive_in(&segment);
    assert!(matches!(segment.typed_pipe_end::<Message>("pipe", End::B), Err(Error::Busy { .. })));
    stopped.resume(|| {});
    while let Ok(found) = a.recv_timeout(PATIENCE) {
        assert_eq!(found, message(next));
        next += 1;
    }
    assert_eq!(next, 5);
    assert!(matches!(a.try_recv(), Err(RecvError::Closed)));
    drop((a, segment));
    stage.is_gone();
}

fn pipe_receive(stage: &Stage<'_>) {
    let (segment, mut a) = typed(stage);
    let mut next = 1;
    let send = |a: &mut Pipe<Message>, next: &mut u64| {
        if *next < 40 && a.send_timeout(message(*next), Duration::ZERO).is_ok() {
            *next += 1;
        }
    };
    for _ in 0..4 {
        send(&mut a, &mut next);
    }
    assert_eq!(next, 5);
    let stopped = stage.stop("stop.pipe-receive", || {});
    for _ in 0..10 {
        send(&mut a, &mut next);
    }
    assert_eq!(next, 5 + stopped.count("spsc.released") as u64);
    assert!(matches!(a.send_timeout(message(0), A_WHILE), Err(SendError::Timeout(_))));
    stopped.is_alive_in(&segment);
    stopped.resume(|| send(&mut a, &mut next));
    assert_eq!(next, 40);
    assert!(matches!(a.recv_timeout(PATIENCE), Err(RecvError::Closed)));
    drop((a, segment));
    stage.is_gone();
}

fn of_bytes(stage: &Stage<'_>) -> (Segment, Pipe) {
    let segment = Segment::builder(&stage.name).pipe("pipe", 256).create().unwrap();
    let a = segment.pipe("pipe").unwrap();
    (segment, a)
}

fn pipe_send_bytes(stage: &Stage<'_>) {
    let (segment, mut a) = of_bytes(stage);
    let stopped = stage.stop("stop.pipe-send-bytes", || {});
    let mut got = Vec::new();
    // The first message is one record, the second two.
    for _ in 0..[0, 1, 1, 2][stopped.count("bytes.published")] {
        got.push(a.recv_timeout(PATIENCE).unwrap());
    }
    assert!(matches!(a.recv_timeout(A_WHILE), Err(RecvError::Timeout)));
    stopped.is_alive_in(&segment);
    stopped.resume(|| got.extend(a.try_recv()));
    while let Ok(message) = a.recv_timeout(PATIENCE) {
        got.push(message);
    }
    assert_eq!(got, [&b"one"[..], &[2; 200], &[3; 2000]]);
    assert!(matches!(a.try_recv(), Err(RecvError::Closed)));
    drop((a, segment));
    stage.is_gone();
}

fn pipe_receive_bytes(stage: &Stage<'_>) {
    let (segment, mut a) = of_bytes(stage);
    a.send(b"one").unwrap();
    a.send(&[2; 200]).unwrap();
    let stopped = stage.stop("stop.pipe-receive-bytes", || {});
    // A long message begins to go in, and can't go on.
    std::thread::scope(|scope| {
        let sender = scope.spawn(|| {
            a.send_timeout(&[3; 2000], PATIENCE * 10).unwrap();
            a.recv_timeout(PATIENCE)
        });
        std::thread::sleep(A_WHILE);
        stopped.is_alive_in(&segment);
        assert!(!sender.is_finished());
        stopped.resume(|| {});
        assert!(matches!(sender.join().unwrap(), Err(RecvError::Closed)));
    });
    drop((a, segment));
    stage.is_gone();
}

fn lock(stage: &Stage<'_>) {
    let segment = Segment::builder(&stage.name).lock("lock").create().unwrap();
    let lock = segment.lock("lock").unwrap();
    let stopped = stage.stop("stop.lock", || {});
    let held = stopped.count("lock.taken") > stopped.count("lock.freed");
    for _ in 0..3 {
        match lock.lock_timeout(A_WHILE) {
            Ok(guard) if !held => drop(guard),
            Err(LockError::Timeout) if held => {
                assert!(matches!(lock.try_lock(), Err(LockError::WouldBlock)));
            }
            other => panic!("held: {held}, {other:?}"),
        }
    }
    stopped.is_alive_in(&segment);
    stopped.resume(|| {});
    drop(lock.lock_timeout(PATIENCE).unwrap());
    drop((lock, segment));
    stage.is_gone();
}

fn store(stage: &Stage<'_>) {
    let segment = Segment::builder(&stage.name).value::<[u64; 5]>("value").create().unwrap();
    let value = segment.value::<[u64; 5]>("value").unwrap();
    let stopped = stage.stop("stop.store", || {});
    let held = stopped.count("lock.taken") > stopped.count("lock.freed");
    assert_eq!(value.load(), [stopped.count("cell.seq") as u64; 5]);
    for i in 10..13 {
        assert_eq!(value.store_timeout([i; 5], A_WHILE).unwrap(), !held);
        let expected = if held { stopped.count("cell.seq") as u64 } else { i };
        assert_eq!(value.load(), [expected; 5]);
    }
    stopped.is_alive_in(&segment);
    let finished = stopped.count("lock.freed") == 2;
    stopped.resume(|| {});
    assert_eq!(value.load(), [if finished { 12 } else { 2 }; 5]);
    drop((value, segment));
    stage.is_gone();
}

/// The last one out stops on its way. Who comes meanwhile is in, and the name
/// stays; or it is told, and soon, that there is nothing to come to.
fn leave(stage: &Stage<'_>) {
    let build = || Segment::builder(&stage.name).value::<u64>("value");
    let mut first = Some(build().create().unwrap());
    let stopped = stage.stop("stop.leave", || drop(first.take()));
    let come = || {
        let start = Instant::now();
        let came = Segment::open(&stage.name);
        assert!(start.elapsed() < PATIENCE, "took {:?}", start.elapsed());
        came
    };
    let doomed = stopped.count("retire.decided") > 0;
    let came = match come() {
        Ok(segment) if !doomed => Some(segment),
        Err(Error::NotFound { .. }) if doomed => None,
        Err(Error::Busy { .. }) if stopped.count("unlink.locked") > 0 => None,
        other => panic!("{other:?}"),
    };
    stopped.resume(|| {});
    assert_eq!(stage.name.exists(), came.is_some());
    if let Some(segment) = &came {
        segment.value::<u64>("value").unwrap().store(7);
        assert_eq!(come().unwrap().value::<u64>("value").unwrap().load(), 7);
    }
    drop(came);
    stage.is_gone();
    drop(build().create().unwrap());
    stage.is_gone();
}

/// One who leaves has found that it is not the last, and stops before it says
/// so. The last one comes past meanwhile, stops too, and must not rely on it.
fn leave_after_another(stage: &Stage<'_>) {
    let builder = Segment::builder(&stage.name).value::<u64>("value");
    let mut first = Some(builder.create().unwrap());
    let mut other = None;
    let last = stage.stop("stop.leave", || {
        other = Some(stage.stop_at("stop.leave", "retire.probed", || drop(first.take())));
    });
    other.unwrap().resume(|| {});
    last.resume(|| {});
    stage.is_gone();
}
