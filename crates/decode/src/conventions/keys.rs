//! The attribute names that mean something: one table, searched once per attribute.

use crate::mlflow_keys;

/// Declares [`Key`] and the table of names. Entries stand in byte order of their names.
macro_rules! keys {
    ($($key:ident = $name:expr,)+) => {
        /// An attribute name that a convention gives a meaning.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(super) enum Key {
            $($key,)+
        }

        /// Names in byte order, for a binary search.
        pub(super) const NAMES: &[(&str, Key)] = &[$(($name, Key::$key),)+];
    };
}

keys! {
    VoltAgentAgentMessages = "agent.messages",
    VercelEmbedding = "ai.embedding",
    VercelEmbeddings = "ai.embeddings",
    VercelOperationId = "ai.operationId",
    VercelPrompt = "ai.prompt",
    VercelResponseObject = "ai.response.object",
    VercelResponseText = "ai.response.text",
    VercelToolCallArgs = "ai.toolCall.args",
    VercelToolCallResult = "ai.toolCall.result",
    VercelValue = "ai.value",
    VercelValues = "ai.values",
    ClaudeCacheCreationTokens = "cache_creation_tokens",
    ClaudeCacheReadTokens = "cache_read_tokens",
    EmbeddingModelName = "embedding.model_name",
    EntityType = "entity.type",
    ClaudeFilePath = "file_path",
    ClaudeFullCommand = "full_command",
    AdkLlmRequest = "gcp.vertex.agent.llm_request",
    AdkLlmResponse = "gcp.vertex.agent.llm_response",
    AdkToolCallArgs = "gcp.vertex.agent.tool_call_args",
    AdkToolResponse = "gcp.vertex.agent.tool_response",
    GenAiAgentName = "gen_ai.agent.name",
    GenAiConversationId = "gen_ai.conversation.id",
    GenAiInputMessages = "gen_ai.input.messages",
    GenAiOperationName = "gen_ai.operation.name",
    GenAiOutputMessages = "gen_ai.output.messages",
    GenAiProviderName = "gen_ai.provider.name",
    GenAiRequestModel = "gen_ai.request.model",
    GenAiResponseModel = "gen_ai.response.model",
    GenAiSystem = "gen_ai.system",
    GenAiToolCallArguments = "gen_ai.tool.call.arguments",
    GenAiToolCallResult = "gen_ai.tool.call.result",
    GenAiUsageCacheCreation = "gen_ai.usage.cache_creation.input_tokens",
    GenAiUsageCacheRead = "gen_ai.usage.cache_read.input_tokens",
    GenAiUsageCacheWrite = "gen_ai.usage.cache_write.input_tokens",
    GenAiUsageCompletion = "gen_ai.usage.completion_tokens",
    GenAiUsageInput = "gen_ai.usage.input_tokens",
    GenAiUsageOutput = "gen_ai.usage.output_tokens",
    GenAiUsagePrompt = "gen_ai.usage.prompt_tokens",
    VoltAgentInput = "input",
    OpenInferenceInput = "input.value",
    ClaudeInputTokens = "input_tokens",
    LangfuseInput = "langfuse.observation.input",
    LangfuseModelName = "langfuse.observation.model.name",
    LangfuseOutput = "langfuse.observation.output",
    LangfuseType = "langfuse.observation.type",
    LangfuseUsageDetails = "langfuse.observation.usage_details",
    LiveKitChatContext = "lk.chat_ctx",
    LiveKitInputText = "lk.input_text",
    LiveKitFunctionCalls = "lk.response.function_calls",
    LiveKitResponseText = "lk.response.text",
    LiveKitUserInput = "lk.user_input",
    LiveKitUserTranscript = "lk.user_transcript",
    VoltAgentLlmMessages = "llm.messages",
    LlmModelName = "llm.model_name",
    LlmProvider = "llm.provider",
    LlmRequestModelName = "llm.request.model_name",
    LlmResponseModelName = "llm.response.model_name",
    LlmTokenCountCompletion = "llm.token_count.completion",
    LlmTokenCountPrompt = "llm.token_count.prompt",
    LlmTokenCountCacheRead = "llm.token_count.prompt_details.cache_read",
    LlmTokenCountCacheWrite = "llm.token_count.prompt_details.cache_write",
    LlmTokenCountTotal = "llm.token_count.total",
    LlmUsageCompletion = "llm.usage.completion_tokens",
    LlmUsagePrompt = "llm.usage.prompt_tokens",
    LlmUsageTotal = "llm.usage.total_tokens",
    LaminarInput = "lmnr.span.input",
    LaminarOutput = "lmnr.span.output",
    LaminarType = "lmnr.span.type",
    MlflowTokenUsage = mlflow_keys::CHAT_TOKEN_USAGE,
    MlflowCost = mlflow_keys::LLM_COST,
    MlflowModel = mlflow_keys::LLM_MODEL,
    MlflowProvider = mlflow_keys::LLM_PROVIDER,
    MlflowInputs = mlflow_keys::SPAN_INPUTS,
    MlflowOutputs = mlflow_keys::SPAN_OUTPUTS,
    MlflowSpanType = mlflow_keys::SPAN_TYPE,
    ClaudeNewContext = "new_context",
    OpenInferenceKind = "openinference.span.kind",
    VoltAgentOutput = "output",
    OpenInferenceOutput = "output.value",
    ClaudeOutputTokens = "output_tokens",
    ClaudeModelOutput = "response.model_output",
    SessionId = "session.id",
    ClaudeSkillName = "skill_name",
    SpanType = "span.type",
    ClaudeSubagentType = "subagent_type",
    ClaudeToolInput = "tool_input",
    TraceloopInput = "traceloop.entity.input",
    TraceloopOutput = "traceloop.entity.output",
    TraceloopKind = "traceloop.span.kind",
    VoltAgentUsageCompletion = "usage.completion_tokens",
    VoltAgentUsagePrompt = "usage.prompt_tokens",
    VoltAgentUsageTotal = "usage.total_tokens",
    UserId = "user.id",
    ClaudeUserPrompt = "user_prompt",
}

