//! Every path name: the data folder, table folders, and the files of a table.
//!
//! Names from outside become paths here and nowhere else, encoded so that no name can leave its
//! folder or collide with another.

use std::ffi::OsStr;
use std::path::{Component, Path, PathBuf};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use tracelake_model::{Clock as _, SystemClock, TableName};
use url::Url;
use uuid::{NoContext, Timestamp, Uuid};

use crate::error::LakeError;
use crate::shared_tables::{SharedTables, TablesEntry, link_tables, tables_entry};

/// Characters kept in a folder name; a period is not, so that `..` cannot occur.
const KEPT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'_').remove(b'-');

/// Folder of a table that holds its log.
pub const LOG_FOLDER: &str = "_delta_log";

/// Extension of the plan of an epoch.
const PLAN_EXTENSION: &str = "plan";

/// The folder that a service owns.
///
/// Its tables lie in it, or where a link in place of their folder leads, such as to a mounted
/// share. The link is followed once, so that tables have one path for all that share them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataFolder {
    root: PathBuf,
    shared: Option<SharedTables>,
}

impl DataFolder {
    /// The folder at `root`; made absolute so that it keeps its meaning.
    ///
    /// # Errors
    /// When the current folder cannot be told, or the folder cannot be looked at.
    pub fn new(root: impl AsRef<Path>) -> std::io::Result<Self> {
        let root = resolved(std::path::absolute(root)?);
        let shared = match tables_entry(&tables_link(&root))? {
            TablesEntry::Link(target) => Some(SharedTables::new(target)),
            TablesEntry::Missing | TablesEntry::Folder => None,
        };
        Ok(Self { root, shared })
    }

    /// The same data folder with its tables at `tables`, a folder that is there. Noted as a link,
    /// so that whoever opens the data folder finds them.
    ///
    /// # Errors
    /// [`LakeError::TablesElsewhere`] when there are tables elsewhere, and nothing was changed;
    /// [`LakeError::Storage`] when the folder is not there or has no hard links, or when it is in
    /// the data folder or the other way round.
    pub fn with_tables(&self, tables: &Path) -> Result<Self, LakeError> {
        link_tables(&tables_link(&self.root), tables)?;
        Self::new(&self.root).map_err(|source| LakeError::Storage {
            action: "look at",
            path: self.root.display().to_string(),
            source,
        })
    }

    /// Whether the tables are within reach: always, when they lie in the folder itself.
    ///
    /// # Errors
    /// [`LakeError::NotMounted`] when they lie on a share that is not there.
    pub fn check_tables(&self) -> Result<(), LakeError> {
        self.shared.as_ref().map_or(Ok(()), SharedTables::check)
    }

    /// Whether its tables lie in it, and so move with it.
    #[must_use]
    pub const fn has_own_tables(&self) -> bool {
        self.shared.is_none()
    }

    /// The folder that all tables lie in.
    #[must_use]
    pub fn tables_folder(&self) -> PathBuf {
        match &self.shared {
            Some(shared) => shared.folder().to_owned(),
            None => tables_link(&self.root),
        }
    }

    /// The folder itself.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The journal's folder.
    #[must_use]
    pub fn journal(&self) -> PathBuf {
        self.root.join("journal")
    }

    /// The registry's database file.
    #[must_use]
    pub fn registry(&self) -> PathBuf {
        self.root.join("registry.db")
    }

    /// The Unity Catalog's database file.
    #[must_use]
    pub fn catalog(&self) -> PathBuf {
        self.root.join("catalog.db")
    }

    /// Where a running service says how to reach it.
    #[must_use]
    pub fn server_file(&self) -> PathBuf {
        self.root.join("server.json")
    }

    /// Where the last epoch that is done is noted: beside the segments that it is about, so that
    /// both are lost or kept together.
    #[must_use]
    pub fn epoch_file(&self) -> PathBuf {
        self.journal().join("EPOCH")
    }

    /// Where a start notes what it is at, of what an earlier process left.
    #[must_use]
    pub fn replay_mark(&self) -> PathBuf {
        self.journal().join("REPLAY")
    }

    /// Where a process notes, beside that, what its death would be of.
    #[must_use]
    pub fn pulse(&self) -> PathBuf {
        self.journal().join("PULSE")
    }

    /// Where it is noted what an epoch brings to which table: beside the segments as well.
    #[must_use]
    pub fn epoch_plan(&self, epoch: u64) -> PathBuf {
        self.journal().join(format!("{epoch:020}.{PLAN_EXTENSION}"))
    }

    /// The epoch whose plan has this name, `None` for other files.
    #[must_use]
    pub fn epoch_of_plan(name: &OsStr) -> Option<u64> {
        let path = Path::new(name);
        path.extension().filter(|extension| *extension == PLAN_EXTENSION)?;
        path.file_stem()?.to_str()?.parse().ok()
    }

