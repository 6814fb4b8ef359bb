//! Another process writes over the segment while this one uses all that is in
//! it.

use crate::objects::{Objects, builder, legal_to_open};
use crate::outside::Mapped;
use crate::support::{Name, hear, say, spawn};
use crate::watch::{Random, Watch, rounds};
use slipring::*;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// Operations of a round, and about as many words written over meanwhile.
const STEPS: u64 = 400;

/// The other process.
pub fn child() {
    loop {
        let order = hear();
        let [name, seed, ..] = *order.split(' ').collect::<Vec<_>>() else { panic!("{order}") };
        let outside = Mapped::open(name);
        let mut random = Random::new(seed.parse().unwrap());
        // Half of the rounds put back what was there, so that the objects go on
        // with what was damaged for a moment.
        let blink = random.below(2) == 0;
        say("mapped");
        for _ in 0..STEPS {
            for _ in 0..random.below(3000) {
                std::hint::spin_loop();
            }
            scribble(&outside, &mut random, blink);
        }
        say("done");
    }
}

/// Something wrong somewhere, of which much looks right.
pub fn scribble(outside: &Mapped, random: &mut Random, blink: bool) {
    let words = outside.len() as u64 / 8;
    let at = 8 * random.below(words) as usize;
    let word = outside.word(at);
    let (old, x) = (word.load(Relaxed), random.next());
    match x % 16 {
        0 => word.store(random.next(), Relaxed),
        1 => word.store(u64::MAX, Relaxed),
        2 => word.store(0, Relaxed),
        // Positions, laps, counts: near what is there, or what is elsewhere.
        3 | 4 => word.store(old.wrapping_add(random.below(9)).wrapping_sub(4), Relaxed),
        5 => word.store(old ^ 1 << random.below(64), Relaxed),
        6 => word.store(outside.word(8 * random.below(words) as usize).load(Relaxed), Relaxed),
        7 => word.store(random.below(200), Relaxed),
        // Owners, here and not, and states with them.
        8 => word.store(old & !0xfff | random.below(6), Relaxed),
        9 => word.store(old & !0x7fff | random.below(8) << 12 | random.below(6), Relaxed),
        10 => word.store(old.wrapping_add(1 << 15), Relaxed),
        // Lengths and kinds of records.
        11 => word.store(random.below(8) << 32 | random.below(300), Relaxed),
        12 => outside.half(at + 4 * random.below(2) as usize).store(random.next() as u32, Relaxed),
        13 => outside.half(at).store(random.below(9) as u32, Relaxed),
        _ => outside.byte(at + random.below(8) as usize).store(random.next() as u8, Relaxed),
    }
    if blink {
        for _ in 0..random.below(500) {
            std::hint::spin_loop();
        }
        word.store(old, Relaxed);
    }
}

#[test]
fn by_another_process_while_everything_is_used() {
    let watch = Watch::new("scribble");
    let mut scribbler = spawn("scribble", &[]);
    let mut longest = (Duration::ZERO, "");
    let mut outcomes = [0; 2];
    for seed in 0..rounds(60) {
        let (name, context) = (Name::new("scribble"), format!("seed {seed}"));
        let segment = builder(&name, 0, 0).create().unwrap();
        let mut random = Random::new(seed << 32);
        let mut here = Objects::open(&segment, Duration::from_millis(1));
        // Another attachment, whose leases and views are its own.
        let other = Segment::open(&name).unwrap();
        let mut there = Objects::open(&other, Duration::from_millis(1));
        scribbler.say(&format!("{} {seed}", &*name));
        assert_eq!(scribbler.hear(), "mapped");
        for step in 0..STEPS {
            let objects = if step % 2 == 0 { &mut here } else { &mut there };
            objects.step(&mut random, &watch, &context);
            if step % 40 == 39 {
                // What is in use is opened again.
                watch.step(|| format!("{context}, opening"));
                match Segment::open(&name) {
                    Ok(late) => {
                        outcomes[0] += 1;
                        let mut late = Objects::open(&late, Duration::ZERO);
                        late.step(&mut random, &watch, &context);
                    }
                    Err(error) => {
                        outcomes[1] += 1;
                        legal_to_open(&error);
                    }
                }
            }
        }
        assert_eq!(scribbler.hear(), "done");
        watch.step(|| format!("{context}, dropping"));
        longest = longest.max(here.longest).max(there.longest);
        drop((here, there, segment, other));
    }
    println!("longest operation: {longest:?}; opened again, refused: {outcomes:?}");
}
