//! `torture`: two producers and two consumers work as fast as they can and are
//! killed at random moments, and others take their places; what becomes of the
//! queue between them?
//!
//! A *strike* picks a random victim at a random time. Nobody who is struck can
//! have known, and as victims do nothing but operations, most strikes fall
//! within one. When nothing arrives for a while, strikes cease, so that whoever
//! lives has all the time in the world: a queue that still stands still then
//! *hangs*. It is given more time, to see whether it recovers by itself after
//! all.

mod adapters;
mod herd;
mod ledger;
mod report;
mod subjects;
mod victim;

pub use victim::Victim;
pub use victim::run as victim;

use crate::{Result, versions};
use herd::{End, Herd, Order};
use ledger::{Balance, CONSUMERS, LIVES, Ledger, PRODUCERS};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use subjects::{Subject, subjects};
use victim::Role;

#[derive(clap::Args)]
pub struct Options {
    /// Seconds of strikes for each queue
    #[arg(long, default_value_t = 30.0)]
    seconds: f64,
    /// Strikes per second, on average
    #[arg(long, default_value_t = 20.0)]
    kills: f64,
    /// Only queues whose name contains this (may be repeated)
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// Seconds without a message that make a hang; strikes cease after the first
    #[arg(long, default_value_t = 10.0)]
    hang: f64,
    /// Seconds that a hanging queue gets to recover after all
    #[arg(long, default_value_t = 30.0)]
    grace: f64,
    /// The strikes' random numbers start here
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Writes everything that was seen to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Without a message for so long, strikes cease.
const CALM: Duration = Duration::from_secs(1);

/// How often the observer looks.
const LOOK: Duration = Duration::from_micros(500);

/// What a killed consumer may cost.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Delivery {
    /// The message that it had received and not yet noted is lost.
    AtMostOnce,
    /// The message that it had noted and not yet released comes again.
    AtLeastOnce,
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Nothing amiss.
    Passes,
    /// Messages were lost, doubled or torn.
    Damages,
    /// It stood still with everybody alive, and went on after all.
    Stalls,
    /// It stood still with everybody alive.
    Hangs,
    /// Victims ended with errors.
    Fails,
}

/// What was seen.
#[derive(Clone, Debug, Serialize)]
pub struct Sight {
    pub name: &'static str,
    pub version: String,
    pub note: &'static str,
    pub verdict: Verdict,
    pub seconds: f64,
    pub kills: u64,
    /// Of the producers that were killed, those within a call that sends.
    pub killed_producers: u64,
    pub killed_sending: u64,
    pub killed_consumers: u64,
    /// Victims that ended by themselves with an error, and what the first said.
    pub failed: u64,
    pub complaint: Option<String>,
    pub balance: Balance,
    /// Losses and doubles that the kills explain.
    pub lost_allowed: u64,
    pub doubled_allowed: u64,
    pub longest_stall_ms: f64,
    /// Kills until it first stood still for long, and how often it did.
    pub stalled_after_kills: Option<u64>,
    pub stalls: u64,
}

/// Names that are this run's own, and removed at its end.
struct Scratch {
    name: String,
    folder: PathBuf,
    ledger: PathBuf,
}

impl Scratch {
    fn new(number: usize) -> Result<Scratch> {
        let name = format!("slipring-torture-{}-{number}", std::process::id());
        let folder = std::env::temp_dir().join(&name);
        std::fs::create_dir(&folder)?;
        // Where memory is, as its pages are written by everybody all the time.
        let ledger = Path::new("/dev/shm").join(format!("{name}-ledger"));
        Ok(Scratch { name, folder, ledger })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.ledger);
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Small and seeded, so that a run's strikes can be had again.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// Between zero and one.
    fn part(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// A place that some victim always fills.
struct Post {
    role: Role,
    number: usize,
    life: u64,
    pid: i32,
    struck: bool,
}

/// The observer of one queue.
struct Observer<'a> {
    options: &'a Options,
    ledger: Ledger,
    herd: Box<dyn Herd>,
    posts: Vec<Post>,
    /// Lives so far: of producers, of consumers.
    lives: [u64; 2],
    random: Random,
    sight: Sight,
    seen: u64,
    moved: Instant,
}

impl Observer<'_> {
    fn start(&mut self, role: Role, number: usize) -> Result<Post> {
        let life = self.lives[role as usize];
        self.lives[role as usize] += 1;
        let pid = self.herd.start(Order { role, number, life })?;
        Ok(Post { role, number, life, pid, struck: false })
    }

