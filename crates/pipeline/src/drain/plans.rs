//! The plans of epochs: which traces an epoch brings to which table, noted before it commits.
//!
//! With the table's `txn`, which is in the same version as the rows, a plan tells a replay which
//! pieces are in, so that it hands over none of them again. For that, a table gets no later epoch
//! before its entries in the plans of earlier ones are known to be in, or are struck out:
//! [`EpochPlans::begin`] writes what was struck before it writes a further plan. So does a plan that
//! failed half-way: it may have taken its name all the same.
//!
//! A plan draws a nonce for each table, which is in the version as well: so no version of another
//! data folder, which is a copy of this one, is taken for its own ([`EpochMark`]).

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use tracelake_journal::{JournalFs, SegmentNumber};
use tracelake_lake::{DataFolder, EpochMark, LakeError, TraceDraft};
use tracelake_model::{TableName, Times, TraceId};
use tracing::{error, warn};
use uuid::Uuid;

use super::{FlushOutcome, Pipeline};
use crate::durable_file::write_durably;

/// Hex digits of a trace id.
const ID_DIGITS: usize = 32;

/// The plans of epochs that are not noted as done.
#[derive(Debug)]
pub(super) struct EpochPlans {
    fs: Arc<dyn JournalFs>,
    folder: DataFolder,
    plans: BTreeMap<SegmentNumber, EpochPlan>,
}

#[derive(Debug, Default)]
struct EpochPlan {
    tables: BTreeMap<TableName, PlannedTable>,
    /// The time when it was made.
    times: Times,
    /// What the file says is what is here.
    is_written: bool,
}

/// What an epoch brings to one table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PlannedTable {
    /// The name of the `txn`.
    application: String,
    /// By which its version is known, whoever else counts under that name; none in a plan of the version
    /// before.
    nonce: Option<i64>,
    pub(super) traces: Vec<TraceId>,
    /// Of these, the ones that are left for a later epoch.
    deferred: HashSet<TraceId>,
}

/// The file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PlanFile {
    version: u32,
    given_unix_nano: u64,
    proven_unix_nano: u64,
    tables: Vec<Entry>,
}

/// The version of [`PlanFile`] that is written. The one before it is a list of [`OldEntry`].
const VERSION: u32 = 2;

/// What the file says of a table.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    table: TableName,
    application: String,
    nonce: Option<i64>,
    /// The trace ids in hex, one after the other.
    traces: String,
}

/// What a file of the version before says of a table.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OldEntry {
    table: TableName,
    application: String,
    traces: String,
}

impl PlannedTable {
    /// Draws a nonce.
    pub(super) fn new(application: String, traces: Vec<TraceId>) -> Self {
        // 63 bits, of which a v4 id leaves all but two to chance.
        let nonce = i64::try_from(Uuid::new_v4().as_u128() >> 65).ok();
        Self { application, nonce, traces, deferred: HashSet::new() }
    }

    /// How the version is known that brings it.
    pub(super) fn mark(&self, epoch: SegmentNumber) -> EpochMark {
        EpochMark {
            application: self.application.clone(),
            number: i64::try_from(epoch.get()).unwrap_or(i64::MAX),
            nonce: self.nonce,
        }
    }
}

impl Pipeline {
    /// Notes which traces go to which table. Returns those of tables that can be opened.
    pub(super) fn plan(
        &mut self,
        segment: SegmentNumber,
        settled: HashMap<TableName, Vec<TraceDraft>>,
        outcome: &mut FlushOutcome,
    ) -> anyhow::Result<BTreeMap<TableName, Vec<TraceDraft>>> {
        let mut ready = BTreeMap::new();
        for (table, traces) in settled.into_iter().filter(|(_, traces)| !traces.is_empty()) {
            match self.writers.guarded(&table, |_| Ok(())) {
                Ok(()) => {
                    ready.insert(table, traces);
                }
                Err(fault) => {
                    self.note_fault(&table, &fault, outcome);
                    self.put_back(&table, traces, false);
                }
            }
        }
        // When all tables are open: one of them may have shown that another name must be taken.
        let application = self.writers.application();
        let planned = |(table, traces): (&TableName, &Vec<TraceDraft>)| {
            let ids = traces.iter().map(|trace| trace.trace_id).collect();
            (table.clone(), PlannedTable::new(application.clone(), ids))
        };
        let planned = ready.iter().map(planned).collect();
        if let Err(error) = self.plans.begin(segment, planned, self.clock.times()) {
            for (table, traces) in ready {
                self.put_back(&table, traces, false);
            }
            return Err(error);
        }
        Ok(ready)
    }
}

