//! Columns in Unity Catalog's form: a type as SQL text, as Spark's JSON, and by its name.

use serde_json::{Map, Value, json};

use crate::wire::ColumnInfo;

/// A column of a table, or a field of a struct.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Its type.
    pub data_type: ColumnType,
    /// Whether it may be null.
    pub nullable: bool,
    /// What it means, for people.
    pub comment: Option<String>,
}

/// The types of Delta columns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ColumnType {
    /// True or false.
    Boolean,
    /// 8 bits, signed.
    Byte,
    /// 16 bits, signed.
    Short,
    /// 32 bits, signed.
    Int,
    /// 64 bits, signed.
    Long,
    /// 32 bits.
    Float,
    /// 64 bits.
    Double,
    /// A day.
    Date,
    /// Microseconds, UTC.
    Timestamp,
    /// Microseconds without a time zone.
    TimestampNtz,
    /// Text.
    String,
    /// Bytes.
    Binary,
    /// A decimal number.
    Decimal {
        /// Digits.
        precision: u8,
        /// Digits behind the point.
        scale: i8,
    },
    /// A list.
    Array(Box<ListType>),
    /// Pairs of key and value.
    Map(Box<MapType>),
    /// Fields in order.
    Struct(Vec<Column>),
}

/// What a list holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListType {
    /// Type of the elements.
    pub element: ColumnType,
    /// Whether an element may be null.
    pub contains_null: bool,
}

/// What a map holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MapType {
    /// Type of the keys.
    pub key: ColumnType,
    /// Type of the values.
    pub value: ColumnType,
    /// Whether a value may be null.
    pub value_contains_null: bool,
}

impl ColumnType {
    /// `ColumnTypeName` of the API.
    fn type_name(&self) -> &'static str {
        match self {
            Self::Boolean => "BOOLEAN",
            Self::Byte => "BYTE",
            Self::Short => "SHORT",
            Self::Int => "INT",
            Self::Long => "LONG",
            Self::Float => "FLOAT",
            Self::Double => "DOUBLE",
            Self::Date => "DATE",
            Self::Timestamp => "TIMESTAMP",
            Self::TimestampNtz => "TIMESTAMP_NTZ",
            Self::String => "STRING",
            Self::Binary => "BINARY",
            Self::Decimal { .. } => "DECIMAL",
            Self::Array(_) => "ARRAY",
            Self::Map(_) => "MAP",
            Self::Struct(_) => "STRUCT",
        }
    }

    /// The type as Spark's `catalogString` has it, such as `array<struct<name:string>>`.
    #[must_use]
    pub fn type_text(&self) -> String {
        match self {
            Self::Byte => "tinyint".to_owned(),
            Self::Short => "smallint".to_owned(),
            Self::Long => "bigint".to_owned(),
            Self::Decimal { precision, scale } => format!("decimal({precision},{scale})"),
            Self::Array(list) => format!("array<{}>", list.element.type_text()),
            Self::Map(map) => format!("map<{},{}>", map.key.type_text(), map.value.type_text()),
            Self::Struct(fields) => {
                let text = |field: &Column| {
                    format!("{}:{}", quoted(&field.name), field.data_type.type_text())
                };
                format!("struct<{}>", fields.iter().map(text).collect::<Vec<_>>().join(","))
            }
            plain => plain.type_name().to_ascii_lowercase(),
        }
    }

    /// The type as Spark's JSON has it: a word, or an object for nested types.
    fn type_json(&self) -> Value {
        match self {
            Self::Byte => json!("byte"),
            Self::Short => json!("short"),
            Self::Int => json!("integer"),
            Self::Long => json!("long"),
            Self::Decimal { precision, scale } => json!(format!("decimal({precision},{scale})")),
            Self::Array(list) => json!({
                "type": "array",
                "elementType": list.element.type_json(),
                "containsNull": list.contains_null,
            }),
            Self::Map(map) => json!({
                "type": "map",
                "keyType": map.key.type_json(),
                "valueType": map.value.type_json(),
                "valueContainsNull": map.value_contains_null,
            }),
            Self::Struct(fields) => json!({
                "type": "struct",
                "fields": fields.iter().map(Column::field_json).collect::<Vec<_>>(),
            }),
            plain => json!(plain.type_name().to_ascii_lowercase()),
        }
    }
}

/// A field name as Spark's text has it: quoted when it is more than letters, digits, underscores.
fn quoted(name: &str) -> String {
    let plain = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if plain { name.to_owned() } else { format!("`{}`", name.replace('`', "``")) }
}

impl Column {
    /// Spark's `StructField`.
    fn field_json(&self) -> Value {
        let mut metadata = Map::new();
        if let Some(comment) = &self.comment {
            metadata.insert("comment".to_owned(), json!(comment));
        }
        json!({
            "name": self.name,
            "type": self.data_type.type_json(),
            "nullable": self.nullable,
            "metadata": metadata,
        })
    }

    /// The column at `position`, counted from 0, as the API has it.
    pub(crate) fn to_info(&self, position: i32) -> ColumnInfo {
        let (type_precision, type_scale) = match self.data_type {
            ColumnType::Decimal { precision, scale } => {
                (Some(precision.into()), Some(scale.into()))
            }
            _ => (None, None),
        };
        ColumnInfo {
            name: Some(self.name.clone()),
            type_text: Some(self.data_type.type_text()),
            type_json: Some(self.field_json().to_string()),
            type_name: Some(self.data_type.type_name().to_owned()),
            type_precision,
            type_scale,
            position: Some(position),
            comment: self.comment.clone(),
            nullable: Some(self.nullable),
            ..Default::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(name: &str, data_type: ColumnType) -> Column {
        Column { name: name.to_owned(), data_type, nullable: true, comment: None }
    }

    /// Scenario: a list of structs with a map, a decimal and an odd field name in it.
    /// Guarantees: text, JSON and name are as Spark writes them.
    #[test]
    fn nested_types_are_spelled_as_spark_spells_them() {
        let tags = ColumnType::Map(Box::new(MapType {
            key: ColumnType::String,
            value: ColumnType::Long,
            value_contains_null: true,
        }));
        let element = ColumnType::Struct(vec![
            field("tags", tags),
            field("cost", ColumnType::Decimal { precision: 10, scale: 2 }),
            field("odd name", ColumnType::Int),
        ]);
        let mut spans =
            field("spans", ColumnType::Array(Box::new(ListType { element, contains_null: true })));
        spans.nullable = false;
        spans.comment = Some("Trace \"spans\"".to_owned());
        let info = spans.to_info(4);
        assert_eq!(
            info.type_text.as_deref(),
            Some("array<struct<tags:map<string,bigint>,cost:decimal(10,2),`odd name`:int>>")
        );
        assert_eq!((info.type_name.as_deref(), info.position), (Some("ARRAY"), Some(4)));
        let found: Value = serde_json::from_str(info.type_json.as_deref().unwrap()).unwrap();
        let plain = |name: &str, kind: Value| json!({"name": name, "type": kind, "nullable": true, "metadata": {}});
        let map = json!({"type": "map", "keyType": "string", "valueType": "long", "valueContainsNull": true});
        let fields = json!([
            plain("tags", map),
            plain("cost", json!("decimal(10,2)")),
            plain("odd name", json!("integer")),
        ]);
        let list = json!({
            "type": "array",
            "elementType": {"type": "struct", "fields": fields},
            "containsNull": true,
        });
        let expected = json!({
            "name": "spans", "type": list, "nullable": false,
            "metadata": {"comment": "Trace \"spans\""},
        });
        assert_eq!(found, expected);
    }
}
