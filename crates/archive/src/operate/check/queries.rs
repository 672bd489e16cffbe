//! The query, error and performance patterns, asked of the table.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use tracelake_model::{Clock as _, SystemClock};
use tracelake_query::analyses::{self, TimeRange};
use tracelake_query::{LakeTables, QueryEngine, QueryError, QueryLimits, QueryOptions};

use super::{Checker, Finding, Judged, READABLE, ServiceState, units};
use crate::ask::uncommitted::RunningService;

/// How long one pattern may take.
const TIME_LIMIT: Duration = Duration::from_secs(30);

/// Rows that one pattern is asked for.
const ROWS: u64 = 100;

impl Checker<'_> {
    /// Asks the three patterns, over the last 24 hours as the commands do.
    pub(super) async fn query_items(&self, state: &ServiceState, lines: &mut Judged) {
        let table = &self.request.table;
        let range = TimeRange::last_24_hours(SystemClock.now_unix_micro());
        let patterns = [
            ("query pattern", analyses::traces(table, range, Some(ROWS))),
            ("error pattern", analyses::errors(table, range, Some(ROWS))),
            ("performance pattern", analyses::performance(table, range, Some(ROWS))),
        ];
        let blocked = lines.blocked_by(&READABLE);
        let engine = self.engine(state);
        for (item, analysis) in patterns {
            let finding = match (&blocked, &engine) {
                (Some(skipped), _) => skipped.clone(),
                (None, Err(error)) => failed(error),
                (None, Ok(engine)) => ask(engine, &analysis.sql).await,
            };
            lines.add(item, finding);
        }
    }

    /// The engine of the commands, on the service that was looked at and no other.
    pub(super) fn engine(&self, state: &ServiceState) -> Result<QueryEngine, QueryError> {
        let mut tables = LakeTables::new(self.lake.clone(), self.folder.clone());
        if let ServiceState::Running(running) = state {
            tables = tables.with_pending(Arc::new(RunningService(running.server.clone())));
        }
        let limits = QueryLimits { time: TIME_LIMIT, ..QueryLimits::default() };
        QueryEngine::new(Arc::new(tables), limits)
    }
}

async fn ask(engine: &QueryEngine, sql: &str) -> Finding {
    let begun = Instant::now();
    match engine.query(sql, &QueryOptions::default()).await {
        Ok(output) => {
            let rows: usize = output.batches.iter().map(RecordBatch::num_rows).sum();
            let took = units::duration(begun.elapsed());
            Finding::ok(format!("{} of the last 24 hours in {took}", units::count(rows, "row")))
        }
        Err(error) => failed(&error),
    }
}

fn failed(error: &QueryError) -> Finding {
    let hint = error.hint();
    let usual = "`tracelake sql` with a narrower question shows where it breaks";
    Finding::failed(error.to_string(), hint.unwrap_or_else(|| usual.to_owned()))
}
