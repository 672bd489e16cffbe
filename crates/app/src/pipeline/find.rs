//! Single traces as they are, for clients that read or change them.

use std::collections::{BTreeSet, HashMap, HashSet};

use tracelake_decode::Route;
use tracelake_intake::FoundTrace;
use tracelake_lake::TraceDraft;
use tracelake_model::{ExperimentId, TableName, TraceId};

use super::Pipeline;

impl Pipeline {
    /// Those of `traces` that there are. One that is in two tables, for as long as a move takes,
    /// is answered once, from the table where it is archived.
    pub(super) fn find(&mut self, traces: &[TraceId]) -> Result<Vec<FoundTrace>, String> {
        let wanted: HashSet<TraceId> = traces.iter().copied().collect();
        let mut pieces = self.assembler.pieces(&wanted);
        let registry = std::sync::Arc::clone(&self.archive.registry);
        let known = self.handle.block_on(registry.tables()).map_err(|error| error.to_string())?;
        let mut tables: BTreeSet<TableName> = known.into_iter().map(|table| table.name).collect();
        tables.extend(pieces.keys().cloned());
        let mut found: HashMap<TraceId, (bool, FoundTrace)> = HashMap::new();
        for table in tables {
            let open = pieces.remove(&table).unwrap_or_default();
            for (archived, draft) in self.read(&table, &wanted, open)? {
                let trace_id = draft.trace_id;
                let is_better = found.get(&trace_id).is_none_or(|(known, _)| !known && archived);
                if is_better {
                    found.insert(trace_id, (archived, found_trace(&table, draft)));
                }
            }
        }
        Ok(found.into_values().map(|(_, trace)| trace).collect())
    }

    /// The traces of one table, and whether each is archived there.
    fn read(
        &mut self,
        table: &TableName,
        wanted: &HashSet<TraceId>,
        mut open: Vec<TraceDraft>,
    ) -> Result<Vec<(bool, TraceDraft)>, String> {
        let now = self.clock.now_unix_micro();
        for piece in &mut open {
            piece.created_at_micros = now;
            piece.updated_at_micros = now;
        }
        let exists = self.writers.existing(table).map_err(|error| error.to_string())?.is_some();
        if !exists {
            let alone = open.into_iter().filter(|piece| !piece.is_blank());
            return Ok(alone.map(|piece| (false, piece)).collect());
        }
        let read = self.writers.guarded(table, |writer| {
            let archived = writer.archived(wanted)?;
            let traces = writer.read(wanted, &open)?;
            Ok(traces.into_iter().map(|t| (archived.contains(&t.trace_id), t)).collect())
        });
        read.map_err(|error| error.to_string())
    }
}

fn found_trace(table: &TableName, draft: TraceDraft) -> FoundTrace {
    let info = draft.full_info();
    let experiment_id = draft.experiment_id.unwrap_or_else(ExperimentId::default_experiment);
    FoundTrace { route: Route { experiment_id, table: table.clone() }, info, spans: draft.spans }
}
