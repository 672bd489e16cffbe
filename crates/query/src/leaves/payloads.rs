//! The leaves that hold what clients sent: almost all of a table's bytes.

use std::sync::Arc;

use arrow::datatypes::{DataType, FieldRef, Fields, Schema, SchemaRef};

/// Top-level columns that are payload.
const PAYLOAD_COLUMNS: [&str; 3] = ["request_preview", "response_preview", "trace_metadata"];

/// Fields of a span that are payload.
const PAYLOAD_SPAN_FIELDS: [&str; 9] =
    ["inputs", "outputs", "tags", "metadata", "events", "links", "scope", "resource", "otlp"];

const SPANS: &str = "spans";

/// Dotted names of the columns and span fields that an answer without payloads leaves out.
pub fn payload_leaves() -> impl Iterator<Item = String> {
    let columns = PAYLOAD_COLUMNS.into_iter().map(str::to_owned);
    columns.chain(PAYLOAD_SPAN_FIELDS.into_iter().map(|field| format!("{SPANS}.{field}")))
}

/// Whether the top-level column `name` is payload.
pub(crate) fn is_payload_column(name: &str) -> bool {
    PAYLOAD_COLUMNS.contains(&name)
}

/// Whether the field `name` of a span is payload.
pub(crate) fn is_payload_field(name: &str) -> bool {
    PAYLOAD_SPAN_FIELDS.contains(&name)
}

/// `schema` without what is payload. Columns that are not there are not missed.
pub(crate) fn without_payloads(schema: &SchemaRef) -> SchemaRef {
    let columns = schema.fields().iter().filter(|field| !is_payload_column(field.name()));
    let columns: Fields = columns.map(without_payload_fields).collect();
    Arc::new(Schema::new_with_metadata(columns, schema.metadata().clone()))
}

fn without_payload_fields(column: &FieldRef) -> FieldRef {
    if column.name() == SPANS
        && let DataType::List(element) = column.data_type()
        && let DataType::Struct(fields) = element.data_type()
    {
        let kept = fields.iter().filter(|field| !is_payload_field(field.name())).cloned();
        let element = element.as_ref().clone().with_data_type(DataType::Struct(kept.collect()));
        let spans = DataType::List(Arc::new(element));
        return Arc::new(column.as_ref().clone().with_data_type(spans));
    }
    Arc::clone(column)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::contract_schema;
    use crate::leaves::narrow::leaf_names;
    use tracelake_model::schema::traces_schema;

    /// Scenario: the whole table, and one with the contract's columns alone.
    /// Guarantees: exactly the payload is gone, in both; the rest keeps its order and types.
    #[test]
    fn only_payloads_are_left_out() {
        for schema in [traces_schema(), contract_schema()] {
            let narrow = without_payloads(&schema);
            let leaves = |schema: &SchemaRef| -> Vec<String> {
                schema.fields().iter().flat_map(|field| leaf_names(field)).collect()
            };
            let payload: Vec<String> = payload_leaves().collect();
            let is_payload = |leaf: &String| {
                payload.iter().any(|name| {
                    leaf == name
                        || leaf.strip_prefix(name).is_some_and(|rest| rest.starts_with('.'))
                })
            };
            let mut expected = leaves(&schema);
            expected.retain(|leaf| !is_payload(leaf));
            assert_eq!(leaves(&narrow), expected);
            assert!(expected.contains(&"spans.status".to_owned()));
            assert!(expected.len() < leaves(&schema).len());
        }
    }
}
