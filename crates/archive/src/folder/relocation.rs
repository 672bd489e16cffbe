//! A data folder that was moved, or is a copy: registry and catalog follow it.
//!
//! Both note where a table lies as a whole URL, which others read. Tables that lie in the data
//! folder itself have the same place within it wherever it is; so when the registry has one of them at that
//! place below another folder, the data folder was there before. Tables that were put elsewhere
//! (`--tables-dir`) stay where they are.

use std::collections::{BTreeMap, BTreeSet};

use tracelake_catalog::{CatalogErrorKind, UnityCatalog as _, same_location};
use tracelake_lake::TABLES_MARKER;
use tracelake_model::TableName;
use tracing::info;
use url::Url;

use crate::folder::Archive;

impl Archive {
    /// Notes where the tables lie by now.
    ///
    /// # Errors
    /// When registry or catalog cannot be read or changed.
    pub(crate) async fn follow_folder(&self) -> anyhow::Result<()> {
        if !self.folder.has_own_tables() {
            return Ok(());
        }
        let Ok(here) = Url::from_directory_path(self.folder.tables_folder()) else {
            return Ok(());
        };
        let mut known = BTreeMap::new();
        for table in self.registry.tables().await? {
            known.insert(table.name, table.location_url);
        }
        let location = |name: &TableName| self.folder.table(name).url().map(String::from);
        let before: BTreeSet<String> = known
            .iter()
            .filter_map(|(name, known)| place_before(known, &location(name)?, here.as_str()))
            .filter(|before| !is_marked(before))
            .collect();
        for before in before {
            for name in known.keys() {
                self.follow_in_catalog(name, &before, here.as_str()).await?;
            }
            // The last of all: until it is done, the next start goes on with it.
            self.registry.relocate_tables(&before, here.as_str()).await?;
            info!(
                before,
                now = here.as_str(),
                "the data folder was moved or copied: its tables follow"
            );
        }
        Ok(())
    }

    async fn follow_in_catalog(
        &self,
        name: &TableName,
        before: &str,
        here: &str,
    ) -> anyhow::Result<()> {
        let found = match self.catalog.table(name).await {
            Err(error) if error.kind() == CatalogErrorKind::NotFound => return Ok(()),
            found => found?,
        };
        let Some(place) = found.storage_location.as_deref() else { return Ok(()) };
        let Some(within) = place.strip_prefix(before) else { return Ok(()) };
        let location = format!("{here}{within}");
        if !same_location(place, &location) {
            self.catalog.replace_table(name, &found.at(name, &location)).await?;
        }
        Ok(())
    }
}

/// The folder of tables that `known` was in when it was where `now` is within `here`; none when it is there
/// still, or was never within such a folder.
fn place_before(known: &str, now: &str, here: &str) -> Option<String> {
    let within = now.strip_prefix(here)?;
    let before = known.strip_suffix(within)?;
    (before != here && before.ends_with("/tables/")).then(|| before.to_owned())
}

/// Whether that folder is one that data folders share.
fn is_marked(folder: &str) -> bool {
    let path = Url::parse(folder).ok().and_then(|url| url.to_file_path().ok());
    path.is_some_and(|path| std::fs::symlink_metadata(path.join(TABLES_MARKER)).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: a table at its place; in a folder that was moved; elsewhere; under another name.
    /// Guarantees: only what has the same place within a folder of tables is followed.
    #[test]
    fn only_the_place_within_the_folder_tells_of_a_move() {
        let here = "file:///new/data/tables/";
        let now = "file:///new/data/tables/a/b/c/";
        let cases = [
            (now, None),
            ("file:///old/tables/a/b/c/", Some("file:///old/tables/")),
            ("file:///share/a/b/c/", None),
            ("file:///old/tables/a/b/d/", None),
            ("s3://bucket/tables/a/b/c/", Some("s3://bucket/tables/")),
        ];
        for (known, before) in cases {
            assert_eq!(place_before(known, now, here).as_deref(), before, "{known}");
        }
    }

    /// Scenario: a data folder with a table, in the catalog too, is moved, then copied; a table that the user
    /// entered elsewhere stands in the catalog under a name that the registry knows.
    /// Guarantees: each opens, its table and its catalog are where it is, the original's stay; what
    /// was put elsewhere stays there.
    #[tokio::test(flavor = "multi_thread")]
    async fn tables_follow_a_folder_that_is_moved_or_copied() {
        let held = tempfile::tempdir().unwrap();
        let places = ["one", "two", "three"].map(|name| held.path().join(name));
        let table: TableName = "a.b.c".parse().unwrap();
        let archive = Archive::open(&places[0]).await.unwrap();
        archive.ensure_table(&table).await.unwrap();
        archive.close().await;
        std::fs::rename(&places[0], &places[1]).unwrap();
        for place in &places[1..] {
            let archive = Archive::open(place).await.unwrap();
            let at = format!("file://{}/tables/a/b/c/", place.display());
            assert_eq!(archive.registry.table(&table).await.unwrap().unwrap().location_url, at);
            let entry = archive.catalog.table(&table).await.unwrap();
            assert!(same_location(&entry.storage_location.unwrap(), &at));
            assert_eq!(archive.ensure_table(&table).await.unwrap().location, at);
            archive.close().await;
            if *place == places[1] {
                copy(place, &places[2]);
            }
        }
        let shared = held.path().join("share/tables");
        std::fs::create_dir_all(&shared).unwrap();
        let linked = held.path().join("linked");
        let archive = Archive::open_with_tables(&linked, Some(&shared)).await.unwrap();
        archive.ensure_table(&table).await.unwrap();
        archive.close().await;
        let moved = held.path().join("moved");
        std::fs::rename(&linked, &moved).unwrap();
        let archive = Archive::open(&moved).await.unwrap();
        let at = format!("file://{}/a/b/c/", shared.canonicalize().unwrap().display());
        assert_eq!(archive.ensure_table(&table).await.unwrap().location, at);
    }

    fn copy(from: &std::path::Path, to: &std::path::Path) {
        std::fs::create_dir_all(to).unwrap();
        for entry in std::fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            let target = to.join(entry.file_name());
            if entry.file_type().unwrap().is_dir() {
                copy(&entry.path(), &target);
            } else {
                std::fs::copy(entry.path(), target).unwrap();
            }
        }
    }
}
