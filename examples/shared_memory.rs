//! A child process changes a value and an array.
//!
//! ```text
//! cargo run --example shared_memory
//! ```

use slipring::Segment;
use std::error::Error;
use std::process::Command;

fn main() -> Result<(), Box<dyn Error>> {
    match std::env::args().nth(1) {
        None => parent(),
        Some(name) => child(&name),
    }
}

fn parent() -> Result<(), Box<dyn Error>> {
    let name = format!("example-shared-memory-{}", std::process::id());
    // One segment holds any number of objects.
    let segment =
        Segment::builder(&name).value::<i32>("value").array::<i32>("array", 10).create()?;
    let value = segment.value::<i32>("value")?;
    let array = segment.array::<i32>("array")?;

    Command::new(std::env::current_exe()?).arg(&name).spawn()?.wait()?;
    println!("Value: {}", value.load());
    println!("Array: {:?}", array.snapshot()?);
    Ok(())
}

fn child(name: &str) -> Result<(), Box<dyn Error>> {
    let segment = Segment::open(name)?;
    segment.value::<i32>("value")?.store(5);
    let array = segment.array::<i32>("array")?;
    for i in 0..array.len() {
        array.set(i, i as i32 * 2)?;
    }
    Ok(())
}
