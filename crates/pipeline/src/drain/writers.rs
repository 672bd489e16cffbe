//! One writer per table, opened when first needed.

use std::cell::Cell;
use std::collections::{HashMap, HashSet};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use tracelake_journal::SegmentNumber;
use tracelake_lake::commit::Defer;
use tracelake_lake::{
    DataFolder, EpochMark, EpochOutcome, Lake, LakeError, Table, TableWriter, TraceDraft,
};
use tracelake_model::{Clock, TableName, TraceId};
use tracing::error;
use uuid::Uuid;

use super::identity::Identity;
use super::replay_mark::ReplayMark;
use crate::stores::Stores;

/// A commit that failed.
#[derive(Debug)]
pub(super) struct FailedCommit {
    pub(super) fault: LakeError,
    /// The epoch may be in the table all the same.
    pub(super) in_doubt: bool,
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
    identity: Identity,
    /// The registry's part of the name.
    archiver_id: Uuid,
    /// The segment that takes records: every epoch before it may have been committed.
    active: SegmentNumber,
    index_limit: usize,
    open: HashMap<TableName, TableWriter>,
    /// Tables that were opened before in this process: what they have committed since is ours.
    known: HashSet<TableName>,
    /// Told when a table is opened, and knows which one is not to be.
    mark: ReplayMark,
}

impl Writers {
    pub(super) fn new(
        stores: &Stores,
        identity: Identity,
        active: SegmentNumber,
        index_limit: usize,
        mark: ReplayMark,
    ) -> Self {
        Self {
            folder: stores.folder.clone(),
            lake: stores.lake.clone(),
            clock: Arc::clone(&stores.clock),
            identity,
            archiver_id: stores.registry.archiver_id(),
            active,
            index_limit,
            open: HashMap::new(),
            known: HashSet::new(),
            mark,
        }
    }

    /// The writer of `table`, which is created or accepted first.
    pub(super) fn get(&mut self, table: &TableName) -> Result<&mut TableWriter, LakeError> {
        if !self.open.contains_key(table) {
            self.check_apart(table)?;
            let mark = self.mark.clone();
            // A panic while its log is read is that table's failure too.
            let open = || std::panic::catch_unwind(AssertUnwindSafe(|| self.open(table)));
            let opened = mark.open_table(table, open);
            let writer = opened.unwrap_or_else(|_| Err(defect(table)))?;
            mark.opened(table);
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
        self.check_apart(table)?;
        let known = self.open.contains_key(table)
            || Table::at(&self.lake, self.folder.table(table))?.durable_exists()?;
        if known { self.get(table).map(Some) } else { Ok(None) }
    }

    /// Which of `traces` are in `table`; none where there is no such table, nor where it would have to be read
    /// through for that.
    pub(super) fn known_of(
        &mut self,
        table: &TableName,
        traces: &HashSet<TraceId>,
    ) -> Result<HashSet<TraceId>, LakeError> {
        if traces.is_empty() {
            return Ok(HashSet::new());
        }
        self.check_apart(table)?;
        if !self.open.contains_key(table)
            && !Table::at(&self.lake, self.folder.table(table))?.exists()?
        {
            return Ok(HashSet::new());
        }
        self.guarded(table, |writer| match writer.has_index() {
            true => writer.archived(traces),
            false => Ok(HashSet::new()),
        })
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
        mark: &EpochMark,
        traces: &[TraceDraft],
        defer: &mut Defer<'_>,
    ) -> Result<EpochOutcome, FailedCommit> {
        let in_doubt = Cell::new(false);
        let tried = self.guarded(table, |writer| {
            // Until it is known that no version was tried, as when this panics.
            in_doubt.set(true);
            let tried = writer.commit_planned(mark, traces, Some(defer));
            in_doubt.set(tried.is_err() && writer.is_in_doubt());
            tried
        });
        tried.map_err(|fault| FailedCommit { fault, in_doubt: in_doubt.get() })
    }

    /// Whether `table` has a planned epoch.
    pub(super) fn has_epoch(&self, table: &TableName, mark: &EpochMark) -> Result<bool, LakeError> {
        self.look(table, |table| {
            if !table.durable_exists()? {
                return Ok(false);
            }
            table.durable_snapshot(None)?.has_epoch(mark)
        })
    }

    /// Whether `table` has an epoch whose version this process has tried to write; where it has not, it never
    /// will.
    pub(super) fn settle_epoch(
        &self,
        table: &TableName,
        mark: &EpochMark,
    ) -> Result<bool, LakeError> {
        self.look(table, |table| table.settle_epoch(mark, &*self.clock))
    }

    fn look(
        &self,
        table: &TableName,
        ask: impl FnOnce(&Table) -> Result<bool, LakeError>,
    ) -> Result<bool, LakeError> {
        self.check_apart(table)?;
        let look = || ask(&Table::at(&self.lake, self.folder.table(table))?);
        self.mark.open_table(table, || {
            std::panic::catch_unwind(AssertUnwindSafe(look)).unwrap_or_else(|_| Err(defect(table)))
        })
    }

    /// Has a table that is set apart opened again.
    pub(super) fn release(&mut self, table: &TableName) -> anyhow::Result<bool> {
        self.mark.release_table(table)
    }

    fn check_apart(&self, table: &TableName) -> Result<(), LakeError> {
        match self.mark.set_apart(table) {
            Some(reason) => Err(LakeError::Row { path: table.to_string(), reason }),
            None => Ok(()),
        }
    }

    /// The name that epochs have in every table from now on.
    pub(super) fn application(&self) -> String {
        self.identity.application(self.archiver_id)
    }

    /// Whether another data folder counts under the name that this one had.
    pub(super) const fn has_own_name(&self) -> bool {
        self.identity.has_own_name()
    }

    /// Takes another name, since `table` shows that another data folder counts under this one; durable
    /// when this returns.
    pub(super) fn take_own_name(&mut self, table: &TableName) -> anyhow::Result<()> {
        let shared = self.application();
        self.identity.take_own_name()?;
        let application = self.application();
        error!(
            %table, shared, application,
            "another data folder commits under the name of this one: one of both is a copy of the \
             other, or was restored from one. This one goes on under another name; nothing is lost"
        );
        self.open.clear();
        Ok(())
    }

    /// Drops a writer whose view of the table may be wrong.
    pub(super) fn forget(&mut self, table: &TableName) {
        self.open.remove(table);
    }

    fn open(&mut self, table: &TableName) -> Result<TableWriter, LakeError> {
        let mut writer = self.open_anew(table)?;
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
        // No epoch of this journal was committed yet under so high a number.
        self.take_own_name(table).map_err(|error| {
            self.known.remove(table);
            LakeError::Storage {
                action: "take another name in",
                path: self.folder.journal().display().to_string(),
                source: std::io::Error::other(format!("{error:#}")),
            }
        })?;
        self.open_anew(table)
    }

    fn open_anew(&self, table: &TableName) -> Result<TableWriter, LakeError> {
        let handle = Table::at(&self.lake, self.folder.table(table))?;
        TableWriter::open(handle, self.application(), Arc::clone(&self.clock), self.index_limit)
    }
}
