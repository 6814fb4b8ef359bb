//! Queues: messages of fixed size and of bytes, at most once and at least once.

use crate::stage::{Death, PATIENCE, Scenario, Stage, Survivor, Victim, begin, end};
use crate::support::{BRIEF, end_of, hear, say};
use slipring::*;

/// A message that shows when it is torn.
pub type Message = [u64; 4];

pub fn message(i: u64) -> Message {
    [i, !i, i.wrapping_mul(0x9e37_79b9_7f4a_7c15), i.rotate_left(32)]
}

/// Numbers of the survivor's own messages start here.
const MARK: u64 = 1000;

fn bytes(i: u64) -> Vec<u8> {
    vec![i as u8; 3 + 5 * i as usize]
}

pub const VICTIMS: &[Victim] = &[
    ("queue.send", |name| {
        let queue = Queue::<Message>::open(name).unwrap();
        let mut tx = queue.sender().unwrap();
        begin();
        tx.try_send(message(1)).unwrap();
        tx.send_many(&[message(2), message(3)]).unwrap();
        let mut slot = tx.claim().unwrap();
        slot.write(message(4));
        slot.commit();
        drop(tx.claim().unwrap());
        tx.send(message(5)).unwrap();
        end();
    }),
    ("queue.send-two", |name| {
        let mut tx = Queue::<Message>::open(name).unwrap().sender().unwrap();
        begin();
        tx.try_send(message(1)).unwrap();
        tx.try_send(message(2)).unwrap();
        end();
    }),
    ("queue.receive", |name| {
        let mut rx = Queue::<Message>::open(name).unwrap().receiver().unwrap();
        begin();
        assert_eq!(rx.try_recv().unwrap(), message(1));
        let mut many = Vec::new();
        rx.recv_many(&mut many, 2).unwrap();
        assert_eq!(many, [message(2), message(3)]);
        assert_eq!(*rx.take().unwrap(), message(4));
        std::mem::forget(rx.take().unwrap());
        assert_eq!(rx.recv().unwrap(), message(6));
        end();
    }),
    ("queue.send-runs", |name| {
        let mut tx = Queue::<Message>::open(name).unwrap().sender().unwrap();
        let all: Vec<Message> = (1..=8).map(message).collect();
        begin();
        tx.send_many(&all).unwrap();
        end();
    }),
    ("queue.receive-runs", |name| {
        let mut rx = Queue::<Message>::open(name).unwrap().receiver().unwrap();
        let all: Vec<Message> = (1..=8).map(message).collect();
        let mut many = Vec::with_capacity(8);
        begin();
        rx.recv_many(&mut many, 8).unwrap();
        assert_eq!(many, all);
        end();
    }),
    ("queue.receive-three", |name| {
        let mut rx = Queue::<Message>::open(name).unwrap().receiver().unwrap();
        begin();
        for i in 1..=3 {
            assert_eq!(rx.try_recv().unwrap(), message(i));
        }
        end();
    }),
    ("queue.receive-one", |name| {
        let mut rx = Queue::<Message>::open(name).unwrap().receiver().unwrap();
        begin();
        assert_eq!(rx.try_recv().unwrap(), message(1));
        end();
    }),
    ("queue.wait-for-one", |name| {
        let mut rx = Queue::<Message>::open(name).unwrap().receiver().unwrap();
        begin();
        assert_eq!(rx.recv().unwrap(), message(1));
        end();
    }),
    ("queue.come-and-go", |name| {
        let queue = Queue::<Message>::open(name).unwrap();
        begin();
        let (tx, rx) = (queue.sender().unwrap(), queue.receiver().unwrap());
        drop(tx.clone());
        drop(tx);
        drop(rx);
        drop(queue.sender().unwrap());
        end();
    }),
    ("queue.close", |name| {
        let queue = Queue::<Message>::open(name).unwrap();
        let mut tx = queue.sender().unwrap();
        begin();
        tx.send(message(1)).unwrap();
        queue.close();
        assert!(matches!(tx.send(message(2)), Err(SendError::Closed(_))));
        end();
    }),
    ("queue.wait", |name| {
        let queue = Queue::<Message>::open(name).unwrap();
        let (mut tx, mut rx) = (queue.sender().unwrap(), queue.receiver().unwrap());
        begin();
        let nothing = rx.recv_timeout(BRIEF);
        assert!(matches!(nothing, Err(RecvError::Timeout)));
        tx.send(message(1)).unwrap();
        let no_room = tx.send_timeout(message(2), BRIEF);
        assert!(matches!(no_room, Err(SendError::Timeout(_))));
        end();
    }),
    ("queue.send-bytes", |name| {
        let mut tx = Queue::open_bytes(name).unwrap().sender().unwrap();
        begin();
        tx.try_send(&bytes(1)).unwrap();
        let mut slot = tx.claim().unwrap();
        slot[..bytes(2).len()].copy_from_slice(&bytes(2));
        slot.commit(bytes(2).len()).unwrap();
        drop(tx.claim().unwrap());
        tx.send_many(&[bytes(3), bytes(4)]).unwrap();
        end();
    }),
    ("queue.receive-bytes", |name| {
        let mut rx = Queue::open_bytes(name).unwrap().receiver().unwrap();
        begin();
        assert_eq!(rx.try_recv().unwrap(), bytes(1));
        let mut many = Vec::new();
        rx.recv_many(&mut many, 2).unwrap();
        assert_eq!(many, [bytes(2), bytes(3)]);
        assert_eq!(*rx.take().unwrap(), bytes(4)[..]);
        end();
    }),
    ("queue.forked", |name| {
        let queue = Queue::<Message>::open(name).unwrap();
        let mut tx = queue.sender().unwrap();
        begin();
        // SAFETY: this thread is the only one that does anything here.
        let pid = unsafe { libc::fork() };
        assert!(pid >= 0);
        if pid == 0 {
            tx.send(message(1)).unwrap();
            tx.send(message(2)).unwrap();
            end();
            unreachable!("a forked victim dies");
        }
        let status = end_of(pid);
        assert!(libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGKILL);
        slipring::points::stop();
        say(&format!("over {pid}"));
        assert_eq!(hear(), "send");
        tx.send(message(MARK)).unwrap();
        say("sent");
        hear();
    }),
];

