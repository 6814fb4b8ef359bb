//! That the model says what the code does: from every state of the model, each
//! operation that a thread could begin is run by the model and by the shipped
//! ring, alone, and both must leave the same memory and the same answer.

use super::protocol::Model;
use super::world::{Action, Pc, Thread, Word, World};
use slipring::ring::Owner;
use slipring::ring::mpmc::{Delivery, Geometry, NoClaim, NoTake, Ring};
use slipring::{Heap, LINE};
use std::alloc::Layout;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Where the words of a ring lie: `src/ring/mpmc/mod.rs`, "The lines before the
/// slots", and after each slot's word a payload of eight bytes.
const TAIL: usize = 0;
const HEAD: usize = LINE;
const ORPHANS: usize = 2 * LINE;
const SLOTS: usize = 3 * LINE;
const STRIDE: usize = 16;

/// What came of an operation.
#[derive(PartialEq, Eq, Debug)]
enum Answer {
    /// So many slots.
    Claimed(u8),
    Taken {
        redelivered: bool,
    },
    /// The messages of so many.
    TakenRun(u8),
    /// Try a single one.
    NoRun,
    /// Because of this one.
    NotNow(Option<u8>),
}
use Answer::*;

/// A shipped ring that can be put into any state of the model.
pub struct Mirror {
    heap: Heap,
    geometry: Geometry,
    delivery: Delivery,
    slots: u64,
    /// Operations compared.
    pub compared: usize,
}

fn owner(number: u8) -> Owner {
    Owner::new(number.into()).expect("a number")
}

impl Mirror {
    pub fn new(model: &Model) -> Mirror {
        assert!(model.scenario.is_shipped());
        let slots = model.scenario.slots;
        let geometry = Geometry::new(slots, Layout::new::<u64>()).expect("a geometry");
        let heap = Heap::zeroed(geometry.len());
        // SAFETY: the block is this mirror's own.
        unsafe { Ring::init(heap.region(), geometry, 0) };
        let delivery = match model.scenario.at_least_once {
            true => Delivery::AtLeastOnce,
            false => Delivery::AtMostOnce,
        };
        Mirror { heap, geometry, delivery, slots: slots as u64, compared: 0 }
    }

