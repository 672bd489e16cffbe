//! A table provider over the live files of one table version and its pending rows.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use chrono::{DateTime, Utc};
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::stats::Precision;
use datafusion::common::{DataFusionError, Result, Statistics};
use datafusion::config::TableParquetOptions;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::parquet::metadata::DFParquetMetadata;
use datafusion::datasource::physical_plan::parquet::{
    CachedParquetFileReaderFactory, ParquetRowSelection,
};
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::datasource::table_schema::TableSchema;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::physical_plan::union::UnionExec;
use object_store::path::Path;

use super::created_at::created_at_bounds;
use super::deleted_rows::surviving_rows;
use super::pending_rows::pending_scan;
use crate::source::{CreatedAtBounds, LiveFile, TableLocation, TableSource};

/// What the scans of one statement were given to read. Shared by all scans of the statement.
#[derive(Debug, Default)]
pub(crate) struct ScanCounters {
    files_scanned: AtomicU64,
    files_skipped: AtomicU64,
    table_bytes: AtomicU64,
}

impl ScanCounters {
    fn add(&self, scanned: u64, skipped: u64, table_bytes: u64) {
        self.files_scanned.fetch_add(scanned, Ordering::Relaxed);
        self.files_skipped.fetch_add(skipped, Ordering::Relaxed);
        self.table_bytes.fetch_add(table_bytes, Ordering::Relaxed);
    }

    /// Files handed to the Parquet reader, which may still skip them by their own statistics.
    pub(crate) fn files_scanned(&self) -> u64 {
        self.files_scanned.load(Ordering::Relaxed)
    }

    /// Files that the table's log alone ruled out.
    pub(crate) fn files_skipped(&self) -> u64 {
        self.files_skipped.load(Ordering::Relaxed)
    }

    /// Bytes of all live files of the scanned tables.
    pub(crate) fn table_bytes(&self) -> u64 {
        self.table_bytes.load(Ordering::Relaxed)
    }
}

/// One table version under a declared schema, which may be narrower than the table's.
#[derive(Debug)]
pub(crate) struct TracesTable {
    source: Arc<dyn TableSource>,
    declared: SchemaRef,
    store_url: ObjectStoreUrl,
    counters: Arc<ScanCounters>,
}

impl TracesTable {
    /// `declared` has the same columns as the table, nested ones possibly narrowed. `store_url`
    /// is the name under which the session knows the table's store.
    pub(crate) fn new(
        source: Arc<dyn TableSource>,
        declared: SchemaRef,
        store_url: ObjectStoreUrl,
        counters: Arc<ScanCounters>,
    ) -> Self {
        Self { source, declared, store_url, counters }
    }

    /// The name that tells this table from the statement's other tables.
    pub(crate) fn key(&self) -> &str {
        self.store_url.as_str()
    }

    /// The same table under another declared schema.
    pub(crate) fn with_declared(&self, declared: SchemaRef) -> Self {
        Self {
            source: Arc::clone(&self.source),
            declared,
            store_url: self.store_url.clone(),
            counters: Arc::clone(&self.counters),
        }
    }

    fn list(&self, bounds: CreatedAtBounds) -> Result<Vec<LiveFile>> {
        self.source.live_files(bounds).map_err(DataFusionError::External)
    }

    /// Lists what has to be read and notes what need not be.
    fn files_to_read(&self, filters: &[Expr]) -> Result<Vec<LiveFile>> {
        let all = self.list(CreatedAtBounds::default())?;
        let (total, table_bytes) = (all.len(), all.iter().map(|file| file.size_bytes).sum());
        let bounds = created_at_bounds(filters);
        let files = if bounds == CreatedAtBounds::default() { all } else { self.list(bounds)? };
        let scanned = u64::try_from(files.len()).unwrap_or(u64::MAX);
        let skipped = u64::try_from(total.saturating_sub(files.len())).unwrap_or(u64::MAX);
        self.counters.add(scanned, skipped, table_bytes);
        Ok(files)
    }

    fn projected(&self, projection: Option<&Vec<usize>>) -> Result<SchemaRef> {
        match projection {
            Some(indices) => Ok(Arc::new(self.declared.project(indices)?)),
            None => Ok(Arc::clone(&self.declared)),
        }
    }

