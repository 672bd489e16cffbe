//! Plans a statement, runs it under limits, and says what it cost.

mod amplifiers;
mod apart;
mod catalog;
mod complexity;
mod lambda_indices;
mod metrics;
mod read_only;
mod result_bytes;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, SchemaRef};
use datafusion::common::DataFusionError;
use datafusion::datasource::source_as_provider;
use datafusion::execution::SessionStateBuilder;
use datafusion::execution::context::SQLOptions;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::GreedyMemoryPool;
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::execution_props::ExecutionProps;
use datafusion::logical_expr::{LogicalPlan, TableScan};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_optimizer::optimizer::PhysicalOptimizer;
use datafusion::physical_plan::display::DisplayableExecutionPlan;
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use datafusion::prelude::SessionConfig;
use datafusion::sql::parser::Statement;
use futures::StreamExt;
use tracelake_model::TableName;

use crate::error::{QueryError, plain_message};
use crate::functions;
use crate::leaves::narrow::leaf_names;
use crate::leaves::{narrow_schema, used_columns, without_payloads};
use crate::source::TableResolver;
use crate::tables::TracesTable;
use apart::run_apart;
use catalog::Catalog;
use lambda_indices::LiftLambdaIndices;

pub use metrics::ScanMetrics;

/// What one engine may use.
#[derive(Clone, Debug)]
pub struct QueryLimits {
    /// Memory of all statements that run at the same time, in bytes: sorts, aggregates, joins.
    /// The rows of one result may take as much again. Nothing is spilled to disk.
    pub memory_bytes: usize,
    /// How long one statement may take, planning included.
    pub time: Duration,
    /// How many threads' worth of partitions a scan is split into.
    pub partitions: usize,
}

impl Default for QueryLimits {
    /// 256 MiB, one minute, and two partitions.
    fn default() -> Self {
        Self { memory_bytes: 256 << 20, time: Duration::from_secs(60), partitions: 2 }
    }
}

/// How to run one statement.
#[derive(Clone, Debug, Default)]
pub struct QueryOptions {
    /// The table that the bare name `traces` stands for.
    pub default_table: Option<TableName>,
    /// Stop after this many rows.
    pub max_rows: Option<usize>,
    /// Declare the tables without the heavy texts that clients sent ([`crate::payload_leaves`]):
    /// `SELECT *` has the columns that are left, and nothing else is read. A statement that names
    /// one that is left out fails.
    pub without_payloads: bool,
}

/// The answer to one statement.
#[derive(Clone, Debug)]
pub struct QueryOutput {
    /// Names and types of the columns, also when there are no rows.
    pub schema: SchemaRef,
    /// The rows.
    pub batches: Vec<RecordBatch>,
    /// Whether rows were left out because of [`QueryOptions::max_rows`].
    pub truncated: bool,
    /// What the scans read.
    pub metrics: ScanMetrics,
}

/// Runs read-only SQL over the tables that a resolver finds.
///
/// Cheap to share; statements may run at the same time and share the memory limit.
#[derive(Clone, Debug)]
pub struct QueryEngine {
    resolver: Arc<dyn TableResolver>,
    limits: QueryLimits,
    runtime: Arc<RuntimeEnv>,
    template: SessionState,
}

/// A statement that is ready to run.
struct Planned {
    physical: Arc<dyn ExecutionPlan>,
    state: SessionState,
    catalog: Catalog,
    /// Used columns by table name, where a table was narrowed.
    narrowed: BTreeMap<String, SchemaRef>,
}

