//! The attribute names that mean something: one table, searched once per attribute.

/// Declares [`Key`] and the table of names. Entries stand in byte order of their names.
macro_rules! keys {
    ($($key:ident = $name:literal,)+) => {
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
    MlflowTokenUsage = "mlflow.chat.tokenUsage",
    MlflowCost = "mlflow.llm.cost",
    MlflowModel = "mlflow.llm.model",
    MlflowProvider = "mlflow.llm.provider",
    MlflowInputs = "mlflow.spanInputs",
    MlflowOutputs = "mlflow.spanOutputs",
    MlflowSpanType = "mlflow.spanType",
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
        let found = NAMES.binary_search_by(|(known, _)| (*known).cmp(name)).ok()?;
        NAMES.get(found).map(|(_, key)| *key)
    }

    /// Position in an array of [`Self::COUNT`].
    #[inline]
    pub(super) const fn index(self) -> usize {
        self as usize
    }
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
}
