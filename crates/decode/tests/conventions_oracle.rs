//! Compares the meaning of real traces with what MLflow 3.18.0 stored for the same bytes.
//!
//! The data lies beside the repository and is not part of it; without it the test says so and
//! passes. Differences that are improvements are listed here one by one, by what causes them.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::string_slice,
    reason = "helpers of tests"
)]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use bytes::Bytes;
use serde_json::Value;
use tracelake_decode::conventions::{Meaning, Payload, PayloadForm, interpret, interpret_trace};
use tracelake_decode::{SpanRecord, SpanSource, SpanView, decode_otlp};
use tracelake_model::{Limits, TokenUsage};

/// Values compared and differences found, by field.
#[derive(Default)]
struct Score {
    equal: BTreeMap<&'static str, usize>,
    improved: BTreeMap<(&'static str, &'static str), usize>,
    wrong: Vec<String>,
}

impl Score {
    fn compare(&mut self, field: &'static str, place: &str, ours: &str, theirs: &str) {
        if ours == theirs {
            *self.equal.entry(field).or_default() += 1;
        } else {
            self.wrong.push(format!("{place} {field}: ours {ours}, MLflow {theirs}"));
        }
    }

    fn improved(&mut self, field: &'static str, because: &'static str) {
        *self.improved.entry((field, because)).or_default() += 1;
    }
}

/// Scenario: every real trace, decoded from the bytes that MLflow was given.
/// Guarantees: every field of every span and trace is MLflow's, except for listed improvements.
#[test]
fn real_traces_mean_what_mlflow_says() {
    compare_folder("otlp_real", 1856);
}

/// Scenario: traces with real content of agents on spans made for it.
/// Guarantees: as above, in volume.
#[test]
fn derived_traces_mean_what_mlflow_says() {
    compare_folder("otlp_derived", 4147);
}

/// Scenario: spans as MLflow's own SDK exports them, with maps where others send JSON text.
/// Guarantees: type, inputs, outputs, model and counts are read from the values themselves.
#[test]
fn spans_of_the_mlflow_sdk_are_read() {
    let file = shared("mlflow_wire").join("otlp_export_sdk_large.pb");
    let Ok(body) = std::fs::read(&file) else {
        println!("skipped: there is no `{}`", file.display());
        return;
    };
    let decoded = decode_otlp(&body.into(), SpanSource::Otlp, &Limits::default()).unwrap();
    assert_eq!(decoded.spans.len(), 5);
    let mut calls = 0;
    for record in &decoded.spans {
        let view = record.view();
        let meaning = interpret(&view);
        for payload in [&meaning.inputs, &meaning.outputs] {
            let Some(Payload::Attribute { form: PayloadForm::Value, .. }) = payload else {
                panic!("{payload:?}");
            };
        }
        if meaning.span_type.unwrap() == "CHAT_MODEL" {
            calls += 1;
            let [input, output] = [meaning.usage.input_tokens, meaning.usage.output_tokens];
            assert_eq!(meaning.usage.total_tokens, Some(input.unwrap() + output.unwrap()));
            assert!(meaning.model.is_some() && meaning.model_provider.is_some());
        }
    }
    assert_eq!(calls, 3);
}

fn shared(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data").join(folder)
}

fn compare_folder(name: &str, span_records: usize) {
    let folder = shared(name);
    let Ok(oracle) = std::fs::read_to_string(folder.join("mlflow_oracle.jsonl")) else {
        println!("skipped: there is no `{}`", folder.join("mlflow_oracle.jsonl").display());
        return;
    };
    let mut score = Score::default();
    let mut spans_seen = 0;
    let mut traces = 0;
    for line in oracle.lines() {
        let oracle: Value = serde_json::from_str(line).unwrap();
        let spans = read_trace(&folder, oracle["trace_id"].as_str().unwrap());
        spans_seen += spans.len();
        traces += 1;
        compare_trace(&without_copies(spans), &oracle, &mut score);
    }
    println!("{name}: {traces} traces, {spans_seen} span records");
    println!("  equal: {:?}", score.equal);
    println!("  improved: {:?}", score.improved);
    assert!(score.wrong.is_empty(), "{} differ:\n{}", score.wrong.len(), score.wrong.join("\n"));
    assert_eq!(spans_seen, span_records);
}

