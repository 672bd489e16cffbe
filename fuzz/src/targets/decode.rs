//! The decoders: what they accept is kept whole, what they transcode they can read.

use bytes::Bytes;
use tracelake_decode::any_value::{json_to_message, to_json};
use tracelake_decode::content_encoding::{ContentEncoding, decompress};
use tracelake_decode::conventions::{Payload, interpret, interpret_trace};
use tracelake_decode::mlflow_json::{
    TraceFile, read_assessment, read_start_trace, read_trace_file, start_trace_body,
    traces_json_to_protobuf, write_assessment,
};
use tracelake_decode::request::encode_request;
use tracelake_decode::{
    DecodeError, DecodedSpans, RecordContent, RecordHeader, RecordKind, ResourceView, ScopeView,
    SpanRecord, SpanSource, ValueView, decode_otlp, decode_record, otlp_json as json,
};
use tracelake_model::{Limits, TraceId};

/// Limits so tight that small inputs meet them.
fn tight() -> Limits {
    Limits {
        max_body_bytes: 4_096,
        max_decompressed_bytes: 4_096,
        max_attributes: 2,
        max_nesting_depth: 2,
        max_events: 1,
        max_expanded_bytes: 256,
        max_span_bytes: 128,
    }
}

/// OTLP as protobuf: accepted spans survive being written and read again, and every view of them
/// can be taken. Tighter limits never accept more.
pub(crate) fn otlp_protobuf(data: &[u8]) {
    let body = Bytes::copy_from_slice(data);
    // What a limit refuses is not looked into, so tight limits may pass over broken framing.
    let narrow = decode_otlp(&body, SpanSource::Otlp, &tight());
    let Ok(decoded) = decode_otlp(&body, SpanSource::Otlp, &Limits::default()) else { return };
    check(&decoded.spans);
    let narrow = narrow.expect("limits refuse spans only");
    assert!(narrow.spans.len() <= decoded.spans.len());
    assert_eq!(count(&narrow), count(&decoded), "a span is accepted or rejected");
    let weight: usize = narrow.spans.iter().map(SpanRecord::weight_bytes).sum();
    assert!(weight <= tight().max_expanded_bytes);
}

fn count(decoded: &DecodedSpans) -> usize {
    decoded.spans.len() + decoded.rejected_spans()
}

/// OTLP as JSON: what is written is protobuf that can be read, span for span.
pub(crate) fn otlp_json(data: &[u8]) {
    let Ok((protobuf, rejects)) = json::to_protobuf(data) else { return };
    transcoded(protobuf, SpanSource::Otlp);
    assert!(rejects.iter().all(|reject| !reject.reason.chars().any(char::is_control)));
}

/// MLflow's `traces.json`, with the trace named by the request or not.
pub(crate) fn traces_json(data: &[u8]) {
    for trace in [None, Some("tr-0123456789abcdef0123456789abcdef")] {
        let Ok((protobuf, rejects)) = traces_json_to_protobuf(data, trace) else { continue };
        let spans = transcoded(protobuf, SpanSource::Mlflow);
        assert!(rejects.iter().all(|reject| !reject.reason.chars().any(char::is_control)));
        let named = trace.and_then(TraceId::parse);
        assert!(spans.iter().all(|span| named.is_none_or(|named| named == span.trace_id)));
    }
}

/// A file of any of the kinds that `import` takes.
pub(crate) fn trace_file(data: &[u8]) {
    for trace in [None, TraceId::parse("tr-0123456789abcdef0123456789abcdef")] {
        match read_trace_file(data, trace) {
            Ok(TraceFile::Otlp(protobuf, _)) => drop(transcoded(protobuf, SpanSource::Otlp)),
            Ok(TraceFile::Mlflow(traces)) => {
                for trace in traces.into_iter().flatten() {
                    if let Some(protobuf) = trace.protobuf {
                        transcoded(protobuf, SpanSource::Mlflow);
                    }
                    assert!(trace.info.is_none_or(|start| start.info.trace_id.is_valid()));
                }
            }
            Ok(TraceFile::Other) | Err(_) => {}
        }
    }
}

/// What a transcoder wrote is well formed, and only limits may refuse a part of it.
fn transcoded(protobuf: Vec<u8>, source: SpanSource) -> Vec<SpanRecord> {
    let limits = Limits { max_nesting_depth: 512, ..Limits::default() };
    let decoded = match decode_otlp(&protobuf.into(), source, &limits) {
        Ok(decoded) => decoded,
        Err(DecodeError::Empty) => return Vec::new(),
        Err(error) => panic!("a transcoder wrote what cannot be read: {error}"),
    };
    for reject in &decoded.rejects {
        let known = ["id is not 16 bytes", "id is not 8 bytes", "levels"];
        assert!(known.iter().any(|end| reject.reason.ends_with(end)), "{reject:?}");
    }
    check(&decoded.spans);
    decoded.spans
}

/// Every property of accepted spans.
fn check(spans: &[SpanRecord]) {
    for span in spans {
        assert!(span.trace_id.is_valid() && span.span_id.is_valid());
        assert!(span.same_content(span));
        check_values(span);
        check_meaning(span);
    }
    let again = decode_otlp(&encode_request(spans).into(), SpanSource::Otlp, &Limits::accepted());
    let again = match again {
        Ok(again) => again,
        Err(DecodeError::Empty) if spans.is_empty() => return,
        Err(error) => panic!("what was written cannot be read: {error}"),
    };
    assert_eq!(again.rejects, []);
    assert_eq!(again.spans.len(), spans.len());
    for (left, right) in spans.iter().zip(&again.spans) {
        assert_eq!(left.message, right.message);
        assert_eq!(left.parent, right.parent);
        assert_eq!(left.group.experiment_id, right.group.experiment_id);
        assert!(left.same_content(right) && right.same_content(left));
    }
    let meaning = interpret_trace(spans);
    assert!(meaning.services.len() <= spans.len());
}

