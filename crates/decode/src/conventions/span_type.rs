//! The span type: MLflow's own attribute, or the first convention whose kind is known.

use std::borrow::Cow;

use super::candidates::Candidates;
use super::keys::Key;

/// MLflow's span type of a span.
pub(super) fn span_type<'a>(found: &Candidates<'a>) -> Option<Cow<'a, str>> {
    let native = found.text(Key::MlflowSpanType);
    if native.as_deref().is_none_or(|native| native == "UNKNOWN")
        && let Some(translated) = translated(found)
    {
        return Some(Cow::Borrowed(translated));
    }
    native
}

/// In the order of MLflow's translators. Spring AI's operations are among those of GenAI.
fn translated(found: &Candidates<'_>) -> Option<&'static str> {
    let kind = |key: Key, table: fn(&str) -> Option<&'static str>| {
        found.text(key).and_then(|kind| table(&kind))
    };
    kind(Key::OpenInferenceKind, open_inference)
        .or_else(|| {
            is_gemini_cli(found).then(|| kind(Key::GenAiOperationName, gemini_cli)).flatten()
        })
        .or_else(|| ClaudeSpan::of(found).map(ClaudeSpan::span_type))
        .or_else(|| kind(Key::GenAiOperationName, gen_ai))
        .or_else(|| kind(Key::TraceloopKind, traceloop))
        .or_else(|| kind(Key::VercelOperationId, vercel))
        .or_else(|| kind(Key::SpanType, volt_agent))
        .or_else(|| kind(Key::EntityType, volt_agent))
        .or_else(|| live_kit(found))
        .or_else(|| kind(Key::LaminarType, laminar))
        .or_else(|| kind(Key::LangfuseType, langfuse))
}

/// True for spans of Gemini CLI, which uses the GenAI names in its own way.
pub(super) fn is_gemini_cli(found: &Candidates<'_>) -> bool {
    found.text(Key::GenAiAgentName).is_some_and(|name| name == "gemini-cli")
}

/// A span of Claude Code, which says its kind with or without a prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ClaudeSpan {
    Interaction,
    LlmRequest,
    Tool,
}

impl ClaudeSpan {
    /// The kind of a Claude Code span, `None` for any other span.
    pub(super) fn of(found: &Candidates<'_>) -> Option<Self> {
        let kind = found.text(Key::SpanType)?;
        match kind.strip_prefix("claude_code.").unwrap_or(&kind) {
            "interaction" => Some(Self::Interaction),
            "llm_request" => Some(Self::LlmRequest),
            "tool" => Some(Self::Tool),
            _ => None,
        }
    }

    const fn span_type(self) -> &'static str {
        match self {
            Self::Interaction => "AGENT",
            Self::LlmRequest => "LLM",
            Self::Tool => "TOOL",
        }
    }
}

/// Kinds are upper case by specification; some senders write them in lower case.
fn open_inference(kind: &str) -> Option<&'static str> {
    const KINDS: [&str; 10] = [
        "TOOL",
        "CHAIN",
        "LLM",
        "RETRIEVER",
        "EMBEDDING",
        "AGENT",
        "RERANKER",
        "UNKNOWN",
        "GUARDRAIL",
        "EVALUATOR",
    ];
    KINDS.into_iter().find(|known| known.eq_ignore_ascii_case(kind))
}

fn gemini_cli(operation: &str) -> Option<&'static str> {
    match operation {
        "llm_call" => Some("LLM"),
        "tool_call" => Some("TOOL"),
        "agent_call" => Some("AGENT"),
        _ => None,
    }
}

fn gen_ai(operation: &str) -> Option<&'static str> {
    match operation {
        "chat" => Some("CHAT_MODEL"),
        "create_agent" | "invoke_agent" => Some("AGENT"),
        "embeddings" => Some("EMBEDDING"),
        "execute_tool" => Some("TOOL"),
        "generate_content" | "text_completion" | "response" => Some("LLM"),
        _ => None,
    }
}

fn traceloop(kind: &str) -> Option<&'static str> {
    match kind {
        "workflow" => Some("WORKFLOW"),
        "task" => Some("TASK"),
        "agent" => Some("AGENT"),
        "tool" => Some("TOOL"),
        "unknown" => Some("UNKNOWN"),
        _ => None,
    }
}

fn vercel(operation: &str) -> Option<&'static str> {
    match operation {
        "ai.generateText"
        | "ai.generateText.doGenerate"
        | "ai.streamText"
        | "ai.streamText.doStream"
        | "ai.generateObject"
        | "ai.generateObject.doGenerate"
        | "ai.streamObject"
        | "ai.streamObject.doStream" => Some("LLM"),
        "ai.toolCall" => Some("TOOL"),
        "ai.embed" | "ai.embed.doEmbed" | "ai.embedMany" => Some("EMBEDDING"),
        _ => None,
    }
}

fn volt_agent(kind: &str) -> Option<&'static str> {
    match kind {
        "agent" => Some("AGENT"),
        "llm" => Some("LLM"),
        "tool" => Some("TOOL"),
        "memory" => Some("MEMORY"),
        _ => None,
    }
}

/// LiveKit is MLflow's catch-all: any span that requests a model is an LLM call.
fn live_kit(found: &Candidates<'_>) -> Option<&'static str> {
    if found.get(Key::GenAiRequestModel).is_some() {
        return Some("LLM");
    }
    let operation = found.text(Key::GenAiOperationName);
    operation.and_then(|operation| gen_ai(&operation.to_lowercase())).or(found.live_kit_type)
}

fn laminar(kind: &str) -> Option<&'static str> {
    match kind {
        "LLM" | "CACHED" => Some("LLM"),
        "TOOL" => Some("TOOL"),
        "DEFAULT" | "PIPELINE" => Some("CHAIN"),
        "EXECUTOR" => Some("AGENT"),
        "EVALUATOR" | "HUMAN_EVALUATOR" | "EVALUATION" => Some("EVALUATOR"),
        _ => None,
    }
}

fn langfuse(kind: &str) -> Option<&'static str> {
    match kind {
        "generation" => Some("LLM"),
        "embedding" => Some("EMBEDDING"),
        "tool" => Some("TOOL"),
        "retriever" => Some("RETRIEVER"),
        "agent" => Some("AGENT"),
        "chain" => Some("CHAIN"),
        "evaluator" => Some("EVALUATOR"),
        "guardrail" => Some("GUARDRAIL"),
        "span" => Some("UNKNOWN"),
        _ => None,
    }
}