    /// Where the journal's own id is: epochs are numbered within it.
    #[must_use]
    pub fn journal_id_file(&self) -> PathBuf {
        self.journal().join("ID")
    }

    /// Where the ledger of what was acknowledged lies.
    #[must_use]
    pub fn ledger(&self) -> PathBuf {
        self.root.join("ledger")
    }

    /// Where the ledger's newest link is noted: beside the epoch file, and outside of the ledger.
    #[must_use]
    pub fn ledger_link_file(&self) -> PathBuf {
        self.journal().join("LEDGER")
    }

    /// Where records lie that were acknowledged and cannot be read, or that ended the process.
    #[must_use]
    pub fn parked(&self) -> PathBuf {
        self.root.join("parked")
    }

    /// Every table in the folder, by name.
    ///
    /// # Errors
    /// When the folder cannot be read; a missing one has no tables, unless it is a share.
    pub fn tables(&self) -> std::io::Result<Vec<TableName>> {
        self.check_tables().map_err(std::io::Error::other)?;
        let mut names = Vec::new();
        for catalog in subfolders(&self.tables_folder())? {
            for schema in subfolders(&catalog.0)? {
                for table in subfolders(&schema.0)? {
                    let name = TableName::new(&catalog.1, &schema.1, &table.1);
                    if let Ok(name) = name
                        && has_log(&table.0)?
                    {
                        names.push(name);
                    }
                }
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    /// A table's folder.
    #[must_use]
    pub fn table(&self, name: &TableName) -> TableLocation {
        let mut folder = self.tables_folder();
        for part in [name.catalog(), name.schema(), name.table()] {
            folder.push(folder_name(part));
        }
        TableLocation { folder, shared: self.shared.clone() }
    }
}

/// Where a data folder has its tables, or the link that leads to them.
fn tables_link(root: &Path) -> PathBuf {
    root.join("tables")
}

/// True when the table at `folder` has a version. An empty log folder is what a crash leaves of a
/// creation that did not happen.
pub(crate) fn has_log(folder: &Path) -> std::io::Result<bool> {
    let entries = match std::fs::read_dir(folder.join(LOG_FOLDER)) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        entries => entries?,
    };
    for entry in entries {
        if is_version_file(&entry?.file_name().to_string_lossy()) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// True for a file of a log that tells of a version.
pub(crate) fn is_version_file(name: &str) -> bool {
    let version = name.split('.').next().unwrap_or_default();
    version.len() == 20
        && version.bytes().all(|byte| byte.is_ascii_digit())
        && (name.ends_with(".json") || name.contains(".checkpoint."))
}

/// What stands in a folder name for a byte that cannot: this and two hex digits. Not `%`, which
/// readers of tables decode in a path, some once and some twice, and then look for another folder.
const ESCAPE: char = '=';

/// The folder of one part of a table's name. One that begins with an underscore would be taken for
/// a folder within a table, such as its log.
fn folder_name(part: &str) -> String {
    // Both characters are escaped in `part` itself, so this can be undone.
    let name = utf8_percent_encode(part, KEPT).to_string().replace('%', &ESCAPE.to_string());
    match name.strip_prefix('_') {
        Some(rest) => format!("{ESCAPE}5F{rest}"),
        None => name,
    }
}

/// The name that [`folder_name`] was made from; `None` for a folder that is not ours.
fn decode_folder_name(folder: &str) -> Option<String> {
    let percent = folder.replace(ESCAPE, "%");
    let name = percent_decode_str(&percent).decode_utf8().ok()?;
    (folder_name(&name) == folder).then(|| name.into_owned())
}

/// Folders below `folder` with their decoded names; others than ours are passed over.
fn subfolders(folder: &Path) -> std::io::Result<Vec<(PathBuf, String)>> {
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir()
            && let Some(decoded) = entry.file_name().to_str().and_then(decode_folder_name)
        {
            found.push((entry.path(), decoded));
        }
    }
    Ok(found)
}

/// Where a table lies.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TableLocation {
    folder: PathBuf,
    shared: Option<SharedTables>,
}

impl TableLocation {
    /// The table at `folder`, an absolute path.
    #[must_use]
    pub const fn new(folder: PathBuf) -> Self {
        Self { folder, shared: None }
    }

    /// Whether the place of the table is within reach, be the table there or not.
    ///
    /// # Errors
    /// [`LakeError::NotMounted`] when it is on a share that is not there.
    pub(crate) fn check(&self) -> Result<(), LakeError> {
        self.shared.as_ref().map_or(Ok(()), SharedTables::check)
    }

    /// The folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The folder as a URL that ends with a slash; `None` for a relative folder.
    #[must_use]
    pub fn url(&self) -> Option<Url> {
        Url::from_directory_path(&self.folder).ok()
    }
}

/// The path without `..`, with which one folder would have tables at two addresses.
fn resolved(path: PathBuf) -> PathBuf {
    if !path.components().any(|part| part == Component::ParentDir) {
        return path;
    }
    let made_later = || Some(path.parent()?.canonicalize().ok()?.join(path.file_name()?));
    path.canonicalize().ok().or_else(made_later).unwrap_or(path)
}

/// A fresh data file's name.
pub(crate) fn data_file() -> String {
    format!("part-{}.zstd.parquet", id_by_time())
}

/// An id that begins with the time, so that names made one after the other mostly lie side by side.
fn id_by_time() -> Uuid {
    let now = SystemClock.now_unix_nano();
    let nanos = u32::try_from(now % 1_000_000_000).unwrap_or_default();
    Uuid::new_v7(Timestamp::from_unix(NoContext, now / 1_000_000_000, nanos))
}

/// How the names of files begin that are still written; a crash leaves some.
pub(crate) const TEMPORARY_PREFIX: &str = ".tmp-";

/// Folder of a table that holds its change data.
pub(crate) const CHANGE_FOLDER: &str = "_change_data";

/// A fresh change data file's name.
pub(crate) fn change_file() -> String {
    format!("{CHANGE_FOLDER}/cdc-{}.zstd.parquet", id_by_time())
}

/// A fresh deletion vector file: its name, and its encoded form in the log.
///
/// The log has the 16 bytes of the uuid in base 85 (Delta protocol, "Derived Fields").
pub(crate) fn deletion_vector_file() -> (String, String) {
    let uuid = Uuid::new_v4();
    (format!("deletion_vector_{uuid}.bin"), z85::encode(uuid.as_bytes()))
}

/// The log file of a version.
pub(crate) fn log_file(version: u64) -> String {
    format!("{LOG_FOLDER}/{version:020}.json")
}

/// Where the log says which checkpoint to begin with.
pub(crate) const LAST_CHECKPOINT: &str = "_last_checkpoint";

/// How the names of checkpoints begin that cannot be read and were moved aside.
pub(crate) const DAMAGED_PREFIX: &str = ".damaged-";

/// A file of the log, by its name.
pub(crate) fn in_log(name: &str) -> String {
    format!("{LOG_FOLDER}/{name}")
}

/// The name of the checkpoint of a version, as one file.
pub(crate) fn checkpoint_name(version: u64) -> String {
    format!("{version:020}.checkpoint.parquet")
}

/// What a file of the log's folder is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LogName {
    /// The commit of this version.
    Commit(u64),
    /// A checkpoint of this version, or a part of one.
    Checkpoint(u64),
}

/// What a file of the log's folder is; `None` for others than commits and checkpoints.
pub(crate) fn log_name(name: &str) -> Option<LogName> {
    let (version, rest) = name.split_once('.')?;
    if !is_version_file(name) {
        return None;
    }
    let version = version.parse().ok()?;
    if rest == "json" {
        return Some(LogName::Commit(version));
    }
    let is_checkpoint =
        rest.starts_with("checkpoint.") && (rest.ends_with(".parquet") || rest.ends_with(".json"));
    is_checkpoint.then_some(LogName::Checkpoint(version))
}

/// The path of an action, which the log has percent-encoded, relative to the table's folder.
pub(crate) fn decode_action_path(path: &str) -> String {
    percent_decode_str(path).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: names with characters that mean something to a file system or a URL.
    /// Guarantees: each stays one folder below `tables`, and distinct names stay distinct.
    #[test]
    fn names_never_leave_their_folder() {
        let folder = DataFolder::new("/data").unwrap();
        let odd = TableName::new("..".replace('.', "~").as_str(), "a%2fb", "caf\u{e9}*?").unwrap();
        let path = folder.table(&odd).folder().to_owned();
        assert_eq!(path, Path::new("/data/tables/=7E=7E/a=252fb/caf=C3=A9=2A=3F"));
        let url = folder.table(&odd).url().unwrap();
        assert!(url.as_str().ends_with('/') && !url.as_str().contains('%'), "{url}");
        for name in ["a", "=", "%", "=25", "%3D", "a=b%c", "\u{e9}", "_delta_log", "a_b", "__"] {
            assert_eq!(decode_folder_name(&folder_name(name)).as_deref(), Some(name));
        }
        for foreign in ["%41", "=41", "a b", "=zz", "a.b", "_delta_log"] {
            assert_eq!(decode_folder_name(foreign), None, "{foreign}");
        }
    }
}
