//! Which epochs of which archiver a table has.
//!
//! A version that brings an epoch has two `txn` actions: the archiver's name with the epoch's
//! number, and the name of its plans with the plan's nonce. Numbers repeat, when a data folder is
//! copied or an older copy of it is restored: then two folders count on under one name. Nonces do
//! not. So an epoch is in when the version that took its number has its nonce. Both survive in
//! checkpoints for the newest epoch; the others are read from the log's versions, as far as they are there.

use super::TableSnapshot;
use crate::error::LakeError;
use crate::log::actions::{Action, Txn};
use crate::log::{LoggedTxn, version_lines};

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
