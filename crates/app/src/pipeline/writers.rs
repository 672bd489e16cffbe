//! One writer per table, opened when first needed.

use std::cell::Cell;
use std::collections::{HashMap, HashSet};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use tracelake_journal::SegmentNumber;
use tracelake_lake::commit::Defer;
use tracelake_lake::{DataFolder, EpochOutcome, Lake, LakeError, Table, TableWriter, TraceDraft};
use tracelake_model::{Clock, TableName};
use tracing::warn;
use uuid::Uuid;

use crate::archive::Archive;

/// A commit that failed.
#[derive(Debug)]
pub(super) struct FailedCommit {
    pub(super) fault: LakeError,
    /// The epoch may be in the table all the same.
    pub(super) in_doubt: bool,
}

/// An epoch as Delta numbers it.
fn number(epoch: SegmentNumber) -> i64 {
    i64::try_from(epoch.get()).unwrap_or(i64::MAX)
}

fn defect(table: &TableName) -> LakeError {
    let reason = "a defect in tracelake, see the log".to_owned();
    LakeError::Row { path: table.to_string(), reason }
}

#[derive(Debug)]
pub(super) struct Writers {
    folder: DataFolder,
    lake: Lake,
    clock: Arc<dyn Clock>,
    /// Of the archive and of its journal: epochs mean nothing beyond one journal.
    application_id: String,
    /// The segment that takes records: every epoch before it may have been committed.
    active: SegmentNumber,
    index_limit: usize,
    open: HashMap<TableName, TableWriter>,
    /// Tables that were opened before in this process: what they have committed since is ours.
    known: HashSet<TableName>,
    /// Tables that are ahead of the journal, and the name that epochs have there.
    named_apart: HashMap<TableName, String>,
}

impl Writers {
    pub(super) fn new(
        archive: &Archive,
        journal_id: Uuid,
        active: SegmentNumber,
        index_limit: usize,
    ) -> Self {
        Self {
            folder: archive.folder.clone(),
            lake: archive.lake.clone(),
            clock: Arc::clone(&archive.clock),
            application_id: format!("tracelake-{}-{journal_id}", archive.registry.archiver_id()),
            active,
            index_limit,
            open: HashMap::new(),
            known: HashSet::new(),
            named_apart: HashMap::new(),
        }
    }

    /// The writer of `table`, which is created or accepted first.
    pub(super) fn get(&mut self, table: &TableName) -> Result<&mut TableWriter, LakeError> {
        if !self.open.contains_key(table) {
            let writer = self.open(table)?;
            self.open.insert(table.clone(), writer);
        }
        // Inserted above.
        self.open.get_mut(table).ok_or_else(|| LakeError::Row {
            path: table.to_string(),
            reason: "no writer".to_owned(),
        })
    }

    /// The writer of `table` if there is such a table.
    pub(super) fn existing(
        &mut self,
        table: &TableName,
    ) -> Result<Option<&mut TableWriter>, LakeError> {
        let known = self.open.contains_key(table)
            || Table::at(&self.lake, self.folder.table(table))?.exists()?;
        if known { self.get(table).map(Some) } else { Ok(None) }
    }

    /// Runs `work` on the writer of `table`. A panic in it is that table's failure, not the end of
    /// the service: the traces stay in the journal.
    pub(super) fn guarded<T>(
        &mut self,
        table: &TableName,
        work: impl FnOnce(&mut TableWriter) -> Result<T, LakeError>,
    ) -> Result<T, LakeError> {
        let writer = self.get(table)?;
        let done = std::panic::catch_unwind(AssertUnwindSafe(|| work(writer)));
        done.unwrap_or_else(|_| {
            self.forget(table);
            Err(defect(table))
        })
    }

    /// Commits an epoch to `table`, as [`Self::guarded`].
    pub(super) fn commit_epoch(
        &mut self,
        table: &TableName,
        epoch: SegmentNumber,
        traces: &[TraceDraft],
        defer: &mut Defer<'_>,
    ) -> Result<EpochOutcome, FailedCommit> {
        let in_doubt = Cell::new(false);
        let tried = self.guarded(table, |writer| {
            // Until it is known that no version was tried, as when this panics.
            in_doubt.set(true);
            let tried = writer.commit_epoch_within(number(epoch), traces, Some(defer));
            in_doubt.set(tried.is_err() && writer.is_in_doubt());
            tried
        });
        tried.map_err(|fault| FailedCommit { fault, in_doubt: in_doubt.get() })
    }

    /// Whether `table` has the epoch of that application, provided that it has no later one.
    pub(super) fn has_epoch(
        &self,
        table: &TableName,
        application: &str,
        epoch: SegmentNumber,
    ) -> Result<bool, LakeError> {
        let look = || {
            let table = Table::at(&self.lake, self.folder.table(table))?;
            if !table.exists()? {
                return Ok(false);
            }
            let committed = table.snapshot(None)?.committed_epoch(application)?;
            Ok(Some(number(epoch)) <= committed)
        };
        std::panic::catch_unwind(AssertUnwindSafe(look)).unwrap_or_else(|_| Err(defect(table)))
    }

    /// Drops a writer whose view of the table may be wrong.
    pub(super) fn forget(&mut self, table: &TableName) {
        self.open.remove(table);
    }

    fn open(&mut self, table: &TableName) -> Result<TableWriter, LakeError> {
        if let Some(application) = self.named_apart.get(table) {
            return self.open_as(table, application.clone());
        }
        let mut writer = self.open_as(table, self.application_id.clone())?;
        if !self.known.insert(table.clone()) {
            return Ok(writer);
        }
        let ahead = writer
            .committed_epoch()?
            .and_then(|epoch| u64::try_from(epoch).ok())
            .is_some_and(|epoch| self.active.get() <= epoch);
        if !ahead {
            return Ok(writer);
        }
        // The journal is an older copy of itself: its epochs are not those of the table.
        // Under another name they cannot be taken for committed ones; what is in already is found
        // by its content.
        warn!(%table, "the table is ahead of the journal: epochs are numbered apart");
        let application = format!("{}-{}", self.application_id, Uuid::now_v7());
        self.named_apart.insert(table.clone(), application.clone());
        self.open_as(table, application)
    }

    fn open_as(&self, table: &TableName, application: String) -> Result<TableWriter, LakeError> {
        let handle = Table::at(&self.lake, self.folder.table(table))?;
        TableWriter::open(handle, application, Arc::clone(&self.clock), self.index_limit)
    }
}
