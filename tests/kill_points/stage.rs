//! Victims and survivors: how a run is made, and what all runs check.

use crate::support::{Name, Process, hear, say, spawn};
use slipring::{Segment, points};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::os::unix::process::ExitStatusExt;
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

/// Far more than any wait of a survivor may take, so that no verdict depends
/// on timing.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// A victim's role, and what it does, being given the segment's name.
pub type Victim = (&'static str, fn(&str));

/// What a survivor does in one run, its victim's life included.
pub type Survivor = fn(&Stage<'_>);

/// An operation that victims die in, and what survivors make of it.
pub struct Scenario {
    pub name: &'static str,
    /// The survivor's part.
    pub run: Survivor,
    /// Up to which firing of one point victims die, counted from 1.
    pub most: u32,
    /// Die at these points alone; at all when there are none. For scenarios in
    /// which the survivor works beside the victim, so that the rest varies.
    pub only: &'static [&'static str],
    /// Not beside others.
    pub alone: bool,
}

impl Scenario {
    pub const fn new(name: &'static str, run: Survivor) -> Scenario {
        Scenario { name, run, most: 4, only: &[], alone: false }
    }
}

/// Where a victim dies, and what it has passed by then.
#[derive(Clone)]
pub struct Choice {
    point: String,
    nth: u32,
    trace: Vec<String>,
}

/// What all runs together have seen.
#[derive(Default)]
pub struct Ledger {
    /// Of the undisturbed runs, by scenario.
    traces: Mutex<BTreeMap<&'static str, Vec<String>>>,
    fired: Mutex<BTreeSet<String>>,
    signals: Mutex<BTreeMap<i32, usize>>,
    longest: Mutex<Duration>,
}

impl Ledger {
    /// Every point of the scenario's trace, up to its limit.
    pub fn choices(&self, scenario: &Scenario) -> Vec<Choice> {
        let traces = self.traces.lock().unwrap();
        let Some(trace) = traces.get(scenario.name) else { return Vec::new() };
        let mut counts = BTreeMap::new();
        let mut choices = Vec::new();
        for (at, point) in trace.iter().enumerate() {
            let nth = counts.entry(point).or_insert(0);
            *nth += 1;
            let wanted = if scenario.only.is_empty() {
                scenario.alone || !point.starts_with("debris.")
            } else {
                scenario.only.contains(&point.as_str())
            };
            if wanted && *nth <= scenario.most {
                let trace = trace[..=at].to_vec();
                choices.push(Choice { point: point.clone(), nth: *nth, trace });
            }
        }
        choices
    }

    /// Forgets the trace of a maker that was taken for debris by another, and
    /// tried again; whether it was one.
    pub fn forget_disturbed(&self, scenario: &Scenario) -> bool {
        let mut traces = self.traces.lock().unwrap();
        let made = |trace: &Vec<String>| trace.iter().filter(|p| *p == "create.made").count();
        let disturbed = traces.get(scenario.name).is_some_and(|trace| made(trace) > 1);
        if disturbed {
            traces.remove(scenario.name);
        }
        disturbed
    }

    pub fn fired(&self) -> BTreeSet<String> {
        self.fired.lock().unwrap().clone()
    }

    pub fn count(&self, signal: i32) -> usize {
        self.signals.lock().unwrap().get(&signal).copied().unwrap_or(0)
    }

    pub fn longest(&self) -> Duration {
        *self.longest.lock().unwrap()
    }
}

/// One run of a scenario.
pub struct Stage<'a> {
    pub name: Name,
    scenario: &'a Scenario,
    choice: Option<Choice>,
    ledger: &'a Ledger,
    /// Victims of earlier acts, which died at a point of the scenario's choice.
    earlier: RefCell<Vec<u32>>,
    main_act: Cell<bool>,
}

/// How a victim ended.
pub struct Death {
    pub pid: u32,
    trace: Vec<String>,
}

impl Death {
    /// How often it passed the point.
    pub fn count(&self, point: &str) -> usize {
        self.trace.iter().filter(|passed| *passed == point).count()
    }

    pub fn passed(&self, point: &str) -> bool {
        self.count(point) > 0
    }

    /// How often it passed any point whose name starts so.
    pub fn count_all(&self, prefix: &str) -> usize {
        self.trace.iter().filter(|passed| passed.starts_with(prefix)).count()
    }
}

/// A victim that has stopped itself.
pub struct Stopped {
    process: Process,
    trace: Vec<String>,
}

impl fmt::Display for Stage<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.scenario.name;
        match &self.choice {
            Some(Choice { point, nth, .. }) => write!(f, "{name}: {nth}. {point}"),
            None => write!(f, "{name}: undisturbed"),
        }
    }
}

impl<'a> Stage<'a> {
    pub fn new(scenario: &'a Scenario, choice: Option<Choice>, ledger: &'a Ledger) -> Self {
        Stage {
            name: Name::new("point"),
            scenario,
            choice,
            ledger,
            earlier: RefCell::new(Vec::new()),
            main_act: Cell::new(false),
        }
    }