fn check_values(span: &SpanRecord) {
    let view = span.view();
    let resource = ResourceView::new(&span.group.resource);
    let scope = ScopeView::new(&span.group.scope);
    let attributes = view
        .attributes()
        .chain(view.events().flat_map(|event| event.attributes().collect::<Vec<_>>()))
        .chain(view.links().flat_map(|link| link.attributes().collect::<Vec<_>>()))
        .chain(resource.attributes())
        .chain(scope.attributes());
    for attribute in attributes {
        let text = to_json(attribute.value());
        let message = json_to_message(&text).expect("a value's JSON text can be read");
        assert_eq!(to_json(ValueView::new(&message)), text);
    }
}

fn check_meaning(span: &SpanRecord) {
    let view = span.view();
    let meaning = interpret(&view);
    let attributes = view.attributes().count();
    for payload in [&meaning.inputs, &meaning.outputs].into_iter().flatten() {
        if let Payload::Attribute { position, .. } = payload {
            assert!(*position < attributes);
        }
        let text = payload.text();
        assert!(json_to_message(&text).is_ok() || !text.is_empty(), "{text:?}");
    }
}

/// `start_trace`: writing and reading again changes nothing, from the first writing on.
pub(crate) fn start_trace(data: &[u8]) {
    let Ok(first) = read_start_trace(data) else { return };
    assert!(first.info.trace_id.is_valid());
    let written = start_trace_body(&first.info, first.experiment_id.as_ref());
    let second = read_start_trace(&written).expect("what was written can be read");
    assert_eq!(second.experiment_id, first.experiment_id);
    assert_eq!(second.info.trace_id, first.info.trace_id);
    assert_eq!(second.info.tags, first.info.tags);
    assert_eq!(second.info.trace_metadata, first.info.trace_metadata);
    assert_eq!(second.info.assessments.len(), first.info.assessments.len());
    let again = start_trace_body(&second.info, second.experiment_id.as_ref());
    assert_eq!(String::from_utf8_lossy(&again), String::from_utf8_lossy(&written));
}

/// An assessment: as [`start_trace`].
pub(crate) fn assessment(data: &[u8]) {
    let Ok(first) = read_assessment(data) else { return };
    let written = write_assessment(&first, None).to_string();
    let second = read_assessment(written.as_bytes()).expect("what was written can be read");
    assert_eq!(write_assessment(&second, None).to_string(), written);
    assert_eq!(second.assessment_id, first.assessment_id);
    assert_eq!(second.assessment_name, first.assessment_name);
    assert_eq!(second.span_id, first.span_id);
}

/// Compressed bodies: never more than the limit.
pub(crate) fn content_encoding(data: &[u8]) {
    let Some((choice, body)) = data.split_first() else { return };
    let encodings = [
        ContentEncoding::Gzip,
        ContentEncoding::Deflate,
        ContentEncoding::Zstd,
        ContentEncoding::Identity,
    ];
    let encoding = encodings[usize::from(*choice) % encodings.len()];
    let body = Bytes::copy_from_slice(body);
    let limit = 64 << 10;
    match decompress(encoding, &body, limit) {
        Ok(out) => {
            assert!(out.len() <= limit);
            assert_eq!(decompress(encoding, &body, out.len()), Ok(out));
        }
        Err(DecodeError::TooLarge { limit_bytes }) => assert_eq!(limit_bytes, limit),
        Err(DecodeError::Compression { .. }) => assert!(!encoding.is_identity()),
        Err(error) => panic!("{error}"),
    }
}

/// A journal record, as a replay reads it: two bytes with the header's length, header, payload.
pub(crate) fn record(data: &[u8]) {
    let Some((length, rest)) = data.split_first_chunk() else { return };
    let Some((header, payload)) = rest.split_at_checked(usize::from(u16::from_le_bytes(*length)))
    else {
        return;
    };
    let Ok(mut header) = RecordHeader::from_bytes(header) else { return };
    assert_eq!(RecordHeader::from_bytes(&header.to_bytes()).as_ref(), Ok(&header));
    header.limits.max_decompressed_bytes = header.limits.max_decompressed_bytes.min(64 << 10);
    header.limits.max_nesting_depth = header.limits.max_nesting_depth.min(512);
    let kind = header.kind;
    let payload = Bytes::copy_from_slice(payload);
    let Ok(decoded) = decode_record(header.clone(), &payload) else { return };
    assert_eq!(decoded.header, header);
    match decoded.content {
        RecordContent::Spans(spans) => {
            assert_ne!(kind, RecordKind::MlflowStartTrace);
            check(&spans.spans);
        }
        RecordContent::TraceInfo(info) => {
            assert_eq!(kind, RecordKind::MlflowStartTrace);
            assert!(info.trace_id.is_valid());
        }
        RecordContent::Changes(_) => assert_eq!(kind, RecordKind::TraceChanges),
        RecordContent::Words(_) => assert_eq!(kind, RecordKind::CarriedWords),
    }
}

/// A value's JSON text, as a table that others write to may hold it.
pub(crate) fn any_value(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let Ok(message) = json_to_message(&text) else { return };
    let written = to_json(ValueView::new(&message));
    let again = json_to_message(&written).expect("what was written can be read");
    assert_eq!(to_json(ValueView::new(&again)), written);
}
