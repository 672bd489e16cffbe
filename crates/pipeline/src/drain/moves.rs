//! Moves of earlier traces to the table that their experiment was bound to.
//!
//! One batch at a time, between epochs: read from the source, merge into the target, delete from
//! the source. Dying between the last two leaves traces in both; the move still stands then, finds
//! them again, and merging what is in changes nothing, since what the target says of a trace
//! stands over what the source says. A move that is called off with traces in both ends with one
//! more pass, which takes those that are in the target out of the source.
//!
//! A trace in several rows is a batch for each row and one more, and requests come between:
//!
//! | durable step | the process dies before it | it dies after it |
//! |---|---|---|
//! | the target takes in a part, one after the other | the source is whole; the trace moves anew, and what the target has is left out by its content | the same |
//! | the target takes in the row of the trace | the same | the trace is whole in both; nothing more is taken in |
//! | one version deletes all of its rows from the source | the same | the trace is in the target alone |
//!
//! Parts say nothing of a trace but spans, so what clients said of it moves at once, with its row. A trace that
//! another writer changes or a client deletes between two batches is begun anew as what it is then.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use anyhow::ensure;
use tracelake_lake::{LargeMove, LocatedTraces, NextRow, TraceDraft};
use tracelake_model::{ExperimentId, TableName, TraceId};
use tracelake_registry::{Move, MoveState};
use tracing::{debug, info, warn};

use super::Pipeline;

/// How often the registry is asked for moves.
const CHECK_EVERY_NANO: u64 = 1_000_000_000;

/// Wait after a move failed; others go on meanwhile.
const WAIT_NANO: u64 = 5_000_000_000;

/// Traces in one batch.
const BATCH_TRACES: usize = 128;

/// Bytes of spans past which a batch is closed.
const BATCH_BYTES: usize = 32 << 20;

/// Data files that one batch is put together from.
const BATCH_FILES: usize = 32;

/// Experiment, source, target.
type Way = (ExperimentId, TableName, TableName);

fn way(one: &Move) -> Way {
    (one.experiment_id.clone(), one.source.clone(), one.target.clone())
}

/// The move at hand.
#[derive(Debug, Default)]
pub(super) struct Mover {
    next_check_nano: u64,
    running: Option<Running>,
    /// Moves that failed, and when they are tried again, by the monotonic clock.
    waits: HashMap<Way, u64>,
}

#[derive(Debug)]
struct Running {
    one: Move,
    /// Data files of the source that were not looked at in this pass.
    files: VecDeque<String>,
    /// Whether this pass moved anything: the move ends with a pass that does not.
    found: bool,
    /// Traces in several rows that were found.
    large: BTreeSet<TraceId>,
    /// One of them, on its way.
    on_its_way: Option<LargeMove>,
}

impl Pipeline {
    /// Moves one batch. Returns true when there is more to do at once.
    pub(super) fn step_moves(&mut self) -> bool {
        let now = self.clock.monotonic_nano();
        if self.mover.running.is_none() && now < self.mover.next_check_nano {
            return false;
        }
        self.mover.next_check_nano = now.saturating_add(CHECK_EVERY_NANO);
        let running = match self.next_move(now) {
            Ok(Some(running)) => running,
            Ok(None) => return false,
            Err(error) => {
                warn!(error = format!("{error:#}"), "moves not read");
                return false;
            }
        };
        let one = running.one.clone();
        if let Err(error) = self.move_batch(running) {
            let fault = format!("{error:#}");
            let Move { experiment_id, source, target, .. } = &one;
            warn!(%experiment_id, %source, %target, fault, "move of earlier traces waits");
            self.mover.waits.insert(way(&one), now.saturating_add(WAIT_NANO));
            let registry = Arc::clone(&self.stores.registry);
            if let Err(error) = self.handle.block_on(registry.note_move_fault(&one, &fault)) {
                warn!(%error, "fault of a move not noted");
            }
        }
        true
    }

    /// The move at hand, if it still stands, or the next one.
    fn next_move(&mut self, now: u64) -> anyhow::Result<Option<Running>> {
        let registry = Arc::clone(&self.stores.registry);
        let mut moves = self.handle.block_on(registry.moves(None))?;
        moves.retain(|one| one.state != MoveState::Done);
        self.mover.waits.retain(|_, until| now < *until);
        if let Some(running) = self.mover.running.take() {
            let stands = |one: &Move| one.is_same(&running.one) && one.state == running.one.state;
            if moves.iter().any(stands) {
                return Ok(Some(running));
            }
        }
        let next = moves.into_iter().find(|one| !self.mover.waits.contains_key(&way(one)));
        Ok(next.map(|one| Running {
            one,
            files: VecDeque::new(),
            found: true,
            large: BTreeSet::new(),
            on_its_way: None,
        }))
    }