fn read_trace(folder: &Path, trace_id: &str) -> Vec<SpanRecord> {
    let mut parts: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with(trace_id))
        .collect();
    parts.sort();
    assert!(!parts.is_empty(), "{trace_id}");
    let read = |path: PathBuf| {
        let body = Bytes::from(std::fs::read(path).unwrap());
        let decoded = decode_otlp(&body, SpanSource::Otlp, &Limits::default()).unwrap();
        assert!(decoded.rejects.is_empty(), "{:?}", decoded.rejects);
        decoded.spans
    };
    parts.into_iter().flat_map(read).collect()
}

fn without_copies(spans: Vec<SpanRecord>) -> Vec<SpanRecord> {
    let mut kept: Vec<SpanRecord> = Vec::new();
    for span in spans {
        if !kept.iter().any(|other| other.same_content(&span)) {
            kept.push(span);
        }
    }
    kept
}

fn compare_trace(spans: &[SpanRecord], oracle: &Value, score: &mut Score) {
    let id = oracle["trace_id"].as_str().unwrap();
    let meaning = interpret_trace(spans);
    score.compare("state", id, meaning.state.as_str(), oracle["state"].as_str().unwrap());
    let start_ms = meaning.start_time_unix_nano / 1_000_000;
    score.compare("request_time", id, &show(start_ms), &oracle["request_time_ms"].to_string());
    let duration_ms = i128::from(meaning.end_time_unix_nano / 1_000_000) - i128::from(start_ms);
    let oracle_duration = oracle["execution_duration_ms"].to_string();
    score.compare("duration", id, &show(duration_ms), &oracle_duration);
    score.compare(
        "session",
        id,
        &json(meaning.session_id.as_deref()),
        &oracle["session"].to_string(),
    );
    score.compare("user", id, &json(meaning.user_id.as_deref()), &oracle["user"].to_string());
    score.compare(
        "trace_name",
        id,
        &json(meaning.trace_name.as_deref()),
        &oracle["trace_name"].to_string(),
    );
    for (field, preview) in [
        ("request_preview_sha", &meaning.request_preview),
        ("response_preview_sha", &meaning.response_preview),
    ] {
        let theirs = oracle[field].to_string();
        let digest = preview.as_deref().map(sha);
        // What MLflow writes as JSON itself has Python's blanks and escapes.
        let python = [false, true].map(|ascii| {
            let preview = preview.as_deref().filter(|text| text.starts_with(['{', '[']))?;
            serde_json::from_str::<Value>(preview).ok()?;
            Some(sha(&python_dumps(preview, ascii)))
        });
        if json(digest.as_deref()) != theirs
            && python.iter().any(|digest| json(digest.as_deref()) == theirs)
        {
            score.improved(field, "no blanks in JSON put together");
        } else {
            score.compare(field, id, &json(digest.as_deref()), &theirs);
        }
    }
    let view_of = |span: &Value| {
        let id = span["span_id"].as_str().unwrap();
        // MLflow keeps the last of the spans that share an id.
        spans.iter().rfind(|record| hex(&record.span_id.0) == id).unwrap().view()
    };
    let mut usage_improved = false;
    for span in oracle["spans"].as_array().unwrap() {
        let view = view_of(span);
        usage_improved |= compare_span(&view, span, score);
    }
    let (ours, theirs) = (usage(&meaning.usage), sorted(&oracle["token_usage"]));
    if ours != theirs && usage_improved {
        score.improved("trace usage", "langfuse usage_details");
    } else {
        score.compare("trace usage", id, &ours, &theirs);
    }
}