pub fn scenarios() -> Vec<Scenario> {
    let all: &[(&str, Survivor)] = &[
        ("queue.send, at most once", |stage| send(stage, Delivery::AtMostOnce)),
        ("queue.send, at least once", |stage| send(stage, Delivery::AtLeastOnce)),
        ("queue.receive, at most once", |stage| receive(stage, Delivery::AtMostOnce)),
        ("queue.receive, at least once", |stage| receive(stage, Delivery::AtLeastOnce)),
        ("queue.send runs", send_runs),
        ("queue.receive runs, at most once", |stage| receive_runs(stage, Delivery::AtMostOnce)),
        ("queue.receive runs, at least once", |stage| receive_runs(stage, Delivery::AtLeastOnce)),
        ("queue.recover a sent run", recover_a_sent_run),
        ("queue.recover a received run, at most once", |stage| {
            recover_a_received_run(stage, Delivery::AtMostOnce)
        }),
        ("queue.recover a received run, at least once", |stage| {
            recover_a_received_run(stage, Delivery::AtLeastOnce)
        }),
        ("queue.skip", skip),
        ("queue.refill", refill),
        ("queue.adopt", adopt),
        ("queue.come-and-go", come_and_go),
        ("queue.close", close),
        ("queue.wait", wait),
        ("queue.sleeping receiver", sleeping_receiver),
        ("queue.sleeping sender", sleeping_sender),
        ("queue.send bytes", send_bytes),
        ("queue.receive bytes", receive_bytes),
        ("queue.forked", forked),
    ];
    let mut scenarios: Vec<_> = all.iter().map(|&(name, run)| Scenario::new(name, run)).collect();
    for scenario in &mut scenarios {
        // How often a sleeper is woken is a matter of luck, but for once.
        if scenario.name.contains("sleeping") {
            scenario.most = 1;
        }
    }
    // Whether it sleeps before it looks after the dead one is a matter of time.
    scenarios.push(Scenario {
        only: &[
            "recover.locked",
            "recover.slot",
            "recover.orphans",
            "expel.word",
            "wake.count",
            "wake.futex",
            "recover.swept",
            "vacate.pid",
            "vacate.state",
            "recover.unlocked",
            "adopt.slot",
            "adopt.counted",
            "release.slot",
        ],
        ..Scenario::new("queue.adopt on the way", adopt_on_the_way)
    });
    scenarios
}

struct Own {
    segment: Segment,
    queue: Queue<Message>,
    tx: Sender<Message>,
    rx: Receiver<Message>,
}

