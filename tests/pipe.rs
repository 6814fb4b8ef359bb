//! The pipe: behaviour in one process and between two, one of which is killed.

mod support;

use slipring::*;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::time::Duration;
use support::{Name, end_of, hear, role, say, spawn};

const PATIENCE: Duration = Duration::from_secs(60);

#[test]
#[ignore = "a role of the other tests"]
fn child() {
    let Some((role, words)) = role() else { return };
    let name = words[0].as_str();
    match role.as_str() {
        "echo" => {
            let mut pipe = Pipe::open(name).unwrap();
            say("ready");
            loop {
                match pipe.recv() {
                    Ok(message) => pipe.send(&message).unwrap(),
                    Err(RecvError::Closed) => break,
                    Err(error) => panic!("{error}"),
                }
            }
        }
        "echo typed" => {
            let mut pipe = Pipe::<[u64; 6]>::open_typed(name).unwrap();
            say("ready");
            while let Ok(message) = pipe.recv() {
                pipe.send(message).unwrap();
            }
        }
        "fork, then a torn ring" => fork_then_a_torn_ring(name),
        "fork in a batch" => fork_in_a_batch(name),
        "fork in a batch of bytes" => fork_in_a_batch_of_bytes(name),
        "fork in the making of lines" => fork_in_the_making::<1>(name, 3, false),
        "fork in the making, and die" => fork_in_the_making::<1>(name, 3, true),
        "fork in the making of more" => fork_in_the_making::<8>(name, 5, false),
        "send and hang" => {
            let mut pipe = Pipe::open(name).unwrap();
            pipe.send(b"one").unwrap();
            pipe.send(b"two").unwrap();
            let mut room = pipe.reserve(5).unwrap();
            room.copy_from_slice(b"three");
            say("sent");
            hear();
            room.commit(5);
        }
        "peek and hang" => {
            let mut pipe = Pipe::open(name).unwrap();
            assert_eq!(&*pipe.recv().unwrap(), b"first");
            let message = pipe.peek().unwrap();
            say(std::str::from_utf8(&message).unwrap());
            hear();
        }
        "hang in a long message" => {
            let mut pipe = Pipe::open(name).unwrap();
            pipe.send(b"whole").unwrap();
            say("sending");
            let _ = pipe.send(&[7; 1 << 20]);
            // The reader was quick; the victim must not leave by itself.
            hear();
        }
        "sleep in recv" => {
            let mut pipe = Pipe::open(name).unwrap();
            say("receiving");
            say(&format!("{:?}", pipe.recv()));
        }
        "stream" => {
            let mut pipe = Pipe::open(name).unwrap();
            say("ready");
            let mut all = Vec::new();
            pipe.read_to_end(&mut all).unwrap();
            let sum = all.iter().fold(0u64, |s, b| s.wrapping_mul(31).wrapping_add((*b).into()));
            say(&format!("{} {sum}", all.len()));
        }
        other => panic!("unknown role {other}"),
    }
}

fn both(test: &str, options: impl Into<PipeOptions>) -> (Name, Pipe, Pipe) {
    let name = Name::new(test);
    let a = Pipe::create(&name, options).unwrap();
    let b = Pipe::open(&name).unwrap();
    (name, a, b)
}

#[test]
fn messages_keep_their_borders_and_order() {
    let (_name, mut a, mut b) = both("borders", 4096);
    a.send(b"hello").unwrap();
    a.send(b"").unwrap();
    a.send(&[9; 1000]).unwrap();
    assert_eq!(b.recv().unwrap(), b"hello");
    assert_eq!(b.recv().unwrap(), b"", "an empty message is a message");
    assert_eq!(b.recv().unwrap(), [9; 1000]);
    assert!(matches!(b.try_recv(), Err(RecvError::Empty)));
    assert!(matches!(b.recv_timeout(Duration::from_millis(20)), Err(RecvError::Timeout)));
    b.send(b"back").unwrap();
    assert!(a.poll(PATIENCE).unwrap());
    assert!(!b.poll(Duration::ZERO).unwrap());
    assert_eq!(a.recv().unwrap(), b"back");
}

