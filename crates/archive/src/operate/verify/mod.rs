//! `verify`: what a table holds against what was acknowledged for it, trace by trace.
//!
//! 1. Everything acknowledged is flushed, by the running service or here.
//! 2. The ledger is read up to its end: which spans came.
//! 3. The service is asked which traces are open: of these a span may be absent.
//! 4. The newest version of the table is read, row by row: which spans are there.
//! 5. The ledger is read on: traces of which something came since 2 are open as well.
//!
//! An entry of the ledger is written before its epoch is committed. So what is in the version of 4
//! is in what was read in 2 or 5, and what was read in 2 is in that version or open in 3. A trace
//! that is not in the table may be in another one, where it was archived before, or moved to; then
//! that one is read for it.
//!
//! What is compared is what rows give back: their spans with resource and scope; tags,
//! assessments and links to runs as clients changed them last; deletions. Columns that are derived
//! from spans are not, nor what `start_trace` says. What is not as it should be is looked for in the
//! table's changes before it is called so: another writer may have done it ([`history`]).
//!
//! The ledger itself is part of what is judged: that it is whole, from the link that is noted outside
//! of it back to where its retention begins.

mod acknowledged;
mod archived;
mod changes;
mod history;
mod judge;
mod manifest;
mod report;
mod rows;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use tokio::runtime::Handle;
use tracelake_journal::RealFs;
use tracelake_lake::{DataFolder, Lake, Table, TableSnapshot};
use tracelake_model::{Clock as _, ExperimentId, SystemClock, TableName, TraceId};
use tracelake_pipeline::Identity;
use tracelake_pipeline::ledger::{Cell, chain_check, newest_mark, read_blocks};
use tracelake_registry::{ExperimentRoute, Registry};

use crate::ask::engine::existing_folder;
use crate::ask::lookup::known_tables;
use crate::discovery::{ServerFile, request_flush, request_open_traces};
use crate::fault::{Fault, FaultKind};
use crate::folder::open_registry;
use crate::service::Service;
use crate::settings::Settings;
use acknowledged::Acknowledged;
use archived::{Archived, Reading};
use history::{excuse_others, excuse_unknown};
use judge::{Excused, Judgement, judge};
use manifest::compare;
use report::hour_text;

pub use rows::rows_of;

pub use report::{ArchivedLine, Figures, HourLine, MANIFEST_FORMAT, TraceLine, VerifyReport};

const MICROS_PER_HOUR: i64 = 3_600_000_000;

/// What to verify.
#[derive(Clone, Debug)]
pub struct VerifyRequest {
    /// The table.
    pub table: TableName,
    /// Of what came in this hour and later.
    pub since_unix_micro: Option<i64>,
    /// Of what came in this hour and before.
    pub until_unix_micro: Option<i64>,
    /// An earlier report, with which the table is compared as well.
    pub against: Option<Box<VerifyReport>>,
    /// Traces that are listed at the most.
    pub max_traces: usize,
}

impl VerifyRequest {
    fn takes_hour(&self, hour: u64) -> bool {
        let hour = i64::try_from(hour).unwrap_or(i64::MAX);
        let of = |micros: i64| micros.div_euclid(MICROS_PER_HOUR);
        self.since_unix_micro.is_none_or(|since| of(since) <= hour)
            && self.until_unix_micro.is_none_or(|until| hour <= of(until))
    }

    const fn is_whole(&self) -> bool {
        self.since_unix_micro.is_none() && self.until_unix_micro.is_none()
    }
}

/// Verifies a table. What is wrong with it is in the report, not an error.
///
/// # Errors
/// When there is no such table and nothing came for it, or the ledger cannot be read.
pub async fn verify_table(
    data_dir: &Path,
    settings: &Settings,
    request: VerifyRequest,
) -> anyhow::Result<VerifyReport> {
    let folder = existing_folder(data_dir)?;
    if let Some(against) = &request.against
        && (against.table != request.table || against.format != MANIFEST_FORMAT)
    {
        let message = format!(
            "the manifest is of table `{}` in form {}, not of `{}` in form {MANIFEST_FORMAT}",
            against.table, against.format, request.table
        );
        return Err(Fault::new(FaultKind::InvalidParameterValue, message).into());
    }
    let side = Side::find(data_dir, &folder, settings).await?;
    let verified = verify_beside(&folder, settings, &side, request).await;
    let stopped = side.stop().await;
    let report = verified?;
    stopped.map(|()| report)
}

/// Who has the journal.
enum Side {
    Running(ServerFile),
    Own(Box<Service>),
}

