//! Which table a trace belongs to when its pieces came under different bindings.
//!
//! A trace stays where it is archived: its late pieces follow it there, whatever is bound by then and
//! whichever experiment they name. So each table is asked, once an epoch. One that no binding of the experiment
//! leads to and that cannot be read now, or whose traces are more than its index holds, holds up nothing but
//! deletions: what is archived there alone may get a second row then.
//! A trace that is nowhere goes to the table that it came for, or, when that is a default table
//! and the experiment was bound since with its earlier traces, to the table of the binding.
//! While a move is under way a trace may be in two tables; then it is changed in the one that it
//! belongs to, whose word stands when the move goes on, and deleted in both.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use tracelake_lake::TraceDraft;
use tracelake_model::{ExperimentId, TableName, TraceId};
use tracelake_registry::ExperimentRoute;
use tracing::warn;

use super::Pipeline;

/// Where the traces of an experiment may be.
struct Homes {
    /// Tables that may have the trace, those that it belongs to first.
    tables: Vec<TableName>,
    /// Default tables, whose traces follow the binding.
    moved_from: Vec<TableName>,
    /// The table of the binding, or the default table.
    home: TableName,
    /// All other tables: services that take part in a trace may name different experiments.
    elsewhere: Vec<TableName>,
}

impl Homes {
    fn new(route: &ExperimentRoute, default: &TableName) -> Self {
        let home = route.table.clone().unwrap_or_else(|| default.clone());
        let (defaults, bound): (Vec<_>, Vec<_>) =
            route.past.iter().partition(|past| past.was_default);
        let names = |past: Vec<&tracelake_registry::PastTable>| -> Vec<TableName> {
            past.into_iter().map(|past| past.name.clone()).collect()
        };
        let (defaults, bound) = (names(defaults), names(bound));
        let mut tables = vec![home.clone()];
        for table in bound.into_iter().chain(defaults.clone()) {
            if !tables.contains(&table) {
                tables.push(table);
            }
        }
        let moved_from = if route.moves_earlier { defaults } else { Vec::new() };
        Self { tables, moved_from, home, elsewhere: Vec::new() }
    }

    /// Of what names no experiment.
    fn only(table: &TableName) -> Self {
        let home = table.clone();
        Self { tables: vec![home.clone()], moved_from: Vec::new(), home, elsewhere: Vec::new() }
    }

    /// The first of the other tables that did not say what it has.
    fn all_answered(&self, everywhere: &Everywhere) -> Result<(), (TableName, String)> {
        let silent = self.elsewhere.iter().find_map(|table| {
            let error = everywhere.get(table)?.as_ref().err()?;
            Some((table.clone(), error.clone()))
        });
        silent.map_or(Ok(()), Err)
    }

    fn with_others(mut self, known: &[TableName], came_for: &TableName) -> Self {
        let is_other = |table: &&TableName| *table != came_for && !self.tables.contains(table);
        self.elsewhere = known.iter().filter(is_other).cloned().collect();
        self
    }
}

/// Which of the traces that settled each table has, or why that is not known.
type Everywhere = BTreeMap<TableName, Result<HashSet<TraceId>, String>>;

/// What is known when some traces are placed.
struct Known<'a> {
    homes: Homes,
    everywhere: &'a Everywhere,
    /// Whether a table may be written now.
    ready: &'a dyn Fn(&TableName) -> bool,
}

/// Settled traces, each for the table that it belongs to.
#[derive(Debug, Default)]
pub(super) struct Placed {
    pub(super) traces: HashMap<TableName, Vec<TraceDraft>>,
    /// Tables that could not be asked for their traces, and why.
    pub(super) failed: BTreeMap<TableName, String>,
}

impl Pipeline {
    /// Sends every settled trace to the table that it belongs to. What cannot be told now, and
    /// what belongs to a table that cannot be written now, is open again.
    pub(super) fn place(
        &mut self,
        settled: HashMap<TableName, Vec<TraceDraft>>,
        ready: &dyn Fn(&TableName) -> bool,
    ) -> Placed {
        let mut placed = Placed::default();
        let known = self.handle.block_on(self.stores.registry.tables());
        let known = known.map(|tables| tables.into_iter().map(|table| table.name).collect());
        let known: Result<Vec<TableName>, String> = known.map_err(|error| error.to_string());
        let everywhere = self.everywhere(&settled, known.as_deref().unwrap_or_default(), ready);
        for (came_for, traces) in settled {
            let mut by_experiment: HashMap<Option<ExperimentId>, Vec<TraceDraft>> = HashMap::new();
            for trace in traces {
                by_experiment.entry(trace.experiment_id.clone()).or_default().push(trace);
            }
            for (experiment, traces) in by_experiment {
                let homes = self.homes(experiment.as_ref()).and_then(|homes| {
                    let homes = homes.unwrap_or_else(|| Homes::only(&came_for));
                    Ok(homes.with_others(known.as_ref().map_err(String::clone)?, &came_for))
                });
                match homes {
                    Ok(homes) => {
                        let known = Known { homes, everywhere: &everywhere, ready };
                        self.place_some(&came_for, traces, &known, &mut placed);
                    }
                    Err(error) => {
                        warn!(%came_for, error, "bindings not read, traces wait");
                        for trace in traces {
                            self.assembler.put_back(&came_for, trace, false);
                        }
                        placed.failed.insert(came_for.clone(), error);
                    }
                }
            }
        }
        for traces in placed.traces.values_mut() {
            // The same order on every run.
            traces.sort_unstable_by_key(|trace| trace.trace_id);
        }
        placed
    }

