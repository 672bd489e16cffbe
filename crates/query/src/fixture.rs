//! Tables over Parquet files in a temporary folder, for this room's own tests.

use std::fs::File;
use std::path::Path as FilePath;
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{DataType, Field, Fields, Int64Type, Schema, SchemaRef, TimeUnit};
use arrow::json::ReaderBuilder;
use async_trait::async_trait;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;
use parquet::schema::types::ColumnPath;
use serde_json::{Value, json};
use tempfile::TempDir;
use tracelake_model::TableName;

use crate::error::QueryError;
use crate::session::{QueryEngine, QueryLimits, QueryOptions, QueryOutput};
use crate::source::{
    CreatedAtBounds, LiveFile, SourceError, TableLocation, TableResolver, TableSource,
};

/// `created_at` of the first row: 2026-11-22T00:00:00Z.
pub(crate) const START_MICROS: i64 = 1_795_305_600_000_000;

/// The table's contract, and of its added columns those that queries here use.
pub(crate) fn schema() -> SchemaRef {
    let text = |name: &str| Field::new(name, DataType::Utf8, true);
    let time = |name: &str| {
        Field::new(name, DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), true)
    };
    let long = |name: &str| Field::new(name, DataType::Int64, true);
    let map = |name: &str| {
        let entry = Fields::from(vec![Field::new("key", DataType::Utf8, false), text("value")]);
        let entries = Field::new("key_value", DataType::Struct(entry), false);
        Field::new(name, DataType::Map(Arc::new(entries), false), true)
    };
    let list = |name: &str, fields: Vec<Field>| {
        let element = Field::new("element", DataType::Struct(fields.into()), true);
        Field::new(name, DataType::List(Arc::new(element)), true)
    };
    let info = vec![text("request_id"), time("timestamp"), text("status")];
    let span = vec![
        text("span_id"),
        text("name"),
        text("span_type"),
        time("start_time"),
        time("end_time"),
        text("status"),
        text("inputs"),
        text("outputs"),
        map("tags"),
        map("metadata"),
        text("parent_span_id"),
        text("kind"),
        text("status_message"),
        long("start_time_unix_nano"),
        long("end_time_unix_nano"),
        list("events", vec![text("name"), long("time_unix_nano"), text("attributes")]),
    ];
    Arc::new(Schema::new(vec![
        Field::new("trace_id", DataType::Utf8, false),
        text("experiment_id"),
        text("run_id"),
        Field::new("trace_info", DataType::Struct(info.into()), true),
        list("spans", span),
        time("created_at").with_nullable(false),
        text("trace_name"),
        long("execution_duration_ms"),
        map("tags"),
        list("assessments", vec![text("name"), text("rationale"), text("value")]),
        long("total_tokens"),
        Field::new("span_count", DataType::Int32, true),
        Field::new("error_span_count", DataType::Int32, true),
        long("total_span_duration_ns"),
        Field::new("part", DataType::Int32, true),
    ]))
}

/// A trace with three spans and heavy payloads; every tenth has a failed second span.
///
/// Created one second after the one before. With `summaries` false it looks as the seed wrote it.
pub(crate) fn trace(number: i64, payload_bytes: usize, summaries: bool) -> Value {
    let failed = number % 10 == 0;
    let created = START_MICROS + number * 1_000_000;
    let spans: Vec<Value> = (0..3_i64)
        .map(|index| {
            let start = created + index * 1_000;
            let status = if failed && index == 1 { "ERROR" } else { "OK" };
            let mut span = json!({
                "span_id": format!("{number:08x}{index:08x}"),
                "name": format!("step {index}"),
                "span_type": "LLM",
                "start_time": start,
                "end_time": start + 500,
                "status": status,
                "inputs": payload(number * 7 + index, payload_bytes),
                "outputs": payload(number * 13 + index, payload_bytes),
                "metadata": {"model": "m"},
            });
            if summaries {
                span["kind"] = json!("CLIENT");
                span["start_time_unix_nano"] = json!(start * 1_000);
                span["end_time_unix_nano"] = json!((start + 500) * 1_000);
                span["status_message"] = json!(if failed { "out of luck" } else { "" });
            }
            span
        })
        .collect();
    let mut row = json!({
        "trace_id": format!("tr-{number:032x}"),
        "experiment_id": "0",
        "trace_info": {
            "request_id": format!("r{number}"),
            "timestamp": created,
            "status": if failed { "ERROR" } else { "OK" },
        },
        "spans": spans,
        "created_at": created,
        "tags": {"env": "test"},
    });
    if summaries {
        row["trace_name"] = json!(format!("trace {number}"));
        row["execution_duration_ms"] = json!(3);
        row["total_tokens"] = json!(number);
        row["span_count"] = json!(3);
        row["error_span_count"] = json!(i32::from(failed));
        row["total_span_duration_ns"] = json!(1_500_000);
    }
    row
}

