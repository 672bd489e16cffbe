//! `tracelake enable` and `disable`: archival of one experiment to a table of its own.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;
use tracelake_model::names::printable;
use tracelake_model::{ExperimentId, TableName};
use tracelake_registry::{EarlierTraces, MoveState};

use crate::archive::{Archive, data_folder};
use crate::config::{Overrides, Settings};
use crate::control::ServerFile;
use crate::service::Service;

/// How often the progress of a move is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(200);

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
    pub(crate) config: Option<PathBuf>,
    /// Print the outcome as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

impl MovingArgs {
    pub(crate) const fn earlier(&self) -> EarlierTraces {
        if self.from_now { EarlierTraces::Stay } else { EarlierTraces::Move }
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
    let settings = Settings::load(args.moving.config.as_deref(), Overrides::default())?;
    let archive = Archive::open(data_dir).await?;
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
    let disabled = async {
        let experiment = archive.existing_experiment(&args.experiment).await?;
        let id = &experiment.experiment_id;
        if let Some(expected) = &args.table {
            let bound = archive.registry.binding(id).await?;
            if let Some(bound) = bound.filter(|bound| bound != expected) {
                anyhow::bail!(
                    "experiment `{}` is archived to `{bound}`, not to `{expected}`\nhint: leave \
                     the table out to disable it wherever it goes",
                    printable(&experiment.name)
                );
            }
        }
        let was = archive.registry.unbind(id).await?;
        anyhow::Ok((was, experiment))
    };
    let disabled = disabled.await;
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

/// Waits until the earlier traces of the experiment are moved, and does it here when no service
/// runs. Returns how many were moved.
pub(crate) async fn finish_moves(
    data_dir: &Path,
    experiment_id: &ExperimentId,
    args: &MovingArgs,
) -> anyhow::Result<u64> {
    if args.from_now || args.no_wait {
        return Ok(0);
    }
    let folder = data_folder(data_dir)?;
    if ServerFile::running(&folder.server_file()).is_some() {
        let archive = Archive::open(data_dir).await?;
        let moved = watch_moves(&archive, experiment_id, &|| Ok(())).await;
        archive.close().await;
        return moved;
    }
    let settings = Settings::load(args.config.as_deref(), Overrides::default())?;
    let service = Service::start(data_dir, &settings).await?;
    let alive = || {
        anyhow::ensure!(!service.has_ended(), "the pipeline has ended\nhint: see the log above");
        Ok(())
    };
    let moved = watch_moves(&service.archive, experiment_id, &alive).await;
    service.stop().await?;
    moved
}

/// Shows the progress of an experiment's moves until they are done. What is left at `Ctrl-C` is
/// moved by the next service.
async fn watch_moves(
    archive: &Archive,
    experiment_id: &ExperimentId,
    alive: &dyn Fn() -> anyhow::Result<()>,
) -> anyhow::Result<u64> {
    let on_terminal = std::io::stderr().is_terminal();
    let mut shown = 0;
    loop {
        alive()?;
        let mut moves = archive.registry.moves(Some(experiment_id)).await?;
        moves.retain(|one| one.state != MoveState::Cancelled);
        if let Some(fault) = moves.iter().find_map(|one| one.fault.as_ref()) {
            anyhow::bail!(
                "enabled, but earlier traces cannot be moved: {fault}\nhint: mend that and give \
                 the command again, or leave them where they are with --from-now"
            );
        }
        let moved: u64 = moves.iter().map(|one| one.moved_traces).sum();
        if on_terminal && moved != shown {
            shown = moved;
            write!(std::io::stderr(), "\rmoving earlier traces: {moved}")?;
        }
        if moves.iter().all(|one| one.state == MoveState::Done) {
            if 0 < shown {
                writeln!(std::io::stderr())?;
            }
            return Ok(moved);
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            interrupted = tokio::signal::ctrl_c() => {
                interrupted?;
                anyhow::bail!(
                    "stopped with {moved} traces moved\nhint: nothing is lost; `tracelake serve` \
                     goes on with it, or the same command again"
                );
            }
        }
    }
}