impl Side {
    async fn find(
        data_dir: &Path,
        folder: &DataFolder,
        settings: &Settings,
    ) -> anyhow::Result<Self> {
        let file = folder.server_file();
        let running = tokio::task::spawn_blocking(move || ServerFile::running(&file)).await?;
        match running {
            Some(server) => Ok(Self::Running(server)),
            None => Ok(Self::Own(Box::new(Service::start(data_dir, settings).await?))),
        }
    }

    /// Commits everything. A table that cannot be written is a note: what waits for it is open.
    async fn flush(&self) -> anyhow::Result<Option<String>> {
        let flushed = match self {
            Self::Running(server) => {
                let server = server.clone();
                let asked = tokio::task::spawn_blocking(move || request_flush(&server)).await?;
                asked.map(|_| ()).map_err(|error| format!("{error:#}"))
            }
            Self::Own(service) => service.pipeline.flush().await.map(|_| ()),
        };
        Ok(flushed.err().map(|reason| format!("not everything could be committed: {reason}")))
    }

    async fn open_traces(&self) -> anyhow::Result<HashSet<TraceId>> {
        let open = match self {
            Self::Running(server) => {
                let server = server.clone();
                tokio::task::spawn_blocking(move || request_open_traces(&server)).await??
            }
            Self::Own(service) => {
                service.pipeline.open_traces().await.map_err(anyhow::Error::msg)?
            }
        };
        Ok(open.into_iter().collect())
    }

    async fn stop(self) -> anyhow::Result<()> {
        match self {
            Self::Running(_) => Ok(()),
            Self::Own(service) => service.stop().await,
        }
    }
}

async fn verify_beside(
    folder: &DataFolder,
    settings: &Settings,
    side: &Side,
    request: VerifyRequest,
) -> anyhow::Result<VerifyReport> {
    let mut notes: Vec<String> = side.flush().await?.into_iter().collect();
    let registry = open_registry(folder).await?;
    let own = match &registry {
        Some(registry) => {
            let identity = Identity::load(Arc::new(RealFs), folder)?;
            Some(identity.mark(registry.archiver_id()))
        }
        None => None,
    };
    let tables = known_tables(folder, settings.default_table.clone(), registry.as_ref()).await?;
    let ledger = folder.ledger();
    let table = request.table.clone();
    let default_table = settings.default_table.clone();
    let asked = request.clone();
    // Before the end of the ledger is looked for: what is noted is written by then.
    let chain = chain_check(folder)?;
    let read = tokio::task::spawn_blocking(move || {
        let until = newest_mark(&ledger)?;
        let mut homes =
            Homes { registry, handle: Handle::current(), default_table, known: HashMap::new() };
        let mut in_scope = |cell: &Cell| {
            Ok(asked.takes_hour(cell.hour)
                && (cell.table == asked.table || homes.home(cell)? == asked.table))
        };
        let read = Acknowledged::read(&ledger, until, chain, &mut in_scope);
        if let Some(registry) = homes.registry {
            homes.handle.block_on(registry.close());
        }
        read
    });
    let acknowledged = read.await??;
    let mut excused = Excused { open: side.open_traces().await?, ..Excused::default() };
    let ledger = folder.ledger();
    let others: Vec<TableName> = tables.into_iter().filter(|other| *other != table).collect();
    let folder = folder.clone();
    let compared = tokio::task::spawn_blocking(move || {
        let lake = Lake::new()?;
        let snapshot = newest(&lake, &folder, &table)?;
        let reading = Reading {
            whole: request.is_whole(),
            changed_since_micros: request.against.as_ref().map(|known| known.made_at_unix_micro),
        };
        let archived = match &snapshot {
            Some(snapshot) => Archived::read(&acknowledged, snapshot, reading)?,
            None if acknowledged.ids.is_empty() => return Err(no_such_table(&table)),
            None => Archived::new(&acknowledged),
        };
        read_blocks(&ledger, acknowledged.mark, None, &mut |block| {
            excused.open.extend(block.traces.iter().map(|(trace, _)| *trace));
            Ok(())
        })?;
        notes.extend(look_elsewhere(
            &lake,
            &folder,
            &others,
            (&acknowledged, &archived),
            &mut excused,
        )?);
        let snapshots = others.iter().map(|table| newest(&lake, &folder, table));
        let judged = judge_with_history(
            own.as_deref(),
            snapshot.as_ref(),
            snapshots,
            (&acknowledged, &archived),
            &mut excused,
        )?;
        let mut report =
            put_together(&request, snapshot.as_ref(), &acknowledged, &archived, judged, notes);
        report.faults.extend(parked(&folder)?);
        report.ok &= report.faults.is_empty();
        Ok(report)
    });
    compared.await?
}

