use std::sync::Arc;

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use tracelake_model::Limits;

use super::*;
use crate::otlp::fields::{
    any_value, array_value, event, export_request, key_value, key_value_list, resource,
    resource_spans, scope_spans, span, status,
};
use crate::request::{SpanSource, decode_otlp};
use crate::writer::MessageWriter;

/// A value of an attribute.
#[derive(Clone, Copy)]
enum V<'a> {
    S(&'a str),
    I(i64),
    D(f64),
    /// An array of strings.
    L(&'a [&'a str]),
    /// A map of strings.
    M(&'a [(&'a str, &'a str)]),
}
use V::{D, I, L, M, S};

fn write_value(writer: &mut MessageWriter, value: V<'_>) {
    match value {
        S(text) => writer.bytes(any_value::STRING_VALUE, text.as_bytes()),
        I(number) => writer.number(any_value::INT_VALUE, number.cast_unsigned()),
        D(number) => writer.fixed64(any_value::DOUBLE_VALUE, number.to_bits()),
        L(texts) => writer.message(any_value::ARRAY_VALUE, |array| {
            for text in texts {
                array.message(array_value::VALUES, |element| {
                    element.bytes(any_value::STRING_VALUE, text.as_bytes())
                });
            }
        }),
        M(entries) => writer.message(any_value::KVLIST_VALUE, |map| {
            for (key, text) in entries {
                write_attribute(map, key_value_list::VALUES, key, S(text));
            }
        }),
    }
}

fn write_attribute(writer: &mut MessageWriter, number: u32, key: &str, value: V<'_>) {
    writer.message(number, |attribute| {
        attribute.bytes(key_value::KEY, key.as_bytes());
        attribute.message(key_value::VALUE, |message| write_value(message, value));
    });
}

type Attributes<'a> = &'a [(&'a str, V<'a>)];

fn span(attributes: Attributes<'_>, events: &[(&str, Attributes<'_>)]) -> Vec<u8> {
    let mut writer = MessageWriter::new();
    for (key, value) in attributes {
        write_attribute(&mut writer, span::ATTRIBUTES, key, *value);
    }
    for (name, attributes) in events {
        writer.message(span::EVENTS, |event| {
            event.bytes(event::NAME, name.as_bytes());
            for (key, value) in *attributes {
                write_attribute(event, event::ATTRIBUTES, key, *value);
            }
        });
    }
    writer.into_bytes()
}

/// What one span means, in plain text; `-` for what is not known.
#[derive(Debug, PartialEq)]
struct Plain {
    span_type: String,
    inputs: String,
    outputs: String,
    model: String,
    provider: String,
    usage: [Option<i64>; 5],
}

fn plain(attributes: Attributes<'_>, events: &[(&str, Attributes<'_>)]) -> Plain {
    let message = span(attributes, events);
    let view = SpanView::new(&message);
    let meaning = interpret(&view);
    let text = |text: Option<Cow<'_, str>>| text.as_deref().unwrap_or("-").to_owned();
    let usage = meaning.usage;
    Plain {
        span_type: text(meaning.span_type),
        inputs: text(meaning.inputs.as_ref().map(Payload::text)),
        outputs: text(meaning.outputs.as_ref().map(Payload::text)),
        model: text(meaning.model),
        provider: text(meaning.model_provider),
        usage: [
            usage.input_tokens,
            usage.output_tokens,
            usage.total_tokens,
            usage.cache_read_input_tokens,
            usage.cache_creation_input_tokens,
        ],
    }
}

fn check(attributes: Attributes<'_>, expected: [&str; 5], usage: [Option<i64>; 5]) {
    let [span_type, inputs, outputs, model, provider] = expected.map(str::to_owned);
    let expected = Plain { span_type, inputs, outputs, model, provider, usage };
    assert_eq!(plain(attributes, &[]), expected);
}

const NONE: [Option<i64>; 5] = [None; 5];