/// True when the token counts are better than MLflow's.
fn compare_span(view: &SpanView<'_>, oracle: &Value, score: &mut Score) -> bool {
    let meaning = interpret(view);
    let place = format!("{} {}", hex(view.trace_id), hex(view.span_id));
    let has = |key: &str| view.attribute(key).is_some();
    let ours = json(meaning.span_type.as_deref());
    let kind = view.attribute("openinference.span.kind").and_then(|value| value.as_str());
    if oracle["type"].is_null() && kind.is_some_and(|kind| kind.to_uppercase() != kind) {
        score.improved("type", "lower-case OpenInference kind");
    } else {
        score.compare("type", &place, &ours, &oracle["type"].to_string());
    }
    let ours = json(meaning.model.as_deref());
    let theirs = oracle["model"].to_string();
    if ours != theirs && has("langfuse.observation.model.name") {
        score.improved("model", "langfuse model name");
    } else {
        score.compare("model", &place, &ours, &theirs);
    }
    let ours = json(meaning.model_provider.as_deref());
    score.compare("provider", &place, &ours, &oracle["provider"].to_string());
    let ours = usage(&meaning.usage);
    let improved = oracle["usage"].is_null() && has("langfuse.observation.usage_details");
    if improved {
        score.improved("usage", "langfuse usage_details");
    } else {
        score.compare("usage", &place, &ours, &sorted(&oracle["usage"]));
    }
    if has("mlflow.llm.cost") {
        let ours = show(meaning.cost.total_cost);
        score.compare("cost", &place, &ours, &show(oracle["cost"]["total_cost"].as_f64()));
    }
    compare_payloads(&meaning, oracle, &place, score);
    improved
}

fn compare_payloads(meaning: &Meaning<'_>, oracle: &Value, place: &str, score: &mut Score) {
    for (field, payload) in [("inputs_sha", &meaning.inputs), ("outputs_sha", &meaning.outputs)] {
        let digest = payload.as_ref().map(|payload| match payload {
            // The text of one attribute must be MLflow's to the byte.
            Payload::Attribute { form: PayloadForm::Text | PayloadForm::Quoted, .. } => {
                sha(&payload.text())
            }
            Payload::Attribute { form: PayloadForm::Value, .. } => {
                sha(&python_dumps(&payload.text(), false))
            }
            Payload::Composed(text) => sha(&python_dumps(text, true)),
        });
        score.compare(field, place, &json(digest.as_deref()), &oracle[field].to_string());
    }
}

/// JSON text in the way of Python's `json.dumps`: blanks between parts, escapes for what is not
/// ASCII if `ascii`. Numbers stay as they are.
fn python_dumps(text: &str, ascii: bool) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        if first == '"' {
            let mut stream = serde_json::Deserializer::from_str(rest).into_iter::<String>();
            let value = stream.next().unwrap().unwrap();
            rest = &rest[stream.byte_offset()..];
            let quoted = serde_json::to_string(&value).unwrap();
            for unit in quoted.chars() {
                if ascii && !unit.is_ascii() {
                    for unit in unit.encode_utf16(&mut [0; 2]) {
                        write!(out, "\\u{unit:04x}").unwrap();
                    }
                } else {
                    out.push(unit);
                }
            }
            continue;
        }
        rest = &rest[first.len_utf8()..];
        match first {
            ',' => out.push_str(", "),
            ':' => out.push_str(": "),
            _ if first.is_ascii_whitespace() => {}
            _ => out.push(first),
        }
    }
    out
}