impl EpochPlans {
    pub(super) const fn new(fs: Arc<dyn JournalFs>, folder: DataFolder) -> Self {
        Self { fs, folder, plans: BTreeMap::new() }
    }

    /// Reads the plans of epochs after `done`, and deletes the others.
    pub(super) fn load(
        fs: Arc<dyn JournalFs>,
        folder: DataFolder,
        done: Option<SegmentNumber>,
    ) -> anyhow::Result<Self> {
        let mut plans = Self::new(fs, folder);
        let listed = plans.fs.list(&plans.folder.journal()).context("list the plans of epochs")?;
        for number in listed.iter().filter_map(|file| DataFolder::epoch_of_plan(&file.name)) {
            let plan = read(plans.fs.as_ref(), &plans.folder.epoch_plan(number))?;
            plans.plans.insert(SegmentNumber::new(number), plan);
        }
        if let Some(done) = done {
            plans.forget_through(done);
        }
        Ok(plans)
    }

    /// The epochs that have a plan, ascending.
    pub(super) fn epochs(&self) -> Vec<SegmentNumber> {
        self.plans.keys().copied().collect()
    }

    /// The highest epoch that has a plan: no table has a higher one.
    pub(super) fn highest(&self) -> Option<SegmentNumber> {
        self.plans.keys().next_back().copied()
    }

    /// What `epoch` was to bring to each table.
    pub(super) fn tables(&self, epoch: SegmentNumber) -> BTreeMap<TableName, PlannedTable> {
        self.plans.get(&epoch).map(|plan| plan.tables.clone()).unwrap_or_default()
    }

    /// How the version is known that brings `epoch` to a table.
    pub(super) fn mark(&self, epoch: SegmentNumber, table: &TableName) -> Option<EpochMark> {
        Some(self.plans.get(&epoch)?.tables.get(table)?.mark(epoch))
    }

    /// The newest times of the plans.
    pub(super) fn times(&self) -> Times {
        self.plans.values().map(|plan| plan.times).max().unwrap_or_default()
    }

    /// Notes what `epoch` is to bring; durable when this returns, and so is all that was struck
    /// from earlier plans. After an error nothing must be committed, and the epoch is as one whose
    /// tables were all struck: its file may be there.
    pub(super) fn begin(
        &mut self,
        epoch: SegmentNumber,
        tables: BTreeMap<TableName, PlannedTable>,
        times: Times,
    ) -> anyhow::Result<()> {
        if tables.is_empty() {
            return Ok(());
        }
        for (earlier, plan) in &mut self.plans {
            plan.write(self.fs.as_ref(), &self.folder, *earlier)?;
        }
        let plan =
            self.plans.entry(epoch).or_insert(EpochPlan { tables, times, is_written: false });
        let written = plan.write(self.fs.as_ref(), &self.folder, epoch);
        if written.is_err() {
            // It may have its name already, and be durable with the next sync of the folder.
            plan.tables.clear();
        }
        written
    }

    /// Notes that these traces, and no others, are left for a later epoch; durable when this
    /// returns.
    pub(super) fn leave_out(
        &mut self,
        epoch: SegmentNumber,
        table: &TableName,
        deferred: &HashSet<TraceId>,
    ) -> Result<(), LakeError> {
        let Some(plan) = self.plans.get_mut(&epoch) else { return Ok(()) };
        if let Some(planned) = plan.tables.get_mut(table) {
            planned.deferred.clone_from(deferred);
        }
        plan.is_written = false;
        let written = plan.write(self.fs.as_ref(), &self.folder, epoch);
        written.map_err(|error| LakeError::Storage {
            action: "write the plan of an epoch in",
            path: self.folder.journal().display().to_string(),
            source: std::io::Error::other(format!("{error:#}")),
        })
    }