    fn ring(&self) -> Ring<'_> {
        // SAFETY: initialised in `new` with this geometry.
        unsafe { Ring::attach(self.heap.region(), self.geometry) }
    }

    fn at(&self, offset: usize) -> &AtomicU64 {
        assert!(offset + 8 <= self.heap.region().len());
        // SAFETY: inside the block, which is aligned to a line, at a multiple
        // of eight; the ring, too, has atomics there.
        unsafe { self.heap.region().base().add(offset).cast().as_ref() }
    }

    /// A position as `src/position.rs` packs it.
    fn position(&self, at: i8) -> u64 {
        let index_bits = u64::BITS - (self.slots - 1).leading_zeros();
        ((at as u64 / self.slots) << index_bits) | (at as u64 % self.slots)
    }

    /// The shared memory of the world, as the ring would have it.
    fn words(&self, world: &World) -> Vec<(usize, u64)> {
        let word = |Word { lap, state, owner }| {
            (lap as u64) << 15 | u64::from(state as u8) << 12 | u64::from(owner)
        };
        let slots = world.words[..self.slots as usize].iter().enumerate();
        let slots = slots.map(|(index, w)| (SLOTS + index * STRIDE, word(*w)));
        let hints = [(TAIL, self.position(world.tail)), (HEAD, self.position(world.head))];
        slots.chain(hints).chain([(ORPHANS, u64::from(world.epoch))]).collect()
    }

    /// The messages.
    fn payloads(&self, world: &World) -> Vec<(usize, u64)> {
        let slots = world.payload[..self.slots as usize].iter().enumerate();
        slots.map(|(index, message)| (SLOTS + index * STRIDE + 8, (*message).into())).collect()
    }

    fn set(&self, world: &World) {
        for (offset, value) in self.words(world).into_iter().chain(self.payloads(world)) {
            self.at(offset).store(value, Relaxed);
        }
    }

    fn assert_same(&self, world: &World, what: &str, before: &World) {
        self.assert_all(self.words(world), world, what, before);
    }

    fn assert_same_payloads(&self, world: &World, what: &str, before: &World) {
        self.assert_all(self.payloads(world), world, what, before);
    }

    fn assert_all(&self, values: Vec<(usize, u64)>, world: &World, what: &str, before: &World) {
        for (offset, value) in values {
            let found = self.at(offset).load(Relaxed);
            assert_eq!(
                found, value,
                "at {offset} after {what}\nbefore {before:?}\nafter {world:?}"
            );
        }
    }

    /// Compares each operation that may begin here.
    pub fn compare(&mut self, model: &Model, world: &World) {
        for t in 0..model.threads() {
            let thread = &world.threads[t];
            if !thread.alive || !matches!(thread.pc, Pc::Begin | Pc::Done) {
                continue;
            }
            for number in (1..=model.scenario.numbers()).filter(|n| world.is_dead(*n)) {
                self.compare_recovery(model, world, t, number as u8);
            }
            match thread.pc {
                Pc::Begin if model.is_consumer(t) => {
                    self.compare_take(model, world, t);
                }
                Pc::Begin => self.compare_claim(model, world, t),
                _ => {}
            }
        }
    }

    fn compare_recovery(&mut self, model: &Model, before: &World, t: usize, number: u8) {
        let mut world = *before;
        model.apply(&mut world, Action::Recover(t as u8, number)).expect("no violation");
        run(model, &mut world, t, |_| false);
        self.set(before);
        self.ring().recover(owner(number), self.delivery);
        self.assert_same(&world, "recover", before);
        self.compared += 1;
    }

    fn compare_claim(&mut self, model: &Model, before: &World, t: usize) {
        let mut world = *before;
        // Begin itself is where the thread rests.
        model.step(&mut world, t).expect("no violation");
        let run_first = model.wants_run(t, &before.threads[t]);
        if run_first && self.compare_claim_run(model, before, &mut world, t) {
            return;
        }
        run(model, &mut world, t, |thread| thread.pc == Pc::WriteHalf);
        let expected = answer(model, &world, t, false);
        self.set(before);
        let me = before.threads[t].owner;
        let ring = self.ring();
        let (found, claim) = match ring.try_claim(owner(me)) {
            Ok(claim) => (Claimed(1), Some(claim)),
            Err(NoClaim::Full(holder)) => (NotNow(other(holder, me)), None),
            Err(NoClaim::Corrupt(error)) => panic!("{error} in {before:?}"),
        };
        assert_eq!(found, expected, "try_claim\nbefore {before:?}\nafter {world:?}");
        self.assert_same(&world, "try_claim", before);
        if let Some(claim) = claim {
            run(model, &mut world, t, |_| false);
            if model.gives_up(t, &before.threads[t]) {
                ring.abandon(claim);
            } else {
                ring.commit(claim);
            }
            self.assert_same(&world, "commit or abandon", before);
        }
        self.compared += 1;
    }

    /// Whether a run was claimed. `world` is as the thread's first step has left it, and
    /// then as it is before a single slot is claimed.
    fn compare_claim_run(
        &mut self,
        model: &Model,
        before: &World,
        world: &mut World,
        t: usize,
    ) -> bool {
        use Pc::{AbandonOther, LoadTail, RunWriteHalf};
        let until = |thread: &Thread| matches!(thread.pc, RunWriteHalf | AbandonOther | LoadTail);
        run(model, world, t, until);
        let expected = answer(model, world, t, false);
        self.set(before);
        let Thread { owner: me, sent, .. } = before.threads[t];
        let ring = self.ring();
        let claimed = ring.claim_run(owner(me), usize::from(model.role(t).claims() - sent));
        let found = claimed.as_ref().map_or(NoRun, |claimed| Claimed(claimed.len() as u8));
        assert_eq!(found, expected, "claim_run\nbefore {before:?}\nafter {world:?}");
        self.assert_same(world, "claim_run", before);
        let Some(claimed) = claimed else { return false };
        run(model, world, t, |_| false);
        if model.gives_up(t, &before.threads[t]) {
            ring.abandon_run(claimed);
        } else {
            let first = model.message(t, &before.threads[t]);
            ring.commit_run(claimed, |nth, to| {
                // SAFETY: the payload of a slot that has been claimed, which is eight bytes.
                unsafe { to.cast::<u64>().write(u64::from(first) + nth as u64) };
            });
            self.assert_same_payloads(world, "commit_run", before);
        }
        self.assert_same(world, "commit_run or abandon_run", before);
        self.compared += 1;
        true
    }

    /// Whether a run was taken, in the same way.
    fn compare_take_run(
        &mut self,
        model: &Model,
        before: &World,
        world: &mut World,
        t: usize,
    ) -> bool {
        use Pc::{AdoptLook, BeginSingle, LoadHead, RunRead};
        let until =
            |thread: &Thread| matches!(thread.pc, RunRead | LoadHead | BeginSingle | AdoptLook);
        run(model, world, t, until);
        let expected = answer(model, world, t, false);
        self.set(before);
        let Thread { owner: me, searched, .. } = before.threads[t];
        let ring = self.ring();
        // As `Core::take_run` does.
        let may = self.delivery == Delivery::AtMostOnce || ring.orphan_epoch() as u8 == searched;
        let slots = self.slots as usize;
        let taken = if may { ring.take_run(owner(me), slots) } else { None };
        let found = taken.as_ref().map_or(NoRun, |taken| TakenRun(taken.len() as u8));
        assert_eq!(found, expected, "take_run\nbefore {before:?}\nafter {world:?}");
        self.assert_same(world, "take_run", before);
        let Some(taken) = taken else { return false };
        let first = model.slot(world.threads[t].at);
        run(model, world, t, |_| false);
        ring.release_run(taken, |nth, payload| {
            // SAFETY: the payload of a slot that has been taken, which is eight bytes.
            let message = unsafe { payload.cast::<u64>().read() };
            assert_eq!(message, u64::from(before.payload[first + nth]));
        });
        self.assert_same(world, "release_run", before);
        self.compared += 1;
        true
    }

    fn compare_take(&mut self, model: &Model, before: &World, t: usize) {
        let mut world = *before;
        model.step(&mut world, t).expect("no violation");
        let run_first = model.wants_run(t, &before.threads[t]);
        if run_first && self.compare_take_run(model, before, &mut world, t) {
            return;
        }
        let mut adopted = false;
        run(model, &mut world, t, |thread| {
            adopted |= thread.pc == Pc::AdoptCas;
            thread.pc == Pc::Read
        });
        let expected = answer(model, &world, t, adopted);
        self.set(before);
        let Thread { owner: me, mut searched, .. } = before.threads[t];
        let ring = self.ring();
        // As `Receiver::take_once` does.
        let mut taken = None;
        if self.delivery == Delivery::AtLeastOnce {
            let epoch = ring.orphan_epoch() as u8;
            if epoch != searched {
                taken = ring.try_adopt(owner(me));
                if taken.is_none() {
                    searched = epoch;
                }
            }
        }
        let found = loop {
            if let Some(taken) = &taken {
                break Taken { redelivered: taken.redelivered() };
            }
            match ring.try_take(owner(me)) {
                Ok(message) => taken = Some(message),
                Err(NoTake::Skipped) => {}
                Err(NoTake::Empty(holder)) => break NotNow(other(holder, me)),
                Err(NoTake::Pending(holder)) => break NotNow(other(Some(holder), me)),
                Err(NoTake::Corrupt(error)) => panic!("{error} in {before:?}"),
            }
        };
        assert_eq!(found, expected, "try_take\nbefore {before:?}\nafter {world:?}");
        assert_eq!(searched, world.threads[t].searched, "epoch searched\nbefore {before:?}");
        self.assert_same(&world, "try_take", before);
        if let Some(taken) = taken {
            run(model, &mut world, t, |_| false);
            ring.release(taken);
            self.assert_same(&world, "release", before);
        }
        self.compared += 1;
    }
}

