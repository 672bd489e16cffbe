//! What a statement cost, read off its executed plan.

use std::fmt;

use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::metrics::MetricValue;

use crate::tables::ScanCounters;

/// What the scans of one statement read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScanMetrics {
    /// Bytes fetched from data files, footers that were not cached included.
    pub bytes_scanned: u64,
    /// Files handed to the Parquet reader.
    pub files_scanned: u64,
    /// Files that the table's log alone ruled out.
    pub files_skipped: u64,
    /// Row groups ruled out by statistics, bloom filters or a limit.
    pub row_groups_pruned: u64,
    /// Bytes of all live files of the tables that the statement scans.
    pub table_bytes: u64,
}

impl fmt::Display for ScanMetrics {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "bytes scanned: {} of {}", self.bytes_scanned, self.table_bytes)?;
        // In hundredths of a percent, rounded up, so that nothing read at all shows as 0.00 only.
        let hundredths =
            (u128::from(self.bytes_scanned) * 10_000).div_ceil(u128::from(self.table_bytes.max(1)));
        write!(formatter, " ({}.{:02} %)", hundredths / 100, hundredths % 100)
    }
}

pub(crate) fn scan_metrics(plan: &dyn ExecutionPlan, counters: &ScanCounters) -> ScanMetrics {
    let mut metrics = ScanMetrics {
        files_scanned: counters.files_scanned(),
        files_skipped: counters.files_skipped(),
        table_bytes: counters.table_bytes(),
        ..ScanMetrics::default()
    };
    add_plan(plan, &mut metrics);
    metrics
}

fn add_plan(plan: &dyn ExecutionPlan, metrics: &mut ScanMetrics) {
    if let Some(set) = plan.metrics() {
        for metric in set.iter() {
            match metric.value() {
                MetricValue::Count { name, count } if name == "bytes_scanned" => {
                    metrics.bytes_scanned += as_u64(count.value());
                }
                MetricValue::PruningMetrics { name, pruning_metrics }
                    if name.contains("row_groups") =>
                {
                    metrics.row_groups_pruned += as_u64(pruning_metrics.pruned());
                }
                _ => {}
            }
        }
    }
    for child in plan.children() {
        add_plan(child.as_ref(), metrics);
    }
}

fn as_u64(value: usize) -> u64 {
    u64::try_from(value).unwrap_or(u64::MAX)
}
