//! What came of it, in text and in JSON.

use super::audit::Tally;
use super::crew::Strikes;
use super::options::{Delivery, Kind, Options, Shape};
use super::stalls::Summary;
use crate::report::{Grouped, ms, per_second};
use clap::ValueEnum;
use serde::Serialize;
use slipring::QueueCounters;
use std::fmt;
use std::time::Duration;

/// The books in sums, beside the queue's own counters.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counted {
    pub queue: Option<QueueCounters>,
    pub committed: u64,
    pub in_doubt: u64,
    pub in_doubt_arrived: u64,
    pub giving_up: u64,
    pub given_up: u64,
    pub died_sending: u64,
    pub died_giving_up: u64,
    pub died_holding: u64,
    /// Consumers that died between take and release, or may have.
    pub died_with_one: u64,
    pub received_again: u64,
}

impl Counted {
    /// Deaths that the queue should have counted and did not: its recoverer was
    /// killed between the repair and its count.
    fn uncounted(&self, at_least_once: bool) -> u64 {
        let Some(queue) = self.queue else { return 0 };
        if at_least_once {
            self.received_again.saturating_sub(queue.redelivered)
        } else {
            self.died_holding.saturating_sub(queue.lost)
        }
    }

    /// Compares. Everybody is at rest, and the ring is empty.
    pub fn check(&self, at_least_once: bool, kills: u64, complaints: &mut Vec<String>) {
        let Some(queue) = self.queue else { return };
        let mut complain = |what: String| {
            complaints.push(format!("the queue's counters are wrong: {what} ({self:?})"));
        };
        if queue.sent != queue.received {
            complain("more was sent than received, and nothing is left".to_owned());
        }
        // What was claimed follows from the ring's positions and is exact.
        let claimed = queue.sent + queue.abandoned;
        let least = self.committed + self.in_doubt_arrived + self.given_up;
        let most = self.committed + self.in_doubt + self.giving_up;
        if !(least..=most).contains(&claimed) {
            complain(format!("{claimed} claimed, of {least} to {most}"));
        }
        // Whoever dies giving a slot up may have counted it already.
        let most = self.giving_up + self.died_sending + self.died_giving_up;
        if queue.abandoned > most {
            complain(format!("{} abandoned, of at most {most}", queue.abandoned));
        }
        let (lost, redelivered) =
            if at_least_once { (0, self.died_with_one) } else { (self.died_with_one, 0) };
        if queue.lost > lost || queue.redelivered > redelivered {
            complain(format!("at most {lost} can be lost, {redelivered} delivered again"));
        }
        if self.uncounted(at_least_once) > kills {
            complain("too few deaths were counted".to_owned());
        }
    }
}

/// The queue's counters, for JSON.
#[derive(Serialize)]
struct Counters {
    sent: u64,
    received: u64,
    lost: u64,
    redelivered: u64,
    abandoned: u64,
    /// As the producers say.
    given_up_by_hand: u64,
    /// Deaths that should have been counted, and were not.
    uncounted: u64,
}

/// Everything.
#[derive(Serialize)]
pub struct Outcome {
    pub ok: bool,
    pub violations: Vec<String>,
    seed: u64,
    /// The options with which to run it again.
    pub again: String,
    shape: Shape,
    seconds: f64,
    rounds: u64,
    /// Whether victims could be led, instruction by instruction.
    traced: bool,
    kills_per_second: f64,
    #[serde(flatten)]
    strikes: Strikes,
    /// Dead participants that the others recovered.
    recoveries: u64,
    messages_per_second: u64,
    #[serde(flatten)]
    tally: Tally,
    queue: Option<Counters>,
    /// How long survivors were held up, for each kill.
    stall: Summary,
    /// The longest after the last kill in it, without the scheduler's delay.
    longest_unexcused_stall_ms: f64,
    unnoted_waits: u64,
    /// How late a thread that sleeps for a millisecond wakes.
    scheduling_delay: Summary,
}

/// What was counted and measured.
pub struct Sums {
    pub elapsed: Duration,
    pub rounds: u64,
    pub traced: bool,
    pub strikes: Strikes,
    pub recoveries: u64,
    pub tally: Tally,
    pub counted: Counted,
    pub stall: Summary,
    pub delay: Summary,
    /// In nanoseconds.
    pub longest_unexcused: u64,
    pub unnoted_waits: u64,
    pub violations: Vec<String>,
}

impl Outcome {
    pub fn new(options: &Options, shape: Shape, seed: u64, sums: Sums) -> Outcome {
        let Sums { elapsed, rounds, traced, strikes, recoveries, tally, counted, .. } = sums;
        let at_least_once = shape.delivery == Delivery::AtLeastOnce;
        let queue = counted.queue.map(|queue| Counters {
            sent: queue.sent,
            received: queue.received,
            lost: queue.lost,
            redelivered: queue.redelivered,
            abandoned: queue.abandoned,
            given_up_by_hand: counted.given_up,
            uncounted: counted.uncounted(at_least_once),
        });
        Outcome {
            ok: sums.violations.is_empty() && tally.violations() == 0,
            violations: sums.violations,
            seed,
            again: again(options, &shape, seed),
            shape,
            seconds: elapsed.as_secs_f64(),
            rounds,
            traced,
            kills_per_second: (strikes.kills as f64 / elapsed.as_secs_f64() * 10.0).round() / 10.0,
            strikes,
            recoveries,
            messages_per_second: per_second(tally.received, elapsed),
            tally,
            queue,
            stall: sums.stall,
            longest_unexcused_stall_ms: ms(Duration::from_nanos(sums.longest_unexcused)),
            unnoted_waits: sums.unnoted_waits,
            scheduling_delay: sums.delay,
        }
    }
}

