//! Moves of earlier traces to the table that their experiment was bound to.
//!
//! One batch at a time, between epochs: read from the source, merge into the target, delete from
//! the source. Dying between the last two leaves traces in both; the move still stands then, finds
//! them again, and merging what is in changes nothing, since what the target says of a trace
//! stands over what the source says. A move that is called off with traces in both ends with one
//! more pass, which takes those that are in the target out of the source.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use anyhow::ensure;
use tracelake_lake::LocatedTraces;
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
            let registry = Arc::clone(&self.archive.registry);
            if let Err(error) = self.handle.block_on(registry.note_move_fault(&one, &fault)) {
                warn!(%error, "fault of a move not noted");
            }
        }
        true
    }

    /// The move at hand, if it still stands, or the next one.
    fn next_move(&mut self, now: u64) -> anyhow::Result<Option<Running>> {
        let registry = Arc::clone(&self.archive.registry);
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
        Ok(next.map(|one| Running { one, files: VecDeque::new(), found: true }))
    }

    fn move_batch(&mut self, mut running: Running) -> anyhow::Result<()> {
        if running.files.is_empty() {
            if !running.found {
                return self.end_move(&running.one);
            }
            running.files = self.source_files(&running.one)?;
            running.found = false;
        }
        let Move { experiment_id, source, target, state, .. } = running.one.clone();
        let mut located = LocatedTraces::default();
        for _ in 0..BATCH_FILES {
            let Some(path) = running.files.front().cloned() else { break };
            let room = BATCH_TRACES.saturating_sub(located.traces.len());
            let mut rows =
                self.writers.guarded(&source, |writer| writer.rows_of(&experiment_id, &path))?;
            if state == MoveState::Cancelled {
                let wanted: HashSet<TraceId> = rows.iter().map(|(_, trace)| *trace).collect();
                let moved = match self.writers.existing(&target)? {
                    Some(writer) => writer.archived(&wanted)?,
                    None => HashSet::new(),
                };
                rows.retain(|(_, trace)| moved.contains(trace));
            }
            let is_rest = rows.len() <= room;
            let rows: Vec<u64> = rows.into_iter().take(room).map(|(row, _)| row).collect();
            if !rows.is_empty() {
                located
                    .extend(self.writers.guarded(&source, |writer| writer.locate(&path, &rows))?);
            }
            if !is_rest {
                break;
            }
            running.files.pop_front();
        }
        if !located.traces.is_empty() {
            running.found = true;
            self.writers.guarded(&target, |writer| writer.absorb(&located.traces))?;
            let moved = self.writers.guarded(&source, |writer| writer.delete_located(&located))?;
            debug!(%experiment_id, %source, %target, moved, "moved earlier traces");
            let registry = Arc::clone(&self.archive.registry);
            self.handle.block_on(registry.note_moved(&running.one, moved as u64))?;
        }
        self.mover.running = Some(running);
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
        let registry = Arc::clone(&self.archive.registry);
        self.handle.block_on(registry.end_move(one))?;
        let Move { experiment_id, source, target, .. } = one;
        info!(%experiment_id, %source, %target, "earlier traces moved");
        Ok(())
    }
}
