//! A store without the files that were found damaged, so that whoever reads through it passes over
//! them.

use std::collections::HashSet;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

/// What the names of all files have in common that may be hidden.
const HIDDEN_INFIX: &str = "checkpoint";

/// A store, less some checkpoints.
#[derive(Debug)]
pub(crate) struct PassOver {
    store: Arc<dyn ObjectStore>,
    hidden: Arc<RwLock<HashSet<Path>>>,
}

impl PassOver {
    pub(crate) fn new(store: Arc<dyn ObjectStore>) -> Self {
        Self { store, hidden: Arc::default() }
    }

    /// The store with everything.
    pub(crate) fn whole(&self) -> Arc<dyn ObjectStore> {
        Arc::clone(&self.store)
    }

    /// Hides a file of a log. Returns true when it was to be seen.
    pub(super) fn hide(&self, path: Path) -> bool {
        self.hidden.write().unwrap_or_else(PoisonError::into_inner).insert(path)
    }

    /// Shows every file of a folder again.
    pub(super) fn show_all_of(&self, folder: &Path) {
        let mut hidden = self.hidden.write().unwrap_or_else(PoisonError::into_inner);
        hidden.retain(|path| !path.prefix_matches(folder));
    }

    /// True when a file of a folder is hidden.
    pub(super) fn hides_any_of(&self, folder: &Path) -> bool {
        self.read().iter().any(|path| path.prefix_matches(folder))
    }

    fn read(&self) -> RwLockReadGuard<'_, HashSet<Path>> {
        self.hidden.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn check(&self, path: &Path) -> Result<()> {
        if path.as_ref().contains(HIDDEN_INFIX) && self.read().contains(path) {
            return Err(Error::NotFound {
                path: path.to_string(),
                source: "damaged, passed over".into(),
            });
        }
        Ok(())
    }

    fn shown(
        &self,
        files: BoxStream<'static, Result<ObjectMeta>>,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        if self.read().is_empty() {
            return files;
        }
        let hidden = Arc::clone(&self.hidden);
        let is_shown = move |file: &Result<ObjectMeta>| {
            let hidden = hidden.read().unwrap_or_else(PoisonError::into_inner);
            file.as_ref().map_or(true, |file| !hidden.contains(&file.location))
        };
        files.filter(move |file| std::future::ready(is_shown(file))).boxed()
    }
}

impl fmt::Display for PassOver {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.store.fmt(formatter)
    }
}

#[async_trait]
impl ObjectStore for PassOver {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        opts: PutOptions,
    ) -> Result<PutResult> {
        self.store.put_opts(location, payload, opts).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.store.put_multipart_opts(location, opts).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.check(location)?;
        self.store.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.check(location)?;
        self.store.get_ranges(location, ranges).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.store.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.shown(self.store.list(prefix))
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        self.shown(self.store.list_with_offset(prefix, offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let mut listed = self.store.list_with_delimiter(prefix).await?;
        let hidden = self.read();
        listed.objects.retain(|file| !hidden.contains(&file.location));
        Ok(listed)
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.store.copy_opts(from, to, options).await
    }
}
