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
    /// Sends so many messages, in runs as far as it can.
    Batcher(u8),
    /// The same, but it abandons what it claims first.
    BatchQuitter(u8),
    /// Receives for ever.
    Consumer,
    /// The same, in runs as far as it can.
    Collector,
}
use Role::{BatchQuitter, Batcher, Collector, Consumer, Leaver, Producer, Quitter};

impl Role {
    /// Claims that it makes.
    pub fn claims(self) -> u8 {
        match self {
            Producer(n) | Leaver(n) | Batcher(n) | BatchQuitter(n) => n,
            Quitter(n) => n + 1,
            Consumer | Collector => 0,
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    pub name: &'static str,
    pub slots: usize,
    /// Slots of a group, a power of two.
    pub group: usize,
    /// Steps of a walk before it gallops.
    pub plain_steps: u8,
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

    /// Whether a ring of so many slots is shipped with such groups.
    pub fn is_shipped(&self) -> bool {
        self.group == group(self.slots)
    }
}

/// `Geometry::new` for messages of eight bytes: a power of two of slots that fill up to a
/// kilobyte, two groups or more, if there can be any.
const fn group(slots: usize) -> usize {
    let most = if slots / 2 < 16 { slots / 2 } else { 16 };
    if most < 2 { 1 } else { 1 << most.ilog2() }
}

type Processes = &'static [&'static [Role]];

impl Scenario {
    const fn at_most_once(name: &'static str, slots: usize, processes: Processes) -> Scenario {
        Scenario {
            name,
            slots,
            group: group(slots),
            plain_steps: 1,
            at_least_once: false,
            crashes: 1,
            processes,
            joiners: &[],
        }
    }

    const fn at_least_once(name: &'static str, slots: usize, processes: Processes) -> Scenario {
        Scenario { at_least_once: true, ..Scenario::at_most_once(name, slots, processes) }
    }

    const fn crashes(self, crashes: u8) -> Scenario {
        Scenario { crashes, ..self }
    }

    /// With groups that are too large for so small a ring, for runs of more slots, and for
    /// smaller rings.
    const fn groups_of(self, group: usize) -> Scenario {
        Scenario { group, ..self }
    }

    const fn plain_steps(self, plain_steps: u8) -> Scenario {
        Scenario { plain_steps, ..self }
    }