#[test]
fn a_buffer_that_is_too_small_keeps_the_message() {
    let (_name, mut a, mut b) = both("small", 1024);
    a.send(b"0123456789").unwrap();
    let mut buffer = [0; 20];
    match b.recv_into(&mut buffer[..9]) {
        Err(RecvError::Failed(error))
            if matches!(*error, Error::BufferTooSmall { needed: 10, len: 9 }) => {}
        other => panic!("{other:?}"),
    }
    assert_eq!(b.recv_into(&mut buffer).unwrap(), 10);
    assert_eq!(&buffer[..10], b"0123456789");
    // The length of a message in pieces is known from its first.
    std::thread::scope(|scope| {
        scope.spawn(|| a.send(&[3; 5000]).unwrap());
        match b.recv_into(&mut buffer) {
            Err(RecvError::Failed(error))
                if matches!(*error, Error::BufferTooSmall { needed: 5000, len: 20 }) => {}
            other => panic!("{other:?}"),
        }
        let mut large = vec![0; 5000];
        assert_eq!(b.recv_into(&mut large).unwrap(), 5000);
        assert!(large.iter().all(|byte| *byte == 3));
    });
}

#[test]
fn in_place() {
    let (_name, mut a, mut b) = both("place", 1024);
    let mut room = a.reserve(100).unwrap();
    room[..3].copy_from_slice(b"abc");
    room.commit(3);
    drop(a.reserve(100).unwrap());
    assert_eq!(&*b.peek().unwrap(), b"abc");
    assert!(matches!(b.try_recv(), Err(RecvError::Empty)), "peek released it; no ghost");
    match a.reserve(1 << 20) {
        Err(SendError::Failed((), error)) => {
            let Error::TooLarge { len, max } = *error else { panic!("{error}") };
            assert!(len == 1 << 20 && max < 1024);
            assert_eq!(a.reserve(max).unwrap().len(), max);
        }
        other => panic!("{other:?}"),
    }
    a.send(b"again").unwrap();
    std::mem::forget(b.peek().unwrap());
    assert_eq!(b.recv().unwrap(), b"again", "a forgotten guard gives the message again");
}

#[test]
fn longer_than_the_ring() {
    let name = Name::new("long");
    let mut a = Pipe::create(&name, 256).unwrap();
    let mut echo = spawn("echo", &[&name]);
    assert_eq!(echo.hear(), "ready");
    for len in [0, 1, 100, 119, 120, 121, 128, 200, 255, 256, 257, 1000, 100_000] {
        let message: Vec<u8> = (0..len).map(|i| (i * 7 % 251) as u8).collect();
        let (sender, receiver) = (&mut a, message.clone());
        // Both directions at once would fill both rings: the echo sends only
        // after it has the whole.
        sender.send(&message).unwrap();
        assert_eq!(sender.recv().unwrap(), receiver, "{len}");
    }
    drop(a);
    echo.join();
}

#[test]
fn batches() {
    let (_name, mut a, mut b) = both("batch", 1024);
    let messages: Vec<Vec<u8>> = (0..500u16).map(|i| i.to_le_bytes().to_vec()).collect();
    std::thread::scope(|scope| {
        scope.spawn(|| a.send_many(&messages).unwrap());
        let mut got = Vec::new();
        while got.len() < 500 {
            b.recv_many(&mut got, 64).unwrap();
        }
        assert_eq!(got, messages);
    });
}

/// In place, of which some share a cache line and others have several.
#[test]
fn batches_in_place() {
    fn through<const WORDS: usize>(slots: usize)
    where
        [u64; WORDS]: Pod,
    {
        const ALL: u64 = 5000;
        let name = Name::new("each");
        let mut a = Pipe::<[u64; WORDS]>::create_typed(&name, slots).unwrap();
        let mut b = Pipe::<[u64; WORDS]>::open_typed(&name).unwrap();
        assert_eq!(b.recv_each(0, |_| panic!("none was wanted")).unwrap(), 0);
        std::thread::scope(|scope| {
            scope.spawn(move || {
                // Batches that begin and end within lines and within the ring.
                for first in (0..ALL).step_by(50) {
                    let (one, others) = (first, (first + 1..first + 50));
                    a.send([one; WORDS]).unwrap();
                    if first % 100 == 0 {
                        a.send_each(49, |nth| [first + 1 + nth as u64; WORDS]).unwrap();
                        continue;
                    }
                    let others: Vec<_> = others.map(|i| [i; WORDS]).collect();
                    a.send_many(&others).unwrap();
                }
            });
            let (mut next, mut max) = (0, 1);
            let closed = loop {
                let before = next;
                let count = b.recv_each(max, |message| {
                    assert_eq!(*message, [next; WORDS]);
                    next += 1;
                });
                match count {
                    Ok(count) => assert_eq!(count as u64, next - before),
                    Err(error) => break error,
                }
                assert!(next - before <= max as u64 && next > before);
                max = max % 70 + 1;
            };
            assert!(matches!(closed, RecvError::Closed));
            assert_eq!(next, ALL);
        });
    }
    for slots in [1, 3, 16, 61, 64, 1024] {
        through::<1>(slots);
        through::<3>(slots);
        through::<8>(slots);
        through::<40>(slots);
    }
}

