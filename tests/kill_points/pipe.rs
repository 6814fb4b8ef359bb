//! Pipes: of values and of bytes, messages in pieces, and the two ends.

use crate::queue::{Message, message};
use crate::stage::{Death, PATIENCE, Scenario, Stage, Survivor, Victim, begin, end};
use crate::support::BRIEF;
use slipring::*;

const SLOTS: usize = 4;
const RING: usize = 512;
/// So that a message must be put behind the end of the ring soon: in cells.
const NEAR_THE_END: u64 = 59;

/// So many messages that share cache lines, of which the last line is not whole.
const SHORT: usize = 10;

fn short() -> Vec<u64> {
    (1..=SHORT as u64).collect()
}

/// Longer than what goes in one piece, but not than the ring.
fn long() -> Vec<u8> {
    (0..300u32).map(|i| (i * 7 % 251) as u8).collect()
}

/// Longer than the ring.
fn endless() -> Vec<u8> {
    (0..6000u32).map(|i| (i * 11 % 251) as u8).collect()
}

fn all() -> [Vec<u8>; 5] {
    [b"one".to_vec(), b"two".to_vec(), b"three".to_vec(), b"four".to_vec(), long()]
}

pub const VICTIMS: &[Victim] = &[
    ("pipe.send", |name| {
        let mut pipe = Pipe::<Message>::open_typed(name).unwrap();
        begin();
        pipe.send(message(1)).unwrap();
        pipe.send_many(&[message(2), message(3)]).unwrap();
        let mut slot = pipe.reserve().unwrap();
        slot.write(message(4));
        slot.commit();
        end();
    }),
    ("pipe.receive", |name| {
        let mut pipe = Pipe::<Message>::open_typed(name).unwrap();
        begin();
        assert_eq!(pipe.recv().unwrap(), message(1));
        let mut many = Vec::new();
        pipe.recv_many(&mut many, 2).unwrap();
        assert_eq!(many, [message(2), message(3)]);
        assert_eq!(*pipe.peek().unwrap(), message(4));
        end();
    }),
    ("pipe.send-lines", |name| {
        let mut pipe = Pipe::<u64>::open_typed(name).unwrap();
        let short = short();
        begin();
        pipe.send_each(SHORT / 2, |nth| short[nth]).unwrap();
        pipe.send_many(&short[SHORT / 2..]).unwrap();
        end();
    }),
    ("pipe.receive-lines", |name| {
        let mut pipe = Pipe::<u64>::open_typed(name).unwrap();
        let mut got = Vec::new();
        begin();
        pipe.recv_each(SHORT, |&message| got.push(message)).unwrap();
        end();
        assert_eq!(got, short());
    }),
    ("pipe.come-and-go", |name| {
        begin();
        drop(Pipe::<Message>::open_typed_end(name, End::B).unwrap());
        end();
    }),
    ("pipe.find-it-taken", |name| {
        begin();
        let busy = Pipe::<Message>::open_typed_end(name, End::B);
        assert!(matches!(busy, Err(Error::Busy { .. })));
        end();
    }),
    ("pipe.send-bytes", |name| {
        let mut pipe = Pipe::open(name).unwrap();
        let [one, two, three, four, long] = all();
        begin();
        pipe.send(&one).unwrap();
        pipe.send_many(&[two, three]).unwrap();
        let mut room = pipe.reserve(10).unwrap();
        room[..four.len()].copy_from_slice(&four);
        room.commit(four.len());
        pipe.send(&long).unwrap();
        end();
    }),
    ("pipe.come-with-bytes", |name| {
        begin();
        let mut pipe = Pipe::open(name).unwrap();
        pipe.send(&all()[0]).unwrap();
        drop(pipe);
        end();
    }),
    ("pipe.receive-bytes", |name| {
        let mut pipe = Pipe::open(name).unwrap();
        let [one, two, three, four, long] = all();
        begin();
        assert_eq!(pipe.recv().unwrap(), one);
        let mut many = Vec::new();
        pipe.recv_many(&mut many, 2).unwrap();
        assert_eq!(many, [two, three]);
        assert_eq!(*pipe.peek().unwrap(), four[..]);
        assert_eq!(pipe.recv().unwrap(), long);
        end();
    }),
    ("pipe.send-endless", |name| {
        let mut pipe = Pipe::open(name).unwrap();
        begin();
        pipe.send(&endless()).unwrap();
        end();
    }),
    ("pipe.receive-endless", |name| {
        let mut pipe = Pipe::open(name).unwrap();
        begin();
        assert_eq!(pipe.recv().unwrap(), endless());
        end();
    }),
];

