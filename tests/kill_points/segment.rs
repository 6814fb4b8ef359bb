//! Segments: made, attached to, detached from, unlinked, recovered.

use crate::queue::{Message, message};
use crate::stage::{Death, PATIENCE, Scenario, Stage, Survivor, Victim, begin, end};
use crate::support::Name;
use slipring::*;
use std::time::Instant;

type Large = [u64; 5];

fn everything(name: &str) -> Builder {
    let again = QueueOptions::new(5).delivery(Delivery::AtLeastOnce);
    Segment::builder(name)
        .queue::<Message>("once", 5)
        .queue::<Message>("again", again)
        .typed_pipe::<Message>("pipe", 4)
        .pipe("bytes", 256)
        .value_with::<Large>("value", [7; 5])
        .array::<u32>("array", 4)
        .lock("lock")
        .participants(4)
}

/// A segment with one object and room for two.
fn pair(name: &str) -> Builder {
    Segment::builder(name).queue::<Message>("queue", 2).participants(2)
}

/// What a fresh segment of [`pair`] must be able to do.
fn works(segment: &Segment) {
    let queue = segment.queue::<Message>("queue").unwrap();
    let (mut tx, mut rx) = (queue.sender().unwrap(), queue.receiver().unwrap());
    for i in 0..5 {
        tx.send_timeout(message(i), PATIENCE).unwrap();
        assert_eq!(rx.recv_timeout(PATIENCE).unwrap(), message(i));
    }
}

pub const VICTIMS: &[Victim] = &[
    ("segment.create", |name| {
        begin();
        let segment = pair(name).create().unwrap();
        end();
        drop(segment);
    }),
    ("segment.open", |name| {
        begin();
        let segment = Segment::open(name).unwrap();
        end();
        drop(segment);
    }),
    ("segment.do-not-find", |name| {
        begin();
        assert!(matches!(Segment::open(name), Err(Error::NotFound { .. })));
        end();
    }),
    ("segment.detach", |name| {
        let segment = Segment::open(name).unwrap();
        begin();
        drop(segment);
        end();
    }),
    ("segment.create-and-drop", |name| {
        let segment = pair(name).unlink(Unlink::Creator).create().unwrap();
        begin();
        drop(segment);
        end();
    }),
    ("segment.unlink", |name| {
        begin();
        Segment::unlink(name).unwrap();
        end();
    }),
    ("segment.recreate", |name| {
        begin();
        let segment = pair(name).stale(Stale::Recreate).open_or_create().unwrap();
        end();
        drop(segment);
    }),
    ("segment.hold-all", |name| {
        let segment = Segment::open(name).unwrap();
        let mut held = Vec::new();
        for name in ["once", "again"] {
            let queue = segment.queue::<Message>(name).unwrap();
            let (mut tx, mut rx) = (queue.sender().unwrap(), queue.receiver().unwrap());
            assert_eq!(*rx.take().unwrap(), message(1));
            std::mem::forget(rx.take().unwrap());
            std::mem::forget(tx.claim().unwrap());
            held.push((tx, rx));
        }
        let _typed = segment.typed_pipe::<Message>("pipe").unwrap();
        let _bytes = segment.pipe("bytes").unwrap();
        let mut array = segment.array::<u32>("array").unwrap();
        let _array = array.lock().unwrap();
        let lock = segment.lock("lock").unwrap();
        let _lock = lock.lock().unwrap();
        let value = segment.value::<Large>("value").unwrap();
        begin();
        value.store([8; 5]);
        end();
    }),
    ("segment.recover", |name| {
        let segment = Segment::open(name).unwrap();
        begin();
        assert_eq!(segment.recover().unwrap(), 1);
        end();
    }),
];