#[test]
fn a_batch_that_is_dropped_in_a_panic_comes_again() {
    let name = Name::new("panic");
    let mut a = Pipe::<u64>::create_typed(&name, 256).unwrap();
    let mut b = Pipe::<u64>::open_typed(&name).unwrap();
    let all: Vec<u64> = (0..200).collect();
    a.send_many(&all).unwrap();
    let mut seen = 0;
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        b.recv_each(200, |&message| {
            assert_eq!(message, seen);
            seen += 1;
            if seen == 100 {
                std::panic::resume_unwind(Box::new(()));
            }
        })
    }));
    assert!(panicked.is_err());
    // Those of earlier chunks were released, those of this one were not.
    let mut rest = Vec::new();
    b.recv_many(&mut rest, 200).unwrap();
    assert_eq!(rest, all[64..]);
}

#[test]
fn of_a_batch_that_panics_what_was_made_for_earlier_lines_is_sent() {
    fn through<const WORDS: usize>(made: usize, sent: usize)
    where
        [u64; WORDS]: Pod,
    {
        let name = Name::new("made");
        let mut a = Pipe::<[u64; WORDS]>::create_typed(&name, 64).unwrap();
        let mut b = Pipe::<[u64; WORDS]>::open_typed(&name).unwrap();
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let mut calls = 0;
            a.send_each(60, |nth| {
                assert_eq!(nth, calls);
                calls += 1;
                if nth == made {
                    std::panic::resume_unwind(Box::new(()));
                }
                [nth as u64; WORDS]
            })
        }));
        assert!(panicked.is_err());
        a.send_each(0, |_| panic!("none was wanted")).unwrap();
        a.send_each(2, |nth| [1000 + nth as u64; WORDS]).unwrap();
        let mut got = Vec::new();
        b.recv_many(&mut got, 64).unwrap();
        let all = (0..sent as u64).chain([1000, 1001]).map(|i| [i; WORDS]);
        assert_eq!(got, all.collect::<Vec<_>>());
        drop(b);
        assert!(matches!(a.send_each(1, |_| [7; WORDS]), Err(SendError::Closed(0))));
    }
    // Four to a line, two to a line, and lines of their own.
    through::<1>(50, 48);
    through::<3>(51, 50);
    through::<8>(51, 51);
}

#[test]
fn typed() {
    let name = Name::new("typed");
    let mut a = Pipe::<[u64; 6]>::create_typed(&name, 3).unwrap();
    assert!(matches!(Pipe::open(&name), Err(Error::TypeMismatch { .. })));
    {
        let mut b = Pipe::<[u64; 6]>::open_typed(&name).unwrap();
        for i in 0..3 {
            a.try_send([i; 6]).unwrap();
        }
        assert!(matches!(a.try_send([3; 6]), Err(SendError::Full([3, ..]))));
        assert!(matches!(
            a.send_timeout([3; 6], Duration::from_millis(20)),
            Err(SendError::Timeout(_))
        ));
        assert_eq!(*b.peek().unwrap(), [0; 6]);
        assert_eq!(b.recv().unwrap(), [1; 6]);
        let mut slot = a.reserve().unwrap();
        slot.write([7; 6]);
        slot.commit();
        let mut got = Vec::new();
        assert_eq!(b.recv_many(&mut got, 10).unwrap(), 2);
        assert_eq!(got, [[2; 6], [7; 6]]);
        std::thread::scope(|scope| {
            let messages: Vec<[u64; 6]> = (0..1000).map(|i| [i; 6]).collect();
            let a = &mut a;
            scope.spawn(move || a.send_many(&messages).unwrap());
            for i in 0..1000 {
                assert_eq!(b.recv().unwrap(), [i; 6]);
            }
        });
    }
    assert!(matches!(a.send([0; 6]), Err(SendError::Closed(_))));
    let mut echo = spawn("echo typed", &[&name]);
    assert_eq!(echo.hear(), "ready");
    for i in 0..10_000 {
        a.send([i; 6]).unwrap();
        assert_eq!(a.recv().unwrap(), [i; 6]);
    }
    drop(a);
    echo.join();
}