fn own(stage: &Stage<'_>, slots: usize, delivery: Delivery) -> Own {
    let options = QueueOptions::new(slots).delivery(delivery);
    let segment = Segment::builder(&stage.name).queue::<Message>("queue", options);
    let segment = segment.participants(4).create().unwrap();
    let queue = segment.queue::<Message>("queue").unwrap();
    let (tx, mut rx) = (queue.sender().unwrap(), queue.receiver().unwrap());
    // Has looked for orphans before there were any.
    assert!(matches!(rx.try_recv(), Err(RecvError::Empty)));
    Own { segment, queue, tx, rx }
}

impl Own {
    /// Leaves the mark of a sleeper, so that the victim has somebody to wake.
    fn sleep_reading(&mut self) {
        assert!(matches!(self.rx.recv_timeout(BRIEF), Err(RecvError::Timeout)));
    }

    /// The same on the other side. The queue is full.
    fn sleep_writing(&mut self) {
        let none = self.tx.send_timeout(message(0), BRIEF);
        assert!(matches!(none, Err(SendError::Timeout(_))));
    }

    /// Messages `first..=last` come, and in this order.
    fn expect(&mut self, stage: &Stage<'_>, first: u64, last: u64) {
        for i in first..=last {
            let got = stage.soon(|| self.rx.recv_timeout(PATIENCE)).unwrap();
            assert_eq!(got, message(i), "{} instead of {i}", got[0]);
        }
    }

    /// The queue goes on: every slot of it, several times, one message at a
    /// time and all that it holds; and nothing else is in it. What it counted.
    fn go_on(mut self, stage: &Stage<'_>, death: &Death) -> QueueCounters {
        let capacity = self.queue.capacity() as u64;
        let mut next = MARK;
        for lot in [1, capacity] {
            for _ in 0..3 * capacity / lot {
                for i in next..next + lot {
                    stage.soon(|| self.tx.send_timeout(message(i), PATIENCE)).unwrap();
                }
                self.expect(stage, next, next + lot - 1);
                next += lot;
            }
        }
        assert!(matches!(self.rx.try_recv(), Err(RecvError::Empty)));
        assert_eq!(self.queue.len(), 0);
        stage.shows_recovered(&self.segment, death);
        assert_eq!((self.queue.senders(), self.queue.receivers()), (1, 1));
        drop(self.tx);
        assert!(matches!(self.rx.try_recv(), Err(RecvError::Closed)));
        let counters = self.queue.counters();
        drop((self.rx, self.queue, self.segment));
        stage.is_gone();
        counters
    }
}

fn send(stage: &Stage<'_>, delivery: Delivery) {
    let mut own = own(stage, 8, delivery);
    own.sleep_reading();
    let death = stage.die("queue.send");
    stage.shows_dead(&own.segment, &death);
    own.expect(stage, 1, death.count("commit.slot") as u64);
    own.go_on(stage, &death);
}

/// Drains what a dead receiver left of messages 1 to `last`, which it took in
/// this order. Those in `again` have had a dead receiver before.
fn drain(stage: &Stage<'_>, own: &mut Own, death: &Death, last: u64, again: &[u64]) {
    let taken = (death.count("take.slot") + death.count("adopt.slot")) as u64;
    let released = death.count("release.slot") as u64;
    assert!(taken - released <= 1);
    let once = own.queue.delivery() == Delivery::AtMostOnce;
    let mut left: Vec<u64> = (if once { taken } else { released } + 1..=last).collect();
    while !left.is_empty() {
        let got = stage.soon(|| own.rx.take_timeout(PATIENCE)).unwrap();
        let i = got[0];
        assert_eq!(*got, message(i));
        let is_late = |i| again.contains(&i) || !once && taken > released && i == taken;
        assert_eq!(got.redelivered(), is_late(i), "{i}");
        let next = left.iter().copied().find(|&i| !is_late(i));
        assert!(is_late(i) || next == Some(i), "{i} out of order in {left:?}");
        let at = left.iter().position(|&l| l == i).expect("lost or doubled");
        left.remove(at);
    }
}

