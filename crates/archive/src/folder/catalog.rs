//! Tables of the lake in the Unity Catalog: what a table's log says, in the catalog's words.

use std::sync::Arc;

use anyhow::Context as _;
use arrow::datatypes::{DataType, Field, TimeUnit};
use tracelake_catalog::{
    CatalogError, Column, ColumnType, ListType, MapType, Registration, TableSpec, ensure_table,
};
use tracelake_lake::{Table, TableSnapshot, create_or_accept};
use tracelake_model::TableName;
use tracing::{info, warn};

use crate::folder::Archive;

impl Archive {
    /// Makes sure that the catalog has the table as it is at `snapshot`.
    pub(crate) async fn ensure_in_catalog(
        &self,
        name: &TableName,
        snapshot: &TableSnapshot,
    ) -> anyhow::Result<Registration> {
        let spec = table_spec(name, snapshot)?;
        match ensure_table(self.catalog.as_ref(), &spec).await {
            Ok(done) => Ok(done),
            Err(error @ CatalogError::OtherLocation { .. }) => Err(anyhow::anyhow!(
                "{error}\nhint: delete that entry from the catalog, or choose another table name"
            )),
            Err(error) => {
                Err(anyhow::Error::new(error)
                    .context(format!("enter table `{name}` in the catalog")))
            }
        }
    }

    /// Brings the catalog up to date: the default table, which is created when it is not there,
    /// and every table of the registry. What cannot be read or entered is logged and passed over:
    /// the service works without it.
    pub(crate) async fn fill_catalog(&self, default_table: &TableName) {
        let registered = match self.registry.tables().await {
            Ok(tables) => tables,
            Err(error) => {
                warn!(%error, "catalog not brought up to date");
                return;
            }
        };
        let mut names: Vec<TableName> = registered.into_iter().map(|table| table.name).collect();
        names.retain(|name| name != default_table);
        names.insert(0, default_table.clone());
        for name in names {
            match self.enter(&name, name == *default_table).await {
                Ok(None | Some(Registration::Unchanged)) => {}
                Ok(Some(done)) => info!(table = %name, ?done, "table entered in the catalog"),
                Err(error) => {
                    let reason = format!("{error:#}");
                    warn!(table = %name, reason, "table not entered in the catalog");
                }
            }
        }
    }

    /// `None` when the table is not there and is not to be made.
    async fn enter(&self, name: &TableName, create: bool) -> anyhow::Result<Option<Registration>> {
        let table = Table::at(&self.lake, self.folder.table(name))?;
        let clock = Arc::clone(&self.clock);
        let snapshot = tokio::task::spawn_blocking(move || {
            // Accepting appends the columns that an older program did not have, as the first
            // commit would: so the catalog has them as well.
            if create || table.exists()? {
                create_or_accept(&table, &*clock).map(Some)
            } else {
                Ok(None)
            }
        })
        .await??;
        match snapshot {
            Some(snapshot) => Ok(Some(self.ensure_in_catalog(name, &snapshot).await?)),
            None => Ok(None),
        }
    }
}

/// The entry that a table should have.
pub(crate) fn table_spec(name: &TableName, snapshot: &TableSnapshot) -> anyhow::Result<TableSpec> {
    let schema = snapshot.schema()?;
    let columns = schema.fields().iter().map(|field| column(field));
    Ok(TableSpec {
        name: name.clone(),
        location: snapshot.table().url().to_string(),
        comment: snapshot.comment(),
        columns: columns
            .collect::<anyhow::Result<_>>()
            .with_context(|| format!("columns of table `{name}`"))?,
        properties: snapshot.properties(),
    })
}

fn column(field: &Field) -> anyhow::Result<Column> {
    Ok(Column {
        name: field.name().clone(),
        data_type: column_type(field.data_type())
            .with_context(|| format!("column `{}`", field.name()))?,
        nullable: field.is_nullable(),
        comment: field.metadata().get("comment").cloned(),
    })
}

/// A type in the catalog's words.
pub(crate) fn column_type(data_type: &DataType) -> anyhow::Result<ColumnType> {
    Ok(match data_type {
        DataType::Boolean => ColumnType::Boolean,
        DataType::Int8 => ColumnType::Byte,
        DataType::Int16 => ColumnType::Short,
        DataType::Int32 => ColumnType::Int,
        DataType::Int64 => ColumnType::Long,
        DataType::Float32 => ColumnType::Float,
        DataType::Float64 => ColumnType::Double,
        DataType::Date32 => ColumnType::Date,
        DataType::Timestamp(TimeUnit::Microsecond, Some(_)) => ColumnType::Timestamp,
        DataType::Timestamp(TimeUnit::Microsecond, None) => ColumnType::TimestampNtz,
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => ColumnType::String,
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => ColumnType::Binary,
        DataType::Decimal128(precision, scale) => {
            ColumnType::Decimal { precision: *precision, scale: *scale }
        }
        DataType::List(element) | DataType::LargeList(element) => {
            ColumnType::Array(Box::new(ListType {
                element: column_type(element.data_type())?,
                contains_null: element.is_nullable(),
            }))
        }
        DataType::Struct(fields) => ColumnType::Struct(
            fields.iter().map(|field| column(field)).collect::<anyhow::Result<_>>()?,
        ),
        DataType::Map(entries, _) => map_type(entries)?,
        other => anyhow::bail!("type {other} is none of Delta's"),
    })
}

fn map_type(entries: &Field) -> anyhow::Result<ColumnType> {
    let DataType::Struct(pair) = entries.data_type() else {
        anyhow::bail!("a map without pairs");
    };
    let [key, value] = pair.as_ref() else {
        anyhow::bail!("a map whose entries are no pairs");
    };
    Ok(ColumnType::Map(Box::new(MapType {
        key: column_type(key.data_type())?,
        value: column_type(value.data_type())?,
        value_contains_null: value.is_nullable(),
    })))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracelake_model::schema::traces_schema;

    /// Scenario: every column of the traces table.
    /// Guarantees: each has a type in the catalog, the contract's as the contract spells them.
    #[test]
    fn every_column_of_the_table_has_a_type() {
        let schema = traces_schema();
        let columns: Vec<Column> =
            schema.fields().iter().map(|field| column(field).unwrap()).collect();
        assert_eq!(columns.len(), schema.fields().len());
        let text = |index: usize| columns[index].data_type.type_text();
        assert_eq!(text(0), "string");
        assert_eq!(text(3), "struct<request_id:string,timestamp:timestamp,status:string>");
        assert!(text(4).starts_with(
            "array<struct<span_id:string,name:string,span_type:string,start_time:timestamp,\
             end_time:timestamp,status:string,inputs:string,outputs:string,\
             tags:map<string,string>,metadata:map<string,string>"
        ));
        assert_eq!((text(5).as_str(), columns[5].nullable), ("timestamp", false));
        assert_eq!(columns[4].comment.as_deref(), Some("Trace spans"));
    }
}
