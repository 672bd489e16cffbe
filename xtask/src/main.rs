//! The project's own checks, run as `cargo run -p xtask -- tidy`.
//!
//! Here lies what is worth a test of its own; commands that only name other commands are in the
//! Makefile. Nothing of this ships.

mod tidy;

use std::io::Write;
use std::process::ExitCode;

const USAGE: &str = "usage: cargo run -p xtask -- tidy\n\n  \
    tidy   arrows between crates, module docs, lints, ASCII, sizes";

fn main() -> ExitCode {
    let command = std::env::args().nth(1);
    let done = match command.as_deref() {
        Some("tidy") => tidy::run(),
        _ => Err(anyhow::anyhow!("no such command\n{USAGE}")),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nothing is left to tell when even stderr is closed.
            drop(writeln!(std::io::stderr(), "failed to {error:#}"));
            ExitCode::FAILURE
        }
    }
}
