//! A folder of tables outside of the data folder, such as a mounted share that several archivers
//! write to.
//!
//! The data folder leads there by a symbolic link in place of its own folder of tables. Where a
//! share is not mounted its mount point is mostly there, as an empty local folder. So that no
//! table is ever made in it, the folder of the tables has a file that marks it: without the file
//! nothing is written, and what is missing is not taken for a table that does not exist.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use uuid::Uuid;

use crate::error::LakeError;

/// Name of the file by which a mounted folder of tables is known.
pub const TABLES_MARKER: &str = ".tracelake-tables";

/// Times that a link is tried again after another command was first.
const MAX_ATTEMPTS: usize = 10;

const MARKER_TEXT: &str = "Tables of tracelake lie below this folder. Where this file is missing the \
     folder is taken for a mount point whose share is not mounted.\n";

/// The folder that a data folder's link leads to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct SharedTables {
    folder: PathBuf,
}

impl SharedTables {
    pub(crate) const fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// # Errors
    /// [`LakeError::NotMounted`] when the folder or its marker is not there.
    pub(crate) fn check(&self) -> Result<(), LakeError> {
        let marker = self.folder.join(TABLES_MARKER);
        match std::fs::symlink_metadata(&marker) {
            Ok(_) => Ok(()),
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                ) =>
            {
                Err(LakeError::NotMounted { folder: self.folder.display().to_string() })
            }
            Err(source) => Err(storage("look at", &marker, source)),
        }
    }
}

/// What stands where a data folder has its tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TablesEntry {
    Missing,
    /// A folder of its own.
    Folder,
    /// A link that leads to this folder, whether that is there or not.
    Link(PathBuf),
}

/// Looks at `link`, an absolute path.
pub(crate) fn tables_entry(link: &Path) -> io::Result<TablesEntry> {
    match std::fs::read_link(link) {
        Ok(target) => {
            let parent = link.parent().unwrap_or(link);
            // Of a link that dangles the words are all that is known.
            let resolved = std::fs::canonicalize(link);
            Ok(TablesEntry::Link(resolved.unwrap_or_else(|_| parent.join(target))))
        }
        Err(error) => match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Ok(TablesEntry::Missing),
            io::ErrorKind::InvalidInput => Ok(TablesEntry::Folder),
            _ => Err(error),
        },
    }
}

/// Makes `link` lead to `wanted`, which must be there. Changes nothing when it does already.
pub(crate) fn link_tables(link: &Path, wanted: &Path) -> Result<(), LakeError> {
    for _ in 0..MAX_ATTEMPTS {
        match link_once(link, wanted) {
            // Another command made it at the same moment: whether it leads there is looked up.
            Err(LakeError::Storage { source, .. })
                if source.kind() == io::ErrorKind::AlreadyExists => {}
            done => return done,
        }
    }
    Err(taken(link))
}

/// Another command changed what is in the link's place.
fn taken(link: &Path) -> LakeError {
    storage("make the link", link, io::ErrorKind::AlreadyExists.into())
}

