//! Spawning: the one place, so that every task's end is somebody's to await.

use std::future::Future;

use tokio::task::JoinHandle;

/// Spawns a task whose handle the caller awaits at shutdown.
#[expect(clippy::disallowed_methods, reason = "the one place that spawns")]
pub fn spawn<F>(task: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    tokio::spawn(task)
}
