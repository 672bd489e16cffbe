//! The validation checklist of one table: what there should be, what was found, how to mend it.
//!
//! It looks and judges; it mends nothing and makes nothing, also not for a mistyped name. The one
//! thing that is written is a trace, in through the door that clients use, and it is taken out
//! again. An item that cannot be judged because of another one is skipped and says so: one cause,
//! one failed line.

mod archival;
mod aside;
mod catalog_entry;
mod columns;
mod features;
mod files;
mod limits;
mod queries;
mod service;
mod trace;
pub mod units;

use std::path::Path;

use anyhow::Context as _;
use tracelake_catalog::EmbeddedCatalog;
use tracelake_lake::{DamagedCheckpoint, DataFolder, Lake, LakeError, Table, TableSnapshot};
use tracelake_model::TableName;
use tracelake_model::names::printable;
use tracelake_registry::Registry;

use crate::folder::{data_folder, open_registry};
use crate::settings::Settings;

pub(crate) use service::{ServiceState, journal_use, look_for_service};

/// How an item was judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// Worth knowing; nothing is broken.
    Note,
    /// Could not be judged, or was not to be.
    Skipped,
    /// Broken.
    Failed,
}

impl Verdict {
    /// The word in every output format.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Note => "note",
            Self::Skipped => "skipped",
            Self::Failed => "failed",
        }
    }
}

/// What was found of one item.
#[derive(Clone, Debug)]
pub struct Finding {
    /// How it was judged.
    pub verdict: Verdict,
    /// What was found, one line.
    pub found: String,
    /// How to mend it, one line.
    pub hint: Option<String>,
}

impl Finding {
    fn ok(found: impl Into<String>) -> Self {
        Self { verdict: Verdict::Ok, found: found.into(), hint: None }
    }

    fn note(found: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { verdict: Verdict::Note, found: found.into(), hint: Some(hint.into()) }
    }

    fn failed(found: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { verdict: Verdict::Failed, found: found.into(), hint: Some(hint.into()) }
    }

    fn skipped(reason: impl Into<String>) -> Self {
        Self { verdict: Verdict::Skipped, found: reason.into(), hint: None }
    }

    fn is_broken(&self) -> bool {
        self.verdict == Verdict::Failed
    }
}

/// One line of the report.
#[derive(Clone, Debug)]
pub struct Line {
    /// What was looked at.
    pub item: &'static str,
    /// What was found of it.
    pub finding: Finding,
}

/// What to check.
#[derive(Clone, Debug)]
pub struct CheckRequest {
    /// The table.
    pub table: TableName,
    /// Name or id; without it those that are bound to the table.
    pub experiment: Option<String>,
    /// Whether a trace may be written.
    pub write: bool,
    /// Of the service that is started when none runs.
    pub settings: Settings,
}

/// What the items look at.
struct Checker<'a> {
    data_dir: &'a Path,
    folder: DataFolder,
    lake: Lake,
    request: &'a CheckRequest,
    /// `None` when the folder has none: a check must not make one.
    registry: Result<Option<Registry>, String>,
    catalog: Result<Option<EmbeddedCatalog>, String>,
}

/// The lines so far, in the order in which they are judged.
#[derive(Default)]
struct Judged(Vec<Line>);

impl Judged {
    fn add(&mut self, item: &'static str, finding: Finding) {
        self.0.push(Line { item, finding });
    }

    /// Why `items` keep another one from being judged, if one of them is broken.
    fn blocked_by(&self, items: &[&str]) -> Option<Finding> {
        let broken =
            self.0.iter().find(|line| items.contains(&line.item) && line.finding.is_broken())?;
        Some(Finding::skipped(format!("not judged: see `{}`", broken.item)))
    }
}

