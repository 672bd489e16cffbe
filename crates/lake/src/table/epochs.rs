//! Which epochs of which archiver a table has.
//!
//! A version that brings an epoch has two `txn` actions: the archiver's name with the epoch's
//! number, and the name of its plans with the plan's nonce. Numbers repeat, when a data folder is
//! copied or an older copy of it is restored: then two folders count on under one name. Nonces do
//! not. So an epoch is in when the version that took its number has its nonce. Both survive in
//! checkpoints for the newest epoch; the others are read from the log's versions, as far as they are there.

use tracelake_model::Clock;

use super::{Table, TableSnapshot};
use crate::error::LakeError;
use crate::log::actions::{Action, CommitInfo, Txn};
use crate::log::{LoggedTxn, put_version, version_lines};
use crate::storage::PutOutcome;

/// An epoch as its archiver planned it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EpochMark {
    /// The archiver's name in the table.
    pub application: String,
    /// The epoch.
    pub number: i64,
    /// Drawn for the plan; none where plans have none: then the number decides.
    pub nonce: Option<i64>,
}

impl EpochMark {
    /// What the plans of the application are called.
    fn plans(&self) -> String {
        format!("{}-plan", self.application)
    }

    /// What the version says that brings it.
    pub(crate) fn actions(&self, last_updated: i64) -> Vec<Action> {
        let txn = |app_id, version| Action::Txn(Txn { app_id, version, last_updated });
        let number = txn(self.application.clone(), self.number);
        let nonce = self.nonce.map(|nonce| txn(self.plans(), nonce));
        std::iter::once(number).chain(nonce).collect()
    }
}

impl Table {
    /// Whether the epoch is in the table, for good. An object store may still take a version whose writer was told
    /// of a failure: where the epoch is not in, the number that it may be on its way to is taken first.
    ///
    /// # Errors
    /// [`LakeError`] when the log cannot be read, or that number not be taken: nothing is known then.
    pub fn settle_epoch(&self, mark: &EpochMark, clock: &dyn Clock) -> Result<bool, LakeError> {
        if !self.durable_exists()? {
            return Ok(false);
        }
        let snapshot = self.durable_snapshot(None)?;
        if snapshot.has_epoch(mark)? {
            return Ok(true);
        }
        if !self.files.shows_only_durable() {
            // A name in a folder is there when the call returns, or never.
            return Ok(false);
        }
        let empty =
            Action::CommitInfo(CommitInfo::new("WRITE", true, clock.now_unix_micro() / 1_000));
        match put_version(self, snapshot.version() + 1, &[empty])? {
            PutOutcome::Written => Ok(false),
            PutOutcome::Exists => self.durable_snapshot(Some(&snapshot))?.has_epoch(mark),
        }
    }
}

impl TableSnapshot {
    /// Whether the epoch is in the table.
    ///
    /// # Errors
    /// [`LakeError`] when the log cannot be read.
    pub fn has_epoch(&self, mark: &EpochMark) -> Result<bool, LakeError> {
        let newest = self.committed_epoch(&mark.application)?;
        if mark.nonce.is_none() || newest < Some(mark.number) {
            return Ok(Some(mark.number) <= newest);
        }
        if newest == Some(mark.number) {
            return Ok(self.committed_epoch(&mark.plans())? == mark.nonce);
        }
        self.log_has_epoch(mark)
    }

    /// Whether the version that took the epoch's number is the one that was planned. Of a version that
    /// is not there any more it is not known, and so not said: what is handed over once more
    /// is known by its content.
    fn log_has_epoch(&self, mark: &EpochMark) -> Result<bool, LakeError> {
        let plans = mark.plans();
        for version in (0..=self.version()).rev() {
            let Some(found) = self.transactions(version)? else { return Ok(false) };
            let of = |name: &str| found.iter().rev().find(|txn| txn.app_id == name);
            match of(&mark.application).map(|txn| txn.version) {
                Some(number) if number <= mark.number => {
                    let nonce = of(&plans).map(|txn| txn.version);
                    return Ok(number == mark.number && nonce == mark.nonce);
                }
                _ => {}
            }
        }
        Ok(false)
    }

    /// The `txn` actions of a version; `None` when its file is gone.
    fn transactions(&self, version: u64) -> Result<Option<Vec<LoggedTxn>>, LakeError> {
        let mut found = Vec::new();
        let is_there = version_lines(self.table(), version, &mut |line| {
            found.extend(line.txn);
            Ok(true)
        })?;
        Ok(is_there.then_some(found))
    }
}
