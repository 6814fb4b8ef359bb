//! slipring beside its peers: how fast they are (`speed`), and what becomes of
//! them when their users are killed (`torture`). See README.md beside this
//! program's manifest.

mod os;
mod speed;
mod torture;
mod versions;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

type Result<T, E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

#[derive(Parser)]
#[command(about = "Compares slipring with its peers", version)]
struct Arguments {
    #[command(subcommand)]
    program: Program,
}

#[derive(Subcommand)]
enum Program {
    /// Round trips, streams and contended queues, between floors of the hardware
    Speed(speed::Options),
    /// Producers and consumers killed at random, and what their queue made of it
    Torture(torture::Options),
    /// A victim of the torture
    #[command(hide = true)]
    Victim(torture::Victim),
}

fn main() -> ExitCode {
    let done = match Arguments::parse().program {
        Program::Speed(options) => speed::run(&options),
        Program::Torture(options) => torture::run(&options),
        Program::Victim(victim) => torture::victim(&victim),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