    /// The table does not have the epoch, and will not get it.
    pub(super) fn strike(&mut self, epoch: SegmentNumber, table: &TableName) {
        if let Some(plan) = self.plans.get_mut(&epoch) {
            plan.is_written &= plan.tables.remove(table).is_none();
        }
    }

    /// Deletes the plans of epochs that are done.
    pub(super) fn forget_through(&mut self, done: SegmentNumber) {
        self.forget(|epoch| epoch <= done);
    }

    /// Deletes the plans of these epochs, which are done. Whether they are gone, durably.
    pub(super) fn forget(&mut self, is_done: impl Fn(SegmentNumber) -> bool) -> bool {
        let mut are_gone = true;
        for epoch in self.epochs().into_iter().filter(|epoch| is_done(*epoch)) {
            self.plans.remove(&epoch);
            let path = self.folder.epoch_plan(epoch.get());
            match self.fs.remove(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    // It means nothing any more; the next start tries again.
                    warn!(path = %path.display(), %error, "plan of an epoch that is done not deleted");
                    are_gone = false;
                }
                _ => {}
            }
        }
        are_gone
    }
}

impl EpochPlan {
    fn write(
        &mut self,
        fs: &dyn JournalFs,
        folder: &DataFolder,
        epoch: SegmentNumber,
    ) -> anyhow::Result<()> {
        if self.is_written {
            return Ok(());
        }
        let entry = |(table, planned): (&TableName, &PlannedTable)| {
            let kept = planned.traces.iter().filter(|trace| !planned.deferred.contains(trace));
            Entry {
                table: table.clone(),
                application: planned.application.clone(),
                nonce: planned.nonce,
                traces: kept.map(ToString::to_string).collect(),
            }
        };
        let file = PlanFile {
            version: VERSION,
            given_unix_nano: self.times.given_unix_nano,
            proven_unix_nano: self.times.proven_unix_nano,
            tables: self.tables.iter().map(entry).collect(),
        };
        let path = folder.epoch_plan(epoch.get());
        write_durably(fs, &path, &serde_json::to_string(&file)?)?;
        self.is_written = true;
        Ok(())
    }
}

/// A plan that cannot be read plans nothing: its traces are handed over again, and what is in is
/// found by its content.
///
/// # Errors
/// When the file cannot be read, or is of a later version: then nothing is known of what it plans.
fn read(fs: &dyn JournalFs, path: &Path) -> anyhow::Result<EpochPlan> {
    let mut text = Vec::new();
    fs.open_read(path)
        .and_then(|mut file| file.read_to_end(&mut text))
        .with_context(|| format!("read `{}`", path.display()))?;
    let plan = parse(&text).with_context(|| format!("read `{}`", path.display()))?;
    Ok(plan.unwrap_or_else(|fault| {
        error!(path = %path.display(), error = format!("{fault:#}"), "plan of an epoch is damaged");
        EpochPlan { is_written: true, ..EpochPlan::default() }
    }))
}

/// What only the version of a file says.
#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

/// # Errors
/// For a file of a later version; within, for a damaged one.
fn parse(text: &[u8]) -> anyhow::Result<anyhow::Result<EpochPlan>> {
    if let Ok(Versioned { version }) = serde_json::from_slice(text) {
        anyhow::ensure!(
            version == VERSION,
            "a plan of version {version}; this program knows {VERSION}\nhint: use the newer program"
        );
    }
    let planned = |table, application, nonce, traces: &str| {
        let traces = trace_ids(traces).context("trace ids")?;
        Ok((table, PlannedTable { application, nonce, traces, deferred: HashSet::new() }))
    };
    let file = serde_json::from_slice::<PlanFile>(text);
    Ok(match (file, serde_json::from_slice::<Vec<OldEntry>>(text)) {
        (Ok(file), _) => {
            let PlanFile { given_unix_nano, proven_unix_nano, tables, .. } = file;
            let times = Times { given_unix_nano, proven_unix_nano };
            let tables = tables
                .into_iter()
                .map(|entry| planned(entry.table, entry.application, entry.nonce, &entry.traces));
            let tables: anyhow::Result<_> = tables.collect();
            tables.map(|tables| EpochPlan { tables, times, is_written: true })
        }
        (_, Ok(entries)) => {
            let tables = entries
                .into_iter()
                .map(|entry| planned(entry.table, entry.application, None, &entry.traces));
            let tables: anyhow::Result<_> = tables.collect();
            tables.map(|tables| EpochPlan { tables, is_written: true, ..EpochPlan::default() })
        }
        (Err(fault), Err(_)) => Err(fault.into()),
    })
}

