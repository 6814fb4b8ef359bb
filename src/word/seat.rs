//! A seat: a role that one handle of one process holds at a time, such as the
//! sending side of one direction of a pipe.
//!
//! One word says who sits there, and how the last one went:
//!
//! ```text
//! word = pid:32 | 0:18 | state:2 | owner:12
//!
//! NEW ─take→ HELD(o) ─leave→ LEFT ─take→ HELD(o')
//!               └─ o is dead, recover → DIED ─take→ HELD(o')
//! ```
//!
//! The pid is for people to read; who holds the seat is the owner.
//!
//! | edge | release | acquire | makes visible |
//! |------|---------|---------|---------------|
//! | S    | `leave`, `recover` | `state` | to the other side, all that the last holder published |
//! | T    | `leave`, `recover` | `take` | to the successor, the same |

use crate::error::Error;
use crate::ring::Owner;
use crate::sync::{AtomicU64, Ordering, STEP_BUDGET, point};

const NEW: u64 = 0;
const HELD: u64 = 1;
const LEFT: u64 = 2;
const DIED: u64 = 3;

const _: () = assert!(NEW & LEFT & DIED == 0 && HELD & LEFT & DIED == 0 && LEFT & DIED != 0);

const PID_SHIFT: u32 = 32;
const STATE_SHIFT: u32 = Owner::BITS;

/// How a seat is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Nobody ever sat there.
    New,
    /// This one does.
    Held(Owner),
    /// The last one left it.
    Left,
    /// The last one, of this pid, died there.
    Died(u32),
}

/// A view of a seat.
#[derive(Clone, Copy)]
pub(crate) struct Seat<'a> {
    word: &'a AtomicU64,
}

/// The word that a taker found: to put it back if it can't stay.
#[derive(Clone, Copy)]
pub(crate) struct Before(u64);

fn word(state: u64, owner: u64, pid: u32) -> u64 {
    u64::from(pid) << PID_SHIFT | state << STATE_SHIFT | owner
}

fn judge(word: u64) -> State {
    let owner = Owner::new((word & u64::from(Owner::MAX)) as u16);
    match (word >> STATE_SHIFT & 3, owner) {
        (HELD, Some(owner)) => State::Held(owner),
        (LEFT, _) => State::Left,
        (DIED, _) => State::Died((word >> PID_SHIFT) as u32),
        // HELD by nobody is what no correct peer writes: as good as new.
        _ => State::New,
    }
}

impl<'a> Seat<'a> {
    /// A new seat's word.
    pub(crate) fn fresh() -> AtomicU64 {
        AtomicU64::new(word(NEW, 0, 0))
    }

    pub(crate) fn new(word: &'a AtomicU64) -> Self {
        Seat { word }
    }

    /// How it is. What the last holder published is visible if it is gone.
    #[inline]
    pub(crate) fn state(&self) -> State {
        // Edge S: Acquire pairs with the Release in `leave` and `recover`.
        judge(self.word.load(Ordering::Acquire))
    }

    /// Whether somebody was here and is gone (LEFT or DIED): no more than that,
    /// so without ordering.
    #[inline(always)]
    pub(crate) fn is_gone(&self) -> bool {
        self.word.load(Ordering::Relaxed) >> STATE_SHIFT & LEFT & DIED != 0
    }

    /// The pid in the word.
    pub(crate) fn pid(&self) -> u32 {
        (self.word.load(Ordering::Relaxed) >> PID_SHIFT) as u32
    }

    /// Takes the seat, or says who holds it: ask whether it is alive.
    pub(crate) fn take(&self, me: Owner, pid: u32) -> Result<Before, Result<Owner, Error>> {
        let mut seen = self.word.load(Ordering::Relaxed);
        let mine = word(HELD, me.get().into(), pid);
        for _ in 0..STEP_BUDGET {
            if let State::Held(owner) = judge(seen) {
                return Err(Ok(owner));
            }
            // Edge T: Acquire pairs with the Release in `leave` and `recover`.
            match self.word.compare_exchange(seen, mine, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => {
                    point("seat.taken");
                    return Ok(Before(seen));
                }
                Err(now) => seen = now,
            }
        }
        Err(Err(Error::Corrupt { what: "seat that changes for ever:", at: seen }))
    }

    /// Gives the seat up, as if it had not been taken.
    pub(crate) fn put_back(&self, before: Before) {
        // Release: like `leave`, though nothing was done here.
        self.word.store(before.0, Ordering::Release);
        point("seat.put-back");
    }

    /// Leaves the seat. Wake the other side afterwards.
    pub(crate) fn leave(&self) {
        let pid = self.pid();
        // Edges S and T: Release pairs with the Acquire in `state` and `take`.
        // A plain store, since nobody else changes the word of a living holder.
        self.word.store(word(LEFT, 0, pid), Ordering::Release);
        point("seat.left");
    }

    /// Marks the seat of a dead holder; whether it held it. Wake the other side
    /// afterwards. May be repeated.
    pub(crate) fn recover(&self, dead: Owner) -> bool {
        let seen = self.word.load(Ordering::Relaxed);
        let died = word(DIED, 0, (seen >> PID_SHIFT) as u32);
        // Edges S and T: Release, so that what the recoverer knows the dead to
        // have done is visible to those who acquire.
        let held = judge(seen) == State::Held(dead)
            && self.word.compare_exchange(seen, died, Ordering::Release, Ordering::Relaxed).is_ok();
        point("seat.reclaimed");
        held
    }
}

#[cfg(all(test, loom))]
#[path = "seat_models.rs"]
mod models;
