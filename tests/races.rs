//! Races over a segment's name: makers, openers, the last ones out, cleaners;
//! between threads and between processes. And positions that start just below
//! each of their wraps, with a peer in another process.
//!
//! `SLIPRING_ROUNDS` says how many rounds each race has.

mod support;

use slipring::*;
use std::cell::Cell;
use std::path::Path;
use std::time::{Duration, Instant};
use support::{Name, Process, hear, role, say, spawn};

const PATIENCE: Duration = Duration::from_secs(60);

fn rounds() -> u64 {
    std::env::var("SLIPRING_ROUNDS").map_or(100, |rounds| rounds.parse().unwrap())
}

/// One of those that race. They meet at gates, and count together what they
/// found; all of that in a segment of its own.
struct Racer {
    id: u64,
    racers: u64,
    /// What the race is about.
    name: String,
    passed: Value<u64>,
    failed: Value<u64>,
    tallies: Array<u64>,
    gates: Cell<u64>,
    /// The tallies when the last round began.
    before: Cell<[u64; 3]>,
}

impl Racer {
    fn new(control: &str, name: &str, id: u64, racers: u64) -> Racer {
        let control = Segment::open(control).unwrap();
        Racer {
            id,
            racers,
            name: name.to_owned(),
            passed: control.value("passed").unwrap(),
            failed: control.value("failed").unwrap(),
            tallies: control.array("tallies").unwrap(),
            gates: Cell::new(0),
            before: Cell::new([0; 3]),
        }
    }

    /// Waits until everybody is here.
    fn gate(&self) {
        self.gates.set(self.gates.get() + 1);
        self.passed.fetch_add(1);
        while self.passed.load() < self.gates.get() * self.racers {
            assert_eq!(self.failed.load(), 0, "another racer failed");
            std::thread::yield_now();
        }
    }

    /// Counts something.
    fn tally(&self, what: usize) {
        self.tallies.fetch_add(what, 1).unwrap();
    }

    /// What was counted since the last call. Between gates.
    fn tallied(&self) -> [u64; 3] {
        let now = [0, 1, 2].map(|what| self.tallies.get(what).unwrap());
        let before = self.before.replace(now);
        std::array::from_fn(|what| now[what] - before[what])
    }

    fn builder(&self) -> Builder {
        Segment::builder(&self.name).value::<u64>("count")
    }

    fn has_name(&self) -> bool {
        Path::new("/dev/shm").join(&self.name).exists()
    }

    /// All racers have left, and the last one out took the name along.
    fn name_goes(&self) {
        goes(&self.name);
    }
}

/// The name goes with the last one out: at once, unless a tool that looks at
/// every segment is just attached.
fn goes(name: &str) {
    let start = Instant::now();
    while Path::new("/dev/shm").join(name).exists() {
        assert!(start.elapsed() < PATIENCE, "{name} is left behind");
        std::thread::yield_now();
    }
}

impl Drop for Racer {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.failed.store(1);
        }
    }
}

fn count(segment: &Segment) -> Value<u64> {
    segment.value("count").unwrap()
}

type Race = fn(&Racer, u64);

/// Every race, by name.
const RACES: &[(&str, Race)] = &[
    ("makers", makers),
    ("openers against the last one out", openers_against_the_last_one_out),
    ("openers against an unlink", openers_against_an_unlink),
    ("cleaners", cleaners),
    ("comers and goers", comers_and_goers),
    ("recreators", recreators),
    ("recreators and recoverers", recreators_and_recoverers),
];

const RACERS: u64 = 3;

#[test]
#[ignore = "a role of the other tests"]
fn child() {
    let Some((role, words)) = role() else { return };
    if let Some((_, race)) = RACES.iter().find(|(name, _)| *name == role) {
        let racer = Racer::new(&words[0], &words[1], words[2].parse().unwrap(), RACERS);
        return race(&racer, words[3].parse().unwrap());
    }
    peer(&role, &words[0]);
}

/// Runs a race between threads, then between processes.
fn run(race: &str) {
    let name = Name::new("race");
    let rounds = rounds();
    for processes in [false, true] {
        let control = Name::new("control");
        let segment = Segment::builder(&control)
            .value::<u64>("passed")
            .value::<u64>("failed")
            .array::<u64>("tallies", 3)
            .create()
            .unwrap();
        if processes {
            let racers: Vec<Process> = (0..RACERS)
                .map(|id| spawn(race, &[&control, &name, &id.to_string(), &rounds.to_string()]))
                .collect();
            racers.into_iter().for_each(Process::join);
        } else {
            let race = RACES.iter().find(|(name, _)| *name == race).unwrap().1;
            std::thread::scope(|scope| {
                for id in 0..RACERS {
                    let (control, name) = (&control, &name);
                    scope.spawn(move || race(&Racer::new(control, name, id, RACERS), rounds));
                }
            });
        }
        drop(segment);
        goes(&name);
        goes(&control);
    }
}

