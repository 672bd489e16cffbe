//! The Unity Catalog within this process: `olai-uc-server` over its SQLite store.
//!
//! The library has the catalog's content, its handlers and its pages. Ours is the edge before it,
//! because the library's own HTTP edge deviates from the official API: 64-bit integers as strings,
//! errors without a subject. Four calls are ours as well, on the library's store: creating
//! (the library wants a managed root for each catalog, does not look for the parent, and refuses
//! `file` locations), updating (it loses members that the call does not name), and deleting what
//! is not empty (it leaves orphans). Why: `docs/adr/0004-embedded-unity-catalog.md`.
//!
//! Several processes may have the file open. SQLite's write-ahead log and busy timeout order their
//! statements; nothing is cached here.

mod answers;
mod convert;
mod entries;
mod file;
mod lists;
mod removal;
mod routes;
mod unity;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::Router;
use tokio::sync::Mutex;
use unitycatalog_server::api::RequestContext;
use unitycatalog_server::policy::{ConstantPolicy, Principal};
use unitycatalog_server::services::ServerHandler;

use crate::calls::UnityCatalog as _;
use crate::error::CatalogError;

/// Where the API lies on the service's HTTP port.
pub const API_PATH: &str = "/api/2.1/unity-catalog";

/// A name that is looked up to see whether the tables of the file are what they should be.
const PROBED_NAME: &str = "tracelake";

/// A Unity Catalog in one file. Times of creation and change are the library's, by the system's clock.
///
/// Every change is durable when its call returns. Dropping a call's future leaves the change done
/// or not done.
pub struct EmbeddedCatalog {
    library: ServerHandler<RequestContext>,
    pool: sqlx::SqlitePool,
    path: PathBuf,
    /// Held over each look before a change and the change, so that no child is made below a parent
    /// that is being deleted.
    changes: Mutex<()>,
}

impl EmbeddedCatalog {
    /// Opens the file, which is made when it is not there; its folder must exist.
    ///
    /// # Errors
    /// [`CatalogError::Storage`] when it cannot be opened or is no such database.
    pub async fn open(path: &Path) -> Result<Self, CatalogError> {
        let (pool, store) = file::open(path).await?;
        let library =
            ServerHandler::try_new_tokio(Arc::new(ConstantPolicy::default()), Arc::new(store))
                .map_err(|error| file::storage("open", path, &error))?;
        let path = path.to_owned();
        Ok(Self { library, pool, path, changes: Mutex::new(()) })
    }

    /// Opens the file as [`EmbeddedCatalog::open`] does; one that is damaged is moved to `aside`
    /// first. Returns what was wrong with it.
    ///
    /// # Errors
    /// As [`EmbeddedCatalog::open`]: a file of a newer program stays where it is.
    pub async fn open_or_rebuild(
        path: &Path,
        aside: &Path,
    ) -> Result<(Self, Option<String>), CatalogError> {
        let opened = match Self::open(path).await {
            Ok(catalog) => match catalog.catalog(PROBED_NAME).await {
                Ok(_) | Err(CatalogError::NotFound { .. }) => return Ok((catalog, None)),
                Err(error) => {
                    catalog.close().await;
                    error.to_string()
                }
            },
            Err(CatalogError::Damaged { reason, .. }) => reason,
            Err(error) => return Err(error),
        };
        file::move_aside(path, aside)?;
        Ok((Self::open(path).await?, Some(opened)))
    }

    /// The routes below [`API_PATH`]. Every answer is JSON as the official API has it, also for
    /// what is not there.
    pub fn router(self: Arc<Self>) -> Router {
        Router::new().nest(API_PATH, routes::router(self))
    }

    /// Closes the file; calls after this fail.
    pub async fn close(&self) {
        file::close(&self.pool).await;
    }
}

impl std::fmt::Debug for EmbeddedCatalog {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("EmbeddedCatalog").field("path", &self.path).finish_non_exhaustive()
    }
}

/// Who calls: the library wants to know. Who may call at all is the service's business.
fn context() -> RequestContext {
    RequestContext { recipient: Principal::anonymous() }
}

#[cfg(test)]
mod tests;
