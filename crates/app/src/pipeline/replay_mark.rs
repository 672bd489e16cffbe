//! What a start is at, of all that an earlier process left: the file `journal/REPLAY`.
//!
//! It is written before something is taken on that may end the process, and says less once that is
//! through. So a start that finds it knows what the one before it died at, and how often. It is
//! gone as soon as what was replayed is committed, and after a stop that was asked for.
//!
//! It also says what a replay by parts has done ([`super::careful`]): an epoch of such a replay
//! stands for what precedes a position, not for the segments below its number. That holds for the
//! epoch that the file `EPOCH` names, so both change at once.

use std::collections::{BTreeMap, HashSet};
use std::io::{self, Read as _};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use tracelake_journal::{JournalFs, SegmentNumber};
use tracelake_lake::DataFolder;
use tracelake_model::TableName;
use tracing::{error, warn};

use super::epoch_file::write_durably;

/// Version of the file.
const VERSION: u32 = 2;

/// Starts that may end while one record is taken in alone before it is set aside; those at its work, and those
/// while what it led to is written down, each by themselves. Each start begins with that record: so many that no
/// row of kills from outside, each within the moment that it takes, is taken for the record's fault.
const DEATHS_AT_A_RECORD: u32 = 8;

/// Starts in a row that end while they open a table before it is set apart, for the same reason; more, since on a
/// busy machine that is much of what a short life does, and since nothing gets into the table then.
pub(super) const DEATHS_AT_A_TABLE: u32 = 16;

/// How far the segments are done: those below `segment`, and in that one the records up to and with
/// the sequence number `after`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Position {
    pub(super) segment: u64,
    pub(super) after: u64,
}

/// What is done when an epoch of a replay by parts is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct PartDone {
    pub(super) epoch: u64,
    pub(super) position: Position,
    /// Within a carry, the place of the last record that is done; `None` when all of it is.
    pub(super) carry_through: Option<u64>,
}

/// A file of the journal, by the number in its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Origin {
    /// What was unsettled when an epoch ended.
    Carry(u64),
    /// What was acknowledged.
    Segment(u64),
}

/// What a start is at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum At {
    /// The carry, and the segments up to and with this one, each as a whole.
    Segments {
        /// The one that is taken in.
        through: u64,
    },
    /// Traces that were replayed are open, or in an epoch.
    Settling,
    /// These records alone.
    Records(Records),
}

/// What is being done with records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Stage {
    /// They are decoded and assembled, or written to a table: what they make may end the process.
    AtWork,
    /// The journal, the ledger or a plan is written to: it may take long, and is what most kills from
    /// outside meet.
    Between,
}

/// Starts that ended at one record when it was taken in alone, but not with the machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Deaths {
    /// [`Stage::AtWork`].
    pub(super) at_work: u32,
    /// [`Stage::Between`].
    pub(super) between: u32,
}

impl Deaths {
    /// Whether the record is to be set aside.
    pub(super) const fn are_its_own(self) -> bool {
        DEATHS_AT_A_RECORD <= self.at_work || DEATHS_AT_A_RECORD <= self.between
    }

    const fn and_one(mut self, stage: Stage) -> Self {
        match stage {
            Stage::AtWork => self.at_work += 1,
            Stage::Between => self.between += 1,
        }
        self
    }
}

/// Neighbouring records of one file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Records {
    pub(super) origin: Origin,
    /// The first of them: its sequence number in a segment, its place in a carry.
    pub(super) first: u64,
    /// The last, likewise.
    pub(super) last: u64,
    pub(super) count: u64,
    /// Of one record alone.
    pub(super) deaths: Deaths,
    pub(super) stage: Stage,
    /// Through which segment records are taken in few at a time.
    pub(super) through: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Content {
    version: u32,
    /// The start of the machine: what ended with the machine died of nothing that it was at.
    boot: String,
    done: Vec<PartDone>,
    at: Option<At>,
    /// The table that is opened at this moment.
    table: Option<TableName>,
    /// Starts that ended while they opened a table.
    table_deaths: BTreeMap<TableName, u32>,
}

impl Content {
    fn is_void(&self) -> bool {
        self.done.is_empty()
            && self.at.is_none()
            && self.table.is_none()
            && self.table_deaths.is_empty()
    }
}

/// The file and what it says. Clones are the same one.
#[derive(Clone, Debug)]
pub(super) struct ReplayMark {
    fs: Arc<dyn JournalFs>,
    path: PathBuf,
    state: Arc<Mutex<State>>,
}