/// The options of this run.
fn again(options: &Options, shape: &Shape, seed: u64) -> String {
    let mut text = format!(
        "--kind {} --slots {} --producers {} --consumers {} --kills-per-second {} --stop-share {} \
         --step-share {}",
        name(&shape.kind),
        shape.slots,
        shape.producers,
        shape.consumers,
        options.kills_per_second,
        options.stop_share,
        options.step_share,
    );
    if shape.kind == Kind::Queue {
        text += &format!(" --delivery {}", name(&shape.delivery));
    }
    if let Some(bytes) = shape.bytes {
        text += &format!(" --bytes {bytes}");
    }
    if let Some(side) = &shape.sleep {
        text += &format!(" --sleep {}", name(side));
    }
    if let Some(kills) = options.kills {
        text += &format!(" --kills {kills}");
    }
    if let Some(seconds) = options.seconds {
        text += &format!(" --seconds {seconds}");
    }
    if let Some(most) = options.max_stall {
        text += &format!(" --max-stall {most}");
    }
    if let Some(sabotage) = &options.sabotage {
        text += &format!(" --sabotage {}", name(sabotage));
    }
    format!("{text} --seed {seed}")
}

/// The name of an option's value.
fn name(value: &impl ValueEnum) -> String {
    value.to_possible_value().map_or(String::new(), |value| value.get_name().to_owned())
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Outcome { strikes, tally, stall, scheduling_delay: delay, .. } = self;
        let n = Grouped;
        writeln!(
            f,
            "{} kills in {:.1} s ({:.1} per second) and {} stops ({} recovering); seed {}",
            n(strikes.kills),
            self.seconds,
            self.kills_per_second,
            n(strikes.stops),
            n(strikes.stopped_recovering),
            self.seed
        )?;
        writeln!(
            f,
            "   {} producers, {} consumers; {} dead participants recovered by the others",
            n(strikes.of_producers),
            n(strikes.of_consumers),
            n(self.recoveries)
        )?;
        writeln!(
            f,
            "   {} inside an operation ({} sending, {} writing in place, {} taking, {} reading in \
             place), {} attaching",
            n(strikes.inside_an_operation),
            n(strikes.sending),
            n(strikes.claimed),
            n(strikes.taking),
            n(strikes.holding),
            n(strikes.attaching)
        )?;
        writeln!(
            f,
            "   {} led there instruction by instruction, {} into the recovery of another; {} while \
             stopped",
            n(strikes.led),
            n(strikes.recovering),
            n(strikes.while_stopped)
        )?;
        writeln!(
            f,
            "{} messages sent, {} received ({} per second), in {} rounds",
            n(tally.sent),
            n(tally.received),
            n(self.messages_per_second),
            n(self.rounds)
        )?;
        writeln!(
            f,
            "   {} lost with their consumer, {} received again, {} of {} in doubt arrived",
            n(tally.lost_with_owner),
            n(tally.received_again),
            n(tally.in_doubt_arrived),
            n(tally.in_doubt)
        )?;
        if let Some(queue) = &self.queue {
            writeln!(
                f,
                "   the queue counts {} lost, {} redelivered, {} abandoned ({} of these by hand); {} \
                 deaths uncounted",
                n(queue.lost),
                n(queue.redelivered),
                n(queue.abandoned),
                n(queue.given_up_by_hand),
                n(queue.uncounted)
            )?;
        }
        writeln!(
            f,
            "   {} missing, {} duplicates, {} reorderings, {} torn, {} forged, {} not redelivered",
            tally.missing,
            tally.duplicates,
            tally.reorderings,
            tally.torn,
            tally.forged,
            tally.not_redelivered
        )?;
        writeln!(
            f,
            "stall after a kill: p50 {} ms, p99 {} ms, max {} ms; {} ms without further kills and \
             the scheduler's delay",
            stall.p50_ms, stall.p99_ms, stall.max_ms, self.longest_unexcused_stall_ms
        )?;
        writeln!(
            f,
            "scheduling delay: p50 {} ms, p99 {} ms, max {} ms",
            delay.p50_ms, delay.p99_ms, delay.max_ms
        )?;
        for violation in self.violations.iter().take(20) {
            writeln!(f, "VIOLATION: {violation}")?;
        }
        let more = self.violations.len().saturating_sub(20);
        if more > 0 {
            writeln!(f, "... and {more} more")?;
        }
        write!(f, "{}", if self.ok { "All well" } else { "FAILED" })
    }
}
