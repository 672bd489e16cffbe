//! The traces of a running service, for clients that read or change them.

use std::sync::Arc;

use arrow::array::AsArray;
use async_trait::async_trait;
use tokio::sync::{mpsc, oneshot};
use tracelake_intake::{FoundTrace, TraceStore, TraceStoreError};
use tracelake_lake::{DataFolder, Lake};
use tracelake_model::{ExperimentId, TraceId};
use tracelake_query::{
    LakeTables, QueryEngine, QueryLimits, QueryOptions, TableResolver, analyses,
};
use tracelake_registry::Registry;

use crate::pipeline::Command;
use crate::uncommitted::OwnPipeline;

/// Asks the pipeline for single traces, and the tables with the uncommitted rows for many.
#[derive(Debug)]
pub(crate) struct ServiceTraces {
    pub folder: DataFolder,
    pub lake: Lake,
    pub registry: Arc<Registry>,
    pub commands: mpsc::UnboundedSender<Command>,
}

#[async_trait]
impl TraceStore for ServiceTraces {
    async fn find(&self, traces: &[TraceId]) -> Result<Vec<FoundTrace>, TraceStoreError> {
        let gone = || TraceStoreError { reason: "the pipeline has ended".to_owned() };
        let (reply, answer) = oneshot::channel();
        self.commands.send(Command::Find(traces.to_vec(), reply)).map_err(|_| gone())?;
        let found = answer.await.map_err(|_| gone())?;
        found.map_err(|reason| TraceStoreError { reason })
    }

    async fn older_than(
        &self,
        experiment_id: &ExperimentId,
        until_unix_milli: i64,
        limit: usize,
    ) -> Result<Vec<TraceId>, TraceStoreError> {
        let fault = |reason: String| TraceStoreError { reason };
        let known = self.registry.tables().await.map_err(|error| fault(error.to_string()))?;
        let pending = OwnPipeline(self.commands.clone());
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
