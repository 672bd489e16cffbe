//! Column builders that the rows are written into: one per leaf, offsets for lists and maps.
//!
//! A struct or list never owns its children's values: they go straight into the leaf builders, so
//! that no object per span or attribute exists on the way.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayBuilder as _, ArrayRef, BinaryBuilder, Float64Builder, Int32Builder, Int64Builder,
    ListArray, MapArray, StringBuilder, StructArray, TimestampMicrosecondBuilder,
};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field, FieldRef, Fields};
use arrow::error::ArrowError;
use smallvec::SmallVec;
use tracelake_decode::any_value::write_json;
use tracelake_decode::{KeyValueView, ValueView};

/// End positions of the lists or maps of a column.
#[derive(Debug)]
pub(crate) struct Offsets {
    ends: Vec<i32>,
}

impl Default for Offsets {
    fn default() -> Self {
        Self { ends: vec![0] }
    }
}

impl Offsets {
    /// Ends a list whose children were appended since the last call; `children` is their total.
    pub(crate) fn end(&mut self, children: usize) {
        // A batch is cut long before 2^31 children: `MAX_BATCH_BYTES` in the data file module.
        self.ends.push(i32::try_from(children).unwrap_or(i32::MAX));
    }

    fn finish(&mut self) -> OffsetBuffer<i32> {
        OffsetBuffer::new(std::mem::take(self).ends.into())
    }

    /// The list column over `element`.
    pub(crate) fn finish_list(
        &mut self,
        data_type: &DataType,
        element: ArrayRef,
    ) -> Result<ArrayRef, ArrowError> {
        let offsets = self.finish();
        let DataType::List(child) = data_type else {
            return Err(ArrowError::SchemaError(format!("{data_type} is not a list")));
        };
        Ok(Arc::new(ListArray::try_new(Arc::clone(child), offsets, element, None)?))
    }
}

/// A `MAP<STRING, STRING>` column.
#[derive(Debug, Default)]
pub(crate) struct MapColumn {
    keys: StringBuilder,
    values: StringBuilder,
    offsets: Offsets,
}

impl MapColumn {
    /// Adds an entry to the open map.
    pub(crate) fn entry(&mut self, key: &str, value: &str) {
        self.keys.append_value(key);
        self.values.append_value(value);
    }

    /// Adds an entry whose value is the JSON text of `value`.
    pub(crate) fn json_entry(&mut self, key: &str, value: ValueView<'_>) {
        self.keys.append_value(key);
        write_json(value, &mut self.values);
        // Ends the value that was written.
        self.values.append_value("");
    }

    /// Adds `attributes` as JSON text. Returns false when a key repeats: the first one is kept,
    /// as a map has each key once.
    pub(crate) fn attributes<'a>(
        &mut self,
        attributes: impl Iterator<Item = KeyValueView<'a>>,
    ) -> bool {
        let mut seen = SeenKeys::default();
        let mut unique = true;
        for attribute in attributes {
            if seen.insert(attribute.key) {
                self.json_entry(attribute.key, attribute.value());
            } else {
                unique = false;
            }
        }
        self.end();
        unique
    }

    /// Ends the open map.
    pub(crate) fn end(&mut self) {
        self.offsets.end(self.keys.values_slice_len());
    }

    pub(crate) fn finish(&mut self) -> Result<ArrayRef, ArrowError> {
        let DataType::Map(entries_field, ordered) = tracelake_model::schema::string_map() else {
            return Err(ArrowError::SchemaError("string_map is a map".into()));
        };
        let DataType::Struct(fields) = entries_field.data_type() else {
            return Err(ArrowError::SchemaError("map entries are a struct".into()));
        };
        let entries = StructArray::try_new(
            fields.clone(),
            vec![self.keys.array(), self.values.array()],
            None,
        )?;
        let offsets = self.offsets.finish();
        Ok(Arc::new(MapArray::try_new(entries_field, offsets, entries, None, ordered)?))
    }
}

/// Rows appended to a string builder so far.
trait Rows {
    fn values_slice_len(&self) -> usize;
}

impl Rows for StringBuilder {
    fn values_slice_len(&self) -> usize {
        self.offsets_slice().len().saturating_sub(1)
    }
}

/// Keys met so far in one attribute list: compared one by one while few, hashed when many.
#[derive(Debug, Default)]
pub(crate) struct SeenKeys<'a> {
    /// A bit for each key, by its length and two of its bytes: most keys are told apart by it.
    marks: u128,
    few: SmallVec<[&'a str; FEW_KEYS]>,
    many: std::collections::HashSet<&'a str>,
}

