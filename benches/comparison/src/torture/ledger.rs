//! What was sent and what arrived, in a shared file, so that it survives
//! whoever wrote it down. Every word has one writer at a time, so no victim
//! needs an atomic read-modify-write, whatever language it is written in.
//!
//! ```text
//! word 0          set: producers shall end
//! word 1          set: consumers shall end
//! words 8 + v     victim v: the number of its life, once it has done something
//! words 16 + 8c   consumer c: messages received, torn, received twice by it
//! words 256 + 2i  producer's life i: messages begun, messages sent
//! MAPS            a bit for each message of each producer's life, for each
//!                 consumer: received
//! ```
//!
//! A *life* is one process's time as a victim. Only the file's used pages take
//! memory.

use crate::Result;
use crate::os::Shared;
use std::fs::File;
use std::path::Path;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

/// Words in a message.
pub const WORDS: usize = 8;
pub type Message = [u64; WORDS];

/// Most lives of producers.
pub const LIVES: u64 = 1 << 14;
/// Most messages in a life; who has sent so many ends, and is started anew.
pub const MESSAGES: u64 = 1 << 22;

pub const CONSUMERS: usize = 2;
pub const PRODUCERS: usize = 2;

const MAPS: usize = (256 + 2 * LIVES as usize) * 8;
const MAP: usize = MESSAGES as usize / 8;

/// The message of this life and number: all words follow from the first two,
/// and the last is the sum of the others.
pub fn message(life: u64, number: u64) -> Message {
    let base = life
        .wrapping_mul(0x9e37_79b9_7f4a_7c15)
        .wrapping_add(number.wrapping_mul(0xd1b5_4a32_d192_ed03));
    let mut all: Message = std::array::from_fn(|i| base.wrapping_add(i as u64));
    (all[0], all[1]) = (life, number);
    all[WORDS - 1] = all[..WORDS - 1].iter().fold(0, |sum, word| sum.wrapping_add(*word));
    all
}

pub struct Ledger(Shared);

/// What became of the messages.
#[derive(Debug, Default, Clone, Copy, serde::Serialize)]
pub struct Balance {
    pub sent: u64,
    pub received: u64,
    /// Sent, by a call that returned, and not received.
    pub lost: u64,
    /// Received more than once.
    pub doubled: u64,
    pub torn: u64,
}

impl Ledger {
    pub fn create(path: &Path) -> Result<Ledger> {
        let file = File::options().read(true).write(true).create_new(true).open(path)?;
        let len = MAPS + CONSUMERS * LIVES as usize * MAP;
        file.set_len(len as u64)?;
        Ok(Ledger(Shared::file(&file, len)?))
    }

    pub fn open(path: &Path) -> Result<Ledger> {
        let file = File::options().read(true).write(true).open(path)?;
        let len = file.metadata()?.len() as usize;
        Ok(Ledger(Shared::file(&file, len)?))
    }

    fn word(&self, index: usize) -> &AtomicU64 {
        // SAFETY: any bytes are a word.
        unsafe { self.0.at(8 * index) }
    }

    fn get(&self, index: usize) -> u64 {
        // Acquire: pairs with `set`, so that what is counted is also written.
        self.word(index).load(Ordering::Acquire)
    }

    fn set(&self, index: usize, value: u64) {
        self.word(index).store(value, Ordering::Release);
    }

    pub fn stop_producers(&self) {
        self.set(0, 1);
    }

    pub fn stop_consumers(&self) {
        self.set(1, 1);
    }

    pub fn producers_stop(&self) -> bool {
        self.get(0) != 0
    }

    pub fn consumers_stop(&self) -> bool {
        self.get(1) != 0
    }

    /// In a victim: it has done something.
    pub fn is_up(&self, victim: usize, life: u64) {
        self.set(8 + victim, life + 1);
    }

    /// Whether the victim has done something in this life.
    pub fn was_up(&self, victim: usize, life: u64) -> bool {
        self.get(8 + victim) == life + 1
    }

