//! Load generator: OTLP spans over HTTP, as fast as they are acknowledged or by a schedule.
//!
//! Comes in: options. Goes out: requests, a report as JSON, the ids of what was acknowledged. It knows
//! OTLP and nothing of tracelake, so that any receiver of OTLP can stand in its place. It shares the
//! machine with what it measures, so requests are kept in memory and only what differs is filled in.
//! Never ships.

mod error;
mod histogram;
mod http;
mod options;
mod random;
mod request;
mod run;
mod spans;
mod tally;
mod text;
mod wire;

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser as _;

use crate::error::LoadError;
use crate::options::Options;

fn main() -> ExitCode {
    let options = Options::parse();
    match run_and_report(&options) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(unresolved) => {
            complain(&format!(
                "{unresolved} spans are unresolved: sent, and no answer within --patience"
            ));
            ExitCode::FAILURE
        }
        Err(error) => {
            let source = std::error::Error::source(&error);
            let cause = source.map(|source| format!(": {source}")).unwrap_or_default();
            complain(&format!("{error}{cause}\nhint: {}", error.hint()));
            ExitCode::FAILURE
        }
    }
}

/// Gives the number of spans whose fate nobody knows.
fn run_and_report(options: &Options) -> Result<u64, LoadError> {
    let done = run::run(options)?;
    // Taken before the ids are written, which no service waits for.
    let cpu = own_cpu_time();
    let report = done.tally.report(options, &done.shape, done.begun_unix_nano, done.took, cpu);
    if let Some(path) = &options.ids {
        done.tally.write_ids(path)?;
    }
    writeln!(std::io::stdout(), "{report:#}").map_err(LoadError::Report)?;
    Ok(done.tally.unresolved)
}

/// User and system time of this process; none where `/proc` does not tell.
fn own_cpu_time() -> Option<Duration> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    // utime and stime are fields 14 and 15 of the whole line, in hundredths of a second.
    let ticks = fields.split_whitespace().skip(11).take(2).map(str::parse::<u64>);
    let ticks = ticks.sum::<Result<u64, _>>().ok()?;
    Some(Duration::from_millis(ticks * 10))
}

fn complain(message: &str) {
    // Nothing is left to tell when even stderr is closed.
    drop(writeln!(std::io::stderr(), "tracelake-loadgen: {message}"));
}
