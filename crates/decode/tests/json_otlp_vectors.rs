//! The recorded OTLP JSON edge vectors: ours beside upstream's verdict and MLflow's outcome.

use std::path::{Path, PathBuf};

use serde_json::Value;
use tracelake_decode::otlp_json::to_protobuf;
use tracelake_decode::{DecodeError, SpanSource, decode_otlp};
use tracelake_model::Limits;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/otlp_vectors")
}

/// What became of a vector: `ok SPANS rejected SPANS warnings N`, or the kind of error.
fn outcome(body: &[u8]) -> String {
    let transcoded = to_protobuf(body).and_then(|(protobuf, rejects)| {
        let mut decoded = decode_otlp(&protobuf.into(), SpanSource::Otlp, &Limits::default())?;
        decoded.rejects.extend(rejects);
        Ok(decoded)
    });
    match transcoded {
        Ok(decoded) => {
            let warnings = decoded.rejects.iter().filter(|reject| reject.spans == 0).count();
            let rejected = decoded.rejected_spans();
            format!("ok {} rejected {rejected} warnings {warnings}", decoded.spans.len())
        }
        Err(DecodeError::Empty) => "empty".into(),
        Err(DecodeError::Shape { .. }) => "shape".into(),
        Err(error) => error.to_string(),
    }
}

/// The outcome of the vectors that upstream calls invalid; the valid ones must be taken whole.
fn expected_of_invalid(file: &str) -> &'static str {
    let name = file.strip_prefix("fluentbit_").unwrap_or(file);
    match name.strip_suffix(".json").unwrap_or(name) {
        "resourceSpans_missing" => "empty",
        "resourceSpans_wrong_type" | "root_wrong_type" => "shape",
        "scopeSpans_missing" | "spans_missing" => "ok 0 rejected 0 warnings 0",
        // Ids of another length, names and unknown states: MLflow takes these, and so do we.
        "invalid_parent_span_id"
        | "event_missing_name"
        | "link_missing_trace_id"
        | "link_invalid_span_id"
        | "link_trace_id_zero_length"
        | "link_span_id_zero_length" => "ok 1 rejected 0 warnings 0",
        "status_invalid_code"
        | "link_entry_wrong_type"
        | "parent_span_id_invalid_hex"
        | "parent_span_id_odd_length"
        | "link_trace_id_invalid_hex"
        | "link_span_id_invalid_hex"
        | "link_trace_id_odd_length"
        | "link_span_id_odd_length" => "ok 1 rejected 0 warnings 1",
        _ => "ok 0 rejected 1 warnings 0",
    }
}

/// Scenario: every vector of the collection.
/// Guarantees: the valid ones are taken whole, the others lose no more than what is broken in them.
#[test]
fn every_vector_has_the_outcome_written_down_here() {
    let index = folder().join("index.json");
    let Ok(index) = std::fs::read_to_string(&index) else {
        println!("skipped: {} is absent", index.display());
        return;
    };
    let index: Value = serde_json::from_str(&index).unwrap();
    let mut wrong = Vec::new();
    println!("{:<70} {:<8} {:<40} tracelake", "vector", "upstream", "MLflow 3.18.0");
    for vector in index.as_array().unwrap() {
        let file = vector["file"].as_str().unwrap();
        let valid = vector["valid_upstream"].as_bool().unwrap();
        let mlflow = vector["mlflow_3_18_0"].as_str().unwrap();
        let ours = outcome(&std::fs::read(folder().join(file)).unwrap());
        let verdict = if valid { "valid" } else { "invalid" };
        println!("{file:<70.70} {verdict:<8} {mlflow:<40} {ours}");
        let expected = if valid {
            let spans = mlflow.strip_prefix("200 spans=").unwrap();
            format!("ok {spans} rejected 0 warnings 0")
        } else {
            expected_of_invalid(file).to_owned()
        };
        if ours != expected {
            wrong.push(format!("{file}: expected {expected}, found {ours}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
