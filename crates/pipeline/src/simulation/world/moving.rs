//! An experiment that is bound to a table while its traces are in the default one, which then move.
//!
//! Two tables and the registry say what becomes of a trace then: it is merged into the one, deleted
//! from the other, and the move is noted as done after a pass that found nothing more.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use tracelake_decode::Route;
use tracelake_lake::TraceDraft;
use tracelake_registry::{EarlierTraces, MoveState, Registry};

use super::World;
use super::ending::PATIENCE;
use crate::simulation::ground::{Ground, Unbound};

/// Turns within which a move ends when nothing goes wrong any more.
const TURNS: usize = 12 * PATIENCE;

/// The index of the table of the binding; the default table is the first.
const BOUND: usize = 1;

/// The experiment of a schedule's traces.
pub(super) struct Moving {
    of: Unbound,
    is_bound: bool,
}

impl Moving {
    /// `None` where its registry cannot be made.
    pub(super) fn new(ground: &Ground) -> Option<Self> {
        Some(Self { of: ground.unbound().ok()?, is_bound: false })
    }

    pub(super) fn registry(&self) -> Arc<Registry> {
        Arc::clone(&self.of.registry)
    }

    /// Where its traces go now.
    pub(super) fn route(&self, ground: &Ground) -> Route {
        let [default, bound] = &ground.tables;
        let table = if self.is_bound { bound } else { default };
        Route { experiment_id: self.of.experiment.clone(), table: table.clone() }
    }
}

impl World<'_> {
    /// Whether there is an experiment that is not bound yet.
    pub(super) fn can_bind(&self) -> bool {
        self.moving.as_ref().is_some_and(|moving| !moving.is_bound)
    }

    /// Binds the experiment, with its earlier traces.
    pub(super) fn bind(&mut self) {
        let Some(moving) = &mut self.moving else { return };
        let bound = moving.of.registry.bind(
            &moving.of.experiment,
            &self.ground.tables[BOUND],
            0,
            EarlierTraces::Move,
        );
        match self.ground.runtime.block_on(bound) {
            Ok(()) => moving.is_bound = true,
            Err(error) => drop(writeln!(self.violations, "not bound: {error}")),
        }
    }

    /// Goes on until the move is noted as done.
    pub(super) fn let_move_end(&mut self) {
        let Some(moving) = self.moving.as_ref().filter(|moving| moving.is_bound) else { return };
        let registry = moving.registry();
        for _ in 0..TURNS {
            let moves = self.ground.runtime.block_on(registry.moves(None));
            if moves.is_ok_and(|moves| moves.iter().all(|one| one.state == MoveState::Done)) {
                return;
            }
            self.clock.advance(Duration::from_secs(2));
            for archiver in &mut self.archivers {
                archiver.turn();
            }
        }
        writeln!(self.violations, "the move does not end").ok();
    }

    /// Adds the rows that moved; the move has ended, so none is left in the default table.
    pub(super) fn add_moved(&mut self, rows: &mut Vec<TraceDraft>) {
        if self.moving.as_ref().is_none_or(|moving| !moving.is_bound) {
            return;
        }
        for row in rows.iter() {
            writeln!(self.violations, "{} was left behind by the move", row.trace_id).ok();
        }
        match self.read(BOUND) {
            Ok(moved) => rows.extend(moved.map(|(_, rows)| rows).unwrap_or_default()),
            Err(error) => drop(writeln!(self.violations, "table cannot be read: {error:#}")),
        }
    }
}