    fn move_batch(&mut self, mut running: Running) -> anyhow::Result<()> {
        if self.move_large(&mut running)? {
            self.mover.running = Some(running);
            return Ok(());
        }
        if running.files.is_empty() {
            if !running.found {
                return self.end_move(&running.one);
            }
            running.files = self.source_files(&running.one)?;
            running.found = false;
        }
        let located = self.next_batch(&mut running)?;
        if !located.traces.is_empty() {
            running.found = true;
            let target = running.one.target.clone();
            self.writers.guarded(&target, |writer| writer.absorb(&located.traces))?;
            self.delete_moved(&running.one, &located)?;
        }
        self.mover.running = Some(running);
        Ok(())
    }

    /// Traces of one row each, from the next files; those of several rows are noted for later.
    fn next_batch(&mut self, running: &mut Running) -> anyhow::Result<LocatedTraces> {
        let Move { experiment_id, source, .. } = running.one.clone();
        let mut located = LocatedTraces::default();
        let mut bytes = 0;
        for _ in 0..BATCH_FILES {
            let Some(path) = running.files.front().cloned() else { break };
            let room = BATCH_TRACES.saturating_sub(located.traces.len());
            let found =
                self.writers.guarded(&source, |writer| writer.rows_of(&experiment_id, &path))?;
            let wanted = found.rows.iter().map(|(_, trace)| *trace).collect();
            let moving = self.are_to_move(&running.one, wanted)?;
            let rows = found.rows.into_iter().filter(|(_, trace)| {
                // Those that are known to be in several rows are not read again.
                moving.contains(trace) && !running.large.contains(trace)
            });
            let rows: Vec<u64> = rows.map(|(row, _)| row).collect();
            running.large.extend(found.parts_of);
            let is_rest = rows.len() <= room;
            let rows: Vec<u64> = rows.into_iter().take(room).collect();
            if !rows.is_empty() {
                let more = self.writers.guarded(&source, |writer| writer.locate(&path, &rows))?;
                running.large.extend(more.large.iter().copied());
                bytes += more.traces.iter().map(TraceDraft::spans_bytes).sum::<usize>();
                located.extend(more);
            }
            if !is_rest {
                break;
            }
            running.files.pop_front();
            if BATCH_BYTES <= bytes {
                break;
            }
        }
        Ok(located)
    }

    /// Which of the traces that were found in the source move: all, or, when the move was called off, those
    /// that are in the target.
    fn are_to_move(
        &mut self,
        one: &Move,
        wanted: HashSet<TraceId>,
    ) -> anyhow::Result<HashSet<TraceId>> {
        if one.state != MoveState::Cancelled {
            return Ok(wanted);
        }
        Ok(match self.writers.existing(&one.target)? {
            Some(writer) => writer.archived(&wanted)?,
            None => HashSet::new(),
        })
    }

    /// Moves one row of a trace in several. Returns false when there is no such trace.
    fn move_large(&mut self, running: &mut Running) -> anyhow::Result<bool> {
        let Move { experiment_id, source, target, .. } = running.one.clone();
        let mut large = match running.on_its_way.take() {
            Some(large) => large,
            None => {
                let Some(trace_id) = running.large.pop_first() else { return Ok(false) };
                if self.are_to_move(&running.one, HashSet::from([trace_id]))?.is_empty() {
                    return Ok(true);
                }
                let begun = self
                    .writers
                    .guarded(&source, |writer| writer.begin_move(&experiment_id, trace_id))?;
                let Some(large) = begun else { return Ok(true) };
                large
            }
        };
        running.found = true;
        match self.writers.guarded(&source, |writer| writer.next_row(&mut large))? {
            NextRow::Row(row) => {
                self.writers.guarded(&target, |writer| writer.absorb(&[*row]))?;
                running.on_its_way = Some(large);
            }
            NextRow::All(located) => self.delete_moved(&running.one, &located)?,
            NextRow::Changed => {}
        }
        Ok(true)
    }

    /// Deletes traces that the target has from the source.
    fn delete_moved(&mut self, one: &Move, located: &LocatedTraces) -> anyhow::Result<()> {
        let Move { experiment_id, source, target, .. } = one;
        let moved = self.writers.guarded(source, |writer| writer.delete_located(located))?;
        debug!(%experiment_id, %source, %target, moved, "moved earlier traces");
        let registry = Arc::clone(&self.stores.registry);
        self.handle.block_on(registry.note_moved(one, moved as u64))?;
        Ok(())
    }

    fn source_files(&mut self, one: &Move) -> anyhow::Result<VecDeque<String>> {
        let Some(writer) = self.writers.existing(&one.source)? else {
            return Ok(VecDeque::new());
        };
        let others = writer.other_columns()?;
        ensure!(
            others.is_empty(),
            "table `{}` has columns of its own, which a move would lose: {}",
            one.source,
            others.join(", ")
        );
        let files = writer.data_files()?;
        ensure!(
            !writer.snapshot().is_append_only(),
            "table `{}` takes new rows alone (`delta.appendOnly`), and a move would delete there",
            one.source
        );
        Ok(files.into())
    }

    fn end_move(&mut self, one: &Move) -> anyhow::Result<()> {
        let registry = Arc::clone(&self.stores.registry);
        self.handle.block_on(registry.end_move(one))?;
        let Move { experiment_id, source, target, .. } = one;
        info!(%experiment_id, %source, %target, "earlier traces moved");
        Ok(())
    }
}
