//! Trace infos to MLflow's JSON and back, and hostile MLflow JSON.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use proptest::option::of;
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use tracelake_decode::mlflow_json::{
    read_assessment, read_start_trace, start_trace_body, traces_json_to_protobuf, write_assessment,
    write_trace_info,
};
use tracelake_decode::{DecodeError, SpanSource, decode_otlp};
use tracelake_model::{Assessment, ExperimentId, Limits, TraceId, TraceInfo, TraceState};

/// The years 1 to 9999.
fn time() -> impl Strategy<Value = Option<i64>> {
    of(prop_oneof![
        -62_135_596_800_000_000_i64..=253_402_300_799_999_999,
        (-62_135_596_800_000_i64..=253_402_300_799_999).prop_map(|millis| millis * 1_000),
    ])
}

fn map() -> impl Strategy<Value = std::collections::BTreeMap<String, String>> {
    prop::collection::btree_map(any::<String>(), any::<String>(), 0..4)
}

/// Compact JSON text, with numbers that no double holds.
fn json_text() -> impl Strategy<Value = Option<String>> {
    let leaf = prop_oneof![
        Just("true".to_owned()),
        "(0|[1-9][0-9]{0,30})([.][0-9]{1,20})?(e[+-]?[0-9]{1,3})?",
        any::<String>().prop_map(|text| serde_json::to_string(&text).unwrap()),
    ];
    of(leaf.prop_map(|value| format!("{{\"value\":{value},\"a\":[null]}}")))
}

fn assessment() -> impl Strategy<Value = Assessment> {
    let texts = prop::collection::vec(of(any::<String>()), 6);
    let values = (json_text(), json_text(), json_text());
    (any::<String>(), texts, (time(), time()), values, map(), of(any::<bool>())).prop_map(
        |(assessment_id, texts, times, values, metadata, valid)| Assessment {
            assessment_id,
            assessment_name: texts[0].clone(),
            span_id: texts[1].clone(),
            source_type: texts[2].clone(),
            source_id: texts[3].clone(),
            create_time_micros: times.0,
            last_update_time_micros: times.1,
            feedback_json: values.0,
            expectation_json: values.1,
            issue_json: values.2,
            rationale: texts[4].clone(),
            metadata,
            overrides: texts[5].clone(),
            valid,
        },
    )
}

fn trace_info() -> impl Strategy<Value = TraceInfo> {
    let state = prop_oneof![
        Just(TraceState::Ok),
        Just(TraceState::Error),
        Just(TraceState::InProgress),
        Just(TraceState::Unspecified),
    ];
    let id = any::<[u8; 16]>().prop_map(TraceId).prop_filter("not all zero", |id| id.is_valid());
    let texts = prop::collection::vec(of(any::<String>()), 3);
    let assessments = prop::collection::vec(assessment(), 0..3);
    (id, texts, time(), of(any::<i64>()), state, (map(), map()), assessments).prop_map(
        |(trace_id, texts, request_time_micros, duration, state, maps, assessments)| TraceInfo {
            client_request_id: texts[0].clone(),
            request_time_micros,
            execution_duration_ms: duration,
            state,
            request_preview: texts[1].clone(),
            response_preview: texts[2].clone(),
            trace_metadata: maps.0,
            tags: maps.1,
            assessments,
            ..TraceInfo::new(trace_id)
        },
    )
}

