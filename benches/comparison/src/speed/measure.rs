//! The measurements themselves, the same for every system.

use super::channel::{
    About, BATCH, COUNT_BITS, Channel, Delivery, Idle, Place, Rx, STOP, Shape, System, Tx, head,
};
use super::floors;
use super::roles::{self, Board, Received, Saw, Side, Trips};
use crate::Result;
use hdrhistogram::Histogram;
use std::cmp::Ordering;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

/// How long, and where.
#[derive(Clone, Copy)]
pub struct Run<'a> {
    pub name: &'a str,
    pub length: Duration,
    pub cpus: &'a [usize],
}

impl Run<'_> {
    /// What is not measured: caches, pages, clocks and branches warm up.
    pub fn warm_up(&self) -> Duration {
        (self.length / 5).min(Duration::from_millis(200))
    }

    pub fn patience(&self) -> Duration {
        3 * self.length + Duration::from_secs(30)
    }

    /// The processor of a side; with fewer processors than sides, producers and
    /// consumers take turns with their own kind.
    pub fn cpu(&self, side: usize, producers: usize, consumers: usize) -> usize {
        let cpus = self.cpus;
        if cpus.len() >= producers + consumers {
            return cpus[side];
        }
        cpus[usize::from(side >= producers) % cpus.len()]
    }
}

/// Messages that a channel can hold: 8 KiB at least, 1 MiB at most.
pub fn capacity(words: usize) -> usize {
    ((1 << 17) / words).clamp(16, 1024)
}

/// Messages from one look at the clock to the next. A look takes as long as ten
/// short messages, and lets the processor run dry.
fn between_looks(words: usize) -> u64 {
    ((1 << 12) / words).clamp(1, 1 << 9) as u64
}

/// How long the pause of [`Kind::Wake`](super::channel::Kind::Wake) is: longer
/// than anybody spins.
pub const PAUSE: Duration = Duration::from_micros(300);

/// Counts the times of round trips, after a warm-up and until the end.
pub struct Stopwatch {
    histogram: Histogram<u64>,
    begin: Instant,
    warm: Duration,
    length: Duration,
}

impl Stopwatch {
    pub fn start(run: Run) -> Result<Stopwatch> {
        let (warm, length) = (run.warm_up(), run.length);
        let histogram = Histogram::new_with_bounds(1, 10_000_000_000, 3)?;
        Ok(Stopwatch { histogram, begin: Instant::now(), warm, length })
    }

    /// Notes a round trip; whether to go on.
    #[inline(always)]
    pub fn note(&mut self, from: Instant, to: Instant) -> ControlFlow<()> {
        let since = to.duration_since(self.begin);
        if since > self.warm {
            self.histogram.saturating_record(to.duration_since(from).as_nanos() as u64);
        }
        if since > self.warm + self.length {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    }

    pub fn stop(self) -> Saw {
        let (all, tick) = (self.histogram, floors::tick());
        let at = |part| between_ticks(&all, part, tick);
        Saw::Trips(Trips {
            count: all.len(),
            mean: all.mean(),
            min: all.min(),
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: all.max(),
        })
    }
}

/// The time below which this part of all lie, for a clock that goes on in steps, as
/// processors' counters do: of times that come out at one tick, as many lie in each part of
/// the step around it.
fn between_ticks(all: &Histogram<u64>, part: f64, tick: u64) -> u64 {
    let nth = |time: u64| (time + tick / 2) / tick;
    let at = nth(all.value_at_quantile(part));
    let (mut before, mut here) = (0, 0);
    for times in all.iter_recorded() {
        match nth(times.value_iterated_to()).cmp(&at) {
            Ordering::Less => before += times.count_at_value(),
            Ordering::Equal => here += times.count_at_value(),
            Ordering::Greater => break,
        }
    }
    let into = (part * all.len() as f64 - before as f64) / here.max(1) as f64;
    ((at as f64 - 0.5 + into.clamp(0.0, 1.0)) * tick as f64).round() as u64
}

/// Measures what arrives, in slices of time, after a warm-up. See [`Tally`] for the
/// count.
pub struct Meter {
    received: Received,
    warm: Duration,
    slice: Duration,
    every: u64,
    /// When counting began, and at what count.
    begin: Option<(Instant, u64)>,
    slice_begin: (Instant, u64),
    last: (Instant, u64),
}

impl Meter {
    /// `words` in a message, which says how often to look at the clock.
    pub fn start(run: Run, words: usize) -> Meter {
        let now = Instant::now();
        Meter {
            received: Received::default(),
            warm: run.warm_up(),
            slice: (run.length / 20).max(Duration::from_millis(5)),
            every: between_looks(words),
            begin: None,
            slice_begin: (now, 0),
            last: (now, 0),
        }
    }

