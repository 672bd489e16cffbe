//! Damaged files, and what is put in their place.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tempfile::TempDir;
use tracelake_model::{ExperimentId, SystemClock, TableName};
use tracelake_registry::{
    EarlierTraces, NewExperiment, Registry, RegistryError, RegistryErrorKind, Restored,
};

type Opened = Result<(Registry, Option<Restored>), RegistryError>;

async fn open(folder: &Path) -> Opened {
    Registry::open_or_restore(folder, Arc::new(SystemClock)).await
}

fn file(folder: &Path) -> PathBuf {
    folder.join("registry.db")
}

async fn create(registry: &Registry, name: &str) -> i64 {
    let new = NewExperiment { name: name.into(), ..NewExperiment::default() };
    registry.create_experiment(&new).await.unwrap().number()
}

fn table() -> TableName {
    "a.b.c".parse().unwrap()
}

/// A folder whose registry has an experiment `one` that is bound, and was closed.
async fn filled() -> TempDir {
    let folder = TempDir::new().unwrap();
    let (registry, restored) = open(folder.path()).await.unwrap();
    assert_eq!(restored, None);
    assert_eq!(create(&registry, "one").await, 1);
    registry.register_table(&table(), "file:///a/").await.unwrap();
    registry.bind(&ExperimentId::from(1), &table(), 5, EarlierTraces::Stay).await.unwrap();
    registry.close().await;
    let lookup = registry.experiment_route(&ExperimentId::from(1)).await;
    assert_eq!(lookup.unwrap_err().kind(), RegistryErrorKind::Internal);
    // Nothing of the closed registry has the file open: SQLite's log goes with the last of those.
    let names = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name());
    assert_eq!(names.filter(|name| name.to_string_lossy().contains("db-")).count(), 0);
    folder
}

fn copy_all(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

/// All files of a folder but those that SQLite makes and removes at will, by name.
fn contents(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<(String, Vec<u8>)> = std::fs::read_dir(folder)
        .unwrap()
        .filter_map(|entry| {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            // A connection that is being closed may remove its log between the listing and here.
            match std::fs::read(entry.path()) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
                bytes => Some((name, bytes.unwrap())),
            }
        })
        .filter(|(name, bytes)| {
            !(name.ends_with("-shm") || name.ends_with("-wal") && bytes.is_empty())
        })
        .collect();
    files.sort();
    files
}

/// Scenario: the file is garbage, cut at several lengths, empty, gone, a database of something else,
/// or lacks a table; a log of another file lies beside it.
/// Guarantees: all that was there is there again, the damaged file is moved aside, and no id is given
/// twice.
#[tokio::test]
async fn a_damaged_file_is_restored() {
    let origin = filled().await;
    let good = std::fs::read(file(origin.path())).unwrap();
    let lacking = TempDir::new().unwrap();
    copy_all(origin.path(), lacking.path());
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(file(lacking.path()));
    let mut connection = sqlx::ConnectOptions::connect(&options).await.unwrap();
    sqlx::query("DROP TABLE moves").execute(&mut connection).await.unwrap();
    sqlx::Connection::close(connection).await.unwrap();
    let lacking = std::fs::read(file(lacking.path())).unwrap();
    let mut holed = good.clone();
    holed[4096..8192].fill(0);
    let cases: Vec<Option<Vec<u8>>> = vec![
        Some(b"garbage".repeat(1000)),
        Some(good[..100].to_vec()),
        Some(good[..good.len() / 2].to_vec()),
        Some(holed),
        Some(lacking),
        Some(Vec::new()),
        None,
    ];
    for (number, bytes) in cases.into_iter().enumerate() {
        let folder = TempDir::new().unwrap();
        copy_all(origin.path(), folder.path());
        match &bytes {
            Some(bytes) => std::fs::write(file(folder.path()), bytes).unwrap(),
            None => std::fs::remove_file(file(folder.path())).unwrap(),
        }
        std::fs::write(folder.path().join("registry.db-wal"), b"of another file").unwrap();
        let (registry, restored) = open(folder.path()).await.unwrap();
        let restored = restored.unwrap_or_else(|| panic!("case {number}"));
        assert_eq!(restored.moved_to.is_some(), bytes.is_some(), "case {number}");
        if let (Some(moved_to), Some(bytes)) = (&restored.moved_to, &bytes) {
            assert_eq!(&std::fs::read(moved_to).unwrap(), bytes);
            assert!(moved_to.display().to_string().contains("registry.db.damaged-20"));
        }
        let bindings = registry.bindings().await.unwrap();
        assert_eq!((bindings.len(), bindings[0].table.clone()), (1, table()), "case {number}");
        let next = create(&registry, "two").await;
        assert!(restored.last_given_id < next && 100 <= restored.last_given_id, "{restored:?}");
        registry.close().await;
        assert_eq!(open(folder.path()).await.unwrap().1, None, "case {number}");
    }
}