#[test]
fn one_way() {
    let name = Name::new("one-way");
    let mut a = Pipe::create(&name, PipeOptions::new(1024).one_way()).unwrap();
    let mut b = Pipe::open(&name).unwrap();
    a.send(b"x").unwrap();
    assert_eq!(b.recv().unwrap(), b"x");
    let refusal = b.send(b"y").unwrap_err();
    assert!(matches!(refusal.failure(), Some(Error::OneWay { end: "receives" })));
    let refusal = a.try_recv().unwrap_err();
    assert!(matches!(refusal.failure(), Some(Error::OneWay { end: "sends" })));
    let (sender, receiver) = a.split();
    assert!(sender.is_some() && receiver.is_none());
}

#[test]
fn ends_are_exclusive() {
    let (name, a, b) = both("exclusive", 1024);
    assert_eq!((a.end(), b.end()), (End::A, End::B));
    let me = std::process::id();
    assert!(matches!(Pipe::open(&name), Err(Error::Busy { pid, .. }) if pid == me));
    assert!(matches!(Pipe::open_end(&name, End::A), Err(Error::Busy { .. })));
    assert_eq!(a.peer_pid(), Some(me));
    drop(a);
    assert_eq!(b.peer_pid(), None);
    // An end that was given up can be opened again.
    assert_eq!(Pipe::open(&name).unwrap().end(), End::A);
}

#[test]
fn a_failed_open_disturbs_nobody() {
    let name = Name::new("disturb");
    let mut a = Pipe::create(&name, 1024).unwrap();
    let (sender, receiver) = Pipe::open(&name).unwrap().split();
    drop(sender);
    // The receiving seat of B is still held, so B can't be opened, and the
    // attempt must not look like somebody coming and going.
    assert!(matches!(Pipe::open_end(&name, End::B), Err(Error::Busy { .. })));
    assert!(matches!(a.try_recv(), Err(RecvError::Closed)));
    a.send(b"still there").unwrap();
    assert_eq!(receiver.unwrap().recv().unwrap(), b"still there");
}

#[test]
fn closed_after_the_last_message() {
    let (_name, mut a, mut b) = both("closed", 1024);
    a.send(b"last").unwrap();
    drop(a);
    assert!(b.poll(Duration::ZERO).unwrap());
    assert_eq!(b.recv().unwrap(), b"last");
    assert!(b.poll(Duration::ZERO).unwrap());
    assert!(matches!(b.recv(), Err(RecvError::Closed)));
    assert!(matches!(b.send(b"x"), Err(SendError::Closed(()))));
}

#[test]
fn a_killed_sender_is_reported_after_what_it_sent() {
    let name = Name::new("kill-sender");
    let mut a = Pipe::create(&name, 1024).unwrap();
    for _ in 0..2 {
        let mut victim = spawn("send and hang", &[&name]);
        assert_eq!(victim.hear(), "sent");
        assert_eq!(a.peer_pid(), Some(victim.pid()));
        assert_eq!(a.recv().unwrap(), b"one");
        victim.kill();
        assert_eq!(a.recv().unwrap(), b"two");
        match a.recv() {
            Err(RecvError::PeerDied { pid }) => assert_eq!(pid, victim.pid()),
            other => panic!("{other:?}"),
        }
        assert!(matches!(a.try_recv(), Err(RecvError::PeerDied { .. })));
        assert!(matches!(a.send(b"x"), Err(SendError::Closed(()))));
        // The second round is the successor at the same end.
    }
}

#[test]
fn a_killed_receivers_successor_gets_what_was_not_released() {
    let name = Name::new("kill-receiver");
    let mut a = Pipe::create(&name, 1024).unwrap();
    for message in [&b"first"[..], b"second", b"third"] {
        a.send(message).unwrap();
    }
    let mut victim = spawn("peek and hang", &[&name]);
    assert_eq!(victim.hear(), "second");
    victim.kill();
    let mut b = Pipe::open(&name).unwrap();
    assert_eq!(b.end(), End::B);
    assert_eq!(b.recv().unwrap(), b"second");
    assert_eq!(b.recv().unwrap(), b"third");
    a.send(b"fourth").unwrap();
    assert_eq!(b.recv().unwrap(), b"fourth");
}