fn trace_ids(text: &str) -> Option<Vec<TraceId>> {
    let id = |digits: &[u8]| TraceId::parse(std::str::from_utf8(digits).ok()?);
    text.as_bytes().chunks(ID_DIGITS).map(id).collect()
}

#[cfg(test)]
mod tests {
    use tracelake_journal::{RealFs, SimulatedFs, create_folders};

    use super::*;

    fn folder() -> (tempfile::TempDir, DataFolder) {
        let held = tempfile::tempdir().unwrap();
        let folder = DataFolder::new(held.path()).unwrap();
        std::fs::create_dir_all(folder.journal()).unwrap();
        (held, folder)
    }

    fn table(name: &str) -> TableName {
        format!("a.b.{name}").parse().unwrap()
    }

    fn planned(ids: &[u8]) -> PlannedTable {
        PlannedTable::new("me".to_owned(), ids.iter().map(|id| TraceId([*id; 16])).collect())
    }

    fn said(plans: &EpochPlans, epoch: u64) -> Vec<(String, Vec<u8>)> {
        let tables = plans.tables(SegmentNumber::new(epoch)).into_iter();
        tables
            .map(|(table, planned)| {
                (table.to_string(), planned.traces.iter().map(|trace| trace.0[0]).collect())
            })
            .collect()
    }

    fn loaded(folder: &DataFolder, done: u64) -> EpochPlans {
        EpochPlans::load(Arc::new(RealFs), folder.clone(), Some(SegmentNumber::new(done))).unwrap()
    }

    /// Scenario: a plan; a trace of it deferred; a table struck; the next plan; the first epoch
    /// done. Each looked at as after a crash.
    /// Guarantees: what is deferred is durable at once, what is struck before the next plan is, and
    /// what is done is gone.
    #[test]
    fn plans_are_durable_when_they_must_be() {
        let (_held, folder) = folder();
        let mut plans = EpochPlans::new(Arc::new(RealFs), folder.clone());
        let (one, two) = (table("one"), table("two"));
        let first = SegmentNumber::new(7);
        let tables = [(one.clone(), planned(&[1, 2, 3])), (two.clone(), planned(&[4]))];
        plans.begin(first, tables.into_iter().collect(), Times::default()).unwrap();
        let expected = vec![("a.b.one".to_owned(), vec![1, 2, 3]), ("a.b.two".to_owned(), vec![4])];
        assert_eq!(said(&loaded(&folder, 6), 7), expected);

        for deferred in [1, 2] {
            let deferred = HashSet::from([TraceId([deferred; 16])]);
            plans.leave_out(first, &one, &deferred).unwrap();
        }
        assert_eq!(said(&loaded(&folder, 6), 7)[0].1, [1, 3]);

        plans.strike(first, &two);
        let second = SegmentNumber::new(8);
        let tables = [(two, planned(&[4]))].into_iter().collect();
        plans.begin(second, tables, Times::default()).unwrap();
        let after = loaded(&folder, 6);
        assert_eq!(said(&after, 7), [("a.b.one".to_owned(), vec![1, 3])]);
        assert_eq!((after.highest(), said(&after, 8).len()), (Some(second), 1));

        plans.forget_through(first);
        assert_eq!(said(&loaded(&folder, 6), 7), []);
        assert_eq!(loaded(&folder, 8).highest(), None);
        let left = std::fs::read_dir(folder.journal()).unwrap();
        assert_eq!(left.count(), 0);
    }