/// Judges every item, in the order of the report.
///
/// # Errors
/// When there is no data folder at all; everything else is a line.
pub async fn check_table(data_dir: &Path, request: &CheckRequest) -> anyhow::Result<Vec<Line>> {
    let folder = data_folder(data_dir)?;
    anyhow::ensure!(
        folder.root().try_exists()?,
        "no data folder at `{}`\nhint: name it with --data-dir, or start `tracelake serve`",
        folder.root().display()
    );
    let checker = Checker {
        data_dir,
        registry: open_registry(&folder).await.map_err(|error| format!("{error:#}")),
        catalog: open_catalog(&folder).await.map_err(|error| format!("{error:#}")),
        lake: Lake::new()?,
        folder,
        request,
    };
    let judged = checker.judge().await;
    if let Ok(Some(registry)) = &checker.registry {
        registry.close().await;
    }
    if let Ok(Some(catalog)) = &checker.catalog {
        catalog.close().await;
    }
    Ok(judged?.0)
}

async fn open_catalog(folder: &DataFolder) -> anyhow::Result<Option<EmbeddedCatalog>> {
    if !folder.catalog().try_exists()? {
        return Ok(None);
    }
    Ok(Some(EmbeddedCatalog::open(&folder.catalog()).await?))
}

/// Items that decide whether the rows can be read. A service that cannot write the table cannot
/// tell which rows are on their way either.
const READABLE: [&str; 4] = ["table in storage", "data files", "columns", "commits"];

/// Items without which a written trace cannot arrive, or whose mending writing would begin.
const WRITABLE: [&str; 13] = [
    "table in storage",
    "data files",
    "columns",
    "added columns",
    "change data feed",
    "deletion vectors",
    "protocol",
    "archival enabled",
    "experiment",
    "service",
    "commits",
    "disk space",
    "journal",
];

/// tracelake reads the table without the checkpoint; other engines may not.
fn damage_passed_over(damaged: &DamagedCheckpoint) -> Finding {
    let DamagedCheckpoint { name, reason, .. } = damaged;
    Finding::failed(
        format!("checkpoint `{}` cannot be read: {}", printable(name), printable(reason)),
        "the log before it is there: start `tracelake serve`, whose next commit to the table replaces it",
    )
}