    async fn files_scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        files: Vec<LiveFile>,
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let statistics = row_count_statistics(&self.declared, &files);
        let location = self.source.location();
        let mut group = Vec::with_capacity(files.len());
        for file in files {
            group.push(partitioned_file(&location, file).await?);
        }
        let cache = state.runtime_env().cache_manager.get_file_metadata_cache();
        let reader = CachedParquetFileReaderFactory::new(Arc::clone(&location.store), cache);
        let options = TableParquetOptions {
            global: state.config_options().execution.parquet.clone(),
            ..TableParquetOptions::default()
        };
        let source = ParquetSource::new(TableSchema::from(Arc::clone(&self.declared)))
            .with_table_parquet_options(options)
            .with_parquet_file_reader_factory(Arc::new(reader));
        // Filters arrive later, when the physical optimizer pushes them into the source.
        let partitions = state.config().target_partitions().max(1);
        let config = FileScanConfigBuilder::new(self.store_url.clone(), Arc::new(source))
            .with_file_groups(FileGroup::new(group).split_files(partitions))
            .with_statistics(statistics)
            .with_projection_indices(projection.cloned())?
            .with_limit(limit)
            .build();
        Ok(DataSourceExec::from_data_source(config))
    }
}

#[async_trait]
impl TableProvider for TracesTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.declared)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> Result<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let files = self.files_to_read(filters)?;
        // Pending rows have no statistics to be skipped by: the filters above the scan see them.
        let pending = pending_scan(
            self.source.pending(),
            &self.projected(projection)?,
            limit,
            state.config_options().execution.batch_size.into(),
        )?;
        if files.is_empty() {
            return match pending {
                Some(pending) => Ok(pending),
                None => Ok(Arc::new(EmptyExec::new(self.projected(projection)?))),
            };
        }
        let committed = self.files_scan(state, projection, files, limit).await?;
        match pending {
            Some(pending) => UnionExec::try_new(vec![committed, pending]),
            None => Ok(committed),
        }
    }
}

async fn partitioned_file(location: &TableLocation, file: LiveFile) -> Result<PartitionedFile> {
    // Parsed, not joined: joining would percent-encode what the log already names in plain text.
    // A path that climbs out of the table is refused.
    let path = Path::parse(format!("{}/{}", location.root, file.path))
        .map_err(|error| DataFusionError::External(Box::new(error)))?;
    let mut partitioned = PartitionedFile::new(String::new(), file.size_bytes);
    partitioned.object_meta.location = path;
    partitioned.object_meta.last_modified = store_stamp(location);
    if file.deleted_rows.is_empty() {
        return Ok(partitioned);
    }
    let row_count = match file.record_count {
        Some(count) => count,
        None => rows_in_footer(location, &partitioned).await?,
    };
    let selection = surviving_rows(&file.deleted_rows, row_count).ok_or_else(|| {
        DataFusionError::Execution(format!(
            "deletion vector of file `{}` does not fit its {row_count} rows",
            file.path
        ))
    })?;
    Ok(partitioned.with_extension(ParquetRowSelection::new(selection)))
}

/// Stands for the store in the key of the footer cache, which knows paths and times only. Data
/// files never change, so their real time says nothing.
fn store_stamp(location: &TableLocation) -> DateTime<Utc> {
    let mut hasher = DefaultHasher::new();
    location.store.to_string().hash(&mut hasher);
    let stamp = u32::try_from(hasher.finish() >> 32).unwrap_or_default();
    DateTime::from_timestamp(i64::from(stamp), 0).unwrap_or_default()
}

async fn rows_in_footer(location: &TableLocation, file: &PartitionedFile) -> Result<u64> {
    let metadata = DFParquetMetadata::new(location.store.as_ref(), &file.object_meta);
    let metadata = metadata.fetch_metadata().await?;
    u64::try_from(metadata.file_metadata().num_rows())
        .map_err(|error| DataFusionError::External(Box::new(error)))
}

/// Exact row count if the log knows it for every file, so that `count(*)` reads nothing.
fn row_count_statistics(schema: &SchemaRef, files: &[LiveFile]) -> Statistics {
    let mut statistics = Statistics::new_unknown(schema);
    let rows: Option<u64> = files.iter().try_fold(0_u64, |rows, file| {
        let deleted = u64::try_from(file.deleted_rows.len()).ok()?;
        rows.checked_add(file.record_count?.checked_sub(deleted)?)
    });
    if let Some(rows) = rows.and_then(|rows| usize::try_from(rows).ok()) {
        statistics.num_rows = Precision::Exact(rows);
    }
    statistics
}