/// Scenario: the process that was about to make the file died: it is empty, or a database without a table, with its
/// log switched on or not.
/// Guarantees: the next start makes it; where there is a backup, that is put in its place.
#[tokio::test]
async fn a_file_that_was_never_made_is_made() {
    for (journal, has_backup) in [("delete", false), ("wal", false), ("wal", true)] {
        let folder = if has_backup { filled().await } else { TempDir::new().unwrap() };
        let path = file(folder.path());
        if has_backup {
            std::fs::remove_file(&path).unwrap();
        }
        let options =
            sqlx::sqlite::SqliteConnectOptions::new().filename(&path).create_if_missing(true);
        let mut connection = sqlx::ConnectOptions::connect(&options).await.unwrap();
        let statement = format!("PRAGMA journal_mode = {journal}");
        sqlx::query(&statement).execute(&mut connection).await.unwrap();
        sqlx::query("CREATE TABLE gone (x); DROP TABLE gone")
            .execute(&mut connection)
            .await
            .unwrap();
        sqlx::Connection::close(connection).await.unwrap();
        assert!(0 < std::fs::metadata(&path).unwrap().len());
        let (registry, restored) = open(folder.path()).await.unwrap();
        assert_eq!(restored.is_some(), has_backup, "{journal}");
        assert_eq!(registry.bindings().await.unwrap().len(), usize::from(has_backup));
        registry.close().await;
    }
}

/// Scenario: the file is empty or gone and has a backup; a command beside the service opens it.
/// Guarantees: it makes no registry in its place, which would keep the one of the backup out.
#[tokio::test]
async fn a_file_that_waits_for_its_backup_is_left_alone() {
    for bytes in [Some(""), None] {
        let folder = filled().await;
        match bytes {
            Some(bytes) => std::fs::write(file(folder.path()), bytes).unwrap(),
            None => std::fs::remove_file(file(folder.path())).unwrap(),
        }
        let before = contents(folder.path());
        let opened = Registry::open(folder.path(), Arc::new(SystemClock)).await;
        assert!(matches!(opened, Err(RegistryError::Unrestored { .. })), "{bytes:?}");
        assert_eq!(contents(folder.path()), before);
        assert!(open(folder.path()).await.unwrap().1.is_some());
    }
}

/// Scenario: experiments are created that no backup has, more than one note covers; then the file is
/// lost, with and without the note, and with and without the backup.
/// Guarantees: ids that were given are not given again.
#[tokio::test]
async fn ids_are_never_given_twice() {
    let origin = filled().await;
    let backup = std::fs::read(origin.path().join("registry.db.backup")).unwrap();
    let (registry, _) = open(origin.path()).await.unwrap();
    let mut last = 0;
    for number in 0..150 {
        last = create(&registry, &format!("later {number}")).await;
    }
    registry.close().await;
    for (has_note, has_backup) in [(true, true), (false, true), (true, false)] {
        let folder = TempDir::new().unwrap();
        copy_all(origin.path(), folder.path());
        std::fs::remove_file(file(folder.path())).unwrap();
        if !has_note {
            std::fs::write(folder.path().join("registry.ids"), "damaged").unwrap();
        }
        match folder.path().join("registry.db.backup") {
            path if has_backup => std::fs::write(path, &backup).unwrap(),
            path => std::fs::remove_file(path).unwrap(),
        }
        let (registry, restored) = open(folder.path()).await.unwrap();
        assert_eq!(restored.is_some(), has_backup);
        assert!(last < create(&registry, "new").await, "note {has_note}, backup {has_backup}");
    }
}