#[test]
fn a_sender_killed_within_a_long_message() {
    let name = Name::new("kill-long");
    let mut a = Pipe::create(&name, 4096).unwrap();
    let mut victim = spawn("hang in a long message", &[&name]);
    assert_eq!(victim.hear(), "sending");
    assert_eq!(a.recv().unwrap(), b"whole");
    // It waits for room: some pieces are there, the last is not.
    let _ = a.recv_timeout(Duration::from_millis(1));
    victim.kill();
    loop {
        match a.recv() {
            Err(RecvError::PeerDied { .. }) => break,
            // It may have been quick enough, if this reader was.
            Ok(message) => assert_eq!(message, [7; 1 << 20]),
            other => panic!("{other:?}"),
        }
    }
    let mut successor = Pipe::open(&name).unwrap();
    successor.send(b"after").unwrap();
    assert_eq!(a.recv().unwrap(), b"after");
}

#[test]
fn a_receiver_killed_within_a_long_message() {
    let name = Name::new("kill-assembly");
    let mut a = Pipe::create(&name, 256).unwrap();
    let mut victim = spawn("sleep in recv", &[&name]);
    assert_eq!(victim.hear(), "receiving");
    // Part of it: the receiver takes the pieces out while it waits.
    let sent = a.send_timeout(&[1; 100_000], Duration::from_millis(20));
    assert!(matches!(sent, Ok(()) | Err(SendError::Timeout(()))));
    victim.kill();
    let mut b = Pipe::open(&name).unwrap();
    // What is left of it has no beginning; the next message is whole.
    std::thread::scope(|scope| {
        scope.spawn(|| a.send(b"next").unwrap());
        loop {
            let message = b.recv().unwrap();
            if message == b"next" {
                break;
            }
            assert_eq!(message, [1; 100_000]);
        }
    });
}

#[test]
fn a_sleeping_receiver_hears_of_death() {
    let name = Name::new("sleep");
    let mut a = Pipe::create(&name, 1024).unwrap();
    let mut other = spawn("sleep in recv", &[&name]);
    assert_eq!(other.hear(), "receiving");
    a.send(b"wake").unwrap();
    assert_eq!(other.hear(), format!("Ok({:?})", b"wake"));
    other.join();
    let mut victim = spawn("sleep in recv", &[&name]);
    assert_eq!(victim.hear(), "receiving");
    std::thread::scope(|scope| {
        let waiting = scope.spawn(move || a.recv());
        victim.kill();
        assert!(matches!(waiting.join().unwrap(), Err(RecvError::PeerDied { .. })));
    });
}

#[test]
fn streams() {
    let name = Name::new("stream");
    let mut a = Pipe::create(&name, 512).unwrap();
    let mut reader = spawn("stream", &[&name]);
    assert_eq!(reader.hear(), "ready");
    let bytes: Vec<u8> =
        (0..200_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    a.write_all(&bytes).unwrap();
    drop(a);
    let sum = bytes.iter().fold(0u64, |s, b| s.wrapping_mul(31).wrapping_add((*b).into()));
    assert_eq!(reader.hear(), format!("200000 {sum}"));
    reader.join();
}

#[test]
fn what_a_read_leaves_is_the_next_message() {
    let (_name, mut a, mut b) = both("rest", 1024);
    a.send(b"0123456789").unwrap();
    let mut buffer = [0; 4];
    assert_eq!(b.read(&mut buffer).unwrap(), 4);
    assert_eq!(b.recv().unwrap(), b"456789");
    a.send(b"abc").unwrap();
    assert_eq!(b.recv().unwrap(), b"abc");
}

/// Random sends and receives against a `VecDeque`, over the wraps of positions.
#[test]
fn like_a_deque() {
    let mut random = 0x9e37_79b9_7f4a_7c15u64;
    let mut next = move |bound: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % bound
    };
    for start in [0, 0xffff_ff00, u64::MAX / 8 - 40, u64::MAX - 1000] {
        let (_name, mut a, mut b) = both("deque", PipeOptions::new(344).start(start));
        let mut oracle = VecDeque::new();
        for step in 0..20_000u64 {
            if next(2) == 0 {
                let message = vec![step as u8; next(170) as usize];
                match a.try_send(&message) {
                    Ok(()) => oracle.push_back(message),
                    Err(SendError::Full(())) => assert!(!oracle.is_empty()),
                    Err(SendError::Failed((), error))
                        if matches!(*error, Error::TooLarge { .. }) =>
                    {
                        assert!(message.len() > 100)
                    }
                    other => panic!("{other:?}"),
                }
            } else {
                match (b.try_recv(), oracle.pop_front()) {
                    (Ok(got), Some(expected)) => assert_eq!(got, expected),
                    (Err(RecvError::Empty), None) => {}
                    other => panic!("{other:?}"),
                }
            }
        }
    }
}