fn receive(stage: &Stage<'_>, delivery: Delivery) {
    let mut own = own(stage, 6, delivery);
    for i in 1..=6 {
        own.tx.try_send(message(i)).unwrap();
    }
    own.sleep_writing();
    let death = stage.die("queue.receive");
    stage.shows_dead(&own.segment, &death);
    drain(stage, &mut own, &death, 6, &[]);
    let held = death.count("take.slot") > death.count("release.slot");
    let once = delivery == Delivery::AtMostOnce;
    let counters = own.go_on(stage, &death);
    assert_eq!(counters.lost, u64::from(held && once));
    assert_eq!(counters.redelivered, u64::from(held && !once));
}

/// Two runs of four: each arrives whole or not at all.
fn send_runs(stage: &Stage<'_>) {
    let mut own = own(stage, 8, Delivery::AtMostOnce);
    own.sleep_reading();
    let death = stage.die("queue.send-runs");
    stage.shows_dead(&own.segment, &death);
    own.expect(stage, 1, 4 * death.count("commit-run.first") as u64);
    own.go_on(stage, &death);
}

/// Two runs of four, whose first ones are released last. Who looks for orphans before
/// receives one message by itself, and then what is left of its group.
fn receive_runs(stage: &Stage<'_>, delivery: Delivery) {
    let mut own = own(stage, 8, delivery);
    for i in 1..=8 {
        own.tx.try_send(message(i)).unwrap();
    }
    own.sleep_writing();
    let death = stage.die("queue.receive-runs");
    stage.shows_dead(&own.segment, &death);
    let (runs, first, others): ([u64; 3], _, &[u64]) = match delivery {
        Delivery::AtMostOnce => ([0, 4, 8], 1, &[2, 3, 4, 6, 7, 8]),
        Delivery::AtLeastOnce => ([0, 3, 7], 2, &[3, 4, 6, 7, 8]),
    };
    let taken = death.count("take.slot") as u64 + runs[death.count("run.slot")];
    let mut released = vec![1; death.count("release.slot")];
    released.extend(&others[..death.count("release-run.slot")]);
    released.extend(&[first, 5][..death.count("release-run.first")]);
    drain_runs(stage, own, &death, delivery, taken, &released);
}

/// Drains what of messages 1 to 8 a receiver left that took the first `taken` of them and
/// released these.
fn drain_runs(
    stage: &Stage<'_>,
    mut own: Own,
    death: &Death,
    delivery: Delivery,
    taken: u64,
    released: &[u64],
) {
    let held: Vec<u64> = (1..=taken).filter(|i| !released.contains(i)).collect();
    let once = delivery == Delivery::AtMostOnce;
    let (mut again, mut next) = (Vec::new(), taken + 1);
    for _ in 0..8 - taken as usize + if once { 0 } else { held.len() } {
        let got = stage.soon(|| own.rx.take_timeout(PATIENCE)).unwrap();
        assert_eq!(*got, message(got[0]));
        if got.redelivered() {
            again.push(got[0]);
        } else {
            assert_eq!(got[0], next, "out of order");
            next += 1;
        }
    }
    again.sort();
    assert_eq!(again, if once { &[] } else { &held[..] });
    // A recoverer that dies between a repair and its count leaves that one out.
    let uncounted = death.count("recover.slot").saturating_sub(death.count("recover.counted"));
    let counters = own.go_on(stage, death);
    let expected = if once { ((held.len() - uncounted) as u64, 0) } else { (0, held.len() as u64) };
    assert_eq!((counters.lost, counters.redelivered), expected);
}

/// The one who repairs a dead one's run dies as well.
fn recover_a_sent_run(stage: &Stage<'_>) {
    let own = own(stage, 8, Delivery::AtMostOnce);
    stage.die_at("queue.send-runs", "commit-run.slot", 2);
    let death = stage.die("segment.recover");
    stage.shows_dead(&own.segment, &death);
    own.go_on(stage, &death);
}

fn recover_a_received_run(stage: &Stage<'_>, delivery: Delivery) {
    let mut own = own(stage, 8, delivery);
    for i in 1..=8 {
        own.tx.try_send(message(i)).unwrap();
    }
    stage.die_at("queue.receive-runs", "release-run.slot", 1);
    let death = stage.die("segment.recover");
    stage.shows_dead(&own.segment, &death);
    let released: &[u64] = match delivery {
        Delivery::AtMostOnce => &[2],
        Delivery::AtLeastOnce => &[1, 3],
    };
    drain_runs(stage, own, &death, delivery, 4, released);
}

