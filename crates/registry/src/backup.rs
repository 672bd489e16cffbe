//! The registry's backup: a copy of the file, made after changes, from which a damaged one is
//! restored.
//!
//! `registry.db.backup` is a database of its own, without a log beside it. It is made under the lock
//! that writers take, under another name, synced and renamed: it is there whole or not at all, and
//! never older than the one before. Each change raises the number `identity.revision`, which says of
//! two copies which one is the later.
//!
//! Backups take at most a twentieth of the time: changes that come while it is not time yet wait
//! for the next one, and for [`Registry::close`].

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode};
use sqlx::{ConnectOptions as _, Connection as _, Row as _, SqliteConnection};
use tracing::warn;

use crate::Registry;
use crate::error::{RegistryError, file_fault, is_damage, storage};
use crate::file::{BACKUP_FILE, REGISTRY_FILE, file_options, length};
use crate::ids::{self, sync_folder_of};
use crate::schema::{TABLES, supported_version};

/// What a file is called while it is made.
const NEW_SUFFIX: &str = "new";

/// Part of the time that backups may take, as its reciprocal.
const SHARE: u32 = 20;

/// Wait after a backup that failed, such as for a full disk.
const RETRY_AFTER: Duration = Duration::from_secs(10);

/// What a copy of the registry is.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Copy {
    archiver_id: String,
    revision: i64,
}

/// Whether a file can be used.
#[derive(Debug)]
enum Fitness {
    Fit(Copy),
    /// A database without a table: whoever was about to make it died.
    Blank,
    /// What is wrong with it.
    Damaged(String),
}

/// A registry that was restored from its backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    /// What was wrong with the file.
    pub reason: String,
    /// Where the damaged file lies now; `None` when there was none.
    pub moved_to: Option<PathBuf>,
    /// Experiments that are created from now on have higher ids.
    pub last_given_id: i64,
}

impl Registry {
    /// Opens the registry as [`Registry::open`] does, for the process that owns the data folder:
    /// a file that is damaged, or gone, is restored from its backup first, and moved aside.
    ///
    /// # Errors
    /// As [`Registry::open`]; [`RegistryError::Damaged`] when there is no backup to restore it from,
    /// [`RegistryError::BackupDiffers`] when the file is another one than that of its backup, or
    /// older: then nothing is changed.
    pub async fn open_or_restore(
        data_dir: &Path,
        clock: std::sync::Arc<dyn tracelake_model::Clock>,
    ) -> Result<(Self, Option<Restored>), RegistryError> {
        let restored = restore_if_damaged(data_dir, clock.now_unix_micro() / 1_000_000).await?;
        let registry = Self::open(data_dir, clock).await?;
        // The backup may be missing, or older than the last change of a process that was killed.
        registry.changed();
        Ok((registry, restored))
    }

    /// Keeps the backup up to date until the registry is closed.
    pub async fn keep_backup(&self) {
        let mut changes = self.changes.subscribe();
        while !changes.borrow_and_update().closing {
            let started = Instant::now();
            let pause = match self.back_up().await {
                Ok(()) => started.elapsed().saturating_mul(SHARE),
                Err(error) => {
                    warn!(%error, "registry not backed up");
                    RETRY_AFTER
                }
            };
            let closing = changes.wait_for(|changes| changes.closing);
            if tokio::time::timeout(pause, closing).await.is_ok() {
                return;
            }
            if self.is_backed_up().await && changes.changed().await.is_err() {
                return;
            }
        }
    }

    /// Notes that something changed.
    pub(crate) fn changed(&self) {
        self.changes.send_modify(|changes| changes.count += 1);
    }

    async fn is_backed_up(&self) -> bool {
        *self.backed_up.lock().await == self.changes.borrow().count
    }

    /// Makes a backup, if something changed since the last one of this process.
    pub(crate) async fn back_up(&self) -> Result<(), RegistryError> {
        let mut backed_up = self.backed_up.lock().await;
        let count = self.changes.borrow().count;
        if *backed_up == count {
            return Ok(());
        }
        let backup = self.data_dir.join(BACKUP_FILE);
        let new = backup.with_extension(NEW_SUFFIX);
        // Others wait meanwhile, so that of two backups the later one stays.
        let held = self.begin("back up").await?;
        remove(&new)?;
        let made = sqlx::query("VACUUM INTO ?")
            .bind(new.to_string_lossy().into_owned())
            .execute(&self.pool)
            .await;
        made.map_err(storage("back up"))?;
        let path = backup.clone();
        let renamed = tokio::task::spawn_blocking(move || {
            std::fs::File::open(&new)?.sync_all()?;
            std::fs::rename(&new, &path)?;
            sync_folder_of(&path)
        });
        let renamed = renamed.await.map_err(std::io::Error::other).flatten();
        renamed.map_err(file_fault("write", &backup))?;
        held.rollback().await.map_err(storage("back up"))?;
        *backed_up = count;
        Ok(())
    }
}

