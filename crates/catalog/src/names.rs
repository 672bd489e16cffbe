//! Names and locations from outside, checked before anything is done with them.

use tracelake_model::TableName;
use tracelake_model::names::{NameError, printable};
use url::Url;

use crate::error::CatalogError;

/// Longest storage location in bytes.
const MAX_LOCATION_BYTES: usize = 4096;

/// Schemes of storage that a table may lie on.
const SCHEMES: [&str; 9] = ["file", "s3", "s3a", "gs", "abfs", "abfss", "wasbs", "r2", "hdfs"];

/// Checks one part of a name by the rules of [`TableName`].
pub(crate) fn check_name(part: &str) -> Result<(), NameError> {
    TableName::new(part, part, part).map(|_| ())
}

/// Splits `catalog.schema`.
pub(crate) fn parse_schema_name(full_name: &str) -> Result<(String, String), CatalogError> {
    match full_name.split('.').collect::<Vec<_>>().as_slice() {
        [catalog, schema] => {
            check_name(catalog)?;
            check_name(schema)?;
            Ok(((*catalog).to_owned(), (*schema).to_owned()))
        }
        _ => Err(CatalogError::invalid(
            format!("schema name `{}`", printable(full_name)),
            "expected catalog.schema",
        )),
    }
}

/// Checks a storage location that a client gave; nothing is looked up there.
pub(crate) fn check_location(member: &str, location: &str) -> Result<(), CatalogError> {
    let wrong =
        |reason: &str| CatalogError::invalid(format!("{member} `{}`", printable(location)), reason);
    if MAX_LOCATION_BYTES < location.len() {
        return Err(wrong("longer than 4096 bytes"));
    }
    if location.chars().any(char::is_control) {
        return Err(wrong("has a control character"));
    }
    let url = Url::parse(location).map_err(|_| wrong("expected a URL"))?;
    if !SCHEMES.contains(&url.scheme()) {
        return Err(wrong("expected a file, s3, gs, abfss or hdfs URL"));
    }
    if url.password().is_some() || url.query().is_some() || url.fragment().is_some() {
        return Err(wrong("has a password, a query or a fragment"));
    }
    let local = url.scheme() == "file";
    if local && url.host_str().is_some_and(|host| !host.is_empty()) {
        return Err(wrong("a file URL has no host"));
    }
    if climbs(location) {
        return Err(wrong("has a `..` segment"));
    }
    if url.path().trim_matches('/').is_empty() && local {
        return Err(wrong("has no path"));
    }
    Ok(())
}

/// True when a segment is `..`, raw or encoded: the URL's own parser resolves it silently, so that
/// the text and its meaning would differ.
fn climbs(location: &str) -> bool {
    location.split(['/', '\\']).any(|segment| {
        percent_encoding::percent_decode_str(segment)
            .decode_utf8_lossy()
            .split(['/', '\\'])
            .any(|part| part == "..")
    })
}

/// A location as the catalog keeps it: without the slash that marks a folder.
pub(crate) fn stored_location(location: &str) -> &str {
    let trimmed = location.trim_end_matches('/');
    if trimmed.ends_with(':') { location } else { trimmed }
}

/// Whether two locations are one but for a slash at the end.
#[must_use]
pub fn same_location(one: &str, other: &str) -> bool {
    stored_location(one) == stored_location(other)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: locations of tables, and text that is none or that would lead elsewhere.
    /// Guarantees: each is refused or taken as it stands.
    #[test]
    fn locations_are_urls_of_storage() {
        let cases = [
            ("file:///data/tables/a/b/c", true),
            ("s3://bucket/a/b", true),
            ("abfss://container@account.dfs.core.windows.net/a", true),
            ("file:///data/../etc", false),
            ("file:///data/%2e%2e/etc", false),
            ("file:///data/..%2fetc", false),
            ("file://host/data", false),
            ("file:///", false),
            ("/data/tables", false),
            ("javascript:alert(1)", false),
            ("http://127.0.0.1:5000/api/v1/flush", false),
            ("s3://key:secret@bucket/a", false),
            ("s3://bucket/a?x=1", false),
            ("s3://bucket/\n", false),
        ];
        for (location, good) in cases {
            assert_eq!(check_location("storage_location", location).is_ok(), good, "{location}");
        }
    }

    /// Scenario: a folder's URL with and without the slash at its end.
    /// Guarantees: they are one place; a longer name is another.
    #[test]
    fn a_slash_at_the_end_does_not_matter() {
        assert!(same_location("file:///a/b/", "file:///a/b"));
        assert!(!same_location("file:///a/b", "file:///a/bc"));
        assert!(parse_schema_name("a.b").is_ok());
        assert!(parse_schema_name("a").is_err());
        assert!(parse_schema_name("a.b/c").is_err());
    }
}
