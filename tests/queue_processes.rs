//! The queue between real processes, some of which are killed.

mod support;

use slipring::*;
use std::time::Duration;
use support::{BRIEF, Name, Process, end_of, hear, role, say, spawn};

/// Longer than any of these tests takes, so that a hang fails instead.
const PATIENCE: Duration = Duration::from_secs(60);

/// What children do.
#[test]
#[ignore = "a role of the other tests"]
fn child() {
    let Some((role, words)) = role() else { return };
    let name = words[0].as_str();
    match role.as_str() {
        "produce" => {
            let mut tx = Queue::<u64>::open(name).unwrap().sender().unwrap();
            let (id, count): (u64, u64) = (words[1].parse().unwrap(), words[2].parse().unwrap());
            say("ready");
            for i in 0..count {
                tx.send(id << 32 | i).unwrap();
            }
        }
        "consume" => {
            let mut rx = Queue::<u64>::open(name).unwrap().receiver().unwrap();
            say("ready");
            let mut sums = std::collections::BTreeMap::<u64, (u64, u64)>::new();
            loop {
                match rx.recv() {
                    Ok(message) => {
                        let (id, i) = (message >> 32, message & 0xffff_ffff);
                        let (count, next) = sums.entry(id).or_default();
                        assert!(i >= *next, "producer {id} out of order: {i} after {next}");
                        (*count, *next) = (*count + 1, i + 1);
                    }
                    Err(RecvError::Closed) => break,
                    Err(error) => panic!("{error}"),
                }
            }
            let counts: Vec<String> =
                sums.iter().map(|(id, (count, _))| format!("{id}:{count}")).collect();
            say(&counts.join(" "));
        }
        "claim and hang" => {
            let mut tx = Queue::<u64>::open(name).unwrap().sender().unwrap();
            tx.send(1).unwrap();
            let mut slot = tx.claim().unwrap();
            slot.write(2);
            say("claimed");
            hear();
        }
        "take and hang" => {
            let mut rx = Queue::<u64>::open(name).unwrap().receiver().unwrap();
            let message = rx.take().unwrap();
            say(&format!("took {}", *message));
            hear();
        }
        "send and hang" => {
            let queue = Queue::<u64>::open(name).unwrap();
            let mut tx = queue.sender().unwrap();
            tx.send(7).unwrap();
            say("sent");
            hear();
        }
        "sleep in recv" => {
            let queue = Queue::<u64>::open(name).unwrap();
            let mut rx = queue.receiver().unwrap();
            say("receiving");
            say(&format!("{:?}", rx.recv()));
        }
        "create" => {
            say("ready");
            hear();
            match Queue::<u64>::create(name, 16) {
                Ok(queue) => {
                    say("created");
                    hear();
                    drop(queue);
                }
                Err(Error::AlreadyExists { .. }) => say("exists"),
                Err(error) => panic!("{error}"),
            }
        }
        "open or create" => {
            say("ready");
            hear();
            let queue = Queue::<u64>::open_or_create(name, 16).unwrap();
            queue.sender().unwrap().send(u64::from(std::process::id())).unwrap();
            say("sent");
            hear();
        }
        "fork" => fork_child(name),
        "fork and leave" => fork_and_leave(name),
        other => panic!("unknown role {other}"),
    }
}

#[test]
fn two_producers_two_consumers() {
    const COUNT: u64 = 200_000;
    let name = Name::new("mpmc");
    let queue = Queue::<u64>::create(&name, 64).unwrap();
    // Hold the queue open until both producers are there.
    let gate = queue.sender().unwrap();
    let mut consumers: Vec<Process> = (0..2).map(|_| spawn("consume", &[&name])).collect();
    let mut producers: Vec<Process> =
        (0..2).map(|p| spawn("produce", &[&name, &p.to_string(), &COUNT.to_string()])).collect();
    for process in producers.iter_mut().chain(&mut consumers) {
        assert_eq!(process.hear(), "ready");
    }
    drop(gate);
    let mut totals = [0; 2];
    for consumer in &mut consumers {
        for part in consumer.hear().split_whitespace() {
            let (id, count) = part.split_once(':').unwrap();
            totals[id.parse::<usize>().unwrap()] += count.parse::<u64>().unwrap();
        }
    }
    assert_eq!(totals, [COUNT; 2]);
    producers.into_iter().chain(consumers).for_each(Process::join);
    assert_eq!(queue.counters().sent, 2 * COUNT);
    drop(queue);
    assert!(!name.exists(), "the last one out leaves the name behind");
}

