//! What a shown trace looks like, with ordinary and with broken spans.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Fields, Schema};
use arrow::json::ReaderBuilder;
use serde_json::{Value, json};

use super::*;
use crate::hostile::is_dangerous;
use crate::width::columns;

fn text(name: &str) -> Field {
    Field::new(name, DataType::Utf8, true)
}

fn number(name: &str) -> Field {
    Field::new(name, DataType::Int64, true)
}

fn map(name: &str) -> Field {
    let entry = Fields::from(vec![
        Field::new("key", DataType::Utf8, false),
        Field::new("value", DataType::Utf8, true),
    ]);
    let entries = Field::new("key_value", DataType::Struct(entry), false);
    Field::new(name, DataType::Map(Arc::new(entries), false), true)
}

fn list(name: &str, fields: Vec<Field>) -> Field {
    let element = Field::new("element", DataType::Struct(fields.into()), true);
    Field::new(name, DataType::List(Arc::new(element)), true)
}

fn schema() -> Arc<Schema> {
    let spans = vec![
        text("span_id"),
        text("name"),
        text("span_type"),
        text("status"),
        text("inputs"),
        text("outputs"),
        text("parent_span_id"),
        text("status_message"),
        number("start_time_unix_nano"),
        number("end_time_unix_nano"),
        list("events", vec![number("time_unix_nano"), text("name"), map("attributes")]),
        list("links", vec![text("trace_id"), text("span_id"), map("attributes")]),
        map("metadata"),
        number("input_tokens"),
        number("output_tokens"),
        number("total_tokens"),
    ];
    let source = Fields::from(vec![text("source_type"), text("source_id")]);
    let assessments = vec![
        text("assessment_name"),
        text("span_id"),
        Field::new("source", DataType::Struct(source), true),
        text("feedback"),
        text("rationale"),
        Field::new("valid", DataType::Boolean, true),
    ];
    let info = Fields::from(vec![text("request_id"), text("status")]);
    Arc::new(Schema::new(vec![
        text("trace_id"),
        text("trace_name"),
        text("experiment_id"),
        Field::new("trace_info", DataType::Struct(info), true),
        number("execution_duration_ms"),
        number("input_tokens"),
        number("total_tokens"),
        Field::new("total_cost", DataType::Float64, true),
        map("tags"),
        list("assessments", assessments),
        list("spans", spans),
    ]))
}

fn shown(row: &Value, full: bool, options: &RenderOptions) -> String {
    let mut decoder = ReaderBuilder::new(schema()).build_decoder().unwrap();
    decoder.serialize(std::slice::from_ref(row)).unwrap();
    let batch = decoder.flush().unwrap().unwrap();
    let context = TraceContext {
        table: "c.s.t".into(),
        experiment_name: Some("/Shared/agents".into()),
        full,
    };
    let mut out = Vec::new();
    render_trace(&batch, 0, &context, &mut out, options).unwrap();
    String::from_utf8(out).unwrap()
}

fn narrow(width: usize) -> RenderOptions {
    RenderOptions { width: Some(width), ..RenderOptions::default() }
}

fn agent() -> Value {
    let second = 1_000_000_000_i64;
    json!({
        "trace_id": "tr-01", "trace_name": "agent", "experiment_id": "7",
        "trace_info": {"request_id": "tr-01", "status": "ERROR"},
        "execution_duration_ms": 2000, "input_tokens": 1200, "total_tokens": 1234,
        "total_cost": 0.00042, "tags": {"env": "prod\u{1b}[31m"},
        "assessments": [{
            "assessment_name": "good", "span_id": "b", "valid": false, "rationale": "too slow",
            "source": {"source_type": "HUMAN", "source_id": "ann"}, "feedback": "{\"value\": \"no\"}",
        }],
        "spans": [
            {"span_id": "b", "parent_span_id": "a", "name": "ask", "span_type": "LLM",
             "status": "ERROR", "status_message": "rate limit", "start_time_unix_nano": second,
             "end_time_unix_nano": 2 * second, "inputs": "{\"q\":\n\"why\"}",
             "input_tokens": 1200, "output_tokens": 34, "total_tokens": 1234,
             "metadata": {"llm.model": "\"gpt\"", "n": "5"},
             "links": [{"trace_id": "t9", "span_id": "s9"}],
             "events": [{"time_unix_nano": second + 5_000_000, "name": "exception", "attributes":
                {"exception.type": "\"RateLimitError\"", "exception.message": "\"slow\\ndown\""}}]},
            {"span_id": "a", "name": "agent", "span_type": "AGENT", "status": "OK",
             "start_time_unix_nano": second / 2, "end_time_unix_nano": 5 * second / 2,
             "inputs": "hello", "outputs": "x".repeat(500)},
        ],
    })
}