    const fn joiners(self, joiners: &'static [Role]) -> Scenario {
        Scenario { joiners, ..self }
    }
}

// Small: some thousand states each, or some ten thousand, enough for every mutant.

pub const PAIR: Scenario =
    Scenario::at_most_once("a writer and a reader of one slot", 1, &[&[Producer(2)], &[Consumer]]);

pub const WRITERS: Scenario = Scenario::at_most_once(
    "two writers of one slot",
    1,
    &[&[Producer(1)], &[Producer(1)], &[Consumer]],
);

pub const READERS: Scenario = Scenario::at_most_once(
    "two readers of one slot",
    1,
    &[&[Producer(2)], &[Consumer], &[Consumer]],
);

pub const QUITTER: Scenario = Scenario::at_most_once(
    "an abandoned claim, two readers",
    1,
    &[&[Quitter(1)], &[Consumer], &[Consumer]],
);

pub const TWO_SLOTS: Scenario = Scenario::at_most_once(
    "two writers of two slots",
    2,
    &[&[Producer(2)], &[Producer(1)], &[Consumer]],
);

pub const STALE_TAIL: Scenario = Scenario::at_most_once(
    "a hint stored late, three slots",
    3,
    &[&[Producer(4)], &[Producer(1)], &[Consumer]],
)
.crashes(0);

pub const STALE_HEAD: Scenario = Scenario::at_most_once(
    "two readers of two slots",
    2,
    &[&[Producer(2)], &[Consumer], &[Consumer]],
);

pub const JOINER: Scenario =
    Scenario::at_most_once("a joiner, two deaths", 1, &[&[Producer(1)], &[Consumer]])
        .crashes(2)
        .joiners(&[Producer(1)]);

pub const LEAVER: Scenario =
    Scenario::at_most_once("one leaves, one joins", 1, &[&[Leaver(1)], &[Consumer]])
        .joiners(&[Producer(1)]);

pub const THREADS: Scenario = Scenario::at_most_once(
    "two threads of a process, a joiner",
    1,
    &[&[Producer(1)], &[Consumer, Consumer]],
)
.joiners(&[Producer(1)]);

pub const SIBLINGS: Scenario = Scenario::at_most_once(
    "a process that sends to itself, a joiner",
    1,
    &[&[Producer(1), Consumer], &[Consumer]],
)
.joiners(&[Producer(1)]);

pub const JOINERS: Scenario = Scenario::at_least_once(
    "two joiners, two deaths, redelivery",
    1,
    &[&[Producer(1)], &[Consumer]],
)
.crashes(2)
.joiners(&[Consumer, Consumer]);

pub const ROUND: Scenario = Scenario::at_least_once(
    "redelivery when the ring came round",
    1,
    &[&[Producer(2)], &[Consumer], &[Consumer]],
);

pub const BEHIND: Scenario = Scenario::at_least_once(
    "redelivery from behind the head, two deaths",
    2,
    &[&[Producer(1)], &[Consumer], &[Consumer]],
)
.crashes(2);

pub const ADOPTERS: Scenario = Scenario::at_least_once(
    "three readers and one orphan",
    2,
    &[&[Producer(1), Consumer], &[Consumer, Consumer]],
);

pub const RUNS: Scenario =
    Scenario::at_most_once("runs of two, two deaths", 4, &[&[Batcher(6)], &[Collector]]).crashes(2);

pub const RUN_QUITTER: Scenario =
    Scenario::at_most_once("an abandoned run", 4, &[&[BatchQuitter(4)], &[Collector]]).crashes(2);

pub const RUN_AND_WRITER: Scenario = Scenario::at_most_once(
    "written runs beside a writer",
    4,
    &[&[Batcher(2)], &[Producer(1)], &[Consumer]],
);

pub const RUN_AND_READER: Scenario = Scenario::at_most_once(
    "read runs beside a reader",
    4,
    &[&[Batcher(4)], &[Collector], &[Consumer]],
);

pub const RUN_ADOPTERS: Scenario = Scenario::at_least_once(
    "redelivery out of a run, two deaths",
    4,
    &[&[Batcher(2)], &[Collector], &[Consumer]],
)
.crashes(2);

pub const RUN_JOINER: Scenario =
    Scenario::at_least_once("runs, a joiner, two deaths", 2, &[&[Batcher(2)], &[Collector]])
        .groups_of(2)
        .crashes(2)
        .joiners(&[Batcher(2)]);

pub const RUN_TAIL: Scenario = Scenario::at_most_once(
    "runs of three beside a writer with a late hint",
    3,
    &[&[Batcher(5)], &[Producer(2)], &[Consumer]],
)
.groups_of(4)
.plain_steps(2)
.crashes(0);

pub const RUN_HEAD: Scenario = Scenario::at_most_once(
    "runs of three beside a reader with a late hint",
    3,
    &[&[Batcher(6)], &[Collector], &[Consumer]],
)
.groups_of(4)
.plain_steps(2)
.crashes(0);

pub const SMALL: &[Scenario] = &[
    PAIR,
    WRITERS,
    READERS,
    QUITTER,
    TWO_SLOTS,
    STALE_TAIL,
    STALE_HEAD,
    JOINER,
    JOINERS,
    LEAVER,
    THREADS,
    SIBLINGS,
    ROUND,
    BEHIND,
    ADOPTERS,
    RUNS,
    RUN_QUITTER,
    RUN_AND_WRITER,
    RUN_AND_READER,
    RUN_ADOPTERS,
    RUN_JOINER,
    RUN_TAIL,
    RUN_HEAD,
];

/// Some hundred thousand states each.
pub const MEDIUM: &[Scenario] = &[
    Scenario::at_most_once(
        "two writers, two readers",
        2,
        &[&[Producer(2)], &[Producer(1)], &[Consumer], &[Consumer]],
    ),
    Scenario::at_most_once(
        "hints stored late, three slots",
        3,
        &[&[Producer(3)], &[Producer(3)], &[Consumer]],
    ),
    Scenario::at_most_once(
        "two leave, one joins, two deaths",
        1,
        &[&[Leaver(1)], &[Leaver(1)], &[Consumer]],
    )
    .crashes(2)
    .joiners(&[Producer(1)]),
    Scenario::at_least_once(
        "three readers, redelivery, two deaths",
        2,
        &[&[Producer(1)], &[Consumer], &[Consumer], &[Consumer]],
    )
    .crashes(2),
    Scenario::at_least_once(
        "readers that join, redelivery, three deaths",
        1,
        &[&[Producer(2)], &[Consumer], &[Consumer]],
    )
    .crashes(3)
    .joiners(&[Consumer]),
    Scenario::at_most_once(
        "runs of two beside a writer with a late hint",
        4,
        &[&[Batcher(5)], &[Producer(2)], &[Consumer]],
    )
    .crashes(0),
    Scenario::at_most_once(
        "runs of two beside a reader with a late hint",
        4,
        &[&[Batcher(6)], &[Collector], &[Consumer]],
    )
    .crashes(0),
    Scenario::at_most_once(
        "runs of three, walks that gallop late",
        3,
        &[&[Batcher(5)], &[Producer(2)], &[Collector]],
    )
    .groups_of(4)
    .plain_steps(3)
    .crashes(0),
    Scenario::at_most_once(
        "an abandoned run, two readers, two deaths",
        2,
        &[&[BatchQuitter(4)], &[Collector], &[Consumer]],
    )
    .groups_of(2)
    .crashes(2),
    Scenario::at_least_once(
        "two readers of runs, redelivery, two deaths",
        2,
        &[&[Batcher(4)], &[Collector], &[Collector]],
    )
    .groups_of(2)
    .crashes(2),
];

/// Millions of states, most of them.
pub const LARGE: &[Scenario] = &[
    Scenario::at_most_once(
        "a writer, one that abandons, two readers, two deaths",
        2,
        &[&[Producer(2)], &[Quitter(1)], &[Consumer], &[Consumer]],
    )
    .crashes(2),
    Scenario::at_most_once(
        "one that abandons, a writer, a joiner, two deaths",
        2,
        &[&[Quitter(1)], &[Producer(1)], &[Consumer]],
    )
    .crashes(2)
    .joiners(&[Producer(1)]),
    Scenario::at_most_once(
        "hints stored late, three slots, two deaths",
        3,
        &[&[Producer(4)], &[Producer(4)], &[Consumer]],
    )
    .crashes(2),
    Scenario::at_least_once(
        "two writers, two readers, redelivery, two deaths",
        2,
        &[&[Producer(2)], &[Producer(1)], &[Consumer], &[Consumer]],
    )
    .crashes(2),
    Scenario::at_least_once(
        "a reader that joins, redelivery, three deaths",
        2,
        &[&[Producer(2)], &[Consumer], &[Consumer]],
    )
    .crashes(3)
    .joiners(&[Consumer]),
    Scenario::at_most_once(
        "runs of two beside a writer",
        4,
        &[&[Batcher(5)], &[Producer(2)], &[Collector]],
    ),
    Scenario::at_most_once(
        "two writers of runs of three, two deaths",
        3,
        &[&[Batcher(6)], &[Batcher(3)], &[Collector]],
    )
    .groups_of(4)
    .crashes(2),
    Scenario::at_most_once(
        "runs of two, written and abandoned, two readers",
        3,
        &[&[BatchQuitter(4)], &[Batcher(2)], &[Collector], &[Consumer]],
    )
    .groups_of(2)
    .crashes(0),
    Scenario::at_least_once(
        "runs of two, two that join, redelivery, three deaths",
        3,
        &[&[Batcher(4)], &[Collector]],
    )
    .groups_of(2)
    .crashes(3)
    .joiners(&[Collector, Batcher(2)]),
    Scenario::at_least_once(
        "runs of two, three readers, redelivery, two deaths",
        4,
        &[&[Batcher(2)], &[Collector], &[Collector], &[Consumer]],
    )
    .crashes(2),
    Scenario::at_most_once(
        "runs of up to four beside a writer",
        4,
        &[&[Batcher(7)], &[Producer(2)], &[Collector]],
    )
    .groups_of(4),
];
