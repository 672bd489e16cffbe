//! Where a client works, and how tables are named there.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use tracelake_model::TableName;
use tracelake_model::names::printable;
use url::Url;

use crate::fault::{Fault, FaultKind};

/// Folder of a table that holds its log.
const LOG_FOLDER: &str = "_delta_log";

/// Where a client works.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A running service.
    Service(ServiceUrl),
    /// A data folder; beside a service that runs on it, what it has not committed counts.
    Folder(PathBuf),
    /// The folder of one Delta table. It can only be asked.
    Table(PathBuf),
}

impl Place {
    /// Reads a place like [`str::parse`].
    ///
    /// # Errors
    /// [`FaultKind::InvalidParameterValue`] for what is no place, such as a path that is no text.
    pub fn parse(text: &OsStr) -> Result<Self, Fault> {
        checked_text(text)?.parse()
    }

    /// What [`Self::parse`] reads as this place, but for a password.
    #[must_use]
    pub fn to_os_string(&self) -> OsString {
        match self {
            Self::Service(url) => url.to_string().into(),
            Self::Folder(path) | Self::Table(path) => path.clone().into_os_string(),
        }
    }

    fn at(path: PathBuf) -> Self {
        if path.join(LOG_FOLDER).is_dir() {
            Self::Table(absolute(path))
        } else {
            Self::Folder(path)
        }
    }
}

impl FromStr for Place {
    type Err = Fault;

    /// `http://...` and `https://...` are services. Any other text is a path, with or without
    /// `file://`: a table's folder if it has a Delta log, a data folder otherwise.
    fn from_str(text: &str) -> Result<Self, Fault> {
        let lower = text.to_ascii_lowercase();
        if lower.starts_with("http://") || lower.starts_with("https://") {
            return text.parse().map(Self::Service);
        }
        parse_path(text).map(Self::at)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Service(url) => write!(formatter, "{url}"),
            Self::Folder(path) | Self::Table(path) => write!(formatter, "{}", path.display()),
        }
    }
}

/// Address of a service. Shown without its password.
#[derive(Clone, PartialEq, Eq)]
pub struct ServiceUrl(Url);

impl ServiceUrl {
    /// The address of a call, whose parts are encoded.
    pub(crate) fn call(&self, parts: &[&str]) -> Url {
        let mut url = self.0.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(parts);
        }
        url
    }
}

impl FromStr for ServiceUrl {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Self, Fault> {
        let wrong = |reason: &str| {
            // The text may hold a password, so it is not repeated.
            Fault::new(FaultKind::InvalidParameterValue, format!("the service's URI {reason}"))
                .with_hint("write it as http://127.0.0.1:5000")
        };
        let mut url = Url::parse(text).map_err(|error| wrong(&format!("is none: {error}")))?;
        if url.cannot_be_a_base() || url.host().is_none() {
            return Err(wrong("names no host"));
        }
        url.set_query(None);
        url.set_fragment(None);
        Ok(Self(url))
    }
}

impl fmt::Display for ServiceUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = self.0.clone();
        // They cannot fail for a URL with a host.
        shown.set_password(None).ok();
        shown.set_username("").ok();
        formatter.write_str(shown.as_str().trim_end_matches('/'))
    }
}

impl fmt::Debug for ServiceUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "ServiceUrl({self})")
    }
}

/// A table by name or by its folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TableRef {
    /// `catalog.schema.table`.
    Name(TableName),
    /// The folder of a Delta table.
    Folder(PathBuf),
}

impl TableRef {
    /// The name of a table that is to be written.
    ///
    /// # Errors
    /// [`FaultKind::InvalidParameterValue`] for other text, a folder's path included.
    pub fn parse_name(text: &str) -> Result<TableName, Fault> {
        text.parse::<TableName>().map_err(|error| {
            Fault::new(FaultKind::InvalidParameterValue, error.to_string())
                .with_hint("write catalog.schema.table")
        })
    }

    /// Reads a name or a folder like [`str::parse`].
    ///
    /// # Errors
    /// [`FaultKind::InvalidParameterValue`] for what is neither, such as a path that is no text.
    pub fn parse(text: &OsStr) -> Result<Self, Fault> {
        checked_text(text)?.parse()
    }

    /// What [`Self::parse`] reads as this table.
    #[must_use]
    pub fn to_os_string(&self) -> OsString {
        match self {
            Self::Name(name) => name.to_string().into(),
            Self::Folder(path) => path.clone().into(),
        }
    }
}

