//! How the archive stands: tables, bindings, what waits, room. Gathered by looking alone.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use chrono::{DateTime, SecondsFormat};
use serde::Serialize;
use tracelake_lake::{DataFolder, Lake, Table, TableSnapshot};
use tracelake_model::{Clock as _, ExperimentId, SystemClock, TableName};
use tracelake_pipeline::TableStatus;
use tracelake_pipeline::maintenance::MaintenanceStatus;
use tracelake_registry::{LifecycleStage, MoveState, Registry};

use super::check::{ServiceState, journal_use, look_for_service};
use crate::folder::{data_folder, moved_aside, open_registry};
use crate::settings::Settings;

/// All that `status` shows.
#[derive(Clone, Debug, Serialize)]
pub struct Overview {
    /// The data folder.
    pub data_dir: String,
    /// Folder of the tables.
    pub tables_dir: String,
    /// Null when none runs.
    pub service: Option<ServiceOverview>,
    /// Why the service that should run does not answer.
    pub service_fault: Option<String>,
    /// Table of experiments without a binding.
    pub default_table: TableName,
    /// What is acknowledged and not committed.
    pub journal: JournalOverview,
    /// What the service did to keep its tables small; null without a service.
    pub maintenance: Option<MaintenanceStatus>,
    /// Room on the disk.
    pub disk: DiskOverview,
    /// Files of the data folder that were damaged: another one took their place.
    pub moved_aside: Vec<String>,
    /// Every table.
    pub tables: Vec<TableOverview>,
    /// Experiments with a table of their own.
    pub bindings: Vec<BindingOverview>,
    /// Earlier traces on their way.
    pub moves: Vec<MoveOverview>,
}

/// The service that runs on the folder.
#[derive(Clone, Debug, Serialize)]
pub struct ServiceOverview {
    /// Its process.
    pub pid: u32,
    /// Where it answers HTTP.
    pub http: String,
    /// Where it takes OTLP over gRPC.
    pub grpc: String,
    /// How long it has been running.
    pub uptime_seconds: u64,
    /// Another data folder commits under the name that this one had.
    pub has_copy: bool,
    /// By how much the system's clock is ahead of the time that is written down; 0 when that follows.
    pub clock_ahead_seconds: i64,
}

/// What is acknowledged and not committed.
#[derive(Clone, Debug, Serialize)]
pub struct JournalOverview {
    /// Bytes that it takes.
    pub bytes: u64,
    /// Bytes that the journal may take.
    pub budget_bytes: u64,
    /// Files of what is set aside.
    pub parked_files: usize,
    /// What is set aside: records that were acknowledged and are in no table, damage of the journal.
    pub parked: Vec<tracelake_pipeline::parked::Entry>,
}

/// Room on the disk, and what takes it.
#[derive(Clone, Debug, Serialize)]
pub struct DiskOverview {
    /// Null where the system does not say.
    pub free_bytes: Option<u64>,
    /// Of the data folder and its tables.
    pub total_bytes: u64,
    /// Of these, the tables.
    pub tables_bytes: u64,
    /// Of these, the journal.
    pub journal_bytes: u64,
}

/// One table. Numbers of what waits are null without a service.
#[derive(Clone, Debug, Default, Serialize)]
pub struct TableOverview {
    /// Its name.
    pub table: String,
    /// Whether experiments without a binding go there.
    pub is_default: bool,
    /// Its Delta version.
    pub version: Option<u64>,
    /// When that was written, in RFC 3339.
    pub last_commit_at: Option<String>,
    /// The same, milliseconds since the Unix epoch.
    #[serde(skip)]
    pub last_commit_unix_milli: Option<i64>,
    /// Null when a file's statistics do not say.
    pub rows: Option<u64>,
    /// Live data files.
    pub files: Option<u64>,
    /// Bytes of the live data files.
    pub bytes: Option<u64>,
    /// Live files with a deletion vector, and the rows that these delete.
    pub deletion_vectors: Option<u64>,
    /// Rows that deletion vectors hide.
    pub deleted_rows: Option<u64>,
    /// Bytes of the table's folder, with its log and with files that are no longer live.
    pub disk_bytes: u64,
    /// Traces that are not committed.
    pub open_traces: Option<u64>,
    /// Of these, late pieces of archived traces.
    pub late_traces: Option<u64>,
    /// Bytes that they hold.
    pub open_bytes: Option<u64>,
    /// Age of the oldest acknowledged trace that is not committed; null when nothing waits, or when
    /// all that waits was put back after a commit that failed.
    pub lag_ms: Option<u64>,
    /// Why the table could not be written.
    pub blocked: Option<String>,
    /// Why the table could not be read.
    pub fault: Option<String>,
}