const LINES_SENT: &[&str] = &["spsc.written", "spsc.line-written", "spsc.published"];

pub fn scenarios() -> Vec<Scenario> {
    let pieces = &["pipe.bytes", "bytes.header", "bytes.published"];
    let all: &[(&str, Survivor)] = &[
        ("pipe.send", send),
        ("pipe.send, taken over", taken_over),
        ("pipe.receive", receive),
        ("pipe.come-and-go", come_and_go),
        ("pipe.find-it-taken", find_it_taken),
        ("pipe.come with bytes", come_with_bytes),
        ("pipe.send bytes", send_bytes),
        ("pipe.send bytes, taken over", taken_over_bytes),
        ("pipe.receive bytes", receive_bytes),
    ];
    let mut scenarios: Vec<_> = all.iter().map(|&(name, run)| Scenario::new(name, run)).collect();
    // How often a sleeper is woken is a matter of luck, but for once.
    let sleeping = Scenario::new("pipe.sleeping receiver", sleeping_receiver);
    scenarios.push(Scenario { most: 1, ..sleeping });
    for (name, run, only) in [
        ("pipe.send lines", send_lines as Survivor, LINES_SENT),
        ("pipe.receive lines", receive_lines, &["spsc.released"]),
    ] {
        scenarios.push(Scenario { most: SHORT as u32, only, ..Scenario::new(name, run) });
    }
    scenarios.push(Scenario {
        most: 8,
        only: pieces,
        ..Scenario::new("pipe.send pieces", send_pieces)
    });
    scenarios.push(Scenario {
        most: 8,
        only: &["bytes.released"],
        ..Scenario::new("pipe.receive pieces", receive_pieces)
    });
    scenarios
}

/// The end that died is opened again, and both ends go on in both directions.
fn go_on(stage: &Stage<'_>, segment: Segment, mut a: Pipe<Message>, death: &Death) {
    let mut b = stage.soon(|| segment.typed_pipe_end::<Message>("pipe", End::B)).unwrap();
    assert!(matches!(a.try_recv(), Err(RecvError::Empty)));
    let mut next = 1000;
    for lot in [1, SLOTS as u64] {
        for _ in 0..3 * SLOTS {
            for i in next..next + lot {
                a.send(message(i)).unwrap();
                b.send(message(!i)).unwrap();
            }
            for i in next..next + lot {
                assert_eq!(b.recv_timeout(PATIENCE).unwrap(), message(i));
                assert_eq!(a.recv_timeout(PATIENCE).unwrap(), message(!i));
            }
            next += lot;
        }
    }
    stage.shows_recovered(&segment, death);
    drop(b);
    assert!(matches!(a.try_recv(), Err(RecvError::Closed)));
    drop((a, segment));
    stage.is_gone();
}

fn typed(stage: &Stage<'_>) -> (Segment, Pipe<Message>) {
    let builder = Segment::builder(&stage.name).typed_pipe::<Message>("pipe", SLOTS);
    let segment = builder.participants(3).create().unwrap();
    let a = segment.typed_pipe("pipe").unwrap();
    (segment, a)
}

fn ends_by_death<T>(end: Result<T, RecvError>, pid: u32) {
    match end {
        Err(RecvError::PeerDied { pid: found }) => assert_eq!(found, pid),
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("a message that nobody sent"),
    }
}

fn send(stage: &Stage<'_>) {
    let (segment, mut a) = typed(stage);
    let death = stage.die_with("pipe.send", |_, victim| {
        // Leaves the mark of a sleeper.
        assert!(matches!(a.recv_timeout(BRIEF), Err(RecvError::Timeout)));
        victim.say("go");
    });
    stage.shows_dead(&segment, &death);
    for i in 1..=death.count("spsc.published") as u64 {
        assert_eq!(stage.soon(|| a.recv_timeout(PATIENCE)).unwrap(), message(i));
    }
    ends_by_death(stage.soon(|| a.recv_timeout(PATIENCE)), death.pid);
    assert!(matches!(a.send(message(0)), Err(SendError::Closed(_))));
    go_on(stage, segment, a, &death);
}

