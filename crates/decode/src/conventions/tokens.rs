//! Token counts and costs of one span.

use serde_json::Value;
use tracelake_model::{TokenUsage, TraceCost};

use super::candidates::{Candidates, any_text, loose_text};
use super::keys::Key;
use super::span_type::ClaudeSpan;
use crate::otlp::view::ValueView;

/// Token counts: MLflow's own attribute, or the first convention that knows any of input, output
/// and total.
pub(super) fn usage(found: &Candidates<'_>) -> TokenUsage {
    if let Some(native) = found.value(Key::MlflowTokenUsage) {
        return native_usage(native);
    }
    let count = |key| found.value(key).and_then(count_of);
    let either = |first, second| found.value(first).or_else(|| found.value(second));
    // MLflow asks Gemini CLI before Claude Code, and Gemini CLI's names are those of GenAI.
    complete(TokenUsage {
        input_tokens: count(Key::LlmTokenCountPrompt),
        output_tokens: count(Key::LlmTokenCountCompletion),
        total_tokens: count(Key::LlmTokenCountTotal),
        cache_read_input_tokens: count(Key::LlmTokenCountCacheRead),
        cache_creation_input_tokens: count(Key::LlmTokenCountCacheWrite),
    })
    .or_else(|| {
        complete(TokenUsage {
            input_tokens: count(Key::GenAiUsageInput),
            output_tokens: count(Key::GenAiUsageOutput),
            total_tokens: None,
            cache_read_input_tokens: count(Key::GenAiUsageCacheRead),
            cache_creation_input_tokens: either(
                Key::GenAiUsageCacheWrite,
                Key::GenAiUsageCacheCreation,
            )
            .and_then(count_of),
        })
    })
    .or_else(|| claude(found))
    .or_else(|| {
        complete(TokenUsage {
            input_tokens: count(Key::GenAiUsagePrompt),
            output_tokens: count(Key::GenAiUsageCompletion),
            total_tokens: count(Key::LlmUsageTotal),
            ..TokenUsage::default()
        })
    })
    .or_else(|| {
        let volt_agent = |first, second| either(first, second).and_then(count_of);
        complete(TokenUsage {
            input_tokens: volt_agent(Key::VoltAgentUsagePrompt, Key::LlmUsagePrompt),
            output_tokens: volt_agent(Key::VoltAgentUsageCompletion, Key::LlmUsageCompletion),
            total_tokens: volt_agent(Key::VoltAgentUsageTotal, Key::LlmUsageTotal),
            ..TokenUsage::default()
        })
    })
    .or_else(|| found.value(Key::LangfuseUsageDetails).and_then(langfuse))
    .unwrap_or_default()
}

/// Cost as the sender gave it in `mlflow.llm.cost`.
pub(super) fn cost(found: &Candidates<'_>) -> TraceCost {
    let Some(value) = found.value(Key::MlflowCost) else {
        return TraceCost::default();
    };
    let Ok(numbers) = serde_json::from_str::<Numbers>(&any_text(value)) else {
        return TraceCost::default();
    };
    TraceCost {
        input_cost: numbers.amount("input_cost"),
        output_cost: numbers.amount("output_cost"),
        total_cost: numbers.amount("total_cost"),
    }
}

/// Adds the total; `None` when neither input, output nor total is known.
fn complete(mut usage: TokenUsage) -> Option<TokenUsage> {
    if let (None, Some(input), Some(output)) =
        (usage.total_tokens, usage.input_tokens, usage.output_tokens)
    {
        usage.total_tokens = input.checked_add(output);
    }
    let known = [usage.input_tokens, usage.output_tokens, usage.total_tokens];
    known.iter().any(Option::is_some).then_some(usage)
}

/// Claude reports input tokens without those of the cache; everybody else includes them.
fn claude(found: &Candidates<'_>) -> Option<TokenUsage> {
    if ClaudeSpan::of(found)? != ClaudeSpan::LlmRequest {
        return None;
    }
    let count = |key| found.value(key).and_then(count_of);
    let read = count(Key::ClaudeCacheReadTokens);
    let creation = count(Key::ClaudeCacheCreationTokens);
    let input = count(Key::ClaudeInputTokens).and_then(|input| {
        input.checked_add(read.unwrap_or_default())?.checked_add(creation.unwrap_or_default())
    });
    complete(TokenUsage {
        input_tokens: input,
        output_tokens: count(Key::ClaudeOutputTokens),
        total_tokens: None,
        cache_read_input_tokens: read,
        cache_creation_input_tokens: creation,
    })
}

fn native_usage(value: ValueView<'_>) -> TokenUsage {
    let Ok(numbers) = serde_json::from_str::<Numbers>(&any_text(value)) else {
        return TokenUsage::default();
    };
    TokenUsage {
        input_tokens: numbers.count(&["input_tokens"]),
        output_tokens: numbers.count(&["output_tokens"]),
        total_tokens: numbers.count(&["total_tokens"]),
        cache_read_input_tokens: numbers.count(&["cache_read_input_tokens"]),
        cache_creation_input_tokens: numbers.count(&["cache_creation_input_tokens"]),
    }
}

/// `langfuse.observation.usage_details`: names are free, these are the ones seen.
fn langfuse(value: ValueView<'_>) -> Option<TokenUsage> {
    let numbers: Numbers = serde_json::from_str(&any_text(value)).ok()?;
    complete(TokenUsage {
        input_tokens: numbers.count(&["input", "input_tokens", "prompt_tokens"]),
        output_tokens: numbers.count(&["output", "output_tokens", "completion_tokens"]),
        total_tokens: numbers.count(&["total", "total_tokens"]),
        cache_read_input_tokens: numbers.count(&[
            "input_cache_read",
            "prompt_details.cache_read",
            "cache_read_input_tokens",
            "input_cached_tokens",
        ]),
        cache_creation_input_tokens: numbers.count(&[
            "input_cache_creation",
            "prompt_details.cache_write",
            "cache_creation_input_tokens",
        ]),
    })
}

/// A count from a number, or from a string that holds one. Never by way of a double, unless the
/// sender used one, and then only where it is exact.
fn count_of(value: ValueView<'_>) -> Option<i64> {
    match value {
        ValueView::Int(number) => Some(number),
        ValueView::Double(number) => whole(number),
        ValueView::String(_) => loose_text(value)?.trim().parse().ok(),
        ValueView::Empty
        | ValueView::Bool(_)
        | ValueView::Array(_)
        | ValueView::KeyValues(_)
        | ValueView::Bytes(_) => None,
    }
}

#[expect(clippy::cast_possible_truncation, reason = "whole and at most 2^53, so it is exact")]
fn whole(number: f64) -> Option<i64> {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    (number.fract() == 0.0 && number.abs() <= EXACT).then_some(number as i64)
}

/// The members of a small JSON object.
#[derive(serde::Deserialize)]
struct Numbers(serde_json::Map<String, Value>);

impl Numbers {
    /// The first of `names` that holds a count.
    fn count(&self, names: &[&str]) -> Option<i64> {
        names.iter().find_map(|name| match self.0.get(*name)? {
            Value::Number(number) => number.as_i64().or_else(|| number.as_f64().and_then(whole)),
            Value::String(text) => text.trim().parse().ok(),
            Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
        })
    }

    /// The finite number `name`.
    fn amount(&self, name: &str) -> Option<f64> {
        self.0.get(name)?.as_f64().filter(|amount| amount.is_finite())
    }
}