/// Waits without any time, again and again, hear of death as long ones do.
#[test]
fn polls_with_no_time_hear_of_death() {
    for receive in [false, true] {
        let name = Name::new("no-time");
        let mut a = Pipe::create(&name, 1024).unwrap();
        let mut victim = spawn("send and hang", &[&name]);
        assert_eq!(victim.hear(), "sent");
        assert_eq!(a.recv().unwrap(), b"one");
        assert_eq!(a.recv().unwrap(), b"two");
        assert!(!a.poll(Duration::ZERO).unwrap());
        victim.kill();
        let start = std::time::Instant::now();
        loop {
            assert!(start.elapsed() < PATIENCE);
            if receive {
                match a.recv_timeout(Duration::ZERO) {
                    Err(RecvError::Timeout) => {}
                    Err(RecvError::PeerDied { pid }) => {
                        assert_eq!(pid, victim.pid());
                        break;
                    }
                    other => panic!("{other:?}"),
                }
            } else if a.poll(Duration::ZERO).unwrap() {
                break;
            }
        }
        // Nor does a sender with no time fill the ring for nobody.
        assert!(matches!(a.send_timeout(b"x", Duration::ZERO), Err(SendError::Closed(()))));
    }
}

/// A child that is forked by who makes a batch sends none of it, whether its parent
/// goes on before it or dies.
fn fork_in_the_making<const WORDS: usize>(name: &str, sent: usize, dies: bool)
where
    [u64; WORDS]: Pod,
{
    let mut a = Pipe::<[u64; WORDS]>::open_typed(name).unwrap();
    // So that a line ends within the batch.
    a.send([100; WORDS]).unwrap();
    // SAFETY: no more than a number.
    let parent = unsafe { libc::getpid() };
    let mut child = None;
    let outcome = a.send_each(9, |nth| {
        if nth != 5 || child.is_some() {
            return [nth as u64; WORDS];
        }
        // SAFETY: the child goes on with its copies of the handles, and exits.
        let pid = unsafe { libc::fork() };
        child = Some(pid == 0);
        if pid == 0 {
            // SAFETY: no more than a number.
            while dies && unsafe { libc::getppid() } == parent {
                std::thread::yield_now();
            }
            return [77; WORDS];
        }
        if !dies {
            end_of(pid);
        }
        [5; WORDS]
    });
    if child == Some(true) {
        match outcome {
            Err(SendError::Failed(n, _)) if n == sent => say("failed"),
            other => say(&format!("{other:?}")),
        }
    } else {
        outcome.unwrap();
        say("sent");
    }
    // SAFETY: ends the process without running what belongs to the parent.
    unsafe { libc::_exit(0) };
}

/// A child that is forked by who reads a batch in place sees no more of it, and
/// releases none.
fn fork_in_a_batch(name: &str) {
    let mut a = Pipe::<[u64; 8]>::create_typed(name, 4).unwrap();
    let mut b = Pipe::<[u64; 8]>::open_typed(name).unwrap();
    a.send_many(&[[0; 8], [1; 8], [2; 8], [3; 8]]).unwrap();
    let (mut next, mut child) = (0, None);
    let count = b.recv_each(4, |message| {
        assert_eq!(*message, [next; 8]);
        if next == 1 {
            // SAFETY: the child goes on with its copies of the handles, and exits.
            let pid = unsafe { libc::fork() };
            if pid != 0 {
                assert_eq!(end_of(pid), 0, "the forked child failed");
                assert!(matches!(a.try_send([4; 8]), Err(SendError::Full(_))));
            }
            child = Some(pid == 0);
        }
        next += 1;
    });
    if child == Some(true) {
        let two = matches!(count, Ok(2)) && next == 2;
        // SAFETY: ends the process without running what belongs to the parent.
        unsafe { libc::_exit(i32::from(!two)) };
    }
    assert_eq!(count.unwrap(), 4);
    a.try_send([4; 8]).unwrap();
    assert_eq!(b.recv().unwrap(), [4; 8]);
    say("done");
}