    /// Looks at the clock after so many messages; at how many to do so again.
    #[inline(never)]
    pub fn look(&mut self, all: u64) -> u64 {
        let now = Instant::now();
        self.last = (now, all);
        let since = now.duration_since(self.slice_begin.0);
        match self.begin {
            None if since < self.warm => {}
            None => {
                self.begin = Some((now, all));
                self.slice_begin = (now, all);
            }
            Some(_) if since < self.slice => {}
            Some(_) => {
                let messages = (all - self.slice_begin.1) as f64;
                self.received.slices.push(messages / since.as_secs_f64());
                self.slice_begin = (now, all);
            }
        }
        all + self.every
    }

    /// Ends, after so many messages and losses.
    pub fn stop(mut self, all: u64, lost: u64) -> Saw {
        (self.received.all, self.received.lost) = (all, lost);
        // One of several consumers may have got nothing.
        if let Some((begin, before)) = self.begin {
            self.received.messages = self.last.1 - before;
            self.received.seconds = self.last.0.duration_since(begin).as_secs_f64();
        }
        self.received.slices.sort_by(f64::total_cmp);
        Saw::Received(self.received)
    }
}

/// How a side of a round trip waits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    Polling,
    Blocking,
    /// Blocking, after a pause.
    Paused,
}

#[inline(always)]
fn send<const W: usize>(tx: &mut impl Tx<W>, head: u64, wait: Wait, idle: Idle) {
    if wait == Wait::Polling {
        idle.until(|| tx.try_send(head).then_some(()));
    } else {
        tx.send(head);
    }
}

#[inline(always)]
fn recv<const W: usize>(rx: &mut impl Rx<W>, wait: Wait, idle: Idle) -> u64 {
    if wait == Wait::Polling { idle.until(|| rx.try_recv()) } else { rx.recv() }
}

/// Round trips over two channels.
pub fn trips<S: System, const W: usize>(run: Run, wait: Wait) -> Result<Trips> {
    let about = &S::ABOUT;
    let blocking = wait != Wait::Polling;
    let (capacity, idle) = (S::trip_slots(W), Idle::new(false));
    let shape = Shape { producers: 1, consumers: 1, blocking, capacity, idle };
    let there = S::Channel::<W>::make(&format!("{}-there", run.name), shape)?;
    let back = S::Channel::<W>::make(&format!("{}-back", run.name), shape)?;
    let client = |board: &Board| {
        let (mut tx, mut rx) = (there.tx()?, back.rx()?);
        board.meet(2);
        rx.settle();
        board.meet(4);
        let mut watch = Stopwatch::start(run)?;
        for number in 0.. {
            if wait == Wait::Paused {
                let until = Instant::now() + PAUSE;
                while Instant::now() < until {
                    std::hint::spin_loop();
                }
            }
            let from = Instant::now();
            send(&mut tx, number, wait, idle);
            let answer = recv(&mut rx, wait, idle);
            let to = Instant::now();
            assert_eq!(answer, number, "another message came back");
            if watch.note(from, to).is_break() {
                break;
            }
        }
        send(&mut tx, STOP, wait, idle);
        // Nobody leaves while the other still uses the system.
        recv(&mut rx, wait, idle);
        Ok(watch.stop())
    };
    let server = |board: &Board| {
        let (mut tx, mut rx) = (back.tx()?, there.rx()?);
        board.meet(2);
        rx.settle();
        board.meet(4);
        loop {
            let number = recv(&mut rx, wait, idle);
            send(&mut tx, number, wait, idle);
            if number == STOP {
                return Ok(Saw::Nothing);
            }
        }
    };
    let sides = vec![
        Side { cpu: run.cpu(0, 1, 1), work: Box::new(client) },
        Side { cpu: run.cpu(1, 1, 1), work: Box::new(server) },
    ];
    let saw = roles::run(about.place, sides, run.patience())?;
    saw.iter()
        .find_map(|saw| if let Saw::Trips(trips) = saw { Some(*trips) } else { None })
        .ok_or_else(|| "no round trips".into())
}

