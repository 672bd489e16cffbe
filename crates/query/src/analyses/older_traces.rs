//! The oldest traces of an experiment, for their deletion.

use tracelake_model::{ExperimentId, TableName};

use super::timestamp_literal;

/// Ids of an experiment's traces whose request time is at or before `until_unix_milli`, and that
/// time in microseconds since the Unix epoch; oldest first, `limit` at the most. Times are taken
/// as whole milliseconds, as MLflow has them.
#[must_use]
pub fn older_traces(
    table: &TableName,
    experiment_id: &ExperimentId,
    until_unix_milli: i64,
    limit: usize,
) -> String {
    let until = until_unix_milli.saturating_mul(1_000).saturating_add(999);
    format!(
        "SELECT trace_id, arrow_cast(trace_info['timestamp'], 'Int64') AS request_time_micros \
         FROM {} WHERE part IS NULL AND experiment_id = '{experiment_id}' AND trace_info['timestamp'] <= {} \
         ORDER BY request_time_micros, trace_id LIMIT {limit}",
        table.to_sql(),
        timestamp_literal(until),
    )
}
