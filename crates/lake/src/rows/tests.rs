use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Fields, Schema};
use arrow::json::ReaderBuilder;
use arrow::json::writer::{LineDelimited, WriterBuilder};
use proptest::prelude::*;
use serde_json::{Value, json};
use tracelake_decode::{Fingerprinter, SpanSource, decode_otlp};
use tracelake_model::schema::{list_of, span_fields, traces_schema};
use tracelake_model::{Assessment, Limits, SpanId, TraceId, TraceInfo};
use tracelake_testkit::spans;

use super::*;
use crate::commit::merge::{Age, Amended, amend};

fn draft(body: &bytes::Bytes) -> TraceDraft {
    let decoded = decode_otlp(body, SpanSource::Otlp, &Limits::default()).unwrap();
    assert_eq!(decoded.rejects, []);
    TraceDraft {
        spans: decoded.spans,
        created_at_micros: 1,
        updated_at_micros: 1,
        ..TraceDraft::new(TraceId([1; 16]))
    }
}

proptest! {
    /// Scenario: requests with every field, value type and slip that senders make.
    /// Guarantees: decode, encode, rebuild is the identity, span by span in their order.
    #[test]
    fn encode_and_rebuild_is_the_identity(bodies in prop::collection::vec(spans::request(), 1..3)) {
        let drafts: Vec<TraceDraft> = bodies.iter().map(draft).collect();
        let batch = encode(&drafts).unwrap();
        let rebuilt = rebuild_traces(&batch).unwrap();
        prop_assert_eq!(rebuilt.len(), drafts.len());
        for (sent, back) in drafts.iter().zip(&rebuilt) {
            let [sent, back] = [sent, back].map(TraceDraft::spans_in_order);
            prop_assert_eq!(sent.len(), back.len());
            for (left, right) in sent.iter().zip(&back) {
                prop_assert!(left.same_content(right), "{:?}\n{:?}", left.message, right.message);
                let fingerprint = |span| Fingerprinter::default().span(span);
                prop_assert_eq!(fingerprint(left), fingerprint(right));
            }
        }
    }
}

/// Scenario: an ordinary span.
/// Guarantees: its bytes are not kept a second time.
#[test]
fn ordinary_spans_need_no_copy_of_their_bytes() {
    let batch = encode(&[draft(&spans::simple_request(0, 0..3))]).unwrap();
    let spans = batch.column_by_name("spans").unwrap();
    let spans = spans.as_list::<i32>().values().as_struct();
    assert_eq!(spans.len(), 3);
    assert_eq!(spans.column_by_name("otlp").unwrap().null_count(), 3);
}

/// A row as another writer makes it: the contract's columns of a trace and its spans, no others.
fn row_of_another_writer(spans: Value, others: Value) -> RecordBatch {
    // Of the contract are the first ten; some writers say the parent as well.
    let span: Fields = span_fields().iter().take(11).cloned().collect();
    let schema = traces_schema();
    let fields: Vec<Field> = ["trace_id", "tags", "trace_metadata"]
        .map(|name| schema.field_with_name(name).unwrap().clone())
        .into_iter()
        .chain([Field::new("spans", list_of(span), true)])
        .collect();
    let mut row = others;
    row["trace_id"] = json!("tr-000000000000000000000000000000ff");
    row["spans"] = spans;
    let mut decoder = ReaderBuilder::new(Arc::new(Schema::new(fields))).build_decoder().unwrap();
    decoder.decode(row.to_string().as_bytes()).unwrap();
    decoder.flush().unwrap().unwrap()
}