/// Judges, and once more with what other writers did to the traces that are not as they should be:
/// in the table, and in the others of the archive, where a trace that was moved may have been
/// deleted.
fn judge_with_history(
    own: Option<&str>,
    snapshot: Option<&TableSnapshot>,
    others: impl Iterator<Item = anyhow::Result<Option<TableSnapshot>>>,
    (acknowledged, archived): (&Acknowledged, &Archived),
    excused: &mut Excused,
) -> anyhow::Result<Judgement> {
    let judged = judge(acknowledged, archived, excused);
    let (Some(own), Some(snapshot)) = (own, snapshot) else { return Ok(judged) };
    if judged.traces.is_empty() {
        return Ok(judged);
    }
    let reach = excuse_others(snapshot, own, acknowledged, &judged, excused)?;
    excuse_unknown(reach, acknowledged, &judged, excused);
    for snapshot in others {
        if let Some(snapshot) = snapshot? {
            excuse_others(&snapshot, own, acknowledged, &judged, excused)?;
        }
    }
    Ok(judge(acknowledged, archived, excused))
}

/// Where traces belong by now, as the registry has it.
struct Homes {
    registry: Option<Registry>,
    handle: Handle,
    default_table: TableName,
    known: HashMap<ExperimentId, Option<ExperimentRoute>>,
}

impl Homes {
    /// The table that what came in a cell belongs to: the one that it came for, or, when that is a
    /// default table and the experiment was bound since with its earlier traces, the binding's.
    fn home(&mut self, cell: &Cell) -> anyhow::Result<TableName> {
        let Some(registry) = &self.registry else { return Ok(cell.table.clone()) };
        if !self.known.contains_key(&cell.experiment_id) {
            let route = self.handle.block_on(registry.experiment_route(&cell.experiment_id))?;
            self.known.insert(cell.experiment_id.clone(), route);
        }
        let route = self.known.get(&cell.experiment_id).and_then(Option::as_ref);
        let moved = route.filter(|route| {
            let was_default =
                |past: &tracelake_registry::PastTable| past.was_default && past.name == cell.table;
            route.moves_earlier
                && (cell.table == self.default_table || route.past.iter().any(was_default))
        });
        Ok(moved.and_then(|route| route.table.clone()).unwrap_or_else(|| cell.table.clone()))
    }
}

fn newest(
    lake: &Lake,
    folder: &DataFolder,
    table: &TableName,
) -> anyhow::Result<Option<TableSnapshot>> {
    let handle = Table::at(lake, folder.table(table))?;
    Ok(if handle.exists()? { Some(handle.snapshot(None)?) } else { None })
}

fn no_such_table(table: &TableName) -> anyhow::Error {
    Fault::new(
        FaultKind::TableNotFound,
        format!("no table `{table}`, and the ledger has nothing that came for it"),
    )
    .with_hint("`tracelake status` lists the tables")
    .into()
}

/// Looks for spans that the table lacks in the other tables of the archive; what was found is told.
fn look_elsewhere(
    lake: &Lake,
    folder: &DataFolder,
    others: &[TableName],
    (acknowledged, archived): (&Acknowledged, &Archived),
    excused: &mut Excused,
) -> anyhow::Result<Vec<String>> {
    let mut notes = Vec::new();
    for table in others {
        let missing: HashSet<TraceId> = acknowledged
            .ids
            .iter()
            .enumerate()
            .filter(|(trace, id)| {
                let lacks_start = acknowledged.started.get(*trace).is_some_and(Option::is_some)
                    && archived.rows.get(*trace) == Some(&0)
                    && !excused.rows_elsewhere.contains(id);
                let lacks_span = |place: usize| {
                    let gone = archived.found.get(place).is_some_and(|found| *found == 0);
                    let stands = acknowledged.spans.get(place).is_some_and(|s| !s.is_deleted());
                    gone && stands && !excused.elsewhere.contains(&place)
                };
                !excused.open.contains(id)
                    && (lacks_start || acknowledged.range(*trace).any(lacks_span))
            })
            .map(|(_, id)| *id)
            .collect();
        if missing.is_empty() {
            return Ok(notes);
        }
        let Some(snapshot) = newest(lake, folder, table)? else { continue };
        let wanted = acknowledged.only(&missing);
        let found = Archived::read(&wanted, &snapshot, Reading::default())?;
        let has_row = wanted.ids.iter().zip(&found.rows).filter(|(_, rows)| 0 < **rows);
        excused.rows_elsewhere.extend(has_row.map(|(id, _)| *id));
        let unmet = found.unmet.into_iter();
        let unmet = unmet.filter_map(|(trace, unmet)| Some((*wanted.ids.get(trace)?, unmet)));
        excused.unmet_elsewhere.extend(unmet);
        let before = excused.elsewhere.len();
        for (place, _) in found.found.iter().enumerate().filter(|(_, found)| 0 < **found) {
            excused.elsewhere.extend(wanted.place_in(acknowledged, place));
        }
        let count = excused.elsewhere.len() - before;
        if 0 < count {
            notes.push(format!("{count} spans that came for this table are in `{table}`"));
        }
    }
    Ok(notes)
}