/// Tells a mark that the process was asked to stop.
#[derive(Clone, Debug)]
pub(crate) struct Stopper(ReplayMark);

impl Stopper {
    pub(super) const fn new(mark: ReplayMark) -> Self {
        Self(mark)
    }

    /// A kill from now on says nothing of what the process is at.
    pub(crate) fn expect_stop(&self) {
        if let Err(error) = self.0.stop() {
            warn!(error = format!("{error:#}"), "mark of the replay not taken back");
        }
    }
}

#[derive(Debug, Default)]
struct State {
    content: Content,
    /// Whether there is a file.
    is_written: bool,
    /// Whether something is taken on that a table's opening would be part of.
    is_watching: bool,
    /// Whether the process was asked to stop: whatever ends it now is no death.
    is_stopping: bool,
}

impl State {
    fn take_on(&mut self, at: At) {
        self.is_watching = !self.is_stopping;
        self.content.at = (!self.is_stopping).then_some(at);
    }
}

/// What an earlier start left behind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct LastWords {
    /// What it died at; where that was a table, no more than the records that one is to be careful with.
    pub(super) at: Option<At>,
    /// What is done of the segments; `None` where that is not known, as of a damaged file.
    pub(super) done: Option<Vec<PartDone>>,
}

impl ReplayMark {
    /// A mark that says nothing.
    pub(super) fn new(fs: Arc<dyn JournalFs>, folder: &DataFolder) -> Self {
        Self { fs, path: folder.replay_mark(), state: Arc::default() }
    }