/// The second message of a batch forks when it is asked for its bytes.
struct Forking<'a> {
    bytes: &'a [u8],
    child: Option<&'a Cell<Option<bool>>>,
    receiver: &'a RefCell<Pipe>,
}

impl AsRef<[u8]> for Forking<'_> {
    fn as_ref(&self) -> &[u8] {
        if let Some(child) = self.child
            && child.get().is_none()
        {
            // SAFETY: the child goes on with its copies of the handles, and exits.
            let pid = unsafe { libc::fork() };
            if pid != 0 {
                assert_eq!(end_of(pid), 0, "the forked child failed");
                let early = self.receiver.borrow_mut().try_recv();
                assert!(matches!(early, Err(RecvError::Empty)), "{early:?}");
            }
            child.set(Some(pid == 0));
        }
        self.bytes
    }
}

fn fork_in_a_batch_of_bytes(name: &str) {
    let mut a = Pipe::create(name, 1 << 12).unwrap();
    let b = RefCell::new(Pipe::open(name).unwrap());
    let child = Cell::new(None);
    let message = |bytes, child| Forking { bytes, child, receiver: &b };
    let batch = [message(b"one", None), message(b"two", Some(&child)), message(b"three", None)];
    let sent = a.send_many(&batch);
    if child.get() == Some(true) {
        let busy = matches!(&sent, Err(SendError::Failed(1, error)) if matches!(**error, Error::Busy { .. }));
        // SAFETY: ends the process without running what belongs to the parent.
        unsafe { libc::_exit(i32::from(!busy)) };
    }
    sent.unwrap();
    let mut b = b.borrow_mut();
    for expected in [&b"one"[..], b"two", b"three"] {
        assert_eq!(b.try_recv().unwrap(), expected);
    }
    assert!(matches!(b.try_recv(), Err(RecvError::Empty)));
    say("done");
}

#[test]
fn a_child_that_a_batch_of_bytes_forks_publishes_none_of_it() {
    let name = Name::new("fork-bytes");
    let mut process = spawn("fork in a batch of bytes", &[&name]);
    assert_eq!(process.hear(), "done");
    process.join();
}

#[test]
fn a_child_that_the_making_of_a_batch_forks_sends_none_of_it() {
    fn check<const WORDS: usize>(role: &str)
    where
        [u64; WORDS]: Pod,
    {
        let name = Name::new("making");
        let mut b = Pipe::<[u64; WORDS]>::create_typed(&name, 16).unwrap();
        let mut child = spawn(role, &[&name]);
        let mut said = [child.hear(), child.hear()];
        said.sort();
        assert_eq!(said, ["failed", "sent"]);
        let mut got = Vec::new();
        b.recv_many(&mut got, 16).unwrap();
        let all = [100].into_iter().chain(0..9).map(|i| [i; WORDS]);
        assert_eq!(got, all.collect::<Vec<_>>());
        child.join();
        assert!(matches!(b.recv(), Err(RecvError::PeerDied { .. })));
    }
    check::<1>("fork in the making of lines");
    check::<1>("fork in the making, and die");
    check::<8>("fork in the making of more");
}

/// Batches of messages that only just fit on the stack.
#[test]
fn batches_of_large_messages() {
    const WORDS: usize = 1 << 14;
    let name = Name::new("large");
    let mut a = Pipe::<[u64; WORDS]>::create_typed(&name, 4).unwrap();
    let mut b = Pipe::<[u64; WORDS]>::open_typed(&name).unwrap();
    a.send_each(2, |nth| [nth as u64; WORDS]).unwrap();
    a.send_many(&vec![[2; WORDS]; 2]).unwrap();
    let mut wanted = [0, 1, 2, 2].into_iter().peekable();
    while wanted.peek().is_some() {
        b.recv_each(4, |message| {
            let wanted = wanted.next().unwrap();
            assert!(message.iter().all(|&word| word == wanted));
        })
        .unwrap();
    }
}

#[test]
fn a_child_that_a_batch_forks_releases_none_of_it() {
    let name = Name::new("batch-fork");
    let mut child = spawn("fork in a batch", &[&name]);
    assert_eq!(child.hear(), "done");
    child.join();
}