/// An experiment with a table of its own.
#[derive(Clone, Debug, Serialize)]
pub struct BindingOverview {
    /// The experiment's name.
    pub experiment: String,
    /// Its MLflow id.
    pub experiment_id: ExperimentId,
    /// `active` or `deleted`.
    pub lifecycle_stage: &'static str,
    /// The table.
    pub table: TableName,
    /// When it was bound, in RFC 3339.
    pub since: Option<String>,
}

/// Earlier traces on their way from one table to another.
#[derive(Clone, Debug, Serialize)]
pub struct MoveOverview {
    /// Its MLflow id.
    pub experiment_id: ExperimentId,
    /// Where they are.
    pub source: TableName,
    /// Where they go.
    pub target: TableName,
    /// How many are there.
    pub moved_traces: u64,
}

/// Looks at everything.
///
/// # Errors
/// When there is no data folder, or its registry cannot be read.
pub async fn overview(data_dir: &Path, settings: &Settings) -> anyhow::Result<Overview> {
    let folder = data_folder(data_dir)?;
    anyhow::ensure!(
        folder.root().try_exists()?,
        "no data folder at `{}`\nhint: name it with --data-dir, or start `tracelake serve`",
        folder.root().display()
    );
    let state = look_for_service(&folder).await;
    let known = match open_registry(&folder).await? {
        Some(registry) => {
            let known = Known::read(&registry).await;
            registry.close().await;
            known?
        }
        None => Known::default(),
    };
    let mut waiting = BTreeMap::new();
    let mut default_table = settings.default_table.clone();
    let mut journal = JournalOverview {
        bytes: 0,
        budget_bytes: settings.journal_budget_bytes,
        parked_files: std::fs::read_dir(folder.parked()).map_or(0, Iterator::count),
        parked: tracelake_pipeline::parked::list(&folder.parked())?,
    };
    let (mut service, mut service_fault, mut maintenance) = (None, None, None);
    match &state {
        ServiceState::Running(running) => {
            waiting.clone_from(&running.status.tables);
            default_table = running.status.default_table.clone().unwrap_or(default_table);
            journal.bytes = running.status.journal_bytes;
            journal.budget_bytes = running.status.journal_budget_bytes;
            maintenance = Some(running.status.maintenance.clone());
            service = Some(ServiceOverview {
                pid: running.server.pid,
                http: running.server.http.to_string(),
                grpc: running.server.grpc.to_string(),
                uptime_seconds: running.uptime().as_secs(),
                has_copy: running.status.has_copy,
                clock_ahead_seconds: running.status.clock_ahead_seconds,
            });
        }
        ServiceState::None => journal.bytes = journal_use(&folder)?,
        ServiceState::Silent { reason } => {
            journal.bytes = journal_use(&folder)?;
            service_fault = Some(reason.clone());
        }
    }
    // Of a share that is away the tables that are known have a fault each.
    let within_reach = folder.check_tables().is_ok();
    let listed = if within_reach { folder.tables()? } else { Vec::new() };
    let mut names: BTreeSet<TableName> = listed.into_iter().collect();
    names.extend(known.tables);
    names.extend(waiting.keys().cloned());
    let lake = Lake::new()?;
    let mut tables = Vec::with_capacity(names.len());
    for name in names {
        let waits = service.is_some().then(|| waiting.remove(&name).unwrap_or_default());
        let is_default = name == default_table;
        tables.push(table_overview(&lake, &folder, name, is_default, waits).await?);
    }
    let looked_at = folder.clone();
    let disk = tokio::task::spawn_blocking(move || disk_overview(&looked_at)).await?;
    Ok(Overview {
        data_dir: folder.root().display().to_string(),
        tables_dir: folder.tables_folder().display().to_string(),
        service,
        service_fault,
        default_table,
        journal,
        maintenance,
        disk,
        moved_aside: moved_aside(&folder).unwrap_or_default(),
        tables,
        bindings: known.bindings,
        moves: known.moves,
    })
}

/// What the registry knows.
#[derive(Default)]
struct Known {
    tables: Vec<TableName>,
    bindings: Vec<BindingOverview>,
    moves: Vec<MoveOverview>,
}