fn skip(stage: &Stage<'_>) {
    let mut own = own(stage, 6, Delivery::AtMostOnce);
    for i in 1..=3 {
        drop(own.tx.claim().unwrap());
        own.tx.try_send(message(i)).unwrap();
    }
    let death = stage.die("queue.receive-three");
    stage.shows_dead(&own.segment, &death);
    drain(stage, &mut own, &death, 3, &[]);
    own.go_on(stage, &death);
}

/// The ring is full of slots that were given up, and no receiver comes by.
fn refill(stage: &Stage<'_>) {
    let mut own = own(stage, 2, Delivery::AtMostOnce);
    for _ in 0..2 {
        drop(own.tx.claim().unwrap());
    }
    let death = stage.die("queue.send-two");
    stage.shows_dead(&own.segment, &death);
    own.expect(stage, 1, death.count("commit.slot") as u64);
    own.go_on(stage, &death);
}

fn adopt(stage: &Stage<'_>) {
    let mut own = own(stage, 4, Delivery::AtLeastOnce);
    for i in 1..=3 {
        own.tx.try_send(message(i)).unwrap();
    }
    stage.die_at("queue.receive-one", "take.slot", 1);
    assert_eq!(own.segment.recover().unwrap(), 1);
    let death = stage.die("queue.receive-three");
    stage.shows_dead(&own.segment, &death);
    drain(stage, &mut own, &death, 3, &[1]);
    own.go_on(stage, &death);
}

/// The second victim finds the first one's message while it waits for another,
/// and recovers the first one itself.
fn adopt_on_the_way(stage: &Stage<'_>) {
    let mut own = own(stage, 1, Delivery::AtLeastOnce);
    own.tx.try_send(message(1)).unwrap();
    stage.die_at("queue.receive-one", "take.head", 1);
    let death = stage.die("queue.wait-for-one");
    stage.shows_dead(&own.segment, &death);
    drain(stage, &mut own, &death, 1, &[1]);
    own.go_on(stage, &death);
}

fn come_and_go(stage: &Stage<'_>) {
    let mut own = own(stage, 2, Delivery::AtMostOnce);
    drop(own.tx);
    let death = stage.die("queue.come-and-go");
    stage.shows_dead(&own.segment, &death);
    if death.passed("enter.ever") {
        let end = stage.soon(|| own.rx.recv_timeout(PATIENCE));
        assert!(matches!(end, Err(RecvError::Closed)), "{end:?}");
    }
    own.tx = own.queue.sender().unwrap();
    own.go_on(stage, &death);
}

fn close(stage: &Stage<'_>) {
    let mut own = own(stage, 2, Delivery::AtMostOnce);
    own.sleep_reading();
    let death = stage.die("queue.close");
    stage.shows_dead(&own.segment, &death);
    let closed = death.passed("close.flag");
    assert_eq!(own.queue.is_closed(), closed);
    own.expect(stage, 1, death.count("commit.slot") as u64);
    if !closed {
        own.go_on(stage, &death);
        return;
    }
    assert!(matches!(own.tx.try_send(message(2)), Err(SendError::Closed(_))));
    let end = stage.soon(|| own.rx.recv_timeout(PATIENCE));
    assert!(matches!(end, Err(RecvError::Closed)), "{end:?}");
    stage.shows_recovered(&own.segment, &death);
    drop(own);
    stage.is_gone();
}

fn wait(stage: &Stage<'_>) {
    let mut own = own(stage, 1, Delivery::AtMostOnce);
    let death = stage.die("queue.wait");
    stage.shows_dead(&own.segment, &death);
    own.expect(stage, 1, death.count("commit.slot") as u64);
    own.go_on(stage, &death);
}

/// A thread of the survivor's sleeps while the victim sends, and dies.
fn sleeping_receiver(stage: &Stage<'_>) {
    let mut own = own(stage, 2, Delivery::AtMostOnce);
    own.sleep_reading();
    let mut rx = own.rx.clone();
    let death = std::thread::scope(|scope| {
        let sleeper = scope.spawn(move || rx.recv_timeout(PATIENCE * 10));
        let death = stage.die("queue.send-two");
        let sent = death.count("commit.slot") as u64;
        if sent == 0 {
            own.tx.try_send(message(1)).unwrap();
        }
        let got = stage.soon(|| sleeper.join()).unwrap().unwrap();
        assert_eq!(got, message(1));
        own.expect(stage, 2, sent);
        death
    });
    stage.shows_dead(&own.segment, &death);
    own.go_on(stage, &death);
}

