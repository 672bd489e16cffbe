//! What a version says of its table beside its columns: features, clustering, time.

use std::collections::BTreeSet;

use super::TableSnapshot;
use super::protocol::{
    LegacyUses, OUR_READER_FEATURES, OUR_WRITER_FEATURES, Protocol, check_writable,
};
use crate::error::LakeError;

/// The features that a table asks of its readers and writers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableFeatures {
    /// What readers must know.
    pub reader: BTreeSet<String>,
    /// What writers must know.
    pub writer: BTreeSet<String>,
    /// What tracelake needs of a table and this one does not have.
    pub missing: BTreeSet<String>,
    /// A writer feature that tracelake does not have, so that it must not write the table.
    pub unsupported: Option<String>,
}

impl TableSnapshot {
    /// The features of the table's protocol.
    ///
    /// # Errors
    /// [`LakeError::Row`] when the protocol cannot be taken apart.
    pub fn features(&self) -> Result<TableFeatures, LakeError> {
        let row = |error: serde_json::Error| LakeError::Row {
            path: self.table().name(),
            reason: error.to_string(),
        };
        let protocol = Protocol::of(self)?;
        let schema = serde_json::to_string(self.snapshot.schema().as_ref()).map_err(row)?;
        let properties = self.properties();
        let pairs = properties.iter().map(|(key, value)| (key.as_str(), value.as_str()));
        let writer = protocol.active_writer_features(&LegacyUses::of(pairs, &schema));
        let unsupported = match check_writable(&self.table().name(), &writer, &schema) {
            Ok(()) => None,
            Err(LakeError::UnsupportedFeature { feature, .. }) => Some(feature),
            Err(other) => return Err(other),
        };
        let reader: BTreeSet<String> =
            protocol.reader_features.unwrap_or_default().into_iter().collect();
        let needed_of_writers = OUR_WRITER_FEATURES.iter().filter(|name| !writer.contains(**name));
        let needed_of_readers = OUR_READER_FEATURES.iter().filter(|name| !reader.contains(**name));
        let missing =
            needed_of_writers.chain(needed_of_readers).map(|name| (*name).to_owned()).collect();
        Ok(TableFeatures { reader, writer, missing, unsupported })
    }

    /// The columns of the table's liquid clustering, dotted; `None` without the feature or without
    /// its domain.
    ///
    /// # Errors
    /// [`LakeError::Kernel`] when the log cannot be read or the domain's text is broken.
    pub fn clustering_columns(&self) -> Result<Option<Vec<String>>, LakeError> {
        let columns = self
            .snapshot
            .get_physical_clustering_columns(self.table().engine())
            .map_err(|source| self.table().kernel("read clustering", source))?;
        let dotted = |columns: Vec<delta_kernel::expressions::ColumnName>| {
            columns.iter().map(|column| column.path().join(".")).collect()
        };
        Ok(columns.map(dotted))
    }

    /// When this version was committed, milliseconds since the Unix epoch; `None` when its commit
    /// is gone and only a checkpoint is left.
    #[must_use]
    pub fn committed_at_unix_milli(&self) -> Option<i64> {
        self.snapshot.get_timestamp(self.table().engine()).ok()
    }
}
