//! Requests and answers of Unity Catalog's REST API, as its OpenAPI text has them
//! (`tests/contract/unity-catalog.yaml`).
//!
//! Written strictly: no null members, integers as numbers. Read with tolerance: some servers write
//! 64-bit integers as strings, and any member may be missing or null.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

/// `SecurablePropertiesMap`.
type Properties = BTreeMap<String, String>;

macro_rules! members {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_meta:meta])* $field:ident: $type:ty,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(default)]
        pub struct $name {
            $(
                #[doc = concat!("Member `", stringify!($field), "`.")]
                #[serde(skip_serializing_if = "Option::is_none")]
                $(#[$field_meta])*
                pub $field: Option<$type>,
            )*
        }
    };
}

members!(
    /// `CatalogInfo`.
    CatalogInfo {
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
);

members!(
    /// `SchemaInfo`.
    SchemaInfo {
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
);

members!(
    /// `TableInfo`. Views have no place here.
    TableInfo {
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
);

members!(
    /// `ColumnInfo`.
    ColumnInfo {
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
);

members!(
    /// `TemporaryCredentials`: at most one kind of credential; none for local files.
    TemporaryCredentials {
        aws_temp_credentials: AwsCredentials,
        azure_user_delegation_sas: AzureUserDelegationSas,
        gcp_oauth_token: GcpOauthToken,
        #[serde(deserialize_with = "integer")]
        expiration_time: i64,
        url: String,
    }
);

/// `AwsCredentials`. Its debug form shows no secret.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AwsCredentials {
    /// Names the credentials.
    pub access_key_id: String,
    /// Signs requests.
    pub secret_access_key: String,
    /// Goes with each request.
    pub session_token: String,
}

/// `AzureUserDelegationSAS`. Its debug form shows no secret.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AzureUserDelegationSas {
    /// The token.
    pub sas_token: String,
}

/// `GcpOauthToken`. Its debug form shows no secret.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct GcpOauthToken {
    /// The token.
    pub oauth_token: String,
}

macro_rules! secret {
    ($($name:ident),*) => {$(
        impl std::fmt::Debug for $name {
            fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.debug_struct(stringify!($name)).finish_non_exhaustive()
            }
        }
    )*};
}
secret!(AwsCredentials, AzureUserDelegationSas, GcpOauthToken);

/// `CreateCatalog`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreateCatalog {
    /// Its name.
    pub name: String,
    /// What it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// Pairs of key and value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub properties: Option<Properties>,
    /// Where managed tables would lie.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage_root: Option<String>,
}

/// `CreateSchema`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreateSchema {
    /// Its name.
    pub name: String,
    /// Its catalog, which must exist.
    pub catalog_name: String,
    /// What it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// Pairs of key and value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub properties: Option<Properties>,
    /// Where managed tables would lie.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage_root: Option<String>,
}

/// `CreateTable`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreateTable {
    /// Its name.
    pub name: String,
    /// Its catalog, which must exist.
    pub catalog_name: String,
    /// Its schema, which must exist.
    pub schema_name: String,
    /// `EXTERNAL`, `MANAGED` ...
    pub table_type: String,
    /// `DELTA` when missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_source_format: Option<String>,
    /// Its columns in order.
    pub columns: Vec<ColumnInfo>,
    /// Where it lies; needed for an external table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage_location: Option<String>,
    /// What it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// Pairs of key and value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub properties: Option<Properties>,
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
#[derive(Clone, Debug, Serialize, Deserialize)]
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

    /// Scenario: vended credentials in a log line.
    /// Guarantees: no secret is in it.
    #[test]
    fn secrets_are_not_in_the_debug_form() {
        let credentials = TemporaryCredentials {
            gcp_oauth_token: Some(GcpOauthToken { oauth_token: "hush".to_owned() }),
            ..Default::default()
        };
        assert!(!format!("{credentials:?}").contains("hush"));
    }
}
