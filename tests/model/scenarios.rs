//! Who takes part, in rings of what size, with how many deaths.

use super::world::{MAX_NUMBERS, MAX_SLOTS, MAX_THREADS};

/// What a thread does all its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// Sends so many messages.
    Producer(u8),
    /// Claims a slot and abandons it, then sends so many messages.
    Quitter(u8),
    /// Sends so many messages, then detaches.
    Leaver(u8),
    /// Receives for ever.
    Consumer,
}
use Role::{Consumer, Leaver, Producer, Quitter};

impl Role {
    /// Claims that it makes.
    pub fn claims(self) -> u8 {
        match self {
            Producer(n) | Leaver(n) => n,
            Quitter(n) => n + 1,
            Consumer => 0,
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    pub name: &'static str,
    pub slots: usize,
    /// Whether messages of dead readers are delivered again.
    pub at_least_once: bool,
    /// Deaths, of any process at any step.
    pub crashes: u8,
    /// The threads of each process that is attached from the beginning, under
    /// the number of its place in the list.
    pub processes: &'static [&'static [Role]],
    /// Processes that wait for a number whose lock is free.
    pub joiners: &'static [Role],
}

impl Scenario {
    /// Numbers that are given out. The next one is for `drain`'s newcomer.
    pub fn numbers(&self) -> usize {
        self.processes.len()
    }

    /// Role and process of each thread.
    pub fn threads(&self) -> Vec<(Role, usize)> {
        let present = self.processes.iter().enumerate();
        let present = present.flat_map(|(home, roles)| roles.iter().map(move |role| (*role, home)));
        let joiners = self.joiners.iter().enumerate();
        let joiners = joiners.map(|(n, role)| (*role, self.processes.len() + n));
        let threads: Vec<_> = present.chain(joiners).collect();
        assert!(threads.len() <= MAX_THREADS && self.numbers() < MAX_NUMBERS);
        assert!((1..=MAX_SLOTS).contains(&self.slots));
        threads
    }
}

const fn scenario(
    name: &'static str,
    slots: usize,
    at_least_once: bool,
    crashes: u8,
    processes: &'static [&'static [Role]],
    joiners: &'static [Role],
) -> Scenario {
    Scenario { name, slots, at_least_once, crashes, processes, joiners }
}

pub const SMALL: &[Scenario] = &[
    scenario("1 slot P2 C", 1, false, 1, &[&[Producer(2)], &[Consumer]], &[]),
    scenario("1 slot P1 P1 C", 1, false, 1, &[&[Producer(1)], &[Producer(1)], &[Consumer]], &[]),
    scenario("1 slot P2 C C", 1, false, 1, &[&[Producer(2)], &[Consumer], &[Consumer]], &[]),
    scenario("2 slots P2 C C", 2, false, 1, &[&[Producer(2)], &[Consumer], &[Consumer]], &[]),
    scenario("2 slots P2 P1 C", 2, false, 1, &[&[Producer(2)], &[Producer(1)], &[Consumer]], &[]),
    scenario("1 slot Q1 C C", 1, false, 0, &[&[Quitter(1)], &[Consumer], &[Consumer]], &[]),
    scenario("alo 1 slot P2 C C", 1, true, 1, &[&[Producer(2)], &[Consumer], &[Consumer]], &[]),
    scenario("alo 2 slot P1 C C", 2, true, 1, &[&[Producer(1)], &[Consumer], &[Consumer]], &[]),
    scenario("alo 2 slot P1 C C C", 2, true, 1, &[&[Producer(1)], &[Consumer], &[Consumer], &[Consumer]], &[]),
    scenario("alo 2 slot P1 C C C 2 crashes", 2, true, 2, &[&[Producer(1)], &[Consumer], &[Consumer], &[Consumer]], &[]),
    scenario("1 slot P1 C join P1", 1, false, 1, &[&[Producer(1)], &[Consumer]], &[Producer(1)]),
    scenario("1 slot P1 C join P1, 2 crashes", 1, false, 2, &[&[Producer(1)], &[Consumer]], &[Producer(1)]),
    scenario("1 slot L1 C join P1", 1, false, 1, &[&[Leaver(1)], &[Consumer]], &[Producer(1)]),
    scenario("1 slot PC C join P1", 1, false, 1, &[&[Producer(1), Consumer], &[Consumer]], &[Producer(1)]),
    scenario("1 slot P1 CC join P1", 1, false, 1, &[&[Producer(1)], &[Consumer, Consumer]], &[Producer(1)]),
];