/// Scenario: the file is damaged and there is no backup, or that is damaged too; the file is older
/// than its backup, or another folder's; the file or its backup is a newer program's.
/// Guarantees: each is refused with its reason, and no file changes.
#[tokio::test]
async fn what_cannot_be_mended_is_refused_without_a_change() {
    let origin = filled().await;
    let old = std::fs::read(file(origin.path())).unwrap();
    let (registry, _) = open(origin.path()).await.unwrap();
    create(&registry, "two").await;
    registry.close().await;
    let foreign = filled().await;
    let foreign = std::fs::read(file(foreign.path())).unwrap();
    let newer = TempDir::new().unwrap();
    copy_all(origin.path(), newer.path());
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(file(newer.path()));
    let mut connection = sqlx::ConnectOptions::connect(&options).await.unwrap();
    sqlx::query("INSERT INTO schema_version VALUES (1000, 0)")
        .execute(&mut connection)
        .await
        .unwrap();
    sqlx::Connection::close(connection).await.unwrap();
    let newer = std::fs::read(file(newer.path())).unwrap();
    let garbage = b"garbage".repeat(1000);
    type Bytes<'a> = Option<&'a [u8]>;
    let cases: [(Bytes<'_>, Bytes<'_>, &str); 6] = [
        (Some(&garbage), None, "there is no backup"),
        (Some(&garbage), Some(&garbage), "its backup is damaged"),
        (Some(&old), Some(&[]), "is older than"),
        (Some(&foreign), Some(&[]), "is of another data folder than"),
        (Some(&newer), Some(&[]), "has schema version 1000"),
        (Some(&garbage), Some(&newer), "has schema version 1000"),
    ];
    for (main, backup, expected) in cases {
        let folder = TempDir::new().unwrap();
        copy_all(origin.path(), folder.path());
        if let Some(bytes) = main {
            std::fs::write(file(folder.path()), bytes).unwrap();
        }
        let path = folder.path().join("registry.db.backup");
        match backup {
            None => std::fs::remove_file(path).unwrap(),
            // As it is.
            Some([]) => {}
            Some(bytes) => std::fs::write(path, bytes).unwrap(),
        }
        let before = contents(folder.path());
        let error = open(folder.path()).await.map(|_| ()).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
        assert_eq!(error.kind(), RegistryErrorKind::Internal);
        assert_eq!(contents(folder.path()), before, "{expected}");
    }
}

/// Scenario: a file that an earlier version made, which has neither backup nor note.
/// Guarantees: it opens as it is, and is backed up.
#[tokio::test]
async fn a_file_without_a_backup_gets_one() {
    let folder = filled().await;
    for name in ["registry.db.backup", "registry.ids"] {
        std::fs::remove_file(folder.path().join(name)).unwrap();
    }
    let (registry, restored) = open(folder.path()).await.unwrap();
    assert_eq!(restored, None);
    registry.close().await;
    std::fs::write(file(folder.path()), "damaged").unwrap();
    let (registry, restored) = open(folder.path()).await.unwrap();
    assert!(10_000 < restored.unwrap().last_given_id);
    assert_eq!(registry.bindings().await.unwrap().len(), 1);
}

/// Scenario: changes while the backup is kept up to date, by this process and beside another one.
/// Guarantees: after each, a backup that has it comes to be without a close; two processes leave the
/// later state.
#[tokio::test]
async fn the_backup_follows_changes() {
    let folder = filled().await;
    let (registry, _) = open(folder.path()).await.unwrap();
    let registry = Arc::new(registry);
    let keeper = Arc::clone(&registry);
    let keeping = async move { keeper.keep_backup().await };
    let changing = async {
        let other = Registry::open(folder.path(), Arc::new(SystemClock)).await.unwrap();
        for number in 0..3 {
            create(&registry, &format!("own {number}")).await;
            create(&other, &format!("other {number}")).await;
        }
        other.close().await;
        loop {
            let copy = TempDir::new().unwrap();
            std::fs::copy(folder.path().join("registry.db.backup"), file(copy.path())).unwrap();
            let kept = Registry::open(copy.path(), Arc::new(SystemClock)).await.unwrap();
            if kept.experiment_by_name("own 2").await.is_ok() {
                kept.experiment_by_name("other 2").await.unwrap();
                break;
            }
            tokio::task::yield_now().await;
        }
        registry.close().await;
    };
    tokio::join!(keeping, changing);
}
