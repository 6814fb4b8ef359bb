//! `slipring`: a demonstration of the library between real processes, its
//! measurements, a soak test that kills them, and tools for its segments.

#![forbid(unsafe_code)]

mod bench;
mod child;
mod demo;
mod machine;
mod measure;
mod options;
mod processes;
mod report;
mod scratch;
mod tools;
mod torture;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Whatever goes wrong ends the program, with a message.
type Error = Box<dyn std::error::Error>;
type Result<T, E = Error> = std::result::Result<T, E>;

/// Queues, pipes, values and arrays in named shared memory.
#[derive(Parser)]
#[command(name = "slipring", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Demo(demo::Options),
    Bench(bench::Options),
    Torture(torture::Options),
    List(tools::list::Options),
    Inspect(tools::inspect::Options),
    Recover(tools::recover::Options),
    Unlink(tools::unlink::Options),
    /// What the processes of the other commands are.
    #[command(hide = true)]
    Child {
        /// Process that started it.
        parent: i32,
        /// What it does, in JSON.
        role: String,
    },
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Demo(options) => demo::run(&options),
        Command::Bench(options) => bench::run(&options),
        Command::Torture(options) => torture::run(&options),
        Command::List(options) => tools::list::run(&options),
        Command::Inspect(options) => tools::inspect::run(&options),
        Command::Recover(options) => tools::recover::run(&options),
        Command::Unlink(options) => tools::unlink::run(&options),
        Command::Child { parent, role } => child::play(parent, &role),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("slipring: {error}");
            ExitCode::FAILURE
        }
    }
}