impl FromStr for TableRef {
    type Err = Fault;

    /// What has a slash in it, or begins with `file:`, is a folder; no name of Unity Catalog has.
    fn from_str(text: &str) -> Result<Self, Fault> {
        if text.contains('/') || text.starts_with("file:") {
            return parse_path(text).map(|path| Self::Folder(absolute(path)));
        }
        let name = text.parse::<TableName>().map_err(|error| {
            Fault::new(FaultKind::InvalidParameterValue, error.to_string())
                .with_hint("write catalog.schema.table, or the path of a table's folder")
        })?;
        Ok(Self::Name(name))
    }
}

impl fmt::Display for TableRef {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => write!(formatter, "{name}"),
            Self::Folder(path) => write!(formatter, "{}", path.display()),
        }
    }
}

/// A table's folder stays the same when the process goes to another one, and is told from a name.
/// Without `..`, which the log's URLs do not have.
fn absolute(path: PathBuf) -> PathBuf {
    path.canonicalize().or_else(|_| std::path::absolute(&path)).unwrap_or(path)
}

/// Delta tables, and what lies beside them, have paths that are text: their logs and catalogs name
/// them by URLs.
pub(super) fn checked_text(text: &OsStr) -> Result<&str, Fault> {
    text.to_str().ok_or_else(|| {
        let shown = text.to_string_lossy();
        let message = format!("the path `{}` is no text in UTF-8", printable(&shown));
        Fault::new(FaultKind::InvalidParameterValue, message)
            .with_hint("rename the folder, or reach it by a link whose name is text")
    })
}

fn parse_path(text: &str) -> Result<PathBuf, Fault> {
    let wrong = |reason: &str| {
        // What stands before an @ may be a password.
        let shown = text.rsplit_once('@').map_or(text, |(_, shown)| shown);
        let message = format!("`{}` {reason}", printable(shown));
        Fault::new(FaultKind::InvalidParameterValue, message)
            .with_hint("write http://HOST:PORT, a folder, or file:///FOLDER")
    };
    if text.is_empty() || text.contains('\0') {
        return Err(wrong("is no place"));
    }
    let Some((scheme, _)) = text.split_once("://") else { return Ok(Path::new(text).to_owned()) };
    if !scheme.eq_ignore_ascii_case("file") {
        return Err(wrong("has a scheme that tracelake does not read"));
    }
    let url = Url::parse(text).map_err(|error| wrong(&error.to_string()))?;
    url.to_file_path().map_err(|()| wrong("is no path of this machine"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: every way to write a place, and texts that are none.
    /// Guarantees: each is what it looks like; a password is never shown.
    #[test]
    fn places_are_what_they_look_like() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().display().to_string();
        assert_eq!(path.parse::<Place>().unwrap(), Place::Folder(folder.path().to_owned()));
        std::fs::create_dir(folder.path().join(LOG_FOLDER)).unwrap();
        let table = format!("file://{path}").parse::<Place>().unwrap();
        assert_eq!(table, Place::Table(folder.path().to_owned()));
        let service = "http://me:secret@127.0.0.1:5000/base/".parse::<Place>().unwrap();
        assert_eq!(service.to_string(), "http://127.0.0.1:5000/base");
        assert!(!format!("{service:?}").contains("secret"));
        for wrong in ["", "s3://bucket/x", "http://", "a\0b"] {
            assert!(wrong.parse::<Place>().is_err(), "{wrong:?}");
        }
        let Place::Service(url) = service else { unreachable!() };
        assert_eq!(url.call(&["api", "a/b"]).path(), "/base/api/a%2Fb");
    }

    /// Scenario: names and folders of tables.
    /// Guarantees: a slash makes a folder; other text must be a name.
    #[test]
    fn tables_are_names_or_folders() {
        assert!(matches!("a.b.c".parse(), Ok(TableRef::Name(_))));
        assert!(matches!("./t".parse(), Ok(TableRef::Folder(_))));
        assert!(matches!("file:///data/t".parse(), Ok(TableRef::Folder(_))));
        for wrong in ["", "a", "a.b.c.d", "a..b", "s3://a/b"] {
            assert!(wrong.parse::<TableRef>().is_err(), "{wrong:?}");
        }
    }
}
