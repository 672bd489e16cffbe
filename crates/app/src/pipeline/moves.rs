//! Moves of earlier traces to the table that their experiment was bound to.
//!
//! One batch at a time, between epochs: read from the source, merge into the target, delete from
//! the source. Dying between the last two leaves traces in both; the move is still pending then,
//! finds them again, and merging what is in changes nothing.

use std::collections::VecDeque;
use std::sync::Arc;

use tracelake_lake::LakeError;
use tracelake_registry::Move;
use tracing::{debug, info, warn};

use super::Pipeline;

/// How often the registry is asked for moves.
const CHECK_EVERY_UNIX_NANO: u64 = 1_000_000_000;

/// Traces in one batch.
const BATCH_TRACES: usize = 128;

/// The move at hand.
#[derive(Debug, Default)]
pub(super) struct Mover {
    next_check_unix_nano: u64,
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    pending: Move,
    /// Data files of the source that were not looked at in this pass.
    files: VecDeque<String>,
    /// Whether this pass found anything: the move ends with a pass that does not.
    found: bool,
}

impl Pipeline {
    /// Moves one batch. Returns true when there is more to do at once.
    pub(super) fn step_moves(&mut self) -> bool {
        let now = self.clock.now_unix_nano();
        if self.mover.running.is_none() && now < self.mover.next_check_unix_nano {
            return false;
        }
        self.mover.next_check_unix_nano = now.saturating_add(CHECK_EVERY_UNIX_NANO);
        match self.try_step() {
            Ok(more) => more,
            Err(error) => {
                warn!(error = format!("{error:#}"), "move of earlier traces waits");
                self.mover.running = None;
                false
            }
        }
    }

    fn try_step(&mut self) -> anyhow::Result<bool> {
        let registry = Arc::clone(&self.archive.registry);
        let pending = self.handle.block_on(registry.pending_moves())?;
        // One that was cancelled or replaced meanwhile ends here.
        let running = self.mover.running.take().filter(|running| {
            let same = |other: &Move| {
                other.experiment_id == running.pending.experiment_id
                    && other.source == running.pending.source
                    && other.target == running.pending.target
            };
            pending.iter().any(same)
        });
        let mut running = match running {
            Some(running) => running,
            None => match pending.into_iter().next() {
                Some(pending) => self.start_move(pending)?,
                None => return Ok(false),
            },
        };
        let Some(path) = running.files.front().cloned() else {
            return self.end_pass(running);
        };
        let Move { experiment_id, source, target, .. } = running.pending.clone();
        let located = self
            .writers
            .guarded(&source, |writer| writer.locate(&experiment_id, &path, BATCH_TRACES))?;
        if located.traces.is_empty() {
            running.files.pop_front();
        } else {
            running.found = true;
            self.writers.guarded(&target, |writer| writer.absorb(&located.traces))?;
            let moved: Result<usize, LakeError> =
                self.writers.guarded(&source, |writer| writer.delete_located(&located));
            let moved = moved? as u64;
            debug!(%experiment_id, %source, %target, moved, "moved earlier traces");
            self.handle.block_on(registry.note_moved(&running.pending, moved, false))?;
        }
        self.mover.running = Some(running);
        Ok(true)
    }

    fn start_move(&mut self, pending: Move) -> anyhow::Result<Running> {
        let files = match self.writers.existing(&pending.source)? {
            Some(writer) => writer.data_files()?,
            None => Vec::new(),
        };
        Ok(Running { pending, files: files.into(), found: false })
    }

    fn end_pass(&mut self, running: Running) -> anyhow::Result<bool> {
        if running.found {
            self.mover.running = Some(self.start_move(running.pending)?);
            return Ok(true);
        }
        let registry = Arc::clone(&self.archive.registry);
        self.handle.block_on(registry.note_moved(&running.pending, 0, true))?;
        let Move { experiment_id, source, target, .. } = running.pending;
        info!(%experiment_id, %source, %target, "earlier traces moved");
        Ok(true)
    }
}
