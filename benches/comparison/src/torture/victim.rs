//! What a victim does: one operation after another, as fast as it can, each
//! noted in the ledger.

use super::adapters::{self, Queued};
use super::ledger::{Ledger, MESSAGES, PRODUCERS, message};
use crate::{Result, os};
use std::path::PathBuf;

/// Produces or consumes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Role {
    Producer,
    Consumer,
}

impl Role {
    pub fn name(self) -> &'static str {
        match self {
            Role::Producer => "producer",
            Role::Consumer => "consumer",
        }
    }
}

#[derive(clap::Args)]
pub struct Victim {
    #[arg(value_enum)]
    queue: Queued,
    #[arg(value_enum)]
    role: Role,
    /// Which of its role it is
    number: usize,
    /// Its life: for producers the one that its messages carry
    life: u64,
    ledger: PathBuf,
    /// The queue's name
    name: String,
}

/// The victims' numbers in the ledger: first the producers.
pub fn index(role: Role, number: usize) -> usize {
    match role {
        Role::Producer => number,
        Role::Consumer => PRODUCERS + number,
    }
}

pub fn run(victim: &Victim) -> Result<()> {
    let Victim { queue, role, number, life, ledger, name } = victim;
    os::die_with_parent();
    let ledger = Ledger::open(ledger)?;
    let me = index(*role, *number);
    match role {
        Role::Producer => {
            let mut sender = adapters::sender(*queue, name)?;
            for count in 0..MESSAGES {
                let message = message(*life, count);
                ledger.begins(*life, count);
                while !sender.send(&message)? {
                    if ledger.producers_stop() {
                        return Ok(());
                    }
                }
                ledger.sent(*life, count);
                ledger.is_up(me, *life);
                if ledger.producers_stop() {
                    return Ok(());
                }
            }
        }
        Role::Consumer => {
            let mut receiver = adapters::receiver(*queue, name)?;
            while !ledger.consumers_stop() {
                receiver.receive(&mut |message| ledger.received(*number, message))?;
                ledger.is_up(me, *life);
            }
        }
    }
    Ok(())
}