pub fn scenarios() -> Vec<Scenario> {
    let all: &[(&str, Survivor)] = &[
        ("segment.create", create),
        ("segment.open", open),
        ("segment.open over the dead", open_over_the_dead),
        ("segment.open a marked one", open_a_marked_one),
        ("segment.open a doomed one", open_a_doomed_one),
        ("segment.detach", detach),
        ("segment.detach, last one out", last_one_out),
        ("segment.detach, the creator", creator_leaves),
        ("segment.unlink", unlink),
        ("segment.recreate", recreate),
        ("segment.recover", recover),
        ("segment.recover, joining", recover_joining),
    ];
    let mut scenarios: Vec<_> = all.iter().map(|&(name, run)| Scenario::new(name, run)).collect();
    for scenario in &mut scenarios {
        if scenario.name.starts_with("segment.recover") {
            scenario.most = 24;
        }
        // Makers try again when they are taken for debris.
        if ["segment.create", "segment.recreate"].contains(&scenario.name) {
            scenario.most = 1;
        }
    }
    scenarios.push(Scenario { alone: true, most: 1, ..Scenario::new("segment.debris", debris) });
    scenarios
}

/// Private names of makers, dead or alive, of this test or another.
fn private_names() -> Vec<String> {
    let names = std::fs::read_dir("/dev/shm").unwrap();
    let names = names.filter_map(|entry| entry.unwrap().file_name().into_string().ok());
    names.filter(|name| name.starts_with(".slipring-")).collect()
}

/// Creations sweep until none of these names is there any more: those of
/// living makers go by themselves.
fn swept(stage: &Stage<'_>, mut names: Vec<String>) {
    let start = Instant::now();
    while !names.is_empty() {
        drop(pair(&Name::new("sweep")).create().unwrap());
        names.retain(|name| std::path::Path::new("/dev/shm").join(name).exists());
        assert!(start.elapsed() < PATIENCE, "{stage}: left behind: {names:?}");
    }
}

fn create(stage: &Stage<'_>) {
    let death = stage.die("segment.create");
    let left = private_names();
    let segment = if death.passed("create.linked") {
        assert!(matches!(pair(&stage.name).create(), Err(Error::AlreadyExists { .. })));
        stage.soon(|| Segment::open(&stage.name)).unwrap()
    } else {
        assert!(matches!(Segment::open(&stage.name), Err(Error::NotFound { .. })));
        stage.soon(|| pair(&stage.name).create()).unwrap()
    };
    swept(stage, left);
    stage.shows_dead(&segment, &death);
    works(&segment);
    stage.shows_recovered(&segment, &death);
    drop(segment);
    stage.is_gone();
}

/// Debris of an earlier victim, and the next maker, who dies sweeping it. Other
/// programs' makers may come first; then once more.
fn debris(stage: &Stage<'_>) {
    let start = Instant::now();
    while start.elapsed() < 12 * PATIENCE {
        let litter = || {
            stage.die_at("segment.create", "create.reserved", 1);
        };
        let Some(death) = stage.try_to_die("segment.create", "debris.removed", litter) else {
            Segment::unlink(&stage.name).unwrap();
            continue;
        };
        let left = private_names();
        let segment = stage.soon(|| pair(&stage.name).open_or_create()).unwrap();
        swept(stage, left);
        works(&segment);
        stage.shows_recovered(&segment, &death);
        drop(segment);
        return stage.is_gone();
    }
    panic!("others sweep all debris");
}

fn open(stage: &Stage<'_>) {
    let segment = pair(&stage.name).create().unwrap();
    let death = stage.die("segment.open");
    stage.shows_dead(&segment, &death);
    // The table has no more than two places.
    let other = stage.soon(|| Segment::open(&stage.name)).unwrap();
    stage.shows_recovered(&segment, &death);
    works(&segment);
    works(&other);
    drop((segment, other));
    stage.is_gone();
}

fn open_over_the_dead(stage: &Stage<'_>) {
    let segment = pair(&stage.name).create().unwrap();
    stage.die_at("queue.send-two", "claim.slot", 1);
    let death = stage.die("segment.open");
    stage.shows_dead(&segment, &death);
    let other = stage.soon(|| Segment::open(&stage.name)).unwrap();
    stage.shows_recovered(&segment, &death);
    works(&segment);
    works(&other);
    // Advisory: whoever recovered the slot may have died before the count.
    assert!(segment.queue::<Message>("queue").unwrap().counters().abandoned <= 1);
    drop((segment, other));
    stage.is_gone();
}