impl Known {
    async fn read(registry: &Registry) -> anyhow::Result<Self> {
        let mut bindings = Vec::new();
        for binding in registry.bindings().await? {
            let experiment = registry.experiment(&binding.experiment_id).await?;
            bindings.push(BindingOverview {
                experiment: experiment.name,
                experiment_id: binding.experiment_id,
                lifecycle_stage: LifecycleStage::as_str(experiment.lifecycle_stage),
                table: binding.table,
                since: time_text(binding.enabled_at_micros / 1_000),
            });
        }
        let mut moves = registry.moves(None).await?;
        moves.retain(|one| one.state == MoveState::Pending);
        let moves = moves.into_iter().map(|one| MoveOverview {
            experiment_id: one.experiment_id,
            source: one.source,
            target: one.target,
            moved_traces: one.moved_traces,
        });
        let tables = registry.tables().await?;
        Ok(Self {
            tables: tables.into_iter().map(|table| table.name).collect(),
            bindings,
            moves: moves.collect(),
        })
    }
}

/// UTC in RFC 3339, to the second.
fn time_text(unix_milli: i64) -> Option<String> {
    let time = DateTime::from_timestamp_millis(unix_milli)?;
    Some(time.to_rfc3339_opts(SecondsFormat::Secs, true))
}

/// A table that cannot be read has a fault instead of numbers.
async fn table_overview(
    lake: &Lake,
    folder: &DataFolder,
    name: TableName,
    is_default: bool,
    waits: Option<TableStatus>,
) -> anyhow::Result<TableOverview> {
    let table = Table::at(lake, folder.table(&name))?;
    let mut seen = tokio::task::spawn_blocking(move || {
        let mut seen = TableOverview {
            disk_bytes: size_of(table.location().folder()),
            ..TableOverview::default()
        };
        let read = match table.exists() {
            // Registered, and nothing was written to it yet.
            Ok(false) => Ok(()),
            Ok(true) => table.snapshot(None).and_then(|snapshot| measure(&snapshot, &mut seen)),
            Err(error) => Err(error),
        };
        seen.fault = read.err().map(|error| error.to_string());
        seen
    })
    .await
    .context("look at a table")?;
    seen.table = name.to_string();
    seen.is_default = is_default;
    seen.last_commit_at = seen.last_commit_unix_milli.and_then(time_text);
    if let Some(waits) = waits {
        let now = SystemClock.now_unix_nano();
        let age = |oldest: u64| Duration::from_nanos(now.saturating_sub(oldest)).as_millis();
        seen.open_traces = Some(waits.open_traces as u64);
        seen.late_traces = Some(waits.late_traces as u64);
        seen.open_bytes = Some(waits.open_bytes as u64);
        seen.lag_ms = waits.oldest_unix_nano.and_then(|oldest| u64::try_from(age(oldest)).ok());
        seen.blocked = waits.blocked;
    }
    Ok(seen)
}

fn measure(
    snapshot: &TableSnapshot,
    seen: &mut TableOverview,
) -> Result<(), tracelake_lake::LakeError> {
    seen.version = Some(snapshot.version());
    seen.last_commit_unix_milli = snapshot.committed_at_unix_milli();
    let files = snapshot.live_files((None, None))?;
    let vectors = files.iter().filter_map(|file| file.deletion_vector.as_ref());
    let deleted: u64 =
        vectors.clone().map(|vector| u64::try_from(vector.cardinality).unwrap_or_default()).sum();
    let written: Option<u64> = files.iter().map(|file| file.record_count).sum();
    seen.rows = written.map(|rows| rows.saturating_sub(deleted));
    seen.files = Some(files.len() as u64);
    seen.bytes = Some(files.iter().map(|file| file.size_bytes).sum());
    seen.deletion_vectors = Some(vectors.count() as u64);
    seen.deleted_rows = Some(deleted);
    Ok(())
}

fn disk_overview(folder: &DataFolder) -> DiskOverview {
    let room = rustix::fs::statvfs(folder.root()).ok();
    let tables = folder.tables_folder();
    let tables_bytes = size_of(&tables);
    let elsewhere = if tables.starts_with(folder.root()) { 0 } else { tables_bytes };
    DiskOverview {
        free_bytes: room.map(|room| room.f_bavail.saturating_mul(room.f_frsize)),
        total_bytes: size_of(folder.root()).saturating_add(elsewhere),
        tables_bytes,
        journal_bytes: size_of(&folder.journal()),
    }
}

/// Bytes of all files below a folder; links are not followed, what vanishes meanwhile is passed
/// over.
fn size_of(folder: &Path) -> u64 {
    let mut bytes = 0_u64;
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            match entry.metadata() {
                Ok(metadata) if metadata.is_dir() => folders.push(entry.path()),
                Ok(metadata) if metadata.is_file() => bytes = bytes.saturating_add(metadata.len()),
                Ok(_) | Err(_) => {}
            }
        }
    }
    bytes
}
