//! Three processes send numbers to a queue, two receive them and add them up.
//!
//! ```text
//! cargo run --example queue
//! ```

use slipring::{RecvError, Segment};
use std::error::Error;
use std::process::Command;

const PRODUCERS: u64 = 3;
const MESSAGES: u64 = 100_000;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["produce", name] => produce(name),
        ["consume", name] => consume(name),
        _ => parent(),
    }
}

fn parent() -> Result<(), Box<dyn Error>> {
    let name = format!("example-queue-{}", std::process::id());
    // The queue holds 1024 messages; whoever sends more waits for room.
    let segment =
        Segment::builder(&name).queue::<u64>("numbers", 1024).value::<u64>("sum").create()?;
    // A queue whose last sender is gone is at its end. So there is one here until
    // all producers have come and gone.
    let sender = segment.queue::<u64>("numbers")?.sender()?;

    let start = |role| Command::new(std::env::current_exe()?).args([role, name.as_str()]).spawn();
    let consumers = [start("consume")?, start("consume")?];
    let producers = (0..PRODUCERS).map(|_| start("produce")).collect::<Result<Vec<_>, _>>()?;
    for mut producer in producers {
        producer.wait()?;
    }
    drop(sender);
    for mut consumer in consumers {
        consumer.wait()?;
    }

    println!("Sum: {}", segment.value::<u64>("sum")?.load());
    println!("Expected: {}", PRODUCERS * MESSAGES * (MESSAGES + 1) / 2);
    Ok(())
}

fn produce(name: &str) -> Result<(), Box<dyn Error>> {
    let mut sender = Segment::open(name)?.queue::<u64>("numbers")?.sender()?;
    for number in 1..=MESSAGES {
        sender.send(number)?;
    }
    Ok(())
}

fn consume(name: &str) -> Result<(), Box<dyn Error>> {
    let segment = Segment::open(name)?;
    let mut receiver = segment.queue::<u64>("numbers")?.receiver()?;
    let (mut count, mut sum) = (0, 0);
    loop {
        match receiver.recv() {
            Ok(number) => (count, sum) = (count + 1, sum + number),
            Err(RecvError::Closed) => break,
            Err(error) => return Err(error.into()),
        }
    }
    println!("Process {} received {count} numbers", std::process::id());
    segment.value::<u64>("sum")?.fetch_add(sum);
    Ok(())
}
