//! Waiting until the earlier traces of an experiment are moved to its table.

use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;
use tracelake_model::ExperimentId;
use tracelake_registry::{MoveState, Registry};

use crate::discovery::ServerFile;
use crate::fault::{Fault, FaultKind};
use crate::folder::{Archive, data_folder};
use crate::service::Service;
use crate::settings::Settings;

/// How often the progress of a move is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// How far the moves of an experiment are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MoveProgress {
    pub moved_traces: u64,
    pub done: bool,
    /// Why they do not go on; they are tried again.
    pub fault: Option<String>,
}

impl MoveProgress {
    /// As the registry has it.
    pub(crate) async fn of(
        registry: &Registry,
        experiment_id: &ExperimentId,
    ) -> anyhow::Result<Self> {
        let mut moves = registry.moves(Some(experiment_id)).await?;
        moves.retain(|one| one.state != MoveState::Cancelled);
        Ok(Self {
            moved_traces: moves.iter().map(|one| one.moved_traces).sum(),
            done: moves.iter().all(|one| one.state == MoveState::Done),
            fault: moves.into_iter().find_map(|one| one.fault),
        })
    }
}

/// Who waits, and for how long.
#[expect(missing_debug_implementations, reason = "it holds a function")]
#[derive(Clone, Copy)]
pub struct Watch<'a> {
    /// Ends the waiting. What is left is moved by the next service.
    pub cancel: &'a CancellationToken,
    /// Told how many traces are moved.
    pub progress: &'a (dyn Fn(u64) + Sync),
}

/// Waits until the earlier traces of the experiment are moved, and does it here when no service
/// runs. Returns how many were moved.
///
/// # Errors
/// [`FaultKind::Interrupted`] when cancelled; why traces cannot be moved.
pub async fn finish_moves(
    data_dir: &Path,
    experiment_id: &ExperimentId,
    settings: &Settings,
    watch: Watch<'_>,
) -> anyhow::Result<u64> {
    let folder = data_folder(data_dir)?;
    if ServerFile::running(&folder.server_file()).is_some() {
        let archive = Archive::open(data_dir).await?;
        let look = async || {
            // Asked first: it may have moved the last ones before it ended.
            let runs = ServerFile::running(&folder.server_file()).is_some();
            let seen = MoveProgress::of(&archive.registry, experiment_id).await?;
            if seen.done || runs { Ok(seen) } else { Err(service_ended(seen.moved_traces)) }
        };
        let moved = watch_moves(look, watch).await;
        archive.close().await;
        return moved;
    }
    let service = Service::start(data_dir, settings).await?;
    let look = async || {
        anyhow::ensure!(!service.has_ended(), "the pipeline has ended\nhint: see the log above");
        MoveProgress::of(&service.archive.registry, experiment_id).await
    };
    let moved = watch_moves(look, watch).await;
    service.stop().await?;
    moved
}

fn service_ended(moved: u64) -> anyhow::Error {
    let message =
        format!("enabled, but the service that moves earlier traces has ended, with {moved} moved");
    let hint = "nothing is lost; `tracelake serve` goes on with it, or the same command again";
    Fault::new(FaultKind::TemporarilyUnavailable, message).with_hint(hint).into()
}

/// Looks until the moves are done. Returns how many traces were moved.
pub(crate) async fn watch_moves(
    look: impl AsyncFn() -> anyhow::Result<MoveProgress>,
    watch: Watch<'_>,
) -> anyhow::Result<u64> {
    loop {
        let seen = look().await?;
        let moved = seen.moved_traces;
        if let Some(reason) = seen.fault {
            anyhow::bail!(
                "enabled, but earlier traces cannot be moved: {reason}\nhint: mend that and give \
                 the command again, or leave them where they are with --from-now"
            );
        }
        (watch.progress)(moved);
        if seen.done {
            return Ok(moved);
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            () = watch.cancel.cancelled() => {
                let fault = Fault::new(
                    FaultKind::Interrupted,
                    format!("stopped with {moved} traces moved"),
                );
                return Err(fault
                    .with_hint(
                        "nothing is lost; `tracelake serve` goes on with it, or the same command \
                         again",
                    )
                    .into());
            }
        }
    }
}
