//! What a start is at, of all that an earlier process left: the file `journal/REPLAY`.
//!
//! It is written before something is taken on that may end the process, and says less once that is
//! through. So a start that finds it knows what the one before it died at, and how often. It is
//! gone as soon as what was replayed is committed, and after a stop that was asked for. Whether a death was the
//! process's own doing says its pulse ([`super::pulse`]).
//!
//! It also says what a replay by parts has done ([`super::by_parts`]): an epoch of such a replay
//! stands for what precedes a position, not for the segments below its number. That holds for the
//! epoch that the file `EPOCH` names, so both change at once.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io::{self, Read as _};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use tracelake_journal::{JournalFs, SegmentNumber};
use tracelake_lake::DataFolder;
use tracelake_model::TableName;
use tracing::{error, warn};

use super::origin::Origin;
use super::pulse::{OwnDeath, Pulse};
use crate::durable_file::write_durably;

/// Version of the file. Version 2 knew no deaths by a start's own doing.
const VERSION: u32 = 3;

/// Starts that may end by their own doing at one record before it is set aside, and while they open one table
/// before that is set apart. Two, since the first one may have been that of others which were taken in with it.
pub(super) const OWN_DEATHS: u32 = 2;

/// Starts that may end unexplained while one record is taken in alone before it is set aside; those at its work, and
/// those while what it led to is written down, each by themselves. Each start begins with that record: so many that
/// no row of kills from outside, each within the moment that it takes, is taken for the record's fault.
const DEATHS_AT_A_RECORD: u32 = 8;

/// Starts in a row that end unexplained while they open a table before it is set apart, for the same reason; more,
/// since on a busy machine that is much of what a short life does, and since nothing gets into the table then.
pub(super) const DEATHS_AT_A_TABLE: u32 = 16;

/// How long a process lives before it opens tables again that were set apart for unexplained deaths: so long that
/// what ended those is over. Once in a life, so that a table which does end it ends few.
const LIVES_NANO: u64 = 600_000_000_000;

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

/// Starts that ended at one record when it was taken in alone, but not with the machine. Unexplained ones by what
/// was being done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Deaths {
    /// [`Stage::AtWork`].
    pub(super) at_work: u32,
    /// [`Stage::Between`].
    pub(super) between: u32,
    /// By their own doing; one among them at records with which it was taken in.
    #[serde(default)]
    pub(super) own: u32,
}

impl Deaths {
    /// Whether the record is to be set aside.
    pub(super) const fn are_its_own(self) -> bool {
        OWN_DEATHS <= self.own
            || DEATHS_AT_A_RECORD <= self.at_work
            || DEATHS_AT_A_RECORD <= self.between
    }

    /// The first death, among several records.
    const fn first_own() -> Self {
        Self { at_work: 0, between: 0, own: 1 }
    }