/// A [`LakeError::Storage`] of the kind `AlreadyExists` when something is in the link's place that
/// was not there at first.
fn link_once(link: &Path, wanted: &Path) -> Result<(), LakeError> {
    let entry = tables_entry(link).map_err(|source| storage("look at", link, source))?;
    if let TablesEntry::Link(known) = &entry {
        let absolute = std::path::absolute(wanted);
        let same = std::fs::canonicalize(wanted).or(absolute).is_ok_and(|path| path == *known);
        return if same {
            // Its marker was made together with the link: that it is missing means something. The link
            // itself may be that of a command that died before it was durable.
            sync_parent(link).map_err(|source| storage("sync the folder of", link, source))
        } else {
            Err(elsewhere(link, format!("leads to `{}`", known.display()), wanted))
        };
    }
    let folder = std::fs::canonicalize(wanted)
        .map_err(|source| storage("look for the tables folder", wanted, source))?;
    if entry == TablesEntry::Folder {
        match std::fs::canonicalize(link) {
            Ok(own) if own == folder => return Ok(()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(taken(link)),
            Err(source) => return Err(storage("look at", link, source)),
        }
    }
    check_path(link, &folder)?;
    if entry == TablesEntry::Folder && !is_empty(link)? {
        // What was looked into may be what another command's link leads to.
        return Err(match tables_entry(link) {
            Ok(TablesEntry::Folder) => elsewhere(link, "has tables of its own".to_owned(), wanted),
            _ => taken(link),
        });
    }
    check_hard_links(&folder)?;
    let marker = folder.join(TABLES_MARKER);
    write_marker(&marker).map_err(|source| storage("write", &marker, source))?;
    if entry == TablesEntry::Folder {
        // Only an empty folder goes.
        match std::fs::remove_dir(link).map_err(|error| (error.kind(), error)) {
            Ok(()) | Err((io::ErrorKind::NotFound, _)) => {}
            Err((io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::NotADirectory, _)) => {
                return Err(taken(link));
            }
            Err((_, source)) => return Err(storage("replace", link, source)),
        }
    }
    // One call: after a crash the link is there whole, or it is not.
    make_link(&folder, link).map_err(|source| storage("make the link", link, source))
}

/// Refuses a folder of tables whose path readers would misread, or one of which the data folder is
/// a part, or the other way round: a table's name could then be a path of the journal.
fn check_path(link: &Path, folder: &Path) -> Result<(), LakeError> {
    let refused = |kind, reason| storage("keep tables in", folder, io::Error::new(kind, reason));
    if folder.as_os_str().as_encoded_bytes().contains(&b'%') {
        let reason =
            "a percent sign in a path is decoded by some readers of tables and not by others";
        return Err(refused(io::ErrorKind::InvalidFilename, reason));
    }
    let root = link.parent().unwrap_or(link);
    let root = std::fs::canonicalize(root).map_err(|source| storage("look at", root, source))?;
    if folder.starts_with(&root) {
        return Err(refused(io::ErrorKind::InvalidInput, "it is the data folder, or in it"));
    }
    if root.starts_with(folder) {
        return Err(refused(io::ErrorKind::InvalidInput, "the data folder is in it"));
    }
    Ok(())
}

fn is_empty(folder: &Path) -> Result<bool, LakeError> {
    match std::fs::read_dir(folder).map(|mut entries| entries.next().is_none()) {
        // A file in the folder's place.
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => Ok(false),
        // Another command put its link there.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        answer => answer.map_err(|source| storage("look at", folder, source)),
    }
}

fn elsewhere(link: &Path, place: String, wanted: &Path) -> LakeError {
    let shown = |path: &Path| path.display().to_string();
    LakeError::TablesElsewhere { link: shown(link), place, wanted: shown(wanted) }
}

/// Writes the marker unless another archiver did.
fn write_marker(marker: &Path) -> io::Result<()> {
    let mut file = match File::create_new(marker) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
        file => file?,
    };
    file.write_all(MARKER_TEXT.as_bytes())?;
    file.sync_all()?;
    sync_parent(marker)
}

fn make_link(folder: &Path, link: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(folder, link)?;
    sync_parent(link)
}

fn sync_parent(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all())
}

/// Commits are hard links: a file system without them is told apart before anything depends on
/// it.
fn check_hard_links(folder: &Path) -> Result<(), LakeError> {
    let (one, two) = (probe(folder), probe(folder));
    let linked = File::create_new(&one)
        .and_then(|_| std::fs::hard_link(&one, &two))
        .and_then(|()| std::fs::metadata(&one));
    for path in [&one, &two] {
        std::fs::remove_file(path).ok();
    }
    match linked {
        Ok(metadata) if metadata.nlink() == 2 => Ok(()),
        Ok(_) => Err(storage("count hard links in", folder, io::ErrorKind::Unsupported.into())),
        Err(source) => Err(storage("make a hard link in", folder, source)),
    }
}

fn probe(folder: &Path) -> PathBuf {
    folder.join(format!(".tmp-{}", Uuid::new_v4()))
}

fn storage(action: &'static str, path: &Path, source: io::Error) -> LakeError {
    LakeError::Storage { action, path: path.display().to_string(), source }
}

#[cfg(test)]
mod tests {
    use tracelake_model::{SystemClock, TableName};

    use crate::{DataFolder, Lake, Table, create_or_accept};

    use super::*;

    fn name() -> TableName {
        TableName::new("c", "s", "t").unwrap()
    }

