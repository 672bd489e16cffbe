//! What intake asks of the archived and open traces when a client changes or reads one.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::{Mutex, OwnedMutexGuard};
use tracelake_decode::{Route, SpanRecord};
use tracelake_model::{ExperimentId, TraceId, TraceInfo};

/// Why the traces could not be asked.
#[derive(Debug, thiserror::Error)]
#[error("{reason}")]
pub struct TraceStoreError {
    /// What went wrong, for the log and the client.
    pub reason: String,
}

/// A trace as it is: its row with every acknowledged change, or what is not archived yet.
#[derive(Clone, Debug)]
pub struct FoundTrace {
    /// Experiment and table that the trace belongs to: where changes to it go.
    pub route: Route,
    /// All that is known of it, with what its spans say by themselves.
    pub info: TraceInfo,
    /// Its spans; of a trace too large for one answer those that come first.
    pub spans: Vec<SpanRecord>,
    /// Number of the others.
    pub left_out: u64,
    /// Why it cannot be changed any more; `None` when it can.
    pub fixed: Option<String>,
}

/// The traces of this archive. Every answer has in it all that was acknowledged before the call.
#[async_trait]
pub trait TraceStore: fmt::Debug + Send + Sync {
    /// Those of `traces` that there are.
    async fn find(&self, traces: &[TraceId]) -> Result<Vec<FoundTrace>, TraceStoreError>;

    /// Ids of the traces of an experiment whose request time is at or before `until_unix_milli`,
    /// oldest first, then by id; `limit` of them at the most.
    async fn older_than(
        &self,
        experiment_id: &ExperimentId,
        until_unix_milli: i64,
        limit: usize,
    ) -> Result<Vec<TraceId>, TraceStoreError>;
}

/// Locks for read-modify-write on traces, striped by id: two calls on one trace take turns.
#[derive(Debug)]
pub(crate) struct TraceLocks {
    stripes: Vec<Arc<Mutex<()>>>,
}

impl TraceLocks {
    const STRIPES: u8 = 64;

    pub(crate) fn new() -> Self {
        Self { stripes: (0..Self::STRIPES).map(|_| Arc::default()).collect() }
    }

    /// Locks `traces`. Stripes are taken in ascending order, so that no two calls wait for each
    /// other.
    pub(crate) async fn lock(&self, traces: &[TraceId]) -> Vec<OwnedMutexGuard<()>> {
        let mut wanted: Vec<u8> = traces.iter().map(|trace| trace.0[15] % Self::STRIPES).collect();
        wanted.sort_unstable();
        wanted.dedup();
        let mut held = Vec::with_capacity(wanted.len());
        for stripe in wanted {
            if let Some(stripe) = self.stripes.get(usize::from(stripe)) {
                held.push(Arc::clone(stripe).lock_owned().await);
            }
        }
        held
    }
}
