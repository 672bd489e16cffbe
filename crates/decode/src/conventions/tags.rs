//! Tags of a trace: attributes of the resource, and what the root says to be tags.

use std::collections::BTreeMap;

use super::candidates::any_text;
use crate::any_value::to_json;
use crate::mlflow_keys;
use crate::otlp::view::{ResourceView, SpanView, ValueView};

/// Tags that MLflow's server keeps for itself.
const RESERVED: [&str; 4] = [
    mlflow_keys::ARTIFACT_LOCATION,
    mlflow_keys::SPANS_LOCATION,
    mlflow_keys::ARCHIVE_LOCATION,
    mlflow_keys::ARCHIVAL_FAILURE,
];

/// Characters of a tag's key; longer ones are left out, as in MLflow.
const MAX_KEY_CHARACTERS: usize = 250;

/// Characters of a tag's value; longer ones are cut, as in MLflow.
const MAX_VALUE_CHARACTERS: usize = 8000;

/// Adds the attributes of a resource. Tags that are there already stay.
pub(super) fn add_resource(resource: &ResourceView<'_>, tags: &mut BTreeMap<String, String>) {
    for attribute in resource.attributes() {
        let key = attribute.key;
        if key.starts_with("telemetry.sdk.")
            || key.starts_with(mlflow_keys::PREFIX)
            || !is_valid_key(key)
        {
            continue;
        }
        let value = match attribute.value() {
            ValueView::String(text) => cut(text),
            value => cut(&to_json(value)),
        };
        tags.insert(key.to_owned(), value);
    }
}

/// Keys of the tags that `root` says.
pub fn root_tag_keys<'a>(root: &'a SpanView<'a>) -> impl Iterator<Item = &'a str> {
    let keys = root
        .attributes()
        .filter_map(|attribute| attribute.key.strip_prefix(mlflow_keys::TRACE_TAG_PREFIX));
    keys.filter(|key| !RESERVED.contains(key) && is_valid_key(key))
}

/// Adds what `root` says to be tags, over tags of the same key; sets the name of the trace.
pub(super) fn add_root(
    root: &SpanView<'_>,
    tags: &mut BTreeMap<String, String>,
    trace_name: &mut Option<String>,
) {
    for attribute in root.attributes() {
        let Some(key) = attribute.key.strip_prefix(mlflow_keys::TRACE_TAG_PREFIX) else {
            continue;
        };
        if RESERVED.contains(&key) || !is_valid_key(key) {
            continue;
        }
        let value = cut(&any_text(attribute.value()));
        if key == mlflow_keys::TRACE_NAME {
            *trace_name = Some(value);
        } else {
            tags.insert(key.to_owned(), value);
        }
    }
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(MAX_VALUE_CHARACTERS) {
        Some((end, _)) => text.get(..end).unwrap_or(text).to_owned(),
        None => text.to_owned(),
    }
}

/// MLflow's rule: letters, digits and `/ _ . - : ` and blank, and no path that means another one.
fn is_valid_key(key: &str) -> bool {
    let legal = |c: char| c.is_alphanumeric() || matches!(c, '/' | '_' | '.' | '-' | ':' | ' ');
    key.chars().count() <= MAX_KEY_CHARACTERS
        && key.chars().all(legal)
        && !key.split('/').any(|part| matches!(part, "" | "." | ".."))
        && !key.starts_with("..")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: keys that MLflow takes and keys that it refuses.
    /// Guarantees: the same ones are refused here.
    #[test]
    fn refuses_the_keys_that_mlflow_refuses() {
        for key in ["a", "service.name", "a/b", "mlflow.x:y z", "\u{e4}", "a..b"] {
            assert!(is_valid_key(key), "{key}");
        }
        for key in
            ["", ".", "..", "../a", "..a", "/a", "a/", "a//b", "a/./b", "a/../b", "a(b)", "a,b"]
        {
            assert!(!is_valid_key(key), "{key}");
        }
        assert!(!is_valid_key(&"k".repeat(251)));
        assert_eq!(cut(&"v".repeat(9000)).len(), 8000);
    }
}