    /// Scenario: two data folders with one tables folder, whose path has spaces and dots; then a
    /// percent sign, which the Delta kernel would decode once more.
    /// Guarantees: both name the same table folder, by its canonical path; saying it again is fine;
    /// the percent sign is refused.
    #[test]
    fn data_folders_share_one_tables_folder() {
        let temporary = tempfile::tempdir().unwrap();
        let root = temporary.path().canonicalize().unwrap();
        let shared = root.join("part of a share/tables here");
        let percent = shared.join("20%25");
        std::fs::create_dir_all(&percent).unwrap();
        let mut urls = Vec::new();
        for data in ["a", "b"] {
            let folder = DataFolder::new(root.join(data)).unwrap();
            std::fs::create_dir(folder.root()).unwrap();
            let dotted = root.join("part of a share/../part of a share/tables here");
            assert!(folder.with_tables(&percent).is_err());
            let linked = folder.with_tables(&dotted).unwrap();
            assert_eq!(linked, folder.with_tables(&shared).unwrap());
            assert_eq!(linked, DataFolder::new(root.join(data)).unwrap());
            linked.check_tables().unwrap();
            assert_eq!(linked.table(&name()).folder(), shared.join("c/s/t"));
            urls.push(linked.table(&name()).url().unwrap());
        }
        assert_eq!(urls[0], urls[1]);
        assert!(urls[0].as_str().ends_with("/part%20of%20a%20share/tables%20here/c/s/t/"));
    }

    /// Scenario: a data folder with tables of its own; one that leads elsewhere; a tables folder
    /// that is not there.
    /// Guarantees: each is refused and nothing is changed.
    #[test]
    fn tables_are_never_hidden_behind_a_link() {
        let temporary = tempfile::tempdir().unwrap();
        let root = temporary.path().canonicalize().unwrap();
        let (one, two) = (root.join("one"), root.join("two"));
        std::fs::create_dir(&one).unwrap();
        std::fs::create_dir(&two).unwrap();
        let own = DataFolder::new(root.join("own")).unwrap();
        std::fs::create_dir_all(own.root().join("tables/c/s/t")).unwrap();
        let refused = own.with_tables(&one).unwrap_err();
        assert!(matches!(refused, LakeError::TablesElsewhere { .. }), "{refused}");
        assert!(own.root().join("tables/c/s/t").is_dir());
        assert_eq!(std::fs::read_dir(&one).unwrap().count(), 0);

        let linked = DataFolder::new(root.join("linked")).unwrap();
        std::fs::create_dir_all(linked.root().join("tables")).unwrap();
        let linked = linked.with_tables(&one).unwrap();
        let refused = linked.with_tables(&two).unwrap_err();
        assert!(matches!(refused, LakeError::TablesElsewhere { .. }), "{refused}");
        assert_eq!(linked, DataFolder::new(root.join("linked")).unwrap());
        assert_eq!(std::fs::read_dir(&two).unwrap().count(), 0);

        let fresh = DataFolder::new(root.join("fresh")).unwrap();
        std::fs::create_dir(fresh.root()).unwrap();
        assert!(fresh.with_tables(&root.join("missing")).is_err());
        assert_eq!(std::fs::read_dir(fresh.root()).unwrap().count(), 0);
    }

    /// Everything below a folder.
    fn tree(folder: &Path) -> Vec<PathBuf> {
        let mut paths = Vec::new();
        let entries = std::fs::read_dir(folder).unwrap();
        for path in entries.map(|entry| entry.unwrap().path()) {
            if path.is_dir() && !path.is_symlink() {
                paths.extend(tree(&path));
            }
            paths.push(path);
        }
        paths.sort_unstable();
        paths
    }

    /// Scenario: the tables folder is the data folder's own, empty or not; the data folder itself;
    /// one in it; one that it is in.
    /// Guarantees: its own is fine, all others are refused; nothing is changed by any.
    #[test]
    fn tables_and_data_folder_are_not_nested() {
        let temporary = tempfile::tempdir().unwrap();
        let root = temporary.path().canonicalize().unwrap();
        for own in ["above/data/tables", "above/data/tables/c/s/t"] {
            std::fs::create_dir_all(root.join(own)).unwrap();
            std::fs::create_dir_all(root.join("above/data/journal")).unwrap();
            let before = tree(&root);
            let folder = DataFolder::new(root.join("above/data")).unwrap();
            let same = folder.with_tables(&root.join("above/data/journal/../tables")).unwrap();
            assert_eq!(same, folder);
            for nested in ["above", "above/data", "above/data/journal"] {
                let refused = folder.with_tables(&root.join(nested)).unwrap_err();
                assert!(refused.to_string().contains("data folder"), "{nested}: {refused}");
            }
            assert_eq!(tree(&root), before);
        }
    }