    fn homes(&self, experiment: Option<&ExperimentId>) -> Result<Option<Homes>, String> {
        let Some(experiment) = experiment else { return Ok(None) };
        let registry = Arc::clone(&self.stores.registry);
        let route = self.handle.block_on(registry.experiment_route(experiment));
        let route = route.map_err(|error| error.to_string())?;
        Ok(route.map(|route| Homes::new(&route, &self.default_table)))
    }

    fn place_some(
        &mut self,
        came_for: &TableName,
        traces: Vec<TraceDraft>,
        known: &Known<'_>,
        placed: &mut Placed,
    ) {
        let Known { homes, everywhere, ready } = known;
        let mut others = homes.tables.iter().chain(&homes.elsewhere);
        if others.all(|table| table == came_for) {
            // There is one table that it can be in.
            placed.traces.entry(came_for.clone()).or_default().extend(traces);
            return;
        }
        let archived = match self.archived_in(&traces, came_for, homes, everywhere) {
            Ok(archived) => archived,
            Err((table, error)) => {
                warn!(%table, error, "cannot tell where traces belong, they wait");
                for trace in traces {
                    self.assembler.put_back(came_for, trace, false);
                }
                placed.failed.insert(table, error);
                return;
            }
        };
        let home = if homes.moved_from.contains(came_for) { &homes.home } else { came_for };
        for trace in traces {
            let tables = archived.get(&trace.trace_id).map(Vec::as_slice).unwrap_or_default();
            let (first, rest) = tables.split_first().map_or((home, tables), |(f, r)| (f, r));
            if trace.replaces
                && let Err((table, error)) = homes
                    .all_answered(everywhere)
                    .and_then(|()| self.delete_from(rest, trace.trace_id))
            {
                // A deletion holds for all its rows: it is tried again as a whole.
                warn!(%table, error, "trace not deleted from every table, it waits");
                self.assembler.put_back(came_for, trace, false);
                placed.failed.insert(table, error);
                continue;
            }
            if first == came_for || ready(first) {
                placed.traces.entry(first.clone()).or_default().push(trace);
            } else {
                self.assembler.put_back(first, trace, false);
            }
        }
    }

    /// Deletes the rows that a trace has beside the one in its own table.
    fn delete_from(
        &mut self,
        tables: &[TableName],
        trace_id: TraceId,
    ) -> Result<(), (TableName, String)> {
        let gone = HashSet::from([trace_id]);
        for table in tables {
            self.writers
                .guarded(table, |writer| writer.delete_traces(&gone))
                .map_err(|error| (table.clone(), error.to_string()))?;
        }
        Ok(())
    }

    /// The tables that have each trace, those that it belongs to first.
    fn archived_in(
        &mut self,
        traces: &[TraceDraft],
        came_for: &TableName,
        homes: &Homes,
        everywhere: &Everywhere,
    ) -> Result<HashMap<TraceId, Vec<TableName>>, (TableName, String)> {
        let wanted: HashSet<TraceId> = traces.iter().map(|trace| trace.trace_id).collect();
        let mut archived: HashMap<TraceId, Vec<TableName>> = HashMap::new();
        let beside = (!homes.tables.contains(came_for)).then_some(came_for);
        for table in homes.tables.iter().chain(beside) {
            let found = match self.writers.existing(table).map(|writer| writer.is_some()) {
                Ok(true) => self.writers.guarded(table, |writer| writer.archived(&wanted)),
                Ok(false) => continue,
                Err(error) => Err(error),
            };
            let found = found.map_err(|error| (table.clone(), error.to_string()))?;
            for trace_id in found {
                archived.entry(trace_id).or_default().push(table.clone());
            }
        }
        for table in &homes.elsewhere {
            let Some(Ok(found)) = everywhere.get(table) else { continue };
            for trace in traces.iter().filter(|trace| found.contains(&trace.trace_id)) {
                archived.entry(trace.trace_id).or_default().push(table.clone());
            }
        }
        Ok(archived)
    }

    /// What each of several tables has of all that settled: each is asked once, and one that does not answer is
    /// left alone for a while.
    fn everywhere(
        &mut self,
        settled: &HashMap<TableName, Vec<TraceDraft>>,
        tables: &[TableName],
        ready: &dyn Fn(&TableName) -> bool,
    ) -> Everywhere {
        let wanted: HashSet<TraceId> =
            settled.values().flatten().map(|trace| trace.trace_id).collect();
        if tables.len() < 2 || wanted.is_empty() {
            return Everywhere::new();
        }
        let mut everywhere = Everywhere::new();
        for table in tables {
            let found = match ready(table) {
                true => self.writers.known_of(table, &wanted).map_err(|error| {
                    let error = error.to_string();
                    warn!(%table, error, "not known which traces it has");
                    self.blocked.block(table, self.clock.monotonic_nano(), error.clone());
                    error
                }),
                false => Err("the table cannot be read now".to_owned()),
            };
            let now = self.clock.monotonic_nano();
            let is_in_doubt = self.doubts.tables().any(|doubtful| doubtful == table);
            if found.is_ok()
                && !settled.contains_key(table)
                && !is_in_doubt
                && self.blocked.is_ready(table, now)
            {
                // What it was left alone for is over, and no commit of this epoch would say so.
                self.blocked.release(table);
            }
            everywhere.insert(table.clone(), found);
        }
        everywhere
    }
}