/// Looks at the file before anything opens it to write, and puts the backup in its place when it is
/// damaged or gone.
async fn restore_if_damaged(
    data_dir: &Path,
    now_unix_seconds: i64,
) -> Result<Option<Restored>, RegistryError> {
    let path = data_dir.join(REGISTRY_FILE);
    let backup = data_dir.join(BACKUP_FILE);
    let has_backup = backup.try_exists().map_err(file_fault("look at", &backup))?;
    let reason = match length(&path)? {
        None if !has_backup => return Ok(None),
        None => "is missing".to_owned(),
        // Another process is about to make it.
        Some(0) if !has_backup => return Ok(None),
        Some(0) => "is empty".to_owned(),
        Some(_) => match fitness(&file_options(&path).create_if_missing(false), &path).await? {
            Fitness::Damaged(reason) => reason,
            Fitness::Blank if !has_backup => return Ok(None),
            Fitness::Blank => "has no table".to_owned(),
            Fitness::Fit(own) => {
                if has_backup {
                    compare(&path, &own, &backup).await?;
                }
                return Ok(None);
            }
        },
    };
    let unfit = |why: String| RegistryError::Damaged {
        path: path.display().to_string(),
        reason: reason.clone(),
        backup: why,
    };
    if !has_backup {
        return Err(unfit("there is no backup".to_owned()));
    }
    match fitness(&backup_options(&backup), &backup).await? {
        Fitness::Fit(_) => {}
        Fitness::Blank => return Err(unfit("its backup has no table".to_owned())),
        Fitness::Damaged(why) => return Err(unfit(format!("its backup is damaged: {why}"))),
    }
    let restored = restore(data_dir, &path, &backup, now_unix_seconds).await?;
    let (moved_to, last_given_id) = restored;
    Ok(Some(Restored { reason, moved_to, last_given_id }))
}

/// Refuses a file that is not the one of the backup, or an earlier state of it.
async fn compare(path: &Path, own: &Copy, backup: &Path) -> Result<(), RegistryError> {
    let Fitness::Fit(kept) = fitness(&backup_options(backup), backup).await? else {
        // It is made anew after the start.
        return Ok(());
    };
    let differs = |reason: &'static str| RegistryError::BackupDiffers {
        path: path.display().to_string(),
        backup: backup.display().to_string(),
        reason,
    };
    if own.archiver_id != kept.archiver_id {
        return Err(differs("is of another data folder than"));
    }
    if own.revision < kept.revision {
        return Err(differs("is older than"));
    }
    Ok(())
}

/// Whether a database is whole and a registry, without changing it.
async fn fitness(options: &SqliteConnectOptions, path: &Path) -> Result<Fitness, RegistryError> {
    let read = async {
        let mut connection = options.connect().await?;
        let looked = look(&mut connection).await;
        // Also when it is damaged: closed by its own thread at some later time, SQLite would remove
        // the log of the file that has the name by then.
        let closed = connection.close().await;
        looked.and_then(|looked| closed.map(|()| looked))
    };
    match read.await {
        Ok(None) => Ok(Fitness::Blank),
        Ok(Some(Looked { version, .. })) if supported_version() < version => {
            Err(RegistryError::SchemaTooNew {
                path: path.display().to_string(),
                found: version,
                supported: supported_version(),
            })
        }
        Ok(Some(Looked { fault: Some(fault), .. })) => Ok(Fitness::Damaged(fault)),
        Ok(Some(Looked { copy, .. })) => Ok(Fitness::Fit(copy)),
        Err(error) if is_damage(&error) => Ok(Fitness::Damaged(error.to_string())),
        Err(error) => Err(storage("look at file")(error)),
    }
}

struct Looked {
    version: i64,
    copy: Copy,
    fault: Option<String>,
}