    /// Reads what an earlier start left. A table that it died at counts one death more.
    ///
    /// # Errors
    /// When the file cannot be read, or is of a later version.
    pub(super) fn read(&self) -> anyhow::Result<LastWords> {
        self.state().is_watching = true;
        let mut text = Vec::new();
        let read = self.fs.open_read(&self.path).and_then(|mut file| file.read_to_end(&mut text));
        match read {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(LastWords { at: None, done: Some(Vec::new()) });
            }
            read => read.with_context(|| format!("read `{}`", self.path.display()))?,
        };
        let mut state = self.state();
        state.is_written = true;
        let Some(content) = parse(&text) else {
            error!(file = %self.path.display(), "damaged: all that is left of the journal is taken in again, which adds nothing that is in a table");
            return Ok(LastWords::default());
        };
        anyhow::ensure!(
            content.version <= VERSION,
            "`{}` has format version {}, supported is {VERSION}\nhint: use the version of tracelake that wrote it",
            self.path.display(),
            content.version
        );
        state.content = content;
        let boot = self.fs.boot();
        let with_machine = !boot.is_empty() && boot != state.content.boot;
        let Content { done, at, table, table_deaths, .. } = &mut state.content;
        let table = table.take().filter(|_| !with_machine);
        // What is not through any more when something else is taken on must not be found then.
        let at = match at.take() {
            Some(At::Records(mut records)) => {
                if records.count == 1 && table.is_none() && !with_machine {
                    records.deaths = records.deaths.and_one(records.stage);
                }
                Some(At::Records(records))
            }
            at => at.filter(|_| table.is_none()),
        };
        if let Some(table) = table {
            let deaths = table_deaths.entry(table.clone()).or_default();
            *deaths += 1;
            warn!(%table, deaths = *deaths, "an earlier start ended while it opened this table");
        }
        Ok(LastWords { at, done: Some(done.clone()) })
    }

    /// The epochs that stand for parts, of which a plan may be there.
    pub(super) fn parts(&self) -> HashSet<SegmentNumber> {
        self.state().content.done.iter().map(|part| SegmentNumber::new(part.epoch)).collect()
    }

    /// Notes what is taken on; durable when this returns.
    pub(super) fn take_on(&self, at: At) -> anyhow::Result<()> {
        let mut state = self.state();
        state.take_on(at);
        self.write(&mut state)
    }

    /// Notes what is being done with the one record that is taken in alone; nothing where there are
    /// several.
    pub(super) fn enter(&self, stage: Stage) -> anyhow::Result<()> {
        let mut state = self.state();
        match &mut state.content.at {
            Some(At::Records(records)) if records.count == 1 && records.stage != stage => {
                records.stage = stage;
            }
            _ => return Ok(()),
        }
        self.write(&mut state)
    }

    /// The process was asked to stop: if it is killed before it has ended, that is no death.
    pub(super) fn stop(&self) -> anyhow::Result<()> {
        self.state().is_stopping = true;
        self.lay_down()
    }

    /// As [`Self::take_on`], and that `part` is done once its epoch is noted.
    pub(super) fn take_on_part(&self, at: At, part: PartDone) -> anyhow::Result<()> {
        let mut state = self.state();
        state.take_on(at);
        state.content.done.push(part);
        self.write(&mut state)
    }

    /// The epoch is noted: what was said of others holds no more. That is written with the next
    /// mark; a mark that says nothing is removed.
    pub(super) fn noted(&self, epoch: SegmentNumber) -> anyhow::Result<()> {
        let mut state = self.state();
        state.content.done.retain(|part| part.epoch == epoch.get());
        if state.content.is_void() { self.write(&mut state) } else { Ok(()) }
    }

    /// What was taken on is through, or was left alone for another reason than a death.
    pub(super) fn lay_down(&self) -> anyhow::Result<()> {
        let mut state = self.state();
        state.is_watching = false;
        state.content.at = None;
        state.content.table = None;
        if state.is_written { self.write(&mut state) } else { Ok(()) }
    }

    /// Runs `open`, which reads the log of a table. While something is taken on, a death within it is
    /// the table's.
    pub(super) fn open_table<T>(&self, table: &TableName, open: impl FnOnce() -> T) -> T {
        let note = |table: Option<TableName>| {
            let mut state = self.state();
            if !state.is_watching {
                return;
            }
            state.content.table = table;
            if let Err(error) = self.write(&mut state) {
                // A death is not told from one at the records then.
                warn!(error = format!("{error:#}"), "not noted which table is opened");
            }
        };
        note(Some(table.clone()));
        let opened = open();
        note(None);
        opened
    }

    /// Why a table is not to be opened, where starts ended each time it was.
    pub(super) fn set_apart(&self, table: &TableName) -> Option<String> {
        let deaths = self.state().content.table_deaths.get(table).copied().unwrap_or_default();
        (DEATHS_AT_A_TABLE <= deaths).then(|| {
            format!(
                "set apart, since {deaths} starts ended while they read its log; `tracelake parked \
                 retry --table {table}` has it opened again"
            )
        })
    }

    /// The tables that are set apart, and why.
    pub(super) fn tables_apart(&self) -> Vec<(TableName, String)> {
        let tables: Vec<TableName> = self.state().content.table_deaths.keys().cloned().collect();
        let apart = |table: TableName| Some((table.clone(), self.set_apart(&table)?));
        tables.into_iter().filter_map(apart).collect()
    }

    /// Has a table opened again; false when it was not set apart.
    pub(super) fn release_table(&self, table: &TableName) -> anyhow::Result<bool> {
        let mut state = self.state();
        let known = state.content.table_deaths.remove(table).is_some();
        // A death counts from now on as it does at a start.
        state.is_watching = true;
        if known {
            self.write(&mut state)?;
        }
        Ok(known)
    }

    /// A table was opened: what was held against it counts no more, but for one that is apart.
    pub(super) fn opened(&self, table: &TableName) {
        let mut state = self.state();
        let deaths = state.content.table_deaths.get(table).copied().unwrap_or_default();
        if deaths < DEATHS_AT_A_TABLE {
            state.content.table_deaths.remove(table);
        }
    }

    fn write(&self, state: &mut State) -> anyhow::Result<()> {
        if state.content.is_void() {
            if !state.is_written {
                return Ok(());
            }
            let removed = match self.fs.remove(&self.path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => self.path.parent().map_or(Ok(()), |folder| self.fs.sync_dir(folder)),
            };
            removed.with_context(|| format!("remove `{}`", self.path.display()))?;
            state.is_written = false;
            return Ok(());
        }
        state.content.version = VERSION;
        state.content.boot = self.fs.boot();
        let json = serde_json::to_string(&state.content)?;
        let crc = crc32c::crc32c(json.as_bytes());
        state.is_written = true;
        write_durably(self.fs.as_ref(), &self.path, &format!("{crc:08x} {json}"))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No code that holds the lock leaves the state half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The content of the file, `None` where it is damaged. Of a later version only the version is
/// looked at.
fn parse(text: &[u8]) -> Option<Content> {
    #[derive(Deserialize)]
    struct Versioned {
        version: u32,
    }
    let (crc, json) = std::str::from_utf8(text).ok()?.trim_end().split_once(' ')?;
    if u32::from_str_radix(crc, 16).ok()? != crc32c::crc32c(json.as_bytes()) {
        return None;
    }
    let Versioned { version } = serde_json::from_str(json).ok()?;
    if VERSION < version {
        return Some(Content { version, ..Content::default() });
    }
    serde_json::from_str(json).ok()
}
