//! Which names, tags and locations an experiment may have, by MLflow's rules.

use tracelake_model::names::printable;

use crate::error::RegistryError;

const MAX_NAME_CHARS: usize = 500;
const MAX_TAG_KEY_CHARS: usize = 250;
const MAX_TAG_VALUE_CHARS: usize = 20_000;
const MAX_ARTIFACT_LOCATION_CHARS: usize = 2_048;

const BAD_CHARACTER: &str = ": Names may only contain alphanumerics, underscores (_), dashes (-), \
     periods (.), spaces ( ), colon(:) and slashes (/).";
const BAD_PATH: &str = ": Names may be treated as files in certain cases, and must not resolve \
     to other names when treated as such.";

/// Accepts what MLflow does, but no control characters: a name is shown on terminals.
pub(super) fn check_name(name: &str) -> Result<(), RegistryError> {
    if name.trim().is_empty() || name.chars().any(char::is_control) {
        return Err(RegistryError::InvalidExperimentName { name: printable(name) });
    }
    check_length("name", name, MAX_NAME_CHARS)
}

/// Keys of this kind tell where traces go. They are derived from the bindings, never written.
const RESERVED_PREFIX: &str = "tracelake.archive.";

pub(super) fn check_tag(key: &str, value: &str) -> Result<(), RegistryError> {
    check_not_reserved(key)?;
    check_tag_key(key)?;
    check_length("value", value, MAX_TAG_VALUE_CHARS)
}

/// Refuses tags that show a binding.
pub(super) fn check_not_reserved(key: &str) -> Result<(), RegistryError> {
    if key.starts_with(RESERVED_PREFIX) {
        return Err(RegistryError::ReservedTag { key: printable(key) });
    }
    Ok(())
}

/// Whether MLflow takes this key for a tag, of an experiment or a trace.
///
/// # Errors
/// [`RegistryError::InvalidValue`] or [`RegistryError::TooLong`].
pub fn check_tag_key(key: &str) -> Result<(), RegistryError> {
    if !key.chars().all(|c| c.is_alphanumeric() || "/_.- :".contains(c)) {
        return Err(invalid_key(key, BAD_CHARACTER));
    }
    if !is_plain_path(key) {
        return Err(invalid_key(key, BAD_PATH));
    }
    check_length("key", key, MAX_TAG_KEY_CHARS)
}

/// An artifact location is only kept and given back; nothing here reads or writes there.
pub(super) fn check_artifact_location(uri: &str) -> Result<(), RegistryError> {
    if uri.starts_with("runs:") || uri.chars().any(char::is_control) {
        return Err(RegistryError::InvalidValue {
            parameter: "artifact_location",
            value: quoted(uri),
            reason: ".",
        });
    }
    check_length("artifact_location", uri, MAX_ARTIFACT_LOCATION_CHARS)
}

/// True when `posixpath.normpath` would leave the key as it is and inside its folder.
fn is_plain_path(key: &str) -> bool {
    !key.starts_with("..") && key.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

fn check_length(parameter: &'static str, text: &str, limit: usize) -> Result<(), RegistryError> {
    if limit < text.chars().count() {
        return Err(RegistryError::TooLong { parameter, limit });
    }
    Ok(())
}

fn invalid_key(key: &str, reason: &'static str) -> RegistryError {
    RegistryError::InvalidValue { parameter: "key", value: quoted(key), reason }
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", printable(text))
}
