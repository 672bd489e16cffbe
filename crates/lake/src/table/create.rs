//! Creating the traces table, or accepting one that is there.
//!
//! A new table's first commit is written here because the kernel's create call cannot set the
//! table's comment. An existing table is accepted when every column that it shares with ours has
//! the same type and every contract column is there; what is missing of ours is appended, in the
//! order of the schema, behind the columns that are there.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Fields, Schema};
use delta_kernel::engine::arrow_conversion::TryFromArrow as _;
use delta_kernel::schema::StructType;
use tracelake_model::Clock;
use tracelake_model::schema::{
    CLUSTERING_COLUMNS, CONTRACT_COLUMNS, CONTRACT_SPAN_FIELDS, TABLE_COMMENT, traces_schema,
};
use uuid::Uuid;

use super::protocol::{
    LegacyUses, OUR_READER_FEATURES, OUR_WRITER_FEATURES, Protocol, check_writable,
};
use super::{Table, TableSnapshot};
use crate::error::LakeError;
use crate::log::actions::{Action, CommitInfo, DomainMetadata, Format, MetaData, ProtocolAction};
use crate::log::put_version;
use crate::storage::PutOutcome;

const CLUSTERING_DOMAIN: &str = "delta.clustering";

/// Opens the table, creating it or appending our columns to it first where that is needed.
/// Idempotent; safe beside another process that does the same.
///
/// # Errors
/// [`LakeError::SchemaMismatch`] and [`LakeError::UnsupportedFeature`] for a table that is not
/// ours to write; nothing was written then.
pub fn create_or_accept(table: &Table, clock: &dyn Clock) -> Result<TableSnapshot, LakeError> {
    for _ in 0..MAX_ATTEMPTS {
        let (version, actions) = if table.durable_exists()? {
            let snapshot = table.durable_snapshot(None)?;
            match plan_acceptance(&snapshot, clock)? {
                None => return Ok(snapshot),
                Some(actions) => (snapshot.version() + 1, actions),
            }
        } else {
            table.files.create()?;
            (0, plan_creation(table, clock)?)
        };
        if put_version(table, version, &actions)? == PutOutcome::Written {
            return table.durable_snapshot(None);
        }
    }
    Err(LakeError::CommitConflict { table: table.name(), version: 0 })
}

const MAX_ATTEMPTS: usize = 10;

fn plan_creation(table: &Table, clock: &dyn Clock) -> Result<Vec<Action>, LakeError> {
    let now = clock.now_unix_micro() / 1_000;
    Ok(vec![
        commit_info(now, "CREATE TABLE"),
        Action::Protocol(protocol(&[], &[])),
        Action::MetaData(MetaData {
            id: Uuid::new_v4().to_string(),
            name: None,
            description: Some(TABLE_COMMENT.to_owned()),
            format: Format { provider: "parquet", options: BTreeMap::new() },
            schema_string: schema_string(table, &traces_schema())?,
            partition_columns: Vec::new(),
            created_time: Some(now),
            configuration: properties_of_new_tables(),
        }),
        clustering(),
    ])
}