/// A consumer's knowledge of what must come next from each producer.
pub struct Order {
    next: Vec<u64>,
    delivery: Delivery,
    consumers: usize,
}

impl Order {
    pub fn new(producers: usize, consumers: usize, delivery: Delivery) -> Order {
        Order { next: vec![0; producers], delivery, consumers }
    }

    /// A head came where another was due: checks it against those before; how many
    /// were lost just before it. (One after the other is the caller's to follow.)
    #[inline(never)]
    pub fn check(&mut self, came: u64, due: u64) -> u64 {
        let parts = |head: u64| ((head >> COUNT_BITS) as usize, head & ((1 << COUNT_BITS) - 1));
        let (producer, count) = parts(due);
        self.next[producer] = count;
        let (producer, count) = parts(came);
        let next = self.next[producer];
        // One of several consumers gets a part of each producer's messages.
        let all = self.delivery == Delivery::Broadcast
            || self.delivery == Delivery::Once && self.consumers == 1;
        assert!(
            if all { count == next } else { count >= next },
            "message {count} of producer {producer} came where {next} was due"
        );
        if self.delivery == Delivery::Lossy && self.consumers == 1 { count - next } else { 0 }
    }
}

/// What a consumer counts. In registers, if the compiler can: in memory that would
/// cost as much as a short message.
#[derive(Clone, Copy)]
struct Tally {
    /// The head that comes next, if its producer goes on.
    due: u64,
    lost: u64,
    /// Messages until the clock is looked at, and how many there will have been.
    left: u64,
    next_look: u64,
    /// Messages that stop it, still to come.
    stops: usize,
}

impl Tally {
    fn new(due: u64, stops: usize, meter: &mut Meter) -> Tally {
        let next_look = meter.look(0);
        Tally { due, lost: 0, left: next_look, next_look, stops }
    }

    fn all(&self) -> u64 {
        self.next_look - self.left
    }

    /// Whether more are to come.
    #[inline(always)]
    fn note(&mut self, head: u64, order: &mut Order, meter: &mut Meter) -> bool {
        if head == STOP {
            // More than one may come in a batch.
            self.stops = self.stops.saturating_sub(1);
            return self.stops > 0;
        }
        if head != self.due {
            self.lost += order.check(head, self.due);
        }
        self.due = head + 1;
        self.left -= 1;
        if self.left == 0 {
            let all = self.next_look;
            self.next_look = meter.look(all);
            self.left = self.next_look - all;
        }
        true
    }
}

