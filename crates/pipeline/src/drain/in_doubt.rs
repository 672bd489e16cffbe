//! Epochs of which it is not known whether a table has them: the commit failed in a way that may
//! have happened all the same, and the table cannot be asked.
//!
//! Their traces are kept apart until the table answers. Until then no epoch is noted as done, so
//! that the journal keeps them too, and the table gets no other epoch.

use std::collections::{BTreeMap, HashMap, HashSet};

use tracelake_journal::SegmentNumber;
use tracelake_lake::{EpochMark, TraceDraft};
use tracelake_model::{TableName, TraceId};
use tracing::{info, warn};

use super::Pipeline;
use super::plans::PlannedTable;

/// The traces in doubt.
#[derive(Debug, Default)]
pub(super) struct Doubts {
    epochs: Vec<Doubt>,
}

#[derive(Debug)]
pub(super) struct Doubt {
    pub(super) table: TableName,
    pub(super) epoch: SegmentNumber,
    pub(super) mark: EpochMark,
    /// The older pieces of a trace first.
    pub(super) traces: Vec<TraceDraft>,
}

impl Doubts {
    pub(super) fn is_empty(&self) -> bool {
        self.epochs.is_empty()
    }

    pub(super) fn add(&mut self, doubt: Doubt) {
        self.epochs.push(doubt);
    }

    /// Keeps what an epoch in doubt may have brought to a table; drops what one brought for sure.
    pub(super) fn collect(
        &mut self,
        table: &TableName,
        epoch: SegmentNumber,
        traces: Vec<TraceDraft>,
    ) {
        let mut epochs = self.epochs.iter_mut();
        if let Some(doubt) = epochs.find(|doubt| doubt.epoch == epoch && doubt.table == *table) {
            doubt.traces.extend(traces);
        }
    }

    pub(super) fn tables(&self) -> impl Iterator<Item = &TableName> {
        self.epochs.iter().map(|doubt| &doubt.table)
    }

    /// Traces and bytes of each table.
    pub(super) fn by_table(&self) -> impl Iterator<Item = (&TableName, usize, usize)> {
        self.epochs.iter().map(|doubt| (&doubt.table, doubt.traces.len(), doubt.bytes()))
    }

    pub(super) fn bytes(&self) -> usize {
        self.epochs.iter().map(Doubt::bytes).sum()
    }

    pub(super) fn traces(&self) -> HashSet<TraceId> {
        self.epochs.iter().flat_map(|doubt| &doubt.traces).map(|trace| trace.trace_id).collect()
    }
}

impl Doubt {
    fn bytes(&self) -> usize {
        let spans = self.traces.iter().flat_map(|trace| &trace.spans);
        spans.map(tracelake_decode::SpanRecord::weight_bytes).sum()
    }
}

impl Pipeline {
    /// Whether a table has a planned epoch, or may have: where it cannot be asked now, the epoch is in
    /// doubt, and takes no other traces until they are collected.
    pub(super) fn may_have_planned(
        &mut self,
        epoch: SegmentNumber,
        table: &TableName,
        planned: &PlannedTable,
    ) -> bool {
        if self.broken.leaves_out_txn() {
            return false;
        }
        let mark = planned.mark(epoch);
        if !self.doubts.tables().any(|doubtful| doubtful == table) {
            match self.writers.has_epoch(table, &mark) {
                Ok(is_in) => return is_in,
                Err(fault) if self.mark.set_apart(table).is_some() => {
                    // It gets nothing in this life, and must not hold up the epochs of others. What it has is
                    // known by its content later.
                    warn!(%table, error = %fault, "not known whether an epoch is in");
                    return false;
                }
                Err(fault) => {
                    let now = self.clock.monotonic_nano();
                    self.blocked.block(table, now, fault.to_string());
                    warn!(%table, error = %fault, "not known yet whether an epoch is in");
                }
            }
        }
        self.doubts.add(Doubt { table: table.clone(), epoch, mark, traces: Vec::new() });
        true
    }

    /// Asks the tables that may be asked now. What is in is done with, the rest is open again.
    pub(super) fn resolve_doubts(&mut self, ready: &dyn Fn(&TableName) -> bool) {
        if self.doubts.is_empty() {
            return;
        }
        let mut doubts = std::mem::take(&mut self.doubts.epochs);
        // The youngest first: what is put back is older than what is there.
        doubts.sort_by_key(|doubt| std::cmp::Reverse(doubt.epoch));
        let mut silent = HashSet::new();
        for doubt in doubts {
            if !ready(&doubt.table) || silent.contains(&doubt.table) {
                self.doubts.add(doubt);
                continue;
            }
            match self.writers.settle_epoch(&doubt.table, &doubt.mark) {
                Ok(is_in) => {
                    let Doubt { table, epoch, traces, .. } = doubt;
                    info!(%table, epoch = epoch.get(), is_in, "epoch that was in doubt looked up");
                    if !is_in {
                        self.plans.strike(epoch, &table);
                        for trace in traces.into_iter().rev() {
                            self.assembler.put_back(&table, trace, false);
                        }
                    }
                }
                Err(fault) => {
                    let now = self.clock.monotonic_nano();
                    let wait = self.blocked.block(&doubt.table, now, fault.to_string());
                    warn!(table = %doubt.table, error = %fault, ?wait, "epoch stays in doubt");
                    silent.insert(doubt.table.clone());
                    self.doubts.add(doubt);
                }
            }
        }
    }

    /// Puts back what must wait for a doubt: all that is for its table, and younger pieces of its
    /// traces.
    pub(super) fn hold_back(
        &mut self,
        settled: &mut HashMap<TableName, Vec<TraceDraft>>,
        failed: &mut BTreeMap<TableName, String>,
    ) {
        if self.doubts.is_empty() {
            return;
        }
        let tables: HashSet<TableName> = self.doubts.tables().cloned().collect();
        let doubtful = self.doubts.traces();
        for (table, traces) in settled {
            let waits =
                |trace: &TraceDraft| tables.contains(table) || doubtful.contains(&trace.trace_id);
            let (waiting, free) = std::mem::take(traces).into_iter().partition(waits);
            *traces = free;
            let waiting: Vec<TraceDraft> = waiting;
            if !waiting.is_empty() && tables.contains(table) {
                // Why it cannot be asked was noted then.
                let mut blocked = self.blocked.reasons().filter(|(one, _)| *one == table);
                let fault =
                    blocked.next().map_or("its last commit is in doubt", |(_, fault)| fault);
                failed.entry(table.clone()).or_insert_with(|| fault.to_owned());
            }
            waiting.into_iter().for_each(|trace| self.assembler.put_back(table, trace, false));
        }
    }
}
