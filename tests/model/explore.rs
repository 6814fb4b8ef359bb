//! Breadth first through every state, so that the trace of a violation is as
//! short as can be.

use super::coverage::Coverage;
use super::protocol::{Model, Violation};
use super::world::{Action, World};
use std::collections::{HashSet, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};

pub struct Outcome {
    pub states: usize,
    /// Steps of the longest shortest way to a state.
    pub depth: usize,
    pub coverage: Coverage,
    pub flaw: Option<Flaw>,
}

/// A violation, and how it comes about.
pub struct Flaw {
    pub violation: Violation,
    pub way: Vec<Action>,
    /// The thread that comes to it at the end of the way when it goes on alone.
    alone: Option<usize>,
}

/// Fingerprints are their own hash.
#[derive(Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn write_u128(&mut self, value: u128) {
        self.0 = value as u64;
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("only fingerprints are kept");
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// 128 bits of a state: two of 10⁸ states share them with a probability of
/// about 10⁻²³, so that none is overlooked.
fn fingerprint(world: &World) -> u128 {
    let fold = |a: u64, b: u64| {
        let product = u128::from(a) * u128::from(b);
        product as u64 ^ (product >> 64) as u64
    };
    let (mut a, mut b) = (0x9E37_79B9_7F4A_7C15, 0xE703_7ED1_A0B4_28DB_u64);
    for word in world.packed() {
        a = fold(a ^ word, 0xA076_1D64_78BD_642F);
        b = fold(b.rotate_left(29) ^ word, 0x8EBC_6AF0_9C88_C6E3);
    }
    u128::from(a) << 64 | u128::from(b)
}

/// Visits every state, or all up to the first violation.
pub fn explore(model: &Model, mut visit: impl FnMut(&World)) -> Outcome {
    let mut seen = HashSet::<u128, BuildHasherDefault<AsItIs>>::default();
    // By each state's turn: the turn of the one before it, and how it came about.
    let mut origin: Vec<(u32, Action)> = vec![(0, Action::Die(u8::MAX))];
    let mut waiting = VecDeque::from([model.first()]);
    let mut actions = vec![];
    let mut coverage = Coverage::default();
    let (mut turn, mut depth, mut level_ends) = (0, 0, 1);
    let mut flaw = None;
    seen.insert(fingerprint(&waiting[0]));
    'all: while let Some(world) = waiting.pop_front() {
        if turn == level_ends {
            (depth, level_ends) = (depth + 1, origin.len());
        }
        visit(&world);
        model.actions(&world, &mut actions);
        for &action in &actions {
            let mut next = world;
            let result = model.apply(&mut next, action).map_err(|violation| (violation, None));
            let result = result.and_then(|()| {
                coverage.note(model, &world, action, &next);
                let fresh = seen.insert(fingerprint(&next));
                if fresh { model.check(&next).map(|()| true) } else { Ok(false) }
            });
            match result {
                Ok(false) => {}
                Ok(true) => {
                    origin.push((turn as u32, action));
                    waiting.push_back(next);
                }
                Err((violation, alone)) => {
                    flaw = Some(Flaw { violation, way: way(&origin, turn, action), alone });
                    break 'all;
                }
            }
        }
        turn += 1;
    }
    Outcome { states: seen.len(), depth, coverage, flaw }
}

fn way(origin: &[(u32, Action)], mut turn: usize, last: Action) -> Vec<Action> {
    let mut actions = vec![last];
    while turn != 0 {
        actions.push(origin[turn].1);
        turn = origin[turn].0 as usize;
    }
    actions.reverse();
    actions
}

/// What happens along the way, a line for each step.
pub fn trace(model: &Model, flaw: &Flaw) -> String {
    let mut world = model.first();
    let mut lines = format!("    {:?}\n", &world.words[..model.scenario.slots]);
    for &action in &flaw.way {
        let who = |t: u8| {
            let thread = &world.threads[usize::from(t)];
            format!("{:?} {t}, number {}", model.role(t.into()), thread.owner)
        };
        let what = match action {
            Action::Step(t) => {
                format!("{}: {:?}", who(t), world.threads[usize::from(t)].pc)
            }
            Action::Recover(t, number) => format!("{}: recovers {number}", who(t)),
            Action::Join(t, number) => format!("{}: joins as {number}", who(t)),
            Action::Die(home) => format!("process {home} dies"),
        };
        // The last may be the violation.
        let _ = model.apply(&mut world, action);
        let World { head, tail, epoch, payload, .. } = world;
        let slots = model.scenario.slots;
        lines += &format!(
            "    {what:<38} {:?} {:?} head {head} tail {tail} epoch {epoch}\n",
            &world.words[..slots],
            &payload[..slots],
        );
    }
    let alone = flaw.alone.map(|t| format!(", with thread {t} alone from here on"));
    lines + &format!("    {:?}{}\n", flaw.violation, alone.unwrap_or_default())
}
