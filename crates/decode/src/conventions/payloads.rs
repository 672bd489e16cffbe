//! Inputs and outputs of a span: the first convention whose value is not empty.
//!
//! In the order of MLflow's translators; Spring AI has no attributes of its own. Events are asked
//! only when no attribute gave anything.

use super::Payload;
use super::candidates::{Candidates, Reading};
use super::json_text::{self, Members};
use super::keys::Key;
use super::span_type::{ClaudeSpan, is_gemini_cli};
use super::{composed, events};
use crate::otlp::view::SpanView;

/// Inputs or outputs, and what the conventions ask of their text.
#[derive(Clone, Debug)]
pub(super) struct Found<'a> {
    /// The payload.
    pub(super) payload: Payload<'a>,
    /// Members of the payload, if it is an object.
    pub(super) members: Members<'a>,
}

impl<'a> From<Reading<'a>> for Found<'a> {
    fn from(reading: Reading<'a>) -> Self {
        Self { payload: reading.payload(), members: reading.members }
    }
}

impl From<String> for Found<'_> {
    fn from(text: String) -> Self {
        let members = json_text::document(&text).unwrap_or_default().members.into_owned();
        Self { payload: Payload::Composed(text), members }
    }
}

/// What the span took in.
pub(super) fn inputs<'a>(span: &SpanView<'a>, found: &Candidates<'a>) -> Option<Found<'a>> {
    if let Some(native) = found.get(Key::MlflowInputs) {
        return Some(native.read().into());
    }
    input_attributes(span, found).or_else(|| events::inputs(span).map(Found::from))
}

/// What the span gave out.
pub(super) fn outputs<'a>(span: &SpanView<'a>, found: &Candidates<'a>) -> Option<Found<'a>> {
    if let Some(native) = found.get(Key::MlflowOutputs) {
        return Some(native.read().into());
    }
    output_attributes(span, found)
        .or_else(|| events::outputs(span, ClaudeSpan::of(found)).map(Found::from))
}

fn input_attributes<'a>(span: &SpanView<'a>, found: &Candidates<'a>) -> Option<Found<'a>> {
    const GEN_AI: [Key; 2] = [Key::GenAiInputMessages, Key::GenAiToolCallArguments];
    let first = |keys: &[Key]| found.first(keys).map(Found::from);
    first(&[Key::OpenInferenceInput])
        .or_else(|| {
            let value = is_gemini_cli(found).then(|| found.first(&GEN_AI)).flatten()?;
            Some(composed::gemini_inputs(&value).map_or_else(|| value.into(), Found::from))
        })
        .or_else(|| claude_inputs(found))
        .or_else(|| first(&GEN_AI))
        .or_else(|| first(&[Key::TraceloopInput]))
        .or_else(|| found.prompt_content.map(|candidate| candidate.read().into()))
        .or_else(|| found.tool_call_arguments.map(|candidate| candidate.read().into()))
        .or_else(|| first(&[Key::AdkLlmRequest, Key::AdkToolCallArgs]))
        .or_else(|| {
            if composed::is_vercel_chat(found) {
                return composed::vercel_object(span, "ai.prompt.").map(Found::from);
            }
            first(&[
                Key::VercelPrompt,
                Key::VercelToolCallArgs,
                Key::VercelValue,
                Key::VercelValues,
            ])
        })
        .or_else(|| {
            first(&[
                Key::VoltAgentAgentMessages,
                Key::VoltAgentLlmMessages,
                Key::VoltAgentInput,
                Key::LiveKitUserInput,
                Key::LiveKitUserTranscript,
                Key::LiveKitChatContext,
                Key::LiveKitInputText,
                Key::LaminarInput,
                Key::LangfuseInput,
            ])
        })
}

fn output_attributes<'a>(span: &SpanView<'a>, found: &Candidates<'a>) -> Option<Found<'a>> {
    const GEN_AI: [Key; 2] = [Key::GenAiOutputMessages, Key::GenAiToolCallResult];
    let first = |keys: &[Key]| found.first(keys).map(Found::from);
    first(&[Key::OpenInferenceOutput])
        .or_else(|| {
            let value = is_gemini_cli(found).then(|| found.first(&GEN_AI)).flatten()?;
            Some(composed::gemini_outputs(&value).map_or_else(|| value.into(), Found::from))
        })
        .or_else(|| {
            let key = match ClaudeSpan::of(found)? {
                ClaudeSpan::LlmRequest => Key::ClaudeModelOutput,
                ClaudeSpan::Tool => Key::ClaudeNewContext,
                ClaudeSpan::Interaction => return None,
            };
            claude_content(found, key).map(Found::from)
        })
        .or_else(|| first(&GEN_AI))
        .or_else(|| first(&[Key::TraceloopOutput]))
        .or_else(|| found.completion_content.map(|candidate| candidate.read().into()))
        .or_else(|| first(&[Key::AdkLlmResponse, Key::AdkToolResponse]))
        .or_else(|| {
            if composed::is_vercel_chat(found) {
                return composed::vercel_object(span, "ai.response.").map(Found::from);
            }
            first(&[
                Key::VercelResponseText,
                Key::VercelToolCallResult,
                Key::VercelResponseObject,
                Key::VercelEmbedding,
                Key::VercelEmbeddings,
            ])
        })
        .or_else(|| {
            first(&[
                Key::VoltAgentOutput,
                Key::LiveKitResponseText,
                Key::LiveKitFunctionCalls,
                Key::LaminarOutput,
                Key::LangfuseOutput,
            ])
        })
}

fn claude_inputs<'a>(found: &Candidates<'a>) -> Option<Found<'a>> {
    let content = |key| claude_content(found, key).map(Found::from);
    match ClaudeSpan::of(found)? {
        ClaudeSpan::Interaction => {
            content(Key::ClaudeUserPrompt).or_else(|| content(Key::ClaudeNewContext))
        }
        ClaudeSpan::LlmRequest => content(Key::ClaudeNewContext),
        ClaudeSpan::Tool => content(Key::ClaudeToolInput).or_else(|| {
            let details = [
                ("full_command", Key::ClaudeFullCommand),
                ("file_path", Key::ClaudeFilePath),
                ("skill_name", Key::ClaudeSkillName),
                ("subagent_type", Key::ClaudeSubagentType),
            ];
            let details = details
                .into_iter()
                .filter_map(|(name, key)| Some((name, claude_content(found, key)?)));
            composed::object_of(details).map(Found::from)
        }),
    }
}

/// Claude Code replaces what the user did not allow to be recorded.
fn claude_content<'a>(found: &Candidates<'a>, key: Key) -> Option<Reading<'a>> {
    let reading = found.first(&[key])?;
    let redacted = reading.text().is_some_and(|text| text == events::CLAUDE_REDACTED);
    (!redacted).then_some(reading)
}