/// What a table lacks, as one commit; `None` when it lacks nothing.
fn plan_acceptance(
    snapshot: &TableSnapshot,
    clock: &dyn Clock,
) -> Result<Option<Vec<Action>>, LakeError> {
    let table = snapshot.table();
    let configuration = snapshot.snapshot.table_configuration();
    let metadata = configuration.metadata();
    let existing = snapshot.schema()?;
    let schema_text = schema_string(table, &existing)?;
    let properties: BTreeMap<String, String> =
        metadata.configuration().iter().map(|(k, v)| (k.clone(), v.clone())).collect();
    let protocol = Protocol::of(snapshot)?;
    let pairs = properties.iter().map(|(key, value)| (key.as_str(), value.as_str()));
    let features = protocol.active_writer_features(&LegacyUses::of(pairs, &schema_text));
    check_writable(&table.name(), &features, &schema_text)?;
    if !configuration.logical_partition_columns().is_empty() {
        return Err(LakeError::UnsupportedFeature {
            table: table.name(),
            feature: "partition columns".to_owned(),
        });
    }
    let merged = merge_schema(&existing, &traces_schema(), &table.name())?;
    let mut wanted = properties.clone();
    wanted.extend(needed_properties());
    let complete =
        merged.as_ref() == existing.as_ref() && wanted == properties && protocol.has_all_of_ours();
    if complete {
        return Ok(None);
    }
    let now = clock.now_unix_micro() / 1_000;
    let keep: Vec<String> = features.into_iter().collect();
    let mut actions = vec![
        commit_info(now, "SET TBLPROPERTIES"),
        Action::Protocol(self::protocol(&keep, protocol.reader_features.as_deref().unwrap_or(&[]))),
        Action::MetaData(MetaData {
            id: metadata.id().to_owned(),
            name: metadata.name().map(str::to_owned),
            description: metadata
                .description()
                .map(str::to_owned)
                .or_else(|| Some(TABLE_COMMENT.to_owned())),
            format: Format { provider: "parquet", options: BTreeMap::new() },
            schema_string: schema_string(table, &merged)?,
            partition_columns: Vec::new(),
            created_time: metadata.created_time(),
            configuration: wanted,
        }),
    ];
    if !keep.iter().any(|feature| feature == "clustering") {
        actions.push(clustering());
    }
    Ok(Some(actions))
}

/// What our commits need, in each table.
fn needed_properties() -> BTreeMap<String, String> {
    let needed = ["delta.enableChangeDataFeed", "delta.enableDeletionVectors"];
    needed.into_iter().map(|key| (key.to_owned(), "true".to_owned())).collect()
}

/// What a new table has; the rest of it is the operator's from then on, and never set back.
fn properties_of_new_tables() -> BTreeMap<String, String> {
    let mut properties = needed_properties();
    // Thirty days of undo and change feed by default; log cleanup honours it.
    let retention = ("delta.logRetentionDuration", "interval 30 days");
    properties.insert(retention.0.to_owned(), retention.1.to_owned());
    properties
}

fn protocol(also_writer: &[String], also_reader: &[String]) -> ProtocolAction {
    let union = |ours: &[&str], others: &[String]| {
        let mut all: Vec<String> = ours.iter().map(|name| (*name).to_owned()).collect();
        all.extend(others.iter().cloned());
        all.sort_unstable();
        all.dedup();
        all
    };
    ProtocolAction {
        min_reader_version: 3,
        min_writer_version: 7,
        reader_features: union(&OUR_READER_FEATURES, also_reader),
        writer_features: union(&OUR_WRITER_FEATURES, also_writer),
    }
}

fn clustering() -> Action {
    let columns: Vec<[&str; 1]> = CLUSTERING_COLUMNS.into_iter().map(|name| [name]).collect();
    let configuration = serde_json::json!({
        "clusteringColumns": columns,
        "domainName": CLUSTERING_DOMAIN,
    });
    Action::DomainMetadata(DomainMetadata {
        domain: CLUSTERING_DOMAIN.to_owned(),
        configuration: configuration.to_string(),
        removed: false,
    })
}

fn commit_info(timestamp: i64, operation: &'static str) -> Action {
    Action::CommitInfo(CommitInfo::new(operation, false, timestamp))
}

fn schema_string(table: &Table, schema: &Schema) -> Result<String, LakeError> {
    let schema = StructType::try_from_arrow(schema)
        .map_err(|source| LakeError::Arrow { action: "convert schema", source })?;
    serde_json::to_string(&schema).map_err(|error| row_error(table, &error))
}

fn row_error(table: &Table, error: &serde_json::Error) -> LakeError {
    LakeError::Row { path: table.name(), reason: error.to_string() }
}