    fn start(&self, role: &str, at: Option<(&str, u32)>, signal: i32) -> Process {
        let (point, nth) = at.unwrap_or_default();
        spawn(role, &[&self.name, point, &nth.to_string(), &signal.to_string()])
    }

    /// The choice of this run, for the one act that it is about.
    fn main_act(&self) -> Option<(&str, u32)> {
        assert!(!self.main_act.replace(true), "a scenario is about one victim");
        self.choice.as_ref().map(|choice| (choice.point.as_str(), choice.nth))
    }

    /// Whether the victim comes to its end.
    pub fn is_undisturbed(&self) -> bool {
        self.choice.is_none()
    }

    /// Reads the victim's words to the end, answering them.
    fn listen(process: &mut Process, mut answer: impl FnMut(&str, &mut Process)) -> Heard {
        let mut heard = Heard::default();
        while let Some(word) = process.hear_or_end() {
            match word.split_once(' ') {
                Some(("trace", trace)) => {
                    heard.trace = Some(trace.split_whitespace().map(str::to_owned).collect());
                }
                _ => {
                    answer(&word, process);
                    heard.words.push(word);
                }
            }
        }
        heard
    }

    /// Runs the victim until it dies where this run wants it. Every word of
    /// its is answered, the first of which is "ready".
    pub fn die_with(&self, role: &str, answer: impl FnMut(&str, &mut Process)) -> Death {
        let at = self.main_act();
        let mut process = self.start(role, at, libc::SIGKILL);
        let heard = Self::listen(&mut process, answer);
        self.dead(&mut process, heard.trace)
    }

    /// The same, when the victim only wants to be told to begin.
    pub fn die(&self, role: &str) -> Death {
        self.die_with(role, |_, process| process.say("go"))
    }

    /// The same, when another program may be quicker than the victim, so that it
    /// does not pass the points that it should, one of which is `due`. `None`
    /// then. `prepare` runs when the victim is ready to begin.
    pub fn try_to_die(&self, role: &str, due: &str, mut prepare: impl FnMut()) -> Option<Death> {
        let at = self.choice.as_ref().map(|choice| (choice.point.as_str(), choice.nth));
        let mut process = self.start(role, at, libc::SIGKILL);
        let heard = Self::listen(&mut process, |_, process| {
            prepare();
            process.say("go");
        });
        let has_passed = match (&self.choice, &heard.trace) {
            (None, Some(trace)) => trace.iter().any(|point| point == due),
            (_, trace) => trace.is_none(),
        };
        if has_passed {
            return Some(self.dead(&mut process, heard.trace));
        }
        process.end();
        None
    }

    fn dead(&self, process: &mut Process, trace: Option<Vec<String>>) -> Death {
        let status = process.end();
        assert_eq!(status.signal(), Some(libc::SIGKILL), "the victim failed: {status}");
        let trace = self.judge_trace(trace, libc::SIGKILL);
        Death { pid: process.pid(), trace }
    }

    /// What the victim has passed, by its own account or, when it died before
    /// it could give one, by that of the undisturbed run.
    fn judge_trace(&self, told: Option<Vec<String>>, signal: i32) -> Vec<String> {
        let Some(choice) = &self.choice else {
            let trace = told.expect("an undisturbed victim tells its trace");
            self.ledger.fired.lock().unwrap().extend(trace.iter().cloned());
            let old = self.ledger.traces.lock().unwrap().insert(self.scenario.name, trace.clone());
            assert!(old.is_none(), "two scenarios have one name");
            return trace;
        };
        assert!(told.is_none(), "the victim did not pass the point");
        *self.ledger.signals.lock().unwrap().entry(signal).or_default() += 1;
        choice.trace.clone()
    }

    /// A victim of an earlier act: it dies at this point in every run.
    pub fn die_at(&self, role: &str, point: &str, nth: u32) -> u32 {
        self.die_at_after(role, point, nth, || {})
    }

    /// The same, when nobody else has the segment any more.
    pub fn die_at_when_alone(&self, role: &str, point: &str, segment: Segment) -> u32 {
        let mut segment = Some(segment);
        self.die_at_after(role, point, 1, || drop(segment.take()))
    }

    fn die_at_after(&self, role: &str, point: &str, nth: u32, mut ready: impl FnMut()) -> u32 {
        let mut process = self.start(role, Some((point, nth)), libc::SIGKILL);
        let heard = Self::listen(&mut process, |_, process| {
            ready();
            process.say("go");
        });
        let status = process.end();
        assert!(heard.trace.is_none() && status.signal() == Some(libc::SIGKILL), "{status}");
        self.ledger.fired.lock().unwrap().insert(point.to_owned());
        self.earlier.borrow_mut().push(process.pid());
        process.pid()
    }

    /// A victim whose words and end are the scenario's business. It is told to
    /// begin. What it has passed comes from [`Stage::ended`].
    pub fn victim(&self, role: &str) -> Process {
        let at = self.main_act();
        let mut process = self.start(role, at, libc::SIGKILL);
        assert_eq!(process.hear(), "ready");
        process.say("go");
        process
    }