/// The last one out has left its mark, and died of it.
fn open_a_marked_one(stage: &Stage<'_>) {
    let segment = pair(&stage.name).create().unwrap();
    stage.die_at_when_alone("segment.detach", "retire.marked", segment);
    assert!(stage.name.exists());
    let death = stage.die("segment.open");
    go_on_alone(stage, &death);
}

/// The same, but the name is as good as removed.
fn open_a_doomed_one(stage: &Stage<'_>) {
    let segment = pair(&stage.name).create().unwrap();
    stage.die_at_when_alone("segment.detach", "retire.decided", segment);
    assert!(stage.name.exists());
    let death = stage.die("segment.do-not-find");
    assert_eq!(stage.name.exists(), !death.passed("unlink.removed"));
    let found = stage.soon(|| Segment::open(&stage.name));
    assert!(matches!(found, Err(Error::NotFound { .. })), "{found:?}");
    go_on_alone(stage, &death);
}

/// Nobody alive is attached: whoever comes has a segment that works, and its
/// name goes with the last one.
fn go_on_alone(stage: &Stage<'_>, death: &Death) {
    let segment = stage.soon(|| pair(&stage.name).open_or_create()).unwrap();
    let other = stage.soon(|| Segment::open(&stage.name)).unwrap();
    stage.shows_dead(&segment, death);
    stage.shows_recovered(&segment, death);
    works(&segment);
    works(&other);
    drop((segment, other));
    stage.is_gone();
}

fn detach(stage: &Stage<'_>) {
    let segment = pair(&stage.name).create().unwrap();
    let death = stage.die("segment.detach");
    assert!(stage.name.exists());
    stage.shows_dead(&segment, &death);
    let other = stage.soon(|| Segment::open(&stage.name)).unwrap();
    stage.shows_recovered(&segment, &death);
    works(&segment);
    works(&other);
    drop((segment, other));
    stage.is_gone();
}

fn last_one_out(stage: &Stage<'_>) {
    let mut segment = Some(pair(&stage.name).create().unwrap());
    let death = stage.die_with("segment.detach", |_, victim| {
        drop(segment.take());
        victim.say("go");
    });
    assert_eq!(stage.name.exists(), !death.passed("unlink.removed"));
    go_on_alone(stage, &death);
}

fn creator_leaves(stage: &Stage<'_>) {
    let death = stage.die("segment.create-and-drop");
    assert_eq!(stage.name.exists(), !death.passed("unlink.removed"));
    if !death.passed("unlink.removed") {
        // It is for its creator to remove, who is dead.
        drop(Segment::open(&stage.name).unwrap());
        stage.soon(|| Segment::unlink(&stage.name)).unwrap();
    }
    go_on_alone(stage, &death);
}

fn unlink(stage: &Stage<'_>) {
    let segment = pair(&stage.name).create().unwrap();
    let death = stage.die("segment.unlink");
    assert_eq!(stage.name.exists(), !death.passed("unlink.removed"));
    if !death.passed("unlink.removed") {
        stage.soon(|| Segment::unlink(&stage.name)).unwrap();
    }
    let new = pair(&stage.name).create().unwrap();
    works(&segment);
    drop(segment);
    assert!(stage.name.exists(), "it is the new one's name now");
    works(&new);
    drop(new);
    stage.is_gone();
}

/// All users were killed, and the next one wants the segment anew.
fn recreate(stage: &Stage<'_>) {
    let segment = pair(&stage.name).create().unwrap();
    stage.die_at_when_alone("queue.send-two", "claim.slot", segment);
    let death = stage.die("segment.recreate");
    go_on_alone(stage, &death);
}

/// One died holding everything that there is to hold; then one who recovers
/// that one dies too; and the survivor must finish.
fn recover(stage: &Stage<'_>) {
    two_deaths(stage, "segment.recover", false);
}

/// The same, when the second one is a joiner who takes the dead one's place.
fn recover_joining(stage: &Stage<'_>) {
    two_deaths(stage, "segment.open", true);
}