    /// Scenario: a plan that is no JSON, or whose trace ids are cut.
    /// Guarantees: the archiver starts; the epoch's number is not used again.
    #[test]
    fn a_damaged_plan_plans_nothing() {
        let (_held, folder) = folder();
        for text in ["", "[{\"table\":\"a.b.c\",\"application\":\"x\",\"traces\":\"0102\"}]"] {
            std::fs::write(folder.epoch_plan(7), text).unwrap();
            let plans = loaded(&folder, 6);
            assert_eq!((plans.highest(), said(&plans, 7)), (Some(SegmentNumber::new(7)), vec![]));
        }
    }

    /// Scenario: a plan with times and a nonce; one as the version before wrote it; one of a later version.
    /// Guarantees: nonces and times are read as they were written; the old one has none; the version before
    /// does not take ours for a plan; a later one is refused.
    #[test]
    fn plans_of_both_versions_are_read() {
        let (_held, folder) = folder();
        let mut plans = EpochPlans::new(Arc::new(RealFs), folder.clone());
        let one = table("one");
        let times = Times { given_unix_nano: 9, proven_unix_nano: 4 };
        let seventh = SegmentNumber::new(7);
        plans.begin(seventh, [(one.clone(), planned(&[1]))].into_iter().collect(), times).unwrap();
        let mark = plans.mark(seventh, &one).unwrap();
        assert!(mark.nonce.is_some_and(|nonce| 0 <= nonce));
        assert_ne!(planned(&[1]).nonce, planned(&[1]).nonce);
        let again = loaded(&folder, 6);
        assert_eq!((again.mark(seventh, &one), again.times()), (Some(mark), times));
        let text = std::fs::read(folder.epoch_plan(7)).unwrap();
        assert!(serde_json::from_slice::<Vec<OldEntry>>(&text).is_err());

        let id = "01".repeat(16);
        let old = format!(r#"[{{"table":"a.b.one","application":"me","traces":"{id}"}}]"#);
        std::fs::write(folder.epoch_plan(7), old).unwrap();
        let old = loaded(&folder, 6);
        assert_eq!(said(&old, 7), [("a.b.one".to_owned(), vec![1])]);
        assert_eq!(old.mark(seventh, &one).unwrap().nonce, None);

        std::fs::write(folder.epoch_plan(7), r#"{"version":3,"more":1}"#).unwrap();
        let six = Some(SegmentNumber::new(6));
        assert!(EpochPlans::load(Arc::new(RealFs), folder.clone(), six).is_err());
    }

    /// Scenario: the sync of the folder fails once for a plan, which has its name by then; another epoch
    /// is planned.
    /// Guarantees: after a crash at either moment, or when the later one cannot be written either,
    /// nothing counts as planned that was not committed; the number is not used again.
    #[test]
    fn a_plan_that_failed_half_way_is_struck_before_the_next() {
        let (_held, folder) = folder();
        let machine = SimulatedFs::new(1);
        let fs: Arc<dyn JournalFs> = Arc::new(machine.clone());
        create_folders(fs.as_ref(), &folder.journal()).unwrap();
        let loaded = || {
            EpochPlans::load(Arc::clone(&fs), folder.clone(), Some(SegmentNumber::new(6))).unwrap()
        };
        let one = table("one");
        let tables = |ids: &[u8]| [(one.clone(), planned(ids))].into_iter().collect();
        let mut plans = EpochPlans::new(Arc::clone(&fs), folder.clone());
        let (first, second) = (SegmentNumber::new(7), SegmentNumber::new(8));
        machine.fail_folder_syncs(1);
        assert!(plans.begin(first, tables(&[1]), Times::default()).is_err());
        assert!(fs.len(&folder.epoch_plan(7)).is_ok(), "it has its name");
        assert_eq!(plans.tables(first), BTreeMap::new());
        plans.begin(second, tables(&[2]), Times::default()).unwrap();
        let after = loaded();
        assert_eq!((said(&after, 7), said(&after, 8).len()), (vec![], 1));
        assert_eq!((plans.highest(), after.highest()), (Some(second), Some(second)));
    }
}
