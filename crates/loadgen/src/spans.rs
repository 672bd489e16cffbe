//! What the spans look like: LLM calls of an agent, or the light spans of an HTTP service.

use clap::ValueEnum;

use crate::wire::{Filling, Message};

/// Kind of load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Load {
    /// Spans of an agent: some twenty attributes, two of them chat messages. About 2.27 KB each.
    Llm,
    /// Spans of an HTTP service. About 247 bytes each.
    Light,
}

impl Load {
    /// Name in reports.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Llm => "llm",
            Self::Light => "light",
        }
    }

    /// Spans of one request, unless another number is asked for.
    pub(crate) const fn usual_batch(self) -> usize {
        match self {
            Self::Llm => 200,
            Self::Light => 1000,
        }
    }

    /// The resource that the spans of a request share.
    pub(crate) fn resource(self) -> Message {
        let service = match self {
            Self::Llm => "support-agent",
            Self::Light => "checkout",
        };
        let text = |key: &str, value: &str| attribute(key, string(value.as_bytes()));
        Message::new()
            .message(1, text("service.name", service))
            .message(1, text("service.version", "2.14.3"))
            .message(1, text("deployment.environment.name", "production"))
            .message(1, text("telemetry.sdk.language", "python"))
            .message(1, text("telemetry.sdk.name", "opentelemetry"))
            .message(1, text("telemetry.sdk.version", "1.38.0"))
    }

    /// The span at a place of its trace; the one without a parent is the root.
    pub(crate) fn span(self, place: usize, root: bool) -> Message {
        match self {
            Self::Llm => llm_span(place, root),
            Self::Light => light_span(place, root),
        }
    }
}

/// What calls of one kind have in common.
struct Call {
    span: &'static str,
    operation: &'static str,
    span_kind: u64,
    model: &'static str,
    response_model: &'static str,
    question_bytes: usize,
    answer_bytes: usize,
}

const AGENT: Call = Call {
    span: "invoke_agent support-agent",
    operation: "invoke_agent",
    span_kind: 1,
    model: "gpt-4o",
    response_model: "gpt-4o-2024-08-06",
    question_bytes: 360,
    answer_bytes: 770,
};

const CALLS: [Call; 4] = [
    Call {
        span: "chat gpt-4o-mini",
        operation: "chat",
        span_kind: 3,
        model: "gpt-4o-mini",
        response_model: "gpt-4o-mini-2024-07-18",
        question_bytes: 660,
        answer_bytes: 410,
    },
    Call {
        span: "execute_tool search_orders",
        operation: "execute_tool",
        span_kind: 1,
        model: "gpt-4o-mini",
        response_model: "gpt-4o-mini-2024-07-18",
        question_bytes: 210,
        answer_bytes: 840,
    },
    Call {
        span: "chat claude-sonnet-4-5",
        operation: "chat",
        span_kind: 3,
        model: "claude-sonnet-4-5",
        response_model: "claude-sonnet-4-5-20250929",
        question_bytes: 960,
        answer_bytes: 510,
    },
    Call {
        span: "chat gpt-4o",
        operation: "chat",
        span_kind: 3,
        model: "gpt-4o",
        response_model: "gpt-4o-2024-08-06",
        question_bytes: 480,
        answer_bytes: 300,
    },
];

const SYSTEM_PROMPT: &str = "You are the support agent of an online shop. Answer in the customer's \
    language, be brief, never promise a refund before the order was looked up, and name the order.";

fn llm_span(place: usize, root: bool) -> Message {
    let call = if root { &AGENT } else { CALLS.get(place % CALLS.len()).unwrap_or(&AGENT) };
    span(root, call.span, call.span_kind, llm_attributes(call))
}