/// `None` for a database without a table.
async fn look(connection: &mut SqliteConnection) -> Result<Option<Looked>, sqlx::Error> {
    let tables = sqlx::query("SELECT count(*) FROM sqlite_master").fetch_one(&mut *connection);
    if tables.await?.try_get::<i64, _>(0)? == 0 {
        return Ok(None);
    }
    let version: i64 = sqlx::query("SELECT coalesce(max(version), 0) FROM schema_version")
        .fetch_one(&mut *connection)
        .await?
        .try_get(0)?;
    let mut copy = Copy { archiver_id: String::new(), revision: 0 };
    let mut fault = None;
    if version <= supported_version() {
        let checked: String =
            sqlx::query("PRAGMA quick_check(1)").fetch_one(&mut *connection).await?.try_get(0)?;
        fault = (checked != "ok").then_some(checked);
        for (since, table) in TABLES {
            if since <= version {
                let statement = format!("SELECT count(*) FROM {table} LIMIT 1");
                sqlx::query(&statement).fetch_one(&mut *connection).await?;
            }
        }
        let revision = if version < REVISION_SINCE { "0" } else { "revision" };
        let statement = format!("SELECT archiver_id, {revision} FROM identity WHERE one = 1");
        let row = sqlx::query(&statement).fetch_one(&mut *connection).await?;
        copy = Copy { archiver_id: row.try_get(0)?, revision: row.try_get(1)? };
    }
    Ok(Some(Looked { version, copy, fault }))
}

/// The schema version that has `identity.revision`.
const REVISION_SINCE: i64 = 3;

/// Puts a copy of the backup in the file's place. Returns where the file lies now, and the last id
/// that may have been given.
///
/// | the process dies | then the next start finds |
/// |---|---|
/// | before the file is moved aside | the damaged file: all is done again |
/// | after that | no file, and the backup: all is done again |
/// | after the copy has the file's name | a registry that is whole |
async fn restore(
    data_dir: &Path,
    path: &Path,
    backup: &Path,
    now_unix_seconds: i64,
) -> Result<(Option<PathBuf>, i64), RegistryError> {
    let new = path.with_extension("db.restored");
    remove(&new)?;
    std::fs::copy(backup, &new).map_err(file_fault("copy", backup))?;
    let failed = storage("restore file");
    let options = SqliteConnectOptions::new()
        .filename(&new)
        .journal_mode(SqliteJournalMode::Delete)
        .disable_statement_logging();
    let mut connection = options.connect().await.map_err(&failed)?;
    let (known, time) = given_and_time(&mut connection, now_unix_seconds).await.map_err(&failed)?;
    let last_given = ids::last_given(data_dir, known)?;
    ids::set_last_given(&mut connection, last_given).await.map_err(&failed)?;
    connection.close().await.map_err(&failed)?;
    let aside = path.with_extension(format!("db.damaged-{time}"));
    let moved = || -> std::io::Result<bool> {
        std::fs::File::open(&new)?.sync_all()?;
        // The log first: it belongs to the file that is moved.
        for log in ["-wal", "-shm"] {
            move_aside(&with_suffix(path, log), &with_suffix(&aside, log))?;
        }
        let moved = move_aside(path, &aside)?;
        std::fs::rename(&new, path)?;
        sync_folder_of(path)?;
        Ok(moved)
    };
    let moved = moved().map_err(file_fault("restore", path))?;
    Ok((moved.then_some(aside), last_given))
}

/// The last id that a copy has given, and a time as it stands in file names.
async fn given_and_time(
    connection: &mut SqliteConnection,
    now_unix_seconds: i64,
) -> Result<(i64, String), sqlx::Error> {
    let statement = "SELECT max((SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = \
         'experiments'), (SELECT coalesce(max(experiment_id), 0) FROM experiments)), \
         strftime('%Y%m%dT%H%M%SZ', ?, 'unixepoch')";
    let row = sqlx::query(statement).bind(now_unix_seconds).fetch_one(connection).await?;
    Ok((row.try_get(0)?, row.try_get(1)?))
}

/// A backup is one file that nobody writes.
fn backup_options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .read_only(true)
        .immutable(true)
        .disable_statement_logging()
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Renames a file; false when there is none.
fn move_aside(path: &Path, aside: &Path) -> std::io::Result<bool> {
    match std::fs::rename(path, aside) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        renamed => renamed.map(|()| true),
    }
}

fn remove(path: &Path) -> Result<(), RegistryError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(file_fault("remove", path)(error))
        }
        _ => Ok(()),
    }
}
