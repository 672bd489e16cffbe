//! Single traces as they are, for clients that read or change them.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use tracelake_lake::{TraceDraft, current_trace};
use tracelake_model::{TableName, TraceId};

use super::Pipeline;

/// Bytes of spans that are read of a trace in several rows: an answer takes several times as much memory.
const TRACE_BYTES: usize = 32 << 20;

/// A trace as it is: its row with every acknowledged change, or what is not archived yet.
#[derive(Clone, Debug)]
pub struct Found {
    /// The table that changes to it go to.
    pub table: TableName,
    /// All that is known of it; of a trace in several rows the spans that come first.
    pub draft: TraceDraft,
    /// Why it cannot be changed any more; `None` when it can.
    pub fixed: Option<String>,
}

impl Pipeline {
    /// Those of `traces` that there are, each from all its rows and what is open of it. A change
    /// to one is for the table named: it joins what is open of the trace, whatever that came for.
    ///
    /// # Errors
    /// When a table cannot be read that may have one of them.
    pub(super) fn find(&mut self, traces: &[TraceId]) -> Result<Vec<Found>, String> {
        self.resolve_doubts(&|_| true);
        let wanted: HashSet<TraceId> = traces.iter().copied().collect();
        let mut pieces = self.assembler.pieces(&wanted);
        let registry = Arc::clone(&self.stores.registry);
        let known = self.handle.block_on(registry.tables()).map_err(|error| error.to_string())?;
        let mut tables: BTreeSet<TableName> = known.into_iter().map(|table| table.name).collect();
        tables.extend(pieces.values().map(|(table, _)| table.clone()));
        let mut rows: HashMap<TraceId, Vec<(TableName, TraceDraft)>> = HashMap::new();
        let mut unread = None;
        let mut append_only: HashSet<TableName> = HashSet::new();
        for table in tables {
            let read = match self.writers.existing(&table) {
                Ok(Some(_)) => {
                    self.writers.guarded(&table, |writer| writer.read(&wanted, TRACE_BYTES))
                }
                Ok(None) => continue,
                Err(error) => Err(error),
            };
            match read {
                Ok(read) => {
                    if self.writers.get(&table).is_ok_and(|w| w.snapshot().is_append_only()) {
                        append_only.insert(table.clone());
                    }
                    for (trace_id, draft) in read {
                        rows.entry(trace_id).or_default().push((table.clone(), draft));
                    }
                }
                // It matters only for traces that are found nowhere else.
                Err(error) => unread = Some(format!("table `{table}`: {error}")),
            }
        }
        let now = self.clock.now_unix_micro();
        let mut found = Vec::new();
        for trace_id in wanted {
            let mut archived = rows.remove(&trace_id).unwrap_or_default();
            // Older ones first; what a default table has is older than where it moved to.
            archived.sort_by_key(|(table, row)| {
                (*table != self.default_table, row.updated_at_micros, row.revision)
            });
            let piece = pieces.remove(&trace_id);
            if let (true, None, Some(reason)) = (archived.is_empty(), &piece, &unread) {
                return Err(reason.clone());
            }
            let fixed = archived.iter().find(|(table, _)| append_only.contains(table));
            let fixed = fixed.map(|(table, _)| {
                format!("table `{table}` takes new rows alone (`delta.appendOnly`)")
            });
            let table = archived.last().map(|(table, _)| table.clone());
            let Some(table) = table.or_else(|| piece.as_ref().map(|(table, _)| table.clone()))
            else {
                continue;
            };
            let piece = piece.map(|(_, piece)| TraceDraft {
                created_at_micros: now,
                updated_at_micros: now,
                ..piece
            });
            let rows = archived.into_iter().map(|(_, row)| row).collect();
            if let Some(draft) = current_trace(rows, piece) {
                found.push(Found { table, draft, fixed });
            }
        }
        Ok(found)
    }
}
