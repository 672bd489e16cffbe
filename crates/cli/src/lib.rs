//! The command line room: arguments in, text out.
//!
//! Comes in: arguments and environment. Goes out: an exit code, and what is printed. What a command does is
//! the business of `tracelake_archive`; this room knows what it is called, what it takes, and what its answer
//! looks like to a person or a program.
//!
//! The binary is [`run_command_line`] and nothing else.

mod commands;
mod flags;
mod output;
mod time;

use std::io::Write;
use std::process::ExitCode;

use clap::Parser as _;
use tracelake_archive::service::EndedByItself;
use tracelake_archive::{Fault, FaultKind};
use tracelake_model::names::printable_lines;
use tracing_subscriber::EnvFilter;

/// Parses the arguments of this process, runs the command, and maps the outcome to an exit code: 0
/// done, 1 failed, 2 wrong arguments, 70 a service ended by itself, 130 broken off by the user.
#[must_use]
pub fn run_command_line() -> ExitCode {
    let cli = match commands::Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return refuse(&error),
    };
    log_to_stderr(cli.log_level());
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.enable_all().on_thread_start(|| {
        tracelake_archive::know_date();
    });
    let runtime = match runtime.build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&anyhow::Error::new(error).context("start threads")),
    };
    let outcome = runtime.block_on(cli.run());
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        // A reader that has seen enough, such as `head`, is no failure.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) if is_interrupted(&error) => {
            fail(&error);
            ExitCode::from(130)
        }
        Err(error) if error.is::<EndedByItself>() => {
            fail(&error);
            ExitCode::from(70)
        }
        Err(error) => fail(&error),
    }
}

/// Sends the log of this process to standard error: warnings of libraries, of tracelake what
/// `level` says, or what `TRACELAKE_LOG` says. Does nothing where a log is set up already.
fn log_to_stderr(level: tracing::Level) {
    let filter = EnvFilter::try_from_env("TRACELAKE_LOG").unwrap_or_else(|_| {
        EnvFilter::new(format!("warn,tracelake_archive={level},tracelake_cli={level},tracelake_intake={level},tracelake_catalog={level},tracelake_journal={level},tracelake_lake={level},tracelake_pipeline={level}"))
    });
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(output::color_on_stderr())
        .try_init()
        .ok();
}

/// The log of a process that is not ours, such as Python's: warnings.
pub fn log_warnings() {
    log_to_stderr(tracing::Level::WARN);
}

/// Help and version as they are; of wrong arguments only what is safe to show, since the message
/// quotes them.
fn refuse(error: &clap::Error) -> ExitCode {
    if error.use_stderr() {
        let message = printable_lines(&error.render().to_string());
        writeln!(std::io::stderr().lock(), "{}", message.trim_end()).ok();
    } else {
        error.print().ok();
    }
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
}

/// Says what failed, as far as it is safe to show: messages quote names and statements.
fn fail(error: &anyhow::Error) -> ExitCode {
    // Nothing is left to tell when standard error is gone.
    writeln!(std::io::stderr().lock(), "{}", printable_lines(&format!("error: {error:#}"))).ok();
    ExitCode::FAILURE
}

fn is_interrupted(error: &anyhow::Error) -> bool {
    let kinds = error.chain().filter_map(|cause| cause.downcast_ref::<Fault>());
    kinds.map(|fault| fault.kind).any(|kind| kind == FaultKind::Interrupted)
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause
            .downcast_ref::<std::io::Error>()
            .is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
    })
}
