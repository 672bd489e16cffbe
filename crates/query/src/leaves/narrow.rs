//! Narrows a declared type to the leaves that are used.

use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, SchemaRef};
use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Leaves, Step};

/// The field that every level keeps when it has it.
///
/// A reader of nested columns needs at least one field that the file has at every struct level.
/// Files written before a field was added do not have that field, but all have the contract's
/// `status`, which is also the cheapest leaf there is.
const ANCHOR_FIELD: &str = "status";

/// `schema` with each nested column narrowed to what `used` says. Names and order stay.
pub(crate) fn narrow_schema(schema: &SchemaRef, used: &BTreeMap<String, Leaves>) -> SchemaRef {
    let unused = Leaves::default();
    let fields: Fields = schema
        .fields()
        .iter()
        .map(|field| narrow_field(field, used.get(field.name()).unwrap_or(&unused)))
        .collect();
    Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()))
}

/// Dotted names of the leaves of `field`; `*` stands for the values inside a map.
pub(crate) fn leaf_names(field: &Field) -> Vec<String> {
    let mut names = Vec::new();
    collect_leaf_names(field.name(), field.data_type(), &mut names);
    names
}

fn collect_leaf_names(prefix: &str, data_type: &DataType, names: &mut Vec<String>) {
    match data_type {
        DataType::Struct(fields) => {
            for field in fields {
                collect_leaf_names(&format!("{prefix}.{}", field.name()), field.data_type(), names);
            }
        }
        DataType::List(element) => collect_leaf_names(prefix, element.data_type(), names),
        DataType::Map(..) => names.push(format!("{prefix}.*")),
        _ => names.push(prefix.to_owned()),
    }
}

fn narrow_field(field: &FieldRef, leaves: &Leaves) -> FieldRef {
    let narrowed = narrow_type(field.data_type(), leaves);
    if &narrowed == field.data_type() {
        Arc::clone(field)
    } else {
        Arc::new(field.as_ref().clone().with_data_type(narrowed))
    }
}

fn narrow_type(data_type: &DataType, leaves: &Leaves) -> DataType {
    if leaves.whole {
        return data_type.clone();
    }
    match data_type {
        DataType::Struct(fields) => narrow_struct(fields, leaves),
        DataType::List(element) => {
            // A field step on a list is not something the dataflow produces: keep everything.
            if leaves.parts.keys().any(|step| *step != Step::Element) {
                return data_type.clone();
            }
            let unused = Leaves::default();
            let inner = leaves.parts.get(&Step::Element).unwrap_or(&unused);
            DataType::List(narrow_field(element, inner))
        }
        // Maps are read whole: the reader cannot clip them.
        _ => data_type.clone(),
    }
}

fn narrow_struct(fields: &Fields, leaves: &Leaves) -> DataType {
    if leaves.parts.contains_key(&Step::Element) {
        return DataType::Struct(fields.clone());
    }
    let mut kept: Vec<FieldRef> = Vec::new();
    for field in fields {
        if let Some(inner) = leaves.parts.get(&Step::Field(field.name().clone())) {
            kept.push(narrow_field(field, inner));
        } else if field.name() == ANCHOR_FIELD && !field.data_type().is_nested() {
            kept.push(Arc::clone(field));
        }
    }
    if kept.is_empty()
        && let Some(field) = fields.iter().min_by_key(|field| read_cost(field.data_type()))
    {
        kept.push(narrow_field(field, &Leaves::default()));
    }
    DataType::Struct(kept.into())
}

/// Orders types by what a leaf of them costs to read, cheapest first.
fn read_cost(data_type: &DataType) -> u32 {
    match data_type {
        DataType::Boolean => 0,
        _ if data_type.is_primitive() => 1,
        DataType::Struct(_) => 3,
        DataType::List(_) => 4,
        DataType::Map(..) => 5,
        _ => 2,
    }
}