    /// What a victim of [`Stage::victim`] has passed, who told this last.
    pub fn ended(&self, pid: u32, told: Option<&str>) -> Death {
        let told = told.map(|trace| trace.split_whitespace().map(str::to_owned).collect());
        Death { pid, trace: self.judge_trace(told, libc::SIGKILL) }
    }

    /// Runs the victim until it stops where this run wants it; at its end, in
    /// the undisturbed run. `prepare` runs when the victim is ready to begin.
    pub fn stop(&self, role: &str, prepare: impl FnOnce()) -> Stopped {
        let at = self.main_act();
        let mut process = self.start(role, at, libc::SIGSTOP);
        assert_eq!(process.hear(), "ready");
        prepare();
        process.say("go");
        let mut trace = None;
        if self.choice.is_none() {
            let word = process.hear();
            let told = word.strip_prefix("trace ").expect("the trace comes first");
            trace = Some(told.split_whitespace().map(str::to_owned).collect());
        }
        assert!(process.has_stopped(), "the victim did not pass the point");
        let trace = self.judge_trace(trace, libc::SIGSTOP);
        Stopped { process, trace }
    }

    /// Another process that stops at this point in every run.
    pub fn stop_at(&self, role: &str, point: &str, prepare: impl FnOnce()) -> Stopped {
        let mut process = self.start(role, Some((point, 1)), libc::SIGSTOP);
        assert_eq!(process.hear(), "ready");
        prepare();
        process.say("go");
        assert!(process.has_stopped(), "{role} did not pass {point}");
        Stopped { process, trace: Vec::new() }
    }

    /// Runs what must not take long because of a death.
    pub fn soon<R>(&self, f: impl FnOnce() -> R) -> R {
        let start = Instant::now();
        let result = f();
        let took = start.elapsed();
        assert!(took < PATIENCE, "took {took:?}");
        let mut longest = self.ledger.longest.lock().unwrap();
        *longest = took.max(*longest);
        result
    }

    /// The dead are shown as such, or have been recovered.
    pub fn shows_dead(&self, segment: &Segment, death: &Death) {
        for participant in segment.participants().unwrap() {
            assert!(participant.pid != death.pid || !participant.alive, "{participant:?}");
        }
    }

    /// Once somebody has looked after the dead, nothing of them is left.
    pub fn shows_recovered(&self, segment: &Segment, death: &Death) {
        segment.recover().unwrap();
        assert_eq!(segment.recover().unwrap(), 0);
        for participant in segment.participants().unwrap() {
            let dead = participant.pid == death.pid
                || self.earlier.borrow().contains(&participant.pid)
                || !participant.alive;
            assert!(!dead, "{participant:?}");
        }
    }

    /// Nobody is attached any more, and no name is left; at once, unless a tool
    /// that looks at every segment is just attached.
    pub fn is_gone(&self) {
        let start = Instant::now();
        while self.name.exists() {
            assert!(start.elapsed() < PATIENCE, "the name is left behind");
            std::thread::yield_now();
        }
    }
}

impl Stopped {
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    pub fn count(&self, point: &str) -> usize {
        self.trace.iter().filter(|passed| *passed == point).count()
    }

    /// Nobody takes it for dead.
    pub fn is_alive_in(&self, segment: &Segment) {
        assert_eq!(segment.recover().unwrap(), 0, "a stopped process was recovered");
        let list = segment.participants().unwrap();
        let victim = list.iter().find(|participant| participant.pid == self.pid());
        assert!(victim.is_none_or(|victim| victim.alive), "{victim:?}");
    }

    /// Lets it go on, and calls `meanwhile` until it has ended well; the words
    /// that it said.
    pub fn resume(self, mut meanwhile: impl FnMut()) -> Vec<String> {
        let mut process = self.process;
        process.signal(libc::SIGCONT);
        let waiting = std::thread::spawn(move || {
            let heard = Stage::listen(&mut process, |_, _| {});
            let status = process.end();
            assert!(status.success(), "the victim failed: {status}");
            heard.words
        });
        while !waiting.is_finished() {
            meanwhile();
            std::thread::yield_now();
        }
        waiting.join().unwrap()
    }
}

#[derive(Default)]
struct Heard {
    words: Vec<String>,
    trace: Option<Vec<String>>,
}

/// In the victim: where to die.
static CHOSEN: OnceLock<(String, u32, i32)> = OnceLock::new();

/// In the victim: learns it from the words of the role.
pub fn choose(words: &[String]) {
    let choice = (words[1].clone(), words[2].parse().unwrap(), words[3].parse().unwrap());
    CHOSEN.set(choice).unwrap();
}

/// In the victim: from here on it may die.
pub fn begin() {
    say("ready");
    assert_eq!(hear(), "go");
    let (point, nth, signal) = CHOSEN.get().unwrap();
    points::start((!point.is_empty()).then_some((point.as_str(), *nth, *signal)));
}

/// In the victim: all is done that it may die in. Tells the trace, and dies or
/// stops here, unless it has been stopped before and goes on.
pub fn end() {
    let trace = points::stop();
    let (point, _, signal) = CHOSEN.get().unwrap();
    if point.is_empty() || *signal == libc::SIGKILL {
        say(&format!("trace {}", trace.join(" ")));
        points::raise(*signal);
    }
}
