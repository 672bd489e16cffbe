//! What a span is called, took in and gave out, and what a trace is as a whole.
//!
//! Follows MLflow 3.18 (`mlflow/tracing/otel/translation/`, `SqlAlchemyStore.log_spans`): for each
//! field on its own the first convention with a value that is not empty wins, in the order
//! OpenInference, Gemini CLI, Claude Code, GenAI, Spring AI, Traceloop, Google ADK, Vercel AI,
//! VoltAgent, LiveKit, Laminar, Langfuse. MLflow's own attributes come before all of them.
//!
//! Where MLflow plainly loses what the sender said, this does better:
//!
//! | what | MLflow 3.18 | here |
//! |---|---|---|
//! | `openinference.span.kind` in lower or mixed case | no span type | the same as in upper case |
//! | `langfuse.observation.usage_details` | ignored | token counts, after all other conventions |
//! | `langfuse.observation.model.name` | ignored | model, after all other conventions |
//! | spans that share an id | the last one replaces the others | all are kept and counted |
//! | spans whose parents form a circle | not counted in the sums | counted |
//! | several resources in one trace | tags of the first of the last request, the others lost | tags of the last span's; [`TraceMeaning::services`] has all services |
//! | token counts sent as doubles | ignored | taken where they are whole and exact |
//! | empty `session.id` or `user.id` | hides those of later spans | absent |
//! | `session.id` of more than 250 characters | the request fails | cut to 250 characters |
//!
//! And where it does less or other: costs are taken from `mlflow.llm.cost` only, never computed
//! from price lists, as MLflow does for spans that have a model and token counts; a text with
//! `NaN` or `Infinity` is not JSON, so it is quoted; the text of a value lifted from one attribute
//! is the text as sent, and JSON that is put together here has no blanks between its parts and no
//! `\u` escapes that JSON does not demand.

mod candidates;
mod composed;
mod events;
mod json_text;
mod keys;
mod model_name;
mod payloads;
mod previews;
mod rollup;
mod span_type;
mod tags;
mod tokens;
mod trace;

pub use tags::root_tag_keys;

use std::borrow::Cow;
use std::collections::BTreeMap;

use tracelake_model::{TokenUsage, TraceCost, TraceState};

use self::candidates::Candidates;
use self::keys::Key;
use crate::order;
use crate::otlp::view::{AttributeList, KeyValueView, SpanView, ValueView};
use crate::request::SpanRecord;

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

impl Payload<'_> {
    /// The JSON text.
    #[must_use]
    pub fn text(&self) -> Cow<'_, str> {
        match self {
            Payload::Attribute { value, form, .. } => candidates::attribute_json(*value, *form),
            Payload::Composed(text) => Cow::Borrowed(text),
        }
    }
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
    /// Conversation that the span names, as sent; not empty.
    pub session_id: Option<Cow<'a, str>>,
    /// End user that the span names, as sent; not empty.
    pub user_id: Option<Cow<'a, str>>,
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
    /// Names of all services that took part (`service.name` of the resources), in the order of the
    /// spans, each once.
    pub services: Vec<String>,
    /// First characters of the root's inputs.
    pub request_preview: Option<String>,
    /// First characters of the root's outputs.
    pub response_preview: Option<String>,
}

/// Reads the meaning of one span.
#[must_use]
pub fn interpret<'a>(span: &SpanView<'a>) -> Meaning<'a> {
    interpret_of(span, &span.attributes().collect::<AttributeList<'_>>())
}

/// The same as [`interpret`], of a span whose attributes were read.
#[must_use]
pub fn interpret_of<'a>(span: &SpanView<'a>, attributes: &[KeyValueView<'a>]) -> Meaning<'a> {
    let found = Candidates::collect(attributes);
    let inputs = payloads::inputs(span, &found);
    let outputs = payloads::outputs(span, &found);
    Meaning {
        span_type: span_type::span_type(&found),
        model: model_name::model(&found, inputs.as_ref(), outputs.as_ref()),
        model_provider: model_name::provider(&found),
        usage: tokens::usage(&found),
        cost: tokens::cost(&found),
        session_id: named(&found, Key::SessionId)
            .or_else(|| named(&found, Key::GenAiConversationId)),
        user_id: named(&found, Key::UserId),
        inputs: inputs.map(|inputs| inputs.payload),
        outputs: outputs.map(|outputs| outputs.payload),
    }
}

fn named<'a>(found: &Candidates<'a>, key: Key) -> Option<Cow<'a, str>> {
    found.value(key).map(candidates::any_text).filter(|text| !text.is_empty())
}

/// The rules of this module, as a number: it grows with each change by which the same spans mean
/// something else. What a row holds beside what clients said follows from the spans by the rules of
/// the number that it was written with.
pub const RULES: u32 = 1;

/// Reads the meaning of a trace from all its spans. Identical copies are taken for spans of their
/// own: leave them out before. `spans` are in the order of arrival, which decides nothing but what
/// [`order::tags_span`] says.
#[must_use]
pub fn interpret_trace(spans: &[SpanRecord]) -> TraceMeaning {
    let ordered = order::in_order(spans);
    let meanings: Vec<Meaning<'_>> = ordered.iter().map(|span| interpret(&span.view())).collect();
    let tags_of = order::tags_span(spans).and_then(|position| spans.get(position));
    trace::interpret_trace(&ordered, &meanings, tags_of)
}

/// The same as [`interpret_trace`], of spans in order whose meanings are known: one for each, in
/// their order; the resource of `tags_of` gives the tags.
#[must_use]
pub fn interpret_trace_of(
    spans: &[&SpanRecord],
    meanings: &[Meaning<'_>],
    tags_of: Option<&SpanRecord>,
) -> TraceMeaning {
    trace::interpret_trace(spans, meanings, tags_of)
}

#[cfg(test)]
mod tests;