/// The spans of `batch`, without what is null.
fn spans_of(batch: &RecordBatch) -> Vec<Value> {
    let spans = batch.column_by_name("spans").unwrap();
    let spans = spans.as_list::<i32>().values().as_struct().clone();
    let mut writer =
        WriterBuilder::new().with_explicit_nulls(false).build::<_, LineDelimited>(Vec::new());
    let binary = |field: &&Arc<Field>| *field.data_type() != DataType::Binary;
    let (fields, columns): (Vec<_>, Vec<_>) = spans
        .fields()
        .iter()
        .zip(spans.columns())
        .filter(|(field, _)| binary(field))
        .map(|(field, column)| (Arc::clone(field), Arc::clone(column)))
        .unzip();
    writer.write(&RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()).unwrap();
    writer.finish().unwrap();
    let text = String::from_utf8(writer.into_inner()).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// What another writer's span says after a rewrite, and after a second one.
fn rewritten(span: Value) -> Value {
    let rebuilt = rebuild_traces(&row_of_another_writer(json!([span]), json!({}))).unwrap();
    let batch = encode(&rebuilt).unwrap();
    let again = encode(&rebuild_traces(&batch).unwrap()).unwrap();
    let mut spans = spans_of(&batch);
    assert_eq!(spans, spans_of(&again), "a row written here stays as it is");
    spans.pop().unwrap()
}

/// Scenario: another writer's spans whose inputs, outputs and type are in their columns alone; JSON
/// of every kind, text that is none, metadata that another convention would read.
/// Guarantees: a rewrite keeps all of them, and the metadata.
#[test]
fn columns_of_another_writer_survive_a_rewrite() {
    for (text, after) in [
        ("{\"question\": \"why?\"}", "{\"question\": \"why?\"}"),
        ("[1,  2]", "[1,  2]"),
        ("\"hello\"", "\"hello\""),
        ("42", "42"),
        ("true", "true"),
        ("null", "null"),
        ("hello", "\"hello\""),
        ("{broken", "\"{broken\""),
    ] {
        let span = json!({
            "span_id": "00000000000000aa", "name": "ask", "span_type": "CHAT_MODEL",
            "inputs": text, "outputs": text,
            "metadata": {"input.value": "\"other\"", "n": "1", "o": "{\"a\":[1,null]}"},
        });
        let back = rewritten(span.clone());
        assert_eq!(back["inputs"], after, "{text}");
        assert_eq!(back["outputs"], after, "{text}");
        assert_eq!(back["span_type"], "CHAT_MODEL");
        let mut metadata = span["metadata"].clone();
        metadata["mlflow.spanType"] = json!("\"\\\"CHAT_MODEL\\\"\"");
        assert_eq!(back["metadata"], metadata, "{text}");
    }
}

/// Scenario: another writer's spans whose metadata have MLflow's names as well: with the same
/// values, with other ones, with none.
/// Guarantees: nothing is said twice, and a column that says otherwise stands.
#[test]
fn metadata_with_the_names_of_mlflow_are_not_doubled() {
    let span = |metadata: Value| {
        rewritten(json!({
            "span_id": "00000000000000aa", "span_type": "TOOL", "inputs": "{\"a\":1}",
            "metadata": metadata,
        }))
    };
    let same = span(json!({"mlflow.spanInputs": "{\"a\":1}", "mlflow.spanType": "TOOL"}));
    assert_eq!((&same["inputs"], &same["span_type"]), (&json!("{\"a\":1}"), &json!("TOOL")));
    assert_eq!(same["metadata"], json!({"mlflow.spanType": "\"TOOL\""}));
    assert_eq!(same["inputs_attribute"], "0:v:mlflow.spanInputs");

    let other = json!({"mlflow.spanInputs": "{\"a\":2}", "mlflow.spanType": "\"LLM\""});
    let back = span(other.clone());
    assert_eq!((&back["inputs"], &back["span_type"]), (&json!("{\"a\":1}"), &json!("TOOL")));
    assert_eq!(back["metadata"], other);

    let none = span(json!({"mlflow.spanInputs": null}));
    assert_eq!((&none["inputs"], &none["span_type"]), (&json!("{\"a\":1}"), &json!("TOOL")));
}

/// Scenario: maps of another writer with null values, values that are not JSON, and a span that
/// has no value at all.
/// Guarantees: nothing is made up, nothing is lost, and the row can be read.
#[test]
fn values_of_another_writer_keep_their_meaning() {
    let back = rewritten(json!({
        "span_id": "00000000000000aa",
        "tags": {"service.name": "shop", "gone": null},
        "metadata": {"model": "gpt-4", "gone": null, "empty": "", "open": "{\"a\":", "n": "1.5"},
    }));
    assert_eq!(back["tags"], json!({"service.name": "shop"}));
    let metadata =
        json!({"model": "\"gpt-4\"", "empty": "\"\"", "open": "\"{\\\"a\\\":\"", "n": "1.5"});
    assert_eq!(back["metadata"], metadata);
    for absent in ["inputs", "outputs", "span_type"] {
        assert_eq!(back.get(absent), None, "{absent}");
    }

    let others =
        json!({"tags": {"a": "1", "gone": null}, "trace_metadata": {"gone": null, "b": "2"}});
    let traces = rebuild_traces(&row_of_another_writer(json!([null, {}]), others)).unwrap();
    let info = traces[0].info.as_ref().unwrap();
    assert_eq!(info.tags, [("a".to_owned(), "1".to_owned())].into());
    assert_eq!(info.trace_metadata, [("b".to_owned(), "2".to_owned())].into());
    assert_eq!(traces[0].spans.len(), 1);
}

/// Scenario: span ids that are null, empty, too short, no hex; beside a good one; with metadata
/// that make the span's bytes be kept.
/// Guarantees: the row can be read, as often as it is rewritten; such an id is zero.
#[test]
fn a_bad_span_id_does_not_make_a_row_unreadable() {
    let zero = "0000000000000000";
    for id in [json!(null), json!(""), json!("ab"), json!("not sixteen hex!"), json!(zero)] {
        let metadata = json!({"mlflow.spanInputs": "\"x\"", "k": "1"});
        let back = rewritten(json!({
            "span_id": id, "parent_span_id": id, "name": "step", "inputs": "y",
            "metadata": metadata,
        }));
        assert_eq!((&back["span_id"], &back["name"]), (&json!(zero), &json!("step")));
        assert_eq!((&back["inputs"], back.get("parent_span_id")), (&json!("\"y\""), None));
        assert_eq!(back["metadata"], metadata);
    }
    let spans = json!([{"span_id": null}, {"span_id": "00000000000000AA"}]);
    let traces = rebuild_traces(&row_of_another_writer(spans, json!({}))).unwrap();
    let ids: Vec<SpanId> = traces[0].spans.iter().map(|span| span.span_id).collect();
    assert_eq!(ids, [SpanId([0; 8]), SpanId([0, 0, 0, 0, 0, 0, 0, 0xaa])]);
}

/// Scenario: an encoder makes batch after batch, of traces with everything in them.
/// Guarantees: each batch is what an encoder of its own makes of the same traces.
#[test]
fn an_encoder_makes_batches_one_after_another() {
    let info = TraceInfo {
        linked_runs: vec!["run".to_owned()],
        assessments: vec![Assessment { assessment_id: "a".to_owned(), ..Assessment::default() }],
        ..TraceInfo::new(TraceId([1; 16]))
    };
    let mut drafts = vec![draft(&spans::simple_request(0, 0..3)), draft(&spans::llm_request(20))];
    drafts[1].info = Some(info);
    let mut encoder = RowEncoder::default();
    for _ in 0..3 {
        drafts.iter().for_each(|draft| encoder.push(draft));
        assert_eq!(encoder.finish().unwrap(), encode(&drafts).unwrap());
    }
}

/// The columns of `batch` with `said` as given.
fn with_said(batch: &RecordBatch, said: Option<&str>) -> RecordBatch {
    let column = batch.schema().index_of("said").unwrap();
    let mut columns = batch.columns().to_vec();
    columns[column] = Arc::new(StringArray::from(vec![said; batch.num_rows()]));
    RecordBatch::try_new(batch.schema(), columns).unwrap()
}

/// The row of `batch` with a piece that came later.
fn amended(batch: &RecordBatch, piece: &TraceDraft) -> RecordBatch {
    match amend(rebuild_traces(batch).unwrap(), piece, Age::Younger, 9) {
        Amended::Row(row) => encode([&*row]).unwrap(),
        other => panic!("{other:?}"),
    }
}

/// Names of the columns in which two rows differ.
fn differing(one: &RecordBatch, other: &RecordBatch) -> Vec<String> {
    let names = one.schema().fields().iter().map(|field| field.name().clone()).collect::<Vec<_>>();
    let differ = |name: &String| one.column_by_name(name) != other.column_by_name(name);
    names.into_iter().filter(differ).collect()
}

fn piece_with(change: impl FnOnce(&mut TraceInfo)) -> TraceDraft {
    let mut info = TraceInfo::new(TraceId([1; 16]));
    change(&mut info);
    let trace = TraceDraft::new(TraceId([1; 16]));
    TraceDraft { info: Some(info), created_at_micros: 9, updated_at_micros: 9, ..trace }
}

proptest! {
    /// Scenario: a row of a version that wrote spans as they arrived and did not say who said what;
    /// tags are set on it and deleted, then a span is added.
    /// Guarantees: a change beside spans changes nothing else, however often; added spans put it
    /// into the order that all rows have, and no change is lost.
    #[test]
    fn rows_of_an_earlier_version_change_in_nothing_else(body in spans::request()) {
        /// No resource has it.
        const KEY: &str = "a tag of this test";
        let mut earlier = draft(&body);
        earlier.keeps_order = true;
        let mut info = TraceInfo::new(TraceId([1; 16]));
        info.set_tag("mine".to_owned(), "1".to_owned());
        info.delete_tag("service.name".to_owned());
        info.response_preview = Some("said".to_owned());
        earlier.info = Some(info);
        let earlier = with_said(&encode([&earlier]).unwrap(), None);
        let tagged = amended(&earlier, &piece_with(|info| info.set_tag(KEY.into(), "v".into())));
        prop_assert_eq!(differing(&earlier, &tagged), ["tags", "updated_at", "revision", "said"]);
        let gone = amended(&tagged, &piece_with(|info| info.delete_tag(KEY.into())));
        prop_assert_eq!(differing(&earlier, &gone), ["updated_at", "revision", "said"]);

        let added = TraceDraft { spans: spans::decoded(&spans::simple_request(0, 7..8)), ..draft(&body) };
        let grown = rebuild_traces(&amended(&gone, &added)).unwrap().remove(0);
        prop_assert!(!grown.keeps_order);
        prop_assert_eq!(grown.spans.len(), rebuild_traces(&earlier).unwrap()[0].spans.len() + 1);
        let info = grown.full_info();
        prop_assert_eq!(info.tags.get("mine").map(String::as_str), Some("1"));
        prop_assert!(!info.tags.contains_key("service.name") && !info.tags.contains_key(KEY));
        prop_assert_eq!(info.response_preview.as_deref(), Some("said"));
    }
}

/// Scenario: a row with a tag that a call set; with `said` of a later version, no JSON, without that
/// tag by other rules and by today's, as another writer leaves it that sets a tag.
/// Guarantees: the first two are not read; of other rules nothing is taken for a client's word that
/// it does not name; by today's rules what differs is somebody's word.
#[test]
fn said_tells_clients_words_from_what_spans_say() {
    let mut sent = draft(&spans::llm_request(1));
    sent.info = piece_with(|info| info.set_tag("mine".into(), "1".into())).info;
    let batch = encode([&sent]).unwrap();
    for bad in ["{\"v\":3}", "{\"v\":1", ""] {
        assert!(rebuild_traces(&with_said(&batch, Some(bad))).is_err(), "{bad}");
    }
    let tags = |batch: &RecordBatch| {
        let draft = rebuild_traces(batch).unwrap().remove(0);
        draft.info.map(|info| info.called_tags.into_iter().collect::<Vec<_>>()).unwrap_or_default()
    };
    assert_eq!(tags(&batch), ["mine"]);
    // By other rules there were other tags.
    assert_eq!(tags(&with_said(&batch, Some("{\"v\":1,\"rules\":0}"))), [""; 0]);
    assert_eq!(tags(&with_said(&batch, Some("{\"v\":1,\"rules\":1}"))), ["mine"]);
}
