//! MLflow's own keys: of span attributes, of a trace's tags and of its metadata.
//!
//! Source: `mlflow/tracing/constant.py` and `mlflow/utils/mlflow_tags.py` of MLflow 3.18. The two
//! keys of metadata that [`tracelake_model::TraceInfo`] itself reads stand beside it.

pub use tracelake_model::trace_info::{INFO_FINALIZED, SIZE_STATS};

/// Begins every key that MLflow keeps for itself.
pub const PREFIX: &str = "mlflow.";

/// Resource attribute: the experiment of the spans below it.
pub const EXPERIMENT_ID: &str = "mlflow.experimentId";

/// Span attribute: the trace's id, `tr-<hex>`.
pub const TRACE_REQUEST_ID: &str = "mlflow.traceRequestId";

/// Span attribute: the span's type.
pub const SPAN_TYPE: &str = "mlflow.spanType";

/// Span attribute: what the span took in.
pub const SPAN_INPUTS: &str = "mlflow.spanInputs";

/// Span attribute: what the span gave out.
pub const SPAN_OUTPUTS: &str = "mlflow.spanOutputs";

/// Span attribute: token counts of the span alone.
pub const CHAT_TOKEN_USAGE: &str = "mlflow.chat.tokenUsage";

/// Span attribute: cost of the span alone.
pub const LLM_COST: &str = "mlflow.llm.cost";

/// Span attribute: the model that answered.
pub const LLM_MODEL: &str = "mlflow.llm.model";

/// Span attribute: who runs the model.
pub const LLM_PROVIDER: &str = "mlflow.llm.provider";

/// Begins the attributes of a root that are tags of its trace.
pub const TRACE_TAG_PREFIX: &str = "mlflow.traceTag.";

/// Tag: the name of the trace.
pub const TRACE_NAME: &str = "mlflow.traceName";

/// Tag: the URI of the trace's artifacts.
pub const ARTIFACT_LOCATION: &str = "mlflow.artifactLocation";

/// Tag: where the spans are.
pub const SPANS_LOCATION: &str = "mlflow.trace.spansLocation";

/// Tag: where MLflow archived the trace.
pub const ARCHIVE_LOCATION: &str = "mlflow.trace.archiveLocation";

/// Tag: why MLflow could not archive the trace.
pub const ARCHIVAL_FAILURE: &str = "mlflow.trace.archivalFailure";

/// Metadata: the run that the trace was made in.
pub const SOURCE_RUN: &str = "mlflow.sourceRun";

/// Metadata: the conversation.
pub const TRACE_SESSION: &str = "mlflow.trace.session";

/// Metadata: the end user.
pub const TRACE_USER: &str = "mlflow.trace.user";

/// Metadata: token counts of the whole trace.
pub const TRACE_TOKEN_USAGE: &str = "mlflow.trace.tokenUsage";

/// Metadata: cost of the whole trace.
pub const TRACE_COST: &str = "mlflow.trace.cost";