    /// Looks at what has arrived; how long nothing has.
    fn look(&mut self) -> Duration {
        let now = self.ledger.progress();
        let still = self.moved.elapsed();
        self.sight.longest_stall_ms = self.sight.longest_stall_ms.max(1e3 * still.as_secs_f64());
        if now == self.seen {
            return still;
        }
        (self.seen, self.moved) = (now, Instant::now());
        Duration::ZERO
    }

    /// Learns who has died, and, with `replace`, puts others in their places.
    fn tend(&mut self, replace: bool) -> Result<()> {
        for (pid, end) in self.herd.ended()? {
            let Some(at) = self.posts.iter().position(|post| post.pid == pid) else { continue };
            let post = self.posts.remove(at);
            match (end, post.role) {
                (End::Killed, Role::Producer) if post.struck => {
                    self.sight.killed_producers += 1;
                    self.sight.killed_sending += u64::from(self.ledger.died_sending(post.life));
                }
                (End::Killed, Role::Consumer) if post.struck => self.sight.killed_consumers += 1,
                (End::Done, _) => {}
                _ => self.sight.failed += 1,
            }
            if replace {
                let post = self.start(post.role, post.number)?;
                self.posts.push(post);
            }
        }
        Ok(())
    }

    /// Kills a random victim.
    fn strike(&mut self) {
        // Nine of ten strikes pick one that is at work, the tenth anybody, who
        // may be just attaching.
        let anybody = self.random.part() < 0.1;
        let ledger = &self.ledger;
        let mut candidates: Vec<&mut Post> = self
            .posts
            .iter_mut()
            .filter(|post| !post.struck)
            .filter(|post| {
                anybody || ledger.was_up(victim::index(post.role, post.number), post.life)
            })
            .collect();
        if candidates.is_empty() {
            return;
        }
        let chosen = self.random.next() as usize % candidates.len();
        let post = &mut candidates[chosen];
        post.struck = true;
        // SAFETY: a child that has not been waited for, or whose keeper has not:
        // the number is still its own.
        unsafe { libc::kill(post.pid, libc::SIGKILL) };
        self.sight.kills += 1;
    }

    /// The torture itself.
    fn run(&mut self) -> Result<()> {
        for number in 0..PRODUCERS {
            let post = self.start(Role::Producer, number)?;
            self.posts.push(post);
        }
        for number in 0..CONSUMERS {
            let post = self.start(Role::Consumer, number)?;
            self.posts.push(post);
        }
        let length = Duration::try_from_secs_f64(self.options.seconds)?;
        let hang = Duration::try_from_secs_f64(self.options.hang)?.max(2 * CALM);
        let grace = hang + Duration::try_from_secs_f64(self.options.grace)?;
        // The clock of strikes starts when messages flow.
        self.moved = Instant::now();
        while self.look() > Duration::ZERO {
            self.tend(true)?;
            if self.moved.elapsed() > hang {
                return Err("nothing ever arrived".into());
            }
            std::thread::sleep(LOOK);
        }
        self.sight.longest_stall_ms = 0.0;
        let start = Instant::now();
        let mut next = start;
        let mut standing = false;
        // Of use to nobody: victims that fail at once, again and again.
        while self.sight.failed < 100 && self.lives[0] < LIVES {
            let still = self.look();
            let over = start.elapsed() >= length;
            // What stands still at the end is watched until it is known why.
            if over && still < CALM {
                break;
            }
            if !over && still < CALM && Instant::now() >= next {
                self.strike();
                let pause = 2.0 * self.random.part() / self.options.kills;
                next = Instant::now() + Duration::try_from_secs_f64(pause)?;
            }
            self.tend(true)?;
            if still > hang && !standing {
                standing = true;
                self.sight.stalls += 1;
                self.sight.stalled_after_kills.get_or_insert(self.sight.kills);
                eprintln!("  stands still after {} kills", self.sight.kills);
            }
            if still > grace {
                self.sight.verdict = Verdict::Hangs;
                break;
            }
            if standing && still == Duration::ZERO {
                standing = false;
                self.sight.verdict = Verdict::Stalls;
                eprintln!("  goes on");
            }
            std::thread::sleep(LOOK);
        }
        self.sight.seconds = start.elapsed().as_secs_f64();
        Ok(())
    }