/// Seeds of failures are kept beside this file.
fn config() -> ProptestConfig {
    let persistence = FileFailurePersistence::WithSource("regressions");
    ProptestConfig { failure_persistence: Some(Box::new(persistence)), ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]

    /// Scenario: any trace info, written as a start_trace body and read again.
    /// Guarantees: the identity, to the microsecond, the digit and the empty string.
    #[test]
    fn writing_and_reading_a_trace_info_is_the_identity(
        info in trace_info(),
        experiment in of(0_i64..1_000_000_000_000_000_000),
    ) {
        let experiment = experiment.map(ExperimentId::from);
        let body = start_trace_body(&info, experiment.as_ref());
        let start = read_start_trace(&body).unwrap();
        prop_assert_eq!(&start.experiment_id, &experiment);
        prop_assert_eq!(&start.info, &info);

        // The answer of the API says the same, as far as serde_json can hold its numbers.
        let plain = TraceInfo { assessments: Vec::new(), ..info };
        let answer = serde_json::json!({
            "trace": {"traceInfo": write_trace_info(&plain, experiment.as_ref())}
        });
        let start = read_start_trace(&serde_json::to_vec(&answer).unwrap()).unwrap();
        prop_assert_eq!(start.info, plain);
    }

    /// Scenario: any assessment, as an answer and read again.
    /// Guarantees: the identity for all but the numbers of its value.
    #[test]
    fn writing_and_reading_an_assessment_is_the_identity(assessment in assessment()) {
        let assessment = Assessment {
            feedback_json: assessment.feedback_json.map(|_| "{\"value\":0.847}".into()),
            expectation_json: None,
            issue_json: None,
            ..assessment
        };
        let body = serde_json::to_vec(&write_assessment(&assessment, None)).unwrap();
        prop_assert_eq!(read_assessment(&body).unwrap(), assessment);
    }

    /// Scenario: recorded forms with bytes cut, changed or added.
    /// Guarantees: no panic; transcoded bytes are always well framed.
    #[test]
    fn mutated_documents_never_panic(
        version_2 in any::<bool>(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0_u8..3), 0..8),
    ) {
        let spans = if version_2 { VERSION_2 } else { CURRENT };
        let infos = "{\"trace\":{\"trace_info\":{\"trace_id\":\"tr-647c3391b6b41d8f6e033e3bfb7a362f\",\
            \"request_time\":\"2026-11-22T13:25:50.663Z\",\"execution_duration\":\"0.093s\",\
            \"tags\":{\"a\":\"b\"},\"assessments\":[{\"feedback\":{\"value\":1}}]}}}";
        for text in [spans, infos] {
            let mut body = text.as_bytes().to_vec();
            for (at, byte, edit) in &edits {
                let at = at.index(body.len());
                match edit {
                    0 => body[at] = *byte,
                    1 => body.insert(at, b"{}[]\",:0\\-"[usize::from(*byte) % 10]),
                    _ => { body.remove(at); }
                }
            }
            prop_assert!(read_start_trace(&body).map_or_else(is_named, |_| true));
            prop_assert!(read_assessment(&body).map_or_else(is_named, |_| true));
            if let Ok((protobuf, _)) = traces_json_to_protobuf(&body, None) {
                let limits = Limits::default();
                prop_assert!(decode_otlp(&protobuf.into(), SpanSource::Mlflow, &limits).is_ok());
            }
        }
    }
}

/// An error says where it is.
fn is_named(error: DecodeError) -> bool {
    matches!(error, DecodeError::Json { .. } | DecodeError::Shape { .. })
}

const CURRENT: &str = "{\"spans\":[{\"trace_id\":\"ZHwzkba0HY9uAz47+3o2Lw==\",\"span_id\":\
    \"nmjiygJDxdA=\",\"parent_span_id\":\"7R7oDSGIcpU=\",\"start_time_unix_nano\":1795353950663396024,\
    \"events\":[{\"name\":\"e\",\"time_unix_nano\":7,\"attributes\":{\"a\":[1]}}],\"status\":{\"code\":\
    \"STATUS_CODE_OK\"},\"attributes\":{\"k\":\"{\\\"a\\\": [1, 2.5, \\\"\\\\ud83d\\\"]}\"},\"links\":\
    [{\"trace_id\":\"tr-00000000000000000000000000000001\",\"span_id\":\"0000000000000002\"}]}]}";
const VERSION_2: &str = "{\"spans\":[{\"context\":{\"trace_id\":\"0x647c3391b6b41d8f6e033e3bfb7a362f\",\
    \"span_id\":\"0x9e68e2ca0243c5d0\"},\"parent_id\":null,\"start_time\":1,\"end_time\":2,\
    \"status_code\":\"OK\",\"attributes\":{\"k\":[1,{\"a\":null}]},\"events\":[]}]}";
