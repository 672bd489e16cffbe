//! Names from outside: what is accepted is quoted, shown and read back unchanged.

use tracelake_model::names::printable;
use tracelake_model::{ExperimentId, SpanId, TableName, TraceId};

/// Table names, experiment ids, trace ids, and text shown in messages.
pub(crate) fn names(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Ok(name) = text.parse::<TableName>() {
        assert_eq!(name.to_string(), text, "a name is kept as it is");
        assert_eq!(name.to_string().parse(), Ok(name.clone()));
        for part in [name.catalog(), name.schema(), name.table()] {
            assert!(!part.is_empty() && part.chars().count() <= 255);
            assert!(!part.contains(['.', '/', '\\', ' ', '\0']), "{part:?}");
            assert!(!part.chars().any(char::is_control), "{part:?}");
        }
        let quoted = name.to_sql();
        let inner = quoted.strip_prefix('`').and_then(|rest| rest.strip_suffix('`'));
        let parts: Vec<String> =
            inner.unwrap_or_default().split("`.`").map(|part| part.replace("``", "`")).collect();
        if !text.contains('`') {
            assert_eq!(parts.join("."), text);
        }
        assert_eq!(quoted.matches('`').count() % 2, 0, "{quoted}");
    }
    if let Ok(id) = text.parse::<ExperimentId>() {
        assert_eq!(id.as_str(), text);
        assert_eq!(ExperimentId::from(id.number()), id);
    }
    if let Some(id) = TraceId::parse(&text) {
        assert_eq!(TraceId::parse(&id.to_mlflow()), Some(id));
    }
    if let Some(id) = SpanId::parse(&text) {
        assert_eq!(SpanId::parse(&id.to_string()), Some(id));
    }
    let shown = printable(&text);
    assert!(!shown.chars().any(char::is_control), "{shown:?}");
    assert!(shown.chars().count() <= 80 * 10 + 3);
}