    /// Lets everything arrive that will, and ends all victims.
    fn finish(&mut self) -> Result<()> {
        const QUIET: Duration = Duration::from_millis(1500);
        self.ledger.stop_producers();
        // Consumers may have been struck last.
        let within = Instant::now() + Duration::from_secs(60);
        self.moved = Instant::now();
        let stall = self.sight.longest_stall_ms;
        while self.look() < QUIET && Instant::now() < within {
            self.tend(false)?;
            for number in 0..CONSUMERS {
                let there = |post: &Post| post.role == Role::Consumer && post.number == number;
                if !self.posts.iter().any(there) {
                    let post = self.start(Role::Consumer, number)?;
                    self.posts.push(post);
                }
            }
            std::thread::sleep(LOOK);
        }
        self.sight.longest_stall_ms = stall;
        self.ledger.stop_consumers();
        let within = Instant::now() + Duration::from_secs(1);
        while !self.posts.is_empty() && Instant::now() < within {
            self.tend(false)?;
            std::thread::sleep(LOOK);
        }
        // Who waits without end is ended; that is not counted.
        for post in &self.posts {
            // SAFETY: as in `strike`.
            unsafe { libc::kill(post.pid, libc::SIGKILL) };
        }
        let within = Instant::now() + Duration::from_secs(10);
        while !self.posts.is_empty() && Instant::now() < within {
            for (pid, _) in self.herd.ended()? {
                self.posts.retain(|post| post.pid != pid);
            }
            std::thread::sleep(LOOK);
        }
        Ok(())
    }
}

/// Tortures one queue.
fn torture(options: &Options, subject: &Subject, scratch: &Scratch) -> Result<Sight> {
    let ledger = Ledger::create(&scratch.ledger)?;
    let herd = (subject.start)(scratch)?;
    let sight = Sight {
        name: subject.name,
        version: (subject.version)(&scratch.folder),
        note: subject.note,
        verdict: Verdict::Passes,
        seconds: 0.0,
        kills: 0,
        killed_producers: 0,
        killed_sending: 0,
        killed_consumers: 0,
        failed: 0,
        complaint: None,
        balance: Balance::default(),
        lost_allowed: 0,
        doubled_allowed: 0,
        longest_stall_ms: 0.0,
        stalled_after_kills: None,
        stalls: 0,
    };
    let mut observer = Observer {
        options,
        ledger,
        herd,
        posts: Vec::new(),
        lives: [0; 2],
        random: Random(options.seed),
        sight,
        seen: 0,
        moved: Instant::now(),
    };
    let ran = observer.run();
    let complaints = std::fs::read_to_string(scratch.folder.join("complaints")).unwrap_or_default();
    let complaint = complaints.lines().last().map(str::to_owned);
    if let Err(error) = ran {
        return Err(
            format!("{error}{}", complaint.map_or("".into(), |it| ": ".to_owned() + &it)).into()
        );
    }
    observer.finish()?;
    let mut sight = observer.sight;
    sight.complaint = complaint.filter(|_| sight.failed > 0);
    sight.balance = observer.ledger.balance(observer.lives[0]);
    match subject.delivery {
        Delivery::AtMostOnce => sight.lost_allowed = sight.killed_consumers,
        Delivery::AtLeastOnce => sight.doubled_allowed = sight.killed_consumers,
    }
    let Balance { lost, doubled, torn, .. } = sight.balance;
    if sight.verdict == Verdict::Passes {
        if torn > 0 || lost > sight.lost_allowed || doubled > sight.doubled_allowed {
            sight.verdict = Verdict::Damages;
        }
        if sight.failed > 0 {
            sight.verdict = Verdict::Fails;
        }
    }
    Ok(sight)
}

pub fn run(options: &Options) -> Result<()> {
    if options.kills <= 0.0 {
        return Err("--kills wants more than zero".into());
    }
    let chosen = |name: &str| {
        let name = name.to_lowercase();
        options.only.is_empty()
            || options.only.iter().any(|part| name.contains(&part.to_lowercase()))
    };
    let mut sights = Vec::new();
    let mut skipped = Vec::new();
    let mut bad = 0;
    for (number, subject) in subjects().iter().enumerate().filter(|(_, it)| chosen(it.name)) {
        let scratch = Scratch::new(number)?;
        eprintln!("{}", subject.name);
        match torture(options, subject, &scratch) {
            Ok(sight) => {
                eprintln!("  {}", report::line(&sight));
                bad += usize::from(subject.must_pass && sight.verdict != Verdict::Passes);
                sights.push(sight);
            }
            Err(error) => {
                eprintln!("  skipped: {error}");
                bad += usize::from(subject.must_pass);
                skipped.push((subject.name, error.to_string()));
            }
        }
    }
    print!("{}", report::table(options, &sights, &skipped));
    if let Some(path) = &options.json {
        let all = serde_json::json!({
            "machine": versions::of_machine(),
            "kills_per_second": options.kills,
            "seed": options.seed,
            "queues": sights,
            "skipped": skipped,
        });
        std::fs::write(path, serde_json::to_string_pretty(&all)?)?;
    }
    match bad {
        0 => Ok(()),
        _ => Err("what must pass did not".into()),
    }
}
