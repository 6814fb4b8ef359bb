//! A child process sends a message through a pipe.
//!
//! ```text
//! cargo run --example pipe
//! ```

use slipring::Pipe;
use std::error::Error;
use std::process::Command;

fn main() -> Result<(), Box<dyn Error>> {
    match std::env::args().nth(1) {
        None => parent(),
        Some(name) => child(&name),
    }
}

fn parent() -> Result<(), Box<dyn Error>> {
    let name = format!("example-pipe-{}", std::process::id());
    // Creating the pipe gives one end, opening it the other.
    let mut pipe = Pipe::create(&name, 64 * 1024)?;
    let mut child = Command::new(std::env::current_exe()?).arg(&name).spawn()?;

    let message = pipe.recv()?;
    println!("Received message: {}", String::from_utf8(message)?);
    pipe.send(b"thank you")?;

    child.wait()?;
    Ok(())
}

fn child(name: &str) -> Result<(), Box<dyn Error>> {
    let mut pipe = Pipe::open(name)?;
    pipe.send(b"hello from the child")?;
    assert_eq!(pipe.recv()?, b"thank you");
    Ok(())
}
