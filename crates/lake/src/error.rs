//! Errors of the lake room.

use crate::data_file::is_of_store;

/// Why a table operation failed, with what the operator needs to act.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LakeError {
    /// Another writer committed `version` first, too often in a row. Nothing was written; try
    /// again.
    #[error("commit conflict on table `{table}` at version {version}")]
    CommitConflict {
        /// Table folder.
        table: String,
        /// The version we tried to create.
        version: u64,
    },
    /// The number of an epoch belongs to one of another data folder, which counts under the same name:
    /// one of both is a copy of the other. Nothing was written; take another name.
    #[error("epoch {number} of `{application}` in table `{table}` is another data folder's")]
    EpochTaken {
        /// Table folder.
        table: String,
        /// The name.
        application: String,
        /// The epoch.
        number: i64,
    },
    /// The disk or store failed while doing `action` on `path`. Try again later.
    #[error("{action} `{path}`: {source}")]
    Storage {
        /// Present-tense phrase such as `write data file`.
        action: &'static str,
        /// The file or folder.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// Tables lie on a share that is out of reach. Nothing was written; mount it and try again.
    #[error("tables folder `{folder}` is out of reach: is the share not mounted?")]
    NotMounted {
        /// The folder.
        folder: String,
    },
    /// A data folder has its tables elsewhere. Nothing was changed; use another data folder.
    #[error("tables cannot be kept in `{wanted}`: `{link}` {place}")]
    TablesElsewhere {
        /// Where the data folder has its tables, or the link to them.
        link: String,
        /// What is there.
        place: String,
        /// The folder that was asked for.
        wanted: String,
    },
    /// The Delta kernel refused while doing `action`. The table's log is broken, or out of reach.
    #[error("{action} of table `{table}`: {source}")]
    Kernel {
        /// Present-tense phrase such as `read snapshot`.
        action: &'static str,
        /// Table folder.
        table: String,
        /// What the kernel said.
        source: Box<delta_kernel::KernelError>,
    },
    /// An existing table has a column of another type. Nothing was written; choose another table.
    #[error("column `{column}` of table `{table}`: expected {expected}, found {found}")]
    SchemaMismatch {
        /// Table folder.
        table: String,
        /// Dotted column path.
        column: String,
        /// Type of the contract.
        expected: String,
        /// Type in the table.
        found: String,
    },
    /// The table asks writers for something that this version cannot do. Nothing was written.
    #[error("table `{table}` needs the writer feature `{feature}`, which tracelake does not have")]
    UnsupportedFeature {
        /// Table folder.
        table: String,
        /// The feature as the table's protocol names it.
        feature: String,
    },
    /// A checkpoint cannot be read, and the log before it is gone. Nothing was changed; bring the
    /// checkpoint back from a backup, or the versions before it.
    #[error(
        "checkpoint `{checkpoint}` of table `{table}` is damaged, and the log before it is gone"
    )]
    DamagedCheckpoint {
        /// Table folder.
        table: String,
        /// Name of the file.
        checkpoint: String,
    },
    /// A version's file has nothing in it, which no engine writes: the disk lost its content. Nothing was
    /// changed; bring the file back from a backup.
    #[error("version {version} of table `{table}` is damaged: its file is empty")]
    DamagedVersion {
        /// Table folder.
        table: String,
        /// The version.
        version: u64,
    },
    /// The table takes new rows alone, by its property `delta.appendOnly`. No row was changed; change
    /// the property, or leave the rows as they are.
    #[error(
        "table `{table}` is append-only (`delta.appendOnly`): its rows are not changed or deleted"
    )]
    AppendOnly {
        /// Table folder.
        table: String,
    },
    /// Rows and schema disagree while doing `action`: a defect, retrying cannot help.
    #[error("{action}: {source}")]
    Arrow {
        /// Present-tense phrase such as `encode rows`.
        action: &'static str,
        /// What Arrow said.
        source: arrow::error::ArrowError,
    },
    /// A data file cannot be written or read while doing `action`.
    #[error("{action} `{path}`: {source}")]
    Parquet {
        /// Present-tense phrase such as `read data file`.
        action: &'static str,
        /// The file.
        path: String,
        /// What Parquet said.
        source: parquet::errors::ParquetError,
    },
    /// An archived row cannot be read back, so it cannot be amended.
    #[error("read back `{path}`: {reason}")]
    Row {
        /// The data file.
        path: String,
        /// What is wrong.
        reason: String,
    },
}

/// What a caller may do with a failed operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// Wait with backoff, then do the same again.
    AfterBackoff,
    /// Never: the same call cannot succeed.
    Never,
}

impl LakeError {
    /// Classifies the error. Match on this, never on the message.
    #[must_use]
    pub fn retry(&self) -> Retry {
        match self {
            Self::CommitConflict { .. }
            | Self::EpochTaken { .. }
            | Self::Storage { .. }
            | Self::NotMounted { .. }
            | Self::DamagedCheckpoint { .. }
            | Self::DamagedVersion { .. }
            | Self::Kernel { .. } => Retry::AfterBackoff,
            Self::Parquet { source, .. } if is_of_store(source) => Retry::AfterBackoff,
            Self::TablesElsewhere { .. }
            | Self::SchemaMismatch { .. }
            | Self::UnsupportedFeature { .. }
            | Self::AppendOnly { .. }
            | Self::Arrow { .. }
            | Self::Parquet { .. }
            | Self::Row { .. } => Retry::Never,
        }
    }

    /// True when rows of the table are damaged or gone, so that reading them again is of no use: never when their
    /// store failed.
    pub(crate) fn is_of_rows(&self) -> bool {
        match self {
            Self::Storage { source, .. } => source.kind() == std::io::ErrorKind::NotFound,
            Self::Parquet { source, .. } => !is_of_store(source),
            Self::Row { .. } | Self::Arrow { .. } => true,
            _ => false,
        }
    }
}