/// Scenario: a trace of two spans, the child stored first and failed.
/// Guarantees: the header says what is known, the tree is in order, bars lie where the spans ran,
/// texts are one line each and cut.
#[test]
fn a_trace_is_a_header_and_a_tree() {
    let expected = "\
trace       tr-01
name        agent
status      ERROR
experiment  /Shared/agents (7)
duration    2.00 s
tokens      1 234 (1 200 in)
cost        $0.00042
table       c.s.t
tag         env = prod\\u{1b}[31m
assessment  good = no, span b, by HUMAN ann, overridden: too slow

2 spans, 1 with status ERROR
agent  AGENT                        [====================]        2.00 s  OK
  in          hello
  out         xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx...
  ask  LLM                          [     ==========     ]        1.00 s  ERROR   1 200+34 tok
    in          {\"q\":\\n\"why\"}
    error       rate limit
    exception   RateLimitError: slow\\ndown
";
    assert_eq!(shown(&agent(), false, &narrow(94)), expected);
}

/// Scenario: the same in full, on a narrow terminal.
/// Guarantees: text is whole, with its line breaks, and attributes, events and links are there.
#[test]
fn full_shows_everything_uncut() {
    let text = shown(&agent(), true, &narrow(40));
    assert!(text.contains(&"x".repeat(500)), "{text}");
    for part in [
        "    in          {\"q\":\n                \"why\"}\n",
        "    attribute   llm.model = gpt\n",
        "    attribute   n = 5\n",
        "    event       exception at 5.00 ms\n",
        "                exception.message = slow\n                down\n",
        "    link        trace t9 span s9\n",
    ] {
        assert!(text.contains(part), "{part:?} in\n{text}");
    }
    assert!(!text.chars().any(|c| is_dangerous(c) && c != '\n'), "{text:?}");
}

/// Scenario: lines of every width, with wide characters, control codes and broken JSON.
/// Guarantees: no line is wider than asked for; nothing acts on the terminal; colour only adds.
#[test]
fn no_width_is_overrun() {
    let mut row = agent();
    row["spans"][0]["name"] = json!("\u{4f60}\u{597d}".repeat(40));
    row["spans"][0]["inputs"] = json!("{broken \u{1b}]0;title\u{7} \u{202e} e\u{301}\u{1f468}");
    row["spans"][0]["span_type"] = json!("\u{9b}2J".repeat(30));
    for width in [1, 2, 3, 10, 20, 39, 40, 60, 80, 200] {
        let text = shown(&row, false, &narrow(width));
        assert!(text.lines().all(|line| columns(line) <= width), "{width}\n{text}");
        assert!(!text.chars().any(|c| is_dangerous(c) && c != '\n'), "{text:?}");
        let colored = RenderOptions { color: true, ..narrow(width) };
        let mut plain = String::new();
        for (number, part) in shown(&row, false, &colored).split("\u{1b}[").enumerate() {
            plain.push_str(if number == 0 { part } else { part.split_once('m').unwrap().1 });
        }
        assert_eq!(plain, text);
    }
}

/// Scenario: reversed, zero and missing times, the whole range of integers, no spans, nothing but
/// nulls.
/// Guarantees: each is named for what it is; nothing overflows.
#[test]
fn odd_times_are_named() {
    let span = |name: &str, start: Option<i64>, end: Option<i64>| json!({"name": name, "start_time_unix_nano": start, "end_time_unix_nano": end});
    let row = json!({"trace_id": "tr-02", "spans": [
        span("reversed", Some(2_000_000), Some(500_000)),
        span("zero", Some(0), Some(0)),
        span("open", Some(1_000_000), None),
        span("headless", None, Some(1_000_000)),
        null,
    ]});
    let text = shown(&row, false, &narrow(100));
    for part in ["-1.50 ms", "no times", "unfinished", "no start", "(no name)", "5 spans"] {
        assert!(text.contains(part), "{part} in\n{text}");
    }
    let extremes = json!({"spans": [span("all", Some(i64::MIN), Some(i64::MAX))]});
    assert!(shown(&extremes, true, &narrow(100)).contains("213503 d 23 h"));
    assert!(shown(&json!({"trace_id": "x"}), false, &narrow(100)).ends_with("\nno spans\n"));
}

/// Scenario: a chain of 12,000 spans.
/// Guarantees: all are shown, none further right than the name column, and how deep is said.
#[test]
fn deep_trees_stay_in_their_column() {
    let spans: Vec<Value> = (0..12_000_i64)
        .map(|at| {
            let parent = (at != 0).then(|| format!("{}", at - 1));
            json!({"span_id": format!("{at}"), "parent_span_id": parent, "name": format!("n{at}"),
                   "start_time_unix_nano": at + 1, "end_time_unix_nano": 20_000})
        })
        .collect();
    let text = shown(&json!({"trace_id": "tr-03", "spans": spans}), false, &narrow(80));
    assert_eq!(text.lines().filter(|line| line.contains('[')).count(), 12_000);
    assert!(text.contains(">11999 n11999"), "{}", text.lines().last().unwrap_or_default());
}