    const fn and_one(mut self, stage: Stage, is_own: bool) -> Self {
        match stage {
            _ if is_own => self.own += 1,
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
    /// Of one record alone; of several, whether a start ended at them by its own doing.
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
    /// Starts that ended unexplained while they opened a table.
    table_deaths: BTreeMap<TableName, u32>,
    /// Starts that ended then by their own doing.
    #[serde(default)]
    own_table_deaths: BTreeMap<TableName, u32>,
}

impl Content {
    fn is_void(&self) -> bool {
        self.done.is_empty()
            && self.at.is_none()
            && self.table.is_none()
            && self.table_deaths.is_empty()
            && self.own_table_deaths.is_empty()
    }

    /// Whether it says what is being done at this moment.
    const fn is_at_something(&self) -> bool {
        self.at.is_some() || self.table.is_some()
    }
}

impl At {
    /// What a start is to be careful with after a death at this.
    fn after_death(self, own: Option<OwnDeath>) -> Self {
        let named = own.and_then(|own| own.record);
        match self {
            Self::Records(mut records) => {
                let named = named.filter(|(origin, place)| {
                    *origin == records.origin && (records.first..=records.last).contains(place)
                });
                match (records.count, named) {
                    (1, _) => {
                        records.deaths = records.deaths.and_one(records.stage, own.is_some());
                    }
                    (_, Some((_, place))) => {
                        (records.first, records.last, records.count) = (place, place, 1);
                        records.deaths = Deaths::first_own();
                    }
                    (_, None) if own.is_some() => records.deaths = Deaths::first_own(),
                    (_, None) => {}
                }
                Self::Records(records)
            }
            Self::Segments { through } => match named {
                Some((origin, place)) => Self::Records(Records {
                    origin,
                    first: place,
                    last: place,
                    count: 1,
                    deaths: Deaths::first_own(),
                    stage: Stage::AtWork,
                    through,
                }),
                None => self,
            },
            Self::Settling => self,
        }
    }
}

/// The file and what it says. Clones are the same one.
#[derive(Clone, Debug)]
pub(super) struct ReplayMark {
    fs: Arc<dyn JournalFs>,
    path: PathBuf,
    state: Arc<Mutex<State>>,
    /// Where a death is to say what it was of; none where deaths are simulated.
    pulse: Option<Pulse>,
}

/// Notes a panic that ends the thread which has it.
#[derive(Debug)]
pub(super) struct PanicNote(Option<Pulse>);

impl Drop for PanicNote {
    fn drop(&mut self) {
        if let Some(pulse) = self.0.as_ref().filter(|_| std::thread::panicking()) {
            pulse.note_panic();
        }
    }
}

/// Tells a mark that the process was asked to stop.
#[derive(Clone, Debug)]
pub struct Stopper(ReplayMark);

impl Stopper {
    pub(super) const fn new(mark: ReplayMark) -> Self {
        Self(mark)
    }

    /// A kill from now on says nothing of what the process is at.
    pub fn expect_stop(&self) {
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
    /// When it was first asked whether tables are to be opened again.
    living_since_nano: Option<u64>,
    /// Tables that are opened again in this life, once it has lasted.
    tried_again: Option<HashSet<TableName>>,
}

impl State {
    fn take_on(&mut self, at: At) {
        self.is_watching = !self.is_stopping;
        self.content.at = (!self.is_stopping).then_some(at);
    }

    /// Returns whether there were any.
    fn forget_deaths_at(&mut self, table: &TableName) -> bool {
        let unexplained = self.content.table_deaths.remove(table);
        let own = self.content.own_table_deaths.remove(table);
        unexplained.or(own).is_some()
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
    pub(super) fn new(fs: Arc<dyn JournalFs>, folder: &DataFolder, pulse: Option<Pulse>) -> Self {
        Self { fs, path: folder.replay_mark(), state: Arc::default(), pulse }
    }

    /// For the thread that does what this notes.
    pub(super) fn panic_note(&self) -> PanicNote {
        PanicNote(self.pulse.clone())
    }

    /// Notes the record that is taken in, or that none is any more: what a death then is of.
    pub(super) fn note_record(&self, record: Option<(Origin, u64)>) {
        if let Some(pulse) = &self.pulse {
            pulse.note_record(record);
        }
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
        let Some((crc, content)) = parse(&text) else {
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
        let own = match &self.pulse {
            Some(pulse) if !with_machine && state.content.is_at_something() => pulse.own_death(crc),
            _ => None,
        };
        if let Some(OwnDeath { cause, record }) = own {
            warn!(%cause, ?record, "an earlier start ended by its own doing");
        }
        let Content { done, at, table, table_deaths, own_table_deaths, .. } = &mut state.content;
        let table = table.take().filter(|_| !with_machine);
        // What is not through any more when something else is taken on must not be found then.
        let at = match at.take() {
            Some(at) if table.is_none() && !with_machine => Some(at.after_death(own)),
            Some(At::Records(records)) => Some(At::Records(records)),
            at => at.filter(|_| table.is_none()),
        };
        if let Some(table) = table {
            let deaths = if own.is_some() { own_table_deaths } else { table_deaths };
            let deaths = deaths.entry(table.clone()).or_default();
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
        let state = self.state();
        let of = |deaths: &BTreeMap<TableName, u32>| deaths.get(table).copied().unwrap_or_default();
        let (own, deaths) = (of(&state.content.own_table_deaths), of(&state.content.table_deaths));
        if OWN_DEATHS <= own {
            return Some(format!(
                "set apart, since {own} starts ended by their own doing while they read its log; \
                 `tracelake parked retry --table {table}` has it opened again"
            ));
        }
        let is_tried = state.tried_again.as_ref().is_some_and(|tried| tried.contains(table));
        (DEATHS_AT_A_TABLE <= deaths && !is_tried).then(|| {
            format!(
                "set apart, since {deaths} starts ended, why is not known, while they read its log; the \
                 service opens it again once it has run for ten minutes, or at `tracelake parked retry \
                 --table {table}`"
            )
        })
    }

    /// Has tables opened again that were set apart for unexplained deaths, once this process has lived for long
    /// enough; returns them, a single time. A death counts then as it does at a start.
    pub(super) fn try_again(&self, now_nano: u64) -> Vec<TableName> {
        let mut state = self.state();
        let since = *state.living_since_nano.get_or_insert(now_nano);
        if state.tried_again.is_some() || now_nano.saturating_sub(since) < LIVES_NANO {
            return Vec::new();
        }
        let State { content: Content { table_deaths, own_table_deaths, .. }, .. } = &*state;
        let is_unexplained =
            |table: &&TableName| own_table_deaths.get(table).is_none_or(|own| *own < OWN_DEATHS);
        let apart = table_deaths.iter().filter(|(_, deaths)| DEATHS_AT_A_TABLE <= **deaths);
        let apart: Vec<TableName> =
            apart.map(|(table, _)| table).filter(is_unexplained).cloned().collect();
        state.is_watching |= !apart.is_empty() && !state.is_stopping;
        state.tried_again = Some(apart.iter().cloned().collect());
        apart
    }

    /// The tables that are set apart, and why.
    pub(super) fn tables_apart(&self) -> Vec<(TableName, String)> {
        let state = self.state();
        let Content { table_deaths, own_table_deaths, .. } = &state.content;
        let tables: BTreeSet<TableName> =
            table_deaths.keys().chain(own_table_deaths.keys()).cloned().collect();
        drop(state);
        let apart = |table: TableName| Some((table.clone(), self.set_apart(&table)?));
        tables.into_iter().filter_map(apart).collect()
    }

    /// Has a table opened again; false when it was not set apart.
    pub(super) fn release_table(&self, table: &TableName) -> anyhow::Result<bool> {
        let mut state = self.state();
        let is_known = state.forget_deaths_at(table);
        // A death counts from now on as it does at a start.
        state.is_watching = !state.is_stopping;
        if is_known {
            self.write(&mut state)?;
        }
        Ok(is_known)
    }

    /// A table was opened: what was held against it counts no more.
    pub(super) fn opened(&self, table: &TableName) {
        let mut state = self.state();
        if state.forget_deaths_at(table)
            && let Err(error) = self.write(&mut state)
        {
            // They count again at the next start.
            warn!(error = format!("{error:#}"), "not noted that a table was opened");
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
            if let Some(pulse) = &self.pulse {
                pulse.rest();
            }
            removed.with_context(|| format!("remove `{}`", self.path.display()))?;
            state.is_written = false;
            return Ok(());
        }
        state.content.version = VERSION;
        state.content.boot = self.fs.boot();
        let json = serde_json::to_string(&state.content)?;
        let crc = crc32c::crc32c(json.as_bytes());
        state.is_written = true;
        write_durably(self.fs.as_ref(), &self.path, &format!("{crc:08x} {json}"))?;
        match &self.pulse {
            Some(pulse) if state.content.is_at_something() => pulse.begin(crc),
            Some(pulse) => pulse.rest(),
            None => {}
        }
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No code that holds the lock leaves the state half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The content of the file with its checksum, `None` where it is damaged. Of a later version only the
/// version is looked at.
fn parse(text: &[u8]) -> Option<(u32, Content)> {
    #[derive(Deserialize)]
    struct Versioned {
        version: u32,
    }
    let (crc, json) = std::str::from_utf8(text).ok()?.trim_end().split_once(' ')?;
    let crc = u32::from_str_radix(crc, 16).ok()?;
    if crc != crc32c::crc32c(json.as_bytes()) {
        return None;
    }
    let Versioned { version } = serde_json::from_str(json).ok()?;
    if VERSION < version {
        return Some((crc, Content { version, ..Content::default() }));
    }
    Some((crc, serde_json::from_str(json).ok()?))
}
