//! The plans of epochs: which traces an epoch brings to which table, noted before it commits.
//!
//! With the table's `txn`, which is in the same version as the rows, a plan tells a replay which
//! pieces are in, so that it hands over none of them again. For that, a table gets no later epoch
//! before its entries in the plans of earlier ones are known to be in, or are struck out:
//! [`EpochPlans::begin`] writes what was struck before it writes a further plan.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use tracelake_journal::{JournalFs, SegmentNumber};
use tracelake_lake::{DataFolder, LakeError, TraceDraft};
use tracelake_model::{TableName, TraceId};
use tracing::{error, warn};

use super::epoch_file::write_durably;
use super::{FlushOutcome, Pipeline};

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
    /// What the file says is what is here.
    is_written: bool,
}

/// What an epoch brings to one table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PlannedTable {
    /// The name of the `txn`.
    pub(super) application: String,
    pub(super) traces: Vec<TraceId>,
    /// Of these, the ones that are left for a later epoch.
    deferred: HashSet<TraceId>,
}

/// An entry of the file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    table: TableName,
    application: String,
    /// The trace ids in hex, one after the other.
    traces: String,
}

impl PlannedTable {
    pub(super) fn new(application: String, traces: Vec<TraceId>) -> Self {
        Self { application, traces, deferred: HashSet::new() }
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
        let mut planned = BTreeMap::new();
        let mut ready = BTreeMap::new();
        for (table, traces) in settled.into_iter().filter(|(_, traces)| !traces.is_empty()) {
            let named =
                self.writers.guarded(&table, |writer| Ok(writer.application_id().to_owned()));
            match named {
                Ok(application) => {
                    let ids = traces.iter().map(|trace| trace.trace_id).collect();
                    planned.insert(table.clone(), PlannedTable::new(application, ids));
                    ready.insert(table, traces);
                }
                Err(fault) => {
                    self.note_fault(&table, &fault, outcome);
                    self.put_back(&table, traces, false);
                }
            }
        }
        if let Err(error) = self.plans.begin(segment, planned) {
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
            let tables = read(plans.fs.as_ref(), &plans.folder.epoch_plan(number))?;
            plans.plans.insert(SegmentNumber::new(number), EpochPlan { tables, is_written: true });
        }
        if let Some(done) = done {
            plans.forget_through(done);
        }
        Ok(plans)
    }

    /// The highest epoch that has a plan: no table has a higher one.
    pub(super) fn highest(&self) -> Option<SegmentNumber> {
        self.plans.keys().next_back().copied()
    }

    /// What `epoch` was to bring to each table.
    pub(super) fn tables(&self, epoch: SegmentNumber) -> BTreeMap<TableName, PlannedTable> {
        self.plans.get(&epoch).map(|plan| plan.tables.clone()).unwrap_or_default()
    }

    /// The name of the `txn` that `epoch` has in a table.
    pub(super) fn application(&self, epoch: SegmentNumber, table: &TableName) -> String {
        let planned = self.plans.get(&epoch).and_then(|plan| plan.tables.get(table));
        planned.map(|planned| planned.application.clone()).unwrap_or_default()
    }

    /// Notes what `epoch` is to bring; durable when this returns, and so is all that was struck
    /// from earlier plans.
    pub(super) fn begin(
        &mut self,
        epoch: SegmentNumber,
        tables: BTreeMap<TableName, PlannedTable>,
    ) -> anyhow::Result<()> {
        if tables.is_empty() {
            return Ok(());
        }
        for (earlier, plan) in &mut self.plans {
            plan.write(self.fs.as_ref(), &self.folder, *earlier)?;
        }
        let mut plan = EpochPlan { tables, is_written: false };
        plan.write(self.fs.as_ref(), &self.folder, epoch)?;
        self.plans.insert(epoch, plan);
        Ok(())
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
        let left = self.plans.split_off(&done.next());
        for epoch in std::mem::replace(&mut self.plans, left).into_keys() {
            let path = self.folder.epoch_plan(epoch.get());
            match self.fs.remove(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    // It means nothing any more; the next start tries again.
                    warn!(path = %path.display(), %error, "plan of an epoch that is done not deleted");
                }
                _ => {}
            }
        }
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
            let application = planned.application.clone();
            Entry {
                table: table.clone(),
                application,
                traces: kept.map(ToString::to_string).collect(),
            }
        };
        let entries: Vec<Entry> = self.tables.iter().map(entry).collect();
        let path = folder.epoch_plan(epoch.get());
        write_durably(fs, &path, &serde_json::to_string(&entries)?)?;
        self.is_written = true;
        Ok(())
    }
}

/// A plan that cannot be read plans nothing: its traces are handed over again, and what is in is
/// found by its content.
fn read(fs: &dyn JournalFs, path: &Path) -> anyhow::Result<BTreeMap<TableName, PlannedTable>> {
    let mut text = Vec::new();
    fs.open_read(path)
        .and_then(|mut file| file.read_to_end(&mut text))
        .with_context(|| format!("read `{}`", path.display()))?;
    let entries = serde_json::from_slice::<Vec<Entry>>(&text).map_err(anyhow::Error::from);
    let tables = entries.and_then(|entries| {
        let planned = |entry: Entry| {
            let traces = trace_ids(&entry.traces).context("trace ids")?;
            Ok((entry.table, PlannedTable::new(entry.application, traces)))
        };
        entries.into_iter().map(planned).collect()
    });
    tables.or_else(|fault: anyhow::Error| {
        error!(path = %path.display(), error = format!("{fault:#}"), "plan of an epoch is damaged");
        Ok(BTreeMap::new())
    })
}

fn trace_ids(text: &str) -> Option<Vec<TraceId>> {
    let id = |digits: &[u8]| TraceId::parse(std::str::from_utf8(digits).ok()?);
    text.as_bytes().chunks(ID_DIGITS).map(id).collect()
}

#[cfg(test)]
mod tests {
    use tracelake_journal::RealFs;

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
        plans.begin(first, tables.into_iter().collect()).unwrap();
        let expected = vec![("a.b.one".to_owned(), vec![1, 2, 3]), ("a.b.two".to_owned(), vec![4])];
        assert_eq!(said(&loaded(&folder, 6), 7), expected);

        for deferred in [1, 2] {
            let deferred = HashSet::from([TraceId([deferred; 16])]);
            plans.leave_out(first, &one, &deferred).unwrap();
        }
        assert_eq!(said(&loaded(&folder, 6), 7)[0].1, [1, 3]);

        plans.strike(first, &two);
        let second = SegmentNumber::new(8);
        plans.begin(second, [(two, planned(&[4]))].into_iter().collect()).unwrap();
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
}
