//! The traces of a running service, for clients that read or change them.

use std::sync::Arc;

use arrow::array::AsArray;
use async_trait::async_trait;
use tracelake_decode::Route;
use tracelake_intake::{FoundTrace, TraceStore, TraceStoreError};
use tracelake_lake::{DataFolder, Lake, TraceDraft};
use tracelake_model::{ExperimentId, TableName, TraceId};
use tracelake_pipeline::{Found, PipelineHandle};
use tracelake_query::{
    LakeTables, QueryEngine, QueryLimits, QueryOptions, TableResolver, analyses,
};
use tracelake_registry::Registry;

use crate::ask::uncommitted::OwnPipeline;

/// Metadata of a trace in an answer: how many of its spans are not in it.
const LEFT_OUT_KEY: &str = "tracelake.spansLeftOut";

/// The trace as clients see it. One that is not whole says so in its metadata.
pub(crate) fn found_trace(table: TableName, draft: TraceDraft) -> FoundTrace {
    let (mut info, spans) = (draft.full_info(), draft.spans_in_order());
    let left_out = draft.all_spans().saturating_sub(spans.len() as u64);
    if 0 < left_out {
        info.trace_metadata.insert(LEFT_OUT_KEY.to_owned(), left_out.to_string());
    }
    let experiment_id = draft.experiment_id.unwrap_or_else(ExperimentId::default_experiment);
    let route = Route { experiment_id, table };
    FoundTrace { route, info, spans, left_out, fixed: None }
}

/// Asks the pipeline for single traces, and the tables with the uncommitted rows for many.
#[derive(Debug)]
pub(crate) struct ServiceTraces {
    pub folder: DataFolder,
    pub lake: Lake,
    pub registry: Arc<Registry>,
    pub pipeline: PipelineHandle,
}

#[async_trait]
impl TraceStore for ServiceTraces {
    async fn find(&self, traces: &[TraceId]) -> Result<Vec<FoundTrace>, TraceStoreError> {
        let fault = |reason: String| TraceStoreError { reason };
        let found = self.pipeline.find(traces.to_vec()).await.map_err(fault)?;
        let see = |Found { table, draft, fixed }| FoundTrace { fixed, ..found_trace(table, draft) };
        // A large trace takes a while.
        let seen = tokio::task::spawn_blocking(move || found.into_iter().map(see).collect());
        seen.await.map_err(|error| fault(error.to_string()))
    }

    async fn older_than(
        &self,
        experiment_id: &ExperimentId,
        until_unix_milli: i64,
        limit: usize,
    ) -> Result<Vec<TraceId>, TraceStoreError> {
        let fault = |reason: String| TraceStoreError { reason };
        let known = self.registry.tables().await.map_err(|error| fault(error.to_string()))?;
        let pending = OwnPipeline(self.pipeline.clone());
        let tables = Arc::new(
            LakeTables::new(self.lake.clone(), self.folder.clone()).with_pending(Arc::new(pending)),
        );
        let resolver: Arc<dyn TableResolver> = Arc::<LakeTables>::clone(&tables);
        let engine = QueryEngine::new(resolver, QueryLimits::default())
            .map_err(|error| fault(error.to_string()))?;
        let mut found: Vec<(i64, TraceId)> = Vec::new();
        for table in known {
            // Registered tables that nothing was ever written to are not there.
            let there = tables.resolve(&table.name).await;
            if there.map_err(|error| fault(error.to_string()))?.is_none() {
                continue;
            }
            let sql = analyses::older_traces(&table.name, experiment_id, until_unix_milli, limit);
            let output = engine
                .query(&sql, &QueryOptions::default())
                .await
                .map_err(|error| fault(error.to_string()))?;
            for batch in &output.batches {
                let ids = batch.column(0).as_string::<i32>();
                let times = batch.column(1).as_primitive::<arrow::datatypes::Int64Type>();
                let rows = ids.iter().flatten().zip(times.iter().flatten());
                found.extend(rows.filter_map(|(id, time)| Some((time, TraceId::parse(id)?))));
            }
        }
        found.sort_unstable();
        found.dedup();
        found.truncate(limit);
        Ok(found.into_iter().map(|(_, trace)| trace).collect())
    }
}
