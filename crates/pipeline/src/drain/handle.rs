//! Asking the pipeline, from any thread. It answers between two things that it does, so that a call
//! may take as long as a commit.

use tokio::sync::{mpsc, oneshot};
use tracelake_lake::Preview;
use tracelake_model::{TableName, TraceId};

use super::{Command, FlushOutcome, Found, PipelineStatus};

/// The way to a pipeline that runs. Clones lead to the same one.
#[derive(Clone, Debug)]
pub struct PipelineHandle(mpsc::UnboundedSender<Command>);

/// What a pipeline is told, on its side.
#[derive(Debug)]
pub struct Commands(pub(super) mpsc::UnboundedReceiver<Command>);

impl PipelineHandle {
    /// A handle, and what a pipeline is made of that answers it.
    #[must_use]
    pub fn channel() -> (Self, Commands) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Self(sender), Commands(receiver))
    }

    /// Settles and commits all that was acknowledged; returns when it is in the tables.
    ///
    /// # Errors
    /// When the pipeline has ended or a table cannot be written. What is not in waits in the journal.
    pub async fn flush(&self) -> Result<FlushOutcome, String> {
        self.ask(Command::Flush).await?
    }

    /// The rows of a table that are not committed yet; `None` when there are none.
    ///
    /// # Errors
    /// When the pipeline has ended or the table cannot be read.
    pub async fn uncommitted(&self, table: TableName) -> Result<Option<Preview>, String> {
        self.ask(|reply| Command::Preview(table, reply)).await?
    }

    /// Those of these traces that there are, archived or open.
    ///
    /// # Errors
    /// When the pipeline has ended, or a table cannot be read that may have one of them.
    pub async fn find(&self, traces: Vec<TraceId>) -> Result<Vec<Found>, String> {
        self.ask(|reply| Command::Find(traces, reply)).await?
    }

    /// The traces that are not wholly in their table yet.
    ///
    /// # Errors
    /// When the pipeline has ended.
    pub async fn open_traces(&self) -> Result<Vec<TraceId>, String> {
        self.ask(Command::OpenTraces).await
    }

    /// Has a table that is set apart opened again; false when it was not.
    ///
    /// # Errors
    /// When the pipeline has ended, or that cannot be noted.
    pub async fn release_table(&self, table: TableName) -> Result<bool, String> {
        self.ask(|reply| Command::ReleaseTable(table, reply)).await?
    }

    /// How the pipeline goes.
    ///
    /// # Errors
    /// When the pipeline has ended.
    pub async fn status(&self) -> Result<PipelineStatus, String> {
        self.ask(Command::Status).await
    }

    /// Whether there is no pipeline any more.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.0.is_closed()
    }

    /// Tells the pipeline to commit what has settled and to end. One that has ended already needs no word.
    pub fn stop(&self) {
        self.0.send(Command::Stop).ok();
    }

    async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<T>) -> Command,
    ) -> Result<T, String> {
        let gone = || "the pipeline has ended".to_owned();
        let (reply, answer) = oneshot::channel();
        self.0.send(command(reply)).map_err(|_| gone())?;
        answer.await.map_err(|_| gone())
    }
}
