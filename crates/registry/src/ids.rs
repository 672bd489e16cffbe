//! The ids that may have been given, noted apart from the registry's file: after that was restored
//! from a backup, no experiment gets an id that another one had.
//!
//! `registry.ids` is one line with a number, twice: no id at or above it was given. It is raised by
//! a hundred before an id that it does not cover is given, so that creating an experiment seldom
//! writes it. A registry that is restored or made anew goes on at
//! that number.

use std::io::{self, Write as _};
use std::path::Path;

use sqlx::SqliteConnection;

use crate::error::{RegistryError, file_fault, storage};

/// Name of the file within the data folder.
pub(crate) const IDS_FILE: &str = "registry.ids";

/// Ids that are covered at a time.
const STEP: i64 = 100;

/// Ids that are passed over when nothing says which ones were given.
const UNKNOWN_GIVEN: i64 = 10_000;

/// Makes sure that the note covers `id`, durably.
pub(crate) fn cover(data_dir: &Path, id: i64) -> Result<(), RegistryError> {
    let path = data_dir.join(IDS_FILE);
    if read(&path)?.is_some_and(|limit| id < limit) {
        return Ok(());
    }
    let limit = id.saturating_add(STEP);
    write_durably(&path, format!("{limit} {limit}\n").as_bytes())
        .map_err(file_fault("write", &path))
}

/// The last id that may have been given, by the note and by what a copy of the registry has given.
pub(crate) fn last_given(data_dir: &Path, known: i64) -> Result<i64, RegistryError> {
    let noted = read(&data_dir.join(IDS_FILE))?;
    Ok(match noted {
        Some(limit) => known.max(limit.saturating_sub(1)),
        None => known.saturating_add(UNKNOWN_GIVEN),
    })
}

/// Lets a registry that is made anew go on behind the ids that an earlier one may have given.
pub(crate) async fn go_on_behind(
    connection: &mut SqliteConnection,
    data_dir: &Path,
) -> Result<(), RegistryError> {
    let Some(limit) = read(&data_dir.join(IDS_FILE))? else { return Ok(()) };
    set_last_given(connection, limit.saturating_sub(1)).await.map_err(storage("go on behind ids"))
}

/// Gives ids above `last` from now on.
pub(crate) async fn set_last_given(
    connection: &mut SqliteConnection,
    last: i64,
) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM sqlite_sequence WHERE name = 'experiments'")
        .execute(&mut *connection)
        .await?;
    sqlx::query("INSERT INTO sqlite_sequence (name, seq) VALUES ('experiments', ?)")
        .bind(last)
        .execute(&mut *connection)
        .await?;
    Ok(())
}

/// The note; `None` when there is none that can be read.
fn read(path: &Path) -> Result<Option<i64>, RegistryError> {
    let bytes = match std::fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        bytes => bytes.map_err(file_fault("read", path))?,
    };
    let text = std::str::from_utf8(&bytes).ok().and_then(|text| text.strip_suffix('\n'));
    let pair = text.and_then(|text| text.split_once(' '));
    Ok(pair.filter(|(one, other)| one == other).and_then(|(one, _)| one.parse().ok()))
}

/// Writes a file whole or not at all; durable when this returns.
fn write_durably(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("ids.new");
    let mut file = std::fs::File::create(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)?;
    sync_folder_of(path)
}

/// Makes the names in the folder of `path` durable.
pub(crate) fn sync_folder_of(path: &Path) -> io::Result<()> {
    // Only Unix lets a folder be opened and synced.
    match path.parent() {
        Some(folder) if cfg!(unix) => std::fs::File::open(folder)?.sync_all(),
        _ => Ok(()),
    }
}