impl QueryEngine {
    /// An engine over the tables of `resolver`.
    ///
    /// # Errors
    /// [`QueryError::Setup`] if the limits make no sense.
    pub fn new(resolver: Arc<dyn TableResolver>, limits: QueryLimits) -> Result<Self, QueryError> {
        let disk = DiskManagerBuilder::default().with_mode(DiskManagerMode::Disabled);
        let runtime = RuntimeEnvBuilder::new()
            .with_memory_pool(Arc::new(GreedyMemoryPool::new(limits.memory_bytes)))
            .with_disk_manager_builder(disk)
            .build_arc()
            .map_err(|error| setup_error(&error))?;
        let mut template = SessionStateBuilder::new()
            .with_config(session_config(&limits))
            .with_runtime_env(Arc::clone(&runtime))
            .with_default_features()
            .with_physical_optimizer_rules(physical_rules())
            .build();
        functions::register(&mut template).map_err(|error| setup_error(&error))?;
        amplifiers::bound_amplifiers(&mut template).map_err(|error| setup_error(&error))?;
        Ok(Self { resolver, limits, runtime, template })
    }

    /// Runs `sql`, one read-only statement.
    ///
    /// Tables are named `catalog.schema.table`; what is left out is `tracelake` and `default`.
    /// The bare name `traces` stands for [`QueryOptions::default_table`], if there is one.
    /// Cancel safe: dropping the future stops the statement.
    ///
    /// # Errors
    /// See [`QueryError`]; [`QueryError::hint`] says what to try next.
    pub async fn query(
        &self,
        sql: &str,
        options: &QueryOptions,
    ) -> Result<QueryOutput, QueryError> {
        let (engine, sql, options) = (self.clone(), sql.to_owned(), options.clone());
        run_apart(&self.limits, move || async move {
            let planned = engine.plan(&sql, &options).await?;
            engine.run(&planned, &options).await
        })
        .await
    }

    /// Runs `sql` and says how: the leaves that were read, the plan with its metrics, and what
    /// share of the table's bytes it took.
    ///
    /// # Errors
    /// As [`Self::query`].
    pub async fn explain(&self, sql: &str, options: &QueryOptions) -> Result<String, QueryError> {
        let (engine, sql, options) = (self.clone(), sql.to_owned(), options.clone());
        run_apart(&self.limits, move || async move {
            let planned = engine.plan(&sql, &options).await?;
            let output = engine.run(&planned, &options).await?;
            Ok(explained(&planned, &output.metrics))
        })
        .await
    }

    async fn plan(&self, sql: &str, options: &QueryOptions) -> Result<Planned, QueryError> {
        let limit_bytes = self.limits.memory_bytes;
        let statement = self.parse(sql)?;
        read_only::check_read_only(&statement)?;
        complexity::check_statement(&statement)?;
        let references = self
            .template
            .resolve_table_references(&statement)
            .map_err(|error| QueryError::Syntax { message: plain_message(&error) })?;
        let mut catalog =
            Catalog::open(self.resolver.as_ref(), references, options.default_table.as_ref())
                .await?;
        if options.without_payloads {
            catalog = catalog.map_tables(|_, table| without_payloads(&table_schema(table)));
        }

        let runtime = catalog.runtime(&self.runtime);
        let began = self.began();
        let mut full_state = self.state(&runtime, &catalog, began.clone())?;
        let full = full_state.statement_to_plan(statement.clone()).await.map_err(|error| {
            catalog
                .missing_table()
                .unwrap_or_else(|| QueryError::from_planning(&error, limit_bytes))
        })?;
        SQLOptions::new()
            .with_allow_ddl(false)
            .with_allow_dml(false)
            .with_allow_statements(false)
            .verify_plan(&full)
            .map_err(|_| QueryError::ReadOnly { statement: statement_kind(&full) })?;

        if let Some((mut state, logical, catalog, narrowed)) =
            self.plan_narrowed(&statement, &full, &catalog, &runtime, began).await
        {
            sort_wide_rows_once(&mut state, &logical);
            if let Ok(physical) = state.create_physical_plan(&logical).await {
                return Ok(Planned { physical, state, catalog, narrowed });
            }
        }
        sort_wide_rows_once(&mut full_state, &full);
        let physical = full_state
            .create_physical_plan(&full)
            .await
            .map_err(|error| QueryError::from_planning(&error, limit_bytes))?;
        Ok(Planned { physical, state: full_state, catalog, narrowed: BTreeMap::new() })
    }