    /// Scenario: many commands name the same tables folder at once, for a fresh data folder and for
    /// one with an empty folder of tables; then half of them another one.
    /// Guarantees: each succeeds; of two tables folders one is linked, and the others are told.
    #[test]
    fn commands_at_once_make_one_link() {
        for round in 0..60 {
            let temporary = tempfile::tempdir().unwrap();
            let root = temporary.path().canonicalize().unwrap();
            let data = root.join("data");
            std::fs::create_dir_all(if round % 2 == 0 {
                data.clone()
            } else {
                data.join("tables")
            })
            .unwrap();
            let shares = if round % 4 < 2 { ["one", "one"] } else { ["one", "two"] };
            for share in shares {
                std::fs::create_dir_all(root.join(share)).unwrap();
            }
            let start = std::sync::Barrier::new(8);
            let known: Vec<Result<DataFolder, LakeError>> = std::thread::scope(|scope| {
                let commands: Vec<_> = (0..8)
                    .map(|command| {
                        let wanted = root.join(shares[command % 2]);
                        let (data, start) = (&data, &start);
                        scope.spawn(move || {
                            let folder = DataFolder::new(data).unwrap();
                            start.wait();
                            folder.with_tables(&wanted)
                        })
                    })
                    .collect();
                commands.into_iter().map(|command| command.join().unwrap()).collect()
            });
            let linked = DataFolder::new(&data).unwrap();
            linked.check_tables().unwrap();
            for (command, outcome) in known.into_iter().enumerate() {
                if linked.tables_folder() == root.join(shares[command % 2]) {
                    assert_eq!(outcome.unwrap(), linked);
                } else {
                    let refused = outcome.unwrap_err();
                    assert!(matches!(refused, LakeError::TablesElsewhere { .. }), "{refused}");
                }
            }
        }
    }

    /// Scenario: the share is away when a checkpoint is due, and its empty mount point is there.
    /// Guarantees: none is written, and no folder is made in the mount point.
    #[test]
    fn no_checkpoint_is_written_to_an_empty_mount_point() {
        let temporary = tempfile::tempdir().unwrap();
        let root = temporary.path().canonicalize().unwrap();
        let share = root.join("share");
        std::fs::create_dir(&share).unwrap();
        std::fs::create_dir(root.join("data")).unwrap();
        let folder = DataFolder::new(root.join("data")).unwrap().with_tables(&share).unwrap();
        let table = Table::at(&Lake::new().unwrap(), folder.table(&name())).unwrap();
        let snapshot = create_or_accept(&table, &SystemClock).unwrap();
        std::fs::rename(&share, root.join("away")).unwrap();
        std::fs::create_dir(&share).unwrap();
        let refused = snapshot.checkpoint().unwrap_err();
        assert!(matches!(refused, LakeError::NotMounted { .. }), "{refused}");
        assert_eq!(tree(&share), Vec::<PathBuf>::new());
    }

    /// Scenario: the share is away: as a missing folder, and as an empty mount point.
    /// Guarantees: the link still says where the tables are, and every look at them says that they
    /// are out of reach, not that there are none.
    #[test]
    fn a_share_that_is_away_is_told_from_an_empty_one() {
        let temporary = tempfile::tempdir().unwrap();
        let root = temporary.path().canonicalize().unwrap();
        let share = root.join("mount/tables");
        std::fs::create_dir_all(&share).unwrap();
        let folder = DataFolder::new(root.join("data")).unwrap();
        std::fs::create_dir(folder.root()).unwrap();
        let linked = folder.with_tables(&share).unwrap();
        assert_eq!(linked.tables().unwrap(), []);
        for leave_mount_point in [false, true] {
            let away = root.join("away");
            std::fs::rename(root.join("mount"), &away).unwrap();
            if leave_mount_point {
                std::fs::create_dir_all(&share).unwrap();
            }
            let known = DataFolder::new(root.join("data")).unwrap();
            assert_eq!(known, linked);
            for refused in [known.check_tables(), known.with_tables(&share).map(|_| ())] {
                // Saying it again must not mark the mount point.
                if let Err(error) = refused {
                    assert!(error.to_string().contains("not mounted?"), "{error}");
                }
            }
            assert!(known.check_tables().is_err());
            assert!(known.tables().unwrap_err().to_string().contains("not mounted?"));
            if leave_mount_point {
                std::fs::remove_dir_all(root.join("mount")).unwrap();
            }
            std::fs::rename(&away, root.join("mount")).unwrap();
            known.check_tables().unwrap();
        }
    }
}
