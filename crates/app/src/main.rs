//! The composition root: configuration, the service, the command line.
//!
//! Comes in: arguments, environment, a settings file. Goes out: an exit code. This is the one
//! place that knows all rooms; it decides nothing about spans, rows or commits.

mod archive;
mod cli;
mod config;
mod control;
mod pipeline;
mod service;
mod tasks;
mod uncommitted;

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use clap::Parser as _;
use tracing_subscriber::EnvFilter;

/// Parses, runs, and maps the outcome to an exit code: 0 done, 1 failed, 2 wrong arguments.
fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    let filter = EnvFilter::try_from_env("TRACELAKE_LOG").unwrap_or_else(|_| {
        let level = cli.log_level();
        EnvFilter::new(format!("warn,tracelake={level},tracelake_intake={level},tracelake_journal={level},tracelake_lake={level}"))
    });
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&anyhow::Error::new(error).context("start threads")),
    };
    let outcome = runtime.block_on(cli.run());
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        // A reader that has seen enough, such as `head`, is no failure.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

fn fail(error: &anyhow::Error) -> ExitCode {
    // Nothing is left to tell when standard error is gone.
    writeln!(std::io::stderr().lock(), "error: {error:#}").ok();
    ExitCode::FAILURE
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause
            .downcast_ref::<std::io::Error>()
            .is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
    })
}