/// The successor sends before anything was received.
fn taken_over(stage: &Stage<'_>) {
    let (segment, mut a) = typed(stage);
    let death = stage.die("pipe.send");
    stage.shows_dead(&segment, &death);
    let published = death.count("spsc.published") as u64;
    let mut b = stage.soon(|| segment.typed_pipe_end::<Message>("pipe", End::B)).unwrap();
    for i in published + 1..=SLOTS as u64 {
        b.try_send(message(i)).unwrap();
    }
    assert!(matches!(b.try_send(message(0)), Err(SendError::Full(_))));
    for i in 1..=SLOTS as u64 {
        assert_eq!(a.recv_timeout(PATIENCE).unwrap(), message(i));
    }
    drop(b);
    go_on(stage, segment, a, &death);
}

fn receive(stage: &Stage<'_>) {
    let (segment, mut a) = typed(stage);
    for i in 1..=4 {
        a.send(message(i)).unwrap();
    }
    let death = stage.die_with("pipe.receive", |_, victim| {
        let full = a.send_timeout(message(0), BRIEF);
        assert!(matches!(full, Err(SendError::Timeout(_))));
        victim.say("go");
    });
    stage.shows_dead(&segment, &death);
    ends_by_death(stage.soon(|| a.recv_timeout(PATIENCE)), death.pid);
    let released = death.count("spsc.released") as u64;
    let mut b = stage.soon(|| segment.typed_pipe_end::<Message>("pipe", End::B)).unwrap();
    for i in released + 1..=4 {
        assert_eq!(stage.soon(|| b.recv_timeout(PATIENCE)).unwrap(), message(i));
    }
    drop(b);
    go_on(stage, segment, a, &death);
}

/// Slots that share cache lines, and the ring begins again within the batch.
fn lines(stage: &Stage<'_>) -> (Segment, Pipe<u64>, Pipe<u64>) {
    let builder = Segment::builder(&stage.name).typed_pipe::<u64>("pipe", SHORT + 2);
    let segment = builder.participants(3).create().unwrap();
    let mut a = segment.typed_pipe::<u64>("pipe").unwrap();
    let mut b = segment.typed_pipe_end::<u64>("pipe", End::B).unwrap();
    for i in 0..4 {
        a.send(i).unwrap();
        b.send(i).unwrap();
        assert_eq!((a.recv().unwrap(), b.recv().unwrap()), (i, i));
    }
    (segment, a, b)
}

fn send_lines(stage: &Stage<'_>) {
    let (segment, mut a, b) = lines(stage);
    drop(b);
    let death = stage.die("pipe.send-lines");
    stage.shows_dead(&segment, &death);
    let published = death.count("spsc.published");
    let mut b = stage.soon(|| segment.typed_pipe_end::<u64>("pipe", End::B)).unwrap();
    let rest = &short()[published..];
    b.send_many(rest).unwrap();
    let mut got = Vec::new();
    while got.len() < SHORT {
        a.recv_each(SHORT, |&message| got.push(message)).unwrap();
    }
    assert_eq!(got, short());
    there_and_back(stage, segment, a, b, &death);
}

fn receive_lines(stage: &Stage<'_>) {
    let (segment, mut a, b) = lines(stage);
    a.send_many(&short()).unwrap();
    drop(b);
    let death = stage.die("pipe.receive-lines");
    stage.shows_dead(&segment, &death);
    let released = death.count("spsc.released");
    let mut b = stage.soon(|| segment.typed_pipe_end::<u64>("pipe", End::B)).unwrap();
    let mut got = Vec::new();
    if released < SHORT {
        b.recv_many(&mut got, SHORT).unwrap();
    }
    assert_eq!(got, short()[released..]);
    there_and_back(stage, segment, a, b, &death);
}

/// Batches of all sizes in both directions.
fn there_and_back(
    stage: &Stage<'_>,
    segment: Segment,
    mut a: Pipe<u64>,
    mut b: Pipe<u64>,
    death: &Death,
) {
    for _ in 0..2 {
        for n in 1..=SHORT {
            let mut got = Vec::new();
            a.send_many(&short()[..n]).unwrap();
            assert_eq!(b.recv_many(&mut got, SHORT).unwrap(), n);
            b.send_many(&got).unwrap();
            got.clear();
            assert_eq!(a.recv_each(SHORT, |&message| got.push(message)).unwrap(), n);
            assert_eq!(got, short()[..n]);
        }
    }
    stage.shows_recovered(&segment, death);
    drop(b);
    assert!(matches!(a.try_recv(), Err(RecvError::Closed)));
    drop((a, segment));
    stage.is_gone();
}