    /// The same statement over tables that declare only the leaves it uses, if that gives the
    /// same columns.
    async fn plan_narrowed(
        &self,
        statement: &Statement,
        full: &LogicalPlan,
        catalog: &Catalog,
        runtime: &Arc<RuntimeEnv>,
        began: ExecutionProps,
    ) -> Option<(SessionState, LogicalPlan, Catalog, BTreeMap<String, SchemaRef>)> {
        if catalog.shows_schemas() {
            return None;
        }
        let used = used_columns(full, &traces_table_key)?;
        let mut names = BTreeMap::new();
        let unused = BTreeMap::new();
        let narrowed = catalog.map_tables(|name, table| {
            let columns = used.get(table.key()).unwrap_or(&unused);
            let declared = narrow_schema(&table_schema(table), columns);
            names.insert(name.to_owned(), narrowed_columns(&declared, columns));
            declared
        });
        let state = self.state(runtime, &narrowed, began).ok()?;
        let logical = match state.statement_to_plan(statement.clone()).await {
            Ok(logical) => logical,
            Err(error) => {
                tracing::debug!(%error, "narrowed planning failed, reading whole columns");
                return None;
            }
        };
        let same = logical.schema().as_arrow().fields() == full.schema().as_arrow().fields();
        same.then_some((state, logical, narrowed, names))
    }

    fn parse(&self, sql: &str) -> Result<Statement, QueryError> {
        let dialect = self.template.config_options().sql_parser.dialect;
        complexity::check_text(sql, &dialect)?;
        self.template
            .sql_to_statement(sql, &dialect)
            .map_err(|error| QueryError::Syntax { message: plain_message(&error) })
    }

    /// The time that `now()`, `current_date()` and their like have in one statement, however
    /// often it is planned.
    fn began(&self) -> ExecutionProps {
        let mut began = self.template.execution_props().clone();
        began.mark_start_execution(Arc::clone(self.template.config().options()));
        began
    }

    fn state(
        &self,
        runtime: &Arc<RuntimeEnv>,
        catalog: &Catalog,
        began: ExecutionProps,
    ) -> Result<SessionState, QueryError> {
        let catalogs = catalog.provider_list().map_err(|error| setup_error(&error))?;
        Ok(SessionStateBuilder::new_from_existing(self.template.clone())
            .with_runtime_env(Arc::clone(runtime))
            .with_catalog_list(catalogs)
            .with_execution_props(began)
            .build())
    }

    async fn run(
        &self,
        planned: &Planned,
        options: &QueryOptions,
    ) -> Result<QueryOutput, QueryError> {
        let limit_bytes = self.limits.memory_bytes;
        let failed = |error: DataFusionError| QueryError::from_execution(&error, limit_bytes);
        let schema = planned.physical.schema();
        let mut stream = execute_stream(Arc::clone(&planned.physical), planned.state.task_ctx())
            .map_err(failed)?;
        let mut batches = Vec::new();
        let mut result_bytes: usize = 0;
        let mut rows_left = options.max_rows.unwrap_or(usize::MAX);
        let mut truncated = false;
        while let Some(batch) = stream.next().await {
            let mut batch = batch.map_err(failed)?;
            if rows_left < batch.num_rows() {
                batch = batch.slice(0, rows_left);
                truncated = true;
            }
            rows_left -= batch.num_rows();
            result_bytes = result_bytes.saturating_add(result_bytes::rows_bytes(&batch));
            if limit_bytes < result_bytes {
                return Err(QueryError::MemoryLimit { limit_bytes });
            }
            if 0 < batch.num_rows() {
                batches.push(batch);
            }
            if truncated {
                break;
            }
        }
        // The scans must have stopped before their counts are read.
        drop(stream);
        let metrics = metrics::scan_metrics(planned.physical.as_ref(), planned.catalog.counters());
        Ok(QueryOutput { schema, batches, truncated, metrics })
    }
}

