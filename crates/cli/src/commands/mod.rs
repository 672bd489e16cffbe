//! The command line: types of every command, and what runs them.

mod check;
mod enable;
mod flush;
mod import;
mod maintain;
mod man;
mod parked;
mod query;
mod rebuild;
mod serve;
mod setup;
mod show;
mod status;
mod verify;

use std::path::PathBuf;

use clap::{Parser, Subcommand};

/// The open trace archive for MLflow: traces in, a Delta table out.
#[derive(Debug, Parser)]
#[command(name = "tracelake", version, max_term_width = 100, args_override_self = true, after_help = EXIT_CODES)]
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
    Enable(enable::EnableArgs),
    Disable(enable::DisableArgs),
    Check(check::CheckArgs),
    Verify(verify::VerifyArgs),
    Status(status::StatusArgs),
    /// Lists archived traces, newest first
    Traces(query::TracesArgs),
    /// Shows what failed: traces with status ERROR or with a span that has it; or groups of them
    Errors(query::ErrorsArgs),
    /// Shows what is slow: summed and mean span duration per trace; or percentiles of groups
    Performance(query::PerformanceArgs),
    Sql(query::SqlArgs),
    Show(show::ShowArgs),
    Flush(flush::FlushArgs),
    Parked(parked::ParkedArgs),
    Import(Box<import::ImportArgs>),
    Maintain(Box<maintain::MaintainArgs>),
    Rebuild(rebuild::RebuildArgs),
    /// Prints a completion script for a shell
    #[command(
        after_help = "Examples:\n  tracelake completions bash > /etc/bash_completion.d/tracelake\n  tracelake completions zsh > ~/.zfunc/_tracelake"
    )]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    Man(man::ManArgs),
}

/// The end of the help of tracelake itself.
const EXIT_CODES: &str = "\
Exit codes:
  0    done; also when the reader of a pipe, such as head, has seen enough
  1    failed; the message says what and, on a line `hint:`, what to do
  2    wrong arguments
  70   a service ended by itself: a defect, or a journal that cannot be read; start it again
  130  broken off with Ctrl-C";

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
            Command::Enable(args) => enable::enable(&data_dir, &args).await,
            Command::Disable(args) => enable::disable(&data_dir, &args).await,
            Command::Check(args) => check::run(&data_dir, &args).await,
            Command::Verify(args) => verify::run(&data_dir, &args).await,
            Command::Status(args) => status::run(&data_dir, &args).await,
            Command::Traces(args) => query::traces(&data_dir, &args).await,
            Command::Errors(args) => query::errors(&data_dir, &args).await,
            Command::Performance(args) => query::performance(&data_dir, &args).await,
            Command::Sql(args) => query::sql(&data_dir, &args).await,
            Command::Show(args) => show::run(&data_dir, &args).await,
            Command::Man(args) => man::run(<Self as clap::CommandFactory>::command(), &args),
            Command::Flush(args) => flush::run(&data_dir, args).await,
            Command::Parked(args) => parked::run(&data_dir, args).await,
            Command::Import(args) => import::run(&data_dir, *args).await,
            Command::Maintain(args) => maintain::run(&data_dir, *args).await,
            Command::Rebuild(args) => rebuild::run(&data_dir, &args).await,
            Command::Completions { shell } => {
                let mut command = <Self as clap::CommandFactory>::command();
                clap_complete::generate(shell, &mut command, "tracelake", &mut std::io::stdout());
                Ok(())
            }
        }
    }
}