fn come_and_go(stage: &Stage<'_>) {
    let (segment, a) = typed(stage);
    let death = stage.die("pipe.come-and-go");
    stage.shows_dead(&segment, &death);
    go_on(stage, segment, a, &death);
}

/// An open that fails half-way, and the two halves that must not notice.
fn find_it_taken(stage: &Stage<'_>) {
    let (segment, mut a) = typed(stage);
    let b = segment.typed_pipe_end::<Message>("pipe", End::B).unwrap();
    let (sender, receiver) = b.split();
    let mut receiver = receiver.unwrap();
    drop(sender);
    let death = stage.die("pipe.find-it-taken");
    stage.shows_dead(&segment, &death);
    for i in 1..10 {
        a.send(message(i)).unwrap();
        assert_eq!(receiver.recv_timeout(PATIENCE).unwrap(), message(i));
    }
    let end = stage.soon(|| a.recv_timeout(PATIENCE));
    if death.count("seat.taken") > death.count("seat.put-back") {
        ends_by_death(end, death.pid);
    } else {
        assert!(matches!(end, Err(RecvError::Closed)), "{end:?}");
    }
    drop(receiver);
    go_on(stage, segment, a, &death);
}

/// A thread of the survivor's sleeps, and hears of the message or of the death.
fn sleeping_receiver(stage: &Stage<'_>) {
    let (segment, mut a) = typed(stage);
    let death = std::thread::scope(|scope| {
        let (mut own, mut sleeper) = (Some(&mut a), None);
        let death = stage.die_with("pipe.send", |_, victim| {
            let a = own.take().unwrap();
            assert!(matches!(a.recv_timeout(BRIEF), Err(RecvError::Timeout)));
            sleeper = Some(scope.spawn(move || a.recv_timeout(PATIENCE * 10)));
            victim.say("go");
        });
        let got = stage.soon(|| sleeper.unwrap().join()).unwrap();
        match death.count("spsc.published") {
            0 => ends_by_death(got, death.pid),
            _ => assert_eq!(got.unwrap(), message(1)),
        }
        death
    });
    while let Ok(message) = a.try_recv() {
        assert!(message[0] <= death.count("spsc.published") as u64);
    }
    go_on(stage, segment, a, &death);
}

fn of_bytes(stage: &Stage<'_>) -> (Segment, Pipe) {
    let options = PipeOptions::new(RING).start(NEAR_THE_END);
    let segment = Segment::builder(&stage.name).pipe("pipe", options).create().unwrap();
    let a = segment.pipe("pipe").unwrap();
    (segment, a)
}

/// As [`go_on`].
fn go_on_bytes(stage: &Stage<'_>, segment: Segment, mut a: Pipe, death: &Death) {
    let mut b = stage.soon(|| segment.pipe_end("pipe", End::B)).unwrap();
    let messages = [vec![], vec![1; 100], vec![2; 248], long(), vec![3; 9]];
    for message in messages.iter().cycle().take(50) {
        for _ in 0..2 {
            std::thread::scope(|scope| {
                scope.spawn(|| a.send_timeout(message, PATIENCE).unwrap());
                assert_eq!(b.recv_timeout(PATIENCE).unwrap(), *message);
            });
            std::mem::swap(&mut a, &mut b);
        }
    }
    stage.shows_recovered(&segment, death);
    drop(b);
    assert!(matches!(a.try_recv(), Err(RecvError::Closed)));
    drop((a, segment));
    stage.is_gone();
}

fn come_with_bytes(stage: &Stage<'_>) {
    let (segment, mut a) = of_bytes(stage);
    let death = stage.die("pipe.come-with-bytes");
    stage.shows_dead(&segment, &death);
    for message in &all()[..death.count("bytes.published")] {
        assert_eq!(stage.soon(|| a.recv_timeout(PATIENCE)).unwrap(), *message);
    }
    go_on_bytes(stage, segment, a, &death);
}

