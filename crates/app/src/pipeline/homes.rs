//! Which table a trace belongs to when its pieces came under different bindings.
//!
//! A trace stays where it is archived: its late pieces follow it there, whatever is bound by then.
//! Pieces that came before an experiment was bound, and are not archived, follow the binding if
//! earlier traces do.
//!
//! A piece that is sent on leaves the epoch of the table that it came for, and is in carry `k` as
//! one of the other table. So that a recovery takes it from there, the other table has epoch `k`
//! before the first one does, if need be by a version with nothing but the transaction id; a
//! table whose pieces cannot be handed over like that keeps its traces for a later epoch.

use std::collections::{BTreeSet, HashMap, HashSet};

use tracelake_lake::{LakeError, TraceDraft};
use tracelake_model::{ExperimentId, TableName, TraceId};
use tracelake_registry::ExperimentRoute;
use tracing::warn;

use super::Pipeline;

/// Where the traces of an experiment may be beside the table that a piece came for.
struct Homes {
    /// Tables that may have the trace already.
    elsewhere: Vec<TableName>,
    /// The table for pieces of traces that are nowhere.
    moved_to: Option<TableName>,
}

impl Homes {
    fn new(route: &ExperimentRoute, came_for: &TableName, default: &TableName) -> Self {
        let home = route.table.as_ref().unwrap_or(default);
        let is_home = home == came_for;
        let mut elsewhere: Vec<TableName> = route
            .past
            .iter()
            // What a default table has of it is on its way here.
            .filter(|past| !(past.was_default && is_home && route.moves_earlier))
            .map(|past| past.name.clone())
            .chain([home.clone()])
            .filter(|table| table != came_for)
            .collect();
        elsewhere.sort_unstable();
        elsewhere.dedup();
        let from_default = route.past.iter().any(|past| past.was_default && past.name == *came_for);
        let moves = route.moves_earlier && !is_home && from_default;
        Self { elsewhere, moved_to: moves.then(|| home.clone()) }
    }
}

impl Pipeline {
    /// Takes pieces that belong to another table out of `settled` and opens them for that one.
    /// Returns the tables that got any.
    pub(super) fn rehome(
        &mut self,
        settled: &mut HashMap<TableName, Vec<TraceDraft>>,
    ) -> BTreeSet<TableName> {
        let taken: HashSet<(TableName, TraceId)> = settled
            .iter()
            .flat_map(|(table, traces)| traces.iter().map(|t| (table.clone(), t.trace_id)))
            .collect();
        let mut homes_of_rehomed = BTreeSet::new();
        let mut rehomed = Vec::new();
        for (table, traces) in settled.iter_mut() {
            let experiments: HashSet<ExperimentId> =
                traces.iter().filter_map(|trace| trace.experiment_id.clone()).collect();
            for experiment in experiments {
                let Some(homes) = self.homes(&experiment, table) else { continue };
                if homes.elsewhere.is_empty() {
                    continue;
                }
                let (candidates, others) = std::mem::take(traces)
                    .into_iter()
                    .partition(|trace| trace.experiment_id.as_ref() == Some(&experiment));
                *traces = others;
                let candidates: Vec<TraceDraft> = candidates;
                match self.destinations(&candidates, table, &homes, &taken) {
                    Ok(destinations) => {
                        for trace in candidates {
                            match destinations.get(&trace.trace_id) {
                                Some(to) => {
                                    homes_of_rehomed.insert(to.clone());
                                    rehomed.push((to.clone(), trace));
                                }
                                None => traces.push(trace),
                            }
                        }
                    }
                    Err(error) => {
                        // Wherever they belong, they are kept: they settle again.
                        warn!(%table, %error, "cannot tell where traces belong, trying again");
                        let back = candidates.into_iter().map(|trace| (table.clone(), trace));
                        rehomed.extend(back);
                    }
                }
            }
            traces.sort_unstable_by_key(|trace| trace.trace_id);
        }
        for (table, trace) in rehomed {
            self.assembler.put_back(&table, trace, false);
        }
        homes_of_rehomed
    }

    fn homes(&self, experiment: &ExperimentId, came_for: &TableName) -> Option<Homes> {
        let registry = std::sync::Arc::clone(&self.archive.registry);
        match self.handle.block_on(registry.experiment_route(experiment)) {
            Ok(route) => route.map(|route| Homes::new(&route, came_for, &self.default_table)),
            Err(error) => {
                warn!(%experiment, %error, "bindings not read, traces stay where they came for");
                None
            }
        }
    }

    /// The traces that belong to another table than `came_for`, and which.
    fn destinations(
        &mut self,
        traces: &[TraceDraft],
        came_for: &TableName,
        homes: &Homes,
        taken: &HashSet<(TableName, TraceId)>,
    ) -> Result<HashMap<TraceId, TableName>, LakeError> {
        let mut open: BTreeSet<TraceId> = traces.iter().map(|trace| trace.trace_id).collect();
        let wanted: HashSet<TraceId> = open.iter().copied().collect();
        if let Some(writer) = self.writers.existing(came_for)? {
            for archived in writer.archived(&wanted)? {
                open.remove(&archived);
            }
        }
        let mut destinations = HashMap::new();
        for table in &homes.elsewhere {
            if let Some(writer) = self.writers.existing(table)? {
                for archived in writer.archived(&wanted)? {
                    if open.remove(&archived) {
                        destinations.insert(archived, table.clone());
                    }
                }
            }
        }
        for trace_id in open {
            // Open or settling for both: both pieces come to the same decision.
            let is_open = |table: &&TableName| {
                self.assembler.is_open(table, trace_id)
                    || taken.contains(&((*table).clone(), trace_id))
            };
            let first = homes.elsewhere.iter().filter(|table| *table < came_for).find(is_open);
            if let Some(table) = first.or(homes.moved_to.as_ref()) {
                destinations.insert(trace_id, table.clone());
            }
        }
        Ok(destinations)
    }
}
