//! Requests and answers of Unity Catalog's REST API, as its OpenAPI text has them
//! (`tests/contract/unity-catalog.yaml`).
//!
//! Written strictly: no null members, integers as numbers. Read with tolerance: some servers write
//! 64-bit integers as strings, and any member may be missing or null.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

/// `SecurablePropertiesMap`.
type Properties = BTreeMap<String, String>;

/// Declares messages: of each the members that it must have, and behind a `;` those that may be missing.
macro_rules! messages {
    ($(
        $(#[$doc:meta])*
        $name:ident {
            $($required:ident: $required_type:ty,)*
            ;
            $($(#[$field_meta:meta])* $field:ident: $type:ty,)*
        }
    )+) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
        pub struct $name {
            $(
                #[doc = concat!("Member `", stringify!($required), "`.")]
                pub $required: $required_type,
            )*
            $(
                #[doc = concat!("Member `", stringify!($field), "`.")]
                #[serde(default, skip_serializing_if = "Option::is_none")]
                $(#[$field_meta])*
                pub $field: Option<$type>,
            )*
        }
    )+};
}

messages! {
    /// `CatalogInfo`.
    CatalogInfo {
        ;
        name: String,
        comment: String,
        properties: Properties,
        owner: String,
        #[serde(deserialize_with = "integer")]
        created_at: i64,
        created_by: String,
        #[serde(deserialize_with = "integer")]
        updated_at: i64,
        updated_by: String,
        id: String,
        storage_root: String,
        storage_location: String,
    }

    /// `SchemaInfo`.
    SchemaInfo {
        ;
        name: String,
        catalog_name: String,
        comment: String,
        properties: Properties,
        full_name: String,
        owner: String,
        #[serde(deserialize_with = "integer")]
        created_at: i64,
        created_by: String,
        #[serde(deserialize_with = "integer")]
        updated_at: i64,
        updated_by: String,
        schema_id: String,
        storage_root: String,
        storage_location: String,
    }

    /// `TableInfo`. Views have no place here.
    TableInfo {
        ;
        name: String,
        catalog_name: String,
        schema_name: String,
        table_type: String,
        data_source_format: String,
        columns: Vec<ColumnInfo>,
        storage_location: String,
        comment: String,
        properties: Properties,
        owner: String,
        #[serde(deserialize_with = "integer")]
        created_at: i64,
        created_by: String,
        #[serde(deserialize_with = "integer")]
        updated_at: i64,
        updated_by: String,
        table_id: String,
    }

    /// `ColumnInfo`.
    ColumnInfo {
        ;
        name: String,
        type_text: String,
        type_json: String,
        type_name: String,
        type_precision: i32,
        type_scale: i32,
        type_interval_type: String,
        position: i32,
        comment: String,
        #[serde(deserialize_with = "boolean")]
        nullable: bool,
        partition_index: i32,
    }

    /// `CreateCatalog`.
    CreateCatalog {
        name: String,
        ;
        comment: String,
        properties: Properties,
        storage_root: String,
    }

    /// `CreateSchema`, of a catalog that exists.
    CreateSchema {
        name: String,
        catalog_name: String,
        ;
        comment: String,
        properties: Properties,
        storage_root: String,
    }

    /// `CreateTable`, of a schema that exists. It is a Delta table unless it says its format; an external
    /// one says where it lies.
    CreateTable {
        name: String,
        catalog_name: String,
        schema_name: String,
        table_type: String,
        columns: Vec<ColumnInfo>,
        ;
        data_source_format: String,
        storage_location: String,
        comment: String,
        properties: Properties,
    }
}

/// `UpdateCatalog` and `UpdateSchema`: what is missing stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Update {
    pub(crate) comment: Option<String>,
    pub(crate) properties: Option<Properties>,
    pub(crate) new_name: Option<String>,
}

/// `GenerateTemporaryTableCredential`.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct TableCredentialRequest {
    pub(crate) table_id: String,
    pub(crate) operation: String,
}

/// `GenerateTemporaryPathCredential`.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct PathCredentialRequest {
    pub(crate) url: String,
    pub(crate) operation: String,
}

/// `TemporaryCredentials` for local files, which need none: where they lie.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct TemporaryCredentials {
    pub(crate) url: String,
}

/// One page of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T> {
    /// What is on it.
    pub items: Vec<T>,
    /// Leads to the next page; none on the last one.
    pub next_page_token: Option<String>,
}

/// The body of an error.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct ErrorBody {
    pub(crate) error_code: String,
    pub(crate) message: String,
    pub(crate) details: Vec<ErrorDetail>,
}

/// `google.rpc.ErrorInfo`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct ErrorDetail {
    #[serde(rename = "@type")]
    pub(crate) kind: String,
    pub(crate) reason: String,
}

/// A 64-bit integer, written as a number or as its digits.
fn integer<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        Number(i64),
        Digits(String),
    }
    match Option::<Written>::deserialize(deserializer)? {
        None => Ok(None),
        Some(Written::Number(number)) => Ok(Some(number)),
        Some(Written::Digits(digits)) => digits.parse().map(Some).map_err(serde::de::Error::custom),
    }
}

/// A boolean, written as such or as text: the API's own text has the default of `nullable` as text,
/// which generated servers answer with.
fn boolean<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<bool>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        Plain(bool),
        Text(String),
    }
    match Option::<Written>::deserialize(deserializer)? {
        None => Ok(None),
        Some(Written::Plain(value)) => Ok(Some(value)),
        Some(Written::Text(text)) => text.parse().map(Some).map_err(serde::de::Error::custom),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: an answer with integers as strings, nulls and members that nobody knows.
    /// Guarantees: it is read; what is written has numbers and no nulls.
    #[test]
    fn reads_with_tolerance_and_writes_strictly() {
        let text = r#"{"name":"c","created_at":"1795000000000","updated_at":null,"browse_only":1}"#;
        let info: CatalogInfo = serde_json::from_str(text).unwrap();
        let written = serde_json::to_string(&info).unwrap();
        assert_eq!(written, r#"{"name":"c","created_at":1795000000000}"#);
        assert!(serde_json::from_str::<CatalogInfo>(r#"{"created_at":"soon"}"#).is_err());
        let column: ColumnInfo = serde_json::from_str(r#"{"nullable":"true"}"#).unwrap();
        assert_eq!(serde_json::to_string(&column).unwrap(), r#"{"nullable":true}"#);
    }
}