fn sleeping_sender(stage: &Stage<'_>) {
    let mut own = own(stage, 1, Delivery::AtMostOnce);
    own.tx.try_send(message(1)).unwrap();
    own.sleep_writing();
    let mut tx = own.tx.clone();
    let death = std::thread::scope(|scope| {
        let sleeper = scope.spawn(move || tx.send_timeout(message(2), PATIENCE * 10));
        let death = stage.die("queue.receive-one");
        // What the victim took is free again; what it did not is there.
        let first = if death.passed("take.slot") { 2 } else { 1 };
        own.expect(stage, first, 2);
        stage.soon(|| sleeper.join()).unwrap().unwrap();
        death
    });
    stage.shows_dead(&own.segment, &death);
    own.go_on(stage, &death);
}

fn bytes_queue(stage: &Stage<'_>) -> (Segment, Queue<[u8]>) {
    let segment = Segment::builder(&stage.name).bytes_queue("queue", 5, 100).create().unwrap();
    let queue = segment.bytes_queue("queue").unwrap();
    (segment, queue)
}

/// As [`Own::go_on`].
fn go_on_bytes(stage: &Stage<'_>, segment: Segment, queue: Queue<[u8]>, death: &Death) {
    let (mut tx, mut rx) = (queue.sender().unwrap(), queue.receiver().unwrap());
    for i in 0..15 {
        stage.soon(|| tx.send_timeout(&bytes(i), PATIENCE)).unwrap();
        assert_eq!(stage.soon(|| rx.recv_timeout(PATIENCE)).unwrap(), bytes(i));
    }
    for _ in 0..5 {
        stage.soon(|| tx.send_timeout(b"", PATIENCE)).unwrap();
    }
    for _ in 0..5 {
        assert_eq!(rx.try_recv().unwrap(), b"");
    }
    assert!(matches!(rx.try_recv(), Err(RecvError::Empty)));
    stage.shows_recovered(&segment, death);
    drop((tx, rx, queue, segment));
    stage.is_gone();
}

fn send_bytes(stage: &Stage<'_>) {
    let (segment, queue) = bytes_queue(stage);
    let mut rx = queue.receiver().unwrap();
    let death = stage.die("queue.send-bytes");
    stage.shows_dead(&segment, &death);
    for i in 1..=death.count("commit.slot") as u64 {
        assert_eq!(stage.soon(|| rx.recv_timeout(PATIENCE)).unwrap(), bytes(i));
    }
    drop(rx);
    go_on_bytes(stage, segment, queue, &death);
}

fn receive_bytes(stage: &Stage<'_>) {
    let (segment, queue) = bytes_queue(stage);
    let mut tx = queue.sender().unwrap();
    for i in 1..=4 {
        tx.try_send(&bytes(i)).unwrap();
    }
    let death = stage.die("queue.receive-bytes");
    stage.shows_dead(&segment, &death);
    let mut rx = queue.receiver().unwrap();
    for i in death.count("take.slot") as u64 + 1..=4 {
        assert_eq!(stage.soon(|| rx.recv_timeout(PATIENCE)).unwrap(), bytes(i));
    }
    drop((tx, rx));
    go_on_bytes(stage, segment, queue, &death);
}

/// A process forks; the child attaches for itself, and dies. Its parent, who
/// is a survivor too, goes on with what it had.
fn forked(stage: &Stage<'_>) {
    let mut own = own(stage, 4, Delivery::AtMostOnce);
    let mut parent = stage.victim("queue.forked");
    let mut word = parent.hear();
    let trace = word.strip_prefix("trace ").map(str::to_owned);
    if trace.is_some() {
        word = parent.hear();
    }
    let pid = word.strip_prefix("over ").unwrap().parse().unwrap();
    let death = stage.ended(pid, trace.as_deref());
    stage.shows_dead(&own.segment, &death);
    own.expect(stage, 1, death.count("commit.slot") as u64);
    parent.say("send");
    own.expect(stage, MARK, MARK);
    assert_eq!(parent.hear(), "sent");
    stage.shows_recovered(&own.segment, &death);
    let list = own.segment.participants().unwrap();
    assert_eq!(list.iter().filter(|p| p.alive).count(), 2, "{list:?}");
    parent.say("go");
    parent.join();
    own.go_on(stage, &death);
}
