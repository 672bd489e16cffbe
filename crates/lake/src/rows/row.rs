//! Typed access to one row, by the names of its columns.

use std::collections::BTreeMap;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Float64Array, Int32Array, Int64Array, ListArray,
    MapArray, StringArray, StructArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{Float64Type, Int32Type, Int64Type, TimestampMicrosecondType};

/// One row of a struct column, with typed access to its fields by name.
#[derive(Clone, Copy)]
pub(super) struct Row<'a> {
    pub(super) fields: &'a StructArray,
    pub(super) row: usize,
}

impl<'a> Row<'a> {
    /// The field `name`, unless it is missing or null here.
    pub(super) fn column(&self, name: &str) -> Option<&'a ArrayRef> {
        self.fields.column_by_name(name).filter(|column| column.is_valid(self.row))
    }

    pub(super) fn text(&self, name: &str) -> Option<&'a str> {
        let column: &StringArray = self.column(name)?.as_string_opt::<i32>()?;
        Some(column.value(self.row))
    }

    pub(super) fn owned(&self, name: &str) -> Option<String> {
        self.text(name).map(str::to_owned)
    }

    pub(super) fn long(&self, name: &str) -> Option<i64> {
        let column: &Int64Array = self.column(name)?.as_primitive_opt::<Int64Type>()?;
        Some(column.value(self.row))
    }

    pub(super) fn double(&self, name: &str) -> Option<f64> {
        let column: &Float64Array = self.column(name)?.as_primitive_opt::<Float64Type>()?;
        Some(column.value(self.row))
    }

    pub(super) fn int(&self, name: &str) -> Option<i32> {
        let column: &Int32Array = self.column(name)?.as_primitive_opt::<Int32Type>()?;
        Some(column.value(self.row))
    }

    pub(super) fn count(&self, name: &str) -> u64 {
        self.int(name).and_then(|count| u64::try_from(count).ok()).unwrap_or_default()
    }

    pub(super) fn micros(&self, name: &str) -> Option<i64> {
        let column: &TimestampMicrosecondArray =
            self.column(name)?.as_primitive_opt::<TimestampMicrosecondType>()?;
        Some(column.value(self.row))
    }

    pub(super) fn boolean(&self, name: &str) -> Option<bool> {
        let column: &BooleanArray = self.column(name)?.as_boolean_opt()?;
        Some(column.value(self.row))
    }

    pub(super) fn child(&self, name: &str) -> Option<Self> {
        let fields: &StructArray = self.column(name)?.as_struct_opt()?;
        Some(Self { fields, row: self.row })
    }

    /// The elements of a list of structs, but for null ones.
    pub(super) fn list(&self, name: &str) -> impl Iterator<Item = Row<'a>> + use<'a> {
        let found = self.column(name).and_then(|column| {
            let list: &ListArray = column.as_list_opt::<i32>()?;
            let fields: &StructArray = list.values().as_struct_opt()?;
            let [start, end] = [self.row, self.row + 1]
                .map(|index| usize::try_from(list.value_offsets()[index]).unwrap_or_default());
            Some((fields, start..end))
        });
        found.into_iter().flat_map(|(fields, range)| {
            range.filter(|row| fields.is_valid(*row)).map(move |row| Row { fields, row })
        })
    }

    pub(super) fn texts(&self, name: &str) -> Vec<String> {
        let found = self.column(name).and_then(|column| {
            let list: ArrayRef = column.as_list_opt::<i32>()?.value(self.row);
            let texts: &StringArray = list.as_string_opt::<i32>()?;
            Some(texts.iter().flatten().map(str::to_owned).collect())
        });
        found.unwrap_or_default()
    }

    /// The entries of a map, but for those whose value is null: no value is not an empty one.
    pub(super) fn map(&self, name: &str) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        let found = self.column(name).and_then(|column| {
            let map: &MapArray = column.as_map_opt()?;
            let keys: &StringArray = map.keys().as_string_opt::<i32>()?;
            let values: &StringArray = map.values().as_string_opt::<i32>()?;
            let [start, end] = [self.row, self.row + 1]
                .map(|index| usize::try_from(map.value_offsets()[index]).unwrap_or_default());
            Some((keys, values, start..end))
        });
        found.into_iter().flat_map(|(keys, values, range)| {
            range
                .filter(|index| values.is_valid(*index))
                .map(move |index| (keys.value(index), values.value(index)))
        })
    }

    pub(super) fn owned_map(&self, name: &str) -> BTreeMap<String, String> {
        self.map(name).map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
    }
}