/// What was acknowledged and set aside: it is in no table.
fn parked(folder: &DataFolder) -> anyhow::Result<Vec<String>> {
    let entries = tracelake_pipeline::parked::list(&folder.parked())?;
    let said = |entry: &tracelake_pipeline::parked::Entry| {
        let what = if entry.is_record { "a record" } else { "a damaged part of the journal" };
        format!("{what} that was acknowledged is set aside as `parked/{}`", entry.name)
    };
    Ok(entries.iter().map(said).collect())
}

fn put_together(
    request: &VerifyRequest,
    snapshot: Option<&TableSnapshot>,
    acknowledged: &Acknowledged,
    archived: &Archived,
    judged: Judgement,
    mut notes: Vec<String>,
) -> VerifyReport {
    let Judgement { hours, mut traces, others, overridden, unknown_changes } = judged;
    let mut faults: Vec<String> = archived.unreadable.clone();
    faults.extend(acknowledged.chain.faults.iter().cloned());
    notes.extend(acknowledged.chain.notes.iter().cloned());
    if 0 < overridden {
        notes.push(format!(
            "{overridden} tags, assessments and runs of clients another writer changed since"
        ));
    }
    if 0 < unknown_changes {
        notes.push(format!(
            "{unknown_changes} tags, assessments and runs are not as clients left them: by whom they were changed is not known"
        ));
    }
    if 0 < others {
        notes.push(format!("{others} spans of these traces came from elsewhere"));
    }
    note_unknown(archived, request, &mut traces, &mut notes);
    let by_hour = archived.by_hour.iter().map(|(hour, created)| (hour_text(*hour), *created));
    let by_hour: BTreeMap<String, archived::CreatedHour> = by_hour.collect();
    if let Some(against) = &request.against {
        compare(against, &by_hour, acknowledged, request, &mut faults, &mut notes);
    }
    let left_out = traces.len().saturating_sub(request.max_traces);
    let ok = traces.is_empty() && faults.is_empty();
    traces.truncate(request.max_traces);
    let whole = request.is_whole();
    VerifyReport {
        format: MANIFEST_FORMAT,
        table: request.table.clone(),
        version: snapshot.map(TableSnapshot::version),
        made_at_unix_micro: SystemClock.now_unix_micro(),
        since_unix_micro: request.since_unix_micro,
        until_unix_micro: request.until_unix_micro,
        ok,
        hours,
        traces,
        traces_left_out: left_out as u64,
        faults,
        notes,
        archived: by_hour
            .into_iter()
            .filter(|_| whole)
            .map(|(hour, created)| ArchivedLine { hour, figures: created.all })
            .collect(),
    }
}

/// Rows of traces that this ledger does not have: another archiver's, or from before it. Two rows
/// of one trace are wrong all the same.
fn note_unknown(
    archived: &Archived,
    request: &VerifyRequest,
    traces: &mut Vec<TraceLine>,
    notes: &mut Vec<String>,
) {
    let mut rows: HashMap<TraceId, u64> = HashMap::new();
    for trace in &archived.unknown {
        *rows.entry(*trace).or_default() += 1;
    }
    if !rows.is_empty() && request.is_whole() {
        notes.push(format!(
            "{} traces are not in this ledger: from elsewhere, or older",
            rows.len()
        ));
    }
    let mut doubled: Vec<TraceLine> = rows
        .into_iter()
        .filter(|(_, rows)| 1 < *rows)
        .map(|(trace, rows)| TraceLine {
            trace_id: trace.to_mlflow(),
            result: "doubled".to_owned(),
            spans: 0,
            of_spans: 0,
            changes: 0,
            rows,
            hour: String::new(),
            way_in: String::new(),
        })
        .collect();
    doubled.sort_by(|left, right| left.trace_id.cmp(&right.trace_id));
    traces.extend(doubled);
}
