//! `tracelake enable` and `disable`: archival of one experiment to a table of its own.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::json;
use tokio_util::sync::CancellationToken;
use tracelake_archive::folder::Archive;
use tracelake_archive::operate::moves::{self, Watch};
use tracelake_archive::settings::{Overrides, Settings};
use tracelake_model::names::printable;
use tracelake_model::{ExperimentId, TableName};
use tracelake_registry::EarlierTraces;

/// Sends an experiment's traces to a table.
///
/// The table is created if it is not there. Traces that arrived while the experiment had no table
/// are moved over from the default table, unless --from-now. Takes effect for requests that
/// arrive after it returned; late spans of archived traces follow their trace. May be repeated.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  tracelake enable production.monitoring.agent_traces --experiment /Shared/agent\n  tracelake enable dev.monitoring.agent_traces --experiment 3 --from-now"
)]
pub(crate) struct EnableArgs {
    /// The table
    #[arg(value_name = "CATALOG.SCHEMA.TABLE")]
    table: TableName,
    /// The MLflow experiment, which must exist
    #[arg(long, value_name = "NAME|ID")]
    experiment: String,
    #[command(flatten)]
    moving: MovingArgs,
}

/// What becomes of earlier traces.
#[derive(Debug, clap::Args)]
pub(crate) struct MovingArgs {
    /// Leave earlier traces in the default table
    #[arg(long)]
    from_now: bool,
    /// Do not wait until earlier traces are moved; a running service goes on with it
    #[arg(long, conflicts_with = "from_now")]
    no_wait: bool,
    /// Settings file [default: tracelake.toml, if it is there]
    #[arg(long, env = "TRACELAKE_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Folder of the tables, such as a mounted share; noted in the data folder for every other
    /// command [default: tables in the data folder]
    #[arg(long, env = "TRACELAKE_TABLES_DIR", value_name = "FOLDER")]
    tables_dir: Option<PathBuf>,
    /// Print the outcome as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

impl MovingArgs {
    pub(crate) const fn earlier(&self) -> EarlierTraces {
        if self.from_now { EarlierTraces::Stay } else { EarlierTraces::Move }
    }

    pub(crate) fn settings(&self) -> anyhow::Result<Settings> {
        let flags = Overrides { tables_dir: self.tables_dir.clone(), ..Overrides::default() };
        Settings::load(self.config.as_deref(), flags)
    }
}

/// Sends an experiment's traces to the default table again.
///
/// What is archived stays where it is, and late spans of those traces go there too.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  tracelake disable --experiment /Shared/agent")]
pub(crate) struct DisableArgs {
    /// The table that it is archived to; an error if it is another one
    #[arg(value_name = "CATALOG.SCHEMA.TABLE")]
    table: Option<TableName>,
    /// The MLflow experiment
    #[arg(long, value_name = "NAME|ID")]
    experiment: String,
    /// Print the outcome as JSON
    #[arg(long)]
    json: bool,
}

pub(crate) async fn enable(data_dir: &Path, args: &EnableArgs) -> anyhow::Result<()> {
    let settings = args.moving.settings()?;
    let archive = Archive::open_with_tables(data_dir, settings.tables_dir.as_deref()).await?;
    let enabled = async {
        archive.register_default_table(&settings.default_table).await?;
        let experiment = archive.existing_experiment(&args.experiment).await?;
        let earlier = args.moving.earlier();
        let outcome = archive.enable(&args.table, &experiment.experiment_id, earlier).await?;
        anyhow::Ok((outcome, experiment))
    };
    let enabled = enabled.await;
    archive.close().await;
    let (outcome, experiment) = enabled?;
    let moved = finish_moves(data_dir, &experiment.experiment_id, &args.moving).await?;
    let mut out = std::io::stdout().lock();
    if args.moving.json {
        let told = json!({
            "table": outcome.table,
            "location": outcome.location,
            "experiment_id": experiment.experiment_id,
            "experiment": experiment.name,
            "moved_traces": moved,
        });
        writeln!(out, "{told}")?;
        return Ok(());
    }
    writeln!(out, "Trace archival enabled: {}", outcome.table)?;
    writeln!(
        out,
        "  Experiment: {} (id {})",
        printable(&experiment.name),
        experiment.experiment_id
    )?;
    if 0 < moved {
        writeln!(out, "  Moved: {moved} earlier traces")?;
    }
    Ok(())
}

pub(crate) async fn disable(data_dir: &Path, args: &DisableArgs) -> anyhow::Result<()> {
    let archive = Archive::open(data_dir).await?;
    let disabled = archive.disable(&args.experiment, args.table.as_ref()).await;
    archive.close().await;
    let (was, experiment) = disabled?;
    let mut out = std::io::stdout().lock();
    if args.json {
        let told = json!({
            "experiment_id": experiment.experiment_id,
            "experiment": experiment.name,
            "table": was,
        });
        writeln!(out, "{told}")?;
        return Ok(());
    }
    let name = printable(&experiment.name);
    match was {
        Some(table) => writeln!(out, "Trace archival disabled: {name}, was {table}")?,
        None => writeln!(out, "Trace archival was not enabled: {name}")?,
    }
    Ok(())
}

/// Waits until the earlier traces of the experiment are moved, and shows how far that is. Returns
/// how many were moved. What is left at `Ctrl-C` is moved by the next service.
pub(crate) async fn finish_moves(
    data_dir: &Path,
    experiment_id: &ExperimentId,
    args: &MovingArgs,
) -> anyhow::Result<u64> {
    if args.from_now || args.no_wait {
        return Ok(0);
    }
    let settings = args.settings()?;
    let cancel = CancellationToken::new();
    let interrupted = cancel.clone();
    let interrupt = tracelake_archive::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            interrupted.cancel();
        }
    });
    let on_terminal = std::io::stderr().is_terminal();
    let shown = AtomicU64::new(0);
    let progress = |moved| {
        if on_terminal && shown.swap(moved, Ordering::Relaxed) != moved {
            // Nothing is left to tell when standard error is gone.
            write!(std::io::stderr(), "\rmoving earlier traces: {moved}").ok();
        }
    };
    let watch = Watch { cancel: &cancel, progress: &progress };
    let moved = moves::finish_moves(data_dir, experiment_id, &settings, watch).await;
    interrupt.abort();
    if 0 < shown.load(Ordering::Relaxed) {
        writeln!(std::io::stderr())?;
    }
    moved
}