fn llm_attributes(call: &Call) -> Vec<Message> {
    let text = |key: &str, value: &str| attribute(key, string(value.as_bytes()));
    let number = |key: &str, value: u64| attribute(key, Message::new().number(3, value));
    let double = |key: &str, value: f64| attribute(key, Message::new().double(4, value));
    let counted = |key: &str| attribute(key, Message::new().number_hole(3));
    let finished = Message::new().message(1, string(b"stop"));
    let provider = if call.model.starts_with("claude") { "anthropic" } else { "openai" };
    let question = Message::new()
        .literal(b"[{\"role\":\"system\",\"parts\":[{\"type\":\"text\",\"content\":\"")
        .literal(SYSTEM_PROMPT.as_bytes())
        .literal(b"\"}]},{\"role\":\"user\",\"parts\":[{\"type\":\"text\",\"content\":\"")
        .hole(Filling::Text { length: call.question_bytes })
        .literal(b"\"}]}]");
    let answer = Message::new()
        .literal(b"[{\"role\":\"assistant\",\"parts\":[{\"type\":\"text\",\"content\":\"")
        .hole(Filling::Text { length: call.answer_bytes })
        .literal(b"\"}],\"finish_reason\":\"stop\"}]");
    vec![
        text("gen_ai.operation.name", call.operation),
        text("gen_ai.provider.name", provider),
        text("gen_ai.request.model", call.model),
        text("gen_ai.response.model", call.response_model),
        attribute("gen_ai.response.id", prefixed("chatcmpl-", Filling::SpanHex { length: 16 })),
        double("gen_ai.request.temperature", 0.2),
        double("gen_ai.request.top_p", 0.95),
        number("gen_ai.request.max_tokens", 1024),
        attribute("gen_ai.response.finish_reasons", Message::new().message(5, finished)),
        counted("gen_ai.usage.input_tokens"),
        counted("gen_ai.usage.output_tokens"),
        attribute("gen_ai.conversation.id", prefixed("conv-", Filling::TraceHex { length: 12 })),
        text("gen_ai.agent.name", "support-agent"),
        text("gen_ai.output.type", "text"),
        text("server.address", "llm-gateway.internal"),
        number("server.port", 443),
        attribute("user.id", prefixed("customer-", Filling::TraceHex { length: 6 })),
        text("app.tenant", "emea-retail"),
        attribute("gen_ai.input.messages", Message::new().message(1, question)),
        attribute("gen_ai.output.messages", Message::new().message(1, answer)),
    ]
}

const ROUTES: [(&str, &str); 6] = [
    ("GET /orders/{id}", "/orders/{id}"),
    ("POST /orders", "/orders"),
    ("GET /stock", "/stock"),
    ("POST /payments", "/payments"),
    ("GET /users/{id}", "/users/{id}"),
    ("PUT /carts/{id}", "/carts/{id}"),
];

fn light_span(place: usize, root: bool) -> Message {
    let (name, route) = ROUTES.get(place % ROUTES.len()).copied().unwrap_or(("GET", "/"));
    let method = name.split(' ').next().unwrap_or_default();
    let text = |key: &str, value: &str| attribute(key, string(value.as_bytes()));
    let attributes = vec![
        text("http.request.method", method),
        text("http.route", route),
        attribute("http.response.status_code", Message::new().number(3, 200)),
        text("server.address", "checkout-7.production.internal"),
        text("url.scheme", "https"),
    ];
    span(root, name, 2, attributes)
}

/// A span with its fields in the order of their numbers, as the SDKs of OpenTelemetry write them.
fn span(root: bool, name: &str, kind: u64, attributes: Vec<Message>) -> Message {
    let ids = Message::new().bytes_hole(1, Filling::TraceId).bytes_hole(2, Filling::SpanId);
    let ids = if root { ids } else { ids.bytes_hole(4, Filling::ParentId) };
    let frame = ids
        .bytes(5, name.as_bytes())
        .number(6, kind)
        .fixed64_hole(7, Filling::Start)
        .fixed64_hole(8, Filling::End);
    attributes
        .into_iter()
        .fold(frame, |span, attribute| span.message(9, attribute))
        .message(15, Message::new().number(3, 1))
}

fn attribute(key: &str, value: Message) -> Message {
    Message::new().bytes(1, key.as_bytes()).message(2, value)
}

fn string(text: &[u8]) -> Message {
    Message::new().bytes(1, text)
}

fn prefixed(prefix: &str, what: Filling) -> Message {
    Message::new().message(1, Message::new().literal(prefix.as_bytes()).hole(what))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mean(load: Load) -> usize {
        (0..10).map(|place| load.span(place, place == 9).len()).sum::<usize>() / 10
    }

    /// The figures of the documents are per span of these sizes.
    #[test]
    fn spans_are_as_large_as_they_are_said_to_be() {
        assert!((2230..=2310).contains(&mean(Load::Llm)), "{}", mean(Load::Llm));
        assert!((240..=254).contains(&mean(Load::Light)), "{}", mean(Load::Light));
    }
}