impl Checker<'_> {
    async fn judge(&self) -> anyhow::Result<Judged> {
        let mut lines = Judged::default();
        let (storage, snapshot) = self.storage().await?;
        let table = self.table_items(snapshot.clone()).await?;
        let entry = self.entry().await;
        lines.add("catalog entry", entry.finding);
        let matching = match (&entry.info, &snapshot) {
            (Some(info), Some(snapshot)) => {
                let broken = table.iter().find(|line| line.finding.is_broken());
                catalog_entry::compare(info, &self.request.table, snapshot, broken)
            }
            (None, _) => Finding::skipped("not judged: see `catalog entry`"),
            (_, None) => Finding::skipped("not judged: see `table in storage`"),
        };
        lines.add("catalog matches table", matching);
        lines.add("table in storage", storage);
        lines.0.extend(table);
        let state = look_for_service(&self.folder).await;
        let archival = self.archival(&state, snapshot.is_some()).await;
        lines.add("archival enabled", archival.binding);
        lines.add("experiment", archival.experiment);
        lines.add("service", service::judge(&state));
        lines.add("commits", service::judge_commits(&state, &self.request.table));
        let (disk, journal) = (self.disk(&state), self.journal(&state));
        let late = Judged(vec![
            Line { item: "disk space", finding: disk },
            Line { item: "journal", finding: journal },
            Line { item: "damaged files", finding: self.damaged_files().await },
        ]);
        // Nothing can be written in this process without a catalog that opens.
        let shut = self.catalog.is_err().then(|| lines.blocked_by(&["catalog entry"])).flatten();
        let blocked = lines.blocked_by(&WRITABLE).or_else(|| late.blocked_by(&WRITABLE)).or(shut);
        let written = match (blocked, archival.target) {
            _ if !self.request.write => Finding::skipped("not asked for: --no-write"),
            (Some(skipped), _) => skipped,
            (None, None) => Finding::skipped("no experiment to write to: name one by --experiment"),
            (None, Some(experiment)) => self.trace(&state, &experiment).await,
        };
        lines.add("trace arrives", written);
        self.query_items(&state, &mut lines).await;
        lines.0.extend(late.0);
        Ok(lines)
    }

    /// The newest version of the table, or why there is none.
    async fn storage(&self) -> anyhow::Result<(Finding, Option<TableSnapshot>)> {
        let name = &self.request.table;
        let table = Table::at(&self.lake, self.folder.table(name))?;
        let place = table.location().folder().display().to_string();
        let opened = tokio::task::spawn_blocking(move || {
            if !table.exists()? {
                return Ok(None);
            }
            let snapshot = table.snapshot(None)?;
            table.check_versions(&snapshot)?;
            Ok(Some((snapshot, table.damaged_checkpoints()?)))
        });
        Ok(match opened.await.context("read the table's log")? {
            Ok(Some((snapshot, damaged))) => {
                let found = format!("version {} at {place}", snapshot.version());
                (
                    damaged.first().map_or_else(|| Finding::ok(found), damage_passed_over),
                    Some(snapshot),
                )
            }
            Ok(None) => {
                let found = format!("no table at {place}");
                (Finding::failed(found, self.no_table_hint()), None)
            }
            Err(error @ LakeError::DamagedCheckpoint { .. }) => {
                let hint = "bring that checkpoint, or the versions before it, back from a backup; until \
                            then nothing of the table is changed or deleted";
                (Finding::failed(error.to_string(), hint), None)
            }
            Err(error) => {
                let hint = "bring the missing or damaged files of `_delta_log` back from a backup";
                (Finding::failed(error.to_string(), hint), None)
            }
        })
    }

    fn no_table_hint(&self) -> String {
        let known = self.folder.tables().unwrap_or_default();
        let known: Vec<String> = known.iter().take(8).map(ToString::to_string).collect();
        let create =
            format!("`tracelake setup {} --experiment NAME` creates it", self.request.table);
        if known.is_empty() {
            create
        } else {
            format!("{create}; tables that are there: {}", known.join(", "))
        }
    }

    /// The items that the version itself answers.
    async fn table_items(&self, snapshot: Option<TableSnapshot>) -> anyhow::Result<Vec<Line>> {
        const ITEMS: [&str; 8] = [
            "data files",
            "columns",
            "added columns",
            "comments",
            "change data feed",
            "deletion vectors",
            "clustering",
            "protocol",
        ];
        let Some(snapshot) = snapshot else {
            let skipped = || Finding::skipped("not judged: see `table in storage`");
            return Ok(ITEMS.map(|item| Line { item, finding: skipped() }).to_vec());
        };
        let setup = format!("`tracelake setup {} --experiment NAME`", self.request.table);
        let judged = tokio::task::spawn_blocking(move || {
            let schema = snapshot.schema();
            let columns = |judge: &dyn Fn(&arrow::datatypes::Schema) -> Finding| match &schema {
                Ok(schema) => judge(schema),
                Err(error) => Finding::failed(
                    error.to_string(),
                    "the table has a type that Arrow does not have: choose another table",
                ),
            };
            [
                files::judge(&snapshot),
                columns(&columns::judge_contract),
                columns(&|schema| columns::judge_added(schema, &setup)),
                columns(&|schema| columns::judge_comments(schema, snapshot.comment().as_deref())),
                features::change_data_feed(&snapshot, &setup),
                features::deletion_vectors(&snapshot, &setup),
                features::clustering(&snapshot),
                features::protocol(&snapshot, &setup),
            ]
        });
        let judged = judged.await.context("look at the table")?;
        Ok(ITEMS.into_iter().zip(judged).map(|(item, finding)| Line { item, finding }).collect())
    }
}
