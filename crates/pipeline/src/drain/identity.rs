//! Who a data folder is: the ids that its epochs are numbered under.
//!
//! The registry has an id, made once, and the journal another one: epochs mean nothing beyond one
//! journal. Together they are the name of its commits in tables (`appId`). A copy of the folder has
//! both as well. When a table shows that another folder counts under the same name, this one takes
//! a **name of its own**, a third id behind the other two, and goes on under it.
//!
//! The file `journal/ID` has the journal's id in its first line, and in a second one, when there is
//! a third id, `application` and that id. A program that does not know of it cannot read the file, and so
//! does not commit under the name that was given up.

use std::sync::Arc;

use anyhow::Context as _;
use tracelake_journal::JournalFs;
use tracelake_lake::DataFolder;
use tracing::error;
use uuid::Uuid;

use crate::durable_file::{read_if_there, write_durably};

/// What stands before the third id.
const OWN: &str = "application ";

/// The ids of a data folder.
#[derive(Debug)]
pub struct Identity {
    fs: Arc<dyn JournalFs>,
    folder: DataFolder,
    journal: Uuid,
    own: Option<Uuid>,
}

impl Identity {
    /// The identity of `folder`, which gets one when it has none.
    ///
    /// # Errors
    /// When the file cannot be read or written, or says what this version does not know.
    pub fn load(fs: Arc<dyn JournalFs>, folder: &DataFolder) -> anyhow::Result<Self> {
        let path = folder.journal_id_file();
        let folder = folder.clone();
        let Some(text) = read_if_there(fs.as_ref(), &path)? else {
            if read_if_there(fs.as_ref(), &folder.epoch_file())?.is_some() {
                // Plans say the name that they were made under, so nothing is doubled.
                error!(file = %path.display(), "missing: commits have another name from here on");
            }
            let journal = Uuid::new_v4();
            write_durably(fs.as_ref(), &path, &journal.to_string())?;
            return Ok(Self { fs, folder, journal, own: None });
        };
        let unread = || format!("read `{}`: no ids that this version knows", path.display());
        let mut lines = text.lines();
        let journal = lines.next().unwrap_or_default().trim().parse().with_context(unread)?;
        let own =
            lines.next().map(|line| line.strip_prefix(OWN).unwrap_or_default().trim().parse());
        let own = own.transpose().with_context(unread)?;
        anyhow::ensure!(lines.next().is_none(), unread());
        Ok(Self { fs, folder, journal, own })
    }

    /// The journal's id.
    pub(crate) const fn journal(&self) -> Uuid {
        self.journal
    }

    /// The name that commits have in tables.
    pub(super) fn application(&self, archiver: Uuid) -> String {
        let own = self.own.map(|own| format!("-{own}")).unwrap_or_default();
        format!("tracelake-{archiver}-{}{own}", self.journal)
    }

    /// What the names of this folder's commits contain, and those of others do not.
    #[must_use]
    pub fn mark(&self, archiver: Uuid) -> String {
        self.own.unwrap_or(archiver).to_string()
    }

    /// Whether another folder counts under the name that this one had.
    pub(super) const fn has_own_name(&self) -> bool {
        self.own.is_some()
    }

    /// Takes another name; durable when this returns.
    pub(super) fn take_own_name(&mut self) -> anyhow::Result<()> {
        let own = Uuid::new_v4();
        let text = format!("{}\n{OWN}{own}", self.journal);
        write_durably(self.fs.as_ref(), &self.folder.journal_id_file(), &text)?;
        self.own = Some(own);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tracelake_journal::RealFs;

    use super::*;

    /// Scenario: a folder without an id; a restart; a name of its own, twice; restarts; a file that
    /// says more.
    /// Guarantees: the journal's id stays, the name is kept over restarts, and what is not understood
    /// is refused.
    #[test]
    fn a_name_is_kept_over_restarts() {
        let held = tempfile::tempdir().unwrap();
        let folder = DataFolder::new(held.path()).unwrap();
        std::fs::create_dir_all(folder.journal()).unwrap();
        let load = || Identity::load(Arc::new(RealFs), &folder);
        let archiver = Uuid::from_u128(1);
        let mut first = load().unwrap();
        let mut names = vec![first.application(archiver)];
        assert!(!first.has_own_name());
        for _ in 0..2 {
            first.take_own_name().unwrap();
            let again = load().unwrap();
            assert_eq!((again.journal(), again.has_own_name()), (first.journal(), true));
            assert_eq!(again.application(archiver), first.application(archiver));
            names.push(again.application(archiver));
        }
        names.sort();
        names.dedup();
        assert_eq!(names.len(), 3);
        let path = folder.journal_id_file();
        let good = std::fs::read_to_string(&path).unwrap();
        for wrong in ["", "x", &format!("{good}more\n"), &good.replace(OWN, "other ")] {
            std::fs::write(&path, wrong).unwrap();
            assert!(load().is_err(), "{wrong}");
        }
    }
}
