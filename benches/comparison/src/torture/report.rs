//! What was seen, as a table in Markdown.

use super::{Options, Sight, Verdict};
use crate::versions;
use std::fmt::Write;

fn verdict(sight: &Sight) -> String {
    match (sight.verdict, sight.stalled_after_kills) {
        (Verdict::Passes, _) => "passes".into(),
        (Verdict::Damages, _) => "damages messages".into(),
        (Verdict::Stalls, Some(kills)) => {
            let times =
                if sight.stalls > 1 { format!(" ({} times)", sight.stalls) } else { "".into() };
            format!("stood still after {kills} kills, then went on{times}")
        }
        (Verdict::Hangs, _) => format!("hangs after {} kills", sight.kills),
        (Verdict::Fails, _) => format!("{} victims failed", sight.failed),
        (Verdict::Stalls, None) => "stood still".into(),
    }
}

/// How long the longest stall was.
fn stall(sight: &Sight) -> String {
    match sight.longest_stall_ms {
        ms if ms < 1000.0 => format!("{ms:.1} ms"),
        ms => format!("{:.1} s", ms / 1e3),
    }
}

/// In short, while it runs.
pub fn line(sight: &Sight) -> String {
    let all = &sight.balance;
    format!(
        "{}; {} kills in {:.1} s; {} received, {} lost ({} explained), {} doubled, {} torn; \
         longest stall {}",
        verdict(sight),
        sight.kills,
        sight.seconds,
        all.received,
        all.lost,
        sight.lost_allowed.min(all.lost),
        all.doubled,
        all.torn,
        stall(sight)
    )
}

/// The messages that did not arrive. Those in a queue that stands still are not
/// lost: nobody can have them.
fn missing(sight: &Sight) -> String {
    match sight.verdict {
        Verdict::Hangs => format!("{} left inside", sight.balance.lost),
        _ => explained(sight.balance.lost, sight.lost_allowed),
    }
}

/// A count, and how much of it the kills explain.
fn explained(count: u64, allowed: u64) -> String {
    match (count, allowed) {
        (0, _) => "0".into(),
        (count, allowed) if count <= allowed => format!("{count}, all explained"),
        (count, allowed) => format!("**{count}**, {allowed} explained at most"),
    }
}

/// Everything, to be read.
pub fn table(options: &Options, sights: &[Sight], skipped: &[(&str, String)]) -> String {
    let mut out = String::new();
    for (what, value) in versions::of_machine() {
        let _ = writeln!(out, "- {what}: {value}");
    }
    let _ = writeln!(
        out,
        "- two producers, two consumers, {} kills a second on average for {} s, seed {}\n",
        options.kills, options.seconds, options.seed
    );
    let columns = [
        "queue",
        "version",
        "verdict",
        "kills",
        "producers killed within a send",
        "messages",
        "lost",
        "doubled",
        "torn",
        "longest stall",
    ];
    let _ = writeln!(out, "| {} |\n|{}", columns.join(" | "), "---|".repeat(columns.len()));
    for sight in sights {
        let all = &sight.balance;
        let _ = writeln!(
            out,
            "| {} | {} | {} | {} | {} of {} | {} | {} | {} | {} | {} |",
            sight.name,
            sight.version,
            verdict(sight),
            sight.kills,
            sight.killed_sending,
            sight.killed_producers,
            all.received,
            missing(sight),
            explained(all.doubled, sight.doubled_allowed),
            all.torn,
            stall(sight)
        );
    }
    let _ = writeln!(out);
    for sight in sights {
        let _ = writeln!(out, "- {}: {}", sight.name, sight.note);
        if let Some(complaint) = &sight.complaint {
            let _ = writeln!(out, "  - a victim's last words: {complaint}");
        }
    }
    for (name, why) in skipped {
        let _ = writeln!(out, "- {name} was skipped: {why}");
    }
    out
}