/// Several [`trace`]s, with summaries.
pub(crate) fn traces(numbers: std::ops::Range<i64>, payload_bytes: usize) -> Vec<Value> {
    numbers.map(|number| trace(number, payload_bytes, true)).collect()
}

/// The columns and span fields that every table of traces has.
pub(crate) fn contract_schema() -> SchemaRef {
    let full = schema();
    let fields = full.fields().iter().take(6).map(|field| {
        let DataType::List(element) = field.data_type() else { return field.as_ref().clone() };
        let DataType::Struct(fields) = element.data_type() else { unreachable!("spans") };
        let contract = DataType::Struct(fields.iter().take(10).cloned().collect());
        let element = element.as_ref().clone().with_data_type(contract);
        field.as_ref().clone().with_data_type(DataType::List(Arc::new(element)))
    });
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

/// Text that does not compress well, the same for the same seed.
fn payload(seed: i64, bytes: usize) -> String {
    let mut state = seed.unsigned_abs().wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut text = String::with_capacity(bytes);
    while text.len() < bytes {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        text.push_str(&format!("{state:016x}"));
    }
    text
}

/// A table of files in a temporary folder. Skips files by the `created_at` range it knows of them.
#[derive(Debug)]
pub(crate) struct TestTable {
    folder: TempDir,
    schema: SchemaRef,
    files: Vec<(LiveFile, i64, i64)>,
    pending: Vec<RecordBatch>,
}

impl TestTable {
    pub(crate) fn new() -> Self {
        Self::of(schema())
    }

    /// A table with the columns of `schema`.
    pub(crate) fn of(schema: SchemaRef) -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            schema,
            files: Vec::new(),
            pending: Vec::new(),
        }
    }

    /// Adds a file of `rows` in the table's schema, `group_rows` to a row group.
    pub(crate) fn with_file(self, rows: &[Value], group_rows: usize) -> Self {
        let schema = Arc::clone(&self.schema);
        self.with_file_of(&schema, rows, group_rows)
    }

    /// Adds a file that has only the columns of `schema`.
    pub(crate) fn with_file_of(
        mut self,
        schema: &SchemaRef,
        rows: &[Value],
        group_rows: usize,
    ) -> Self {
        let name = format!("part {}%.parquet", self.files.len());
        let path = self.folder.path().join(&name);
        write_parquet(&path, schema, rows, group_rows);
        let created: Vec<i64> =
            rows.iter().map(|row| row["created_at"].as_i64().unwrap()).collect();
        let file = LiveFile {
            path: name,
            size_bytes: std::fs::metadata(&path).unwrap().len(),
            record_count: Some(u64::try_from(rows.len()).unwrap()),
            deleted_rows: Vec::new(),
        };
        let (from, to) = (created.iter().min().copied(), created.iter().max().copied());
        self.files.push((file, from.unwrap(), to.unwrap()));
        self
    }

    /// Deletes rows of the last file; `count_known` says whether the log has its row count.
    pub(crate) fn with_deletions(mut self, deleted: Vec<u64>, count_known: bool) -> Self {
        let (file, ..) = self.files.last_mut().unwrap();
        file.deleted_rows = deleted;
        if !count_known {
            file.record_count = None;
        }
        self
    }

    /// Adds pending rows that have only the columns of `schema`, all in one batch.
    pub(crate) fn with_pending_of(mut self, schema: &SchemaRef, rows: &[Value]) -> Self {
        let mut decoder = ReaderBuilder::new(Arc::clone(schema))
            .with_batch_size(1 << 20)
            .build_decoder()
            .unwrap();
        decoder.serialize(rows).unwrap();
        self.pending.extend(decoder.flush().unwrap());
        self
    }

    pub(crate) fn size_bytes(&self) -> u64 {
        self.files.iter().map(|(file, ..)| file.size_bytes).sum()
    }
}

