//! The command line: types of every command, and what runs them.

mod flush;
mod query;
mod rebuild;
mod serve;
mod setup;
mod time;

use std::path::PathBuf;

use clap::{Parser, Subcommand};

/// The open trace archive for MLflow: traces in, a Delta table out.
#[derive(Debug, Parser)]
#[command(name = "tracelake", version, max_term_width = 100, args_override_self = true)]
pub(crate) struct Cli {
    /// Folder of the archive: journal, registry and tables
    #[arg(
        long,
        global = true,
        env = "TRACELAKE_DATA_DIR",
        default_value = "./tracelake-data",
        value_name = "FOLDER"
    )]
    data_dir: PathBuf,
    /// Log what happens: warnings without it, more with each -v
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(Box<serve::ServeArgs>),
    Setup(setup::SetupArgs),
    /// Lists archived traces, newest first
    Traces(query::AnalysisArgs),
    /// Shows what failed: traces with status ERROR, or with a span that has it; newest first
    Errors(query::AnalysisArgs),
    /// Shows what is slow: spans, their summed and mean duration per trace; newest first
    Performance(query::AnalysisArgs),
    Sql(query::SqlArgs),
    Flush(flush::FlushArgs),
    Rebuild(rebuild::RebuildArgs),
    /// Prints a completion script for a shell
    #[command(
        after_help = "Example:\n  tracelake completions bash > /etc/bash_completion.d/tracelake"
    )]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

impl Cli {
    /// The log level asked for: a service says what it does, other commands only what is odd.
    pub(crate) fn log_level(&self) -> tracing::Level {
        let serving = u8::from(matches!(self.command, Command::Serve(_)));
        match self.verbose + serving {
            0 => tracing::Level::WARN,
            1 => tracing::Level::INFO,
            2 => tracing::Level::DEBUG,
            _ => tracing::Level::TRACE,
        }
    }

    /// Runs the command.
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        let data_dir = self.data_dir;
        match self.command {
            Command::Serve(args) => serve::run(&data_dir, *args).await,
            Command::Setup(args) => setup::run(&data_dir, &args).await,
            Command::Traces(args) => query::analysis(&data_dir, query::Kind::Traces, &args).await,
            Command::Errors(args) => query::analysis(&data_dir, query::Kind::Errors, &args).await,
            Command::Performance(args) => {
                query::analysis(&data_dir, query::Kind::Performance, &args).await
            }
            Command::Sql(args) => query::sql(&data_dir, &args).await,
            Command::Flush(args) => flush::run(&data_dir, args).await,
            Command::Rebuild(args) => rebuild::run(&data_dir, &args).await,
            Command::Completions { shell } => {
                let mut command = <Self as clap::CommandFactory>::command();
                clap_complete::generate(shell, &mut command, "tracelake", &mut std::io::stdout());
                Ok(())
            }
        }
    }
}