/// A stream, of single messages or batches, between any number of sides.
pub fn stream<C: Channel<W>, const W: usize>(
    about: &About,
    run: Run,
    (producers, consumers): (usize, usize),
    batches: bool,
) -> Result<Received> {
    let blocking = about.streams_block;
    let all = producers + consumers;
    let idle = Idle::new(run.cpus.len() < all);
    let shape = Shape { producers, consumers, blocking, capacity: capacity(W), idle };
    let channel = C::make(run.name, shape)?;
    let channel = &channel;
    let length = run.warm_up() + run.length;
    let produce = move |producer: usize| {
        move |board: &Board| {
            let mut tx = channel.tx()?;
            board.meet(all);
            board.meet(2 * all);
            let end = Instant::now() + length;
            let mut sent = 0;
            while Instant::now() < end {
                let next = sent + between_looks(W);
                if batches {
                    let batch = BATCH.min(capacity(W) / 2) as u64;
                    while sent < next {
                        tx.send_batch(head(producer, sent)..head(producer, sent + batch));
                        sent += batch;
                    }
                } else {
                    for head in head(producer, sent)..head(producer, next) {
                        idle.until(|| tx.try_send(head).then_some(()));
                    }
                    sent = next;
                }
            }
            let last = board.finish(producers);
            let stops = match about.delivery {
                Delivery::Broadcast => 1,
                // Whoever gets a batch of them leaves enough for all others.
                _ if last && batches => (consumers - 1) * BATCH + 1,
                _ if last => consumers,
                _ => 0,
            };
            for _ in 0..stops {
                idle.until(|| tx.try_send(STOP).then_some(()));
            }
            // Ends that must outlive their messages leave last.
            board.meet(3 * all);
            Ok(Saw::Sent(sent))
        }
    };
    let consume = move |board: &Board| {
        let mut rx = channel.rx()?;
        board.meet(all);
        rx.settle();
        board.meet(2 * all);
        let mut order = Order::new(producers, consumers, about.delivery);
        let mut meter = Meter::start(run, W);
        // A broadcast's producers each stop for themselves, as their messages may
        // come by ways of their own. Otherwise the last one stops each consumer.
        let broadcast = about.delivery == Delivery::Broadcast;
        let stops = if broadcast { producers } else { 1 };
        let mut tally = Tally::new(head(0, 0), stops, &mut meter);
        if batches {
            while tally.stops > 0 {
                rx.recv_batch(&mut |head| {
                    tally.note(head, &mut order, &mut meter);
                });
            }
        } else {
            // One that nobody holds a reference to.
            let mut own = tally;
            while own.note(idle.until(|| rx.try_recv()), &mut order, &mut meter) {}
            tally = own;
        }
        board.meet(3 * all);
        Ok(meter.stop(tally.all(), tally.lost))
    };
    let mut sides: Vec<Side> = Vec::new();
    for side in 0..producers {
        sides
            .push(Side { cpu: run.cpu(side, producers, consumers), work: Box::new(produce(side)) });
    }
    for side in producers..producers + consumers {
        sides.push(Side { cpu: run.cpu(side, producers, consumers), work: Box::new(consume) });
    }
    let saw = roles::run(about.place, sides, run.patience())?;
    total(about, &saw, consumers)
}

/// Adds up what the consumers saw, and compares it with what was sent.
pub fn total(about: &About, saw: &[Saw], consumers: usize) -> Result<Received> {
    let mut sent = 0;
    let mut all = Received::default();
    for saw in saw {
        match saw {
            Saw::Sent(messages) => sent += messages,
            Saw::Received(part) => {
                all.all += part.all;
                all.messages += part.messages;
                all.seconds = all.seconds.max(part.seconds);
                all.slices.extend(&part.slices);
            }
            _ => {}
        }
    }
    // With several consumers: what one of them gets in a slice, times their
    // number. (All of a broadcast's consumers get the same messages.)
    if about.delivery == Delivery::Broadcast {
        all.all /= consumers as u64;
        all.messages /= consumers as u64;
    } else {
        all.slices.iter_mut().for_each(|rate| *rate *= consumers as f64);
    }
    all.slices.sort_by(f64::total_cmp);
    if all.seconds == 0.0 {
        return Err("nothing arrived after the warm-up".into());
    }
    match about.delivery {
        Delivery::Lossy => all.lost = sent - all.all,
        _ if all.all == sent => {}
        _ => return Err(format!("{sent} messages sent, {} received", all.all).into()),
    }
    Ok(all)
}

/// What the tables call a place.
pub fn place_name(place: Place) -> &'static str {
    match place {
        Place::Threads => "threads",
        Place::Processes => "processes",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_between_two_ticks_are_told() {
        let mut all = Histogram::new_with_bounds(1, 10_000, 3).unwrap();
        // What takes 124 ns, by a clock that ticks every 10 (one that rounds, too).
        all.record_n(120, 300).unwrap();
        all.record_n(121, 300).unwrap();
        all.record_n(130, 400).unwrap();
        assert_eq!(between_ticks(&all, 0.5, 10), 123);
        assert_eq!(between_ticks(&all, 0.99, 10), 135);
        // And by one that ticks all the time.
        assert_eq!(between_ticks(&all, 0.5, 1), 121);
        assert_eq!(between_ticks(&all, 0.99, 1), 130);
    }
}