/// Scenario: MLflow's own attributes, as its SDK sends them and bare, beside those of others.
/// Guarantees: they win even when empty; only an unknown span type gives way.
#[test]
fn native_attributes_win() {
    check(
        &[
            ("mlflow.spanType", S("\"TOOL\"")),
            ("mlflow.spanInputs", S("{}")),
            ("mlflow.spanOutputs", S("5")),
            ("mlflow.llm.model", S("\"m\"")),
            ("mlflow.llm.provider", S("p")),
            (
                "mlflow.chat.tokenUsage",
                S(r#"{"input_tokens": 1, "output_tokens": 9007199254740993}"#),
            ),
            ("input.value", S("x")),
            ("llm.model_name", S("x")),
            ("openinference.span.kind", S("LLM")),
            ("llm.token_count.total", I(7)),
        ],
        ["TOOL", "{}", "\"5\"", "m", "p"],
        [Some(1), Some(9_007_199_254_740_993), None, None, None],
    );
    let unknown = [("mlflow.spanType", S("UNKNOWN")), ("openinference.span.kind", S("LLM"))];
    check(&unknown, ["LLM", "-", "-", "-", "-"], NONE);
    // The SDK sends values as they are, so that a string is a string.
    check(&[("mlflow.spanInputs", S("hello"))], ["-", "\"hello\"", "-", "-", "-"], NONE);
    check(&[("mlflow.spanInputs", M(&[("a", "b")]))], ["-", "{\"a\":\"b\"}", "-", "-", "-"], NONE);
}

/// Scenario: a cost as MLflow's SDK sends it, and one that is no object.
/// Guarantees: its members are taken; anything else is no cost.
#[test]
fn cost_is_what_the_sender_gave() {
    let cost = |text| {
        let message = span(&[("mlflow.llm.cost", S(text))], &[]);
        interpret(&SpanView::new(&message)).cost
    };
    let found = cost(r#"{"input_cost": 0.25, "output_cost": 1, "total_cost": 1.25}"#);
    assert_eq!((found.input_cost, found.total_cost), (Some(0.25), Some(1.25)));
    assert_eq!(found.output_cost, Some(1.0));
    assert_eq!(cost("0.5"), TraceCost::default());
}

/// Scenario: a span of OpenInference, with a kind in lower case and counts in several types.
/// Guarantees: every field is read; string JSON is taken verbatim, other strings are quoted.
#[test]
fn reads_open_inference() {
    check(
        &[
            ("openinference.span.kind", S("retriever")),
            ("input.value", S(r#"{ "q": 1 }"#)),
            ("output.value", S("plain \"text\"")),
            ("llm.model_name", S("gpt")),
            ("llm.provider", S("openai")),
            ("llm.token_count.prompt", S("12")),
            ("llm.token_count.completion", D(3.0)),
            ("llm.token_count.prompt_details.cache_read", I(2)),
        ],
        ["RETRIEVER", r#"{ "q": 1 }"#, r#""plain \"text\"""#, "gpt", "openai"],
        [Some(12), Some(3), Some(15), Some(2), None],
    );
}

/// Scenario: messages and tools of the GenAI conventions, with a falsy value in front.
/// Guarantees: empty values count as absent, the model of the answer wins.
#[test]
fn reads_gen_ai() {
    check(
        &[
            ("gen_ai.operation.name", S("chat")),
            ("input.value", S("[]")),
            ("gen_ai.input.messages", L(&["a", "b"])),
            ("gen_ai.output.messages", S("")),
            ("gen_ai.tool.call.result", S("0")),
            ("gen_ai.request.model", S("asked")),
            ("gen_ai.response.model", S("answered")),
            ("gen_ai.system", S("old")),
            ("gen_ai.provider.name", S("new")),
            ("gen_ai.usage.input_tokens", I(0)),
            ("gen_ai.usage.cache_creation.input_tokens", I(4)),
        ],
        ["CHAT_MODEL", r#"["a","b"]"#, "\"0\"", "answered", "new"],
        [Some(0), None, None, None, Some(4)],
    );
}

/// Scenario: Gemini CLI's messages in each form.
/// Guarantees: lists are wrapped as the Gemini SDK has them, objects stay, others are untouched.
#[test]
fn wraps_gemini_cli() {
    let cli = ("gen_ai.agent.name", S("gemini-cli"));
    check(
        &[
            cli,
            ("gen_ai.operation.name", S("llm_call")),
            ("gen_ai.input.messages", S(r#"[{"role":"user"}]"#)),
            (
                "gen_ai.output.messages",
                S(r#"[{"parts":[{"text":"a"}]},{"x":1},{"parts":["b", 2]}]"#),
            ),
        ],
        [
            "LLM",
            r#"{"contents":[{"role":"user"}]}"#,
            r#"{"candidates":[{"content":{"role":"model","parts":[{"text":"a"},"b",2]}}]}"#,
            "-",
            "-",
        ],
        NONE,
    );
    check(
        &[cli, ("gen_ai.input.messages", S("hi")), ("gen_ai.output.messages", S("[1]"))],
        ["-", r#"{"contents":"hi"}"#, "[1]", "-", "-"],
        NONE,
    );
}

/// Scenario: Claude Code's three kinds of spans, with redacted content and a tool's output event.
/// Guarantees: content follows the kind, redacted content is absent, cache tokens are added in.
#[test]
fn reads_claude_code() {
    check(
        &[
            ("span.type", S("claude_code.interaction")),
            ("user_prompt", S("<REDACTED>")),
            ("new_context", S("ctx")),
        ],
        ["AGENT", "\"ctx\"", "-", "-", "-"],
        NONE,
    );
    check(
        &[
            ("span.type", S("llm_request")),
            ("response.model_output", S("out")),
            ("input_tokens", I(1)),
            ("cache_read_tokens", S("10")),
            ("cache_creation_tokens", I(100)),
            ("output_tokens", I(5)),
        ],
        ["LLM", "-", "\"out\"", "-", "-"],
        [Some(111), Some(5), Some(116), Some(10), Some(100)],
    );
    let tool = [
        ("span.type", S("claude_code.tool")),
        ("full_command", S("ls")),
        ("file_path", S("<REDACTED>")),
        ("skill_name", S("{\"a\": 1}")),
    ];
    let output: Attributes<'_> = &[("output", S("<REDACTED>")), ("content", S("done"))];
    let found = plain(&tool, &[("other", &[]), ("tool.output", output)]);
    assert_eq!(found.inputs, r#"{"full_command":"ls","skill_name":{"a": 1}}"#);
    assert_eq!((found.span_type.as_str(), found.outputs.as_str()), ("TOOL", "\"done\""));
}

/// Scenario: Traceloop's numbered attributes, of which the first is empty.
/// Guarantees: the first that is not empty is lifted, names in between are not mistaken.
#[test]
fn reads_traceloop() {
    check(
        &[
            ("traceloop.span.kind", S("workflow")),
            ("gen_ai.prompt.0.content", S("")),
            ("gen_ai.prompt.0.role", S("user")),
            ("gen_ai.prompt.x.content", S("no")),
            ("gen_ai.prompt.1.content", S("first")),
            ("gen_ai.prompt.2.content", S("second")),
            ("gen_ai.completion.0.tool_calls.0.arguments", S("{\"a\":1}")),
            ("gen_ai.system", S("anthropic")),
            ("gen_ai.usage.prompt_tokens", I(2)),
            ("llm.usage.total_tokens", I(9)),
        ],
        ["WORKFLOW", "\"first\"", "-", "-", "anthropic"],
        [Some(2), None, Some(9), None, None],
    );
    check(
        &[
            ("gen_ai.completion.10.tool_calls.3.arguments", S("{\"a\":1}")),
            ("gen_ai.completion.0.content", S("done")),
        ],
        ["-", "{\"a\":1}", "\"done\"", "-", "-"],
        NONE,
    );
}

/// Scenario: spans of the Vercel AI SDK: one call of a model, and one that is not.
/// Guarantees: the call's prompts and responses become objects, tools are decoded, and the model
/// of the response is found; other spans have single values.
#[test]
fn reads_vercel() {
    check(
        &[
            ("ai.operationId", S("ai.generateText.doGenerate")),
            ("ai.prompt.messages", S(r#"[{"role": "user"}]"#)),
            ("ai.prompt.tools", L(&[r#"{"type":"function"}"#, "x"])),
            ("ai.response.text", S("hi")),
            ("ai.response.model", S("gpt-4o")),
            ("ai.response.finish", S("5")),
        ],
        [
            "LLM",
            r#"{"messages":[{"role": "user"}],"tools":[{"type":"function"},"x"]}"#,
            r#"{"text":"hi","model":"gpt-4o","finish":5}"#,
            "gpt-4o",
            "-",
        ],
        NONE,
    );
    check(
        &[
            ("ai.operationId", S("ai.toolCall")),
            ("ai.prompt.messages", S("no")),
            ("ai.toolCall.args", S(r#"{"model": "in"}"#)),
            ("ai.toolCall.result", S("r")),
        ],
        ["TOOL", r#"{"model": "in"}"#, "\"r\"", "in", "-"],
        NONE,
    );
}

/// Scenario: one span each of Google ADK, VoltAgent, LiveKit, Laminar and Langfuse.
/// Guarantees: type, inputs, outputs, model, provider and counts are those of the convention.
#[test]
fn reads_the_other_conventions() {
    check(
        &[
            ("gcp.vertex.agent.llm_request", S("{}")),
            ("gcp.vertex.agent.tool_call_args", S("{\"a\":1}")),
            ("gcp.vertex.agent.llm_response", S("r")),
        ],
        ["-", "{\"a\":1}", "\"r\"", "-", "-"],
        NONE,
    );
    check(
        &[
            ("span.type", S("memory")),
            ("entity.type", S("agent")),
            ("input", S("i")),
            ("output", S("o")),
            ("llm.usage.prompt_tokens", I(1)),
            ("usage.completion_tokens", I(2)),
        ],
        ["MEMORY", "\"i\"", "\"o\"", "-", "-"],
        [Some(1), Some(2), Some(3), None, None],
    );
    check(
        &[
            ("gen_ai.request.model", S("m")),
            ("lk.user_input", S("i")),
            ("lk.response.text", S("o")),
        ],
        ["LLM", "\"i\"", "\"o\"", "m", "-"],
        NONE,
    );
    check(&[("lk.x", I(1)), ("lk.function_tool.name", S("t"))], ["TOOL", "-", "-", "-", "-"], NONE);
    check(&[("gen_ai.operation.name", S("CHAT"))], ["CHAT_MODEL", "-", "-", "-", "-"], NONE);
    check(
        &[
            ("lmnr.span.type", S("EXECUTOR")),
            ("lmnr.span.input", S("i")),
            ("lmnr.span.output", I(1)),
        ],
        ["AGENT", "\"i\"", "1", "-", "-"],
        NONE,
    );
    check(
        &[
            ("langfuse.observation.type", S("generation")),
            ("langfuse.observation.input", S("{\"model\":\"other\"}")),
            ("langfuse.observation.model.name", S("gpt")),
            (
                "langfuse.observation.usage_details",
                S(r#"{"input": 10, "output": 5, "input_cache_read": 3}"#),
            ),
        ],
        ["LLM", "{\"model\":\"other\"}", "-", "gpt", "-"],
        [Some(10), Some(5), Some(15), Some(3), None],
    );
}

/// Scenario: inputs and outputs told by events, with and without attributes.
/// Guarantees: Spring AI comes before GenAI messages, and attributes come before both.
#[test]
fn reads_events() {
    let user: Attributes<'_> = &[("content", S("[{\"text\": 1}]"))];
    let choice: Attributes<'_> = &[("content", S("hi")), ("role", S("model"))];
    let events = [
        ("gen_ai.system.message", &[("content", S("be good"))] as Attributes<'_>),
        ("gen_ai.user.message", user),
        ("gen_ai.assistant.message", &[("content", S(""))]),
        ("gen_ai.choice", choice),
    ];
    let found = plain(&[], &events);
    assert_eq!(
        found.inputs,
        r#"[{"role":"system","content":"be good"},{"role":"user","content":[{"text": 1}]}]"#
    );
    assert_eq!(found.outputs, r#"[{"role":"model","content":"hi"}]"#);
    let spring = [("gen_ai.content.prompt", &[("gen_ai.prompt", S("p"))] as Attributes<'_>)];
    assert_eq!(plain(&[], &[&spring[..], &events[..]].concat()).inputs, "\"p\"");
    assert_eq!(plain(&[("input", S("a"))], &events).inputs, "\"a\"");
}

/// Scenario: an attribute that comes twice, and one attribute lifted.
/// Guarantees: the last one counts, and the payload points at its position.
#[test]
fn points_at_the_lifted_attribute() {
    let message = span(&[("input.value", S("a")), ("x", I(1)), ("input.value", S("[2]"))], &[]);
    match interpret(&SpanView::new(&message)).inputs {
        Some(Payload::Attribute { position, key, form, .. }) => {
            assert_eq!((position, key, form), (2, "input.value", PayloadForm::Text));
        }
        other => panic!("{other:?}"),
    }
}

/// Scenario: counts that are no whole numbers, past 64 bits, or no numbers.
/// Guarantees: they are absent; nothing is rounded, nothing overflows.
#[test]
fn counts_are_exact_or_absent() {
    let usage = |value| plain(&[("gen_ai.usage.input_tokens", value)], &[]).usage[0];
    assert_eq!(usage(S("9007199254740993")), Some(9_007_199_254_740_993));
    assert_eq!(usage(S("\"26\"")), Some(26));
    for value in [D(1.5), D(1e300), D(f64::NAN), S("1e3"), S("99999999999999999999"), S(""), L(&[])]
    {
        assert_eq!(usage(value), None);
    }
    let both = [("gen_ai.usage.input_tokens", I(i64::MAX)), ("gen_ai.usage.output_tokens", I(1))];
    assert_eq!(plain(&both, &[]).usage, [Some(i64::MAX), Some(1), None, None, None]);
}

struct TestSpan<'a> {
    id: u8,
    parent: u8,
    status: u64,
    attributes: Attributes<'a>,
}

const fn node<'a>(id: u8, parent: u8, attributes: Attributes<'a>) -> TestSpan<'a> {
    TestSpan { id, parent, status: 0, attributes }
}

fn records(service: &str, spans: &[TestSpan<'_>]) -> Vec<SpanRecord> {
    let mut writer = MessageWriter::new();
    writer.message(export_request::RESOURCE_SPANS, |resource_spans| {
        resource_spans.message(resource_spans::RESOURCE, |resource| {
            write_attribute(resource, resource::ATTRIBUTES, "service.name", S(service));
            write_attribute(resource, resource::ATTRIBUTES, "telemetry.sdk.name", S("x"));
            write_attribute(resource, resource::ATTRIBUTES, "process.pid", I(7));
        });
        resource_spans.message(resource_spans::SCOPE_SPANS, |scope_spans| {
            for test in spans {
                scope_spans.message(scope_spans::SPANS, |message| {
                    message.bytes(span::TRACE_ID, &[9; 16]);
                    message.bytes(span::SPAN_ID, &[test.id; 8]);
                    message.bytes(span::PARENT_SPAN_ID, &[test.parent; 8]);
                    message.fixed64(span::START_TIME_UNIX_NANO, u64::from(test.id) * 1000);
                    message.fixed64(span::END_TIME_UNIX_NANO, u64::from(test.id) * 2000);
                    for (key, value) in test.attributes {
                        write_attribute(message, span::ATTRIBUTES, key, *value);
                    }
                    message
                        .message(span::STATUS, |status| status.number(status::CODE, test.status));
                });
            }
        });
    });
    let body = Bytes::from(writer.into_bytes());
    decode_otlp(&body, SpanSource::Otlp, &Limits::default()).unwrap().spans
}

fn tokens_of(spans: &[TestSpan<'_>]) -> Option<i64> {
    interpret_trace(&records("s", spans)).usage.total_tokens
}

/// Scenario: rollups over children, orphans, shared ids, circles, a span that is its own parent.
/// Guarantees: data hides what is below it and nothing else; every span is looked at once.
#[test]
fn sums_are_aware_of_the_tree() {
    const USED: Attributes<'_> = &[("llm.token_count.total", I(10))];
    assert_eq!(tokens_of(&[node(1, 0, &[]), node(2, 1, USED), node(3, 1, USED)]), Some(20));
    assert_eq!(tokens_of(&[node(3, 2, USED), node(2, 1, &[]), node(1, 0, USED)]), Some(10));
    assert_eq!(tokens_of(&[node(2, 9, USED), node(3, 8, USED)]), Some(20));
    let shared = [node(1, 0, &[]), node(2, 1, USED), node(2, 1, USED), node(3, 2, USED)];
    assert_eq!(tokens_of(&shared), Some(20));
    assert_eq!(tokens_of(&[node(1, 2, USED), node(2, 1, USED), node(3, 3, USED)]), Some(20));
    assert_eq!(tokens_of(&[node(1, 0, &[])]), None);
    assert_eq!(tokens_of(&[]), None);
}

/// Scenario: a chain of parents as long as the limits allow spans in a trace, sent child first.
/// Guarantees: no recursion, no quadratic work.
#[test]
fn long_chains_are_no_burden() {
    let template = records("s", &[node(1, 0, &[("llm.token_count.total", I(1))])]);
    let id = |n: u64| tracelake_model::SpanId((n + 1).to_be_bytes());
    let chain: Vec<SpanRecord> = (0..50_000_u64)
        .rev()
        .map(|n| SpanRecord {
            span_id: id(n),
            parent: (0 < n).then(|| id(n - 1)),
            ..template[0].clone()
        })
        .collect();
    assert_eq!(interpret_trace(&chain).usage.total_tokens, Some(1));
}

/// Scenario: a trace over two services with two roots, a session on a child and tags on a root.
/// Guarantees: state of the first root, previews of the last, first session, all services, by start
/// and id; the same in any order of arrival.
#[test]
fn reads_a_trace_as_a_whole() {
    let mut spans = records(
        "front",
        &[
            node(3, 1, &[("gen_ai.conversation.id", S("\"c1\"")), ("user.id", S(""))]),
            TestSpan {
                id: 1,
                parent: 0,
                status: 2,
                attributes: &[
                    ("session.id", S("s2")),
                    ("user.id", I(5)),
                    ("mlflow.traceTag.mlflow.traceName", S("name")),
                    ("mlflow.traceTag.service.name", S("mine")),
                    ("mlflow.traceTag.mlflow.trace.spansLocation", S("no")),
                ],
            },
        ],
    );
    spans.extend(records(
        "back",
        &[node(4, 0, &[("input.value", S(r#"{"messages":[{"role":"user","content":"q"}]}"#))])],
    ));
    let mut reversed = spans.clone();
    reversed.reverse();
    let trace = interpret_trace(&reversed);
    let [shown, other] = [&trace, &interpret_trace(&spans)].map(|trace| format!("{trace:?}"));
    assert_eq!(shown, other);
    assert_eq!(trace.state, TraceState::Error);
    assert_eq!((trace.start_time_unix_nano, trace.end_time_unix_nano), (1000, 8000));
    assert_eq!(trace.session_id.as_deref(), Some("s2"));
    assert_eq!(trace.user_id.as_deref(), Some("5"));
    assert_eq!(trace.trace_name.as_deref(), Some("name"));
    assert_eq!(trace.services, ["front", "back"]);
    assert_eq!(trace.request_preview.as_deref(), Some("q"));
    assert_eq!(trace.response_preview, None);
    let tags: Vec<_> = trace.tags.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    assert_eq!(tags, [("process.pid", "7"), ("service.name", "mine")]);
    assert_eq!(interpret_trace(&[]).state, TraceState::InProgress);
    let group = Arc::clone(&spans[0].group);
    assert_eq!(
        interpret_trace(&[SpanRecord { group, ..spans[0].clone() }]).state,
        TraceState::InProgress
    );
    let long = "x".repeat(300);
    let session = interpret_trace(&records("s", &[node(1, 0, &[("session.id", S(&long))])]));
    assert_eq!(session.session_id.map(|session| session.len()), Some(250));
}

/// Names that conventions know, names like them, and others.
fn any_name() -> impl Strategy<Value = String> {
    let names: Vec<&str> = keys::NAMES.iter().map(|(name, _)| *name).collect();
    let more = [
        "gen_ai.prompt.0.content",
        "gen_ai.completion.1.content",
        "gen_ai.completion.1.tool_calls.0.arguments",
        "ai.prompt.messages",
        "ai.prompt.tools",
        "ai.response.",
        "lk.function_tool",
        "mlflow.traceTag.a",
        "content",
        "role",
        "",
    ];
    select([names, more.to_vec()].concat()).prop_map(str::to_owned)
}

/// Text that conventions react to, JSON whole and broken, and any text.
fn any_text_value() -> impl Strategy<Value = String> {
    let known = [
        "gemini-cli",
        "claude_code.tool",
        "llm_request",
        "ai.generateText.doGenerate",
        "\"ai.streamText.doStream\"",
        "[[{\"parts\":[]}]]",
        "[{\"parts\":[1,{\"a\":\"]\"}]}, {\"parts\":\"x\"}]",
        "[\"{\\\"a\\\":1}\", \"\\ud83d\"]",
        " {\"model\": {\"a\": [1]}, \"\\ud83d\": \"\\u0000\"} ",
        "{\"input_tokens\": 1e400, \"input_tokens\": \"5\"}",
        "{\"messages\": [{\"role\": 1, \"content\": [null, {\"type\": \"text\"}]}]}",
        "{\"a\": NaN}",
        "[1,",
        "\"",
        "9223372036854775807",
    ];
    prop_oneof![
        select(known.to_vec()).prop_map(str::to_owned),
        "[\\[\\]{}\",:a\\\\ 0]{0,8}",
        any::<String>()
    ]
}

proptest! {
    /// Scenario: any attributes on a span and its event, with any text.
    /// Guarantees: nothing panics, and inputs and outputs are always JSON.
    #[test]
    fn inputs_and_outputs_are_json(
        attributes in vec((any_name(), any_text_value(), 0..4), 0..12),
        event in select(vec!["gen_ai.choice", "gen_ai.user.message", "tool.output", "gen_ai.content.prompt"]),
    ) {
        let texts: Vec<[&str; 1]> = attributes.iter().map(|(_, text, _)| [text.as_str()]).collect();
        let entries: Vec<[(&str, &str); 1]> =
            attributes.iter().map(|(name, text, _)| [(name.as_str(), text.as_str())]).collect();
        let attributes: Vec<(&str, V<'_>)> = attributes
            .iter()
            .zip(texts.iter().zip(&entries))
            .map(|((name, text, kind), (list, map))| {
                (name.as_str(), match kind {
                    0 | 1 => S(text),
                    2 => L(list),
                    _ => M(map),
                })
            })
            .collect();
        let message = span(&attributes, &[(event, &attributes)]);
        let meaning = interpret(&SpanView::new(&message));
        for payload in [meaning.inputs, meaning.outputs].into_iter().flatten() {
            prop_assert!(json_text::is_json(&payload.text()), "{:?}", payload.text());
            previews::preview(&payload.text(), "user");
        }
        let spans = records("s", &[node(1, 0, &attributes), node(2, 1, &attributes)]);
        prop_assert_eq!(interpret_trace(&spans).services, ["s"]);
    }
}
