//! Why a call of the catalog failed, with what the caller needs to act.

use tracelake_model::names::NameError;

/// What is named: the kinds of things in a catalog that this room knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Securable {
    Catalog,
    Schema,
    Table,
}

impl Securable {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Catalog => "catalog",
            Self::Schema => "schema",
            Self::Table => "table",
        }
    }

    /// What the API's paths and lists call them.
    pub(crate) const fn plural(self) -> &'static str {
        match self {
            Self::Catalog => "catalogs",
            Self::Schema => "schemas",
            Self::Table => "tables",
        }
    }
}

/// What the caller may do about an error. Match on this, never on the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CatalogErrorKind {
    /// What was asked for is not there.
    NotFound,
    /// It is there already.
    AlreadyExists,
    /// The call itself is wrong; the same call again cannot help.
    Invalid,
    /// The state of the catalog forbids the call.
    Precondition,
    /// The catalog does not serve such calls.
    Unsupported,
    /// The catalog could not be reached or failed; trying again may help.
    Unavailable,
}

/// An error of the catalog room.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CatalogError {
    /// A name that Unity Catalog would refuse.
    #[error(transparent)]
    Name(#[from] NameError),
    /// Nothing of that name. Create it first.
    #[error("{kind} `{name}` does not exist")]
    NotFound {
        /// `catalog`, `schema` or `table`.
        kind: &'static str,
        /// Its full name.
        name: String,
    },
    /// The name is taken.
    #[error("{kind} `{name}` already exists")]
    AlreadyExists {
        /// `catalog`, `schema` or `table`.
        kind: &'static str,
        /// Its full name.
        name: String,
    },
    /// A part of the call is missing or has a value that is not allowed.
    #[error("{subject}: {reason}")]
    Invalid {
        /// Which part, such as `storage_location`.
        subject: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Something below it is still there. Delete that first, or force.
    #[error("{kind} `{name}` is not empty")]
    NotEmpty {
        /// `catalog` or `schema`.
        kind: &'static str,
        /// Its full name.
        name: String,
    },
    /// The table is registered at another place, which a registration never changes. Delete that
    /// entry, or choose another name.
    #[error("table `{table}` is in the catalog at `{found}`, not at `{wanted}`")]
    OtherLocation {
        /// Full name of the table.
        table: String,
        /// Where the catalog has it.
        found: String,
        /// Where it lies.
        wanted: String,
    },
    /// The call is part of Unity Catalog's API but not of what is served here.
    #[error("{subject} is not served by the embedded catalog")]
    Unsupported {
        /// What was asked for.
        subject: String,
    },
    /// The catalog's file could not be opened, read or written.
    #[error("{action} `{path}`: {reason}")]
    Storage {
        /// What was being done.
        action: &'static str,
        /// The file.
        path: String,
        /// What SQLite or the library said.
        reason: String,
    },
    /// The catalog's file is damaged. It holds nothing that cannot be made again: move it away.
    #[error("catalog `{path}` is damaged: {reason}")]
    Damaged {
        /// The file.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A newer program wrote the catalog's file. Use that one.
    #[error("catalog `{path}` has schema version {version}, which this program does not know")]
    TooNew {
        /// The file.
        path: String,
        /// The version it has.
        version: i64,
    },
    /// A server's URL that cannot be used.
    #[error("unity catalog `{url}`: {reason}")]
    Url {
        /// As given, without a password.
        url: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The server could not be reached, or the connection broke.
    #[error("{call} at `{server}`")]
    Unreachable {
        /// The call, such as ``get table `a.b.c` ``.
        call: String,
        /// Host and port.
        server: String,
        /// The transport's error.
        source: reqwest::Error,
    },
    /// The server answered with an error.
    #[error("{call} at `{server}`: {status} {code}: {message}")]
    Refused {
        /// The call.
        call: String,
        /// Host and port.
        server: String,
        /// HTTP status.
        status: u16,
        /// The answer's `error_code`, empty when there is none.
        code: String,
        /// The answer's `message`, shortened.
        message: String,
    },
    /// The server answered with something that Unity Catalog's API does not allow.
    #[error("{call} at `{server}`: {reason}")]
    Answer {
        /// The call.
        call: String,
        /// Host and port.
        server: String,
        /// What is wrong with the answer.
        reason: String,
    },
}

impl CatalogError {
    pub(crate) fn not_found(kind: Securable, name: impl Into<String>) -> Self {
        Self::NotFound { kind: kind.as_str(), name: name.into() }
    }

    pub(crate) fn already_exists(kind: Securable, name: impl Into<String>) -> Self {
        Self::AlreadyExists { kind: kind.as_str(), name: name.into() }
    }

    pub(crate) fn invalid(subject: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Invalid { subject: subject.into(), reason: reason.into() }
    }

    /// What the caller may do about it.
    #[must_use]
    pub fn kind(&self) -> CatalogErrorKind {
        match self {
            Self::NotFound { .. } => CatalogErrorKind::NotFound,
            Self::AlreadyExists { .. } => CatalogErrorKind::AlreadyExists,
            Self::Name(_) | Self::Invalid { .. } | Self::Url { .. } => CatalogErrorKind::Invalid,
            Self::NotEmpty { .. } | Self::OtherLocation { .. } => CatalogErrorKind::Precondition,
            Self::Unsupported { .. } => CatalogErrorKind::Unsupported,
            Self::Storage { .. }
            | Self::Damaged { .. }
            | Self::TooNew { .. }
            | Self::Unreachable { .. }
            | Self::Answer { .. } => CatalogErrorKind::Unavailable,
            Self::Refused { status, code, .. } => kind_of_answer(*status, code),
        }
    }
}

/// Servers disagree on the status of a name that is taken (400, 409), so the code decides first.
fn kind_of_answer(status: u16, code: &str) -> CatalogErrorKind {
    match status {
        _ if code.ends_with("ALREADY_EXISTS") => CatalogErrorKind::AlreadyExists,
        404 => CatalogErrorKind::NotFound,
        409 => CatalogErrorKind::AlreadyExists,
        400 if code == "FAILED_PRECONDITION" => CatalogErrorKind::Precondition,
        501 => CatalogErrorKind::Unsupported,
        400..=499 => CatalogErrorKind::Invalid,
        _ => CatalogErrorKind::Unavailable,
    }
}