fn write_parquet(path: &FilePath, schema: &SchemaRef, rows: &[Value], group_rows: usize) {
    let properties = WriterProperties::builder()
        .set_max_row_group_row_count(Some(group_rows))
        .set_column_bloom_filter_enabled(ColumnPath::from("trace_id"), true)
        .build();
    let file = File::create(path).unwrap();
    let mut writer = ArrowWriter::try_new(file, Arc::clone(schema), Some(properties)).unwrap();
    let mut decoder = ReaderBuilder::new(Arc::clone(schema)).build_decoder().unwrap();
    for chunk in rows.chunks(512) {
        decoder.serialize(chunk).unwrap();
        writer.write(&decoder.flush().unwrap().unwrap()).unwrap();
    }
    writer.close().unwrap();
}

impl TableSource for TestTable {
    fn version(&self) -> u64 {
        1
    }

    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn location(&self) -> TableLocation {
        let store = LocalFileSystem::new_with_prefix(self.folder.path()).unwrap();
        TableLocation { store: Arc::new(store), root: Path::default() }
    }

    fn live_files(&self, bounds: CreatedAtBounds) -> Result<Vec<LiveFile>, SourceError> {
        let wanted = self.files.iter().filter(|(_, from, to)| {
            bounds.from_micros.is_none_or(|bound| bound <= *to)
                && bounds.to_micros.is_none_or(|bound| *from <= bound)
        });
        Ok(wanted.map(|(file, ..)| file.clone()).collect())
    }

    fn pending(&self) -> &[RecordBatch] {
        &self.pending
    }
}

/// The table `production.monitoring.agent_traces`, and nothing else.
#[derive(Debug)]
pub(crate) struct OneTable(pub(crate) Arc<TestTable>);

pub(crate) fn table_name() -> TableName {
    TableName::new("production", "monitoring", "agent_traces").unwrap()
}

#[async_trait]
impl TableResolver for OneTable {
    async fn resolve(&self, name: &TableName) -> Result<Option<Arc<dyn TableSource>>, SourceError> {
        Ok((*name == table_name()).then(|| Arc::clone(&self.0) as Arc<dyn TableSource>))
    }

    fn names(&self) -> Vec<TableName> {
        vec![table_name()]
    }
}

pub(crate) fn engine(table: TestTable) -> QueryEngine {
    engine_with(table, QueryLimits::default())
}

pub(crate) fn engine_with(table: TestTable, limits: QueryLimits) -> QueryEngine {
    QueryEngine::new(Arc::new(OneTable(Arc::new(table))), limits).unwrap()
}

/// Runs a statement that knows the one table as `traces`.
pub(crate) async fn ask(engine: &QueryEngine, sql: &str) -> Result<QueryOutput, QueryError> {
    let options = QueryOptions { default_table: Some(table_name()), ..QueryOptions::default() };
    engine.query(sql, &options).await
}

/// The one number that a statement answers with.
pub(crate) async fn number(engine: &QueryEngine, sql: &str) -> i64 {
    let output = ask(engine, sql).await.unwrap();
    let batch = &output.batches[0];
    assert_eq!((batch.num_rows(), batch.num_columns()), (1, 1), "{sql}");
    let column = arrow::compute::cast(batch.column(0), &DataType::Int64).unwrap();
    column.as_primitive::<Int64Type>().value(0)
}

pub(crate) fn rows(output: &QueryOutput) -> usize {
    output.batches.iter().map(RecordBatch::num_rows).sum()
}