    /// In a producer: a call begins that sends this message.
    pub fn begins(&self, life: u64, number: u64) {
        self.set(256 + 2 * life as usize, number + 1);
    }

    /// In a producer: the call has returned.
    pub fn sent(&self, life: u64, number: u64) {
        self.set(257 + 2 * life as usize, number + 1);
    }

    /// Whether a dead producer died within a call.
    pub fn died_sending(&self, life: u64) -> bool {
        self.get(256 + 2 * life as usize) != self.get(257 + 2 * life as usize)
    }

    fn add(&self, index: usize) {
        self.set(index, self.get(index) + 1);
    }

    fn bits(&self, consumer: usize, life: u64, byte: usize) -> &AtomicU8 {
        let map = MAPS + (consumer * LIVES as usize + life as usize) * MAP;
        // SAFETY: any byte is a byte.
        unsafe { self.0.at(map + byte) }
    }

    /// In a consumer: a message arrived.
    pub fn received(&self, consumer: usize, arrived: &Message) {
        let [life, number, ..] = *arrived;
        let counts = 16 + 8 * consumer;
        if life >= LIVES || number >= MESSAGES || *arrived != message(life, number) {
            self.add(counts + 1);
            return;
        }
        let byte = self.bits(consumer, life, number as usize / 8);
        let (bit, before) = (1 << (number % 8), byte.load(Ordering::Relaxed));
        if before & bit != 0 {
            self.add(counts + 2);
        }
        // Only this consumer writes here.
        byte.store(before | bit, Ordering::Relaxed);
        self.add(counts);
    }

    /// Messages received so far.
    pub fn progress(&self) -> u64 {
        (0..CONSUMERS).map(|consumer| self.get(16 + 8 * consumer)).sum()
    }

    /// Adds everything up, over so many lives of producers. Only when all
    /// victims are gone.
    pub fn balance(&self, lives: u64) -> Balance {
        let mut all = Balance::default();
        for consumer in 0..CONSUMERS {
            let counts = 16 + 8 * consumer;
            all.received += self.get(counts);
            all.torn += self.get(counts + 1);
            all.doubled += self.get(counts + 2);
        }
        for life in 0..lives.min(LIVES) {
            let sent = self.get(257 + 2 * life as usize).min(MESSAGES);
            all.sent += sent;
            for byte in 0..sent.div_ceil(8) as usize {
                let [one, two] = [0, 1].map(|c| self.bits(c, life, byte).load(Ordering::Relaxed));
                // Of the last byte only the messages that were sent count.
                let bits = (sent - 8 * byte as u64).min(8);
                let due = (0xff_u16 >> (8 - bits)) as u8;
                all.lost += u64::from((due & !(one | two)).count_ones());
                all.doubled += u64::from((one & two).count_ones());
            }
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The observer must find what it is there to find.
    #[test]
    fn balance_finds_losses_doubles_and_torn() {
        let path = std::env::temp_dir().join(format!("slipring-ledger-{}", std::process::id()));
        let ledger = Ledger::create(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        for number in 0..20 {
            ledger.begins(3, number);
            ledger.sent(3, number);
        }
        ledger.begins(3, 20);
        assert!(ledger.died_sending(3));
        for number in 0..20 {
            // 5 and 19 are lost.
            if ![5, 19].contains(&number) {
                ledger.received(number as usize % 2, &message(3, number));
            }
        }
        // Once more by the same consumer, and once more by the other.
        ledger.received(0, &message(3, 4));
        ledger.received(1, &message(3, 6));
        // Begun, never returned, arrived: neither sent nor lost.
        ledger.received(1, &message(3, 20));
        for word in 0..WORDS {
            let mut torn = message(3, 7);
            torn[word] ^= 1 << 40;
            ledger.received(0, &torn);
        }
        let all = ledger.balance(4);
        assert_eq!((all.sent, all.lost, all.doubled, all.torn), (20, 2, 2, WORDS as u64));
        assert_eq!(all.received, 18 + 3);
        assert_eq!(ledger.progress(), all.received);
    }
}
