//! `tracelake setup`: a table, an experiment, and the way from one to the other.

use std::io::Write;
use std::path::Path;

use tracelake_archive::folder::Archive;
use tracelake_model::TableName;

use super::enable::{MovingArgs, finish_moves};

/// Creates a table and sends an experiment's traces to it.
///
/// A table that is there already is accepted if its columns fit; the experiment is created if it
/// is not there. May be repeated.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  tracelake setup production.monitoring.agent_traces \\\n    --experiment /Shared/health_monitor_agent/production"
)]
pub(crate) struct SetupArgs {
    /// The table
    #[arg(value_name = "CATALOG.SCHEMA.TABLE")]
    table: TableName,
    /// Name of the MLflow experiment
    #[arg(long, value_name = "NAME")]
    experiment: String,
    #[command(flatten)]
    moving: MovingArgs,
}

pub(crate) async fn run(data_dir: &Path, args: &SetupArgs) -> anyhow::Result<()> {
    let settings = args.moving.settings()?;
    let archive = Archive::open_with_tables(data_dir, settings.tables_dir.as_deref()).await?;
    let outcome = async {
        archive.register_default_table(&settings.default_table).await?;
        archive.setup(&args.table, &args.experiment, args.moving.earlier()).await
    };
    let outcome = outcome.await;
    archive.close().await;
    let outcome = outcome?;
    finish_moves(data_dir, &outcome.experiment_id, &args.moving).await?;
    let mut out = std::io::stdout().lock();
    if args.moving.json {
        writeln!(out, "{}", serde_json::to_string(&outcome)?)?;
        return Ok(());
    }
    let created = if outcome.experiment_created { ", created" } else { "" };
    let experiment = tracelake_model::names::printable(&args.experiment);
    writeln!(out, "Trace archival setup complete:")?;
    writeln!(out, "  Table: {}", outcome.table)?;
    writeln!(out, "  Location: {}", outcome.location)?;
    writeln!(out, "  Experiment: {experiment} (id {}{created})", outcome.experiment_id)?;
    Ok(())
}
