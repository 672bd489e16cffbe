//! Between the library's types and the API's. Both are JSON of the same members, so JSON is the
//! way: the library writes 64-bit integers as strings, which our side reads as numbers.

use serde::Serialize;
use serde::de::DeserializeOwned;
use unitycatalog_common::models::{ResourceIdent, ResourceName, ResourceRef};

use super::{EmbeddedCatalog, file};
use crate::error::{CatalogError, Securable};

/// What a call of the library was about, for the error that it may end with.
#[derive(Clone, Debug)]
pub(super) struct Subject {
    pub(super) kind: Securable,
    pub(super) name: String,
}

impl Subject {
    pub(super) fn new(kind: Securable, name: impl Into<String>) -> Self {
        Self { kind, name: name.into() }
    }
}

impl EmbeddedCatalog {
    pub(super) fn convert<T: DeserializeOwned>(
        &self,
        value: &impl Serialize,
    ) -> Result<T, CatalogError> {
        serde_json::to_value(value)
            .and_then(serde_json::from_value)
            .map_err(|error| file::storage("read entry of", &self.path, &error))
    }

    /// What an error of the library means for `subject`.
    pub(super) fn library_error(
        &self,
        subject: &Subject,
        error: &unitycatalog_server::Error,
    ) -> CatalogError {
        use unitycatalog_server::Error;
        match error {
            Error::NotFound => CatalogError::not_found(subject.kind, &subject.name),
            Error::AlreadyExists => CatalogError::already_exists(subject.kind, &subject.name),
            Error::InvalidArgument(reason) => {
                CatalogError::invalid(subject.kind.as_str(), reason.as_str())
            }
            Error::Common { source } => self.store_error(subject, source),
            other => file::storage("use", &self.path, other),
        }
    }

    /// What an error of the library's store means for `subject`.
    pub(super) fn store_error(
        &self,
        subject: &Subject,
        error: &unitycatalog_common::Error,
    ) -> CatalogError {
        use unitycatalog_common::Error;
        match error {
            Error::NotFound => CatalogError::not_found(subject.kind, &subject.name),
            Error::AlreadyExists => CatalogError::already_exists(subject.kind, &subject.name),
            Error::InvalidArgument(reason) => {
                CatalogError::invalid(subject.kind.as_str(), reason.as_str())
            }
            other => file::storage("use", &self.path, other),
        }
    }
}

pub(super) fn catalog_ident(name: &str) -> ResourceIdent {
    ResourceIdent::catalog(ResourceRef::Name(ResourceName::new([name])))
}

pub(super) fn schema_ident(catalog: &str, name: &str) -> ResourceIdent {
    ResourceIdent::schema(ResourceRef::Name(ResourceName::new([catalog, name])))
}

pub(super) fn table_ident(name: &tracelake_model::TableName) -> ResourceIdent {
    let parts = [name.catalog(), name.schema(), name.table()];
    ResourceIdent::table(ResourceRef::Name(ResourceName::new(parts)))
}