/// One of several makers wins, the others find its segment; and the last of
/// those who leave together takes the name with it.
fn makers(racer: &Racer, rounds: u64) {
    for _ in 0..rounds {
        racer.gate();
        let segment = match racer.builder().create() {
            Ok(segment) => {
                racer.tally(0);
                segment
            }
            // Complete as soon as it can be seen.
            Err(Error::AlreadyExists { .. }) => Segment::open(&racer.name).unwrap(),
            Err(error) => panic!("{error}"),
        };
        count(&segment).fetch_add(1);
        racer.gate();
        assert_eq!(racer.tallied()[0], 1, "exactly one has made it");
        assert_eq!(count(&segment).load(), racer.racers, "all have the same");
        drop(segment);
        racer.gate();
        racer.name_goes();
    }
}

#[test]
fn one_of_several_makers_wins() {
    run("makers");
}

/// An opener comes in time, and then the name stays, or it finds nothing.
fn openers_against_the_last_one_out(racer: &Racer, rounds: u64) {
    for _ in 0..rounds {
        let mut segment = (racer.id == 0).then(|| racer.builder().create().unwrap());
        racer.gate();
        if racer.id == 0 {
            segment = None;
        } else {
            match Segment::open(&racer.name) {
                Ok(found) => {
                    racer.tally(0);
                    count(&found).fetch_add(1);
                    segment = Some(found);
                }
                Err(Error::NotFound { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
        racer.gate();
        let [opened, ..] = racer.tallied();
        if opened == 0 {
            racer.name_goes();
        }
        if let Some(segment) = &segment {
            assert!(racer.has_name(), "they are in a segment without a name");
            assert_eq!(count(segment).load(), opened, "openers have different segments");
            let again = Segment::open(&racer.name).unwrap();
            assert_eq!(count(&again).load(), opened, "the name leads elsewhere");
        }
        racer.gate();
        drop(segment);
        racer.gate();
        racer.name_goes();
        racer.gate();
    }
}

#[test]
fn openers_come_in_time_or_find_nothing() {
    run("openers against the last one out");
}

/// The name changes hands while others open it. Who has opened the old segment
/// did so before.
fn openers_against_an_unlink(racer: &Racer, rounds: u64) {
    const NEW: u64 = 1 << 32;
    for _ in 0..rounds {
        let old = (racer.id == 0).then(|| racer.builder().create().unwrap());
        racer.gate();
        let segment = if racer.id == 0 {
            Segment::unlink(&racer.name).unwrap();
            assert!(matches!(Segment::open(&racer.name), Err(Error::NotFound { .. })));
            let new = Segment::builder(&racer.name).value_with::<u64>("count", NEW);
            Some(new.create().unwrap())
        } else {
            match Segment::open(&racer.name) {
                Ok(found) => {
                    racer.tally(usize::from(count(&found).fetch_add(1) >= NEW));
                    Some(found)
                }
                Err(Error::NotFound { .. }) => None,
                Err(error) => panic!("{error}"),
            }
        };
        racer.gate();
        let [of_old, of_new, _] = racer.tallied();
        let now = Segment::open(&racer.name).unwrap();
        assert_eq!(count(&now).load(), NEW + of_new);
        if let Some(old) = &old {
            assert_eq!(count(old).load(), of_old);
        }
        if let Some(segment) = &segment {
            assert!([of_old, NEW + of_new].contains(&count(segment).load()));
        }
        racer.gate();
        // The old one's last user must leave the new one's name alone.
        drop((old, segment));
        drop(now);
        racer.gate();
        racer.name_goes();
        racer.gate();
    }
}

#[test]
fn openers_see_the_old_segment_or_the_new_one() {
    run("openers against an unlink");
}

/// What a killed maker has left is swept by several at once, who make segments
/// themselves and must not sweep those.
fn cleaners(racer: &Racer, rounds: u64) {
    let own = format!("{}-{}", racer.name, racer.id);
    for round in 0..rounds {
        let process = u64::from(std::process::id());
        let debris = format!(".slipring-{:016x}", process << 40 | racer.id << 32 | round);
        std::fs::write(Path::new("/dev/shm").join(&debris), [0; 100]).unwrap();
        racer.gate();
        let segment = Segment::builder(&own).value::<u64>("count").create().unwrap();
        count(&segment).store(round);
        racer.gate();
        assert_eq!(count(&Segment::open(&own).unwrap()).load(), round);
        // Or a maker of another program is just about to remove it.
        goes(&debris);
        drop(segment);
        goes(&own);
    }
}

#[test]
fn cleaners_sweep_debris_and_no_segment_that_is_being_made() {
    run("cleaners");
}

/// Those who leave, and perhaps are the last, against those who come. All who
/// are there at a time have the same segment.
fn comers_and_goers(racer: &Racer, rounds: u64) {
    for _ in 0..rounds {
        let segment = racer.builder().open_or_create().unwrap();
        racer.gate();
        let (mine, count) = (racer.id + 1, count(&segment));
        count.fetch_add(mine);
        racer.gate();
        let all: u64 = (1..=racer.racers).sum();
        assert_eq!(count.load() % all, 0, "not all have the same");
        assert!(racer.has_name(), "they are in a segment without a name");
        racer.gate();
    }
    racer.gate();
    racer.name_goes();
}

#[test]
fn comers_and_goers_have_the_same_segment() {
    run("comers and goers");
}

/// Nobody holds the segment, and everybody wants it anew: once is enough.
fn recreators(racer: &Racer, rounds: u64) {
    recreate(racer, rounds, |_| Stale::Recreate);
}

#[test]
fn a_stale_segment_is_recreated_once() {
    run("recreators");
}

/// Some want it as it is: all have the same, the old one or a new one.
fn recreators_and_recoverers(racer: &Racer, rounds: u64) {
    recreate(racer, rounds, |id| if id == 0 { Stale::Recover } else { Stale::Recreate });
}

#[test]
fn a_stale_segment_is_recreated_or_recovered() {
    run("recreators and recoverers");
}

fn recreate(racer: &Racer, rounds: u64, stale: fn(u64) -> Stale) {
    const OLD: u64 = 1 << 32;
    let builder = racer.builder().stale(stale(racer.id));
    for _ in 0..rounds {
        if racer.id == 0 {
            let old = Segment::builder(&racer.name).value_with::<u64>("count", OLD);
            drop(old.unlink(Unlink::Persist).create().unwrap());
        }
        racer.gate();
        let segment = builder.open_or_create().unwrap();
        count(&segment).fetch_add(1);
        racer.gate();
        let found = count(&segment).load();
        let all_want_a_new_one = (0..racer.racers).all(|id| stale(id) == Stale::Recreate);
        assert_eq!(found % OLD, racer.racers, "not all have the same");
        assert!(found < OLD || !all_want_a_new_one, "the old one");
        assert_eq!(count(&Segment::open(&racer.name).unwrap()).load(), found);
        racer.gate();
        drop(segment);
        racer.gate();
        if racer.id == 0 && found >= OLD {
            Segment::unlink(&racer.name).unwrap();
        } else if racer.id == 0 {
            racer.name_goes();
        }
    }
}

/// What the peers of the tests of wraps do.
fn peer(role: &str, name: &str) {
    match role {
        "echo queue" => {
            let segment = Segment::open(name).unwrap();
            let mut rx = segment.queue::<u64>("there").unwrap().receiver().unwrap();
            let mut tx = segment.queue::<u64>("back").unwrap().sender().unwrap();
            say("ready");
            while let Ok(message) = rx.recv() {
                tx.send(message).unwrap();
            }
        }
        "echo pipes" => {
            let segment = Segment::open(name).unwrap();
            let mut typed = segment.typed_pipe::<u64>("typed").unwrap();
            let mut bytes = segment.pipe("bytes").unwrap();
            say("ready");
            while let Ok(message) = typed.recv() {
                typed.send(message).unwrap();
                let message = bytes.recv().unwrap();
                bytes.send(&message).unwrap();
            }
        }
        "claim" => {
            let mut tx = Queue::<u64>::open(name).unwrap().sender().unwrap();
            let _slot = tx.claim().unwrap();
            say("claimed");
            hear();
        }
        "take" => {
            let mut rx = Queue::<u64>::open(name).unwrap().receiver().unwrap();
            let message = rx.take().unwrap();
            say(&message.to_string());
            hear();
        }
        other => panic!("unknown role {other}"),
    }
}

/// Starts a little below each wrap of a ring with so many slots or cells: that
/// of 32 bits, that of the laps (49 bits of them), and that of 64 bits.
fn starts(capacity: u64) -> impl Iterator<Item = u64> {
    [1 << 32, capacity << 49, 0u64].into_iter().flat_map(move |wrap| {
        [1, 2, capacity, 2 * capacity + 1].map(|below| wrap.wrapping_sub(below))
    })
}

#[test]
fn queues_go_over_every_wrap() {
    const SLOTS: usize = 7;
    for start in starts(SLOTS as u64) {
        let name = Name::new("wrap");
        let options = QueueOptions::new(SLOTS).start(start);
        let builder = Segment::builder(&name).queue::<u64>("there", options);
        let segment = builder.queue::<u64>("back", options).create().unwrap();
        let mut tx = segment.queue::<u64>("there").unwrap().sender().unwrap();
        let mut rx = segment.queue::<u64>("back").unwrap().receiver().unwrap();
        let mut echo = spawn("echo queue", &[&name]);
        assert_eq!(echo.hear(), "ready");
        // One at a time, then as many as are on their way.
        for i in 0..20 {
            tx.send(i).unwrap();
            assert_eq!(rx.recv_timeout(PATIENCE).unwrap(), i, "from {start:x}");
        }
        std::thread::scope(|scope| {
            scope.spawn(move || tx.send_many(&(20..500).collect::<Vec<_>>()).unwrap());
            for i in 20..500 {
                assert_eq!(rx.recv_timeout(PATIENCE).unwrap(), i, "from {start:x}");
            }
        });
        assert!(matches!(rx.recv_timeout(PATIENCE), Err(RecvError::Closed)));
        echo.join();
        assert_eq!(segment.queue::<u64>("back").unwrap().len(), 0);
    }
}

/// The slots around a wrap are held by processes that are killed.
#[test]
fn the_dead_are_recovered_over_every_wrap() {
    for delivery in [Delivery::AtMostOnce, Delivery::AtLeastOnce] {
        for start in starts(3) {
            let name = Name::new("dead");
            let options = QueueOptions::new(3).start(start).delivery(delivery);
            let queue = Queue::<u64>::create(&name, options).unwrap();
            let (mut tx, mut rx) = (queue.sender().unwrap(), queue.receiver().unwrap());
            tx.send(1).unwrap();
            let mut taker = spawn("take", &[&name]);
            assert_eq!(taker.hear(), "1");
            let mut claimer = spawn("claim", &[&name]);
            assert_eq!(claimer.hear(), "claimed");
            tx.send(2).unwrap();
            taker.kill();
            claimer.kill();
            let mut got = Vec::new();
            let expected = match delivery {
                Delivery::AtMostOnce => vec![2],
                Delivery::AtLeastOnce => vec![1, 2],
            };
            while got.len() < expected.len() {
                got.push(rx.recv_timeout(PATIENCE).unwrap());
            }
            got.sort_unstable();
            assert_eq!(got, expected, "from {start:x}");
            for i in 10..30 {
                tx.send_timeout(i, PATIENCE).unwrap();
                assert_eq!(rx.recv_timeout(PATIENCE).unwrap(), i, "from {start:x}");
            }
            let counters = queue.counters();
            assert_eq!(counters.lost, u64::from(delivery == Delivery::AtMostOnce));
            assert_eq!(counters.redelivered, u64::from(delivery == Delivery::AtLeastOnce));
            assert_eq!(counters.abandoned, 1);
        }
    }
}

#[test]
fn pipes_go_over_every_wrap() {
    const SLOTS: usize = 5;
    const CELLS: usize = 43;
    for (typed_start, bytes_start) in starts(SLOTS as u64).zip(starts(CELLS as u64)) {
        let name = Name::new("wrap");
        let segment = Segment::builder(&name)
            .typed_pipe::<u64>("typed", PipeOptions::new(SLOTS).start(typed_start))
            .pipe("bytes", PipeOptions::new(8 * CELLS).start(bytes_start))
            .create()
            .unwrap();
        let mut typed = segment.typed_pipe::<u64>("typed").unwrap();
        let mut bytes = segment.pipe("bytes").unwrap();
        let mut echo = spawn("echo pipes", &[&name]);
        assert_eq!(echo.hear(), "ready");
        for i in 0..200 {
            typed.send(i).unwrap();
            assert_eq!(typed.recv_timeout(PATIENCE).unwrap(), i, "from {typed_start:x}");
            // Every length, that of messages in pieces too.
            let message: Vec<u8> = (0..i * 3).map(|at| (at * 7 + i) as u8).collect();
            bytes.send(&message).unwrap();
            assert_eq!(bytes.recv_timeout(PATIENCE).unwrap(), message, "from {bytes_start:x}");
        }
        drop((typed, bytes));
        echo.join();
    }
}