/// `existing` with the columns of `ours` that it lacks behind its own, at each level.
pub(super) fn merge_schema(
    existing: &Schema,
    ours: &Schema,
    table: &str,
) -> Result<Arc<Schema>, LakeError> {
    let fields = merge_fields(existing.fields(), ours.fields(), table, "")?;
    for field in ours.fields().iter().take(CONTRACT_COLUMNS) {
        if existing.field_with_name(field.name()).is_err() {
            return Err(mismatch(table, field.name(), field.data_type(), "no such column"));
        }
    }
    Ok(Arc::new(Schema::new(fields)))
}

fn merge_fields(
    existing: &Fields,
    ours: &Fields,
    table: &str,
    path: &str,
) -> Result<Fields, LakeError> {
    let mut merged: Vec<Arc<Field>> = Vec::new();
    for field in existing {
        let name = format!("{path}{}", field.name());
        match tracelake_model::schema::child(ours, field.name()) {
            // Rows of ours have no value for it.
            None if !field.is_nullable() => {
                return Err(LakeError::SchemaMismatch {
                    table: table.to_owned(),
                    column: name,
                    expected: "a nullable column, or none".to_owned(),
                    found: format!("{} NOT NULL", field.data_type()),
                });
            }
            None => merged.push(Arc::clone(field)),
            Some(our) => {
                let data_type = merge_type(field.data_type(), our.data_type(), table, &name)?;
                merged.push(Arc::new(field.as_ref().clone().with_data_type(data_type)));
            }
        }
    }
    for our in ours {
        if tracelake_model::schema::child(existing, our.name()).is_none() {
            merged.push(Arc::new(our.as_ref().clone().with_nullable(true)));
        }
    }
    Ok(merged.into())
}

fn merge_type(
    existing: &DataType,
    ours: &DataType,
    table: &str,
    path: &str,
) -> Result<DataType, LakeError> {
    match (existing, ours) {
        (DataType::Struct(left), DataType::Struct(right)) => {
            Ok(DataType::Struct(merge_fields(left, right, table, &format!("{path}."))?))
        }
        (DataType::List(left), DataType::List(right)) => {
            let path = format!("{path}.element");
            check_contract_span_fields(left, table, &path)?;
            let element = merge_type(left.data_type(), right.data_type(), table, &path)?;
            Ok(DataType::List(Arc::new(left.as_ref().clone().with_data_type(element))))
        }
        (DataType::Map(left, _), DataType::Map(right, _))
            if map_types(left) == map_types(right) =>
        {
            Ok(existing.clone())
        }
        (left, right) if left == right => Ok(existing.clone()),
        (left, right) => Err(mismatch(table, path, right, &left.to_string())),
    }
}

fn check_contract_span_fields(element: &Field, table: &str, path: &str) -> Result<(), LakeError> {
    if path != "spans.element" {
        return Ok(());
    }
    let ours = tracelake_model::schema::span_fields();
    let DataType::Struct(fields) = element.data_type() else {
        let expected = DataType::Struct(ours);
        return Err(mismatch(table, path, &expected, &element.data_type().to_string()));
    };
    for field in ours.iter().take(CONTRACT_SPAN_FIELDS) {
        if tracelake_model::schema::child(fields, field.name()).is_none() {
            let path = format!("{path}.{}", field.name());
            return Err(mismatch(table, &path, field.data_type(), "no such field"));
        }
    }
    Ok(())
}

fn map_types(entries: &Field) -> Option<Vec<&DataType>> {
    match entries.data_type() {
        DataType::Struct(fields) => Some(fields.iter().map(|field| field.data_type()).collect()),
        _ => None,
    }
}

fn mismatch(table: &str, column: &str, expected: &DataType, found: &str) -> LakeError {
    LakeError::SchemaMismatch {
        table: table.to_owned(),
        column: column.to_owned(),
        expected: expected.to_string(),
        found: found.to_owned(),
    }
}