fn two_deaths(stage: &Stage<'_>, role: &str, full: bool) {
    let builder = everything(&stage.name);
    let segment = if full { builder.participants(2) } else { builder }.create().unwrap();
    let queues = ["once", "again"].map(|name| segment.queue::<Message>(name).unwrap());
    let mut ends: Vec<_> =
        queues.iter().map(|q| (q.sender().unwrap(), q.receiver().unwrap())).collect();
    for (tx, rx) in &mut ends {
        // Has looked for orphans before there were any.
        assert!(matches!(rx.try_recv(), Err(RecvError::Empty)));
        for i in 1..=3 {
            tx.try_send(message(i)).unwrap();
        }
    }
    let mut typed = segment.typed_pipe::<Message>("pipe").unwrap();
    let mut bytes = segment.pipe("bytes").unwrap();
    let holder = stage.die_at("segment.hold-all", "cell.word", 2);
    for (tx, _) in &mut ends {
        // Beside what the dead one claimed.
        tx.try_send(message(4)).unwrap();
    }
    let death = stage.die(role);
    stage.shows_dead(&segment, &death);

    // At most once, message 2 is lost with the one who held it; 1 was released.
    let mut counted = Vec::new();
    for ((tx, rx), queue) in ends.iter_mut().zip(&queues) {
        let once = queue.delivery() == Delivery::AtMostOnce;
        let mut left = if once { vec![3, 4] } else { vec![2, 3, 4] };
        while !left.is_empty() {
            let got = stage.soon(|| rx.take_timeout(PATIENCE)).unwrap();
            assert_eq!(*got, message(got[0]));
            assert_eq!(got.redelivered(), got[0] == 2);
            let at = left.iter().position(|i| *i == got[0]).expect("lost or doubled");
            assert!(got.redelivered() || at == 0 || left[..at] == [2]);
            left.remove(at);
        }
        for i in 100..115 {
            stage.soon(|| tx.send_timeout(message(i), PATIENCE)).unwrap();
            assert_eq!(stage.soon(|| rx.recv_timeout(PATIENCE)).unwrap(), message(i));
        }
        counted.push(queue.counters());
    }
    // Counts are advisory: one short if the recoverer died before its count.
    assert!(counted[0].lost <= 1 && counted[1].redelivered == 1, "{counted:?}");
    assert!(counted.iter().all(|counted| counted.abandoned <= 1), "{counted:?}");

    let end = stage.soon(|| typed.recv_timeout(PATIENCE));
    assert!(matches!(end, Err(RecvError::PeerDied { pid }) if pid == holder), "{end:?}");
    let end = stage.soon(|| bytes.recv_timeout(PATIENCE));
    assert!(matches!(end, Err(RecvError::PeerDied { pid }) if pid == holder), "{end:?}");
    let mut typed_b = stage.soon(|| segment.typed_pipe_end::<Message>("pipe", End::B)).unwrap();
    typed.send(message(1)).unwrap();
    assert_eq!(typed_b.recv_timeout(PATIENCE).unwrap(), message(1));
    let mut bytes_b = stage.soon(|| segment.pipe_end("bytes", End::B)).unwrap();
    bytes_b.send(b"back").unwrap();
    assert_eq!(bytes.recv_timeout(PATIENCE).unwrap(), b"back");

    let value = segment.value::<Large>("value").unwrap();
    assert_eq!(value.load(), [7; 5]);
    assert!(stage.soon(|| value.store_timeout([9; 5], PATIENCE)).unwrap());
    assert_eq!(value.load(), [9; 5]);
    let mut array = segment.array::<u32>("array").unwrap();
    let locked = stage.soon(|| array.lock_timeout(PATIENCE));
    assert!(matches!(locked, Err(LockError::Poisoned(_))));
    drop(locked);
    let lock = segment.lock("lock").unwrap();
    let locked = stage.soon(|| lock.lock_timeout(PATIENCE));
    assert!(matches!(locked, Err(LockError::Poisoned(_))));
    drop(locked);

    stage.shows_recovered(&segment, &death);
    drop((queues, ends, typed, bytes, typed_b, bytes_b, value, array, lock, segment));
    stage.is_gone();
}