#[test]
fn a_producer_killed_between_claim_and_commit_costs_its_message_alone() {
    let name = Name::new("claim");
    let queue = Queue::<u64>::create(&name, 4).unwrap();
    let mut rx = queue.receiver().unwrap();
    let mut tx = queue.sender().unwrap();
    let mut victim = spawn("claim and hang", &[&name]);
    assert_eq!(victim.hear(), "claimed");
    tx.send(3).unwrap();
    assert_eq!(rx.recv().unwrap(), 1);
    // Alive, however slow: the slot is its own.
    assert!(matches!(rx.recv_timeout(Duration::from_millis(50)), Err(RecvError::Timeout)));
    victim.kill();
    assert_eq!(rx.recv_timeout(PATIENCE).unwrap(), 3);
    assert_eq!(queue.counters().abandoned, 1);
    for i in 0..100 {
        tx.send(i).unwrap();
        assert_eq!(rx.recv().unwrap(), i);
    }
}

#[test]
fn a_poller_gets_past_a_dead_producer_too() {
    let name = Name::new("poll");
    let queue = Queue::<u64>::create(&name, 4).unwrap();
    let mut rx = queue.receiver().unwrap();
    let mut victim = spawn("claim and hang", &[&name]);
    assert_eq!(victim.hear(), "claimed");
    assert_eq!(rx.try_recv().unwrap(), 1);
    victim.kill();
    let start = std::time::Instant::now();
    loop {
        match rx.try_recv() {
            Err(RecvError::Empty) => assert!(start.elapsed() < PATIENCE),
            Err(RecvError::Closed) => break,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_consumer_killed_while_it_holds_a_message() {
    for delivery in [Delivery::AtMostOnce, Delivery::AtLeastOnce] {
        let name = Name::new("take");
        let queue = Queue::<u64>::create(&name, QueueOptions::new(2).delivery(delivery)).unwrap();
        let mut tx = queue.sender().unwrap();
        let mut rx = queue.receiver().unwrap();
        tx.send(1).unwrap();
        tx.send(2).unwrap();
        let mut victim = spawn("take and hang", &[&name]);
        assert_eq!(victim.hear(), "took 1");
        assert_eq!(rx.recv().unwrap(), 2);
        tx.try_send(3).unwrap_err_if_full();
        victim.kill();
        match delivery {
            Delivery::AtMostOnce => {
                // The dead reader's slot becomes free for senders.
                for i in 10..20 {
                    tx.send_timeout(i, PATIENCE).unwrap();
                    while rx.try_recv().is_ok() {}
                }
                assert_eq!((queue.counters().lost, queue.counters().redelivered), (1, 0));
            }
            Delivery::AtLeastOnce => {
                let mut seen = Vec::new();
                while !seen.contains(&(1, true)) {
                    let message = rx.take_timeout(PATIENCE).unwrap();
                    seen.push((*message, message.redelivered()));
                }
                assert_eq!((queue.counters().lost, queue.counters().redelivered), (0, 1));
                for i in 10..20 {
                    tx.send_timeout(i, PATIENCE).unwrap();
                    while rx.try_recv().is_ok() {}
                }
            }
        }
    }
}

trait Quiet {
    fn unwrap_err_if_full(self);
}

impl Quiet for Result<(), SendError<u64>> {
    /// With two slots, one of them held by the victim, this may go either way.
    fn unwrap_err_if_full(self) {
        assert!(matches!(self, Ok(()) | Err(SendError::Full(_))));
    }
}

#[test]
fn the_last_sender_dropped_or_killed_closes_the_queue() {
    for kill in [false, true] {
        let name = Name::new("close");
        let queue = Queue::<u64>::create(&name, 4).unwrap();
        let mut rx = queue.receiver().unwrap();
        let mut sender = spawn("send and hang", &[&name]);
        assert_eq!(sender.hear(), "sent");
        let mut sleeper = spawn("sleep in recv", &[&name]);
        assert_eq!(sleeper.hear(), "receiving");
        assert_eq!(sleeper.hear(), "Ok(7)");
        sleeper.join();
        assert!(matches!(rx.try_recv(), Err(RecvError::Empty)));
        if kill {
            sender.kill();
        } else {
            sender.say("go");
            sender.join();
        }
        assert!(matches!(rx.recv_timeout(PATIENCE), Err(RecvError::Closed)));
        // A successor opens it again.
        let mut tx = queue.sender().unwrap();
        tx.send(8).unwrap();
        assert_eq!(rx.recv().unwrap(), 8);
    }
}

#[test]
fn close_by_hand_is_for_good() {
    let name = Name::new("closed");
    let queue = Queue::<u64>::create(&name, 4).unwrap();
    let mut tx = queue.sender().unwrap();
    let mut rx = queue.receiver().unwrap();
    tx.send(1).unwrap();
    let mut sleeper = spawn("sleep in recv", &[&name]);
    assert_eq!(sleeper.hear(), "receiving");
    assert_eq!(sleeper.hear(), "Ok(1)");
    sleeper.join();
    tx.send(2).unwrap();
    queue.close();
    assert!(matches!(tx.send(3), Err(SendError::Closed(3))));
    assert!(matches!(queue.sender().unwrap().try_send(4), Err(SendError::Closed(4))));
    assert_eq!(rx.recv().unwrap(), 2);
    assert!(matches!(rx.recv(), Err(RecvError::Closed)));
    assert!(matches!(rx.try_recv(), Err(RecvError::Closed)));
}

#[test]
fn of_many_creators_one_wins() {
    let name = Name::new("creators");
    let mut racers: Vec<Process> = (0..4).map(|_| spawn("create", &[&name])).collect();
    for racer in &mut racers {
        assert_eq!(racer.hear(), "ready");
    }
    racers.iter_mut().for_each(|racer| racer.say("go"));
    let words: Vec<String> = racers.iter_mut().map(Process::hear).collect();
    assert_eq!(words.iter().filter(|word| *word == "created").count(), 1, "{words:?}");
    drop(racers);
    assert!(name.exists(), "killed processes unlink nothing");
    Segment::unlink(&name).unwrap();
    assert!(matches!(Queue::<u64>::open(&name), Err(Error::NotFound { .. })));
}

#[test]
fn openers_and_creators_meet() {
    let name = Name::new("meet");
    assert!(matches!(Queue::<u64>::open(&name), Err(Error::NotFound { .. })));
    let mut racers: Vec<Process> = (0..4).map(|_| spawn("open or create", &[&name])).collect();
    for racer in &mut racers {
        assert_eq!(racer.hear(), "ready");
    }
    racers.iter_mut().for_each(|racer| racer.say("go"));
    for racer in &mut racers {
        assert_eq!(racer.hear(), "sent");
    }
    let mut rx = Queue::<u64>::open(&name).unwrap().receiver().unwrap();
    let mut pids: Vec<u64> = (0..4).map(|_| rx.recv_timeout(PATIENCE).unwrap()).collect();
    let mut expected: Vec<u64> = racers.iter().map(|racer| u64::from(racer.pid())).collect();
    pids.sort_unstable();
    expected.sort_unstable();
    assert_eq!(pids, expected);
}

#[test]
fn a_segment_whose_users_were_all_killed() {
    let name = Name::new("stale");
    let queue = Queue::<u64>::create(&name, 4).unwrap();
    let mut victim = spawn("claim and hang", &[&name]);
    assert_eq!(victim.hear(), "claimed");
    // The creator leaves, the other one dies.
    drop(queue);
    victim.kill();
    assert!(name.exists());
    assert!(matches!(
        OpenOptions::new().stale(Stale::Refuse).open(&name),
        Err(Error::Stale { .. })
    ));
    assert!(matches!(Queue::<u64>::create(&name, 4), Err(Error::AlreadyExists { .. })));
    let queue = Queue::<u64>::open(&name).unwrap();
    let mut rx = queue.receiver().unwrap();
    assert_eq!(rx.try_recv().unwrap(), 1, "messages survive their sender");
    assert!(matches!(rx.try_recv(), Err(RecvError::Closed)));
    assert_eq!(queue.counters().abandoned, 1, "opening recovers");
    drop((rx, queue));
    assert!(!name.exists());
}

#[test]
fn a_stale_segment_is_recreated_on_request() {
    let name = Name::new("recreate");
    let queue = Queue::<u64>::create(&name, 4).unwrap();
    let mut victim = spawn("claim and hang", &[&name]);
    assert_eq!(victim.hear(), "claimed");
    drop(queue);
    let builder = Segment::builder(&name).queue::<u64>("queue", 9).stale(Stale::Recreate);
    assert_eq!(builder.open_or_create().unwrap().queue::<u64>("queue").unwrap().capacity(), 4);
    victim.kill();
    // The segment that was dropped in between found the victim alive.
    let fresh = builder.open_or_create().unwrap().queue::<u64>("queue").unwrap();
    assert_eq!((fresh.capacity(), fresh.len()), (9, 0));
}

#[test]
fn a_forked_child_attaches_for_itself() {
    let name = Name::new("fork");
    let queue = Queue::<u64>::create(&name, 16).unwrap();
    let mut process = spawn("fork", &[&name]);
    let mut rx = queue.receiver().unwrap();
    assert_eq!(process.hear(), "attached");
    let pids: Vec<String> = (0..2).map(|_| process.hear()).collect();
    // Parent and child are two participants beside this one.
    assert_eq!(pids.len(), 2);
    assert_eq!(rx.recv_timeout(PATIENCE).unwrap(), 1);
    assert_eq!(rx.recv_timeout(PATIENCE).unwrap(), 2);
    let segment = Segment::open(&name).unwrap();
    let alive = segment.participants().unwrap();
    assert_eq!(alive.iter().filter(|p| p.alive).count(), 4, "{alive:?}");
    // The parent dies alone: the child's copy of its descriptor keeps nothing.
    process.kill();
    let parent_is_listed = || {
        segment.recover().unwrap();
        segment.participants().unwrap().iter().any(|p| p.pid == process.pid())
    };
    while parent_is_listed() {
        std::thread::yield_now();
    }
    // The child goes on: it sends when the pipe from its parent breaks.
    assert_eq!(rx.recv_timeout(PATIENCE).unwrap(), 3);
    assert!(matches!(rx.recv_timeout(PATIENCE), Err(RecvError::Closed)));
}

/// Sends 1, forks; the child sends 2, waits for the parent's death, sends 3.
fn fork_child(name: &str) {
    let queue = Queue::<u64>::open(name).unwrap();
    let mut tx = queue.sender().unwrap();
    say("attached");
    tx.send(1).unwrap();
    let (mut alive, parents_end) = std::io::pipe().unwrap();
    // SAFETY: the test program runs this one test on this one thread, beside
    // the harness's main thread, which is blocked.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0);
    if pid == 0 {
        drop(parents_end);
        tx.send(2).unwrap();
        say("child");
        // Ends when the last writer is gone.
        std::io::Read::read(&mut alive, &mut [0]).unwrap();
        tx.send(3).unwrap();
        drop(tx);
        drop(queue);
        std::process::exit(0);
    }
    say("parent");
    hear();
    drop(parents_end);
}

#[test]
fn a_child_that_comes_after_the_last_one_has_left_is_told() {
    let name = Name::new("late");
    let mut process = spawn("fork and leave", &[&name]);
    assert_eq!(process.hear(), "gone");
    process.join();
    assert!(!name.exists());
}

/// Forks, and goes; then the child uses the queue for the first time.
fn fork_and_leave(name: &str) {
    let queue = Queue::<u64>::create(name, 4).unwrap();
    let mut tx = queue.sender().unwrap();
    let (mut wait, parents_end) = std::io::pipe().unwrap();
    // SAFETY: as in `fork_child`.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0);
    if pid == 0 {
        drop(parents_end);
        std::io::Read::read(&mut wait, &mut [0]).unwrap();
        for _ in 0..2 {
            let refusal = tx.try_send(1).unwrap_err();
            let gone = matches!(refusal.failure(), Some(Error::NotFound { .. }));
            assert!(gone && refusal.into_inner() == 1);
        }
        say("gone");
        std::process::exit(0);
    }
    drop((tx, queue));
    drop(parents_end);
    assert_eq!(end_of(pid), 0);
}

/// Waits that are too short for a slice count together.
#[test]
fn short_waits_in_a_row_hear_that_the_last_sender_died() {
    let name = Name::new("short");
    let queue = Queue::<u64>::create(&name, 4).unwrap();
    let mut rx = queue.receiver().unwrap();
    let mut victim = spawn("send and hang", &[&name]);
    assert_eq!(victim.hear(), "sent");
    assert_eq!(rx.recv().unwrap(), 7);
    victim.kill();
    let start = std::time::Instant::now();
    // And some without any time, which are polls.
    for timeout in [BRIEF, Duration::ZERO].into_iter().cycle() {
        match rx.recv_timeout(timeout) {
            Err(RecvError::Timeout) => assert!(start.elapsed() < PATIENCE),
            Err(RecvError::Closed) => break,
            other => panic!("{other:?}"),
        }
    }
}