/// A forked child takes the end that its parent left, over a ring that somebody
/// has torn meanwhile. It must not go on from where the parent was.
fn fork_then_a_torn_ring(name: &str) {
    const START: u64 = 0x1234_5678_9abc;
    let segment = Segment::builder(name)
        .pipe("bytes", PipeOptions::new(120).start(START))
        .typed_pipe::<u64>("typed", PipeOptions::new(4).start(START))
        .create()
        .unwrap();
    let mut a = segment.pipe_end("bytes", End::A).unwrap();
    let mut b = segment.pipe_end("bytes", End::B).unwrap();
    b.send(b"seven").unwrap();
    assert_eq!(a.recv().unwrap(), b"seven");
    let mut typed = segment.typed_pipe_end::<u64>("typed", End::A).unwrap();
    let mut other = segment.typed_pipe_end::<u64>("typed", End::B).unwrap();
    other.send(7).unwrap();
    assert_eq!(typed.recv().unwrap(), 7);
    let (mut torn, mut tell) = std::io::pipe().unwrap();
    // SAFETY: the child uses its copies of the handles, and exits.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0);
    if pid == 0 {
        drop(tell);
        let tried = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            torn.read_exact(&mut [0]).unwrap();
            for _ in 0..3 {
                let got = a.try_recv().unwrap_err();
                assert!(matches!(got.failure(), Some(Error::Corrupt { .. })), "{got:?}");
                let got = typed.try_recv().unwrap_err();
                assert!(matches!(got.failure(), Some(Error::Corrupt { .. })), "{got:?}");
            }
        }));
        // SAFETY: ends the process without running what belongs to the parent.
        unsafe { libc::_exit(i32::from(tried.is_err())) };
    }
    drop((a, typed));
    // The tail and the head after a message of two cells (of sixteen, one being kept, so
    // that positions are counts), and the word of a slot
    // that is free for its second lap: nothing else in the file is that.
    let path = format!("/dev/shm/{name}");
    let bytes = std::fs::read(&path).unwrap();
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    for (value, count) in [(START + 2, 2), (2 * (START / 4 + 1), 1)] {
        let value = value.to_ne_bytes();
        let places = (0..bytes.len()).step_by(8).filter(|&i| bytes[i..i + 8] == value);
        let places: Vec<_> = places.collect();
        assert_eq!(places.len(), count, "{places:?}");
        for place in places {
            file.write_all_at(&[0xff; 8], place as u64).unwrap();
        }
    }
    tell.write_all(&[1]).unwrap();
    assert_eq!(end_of(pid), 0, "the forked child failed");
    say("done");
}

#[test]
fn a_forked_child_does_not_go_on_over_a_torn_ring() {
    let name = Name::new("torn");
    let mut process = spawn("fork, then a torn ring", &[&name]);
    assert_eq!(process.hear(), "done");
    process.join();
}

/// Messages read in place and given back with their cache lines arrive as all
/// others do, of any size.
#[test]
fn messages_released_with_their_lines() {
    fn typed<const N: usize>()
    where
        [u8; N]: Pod,
    {
        let name = Name::new("lines");
        let mut a = Pipe::<[u8; N]>::create_typed(&name, 3).unwrap();
        let mut b = Pipe::<[u8; N]>::open_typed(&name).unwrap();
        for i in 0..20 {
            a.send([i; N]).unwrap();
            a.send([i + 100; N]).unwrap();
            let message = b.peek().unwrap();
            assert_eq!(*message, [i; N]);
            message.release_read();
            assert_eq!(b.recv().unwrap(), [i + 100; N]);
            assert!(matches!(b.try_recv(), Err(RecvError::Empty)));
        }
    }
    typed::<1>();
    typed::<57>();
    typed::<64>();
    typed::<128>();
    typed::<1024>();

    let name = Name::new("lines");
    let mut a = Pipe::create(&name, 4096).unwrap();
    let mut b = Pipe::open(&name).unwrap();
    for len in (0..300).chain([1000, 1300]) {
        let (one, two) = (vec![len as u8; len], vec![!len as u8; len]);
        a.send(&one).unwrap();
        a.send(&two).unwrap();
        let message = b.peek().unwrap();
        assert_eq!(*message, one[..]);
        message.release_read();
        assert_eq!(b.recv().unwrap(), two);
    }
    // One that came in pieces, and so does not lie in the ring.
    let long = vec![9; 20_000];
    std::thread::scope(|scope| {
        scope.spawn(|| a.send(&long).unwrap());
        let message = b.peek().unwrap();
        assert_eq!(*message, long[..]);
        message.release_read();
    });
    assert!(!b.poll(Duration::ZERO).unwrap());
}