impl Key {
    /// Number of keys.
    pub(super) const COUNT: usize = NAMES.len();

    /// The key of an attribute name.
    #[inline]
    pub(super) fn of(name: &str) -> Option<Self> {
        let mut slot = slot_of(name.as_bytes());
        loop {
            // Less than half of the slots are taken, so an empty one ends every search.
            let entry = usize::from(*SLOTS.get(slot % SLOT_COUNT)?);
            let (known, key) = NAMES.get(entry.checked_sub(1)?)?;
            if *known == name {
                return Some(*key);
            }
            slot += 1;
        }
    }

    /// Position in an array of [`Self::COUNT`].
    #[inline]
    pub(super) const fn index(self) -> usize {
        self as usize
    }
}

/// Slots of the hash table over [`NAMES`]: a power of two, more than twice their number.
const SLOT_COUNT: usize = 512;

/// Position of a name in [`NAMES`] plus one, zero for an empty slot; a name that finds its slot taken has
/// the next one that is free. Every attribute of every span is looked up here, and most are no key: a
/// search by comparison costs several times as much.
static SLOTS: [u8; SLOT_COUNT] = slots();

const fn slots() -> [u8; SLOT_COUNT] {
    let mut slots = [0; SLOT_COUNT];
    let mut index = 0;
    while index < NAMES.len() {
        let mut slot = slot_of(NAMES[index].0.as_bytes()) % SLOT_COUNT;
        while slots[slot] != 0 {
            slot = (slot + 1) % SLOT_COUNT;
        }
        index += 1;
        slots[slot] = position(index);
    }
    slots
}

/// Fails the build when there are too many names for a slot.
#[expect(clippy::cast_possible_truncation, reason = "checked right before")]
const fn position(index: usize) -> u8 {
    assert!(index <= u8::MAX as usize && 2 * index < SLOT_COUNT);
    index as u8
}

/// Where the search for a name begins: by its length and four of its bytes.
#[inline]
const fn slot_of(name: &[u8]) -> usize {
    let length = name.len();
    if length == 0 {
        return 0;
    }
    let near_end = if 4 <= length { name[length - 4] } else { 0 };
    length
        .wrapping_mul(37)
        .wrapping_add(name[0] as usize)
        .wrapping_add((name[length - 1] as usize).wrapping_mul(11))
        .wrapping_add((name[length / 2] as usize).wrapping_mul(101))
        .wrapping_add((near_end as usize).wrapping_mul(59))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: every name of the table, and names that are none.
    /// Guarantees: the table is in order, so that the search finds each name and nothing else.
    #[test]
    fn finds_every_name_and_nothing_else() {
        for (index, (name, key)) in NAMES.iter().enumerate() {
            assert_eq!(Key::of(name), Some(*key), "{name}");
            assert_eq!(key.index(), index, "{name}");
        }
        for name in ["", "inpu", "input.values", "zzz", "gen_ai", "mlflow.spantype"] {
            assert_eq!(Key::of(name), None, "{name}");
        }
    }

    /// Scenario: the searches for all names.
    /// Guarantees: names are spread, so that a search compares with one or two.
    #[test]
    fn names_are_spread_over_the_slots() {
        let looked_at = |name: &str| {
            let start = slot_of(name.as_bytes());
            (start..).take_while(|slot| SLOTS[slot % SLOT_COUNT] != 0).count()
        };
        let longest = NAMES.iter().map(|(name, _)| looked_at(name)).max();
        assert!(longest <= Some(8), "{longest:?}");
    }
}