/// Keys that are compared; more are hashed.
const FEW_KEYS: usize = 24;

impl<'a> SeenKeys<'a> {
    /// True when `key` was not met before.
    pub(crate) fn insert(&mut self, key: &'a str) -> bool {
        if !self.many.is_empty() {
            return self.many.insert(key);
        }
        let mark = Self::mark(key.as_bytes());
        if self.marks & mark != 0 && self.few.contains(&key) {
            return false;
        }
        self.marks |= mark;
        if self.few.len() < FEW_KEYS {
            self.few.push(key);
        } else {
            self.many.extend(self.few.drain(..));
            self.many.insert(key);
        }
        true
    }

    fn mark(key: &[u8]) -> u128 {
        let byte = |at: usize| key.get(at).copied().map_or(0, usize::from);
        let spread = key.len() * 5 + byte(key.len() / 2) * 3 + byte(key.len().wrapping_sub(2)) * 17;
        1 << (spread % 128)
    }
}

/// A struct column made of finished children; `None` where a row has no struct.
pub(crate) fn struct_array(
    fields: &Fields,
    children: Vec<ArrayRef>,
) -> Result<ArrayRef, ArrowError> {
    Ok(Arc::new(StructArray::try_new(fields.clone(), children, None)?))
}

/// The fields of a struct inside of a list type.
pub(crate) fn element_fields(data_type: &DataType) -> Result<&Fields, ArrowError> {
    match data_type {
        DataType::List(child) => struct_fields(child.data_type()),
        other => Err(ArrowError::SchemaError(format!("{other} is not a list"))),
    }
}

/// The fields of a struct type.
pub(crate) fn struct_fields(data_type: &DataType) -> Result<&Fields, ArrowError> {
    match data_type {
        DataType::Struct(fields) => Ok(fields),
        other => Err(ArrowError::SchemaError(format!("{other} is not a struct"))),
    }
}

/// The field `name` of `fields`.
pub(crate) fn field_of<'a>(fields: &'a Fields, name: &str) -> Result<&'a FieldRef, ArrowError> {
    tracelake_model::schema::child(fields, name)
        .ok_or_else(|| ArrowError::SchemaError(format!("no field `{name}`")))
}

/// Leaf builders under names, put in schema order when finished.
#[derive(Debug, Default)]
pub(crate) struct Finished(Vec<(&'static str, ArrayRef)>);

impl Finished {
    pub(crate) fn push(&mut self, name: &'static str, array: ArrayRef) {
        self.0.push((name, array));
    }

    /// The arrays in the order of `fields`.
    pub(crate) fn in_order(mut self, fields: &Fields) -> Result<Vec<ArrayRef>, ArrowError> {
        fields
            .iter()
            .map(|field: &Arc<Field>| {
                let position = self.0.iter().position(|(name, _)| name == field.name());
                let position = position.ok_or_else(|| {
                    ArrowError::SchemaError(format!("no builder for field `{}`", field.name()))
                })?;
                Ok(self.0.swap_remove(position).1)
            })
            .collect()
    }
}

/// Finishes a builder as a shared array.
pub(crate) trait Finish {
    fn array(&mut self) -> ArrayRef;
}

/// A builder that is finished begins the next batch with room for as much again: growing by doubling
/// copies what is there, and touches memory anew.
macro_rules! finish {
    ($($builder:ty),*) => {$(
        impl Finish for $builder {
            fn array(&mut self) -> ArrayRef {
                let room = roomy(self.len());
                let array = self.finish();
                *self = Self::with_capacity(room);
                Arc::new(array) as Arc<dyn Array>
            }
        }
    )*};
}
finish!(Int32Builder, Int64Builder, Float64Builder);

macro_rules! finish_bytes {
    ($($builder:ty),*) => {$(
        impl Finish for $builder {
            fn array(&mut self) -> ArrayRef {
                let (items, bytes) = (roomy(self.len()), roomy(self.values_slice().len()));
                let array = self.finish();
                *self = Self::with_capacity(items, bytes);
                Arc::new(array) as Arc<dyn Array>
            }
        }
    )*};
}
finish_bytes!(StringBuilder, BinaryBuilder);

impl Finish for TimestampMicrosecondBuilder {
    fn array(&mut self) -> ArrayRef {
        let room = roomy(self.len());
        let array = self.finish().with_timezone("UTC");
        *self = Self::with_capacity(room);
        Arc::new(array)
    }
}

/// An eighth more than `used`: batches are cut by bytes, so they differ in rows.
const fn roomy(used: usize) -> usize {
    used + used / 8
}
