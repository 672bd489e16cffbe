//! Uncommitted rows of a running service, for queries in this process or in another.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use arrow::array::RecordBatch;
use async_trait::async_trait;
use tracelake_model::TableName;
use tracelake_pipeline::PipelineHandle;
use tracelake_query::{PendingRows, PendingSource, SourceError};

use crate::ask::arrow_stream::ArrowStream;
use crate::discovery::{ServerFile, agent};

/// Schema metadata of an uncommitted stream: table version, and replaced rows by data file.
pub(crate) const VERSION_KEY: &str = "tracelake.version";
pub(crate) const REPLACED_KEY: &str = "tracelake.replaced";

/// How long a service may take to answer: it may be in the middle of a commit.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// Bytes of rows that are taken from a service.
const MAX_ANSWER_BYTES: u64 = 1 << 30;

/// Asks the service that runs on a data folder.
#[derive(Clone, Debug)]
pub(crate) struct RunningService(pub ServerFile);

#[async_trait]
impl PendingSource for RunningService {
    async fn pending(&self, table: &TableName) -> Result<Option<PendingRows>, SourceError> {
        let server = self.0.clone();
        let table = table.clone();
        let answer = tokio::task::spawn_blocking(move || fetch(&server, &table)).await?;
        answer.map_err(|error| format!("{error:#}").into())
    }
}

/// Asks the pipeline of this process.
#[derive(Debug)]
pub(crate) struct OwnPipeline(pub PipelineHandle);

#[async_trait]
impl PendingSource for OwnPipeline {
    async fn pending(&self, table: &TableName) -> Result<Option<PendingRows>, SourceError> {
        let preview = self.0.uncommitted(table.clone()).await?;
        Ok(preview.map(|preview| PendingRows {
            version: preview.version,
            batches: vec![preview.rows],
            hidden_rows: preview
                .replaced
                .into_iter()
                .map(|(path, rows)| (path, rows.into_iter().collect()))
                .collect(),
        }))
    }
}

fn fetch(server: &ServerFile, table: &TableName) -> anyhow::Result<Option<PendingRows>> {
    let name = percent_encoding::utf8_percent_encode(
        &table.to_string(),
        percent_encoding::NON_ALPHANUMERIC,
    )
    .to_string();
    let url = format!("http://{}/api/v1/uncommitted/{name}", server.http);
    let mut answer = agent(ANSWER_TIMEOUT)
        .get(&url)
        .call()
        .with_context(|| format!("ask the service at {} for uncommitted rows", server.http))?;
    if answer.status().as_u16() == 204 {
        return Ok(None);
    }
    let body = answer
        .body_mut()
        .with_config()
        .limit(MAX_ANSWER_BYTES)
        .read_to_vec()
        .context("read uncommitted rows")?;
    anyhow::ensure!(
        answer.status().is_success(),
        "uncommitted rows of `{table}`: {}",
        String::from_utf8_lossy(body.get(..body.len().min(300)).unwrap_or_default())
    );
    read_stream(&body).map(Some)
}

fn read_stream(body: &[u8]) -> anyhow::Result<PendingRows> {
    let mut stream = ArrowStream::default();
    stream.push(body)?;
    let (schema, rows) = stream.finish()?;
    let metadata = |key: &str| {
        schema.metadata().get(key).with_context(|| format!("uncommitted rows without `{key}`"))
    };
    let version = metadata(VERSION_KEY)?.parse().context("read table version")?;
    let hidden_rows: BTreeMap<String, Vec<u64>> = serde_json::from_str(metadata(REPLACED_KEY)?)?;
    let plain = Arc::new(schema.as_ref().clone().with_metadata([].into()));
    let mut batches = Vec::new();
    for batch in rows {
        batches.push(RecordBatch::try_new(Arc::clone(&plain), batch.columns().to_vec())?);
    }
    Ok(PendingRows { version, batches, hidden_rows })
}
