//! The files of a table in an object store.
//!
//! A name is written by a conditional PUT, which the store decides. Its answer may be lost, or be
//! that of a second attempt by the client's own retries, which finds the name taken by the first.
//! So after anything but a plain success the object is read back: no two writers ever have the same
//! bytes for a name, so bytes that are ours say that our PUT won. One that is looked up too early
//! may still take effect later; the traces are then found in the table by whoever hands them over
//! again.

use std::sync::Arc;

use bytes::Bytes;
use delta_kernel_default_engine::executor::TaskExecutor as _;
use delta_kernel_default_engine::executor::tokio::TokioMultiThreadExecutor;
use futures::TryStreamExt as _;
use object_store::path::Path as ObjectPath;
use object_store::{Error, ObjectStore, ObjectStoreExt as _, PutMode, PutOptions, PutPayload};

use super::{Fill, OpenedFile, PutOutcome, TableFiles};
use crate::error::LakeError;
use crate::layout::{LOG_FOLDER, is_version_file};

/// A table below `root` in a store.
#[derive(Clone, Debug)]
pub(crate) struct ObjectFiles {
    store: Arc<dyn ObjectStore>,
    executor: Arc<TokioMultiThreadExecutor>,
    root: ObjectPath,
}

impl ObjectFiles {
    pub(crate) const fn new(
        store: Arc<dyn ObjectStore>,
        executor: Arc<TokioMultiThreadExecutor>,
        root: ObjectPath,
    ) -> Self {
        Self { store, executor, root }
    }

    fn object(&self, path: &str) -> ObjectPath {
        path.split('/').fold(self.root.clone(), |folder, part| folder.join(part))
    }

    fn get(&self, object: &ObjectPath) -> Result<Bytes, Error> {
        let (store, object) = (Arc::clone(&self.store), object.clone());
        self.executor.block_on(async move { store.get(&object).await?.bytes().await })
    }
}

fn fault(action: &'static str, object: &ObjectPath, source: Error) -> LakeError {
    LakeError::Storage { action, path: object.to_string(), source: source.into() }
}

impl TableFiles for ObjectFiles {
    /// Nothing: a store has no folders.
    fn create(&self) -> Result<(), LakeError> {
        Ok(())
    }

    fn put_if_absent(&self, path: &str, bytes: &[u8]) -> Result<PutOutcome, LakeError> {
        let object = self.object(path);
        let body = Bytes::copy_from_slice(bytes);
        let (store, target) = (Arc::clone(&self.store), object.clone());
        let payload = PutPayload::from_bytes(body.clone());
        let options = PutOptions::from(PutMode::Create);
        let put =
            self.executor.block_on(async move { store.put_opts(&target, payload, options).await });
        let Err(refused) = put else { return Ok(PutOutcome::Written) };
        match self.get(&object) {
            Ok(found) if found == body => Ok(PutOutcome::Written),
            Ok(_) => Ok(PutOutcome::Exists),
            Err(_) => Err(fault("write", &object, refused)),
        }
    }

    /// The object is in memory first: a PUT has all of it or nothing.
    fn put_stream(&self, path: &str, fill: &mut Fill<'_>) -> Result<PutOutcome, LakeError> {
        let mut bytes = Vec::new();
        fill(&mut bytes).map_err(|source| LakeError::Storage {
            action: "write",
            path: self.object(path).to_string(),
            source,
        })?;
        self.put_if_absent(path, &bytes)
    }

    fn replace(&self, path: &str, fill: &mut Fill<'_>) -> Result<(), LakeError> {
        let object = self.object(path);
        let mut bytes = Vec::new();
        fill(&mut bytes).map_err(|source| LakeError::Storage {
            action: "write",
            path: object.to_string(),
            source,
        })?;
        let (store, target) = (Arc::clone(&self.store), object.clone());
        let payload = PutPayload::from(bytes);
        let put = self.executor.block_on(async move { store.put(&target, payload).await });
        put.map(|_| ()).map_err(|source| fault("write", &object, source))
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), LakeError> {
        let (old, new) = (self.object(from), self.object(to));
        let (store, source, target) = (Arc::clone(&self.store), old.clone(), new);
        let done = self.executor.block_on(async move { store.rename(&source, &target).await });
        done.map_err(|source| fault("rename", &old, source))
    }

    fn shows_only_durable(&self) -> bool {
        true
    }

    fn sync_log(&self) -> Result<(), LakeError> {
        Ok(())
    }

    fn sync_folders(&self) -> Result<(), LakeError> {
        Ok(())
    }

    fn sync_files(&self, _paths: &[String]) -> Result<(), LakeError> {
        Ok(())
    }

    fn list_log(&self, visit: &mut dyn FnMut(&str)) -> Result<(), LakeError> {
        let log = self.object(LOG_FOLDER);
        let (store, folder) = (Arc::clone(&self.store), log.clone());
        let list = async move { store.list_with_delimiter(Some(&folder)).await };
        let listed = self.executor.block_on(list).map_err(|source| fault("list", &log, source))?;
        listed.objects.iter().filter_map(|file| file.location.filename()).for_each(visit);
        Ok(())
    }

    fn open(&self, path: &str) -> Result<OpenedFile, LakeError> {
        let object = self.object(path);
        self.get(&object).map(OpenedFile::Fetched).map_err(|source| fault("open", &object, source))
    }

    fn has_log(&self) -> Result<bool, LakeError> {
        let log = self.object(LOG_FOLDER);
        let (store, folder) = (Arc::clone(&self.store), log.clone());
        let found = self.executor.block_on(async move {
            store
                .list(Some(&folder))
                .try_any(|file| {
                    let is_version = file.location.filename().is_some_and(is_version_file);
                    std::future::ready(is_version)
                })
                .await
        });
        found.map_err(|source| fault("look for the log of", &log, source))
    }
}

#[cfg(test)]
mod tests {
    use object_store::memory::InMemory;

    use super::*;

    /// Scenario: the same name written twice by two writers, once more by the first.
    /// Guarantees: the first content stays, the second is told so, and a writer that meets its own
    /// bytes, as after an answer that was lost, knows them as written.
    #[test]
    fn a_name_is_written_once_and_known_by_its_bytes() {
        let executor = TokioMultiThreadExecutor::new_owned_runtime(Some(1), Some(1)).unwrap();
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let files = ObjectFiles::new(store, Arc::new(executor), ObjectPath::from("a/b=25"));
        assert!(!files.has_log().unwrap());
        let name = "_delta_log/00000000000000000000.json";
        assert_eq!(files.put_if_absent(name, b"one").unwrap(), PutOutcome::Written);
        assert_eq!(files.put_if_absent(name, b"two").unwrap(), PutOutcome::Exists);
        assert_eq!(files.put_if_absent(name, b"one").unwrap(), PutOutcome::Written);
        let OpenedFile::Fetched(bytes) = files.open(name).unwrap() else { panic!() };
        assert_eq!(bytes, "one");
        assert!(files.has_log().unwrap());
        assert!(matches!(files.open("none"), Err(LakeError::Storage { source, .. })
            if source.kind() == std::io::ErrorKind::NotFound));
    }
}