/// Whom to suspect: not oneself.
fn other(holder: Option<Owner>, me: u8) -> Option<u8> {
    holder.map(|holder| holder.get() as u8).filter(|holder| *holder != me)
}

/// Lets the thread go on alone until it rests, is about to lock a number, or is
/// where the caller wants it.
fn run(model: &Model, world: &mut World, t: usize, mut until: impl FnMut(&Thread) -> bool) {
    while !model.rests(world, t) && world.threads[t].pc != Pc::TryLock {
        if until(&world.threads[t]) || matches!(world.threads[t].pc, Pc::LeaveVacate) {
            return;
        }
        model.step(world, t).expect("no violation");
    }
}

fn answer(model: &Model, world: &World, t: usize, redelivered: bool) -> Answer {
    let thread = &world.threads[t];
    match thread.pc {
        Pc::WriteHalf => Claimed(1),
        Pc::RunWriteHalf | Pc::AbandonOther => Claimed(model.run_len(thread.at)),
        Pc::Read => Taken { redelivered },
        Pc::RunRead => TakenRun(model.run_len(thread.at)),
        Pc::LoadTail | Pc::LoadHead | Pc::BeginSingle | Pc::AdoptLook => NoRun,
        Pc::TryLock => NotNow(Some(thread.target)),
        _ => {
            assert!(model.rests(world, t));
            NotNow(None)
        }
    }
}