fn session_config(limits: &QueryLimits) -> SessionConfig {
    let mut config = SessionConfig::new()
        .with_default_catalog_and_schema(catalog::DEFAULT_CATALOG, catalog::DEFAULT_SCHEMA)
        .with_create_default_catalog_and_schema(false)
        .with_information_schema(true)
        .with_target_partitions(limits.partitions.max(1))
        // Lambdas, as in `array_any_match(spans, s -> s['status'] = 'ERROR')`.
        .set_str("datafusion.sql_parser.dialect", "databricks");
    let options = config.options_mut();
    options.sql_parser.map_string_types_to_utf8view = false;
    options.execution.parquet.pushdown_filters = true;
    options.execution.parquet.bloom_filter_on_read = true;
    options.execution.parquet.schema_force_view_types = false;
    config
}

/// Whole traces are dear to copy and cheap to compare: one sort over all partitions copies them once
/// less than a sort in each and a merge.
fn sort_wide_rows_once(state: &mut SessionState, plan: &LogicalPlan) {
    let fields = plan.schema().fields();
    if fields.iter().any(|field| matches!(field.data_type(), DataType::List(_))) {
        state.config_mut().options_mut().optimizer.repartition_sorts = false;
    }
}

fn physical_rules() -> Vec<Arc<dyn PhysicalOptimizerRule + Send + Sync>> {
    let mut rules: Vec<Arc<dyn PhysicalOptimizerRule + Send + Sync>> =
        vec![Arc::new(LiftLambdaIndices)];
    rules.extend(PhysicalOptimizer::default().rules);
    rules
}

fn traces_table_key(scan: &TableScan) -> Option<String> {
    let provider = source_as_provider(&scan.source).ok()?;
    provider.downcast_ref::<TracesTable>().map(|table| table.key().to_owned())
}

fn table_schema(table: &TracesTable) -> SchemaRef {
    datafusion::catalog::TableProvider::schema(table)
}

/// Only the columns of `declared` that the statement uses.
fn narrowed_columns<T>(declared: &SchemaRef, used: &BTreeMap<String, T>) -> SchemaRef {
    let fields: Vec<_> =
        declared.fields().iter().filter(|field| used.contains_key(field.name())).cloned().collect();
    Arc::new(arrow::datatypes::Schema::new(fields))
}

fn explained(planned: &Planned, metrics: &ScanMetrics) -> String {
    let mut text = String::new();
    for (table, columns) in &planned.narrowed {
        let leaves: Vec<String> =
            columns.fields().iter().flat_map(|field| leaf_names(field)).collect();
        let leaves = if leaves.is_empty() { "none".to_owned() } else { leaves.join(", ") };
        text.push_str(&format!("leaves of {table}: {leaves}\n"));
    }
    if planned.narrowed.is_empty() {
        text.push_str("leaves: all\n");
    }
    let plan = DisplayableExecutionPlan::with_metrics(planned.physical.as_ref());
    text.push_str(&format!(
        "\n{}\nfiles scanned: {}, skipped: {}; row groups pruned: {}\n{metrics}\n",
        plan.indent(false),
        metrics.files_scanned,
        metrics.files_skipped,
        metrics.row_groups_pruned
    ));
    text
}

fn statement_kind(plan: &LogicalPlan) -> String {
    plan.display().to_string().split_whitespace().next().unwrap_or_default().to_uppercase()
}

fn setup_error(error: &DataFusionError) -> QueryError {
    QueryError::Setup { message: plain_message(error) }
}

#[cfg(test)]
mod hostile_tests;
#[cfg(test)]
mod tests;
