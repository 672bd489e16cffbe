//! What a span is called, took in and gave out, and what a trace is as a whole.
//!
//! Follows MLflow 3.18 (`mlflow/tracing/otel/translation/`), see the module docs of the parts.

use std::borrow::Cow;
use std::collections::BTreeMap;

use tracelake_model::{TokenUsage, TraceCost, TraceState};

use crate::request::SpanRecord;
use crate::view::{SpanView, ValueView};

/// How the text of `inputs` or `outputs` relates to the attribute that it was lifted from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PayloadForm {
    /// The attribute is a string and its text, which is JSON, is taken verbatim.
    Text,
    /// The attribute is a string that is not a JSON document; the text is its JSON quotation.
    Quoted,
    /// The attribute is not a string; the text is its JSON form.
    Value,
}

/// Inputs or outputs of a span.
#[derive(Clone, Debug)]
pub enum Payload<'a> {
    /// The whole value of one attribute, which the table then does not repeat in `metadata`.
    Attribute {
        /// Position among the span's attributes.
        position: usize,
        /// The attribute's name.
        key: &'a str,
        /// Its value.
        value: ValueView<'a>,
        /// How the text is made of it.
        form: PayloadForm,
    },
    /// JSON text put together from several attributes or from events, which stay where they are.
    Composed(String),
}

/// What a span means, whatever convention its attributes follow.
#[derive(Clone, Debug, Default)]
pub struct Meaning<'a> {
    /// MLflow's span type, such as `CHAT_MODEL`; `None` when nothing says.
    pub span_type: Option<Cow<'a, str>>,
    /// What the span took in.
    pub inputs: Option<Payload<'a>>,
    /// What the span gave out.
    pub outputs: Option<Payload<'a>>,
    /// Model that answered.
    pub model: Option<Cow<'a, str>>,
    /// Who runs the model.
    pub model_provider: Option<Cow<'a, str>>,
    /// Token counts of this span alone.
    pub usage: TokenUsage,
    /// Cost of this span alone, as the sender gave it.
    pub cost: TraceCost,
}

/// What a trace means as a whole, derived from its spans.
#[derive(Clone, Debug)]
pub struct TraceMeaning {
    /// State by MLflow's rule.
    pub state: TraceState,
    /// Earliest start, nanoseconds since the Unix epoch, as MLflow takes it (zero included).
    pub start_time_unix_nano: u64,
    /// Latest end, nanoseconds since the Unix epoch.
    pub end_time_unix_nano: u64,
    /// Name of the trace.
    pub trace_name: Option<String>,
    /// Conversation.
    pub session_id: Option<String>,
    /// End user.
    pub user_id: Option<String>,
    /// Tokens of the whole trace: a span with counts hides its descendants.
    pub usage: TokenUsage,
    /// Cost of the whole trace, summed the same way.
    pub cost: TraceCost,
    /// Tags: `mlflow.traceTag.*` of the root and resource attributes, as MLflow stores them.
    pub tags: BTreeMap<String, String>,
    /// First characters of the root's inputs.
    pub request_preview: Option<String>,
    /// First characters of the root's outputs.
    pub response_preview: Option<String>,
}

/// Reads the meaning of one span.
#[must_use]
pub fn interpret<'a>(_span: &SpanView<'a>) -> Meaning<'a> {
    Meaning::default()
}

/// Reads the meaning of a trace from all its spans, in the order of arrival.
#[must_use]
pub fn interpret_trace(_spans: &[SpanRecord]) -> TraceMeaning {
    TraceMeaning {
        state: TraceState::Ok,
        start_time_unix_nano: 0,
        end_time_unix_nano: 0,
        trace_name: None,
        session_id: None,
        user_id: None,
        usage: TokenUsage::default(),
        cost: TraceCost::default(),
        tags: BTreeMap::new(),
        request_preview: None,
        response_preview: None,
    }
}