fn send_bytes(stage: &Stage<'_>) {
    let (segment, mut a) = of_bytes(stage);
    let death = stage.die_with("pipe.send-bytes", |_, victim| {
        assert!(matches!(a.recv_timeout(BRIEF), Err(RecvError::Timeout)));
        victim.say("go");
    });
    stage.shows_dead(&segment, &death);
    // One, two and three together, four, and two pieces of the long one.
    let whole = [0, 1, 3, 4, 4, 5][death.count("bytes.published")];
    for message in &all()[..whole] {
        assert_eq!(stage.soon(|| a.recv_timeout(PATIENCE)).unwrap(), *message);
    }
    ends_by_death(stage.soon(|| a.recv_timeout(PATIENCE)), death.pid);
    go_on_bytes(stage, segment, a, &death);
}

/// As [`taken_over`]; of a message without its end nothing is received.
fn taken_over_bytes(stage: &Stage<'_>) {
    let (segment, mut a) = of_bytes(stage);
    let death = stage.die("pipe.send-bytes");
    stage.shows_dead(&segment, &death);
    let mut b = stage.soon(|| segment.pipe_end("pipe", End::B)).unwrap();
    b.send_timeout(b"after", PATIENCE).unwrap();
    let whole = [0, 1, 3, 4, 4, 5][death.count("bytes.published")];
    for message in all()[..whole].iter().chain([&b"after".to_vec()]) {
        assert_eq!(a.recv_timeout(PATIENCE).unwrap(), *message);
    }
    drop(b);
    go_on_bytes(stage, segment, a, &death);
}

fn receive_bytes(stage: &Stage<'_>) {
    let (segment, mut a) = of_bytes(stage);
    for message in all() {
        a.send_timeout(&message, PATIENCE).unwrap();
    }
    let death = stage.die_with("pipe.receive-bytes", |_, victim| {
        let full = a.send_timeout(&[0; 240], BRIEF);
        assert!(matches!(full, Err(SendError::Timeout(()))));
        victim.say("go");
    });
    stage.shows_dead(&segment, &death);
    ends_by_death(stage.soon(|| a.recv_timeout(PATIENCE)), death.pid);
    let mut b = stage.soon(|| segment.pipe_end("pipe", End::B)).unwrap();
    // A message of which a piece was released went down with its receiver.
    let gone = [0, 1, 2, 3, 4, 5, 5][death.count("bytes.released")];
    for message in &all()[gone..] {
        assert_eq!(stage.soon(|| b.recv_timeout(PATIENCE)).unwrap(), *message);
    }
    assert!(matches!(b.try_recv(), Err(RecvError::Empty)));
    drop(b);
    go_on_bytes(stage, segment, a, &death);
}

fn send_pieces(stage: &Stage<'_>) {
    let (segment, mut a) = of_bytes(stage);
    let (death, got) = std::thread::scope(|scope| {
        let receiver = scope.spawn(|| {
            let mut got = Vec::new();
            loop {
                match a.recv_timeout(PATIENCE * 10) {
                    Ok(message) => got.push(message),
                    Err(RecvError::PeerDied { pid }) => return (got, pid),
                    Err(error) => panic!("{error}"),
                }
            }
        });
        let death = stage.die("pipe.send-endless");
        let (got, pid) = stage.soon(|| receiver.join()).unwrap();
        assert_eq!(pid, death.pid);
        (death, got)
    });
    stage.shows_dead(&segment, &death);
    // Those who die at their choice die long before the last piece.
    let whole = if stage.is_undisturbed() { vec![endless()] } else { vec![] };
    assert_eq!(got, whole);
    go_on_bytes(stage, segment, a, &death);
}

fn receive_pieces(stage: &Stage<'_>) {
    let (segment, mut a) = of_bytes(stage);
    let death = std::thread::scope(|scope| {
        let sender = scope.spawn(|| a.send_timeout(&endless(), PATIENCE * 10));
        let death = stage.die("pipe.receive-endless");
        let sent = stage.soon(|| sender.join()).unwrap();
        match sent {
            Ok(()) => assert!(stage.is_undisturbed()),
            Err(error) => {
                assert!(matches!(error, SendError::Closed(())), "{error}");
                assert!(!stage.is_undisturbed());
            }
        }
        death
    });
    stage.shows_dead(&segment, &death);
    // What is left in the ring has no beginning, and is nobody's message.
    let mut b = stage.soon(|| segment.pipe_end("pipe", End::B)).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| a.send_timeout(b"next", PATIENCE).unwrap());
        assert_eq!(stage.soon(|| b.recv_timeout(PATIENCE)).unwrap(), b"next");
    });
    drop(b);
    go_on_bytes(stage, segment, a, &death);
}