fn usage(usage: &TokenUsage) -> String {
    let counts = [
        ("input_tokens", usage.input_tokens),
        ("output_tokens", usage.output_tokens),
        ("total_tokens", usage.total_tokens),
        ("cache_read_input_tokens", usage.cache_read_input_tokens),
        ("cache_creation_input_tokens", usage.cache_creation_input_tokens),
    ];
    let counts: serde_json::Map<String, Value> = counts
        .into_iter()
        .filter_map(|(name, count)| Some((name.to_owned(), count?.into())))
        .collect();
    if counts.is_empty() { "null".to_owned() } else { sorted(&counts.into()) }
}

/// Members in the order of their names.
fn sorted(value: &Value) -> String {
    match value.as_object() {
        Some(members) => format!("{:?}", members.iter().collect::<BTreeMap<_, _>>()),
        None => value.to_string(),
    }
}

fn json(text: Option<&str>) -> String {
    text.map_or(Value::Null, Value::from).to_string()
}

fn show(value: impl std::fmt::Debug) -> String {
    format!("{value:?}")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut out, byte| {
        write!(out, "{byte:02x}").unwrap();
        out
    })
}

/// The first 16 hex digits of SHA-256 (FIPS 180-4), which is too little use for a dependency.
fn sha(text: &str) -> String {
    static CONSTANTS: LazyLock<([u32; 8], [u32; 64])> = LazyLock::new(|| {
        let root = |power| move |n| fraction(prime(n), power);
        (std::array::from_fn(root(0.5)), std::array::from_fn(root(1.0 / 3.0)))
    });
    let (mut state, constants) = *CONSTANTS;
    let mut message = text.as_bytes().to_vec();
    message.push(0x80);
    message.resize((message.len() + 8).next_multiple_of(64) - 8, 0);
    message.extend_from_slice(&(text.len() as u64 * 8).to_be_bytes());
    for block in message.chunks(64) {
        let mut words: Vec<u32> =
            block.chunks(4).map(|w| u32::from_be_bytes(w.try_into().unwrap())).collect();
        for i in 16..64 {
            let (a, b) = (words[i - 15], words[i - 2]);
            let low = a.rotate_right(7) ^ a.rotate_right(18) ^ (a >> 3);
            let high = b.rotate_right(17) ^ b.rotate_right(19) ^ (b >> 10);
            words.push(
                words[i - 16].wrapping_add(low).wrapping_add(words[i - 7]).wrapping_add(high),
            );
        }
        let [mut a, mut b, mut c, mut d, mut e, mut f, mut g, mut h] = state;
        for i in 0..64 {
            let high = e.rotate_right(6) ^ e.rotate_right(11) ^ e.rotate_right(25);
            let choice = (e & f) ^ (!e & g);
            let first = h.wrapping_add(high).wrapping_add(choice);
            let first = first.wrapping_add(constants[i]).wrapping_add(words[i]);
            let low = a.rotate_right(2) ^ a.rotate_right(13) ^ a.rotate_right(22);
            let second = low.wrapping_add((a & b) ^ (a & c) ^ (b & c));
            (h, g, f, e, d, c, b, a) =
                (g, f, e, d.wrapping_add(first), c, b, a, first.wrapping_add(second));
        }
        for (sum, word) in state.iter_mut().zip([a, b, c, d, e, f, g, h]) {
            *sum = sum.wrapping_add(word);
        }
    }
    hex(&state[..2].iter().flat_map(|word| word.to_be_bytes()).collect::<Vec<_>>())
}

fn prime(n: usize) -> u32 {
    (2..).filter(|n| (2..*n).all(|d| n % d != 0)).nth(n).unwrap()
}

/// The first 32 bits of the fractional part of a root of a prime; doubles are exact enough.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "below 2^32")]
fn fraction(prime: u32, power: f64) -> u32 {
    (f64::from(prime).powf(power).fract() * 4_294_967_296.0) as u32
}

#[test]
fn digests_are_sha_256() {
    assert_eq!(sha("abc"), "ba7816bf8f01cfea");
    assert_eq!(sha(""), "e3b0c44298fc1c14");
}
